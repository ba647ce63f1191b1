"""Metrics of a list drawn from the whole catalogue: every item that a user was not shown before is a candidate.

Nothing is sampled (Krichene & Rendle 2020, "On sampled metrics for item recommendation"). Ties are broken uniformly at
random, and a metric is its expectation over that, in closed form, as in `metarec_jax.metrics.ties`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from metarec_jax.core.errors import MetarecError

NAMES = ("recall", "ndcg", "hit", "map", "mrr")
"""Names of metrics; all but "mrr" have a cutoff, such as "recall@20"."""


class _Found(NamedTuple):
    """Where the targets of a user are in the list, [targets]: those of equal score are a group.

    Attributes:
        start: number of candidates of a higher score.
        size: number of candidates of this score.
        among: number of targets of this score.
        before: number of targets of a higher score.
    """

    start: np.ndarray
    size: np.ndarray
    among: np.ndarray
    before: np.ndarray


def catalogue_metrics(
    scores: Float[np.ndarray, "users items"],
    shown: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    names: Sequence[str],
) -> dict[str, Float[np.ndarray, " users"]]:
    """Compute metrics of each user's list.

    With the targets ``T`` of a user, recall@k is hits / min(k, |T|), ndcg@k is normalised by the best list of min(k,
    |T|) targets (Järvelin & Kekäläinen 2002), hit@k is whether there is a target among the first k, map@k is the sum of
    the precisions at the ranks of hits / min(k, |T|), and mrr is 1 / rank of the first target.

    Args:
        scores: scores of all items.
        shown: int [shown] for each user, items that are no candidates.
        targets: int [targets] for each user, at least one, different, and not shown.
        names: metrics, such as "recall@20" and "mrr".

    Returns:
        A value for each user, by name of the metric.

    Raises:
        MetarecError: a name is unknown, a user has no target, a target was shown, or a score is not finite.
    """
    asked = [(name, *_parsed(name)) for name in names]
    found = {name: np.zeros(len(scores)) for name in names}
    for user, (row, hidden, wanted) in enumerate(zip(scores, shown, targets)):
        if not np.isfinite(row).all():
            raise MetarecError(f"the scores of user {user} are not finite: no list can be made of them")
        if not len(wanted) or np.isin(wanted, hidden).any() or len(np.unique(wanted)) < len(wanted):
            raise MetarecError(f"user {user} has no target, the same one twice, or one that was shown")
        candidates = np.delete(row, np.unique(hidden))
        at = _places(np.sort(candidates), row[wanted])
        for name, base, k in asked:
            found[name][user] = _METRICS[base](at, len(candidates), min(k or len(candidates), len(candidates)))
    return found


def _parsed(name: str) -> tuple[str, int]:
    base, _, cutoff = name.partition("@")
    if base not in NAMES or (base == "mrr") == bool(cutoff) or (cutoff and not (cutoff.isdecimal() and int(cutoff))):
        raise MetarecError(f"no metric of lists is called {name!r}; there are recall@K, ndcg@K, hit@K, map@K and mrr")
    return base, int(cutoff or 0)


def _places(ascending: np.ndarray, wanted: np.ndarray) -> _Found:
    above = len(ascending) - np.searchsorted(ascending, wanted, side="right")
    size = len(ascending) - np.searchsorted(ascending, wanted, side="left") - above
    higher = wanted[None, :] > wanted[:, None]
    return _Found(above, size, np.sum(wanted[None, :] == wanted[:, None], axis=1), higher.sum(axis=1))


def _expected(at: _Found, weight: np.ndarray) -> np.ndarray:
    """Mean weight of the ranks that each target can take."""
    total = np.concatenate([[0.0], np.cumsum(weight)])
    first, last = (np.minimum(place, len(weight)) for place in (at.start, at.start + at.size))
    return (total[last] - total[first]) / at.size


def _recall(at: _Found, candidates: int, k: int) -> float:
    return float(_expected(at, np.ones(k)).sum() / min(k, len(at.start)))


def _ndcg(at: _Found, candidates: int, k: int) -> float:
    discount = 1 / np.log2(2 + np.arange(k))
    return float(_expected(at, discount).sum() / discount[: len(at.start)].sum())


def _map(at: _Found, candidates: int, k: int) -> float:
    total = 0.0
    for start, size, among, before in zip(*at):
        place = np.arange(min(size, max(k - start, 0)))
        hits = before + 1 + place * (among - 1) / max(size - 1, 1)
        total += np.sum(hits / (start + 1 + place)) / size
    return float(total / min(k, len(at.start)))


def _hit(at: _Found, candidates: int, k: int) -> float:
    if (at.start + at.size <= k).any():
        return 1.0
    across = np.flatnonzero(at.start < k)
    if not len(across):
        return 0.0
    size, among, drawn = at.size[across[0]], at.among[across[0]], k - at.start[across[0]]
    return float(1 - np.exp(_log_choose(size - among, drawn) - _log_choose(size, drawn)))


def _mrr(at: _Found, candidates: int, k: int) -> float:
    first = np.argmin(at.start)
    start, size, among = at.start[first], at.size[first], at.among[first]
    place = np.arange(size - among + 1)  # candidates of this score before the first target
    chance = np.exp(_log_choose(size - 1 - place, np.full_like(place, among - 1)) - _log_choose(size, among))
    return float(np.sum(chance / (start + 1 + place)))


def _log_choose(n: ArrayLike, k: ArrayLike) -> np.ndarray:
    """Logarithm of the binomial coefficient; minus infinity where k exceeds n."""
    n, k = np.asarray(n), np.asarray(k)
    valid = k <= n
    n, k = np.where(valid, n, 0), np.where(valid, k, 0)
    table = _log_factorials(1 << int(n.max()).bit_length())
    return np.where(valid, table[n] - table[k] - table[n - k], -np.inf)


@functools.lru_cache(maxsize=2)
def _log_factorials(size: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size)))])


_METRICS = {"recall": _recall, "ndcg": _ndcg, "hit": _hit, "map": _map, "mrr": _mrr}
