"""A small trained run, made once for all tests that start from one."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path

from metarec_jax.config.run import Config, preset
from metarec_jax.core.types import Interactions
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train.start import meta_train

RATINGS = 30
"""Of each synthetic user."""


def small_config() -> Config:
    """Synthetic ratings, one inner step of first order, two epochs."""
    config = preset("synthetic")
    return dataclasses.replace(
        config,
        episodes=dataclasses.replace(config.episodes, draws=1),
        learner=dataclasses.replace(config.learner, hidden=8, head="ordinal", user_side="description"),
        updater=dataclasses.replace(config.updater, steps=2, order="first"),
        train=dataclasses.replace(config.train, epochs=2, users_per_step=80, devices=1),
    )


@functools.cache
def trained_run() -> Path:
    """The folder of a finished run of `small_config`. Tests that change something work on a copy."""
    folder = Path(tempfile.mkdtemp(prefix="metarec-test-")) / "run"
    meta_train(small_config(), folder)
    return folder


@functools.cache
def small_data() -> Interactions:
    """The data of `small_config`."""
    from metarec_jax.data import load

    return load(small_config().data, seed=small_config().seed)


def believing_config() -> Config:
    """`small_config`, with beliefs about items."""
    small = small_config()
    return dataclasses.replace(small, factors=dataclasses.replace(small.factors, rank=4))


@functools.cache
def believing_run() -> Path:
    """The folder of a finished run of `believing_config`."""
    folder = Path(tempfile.mkdtemp(prefix="metarec-test-")) / "run"
    meta_train(believing_config(), folder)
    return folder


def fresh(recommender: Recommender) -> Recommender:
    """The same model as of a new process: what the other one was given to learn or to keep, it does not have."""
    trainable, encoder = recommender.executor.trainable, recommender.texts.encoder
    return Recommender(recommender.config, recommender.catalogue, trainable, encoder)
