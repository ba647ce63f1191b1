"""The wheel works without the checkout: in an environment of its own, from another folder, with the locked versions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SECONDS = 1800
DEMO = re.findall(r"^DEMO := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)[0].split()


def outside() -> dict[str, str]:
    """Variables of a process that knows nothing of the checkout."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "METAREC"))}
    return own | {"JAX_PLATFORMS": "cpu"}


def run(*command: object, folder: Path) -> subprocess.CompletedProcess:
    """Run a command in a folder."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder, env=outside(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder in which nothing of the checkout is."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def installed(tmp_path_factory, work):
    """The programs of an environment with the wheel."""
    place = tmp_path_factory.mktemp("wheel")
    built = run("make", "dist", f"PYTHON={sys.executable}", f"DIST={place / 'dist'}", folder=ROOT)
    without_network(built)
    (wheel,) = (place / "dist").glob("*.whl")
    assert run(sys.executable, "-m", "venv", place / "env", folder=work).returncode == 0
    pip = [place / "env" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    for what in (["--constraint", ROOT / "constraints.txt", f"{wheel}[serve]"], ["--no-deps", *DEMO]):
        without_network(run(*pip, *what, folder=work))
    return place / "env" / "bin"


def without_network(done: subprocess.CompletedProcess) -> None:
    """Skip where packages cannot be downloaded; any other failure of an installation is one of the test."""
    reasons = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "Temporary failure in name resolution")
    if done.returncode and any(reason in done.stderr for reason in reasons):
        pytest.skip(f"packages cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def test_the_package_is_that_of_the_wheel(installed, work):
    code = "import metarec_jax, pathlib; print(pathlib.Path(metarec_jax.__file__).parent)"
    done = run(installed / "python", "-c", code, folder=work)
    package = Path(done.stdout.strip())
    assert installed.parent in package.parents
    assert (package / "py.typed").exists()
    assert not (package.parent / "tests").exists()
    version = run(installed / "metarec", "--version", folder=work).stdout
    assert re.fullmatch(r"metarec_jax \d+\.\d+\.\d+\n", version)


def test_a_run_is_trained_evaluated_and_recommends(installed, work):
    small = ["--preset", "synthetic", "--train.epochs", "1", "--updater.steps", "1", "--out", "run"]
    for command in (["train", *small], ["evaluate", "run"], ["recommend", "run", "--rate", "id:1=5", "--json"]):
        done = run(installed / "metarec", *command, folder=work)
        assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["recommended"]) > 1
    assert "## Metrics" in (work / "run" / "card.md").read_text()
    page_is_served(installed, work)
    example_runs_on_the_export(installed, work)


def example_runs_on_the_export(installed: Path, work: Path) -> None:
    """Export the run, and recommend from the folder by the example, which is copied out of the checkout."""
    assert run(installed / "metarec", "export", "run", "--out", "device", folder=work).returncode == 0
    shutil.copyfile(ROOT / "examples" / "on_device.py", work / "on_device.py")
    command = ["on_device.py", "device", "--rate", "id:1=5", "-k", "3", "--json"]
    done = run(installed / "python", *command, folder=work)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3


def page_is_served(installed: Path, work: Path) -> None:
    """Start the service of the run, ask for its page and a list, and stop it."""
    with (work / "log").open("w") as log:
        service = subprocess.Popen(
            [installed / "metarec", "serve", "run", "--port", "0"],
            cwd=work, env=outside(), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        end = time.monotonic() + SECONDS
        while not (found := re.search(r"http://\S+:[1-9]\d*/", (work / "log").read_text())):
            assert service.poll() is None, (work / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        page = urllib.request.urlopen(found[0], timeout=60).read().decode()
        assert "<html" in page
        scripts = re.findall(r'(?:src|href)="([\w./-]+\.(?:js|css))"', page)
        assert scripts
        for path in scripts:
            assert urllib.request.urlopen(f"{found[0]}{path.lstrip('/')}", timeout=60).status == 200
        body = json.dumps({"history": [{"item": "1", "rating": 5}], "k": 3}).encode()
        request = urllib.request.Request(f"{found[0]}recommend", body, {"content-type": "application/json"})
        assert urllib.request.urlopen(request, timeout=60).status == 200
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 128 + signal.SIGTERM


def test_the_demo_runs(installed, work):
    done = run(installed / "metarec", "demo", "--out", "demo", folder=work)
    assert done.returncode == 0, done.stderr
    assert all(line in done.stdout for line in ("meta-learned", "Recommended", "Run folder: demo"))


def test_the_example_of_the_readme_runs(installed, work):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    done = run(installed / "python", "-c", example, folder=work)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1000"
