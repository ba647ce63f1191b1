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
from metarec_jax.encoder import Encoder, Execution, Texts, Tokens, encode, tokenize
from metarec_jax.errors import MetarecError
from metarec_jax.meta.joint import Chosen, Encode, Reading, embed
from metarec_jax.progress import QUIET, Reporter
from metarec_jax.sharding import USERS, replicate
from metarec_jax.types import Episodes, Params, Tables

CPU_TOKENS, TOKENS = 1024, 16384
"""Tokens of a call where the config leaves it open: on a CPU, whose caches are small, and on anything else."""


class Library:
    """The texts that the episodes of a part gather from, of items and of users alike.

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
        self._mesh, self._item_count = mesh, len(item_texts)
        self._texts = texts_of(config, encoder, (*item_texts, *(part.user_texts or ())), mesh, reporter)
        self._buckets: tuple[Tokens, ...] = replicate(mesh, self._texts.buckets)
        self._most = users_per_step * (config.episodes.buckets[-1] + config.episodes.query + 1)
        self._without_text = replicate(mesh, part.tables.users) if part.user_texts is None else None
        spread = functools.partial(jax.lax.with_sharding_constraint, shardings=PartitionSpec(USERS))
        constrain = spread if mesh.size > 1 else _as_it_is
        self.training = Reading(encode_with(config, encoder, config.encoder.dropout), self._texts.per_call, constrain)
        evaluating = self.training._replace(encode=encode_with(config, encoder, 0.0))
        self._embed = jax.jit(functools.partial(embed, evaluating))

    def localise(self, episodes: Episodes) -> tuple[Chosen, Episodes]:
        """The distinct texts of a batch, and the batch with slots of their embeddings in place of rows of the tables.

        Episodes are host arrays; what is read is on the devices.
        """
        support, query = episodes.support, episodes.query
        used, real = [support.item, query.item], [support.mask > 0, query.mask > 0]
        if self._without_text is None:
            used.append(self._item_count + episodes.user[:, None])
            real.append(episodes.weight[:, None] > 0)
        picked, slots = self._texts.pick(np.concatenate(used, axis=1), np.concatenate(real, axis=1), self._most)
        first, last = support.item.shape[1], support.item.shape[1] + query.item.shape[1]
        moved = episodes._replace(
            user=slots[:, last] if self._without_text is None else episodes.user,
            support=support._replace(item=slots[:, :first]),
            query=query._replace(item=slots[:, first:last]),
        )
        return Chosen(self._buckets, replicate(self._mesh, picked), self._without_text), moved

    def tables(self, params: Params) -> Tables:
        """Embeddings of all texts, in the order of the tables."""
        picked, slots = self._texts.everything()
        embeddings = self._embed(params, Chosen(self._buckets, replicate(self._mesh, picked)))
        found = _take(embeddings, replicate(self._mesh, slots))
        users = found[self._item_count :] if self._without_text is None else self._without_text
        return Tables(found[: self._item_count], users)


@jax.jit
def _take(table: Array, rows: Array) -> Array:
    return table[rows]


def _as_it_is(tree: Any) -> Any:
    return tree


def encode_with(config: Config, encoder: Encoder, dropout: float) -> Encode:
    """The encoder as a function of its parameters, pooled as the config says."""
    chosen = config.encoder
    run = Execution(chosen.attention, chosen.remat, chosen.scan)
    architecture = dataclasses.replace(encoder.config, dropout=dropout, attention_dropout=dropout)

    def function(params: Params, tokens: Tokens, key: Array | None) -> Array:
        return encode(
            params,
            architecture,
            tokens,
            pooling=chosen.pooling,
            normalise=chosen.normalise,
            dtype=None if chosen.compute == "float32" else chosen.compute,
            dropout_key=key if dropout else None,
            run=run,
        )

    return function


def texts_of(config: Config, encoder: Encoder, texts: Sequence[str], mesh: Mesh, reporter: Reporter) -> Texts:
    """`texts` as tokens in length buckets, for chunks that the devices share.

    Raises:
        MetarecError: the config asks for longer texts than the encoder reads.
    """
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
        tokens_per_call=chosen.tokens_per_call or (CPU_TOKENS if jax.default_backend() == "cpu" else TOKENS),
        pad=encoder.config.pad_token_id,
        split=mesh.size,
    )
