"""The raw routes in the OpenAPI document: schemas from the very types that decode their bodies."""

from __future__ import annotations

from typing import Any

import msgspec

from classifier.events import COUNTS, FIELDS, LATEST_ACCOUNT_S, LATEST_S, MAX_COUNT, MAX_DURATION_S, VERDICTS
from serving.gate import Answer, Completion
from serving.settings import Settings

_COUNT = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_COUNT}
_TIME = {
    "anyOf": [
        {"type": "number", "minimum": 1e-6, "exclusiveMaximum": LATEST_S},
        {"type": "string", "format": "date-time"},
    ]
}
_BOUNDS: dict[str, dict[str, Any]] = {
    "time": _TIME,
    "ip": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "method": {"type": "string", "minLength": 1},
    "path": {"type": "string", "minLength": 1},
    "duration": {"type": ["number", "null"], "minimum": 0, "maximum": int(MAX_DURATION_S)},
    "status": {"type": ["integer", "null"], "minimum": 0, "maximum": 999},
    "account_created": {
        "type": ["number", "null"],
        "exclusiveMinimum": -LATEST_ACCOUNT_S,
        "exclusiveMaximum": LATEST_ACCOUNT_S,
    },
    "malicious": {"type": ["boolean", "null"]},
    "verdict": {"enum": [*VERDICTS, None]},
    **dict.fromkeys(COUNTS, _COUNT),
}


def complete(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Add the raw routes to FastAPI's document, and the token if one is configured."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(_schemas(settings))
    document["paths"].update(_paths(settings))
    if settings.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _schemas(settings: Settings) -> dict[str, Any]:
    properties = {
        field.name: {**_BOUNDS.get(field.name, {"type": ["string", "null"]}), "description": field.meaning}
        for field in FIELDS
    }
    required = ["ip", "method", "path", *(["time"] if settings.clock == "event" else [])]
    event = {"type": "object", "properties": properties, "required": required}
    completion = {
        "type": "object",
        "required": ["id"],
        "properties": {
            name: _BOUNDS.get(name, {"type": "string"}) for name in Completion.__struct_fields__
        },
    }  # fmt: skip
    (_,), made = msgspec.json.schema_components([Answer], ref_template="#/components/schemas/{name}")
    return {"Event": event, "Completion": completion, **made}


def _paths(settings: Settings) -> dict[str, Any]:
    event, answer, completion = (_ref(name) for name in ("Event", "Answer", "Completion"))
    many = settings.max_batch
    result = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "result": {"type": "string"}},
        "required": ["id", "result"],
    }
    completions = {"oneOf": [completion, _list(completion, many)]}
    return {
        "/v1/decide": {"post": _post("Decide about one request", event, answer)},
        "/v1/decide/batch": {"post": _post("Decide about requests in order", _list(event, many), _list(answer, many))},
        "/v1/complete": {
            "post": _post("Record completions", completions, {"oneOf": [result, _list(result, many)]}, 404, 409, 410)
        },
        "/v1/authorize/{path}": {"get": _authorize()},
    }


def _post(summary: str, body: dict[str, Any], answer: dict[str, Any], *more: int) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": answer}}},
            **{str(status): _problem() for status in (400, 401, 405, 408, 413, 422, 431, *more)},
        },
    }


def _authorize() -> dict[str, Any]:
    headers = {name: {"schema": {"type": "string"}} for name in ("x-botsieve-decision", "x-botsieve-id")}
    return {
        "summary": "Decide by forwarded headers and answer by status; any method",
        "parameters": [{"name": "path", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": {"description": "Allow", "headers": headers},
            "401": {**_problem(), "description": "Challenge"},
            "403": {**_problem(), "description": "Block"},
            "500": {**_problem(), "description": "The gateway's call is wrong, or its token: its fail mode must act"},
        },
    }


def _problem() -> dict[str, Any]:
    return {"description": "A problem document (RFC 9457)", "content": {"application/problem+json": {}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: dict[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "items": of, "maxItems": most}
