"""Activation functions by their names in Hugging Face configurations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Odd rational function x P(x^2) / Q(x^2), highest power first, with the coefficients that Eigen and XLA use for
# float32; its largest error is 3.2e-7. Written out, it compiles to multiplications that XLA fuses with the matmul's
# bias, whereas `jax.lax.erf` compiles to a slow loop on a CPU (38 ms against 5 ms for 6.3 million values).
_NUMERATOR = (
    2.2905065861350646e-4,
    3.4082910107109506e-3,
    5.0955695062380861e-2,
    1.8520832239976145e-1,
    1.128379143519084,
)
_DENOMINATOR = (
    -1.1791602954361697e-7,
    2.3547966471313185e-5,
    1.0179625278914885e-3,
    1.4070470171167667e-2,
    1.1098505178285362e-1,
    4.9746925110067538e-1,
    1.0,
)
_ONE_FROM = 3.832506856900711  # beyond it erf rounds to 1 in float32


@jax.custom_jvp
def erf(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The error function, fast on every platform and differentiable any number of times.

    Args:
        x: any shape. Float64 takes `jax.lax.erf`; narrower types are computed in float32.

    Returns:
        erf(x), within 3.5e-7 of the true value for float32. The derivative is the exact 2/sqrt(pi) exp(-x^2).
    """
    if x.dtype == jnp.float64:
        return jax.lax.erf(x)
    wide = x.astype(jnp.float32)
    clipped = jnp.clip(wide, -_ONE_FROM, _ONE_FROM)
    square = clipped * clipped
    ratio = clipped * _polynomial(_NUMERATOR, square) / _polynomial(_DENOMINATOR, square)
    ratio = jnp.clip(ratio, -1, 1)  # rounding would step over 1 by 2e-7
    return jnp.where(jnp.abs(wide) >= _ONE_FROM, jnp.sign(wide), ratio).astype(x.dtype)


@erf.defjvp
def _erf_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return erf(x), tangent * (2 / math.sqrt(math.pi)) * jnp.exp(-x * x)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    return functools.reduce(lambda total, c: total * x + c, coefficients[1:], jnp.full_like(x, coefficients[0]))


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x Phi(x), with Phi the normal distribution function (Hendrycks & Gimpel 2016, arXiv 1606.08415, eq. 1)."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The tanh form of gelu (arXiv 1606.08415, section 2)."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x sigmoid(1.702 x) (arXiv 1606.08415, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_10": lambda x: jnp.clip(gelu(x), -10, 10),
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_python_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "linear": lambda x: x,
}
"""Value of ``hidden_act`` in config.json -> activation."""
