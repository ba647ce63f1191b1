"""The training loop on the host: feeds episodes, watches losses, saves, stops. The outer step computes all the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Iterator, Sequence
from signal import Signals
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from metarec_jax.config.run import covers_all
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import names_as_used, unusable_names
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Params, Tables
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.pipeline import training_iterator
from metarec_jax.meta.outer import Losses, TrainState, meta_loss
from metarec_jax.meta.user import Model, Trainable
from metarec_jax.privacy import accounting
from metarec_jax.privacy.sampling import PoissonSource
from metarec_jax.privacy.text_batches import PrivateLibrary
from metarec_jax.train import parameters, warm_start
from metarec_jax.train.build import Assembly, Part
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.checkpoints import Checkpoints, Progress
from metarec_jax.train.model import abstract_trainable, init_trainable
from metarec_jax.train.optimizer import make_optimiser
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import place, replicate, shard_users, user_mesh
from metarec_jax.train.step import (
    Program,
    frozen_program,
    joint_program,
    private_joint_program,
    private_program,
    users_at_once,
    whole,
)
from metarec_jax.train.text_batches import Library

UNSAVED = 1e30
"""Validation loss that a checkpoint in the middle of an epoch is filed under: it is never the best."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What training leads to: the parameters with the least validation loss, and how they were reached.

    Where training was asked to stop before its end, `interrupted` is true and `signal` says by what.
    """

    trainable: Trainable
    progress: Progress
    interrupted: bool
    signal: Signals | None = None


class StopRequest:
    """Remembers that SIGTERM or Ctrl-C arrived, so that the loop can save and end between two steps."""

    def __init__(self) -> None:
        self.signal: Signals | None = None

    def __call__(self, number: int, _frame: Any) -> None:
        """The signal handler."""
        if self.signal is not None:  # asked twice: the user does not want to wait
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listens while the context lasts."""
        before = {number: signal.signal(number, self) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def first_state(assembly: Assembly, steps: int) -> TrainState:
    """The state that training starts from: a pure function of the config's seed."""
    key, run_key = jax.random.split(jax.random.key(assembly.config.seed))
    users = assembly.training_user_table
    encoder = jax.tree.map(jnp.copy, assembly.encoder.params)  # the first step takes over its state's memory
    trainable = init_trainable(assembly.config, assembly.model, assembly.catalogue, users, key, encoder)
    optimiser = make_optimiser(assembly.config, steps)
    return TrainState(trainable, optimiser.init(trainable), jnp.zeros((), jnp.int32), run_key)


def load_trainable(run: Run, catalogue: Catalogue, encoder: Params = None) -> Trainable:
    """The parameters with the least validation loss that a run has saved so far, as host arrays.

    Args:
        run: the run folder, of a training that has ended or is still going on.
        catalogue: of that run.
        encoder: parameters of the encoder that it started from, for a run that trains it.

    Raises:
        MetarecError: no epoch has ended yet, or the checkpoint is damaged or does not fit the run's config.
    """
    config = run.config
    hidden = 0 if config.learner.user_side == "none" else catalogue.embeddings.shape[1]
    trainable = abstract_trainable(config, catalogue, hidden, encoder)
    optimiser = jax.eval_shape(make_optimiser(config, 1).init, trainable)
    here = SingleDeviceSharding(jax.local_devices()[0])
    arrays = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        (trainable, optimiser, jax.ShapeDtypeStruct((), jnp.int32)),
    )
    like = TrainState(*arrays, key=jax.random.key(0))
    progress = None
    if run.checkpoints.is_dir():
        with Checkpoints(run.checkpoints, tidy=False) as checkpoints:
            progress = checkpoints.latest()
            if progress is not None and progress.best_step:
                return jax.device_get(checkpoints.load(like, progress.best_step).trainable)
    raise MetarecError(
        f"{run.folder} holds no trained model yet: no epoch has ended; "
        f"train on with `metarec train --resume {run.folder}`"
    )


