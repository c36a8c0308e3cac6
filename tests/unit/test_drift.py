"""Drift: the index and its noise, on traffic made up of clients with habits, and the command over a real bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from classifier.cli.terminal import OUTPUT
from classifier.features.spec import NAMES
from classifier.model.histograms import RAW, Clusters, Histogram, chance_limit, deciles, histogram, stability_index
from classifier.model.stability import LEVEL, UNSETTLED, compared, verdict_on
from classifier.traffic import simulate
from tests.unit.command_line import Made, done, jsonl, refused, small_forests

Floats = npt.NDArray[np.float64]


def traffic(rng: np.random.Generator, clients: int, habit: float = 3.0, shift: float = 0.0) -> tuple[Floats, Clusters]:
    """Clients with a value of their own each, around which their requests scatter; their numbers are heavy-tailed."""
    requests = 1 + np.minimum(rng.pareto(1.2, clients) * 20, 2_000).astype(int)
    key = np.repeat(np.arange(clients, dtype=np.uint64), requests)
    values = shift + habit * rng.standard_normal(clients)[key.astype(int)] + rng.standard_normal(len(key))
    time = rng.integers(0, 86_400 * 1_000_000, len(key))
    return values, Clusters.of(key, time, np.ones(len(key)))


def sampled(seed: int, before: int, now: int, shift: float = 0.0) -> tuple[float, float]:
    """Return the index of two samples, and its limit by chance."""
    rng = np.random.default_rng(seed)
    values, clusters = traffic(rng, before)
    reference = histogram(values, deciles(values, clusters.weight), clusters)
    values, clusters = traffic(rng, now, shift=shift)
    later = histogram(values, reference.edges, clusters)
    degrees = min(reference.degrees, later.degrees)
    psi = stability_index(reference.shares, later.shares)
    return psi, chance_limit(reference.noise + later.noise, degrees, LEVEL)


def test_the_same_histogram_has_no_distance_and_another_has_a_positive_one() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    assert stability_index(shares, shares) == 0
    assert stability_index(shares, shares[::-1].copy()) == pytest.approx(2 * 0.3 * np.log(0.5 / 0.2))
    assert np.isfinite(stability_index(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


@pytest.mark.parametrize(("before", "now"), [(300, 300), (300, 40), (40, 40)])
def test_chance_is_told_from_change_however_few_clients_there_are(before: int, now: int) -> None:
    found = [sampled(seed, before, now) for seed in range(60)]
    assert not [psi for psi, limit in found if psi > limit]
    # The customary bands alone would have called chance a drift among few clients.
    if now == 40:
        assert np.mean([psi > 0.25 for psi, _ in found]) > 0.1
    shifted = [sampled(seed, before, now, shift=8.0) for seed in range(20)]
    assert all(psi > limit for psi, limit in shifted if before == 300)


def test_the_noise_is_the_distance_that_chance_makes() -> None:
    samples = [sampled(seed, 400, 100)[0] for seed in range(40)]
    rng = np.random.default_rng(99)
    expected = []
    for clients in (400, 100):
        values, clusters = traffic(rng, clients)
        expected.append(histogram(values, deciles(values, clusters.weight), clusters).noise)
    assert np.mean(samples) == pytest.approx(sum(expected), rel=0.5)


def test_a_heavy_client_counts_as_its_root() -> None:
    key = np.repeat(np.arange(101, dtype=np.uint64), [10_000] + [1] * 100)
    clusters = Clusters.of(key, np.zeros(len(key), np.int64), np.ones(len(key)))
    values = (key > 0).astype(np.float64)
    assert histogram(values, np.array([0.5]), clusters).shares[0] == pytest.approx(0.5)


def test_missing_values_have_a_bin_and_a_place_is_read_from_the_deciles() -> None:
    values = np.array([np.nan, *range(1, 10)])
    clusters = Clusters.of(np.arange(10, dtype=np.uint64), np.zeros(10, np.int64), np.ones(10))
    found = histogram(values, deciles(values, clusters.weight), clusters)
    assert found.shares[-1] == pytest.approx(0.1)
    assert found.shares.sum() == pytest.approx(1)
    assert found.below(0.5) < found.below(5) < found.below(10)
    assert np.isnan(found.below(float("nan")))
    assert np.isnan(Histogram(np.empty(0), np.array([0.0, 1.0]), 0.0, 1.0).below(1.0))


def test_the_command_tells_a_planted_shift_from_ordinary_traffic(made: Made, tmp_path: Path) -> None:
    ordinary = done("drift", made.log, "--bundle", made.bundle, "--json", tmp_path / "same.json", "--quiet")
    same = json.loads((tmp_path / "same.json").read_text())
    assert same["verdict"] != "drift"
    assert len(same["whole"]["features"]) == len(NAMES) + 1
    assert "Drift:" not in ordinary.out
    shifted = tmp_path / "shifted.jsonl"
    with made.log.open() as lines, shifted.open("w") as out:
        for line in lines:
            event = json.loads(line)
            event.pop("user_agent", None)
            event["path"] = "/another/service/of/ours" + event["path"]
            out.write(json.dumps(event) + "\n")
    ran = done("drift", shifted, "--bundle", made.bundle, "--json", tmp_path / "drift.json", "--quiet")
    found = json.loads((tmp_path / "drift.json").read_text())
    assert found["verdict"] == "drift"
    states = {each["name"]: each["state"] for each in found["whole"]["features"]}
    assert states["client_no_agent_share"] == states["request_path_depth"] == "drifted"
    assert found["whole"]["lost"] == ["user_agent"]
    assert "No request has this any more, on a whole day or longer: user_agent." in ran.out
    assert "Drift: the traffic no longer looks like that of training" in ran.out


def test_every_request_is_accounted_for_and_the_days_add_up_to_the_whole(three_days: Made, tmp_path: Path) -> None:
    ran = done("drift", three_days.log, "--bundle", three_days.bundle, "--json", tmp_path / "drift.json", "--quiet")
    found = json.loads((tmp_path / "drift.json").read_text())
    whole, events = found["whole"], jsonl(three_days.log)
    parts = ("requests", "acted_on", "malicious")
    assert sum(whole[name] for name in parts) + found["warm_up"] == len(events)
    assert len(found["days"]) == 3
    assert all(sum(day[name] for day in found["days"]) == whole[name] for name in parts)
    begin = events[0]["time"] + 3600
    assert whole["malicious"] == sum(event["malicious"] and event["time"] >= begin for event in events)
    assert found["warm_up"] == sum(event["time"] < begin for event in events)
    told = " ".join(ran.out.split())
    assert f"{len(events):,} requests = {whole['requests']:,} compared + " in told
    assert f"{whole['malicious']:,} labelled malicious + {found['warm_up']:,} of the beginning" in told


@pytest.mark.parametrize("width", [20, 60, 80])
def test_no_terminal_is_too_narrow_for_the_tables(
    three_days: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    log = tmp_path / "other.jsonl"
    other = {"duration": 9.0, "response_bytes": 9_000_000, "referer": "https://example.org/"}
    with log.open("w") as out:
        for event in jsonl(three_days.log):
            out.write(json.dumps(event | other | {"path": f"/a/b/c/d/e{event['path']}?from=elsewhere"}) + "\n")
    monkeypatch.setattr(OUTPUT, "width", width)
    told = done("drift", log, "--bundle", three_days.bundle, "--quiet").out
    assert "…" not in told.replace("… and ", "")
    lines = [line.split() for line in told.splitlines()]
    assert ["compared", "clients", "on", "PSI", "drifted", "moved", "unresolved", "verdict"] in lines
    assert [line[0] for line in lines if line[-1:] == ["drift"]] == ["whole", "2026-01-05", "2026-01-06", "2026-01-07"]
    features = [line for line in lines if line[-1:] == ["drifted"]]
    assert len(features) == 10
    assert "request_path_depth" in [line[0] for line in features]
    assert " more; --json has every" in " ".join(told.split())
    assert max(len(line) for line in told.splitlines()) <= 80


def test_a_log_of_nothing_but_attacks_is_refused(made: Made, tmp_path: Path) -> None:
    log = tmp_path / "attacks.jsonl"
    events = [json.loads(line) for line in made.log.read_text().splitlines()]
    log.write_text("".join(json.dumps(event) + "\n" for event in events if event["malicious"]))
    refused("drift", log, "--bundle", made.bundle, says="nothing legitimate is left")


def test_only_a_score_that_rises_counts() -> None:
    """Training's scores are of models that never saw the client; the one in use has seen more, and some again."""
    before = Histogram(np.arange(9.0), np.array([*[0.1] * 10, 0.0]), 0.001, 9.0)
    low, high = np.zeros(11), np.zeros(11)
    low[:5], high[5:10] = 0.2, 0.2
    fallen = compared(RAW, before, Histogram(before.edges, low, 0.001, 9.0))
    risen = compared(RAW, before, Histogram(before.edges, high, 0.001, 9.0))
    assert fallen.state == risen.state == "drifted"
    assert (fallen.counts, risen.counts) == (False, True)
    assert (verdict_on([fallen]), verdict_on([risen])) == ("steady", "drift")
    tail = np.array([0.75, 0, 0, 0, 0, 0, 0, 0, 0, 0.25, 0])
    assert compared(RAW, before, Histogram(before.edges, tail, 0.001, 9.0)).counts, (
        "lower in the mean, and more at the top"
    )
    assert compared("client_cap_mean", before, Histogram(before.edges, low, 0.001, 9.0)).counts


