"""The routes that change how a running service decides: load, lists, shadow switch, forgetting, feedback, and their audit.

What changes decisions needs a configured token, and leaves a line in the audit before it takes effect.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi import Path as PathPart
from pydantic import Field

from classifier.errors import InputError
from serving.access import Access
from serving.circumstances import Observer
from serving.gate import Gate
from serving.keeping import Keeper
from serving.problems import Problem
from serving.records import Lines, audited, on_disk
from serving.routes import Strict, need_token, problems
from serving.switch import Switch

Identity = Annotated[str, PathPart(max_length=64)]


class LoadBody(Strict):
    """How loaded the gateway is, 0 to 1."""

    load: Annotated[float, Field(ge=0, le=1)]


class EntryBody(Strict):
    """What to put on a list; `expires` in Unix seconds, absent for never."""

    list: Literal["allow", "deny"]
    kind: Literal["network", "account", "fingerprint"]
    value: Annotated[str, Field(min_length=1, max_length=255)]
    expires: Annotated[float, Field(gt=0, lt=1e11)] | None = None
    note: Annotated[str, Field(max_length=500)] = ""


class ModeBody(Strict):
    """shadow or enforce for every route, or null for what the settings say."""

    mode: Literal["shadow", "enforce"] | None


class ClientBody(Strict):
    """An account or an address."""

    client: Annotated[str, Field(min_length=1, max_length=255)]


class FeedbackBody(Strict):
    """What a person found out about a decision."""

    id: Annotated[str, Field(max_length=64)]
    verdict: Literal["malicious", "legitimate"]
    note: Annotated[str, Field(max_length=500)] = ""


def router(
    gate: Gate,
    observer: Observer,
    access: Access,
    keeper: Keeper | None,
    switch: Switch,
    audit: Lines,
    labels: Lines,
) -> APIRouter:
    """Return the routes of one gate."""
    api = APIRouter(responses=problems(507))
    lists, changing = observer.lists, asyncio.Lock()

    @api.post("/v1/load")
    async def load(body: LoadBody) -> dict[str, float]:
        """State how loaded the gateway is; it holds for `load_s`."""
        observer.load.state(body.load)
        return {"load": observer.load.now()}

    @api.get("/v1/lists", responses=problems(403))
    async def entries() -> list[dict[str, Any]]:
        """The allow list and the deny list."""
        need_token(access)
        return [msgspec.structs.asdict(entry) for entry in lists.all()]

    @api.post("/v1/lists", status_code=201, responses=problems(403))
    async def add(body: EntryBody) -> dict[str, Any]:
        """Put a network, account or fingerprint on a list, in place of what stood there of it."""
        need_token(access)
        async with changing:  # one change after the other, each behind its line in the audit
            try:
                entry = lists.made(body.list, body.kind, body.value, body.expires, body.note)
            except InputError as error:
                raise Problem(422, "invalid", str(error)) from error
            made = msgspec.structs.asdict(entry)
            told = {name: made[name] for name in ("id", "list", "kind", "value", "expires", "note")}
            async with audited(audit, "listed", **told):
                await asyncio.to_thread(lists.put, entry)
        return made

    @api.delete("/v1/lists/{id}", status_code=204, response_class=Response, responses=problems(403, 404))
    async def remove(id: Identity) -> Response:
        """Remove an entry."""
        need_token(access)
        async with changing:
            entry = lists.find(id)
            if entry is None:
                raise Problem(404, "unknown", "no entry has this id")
            async with audited(audit, "unlisted", id=id, list=entry.list, kind=entry.kind, value=entry.value):
                await asyncio.to_thread(lists.remove, entry)
        return Response(status_code=204)

    @api.post("/v1/mode", responses=problems(403))
    async def mode(body: ModeBody) -> dict[str, str | None]:
        """Switch all routes to shadow or to enforce, or back to what the settings say."""
        need_token(access)
        async with changing, audited(audit, "mode", mode=body.mode, before=gate.mode_override):
            await asyncio.to_thread(switch.keep, body.mode)
            gate.mode_override = body.mode
        return {"mode": body.mode, "settings": gate.settings.mode}

    @api.post("/v1/forget", responses=problems(403))
    async def forget(body: ClientBody) -> dict[str, bool]:
        """Remove a client from profiles, decisions, snapshots and the journal; the answer says what could not be."""
        need_token(access)
        left = []
        async with audited(audit, "forgot"):  # not who: that is what was asked
            known = gate.forget(body.client)
            if gate.hooks.recorder is not None:
                try:
                    known = await gate.hooks.recorder.forget(gate.client_ids(body.client)) or known
                except OSError as error:
                    left.append(f"the journal ({error.strerror or error})")
            if keeper is not None:  # known or not: a snapshot may hold who has left the profiles since
                try:
                    await asyncio.shield(keeper.renew())
                except OSError as error:
                    left.append(f"the snapshots ({error.strerror or error})")
            if left:
                where = " and ".join(left)
                raise Problem(507, "disk", f"forgotten, but not yet removed from {where}: mend that and ask again")
        return {"known": known}

    @api.post("/v1/feedback", status_code=201, responses=problems(403, 404, 409))
    async def feedback(body: FeedbackBody) -> dict[str, Any]:
        """Keep a person's verdict on a decision as a label."""
        need_token(access)
        if not labels.kept:
            raise Problem(409, "unkept", "there is no folder to keep labels in: set journal or state, and restart")
        found = gate.decision(body.id)
        if found is None:
            raise Problem(
                404, "unknown", "no decision is kept by this id; to label one of before, see Labels in docs/journal.md"
            )
        with on_disk():
            return await asyncio.to_thread(
                labels.add,
                id=found.id, label=int(body.verdict == "malicious"), source="feedback", decision=found.decision,
                raw=found.raw, bundle=found.bundle, note=body.note,
            )  # fmt: skip

    @api.get("/v1/audit", responses=problems(403))
    async def changes(most: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        """The newest changes, newest first."""
        need_token(access)
        return audit.newest(most)

    return api