def validation_loss(model: Model, mesh: Mesh, part: Part, library: Library | None = None) -> Any:
    """A function of `Trainable` that gives the mean query loss of `part`; compiled once per bucket.

    With a `library`, its texts are encoded by the encoder that is being trained.
    """
    fixed = replicate(mesh, part.tables)
    prepare = jax.jit(model.prepare)
    batches = [shard_users(mesh, whole(part.source[i], mesh)) for i in range(len(part.source))]
    compiled = jax.jit(lambda trainable, tables, episodes: meta_loss(model, trainable, tables, episodes)[1])

    def loss(trainable: Trainable) -> float:
        raw: Tables = fixed if library is None else library.tables(trainable.encoder)
        trainable = trainable._replace(encoder=None)
        tables = prepare(trainable.theta, raw)
        return _ratio([compiled(trainable, tables, batch) for batch in batches])

    return loss


def fit(run: Run, assembly: Assembly, *, reporter: Reporter = QUIET) -> Fitted:
    """Trains, from the run's latest checkpoint where there is one, and saves as it goes.

    An interrupted and resumed training takes the very same steps as an uninterrupted one: the state, the position in
    the data and the sums of the epoch under way are all in the checkpoint.

    Args:
        run: the run folder.
        assembly: from `metarec_jax.train.build.assemble` with the run's config.
        reporter: where progress is shown.

    Raises:
        MetarecError: a loss that is not finite (nothing of it is saved), or a checkpoint that cannot be read.
    """
    config = assembly.config.train
    source = assembly.train.source
    mesh = user_mesh(config.devices, config.shards)
    state = first_state(assembly, len(source))
    if config.begin:
        state = state._replace(trainable=warm_start.begun(state.trainable, run))
    state = place(mesh, state)
    known = run.secret.exists()
    plan, seed = _privacy(run, assembly, reporter) if assembly.config.privacy.epsilon else (None, ())
    if plan is not None:
        # How a user's history is cut must be nobody's to know, either: the draws lie in a row, user after user, and
        # one user less would shift the others'.
        source = PoissonSource(dataclasses.replace(source, seed=seed[0]), plan.rate, seed[1:])
    if assembly.config.encoder.train == "no":
        raw = replicate(mesh, assembly.train.tables)
        # The encoder is frozen, and so is what its embeddings are prepared with: once is enough.
        tables = jax.jit(assembly.model.prepare)(state.trainable.theta, raw)
        if plan is not None:
            program = private_program(assembly, mesh, tables, plan, seed)
        else:
            program = frozen_program(assembly, mesh, tables)
        validate = validation_loss(assembly.model, mesh, assembly.validation)
    else:
        if plan is not None:
            texts = assembly.data.items.texts
            own = PrivateLibrary(assembly.config, assembly.encoder, texts, assembly.train, mesh)
            program = private_joint_program(assembly, mesh, own, plan, seed)
        else:
            program = joint_program(assembly, mesh, _library(assembly, assembly.train, mesh))
        validation = _library(assembly, assembly.validation, mesh)
        validate = validation_loss(assembly.model, mesh, assembly.validation, validation)
    users_per_device = users_at_once(assembly, mesh, state, program, reporter)
    step = program.make(users_per_device)

    with (
        Checkpoints(run.checkpoints) as checkpoints,
        contextlib.closing(_Batches(source, mesh, users_per_device, program)) as batches,
        StopRequest().listening() as stop,
        reporter.bar("meta-training", len(source)) as advance,
        jax.set_mesh(mesh),
    ):
        progress = checkpoints.latest()
        if progress is None:
            progress = Progress.at_start()
        else:
            if plan is not None and not known and not progress.finished:
                raise MetarecError(
                    f"{run.secret} is gone, which this private training draws its noise from: what is left of it "
                    "cannot be accounted for; train a new run"
                )
            state = checkpoints.load(state, progress.step)
            batches.continue_at(progress.iterator)
        run.keep_metrics(progress.epoch)
        run.parameters.unlink(missing_ok=True)  # from here on a better checkpoint can come
        while not progress.finished and stop.signal is None:
            started = time.perf_counter()
            state, progress, seen = _epoch(
                step, state, batches, progress, source.batches, stop, advance, assembly.data.users.ids
            )
            _refuse_not_finite(state, progress.step)
            if progress.step < (progress.epoch + 1) * source.batches:  # stopped on the way
                checkpoints.save(state, progress, UNSAVED)
                if plan is not None:
                    accounting.write(run, plan, progress.step)
                break
            loss = validate(state.trainable)
            chooses = not covers_all(assembly.config)
            progress, line = _close_epoch(progress, loss, config, chooses=chooses)
            if plan is not None:
                line["epsilon"] = accounting.write(run, plan, progress.step)["epsilon_spent"]
            line["users_per_second"] = round(seen / (time.perf_counter() - started), 1)
            run.append_metrics(line)
            if progress.best_epoch == progress.epoch or progress.epoch % config.save_every == 0 or progress.finished:
                checkpoints.save(state, progress, loss)
            best = f"best {progress.best_loss:.4f} at epoch {progress.best_epoch}"
            reporter.note(
                f"epoch {line['epoch']}: training loss {line['train_loss']:.4f}, validation {loss:.4f} ({best})"
            )
        checkpoints.wait()
        if progress.best_step:
            state = checkpoints.load(state, progress.best_step)
    trainable = jax.device_get(state.trainable)
    if plan is not None and progress.finished:
        accounting.forget(run)
    if progress.best_step and trainable.encoder is None:  # else the encoder is what takes time to read
        parameters.save(trainable, run.parameters)
    return Fitted(trainable, progress, interrupted=not progress.finished, signal=stop.signal)


