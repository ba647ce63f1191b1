"""Every choice of a pretraining, as frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError

Objective = Literal["both", "mlm", "contrastive"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MetarecError(message)


@dataclasses.dataclass(frozen=True)
class MlmConfig:
    """Masked language model: BERT's own objective, on item texts and on users written as text."""

    share: float = 0.15
    """Share of the tokens that are hidden, by whole words."""
    item_share: float = 0.25
    """Share of the steps that read item texts; the others read what users did."""
    tokens_per_step: int = 2048
    """Tokens of a step, padding included."""
    head_rate: float = 1e-3
    """Learning rate of the head at its peak. It is far from the encoder's, since most checkpoints come without a head,
    and then it starts knowing nothing."""

    def __post_init__(self) -> None:
        _require(0 < self.share < 1, f"mlm.share is {self.share}; it must lie between 0 and 1")
        _require(0 <= self.item_share <= 1, f"mlm.item_share is {self.item_share}; it is a share, 0 to 1")
        _require(self.tokens_per_step >= 1, f"mlm.tokens_per_step is {self.tokens_per_step}; it must be at least 1")
        _require(
            math.isfinite(self.head_rate) and self.head_rate > 0,
            f"mlm.head_rate is {self.head_rate}; it must be a finite number above 0",
        )


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
    """Items that one user likes are drawn together, and away from what other users like."""

    weight: float = 1.0
    """Of this loss beside that of masked words."""
    temperature: float = 0.2
    """What cosines are divided by."""
    users_per_step: int = 16
    liked_per_user: int = 12
    """Liked items of a user that a step reads, at most; each step draws them anew."""
    liked: float = 0.75
    """A rating from this part of the scale on is a like: .75 of 1 to 5 is 4."""

    def __post_init__(self) -> None:
        for name in ("weight", "temperature"):
            value = getattr(self, name)
            _require(
                math.isfinite(value) and value > 0, f"contrastive.{name} is {value}; it must be a finite number above 0"
            )
        _require(
            self.users_per_step >= 2,
            f"contrastive.users_per_step is {self.users_per_step}; it must be at least 2, since what others like is "
            "what a user's items are held against",
        )
        _require(
            self.liked_per_user >= 2,
            f"contrastive.liked_per_user is {self.liked_per_user}; it must be at least 2, since items are drawn "
            "together in pairs",
        )
        _require(0 <= self.liked <= 1, f"contrastive.liked is {self.liked}; it is a part of the scale, 0 to 1")


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """A pretraining.

    `data`, `episodes` and `seed` are those of the runs that will use the encoder: they decide who is a training user.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    episodes: EpisodeConfig = dataclasses.field(default_factory=EpisodeConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=lambda: EncoderConfig(train="all", rate=1e-4))
    """Which BERT to start from, how its tokens become a vector, and its learning rate."""
    mlm: MlmConfig = MlmConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()
    objective: Objective = "both"
    """What is trained for: hidden words, likes, or their sum."""
    held_out: float = 0.05
    """Share of the items whose text and interactions pretraining never sees, so that it can be judged on them."""
    steps: int = 200
    """Optimiser steps."""
    warmup: float = 0.1
    """Share of the steps in which rates rise from 0."""
    weight_decay: float = 1e-2
    clip: float = 1.0
    """Greatest norm of a gradient."""
    judge_every: int = 50
    """Steps between two looks at what was held out, and between two checkpoints."""
    devices: int = 0
    """Devices that share the texts; 0 takes all."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require(
            self.encoder.train != "no",
            "encoder.train is 'no', but pretraining trains the encoder: use --encoder.train all, or lora",
        )
        _require(
            self.encoder.keep == "nothing",
            f"encoder.keep is {self.encoder.keep!r}, but pretraining keeps nothing between its passes over a text: use "
            "--encoder.keep nothing",
        )
        _require(
            self.objective in ("both", "mlm", "contrastive"),
            f"objective is {self.objective!r}; it must be one of 'both', 'mlm', 'contrastive'",
        )
        _require(0 <= self.held_out < 1, f"held_out is {self.held_out}; it must be at least 0 and below 1")
        for name in ("steps", "judge_every"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        _require(0 <= self.warmup <= 1, f"warmup is {self.warmup}; it is a share of the steps, 0 to 1")
        _require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"weight_decay is {self.weight_decay}; it must be a finite number of at least 0",
        )
        _require(math.isfinite(self.clip) and self.clip > 0, f"clip is {self.clip}; it must be a finite number above 0")
        _require(self.devices >= 0, f"devices is {self.devices}; it must be 0 (all) or more")
        _require(0 <= self.seed < 2**31, f"seed is {self.seed}; it must lie between 0 and {2**31 - 1}")

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
    encoder = dataclasses.replace(config.encoder, train=own.encoder.train, rate=own.encoder.rate, keep="nothing")
    return dataclasses.replace(own, data=config.data, episodes=config.episodes, encoder=encoder, seed=config.seed)
