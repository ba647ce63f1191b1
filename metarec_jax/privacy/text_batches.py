"""Text batches of a private run that trains its encoder: each user's texts are picked separately."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec

from metarec_jax.config.run import Config
from metarec_jax.core.types import Episodes
from metarec_jax.encoder import Encoder, Picked, Texts
from metarec_jax.meta.encoder_step import Reading
from metarec_jax.privacy.dp_encoder_step import Apart
from metarec_jax.privacy.dp_step import Summed
from metarec_jax.train.experiment import Part
from metarec_jax.train.sharding import by_user, per_device, replicate, shard_users, total
from metarec_jax.train.text_batches import encode_with, texts_of, texts_used, with_slots


class PrivateTextBatches:
    """Texts of items and users for the episodes of a part.

    `metarec_jax.train.text_batches.TextBatches` is the counterpart in which users share texts.

    Args:
        config: config of the run.
        encoder: provides the tokenizer.
        item_texts: texts of the catalogue.
        part: provides the texts of users.
        mesh: the devices; each has a whole encoder.

    Attributes:
        reading: options of encoding in a step.
    """

    def __init__(self, config: Config, encoder: Encoder, item_texts: Sequence[str], part: Part, mesh: Mesh):
        self._mesh = mesh
        self._first_user = None if part.user_texts is None else len(item_texts)
        self._most = config.episodes.buckets[-1] + config.episodes.query + 1
        self._texts = of_one_user(texts_of(config, encoder, item_texts, part.user_texts or ()), self._most)
        self._buckets = replicate(mesh, self._texts.buckets)
        self._without_text = replicate(mesh, part.tables.users) if part.user_texts is None else None
        self.reading = Reading(encode_with(config, encoder.config), self._texts.per_call)

    def localise(self, episodes: Episodes) -> tuple[Apart, Episodes]:
        """Pick the distinct texts of each user of a batch.

        Args:
            episodes: the batch, as host arrays.

        Returns:
            The texts, on the devices, and the batch with slots of each user's embeddings in place of table rows.
        """
        users = len(episodes.weight)
        flat, slots = self._texts.pick_apart(*texts_used(episodes, self._first_user), self._most, users)
        picked = tuple(Picked(rows.reshape(users, -1), count) for rows, count in flat)
        picked, rows = shard_users(self._mesh, (picked, episodes.user))
        return Apart(self._buckets, picked, rows, self._without_text), with_slots(episodes, slots)

    def spread(self, summed: Summed) -> Summed:
        """Distribute a sum over users to all devices, each of which has a part of the users."""
        mesh = self._mesh
        if mesh.size == 1:
            return summed

        def own(*given: Any) -> Any:
            gradient, outcomes = summed(*given)
            return total(mesh, gradient), outcomes

        users = by_user(mesh)
        read = cast("Any", Apart)(buckets=Spec(), picked=users, rows=users, users=Spec())
        return per_device(mesh, own, (Spec(), read, users, Spec()), (Spec(), users))


def of_one_user(texts: Texts, most: int) -> Texts:
    """Adjust chunk sizes of texts for single users.

    Args:
        texts: the texts.
        most: greatest number of texts of a user; a user with this number encodes at most twice as many, since the last
            chunk of a bucket is padded.

    Returns:
        The texts with smaller chunks.
    """
    share = -(-most // len(texts.buckets))
    return dataclasses.replace(texts, per_call=tuple(min(rows, share) for rows in texts.per_call))
