"""Gates: weights of the network's outputs, which grow from 0 to 1 with the numbers of ratings of user and item.

With few ratings the prior path predicts better than the network, whose outputs are then mostly noise.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.learner.inputs import Context, Features


def init(user: float, item: float) -> Params:
    """Initial parameters of the gates. The outer loop learns them.

    Args:
        user: number of support ratings of a user with which the network's outputs have weight 1/2; 0 has no such gate.
        item: the same for the training ratings of an item.
    """
    doubts = {"log_doubt": user, "log_item_doubt": item}
    return {name: jnp.log(jnp.float32(doubt)) for name, doubt in doubts.items() if doubt}


def weight(params: Params, context: Context, rows: Features) -> Float[Array, "*n"]:
    """Compute the weight of the network's outputs: the product of ``n / (n + doubt)`` for both gates.

    This is the weight of a mean of n measurements against a prior worth `doubt` measurements (Efron & Morris 1975).

    Args:
        params: from `init`.
        context: the user, of whose support the ratings are counted.
        rows: rows to score, with the numbers of ratings of their items by other training users.

    Returns:
        [n], or [] without a gate for items; 0 to 1.
    """
    found = jnp.ones(())
    if "log_doubt" in params:
        rated = jnp.sum(context.mask)
        found = rated / (rated + jnp.exp(params["log_doubt"]))
    if "log_item_doubt" in params:
        counts = rows.statistic[:, 1]
        found = found[None] * counts / (counts + jnp.exp(params["log_item_doubt"])[None])
    return found
