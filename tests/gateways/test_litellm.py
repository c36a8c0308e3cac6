"""LiteLLM's proxy with our guardrail, in front of a service and an inference server."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import pytest

from serving.auth import BotsieveAuth2
from tests.gateways.shared import (
    RECORDED,
    TOKEN,
    Inference,
    Running,
    ask,
    drive,
    eventually,
    free_port,
    missing,
    program,
    replaced,
    told_of,
)

LITELLM = os.environ.get("BOTSIEVE_TEST_LITELLM") or shutil.which("litellm")
PASSING = ("person", "sdk_batch", "prompt_extraction")
GATEWAYS = Path(__file__).parents[2] / "serving" / "gateways"
CHAT = "/v1/chat/completions"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not (LITELLM and Path(LITELLM).exists()):
        missing("litellm (make test-slow installs it)")


# What a test adds: keys that are accounts, without a database; and the time of a simulated request.
OURS = """
import datetime, json, pathlib
from fastapi import HTTPException
from litellm.proxy._types import UserAPIKeyAuth
import botsieve_litellm

KEYS = json.loads((pathlib.Path(__file__).parent / "keys.json").read_text())

async def auth(request, api_key):
    if api_key.startswith("bad"):
        raise HTTPException(401, "no such key")
    created = KEYS.get(api_key)
    return UserAPIKeyAuth(api_key=api_key, created_at=created and datetime.datetime.fromtimestamp(created, datetime.UTC))

class Timed(botsieve_litellm.BotsieveGuardrail):
    def event(self, data, key):
        event = super().event(data, key)
        moment = botsieve_litellm._headers(data).get("x-simulated-time")
        return event | ({"time": float(moment)} if moment else {})
