"""The prior path that every learner has: item mean + user bias, which its outputs start from."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.learner.heads import Head
from metarec_jax.learner.inputs import Context, Features
from metarec_jax.types import Params


def init(head: Head, mean_rating: float) -> Params:
    """Its parameters, where `mean_rating` is that of the training users."""
    return {
        "mean": jnp.float32(mean_rating),
        "log_item_weight": jnp.log(jnp.float32(5.0)),
        "log_user_weight": jnp.log(jnp.float32(5.0)),
        "head": head.init(),
    }


def prior_outputs(
    params: Params, head: Head, context: Context, rows: Features, *, statistics: bool
) -> Float[Array, "n outputs"]:
    """Outputs that say item mean + user bias, both shrunk; without `statistics`, the mean rating.

    ``item_mean = (sum + a mean) / (count + a)`` and ``user_bias = sum_support residual / (support + b)``, with learned
    ``a``, ``b`` and ``mean``: posterior means under normal priors (Efron & Morris 1975).
    """
    if not statistics:
        return head.prior(params["head"], jnp.full(rows.statistic.shape[0], params["mean"]), jnp.zeros(()))
    residual = _residual(params, head, context)
    bias = jnp.sum(residual) / (jnp.sum(context.mask) + jnp.exp(params["log_user_weight"]))
    return head.prior(params["head"], _item_mean(params, rows.statistic), bias)


def rating_features(params: Params, head: Head, context: Context) -> Float[Array, "support 1"]:
    """How far each rating of the support lies above the item's mean, in quarters of the rating scale; 0 where padded.

    Of no row does it depend on the rating of another.
    """
    return _residual(params, head, context)[:, None] / head.quarter


def _residual(params: Params, head: Head, context: Context) -> Float[Array, " support"]:
    return head.residual(_item_mean(params, context.support.statistic), context.rating) * context.mask


def _item_mean(params: Params, statistic: Float[Array, "n 2"]) -> Float[Array, " n"]:
    weight = jnp.exp(params["log_item_weight"])
    return (statistic[:, 0] + weight * params["mean"]) / (statistic[:, 1] + weight)
