"""A gateway in miniature for the tests of challenges: whatever comes without a pass is challenged."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altcha
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from serving.challenge import ChallengeOptions, Challenges
from serving.challenge_routes import Described, PageOptions, challenge_router, problem, wants_page
from serving.passes import Passes, PassOptions, carried

SECRET = bytes(range(32))
CLIENT = "00112233aabbccdd"
OTHER = "ffeeddccbbaa9988"
QUICK = ChallengeOptions(work_least=256, work_most=4096)


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    at: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


def payload(issued: dict[str, Any]) -> str:
    """The solution of a challenge, as the widget sends it."""
    challenge = altcha.Challenge.from_dict(issued)
    solution = altcha.solve_challenge(challenge)
    assert solution is not None
    return altcha.Payload(challenge, solution).to_base64()


@dataclass
class Site:
    """The application with its parts, and what it has seen."""

    challenges: Challenges
    passes: Passes
    page: PageOptions = field(default_factory=lambda: PageOptions(secure=False))
    decisions: dict[str, Described] = field(default_factory=dict)
    outcomes: list[tuple[str | None, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    refused: list[str | None] = field(default_factory=list)
    score: int = 60
    url: str = ""

    def decide(self) -> str:
        """A new decision to challenge."""
        name = f"d{len(self.decisions):04d}"
        self.decisions[name] = Described(CLIENT, self.score, self.challenges.now())
        return name

    def app(self) -> FastAPI:
        app = FastAPI()
        app.include_router(
            challenge_router(
                self.challenges,
                self.passes,
                self.decisions.get,
                page=self.page,
                on_outcome=lambda decision, outcome: self.outcomes.append((decision, outcome)),
            )
        )

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def anything(path: str, request: Request) -> Response:
            self.requests.append(f"{request.method} /{path}")
            token = carried(request.headers)
            why = self.passes.admit(token, CLIENT) if token else "none"
            if why is not None:
                self.refused.append(why)
                return self._challenged(request)
            return await _served(path, request)

        return app

    def _challenged(self, request: Request) -> Response:
        name = self.decide()
        if wants_page(request.headers.get("accept", "")):
            target = str(request.url.path)
            return Response(
                status_code=302, headers={"location": f"{self.challenges.options.path}/{name}?next={target}"}
            )
        answer = problem(401, "Solve the challenge.", challenge=self.challenges.brief(name))
        answer.headers["www-authenticate"] = self.challenges.header(name)
        return answer


async def _served(path: str, request: Request) -> Response:
    if path == "v1/chat/completions":
        asked = await request.json()
        if asked.get("stream"):
            parts = [
                b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n',
                b"data: [DONE]\n\n",
            ]
            return StreamingResponse(iter(parts), media_type="text/event-stream")
        message = {"role": "assistant", "content": "served"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return JSONResponse({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
    if path == "echo":
        return Response(await request.body())
    return HTMLResponse("<!doctype html><html lang=en><title>The site</title><h1>Welcome to the site</h1></html>")


def make_site(folder: Path, now: Callable[[], float] = time.time, **options: Any) -> Site:
    """A site whose puzzles take no time."""
    passes = PassOptions(**options.pop("passes", {}))
    return Site(Challenges(SECRET, folder, QUICK, now), Passes(SECRET, passes, now), **options)


@contextlib.contextmanager
def running(site: Site) -> Iterator[Site]:
    """The site behind a real server on a free port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(site.app(), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    site.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield site
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        site.challenges.close()
