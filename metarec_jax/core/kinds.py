"""The registries of the package, and the module that registers each built-in kind.

A new built-in kind is a module with a decorated object, and a line here.
"""

from __future__ import annotations

from typing import Any

from metarec_jax.core.registry import Registry

_SOURCES = "metarec_jax.data.sources"
_PROTOCOLS = "metarec_jax.data.protocols"

SOURCES: Registry[Any] = Registry(
    "data.source",
    {
        "auto": f"{_SOURCES}.auto",
        "movielens-100k": f"{_SOURCES}.movielens_100k",
        "movielens-1m": f"{_SOURCES}.movielens_1m",
        "movielens-latest": f"{_SOURCES}.movielens_csv",
        "table": f"{_SOURCES}.table",
        "synthetic": f"{_SOURCES}.synthetic",
    },
)
"""Data sources: `metarec_jax.data.sources.register_source`."""

SPLITS: Registry[Any] = Registry(
    "split.kind",
    {
        "users": f"{_PROTOCOLS}.users",
        "melu": f"{_PROTOCOLS}.melu",
        "tallrec": f"{_PROTOCOLS}.tallrec",
        "few-shot": f"{_PROTOCOLS}.few_shot",
        "time": f"{_PROTOCOLS}.time_split",
    },
)
"""Ways to divide the rows: `metarec_jax.data.protocols.register_split`."""
