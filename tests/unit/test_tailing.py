"""`botsieve tail`: what a line says, rotation, and a service that is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from classifier.cli.replaying import Service, Unreachable
from classifier.cli.tailing import Lines, Tail, completion_of, run
from classifier.errors import BotsieveError, InputError

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
     b'{"botsieve_id":"1","status":1e999}', b'{"botsieve_id":"1","size":-1e999}', b'{"botsieve_id":"1","status":NaN}',
     b'{"botsieve_id":"1","duration":%s}' % (b"9" * 400), b'{"botsieve_id":"1","duration_ms":%s}' % (b"9" * 400),
     b'{"botsieve_id":"1","duration":1e999}', b'{"botsieve_id":"1","response_bytes":%s}' % (b"9" * 5_000),
     b'{"botsieve_id":"1","response_bytes":9007199254740992}', b'{"botsieve_id":"\\ud800"}',
     b'{"botsieve_id":"1","enforced":"\\ud800"}',
     b'{"botsieve_id":"1","duration":"NaN"}', b'{"botsieve_id":"1","duration":-1}', b'{"botsieve_id":"1","status":"ok"}'],
)  # fmt: skip
def test_what_is_no_such_line_is_counted(line: bytes) -> None:
    sent: list[Any] = []
    tail = Tail(lambda path, body: sent.append(msgspec.json.encode(body)))
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


@dataclass
class Stub:
    """A service that answers with these statuses, then with 200; `taken` are the ids that were answered 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = made.statuses.pop(0) if made.statuses else 200
            if status == 200:
                made.taken.extend(one["id"] for one in sent)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def test_lines_wait_for_what_is_not_their_fault(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that was changed, a limit, a proxy, a failure: none of it is about the completions."""
    stub.statuses = [401, 403, 408, 429, 500, 503, 302]
    waits: list[float] = []
    service = Service(stub.url)
    tail = Tail(service.post, waits.append)
    tail.send([NGINX])
    service.close()
    assert tail.counts == {"read": 1, "sent": 1}
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16]
    assert stub.taken == ["1f-00aa"]
    assert capsys.readouterr().err.count("waiting") == 1, "told once"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_service_refuses_is_counted(stub: Stub, status: int) -> None:
    stub.statuses = [status]
    service = Service(stub.url)
    tail = Tail(service.post, lambda _: pytest.fail("it waited"))
    tail.send([NGINX])
    service.close()
    assert tail.counts == {"read": 1, "rejected": 1}


def test_a_restart_goes_on_where_it_was(stub: Stub, tmp_path: Path) -> None:
    log, position = tmp_path / "log", tmp_path / "position"

    def write(*ids: str, end: str = "\n", to: Path = log) -> None:
        with to.open("a") as file:
            file.write("\n".join(json.dumps({"botsieve_id": one}) for one in ids) + end)

    def sent() -> list[str]:
        stub.taken.clear()
        run(log, stub.url, once=True, quiet=True, position=position)
        return list(stub.taken)

    write("1", "2")
    assert sent() == ["1", "2"]
    assert sent() == []
    write("3", end="")
    assert sent() == ["3"], "with `once` a last line needs no end"
    write("4", "5")
    log.rename(tmp_path / "log.1")
    write("6")
    assert sent() == ["4", "5", "6"], "the file that was read last is there under another name"
    write("7")
    log.rename(tmp_path / "log.1")
    write("8")
    assert sent() == ["7", "8"]
    write("9")
    log.unlink()
    (tmp_path / "log.2").write_bytes(b"")  # keeps the inode from being taken again
    write("10", "11")
    assert sent() == ["10", "11"], "the old file is gone: all of the new one"
    log.write_bytes(b"")
    write("12")
    assert sent() == ["12"], "cut"


def test_without_a_position_yet_the_log_is_followed_from_its_end_and_from_there_again(tmp_path: Path) -> None:
    log, position = tmp_path / "log", tmp_path / "position"
    log.write_bytes(b"old\n")

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    def follow() -> list[bytes]:
        seen: list[bytes] = []
        with suppress(KeyboardInterrupt):
            for lines in Lines(log, from_start=False, position=position).read(False, stop):
                seen.extend(lines)
        return seen

    assert follow() == []
    with log.open("ab") as file:
        file.write(b"while nobody followed\nhal")
    assert follow() == [b"while nobody followed"]
    with log.open("ab") as file:
        file.write(b"f\n")
    assert follow() == [b"half"], "a line that was not whole is read whole"


def test_lines_that_were_not_sent_are_read_again(tmp_path: Path) -> None:
    log, position = tmp_path / "log", tmp_path / "position"
    log.write_bytes(b"1\n")
    assert next(Lines(log, from_start=True, position=position).read(True)) == [b"1"]  # and killed
    assert next(Lines(log, from_start=False, position=position).read(True)) == [b"1"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"inode": "x", "offset": 1}', '{"inode": 1, "offset": -1}'])
def test_a_position_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "log").write_bytes(b"1\n")
    (tmp_path / "position").write_text(content)
    with pytest.raises(InputError, match="position"):
        Lines(tmp_path / "log", from_start=True, position=tmp_path / "position")


def test_a_position_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"1\n")
    with pytest.raises(InputError, match="position"):
        Lines(log, from_start=True, position=tmp_path / "none" / "position")
    with pytest.raises(InputError, match="overwritten"):
        run(log, "http://127.0.0.1:1", once=True, quiet=True, position=log)
    assert log.read_bytes() == b"1\n"


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
