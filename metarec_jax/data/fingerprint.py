"""Digests of data sets, which tell whether two runs or evaluations read the same data."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import numpy as np

from metarec_jax.core.stored_columns import blocks
from metarec_jax.core.types import Interactions

_NAMES = 1 << 16  # ids that are joined at a time


def fingerprint(data: Interactions) -> str:
    """sha256 of users, items, ratings and times of all interactions."""
    digest = hashlib.sha256()
    for start, names in ((b"", data.users.ids), (b"\n\n", data.items.ids)):
        for some in blocks(len(names), _NAMES):
            digest.update((b"\n" if some.start else start) + "\n".join(names[some]).encode())
    for column in (data.user, data.item, data.rating, data.time):
        for some in blocks(len(column)):
            digest.update(np.ascontiguousarray(column[some]).tobytes())
    return digest.hexdigest()


def json_digest(*values: Any) -> str:
    """sha256 of the JSON text of values one after the other, each a string, None or a sequence of values."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if value is None or isinstance(value, str):
            digest.update(json.dumps(value).encode())
            return
        for place, part in enumerate(value):
            digest.update(b", " if place else b"[")
            add(part)
        digest.update(b"]" if len(value) else b"[]")

    for value in values:
        add(value)
    return digest.hexdigest()


def input_digests(data: Interactions, encoder: str) -> dict[str, str]:
    """sha256 of each part of what a training reads.

    Args:
        data: interactions, items and users.
        encoder: digest of the encoder's weights and tokenizer.

    Returns:
        Digests by part: "ratings", "items", "users", "vectors" and "encoder".
    """
    items = data.items
    texts = {"items": [items.titles, items.texts, [*items.details.items()]], "users": data.users.texts}
    vectors = b"" if items.vectors is None else np.ascontiguousarray(items.vectors).tobytes()
    return {
        "ratings": fingerprint(data),
        **{name: json_digest(text) for name, text in texts.items()},
        "vectors": hashlib.sha256(vectors).hexdigest(),
        "encoder": encoder,
    }


def fingerprint_with_texts(data: Interactions, encoder: str) -> str:
    """sha256 of all inputs of a training.

    Args:
        data: interactions, and texts of users and items.
        encoder: digest of the encoder's weights and tokenizer.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256(f"{encoder}\n{fingerprint(data)}\n".encode())
    for text in itertools.chain(data.users.texts or (), data.items.texts, data.items.titles):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    if data.items.vectors is not None:
        digest.update(np.ascontiguousarray(data.items.vectors).tobytes())
    return digest.hexdigest()
