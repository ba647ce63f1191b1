"""Start, resume and run a training in a run folder.

A run folder is created only after all checks of the input, with everything that a resumed training or a recommender
needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import jax

from metarec_jax.config.paths import absolute, with_paths
from metarec_jax.config.run import Config
from metarec_jax.core import processes
from metarec_jax.core.arguments import instance, optional, path, takes
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.train import about, card, loop, parameters, run_folder, warm_start
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train.build import build
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.loop import Fitted
from metarec_jax.train.monitor import Monitor
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.state import first_state

_CONFIG = instance(Config, what="a config, such as metarec_jax.preset('synthetic') or the result of `from_json`")
_DATA = optional(instance(Interactions, what="a data set, which `metarec_jax.load` returns"))
_RUN = instance(Run, what="a run folder, which `start`, `resume` or `open_run` returns")
_EXPERIMENT = instance(Experiment, what="an experiment, which `start` or `build` returns")


@takes(config=_CONFIG, folder=path, data=_DATA)
def meta_train(
    config: Config, folder: str | Path, *, data: Interactions | None = None, reporter: Reporter = QUIET
) -> Fitted:
    """Train a config in a new run folder: `start`, then `fit`.

    Args:
        config: config of the run.
        folder: folder of the run; it must not hold one yet.
        data: the data set; None loads that of ``config.data``. A run does not keep it: pass it to `resume` again.
        reporter: shows progress.

    Returns:
        The result of the training.

    Raises:
        MetarecError: as for `start` and `fit`.
    """
    folder = Path(folder)
    run_folder.check_place(folder)
    with run_folder.hold(folder), Monitor() as monitor:
        run, experiment = start(config, folder, data=data, reporter=reporter)
        return fit(run, experiment, reporter=reporter, monitor=monitor)


@takes(run=_RUN, experiment=_EXPERIMENT)
def fit(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET, monitor: Monitor | None = None) -> Fitted:
    """Train, starting from the run's latest checkpoint if there is one; at the end a model card is written.

    Args:
        run: the run folder.
        experiment: from `metarec_jax.train.build.build` with the run's config.
        reporter: shows progress.
        monitor: observes the training, in whose context this is; None observes from now on.

    Returns:
        The parameters with the least validation loss, and the progress of the training.

    Raises:
        MetarecError: a loss is not finite (its state is not saved), or a checkpoint cannot be read.
    """
    fitted = loop.train(run, program_of(run, experiment, reporter=reporter), reporter=reporter, monitor=monitor)
    if not fitted.interrupted and processes.is_first():
        card.write(run)
    return fitted


def program_of(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET) -> Program:
    """Build the training program of a run, of the kind that its config selects.

    Args:
        run: the run folder.
        experiment: from `metarec_jax.train.build.build` with the run's config.
        reporter: told about automatic choices.

    Returns:
        The program.
    """
    return importlib.import_module(experiment.config.program).build(run, experiment, reporter=reporter)


@takes(config=_CONFIG, folder=path, data=_DATA)
def start(
    config: Config, folder: str | Path, *, data: Interactions | None = None, reporter: Reporter = QUIET
) -> tuple[Run, Experiment]:
    """Make a new run folder for a training.

    Args:
        config: config of the run.
        folder: folder of the run; it must not hold one yet.
        data: the data set; None loads that of ``config.data``. A run does not keep it: pass it to `resume` again.
        reporter: shows progress.

    Returns:
        The run folder, and the experiment.

    Raises:
        MetarecError: the folder holds a run or cannot be written, or the data or the encoder is not valid. Then nothing
            is left in the folder.
    """
    folder = Path(folder)
    if processes.is_first():
        run_folder.check_place(folder)  # before minutes of reading and encoding
    config = absolute(config)
    earlier = warm_start.learned(config) if config.train.begin else None
    experiment = build(config, data=data, reporter=reporter)
    if earlier is not None:
        warm_start.check_scale(config, experiment.catalogue.scale)
        warm_start.check_encoder(experiment.config, experiment.encoder.digest)
        warm_start.check(config, earlier, jax.eval_shape(lambda: first_state(experiment, 1).trainable))
        reporter.note(
            f"training starts from the parameters of {config.train.begin}, which may have been trained on validation "
            "users of this run, so validation losses are not reliable"
        )

    def fill(run: Run) -> None:
        if earlier is not None:
            parameters.save(earlier, run.beginning)
        catalogues.save(experiment.catalogue, run)
        run.keep_inputs(experiment.inputs())
        about.keep(run, experiment, loaded=data is None)

    check_equal_inputs(experiment.inputs())
    made = processes.from_first("run", lambda: str(run_folder.create(folder, experiment.config, fill=fill).folder))
    return Run(Path(made), experiment.config), experiment


@takes(folder=path, data=_DATA)
def resume(
    folder: str | Path,
    *,
    data: Interactions | None = None,
    paths: Mapping[str, str] | None = None,
    reporter: Reporter = QUIET,
) -> tuple[Run, Experiment]:
    """Open a run folder to continue its training.

    Args:
        folder: folder of the run.
        data: the data set with which the run was started; None loads that of its config.
        paths: new places of the files that the run reads, by option, such as "data.path"; the run keeps them.
        reporter: shows progress.

    Returns:
        The run folder, and the experiment.

    Raises:
        MetarecError: it holds no run, another process trains in it, or the data is no longer what the run began with.
    """
    run = run_folder.open_run(folder)
    with run_folder.hold(run.folder):
        before, run.config = run.config, absolute(with_paths(run.config, paths or {}))
        if data is None:
            run_folder.check_paths(run, "train --resume")
        experiment = build(run.config, data=data, reporter=reporter)
        run.check_inputs(experiment.inputs())
        check_equal_inputs(experiment.inputs())

        def complete() -> str:
            if not run.inputs.exists():  # killed before it was written
                run.keep_inputs(experiment.inputs())
            if not about.about_file(run).exists():  # a run of an earlier version
                about.keep(run, experiment, loaded=data is None)
            if paths and run.config != before:
                run_folder.write_config(run)
            if not (run.catalogue.exists() and run.embeddings.exists()):  # killed before these were written
                catalogues.save(experiment.catalogue, run)
            return ""

        processes.from_first("files of the run", complete)
        return run, experiment


def check_equal_inputs(digests: Mapping[str, str]) -> None:
    """Check that all processes read the same inputs.

    Args:
        digests: digest of each input, as for `Run.keep_inputs`.

    Raises:
        MetarecError: they differ; the message names an input and a process.
    """
    parts = {run_folder.PARTS[name]: digest for name, digest in digests.items() if name != "sha256"}
    processes.check_equal("inputs", parts, "give all processes the same files (--data.path, --encoder.path)")
