"""All options of a pretraining, as frozen dataclasses that check their values."""

from __future__ import annotations

import dataclasses
from typing import Literal

from metarec_jax.config.checks import require, require_types
from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config

Objective = Literal["both", "mlm", "contrastive"]


@dataclasses.dataclass(frozen=True)
class MlmConfig:
    """Masked language model: BERT's own objective, on item texts and on users written as text."""

    share: float = 0.15
    """Share of the tokens that are masked, by whole words."""
    item_share: float = 0.25
    """Share of the steps on item texts; the others are on histories of users."""
    tokens_per_step: int = 2048
    """Tokens of a step, with padding."""
    head_rate: float = 1e-3
    """Peak of the head's learning rate, which is larger than the encoder's: most checkpoints have no head, which then
    starts untrained."""

    def __post_init__(self) -> None:
        require_types(self, "mlm")


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
    """Contrastive loss: a user's liked items (`data.liked`) become similar to each other, and unlike others'."""

    weight: float = 1.0
    """Weight of this loss, relative to that of masked words."""
    temperature: float = 0.2
    """Divisor of the cosines."""
    users_per_step: int = 16
    """Users of a step."""
    liked_per_user: int = 12
    """Most liked items of a user in a step, drawn for each step."""

    def __post_init__(self) -> None:
        require_types(self, "contrastive")


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Options of a pretraining.

    `data`, `episodes` and `seed` are those of the runs that will use the encoder, since they choose the training users.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    episodes: EpisodeConfig = dataclasses.field(default_factory=EpisodeConfig)
    encoder: EncoderConfig = dataclasses.field(
        default_factory=lambda: EncoderConfig(train="all", rate=1e-4, max_length=128)
    )
    """The checkpoint to start from, its pooling and learning rate; passages have at most `max_length` tokens."""
    mlm: MlmConfig = MlmConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()
    objective: Objective = "both"
    """Training loss: masked words, likes, or their sum."""
    held_out: float = 0.05
    """Share of the items that pretraining does not see, neither text nor interactions, for its evaluation."""
    steps: int = 200
    """Optimiser steps."""
    weight_decay: float = 1e-2
    """Weight decay of matrices (AdamW)."""
    judge_every: int = 50
    """Steps between evaluations on held-out items and users, and between checkpoints."""
    devices: int = 0
    """Number of devices that the texts are divided among; 0 takes all."""
    seed: int = 0
    """Seed of all random draws."""

    def __post_init__(self) -> None:
        require_types(self)
        require(
            self.encoder.train != "no",
            "encoder.train is 'no', but pretraining trains the encoder: use --encoder.train all, or lora",
        )

    @property
    def run(self) -> Config:
        """What a training run with the same data, split and encoder would have."""
        return Config(data=self.data, episodes=self.episodes, encoder=self.encoder, seed=self.seed)

    @property
    def hides(self) -> bool:
        """Whether hidden words are trained for."""
        return self.objective != "contrastive"

    @property
    def contrasts(self) -> bool:
        """Whether likes are trained for."""
        return self.objective != "mlm"


def starting_from(config: Config) -> PretrainConfig:
    """The pretraining for runs of `config`: of the same data, the same split and the same encoder."""
    own = PretrainConfig()
    length = config.encoder.max_length or own.encoder.max_length
    encoder = dataclasses.replace(config.encoder, train=own.encoder.train, rate=own.encoder.rate, max_length=length)
    return dataclasses.replace(own, data=config.data, episodes=config.episodes, encoder=encoder, seed=config.seed)
