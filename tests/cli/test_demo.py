"""`metarec demo`: what it prints at its end, and where it writes."""

import dataclasses
from pathlib import Path

from trained import small_config

from metarec_jax.cli import demo
from metarec_jax.cli.arguments import DEFAULT_CONFIG
from metarec_jax.evaluation import methods


def test_the_demo_ends_with_tables_lists_plots_and_commands(empty_folder, capsys, quick):
    folder = Path("runs/demo")
    assert demo.run_demo(small_config(), folder, new_user=(("id:3", 5.0), ("id:4", 1.0)), budget=quick) == 0
    out, _ = capsys.readouterr()
    assert (folder / "plots" / "training.png").stat().st_size > 1000
    assert f"{folder}/plots/training.png" in out
    assert out.index(methods.META) < out.index("A new user rated") < out.index("Recommended") < out.index("Try next:")
    commands = [line.strip() for line in out.splitlines() if line.startswith("  metarec ")]
    assert len(commands) == 3
    assert all(str(folder) in command for command in commands)
    lists = out[out.index("before: no ratings known") : out.index("Plots:")]
    assert sum(line.split()[:1] == [str(n)] for n in range(1, 11) for line in lists.splitlines()) == 10


def test_earlier_runs_are_kept(empty_folder, capsys):
    assert demo.requested(["--seed", "3"]) == (dataclasses.replace(DEFAULT_CONFIG, seed=3), Path("runs/demo"), False)
    Path("runs/demo").mkdir(parents=True)
    assert demo.requested(["--all"]) == (DEFAULT_CONFIG, Path("runs/demo-2"), True)
    assert capsys.readouterr().err == "runs/demo exists already and is kept: this run is written to runs/demo-2\n"
    assert demo.requested(["--out", "mine"]).folder == Path("mine")
