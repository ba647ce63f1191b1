"""A meta-learned recommender on a pretrained BERT, in JAX: it adapts to a user by a few gradient steps.

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

Importing the package imports none of it: each name of ``__init__.pyi`` is imported when it is first used. Importing
only sets two defaults of the environment, for XLA and for OpenBLAS (see `metarec_jax.core.xla_flags`).
"""

from __future__ import annotations

from typing import Any

import lazy_loader

from metarec_jax.core.xla_flags import avoid_wrong_sums, leave_threads_to_xla

avoid_wrong_sums()
leave_threads_to_xla()

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("metarec_jax")
    return _public(name)
