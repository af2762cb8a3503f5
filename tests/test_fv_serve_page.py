"""The page of `fv serve` in a real browser, headless; skipped where there is none."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core import VideoGenerator
from tests.support.serving import LONG, Site, site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium with chromedriver on this machine"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    environment = {**os.environ, "HOME": str(profile)}
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER, env=environment))
    driver.set_window_size(1200, 900)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def generator() -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained("shapes", device="cpu") as shared:
        shared.progress = False
        yield shared


@pytest.fixture
def here(generator: VideoGenerator, tmp_path: Path) -> Iterator[Site]:
    with site(generator, tmp_path / "served") as made:
        yield made


class Page:
    """The page as its user sees it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get("about:blank")  # the page of a server that is gone goes on to complain
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(url)
        self.wait(lambda: self.element("#model").text != "" or self.element("#key-form").is_displayed())

    def element(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def elements(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def script(self, text: str) -> Any:
        return self.browser.execute_script(text)

    def fill(self, selector: str, value: str) -> None:
        box = self.element(selector)
        box.clear()
        box.send_keys(value)

    def wait(self, what: Callable[[], Any], seconds: float = 30) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, seconds, 0.02, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: what())

    def no_errors(self, url: str) -> None:
        """Nothing on the console, and no address but the server's own."""
        assert [one["message"] for one in self.browser.get_log("browser") if one["level"] == "SEVERE"] == []
        for one in self.browser.get_log("performance"):
            message = json.loads(one["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked = message["params"]["request"]["url"]
                assert asked.startswith((url, "blob:", "data:")), asked


def small(page: Page, steps: int) -> None:
    page.fill("#prompt", "a red circle moving left on a white background")
    for name, value in (("width", 64), ("height", 64), ("num_frames", 9), ("num_inference_steps", steps)):
        page.fill(f"#{name}", str(value))


def test_a_video_is_made_with_progress_and_its_receipt_is_told(browser: Any, here: Site) -> None:
    page = Page(browser, here.url)
    assert page.element("#model").text == "tiny"
    small(page, 40)
    page.element("#submit").click()
    seen: set[str] = set()

    def done() -> bool:
        seen.update(one.text for one in page.elements("#jobs li .state"))
        return bool(page.element("#viewer").is_displayed())

    page.wait(done)
    assert len({text for text in seen if text.startswith("step ")}) > 2, seen
    told = page.wait(lambda: page.element("#caption-a").text)
    assert "All 80 passes were computed." in told
    assert "Self attention by TORCH_SDPA" in told
    assert "9 frames of 64x64, 40 steps, seed 1024." in told
    assert page.wait(lambda: page.script("return document.getElementById('video-a').currentTime")) > 0
    assert not page.element("#figure-b").is_displayed()
    page.no_errors(here.url)


def test_two_settings_play_side_by_side_in_step(browser: Any, here: Site) -> None:
    page = Page(browser, here.url)
    small(page, 12)
    page.element("#compare").click()
    page.script("document.getElementById('policy-b').value = 'TEACACHE'")
    page.fill("#value-b", "0.5")
    page.element("#submit").click()
    page.wait(lambda: page.element("#figure-b").is_displayed() and page.element("#difference").text)
    assert "times as fast as" in page.element("#difference").text
    assert "skipped by TEACACHE" in page.element("#caption-b").text
    both = "return ['a', 'b'].map((side) => document.getElementById('video-' + side).currentTime)"
    page.wait(lambda: min(page.script(both)) > 0.05)
    for _ in range(20):
        first, second = page.script(both)
        assert abs(first - second) < 0.15
    page.element("#play").click()
    assert page.element("#play").text == "Play"
    script = (
        "const slider = document.getElementById('time'); slider.value = 0.5; slider.dispatchEvent(new Event('input'))"
    )
    page.script(script)
    page.wait(lambda: not page.script("return document.getElementById('video-b').seeking"))
    first, second = page.wait(lambda: page.script(both))
    assert first == pytest.approx(second, abs=0.001)
    assert first == pytest.approx(0.5 * 9 / 16, abs=0.02)
    page.no_errors(here.url)


SLOW = """
const real = window.fetch, slow = arguments[0];
window.fetch = async (path, options) => {
  if (path.includes(slow)) await new Promise((done) => setTimeout(done, 200));
  return real(path, options);
};
"""


def test_what_was_chosen_last_is_shown(browser: Any, here: Site) -> None:
    slow, quick = (here.create(seed=seed)["id"] for seed in (1, 2))
    here.ended(quick)
    page = Page(browser, here.url)
    page.wait(lambda: len(page.elements("#jobs li[data-status=completed]")) == 2)
    browser.execute_script(SLOW, slow)
    for video in (slow, quick):
        page.element(f"#jobs li[data-id='{video}'] button[aria-label^='Show as A']").click()
    page.wait(lambda: "seed 2" in page.element("#caption-a").text)
    time.sleep(0.7)
    assert "seed 2" in page.element("#caption-a").text, "the slow answer came later"
    page.no_errors(here.url)


def test_cancel_stops_a_run_and_a_mistake_is_told(browser: Any, here: Site) -> None:
    page = Page(browser, here.url)
    small(page, LONG)
    page.element("#submit").click()
    page.wait(lambda: any(one.text.startswith("step ") for one in page.elements("#jobs li .state")))
    page.element("#jobs li button[aria-label^=Cancel]").click()
    page.wait(lambda: page.element("#empty").is_displayed())
    page.wait(lambda: not here.service.running)
    assert here.service.store.unfinished() == []
    page.no_errors(here.url)
    page.fill("#width", "65")
    page.element("#submit").click()
    assert "width 65 is not a multiple of 16" in page.wait(lambda: page.element("#problem").text)


def test_it_works_by_keyboard_on_a_phone_light_and_dark(browser: Any, here: Site) -> None:
    from selenium.webdriver import ActionChains, Keys

    def mode(name: str) -> str:
        features = [{"name": "prefers-color-scheme", "value": name}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        return str(page.script("return getComputedStyle(document.body).backgroundColor"))

    phone = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page = Page(browser, here.url)
        small(page, 2)
        assert page.script("return document.documentElement.scrollWidth <= innerWidth"), (
            "nothing is wider than the screen"
        )
        assert mode("light") != mode("dark")
        page.element("#prompt").send_keys(", and back")
        keys, reached = ActionChains(browser), ["prompt"]
        for _ in range(14):
            keys.send_keys(Keys.TAB).perform()
            reached.append(page.script("return document.activeElement.id"))
            if reached[-1] == "submit":
                break
        assert reached[-1] == "submit", reached
        assert {"prompt", "width", "seed", "backend-a", "policy-a", "compare"} <= set(reached)
        assert page.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        keys.send_keys(Keys.ENTER).perform()
        page.wait(lambda: page.element("#viewer").is_displayed())
        fields = page.elements("input, select, textarea, progress")
        assert [one.get_attribute("id") for one in fields if one.is_displayed() and not one.accessible_name] == [], (
            "every field has a name"
        )
        page.no_errors(here.url)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_key_is_asked_for(browser: Any, generator: VideoGenerator, tmp_path: Path) -> None:
    with site(generator, tmp_path / "keyed", key="a-key-of-mine", works=False) as keyed:
        page = Page(browser, keyed.url)
        page.fill("#key", "a-key-of-mine")
        page.element("#key-form button").click()
        page.wait(lambda: page.element("#model").text == "tiny")
        assert not page.element("#key-form").is_displayed()
