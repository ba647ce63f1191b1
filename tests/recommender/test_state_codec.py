"""States as bytes, new items, updates: each equal to what it stands for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import threading
import zlib

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import interactions
from test_recommender import untrained
from trained import fresh

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender import batch
from metarec_jax.recommender.executor import Executor
from metarec_jax.recommender.filters import Filters
from metarec_jax.recommender.items import top_k
from metarec_jax.recommender.recommender import Limits, Rated, Recommender
from metarec_jax.recommender.state_codec import MAX_ADAPTED_BYTES, MAX_BYTES, Seal
from metarec_jax.serving.batching import Crowded, Gatherer

LIKES = {1: 5, 2: 1, 3: 4, 40: 2}


def in_a_loop(coroutine):
    """What the coroutine returns, from a loop in a thread of its own: Playwright leaves one running in this thread."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result(timeout=120)


def same(a, b) -> bool:
    return jax.tree.all(
        jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), (a.adapted, a.support), (b.adapted, b.support))
    )


@pytest.fixture(scope="module")
def changeable(recommender) -> Recommender:
    return fresh(recommender)


def test_a_state_read_again_is_the_state(recommender):
    state = recommender.adapt(LIKES)
    data = recommender.to_bytes(state)
    assert len(data) < 32_768
    again = recommender.from_bytes(data)
    assert same(state, again)
    np.testing.assert_array_equal(again.history.rows, state.history.rows)
    assert recommender.recommend(again) == recommender.recommend(state)


def test_a_state_without_its_adapted_parameters_is_adapted_again():
    wide = untrained(
        side="none", learner=LearnerConfig(hidden=256), updater=UpdaterConfig(steps=1, kind="meta-sgd", rate=1e-3)
    )
    state = wide.adapt(LIKES)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state.adapted)) > MAX_ADAPTED_BYTES
    data = wide.to_bytes(state)
    assert wide.codec.decode(data).adapted is None
    assert same(state, wide.from_bytes(data))


def test_a_state_of_another_model_is_refused(recommender):
    theta = jax.tree.map(np.array, jax.device_get(recommender.executor.trainable))
    theta.theta["output"]["bias"][0] += 1
    other = Recommender(recommender.config, recommender.catalogue, theta, recommender.texts.encoder)
    with pytest.raises(MetarecError, match="the state belongs to another run: adapt to the history again"):
        other.from_bytes(recommender.to_bytes(recommender.adapt(LIKES)))


def test_bytes_that_are_no_state_are_refused(recommender):
    data = recommender.to_bytes(recommender.adapt(LIKES))
    whole = zlib.decompress(data)
    hostile = [b"", b"x", data[:-9], data[:20], zlib.compress(b""), zlib.compress(whole[:100])]
    hostile += [zlib.compress(b"\xff" * 64), zlib.compress(bytes(MAX_BYTES + 1)), zlib.compress(whole + b"more")]
    hostile += [zlib.compress(whole.replace(b'\\"1\\"', b'\\"x\\"'))]
    nan = np.frombuffer(whole, np.uint8).copy()
    nan[-4:] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    hostile.append(zlib.compress(nan.tobytes()))
    for bad in hostile:
        with pytest.raises(MetarecError, match=r"the state is malformed|no item has the id"):
            recommender.from_bytes(bad)


@pytest.mark.parametrize("ratings", [{7: 3}, {1: 1}, {}])
@pytest.mark.parametrize("forget", [[], [3]])
def test_an_update_is_the_history_that_it_leads_to(recommender, ratings, forget):
    updated = recommender.update(recommender.adapt(LIKES), ratings, forget)
    history = {i: r for i, r in LIKES.items() if i not in ratings and i not in forget} | ratings
    assert same(updated, recommender.adapt(history))


def test_what_is_not_in_the_history_cannot_be_forgotten(recommender):
    with pytest.raises(MetarecError, match="9 is to be forgotten, but it is not in the user's history"):
        recommender.update(recommender.adapt(LIKES), {}, [9])


def test_more_ratings_than_a_support_holds_survive_in_a_state(recommender):
    history = [Rated(i, 1 + i % 5) for i in range(1, 100)]
    state = recommender.from_bytes(recommender.to_bytes(recommender.adapt(history)))
    shorter = recommender.update(state, {}, [99])
    assert same(shorter, recommender.adapt(history[:-1]))
    assert len(shorter.history.rows) == 98


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


def test_there_is_always_room_for_more_items(changeable):
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


def test_the_best_are_the_first_of_a_stable_sort():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 4, 30).astype(np.float32)
        candidates = rng.random(30) < 0.7
        rows = np.flatnonzero(candidates)
        want = rows[np.argsort(-scores[rows], kind="stable")]
        for k in (1, 5, 30, 100):
            np.testing.assert_array_equal(top_k(scores, k, candidates), want[:k])


def test_a_seal_opens_with_its_key_and_purpose_only():
    seal = Seal(b"a" * 32)
    text = seal.close("state", b"some bytes")
    assert seal.open("state", text) == b"some bytes"
    assert Seal(b"b" * 32).open("state", text) is None
    for wrong in (text[:-1], text + "A", "B" + text[1:], "", "é", text + "\n"):
        assert seal.open("state", wrong) is None


# Many users


