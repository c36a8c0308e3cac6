"""The console over HTTP: pages, the stream of figures, and signing in and out.

The token is exchanged for a cookie that scripts cannot read and that no other site can send. All that changes anything is a POST
from this site's own form.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathPart
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

from serving.access import Access
from serving.console.desk import Desk
from serving.console.sessions import COOKIE, LIFETIME_S
from serving.gate import Gate
from serving.problems import Problem
from serving.rendering import HEADERS, Files, Pages

ROOT = "/console"
SIGN_IN = f"{ROOT}/sign-in"
FILES = (
    "console/console.css", "console/console.js", "console/charts.js", "console/icon.svg",
    "uplot/uPlot-1.6.32.iife.min.js", "uplot/uPlot-1.6.32.min.css", "uplot/LICENSE.txt",
)  # fmt: skip
UNBUFFERED = {**HEADERS, "X-Accel-Buffering": "no"}
"""nginx would hold events back otherwise."""
_CLIENT = re.compile(r"[0-9a-f]{16}")
Identity = Annotated[str, PathPart(max_length=64)]


def router(gate: Gate, desk: Desk, access: Access) -> APIRouter:
    """Return the routes of one service's console; they check the session themselves."""
    api = APIRouter(include_in_schema=False)
    pages, files = Pages(), Files(*FILES)
    secure = gate.settings.console_secure

    def signed_in(request: Request) -> bool:
        return desk.sessions.holds(request.cookies.get(COOKIE))

    def need_session(request: Request) -> None:
        if not signed_in(request):
            raise Problem(401, "session", f"sign in at {SIGN_IN}")

    @api.get(ROOT)
    async def console(request: Request) -> Response:
        """The page of live figures."""
        if not signed_in(request):
            return _to(SIGN_IN)
        return pages.answer("console/console.html", site=gate.settings.site)

    @api.get(SIGN_IN)
    async def form(request: Request) -> Response:
        """The form that takes the token."""
        return _to(ROOT) if signed_in(request) else pages.answer("console/sign_in.html", wrong=False)

    @api.post(SIGN_IN)
    async def sign_in(request: Request) -> Response:
        """Exchange the token for a session."""
        _same_site(request)
        fields = await _fields(request)
        if not access.token_fits(fields.get("token", [""])[0].strip().encode()):
            gate.tallies.rejected["token"] += 1
            return pages.answer("console/sign_in.html", HTTPStatus.FORBIDDEN, wrong=True)
        answer = _to(ROOT)
        answer.set_cookie(
            COOKIE,
            desk.sessions.begin(),
            max_age=int(LIFETIME_S),
            path=ROOT,
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    @api.post(f"{ROOT}/sign-out")
    async def sign_out(request: Request) -> Response:
        """End the session."""
        _same_site(request)
        desk.sessions.end(request.cookies.get(COOKIE))
        answer = _to(SIGN_IN)
        answer.delete_cookie(COOKIE, path=ROOT, secure=secure, httponly=True, samesite="strict")
        return answer

    @api.get(f"{ROOT}/events")
    async def events(request: Request) -> Response:
        """Server-sent events: the last seconds, then each second."""
        need_session(request)
        if desk.full:
            raise Problem(503, "streams", "too many browsers follow already")
        return StreamingResponse(
            desk.follow(lambda: signed_in(request)), media_type="text/event-stream", headers=UNBUFFERED
        )

    @api.get(f"{ROOT}/budgets")
    async def budgets(request: Request) -> Response:
        """What other budgets would have done in the last hour."""
        need_session(request)
        return JSONResponse(desk.scores.budgets(), headers=HEADERS)

    @api.post(f"{ROOT}/clients")
    async def find(request: Request) -> Response:
        """Lead from an account, address, id or decision to the page of the client. In a URL, logs would have the account."""
        _same_site(request)
        if not signed_in(request):
            return _to(SIGN_IN)
        wanted = (await _fields(request)).get("client", [""])[0].strip()[:255]
        names = [wanted] if _CLIENT.fullmatch(wanted) else []
        if (kept := gate.decision(wanted)) is not None:
            names.append(kept.client)
        for name in [*names, *gate.client_ids(wanted)] if wanted else []:
            if await desk.clients.about(name) is not None:
                return _to(f"{ROOT}/clients/{name}")
        return pages.answer("console/unknown.html", HTTPStatus.NOT_FOUND)

    @api.get(f"{ROOT}/clients/{{client}}")
    async def page(request: Request, client: Identity) -> Response:
        """What is known of a client."""
        if not signed_in(request):
            return _to(SIGN_IN)
        about = await desk.clients.about(client) if _CLIENT.fullmatch(client) else None
        if about is None:
            return pages.answer("console/unknown.html", HTTPStatus.NOT_FOUND)
        return pages.answer("console/client.html", about=about, thresholds=gate.thresholds)

    @api.get(f"{ROOT}/static/{{name:path}}")
    async def static(name: str) -> Response:
        """A file of the pages; there is nothing secret in it."""
        return files.answer(name)

    return api


def _to(path: str) -> RedirectResponse:
    return RedirectResponse(path, HTTPStatus.SEE_OTHER, headers=HEADERS)


async def _fields(request: Request) -> dict[str, list[str]]:
    """Return what a form holds. Raises Problem 400 where it cannot be read."""
    try:
        return parse_qs((await request.body()).decode("ascii"), max_num_fields=4, errors="strict")
    except ValueError as error:
        raise Problem(400, "malformed", "the form cannot be read") from error


def _same_site(request: Request) -> None:
    """Refuse a form that another site made a browser send."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "site", "this form must be sent from the console itself")


def is_open(path: str) -> bool:
    """Whether a path is one of the console's, which check the session instead of the bearer token."""
    return path == ROOT or path.startswith(ROOT + "/")
