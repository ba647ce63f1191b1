"""Batch recommendation: lists of a block of users, as a table.

`recommend_block` depends on nothing but its arguments, so that any engine can call it for parts of a data set;
`metarec_jax.recommender.batch_parts` calls it for the blocks of a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.recommender.history import CheckedHistory, History, check_history
from metarec_jax.recommender.recommender import Recommender

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 256
"""Number of users whose states are in memory at the same time."""


class User(NamedTuple):
    """A user of a block.

    Attributes:
        id: id of the user, for the table of lists.
        history: as for `Recommender.adapt`, or already checked.
        profile: the user's text, for a run that reads profiles.
    """

    id: str
    history: History | CheckedHistory | Any
    profile: str = ""


def recommend_block(
    recommender: Recommender, users: Sequence[User], k: int = 10, *, exclude_seen: bool = True
) -> pa.Table:
    """Adapt to users, and recommend to each.

    Args:
        recommender: the model.
        users: the users.
        k: list length, 1 to the number of items.
        exclude_seen: whether items of a user's history are left out.

    Returns:
        Columns user_id, place (from 1), item_id and score: up to `k` rows per user in the order of `users`, best first.

    Raises:
        MetarecError: a history or a profile is not valid; the message names the user.
    """
    import pyarrow as pa

    lists = []
    for start in range(0, len(users), AT_ONCE):
        part = users[start : start + AT_ONCE]
        states = recommender.adapt_many([_checked(recommender, user) for user in part], [user.profile for user in part])
        lists += recommender.recommend_many(states, k, exclude_seen)
    rows = [
        (user.id, place, item.id, item.score)
        for user, found in zip(users, lists)
        for place, item in enumerate(found, start=1)
    ]
    columns = [list(column) for column in zip(*rows)] or [[], [], [], []]
    kinds = {"user_id": pa.string(), "place": pa.int32(), "item_id": pa.string(), "score": pa.float32()}
    return pa.table([pa.array(c, kind) for c, kind in zip(columns, kinds.values())], names=list(kinds))


def _checked(recommender: Recommender, user: User) -> CheckedHistory:
    try:
        return check_history(user.history, recommender.items.find, recommender.catalogue.scale)
    except MetarecError as error:
        raise MetarecError(f"user {shown(user.id)}: {error}") from error
