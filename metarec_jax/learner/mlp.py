"""The learner of the method: concatenated user and item embeddings -> hidden -> ReLU -> outputs.

Other learners read the support and hand what it says of each row to the same hidden layer, as a further input.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.core.kinds import LEARNERS
from metarec_jax.core.types import Params
from metarec_jax.learner import gate as gates
from metarec_jax.learner import prior as prior_path
from metarec_jax.learner.contract import Learner, text_learner
from metarec_jax.learner.gathered_rows import multiply
from metarec_jax.learner.heads import Head
from metarec_jax.learner.inputs import Context, Features, of_user_text, prepare, standardisation

__all__ = ["Context", "Features", "apply", "init", "prepare", "standardisation"]


def init(
    key: Array,
    head: Head,
    *,
    hidden: int,
    context: int = 0,
    read: int = 0,
    gate: float = 0.0,
    item_embeddings: Float[np.ndarray, "items hidden_in"],
    user_embeddings: Float[np.ndarray, "users hidden_user"],
    mean_rating: float,
    believed: prior_path.Believed | None = None,
) -> Params:
    """Parameters of an MLP that starts at its prior: the output layer is zero.

    Args:
        key: typed PRNG key.
        head: what the outputs mean.
        hidden: width of the hidden layer.
        context: number of context parameters; with 0 the paths ``context/value`` and ``hidden/context/kernel`` are
            not there.
        read: width of what another learner reads from the support; with 0 the path ``hidden/read/kernel`` is not there.
        gate: ratings with which the network is half heard (see `metarec_jax.learner.prior`); with 0 it always is in
            full, and the path ``gate/log_doubt`` is not there.
        item_embeddings, user_embeddings: embeddings of the training part, from which the input standardisation
            starts (text embeddings of one catalogue share most of their direction; what sets items apart is the rest).
        mean_rating: mean rating of the training users, where the prior path starts.
        believed: as for `metarec_jax.learner.prior.init`.

    Returns:
        A nested dict; paths such as ``hidden/item/kernel`` are what `metarec_jax.core.params` matches.
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
        "prior": prior_path.init(head, mean_rating, believed),
    }
    if context:
        # As large as the item's part for a context of norm 1; the context itself starts at zero, and says nothing yet.
        kernel = jax.random.normal(jax.random.fold_in(key, 1), (context, hidden))
        parameters["hidden"]["context"] = {"kernel": kernel}
        parameters["context"] = {"value": jnp.zeros(context)}
    if read:
        # Silent at first, as the user half is: better on validation users than a random start.
        parameters["hidden"]["read"] = {"kernel": jnp.zeros((read, hidden))}
    if gate:
        parameters["gate"] = gates.init(gate)
    return parameters


def apply(
    params: Params,
    head: Head,
    context: Context,
    rows: Features,
    *,
    read: Float[Array, "*n read"] | None = None,
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
        read: what the support says of each row [n, read], or of all [read], where a learner reads it.
        prior: whether outputs start from item statistics and the user's bias, or from the mean rating alone.
        dropout: share of the hidden features that a user in training does without.
        user_dropout: share of the users in training that do without their text.
        compute: precision of the products (bfloat16, say), which are summed in that of the parameters. Everything else
            is computed in the latter.
    """
    first = params["hidden"]
    width = params["output"]["kernel"].shape[0]
    others = of_user_text(context, first["user"]["kernel"], user_dropout)
    if "context" in params:
        others = others + params["context"]["value"] @ first["context"]["kernel"]
    others = (others + first["bias"])[None]
    if read is not None:
        others = others + jnp.atleast_2d(multiply(read.astype(compute or read.dtype), first["read"]["kernel"]))
    of_items = rows.embedding @ first["item"]["kernel"]
    hidden = jax.nn.relu(of_items + others) / np.sqrt(width)
    if context.key is not None and dropout > 0:
        kept = jax.random.bernoulli(jax.random.fold_in(context.key, 0), 1 - dropout, hidden.shape[-1:])
        hidden = hidden * kept[None].astype(hidden.dtype) / (1 - dropout)
    outputs = multiply(hidden.astype(compute or hidden.dtype), params["output"]["kernel"])
    outputs = outputs + params["output"]["bias"][None]
    if "gate" in params:
        outputs = outputs * gates.heard(params["gate"], context)
    return outputs + prior_path.prior_outputs(params["prior"], head, context, rows, statistics=prior)


@LEARNERS.register("mlp")
@dataclasses.dataclass(frozen=True)
class MlpConfig(LearnerConfig):
    """An MLP, which sees the support through the inner loop alone."""

    kind: str = "mlp"

    def build(self, head: Head) -> Learner:
        """The learner."""
        return text_learner(self, head, init, apply)
