"""A run of each learner that reads the support, from a config to recommendations."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers import assert_close
from training import Watch

from metarec_jax import Recommender
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.json_io import to_json
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config, from_json, preset
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.learner.recurrent import RecurrentConfig
from metarec_jax.learner.transformer import TransformerConfig
from metarec_jax.meta.outer import predict
from metarec_jax.recommender.recommender import Rated
from metarec_jax.train.build import build
from metarec_jax.train.start import fit, start

LEARNERS = {
    "mlp": LearnerConfig(hidden=8, user_side="none"),
    "transformer": TransformerConfig(hidden=8, user_side="none", width=8),
    "recurrent": RecurrentConfig(hidden=8, user_side="none", width=8),
}


def config_of(kind: str) -> Config:
    base = preset("synthetic")
    return dataclasses.replace(
        base,
        encoder=EncoderConfig(path="random"),
        episodes=dataclasses.replace(base.episodes, min_ratings=13, max_ratings=30, buckets=(16,)),
        learner=LEARNERS[kind],
        updater=UpdaterConfig(steps=1, order="first"),
        train=TrainConfig(epochs=1, users_per_step=32, devices=1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_a_run_is_trained_kept_and_served(tmp_path, kind):
    run, parts = start(config_of(kind), tmp_path / "run")
    fitted = fit(run, parts)
    recommender = Recommender.load(run.folder)
    assert recommender.config.learner.kind == kind
    episodes = parts.test.source[0]
    trainable, tables, on_device = jax.device_put((fitted.trainable, parts.test.tables, episodes))
    assert "support" in trainable.theta
    outputs = predict(parts.model, trainable, parts.model.prepare(trainable.theta, tables), on_device)
    want = jax.vmap(parts.model.head.mean)(outputs)
    histories, ids = [], parts.data.items.ids
    for user in range(2):
        support = jax.tree.map(lambda leaf, user=user: leaf[user], episodes.support)
        histories.append([Rated(f"id:{ids[i]}", float(r)) for i, r, m in zip(*support[:3]) if m][::-1])
    states = recommender.adapt_many(histories)
    for user, state in enumerate(states):
        asked = [f"id:{ids[item]}" for item in episodes.query.item[user]]
        assert_close(recommender.score(state, asked), np.asarray(want[user]))
        assert_close(recommender.score(recommender.adapt(histories[user]), asked), np.asarray(want[user]))
    assert len(recommender.recommend(states[0], k=3)) == 3
    backwards = recommender.adapt(histories[0][::-1])
    minds = np.abs(recommender.score(backwards, asked) - recommender.score(states[0], asked)).max() > 1e-6
    assert minds == (kind == "recurrent")
    assert np.isfinite(recommender.score(recommender.adapt(), asked)).all()


def test_a_recurrent_learner_of_data_without_times_is_refused_before_anything_is_encoded():
    config, watch = config_of("recurrent"), Watch()
    data = load(config.data, seed=config.seed)
    data = dataclasses.replace(data, time=np.zeros_like(data.time))
    with pytest.raises(MetarecError, match=r"'recurrent' .*data has no times: .*--data\.columns\.time, or .*transform"):
        build(config, data=data, reporter=watch)
    assert watch.bars == []


def test_a_config_without_a_kind_is_that_of_an_mlp():
    """As runs were written before there were others."""
    tree = json.loads(to_json(config_of("mlp")))
    del tree["learner"]["kind"]
    assert from_json(json.dumps(tree), where="config.json").learner.kind == "mlp"
