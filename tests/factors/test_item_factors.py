"""Beliefs about items: what they are made of, what they may not be made of, and files of them."""

import dataclasses

import numpy as np
import pytest
from helpers import assert_each_close, assert_equal

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.data import load
from metarec_jax.factors import io
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.item_factors import FACTORS, MEAN, REST, believe, plan

RANK = 4
LONE = 7
"""An item that nobody rates."""


@pytest.fixture(scope="module")
def data():
    found = load(DataConfig(source="synthetic"), seed=0)
    kept = (found.user < 60) & (found.item != LONE)
    return dataclasses.replace(found, **{n: getattr(found, n)[kept] for n in ("user", "item", "rating", "time")})


@pytest.fixture(scope="module")
def embeddings(data):
    return np.random.default_rng(0).normal(size=(len(data.items), 5)).astype(np.float32)


def profiles(data):
    """Of users whose liking of everything their profile gives away, in part."""
    return np.random.default_rng(1).normal(size=(len(data.users), 2)).astype(np.float32)


def believed(data, embeddings, rating=None, items=None):
    items = data.items if items is None else items
    common = plan(RANK, items, embeddings, data.user, data.item)
    return believe(common, items, embeddings, data.user, data.item, data.rating if rating is None else rating)


def test_a_belief_has_a_mean_a_rest_and_factors(data, embeddings):
    table = believed(data, embeddings).table
    assert table.shape == (len(data.items), FACTORS + RANK)
    assert np.isfinite(table).all()
    assert (table[:, REST] > 0).all()
    assert (np.abs(table[:, FACTORS:]).max(axis=0) > 0).all()


def test_tastes_over_vectors_reach_an_item_that_nobody_rated(data, embeddings):
    """What users like is in the vector alone: beliefs about the lone item come near what was drawn, with it only."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(len(data.items), 2)).astype(np.float32)
    tastes = rng.normal(size=(len(data.users), 2))
    rating = (3 + np.einsum("rw,rw->r", tastes[data.user], vectors[data.item])).astype(np.float32)

    def of_lone(vectors):
        found = believed(data, embeddings, rating, dataclasses.replace(data.items, vectors=vectors))
        vector = None if vectors is None else vectors[[LONE]]
        lone = found.of_new_items(embeddings[[LONE]], None, vector)[0, FACTORS:]
        return found.table[:, FACTORS:] @ lone  # covariance of users' ratings of it and of all items

    truth = vectors @ vectors[LONE]
    with_it, without = of_lone(vectors), of_lone(None)
    basis = np.unique(data.item)
    assert np.corrcoef(with_it[basis], truth[basis])[0, 1] > 0.9
    assert np.corrcoef(without[basis], truth[basis])[0, 1] < 0.5


def test_an_item_that_nobody_rated_is_believed_in_by_its_features(data, embeddings):
    """What is said of it as an item of the catalogue, and as a new one, is the same."""
    found = believed(data, embeddings)
    details = {name: (values[LONE],) for name, values in data.items.details.items()}
    new = found.of_new_items(embeddings[[LONE]], details)
    assert_each_close(new[0, [MEAN]], found.table[LONE, [MEAN]])
    assert_each_close(
        new[0, FACTORS:],
        found.table[LONE, FACTORS:],
        tolerance=1e-4,
        floor=1e-6,
        because="sums that cancel, in float32",
    )


def test_features_that_tell_popular_items_tell_the_mean_of_a_new_item():
    """Means depend on the popularity alone, which the text tells; of a new item, only the text is known."""
    rng = np.random.default_rng(5)
    popular = np.arange(100) % 2
    count = np.where(popular, rng.integers(15, 60, 100), rng.integers(3, 20, 100))
    count[:2] = 0  # one new item of each kind
    item = np.repeat(np.arange(100), count).astype(np.int32)
    user = np.concatenate([rng.permutation(60)[:n] for n in count]).astype(np.int32)
    mean = np.log1p(count)
    rating = (mean[item] + rng.normal(scale=0.3, size=len(item))).astype(np.float32)
    items = Items(tuple(map(str, range(100))), tuple(map(str, range(100))), tuple(map(str, range(100))))
    embeddings = np.stack([2.0 * popular - 1, rng.normal(size=100)], axis=1).astype(np.float32)
    found = believe(plan(RANK, items, embeddings, user, item), items, embeddings, user, item, rating)
    seen = count > 0
    expected = [mean[seen & (popular == kind)].mean() for kind in (0, 1)]
    np.testing.assert_allclose(found.table[:2, MEAN], expected, atol=0.2)


def test_factors_follow_the_unit_of_the_ratings(data, embeddings):
    """Ratings 2 r + 3: means 2 m + 3, factors twice, variances four times as large."""
    one, two = believed(data, embeddings), believed(data, embeddings, 2 * data.rating + 3)
    sums = {"tolerance": 1e-3, "because": "iterations in float32 from inputs that are rounded differently"}
    assert_each_close(two.table[:, MEAN], 2 * one.table[:, MEAN] + 3, **sums)
    assert_each_close(two.table[:, FACTORS:], 2 * one.table[:, FACTORS:], floor=0.01, **sums)
    assert_each_close(two.table[:, REST], 4 * one.table[:, REST], **sums)
    assert_each_close(two.noise, 4 * one.noise, **sums)


def test_what_a_training_user_meets_does_not_depend_on_that_users_ratings(data, embeddings):
    rows = np.arange(len(data))
    before, folded = believe_all(RANK, data, embeddings, rows, profiles(data), seed=0, folds=3)
    user = int(data.user[0])
    rating = np.where(data.user == user, 6 - data.rating, data.rating).astype(np.float32)
    after, changed = believe_all(
        RANK, dataclasses.replace(data, rating=rating), embeddings, rows, profiles(data), seed=0, folds=3
    )
    fold = folded.fold[user]
    np.testing.assert_array_equal(folded.tables[fold], changed.tables[fold])
    assert not np.array_equal(before.table, after.table)
    assert not np.array_equal(folded.tables[fold - 1], changed.tables[fold - 1])


def test_rows_that_do_not_train_are_not_looked_at(data, embeddings):
    rows = np.flatnonzero(data.user % 3 > 0)
    before, folded = believe_all(RANK, data, embeddings, rows, profiles(data), seed=0, folds=3)
    hidden = np.where(data.user % 3 == 0, np.nan, data.rating).astype(np.float32)
    after, changed = believe_all(
        RANK, dataclasses.replace(data, rating=hidden), embeddings, rows, profiles(data), seed=0, folds=3
    )
    np.testing.assert_array_equal(before.table, after.table)
    assert_equal(before.tastes, after.tastes)
    np.testing.assert_array_equal(folded.tables, changed.tables)


def test_an_item_met_as_new_is_what_the_others_believe_of_new_items(data, embeddings):
    """And no user's own ratings change it."""
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(len(data.items), 2)).astype(np.float32)
    details = {"genres": tuple(str(genre) for genre in rng.integers(0, 4, len(data.items)))}
    data = dataclasses.replace(data, items=dataclasses.replace(data.items, vectors=vectors, details=details))
    rows, details = np.arange(len(data)), data.items.details
    assert believe_all(RANK, data, embeddings, rows, profiles(data), seed=0, folds=3)[1].as_new is None
    whole = believe_all(RANK, data, embeddings, rows, profiles(data), seed=0, folds=3, dropout=0.3)[1]
    assert whole.as_new.share == 0.3

    others = rows[whole.fold[data.user] != 1]
    common = plan(RANK, data.items, embeddings, data.user, data.item)
    columns = (column[others] for column in (data.user, data.item, data.rating))
    of_fold = believe(common, data.items, embeddings, *columns)
    np.testing.assert_array_equal(whole.as_new.table[1], of_fold.of_new_items(embeddings, details, vectors))

    user = int(data.user[0])
    rating = np.where(data.user == user, 6 - data.rating, data.rating).astype(np.float32)
    turned_round = dataclasses.replace(data, rating=rating)
    changed = believe_all(RANK, turned_round, embeddings, rows, profiles(data), seed=0, folds=3, dropout=0.3)[1]
    fold = whole.fold[user]
    np.testing.assert_array_equal(changed.as_new.table[fold], whole.as_new.table[fold])
    assert not np.array_equal(changed.as_new.table, whole.as_new.table)


