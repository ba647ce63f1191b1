"""BERT (Devlin et al. 2019, arXiv 1810.04805) and similar encoders as pure functions of explicit parameters.

Architectures (`encoder.architectures`) differ in token types, numbering of positions, and relative position bias. The
Linen modules are private; parameters are a nested dict of arrays.
"""

from __future__ import annotations

import math
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Array as AnyArray
from metarec_jax.core.types import Params
from metarec_jax.encoder.activations import ACTIVATIONS
from metarec_jax.encoder.attention import DISTANCE_BUCKETS, attend, attend_fused, attend_packed, distance_buckets
from metarec_jax.encoder.bert_config import BertConfig, Pooling, Tokens
from metarec_jax.encoder.execution import EXECUTION, Attention, Execution
from metarec_jax.encoder.linear import along_last, block_dot

_ATTEND = {"xla": attend, "packed": attend_packed, "fused": attend_fused}
_MATRICES = ("kernel", "embedding")


def param_shapes(config: BertConfig) -> Params:
    """Return the shapes of the parameters, without computing the parameters.

    Args:
        config: the architecture.

    Returns:
        A nested dict of float32 ShapeDtypeStructs.
    """
    one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    tokens = Tokens(one, jax.ShapeDtypeStruct((1, 1), jnp.float32), one)
    return jax.eval_shape(_Bert(config).init, jax.random.key(0), tokens)["params"]


def init(seed: int, config: BertConfig) -> Params:
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
    config: BertConfig,
    tokens: Tokens,
    *,
    pooling: Pooling = "mean",
    normalise: bool = False,
    dtype: DTypeLike | None = None,
    run: Execution = EXECUTION,
) -> Float[Array, "texts hidden"]:
    """Encode each text as one vector.

    Args:
        params: from `init` or `pretrained.load`.
        config: the architecture of ``params``.
        tokens: padded texts.
        pooling: "mean" of the real tokens of the last layer, or its first token ("cls").
        normalise: whether vectors are scaled to unit length.
        dtype: data type of the computation, such as `jnp.bfloat16`; None takes that of the parameters. Softmax,
            layer-norm statistics and pooling are always in float32 or wider.
        run: how the layers are computed.

    Returns:
        Vectors in float32 or wider. A text with no real token gets 0 from mean pooling.

    Raises:
        MetarecError: tokens longer than ``config.max_positions``.
    """
    with jax.named_scope("encode"):
        words = params | {"embeddings": run.whole(params["embeddings"])}
        x = embed(words, config, tokens, dtype=dtype)
        mask, layers = jnp.asarray(tokens.mask), config.num_layers
        last = run_layers(params, config, x, mask, first=0, last=layers, dtype=dtype, run=run)
        return pool(last, mask, tokens.skip, pooling=pooling, normalise=normalise)


def pool(
    last: Float[Array, "texts length hidden"],
    mask: Float[Array, "texts length"],
    skip: Int[AnyArray, " texts"] | None = None,
    *,
    pooling: Pooling = "mean",
    normalise: bool = False,
) -> Float[Array, "texts hidden"]:
    """Pool the vectors of each text's tokens into one vector.

    Args:
        last: output of the last layer.
        mask: 1 for a real token, 0 for padding.
        skip: number of first tokens of each text that the mean leaves out; None leaves out none.
        pooling: "mean" of the real tokens, or the first token ("cls").
        normalise: scale vectors to unit length.

    Returns:
        Vectors in float32 or wider.

    Raises:
        MetarecError: the pooling is neither "mean" nor "cls", such as an unresolved "auto".
    """
    last = last.astype(jnp.promote_types(last.dtype, jnp.float32))
    if pooling == "cls":
        vectors = last[:, 0]
    elif pooling == "mean":
        mask = mask.astype(last.dtype)
        if skip is not None:
            place = jnp.arange(mask.shape[1], dtype=jnp.int32)[None]
            mask = jnp.where(place >= jnp.asarray(skip)[:, None], mask, 0)
        vectors = jnp.einsum("tlh,tl->th", last, mask) / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    else:
        raise MetarecError(f"pooling is {pooling!r}; it must be 'mean' or 'cls'")
    if normalise:
        # The floor is inside the root, so that the gradient of a zero vector is 0 and not NaN.
        square = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
        vectors = vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
    return vectors


def embed(
    params: Params,
    config: BertConfig,
    tokens: Tokens,
    *,
    dtype: DTypeLike | None = None,
) -> Float[Array, "texts length hidden"]:
    """Compute the input of the first layer: word, position and, if the architecture has them, segment embeddings.

    Args:
        params, config, tokens, dtype: as for `encode`.

    Returns:
        [texts, length, hidden].

    Raises:
        MetarecError: tokens longer than ``config.max_positions``.
    """
    _require_positions(config, tokens)
    tokens = jax.tree.map(jnp.asarray, tokens)
    states: Any = _Embeddings(config, dtype=dtype).apply({"params": params["embeddings"]}, tokens)
    return states


