"""Meta-training with a frozen encoder: embeddings are computed once, and every step gathers from the same tables."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import Mesh

from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Prepared
from metarec_jax.meta.model import Model
from metarec_jax.meta.outer import make_step
from metarec_jax.train.episode_feed import micro_batch
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.meta_training import (
    Validation,
    fitting_users,
    meta_training,
    starting_state,
)
from metarec_jax.train.optimizer import make_optimiser, schedule
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import replicate, user_mesh


def build(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET) -> Program:
    """Build the program of a run that trains learner and updater alone.

    Args:
        run: the run folder.
        experiment: data and model.
        reporter: shows the size of micro-batches, if it is chosen automatically.

    Returns:
        The program.
    """
    config = experiment.config
    mesh = user_mesh(config.train.devices)
    tables = prepared_tables(run, experiment, mesh)

    def localise(episodes: Episodes) -> tuple[Prepared, Episodes]:
        return tables, episodes

    def make(users_per_device: int) -> Any:
        return frozen_step(config, experiment.model, len(experiment.train.source), mesh, users_per_device)

    state = functools.partial(starting_state, run, experiment, mesh)
    return meta_training(
        run,
        experiment,
        mesh,
        localise=localise,
        make_step=make,
        validate=Validation(experiment.model, mesh, experiment.choosing),
        users_per_device=fitting_users(experiment, mesh, localise, make, state, reporter),
    )


def prepared_tables(run: Run, experiment: Experiment, mesh: Mesh) -> Prepared:
    """Prepare the tables of training episodes on the devices, once, since preparation has no trained parameters.

    Args:
        run: the run folder.
        experiment: data and model.
        mesh: the devices.

    Returns:
        The tables, replicated.
    """
    theta = starting_state(run, experiment, mesh).trainable.theta
    return jax.jit(experiment.model.prepare)(theta, replicate(mesh, experiment.train.tables))


def frozen_step(config: Config, model: Model, steps: int, mesh: Mesh, users_per_device: int) -> Any:
    """Make the jitted outer step.

    Args:
        config: config of the run.
        model: the functions of the model.
        steps: outer steps of the whole training, for the schedule.
        mesh: the devices.
        users_per_device: number of users that a device computes in parallel.

    Returns:
        (state, tables, episodes) -> (state, losses).
    """
    return _frozen_step(dataclasses.replace(config, seed=0), model, steps, mesh, users_per_device)


@functools.lru_cache(maxsize=8)
def _frozen_step(config: Config, model: Model, steps: int, mesh: Mesh, users_per_device: int) -> Any:
    """Cached, so that all seeds share one compiled step."""
    step = make_step(
        model,
        make_optimiser(config, steps),
        at_once=micro_batch(config, mesh, users_per_device) * mesh.size,
        factor_rate=schedule(config.factors.rate, steps),
    )
    return jax.jit(step, donate_argnums=0)
