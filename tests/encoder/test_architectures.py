"""Every architecture: the numbers of transformers' PyTorch models at every layer, files, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizer_kinds
from bert_reference import (
    changed,
    check,
    compare,
    everything,
    random_params,
    random_tokens,
    run_torch,
)
from helpers import assert_close, assert_each_close
from safetensors.numpy import load_file, save_file

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import convert
from metarec_jax.encoder.architectures import ARCHITECTURES
from metarec_jax.encoder.attention import distance_buckets

ALL = list(ARCHITECTURES)
LIKE_ROBERTA = ("xlm-roberta", "camembert")
"""Kinds that are computed as RoBERTa is: slow tests."""

LENGTH = 20  # positions of a text
COUNTS_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")


NOT_BERT = ("modernbert", "qwen3", "gemma3_text")
SHARED_KEYS = ("qwen3", "gemma3_text")


def each_of(kinds):
    """Run a test for each of these kinds; those like RoBERTa only in `make test-all`."""
    return pytest.mark.parametrize(
        "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in LIKE_ROBERTA)) for kind in kinds]
    )


def of(kind: str, **changes) -> encoder.ModelConfig:
    """A small configuration of an architecture."""
    sizes = {name: getattr(changed(), name) for name in ("vocab_size", "hidden_size", "num_heads", "intermediate_size")}
    pad, own = 1 if kind in COUNTS_PADDING else 0, {"num_key_value_heads": 1} if kind in SHARED_KEYS else {}
    own = {"num_layers": 2, "pad_token_id": pad, "model_type": kind, "max_positions": LENGTH, **own}
    return encoder.config_class(kind)(**{**sizes, **own, **ARCHITECTURES[kind].fixed, **changes})


def theirs(kind: str, **changes):
    """transformers' model of an architecture, with random numbers everywhere, and its tokenizer."""
    import torch
    import transformers

    tokenizer = tokenizer_kinds.OF_ARCHITECTURE[kind]()
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    if kind == "distilbert":
        sizes = {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40}
    if kind in SHARED_KEYS:
        sizes |= {"num_key_value_heads": 1, "head_dim": 10}
    if kind == "gemma3_text":
        sizes |= {"use_bidirectional_attention": True, "sliding_window": 8, "query_pre_attn_scalar": 7}
        sizes |= {"layer_types": ["sliding_attention", "full_attention"]}
    sizes |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    sizes["max_position_embeddings"] = LENGTH + (2 if kind in COUNTS_PADDING else 0)
    config = transformers.AutoConfig.for_model(kind, **sizes | changes)
    model = transformers.AutoModel.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            spread = 0.2 if value.ndim == 1 else min(0.5, value.shape[-1] ** -0.5)
            value.copy_(spread * torch.randn(value.shape, generator=generator) + 0.5 * (value.ndim == 1))
    return model, tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What transformers saves of each architecture."""
    made = {}
    for kind in ALL:
        made[kind] = tmp_path_factory.mktemp("theirs") / kind
        model, tokenizer = theirs(kind)
        model.save_pretrained(made[kind])
        tokenizer.save_pretrained(made[kind])
    return made


def copied(folder: Path, into: Path) -> Path:
    """A copy to damage."""
    into.mkdir()
    for file in folder.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    return into


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder, *words: str) -> None:
    with pytest.raises(MetarecError) as error:
        encoder.load(folder)
    for word in words:
        assert word in str(error.value)


def tokens_with_padding_inside(config: encoder.ModelConfig) -> encoder.Tokens:
    """Random texts, the longest as long as can be, and one that spells out the padding token in its middle."""
    tokens = random_tokens(np.random.default_rng(3), config, [LENGTH, 9, 1], LENGTH)
    tokens.ids[0, 4] = tokens.ids[1, 0] = tokens.ids[1, 6] = config.pad_token_id
    return tokens


# ---- the same numbers


@each_of(ALL)
def test_what_transformers_saves_loads_with_its_numbers_and_goes_back(kind, folders, tmp_path):
    import transformers

    ours = encoder.load(folders[kind])
    assert (ours.config.model_type, ours.config.max_positions, ours.config.num_layers) == (kind, LENGTH, 2)
    original = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    tokens = tokens_with_padding_inside(ours.config)
    wanted = run_torch(original, tokens)
    assert len(wanted[0]) == 3
    compare(everything(ours.params, ours.config, tokens), wanted, tokens)

    encoder.save(ours, tmp_path / "ours")
    again = encoder.load(tmp_path / "ours")
    assert again.config == ours.config
    assert again.digest == ours.digest
    saved = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
    assert type(saved) is type(original)
    for got, want in zip(run_torch(saved, tokens), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    tokenizer, before = (transformers.AutoTokenizer.from_pretrained(f) for f in (tmp_path / "ours", folders[kind]))
    assert type(tokenizer) is type(before)
    for text in tokenizer_kinds.HARD:
        assert tokenizer(text)["input_ids"] == before(text)["input_ids"]


@pytest.mark.parametrize(
    ("kind", "hidden", "heads"),
    [
        ("bert", 1024, 16),
        pytest.param("xlm-roberta", 768, 12, marks=pytest.mark.slow),
        pytest.param("distilbert", 768, 12, marks=pytest.mark.slow),
        ("mpnet", 768, 12),
    ],
)
def test_the_widths_and_heads_of_real_models(kind, hidden, heads):
    """bert-large, xlm-roberta-base, distilbert-base and mpnet-base, but for their depth and their vocabularies."""
    config = of(kind, hidden_size=hidden, num_heads=heads, intermediate_size=4 * hidden, max_positions=64)
    check(config, random_params(config, 1), random_tokens(np.random.default_rng(1), config, [64, 30, 2], 64))


def test_distances_are_put_into_the_buckets_of_transformers():
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    places = torch.arange(600)
    wanted = MPNetEncoder.relative_position_bucket(places[None, :] - places[:, None])
    np.testing.assert_array_equal(distance_buckets(600), wanted)


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_padding_changes_nothing_where_positions_count_it(kind):
    config = of(kind)
    params, tokens = random_params(config, 0), random_tokens(np.random.default_rng(0), config, [9, 4, 1], 12)
    padding = tokens.mask == 0
    tokens.ids[padding] = config.pad_token_id
    encode = jax.jit(encoder.encode, static_argnames="config")
    before = encode(params, config, tokens)
    other = tokens._replace(ids=np.where(padding, 7, tokens.ids))
    np.testing.assert_array_equal(encode(params, config, other), before)
    longer = encoder.pack([ids[:n] for ids, n in zip(tokens.ids, (9, 4, 1))], 20, pad=config.pad_token_id, rows=5)
    longer = longer._replace(types=np.pad(tokens.types, ((0, 2), (0, 8))))
    assert_each_close(encode(params, config, longer)[:3], before, floor=1e-6, because="sums over longer rows")

    def loss(params):
        return jnp.sum(jnp.sin(3 * encoder.encode(params, config, other) + 1))

    slopes = jax.jit(jax.grad(loss))(params)
    positions = np.asarray(slopes["embeddings"]["position"]["embedding"])
    assert positions.shape[0] == config.max_positions + 2
    used = np.abs(positions).max(axis=1) > 0
    numbers = 1 + np.cumsum(other.ids != config.pad_token_id, axis=1) * (other.ids != config.pad_token_id)
    assert set(np.flatnonzero(used)) == set(numbers[~padding])


@pytest.mark.parametrize("kind", [pytest.param("roberta", marks=pytest.mark.slow), "distilbert", "mpnet", *NOT_BERT])
def test_layers_one_by_one_and_lora_are_as_for_bert(kind):
    config = of(kind)
    params = random_params(config, 0)
    tokens = jax.tree.map(jnp.asarray, random_tokens(np.random.default_rng(0), config, [9, 4], 9))
    states = encoder.hidden_states(params, config, tokens)
    x = encoder.embed(params, config, tokens)
    assert_close(x, states[0])
    for layer in range(2):
        x = encoder.run_layers(params, config, x, tokens.mask, first=layer, last=layer + 1)
        assert_close(x, states[layer + 1])
    added = encoder.add_lora(params, ["layer_1/(query|output)"], rank=2, key=jax.random.key(0))
    assert_close(encoder.encode(added, config, tokens), encoder.encode(params, config, tokens))
    added["layer_1"]["output"]["lora_b"] += np.random.default_rng(1).standard_normal((2, 24)).astype(np.float32)
    moved = encoder.encode(added, config, tokens)
    assert np.abs(moved - encoder.encode(params, config, tokens)).max() > 1e-3
    assert_close(encoder.encode(encoder.merge_lora(added), config, tokens), moved)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "mpnet", *NOT_BERT])
def test_every_parameter_has_a_name_and_init_makes_it(kind):
    config = of(kind)
    rows = list(convert.weights(config))
    made = encoder.init(0, config)
    assert len(rows) == len(jax.tree.leaves(made)) == len({(row.name, row.rows) for row in rows})
    assert jax.tree.structure(convert.params_from_tensors(convert.tensors_from_params(made, config), config, where=""))
    tokens = random_tokens(np.random.default_rng(0), config, [5, 2], 5)
    assert np.isfinite(encoder.encode(made, config, tokens)).all()


def test_lora_is_part_of_the_digest_and_is_merged_when_saved(folders, tmp_path):
    plain = encoder.load(folders["distilbert"])
    params = encoder.add_lora(plain.params, [r"layer_\d/value"], rank=2, key=jax.random.key(0))
    for layer in range(2):
        params[f"layer_{layer}"]["value"]["lora_b"] += np.linspace(-1, 1, 48, dtype=np.float32).reshape(2, 24)
    added = dataclasses.replace(plain, params=params)
    assert added.digest != plain.digest
    encoder.save(added, tmp_path / "merged")
    merged = encoder.load(tmp_path / "merged")
    tokens = random_tokens(np.random.default_rng(0), plain.config, [9, 4], 9)
    assert_close(encoder.encode(merged.params, merged.config, tokens), encoder.encode(params, plain.config, tokens))


def test_tables_of_architectures_are_kept_apart(folders, tmp_path):
    kinds, tables = ("xlm-roberta", "camembert", "mpnet"), []
    for kind in kinds:
        ours = encoder.load(folders[kind])
        first, again = (
            encoder.encode_table(ours, ["a", "電影", ""], max_length=LENGTH, cache=tmp_path) for _ in range(2)
        )
        np.testing.assert_array_equal(first, again)
        tables.append(first)
    assert len(list(tmp_path.iterdir())) == len(kinds)
    np.testing.assert_array_equal(tables[0], tables[1])  # the same numbers under another name
    assert np.abs(tables[1] - tables[2]).max() > 1e-2


# ---- what task models save, and what is refused


def test_the_names_of_task_models_are_read(folders, tmp_path):
    for kind in ALL:
        before = encoder.load(folders[kind])
        folder = copied(folders[kind], tmp_path / kind)
        tensors = {ARCHITECTURES[kind].prefix + n: v for n, v in load_file(folder / "model.safetensors").items()}
        heads = {"lm_head.bias": np.zeros(3, np.float32), "vocab_projector.bias": np.zeros(3, np.float32)}
        save_file(tensors | heads, folder / "model.safetensors")
        assert encoder.load(folder).digest == before.digest


@pytest.mark.parametrize(
    "kind",
    [
        "albert",
        "electra",
        "deberta",
        "deberta-v2",
        "t5",
        "gpt2",
        "modernbert-decoder",
        "nomic_bert",
        "roberta-prelayernorm",
        "xlm-roberta-xl",
        "Bert",
        None,
        ["bert"],
    ],
    ids=str,
)
def test_other_architectures_are_refused_by_name_with_those_that_work(kind, folders, tmp_path):
    folder = copied(folders["bert"], tmp_path / "other")
    edit(folder / "config.json", model_type=kind)
    refused(folder, repr(kind), *ALL)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("mpnet", {"relative_attention_num_buckets": 16}, ["relative_attention_num_buckets is 16", "32"]),
        ("mpnet", {"pad_token_id": 0}, ["pad_token_id is 0", "every mpnet it is 1"]),
        ("mpnet", {"num_attention_heads": 4}, ["encoder.relative_attention_bias.weight", "[32, 3]", "[32, 4]"]),
        ("roberta", {"max_position_embeddings": 30}, ["position_embeddings.weight", "[22, 24]", "[30, 24]"]),
        ("roberta", {"max_position_embeddings": 2}, ["max_positions is 0"]),
        ("roberta", {"type_vocab_size": 1}, ["token_type_embeddings.weight", "[2, 24]", "[1, 24]"]),
        ("roberta", {"type_vocab_size": 0}, ["type_vocab_size is 0"]),
        ("xlm-roberta", {"position_embedding_type": "relative_key"}, ["relative_key", "absolute"]),
        ("distilbert", {"dim": "24"}, ["'dim'", "'24'", "int"]),
        ("distilbert", {"hidden_dim": 41}, ["transformer.layer.0.ffn.lin1.weight", "[40, 24]", "[41, 24]"]),
        ("distilbert", {"n_layers": 3}, ["no tensor transformer.layer.2.", "distilbert"]),
        ("distilbert", {"n_layers": 1}, ["2 layers", "says 1"]),
        ("modernbert", {"intermediate_size": 41}, ["layers.0.mlp.Wi.weight", "[80, 24]", "[82, 24]"]),
        ("modernbert", {"num_attention_heads": 5}, ["hidden_size 24", "num_heads 5"]),
        ("modernbert", {"num_attention_heads": 8}, ["heads have 3 features", "even"]),
        ("modernbert", {"layer_types": ["full_attention"]}, ["layer_types", "2"]),
        ("modernbert", {"local_attention": 0}, ["window is 0"]),
        ("modernbert", {"classifier_activation": "swoosh"}, ["dense_activation", "swoosh"]),
        ("modernbert", {"norm_bias": True}, ["no tensor embeddings.norm.bias", "modernbert"]),
        ("qwen3", {"num_key_value_heads": 3}, ["layers.0.self_attn.k_proj.weight", "[10, 24]", "[30, 24]"]),
        ("qwen3", {"num_attention_heads": 4, "num_key_value_heads": 3}, ["num_heads 4", "num_key_value_heads 3"]),
        ("qwen3", {"num_hidden_layers": 1, "layer_types": None}, ["2 layers", "says 1"]),
        ("qwen3", {"use_sliding_window": True}, ["use_sliding_window is True", "False"]),
        ("qwen3", {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, ["linear"]),
        ("qwen3", {"is_causal": False}, ["is_causal is False", "True"]),
        ("gemma3_text", {"use_bidirectional_attention": False}, ["use_bidirectional_attention is False", "True"]),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, ["attn_logit_softcapping is 50.0", "None"]),
        ("gemma3_text", {"layer_types": ["full_attention"]}, ["layer_types", "2"]),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, ["query_scale is 0"]),
        ("modernbert", {"auto_map": {"AutoModel": "code.Model"}}, ["auto_map", "code.Model"]),
        ("mpnet", {"model_type": "roberta"}, ["no tensor embeddings.token_type_embeddings.weight", "roberta"]),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused_by_tensor_and_shapes(kind, change, words, folders, tmp_path):
    folder = copied(folders[kind], tmp_path / "bent")
    edit(folder / "config.json", **change)
    refused(folder, str(folder), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "albert"}, ["albert", "mpnet"]),
        ({"model_type": "qwen3"}, ["qwen3", "BertConfig", "config_class"]),
        ({"model_type": "distilbert"}, ["type_vocab_size is 2", "every distilbert it is 0"]),
        ({"model_type": "mpnet", "type_vocab_size": 0}, ["pad_token_id is 0"]),
        ({"type_vocab_size": 0}, ["type_vocab_size is 0"]),
    ],
)
def test_an_impossible_architecture_is_refused(change, words):
    with pytest.raises(MetarecError) as error:
        changed(**change)
    assert all(word in str(error.value) for word in words)
