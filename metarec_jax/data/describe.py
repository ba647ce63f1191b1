"""A user's description, written from the support set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.tasks import TaskSource
from metarec_jax.data.text import describe_user

LIKED, DISLIKED = 8, 4
"""Titles that a description names at most: enough to show a taste, few enough to fit the encoder."""


def describe(titles: Sequence[str], item: np.ndarray, rating: np.ndarray, *, middle: float) -> str:
    """The description of one user.

    Args:
        titles: of every item.
        item: int [n], what the user rated.
        rating: float [n].
        middle: of the rating scale. It decides where the user's own mean cannot, since all ratings are equal.
    """
    centre = rating.mean() if len(rating) and np.ptp(rating) > 0 else middle
    order = np.argsort(-rating, kind="stable")
    liked = [titles[item[i]] for i in order if rating[i] > centre]
    disliked = [titles[item[i]] for i in order[::-1] if rating[i] < centre]
    return describe_user(liked[:LIKED], disliked[:DISLIKED])


def descriptions(source: EpisodeSource | TaskSource, titles: Sequence[str], *, middle: float) -> list[str]:
    """The description of every user and draw of `source`, in the order of its user table."""
    texts: list[list[str]] = []
    for draw in range(source.draws):
        support = source.whole(draw).support
        real = support.mask > 0
        texts.append(
            [describe(titles, i[m], r[m], middle=middle) for i, r, m in zip(support.item, support.rating, real)]
        )
    return [text for user in zip(*texts) for text in user]
