"""Whole trainings on inputs without variance: losses are finite, maps are 0, and a newcomer's list is not inverted."""

import dataclasses
import random

import numpy as np
import pytest
from helpers import assert_says
from trained import small_config

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import run_folder
from metarec_jax.train.start import meta_train

USERS, ITEMS = 40, 20


def rows(share: float = 1.0, alike: bool = False) -> list[tuple[int, int, int]]:
    """(user, item, rating): even items are good and odd ones bad, to everybody."""
    draw = random.Random(1)
    cells = [cell for cell in np.ndindex(USERS, ITEMS) if draw.random() < share]
    opinions = [(u, i, min(5, max(1, round(3 + (1 - 2 * (i % 2)) + draw.gauss(0, 0.7))))) for u, i in cells]
    return [(u, i, 3) for u, i in cells] if alike else opinions


def profile(case: str, user: int) -> str:
    return "A cook." if case == "two profiles" and user < 2 else "A customer."


CASES = {
    "panel": rows(),
    "one omission": rows()[:-1],
    "profiles alike": rows(0.8),
    "two profiles": rows(0.8),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, marks=[pytest.mark.slow] * (c in ("one omission", "profiles alike", "two profiles")))
        for c in CASES
    ],
)
def test_training_is_finite_and_nothing_is_inverted(case, tmp_path):
    told = case in ("profiles alike", "two profiles")
    lines = [f"{u},{i},{r},{profile(case, u)}\n" for u, i, r in CASES[case]]
    (tmp_path / "r.csv").write_text("user_id,item_id,rating,profile\n" + "".join(lines))
    columns = Columns(time="", user_text="profile" if told else "")
    small = small_config()
    config = dataclasses.replace(
        small,
        data=DataConfig(source="table", path=str(tmp_path / "r.csv"), columns=columns),
        episodes=dataclasses.replace(small.episodes, min_ratings=8, query=5),
        factors=dataclasses.replace(small.factors, rank=4),
        learner=dataclasses.replace(small.learner, user_side="profile" if told else "none"),
    )
    meta_train(config, tmp_path / "run")
    losses = [line["train_loss"] for line in run_folder.open_run(tmp_path / "run").read_metrics()]
    assert np.isfinite(losses).all()
    assert max(losses) < 1.2
    recommender = Recommender.load(tmp_path / "run")
    beliefs = recommender.catalogue.beliefs
    if case == "panel":
        assert not beliefs.tastes["choice"]["kernel"].any()
    if case == "profiles alike":
        assert not beliefs.tastes["profile"]["kernel"].any()
    for text in ("", "A customer.", "A nurse who likes to read.") if told else ("",):
        state = recommender.adapt({"id:2": 5, "id:5": 1}, text)
        assert [int(item.id) % 2 for item in recommender.recommend(state, k=5)] == [0] * 5


REFUSED = {
    "one user": ([(0, i, i % 5 + 1) for i in range(30)], ["user"]),
    "all ratings equal": (rows(alike=True), ["every rating (rating) is 3", "nothing to learn"]),
    "one item": ([(u, 0, u % 5 + 1) for u in range(40)], ["0 of 40 users", "--episodes.min-ratings"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nothing_can_be_learned_from_is_refused(case, tmp_path):
    data, says = REFUSED[case]
    (tmp_path / "r.csv").write_text("user_id,item_id,rating\n" + "".join(f"{u},{i},{r}\n" for u, i, r in data))
    config = dataclasses.replace(
        small_config(), data=DataConfig(source="table", path=str(tmp_path / "r.csv"), columns=Columns(time=""))
    )
    with pytest.raises(MetarecError) as error:
        meta_train(config, tmp_path / "run")
    assert_says(str(error.value), *says)
