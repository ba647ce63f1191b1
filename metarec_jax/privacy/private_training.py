"""Common parts of both kinds of private meta-training: sampling, secret key, mechanism, and the jitted step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh

from metarec_jax.config.run import Config
from metarec_jax.privacy.dp_step import Mechanism, Summed, make_private_step
from metarec_jax.privacy.ledger import PrivacyLedger
from metarec_jax.privacy.sampling import PoissonSource
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.optimizer import make_optimiser
from metarec_jax.train.sharding import replicate


def private_options(experiment: Experiment, ledger: PrivacyLedger) -> dict[str, Any]:
    """Make the arguments of `metarec_jax.train.meta_training.meta_training` that differ in a private run.

    Args:
        experiment: data and model.
        ledger: ledger of the run.

    Returns:
        Keyword arguments: batches, ledger, and whether the validation loss chooses an epoch.
    """
    # The draws of supports must be secret too: they form one sequence over users, so that removing a user shifts the
    # draws of the others.
    episodes = dataclasses.replace(experiment.train.source, seed=ledger.secret[0])
    source = PoissonSource(episodes, ledger.plan.rate, ledger.secret[1:])
    return {"source": source, "ledger": ledger, "chooses": not experiment.config.training.only_steps}


def secret_key(mesh: Mesh, ledger: PrivacyLedger) -> Any:
    """The secret key of noise and dropout, on every device.

    Args:
        mesh: the devices.
        ledger: ledger of the run.

    Returns:
        The replicated key.
    """
    return replicate(mesh, functools.reduce(jax.random.fold_in, ledger.secret, jax.random.key(0)))


def mechanism_of(config: Config, ledger: PrivacyLedger) -> Mechanism:
    """Clipping and noise of a run's gradients.

    Args:
        config: config of the run.
        ledger: ledger of the run.

    Returns:
        The mechanism.
    """
    plan = ledger.plan
    return Mechanism(plan.clip, plan.noise, plan.rate * plan.users, config.episodes.query)


def private_step(config: Config, summed: Summed, mechanism: Mechanism, steps: int) -> Any:
    """Make the jitted outer step of a private run.

    Args:
        config: config of the run.
        summed: sum of users' clipped gradients.
        mechanism: clipping and noise.
        steps: outer steps of the whole training, for the schedule.

    Returns:
        (state, inputs, episodes) -> (state, losses).
    """
    optimizer = make_optimiser(config, steps)
    step = make_private_step(summed, optimizer, mechanism)
    return jax.jit(step, donate_argnums=0)
