"""Inputs without variance: exactly nothing comes of them, and everything else stays finite."""

import dataclasses

import numpy as np
import pytest
from helpers import assert_close, interactions

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.core.variance import standardisation
from metarec_jax.evaluation.baselines import Scale, item_mean_user_bias, ridge
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.item_factors import FACTORS, MEAN, Beliefs
from metarec_jax.factors.item_features import DETAIL, POPULARITY, TEXT, VECTOR, Sources

RANK, FOLDS = 4, 3
USERS, ITEMS = 24, 12


def panel(without: float = 0.0, **details: tuple[str, ...]) -> Interactions:
    """Everybody's random rating of everything, without a share of the rows."""
    rng = np.random.default_rng(0)
    user, item = (part.ravel() for part in np.meshgrid(np.arange(USERS), np.arange(ITEMS), indexing="ij"))
    kept = rng.random(len(user)) >= without
    data = interactions(user[kept], item[kept], rng.integers(1, 6, len(user))[kept], users=USERS, items=ITEMS)
    return dataclasses.replace(data, items=dataclasses.replace(data.items, details=details))


def texts(items: int = ITEMS) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(items, 5)).astype(np.float32)


def learned(
    data: Interactions, embeddings: np.ndarray | None = None, profiles: np.ndarray | None = None, rank: int = RANK
) -> Beliefs:
    """Beliefs, of which all numbers are finite."""
    embeddings = texts(len(data.items)) if embeddings is None else embeddings
    profiles = np.zeros((len(data.users), 0), np.float32) if profiles is None else profiles
    found, folded = believe_all(rank, data, embeddings, np.arange(len(data)), profiles, 0, folds=FOLDS)
    assert all(np.isfinite(part).all() for part in (found.table, found.of_new, folded.tables, found.noise))
    assert all(np.isfinite(found.tastes[name]["kernel"]).all() for name in ("choice", "profile"))
    assert np.abs(found.table).max() < 10
    return found


def standardised(texts: np.ndarray) -> np.ndarray:
    found = standardisation(texts)
    return ((texts - found.shift) * found.scale).astype(np.float32)


def test_choices_say_nothing_where_everybody_rated_everything():
    assert not learned(panel()).tastes["choice"]["kernel"].any()
    assert learned(panel(without=0.4)).tastes["choice"]["kernel"].any()


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_single_omission_makes_no_large_map(rank):
    """What anybody's choice adds to the expected taste stays within the prior's own deviation."""
    data = panel()
    hole = dataclasses.replace(data, **{n: getattr(data, n)[:-1] for n in ("user", "item", "rating", "time")})
    found, _ = believe_all(rank, hole, texts(), np.arange(len(hole)), np.zeros((USERS, 0), np.float32), 0, folds=FOLDS)
    factors, choice = found.table[:, FACTORS:], found.tastes["choice"]
    for chosen in ([0], [0, 1], range(6)):
        rows = factors[list(chosen)]
        expected = (rows - choice["middle"]).sum(axis=0) / (len(rows) + np.exp(choice["log_doubt"])) @ choice["kernel"]
        assert np.linalg.norm(expected) < 1


def test_profiles_that_are_all_alike_say_nothing():
    alike = standardised(np.full((USERS, 6), 0.1, np.float32))
    assert not learned(panel(without=0.4), profiles=alike).tastes["profile"]["kernel"].any()
    two = standardised(np.where(np.arange(USERS)[:, None] < 2, np.float32(0.1), np.float32(0.7)) * np.ones((1, 6), "f"))
    kernel = learned(panel(without=0.4), profiles=two).tastes["profile"]["kernel"]
    assert 0 < np.abs(two @ kernel).max() < 1


CONSTANT = {
    TEXT: {"embeddings": np.full((ITEMS, 5), 0.3, np.float32)},
    DETAIL + "genre": {"genre": ("drama",) * ITEMS},
    VECTOR: {"vectors": np.full((ITEMS, 3), 7.7, np.float32)},
    POPULARITY: {},
}


