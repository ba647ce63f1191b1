"""Dense layers after pooling, and vectors of which the first numbers are kept: the numbers of PyTorch, and files."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_parity
from dense_folders import LAYERS, TANH, by_torch, write_dense
from helpers import assert_close, assert_equal, assert_says
from safetensors.numpy import load_file, save_file

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError

TEXTS = ["Alien (1979): a crew, hunted", "tea", "", "a lamp of many words " * 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dense(tmp_path_factory.mktemp("dense") / "model")


@pytest.fixture(scope="module")
def dense(folder):
    return encoder.load(folder)


@pytest.mark.parametrize("dims", [0, 7, 40])
def test_vectors_are_those_of_pytorch(folder, dense, dims):
    assert_parity(encoder.encode_table(dense, TEXTS, dims=dims), by_torch(folder, TEXTS, dims or None))


def test_dense_layers_are_a_part_of_the_architecture_and_of_the_digest(folder, dense):
    assert dense.config.projections == (encoder.Projection(96, True, "tanh"), encoder.Projection(40, False, "linear"))
    assert (dense.config.hidden_size, dense.config.vector_size) == (64, 40)
    assert encoder.remarks(dense, "auto") == []
    without = encoder.load(folder, dense=False)
    assert without.config.projections == ()
    assert without.digest == encoder.load("random").digest != dense.digest
    assert encoder.remarks(without, "auto") == [
        "the encoder's folder has modules that this package leaves out: Dense, Dense"
    ]
    assert encoder.encode_table(without, TEXTS).shape == (4, 64)


def test_a_saved_encoder_has_its_dense_layers(dense, folder, tmp_path):
    encoder.save(dense, tmp_path / "saved")
    again = encoder.load(tmp_path / "saved")
    assert (again.digest, again.hints) == (dense.digest, dense.hints)
    for name in ("2_Dense", "3_Dense"):
        ours, theirs = (json.loads((at / name / "config.json").read_text()) for at in (tmp_path / "saved", folder))
        assert ours == theirs
        assert_equal(
            load_file(tmp_path / "saved" / name / "model.safetensors"), load_file(folder / name / "model.safetensors")
        )


def test_gradients_reach_dense_layers_and_stop_at_numbers_that_are_cut(dense):
    tokens = jax.tree.map(jnp.asarray, encoder.pack(encoder.tokenize(dense.tokenizer, TEXTS[:2], 128).ids, 24))

    def loss(params):
        return jnp.sum(jnp.sin(encoder.encode(params, dense.config, tokens, normalise=True, dims=7)))

    slopes = jax.jit(jax.grad(loss))(dense.params)
    last = np.abs(np.asarray(slopes["projection_1"]["kernel"]))
    assert last[:, :7].min() > 0
    assert last[:, 7:].max() == 0
    assert np.abs(np.asarray(slopes["projection_0"]["bias"])).max() > 0


def test_vectors_of_other_widths_are_kept_apart_and_are_the_first_numbers(tmp_path):
    bert = encoder.load("random")
    fresh = {dims: encoder.encode_table(bert, TEXTS, dims=dims) for dims in (0, 8, 64)}
    for _ in range(2):  # written, then read
        for dims, wanted in fresh.items():
            np.testing.assert_array_equal(encoder.encode_table(bert, TEXTS, dims=dims, cache=tmp_path), wanted)
    assert len(list(tmp_path.iterdir())) == 2, "64 numbers are all there are"
    whole = encoder.encode_table(bert, TEXTS, normalise=False)
    assert_close(fresh[8], whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True))


def test_more_numbers_than_there_are_are_refused():
    with pytest.raises(MetarecError) as caught:
        encoder.encode_table(encoder.load("random"), ["a"], dims=65)
    assert_says(str(caught.value), "encoder.dims is 65", "an untrained encoder", "64 numbers", "--encoder.dims 64")


@pytest.mark.parametrize(
    "stated",
    [
        {"activation_function": "mine.Activation"},
        {"in_features": "64"},
        {"out_features": 0},
        {"use_residual": True},
        {"later_option": 1},
        {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"},
    ],
    ids=str,
)
def test_layers_that_are_not_computed_are_named(tmp_path, stated):
    found = encoder.load(write_dense(tmp_path / "model", LAYERS[:1], **stated))
    assert found.config.projections == ()
    assert_says(encoder.remarks(found, "auto")[0], "leaves out: Dense")


def test_weights_in_a_pickle_are_not_read(tmp_path):
    folder = write_dense(tmp_path / "model")
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    found = encoder.load(folder)
    assert (found.config.projections, found.hints.others) == ((), ("Dense", "Dense"))


def damaged(path):
    path.write_bytes(path.read_bytes()[:100])


def bent(path, **tensors):
    save_file(load_file(path) | tensors, path)


@pytest.mark.parametrize(
    ("layers", "damage", "words"),
    [
        (((60, 40, True, TANH),), lambda path: None, ["2_Dense/config.json", "in_features is 60", "64 numbers"]),
        (LAYERS, damaged, ["2_Dense/model.safetensors", "damaged", "download it again"]),
        (
            LAYERS,
            lambda path: bent(path, **{"linear.weight": np.zeros((96, 63), np.float32)}),
            ["2_Dense/model.safetensors", "linear.weight", "[96, 63]", "[96, 64]"],
        ),
        (
            LAYERS,
            lambda path: bent(path, **{"linear.bias": np.full(96, np.nan, np.float32)}),
            ["2_Dense/model.safetensors", "linear.bias", "NaN"],
        ),
        (
            LAYERS,
            lambda path: save_file({"linear.weight": np.zeros((96, 64), np.float32)}, path),
            ["2_Dense/model.safetensors", "no tensor linear.bias"],
        ),
    ],
    ids=["of another model", "cut file", "other shape", "NaN", "no bias"],
)
def test_damaged_layers_are_refused_by_file_and_tensor(tmp_path, layers, damage, words):
    folder = write_dense(tmp_path / "model", layers)
    damage(folder / "2_Dense" / "model.safetensors")
    with pytest.raises(MetarecError) as caught:
        encoder.load(folder)
    assert_says(str(caught.value), *words)
