"""A run keeps the width of its vectors and their dense layers: trained, resumed, served, begun from, and compiled."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from dense_folders import by_torch, write_dense
from helpers import assert_says

from metarec_jax import Recommender, preset
from metarec_jax.config.data import DataConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.train import TrainConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.train.aot import workload
from metarec_jax.train.build import build
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.start import meta_train, resume, start

LENGTH = 16
"""Tokens to which every text is cut, so that each program is compiled once."""


def config_of(checkpoint, cache, **options):
    base = preset("synthetic")
    return dataclasses.replace(
        base,
        data=DataConfig(source="synthetic", cache=str(cache)),
        encoder=EncoderConfig(path=str(checkpoint), rate=1e-3, max_length=LENGTH, **options),
        episodes=dataclasses.replace(base.episodes, min_ratings=13, max_ratings=30, buckets=(16,)),
        learner=dataclasses.replace(base.learner, hidden=4),
        updater=dataclasses.replace(base.updater, steps=1, order="first"),
        train=TrainConfig(epochs=1, users_per_step=32, devices=1),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run that trained its encoder, of which it keeps 10 of 40 numbers."""
    made = tmp_path_factory.mktemp("dims")
    checkpoint = write_dense(made / "model")
    meta_train(config_of(checkpoint, made, train="all", dims=10), made / "run")
    return made


@pytest.mark.slow
def test_the_run_trains_its_dense_layers_and_keeps_the_width(folder):
    kept = json.loads((folder / "run" / "config.json").read_text())["encoder"]
    assert (kept["dims"], kept["dense"]) == (10, True)
    run, experiment = resume(folder / "run")
    assert experiment.train.tables.items.shape[1] == experiment.train.tables.users.shape[1] == 10
    texts = list(experiment.data.items.texts[:3])
    np.testing.assert_allclose(
        experiment.train.tables.items[:3], by_torch(folder / "model", texts, 10, LENGTH), rtol=0, atol=2e-6
    )
    trained = load_trainable(run, experiment.catalogue, experiment.encoder.params).encoder
    for name in ("projection_0", "projection_1"):
        moved = np.abs(trained[name]["kernel"] - np.asarray(experiment.encoder.params[name]["kernel"])).max(axis=0)
        assert moved.max() > 0


def test_the_run_is_served_with_its_width(folder):
    recommender = Recommender.load(folder / "run")
    state = recommender.adapt({7: 5, 8: 1, 9: 4}, "likes iron")
    assert state.embedding.shape == (10,)
    assert np.isfinite(recommender.score_text(state, "a film"))
    assert any(word.influence for word in recommender.explain(state, [3], words=True)[0].words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 41}, ["encoder.dims is 41", "40 numbers", "--encoder.dims 40"]),
        ({"dims": -1}, ["encoder.dims is -1", "0"]),
    ],
    ids=str,
)
def test_impossible_widths_are_refused(folder, options, words):
    with pytest.raises(MetarecError) as caught:
        build(config_of(folder / "model", folder, **options))
    assert_says(str(caught.value), *words)


def test_a_run_does_not_begin_from_vectors_of_another_meaning(folder, tmp_path):
    for options, words in [
        ({"dims": 12}, ["encoder.dims '10'", "'12'", "--encoder.dims 10"]),
        ({}, ["encoder.dims '10'", "'0'", "--encoder.dims 10"]),
        ({"dims": 10, "dense": False}, ["another encoder"]),
    ]:
        config = config_of(folder / "model", folder, train="all", **options)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, begin=str(folder / "run")))
        with pytest.raises(MetarecError) as caught:
            start(config, tmp_path / "run")
        assert_says(str(caught.value), str(folder / "run"), *words)
    copy = Path(shutil.copytree(folder / "run", tmp_path / "copy"))
    tree = json.loads((copy / "config.json").read_text())
    tree["encoder"]["dims"] = 11
    (copy / "config.json").write_text(json.dumps(tree))
    with pytest.raises(MetarecError, match=r"inputs\.json: encoder\.pooling, prompts"):
        resume(copy)


def test_a_run_from_before_dense_layers_has_none(folder, tmp_path):
    """Its config.json names neither option, and its encoder is the one without them."""
    run, _ = start(config_of(folder / "model", folder, dense=False), tmp_path / "run")
    before = json.loads((run.folder / "config.json").read_text())
    del before["encoder"]["dense"], before["encoder"]["dims"]
    (run.folder / "config.json").write_text(json.dumps(before))
    _, experiment = resume(run.folder)
    assert experiment.encoder.config.projections == ()
    assert experiment.train.tables.items.shape[1] == 64


@pytest.mark.parametrize(("dims", "width"), [(0, 64), (16, 16)])
def test_shapes_that_are_compiled_ahead_of_time_have_the_width(dims, width):
    config = dataclasses.replace(preset("synthetic"), encoder=EncoderConfig(path="random", dims=dims))
    assert workload.workload(config).width == width
