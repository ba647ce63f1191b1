"""What a fit of the variational factorisation reads, what it returns, and its state."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np


class Known(NamedTuple):
    """What is known of items, in two forms.

    Attributes:
        features: ``g``, [items, features], a 1 first.
        source: int [features], source of each feature, which has one variance; -1 for the 1.
        columns: ``x``, [items, known], a 1 first.
        start: [items, free], initial free factors.
    """

    features: np.ndarray
    source: np.ndarray
    columns: np.ndarray
    start: np.ndarray


class Fitted(NamedTuple):
    """A fitted factorisation, in units of standardised ratings.

    Attributes:
        bias: float64 [items], posterior mean of ``b``.
        free: float64 [items, free], posterior mean of ``f``.
        noise: float64 [items], variance of the noise of each item's ratings.
        doubt: float64 [items], variance of an expected rating that comes from the item's own uncertainty.
        mean, covariance: ``a`` and ``C``, prior of users.
        map: ``M``, [features, 1 + free].
        variance: ``psi``, [1 + free].
        common: variance of the noise over all rows.
        new_doubt: variance of an expected rating of an item without ratings.
        sweeps: number of sweeps.
    """

    bias: np.ndarray
    free: np.ndarray
    noise: np.ndarray
    doubt: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    map: np.ndarray
    variance: np.ndarray
    common: float
    new_doubt: float
    sweeps: int


@dataclasses.dataclass
class State:
    """Hyperparameters, the items' posterior, and how far the fit is; tables [devices, each, ...] are on the devices.

    Attributes:
        mean, covariance, map, variance, common: as in `Fitted`.
        scale: [sources, 1 + free], variance of the map of each source.
        items: posterior means of ``(b_i, f_i)``.
        noise: ``s_i``.
        spread: [kinds, 1 + free, 1 + free], mean posterior covariance of ``(b_i, f_i)`` over ``s_i`` of each kind.
        sweep: number of sweeps.
        since: number of sweeps since the error last fell.
        best: least error.
    """

    mean: np.ndarray
    covariance: np.ndarray
    map: np.ndarray
    variance: np.ndarray
    scale: np.ndarray
    common: float
    items: jax.Array
    noise: jax.Array
    spread: np.ndarray
    sweep: int = 0
    since: int = 0
    best: float = float("inf")
