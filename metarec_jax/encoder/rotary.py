"""Rotary positions, and which tokens of a text attend to which.

Su et al. 2021 (arXiv 2104.09864, section 3.2.2), with the two halves of a head as the parts of complex numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metarec_jax.core.errors import MetarecError


class Reach(NamedTuple):
    """Rotary base of a layer, and the tokens that a token attends to.

    Attributes:
        theta: base of the rotary frequencies.
        before, after: greatest distance of attended tokens before and after a token; None for any distance.
    """

    theta: float
    before: int | None = None
    after: int | None = None


class Places(NamedTuple):
    """`Reach` for texts of one padded length.

    Attributes:
        cosine, sine: float32 [length, head width / 2], of the angle of each position and frequency; for rows with
            several texts, [rows, length, head width / 2].
        allowed: bool [length, length], whether the token of the first axis attends to that of the second; None where
            all do.
    """

    cosine: Array | np.ndarray
    sine: Array | np.ndarray
    allowed: Array | np.ndarray | None


def places(reach: Reach, length: int, width: int) -> Places:
    """Compute angles and attended pairs for texts of one padded length.

    Args:
        reach: of a layer.
        length: padded tokens of a text.
        width: even number of features of a head.

    Returns:
        Constants of a compiled program.

    >>> places(Reach(10_000.0, after=0), 2, 4).allowed.tolist()
    [[True, False], [True, True]]
    """
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    # Rounded to float32 where PyTorch rounds: an angle is a frequency times up to thousands of positions.
    frequencies = np.float32(1) / np.power(reach.theta, exponents.astype(np.float64)).astype(np.float32)
    angles = (np.arange(length, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    allowed = np.ones((length, length), bool)
    if reach.before is not None:
        allowed &= distance >= -reach.before
    if reach.after is not None:
        allowed &= distance <= reach.after
    return Places(
        np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), None if allowed.all() else allowed
    )


def renumbered(where: Places, position: Int[Array, "rows length"]) -> Places:
    """Give the tokens of rows with several texts the angles of their positions in their own texts.

    Args:
        where: angles of the positions of a row.
        position: position of each token in its text.

    Returns:
        As `where`, with angles for each row.
    """
    cosine, sine = (jnp.asarray(table)[position] for table in (where.cosine, where.sine))
    return where._replace(cosine=cosine, sine=sine)


def stacked(kinds: Sequence[Places]) -> Places:
    """Stack the places of several layers along a new first axis.

    Args:
        kinds: of texts of one length.

    Returns:
        Arrays with the first axis of `kinds`.
    """
    allowed = None
    if any(kind.allowed is not None for kind in kinds):
        length = kinds[0].cosine.shape[-2]
        everything = np.ones((length, length), bool)
        allowed = jnp.stack([everything if kind.allowed is None else kind.allowed for kind in kinds])
    return Places(jnp.stack([k.cosine for k in kinds]), jnp.stack([k.sine for k in kinds]), allowed)


def rotate(x: Float[Array, "texts length heads width"], where: Places) -> Float[Array, "texts length heads width"]:
    """Turn the features of each head by the angles of their positions.

    Args:
        x: queries or keys.
        where: from `places`.

    Returns:
        As `x`; computed in float32 or wider.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    first, second = jnp.split(wide, 2, axis=-1)
    tables = (jnp.asarray(table, wide.dtype) for table in (where.cosine, where.sine))
    cosine, sine = (table.reshape(-1, *table.shape[-2:])[:, :, None, :] for table in tables)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


def require_default_rotary(config: Any, *names: str) -> None:
    """Refuse kinds of rotary positions other than "default", such as "yarn", which stretches them for longer texts.

    Args:
        config: architecture of an encoder.
        *names: fields that state a kind.

    Raises:
        MetarecError: a field states another kind.
    """
    for name in names:
        if getattr(config, name) != "default":
            raise MetarecError(
                f"encoder {name} is {getattr(config, name)!r}, which this package does not compute; it works with "
                "rope_type 'default'"
            )


GLOBAL, LOCAL = "full_attention", "sliding_attention"
"""Kinds of layers: a token attends to its whole text, or within a window."""


def with_layer_types(config: Any, *, every: int, first: int) -> None:
    """Fill in the kinds of layers where a config states none.

    Args:
        config: architecture of an encoder, which is changed.
        every: distance of global layers.
        first: number of the first global layer.
    """
    if not config.layer_types:
        kinds = tuple(GLOBAL if number % every == first else LOCAL for number in range(config.num_layers))
        object.__setattr__(config, "layer_types", kinds)


def require_layer_types(config: Any) -> None:
    """Refuse kinds of layers that are not known, or not as many as there are layers."""
    if len(config.layer_types) != config.num_layers or not set(config.layer_types) <= {GLOBAL, LOCAL}:
        raise MetarecError(
            f"encoder layer_types are {', '.join(map(str, config.layer_types)):.200}; they must be {GLOBAL!r} or "
            f"{LOCAL!r} for each of {config.num_layers} layers"
        )


def require_shared_heads(config: Any) -> None:
    """Refuse heads of queries that the heads of keys and values do not divide."""
    if config.num_heads % config.num_key_value_heads:
        raise MetarecError(
            f"encoder num_heads {config.num_heads} is not divisible by num_key_value_heads "
            f"{config.num_key_value_heads}; every head of keys and values serves as many queries"
        )


def require_even_heads(config: Any) -> None:
    """Refuse heads with an odd number of features, which rotary positions cannot pair."""
    if config.head_width % 2:
        raise MetarecError(f"encoder heads have {config.head_width} features; rotary positions need an even number")
