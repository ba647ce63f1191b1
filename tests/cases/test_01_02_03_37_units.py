"""Ratings in any unit: what is liked, play counts, ratings below 0, and the ends of the scale, from files to tables."""

import dataclasses
import json
import random
import warnings

import numpy as np
import pytest
from helpers import assert_each_close
from trained import small_config

from metarec_jax.cli import main
from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.evaluate import evaluate
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import run_folder
from metarec_jax.train.start import meta_train

DRAW = random.Random(3)
OPINIONS = [
    (u, i, min(5, max(1, round(3 + (u % 3 - 1) * (i % 2) + DRAW.gauss(0, 1))))) for u in range(30) for i in range(20)
]

WRITTEN = {
    "five": lambda r: r,
    "ten": lambda r: 2 * r,
    "unit": lambda r: round(0.2 * r, 1),
    "tenths": lambda r: (1, 3, 5, 7, 9)[r - 1] / 10,
    "thirds": lambda r: (3.3, 6.6, 9.9)[min(2, r // 2)],
    "plays": lambda r: max(1, int(DRAW.lognormvariate(r, 1.6)) + 20 * r),
    "jokes": lambda r: round(max(-10, min(10, 4 * (r - 3) + DRAW.gauss(0, 2))), 2),
}
BUDGET = Budget(((1, 0.1),), (1.0,), (1.0,), (1.0,), samples=20, plots=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function: name of a scale -> (its run, the ratings that it has), made once."""
    found = {}

    def make(name):
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            ratings = [WRITTEN[name](r) for _, _, r in OPINIONS]
            rows = [f"{u},{i},{r}\n" for (u, i, _), r in zip(OPINIONS, ratings)]
            (folder / "r.csv").write_text("user_id,item_id,rating\n" + "".join(rows))
            small = small_config()
            data = DataConfig(source="table", path=str(folder / "r.csv"))
            config = dataclasses.replace(
                small,
                data=dataclasses.replace(data, columns=dataclasses.replace(data.columns, time="")),
                episodes=dataclasses.replace(small.episodes, min_ratings=8, query=5, validation=0.2, test=0.2),
                learner=dataclasses.replace(small.learner, head="auto", user_side="none"),
                train=dataclasses.replace(small.train, epochs=1),
            )
            meta_train(config, folder / "run")
            found[name] = folder / "run", ratings
        return found[name]

    return make


def table_of(run):
    """The table of an evaluation in which a warning of NumPy is an error."""
    opened = run_folder.open_run(run)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        (table,) = evaluate(
            opened.config, seeds=[0], folder=run.parent / "evaluation", run=opened, budget=BUDGET
        ).values()
    return table


@pytest.mark.slow
def test_liked_follows_the_scale(made):
    tables = {name: table_of(made(name)[0]) for name in ("five", "ten", "unit")}
    for name, border in {"five": "4", "ten": "8", "unit": "0.8"}.items():
        assert any(f"liked is a rating of at least {border}" in note for note in tables[name].notes)
        for row, same in zip(tables[name].rows, tables["five"].rows):
            for metric in ("auc_liked", "auc_global", "ndcg@5", "precision@5"):
                values = [one.cells[metric].mean for one in (row, same)]
                assert_each_close(*values, name=(name, row.method, metric))


@pytest.mark.parametrize("name", ["plays", pytest.param("jokes", marks=pytest.mark.slow)])
def test_a_continuous_scale_has_a_table(made, name):
    table = table_of(made(name)[0])
    for row in table.rows:
        for metric in ("ndcg@5", "ndcg_linear@5", "ndcg_binary@5", "auc", "precision@5"):
            assert 0 <= row.cells[metric].mean <= 1, (row.method, metric)
        assert row.cells["mae"].mean > 0
    # Hardly any play count is in the top quarter of the scale: what has no value is named.
    without = {m.title for row in table.rows for m in table.metrics if np.isnan(row.cells[m.name].mean)}
    assert without == ({"AUC liked", "AUC liked, global"} if name == "plays" else set())
    assert ("AUC liked, global:" in table.notes[-1]) == (name == "plays")


@pytest.mark.parametrize("name", [pytest.param("tenths", marks=pytest.mark.slow), "thirds", "jokes", "plays"])
def test_the_ends_of_the_scale_can_be_given(made, name, capsys):
    run, ratings = made(name)
    least, greatest = min(ratings), max(ratings)
    recommender = Recommender.load(run)
    scores = recommender.score(recommender.adapt({"id:1": least, "id:2": greatest}), ["id:3"])
    assert least <= scores[0] <= greatest
    argument = ["recommend", str(run), "--rate", f"id:1={least}", "--rate", f"id:2={greatest}", "-k", "1", "--json"]
    assert main.main(argument) == 0
    assert [one["rating"] for one in json.loads(capsys.readouterr().out)["rated"]] == [least, greatest]
    for beyond in (least - 1, greatest + 1):
        with pytest.raises(MetarecError, match=f"between {least:.7g} and {greatest:.7g}"):
            recommender.adapt({"id:1": beyond})


def test_users_of_a_file_may_have_rated_everything_alike(made, tmp_path):
    run, _ = made("tenths")
    (tmp_path / "u.csv").write_text("user_id,item_id,rating\na,1,0.9\na,2,0.9\n")
    command = ["recommend", str(run), "--users", str(tmp_path / "u.csv"), "-k", "2"]
    assert main.main([*command, "--out", str(tmp_path / "lists.parquet")]) == 0
