"""Scaled dot-product attention over padded texts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Array as AnyArray

DISTANCE_BUCKETS = 32
"""Number of rows of a table of relative position biases."""


def attend(
    query: Float[Array, "texts length hidden"],
    key: Float[Array, "texts length key_hidden"],
    value: Float[Array, "texts length key_hidden"],
    mask: Float[Array, "texts length"],
    *,
    num_heads: int,
    bias: Float[Array, "heads length length"] | None = None,
    allowed: Bool[AnyArray, "length length"] | None = None,
    apart: bool = False,
) -> Float[Array, "texts length hidden"]:
    """Compute scaled dot-product attention between the real tokens of each text.

    Vaswani et al. 2017 (arXiv 1706.03762), equation 1, on each of ``num_heads`` slices of the hidden axis. The softmax
    is in float32 or wider. Only XLA operations are used, so derivatives of any order exist.

    Args:
        query, key, value: projections of the tokens.
        mask: 1 for a real token, 0 for padding. Padding gets a weight of exactly 0; a text with no real token gets the
            mean of its values, which is finite and which pooling leaves out.
        num_heads: number of heads of queries; it divides ``hidden``. With fewer heads of keys and values, each of them
            serves as many consecutive heads of queries (Ainslie et al. 2023, arXiv 2305.13245).
        bias: added to the scores of every text, or None.
        allowed: whether the token of the first axis attends to that of the second; None for all pairs. A token that
            attends to none gets the mean of the values.
        apart: whether each row holds several texts, which do not attend to each other; `mask` is then the number of the
            text of each token, from 1 on.

    Returns:
        Attention outputs of the heads, concatenated.
    """
    texts, length, hidden = query.shape
    width = hidden // num_heads
    groups = key.shape[-1] // width
    together = num_heads // groups
    # [texts * groups, together * length, width] with one batch axis: the layout that was fastest on a CPU. Heads of
    # queries that share a head of keys are further rows.
    query, key, value = (
        x.reshape(texts, length, -1, width).swapaxes(1, 2).reshape(texts * groups, -1, width)
        for x in (query, key, value)
    )
    scores = jnp.einsum("bqw,bkw->bqk", query * width**-0.5, key)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if bias is not None:
        scores = scores + jnp.tile(bias.astype(scores.dtype).reshape(groups, -1, length), (texts, 1, 1))
    real = (mask > 0)[:, None, :]
    if apart:
        real = real & (mask[:, :, None] == mask[:, None, :])
    if allowed is not None:
        real = real & jnp.asarray(allowed)[None]
    real = jnp.repeat(jnp.tile(real, (1, together if real.shape[1] > 1 else 1, 1)), groups, axis=0)
    weights = jax.nn.softmax(jnp.where(real, scores, jnp.finfo(scores.dtype).min), axis=-1)
    mixed = jnp.einsum("bqk,bkw->bqw", weights.astype(value.dtype), value)
    return mixed.reshape(texts, num_heads, length, width).swapaxes(1, 2).reshape(texts, length, hidden)


TILE = 128
"""Columns of a matrix unit, and of a tile in a TPU's memory: shorter rows are padded to it."""


