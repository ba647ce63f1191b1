"""Train variants of a model, and compare them on the same queries of the same test users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import harness
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError, Stopped
from metarec_jax.core.progress import Reporter
from metarec_jax.evaluation.bootstrap import paired_bootstrap
from metarec_jax.evaluation.per_user import judge
from metarec_jax.evaluation.table import SeedResult
from metarec_jax.meta.model import Trainable
from metarec_jax.metrics.definitions import metric
from metarec_jax.metrics.metrics import UserValues
from metarec_jax.metrics.predictions import Function
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.embed import with_trained_encoder
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.run_folder import Run
from metarec_jax.train.start import fit

METRICS = ("mae", "rmse", "auc", "ndcg@5")


class Build(Protocol):
    """Builds an experiment, as `metarec_jax.train.build.build` does."""

    def __call__(self, config: Config, *, reporter: Reporter) -> Experiment: ...


def trained(config: Config, folder: Path, reporter: Reporter, make: Build = build) -> tuple[Run, Experiment, Trainable]:
    """Train a config, or continue its training.

    Args:
        config: config of the run.
        folder: folder of the run.
        reporter: shows progress.
        make: builds the experiment.

    Returns:
        The run, its experiment (with embeddings of the trained encoder if it was trained), and the parameters.

    Raises:
        MetarecError: as for `fitted`.
    """
    experiment = make(config, reporter=reporter)
    run, trainable = fitted(experiment, folder, reporter)
    return run, with_trained_encoder(experiment, trainable, reporter), trainable


def fitted(experiment: Experiment, folder: Path, reporter: Reporter) -> tuple[Run, Trainable]:
    """Train an experiment in a run folder, starting from the latest checkpoint if there is one.

    Args:
        experiment: the experiment.
        folder: folder of the run.
        reporter: shows progress.

    Raises:
        MetarecError: the folder holds a run with other options or inputs.
        Stopped: by a signal.
    """

    def fill(run: Run) -> None:
        catalogues.save(experiment.catalogue, run)
        run.keep_inputs(experiment.inputs())

    if (folder / "config.json").exists():
        run = run_folder.open_run(folder)
        if _choices(run.config) != _choices(experiment.config):
            raise MetarecError(f"{folder} holds a run with other options: name another folder with --runs")
        run.check_inputs(experiment.inputs())
    else:
        run = run_folder.create(folder, experiment.config, fill=fill)
    result = fit(run, experiment, reporter=reporter)
    if result.signal is not None:
        raise Stopped(result.signal)
    return run, result.trainable


def _choices(config: Config) -> tuple[Any, ...]:
    """The options in which variants differ; the path of the encoder is not among them."""
    encoder = config.encoder
    own = config.train, config.privacy, config.factors, config.learner, config.updater
    return config.seed, *own, encoder.train, encoder.rate


def judged(experiment: Experiment, name: str, method: Function) -> SeedResult:
    """Evaluate a method on the test users of an experiment.

    Args:
        experiment: the experiment.
        name: name of the method.
        method: the function.
    """
    return judge(experiment, experiment.test, name, method, metrics=METRICS)


def compared(
    results: Mapping[str, Sequence[SeedResult]],
    reference: str,
    facts: Mapping[str, Any],
    of: Mapping[str, Mapping[str, Any]],
) -> list[harness.Row]:
    """Compare each variant with one of them, with the interval of the difference (paired bootstrap over users).

    Args:
        results: results of each variant, for each seed.
        reference: variant that the others are compared with.
        facts: common facts, for the first row.
        of: variant -> its facts, if any.
    """
    rows: list[harness.Row] = []
    theirs = results[reference]
    users = np.concatenate([result.users for result in theirs])
    seeds = np.concatenate([np.full(len(result.users), result.seed) for result in theirs])
    for name in [name for name in results if name != reference]:
        for measured in METRICS:
            ours, against = ([result.values[measured] for result in seeds_of] for seeds_of in (results[name], theirs))
            more = {**of.get(name, {}), **({} if rows else facts)}
            rows.append(paired_row(name, reference, measured, ours, against, users, seeds, more))
    return rows


def paired_row(
    case: str,
    contender: str,
    measured: str,
    ours: Sequence[UserValues],
    theirs: Sequence[UserValues],
    users: np.ndarray,
    seeds: np.ndarray,
    facts: Mapping[str, Any],
) -> harness.Row:
    """Compare two variants by one metric, with the interval of the difference.

    Args:
        case, contender: case and contender of the row.
        measured: the metric.
        ours, theirs: values of the same users, for each seed.
        users, seeds: user and seed of each of these values, concatenated.
        facts: further facts of the row.
    """
    spec = metric(measured)
    values, others = (np.concatenate([seed.values for seed in way]) for way in (ours, theirs))
    weights = np.concatenate([seed.weights for seed in theirs])
    transform = np.sqrt if spec.root else None
    interval = paired_bootstrap(values, others, weights, groups=users, strata=seeds, transform=transform)
    mine, other = (_mean(way, weights, seeds, transform) for way in (values, others))
    return harness.Row(
        case=case,
        contender=contender,
        metric=measured,
        ours=mine,
        theirs=other,
        ratio=harness.flat(other / mine if spec.better == "lower" else mine / other),
        facts={"difference": interval._asdict(), "better": spec.better, **facts},
    )


def _mean(values: np.ndarray, weights: np.ndarray, seeds: np.ndarray, transform: Any) -> float:
    """The mean of the seeds' means."""
    values = np.where(weights > 0, values, 0.0)  # values with weight 0 may be NaN
    each = [np.average(values[seeds == s], weights=weights[seeds == s]) for s in np.unique(seeds)]
    return float(np.mean(each if transform is None else transform(each)))
