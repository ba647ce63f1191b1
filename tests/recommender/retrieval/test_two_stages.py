"""Lists of two stages, and tables that are not on the device, against the whole model on all items."""

import dataclasses

import numpy as np
import pytest
from helpers import assert_close
from trained import believing_run, trained_run

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.file_rows import FileRows
from metarec_jax.core.types import Items
from metarec_jax.recommender.errors import InputError
from metarec_jax.recommender.export import export_folder
from metarec_jax.recommender.filters import Filters
from metarec_jax.recommender.load_run import load_run
from metarec_jax.recommender.recommender import Limits, Recommender
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.engine import Engine, Job, List, Whose
from metarec_jax.serving.store import Store
from metarec_jax.train import catalogue
from metarec_jax.train.catalogue import Catalogue, Statistics

ITEMS = 2500
SMALL = Limits(whole_items=500, candidates=200)
OFF_DEVICE = SMALL._replace(device_floats=0, items_at_once=400)
RATED = ({0: 5, 3: 1, 7: 4}, {10: 2}, {})


def catalogue_of(found: Catalogue) -> Catalogue:
    """Many items around those of a run."""
    rng = np.random.default_rng(0)
    parent = rng.integers(0, len(found.items), ITEMS)
    names = tuple(map(str, range(ITEMS)))
    items = Items(names, tuple(f"Film {n}" for n in names), names, {"year": tuple(str(1900 + n % 100) for n in parent)})

    def around(rows, scale):
        return (rows[parent] + scale * rows.std(axis=0) * rng.normal(size=rows[parent].shape)).astype(np.float32)

    total, count, beliefs = found.statistics
    if beliefs is not None:
        beliefs = np.concatenate([beliefs[parent, :2], around(beliefs[:, 2:], 0.3)], axis=1)
    statistics = Statistics(total[parent], count[parent], beliefs)
    return dataclasses.replace(found, items=items, statistics=statistics, embeddings=around(found.embeddings, 0.3))


def many_items(run, limits) -> Recommender:
    config, found, trainable, encoder = load_run(run)
    one_length = dataclasses.replace(config.episodes, buckets=(16,))  # fewer programs to compile
    config = dataclasses.replace(config, episodes=one_length)
    return Recommender(config, catalogue_of(found), trainable, encoder, limits=limits)


def states_of(recommender):
    return recommender.adapt_many([{f"id:{row}": rating for row, rating in rated.items()} for rated in RATED])


@pytest.fixture(scope="module")
def two_stages():
    return many_items(believing_run(), SMALL)


@pytest.fixture(scope="module")
def off_device():
    return many_items(trained_run(), OFF_DEVICE)


def same_lists(found, wanted):
    assert [[item.id for item in one] for one in found] == [[item.id for item in one] for one in wanted]
    assert_close(*(np.array([[item.score for item in one] for one in lists], np.float32) for lists in (found, wanted)))


@pytest.mark.parametrize("name", ["two_stages", "off_device"])
def test_the_list_is_that_of_the_whole_model(name, request):
    recommender = request.getfixturevalue(name)
    states = states_of(recommender)
    assert recommender.candidates.needed(10)
    same_lists(recommender.recommend_many(states, 10), recommender.recommend_many(states, 10, full=True))
    proposed = recommender.candidates.rows(states, None, exclude_seen=True)
    assert [len(rows) for rows in proposed] == [200, 200, 200]
    assert not set(RATED[0]) & set(proposed[0].tolist())


def test_long_lists_and_small_catalogues_rank_all_items(two_stages):
    assert not two_stages.candidates.needed(51)
    assert len(two_stages.recommend(states_of(two_stages)[0], ITEMS, exclude_seen=False)) == ITEMS
    assert not Recommender.load(trained_run()).candidates.needed(1)


def test_filters_and_seen_items(two_stages):
    states = states_of(two_stages)
    for filters in (Filters(between={"year": (1900, 1959)}), Filters({"year": ["1903"]}, exclude=["id:5"])):
        for exclude_seen in (True, False):
            found = two_stages.recommend_many(states, 10, exclude_seen, filters)
            same_lists(found, two_stages.recommend_many(states, 10, exclude_seen, filters, full=True))
    nothing = Filters({"year": ["1"]})
    assert two_stages.recommend_many(states, 10, filters=nothing) == [[], [], []]


@pytest.mark.parametrize(
    ("run", "limits"), [(believing_run, SMALL), (trained_run, OFF_DEVICE)], ids=["on the device", "off the device"]
)
def test_added_items_are_proposed_without_building_again(run, limits):
    recommender = many_items(run(), limits)
    state = states_of(recommender)[0]
    (best,) = recommender.recommend(state, 1)
    index = recommender.candidates.index
    text = recommender.catalogue.items.texts[0]
    new = [recommender.add_item(text, title=f"New {n}") for n in range(3)]
    row = recommender.find(f"id:{new[1]}").row
    statistics = recommender.catalogue.statistics
    total, count = statistics.total.copy(), statistics.count.copy()
    total[row], count[row] = 200, 40  # forty users gave the new item five stars
    recommender.items.set_statistics(np.array([row]), statistics._replace(total=total, count=count))
    assert recommender.candidates.index is index
    found = recommender.recommend(state, 40)
    same_lists([found], [recommender.recommend(state, 40, full=True)])
    vector = recommender.candidates.vectors[np.array([row])][0].astype(np.float64)
    (only,) = index.top(vector, 1, np.arange(ITEMS + 3) == row).rows.tolist()
    assert only == row
    assert best.id in {item.id for item in found}


