"""Speaks to a service over a real socket, byte by byte."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvicorn
from uvicorn.server import ServerState

from serving.app import Service
from serving.direct import direct

Story = Callable[[asyncio.StreamReader, asyncio.StreamWriter, ServerState], Awaitable[Any]]


def run(app: Service, story: Story, **options: Any) -> Any:
    """Let a story happen on one connection to a service."""

    async def play() -> Any:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False, date_header=False,
            **options,
        )  # fmt: skip
        config.load()
        state = ServerState()
        kind = direct(app.gate.settings, app.hot)
        server = await asyncio.get_running_loop().create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            return await asyncio.wait_for(story(reader, writer, state), 20)
        finally:
            writer.close()
            server.close()

    return asyncio.run(play())


def request(path: str, body: Any = None, *, method: str = "POST", version: str = "1.1", **headers: str) -> bytes:
    """Write a request down."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    given = {"host": "x", "content-length": str(len(content)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + content


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return head + await reader.readexactly(int(length[1]) if length else 0)
