"""What the tests of gateways share: the demo's model, a service as a program, an inference server, and simulated clients."""

from __future__ import annotations

import heapq
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from classifier.cli.demonstrating import write_log_to_learn_from
from classifier.cli.replaying import Service
from classifier.features import layout as at
from classifier.features.engine import Tables
from classifier.features.prepare import Preparer
from classifier.model.bundle import load_bundle
from serving.snapshot import Snapshots

TOKEN = "a token of the gateways' tests"
KEY = "the hash key of the gateways' tests"
KINDS = ("person", "sdk_batch", "slow_botnet", "prompt_extraction")
"""Who passes a gateway: the first three where it tells of addresses, the last one where it tells of accounts and prompts."""
GRPC_BELOW = 8000
"""A service's port for gRPC lies so far below the other, where it has one."""
MOST = 60
"""Requests of each of the clients that go through the gateway."""
RECORDED = 'botsieve_completions_total{result="recorded"}'


SEARCH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])


def missing(what: str) -> NoReturn:
    """Skip the test that needs what is not there; fail in CI, which would be green without having tested it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed", pytrace=False)
    pytest.skip(f"{what} is not installed")


def installed(program: str) -> str:
    """Return where a program is."""
    return shutil.which(program, path=SEARCH) or missing(program)


def free_port() -> int:
    """Return a port that is free, outside of those that outgoing connections take."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


