"""Predictions about query rows: the type that models and baselines return."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from metarec_jax.core.types import Array, Episodes, Tables


class Predictions(NamedTuple):
    """A method's predictions for a batch of users; each field is float [users, query] (or [rows]).

    The best prediction depends on the metric: the median for MAE, the mean for RMSE. A method that predicts one number
    repeats it in all three fields. Values in padded slots are undefined.

    Attributes:
        point: for MAE and accuracy: the median, for a method that predicts a distribution.
        mean: for RMSE: the expected rating.
        score: for ranking metrics, which sort by it, highest first; equal scores are a tie.
        above: float [users, query, levels - 1], probability that the rating is above each level but the greatest; None
            where the method predicts no distribution.
    """

    point: Array
    mean: Array
    score: Array
    above: Array | None = None


Function = Callable[[Tables, Episodes], Predictions]
"""A method: (embeddings, batch of episodes) -> predictions about their query rows."""
