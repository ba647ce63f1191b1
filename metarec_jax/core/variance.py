"""Standardisation of inputs by their own spread; inputs without variance are scaled to 0."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

ROUNDING = 1e-6
"""Largest ratio of spread to root mean square that counts as float32 rounding error instead of variance."""


class Standardisation(NamedTuple):
    """Affine map to mean 0 and mean squared norm 1: ``(row - shift) * scale``.

    Attributes:
        shift: [width], the mean row.
        scale: 1 / spread; exactly 0 if the rows do not vary, so that their standardised values are exactly 0.
    """

    shift: np.ndarray
    scale: float


def standardisation(rows: Float[np.ndarray, "rows width"]) -> Standardisation:
    """Compute the standardisation of `rows`, in their precision; without rows, its scale is 0."""
    if not rows.size:
        return Standardisation(np.zeros(rows.shape[1:], rows.dtype), 0.0)
    shift = rows.mean(0)
    spread, size = (np.sqrt(np.mean(np.sum(np.square(part), axis=-1))) for part in (rows - shift, rows))
    return Standardisation(shift, float(1 / spread) if varies(spread, size) else 0.0)


def varies(spread: float, size: float) -> bool:
    """Whether a spread exceeds float32 rounding error.

    Args:
        spread: root mean square of the deviations of some values from their mean.
        size: root mean square of the values, in the same unit.

    Returns:
        True if `spread` is finite and greater than `ROUNDING` times `size`.
    """
    return bool(np.isfinite(spread) and spread > ROUNDING * size)


def root_mean_square(numbers: np.ndarray) -> float:
    """Return the root mean square of all numbers of an array; 0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(numbers, dtype=np.float64)))) if numbers.size else 0.0
