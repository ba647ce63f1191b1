"""All options of a run, as frozen dataclasses that check their values.

The command line is built from `Config`, and a run folder keeps it as ``config.json``. A value that is not possible is
refused with a message that names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from metarec_jax.config.checks import require, require_types
from metarec_jax.config.data import DataConfig, EpisodeConfig, SplitConfig, ending_at, reaching
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.json_io import parse
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.training import Training
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.arguments import instance, optional, takes, text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import HEADS, LEARNERS, TRAININGS, UPDATERS
from metarec_jax.core.registry import normal_form


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of a run, by section."""

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    episodes: EpisodeConfig = EpisodeConfig()
    encoder: EncoderConfig = EncoderConfig()
    factors: FactorsConfig = FactorsConfig()
    learner: LearnerConfig = LearnerConfig()
    updater: UpdaterConfig = UpdaterConfig()
    train: TrainConfig = TrainConfig()
    privacy: TRAININGS.get("privacy") = TRAININGS.get("privacy")()
    seed: int = 0
    """Seed of all random draws."""

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "learner", normal_form(LEARNERS, LearnerConfig, self.learner))
        object.__setattr__(self, "updater", normal_form(UPDATERS, UpdaterConfig, self.updater))
        require(
            self.learner.head == "auto" or HEADS.get(self.learner.head).clicks == (self.data.kind == "click"),
            f"learner.head is {self.learner.head!r} but data.kind is {self.data.kind!r}: "
            "clicks need the head 'click', ratings one of 'rating', 'classes' and 'ordinal'",
        )
        require(
            self.train.shards == 1 or self.encoder.train != "no",
            f"train.shards is {self.train.shards}, but encoder.train is 'no': only an encoder that is trained is split "
            "over devices; use --train.shards 1, or train the encoder",
        )
        self.privacy.check(self)

    @property
    def training(self) -> Training:
        """Traits of the way of training."""
        return self.privacy.training

    @property
    def program(self) -> str:
        """The module whose ``build`` makes the training program of this run."""
        return f"{self.training.package}.{'frozen' if self.encoder.train == 'no' else 'joint'}_program"

    @property
    def has_factors(self) -> bool:
        """Whether the run learns factors of items (`FactorsConfig`)."""
        return self.learner.prior and self.factors.rank > 0

    @property
    def trains_factors(self) -> bool:
        """Whether the outer loop trains a correction of these factors."""
        return self.has_factors and self.factors.train


def for_clicks(config: Config) -> Config:
    """Replace the split, the bounds of episodes and the options of factors by those that suit clicks.

    Args:
        config: any config.

    Returns:
        The config, with the split "strong-generalisation": lists for new users with histories of any length.
    """
    buckets = ending_at(reaching(config.episodes.buckets, CLICK_SUPPORT), CLICK_SUPPORT)
    episodes = dataclasses.replace(
        config.episodes, min_ratings=CLICK_LEAST, max_ratings=0, query=CLICK_QUERY, buckets=buckets
    )
    return dataclasses.replace(
        config,
        split=dataclasses.replace(config.split, kind="strong-generalisation"),
        episodes=episodes,
        factors=dataclasses.replace(config.factors, rank=_CLICK_RANK, train=False),
    )


CLICK_LEAST, CLICK_QUERY, CLICK_SUPPORT, _CLICK_RANK = 5, 4, 512, 64
"""Fewest clicks of a user, greatest query and support of clicks in training, and factors of an item."""
_GATED = LearnerConfig(gate=10.0)
"""Helps users with few ratings, and makes no difference to others (docs/learners.md)."""
_TRAINED = FactorsConfig(train=True)
"""Better for ratings (docs/factors.md); of clicks it has not been measured."""

PRESETS: Mapping[str, Config] = {
    "movielens-100k": Config(learner=_GATED, factors=_TRAINED),
    "movielens-1m": Config(
        data=DataConfig(source="movielens-1m"),
        learner=_GATED,
        factors=_TRAINED,
        train=TrainConfig(epochs=20, users_per_step=64),
    ),
    "synthetic": Config(
        data=DataConfig(source="synthetic"),
        encoder=EncoderConfig(path="random"),
        factors=FactorsConfig(rank=0),
        learner=LearnerConfig(hidden=16),
        train=TrainConfig(epochs=5, users_per_step=32),
    ),
}
"""Name of a preset -> its options: for MovieLens-100K and -1M, and for made-up ratings."""

DEFAULT_PRESET = "movielens-100k"
"""Preset of a command without `--preset` and `--config`."""


@takes(name=text)
def preset(name: str) -> Config:
    """The preset called `name`; an unknown one is refused with the list of those there are."""
    if name not in PRESETS:
        raise MetarecError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


@takes(text=text, where=text, base=optional(instance(Config, what="a config, such as that of `preset`")))
def from_json(text: str, *, where: str, base: Config | None = None) -> Config:
    """The config that JSON `text` describes; what it leaves out is taken from `base`.

    Args:
        text: a JSON object with the fields of `Config`, nested.
        where: what to call the text in an error, for example its file name.
        base: default values; `Config()` where None.

    Returns:
        The config.

    Raises:
        MetarecError: not JSON, an unknown field, a value of the wrong type, or an impossible one.
    """
    return parse(text, where=where, base=base or Config())
