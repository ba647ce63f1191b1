"""Encoders as deep and as wide, and vocabularies as large, as those that people use, against transformers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_parity, random_params, random_tokens, recycled_params, run_torch, torch_model

from metarec_jax import encoder

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FEW = {"vocab_size": 60, "max_positions": 16}
"""Rows of the tables, which make weights large and nothing harder."""
DEEP = {
    "bert-base": encoder.BertConfig(hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, **FEW),
    "bert-large": encoder.BertConfig(hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096, **FEW),
}


@pytest.mark.parametrize("name", ["bert-base", pytest.param("bert-large", marks=pytest.mark.slow)])
def test_every_layer_of_a_deep_encoder_has_the_numbers_of_transformers(name):
    """Differences do not grow with depth, which the norms see to: 3e-6 at most, of numbers of a few units."""
    from transformers.initialization import no_init_weights

    config = DEEP[name]
    params, tokens = recycled_params(config, 0), random_tokens(np.random.default_rng(0), config, [16, 5, 1], 16)
    with no_init_weights():
        model = torch_model(config, params)
    states, pooled = run_torch(model, tokens)
    real = tokens.mask > 0
    assert len(states) == config.num_layers + 1

    @jax.jit
    def layer(own, x):  # one program for all of them
        return encoder.run_layers({"layer_0": own}, config, x, jnp.asarray(tokens.mask), first=0, last=1)

    x = encoder.embed(params, config, tokens)
    for number, theirs in enumerate(states):
        assert_parity(np.asarray(x)[real], theirs[real])
        if number < config.num_layers:
            x = layer(params[f"layer_{number}"], x)
    first = np.asarray(x)[:, 0] @ params["pooler"]["kernel"] + params["pooler"]["bias"]
    assert_parity(np.tanh(first), pooled)


def chinese() -> list[str]:
    """21,128 tokens, laid out as in bert-base-chinese: a padding row, unused ones, special tokens, then characters."""
    pad, *special = SPECIAL_TOKENS
    letters = [chr(c) for c in (*range(33, 65), *range(91, 127))]
    pieces = [*letters, *(f"##{letter}" for letter in letters), "film", "##ing"]
    signs = ["，", "。", "！", "？", "《", "》", "："]
    known = [pad, *(f"[unused{n}]" for n in range(1, 100)), *special, *pieces, *signs]
    return known + [chr(0x4E00 + n) for n in range(21_128 - len(known))]


def multilingual() -> list[str]:
    """119,547 cased tokens, laid out as in bert-base-multilingual-cased, of many scripts."""
    pad, *special = SPECIAL_TOKENS
    scripts = [
        (33, 127),
        (0xC0, 0x250),
        (0x370, 0x590),
        (0x5D0, 0x5EB),
        (0x620, 0x64B),
        (0x900, 0x980),
        (0x3041, 0x30FF),
    ]
    letters = [chr(c) for first, last in scripts for c in range(first, last)]
    words = ["Film", "film", "Die", "Stadt", "фильм", "Москва", "κόσμος", "##s", "##ия"]
    known = [pad, *(f"[unused{n}]" for n in range(1, 100)), *special, *letters, *(f"##{a}" for a in letters), *words]
    known = list(dict.fromkeys(known))
    known += [chr(0x4E00 + n) for n in range(20_000)]
    return known + [f"##filler{n}" for n in range(119_547 - len(known))]


TEXTS = [
    "霸王别姬 (1993)，剧情片。",
    "重慶森林 Films，films!",
    "Die Städte, Kinofilme",
    "ФИЛЬМ Москва кинофильмы",
    "κόσμος שלום عالم हिन्दी ひらがな",
    "İstanbul naïve Café",
    "",
]


@pytest.mark.parametrize(
    ("vocabulary", "size", "cased"),
    [(chinese, 21_128, False), (multilingual, 119_547, True)],
    ids=["Chinese", "multilingual, cased"],
)
def test_a_vocabulary_of_another_language_is_read_end_to_end(vocabulary, size, cased, tmp_path):
    """A folder of transformers with a vocab.txt and no tokenizer.json: the same tokens, and the same numbers."""
    import transformers

    tokens = vocabulary()
    assert len(set(tokens)) == len(tokens) == size
    config = encoder.BertConfig(
        vocab_size=size, hidden_size=24, num_layers=2, num_heads=3, intermediate_size=40, max_positions=40
    )
    model = torch_model(config, random_params(config, 1))
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    if cased:
        (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    ours = encoder.load(tmp_path)
    assert (ours.config, ours.tokenizer.size) == (dataclasses.replace(config), size)

    theirs = transformers.BertTokenizer(vocab={token: row for row, token in enumerate(tokens)}, do_lower_case=not cased)
    ids = encoder.tokenize(ours.tokenizer, TEXTS, 40).ids
    assert [own.tolist() for own in ids] == theirs(TEXTS, truncation=True, max_length=40)["input_ids"]
    assert max(own.max() for own in ids) > 200
    batch = encoder.pack(ids, 40)
    states, _ = run_torch(model, batch)
    real = batch.mask > 0
    for layer, wanted in zip(encoder.hidden_states(ours.params, ours.config, batch), states):
        assert_parity(np.asarray(layer)[real], wanted[real])
