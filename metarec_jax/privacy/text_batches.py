"""Text batches of a private run that trains its encoder: each user's texts are picked separately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec

from metarec_jax.config.run import Config
from metarec_jax.core.types import Episodes
from metarec_jax.encoder import Encoder
from metarec_jax.meta.text_passes import Reading
from metarec_jax.privacy.dp_encoder_step import Apart
from metarec_jax.privacy.dp_step import Summed
from metarec_jax.train.experiment import Part
from metarec_jax.train.sharding import by_user, per_device, replicate, shard_users, total
from metarec_jax.train.text_batches import texts_of, texts_used, with_slots
from metarec_jax.train.text_devices import encode_with


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
        self._texts = texts_of(config, encoder, item_texts, part.user_texts or (), most=self._most)
        self._without_text = replicate(mesh, part.tables.users) if part.user_texts is None else None
        self.reading = Reading(
            encode_with(config, encoder.config), self._texts.plan.per_call, self._texts.slots(self._most)
        )

    def localise(self, episodes: Episodes) -> tuple[Apart, Episodes]:
        """Pick the distinct texts of each user of a batch.

        Args:
            episodes: the batch, as host arrays.

        Returns:
            The texts, on the devices, and the batch with slots of each user's embeddings in place of table rows.
        """
        users = len(episodes.weight)
        flat, slots = self._texts.pick_apart(*texts_used(episodes, self._first_user), self._most, users)
        texts = jax.tree.map(lambda leaf: leaf.reshape(users, -1, *leaf.shape[1:]) if leaf.ndim > 1 else leaf, flat)
        texts, rows = shard_users(self._mesh, (texts, episodes.user))
        return Apart(texts, rows, self._without_text), with_slots(episodes, slots)

    def spread(self, summed: Summed) -> Summed:
        """Distribute a sum over users to all devices, each of which has a part of the users."""
        mesh = self._mesh
        if mesh.size == 1:
            return summed

        def own(*given: Any) -> Any:
            gradient, outcomes = summed(*given)
            return total(mesh, gradient), outcomes

        users = by_user(mesh)
        read = cast("Any", Apart)(texts=users, rows=users, users=Spec())
        return per_device(mesh, own, (Spec(), read, users, Spec()), (Spec(), users))
