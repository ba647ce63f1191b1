"""`torch.func compiled`: the gradient of some users' losses, also by `torch.func`, as one compiled program."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.func import grad_and_value

from benchmarks.rivals import MetaGradient, Task, Unavailable, pieces
from benchmarks.torch_reference.network import Learned, Rows, layers
from benchmarks.torch_reference.vmapped import query_loss

LEARNED_RATES = True
USERS_AT_ONCE = 8
"""The fastest of 4, 8, 16, 32 and all users, on two cores; "max-autotune-no-cudagraphs" took twice as long."""


def prepare(task: Task, learned: Learned | None = None) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`. Programs that were prepared before are compiled again when they are next run."""
    # Detached views: `torch.func` computes the gradient, and updates of an optimiser are visible in them.
    theta, log_rate = ({n: t.detach() for n, t in leaves.items()} for leaves in learned or Learned.of(task))
    offset, rows = torch.tensor(task.offset), Rows.of(task)

    def run_with(program: Callable) -> MetaGradient:
        sums: list[torch.Tensor] = []
        for users in pieces(task.users, USERS_AT_ONCE):
            gradients, loss = program(theta, log_rate, offset, rows.some(users))
            terms = [loss, *(term for tree in gradients for term in tree.values())]
            sums = [total.add_(term) for total, term in zip(sums, terms)] if sums else terms
        loss, *gradients = (total / task.users for total in sums)
        by_theta, by_log_rate = gradients[: len(theta)], gradients[len(theta) :]
        return MetaGradient(loss.item(), layers(dict(zip(theta, by_theta))), layers(dict(zip(log_rate, by_log_rate))))

    function = grad_and_value(query_loss, argnums=(0, 1))
    run_with(function)  # so that a failure below is due to compilation
    torch.compiler.reset()  # resets the limit on compiled versions of this code
    program = torch.compile(function, fullgraph=True, dynamic=False)
    try:
        run_with(program)
    except RuntimeError as error:
        raise Unavailable(f"torch.compile: {error}") from error
    return lambda: run_with(program)
