"""The default learner, an MLP: concatenated user and item embeddings -> hidden -> ReLU -> outputs.

Learners that read the support add a further input to the hidden layer.
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
    """Draw the parameters of an MLP whose outputs are those of the prior path, since the output layer is zero.

    Args:
        key: typed PRNG key.
        head: interpretation of the outputs.
        hidden: width of the hidden layer.
        context: number of context parameters; with 0 there are no parameters ``context/value`` and
            ``hidden/context/kernel``.
        read: width of the further input of a learner that reads the support; with 0 there is no ``hidden/read/kernel``.
        gate: number of ratings with which the network's outputs have weight 1/2 (see `metarec_jax.learner.gate`); with
            0 they always have weight 1, and there is no ``gate/log_doubt``.
        item_embeddings, user_embeddings: embeddings of the training part, for the standardisation of inputs. (Text
            embeddings of one catalogue have a large common component, which the shift removes.)
        mean_rating: mean rating of the training users, for the prior path.
        believed: as for `metarec_jax.learner.prior.init`.

    Returns:
        A nested dict; patterns of `metarec_jax.core.params` match its paths, such as ``hidden/item/kernel``.
    """
    parameters: dict[str, Any] = {
        "input": {"item": standardisation(item_embeddings), "user": standardisation(user_embeddings)},
        "hidden": {
            # Inputs have norm 1, so pre-activations have unit scale. The user kernel is zero: random features of the
            # user would identify the few hundred training users, and the network would overfit to them.
            "item": {"kernel": jax.random.normal(key, (item_embeddings.shape[1], hidden))},
            "user": {"kernel": jnp.zeros((user_embeddings.shape[1], hidden))},
            "bias": jnp.zeros(hidden),
        },
        "output": {"kernel": jnp.zeros((hidden, head.outputs)), "bias": jnp.zeros(head.outputs)},
        "prior": prior_path.init(head, mean_rating, believed),
    }
    if context:
        # A context of norm 1 contributes as much as the item. The context itself is zero at first.
        kernel = jax.random.normal(jax.random.fold_in(key, 1), (context, hidden))
        parameters["hidden"]["context"] = {"kernel": kernel}
        parameters["context"] = {"value": jnp.zeros(context)}
    if read:
        # Zero, like the user kernel: better on validation users than random initial values.
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
    """Compute outputs for some rows of one user.

    The product of the concatenated embeddings with the first kernel is computed as a sum of two products: that of the
    user is the same for every row and computed once.

    Args:
        params: from `init`.
        head: interpretation of the outputs.
        context: the user, with embeddings from prepared tables.
        rows: n rows to score, with embeddings from prepared tables.
        read: further input of each row [n, read], or the same for all rows [read]; None for a learner that does not
            read the support.
        prior: whether the prior path uses item statistics and the user's bias, or the mean rating alone.
        dropout: share of the hidden features that are dropped for a user in training.
        user_dropout: share of the users in training whose text is dropped.
        compute: data type of the operands of products, such as bfloat16; None takes that of the inputs. Sums, and
            everything else, are in the data type of the parameters.

    Returns:
        [n, outputs].
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
        outputs = outputs * gates.weight(params["gate"], context)
    return outputs + prior_path.prior_outputs(params["prior"], head, context, rows, statistics=prior)


@LEARNERS.register("mlp")
@dataclasses.dataclass(frozen=True)
class MlpConfig(LearnerConfig):
    """An MLP; the support has an effect only through the inner loop and the prior path."""

    kind: str = "mlp"

    def build(self, head: Head) -> Learner:
        """The learner."""
        return text_learner(self, head, init, apply)
