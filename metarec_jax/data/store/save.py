"""Row stores of data sets that are in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metarec_jax.core.stored_columns import blocks
from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import row_order
from metarec_jax.data.store.files import MOST_CODES, Block, write_description, write_rows


def save(data: Interactions, folder: Path) -> None:
    """Write a data set as a row store.

    Args:
        data: the data set; rows that are not by user, then time, then item are sorted so.
        folder: an empty folder.

    Raises:
        OSError: a file cannot be written.
    """
    data = _in_order(data)
    levels = np.unique(np.asarray(data.rating, np.float32))
    codes = levels if len(levels) <= MOST_CODES else None
    times = int(data.time.min()), int(data.time.max())
    write_rows(folder, _blocks(data, codes), users=len(data.users), coded=codes is not None, times=times)
    write_description(folder, data, codes)


def _blocks(data: Interactions, levels: np.ndarray | None) -> Iterator[Block]:
    for some in blocks(len(data)):
        rating = data.rating[some]
        codes = rating if levels is None else np.searchsorted(levels, rating).astype(np.uint8)
        yield Block(data.user[some], data.item[some], codes, data.time[some])


def _in_order(data: Interactions) -> Interactions:
    user, time, item = (np.asarray(column) for column in (data.user, data.time, data.item))
    later = (time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (item[1:] >= item[:-1]))
    if ((user[1:] > user[:-1]) | ((user[1:] == user[:-1]) & later)).all():
        return data
    order = row_order(user, time, item)
    rating = np.asarray(data.rating)[order]
    return dataclasses.replace(data, user=user[order], item=item[order], rating=rating, time=time[order])
