"""Requests at a stated rate, whatever the server does: Poisson arrivals over keep-alive connections.

python -m tests.benchmarks.open_loop PORT PATH BODIES RATE SECONDS CONNECTIONS

Each latency counts from the moment at which the request was due, so that one that has to wait for a slow answer before it, or
for this program, is not counted as a fast one (no coordinated omission). The program does nothing but look at its sockets and its
clock, on a core of its own, and says how late it was itself.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from pathlib import Path

import numpy as np

HEAD = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


def offer(
    port: int, path: str, bodies: list[bytes], rate: float, seconds: float, connections: int, seed: int = 0
) -> list[float]:
    """Offer requests for some time.

    Return answers in a second; median, 99th and 99.9th percentile of the latency and 99th of the lateness of sending, ms; and
    failed requests.
    """
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1.0 / rate, round(rate * seconds))).tolist()
    requests = [HEAD % (path.encode(), len(body), body) for body in bodies]
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        poll.register(sock.fileno(), select.EPOLLIN)
        sockets[sock.fileno()] = sock
    idle, asked = list(sockets), dict.fromkeys(sockets, 0.0)
    read = dict.fromkeys(sockets, b"")
    latency: list[float] = []
    lateness: list[float] = []
    failed, sent, n = 0, 0, len(due)
    gc.disable()
    now = time.perf_counter
    begin = now() + 0.01
    due = [moment + begin for moment in due]
    while len(latency) < n:
        while sent < n and idle and due[sent] <= now():
            place = idle.pop()
            asked[place] = due[sent]
            lateness.append(now() - due[sent])
            sockets[place].send(requests[sent % len(requests)])  # far less than a socket's buffer
            sent += 1
        for place, _ in poll.poll(0):
            received = sockets[place].recv(65_536)
            if not received:
                raise ConnectionError("the server closed a connection")
            data = read[place] + received
            if not is_whole(data):
                read[place] = data
                continue
            latency.append(now() - asked[place])
            failed += not data.startswith(b"HTTP/1.1 200")
            read[place] = b""
            idle.append(place)
    took = now() - begin
    gc.enable()
    for sock in sockets.values():
        sock.close()
    waited = np.percentile(latency, (50.0, 99.0, 99.9)).tolist()
    late = float(np.percentile(lateness, 99.0))
    return [n / took, *(1e3 * value for value in (*waited, late)), failed]


def is_whole(response: bytes) -> bool:
    """Whether a response is there to its end. Raises ConnectionError when the server has closed instead."""
    if not response:
        raise ConnectionError("the server closed a connection")
    head, mark, body = response.partition(b"\r\n\r\n")
    return bool(mark) and len(body) >= int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])


if __name__ == "__main__":
    port, path, bodies, rate, seconds, connections = sys.argv[1:]
    lines = Path(bodies).read_bytes().splitlines()
    print(json.dumps(offer(int(port), path, lines, float(rate), float(seconds), int(connections))))
