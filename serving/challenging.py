"""Joins challenges and passes to the gate: what `challenge` and `passes` do lies in modules that know of no decision."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter

from classifier.events import MICROSECONDS
from classifier.features.hashing import SECRET_VARIABLE
from classifier.policy import WAIT
from serving.challenge import ChallengeOptions, Challenges, Described
from serving.challenge_routes import PageOptions, Pages, challenge_router, wants_page
from serving.gate import Answer, Decided, Gate
from serving.passes import Passes, PassOptions

log = logging.getLogger("botsieve.serving")

WAIT_S = (10, 30)
"""When who has to wait is told to come again, s: not all at once."""


def attach(gate: Gate, now: Callable[[], float], secret: bytes | None) -> tuple[Challenges, APIRouter]:
    """Let the gate issue challenges and admit passes; return the challenges, and the routes that clients solve them at.

    `secret` signs both, and must be the same after a restart for passes to go on holding; None takes a random one.
    """
    settings = gate.settings
    moment = (lambda: max(gate.clock, 0) / MICROSECONDS) if settings.clock == "event" else now
    key = secrets.token_bytes(32) if secret is None else secret
    challenges = Challenges(
        key,
        _folder(settings.state),
        ChallengeOptions(
            lifetime_s=settings.challenge_s,
            work_least=settings.challenge_work_least,
            work_most=settings.challenge_work_most,
            path=settings.challenge_path,
        ),
        moment,
    )
    passes = Passes(key, PassOptions(lifetime_s=settings.pass_s, requests=settings.pass_requests), moment)
    pages = Pages(challenges, passes, PageOptions(settings.site, settings.contact, settings.challenge_secure))

    def brief(kept: Decided) -> dict[str, Any]:
        assert kept.score is not None  # no fail mode challenges
        low, high = WAIT_S
        wait = low + secrets.randbelow(high - low + 1) if WAIT in kept.reasons else 0
        return challenges.brief(Described(kept.id, kept.client, kept.score, kept.time / MICROSECONDS, wait))

    def made(answer: Answer, accept: str, uri: str) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
        if answer.challenge is None or not wants_page(accept):
            return None
        page = pages.challenge(answer.id, answer.challenge, uri, 401)
        return [header for header in page.raw_headers if header[0] not in _NOT_OF_A_PAGE], bytes(page.body)

    def outcome(identity: str | None, result: str) -> None:
        gate.tallies.challenges[result] += 1
        if identity is not None and result == "solved":
            gate.solved(identity)

    def refused(reason: str) -> None:
        gate.tallies.rejected[reason] += 1

    gate.hooks.challenge, gate.hooks.admit, gate.hooks.page = brief, passes.admit, made
    return challenges, challenge_router(challenges, passes, pages, on_outcome=outcome, on_refusal=refused)


def signing_secret(given: bytes | None) -> bytes | None:
    """Return what signs challenges and passes: a secret that was set. The public default of the hashes signs nothing."""
    if given is not None:
        return given
    text = os.environ.get(SECRET_VARIABLE)
    if text is None:
        log.warning(f"{SECRET_VARIABLE} is not set: hashes can be guessed, and passes end with this process")
        return None
    return text.encode()


_NOT_OF_A_PAGE = (b"content-length", b"retry-after")
"""Headers of a page that the gateway's answer has from elsewhere."""

_temporary: list[TemporaryDirectory[str]] = []
"""Folders of services without a state folder: they live as long as the process."""


def _folder(state: Path | None) -> Path:
    if state is not None:
        state.mkdir(parents=True, exist_ok=True)
        return state
    _temporary.append(TemporaryDirectory(prefix="botsieve-", ignore_cleanup_errors=True))
    return Path(_temporary[-1].name)
