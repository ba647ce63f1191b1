"""Commands of the published comparisons on made-up data in the layouts of those data sets: no worse than means."""

import json

import layouts
import pytest

CASES = {
    "MovieLens-1M, melu": (layouts.movielens_1m_made_up, "melu", ("--preset", "movielens-1m")),
    "MovieLens-1M, melu, everyone": (
        layouts.movielens_1m_made_up,
        "melu",
        ("--preset", "movielens-1m", "--split.everyone"),
    ),
    "Anime": (layouts.anime_made_up, "recbole-metarec", ()),
    "Book-Crossing": (layouts.book_crossing_made_up, "recbole-metarec", ()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_closed_form_is_not_worse_than_item_mean_and_user_bias(case, tmp_path, evaluated):
    write, protocol, options = CASES[case]
    small = ("--encoder.path", "random", "--learner.hidden", "4", "--updater.steps", "1", "--train.epochs", "1")
    places = ("--data.cache", tmp_path / "cache", "--out", tmp_path / "out", "--train.devices", "1")
    data = ("--data.path", write(tmp_path / "data"), "--factors.rank", "8", "--seeds", "1", "--metrics", "own")
    tree = json.loads(evaluated("--protocol", protocol, *options, *small, *places, *data, "--json"))
    scenario = tree["scenarios"].get("new users") or next(iter(tree["scenarios"].values()))
    rmse = {m["name"]: m["metrics"]["rmse"]["mean"] for m in scenario["methods"]}
    assert rmse["closed form alone"] < rmse["item mean + user bias"]
