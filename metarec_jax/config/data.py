"""Options of the data source, of episodes, and of the split."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Literal

from metarec_jax.config.checks import is_text_encoding, require, require_types
from metarec_jax.core.errors import shown
from metarec_jax.core.kinds import SOURCES, SPLITS
from metarec_jax.core.registry import name_of

SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " "}
"""Separators that have a name, for the command line."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of the columns of a table, or their numbers (1 is the first) if it has no header; "" if there is no such
    column. A column of time or of clicks that only these defaults name may be missing."""

    user: str = "user_id"
    item: str = "item_id"
    rating: str = "rating"
    """Ratings or clicks; "" makes every row a click of 1."""
    time: str = "timestamp"
    item_text: str = ""
    """Text of an item, for the encoder; "" takes the item file's text column, or the item id."""
    user_text: str = ""
    """Text of a user, for the encoder; "" if users have none."""
    item_vector: str = ""
    """Vector of an item, a list of numbers in a Parquet item file (see `DataConfig.vectors`)."""
    image: str = ""
    """Picture of an item in the item file: its path, relative to that file, or (in Parquet) its bytes. Missing or empty
    where an item has none. `DataConfig.image_encoder` reads it."""

    def __post_init__(self) -> None:
        require_types(self, "data.columns")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data source."""

    source: name_of(SOURCES) = "auto"
    """Reader of the data; "auto" recognises it by the files at `path`, and is "movielens-100k" without a path."""
    path: str = ""
    """A table (text with separators, JSON lines or Parquet; also compressed), or a folder or .zip of files. "" searches
    the cache and installed packages, then downloads."""
    items_path: str = ""
    """Item file for source "table": one row for each item, with its id and text."""
    separator: str = ""
    """Separator of values in the text table `path`: characters, or "tab", "space"; "" recognises it."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line of the text table `path` names the columns."""
    quoting: Literal["auto", "double", "none"] = "auto"
    """Whether values of text tables may stand in double quotes; "auto": yes, except between tabs. "double" also allows
    quoted values of any number of lines."""
    escape: Literal["auto", "backslash", "none"] = "auto"
    """Whether a backslash escapes a quote in a quoted value."""
    encoding: str = "auto"
    """Encoding of text tables, such as latin-1; "auto" is UTF-8, or UTF-16 or UTF-32 with a byte order mark."""
    decimal: Literal["auto", ".", ","] = "auto"
    """Decimal sign of numbers in text tables."""
    repeats: Literal["auto", "refuse", "latest", "first", "mean", "sum"] = "auto"
    """What becomes of rows of a table with the same user and item: one of them, or the mean or sum of their ratings at
    the latest time. "auto" refuses them for ratings, and counts them as one click. "sum" without a rating column
    counts rows (plays, say)."""
    vectors: str = ""
    """A .npy file with a further vector of each item (of its image or sound, say): float [items, width], in the order
    of the item file (of the item ids, if the source is not "table"); a row of NaN for an item without one. Item factors
    use it as a feature."""
    image_encoder: str = ""
    """Folder or hub id of a CLIP or SigLIP, whose vision tower makes vectors of the pictures of `columns.image`, for
    item factors."""
    columns: Columns = Columns()
    kind: Literal["rating", "click"] = "rating"
    """Whether interactions are ratings or clicks. "click" makes clicks of a published data set's ratings (see
    `liked`)."""
    liked: str = ""
    """Least rating of a liked item, in the unit of the ratings; "" takes the top quarter of the scale, which is 4 of 1
    to 5. Metrics, feedback and pretraining use it. With kind "click" it makes clicks of ratings: those of at least this
    value are clicks, the others are left out."""
    negatives: int = 0
    """Items that the user did not click, drawn for each click, if the data has clicks only."""
    negatives_popularity: float = 0.75
    """Negatives are drawn in proportion to this power of an item's clicks in training: 0 draws uniformly; with 1,
    popularity alone cannot separate clicks from negatives."""
    cache: str = ""
    """Folder of downloads and embeddings; "" is $METAREC_CACHE, or metarec_jax in the user's cache folder."""
    download: bool = True
    """Whether to download the data if it is not found on this machine."""

    @property
    def reader(self) -> str:
        """`source`, or the published data set that "auto" stands for without a path."""
        return "movielens-100k" if self.source == "auto" and not self.path else self.source

    def __post_init__(self) -> None:
        if isinstance(self.liked, numbers.Real) and not isinstance(self.liked, bool):
            object.__setattr__(self, "liked", repr(float(self.liked)))
        require_types(self, "data")
        require(
            self.liked == "" or _is_finite(self.liked),
            f"data.liked is {shown(self.liked)}; it must be a number, or '' for the top quarter of the scale",
        )
        require(
            self.encoding == "auto" or is_text_encoding(self.encoding),
            f"data.encoding is {shown(self.encoding)}; it must be a text encoding that Python knows, such as utf-8, "
            "latin-1 or cp1252",
        )
        require(
            not set('"\\\r\n\0') & set(SEPARATORS.get(self.separator, self.separator)),
            f"data.separator is {shown(self.separator)}; it must not contain quotes, backslashes or line ends",
        )
        if self.source == "table":
            require(bool(self.path), "data.source 'table' needs a file: give --data.path FILE.csv")
        require(
            not (self.vectors and self.columns.item_vector),
            f"data.vectors is {self.vectors!r} and data.columns.item_vector {self.columns.item_vector!r}: "
            "vectors come from one of the two",
        )
        require(
            bool(self.image_encoder) or not self.columns.image,
            f"data.columns.image is {self.columns.image!r}, but nothing reads pictures: name a CLIP or SigLIP with "
            "--data.image-encoder FOLDER",
        )
        require(
            not (self.columns.image and (self.vectors or self.columns.item_vector)),
            f"data.columns.image is {self.columns.image!r}, but items have vectors of their own (data.vectors or "
            "data.columns.item_vector): leave one of the two out",
        )


