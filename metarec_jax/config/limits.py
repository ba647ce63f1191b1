"""Greatest values of options: beyond them nothing can be computed, so that they are refused before anything begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarec_jax.core.errors import MetarecError, shown

_WIDTH = "parameters and their gradients grow with it"
_ROWS = "episodes are padded to it"
_TIME = "training would not end"

MOST: Mapping[str, tuple[float, str]] = {
    "data.negatives": (10_000, "that many rows are drawn for each click"),
    "data.negatives_popularity": (100, "numbers of clicks are raised to this power"),
    "episodes.query": (100_000, _ROWS),
    "episodes.buckets": (100_000, _ROWS),
    "episodes.draws": (100_000, "each draw is kept in memory"),
    "split.supports": (100_000, _ROWS),
    "split.history": (100_000, _ROWS),
    "encoder.max_length": (100_000, "texts are padded to it"),
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
    """Check that the value of an option does not exceed its limit.

    Args:
        name: name of the option, such as "learner.hidden".
        value: its value, of the option's type.

    Raises:
        MetarecError: the value is too large or too long, or holds a character that no path and no column can have.
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
        most, why = MOST.get(name, (MOST_FLOAT, "numbers are float32"))
        if isinstance(value, int) and name not in MOST:
            most, why = MOST_INTEGER, "integers have 32 bits"
        if abs(value) > most and abs(value) != float("inf"):  # infinite ones are refused by the option's own check
            raise MetarecError(f"{name} is {shown(value)}; it must be at most {most:.15g} ({why})")
