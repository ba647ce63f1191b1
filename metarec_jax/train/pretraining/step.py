"""One step of a pretraining: gradients of its losses, and the update."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.core.params import combine
from metarec_jax.core.types import Params
from metarec_jax.encoder import LORA_LAYERS, Encoder, ModelConfig, add_lora
from metarec_jax.encoder.mlm_head import identity_head
from metarec_jax.meta.text_passes import Chosen, Reading, embed, pull_back
from metarec_jax.train.optimizer import CLIP, by_rate, relative_rates, schedule
from metarec_jax.train.pretraining.contrastive import Liked, contrastive_loss
from metarec_jax.train.pretraining.masking import Vocabulary, hide
from metarec_jax.train.pretraining.mlm import Sum, mlm_loss
from metarec_jax.train.pretraining.text_batches import Passages
from metarec_jax.train.text_devices import execution_of


class Weights(NamedTuple):
    """Parameters of the encoder, and of its head of masked language modelling; None without that objective."""

    encoder: Params
    head: Params | None


class Losses(NamedTuple):
    """Losses before a step: masked language modelling, and contrastive; of weight 0 where a step has none."""

    masked: Sum
    liked: Sum


class PretrainState(NamedTuple):
    """The state of a pretraining.

    Attributes:
        weights: parameters.
        optimiser: state of the optax transform.
        step: int32 [], number of steps taken.
        key: typed key of the run, from which the key of every step is derived.
    """

    weights: Weights
    optimiser: optax.OptState
    step: Array
    key: Array


def first_state(config: PretrainConfig, encoder: Encoder) -> PretrainState:
    """Make the initial state, a pure function of the config's seed and the encoder.

    Args:
        config: config of the pretraining.
        encoder: encoder before the pretraining.

    Returns:
        The state.
    """
    key, lora_key = jax.random.split(jax.random.key(config.seed))
    params = jax.tree.map(jnp.copy, encoder.params)  # the first step donates the memory of its state
    if config.encoder.train == "lora":
        params = add_lora(params, LORA_LAYERS, rank=config.encoder.lora_rank, key=lora_key)
    head = None
    if config.hides:
        head = identity_head(encoder.config) if encoder.head is None else jax.tree.map(jnp.copy, encoder.head)
    weights = Weights(params, head)
    moving, _ = _trained(config, weights)
    return PretrainState(weights, _optimiser(config).init(moving), jnp.zeros((), jnp.int32), key)


def mlm_gradient(
    config: PretrainConfig, architecture: ModelConfig, vocabulary: Vocabulary
) -> Callable[..., tuple[Weights, Sum]]:
    """Make the gradient of the loss of masked language modelling.

    Args:
        config: config of the pretraining.
        architecture: architecture of the encoder.
        vocabulary: vocabulary, for the choice of replaced tokens.

    Returns:
        (weights, passages, key of the run, step) -> (gradient of the mean loss by trained weights, loss). Key and step
        determine which tokens are hidden.
    """
    dtype = config.encoder.dtype
    run = execution_of(config.encoder, jax.default_backend())

    def gradient(weights: Weights, passages: Passages, key: Array, step: Array) -> tuple[Weights, Sum]:
        hiding = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, step), 0))[0]
        hidden = hide(hiding, passages, vocabulary, share=config.mlm.share)
        moving, still = _trained(config, weights)

        def loss(moving: Weights) -> tuple[Array, Sum]:
            encoder, head = combine(moving, still)
            found = mlm_loss(encoder, head, architecture, hidden, dtype=dtype, run=run)
            return found.total / jnp.maximum(found.weight, 1), found

        return jax.grad(loss, has_aux=True)(moving)

    return gradient


def liked_gradient(config: PretrainConfig, reading: Reading) -> Callable[..., tuple[Weights, Sum]]:
    """Make the gradient of the contrastive loss; texts are encoded in chunks, so that users do not increase memory.

    Args:
        config: config of the pretraining.
        reading: options of encoding.

    Returns:
        (weights, chosen texts, likes, key of the run, step) -> (gradient of the mean loss by trained weights, loss).
    """

    def gradient(weights: Weights, chosen: Chosen, liked: Liked, key: Array, step: Array) -> tuple[Weights, Sum]:
        embeddings = embed(reading, weights.encoder, chosen)

        def loss(embeddings: Array) -> tuple[Array, Sum]:
            found = contrastive_loss(embeddings, liked, config.contrastive.temperature)
            return found.total / jnp.maximum(found.weight, 1), found

        cotangent, found = jax.grad(loss, has_aux=True)(embeddings)
        if config.hides:
            cotangent = cotangent * config.contrastive.weight
        moving, still = _trained(config, weights)
        pulled = pull_back(reading, lambda m: combine(m, still.encoder), moving.encoder, chosen, cotangent)
        return Weights(pulled, jax.tree.map(jnp.zeros_like, weights.head)), found

    return gradient


def update(config: PretrainConfig) -> Callable[[PretrainState, Sequence[Weights]], PretrainState]:
    """Make the update: (state, gradients) -> state after a step with the sum of the gradients."""
    optimiser = _optimiser(config)

    def updated(state: PretrainState, gradients: Sequence[Weights]) -> PretrainState:
        moving, still = _trained(config, state.weights)
        total: Any = functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), gradients)
        changes, kept = optimiser.update(total, state.optimiser, moving)
        rates = jax.tree.map(lambda rate: rate or None, _rates(config, state.weights))
        changes = jax.tree.map(lambda change, rate: change * rate, changes, rates)
        weights = combine(optax.apply_updates(moving, changes), still)
        return PretrainState(weights, kept, state.step + 1, state.key)

    return updated


def _optimiser(config: PretrainConfig) -> optax.GradientTransformation:
    """AdamW with clipping, warm-up and cosine decay, at the encoder's rate; only matrices decay."""
    rate = schedule(config.encoder.rate, config.steps)
    return optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.adamw(rate, weight_decay=config.weight_decay, mask=lambda t: jax.tree.map(lambda leaf: leaf.ndim > 1, t)),
    )


def _rates(config: PretrainConfig, weights: Weights) -> Weights:
    """Rates of the weights relative to the encoder's rate, as a tree of the same structure; 0 for fixed weights.

    Layers of the encoder have rates as in joint training; the head has a separate rate.
    """
    head = config.mlm.head_rate / config.encoder.rate
    encoder = relative_rates(config.encoder, weights.encoder, config.encoder.rate)
    return Weights(encoder, jax.tree.map(lambda _: head, weights.head))


def _trained(config: PretrainConfig, weights: Weights) -> tuple[Any, Any]:
    """Split the weights into (trained ones, the others), each with None for the rest."""
    return by_rate(weights, _rates(config, weights))
