"""The state of a user to whom the model has adapted."""

from __future__ import annotations

import dataclasses

import numpy as np

from metarec_jax.core.types import Params, Rows
from metarec_jax.recommender.history import CheckedHistory


@dataclasses.dataclass(frozen=True, eq=False)
class UserState:
    """The state of a user to whom the model has adapted.

    Attributes:
        history: all ratings of the user.
        embedding: float32 [hidden], embedding of the user's text.
        support: the latest ratings, on which the model adapted, padded.
        adapted: the adapted parameters, in the form of the programs' arguments.
        run: digest of the model that adapted; other models refuse the state.
    """

    history: CheckedHistory
    embedding: np.ndarray
    support: Rows
    adapted: Params
    run: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on how the history was read."""
        count, used = len(self.history.rows), int(self.support.mask.sum())
        if count == used:
            return self.history.notes
        cut = f"of {count} ratings the latest {used} are used: the model was trained on no more"
        return (*self.history.notes, cut)
