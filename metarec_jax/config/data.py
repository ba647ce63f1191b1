"""Where interactions come from, how users become tasks, and what is held out."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from metarec_jax.config.checks import require, require_choices
from metarec_jax.core.kinds import SOURCES, SPLITS
from metarec_jax.core.registry import name_of


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column of a CSV or Parquet file holds what; "" where the file has no such column."""

    user: str = "user_id"
    item: str = "item_id"
    rating: str = "rating"
    """Rating or click; "" makes every row a click of 1."""
    time: str = "timestamp"
    item_text: str = ""
    """What the encoder reads. "" takes the item file's text column, or the item id itself."""
    user_text: str = ""
    item_vector: str = ""
    """Lists of numbers, one an item, in an item file in Parquet: see `DataConfig.vectors`."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the interactions come from."""

    source: name_of(SOURCES) = "movielens-100k"
    """Which reader. "auto" tells from the files at `path`."""
    path: str = ""
    """A folder, a .zip, or a .csv / .parquet file. "" looks in the cache, in installed packages, then downloads."""
    items_path: str = ""
    """For source "table": a second file with one row an item (item id, text)."""
    vectors: str = ""
    """A .npy file with an embedding of each item beside its text (of an image, a sound, anything): float
    [items, width], in the order of the item file (of the items' ids, where the source is not "table"), NaN in all of
    a row for an item that has none. Beliefs about items read it (`factors.vectors`)."""
    columns: Columns = Columns()
    kind: Literal["rating", "click"] = "rating"
    negatives: int = 0
    """For clicks: items drawn beside each click that the user did not click, for data that holds clicks alone."""
    negatives_popularity: float = 0.75
    """Items are drawn in proportion to this power of their clicks in training rows: 0 draws all alike; with 1,
    popularity alone cannot tell clicks from the rest."""
    cache: str = ""
    """Folder for downloads and embeddings. "" is $METAREC_CACHE, or metarec_jax in the user's cache folder."""
    download: bool = True
    """Whether the publisher may be asked when nothing was found here."""

    def __post_init__(self) -> None:
        require_choices(self, "data")
        require(self.negatives >= 0, f"data.negatives is {self.negatives}; it must be 0 or more")
        require(
            math.isfinite(self.negatives_popularity) and self.negatives_popularity >= 0,
            f"data.negatives_popularity is {self.negatives_popularity}; it must be a finite number of at least 0",
        )
        if self.source == "table":
            require(bool(self.path), "data.source 'table' needs a file: give --data.path FILE.csv")
        require(
            not (self.vectors and self.columns.item_vector),
            f"data.vectors is {self.vectors!r} and data.columns.item_vector {self.columns.item_vector!r}: "
            "vectors come from one of the two",
        )


@dataclasses.dataclass(frozen=True)
class EpisodeConfig:
    """How users become tasks."""

    min_ratings: int = 13
    """Users with fewer interactions are left out."""
    max_ratings: int = 100
    """Users with more interactions are left out; 0 keeps them all."""
    query: int = 10
    """Query interactions of a user; the rest is support."""
    max_support: int = 90
    """Support interactions beyond this many are left out."""
    buckets: tuple[int, ...] = (16, 32, 90)
    """Support lengths that episodes are padded to, ascending: one compilation each."""
    order: Literal["random", "time"] = "random"
    """Whether the query is drawn at random or is the latest part of a user's history."""
    lengths: Literal["all", "varied"] = "all"
    """Support in training: all that is left of the query, or, "varied", its first few rows, from none to all, their
    number drawn anew with each draw and small ones as likely as large ones (on a logarithmic scale)."""
    draws: int = 0
    """Different draws of support and query, which the epochs take in turn; 0 draws anew each epoch (and 4 draws
    where users are described, since each description has to be encoded)."""
    validation: float = 0.1
    """Share of the users that tune."""
    test: float = 0.1
    """Share of the users that only the final table sees."""

    def __post_init__(self) -> None:
        require_choices(self, "episodes")
        require(self.query >= 1, f"episodes.query is {self.query}; it must be at least 1")
        require(
            self.min_ratings > self.query,
            f"episodes.min_ratings is {self.min_ratings} and episodes.query is {self.query}: "
            "a user needs at least one support interaction, so min_ratings must be larger than query",
        )
        require(
            self.max_ratings == 0 or self.max_ratings >= self.min_ratings,
            f"episodes.max_ratings is {self.max_ratings}, less than min_ratings {self.min_ratings}; 0 means no limit",
        )
        require(self.max_support >= 1, f"episodes.max_support is {self.max_support}; it must be at least 1")
        require(
            len(self.buckets) > 0 and list(self.buckets) == sorted(set(self.buckets)) and self.buckets[0] >= 1,
            f"episodes.buckets is {self.buckets}; it must be ascending lengths of at least 1, such as (16, 32, 90)",
        )
        require(
            self.buckets[-1] >= self.max_support,
            f"episodes.buckets ends at {self.buckets[-1]}, but episodes.max_support is {self.max_support}: "
            "the last bucket must hold the longest support",
        )
        require(self.draws >= 0, f"episodes.draws is {self.draws}; it must be 0 (a new draw each epoch) or more")
        for name in ("validation", "test"):
            share = getattr(self, name)
            require(0 < share < 1, f"episodes.{name} is {share}; it must lie between 0 and 1")
        require(
            self.validation + self.test < 1,
            f"episodes.validation {self.validation} and episodes.test {self.test} leave no user to train on",
        )


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Which rows train, and which tasks the model is tried on (see `metarec_jax.data.protocols`)."""

    kind: name_of(SPLITS) = "users"
    """What is held out. "users": users, drawn at random. "melu": users drawn at random and items of late years, in four
    scenarios. "tallrec": users, asked for their next item. "few-shot": users, met after their first few ratings.
    "time": everything after a date."""
    everyone: bool = False
    """For kinds "users" and "melu": whether users outside episodes.min_ratings and episodes.max_ratings train too."""
    year: int = 0
    """For kind "melu": items of later years are new. 0 is 1997 for MovieLens-1M, and elsewhere the latest year that
    leaves at least 15% of the items new."""
    supports: tuple[int, ...] = (0, 1, 3, 5, 10, 20)
    """For kind "few-shot": how many first ratings the model is shown."""
    history: int = 10
    """For kind "tallrec": how many previous items the model is shown."""
    test_users: Literal["auto", "random"] = "auto"
    """For kind "tallrec": "auto" takes the published test users of MovieLens-100K, and elsewhere draws them."""
    date: str = ""
    """For kind "time": from when on rows are held out, as 1998-03-01 or in the unit of the data's times. "" is the time
    that 80% of the rows come before."""

    def __post_init__(self) -> None:
        require_choices(self, "split")
        require(self.year >= 0, f"split.year is {self.year}; it must be a year, or 0 to have one chosen")
        require(
            len(self.supports) > 0 and list(self.supports) == sorted(set(self.supports)) and self.supports[0] >= 0,
            f"split.supports is {self.supports}; it must be ascending numbers of ratings, such as (0, 1, 3, 5, 10, 20)",
        )
        require(self.history >= 1, f"split.history is {self.history}; it must be at least 1")
