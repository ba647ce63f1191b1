"""Ranges of options, and greatest values, beyond which nothing can be computed: refused before anything begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metarec_jax.core.errors import MetarecError, shown

_WIDTH = "parameters and their gradients grow with it"
_ROWS = "episodes are padded to it"
_TIME = "training would not end"

_INFINITE = float("inf")
_RANGES: Sequence[tuple[str, Callable[[float], bool], str]] = (
    ("episodes.query split.history encoder.lora_rank learner.hidden", lambda n: n >= 1, "be at least 1"),
    ("train.epochs train.users_per_step train.shards", lambda n: n >= 1, "be at least 1"),
    ("mlm.tokens_per_step steps judge_every", lambda n: n >= 1, "be at least 1"),
    ("data.negatives encoder.frozen_layers factors.rank", lambda n: n >= 0, "be 0 or more"),
    ("updater.steps train.patience", lambda n: n >= 0, "be 0 or more"),
    ("train.devices devices", lambda n: n >= 0, "be 0 (all) or more"),
    ("train.users_per_device", lambda n: n >= 0, "be 0 (as many as fit) or more"),
    ("episodes.draws", lambda n: n >= 0, "be 0 (a new draw each epoch) or more"),
    ("split.year", lambda n: n >= 0, "be a year, or 0 to have one chosen"),
    ("learner.context", lambda n: n >= 0, "be 0 (none) or more"),
    ("encoder.dims", lambda n: n >= 0, "be 0 (the whole vector) or more"),
    ("encoder.max_length", lambda n: n == 0 or n >= 3, "be at least 3, or 0 for the checkpoint's own"),
    (
        "contrastive.users_per_step",
        lambda n: n >= 2,
        "be at least 2, since the negatives of a user are the liked items of the others",
    ),
    (
        "contrastive.liked_per_user",
        lambda n: n >= 2,
        "be at least 2, since positives are pairs of a user's liked items",
    ),
    (
        "encoder.rate factors.rate updater.rate train.rate mlm.head_rate",
        lambda x: 0 < x < _INFINITE,
        "be a finite number above 0",
    ),
    ("contrastive.weight contrastive.temperature", lambda x: 0 < x < _INFINITE, "be a finite number above 0"),
    ("data.negatives_popularity", lambda x: 0 <= x < _INFINITE, "be a finite number of at least 0"),
    ("train.weight_decay weight_decay", lambda x: 0 <= x < _INFINITE, "be a finite number of at least 0"),
    ("learner.gate", lambda x: 0 <= x < _INFINITE, "be a finite number of at least 0 (0 has no gate)"),
    ("factors.dropout learner.dropout held_out", lambda x: 0 <= x < 1, "be at least 0 and below 1"),
    ("episodes.validation episodes.test split.shown mlm.share", lambda x: 0 < x < 1, "lie between 0 and 1"),
    ("split.cold", lambda x: 0 < x < 0.5, "lie between 0 and .5, since training needs items, too"),
    ("factors.mixing", lambda x: 0 < x <= 1, "be above 0 and at most 1"),
    ("mlm.item_share", lambda x: 0 <= x <= 1, "be a share, 0 to 1"),
    ("seed", lambda n: 0 <= n < 2**31, f"lie between 0 and {2**31 - 1}"),
)
RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    name: (possible, must) for names, possible, must in _RANGES for name in names.split()
}
"""Whether a number is a possible value of an option, and what it must be."""
MOST: Mapping[str, tuple[float, str]] = {
    "data.negatives": (10_000, "that many rows are drawn for each click"),
    "data.negatives_popularity": (100, "numbers of clicks are raised to this power"),
    "episodes.query": (100_000, _ROWS),
    "episodes.buckets": (100_000, _ROWS),
    "episodes.draws": (100_000, "each draw is kept in memory"),
    "split.supports": (100_000, _ROWS),
    "split.history": (100_000, _ROWS),
    "encoder.max_length": (100_000, "texts are padded to it"),
    "encoder.dims": (1_000_000, "no encoder has vectors that wide"),
    "encoder.frozen_layers": (10_000, "no encoder has so many layers"),
    "encoder.lora_rank": (65_536, _WIDTH),
    "factors.rank": (4_096, "the factors of items grow with its square"),
    "learner.hidden": (65_536, _WIDTH),
    "learner.context": (65_536, _WIDTH),
    "learner.width": (65_536, _WIDTH),
    "learner.layers": (1_000, _WIDTH),
    "updater.steps": (10_000, "each step is computed for every user"),
    "train.epochs": (1_000_000, _TIME),
    "train.patience": (1_000_000, _TIME),
    "train.users_per_step": (10_000_000, "each user of a step takes memory"),
    "train.users_per_device": (10_000_000, "each user of a step takes memory"),
    "train.devices": (1_000_000, "there are no machines with so many"),
    "train.shards": (1_000_000, "there are no machines with so many"),
    "mlm.tokens_per_step": (100_000_000, "each token of a step takes memory"),
    "contrastive.users_per_step": (100_000, "each user is compared with every other"),
    "contrastive.liked_per_user": (100_000, "each item is compared with every other"),
    "steps": (1_000_000_000, _TIME),
    "devices": (1_000_000, "there are no machines with so many"),
}
"""Greatest value of an option, or of a member of one that is a list, and why."""
MOST_INTEGER = 2**31 - 1
"""Greatest integer of an option that `MOST` does not list."""
MOST_FLOAT = 1e30
"""Greatest float: numbers are computed in float32, which ends at 3e38."""
MOST_MEMBERS = 100
"""Greatest length of a list."""
MOST_CHARACTERS = 4096
"""Greatest length of a text; no path of a file is longer."""


def check_limits(name: str, value: Any) -> None:
    """Check that the value of an option is in its range, and does not exceed its limit.

    Args:
        name: name of the option, such as "learner.hidden".
        value: its value, of the option's type.

    Raises:
        MetarecError: the value is impossible, too large or too long, or holds a character that no path and no column
            can have.
    """
    if isinstance(value, tuple):
        if len(value) > MOST_MEMBERS:
            raise MetarecError(f"{name} has {len(value):,} members; it must have at most {MOST_MEMBERS}")
        for member in value:
            check_limits(name, member)
    elif isinstance(value, str):
        if len(value) > MOST_CHARACTERS:
            raise MetarecError(f"{name} is {shown(value)}; it must have at most {MOST_CHARACTERS:,} characters")
        if "\0" in value:
            raise MetarecError(f"{name} is {shown(value)}; it must not contain a NUL character")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        possible, must = RANGES.get(name, (None, ""))
        if possible is not None and not possible(value):
            raise MetarecError(f"{name} is {shown(value)}; it must {must}")
        most, why = MOST.get(name, (MOST_FLOAT, "numbers are float32"))
        if isinstance(value, int) and name not in MOST:
            most, why = MOST_INTEGER, "integers have 32 bits"
        if abs(value) > most and abs(value) != float("inf"):  # infinite ones are refused by the option's own check
            raise MetarecError(f"{name} is {shown(value)}; it must be at most {most:.15g} ({why})")
