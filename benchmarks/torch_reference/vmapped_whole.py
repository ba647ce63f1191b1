"""`torch.func, all users at once`: as `vmapped`, without micro-batches, which is how it is usually written."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.rivals import MetaGradient, Task
from benchmarks.torch_reference import vmapped
from benchmarks.torch_reference.network import Learned

LEARNED_RATES = True


def prepare(task: Task, learned: Learned | None = None) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`."""
    return vmapped.prepare(task, users_at_once=task.users, learned=learned)
