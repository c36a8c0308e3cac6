"""Keyed hashes of everything a client chooses: SipHash-2-4 of libsodium, under a secret of the deployment.

An attacker who cannot guess the secret can neither aim at a slot of a table nor find a prompt from its hash.
Every domain (account, address, path …) has a key of its own, derived by keyed BLAKE2b, so that equal texts of different
domains do not meet. A hash is a uint64; 0 means absent.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from nacl import _sodium
from numba import njit

from classifier.errors import InputError

Hashes = npt.NDArray[np.uint64]
SECRET_VARIABLE = "BOTSIEVE_HASH_KEY"
_UNKEYED = b"botsieve without BOTSIEVE_HASH_KEY"

_siphash24 = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulonglong, ctypes.c_void_p)(
    int(_sodium.ffi.cast("uintptr_t", _sodium.ffi.addressof(_sodium.lib, "crypto_shorthash_siphash24")))
)


_inlined = njit(nogil=True, forceinline=True, _nrt=False)
_NONE, _ONE, _WORD, _EIGHT = (np.uint64(n) for n in (0, 1, 64, 8))
_13, _16, _17, _21, _32, _56 = (np.uint64(n) for n in (13, 16, 17, 21, 32, 56))
_START = tuple(np.uint64(n) for n in (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573))
_LAST = np.uint64(0xFF)


@_inlined
def _rotated(word, bits):  # type: ignore[no-untyped-def]
    return (word << bits) | (word >> (_WORD - bits))


@_inlined
def _rounds(count, v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    for _ in range(count):
        v0, v2 = v0 + v1, v2 + v3
        v1, v3 = _rotated(v1, _13) ^ v0, _rotated(v3, _16) ^ v2
        v0, v2 = _rotated(v0, _32) + v3, v2 + v1
        v1, v3 = _rotated(v1, _17) ^ v2, _rotated(v3, _21) ^ v0
        v2 = _rotated(v2, _32)
    return v0, v1, v2, v3


@_inlined
def _word_of(data, start, stop):  # type: ignore[no-untyped-def]
    """Return up to eight bytes as a number, the first of them lowest."""
    word = _NONE
    for i in range(start, stop):
        word |= np.uint64(data[i]) << (_EIGHT * np.uint64(i - start))
    return word


@_inlined
def siphash(data, start, stop, key):  # type: ignore[no-untyped-def]
    """Hash bytes [start, stop) as `Hasher.of_bytes` does with this `Hasher.key`, from within a kernel."""
    v0, v1, v2, v3 = key[0] ^ _START[0], key[1] ^ _START[1], key[0] ^ _START[2], key[1] ^ _START[3]
    whole = stop - (stop - start) % 8
    for i in range(start, whole, 8):
        word = _word_of(data, i, i + 8)
        v0, v1, v2, v3 = _rounds(2, v0, v1, v2, v3 ^ word)
        v0 ^= word
    word = _word_of(data, whole, stop) | (np.uint64(stop - start) << _56)
    v0, v1, v2, v3 = _rounds(2, v0, v1, v2, v3 ^ word)
    v0, v1, v2, v3 = _rounds(4, v0 ^ word, v1, v2 ^ _LAST, v3)
    return max(v0 ^ v1 ^ v2 ^ v3, _ONE)


@cache
def _hash_spans() -> Any:
    """Compile the loop that calls libsodium. Not cached on disk: the address of a C function changes every start."""

    @njit(nogil=True, _nrt=False)
    def hash_spans(data, start, stop, key, out):  # type: ignore[no-untyped-def]
        for i in range(len(out)):
            if stop[i] >= start[i]:
                _siphash24(out[i:].ctypes, data[start[i] :].ctypes, stop[i] - start[i], key.ctypes)
                if out[i] == 0:
                    out[i] = 1

    return hash_spans


def secret_from_environment() -> bytes:
    """Return the deployment's secret from `BOTSIEVE_HASH_KEY`, or a fixed public one when it is not set."""
    text = os.environ.get(SECRET_VARIABLE)
    if text is None:
        return _UNKEYED
    if len(text) < 16:
        raise InputError(
            f"{SECRET_VARIABLE} is shorter than 16 characters; set a random one, e.g. `openssl rand -hex 32`"
        )
    return text.encode()


def text_spans(column: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (bytes uint8, start int64[n], stop int64[n]) of a string column; stop < start marks a null."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    start, stop = bounds[:-1], bounds[1:].copy()
    if column.null_count:
        stop[column.is_null().to_numpy(zero_copy_only=False)] = -1
    text = np.zeros(1, np.uint8) if data is None or data.size == 0 else np.frombuffer(data, np.uint8)
    return text, start, stop


class Hasher:
    """Hashes texts of one domain. `of_column` and `of` agree on every text."""

    def __init__(self, secret: bytes, domain: str) -> None:
        self._key = np.frombuffer(
            blake2b(domain.encode(), digest_size=16, key=blake2b(secret).digest()).digest(), np.uint8
        ).copy()
        self._key_bytes = self._key.tobytes()
        self.key = self._key.view("<u8").astype(np.uint64)
        """What `siphash` takes, uint64[2]."""

    def of_column(self, column: pa.Array) -> Hashes:
        """Hash a string column: uint64[n], 0 where null."""
        if column.null_count == len(column):
            return np.zeros(len(column), np.uint64)
        return self.of_spans(*text_spans(column))

    def of_spans(
        self, data: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
    ) -> Hashes:
        """Hash byte spans [start, stop) of `data`: uint64[n], 0 where stop < start."""
        out = np.zeros(len(start), np.uint64)
        _hash_spans()(data, start, stop, self._key, out)
        return out

    def of(self, text: str | None) -> int:
        """Hash one text; 0 for None."""
        return 0 if text is None else self.of_bytes(text.encode())

    def of_bytes(self, data: bytes) -> int:
        """Hash one run of bytes."""
        out = _sodium.ffi.new("unsigned char[8]")
        _sodium.lib.crypto_shorthash_siphash24(out, data, len(data), self._key_bytes)
        return int.from_bytes(_sodium.ffi.buffer(out), sys.byteorder) or 1
