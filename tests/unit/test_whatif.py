"""A what-if: refusals that feed back, who solves challenges, and the command."""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, VERDICTS
from classifier.features.spec import COLUMN, NAMES
from classifier.model.apply import SCORES, Scored
from classifier.policy import LOAD, Policy, Thresholds, legitimate_curve
from classifier.whatif.causal import enforced
from classifier.whatif.run import Options, WhatIf, what_if
from classifier.whatif.solving import Solving
from classifier.whatif.telling import cells, print_table
from tests.unit.command_line import Made, done, jsonl, refused

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
LIBRARY = "OpenAI/Python 1.40.0"


def log(n: int = 2_000, seed: int = 0, clients: int = 20, labels: bool = True) -> pa.Table:
    """Requests of an hour; every fifth client attacks."""
    rng = np.random.default_rng(seed)
    client = rng.integers(0, clients, n)
    hostile = client % 5 == 0
    columns = {
        "time": np.sort(rng.integers(1_767_600_000_000_000, 1_767_603_600_000_000, n)),
        "ip": [f"192.0.2.{c}" for c in client],
        "method": ["POST"] * n,
        "path": ["/v1/chat/completions"] * n,
        "duration": rng.uniform(0.1, 2.0, n),
        "status": np.full(n, 200),
        "user_agent": [BROWSER if c % 2 else LIBRARY for c in client],
        "input_tokens": rng.integers(1, 200, n),
        "output_tokens": rng.integers(1, 200, n),
    }
    if labels:
        columns |= {"malicious": hostile, "family": ["flood" if h else "person" for h in hostile]}
    return pa.table(
        {f.name: pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in EVENT_SCHEMA}
    )


def without_tokens(events: pa.Table) -> pa.Table:
    for name in ("input_tokens", "output_tokens"):
        place = events.schema.get_field_index(name)
        events = events.set_column(place, name, pa.nulls(events.num_rows, pa.int64()))
    return events


def by_spending(tables: Iterable[pa.Table], explain: bool = True) -> Iterator[Scored]:
    """A judge whose verdict depends on what its refusals left: who has spent much lately is challenged, or blocked."""
    spent: defaultdict[str, float] = defaultdict(float)
    row = 0
    for table in tables:
        codes = []
        for event in table.to_pylist():
            before = spent[event["ip"]] * 0.9
            spent[event["ip"]] = before + (event["output_tokens"] or 0.0)
            codes.append(2 if before > 700 else 1 if before > 500 else 0)
        n = len(codes)
        yield Scored(
            pa.table(
                {
                    "row": np.arange(row, row + n),
                    "time": table.column("time").to_numpy() / 1e6,
                    "client": table.column("ip"),
                    "raw": np.array(codes, np.float32),
                    "probability": np.zeros(n, np.float32),
                    "score": np.full(n, 50),
                    "decision": pa.array(np.array(VERDICTS, dtype=object)[codes]),
                    "reasons": pa.array(["tokens" if c and explain else None for c in codes], pa.string()),
                    "family": pa.nulls(n, pa.string()),
                },
                schema=SCORES,
            ),
            table,
            np.full((n, len(NAMES)), np.nan, np.float32),
        )
        row += n


def at_once(events: pa.Table, begins: float) -> np.ndarray:
    """What that judge decides when it hears of each refusal at once: one pass, event by event."""
    spent: defaultdict[str, float] = defaultdict(float)
    codes, start = [], events.column("time")[0].as_py()
    for event in events.to_pylist():
        before = spent[event["ip"]] * 0.9
        code = 2 if before > 700 else 1 if before > 500 else 0
        acts = (event["time"] - start) / 1e6 >= begins
        lost = acts and (code == 2 or (code == 1 and event["user_agent"] != BROWSER))
        spent[event["ip"]] = before + (0.0 if lost else event["output_tokens"])
        codes.append(code)
    return np.array(codes)


@pytest.mark.parametrize("begins", [0.0, 1200.0])
def test_decisions_are_those_of_a_run_that_hears_of_each_refusal_at_once(begins: float) -> None:
    events = log()
    tables = [events.slice(0, 700), events.slice(700)]
    solving = Solving(attackers="as-software")
    ran = enforced(tables, by_spending, lambda t: solving.solve(t.software, t.family, t.attack), begins, rounds=200)
    assert ran.unsettled == 0
    assert ran.rounds > 2
    assert (ran.decided.code == at_once(events, begins)).all()
    assert (ran.shadow.code != ran.decided.code).any()
    assert not ran.refused[ran.traffic.time < begins].any()
    assert not (ran.refused & ran.solved).any()


