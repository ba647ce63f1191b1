"""What a method says about the query rows: the one type that models and baselines both return."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from metarec_jax.core.types import Array, Episodes, Tables


class Predictions(NamedTuple):
    """A method's predictions for a batch of users; each field is float [users, query] (or [rows]).

    A rating's distribution has more than one centre, and each metric asks for its own. A method that knows one
    number only gives it three times. Padded slots may hold anything.

    Attributes:
        point: what MAE and accuracy judge: the median, for a method that has a distribution.
        mean: what RMSE judges: the expected rating.
        score: what ranking metrics sort by, highest first; equal scores are a tie, and every order of it counts.
        above: float [users, query, levels - 1], probability that the rating is above each level but the greatest; None
            where the method has no distribution.
    """

    point: Array
    mean: Array
    score: Array
    above: Array | None = None


Function = Callable[[Tables, Episodes], Predictions]
"""A method: from embeddings and a batch of episodes to what it says about their queries."""