def test_a_journal_keeps_the_length_of_a_prompt_in_its_place() -> None:
    from classifier.model.dataset import field_filled

    events = pa.table({"prompt": pa.array([None, None, "why"]), "prompt_length": pa.array([7, None, None])})
    assert field_filled(events, "prompt").tolist() == [True, False, True]
    assert field_filled(events.select(["prompt"]), "prompt").tolist() == [False, False, True]


def test_a_field_is_usual_by_the_clients_that_have_it_not_by_their_requests() -> None:
    from classifier.model.dataset import fields_seen

    events = simulate(duration_s=3600.0, clients=30, attacks="all:plain", seed=4)
    heavy = pc.equal(
        events.column("account"), events.filter(pc.invert(events.column("malicious"))).column("account").drop_null()[0]
    )
    only = pc.if_else(pc.fill_null(heavy, False), pa.scalar("here"), pa.scalar(None, pa.string()))
    attackers = pc.if_else(events.column("malicious"), pa.scalar("x"), pa.scalar(None, pa.string()))
    place = events.schema.get_field_index
    changed = events.set_column(place("referer"), "referer", only).set_column(
        place("fingerprint"), "fingerprint", attackers
    )
    shares = fields_seen(lambda: iter([changed.slice(0, 1_000), changed.slice(1_000)]))
    assert shares["ip"] == 1.0
    assert 0.0 < shares["referer"] < 0.1
    assert shares["fingerprint"] == 0.0, "seen, and by no legitimate client"
    assert "end" not in shares