def test_too_few_rounds_are_told() -> None:
    solving = Solving()
    found = what_if([log()], by_spending, 0.05, solving, Options(capacity=5000.0))
    rough = enforced([log()], by_spending, lambda t: solving.solve(t.software, t.family, t.attack), 0.0, rounds=2)
    assert rough.unsettled > 0
    assert any("times" in note for note in found.notes) == (found.enforced.unsettled > 0)


def test_who_solves_is_a_table_that_can_be_overridden() -> None:
    software, family = (
        np.array(["browser", "library", "library"], object),
        np.array(["person", "agent", "flood"], object),
    )
    attack = np.array([False, False, True])
    assert Solving().solve(software, family, attack).tolist() == [True, False, False]
    assert Solving.of("agent", "all", {"agent"}).solve(software, family, attack).tolist() == [False, True, True]
    assert Solving.of("library", "as-software").solve(software, family, attack).tolist() == [False, True, True]
    assert Solving.of("none", "none").solve(software, family, attack).tolist() == [False, False, False]
    with pytest.raises(InputError, match="'agnet' is none of"):
        Solving.of("agnet", "all", {"agent"})


def test_limits_hold_the_budget_on_the_part_they_are_tuned_on_and_every_request_is_accounted_for() -> None:
    found = what_if([log(6_000)], by_spending, 0.05, Solving(), Options(capacity=3000.0))
    assert [one.name for one in found.outcomes] == [
        "legitimate alone", "no defence", "address requests", "address tokens", "key tokens", "botsieve",
    ]  # fmt: skip
    for one in found.outcomes:
        assert one.in_time + one.late + one.gave_up + one.lost == one.legitimate
        assert one.attack_tokens_served <= one.attack_tokens
    alone, bare, *_, ours = found.outcomes
    assert alone.attack == 0
    assert bare.lost == 0
    assert ours.attack_served < bare.attack_served
    shares = found.forecast["shares"]
    assert shares["all"]["requests"] == shares["legitimate"]["requests"] + shares["attack"]["requests"]
    assert json.loads(json.dumps(found.as_json()))["defences"][-1]["name"] == "botsieve"


@pytest.mark.parametrize("state", ["calm", "surge", "attack"])
def test_under_attack_a_full_server_takes_known_clients_first(state: str) -> None:
    """Ten clients had come for long; what load turns away is others', and only while there is an attack."""
    begins, events = 1200.0, log(6_000)
    old = {f"192.0.2.{number}" for number in range(10)}

    def score(tables: Iterable[pa.Table], explain: bool = True) -> Iterator[Scored]:
        for part in by_spending(tables, explain):
            known = np.isin(part.events.column("ip").to_pylist(), list(old))
            part.rows[:, COLUMN["client_age"]] = np.where(known, 1e5, 0.0)
            part.rows[:, COLUMN["client_requests_seen"]] = 100.0
            yield part

    def situation() -> list[dict[str, object]]:
        first = events.column("time")[0].as_py() / 1e6
        return [{"state": state, "since": first + begins, "onset": first + begins, "until": first + 1e4}]

    curve = legitimate_curve(np.zeros(1_000, np.float32), np.arange(1_000))
    policy = Policy(Thresholds(1.0, 2.0), budget=0.01, curve=curve)
    found = what_if([events], score, 0.05, Solving(), Options(capacity=100.0), situation=situation, policy=policy)
    decided = found.enforced.decided
    turned = np.array([str(reason).startswith(LOAD) for reason in decided.reasons])
    assert turned.any() == (state == "attack")
    # Of who was turned away some could have solved their challenge, but the server was full.
    assert (turned & decided.waits & found.enforced.refused).any() == (state == "attack")
    assert any("wait" in str(reason).split() for reason in decided.reasons) == (state == "attack")
    assert not (decided.waits & found.enforced.solved).any()
    assert not turned[found.traffic.time < begins].any()
    assert not set(found.traffic.names[found.traffic.client[turned]]) & old
    assert found.outcomes[-1].lost == (found.enforced.refused & found.traffic.legitimate).sum()


@pytest.mark.parametrize("labels", [True, False])
def test_a_capacity_that_is_too_small_even_without_an_attack_is_named_with_one_that_is_enough(labels: bool) -> None:
    def played(capacity: float) -> tuple[WhatIf, list[str]]:
        found = what_if([log(labels=labels)], by_spending, 0.05, Solving(), Options(capacity=capacity))
        return found, [note for note in found.notes if "too small" in note]

    small, said = played(15.0)
    assert small.outcomes[0].in_time < 0.95 * small.outcomes[0].legitimate
    assert "even without an attack" in said[0]
    stated = int(said[0].partition("Try --capacity ")[2].partition(",")[0])
    assert played(stated)[1] == []
    assert played(0.7 * stated)[1]


