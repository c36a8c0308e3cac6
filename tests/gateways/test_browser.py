"""A person in front of the challenge page: Chromium, nginx, the service, and an inference server behind them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from classifier.model.bundle import load_bundle, write_bundle
from tests.gateways.shared import Inference, Running, eventually, installed, missing
from tests.gateways.test_proxies import ALL

pytestmark = pytest.mark.slow

SHOTS = os.environ.get("BOTSIEVE_TEST_SHOTS")
"""Folder for pictures of what a person sees."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = installed("chromium")
    try:
        from playwright import sync_api
    except ImportError:
        missing("playwright")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def site(shared: Path, inference: Inference, tmp_path: Path) -> Iterator[str]:
    """A site where everybody is challenged at /signup, and solving is quick.

    The demo's model finds nothing about a browser that comes once; here its legitimate traffic is said to look better still.
    """
    installed("nginx")
    bundle = load_bundle(shared / "bundle")
    curve = {
        "rows": 10_000,
        "clients": 100,
        "raw": [-99.0, -98.0],
        "rows_beyond": [10_000, 0],
        "client_share": [1.0, 0.0],
    }
    careful = write_bundle(
        tmp_path / "careful",
        replace(bundle.manifest, legitimate_curve=curve),
        {name: bundle.path / name for name in bundle.manifest.files},
    )
    settings = {
        "gateway": "nginx", "clock": "server", "registration_challenge_budget": 0.99, "challenge_secure": False,
        "challenge_work_least": 100_000, "challenge_work_most": 100_000, "site": "Example Inference",
        "routes": [{"path": "/signup*", "registration": True}],
    }  # fmt: skip
    with Running(tmp_path, careful.path, **settings)() as service:  # noqa: SIM117
        with ALL[0](tmp_path, service.port, inference.port) as port:
            yield f"http://localhost:{port}"


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def test_a_person_passes_and_is_not_asked_again(browser: Any, site: str, inference: Inference) -> None:
    page = browser.new_page()
    troubles: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    # It is solved at once, and the page is to be looked at first: what its script fetches has to wait.
    waiting: list[Any] = []
    page.route(
        "**/*", lambda route: waiting.append(route) if route.request.resource_type == "fetch" else route.continue_()
    )
    first = page.goto(site + "/signup?plan=1&next=/other")
    assert first.status == 401
    assert inference.asked == 0
    shot(page, "challenge")
    assert page.title()
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.locator("[role=status]").is_visible()
    for route in waiting:
        route.continue_()
    page.unroute("**/*")
    page.get_by_text("xxxxxxxx").wait_for(timeout=30_000)
    assert page.url == site + "/signup?plan=1&next=/other"
    reached = [(path, headers) for _, path, headers in inference.seen if path != "/favicon.ico"]
    assert [path for path, _ in reached] == ["/signup?plan=1&next=/other"], "led back to where the person wanted to go"
    assert "x-botsieve-pass" not in reached[0][1]
    again = page.goto(site + "/signup?plan=2")
    assert again.status == 200, "the pass holds"
    assert hosts == {site.split("/")[2]}, "nothing comes from another host"
    # Chromium notes the answer 401 itself as an error; there is nothing else.
    assert [text for text in troubles if "401" not in text] == []
    page.close()


def test_without_scripts_the_page_says_what_to_do(browser: Any, site: str) -> None:
    context = browser.new_context(
        java_script_enabled=False, viewport={"width": 360, "height": 700}, color_scheme="dark"
    )
    page = context.new_page()
    assert page.goto(site + "/signup").status == 401
    shot(page, "no-script-narrow-dark")
    assert page.locator(".notice h2").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_a_person_waits_for_room_and_goes_on_by_itself(
    browser: Any, shared: Path, inference: Inference, tmp_path: Path
) -> None:
    installed("nginx")
    settings = {
        "gateway": "nginx", "clock": "server", "challenge_secure": False, "challenge_work_least": 1_000, "load_s": 600,
        "challenge_work_most": 1_000, "site": "Example Inference", "block_budget": 0.0,
    }  # fmt: skip
    with (
        Running(tmp_path, shared / "bundle", "tests.gateways.attacked", **settings)() as service,
        ALL[0](tmp_path, service.port, inference.port) as port,
    ):
        service.load(1.0)
        url, waits = f"http://localhost:{port}/chat?plan=1", 'botsieve_passes_total{result="waits"}'
        solved = 'botsieve_challenges_total{result="solved"}'
        context = browser.new_context()
        page = context.new_page()
        status, heading = page.locator("[role=status]"), page.get_by_role("heading", name="There is no room just now")
        assert page.goto(url).status == 401
        heading.wait_for(timeout=30_000)
        status.get_by_text("Waiting for room.").wait_for()
        assert page.locator("#next").inner_text().startswith("Next try at ")
        for width, scheme in product((1280, 360), ("light", "dark")):
            page.set_viewport_size({"width": width, "height": 700})
            page.emulate_media(color_scheme=scheme)
            shot(page, f"wait-{width}-{scheme}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        # It asks in the background, and whoever reads is not moved.
        page.locator("#onward").focus()
        page.evaluate("globalThis.read = true")
        before = service.metric(waits)
        eventually(lambda: service.metric(waits) >= before + 3)
        for trouble in (lambda route: route.abort(), lambda route: route.fulfill(status=503)):
            page.route("**/chat*", trouble)
            status.get_by_text("The site does not answer").wait_for()
            page.unroute("**/chat*")
            status.get_by_text("Waiting for room.").wait_for()
        assert page.evaluate("globalThis.read && document.activeElement.id") == "onward"
        assert service.metric(solved) == 1, "it was earned once"

        # A pass that is gone has to be earned anew, which this page does not do.
        context.clear_cookies()
        eventually(lambda: service.metric(solved) == 2)
        heading.wait_for()
        assert (page.url, inference.asked) == (url, 0)

        # Without scripts it stays as it is, and says when to try again.
        told = browser.new_context(java_script_enabled=False, storage_state=context.storage_state()).new_page()
        assert told.goto(url).status == 401
        assert told.locator("[role=status]").inner_text() == "Please try again in 1 seconds or later."
        assert told.get_by_role("link", name="Try now").get_attribute("href") == "/chat?plan=1"
        shot(told, "wait-no-script")
        told.context.close()

        service.load(0.0)
        page.get_by_text("xxxxxxxx").wait_for(timeout=30_000)
        assert page.url == url
        reached = [path for _, path, _ in inference.seen if path != "/favicon.ico"]
        assert reached == ["/chat?plan=1"] * 2, "it is tried, and then gone to"
        context.close()
