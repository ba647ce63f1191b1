"""Encoders as pure functions of explicit parameters, a nested dict of arrays.

The Linen modules of each family (`bert`, `modernbert`, `qwen3`, `gemma3`) are private to this package.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.encoder import bert
from metarec_jax.encoder.execution import APART, EXECUTION, Execution
from metarec_jax.encoder.families import family_of
from metarec_jax.encoder.model_config import ModelConfig, Pooling, Tokens
from metarec_jax.encoder.parts import Dense
from metarec_jax.encoder.pooling import text_vectors
from metarec_jax.encoder.rotary import places, renumbered, stacked
from metarec_jax.encoder.text_places import positions, text_numbers

_MATRICES = ("kernel", "embedding")
LAYER_INPUT = "layer input"
"""Name of the input of each layer that is computed again in the backward pass, for policies of `jax.checkpoint`."""


def param_shapes(config: ModelConfig) -> Params:
    """Return the shapes of the parameters, without computing the parameters.

    Args:
        config: the architecture.

    Returns:
        A nested dict of float32 ShapeDtypeStructs.
    """
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), _shapes(config))


@functools.lru_cache(maxsize=16)
def _shapes(config: ModelConfig) -> Params:
    family, key = family_of(config), jax.random.key(0)
    tokens = Tokens(*(jax.ShapeDtypeStruct((1, 1), kind) for kind in (jnp.int32, jnp.float32, jnp.int32)))
    x = jax.ShapeDtypeStruct((1, 1, config.hidden_size), jnp.float32)
    where = places(config.reaches[0], 1, config.head_width) if config.reaches else None

    def shapes(module: Any, *inputs: Any) -> Params:
        return jax.eval_shape(lambda *arrays: module.init(key, *arrays), *inputs)["params"]

    params = {"embeddings": shapes(family.embeddings(config), tokens)}
    if config.architecture.relative_bias:
        bias = bert.RelativeBias(config)
        params["relative_bias"] = jax.eval_shape(lambda: bias.init(key, 1))["params"]
    for number in range(config.num_layers):  # layers after the first have equal parameters
        known = params.get("layer_1")
        params[f"layer_{number}"] = known or shapes(family.layer(config, number=number), x, tokens.mask, where)
    if family.final_norm is not None:
        params["final_norm"] = shapes(family.final_norm(config), x)
    if config.has_pooler:
        params["pooler"] = shapes(Dense(config.hidden_size), x)
    width = config.hidden_size
    for number, projection in enumerate(config.projections):
        dense = Dense(projection.features, use_bias=projection.bias)
        params[f"projection_{number}"] = shapes(dense, jax.ShapeDtypeStruct((1, width), jnp.float32))
        width = projection.features
    return params


def init(seed: int, config: ModelConfig) -> Params:
    """Draw random parameters: matrices of standard deviation ``config.init_scale``, zero biases, unit norm scales.

    Equal seeds give equal bits on every platform: an entry is the sum of four uniform 16-bit integers, which is nearly
    normal, times one float32 factor. Normal draws would be rounded differently by each processor, device and compiler.

    Args:
        seed: 0 or more.
        config: the architecture.

    Returns:
        A nested dict of float32 arrays on the default device.
    """
    bits = np.random.Philox(seed)
    factor = np.float32(config.init_scale * math.sqrt(3 / (2**32 - 1)))  # such a sum has the variance (2^32 - 1) / 3

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[-1].key not in _MATRICES:
            return jnp.asarray(np.full(leaf.shape, path[-1].key == "scale", np.float32))
        words = bits.random_raw(leaf.size).view(np.uint16).reshape(-1, 4)
        sums = words.sum(axis=1, dtype=np.int32) - 2 * 65535  # below 2^24, thus exact in float32
        return jnp.asarray((sums.astype(np.float32) * factor).reshape(leaf.shape))

    return jax.tree.map_with_path(draw, param_shapes(config))


def encode(
    params: Params,
    config: ModelConfig,
    tokens: Tokens,
    *,
    pooling: Pooling = "mean",
    normalise: bool = False,
    dims: int = 0,
    dtype: DTypeLike | None = None,
    run: Execution = EXECUTION,
) -> Float[Array, "texts width"]:
    """Encode each text as one vector.

    Args:
        params: from `init` or `pretrained.load`.
        config: the architecture of ``params``.
        tokens: padded texts, or rows with several texts.
        pooling: "mean" of the real tokens of the last layer, its first token ("cls"), or its last real token
            ("lasttoken").
        normalise, dims: as for `pooling.text_vectors`.
        dtype: data type of the computation, such as `jnp.bfloat16`; None takes that of the parameters. Softmax,
            layer-norm statistics and pooling are always in float32 or wider.
        run: how the layers are computed.

    Returns:
        Vectors in float32 or wider. A text with no real token gets 0 from "mean" and "lasttoken", before dense layers.
        Of rows with several texts, those of all places in the order of rows: [rows * texts, width].

    Raises:
        MetarecError: tokens longer than ``config.max_positions``, or fused attention of rows with several texts
            where the kernel does not keep them apart.
    """
    mask, lengths = jnp.asarray(tokens.mask), tokens.lengths
    if lengths is not None and lengths.shape[1] > 1:
        run = run._replace(attention=APART.get(run.attention, run.attention))
        mask = text_numbers(jnp.asarray(lengths), tokens.ids.shape[1]).astype(jnp.float32)
    with jax.named_scope("encode"):
        words = params | {"embeddings": run.whole(params["embeddings"])}
        x = embed(words, config, tokens, dtype=dtype)
        last = run_layers(params, config, x, mask, first=0, last=config.num_layers, dtype=dtype, run=run)
        how = {"pooling": pooling, "normalise": normalise, "dims": dims, "run": run}
        return text_vectors(params, config, last, mask, tokens.skip, lengths, **how)


def embed(
    params: Params,
    config: ModelConfig,
    tokens: Tokens,
    *,
    dtype: DTypeLike | None = None,
) -> Float[Array, "texts length hidden"]:
    """Compute the input of the first layer: word and, if the architecture has them, position and segment embeddings.

    Args:
        params, config, tokens, dtype: as for `encode`.

    Returns:
        [texts, length, hidden].

    Raises:
        MetarecError: tokens longer than ``config.max_positions``.
    """
    _require_positions(config, tokens)
    tokens = jax.tree.map(jnp.asarray, tokens)
    states: Any = family_of(config).embeddings(config, dtype=dtype).apply({"params": params["embeddings"]}, tokens)
    return states


def run_layers(
    params: Params,
    config: ModelConfig,
    x: Float[Array, "texts length hidden"],
    mask: Float[Array, "texts length"],
    *,
    first: int,
    last: int,
    dtype: DTypeLike | None = None,
    run: Execution = EXECUTION,
) -> Float[Array, "texts length hidden"]:
    """Apply layers `first` to `last` - 1.

    Args:
        params, config, dtype, run: as for `encode`.
        x: input of layer `first`.
        mask: 1 for a real token, 0 for padding; for attention that keeps the texts of a row apart, the number of the
            text of each token.
        first, last: a range of layers, 0 to ``config.num_layers``.

    Returns:
        Output of layer `last` - 1; after the architecture's final norm, if there is one, where that is the last layer.
    """
    family, (values, kinds) = family_of(config), _between(params, config, x.shape[1], dtype)
    if run.attention in ("apart", "tiled apart") and config.reaches:  # fused attention has no rotary positions
        values = [renumbered(where, positions(mask)) for where in values]

    def compute(x: Array, own: Params, value: Any, number: int) -> Array:
        layer = family.layer(config, dtype=dtype, attention=run.attention, number=number)
        return cast("Array", layer.apply({"params": run.whole(own)}, x, mask, value))

    again = jax.checkpoint(compute, static_argnums=3)

    def compute_again(x: Array, own: Params, value: Any, number: int) -> Array:
        return again(checkpoint_name(x, LAYER_INPUT), own, value, number)

    step = compute_again if run.remat else compute
    for numbers in _alike(params, range(first, last)) if run.scan else [[number] for number in range(first, last)]:
        own = [params[f"layer_{number}"] for number in numbers]
        if len(own) == 1:
            x = step(x, own[0], values[kinds[numbers[0]]], numbers[0])
        else:
            x = _loop(step, x, own, [values[kinds[n]] for n in numbers], numbers[0])
    if family.final_norm is not None and first < last == config.num_layers:
        norm = family.final_norm(config, dtype=dtype)
        x = cast("Array", norm.apply({"params": run.whole(params["final_norm"])}, x))
    return x


def hidden_states(
    params: Params, config: ModelConfig, tokens: Tokens, *, dtype: DTypeLike | None = None
) -> Float[Array, "states texts length hidden"]:
    """Compute the outputs of the embeddings and of every layer, in order.

    Args:
        params, config, tokens, dtype: as for `encode`.

    Returns:
        [layers + 1, texts, length, hidden].
    """
    states, mask = [embed(params, config, tokens, dtype=dtype)], jnp.asarray(tokens.mask)
    for i in range(config.num_layers):
        states.append(run_layers(params, config, states[-1], mask, first=i, last=i + 1, dtype=dtype))
    return jnp.stack(states)


def pooled(
    params: Params, config: ModelConfig, tokens: Tokens, *, dtype: DTypeLike | None = None
) -> Float[Array, "texts hidden"]:
    """Compute BERT's pooler output: tanh of a dense layer on the first token.

    Args:
        params, config, tokens, dtype: as for `encode`.

    Returns:
        [texts, hidden].

    Raises:
        MetarecError: the weights have no pooler.
    """
    if not config.has_pooler:
        raise MetarecError("these encoder weights have no pooler; use encode with pooling 'mean' or 'cls'")
    x = embed(params, config, tokens, dtype=dtype)
    last = run_layers(params, config, x, jnp.asarray(tokens.mask), first=0, last=config.num_layers, dtype=dtype)
    weights = params["pooler"]
    return jnp.tanh(last[:, 0] @ weights["kernel"].astype(last.dtype) + weights["bias"].astype(last.dtype)[None])


def _require_positions(config: ModelConfig, tokens: Tokens) -> None:
    length = tokens.ids.shape[1]
    if tokens.lengths is None and length > config.max_positions:
        raise MetarecError(
            f"texts are {length} tokens long, but this encoder has {config.max_positions} positions: "
            f"give a max_length of at most {config.max_positions}"
        )


def _between(
    params: Params, config: ModelConfig, length: int, dtype: DTypeLike | None
) -> tuple[Sequence[Any], Sequence[int]]:
    """What layers read besides states and mask: the distinct values, and the one of each layer.

    It is a relative position bias or None; with rotary positions, `rotary.Places`.
    """
    if config.reaches:
        distinct = list(dict.fromkeys(config.reaches))
        values = [places(reach, length, config.head_width) for reach in distinct]
        return values, [distinct.index(reach) for reach in config.reaches]
    bias = None
    if config.architecture.relative_bias:
        bias = bert.RelativeBias(config, dtype=dtype).apply({"params": params["relative_bias"]}, length)
    return [bias], [0] * config.num_layers


def _alike(params: Params, numbers: Sequence[int]) -> list[list[int]]:
    """Consecutive layers with parameters of the same structure and shapes, which one loop can compute."""

    def form(number: int) -> tuple[Any, ...]:
        leaves, structure = jax.tree.flatten(params[f"layer_{number}"])
        return structure, [leaf.shape for leaf in leaves]

    return [list(group) for _, group in itertools.groupby(numbers, form)]


def _loop(step: Callable[..., Array], x: Array, layers: Sequence[Params], values: Sequence[Any], number: int) -> Array:
    """Compute layers as one loop over their stacked parameters, and over their values where these differ."""
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    if all(value is values[0] for value in values):
        return jax.lax.scan(lambda x, own: (step(x, own, values[0], number), None), x, params)[0]
    distinct = list({id(value): value for value in values}.values())
    tables, rows = stacked(distinct), [next(i for i, d in enumerate(distinct) if d is value) for value in values]

    def one(x: Array, inputs: tuple[Params, Array]) -> tuple[Array, None]:
        own, row = inputs
        return step(x, own, jax.tree.map(lambda table: table[row], tables), number), None

    return jax.lax.scan(one, x, (params, jnp.asarray(rows, jnp.int32)))[0]
