"""Padding of token ids of unequal length to batches of few shapes, since each shape is compiled once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.encoder.model_config import Tokens

FEW = 32
"""Number of texts up to which padding a chunk costs less than another compilation."""
LENGTHS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 448, 512)
"""Token lengths to which texts are padded; beyond the last, multiples of it."""


class Chunk(NamedTuple):
    """Texts of similar length for one call of the encoder.

    Attributes:
        rows: int64 [real], numbers of the texts; further rows of the tokens are padding.
        tokens: [rows of the chunk, length of its bucket].
    """

    rows: np.ndarray
    tokens: Tokens


def bucket(length: int, limit: int) -> int:
    """Padded length of a text: the least of `LENGTHS` that holds it.

    Args:
        length: tokens of the text.
        limit: largest padded length.

    Returns:
        The padded length.

    >>> bucket(17, 512), bucket(300, 320), bucket(700, 2048)
    (20, 320, 1024)
    """
    longest = LENGTHS[-1]
    fitting = next((b for b in LENGTHS if b >= length), -(-length // longest) * longest)
    return min(fitting, limit)


def pack(
    ids: Sequence[np.ndarray], length: int, *, pad: int = 0, rows: int | None = None, skip: Sequence[int] = ()
) -> Tokens:
    """Pad texts to one length, as one batch.

    Args:
        ids: int32 [tokens] for each text, at most ``length`` tokens.
        length: tokens of a row.
        pad: id of the padding token.
        rows: rows of the batch; those beyond the texts are padding. None adds no such row.
        skip: for each text the number of first tokens that mean pooling leaves out; empty, or only zeros, for none.

    Returns:
        Tokens of shape [rows, length].
    """
    rows = len(ids) if rows is None else rows
    table, mask = np.full((rows, length), pad, np.int32), np.zeros((rows, length), np.float32)
    for row, text in enumerate(ids):
        table[row, : len(text)] = text
        mask[row, : len(text)] = 1
    left_out = np.pad(np.asarray(skip, np.int32), (0, rows - len(skip))) if any(skip) else None
    return Tokens(table, mask, np.zeros_like(table), left_out)


def chunks(
    ids: Sequence[np.ndarray], *, limit: int, tokens_per_call: int, pad: int = 0, skip: int = 0
) -> Iterator[Chunk]:
    """Group texts by padded length and cut each group into chunks of one shape.

    Args:
        ids: int32 [tokens] for each text.
        limit: greatest number of tokens that the encoder takes.
        tokens_per_call: greatest number of tokens of a chunk; a chunk holds at least one text.
        pad: id of the padding token.
        skip: number of first tokens of every text that mean pooling leaves out.

    Yields:
        Chunks, shortest texts first. Chunks of one length have one shape, so that each length is compiled once.
    """
    buckets = np.array([bucket(len(text), limit) for text in ids], np.int64)
    for length in np.unique(buckets).tolist():
        members = np.flatnonzero(buckets == length)
        most = max(1, tokens_per_call // length)
        calls = -(-len(members) // most)
        rows = min(most, _rows_for(-(-len(members) // calls)))
        for start in range(0, len(members), rows):
            chosen = members[start : start + rows]
            own = [ids[i] for i in chosen]
            yield Chunk(chosen, pack(own, length, pad=pad, rows=rows, skip=[skip] * len(own)))


def _rows_for(texts: int) -> int:
    """Number of rows of a chunk with `texts` texts.

    Few texts are padded to a power of two, so that calls with slightly different numbers share a compiled shape; many
    texts are padded to a multiple of `FEW` / 4, since padding then costs more.
    """
    return 1 << (texts - 1).bit_length() if texts <= FEW else -(-texts * 4 // FEW) * FEW // 4
