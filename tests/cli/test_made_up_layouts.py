"""Commands of the published comparisons on made-up data in the layouts of those data sets: no worse than means."""

import json

import layouts
import pytest

CASES = {
    "MovieLens-1M": (layouts.movielens_1m_made_up, ("melu", "--preset", "movielens-1m", "--split.everyone")),
    "Anime": (layouts.anime_made_up, ("recbole-metarec",)),
    "Book-Crossing": (layouts.book_crossing_made_up, ("recbole-metarec",)),
}
SMALL = (
    *("--encoder.path", "random", "--learner.hidden", "4", "--learner.user-side", "none", "--updater.steps", "1"),
    *("--train.epochs", "1", "--train.devices", "1", "--factors.rank", "8", "--seeds", "1"),
)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c != "Book-Crossing")) for c in CASES])
def test_the_closed_form_is_not_worse_than_item_mean_and_user_bias(case, tmp_path, evaluated):
    write, options = CASES[case]
    places = ("--data.path", write(tmp_path / "data"), "--data.cache", tmp_path / "cache", "--out", tmp_path / "out")
    tree = json.loads(evaluated("--protocol", *options, *SMALL, *places, "--metrics", "own", "--json"))
    found = tree["scenarios"]["new users"] if "scenarios" in tree else tree
    rmse = {method["name"]: method["metrics"]["rmse"]["mean"] for method in found["methods"]}
    assert rmse["closed form alone"] < rmse["item mean + user bias"]
