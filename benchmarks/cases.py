"""Shapes, as data: what tests run small, benchmarks run whole."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class InnerLoopCase:
    """A meta-gradient: `users` tasks of `support` + `query` rows, features -> hidden -> classes, second order.

    Attributes:
        name: of the case.
        users, support, query, features, hidden, classes, steps: the shape.
        at_once, dense_at_once: users of a micro-batch, of our contenders: the quickest of 4, 8, 16, 32, 64, 128 and all
            on two cores. A few at a time stay in a processor's cache.
        real: whether the rows are ratings of MovieLens-100K, where users share items; else every row is an item of its
            own, and nothing is shared.
    """

    name: str
    users: int = 256
    support: int = 20
    query: int = 10
    features: int = 768
    hidden: int = 128
    classes: int = 5
    steps: int = 5
    at_once: int = 32
    dense_at_once: int = 8
    real: bool = False


SMOKE = InnerLoopCase("smoke", users=4, support=3, query=2, features=16, hidden=8, steps=2, at_once=2, dense_at_once=2)
STANDARD = InnerLoopCase("standard")
SHARED = InnerLoopCase("shared items", real=True)
VARIANTS = (
    dataclasses.replace(STANDARD, name="standard support 5", support=5),
    dataclasses.replace(STANDARD, name="standard support 90", support=90),
    dataclasses.replace(STANDARD, name="standard steps 1", steps=1),
    dataclasses.replace(STANDARD, name="standard steps 10", steps=10),
)
USERS = tuple(
    dataclasses.replace(STANDARD, name=f"standard users {users}", users=users) for users in (32, 128, 512, 1024, 4096)
)
"""The standard case with fewer and more users, from which the cost of a user is read."""