@pytest.mark.parametrize("source", CONSTANT)
def test_items_that_are_all_alike_in_something_are_told_apart_by_the_rest(source):
    of = dict(CONSTANT[source])
    embeddings, vectors = of.pop("embeddings", texts()), of.pop("vectors", None)
    data = panel(**of)
    data = dataclasses.replace(data, items=dataclasses.replace(data.items, vectors=vectors))
    count = np.bincount(data.item, minlength=ITEMS)
    rows = Sources.of(data.items, embeddings, count).rows(data.items.details, embeddings, count, vectors)
    assert not rows.get(source, np.zeros(0)).any()
    assert np.isfinite(np.concatenate(list(rows.values()), axis=1)).all()
    learned(data, embeddings)


ODD = {
    "all ratings equal": lambda: interactions(*np.indices((8, 6)).reshape(2, -1), np.full(48, 3)),
    "one item": lambda: interactions(np.arange(20), np.zeros(20, int), np.arange(20) % 5 + 1),
    "two users": lambda: interactions([0, 0, 0, 1, 1], [0, 1, 2, 0, 3], [1, 3, 5, 4, 2]),
    "one rating each": lambda: interactions([0, 1, 2], [0, 1, 2], [1, 3, 5]),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("rank", [RANK, 64])
def test_hardly_any_data_gives_finite_beliefs(case, rank):
    learned(ODD[case](), rank=rank)


def test_equal_ratings_are_predicted_exactly():
    found = learned(ODD["all ratings equal"]())
    assert (found.table[:, MEAN] == 3).all()
    assert not found.table[:, FACTORS:].any()
    assert (found.of_new_items(texts(3))[:, MEAN] == 3).all()


def test_an_item_with_nothing_is_predicted_from_its_features_and_a_user_with_nothing_changes_nothing():
    data = interactions(*np.indices((20, 6)).reshape(2, -1), np.arange(120) * 7 % 5 + 1, users=20, items=9)
    found = learned(data)
    assert_close(found.table[6:], found.of_new_items(texts(9), data.items.details)[6:])
    more = learned(dataclasses.replace(data, users=interactions([24], [0], [1], users=25, items=1).users))
    np.testing.assert_array_equal(more.table, found.table)


def test_one_user_is_refused_with_what_to_do():
    with pytest.raises(MetarecError, match=r"there are 1 training users.*--factors\.rank 0"):
        learned(interactions(np.zeros(6, int), np.arange(6), np.arange(6) % 5 + 1))


NOTHING = {
    "no vectors": np.full((ITEMS, 3), np.nan, np.float32),
    "one vector": np.where(np.arange(ITEMS)[:, None] == 4, 1.0, np.nan).astype(np.float32) * np.ones((1, 3), "f"),
    "vectors that are partly unknown": np.where(np.eye(ITEMS, 3) > 0, np.nan, texts()[:, :3]).astype(np.float32),
}


@pytest.mark.parametrize("case", NOTHING)
def test_vectors_that_are_unknown_are_the_mean(case):
    """Where all known vectors are one, they say nothing: exactly as without them."""
    data = panel(without=0.3)
    found = learned(dataclasses.replace(data, items=dataclasses.replace(data.items, vectors=NOTHING[case])))
    if case != "vectors that are partly unknown":
        np.testing.assert_array_equal(found.table, learned(data).table)


def test_a_ridge_on_embeddings_that_are_all_alike_is_its_base():
    from training import small_config, small_experiment

    experiment = small_experiment(small_config())
    scale, source = Scale(3.0, 3.0, 1.0, 5.0), experiment.validation.source
    base = item_mean_user_bias(scale, item_shrink=1.0, user_shrink=1.0)
    alike = ridge(scale, np.full((20, 5), 0.1, np.float32), item_shrink=1.0, user_shrink=1.0, penalty=0.3)
    np.testing.assert_array_equal(alike.predict(source[0]).mean, base.predict(source[0]).mean)
