"""`botsieve tail`: what a line says, rotation, and a service that is away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from classifier.cli.replaying import Unreachable
from classifier.cli.tailing import Lines, Tail, completion_of
from classifier.errors import BotsieveError

NGINX = b'{"time":1.5,"botsieve_id":"1f-00aa","enforced":"allow","status":200,"response_bytes":1234,"duration":0.25}'
CADDY = b'{"level":"info","status":404,"size":9,"duration":0.5,"resp_headers":{"X-Botsieve-Id":["2-00aa"],"Via":["1.1 Caddy"]}}'


def test_nginx_and_caddy_say_the_same_in_their_own_words() -> None:
    assert completion_of(NGINX) == {
        "id": "1f-00aa", "status": 200, "duration": 0.25, "response_bytes": 1234, "verdict": "allow",
    }  # fmt: skip
    assert completion_of(CADDY) == {"id": "2-00aa", "status": 404, "duration": 0.5, "response_bytes": 9}
    assert completion_of(b'{"botsieve_id":"","status":200}') is None
    assert completion_of(b'{"status":200,"resp_headers":{}}') is None


@pytest.mark.parametrize(
    "line",
    [b"", b"GET / 200", b"[]", b'"x"', b'{"botsieve_id":7}', b'{"botsieve_id":"1","status":-1}', b"\xff\xfe", b"[" * 9999,
     b'{"botsieve_id":"1","duration":"NaN"}', b'{"botsieve_id":"1","duration":-1}', b'{"botsieve_id":"1","status":"ok"}'],
)  # fmt: skip
def test_what_is_no_such_line_is_counted(line: bytes) -> None:
    sent: list[Any] = []
    tail = Tail(lambda path, body: sent.append(body))
    tail.send([line, NGINX, b"{}"])
    assert tail.counts == {"read": 3, "rejected": 1, "sent": 1, "skipped": 1}
    assert len(sent) == 1


def test_a_service_that_is_away_is_waited_for() -> None:
    answers, waits = [Unreachable("away")] * 3, []

    def post(path: str, body: Any) -> None:
        if answers:
            raise answers.pop()

    tail = Tail(post, waits.append)
    tail.send([NGINX])
    assert (tail.counts["sent"], waits) == (1, [0.25, 0.5, 1.0])


def test_a_refused_completion_does_not_take_others_with_it() -> None:
    def post(path: str, body: Any) -> None:
        if any(completion["id"] == "bad" for completion in body):
            raise BotsieveError("refused")

    tail = Tail(post)
    tail.send([NGINX, b'{"botsieve_id":"bad"}', NGINX])
    assert tail.counts == {"read": 3, "sent": 2, "rejected": 1}


def test_rotation_and_truncation_lose_no_line(tmp_path: Path) -> None:
    log, seen = tmp_path / "log", []
    log.write_bytes(b"old\n")

    def append(text: bytes) -> None:
        with log.open("ab") as file:
            file.write(text)

    def rotate() -> None:
        append(b"3\n")
        log.rename(tmp_path / "log.1")
        log.write_bytes(b"4\n")

    steps = iter(
        [lambda: append(b"1\n2"), lambda: append(b"2\n"), rotate, lambda: log.write_bytes(b""), lambda: append(b"5\n")]
    )

    def sleep(_: float) -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    def follow() -> None:
        for lines in Lines(log, from_start=False).read(False, sleep):
            seen.extend(lines)

    with pytest.raises(KeyboardInterrupt):
        follow()
    assert seen == [b"1", b"22", b"3", b"4", b"5"]


def test_once_reads_from_the_start_to_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\n".join(json.dumps({"n": n}).encode() for n in range(3)))
    assert [line for lines in Lines(log, from_start=True).read(True) for line in lines] == [
        b'{"n": 0}', b'{"n": 1}', b'{"n": 2}',
    ]  # fmt: skip