def _privacy(run: Run, assembly: Assembly, reporter: Reporter) -> tuple[accounting.Plan, tuple[int, ...]]:
    """What a private training does, and the secret that it draws from."""
    source = assembly.train.source
    plan = accounting.make_plan(assembly.config, len(source.histories.users), len(source))
    reporter.note(
        f"private: epsilon {plan.epsilon:g} at delta {plan.delta:.2g} takes noise of {plan.noise:.3g} times "
        f"the clip {plan.clip:g} in each of {plan.steps} outer steps"
    )
    return plan, accounting.secret(run)


def _library(assembly: Assembly, part: Part, mesh: Mesh) -> Library:
    users = assembly.config.train.users_per_step
    return Library(assembly.config, assembly.encoder, assembly.data.items.texts, part, mesh, users)


class _Batches:
    """Batches on the devices, with the position that a checkpoint needs."""

    def __init__(self, source: EpisodeSource | PoissonSource, mesh: Mesh, users_per_device: int, program: Program):
        self._iterator = training_iterator(source)
        self._source, self._mesh, self._users_per_device = source, mesh, users_per_device
        self._feed = program.feed

    def __next__(self) -> Any:
        """(what the step reads, episodes, rows of the users)."""
        episodes = next(self._iterator)
        fed, local = self._feed(whole(episodes, self._mesh, self._users_per_device))
        on_devices = shard_users(self._mesh, local)
        return fed, on_devices, self._source.users_of(episodes)[episodes.weight > 0]

    def position(self) -> dict[str, Any]:
        return self._iterator.get_state()

    def continue_at(self, position: dict[str, Any]) -> None:
        self._iterator.set_state(position)

    def close(self) -> None:
        self._iterator.close()


