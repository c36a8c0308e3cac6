"""nginx, Caddy and Envoy, as serving/gateways/ configures them, in front of a service and an inference server."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import openai
import pytest

from classifier.cli.tailing import run as tail
from classifier.logs import read_log
from serving.auth import BotsieveAuth2
from tests.gateways.shared import (
    GRPC_BELOW,
    TOKEN,
    Inference,
    Running,
    ask,
    drive,
    eventually,
    free_port,
    installed,
    program,
    replaced,
    told,
)

GATEWAYS = Path(__file__).parents[2] / "serving" / "gateways"


ADDRESSES = (
    "x-real-ip",
    "x-forwarded-for",
    "x-envoy-external-address",
    "x-botsieve-address",
    "forwarded",
    "true-client-ip",
)


@dataclass(frozen=True)
class Gateway:
    """A program, our configuration of it, and what a test has to change in it."""

    name: str
    program: str
    file: str
    preset: str
    change: Callable[[str, Path, bool], str]
    command: Callable[[str, Path], list[str]]
    port: tuple[str, str]
    service: tuple[str, str]
    inference: tuple[str, str]

    @contextmanager
    def __call__(self, folder: Path, service: int, inference: int, *, closed: bool = False) -> Iterator[int]:
        """Run it until the end of the block; yield the port that it listens on."""
        found, port = installed(self.program), free_port()
        text = self.change((GATEWAYS / self.file).read_text(), folder, closed)
        numbers = ((self.port, port), (self.service, service), (self.inference, inference))
        for (old, new), number in [(change, number) for change, number in numbers]:
            text = replaced(text, {old: new.format(number)})
        text = text.replace("port_value: 8461", f"port_value: {service - GRPC_BELOW}")
        text = replaced(text, {"a token of 16 characters or more": TOKEN})
        path = folder / self.file
        path.write_text(text)
        with program(self.command(found, path), port, folder / f"{self.name}.log"):
            yield port


def _nginx(text: str, folder: Path, closed: bool) -> str:
    temporary = "".join(
        f"    {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    account = 'map $http_authorization $botsieve_account { default ""; '
    if closed:
        text = text[: text.index("location @unguarded {")] + "location @unguarded { return 503; }\n    }\n}\n"
    return replaced(
        text,
        {
            "/var/log/nginx/": f"{folder}/",
            "/run/nginx.pid": f"{folder}/nginx.pid",
            account: account + '"~^Bearer (?<account>.+)$" $account; ',
            "worker_processes auto;": "worker_processes 1; daemon off; master_process off;",
            "X-Botsieve-Account $botsieve_account;": "X-Botsieve-Account $botsieve_account; "
            "proxy_set_header X-Botsieve-Time $http_x_simulated_time;",
            "    upstream botsieve ": temporary + "    upstream botsieve ",
        },
    )


def _caddy(text: str, folder: Path, closed: bool) -> str:
    if closed:
        opened = "(unguarded) {\n\treverse_proxy 127.0.0.1:8000 {\n\t\tflush_interval -1\n\t}\n}"
        text = replaced(text, {opened: "(unguarded) {\n\trespond 503\n}"})
    return replaced(
        text,
        {
            "/var/log/caddy/": f"{folder}/",
            "\t\trequest_header -X-Botsieve-Id\n": "\t\trequest_header -X-Botsieve-Id\n"
            "\t\trequest_header X-Botsieve-Time {header.X-Simulated-Time}\n"
            "\t\trequest_header X-Botsieve-Account {header.Authorization}\n",
        },
    )


def _envoy(text: str, folder: Path, closed: bool) -> str:
    logs = (
        {"/var/log/envoy/": f"{folder}/"}
        if "/var/log/envoy/" in text
        else {"flush_interval: 0.5s": "flush_interval: 0.02s"}
    )
    return replaced(
        text,
        {
            **logs,
            "failure_mode_allow: true": f"failure_mode_allow: {str(not closed).lower()}",
            # Mutations are done in their order, and the account has been removed by then.
            "              - remove: x-botsieve-load\n": "              - remove: x-botsieve-load\n"
            + "".join(
                f"              - append:\n                  header: {{key: {key}, value: '%REQ({header})%'}}\n"
                "                  append_action: OVERWRITE_IF_EXISTS_OR_ADD\n"
                for key, header in (
                    ("x-botsieve-time", "x-simulated-time"),
                    ("x-botsieve-account", "authorization"),
                    ("x-botsieve-account-created", "x-simulated-created"),
                )
            ),
        },
    )


def _nginx_command(found: str, path: Path) -> list[str]:
    return [found, "-p", str(path.parent), "-e", str(path.parent / "error.log"), "-c", str(path)]


ALL = (
    Gateway("nginx", "nginx", "nginx.conf", "nginx", _nginx, _nginx_command, ("listen 8080;", "listen {};"),
            ("server 127.0.0.1:8460;", "server 127.0.0.1:{};"), ("server 127.0.0.1:8000;", "server 127.0.0.1:{};")),
    Gateway("caddy", "caddy", "Caddyfile", "forwarded", _caddy,
            lambda found, path: [found, "run", "--config", str(path), "--adapter", "caddyfile"], (":8080", ":{}"),
            ("127.0.0.1:8460", "127.0.0.1:{}"), ("127.0.0.1:8000", "127.0.0.1:{}")),
    *(Gateway(name, "envoy", f"{name}.yaml", "envoy", _envoy,
              lambda found, path: [found, "-c", str(path), "--base-id", str(free_port()), "--concurrency", "1",
                                   "--file-flush-interval-msec", "200"],
              ("port_value: 8080", "port_value: {}"), ("port_value: 8460", "port_value: {}"),
              ("port_value: 8000", "port_value: {}")) for name in ("envoy-http", "envoy-grpc")),
)  # fmt: skip


@pytest.fixture(params=ALL, ids=lambda gateway: gateway.name)
def gateway(request: pytest.FixtureRequest) -> Gateway:
    chosen: Gateway = request.param
    installed(chosen.program)
    return chosen


def settings(gateway: Gateway) -> dict[str, Any]:
    """Return the settings that the head of the configuration names."""
    own: dict[str, Any] = {
        "envoy-http": {"address_header": "x-botsieve-address"},
        "envoy-grpc": {"grpc": True, "account_created_header": "x-botsieve-account-created"},
    }.get(gateway.name, {})
    return {"gateway": gateway.preset, **own}


def hear(gateway: Gateway, folder: Path, service: Running, completions: int) -> None:
    """Let the service hear how requests ended, while the gateway still runs."""
    if gateway.name != "envoy-grpc":
        time.sleep(0.5)
        tail(folder / "botsieve.json", service.url, once=True, quiet=True)
        return
    for _ in range(100):
        if service.metric('botsieve_completions_total{result="recorded"}') >= completions:
            break
        time.sleep(0.1)


pytestmark = pytest.mark.slow


def test_honest_clients_are_served_and_an_attacker_is_challenged_and_blocked(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    with Running(tmp_path, shared / "bundle", **settings(gateway))() as service:
        with gateway(tmp_path, service.port, inference.port) as port:
            passage = drive(service, port, shared / "traffic.jsonl", inference, awaited=gateway.name == "envoy-grpc")
            hear(gateway, tmp_path, service, 0)
        served, attacked = passage.statuses["person"] + passage.statuses["sdk_batch"], passage.statuses["slow_botnet"]
        assert len(served) == sum(passage.reached[kind] for kind in ("person", "sdk_batch")), str(passage)
        assert 401 in attacked, str(passage)
        assert 403 in attacked, str(passage)
        assert attacked.index(401) < attacked.index(403), "challenged, and then blocked"
        assert passage.reached["slow_botnet"] < len(attacked) / 2, str(passage)
        assert service.metric('botsieve_completions_total{result="unknown"}') == 0


def test_completions_reach_the_profile_and_addresses_cannot_be_forged(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    inference.status, inference.size = 404, 1234
    running = Running(tmp_path, shared / "bundle", **settings(gateway), mode="shadow", clock="server")
    forged = {**dict.fromkeys(ADDRESSES, "203.0.113.9"), "x-original-uri": "/forged",
              "x-botsieve-account": "boss", "x-botsieve-id": "1-00", "x-original-method": "DELETE"}  # fmt: skip
    with running() as service:
        with gateway(tmp_path, service.port, inference.port) as port:
            for _ in range(3):
                assert ask(port, "127.1.0.9", "GET", "/nothing", forged)[0] == 404
            hear(gateway, tmp_path, service, 3)
        assert service.metric('botsieve_completions_total{result="recorded"}') == 3
    assert told(service, shared / "bundle", "127.1.0.9") == pytest.approx((3.0, 1.0, 1234.0))


def test_a_challenged_program_finds_its_challenge(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    running = Running(tmp_path, shared / "bundle", **settings(gateway), challenge_budget=0.9)
    with running() as service:  # noqa: SIM117
        with gateway(tmp_path, service.port, inference.port) as port:
            refused = [
                answer
                for place in range(40)
                if (
                    answer := ask(
                        port, "127.1.0.7", "POST", "/v1/chat/completions", {"x-simulated-time": f"{1.8e9 + place}"}
                    )
                )[0]
                == 401
            ]
            assert refused
            _, headers, body = refused[0]
            assert headers["www-authenticate"].startswith('Botsieve challenge="/v1/challenge/')
            assert b"challenge" in body
            found = urljoin("/", headers["www-authenticate"].split('"')[1])
            page = ask(port, "127.1.0.7", "GET", found, {"accept": "text/html"})
            assert page[0] == 200
            assert page[1]["content-type"].startswith("text/html")


def test_no_path_leads_a_client_to_the_call_of_the_gateway(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    running = Running(tmp_path, shared / "bundle", **settings(gateway), mode="shadow", clock="server")
    with running() as service, gateway(tmp_path, service.port, inference.port) as port:
        assert ask(port, "127.1.0.9", "GET", "/v1/challenge/static/altcha/altcha-3.2.2.css", {})[0] == 200
        assert ask(port, "127.1.0.9", "POST", "/v1/challenge/verify?a=b", {}, b"{")[0] in (400, 415)
        for path in (
            "/v1/authorize/../challenge/x",
            "/v1/authorize/%2e%2e/challenge/x",
            "//v1/authorize/../challenge/x",
            "/v1/challenge/../authorize",
            "/v1/challenge/..%2fauthorize",
            "/v1/challenge/%252e%252e/authorize",
        ):
            ask(port, "127.1.0.9", "GET", path, dict.fromkeys(ADDRESSES, "203.0.113.9"))
        # Without the token, which clients do not know, the call is refused; that none was made is counted so.
        assert service.metric('botsieve_rejected_total{reason="token"}') == 0


def test_nginx_limits_how_often_an_address_asks_for_challenges(
    shared: Path, inference: Inference, tmp_path: Path
) -> None:
    gateway = next(one for one in ALL if one.name == "nginx")
    running = Running(tmp_path, shared / "bundle", **settings(gateway), mode="shadow", clock="server")
    with running() as service, gateway(tmp_path, service.port, inference.port) as port:
        with ThreadPoolExecutor(8) as pool:
            asked = pool.map(lambda _: ask(port, "127.1.0.9", "GET", "/v1/challenge/x", {})[0], range(1000))
        statuses = list(asked)
        assert statuses.count(404) >= 100, "in whatever order they arrive"
        assert 429 in statuses
        assert ask(port, "127.1.0.8", "GET", "/v1/challenge/x", {})[0] == 404
        assert ask(port, "127.1.0.9", "GET", "/", {})[0] == 200


def test_shadow_mode_changes_nothing(gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path) -> None:
    with Running(tmp_path, shared / "bundle", **settings(gateway), mode="shadow")() as service:
        with gateway(tmp_path, service.port, inference.port) as port:
            passage = drive(service, port, shared / "traffic.jsonl", inference, awaited=gateway.name == "envoy-grpc")
        assert all(passage.reached[kind] == len(statuses) for kind, statuses in passage.statuses.items())
        assert service.metric('botsieve_decisions_total{decision="block",enforced="allow"}') > 0


@pytest.mark.parametrize(("closed", "status"), [(False, 200), (True, 503)])
def test_without_botsieve_the_fail_mode_holds(
    gateway: Gateway, inference: Inference, tmp_path: Path, closed: bool, status: int
) -> None:
    with gateway(tmp_path, free_port(), inference.port, closed=closed) as port:
        assert ask(port, "127.1.0.7", "POST", "/v1/chat/completions", {}, b"{}")[0] == status
        assert len(inference.seen) == (0 if closed else 1)


@pytest.mark.parametrize(("closed", "status"), [(False, 200), (True, 503)])
def test_a_botsieve_that_fails_brings_about_the_fail_mode(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path, closed: bool, status: int
) -> None:
    """As it does when it does not answer: here because the gateway's token is wrong."""
    with (
        Running(tmp_path, shared / "bundle", **settings(gateway), token="not the token of the gateway")() as service,
        gateway(tmp_path, service.port, inference.port, closed=closed) as port,
    ):
        assert ask(port, "127.1.0.7", "POST", "/v1/chat/completions", {}, b"{}")[0] == status
        assert len(inference.seen) == (0 if closed else 1)


