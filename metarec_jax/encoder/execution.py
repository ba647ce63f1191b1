"""Options of computing an encoder's layers, chosen by platform. They change results only by rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from metarec_jax.core.types import Params
from metarec_jax.encoder.attention import TILE
from metarec_jax.encoder.row_packing import CALLS

Attention = Literal["xla", "tiled", "fused", "apart", "tiled apart", "fused apart"]
APART: dict[Attention, Attention] = {"xla": "apart", "tiled": "tiled apart", "fused": "fused apart"}
"""Attention of rows with one text -> of rows with several, which are kept apart."""


class Execution(NamedTuple):
    """Options of computing an encoder's layers.

    Attributes:
        attention: "xla" uses XLA operations; "tiled" puts several short texts side by side in each row of a matrix unit
            of 128 columns; "fused" uses the accelerator's fused kernel, which has no second derivative. Rows that hold
            several texts (`Tokens.lengths`) are computed with the counterpart that keeps them apart (`APART`); of the
            kernels, a TPU's can.
        remat: whether the backward pass recomputes each layer instead of storing its activations. On a CPU this has an
            effect only with `scan`; otherwise the compiler merges the two computations.
        scan: whether layers are one loop over stacked parameters. The loop is compiled once for all layers, but copies
            each layer's weights in every iteration.
        tokens_per_call: greatest number of tokens that a device encodes at a time in training.
        shortest_row: least number of tokens of a row of several texts in training.
        calls: least number of calls of a training step, for which calls are made smaller: in the mean half of the last
            one is padding.
        whole: function that gathers the parameters of a layer, for parameters that are sharded over devices.
    """

    attention: Attention = "xla"
    remat: bool = False
    scan: bool = False
    tokens_per_call: int = 1024
    shortest_row: int = 32
    calls: int = CALLS
    whole: Callable[[Params], Params] = lambda params: params


EXECUTION = Execution()


_TOKENS_PER_CALL = {"cpu": 512, "tpu": 8192, "gpu": 16384}
"""Platform -> tokens of a call. On a CPU, activations of more than 1,024 tokens do not fit in the caches
(docs/joint-training.md). On a v5e the joint step of BERT-base with packed texts is estimated at 693 ms with 2,048
tokens and at 630 with 8,192 (docs/accelerators.md)."""


def choose_execution(platform: str, *, fused: bool = False, split: bool = False) -> Execution:
    """Choose how texts are encoded on a platform.

    Tiled attention is used on a TPU, whose matrix units short texts do not fill: the joint step of BERT-base on a v5e
    is estimated at 855 ms with it and at 945 ms without (docs/accelerators.md). On other platforms it would only
    multiply zeros. Layers are unrolled, which is faster and takes less memory than a loop (748 and 855 ms), except
    where parameters are sharded: then a loop gathers one layer at a time. On a TPU, and with sharded parameters, the
    backward pass recomputes each layer. Since each call gathers sharded parameters, their calls are few and large.

    Args:
        platform: platform of the devices: "cpu", "gpu" or "tpu".
        fused: whether to use the accelerator's fused attention kernel (see `attention.check_fused`).
        split: whether parameters are sharded over devices.

    Returns:
        The options; `tokens_per_call` is for training.
    """
    attention: Attention = "fused" if fused else "tiled" if platform == "tpu" else "xla"
    return Execution(
        attention,
        remat=split or platform == "tpu",
        scan=split,
        tokens_per_call=_TOKENS_PER_CALL.get("gpu" if split and platform != "cpu" else platform, 16384),
        shortest_row=32 if platform == "cpu" else TILE,
        calls=1 if split else CALLS,
    )
