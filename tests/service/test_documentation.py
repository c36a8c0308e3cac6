"""Nothing without documentation: every setting, command, metric, reason and route stands on its page, and no page invents one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route as PlainRoute

from classifier.cli.app import app as commands
from classifier.features.spec import FEATURES
from classifier.model.judge import Judge
from classifier.policy import ALLOW_LIST, DENY_LIST, LOAD, REGISTRATION
from serving.app import Service
from serving.authorize import PREFIX
from serving.challenge import REFUSALS
from serving.hot import RESULT_STATUS
from serving.settings import Route, Settings
from tests.service.served import service

ROOT = Path(__file__).parents[2]
PAGES = {
    "setting": "configuration.md",
    "command": "commands.md",
    "metric": "metrics.md",
    "reason": "reasons.md",
    "route": "service.md",
}
_REFUSE = {"Problem": 1, "Rejected": 0}
"""Where the reason stands among the arguments."""


def lacking(names: Iterable[str], page: str) -> list[str]:
    """Return the names that stand in no first column of the page's tables, as code."""
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    told = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    return sorted(set(names) - told)


def page(kind: str) -> str:
    return (ROOT / "docs" / PAGES[kind]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service with everything turned on."""
    return service(
        judge,
        console=True,
        token="a token that is long",
        state=tmp_path_factory.mktemp("state"),
        routes=[{"path": "/signup", "registration": True}],
    )


def settings() -> set[str]:
    return {*Settings.model_fields, *Route.model_fields}


def command_lines(text: str) -> str:
    """Return a page whose first cells hold the bare names of commands."""
    return re.sub(r"^\| `botsieve ([\w-]+)[^`]*`", r"| `\1`", text, flags=re.MULTILINE)


def metrics(app: Service) -> set[str]:
    found = set()
    for family in app.metrics.registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        found.add(family.name + suffix)
    return found


def reasons() -> set[str]:
    found = {feature.reason for feature in FEATURES} | {ALLOW_LIST, DENY_LIST, LOAD, REGISTRATION, "pass"}
    found |= {"scoring_error", "scoring_late", *REFUSALS} | {
        name for name, status in RESULT_STATUS.items() if status >= 400
    }
    for path in (ROOT / "serving").rglob("*.py"):
        found |= refusals(path.read_text(encoding="utf-8"))
    return found


def refusals(source: str) -> set[str]:
    """Return the reasons that a module refuses requests with."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _REFUSE:
            place = _REFUSE[node.func.id]
            reason = node.args[place] if len(node.args) > place else None
            if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                found.add(reason.value)
    return found


def routes(app: Service) -> set[str]:
    """Return every route as `METHOD /path`, the raw ones included."""
    found = {f"POST {path}" for path in app.hot.routes} | {f"ANY {PREFIX}/{{path}}"}
    for route in _flat(app.routes):
        for method in (route.methods or set()) - {"HEAD", "OPTIONS"}:
            found.add(f"{method} {route.path.replace(':path', '')}")
    return found


def _flat(given: Any) -> Iterable[Any]:
    for route in given:
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        if inner is not None:
            yield from _flat(inner)
        elif isinstance(route, APIRoute | PlainRoute):
            yield route


def test_every_setting() -> None:
    assert not lacking(settings(), page("setting"))


def test_every_command() -> None:
    names = {command.callback.__name__ for command in commands.registered_commands if command.callback is not None}
    assert len(names) > 10
    assert not lacking(names, command_lines(page("command")))


def test_every_metric_and_no_other(whole: Service) -> None:
    names = metrics(whole)
    assert len(names) > 25
    assert not lacking(names, page("metric"))
    told = set(re.findall(r"^\| `(botsieve_\w+)`", page("metric"), re.MULTILINE))
    assert told <= names


def test_every_reason() -> None:
    names = reasons()
    assert {"timing", "deny_list", "scoring_late", "body_too_large", "ahead", "tampered"} <= names
    assert not lacking(names, page("reason"))


def test_every_route_and_no_other(whole: Service) -> None:
    names = routes(whole)
    assert {"POST /v1/decide", "GET /metrics", "GET /console/events", "GET /status", "POST /v1/lists"} <= names
    assert not lacking(names, page("route"))
    told = {
        name
        for name in re.findall(r"`((?:GET|POST|DELETE|ANY) /[^`]*)`", page("route"))
        if " ".join(name.split()) == name
    }
    assert told <= names


def test_what_lacks_documentation_is_found() -> None:
    assert lacking(["token", "secret_door"], page("setting")) == ["secret_door"]
    assert lacking(["botsieve_new_total"], page("metric")) == ["botsieve_new_total"]
    assert lacking(["nope"], command_lines(page("command"))) == ["nope"]
    assert refusals('raise Problem(404, "gone_astray", "x")\nraise Rejected("odd", "y")') == {"gone_astray", "odd"}
    assert lacking({"gone_astray"}, page("reason")) == ["gone_astray"]
    assert lacking({"GET /v1/hidden"}, page("route")) == ["GET /v1/hidden"]
    assert lacking(["in the text only"], "no table, but `in the text only`") == ["in the text only"]