@dataclasses.dataclass(frozen=True)
class EpisodeConfig:
    """How the history of a user is cut into support and query."""

    min_ratings: int = 13
    """Fewest interactions of a user; users with fewer are left out."""
    max_ratings: int = 100
    """Most interactions of a user; users with more are left out. 0 sets no limit."""
    query: int = 10
    """Query interactions of a user; the others are the support."""
    buckets: tuple[int, ...] = (16, 32, 90)
    """Support lengths that episodes are padded to, ascending; a program is compiled for each. The last one is the
    greatest support of a user; further interactions are left out."""
    order: Literal["random", "time"] = "random"
    """Choice of the query: at random, or the latest interactions of the user."""
    lengths: Literal["all", "varied"] = "all"
    """Support in training: "all" interactions that are not in the query, or, for "varied", the first n of them, with n
    drawn for each draw from 0 to all, uniformly on a logarithmic scale."""
    draws: int = 0
    """Number of draws of support and query, which epochs use in turn; 0 draws in each epoch, or 4 times if users have
    descriptions, each of which has to be encoded."""
    validation: float = 0.1
    """Share of the users that are validation users."""
    test: float = 0.1
    """Share of the users that are test users."""

    @property
    def max_support(self) -> int:
        """Greatest number of support interactions of a user."""
        return self.buckets[-1]

    def __post_init__(self) -> None:
        require_types(self, "episodes")
        require(
            self.min_ratings > self.query,
            f"episodes.min_ratings is {self.min_ratings} and episodes.query is {self.query}: "
            "a user needs at least one support interaction, so min_ratings must be larger than query",
        )
        require(
            self.max_ratings == 0 or self.max_ratings >= self.min_ratings,
            f"episodes.max_ratings is {self.max_ratings}, less than min_ratings {self.min_ratings}; 0 means no limit",
        )
        require(
            len(self.buckets) > 0 and list(self.buckets) == sorted(set(self.buckets)) and self.buckets[0] >= 1,
            f"episodes.buckets is {self.buckets}; it must be ascending lengths of at least 1, such as (16, 32, 90)",
        )
        require(
            self.validation + self.test < 1,
            f"episodes.validation {self.validation} and episodes.test {self.test} leave no user to train on",
        )


def ending_at(buckets: Sequence[int], most: int) -> tuple[int, ...]:
    """End buckets at another greatest support.

    Args:
        buckets: ascending support lengths.
        most: the greatest support.

    Returns:
        The buckets below `most`, and `most`.

    >>> ending_at((16, 32, 90), 20)
    (16, 20)
    """
    return (*(length for length in buckets if length < most), most)


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """The split into training, validation and test (see `metarec_jax.data.protocols`)."""

    kind: name_of(SPLITS) = "users"
    """What is held out. "users": random users. "melu": random users and items of late years, in four scenarios.
    "tallrec": random users, with their next item as the query. "few-shot": random users, with their first few ratings
    as the support. "time": all rows after a date. "strong-generalisation": some of the clicks of random users.
    "next-items": the last clicks of users. "cold-items": clicks on items that nobody clicked in training. The last
    three judge lists over the whole catalogue."""
    everyone: bool = False
    """For all but "tallrec", "few-shot" and "time": train on users outside episodes.min_ratings and
    episodes.max_ratings too."""
    year: int = 0
    """For "melu": last year of known items; items of later years are new. 0 is 1997 for MovieLens-1M, and otherwise the
    latest year after which there are at least 15% of the items."""
    supports: tuple[int, ...] = (0, 1, 3, 5, 10, 20)
    """For "few-shot": sizes of the support."""
    history: int = 10
    """For "tallrec": previous items of a row."""
    test_users: Literal["auto", "random"] = "auto"
    """For "tallrec": "auto" takes the published test users of MovieLens-100K, and draws them for other data."""
    date: str = ""
    """For "time": date from which rows are held out, such as 1998-03-01, or a time in the unit of the data. "" is the
    time before which 80% of the rows are."""

    shown: float = 0.8
    """For "strong-generalisation": share of a test user's clicks that is shown; the others are the targets."""
    known_users: bool = False
    """For "next-items": whether the clicks before the targets train, so that test users are known; otherwise test
    users are new."""
    cold: float = 0.1
    """For "cold-items": share of the items that only test users' targets have, and an equal share for validation."""
    cold_by: Literal["random", "latest"] = "random"
    """For "cold-items": whether these items are drawn, or those that appear last in the data."""

    def __post_init__(self) -> None:
        require_types(self, "split")
        require(
            len(self.supports) > 0 and list(self.supports) == sorted(set(self.supports)) and self.supports[0] >= 0,
            f"split.supports is {self.supports}; it must be ascending numbers of ratings, such as (0, 1, 3, 5, 10, 20)",
        )


def reaching(buckets: Sequence[int], most: int) -> tuple[int, ...]:
    """Add doubled lengths to buckets until they reach a support.

    Args:
        buckets: ascending support lengths.
        most: the greatest support.

    Returns:
        The buckets, and doubles of the last one up to the first that is at least `most`.

    >>> reaching((16, 32, 90), 200), reaching((16, 32, 90), 20)
    ((16, 32, 90, 180, 360), (16, 32, 90))
    """
    found = list(buckets)
    while found[-1] < most:
        found.append(2 * found[-1])
    return tuple(found)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
