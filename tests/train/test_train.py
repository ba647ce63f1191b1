"""The training loop: losses that are not finite, what is kept, when training ends, devices and micro-batches."""

import dataclasses
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_equal
from training import STEPS, Watch, changed, small_config, small_experiment, stopping_at, trace_of

from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.device_memory import SHARE, free_memory, temporaries
from metarec_jax.core.errors import MetarecError
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import Losses, TrainState
from metarec_jax.train import loop, run_folder
from metarec_jax.train.checkpoints import Checkpoints, Progress
from metarec_jax.train.frozen_program import frozen_step, prepared_tables
from metarec_jax.train.meta_training import padded, starting_state
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.program import Batch
from metarec_jax.train.sharding import shard_users, user_mesh
from metarec_jax.train.start import fit, program_of


@pytest.fixture(scope="module")
def experiment():
    return small_experiment(small_config())


@pytest.fixture
def run(experiment, tmp_path):
    return run_folder.create(tmp_path / "run", experiment.config)


# Numbers that are not finite


def test_a_huge_inner_rate_stops_training_before_anything_is_saved(tmp_path):
    config = dataclasses.replace(small_config(), updater=UpdaterConfig(steps=2, rate=1e30, order="first"))
    run = run_folder.create(tmp_path / "run", config)
    with pytest.raises(
        MetarecError, match=r"training loss became (nan|inf) at outer step 1 .*diverged at inner step .*: lower .*rate"
    ):
        fit(run, small_experiment(config))
    assert not list(run.checkpoints.glob("[0-9]*"))
    with pytest.raises(MetarecError, match=r"holds no file of trained parameters yet.*--resume"):
        load_trainable(run, small_experiment(config).catalogue)


def scripted(run, experiment, *, loss=lambda step: 1.0, moved=lambda step: 1.0, validation=lambda step: 1.0):
    """The program of a run with a model of one parameter, and the numbers of training as functions of the step.

    Args:
        run, experiment: as for `program_of`.
        loss: training loss of outer step 1, 2, ...
        moved: what that step adds to the parameter.
        validation: validation loss after so many steps.
    """

    @jax.jit
    def step(state, tables, episodes):
        now = state.step + 1
        trainable = jax.tree.map(lambda leaf: leaf + moved(now), state.trainable)
        losses = Losses(query=jnp.float32(loss(now)), rows=jnp.float32(1.0), stopped=jnp.full(1, 6))
        return state._replace(trainable=trainable, step=now), losses

    return dataclasses.replace(
        program_of(run, experiment),
        first_state=one_parameter,
        step=step,
        evaluate=lambda state: {"validation_loss": float(validation(int(state.step)))},
        trained=lambda state: state.trainable,
    )


def one_parameter():
    """The state of a scripted training before its first step."""
    trainable = Trainable(theta={"weight": jnp.zeros(1)}, phi={})
    return TrainState(trainable, (), jnp.zeros((), jnp.int32), jax.random.key(0))


def trace_of_scripted(run, experiment):
    return trace_of(run, experiment, like=one_parameter())


def test_a_loss_that_is_not_finite_stops_training_with_the_state_before_it_saved(run, experiment):
    bad = 2 * STEPS + 2
    program = scripted(run, experiment, loss=lambda step: jnp.where(step >= bad, jnp.nan, 1.0))
    for _ in range(2):  # trying again changes nothing
        with pytest.raises(MetarecError) as caught:
            loop.train(run, program)
        message = str(caught.value)
        assert f"the training loss became nan at outer step {bad} (epoch 3)" in message
        assert "lower --train.rate or --updater.rate" in message
        assert list(trace_of_scripted(run, experiment).states) == [STEPS, 2 * STEPS]
        assert [line["epoch"] for line in run.read_metrics()] == [1, 2]
    assert_finite(trace_of_scripted(run, experiment))


@pytest.mark.parametrize(
    "reporter",
    [
        pytest.param(lambda: stopping_at(STEPS + 1), id="stopped on the way"),
        pytest.param(Watch, id="at the end of an epoch"),
    ],
)
def test_parameters_that_are_not_finite_are_not_saved_even_where_no_loss_shows_it_yet(run, experiment, reporter):
    bad = STEPS + 2 if reporter is not Watch else 2 * STEPS
    program = scripted(run, experiment, moved=lambda step: jnp.where(step >= bad, jnp.inf, 1.0))
    with pytest.raises(MetarecError, match=rf"^theta/.* became infinite or NaN by outer step {bad}: lower .*rate"):
        loop.train(run, program, reporter=reporter())
    assert list(trace_of_scripted(run, experiment).states) == [STEPS]
    assert_finite(trace_of_scripted(run, experiment))


