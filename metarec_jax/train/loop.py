"""The training loop on the host: runs a program's steps, checks losses, evaluates, saves checkpoints and stops.

A resumed training takes exactly the same steps as an uninterrupted one: the checkpoint holds the state, the position in
the data and the sums of the losses since the last evaluation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from signal import Signals
from typing import Any

import jax

from metarec_jax.core import peers, processes
from metarec_jax.core.device_memory import return_freed_memory
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.forks import refuse_fork
from metarec_jax.core.global_arrays import host, local
from metarec_jax.core.progress import QUIET, Advance, Reporter
from metarec_jax.train import parameters, run_folder
from metarec_jax.train.checkpoints import Checkpoints, Progress
from metarec_jax.train.monitor import Monitor
from metarec_jax.train.program import Batch, Feed, Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The result of a training.

    Attributes:
        trainable: host arrays: the parameters of the best evaluation, or of the latest step before the first
            evaluation.
        progress: steps taken, and the step of the best evaluation.
        interrupted: whether training was stopped before its end.
        signal: the signal that stopped it, or that came after its last step; None for no signal.
        goodput: what its seconds were spent on (`metarec_jax.train.goodput.Goodput.summary`).
    """

    trainable: Any
    progress: Progress
    interrupted: bool
    signal: Signals | None = None
    goodput: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)


def train(run: Run, program: Program, *, reporter: Reporter = QUIET, monitor: Monitor | None = None) -> Fitted:
    """Run a program to its end, starting from the latest checkpoint of the run if there is one.

    Args:
        run: the run folder, which receives checkpoints, metrics and the best parameters.
        program: the training program.
        reporter: shows progress.
        monitor: observes the training, in whose context this is; None observes from now on.

    Returns:
        The parameters of the best evaluation, and the progress of the training.

    Raises:
        MetarecError: a loss or parameter is not finite (its state is not saved), or a checkpoint cannot be read.
    """
    refuse_fork()
    with (
        run_folder.hold(run.folder),
        Monitor() if monitor is None else contextlib.nullcontext(monitor) as monitor,
        Checkpoints(run.checkpoints) as checkpoints,
        contextlib.closing(program.feed()) as feed,
        StopRequest().listening() as stop,
        reporter.bar(program.title, program.steps) as advance,
        program.scope(),
        peers.telling(),
    ):
        state, progress = _start(run, program, checkpoints, feed, reporter, monitor)
        return_freed_memory()
        processes.barrier("the first step")
        while not progress.finished and not stop.reached():
            started = time.perf_counter()
            until = program.end_of_stretch(progress.step)
            state, progress, users = _steps(program, state, feed, progress, until, stop, advance, monitor)
            program.check(state, progress.step)
            if progress.step < until:
                monitor.goodput.enter("saving")
                if processes.is_first():
                    program.ledger.record(progress.step)
                checkpoints.save(state, progress)
                break
            monitor.goodput.enter("evaluating")
            figures = program.evaluate(state)
            progress, line = program.close(progress, figures, time.perf_counter() - started, users)
            spent = program.ledger.record(progress.step) if processes.is_first() else {}
            monitor.record({**line, **spent})
            monitor.goodput.enter("saving")
            if progress.best_step == progress.step:
                _save_trained(run, program, state)
            checkpoints.save(state, progress)
            return_freed_memory()
            monitor.goodput.write()
            reporter.note(program.describe(line, progress))
        monitor.goodput.enter("saving")
        checkpoints.wait()
        monitor.goodput.write()
        goodput = monitor.goodput.summary()
        trained = host(program.trained(state))
        processes.barrier("the last checkpoint")
    if progress.best_step != progress.step and (progress.best_step or program.first_counts):
        trained = parameters.load(trained, run.parameters)
    if progress.finished and processes.is_first():
        program.ledger.finish()
    return Fitted(trained, progress, interrupted=not progress.finished, signal=stop.signal, goodput=goodput)


def _start(
    run: Run, program: Program, checkpoints: Checkpoints, feed: Feed, reporter: Reporter, monitor: Monitor
) -> tuple[Any, Progress]:
    """The state to continue from: that of the latest checkpoint, or the initial one."""
    state, progress = program.first_state(), checkpoints.latest()
    if progress is None:
        monitor.start(run, 0, reporter)
        if processes.is_first():
            run.keep_metrics(-1)
            run.parameters.unlink(missing_ok=True)
        progress = Progress.at_start()
        if program.evaluates_first or program.first_counts:
            monitor.goodput.enter("evaluating")
            figures = program.evaluate(state)
            line = {"step": 0, **figures}
            monitor.record(line)
            reporter.note(program.describe(line, progress))
            if program.first_counts:
                _save_trained(run, program, state)
                progress = dataclasses.replace(progress, best_loss=figures["validation_loss"])
        return state, progress
    program.ledger.resume(progress)
    processes.barrier("the restored checkpoint")
    if progress.best_step and processes.from_first("best parameters", lambda: str(run.parameters.exists())) == "False":
        # A run of version 0.1 kept its best parameters as a checkpoint.
        try:
            best = checkpoints.load(state, progress.best_step)
        except MetarecError as error:
            raise MetarecError(
                f"{run.parameters} does not exist, which holds the best parameters, and no checkpoint has them: {error}"
            ) from error
        _save_trained(run, program, best)
    state = checkpoints.load(state, progress.step)
    feed.continue_at(progress.position)
    if processes.is_first():
        run.keep_metrics(progress.step)
    monitor.start(run, progress.step, reporter)
    return state, progress


def _save_trained(run: Run, program: Program, state: Any) -> None:
    """Write the trained parameters of a state to the run folder, as the best ones."""
    trained = host(program.trained(state))
    if processes.is_first():
        parameters.save(trained, run.parameters)


def _steps(
    program: Program,
    state: Any,
    feed: Feed,
    progress: Progress,
    until: int,
    stop: StopRequest,
    advance: Advance,
    monitor: Monitor,
) -> tuple[Any, Progress, int]:
    """Take the steps up to `until`; losses are fetched one step later, so that the device does not wait."""
    pending: tuple[Any, Batch] | None = None
    at, users = progress.step, 0

    def fetch(progress: Progress, pending: tuple[Any, Batch] | None) -> Progress:
        if pending is None:
            return progress
        losses, batch = pending
        progress = progress.plus(program.sums(local(losses), batch, progress))
        advance(progress.step, ", ".join(f"{name} {mean:.4f}" for name, mean in progress.means().items()))
        return progress

    # Without jit every operation transfers its constants, so that the guard would refuse all of them.
    with jax.transfer_guard("allow" if jax.config.values["jax_disable_jit"] else "disallow"):
        while at < until and not stop.reached():
            monitor.goodput.enter("data")
            batch = next(feed)
            if pending is not None and not jax.tree.leaves(pending[0])[0].is_ready():
                monitor.goodput.computed_meanwhile()
            monitor.goodput.enter("steps")
            state, losses = monitor.take(program.step, state, *batch.arguments)
            progress = fetch(progress, pending)
            at, users, pending = at + 1, users + len(batch.users), (losses, batch)
            monitor.goodput.took(at, len(batch.users))
        progress = fetch(progress, pending)
    return state, dataclasses.replace(progress, position=feed.position()), users
