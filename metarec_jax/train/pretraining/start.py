"""Start, resume, run and finish a pretraining in a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from typing import Any

from metarec_jax import encoder as encoders
from metarec_jax.config.paths import absolute, with_paths
from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.core.atomic_files import new_folder
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.encoder import merge_lora
from metarec_jax.train import loop, run_folder
from metarec_jax.train.monitor import Monitor
from metarec_jax.train.pretraining.build import Pretraining, build
from metarec_jax.train.pretraining.held_out import mark
from metarec_jax.train.pretraining.program import judged, pretraining_program
from metarec_jax.train.pretraining.step import Weights
from metarec_jax.train.run_folder import Run

COMMAND = "pretrain"
"""The command of `metarec` that makes runs of this kind."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """The result of a pretraining.

    Attributes:
        weights: host arrays, of the latest evaluation.
        step: steps taken.
        before, after: metrics on held-out data before the first step and after the last one.
        signal: the signal that stopped it before its end; None if it was not stopped.
        goodput: as of `metarec_jax.train.loop.Fitted`.
    """

    weights: Weights
    step: int
    before: dict[str, float]
    after: dict[str, float]
    signal: Signals | None = None
    goodput: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def pretrain(config: PretrainConfig, folder: str | Path, *, reporter: Reporter = QUIET) -> Path:
    """Pretrain an encoder in a new run folder.

    Args:
        config: config of the pretraining.
        folder: folder of the run; it must not hold one yet.
        reporter: shows progress.

    Returns:
        The folder of the encoder.

    Raises:
        MetarecError: as for `start` and `fit`; or a signal stopped it.
    """
    run_folder.check_place(Path(folder), command=COMMAND)
    with run_folder.hold(Path(folder)), Monitor() as monitor:
        run, pretraining = start(config, Path(folder), reporter=reporter)
        return finish(run, pretraining, fit(run, pretraining, reporter=reporter, monitor=monitor))


def fit(
    run: Run, pretraining: Pretraining, *, reporter: Reporter = QUIET, monitor: Monitor | None = None
) -> Pretrained:
    """Pretrain, starting from the run's latest checkpoint if there is one.

    Args:
        run: the run folder.
        pretraining: from `metarec_jax.train.pretraining.build.build` with the run's config.
        reporter: shows progress.
        monitor: observes the training, in whose context this is; None observes from now on.

    Returns:
        The result.

    Raises:
        MetarecError: a loss is not finite (its state is not saved), or a checkpoint cannot be read.
    """
    fitted = loop.train(run, pretraining_program(pretraining), reporter=reporter, monitor=monitor)
    lines = list(run.read_metrics())
    if not lines:
        raise MetarecError(f"{run.metrics} has no line of metrics: restore it from a copy, or pretrain again")
    first, last = judged(lines[0]), judged(lines[-1])
    return Pretrained(fitted.trainable, fitted.progress.step, first, last, fitted.signal, fitted.goodput)


def start(config: PretrainConfig, folder: Path, *, reporter: Reporter = QUIET) -> tuple[Run, Pretraining]:
    """Make a new run folder for a pretraining.

    Args:
        config: config of the pretraining.
        folder: folder of the run; it must not hold one yet.
        reporter: shows progress.

    Returns:
        The run folder, and the parts of the pretraining.

    Raises:
        MetarecError: the folder holds a run or cannot be written, or the data or the encoder is not valid. Then nothing
            is left in the folder.
    """
    run_folder.check_place(folder, command=COMMAND)
    pretraining = build(absolute(config), reporter=reporter)
    run = run_folder.create(
        folder, pretraining.config, command=COMMAND, fill=lambda run: run.keep_inputs(pretraining.inputs())
    )
    return run, pretraining


def resume(
    folder: Path, *, paths: Mapping[str, str] | None = None, reporter: Reporter = QUIET
) -> tuple[Run, Pretraining]:
    """Open a run folder to pretrain on in it.

    Args:
        folder: of the run.
        paths: new places of what the run reads, by option, "data.path" say; the run keeps them.
        reporter: shows progress.

    Returns:
        The run folder, and the parts of the pretraining.

    Raises:
        MetarecError: it holds no such run, another process trains in it, or data or encoder are no longer those that
            the run began with.
    """
    run = run_folder.open_run(folder, command=COMMAND, base=PretrainConfig())
    with run_folder.hold(run.folder):
        before, run.config = run.config, absolute(with_paths(run.config, paths or {}))
        run_folder.check_paths(run, f"{COMMAND} --resume")
        pretraining = build(run.config, reporter=reporter)
        run.check_inputs(pretraining.inputs())
        if not run.inputs.exists():  # killed before it was written
            run.keep_inputs(pretraining.inputs())
        if paths and run.config != before:
            run_folder.write_config(run, COMMAND)
        return run, pretraining


def finish(run: Run, pretraining: Pretraining, pretrained: Pretrained) -> Path:
    """Write the encoder into the run folder, atomically, with a mark of its pretraining data.

    Args:
        run: the run folder.
        pretraining: the parts of the pretraining.
        pretrained: the result.

    Returns:
        Folder of the encoder, an ordinary checkpoint for `metarec train --encoder.path` and for transformers. An
        existing one is kept.
    """
    folder = run.folder / "encoder"
    if folder.exists():
        return folder
    before = pretraining.encoder
    head = before.head if pretrained.weights.head is None else pretrained.weights.head
    used = pretraining.config.encoder
    hints = before.hints.with_prompts(used.query_prompt, used.document_prompt)
    hints = hints._replace(pooling=used.pooling, pool_prompt=used.pool_prompt == "yes")
    params = merge_lora(pretrained.weights.encoder)
    with new_folder(folder) as part:
        encoders.save(dataclasses.replace(before, params=params, head=head, hints=hints), part)
        mark(part, pretraining.data, pretraining.seen, pretraining.config, before.source)
    return folder
