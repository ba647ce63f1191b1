"""Item factors of clicks: the prior path folds users in as implicit least squares does."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, interactions

from metarec_jax.core.scale import CLICKS
from metarec_jax.factors import io
from metarec_jax.factors.click_factors import DEFAULT, believe_clicks, choose_lift, choose_penalties
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.implicit import Penalties, fit_clicks, fold_in
from metarec_jax.factors.item_factors import FACTORS, plan
from metarec_jax.factors.item_features import POPULARITY
from metarec_jax.factors.update import path_of, taste_of
from metarec_jax.learner import prior
from metarec_jax.learner.contract import make_head
from metarec_jax.learner.inputs import Context, Features

USERS, ITEMS, RANK = 60, 40, 6
PENALTIES = Penalties(alpha=0.2, ridge=0.02)


def clicks(seed=0, items=ITEMS):
    """Clicks of users who like items near to them on a line; the last item is clicked by nobody."""
    rng = np.random.default_rng(seed)
    near = np.abs(rng.random((USERS, 1)) - np.linspace(0, 1, items))
    chance = np.exp(-np.square(near / 0.15))
    chance[:, -1] = 0
    user, item = np.nonzero(rng.random((USERS, items)) < chance)
    data = interactions(user, item, np.ones(len(user)), users=USERS, items=items)
    return dataclasses.replace(data, scale=CLICKS)


def embeddings(items=ITEMS):
    at = np.linspace(0, 1, items)[:, None]
    return np.exp(-np.square((at - np.linspace(0, 1, 8)) / 0.2)).astype(np.float32)


def believed(lift=1.0):
    data = clicks()
    made = plan(RANK, data.items, embeddings(), data.user, data.item)
    return believe_clicks(made, data.items, embeddings(), data.user, data.item, PENALTIES, 4.0, lift)


@pytest.fixture(scope="module")
def beliefs():
    return believed()


def scores_of(beliefs, shown, count=0):
    """Scores of all items, clicked `count` times, by the prior path of a user who clicked `shown`."""
    head = make_head("click", levels=(0.0, 1.0), low=0, high=1)
    tastes = beliefs.tastes | {"profile": {"kernel": np.zeros((2, RANK), np.float32)}}
    params = prior.init(head, 0.5, prior.Believed(beliefs.noise, tastes, beliefs.sharpness))
    statistic = jnp.asarray(np.pad(beliefs.table, [(0, 0), (2, 0)])).at[:, 1].set(count)
    mask = jnp.asarray([1.0] * len(shown) + [0.0])
    support = Features(jnp.zeros((len(shown) + 1, 2)), statistic[np.append(shown, 0).astype(int)])
    context = Context(jnp.zeros(2), support, mask, mask)
    outputs = prior.prior_outputs(params, head, context, Features(jnp.zeros((ITEMS, 2)), statistic), statistics=True)
    return (np.asarray(outputs)[:, 0] - float(params["score"]["offset"])) / beliefs.sharpness


@pytest.mark.parametrize("shown", [[3], [1, 8, 9, 20], list(range(0, 38, 2))])
def test_the_prior_path_is_the_fold_in(beliefs, shown):
    data = clicks()
    seen = np.unique(data.item)
    place = np.searchsorted(seen, data.item)
    ones = np.ones(len(data), np.float32)
    found = fit_clicks(
        data.user, place, ones, users=USERS, items=len(seen), rank=RANK, penalties=PENALTIES, sweeps=16
    ).items
    want = found @ fold_in(
        np.searchsorted(seen, shown), np.ones(len(shown)), found, found.T.astype(np.float64) @ found, PENALTIES
    )
    assert_close(scores_of(beliefs, shown)[seen], want.astype(np.float32))


def test_without_clicks_the_scores_are_the_popularity(beliefs):
    count = np.random.default_rng(3).permutation(ITEMS).astype(np.float32)
    assert_close(scores_of(beliefs, [], count) * beliefs.sharpness, np.log1p(count))
    assert_close(scores_of(beliefs, [3], count), scores_of(beliefs, [3]))


def test_the_taste_on_the_host_is_that_of_the_prior_path(beliefs):
    """`metarec_jax.factors.update.taste_of`, with which an added item learns, and the program of the prior path."""
    shown = [1, 8, 9, 20]
    mean, _ = taste_of(beliefs.table[shown], np.ones(len(shown)), path_of({}, beliefs))
    assert_close((beliefs.table[:, FACTORS:] @ mean).astype(np.float32), scores_of(beliefs, shown))


def test_an_item_without_clicks_gets_the_factors_of_its_features(beliefs):
    of_features = beliefs.of_new_items(embeddings())
    assert_close(beliefs.table[-1], of_features[-1])
    rated = scores_of(beliefs, [36, 37, 38])
    assert rated[-1] > np.median(rated)  # its text is near to theirs


def test_the_lift_scales_the_scores_of_new_items_alone(beliefs):
    lifted = believed(lift=2.0)
    assert np.array_equal(lifted.table[:-1], beliefs.table[:-1])
    assert_close(lifted.of_new_items(embeddings()), 2 * beliefs.of_new_items(embeddings()))  # items that are added
    before, after = scores_of(beliefs, [3, 8]), scores_of(lifted, [3, 8])
    assert np.array_equal(after[:-1], before[:-1])
    assert_close(after[-1], 2 * before[-1])


def test_the_factors_of_new_items_do_not_depend_on_a_popularity(beliefs):
    first = 1 + sorted(beliefs.sources.shift).index(POPULARITY)  # its one column, before that of the text
    assert np.array_equal(beliefs.of_new[first], np.zeros_like(beliefs.of_new[first]))


def test_items_that_training_treats_as_new_are_lifted():
    data, profiles = clicks(), np.zeros((USERS, 0), np.float32)
    plain, lifted = (
        believe_all(
            RANK, data, embeddings(), np.arange(len(data)), profiles, 0, dropout=0.5, weights=(PENALTIES, 4.0, lift)
        )[1]
        for lift in (1.0, 2.0)
    )
    assert np.array_equal(lifted.tables[:, :-1], plain.tables[:, :-1])
    assert lifted.as_new is not None
    assert plain.as_new is not None
    assert_close(lifted.as_new.table, 2 * plain.as_new.table)


def test_the_lift_is_the_greater_the_less_the_features_say():
    """Features with noise predict factors that are shrunk more."""
    data, noise = clicks(), np.random.default_rng(0).normal(size=embeddings().shape).astype(np.float32)
    clear, noisy = (
        choose_lift(data.items, known, data.user, data.item, PENALTIES, rank=RANK, seed=0)
        for known in (embeddings(), embeddings() + 2 * noise)
    )
    assert 1 <= clear < noisy


def test_penalties_are_those_with_the_best_lists():
    data = clicks()
    penalties, sharpness = choose_penalties(data.user, data.item, items=ITEMS, rank=RANK, seed=0)
    assert penalties != DEFAULT[0]
    assert 1 <= sharpness <= 64
    again = choose_penalties(data.user, data.item, items=ITEMS, rank=RANK, seed=0)
    assert again == (penalties, sharpness)


@pytest.mark.parametrize(
    ("user", "item"), [([0, 1], [0, 0]), ([0, 1, 2], [0, 1, 2]), ([0] * 5 + [1], [0, 1, 2, 3, 4, 0])]
)
def test_too_few_clicks_take_the_defaults(user, item):
    data = dataclasses.replace(interactions(user, item, np.ones(len(user)), users=3, items=5), scale=CLICKS)
    known = np.eye(5, 3, dtype=np.float32)
    assert choose_penalties(data.user, data.item, items=5, rank=3, seed=0) == DEFAULT
    assert choose_lift(data.items, known, data.user, data.item, PENALTIES, rank=3, seed=0) == 1
    found, folded = believe_all(3, data, known, np.arange(len(data)), np.zeros((3, 0), np.float32), 0)
    assert np.isfinite(found.table).all()
    assert np.isfinite(folded.tables).all()


def test_no_click_of_a_user_reaches_the_factors_of_the_user():
    """Cross-fitting of clicks: other clicks of one user change no bit of the factors of the user's fold."""
    data = clicks()
    rows = np.arange(len(data))
    profiles = np.zeros((USERS, 0), np.float32)
    changed = dataclasses.replace(data, item=np.where(data.user == 5, (data.item + 7) % (ITEMS - 1), data.item))
    weights = PENALTIES, 4.0, 2.0
    one, two = (
        believe_all(RANK, some, embeddings(), rows, profiles, 0, weights=weights)[1] for some in (data, changed)
    )
    own = one.fold[5]
    assert two.fold[5] == own
    assert np.array_equal(one.tables[own], two.tables[own])
    assert not np.array_equal(one.tables[1 - own], two.tables[1 - own])


def test_they_are_read_as_they_were_written(beliefs, tmp_path):
    io.save(beliefs, tmp_path / "beliefs.safetensors")
    read = io.load(tmp_path / "beliefs.safetensors", ITEMS)
    assert np.array_equal(read.table, beliefs.table)
    assert np.array_equal(read.tastes["growth"], beliefs.tastes["growth"])
    assert read.sharpness == beliefs.sharpness
    assert read.table.shape[1] == FACTORS + RANK
