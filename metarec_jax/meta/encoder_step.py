"""The outer step that also trains the encoder, with memory that does not grow with the number of users.

Each distinct text of a batch is encoded once, and its embedding is gathered into every episode that uses it. The
gradient is computed through a cache of embeddings (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", arXiv 2101.06983, section 3.2, for another loss), in three passes:

1. Encode all texts in chunks, without storing activations.
2. Compute the meta loss and its gradient by the embeddings, which sums over repeated texts.
3. Encode each chunk again, and pull that gradient back to the encoder's parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from metarec_jax.core.params import combine, usable
from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.encoder.model_config import Tokens
from metarec_jax.encoder.text_places import text_numbers
from metarec_jax.encoder.text_rows import TextRows
from metarec_jax.factors.correction import correct
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.meta.outer import Losses, TrainState, as_read, meta_loss, updated

Encode = Callable[[Params, Tokens], Array]
"""(parameters of the encoder, rows with several texts) -> [rows * texts, hidden]."""


class Chosen(NamedTuple):
    """The texts of a step.

    Attributes:
        rows: the texts to encode, in rows of each length.
        users: [users, hidden], fixed embeddings where users have no text. None where they have texts; ``Episodes.user``
            is then a slot of the embeddings, like an item.
        items: int32 [users, support + query], the items of the episodes; None where there is no correction.
    """

    rows: tuple[TextRows, ...]
    users: Array | None = None
    items: Any = None


class Reading(NamedTuple):
    """Options of encoding texts in a step.

    Attributes:
        encode: the encoder.
        per_call: number of rows of a chunk, for each length.
        slots: number of slots of embeddings.
        constrain: function that sets the sharding of a chunk's rows over devices.
        turns: number of chunks of this device -> number of iterations of its loop over chunks; for devices whose loops
            must have equal numbers of iterations.
    """

    encode: Encode
    per_call: tuple[int, ...]
    slots: int
    constrain: Callable[[Any], Any] = lambda tree: tree
    turns: Callable[[Array], Array] = lambda turns: turns


class Exchange(NamedTuple):
    """Communication of a device that computes a part of the batch; by default there is none.

    Attributes:
        total: tree -> its sum over the devices.
        gradient: gradient -> its sum over the devices, where some leaves may be sharded.
        embeddings: embeddings of the device's texts -> embeddings of all texts that its episodes gather.
        key: common key -> key of this device.
    """

    total: Callable[[Any], Any] = lambda tree: tree
    gradient: Callable[[Any], Any] = lambda tree: tree
    embeddings: Callable[[Array], Array] = lambda own: own
    key: Callable[[Array], Array] = lambda key: key


ALONE = Exchange()


def embed(reading: Reading, params: Params, chosen: Chosen) -> Float[Array, "slots hidden"]:
    """Encode the texts of a step, without gradient.

    Args:
        reading: options of encoding.
        params: parameters of the encoder.
        chosen: the texts.

    Returns:
        Embeddings; 0 in slots of no text.
    """
    parts = _parts(reading, chosen)
    one = jax.eval_shape(lambda: reading.encode(params, parts[0].chunk(reading, jnp.asarray(0))[0]))
    table = jnp.zeros((reading.slots, one.shape[1]), one.dtype)
    for part in parts:
        table = _embed(reading, params, part, table)
    return table


def pull_back(
    reading: Reading,
    encode_with: Callable[[Params], Params],
    moving: Params,
    chosen: Chosen,
    cotangent: Float[Array, "slots hidden"],
) -> Params:
    """Compute the gradient by `moving` of the sum of embeddings times `cotangent`.

    Args:
        reading: options of encoding.
        encode_with: `moving` -> all parameters of the encoder.
        moving: trained parameters.
        chosen: the texts, as for `embed`.
        cotangent: gradient of a loss by the embeddings.

    Returns:
        The gradient, a tree like `moving`.
    """
    total = jax.tree.map(jnp.zeros_like, moving)
    for part in _parts(reading, chosen):
        total = _pull_back(reading, encode_with, moving, part, cotangent, total)
    return total


class _Part(NamedTuple):
    """Rows of one length.

    Attributes:
        rows: all of them.
        per_call: number of rows of a chunk.
    """

    rows: TextRows
    per_call: int

    @property
    def scope(self) -> str:
        """Name scope of the loop over its chunks, which identifies the loop in the compiled program."""
        return f"length_{self.rows.ids.shape[1]}"

    def turns(self, reading: Reading) -> Array:
        return reading.turns((self.rows.count + self.per_call - 1) // self.per_call)

    def chunk(self, reading: Reading, turn: Array) -> tuple[Tokens, Array]:
        """Texts of a chunk, and their slots."""

        def some(leaf: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(leaf, turn * self.per_call, self.per_call)

        ids, lengths, slots, skip = reading.constrain(
            jax.tree.map(some, (self.rows.ids, self.rows.lengths, self.rows.slots, self.rows.skip))
        )
        mask = (text_numbers(lengths, ids.shape[1]) > 0).astype(jnp.float32)
        return Tokens(ids, mask, jnp.zeros_like(ids), skip, lengths), slots.reshape(-1)


def _parts(reading: Reading, chosen: Chosen) -> list[_Part]:
    return [_Part(*part) for part in zip(chosen.rows, reading.per_call)]


def _embed(reading: Reading, params: Params, part: _Part, table: Array) -> Array:
    def put(turn: Array, table: Array) -> Array:
        tokens, slots = part.chunk(reading, turn)
        return table.at[slots].set(reading.encode(params, tokens), mode="drop")

    with jax.named_scope(part.scope):
        return jax.lax.fori_loop(0, part.turns(reading), put, table)


def _pull_back(
    reading: Reading,
    encode_with: Callable[[Params], Params],
    moving: Params,
    part: _Part,
    cotangent: Array,
    total: Params,
) -> Params:
    def add(turn: Array, total: Params) -> Params:
        tokens, slots = part.chunk(reading, turn)
        _, back = jax.vjp(lambda moving: reading.encode(encode_with(moving), tokens), moving)
        # Places without a text have no slot, and no cotangent.
        own = cotangent.at[slots].get(mode="fill", fill_value=0)
        return jax.tree.map(jnp.add, total, back(own)[0])

    with jax.named_scope(part.scope):
        return jax.lax.fori_loop(0, part.turns(reading), add, total)


def cached_gradient(
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    trainable: Trainable,
    chosen: Chosen,
    loss: Callable[[Trainable, Float[Array, "slots hidden"]], tuple[Float[Array, ""], Any]],
) -> tuple[Trainable, Any]:
    """Compute the gradient of a loss by learner, updater and encoder, through the cache of embeddings.

    Args:
        reading: options of encoding.
        trained: parameters of the encoder -> (trained ones, the others), each with None for the rest.
        trainable: trainable parameters, including the encoder's.
        chosen: the texts that the loss gathers.
        loss: (trainable parameters without the encoder's, embeddings by slot) -> (loss, auxiliary output).

    Returns:
        The gradient, None for parameters of the encoder that are not trained; and the auxiliary output.
    """
    moving, still = trained(trainable.encoder)

    def encode_with(moving: Params) -> Params:
        return combine(moving, still)

    with jax.named_scope("embed"):
        embeddings = embed(reading, trainable.encoder, chosen)
    slope = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (gradient, cotangent), rest = slope(trainable._replace(encoder=None), embeddings)
    with jax.named_scope("pull_back"):
        encoder = pull_back(reading, encode_with, moving, chosen, cotangent)
    return gradient._replace(encoder=encoder), rest


def joint_gradient(
    model: Model,
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    trainable: Trainable,
    chosen: Chosen,
    episodes: Episodes,
    key: Array | None = None,
    *,
    at_once: int = 0,
    exchange: Exchange = ALONE,
) -> tuple[Trainable, Losses]:
    """Compute the gradient of the meta loss by learner, updater and encoder.

    Args:
        model: the functions of learner and updater.
        reading: options of encoding.
        trained, trainable: as for `cached_gradient`; ``trainable.factors`` is the row of each interaction.
        chosen: the distinct texts of the batch.
        episodes: a batch whose ids are slots of the embeddings.
        key: key of this outer step; None disables dropout.
        at_once: as for `metarec_jax.meta.outer.meta_loss`.
        exchange: communication between devices, each with a part of the texts and of the episodes.

    Returns:
        The gradient, 0 for parameters of the encoder that are not trained, and the losses (``stopped`` only for this
        device's users).
    """
    key = None if key is None else exchange.key(key)

    def loss(read: Trainable, own: Array) -> tuple[Float[Array, ""], Losses]:
        embeddings = exchange.embeddings(own)
        users = embeddings if chosen.users is None else chosen.users
        tables = model.prepare(read.theta, Tables(embeddings, users))
        told = episodes if read.factors is None else correct(episodes, read.factors)
        mean, losses = meta_loss(model, read._replace(factors=None), tables, told, key, at_once=at_once)
        query, rows = exchange.total((losses.query, losses.rows))
        # Weight of the mean over this device's rows in the mean over all rows.
        share = jnp.maximum(losses.rows, 1.0) / jnp.maximum(rows, 1.0)
        return mean * jax.lax.stop_gradient(share), losses._replace(query=query, rows=rows)

    gradient, losses = cached_gradient(reading, trained, trainable, chosen, loss)
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
    exchange: Exchange = ALONE,
    spread: Callable[..., Any] = lambda gradient: gradient,
    factor_rate: optax.Schedule = lambda step: 0.0,
) -> Callable[[TrainState, Chosen, Episodes], tuple[TrainState, Losses]]:
    """Make the outer step that also trains the encoder.

    Args:
        model, reading, trained, at_once, exchange: as for `joint_gradient`.
        optimiser: turns the gradient into an update.
        spread: transforms a function (trainable, chosen, episodes, key) -> gradient of one device into that of all
            devices.
        factor_rate: step -> learning rate of the correction of item factors.

    Returns:
        (state, chosen texts, episodes) -> (new state, losses).
    """

    def gradient_of(trainable: Trainable, chosen: Chosen, episodes: Episodes, key: Array) -> Any:
        options = {"at_once": at_once, "exchange": exchange}
        return joint_gradient(model, reading, trained, trainable, chosen, episodes, key, **options)

    def step(state: TrainState, chosen: Chosen, episodes: Episodes) -> tuple[TrainState, Losses]:
        key = jax.random.fold_in(state.key, state.step)
        read, routes = state.trainable, None
        if chosen.items is not None:
            read, routes = as_read(read, chosen.items)
            chosen = chosen._replace(items=None)
        gradient, losses = spread(gradient_of)(read, chosen, episodes, key)
        losses = losses._replace(usable=jnp.stack(usable(read)))
        return updated(state, gradient, optimiser, routes, factor_rate), losses

    return step
