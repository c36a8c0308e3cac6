"""Another model takes over while requests come in: none is dropped, and each is answered by one of the two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from classifier.model.judge import Judge
from tests.service.served import event, make_bundle

TOKEN = "a token of sixteen characters"
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}


def call(connection: HTTPConnection, path: str, body: Any = None) -> tuple[int, Any]:
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), HEADERS)
    reply = connection.getresponse()
    content = reply.read()
    return reply.status, json.loads(content)


@pytest.mark.slow
def test_no_request_is_dropped_while_models_change(judge: Judge, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "serving", "--bundle", str(judge.bundle.path), "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "BOTSIEVE_TOKEN": TOKEN, "BOTSIEVE_WARM_UP_S": "0"})
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.05)
        statuses: Counter[int] = Counter()
        ids: list[str] = []
        stop = threading.Event()

        def ask(number: int) -> None:
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            while not stop.is_set():
                status, answer = call(connection, "/v1/decide", event(ip=f"192.0.2.{number}"))
                statuses[status] += 1
                ids.append(answer.get("id"))
            connection.close()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        admin = HTTPConnection("127.0.0.1", port, timeout=30)
        champions = []
        for folder in (other.path, judge.bundle.path) * 4:
            time.sleep(0.2)
            status, told = call(admin, "/v1/model/reload", {"bundle": str(folder)})
            assert status == 200, told
            champions.append(told["champion"]["bundle"])
        assert call(admin, "/v1/model/rollback", {})[0] == 200
        by_hand = [
            sys.executable,
            "-m",
            "classifier",
            "reload",
            str(judge.bundle.path),
            "--url",
            f"http://127.0.0.1:{port}",
        ]
        subprocess.run(by_hand, check=True, env={**os.environ, "BOTSIEVE_TOKEN": TOKEN})
        assert call(admin, "/v1/model")[1]["champion"]["bundle"] == champions[1]
        time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200}
        assert len(ids) == len(set(ids)) > 200
        by = Counter(
            call(admin, f"/v1/decisions/{identity}")[1]["bundle"] for identity in ids[:: max(len(ids) // 500, 1)]
        )
        assert set(by) == set(champions), by
        admin.close()
    finally:
        process.terminate()
        process.wait(20)
