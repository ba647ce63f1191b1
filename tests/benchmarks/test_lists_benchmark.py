"""The benchmark of lists: baselines and closed form of several seeds, without a run."""

import dataclasses
import json

import layouts
import pytest

from benchmarks import lists
from metarec_jax.cli import evaluate
from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation.budget import Budget, ListBudget
from metarec_jax.evaluation.methods import CLOSED

BUDGET = Budget(lists=ListBudget(((5, 0.0),), (20.0,), ((0.3, 0.01),), (4,), (0.0,)), samples=10)


@pytest.mark.slow
def test_seeds_are_judged_without_training_and_read_again(tmp_path):
    folder = layouts.movielens_1m_of(tmp_path / "ml-1m", users=50)
    places = ["--data.path", str(folder), "--data.cache", str(tmp_path / "cache"), "--encoder.path", "random"]
    arguments = ["--protocol", "strong-generalisation", "--data.kind", "click", "--factors.rank", "2", *places]
    config, out = evaluate.requested(arguments).config, tmp_path / "out"
    (table,) = lists.measure(config, (0, 1), out, budget=BUDGET).values()
    assert table.seeds == (0, 1)
    assert table.methods[-2:] == ("iALS", CLOSED)
    assert not list(out.glob("seed-*/meta"))
    cell = table.row("EASE").cells["recall_list@20"]
    assert len(cell.seeds) == 2
    assert table.row("random").differences["EASE"]["recall_list@20"].users > 5
    written = json.loads((out / "tables" / "evaluation.json").read_text())
    assert [method["name"] for method in written["methods"]] == list(table.methods)

    changed = {path: path.stat().st_mtime_ns for path in out.glob("seed-*/lists.parquet")}
    (again,) = lists.measure(config, (0, 1), out, budget=BUDGET).values()
    assert again.row("EASE").cells == table.row("EASE").cells
    assert {path: path.stat().st_mtime_ns for path in changed} == changed

    other = dataclasses.replace(config, split=dataclasses.replace(config.split, kind="users"))
    with pytest.raises(MetarecError, match="'users' asks for no lists"):
        lists.measure(other, (2,), tmp_path / "other", budget=BUDGET)
