"""How layers are computed changes nothing but time and memory."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

from metarec_jax.config.legacy import upgrade
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import (
    BertConfig,
    Execution,
    Tokens,
    choose_execution,
    encode,
    init,
)
from metarec_jax.encoder.attention import attend, attend_tiled

BERT = BertConfig(
    vocab_size=30, hidden_size=8, num_layers=3, num_heads=2, intermediate_size=16, max_positions=12, has_pooler=False
)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    real = np.arange(10) < rng.integers(1, 11, (6, 1))
    ids = rng.integers(0, 30, (6, 10)).astype(np.int32)
    tokens = jax.tree.map(jnp.asarray, Tokens(ids, real.astype(np.float32), np.zeros_like(ids)))
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape)), init(0, BERT)
    )  # float64 where a test asks for it
    return params, tokens


def slope(tokens, **options):
    def loss(params):
        vectors = encode(params, BERT, tokens, **options)
        return jnp.sum(jnp.sin(vectors)), vectors

    return jax.value_and_grad(loss, has_aux=True)


@pytest.mark.parametrize(
    "run",
    [Execution(remat=True), Execution(scan=True), Execution(remat=True, scan=True, whole=lambda params: params)],
    ids=["remat", "scan", "both"],
)
def test_values_and_gradients_are_those_of_plain_layers(x64, case, run):
    params, tokens = case
    assert_close(jax.jit(slope(tokens, run=run))(params), jax.jit(slope(tokens))(params))


@pytest.mark.parametrize("length", [5, 50, 150], ids=["many together", "two", "alone"])
def test_tiled_attention_is_plain_attention(x64, length):
    """Values and gradients, with a bias by distance, with padding, and with a text that is nothing else: no text sees
    another."""
    rng = np.random.default_rng(1)
    query, key, value, out = (jnp.asarray(rng.normal(size=(7, length, 8))) for _ in range(4))
    mask = jnp.asarray(np.arange(length) < np.array([0, 1, length, 3, 2, length, 4])[:, None], jnp.float64)
    bias = jnp.asarray(rng.normal(size=(2, length, length)))

    def slope(function):
        def loss(query, key, value, bias):
            return jnp.vdot(function(query, key, value, mask, num_heads=2, bias=bias), out)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(query, key, value, bias)

    assert_close(slope(attend_tiled), slope(attend))


def test_remat_keeps_less():
    """In a loop: of layers written out, a CPU's compiler merges what is computed anew with what was there."""
    architecture = BertConfig(**(vars(BERT) | {"num_layers": 6, "hidden_size": 64, "intermediate_size": 256}))
    params = init(0, architecture)
    ids = jnp.zeros((64, 12), jnp.int32)
    tokens = Tokens(ids, jnp.ones((64, 12)), ids)

    def kept(run):
        step = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(encode(p, architecture, tokens, run=run)))))
        return step.lower(params).compile().memory_analysis().temp_size_in_bytes

    assert kept(Execution(remat=True, scan=True)) < 0.4 * kept(Execution(scan=True))


def test_a_scan_compiles_one_layer(case):
    params, tokens = case

    def operations(run):
        text = jax.jit(functools.partial(encode, config=BERT, tokens=tokens, run=run)).lower(params).as_text()
        return text.count("stablehlo.dot_general")

    assert operations(Execution(scan=True)) < operations(Execution())


def test_bfloat16_is_close_and_its_results_are_float32(case):
    params, tokens = case
    narrow = encode(params, BERT, tokens, dtype=jnp.bfloat16, normalise=True)
    assert narrow.dtype == jnp.float32
    wide = encode(params, BERT, tokens, normalise=True)
    assert 0 < np.abs(narrow - wide).max() < 0.05


def test_fused_attention_is_refused_on_a_cpu(case):
    params, tokens = case
    with pytest.raises(
        MetarecError, match=r"encoder\.attention is 'fused', but this is a CPU.*--encoder\.attention auto"
    ):
        encode(params, BERT, tokens, run=Execution(attention="fused"))


@pytest.mark.parametrize(
    ("platform", "options", "chosen"),
    [
        ("cpu", {}, Execution("xla", tokens_per_call=512)),
        ("gpu", {}, Execution("xla", tokens_per_call=16384, shortest_row=128)),
        ("tpu", {}, Execution("tiled", remat=True, tokens_per_call=8192, shortest_row=128)),
        ("gpu", {"fused": True}, Execution("fused", tokens_per_call=16384, shortest_row=128)),
        ("tpu", {"fused": True}, Execution("fused", remat=True, tokens_per_call=8192, shortest_row=128)),
        ("cpu", {"split": True}, Execution("xla", remat=True, scan=True, tokens_per_call=512, calls=1)),
        (
            "tpu",
            {"split": True},
            Execution("tiled", remat=True, scan=True, tokens_per_call=16384, shortest_row=128, calls=1),
        ),
    ],
)
def test_execution_is_chosen_by_platform(platform, options, chosen):
    assert choose_execution(platform, **options)[:-1] == chosen[:-1]


def test_a_run_of_before_the_rule_is_read():
    before = {"encoder": {"path": "random", "pooling": "cls", "attention": "packed", "scan": True, "remat": True}}
    assert upgrade(before, 1, "config.json")["encoder"].items() >= {"path": "random", "pooling": "cls"}.items()
    assert not {"attention", "scan", "remat"} & set(upgrade(before, 1, "config.json")["encoder"])
    fused = {"encoder": {"attention": "fused", "scan": False}}
    assert upgrade(fused, 1, "config.json")["encoder"]["attention"] == "fused"
    assert "scan" not in upgrade(fused, 1, "config.json")["encoder"]


def test_the_rule_is_what_was_compiled_as_best_for_a_tpu():
    """By the committed estimates of the joint step of BERT-base on a v5e."""
    rows = json.loads((Path(__file__).parents[2] / "benchmarks/results/aot.json").read_text())["rows"]
    joint = [
        row
        for row in rows
        if (row["case"]["target"], row["case"]["encoder"], row["case"]["train"], row["case"]["users"])
        == ("v5e:1x1", "bert-base", "all", 64)
        and row["case"]["level"] == ""
    ]
    run = choose_execution("tpu")._asdict()
    # Layers are compared with one text in a row; packed rows are computed as a run computes them.
    alone, packed = ([row for row in joint if (row["case"]["attention"] == "") == is_run] for is_run in (False, True))
    for rows, names in ((alone, ("attention", "remat", "scan")), (packed, ("tokens_per_call",))):
        assert len(rows) > 1
        best = min(rows, key=lambda row: row["seconds"])["case"]
        assert {name: run[name] for name in names}.items() <= best.items()
