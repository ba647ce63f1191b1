"""Meta-training with a frozen encoder: embeddings are computed once.

Every step gathers from the same tables, which are on each device. Where they are too large for that, they stay in the
host's memory or in their file, and each process reads the rows of its own users for every step.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, cast

import jax
from jax.sharding import Mesh, PartitionSpec

from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import BatchRows, Episodes, Prepared
from metarec_jax.meta.batch import gathered, prepare_rows
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.meta.outer import Losses, TrainState, make_step
from metarec_jax.train.episode_feed import micro_batch
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.meta_training import (
    fitting_users,
    meta_training,
    starting_state,
)
from metarec_jax.train.optimizer import make_optimiser, schedule
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import by_role, by_user, per_device, replicate, sums, user_mesh
from metarec_jax.train.validation import Validation

MOST_BYTES = 2 << 30
"""Bytes of embeddings, in float32, above which each batch brings its own rows."""


def build(run: Run, experiment: Experiment, *, by_batch: bool | None = None, reporter: Reporter = QUIET) -> Program:
    """Build the program of a run that trains learner and updater alone.

    Args:
        run: the run folder.
        experiment: data and model.
        by_batch: whether each batch brings the embeddings of its rows; otherwise they are tables on each device. None
            decides by their size.
        reporter: shows the size of micro-batches, if it is chosen automatically.

    Returns:
        The program.
    """
    config, embeddings = experiment.config, experiment.train.tables
    mesh = user_mesh(config.train.devices)
    if by_batch is None:
        by_batch = 4 * math.prod(embeddings.items.shape) > MOST_BYTES
    tables = None if by_batch else prepared_tables(run, experiment, mesh)

    def localise(episodes: Episodes) -> tuple[Prepared | BatchRows, Episodes]:
        return gathered(embeddings, episodes) if tables is None else tables, episodes

    def make(users_per_device: int) -> Any:
        return frozen_step(config, experiment.model, len(experiment.train.source), mesh, users_per_device)

    state = functools.partial(starting_state, run, experiment, mesh)
    return meta_training(
        run,
        experiment,
        mesh,
        localise=localise,
        make_step=make,
        validate=Validation(experiment.model, mesh, experiment.choosing, by_batch=by_batch),
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
        (state, prepared tables or rows of the batch, episodes) -> (state, losses).
    """
    return _frozen_step(dataclasses.replace(config, seed=0), model, steps, mesh, users_per_device)


@functools.lru_cache(maxsize=8)
def _frozen_step(config: Config, model: Model, steps: int, mesh: Mesh, users_per_device: int) -> Any:
    """Cached, so that all seeds share one compiled step."""
    outer_step = make_step(
        model,
        make_optimiser(config, steps),
        at_once=micro_batch(config, mesh, users_per_device),
        exchange=sums(mesh),
        spread=functools.partial(on_all_devices, mesh),
        factor_rate=schedule(config.factors.rate, steps),
    )

    def step(state: TrainState, tables: Prepared | BatchRows, episodes: Episodes) -> tuple[TrainState, Losses]:
        return outer_step(state, prepare_rows(model, state.trainable.theta, tables), episodes)

    return jax.jit(step, donate_argnums=0)


def on_all_devices(mesh: Mesh, gradient: Callable[..., Any]) -> Callable[..., Any]:
    """Make the gradient of one device that of all, each with its part of the users.

    Args:
        mesh: the devices.
        gradient: as for `metarec_jax.meta.outer.make_step`.

    Returns:
        A function of whole arrays.
    """
    if mesh.size == 1:
        return gradient
    users = by_user(mesh)

    def everywhere(trainable: Trainable, tables: Prepared | BatchRows, *rest: Any) -> Any:
        roles = by_role(mesh, trainable)
        read = users if isinstance(tables, BatchRows) else PartitionSpec()
        arguments = (roles, read, users, PartitionSpec())
        results = (roles, cast("Any", Losses)(PartitionSpec(), PartitionSpec(), users))
        return per_device(mesh, gradient, arguments, results)(trainable, tables, *rest)

    return everywhere
