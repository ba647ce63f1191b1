"""A protocol of the field from files on disk to tables, through the command."""

import dataclasses
import json

import layouts
import numpy as np
import pytest

from metarec_jax.cli import evaluate, main
from metarec_jax.evaluation.budget import ListBudget


@pytest.mark.slow
def test_melus_protocol_runs_from_a_folder_in_the_layout_of_movielens_1m(tmp_path, capsys, evaluated):
    """From ratings.dat, movies.dat and users.dat to tables, through the command; then compared with itself."""
    data, out = layouts.movielens_1m_of(tmp_path / "ml-1m"), tmp_path / "out"
    arguments = ["--protocol", "melu", "--preset", "movielens-1m", "--data.path", str(data), "--seeds", "1"]
    small = [
        "--encoder.path",
        "random",
        "--factors.rank",
        "2",
        "--learner.hidden",
        "4",
        "--updater.steps",
        "1",
        "--train.epochs",
        "1",
    ]
    places = ["--data.cache", str(tmp_path / "cache"), "--out", str(out), "--metrics", "melu"]
    tree = json.loads(evaluated(*arguments, *small, "--train.devices", "1", *places, "--json"))
    assert list(tree["scenarios"]) == ["warm (training users)", "new users", "new items", "new users and items"]
    assert "items after 1997 are new" in tree["protocol"]
    for table in tree["scenarios"].values():
        assert [m["name"] for m in table["metrics"]] == ["mae", "ndcg_linear@1", "ndcg_linear@3"]
        assert all(np.isfinite(m["metrics"]["mae"]["mean"]) for m in table["methods"])
    assert json.loads((out / "tables" / "evaluation.json").read_text())["scenarios"] == tree["scenarios"]

    assert main.main(["compare", str(out), str(out), "--against", "item mean"]) == 0
    text = capsys.readouterr().out
    assert "new users and items, by cohort" in text
    assert "B is 'item mean' of" in text
    assert main.main(["compare", str(out), str(out), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert {line["difference"]["difference"] for line in lines} == {0.0}
    assert main.main(["compare", str(out), str(tmp_path)]) == 2
    assert "holds no evaluation" in capsys.readouterr().err


SMALL = ["--encoder.path", "random", "--learner.hidden", "4", "--updater.steps", "1", "--train.epochs", "1"]


@pytest.mark.slow
def test_lists_over_the_catalogue_are_made_of_ratings_in_the_layout_of_movielens_1m(tmp_path, capsys, quick):
    """Ratings of 4 or more are clicks; the table fits 100 columns, and an evaluation that is done is read again."""
    data, out = layouts.movielens_1m_of(tmp_path / "ml-1m", users=50), tmp_path / "out"
    places = ["--data.path", str(data), "--data.cache", str(tmp_path / "cache"), "--out", str(out)]
    arguments = ["--protocol", "strong-generalisation", "--data.kind", "click", "--seeds", "1", "--train.devices", "1"]
    lists = ListBudget(((5, 0.0),), (20.0,), ((0.3, 0.01),), (4,), (0.0,))
    budget = dataclasses.replace(quick, lists=lists)
    wanted = evaluate.requested([*arguments, *SMALL, *places])
    assert evaluate.carry_out(wanted, budget=budget) == 0
    printed = capsys.readouterr()
    assert max(map(len, printed.out.splitlines())) <= 100
    for name in ("recall@20", "recall@50", "nDCG@10", "nDCG@100", "popularity", "item-kNN", "EASE", "iALS", "random"):
        assert name in printed.out
    assert "ratings of 4 or more are clicks" in printed.err
    tree = json.loads((out / "tables" / "evaluation.json").read_text())
    assert "5 or more clicks" in tree["notes"][0]
    for method in tree["methods"]:
        for name, cell in method["metrics"].items():
            assert 0 <= cell["mean"] <= (1 if "novelty" not in name else 10)

    assert evaluate.carry_out(wanted, budget=budget) == 0
    assert capsys.readouterr().out == printed.out
    assert main.main(["compare", str(out), str(out), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert {line["difference"]["difference"] for line in lines} == {0.0}


@pytest.mark.parametrize(
    ("protocol", "query", "order"),
    [("strong-generalisation", 4, "random"), ("next-items", 1, "time"), ("cold-items", 4, "random")],
)
def test_protocols_of_lists_take_users_of_five_clicks_or_more(protocol, query, order):
    episodes = evaluate.requested(["--protocol", protocol, "--data.kind", "click"]).config.episodes
    assert (episodes.min_ratings, episodes.max_ratings, episodes.query, episodes.order) == (5, 0, query, order)
    assert episodes.max_support == 512
    changed = evaluate.requested(["--protocol", protocol, "--episodes.min-ratings", "20"]).config.episodes
    assert changed.min_ratings == 20
