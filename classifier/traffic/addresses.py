"""Addresses of clients: home and office lines, data centres and VPN exits, spread over the public space.

A model never sees an address as a number, only which requests share one and which lie in one network, so what matters
here is who sits beside whom.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Literal

import numpy as np

Origin = Literal["home", "mobile", "datacenter", "vpn"]
_FIRST = np.array([n for n in range(1, 224) if n not in (10, 100, 127, 169, 172, 192, 198, 203)])
_IPV6_SHARE = {"home": 0.15, "mobile": 0.35, "datacenter": 0.03, "vpn": 0.0}
_BLOCKS = {"home": 240, "mobile": 40, "datacenter": 90, "vpn": 12}


class AddressSpace:
    """The networks that one traffic's clients come from, the same for everybody in it."""

    def __init__(self, rng: np.random.Generator):
        self._blocks: dict[str, np.ndarray] = {}
        for origin, n in _BLOCKS.items():
            bytes_ = np.column_stack((rng.choice(_FIRST, n), rng.integers(0, 256, n), rng.integers(0, 256, n)))
            self._blocks[origin] = bytes_
        self._prefixes = [f"2{rng.integers(0xA00, 0xA10):03x}:{rng.integers(0x100, 0xFFFF):x}" for _ in range(40)]

    def draw(self, rng: np.random.Generator, n: int, origin: Origin, taken: Container[str] = ()) -> list[str]:
        """Draw n different addresses of an origin, none of them in `taken`."""
        found: dict[str, None] = {}
        while len(found) < n:
            address = self._one(rng, origin)
            if address not in taken:
                found[address] = None
        return list(found)

    def _one(self, rng: np.random.Generator, origin: Origin) -> str:
        if rng.random() < _IPV6_SHARE[origin]:
            prefix = self._prefixes[int(rng.integers(len(self._prefixes)))]
            low = rng.integers(0, 0x10000, 5)
            return f"{prefix}:{low[0]:x}::{low[1]:x}:{low[2]:x}:{low[3]:x}:{low[4]:x}"
        a, b, c = self._blocks[origin][int(rng.integers(len(self._blocks[origin])))]
        if origin in ("home", "mobile"):  # such blocks are a /16 wide, the others a /24
            c = rng.integers(0, 256)
        return f"{a}.{b}.{c}.{rng.integers(1, 255)}"


def beside(rng: np.random.Generator, address: str, taken: Container[str], used: Container[str] = ()) -> str:
    """Draw an address in the network of another (/24, /48) that is not `taken` or `used`; in a /16 where that is full."""
    for attempt in range(200):
        if ":" in address:
            low = rng.integers(0, 0x10000, 5)
            near = ":".join(address.split(":")[:3])
            found = f"{near}:{low[0]:x}:{low[1]:x}:{low[2]:x}:{low[3]:x}:{low[4]:x}"
        elif address.count(".") == 3:
            a, b, c, _ = address.split(".")
            found = f"{a}.{b}.{c if attempt < 40 else rng.integers(0, 256)}.{rng.integers(1, 255)}"
        else:
            found = random_public(rng)
        if found not in taken and found not in used:
            return found
    return random_public(rng)


def random_public(rng: np.random.Generator) -> str:
    """Draw one public IPv4 address from anywhere."""
    rest = rng.integers(1, 255, 3)
    return f"{_FIRST[int(rng.integers(len(_FIRST)))]}.{rest[0]}.{rest[1]}.{rest[2]}"
