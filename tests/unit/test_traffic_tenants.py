"""Generated tenants have the rates, burstiness and token lengths of the ServeGen figures they are drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from classifier.traffic import derive, pacing, tenants

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "traffic"


def test_the_table_names_its_source_and_is_small() -> None:
    for name in ("servegen_figures.csv", "servegen_hours.csv"):
        path = Path(tenants.__file__).with_name(name)
        first = path.read_text("utf-8").splitlines()[0]
        assert "alibaba/ServeGen @ f891d119 (Apache-2.0)" in first
        assert path.stat().st_size < 40_000
    assert len(tenants.tenants()) == 180
    assert len(tenants.hours()) == 24


def test_rates_over_many_windows_are_the_tenants() -> None:
    pool = [t for t in tenants.tenants() if t.rate_mean <= 2.0 and t.active_share > 0.3]
    for tenant in pool[::6]:
        rates = tenant.window_rates(np.random.default_rng(1), 1008)
        assert rates.mean() == pytest.approx(tenant.rate_mean / tenant.active_share, rel=0.1)
        active = tenant.activity(np.random.default_rng(2), 20_000)
        assert active.mean() == pytest.approx(tenant.active_share, abs=0.12)


def test_arrivals_of_a_week_have_the_rate_of_the_tenant() -> None:
    pool = [t for t in tenants.tenants() if t.rate_mean <= 1.0 and t.active_share > 0.6]
    for tenant in pool[::5]:
        times = tenant.arrivals(np.random.default_rng(3), 7 * 86_400.0)
        assert len(times) / (7 * 86_400.0) == pytest.approx(tenant.rate_mean, rel=0.25)
        assert np.all(np.diff(times) >= 0)


def test_arrivals_of_a_tenant_are_as_bursty_as_it_is() -> None:
    pool = [t for t in tenants.tenants() if 0.2 <= t.rate_mean <= 2.0 and t.active_share > 0.5 and t.cvs[2] < 4]
    for tenant in pool[::4]:
        times = tenant.arrivals(np.random.default_rng(4), 5 * 86_400.0)
        window = (times // tenants.WINDOW_S).astype(int)
        found = [
            np.std(gaps) / np.mean(gaps) for w in np.unique(window) if len(gaps := np.diff(times[window == w])) >= 100
        ]
        assert np.median(found) == pytest.approx(tenant.cvs[2], rel=0.25)


def test_token_lengths_have_the_quantiles_of_the_tenant() -> None:
    for tenant in tenants.tenants()[::15]:
        drawn = tenant.output_tokens(np.random.default_rng(5), 40_000)
        assert np.median(drawn) == pytest.approx(tenant.outputs[3], rel=0.1, abs=1.0)
        assert np.quantile(drawn, 0.95) == pytest.approx(tenant.outputs[5], rel=0.15, abs=1.5)
        asked = tenant.input_tokens(np.random.default_rng(6), 40_000)
        assert np.quantile(asked, 0.25) == pytest.approx(tenant.inputs[2], rel=0.1, abs=1.0)


def test_a_cap_on_arrivals_holds() -> None:
    heavy = max(tenants.tenants(), key=lambda t: t.rate_mean)
    assert len(heavy.arrivals(np.random.default_rng(7), 3600.0, cap=1_000)) <= 1_000 + 6


@pytest.mark.parametrize("pattern", ["gamma", "weibull"])
@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gaps_have_the_asked_variation(cv: float, pattern: str) -> None:
    drawn = pacing.gaps(np.random.default_rng(8), 200_000, cv, pattern)
    assert drawn.mean() == pytest.approx(1.0, rel=0.05)
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.05)


def test_a_renewal_has_exactly_the_asked_number_within_the_span() -> None:
    for n in (0, 1, 500):
        times = pacing.renewal(np.random.default_rng(9), n, 10.0, 60.0, 4.0)
        assert len(times) == n
        assert np.all((times >= 10.0) & (times < 70.0))


def test_a_clock_draws_where_the_activity_is() -> None:
    clock = pacing.Clock(np.array([0.0, 10.0, 20.0]), np.array([1.0, 3.0]))
    times = clock.draw(np.random.default_rng(10), 10_000)
    assert np.mean(times > 10.0) == pytest.approx(0.75, abs=0.02)
    inside = clock.draw(np.random.default_rng(11), 100, 5.0, 12.0)
    assert inside.min() >= 5.0
    assert inside.max() <= 12.0


def test_deriving_tells_how_it_is_called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["derive", "--help"])
    with pytest.raises(SystemExit) as left:
        derive.main()
    assert left.value.code == 0
    assert "FOLDER holds servegen_arrivals.parquet" in capsys.readouterr().out


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/traffic (the ServeGen traces)")
def test_the_shipped_figures_are_what_the_traces_give() -> None:
    figures = derive.arrival_figures(pl.read_parquet(DATA / "servegen_arrivals.parquet"))
    for name in ("rate_mean", "cv_q50"):
        shipped = pl.read_csv(Path(tenants.__file__).with_name("servegen_figures.csv"), comment_prefix="#")
        both = shipped.join(figures, on=["workload", "client"], suffix="_again")
        assert both.height == shipped.height
        assert np.allclose(both[name].to_numpy(), both[f"{name}_again"].to_numpy(), rtol=1e-3)
