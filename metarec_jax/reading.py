"""The texts of a run on the way to an encoder that is trained: on the devices once, picked batch by batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from metarec_jax.assembly import Part
from metarec_jax.config import Config
from metarec_jax.encoder import Encoder, Texts, Tokens, encode, tokenize
from metarec_jax.errors import MetarecError
from metarec_jax.meta.joint import Encode, Reading, Side, Sides, embed
from metarec_jax.progress import QUIET, Reporter
from metarec_jax.sharding import USERS, replicate
from metarec_jax.types import Episodes, Params, Tables


class Library:
    """The texts that the episodes of a part gather from.

    Args:
        config: of the run.
        encoder: whose tokenizer reads the texts.
        item_texts: of the catalogue.
        part: whose user texts.
        mesh: the devices.
        users_per_step: users of a batch, from which the most texts that one can have are reckoned.
        reporter: told of texts that were cut.

    Attributes:
        training: how a step encodes.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        item_texts: Sequence[str],
        part: Part,
        mesh: Mesh,
        users_per_step: int,
        reporter: Reporter = QUIET,
    ):
        rows = config.episodes.buckets[-1] + config.episodes.query
        self._items = _Shelf(_texts(config, encoder, item_texts, mesh, reporter), mesh, users_per_step * rows)
        self._users = None
        if part.user_texts is not None:
            self._users = _Shelf(_texts(config, encoder, part.user_texts, mesh, reporter), mesh, users_per_step)
        self._without_text = replicate(mesh, part.tables.users)
        per_call = Tables(self._items.texts.per_call, self._users.texts.per_call if self._users else ())
        spread = functools.partial(jax.lax.with_sharding_constraint, shardings=PartitionSpec(USERS))
        constrain = spread if mesh.size > 1 else _as_it_is
        self.training = Reading(encode_with(config, encoder, config.encoder.dropout), per_call, constrain)
        self._embed = jax.jit(functools.partial(embed, Reading(encode_with(config, encoder, 0.0), per_call, constrain)))

    def localise(self, episodes: Episodes) -> tuple[Sides, Episodes]:
        """The distinct texts of a batch, and the batch with slots of their embeddings in place of rows of the tables.

        Episodes are host arrays; what is read is on the devices.
        """
        support, query, user = episodes.support, episodes.query, episodes.user
        item = np.concatenate([support.item, query.item], axis=1)
        items, slots = self._items.pick(item, np.concatenate([support.mask, query.mask], axis=1) > 0)
        users: Side | Array = self._without_text
        if self._users is not None:
            users, user = self._users.pick(user, episodes.weight > 0)
        length = support.item.shape[1]
        moved = episodes._replace(
            user=user,
            support=support._replace(item=slots[:, :length]),
            query=query._replace(item=slots[:, length:]),
        )
        return Sides(items, users), moved

    def tables(self, params: Params) -> Tables:
        """Embeddings of all texts, in the order of the tables."""
        items, order = self._items.everything()
        if self._users is None:
            found = self._embed(params, Sides(items, self._without_text))
            return Tables(_take(found.items, order), found.users)
        users, order_of_users = self._users.everything()
        found = self._embed(params, Sides(items, users))
        return Tables(_take(found.items, order), _take(found.users, order_of_users))


class _Shelf:
    """Texts of one side, their tokens on the devices."""

    def __init__(self, texts: Texts, mesh: Mesh, most: int):
        self.texts, self._mesh, self._most = texts, mesh, most
        self._buckets: tuple[Tokens, ...] = replicate(mesh, texts.buckets)

    def pick(self, used: np.ndarray, real: np.ndarray) -> tuple[Side, np.ndarray]:
        picked, slots = self.texts.pick(used, real, self._most)
        return Side(self._buckets, replicate(self._mesh, picked)), slots

    def everything(self) -> tuple[Side, Any]:
        picked, slots = self.texts.everything()
        return Side(self._buckets, replicate(self._mesh, picked)), replicate(self._mesh, slots)


@jax.jit
def _take(table: Array, rows: Array) -> Array:
    return table[rows]


def _as_it_is(tree: Any) -> Any:
    return tree


def encode_with(config: Config, encoder: Encoder, dropout: float) -> Encode:
    """The encoder as a function of its parameters, pooled as the config says."""
    chosen = config.encoder
    architecture = dataclasses.replace(encoder.config, dropout=dropout, attention_dropout=dropout)

    def function(params: Params, tokens: Tokens, key: Array | None) -> Array:
        return encode(
            params,
            architecture,
            tokens,
            pooling=chosen.pooling,
            normalise=chosen.normalise,
            dropout_key=key if dropout else None,
        )

    return function


def _texts(config: Config, encoder: Encoder, texts: Sequence[str], mesh: Mesh, reporter: Reporter) -> Texts:
    chosen = config.encoder
    if chosen.max_length > encoder.config.max_positions:
        raise MetarecError(
            f"encoder.max_length is {chosen.max_length}, but {encoder.source} has {encoder.config.max_positions} "
            f"positions: use --encoder.max-length {encoder.config.max_positions}"
        )
    found = tokenize(encoder.tokenizer, texts, chosen.max_length)
    if found.truncated:
        reporter.note(f"{found.truncated} of {len(texts)} texts are longer than {chosen.max_length} tokens and are cut")
    return Texts.of(
        found.ids,
        limit=chosen.max_length,
        tokens_per_call=chosen.tokens_per_call,
        pad=encoder.config.pad_token_id,
        split=mesh.size,
    )
