"""The environment that is written beside a result."""

import json
import os
import shutil
import subprocess
import sys
import types

import jax
import pytest

from metarec_jax.core import environment as module
from metarec_jax.core.environment import command, environment, summary


def test_environment_is_json_and_says_what_runs(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setenv("JAX_TEST_OF_FLAGS", "1")
    monkeypatch.setenv("SECRET_TOKEN", "no")
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["jax"] == jax.__version__
    assert found["packages"]["numpy"] is not None
    assert found["flags"]["JAX_TEST_OF_FLAGS"] == "1"
    assert "XLA_FLAGS" in found["flags"]
    assert "SECRET_TOKEN" not in found["flags"]
    assert sum(d["count"] for d in found["devices"]) == jax.device_count()
    assert found["cpu"]["usable"] >= 1
    assert found["date"].endswith("+00:00")


def test_a_package_that_is_not_installed_is_none(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("no-such-package", "jax"))
    monkeypatch.setattr(module, "RIVALS", ())
    assert environment()["packages"] == {"no-such-package": None, "jax": jax.__version__}


def test_rivals_are_named_where_they_are_installed(monkeypatch):
    monkeypatch.setattr(module, "RIVALS", ("no-such-package", "pytest"))
    packages = environment()["packages"]
    assert packages["pytest"] == pytest.__version__
    assert "no-such-package" not in packages


def test_threads_of_pytorch_are_told_where_it_runs_already(monkeypatch):
    """And it is imported for no other reason."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert "torch_threads" not in environment()
    assert "torch" not in sys.modules
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(get_num_threads=lambda: 3))
    assert environment()["torch_threads"] == 3


@pytest.mark.parametrize(
    ("started", "typed"),
    [
        (["/env/bin/python3", "/env/bin/metarec", "train", "--out", "my run"], "metarec train --out 'my run'"),
        (["/env/bin/python3", "-m", "metarec_jax.cli.main", "train"], "python3 -m metarec_jax.cli.main train"),
        (["python", "benchmarks/inner.py", "--users", "8"], "python benchmarks/inner.py --users 8"),
        (["/env/bin/python", "/home/me/bench.py"], "python bench.py"),
        (["/env/bin/python"], "python"),
    ],
)
def test_command_is_what_one_would_type(monkeypatch, started, typed):
    monkeypatch.setattr(sys, "orig_argv", started)
    assert command() == typed


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_is_the_commit_of_the_checkout_that_tracks_the_code(tmp_path, monkeypatch):
    code = tmp_path / "repository" / "core" / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text("first")
    monkeypatch.setattr(module, "__file__", str(code))
    # Outside of a repository, and in a repository that does not track the code, there is no commit to name.
    assert module._git() is None

    def git(*arguments):
        names = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        return subprocess.run(
            ["git", "-C", str(code.parent), *names, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "before")
    assert module._git() is None
    git("add", "environment.py")
    git("commit", "-m", "tracked")
    assert module._git() == {"commit": git("rev-parse", "HEAD"), "changed": False}
    code.write_text("second")
    assert module._git() == {"commit": git("rev-parse", "HEAD"), "changed": True}


def test_no_git_program_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert module._git() is None


def test_summary_names_the_commit_only_where_there_is_one():
    found = environment()
    assert "commit" not in summary({**found, "git": None})
    text = summary({**found, "git": {"commit": "0123456789abcdef", "changed": True}})
    assert "at commit 0123456789 with changes" in text
    assert f"jax {jax.__version__} on " in text
