"""PyTorch's encoders as the reference, and random weights and tokens to compare it on."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from helpers import assert_each_close

from metarec_jax import encoder
from metarec_jax.core.types import Params
from metarec_jax.encoder import convert


def assert_parity(ours: Any, theirs: Any) -> None:
    """The same numbers as in transformers, which computes in float32 too."""
    assert_each_close(ours, theirs, floor=1e-5, because="float32, in another order, through all layers")


SMALL = encoder.BertConfig(
    vocab_size=50, hidden_size=24, num_layers=1, num_heads=3, intermediate_size=40, max_positions=20
)


def changed(**changes) -> encoder.BertConfig:
    return dataclasses.replace(SMALL, **changes)


def torch_model(config: encoder.ModelConfig, params: Params):
    """transformers' model with these parameters; it refuses tensors that are missing or too many."""
    import torch
    import transformers

    theirs = transformers.AutoConfig.for_model(**convert.config_to_json(config))
    pooler = {} if "has_pooler" in config.architecture.fixed else {"add_pooling_layer": config.has_pooler}
    model = getattr(transformers, config.architecture.model)(theirs, **pooler).eval()
    tensors = convert.tensors_from_params(params, config)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, strict=True)
    return model


def run_torch(model, tokens: encoder.Tokens) -> tuple[np.ndarray, np.ndarray | None]:
    """Hidden states [layers + 1, texts, length, hidden] and pooler output of a PyTorch model."""
    import torch

    ids, mask, types = (torch.from_numpy(np.asarray(field)).long() for field in tokens[:3])
    embeddings = getattr(model, "embeddings", None)
    segments = {"token_type_ids": types} if hasattr(embeddings, "token_type_embeddings") else {}
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **segments)
    pooler = output.get("pooler_output")
    return np.stack([state.numpy() for state in output.hidden_states]), None if pooler is None else pooler.numpy()


@functools.partial(jax.jit, static_argnames="config")
def everything(params: Params, config: encoder.ModelConfig, tokens: encoder.Tokens):
    """Hidden states, all poolings and the pooler, compiled once a shape."""
    poolings = ("mean", "cls", "lasttoken")
    vectors = {pooling: encoder.encode(params, config, tokens, pooling=pooling) for pooling in poolings}
    pooled = encoder.pooled(params, config, tokens) if config.has_pooler else None
    return encoder.hidden_states(params, config, tokens), vectors, pooled


def compare(ours, theirs, tokens: encoder.Tokens) -> None:
    """`everything` is what `run_torch` says, at every layer and after pooling."""
    (states, vectors, pooled), (their_states, their_pooled) = ours, theirs
    real = np.asarray(tokens.mask) > 0  # what a padded token holds is nobody's business
    assert len(states) == len(their_states)
    assert_parity(np.asarray(states)[:, real], their_states[:, real])
    mean = (their_states[-1] * real[..., None]).sum(1) / real.sum(1, keepdims=True)
    assert_parity(vectors["mean"], mean)
    assert_parity(vectors["cls"], their_states[-1][:, 0])
    last = real.shape[1] - 1 - real[:, ::-1].argmax(axis=1)
    assert_parity(vectors["lasttoken"], their_states[-1][np.arange(len(last)), last])
    assert (pooled is None) == (their_pooled is None)
    if their_pooled is not None:
        assert_parity(pooled, their_pooled)


def check(config: encoder.ModelConfig, params: Params, tokens: encoder.Tokens) -> None:
    compare(everything(params, config, tokens), run_torch(torch_model(config, params), tokens), tokens)


def random_tokens(
    rng: np.random.Generator, config: encoder.ModelConfig, lengths: list[int], padded: int
) -> encoder.Tokens:
    """Texts of random tokens and segments, with random tokens in the padding too."""
    shape = (len(lengths), padded)
    mask = (np.arange(padded) < np.array(lengths)[:, None]).astype(np.float32)
    ids = rng.integers(0, config.vocab_size, shape).astype(np.int32)
    return encoder.Tokens(ids, mask, rng.integers(0, max(config.type_vocab_size, 1), shape).astype(np.int32))


def random_params(config: encoder.ModelConfig, seed: int) -> Params:
    """Parameters that are random everywhere: biases and scales too, so that a swapped one shows."""
    rng = np.random.default_rng(seed)
    shapes = encoder.param_shapes(config)

    def draw(path, leaf):
        spread = 0.2 if leaf.ndim == 1 else min(0.5, leaf.shape[0] ** -0.5)
        if path[-1].key == "embedding" and config.family == "gemma3":
            spread /= config.hidden_size**0.5  # which it is multiplied by
        middle = 0.5 * (leaf.ndim == 1 and path[-1].key != "offset")
        return (spread * rng.standard_normal(leaf.shape) + middle).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


def recycled_params(config: encoder.ModelConfig, seed: int) -> Params:
    """As `random_params`, from a million draws: hundreds of millions take half a minute."""
    draws = np.random.default_rng(seed).standard_normal(1_000_003, np.float32)
    shapes = encoder.param_shapes(config)
    start = 0

    def draw(leaf):
        nonlocal start
        start += 7919  # another part of the draws for each leaf, and for each row: the number of draws is a prime
        spread = 0.2 if leaf.ndim == 1 else min(0.5, leaf.shape[0] ** -0.5)
        values = np.resize(np.roll(draws, start), leaf.shape)
        return (spread * values + 0.5 * (leaf.ndim == 1)).astype(np.float32)

    return jax.tree.map(draw, shapes)
