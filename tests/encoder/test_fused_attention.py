"""Fused attention, for accelerators that are not here: what they are asked for, and what is refused before compiling.

Pallas can interpret a TPU's kernel on a CPU; of a GPU's, jax checks the arguments on any machine, and its own plain
form of the same call gives the numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental.pallas import tpu as pltpu

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.attention import attend, attend_cudnn, attend_flash, attend_fused, check_fused

HEADS, WIDTH = 2, 16


@pytest.fixture
def a_gpu(monkeypatch):
    """The version of a library that is not installed, which jax asks for before it looks at the arguments."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91300)


def shapes(length, dtype, *, bias=False, texts=3):
    x = jax.ShapeDtypeStruct((texts, length, HEADS * WIDTH), dtype)
    mask = jax.ShapeDtypeStruct((texts, length), jnp.float32)
    return (x, x, x, mask, *([jax.ShapeDtypeStruct((HEADS, length, length), dtype)] if bias else []))


def slope(function):
    """Its first derivative by everything but the mask."""

    def loss(query, key, value, bias, mask, out):
        mixed = function(query, key, value, mask, num_heads=HEADS, bias=bias)
        return jnp.vdot(mixed.astype(jnp.float32), out), mixed

    return jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)


def trained(function):
    """`slope` of arguments as `shapes` gives them."""

    def of(query, key, value, mask, bias=None):
        return slope(function)(query, key, value, bias, mask, jnp.ones(query.shape))

    return of


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(
    "length", [pytest.param(n, marks=[pytest.mark.slow] * (n in (12, 96))) for n in (12, 13, 16, 96, 160)]
)
@pytest.mark.parametrize(
    ("function", "platform", "calls", "dtype"),
    [
        (attend_cudnn, "cuda", "__cudnn$fmha", jnp.bfloat16),
        (attend_flash, "tpu", "tpu_custom_call", jnp.bfloat16),
        (attend_flash, "tpu", "tpu_custom_call", jnp.float32),
    ],
    ids=["GPU", "TPU", "TPU, float32"],
)
@pytest.mark.usefixtures("a_gpu")
def test_the_kernel_takes_texts_of_any_length(function, platform, calls, dtype, length, bias):
    """Forward and backward, down to the calls in the program that the accelerator's compiler gets."""
    arguments = shapes(length, dtype, bias=bias)
    mixed = jax.eval_shape(functools.partial(function, num_heads=HEADS), *arguments[:4])
    assert (mixed.shape, mixed.dtype) == (arguments[0].shape, dtype)
    program = jax.jit(trained(function)).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert program.count(calls) >= 2