def test_equal_seeds_give_equal_beliefs(data, embeddings):
    rows = np.arange(len(data))
    first, second = (believe_all(RANK, data, embeddings, rows, profiles(data), seed=1, folds=3) for _ in range(2))
    np.testing.assert_array_equal(first[0].table, second[0].table)
    np.testing.assert_array_equal(first[1].tables, second[1].tables)


def test_folds_speak_of_the_same_factors(data, embeddings):
    """What is expected of tastes is about single factors, whoever they were learned from."""
    clear = embeddings * np.array([4.0, 2.0, 0.1, 0.1, 0.1], np.float32)  # two directions that no fold can miss
    everyone, folded = believe_all(3, data, clear, np.arange(len(data)), profiles(data), seed=0, folds=3)
    final = everyone.table[:, FACTORS:]
    for table in folded.tables:
        assert np.linalg.norm(table[:, FACTORS:] - final) < 0.6 * np.linalg.norm(final)


def test_a_file_gives_back_what_was_saved(data, embeddings, tmp_path):
    found, _ = believe_all(RANK, data, embeddings, np.arange(len(data)), profiles(data), seed=0, folds=3)
    io.save(found, tmp_path / "b.safetensors")
    back = io.load(tmp_path / "b.safetensors", len(data.items))
    np.testing.assert_array_equal(back.table, found.table)
    assert back.noise == found.noise
    assert_equal(back.tastes, found.tastes)
    details = {name: values[:4] for name, values in data.items.details.items()}
    np.testing.assert_array_equal(
        back.of_new_items(embeddings[:4], details), found.of_new_items(embeddings[:4], details)
    )


def test_a_file_that_is_damaged_missing_or_of_other_items_is_refused(data, embeddings, tmp_path):
    path = tmp_path / "b.safetensors"
    with pytest.raises(MetarecError, match="does not exist"):
        io.load(path, 3)
    io.save(believed(data, embeddings), path)
    with pytest.raises(MetarecError, match="not 3"):
        io.load(path, 3)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(MetarecError, match="damaged"):
        io.load(path, len(data.items))
