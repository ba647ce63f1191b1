"""Refusal of an encoder that was pretrained on held-out data, as recorded by a mark in its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.core.types import Interactions
from metarec_jax.data.fingerprint import json_digest
from metarec_jax.data.splits import Splits

MARK = "pretraining.json"
"""Name of the mark in an encoder's folder."""


def refuse_leak(
    encoder: str, data: Interactions, splits: Splits, *, cold: Bool[np.ndarray, " items"] | None = None
) -> None:
    """Refuse an encoder that was pretrained on the interactions of a run's validation or test users.

    Args:
        encoder: path of the encoder as in the config. An encoder without a mark was not pretrained by this package.
        data: data of the run. Pretraining on other data cannot leak, even if ids are equal.
        splits: splits of the run.
        cold: bool [items], items that the run holds out; None where it holds out none.

    Raises:
        MetarecError: the encoder was pretrained on such users or on held-out items, or its mark is damaged.
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
                    f"run's {every} {part} ({_some(leaked)}), so metrics on them would be invalid: pretrain with "
                    "the seed, the --held-out and the --episodes options of this run, or use those of the pretraining"
                )


def refuse_behaviour(encoder: str, remedy: str) -> None:
    """Refuse an encoder that was pretrained on interactions by this package, for a run that may not use it.

    Args:
        encoder: path of the encoder as in the config.
        remedy: clause for the message: what may be done other than to take another encoder.

    Raises:
        MetarecError: the encoder was pretrained on interactions.
    """
    if read_marks(encoder):
        raise MetarecError(
            f"the encoder {encoder} was pretrained on users' interactions, which this run may use in its own training "
            f"steps only: use another encoder, {remedy}"
        )


def read_marks(encoder: str) -> list[dict[str, Any]]:
    """The marks of all pretrainings of an encoder, the earliest first; see `metarec_jax.train.pretraining.held_out`."""
    path = Path(os.path.expanduser(encoder)) / MARK
    if not os.path.lexists(path):
        return []
    remedy = "so it is unknown which users the encoder was pretrained on: restore it, or pretrain again"
    documents = read_json(path, remedy=remedy)
    try:
        if not isinstance(documents, list):
            raise ValueError("it is not a list")
        for document in documents:
            if not all(isinstance(document[name], list) for name in ("users", "items_held_out")):
                raise ValueError("it names no users")
            if {"catalogue", "seed"} - document.keys():
                raise ValueError("it does not say of which data")
        return documents
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MetarecError(f"{path} is damaged ({error}), {remedy}") from error


def catalogue_digest(data: Interactions) -> str:
    """A digest of the ids of users and items; it does not depend on the ratings."""
    return json_digest(data.users.ids, data.items.ids)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
