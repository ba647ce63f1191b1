"""Shapes, as data: what tests run small, benchmarks run whole."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class InnerLoopCase:
    """A meta-gradient: `users` tasks of `support` + `query` rows, features -> hidden -> classes, second order."""

    name: str
    users: int = 256
    support: int = 20
    query: int = 10
    features: int = 768
    hidden: int = 128
    classes: int = 5
    steps: int = 5


SMOKE = InnerLoopCase("smoke", users=4, support=3, query=2, features=16, hidden=8, steps=2)
STANDARD = InnerLoopCase("standard")
INNER_LOOP = (
    STANDARD,
    dataclasses.replace(STANDARD, name="standard support 5", support=5),
    dataclasses.replace(STANDARD, name="standard support 90", support=90),
    dataclasses.replace(STANDARD, name="standard steps 1", steps=1),
    dataclasses.replace(STANDARD, name="standard steps 10", steps=10),
)
