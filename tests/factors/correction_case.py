"""A model with item factors and a correction of them, and a batch in which items come several times."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from helpers import Tiny, interactions

from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Episodes, Rows, Tables
from metarec_jax.data.splits import Statistics
from metarec_jax.factors.item_factors import NOTHING_KNOWN
from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.model import init_trainable, make_model

ITEMS, RANK, HIDDEN = 20, 2, 3


def drawn_case(dtype: type) -> Tiny:
    """A batch of 8 users and 20 items; some rows are padded, and some of an item without ratings of others.

    Args:
        dtype: of every float.
    """
    rng = np.random.default_rng(0)
    config = Config(
        factors=FactorsConfig(rank=RANK, train=True),
        learner=LearnerConfig(hidden=4, head="rating", user_side="none"),
        updater=UpdaterConfig(steps=2, rate=0.1),
    )
    data = interactions([0], [0], [3.0], items=ITEMS)
    table = drawn_table(rng, ITEMS)
    embeddings = rng.normal(size=(ITEMS, HIDDEN)).astype(np.float32)
    ones = np.ones(ITEMS, np.float32)
    beliefs = dataclasses.replace(NOTHING_KNOWN, table=table, tastes=no_tastes(RANK, 0))
    catalogue = Catalogue(data.items, Statistics(ones, ones, table), embeddings, STARS, beliefs)
    model = make_model(config, STARS)
    trainable = init_trainable(config, model, catalogue, np.zeros((1, 0), np.float32), jax.random.key(0))
    trainable = jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.2 * rng.normal(size=leaf.shape), dtype), trainable)
    tables = Tables(jnp.asarray(embeddings, dtype), jnp.zeros((8, 0), dtype))

    def rows(length: int) -> Rows:
        real = rng.random((8, length)) < 0.8
        real[:, 0] = True
        item = np.where(real, rng.integers(0, ITEMS - 4, real.shape), 0).astype(np.int32)
        count = np.where(item % 5 == 4, 0, rng.integers(1, 7, item.shape))  # nobody else rated some items
        known = np.stack([3 * count, count], axis=-1)
        statistic = np.concatenate([known, table[item]], axis=-1) * real[..., None]
        rating = np.where(real, rng.integers(1, 6, real.shape), 0)
        return Rows(item, rating.astype(dtype), real.astype(dtype), statistic.astype(dtype))

    episodes = Episodes(np.arange(8, dtype=np.int32), rows(5), rows(3), np.ones(8, dtype))
    return Tiny(model, trainable, model.prepare(trainable.theta, tables), episodes)


def drawn_table(rng: np.random.Generator, items: int) -> np.ndarray:
    """A table of item factors: float32 [items, 2 + RANK].

    Args:
        rng: the draw.
        items: number of items.
    """
    mean, rest = rng.uniform(2, 4, (items, 1)), rng.uniform(0.2, 0.5, (items, 1))
    return np.concatenate([mean, rest, rng.normal(size=(items, RANK))], axis=1).astype(np.float32)
