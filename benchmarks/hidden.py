"""Divisions whose validation queries are about items without ratings in training."""

from __future__ import annotations

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.data import load
from metarec_jax.data.protocols import Division, Scenario, divide
from metarec_jax.data.tasks import make_tasks
from metarec_jax.train.build import build, load_data, resolve
from metarec_jax.train.experiment import Experiment

SHARE = 6
"""One in this number of items is hidden."""
_DRAW = 13


def hide(division: Division, data: Interactions, config: Config, seed: int) -> Division:
    """Hide a share of the items from a division: no row of training or validation rates them.

    Args:
        division: division of the data.
        data: its interactions.
        config: config of the run, resolved.
        seed: seed of the draw of hidden items.

    Returns:
        The division with one scenario, whose queries are all hidden items that validation users rated. There are no
        queries of test users.
    """
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


def build_hiding(config: Config, *, reporter: Reporter = QUIET) -> Experiment:
    """Build an experiment with `hide`: its queries are validation users' ratings of hidden items.

    Args:
        config: config of the run.
        reporter: shows progress.
    """
    data = load(config.data, seed=config.seed)
    complete = load_data(config, data)
    resolved = resolve(config, complete)
    division = hide(divide(complete, resolved, config.seed), complete, resolved, config.seed)
    return build(config, data=data, division=division, reporter=reporter)
