"""Real logs without labels: who stands at the top, and how many attackers that were woven in are found.

    python -m tests.realdata.unlabelled [--keep DIR]

A site's log is cut in two by time. The command line trains on the first half with attackers woven in, then scores the
second half and two days of another site, which is scanned a lot; the first ten clients of each were read in the raw lines
and judged by a person. Attackers woven into the second half by other seeds, five times for each grade, give the recall of
clients at the default challenge budget. The first log lost its minutes and its seconds (every line is of some second of the
fifth minute), so nothing in it tells of pace; the other site's log is as a server writes it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import re
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from classifier.cli.app import app

WEB = Path(__file__).resolve().parents[3] / "shared" / "data" / "web"
SITE = "elastic_apache.log.gz"
SCANNED = ("secrepo_2021-10-22.log.gz", "secrepo_2022-12-22.log.gz")
TOP = 10
GRADES = ("plain", "evasive")
SEEDS = (11, 12, 13, 14, 15)
"""Seeds of the attackers of the second half; those of the first half have another."""
CAPACITY = "16384"
"""Clients that the tables are made for: several times those of these logs."""
_STAMP = re.compile(rb"\[([^\]]+)\]")
_LINE = re.compile(r'^(\S+) .*?\[([^\]]+)\] "([^"]*)" (\d{3}) .*?"([^"]*)" "([^"]*)"')
_TOTALS = re.compile(r"read ([\d,]+) = accepted ([\d,]+) \+ rejected ([\d,]+)")

JUDGED: Final = {
    "1f409e32": "person, wrongly accused: the front page with its assets and referers",
    "53f15cf7": "scanner: asks for backups and archives that are not there",
    "23cded6c": "scanner: asks for backups and archives that are not there",
    "4ed0ce96": "scanner: asks for /wp-login.php, /administrator/ and /admin.php",
    "6f14b897": "scanner: asks for /wp-login.php, /administrator/ and /admin.php",
    "6e085549": "person, wrongly accused: two project pages, one after the other, in a current browser",
    "21b6b2c9": 'undeclared bot: crawls as "chromeframe", robots.txt first, no asset',
    "cebdc722": 'undeclared bot: crawls as "chromeframe", robots.txt first, no asset',
    "ad96a63e": "declared bot: Ezooms, with an address to write to",
    "c8a55889": "declared bot: Ezooms, with an address to write to",
    "8b3f082a": "undeclared bot: crawls page by page as Internet Explorer 6, no asset",
    "33feb4ea": "undeclared bot: one page five times in an hour as Internet Explorer 6, no asset",
    "30235fc4": 'undeclared bot: two pages as "Ruby"',
    "e9bd5eb6": "undeclared bot: single pages over days as Internet Explorer 6, no asset, no referer",
    "d4d538d6": "declared bot: MJ12bot",
    "0892e14f": "person, wrongly accused: pages with their assets and referers",
    "b363f1b5": "person, wrongly accused: pages with their assets and referers",
    "bb8ddbfc": "person, most likely: one page of an article",
    "4ba52f16": "undeclared bot: builds links from the words of the page, eight requests in a burst, no asset",
    "a7730d50": "scanner: upload scripts and shells",
    "94feacd6": "scanner: exploits of editors and of ThinkPHP",
    "da60e0ed": "person, most likely, wrongly accused: a page with its assets and referers; something of theirs reads robots.txt",
    "0c65cef9": "undeclared bot: the front page over and over with made-up referers, no asset",
    "9a8196ed": "person, wrongly accused: one download in pieces, by a download manager",
    "d0e70049": "person, wrongly accused: one download in pieces, by a download manager",
    "02321c38": "undeclared bot: follows the redirect to the front page, takes no asset, leaves",
    "82f8a2c2": "undeclared bot: follows the redirect to the front page, takes no asset, leaves",
    "6bf1f0a6": "undeclared bot: follows the redirect to the front page, takes no asset, leaves",
    "5a9558ab": "undeclared bot: follows the redirect to the front page, takes no asset, leaves",
    "1710c165": "undeclared bot: follows the redirect to the front page, takes no asset, leaves",
    "8cbd367c": "declared bot: Birdcrawlerbot",
    "e58f9c03": "declared bot: BLEXBot",
    "9734604d": "declared bot: Twitterbot",
    "cd9643f6": "person, wrongly accused: the front page with its assets and referers",
    "a5a7a389": "person, wrongly accused: the front page with its assets and referers",
    "bcccb30c": "person, wrongly accused: the front page with its assets and referers",
    "ef13782b": "undeclared bot: a page that nobody links to, alone, in an old browser",
    "8d85fa03": "undeclared bot: the front page without assets, then data files one after the other, no referer",
    "3733e360": "scanner: posts to an upload script with python-requests",
    "df3d3f20": "scanner: tries to fetch the site's git repository",
    "f1dab092": "scanner: tries to fetch the site's git repository",
    "61f18a4b": "undeclared bot: robots.txt and nothing else, as a browser",
    "09bb79c3": "undeclared bot: robots.txt and nothing else, as a browser",
    "5b19c61a": "scanner: remote execution in ThinkPHP",
    "3ab245d5": "scanner: log-in page of a product that is not there",
    "266292d3": "undeclared bot: two user agents, one of them a library's",
    "d9c12c50": "scanner: one of hundreds that ask for copies of the site",
    "a951fbf8": "scanner: asks for backups and archives that are not there",
    "f5adbee6": "scanner: asks for backups and archives that are not there",
    "712f1317": "scanner: asks for backups and archives that are not there",
    "09627585": "scanner: asks for backups and archives that are not there",
    "a9c8081c": "scanner: asks for backups and archives that are not there",
    "ee042a5e": "scanner: asks for backups and archives that are not there",
    "546e8294": "scanner: asks for backups and archives that are not there",
    "6f277fb6": "scanner: asks for backups and archives that are not there",
    "63e7bc83": 'undeclared bot: an invented "Windows NT 9.0", and pages that are cut off in the middle of an entity',
    "8b9810b0": "people behind one address, wrongly accused: pages with their assets and referers, several browsers",
    "a53d241a": "person, wrongly accused: pages with their assets and referers, some of them still in the cache",
    "c17c7c99": "person, wrongly accused: the slides of a talk with their scripts and pictures",
    "9349134d": "scanner: asks for /wp-login.php, /administrator/ and /admin.php",
    "5b6af8f6": "scanner: looks for an old editor under one of the pages",
    "73f24ab8": "person: one page with its assets and referers, in several visits; not acted on",
    "b1b5a06d": "person, wrongly accused: the front page with its assets and referers, then a download",
    "4f5ba1cc": "person, wrongly accused: the front page with its assets and referers, twice",
    "3b172feb": "scanner: asks for backups and archives that are not there",
    "f6adc352": "scanner: asks for backups and archives that are not there",
    "5ef959c1": "scanner: asks for backups and archives that are not there",
    "02150b78": "undeclared bot: a registration form that is not there, with a referer of another page",
    "b82ee2df": "undeclared bot: a registration form that is not there, with a referer of another page",
    "acbea43d": "person: one document in pieces, by a browser's reader; not acted on",
    "956b4256": "person: the front page with its assets and referers; not acted on",
    "1ba0dac0": "person: the front page with its assets and referers; not acted on",
    "7bc2b082": "person, wrongly accused: the front page with its assets and referers",
    "5c691113": "person, wrongly accused: the front page, twice, with what is not in the cache",
    "1ce4d4e4": "scanner: asks for backups and archives that are not there",
    "2935df88": "scanner: asks for backups and archives that are not there",
    "d4296b99": "scanner: asks for backups and archives that are not there",
    "51ba36b3": "person: an article with its assets and referers; not acted on",
    "14c5a911": "person, wrongly accused: a page of a list with its assets and referers",
}
"""What a person who read the raw lines says of a client, by the first eight digits of the SHA-256 of its address."""


@dataclass(frozen=True)
class Client:
    """A scored client, with what its raw lines say."""

    name: str
    requests: int
    probability: float
    decision: str
    reasons: str
    agents: Counter[str]
    statuses: Counter[str]
    referers: int
    paths: list[str]

    @property
    def judgement(self) -> str:
        """What a person said of it."""
        return JUDGED.get(sha256(self.name.encode()).hexdigest()[:8], "not judged")


@dataclass
class Found:
    """The result: the first clients of each log and, by grade and seed, attackers caught and what of the log was touched.

    `caught` holds how many of how many, by family ("all" for all); `totals` what each command read, accepted and rejected.
    """

    top: dict[str, list[Client]] = field(default_factory=dict)
    caught: dict[tuple[str, int], dict[str, tuple[int, int]]] = field(default_factory=dict)
    touched: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    totals: list[tuple[int, int, int]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def recall(self, grade: str, family: str = "all") -> tuple[int, int]:
        """Return attackers caught and attackers of a grade, of all seeds together."""
        counts = [families.get(family, (0, 0)) for (one, _), families in self.caught.items() if one == grade]
        return sum(caught for caught, _ in counts), sum(attackers for _, attackers in counts)


def measure(web: Path, folder: Path) -> Found:
    """Train, score and evaluate with the command line, in `folder`; read what it wrote."""
    first, second = halves(web / SITE, folder)
    bundle, figures = folder / "bundle", folder / "figures.json"
    found = Found()
    _run(found, "train", first, "--bundle", bundle, "--inject", "all", "--capacity", CAPACITY)
    for log in (second, *(web / name for name in SCANNED)):
        out = folder / f"{log.name.partition('.')[0]}.csv"
        _run(found, "score", log, "--bundle", bundle, "--per", "client", "--out", out)
        found.top[log.name] = top(out, log)
    for grade, seed in product(GRADES, SEEDS):
        woven = ("--inject", f"all:{grade}", "--seed", seed)
        _run(found, "evaluate", second, "--bundle", bundle, *woven, "--json", figures)
        groups = json.loads(figures.read_text())["groups"]
        found.caught[grade, seed] = {g["family"]: _caught(g) for g in groups if g["kind"] == "attack"}
        found.touched[grade, seed] = next(g for g in groups if g["kind"] == "legitimate" and g["overall"])
    return found


def _caught(group: dict[str, Any]) -> tuple[int, int]:
    return round(group["clients"] * group["clients_acted_on"]["value"]), group["clients"]


def halves(log: Path, folder: Path) -> tuple[Path, Path]:
    """Cut a combined log in the middle of its time; lines keep their order."""
    lines = gzip.decompress(log.read_bytes()).splitlines(keepends=True)
    times = [_time(line) for line in lines]
    middle = min(times) + (max(times) - min(times)) / 2
    parts = folder / "first_half.log", folder / "second_half.log"
    for number, part in enumerate(parts):
        part.write_bytes(b"".join(line for line, at in zip(lines, times, strict=True) if (at >= middle) == number))
    return parts


def top(scores: Path, log: Path) -> list[Client]:
    """Return the first clients of `score --per client`, with their raw lines summarised."""
    with scores.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:TOP]
    raw = gzip.decompress(log.read_bytes()) if log.suffix == ".gz" else log.read_bytes()
    matches = [match for line in raw.decode("utf-8", "replace").splitlines() if (match := _LINE.match(line))]
    return [_client(row, [m for m in matches if m[1] == row["client"]]) for row in rows]


def _client(row: dict[str, str], lines: list[re.Match[str]]) -> Client:
    return Client(
        name=row["client"],
        requests=int(row["requests"]),
        probability=float(row["max_probability"]),
        decision=row["decision"],
        reasons=row["reasons"],
        agents=Counter(line[6] for line in lines),
        statuses=Counter(line[4] for line in lines),
        referers=sum(line[5] != "-" for line in lines),
        paths=[line[3].rpartition(" ")[0] for line in lines],
    )


def _time(line: bytes) -> datetime:
    stamp = _STAMP.search(line)
    assert stamp is not None, line
    return datetime.strptime(stamp[1].decode(), "%d/%b/%Y:%H:%M:%S %z")


def _run(found: Found, *arguments: object) -> None:
    """Run a command in this process and note what it read; it fails as the command would."""
    texts = [str(argument) for argument in arguments]
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        app(texts, prog_name="botsieve", standalone_mode=False)
    totals = _TOTALS.search(" ".join(said.getvalue().split()))
    assert totals is not None, said.getvalue()
    read, accepted, rejected = (int(number.replace(",", "")) for number in totals.groups())
    found.totals.append((read, accepted, rejected))
    found.commands.append(" ".join(["botsieve", *(Path(t).name if "/" in t else t for t in texts)]))


def _show(found: Found) -> None:
    for command, (read, accepted, rejected) in zip(found.commands, found.totals, strict=True):
        print(f"$ {command}\n  read {read:,} = accepted {accepted:,} + rejected {rejected:,}")
    for log, clients in found.top.items():
        sought = sum(client.judgement.startswith(("scanner", "undeclared bot")) for client in clients)
        print(f"\n{log}: {sought} of {len(clients)} are scanners or undeclared bots")
        for place, client in enumerate(clients, 1):
            print(
                f"{place:2} {client.name} {client.requests} requests, {client.probability:.3f}, {client.decision} "
                f"[{client.reasons}]\n     judged: {client.judgement}"
            )
            agent, count = client.agents.most_common(1)[0]
            statuses = ", ".join(f"{status}: {n}" for status, n in client.statuses.most_common())
            print(f"     {count} as {agent[:110]!r}; {statuses}; {client.referers} with referer")
            shown = client.paths[:: max(1, len(client.paths) // 5)][:5]
            print("     " + "\n     ".join(path[:110] for path in shown))
    print("\nattackers woven into the second half, challenged or blocked at least once")
    for (grade, seed), families in found.caught.items():
        (caught, attackers), touched = families["all"], found.touched[grade, seed]
        own = (
            f"{touched['acted_on']['value']:.2%} of {touched['requests']:,} requests and "
            f"{touched['clients_acted_on']['value']:.2%} of {touched['clients']:,} clients of the log challenged"
        )
        print(f"  {grade:8} seed {seed:6} {caught:4} of {attackers:4} ({caught / attackers:.3f}); {own}")
    for grade in GRADES:
        for family in found.caught[grade, SEEDS[0]]:
            caught, attackers = found.recall(grade, family)
            print(f"  {grade:8} {family:20} {caught:4} of {attackers:4} ({caught / attackers:.3f})")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--web", type=Path, default=WEB, help="folder of the logs")
    parser.add_argument("--keep", type=Path, help="folder to keep the bundle and the scores in")
    given = parser.parse_args()
    with TemporaryDirectory() as passing:
        folder = given.keep or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        _show(measure(given.web, folder))


if __name__ == "__main__":
    main()
