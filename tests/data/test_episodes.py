"""Episodes are a pure function of (seed, epoch, index), hold every row once, and leak no label."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_equal, interactions, random_interactions
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data.describe import describe, descriptions
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.splits import AsNew, Folded, item_statistics

CONFIG = EpisodeConfig(min_ratings=4, max_ratings=0, query=3, buckets=(2, 5, 8), draws=0)


def source_of(data, users=None, *, training=True, train=None, **changes):
    """A source over `users` (all), with the statistics of the users `train` (the same)."""
    users = np.arange(len(data.users)) if users is None else np.asarray(users)
    config = {k: changes.pop(k) for k in list(changes) if k in {f.name for f in dataclasses.fields(EpisodeConfig)}}
    settings_ = {"users_per_batch": 4, "seed": 7, "epochs": 3} | changes
    return EpisodeSource(
        histories=histories(data, users),
        config=dataclasses.replace(CONFIG, **config),
        statistics=item_statistics(data, users if train is None else np.asarray(train)),
        training=training,
        **settings_,
    )


def some_data(seed=0, users=13, kind="rating"):
    return random_interactions(np.random.default_rng(seed), users=users, items=20, least=4, most=14, kind=kind)


def real_rows(rows, i):
    """[(item, rating, sum, count)] of user `i` of a batch."""
    mask = rows.mask[i] > 0
    return list(zip(*(c[mask].tolist() for c in (rows.item[i], rows.rating[i], rows.statistic[i]))))


def by_user(batches):
    """{user: (support, query)} of batches of one epoch."""
    found = {}
    for batch in batches:
        for i in np.flatnonzero(batch.weight):
            assert batch.user[i] not in found
            found[int(batch.user[i])] = (real_rows(batch.support, i), real_rows(batch.query, i))
    return found


def epoch_of(source, epoch):
    return [source[i] for i in range(epoch * source.batches, (epoch + 1) * source.batches)]


# Property tests draw a data set, an order and a number of draws.
CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**20),
        "users": st.integers(1, 9),
        "kind": st.sampled_from(["rating", "click"]),
        "order": st.sampled_from(["random", "time"]),
        "draws": st.integers(0, 4),
        "training": st.booleans(),
        "size": st.integers(1, 5),
    }
)


def made(case):
    data = some_data(case["seed"], case["users"], case["kind"])
    return data, source_of(
        data,
        training=case["training"],
        order=case["order"],
        draws=case["draws"],
        users_per_batch=case["size"],
        seed=case["seed"],
    )


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_every_user_once_with_every_row_once(case):
    data, source = made(case)
    assert len(source) == 3 * source.batches
    for epoch in range(3):
        found = by_user(epoch_of(source, epoch))
        assert sorted(found) == list(range(len(data.users)))
        for user, (support, query) in found.items():
            rows = data.user == user
            given_ratings = dict(zip(data.item[rows].tolist(), data.rating[rows].tolist()))
            items = [row[0] for row in support + query]
            assert len(set(items)) == len(items), "support and query are disjoint, and no row comes twice"
            assert len(query) == 3
            assert len(support) == min(len(given_ratings) - 3, 8)
            assert all(given_ratings[item] == rating for item, rating, _ in support + query)
            if len(given_ratings) <= 3 + 8:
                assert set(items) == set(given_ratings), "nothing is left out that has room"


@given(CASES)
@settings(max_examples=40, deadline=None)
def test_shapes_fit_buckets_and_padding_is_zero(case):
    _, source = made(case)
    for index in range(len(source)):
        batch = source[index]
        length = batch.support.mask.shape[1]
        assert batch.support.mask.shape == (case["size"], length)
        assert batch.query.mask.shape == (case["size"], 3)
        longest = int(batch.support.mask.sum(axis=1).max())
        assert length == min(b for b in CONFIG.buckets if b >= longest), "every batch is as short as its longest user"
        for rows in (batch.support, batch.query):
            assert [field.dtype for field in rows] == [np.int32, np.float32, np.float32, np.float32]
            for field in rows:
                assert (field[rows.mask == 0] == 0).all()
            assert (np.diff(rows.mask, axis=1) <= 0).all(), "real rows first"
        empty = batch.weight == 0
        assert set(batch.weight) <= {0, 1}
        assert (batch.support.mask[empty] == 0).all()
        assert (batch.query.mask[empty] == 0).all()
        assert (batch.user[empty] == 0).all()


@given(CASES, st.randoms())
@settings(max_examples=30, deadline=None)
def test_any_batch_can_be_made_at_any_time_in_any_order(case, random):
    _, source = made(case)
    in_order = [source[i] for i in range(len(source))]
    _, again = made(case)
    indices = list(range(len(source))) * 2
    random.shuffle(indices)
    for index in indices:
        assert_equal(again[index], in_order[index])


@given(CASES, st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_parts_of_a_batch_are_the_batch(case, processes, beyond):
    """Each of several processes makes its part, and one alone gives the same, with users of weight 0 at the end."""
    _, source = made(case)
    size = -(-case["size"] // processes) * processes + beyond * processes
    for index in range(len(source)):
        parts = [source.part(index, own) for own in np.split(np.arange(size), processes)]
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        assert_equal(jax.tree.map(lambda leaf: leaf[: case["size"]], whole), source[index])
        assert (whole.weight[case["size"] :] == 0).all()
        np.testing.assert_array_equal(source.users_in(index), source.users_of(whole)[whole.weight > 0])


@given(CASES)
@settings(max_examples=30, deadline=None)
def test_by_time_no_query_row_is_earlier_than_a_support_row(case):
    data, source = made(case | {"order": "time"})
    time = {(u, i): t for u, i, t in zip(data.user.tolist(), data.item.tolist(), data.time.tolist())}
    for user, (support, query) in by_user(epoch_of(source, 0)).items():
        of_support, of_query = ([time[user, row[0]] for row in rows] for rows in (support, query))
        assert max(of_support) <= min(of_query)
        left_out = sorted(t for (u, _), t in time.items() if u == user)[: -len(support + query)]
        assert max(left_out, default=-1) <= min(of_support), "of a long history the latest part is kept"


@given(CASES)
@settings(max_examples=30, deadline=None)
def test_a_support_is_in_order_of_time_latest_first_however_it_was_drawn(case):
    data, source = made(case)
    of_user = histories(data, np.arange(len(data.users)))
    owner = np.repeat(of_user.users, of_user.count)
    place = {(u, i): row for row, (u, i) in enumerate(zip(owner.tolist(), of_user.item.tolist()))}
    for index in range(len(source)):
        for user, (support, _) in by_user([source[index]]).items():
            assert (np.diff([place[user, row[0]] for row in support]) < 0).all(), "of equal times the later row first"


@given(CASES, st.data())
@settings(max_examples=60, deadline=None)
def test_no_label_is_among_the_inputs_that_predict_it(case, draw):
    """Changing one query rating of a training user changes nothing that this user's prediction is made from."""
    data, before = made(case | {"training": True})
    user = draw.draw(st.integers(0, len(data.users) - 1))
    epoch = draw.draw(st.integers(0, 2))
    query = by_user(epoch_of(before, epoch))[user][1]
    item = query[draw.draw(st.integers(0, 2))][0]
    row = np.flatnonzero((data.user == user) & (data.item == item))[0]
    rating = data.rating.copy()
    rating[row] = 1 - rating[row] if data.kind == "click" else 1 + rating[row] % 5
    after = source_of(
        dataclasses.replace(data, rating=rating),
        order=case["order"],
        draws=case["draws"],
        users_per_batch=case["size"],
        seed=case["seed"],
    )
    (old, _), (new, new_query) = (by_user(epoch_of(s, epoch))[user] for s in (before, after))
    assert new == old
    for (old_item, old_rating, old_statistic), found in zip(query, new_query):
        assert found[0] == old_item
        assert found[2] == old_statistic
        assert (found[1] == old_rating) == (old_item != item), "only the label itself is another"
    if data.kind == "rating":
        titles = data.items.titles
        texts = [descriptions(s, titles, middle=3.0)[user * s.draws + epoch % s.draws] for s in (before, after)]
        assert texts[0] == texts[1], "nor does the user's description know it"


