"""The OpenAPI document is what the service does: schemathesis sends it all that is allowed, and what is not."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from classifier.model.judge import Judge
from tests.service.served import service

schemathesis = pytest.importorskip("schemathesis")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("clock", ["server", "event"])
def test_every_answer_is_one_that_is_described(judge: Judge, clock: str, mode: str) -> None:
    """Each route by itself, without the plugin of pytest: no 5xx, and status, type and body as documented."""
    app = service(judge, clock=clock, challenge_work_least=1, challenge_work_most=16, ahead_s=1e12)
    checks = importlib.import_module("schemathesis.specs.openapi.checks")
    document = schemathesis.openapi.from_asgi("/openapi.json", app)
    kind = schemathesis.GenerationMode[mode]
    failures = []
    for found in document.get_all_operations():
        operation = found.ok()
        if clock == "event" and operation.path.startswith("/v1/authorize"):
            continue  # a gateway's call has no time of its own, which is a 500 there by design

        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=kind))
        def tried(case: Any) -> None:
            # JSON Schema takes 1.0 for an integer, and cannot say what a solved challenge is.
            case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])

        try:
            tried()
        except (Exception, BaseExceptionGroup) as error:  # gathered, so that one run shows every route that differs
            if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):
                causes = [str(cause)[:700] for cause in getattr(error, "exceptions", [error])]
                failures.append(f"{operation.label}: {causes}")
    assert not failures, "\n\n".join(failures)
