"""`--inject`: a log with attackers woven in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from classifier.events import EVENT_SCHEMA


def woven(tables: Iterable[pa.Table], inject: str | None, seed: int) -> Iterator[pa.Table]:
    """Yield the tables of a log; with `inject`, one table of the whole log with these attackers woven in."""
    if inject is None:
        yield from tables
        return
    from classifier.traffic import inject as weave
    from classifier.traffic import to_weave

    events = pa.concat_tables(tables, promote_options="default").select(EVENT_SCHEMA.names)
    yield weave(events, attacks=to_weave(inject), seed=seed)
