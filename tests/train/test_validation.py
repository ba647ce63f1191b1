"""The parameters that are kept of an epoch, and their validation loss."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_close
from training import changed, small_config, small_experiment

from metarec_jax.config.factors import FactorsConfig
from metarec_jax.core.params import path_names
from metarec_jax.train import run_folder
from metarec_jax.train.checkpoints import Checkpoints
from metarec_jax.train.meta_training import starting_state
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.start import fit
from metarec_jax.train.validation import Validation


def after_training(run, experiment):
    """Parameters before training, those of the last checkpoint, and the result of `fit`."""
    fitted = fit(run, experiment)
    start = starting_state(run, experiment, user_mesh(1))
    with Checkpoints(run.checkpoints) as checkpoints:
        last = checkpoints.load(start, fitted.progress.step)
    return jax.device_get(start.trainable), jax.device_get(last.trainable), fitted


def test_the_kept_parameters_lie_between_start_and_trained_ones(tmp_path):
    config = dataclasses.replace(small_config(epochs=1), factors=FactorsConfig(rank=2, train=True, mixing=0.25))
    experiment = small_experiment(config)
    run = run_folder.create(tmp_path / "run", config)
    start, trained, fitted = after_training(run, experiment)
    assert_close(fitted.trainable, jax.tree.map(lambda a, b: a + np.float32(0.25) * (b - a), start, trained))
    leaves = zip(path_names(start), jax.tree.leaves(start), jax.tree.leaves(fitted.trainable))
    moved = {name for name, before, kept in leaves if np.any(before != kept)}
    assert {"factors", "theta/hidden/item/kernel", "theta/output/kernel", "phi/log_rate/output/kernel"} <= moved
    # The loss is that of the kept parameters, which the run folder has.
    validate = Validation(experiment.model, user_mesh(1), experiment.validation)
    (line,) = run.read_metrics()
    assert line["validation_loss"] == fitted.progress.best_loss == validate(fitted.trainable) != validate(trained)
    jax.tree.map(np.testing.assert_array_equal, load_trainable(run, experiment.catalogue), fitted.trainable)


@pytest.mark.parametrize("factors", [FactorsConfig(rank=0), FactorsConfig(rank=2, mixing=1.0)], ids=["none", "1"])
def test_without_factors_or_a_mean_the_trained_parameters_are_kept(factors, tmp_path):
    config = dataclasses.replace(small_config(epochs=1), factors=factors)
    experiment = small_experiment(config)
    start, trained, fitted = after_training(run_folder.create(tmp_path / "run", config), experiment)
    jax.tree.map(np.testing.assert_array_equal, fitted.trainable, trained)
    assert np.any(start.theta["output"]["kernel"] != trained.theta["output"]["kernel"])


def test_the_start_of_a_warm_run_is_where_it_began(tmp_path):
    experiment = small_experiment(small_config(epochs=1))
    earlier = run_folder.create(tmp_path / "earlier", experiment.config)
    fit(earlier, experiment)
    warm = dataclasses.replace(experiment, config=changed(experiment.config, begin=str(earlier.folder)))
    run = run_folder.create(tmp_path / "warm", warm.config)
    run.beginning.write_bytes(earlier.parameters.read_bytes())
    begun, trained, fitted = after_training(run, warm)
    fresh = starting_state(earlier, experiment, user_mesh(1)).trainable
    kernels = [np.asarray(tree.theta["output"]["kernel"]) for tree in (fresh, begun, trained, fitted.trainable)]
    assert np.any(kernels[0] != kernels[1])
    assert_close(kernels[3], kernels[1] + np.float32(0.75) * (kernels[2] - kernels[1]))