def run_layers(
    params: Params,
    config: BertConfig,
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
        mask: 1 for a real token, 0 for padding.
        first, last: a range of layers, 0 to ``config.num_layers``.

    Returns:
        Output of layer `last` - 1.
    """
    bias = None
    if config.architecture.relative_bias:
        module = _RelativeBias(config, dtype=dtype)
        bias = cast("Array", module.apply({"params": params["relative_bias"]}, x.shape[1]))
    layer = _Layer(config, dtype=dtype, attention=run.attention)

    def step(x: Array, own: Params) -> Array:
        return cast("Array", layer.apply({"params": run.whole(own)}, x, mask, bias))

    if run.remat:
        step = jax.checkpoint(step)
    layers = [params[f"layer_{i}"] for i in range(first, last)]
    if run.scan and len(layers) > 1:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        return jax.lax.scan(lambda x, own: (step(x, own), None), x, stacked)[0]
    for own in layers:
        x = step(x, own)
    return x


def hidden_states(
    params: Params, config: BertConfig, tokens: Tokens, *, dtype: DTypeLike | None = None
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
    params: Params, config: BertConfig, tokens: Tokens, *, dtype: DTypeLike | None = None
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


def _require_positions(config: BertConfig, tokens: Tokens) -> None:
    length = tokens.ids.shape[1]
    if length > config.max_positions:
        raise MetarecError(
            f"texts are {length} tokens long, but this encoder has {config.max_positions} positions: "
            f"give a max_length of at most {config.max_positions}"
        )


class _Dense(nn.Module):
    """A dense layer, plus a low-rank product where the parameters have LoRA factors (see `encoder.lora`)."""

    features: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.zeros, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = block_dot(x, kernel)
        y = y + along_last(bias, y)
        if self.has_variable("params", "lora_a"):
            left, right = (self.get_variable("params", name).astype(y.dtype) for name in ("lora_a", "lora_b"))
            y = y + x @ left @ right
        return y


class _Part(nn.Module):
    """Base of the modules below: architecture, data type of the computation, and constructors of layers."""

    config: BertConfig
    dtype: DTypeLike | None = None

    def dense(self, features: int, name: str) -> _Dense:
        return _Dense(features, dtype=self.dtype, name=name)

    def norm(self, name: str) -> nn.LayerNorm:
        # The fast variance E[x^2] - E[x]^2 cancels in float32, so that results would differ from PyTorch's.
        return nn.LayerNorm(self.config.layer_norm_eps, dtype=self.dtype, use_fast_variance=False, name=name)


class _Embeddings(_Part):
    """Sum of word, position and, if the architecture has them, segment embeddings, normalised."""

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        config = self.config

        def table(rows: int, name: str) -> nn.Embed:
            return nn.Embed(rows, config.hidden_size, dtype=self.dtype, name=name)

        x = table(config.vocab_size, "word")(tokens.ids)
        if config.type_vocab_size:
            x = x + table(config.type_vocab_size, "type")(tokens.types)
        positions = table(config.first_position + config.max_positions, "position")
        x = x + positions(_positions(config, tokens.ids))
        return self.norm("norm")(x)


def _positions(config: BertConfig, ids: Array) -> Array:
    """Rows of the position table, [1, length] or [texts, length].

    Padding is recognised by id, not by mask, as in transformers: a text may contain the padding token.
    """
    if not config.architecture.counts_padding:
        return jnp.arange(ids.shape[1])[None]
    real = (ids != config.pad_token_id).astype(ids.dtype)
    return config.pad_token_id + jnp.cumsum(real, axis=1) * real


class _RelativeBias(_Part):
    """Relative position bias of attention scores, shared by all layers: [heads, length, length]."""

    @nn.compact
    def __call__(self, length: int) -> Array:
        table = self.param("embedding", nn.initializers.zeros, (DISTANCE_BUCKETS, self.config.num_heads))
        return jnp.asarray(table)[distance_buckets(length)].transpose(2, 0, 1)


class _Layer(_Part):
    """Attention and feed-forward sublayers, each with a residual connection and layer norm after it."""

    attention: Attention = "xla"

    @nn.compact
    def __call__(self, x: Array, mask: Array, bias: Array | None) -> Array:
        config, shape = self.config, x.shape
        # Flatten texts and tokens into one axis: the gradient of a bias sums over them, and XLA's CPU backend takes
        # six times as long for a sum over two axes as over one.
        x = x.reshape(-1, shape[-1])
        query, key, value = (
            self.dense(config.hidden_size, name)(x).reshape(shape) for name in ("query", "key", "value")
        )
        mixed = _ATTEND[self.attention](query, key, value, mask, num_heads=config.num_heads, bias=bias)
        mixed = self.dense(config.hidden_size, "attention_output")(mixed.reshape(x.shape))
        x = self.norm("attention_norm")(x + mixed)

        wide = ACTIVATIONS[config.activation](self.dense(config.intermediate_size, "feed_forward")(x))
        narrow = self.dense(config.hidden_size, "output")(wide)
        return self.norm("output_norm")(x + narrow).reshape(shape)


class _Bert(_Part):
    """The whole encoder. Used only for the shapes of the parameters; `run_layers` computes the outputs."""

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        shared = {"config": self.config, "dtype": self.dtype}
        x, bias = _Embeddings(**shared, name="embeddings")(tokens), None
        if self.config.architecture.relative_bias:
            bias = _RelativeBias(**shared, name="relative_bias")(tokens.ids.shape[1])
        for i in range(self.config.num_layers):
            x = _Layer(**shared, name=f"layer_{i}")(x, tokens.mask, bias)
        if self.config.has_pooler:
            self.dense(self.config.hidden_size, "pooler")(x[:, 0])
        return x
