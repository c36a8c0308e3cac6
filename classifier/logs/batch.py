"""What a reader hands on for one stretch of a file: events with where they came from, and what it turned down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from classifier.logs.lines import Block, IntArray
from classifier.logs.reading import CONTENT_BYTES, Reject

NO_OFFSET = -1


@dataclass
class Batch:
    """Events of EVENT_SCHEMA in input order; `line` int64[n] from 1; `offset` int64[n], -1 where there is none.

    `content` is the rejected lines' text as Arrow large_binary, or None where content is not to be kept.
    """

    table: pa.Table
    line: IntArray
    offset: IntArray
    content: Any | None = None
    rejects: list[Reject] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.line)

    def slice(self, begin: int, end: int) -> Batch:
        """Return rows begin to end, without the rejects."""
        content = None if self.content is None else self.content[begin:end]
        return Batch(self.table.slice(begin, end - begin), self.line[begin:end], self.offset[begin:end], content)

    def where(self, keep: Any) -> Batch:
        """Return the rows where the mask bool[n] is true, without the rejects."""
        content = None if self.content is None else self.content.filter(pa.array(keep))
        return Batch(self.table.filter(pa.array(keep)), self.line[keep], self.offset[keep], content)

    def reject(self, i: int, reason: str) -> Reject:
        """Return row i as a reject."""
        offset = int(self.offset[i])
        content = None if self.content is None else self.content[i].as_py()
        return Reject(int(self.line[i]), None if offset == NO_OFFSET else offset, reason, content)


def join(batches: list[Batch]) -> Batch:
    """Put batches one after the other, without their rejects."""
    if len(batches) == 1:
        return batches[0]
    contents = [b.content for b in batches]
    content = None if any(c is None for c in contents) else pa.concat_arrays(contents)
    return Batch(
        pa.concat_tables([b.table for b in batches], promote_options="default"),
        np.concatenate([b.line for b in batches]),
        np.concatenate([b.offset for b in batches]),
        content,
    )


def of_block(block: Block, rows: IntArray, table: pa.Table, refused: dict[int, str], keep: bool) -> Batch:
    """Build the batch of a block: `rows` int64[n] are the lines that gave the table's events, `refused` the others."""
    rejects = [
        Reject(block.number(i), block.offset(i), reason, block.line(i)[:CONTENT_BYTES] if keep else None)
        for i, reason in sorted(refused.items())
    ]
    content = pa.array([block.line(i)[:CONTENT_BYTES] for i in rows.tolist()], pa.large_binary()) if keep else None
    return Batch(table, block.first_line + rows, block.first_offset + block.bounds[rows], content, rejects)