@pytest.mark.slow
def test_a_table_off_the_device_gives_the_same_answers(two_stages):
    other = many_items(believing_run(), OFF_DEVICE)
    states, own = states_of(two_stages), states_of(other)
    because = "products with the items of a call are added in another order than those of the whole table"
    for left, right in zip(states, own):
        assert_close(right.adapted, left.adapted, tolerance=1e-4, because=because)
    same_lists(other.recommend_many(own, 10), two_stages.recommend_many(states, 10))
    same_lists(other.recommend_many(own, 10, full=True), two_stages.recommend_many(states, 10, full=True))
    rows = np.array([0, 7, 2499])
    for recommender in (two_stages, other):
        scored = dict(recommender.executor.score_all_with_deviation(states_of(recommender)))
        some = recommender.executor.score_rows_with_deviation(states_of(recommender)[1], rows)
        assert_close(some, scored[1][:, rows])
    explained = [recommender.explain(states_of(recommender)[0], ["id:9"])[0] for recommender in (two_stages, other)]
    assert explained[0].sentence == explained[1].sentence
    assert [s.title for s in other.similar("id:4", 5)] == [s.title for s in two_stages.similar("id:4", 5)]


def test_the_service_lists_candidates(two_stages, tmp_path):
    """The service's lists and scores are those of the library, with exploration among the best of the candidates."""
    engine = Engine([Arm("one", two_stages)], Store(tmp_path))
    engine.warm(1)
    history = [(str(row), rating) for row, rating in RATED[0].items()]
    jobs = [
        Job(Whose("a", history=history), List(5), items=["3", "2499"]),
        Job(Whose("b"), List(5, filters=Filters({"year": ["1903"]}))),
        Job(Whose("c"), items=["7"]),
        Job(Whose("d"), List(3, filters=Filters(exclude=["no such item"]))),
    ]
    *done, failed = engine.answer(jobs)
    state = states_of(two_stages)[0]
    wanted = two_stages.recommend(state, 5)
    assert [place.shown.item for place in done[0].places] == [item.id for item in wanted]
    assert_close(
        np.float32([place.shown.score for place in done[0].places]), np.float32([item.score for item in wanted])
    )
    assert all(0 < place.deviation < 2 for place in done[0].places)
    assert_close(done[0].scores[:, 0], two_stages.score(state, ["id:3", "id:2499"]))
    assert {two_stages.catalogue.items.details["year"][int(p.shown.item)] for p in done[1].places} == {"1903"}
    assert done[2].scores.shape == (1, 2)
    assert isinstance(failed, InputError)


def test_embeddings_that_stay_in_their_file_give_the_same_list(monkeypatch):
    held = Recommender.load(trained_run())
    monkeypatch.setattr(catalogue, "MAPPED", 0)
    mapped = Recommender.load(trained_run())
    assert isinstance(mapped.catalogue.embeddings, FileRows)
    lists = [r.recommend(r.adapt({"id:1": 5, "id:2": 1}), 10) for r in (held, mapped)]
    assert lists[0] == lists[1]


def test_a_saved_index_is_used_again_and_that_of_another_run_refused(tmp_path):
    recommender, other = (many_items(run(), SMALL) for run in (believing_run, trained_run))
    recommender.candidates.save(tmp_path / "index")
    again = many_items(believing_run(), SMALL)
    again.candidates.load(tmp_path / "index")
    same_lists(again.recommend_many(states_of(again)), recommender.recommend_many(states_of(recommender)))
    with pytest.raises(MetarecError, match="the index of another run"):
        other.candidates.load(tmp_path / "index")
    again.add_item("A new film")
    with pytest.raises(MetarecError, match="save the index before"):
        again.candidates.save(tmp_path / "later")
    with pytest.raises(MetarecError, match="load the index before"):
        again.candidates.load(tmp_path / "index")


def test_recall_is_told_when_an_approximate_index_is_built():
    recommender, told = many_items(trained_run(), SMALL), []
    for kind in ("graph", "approximate-scan", "scan"):
        recommender.candidates.use(kind, told.append)
        found = recommender.recommend_many(states_of(recommender), 10)
        same_lists(found, recommender.recommend_many(states_of(recommender), 10, full=True))
    assert len(told) == 2
    assert '"graph" finds' in told[0]
    assert '"approximate-scan" finds 100.00%' in told[1]


def test_a_large_catalogue_cannot_be_exported(off_device, tmp_path):
    with_profiles = dataclasses.replace(off_device.config.learner, user_side="profile")
    config = dataclasses.replace(off_device.config, learner=with_profiles)
    parts = off_device.catalogue, off_device.executor.trainable, off_device.texts.encoder
    off_device = Recommender(config, *parts, limits=OFF_DEVICE)
    with pytest.raises(MetarecError, match=r"2,500 items of width \d+, too many"):
        export_folder(off_device, tmp_path / "out")
