"""Query losses that mind the order of a user's items, and not the values that they are given.

They stand in for the head's own loss in the outer loop. The inner loop still goes down the head's: a support of clicks
alone has no order to learn from.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.learner.heads import Head

QueryLoss = Callable[[Float[Array, "n outputs"], Float[Array, " n"], Float[Array, " n"]], Float[Array, " n"]]
"""(outputs, ratings, mask) of one user's rows -> the loss of each row; 0 where the mask is."""


def ranking_loss(kind: str, head: Head, low: float) -> QueryLoss:
    """The loss called `kind` ("bpr" or "softmax") for outputs of `head` and ratings from `low` on."""
    return {"bpr": bpr, "softmax": softmax}[kind](head, low)


def bpr(head: Head, _low: float) -> QueryLoss:
    """Bayesian personalised ranking: ``-log sigmoid(score_i - score_j)``, the mean over all pairs of rows ``i`` and
    ``j`` of which ``i`` was rated higher (Rendle et al. 2009, arXiv 1205.2618, section 4.1), shared out among rows.

    A user who rated everything alike has no pair, and no loss.
    """

    def loss(outputs: Array, rating: Array, mask: Array) -> Array:
        score = scores(head, outputs)
        pair = (rating[:, None] > rating[None, :]).astype(mask.dtype) * (mask[:, None] * mask[None, :])
        lost = jnp.sum(jnp.where(pair > 0, jax.nn.softplus(score[None, :] - score[:, None]), 0.0))
        return mask * lost / jnp.maximum(jnp.sum(pair), 1.0)

    return loss


def softmax(head: Head, low: float) -> QueryLoss:
    """Cross-entropy of the softmax over a user's rows, each row wanted as much as its gain ``2^r - 1``, with ``r`` in
    quarters of the rating scale above `low`; for clicks, as much as it was clicked.

    It bounds nDCG (Bruch et al. 2019, "An analysis of the softmax cost function for learning to rank", theorem 1).
    """

    def loss(outputs: Array, rating: Array, mask: Array) -> Array:
        score = jnp.where(mask > 0, scores(head, outputs), -jnp.inf)
        log_chance = score - jax.nn.logsumexp(jnp.where(jnp.any(mask > 0), score, 0.0))
        gain = mask * (jnp.exp2((rating - low) / head.quarter) - 1)
        lost = jnp.sum(jnp.where(mask > 0, -gain * log_chance, 0.0)) / jnp.maximum(jnp.sum(gain), 1e-6)
        return mask * lost

    return loss


def scores(head: Head, outputs: Float[Array, "n outputs"]) -> Float[Array, " n"]:
    """What rows are ranked by, on a scale where 1 is about what sets two levels apart; for clicks, logits."""
    return outputs[:, 0] if outputs.shape[1] == 1 else head.mean(outputs) / head.quarter
