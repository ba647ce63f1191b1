"""`torch.func`: one user's inner loop as a function of tensors, mapped over users, then backward through it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.func import grad, vmap

from benchmarks.rivals import MetaGradient, Task, pieces
from benchmarks.torch_reference.network import Learned, Rows, Tensors, loss

LEARNED_RATES = True
USERS_AT_ONCE = 16
"""The fastest of 4, 8, 16, 32, 64 and all users, at 5 to 90 support rows and 1 to 10 steps, on two cores."""


def query_loss(theta: Tensors, log_rate: Tensors, offset: torch.Tensor, rows: Rows) -> torch.Tensor:
    """The losses of some users after adaptation, summed."""
    rates = {name: values.exp().unbind() for name, values in log_rate.items()}

    def one_user(
        support: torch.Tensor, support_labels: torch.Tensor, query: torch.Tensor, query_labels: torch.Tensor
    ) -> torch.Tensor:
        adapted = theta
        for step in range(len(rates["hidden.kernel"])):
            gradient = grad(loss)(adapted, offset, support, support_labels)
            adapted = {name: array - rates[name][step] * gradient[name] for name, array in adapted.items()}
        return loss(adapted, offset, query, query_labels)

    return vmap(one_user)(*rows.gather()).sum()


def prepare(
    task: Task, users_at_once: int = USERS_AT_ONCE, learned: Learned | None = None
) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`; with `learned`, it starts from those leaves and accumulates gradients there."""
    learned, offset, rows = learned or Learned.of(task), torch.tensor(task.offset), Rows.of(task)

    def run() -> MetaGradient:
        learned.zero_grad()
        total = 0.0
        for users in pieces(task.users, users_at_once):
            mean = query_loss(*learned, offset, rows.some(users)) / task.users
            mean.backward()
            total += mean.item()
        return learned.gradient(total)

    return run