@contextmanager
def broken_server() -> Iterator[tuple[int, list[bytes]]]:
    """Run a server that answers nothing; yield its port and what it is asked."""
    asked: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if data := self.request.recv(65_536):
                asked.append(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], asked
        server.shutdown()


def test_an_inference_server_that_fails_is_asked_once(gateway: Gateway, shared: Path, tmp_path: Path) -> None:
    with (
        Running(tmp_path, shared / "bundle", **settings(gateway), mode="shadow", clock="server")() as service,
        broken_server() as (inference, asked),
        gateway(tmp_path, service.port, inference) as port,
    ):
        assert ask(port, "127.1.0.7", "POST", "/v1/chat/completions", {}, b"{}")[0] in (502, 503)
        assert len(asked) == 1


def push(port: int, path: str, headers: dict[str, str]) -> None:
    """Send a request with any bytes in its headers."""
    body = b'{"model": "\\ud800", "max_tokens": 1e400, "messages": 7}'
    lines = {"host": "site.example", "connection": "close", "content-length": str(len(body)), **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    push_raw(port, head.encode("latin-1") + body)


def push_raw(port: int, request: bytes) -> None:
    """Send any bytes, and wait for an answer or the end."""
    with socket.create_connection(("127.0.0.1", port), 5, ("127.1.0.9", 0)) as connection, suppress(OSError):
        connection.sendall(request)
        connection.recv(65_536)


HEADERS_TO_SPOIL = ("X-A", "User-Agent", "Referer", "Accept", "Cookie", "Authorization", "X-Api-Key", "X-Botsieve-Pass")
SPOILT = (b"a\x01b", b"\x7f", b"a\x00b", b"a\x0bb", b"a\rb", b"a\r\n folded", b"a\n\tfolded", b"\xff\x80", b"", b"\t")
"""Values of headers."""
HEADS = (
    b": no name\r\n", b"no colon\r\n", b"X A: blank in a name\r\n", b"X-A : blank\r\n", b"X\x01A: b\r\n",
    b"\xff: b\r\n",
    b" folded: first\r\n", b"X_A: b\r\n", b"X-A: b\n", b"X-A: " + b"x" * 70_000 + b"\r\n",
    b"".join(b"X-%d: b\r\n" % place for place in range(200)), b"X-A: b\r\n" * 600, b"X-Botsieve-A: b\r\n" * 600,
    b"".join(b"X-%d: %s\r\n" % (place, b"x" * 900) for place in range(200)),
    b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", b"Referer: a\r\nReferer: b\r\n",
    b"Accept: a\r\nAccept: b\r\n",
    b"Cookie: a=b\r\nCookie: c=d\r\n", b"Host: another\r\n", b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    b"Content-Length: 0\r\nContent-Length: 5\r\n", b"Content-Length: +1\r\n",
    b"Content-Length: 99999999999999999999999\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: 100-continue\r\n",
    b"Expect: x\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Upgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: Upgrade, HTTP2-Settings\r\n",
    b"Connection: x-forwarded-for, x-real-ip, x-original-uri, x-botsieve-token, x-botsieve-address\r\n",
    b"TE: trailers\r\n",
    b"Trailer: x-botsieve-token\r\n", b"Range: bytes=0-0\r\nIf-None-Match: *\r\n",
)  # fmt: skip
"""Lines of headers."""
TARGETS = (
    b"http://other.example/v1/x?n=%d-", b"https://other.example:99999/v1/x?n=%d-", b"http://[/v1/x?n=%d-",
    b"//x/v1?n=%d-",
    b"/v1/%%00/x?n=%d-", b"/v1/%%0a%%0d/x?n=%d-", b"/v1/\xff\xc3\xa4?n=%d-", b"/v1/%%zz?n=%d-", b"/v1/x?n=%d-\x01",
    b"/v1/x?n=%d-\x7f",
    b"/v1/x?n=%d-\x00", b"/v1/a b?n=%d-", b"/v1/x?n=%d-#part", b"/v1/" + b"a" * 30_000 + b"?n=%d-",
    b"/v1/x?n=%d-" + b"a" * 30_000,
    b"/v1/" + b"a" * 7_900 + b"?n=%d-", b"*?n=%d-", b"v1?n=%d-", b"?n=%d-", b"/\\x?n=%d-", b"/v1/../../x?n=%d-",
    b"/v1/{}|^`<>\"?n=%d-",
)  # fmt: skip
LINES = (
    b"GET /v1/x?n=%d- HTTP/1.0\r\n\r\n", b"GET /v1/x?n=%d-\r\n", b"GET /v1/x?n=%d- HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET /v1/x?n=%d- HTTP/1.9\r\nHost: x\r\n\r\n", b"GET /v1/x?n=%d- HTTP/1.1\r\n\r\n",
    b"GET  /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\n\r\n",
    b"G\xffT /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\n\r\n", b"BREW /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\n\r\n",
    b"get /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\n\r\n", b"TRACE /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\nGET /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v1/x?n=%d- HTTP/1.1\nHost: x\n\n",
    b"GET /v1/x?n=%d- HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET /v1/x?n=%d- HTTP/1.1\r\nHost: a b\r\n\r\n", b"GET /v1/x?n=%d- HTTP/1.1\r\nHost: [\r\n\r\n",
    b"POST /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\x01b\r\nhello\r\n0\r\nX-A: \x01\r\n\r\n",
    b"POST /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/x?n=%d- HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
)  # fmt: skip
RAW = (
    *(b"GET /v1/x?n=%d- HTTP/1.1\r\nHost: site.example\r\n" + name.encode() + b": " + value + b"\r\nConnection: close\r\n\r\n"
      for name in HEADERS_TO_SPOIL for value in SPOILT),
    *(b"GET /v1/x?n=%d- HTTP/1.1\r\nHost: site.example\r\n" + lines.replace(b"%", b"%%") + b"\r\n" for lines in HEADS),
    *(b"GET " + target + b" HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n" for target in TARGETS),
    *LINES,
)  # fmt: skip
"""Requests that a gateway might pass on and botsieve refuse; each with a place for its number."""


def test_no_client_can_make_its_request_escape(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What botsieve refuses to read makes the gateway's fail mode act, and that is open: nothing a client sends may do that."""
    monkeypatch.setattr(http.client, "_MAXHEADERS", 1000)  # of the inference server
    odd = [
        *(("", {f"x-pad-{place}": "x" * 7000 for place in range(count)}) for count in (1, 2, 4, 6, 9, 12, 40)),
        *(("", headers) for headers in (
            {"x-botsieve-load": "7"}, {"x-botsieve-token": "another token of the client"}, {"x-botsieve-time": "never"},
            {"x-botsieve-account-created": "1e999"}, {"user-agent": "\xff\xfe"}, {"referer": "\xff"},
            {"cookie": "botsieve_pass=" + "x" * 7000}, {"x-botsieve-pass": "x" * 7000}, {"content-length": "0"},
            {"accept": "text/html;" + "q=" * 3000}, {"authorization": "Bearer \xff"}, {"x-original-content-length": "-1"},
        )),
        *((path, {}) for path in ("%ff%00", "/../x", "a" * 3000, "&y=\xff", "\t", ";", "#x", "%", "http://x/")),
    ]  # fmt: skip
    journal = tmp_path / "journal"
    running = Running(tmp_path, shared / "bundle", **settings(gateway), clock="server", mode="shadow", journal=journal)
    with running() as service:  # noqa: SIM117
        with gateway(tmp_path, service.port, inference.port) as port:
            for number, (path, headers) in enumerate(odd):
                push(port, f"/v1/x?n={number}-{path}", headers)
            for number, request in enumerate(RAW, len(odd)):
                push_raw(port, request % number)
            time.sleep(0.5)
    pattern = re.compile(r"n=(\d+)-")
    reached = {int(found[1]) for _, path, _ in inference.seen if (found := pattern.search(path))}
    decided = {int(found[1]) for path in read_log([journal])["path"].to_pylist() if (found := pattern.search(path))}
    assert len(reached) > 10
    assert reached <= decided, [[*odd, *RAW][number] for number in sorted(reached - decided)]


def test_envoy_over_grpc_reads_the_body_and_hears_of_a_stream_that_its_client_left(
    shared: Path, inference: Inference, tmp_path: Path
) -> None:
    gateway = next(one for one in ALL if one.name == "envoy-grpc")
    installed(gateway.program)
    inference.pause_s = 0.3
    journal = tmp_path / "journal"
    running = Running(tmp_path, shared / "bundle", **settings(gateway), mode="shadow", clock="server", journal=journal)
    body = {"model": "m-large", "max_tokens": 77, "messages": [{"role": "user", "content": "Count to ten"}]}
    with running() as service, gateway(tmp_path, service.port, inference.port) as port:
        assert ask(port, "127.1.0.9", "POST", "/v1/chat/completions", {}, json.dumps(body).encode())[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=("127.1.0.9", 0))
        connection.request("POST", "/v1/chat/completions", json.dumps({**body, "stream": True}), {})
        reply = connection.getresponse()
        assert reply.status == 200
        assert b"data" in reply.read(40)
        connection.sock.close()  # and away, in the middle of it
        reply.close()
        connection.close()
        hear(gateway, tmp_path, service, 2)
        assert service.metric('botsieve_completions_total{result="recorded"}') == 2
        assert service.metric("botsieve_in_flight") == 0
    whole, left = read_log([journal]).sort_by("time").to_pylist()
    for event in (whole, left):
        assert (event["model"], event["max_tokens"], event["prompt_length"]) == ("m-large", 77, 12)
        assert (event["ip"], event["status"], event["verdict"]) == ("127.1.0.9", 200, "allow")
        assert event["request_bytes"] == len(json.dumps(body)) + (16 if event is left else 0)
    assert left["duration"] < 2.5  # the whole takes 3 s
    assert 0 < left["response_bytes"] < 1500
    assert left["output_tokens"] is None


def outcome(client: openai.OpenAI, asked: dict[str, Any]) -> str:
    """Call the model; return what came of it."""
    try:
        client.chat.completions.create(**asked)
    except openai.APIStatusError as error:
        return type(error).__name__
    return "served"


def test_the_openai_client_solves_its_challenges_and_is_served(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    work = {"challenge_work_least": 2000, "challenge_work_most": 8000}
    running = Running(
        tmp_path,
        shared / "bundle",
        **settings(gateway),
        clock="server",
        challenge_budget=0.99,
        block_budget=0.0,
        **work,
    )
    asked: dict[str, Any] = {"model": "m-large", "messages": [{"role": "user", "content": "How many?"}]}
    solved = 'botsieve_challenges_total{result="solved"}'

    async def streamed(url: str) -> str:
        async with openai.AsyncOpenAI(
            api_key="bob", base_url=url, max_retries=0, http_client=httpx2.AsyncClient(auth=BotsieveAuth2())
        ) as client:
            pieces = await client.chat.completions.create(**asked, stream=True)
            return "".join([piece.choices[0].delta.content or "" async for piece in pieces])

    with running() as service:  # noqa: SIM117
        with gateway(tmp_path, service.port, inference.port) as port:
            url = f"http://127.0.0.1:{port}/v1"
            with openai.OpenAI(api_key="alice", base_url=url, max_retries=0) as bare:
                refused = Counter(outcome(bare, asked) for _ in range(40))
            assert refused["AuthenticationError"] > 0, refused
            with openai.OpenAI(
                api_key="alice", base_url=url, max_retries=0, http_client=httpx2.Client(auth=BotsieveAuth2())
            ) as client:
                for _ in range(12):
                    answer = client.chat.completions.create(**asked)
                    assert answer.choices[0].message.content == "fifty"
            assert service.metric(solved) == 1, "one pass serves them all"
            assert asyncio.run(streamed(url)) == "".join(f"{number} " for number in range(10))
            assert service.metric('botsieve_passes_total{result="admitted"}') >= 12


def test_who_has_a_pass_waits_for_room_during_an_attack(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    work = {"challenge_work_least": 2000, "challenge_work_most": 8000, "load_s": 600}
    running = Running(
        tmp_path, shared / "bundle", "tests.gateways.attacked", **settings(gateway), clock="server", block_budget=0.0, **work
    )  # fmt: skip
    asked: dict[str, Any] = {"model": "m-large", "messages": [{"role": "user", "content": "How many?"}]}
    waits, auth = 'botsieve_passes_total{result="waits"}', BotsieveAuth2(patience=24.0)
    with running() as service, gateway(tmp_path, service.port, inference.port) as port:
        service.load(1.0)
        with (
            openai.OpenAI(
                api_key="alice",
                base_url=f"http://127.0.0.1:{port}/v1",
                max_retries=0,
                http_client=httpx2.Client(auth=auth),
            ) as client,
            ThreadPoolExecutor(1) as background,
        ):
            called = background.submit(outcome, client, asked)
            eventually(lambda: service.metric(waits) >= 2)
            assert not called.done()
            (token,) = auth._passes.values()
            headers = {"x-botsieve-pass": token, "authorization": "Bearer alice", "accept": "application/json"}
            status, told, body = ask(port, "127.0.0.1", "POST", "/v1/chat/completions", headers, b"{}")
            assert (status, told["retry-after"]) == (401, "1")
            assert b"with the same pass" in body
            page = ask(port, "127.0.0.1", "GET", "/chat?x=1&next=/other", {**headers, "accept": "text/html"})
            assert (page[0], page[1]["retry-after"]) == (401, "1"), "its script goes by it"
            assert page[1]["content-type"].startswith("text/html")
            assert b'href="/chat?x=1&amp;next=/other"' in page[2]
            assert inference.asked == 0
            service.load(0.0)
            assert called.result(20) == "served"
        assert service.metric('botsieve_challenges_total{result="solved"}') == 1
