"""Writing a result: JSON, tables in markdown, plots and one page; and the tables of `docs/evaluation.md`.

    python -m classifier.evaluation.document RESULT.json [--page docs/evaluation.md]

puts the tables of a result into the page, between `<!-- table NAME -->` and `<!-- end -->`, and keeps the result beside it, so
that a test can hold the page against its figures.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
from pathlib import Path
from typing import Any

from classifier.evaluation.comparison import OURS
from classifier.evaluation.plots import Drawn, draw
from classifier.evaluation.tables import Result, Table, share, tables_of
from classifier.model.page import rendered

PAGE = Path("docs/evaluation.md")
_PLACE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TEMPLATE = Path(__file__).with_name("evaluation.html")


def write(result: Result, folder: Path) -> None:
    """Write evaluation.json, tables.md, the plots and evaluation.html into a folder."""
    (folder / "evaluation.json").write_text(as_json(result), encoding="utf-8")
    tables = tables_of(result)
    text = "\n".join(f"## {table.title}\n\n{table.note}\n\n{table.markdown()}\n" for table in tables)
    (folder / "tables.md").write_text(text, encoding="utf-8")
    drawn = draw(result, folder)
    (folder / "evaluation.html").write_text(_page(result, tables, drawn, folder), encoding="utf-8")


def as_json(result: Result) -> str:
    """Return a result as JSON; figures have six digits."""
    return json.dumps(_rounded(result), indent=1) + "\n"


def filled(page: str, result: Result) -> str:
    """Return the page with the tables of a result in their places. Raises KeyError for a table that there is not."""
    tables = {table.name: table for table in tables_of(result)}

    def table(place: re.Match[str]) -> str:
        found = tables[place[2]]
        return f"{place[1]}{found.note}\n\n{found.markdown()}\n{place[3]}"

    return _PLACE.sub(table, page)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value


def _page(result: Result, tables: list[Table], drawn: list[Drawn], folder: Path) -> str:
    title, tone = _verdict(result)
    return rendered(
        _TEMPLATE, title=title, tone=tone, told=_sentences(result), ours=OURS,
        plots=[_shown(plot, folder) for plot in drawn], tables=[_told(table) for table in tables],
    )  # fmt: skip


def _verdict(result: Result) -> tuple[str, str]:
    lines = result["comparison"]["against_best"]
    ahead = sum(line["ahead_of_every"] for line in lines)
    if ahead == len(lines):
        return f"Ahead of every baseline in all {len(lines)} comparisons", "good"
    return f"Ahead of every baseline in {ahead} of {len(lines)} comparisons", "fair"


def _sentences(result: Result) -> list[str]:
    lines = result["comparison"]["against_best"]
    told = [
        f"Where {100 * rate:g} % of legitimate clients are accused at most, it finds "
        + ", ".join(
            f"{share(line['recall'])} % of {line['grade']} attackers (best baseline {share(line['best_recall'])} %)"
            for line in lines
            if line["rate"] == rate
        )
        + "."
        for rate in dict.fromkeys(line["rate"] for line in lines)
    ]
    close = [
        line for line in lines if line["lead"]["low"] is not None and line["lead"]["low"] <= 0 < line["lead"]["high"]
    ]
    if close:
        where = ", ".join(f"{line['grade']} at {100 * line['rate']:g} %" for line in close)
        told.append(f"Too close to tell from the best baseline: {where}.")
    return told


def _shown(plot: Drawn, folder: Path) -> dict[str, Any]:
    """Return a plot for the page, in pixels of the screen."""
    source = "data:image/png;base64," + base64.b64encode((folder / plot.file).read_bytes()).decode()
    width, height = (round(96 * inches) for inches in plot.size)
    return {**plot._asdict(), "source": source, "width": width, "height": height}


def _told(table: Table) -> dict[str, Any]:
    """Return a table for the page; `words` says which columns hold words and not numbers."""
    rows = [[cell.strip("`") for cell in row] for row in table.rows]
    columns = zip(*rows, strict=True) if rows else [()] * len(table.header)
    numbers = [[bool(re.match(r"[-\u2013+]?\d|\u2013$|$", cell)) for cell in column] for column in columns]
    words = [2 * sum(column) < len(column) for column in numbers]
    return {"name": table.name, "title": table.title, "note": table.note.replace("`", ""),
            "header": [cell.strip("`") for cell in table.header], "rows": rows, "words": words}  # fmt: skip


def main() -> None:
    """Put the tables of a result into the page."""
    parser = argparse.ArgumentParser(description="Put the tables of a result into docs/evaluation.md")
    parser.add_argument("result", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    result = json.loads(given.result.read_text(encoding="utf-8"))
    given.page.write_text(filled(given.page.read_text(encoding="utf-8"), result), encoding="utf-8")
    given.page.with_suffix(".json").write_text(as_json(result), encoding="utf-8")


if __name__ == "__main__":
    main()
