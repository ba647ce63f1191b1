"""The registries of the package, with the module that registers each built-in kind.

A new built-in kind is a module with a decorated object, and a line here.
"""

from __future__ import annotations

from typing import Any

from metarec_jax.core.registry import Registry

_SOURCES = "metarec_jax.data.sources"
_PROTOCOLS = "metarec_jax.data.protocols"
_LEARNERS = "metarec_jax.learner"
_ENCODERS = "metarec_jax.encoder"
_UPDATERS = "metarec_jax.meta.updaters"

SOURCES: Registry[Any] = Registry(
    "data.source",
    {
        "auto": f"{_SOURCES}.auto",
        "movielens-100k": f"{_SOURCES}.movielens_100k",
        "movielens-1m": f"{_SOURCES}.movielens_1m",
        "movielens-latest": f"{_SOURCES}.movielens_csv",
        "movietweetings": f"{_SOURCES}.movietweetings",
        "recbole": f"{_SOURCES}.recbole",
        "mind": f"{_SOURCES}.mind",
        "amazon": f"{_SOURCES}.amazon",
        "goodreads": f"{_SOURCES}.goodreads",
        "book-crossing": f"{_SOURCES}.book_crossing",
        "lastfm": f"{_SOURCES}.lastfm",
        "row-store": f"{_SOURCES}.row_store",
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
        "strong-generalisation": f"{_PROTOCOLS}.strong_generalisation",
        "next-items": f"{_PROTOCOLS}.next_items",
        "cold-items": f"{_PROTOCOLS}.cold_items",
    },
)
"""Evaluation protocols, which divide the rows: `metarec_jax.data.protocols.register_split`."""

ENCODERS: Registry[Any] = Registry(
    "encoder.path",
    {"minilm": f"{_ENCODERS}.pretrained", "random": f"{_ENCODERS}.pretrained"},
)
"""Named encoders: functions () -> `metarec_jax.encoder.Encoder`. Any other path is a folder or a hub id."""

LEARNERS: Registry[Any] = Registry(
    "learner.kind",
    {
        "mlp": f"{_LEARNERS}.mlp",
        "transformer": f"{_LEARNERS}.transformer",
        "recurrent": f"{_LEARNERS}.recurrent",
    },
)
"""Learners: dataclasses that extend `metarec_jax.config.learner.LearnerConfig`, with a ``build(head)`` that gives a
`metarec_jax.learner.contract.Learner`."""

HEADS: Registry[Any] = Registry(
    "learner.head",
    dict.fromkeys(("rating", "classes", "ordinal", "click"), f"{_LEARNERS}.heads"),
)
"""Heads: `metarec_jax.learner.heads.register_head`."""

UPDATERS: Registry[Any] = Registry(
    "updater.kind",
    {
        "gradient": f"{_UPDATERS}.gradient",
        "momentum": f"{_UPDATERS}.momentum",
        "meta-sgd": f"{_UPDATERS}.meta_sgd",
        "adam": f"{_UPDATERS}.optax_rules",
        "rmsprop": f"{_UPDATERS}.optax_rules",
        "adagrad": f"{_UPDATERS}.optax_rules",
        "learned": f"{_UPDATERS}.learned",
        "imaml": f"{_UPDATERS}.implicit",
        "ridge": f"{_UPDATERS}.ridge",
        "amortised": f"{_UPDATERS}.amortised",
    },
)
"""Inner-loop rules: dataclasses that extend `metarec_jax.config.updater.UpdaterConfig`, with a ``build(curvature)``
that gives a `metarec_jax.meta.updaters.contract.Updater`."""

TRAININGS: Registry[Any] = Registry("training", {"privacy": "metarec_jax.privacy.options"})
"""Ways of training other than the ordinary one, by the section of the config that holds their options: dataclasses with
a property ``training`` (`metarec_jax.config.training.Training`) and a ``check(config)``."""

TRACKERS: Registry[Any] = Registry("--tracker", {"tensorboard": "metarec_jax.train.tensorboard"})
"""Receivers of metrics: functions (run folder, config as a dictionary) -> `metarec_jax.train.tracker.Tracker`."""

ALL: tuple[Registry[Any], ...] = (SOURCES, SPLITS, ENCODERS, LEARNERS, HEADS, UPDATERS)
"""The registries whose names are values of options."""
