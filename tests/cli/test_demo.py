"""`metarec demo`: what it prints at its end, and where it writes; a small table stands for the evaluation."""

from pathlib import Path

from trained import small_config

from metarec_jax.cli import demo


def test_the_demo_ends_with_tables_lists_plots_and_commands(asked, capsys):
    folder = Path("runs/demo")
    assert demo.run_demo(small_config(), folder, new_user=(("id:3", 5.0), ("id:4", 1.0))) == 0
    out, _ = capsys.readouterr()
    (call,) = asked
    assert (call.seeds, call.folder) == ([small_config().seed], folder)
    assert (folder / "plots" / "training.png").stat().st_size > 1000
    assert f"{folder}/plots/training.png" in out
    assert out.index("Small") < out.index("A new user rated") < out.index("Recommended") < out.index("Try next:")
    commands = [line.strip() for line in out.splitlines() if line.startswith("  metarec ")]
    assert len(commands) == 3
    assert all(str(folder) in command for command in commands)
    lists = out[out.index("before: no ratings known") : out.index("Plots:")]
    assert sum(line.split()[:1] == [str(n)] for n in range(1, 11) for line in lists.splitlines()) == 10


def test_earlier_runs_are_kept(empty_folder, metarec, monkeypatch):
    asked = []

    def run_demo(config, folder, *, everything, reporter):
        folder.mkdir(parents=True)
        asked.append((config.seed, str(folder), everything))
        return 0

    monkeypatch.setattr(demo, "run_demo", run_demo)
    assert metarec("demo", "--seed", 3) == (0, "", "")
    assert metarec("demo", "--all")[2] == "runs/demo exists already and is kept: this run is written to runs/demo-2\n"
    assert metarec("demo", "--out", "mine")[0] == 0
    assert asked == [(3, "runs/demo", False), (0, "runs/demo-2", True), (0, "mine", False)]