def test_statistics_of_a_training_user_are_those_of_all_the_others():
    data = some_data()
    for user, (support, query) in by_user(epoch_of(source_of(data), 1)).items():
        for item, _, (total, count) in support + query:
            others = (data.item == item) & (data.user != user)
            assert count == others.sum()
            assert total == data.rating[others].sum()


@pytest.mark.parametrize("order", ["random", "time"])
def test_held_out_users_see_training_users_statistics_and_change_none(order):
    data = some_data(users=16)
    train, test = np.arange(10), np.arange(10, 16)
    found = by_user(epoch_of(source_of(data, test, training=False, train=train, order=order), 0))
    for support, query in found.values():
        for item, _, (total, count) in support + query:
            others = (data.item == item) & (data.user < 10)
            assert count == others.sum()
            assert total == data.rating[others].sum()
    changed = dataclasses.replace(data, rating=np.where(data.user >= 10, 6 - data.rating, data.rating))
    before, after = (source_of(d, train, train=train, order=order) for d in (data, changed))
    for index in range(len(before)):
        assert_equal(after[index], before[index])


def test_evaluation_goes_through_users_in_the_order_given_and_training_does_not():
    data = some_data(users=30)
    users = np.random.default_rng(1).permutation(30)
    for training in (False, True):
        source = source_of(data, users, training=training, users_per_batch=40, epochs=2)
        orders = [
            np.concatenate([batch.user[batch.weight > 0] for batch in epoch_of(source, epoch)]) for epoch in (0, 1)
        ]
        by_bucket = users[np.argsort(source.bucket, kind="stable")]
        assert (orders[0].tolist() == by_bucket.tolist()) == (not training)
        assert (orders[0].tolist() == orders[1].tolist()) == (not training)


