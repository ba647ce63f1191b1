"""Validation users who are asked about items that nobody rated in training: how choices about new items are made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.types import Interactions
from metarec_jax.data.protocols import Division, Scenario, divide
from metarec_jax.data.tasks import make_tasks
from metarec_jax.train import build

SHARE = 6
"""One item in so many is hidden."""
_DRAW = 13


def hide(division: Division, data: Interactions, config: Config, seed: int) -> Division:
    """`division` with some items that nobody rates, neither in training nor in validation, until validation users are
    asked about all that they rated of them. Test users are asked nothing."""
    hidden = np.zeros(len(data.items), bool)
    chosen = np.random.default_rng([seed, _DRAW]).permutation(len(data.items))[: len(data.items) // SHARE]
    hidden[chosen] = True
    train = division.train[~hidden[data.item[division.train]]]
    count = np.bincount(data.user[train], minlength=len(data.users))[division.train_users]
    known, asked = [], []
    for user, (support, query) in zip(division.validation.user.tolist(), division.validation.each()):
        rows = np.concatenate([support, query])
        support, query, new = (
            r[hidden[data.item[r]] == h] for r, h in ((support, False), (query, False), (rows, True))
        )
        if len(query):
            known.append((user, support, query))
        if len(new):
            asked.append((user, support, new))
    return division._replace(
        train=train,
        train_users=division.train_users[count > config.episodes.query],
        validation=make_tasks(*zip(*known)),
        scenarios=(Scenario("new items", "items that nobody rated, for validation users", make_tasks(*zip(*asked))),),
    )


@contextlib.contextmanager
def hiding() -> Iterator[None]:
    """Everything that is assembled meanwhile is divided so. No option does that, since nobody wants a model of it."""

    def divided(data: Interactions, config: Config, seed: int) -> Division:
        return hide(divide(data, config, seed), data, config, seed)

    with mock.patch.object(build, "divide", divided):
        yield
