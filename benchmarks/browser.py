"""Chromium for tests and screenshots of the page; `python -m benchmarks.browser` installs it.

Playwright controls it. Debian's chromium is used where it is installed or apt-get can install it, otherwise
Playwright's own, which needs a download. Nothing is done if a browser is installed already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MINUTES = 4
"""Time limit of an installation, in seconds."""


class Browser(NamedTuple):
    """The path of a Chromium, or the reason why there is none."""

    path: str
    why_not: str = ""


def find() -> Browser:
    """Find an installed Chromium: ``$CHROMIUM``, the system's, or Playwright's."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return Browser("", "the package playwright is not installed: pip install 'metarec_jax[test]'")
    if named := os.environ.get("CHROMIUM"):
        return (
            Browser(named) if os.access(named, os.X_OK) else Browser("", f"$CHROMIUM is {named}, which cannot be run")
        )
    for name in NAMES:
        if found := shutil.which(name):
            return Browser(found)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if os.access(own, os.X_OK):
        return Browser(own)
    return Browser("", "there is no Chromium here, and `python -m benchmarks.browser` could install none")


def install() -> Browser:
    """Find an installed Chromium, and try to install one if there is none."""
    found = find()
    if found.path or "playwright" in found.why_not or "CHROMIUM" in found.why_not:
        return found
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    tries = []
    if shutil.which("apt-get"):
        tries.append([*as_root, "apt-get", "update", "-q"])
        tries.append([*as_root, "apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"])
    tries.append([sys.executable, "-m", "playwright", "install", "chromium"])
    for command in tries:
        try:
            subprocess.run(command, check=True, timeout=60 * MINUTES, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{' '.join(command)}: {error}", flush=True)
        found = find()
        if found.path:
            return found
    return found


if __name__ == "__main__":
    there = install()
    print(f"Chromium: {there.path}" if there.path else f"the tests of the page will be skipped: {there.why_not}")
    sys.exit(0 if there.path else 1)
