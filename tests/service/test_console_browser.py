"""An operator in front of the console: Chromium, a service as a program, and an attack that is replayed into it.

`BOTSIEVE_TEST_SHOTS` names a folder for pictures of what the operator sees, in both schemes and at two widths.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from classifier.events import MICROSECONDS
from tests.gateways.shared import TOKEN, Running, eventually, shared
from tests.gateways.test_browser import SHOTS, browser

__all__ = ["browser", "shared"]
pytestmark = pytest.mark.slow

CALM_S, ATTACK_S, SPEED = 2400.0, 780.0, 30.0
"""s of the log before the attack, and of the attack, which is replayed so many times as fast."""
PROMPT_S = 5.0
VERDICTS = ("allow", "challenge", "block")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A calm log, and the attack that follows on it, of clients that the model has not seen."""
    from classifier.evaluation.flood import flooded

    folder, scenario = tmp_path_factory.mktemp("replayed"), flooded(100, 11, "botnet_waves", "plain", 2.0, "requests")
    time_us = scenario.events.column("time").to_numpy()
    seconds = (time_us - time_us[0]) / MICROSECONDS - scenario.begins
    files = (folder / "calm.jsonl", folder / "attack.jsonl")
    for file, (low, high) in zip(files, ((-CALM_S, 0.0), (0.0, ATTACK_S)), strict=True):
        part = scenario.events.take(pa.array(np.flatnonzero((seconds >= low) & (seconds < high))))
        with file.open("w") as out:
            for row in part.to_pylist():
                row["time"] /= MICROSECONDS
                out.write(json.dumps({name: value for name, value in row.items() if value is not None}) + "\n")
    return files


@pytest.fixture(scope="module")
def running(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("console")
    with Running(folder, shared / "bundle", console=True, console_secure=False, deadline_s=60)() as service:
        yield service


def replay(log: Path, url: str, *options: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "classifier",
        "replay",
        str(log),
        "--url",
        url,
        "--out",
        f"{log}.parquet",
        "--quiet",
    ]
    return subprocess.Popen([*command, *options], env={**os.environ, "BOTSIEVE_TOKEN": TOKEN})


class Seen:
    """What a page did that it should not have, and whom it asked."""

    def __init__(self, page: Any) -> None:
        self.troubles: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))


def number(page: Any, identity: str) -> int:
    """Return a number that the page shows; -1 while it shows none."""
    text = page.locator(f"#{identity}").text_content().replace(",", "")
    return int(text) if text.isdigit() else -1


def acted(service: Running) -> float:
    lines = service.metrics('botsieve_decisions_total{decision="')
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'decision="allow"' not in line)