def drawn(length):
    """Texts with padding, without any, and with nothing else; a bias by distance; a cotangent of the real tokens."""
    rng = np.random.default_rng(0)
    query, key, value, out = (jnp.asarray(rng.normal(size=(4, length, HEADS * WIDTH)), jnp.float32) for _ in range(4))
    mask = jnp.asarray(np.arange(length) < np.array([length, 1, length // 2, 0])[:, None], jnp.float32)
    bias = jnp.asarray(rng.normal(size=(HEADS, length, length)), jnp.float32)
    return (query, key, value, bias), mask, out * mask[:, :, None]


@pytest.mark.parametrize("function", [attend_cudnn, attend_flash], ids=["GPU", "TPU"])
def test_fused_attention_is_plain_attention(function, monkeypatch):
    """Values and gradients. Of a text with no real token there need only be finite ones."""
    length = 13
    inputs, mask, out = drawn(length)
    wanted = jax.jit(slope(attend))(*inputs, mask, out)
    plain = jax.nn.dot_product_attention

    def unfused(*arguments, implementation, **options):
        assert implementation == "cudnn"
        return plain(*arguments, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", unfused)
    with pltpu.force_tpu_interpret_mode():
        found = jax.jit(slope(function))(*inputs, mask, out)
    (_, found_mixed), found_slope = found
    (_, wanted_mixed), wanted_slope = wanted
    assert np.isfinite(found_mixed).all()
    assert_close(found_mixed * mask[:, :, None], wanted_mixed * mask[:, :, None])
    assert_close(found_slope, wanted_slope)


def test_the_kernel_of_a_tpu_keeps_the_texts_of_a_row_apart(monkeypatch):
    """Values and gradients of the real tokens."""
    inputs, _, _ = drawn(13)
    texts = jnp.asarray([[1] * 13, [1, 1, 2, 2, 2] + [0] * 8, [1, 2, 3] + [4] * 10, [1] * 12 + [0]], jnp.float32)
    real = (texts > 0)[:, :, None]
    out = jnp.asarray(np.random.default_rng(1).normal(size=inputs[0].shape), jnp.float32) * real
    wanted = jax.jit(slope(functools.partial(attend, apart=True)))(*inputs, texts, out)
    alone = jax.jit(slope(attend))(*inputs, texts, out)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pltpu.force_tpu_interpret_mode():
        found = jax.jit(slope(functools.partial(attend_fused, apart=True)))(*inputs, texts, out)
    assert_close(found[0][1] * real, wanted[0][1] * real)
    assert_close(found[1], wanted[1])
    assert jnp.abs(alone[1][1] - wanted[1][1]).max() > 1e-2
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    half = [x.astype(jnp.bfloat16) for x in inputs[:3]]
    with pytest.raises(MetarecError, match="GPU does not keep texts of a row apart"):
        jax.eval_shape(functools.partial(attend_fused, num_heads=HEADS, apart=True), *half, texts)


@pytest.mark.parametrize("function", [attend_cudnn, attend_flash], ids=["GPU", "TPU"])
def test_padding_has_no_gradient_whatever_a_kernel_leaves_there(function, monkeypatch):
    """The kernels here leave NaN."""

    def careless(key):
        marked = jax.custom_vjp(lambda key: key)
        marked.defvjp(lambda key: (key, None), lambda _, slope: (slope * jnp.nan,))
        return marked(key)

    def kernel(query, key, value, *rest, **options):
        return query + careless(key) + careless(value)

    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    monkeypatch.setattr("jax.experimental.pallas.ops.tpu.flash_attention.flash_attention", kernel)
    inputs, mask, out = drawn(6)
    _, (_, key, value, _) = jax.jit(slope(function))(*inputs[:3], None, mask, out)
    assert not np.asarray(key)[np.asarray(mask) == 0].any()
    assert not np.asarray(value)[np.asarray(mask) == 0].any()


@pytest.mark.parametrize(
    ("platform", "compute", "width", "message"),
    [
        ("cpu", "bfloat16", 64, r"this is a CPU, which has no fused kernel: use --encoder\.attention auto"),
        (
            "gpu",
            "float32",
            64,
            r"encoder\.compute is float32.*--encoder\.compute bfloat16, or use --encoder\.attention",
        ),
        ("gpu", "bfloat16", 12, r"12 features.*a multiple of 8, at most 128: use --encoder\.attention auto"),
        ("gpu", "bfloat16", 256, "256 features.*at most 128"),
        ("tpu", "float64", 64, r"products are in float64.*use --encoder\.attention auto"),
        ("tpu", "bfloat16", 192, "192 features.*at most 128, or a multiple of it"),
    ],
)
def test_what_a_kernel_does_not_have_is_refused_before_compiling(platform, compute, width, message, monkeypatch):
    with pytest.raises(MetarecError, match=message):
        check_fused(platform, compute=compute, width=width)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    x = jax.ShapeDtypeStruct((1, 8, width), jnp.dtype(compute))
    with jax.enable_x64(True), pytest.raises(MetarecError, match=message):
        jax.eval_shape(functools.partial(attend_fused, num_heads=1), x, x, x, jax.ShapeDtypeStruct((1, 8), jnp.float32))


@pytest.mark.parametrize(
    ("platform", "compute", "width"),
    [("gpu", "bfloat16", 32), ("gpu", "float16", 128), ("tpu", "float32", 32), ("tpu", "bfloat16", 256)],
)
def test_what_a_kernel_has_is_not(platform, compute, width):
    check_fused(platform, compute=compute, width=width)


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(("platform", "calls"), [("gpu", "__cudnn$fmha"), ("tpu", "tpu_custom_call")])
def test_the_platform_chooses_the_kernel(platform, calls, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    function = jax.jit(functools.partial(attend_fused, num_heads=HEADS))
    lowered = function.trace(*shapes(12, jnp.bfloat16)).lower(
        lowering_platforms=("cuda" if platform == "gpu" else platform,)
    )
    assert calls in lowered.as_text()
