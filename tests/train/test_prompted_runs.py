"""A run reads items as documents and users as queries, when it trains its encoder too, and when it is served."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import assert_close, assert_says
from prompt_layouts import LAYOUTS, Layout, reference, write
from training import Watch

from metarec_jax import Recommender, preset
from metarec_jax.config.data import DataConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.train import TrainConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Tables
from metarec_jax.meta.text_passes import Chosen, embed
from metarec_jax.privacy.text_batches import PrivateTextBatches
from metarec_jax.recommender.cold_items import ColdItem
from metarec_jax.train.build import build
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.start import meta_train, resume, start
from metarec_jax.train.text_batches import TextBatches

NEW, PROFILE = "a lamp of glass and iron", "likes iron"
CLOSE = {"rtol": 0, "atol": 2e-6}  # a unit vector of 64 numbers, after two layers in float32


def config_of(folder, cache, **encoder):
    base = preset("synthetic")
    return dataclasses.replace(
        base,
        data=DataConfig(source="synthetic", cache=str(cache)),
        encoder=EncoderConfig(path=str(folder), **encoder),
        episodes=dataclasses.replace(base.episodes, min_ratings=13, max_ratings=30, buckets=(16,)),
        learner=dataclasses.replace(base.learner, hidden=4, user_side="profile"),
        updater=dataclasses.replace(base.updater, steps=1, order="first"),
        train=TrainConfig(epochs=1, users_per_step=32, devices=1),
    )


@pytest.fixture(scope="module", params=["e5", pytest.param("not pooled", marks=pytest.mark.slow)])
def run(request, tmp_path_factory):
    """A finished run over a checkpoint with prompts; the checkpoint's folder states others since then."""
    layout, folder = LAYOUTS[request.param], tmp_path_factory.mktemp("run")
    checkpoint, watch = write(folder / "model", layout), Watch()
    meta_train(config_of(checkpoint, folder), folder / "run", reporter=watch)
    later = {"prompts": {"query": "other: ", "document": "another: "}}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(later))
    return layout, checkpoint, folder / "run", watch


def test_a_run_keeps_prompts_and_length_of_its_checkpoint(run):
    layout, _, folder, watch = run
    kept = json.loads((folder / "config.json").read_text())["encoder"]
    assert (kept["query_prompt"], kept["document_prompt"]) == (layout.query, layout.document)
    assert (kept["pool_prompt"], kept["max_length"]) == ("yes" if layout.pool_prompt else "no", layout.length)
    (note,) = [note for note in watch.notes if note.startswith("prompts")]
    assert_says(note, repr(layout.query), repr(layout.document))


def test_items_are_documents_and_users_queries(run):
    layout, checkpoint, folder, _ = run
    _, experiment = resume(folder)
    tables, data = experiment.train.tables, experiment.data
    for side, table, texts in (("document", tables.items, data.items.texts), ("query", tables.users, data.users.texts)):
        np.testing.assert_allclose(table[:4], reference(checkpoint, layout, side, texts[:4]), **CLOSE)


def test_new_items_and_profiles_are_read_with_the_prompts_of_the_run(run):
    layout, checkpoint, folder, _ = run
    recommender = Recommender.load(folder, report=print)
    user = recommender.adapt({7: 5}, PROFILE).embedding
    np.testing.assert_allclose(user, reference(checkpoint, layout, "query", [PROFILE])[0], **CLOSE)
    item, _ = recommender.cold_items.read([ColdItem(NEW)])
    np.testing.assert_allclose(item, reference(checkpoint, layout, "document", [NEW]), **CLOSE)


def test_words_of_an_explanation_are_those_of_the_text(run):
    recommender = Recommender.load(run[2], report=print)
    text = recommender.catalogue.items.texts[3]
    (explanation,) = recommender.explain(recommender.adapt({7: 5, 8: 1, 9: 4}), [4], words=True)
    assert "".join(word.text for word in explanation.words) == text.replace(" ", "")
    assert any(word.influence for word in explanation.words)


