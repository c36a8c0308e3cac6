"""Blocks of whole lines from a stream of bytes, with line numbers and byte offsets.

A line ends at a line feed and nowhere else, so no quote of any format can swallow the next one. A line longer than
1 MiB is not kept: it comes as a block of its own, with the reason why it is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifier.logs.source import BOM, Source

MAX_LINE = 1 << 20
HEAD_BYTES = 1_024
TOO_LONG = "line is longer than 1 MiB"
BLANKS = b" \t\r\n\v\f"

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Whole lines. Line i is `data[bounds[i]:bounds[i + 1]]` with its line feed; bounds is int64[lines + 1].

    `refused` is set where the block is one line that no parser may see (too long, or where the stream breaks).
    """

    data: bytes
    bounds: IntArray
    first_line: int
    first_offset: int
    refused: str | None = None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def line(self, i: int) -> bytes:
        """Return line i with its line feed."""
        return self.data[self.bounds[i] : self.bounds[i + 1]]

    def number(self, i: int) -> int:
        """Return the line number of line i in its file, from 1."""
        return self.first_line + i

    def offset(self, i: int) -> int:
        """Return the byte offset of line i in the unpacked file."""
        return self.first_offset + int(self.bounds[i])

    def filled(self) -> IntArray:
        """Return the indices of the lines that hold more than blanks."""
        first = np.frombuffer(self.data, np.uint8)[self.bounds[:-1]]
        blank = [i for i in np.flatnonzero(first <= 32).tolist() if not self.line(i).strip(BLANKS)]
        if not blank:
            return np.arange(len(self), dtype=np.int64)
        return np.delete(np.arange(len(self), dtype=np.int64), blank)

    def text(self) -> Any:
        """Return the lines as an Arrow large_string array over the same bytes.

        Bytes that are no UTF-8 come as `\\xHH`, which is how nginx and Apache write them: such a line then takes the
        exact parser's way.
        """
        data, bounds = self.data, self.bounds
        try:
            data.decode()
        except UnicodeDecodeError:
            lines = [_as_utf8(self.line(i)) for i in range(len(self))]
            data = b"".join(lines)
            bounds = np.concatenate(([0], np.cumsum([len(line) for line in lines]))).astype(np.int64)
        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(bounds), pa.py_buffer(data))


def _as_utf8(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("utf-8", "backslashreplace").encode()
    return line


def blocks(source: Source) -> Iterator[Block]:
    """Yield a source's lines in blocks of about 4 MiB.

    The last line needs no line feed, unless the stream is broken: then what follows the last line feed is the one
    refused line that stands for the break.
    """
    splitter = _Splitter()
    for piece in source.pieces():
        yield from splitter.feed(piece)
    yield from splitter.end(source.broken)


class _Splitter:
    """Cuts pieces at line feeds; holds at most one unfinished line of at most 1 MiB."""

    def __init__(self) -> None:
        self.line = 1
        self.offset = 0
        self.carry = b""
        self.skipped = 0  # bytes of an overlong line that were passed over

    def feed(self, piece: bytes) -> Iterator[Block]:
        if self.offset == 0 and self.line == 1 and not self.carry and piece.startswith(BOM):
            self.offset, piece = len(BOM), piece[len(BOM) :]
        if self.skipped:
            cut = piece.find(b"\n") + 1
            if not cut:
                self.skipped += len(piece)
                return
            yield self._refuse(TOO_LONG, self.skipped + cut)
            self.skipped, piece = 0, piece[cut:]
        data = self.carry + piece
        end = data.rfind(b"\n") + 1
        self.carry = data[end:]
        if end:
            yield from self._split(data[:end] if self.carry else data)
        if len(self.carry) > MAX_LINE:
            self.skipped, self.carry = len(self.carry), self.carry[:HEAD_BYTES]

    def end(self, broken: str | None) -> Iterator[Block]:
        if broken:
            yield self._refuse(broken, 0)
        elif self.skipped:
            yield self._refuse(TOO_LONG, 0)
        elif self.carry:
            yield from self._split(self.carry + b"\n")

    def _split(self, data: bytes) -> Iterator[Block]:
        bounds = np.concatenate(([0], np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1)).astype(np.int64)
        begin = 0
        for long in np.flatnonzero(np.diff(bounds) > MAX_LINE + 1).tolist():
            yield from self._block(data, bounds[begin : long + 1])
            self.carry, kept = data[bounds[long] : bounds[long] + HEAD_BYTES], self.carry
            yield self._refuse(TOO_LONG, int(bounds[long + 1] - bounds[long]))
            self.carry = kept
            begin = long + 1
        yield from self._block(data, bounds[begin:])

    def _block(self, data: bytes, bounds: IntArray) -> Iterator[Block]:
        if len(bounds) < 2:
            return
        whole = data if len(data) == bounds[-1] - bounds[0] else data[bounds[0] : bounds[-1]]
        yield Block(whole, bounds - bounds[0], self.line, self.offset)
        self.line += len(bounds) - 1
        self.offset += len(whole)

    def _refuse(self, reason: str, length: int) -> Block:
        head = self.carry[:HEAD_BYTES] + b"\n"
        block = Block(head, np.array([0, len(head)], np.int64), self.line, self.offset, reason)
        self.line += 1
        self.offset += length
        self.carry = b""
        return block
