"""Beliefs about items: what they are made of, what they may not be made of, and files of them."""

import dataclasses

import numpy as np
import pytest
from helpers import assert_each_close, assert_equal

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.factors import io
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.hyperparameters import Hyperparameters
from metarec_jax.factors.item_factors import FACTORS, MEAN, REST, believe, main_features, rated_most, turned

SMALL = Hyperparameters(rank=3, iterations=3, folds=3)
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


def believed(data, embeddings, config=SMALL, rating=None):
    basis = rated_most(config, len(data.items), data.item)
    rating = data.rating if rating is None else rating
    towards = main_features(config, data.items, embeddings, np.bincount(data.item, minlength=len(data.items)))
    return believe(config, data.items, embeddings, data.user, data.item, rating, 1.0, basis, towards)


def test_a_belief_has_a_mean_a_rest_and_factors(data, embeddings):
    table = believed(data, embeddings).table
    assert table.shape == (len(data.items), FACTORS + SMALL.rank)
    assert np.isfinite(table).all()
    assert (table[:, REST] > 0).all()
    assert (np.abs(table[:, FACTORS:]).max(axis=0) > 0).all()


def test_tastes_over_vectors_reach_an_item_that_nobody_rated(data, embeddings):
    """What users like is in the vector alone: beliefs about the lone item come near what was drawn, with it only."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(len(data.items), 2)).astype(np.float32)
    tastes = rng.normal(size=(len(data.users), 2))
    rating = (3 + np.einsum("rw,rw->r", tastes[data.user], vectors[data.item])).astype(np.float32)
    basis = rated_most(SMALL, len(data.items), data.item)
    count = np.bincount(data.item, minlength=len(data.items))

    def of_lone(items):
        towards = main_features(SMALL, items, embeddings, count)
        found = believe(SMALL, items, embeddings, data.user, data.item, rating, 1.0, basis, towards)
        vector = None if items.vectors is None else items.vectors[[LONE]]
        lone = found.of_new_items(embeddings[[LONE]], None, vector)[0, FACTORS:]
        return found.table[:, FACTORS:] @ lone  # how users' liking of it goes with that of all others

    truth = vectors @ vectors[LONE]
    with_it, without = (of_lone(dataclasses.replace(data.items, vectors=v)) for v in (vectors, None))
    assert np.corrcoef(with_it[basis], truth[basis])[0, 1] > 0.9
    assert np.corrcoef(without[basis], truth[basis])[0, 1] < 0.5


def test_means_are_between_what_items_got_and_the_mean_of_all(data, embeddings):
    config = dataclasses.replace(SMALL, mean_text=0.0, mean_details=0.0, mean_popularity=0.0, mean_users=1e9)
    mean = believed(data, embeddings, config).table[:, MEAN]
    count = np.bincount(data.item, minlength=len(data.items))
    total = np.bincount(data.item, weights=data.rating, minlength=len(data.items))
    weight = config.mean_noise / config.mean_item
    shrunk = (total + weight * data.rating.mean()) / (count + weight)
    assert_each_close(mean, shrunk)


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


def test_beliefs_follow_the_scale_of_the_ratings(data, embeddings):
    """Twice the scale: means and factors twice, variances four times as large."""
    basis = rated_most(SMALL, len(data.items), data.item)
    one = believed(data, embeddings)
    towards = main_features(SMALL, data.items, embeddings, np.bincount(data.item, minlength=len(data.items)))
    two = believe(SMALL, data.items, embeddings, data.user, data.item, 2 * data.rating, 2.0, basis, towards)
    assert_each_close(two.table[:, MEAN], 2 * one.table[:, MEAN])
    assert_each_close(
        two.table[:, REST], 4 * one.table[:, REST], tolerance=1e-4, because="differences of larger numbers"
    )
    assert_each_close(two.noise, 4 * one.noise, tolerance=1e-4, because="a mean of differences, in float32")


def test_what_a_training_user_meets_does_not_depend_on_that_users_ratings(data, embeddings):
    rows = np.arange(len(data))
    before, folded = believe_all(SMALL, data, embeddings, rows, profiles(data), seed=0)
    user = int(data.user[0])
    rating = np.where(data.user == user, 6 - data.rating, data.rating).astype(np.float32)
    after, changed = believe_all(
        SMALL, dataclasses.replace(data, rating=rating), embeddings, rows, profiles(data), seed=0
    )
    fold = folded.fold[user]
    np.testing.assert_array_equal(folded.tables[fold], changed.tables[fold])
    assert not np.array_equal(before.table, after.table)
    assert not np.array_equal(folded.tables[fold - 1], changed.tables[fold - 1])


def test_rows_that_do_not_train_are_not_looked_at(data, embeddings):
    rows = np.flatnonzero(data.user % 3 > 0)
    before, folded = believe_all(SMALL, data, embeddings, rows, profiles(data), seed=0)
    hidden = np.where(data.user % 3 == 0, np.nan, data.rating).astype(np.float32)
    after, changed = believe_all(
        SMALL, dataclasses.replace(data, rating=hidden), embeddings, rows, profiles(data), seed=0
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
    assert believe_all(SMALL, data, embeddings, rows, profiles(data), seed=0)[1].as_new is None
    whole = believe_all(SMALL, data, embeddings, rows, profiles(data), seed=0, dropout=0.3)[1]
    assert whole.as_new.share == 0.3

    others = rows[whole.fold[data.user] != 1]
    of_fold = believe(
        SMALL,
        data.items,
        embeddings,
        *(column[others] for column in (data.user, data.item, data.rating)),
        1.0,
        rated_most(SMALL, len(data.items), data.item),
        main_features(SMALL, data.items, embeddings, np.bincount(data.item, minlength=len(data.items))),
    )
    np.testing.assert_array_equal(whole.as_new.table[1], of_fold.of_new_items(embeddings, details, vectors))

    user = int(data.user[0])
    rating = np.where(data.user == user, 6 - data.rating, data.rating).astype(np.float32)
    turned_round = dataclasses.replace(data, rating=rating)
    changed = believe_all(SMALL, turned_round, embeddings, rows, profiles(data), seed=0, dropout=0.3)[1]
    fold = whole.fold[user]
    np.testing.assert_array_equal(changed.as_new.table[fold], whole.as_new.table[fold])
    assert not np.array_equal(changed.as_new.table, whole.as_new.table)


def test_equal_seeds_give_equal_beliefs(data, embeddings):
    rows = np.arange(len(data))
    first, second = (believe_all(SMALL, data, embeddings, rows, profiles(data), seed=1) for _ in range(2))
    np.testing.assert_array_equal(first[0].table, second[0].table)
    np.testing.assert_array_equal(first[1].tables, second[1].tables)


def test_factors_are_turned_and_nothing_else():
    rng = np.random.default_rng(0)
    factors, (turn, _) = rng.normal(size=(9, 3)), np.linalg.qr(rng.normal(size=(3, 3)))
    assert_each_close(
        turned(factors @ turn, towards=factors), factors, tolerance=1e-9, because="a singular value decomposition"
    )
    other = turned(factors, towards=rng.normal(size=(9, 3)))
    assert_each_close(other @ other.T, factors @ factors.T, tolerance=1e-9, because="a singular value decomposition")


def test_folds_speak_of_the_same_factors(data, embeddings):
    """What is expected of tastes is about single factors, whoever they were learned from."""
    two = dataclasses.replace(SMALL, rank=2, strength=1e3)
    clear = embeddings * np.array([4.0, 2.0, 0.1, 0.1, 0.1], np.float32)  # two directions that no fold can miss
    everyone, folded = believe_all(two, data, clear, np.arange(len(data)), profiles(data), seed=0)
    final = everyone.table[:, FACTORS:]
    for table in folded.tables:
        assert np.linalg.norm(table[:, FACTORS:] - final) < 0.6 * np.linalg.norm(final)


def test_a_file_gives_back_what_was_saved(data, embeddings, tmp_path):
    found, _ = believe_all(SMALL, data, embeddings, np.arange(len(data)), profiles(data), seed=0)
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
