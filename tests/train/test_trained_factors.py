"""A run that trains a correction of item factors: resumed, saved, served, and begun from."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from helpers import assert_close, assert_equal, assert_says
from training import STEPS, small_config, small_experiment, stopping_at, trace_of

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.factors.correction import MULTIPLE, place_of
from metarec_jax.factors.item_factors import FACTORS
from metarec_jax.meta.outer import predict
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder, warm_start
from metarec_jax.train.checkpoints import Checkpoints
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.sharding import place, user_mesh
from metarec_jax.train.start import fit
from metarec_jax.train.state import first_state


@pytest.fixture(scope="module")
def experiment():
    config = small_config()
    factors = dataclasses.replace(config.factors, train=True, rate=0.1)
    return small_experiment(dataclasses.replace(config, factors=factors))


def new_run(experiment, folder):
    def fill(run):
        catalogues.save(experiment.catalogue, run)

    return run_folder.create(folder, experiment.config, fill=fill)


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """(what `fit` returned, the run) of a training from start to end."""
    run = new_run(experiment, tmp_path_factory.mktemp("finished") / "run")
    return fit(run, experiment), run


def test_a_training_trains_the_rows_of_the_items_that_it_meets(finished, experiment):
    table = finished[0].trainable.factors
    met = experiment.catalogue.statistics.count > 0
    assert table.shape == (MULTIPLE, experiment.config.factors.rank)
    table = table[place_of(np.arange(MULTIPLE), MULTIPLE)]
    assert (np.abs(table[: len(met)][met]).max(axis=1) > 1e-3).all()
    assert not table[: len(met)][~met].any()
    assert not table[len(met) :].any()


def test_a_resumed_training_equals_an_uninterrupted_one(finished, experiment, tmp_path):
    want, uninterrupted = finished
    run = new_run(experiment, tmp_path / "run")
    for stop in (1, 9):
        assert fit(run, experiment, reporter=stopping_at(stop)).interrupted
    got = fit(run, experiment)
    assert_equal(got.trainable, want.trainable)
    traces = trace_of(run, experiment), trace_of(uninterrupted, experiment)
    states = [trace.states[4 * STEPS] for trace in traces]
    assert states[0].squares.any()
    assert_equal(*states)
    assert_equal(*(trace.parameters for trace in traces))
    assert traces[0].metrics == traces[1].metrics


def test_a_checkpoint_is_of_no_number_of_devices(finished, experiment):
    state, _ = first_state(experiment, len(experiment.train.source)), None
    with Checkpoints(finished[1].checkpoints, tidy=False) as checkpoints:
        one, eight = (checkpoints.load(place(user_mesh(n), state), 4 * STEPS) for n in (1, 8))
    assert len(eight.trainable.factors.sharding.device_set) == 8
    assert not eight.squares.sharding.is_fully_replicated
    assert_equal(*(jax.device_get((state.trainable, state.squares)) for state in (one, eight)))


def test_a_recommender_adds_it_to_the_factors_of_the_items(finished, experiment):
    """Its scores are those of the outer loop, which reads the table; new items have no correction."""
    run, fitted = finished[1], experiment.catalogue.beliefs
    recommender = Recommender.load(run.folder)
    table = load_trainable(run, experiment.catalogue).factors
    beliefs, items = recommender.catalogue.beliefs, len(experiment.data.items)
    assert_equal(beliefs.table[:, :FACTORS], fitted.table[:, :FACTORS])
    assert_equal(beliefs.table[:, FACTORS:], fitted.table[:, FACTORS:] + table[place_of(np.arange(items), MULTIPLE)])
    assert_equal(recommender.catalogue.statistics.beliefs, beliefs.table)
    assert_equal(beliefs.of_new, fitted.of_new)
    assert recommender.executor.trainable.factors is None

    episodes = experiment.test.source[0]
    trainable, tables, on_device = jax.device_put((finished[0].trainable, experiment.test.tables, episodes))
    tables = experiment.model.prepare(trainable.theta, tables)
    scores = [
        jax.vmap(experiment.model.head.mean)(predict(experiment.model, parameters, tables, on_device))
        for parameters in (trainable, trainable._replace(factors=0 * trainable.factors))
    ]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3
    ids = experiment.data.items.ids
    for user in range(3):
        item, rating, mask, _ = (leaf[user] for leaf in episodes.support)
        history = {ids[i]: float(r) for i, r in zip(item[mask > 0][::-1], rating[mask > 0][::-1])}
        real = episodes.query.mask[user] > 0
        found = recommender.score(recommender.adapt(history), [ids[i] for i in episodes.query.item[user][real]])
        assert_close(found, np.asarray(scores[0][user][real]))


def test_a_run_that_begins_from_it_corrects_its_own_factors_anew(finished, experiment, tmp_path):
    earlier = load_trainable(finished[1], experiment.catalogue)
    fresh = first_state(experiment, 1).trainable
    warm_start.check(experiment.config, earlier, fresh._replace(factors=np.zeros((2 * MULTIPLE, 2), np.float32)))
    run = run_folder.Run(tmp_path, experiment.config)
    shutil.copy(finished[1].parameters, run.beginning)
    found = warm_start.begun(fresh, run)
    assert_equal(found.factors, fresh.factors)
    assert_equal(found.theta["output"], earlier.theta["output"])
    assert "factors" in path_names(earlier)


def test_a_table_that_is_not_finite_is_named(finished, experiment):
    trainable, config = finished[0].trainable, experiment.config
    broken = trainable._replace(factors=np.full_like(trainable.factors, np.nan))
    with pytest.raises(MetarecError) as caught:
        Recommender(config, experiment.catalogue, broken)
    assert_says(str(caught.value), "factors", "infinite or NaN", "train the run again")
