"""Who may call, and how much: the service token, and the limits on headers and bodies. The same for every route."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable

from serving.problems import Problem, Receive
from serving.settings import Settings

HeaderList = list[tuple[bytes, bytes]]


class Access:
    """Checks requests before anything of them is read."""

    def __init__(self, settings: Settings) -> None:
        self._token = None if settings.token is None else settings.token.get_secret_value().encode()
        self._bearer = None if self._token is None else b"Bearer " + self._token
        self._most_headers = settings.max_header_bytes
        self._timeout = settings.body_timeout_s

    @property
    def protected(self) -> bool:
        """Whether a token is configured."""
        return self._token is not None

    def check_headers(self, headers: HeaderList) -> None:
        """Raise Problem 431 when the headers are too many bytes."""
        size = 0
        for name, value in headers:
            size += len(name) + len(value)
        if size > self._most_headers:
            raise Problem(
                431, "headers_too_large", f"the headers have more than {self._most_headers} bytes", close=True
            )

    def check_bearer(self, headers: HeaderList) -> None:
        """Raise Problem 401 when a token is configured and the Authorization header does not carry it."""
        if self._bearer is None:
            return
        given = only(headers, b"authorization")
        if given is None or not hmac.compare_digest(given, self._bearer):
            challenge = (b"www-authenticate", b'Bearer realm="botsieve"')
            raise Problem(
                401, "token", "send the service's token as Authorization: Bearer TOKEN", [challenge], close=True
            )

    def token_fits(self, given: bytes | None) -> bool:
        """Whether a token given otherwise is the service's; true where none is configured."""
        return self._token is None or (given is not None and hmac.compare_digest(given, self._token))

    async def body(self, headers: HeaderList, receive: Receive, limit: int) -> bytes:
        """Read a body. Raises Problem 413 beyond `limit` bytes, 408 when it does not come, 400 when it breaks off."""
        announced = only(headers, b"content-length")
        if announced is not None and announced.isdigit():
            check_size(int(announced[:19]), limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    part = await receive()
                    if part["type"] == "http.disconnect":
                        raise Problem(400, "disconnected", "the body broke off", close=True)
                    chunk = part.get("body", b"")
                    size += len(chunk)
                    check_size(size, limit)
                    parts.append(chunk)
                    if not part.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Problem(408, "timeout", f"the body did not come within {self._timeout:g} s", close=True) from error


def only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the value of a header that stands exactly once."""
    found = [value for key, value in headers if key == name]
    return found[0] if len(found) == 1 else None


def check_size(size: int, limit: int) -> None:
    """Raise Problem 413 for a body of more than `limit` bytes."""
    if size > limit:
        raise Problem(413, "body_too_large", f"the body has more than {limit} bytes", close=True)
