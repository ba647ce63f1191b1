"""`metarec train`: meta-train a run."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from metarec_jax.cli.arguments import (
    DEFAULT_CONFIG,
    MOST_TRACED,
    ConfigFile,
    ConfigOptions,
    Json,
    Preset,
    RunFolder,
    Trace,
    TrackerNames,
    check_range,
    check_resume,
    held_folder,
    keep_stdout,
    parse,
    prepare,
    print_json,
    run_name,
    starting_config,
    stopped,
)
from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import DEFAULT_PRESET
from metarec_jax.core import peers, processes
from metarec_jax.core.command_paths import path_argument, relative
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.peers import WAIT

PREEMPTED = 75
"""Exit status of all processes that stopped together and saved everything: the same command with --resume goes on."""

if TYPE_CHECKING:
    from metarec_jax.train.loop import Fitted
    from metarec_jax.train.run_folder import Run


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Meta-train a new run, or continue one with --resume.

    Options on the command line take precedence over those in --config, and these over those of --preset.
    """

    preset: Preset = DEFAULT_PRESET
    config_file: ConfigFile = ""
    out: RunFolder = ""
    """New run folder. "" is the first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    resume: RunFolder = ""
    """Run folder of a training to continue. Its options stay as they are."""
    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """Be one of several processes that train one run (docs/pods.md). All run the same command. They find each other
    under Slurm, Kubernetes and Open MPI and on TPU slices, or by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID."""
    detect: str = ""
    """With --distributed: how JAX finds the other processes, such as mpi4py; "" tries all ways that need no choice."""
    wait: int = WAIT
    """With --distributed: seconds that the processes wait for each other at the start, before a checkpoint is restored,
    before the first step and before a new checkpoint."""
    trace: Trace = 0
    tracker: TrackerNames = ()
    json: Json = False
    config: ConfigOptions = DEFAULT_CONFIG


def run(arguments: Sequence[str]) -> int:
    """Run `metarec train` and return the exit status."""
    began = time.perf_counter()
    name, base = starting_config("train", arguments)
    chosen = parse(TrainArguments, "train", arguments, TrainArguments(config=base))
    paths = check_resume(chosen)
    check_range("--trace", chosen.trace, 0, MOST_TRACED)
    if not chosen.distributed:
        if (chosen.detect, chosen.wait) != ("", WAIT):
            raise MetarecError("--detect and --wait are for several processes: add --distributed, or leave them out")
        return _train(chosen, name, paths, began)
    check_range("--wait", chosen.wait, 1, 1_000_000)
    keep_stdout()
    with peers.joined(chosen.detect, chosen.wait):
        check_equal_commands(chosen)
        return _train(chosen, name, paths, began)


def check_equal_commands(chosen: TrainArguments) -> None:
    """Check that all processes were given the same options.

    Args:
        chosen: the options of this process.

    Raises:
        MetarecError: they differ; the message names an option and a process.
    """
    options = {"--out": chosen.out, "--resume": chosen.resume}
    for section, fields in json.loads(to_json(chosen.config)).items():
        whole = fields if isinstance(fields, dict) else {"": fields}
        options |= {f"--{section}.{name}".rstrip(".").replace("_", "-"): str(value) for name, value in whole.items()}
    processes.check_equal("options", options, "give all processes the same command")


def _train(chosen: TrainArguments, name: str, paths: Mapping[str, str], began: float) -> int:
    """Train, and print the result; of several processes the first one prints it."""
    reporter = prepare(chosen.config)
    from metarec_jax.core.device_groups import connect_processes
    from metarec_jax.privacy import accounting
    from metarec_jax.train import start
    from metarec_jax.train.goodput import sentence
    from metarec_jax.train.monitor import Monitor

    connect_processes()
    with (
        Monitor(began=began, trace=chosen.trace, trackers=chosen.tracker) as monitor,
        held_folder(chosen, run_name(name, chosen.config), "train") as folder,
    ):
        if chosen.resume:
            run, experiment = start.resume(folder, paths=paths, reporter=reporter)
        else:
            run, experiment = start.start(chosen.config, folder, reporter=reporter)
        fitted = start.fit(run, experiment, reporter=reporter, monitor=monitor)
        reporter.note(sentence(fitted.goodput))
        if fitted.interrupted:
            return interrupted(fitted, run)
        if not processes.is_first():
            return 0
        plot = draw(run)
    progress, spent = fitted.progress, accounting.read(run)
    if chosen.json:
        fields = ("step", "epoch", "best_epoch", "best_step", "best_loss", "finished")
        tree = {
            "run": str(relative(run.folder)),
            "plot": str(relative(plot)),
            **{field: getattr(progress, field) for field in fields},
            "goodput": fitted.goodput,
        }
        print_json(tree if spent is None else {**tree, "privacy": spent})
        return 0
    if spent is not None:
        print(accounting.statement(spent))
    print(
        f"trained {progress.epoch} epochs; least validation loss {progress.best_loss:.4f} in epoch "
        f"{progress.best_epoch}\nrun: {path_argument(run.folder)}\nplot: {path_argument(plot)}\n"
        f"next: metarec evaluate {path_argument(run.folder)}\n"
        f'      metarec recommend {path_argument(run.folder)} --rate "TITLE=RATING"'
    )
    return 0


def interrupted(fitted: Fitted, run: Run) -> int:
    """Report that training was interrupted.

    Args:
        fitted: result of the training.
        run: run folder.

    Returns:
        The exit status.
    """
    command = f"metarec train --resume {path_argument(run.folder)}"
    if processes.count() == 1:
        return stopped(fitted.signal or signal.SIGINT, fitted.progress.step, command)
    if processes.is_first():
        stopped(fitted.signal or signal.SIGINT, fitted.progress.step, f"{command} --distributed")
    return PREEMPTED


def draw(run: Run) -> Path:
    """Plot the losses of a run by epoch into its folder; returns the file."""
    from metarec_jax.evaluation import plots

    keys = ("epoch", "train_loss", "validation_loss")
    lines = [line for line in run.read_metrics() if all(isinstance(line.get(key), int | float) for key in keys)]
    losses = [[line[key] for line in lines] for key in keys]
    return plots.save(plots.training_figure(*losses), run.plots / "training.png")
