"""What an encoder was pretrained on, by the mark in its folder, and whom a run must therefore not be tried on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions
from metarec_jax.data.splits import Splits

MARK = "pretraining.json"
"""Name of the mark in an encoder's folder."""


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
    for document in read_marks(encoder):
        if document["catalogue"] != catalogue_digest(data):
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
    if read_marks(encoder):
        raise MetarecError(
            f"the encoder {encoder} was pretrained on what users did, without noise, so that a run with it is not "
            "private: use one that was not, or say with --privacy.covers updates that it need not be covered"
        )


def read_marks(encoder: str) -> list[dict[str, Any]]:
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


def catalogue_digest(data: Interactions) -> str:
    """The same for the same people and items, whatever is done with their ratings."""
    total = hashlib.sha256()
    for ids in (data.users.ids, data.items.ids):
        total.update(json.dumps(ids).encode())
    return total.hexdigest()


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
