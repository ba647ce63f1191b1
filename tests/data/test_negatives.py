"""Negative sampling for clicks."""

import dataclasses

import numpy as np
import pytest

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.negatives import beside_clicks, with_negatives


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """60 users, 200 items of very unequal popularity; clicks without negatives."""
    rng = np.random.default_rng(0)
    chance = np.arange(1, 201) ** -0.7
    lines = [
        f"{user},{item},{100 * user + n}"
        for user in range(60)
        for n, item in enumerate(rng.choice(200, 8, replace=False, p=chance / chance.sum()))
    ]
    path = tmp_path_factory.mktemp("clicks") / "clicks.csv"
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    return path


def read(path, **options):
    time = "timestamp" if "timestamp" in path.read_text() else ""
    columns = Columns(rating="", time=time)
    data = load(DataConfig(source="table", path=str(path), kind="click", columns=columns))
    return drawn(data, **options) if options else data


def drawn(data, negatives=1, popularity=0.75, seed=0, trained=lambda rows: np.arange(len(rows))):
    """With negatives; all rows train where `trained` is not given."""
    return with_negatives(data, negatives, popularity, seed, trained)


def keys(data, rows):
    return set(zip(data.user[rows].tolist(), data.item[rows].tolist()))


def test_each_click_gets_its_share_and_nothing_clicked_is_drawn(clicks):
    before, after = read(clicks), read(clicks, negatives=2)
    assert (before.rating == 1).all()
    zero = after.rating == 0
    assert zero.sum() == 2 * len(before)
    assert keys(after, ~zero) == keys(before, slice(None))
    assert len(keys(after, slice(None))) == len(after)
    np.testing.assert_array_equal(np.bincount(after.user[zero]), 2 * np.bincount(before.user))
    assert "and 960 items that were not clicked" in after.source


def test_a_negative_is_of_the_time_of_its_click_and_rows_stay_in_order(clicks):
    before, after = read(clicks), read(clicks, negatives=1)
    times = {(user, time) for user, time in zip(before.user.tolist(), before.time.tolist())}
    assert {(user, time) for user, time in zip(after.user.tolist(), after.time.tolist())} == times
    order = np.lexsort((after.item, after.time, after.user))
    np.testing.assert_array_equal(order, np.arange(len(after)))


def test_popularity_is_corrected_for(clicks):
    """Negatives drawn uniformly are much less popular than clicked items; drawn by popularity, only a little."""

    def gap(power):
        data = read(clicks, negatives=2, popularity=power)
        clicked = data.rating > 0
        popularity = np.bincount(data.item[clicked], minlength=len(data.items))[data.item]
        return popularity[clicked].mean() - popularity[~clicked].mean()

    assert gap(0.0) > gap(0.75) > gap(1.0)
    assert gap(1.0) < 0.5 * gap(0.0)


def test_equal_seeds_draw_alike(clicks):
    data = read(clicks)
    one, two, other = (drawn(data, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.item, two.item)
    assert not np.array_equal(one.item, other.item)


def test_what_others_do_is_drawn_from_training_rows_and_nothing_of_them_reaches_those(clicks):
    """If test users click other items, the negatives of training users, and of other users, are the same."""
    data = read(clicks)
    tests = data.user >= 30

    def before_30(rows):
        return np.flatnonzero(rows.user < 30)

    one = drawn(data, negatives=2, trained=before_30)
    mirrored = dataclasses.replace(data, item=np.where(tests, 199 - data.item, data.item).astype(np.int32))
    other = drawn(mirrored, negatives=2, trained=before_30)
    for found in (one, other):
        assert (found.rating == 0).sum() == 2 * len(data)
    train = one.user < 30
    np.testing.assert_array_equal(train, other.user < 30)
    for name in ("user", "item", "rating", "time"):
        np.testing.assert_array_equal(getattr(one, name)[train], getattr(other, name)[train])
    # In both, most negatives are the items that training users click most.
    count = np.bincount(data.item[~tests], minlength=200)
    for found in (one, other):
        beside = count[found.item[~train & (found.rating == 0)]]
        assert beside.mean() > 1.5 * count.mean()


def test_what_a_user_clicks_later_changes_nothing_of_what_trains(clicks):
    data = read(clicks)
    middle = np.median(data.time % 100)

    def early(rows):
        return np.flatnonzero(rows.time % 100 < middle)

    later = data.time % 100 >= middle
    other = dataclasses.replace(data, item=np.where(later, 199 - data.item, data.item).astype(np.int32))
    kept = [early(rows) for rows in (data, other)]
    np.testing.assert_array_equal(*kept)
    one, two = (drawn(rows, trained=early) for rows in (data, other))
    for name in ("user", "item", "rating", "time"):
        np.testing.assert_array_equal(getattr(one, name)[early(one)], getattr(two, name)[early(two)])
    assert len(keys(one, one.rating == 0)) == len(data), "none twice"


def test_who_clicked_nearly_everything_gets_what_is_left(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("user_id,item_id\n" + "".join(f"a,{i}\n" for i in range(9)) + "b,9\n")
    data = read(path, negatives=3)
    assert keys(data, (data.user == 0) & (data.rating == 0)) == {(0, 9)}


def test_items_that_nobody_clicked_in_training_are_drawn_when_nothing_else_is_left(tmp_path):
    """Without any training click, all items are equally likely."""
    path = tmp_path / "c.csv"
    lines = [f"a,{i}\n" for i in range(4)] + [f"b,{i}\n" for i in range(4)] + [f"c,{i}\n" for i in range(4, 9)]
    path.write_text("user_id,item_id\n" + "".join(lines))
    data = read(path)
    for trained in (lambda rows: np.flatnonzero(rows.user < 2), lambda rows: np.zeros(0, int)):
        found = drawn(data, negatives=1, popularity=1.0, trained=trained)
        for user in range(3):
            own, beside = ({i for u, i in keys(found, found.rating == x) if u == user} for x in (1, 0))
            assert len(beside) == min(len(own), 9 - len(own))
            assert not own & beside


def test_ratings_are_refused():
    ratings = DataConfig(source="synthetic", negatives=2)
    with pytest.raises(MetarecError, match=r"data\.negatives is 2, but data\.kind is 'rating'"):
        beside_clicks(load(ratings), Config(data=ratings))
    with pytest.raises(MetarecError, match=r"data\.negatives is -1"):
        DataConfig(kind="click", negatives=-1)
    with pytest.raises(MetarecError, match=r"data\.negatives_popularity is -1"):
        DataConfig(kind="click", negatives_popularity=-1.0)
