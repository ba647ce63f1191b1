"""The `metarec` command in this process."""

import json
from pathlib import Path

import pytest

from metarec_jax.cli import evaluate, main
from metarec_jax.evaluation.budget import Budget


@pytest.fixture
def empty_folder(monkeypatch, tmp_path):
    """A working folder that starts empty."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


QUICK = Budget(((1, 0.1),), item_shrinks=(5.0,), user_shrinks=(5.0,), penalties=(3.0,), samples=10, plots=False)
"""One value of what is tuned, few resamples of test users, and no plots."""


@pytest.fixture
def quick():
    """The budget of a quick evaluation."""
    return QUICK


@pytest.fixture
def evaluated(capsys):
    """Runs `metarec evaluate` quickly; returns its stdout."""

    def run(*arguments: object) -> str:
        assert evaluate.carry_out(evaluate.requested([str(argument) for argument in arguments]), budget=QUICK) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def contents():
    """Every file below a folder, with the time of its last change."""
    return _contents


@pytest.fixture
def metarec(capsys):
    """Runs a command; returns its status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # tyro's own errors, and --help
            status = stop.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


@pytest.fixture
def refused(metarec):
    """Runs a command that must be refused without writing anything; returns the one message."""

    def run(*arguments: object) -> str:
        before = _contents(Path.cwd())
        status, out, err = metarec(*arguments)
        assert (status, out) == (2, "")
        messages = [line for line in err.splitlines() if line.startswith("metarec: ")]
        assert len(messages) == 1
        assert _contents(Path.cwd()) == before
        return err[err.index("metarec: ") + len("metarec: ") :].strip()

    return run


@pytest.fixture
def printed_json(metarec):
    """Runs a command that must succeed and print JSON alone; returns what it printed."""

    def run(*arguments: object) -> dict:
        status, out, err = metarec(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)

    return run


def _contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in folder.rglob("*")}
