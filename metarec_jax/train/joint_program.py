"""Meta-training that also trains the encoder: each step encodes the distinct texts of its batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Params
from metarec_jax.meta.encoder_step import make_joint_step
from metarec_jax.meta.model import Model
from metarec_jax.meta.outer import Losses, TrainState
from metarec_jax.meta.text_passes import Chosen, Kept, size_in_bytes
from metarec_jax.train.episode_feed import micro_batch
from metarec_jax.train.experiment import Experiment, Part
from metarec_jax.train.meta_training import (
    fitting_users,
    least_free_memory,
    meta_training,
    starting_state,
)
from metarec_jax.train.optimizer import by_rate, make_optimiser, relative_rates, schedule
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.text_batches import TextBatches
from metarec_jax.train.text_devices import Devices
from metarec_jax.train.validation import Validation


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
        return joint_step(config, experiment.model, texts.devices, steps, mesh, users_per_device, reporter=reporter)

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


class JointStep:
    """The jitted outer step: (state, chosen texts, episodes) -> (state, losses). It donates the memory of its state.

    Where the activations of all texts that a batch may have fit in memory (`Devices.fitting_memory`), they are kept
    between both passes over the texts, in memory that is allocated by the first step and passed to the next.

    Args:
        step: from `metarec_jax.meta.encoder_step.make_joint_step`.
        trained: splits parameters of the encoder into (trained ones, the others).
        devices: how texts are encoded on the devices.
        free: () -> free memory of each device, in bytes.
        reporter: told whether activations are kept.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        trained: Callable[[Params], tuple[Params, Params]],
        devices: Devices,
        free: Callable[[], int],
        reporter: Reporter = QUIET,
    ) -> None:
        self._step = jax.jit(step, donate_argnums=(0, 3))
        self._trained, self._devices, self._free, self._reporter = trained, devices, free, reporter
        self._memory: tuple[Kept | None] | None = None

    def __call__(self, state: TrainState, chosen: Chosen, episodes: Episodes) -> tuple[TrainState, Losses]:
        """Take a step."""
        if self._memory is None:
            shapes = self._shapes(state, chosen)
            if self._devices.keeps:
                self._reporter.note(_of_memory(shapes))
            places = jax.tree.map(lambda leaf: leaf.sharding, shapes)
            empty = jax.jit(
                lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), out_shardings=places
            )
            self._memory = (empty(),)
        state, losses, kept = self._step(state, chosen, episodes, *self._memory)
        self._memory = (kept,)
        return state, losses

    def trace(self, state: TrainState, chosen: Chosen, episodes: Episodes) -> Any:
        """Trace the step.

        Args:
            state, chosen, episodes: as for a step.

        Returns:
            What `jax.jit` returns.
        """
        return self._step.trace(state, chosen, episodes, self._shapes(state, chosen))

    def _shapes(self, state: TrainState, chosen: Chosen) -> Kept | None:
        """Shapes of the memory for activations; None if nothing is kept."""
        if self._memory is not None:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), self._memory[0]
            )
        return self._devices.fitting_memory(self._trained, state.trainable.encoder, chosen, self._free())


def _of_memory(kept: Kept | None) -> str:
    if kept is None:
        return (
            "each text is encoded again in the backward pass: what would be kept takes more than a fifth of the memory"
        )
    return f"keeping {size_in_bytes(kept) / 1e9:.1f} GB of activations between both passes over the texts of a step"


def joint_step(
    config: Config,
    model: Model,
    devices: Devices,
    steps: int,
    mesh: Mesh,
    users_per_device: int,
    *,
    free: Callable[[], int] = least_free_memory,
    reporter: Reporter = QUIET,
) -> Any:
    """Make the jitted outer step.

    Args:
        config: config of the run.
        model: the functions of the model.
        devices: how texts are encoded on the devices.
        steps: outer steps of the whole training, for the schedule.
        mesh: the devices.
        users_per_device: number of users that a device computes in parallel.
        free: () -> free memory of each device in bytes, of which activations may take a part.
        reporter: told whether activations are kept, at the first step.

    Returns:
        (state, chosen texts, episodes) -> (state, losses).
    """
    trained = trained_part(config)
    step = make_joint_step(
        model,
        devices.reading,
        trained,
        make_optimiser(config, steps),
        at_once=micro_batch(config, mesh, users_per_device),
        exchange=devices.exchange,
        spread=devices.spread,
        factor_rate=schedule(config.factors.rate, steps),
    )
    return JointStep(step, trained, devices, free, reporter)


def trained_part(config: Config) -> Callable[[Params], tuple[Params, Params]]:
    """Make a function that splits parameters of the encoder into (trained ones, the others)."""
    return lambda params: by_rate(params, relative_rates(config.encoder, params, config.train.rate))
