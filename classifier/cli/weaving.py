"""`--inject`: a log with attackers woven in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from classifier.events import EVENT_SCHEMA


def woven(tables: Iterable[pa.Table], inject: str | None, seed: int) -> Iterator[pa.Table]:
    """Return the tables of a log; with `inject`, one table of the whole log with these attackers woven in.

    Raises InputError for an unknown family, before the log is read.
    """
    if inject is None:
        return iter(tables)
    from classifier.traffic import to_weave

    return _woven(tables, to_weave(inject), seed)


def _woven(tables: Iterable[pa.Table], attacks: list[str], seed: int) -> Iterator[pa.Table]:
    from classifier.traffic import inject

    yield inject(
        pa.concat_tables(tables, promote_options="default").select(EVENT_SCHEMA.names), attacks=attacks, seed=seed
    )
