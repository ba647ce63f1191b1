"""A pretraining small enough to be stopped and repeated many times."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.pretrain import ContrastiveConfig, MlmConfig, PretrainConfig
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.data.sources.synthetic import synthetic
from metarec_jax.encoder import BertConfig, Encoder, init
from metarec_jax.encoder.tokenizer import tiny_wordpiece
from metarec_jax.train.pretraining.build import Pretraining, build


def small_config(**changes: Any) -> PretrainConfig:
    """Six steps for both objectives, so that everything that a resumed one could get wrong takes part."""
    encoder = EncoderConfig(path="random", train="all", rate=1e-3, max_length=16)
    return dataclasses.replace(
        PretrainConfig(
            data=DataConfig(source="synthetic"),
            episodes=EpisodeConfig(min_ratings=8, query=4, validation=0.2, test=0.2),
            encoder=encoder,
            mlm=MlmConfig(tokens_per_step=128, item_share=0.5),
            contrastive=ContrastiveConfig(users_per_step=4, liked_per_user=4),
            held_out=0.2,
            steps=6,
            judge_every=3,
            devices=1,
        ),
        **changes,
    )


@functools.cache
def small_data() -> Interactions:
    """Forty users, twenty items with short texts."""
    return synthetic(0, users=40, items=20, ratings_per_user=10, words=1)[0]


@functools.cache
def small_encoder() -> Encoder:
    """A layer of sixteen features, over the built-in vocabulary."""
    tokenizer = tiny_wordpiece()
    config = BertConfig(
        vocab_size=tokenizer.size,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=24,
        max_positions=32,
        has_pooler=False,
    )
    return Encoder(config, init(0, config), tokenizer, "a small encoder")


def small_pretraining(
    config: PretrainConfig | None = None,
    data: Interactions | None = None,
    encoder: Encoder | None = None,
    *,
    reporter: Reporter = QUIET,
) -> Pretraining:
    """The parts of a pretraining on `small_data` with `small_encoder`, or on others."""
    return build(
        config or small_config(), data=data or small_data(), encoder=encoder or small_encoder(), reporter=reporter
    )


def host(tree: Any) -> Any:
    """As host arrays, keys too."""

    def plain(leaf: Any) -> np.ndarray:
        keyed = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if keyed else leaf)

    return jax.tree.map(plain, tree)
