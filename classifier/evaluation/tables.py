"""The protocol's result as tables: one list of tables, from which markdown and the page are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from classifier.evaluation.comparison import OURS

Result = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of text. `name` is how a page asks for it, `note` says what it shows."""

    name: str
    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table in markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables_of(result: Result) -> list[Table]:
    """Return every table that a result holds; what was skipped says why in its note."""
    makers: Sequence[Callable[[Result], Table | None]] = (
        _means, _against, _recall, _limits_detail, _left_families, _left_grades, _legitimate, _surge, _attackers, _learning,
        _limit, _floods, _web, _prompts, _counts, _seconds,
    )  # fmt: skip
    return [table for make in makers if (table := make(result)) is not None]


def share(value: float | None, digits: int = 1) -> str:
    """Return a share in per cent."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def interval(cell: dict[str, Any], digits: int = 1) -> str:
    """Return a share in per cent with its interval."""
    if cell["low"] is None:
        return share(cell["value"], digits)
    return f"{share(cell['value'], digits)} [{share(cell['low'], digits)}, {share(cell['high'], digits)}]"


def _grades(result: Result) -> list[str]:
    return list(dict.fromkeys(row["grade"] for row in result["comparison"]["means"]))


def _rates(result: Result) -> list[float]:
    return list(dict.fromkeys(row["rate"] for row in result["comparison"]["means"]))


def _columns(result: Result) -> list[str]:
    return [f"{grade}, {100 * rate:g} %" for grade in _grades(result) for rate in _rates(result)]


def _means(result: Result) -> Table:
    found: dict[str, dict[tuple[str, float], Any]] = {}
    for row in result["comparison"]["means"]:
        found.setdefault(row["method"], {})[row["grade"], row["rate"]] = row
    keys = [(grade, rate) for grade in _grades(result) for rate in _rates(result)]
    rows = [[name, *(interval(cells[key]) for key in keys)] for name, cells in found.items()]
    note = (
        "Recall per client in %, the mean over families, at false positives of 0.1 % and 1 % of legitimate "
        "clients; in brackets 95 %, "
        "campaigns and legitimate clients drawn anew."
    )
    return Table("means", "Beside other methods", note, ["method", *_columns(result)], rows)


def _against(result: Result) -> Table:
    rows = [
        [
            row["grade"], f"{100 * row['rate']:g} %", row["best"], share(row["best_recall"]), share(row["recall"]),
            interval(row["lead"]), "–" if row["gone"] is None else interval(row["gone"]),
            "yes" if row["ahead_of_every"] else "no",
        ]
        for row in result["comparison"]["against_best"]
    ]  # fmt: skip
    note = (
        "The best baseline is chosen for each line by what it reached on these events. Misses gone: the share "
        "of its misses, in the "
        "mean over families, that botsieve finds, in %."
    )
    header = [
        "grade",
        "false positives",
        "best baseline",
        "its recall",
        "ours",
        "lead",
        "misses gone",
        "ahead of every baseline",
    ]
    return Table("against", "Against the best baseline", note, header, rows)


def _by_cell(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[float, dict[str, Any]]]:
    found: dict[tuple[str, str], dict[float, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["family"], row["grade"]), {})[row["rate"]] = row
    return found


def _recall(result: Result) -> Table:
    rows = []
    for (family, grade), cells in _by_cell(result["recall"][OURS]).items():
        first = next(iter(cells.values()))
        rows.append(
            [
                f"`{family}`",
                grade,
                f"{first['clients']:,}",
                str(first["campaigns"]),
                *(interval(c) for c in cells.values()),
            ]
        )
    counts = result["counts"]["test"]
    note = (
        f"Recall per client in %, at the request. {counts['legitimate_clients']:,} legitimate clients and "
        f"{counts['attackers']:,} attackers in {counts['requests']:,} requests; in brackets 95 % over campaigns."
    )
    header = ["family", "grade", "attackers", "campaigns", *(f"at {100 * rate:g} %" for rate in _rates(result))]
    return Table("recall", "Recall by family and grade", note, header, rows)


def _limits_detail(result: Result) -> Table:
    """Return the recall of the strongest baseline that learns, family by family, beside ours."""
    names = [OURS, *(n for n in result["recall"] if n != OURS and not n.startswith("limit"))]
    rate = max(_rates(result))
    cells = {name: _by_cell(result["recall"][name]) for name in names}
    rows = [
        [f"`{family}`", grade, *(share(cells[name][family, grade][rate]["value"]) for name in names)]
        for family, grade in cells[OURS]
    ]
    note = f"Recall per client in %, at {100 * rate:g} % false positives."
    return Table("methods", "Family by family, beside methods that learn", note, ["family", "grade", *names], rows)


def _left(result: Result, what: str, title: str, note: str) -> Table:
    rows = []
    for (family, grade), cells in _by_cell(result["left_out"][what]).items():
        first = next(iter(cells.values()))
        figures = [text for cell in cells.values() for text in (share(cell["seen"]), interval(cell))]
        rows.append([f"`{family}`", grade, f"{first['clients']:,}", *figures])
    header = [
        "family",
        "grade",
        "attackers",
        *(f"{how}, {100 * rate:g} %" for rate in _rates(result) for how in ("seen", "left out")),
    ]
    trees = result["left_out"]["trees"]
    note += (
        f" Models of {trees[0]} + {trees[1]} trees, both with and without, so `seen` is not the shipped model's figure."
    )
    return Table(f"left_out_{what}", title, note, header, rows)


def _left_families(result: Result) -> Table:
    note = "Recall per client in %: of a family by a model that was trained on it, and by one that was trained on all others."
    return _left(result, "family", "A family that training never saw", note)


def _left_grades(result: Result) -> Table:
    note = "Recall per client in %: of a grade by a model that was trained on all grades, and by one without any attacker of it."
    return _left(result, "grade", "A grade that training never saw", note)


def _touched(name: str, title: str, rows: list[dict[str, Any]], note: str) -> Table:
    lines = [
        [
            f"`{row['kind']}`" if row["kind"] != "all" else "all", f"{row['clients']:,}", f"{row['requests']:,}",
            interval(row["challenged"], 3), interval(row["blocked"], 3), share(row["clients_touched"]),
        ]
        for row in rows
    ]  # fmt: skip
    header = ["kind", "clients", "requests", "challenged", "blocked", "clients ever touched"]
    return Table(name, title, note, header, lines)


def _legitimate(result: Result) -> Table:
    budgets = result["budgets"]
    note = (
        f"Shares in %, at the default budgets ({100 * budgets['challenge']:g} % challenged or blocked, at most "
        f"{100 * budgets['block']:g} % blocked, on the training's validation data); in brackets 95 % over clients."
    )
    return _touched("legitimate", "Legitimate clients touched", budgets["legitimate"], note)


def _surge(result: Result) -> Table:
    note = "The same on a log without attackers in which ten times as many new accounts as usual come within an hour (`surge`)."
    return _touched("surge", "On the day of a surge", result["budgets"]["surge"], note)


def _attackers(result: Result) -> Table:
    rows = [
        [
            r["grade"],
            f"{r['clients']:,}",
            f"{r['requests']:,}",
            share(r["requests_acted_on"]),
            share(r["clients_acted_on"]),
            share(r["requests_blocked"]),
            share(r["clients_blocked"]),
        ]
        for r in result["budgets"]["attackers"]
    ]
    note = "What the default budgets do about attackers: challenged or blocked, and blocked, in %."
    header = ["grade", "attackers", "requests", "requests acted on", "attackers acted on"]
    header += ["requests blocked", "attackers blocked"]
    return Table("attackers", "Attackers at default budgets", note, header, rows)


def _learning(result: Result) -> Table:
    grades = _grades(result)
    rows = [
        [
            f"{row['clients']:,}", share(row["legitimate_acted_on"], 3), _limit_text(row["limit"]),
            *(f"{share(g['requests_acted_on'])} / {share(g['clients_acted_on'])}" for g in row["grades"]),
        ]
        for row in result["learning"]
    ]  # fmt: skip
    note = "Requests and clients acted on in %, at default budgets, by how many legitimate clients were learnt from."
    header = ["legitimate clients learnt from", "legitimate requests acted on", "limit c", *grades]
    return Table("learning", "How much traffic default budgets take", note, header, rows)


def _limit_text(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:.2g}"


def _limit(result: Result) -> Table:
    found = result["limit"]
    rows = []
    for row in found["rows"]:
        recalls = [share(value) for grade in _grades(result) for value in row["recall"][grade]]
        name = "no group features" if row["limit"] == 0 else _limit_text(row["limit"])
        after = [share(row[key], 3) for key in ("neighbours_before", "neighbours_after")]
        rows.append([name, *recalls, *after, share(row["neighbour_clients_after"])])
    note = (
        f"On the validation log: recall per client in %, and the share in % of requests challenged of those who "
        f"share an address or "
        f"the popular library, before and after {found['tenants']} bad tenants join them (at {found['places']} "
        f"addresses); last, "
        f"the share of these neighbours ever challenged. Training chose c = {_limit_text(found['chosen'])}."
    )
    header = [
        "limit c",
        *_columns(result),
        "neighbours before",
        "with a bad tenant",
        "neighbours ever challenged",
    ]
    return Table("limit", "The limit on the group part", note, header, rows)


def _floods(result: Result) -> Table | None:
    if "floods" not in result:
        return None
    rows = [
        [
            row["scenario"], row["defence"], f"{row['legitimate']:,}", f"{row['attack']:,}",
            *(share(row[name]) for name in ("in_time", "late", "gave_up", "lost", "attack_tokens")), f"{row['wait_p99']:.1f}",
        ]
        for row in result["floods"]
    ]  # fmt: skip
    note = (
        "A gateway at 60 % load and a flood of ten times the legitimate requests for ten minutes; shares of "
        "legitimate requests in %, "
        "of attackers' tokens served in %, and the wait of the slowest 1 % in s. Mimics solve challenges, "
        "others do not. Each log was scored five times, each time with what had been refused the time before; of botsieve's "
        f"decisions at most {share(max(row['unsettled'] for row in result['floods']))} % still changed."
    )
    header = [
        "scenario",
        "defence",
        "legitimate",
        "attack",
        "in time",
        "late",
        "gave up",
        "lost",
        "attack tokens",
        "wait p99",
    ]
    return Table("floods", "Floods", note, header, rows)


def _area(cell: dict[str, float]) -> str:
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def _web(result: Result) -> Table | None:
    if "web" not in result:
        return None
    found = result["web"]
    rows = [[row["how"], _area(row["moderate"]), _area(row["advanced"])] for row in found.get("areas", [])]
    note = found.get("skipped") or (
        f"{found['sessions']} sessions of the CERTH set, human against bot: area under the ROC curve, in "
        f"brackets 95 % over sessions."
    )
    return Table("web", "Real labelled web sessions", note, ["own features", "moderate bots", "advanced bots"], rows)


def _prompts(result: Result) -> Table | None:
    if "prompts" not in result:
        return None
    found = result["prompts"]
    rows = [
        [
            row["malicious"], row["benign"], f"{row['malicious_prompts']:,}", f"{row['benign_prompts']:,}",
            f"{row['auc']:.3f}", interval(row["recall"], 0),
        ]
        for row in found.get("rows", [])
    ]  # fmt: skip
    note = found.get("skipped") or "Neither source was seen in training. Recall in % at 1 % false positives."
    return Table(
        "prompts", "The prompt score on unseen sources", note,
        ["malicious source", "benign source", "malicious prompts", "benign prompts", "AUC", "recall"], rows,
    )  # fmt: skip


def _counts(result: Result) -> Table:
    rows = [
        [name, *(f"{counts[key]:,}" for key in ("legitimate_clients", "attackers", "legitimate_requests", "requests"))]
        for name, counts in result["counts"].items()
    ]
    header = ["log", "legitimate clients", "attackers", "legitimate requests", "requests"]
    return Table(
        "counts", "The logs", "Counted without the first hour, in which a service enforces nothing.", header, rows
    )


def _seconds(result: Result) -> Table:
    run = result["run"]
    worked = run["processor_seconds"]
    rows = [[name, f"{seconds:.0f}", f"{worked[name]:.0f}"] for name, seconds in run["seconds"].items()]
    note = (
        f"{run['minutes']:g} minutes in all, on {run['cores']} cores. Processor time is of the main process: "
        f"logs are simulated in "
        "others."
    )
    return Table("seconds", "How long it took", note, ["step", "s", "s of processors"], rows)
