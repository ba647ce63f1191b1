"""How the layers of an encoder are computed, which a rule chooses by platform. It changes results by rounding only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from metarec_jax.core.types import Params

Attention = Literal["xla", "packed", "fused"]


class Execution(NamedTuple):
    """How texts are encoded.

    Attributes:
        attention: "xla"; "packed", which puts short texts side by side for a matrix unit of 128 columns; or "fused",
            the accelerator's own kernel, which has no second derivative.
        remat: whether the backward pass computes each layer again, in place of keeping what it needs (on a CPU only
            with `scan`: otherwise the compiler merges the two computations).
        scan: whether layers are one loop over their stacked parameters. It is compiled once for all layers, and copies
            each layer's weights in every turn.
        tokens_per_call: most tokens that a device encodes at a time in training.
        whole: gathers the parameters of a layer, where they are split over devices.
    """

    attention: Attention = "xla"
    remat: bool = False
    scan: bool = False
    tokens_per_call: int = 1024
    whole: Callable[[Params], Params] = lambda params: params


EXECUTION = Execution()


_TOKENS_PER_CALL = {"cpu": 1024, "tpu": 2048, "gpu": 16384}
"""On a CPU, more than 1,024 tokens leave its caches (docs/joint-training.md). On a v5e the joint step of BERT-base is
estimated at 567 ms with 2,048 tokens, 625 with 4,096 and 748 with 16,384 (docs/accelerators.md)."""


def choose_execution(platform: str, *, fused: bool = False, split: bool = False) -> Execution:
    """Choose how texts are encoded on a platform.

    Packed attention is for a TPU, whose matrix units short texts do not fill: the joint step of BERT-base on a v5e is
    estimated at 855 ms with it and at 945 ms without (docs/accelerators.md). Elsewhere it multiplies zeros for nothing.
    Layers are written out, which is quicker and takes less memory than a loop (748 and 855 ms), except on devices that
    hold a part of the parameters each: these gather one layer at a time. On a TPU, and on such devices, the backward
    pass computes each layer again.

    Args:
        platform: of the devices: "cpu", "gpu" or "tpu".
        fused: use the accelerator's own attention kernel (see `attention.check_fused`).
        split: parameters are split over devices.

    Returns:
        The choice; tokens of a call are for training.
    """
    attention: Attention = "fused" if fused else "packed" if platform == "tpu" else "xla"
    return Execution(
        attention, remat=split or platform == "tpu", scan=split, tokens_per_call=_TOKENS_PER_CALL.get(platform, 16384)
    )
