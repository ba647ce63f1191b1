"""Batches hold the tasks unchanged, and the statistics of a task leave out its own labels."""

import dataclasses

import numpy as np
import pytest
from helpers import random_interactions

from metarec_jax.data.splits import Folded, row_statistics
from metarec_jax.data.tasks import TaskSource, joined, make_tasks

DATA = random_interactions(np.random.default_rng(1), users=9, items=15, least=6, most=12)


def some_tasks(rng, number=11, most=7):
    """Tasks of random rows of DATA, some without support; a user can have several."""
    users = rng.integers(0, 9, number)
    rows = [rng.permutation(np.flatnonzero(DATA.user == u)) for u in users]
    lengths = rng.integers(0, most, number)
    lengths[0] = 0
    return make_tasks(
        users, [r[2 : 2 + n] for r, n in zip(rows, lengths)], [r[: 1 + i % 2] for i, r in enumerate(rows)]
    )


def source_of(tasks, trained=(), **options):
    mask = np.isin(np.arange(len(DATA)), trained)
    statistics = row_statistics(DATA, np.flatnonzero(mask))
    return TaskSource(DATA, tasks, statistics, mask, **{"buckets": (2, 8), "users_per_batch": 3} | options)


def naive(tasks, trained):
    """[(user, support, query)], rows as (item, rating, sum, count), by loops."""

    def rows(numbers):
        found = []
        for row in numbers:
            others = [r for r in trained if DATA.item[r] == DATA.item[row] and r != row]
            found.append((DATA.item[row], DATA.rating[row], sum(DATA.rating[r] for r in others), len(others)))
        return found

    found, s, q = [], 0, 0
    for user, n, m in zip(tasks.user, tasks.supports, tasks.queries):
        latest_first = sorted(tasks.support[s : s + n], key=lambda row: (-DATA.time[row], -row))
        found.append((user, rows(latest_first), rows(tasks.query[q : q + m])))
        s, q = s + n, q + m
    return found


def unpacked(rows, i):
    real = rows.mask[i] > 0
    return list(zip(*(c[real].tolist() for c in (rows.item[i], rows.rating[i])), *rows.statistic[i][real].T.tolist()))


@pytest.mark.parametrize("seed", range(4))
def test_every_task_comes_once_with_its_rows_and_the_others_statistics(seed):
    rng = np.random.default_rng(seed)
    tasks = some_tasks(rng)
    trained = rng.permutation(len(DATA))[:40]
    source = source_of(tasks, trained)
    want = naive(tasks, trained.tolist())
    seen = []
    for index, (bucket, members) in enumerate(source.plan):
        batch = source[index]
        assert batch.support.mask.shape == (3, (2, 8)[bucket])
        assert batch.weight.tolist() == [1.0] * len(members) + [0.0] * (3 - len(members))
        for i, task in enumerate(members):
            user, support, query = want[task]
            assert batch.user[i] == user
            assert unpacked(batch.support, i) == support
            assert unpacked(batch.query, i) == query
            seen.append(task)
        for rows in (batch.support, batch.query):
            assert not any(np.asarray(leaf)[rows.mask == 0].any() for leaf in rows)
    assert sorted(seen) == list(range(len(tasks)))
    assert len(source) == source.batches == len(source.plan)


def test_tasks_without_any_support_are_tasks():
    source = source_of(make_tasks([3, 4], [np.zeros(0, int)] * 2, [np.array([0]), np.array([1])]))
    batch = source[0]
    assert not batch.support.mask.any()
    assert batch.query.mask.sum() == 2
    assert len(joined([source.tasks, source.tasks])) == 4


def test_ratings_that_are_shown_take_the_place_of_the_data_sets():
    tasks = make_tasks([0], [np.flatnonzero(DATA.user == 0)[:2]], [np.flatnonzero(DATA.user == 0)[2:3]])
    shown = dataclasses.replace(tasks, shown=np.float32([2, 4]))
    trained = tasks.support
    plain, other = (source_of(t, trained)[0] for t in (tasks, shown))
    assert other.support.rating[0, :2].tolist() == [2, 4]
    np.testing.assert_array_equal(plain.support.statistic, other.support.statistic)  # of the ratings that trained
    np.testing.assert_array_equal(plain.query.rating, other.query.rating)


def test_a_table_of_its_own_counts_tasks():
    tasks = some_tasks(np.random.default_rng(5))
    source = source_of(tasks, own_table=True)
    for index, (_, members) in enumerate(source.plan):
        batch = source[index]
        assert batch.user[batch.weight > 0].tolist() == members.tolist()
        np.testing.assert_array_equal(source.users_of(batch)[batch.weight > 0], tasks.user[members])
    assert source.batch_of_all(0).user.tolist() == list(range(len(tasks)))


def test_users_who_trained_meet_what_others_taught_and_new_ones_what_everybody_did():
    tasks = some_tasks(np.random.default_rng(6), number=20)
    trained = np.flatnonzero(np.isin(DATA.user, [1, 3, 4, 8]))
    rng = np.random.default_rng(7)
    folded = Folded(
        rng.normal(size=(3, len(DATA.items), 4)).astype(np.float32),
        rng.integers(0, 3, len(DATA.users)).astype(np.int32),
    )
    everybody = rng.normal(size=(len(DATA.items), 4)).astype(np.float32)
    source = source_of(tasks, trained, folded=folded)
    source = dataclasses.replace(source, statistics=source.statistics._replace(beliefs=everybody))
    batch = source.batch_of_all()
    met = {True: 0, False: 0}
    for place, user in enumerate(tasks.user):
        table = folded.tables[folded.fold[user]] if user in (1, 3, 4, 8) else everybody
        for rows in (batch.support, batch.query):
            real = rows.mask[place] > 0
            np.testing.assert_array_equal(rows.statistic[place][real][:, 2:], table[rows.item[place][real]])
            met[user in (1, 3, 4, 8)] += real.sum()
    assert min(met.values()) > 0


def test_a_batch_looks_up_no_more_ratings_than_it_has():
    looked_up = []

    class Counted(np.ndarray):
        def __getitem__(self, rows):
            looked_up.append(np.size(rows))
            return np.asarray(self)[rows]

    tasks = joined([some_tasks(np.random.default_rng(seed)) for seed in range(20)])
    source = source_of(tasks)
    source = dataclasses.replace(source, data=dataclasses.replace(DATA, rating=DATA.rating.view(Counted)))
    batch = source[0]
    assert batch.support.rating.any()
    assert 0 < max(looked_up) <= max(batch.support.rating.size, batch.query.rating.size) < len(tasks.support)
