"""ModernBERT, Qwen3 and EmbeddingGemma in runs: joint training, LoRA, attributions, and compiling ahead."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from rotary_runs import KINDS, config_of, save_all, small

from metarec_jax import Recommender, encoder
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.learner.text import make_reader
from metarec_jax.recommender.attribution import gradient_times_input
from metarec_jax.train.aot import encoding, estimate, targets, workload
from metarec_jax.train.build import build
from metarec_jax.train.start import fit, start
from metarec_jax.train.state import first_state


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_all(tmp_path_factory.mktemp("encoders"))


@pytest.mark.parametrize(
    ("kind", "choice", "moves"),
    [
        pytest.param(
            "modernbert", {"train": "all", "frozen_layers": 1}, ("layer_1/", "final_norm/"), marks=pytest.mark.slow
        ),
        pytest.param(
            "qwen3",
            {"train": "lora", "lora_rank": 2, "query_prompt": "likes: "},
            tuple(f"layer_{i}/" for i in range(2)),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["modernbert, frozen layers", "qwen3, LoRA and a prompt"],
)
def test_a_run_trains_what_it_shall_and_is_served(kind, choice, moves, folders, tmp_path):
    run, experiment = start(config_of(folders[kind], **choice), tmp_path / "run")
    assert experiment.config.encoder.pooling == ("lasttoken" if kind == "qwen3" else "mean")
    before = first_state(experiment, 1).trainable.encoder
    after = fit(run, experiment).trainable.encoder
    names = path_names(before)
    pairs = zip(names, jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    changed = {name for name, a, b in pairs if np.abs(np.asarray(a) - b).max() > 0}
    assert {next((start for start in moves if name.startswith(start)), name) for name in changed} == set(moves)
    if choice["train"] == "lora":
        assert {name.split("/")[1] for name in changed} == {"query", "value"}
    recommender = Recommender.load(run.folder)
    state = recommender.adapt({7: 5, 8: 1, 9: 4})
    assert np.isfinite(recommender.score_text(state, "a film"))
    if kind == "qwen3":  # of the others `gradient_times_input` is tested below, which is all that differs
        words = recommender.explain(state, [3], words=True)[0].words
        assert any(word.influence for word in words)


@pytest.mark.parametrize(
    ("kind", "train"),
    [("qwen3", "all"), ("gemma3_text", "no"), pytest.param("modernbert", "all", marks=pytest.mark.slow)],
)
def test_programs_are_compiled_ahead_of_time(kind, train, folders):
    """The joint step, and the encoding of texts by a frozen encoder."""
    work = workload.workload(config_of(folders[kind], train=train), items=50, users=40, length=16, support=16)
    assert isinstance(work.architecture, type(small(kind).config))
    here = targets.parse("here")
    found = estimate.estimate(work, here) if train == "all" else encoding.estimate_encoding(work, here, texts=4)
    assert found.flops > 0


@pytest.mark.parametrize(
    "kind", ["modernbert-base", "modernbert-large", "qwen3-0.6b", "qwen3-4b", "qwen3-8b", "embeddinggemma-300m"]
)
def test_sizes_that_are_compiled_without_weights(kind):
    shapes = encoder.param_shapes(workload.ENCODERS[kind])
    billions = sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e9
    wanted = {"modernbert-base": 0.149, "modernbert-large": 0.395, "qwen3-0.6b": 0.596, "qwen3-4b": 4.02}
    wanted |= {"embeddinggemma-300m": 0.303}
    assert billions == pytest.approx(wanted.get(kind, 7.57), rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_times_input_sums_to_the_directional_derivative(kind, x64):
    own = small(kind)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), own.params)
    config = EncoderConfig(pooling="lasttoken" if kind == "qwen3" else "mean")
    ids = encoder.tokenize(own.tokenizer, ["a space ship", "tea"], 128).ids
    tokens = jax.tree.map(jnp.asarray, encoder.pack(list(ids), 12))
    slope = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32)))
    found = np.asarray(gradient_times_input(params, tokens, slope, own.config, config))
    assert (found[tokens.mask == 0] == 0).all()

    @jax.jit
    @functools.partial(jax.jacfwd, argnums=0)
    def wanted(scale):
        states = encoder.embed(params, own.config, tokens) * (1 + scale)
        last = encoder.run_layers(params, own.config, states, tokens.mask, first=0, last=2)
        return jnp.sum(encoder.pool(last, tokens.mask, pooling=config.pooling, normalise=True) * slope, axis=-1)

    assert_close(found.sum(axis=1), np.asarray(wanted(0.0)))


def test_the_final_norm_is_adapted_with_the_last_layer():
    own = small("modernbert")
    theta = {"encoder": own.params}
    assert make_reader(own.config, theta, ["encoder/final_norm/.*"]).below == 1
    assert make_reader(own.config, theta, ["encoder/layer_0/.*", "encoder/final_norm/.*"]).below == 0


@pytest.mark.parametrize(
    ("kind", "choice", "words"),
    [
        ("qwen3", {"pooling": "cls"}, ["encoder.pooling is 'cls'", "causal", "lasttoken"]),
        ("qwen3", {"frozen_layers": 3, "train": "all"}, ["encoder.frozen_layers is 3", "2 layers"]),
        ("modernbert", {"max_length": 9000}, ["encoder.max_length is 9000", "8192"]),
        ("modernbert", {"attention": "fused"}, ["encoder.attention is 'fused'", "CPU"]),
    ],
    ids=str,
)
def test_what_does_not_work_is_refused_by_name(kind, choice, words, folders):
    with pytest.raises(MetarecError) as error:
        build(config_of(folders[kind], **choice))
    assert all(word in str(error.value) for word in words)
