"""What is known of items, as rows of numbers."""

import dataclasses

import numpy as np
from helpers import assert_each_close

from metarec_jax.core.types import Items
from metarec_jax.factors.item_features import Numbers, Sources, Words

YEARS = tuple(str(year) for year in range(1930, 1990))
GENRES = tuple(("Drama|War", "Comedy", "", "Drama")[i % 4] for i in range(60))
ITEMS = Items(
    ids=tuple(map(str, range(60))),
    titles=YEARS,
    texts=YEARS,
    details={"year": YEARS, "genres": GENRES, "same": ("x",) * 60},
)
EMBEDDINGS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


def test_columns_are_read_as_what_they_are():
    sources = Sources.of(ITEMS, EMBEDDINGS, np.arange(60.0))
    assert isinstance(sources.details["year"], Numbers)
    assert isinstance(sources.details["genres"], Words)
    assert set(sources.details["genres"].known) == {"Drama", "War", "Comedy"}
    assert "same" not in sources.details  # says nothing


def test_every_source_has_mean_0_and_mean_square_1():
    count = np.arange(1.0, 61.0)
    rows = Sources.of(ITEMS, EMBEDDINGS, count).rows(ITEMS.details, EMBEDDINGS, count)
    assert set(rows) == {"text", "popularity", "detail:year", "detail:genres"}
    for found in rows.values():
        assert_each_close(found.mean(axis=0), 0, floor=1e-12, because="a mean of roundings")
        assert_each_close(np.mean(np.sum(np.square(found), axis=1)), 1)


def test_an_item_that_nobody_rated_is_new_and_not_unpopular():
    count = np.concatenate([np.zeros(20), np.arange(1.0, 41.0)])
    rows = Sources.of(ITEMS, EMBEDDINGS, count).rows(ITEMS.details, EMBEDDINGS, count)["popularity"]
    assert not rows[:20].any()
    assert_each_close(rows[20:].mean(), 0, floor=1e-12, because="a mean of roundings")
    assert rows[20, 0] < -1


def test_near_years_are_alike_and_far_ones_are_not():
    rows = Numbers(np.linspace(1930, 1990, 8), 60 / 7).rows(("1960", "1962", "1985", "soon", "inf"))
    near, far = rows[0] @ rows[1], rows[0] @ rows[2]
    assert near > 5 * far
    assert not rows[3:].any()  # what is no number is like nothing


def test_unknown_words_and_missing_details_say_nothing():
    sources = Sources.of(ITEMS, EMBEDDINGS, np.arange(60.0))
    rows = sources.rows({"genres": ("Western",)}, EMBEDDINGS[:1], np.zeros(1))
    middle = Words(sources.details["genres"].known).rows(("",))[0]
    name = "detail:genres"
    assert_each_close(rows[name][0], (middle - sources.shift[name]) * sources.scale[name])
    assert not rows["detail:year"].any()


def test_items_without_details_have_texts_and_counts_alone():
    bare = Items(ids=ITEMS.ids, titles=YEARS, texts=YEARS)
    rows = Sources.of(bare, EMBEDDINGS, np.zeros(60)).rows({}, EMBEDDINGS, np.zeros(60))
    assert set(rows) == {"text", "popularity"}
    assert not rows["popularity"].any()  # all alike: no NaN


def test_a_detail_may_be_called_as_a_source_is():
    odd = Items(ids=ITEMS.ids, titles=YEARS, texts=YEARS, details={"popularity": YEARS, "vector": GENRES})
    rows = Sources.of(odd, EMBEDDINGS, np.arange(60.0)).rows(odd.details, EMBEDDINGS, np.arange(60.0))
    assert set(rows) == {"text", "popularity", "detail:popularity", "detail:vector"}
    assert rows["popularity"].shape == (60, 1)


def test_items_without_a_vector_are_in_the_middle_of_those_that_have_one():
    vectors = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32) + 5
    vectors[10:20] = np.nan
    sources = Sources.of(dataclasses.replace(ITEMS, vectors=vectors), EMBEDDINGS, np.arange(1.0, 61.0))
    rows = sources.rows(ITEMS.details, EMBEDDINGS, np.arange(1.0, 61.0), vectors)["vector"]
    has = np.r_[0:10, 20:60]
    assert not rows[10:20].any()
    assert_each_close(rows[has].mean(axis=0), 0, floor=1e-12, because="a mean of roundings")
    assert_each_close(np.mean(np.sum(np.square(rows[has]), axis=1)), 1)
    new = sources.rows({}, EMBEDDINGS[:2], np.zeros(2))  # whose vectors nobody gives
    assert not new["vector"].any()
    assert new["vector"].shape == (2, 3)


def test_vectors_of_items_that_nobody_rated_have_no_say_in_the_middle():
    vectors = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    count = np.concatenate([np.zeros(20), np.ones(40)])
    other = vectors.copy()
    other[:20] = 1e6
    one, two = (Sources.of(dataclasses.replace(ITEMS, vectors=v), EMBEDDINGS, count) for v in (vectors, other))
    np.testing.assert_array_equal(one.shift["vector"], two.shift["vector"])
    assert one.scale["vector"] == two.scale["vector"]
