"""The outer step under differential privacy that also trains the encoder, one user at a time.

Clipping needs the gradient of each single user. Users therefore share no encoded text: the texts of each user are
gathered and encoded within the user's loss, as in `metarec_jax.meta.encoder_step` with a batch of one. Memory holds the
encoder's gradient for one user and the sum, for any number of users, and the activations of one chunk of texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.encoder.text_rows import TextRows
from metarec_jax.learner.inputs import learned
from metarec_jax.meta.encoder_step import cached_gradient
from metarec_jax.meta.model import Model, Outcome, Shared, Task, Trainable
from metarec_jax.meta.text_passes import Chosen, Reading
from metarec_jax.meta.user import lose_user
from metarec_jax.privacy.dp_step import Mechanism, Summed, clipped_sum, mean_loss


class Apart(NamedTuple):
    """Inputs of users' losses, separate for each user.

    Attributes:
        texts: texts to encode for each user, in rows of each length; arrays have a first axis of users.
        rows: int32 [users], number of each user, independent of other users, from which draws are derived.
        users: [all users, hidden], fixed embeddings, where users have no text; None where they have texts, and
            ``Episodes.user`` is then a slot like that of an item.
    """

    texts: tuple[TextRows, ...]
    rows: Array
    users: Array | None = None


class _Own(NamedTuple):
    """Inputs of one user: the episode, with slots of the user's embeddings; other fields as in `Apart`."""

    episode: Episodes
    texts: tuple[TextRows, ...]
    row: Array


def joint_sum(
    model: Model,
    reading: Reading,
    trained: Callable[[Params], tuple[Params, Params]],
    mechanism: Mechanism,
) -> Summed:
    """Make the sum of clipped gradients for a trained encoder; the inputs of users' losses are `Apart`.

    Args:
        model: the functions of learner and updater.
        reading: options of encoding.
        trained: parameters of the encoder -> (trained ones, the others), each with None for the rest.
        mechanism: clipping of gradients.

    Returns:
        The function.
    """

    def summed(
        trainable: Trainable, read: Apart, episodes: Episodes, key: PRNGKeyArray | None
    ) -> tuple[Trainable, Outcome]:
        def gradient(own: _Own) -> tuple[Trainable, Outcome]:
            # A slot does not identify a user: where users have texts, slots of different users coincide.
            own_key = None if key is None else jax.random.fold_in(key, own.row)

            def loss(
                trainable: Trainable, embeddings: Float[Array, "slots hidden"]
            ) -> tuple[Float[Array, ""], Outcome]:
                users = embeddings if read.users is None else read.users
                tables = model.prepare(trainable.theta, Tables(embeddings, users))
                shared = Shared(trainable, tables, own_key)
                outcome = lose_user(model, shared, Task(own.episode))
                return mean_loss(mechanism, outcome), outcome

            chosen = Chosen(own.texts, read.users)
            found, outcome, _ = cached_gradient(reading, trained, trainable, chosen, loss)
            return found._replace(theta=learned(found.theta)[0]), outcome

        like = Trainable(learned(trainable.theta)[0], trainable.phi, trained(trainable.encoder)[0])
        users = _Own(episodes, read.texts, read.rows)
        return clipped_sum(gradient, mechanism.clip, like, users, at_once=1)

    return summed