def test_a_validation_loss_that_is_not_finite_stops_training(run, experiment):
    program = scripted(run, experiment, validation=lambda step: np.nan if step > STEPS else 1.0)
    with pytest.raises(MetarecError, match=r"validation loss became nan in epoch 2: lower --train\.rate"):
        loop.train(run, program)
    assert list(trace_of_scripted(run, experiment).states) == [STEPS]
    assert [line["epoch"] for line in run.read_metrics()] == [1]


def assert_finite(trace):
    for leaf in jax.tree.leaves((trace.states, trace.parameters)):
        assert np.isfinite(leaf).all()


def test_a_learned_rate_that_overflowed_is_named_where_the_loss_shows_it(run, experiment):
    """And not the user whose inner loop it was the first to spoil: the logarithm itself is finite still."""
    program = program_of(run, experiment)

    def spoiled():
        state = program.first_state()
        state.trainable.phi["log_rate"]["output"]["bias"] += 100
        return state

    with pytest.raises(MetarecError) as caught:
        loop.train(run, dataclasses.replace(program, first_state=spoiled))
    assert str(caught.value).startswith(
        "the training loss became nan at outer step 1 (epoch 1), since exp(phi/log_rate/output/bias) had become "
        "infinite or NaN: lower --train.rate or --updater.rate"
    )
    assert not list(run.checkpoints.glob("[0-9]*"))


def test_a_learned_rate_that_overflowed_is_not_saved_where_no_loss_shows_it_yet(tmp_path):
    """After the one outer step of an epoch, which moved every logarithm of a rate by 1,000, up or down."""
    config = changed(small_config(), rate=1e3, users_per_step=32)
    run, experiment = run_folder.create(tmp_path / "run", config), small_experiment(config)
    assert experiment.train.source.batches == 1
    with pytest.raises(MetarecError) as caught:
        fit(run, experiment)
    assert re.match(r".*exp\(phi/log_rate/.*\).* became infinite or NaN by outer step 1: lower", str(caught.value))
    assert not list(run.checkpoints.glob("[0-9]*"))


# What is kept, and when training ends

LOSSES = [5.0, 3.0, 4.0, 2.0, 2.5, 2.0, 3.0, 1.0]
"""Of the epochs: the fourth is the best, also when the sixth is as good, until the eighth."""