def tab_to(page: Any, selector: str, most: int = 60) -> None:
    """Press Tab until an element that fits has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by the keyboard")


def sign_in(page: Any, url: str) -> None:
    """Sign in with the keyboard alone: the field has the focus already."""
    page.goto(url + "/console")
    page.wait_for_function("document.activeElement.id === 'token'")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-shown]", timeout=20_000)


def test_an_operator_sees_the_attack_and_who_makes_it(browser: Any, running: Running, logs: tuple[Path, Path]) -> None:
    calm, attack = logs
    assert replay(calm, running.url).wait(300) == 0
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    seen = Seen(page)
    sign_in(page, running.url)
    eventually(lambda: page.locator("#link").text_content() == "live")
    assert page.locator("#state").text_content() == "Calm"

    # The attack: what is acted on, and the verdict, which a flood brings about at the same moment.
    before, when = acted(running), dict[str, float]()

    def note(name: str, holds: bool) -> None:
        if holds:
            when.setdefault(name, time.monotonic())

    process = replay(attack, running.url, "--speed", str(SPEED))
    until = time.monotonic() + 240
    while len(when) < 4 and time.monotonic() < until:
        note("acted", acted(running) >= before + 20)
        note("page acted", number(page, "decided-challenge") + number(page, "decided-block") >= before + 20)
        note("attack", running.metric('botsieve_situation{state="attack"}') == 1.0)
        note("page attack", page.locator("#verdict").get_attribute("data-state") == "attack")
        page.wait_for_timeout(50)
    assert len(when) == 4, when
    late = {name: when[f"page {name}"] - when[name] for name in ("acted", "attack")}
    print("s from /metrics to the console:", {name: round(seconds, 2) for name, seconds in late.items()})
    assert max(late.values()) <= PROMPT_S
    assert page.locator("#evidence li").count() >= 2
    assert page.locator("#state").text_content() == "Under attack"
    shots(browser, page, running.url)
    assert process.wait(300) == 0

    # Numbers are those of the metrics, once nothing comes any more.
    eventually(lambda: number(page, "decided-allow") == total(running, decision="allow"))
    page.wait_for_timeout(2_000)
    for verdict in VERDICTS:
        assert number(page, f"decided-{verdict}") == total(running, decision=verdict) > 0
        assert number(page, f"enforced-{verdict}") == total(running, enforced=verdict)
    challenged_or_blocked = number(page, "decided-challenge") + number(page, "decided-block")
    assert challenged_or_blocked == acted(running)
    assert number(page, "waits") == running.metric('botsieve_passes_total{result="waits"}')
    assert page.locator("#drift").text_content() in ("not yet", "unresolved", "steady", "watch", "drift")
    assert page.locator("#campaigns tbody tr").count() >= 1

    # By the keyboard alone: another budget, a pause, a client's page, and out.
    page.locator("body").focus()
    tab_to(page, "#pause")
    page.keyboard.press("Space")
    assert page.locator("#pause").get_attribute("aria-pressed") == "true"
    assert page.locator("#link").text_content() == "paused"
    page.keyboard.press("Space")
    tab_to(page, "#clients a")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
    link = page.evaluate("document.activeElement.getAttribute('href')")
    tab_to(page, "#challenge-budget")
    share, would = page.locator("#challenge-share").text_content(), number(page, "then-allow")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.locator("#challenge-share").text_content() != share
    assert number(page, "then-allow") <= would
    assert "would have been challenged" in page.locator("#budgets-say").text_content()
    page.locator("body").focus()
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "#clients a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/clients/*")
    assert page.locator("h1").text_content().strip().startswith("botsieve")
    assert page.locator("#why tbody tr").count() >= 5
    assert page.get_by_text("block").count() + page.get_by_text("challenge").count() >= 1
    page.goto(running.url + link)
    assert page.locator("h1").count() == 1
    page.goto(running.url + "/console")
    tab_to(page, "form[action='/console/sign-out'] button")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/sign-in")

    assert seen.troubles == []
    assert seen.hosts == {running.url.split("/")[2]}, "nothing is asked of another host"
    page.close()


def total(service: Running, **labels: str) -> float:
    lines = service.metrics("botsieve_decisions_total{")
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if all(f'{name}="{value}"' in line for name, value in labels.items())
    )


def shots(browser: Any, page: Any, url: str) -> None:
    """Look at every page in both schemes at two widths: nothing is cut off sideways, and everything has a name."""
    client = page.locator("#clients a").first.get_attribute("href")
    cookies = page.context.cookies()
    for width, height in ((1280, 900), (390, 844)):
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            other = context.new_page()
            seen = Seen(other)
            other.goto(url + "/console/sign-in")
            look(other, f"console-sign-in-{width}-{scheme}")
            context.add_cookies(cookies)
            other.goto(url + "/console")
            other.wait_for_selector("html[data-shown]")
            other.wait_for_timeout(2_500)
            look(other, f"console-{width}-{scheme}")
            for name, path in (("client", client), ("status", "/status")):
                other.goto(url + path)
                look(other, f"console-{name}-{width}-{scheme}")
            assert other.locator(".state").text_content() == "Under attack"
            assert seen.troubles == []
            assert seen.hosts == {url.split("/")[2]}
            context.close()


def look(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
    cut = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    assert page.evaluate(cut) == 0, f"a table of {name} is cut off"
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title()
    assert page.locator("h1").count() == 1
    unnamed = """[...document.querySelectorAll("input:not([type=hidden]):not([hidden]), button, a, [role=img]")].filter(
        (one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label"))).length"""
    assert page.evaluate(unnamed) == 0


def test_without_scripts_the_console_says_what_to_read(browser: Any, running: Running) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(running.url + "/console")
    page.locator("#token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.locator("noscript p").wait_for()
    context.close()
