"""The routes that are asked seldom: health, metrics, what is loaded, old decisions, the clock, reloading."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Path as PathPart
from pydantic import BaseModel, ConfigDict, Field

from classifier.errors import BotsieveError
from classifier.events import MICROSECONDS
from classifier.model.judge import Judge
from serving.access import Access
from serving.gate import FAILING_S, Gate, Rejected
from serving.metrics import Metrics
from serving.problems import Problem
from serving.records import Lines, audited

log = logging.getLogger("botsieve.serving")

PROBLEM: dict[str, Any] = {"description": "A problem document (RFC 9457)", "content": {"application/problem+json": {}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of refusals, with those that any route may give."""
    return dict.fromkeys((400, 401, 408, 413, 422, 431, *statuses), PROBLEM)


class Strict(BaseModel):
    """A body in which every field has its type and no other key stands."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Clock(Strict):
    """Unix seconds, or RFC 3339 text with an offset."""

    time: float | str


class Reload(Strict):
    """The folder of the bundle to load; the one in use, as it is now on disk, if absent."""

    bundle: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


def router(gate: Gate, metrics: Metrics, access: Access, audit: Lines) -> APIRouter:
    """Return the routes of one gate."""
    api = APIRouter(responses=problems())
    loading = asyncio.Lock()
    before: list[Judge] = []

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @api.get("/readyz", responses=problems(503))
    async def readyz() -> dict[str, Any]:
        """Whether it decides, on which device, and since when it enforces."""
        if gate.failing:
            raise Problem(503, "failing", f"the fail mode has given every answer for {FAILING_S:g} s or more")
        return {
            "status": "ready",
            "providers": list(gate.model.providers),
            "dispatch": [{"from_rows": rows, "provider": provider} for rows, provider in gate.model.dispatch],
            "device_faults": gate.model.device_faults,
            "bundle": gate.bundle,
            "mode": gate.mode_override or gate.settings.mode,
            "switched": gate.mode_override,
            "warming_up": gate.warming_up,
            "clock": gate.settings.clock,
            "scope": "one replica: state is not shared; behind a balancer, hash consistently by client, and the counts of"
            " networks, fingerprints, templates and everyone are each replica's own",
        }

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Prometheus metrics."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @api.get("/v1/model")
    async def model() -> dict[str, Any]:
        """What is loaded."""
        return {
            "champion": _described(gate.model),
            "thresholds": gate.thresholds.as_json(),
            "challenger": None if gate.shadow is None else _described(gate.shadow.judge),
            "previous": _described(before[-1]) if before else None,
        }

    @api.post("/v1/model/reload", responses=problems(403, 409, 507))
    async def reload(wanted: Reload) -> dict[str, Any]:
        """Load a bundle and let it decide from the next request on. Needs a configured token."""
        need_token(access)
        folder = Path(wanted.bundle) if wanted.bundle is not None else gate.model.bundle.path
        async with loading:
            try:
                fresh = await asyncio.to_thread(_load, folder, gate)
                old = gate.model
                async with audited(audit, "reload", bundle=fresh.bundle.manifest.manifest_sha256):
                    gate.load(fresh)
            except BotsieveError as error:
                raise Problem(409, "bundle", f"the bundle in use stays: {error}") from error
            before[:] = [old]
        log.info("bundle loaded", extra={"bundle": gate.bundle[:16], "providers": gate.model.providers})
        return {"champion": _described(gate.model)}

    @api.post("/v1/model/rollback", responses=problems(403, 409, 507))
    async def rollback() -> dict[str, Any]:
        """Let the bundle before this one decide again. Needs a configured token."""
        need_token(access)
        async with loading:
            if not before:
                raise Problem(409, "bundle", "no other bundle has decided since the start")
            old = gate.model
            try:
                async with audited(audit, "rollback", bundle=before[-1].bundle.manifest.manifest_sha256):
                    gate.load(before[-1])
            except BotsieveError as error:
                raise Problem(409, "bundle", f"the bundle in use stays: {error}") from error
            before[:] = [old]
        log.info("bundle rolled back", extra={"bundle": gate.bundle[:16]})
        return {"champion": _described(gate.model)}

    @api.get("/v1/decisions/{id}", responses=problems(404))
    async def decision(id: Annotated[str, PathPart(max_length=64)]) -> dict[str, Any]:
        """What was decided under an id, and why."""
        found = gate.decision(id)
        if found is None:
            raise Problem(
                404, "unknown", f"no decision is kept by this id; the newest {gate.settings.decisions_kept} are"
            )
        return found.as_json()

    @api.post("/v1/clock", responses=problems(409))
    async def clock(wanted: Clock) -> dict[str, float]:
        """Move the running clock over a quiet stretch of a log that is replayed; only where the event's time counts."""
        try:
            gate.advance(wanted.time)
        except Rejected as error:
            raise Problem(409 if error.reason == "clock" else 422, error.reason, str(error)) from error
        return {"time": gate.clock / MICROSECONDS}

    return api


def _load(folder: Path, gate: Gate) -> Judge:
    fresh = Judge.load(str(folder), device=gate.settings.device)
    fresh.warm()
    return fresh


def need_token(access: Access) -> None:
    """Raise Problem 403 where no token is configured: what changes decisions is not for everybody."""
    if not access.protected:
        raise Problem(
            403, "token", "configure a token (BOTSIEVE_TOKEN): without one, anyone who can connect could do this"
        )


def _described(judge: Judge) -> dict[str, Any]:
    manifest = judge.bundle.manifest
    return {
        "bundle": manifest.manifest_sha256,
        "folder": str(judge.bundle.path),
        "created": manifest.created,
        "features": len(manifest.features),
        "trees": manifest.trees_total,
        "calibration": manifest.calibration,
        "fields_seen": list(manifest.fields_seen),
        "providers": list(judge.providers),
    }
