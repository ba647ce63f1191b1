"""Options of the factors of items."""

from __future__ import annotations

import dataclasses

from metarec_jax.config.checks import require_types


@dataclasses.dataclass(frozen=True)
class FactorsConfig:
    """Means and factors of items, learned from the ratings of training users (see docs/factors.md)."""

    rank: int = 32
    """Factors of an item; with 0 none are learned, and predictions start from item mean + user bias."""
    dropout: float = 0.2
    """Share of the items of a training user that get the factors of a new item, predicted from what is known of the
    item itself, so that the model learns to use these."""

    train: bool = False
    """Whether the outer loop trains a correction of the factors of each item, which starts at 0. Without factors it has
    no effect."""
    rate: float = 0.01
    """Learning rate of that correction, with the schedule of the others."""
    mixing: float = 0.75
    """Weight of the trained parameters in the mean with those before training, which is kept; 1 keeps the trained ones.
    Without factors it has no effect."""

    def __post_init__(self) -> None:
        require_types(self, "factors")
