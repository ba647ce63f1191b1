"""The learners by name, each as the functions that the rest of the package calls."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.core.types import Array, Params, Prepared, Tables
from metarec_jax.learner import mlp, recurrent, transformer
from metarec_jax.learner import prior as prior_path
from metarec_jax.learner.heads import Head
from metarec_jax.learner.inputs import Context, Features, prepare


class Learner(NamedTuple):
    """A learner: pure functions of one user.

    Attributes:
        init: (key, item_embeddings=..., user_embeddings=..., mean_rating=..., believed=...) -> params; `believed` as
            for `metarec_jax.learner.prior.init`.
        prepare: (params, tables) -> tables as `apply` wants them.
        apply: (params, context, rows) -> outputs of the rows.
        summarise: (params, context) -> what is made of the support; None where the learner does not read it.
        taste: the same of the prior path.
    """

    init: Callable[..., Params]
    prepare: Callable[[Params, Tables], Prepared]
    apply: Callable[[Params, Context, Features], Array]
    summarise: Callable[[Params, Context], Any] | None = None
    taste: Callable[[Params, Context], Any] | None = None


class _Kind(NamedTuple):
    """A module of this folder, with the fields of `LearnerConfig` that its functions take beside those of all."""

    module: Any
    init: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()


KINDS = {
    "mlp": _Kind(mlp),
    "transformer": _Kind(transformer, init=("layers", "width"), reading=("heads",)),
    "recurrent": _Kind(recurrent, init=("layers", "width")),
}


def make_learner(config: LearnerConfig, head: Head) -> Learner:
    """The learner that `config` describes, for outputs of that `head`."""
    kind = KINDS[config.kind]

    def fields(*names: str) -> dict[str, Any]:
        return {name: getattr(config, name) for name in names}

    reading = fields("item_dropout", "user_dropout", "compute", *kind.reading)
    summarise = None
    if hasattr(kind.module, "summarise"):

        def summarise(params: Params, context: Context) -> Any:
            return kind.module.summarise(params, head, context, **reading)

    def apply(params: Params, context: Context, rows: Features) -> Array:
        return kind.module.apply(params, head, context, rows, **fields("prior", "dropout"), **reading)

    return Learner(
        init=functools.partial(kind.module.init, head=head, **fields("hidden", "context", "gate", *kind.init)),
        prepare=functools.partial(prepare, compute=config.compute),
        apply=apply,
        summarise=summarise,
        taste=prior_path.summarise,
    )


def floats_per_row(config: LearnerConfig, outputs: int, support: int) -> int:
    """How many numbers one row to be scored takes at its widest; `support` is the length of the longest."""
    attention = config.heads * (support + 1) if config.kind == "transformer" else 0
    return config.hidden + outputs + attention
