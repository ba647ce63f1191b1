"""Text descriptions of users, made from their support sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.tasks import TaskSource
from metarec_jax.data.text import describe_user

LIKED, DISLIKED = 8, 4
"""Greatest number of titles in a description, so that it fits the maximum length of the encoder."""


def describe(titles: Sequence[str], item: np.ndarray, rating: np.ndarray, *, middle: float) -> str:
    """Describe one user by titles.

    Args:
        titles: titles of every item.
        item: int [n], the items that the user rated.
        rating: float [n], the ratings.
        middle: middle of the rating scale, which separates liked from disliked if all of the user's ratings are equal;
            otherwise their mean does.

    Returns:
        The description.
    """
    centre = rating.mean() if len(rating) and np.ptp(rating) > 0 else middle
    order = np.argsort(-rating, kind="stable")
    liked = [titles[item[i]] for i in order if rating[i] > centre]
    disliked = [titles[item[i]] for i in order[::-1] if rating[i] < centre]
    return describe_user(liked[:LIKED], disliked[:DISLIKED])


def descriptions(source: EpisodeSource | TaskSource, titles: Sequence[str], *, middle: float) -> list[str]:
    """The description of every user and draw, in the order of the source's own user table.

    Args:
        source: source of the support sets.
        titles: titles of every item.
        middle: the middle of the rating scale.

    Returns:
        [users x draws] texts; the draws of a user are consecutive.
    """
    texts: list[list[str]] = []
    for draw in range(source.draws):
        support = source.batch_of_all(draw).support
        real = support.mask > 0
        texts.append(
            [describe(titles, i[m], r[m], middle=middle) for i, r, m in zip(support.item, support.rating, real)]
        )
    return [text for user in zip(*texts) for text in user]
