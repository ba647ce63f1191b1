"""The learner of the method: concatenated user and item embeddings -> hidden -> ReLU -> outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.learner.fixed import Fixed, multiply
from metarec_jax.learner.heads import Head
from metarec_jax.types import Params, Prepared, Tables


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

    ``rating`` [support] and ``mask`` [support] belong to the rows of ``support``. A typed ``key`` means training:
    what is random is drawn from it, the same for the support, the query and every inner step of this user.
    """

    embedding: Array | Fixed
    support: Features
    rating: Array
    mask: Array
    key: Array | None = None


def init(
    key: Array,
    head: Head,
    *,
    hidden: int,
    context: int = 0,
    item_embeddings: Float[np.ndarray, "items hidden_in"],
    user_embeddings: Float[np.ndarray, "users hidden_user"],
    mean_rating: float,
) -> Params:
    """Parameters of an MLP that starts at its prior: the output layer is zero.

    Args:
        key: typed PRNG key.
        head: what the outputs mean.
        hidden: width of the hidden layer.
        context: number of context parameters; with 0 the paths ``context/value`` and ``hidden/context/kernel`` are
            not there.
        item_embeddings, user_embeddings: embeddings of the training part, from which the input standardisation
            starts (text embeddings of one catalogue share most of their direction; what sets items apart is the rest).
        mean_rating: mean rating of the training users, where the prior path starts.

    Returns:
        A nested dict; paths such as ``hidden/item/kernel`` are what `metarec_jax.meta.partition` matches.
    """
    parameters: dict[str, Any] = {
        "input": {"item": standardisation(item_embeddings), "user": standardisation(user_embeddings)},
        "hidden": {
            # Inputs have norm 1, so pre-activations do too. The user half starts silent: a random one would tell the
            # few hundred training users apart, which is all it takes to learn them by heart.
            "item": {"kernel": jax.random.normal(key, (item_embeddings.shape[1], hidden))},
            "user": {"kernel": jnp.zeros((user_embeddings.shape[1], hidden))},
            "bias": jnp.zeros(hidden),
        },
        "output": {"kernel": jnp.zeros((hidden, head.outputs)), "bias": jnp.zeros(head.outputs)},
        "prior": {
            "mean": jnp.float32(mean_rating),
            "log_item_weight": jnp.log(jnp.float32(5.0)),
            "log_user_weight": jnp.log(jnp.float32(5.0)),
            "head": head.init(),
        },
    }
    if context:
        # As large as the item's part for a context of norm 1; the context itself starts at zero, and says nothing yet.
        kernel = jax.random.normal(jax.random.fold_in(key, 1), (context, hidden))
        parameters["hidden"]["context"] = {"kernel": kernel}
        parameters["context"] = {"value": jnp.zeros(context)}
    return parameters


def standardisation(embeddings: Float[np.ndarray, "rows hidden"]) -> Params:
    """Shift and scale that give `embeddings` mean 0 and, on average, squared norm 1.

    With inputs of norm 1, a gradient step of rate ``a`` moves a first-layer output by about ``a`` times its error:
    the inner rate means the same for embeddings of any width.
    """
    shift = embeddings.mean(0)
    spread = np.sqrt(np.mean(np.sum(np.square(embeddings - shift), axis=-1))) if embeddings.size else 0.0
    return {"shift": jnp.asarray(shift, jnp.float32), "scale": jnp.float32(1 / spread if spread > 1e-6 else 1.0)}


def prepare(params: Params, tables: Tables, *, compute: DTypeLike | None = None) -> Prepared:
    """`tables` as `apply` wants them: standardised. Done to each distinct row, once, and not in every step.

    The standardisation is statistics of the data, not weights: no gradient flows to it.

    Args:
        params: from `init`.
        tables: embeddings.
        compute: the precision that `apply` multiplies in, and so that of the result; that of `tables` where None.
    """
    fixed = jax.lax.stop_gradient(params["input"])
    items = (tables.items - fixed["item"]["shift"]) * fixed["item"]["scale"]
    users = (tables.users - fixed["user"]["shift"]) * fixed["user"]["scale"]
    return Prepared(items.astype(compute or items.dtype), users.astype(compute or users.dtype))


def apply(
    params: Params,
    head: Head,
    context: Context,
    rows: Features,
    *,
    prior: bool = True,
    dropout: float = 0.0,
    user_dropout: float = 0.0,
    compute: DTypeLike | None = None,
) -> Float[Array, "n outputs"]:
    """Outputs for some rows of one user.

    The product of the concatenated embeddings with the first kernel is taken half by half: the user's half is the same
    for every row and computed once.

    Args:
        params: from `init`.
        head: what the outputs mean.
        context: the user, with embeddings from tables that were prepared.
        rows: n rows to score, likewise.
        prior: whether outputs start from item statistics and the user's bias, or from the mean rating alone.
        dropout: share of the hidden features that a user in training does without.
        user_dropout: share of the users in training that do without their text.
        compute: precision of the products (bfloat16, say), which are summed in that of the parameters. Everything else
            is computed in the latter.
    """
    first = params["hidden"]
    width = params["output"]["kernel"].shape[0]
    of_user = context.embedding @ first["user"]["kernel"]
    if context.key is not None and user_dropout > 0:
        # Not scaled up: a user without text is the average user, whose standardised embedding is zero.
        of_user = of_user * jax.random.bernoulli(jax.random.fold_in(context.key, 1), 1 - user_dropout)
    if "context" in params:
        of_user = of_user + params["context"]["value"] @ first["context"]["kernel"]
    hidden = jax.nn.relu(rows.embedding @ first["item"]["kernel"] + (of_user + first["bias"])) / np.sqrt(width)
    if context.key is not None and dropout > 0:
        kept = jax.random.bernoulli(jax.random.fold_in(context.key, 0), 1 - dropout, hidden.shape[-1:])
        hidden = hidden * kept / (1 - dropout)
    outputs = multiply(hidden.astype(compute or hidden.dtype), params["output"]["kernel"]) + params["output"]["bias"]
    return outputs + prior_outputs(params["prior"], head, context, rows, statistics=prior)


def prior_outputs(
    params: Params, head: Head, context: Context, rows: Features, *, statistics: bool
) -> Float[Array, "n outputs"]:
    """Outputs that say item mean + user bias, both shrunk; without `statistics`, the mean rating.

    ``item_mean = (sum + a mean) / (count + a)`` and ``user_bias = sum_support residual / (support + b)``, with learned
    ``a``, ``b`` and ``mean``: posterior means under normal priors (Efron & Morris 1975).
    """
    if not statistics:
        return head.prior(params["head"], jnp.full(rows.statistic.shape[0], params["mean"]), jnp.zeros(()))
    residual = head.residual(_item_mean(params, context.support.statistic), context.rating) * context.mask
    bias = jnp.sum(residual) / (jnp.sum(context.mask) + jnp.exp(params["log_user_weight"]))
    return head.prior(params["head"], _item_mean(params, rows.statistic), bias)


def _item_mean(params: Params, statistic: Float[Array, "n 2"]) -> Float[Array, " n"]:
    weight = jnp.exp(params["log_item_weight"])
    return (statistic[:, 0] + weight * params["mean"]) / (statistic[:, 1] + weight)
