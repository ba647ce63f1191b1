"""The interface of a learner: pure functions of one user, built from a learner's config."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from metarec_jax.config.checks import require
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.core.kinds import HEADS, LEARNERS
from metarec_jax.core.registry import as_kind
from metarec_jax.core.types import Array, Params, Prepared, Tables
from metarec_jax.learner import prior as prior_path
from metarec_jax.learner.heads import Head
from metarec_jax.learner.inputs import Context, Features, prepare

USER_DROPOUT = 0.5
"""Share of the users in training whose text is dropped, so that the model also works for users without one."""


@dataclasses.dataclass(frozen=True)
class ReaderConfig(LearnerConfig):
    """A learner that reads the support: the options of every such kind."""

    layers: int = 1
    """Layers that read the support."""
    width: int = 32
    """Width of a token ("transformer"), or of the state ("recurrent")."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "width"):
            value = getattr(self, name)
            require(value >= 1, f"learner.{name} is {value}; it must be at least 1")


class Learner(NamedTuple):
    """A learner: pure functions of one user.

    Attributes:
        init: (key, item_embeddings=..., user_embeddings=..., mean_rating=..., believed=...) -> params; `believed` as
            for `metarec_jax.learner.prior.init`.
        prepare: (params, tables) -> tables in the form that `apply` reads.
        apply: (params, context, rows) -> outputs of the rows.
        summarise: (params, context) -> summary of the support; None where the learner does not read the support.
        taste: (params, context) -> posterior of the user's taste, for the prior path; None where there is none.
        floats_per_row: (length of the support) -> largest number of floats that scoring one row needs at a time.
    """

    init: Callable[..., Params]
    prepare: Callable[[Params, Tables], Prepared]
    apply: Callable[[Params, Context, Features], Array]
    summarise: Callable[[Params, Context], Any] | None = None
    taste: Callable[[Params, Context], Any] | None = None
    floats_per_row: Callable[[int], int] = lambda support: 1


def make_learner(config: LearnerConfig, head: Head) -> Learner:
    """Build the learner that a config describes.

    Args:
        config: kind and options of the learner.
        head: interpretation of the outputs.

    Returns:
        The learner.
    """
    return as_kind(LEARNERS, config).build(head)


def make_head(kind: str, *, levels: tuple[float, ...], low: float, high: float) -> Head:
    """Build a head for ratings of a scale.

    Args:
        kind: name of the head in the registry of heads.
        levels: the values that a rating can take; () where ratings are continuous.
        low, high: ends of the scale.

    Returns:
        The head.

    Raises:
        MetarecError: the head needs levels and there are none.
    """
    return HEADS.get(kind).build(levels, low, high)


def text_learner(
    config: LearnerConfig,
    head: Head,
    init: Callable[..., Params],
    apply: Callable[..., Array],
    summarise: Callable[..., Any] | None = None,
    attention: Callable[[int], int] = lambda support: 0,
) -> Learner:
    """Build a learner with the inputs and the prior path of the built-in learners.

    Args:
        config: the options that all kinds of learner share.
        head: interpretation of the outputs.
        init: function with the signature of `metarec_jax.learner.mlp.init`.
        apply: function with the signature of `metarec_jax.learner.mlp.apply`.
        summarise: function with the signature of `metarec_jax.learner.transformer.summarise`; None where the learner
            does not read the support.
        attention: (length of the support) -> floats that a row needs in addition to those of the MLP.

    Returns:
        The learner.
    """
    reading = {"user_dropout": USER_DROPOUT, "compute": config.compute}
    own = {"prior": config.prior, "dropout": config.dropout}

    def applied(params: Params, context: Context, rows: Features) -> Array:
        return apply(params, head, context, rows, **own, **reading)

    def summarised(params: Params, context: Context) -> Any:
        assert summarise is not None
        return summarise(params, head, context, **reading)

    return Learner(
        init=functools.partial(init, head=head, hidden=config.hidden, context=config.context, gate=config.gate),
        prepare=functools.partial(prepare, compute=config.compute),
        apply=applied,
        summarise=None if summarise is None else summarised,
        taste=prior_path.summarise,
        floats_per_row=lambda support: config.hidden + head.outputs + attention(support),
    )
