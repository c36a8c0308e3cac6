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
from html import escape
from pathlib import Path
from typing import Any

from classifier.evaluation.plots import draw
from classifier.evaluation.tables import Result, Table, tables_of

PAGE = Path("docs/evaluation.md")
_PLACE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#1f2933}
table{border-collapse:collapse;font-size:13px;margin:1rem 0}
td,th{border-bottom:1px solid #d5dbe1;padding:.25rem .6rem;text-align:left}
th{background:#f3f5f7}img{max-width:100%}div{overflow-x:auto}"""


def write(result: Result, folder: Path) -> None:
    """Write evaluation.json, tables.md, the plots and evaluation.html into a folder."""
    (folder / "evaluation.json").write_text(as_json(result), encoding="utf-8")
    tables = tables_of(result)
    text = "\n".join(f"## {table.title}\n\n{table.note}\n\n{table.markdown()}\n" for table in tables)
    (folder / "tables.md").write_text(text, encoding="utf-8")
    drawn = draw(result, folder)
    (folder / "evaluation.html").write_text(_page(tables, drawn, folder), encoding="utf-8")


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


def _page(tables: list[Table], drawn: list[tuple[str, str]], folder: Path) -> str:
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>botsieve: evaluation</title>"]
    parts.append(f"<style>{_STYLE}</style><h1>Evaluation</h1>")
    parts.append("<p>Made by <code>botsieve evaluate --protocol</code>. Attackers and clients are simulated, except where it "
                 "says real.</p>")  # fmt: skip
    for file, alt in drawn:
        data = base64.b64encode((folder / file).read_bytes()).decode()
        parts.append(f'<p><img alt="{escape(alt)}" src="data:image/png;base64,{data}">')
    for table in tables:
        rows = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}' for cell in row)}" for row in table.rows)
        head = "".join(f"<th>{_cell(cell)}" for cell in table.header)
        parts.append(
            f"<h2>{escape(table.title)}</h2><p>{escape(table.note)}</p><div><table><tr>{head}{rows}</table></div>"
        )
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return escape(text.strip("`"))


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
