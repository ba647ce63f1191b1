"""Choose defaults: options compared on the validation users of MovieLens-100K.

python -m benchmarks.constants rank=16 rank=64 --seeds 6 --json OUT
python -m benchmarks.constants learner.gate=10 train.rate=1e-3,train.weight_decay=0.1 --runs FOLDER --json OUT
python -m benchmarks.constants dropout=0 --new-items --runs FOLDER --json OUT

Each argument changes some options (under `--factors` if it names no group), and is compared with the defaults on the
validation users of protocol B: by the closed form alone, which needs no training, or with --runs by models that are
trained in FOLDER. With --new-items the query items have no ratings in training (a sixth of all, see
`benchmarks.hidden`). No test row is read. (With several seeds a validation user of one seed is a test user of another,
as in every choice over several splits.)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, hidden, variants
from benchmarks.interview import closed
from metarec_jax.config.run import Config, from_json, preset
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.evaluation.methods import adapting
from metarec_jax.evaluation.per_user import judge
from metarec_jax.evaluation.table import SeedResult
from metarec_jax.metrics.predictions import Function
from metarec_jax.train.build import build
from metarec_jax.train.experiment import Experiment

METRICS = ("mae", "rmse", "ndcg@5", "precision@5", "mrr@5", "auc_liked")
DEFAULTS = "the defaults"


def changed(config: Config, text: str) -> Config:
    """`config` with the options of "name=value,group.name=value"; without a group they are under `--factors`.

    >>> changed(Config(), "rank=10,learner.gate=5").factors.rank
    10

    Raises:
        MetarecError: there is no such option, or the value is not valid.
    """
    tree: dict[str, dict[str, Any]] = {}
    for part in text.split(","):
        path, _, value = part.partition("=")
        group, _, name = path.rpartition(".")
        options = tree.setdefault(group or "factors", {})
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value  # a word
    return from_json(json.dumps(tree), where=repr(text), base=config)


def measure(
    config: Config,
    tried: Sequence[str],
    seeds: int,
    folder: Path | None = None,
    reporter: Reporter = QUIET,
    *,
    new_items: bool = False,
) -> list[harness.Row]:
    """Compare every variant with the defaults, with the interval of the difference over validation users.

    Args:
        config: with the defaults.
        tried: changes of each variant.
        seeds: number of splits.
        folder: folder of trained models; None evaluates the closed form alone.
        reporter: shows progress.
        new_items: whether query items are hidden from training.
    """
    variant = [config, *(changed(config, text) for text in tried)]  # a mistake in any is told before minutes of work
    results: list[list[SeedResult]] = []
    make = hidden.build_hiding if new_items else build
    with reporter.bar("judging options", seeds * len(variant)) as advance:
        for n, chosen in enumerate(variant):
            results.append([])
            place = None if folder is None else folder / ("defaults", *tried)[n]
            methods = closed_forms(chosen, seeds, make) if place is None else models(chosen, seeds, place, make)
            for experiment, method in methods:
                asked = experiment.test if new_items else experiment.validation
                results[n].append(judge(experiment, asked, DEFAULTS, method, metrics=METRICS))
                advance(n * seeds + len(results[n]))
    who = np.concatenate([np.asarray(result.users) for result in results[0]])
    drawn = np.repeat(np.arange(seeds), [len(result.users) for result in results[0]])
    rows = []
    for name, own in zip(tried, results[1:]):
        for metric in METRICS:
            ours, theirs = ([result.values[metric] for result in way] for way in (own, results[0]))
            rows.append(variants.paired_row(name, DEFAULTS, metric, ours, theirs, who, drawn, {}))
    return rows


def closed_forms(config: Config, seeds: int, make: variants.Build) -> Iterator[tuple[Experiment, Function]]:
    """Each split with its closed form.

    Args:
        config: config of the runs.
        seeds: number of splits.
        make: builds an experiment.
    """
    for experiment, _, method in closed(config, seeds, make=make):
        yield experiment, method


def models(config: Config, seeds: int, folder: Path, make: variants.Build) -> Iterator[tuple[Experiment, Function]]:
    """Each split with the model that it trains.

    Args:
        config: config of the runs.
        seeds: number of splits.
        folder: folder with one folder for each split; existing models are not trained again.
        make: builds an experiment.
    """
    for seed in range(seeds):
        chosen = dataclasses.replace(config, seed=seed)
        _, experiment, trainable = variants.trained(chosen, folder / str(seed), QUIET, make)
        yield experiment, adapting(experiment.model, trainable)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tried", nargs="+", metavar="NAME=VALUE,...", help="options, together")
    parser.add_argument("--seeds", type=int, default=6, help="splits")
    parser.add_argument("--everyone", action="store_true", help="train on all other users too (--split.everyone)")
    parser.add_argument("--new-items", action="store_true", help="evaluate on items without ratings in training")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="train each variant; folder of the runs")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds is {arguments.seeds}; it must be at least 1")
    from metarec_jax.core.console import make_reporter

    config = preset("movielens-100k")
    config = dataclasses.replace(config, split=dataclasses.replace(config.split, everyone=arguments.everyone))
    try:
        rows = measure(
            config,
            arguments.tried,
            arguments.seeds,
            arguments.runs,
            make_reporter(),
            new_items=arguments.new_items,
        )
    except MetarecError as error:
        raise SystemExit(str(error)) from error
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
