"""`metarec pretrain`: train an encoder further, on item texts and on users' interactions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from metarec_jax.cli.arguments import (
    MOST_TRACED,
    ConfigFile,
    Json,
    Preset,
    RunFolder,
    Trace,
    TrackerNames,
    check_range,
    check_resume,
    held_folder,
    parse,
    prepare,
    print_json,
    run_name,
    starting_config,
    stopped,
)
from metarec_jax.config.pretrain import PretrainConfig, starting_from
from metarec_jax.config.run import DEFAULT_PRESET, preset
from metarec_jax.core.command_paths import path_argument, relative
from metarec_jax.core.console import print_grid

if TYPE_CHECKING:
    from metarec_jax.train.run_folder import Run

CURVES = {
    "perplexity_users": "perplexity of masked words, held-out users",
    "perplexity_items": "perplexity of masked words, held-out items",
    "contrastive_users": "contrastive loss, held-out users",
    "contrastive_items": "contrastive loss, held-out users' likes of held-out items",
}
"""Title of each figure that is measured on held-out data; lower is better for all of them."""

DEFAULT_PRETRAINING = starting_from(preset(DEFAULT_PRESET))


@dataclasses.dataclass(frozen=True)
class PretrainArguments:
    """Pretrain an encoder further on item texts and on training users' interactions, or continue with --resume.

    The result, RUN/encoder, is an ordinary checkpoint, for `metarec train --encoder.path` with the same data, the same
    --episodes options and the same seed: texts of validation and test users are not read.
    """

    preset: Preset = DEFAULT_PRESET
    config_file: ConfigFile = ""
    out: RunFolder = ""
    """New run folder. "" is the first of runs/pretrain-NAME-1, runs/pretrain-NAME-2, ... that does not exist."""
    resume: RunFolder = ""
    """Run folder of a pretraining to continue. Its options stay as they are."""
    trace: Trace = 0
    tracker: TrackerNames = ()
    json: Json = False
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = DEFAULT_PRETRAINING


def starting_pretraining(arguments: Sequence[str]) -> tuple[str, PretrainConfig]:
    """`starting_config` of `metarec pretrain`: a name for the run, and the config that the options change."""
    return starting_config("pretrain", arguments, lambda name: starting_from(preset(name)))


def run(arguments: Sequence[str]) -> int:
    """Run `metarec pretrain` and return the exit status."""
    began = time.perf_counter()
    name, base = starting_pretraining(arguments)
    chosen = parse(PretrainArguments, "pretrain", arguments, PretrainArguments(config=base))
    paths = check_resume(chosen)
    check_range("--trace", chosen.trace, 0, MOST_TRACED)
    reporter = prepare(chosen.config)
    from metarec_jax.train.goodput import sentence
    from metarec_jax.train.monitor import Monitor
    from metarec_jax.train.pretraining import start

    with (
        Monitor(began=began, trace=chosen.trace, trackers=chosen.tracker) as monitor,
        held_folder(chosen, f"pretrain-{run_name(name, chosen.config)}", start.COMMAND) as folder,
    ):
        if chosen.resume:
            run, pretraining = start.resume(folder, paths=paths, reporter=reporter)
        else:
            run, pretraining = start.start(chosen.config, folder, reporter=reporter)
        pretrained = start.fit(run, pretraining, reporter=reporter, monitor=monitor)
        reporter.note(sentence(pretrained.goodput))
        if pretrained.signal:
            command = f"metarec pretrain --resume {path_argument(run.folder)}"
            return stopped(pretrained.signal, pretrained.step, command)
        encoder, plot = start.finish(run, pretraining, pretrained), draw(run)
    before, after, step = pretrained.before, pretrained.after, pretrained.step
    if chosen.json:
        tree = {name: str(relative(path)) for name, path in (("run", run.folder), ("encoder", encoder), ("plot", plot))}
        print_json({**tree, "step": step, "before": before, "after": after, "goodput": pretrained.goodput})
        return 0
    rows = [[CURVES[name], f"{value:,.4g}", f"{after[name]:,.4g}"] for name, value in before.items()]
    print_grid(f"Pretrained for {step} steps", ["lower is better", "before", "after"], rows, numbers=[1, 2])
    print(
        f"encoder: {path_argument(encoder)}\nplot: {path_argument(plot)}\n"
        f"next: metarec train --encoder.path {path_argument(encoder)} --seed {run.config.seed}"
    )
    return 0


def draw(run: Run) -> Path:
    """Plot the figures on held-out data by step into the run's folder; returns the file."""
    from metarec_jax.evaluation import plots

    lines = list(run.read_metrics())
    curves = {}
    for name, title in CURVES.items():
        if having := [line for line in lines if isinstance(line.get(name), int | float)]:
            curves[title] = [line["step"] for line in having], [line[name] for line in having]
    return plots.save(plots.pretraining_figure(curves), run.plots / "pretraining.png")
