"""Ranking with ties: exact expectations over every order that a tie allows.

Sorting breaks ties by input order, so that the metrics of a constant predictor depend on the order of the file. Here
ties are broken uniformly at random, and metrics are the expectation over that, in closed form:

- a sum over ranked items of gain x discount is linear, so each item gets the mean discount of its group's ranks;
- "no positive among the first j" is not linear; it is a hypergeometric probability (`no_positive_before`).

The positives can be tied, too: of the ratings 5 4 4 3, either 4 can be among the two highest. This choice is uniform
and independent of the order, so linear metrics use the probability that an item is a positive (`top_membership`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class TieGroups(NamedTuple):
    """Each user's columns from the highest score to the lowest, padded slots last, cut into groups of equal score.

    Attributes:
        order: the column at each position.
        start: the first position of each position's group.
        stop: one past the last position of each position's group.
    """

    order: Int[np.ndarray, "users query"]
    start: Int[np.ndarray, "users query"]
    stop: Int[np.ndarray, "users query"]


def tie_groups(score: Float[np.ndarray, "users query"], mask: Bool[np.ndarray, "users query"]) -> TieGroups:
    """Sort each user's slots by descending score and find the ties.

    Args:
        score: the predictions.
        mask: False in padded slots, which become one last group.

    Returns:
        The order of each user's slots, and the groups of ties.
    """
    key = np.where(mask, -score, np.inf)
    order = np.argsort(key, axis=1, kind="stable")
    ordered = np.take_along_axis(key, order, axis=1)
    position = np.arange(key.shape[1])
    opens = np.ones(key.shape, dtype=bool)
    opens[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    closes = np.ones(key.shape, dtype=bool)
    closes[:, :-1] = opens[:, 1:]
    start = np.maximum.accumulate(np.where(opens, position, 0), axis=1)
    stop = np.minimum.accumulate(np.where(closes, position + 1, len(position))[:, ::-1], axis=1)[:, ::-1]
    return TieGroups(order, start, stop)


def expected_weight(groups: TieGroups, weight: Float[np.ndarray, " query"]) -> Float[np.ndarray, "users query"]:
    """Mean weight of the ranks that each item can take.

    With weight 1 for the first k ranks this is the probability of being in the top k.

    Args:
        groups: the predicted order.
        weight: weight of each rank.

    Returns:
        The mean of each item, in the columns of the scores that `groups` was made from.
    """
    total = np.concatenate([[0.0], np.cumsum(weight)])
    mean = (total[groups.stop] - total[groups.start]) / (groups.stop - groups.start)
    result = np.empty_like(mean)
    np.put_along_axis(result, groups.order, mean, axis=1)
    return result


def top_membership(
    rating: Float[np.ndarray, "users query"], mask: Bool[np.ndarray, "users query"], top: int
) -> Float[np.ndarray, "users query"]:
    """Probability that each item is one of the highest ratings of its user, with a random choice of equal ratings.

    Args:
        rating: the ratings.
        mask: False in padded slots.
        top: number of highest ratings; all items of a user with fewer items are among them.

    Returns:
        The probability, 0 in padded slots. Its sum over a user's items is min(top, items) exactly.
    """
    first = (np.arange(rating.shape[1]) < top).astype(float)
    return expected_weight(tie_groups(rating, mask), first) * mask


def no_positive_before(
    groups: TieGroups, membership: Float[np.ndarray, "users query"], ranks: int
) -> Float[np.ndarray, "users _"]:
    """Probability that none of the first j ranked items is a positive, for j = 0 .. `ranks`.

    Let C, U and N be the certain positives (membership 1), the uncertain items (of which a uniform draw makes p
    positive) and the certain negatives. The first j ranks contain every group that ends by rank j, and t items drawn
    from the group that rank j cuts. None is a positive if no C is among the full groups or the drawn items, x of the
    drawn items are uncertain (hypergeometric), and the draw of positives misses those x and the U of the full groups:

        sum over x of  C(u, x) C(n, t - x) / C(size, t)  *  C(b - U - x, p) / C(b, p)

    where u and n are the numbers of uncertain and negative items of the cut group, U the number of uncertain items of
    the full groups, and b the number of all uncertain items. Hit rate is 1 minus this; mean reciprocal rank is a sum
    of its differences.

    Args:
        groups: the predicted order.
        membership: from `top_membership`, or 0 and 1; those strictly between belong to one tie of ratings. 0 in
            padded slots.
        ranks: the largest j.

    Returns:
        [users, ranks + 1]; column j is for the first j ranks, and column 0 is 1.
    """
    users, query = membership.shape
    ordered = np.take_along_axis(membership, groups.order, axis=1)
    certain = ordered >= 1
    uncertain = (ordered > 0) & ~certain
    certain_before, uncertain_before = _count_before(certain), _count_before(uncertain)
    drawable = uncertain.sum(axis=1)
    drawn = np.rint((ordered * uncertain).sum(axis=1)).astype(int)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, query + 1)))])

    def log_choose(n, r):
        possible = (r >= 0) & (r <= n)
        n, r = np.where(possible, n, 0), np.where(possible, r, 0)
        return np.where(possible, log_factorial[n] - log_factorial[r] - log_factorial[n - r], -np.inf)

    result = np.ones((users, ranks + 1))
    row = np.arange(users)
    for j in range(1, ranks + 1):
        if j > query:
            result[:, j] = result[:, j - 1]
            continue
        start, stop = groups.start[:, j - 1], groups.stop[:, j - 1]
        size, taken = stop - start, j - start
        uncertain_full = uncertain_before[row, start]
        uncertain_cut = uncertain_before[row, stop] - uncertain_full
        certain_cut = certain_before[row, stop] - certain_before[row, start]
        negative_cut = size - uncertain_cut - certain_cut
        probability = np.zeros(users)
        for x in range(min(j, int(uncertain_cut.max(initial=0))) + 1):
            drawing = log_choose(uncertain_cut, x) + log_choose(negative_cut, taken - x) - log_choose(size, taken)
            missing = log_choose(drawable - uncertain_full - x, drawn) - log_choose(drawable, drawn)
            probability += np.exp(drawing + missing)
        result[:, j] = np.where(certain_before[row, start] == 0, probability, 0.0)
    return result


def _count_before(flag: Bool[np.ndarray, "users query"]) -> Int[np.ndarray, "users query+1"]:
    return np.concatenate([np.zeros((len(flag), 1), dtype=int), np.cumsum(flag, axis=1)], axis=1)
