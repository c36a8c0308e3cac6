"""From a log to feature rows, chunk by chunk, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifier.features import layout as at
from classifier.features.engine import DEFAULT_TABLES, Engine, Rows, Tables
from classifier.features.hashing import secret_from_environment
from classifier.features.order import Orderer, sorted_tables
from classifier.features.prepare import Preparer
from classifier.features.promptscore import PromptScorer

CHUNK_ROWS = 32_768
"""Events that are prepared at a time: their rows of features stay in memory that the next ones use again."""


@dataclass(slots=True)
class FeatureChunk:
    """Events in the order of time, with what was made of them.

    events: event table [n]; row int64[n], number of the event in the input; client uint64[n], keyed hash of the client;
    rows float32[n, features], in the order of `spec.NAMES`.
    """

    events: pa.Table
    row: npt.NDArray[np.int64]
    client: npt.NDArray[np.uint64]
    rows: Rows


def feature_chunks(
    tables: Iterable[pa.Table],
    *,
    sizes: Tables = DEFAULT_TABLES,
    threads: int = 1,
    secret: bytes | None = None,
    prompts: PromptScorer | None = None,
) -> Iterator[FeatureChunk]:
    """Yield the feature rows of event tables in input order, which need not be sorted, in the order of time.

    `secret` keys the hashes (that of the environment if None), `prompts` scores prompts (the one shipped if None). Same
    events, sizes, secret and scorer give the same bytes, however the tables are cut and whatever the threads.
    """
    preparer = Preparer(secret_from_environment() if secret is None else secret, prompts)
    engine, orderer = Engine(sizes, threads=threads), Orderer()
    for table, row in sorted_tables(tables):
        for begin in range(0, table.num_rows, CHUNK_ROWS):
            events = table.slice(begin, CHUNK_ROWS)
            held = len(orderer.carried)
            prepared = preparer.table(events, after=orderer.carried)
            rows = prepared.row[held:] = row[begin : begin + CHUNK_ROWS]
            clients = prepared.hashes[held:, at.H_CLIENT].copy()
            yield FeatureChunk(events, rows, clients, engine.run(orderer.push_joined(prepared)))
