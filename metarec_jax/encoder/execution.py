"""How the layers of an encoder are computed, which a rule chooses by platform. It changes results by rounding only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from metarec_jax.core.types import Params

Attention = Literal["xla", "packed", "fused"]


class Execution(NamedTuple):
    """How layers are computed.

    Attributes:
        attention: "xla"; "packed", which puts short texts side by side for a matrix unit of 128 columns; or "fused",
            the accelerator's own kernel, which has no second derivative.
        remat: whether the backward pass computes each layer again, in place of keeping what it needs (on a CPU only
            with `scan`: otherwise the compiler merges the two computations).
        scan: whether layers are one loop over their stacked parameters. It is compiled once for all layers, and copies
            each layer's weights in every turn.
        whole: gathers the parameters of a layer, where they are split over devices.
    """

    attention: Attention = "xla"
    remat: bool = False
    scan: bool = False
    whole: Callable[[Params], Params] = lambda params: params


EXECUTION = Execution()


def choose_execution(platform: str, *, fused: bool = False, remat: bool = False, split: bool = False) -> Execution:
    """Choose attention and loop for a platform.

    Packed attention is for a TPU, whose matrix units short texts do not fill: the joint step of BERT-base on a v5e is
    estimated at 855 ms with it and at 945 ms without (docs/accelerators.md). Elsewhere it multiplies zeros for nothing.
    Layers are written out, which is quicker and takes less memory than a loop (748 and 855 ms), except where the
    backward pass computes them again on a CPU, which needs the loop, or on devices that hold a part of the parameters
    each, which then gather one layer at a time.

    Args:
        platform: of the devices: "cpu", "gpu" or "tpu".
        fused: use the accelerator's own attention kernel (see `attention.check_fused`).
        remat: compute layers again in the backward pass.
        split: parameters are split over devices.
    """
    attention: Attention = "fused" if fused else "packed" if platform == "tpu" else "xla"
    return Execution(attention, remat, scan=remat and (split or platform == "cpu"))


def choose_tokens_per_call(platform: str) -> int:
    """Tokens that a device encodes at the same time in training.

    On a CPU, more than 1,024 leave its caches (docs/joint-training.md). On a v5e the joint step of BERT-base is
    estimated at 567 ms with 2,048 tokens, 625 with 4,096 and 748 with 16,384 (docs/accelerators.md).

    Args:
        platform: of the device: "cpu", "gpu" or "tpu".
    """
    return {"cpu": 1024, "tpu": 2048}.get(platform, 16384)
