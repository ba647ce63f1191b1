"""`higher` 0.2.1: `innerloop_ctx` for each user, as in its MAML example, and backward after each user.

Every array is a separate parameter group, whose rate at each step is passed to `step` as an override.
"""

from __future__ import annotations

from collections.abc import Callable

import higher  # pyrefly: ignore[missing-import]
import torch
import torch.nn.functional as F

from benchmarks.rivals import MetaGradient, Task
from benchmarks.torch_reference.network import Learned, Network, Rates, Rows

LEARNED_RATES = True


def prepare(task: Task) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`."""
    leaves, rows = Learned.of(task), Rows.of(task)
    network = Network(leaves.theta, torch.tensor(task.offset))
    learned = Learned(dict(network.named_parameters()), leaves.log_rate)
    optimizer = torch.optim.SGD([{"params": [array]} for array in learned.theta.values()], lr=1.0)

    def run() -> MetaGradient:
        learned.zero_grad()
        rates = Rates(learned.log_rate)
        total = 0.0
        for support, support_labels, query, query_labels in zip(*rows.gather()):
            with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (adapted, inner):
                for step in range(task.steps):
                    inner.step(F.cross_entropy(adapted(support), support_labels), override={"lr": list(rates.at[step])})
                mean = F.cross_entropy(adapted(query), query_labels) / task.users
                mean.backward()
                total += mean.item()
        rates.backward()
        return learned.gradient(total)

    return run
