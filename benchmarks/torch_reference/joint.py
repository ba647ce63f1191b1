"""A joint meta-training step in PyTorch: BertModel under `torch.func`'s inner loop, backward through both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.rivals import MetaGradient, Task, pieces
from benchmarks.torch_reference.encoder import by_length, embed, padded
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


def step(model: Any, task: Task, texts: Sequence[np.ndarray], batch: int = 0) -> Gradient:
    """Make the meta-gradient by learner, rates and encoder, which also returns the gradient of one encoder matrix.

    Args:
        model: transformers' BertModel.
        task: task whose ids are rows of `texts`.
        texts: token ids of each text, which is encoded once.
        batch: texts of a batch, which are sorted by length and padded to the longest of a batch; 0 pads all texts to
            the longest of all.
    """
    some = by_length(texts, batch) if batch else [np.arange(len(texts))]
    whole = [padded([texts[row] for row in rows]) for rows in some]
    parts = [part for pair in whole for part in zip(*(leaf.split(TEXTS_AT_ONCE) for leaf in pair))]
    back = torch.tensor(np.argsort(np.concatenate(some)))
    learned, offset, rows = Learned.of(task), torch.tensor(task.offset), Rows.of(task)

    def run() -> tuple[MetaGradient, torch.Tensor]:
        learned.zero_grad()
        model.zero_grad(set_to_none=True)
        embeddings = torch.cat([embed(model, ids, mask) for ids, mask in parts])[back]
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
