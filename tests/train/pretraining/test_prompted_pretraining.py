"""Pretraining compares items as documents, reads masked words without prompts, and saves the prompts that it used."""

from __future__ import annotations

import dataclasses
import json

import pytest
from prompt_layouts import LAYOUTS, write
from small import small_config, small_data

from metarec_jax import encoder
from metarec_jax.config.pretrain import PretrainConfig, starting_from
from metarec_jax.config.run import Config
from metarec_jax.encoder import load
from metarec_jax.train import run_folder
from metarec_jax.train.pretraining import start as launch
from metarec_jax.train.pretraining.build import build


def config_of(folder, **options):
    config = small_config(steps=1, judge_every=1)
    return dataclasses.replace(
        config, encoder=dataclasses.replace(config.encoder, path=str(folder), max_length=40, **options)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pretraining") / "model", LAYOUTS["not pooled"])


def test_likes_are_read_as_documents_and_masked_words_without_prompt(checkpoint):
    parts, own = build(config_of(checkpoint), data=small_data()), load(checkpoint)
    prompt = LAYOUTS["not pooled"].document
    likes = parts.source.likes.texts
    read = {tuple(likes.ids[start : start + size]) for start, size in zip(likes.start, likes.size)}
    texts = small_data().items.texts
    assert read == {tuple(ids) for ids in encoder.tokenize(own.tokenizer, [prompt + text for text in texts], 40).ids}
    skip = encoder.prompt_length(own.tokenizer, prompt, 40)
    assert (likes.skip == skip).all()
    masked = {tuple(document.ids) for document in parts.source.items.documents}
    assert masked <= {tuple(ids[1:-1]) for ids in encoder.tokenize(own.tokenizer, texts, 512).ids}


@pytest.mark.parametrize(
    ("options", "prompts", "pooled"),
    [
        ({}, ("For search: ", "Stored: "), False),
        pytest.param(
            {"query_prompt": "q: ", "document_prompt": "", "pool_prompt": "yes"},
            ("q: ", ""),
            True,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_saved_encoder_states_the_prompts_that_were_used(checkpoint, tmp_path, options, prompts, pooled):
    parts = build(config_of(checkpoint, **options), data=small_data())
    run = run_folder.create(tmp_path / "run", parts.config, command="pretrain")
    hints = load(launch.finish(run, parts, launch.fit(run, parts))).hints
    assert (hints.prompt("query"), hints.prompt("document")) == prompts
    assert (hints.pool_prompt, hints.pooling, hints.max_length) == (pooled, "mean", 80)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["encoder"]["query_prompt"] == prompts[0]


def test_passages_have_128_tokens_unless_a_length_is_given():
    assert PretrainConfig().encoder.max_length == starting_from(Config()).encoder.max_length == 128
    own = dataclasses.replace(Config().encoder, max_length=64)
    assert starting_from(dataclasses.replace(Config(), encoder=own)).encoder.max_length == 64
