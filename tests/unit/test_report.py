"""The report is one page that needs nothing else, says the figures, and survives what logs contain."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from classifier.model import wording
from classifier.model.bootstrap import Figure
from classifier.model.evaluate import evaluate
from classifier.model.labelled import labelled_requests
from classifier.model.metrics import Metrics
from classifier.model.plots import FAMILIES, all_plots
from classifier.model.report import ReportMeta, _acted_clients, report_page, write_report
from classifier.model.summary import print_summary
from tests.unit.scored_traffic import scored_traffic

META: ReportMeta = {
    "bundle": "demo",
    "thresholds": {"challenge": -2.0, "block": None, "notes": ["x"]},
    "budgets": {"challenge": 0.02, "block": 0.0001},
    "prior": 0.01,
    "training": {"requests": 123456, "families": "flood"},
    "versions": {"lightgbm": "4.7.0"},
    "notes": ["Nothing is blocked: the block budget needs more."],
}


class Page(HTMLParser):
    """Collects what the promises below are about."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def scored() -> pd.DataFrame:
    return scored_traffic(60, 40, scale=0.1)


@pytest.fixture(scope="module")
def metrics(scored: pd.DataFrame) -> Metrics:
    return evaluate(scored, resamples=20)


@pytest.fixture(scope="module")
def text(scored: pd.DataFrame, metrics: Metrics) -> str:
    return report_page(metrics, scored, META)


