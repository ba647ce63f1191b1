"""Small encoders with rotary positions, and short trainings with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from metarec_jax import encoder, preset
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.encoder.tokenizer import tiny_wordpiece

KINDS = ("modernbert", "qwen3", "gemma3_text")


def small(kind: str, layers: int = 2) -> encoder.Encoder:
    """A small untrained encoder of a kind."""
    tokenizer = tiny_wordpiece()
    shared = {"num_key_value_heads": 2, "head_dim": 8}
    own = {"modernbert": {"window": 8, "pad_token_id": 0}, "qwen3": shared, "gemma3_text": shared | {"window": 5}}
    config = encoder.config_class(kind)(
        vocab_size=tokenizer.size, hidden_size=32, num_layers=layers, num_heads=4, intermediate_size=48, **own[kind]
    )
    return encoder.Encoder(config, encoder.init(0, config), tokenizer, f"a small {kind}")


def config_of(folder, **options) -> Config:
    """A short training with an encoder of `save_all`."""
    base = preset("synthetic")
    return dataclasses.replace(
        base,
        # Texts of one length, so that each program is compiled once; it is more than a window.
        encoder=EncoderConfig(path=str(folder), rate=1e-3, **{"max_length": 16} | options),
        episodes=dataclasses.replace(base.episodes, min_ratings=13, max_ratings=30, buckets=(16,)),
        learner=dataclasses.replace(base.learner, hidden=4),
        updater=dataclasses.replace(base.updater, steps=1, order="first"),
        train=TrainConfig(epochs=1, users_per_step=32, devices=1),
    )


def save_all(folder: Path) -> dict[str, Path]:
    """Save an encoder of each kind; returns their folders."""
    for kind in KINDS:
        encoder.save(small(kind), folder / kind)
    return {kind: folder / kind for kind in KINDS}
