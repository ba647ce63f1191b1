"""A recommender that learns how to learn a user: meta-learning over a pretrained BERT, in JAX.

>>> import tempfile
>>> import metarec_jax as mr
>>> changes = '{"train": {"epochs": 1}, "updater": {"steps": 1}}'
>>> config = mr.from_json(changes, where="this example", base=mr.preset("synthetic"))
>>> folder = tempfile.mkdtemp()
>>> fitted = mr.meta_train(config, folder)
>>> recommender = mr.Recommender.load(folder)
>>> user = recommender.adapt({1: 5, 2: 3})  # the items with the ids 1 and 2
>>> len(recommender.recommend(user, k=3))
3

Importing the package imports none of it: each name below is imported when it is first used. All that importing does is
to add a flag to $XLA_FLAGS that keeps JAX from wrong numbers on a CPU (see `metarec_jax.core.xla_flags`), and to leave
linear algebra to JAX's own threads (see `metarec_jax.core.xla_flags`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metarec_jax.core.xla_flags import avoid_wrong_sums, leave_threads_to_xla

if TYPE_CHECKING:
    from metarec_jax.config.json_io import to_json
    from metarec_jax.config.run import PRESETS, Config, from_json, preset
    from metarec_jax.core.errors import MetarecError
    from metarec_jax.core.types import Interactions, Items, Users
    from metarec_jax.data import load
    from metarec_jax.recommender.attribution import Explanation
    from metarec_jax.recommender.recommender import Rated, Recommendation, Recommender, UserState
    from metarec_jax.train.build import Assembly, assemble
    from metarec_jax.train.loop import Fitted, fit
    from metarec_jax.train.run_folder import Run, open_run
    from metarec_jax.train.start import meta_train, resume, start

avoid_wrong_sums()
leave_threads_to_xla()

_HOMES = {
    "Assembly": "train.build",
    "Config": "config.run",
    "Explanation": "recommender.attribution",
    "Fitted": "train.loop",
    "Interactions": "core.types",
    "Items": "core.types",
    "MetarecError": "core.errors",
    "PRESETS": "config.run",
    "Rated": "recommender.recommender",
    "Recommendation": "recommender.recommender",
    "Recommender": "recommender.recommender",
    "Run": "train.run_folder",
    "UserState": "recommender.recommender",
    "Users": "core.types",
    "assemble": "train.build",
    "fit": "train.loop",
    "from_json": "config.run",
    "load": "data",
    "meta_train": "train.start",
    "open_run": "train.run_folder",
    "preset": "config.run",
    "resume": "train.start",
    "start": "train.start",
    "to_json": "config.json_io",
}
"""The module of each public name."""

__all__ = [
    "PRESETS",
    "Assembly",
    "Config",
    "Explanation",
    "Fitted",
    "Interactions",
    "Items",
    "MetarecError",
    "Rated",
    "Recommendation",
    "Recommender",
    "Run",
    "UserState",
    "Users",
    "assemble",
    "fit",
    "from_json",
    "load",
    "meta_train",
    "open_run",
    "preset",
    "resume",
    "start",
    "to_json",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("metarec_jax")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
