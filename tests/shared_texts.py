"""A batch of users who share texts, for tests of the steps that train the encoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from helpers import tiny

from metarec_jax import encoder
from metarec_jax.core.types import Prepared
from metarec_jax.encoder import BertConfig, Texts, encode, pack
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.text_passes import Chosen, Reading
from metarec_jax.privacy.dp_encoder_step import Apart
from metarec_jax.train.text_batches import texts_used, with_slots

BERT = BertConfig(
    vocab_size=30, hidden_size=4, num_layers=2, num_heads=2, intermediate_size=6, max_positions=24, has_pooler=False
)


def random_ids(rng, texts):
    """Token ids of texts of 2 to 20 tokens, some of which are the same text."""
    ids = [rng.integers(1, 30, rng.integers(2, 21)).astype(np.int32) for _ in range(texts)]
    return [ids[row // 2] if row % 5 == 1 else text for row, text in enumerate(ids)]


def trained(params):
    """The second layer, without the first and without word embeddings."""
    own = {name: leaf if name == "layer_1" else jax.tree.map(lambda _: None, leaf) for name, leaf in params.items()}
    rest = {name: jax.tree.map(lambda _: None, leaf) if name == "layer_1" else leaf for name, leaf in params.items()}
    return own, rest


def everything(params):
    return params, jax.tree.map(lambda _: None, params)


class Case:
    """A batch of 3 users who share a few of 12 items, the items' texts and the users' texts."""

    def __init__(self, *, per_call=30, dtype=np.float64, users=3, split=1, bert=BERT, most=0, **changes):
        rng = np.random.default_rng(0)
        small = tiny(head="rating", embedding=4, users=users, dtype=dtype, **changes)
        self.model = small.model._replace(prepare=lambda theta, tables: Prepared(*tables))
        params = jax.tree.map(
            lambda leaf: (np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape)).astype(dtype),
            encoder.init(0, bert),
        )
        self.trainable = Trainable(small.trainable.theta, small.trainable.phi, params)
        items = rng.integers(0, 12, (users, 7)).astype(np.int32)
        self.episodes = small.episodes._replace(
            support=small.episodes.support._replace(item=items[:, :4]),
            query=small.episodes.query._replace(item=items[:, 4:]),
        )
        self.ids = random_ids(rng, 12), random_ids(rng, users)
        self.texts = Texts.of(
            [*self.ids[0], *self.ids[1]], tokens_per_call=per_call, most=most, width=4, shortest_row=8, split=split
        )
        per_call, slots = self.texts.plan.per_call, self.texts.slots(most or 12 + users)
        self.reading = Reading(lambda params, rows: encode(params, bert, rows, normalise=True), per_call, slots)

    def localised(self):
        """The batch for the joint step."""
        used, real = texts_used(self.episodes, 12)
        rows, slots = self.texts.pick(used, real, 12 + len(used))
        return jax.tree.map(jnp.asarray, (Chosen(rows), with_slots(self.episodes, slots)))

    def apart(self):
        """The batch for the private joint step."""
        users = len(self.episodes.weight)
        rows, slots = self.texts.pick_apart(*texts_used(self.episodes, 12), 8, users)
        own = jax.tree.map(lambda leaf: leaf.reshape(users, -1, *leaf.shape[1:]) if leaf.ndim > 1 else leaf, rows)
        read = Apart(own, self.episodes.user)
        return jax.tree.map(jnp.asarray, (read, with_slots(self.episodes, slots)))

    def pairs(self, episodes):
        """Tokens of every pair's text, repeated ones too, and of the users', padded to the longest; and the episodes
        with rows of these."""
        rows = np.concatenate([episodes.support.item, episodes.query.item], axis=1)
        texts = [self.ids[0][row] for row in rows.ravel()], [self.ids[1][row] for row in episodes.user]
        items, users = (jax.tree.map(jnp.asarray, pack(of_side, 24)) for of_side in texts)
        place = np.arange(rows.size).reshape(rows.shape).astype(np.int32)
        length = episodes.support.item.shape[1]
        moved = episodes._replace(
            user=np.arange(len(rows), dtype=np.int32),
            support=episodes.support._replace(item=place[:, :length]),
            query=episodes.query._replace(item=place[:, length:]),
        )
        return (items, users), moved

    def naive(self, key=None):
        """The gradient with every pair's text encoded, and nothing cached."""
        sides, apart = self.pairs(self.episodes)

        def loss(at):
            tables = Prepared(*(self.reading.encode(at.encoder, tokens) for tokens in sides))
            return meta_loss(self.model, at, tables, apart, key)

        return jax.jit(jax.grad(loss, has_aux=True))(self.trainable)
