"""The challenge over HTTP: as JSON for programs, as a page for people, and the exchange of a solution for a pass.

    GET  /v1/challenge/{name}         JSON, or a page where the client prefers text/html
    GET  /v1/challenge/static/{name}  the page's script, style and the ALTCHA widget; nothing comes from another host
    POST /v1/challenge/verify         a solution, as JSON or as the page's form, for a pass

The routes are for clients, so they need no service token. They read bodies whole: `serving.app` limits them.
Nothing here knows of decisions: the name in the URL tells all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs

import anyio
import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from serving.challenge import REFUSALS, WAITING, Challenges, Redeemed, Refused
from serving.passes import COOKIE, HEADER, Passes
from serving.problems import Problem
from serving.rendering import templates
from serving.spent import SpentError

_HERE = Path(__file__).parent
_WAITING = 64

# Everything from this service itself, no inline code or style, not inside a frame of another site.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}
_STATIC = {
    "page.js": "text/javascript; charset=utf-8",
    "wait.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "altcha/altcha-3.2.2.min.js": "text/javascript; charset=utf-8",
    "altcha/altcha-3.2.2.css": "text/css; charset=utf-8",
    "altcha/pbkdf2-3.2.2.js": "text/javascript; charset=utf-8",
    "altcha/LICENSE.txt": "text/plain; charset=utf-8",
}
_STATUS = {
    "unknown": HTTPStatus.NOT_FOUND,
    "malformed": HTTPStatus.BAD_REQUEST,
    "tampered": HTTPStatus.FORBIDDEN,
    "unsolved": HTTPStatus.FORBIDDEN,
    "client": HTTPStatus.FORBIDDEN,
    "spent": HTTPStatus.CONFLICT,
    "expired": HTTPStatus.GONE,
    "store": HTTPStatus.SERVICE_UNAVAILABLE,
}
# One slash, then printable ASCII without blanks and backslashes: what no browser reads as another host.
_LOCAL = re.compile(r"/(?!/)[!-\[\]-~]{0,2047}")


@dataclass(frozen=True)
class PageOptions:
    """How the page speaks of the site, a link for those it fails, and whether the cookie needs https (`secure`)."""

    site: str
    contact: str
    secure: bool


Outcome = Callable[[str | None, str], None]
Refusal = Callable[[str], None]


class _Solved(msgspec.Struct):
    altcha: str


class Pages:
    """The HTML pages, with the headers that keep them strict."""

    def __init__(self, challenges: Challenges, passes: Passes, options: PageOptions) -> None:
        self.options = options
        self.base = challenges.options.path
        self._minutes = max(1, round(passes.options.lifetime_s / 60))
        pages = templates()
        self._challenge, self._refused = pages.get_template("challenge.html"), pages.get_template("refused.html")
        self._wait = pages.get_template("wait.html")

    def challenge(
        self, decision_id: str, brief: Mapping[str, Any], next_url: str, status: int = HTTPStatus.OK
    ) -> HTMLResponse:
        """The page that solves a challenge by itself, or waits, and then goes to `next_url` (made local first)."""
        if wait := brief.get("wait"):
            page = self._wait.render(self._common(decision_id), wait=wait, next_url=self.local(next_url))
            return self._answer(page, status, {"Retry-After": str(wait)})
        return self._answer(
            self._challenge.render(
                self._common(decision_id),
                **brief,
                next_url=self.local(next_url),
                minutes=self._minutes,
            ),
            status,
        )

    def refused(self, problem: Problem, next_url: str, heading: str) -> HTMLResponse:
        """Says why there is no check, or why it did not count, and where to go now."""
        content = self._refused.render(
            self._common(""), heading=heading, why=problem.detail, next_url=self.local(next_url)
        )
        return self._answer(content, problem.status)

    def local(self, url: str) -> str:
        """The URL if it is a path on the same site and not a challenge itself (that would go round), else `/`."""
        inside = url == self.base or url.startswith(f"{self.base}/")
        return url if _LOCAL.fullmatch(url) and not inside else "/"

    def _common(self, decision_id: str) -> dict[str, object]:
        return {
            "path": self.base,
            "site": self.options.site,
            "contact": self.options.contact,
            "decision_id": decision_id,
        }

    def _answer(self, content: str, status: int, headers: Mapping[str, str] = MappingProxyType({})) -> HTMLResponse:
        return HTMLResponse(content, status, headers={**_PAGE_HEADERS, **headers})


def wants_page(accept: str) -> bool:
    """Whether an Accept header names text/html, and likes it better than JSON: true for browsers, not for programs."""
    quality = {"text/html": 0.0, "application/json": 0.0, "application/problem+json": 0.0}
    for part in accept[:1024].split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name in quality:
            weight = next((value[2:] for value in parameters if value.startswith("q=")), "1")
            quality[name] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0
    html = quality.pop("text/html")
    return html > 0 and html >= max(quality.values())


def _document(problem: Problem) -> JSONResponse:
    """A problem document."""
    headers = {"Cache-Control": "no-store"}
    return JSONResponse(problem.document(), problem.status, headers, "application/problem+json")


def challenge_router(
    challenges: Challenges,
    passes: Passes,
    pages: Pages,
    *,
    on_outcome: Outcome,
    on_refusal: Refusal,
) -> APIRouter:
    """The routes, to be included without a prefix.

    `on_outcome` is told the decision's id (None where the solution does not say) and "solved" or a key of
    `serving.challenge.REFUSALS`; `on_refusal` the reason why another request is not answered.
    """
    router = APIRouter(tags=["challenge"])
    exchange = _Exchange(challenges)
    static = {name: (_HERE / "static" / name).read_bytes() for name in _STATIC}

    @router.get(
        "/v1/challenge/static/{name:path}", responses={200: {"content": {"text/javascript": {}}}, 404: _PROBLEM}
    )
    async def challenge_static(name: str) -> Response:
        """A file of the challenge page."""
        if name not in static:
            on_refusal("no_route")
            return _document(Problem(HTTPStatus.NOT_FOUND, "no_route", "The challenge page has no such file."))
        headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(static[name], headers=headers, media_type=_STATIC[name])

    @router.get("/v1/challenge/{name}", responses=_CHALLENGE_RESPONSES)
    async def challenge(name: str, request: Request) -> Response:
        """The challenge of a decision: a page where text/html is preferred, else JSON with a fresh puzzle.

        Who has a pass and is to wait gets no puzzle, but `wait`: in how many seconds to come again.
        """
        as_page = wants_page(request.headers.get("accept", ""))
        next_url = _next_url(request)
        try:
            described = challenges.described(name)
            wait = described.wait
            at = challenges.at(name, wait)
            if as_page:
                return pages.challenge(described.decision, at, next_url)
            issued = (
                {"detail": WAITING} if wait else challenges.issue(described.decision, described.client, described.score)
            )
        except SpentError:
            refusal = _refusal("store")
        except Refused as refused:
            refusal = _refusal(refused.reason)
        else:
            later = {"Retry-After": str(wait)} if wait else {}
            return JSONResponse({**issued, **at}, headers={"Cache-Control": "no-store", "Vary": "Accept", **later})
        on_refusal(refusal.reason)
        if as_page:
            return pages.refused(refusal, next_url, "There is no check here")
        return _document(refusal)

    @router.post("/v1/challenge/verify", responses=_VERIFY_RESPONSES, openapi_extra=_VERIFY_BODY)
    async def verify(request: Request) -> Response:
        """Exchange a solution for a pass: in `x-botsieve-pass`, and as a cookie for browsers."""
        form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        next_url = "/"
        try:
            _same_site(request)
            solution, next_url = await _read(request, form)
            redeemed = await exchange.redeem(solution)
        except Problem as refusal:
            on_outcome(None, refusal.reason)
            if form:
                return pages.refused(refusal, next_url, "The check did not count")
            return _document(refusal)
        on_outcome(redeemed.decision_id, "solved")
        token = passes.grant(redeemed.client)
        answer: Response
        if form:
            answer = RedirectResponse(pages.local(next_url), HTTPStatus.SEE_OTHER)
        else:
            answer = JSONResponse(
                {"pass": token, "seconds": passes.options.lifetime_s, "requests": passes.options.requests}
            )
        answer.headers[HEADER] = token
        answer.headers["Cache-Control"] = "no-store"
        answer.set_cookie(
            COOKIE,
            token,
            max_age=int(passes.options.lifetime_s),
            secure=pages.options.secure,
            httponly=True,
            samesite="lax",
        )
        return answer

    return router


class _Exchange:
    """Redeems solutions in a thread, two at a time: checking one takes milliseconds, and scoring must not wait for it.

    What is forged, expired or tried too often does not get there, so that a few challenges cannot keep the threads busy.
    """

    def __init__(self, challenges: Challenges) -> None:
        self._challenges = challenges
        self._threads = anyio.CapacityLimiter(2)

    async def redeem(self, solution: str) -> Redeemed:
        try:
            if self._threads.statistics().tasks_waiting >= _WAITING:
                raise Refused("store")
            admitted = self._challenges.admit(solution)
            return await anyio.to_thread.run_sync(self._challenges.settle, admitted, limiter=self._threads)
        except Refused as refused:
            raise _refusal(refused.reason) from refused


def _refusal(reason: str) -> Problem:
    return Problem(_STATUS[reason], reason, REFUSALS[reason])


def _next_url(request: Request) -> str:
    """Where the person wanted to go: as asked for, else as the gateway forwarded it."""
    forwarded = request.headers.get("x-original-uri") or request.headers.get("x-forwarded-uri") or "/"
    return request.query_params.get("next", forwarded)


def _same_site(request: Request) -> None:
    """Refuse a post that another site made a browser send: it would replace the visitor's own pass."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise Problem(HTTPStatus.FORBIDDEN, "site", "The solution was sent from another site. Solve the check here.")


