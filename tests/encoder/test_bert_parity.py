"""The same numbers as transformers' PyTorch BertModel, at every layer."""

from __future__ import annotations

import numpy as np
import pytest
from bert_reference import changed, check, compare, everything, random_params, random_tokens, run_torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax import encoder


@pytest.fixture(scope="module")
def torch_minilm(minilm_folder):
    import transformers

    return transformers.BertModel.from_pretrained(minilm_folder).eval()


def test_minilm_on_real_titles(minilm, titles, torch_minilm):
    by_length = sorted(set(titles), key=len)
    ids = encoder.tokenize(minilm.tokenizer, by_length[::10] + by_length[-8:], 512).ids
    groups = ((16, [i for i in ids if len(i) <= 16]), (48, [i for i in ids if len(i) > 16]))
    for length, group in groups:
        tokens = encoder.pack(group, length)
        compare(everything(minilm.params, minilm.config, tokens), run_torch(torch_minilm, tokens), tokens)


def test_minilm_on_real_text_of_512_tokens(minilm, titles, torch_minilm):
    texts = [" ".join(titles[:200]), " ".join(titles[500:560])]
    ids = encoder.tokenize(minilm.tokenizer, texts, 512).ids
    assert len(ids[0]) == 512
    tokens = encoder.pack(ids, 512)
    compare(everything(minilm.params, minilm.config, tokens), run_torch(torch_minilm, tokens), tokens)


@pytest.mark.parametrize(
    "activation",
    [
        "gelu",
        "gelu_new",
        "silu",
        # `test_activations` compares each by itself.
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("gelu_10", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu")),
    ],
)
def test_every_gelu(activation):
    config = changed(activation=activation)
    check(config, random_params(config, 1), random_tokens(np.random.default_rng(1), config, [7, 3], 9))


@pytest.mark.parametrize(
    "config",
    [
        changed(num_heads=1, type_vocab_size=1, has_pooler=False),
        changed(num_heads=24, intermediate_size=7, type_vocab_size=5, pad_token_id=49),
        changed(hidden_size=3, vocab_size=1, layer_norm_eps=1e-3, max_positions=1),
        changed(num_layers=4),
        changed(max_positions=512),
        changed(hidden_size=390, num_heads=13, intermediate_size=1000),
    ],
    ids=["one head", "heads of one", "narrow", "deep", "512 tokens", "wide"],
)
def test_odd_configurations(config):
    rng = np.random.default_rng(2)
    full = config.max_positions
    check(config, random_params(config, 2), random_tokens(rng, config, [full, 1, min(5, full)], full))


@settings(max_examples=3, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_configuration(data):
    heads, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    positions = data.draw(st.integers(1, 30))
    config = encoder.BertConfig(
        vocab_size=data.draw(st.integers(1, 40)),
        hidden_size=heads * (width + 1),
        num_layers=data.draw(st.integers(1, 2)),
        num_heads=heads,
        intermediate_size=data.draw(st.integers(1, 30)),
        max_positions=positions,
        type_vocab_size=data.draw(st.integers(1, 3)),
        activation=data.draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
    )
    lengths = data.draw(st.lists(st.integers(1, positions), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 1000))
    tokens = random_tokens(np.random.default_rng(seed), config, lengths, positions)
    check(config, random_params(config, seed), tokens)
