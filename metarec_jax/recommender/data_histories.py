"""Histories of the users of a data set, in rows of a model's catalogue and on its scale."""

from __future__ import annotations

import functools

import numpy as np

from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Interactions
from metarec_jax.recommender.batch import User
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.recommender.recommender import Recommender


class DataHistories:
    """Histories of the users of a data set.

    Args:
        recommender: model with the items and the scale.
        data: the data set, whose ratings may have a scale of their own.

    Raises:
        MetarecError: an item is not in the catalogue, or a rating is not on the scale.
    """

    def __init__(self, recommender: Recommender, data: Interactions):
        self._item = _rows_of(recommender, data)[data.item]
        self._rating = _on_scale(data, recommender.catalogue.scale)
        self._order = np.lexsort((data.time, data.user))
        self._starts = np.searchsorted(data.user[self._order], np.arange(len(data.users) + 1))
        self._texts = data.users.texts if recommender.users.side == "profile" else None
        self._source, self.ids = data.source, data.users.ids

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.ids)}

    def at(self, position: int) -> User:
        """The user at a position of `ids`."""
        mine = self._order[self._starts[position] : self._starts[position + 1]]
        text = self._texts[position] if self._texts else ""
        return User(self.ids[position], CheckedHistory(self._item[mine], self._rating[mine]), text)

    def user(self, name: str, where: str, profile: str = "") -> User:
        """The user called `name`.

        Args:
            name: id of the user.
            where: place of the id, for messages.
            profile: text that replaces the user's own, unless it is "".

        Returns:
            The user.

        Raises:
            MetarecError: there is no such user.
        """
        if name not in self._positions:
            raise MetarecError(
                f"{where}: {self._source} has no user {shown(name)} (it has users such as {listed(self.ids[:3])}): "
                "give the user a history; that of a new user is []"
            )
        found = self.at(self._positions[name])
        return found._replace(profile=profile) if profile else found


def _rows_of(recommender: Recommender, data: Interactions) -> np.ndarray:
    """The catalogue's row of each item of the data."""
    titles = recommender.items.titles
    missing = [item for item in data.items.ids if not titles.has_id(item)]
    if missing:
        named = ", ".join(map(shown, missing[:3]))
        raise MetarecError(
            f"{data.source}: the run knows no item {named}"
            f"{' and others' if len(missing) > 3 else ''}: remove the rows of items that it was not trained with"
        )
    return np.array([titles.find_id(item).row for item in data.items.ids], np.int32)


def _on_scale(data: Interactions, scale: Scale) -> np.ndarray:
    """The ratings of the data, which may have a scale of its own, as the run reads them; float32 [rows]."""
    written = data.scale.decimal(data.rating)
    rating = np.asarray(scale.standard(written), np.float64).astype(np.float32)
    ends = scale.standardised()
    bad = np.flatnonzero((rating < ends.low) | (rating > ends.high))
    if len(bad):
        user = data.users.ids[data.user[bad[0]]]
        raise MetarecError(
            f"{data.source}: user {user!r} has a rating of {written[bad[0]]:.7g}; the run's lie between "
            f"{scale.low:.7g} and {scale.high:.7g}"
        )
    return rating
