"""PyTorch's BERT as the reference, and random weights and tokens to compare it on."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from metarec_jax import encoder
from metarec_jax.encoder import convert
from metarec_jax.types import Params

PARITY = 1e-5  # largest difference from transformers that any test allows, float32

SMALL = encoder.BertConfig(
    vocab_size=50, hidden_size=24, num_layers=1, num_heads=3, intermediate_size=40, max_positions=20
)


def changed(**changes) -> encoder.BertConfig:
    return dataclasses.replace(SMALL, **changes)


def torch_model(config: encoder.BertConfig, params: Params):
    """transformers' BertModel with these parameters; it refuses tensors that are missing or too many."""
    import torch
    import transformers

    theirs = transformers.BertConfig(**convert.config_to_json(config))
    model = transformers.BertModel(theirs, add_pooling_layer=config.has_pooler).eval()
    tensors = convert.tensors_from_params(params, config)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, strict=True)
    return model


def run_torch(model, tokens: encoder.Tokens) -> tuple[np.ndarray, np.ndarray | None]:
    """Hidden states [layers + 1, texts, length, hidden] and pooler output of a PyTorch model."""
    import torch

    with torch.no_grad():
        output = model(
            input_ids=torch.from_numpy(np.asarray(tokens.ids)).long(),
            attention_mask=torch.from_numpy(np.asarray(tokens.mask)).long(),
            token_type_ids=torch.from_numpy(np.asarray(tokens.types)).long(),
            output_hidden_states=True,
        )
    pooler = None if output.pooler_output is None else output.pooler_output.numpy()
    return np.stack([state.numpy() for state in output.hidden_states]), pooler


def random_tokens(
    rng: np.random.Generator, config: encoder.BertConfig, lengths: list[int], padded: int
) -> encoder.Tokens:
    """Texts of random tokens and segments, with random tokens in the padding too."""
    shape = (len(lengths), padded)
    mask = (np.arange(padded) < np.array(lengths)[:, None]).astype(np.float32)
    ids = rng.integers(0, config.vocab_size, shape).astype(np.int32)
    return encoder.Tokens(ids, mask, rng.integers(0, config.type_vocab_size, shape).astype(np.int32))


def random_params(config: encoder.BertConfig, seed: int) -> Params:
    """Parameters that are random everywhere: biases and scales too, so that a swapped one shows."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: encoder.init(key, config), jax.random.key(0))

    def draw(leaf):
        spread = 0.2 if leaf.ndim == 1 else min(0.5, leaf.shape[0] ** -0.5)
        return (spread * rng.standard_normal(leaf.shape) + 0.5 * (leaf.ndim == 1)).astype(np.float32)

    return jax.tree.map(draw, shapes)
