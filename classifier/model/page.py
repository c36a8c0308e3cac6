"""The pages that botsieve writes: each one file that needs nothing else, in one style (`page.html`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classifier.model import wording

_FOLDER = Path(__file__).parent


def rendered(template: Path, **values: Any) -> str:
    """Return the page of a template that extends `page.html`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, _FOLDER]), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": wording.percent,
        "interval": wording.percent_interval,
        "whole": wording.whole,
        "printable": wording.printable,
        "unbroken": wording.unbroken,
        "count": lambda n: "–" if n is None else f"{n:,.0f}",
        "g": lambda x: f"{x:g}",
    }
    return environment.get_template(template.name).render(values)
