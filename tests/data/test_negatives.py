"""Items drawn beside clicks."""

import numpy as np
import pytest

from metarec_jax.config import Columns, DataConfig
from metarec_jax.data import load
from metarec_jax.data.negatives import with_negatives
from metarec_jax.errors import MetarecError


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """60 users, 200 items of very unequal popularity; clicks alone."""
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
    return load(DataConfig(source="table", path=str(path), kind="click", columns=columns, **options))


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
    """Drawn alike, what was not clicked is less popular than what was; in proportion to clicks, much less so."""

    def gap(power):
        data = read(clicks, negatives=2, negatives_popularity=power)
        clicked = data.rating > 0
        popularity = np.bincount(data.item[clicked], minlength=len(data.items))[data.item]
        return popularity[clicked].mean() - popularity[~clicked].mean()

    assert gap(0.0) > gap(0.75) > gap(1.0)
    assert gap(1.0) < 0.5 * gap(0.0)


def test_equal_seeds_draw_alike(clicks):
    data = read(clicks)
    one, two, other = (with_negatives(data, 1, 0.75, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.item, two.item)
    assert not np.array_equal(one.item, other.item)


def test_who_clicked_nearly_everything_gets_what_is_left(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("user_id,item_id\n" + "".join(f"a,{i}\n" for i in range(9)) + "b,9\n")
    data = read(path, negatives=3)
    assert keys(data, (data.user == 0) & (data.rating == 0)) == {(0, 9)}


def test_ratings_are_refused():
    with pytest.raises(MetarecError, match=r"data\.negatives is 2, but data\.kind is 'rating'"):
        DataConfig(negatives=2)
    with pytest.raises(MetarecError, match=r"data\.negatives_popularity is -1"):
        DataConfig(kind="click", negatives_popularity=-1.0)
    with pytest.raises(MetarecError, match="only clicks"):
        with_negatives(load(DataConfig(source="synthetic")), 1, 1.0, 0)
