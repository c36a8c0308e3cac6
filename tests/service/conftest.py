"""The fixtures of the service's tests: a small bundle, loaded once, and a service on it; and logs as they were before."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from classifier.model.bundle import Bundle
from classifier.model.judge import Judge
from serving.app import Service
from tests.service.served import client_of, make_bundle, service


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a start of the service sets up: later tests would log to a stream that is closed, and more than by default."""
    loggers = [logging.getLogger(name) for name in ("botsieve", "uvicorn.error", "uvicorn.access")]
    before = [(one.handlers, one.level, one.propagate, one.disabled) for one in loggers]
    yield
    for one, (handlers, level, propagate, disabled) in zip(loggers, before, strict=True):
        one.handlers, one.propagate, one.disabled = handlers, propagate, disabled
        one.setLevel(level)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("served") / "bundle")


@pytest.fixture(scope="session")
def judge(bundle: Bundle) -> Judge:
    made = Judge(bundle)
    made.warm()
    return made


@pytest.fixture
def live(judge: Judge) -> tuple[Service, TestClient]:
    app = service(judge)
    return app, client_of(app)
