"""What a sentence-transformers folder says of its vectors, and how a run follows it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from metarec_jax import encoder
from metarec_jax.config.data import DataConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.run import Config
from metarec_jax.core.progress import Quiet
from metarec_jax.encoder.sentence_transformers import Hints, read_hints
from metarec_jax.train import build
from metarec_jax.train.start import start

MODULE = "sentence_transformers.models."


def folder_of(path, *modules: str, **pooling):
    kinds = [{"idx": i, "path": "" if i == 0 else f"{i}_{m}", "type": MODULE + m} for i, m in enumerate(modules)]
    (path / "modules.json").write_text(json.dumps(kinds))
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


def saved(path, hints: Hints):
    """A folder of a random encoder whose makers pool so."""
    encoder.save(dataclasses.replace(encoder.load("random"), hints=hints), path)
    return path


def test_minilm_says_what_it_does(minilm, minilm_folder):
    assert minilm.hints == read_hints(minilm_folder) == Hints("mean", True, max_length=256)
    assert encoder.remarks(minilm, "auto") == []


@pytest.mark.parametrize(
    ("modules", "pooling", "hints"),
    [
        (["Transformer", "Pooling"], {"pooling_mode_cls_token": True}, Hints("cls", False)),
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode": "mean"}, Hints("mean", True)),
        (
            ["Transformer", "Pooling", "Dense"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True, "pooling_mode_cls_token": False},
            Hints("mean + max", False, ("Dense",)),
        ),
        (["Transformer", "Pooling"], {}, Hints(None, False)),
        (["Transformer", "Pooling"], {"pooling_mode": ["mean", "max"]}, Hints("mean + max", False)),
    ],
)
def test_what_modules_say(tmp_path, modules, pooling, hints):
    assert read_hints(folder_of(tmp_path, *modules, **pooling)) == hints


@pytest.mark.parametrize("text", ["", "{}", "[1, null]", '[{"type": 3, "path": []}]', "\x00"])
def test_what_cannot_be_read_says_nothing_of_pooling(tmp_path, text):
    (tmp_path / "modules.json").write_text(text)
    assert read_hints(tmp_path).pooling is None
    assert read_hints(tmp_path / "nowhere").remarks("auto") == []


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        (Hints("cls", True), []),
        (Hints("max", True), [["pooling 'max'", "does not compute", "'mean' is used"]]),
        (Hints("mean", False), []),
        (Hints("mean", True, ("Dense",)), [["leaves out: Dense"]]),
        (Hints("mean", True), []),
        (Hints(), []),
    ],
)
def test_what_is_not_followed_is_a_sentence(hints, words):
    said = hints.remarks("auto")
    assert len(said) == len(words)
    for sentence, parts in zip(said, words):
        assert all(part in sentence for part in parts)


@pytest.mark.parametrize(("says", "pooling"), [("cls", "cls"), ("mean", "mean"), ("max", "mean"), (None, "mean")])
def test_auto_is_what_the_folder_says_and_a_choice_stays(says, pooling):
    assert Hints(says).resolve("auto") == pooling
    assert Hints(says).resolve("mean") == "mean"
    assert Hints(says).resolve("cls") == "cls"


@pytest.mark.parametrize("hints", [Hints("cls", True), Hints("mean", False), Hints("max", True), Hints()])
def test_a_saved_encoder_says_what_its_folder_said(tmp_path, hints):
    assert encoder.load(saved(tmp_path / "bert", hints)).hints == hints


def test_a_table_is_pooled_as_the_folder_says_unless_told_otherwise(tmp_path):
    bert = encoder.load(saved(tmp_path / "bert", Hints("cls", True)))
    texts = ["a film", "another film"]
    auto, cls, mean = (encoder.encode_table(bert, texts, pooling=pooling) for pooling in ("auto", "cls", "mean"))
    np.testing.assert_array_equal(auto, cls)
    np.testing.assert_array_equal(encoder.encode_table(bert, texts), cls)
    assert np.abs(auto - mean).max() > 1e-3


def config_of(folder, cache):
    """Synthetic ratings, for which nothing but the encoder is needed."""
    data, encoder_ = DataConfig(source="synthetic", cache=str(cache)), EncoderConfig(str(folder))
    return Config(data=data, encoder=encoder_, factors=FactorsConfig(rank=0))


class Listening(Quiet):
    def __init__(self):
        self.heard = []

    def note(self, text: str) -> None:
        self.heard.append(text)


def test_a_run_keeps_the_pooling_that_its_encoder_says(tmp_path):
    folder = saved(tmp_path / "bert", Hints("cls", True))
    config = config_of(folder, tmp_path)
    assert config.encoder.pooling == "auto"
    run, assembly = start(config, tmp_path / "run")
    assert run.config.encoder.pooling == assembly.config.encoder.pooling == "cls"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["encoder"]["pooling"] == "cls"
    texts = assembly.data.items.texts[:5]
    expected = encoder.encode_table(assembly.encoder, texts, pooling="cls")
    np.testing.assert_array_equal(assembly.catalogue.embeddings[:5], expected)


def test_a_user_hears_of_what_is_not_followed_once(tmp_path):
    listening = Listening()
    folder = saved(tmp_path / "bert", Hints("max", True))
    build.build(config_of(folder, tmp_path), reporter=listening)
    assert len([note for note in listening.heard if "'max'" in note]) == 1
