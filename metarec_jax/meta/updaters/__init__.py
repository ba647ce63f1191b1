"""Updaters: the rules of the inner loop, each with learned parameters phi; one module for each rule."""

from __future__ import annotations

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.core.registry import as_kind
from metarec_jax.meta.updaters.contract import Inputs, Updater, stateless
from metarec_jax.meta.updaters.rates import Rates, rates_of

__all__ = ["Inputs", "Rates", "Updater", "make_updater", "rates_of", "stateless"]


def make_updater(config: UpdaterConfig, curvature: float = 1.0) -> Updater:
    """Build the updater that a config describes.

    Args:
        config: kind and options of the updater.
        curvature: an upper bound of the second derivative of the head's loss (see `metarec_jax.meta.updaters.ridge`).

    Returns:
        The updater.
    """
    return as_kind(UPDATERS, config).build(curvature)
