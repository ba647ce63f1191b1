"""Texts of a run whose encoder is trained: each batch packs those that it uses into rows."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.encoder import (
    Encoder,
    Execution,
    Texts,
    prompt_length,
    tokenize,
)
from metarec_jax.encoder.attention import KEEPS_APART
from metarec_jax.factors.correction import items_of
from metarec_jax.meta.text_passes import Chosen
from metarec_jax.train.encoder_options import resolve_encoder
from metarec_jax.train.experiment import Part
from metarec_jax.train.sharding import SHARDS, replicate, shard_users
from metarec_jax.train.text_devices import Devices, execution_of, worth_sharing


class TextBatches:
    """The texts of the items, and of the users of a part.

    Args:
        config: config of the run.
        encoder: its tokenizer is used.
        item_texts: texts of the catalogue.
        part: the part, with its users' texts.
        mesh: the devices.
        users_per_step: number of users of a batch, which bounds the number of its texts.
        run: options of computing layers; None chooses by the platform of the devices.

    Attributes:
        devices: how a step encodes texts on all devices.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        item_texts: Sequence[str],
        part: Part,
        mesh: Mesh,
        users_per_step: int,
        run: Execution | None = None,
    ):
        self._mesh, self._item_count, self._corrected = mesh, len(item_texts), config.trains_factors
        users = part.user_texts or ()
        of_a_user = config.episodes.buckets[-1] + config.episodes.query + 1
        self._most = users_per_step * of_a_user
        self._most_of_device = -(-users_per_step // mesh.size) * of_a_user
        distinct = len({*item_texts, *users})
        shared = worth_sharing(distinct, self._most, self._most_of_device, mesh)
        platform, split = mesh.devices.flat[0].platform, SHARDS in mesh.axis_names
        run = execution_of(config.encoder, platform, split=split) if run is None else run
        own = -(-min(distinct, self._most) // mesh.size) if shared else self._most_of_device
        self._texts = texts_of(config, encoder, item_texts, users, most=own, run=run)
        self._without_text = replicate(mesh, part.tables.users) if part.user_texts is None else None
        slots = self._texts.slots(-(-self._most // mesh.size) if shared else self._most_of_device)
        self.devices = Devices(config, encoder.config, self._texts.plan.per_call, slots, mesh, shared=shared, run=run)
        every = self._texts.slots(-(-len(self._texts.text_of) // mesh.size))
        self._embed = jax.jit(functools.partial(self.devices.embed_everything, slots=every))

    def localise(self, episodes: Episodes) -> tuple[Chosen, Episodes]:
        """Pack the distinct texts of a batch, and replace rows of the tables by slots of their embeddings.

        Args:
            episodes: a batch, on the host.

        Returns:
            The texts, on the devices, and the batch, on the host.
        """
        first = None if self._without_text is not None else self._item_count
        entries, size = texts_used(episodes, first), self._mesh.size
        if size == 1:
            picked, slots = self._texts.pick(*entries, self._most)
        elif self.devices.shared:
            picked, slots = self._texts.pick_shared(*entries, self._most, size)
        else:
            picked, slots = self._texts.pick_apart(*entries, self._most_of_device, size)
        items = shard_users(self._mesh, items_of(episodes)) if self._corrected else None
        chosen = Chosen(self._put(picked), self._without_text, items)
        return chosen, with_slots(episodes, slots)

    def _put(self, picked: Any) -> Any:
        return replicate(self._mesh, picked) if self._mesh.size == 1 else shard_users(self._mesh, picked)

    def tables(self, params: Params) -> Tables:
        """Encode all texts.

        Args:
            params: parameters of the encoder.

        Returns:
            The tables, on the devices.
        """
        rows = np.arange(len(self._texts.text_of))
        every, size = np.ones(len(rows), bool), self._mesh.size
        if size == 1:
            picked, slots = self._texts.pick(rows, every, len(rows))
        else:
            picked, slots = self._texts.pick_shared(rows, every, len(rows), size)
        embeddings = self._embed(params, Chosen(self._put(picked)))
        found = _take(embeddings, replicate(self._mesh, slots))
        users = found[self._item_count :] if self._without_text is None else self._without_text
        return Tables(found[: self._item_count], users)


def texts_used(episodes: Episodes, first_user: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Find the texts that each user of a batch uses.

    Args:
        episodes: a batch, on the host.
        first_user: row of the first user's text, after those of items; None where users have no text.

    Returns:
        Rows of texts, int [users, support + query (+ 1)], and bool of the same shape, False for padding.
    """
    used, real = zip(*((rows.item, rows.mask > 0) for rows in (episodes.support, episodes.query)))
    if first_user is not None:
        used, real = (*used, first_user + episodes.user[:, None]), (*real, episodes.weight[:, None] > 0)
    return np.concatenate(used, axis=1), np.concatenate(real, axis=1)


def with_slots(episodes: Episodes, slots: np.ndarray) -> Episodes:
    """Replace rows of the tables by slots of embeddings; random draws for a user do not depend on the slots.

    Args:
        episodes: a batch, on the host.
        slots: int [users, support + query (+ 1)], slots of the texts of `texts_used`.

    Returns:
        The batch.
    """
    support, query = episodes.support, episodes.query
    first, last = support.item.shape[1], support.item.shape[1] + query.item.shape[1]
    own = {"user": slots[:, last], "number": episodes.user} if slots.shape[1] > last else {}
    return episodes._replace(
        **own,
        support=support._replace(item=slots[:, :first]),
        query=query._replace(item=slots[:, first:last]),
    )


@jax.jit
def _take(table: Array, rows: Array) -> Array:
    return table[rows]


def texts_of(
    config: Config,
    encoder: Encoder,
    items: Sequence[str],
    users: Sequence[str] = (),
    reporter: Reporter = QUIET,
    *,
    most: int = 0,
    split: int = 1,
    run: Execution | None = None,
) -> Texts:
    """Tokenize texts, each with the prompt of its side.

    Args:
        config: config of the run.
        encoder: its tokenizer is used.
        items: texts of items.
        users: texts of users, which follow those of items.
        reporter: shows the number of truncated texts; by default nothing, since `metarec_jax.train.embed.embed` shows
            it.
        most, split: as for `metarec_jax.encoder.Texts.of`.
        run: options of computing layers; None chooses for this machine. Where fused attention does not keep texts
            apart, each text has its own row.

    Returns:
        The texts.

    Raises:
        MetarecError: the config's greatest length exceeds the encoder's number of positions, or holds no more than a
            prompt.
    """
    chosen = resolve_encoder(config.encoder, encoder)
    run = execution_of(chosen, jax.default_backend()) if run is None else run
    texts: list[str] = []
    skip: list[int] = []
    for prompt, own in ((chosen.document_prompt, items), (chosen.query_prompt, users)):
        length = prompt_length(encoder.tokenizer, prompt, chosen.max_length)
        texts += [prompt + text for text in own]
        skip += [0 if chosen.pool_prompt == "yes" else length] * len(own)
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    found = tokenize(encoder.tokenizer, list(distinct), chosen.max_length)
    if found.truncated:
        reporter.note(
            f"{found.truncated} of {len(distinct)} texts are longer than {chosen.max_length} tokens and were cut"
        )
    return Texts.of(
        [found.ids[distinct[text]] for text in texts],
        tokens_per_call=run.tokens_per_call,
        most=most,
        width=encoder.config.hidden_size,
        shortest_row=run.shortest_row,
        calls=run.calls,
        pad=encoder.config.pad_token_id,
        split=split,
        skip=skip,
        alone=chosen.max_length if run.attention == "fused" and jax.default_backend() not in KEEPS_APART else 0,
    )
