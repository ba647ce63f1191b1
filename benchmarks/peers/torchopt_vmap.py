"""`torchopt` 0.7.3: its functional optimizer in a mapped inner loop, as in its MAML example with `vmap`.

Every array has a separate `torchopt.sgd`, whose learned rates are a schedule of the step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchopt  # pyrefly: ignore[missing-import]
from torch.func import grad, vmap

from benchmarks.rivals import MetaGradient, Task, pieces
from benchmarks.torch_reference.network import Learned, Rows, Tensors, loss

LEARNED_RATES = True
USERS_AT_ONCE = 16
"""The fastest of 4, 8, 16, 32, 64 and all users, on two cores."""


def query_loss(theta: Tensors, log_rate: Tensors, offset: torch.Tensor, rows: Rows) -> torch.Tensor:
    """The losses of some users after adaptation, summed."""
    rates = {name: values.exp() for name, values in log_rate.items()}
    optimizers = {name: torchopt.sgd(lr=lambda count, rate=rate: rate[count]) for name, rate in rates.items()}

    def one_user(
        support: torch.Tensor, support_labels: torch.Tensor, query: torch.Tensor, query_labels: torch.Tensor
    ) -> torch.Tensor:
        adapted = theta
        states = {name: optimizer.init(adapted[name]) for name, optimizer in optimizers.items()}
        for _ in range(len(rates["hidden.kernel"])):
            gradient = grad(loss)(adapted, offset, support, support_labels)
            moved = {}
            for name, optimizer in optimizers.items():
                update, states[name] = optimizer.update(gradient[name], states[name], inplace=False)
                moved[name] = torchopt.apply_updates(adapted[name], update, inplace=False)
            adapted = moved
        return loss(adapted, offset, query, query_labels)

    return vmap(one_user)(*rows.gather()).sum()


def prepare(task: Task) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`."""
    learned, offset, rows = Learned.of(task), torch.tensor(task.offset), Rows.of(task)

    def run() -> MetaGradient:
        learned.zero_grad()
        total = 0.0
        for users in pieces(task.users, USERS_AT_ONCE):
            mean = query_loss(*learned, offset, rows.some(users)) / task.users
            mean.backward()
            total += mean.item()
        return learned.gradient(total)

    return run
