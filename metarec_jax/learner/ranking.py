"""Ranking losses of the query, which depend on the order of a user's items.

They replace the head's loss in the outer loop. The inner loop still minimises the head's loss, since a support of
clicks alone has no order.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarec_jax.learner.heads import Head

QueryLoss = Callable[[Float[Array, "n outputs"], Float[Array, " n"], Float[Array, " n"]], Float[Array, " n"]]
"""(outputs, ratings, mask) of one user's rows -> loss of each row; 0 where the mask is 0."""


def ranking_loss(kind: str, head: Head, low: float) -> QueryLoss:
    """Find a ranking loss by name.

    Args:
        kind: "bpr" or "softmax".
        head: head whose outputs are scored.
        low: least value of a rating.

    Returns:
        The loss.
    """
    return {"bpr": bpr, "softmax": softmax}[kind](head, low)


def bpr(head: Head, _low: float) -> QueryLoss:
    """Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618, section 4.1).

    The loss is the mean of ``-log sigmoid(score_i - score_j)`` over all pairs of rows ``i`` and ``j`` where ``i`` has
    the higher rating, distributed over rows. A user whose ratings are all equal has no pair, and loss 0.

    Args:
        head: head whose outputs are scored.
        _low: not used.

    Returns:
        The loss.
    """

    def loss(outputs: Array, rating: Array, mask: Array) -> Array:
        score = scores(head, outputs)
        pair = (rating[:, None] > rating[None, :]).astype(mask.dtype) * (mask[:, None] * mask[None, :])
        lost = jnp.sum(jnp.where(pair > 0, jax.nn.softplus(score[None, :] - score[:, None]), 0.0))
        return mask * lost / jnp.maximum(jnp.sum(pair), 1.0)

    return loss


def softmax(head: Head, low: float) -> QueryLoss:
    """Cross-entropy of the softmax over a user's rows.

    The target weight of a row is its gain ``2^r - 1``, with ``r`` in quarters of the rating scale above `low`; clicked
    rows have equal weight, others none. The loss bounds nDCG (Bruch et al. 2019, "An analysis of the softmax cost
    function for learning to rank", theorem 1).

    Args:
        head: head whose outputs are scored.
        low: least value of a rating.

    Returns:
        The loss.
    """

    def loss(outputs: Array, rating: Array, mask: Array) -> Array:
        score = jnp.where(mask > 0, scores(head, outputs), -jnp.inf)
        weighed = score + jnp.log(jnp.where(mask > 0, mask, 1.0))
        log_chance = score - jax.nn.logsumexp(jnp.where(jnp.any(mask > 0), weighed, 0.0))
        gain = mask * (jnp.exp2((rating - low) / head.quarter) - 1)
        lost = jnp.sum(jnp.where(mask > 0, -gain * log_chance, 0.0)) / jnp.maximum(jnp.sum(gain), 1e-6)
        return mask * lost

    return loss


LIST = 100
"""Length of the list whose nDCG `list_loss` is about."""


def list_loss(
    head: Head, outputs: Float[Array, "n outputs"], rating: Float[Array, " n"], mask: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """1 - nDCG of a user's list of the catalogue (Järvelin & Kekäläinen 2002), for clicks.

    The rank of a target counts each candidate of a greater score with its weight, which estimates the rank in the
    whole catalogue where candidates are a sample; a candidate of equal score counts half.

    Args:
        head: head of the outputs.
        outputs: [n, outputs], of targets and candidates.
        rating: [n], 1 for targets, 0 for candidates.
        mask: [n], weights; 0 in padded slots.

    Returns:
        The loss, and whether the user has a target (1 or 0); the loss is 0 if not.
    """
    score, target = scores(head, outputs), (rating > 0) & (mask > 0)
    order = jnp.argsort(-score)
    weight = jnp.concatenate([jnp.zeros(1, mask.dtype), jnp.cumsum(mask[order])])
    above, reached = (weight[jnp.searchsorted(-score[order], -score, side=side)] for side in ("left", "right"))
    rank = (above + reached - mask) / 2  # a row does not stand above itself
    discount = jnp.where(target & (rank < LIST), 1 / jnp.log2(2 + rank), 0.0)
    ideal = jnp.cumsum(1 / jnp.log2(2 + jnp.arange(LIST)))[jnp.clip(jnp.sum(target), 1, LIST) - 1]
    asked = jnp.any(target).astype(score.dtype)
    return asked * (1 - jnp.sum(discount) / ideal), asked


def scores(head: Head, outputs: Float[Array, "n outputs"]) -> Float[Array, " n"]:
    """Scores by which rows are ranked: expected ratings in quarters of the scale; for clicks, logits.

    Args:
        head: head of the outputs.
        outputs: [n, outputs].

    Returns:
        [n].
    """
    return outputs[:, 0] if outputs.shape[1] == 1 else head.mean(outputs) / head.quarter
