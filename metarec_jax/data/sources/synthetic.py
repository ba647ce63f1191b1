"""Ratings drawn from a known model, so that tests can compare predictions with the best possible ones.

Item i has a latent vector z_i, user u a linear preference w_u = common + own_u, and

    score(u, i) = 3 + bias_u + w_u . z_i
    rating(u, i) = round(score + noise * e), clipped to 1 .. 5, with e from the standard logistic distribution

so that P(rating >= k) = sigmoid((score - k + 1/2) / noise) in closed form (an ordered logit: McCullagh 1980). A click
is drawn with probability sigmoid((score - 3) / noise). The words of an item's text depend on its latent vector, so that
an encoder can infer z from them, and those of a user's profile on own_u.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import CLICKS, STARS, Kind
from metarec_jax.core.types import Interactions, Items, Users
from metarec_jax.data.sources.source import register_source

LEVELS = STARS.levels
_WORDS = 6  # words of one pole of one latent dimension
_SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


class Truth(NamedTuple):
    """The model that the ratings were drawn from.

    Attributes:
        score: the linear score.
        probabilities: probability of each rating level (for clicks: of 0 and 1).
        expected: the mean of that distribution, the prediction with the least squared error.
        variance: variance of that distribution; its mean over test pairs is the least expected mean squared error.
        items: latent vectors z.
        preferences: users' preferences w.
    """

    score: Float[np.ndarray, "users items"]
    probabilities: Float[np.ndarray, "users items classes"]
    expected: Float[np.ndarray, "users items"]
    variance: Float[np.ndarray, "users items"]
    items: Float[np.ndarray, "items hidden"]
    preferences: Float[np.ndarray, "users hidden"]


@register_source("synthetic", public=True, licence="none is needed: the ratings are drawn by this package")
def load(config: DataConfig, seed: int) -> Interactions:
    """Draw ratings or clicks of the default size.

    Args:
        config: ``kind`` is read.
        seed: seed of all draws.

    Returns:
        The data set.
    """
    return synthetic(seed, kind=config.kind)[0]


def synthetic(
    seed: int,
    *,
    users: int = 200,
    items: int = 120,
    ratings_per_user: int = 30,
    hidden: int = 4,
    noise: float = 0.3,
    words: int = 12,
    kind: Kind = "rating",
) -> tuple[Interactions, Truth]:
    """Draw a data set from the model of this file; equal arguments give equal data.

    Args:
        seed: seed of all draws.
        users: number of users.
        items: number of items.
        ratings_per_user: ratings of each user, of different items, drawn uniformly.
        hidden: size of a latent vector.
        noise: scale of the logistic noise, in rating levels; 0 makes ratings a function of the score.
        words: words of an item's text.
        kind: "rating" for levels 1 to 5, "click" for 0 and 1.

    Returns:
        The interactions, in the order of `metarec_jax.data.interactions.build`, and the model.

    Raises:
        MetarecError: fewer items than ratings of a user, or a size below 1.
    """
    sizes = {"users": users, "items": items, "ratings_per_user": ratings_per_user, "hidden": hidden, "words": words}
    for name, size in sizes.items():
        if size < 1:
            raise MetarecError(f"synthetic: {name} is {size}; it must be at least 1")
    if ratings_per_user > items:
        raise MetarecError(f"synthetic: a user cannot rate {ratings_per_user} of {items} items, each once")
    if not 0 <= noise < float("inf"):
        raise MetarecError(f"synthetic: noise is {noise}; it must be a finite number of at least 0")
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(items, hidden)) / np.sqrt(hidden)
    own = rng.normal(size=(users, hidden))
    preference = 0.5 * rng.normal(size=hidden) + own
    score = 3.0 + 0.3 * rng.normal(size=(users, 1)) + preference @ latent.T
    truth = _truth(score, latent, preference, noise, kind)

    item = np.sort(np.stack([rng.permutation(items)[:ratings_per_user] for _ in range(users)]), axis=1)
    user = np.repeat(np.arange(users)[:, None], ratings_per_user, axis=1)
    # Inverse-transform sampling: the number of levels whose cumulative probability is below a uniform number.
    below = np.cumsum(truth.probabilities, axis=-1)[user, item, :-1]
    level = (rng.random(item.shape)[..., None] >= below).sum(axis=-1)
    rating = level if kind == "click" else np.asarray(LEVELS)[level]
    # User after user; a user's items in random order, a minute apart.
    time = 60 * (np.arange(users)[:, None] * ratings_per_user + rng.permuted(_ranks(item), axis=1))
    order = np.lexsort((time.ravel(), user.ravel()))

    titles = [f"{_word(i, 4).capitalize()} {i + 1}" for i in range(items)]
    texts = [f"{title}. {_text(rng, z, words)}." for title, z in zip(titles, latent)]
    return (
        Interactions(
            user=user.ravel()[order].astype(np.int32),
            item=item.ravel()[order].astype(np.int32),
            rating=rating.ravel()[order].astype(np.float32),
            time=time.ravel()[order].astype(np.int64),
            users=Users(
                ids=tuple(str(u + 1) for u in range(users)),
                texts=tuple(f"A reader of {_text(rng, w, max(1, words // 2))}." for w in own),
            ),
            items=Items(ids=tuple(str(i + 1) for i in range(items)), titles=tuple(titles), texts=tuple(texts)),
            scale=CLICKS if kind == "click" else STARS,
            source=f"synthetic {kind}s of seed {seed}: {users} users, {items} items, {ratings_per_user} {kind}s a user",
        ),
        truth,
    )


def _truth(score: np.ndarray, latent: np.ndarray, preference: np.ndarray, noise: float, kind: Kind) -> Truth:
    values = np.array([0.0, 1.0]) if kind == "click" else np.asarray(LEVELS)
    # The threshold of the score, without noise, for each value but the least.
    thresholds = np.array([3.0]) if kind == "click" else values[1:] - 0.5
    margin = score[..., None] - thresholds
    # The logistic function in a form that cannot overflow.
    at_least = 0.5 * (1.0 + np.tanh(margin / (2.0 * noise))) if noise > 0 else (margin >= 0).astype(float)
    certain, impossible = np.ones((*score.shape, 1)), np.zeros((*score.shape, 1))
    cumulative = np.concatenate([certain, at_least, impossible], axis=-1)
    probabilities = cumulative[..., :-1] - cumulative[..., 1:]
    expected = probabilities @ values
    variance = (probabilities * (values - expected[..., None]) ** 2).sum(axis=-1)
    return Truth(score, probabilities, expected, variance, latent, preference)


def _ranks(item: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(item.shape[1]), item.shape)


def _word(number: int, syllables: int) -> str:
    """An invented word; different numbers give different words of one length."""
    # Multiplication by a prime that does not divide the number of words permutes them, so that neighbours differ.
    number = (number + 1) * 104729 % len(_SYLLABLES) ** syllables
    word = ""
    for _ in range(syllables):
        number, syllable = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[syllable]
    return word


def _text(rng: np.random.Generator, vector: np.ndarray, words: int) -> str:
    """Words that encode `vector`: each dimension's size sets its share of words, its sign one of two vocabularies."""
    share = np.abs(vector) / np.abs(vector).sum()
    dimension = rng.choice(len(vector), size=words, p=share)
    pole = 2 * dimension + (vector[dimension] > 0)
    return " ".join(_word(int(n), 3) for n in pole * _WORDS + rng.integers(_WORDS, size=words))
