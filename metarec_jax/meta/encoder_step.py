"""The outer step that also trains the encoder, with memory that does not grow with the number of users.

Each distinct text of a batch is encoded once, and its embedding is gathered into every episode that uses it. The
gradient is computed through a cache of embeddings (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", arXiv 2101.06983, section 3.2, for another loss), in three passes:

1. Encode all texts in chunks, without storing activations, or into memory for them, if there is any.
2. Compute the meta loss and its gradient by the embeddings, which sums over repeated texts.
3. Pull that gradient back to the encoder's parameters, where each chunk is encoded again unless its activations were
   kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metarec_jax.core.params import combine, usable
from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.factors.correction import correct
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.meta.outer import ALONE, Exchange, Losses, TrainState, as_read, meta_loss, share_of_batch, updated
from metarec_jax.meta.text_passes import Chosen, Kept, Reading, embed, embed_and_keep, pull_back, pull_back_kept


def cached_gradient(
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    trainable: Trainable,
    chosen: Chosen,
    loss: Callable[[Trainable, Float[Array, "slots hidden"]], tuple[Float[Array, ""], Any]],
    kept: Kept | None = None,
) -> tuple[Trainable, Any, Kept | None]:
    """Compute the gradient of a loss by learner, updater and encoder, through the cache of embeddings.

    Args:
        reading: options of encoding.
        trained: parameters of the encoder -> (trained ones, the others), each with None for the rest.
        trainable: trainable parameters, including the encoder's.
        chosen: the texts that the loss gathers.
        loss: (trainable parameters without the encoder's, embeddings by slot) -> (loss, auxiliary output).
        kept: memory for activations (`metarec_jax.meta.text_passes.empty_memory`); None encodes each chunk again.

    Returns:
        The gradient, None for parameters of the encoder that are not trained; the auxiliary output; and the memory.
    """
    moving, still = trained(trainable.encoder)

    def encode_with(moving: Params) -> Params:
        return combine(moving, still)

    with jax.named_scope("embed"):
        if kept is None:
            embeddings = embed(reading, trainable.encoder, chosen)
        else:
            embeddings, kept = embed_and_keep(reading, encode_with, moving, chosen, kept)
    slope = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (gradient, cotangent), rest = slope(trainable._replace(encoder=None), embeddings)
    with jax.named_scope("pull_back"):
        if kept is None:
            encoder = pull_back(reading, encode_with, moving, chosen, cotangent)
        else:
            encoder = pull_back_kept(reading, encode_with, moving, chosen, kept, cotangent)
    return gradient._replace(encoder=encoder), rest, kept


def joint_gradient(
    model: Model,
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    trainable: Trainable,
    chosen: Chosen,
    episodes: Episodes,
    key: Array | None = None,
    kept: Kept | None = None,
    *,
    at_once: int = 0,
    exchange: Exchange = ALONE,
) -> tuple[Trainable, Losses, Kept | None]:
    """Compute the gradient of the meta loss by learner, updater and encoder.

    Args:
        model: the functions of learner and updater.
        reading: options of encoding.
        trained, trainable: as for `cached_gradient`; ``trainable.factors`` is the row of each interaction.
        chosen: the distinct texts of the batch.
        episodes: a batch whose ids are slots of the embeddings.
        key: key of this outer step; None disables dropout.
        kept: as for `cached_gradient`.
        at_once: as for `metarec_jax.meta.outer.meta_loss`.
        exchange: communication between devices, each with a part of the texts and of the episodes.

    Returns:
        The gradient, 0 for parameters of the encoder that are not trained, the losses (``stopped`` only for this
        device's users), and the memory.
    """
    key = None if key is None else exchange.key(key)

    def loss(read: Trainable, own: Array) -> tuple[Float[Array, ""], Losses]:
        embeddings = exchange.embeddings(own)
        users = embeddings if chosen.users is None else chosen.users
        tables = model.prepare(read.theta, Tables(embeddings, users))
        told = episodes if read.factors is None else correct(episodes, read.factors)
        mean, losses = meta_loss(model, read._replace(factors=None), tables, told, key, at_once=at_once)
        return share_of_batch(mean, losses, exchange)

    gradient, losses, kept = cached_gradient(reading, trained, trainable, chosen, loss, kept)
    _, still = trained(trainable.encoder)
    whole = gradient._replace(encoder=combine(gradient.encoder, jax.tree.map(jnp.zeros_like, still)))
    return exchange.gradient(whole), losses, kept


def make_joint_step(
    model: Model,
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    optimiser: optax.GradientTransformation,
    *,
    at_once: int = 0,
    exchange: Exchange = ALONE,
    spread: Callable[..., Any] = lambda gradient: gradient,
    factor_rate: optax.Schedule = lambda step: 0.0,
) -> Callable[..., tuple[TrainState, Losses, Kept | None]]:
    """Make the outer step that also trains the encoder.

    Args:
        model, reading, trained, at_once, exchange: as for `joint_gradient`.
        optimiser: turns the gradient into an update.
        spread: transforms a function (trainable, chosen, episodes, key, memory) -> (gradient, losses, memory) of one
            device into that of all devices.
        factor_rate: step -> learning rate of the correction of item factors.

    Returns:
        (state, chosen texts, episodes, memory for activations) -> (new state, losses, memory). The memory is that of
        `joint_gradient` on each device; it may be left out.
    """
    gradient_of = functools.partial(joint_gradient, model, reading, trained, at_once=at_once, exchange=exchange)

    def step(
        state: TrainState, chosen: Chosen, episodes: Episodes, kept: Kept | None = None
    ) -> tuple[TrainState, Losses, Kept | None]:
        key = jax.random.fold_in(state.key, state.step)
        read, routes = state.trainable, None
        if chosen.items is not None:
            read, routes = as_read(read, chosen.items)
            chosen = chosen._replace(items=None)
        gradient, losses, kept = spread(gradient_of)(read, chosen, episodes, key, kept)
        losses = losses._replace(usable=jnp.stack(usable(read)))
        return updated(state, gradient, optimiser, routes, factor_rate), losses, kept

    return step
