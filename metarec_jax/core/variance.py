"""Scaling of inputs by their own spread, where inputs without variance have to count as nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

ROUNDING = 1e-6
"""A spread of no more than this share of the inputs' own size is rounding of float32, and no variance."""


class Standardisation(NamedTuple):
    """A map to mean 0 and mean squared norm 1: ``(row - shift) * scale``.

    Attributes:
        shift: [width], the mean row.
        scale: 1 / the spread; exactly 0 where rows do not vary, so that they contribute exactly nothing.
    """

    shift: np.ndarray
    scale: float


def standardisation(rows: Float[np.ndarray, "rows width"]) -> Standardisation:
    """The standardisation of some rows by all of them, in their own precision; of no rows, one that gives 0."""
    if not rows.size:
        return Standardisation(np.zeros(rows.shape[1:], rows.dtype), 0.0)
    shift = rows.mean(0)
    spread, size = (np.sqrt(np.mean(np.sum(np.square(part), axis=-1))) for part in (rows - shift, rows))
    return Standardisation(shift, float(1 / spread) if varies(spread, size) else 0.0)


def varies(spread: float, size: float) -> bool:
    """Whether a spread is more than rounding.

    Args:
        spread: root mean square of the deviations from a mean.
        size: root mean square of what the deviations are of.
    """
    return bool(np.isfinite(spread) and spread > ROUNDING * size)


def root_mean_square(numbers: np.ndarray) -> float:
    """Root of the mean of the squares of all numbers of an array; 0 where it is empty."""
    return float(np.sqrt(np.mean(np.square(numbers, dtype=np.float64)))) if numbers.size else 0.0
