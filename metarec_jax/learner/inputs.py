"""What every learner sees of a user and of rows, and what each does with it before anything of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core import variance
from metarec_jax.core.types import Params, Prepared, Tables
from metarec_jax.learner.gathered_rows import Fixed


class Features(NamedTuple):
    """What the learner sees of some rows of one user.

    Attributes:
        embedding: float32 [n, hidden], of each row's item.
        statistic: float32 [n, 2], sum and count of other training users' ratings of the item.
    """

    embedding: Array | Fixed
    statistic: Array


class Context(NamedTuple):
    """What the learner sees of the user: the embedding of the user's text [hidden], and the support.

    ``rating`` [support] and ``mask`` [support] belong to the rows of ``support``, which are in order of time, latest
    first. A typed ``key`` means training: what is random is drawn from it, the same for the support, the query and
    every inner step of this user. The ``summary`` is what a learner that reads the support made of it, where that was
    done before (see `metarec_jax.meta.user.summarised`), and ``taste`` what the prior path made of it, likewise.

    Rows that a learner scores are support rows if they are ``context.support`` itself, the very object. It then leaves
    out what a row's own rating told it, so that the inner loop learns from ratings that were not looked up.
    """

    embedding: Array | Fixed
    support: Features
    rating: Array
    mask: Array
    key: Array | None = None
    summary: Any = None
    taste: Any = None


def standardisation(embeddings: Float[np.ndarray, "rows hidden"]) -> Params:
    """Shift and scale that give `embeddings` mean 0 and, on average, squared norm 1; embeddings that are all alike, 0.

    With inputs of norm 1, a gradient step of rate ``a`` moves a first-layer output by about ``a`` times its error:
    the inner rate means the same for embeddings of any width.
    """
    found = variance.standardisation(embeddings)
    return {"shift": jnp.asarray(found.shift, jnp.float32), "scale": jnp.float32(found.scale)}


def prepare(params: Params, tables: Tables, *, compute: DTypeLike | None = None) -> Prepared:
    """`tables` as learners want them: standardised. Done to each distinct row, once, and not in every step.

    The standardisation is statistics of the data, not weights: no gradient flows to it.

    Args:
        params: of a learner.
        tables: embeddings.
        compute: the precision that the learner multiplies in, and so that of the result; that of `tables` where None.
    """
    fixed = jax.lax.stop_gradient(params["input"])
    items = (tables.items - fixed["item"]["shift"][None]) * fixed["item"]["scale"]
    users = (tables.users - fixed["user"]["shift"][None]) * fixed["user"]["scale"]
    return Prepared(items.astype(compute or items.dtype), users.astype(compute or users.dtype))


def learned(params: Params) -> tuple[Params, Params]:
    """Parameters of a learner as (what is trained, the standardisation, which is not), each with None for the rest;
    `metarec_jax.core.params.combine` is the inverse."""
    nothing = jax.tree.map(lambda leaf: None, params)
    return {**params, "input": nothing["input"]}, {**nothing, "input": params["input"]}


def of_user_text(context: Context, kernel: Any, user_dropout: float) -> Float[Array, " out"]:
    """The user's text times `kernel`; in training zero for a share `user_dropout` of the users, always the same ones
    for all kernels of a learner.

    What is left is not scaled up: a user without text is the average user, whose standardised embedding is zero.
    """
    product = context.embedding @ kernel
    if context.key is not None and user_dropout > 0:
        kept = jax.random.bernoulli(jax.random.fold_in(context.key, 1), 1 - user_dropout)
        product = product * kept.astype(product.dtype)
    return product


def whole(*parts: Params) -> bool:
    """Whether no leaf of these parameters is None, as those are that the inner loop changes."""
    return all(leaf is not None for leaf in jax.tree.leaves(parts, is_leaf=lambda leaf: leaf is None))