def scripted_run(tmp_path, losses, **changes):
    """A run whose validation losses are `losses`, its experiment and program; each step adds 1 to the parameter."""
    config = changed(small_config(), epochs=len(losses), **changes)
    run, experiment = run_folder.create(tmp_path / "run", config), small_experiment(config)
    return run, experiment, scripted(run, experiment, validation=lambda step: losses[step // STEPS - 1])


@pytest.mark.parametrize(("patience", "epochs", "best"), [(1, 3, 2), (3, 7, 4), (0, 8, 8)])
def test_training_ends_when_the_validation_loss_has_not_improved_for_long(tmp_path, patience, epochs, best):
    run, experiment, program = scripted_run(tmp_path, LOSSES, patience=patience)
    fitted = loop.train(run, program)
    assert fitted.progress.finished
    assert not fitted.interrupted
    assert (fitted.progress.epoch, fitted.progress.best_epoch) == (epochs, best)
    assert fitted.progress.best_loss == LOSSES[best - 1]
    assert [line["validation_loss"] for line in run.read_metrics()] == LOSSES[:epochs]
    # The parameters of the best epoch, and the states of the two latest.
    assert fitted.trainable.theta["weight"].tolist() == [best * STEPS]
    trace = trace_of_scripted(run, experiment)
    assert trace.parameters["theta/weight"].tolist() == [best * STEPS]
    assert list(trace.states) == [(epochs - 1) * STEPS, epochs * STEPS]
    assert trace.progress[epochs * STEPS].best_step == best * STEPS


def test_of_equal_losses_the_first_is_the_best_and_is_kept(tmp_path):
    run, experiment, program = scripted_run(tmp_path, [2.0, 2.0, 2.0], patience=0)
    fitted = loop.train(run, program)
    assert fitted.progress.best_epoch == 1
    assert fitted.trainable.theta["weight"].tolist() == [STEPS]
    assert trace_of_scripted(run, experiment).parameters["theta/weight"].tolist() == [STEPS]


def test_every_epoch_is_saved(tmp_path):
    run, _, program = scripted_run(tmp_path, LOSSES[:7], patience=0)

    class Unplugged(Exception):
        pass

    def unplug_after(epoch):
        def unplug(done):
            if done == epoch:
                raise Unplugged

        return Watch(on_epoch=unplug)

    for epoch in range(1, 8):
        with pytest.raises(Unplugged):
            loop.train(run, program, reporter=unplug_after(epoch))
        with Checkpoints(run.checkpoints) as checkpoints:
            assert checkpoints.latest().epoch == epoch


def test_parameters_can_be_loaded_as_soon_as_an_epoch_has_ended(run, experiment):
    """And while training goes on: a reader leaves alone what is being saved."""
    with pytest.raises(MetarecError, match=r"no file of trained parameters yet: no epoch has ended.*--resume"):
        load_trainable(run, experiment.catalogue)
    fit(run, experiment, reporter=stopping_at(1))
    assert (run.checkpoints / "2").is_dir()
    with pytest.raises(MetarecError, match="no epoch has ended"):
        load_trainable(run, experiment.catalogue)
    half_saved = run.checkpoints / "4.orbax-checkpoint-tmp"
    half_saved.mkdir()
    fitted = fit(run, experiment, reporter=stopping_at(STEPS + 1))
    assert not half_saved.exists(), "a training removes what one before it left half-saved"
    half_saved.mkdir()
    assert_equal(load_trainable(run, experiment.catalogue), fitted.trainable)
    assert half_saved.exists()


def test_while_training_goes_on_the_parameters_of_the_best_epoch_so_far_can_be_loaded(run, experiment):
    losses = [3.0, 2.0, 4.0, 1.0]
    evaluated, loaded = [], []
    program = program_of(run, experiment)

    def evaluate(state):
        evaluated.append(jax.device_get(program.trained(state)))
        return {"validation_loss": losses[len(evaluated) - 1]}

    program = dataclasses.replace(program, evaluate=evaluate)
    watch = Watch(on_epoch=lambda epoch: loaded.append(load_trainable(run, experiment.catalogue)))
    fitted = loop.train(run, program, reporter=watch)
    for found, best in zip(loaded, [1, 2, 2, 4], strict=True):
        assert_equal(found, evaluated[best - 1])
    assert_equal(fitted.trainable, evaluated[3])


# On the devices


def test_transfers_that_nobody_asked_for_are_refused_during_an_epoch(run, experiment):
    def transfer(step):
        jnp.sin(np.ones(3, np.float32) * step)

    transfer(0)  # elsewhere it is allowed
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        fit(run, experiment, reporter=Watch(on_step=transfer))


def test_eight_devices_compile_once_a_bucket_and_train_as_one_does(tmp_path, compilations):
    """Two buckets, three epochs, two users a device.

    Sums over users are taken in another order on eight devices: a few roundings of 6e-8, which TOLERANCE leaves room
    for. Another dropout mask would change the first digit.
    """
    fitted = {}
    for devices in (1, 8):
        config = small_config(buckets=(6, 8), epochs=3, users_per_step=16, devices=devices)
        config = dataclasses.replace(
            config, learner=dataclasses.replace(config.learner, hidden=5)
        )  # compiled here only
        experiment = small_experiment(config)
        assert len({experiment.train.source[i].support.item.shape for i in range(len(experiment.train.source))}) == 2
        run, taken = run_folder.create(tmp_path / str(devices), config), []
        program = program_of(run, experiment)

        def step(state, tables, episodes, program=program, taken=taken):
            taken.append(len(episodes.weight.sharding.device_set))
            return program.step(state, tables, episodes)

        compilations.clear()
        fitted[devices] = loop.train(run, dataclasses.replace(program, step=step))
        assert taken == [devices] * len(experiment.train.source)
        assert compilations.count("jit(step)") == 2, compilations
        assert compilations.count("jit(of_rows)") == 2, compilations
    one, eight = fitted[1], fitted[8]
    assert eight.progress.best_step == one.progress.best_step
    assert eight.progress.best_loss == pytest.approx(one.progress.best_loss, rel=1e-5)
    assert_close(eight.trainable, one.trainable)


# In micro-batches


def test_micro_batches_train_as_the_whole_batch_does(tmp_path):
    """Three users at a time, of batches of eight: a last micro-batch is filled up with users who count nothing."""
    fitted = {}
    for users in (32, 3):
        config = small_config(epochs=2, users_per_device=users)
        run = run_folder.create(tmp_path / str(users), config)
        fitted[users] = fit(run, small_experiment(config))
    assert_close(fitted[3].trainable, fitted[32].trainable)
    assert fitted[3].progress.epoch == 2


@pytest.mark.slow
def test_as_many_users_as_fit_are_taken(tmp_path, monkeypatch):
    """By the memory of the compiled step: with room for a few users, the largest half, quarter, ... that fits."""
    config = small_config(epochs=1, users_per_device=0)
    experiment = small_experiment(config)

    def taken(budget, folder):
        run, watch = run_folder.create(tmp_path / folder, config), Watch()
        pages = round(budget / SHARE) * jax.local_device_count()
        with monkeypatch.context() as patch:  # what the operating system says of its memory
            patch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": pages, "SC_PAGE_SIZE": 1}.get)
            program = program_of(run, experiment, reporter=watch)
        (note,) = [note for note in watch.notes if "users at a time" in note]
        return int(note.split()[0]), loop.train(run, program)

    roomy, whole = taken(1e9, "roomy")
    assert roomy == 8
    mesh, run = user_mesh(1), run_folder.open_run(tmp_path / "roomy")
    state, tables = starting_state(run, experiment, mesh), prepared_tables(run, experiment, mesh)

    def needed(users):
        step = frozen_step(config, experiment.model, len(experiment.train.source), mesh, users)
        on_device = shard_users(mesh, padded(experiment.train.source[0], mesh, users))
        return temporaries(step.lower(state, tables, on_device).compile())

    most = needed(2)
    assert most < needed(8)
    tight, parts = taken(most + 1, "tight")
    assert tight == 2
    assert_close(parts.trainable, whole.trainable)
    with pytest.raises(MetarecError, match=r"one user needs .* MB .*lower the last of --episodes\.buckets"):
        taken(1, "none")


def test_free_memory_is_that_of_the_machine_on_a_cpu():
    free = free_memory(jax.devices()[0])
    assert 1e6 < free < 1e13


# Diverging


def test_an_inner_loop_that_diverges_is_reported_with_user_and_step(tmp_path):
    """A step so long that the third support loss overflows; what was saved before stays as it is, without a NaN."""
    config = small_config(epochs=2)
    config = dataclasses.replace(config, updater=UpdaterConfig(steps=4, rate=1e8))
    experiment = small_experiment(config)
    run = run_folder.create(tmp_path / "run", config)
    with pytest.raises(MetarecError) as caught:
        fit(run, experiment)
    found = re.search(
        r"training loss became (nan|inf) at outer step \d+ \(epoch 1\), since the inner loop of user '(u\d+)' diverged "
        r"at inner step (\d), and \d more of \d users: lower --train\.rate or --updater\.rate",
        str(caught.value),
    )
    assert found, str(caught.value)
    assert int(found[2][1:]) in experiment.splits.train
    assert 2 <= int(found[3]) <= 5
    assert not list(run.checkpoints.glob("[0-9]*"))


def test_who_diverged_is_whose_loss_left_the_finite_numbers_first(run, experiment):
    sums, names = program_of(run, experiment).sums, experiment.data.users.ids
    rows, steps = np.array([7, 3, 11]), experiment.model.steps
    assert steps == 2

    def said(*stopped):
        losses = Losses(query=np.float32(np.nan), rows=np.float32(1), stopped=np.array(stopped))
        with pytest.raises(MetarecError) as caught:
            sums(losses, Batch((), rows), Progress.at_start())
        return str(caught.value)

    assert "inner" not in said(3, 3, 3, 0)  # the fourth only fills up the batch
    assert f"user {names[3]!r} diverged at inner step 2: lower" in said(3, 1, 3)
    assert f"user {names[11]!r} diverged at inner step 1, and 1 more of 3 users: lower" in said(3, 1, 0)
    assert f"user {names[7]!r} diverged at inner step 1, and 2 more of 3 users: lower" in said(0, 0, 0)
    assert f"query loss of user {names[3]!r} is not finite after 2 inner steps: lower" in said(3, 2, 3)