"""


Keys = dict[str, float]


def keys_of(traffic: Path) -> Keys:
    """Return when each key was made, which LiteLLM has in its database."""
    events = map(json.loads, traffic.read_text().splitlines())
    return {event["account"]: event["account_created"] for event in events if event.get("account_created")}


@contextmanager
def litellm(
    folder: Path,
    service: int,
    inference: int,
    fail_mode: str = "open",
    keys: Keys | None = None,
    settings: str = "",
) -> Iterator[int]:
    port, home = free_port(), folder / "litellm"
    home.mkdir()
    text = replaced(
        (GATEWAYS / "litellm.yaml").read_text(),
        {
            "http://127.0.0.1:8460": f"http://127.0.0.1:{service}",
            "http://127.0.0.1:8000/v1": f"http://127.0.0.1:{inference}/v1",
            "fail_mode: open ": f"fail_mode: {fail_mode} ",
            "botsieve_litellm.BotsieveGuardrail": "ours.Timed",
        },
    )
    (home / "litellm.yaml").write_text(text + "\ngeneral_settings:\n  custom_auth: ours.auth\n" + settings)
    (home / "ours.py").write_text(OURS)
    (home / "keys.json").write_text(json.dumps(keys or {}))
    shutil.copy(GATEWAYS / "botsieve_litellm.py", home)
    command = [str(LITELLM), "--config", str(home / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "FORWARDED_ALLOW_IPS": "", "BOTSIEVE_TOKEN": TOKEN,
                   "INFERENCE_KEY": "sk-inference", "PYTHONPATH": str(home), "NO_PROXY": "*",
                   "LITELLM_MASTER_KEY": f"sk-{os.urandom(32).hex()}"}  # fmt: skip
    with program(command, port, folder / "litellm.log", **environment):
        yield port


def chat(
    port: int,
    address: str = "127.1.0.9",
    key: str = "alice",
    path: str = CHAT,
    headers: dict[str, str] | None = None,
    **more: object,
) -> tuple[int, dict[str, str], bytes]:
    body = {
        "model": "m-large",
        "messages": [{"role": "user", "content": "How many states are there?"}],
        "max_tokens": 50,
        **more,
    }
    sent = {"content-type": "application/json", "authorization": f"Bearer {key}", "x-forwarded-for": "203.0.113.9"}
    return ask(port, address, "POST", path, {**sent, **(headers or {})}, json.dumps(body).encode())


def test_honest_clients_are_served_and_an_attacker_is_refused(
    shared: Path, inference: Inference, tmp_path: Path
) -> None:
    keys = keys_of(shared / "traffic.jsonl")
    # LiteLLM tells how long requests took here, which moves scores by a tenth or two from machine to machine. With this budget
    # both thresholds lie a quarter away from the scores that reach them: 3.8 and 4.8 for 4.5 first, and 5.0 at most.
    with (
        Running(tmp_path, shared / "bundle", block_budget=0.00026)() as service,
        litellm(tmp_path, service.port, inference.port, keys=keys) as port,
    ):
        passage = drive(service, port, shared / "traffic.jsonl", inference, only=CHAT, kinds=PASSING, awaited=True)
        why = "\n".join(service.metrics("botsieve_reasons_total"))
        served, attacked = (
            passage.statuses["person"] + passage.statuses["sdk_batch"],
            passage.statuses["prompt_extraction"],
        )
        assert len(served) == sum(passage.reached[kind] for kind in ("person", "sdk_batch")), f"{passage}\n{why}"
        assert len(served) >= 20
        # LiteLLM tells of prompts: who asks for the model's instructions is soon refused.
        assert {401, 403} <= set(attacked), f"{passage}\n{why}"
        assert attacked.index(401) < attacked.index(403), f"challenged, then blocked: {attacked}"
        assert set(attacked) <= {200, 401, 403}
        assert passage.reached["prompt_extraction"] < len(attacked) / 2, f"{passage}\n{why}"


def test_calls_streams_and_bad_keys_reach_the_profile(shared: Path, inference: Inference, tmp_path: Path) -> None:
    running = Running(tmp_path, shared / "bundle", mode="shadow", clock="server")
    recorded = RECORDED
    with running() as service:
        with litellm(tmp_path, service.port, inference.port) as port:
            assert chat(port)[0] == 200
            eventually(lambda: service.metric(recorded) == 1)
            status, _, body = chat(port, stream=True)
            assert status == 200
            assert b"data:" in body
            eventually(lambda: service.metric(recorded) == 2)
            inference.status = 404
            assert chat(port)[0] == 404
            eventually(lambda: service.metric(recorded) == 3)
            assert chat(port, address="127.1.0.8", key="bad key")[0] == 401
            eventually(lambda: service.metric(recorded) == 4)
        assert service.metric("botsieve_in_flight") == 0
    assert told_of(running, shared / "bundle", "127.1.0.8").auth_errors == 1.0
    good = told_of(running, shared / "bundle", "127.1.0.9")
    assert (good.requests, good.auth_errors) == (3.0, 0.0)
    assert good.output_tokens > 0


def test_the_openai_client_solves_its_challenges_and_is_served(
    shared: Path, inference: Inference, tmp_path: Path
) -> None:
    settings = {
        "challenge_budget": 0.99,
        "block_budget": 0.0,
        "challenge_work_least": 2000,
        "challenge_work_most": 8000,
    }
    with (
        Running(tmp_path, shared / "bundle", clock="server", **settings)() as service,
        litellm(tmp_path, service.port, inference.port) as port,
    ):
        refused = [answer for _ in range(40) if (answer := chat(port))[0] == 401]
        assert refused
        assert 'challenge="/v1/challenge/' in refused[0][1]["www-authenticate"]
        auth = BotsieveAuth2(service=service.url)
        with openai.OpenAI(
            api_key="alice",
            base_url=f"http://127.0.0.1:{port}/v1",
            max_retries=0,
            http_client=httpx2.Client(auth=auth, trust_env=False),
        ) as client:
            for _ in range(12):
                answer = client.chat.completions.create(
                    model="m-large", messages=[{"role": "user", "content": "How many?"}]
                )
                assert answer.choices[0].message.content == "fifty"
        assert service.metric('botsieve_challenges_total{result="solved"}') == 1, "one pass serves them all"


def test_who_has_a_pass_waits_for_room_during_an_attack(shared: Path, inference: Inference, tmp_path: Path) -> None:
    settings = {"block_budget": 0.0, "challenge_work_least": 2000, "challenge_work_most": 8000, "load_s": 600}
    with (
        Running(tmp_path, shared / "bundle", "tests.gateways.attacked", clock="server", **settings)() as service,
        litellm(tmp_path, service.port, inference.port) as port,
    ):
        service.load(1.0)
        auth = BotsieveAuth2(service=service.url, patience=24.0)
        with (
            openai.OpenAI(
                api_key="alice",
                base_url=f"http://127.0.0.1:{port}/v1",
                max_retries=0,
                http_client=httpx2.Client(auth=auth, trust_env=False),
            ) as client,
            ThreadPoolExecutor(1) as background,
        ):
            called = background.submit(
                client.chat.completions.create, model="m-large", messages=[{"role": "user", "content": "How many?"}]
            )
            eventually(lambda: service.metric('botsieve_passes_total{result="waits"}') >= 2, 20.0)
            assert not called.done()
            service.load(0.0)
            assert called.result(20).choices[0].message.content == "fifty"


def test_shadow_mode_changes_nothing(shared: Path, inference: Inference, tmp_path: Path) -> None:
    with Running(tmp_path, shared / "bundle", mode="shadow")() as service:  # noqa: SIM117
        with litellm(tmp_path, service.port, inference.port) as port:
            passage = drive(service, port, shared / "traffic.jsonl", inference, only=CHAT, kinds=PASSING, awaited=True)
    assert all(passage.reached[kind] == len(statuses) for kind, statuses in passage.statuses.items())


USER: dict[str, object] = {"role": "user"}
FORGED = {"requester_ip_address": "203.0.113.9", "user_agent": "forged"}
ODD: list[dict[str, object]] = [
    {"messages": [{**USER, "content": "x" * 3_000_000}]},
    {"messages": [{**USER, "content": "\x01" * 300_000}]},
    {"messages": [{**USER, "content": "\ud800 alone"}]},
    {"messages": [{**USER, "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "\udfff"}]}]},
    {"messages": [{**USER, "content": ""}, 7, None]},
    {"max_tokens": 10**30},
    {"max_tokens": -5},
    {"max_tokens": "many"},
    {"max_tokens": 1e300},
    {"max_completion_tokens": 2**53},
    {"prompt": ["a", 7]},
    {"user": "\ud800"},
    {"metadata": FORGED},
    {"metadata": {"requester_ip_address": "a b"}},
    {"metadata": {"requester_ip_address": 7, "user_api_key_auth": {"token": "x"}}},
    {"metadata": {"user_id": "honest"}},
    {"metadata": json.dumps(FORGED)},
    {"litellm_metadata": FORGED},
    {"litellm_metadata": {"requester_ip_address": 7}, "proxy_server_request": 7},
    {"guardrails": []},
    {"litellm_call_id": "the same"},
]
ODD_HEADERS: list[dict[str, str]] = [
    {"x-botsieve-pass": "\xff"},
    {"x-botsieve-pass": "x" * 60_000},
    {"user-agent": "x" * 60_000, "referer": "\xff" * 60_000},
    {"user-agent": "\xff\xfe"},
    *({f"x-pad-{place}": "x" * 7000 for place in range(count)} for count in (6, 12)),
]


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages"])
def test_no_client_can_make_its_call_escape(shared: Path, inference: Inference, tmp_path: Path, path: str) -> None:
    """What botsieve cannot read is answered by the fail mode, which is open: no call may bring that about, or tell an address."""
    arrivals = "botsieve_arrivals_total"
    running = Running(tmp_path, shared / "bundle", mode="shadow", clock="server")
    with running() as service:
        with litellm(tmp_path, service.port, inference.port) as port:
            for place, changes in enumerate([*ODD, *ODD_HEADERS]):
                headers, body = (changes, {}) if place >= len(ODD) else ({}, changes)
                before, seen = inference.asked, service.metric(arrivals)
                status, _, _ = chat(port, path=path, headers=headers, input="How many states are there?", **body)  # type: ignore[arg-type]
                reached = inference.asked - before
                assert service.metric(arrivals) - seen >= reached, (changes, status, reached)
            assert inference.asked > 5
            for changes in ({}, {"metadata": FORGED}, {"litellm_metadata": FORGED}, {"proxy_server_request": 7}):
                seen = service.metric(arrivals)
                assert chat(port, key="bad key", path=path, address="127.1.0.8", **changes)[0] == 401
                eventually(lambda seen=seen: service.metric(arrivals) > seen)  # type: ignore[misc]
        everything = service.metric(arrivals)
    assert told_of(running, shared / "bundle", "127.1.0.8").requests == 4
    assert told_of(running, shared / "bundle", "127.1.0.9").requests == everything - 4


def test_of_several_hops_the_nearest_proxys_word_counts(shared: Path, inference: Inference, tmp_path: Path) -> None:
    running = Running(tmp_path, shared / "bundle", mode="shadow", clock="server")
    with running() as service:  # noqa: SIM117
        with litellm(tmp_path, service.port, inference.port, settings="  use_x_forwarded_for: true\n") as port:
            for key in ("alice", "bad key"):
                seen = service.metric("botsieve_arrivals_total")
                chat(port, key=key, headers={"x-forwarded-for": "198.51.100.1, 203.0.113.7"})
                eventually(lambda seen=seen: service.metric("botsieve_arrivals_total") > seen)  # type: ignore[misc]
    assert told_of(running, shared / "bundle", "203.0.113.7").requests == 2


@pytest.mark.parametrize(("fail_mode", "status"), [("open", 200), ("closed", 503)])
def test_without_botsieve_the_fail_mode_holds(
    inference: Inference, tmp_path: Path, fail_mode: str, status: int
) -> None:
    with litellm(tmp_path, free_port(), inference.port, fail_mode) as port:
        assert chat(port)[0] == status
        assert inference.asked == (1 if fail_mode == "open" else 0)


def test_a_stream_that_the_client_leaves_is_counted_as_far_as_it_came(
    shared: Path, inference: Inference, tmp_path: Path
) -> None:
    inference.pause_s = 0.2
    running = Running(tmp_path, shared / "bundle", mode="shadow", clock="server")
    with running() as service:  # noqa: SIM117
        with litellm(tmp_path, service.port, inference.port) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=("127.1.0.9", 0))
            body = {"model": "m-large", "messages": [{"role": "user", "content": "Count."}], "stream": True}
            headers = {"content-type": "application/json", "authorization": "Bearer alice"}
            connection.request("POST", CHAT, json.dumps(body), headers)
            reply = connection.getresponse()
            assert reply.read(20)
            reply.close()
            connection.close()
            eventually(lambda: service.metric(RECORDED) == 1)
            assert service.metric("botsieve_in_flight") == 0
    assert 0 < told_of(running, shared / "bundle", "127.1.0.9").output_tokens < 10, "as far as it came"
