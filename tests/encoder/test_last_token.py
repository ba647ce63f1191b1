"""Pooling of the last token, as of Qwen3-Embedding: files, prompts, cut texts and padding."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_parity
from helpers import assert_close
from test_architectures import theirs

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError

QUERY = "Instruct: find films\nQuery:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as Qwen3-Embedding's: its tokenizer ends each text with the token of padding."""
    made = tmp_path_factory.mktemp("theirs") / "qwen3"
    model, tokenizer = theirs("qwen3", max_position_embeddings=64, pad_token_id=None)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (made / "modules.json").write_text(json.dumps(modules))
    (made / "1_Pooling").mkdir()
    (made / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    prompts = {"prompts": {"query": QUERY, "document": ""}, "default_prompt_name": None}
    (made / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return made


def by_transformers(folder, texts: list[str], max_length: int) -> np.ndarray:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        with torch.no_grad():
            vectors.append(model(torch.tensor([ids])).last_hidden_state[0, -1].numpy())
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def test_embeddings_are_those_of_transformers(folder, tmp_path):
    ours = encoder.load(folder)
    assert (ours.hints.pooling, ours.hints.prompt("query"), ours.hints.prompt("document")) == ("lasttoken", QUERY, "")
    assert encoder.remarks(ours, "auto") == []
    texts = ["a film", "", "電影 movie", "word " * 60]
    encoder.save(ours, tmp_path / "again")
    assert encoder.load(tmp_path / "again").hints == ours.hints
    assert encoder.load(tmp_path / "again").config == ours.config
    for prompt in ("", QUERY):
        found = encoder.encode_table(ours, texts, prompt=prompt, max_length=40)
        assert_parity(found, by_transformers(folder, [prompt + text for text in texts], 40))
        assert_parity(by_transformers(tmp_path / "again", ["a film"], 40), by_transformers(folder, ["a film"], 40))


def test_a_causal_encoder_without_a_stated_pooling_takes_the_last_token(tmp_path):
    model, tokenizer = theirs("qwen3")
    model.save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    ours = encoder.load(tmp_path / "bare")
    assert ours.hints.pooling == "lasttoken"
    auto, last, mean = (encoder.encode_table(ours, ["a film"], pooling=how) for how in ("auto", "lasttoken", "mean"))
    np.testing.assert_array_equal(auto, last)
    assert np.abs(auto - mean).max() > 1e-3


def test_padding_on_either_side_and_texts_without_a_token():
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.normal(size=(4, 5, 3)), jnp.float32)
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], jnp.float32)
    wanted = np.stack([states[0, 4], states[1, 1], states[2, 3], np.zeros(3, np.float32)])
    assert_close(encoder.pool(states, mask, pooling="lasttoken"), wanted)

    def loss(states):
        return jnp.sum(jnp.sin(encoder.pool(states, mask, pooling="lasttoken", normalise=True)))

    slope = np.asarray(jax.grad(loss)(states))
    assert np.isfinite(slope).all()
    assert {(text, token) for text, token in zip(*np.nonzero(np.abs(slope).sum(axis=2)))} == {(0, 4), (1, 1), (2, 3)}


@pytest.mark.parametrize("kind", [pytest.param("modernbert", marks=pytest.mark.slow), "qwen3"])
def test_no_text_sees_another_nor_its_padding_and_a_causal_one_not_its_future(kind):
    own = {"num_key_value_heads": 1, "head_dim": 8} if kind == "qwen3" else {"window": 4, "pad_token_id": 0}
    config = encoder.config_class(kind)(30, 16, 3, 2, 24, **own)
    params = encoder.init(0, config)
    mask = jnp.asarray(np.arange(9) < np.array([9, 5])[:, None], jnp.float32)
    tokens = encoder.Tokens(jnp.ones((2, 9), jnp.int32), mask, jnp.zeros((2, 9), jnp.int32))
    embedded = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 16)), jnp.float32)

    def at(x, token, run):
        return jnp.sum(jnp.sin(encoder.run_layers(params, config, x, tokens.mask, first=0, last=3, run=run)[1, token]))

    for run in (encoder.Execution(), encoder.Execution("tiled", scan=True)):
        slope = np.abs(jax.grad(at)(embedded, 2, run)).sum(axis=2)
        seen = {int(token) for token in np.flatnonzero(slope[1])}
        assert not slope[0].any()
        assert seen == ({0, 1, 2} if kind == "qwen3" else {0, 1, 2, 3, 4})


def test_a_window_ends_where_it_says():
    config = encoder.ModernBertConfig(30, 16, 1, 2, 24, pad_token_id=0, window=4, layer_types=("sliding_attention",))
    params = encoder.init(0, dataclasses.replace(config, init_scale=0.5))
    embedded = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 16)), jnp.float32)

    def at(x):
        return jnp.sum(jnp.sin(encoder.run_layers(params, config, x, jnp.ones((1, 9)), first=0, last=1)[0, 4]))

    slope = np.abs(jax.grad(at)(embedded)).sum(axis=2)[0]
    assert set(np.flatnonzero(slope)) == {2, 3, 4, 5, 6}


def test_the_first_token_of_a_causal_encoder_is_refused(folder):
    with pytest.raises(MetarecError, match=r"'cls', but .* is causal \(qwen3\).*lasttoken"):
        encoder.encode_table(encoder.load(folder), ["a film"], pooling="cls")


@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_bfloat16_is_close_and_its_results_are_float32(kind):
    own = {"num_key_value_heads": 1, "head_dim": 8} if kind == "qwen3" else {"pad_token_id": 0}
    config = encoder.config_class(kind)(30, 16, 3, 2, 24, **own)
    params, tokens = encoder.init(0, config), encoder.pack([np.arange(1, 9, dtype=np.int32)], 12)
    narrow, wide = (
        np.asarray(encoder.encode(params, config, tokens, normalise=True, dtype=dtype)) for dtype in ("bfloat16", None)
    )
    assert narrow.dtype == np.float32
    assert 0 < np.abs(narrow - wide).max() < 0.05
