"""`torch-loop`: a loop over users with `torch.autograd.grad(create_graph=True)`, and backward after each user."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.rivals import MetaGradient, Task
from benchmarks.torch_reference.network import Learned, Rates, Rows, loss

LEARNED_RATES = True


def prepare(task: Task, learned: Learned | None = None) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`; with `learned`, it starts from those leaves and accumulates gradients there."""
    learned, offset, rows = learned or Learned.of(task), torch.tensor(task.offset), Rows.of(task)
    names, start = list(learned.theta), list(learned.theta.values())

    def run() -> MetaGradient:
        learned.zero_grad()
        rates = Rates(learned.log_rate)
        total = 0.0
        for support, support_labels, query, query_labels in zip(*rows.gather()):
            adapted = start
            for step in range(task.steps):
                inner = loss(dict(zip(names, adapted)), offset, support, support_labels)
                gradient = torch.autograd.grad(inner, adapted, create_graph=True)
                adapted = [array - rate * g for array, rate, g in zip(adapted, rates.at[step], gradient)]
            mean = loss(dict(zip(names, adapted)), offset, query, query_labels) / task.users
            mean.backward()
            total += mean.item()
        rates.backward()
        return learned.gradient(total)

    return run
