"""nginx, Caddy and Envoy, as serving/gateways/ configures them, in front of a service and an inference server."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import pytest

from classifier.cli.tailing import run as tail
from tests.gateways.shared import TOKEN, Inference, Running, ask, drive, free_port, program, replaced, told

SEARCH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
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
        found, port = shutil.which(self.name, path=SEARCH), free_port()
        assert found is not None
        text = self.change((GATEWAYS / self.file).read_text(), folder, closed)
        numbers = ((self.port, port), (self.service, service), (self.inference, inference))
        for (old, new), number in [(change, number) for change, number in numbers]:
            text = replaced(text, {old: new.format(number)})
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
            'X-Botsieve-Load "";': 'X-Botsieve-Load ""; proxy_set_header X-Botsieve-Time $http_x_simulated_time;',
            "    upstream botsieve ": temporary + "    upstream botsieve ",
        },
    )


def _caddy(text: str, folder: Path, closed: bool) -> str:
    if closed:
        text = text[: text.index("\t\treverse_proxy 127.0.0.1:8000\n\t}\n}")] + "\t\trespond 503\n\t}\n}\n"
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
    last = "                  append_action: OVERWRITE_IF_EXISTS_OR_ADD\n"
    return replaced(
        text,
        {
            "/var/log/envoy/": f"{folder}/",
            "failure_mode_allow: true": f"failure_mode_allow: {str(not closed).lower()}",
            last: last
            + "".join(
                f"              - append:\n                  header: {{key: {key}, value: '%REQ({header})%'}}\n"
                "                  append_action: OVERWRITE_IF_EXISTS_OR_ADD\n"
                for key, header in (("x-botsieve-time", "x-simulated-time"), ("x-botsieve-account", "authorization"))
            ),
        },
    )


def _nginx_command(found: str, path: Path) -> list[str]:
    return [found, "-p", str(path.parent), "-e", str(path.parent / "error.log"), "-c", str(path)]


ALL = (
    Gateway("nginx", "nginx.conf", "nginx", _nginx, _nginx_command, ("listen 8080;", "listen {};"),
            ("server 127.0.0.1:8460;", "server 127.0.0.1:{};"), ("server 127.0.0.1:8000;", "server 127.0.0.1:{};")),
    Gateway("caddy", "Caddyfile", "forwarded", _caddy,
            lambda found, path: [found, "run", "--config", str(path), "--adapter", "caddyfile"], (":8080", ":{}"),
            ("127.0.0.1:8460", "127.0.0.1:{}"), ("127.0.0.1:8000", "127.0.0.1:{}")),
    Gateway("envoy", "envoy-http.yaml", "envoy", _envoy,
            lambda found, path: [found, "-c", str(path), "--base-id", str(free_port()), "--concurrency", "1"],
            ("port_value: 8080", "port_value: {}"), ("port_value: 8460", "port_value: {}"),
            ("port_value: 8000", "port_value: {}")),
)  # fmt: skip


@pytest.fixture(params=ALL, ids=lambda gateway: gateway.name)
def gateway(request: pytest.FixtureRequest) -> Gateway:
    chosen: Gateway = request.param
    if shutil.which(chosen.name, path=SEARCH) is None:
        pytest.skip(f"{chosen.name} is not installed")
    return chosen


def settings(gateway: Gateway) -> dict[str, str]:
    """Return the settings that the head of the configuration names."""
    own = {"address_header": "x-botsieve-address"} if gateway.name == "envoy" else {}
    return {"gateway": gateway.preset, **own}


pytestmark = pytest.mark.slow


def test_honest_clients_are_served_and_an_attacker_is_challenged_and_blocked(
    gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    with Running(tmp_path, shared / "bundle", **settings(gateway))() as service:
        with gateway(tmp_path, service.port, inference.port) as port:
            passage = drive(service, port, shared / "traffic.jsonl", inference)
        tail(tmp_path / "botsieve.json", service.url, once=True, quiet=True)
        served, attacked = passage.statuses["person"] + passage.statuses["sdk_batch"], passage.statuses["request_flood"]
        assert len(served) == sum(passage.reached[kind] for kind in ("person", "sdk_batch")), str(passage)
        assert 401 in attacked, str(passage)
        assert 403 in attacked, str(passage)
        assert attacked.index(401) < attacked.index(403), "challenged, and then blocked"
        assert passage.reached["request_flood"] < len(attacked) / 2, str(passage)
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
        tail(tmp_path / "botsieve.json", service.url, once=True, quiet=True)
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


def test_shadow_mode_changes_nothing(gateway: Gateway, shared: Path, inference: Inference, tmp_path: Path) -> None:
    with Running(tmp_path, shared / "bundle", **settings(gateway), mode="shadow")() as service:
        with gateway(tmp_path, service.port, inference.port) as port:
            passage = drive(service, port, shared / "traffic.jsonl", inference)
        assert all(passage.reached[kind] == len(statuses) for kind, statuses in passage.statuses.items())
        assert service.metric('botsieve_decisions_total{decision="block",enforced="allow"}') > 0


@pytest.mark.parametrize(("closed", "status"), [(False, 200), (True, 503)])
def test_without_botsieve_the_fail_mode_holds(
    gateway: Gateway, inference: Inference, tmp_path: Path, closed: bool, status: int
) -> None:
    with gateway(tmp_path, free_port(), inference.port, closed=closed) as port:
        assert ask(port, "127.1.0.7", "POST", "/v1/chat/completions", {}, b"{}")[0] == status
        assert len(inference.seen) == (0 if closed else 1)
