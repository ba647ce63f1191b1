"""Start, resume and run a training in a run folder.

A run folder appears only after everything that can be wrong with the input has been checked, and it appears with all
that a resumed training or a recommender needs.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import jax

from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import loop, parameters, run_folder, warm_start
from metarec_jax.train.build import build
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.loop import Fitted
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.state import first_state


def meta_train(config: Config, folder: str | Path, *, reporter: Reporter = QUIET) -> Fitted:
    """Train what a config describes into a new run folder: `start`, then `fit`.

    Args:
        config: of the run.
        folder: of the run; it must hold none yet.
        reporter: shows progress.

    Raises:
        MetarecError: as `start` and `fit` do.
    """
    run, experiment = start(config, Path(folder), reporter=reporter)
    return fit(run, experiment, reporter=reporter)


def fit(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET) -> Fitted:
    """Train, from the run's latest checkpoint where there is one.

    Args:
        run: the run folder.
        experiment: from `metarec_jax.train.build.build` with the run's config.
        reporter: shows progress.

    Returns:
        The parameters with the least validation loss, and how they were reached.

    Raises:
        MetarecError: a loss is not finite (nothing of it is saved), or a checkpoint cannot be read.
    """
    return loop.train(run, program_of(run, experiment, reporter=reporter), reporter=reporter)


def program_of(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET) -> Program:
    """Build the training program of a run, of the kind that its config asks for.

    Args:
        run: the run folder.
        experiment: from `metarec_jax.train.build.build` with the run's config.
        reporter: told what is chosen for the run.
    """
    return importlib.import_module(experiment.config.program).build(run, experiment, reporter=reporter)


def start(config: Config, folder: Path, *, reporter: Reporter = QUIET) -> tuple[Run, Experiment]:
    """Make a new run folder, ready to train in.

    Args:
        config: of the run.
        folder: of the run; it must hold none yet.
        reporter: shows progress.

    Raises:
        MetarecError: the folder holds a run or cannot be written, or something is wrong with the data or the encoder.
            Then nothing is left in the folder.
    """
    run_folder.check_place(folder)  # before minutes of reading and encoding
    earlier = warm_start.learned(config) if config.train.begin else None
    experiment = build(config, reporter=reporter)
    if earlier is not None:
        warm_start.check_scale(config, experiment.catalogue.scale)
        warm_start.check(config, earlier, jax.eval_shape(lambda: first_state(experiment, 1).trainable))
        reporter.note(
            f"training begins with what {config.train.begin} learned; it may have learned from users that validate "
            "here, so validation losses are no proof of anything"
        )

    def fill(run: Run) -> None:
        if earlier is not None:
            parameters.save(earlier, run.beginning)
        catalogues.save(experiment.catalogue, run)
        run.keep_inputs(experiment.fingerprint())

    return run_folder.create(folder, experiment.config, fill=fill), experiment


def resume(folder: Path, *, reporter: Reporter = QUIET) -> tuple[Run, Experiment]:
    """Open a run folder to train on in it.

    Args:
        folder: of the run.
        reporter: shows progress.

    Raises:
        MetarecError: it holds no run, or the data is no longer what the run began with.
    """
    run = run_folder.open_run(folder)
    experiment = build(run.config, reporter=reporter)
    run.keep_inputs(experiment.fingerprint())
    if not (run.catalogue.exists() and run.embeddings.exists()):  # killed before these were written
        catalogues.save(experiment.catalogue, run)
    return run, experiment
