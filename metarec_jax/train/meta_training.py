"""Common parts of all kinds of meta-training: batches, the end of an epoch, and micro-batches."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from metarec_jax.core import processes
from metarec_jax.core.device_memory import SHARE, free_memory, users_that_fit
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.global_arrays import from_first, host
from metarec_jax.core.params import names_as_used, unusable_names
from metarec_jax.core.progress import Reporter
from metarec_jax.core.types import BatchRows
from metarec_jax.data.pipeline import EpisodeBatches
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import Losses, TrainState
from metarec_jax.train.checkpoints import Progress, Sums
from metarec_jax.train.episode_feed import EpisodeFeed, Localise, padded
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.program import Batch, Ledger, Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import own_users, place, round_up, shard_users
from metarec_jax.train.state import first_state, first_trainable
from metarec_jax.train.validation import Evaluation, Validation
from metarec_jax.train.warm_start import begun

MakeStep = Callable[[int], Any]
"""Number of users that a device computes in parallel -> the jitted step: (state, further inputs, episodes) -> (state,
losses). The step donates the memory of its state."""


def meta_training(
    run: Run,
    experiment: Experiment,
    mesh: Mesh,
    *,
    localise: Localise,
    make_step: MakeStep,
    validate: Validation,
    users_per_device: int,
    whole_batches: bool = False,
    source: EpisodeBatches | None = None,
    ledger: Ledger | None = None,
    chooses: bool = True,
) -> Program:
    """Make the program of a meta-training from its step and the step's inputs.

    Args:
        run: the run folder.
        experiment: data and model.
        mesh: the devices.
        localise: makes the further inputs of a step.
        make_step: makes the step.
        validate: the validation loss.
        users_per_device: number of users that a device computes in parallel.
        whole_batches: whether `localise` needs all users of a batch; otherwise a process makes the episodes of the
            users on its own devices alone.
        source: batches of episodes; None takes those of the experiment.
        ledger: records outside the training state.
        chooses: whether the validation loss chooses the best epoch; otherwise the last one is the best.

    Returns:
        The program.
    """
    config = experiment.config.train
    source = experiment.train.source if source is None else source
    first_state = functools.partial(starting_state, run, experiment, mesh)
    first_counts = chooses and experiment.choosing.source.candidates is not None
    evaluation = Evaluation(
        validate,
        functools.partial(_starting_parameters, run, experiment),
        mixing=experiment.config.factors.mixing if experiment.config.has_factors else 1.0,
        first_counts=first_counts,
    )
    return Program(
        title="meta-training",
        steps=len(source),
        stretch=source.batches,
        first_state=first_state,
        step=make_step(users_per_device),
        feed=functools.partial(EpisodeFeed, source, mesh, users_per_device, localise, whole_batches),
        sums=functools.partial(_sums, experiment, mesh),
        check=_refuse_not_finite,
        evaluate=evaluation,
        close=functools.partial(_close_epoch, config.epochs, config.patience, chooses),
        describe=_describe,
        trained=evaluation.kept,
        scope=functools.partial(jax.set_mesh, mesh),
        ledger=ledger or Ledger(),
        first_counts=first_counts,
    )


def starting_state(run: Run, experiment: Experiment, mesh: Mesh) -> TrainState:
    """Make the state before the first step, on the devices.

    Args:
        run: the run folder, with the parameters of an earlier run if the config names one (``train.begin``).
        experiment: data and model.
        mesh: the devices.

    Returns:
        The state.
    """
    state = first_state(experiment, len(experiment.train.source))
    if experiment.config.train.begin:
        state = state._replace(trainable=begun(state.trainable, run))
    return place(mesh, state)


def _starting_parameters(run: Run, experiment: Experiment) -> Trainable:
    """Make the parameters of `starting_state` alone: a whole second state may not fit beside that of the training."""
    parameters = first_trainable(experiment)
    return from_first(begun(parameters, run) if experiment.config.train.begin else parameters)


def fitting_users(
    experiment: Experiment,
    mesh: Mesh,
    localise: Localise,
    make_step: MakeStep,
    state: Callable[[], TrainState],
    reporter: Reporter,
) -> int:
    """Find the number of users that a device computes in parallel: that of the config, or as many as fit in memory.

    Args:
        experiment: data and model; the batch with the longest support must fit.
        mesh: the devices.
        localise, make_step: as for `meta_training`.
        state: () -> a state on the devices.
        reporter: shows the number, if it was chosen automatically.

    Returns:
        The number.

    Raises:
        MetarecError: one user does not fit.
    """
    config, source = experiment.config.train, experiment.train.source
    if config.users_per_device:
        return config.users_per_device
    longest = source[source.longest]
    at = state()

    def compile_with(users: int) -> Any:
        read, episodes = localise(padded(longest, mesh, users))
        if isinstance(read, BatchRows):
            read = shard_users(mesh, read)
        with jax.set_mesh(mesh):  # as in training
            return make_step(users).trace(at, read, shard_users(mesh, episodes)).lower().compile()

    budget = int(SHARE * least_free_memory())
    users = users_that_fit(compile_with, round_up(config.users_per_step, mesh) // mesh.size, budget)
    reporter.note(f"{users} users at a time on each device: as many as fit in {budget / 1e9:.1f} GB")
    return users


def least_free_memory() -> int:
    """Free memory of a device in bytes, of the process that has the least; all processes call it together."""
    return min(map(int, processes.everyone("free memory", str(free_memory(jax.local_devices()[0])))))


def _sums(experiment: Experiment, mesh: Mesh, losses: Losses, batch: Batch, progress: Progress) -> Sums:
    """Sum of the query loss of a step, and its number of rows; `losses` has the users of this process's devices.

    Raises:
        MetarecError: the loss is not finite; the message names the user whose inner loop diverged, or the parameter
            that is not finite.
    """
    if math.isfinite(losses.query):
        return {"loss": (float(losses.query), float(losses.rows))}
    names = experiment.data.users.ids
    stopped = np.asarray(losses.stopped)
    places = own_users(mesh, len(stopped) * processes.count())
    own = [names[batch.users[place]] for place in places if place < len(batch.users)]
    reason = _diverged(stopped, own, experiment.model.steps)
    if losses.usable is not None and not all(losses.usable):  # then the supports are not the cause
        leaves = names_as_used(jax.eval_shape(lambda: first_state(experiment, 1).trainable))
        reason = (
            f", since {_some([leaf for leaf, ok in zip(leaves, losses.usable) if not ok])} had become infinite or NaN"
        )
    raise MetarecError(
        f"the training loss became {float(losses.query)} at outer step {progress.step + 1} "
        f"(epoch {progress.epoch + 1}){reason}: lower --train.rate or --updater.rate; the checkpoints hold the state "
        "before"
    )


def _diverged(stopped: np.ndarray, names: list[str], steps: int) -> str:
    """Clause on the user whose inner loop was the first to have a loss that is not finite; "" if all are finite.

    >>> _diverged(np.array([6, 2, 3]), ["a", "b", "c"], 5)
    ", since the inner loop of user 'b' diverged at inner step 3, and 1 more of 3 users"
    >>> _diverged(np.array([5, 5]), ["a", "b"], 5)
    ", since the query loss of user 'a' is not finite after 5 inner steps, and 1 more of 2 users"
    """
    bad = np.flatnonzero(stopped[: len(names)] <= steps)
    if not len(bad):
        return ""
    worst = bad[np.argmin(stopped[bad])]
    others = f", and {len(bad) - 1} more of {len(names)} users" if len(bad) > 1 else ""
    if stopped[worst] == steps:
        return f", since the query loss of user {names[worst]!r} is not finite after {steps} inner steps{others}"
    return f", since the inner loop of user {names[worst]!r} diverged at inner step {int(stopped[worst]) + 1}{others}"


def _refuse_not_finite(state: TrainState, step: int) -> None:
    """Check that parameters and optimizer state are finite, since the losses of a step precede its update.

    Raises:
        MetarecError: one of them is not finite.
    """
    trainable, optimizer = host((state.trainable, state.optimiser))
    names = unusable_names(trainable)
    if names or not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(optimizer)):
        raise MetarecError(
            f"{_some(names) or 'the state of the outer optimiser'} became infinite or NaN by outer step {step}: "
            "lower --train.rate or --updater.rate; the checkpoints hold the state before"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more parameters" if len(names) > 3 else "")


def _close_epoch(
    epochs: int,
    patience: int,
    chooses: bool,
    progress: Progress,
    figures: Mapping[str, float],
    seconds: float,
    users: int,
) -> tuple[Progress, dict[str, Any]]:
    """Compute the progress after an epoch, and its line of metrics.

    Training ends after `epochs` epochs, or after `patience` epochs without a lower validation loss. Where the
    validation loss must not choose the best epoch, since only outer steps may use the data, the last epoch
    is the best. An epoch is better than the parameters before training by more than the doubt about the difference.
    """
    epoch, loss = progress.epoch + 1, figures["validation_loss"]
    if not math.isfinite(loss):
        raise MetarecError(
            f"the validation loss became {loss} in epoch {epoch}: lower --train.rate or --updater.rate; "
            "the checkpoints hold the state before"
        )
    line = {
        "epoch": epoch,
        "step": progress.step,
        "train_loss": progress.means().get("loss", 0.0),
        "validation_loss": loss,
        "users_per_second": round(users / seconds, 1),
    }
    doubt = figures.get("validation_doubt", 0.0)
    line |= {"validation_doubt": doubt} if "validation_doubt" in figures else {}
    better = loss < progress.best_loss - (0.0 if progress.best_step else doubt) or not chooses
    best_epoch = epoch if better else progress.best_epoch
    closed = dataclasses.replace(
        progress,
        epoch=epoch,
        sums={},
        best_epoch=best_epoch,
        best_step=progress.step if better else progress.best_step,
        best_loss=loss if better else progress.best_loss,
        finished=epoch >= epochs or 0 < patience <= epoch - best_epoch,
    )
    return closed, line


def _describe(line: Mapping[str, Any], progress: Progress) -> str:
    if "epoch" not in line:
        return f"before training: validation {line['validation_loss']:.4f}"
    return (
        f"epoch {line['epoch']}: training loss {line['train_loss']:.4f}, validation {line['validation_loss']:.4f} "
        f"(best {progress.best_loss:.4f} at epoch {progress.best_epoch})"
    )