def await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(2400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, log.read_text()[-2000:]
        time.sleep(0.05)
    raise AssertionError(log.read_text()[-2000:])


@contextmanager
def program(command: list[str], port: int, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that listens on a port until the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
        try:
            await_port(port, process, log)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def botsieve(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "classifier", *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `make demo`, trained as there, and another log; made once for all processes of the run."""
    if (
        ready := os.environ.get("BOTSIEVE_TEST_GATEWAYS")
    ) is not None:  # a folder that was made before: for work on a test
        return Path(ready)
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, lock = base / "gateways", base / "gateways.lock"
    try:
        lock.mkdir()
    except FileExistsError:
        for _ in range(2400):
            if (folder / "ready").exists():
                return folder
            time.sleep(0.1)
        raise AssertionError("another process did not make the model") from None
    folder.mkdir()
    train = folder / "train.jsonl"
    write_log_to_learn_from(train, 0, quiet=True)
    botsieve("train", str(train), "--bundle", str(folder / "bundle"), "--quiet")
    botsieve("simulate", "--out", str(folder / "traffic.jsonl"), "--duration", "1800", "--clients", "80",
             "--attacks", "all:plain", "--seed", "5", "--quiet")  # fmt: skip
    (folder / "ready").touch()
    return folder


@dataclass
class Inference:
    """An inference server that notes what reaches it; `status` and `size` of its answers can be set."""

    port: int
    status: int = 200
    size: int = 500
    pause_s: float = 0.0
    usage: tuple[int, int] = (9, 3)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def asked(self) -> int:
        """Requests of clients; LiteLLM asks for the list of models by itself."""
        return sum(
            not (path == "/v1/models" and headers.get("user-agent", "").startswith("litellm"))
            for _, path, headers in self.seen
        )


@pytest.fixture
def inference() -> Iterator[Inference]:
    made = Inference(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            made.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            if body.startswith(b"{"):
                self.complete(json.loads(body))
                return
            self.send_response(made.status)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(made.size))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(b"x" * made.size)

        def complete(self, asked: dict[str, Any]) -> None:
            """Answer as OpenAI's interface has it."""
            self.send_response(made.status)
            self.send_header("connection", "close")
            stream = bool(asked.get("stream")) and made.status == 200
            self.send_header("content-type", "text/event-stream" if stream else "application/json")
            self.end_headers()
            common = {"id": "c", "created": 1, "model": str(asked.get("model"))}
            if not stream:
                message = {"role": "assistant", "content": "fifty"}
                read, written = made.usage
                usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
                content = {**common, "object": "chat.completion", "usage": usage,
                           "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip
                if self.path.endswith("/responses"):
                    output = {"type": "message", "id": "m", "status": "completed", "role": "assistant",
                              "content": [{"type": "output_text", "text": "fifty", "annotations": []}]}  # fmt: skip
                    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
                    content = {**common, "object": "response", "created_at": 1, "status": "completed", "output": [output],
                               "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage}  # fmt: skip
                text = json.dumps(content if made.status == 200 else {"error": {"message": "no"}})
                self.wfile.write(text.ljust(made.size).encode())
                return
            try:
                for number in range(10):
                    choice = {
                        "index": 0,
                        "delta": {"content": f"{number} "},
                        "finish_reason": "stop" if number == 9 else None,
                    }
                    piece = {**common, "object": "chat.completion.chunk", "choices": [choice]}
                    self.wfile.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
                    self.wfile.flush()
                    time.sleep(made.pause_s)
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                pass  # who asked has gone

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


class Running:
    """A botsieve service as a program: the real one, or another `program` around it."""

    def __init__(self, folder: Path, bundle: Path, program: str = "serving", **settings: Any) -> None:
        self.port, self.folder, self._bundle, self._program = free_port(), folder, bundle, program
        given = {"mode": "enforce", "clock": "event", "warm_up_s": 0, "token": TOKEN, "trusted_proxies": ["127.0.0.1/32"],
                 "account_header": "x-botsieve-account", "state": str(folder / "state"), **settings}  # fmt: skip
        if given.pop("grpc", False):
            given["grpc_port"] = self.port - GRPC_BELOW
        self._environment = {
            f"BOTSIEVE_{name.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
            for name, value in given.items()
        }
        self._environment["BOTSIEVE_HASH_KEY"] = KEY

    @contextmanager
    def __call__(self) -> Iterator[Running]:
        command = [sys.executable, "-m", self._program, "--bundle", str(self._bundle), "--port", str(self.port)]
        with program(command, self.port, self.folder / "service.log", **self._environment):
            os.environ["BOTSIEVE_TOKEN"] = TOKEN
            try:
                yield self
            finally:
                del os.environ["BOTSIEVE_TOKEN"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def load(self, load: float) -> None:
        """State how loaded the gateway is."""
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        body = json.dumps({"load": load}).encode()
        urllib.request.urlopen(urllib.request.Request(self.url + "/v1/load", body, headers), timeout=10).close()

    def metric(self, line: str) -> float:
        """Return the value of one metric with its labels; 0 where there is none."""
        return next((float(row.rpartition(" ")[2]) for row in self.metrics(line + " ")), 0.0)

    def metrics(self, start: str) -> list[str]:
        """Return the lines of the metrics that begin like this."""
        request = urllib.request.Request(self.url + "/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        text = urllib.request.urlopen(request, timeout=10).read().decode()
        return [row for row in text.splitlines() if row.startswith(start)]


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what a program tells of in its own time."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.05)


Answer = tuple[int, dict[str, str], bytes]


def ask(port: int, address: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    """Ask a gateway from a loopback address; return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(address, 0))
    try:
        connection.request(method, path, body or None, headers)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


@dataclass
class Passage:
    """What came of the requests that went through a gateway: statuses by kind, in order."""

    statuses: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    reached: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __str__(self) -> str:
        return "; ".join(
            f"{kind}: {dict(Counter(statuses))}, {self.reached[kind]} reached the server"
            for kind, statuses in self.statuses.items()
        )


def drive(
    service: Running,
    port: int,
    traffic: Path,
    inference: Inference,
    only: str | None = None,
    kinds: tuple[str, ...] = KINDS[:3],
    awaited: bool = False,
) -> Passage:
    """Let simulated clients pass: one of each of `kinds` through the gateway, all others as through another one, by time.

    `awaited` is for a gateway that tells by itself, a moment later, how each request ended: by the simulated time the next one
    comes much later than that, however busy the machine is.
    """
    events = [json.loads(line) for line in traffic.read_text().splitlines()]
    counts: dict[str, dict[str, int]] = {kind: defaultdict(int) for kind in kinds}
    for event in events:
        if (
            event["family"] in kinds
            and _fits(event, only)
            and (event["family"] != "sdk_batch" or event["status"] == 200)
        ):
            counts[event["family"]][_client(event)] += 1
    chosen = {max(found, key=lambda name: (found[name], name)): kind for kind, found in counts.items()}
    direct, passed, passage = Service(service.url), defaultdict(int), Passage()
    waiting: list[dict[str, Any]] = []
    ends: list[tuple[float, int, dict[str, Any]]] = []

    def flush(until: float) -> None:
        if waiting:
            answers = direct.post("/v1/decide/batch", [_arrival(event) for event in waiting])
            for event, answer in zip(waiting, answers, strict=True):
                end = {name: event[name] for name in ("status", "duration", "input_tokens", "output_tokens", "response_bytes")
                       if event.get(name) is not None}  # fmt: skip
                heapq.heappush(
                    ends,
                    (
                        event["time"] + event.get("duration", 0.0),
                        len(ends),
                        {"id": answer["id"], **end, "verdict": "allow"},
                    ),
                )
            waiting.clear()
        due = []
        while ends and ends[0][0] <= until:
            due.append(heapq.heappop(ends)[2])
        if due:
            direct.post("/v1/complete", due)

    for event in sorted(events, key=lambda event: event["time"]):
        kind = chosen.get(_client(event))
        if kind is None or passed[kind] >= MOST or not _fits(event, only):
            waiting.append(event if kind is None else _as_seen(event, kind, only))
            if len(waiting) >= 200:
                flush(event["time"])
            continue
        flush(event["time"])
        passed[kind] += 1
        inference.status = 200 if only else event.get("status") or 200  # LiteLLM lets a model that failed rest a while
        inference.size = min(event.get("response_bytes") or 0, 50_000)
        before, recorded = inference.asked, service.metric(RECORDED) if awaited else 0
        inference.usage = event.get("input_tokens") or 9, event.get("output_tokens") or 3
        sent = _sent(event) if only is None else _sent_chat(event)
        status, _, _ = ask(port, _address(kind), event["method"], event["path"], *sent)
        passage.statuses[kind].append(status)
        passage.reached[kind] += inference.asked - before
        if awaited and inference.asked > before:
            eventually(lambda seen=recorded: service.metric(RECORDED) > seen)
        if min(passed[kind] for kind in kinds) >= MOST:
            break
    direct.close()
    return passage


def _as_seen(event: dict[str, Any], kind: str, only: str | None) -> dict[str, Any]:
    """Return what does not pass LiteLLM (pages, logins) under the identity that it gives the client."""
    if only is None:
        return event
    seen = {**event, "ip": _address(kind)}
    if event.get("account"):
        seen["account"] = blake2b(event["account"].encode(), digest_size=12, person=b"botsieve").hexdigest()
    return seen


def _address(kind: str) -> str:
    return f"127.1.0.{1 + KINDS.index(kind)}"


def _fits(event: dict[str, Any], only: str | None) -> bool:
    return only is None or (event["path"] == only and bool(event.get("account")))


def _client(event: dict[str, Any]) -> str:
    return str(event.get("account") or event["ip"])


def _arrival(event: dict[str, Any]) -> dict[str, Any]:
    names = ("time", "ip", "method", "path", "account", "account_created", "user_agent", "referer", "fingerprint",
             "request_bytes", "model", "max_tokens", "prompt", "credential")  # fmt: skip
    return {name: event[name] for name in names if event.get(name) is not None}


def _sent(event: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    size = min(event.get("request_bytes") or 0, 20_000)
    body = _chat(event).ljust(size) if event.get("model") else b"p" * size
    headers = {"x-simulated-time": repr(event["time"]), "host": "site.example"}
    for name, header in (
        ("user_agent", "user-agent"),
        ("referer", "referer"),
        ("account_created", "x-simulated-created"),
    ):
        if event.get(name):
            headers[header] = str(event[name])
    if event.get("account"):
        headers["authorization"] = f"Bearer {event['account']}"
    return headers, body


def _sent_chat(event: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    headers, body = _sent(event)
    headers["content-type"] = "application/json"
    return headers, body if event.get("model") else _chat(event)


def _chat(event: dict[str, Any]) -> bytes:
    """Return the body of a call to OpenAI's interface."""
    body = {"model": "m-large", "messages": [{"role": "user", "content": event.get("prompt") or "Hello"}]}
    if event.get("max_tokens"):
        body["max_tokens"] = event["max_tokens"]
    return json.dumps(body).encode()


def replaced(text: str, changes: dict[str, str]) -> str:
    """Return a configuration with changes; each must fit, so that a test notices when it is written anew."""
    for old, new in changes.items():
        assert old in text, f"the configuration has changed: {old}"
        text = text.replace(old, new)
    return text


@dataclass
class Told:
    """What the profile of an address holds of completions."""

    requests: float
    auth_errors: float
    output_tokens: float


def told_of(service: Running, bundle: Path, address: str) -> Told:
    """Return what the snapshot that a service wrote when it stopped holds of an address."""
    record = profile_of(service, bundle, address, "address")
    assert record is not None, f"nothing came from {address}"
    done = record[0, at.DONE] or np.nan
    return Told(
        float(record[0, at.TOTAL]),
        float(record[0, at.AUTH] / done),
        float(record[0, at.OUT_S] / (record[0, at.OUT_N] or np.nan)),
    )


def profile_of(service: Running, bundle: Path, client: str, entity: str = "client") -> Any:
    """Return the record of a client's profile in the snapshot that a service wrote when it stopped."""
    tables = Tables.from_slots(load_bundle(bundle).manifest.tables)
    restored = Snapshots(service.folder / "state", KEY.encode()).restore(tables)
    assert restored is not None
    account, address = Preparer(KEY.encode()).client_keys(client)
    engine = restored[0]
    found = engine.profile(entity, account)
    return engine.profile(entity, address) if found is None else found


def told(service: Running, bundle: Path, client: str) -> tuple[float, float, float]:
    """Return what a profile holds of completions: how many, the share of 404, and the mean size of answers in bytes."""
    record = profile_of(service, bundle, client)
    assert record is not None, f"no profile of {client}"
    done, missing = record[0, at.DONE], record[0, at.MISSING]
    sizes = record[0, at.RESPONSE_N], record[0, at.RESPONSE_S]
    return float(record[0, at.TOTAL]), float(missing / done), float(2.0 ** (sizes[1] / sizes[0]) - 1.0)
