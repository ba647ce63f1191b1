"""Metrics of lists over the whole catalogue: expectations over ties against all orders written out, and bad input."""

import itertools

import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.core.errors import MetarecError
from metarec_jax.metrics.catalogue_ranking import catalogue_metrics

NAMES = ("recall@2", "recall@4", "ndcg@3", "hit@1", "hit@3", "map@2", "map@5", "mrr")


def of_order(order, targets, name):
    """A metric of one order of the candidates."""
    base, _, k = name.partition("@")
    hits = np.isin(order, targets)
    ranks = np.flatnonzero(hits) + 1
    if base == "mrr":
        return 1 / ranks[0]
    k = min(int(k), len(order))
    best = min(k, len(targets))
    if base == "recall":
        return hits[:k].sum() / best
    if base == "hit":
        return float(hits[:k].any())
    if base == "ndcg":
        return (hits[:k] / np.log2(2 + np.arange(k))).sum() / (1 / np.log2(2 + np.arange(best))).sum()
    return sum((place + 1) / rank for place, rank in enumerate(ranks) if rank <= k) / best


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_broken_in_every_way(seed):
    rng = np.random.default_rng(seed)
    items, levels = 7, rng.integers(1, 5)
    score = rng.integers(0, levels, items).astype(np.float32)
    shown = rng.permutation(items)[: rng.integers(0, 3)]
    left = np.setdiff1d(np.arange(items), shown)
    targets = rng.permutation(left)[: rng.integers(1, len(left))]
    found = catalogue_metrics(score[None], [shown], [targets], NAMES)
    orders = [order for order in itertools.permutations(left) if (np.diff(score[list(order)]) <= 0).all()]
    for name in NAMES:
        want = np.mean([of_order(np.array(order), targets, name) for order in orders])
        assert_each_close(found[name][0], want, tolerance=1e-9, because="sums in float64", floor=1e-12)


def test_a_list_of_the_targets_alone_is_perfect_and_one_without_is_not():
    score = np.arange(30.0)
    best, worst = np.array([27, 28, 29]), np.array([0, 1, 2])
    names = ("recall@3", "ndcg@10", "hit@1", "map@3", "mrr")
    found = catalogue_metrics(np.stack([score, score]), [np.array([], int)] * 2, [best, worst], names)
    for name in names:
        assert found[name][0] == 1
        assert found[name][1] < 0.1


def test_a_constant_score_finds_what_chance_finds():
    shown, targets = np.arange(10), np.arange(10, 15)
    found = catalogue_metrics(np.zeros((1, 110)), [shown], [targets], ("recall@20", "hit@20"))
    assert_each_close(found["recall@20"][0], 0.2, tolerance=1e-9, because="float64")
    misses = np.prod([(80 - n) / (100 - n) for n in range(5)])
    assert_each_close(found["hit@20"][0], 1 - misses, tolerance=1e-9, because="float64")


@pytest.mark.parametrize(
    ("score", "shown", "targets", "name", "message"),
    [
        ([1.0, np.nan], [], [0], "mrr", "not finite"),
        ([1.0, 2.0], [], [], "mrr", "no target"),
        ([1.0, 2.0], [0], [0], "mrr", "was shown"),
        ([1.0, 2.0], [], [0, 0], "mrr", "twice"),
        ([1.0, 2.0], [], [0], "recall", "recall@K"),
        ([1.0, 2.0], [], [0], "recall@0", "recall@K"),
        ([1.0, 2.0], [], [0], "mrr@3", "mrr"),
        ([1.0, 2.0], [], [0], "auc@3", "no metric"),
    ],
)
def test_bad_input_is_refused(score, shown, targets, name, message):
    with pytest.raises(MetarecError, match=message):
        catalogue_metrics(np.array([score]), [np.array(shown, int)], [np.array(targets, int)], (name,))
