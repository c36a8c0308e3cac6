"""The public status over HTTP, as a page and as JSON. Both are made at most every few seconds, however many ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from serving.challenge_routes import wants_page
from serving.rendering import HEADERS, Files, Pages
from serving.status import TICK_S, Status

ROOT = "/status"
FILES = ("console/console.css", "console/icon.svg")
NAMES = {
    "normal": "Normal",
    "registrations_limited": "Registrations limited",
    "degraded": "Degraded",
    "under_attack": "Under attack",
    "unknown": "Not known",
}
SAYS = {
    "normal": "Everything works as it should.",
    "registrations_limited": "Making a new account takes an extra check for some visitors at the moment.",
    "degraded": "The service is slower than usual at the moment.",
    "under_attack": "Somebody is sending many malicious requests. A short check may be asked for before yours is served,"
    " and who is new here may have to wait for room.",
}


def router(status: Status, site: str, clock: Callable[[], float] = time.monotonic) -> APIRouter:
    """Return the routes; they tell of no client, so anybody may ask. `clock` gives s, for how long an answer is kept."""
    api = APIRouter()
    pages, files = Pages(), Files(*FILES)
    made: dict[str, bytes] = {}
    until = -1.0

    def current() -> dict[str, bytes]:
        nonlocal until
        if clock() >= until:
            shown = status.shown()
            moment = datetime.fromtimestamp(shown["time"], UTC).strftime("%Y-%m-%d %H:%M UTC")
            page = pages.render("status.html", status=shown, names=NAMES, says=SAYS, site=site, moment=moment)
            made.update(page=page.encode(), json=msgspec.json.encode(shown))
            until = clock() + TICK_S
        return made

    vary = {"Vary": "Accept", **HEADERS, "Cache-Control": f"public, max-age={TICK_S:.0f}"}

    @api.get(ROOT, responses={200: {"content": {"application/json": {}, "text/html": {}}}}, response_class=Response)
    async def shown(request: Request) -> Response:
        """Normal, degraded, under attack or registrations limited, with seven days: a page, or JSON for programs."""
        if wants_page(request.headers.get("accept", "")):
            return HTMLResponse(current()["page"], headers=vary)
        return Response(current()["json"], headers=vary, media_type="application/json")

    @api.get(f"{ROOT}.json", responses={200: {"content": {"application/json": {}}}}, response_class=Response)
    async def as_json() -> Response:
        """The same as JSON, whatever is asked for."""
        return Response(current()["json"], headers=vary, media_type="application/json")

    @api.get(f"{ROOT}/static/{{name:path}}", include_in_schema=False)
    async def static(name: str) -> Response:
        """A file of the page."""
        return files.answer(name)

    return api


def is_open(path: str) -> bool:
    """Whether a path is one of the status's, which need no token."""
    return path in (ROOT, f"{ROOT}.json") or path.startswith(ROOT + "/")
