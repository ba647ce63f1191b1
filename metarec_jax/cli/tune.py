"""`metarec tune`: search for options on validation users."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarec_jax.cli.arguments import (
    DEFAULT_CONFIG,
    RUNS,
    ConfigFile,
    ConfigOptions,
    Folder,
    Json,
    Preset,
    check_range,
    parse,
    place,
    prepare,
    print_json,
    resumable,
    run_name,
    starting_config,
)
from metarec_jax.config.run import DEFAULT_PRESET
from metarec_jax.core.command_paths import path_argument, relative
from metarec_jax.core.console import print_grid
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json


@dataclasses.dataclass(frozen=True)
class TuneArguments:
    """Search for options on validation users. Ratings of test users are not read.

    The same command continues a search that was stopped, and a larger --trials adds to one that is finished. The best
    options are written to OUT/best.json, for --config.
    """

    trials: int = 30
    """Number of finished trials in the end."""
    seeds: int = 1
    """Number of divisions on each of which a trial trains one run; their mean is the value of the trial. With few
    validation users, one division chooses by chance."""
    space: Annotated[str, tyro.conf.arg(metavar="FILE.json")] = ""
    """Search space: {"train.rate": {"low": 0.001, "high": 0.01, "log": true}, "learner.hidden": [64, 128]}. "" is a
    space of seven options of the learner, the inner loop and the outer loop."""
    metric: str = "loss"
    """Metric to optimise: "loss", which early stopping uses, or a metric such as mae, rmse, ndcg@5, auc."""
    out: Folder = ""
    """Folder of the search. "" is runs/tune-NAME."""
    preset: Preset = DEFAULT_PRESET
    config_file: ConfigFile = ""
    json: Json = False
    config: ConfigOptions = DEFAULT_CONFIG


def run(arguments: Sequence[str]) -> int:
    """Run `metarec tune` and return the exit status."""
    name, base = starting_config("tune", arguments)
    chosen = parse(TuneArguments, "tune", arguments, TuneArguments(config=base))
    check_range("--trials", chosen.trials, 1, 100_000)
    check_range("--seeds", chosen.seeds, 1, 1000)
    reporter = prepare(chosen.config)
    from metarec_jax.evaluation import plots, search, search_space

    tree = read_json(Path(chosen.space), option="--space") if chosen.space else search_space.SPACE
    try:
        space = search_space.read_space(tree, chosen.config)
    except MetarecError as error:
        raise MetarecError(f"--space {chosen.space}: {error}") from error
    folder = place(chosen.out) if chosen.out else (RUNS / f"tune-{run_name(name, chosen.config)}").resolve()
    with resumable(folder, reporter):
        found = search.tune(
            chosen.config,
            folder,
            trials=chosen.trials,
            space=space,
            metric=chosen.metric,
            seeds=chosen.seeds,
            reporter=reporter,
        )
    numbers, values, _ = zip(*sorted(found.trials, key=lambda trial: trial[0]))
    plot = plots.save(plots.tuning_figure(numbers, values, found.value, chosen.metric), folder / "tuning.png")
    best = folder / "best.json"
    if chosen.json:
        trials = [{"trial": n, chosen.metric: value, "options": options} for n, value, options in found.trials]
        print_json({"best": str(relative(best)), "trials": trials})
        return 0
    names = list(space)
    rows = [
        [str(n), f"{value:.4f}", *(_short(options[name]) for name in names)] for n, value, options in found.trials[:10]
    ]
    print_grid("Best trials", ["trial", chosen.metric, *names], rows, numbers=range(len(names) + 2))
    print(
        f"best: {path_argument(best)}\nplot: {path_argument(plot)}\nnext: metarec train --config {path_argument(best)}"
    )
    return 0


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
