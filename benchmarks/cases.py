"""Sizes of the timed problems; tests run the smallest."""

from __future__ import annotations

import dataclasses

import numpy as np

from metarec_jax.encoder import BertConfig, Tokens


@dataclasses.dataclass(frozen=True)
class InnerLoopCase:
    """A meta-gradient: `users` tasks of `support` + `query` rows, features -> hidden -> classes, second order.

    Attributes:
        name: name of the case.
        users, support, query, features, hidden, classes, steps: the shape.
        at_once, dense_at_once: users of a micro-batch of our contenders: the fastest of 4, 8, 16, 32, 64, 128 and all
            on two cores. Small micro-batches stay in a processor's cache.
        real: whether the rows are ratings of MovieLens-100K, where users share items; otherwise every row has a
            different item.
    """

    name: str
    users: int = 256
    support: int = 20
    query: int = 10
    features: int = 768
    hidden: int = 128
    classes: int = 5
    steps: int = 5
    at_once: int = 32
    dense_at_once: int = 8
    real: bool = False


SMOKE = InnerLoopCase("smoke", users=4, support=3, query=2, features=16, hidden=8, steps=2, at_once=2, dense_at_once=2)
STANDARD = InnerLoopCase("standard")
SHARED = InnerLoopCase("shared items", real=True)
VARIANTS = (
    dataclasses.replace(STANDARD, name="standard support 5", support=5),
    dataclasses.replace(STANDARD, name="standard support 90", support=90),
    dataclasses.replace(STANDARD, name="standard steps 1", steps=1),
    dataclasses.replace(STANDARD, name="standard steps 10", steps=10),
)
USERS = tuple(
    dataclasses.replace(STANDARD, name=f"standard users {users}", users=users) for users in (32, 128, 512, 1024, 4096)
)
"""The standard case with fewer and more users, which gives the cost per user."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """An encoder of some size, and the batch of texts that it reads.

    Attributes:
        name: name of the shape.
        hidden, layers, heads: sizes of the encoder.
        texts, length: texts of the batch, and their padded length in tokens.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    texts: int
    length: int

    @property
    def config(self) -> BertConfig:
        return BertConfig(
            vocab_size=30522,
            hidden_size=self.hidden,
            num_layers=self.layers,
            num_heads=self.heads,
            intermediate_size=4 * self.hidden,
            has_pooler=False,
        )


MINILM = Shape("MiniLM", 384, 6, 12, 128, 32)
BASE = Shape("bert-base", 768, 12, 12, 32, 32)
SMOKE_SHAPE = Shape("smoke", 16, 2, 2, 4, 8)


def batch_of(shape: Shape) -> Tokens:
    """Random tokens [texts, length]; between half and all of the tokens of a row are real, the rest is padding."""
    rng = np.random.default_rng(0)
    real = np.arange(shape.length) < rng.integers(shape.length // 2, shape.length + 1, (shape.texts, 1))
    ids = np.where(real, rng.integers(1000, 30000, real.shape), 0).astype(np.int32)
    return Tokens(ids, real.astype(np.float32), np.zeros_like(ids))
