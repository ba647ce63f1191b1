"""Passes of the encoder over the texts of a step, chunk by chunk: embeddings, and the gradient by its parameters.

A chunk is encoded again when a gradient is pulled back through it, so that memory does not grow with the number of
texts. Where there is memory (`Kept`), the results of the products with weights are kept between both passes, and only
what lies between these products is computed again. That is 3 units of work instead of 4, where a backward pass takes 2.
Of an encoder that computes its layers again in the backward pass, the inputs of layers are kept: 4 units instead of 5,
and a tenth of the memory. The memory is allocated once and passed from step to step: a system may take longer to hand
out pages than the encoder takes to compute what they hold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array, Float

from metarec_jax.core.device_memory import SHARE
from metarec_jax.core.params import combine
from metarec_jax.core.types import Params
from metarec_jax.encoder.forward import LAYER_INPUT
from metarec_jax.encoder.model_config import Tokens
from metarec_jax.encoder.text_places import text_numbers
from metarec_jax.encoder.text_rows import TextRows

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
        remat: whether `encode` computes its layers again in its backward pass; the inputs of layers are then what is
            kept, in place of the results of products.
    """

    encode: Encode
    per_call: tuple[int, ...]
    slots: int
    constrain: Callable[[Any], Any] = lambda tree: tree
    turns: Callable[[Array], Array] = lambda turns: turns
    remat: bool = False


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


def scope_of(length: int) -> str:
    """Name scope of the loop over the chunks of rows of a length."""
    return f"length_{length}"


class _Part(NamedTuple):
    """Rows of one length.

    Attributes:
        rows: all of them.
        per_call: number of rows of a chunk.
    """

    rows: TextRows
    per_call: int

    @property
    def chunks(self) -> int:
        """Greatest number of chunks."""
        return self.rows.ids.shape[0] // self.per_call

    @property
    def scope(self) -> str:
        """Name scope of the loop over its chunks, which identifies the loop in the compiled program."""
        return scope_of(self.rows.ids.shape[1])

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


KEPT = 1 - SHARE
"""Share of the free memory that kept activations may take; the rest is for temporaries of the step."""


class Kept(NamedTuple):
    """Activations of all chunks.

    Attributes:
        parts: for each length of rows, float or int [chunks, ...] each: what the backward pass of a chunk needs.
    """

    parts: tuple[tuple[Any, ...], ...]


def empty_memory(
    reading: Reading, trained: Callable[[Params], tuple[Params, Params]], params: Params, chosen: Chosen
) -> Kept:
    """Memory for the activations of a step.

    Args:
        reading: options of encoding.
        trained: splits parameters of the encoder into (trained ones, the others).
        params: parameters of the encoder.
        chosen: texts of a step; those of all steps have the same shapes.

    Returns:
        Zeros.
    """
    moving, still = trained(params)
    parts = []
    for part in _parts(reading, chosen):
        own = _Chunks(reading, lambda moving: combine(moving, still), moving, part).ahead(jnp.asarray(0))[1]
        parts.append(tuple(jnp.zeros((part.chunks, *leaf.shape), leaf.dtype) for leaf in own))
    return Kept(tuple(parts))


def fitting_memory(
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    params: Params,
    chosen: Chosen,
    free: int,
    *,
    spread: Callable[..., Any] = lambda function: function,
    devices: int = 1,
) -> Kept | None:
    """Shapes of the memory for activations of a step, if they fit in `KEPT` of the free memory of a device.

    Args:
        reading, trained, params, chosen: as for `empty_memory`.
        free: free memory of a device, in bytes.
        spread: transforms a function (params, chosen) -> memory of one device into that of all devices.
        devices: number of devices.

    Returns:
        jax.ShapeDtypeStruct in the place of arrays; None if they do not fit.
    """
    empty = functools.partial(empty_memory, reading, trained)
    shapes = jax.eval_shape(spread(empty), params, chosen)
    return shapes if size_in_bytes(shapes) <= KEPT * free * devices else None


