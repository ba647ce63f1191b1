"""Encoding of user states as bytes that a client can store, and signatures that prove their origin.

A state is a compressed safetensors file: the history, the embedding of the user's text, and the adapted parameters.
Decoding never runs code from it. It holds the digest of its run, and other runs refuse it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import parse_json
from metarec_jax.core.types import Params
from metarec_jax.meta.model import Trainable
from metarec_jax.recommender.executor import Executor
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.recommender.items import ItemIndex
from metarec_jax.recommender.user_state import UserState

_REMEDY = "hand back a state as it was given, or adapt to the history again"
MAX_BYTES = 1 << 20
"""Greatest size of a decompressed state in bytes, which bounds the memory that a malicious state takes."""
MAX_ADAPTED_BYTES = 40_000
"""Greatest size of adapted parameters in a state, in bytes; larger ones are left out and computed again on reading."""
_TAG_BYTES = 32


class DecodedState(NamedTuple):
    """The contents of a state.

    Attributes:
        history: history of the user.
        embedding: float32 [hidden], embedding of the user's text.
        adapted: the adapted parameters; None where the state leaves them out.
    """

    history: CheckedHistory
    embedding: np.ndarray
    adapted: Params | None


def model_digest(config: Config, ids: Sequence[str], trainable: Trainable) -> str:
    """Compute an identifier of a model, equal for equal configs, items and parameters.

    Args:
        config: config of the run.
        ids: ids of the items in training.
        trainable: the parameters.

    Returns:
        32 hexadecimal digits.
    """
    found = hashlib.sha256(to_json(config).encode())
    found.update(json.dumps(list(ids)).encode())
    for leaf in jax.tree.leaves(jax.device_get(trainable)):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:32]


class StateCodec:
    """Encodes states of one model, and decodes them.

    Args:
        items: the catalogue.
        executor: provides the digest of the model and the shapes of adapted parameters.
    """

    def __init__(self, items: ItemIndex, executor: Executor):
        self._items, self._executor = items, executor

    @property
    def digest(self) -> str:
        """Identifier of the model (`model_digest`)."""
        return self._executor.digest

    def encode(self, state: UserState) -> bytes:
        """Encode a state as bytes."""
        from safetensors.numpy import save

        ids = self._items.catalogue.items.ids
        leaves = jax.tree.leaves(state.adapted)
        arrays = {"rating": state.history.ratings, "embedding": state.embedding}
        if sum(leaf.nbytes for leaf in leaves) <= MAX_ADAPTED_BYTES:
            arrays |= {f"kept.{number}": leaf for number, leaf in enumerate(leaves)}
        arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        metadata = {"run": self.digest, "item": json.dumps([ids[row] for row in state.history.rows.tolist()])}
        return zlib.compress(save(arrays, metadata=metadata), 1)

    def decode(self, data: bytes) -> DecodedState:
        """Decode a state.

        Args:
            data: from `encode`.

        Raises:
            MetarecError: the bytes are not a state, the state belongs to another run, or an item no longer exists.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        hidden, scale = len(self._executor.average_user), self._items.catalogue.scale.standardised()
        try:
            content = _decompressed(data)
            header = _metadata(content)
            if header.get("run") != self.digest:
                raise MetarecError("the state belongs to another run: adapt to the history again")
            arrays = load(content)
            items = parse_json(header["item"], where="the state is malformed: its items", remedy=_REMEDY)
            rating, embedding = arrays.pop("rating"), arrays.pop("embedding")
            if not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
                raise ValueError("its items are not a list of ids")
            if rating.shape != (len(items),) or embedding.shape != (hidden,):
                raise ValueError("its arrays have the wrong shapes")
            if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in (rating, embedding)):
                raise ValueError("it holds numbers that are not finite float32")
            if len(rating) and not (scale.low <= rating.min() and rating.max() <= scale.high):
                raise ValueError("a rating is not on the scale")
            if len(set(items)) != len(items):
                raise ValueError("an item is there twice")
            adapted = self._adapted(arrays, len(items)) if arrays else None
        except (zlib.error, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise MetarecError(f"the state is malformed ({error}): {_REMEDY}") from error
        rows = np.array([self._items.titles.find_id(item).row for item in items], np.int32)
        return DecodedState(CheckedHistory(rows, rating), embedding, adapted)

    def _adapted(self, arrays: dict[str, np.ndarray], history: int) -> Params:
        """The adapted parameters among the arrays of a state with a history of that length."""
        leaves = [arrays[f"kept.{number}"] for number in range(len(arrays))]
        like, structure = jax.tree.flatten(self._executor.adapted_shapes(history))
        if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in like]:
            raise ValueError("its adapted parameters do not fit the run")
        if not all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves):
            raise ValueError("it holds numbers that are not finite float32")
        return jax.tree.unflatten(structure, leaves)


def _decompressed(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(data, MAX_BYTES)
    if not unpacker.eof:
        raise ValueError("it is too large, or cut short")
    return content


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: its header is JSON, preceded by its length."""
    if len(data) < 8:
        raise ValueError("it is cut short")
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise ValueError("it is cut short")
    header = parse_json(data[8 : 8 + length], where="the state is malformed: its header", remedy=_REMEDY)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("it has no header")
    return metadata


class Seal:
    """Signs bytes with a key and writes them as text (HMAC-SHA256; Krawczyk et al. 1997, RFC 2104).

    Args:
        key: key of the service.

    >>> seal = Seal(b"k" * 32)
    >>> seal.open("user", seal.close("user", b"x"))
    b'x'
    >>> seal.open("state", seal.close("user", b"x")) is None
    True
    """

    def __init__(self, key: bytes):
        self._key = key

    def close(self, purpose: str, data: bytes) -> str:
        """Sign bytes and encode them as text.

        Args:
            purpose: signed too, so that text for one purpose is refused for another.
            data: the bytes.

        Returns:
            The signed text.
        """
        return base64.urlsafe_b64encode(self._tag(purpose, data) + data).rstrip(b"=").decode()

    def open(self, purpose: str, text: str) -> bytes | None:
        """Verify signed text and decode its bytes.

        Args:
            purpose: purpose for which the text must have been signed.
            text: from `close`.

        Returns:
            The bytes; None where the text was not signed with this key for this purpose.
        """
        try:
            signed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        tag, data = signed[:_TAG_BYTES], signed[_TAG_BYTES:]
        return data if hmac.compare_digest(tag, self._tag(purpose, data)) else None

    def _tag(self, purpose: str, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + data, "sha256")
