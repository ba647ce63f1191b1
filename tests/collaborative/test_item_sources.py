"""What is known of items, as rows of numbers."""

import numpy as np

from metarec_jax.collaborative.sources import Numbers, Sources, Words
from metarec_jax.types import Items

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
    assert set(rows) == {"text", "popularity", "year", "genres"}
    for found in rows.values():
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(np.mean(np.sum(np.square(found), axis=1)), 1)


def test_an_item_that_nobody_rated_is_new_and_not_unpopular():
    count = np.concatenate([np.zeros(20), np.arange(1.0, 41.0)])
    rows = Sources.of(ITEMS, EMBEDDINGS, count).rows(ITEMS.details, EMBEDDINGS, count)["popularity"]
    assert not rows[:20].any()
    np.testing.assert_allclose(rows[20:].mean(), 0, atol=1e-12)
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
    np.testing.assert_allclose(rows["genres"][0], (middle - sources.shift["genres"]) * sources.scale["genres"])
    assert not rows["year"].any()


def test_items_without_details_have_texts_and_counts_alone():
    bare = Items(ids=ITEMS.ids, titles=YEARS, texts=YEARS)
    rows = Sources.of(bare, EMBEDDINGS, np.zeros(60)).rows({}, EMBEDDINGS, np.zeros(60))
    assert set(rows) == {"text", "popularity"}
    assert not rows["popularity"].any()  # all alike: no NaN