def test_batches_of_a_bucket_are_of_nearly_equal_size():
    """The gradient of a batch of two users beside batches of four would be mostly noise."""
    counts = [5] * 9 + [11] * 5
    item = np.concatenate([np.arange(c) for c in counts])
    data = interactions(np.repeat(np.arange(14), counts), item, 1 + item % 5)
    source = source_of(data, users_per_batch=4)
    for epoch in range(3):
        sizes = {}
        for batch in epoch_of(source, epoch):
            sizes.setdefault(batch.support.mask.shape[1], []).append(int(batch.weight.sum()))
        assert {bucket: sorted(found) for bucket, found in sizes.items()} == {2: [3, 3, 3], 8: [2, 3]}


@pytest.mark.parametrize("draws", [1, 2, 0])
def test_draws_of_support_and_query_come_back_in_turn(draws):
    data = some_data()
    source = source_of(data, draws=draws, epochs=4)
    queries = [
        {user: sorted(row[0] for row in query) for user, (_, query) in by_user(epoch_of(source, epoch)).items()}
        for epoch in range(4)
    ]
    period = draws or 4
    assert source.draws == period
    for a in range(4):
        for b in range(a):
            assert (queries[a] == queries[b]) == (a % period == b % period)


def test_more_draws_than_epochs_are_not_made():
    assert source_of(some_data(), draws=9, epochs=2).draws == 2


def test_another_seed_is_another_draw():
    data = some_data()
    one, other = (by_user(epoch_of(source_of(data, seed=seed), 0)) for seed in (1, 2))
    assert {u: {r[0] for r in q} for u, (_, q) in one.items()} != {u: {r[0] for r in q} for u, (_, q) in other.items()}


def test_whole_is_all_users_of_a_draw_in_order():
    data = some_data()
    users = np.array([5, 2, 9, 0])
    source = source_of(data, users, draws=2)
    for draw in (0, 1):
        whole = source.batch_of_all(draw)
        assert whole.user.tolist() == users.tolist()
        assert whole.support.mask.shape == (4, 8)
        assert by_user([whole]) == by_user(epoch_of(source, draw))


def test_histories_are_in_the_order_of_time_and_of_the_users_given():
    data = interactions([1, 0, 1, 1, 2], [4, 1, 2, 3, 0], [1, 2, 3, 4, 5], [30, 5, 10, 10, 1])
    found = histories(data, np.array([2, 1]))
    assert found.users.tolist() == [2, 1]
    assert found.start.tolist() == [0, 1]
    assert found.count.tolist() == [1, 3]
    assert found.item.tolist() == [0, 2, 3, 4], "rows of equal time stay as they were"
    assert found.rating.tolist() == [5, 3, 4, 1]


