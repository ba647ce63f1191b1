"""Recommendations for all users of a data set, in a Parquet file."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import interactions
from trained import fresh

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender import batch
from metarec_jax.recommender.executor import Executor
from metarec_jax.recommender.recommender import Limits


def many_users(recommender) -> tuple:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(7), 5)
    item = np.concatenate([rng.permutation(100)[:5] for _ in range(7)])
    data = interactions(user, item, 1 + item % 5, np.arange(35), items=120)
    items = dataclasses.replace(data.items, ids=recommender.catalogue.items.ids)
    return dataclasses.replace(data, items=items), user, item


def test_lists_equal_those_of_single_users(recommender, tmp_path):
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
