"""Client addresses in one spelling, so that one client is not two.

IPv6 is written as RFC 5952 has it, IPv4-mapped IPv6 becomes IPv4, and an address loses port and brackets. Whatever else
a gateway wrote there (a host name, a pseudonym of a log that was made anonymous) is kept in lower case: such logs are
common and their clients still differ.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache

MAX_LENGTH = 255
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_MAPPED = bytes(10) + b"\xff\xff"
_BRACKETS_OR_PORT = re.compile(r"\[([^][]*)\](?::[0-9]{1,5})?|([^][:]+):[0-9]{1,5}")


def without_port(text: str) -> str:
    """Return what stands in brackets or before a port; a text with neither as it is."""
    match = _BRACKETS_OR_PORT.fullmatch(text)
    return (match[1] or match[2] or text) if match else text


@lru_cache(maxsize=65_536)
def client_address(text: str) -> str:
    """Return the one spelling of an address or host name.

    Raises ValueError when the text is empty, longer than 255 characters, or holds blanks or control characters.
    """
    if not text:
        raise ValueError("ip, method and path must not be empty")
    if len(text) > MAX_LENGTH or _BLANK.search(text):
        raise ValueError("ip is no address: it has blanks or more than 255 characters")
    if ":" not in text:
        return text.lower()
    try:
        packed = socket.inet_pton(socket.AF_INET6, text)
        if packed.startswith(_MAPPED):
            return socket.inet_ntop(socket.AF_INET, packed[12:])
        if any(packed[:12]):  # a system may write what has only zeros there as if it were IPv4
            return socket.inet_ntop(socket.AF_INET6, packed)
    except OSError:
        pass  # it may have a port, brackets or a zone
    try:
        address = ipaddress.ip_address(without_port(text))
    except ValueError:
        return text.lower()
    return str(getattr(address, "ipv4_mapped", None) or address)
