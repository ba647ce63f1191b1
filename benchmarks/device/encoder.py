"""Part "encoder, N tokens": BERT-base with random weights, forward and backward, against PyTorch's sdpa attention."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import BASE, SMOKE_SHAPE, Shape, batch_of
from benchmarks.device.measure import Asked, Row, Work, measured
from benchmarks.device.torch_device import find
from benchmarks.encoder import matrix_flops
from benchmarks.phases import phases
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.encoder import Encoder, Execution, Tokens, choose_execution, encode, init, random_encoder
from metarec_jax.encoder.attention import check_fused

TOKENS = 16384
"""Tokens of a batch, padding included."""


@functools.cache
def bert_base(*, smoke: bool) -> Encoder:
    """BERT-base with random weights (or a tiny encoder), drawn once in this process."""
    config = (SMOKE_SHAPE if smoke else BASE).config
    return dataclasses.replace(random_encoder(), config=config, params=init(0, config))


def computed_in() -> Any:
    """Data type of the encoder's products: bfloat16, or float32 on a CPU, which computes bfloat16 slowly."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def token_ids(texts: int, length: int, vocabulary: int) -> np.ndarray:
    """Random token ids [texts, length], all of them real."""
    return np.random.default_rng(0).integers(min(1000, vocabulary // 2), vocabulary, (texts, length), dtype=np.int32)


def model_gflop(params: Params, shape: Shape) -> float:
    """GFLOP of the model's products in a forward pass, attention included; nothing that is computed twice."""
    attention = 4e-9 * shape.layers * shape.texts * shape.length**2 * shape.hidden
    return matrix_flops(params, shape.texts * shape.length) + attention


def executions(platform: str, shape: Shape) -> dict[str, Execution]:
    """How the package encodes on this platform, and with fused attention where there is a kernel for it."""
    own = choose_execution(platform)
    found = {"ours": own}
    try:
        check_fused(platform, compute=np.dtype(computed_in()).name, width=shape.hidden // shape.heads)
    except MetarecError:
        return found
    return found | {"ours, fused attention": own._replace(attention="fused")}


def measure(length: int, asked: Asked) -> Iterator[Row]:
    """Forward, and forward and backward, of one batch.

    Args:
        length: tokens of a text.
        asked: size and time.

    Yields:
        A row for each program. `gflop` is that of the model, so that its share of the product's peak is the MFU.
    """
    base = dataclasses.replace(BASE, texts=TOKENS // length, length=length)
    shape = SMOKE_SHAPE if asked.smoke else base
    encoder, dtype = bert_base(smoke=asked.smoke), computed_in()
    tokens = batch_of(shape)
    on_device = jax.device_put(tokens)
    cotangent = np.random.default_rng(1).normal(size=(shape.texts, shape.hidden)).astype(np.float32)
    once = model_gflop(encoder.params, shape)

    def ahead(run: Execution, params: Params, tokens: Tokens) -> jax.Array:
        return encode(params, encoder.config, tokens, normalise=True, dtype=dtype, run=run)

    def back(run: Execution, params: Params, tokens: Tokens, cotangent: jax.Array) -> Params:
        return jax.grad(lambda params: jnp.vdot(ahead(run, params, tokens), cotangent))(params)

    def ours(run: Execution, *, backward: bool) -> Work:
        function = functools.partial(back if backward else ahead, run)
        given = (encoder.params, on_device, *([jnp.asarray(cotangent)] if backward else []))
        compiled, facts = phases(function, *given)
        return _work(lambda: compiled(*given), {**facts, "gbytes": facts["gbytes_moved"]}, backward=backward)

    def theirs(*, backward: bool) -> Work:
        import torch

        from benchmarks.torch_reference import encoder as reference

        where = find()
        with torch.device(where.name):
            model = reference.bert(encoder.config, encoder.params).to(getattr(torch, np.dtype(dtype).name))
            if backward:
                start: Any = reference.forward_backward(model, tokens, cotangent)
            else:
                start = reference.forward(model, tokens)
        return _work(start, {}, backward=backward)._replace(wait=where.wait)

    def _work(start: Any, facts: dict[str, Any], *, backward: bool) -> Work:
        gflop = 3 * once if backward else once
        more = {"gflop": gflop, "compute": np.dtype(dtype).name, "tokens": int(tokens.ids.size)}
        return Work(start, shape.texts, "texts", {**facts, **more})

    for backward, name in ((False, "forward"), (True, "forward and backward")):
        programs: dict[str, Any] = {
            how: functools.partial(ours, run, backward=backward)
            for how, run in executions(jax.default_backend(), shape).items()
        }
        programs["PyTorch, sdpa"] = functools.partial(theirs, backward=backward)
        case = f"{name}, {shape.texts:,} texts of {shape.length} tokens"
        yield from measured(case, programs, asked, most=2.0)
