"""Functions that protocols of lists over the catalogue share: clicks, training rows, the items of lists, and tasks.

A rating is a click if it is that of a liked item (`metarec_jax.core.scale.Scale.least_liked`). Targets are clicks; the
support has everything else that the user is shown, all of it whatever its length, and no shown item is a candidate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metarec_jax.config.data import EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.row_ranges import Selection, where
from metarec_jax.core.stored_columns import count_values, picked
from metarec_jax.core.types import Interactions
from metarec_jax.data.histories import histories
from metarec_jax.data.protocols.division import everyone_else, rows_of
from metarec_jax.data.tasks import Tasks, make_tasks


def clicks_of(data: Interactions) -> np.ndarray:
    """bool [rows], which rows are clicks: liked ratings, or clicks of 1."""
    return data.rating >= data.scale.least_liked


def training_rows(
    data: Interactions,
    split: SplitConfig,
    config: EpisodeConfig,
    users: np.ndarray,
    held_out: np.ndarray,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, Selection]:
    """Training users and training rows.

    Args:
        data: the data set.
        split: with ``everyone`` all users train that are not held out.
        config: ``query`` is the least number of rows that an episode leaves out of its support.
        users: int [users], the training users within the bounds of the protocol.
        held_out: int [users], users who do not train.
        allowed: bool [rows], which rows may train; None allows all.

    Returns:
        int32 [users], the users whose rows become episodes, and the rows, ascending.
    """
    if split.everyone:
        users, rows = everyone_else(data, config, held_out, users, allowed)
    else:
        rows = rows_of(data, users, allowed)
    count = count_values(picked(data.user, rows), len(data.users))
    least = 1 if data.clicks_alone else config.query  # a query of clicks is a share of them
    return np.asarray(users[count[users] > least], np.int32), rows


def clicked_items(data: Interactions, rows: Selection) -> np.ndarray:
    """Find the items that were clicked in some rows.

    Args:
        data: the data set.
        rows: int [n], its rows.

    Returns:
        bool [items].
    """
    clicked = clicks_of(data)
    return count_values(picked(data.item, where(rows, lambda some: clicked[some])), len(data.items)) > 0


Choose = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(user, rows of that user's clicks by time) -> rows that are shown, and rows that are the targets."""


def list_tasks(
    data: Interactions, users: np.ndarray, known: np.ndarray, choose: Choose, *, protocol: str, part: str
) -> Tasks:
    """Make a task for each user.

    Of clicks the support is what `choose` shows. Of ratings it also has the user's ratings of items that are not
    liked, if they are not later than the latest shown click.

    Args:
        data: the data set.
        users: int [users], rows of its users.
        known: bool [items], items that may be shown.
        choose: divides the clicks of a user; users without shown clicks or without targets get no task.
        protocol, part: names for the message.

    Returns:
        The tasks, in the order of the users.

    Raises:
        MetarecError: no user gets a task.
    """
    clicked = clicks_of(data)
    own = histories(data, users)
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    for user, rows in zip(own.users.tolist(), np.split(own.row, np.cumsum(own.count)[:-1])):
        shown, targets = choose(user, rows[clicked[rows]])
        shown = shown[known[data.item[shown]]]
        if not (len(shown) and len(targets)):
            continue
        if data.kind == "rating":
            others = rows[~clicked[rows] & known[data.item[rows]] & (data.time[rows] <= data.time[shown].max())]
            shown = np.concatenate([shown, others])
        found.append((user, np.sort(shown), np.sort(targets)))
    if not found:
        raise MetarecError(
            f"protocol {protocol}: none of {len(users)} {part} users has a click to show and a target: lower "
            "--episodes.min-ratings, or bring more data"
        )
    return make_tasks(*zip(*found))
