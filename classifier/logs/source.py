"""A log file as a stream of unpacked bytes, its compression told by its first bytes and never by its name."""

from __future__ import annotations

import io
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

import zstandard

from classifier.errors import LogError

READ_BYTES = 256 << 10
PIECE_BYTES = 4 << 20
ZSTD_STEP = 4 << 10
"""zstd packs up to 128 KiB in 4 bytes and its decoder cannot be bounded: 4 KiB a step is at most 128 MiB."""
ZSTD_WINDOW = 128 << 20
GZIP = b"\x1f\x8b"
ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)))
"""What a frame of data begins with, and a frame to be skipped, which may come before it."""
BOM = b"\xef\xbb\xbf"
OTHER_PACKERS = {
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7-zip",
    b"\x04\x22\x4d\x18": "lz4",
}


class Source:
    """One log file, read once from front to back.

    `position` and `size` are in bytes of the packed file; `broken` says why the stream ended early, if it did. A broken
    stream is no error: what came before the break is good.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.is_dir():
                raise LogError(f"{path} is a folder; name the log files in it")
            self._file = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise LogError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
        self.position = 0
        self.broken: str | None = None
        self._head: bytes | None = None
        self.magic = self._file.peek(16)[:16]
        for magic, name in OTHER_PACKERS.items():
            if self.magic.startswith(magic):
                self.close()
                raise LogError(f"{path} is packed with {name}; unpack it, or pack it with gzip or zstd")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def head(self) -> bytes:
        """Return the first unpacked bytes, about 4 MiB, without taking them from `pieces`."""
        if self._head is None:
            self._pieces = self._unpacked()
            self._head = next(self._pieces, b"")
        return self._head

    def pieces(self) -> Iterator[bytes]:
        """Yield the unpacked bytes in pieces of about 4 MiB, the byte order mark included; once."""
        head = self.head()
        self._head = b""
        if head:
            yield head
        del head
        yield from self._pieces

    def _unpacked(self) -> Iterator[bytes]:
        if self.magic.startswith(GZIP):
            raw = self._gzip()
        elif self.magic.startswith(ZSTD):
            raw = self._zstd()
        else:
            raw = iter(lambda: self._read(PIECE_BYTES), b"")
        return _gather(raw)

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        return data

    def _gzip(self) -> Iterator[bytes]:
        data = self._read(READ_BYTES)
        while data:
            data = yield from self._gzip_member(data)
            if self.broken:
                return
            data = self._past_zeros(data)
            if data and not data.startswith(GZIP):
                self.broken = "bytes after the end of the gzip stream are no gzip"
                return

    def _past_zeros(self, data: bytes) -> bytes:
        """Drop the zeros that tape blocks are padded with; returns at least two bytes where the file has so many."""
        data = data.lstrip(b"\0")
        while len(data) < len(GZIP) and (more := self._read(READ_BYTES)):
            data = (data + more).lstrip(b"\0")
        return data

    def _gzip_member(self, data: bytes) -> Generator[bytes, None, bytes]:
        """Unpack one member; the value of the generator is what was read beyond it."""
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not data:
                data = self._read(READ_BYTES)
            if not data:
                self.broken = "gzip stream breaks off (the file is cut)"
                return b""
            before = member.copy()
            try:
                yield member.decompress(data, PIECE_BYTES)
            except zlib.error:
                yield _salvage(before, data)
                self.broken = "gzip stream is damaged from here"
                return b""
            data = member.unconsumed_tail
        return member.unused_data

    def _zstd(self) -> Iterator[bytes]:
        unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        frame = unpacker.decompressobj()
        begun = False
        data = b""
        while data := data or self._read(ZSTD_STEP):
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError:
                self.broken = "zstd stream is damaged from here"
                return
            begun = not frame.eof
            data = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = unpacker.decompressobj()
        if begun:
            self.broken = "zstd stream breaks off (the file is cut)"


def _gather(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces until there are 4 MiB: the parsers take whole blocks."""
    buffer = io.BytesIO()
    for data in raw:
        buffer.write(data)
        if buffer.tell() >= PIECE_BYTES:
            yield buffer.getvalue()
            buffer = io.BytesIO()
    if buffer.tell():
        yield buffer.getvalue()


def _salvage(member: zlib._Decompress, data: bytes) -> bytes:
    """Return what unpacks before the damage: zlib drops the output of the call that fails, so go byte by byte."""
    good = []
    for i in range(len(data)):
        try:
            good.append(member.decompress(data[i : i + 1]))
        except zlib.error:
            break
    return b"".join(good)
