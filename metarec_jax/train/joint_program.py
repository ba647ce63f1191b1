"""Meta-training that also trains the encoder: each step encodes the distinct texts of its batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Params
from metarec_jax.meta.encoder_step import make_joint_step
from metarec_jax.meta.model import Model
from metarec_jax.train.episode_feed import micro_batch
from metarec_jax.train.experiment import Experiment, Part
from metarec_jax.train.meta_training import (
    Validation,
    fitting_users,
    meta_training,
    starting_state,
)
from metarec_jax.train.optimizer import by_rate, make_optimiser, relative_rates, schedule
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.text_batches import Devices, TextBatches


def build(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET) -> Program:
    """Build the program of a run that trains encoder, learner and updater.

    Args:
        run: the run folder.
        experiment: data and model.
        reporter: shows the size of micro-batches, if it is chosen automatically.

    Returns:
        The program.
    """
    config = experiment.config
    mesh = user_mesh(config.train.devices, config.train.shards)
    texts = texts_of_part(experiment, experiment.train, mesh)

    def make(users_per_device: int) -> Any:
        steps = len(experiment.train.source)
        return joint_step(config, experiment.model, texts.devices, steps, mesh, users_per_device)

    state = functools.partial(starting_state, run, experiment, mesh)
    return meta_training(
        run,
        experiment,
        mesh,
        localise=texts.localise,
        make_step=make,
        validate=joint_validation(experiment, mesh),
        users_per_device=fitting_users(experiment, mesh, texts.localise, make, state, reporter),
        whole_batches=True,  # the texts of a batch are divided over all devices
    )


def joint_validation(experiment: Experiment, mesh: Mesh) -> Validation:
    """Make the validation loss with the encoder in training.

    Args:
        experiment: data and model.
        mesh: the devices.

    Returns:
        Trainable -> loss.
    """
    texts = texts_of_part(experiment, experiment.choosing, mesh)
    return Validation(experiment.model, mesh, experiment.choosing, texts)


def texts_of_part(experiment: Experiment, part: Part, mesh: Mesh) -> TextBatches:
    """Put the texts of a part's episodes on the devices.

    Args:
        experiment: data and model.
        part: the episodes.
        mesh: the devices.

    Returns:
        The texts.
    """
    users = experiment.config.train.users_per_step
    return TextBatches(experiment.config, experiment.encoder, experiment.data.items.texts, part, mesh, users)


def joint_step(config: Config, model: Model, devices: Devices, steps: int, mesh: Mesh, users_per_device: int) -> Any:
    """Make the jitted outer step.

    Args:
        config: config of the run.
        model: the functions of the model.
        devices: how texts are encoded on the devices.
        steps: outer steps of the whole training, for the schedule.
        mesh: the devices.
        users_per_device: number of users that a device computes in parallel.

    Returns:
        (state, chosen texts, episodes) -> (state, losses).
    """
    step = make_joint_step(
        model,
        devices.reading,
        trained_part(config),
        make_optimiser(config, steps),
        at_once=micro_batch(config, mesh, users_per_device),
        exchange=devices.exchange,
        spread=devices.spread,
        factor_rate=schedule(config.factors.rate, steps),
    )
    return jax.jit(step, donate_argnums=0)


def trained_part(config: Config) -> Callable[[Params], tuple[Params, Params]]:
    """Make a function that splits parameters of the encoder into (trained ones, the others)."""
    return lambda params: by_rate(params, relative_rates(config.encoder, params, config.train.rate))
