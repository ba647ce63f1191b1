"""A joint meta-training step in PyTorch: BertModel under `torch.func`'s inner loop, backward through both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.rivals import MetaGradient, Task, pieces
from benchmarks.torch_reference.encoder import embed
from benchmarks.torch_reference.network import Learned, Rows
from benchmarks.torch_reference.vmapped import USERS_AT_ONCE, query_loss

TEXTS_AT_ONCE = 128
"""Number of texts that the model encodes at a time."""


class Gradient(NamedTuple):
    """Computes the gradient into the model's parameters and `leaves`."""

    run: Callable[[], tuple[MetaGradient, torch.Tensor]]
    leaves: tuple[torch.Tensor, ...]

    def __call__(self) -> tuple[MetaGradient, torch.Tensor]:
        return self.run()


def compiled(model: Any) -> Any:
    """The model under `torch.compile`, which shares its parameters; it compiles at the first run."""
    torch.compiler.reset()
    return torch.compile(model, dynamic=False)


def with_adam(model: Any, gradient: Gradient, rate: float) -> Callable[[], float]:
    """Make a step of Adam on the model and the leaves, which returns the loss before it."""
    optimiser = torch.optim.Adam([*model.parameters(), *gradient.leaves], lr=rate)

    def run() -> float:
        found, _ = gradient()
        optimiser.step()
        return found.loss

    return run


def step(model: Any, task: Task, texts: Sequence[np.ndarray]) -> Gradient:
    """Make the meta-gradient by learner, rates and encoder, which also returns the gradient of one encoder matrix.

    Args:
        model: transformers' BertModel.
        task: task whose ids are rows of `texts`.
        texts: token ids of each text, which is encoded once; all are padded to the longest.
    """
    length = max(map(len, texts))
    ids = torch.zeros((len(texts), length), dtype=torch.long)
    mask = torch.zeros((len(texts), length), dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = True
    learned, offset, rows = Learned.of(task), torch.tensor(task.offset), Rows.of(task)

    def run() -> tuple[MetaGradient, torch.Tensor]:
        learned.zero_grad()
        model.zero_grad(set_to_none=True)
        parts = [
            embed(model, ids[start : start + TEXTS_AT_ONCE], mask[start : start + TEXTS_AT_ONCE])
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        embeddings = torch.cat(parts)
        # The users' micro-batches use a leaf, whose gradient is passed to the encoder once.
        leaf = embeddings.detach().requires_grad_()
        at_leaf, total = rows._replace(table=leaf), 0.0
        for users in pieces(task.users, USERS_AT_ONCE):
            mean = query_loss(*learned, offset, at_leaf.some(users)) / task.users
            mean.backward()
            total += mean.item()
        assert leaf.grad is not None
        embeddings.backward(leaf.grad)
        return learned.gradient(total), model.encoder.layer[0].attention.self.query.weight.grad

    return Gradient(run, tuple(learned.leaves()))
