"""The package as a library: the arguments that people pass, threads, other processes and states of other runs."""

import dataclasses
import multiprocessing
import os
import pickle
import threading

import jaxtyping
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers import assert_equal, assert_says
from trained import small_config, trained_run

import metarec_jax as mr
from metarec_jax.recommender.filters import Filters


@pytest.fixture(autouse=True)
def unchecked():
    """As for a user: without the type checker of the tests, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def ids(recommender):
    return [int(identity) for identity in recommender.catalogue.items.ids[:2]]


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b: [(np.int64(a), np.float32(5)), (np.str_(f"id:{b}"), 2)],
        lambda a, b: zip((a, b), (5, 2)),
        lambda a, b: np.array([[a, 5], [b, 2]]),
        lambda a, b: pd.Series([5, 2], index=[a, b]),
        lambda a, b: pd.DataFrame({"rating": [5, 2], "item_id": [a, b]}),
        lambda a, b: pa.table({"item_id": [str(a), str(b)], "rating": [5.0, 2.0]}),
    ],
    ids=["NumPy scalars", "an iterator", "an array", "a series", "a frame", "an Arrow table"],
)
def test_every_form_of_a_history_is_the_same_history(recommender, ids, form):
    a, b = ids
    want, got = recommender.adapt({a: 5, b: 2}), recommender.adapt(form(a, b))
    assert_equal(got.adapted, want.adapted)


def test_arguments_are_taken_in_the_form_that_is_meant(recommender, ids):
    state = recommender.adapt()
    assert recommender.recommend(state, k=2.0) == recommender.recommend(state, np.int64(2))
    want = recommender.score(state, ids)
    for items in (np.array(ids), pd.Series(ids), tuple(float(i) for i in ids)):
        np.testing.assert_array_equal(recommender.score(state, items), want)


FRAME = pd.DataFrame({"who": [1, 1, 2], "item_id": ["a", "b", "a"], "rating": [1.0, 2.0, 3.0]})
WRONG = [
    (lambda r, s: r.recommend(s, k="5"), ["k is '5'", "whole number"]),
    (lambda r, s: r.recommend(s, k=True), ["k is True", "whole number"]),
    (lambda r, s: r.recommend(s, k=2.5), ["k is 2.5", "whole number"]),
    (lambda r, s: r.recommend(s, exclude_seen="no"), ["exclude_seen is 'no'", "True or False"]),
    (lambda r, s: r.recommend(s, filters={"genres": ["War"]}), ["filters is of type dict", "Filters("]),
    (lambda r, s: r.recommend(s, filters=Filters({"genres": "War"})), ["filters", "a list of words"]),
    (lambda r, s: r.recommend(s, filters=Filters(between={"year": 3})), ["filters", "two numbers"]),
    (lambda r, s: r.recommend(s, filters=Filters(exclude=3)), ["filters", "a list of items"]),
    (lambda r, s: r.recommend({1: 5}), ["state is of type dict", "adapt"]),
    (lambda r, s: r.recommend(), ["'state'", "exclude_seen"]),
    (lambda r, s: r.recommend(s, size=3), ["'size'", "state, k"]),
    (lambda r, s: r.recommend_many(s), ["states is of type UserState", "a list of states"]),
    (lambda r, s: r.adapt("1=5"), ["'1=5'", "(item, rating)"]),
    (lambda r, s: r.adapt(b"1=5"), ["b'1=5'", "(item, rating)"]),
    (lambda r, s: r.adapt([1, 5]), ["entry 0", "1 (int)", "(item, rating)"]),
    (lambda r, s: r.adapt([{"item": 1, "rating": 5}]), ["entry 0", "of type dict", "(item, rating)"]),
    (lambda r, s: r.adapt(None), ["None", "(item, rating)"]),
    (lambda r, s: r.adapt(5), ["5 (int)", "(item, rating)"]),
    (lambda r, s: r.adapt({1: True}), ["True", "no rating"]),
    (lambda r, s: r.adapt({1: np.True_}), ["True", "no rating"]),
    (lambda r, s: r.adapt({1: None}), ["None"]),
    (lambda r, s: r.adapt({1: 10**400}), ["1000", "ratings lie between"]),
    (lambda r, s: r.adapt({1: 10**5000}), ["thousands of digits", "ratings lie between"]),
    (lambda r, s: r.adapt({10**5000: 5}), ["thousands of digits", "title"]),
    (lambda r, s: r.recommend(s, k=10**5000), ["thousands of digits", "whole number"]),
    (lambda r, s: r.adapt([(None, 5)]), ["item is None", "title"]),
    (lambda r, s: r.adapt([(float("nan"), 5)]), ["nan", "title"]),
    (lambda r, s: r.adapt(pd.Series([5, 2])), ["index must be the items"]),
    (lambda r, s: r.adapt(pd.DataFrame({"a": [1], "rating": [5]})), ["a, rating", "item_id"]),
    (lambda r, s: r.adapt((), profile=3), ["profile is 3"]),
    (lambda r, s: r.adapt_many({"u1": {1: 5}}), ["histories is of type dict", "values"]),
    (lambda r, s: r.adapt_many([()], [3]), ["profiles", "entry 0", "3 (int)"]),
    (lambda r, s: r.update(s, forget=3), ["forget is 3", "list of items"]),
    (lambda r, s: r.score(s, "Alien"), ["items is 'Alien'", "list of items"]),
    (lambda r, s: r.score(s, pd.DataFrame({"a": [1]})), ["items is of type DataFrame", "list of items"]),
    (lambda r, s: r.score_text(s, None), ["text is None", "a string"]),
    (lambda r, s: r.score_text(s, ["x", "y"]), ["text is of type list", "a string"]),
    (lambda r, s: r.uncertainty(s, 3), ["items is 3"]),
    (lambda r, s: r.explain(s, [1], words="yes"), ["words is 'yes'"]),
    (lambda r, s: r.interview(s, k=None), ["k is None"]),
    (lambda r, s: r.similar([1, 2]), ["item is of type list"]),
    (lambda r, s: r.similar(1, by="genre"), ["by is 'genre'", "taste"]),
    (lambda r, s: r.add_item(3), ["text is 3"]),
    (lambda r, s: r.add_item("x", details=["War"]), ["details is of type list"]),
    (lambda r, s: r.learn_item(1, [3]), ["raters", "pairs (history, rating)"]),
    (lambda r, s: r.find(None), ["item is None"]),
    (lambda r, s: r.title(None), ["item is None"]),
    (lambda r, s: r.to_bytes(None), ["state is None"]),
    (lambda r, s: r.from_bytes("abc"), ["data is 'abc'", "to_bytes"]),
    (lambda r, s: mr.Recommender.load(None), ["folder is None", "path"]),
    (lambda r, s: mr.Recommender("runs/a"), ["catalogue"]),
    (lambda r, s: mr.load({"user": [1]}), ["user_id", "columns="]),
    (lambda r, s: mr.load([1]), ["of type list", "pandas"]),
    (lambda r, s: mr.load(None), ["None", "DataConfig"]),
    (lambda r, s: mr.load(mr.preset("synthetic").data, seed="x"), ["seed is 'x'"]),
    (lambda r, s: mr.load(FRAME), ["'user_id'", "who", "columns="]),
    (lambda r, s: mr.load(FRAME, columns={"usr": "who"}), ["'usr'", "user, item"]),
    (lambda r, s: mr.load(FRAME.astype(object), columns=["who"]), ["columns is of type list"]),
    (lambda r, s: mr.load(FRAME, repeat="mean"), ["no option 'repeat'", "repeats"]),
    (lambda r, s: mr.load(FRAME, items=[1], columns={"user": "who"}), ["of type list", "pandas"]),
    (lambda r, s: mr.load("ratings.csv", items=FRAME), ["items is of type DataFrame"]),
    (lambda r, s: mr.load(mr.preset("synthetic").data, columns={}), ["leave columns out"]),
    (lambda r, s: mr.meta_train({"train": 1}, "x"), ["config is of type dict", "preset"]),
    (lambda r, s: mr.meta_train(small_config(), None), ["folder is None"]),
    (lambda r, s: mr.meta_train(small_config(), "x", data=FRAME), ["data is of type DataFrame", "metarec_jax.load"]),
    (lambda r, s: mr.start(small_config(), 3), ["folder is 3"]),
    (lambda r, s: mr.fit(1, 2), ["run is 1", "open_run"]),
    (lambda r, s: mr.resume(3), ["folder is 3"]),
    (lambda r, s: mr.open_run(3), ["folder is 3"]),
    (lambda r, s: mr.build({}), ["config is of type dict"]),
    (lambda r, s: mr.preset(3), ["name is 3"]),
    (lambda r, s: mr.to_json(3), ["config is 3"]),
    (lambda r, s: mr.from_json({}, where="x"), ["text is of type dict"]),
    (lambda r, s: mr.Config(seed="x"), ["seed is 'x'"]),
    (lambda r, s: mr.Config(train={"epochs": 1}), ["train is of type dict", "from_json"]),
    (lambda r, s: mr.Interactions(*range(11)), ["arrays", "metarec_jax.load"]),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_argument_is_refused_with_what_to_pass(recommender, number):
    call, names = WRONG[number]
    with pytest.raises(mr.MetarecError) as error:
        call(recommender, recommender.adapt())
    assert_says(str(error.value), *names)
    assert len(str(error.value)) < 600


def test_a_table_in_memory_is_data():
    data = mr.load(FRAME, columns={"user": "who", "time": ""})
    assert (data.users.ids, data.items.ids) == (("1", "2"), ("a", "b"))
    assert data.scale.decimal(data.rating).tolist() == [1.0, 2.0, 3.0]
    clicks = mr.load(pa.Table.from_pandas(FRAME), columns={"user": "who", "time": "", "rating": ""}, kind="click")
    assert (clicks.scale.kind, clicks.rating.tolist()) == ("click", [1.0, 1.0, 1.0])


def test_items_and_options_of_a_table_in_memory(tmp_path):
    """A table of items in memory or in a file; options of the command as arguments; the same tables as files."""
    who = {"user": "who"}
    items = pd.DataFrame({"item_id": ["b", "a"], "title": ["Bees", "Ants"], "legs": [6, 6]})
    FRAME.to_csv(tmp_path / "ratings.csv", index=False)
    items.to_csv(tmp_path / "items.csv", index=False)
    read = [
        mr.load(FRAME, items=items, columns=who),
        mr.load(FRAME, items=str(tmp_path / "items.csv"), columns=who),
        mr.load(tmp_path / "ratings.csv", items=tmp_path / "items.csv", columns=who),
    ]
    for data in read:
        assert (data.items.ids, data.items.texts, data.items.details["legs"]) == (
            ("a", "b"),
            ("Ants", "Bees"),
            ("6", "6"),
        )
    (tmp_path / "latin.csv").write_bytes("item_id,title\na,Ameisen f\xfcr alle\nb,Bienen\n".encode("latin-1"))
    latin = mr.load(FRAME, items=tmp_path / "latin.csv", columns=who, encoding="latin-1")
    assert latin.items.texts == ("Ameisen für alle", "Bienen")
    twice = pd.concat([FRAME, FRAME.assign(rating=FRAME.rating + 1)])
    with pytest.raises(mr.MetarecError, match=r"--data\.repeats latest"):
        mr.load(twice, columns=who)
    merged = mr.load(twice, columns=who, repeats="mean")
    assert merged.scale.decimal(merged.rating).tolist() == [1.5, 2.5, 3.5]


@pytest.mark.slow
def test_a_state_of_another_run_is_refused(recommender, ids, tmp_path):
    """Training in a thread, as in a web application, to a folder that is a string."""
    failed = []

    def train():
        try:
            mr.meta_train(dataclasses.replace(small_config(), seed=7), str(tmp_path / "other"))
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not failed
    other, state = mr.Recommender.load(str(tmp_path / "other")), recommender.adapt({ids[0]: 5})
    for call in (
        lambda: other.recommend(state, k=2),
        lambda: other.score(state, ids),
        lambda: other.update(state, {ids[1]: 3}),
        lambda: other.to_bytes(state),
        lambda: other.explain(state, ids),
    ):
        with pytest.raises(mr.MetarecError, match="another run"):
            call()


def best(recommender: mr.Recommender, state: mr.UserState) -> list[str]:
    return [item.id for item in recommender.recommend(state, 3)]


def test_another_process_recommends_the_same(ids):
    """Sent to a process that is started afresh; one with added items, which its folder does not have, is refused."""
    recommender = mr.Recommender.load(trained_run())
    state = recommender.adapt({ids[0]: 5})
    copy, copied = pickle.loads(pickle.dumps((recommender, state)))
    assert best(copy, copied) == best(recommender, state)
    recommender.add_item("A new film")
    with pytest.raises(mr.MetarecError, match="without added items"):
        pickle.dumps(recommender)


def tell(queue, recommender: mr.Recommender) -> None:
    try:
        queue.put(str(recommender.recommend(recommender.adapt())))
    except mr.MetarecError as error:
        queue.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on POSIX only")
@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_a_forked_process_does_not_wait_forever(recommender):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=tell, args=(queue, recommender))
    process.start()
    try:
        assert_says(queue.get(timeout=60), "forked", "spawn")
    finally:
        process.kill()
        process.join()