def visits(path: Path, days: int = 3, visitors: int = 500, scrapers: int = 40) -> Path:
    """Write a labelled log of a site whose visitors come once, ask for a few pages and go; in between come scrapers."""
    rng = np.random.default_rng(8)
    begins = 1_767_600_000 + np.sort(rng.uniform(0, days * 86_400, visitors + scrapers))
    hostile = rng.permutation(visitors + scrapers) < scrapers
    with path.open("w") as out:
        for number, (begin, scrapes) in enumerate(zip(begins.tolist(), hostile.tolist(), strict=True)):
            gaps = np.full(30, 0.2) if scrapes else rng.uniform(3.0, 40.0, rng.integers(1, 6))
            agent = "python-requests/2.31" if scrapes else "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0"
            for step, moment in enumerate((begin + np.cumsum(gaps)).tolist()):
                event = {
                    "time": moment, "ip": f"198.51.{number // 256}.{number % 256}", "method": "GET", "status": 200,
                    "path": f"/posts/{rng.integers(50)}" if step else "/", "user_agent": agent, "duration": 0.1,
                    "response_bytes": int(rng.integers(1_000, 9_000)), "malicious": scrapes,
                    "family": "scraping" if scrapes else "visitor",
                }  # fmt: skip
                out.write(json.dumps(event) + "\n")
    return path


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return those visits and a bundle trained on them."""
    folder = tmp_path_factory.mktemp("visits")
    log, bundle = visits(folder / "log.jsonl"), folder / "bundle"
    with small_forests():
        budgets = ["--challenge-budget", 0.1, "--block-budget", 0.05]
        done("train", log, "--bundle", bundle, *budgets, "--capacity", 256, "--threads", 1, "--quiet")
    return Made(log, bundle)


def test_a_log_drifts_neither_from_the_bundle_trained_on_it_nor_does_its_second_day_alone(
    three_days: Made, tmp_path: Path
) -> None:
    """Profiles are empty as a log begins, and an engine that has just started divides long rates by what it has lived."""
    (log, bundle), second = three_days, tmp_path / "second.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    begin = json.loads(lines[0])["time"] + 86_400
    second.write_text("".join(line for line in lines if begin <= json.loads(line)["time"] < begin + 86_400))
    for each in (log, second):
        done("drift", each, "--bundle", bundle, "--json", tmp_path / "drift.json", "--quiet")
        found = json.loads((tmp_path / "drift.json").read_text())
        assert not {window["verdict"] for window in (found["whole"], *found["days"])} & {"watch", "drift"}
        first = (found["days"] or [found["whole"]])[0]
        unsettled = {one["name"]: one for one in first["features"] if one["name"] in UNSETTLED}
        assert unsettled["client_rate_4096s"]["state"] == "drifted", "which is why it does not count"
        assert not any(one["counts"] for one in unsettled.values())


@pytest.mark.slow
def test_ordinary_weeks_raise_no_alarm_and_a_shift_is_seen_within_a_day(tmp_path: Path) -> None:
    """docs/drift.md has the same with ten weeks, with weeks under attack, and what the days say."""
    from classifier.model.apply import Model
    from classifier.model.drift import measure_drift
    from classifier.model.pipeline import TrainOptions, train_bundle
    from tests.benchmarks.bench_drift import planted

    span = {"duration_s": 7 * 86_400.0, "clients": 40}
    learn = simulate(**span, attacks="all", seed=0)  # type: ignore[arg-type]
    train_bundle(TrainOptions(tmp_path / "bundle", capacity=65_536, threads=2), lambda: iter((learn,)))
    model = Model.load(str(tmp_path / "bundle"))
    for seed in range(7, 11):
        events = simulate(**span, attacks="none", seed=seed)  # type: ignore[arg-type]
        assert measure_drift(model, [events]).verdict != "drift", seed
    for change, changed in planted(events):
        days = measure_drift(model, [changed]).days
        assert [day.verdict == "drift" for day in days[:4]] == [False, False, False, True], change
