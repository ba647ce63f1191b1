"""What pretraining never sees, and the mark in an encoder's folder that says what it has seen.

The users are split as `metarec train` splits them, and pretraining reads the training users alone. Some items are held
out besides: their texts and everybody's interactions with them stay unseen, as if they were new.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from metarec_jax.data.splits import Splits, split_users
from metarec_jax.errors import MetarecError
from metarec_jax.files import write_text
from metarec_jax.pretraining.config import PretrainConfig
from metarec_jax.types import Interactions

MARK = "pretraining.json"
"""Name of the mark in an encoder's folder."""


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
        "catalogue": _catalogue_digest(data),
        "users": [data.users.ids[row] for row in np.sort(seen.splits.train)],
        "items_held_out": [data.items.ids[row] for row in np.flatnonzero(seen.cold)],
    }
    write_text(folder / MARK, json.dumps([*_marks(config.encoder.path), document], indent=1) + "\n")


def refuse_leak(
    encoder: str, data: Interactions, splits: Splits, *, cold: Bool[np.ndarray, " items"] | None = None
) -> None:
    """Refuses an encoder that was pretrained on the behaviour of users that a run tunes or tests on.

    Args:
        encoder: the encoder's path, as a config has it; one without a mark was not pretrained here.
        data: of the run. Users of other data are other people, whatever their ids.
        splits: of the run.
        cold: items that the run holds out; None where it has no such items.

    Raises:
        MetarecError: it was, or on items that are held out, or its mark is damaged.
    """
    for document in _marks(encoder):
        if document["catalogue"] != _catalogue_digest(data):
            continue
        known, unread = set(document["users"]), set(document["items_held_out"])
        users, items = data.users.ids, data.items.ids
        seen_items = [] if cold is None else [items[row] for row in np.flatnonzero(cold) if items[row] not in unread]
        for part, every, leaked in (
            ("test users", len(splits.test), [users[row] for row in splits.test if users[row] in known]),
            (
                "validation users",
                len(splits.validation),
                [users[row] for row in splits.validation if users[row] in known],
            ),
            ("held-out items", 0 if cold is None else int(cold.sum()), seen_items),
        ):
            if leaked:
                raise MetarecError(
                    f"the encoder {encoder} was pretrained, with seed {document['seed']}, on {len(leaked)} of this "
                    f"run's {every} {part} ({_some(leaked)}), so nothing measured on them would count: pretrain with "
                    "the seed, the --held-out and the --episodes options of this run, or use those of the pretraining"
                )


def refuse_behaviour(encoder: str) -> None:
    """Refuses an encoder that was pretrained here on what users did, for a run that promises privacy.

    Raises:
        MetarecError: it was.
    """
    if _marks(encoder):
        raise MetarecError(
            f"the encoder {encoder} was pretrained on what users did, without noise, so that a run with it is not "
            "private: use one that was not, or say with --privacy.covers updates that it need not be covered"
        )


def _marks(encoder: str) -> list[dict[str, Any]]:
    """What every pretraining of an encoder left in its folder, the first one first."""
    path = Path(os.path.expanduser(encoder)) / MARK
    if not os.path.isfile(path):
        return []
    try:
        documents = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(documents, list):
            raise ValueError("it is no list")
        for document in documents:
            if not all(isinstance(document[name], list) for name in ("users", "items_held_out")):
                raise ValueError("it names no users")
            if {"catalogue", "seed"} - document.keys():
                raise ValueError("it does not say of which data")
        return documents
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MetarecError(
            f"{path} is damaged ({error}), so nobody knows whose behaviour the encoder has seen: restore it, or "
            "pretrain again"
        ) from error


def _catalogue_digest(data: Interactions) -> str:
    """The same for the same people and items, whatever is done with their ratings."""
    total = hashlib.sha256()
    for ids in (data.users.ids, data.items.ids):
        total.update(json.dumps(ids).encode())
    return total.hexdigest()


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
