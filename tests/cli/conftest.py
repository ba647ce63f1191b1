"""The `metarec` command in this process."""

import functools
import json
import types
from pathlib import Path

import numpy as np
import pytest

from metarec_jax.cli import main
from metarec_jax.evaluation import evaluate as evaluation
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.table import SeedResult, build_table
from metarec_jax.metrics.metrics import UserValues


@pytest.fixture
def empty_folder(monkeypatch, tmp_path):
    """A working folder that starts empty, and a cache folder beside it."""
    monkeypatch.setenv("METAREC_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def asked(monkeypatch, empty_folder):
    """What the evaluation is asked for; it answers with a table of two methods."""
    calls = []

    def evaluate(config, *, seeds, folder, run, reporter, metrics="own"):
        calls.append(types.SimpleNamespace(config=config, seeds=list(seeds), folder=folder, run=run, metrics=metrics))

        def result(error):
            return SeedResult(0, np.arange(2), {"mae": UserValues(np.array([error, error]), np.ones(2))})

        results = {"rule": [result(0.8)], "ours": [result(0.7)]}
        return {"new users": build_table(results, title="Small", protocol="two users")}

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    return calls


@pytest.fixture
def quick_evaluation(monkeypatch):
    """Evaluations try one value of what is tuned, draw nothing, and resample test users a few times."""
    budget = Budget(((1, 0.1),), item_shrinks=(5.0,), user_shrinks=(5.0,), penalties=(3.0,), samples=10, plots=False)
    monkeypatch.setattr(evaluation, "evaluate", functools.partial(evaluation.evaluate, budget=budget))


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
