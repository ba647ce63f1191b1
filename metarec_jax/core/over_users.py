"""Map a function of one user over users: the only ``vmap`` over users in the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

Result = TypeVar("Result")
Task = TypeVar("Task")


def over_users(function: Callable[[Task], Result], tasks: Task, *, at_once: int = 0) -> Result:
    """Map a function of one user's task (an episode, or any tree) over the users of a batch.

    Args:
        function: function of one user's task.
        tasks: tasks with a leading axis of users.
        at_once: number of users computed in parallel; it must divide their number. 0 takes all. With 1, a user is
            computed without an axis of users, so that a loop whose length differs between users does no extra work.

    Returns:
        Results with a leading axis of users.
    """
    users = jax.tree.leaves(tasks)[0].shape[0]
    if at_once == 1:
        if users > 1:
            return jax.lax.map(function, tasks)
        return jax.tree.map(lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], tasks)))
    if at_once in (0, users):
        return jax.vmap(function)(tasks)
    parts = jax.tree.map(lambda leaf: leaf.reshape(users // at_once, at_once, *leaf.shape[1:]), tasks)
    results = jax.lax.map(lambda part: over_users(function, part), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(users, *leaf.shape[2:]), results)
