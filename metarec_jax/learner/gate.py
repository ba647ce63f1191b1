"""How much of the network is heard about a user: nothing where nothing was rated, and all of it with many ratings.

The prior path answers for users of whom little is known; what the network has to say of them, before adapting or after
a single rating, is mostly noise.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.learner.inputs import Context


def init(doubt: float) -> Params:
    """Its parameters.

    Args:
        doubt: ratings with which the network is half heard, at first; the outer loop learns it. Above 0.
    """
    return {"log_doubt": jnp.log(jnp.float32(doubt))}


def heard(params: Params, context: Context) -> Float[Array, ""]:
    """The share of the network's outputs that counts: ``n / (n + doubt)`` with n ratings, 0 to 1.

    The weight that a mean of n measurements has beside a prior worth `doubt` of them (Efron & Morris 1975).
    """
    rated = jnp.sum(context.mask)
    return rated / (rated + jnp.exp(params["log_doubt"]))
