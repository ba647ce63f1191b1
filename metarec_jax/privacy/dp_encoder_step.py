"""The outer step under differential privacy that trains the encoder with the rest: one user after another.

A gradient can only be clipped by its norm if it is one user's alone, so that users share no text: each has its own
gathered and encoded within its own loss, in the way of `metarec_jax.meta.encoder_step`, as a batch of one. What exists
of the encoder's gradients at the same time is that of one user and the sum, however many users there are; of what is
encoded, a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.encoder.bert import Tokens
from metarec_jax.encoder.text_buckets import Picked
from metarec_jax.learner.inputs import learned
from metarec_jax.meta.encoder_step import Chosen, Reading, cached_gradient
from metarec_jax.meta.user import Model, Outcome, Shared, Task, Trainable, lose_user
from metarec_jax.privacy.dp_step import Mechanism, Summed, clipped_sum, mean_loss


class Apart(NamedTuple):
    """What users' losses read, each of its own.

    Attributes:
        buckets: tokens of all texts, of items and of users, by length bucket.
        picked: what of each bucket is encoded for each user: rows int32 [users, capacity], and count int32 [users].
        rows: int32 [users], which user each is, in any numbering that no other user changes: draws are by it.
        users: [all users, hidden], embeddings that stay as they are, where users have no text; None where they have,
            and ``Episodes.user`` is a slot like that of an item.
    """

    buckets: tuple[Tokens, ...]
    picked: tuple[Picked, ...]
    rows: Array
    users: Array | None = None


class _Own(NamedTuple):
    """What is one user's own: the episode, with slots of the user's own embeddings, and as in `Apart`."""

    episode: Episodes
    picked: tuple[Picked, ...]
    row: Array


def joint_sum(
    model: Model,
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    mechanism: Mechanism,
) -> Summed:
    """Of a run that trains its encoder: what users' losses read is `Apart`.

    Args:
        model: the functions of learner and updater.
        reading: how texts are encoded.
        trained: parameters of the encoder -> (those that are trained, the others), each with None for the rest.
        mechanism: how gradients are clipped.
    """

    def summed(
        trainable: Trainable, read: Apart, episodes: Episodes, key: PRNGKeyArray | None
    ) -> tuple[Trainable, Outcome]:
        def gradient(own: _Own) -> tuple[Trainable, Outcome]:
            # A slot is no name: where users have texts, others have the same.
            own_key = None if key is None else jax.random.fold_in(key, own.row)

            def loss(
                theta: Params, phi: Params, embeddings: Float[Array, "slots hidden"]
            ) -> tuple[Float[Array, ""], Outcome]:
                tables = model.prepare(theta, Tables(embeddings, embeddings if read.users is None else read.users))
                shared = Shared(Trainable(theta, phi), tables, own_key)
                outcome = lose_user(model, shared, Task(own.episode))
                return mean_loss(mechanism, outcome), outcome

            chosen = Chosen(read.buckets, own.picked, read.users)
            found, outcome = cached_gradient(reading, trained, trainable, chosen, loss)
            return found._replace(theta=learned(found.theta)[0]), outcome

        like = Trainable(learned(trainable.theta)[0], trainable.phi, trained(trainable.encoder)[0])
        users = _Own(episodes, read.picked, read.rows)
        return clipped_sum(gradient, mechanism.clip, like, users, at_once=1)

    return summed
