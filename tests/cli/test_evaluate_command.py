"""`metarec evaluate`: what its options ask for, and the tables that it prints."""

import dataclasses
import io
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rich.console
from trained import trained_run

from metarec_jax.cli import evaluate, main
from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation import methods
from metarec_jax.evaluation.metric_sets import MODES
from metarec_jax.evaluation.report import print_tables
from metarec_jax.evaluation.table import SeedResult, build_table
from metarec_jax.evaluation.text_table import number
from metarec_jax.evaluation.write_results import HEADLINE, REFERENCES
from metarec_jax.metrics.metrics import DEFAULT_METRICS, UserValues
from metarec_jax.train.run_folder import open_run

METHODS = (
    methods.ITEM, methods.BIAS, methods.NEAREST, methods.RIDGE, methods.CLOSED, *methods.TWINS, methods.BEFORE,
    methods.META,
)  # fmt: skip


@pytest.fixture(scope="module")
def table():
    """An evaluation of three seeds with many methods and all metrics, as `metarec evaluate` makes it."""
    results = {}
    for n, method in enumerate(METHODS):
        rng = np.random.default_rng(n)
        results[method] = [
            SeedResult(
                seed,
                np.arange(30),
                {name: UserValues(rng.random(30) + 0.6, np.ones(30)) for name in DEFAULT_METRICS},
                {"auc_global": rng.random()},
            )
            for seed in range(3)
        ]
    made = build_table(
        results,
        title="3 seeds",
        protocol="a sentence about the users and about what is support and query, which is longer than a line " * 2,
        references=[name for name in REFERENCES if name in results],
        subject=methods.META,
        samples=50,
    )
    return dataclasses.replace(made, headline_metrics=MODES["own"].headline, headline_methods=HEADLINE)


def lines_of(tables, width, terminal, *, everything=False):
    """What is printed, without the colours."""
    file = io.StringIO()
    print_tables(tables, rich.console.Console(file=file, width=width, force_terminal=terminal), everything=everything)
    return re.sub(r"\x1b\[[\d;]*m", "", file.getvalue()).splitlines()


@pytest.mark.parametrize(("width", "terminal"), [(100, True), (60, True), (40, False), (300, False)])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("scenarios", [("new users",), ("warm users, warm items", "cold users, cold items", "both")])
def test_tables_fit_the_terminal_and_a_file_has_100_columns(table, width, terminal, everything, scenarios):
    lines = lines_of(dict.fromkeys(scenarios, table), width, terminal, everything=everything)
    assert max(map(len, lines)) <= (width if terminal else 100)
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    if width >= 100 and not everything:  # no label is folded
        labels = {re.split(r"\s{2,}", line.strip())[0] for line in lines}
        assert labels & set(METHODS) == set(METHODS) & set(HEADLINE)
    for row in table.rows:
        for m in table.metrics if len(scenarios) == 1 else ():
            cell = f"{number(row.cells[m.name].mean)} ±{number(row.cells[m.name].sd)}"
            if everything or (row.method in HEADLINE and m.name in table.headline_metrics):
                assert cell in text
    assert ("--all prints all of them" in text) != everything


def test_headlines_are_a_single_table_and_its_differences_in_100_columns(table):
    lines = lines_of({"new users": table}, 100, True)
    assert [line.split() for line in lines if line.startswith(("3 seeds", "meta-learned:"))] == [
        ["3", "seeds"], ["meta-learned:", "difference", "from"],
    ]  # fmt: skip
    (header,) = (line for line in lines if line.split()[:1] == ["method"])
    assert header.split() == ["method", "MAE", "↓", "RMSE", "↓", "nDCG@5", "↑", "AUC", "↑"]
    assert lines[-1] == "- 4 of 10 methods and 4 of 13 metrics are shown; --all prints all of them"


def test_every_set_of_metrics_has_headlines_of_its_own():
    for name, counted in MODES.items():
        assert 0 < len(counted.headline) <= 4, name
        assert set(counted.headline) <= set(counted.metrics)


def test_a_run_is_evaluated_with_its_own_config():
    wanted = evaluate.requested([str(trained_run()), "--seeds", "3"])
    assert wanted.config == open_run(trained_run()).config
    assert list(wanted.seeds) == [0, 1, 2]
    assert wanted.folder == wanted.run.folder == trained_run()