def test_a_run_of_before_prompts_has_none(run, tmp_path):
    layout = run[0]
    folder = Path(shutil.copytree(run[2], tmp_path / "run"))
    document, inputs = (json.loads((folder / name).read_text()) for name in ("config.json", "inputs.json"))
    for option in ("query_prompt", "document_prompt", "pool_prompt"):
        del document["encoder"][option]
    del inputs["reading"]
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "inputs.json").write_text(json.dumps(inputs))
    recommender, (_, experiment) = Recommender.load(folder, report=print), resume(folder)
    items = list(experiment.data.items.texts[:3])
    plain = reference(run[1], Layout({}, length=layout.length), "document", items)
    np.testing.assert_allclose(experiment.train.tables.items[:3], plain, **CLOSE)
    np.testing.assert_allclose(recommender.texts.encode(items, side="document"), plain, **CLOSE)


@pytest.fixture(scope="module", params=["e5", pytest.param("not pooled", marks=pytest.mark.slow)])
def experiment(request, tmp_path_factory):
    """An experiment that trains its encoder."""
    folder = tmp_path_factory.mktemp("joint")
    checkpoint = write(folder / "model", LAYOUTS[request.param])
    return build(config_of(checkpoint, folder, train="all"))


def test_texts_of_joint_training_have_the_prompts_of_their_sides(experiment):
    part, items = experiment.train, experiment.data.items.texts
    texts = TextBatches(experiment.config, experiment.encoder, items, part, user_mesh(1), 32)
    got = jax.device_get(texts.tables(experiment.encoder.params))
    assert_close(got, Tables(*part.tables))


def test_texts_of_private_joint_training_have_the_prompts_of_their_sides(experiment):
    part, items = experiment.train, experiment.data.items.texts
    texts = PrivateTextBatches(experiment.config, experiment.encoder, items, part, user_mesh(1))
    apart, episodes = texts.localise(part.source[0])
    user = int(np.flatnonzero(episodes.weight)[0])
    chosen = Chosen(jax.tree.map(lambda leaf: leaf[user], apart.texts))
    table = jax.device_get(embed(texts.reading, experiment.encoder.params, chosen))
    batch = part.source[0]
    assert_close(table[episodes.user[user]], part.tables.users[batch.user[user]])
    real = batch.support.mask[user] > 0
    assert_close(table[episodes.support.item[user][real]], part.tables.items[batch.support.item[user][real]])


def test_a_run_is_not_continued_with_other_prompts(run, tmp_path):
    """Neither resumed after a change of its config.json, nor the beginning of a run that reads otherwise."""
    layout, checkpoint, folder, _ = run
    own = {"query_prompt": layout.query, "document_prompt": layout.document}
    own["pool_prompt"] = "yes" if layout.pool_prompt else "no"

    def begun(name, **changes):
        config = config_of(checkpoint, tmp_path, **{**own, **changes})
        train = dataclasses.replace(config.train, begin=str(folder))
        return start(dataclasses.replace(config, train=train), tmp_path / name)

    begun("same")
    for changes, says in [
        ({"query_prompt": "auto"}, ["encoder.query_prompt", repr(layout.query), "'other: '", "--encoder.query-prompt"]),
        ({"document_prompt": ""}, ["encoder.document_prompt", repr(layout.document), "--encoder.document-prompt"]),
        ({"pooling": "cls"}, ["encoder.pooling", "'mean'", "'cls'", "--encoder.pooling mean"]),
    ]:
        with pytest.raises(MetarecError) as error:
            begun("other", **changes)
        assert_says(str(error.value), str(folder), *says)
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    tree = json.loads((copy / "config.json").read_text())
    tree["encoder"]["document_prompt"] = "something else: "
    (copy / "config.json").write_text(json.dumps(tree))
    with pytest.raises(MetarecError, match=r"inputs\.json: encoder\.pooling, prompts or max_length in config"):
        resume(copy)