def many_users(recommender) -> tuple:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(7), 5)
    item = np.concatenate([rng.permutation(100)[:5] for _ in range(7)])
    data = interactions(user, item, 1 + item % 5, np.arange(35), items=120)
    items = dataclasses.replace(data.items, ids=recommender.catalogue.items.ids)
    return dataclasses.replace(data, items=items), user, item


def test_lists_of_many_users_are_those_of_each(recommender, tmp_path):
    data, user, item = many_users(recommender)
    out = tmp_path / "lists.parquet"
    assert batch.recommend_users(recommender, data, out, k=4, part=3) == 7
    table = pq.read_table(out).to_pydict()
    assert table["place"] == [1, 2, 3, 4] * 7
    for u in range(7):
        history = [(f"id:{data.items.ids[i]}", 1 + i % 5) for i in item[user == u]]
        want = recommender.recommend(recommender.adapt(history), k=4)
        rows = [n for n, name in enumerate(table["user_id"]) if name == data.users.ids[u]]
        assert [table["item_id"][n] for n in rows] == [r.id for r in want]
        np.testing.assert_allclose([table["score"][n] for n in rows], [r.score for r in want], rtol=1e-5)
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(MetarecError, match="is there already"):
        batch.recommend_users(recommender, data, out)


class Interrupting(Executor):
    """Counts the users of each call, and interrupts the second one."""

    calls: list[int]

    def adapt(self, histories, embeddings):
        self.calls.append(len(histories))
        if len(self.calls) == 2:
            raise KeyboardInterrupt
        return super().adapt(histories, embeddings)


def test_an_interrupted_job_continues_after_the_last_part(recommender, tmp_path):
    data, *_ = many_users(recommender)
    expected, out = tmp_path / "expected.parquet", tmp_path / "lists.parquet"
    batch.recommend_users(recommender, data, expected, k=4, part=3)
    recommender = fresh(recommender)
    executor = recommender.executor
    recommender.executor = Interrupting(
        recommender.config,
        recommender.catalogue.scale,
        executor.model,
        executor.trainable,
        recommender.items.table,
        Limits(),
    )
    recommender.executor.calls = calls = []
    with pytest.raises(KeyboardInterrupt):
        batch.recommend_users(recommender, data, out, k=4, part=3)
    assert not out.exists()
    with pytest.raises(MetarecError, match="another run, other users or other options"):
        batch.recommend_users(recommender, data, out, k=5, part=3)
    batch.recommend_users(recommender, data, out, k=4, part=3)
    assert calls == [3, 3, 3, 1]
    assert expected.read_bytes() == out.read_bytes()


# Gathering


def test_what_comes_while_a_call_runs_goes_into_the_next():
    started, go = threading.Event(), threading.Event()
    calls: list[list[int]] = []

    def answer(jobs):
        calls.append(list(jobs))
        started.set()
        go.wait(10)
        return [ValueError(job) if job == 3 else 10 * job for job in jobs]

    async def run():
        gatherer: Gatherer[int] = Gatherer(answer, wait=0.0, most=3, longest=4)
        first = asyncio.create_task(gatherer.ask(0))
        await asyncio.to_thread(started.wait, 10)
        others = [asyncio.create_task(gatherer.ask(n)) for n in range(1, 5)]
        await asyncio.sleep(0)
        with pytest.raises(Crowded):
            await gatherer.ask(9)
        others[1].cancel()  # whoever asked has gone away
        go.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        gatherer.close()
        return found

    found = in_a_loop(run())
    assert calls == [[0], [1, 2, 3], [4]]
    assert [found[0], found[1], found[4]] == [0, 10, 40]
    assert isinstance(found[2], asyncio.CancelledError)
    assert isinstance(found[3], ValueError)


def test_functions_count_among_what_waits():
    go = threading.Event()

    async def run():
        gatherer: Gatherer[int] = Gatherer(list, wait=0.0, longest=3)
        under_way = [asyncio.create_task(gatherer.run(lambda n=n: (go.wait(10), n)[1])) for n in range(2)]
        await asyncio.sleep(0)
        under_way.append(asyncio.create_task(gatherer.ask(2)))
        await asyncio.sleep(0.05)  # its call waits for the thread
        under_way.append(asyncio.create_task(gatherer.run(lambda: 3)))
        await asyncio.sleep(0)
        assert gatherer.waiting == 3
        with pytest.raises(Crowded):
            await gatherer.run(lambda: 4)
        with pytest.raises(Crowded):
            await gatherer.ask(4)
        go.set()
        found = await asyncio.gather(*under_way)
        assert (gatherer.waiting, await gatherer.run(lambda: 5)) == (0, 5)
        gatherer.close()
        return found

    assert in_a_loop(run()) == [0, 1, 2, 3]


def test_a_failed_call_fails_those_in_it_and_no_others():
    def answer(jobs):
        if 1 in jobs:
            raise RuntimeError("broken")
        return list(jobs)

    async def run():
        gatherer: Gatherer[int] = Gatherer(answer, wait=0.0, most=1)
        found = await asyncio.gather(*(gatherer.ask(n) for n in range(3)), return_exceptions=True)
        gatherer.close()
        return found

    zero, one, two = in_a_loop(run())
    assert (zero, two) == (0, 2)
    assert isinstance(one, RuntimeError)
