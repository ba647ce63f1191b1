"""The outer step that also trains the encoder, with memory that does not grow with the number of users.

Each distinct text of a batch is encoded once, and its embedding is gathered into every episode that contains it. The
gradient uses a cache of embeddings (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", arXiv 2101.06983, section 3.2, for another loss): first embeddings, chunk by chunk without residuals; then the
meta loss and its gradient by the embeddings, where repeated texts add up; then each chunk again with its derivative,
through which that gradient is propagated. With enough memory, residuals can be stored in the first pass instead
(`metarec_jax.meta.checkpointed_loop`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metarec_jax.core.params import combine, usable
from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.encoder.bert import Tokens
from metarec_jax.encoder.text_buckets import Picked
from metarec_jax.meta.checkpointed_loop import Keep, keeping
from metarec_jax.meta.outer import Losses, TrainState, meta_loss, updated
from metarec_jax.meta.user import Model, Trainable

Encode = Callable[[Params, Tokens, Array | None], Array]
"""(parameters of the encoder, tokens, dropout key or None) -> [texts, hidden]."""


class Chosen(NamedTuple):
    """The texts of a step.

    Attributes:
        buckets: tokens of all texts, of items and of users, by length bucket.
        picked: texts of each bucket to encode.
        users: [users, hidden], fixed embeddings, where users have no text; None where they have texts, and
            ``Episodes.user`` is then a slot like that of an item.
    """

    buckets: tuple[Tokens, ...]
    picked: tuple[Picked, ...]
    users: Array | None = None


class Reading(NamedTuple):
    """Options of encoding texts in a step.

    Attributes:
        encode: the encoder.
        per_call: number of texts in a chunk, for each bucket.
        constrain: applies sharding constraints to the rows of a chunk (on several devices).
        turns: number of iterations -> number on which devices agree, where all must take the same number.
        keep: residuals of every chunk that are stored for the backward pass.
    """

    encode: Encode
    per_call: tuple[int, ...]
    constrain: Callable[[Any], Any] = lambda tree: tree
    turns: Callable[[Array], Array] = lambda turns: turns
    keep: Keep = "nothing"


class Exchange(NamedTuple):
    """Communication of a device that has a part of the batch; by default there is none.

    Attributes:
        total: tree -> its sum over the devices.
        gradient: gradient -> its sum over the devices, where some leaves may be split.
        embeddings: embeddings of the device's texts -> embeddings of all texts that its episodes gather.
        key: common key -> key of this device.
    """

    total: Callable[[Any], Any] = lambda tree: tree
    gradient: Callable[[Any], Any] = lambda tree: tree
    embeddings: Callable[[Array], Array] = lambda own: own
    key: Callable[[Array], Array] = lambda key: key


ALONE = Exchange()


def embed(reading: Reading, params: Params, chosen: Chosen, key: Array | None = None) -> Float[Array, "slots hidden"]:
    """Embed the texts of a step, without gradient.

    Args:
        reading: options of encoding.
        params: parameters of the encoder.
        chosen: the texts.
        key: key of the dropout; None applies no dropout.

    Returns:
        Embeddings; unused slots are 0.
    """
    return jnp.concatenate([_embed(reading, params, part) for part in _parts(reading, chosen, key)])


def pull_back(
    reading: Reading,
    encode_with: Callable[[Params], Params],
    moving: Params,
    chosen: Chosen,
    cotangent: Float[Array, "slots hidden"],
    key: Array | None = None,
) -> Params:
    """Compute the gradient by `moving` of the sum of embeddings times `cotangent`.

    Args:
        reading: options of encoding.
        encode_with: `moving` -> all parameters of the encoder.
        moving: trained parameters.
        chosen: as for `embed`.
        cotangent: cotangent of the embeddings.
        key: as for `embed`, for the same dropout.

    Returns:
        The gradient.
    """
    total, start = jax.tree.map(jnp.zeros_like, moving), 0
    for part in _parts(reading, chosen, key):
        end = start + part.picked.rows.shape[0]
        total = _pull_back(reading, encode_with, moving, part, cotangent[start:end], total)
        start = end
    return total


def embed_keeping(
    reading: Reading,
    encode_with: Callable[[Params], Params],
    moving: Params,
    chosen: Chosen,
    key: Array | None = None,
) -> tuple[Float[Array, "slots hidden"], Callable[[Float[Array, "slots hidden"]], Params]]:
    """Embed the texts of a step, and store the residuals that ``reading.keep`` selects for the backward pass.

    Args:
        reading, encode_with, moving, chosen, key: as for `pull_back`.

    Returns:
        Embeddings, and a function of their cotangent that computes the gradient by `moving`.
    """
    parts = _parts(reading, chosen, key)
    kept = [_embed_keeping(reading, encode_with, moving, part) for part in parts]

    def pull(cotangent: Array) -> Params:
        total, start = jax.tree.map(jnp.zeros_like, moving), 0
        for part, (table, back) in zip(parts, kept):
            end = start + len(table)
            with jax.named_scope(part.scope):
                total = back(cotangent[start:end], total)
            start = end
        return total

    return jnp.concatenate([table for table, _ in kept]), pull


class _Part(NamedTuple):
    """A length bucket: its tokens, the texts to encode, their number in a chunk, and the key of the bucket."""

    tokens: Tokens
    picked: Picked
    rows: int
    key: Array | None

    @property
    def scope(self) -> str:
        """Name scope of the loop over its chunks, which identifies the loop in the compiled program."""
        return f"length_{self.tokens.ids.shape[1]}"

    def turns(self, reading: Reading) -> Array:
        return reading.turns((self.picked.count + self.rows - 1) // self.rows)

    def chunk(self, reading: Reading, turn: Array) -> tuple[Tokens, Array | None]:
        which = jax.lax.dynamic_slice_in_dim(self.picked.rows, turn * self.rows, self.rows)
        tokens = reading.constrain(jax.tree.map(lambda leaf: leaf[which], self.tokens))
        return tokens, None if self.key is None else jax.random.fold_in(self.key, turn)


def _parts(reading: Reading, chosen: Chosen, key: Array | None) -> list[_Part]:
    return [
        _Part(tokens, picked, rows, None if key is None else jax.random.fold_in(key, number))
        for number, (tokens, picked, rows) in enumerate(zip(chosen.buckets, chosen.picked, reading.per_call))
    ]


def _embed(reading: Reading, params: Params, part: _Part) -> Array:
    def vectors(turn: Array | int) -> Array:
        tokens, key = part.chunk(reading, jnp.asarray(turn))
        return reading.encode(params, tokens, key)

    def put(turn: Array, table: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(table, vectors(turn), turn * part.rows, axis=0)

    one = jax.eval_shape(vectors, 0)
    table = jnp.zeros((part.picked.rows.shape[0], one.shape[1]), one.dtype)
    with jax.named_scope(part.scope):
        return jax.lax.fori_loop(0, part.turns(reading), put, table)


def _embed_keeping(
    reading: Reading, encode_with: Callable[[Params], Params], moving: Params, part: _Part
) -> tuple[Array, Callable[[Array, Params], Params]]:
    def vectors(moving: Params, turn: Array) -> Array:
        tokens, key = part.chunk(reading, turn)
        return reading.encode(encode_with(moving), tokens, key)

    slots = part.picked.rows.shape[0]
    with jax.named_scope(part.scope):
        return keeping(vectors, moving, part.turns(reading), slots, part.rows, keep=reading.keep)


def _pull_back(
    reading: Reading,
    encode_with: Callable[[Params], Params],
    moving: Params,
    part: _Part,
    cotangent: Array,
    total: Params,
) -> Params:
    def add(turn: Array, total: Params) -> Params:
        tokens, key = part.chunk(reading, turn)
        _, back = jax.vjp(lambda moving: reading.encode(encode_with(moving), tokens, key), moving)
        # A chunk may end with texts that were not picked; no episode gathers them, so their cotangent is 0.
        own = jax.lax.dynamic_slice_in_dim(cotangent, turn * part.rows, part.rows)
        return jax.tree.map(jnp.add, total, back(own)[0])

    with jax.named_scope(part.scope):
        return jax.lax.fori_loop(0, part.turns(reading), add, total)


def cached_gradient(
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    trainable: Trainable,
    chosen: Chosen,
    loss: Callable[[Params, Params, Float[Array, "slots hidden"]], tuple[Float[Array, ""], Any]],
    key: Array | None = None,
) -> tuple[Trainable, Any]:
    """Compute the gradient of a loss by learner, updater and encoder, through the cache of embeddings.

    Args:
        reading: options of encoding.
        trained: parameters of the encoder -> (trained ones, the others), each with None for the rest.
        trainable: trainable parameters, including the encoder's.
        chosen: the texts that the loss gathers.
        loss: (theta, phi, embeddings by slot) -> (loss, auxiliary output).
        key: key of the dropout.

    Returns:
        The gradient, None for parameters of the encoder that are not trained; and the auxiliary output.
    """
    moving, still = trained(trainable.encoder)

    def encode_with(moving: Params) -> Params:
        return combine(moving, still)

    with jax.named_scope("embed"):
        if reading.keep == "nothing":
            embeddings = embed(reading, trainable.encoder, chosen, key)
            pull = functools.partial(pull_back, reading, encode_with, moving, chosen, key=key)
        else:
            embeddings, pull = embed_keeping(reading, encode_with, moving, chosen, key)
    slope = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    (theta, phi, cotangent), rest = slope(trainable.theta, trainable.phi, embeddings)
    with jax.named_scope("pull_back"):
        gradient = pull(cotangent)
    return Trainable(theta, phi, gradient), rest


def joint_gradient(
    model: Model,
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    trainable: Trainable,
    chosen: Chosen,
    episodes: Episodes,
    key: Array | None = None,
    step_weights: Array | None = None,
    *,
    at_once: int = 0,
    exchange: Exchange = ALONE,
) -> tuple[Trainable, Losses]:
    """Compute the gradient of the meta loss by learner, updater and encoder.

    Args:
        model: the functions of learner and updater.
        reading: options of encoding.
        trained, trainable: as for `cached_gradient`.
        chosen: the distinct texts of the batch.
        episodes: a batch whose ids are slots of the embeddings.
        key: key of this outer step; None applies no dropout.
        step_weights, at_once: as for `metarec_jax.meta.outer.meta_loss`.
        exchange: communication with other devices, if this one has a part of the texts and of the episodes.

    Returns:
        The gradient, 0 for parameters of the encoder that are not trained, and the losses (``stopped`` only for this
        device's users).
    """
    key = None if key is None else exchange.key(key)
    drop = None if key is None else jax.random.fold_in(key, 2**31 - 1)

    def loss(theta: Params, phi: Params, own: Array) -> tuple[Float[Array, ""], Losses]:
        embeddings = exchange.embeddings(own)
        users = embeddings if chosen.users is None else chosen.users
        tables = model.prepare(theta, Tables(embeddings, users))
        mean, losses = meta_loss(model, Trainable(theta, phi), tables, episodes, key, step_weights, at_once=at_once)
        query, rows = exchange.total((losses.query, losses.rows))
        # Weight of the mean over this device's rows in the mean over all rows.
        share = jnp.maximum(losses.rows, 1.0) / jnp.maximum(rows, 1.0)
        return mean * jax.lax.stop_gradient(share), losses._replace(query=query, rows=rows)

    gradient, losses = cached_gradient(reading, trained, trainable, chosen, loss, drop)
    _, still = trained(trainable.encoder)
    whole = gradient._replace(encoder=combine(gradient.encoder, jax.tree.map(jnp.zeros_like, still)))
    return exchange.gradient(whole), losses


def make_joint_step(
    model: Model,
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    optimiser: optax.GradientTransformation,
    *,
    at_once: int = 0,
    step_weights: Callable[[Array], Array] | None = None,
    exchange: Exchange = ALONE,
    spread: Callable[..., Any] = lambda gradient: gradient,
) -> Callable[[TrainState, Chosen, Episodes], tuple[TrainState, Losses]]:
    """Make the outer step that also trains the encoder.

    Args:
        model, reading, trained, at_once, exchange: as for `joint_gradient`.
        optimiser, step_weights: as for `metarec_jax.meta.outer.make_step`.
        spread: gradient function of (trainable, chosen, episodes, key, weights) on one device -> that on all devices.

    Returns:
        (state, chosen, episodes) -> (state, losses before the step).
    """

    def gradient_of(trainable: Trainable, chosen: Chosen, episodes: Episodes, key: Array, weights: Any) -> Any:
        options = {"at_once": at_once, "exchange": exchange}
        return joint_gradient(model, reading, trained, trainable, chosen, episodes, key, weights, **options)

    def step(state: TrainState, chosen: Chosen, episodes: Episodes) -> tuple[TrainState, Losses]:
        key = jax.random.fold_in(state.key, state.step)
        weights = None if step_weights is None else step_weights(state.step)
        gradient, losses = spread(gradient_of)(state.trainable, chosen, episodes, key, weights)
        losses = losses._replace(usable=jnp.stack(usable(state.trainable)))
        return updated(state, gradient, optimiser), losses

    return step
