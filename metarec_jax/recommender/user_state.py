"""A user that the model has adapted to."""

from __future__ import annotations

import dataclasses

import numpy as np

from metarec_jax.core.types import Params, Rows
from metarec_jax.recommender.history import CheckedHistory


@dataclasses.dataclass(frozen=True, eq=False)
class UserState:
    """A user that the model has adapted to.

    Attributes:
        history: all ratings of the user.
        embedding: float32 [hidden], of the user's text.
        support: the latest ratings, which were adapted to, padded.
        adapted: the adapted parameters, as the programs take them.
    """

    history: CheckedHistory
    embedding: np.ndarray
    support: Rows
    adapted: Params

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how the history was read."""
        count, used = len(self.history.rows), int(self.support.mask.sum())
        if count == used:
            return self.history.notes
        cut = f"of {count} ratings the latest {used} are used: the model was trained on no more"
        return (*self.history.notes, cut)
