"""The environment that is written beside a result."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from metarec_jax.core import environment as source
from metarec_jax.core.environment import PACKAGES, command, environment, summary


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


def test_packages_are_named_with_their_version_and_rivals_where_they_are_installed(tmp_path, monkeypatch):
    for name, version in (("jax", "1.2.3"), ("higher", "0.1"), ("some-other-package", "7")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    installed = {"jax": "1.2.3", "higher": "0.1"}
    assert environment()["packages"] == {name: installed.get(name) for name in (*PACKAGES, "higher")}


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


def git_of(file):
    """The commit that the environment names where its module lies in `file`."""
    spec = importlib.util.spec_from_file_location("environment_elsewhere", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.environment()["git"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_is_the_commit_of_the_checkout_that_tracks_the_code(tmp_path):
    code = tmp_path / "repository" / "core" / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text(Path(source.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    # Outside of a repository, and in a repository that does not track the code, there is no commit to name.
    assert git_of(code) is None

    def git(*arguments):
        names = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        return subprocess.run(
            ["git", "-C", str(code.parents[1]), *names, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "before")
    assert git_of(code) is None
    git("add", "core/environment.py")
    git("commit", "-m", "tracked")
    assert git_of(code) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    with code.open("a", encoding="utf-8") as file:
        file.write("\n")
    assert git_of(code) == {"commit": git("rev-parse", "HEAD"), "changed": True}


def test_no_git_program_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["git"] is None


def test_summary_names_the_commit_only_where_there_is_one():
    found = environment()
    assert "commit" not in summary({**found, "git": None})
    text = summary({**found, "git": {"commit": "0123456789abcdef", "changed": True}})
    assert "at commit 0123456789 with changes" in text
    assert f"jax {jax.__version__} on " in text