def test_a_user_with_too_few_rows_is_refused():
    data = interactions([0] * 4 + [1] * 3, [0, 1, 2, 3, 0, 1, 2], [1] * 7)
    with pytest.raises(MetarecError, match=r"user row 1 has 3 interactions, but a query of 3 .*need 4: lower"):
        source_of(data)


@pytest.mark.parametrize("index", [-1, 10**6])
def test_there_is_no_batch_beyond_the_last(index):
    with pytest.raises(IndexError, match=str(index)):
        source_of(some_data())[index]


def test_users_of_a_table_of_their_own_are_counted_by_user_and_draw():
    """Every user and draw has a row for the description of its support."""
    data = some_data()
    users = np.array([8, 3, 11, 4, 6])
    source = source_of(data, users, draws=2, epochs=4, own_table=True)
    texts = descriptions(source, data.items.titles, middle=3.0)
    assert len(texts) == 5 * 2
    for epoch in range(4):
        for batch in epoch_of(source, epoch):
            for i in np.flatnonzero(batch.weight):
                row = batch.user[i]
                assert row % 2 == epoch % 2
                support = real_rows(batch.support, i)
                items, ratings, _ = zip(*support)
                assert users[row // 2] in data.user[data.item == items[0]]
                text = describe(data.items.titles, np.array(items), np.array(ratings), middle=3.0)
                assert texts[row] == text


def test_supports_of_varied_lengths_are_some_of_the_rows_from_none_to_all():
    """The query is unchanged, supports of all lengths occur, equal draws give equal lengths, and rows are by time."""
    data = random_interactions(np.random.default_rng(2), users=300, items=40, least=14, most=14)
    whole, varied = (source_of(data, query=3, lengths=x, users_per_batch=300) for x in ("all", "varied"))
    everything, some = (by_user(epoch_of(source, 1)) for source in (whole, varied))
    lengths = []
    for user, (support, query) in everything.items():
        cut, same = some[user]
        assert same == query
        assert cut == [row for row in support if row in cut]
        lengths.append(len(cut))
    assert set(lengths) == set(range(9))
    share = np.bincount(lengths, minlength=9) / 300  # of length n: log((n + 2) / (n + 1)) / log(10)
    want = np.diff(np.log(np.arange(1, 11))) / np.log(10)
    assert np.abs(share - want).max() < 0.08
    assert_equal(varied[1], varied[1])
    assert varied[0].support.mask.shape == whole[0].support.mask.shape


def test_some_items_are_met_as_if_nobody_had_rated_them():
    """Each row has either the factors of its item, or no counts and the factors that its features predict."""
    data = some_data(3, users=200)
    rng = np.random.default_rng(8)

    def table(*shape):
        return rng.normal(size=(*shape, len(data.items), 4)).astype(np.float32)

    as_new = AsNew(table(3), share=0.3)
    folded = Folded(table(3), rng.integers(0, 3, len(data.users)).astype(np.int32), as_new)
    source = source_of(data, folded=folded, users_per_batch=50)
    plain = dataclasses.replace(source, folded=folded._replace(as_new=None))
    found = {"learned": 0, "new": 0}
    for index in range(source.batches):
        batch, other = source[index], plain[index]
        for rows, same in ((batch.support, other.support), (batch.query, other.query)):
            assert_equal(rows._replace(statistic=0), same._replace(statistic=0))
            for place, slot in zip(*np.nonzero(rows.mask)):
                fold, item = folded.fold[batch.user[place]], rows.item[place, slot]
                statistic = rows.statistic[place, slot]
                new = np.array_equal(statistic, [0, 0, *as_new.table[fold, item]])
                assert new != np.array_equal(statistic, same.statistic[place, slot])
                found["new" if new else "learned"] += 1
            assert not rows.statistic[rows.mask == 0].any()
    total = sum(found.values())
    assert found["new"] / total == pytest.approx(0.3, abs=0.05)  # 4 standard deviations of 1,600
    again = source_of(data, folded=folded, users_per_batch=50)
    assert_equal(again[1], source[1])
    assert not np.array_equal(source[0].query.statistic, source[source.batches].query.statistic)
    asked = source_of(data, folded=folded, training=False)
    assert_equal(asked[0], dataclasses.replace(asked, folded=plain.folded)[0])