def _epoch(
    step: Any,
    state: TrainState,
    batches: _Batches,
    progress: Progress,
    steps: int,
    stop: StopRequest,
    advance: Any,
    names: Sequence[str],
) -> tuple[TrainState, Progress, int]:
    """Takes the outer steps left of an epoch; losses are looked at one step late, so that the device never waits."""
    query, rows, seen = progress.epoch_query, progress.epoch_rows, 0
    leaves = names_as_used(state.trainable)
    pending: tuple[Losses, np.ndarray] | None = None

    def look(pending: tuple[Losses, np.ndarray] | None, at: int) -> None:
        nonlocal query, rows
        if pending is None:
            return
        got, users = jax.device_get(pending[0]), pending[1]
        if not math.isfinite(got.query):
            reason = _diverged(got.stopped, [names[row] for row in users])
            if spoiled := [] if got.usable is None else [leaf for leaf, ok in zip(leaves, got.usable) if not ok]:
                reason = f", since {_some(spoiled)} had become infinite or NaN"  # which is nobody's support's fault
            raise MetarecError(
                f"the training loss became {float(got.query)} at outer step {at} (epoch {progress.epoch + 1}){reason}: "
                "lower --train.rate or --updater.rate; the checkpoints hold the state before"
            )
        query, rows = query + float(got.query), rows + float(got.rows)
        advance(at, f"loss {query / max(rows, 1):.4f}")

    at = progress.step
    with jax.transfer_guard("disallow"):
        while at < (progress.epoch + 1) * steps and stop.signal is None:
            fed, episodes, users = next(batches)
            state, losses = step(state, fed, episodes)
            look(pending, at)
            at, seen, pending = at + 1, seen + len(users), (losses, users)
        look(pending, at)
    changed = dataclasses.replace(progress, step=at, iterator=batches.position(), epoch_query=query, epoch_rows=rows)
    return state, changed, seen


def _diverged(stopped: np.ndarray, names: list[str]) -> str:
    """Whose inner loop left the finite numbers first, and at which inner step, as the end of a sentence."""
    stopped = stopped[: len(names)]
    worst = int(np.argmin(stopped)) if len(stopped) else 0
    bad = int((stopped < stopped.max()).sum()) if len(stopped) else 0
    if not bad:
        return ""
    others = f", and {bad - 1} more of {len(names)} users" if bad > 1 else ""
    return f", since the inner loop of user {names[worst]!r} diverged at inner step {int(stopped[worst]) + 1}{others}"


def _refuse_not_finite(state: TrainState, step: int) -> None:
    """A loss is known before its step is taken: a gradient of NaN shows in the parameters first."""
    trainable, optimiser = jax.device_get((state.trainable, state.optimiser))
    names = unusable_names(trainable)
    if names or not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(optimiser)):
        raise MetarecError(
            f"{_some(names) or 'the state of the outer optimiser'} became infinite or NaN by outer step {step}: "
            "lower --train.rate or --updater.rate; the checkpoints hold the state before"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more parameters" if len(names) > 3 else "")


def _close_epoch(
    progress: Progress, loss: float, config: Any, *, chooses: bool = True
) -> tuple[Progress, dict[str, Any]]:
    """Books a finished epoch: its line for metrics.jsonl, the best so far, and whether training ends here.

    Where the validation loss must not choose (it says something of validation users), the last epoch is the best.
    """
    epoch = progress.epoch + 1
    if not math.isfinite(loss):
        raise MetarecError(
            f"the validation loss became {loss} in epoch {epoch}: lower --train.rate or --updater.rate; "
            "the checkpoints hold the state before"
        )
    line = {
        "epoch": epoch,
        "step": progress.step,
        "train_loss": progress.epoch_query / max(progress.epoch_rows, 1),
        "validation_loss": loss,
    }
    better = loss < progress.best_loss or not chooses
    best_epoch, best_step = (epoch, progress.step) if better else (progress.best_epoch, progress.best_step)
    patient = config.patience == 0 or epoch - best_epoch < config.patience
    return (
        dataclasses.replace(
            progress,
            epoch=epoch,
            epoch_query=0.0,
            epoch_rows=0.0,
            best_epoch=best_epoch,
            best_step=best_step,
            best_loss=loss if better else progress.best_loss,
            finished=epoch >= config.epochs or not patient,
        ),
        line,
    )


def _ratio(losses: list[Losses]) -> float:
    sums = jax.device_get(losses)
    return float(sum(s.query for s in sums) / max(sum(s.rows for s in sums), 1.0))