def test_a_calm_service_is_what_botsieve_saw() -> None:
    """The log has attackers; that nothing stood out is no word on whether there were any."""
    states = [[{"state": "calm", "since": 0.0, "until": 60.0, "evidence": []}], []]
    for calm in states:
        found = what_if([log()], by_spending, 0.05, Solving(), Options(), situation=lambda calm=calm: calm)
        console = Console(file=io.StringIO(), width=80)
        print_table(found, console)
        told = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("At no time did botsieve see a surge or an attack." in told) == bool(calm)
        assert "calm" not in told


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [20, 60, 80])
def test_no_terminal_is_too_narrow_for_a_name_or_a_figure(width: int, terminal: bool) -> None:
    events = log()
    accounts = pa.array(
        [f"account-{address}-of-a-customer-with-a-long-name" for address in events.column("ip").to_pylist()]
    )
    place = events.schema.get_field_index("account")
    found = what_if([events.set_column(place, "account", accounts)], by_spending, 0.05, Solving(), Options())
    told = io.StringIO()
    print_table(found, Console(file=told, width=width, force_terminal=terminal, color_system=None))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", told.getvalue()).splitlines()
    for line in found.forecast["clients"][:8]:
        (row,) = (shown for shown in lines if shown.startswith(f"{line['client']} "))
        assert row.split()[1:5] == [line["family"], str(line["requests"]), str(line["touched"]), "tokens"]
    assert "…" not in told.getvalue()
    for outcome in found.outcomes:
        assert " ".join([outcome.name, *cells(outcome)]) in [" ".join(line.split()) for line in lines]


def test_a_log_without_labels_is_forecast_as_legitimate() -> None:
    found = what_if([log(labels=False)], by_spending, 0.05, Solving(), Options())
    assert found.outcomes[0].name == "no defence"
    assert found.forecast["families"] == []
    assert {line["software"] for line in found.forecast["clients"]} <= {"browser", "library"}
    assert found.forecast["reasons"][0]["reason"] == "tokens"


@pytest.mark.parametrize(
    ("events", "budget", "says"),
    [
        (without_tokens(log()), 0.05, "tokens"),
        (log(120), 0.05, "too short"),
        (log(2000), 0.0001, "too short"),
        (log(0), 0.05, "nothing to forecast"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_one_line(events: pa.Table, budget: float, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        what_if([events], by_spending, budget, Solving(), Options())
    assert "\n" not in str(caught.value)


def test_the_command_writes_figures_plot_and_page(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "forecast"
    ran = done("whatif", made.log, "--bundle", made.bundle, "--out", out, "--capacity", 2000, "--threads", 1)
    assert "botsieve would touch" in ran.out
    assert "legitimate alone" in ran.out
    figures = json.loads((out / "whatif.json").read_text(encoding="utf-8"))
    assert figures["server"]["capacity_tokens_per_s"] == 2000
    assert (out / "whatif.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "whatif.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    command = f"botsieve whatif {made.log} --bundle {made.bundle} --out {out} --capacity 2000 --threads 1"
    assert f"<p>Made by <code>{command}</code>.</p>" in page
    assert {path.name for path in out.iterdir()} == {"whatif.json", "whatif.png", "whatif.html"}


def test_bad_usage_is_one_line(made: Made, tmp_path: Path) -> None:
    given = ("whatif", made.log, "--bundle", made.bundle, "--out")
    refused(*given, tmp_path / "a", "--capacity", 0, says="--capacity is a number above 0")
    refused(*given, made.log, says="is a file; name a folder")
    refused(*given, tmp_path / "new" / "b", "--solves", "robots", says="'robots' is none of")
    assert not (tmp_path / "new").exists()
    unread = ("whatif", tmp_path / "no.jsonl", "--bundle", made.bundle, "--out", tmp_path / "a")
    refused(*unread, "--calibration", 2, says="--calibration is a share of the log between 0 and 1, not 2")
    refused(*unread, "--attackers-solve", "maybe", says="--attackers-solve takes as-software, all, none, not maybe")
    bare = tmp_path / "bare.jsonl"
    kept = ("time", "ip", "method", "path", "status", "malicious", "family")
    bare.write_text(
        "\n".join(json.dumps({k: v for k, v in e.items() if k in kept}) for e in jsonl(made.log)), encoding="utf-8"
    )
    refused("whatif", bare, "--bundle", made.bundle, "--out", tmp_path / "c", says="carries input_tokens")
    assert not any((tmp_path / name).exists() for name in "abc")
