"""A run that trains its encoder: every part of it moves or stays as it should, resumes, is evaluated and served."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_close, assert_equal
from training import Watch, stopping_at

from metarec_jax import Recommender, preset
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.train import TrainConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.encoder import encode_table
from metarec_jax.meta import text_passes
from metarec_jax.meta.model import Trainable
from metarec_jax.train import loop, run_folder
from metarec_jax.train.build import build
from metarec_jax.train.embed import with_trained_encoder
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.start import fit, program_of, start
from metarec_jax.train.state import first_state
from metarec_jax.train.validation import Validation


def config_of(**encoder):
    base = preset("synthetic")
    return dataclasses.replace(
        base,
        encoder=EncoderConfig(path="random", rate=1e-3, **encoder),
        episodes=dataclasses.replace(base.episodes, min_ratings=13, max_ratings=30, buckets=(16,)),
        learner=dataclasses.replace(base.learner, hidden=4),
        updater=dataclasses.replace(base.updater, steps=1, order="first"),
        train=TrainConfig(epochs=2, users_per_step=32, devices=1),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs that trained all of the encoder; its experiment, result and program."""
    folder = tmp_path_factory.mktemp("joint") / "run"
    run, experiment = start(config_of(train="all"), folder)
    program = program_of(run, experiment)
    return run, experiment, loop.train(run, program), program


def test_the_encoder_is_trained_and_kept(trained):
    run, experiment, fitted, _ = trained
    before, after = experiment.encoder.params, fitted.trainable.encoder
    assert all(np.abs(a - b).max() > 0 for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before)) if b.ndim > 1)
    kept = load_trainable(run, experiment.catalogue, experiment.encoder.params)
    assert_equal(kept, fitted.trainable)
    losses = [line["validation_loss"] for line in run.read_metrics()]
    assert len(losses) == 2
    assert losses[-1] < losses[0]


def test_validation_reads_with_the_encoder_that_is_trained(trained):
    """The loss that was booked for the best epoch is that of tables that the saved encoder gives."""
    _, experiment, fitted, _ = trained
    again = with_trained_encoder(experiment, fitted.trainable)
    loss = Validation(again.model, user_mesh(1), again.validation)(fitted.trainable)
    assert loss == pytest.approx(fitted.progress.best_loss, rel=1e-4)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_numbers(trained, tmp_path):
    finished, experiment, whole, program = trained
    run = run_folder.create(tmp_path / "run", experiment.config)
    half = loop.train(run, program, reporter=stopping_at(3))
    assert half.interrupted
    resumed = loop.train(run, program)
    assert_equal(resumed.trainable, whole.trainable)
    assert run.parameters.read_bytes() == finished.parameters.read_bytes()


def test_it_is_served_with_its_own_embeddings(trained):
    run, experiment, fitted, _ = trained
    recommender = Recommender.load(run.folder)
    items = experiment.data.items
    config = experiment.config.encoder
    own = dataclasses.replace(experiment.encoder, params=fitted.trainable.encoder)
    wanted = encode_table(own, items.texts[:5], max_length=config.max_length)
    assert_close(recommender.catalogue.embeddings[:5], wanted)
    assert np.abs(recommender.catalogue.embeddings - experiment.catalogue.embeddings).max() > 1e-3
    user = recommender.adapt({f"id:{items.ids[0]}": 5, f"id:{items.ids[1]}": 1})
    assert len(recommender.recommend(user, k=3)) == 3
    known = recommender.score(user, [f"id:{items.ids[2]}"])[0]
    new = recommender.score_text(user, items.texts[2])
    assert np.isfinite(known)
    assert np.isfinite(new)


@pytest.mark.parametrize(
    ("choice", "moves"),
    [
        pytest.param(
            {"train": "lora", "lora_rank": 2}, lambda name: "lora_" in name, id="LoRA", marks=pytest.mark.slow
        ),
        pytest.param(
            {"train": "all", "frozen_layers": 1},
            lambda name: name.startswith("layer_1/"),
            id="frozen layers",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_only_what_shall_be_trained_moves_and_the_step_is_compiled_once(
    choice, moves, tmp_path, compilations, monkeypatch
):
    config, keeps, watch = config_of(**choice), "lora_rank" in choice, Watch()
    monkeypatch.setattr(text_passes, "KEPT", 1.0 if keeps else 0.0)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    run, experiment = start(config, tmp_path / "run")
    before = first_state(experiment, 1).trainable.encoder
    after = fit(run, experiment, reporter=watch).trainable.encoder
    (note,) = [note for note in watch.notes if "keeping" in note or "encoded again" in note]
    assert ("keeping" in note) == keeps
    assert compilations.count("jit(step)") == 1
    changed = {
        name
        for name, a, b in zip(path_names(before), jax.tree.leaves(before), jax.tree.leaves(after))
        if np.abs(np.asarray(a) - b).max() > 0
    }
    assert changed
    assert changed <= {name for name in path_names(before) if moves(name)}
    if "lora_rank" in choice:
        assert {name.rsplit("/", 1)[0] for name in changed} == {
            f"layer_{i}/{kind}" for i in range(2) for kind in ("query", "value")
        }
        assert np.isfinite(Recommender.load(run.folder).score_text(Recommender.load(run.folder).adapt(), "a film"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"rate": float("nan")}, "encoder.rate is nan"),
        ({"frozen_layers": -1}, "encoder.frozen_layers is -1"),
        ({"lora_rank": 0}, "encoder.lora_rank is 0"),
    ],
)
def test_impossible_choices_are_refused(choice, message):
    with pytest.raises(MetarecError, match=message):
        EncoderConfig(**choice)


def test_more_frozen_layers_than_there_are_is_refused(tmp_path):
    with pytest.raises(MetarecError, match=r"encoder\.frozen_layers is 3, but .* has 2 layers"):
        build(config_of(train="all", frozen_layers=3))


def test_texts_that_are_cut_are_told_of_once(tmp_path):
    """Those of items and those of users, each counted once, however often they are encoded."""
    watch = Watch()
    run, experiment = start(config_of(train="all", max_length=5), tmp_path / "run", reporter=watch)
    program_of(run, experiment, reporter=watch)
    with_trained_encoder(experiment, Trainable(None, None, experiment.encoder.params), watch)
    told = [note for note in watch.notes if "longer than 5 tokens" in note]
    assert len(told) == 2
    for note, texts in zip(told, (experiment.data.items.texts, experiment.data.users.texts)):
        assert f" of {len(set(texts))} texts" in note