def test_a_protocol_is_run_on_many_seeds():
    arguments = ["--protocol", "recbole-metarec", "--seed", "7", "--updater.steps", "2", "--json"]
    wanted = evaluate.requested(arguments)
    assert wanted.run is None
    assert list(wanted.seeds) == list(range(7, 27))
    assert wanted.config.updater.steps == 2
    assert wanted.config.episodes.max_ratings == 100
    assert wanted.folder == Path("runs/recbole-metarec")
    assert (wanted.json, wanted.everything) == (True, False)


def test_parts_divide_the_seeds():
    def of(part):
        return list(evaluate.requested(["--protocol", "melu", "--seeds", "5", "--part", part]).seeds)

    assert [of("1/2"), of("2/2"), of("5/5")] == [[0, 2, 4], [1, 3], [4]]
    with pytest.raises(MetarecError, match="--part 1/6: there are 5 seeds to divide, so give at most 5 parts"):
        of("1/6")
    with pytest.raises(MetarecError, match="none of the 2 parts"):
        of("3/2")


@pytest.mark.parametrize(("protocol", "most"), [("melu", 100), ("tallrec", 0), ("few-shot", 0), ("time", 0)])
def test_every_protocol_has_its_division_and_its_folder(protocol, most):
    wanted = evaluate.requested(["--protocol", protocol, "--seeds", "2", "--metrics", "melu"])
    assert wanted.config.split.kind == protocol
    assert (wanted.config.episodes.query, wanted.config.episodes.max_ratings) == (10, most)
    assert wanted.config.episodes.buckets == ((16, 20) if protocol == "few-shot" else (16, 32, 90))
    assert wanted.folder == Path("runs") / protocol
    assert wanted.metrics == "melu"


@pytest.fixture
def listening():
    """Ctrl-C interrupts, as in a terminal; a process that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_an_interrupted_evaluation_says_that_it_can_go_on(listening, empty_folder, capsys, quick):
    """Ctrl-C is pressed as soon as there is something in its folder."""

    def press():
        while not list(Path("here").glob("*/*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    arguments = [str(trained_run()), "--out", "here"]
    threading.Thread(target=press).start()
    assert main.main(["evaluate", *arguments]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "finished parts are kept in here: run the same command again to continue\n" in err
    assert err.splitlines()[-1].startswith("metarec: stopped")
    assert evaluate.carry_out(evaluate.requested(arguments), budget=quick) == 0
    out, err = capsys.readouterr()
    assert methods.META in out
    assert err.endswith("tables: here\n")


@pytest.mark.slow
def test_of_clicks_there_are_rules_too_and_the_table_has_them(tmp_path, monkeypatch, evaluated):
    rng = np.random.default_rng(0)
    chance = np.arange(1, 61) ** -0.8
    clicks = [(u, i) for u in range(40) for i in rng.choice(60, 8, replace=False, p=chance / chance.sum())]
    (tmp_path / "clicks.csv").write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in clicks))
    monkeypatch.chdir(tmp_path)
    options = {
        "protocol": "recbole-metarec", "seeds": 1, "data.path": "clicks.csv", "data.source": "table",
        "data.kind": "click", "data.columns.rating": "", "data.columns.time": "", "data.negatives": 1,
        "data.negatives-popularity": 0, "data.cache": "cache", "encoder.path": "random", "factors.rank": 0,
        "learner.hidden": 4, "updater.steps": 1, "train.epochs": 1, "out": "found",
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    printed = evaluated(*arguments, "--all")
    for rule in ("constant, random order", "popularity", "item click rate"):
        assert rule in printed
    printed = evaluated(*arguments)
    assert max(map(len, printed.splitlines())) <= 100
    assert all(method in printed for method in ("item click rate", "twin, fine-tuned", "meta-learned"))
    assert "popularity" not in printed
    tree = json.loads((tmp_path / "found" / "tables" / "evaluation.json").read_text())
    rows = {row["name"]: row["metrics"] for row in tree["methods"]}
    assert rows["constant, random order"]["auc"]["mean"] == 0.5
    assert rows["popularity"]["auc"]["mean"] > 0.5
    assert rows["item click rate"]["auc"]["mean"] > 0.5
    ours = next(row for row in tree["methods"] if row["name"] == "meta-learned")
    assert {"item click rate", "meta-learned, before adapting"} <= set(ours["differences"])
