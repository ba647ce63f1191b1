"""What both kinds of private meta-training share: sampling, secret key, mechanism, and the jitted step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh

from metarec_jax.config.run import Config, covers_all
from metarec_jax.privacy.dp_step import Mechanism, Summed, make_private_step
from metarec_jax.privacy.ledger import PrivacyLedger
from metarec_jax.privacy.sampling import PoissonSource
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.meta_training import step_weights
from metarec_jax.train.optimizer import make_optimiser
from metarec_jax.train.sharding import replicate


def private_options(experiment: Experiment, ledger: PrivacyLedger) -> dict[str, Any]:
    """What `metarec_jax.train.meta_training.meta_training` needs beside the step: batches, ledger, and whether the
    validation loss chooses an epoch."""
    # How a user's history is cut must stay secret too: the draws lie in a row, user after user, and one user less
    # would shift the others'.
    episodes = dataclasses.replace(experiment.train.source, seed=ledger.secret[0])
    source = PoissonSource(episodes, ledger.plan.rate, ledger.secret[1:])
    return {"source": source, "ledger": ledger, "chooses": not covers_all(experiment.config)}


def secret_key(mesh: Mesh, ledger: PrivacyLedger) -> Any:
    """The key of noise and dropout, on every device."""
    return replicate(mesh, functools.reduce(jax.random.fold_in, ledger.secret, jax.random.key(0)))


def mechanism_of(config: Config, ledger: PrivacyLedger) -> Mechanism:
    """How gradients are clipped, and what noise is added to their sum."""
    plan = ledger.plan
    return Mechanism(plan.clip, plan.noise, plan.rate * plan.users, config.episodes.query)


def private_step(config: Config, summed: Summed, mechanism: Mechanism, steps: int) -> Any:
    """The jitted outer step of a private run: (state, what is read, episodes) -> (state, losses).

    Args:
        config: config of the run.
        summed: users' clipped gradients.
        mechanism: how they were clipped, and what noise is added.
        steps: outer steps of the whole training, for the schedule.
    """
    optimizer = make_optimiser(config, steps)
    step = make_private_step(summed, optimizer, mechanism, step_weights=step_weights(config, steps))
    return jax.jit(step, donate_argnums=0)
