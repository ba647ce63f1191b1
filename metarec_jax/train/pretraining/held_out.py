"""What pretraining never sees, and the mark in an encoder's folder that says what it has seen.

The users are split as `metarec train` splits them, and pretraining reads the training users alone. Some items are held
out besides: their texts and everybody's interactions with them stay unseen, as if they were new.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.core.atomic_files import write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.leakage import MARK, catalogue_digest, read_marks
from metarec_jax.data.splits import Splits, split_users


class Seen(NamedTuple):
    """What may be read.

    Attributes:
        splits: the users.
        cold: bool [items], those that are held out.
        rows: bool [rows], interactions of training users with items that are not.
    """

    splits: Splits
    cold: Bool[np.ndarray, " items"]
    rows: Bool[np.ndarray, " rows"]


def seen(data: Interactions, config: PretrainConfig) -> Seen:
    """What a pretraining may read of `data`; the split is that of a run with the same `episodes` and seed."""
    splits = split_users(data, config.episodes, config.seed)
    cold = held_out_items(len(data.items), config.held_out, config.seed)
    if cold.all():
        raise MetarecError(
            f"held_out is {config.held_out:g}, which leaves none of {len(cold)} items to train on; lower --held-out"
        )
    return Seen(splits, cold, np.isin(data.user, splits.train) & ~cold[data.item])


def held_out_items(items: int, share: float, seed: int) -> Bool[np.ndarray, " items"]:
    """Which of so many items are held out: a share, drawn by the seed."""
    cold = np.zeros(items, bool)
    cold[np.random.default_rng([seed, 1]).permutation(items)[: round(share * items)]] = True
    return cold


def mark(folder: Path, data: Interactions, seen: Seen, config: PretrainConfig, source: str) -> None:
    """Writes into an encoder's folder what it was pretrained on; what it started from keeps its marks."""
    document = {
        "objective": config.objective,
        "steps": config.steps,
        "seed": config.seed,
        "started_from": source,
        "data": data.source,
        "catalogue": catalogue_digest(data),
        "users": [data.users.ids[row] for row in np.sort(seen.splits.train)],
        "items_held_out": [data.items.ids[row] for row in np.flatnonzero(seen.cold)],
    }
    write_text(folder / MARK, json.dumps([*read_marks(config.encoder.path), document], indent=1) + "\n")