async def _read(request: Request, form: bool) -> tuple[str, str]:
    """The solution and the URL to go on to, from JSON or from the page's form."""
    body = await request.body()
    if form:
        try:
            fields = parse_qs(body.decode("ascii"), max_num_fields=16)
        except ValueError as broken:
            raise Problem(HTTPStatus.BAD_REQUEST, "malformed", "The form cannot be read.") from broken
        return fields.get("altcha", [""])[0], fields.get("next", ["/"])[0]
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "malformed",
            'Send application/json such as {"altcha": "…"}, or the page\'s form.',
        )
    try:
        return msgspec.json.decode(body, type=_Solved).altcha, "/"
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as broken:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed", 'The body is not {"altcha": "…"}.') from broken


_PROBLEM: dict[str, Any] = {"description": "A problem document", "content": {"application/problem+json": {}}}
_EITHER: dict[str, Any] = {**_PROBLEM, "content": {"application/problem+json": {}, "text/html": {}}}
_CHALLENGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The challenge, or how long to wait", "content": {"application/json": {}, "text/html": {}}},
    404: _EITHER,
    410: _EITHER,
    503: _EITHER,
}
_VERIFY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The pass", "content": {"application/json": {}}},
    303: {"description": "The pass as a cookie; back to the page that was wanted"},
    415: _PROBLEM,
    **dict.fromkeys((400, 403, 409, 410, 413, 503), _EITHER),
}
_ALTCHA = {"type": "object", "required": ["altcha"], "properties": {"altcha": {"type": "string"}}}
_FORM = {**_ALTCHA, "properties": {"altcha": {"type": "string"}, "next": {"type": "string"}}}
_VERIFY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _ALTCHA},
            "application/x-www-form-urlencoded": {"schema": _FORM},
        },
    }
}
