"""What the service's pages share: their templates, and for console and status also files and headers that keep them strict."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from serving.problems import Problem

_HERE = Path(__file__).parent

HEADERS = {
    # Everything from this service itself, no inline code or style, not inside a frame of another site.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}


def templates() -> Environment:
    """Return the templates of `serving/pages`."""
    return Environment(loader=FileSystemLoader(_HERE / "pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


class Pages:
    """Templates of `serving/pages`, as answers."""

    def __init__(self) -> None:
        self._templates = templates()

    def render(self, name: str, **values: Any) -> str:
        """Return a page as text."""
        return self._templates.get_template(name).render(**values)

    def answer(self, name: str, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:
        """Return a page as an answer."""
        return HTMLResponse(self.render(name, **values), status, headers=HEADERS)


class Files:
    """Files of `serving/static`, by the names given, read once."""

    def __init__(self, *names: str) -> None:
        self._content = {name: (_HERE / "static" / name).read_bytes() for name in names}

    def answer(self, name: str) -> Response:
        """Return a file. Raises Problem 404 for a name that is none of them."""
        if name not in self._content:
            raise Problem(404, "no_route", "there is no such file")
        headers = {"Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff"}
        media = _TYPES[Path(name).suffix]
        return Response(self._content[name], headers=headers, media_type=f"{media}; charset=utf-8")
