"""The epoch that is chosen by lists: one that is better than the start by more than chance."""

import dataclasses
import signal

import numpy as np
import pytest
from helpers import assert_close, random_interactions

from metarec_jax.config.data import DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.data.sources import clicks_of
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.meta_training import starting_state
from metarec_jax.train.monitor import Monitor
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.start import fit
from metarec_jax.train.validation import Validation


class Ending(Monitor):
    """Asks training to stop after a number of steps."""

    def __init__(self, steps):
        super().__init__()
        self._left = steps

    def take(self, step, *arguments):
        found = super().take(step, *arguments)
        self._left -= 1
        if not self._left:
            signal.raise_signal(signal.SIGINT)
        return found


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    data = clicks_of(random_interactions(np.random.default_rng(3), users=50, items=30, least=16, most=24))
    config = Config(
        data=DataConfig(source="synthetic", kind="click", cache=str(tmp_path_factory.mktemp("cache"))),
        split=SplitConfig(kind="strong-generalisation"),
        episodes=EpisodeConfig(min_ratings=4, max_ratings=0, query=2, buckets=(24,), validation=0.3, test=0.2),
        encoder=EncoderConfig(path="random", max_length=8),
        factors=FactorsConfig(rank=2),
        learner=LearnerConfig(hidden=4, user_side="none"),
        updater=UpdaterConfig(steps=1, order="first"),
        train=TrainConfig(epochs=3, users_per_step=8, rate=0.05, patience=0, devices=1),
    )
    return build(config, data=data)


def trained(experiment, folder, *parts):
    """Train in parts of some steps, and then to the end."""
    run = run_folder.create(folder, experiment.config)
    for steps in parts:
        with Ending(steps) as monitor:
            assert fit(run, experiment, monitor=monitor).interrupted
        run = run_folder.open_run(folder)
    return run, fit(run, experiment)


def test_an_epoch_is_chosen_where_it_is_better_than_the_start_beyond_the_doubt(experiment, tmp_path):
    run, fitted = trained(experiment, tmp_path / "run")
    start, *epochs = run.read_metrics()
    assert (start["step"], start["validation_doubt"]) == (0, 0.0)
    assert all(line["validation_doubt"] > 0 for line in epochs)
    best = (0, start["validation_loss"])
    for line in epochs:
        if line["validation_loss"] < best[1] - (line["validation_doubt"] if best[0] == 0 else 0):
            best = line["step"], line["validation_loss"]
    assert (fitted.progress.best_step, fitted.progress.best_loss) == best
    # The doubt is the standard error of the difference, paired by users.
    validate = Validation(experiment.model, user_mesh(1), experiment.choosing)
    (before, number), (after, _) = (
        validate.losses(trainable)
        for trainable in (starting_state(run, experiment, user_mesh(1)).trainable, fitted.trainable)
    )
    assert len(before) == len(after) >= (number > 0).sum() == len(experiment.splits.validation)
    assert_close(np.float64(start["validation_loss"]), before.sum() / number.sum())
    chosen = next(line for line in (start, *epochs) if line["step"] == fitted.progress.best_step)
    gain = (after - before)[number > 0]
    assert_close(np.float64(chosen["validation_doubt"]), gain.std(ddof=1) / np.sqrt(len(gain)))


def test_a_training_that_goes_on_compares_with_the_same_start(experiment, tmp_path):
    whole, _ = trained(experiment, tmp_path / "whole")
    parts, _ = trained(experiment, tmp_path / "parts", len(experiment.train.source) // 3 + 1)
    names = ("step", "validation_loss", "validation_doubt")
    assert [[line.get(n) for n in names] for line in parts.read_metrics()] == [
        [line.get(n) for n in names] for line in whole.read_metrics()
    ]


@pytest.mark.slow
def test_ratings_have_no_doubt(experiment, tmp_path):
    data = random_interactions(np.random.default_rng(3), users=50, items=30, least=16, most=24)
    config = dataclasses.replace(
        experiment.config,
        data=dataclasses.replace(experiment.config.data, kind="rating"),
        split=SplitConfig(),
        learner=LearnerConfig(hidden=4, user_side="none"),
        updater=UpdaterConfig(steps=1, order="first"),
        train=dataclasses.replace(experiment.config.train, epochs=1),
    )
    run, fitted = trained(build(config, data=data), tmp_path / "run")
    assert all("validation_doubt" not in line for line in run.read_metrics())
    assert fitted.progress.best_step > 0
