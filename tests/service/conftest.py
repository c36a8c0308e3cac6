"""The fixtures of the service's tests: a small bundle, loaded once, and a service on it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from classifier.model.bundle import Bundle
from classifier.model.judge import Judge
from serving.app import Service
from tests.service.served import client_of, make_bundle, service


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
