"""Inputs of every learner about a user and rows, and their common preprocessing."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core import variance
from metarec_jax.core.params import path_names, split
from metarec_jax.core.types import Params, Prepared, Tables
from metarec_jax.learner.gathered_rows import Fixed

_STANDARDISATION = r"input/.*"
_POSTERIOR = r"prior/(log_noise|log_gain|taste/.*)"
"""Paths of the parameters of the posterior of users' tastes (`metarec_jax.learner.prior`)."""


class Features(NamedTuple):
    """Inputs of the learner about some rows of one user.

    Attributes:
        embedding: float32 [n, hidden], embedding of each row's item.
        statistic: float32 [n, columns], sum and count of other training users' ratings of the item, followed by the
            posterior of its factors where there are any.
    """

    embedding: Array | Fixed
    statistic: Array


class Context(NamedTuple):
    """Inputs of the learner about one user.

    Rows to score are recognised as support rows if they are the object ``context.support`` itself. The learner then
    leaves out information from a row's own rating, so that the inner loop does not learn from leaked ratings.

    Attributes:
        embedding: [hidden], embedding of the user's text.
        support: rows of the support, by time, latest first.
        rating: [support], ratings of the support.
        mask: [support], 0 in padded slots.
        key: typed PRNG key in training, from which dropout is drawn; the same for the support, the query and every
            inner step of this user. None outside training.
        summary: result of the learner's `summarise`, where it was computed before (`metarec_jax.meta.user.summarised`).
        taste: posterior of the user's taste from the prior path, where it was computed before.
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

    With inputs of norm 1, a gradient step of rate ``a`` moves a first-layer output by about ``a`` times its error, so
    that the inner rate has the same effect for embeddings of any width.
    """
    found = variance.standardisation(embeddings)
    return {"shift": jnp.asarray(found.shift, jnp.float32), "scale": jnp.float32(found.scale)}


def prepare(params: Params, tables: Tables, *, compute: DTypeLike | None = None) -> Prepared:
    """Standardise the embeddings of each distinct row, once.

    No gradient flows to the shift and scale, which are statistics of the data.

    Args:
        params: parameters of a learner.
        tables: embeddings.
        compute: data type of the learner's products and of the result; None takes that of `tables`.

    Returns:
        The standardised embeddings.
    """
    fixed = jax.lax.stop_gradient(params["input"])
    items = (tables.items - fixed["item"]["shift"][None]) * fixed["item"]["scale"]
    users = (tables.users - fixed["user"]["shift"][None]) * fixed["user"]["scale"]
    return Prepared(items.astype(compute or items.dtype), users.astype(compute or users.dtype))


def learned(params: Params) -> tuple[Params, Params]:
    """Split the parameters of a learner into those that the outer loop trains and those that it leaves as they are.

    It leaves the standardisation of inputs, and for ratings the posterior of users' tastes: both are estimates from all
    training rows. Outer steps would move the posterior to what suits items with many ratings. For clicks they train it,
    since their loss is not the one that the factors minimise.

    Args:
        params: parameters of a learner.

    Returns:
        Both parts, each with None for the leaves of the other; `metarec_jax.core.params.combine` is the inverse.
    """
    names = path_names(params)
    clicks = any(name.startswith("prior/score/") for name in names)
    pattern = _STANDARDISATION if clicks else f"{_STANDARDISATION}|{_POSTERIOR}"
    return split(params, [re.fullmatch(pattern, name) is None for name in names])


def of_user_text(context: Context, kernel: Any, user_dropout: float) -> Float[Array, " out"]:
    """Multiply the embedding of the user's text with a kernel; in training, zero for a random share of the users.

    All kernels of a learner drop the same users. The product is not rescaled: a user without text has the standardised
    embedding zero, which is that of the average user.

    Args:
        context: the user.
        kernel: [hidden, out].
        user_dropout: share of the users that are dropped.

    Returns:
        [out].
    """
    product = context.embedding @ kernel
    if context.key is not None and user_dropout > 0:
        kept = jax.random.bernoulli(jax.random.fold_in(context.key, 1), 1 - user_dropout)
        product = product * kept.astype(product.dtype)
    return product


def whole(*parts: Params) -> bool:
    """Whether no leaf of these parameters is None; parameters that the inner loop adapts are None in shared ones."""
    return all(leaf is not None for leaf in jax.tree.leaves(parts, is_leaf=lambda leaf: leaf is None))
