"""Vectors and small copies of pictures: each distinct picture is encoded once, and the table is cached on disk."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from metarec_jax.core.atomic_files import explained
from metarec_jax.core.checked_files import read_arrays, write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.vision.checkpoint import Vision
from metarec_jax.encoder.vision.pictures import PictureError, prepare, read_picture, small_copy
from metarec_jax.encoder.vision.tower import encode_pixels

_FORMAT = "metarec_jax pictures 1"
_PER_CALL = 32
"""Pictures that are encoded at a time."""


class PictureTable(NamedTuple):
    """Pictures of items.

    Attributes:
        vectors: float32 [items, width], of unit length; NaN for an item without a picture.
        small: a small copy of each picture, as a JPEG; None for an item without one.
    """

    vectors: Float[np.ndarray, "items width"]
    small: tuple[bytes | None, ...]


def encode_pictures(
    vision: Vision,
    read: Sequence[Callable[[], bytes] | None],
    refuse: Callable[[int, str], MetarecError],
    cache: Path | None = None,
) -> PictureTable:
    """Encode the pictures of items, or read their vectors and small copies from a cache on disk.

    Args:
        vision: the tower.
        read: for each item a function that returns the file of its picture; None for an item without one.
        refuse: (item, message) -> error that names the place of the picture.
        cache: folder of cached tables, each named by a hash of tower and pictures; None disables the cache.

    Returns:
        The table.

    Raises:
        MetarecError: a picture cannot be read; the message names it.
    """
    digests: list[bytes | None] = []
    first: dict[bytes, int] = {}
    for item, of_item in enumerate(read):
        own = None if of_item is None else hashlib.sha256(of_item()).digest()
        digests.append(own)
        if own is not None:
            first.setdefault(own, item)
    total = hashlib.sha256(f"{_FORMAT}\n{vision.digest}\n".encode() + b"".join(first))
    path = None if cache is None else cache / f"pictures-{total.hexdigest()[:32]}.safetensors"
    kept = None if path is None else _read(path, len(first), vision.config.vector_size)
    if kept is None:
        kept = _encode(vision, read, list(first.values()), refuse)
        if path is not None:
            _write(path, *kept)
    vectors, small = kept
    rows = {digest: row for row, digest in enumerate(first)}
    found = np.full((len(read), vision.config.vector_size), np.nan, np.float32)
    for item, digest in enumerate(digests):
        if digest is not None:
            found[item] = vectors[rows[digest]]
    return PictureTable(found, tuple(None if digest is None else small[rows[digest]] for digest in digests))


@functools.partial(jax.jit, static_argnums=1)
def _encode_call(params: Any, config: Any, pixels: Any) -> Any:
    return encode_pixels(params, config, pixels)


def _encode(
    vision: Vision,
    read: Sequence[Callable[[], bytes] | None],
    items: Sequence[int],
    refuse: Callable[[int, str], MetarecError],
) -> tuple[np.ndarray, list[bytes]]:
    """Vectors and small copies of the pictures of some items."""
    size = vision.config.image_size
    params = jax.device_put(vision.params)
    vectors, small = np.zeros((len(items), vision.config.vector_size), np.float32), list[bytes]()
    for start in range(0, len(items), _PER_CALL):
        pixels = np.zeros((_PER_CALL, size, size, 3), np.float32)
        some = items[start : start + _PER_CALL]
        for row, item in enumerate(some):
            of_item = read[item]
            assert of_item is not None  # `items` have pictures
            try:
                image = read_picture(of_item())
            except PictureError as error:
                raise refuse(item, str(error)) from error
            pixels[row] = prepare(image, vision.preparation, size)
            small.append(small_copy(image))
        vectors[start : start + len(some)] = np.asarray(_encode_call(params, vision.config, pixels))[: len(some)]
    return vectors, small


def _read(path: Path, count: int, width: int) -> tuple[np.ndarray, list[bytes]] | None:
    """The cached table at a path; None if there is none, or if it is damaged."""
    try:
        arrays, _ = read_arrays(path)
    except MetarecError:
        return None
    vectors, ends, data = (arrays.get(name) for name in ("vectors", "ends", "small"))
    if vectors is None or ends is None or data is None or vectors.shape != (count, width) or len(ends) != count:
        return None
    files = np.split(data, ends[:-1]) if count else []
    return vectors, [file.tobytes() for file in files]


def _write(path: Path, vectors: np.ndarray, small: list[bytes]) -> None:
    """Write a table; go on without a cache where that fails."""
    ends = np.cumsum([len(file) for file in small], dtype=np.int64)
    data = np.frombuffer(b"".join(small), np.uint8)
    try:
        with explained(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, {"vectors": vectors, "ends": ends, "small": data})
    except MetarecError:
        return
