"""Draw the pictures anew: python tools/screenshots.py (needs Chromium and its driver: CHROMIUM, CHROMEDRIVER)."""

from __future__ import annotations

import html
import os
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs" / "images"
PROMPTS = (
    "a red circle moving left on a white background",
    "a green triangle moving up on a black background",
    "a blue cross moving right on a gray background",
)
BENCH = ("--model", "shapes", "--cache", "none,TEACACHE@0.2,TEACACHE@0.4", "--page-videos", "2")
STYLE = "margin:0;padding:18px 22px;color:#e4e4ef;font:14px/1.45 'DejaVu Sans Mono',monospace;white-space:pre-wrap"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command, width in (("plugins", 1060), ("doctor", 1300)):
            printed = fv(command)
            lines = sum(1 + len(line) * 9 // width for line in printed.splitlines()) + 1
            page = folder / f"{command}.html"
            page.write_text(
                f'<body style="margin:0;background:#1e1e2e"><pre style="{STYLE}">'
                f'<span style="color:#94e2d5">$ fv {command}</span>\n{html.escape(printed)}</pre></body>'
            )
            draw(page, IMAGES / f"{command}.png", width, 40 + 21 * lines, folder)
        (folder / "prompts.txt").write_text("\n".join(PROMPTS))
        fv("bench", *BENCH, "--prompts", str(folder / "prompts.txt"), "--output", str(folder / "bench"))
        draw_service(IMAGES / "serve.png", folder)
        draw(folder / "bench" / "page.html", IMAGES / "bench.png", 1130, 1260, folder)


def draw_service(picture: Path, folder: Path) -> None:
    """The page of `fv serve`, with two settings side by side."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    command = [sys.executable, "-m", "fastvideo_core", "serve", "--port", "0", "--output", str(folder / "served")]
    with subprocess.Popen([*command, "--frames", "17"], stdout=subprocess.PIPE, text=True) as server:
        options = webdriver.ChromeOptions()
        options.binary_location = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(argument)
        # Without its path, Selenium looks for a driver on the internet.
        driver = webdriver.ChromeService(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
        browser = webdriver.Chrome(options, driver)
        try:
            assert server.stdout is not None
            browser.get(server.stdout.readline().split()[2].rstrip(";"))
            browser.set_window_size(1200, 1000)
            WebDriverWait(browser, 60).until(lambda _: browser.find_element("id", "model").text)
            browser.find_element("id", "prompt").send_keys(PROMPTS[0])
            browser.find_element("id", "compare").click()
            browser.execute_script("document.getElementById('policy-b').value = 'TEACACHE'")
            browser.find_element("id", "value-b").send_keys("0.4")
            browser.find_element("id", "submit").click()
            WebDriverWait(browser, 300).until(lambda _: browser.find_element("id", "difference").text)
            browser.execute_script("document.getElementById('time').value = 0.5")
            script = "document.getElementById('time').dispatchEvent(new Event('input')); scrollTo(0, 0)"
            browser.execute_script(script)
            WebDriverWait(browser, 10, 1).until(lambda _: browser.find_element("id", "play").text == "Play")
            browser.save_screenshot(str(picture))
        finally:
            browser.quit()
            server.terminate()


def fv(*arguments: str) -> str:
    command = [sys.executable, "-m", "fastvideo_core", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def draw(page: Path, picture: Path, width: int, height: int, folder: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    options += [f"--user-data-dir={folder / picture.stem}", f"--window-size={width},{height}"]
    options += ["--virtual-time-budget=4000", f"--screenshot={picture}", page.as_uri()]
    subprocess.run([os.environ.get("CHROMIUM", "chromium"), *options], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
