"""The real logs at hand: how many of their lines are read."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from classifier.logs import Reading, exact, read_log
from classifier.logs.combined import _lines
from classifier.logs.lines import blocks
from classifier.logs.source import Source

LOGS = {"elastic_apache": 10_000, "secrepo_2021-10-22": 644, "secrepo_2022-12-22": 1_262}


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "lines"), LOGS.items())
def test_every_line_of_the_real_logs_is_accepted(shared_data: Path, name: str, lines: int) -> None:
    reading = Reading()
    table = read_log([shared_data / "web" / f"{name}.log.gz"], reading=reading)
    assert (reading.read, reading.accepted, reading.rejected) == (lines, lines, 0)
    assert (reading.files[0].format, reading.files[0].stamp) == ("combined", "start")
    assert table["ip"].null_count == table["time"].null_count == table["status"].null_count == 0


@pytest.mark.realdata
@pytest.mark.parametrize("name", LOGS)
def test_both_parsers_read_the_real_logs_alike(shared_data: Path, name: str) -> None:
    with closing(Source(shared_data / "web" / f"{name}.log.gz")) as source:
        for block in blocks(source):
            frame, refused = _lines(block)
            assert not refused
            texts = [text.rstrip("\r\n") for text in block.text().to_pylist()]
            assert [exact.Fields(*row[:-1]) for row in frame.iter_rows()] == [exact.parse(text) for text in texts]
