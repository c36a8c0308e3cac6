"""Keyed hashes of everything a client chooses: SipHash-2-4 of libsodium, under a secret of the deployment.

An attacker who cannot guess the secret can neither aim at a slot of a table nor find a prompt from its hash.
Every domain (account, address, path …) has a key of its own, derived by keyed BLAKE2b, so that equal texts of different
domains do not meet. A hash is a uint64; 0 means absent.
"""

from __future__ import annotations

import os
import sys
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from nacl import _sodium
from numba import njit

from classifier.errors import InputError
from classifier.features.numerics import call_hash, word_at

Hashes = npt.NDArray[np.uint64]
SECRET_VARIABLE = "BOTSIEVE_HASH_KEY"
_UNKEYED = b"botsieve without BOTSIEVE_HASH_KEY"

SIPHASH24 = int(_sodium.ffi.cast("uintptr_t", _sodium.ffi.addressof(_sodium.lib, "crypto_shorthash_siphash24")))
_compiled = njit(cache=True, nogil=True, _nrt=False)
_inlined = njit(cache=True, nogil=True, forceinline=True, _nrt=False)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_PROBES = 8
"""Places where a text is looked for among those that came before it: whoever makes texts meet makes them come anew."""


@_inlined
def hash_span(siphash24, data, start, stop, key, out, place):  # type: ignore[no-untyped-def]
    """Put the hash of bytes [start, stop) at out[place], uint64[n]; never 0, which is none.

    `siphash24` is the address of libsodium's function (`SIPHASH24`), which is another one at every start.
    """
    call_hash(siphash24, out.ctypes.data + 8 * place, data.ctypes.data + start, stop - start, key.ctypes.data)
    if out[place] == 0:
        out[place] = 1


@_compiled
def _hash_spans(siphash24, data, start, stop, key, out):  # type: ignore[no-untyped-def]
    """Hash byte spans; those of a null stay as they are."""
    for i in range(len(out)):
        if stop[i] >= start[i]:
            hash_span(siphash24, data, start[i], stop[i], key, out, i)


@_inlined
def _short(data, start, length):  # type: ignore[no-untyped-def]
    """Return a text of less than 8 bytes as a number."""
    if start + 8 <= len(data):
        return word_at(data, start) & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1))
    word = np.uint64(0)
    for i in range(length):
        word |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return word


@_inlined
def _mix(data, start, length):  # type: ignore[no-untyped-def]
    """Return a number of a text's length and words of 8 bytes, the last of which overlap; at least 0."""
    mixed = np.uint64(length)
    if length >= 8:
        for i in range(start, start + length - 8, 8):
            mixed = (mixed ^ word_at(data, i)) * _ODD
        mixed ^= word_at(data, start + length - 8)
    elif length > 0:
        mixed = mixed * _ODD ^ _short(data, start, length)
    return np.int64((mixed ^ mixed >> np.uint64(32)) * _ODD >> np.uint64(33))


@_inlined
def _same(data, one, other, length):  # type: ignore[no-untyped-def]
    """Tell whether `length` bytes from `one` and from `other` on are the same."""
    if length < 8:
        return length <= 0 or _short(data, one, length) == _short(data, other, length)
    for i in range(0, length - 8, 8):
        if word_at(data, one + i) != word_at(data, other + i):
            return False
    return word_at(data, one + length - 8) == word_at(data, other + length - 8)


@_compiled
def _number_texts(data, start, stop, known, codes, rows):  # type: ignore[no-untyped-def]
    """Number texts in the order in which they come, a null as a text of its own; return how many there are.

    Fill the number of each, `codes`, and the row where each number comes first, `rows`. `known` is room, all -1: a power of two.
    """
    count = 0
    for i in range(len(start)):
        length = max(stop[i] - start[i], -1)
        place = _mix(data, start[i], length)
        code = -1
        for probe in range(_PROBES):
            at = (place + probe) & (len(known) - 1)
            code = known[at]
            if code < 0:
                break
            row = rows[code]
            if max(stop[row] - start[row], -1) == length and _same(data, start[row], start[i], length):
                break
            code = -1
        if code < 0:
            code = known[at] = count
            rows[count] = i
            count += 1
        codes[i] = code
    return count


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
    text = np.frombuffer(b"\0" if data is None or data.size == 0 else data, np.uint8)
    return text, start, stop


def distinct_texts(
    data: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (codes int64[n], rows int64[k]) of byte spans: the text of code c is that of row rows[c]; a null is one too.

    A text that meets many others in a table of few places may get several codes.
    """
    n = len(start)
    codes, rows = np.empty(n, np.int64), np.empty(n, np.int64)
    known = np.full(1 << n.bit_length(), -1, np.int32)
    return codes, rows[: _number_texts(data, start, stop, known, codes, rows)]


class Hasher:
    """Hashes texts of one domain. `of_column` and `of` agree on every text."""

    def __init__(self, secret: bytes, domain: str) -> None:
        self.key = np.frombuffer(
            blake2b(domain.encode(), digest_size=16, key=blake2b(secret).digest()).digest(), np.uint8
        ).copy()
        """What `hash_span` takes, uint8[16]."""
        self._key_bytes = self.key.tobytes()

    def of_column(self, column: pa.Array) -> Hashes:
        """Hash a string column: uint64[n], 0 where null."""
        if column.null_count == len(column):
            return np.zeros(len(column), np.uint64)
        return self.of_spans(*text_spans(column))

    def of_repeated(self, column: pa.Array) -> Hashes:
        """Hash a string column of which many texts are the same: uint64[n], 0 where null."""
        if column.null_count == len(column):
            return np.zeros(len(column), np.uint64)
        data, start, stop = text_spans(column)
        codes, rows = distinct_texts(data, start, stop)
        return self.of_spans(data, start[rows], stop[rows])[codes]

    def of_spans(
        self, data: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
    ) -> Hashes:
        """Hash byte spans [start, stop) of `data`: uint64[n], 0 where stop < start."""
        out = np.zeros(len(start), np.uint64)
        _hash_spans(SIPHASH24, data, start, stop, self.key, out)
        return out

    def of(self, text: str | None) -> int:
        """Hash one text; 0 for None."""
        return 0 if text is None else self.of_bytes(text.encode())

    def of_bytes(self, data: bytes) -> int:
        """Hash one run of bytes."""
        out = _sodium.ffi.new("unsigned char[8]")
        _sodium.lib.crypto_shorthash_siphash24(out, data, len(data), self._key_bytes)
        return int.from_bytes(_sodium.ffi.buffer(out), sys.byteorder) or 1
