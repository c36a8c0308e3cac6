"""The peer of the serving benchmark: the same gate behind a plain FastAPI route with pydantic models, one request at a time.

python -m tests.benchmarks.plain BUNDLE PORT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from classifier.features.hashing import secret_from_environment
from classifier.model.judge import Judge
from serving.gate import Gate, LiveEvent
from serving.settings import Settings


class Asked(BaseModel):
    """An event as known at arrival."""

    ip: str
    method: str
    path: str
    account: str | None = None
    credential: str | None = None
    account_created: float | None = None
    user_agent: str | None = None
    referer: str | None = None
    fingerprint: str | None = None
    request_bytes: int | None = None
    model: str | None = None
    max_tokens: int | None = None
    prompt: str | None = None


class Answered(BaseModel):
    """What was decided."""

    id: str
    decision: str
    enforced: str
    raw: float | None
    probability: float | None
    score: int | None
    reasons: list[str]
    family: str | None = None
    warming_up: bool = False


def create_app(bundle: Path) -> FastAPI:
    """Return the plain application over a bundle."""
    judge = Judge.load(str(bundle), device="cpu")
    judge.warm()
    gate = Gate(Settings(bundle=bundle, **_GIVEN), judge, secret_from_environment(), time.time)
    app = FastAPI()

    def decided(asked: Asked) -> Any:
        (arrival,) = gate.arrive_all(gate.prepare([LiveEvent(**asked.model_dump())]))
        return gate.answer([arrival], gate.judge([arrival]))[0]

    @app.post("/v1/decide", response_model=Answered)
    async def decide(asked: Asked) -> Any:
        return _as_dict(decided(asked))

    @app.post("/v1/decide/batch", response_model=list[Answered])
    async def decide_batch(asked: list[Asked]) -> Any:
        arrivals = gate.arrive_all(gate.prepare([LiveEvent(**a.model_dump()) for a in asked]))
        return [_as_dict(answer) for answer in gate.answer(arrivals, gate.judge(arrivals))]

    return app


_GIVEN: dict[str, Any] = {}


def _as_dict(answer: Any) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in answer.__struct_fields__}


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning", access_log=False)
