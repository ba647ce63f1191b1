"""Gate: weight of the network's outputs for a user, which grows with the number of ratings from 0 to 1.

With few ratings the prior path predicts better than the network, whose outputs are then mostly noise.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.learner.inputs import Context


def init(doubt: float) -> Params:
    """Initial parameters of the gate.

    Args:
        doubt: number of ratings with which the network's outputs have weight 1/2; above 0. The outer loop learns it.
    """
    return {"log_doubt": jnp.log(jnp.float32(doubt))}


def weight(params: Params, context: Context) -> Float[Array, ""]:
    """Compute the weight of the network's outputs, ``n / (n + doubt)`` with n support ratings.

    This is the weight of a mean of n measurements against a prior worth `doubt` measurements (Efron & Morris 1975).

    Args:
        params: from `init`.
        context: the user.

    Returns:
        [], 0 to 1.
    """
    rated = jnp.sum(context.mask)
    return rated / (rated + jnp.exp(params["log_doubt"]))
