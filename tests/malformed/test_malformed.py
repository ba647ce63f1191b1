"""No malformed input ends in a traceback or hangs: each is refused in one short message, or changes nothing.

Hundreds run in this process and a sample as real commands; in `make test-all` every case runs as a real command.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from malformed_cases import Case, cases, quick_cases
from malformed_inputs import inputs

from metarec_jax.cli import main

SECONDS = 20
"""Longest time of a case in this process."""
MOST_CHARACTERS = 3000
SAMPLE = sorted(random.Random(0).sample(sorted(quick_cases()), 20))


class TooSlow(BaseException):
    """Raised in a case that does not end; nothing of the package catches it."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A copy of the valid inputs, as the working folder."""
    shutil.copytree(inputs(), tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def damaged(case: Case, place: Path) -> None:
    if case.file:
        case.damage(place / case.file)


def assert_refused(case: Case, status: object, err: str) -> None:
    """One message names what is wrong; a case without names may also succeed."""
    assert "Traceback" not in err
    if status == 0:
        assert not case.names, "it was not noticed"
        return
    assert status == 2
    messages = [line for line in err.splitlines() if line.startswith("metarec: ")]
    from_parser = any(
        word in err for word in ("Error parsing", "Parsing error", "Value error", "Unrecognized", "usage:")
    )
    assert len(messages) == 1 or (not messages and from_parser), err[-2000:]
    if messages:
        message = err[err.index("metarec: ") :]
        assert len(message) < MOST_CHARACTERS
        missing = [name for name in case.names if name not in message]
        assert not missing, f"{missing} not in {message!r}"


@pytest.mark.parametrize("name", quick_cases())
def test_in_this_process(name, place, capsys):
    case = cases()[name]
    damaged(case, place)

    def stop(number, frame):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        status = main.main(list(case.arguments))
    except SystemExit as error:  # the parser's own errors
        status = error.code
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert_refused(case, status, capsys.readouterr().err)


def as_command(name: str, place: Path) -> None:
    case = cases()[name]
    damaged(case, place)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "metarec_jax", *case.arguments],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert_refused(case, done.returncode, done.stderr)


@pytest.mark.parametrize("name", SAMPLE)
def test_as_a_command(name, place):
    as_command(name, place)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in cases() if name not in SAMPLE])
def test_each_as_a_command(name, place):
    as_command(name, place)
