"""One outer step in PyTorch: the meta-gradient by a loop, by `torch.func` or compiled, then clipping and AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.rivals import Layers, MetaGradient, Task
from benchmarks.torch_reference.network import Learned, layers, tensors

Prepare = Callable[..., Callable[[], MetaGradient]]


class Step(NamedTuple):
    """`run` takes a step and returns the loss before it; `learned` returns the current parameters."""

    run: Callable[[], float]
    learned: Callable[[], tuple[Layers, Layers]]


def step(prepare: Prepare, task: Task, *, rate: float, decay: float, clip: float) -> Step:
    """Make the outer step of a level (see `benchmarks.rivals`).

    Args:
        prepare: `prepare` of `loop`, `vmapped`, `vmapped_whole` or `compiled`.
        task: the batch, the same in every step.
        rate, decay, clip: rate and weight decay of AdamW, and the greatest norm of the gradient.
    """
    learned = Learned.of(task)
    run = prepare(task, learned=learned)
    leaves = list(learned.leaves())
    optimiser = torch.optim.AdamW(leaves, lr=rate, weight_decay=decay)

    def take() -> float:
        found = run()
        if any(leaf.grad is None for leaf in leaves):
            _hand_over(learned, found)
        torch.nn.utils.clip_grad_norm_(leaves, clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return found.loss

    return Step(take, lambda: (layers(learned.theta), layers(learned.log_rate)))


def _hand_over(learned: Learned, found: MetaGradient) -> None:
    """Store a gradient in the leaves, where the optimiser reads it."""
    assert found.log_rate is not None
    for leaves, gradient in ((learned.theta, found.theta), (learned.log_rate, found.log_rate)):
        for name, tensor in tensors(gradient).items():
            leaves[name].grad = tensor
