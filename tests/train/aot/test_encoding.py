"""Encoding of texts by a frozen encoder, compiled ahead of time: its numbers, its figures, and the command."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_close

from metarec_jax import encoder, preset
from metarec_jax.cli import main
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.encoder import TextRows
from metarec_jax.meta.text_passes import Chosen
from metarec_jax.train.aot import encoding, targets, workload
from metarec_jax.train.sharding import user_mesh

TEXTS, LENGTH = 3, 16
"""Texts of each device, and tokens of a text."""


def work_of(**options) -> workload.Workload:
    config = dataclasses.replace(preset("synthetic"), encoder=EncoderConfig(path="random", **options))
    return workload.workload(config, length=LENGTH)


@pytest.mark.parametrize(("devices", "shards"), [(1, 1), (4, 1), (8, 4)])
def test_the_program_computes_the_vectors_of_the_encoder(devices, shards):
    mesh, work = user_mesh(devices, shards), work_of(dims=24)
    program, shapes, turns = encoding.encoding_of(work, mesh, TEXTS)
    bert = encoder.load("random")
    words = [f"a film of {number} words" for number in range(TEXTS * devices)]
    ids = encoder.tokenize(bert.tokenizer, words, LENGTH).ids
    tokens, lengths = encoder.pack(ids, LENGTH), np.array([[len(text)] for text in ids], np.int32)
    slots = (np.arange(len(words), dtype=np.int32) % TEXTS)[:, None]
    count = np.int32(TEXTS) if devices == 1 else np.full(devices, TEXTS, np.int32)
    values = (bert.params, Chosen((TextRows(tokens.ids, lengths, slots, count),)))
    assert turns == {f"length_{LENGTH}": 1}
    assert jax.tree.map(np.shape, values) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    placed = jax.tree.map(lambda value, shape: jax.device_put(value, shape.sharding), values, shapes)
    with jax.set_mesh(mesh):
        found = program(*placed)
    assert_close(np.asarray(found), encoder.encode_table(bert, words, max_length=LENGTH, dims=24))


def test_parameters_are_stored_in_the_precision_of_the_products_and_split():
    found = {}
    for compute in ("float32", "bfloat16"):
        for shards in (1, 4):
            work = work_of(compute=compute)
            one = encoding.estimate_encoding(work, targets.parse("here"), texts=TEXTS, shards=shards)
            assert (one.users, one.chips) == (TEXTS * 8, 8)
            assert one.flops > 0
            found[compute, shards] = one.arguments
    assert found["bfloat16", 1] < 0.6 * found["float32", 1]
    assert found["bfloat16", 4] < 0.6 * found["bfloat16", 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "4"], "--split is 4, but it divides the encoder of --texts-per-chip alone"),
        (["--texts-per-chip", "-1"], "--texts-per-chip is -1; it must be at least 0"),
        (["--texts-per-chip", "8", "--split", "0"], "--split is 0; it must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message, capsys):
    assert main.main(["aot", "--target", "v5e", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_prints_texts(capsys):
    arguments = ["--preset", "synthetic", "--texts-per-chip", "4", "--text-length", "8"]
    assert main.main(["aot", "--target", "here", *arguments]) == 0
    out = capsys.readouterr().out
    assert "Encoding of texts by a frozen encoder, compiled ahead of time" in out
    assert "texts a second, at best" in out