def size_in_bytes(kept: Kept) -> int:
    """Bytes of the activations of a step."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def embed_and_keep(
    reading: Reading, encode_with: Callable[[Params], Params], moving: Params, chosen: Chosen, kept: Kept
) -> tuple[Float[Array, "slots hidden"], Kept]:
    """Encode the texts of a step, and keep what `pull_back_kept` needs.

    Args:
        reading, encode_with, moving, chosen: as for `pull_back`.
        kept: memory of the shapes of `empty_memory`, with any values.

    Returns:
        Embeddings as from `embed`, and the activations.
    """
    of_parts = [_Chunks(reading, encode_with, moving, part) for part in _parts(reading, chosen)]
    one = jax.eval_shape(lambda: of_parts[0].ahead(jnp.asarray(0))[0])
    table, memories = jnp.zeros((reading.slots, one.shape[1]), one.dtype), []
    for chunks, memory in zip(of_parts, kept.parts):
        with jax.named_scope(chunks.part.scope):
            table, memory = jax.lax.fori_loop(0, chunks.part.turns(reading), chunks.put, (table, memory))
        memories.append(memory)
    return table, Kept(tuple(memories))


def pull_back_kept(
    reading: Reading,
    encode_with: Callable[[Params], Params],
    moving: Params,
    chosen: Chosen,
    kept: Kept,
    cotangent: Float[Array, "slots hidden"],
) -> Params:
    """`pull_back` from activations that were kept.

    Args:
        reading, encode_with, moving, chosen, cotangent: as for `pull_back`.
        kept: from `embed_and_keep`.

    Returns:
        The gradient, a tree like `moving`.
    """
    total = jax.tree.map(jnp.zeros_like, moving)
    for part, memory in zip(_parts(reading, chosen), kept.parts):
        add = _Chunks(reading, encode_with, moving, part).adding(memory, cotangent)
        with jax.named_scope(part.scope):
            total = jax.lax.fori_loop(0, part.turns(reading), add, total)
    return total


class _Chunks:
    """Both passes of the chunks of one length, of which the first leaves what the second needs.

    Args:
        reading, encode_with, moving: as for `pull_back`.
        part: the rows.
    """

    def __init__(self, reading: Reading, encode_with: Callable[[Params], Params], moving: Params, part: _Part) -> None:
        self._reading, self._encode_with, self._moving, self.part = reading, encode_with, moving, part
        self._own = _depending(lambda turn: self._forward(turn)[1], jnp.asarray(0))

    def _forward(self, turn: Array) -> tuple[Array, list[Any], Any]:
        """Embeddings of a chunk, what the backward pass needs, and the structure that makes it of that."""
        tokens, _ = self.part.chunk(self._reading, turn)

        def encode(moving: Params) -> Array:
            return self._reading.encode(self._encode_with(moving), tokens)

        policies = jax.checkpoint_policies
        policy = policies.dots_with_no_batch_dims_saveable
        if self._reading.remat:
            policy = policies.save_only_these_names(LAYER_INPUT)
        out, back = jax.vjp(jax.checkpoint(encode, policy=policy, prevent_cse=False), self._moving)
        return out, *jax.tree.flatten(back)

    def ahead(self, turn: Array) -> tuple[Array, list[Any]]:
        """Embeddings of a chunk, and what the backward pass needs of this chunk alone."""
        out, needed, _ = self._forward(turn)
        return out, [leaf for leaf, own in zip(needed, self._own, strict=True) if own]

    def put(self, turn: Array, held: tuple[Array, Any]) -> tuple[Array, Any]:
        """Put embeddings and activations of a chunk into (table of slots, memory)."""
        table, memory = held
        out, own = self.ahead(turn)
        slots = self.part.chunk(self._reading, turn)[1]
        stored = [jax.lax.dynamic_update_index_in_dim(of_all, leaf, turn, 0) for of_all, leaf in zip(memory, own)]
        return table.at[slots].set(out, mode="drop"), tuple(stored)

    def adding(self, memory: Any, cotangent: Array) -> Callable[[Array, Params], Params]:
        """Make the function (turn, gradient) -> gradient with that of a chunk added."""
        # What all chunks share is taken from the first one. The rest of that pass is not used, nor computed.
        _, shared, structure = self._forward(jnp.asarray(0))

        def add(turn: Array, total: Params) -> Params:
            of_chunk = iter([jax.lax.dynamic_index_in_dim(leaf, turn, 0, keepdims=False) for leaf in memory])
            needed = [next(of_chunk) if own else leaf for leaf, own in zip(shared, self._own, strict=True)]
            slots = self.part.chunk(self._reading, turn)[1]
            back = jax.tree.unflatten(structure, needed)
            return jax.tree.map(jnp.add, total, back(cotangent.at[slots].get(mode="fill", fill_value=0))[0])

        return add


def _depending(function: Callable[[Array], list[Any]], argument: Array) -> list[bool]:
    """Whether each result of a function depends on its argument, as far as its operations tell."""
    traced = jax.make_jaxpr(function)(argument).jaxpr
    depends = set(traced.invars)
    for equation in traced.eqns:
        if any(not isinstance(value, Literal) and value in depends for value in equation.invars):
            depends.update(equation.outvars)
    return [not isinstance(value, Literal) and value in depends for value in traced.outvars]
