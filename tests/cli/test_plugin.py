"""Kinds of one's own: the guide's module, used by every command from a folder that is not the package's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quick import quick_flags

GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"
SMALL = ("--train.epochs", 2, "--updater.steps", 2, "--learner.user-side", "none", "--factors.rank", 0)
OWN = {
    "learner": ("--learner.kind", "linear", "--learner.scale", 0.5, "--updater.adapted", "output/.*"),
    "updater": ("--updater.kind", "soft-sign", "--updater.softness", 0.2),
    "head": ("--learner.head", "huber"),
    "source": ("--data.source", "triples", "--data.path", "ratings.txt"),
    "split": ("--split.kind", "first-users"),
    "encoder": ("--encoder.path", "tiny"),
}

WANDB = """
import json, pathlib

def init(**options):
    run = Run()
    run.write({name: str(value) for name, value in options.items()})
    return run

class Run:
    def write(self, line):
        with pathlib.Path("wandb.jsonl").open("a") as file:
            file.write(json.dumps(line) + chr(10))

    def log(self, metrics, step=None):
        self.write({"step": step, **metrics})

    def finish(self):
        self.write({"finished": True})
"""
"""A module with the functions of wandb that the guide calls, which writes what it is told into a file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the guide's module, and ratings in its format."""
    made = tmp_path_factory.mktemp("elsewhere")
    code, tracker = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (made / "my_kinds.py").write_text(code, encoding="utf-8")
    (made / "my_trackers.py").write_text(tracker, encoding="utf-8")
    (made / "wandb.py").write_text(WANDB, encoding="utf-8")
    rng = np.random.default_rng(0)
    lines = [
        f"u{user} i{item} {rng.integers(1, 6)}" for user in range(60) for item in rng.choice(40, size=20, replace=False)
    ]
    (made / "ratings.txt").write_text("\n".join(lines), encoding="utf-8")
    return made


def metarec(folder, *arguments):
    """(exit status, stdout, stderr) of a real command in that folder."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": quick_flags(),
        "METAREC_CACHE": os.environ["METAREC_CACHE"],
        "PYTHONPATH": str(GUIDE.parents[1]),
    }
    command = [sys.executable, "-m", "metarec_jax", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(folder):
    """A run that is made of the six kinds."""
    options = [option for options in OWN.values() for option in options]
    plugins = ("--plugin", "my_kinds", "--plugin", "my_trackers", "--tracker", "wandb")
    status, _, errors = metarec(folder, "train", *plugins, *options, *SMALL, "--out", "run")
    assert status == 0, errors
    return folder / "run"


def test_the_first_command_of_the_guide_has_the_options_of_a_run_that_is_trained_here():
    (command,) = re.findall(r"^    metarec train --plugin my_kinds (.*) --out", GUIDE.read_text(), flags=re.MULTILINE)
    assert shlex.split(command) == [str(option) for option in OWN["learner"]]


def test_a_run_of_six_own_kinds_keeps_their_choices_and_the_module(run):
    config = json.loads((run / "config.json").read_text())
    assert config["plugins"] == ["my_kinds"]
    assert (config["learner"]["kind"], config["learner"]["scale"]) == ("linear", 0.5)
    assert (config["updater"]["kind"], config["updater"]["softness"]) == ("soft-sign", 0.2)
    assert (config["learner"]["head"], config["encoder"]["path"]) == ("huber", "tiny")
    assert (config["data"]["source"], config["split"]["kind"]) == ("triples", "first-users")


def test_the_tracker_of_the_guide_gets_the_lines_of_metrics(run):
    begun, *lines, ended = map(json.loads, (run.parent / "wandb.jsonl").read_text().splitlines())
    assert (begun["id"], begun["dir"]) == ("run", str(run))
    assert "'kind': 'linear'" in begun["config"]
    metrics = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    assert [line["train_loss"] for line in lines] == [line["train_loss"] for line in metrics]
    assert [line["seconds/steps"] for line in lines] == [line["seconds"]["steps"] for line in metrics]
    assert ended == {"finished": True}


@pytest.mark.parametrize(
    "command",
    [
        ("recommend", "run", "--rate", "id:i1=5", "--json"),
        ("evaluate", "run", "--json"),
        ("train", "--resume", "run", "--json"),
        ("export", "run", "--out", "exported"),
    ],
    ids=lambda command: command[0],
)
def test_commands_work_with_it(run, command):
    status, output, errors = metarec(run.parent, *command, "--plugin", "my_kinds")
    assert status == 0, errors
    assert output


def test_without_the_plugin_a_run_says_which_it_needs(run):
    status, _, errors = metarec(run.parent, "recommend", "run", "--rate", "id:i1=5")
    assert status == 2
    for name in ("run", "'my_kinds'", "--plugin my_kinds", "import my_kinds"):
        assert name in errors
    assert "Traceback" not in errors


def test_a_run_folder_loads_no_module(run, tmp_path):
    """Whatever it names: only the user's own word loads code."""
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()")
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "run").mkdir()
    for file in run.iterdir():
        if file.is_file():
            (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"plugins": ["evil"]}))
    status, _, errors = metarec(tmp_path, "recommend", "run", "--rate", "id:i1=5")
    assert status == 2
    assert "--plugin evil" in errors
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("absent_module", ["--plugin absent_module", "no module 'absent_module'"]),
        ("broken", ["--plugin broken", "fails when it is imported", "division by zero"]),
        ("twice", ["learner.kind 'mlp' is registered already"]),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(tmp_path, module, names):
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "twice.py").write_text(
        "from metarec_jax.core.kinds import LEARNERS\nLEARNERS.register('mlp')(object())\n"
    )
    status, _, errors = metarec(tmp_path, "doctor", "--plugin", module)
    assert status == 2
    for name in names:
        assert name in errors
    assert "Traceback" not in errors
