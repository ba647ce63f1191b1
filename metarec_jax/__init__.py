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
to add a flag to $XLA_FLAGS that keeps JAX from wrong numbers on a CPU (see `metarec_jax.compiler`), and to leave linear
algebra to JAX's own threads (see `metarec_jax.threads`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metarec_jax.compiler import avoid_wrong_sums
from metarec_jax.threads import leave_threads_to_xla

if TYPE_CHECKING:
    from metarec_jax.assembly import Assembly, assemble
    from metarec_jax.config import PRESETS, Config, from_json, preset, to_json
    from metarec_jax.data import load
    from metarec_jax.errors import MetarecError
    from metarec_jax.launch import meta_train, resume, start
    from metarec_jax.runs import Run, open_run
    from metarec_jax.serving.explain import Explanation
    from metarec_jax.serving.recommender import Rated, Recommendation, Recommender, UserState
    from metarec_jax.train import Fitted, fit
    from metarec_jax.types import Interactions, Items, Users

avoid_wrong_sums()
leave_threads_to_xla()

_HOMES = {
    "Assembly": "assembly",
    "Config": "config",
    "Explanation": "serving.explain",
    "Fitted": "train",
    "Interactions": "types",
    "Items": "types",
    "MetarecError": "errors",
    "PRESETS": "config",
    "Rated": "serving.recommender",
    "Recommendation": "serving.recommender",
    "Recommender": "serving.recommender",
    "Run": "runs",
    "UserState": "serving.recommender",
    "Users": "types",
    "assemble": "assembly",
    "fit": "train",
    "from_json": "config",
    "load": "data",
    "meta_train": "launch",
    "open_run": "runs",
    "preset": "config",
    "resume": "launch",
    "start": "launch",
    "to_json": "config",
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
