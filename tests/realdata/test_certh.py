"""Real labels: a client's own features tell human sessions from bots that browse as humans do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classifier.evaluation import certh


@pytest.fixture(scope="module")
def requests_file(shared_data: Path) -> Path:
    return shared_data / "web" / "certh_requests.csv.gz"


@pytest.mark.realdata
def test_held_out_sessions_are_ranked_by_how_they_browse(requests_file: Path) -> None:
    found = certh.measure(certh.PROTOCOL, requests_file)
    assert found.moderate.value >= 0.97
    assert found.advanced.value >= 0.92


@pytest.mark.slow
@pytest.mark.realdata
def test_shuffled_labels_rank_nothing(requests_file: Path) -> None:
    found = certh.shuffled(requests_file)
    assert abs(found.moderate.value - 0.5) <= 0.1
    assert abs(found.advanced.value - 0.5) <= 0.1


@pytest.mark.realdata
def test_events_show_nothing_of_the_recording_but_how_a_session_browsed(requests_file: Path) -> None:
    requests = certh.read(requests_file)
    rng = np.random.default_rng(0)
    events = certh.events(certh.without_sizes(requests, rng), rng)
    shown = {name for name in events.column_names if events[name].null_count < events.num_rows}
    assert shown == {"time", "ip", "method", "path", "status", "account", "malicious", "family"}
    sessions = events.select(["account", "ip", "time"]).to_pandas().groupby("account")
    assert (sessions["ip"].nunique() == 1).all()
    assert sessions["ip"].first().is_unique
    begin = sessions["time"].min() - certh.HOUR_US
    assert ((begin >= 0) & (begin < 3600 * 1_000_000)).all()
    assert not any("mousemv" in path for path in events["path"].to_pylist())


def test_an_area_counts_pairs_and_its_interval_holds_it() -> None:
    labels = np.repeat(np.array([certh.HUMAN, certh.MODERATE, certh.ADVANCED], object), [6, 6, 3])
    people, moderate = [0.1, 0.1, 0.1, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.9, 0.9, 0.9]
    found = certh.areas(np.array([[*people, *moderate, 0.3, 0.3, 0.3]]), labels)
    assert found.moderate.value == 0.875
    assert found.advanced.value == 0.5
    assert found.moderate.low < found.moderate.value < found.moderate.high
    assert np.isnan(found.advanced.low)