def test_the_page_needs_no_host_and_runs_nothing(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert not page.all("script")
    assert not page.all("link")
    sources = [str(a.get(k)) for _, a in page.tags for k in ("src", "href") if k in a]
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "http://" not in text
    assert "https://" not in text


def test_every_figure_has_an_alternative_text_and_every_table_its_headers(text: str) -> None:
    page = Page(text)
    images = page.all("img")
    assert len(images) == 6
    assert all(len(image["alt"] or "") > 20 for image in images)
    assert len({image["src"] for image in images}) == 6
    assert page.all("caption")
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"


def test_the_page_is_readable_by_night_and_on_a_telephone(text: str) -> None:
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "@media print" in text
    assert "\u00a0%" in text, "no line ends between a number and its per cent sign"


def test_families_are_told_apart_without_colour() -> None:
    assert len({dashes for _, dashes in FAMILIES}) == len(FAMILIES)


def test_the_page_tells_verdict_families_reasons_thresholds_and_what_is_missing(text: str, metrics: Metrics) -> None:
    told = re.sub(r"\s+", " ", Page(text).text)
    summed = wording.verdict(metrics, {"challenge": -2.0, "block": None}, 0.02)
    for expected in (
        summed.title,
        *summed.sentences,
        *(group["family"] for group in metrics["groups"]),
        "many_accounts",
        "-2.0000",
        "never",
        "123,456",
        "lightgbm 4.7.0",
        *META["notes"],
        *metrics["notes"],
    ):
        assert expected in told


def test_the_same_evaluation_gives_the_same_page(text: str, scored: pd.DataFrame, metrics: Metrics) -> None:
    assert report_page(metrics, scored, META) == text


def test_names_from_a_log_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = scored_traffic(40, 40, scale=0.1)
    names = ["<script>alert(1)</script>", "$\\frac{", "_hidden", "漢字", "[red]x[/red]", "\x1b[31mred", "x" * 500]
    frame["family"] = np.array(names, dtype=object)[np.arange(len(frame)) % len(names)]
    frame["client"] = frame["family"].to_numpy(object)
    frame["reasons"] = [["<b>rate</b>", "a;b"]] * len(frame)
    metrics = evaluate(frame, resamples=3)
    write_report(tmp_path / "report.html", metrics, frame, {})
    written = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not Page(written).all("script")
    assert "<b>" not in written
    assert "\x1b" not in written
    print_summary(metrics, Console(width=80, force_terminal=False))
    printed = capsys.readouterr().out
    assert "[red]x[/red]" in printed
    assert "\x1b" not in printed


def one_request(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.head(1)


def one_score(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(raw=np.float32(0.25), probability=0.5, decision="allow")


def over_a_year(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(time=np.linspace(1.6e15, 1.63e15, len(frame)).astype(np.int64))


def unlabelled_half(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(malicious=frame["malicious"].astype("boolean").where(frame["row"] % 2 == 0))


@pytest.mark.parametrize(
    "change",
    [
        one_request,
        one_score,
        over_a_year,
        unlabelled_half,
        lambda f: f[f["malicious"]],
        lambda f: f[~f["malicious"]],
        lambda f: f.drop(columns=["reasons", "input_tokens", "output_tokens", "score"]),
        lambda f: f.assign(time=1_700_000_000_000_000, family=None),
        lambda f: f.assign(decision="block"),
    ],
)
def test_thin_and_odd_evaluations_still_make_a_page_and_a_table(scored: pd.DataFrame, change: Any) -> None:
    frame = change(scored)
    metrics = evaluate(frame, resamples=2)
    page = Page(report_page(metrics, frame, META))
    assert page.open == []
    assert "nan" not in page.text
    assert ("Ranking, whatever" in page.text) is (frame["malicious"].dropna().nunique() == 2), (
        "no table of dashes alone"
    )
    print_summary(metrics, Console(width=80, file=io.StringIO()))


def test_the_terminal_table_fits_eighty_columns_and_names_every_family(metrics: Metrics) -> None:
    printed = io.StringIO()
    print_summary(metrics, Console(width=80, file=printed), {"challenge": 1.0, "block": 2.0}, 0.02)
    lines = printed.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert not any("…" in line for line in lines)
    assert {g["family"] for g in metrics["groups"] if not g["overall"]} <= {
        line.split()[0] for line in lines if line.strip()
    }


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.5, "50 %"),
        (0.0123, "1.2 %"),
        (0.9996, "99.960 %"),
        (0.00012, "0.012 %"),
        (None, "–"),
    ],
)
def test_percentages_show_what_is_left_to_0_and_100(share: float | None, text: str) -> None:
    assert wording.percent(share) == text


def figure(value: float, low: float | None = None) -> Figure:
    return Figure(value=value, low=low, high=None, reason=None)


@pytest.mark.parametrize(
    ("caught", "touched", "tone", "title"),
    [
        (0.97, figure(0.001), "good", "Catches nearly all attackers, within the budget for legitimate requests"),
        (0.97, figure(0.003, 0.001), "fair", "Catches nearly all attackers, slightly over the budget"),
        (
            0.97,
            figure(0.01, 0.001),
            "fair",
            "Catches nearly all attackers, and over the budget for legitimate requests",
        ),
        (0.97, figure(0.03, 0.01), "poor", "Catches nearly all attackers, but touches more legitimate requests"),
        (0.6, figure(0.0), "fair", "Catches many attackers"),
        (0.1, figure(0.0), "poor", "Catches few attackers"),
        (0.0, figure(0.0), "poor", "Catches no attacker"),
    ],
)
def test_the_verdict_weighs_attackers_caught_against_harm_done(
    metrics: Metrics, caught: float, touched: Figure, tone: str, title: str
) -> None:
    groups = [dict(group) for group in metrics["groups"]]
    for group in groups:
        if group["kind"] == "attack":
            group["clients_acted_on"] = figure(caught)
        else:
            group["acted_on"], group["requests"] = touched, 50_000
    changed: Any = {**metrics, "groups": groups}
    summed = wording.verdict(changed, None, 0.002)
    assert summed.tone == tone
    assert summed.title.startswith(title)


def test_whom_the_page_names_has_all_requests_that_its_rows_stand_for(scored: pd.DataFrame, metrics: Metrics) -> None:
    weighed = scored.assign(weight=3.0)
    for mine, once in zip(_acted_clients(weighed), _acted_clients(scored), strict=True):
        for client, same in zip(mine, once, strict=True):
            assert client.client == same.client
            assert (client.requests, client.challenged, client.blocked) == (
                3 * same.requests, 3 * same.challenged, 3 * same.blocked,
            )  # fmt: skip
            assert client.first == 3 * (same.first - 1) + 1
    plots = [plot.alt for plot in all_plots(labelled_requests(weighed), metrics["calibration"], None)]
    assert plots == [plot.alt for plot in all_plots(labelled_requests(scored), metrics["calibration"], None)]


def test_a_few_legitimate_requests_tell_nothing_of_what_it_costs_them(metrics: Metrics) -> None:
    groups = [{**group, "acted_on": figure(0.0), "requests": 195} for group in metrics["groups"]]
    changed: Any = {**metrics, "groups": groups}
    summed = wording.verdict(changed, None, 0.01)
    assert summed.title.endswith("but legitimate requests are too few to tell what it costs them")
    assert summed.tone != "good"


def test_where_no_legitimate_request_is_touched_none_comes_from_a_client(metrics: Metrics) -> None:
    groups = [{**group, "acted_on": figure(0.0), "requests": 5_000} for group in metrics["groups"]]
    changed: Any = {**metrics, "groups": groups}
    told = "None of 5,000 legitimate requests was challenged or blocked; the budget is 0.20 %."
    assert wording.verdict(changed, None, 0.002).sentences[-1] == told


def test_a_page_says_what_was_measured_and_that_attackers_are_simulated(scored: pd.DataFrame, metrics: Metrics) -> None:
    told = report_page(metrics, scored, {**META, "about": "Measured on these.", "invented": True})
    assert "Measured on these." in told
    assert "nobody has these addresses" in told
    assert "nobody has these addresses" not in report_page(metrics, scored, META)


def test_a_bundle_without_thresholds_is_said_to_do_nothing(metrics: Metrics) -> None:
    assert wording.verdict(metrics, {"challenge": None, "block": None}, 0.002).title.startswith("Takes no action")
