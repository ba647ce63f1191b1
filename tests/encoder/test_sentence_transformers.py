"""What a sentence-transformers folder says of its vectors, and what a user hears of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from metarec_jax import encoder
from metarec_jax.config.data import DataConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.core.progress import Quiet
from metarec_jax.encoder.sentence_transformers import Hints, contradictions, read_hints
from metarec_jax.train import build

MODULE = "sentence_transformers.models."


def folder_of(path, *modules: str, **pooling):
    kinds = [{"idx": i, "path": "" if i == 0 else f"{i}_{m}", "type": MODULE + m} for i, m in enumerate(modules)]
    (path / "modules.json").write_text(json.dumps(kinds))
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


def test_minilm_says_what_it_does(minilm, minilm_folder):
    assert minilm.hints == read_hints(minilm_folder) == Hints("mean", True)
    assert encoder.remarks(minilm, pooling="mean", normalise=True) == []
    assert len(encoder.remarks(minilm, pooling="cls", normalise=False)) == 2


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
    ],
)
def test_what_modules_say(tmp_path, modules, pooling, hints):
    assert read_hints(folder_of(tmp_path, *modules, **pooling)) == hints


@pytest.mark.parametrize("text", ["", "{}", "[1, null]", '[{"type": 3, "path": []}]', "\x00"])
def test_what_cannot_be_read_says_nothing_of_pooling(tmp_path, text):
    (tmp_path / "modules.json").write_text(text)
    assert read_hints(tmp_path).pooling is None
    assert contradictions(read_hints(tmp_path / "nowhere"), pooling="cls", normalise=False) == []


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        (Hints("cls", True), [["pooling 'cls'", "'mean'", "--encoder.pooling cls"]]),
        (Hints("max", True), [["pooling 'max'", "does not compute"]]),
        (Hints("mean", False), [["their own length", "--encoder.no-normalise"]]),
        (Hints("mean", True, ("Dense",)), [["leaves out: Dense"]]),
        (Hints("mean", True), []),
        (Hints(), []),
    ],
)
def test_each_contradiction_is_a_sentence(hints, words):
    said = contradictions(hints, pooling="mean", normalise=True)
    assert len(said) == len(words)
    for sentence, parts in zip(said, words):
        assert all(part in sentence for part in parts)


def test_a_user_hears_of_it_once_when_data_and_encoder_are_put_together(monkeypatch, tmp_path):
    heard = []

    class Listening(Quiet):
        def note(self, text: str) -> None:
            heard.append(text)

    hinted = dataclasses.replace(encoder.load("random"), hints=Hints("cls", True))
    monkeypatch.setattr(build, "load_encoder", lambda path: hinted)
    config = Config(data=DataConfig(source="synthetic", cache=str(tmp_path)), encoder=EncoderConfig("random"))
    build.build(config, reporter=Listening())
    assert len([note for note in heard if "--encoder.pooling cls" in note]) == 1
