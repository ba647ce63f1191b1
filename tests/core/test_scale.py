"""The scale of ratings: to the standard scale and back, its ends, and what is liked."""

import dataclasses

import numpy as np
import pytest
from helpers import assert_equal, interactions
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import CLICKS, STARS, Scale, scale_from_json
from metarec_jax.data import load
from metarec_jax.data.interactions import build
from metarec_jax.data.values import Table

UNITS = st.tuples(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
"""(a, b) of ratings a r + b."""


def table(rating: list[float]) -> Table:
    """A table of one user's ratings, one an item."""
    columns = {"user": ["u"] * len(rating), "item": [f"i{n:03d}" for n in range(len(rating))]}
    return Table("r.csv", columns | {"rating": [repr(float(r)) for r in rating]}, lambda row: f"line {row + 2}")


def test_stars_and_clicks_are_not_converted():
    rating = np.float32([1, 1.1, 2.5, 5])
    for scale in (STARS, CLICKS):
        assert scale.standard(rating) is rating
        assert scale.original(rating) is rating


@settings(deadline=None)
@given(UNITS)
def test_the_same_opinions_in_another_unit_are_the_same_data(unit):
    a, b = unit
    opinions = np.array([1, 5, 2, 3, 4, 3, 2.5])
    data, other = (build(table(list(written)), source="") for written in (opinions, a * opinions + b))
    assert_equal(other.rating, data.rating)
    assert other.scale.standardised().levels == data.scale.standardised().levels
    liked, others = (d.scale.likes(d.scale.original(d.rating)) for d in (data, other))
    assert liked.tolist() == others.tolist() == [False, True, False, False, True, False, False]


@settings(deadline=None)
@given(UNITS, st.lists(st.integers(0, 100), min_size=2, unique=True))
def test_every_rating_of_the_data_can_be_given(unit, steps):
    a, b = unit
    written = [a * n + b for n in steps]
    data = build(table(written), source="")
    assert_equal(np.array([data.scale.place(r) for r in written]), data.rating)
    assert (data.scale.low, data.scale.high) == (min(written), max(written))


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (3.3, 9.9), (-10.0, 10.0), (1.0, 4096.0), (1e9, 1e9 + 4)])
def test_only_ratings_between_the_ends_can_be_given(low, high):
    scale = Scale("rating", (), low, high)
    assert (scale.place(low), scale.place(high)) == (1, 5)
    beyond = (high - low) / 1000
    assert [scale.place(r) for r in (low - beyond, high + beyond, float("nan"), float("inf"), -1e308)] == [None] * 5


def test_decimals_come_back_as_they_were_written():
    for written in ([0.1, 0.3, 0.5, 0.7, 0.9], [3.3, 6.6, 9.9], [-9.53, 0.07, 10.0], [2.0, 1023.0, 4096.0]):
        data = build(table(written), source="")
        assert data.scale.decimal(data.rating).tolist() == written
        assert data.scale.decimal(data.rating[0]) == written[0]


@pytest.mark.parametrize(
    ("scale", "border"),
    [
        (STARS, 4.0),
        (Scale("rating", (), 2.0, 10.0), 8.0),
        (Scale("rating", (), 0.2, 1.0), 0.8),
        (Scale("rating", (), 0.1, 0.9), 0.7),
        (Scale("rating", (), -10.0, 10.0), 5.0),
        (Scale("rating", (), 0.1, 0.9, liked=0.5), 0.5),
        (CLICKS, 1.0),
    ],
)
def test_the_top_quarter_of_the_scale_is_liked_or_what_is_asked_for(scale, border):
    assert scale.liked_from == border
    below = border - 1e-3 * (scale.high - scale.low)
    assert scale.likes(np.array([border, scale.high, below, np.nan])).tolist() == [True, True, False, False]
    assert scale.likes(np.float32([border])).all()
    assert scale_from_json(scale._asdict()) == scale


def test_a_float32_column_means_the_decimals_that_it_rounds(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rating = np.float32([0.1, 0.9, 0.7])
    pq.write_table(
        pa.table({"user_id": ["a"] * 3, "item_id": ["x", "y", "z"], "rating": rating}), tmp_path / "r.parquet"
    )
    config = DataConfig(source="table", path=str(tmp_path / "r.parquet"))
    config = dataclasses.replace(config, columns=dataclasses.replace(config.columns, time=""))
    assert load(config).scale == Scale("rating", (0.1, 0.7, 0.9), 0.1, 0.9)
    chosen = load(dataclasses.replace(config, liked="0.9"))
    assert chosen.scale.likes(np.array([0.7, 0.9])).tolist() == [False, True]


MISTAKES = {
    "liked is no number": ({"liked": "much"}, ["data.liked is 'much'", "a number"]),
    "liked is not finite": ({"liked": "inf"}, ["data.liked is 'inf'"]),
    "below the scale": ({"liked": "1"}, ["data.liked is 1", "between 1 and 5", "above the least"]),
    "above the scale": ({"liked": "7.5"}, ["data.liked is 7.5", "between 1 and 5"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_liked_is_refused(mistake):
    fields, says = MISTAKES[mistake]
    with pytest.raises(MetarecError) as error:
        load(DataConfig(**{"source": "synthetic"} | fields))
    assert not [part for part in says if part not in str(error.value)]


def test_ratings_that_double_precision_hardly_tells_apart_are_refused():
    with pytest.raises(MetarecError, match=r"r\.csv.*1e\+17.*subtract the least"):
        build(table([1e17, 1e17 + 64]), source="")


def test_the_small_data_of_tests_is_on_the_standard_scale():
    assert interactions([0], [0], [3]).scale == STARS
