"""The loss of masked language modelling: hidden tokens are predicted from the tokens around them.

Logits are computed for hidden tokens only, since for one token they cost as much as all layers of a small BERT.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core.types import Params
from metarec_jax.encoder import Execution, ModelConfig, embed, run_layers
from metarec_jax.encoder.mlm_head import logits
from metarec_jax.train.pretraining.masking import Hidden


class Sum(NamedTuple):
    """A loss that can be added over batches: sum of losses, and sum of weights."""

    total: Float[Array, ""]
    weight: Float[Array, ""]


def mlm_loss(
    encoder: Params,
    head: Params,
    config: ModelConfig,
    hidden: Hidden,
    *,
    dtype: DTypeLike | None = None,
    run: Execution | None = None,
) -> Sum:
    """Sum the negative log probabilities of the hidden tokens.

    Args:
        encoder, head: parameters.
        config: the architecture.
        hidden: texts with hidden tokens.
        dtype, run: as for `metarec_jax.encoder.encode`.

    Returns:
        The weighted sum of losses, and the sum of weights.
    """
    run, tokens = run or Execution(), hidden.tokens
    x = embed(encoder, config, tokens, dtype=dtype)
    mask, layers = jnp.asarray(tokens.mask), config.num_layers
    x = run_layers(encoder, config, x, mask, first=0, last=layers, dtype=dtype, run=run)
    asked = x.reshape(-1, x.shape[-1])[hidden.position]
    scores = logits(head, encoder["embeddings"]["word"]["embedding"], config, asked, dtype=dtype)
    right = jnp.take_along_axis(scores, jnp.asarray(hidden.label)[:, None], axis=1)[:, 0]
    missed = jax.nn.logsumexp(scores, axis=1) - right
    return Sum((missed * hidden.weight).sum(), jnp.asarray(hidden.weight).sum())
