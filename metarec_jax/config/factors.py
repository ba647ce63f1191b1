"""Choices of the factors of items."""

from __future__ import annotations

import dataclasses
import math

from metarec_jax.config.checks import require


@dataclasses.dataclass(frozen=True)
class FactorsConfig:
    """What is learned of items from the ratings of training users: a mean, and factors that users differ over.

    Variances are in squares of a quarter of the rating scale.
    """

    rank: int = 32
    """Factors of an item; 0 learns none, and predictions start from item mean + user bias."""
    bias: float = 0.16
    """Variance of users' liking of everything."""
    text: float = 0.25
    """Variance of tastes over what a text says."""
    details: float = 0.06
    """The same over each further column of items (genres, year, ...)."""
    popularity: float = 0.075
    """The same over how often an item was rated."""
    vectors: float = 0.25
    """The same over the vectors that items come with, where they do (`data.vectors`)."""
    item: float = 0.5
    """The same over what nothing known of an item explains."""
    strength: float = 20.0
    """Users that these variances count as much as, against the covariances that training users show."""
    choices: float = 100.0
    """Users that count against there being anything in which items a user rated at all; 0 makes nothing of it."""
    profile: float = 2000.0
    """The same of users' profiles, where they have some."""
    noise: float = 0.8
    """Variance of a rating around what its user feels (at first; it is learned)."""
    iterations: int = 12
    """Of expectation maximisation."""
    mean_text: float = 0.02
    """Variance of item means over what a text says."""
    mean_details: float = 0.15
    mean_popularity: float = 0.02
    mean_vectors: float = 0.02
    mean_item: float = 0.34
    mean_noise: float = 2.6
    """Variance of a rating around its item's mean."""
    mean_users: float = 0.7
    """Ratings that a user's bias is shrunk as much as by, while item means are found."""
    items: int = 4096
    """Items that are rated most, which factors are learned on; others' factors follow from what is known of them."""
    folds: int = 5
    """Parts of the training users; each part is trained with what the others taught."""
    dropout: float = 0.2
    """Share of the items of a training user that the model meets as if nobody had rated them, with what follows from
    the items themselves: so it learns what to make of new ones."""
    text_dropout: float = 0.0
    """Share of those that do without what follows from their text, too."""
    details_dropout: float = 0.0
    """The same of further columns of items (genres, year, ...)."""
    vectors_dropout: float = 0.0
    """The same of their vectors."""

    def __post_init__(self) -> None:
        for name in ("rank", "iterations"):
            value = getattr(self, name)
            require(value >= 0, f"factors.{name} is {value}; it must be 0 or more")
        for name in ("choices", "profile"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"factors.{name} is {value}; it must be 0 or more")
        sources = ("text", "details", "popularity", "vectors")
        for name in ("bias", *sources, *(f"mean_{source}" for source in sources)):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"factors.{name} is {value}; it is a variance, so at least 0")
        for name in ("item", "strength", "noise", "mean_item", "mean_noise", "mean_users"):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0, f"factors.{name} is {value}; it must be a finite number above 0"
            )
        require(self.items >= 1, f"factors.items is {self.items}; it must be at least 1")
        for name in ("dropout", "text_dropout", "details_dropout", "vectors_dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"factors.{name} is {value}; it must be at least 0 and below 1")
            require(
                self.dropout > 0 or not value,
                f"factors.{name} is {value}, but factors.dropout is 0: sources are dropped of items that are met as "
                "new ones, so use --factors.dropout above 0",
            )
        require(self.folds >= 2, f"factors.folds is {self.folds}; it must be at least 2")
