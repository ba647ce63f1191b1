"""Screenshots of the page for the README: `python -m benchmarks.screenshots RUN --out docs/images`.

The run is served on a free port with a separate store. Simulated test users fill the dashboard, and a new user rates a
few films.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import browser
from metarec_jax.core.errors import MetarecError
from metarec_jax.serving.simulate import Client, Habits, held_out, simulate
from metarec_jax.train import catalogue, run_folder

RATED = (("Alien (1979)", 5), ("Blade Runner (1982)", 5), ("Star Wars (1977)", 4), ("Pretty Woman (1990)", 1))
SIZE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--users", type=int, default=25, help="simulated users of the dashboard")
    chosen = parser.parse_args()
    found = browser.find()
    if not found.path:
        print(f"no pictures: {found.why_not}", file=sys.stderr)
        return 1
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "metarec_jax", "serve", str(chosen.run), "--port", "0", "--together", "1"]
        clean = {name: value for name, value in os.environ.items() if name != "METAREC_TOKEN"}
        served = subprocess.Popen([*command, "--store", store], env=clean, stdout=subprocess.PIPE, text=True)
        try:
            assert served.stdout is not None
            line = served.stdout.readline()
            if not line.startswith("serving "):
                return 1  # the error is printed already
            address = line.split()[-1]
            run = run_folder.open_run(chosen.run)
            try:
                people = held_out(run.config)[: chosen.users]
                simulate(Client(address), people, catalogue.load(run).scale, habits=Habits(lists=4))
            except MetarecError as error:
                print(f"the dashboard has little to show: {error}", file=sys.stderr)
            _pictures(found.path, address, chosen.out)
        finally:
            served.terminate()
            served.wait(60)
    for path in sorted(chosen.out.glob("page-*.png")):
        print(f"{path} {path.stat().st_size / 1000:.0f} kB")
    return 0


def _pictures(chromium: str, address: str, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = started.new_context(viewport=SIZE, color_scheme="light", reduced_motion="reduce")  # type: ignore[arg-type]
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(address)
        page.locator(".card").first.wait_for()

        def picture(name: str) -> None:
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement.blur()")
            page.screenshot(path=out / f"page-{name}.png")

        for title, rating in RATED:
            _rate(page, title, rating)
        page.get_by_role("searchbox").fill("")
        page.get_by_text("Rated most often").wait_for()
        _until(page, "[...document.querySelectorAll('.reason')].some((one) => one.textContent)")
        picture("list")
        page.get_by_role("button", name="Before / after").click()
        picture("before-after")
        page.get_by_role("button", name="List", exact=True).click()
        page.get_by_role("button", name="Ask me").click()
        page.locator("#asking-title").wait_for()
        page.emulate_media(color_scheme="dark")
        picture("ask-dark")
        page.get_by_role("button", name="Enough").click()
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.evaluate("scrollTo(0, 330)")
        page.wait_for_timeout(300)
        picture("phone-dark")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        page.get_by_role("link", name="Dashboard").click()
        page.locator("svg.chart").first.wait_for()
        page.set_viewport_size({"width": SIZE["width"], "height": page.evaluate("document.body.scrollHeight")})
        picture("dashboard")
        started.close()


def _rate(page: Any, title: str, rating: int) -> None:
    page.get_by_role("searchbox").fill(title)
    _until(page, "document.querySelector('#found-note').textContent.includes('found')")
    row = page.locator("#found li", has_text=title).first
    row.locator(".stars label").nth(rating - 1).click()
    page.wait_for_timeout(400)  # the delay before a rating is sent, see stars.js
    _until(page, "!document.querySelector('[aria-busy]')")


def _until(page: Any, condition: str) -> None:
    """Wait for a condition; Playwright's own function uses eval, which the page's policy forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise MetarecError(f"the page never satisfied {condition}")


if __name__ == "__main__":
    sys.exit(main())