def attend_tiled(
    query: Float[Array, "texts length hidden"],
    key: Float[Array, "texts length key_hidden"],
    value: Float[Array, "texts length key_hidden"],
    mask: Float[Array, "texts length"],
    *,
    num_heads: int,
    bias: Float[Array, "heads length length"] | None = None,
    allowed: Bool[AnyArray, "length length"] | None = None,
    apart: bool = False,
) -> Float[Array, "texts length hidden"]:
    """Compute `attend` with several short texts side by side in each row of a matrix unit of a TPU.

    With texts of 32 tokens, three quarters of a matrix unit's 128 columns would be padding. On a CPU, which does not
    pad, this is slower. Heads have an axis of their own, so that no array with the pairs of tokens of every head is
    made for the mask. Derivatives of any order exist.

    Args:
        query, key, value, mask, num_heads, bias, allowed, apart: as for `attend`.

    Returns:
        As `attend`.
    """
    texts, length, hidden = query.shape
    together = max(TILE // length, 1)
    width, missing = hidden // num_heads, -texts % together
    groups, row = (texts + missing) // together, together * length

    def tiled(x: Array) -> Array:
        x = jnp.pad(x, ((0, missing), (0, 0), (0, 0)))
        heads = x.reshape(groups, row, -1, width).swapaxes(1, 2)
        return jnp.repeat(heads, num_heads // heads.shape[1], axis=1)

    query, key, value = tiled(query * width**-0.5), tiled(key), tiled(value)
    scores = jnp.einsum("ghqw,ghkw->ghqk", query, key)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if bias is not None:
        scores = scores + jnp.tile(bias.astype(scores.dtype), (1, together, together))[None]
    number = jnp.pad(mask, ((0, missing), (0, 0))).reshape(groups, row)
    real = (number > 0)[:, None, None, :]
    if apart:
        real = real & (number[:, :, None] == number[:, None, :])[:, None]
    if allowed is not None:
        real = real & jnp.tile(jnp.asarray(allowed), (together, together))[None, None]
    # A padded token has the least finite score, so that the mean of a text of padding alone is finite.
    scores = jnp.where(real, scores, jnp.finfo(scores.dtype).min)
    if together > 1:
        scores = jnp.where(np.kron(np.eye(together), np.ones((length, length))) > 0, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    mixed = jnp.einsum("ghqk,ghkw->ghqw", weights.astype(value.dtype), value)
    return mixed.swapaxes(1, 2).reshape(texts + missing, length, hidden)[:texts]


def attend_fused(
    query: Float[Array, "texts length hidden"],
    key: Float[Array, "texts length key_hidden"],
    value: Float[Array, "texts length key_hidden"],
    mask: Float[Array, "texts length"],
    *,
    num_heads: int,
    bias: Float[Array, "heads length length"] | None = None,
    allowed: Bool[AnyArray, "length length"] | None = None,
    apart: bool = False,
) -> Float[Array, "texts length hidden"]:
    """Compute `attend` with the accelerator's fused kernel: cuDNN's on a GPU, Pallas's on a TPU.

    The kernel never writes the scores to memory. It has only a first derivative, and the real tokens of a row must come
    before its padding.

    Args:
        query, key, value, mask, num_heads, bias, allowed, apart: as for `attend`; a TPU's kernel alone keeps several
            texts of a row apart.

    Returns:
        As `attend`.

    Raises:
        MetarecError: there is no such kernel here, or it does not compute such attention (see `check_fused`).
    """
    platform = jax.default_backend()
    plain = allowed is None and key.shape == query.shape
    check_fused(platform, compute=query.dtype.name, width=query.shape[-1] // num_heads, plain=plain)
    if apart and platform not in KEEPS_APART:
        raise MetarecError(f"the fused kernel of a {platform.upper()} does not keep texts of a row apart: lay out one")
    return FUSED[platform](query, key, value, mask, num_heads=num_heads, bias=bias)


def attend_cudnn(
    query: Float[Array, "texts length hidden"],
    key: Float[Array, "texts length hidden"],
    value: Float[Array, "texts length hidden"],
    mask: Float[Array, "texts length"],
    *,
    num_heads: int,
    bias: Float[Array, "heads length length"] | None = None,
) -> Float[Array, "texts length hidden"]:
    """`attend_fused` on a GPU.

    Args:
        query, key, value, mask, num_heads, bias: as for `attend`.

    Returns:
        As `attend`.
    """
    texts, length, hidden = query.shape
    # The kernel's derivative needs even lengths.
    query, key, value, mask, bias = _lengthened(query, key, value, mask, bias, multiple=2)
    heads = [x.reshape(texts, -1, num_heads, hidden // num_heads) for x in (query, key, value)]
    mixed = jax.nn.dot_product_attention(
        *heads,
        bias=None if bias is None else bias[None].astype(query.dtype),
        # A text without real tokens attends to one padding token (zeros), since the softmax of an empty row is NaN.
        key_value_seq_lengths=jnp.maximum((mask > 0).sum(axis=1), 1).astype(jnp.int32),
        implementation="cudnn",
    )
    return mixed.reshape(texts, -1, hidden)[:, :length]


def attend_flash(
    query: Float[Array, "texts length hidden"],
    key: Float[Array, "texts length hidden"],
    value: Float[Array, "texts length hidden"],
    mask: Float[Array, "texts length"],
    *,
    num_heads: int,
    bias: Float[Array, "heads length length"] | None = None,
) -> Float[Array, "texts length hidden"]:
    """`attend_fused` on a TPU; rows are padded to whole tiles, which the kernel reads.

    Args:
        query, key, value, mask, num_heads, bias: as for `attend`.

    Returns:
        As `attend`.
    """
    from jax.experimental.pallas.ops.tpu.flash_attention import SegmentIds, flash_attention

    texts, length, hidden = query.shape
    # Scaled here, since the kernel's own scale would also multiply the bias.
    query = query * (hidden // num_heads) ** -0.5
    query, key, value, mask, bias = _lengthened(query, key, value, mask, bias, multiple=TILE)
    heads = [x.reshape(texts, -1, num_heads, hidden // num_heads).swapaxes(1, 2) for x in (query, key, value)]
    segments = mask.astype(jnp.int32)  # each text is a segment, and padding is another one
    mixed = flash_attention(
        *heads,
        ab=None if bias is None else jnp.broadcast_to(bias, (texts, *bias.shape)),
        segment_ids=SegmentIds(segments, segments),
    )
    return mixed.swapaxes(1, 2).reshape(texts, -1, hidden)[:, :length]


def _lengthened(
    query: Array, key: Array, value: Array, mask: Array, bias: Array | None, *, multiple: int
) -> tuple[Array, Array, Array, Array, Array | None]:
    """Pad texts to a multiple of some length, and set keys and values of padding to zero.

    The zeros drop the gradients of padding, which a kernel may leave undefined.
    """
    missing = -mask.shape[1] % multiple
    real = (mask > 0)[:, :, None]
    query, key, value = (
        jnp.pad(x, ((0, 0), (0, missing), (0, 0))) for x in (query, jnp.where(real, key, 0), jnp.where(real, value, 0))
    )
    if bias is not None:
        bias = jnp.pad(bias, ((0, 0), (0, missing), (0, missing)))
    return query, key, value, jnp.pad(mask, ((0, 0), (0, missing))), bias


FUSED = {"gpu": attend_cudnn, "tpu": attend_flash}
"""Platform -> fused attention."""
KEEPS_APART = ("tpu",)
"""Platforms whose kernel keeps several texts of a row apart; JAX's public function does not ask it of cuDNN."""


def check_fused(platform: str, *, compute: str, width: int, plain: bool = True) -> None:
    """Refuse fused attention where there is no kernel for it.

    Args:
        platform: name from `jax.default_backend`.
        compute: data type of the products.
        width: number of features of a head.
        plain: whether every token attends to its whole text, with as many heads of keys and values as of queries.

    Raises:
        MetarecError: the platform has no kernel, or its kernel does not support the type, the width or the attention.
    """
    otherwise = "use --encoder.attention auto"
    if platform not in FUSED:
        raise MetarecError(
            f"encoder.attention is 'fused', but this is a {platform.upper()}, which has no fused kernel: {otherwise}"
        )
    if not plain:
        raise MetarecError(
            "encoder.attention is 'fused', but this encoder's attention is causal, within a window, or with shared "
            f"heads of keys (as of ModernBERT and Qwen3), for which no fused kernel is set up: {otherwise}"
        )
    if platform == "gpu" and compute not in ("bfloat16", "float16"):
        raise MetarecError(
            f"encoder.attention is 'fused', but encoder.compute is {compute}, which a GPU's fused kernel does not "
            f"read: use --encoder.compute bfloat16, or {otherwise}"
        )
    if platform == "tpu" and compute not in ("bfloat16", "float32"):
        raise MetarecError(
            f"encoder.attention is 'fused', but products are in {compute}, which a TPU's fused kernel does not read: "
            f"{otherwise}"
        )
    if platform == "gpu" and (width % 8 or width > 128):
        raise MetarecError(
            f"encoder.attention is 'fused', but a head of this encoder has {width} features, and a GPU's fused kernel "
            f"wants a multiple of 8, at most 128: {otherwise}"
        )
    if platform == "tpu" and width > TILE and width % TILE:
        raise MetarecError(
            f"encoder.attention is 'fused', but a head of this encoder has {width} features, and a TPU's fused kernel "
            f"wants at most {TILE}, or a multiple of it: {otherwise}"
        )


def distance_buckets(length: int) -> Int[np.ndarray, "length length"]:
    """Row of the bias table for each pair of an attending token (first axis) and an attended token (second axis).

    Raffel et al. 2020 (arXiv 1910.10683, section 2.1), as in MPNet: rows 0 to 15 are for attended tokens before or at
    the same position, the others for tokens after it. In each half, the first 8 rows are for distances 0 to 7 and the
    others for ranges of distances that grow by sqrt(2); the last row is for all distances from 91 on.

    >>> distance_buckets(4)[1].tolist()
    [1, 0, 17, 18]
    """
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = DISTANCE_BUCKETS // 2
    exact = half // 2
    size = np.abs(distance)
    # Distances up to 128 in `half - exact` steps of equal ratio: 2 log2(size / 8) rows beyond the exact ones.
    far = exact + np.floor((half - exact) * np.log2(np.maximum(size, 1) / exact) / np.log2(128 / exact)).astype(int)
    return np.where(distance > 0, half, 0) + np.where(size < exact, size, np.minimum(far, half - 1))
