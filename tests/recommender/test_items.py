"""The catalogue of a recommender: new items, filters, and the best items of a list."""

import numpy as np
import pytest
from trained import fresh

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.filters import Filters
from metarec_jax.recommender.items import top_k
from metarec_jax.recommender.recommender import Recommender

LIKES = {1: 5, 2: 1, 3: 4, 40: 2}


@pytest.fixture(scope="module")
def changeable(recommender) -> Recommender:
    return fresh(recommender)


def test_new_items_are_scored_as_their_texts_and_compile_nothing(changeable, compilations):
    state = changeable.adapt(LIKES)
    text = "A very quiet film about bees. Drama."
    before = changeable.score_text(state, text)
    changeable.recommend(state)
    programs = len(compilations)
    added = changeable.add_item(text, id="bees", title="Bees (2001)")
    listed = changeable.recommend(state, k=121 - len(LIKES))
    assert [name for name in compilations[programs:] if "score" in name or "adapt" in name] == []
    assert added == "bees"
    assert changeable.score(state, ["Bees"])[0] == pytest.approx(before, rel=1e-5)
    (found,) = (r for r in listed if r.id == "bees")
    assert (found.title, found.ratings) == ("Bees (2001)", 0)
    assert found.score == pytest.approx(before, rel=1e-5)
    likes_bees = changeable.adapt([("id:1", 5), ("id:bees", 5)])
    assert changeable.from_bytes(changeable.to_bytes(likes_bees)).history.rows.tolist() == [0, 120]
    assert changeable.similar("id:bees", 3)


def test_the_table_grows_when_it_is_full(changeable):
    rows = changeable.items.table.rows
    while changeable.items.table.rows == rows:
        changeable.add_item("One more film.")
    assert changeable.items.table.rows > rows
    count = len(changeable.catalogue.items)
    assert len(changeable.recommend(changeable.adapt(), k=count)) == count
    changeable.add_item("x", id="wasps")
    with pytest.raises(MetarecError, match="there is an item with the id 'wasps' already"):
        changeable.add_item("x", id="wasps")
    with pytest.raises(MetarecError, match="items have no detail 'colour'"):
        changeable.add_item("x", details={"colour": "red"})


def test_filters_narrow_a_list(recommender):
    state = recommender.adapt(LIKES)
    everything = recommender.recommend(state, k=116)
    left = recommender.recommend(state, k=116, filters=Filters(exclude=[everything[0].title, int(everything[1].id)]))
    assert left == everything[2:]
    with pytest.raises(MetarecError, match="items have no detail 'colour'"):
        recommender.recommend(state, filters=Filters({"colour": ["red"]}))


def test_top_k_is_the_start_of_a_stable_sort():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 4, 30).astype(np.float32)
        candidates = rng.random(30) < 0.7
        rows = np.flatnonzero(candidates)
        want = rows[np.argsort(-scores[rows], kind="stable")]
        for k in (1, 5, 30, 100):
            np.testing.assert_array_equal(top_k(scores, k, candidates), want[:k])
