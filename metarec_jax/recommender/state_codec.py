"""User states as bytes, to be kept elsewhere and handed back; and sealed, so that nobody else can have made them.

A state is a compressed safetensors file: the history, the embedding of the user's text, and what the inner loop led to.
Reading one runs no code, whatever is in it. It names the run it belongs to, and another run refuses it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.meta.user import Trainable
from metarec_jax.train.catalogue import Scale

MOST_BYTES = 1 << 20
"""Of a state that is unpacked: what bounds the memory that a hostile one takes."""
MOST_KEPT = 40_000
"""Bytes of what the inner loop led to, beyond which a state does without: it is then adapted anew, from its history."""
_TAG = 32
"""Bytes of a seal."""


class Packed(NamedTuple):
    """What there is in a state.

    Attributes:
        item: the ids of the history's items, oldest first.
        rating: float32 [n].
        embedding: float32 [hidden].
        kept: leaves of what the inner loop led to; None where the state does without.
    """

    item: list[str]
    rating: np.ndarray
    embedding: np.ndarray
    kept: list[np.ndarray] | None


def digest_of(config: Config, items: Sequence[str], trainable: Trainable) -> str:
    """A name of a trained model: equal for equal choices, items and parameters."""
    found = hashlib.sha256(to_json(config).encode())
    found.update(json.dumps(list(items)).encode())
    for leaf in jax.tree.leaves(trainable):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:32]


def pack(packed: Packed, run: str) -> bytes:
    """The bytes of a state of the run with that digest."""
    from safetensors.numpy import save

    arrays = {"rating": packed.rating, "embedding": packed.embedding}
    if packed.kept is not None and sum(leaf.nbytes for leaf in packed.kept) <= MOST_KEPT:
        arrays |= {f"kept.{number}": leaf for number, leaf in enumerate(packed.kept)}
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return zlib.compress(save(arrays, metadata={"run": run, "item": json.dumps(packed.item)}), 1)


def unpack(data: bytes, run: str, hidden: int, scale: Scale, shapes: Callable[[int], list[tuple[int, ...]]]) -> Packed:
    """What `pack` made bytes of.

    Args:
        data: the bytes.
        run: digest of the run that wants them.
        hidden: width of a user's embedding.
        scale: of the ratings.
        shapes: of the leaves that are kept of a history of a length.

    Raises:
        MetarecError: these are no bytes of a state, or those of another run's.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    remedy = "hand back a state as it was given, or adapt to the history again"
    try:
        unpacker = zlib.decompressobj()
        whole = unpacker.decompress(data, MOST_BYTES)
        if not unpacker.eof:
            raise ValueError("it is too large, or cut short")
        header = _metadata(whole)
        if header.get("run") != run:
            raise MetarecError("the state belongs to another run: adapt to the history again")
        arrays = load(whole)
        items = json.loads(header["item"])
        rating, embedding = arrays.pop("rating"), arrays.pop("embedding")
        if not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
            raise ValueError("its items are no list of ids")
        if rating.shape != (len(items),) or embedding.shape != (hidden,):
            raise ValueError("its parts do not fit each other")
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in (rating, embedding)):
            raise ValueError("it holds what is no finite number")
        if len(rating) and not (scale.low <= rating.min() and rating.max() <= scale.high):
            raise ValueError("a rating is not on the scale")
        if len(set(items)) != len(items):
            raise ValueError("an item is there twice")
        kept = [arrays[f"kept.{number}"] for number in range(len(arrays))] if arrays else None
        if kept is not None and [leaf.shape for leaf in kept] != shapes(len(items)):
            raise ValueError("what was kept does not fit the run")
        if kept is not None and not all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in kept):
            raise ValueError("it holds what is no finite number")
        return Packed(items, rating, embedding, kept)
    except (zlib.error, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MetarecError(f"the state is malformed ({error}): {remedy}") from error


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file (whose header is JSON, with its length in front)."""
    if len(data) < 8:
        raise ValueError("it is cut short")
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise ValueError("it is cut short")
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("it has no header")
    return metadata


class Seal:
    """Makes text of bytes that only the owner of a key can have made (HMAC-SHA256; Krawczyk et al. 1997, RFC 2104).

    >>> seal = Seal(b"k" * 32)
    >>> seal.open("user", seal.close("user", b"x"))
    b'x'
    >>> seal.open("state", seal.close("user", b"x")) is None
    True
    """

    def __init__(self, key: bytes):
        self._key = key

    def close(self, purpose: str, data: bytes) -> str:
        """`data` as text for a purpose, which is sealed with it."""
        return base64.urlsafe_b64encode(self._tag(purpose, data) + data).rstrip(b"=").decode()

    def open(self, purpose: str, text: str) -> bytes | None:
        """The bytes in `text`; None where it was not made with this key for this purpose."""
        try:
            whole = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        tag, data = whole[:_TAG], whole[_TAG:]
        return data if hmac.compare_digest(tag, self._tag(purpose, data)) else None

    def _tag(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + data, "sha256")
