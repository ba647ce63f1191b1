"""Division of data into pretraining data and held-out data, and its record in the encoder's folder (a mark).

The users are split as in `metarec train`, and pretraining reads the training users alone. In addition some items are
held out as new items: their texts and all interactions with them are not read.
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
    """Data that pretraining reads.

    Attributes:
        splits: users of each part.
        cold: bool [items], held-out items.
        rows: bool [rows], interactions of training users with items that are not held out.
    """

    splits: Splits
    cold: Bool[np.ndarray, " items"]
    rows: Bool[np.ndarray, " rows"]


def seen(data: Interactions, config: PretrainConfig) -> Seen:
    """Choose the data that a pretraining reads; the split equals that of a run with the same `episodes` and seed.

    Args:
        data: the interactions.
        config: config of the pretraining.

    Returns:
        The chosen data.

    Raises:
        MetarecError: all items are held out.
    """
    splits = split_users(data, config.episodes, config.seed)
    cold = held_out_items(len(data.items), config.held_out, config.seed)
    if cold.all():
        raise MetarecError(
            f"held_out is {config.held_out:g}, which leaves none of {len(cold)} items to train on; lower --held-out"
        )
    return Seen(splits, cold, np.isin(data.user, splits.train) & ~cold[data.item])


def held_out_items(items: int, share: float, seed: int) -> Bool[np.ndarray, " items"]:
    """Draw the held-out items.

    Args:
        items: number of items.
        share: share of held-out items.
        seed: seed of the draw.

    Returns:
        bool [items].
    """
    cold = np.zeros(items, bool)
    cold[np.random.default_rng([seed, 1]).permutation(items)[: round(share * items)]] = True
    return cold


def mark(folder: Path, data: Interactions, seen: Seen, config: PretrainConfig, source: str) -> None:
    """Record in an encoder's folder the data on which it was pretrained, after the marks of the encoder before it.

    Args:
        folder: folder of the encoder.
        data: the interactions.
        seen: the data that was read.
        config: config of the pretraining.
        source: origin of the encoder before the pretraining.
    """
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
