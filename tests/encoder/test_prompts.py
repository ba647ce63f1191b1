"""Prompts and greatest length that a checkpoint's folder states: the embeddings are those of PyTorch."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from helpers import assert_says
from prompt_layouts import LAYOUTS, Layout, reference, write
from training import Watch

from metarec_jax import encoder
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.sentence_transformers import Hints
from metarec_jax.train.encoder_options import resolve_encoder

TEXTS = ["Alien (1979): a crew, hunted", "tea", "", "a lamp of many words " * 8]
CLOSE = {"rtol": 0, "atol": 2e-6}  # a unit vector of 64 numbers, after two layers in float32


@pytest.fixture(scope="module", params=list(LAYOUTS))
def checkpoint(request, tmp_path_factory):
    layout = LAYOUTS[request.param]
    return layout, write(tmp_path_factory.mktemp("layout") / "model", layout)


def test_a_folder_states_its_prompts(checkpoint):
    layout, folder = checkpoint
    bert = encoder.load(folder)
    assert (bert.hints.prompt("query"), bert.hints.prompt("document")) == (layout.query, layout.document)
    assert bert.hints.pool_prompt == layout.pool_prompt
    assert bert.max_length == (layout.length or 128)
    assert encoder.remarks(bert, "auto") == []


@pytest.mark.parametrize("side", ["query", "document"])
def test_embeddings_with_a_prompt_are_those_of_pytorch(checkpoint, side):
    layout, folder = checkpoint
    bert = encoder.load(folder)
    got = encoder.encode_table(bert, TEXTS, prompt=bert.hints.prompt(side))
    np.testing.assert_allclose(got, reference(folder, layout, side, TEXTS), **CLOSE)
    if bert.hints.prompt(side):
        assert np.abs(got - encoder.encode_table(bert, TEXTS)).max() > 1e-3


def test_a_saved_encoder_states_what_its_folder_stated(checkpoint, tmp_path):
    _, folder = checkpoint
    bert = encoder.load(folder)
    encoder.save(bert, tmp_path / "saved")
    assert encoder.load(tmp_path / "saved").hints == bert.hints._replace(normalise=False)


def test_prompts_that_are_replaced_are_saved(tmp_path):
    hints = Hints("mean", prompts=(("passage", "old: "), ("clustering", "c: ")), default_prompt="passage")
    assert hints.with_prompts("old: ", "old: ") is hints
    bert = dataclasses.replace(encoder.load("random"), hints=hints.with_prompts("q: ", ""))
    encoder.save(bert, tmp_path / "saved")
    found = encoder.load(tmp_path / "saved").hints
    assert (found.prompt("query"), found.prompt("document")) == ("q: ", "")
    assert dict(found.prompts)["clustering"] == "c: "


@pytest.mark.parametrize(
    "text",
    ["", "[]", "\x00", '{"prompts": []}', '{"prompts": {"query": 3}}', '{"default_prompt_name": "nothing"}'],
)
def test_files_without_prompts_state_none(tmp_path, text):
    folder = write(tmp_path / "model", LAYOUTS["none"])
    (folder / "config_sentence_transformers.json").write_text(text)
    assert encoder.load(folder).hints.prompt("query") == ""


@pytest.mark.parametrize(
    ("stated", "length"), [(512, 512), (10_000, 512), (3, 3), (2, 128), (None, 128), ("64", 128), (True, 128)]
)
def test_the_length_is_bounded_by_positions_and_has_a_default(tmp_path, stated, length):
    folder = write(tmp_path / "model", LAYOUTS["none"])
    (folder / "sentence_roberta_config.json").write_text(json.dumps({"max_seq_length": stated}))
    assert encoder.load(folder).max_length == length


@pytest.mark.parametrize(("stated", "length"), [(77, 77), (10**30, 128), (None, 128), (10_000, 512)])
def test_files_of_version_6_leave_the_length_to_the_tokenizer(tmp_path, stated, length):
    folder = write(tmp_path / "model", LAYOUTS["none"])
    (folder / "sentence_bert_config.json").write_text('{"transformer_task": "feature-extraction"}')
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": stated}))
    assert encoder.load(folder).max_length == length


def test_prompts_for_other_tasks_only_are_a_note_unless_prompts_are_given(tmp_path):
    bert, watch = encoder.load(write(tmp_path / "model", Layout({"s2p": "Instruct: ", "sts": ""}))), Watch()
    assert resolve_encoder(EncoderConfig(), bert, watch).query_prompt == ""
    (note,) = watch.notes
    assert_says(note, "s2p, sts", "--encoder.query-prompt", "--encoder.document-prompt")
    resolve_encoder(EncoderConfig(query_prompt="", document_prompt=""), bert, watch)
    assert len(watch.notes) == 1


def test_the_cache_distinguishes_prompts_and_their_pooling(tmp_path):
    bert, texts = encoder.load("random"), ["a film", "query: a film"]
    options = [{}, {"prompt": "query: "}, {"prompt": "query: ", "pool_prompt": False}, {"prompt": "passage: "}]
    fresh = [encoder.encode_table(bert, texts, **own) for own in options]
    for _ in range(2):  # written, then read
        kept = [encoder.encode_table(bert, texts, cache=tmp_path, **own) for own in options]
        for got, want in zip(kept, fresh):
            np.testing.assert_array_equal(got, want)
    assert len(list(tmp_path.iterdir())) == len(options)
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(fresh) for b in fresh[:i])


def test_a_prompt_without_room_for_text_is_refused():
    bert = encoder.load("random")
    with pytest.raises(MetarecError) as caught:
        encoder.encode_table(bert, ["a"], prompt="word " * 4000, max_length=64)
    assert_says(str(caught.value), "the prompt 'word word", "max_length 64", "shorter", "--encoder.max-length")
    assert len(str(caught.value)) < 600


def test_words_of_a_prompted_text_are_those_of_the_text():
    tokenizer = encoder.load("random").tokenizer
    words = encoder.words_of(tokenizer, "a crew, hunted", 64, prompt="passage: ")
    assert [word for word, _ in words.words] == ["a", "crew", ",", "hunted"]
    np.testing.assert_array_equal(words.ids, encoder.tokenize(tokenizer, ["passage: a crew, hunted"], 64).ids[0])
    places = sorted(place for _, own in words.words for place in own)
    assert places == list(range(encoder.prompt_length(tokenizer, "passage: ", 64), len(words.ids) - 1))
    (joined,) = encoder.words_of(tokenizer, "film", 64, prompt="x").words
    assert joined[0] == "film"
