"""`metarec evaluate` and `metarec demo`; the evaluation itself is tested elsewhere, and a small table stands for it."""

import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import training
from trained import small_config, small_data, trained_run

from metarec_jax.cli import demo, main
from metarec_jax.evaluation import experiment, methods
from metarec_jax.evaluation.report import SeedResult, build_table
from metarec_jax.meta.user import Trainable
from metarec_jax.metrics.metrics import UserValues
from metarec_jax.recommender.recommender import Rated
from metarec_jax.train import run_folder
from metarec_jax.train.checkpoints import Progress
from metarec_jax.train.loop import Fitted


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the evaluation is asked for; it answers with a table of two methods."""
    calls = []

    def evaluate(config, *, seeds, folder, run, reporter, metrics="own"):
        calls.append(types.SimpleNamespace(config=config, seeds=list(seeds), folder=folder, run=run, metrics=metrics))

        def result(error):
            return SeedResult(0, np.arange(2), {"mae": UserValues(np.array([error, error]), np.ones(2))})

        results = {"rule": [result(0.8)], "ours": [result(0.7)]}
        return {"new users": build_table(results, title="Small", protocol="two users")}

    monkeypatch.setattr(experiment, "evaluate", evaluate)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_run_is_evaluated_with_its_own_config(asked, capsys):
    assert main.main(["evaluate", str(trained_run()), "--seeds", "3"]) == 0
    (call,) = asked
    assert call.config == small_config()
    assert call.seeds == [0, 1, 2]
    assert call.folder == call.run.folder == trained_run()
    out, err = capsys.readouterr()
    assert "ours" in out
    assert ".700" in out
    assert err == f"tables and plots: {trained_run()}\n"


def test_a_protocol_is_run_on_many_seeds(asked, capsys):
    arguments = ["--protocol", "recbole-metarec", "--seed", "7", "--updater.steps", "2", "--json"]
    assert main.main(["evaluate", *arguments]) == 0
    (call,) = asked
    assert call.run is None
    assert call.seeds == list(range(7, 27))
    assert call.config.updater.steps == 2
    assert call.config.episodes.max_ratings == 100
    assert call.folder == Path("runs/recbole-metarec")
    tree = json.loads(capsys.readouterr().out)
    assert [method["name"] for method in tree["methods"]] == ["rule", "ours"]


@pytest.mark.parametrize(("protocol", "most"), [("melu", 100), ("tallrec", 0), ("few-shot", 0), ("time", 0)])
def test_every_protocol_has_its_division_and_its_folder(asked, protocol, most):
    assert main.main(["evaluate", "--protocol", protocol, "--seeds", "2", "--metrics", "melu"]) == 0
    (call,) = asked
    assert call.config.split.kind == protocol
    assert (call.config.episodes.query, call.config.episodes.max_ratings) == (10, most)
    assert call.folder == Path("runs") / protocol
    assert call.metrics == "melu"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "melu", "--split.kind", "users"], "protocol melu has split.kind melu, and not users"),
        (["--protocol", "melu", "--episodes.query", "5"], "protocol melu has episodes.query 10, and not 5"),
        (
            ["--protocol", "time", "--episodes.max-ratings", "90"],
            "episodes.max_ratings 0, and not 90",
        ),
        (
            ["--metrics", "mine"],
            "no metrics are called 'mine'; there are own, melu, recbole",
        ),
        (["--split.supports", "3", "1"], "split.supports is (3, 1); it must be ascending"),
    ],
)
def test_options_that_contradict_a_protocol_are_refused(asked, capsys, arguments, words):
    assert main.main(["evaluate", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert asked == []


def test_an_interrupted_evaluation_says_that_it_can_go_on(asked, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "evaluate", interrupted)
    assert main.main(["evaluate", str(trained_run()), "--out", "here"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "what is done is kept in here: the same command goes on from there\nmetarec: stopped\n"


@pytest.fixture
def instant_training(monkeypatch):
    """Training that copies the small trained run."""

    def start(config, folder, *, reporter):
        shutil.copytree(trained_run(), folder)
        return run_folder.open_run(folder), types.SimpleNamespace(data=small_data())

    fitted = Fitted(Trainable({}, {}), Progress.at_start(), interrupted=False)
    monkeypatch.setattr(demo, "start", start)
    monkeypatch.setattr(demo, "fit", lambda run, experiment, *, reporter: fitted)
    monkeypatch.setattr(demo, "NEWCOMER", (Rated("id:3", 5), Rated("id:4", 1)))


def test_the_demo_ends_with_tables_lists_plots_and_commands_and_keeps_earlier_runs(asked, instant_training, capsys):
    for folder in ("runs/demo", "runs/demo-2"):
        assert main.main(["demo", "--seed", "0"]) == 0
        out, err = capsys.readouterr()
        assert (Path(folder) / "plots" / "training.png").stat().st_size > 1000
        assert f"{folder}/plots/training.png" in out
        assert out.index("Small") < out.index("A new user rated") < out.index("Recommended") < out.index("Try next:")
        commands = [line.strip() for line in out.splitlines() if line.startswith("  metarec ")]
        assert len(commands) == 3
        assert all(folder in command for command in commands)
        lists = out[out.index("before: knowing nothing") : out.index("Plots:")]
        assert sum(line.split()[:1] == [str(n)] for n in range(1, 11) for line in lists.splitlines()) == 10
    assert "runs/demo is there already and is kept: this run goes to runs/demo-2" in err


def test_of_clicks_there_are_rules_too_and_the_table_has_them(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    chance = np.arange(1, 61) ** -0.8
    clicks = [(u, i) for u in range(40) for i in rng.choice(60, 8, replace=False, p=chance / chance.sum())]
    (tmp_path / "clicks.csv").write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in clicks))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "FINE_TUNING", ((1, 0.1),))
    options = {
        "protocol": "recbole-metarec", "seeds": 1, "data.path": "clicks.csv", "data.source": "table",
        "data.kind": "click", "data.columns.rating": "", "data.columns.time": "", "data.negatives": 1,
        "data.negatives-popularity": 0, "data.cache": "cache", "encoder.path": "random", "factors.rank": 0,
        "learner.hidden": 4, "updater.steps": 1, "train.epochs": 1, "out": "found",
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with training.compiled_once():
        assert main.main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    for rule in ("constant, random order", "popularity", "item click rate"):
        assert rule in printed
    tree = json.loads((tmp_path / "found" / "tables" / "evaluation.json").read_text())
    rows = {row["name"]: row["metrics"] for row in tree["methods"]}
    assert rows["constant, random order"]["auc"]["mean"] == 0.5
    assert rows["popularity"]["auc"]["mean"] > 0.5
    assert rows["item click rate"]["auc"]["mean"] > 0.5
    ours = next(row for row in tree["methods"] if row["name"] == "meta-learned")
    assert {"item click rate", "meta-learned, before adapting"} <= set(ours["differences"])
