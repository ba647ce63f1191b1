"""Updaters: the rules of the inner loop, each with learned parameters phi of its own; one file an idea."""

from __future__ import annotations

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.meta.updaters.contract import Inputs, Updater, stateless
from metarec_jax.meta.updaters.gradient import gradient_descent
from metarec_jax.meta.updaters.implicit import imaml
from metarec_jax.meta.updaters.learned import learned_rule
from metarec_jax.meta.updaters.meta_sgd import meta_sgd
from metarec_jax.meta.updaters.momentum import momentum
from metarec_jax.meta.updaters.optax_rules import ADAPTIVE, clipped, optax_rule
from metarec_jax.meta.updaters.rates import Rates
from metarec_jax.meta.updaters.ridge import ridge

__all__ = [
    "ADAPTIVE",
    "Inputs",
    "Rates",
    "Updater",
    "clipped",
    "gradient_descent",
    "imaml",
    "learned_rule",
    "make_updater",
    "meta_sgd",
    "momentum",
    "optax_rule",
    "ridge",
    "stateless",
]


def make_updater(config: UpdaterConfig, curvature: float = 1.0) -> Updater:
    """The updater that `config` describes.

    Args:
        config: kind and numbers.
        curvature: of the head's loss (see `metarec_jax.meta.updaters.ridge`).
    """
    rates = Rates(config.rate, config.learn_rate, config.steps)
    if config.kind in ADAPTIVE:
        updater = optax_rule(ADAPTIVE[config.kind](), rates)
    else:
        updater = {
            "gradient": lambda: gradient_descent(rates),
            "momentum": lambda: momentum(rates, decay=config.momentum),
            "meta-sgd": lambda: meta_sgd(rate=config.rate),
            "learned": lambda: learned_rule(rates),
            "imaml": lambda: imaml(rate=config.rate, precision=config.precision),
            "ridge": lambda: ridge(curvature=curvature, precision=config.precision),
        }[config.kind]()
    return clipped(updater, config.clip) if config.clip else updater
