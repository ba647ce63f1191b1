"""MIND, the Microsoft News Dataset: behaviors.tsv and news.tsv, in one folder or in those of train and dev.

Layout: https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md

A row of behaviors.tsv is an impression: news that were shown to a user, each with "-1" if it was clicked, else "-0".
Its history lists news that the user clicked before the days of the file, without times; they are read as clicks one
second before the user's first impression.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.scale import Kind
from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.published import Form, as_times, read_items
from metarec_jax.data.sources.source import register_layout
from metarec_jax.data.sources.stacked import stack
from metarec_jax.data.sources.text import read_text
from metarec_jax.data.values import Table, distinct

pc: Any = pyarrow.compute  # whose functions type checkers do not know

_COLUMNS = ("impression", "user", "time", "history", "impressions")
_TIME = "%m/%d/%Y %I:%M:%S %p"
NEWS = Form(
    ("news.tsv",),
    {"item": "id", "title": "title", "abstract": "abstract", "category": "category", "subcategory": "subcategory"},
    text=("abstract",),
    separator="\t",
    header=("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities"),
)
CITATION = (
    "Fangzhao Wu et al. 2020. MIND: A Large-scale Dataset for News Recommendation. ACL. "
    "https://doi.org/10.18653/v1/2020.acl-main.331"
)


@register_layout(
    "mind",
    title="MIND",
    marks=("behaviors.tsv with news.tsv",),
    options=("kind",),
    licence="research use under the Microsoft Research License Terms (https://msnews.github.io/)",
)
def read(folder: Folder, *, source: str, kind: Kind) -> Interactions:
    """Read MIND.

    Args:
        folder: the files.
        source: value of `Interactions.source`.
        kind: "click"; the data set has no ratings.

    Returns:
        The data set: clicks (1), and news that were shown and not clicked (0).

    Raises:
        MetarecError: `kind` is "rating", or a row is not valid.
    """
    if kind != "click":
        raise MetarecError(f"{folder.path} holds MIND, which has clicks and no ratings: say --data.kind click")
    names = {name: name for name in _COLUMNS}
    files = folder.read_all("behaviors.tsv")
    tables = [read_text(file, names, separator="\t", names=_COLUMNS) for file in files]
    clicks = _clicks(stack(f"{folder.path}", tables))
    news = read_items((NEWS,), folder, clicks)
    return build(clicks, items=news, kind="click", source=source, citation=CITATION, repeats="auto")


def _clicks(behaviors: Table) -> Table:
    """The table of interactions of `build`, from impressions and histories."""
    time = pc.cast(as_times(behaviors, _TIME), pa.int64()).to_numpy()
    row, entry = _split(behaviors, "impressions")
    label = pc.utf8_slice_codeunits(entry, -2, None)
    bad = np.flatnonzero(~pc.is_in(label, pa.array(["-0", "-1"])).to_numpy(zero_copy_only=False))
    if len(bad):
        raise behaviors.refuse(
            row[bad[0]],
            f"{shown(entry[int(bad[0])].as_py())} does not end in -1 (clicked) or -0 (not clicked), as the files of "
            "train and dev do: leave the folder of test out, which is published without clicks",
        )
    user, _ = distinct(behaviors, "user")
    first = np.lexsort((time, user))
    first = first[np.append(True, np.diff(user[first]) > 0)]  # each user's first impression
    of_first, before = _split(behaviors, "history", first)
    rows = np.concatenate([row, of_first])
    return Table(
        name=behaviors.name,
        columns={
            "user": behaviors.columns["user"].take(pa.array(rows)),
            "item": pa.chunked_array([pc.utf8_slice_codeunits(entry, 0, -2), before]),
            "rating": pa.chunked_array(
                [pc.cast(pc.utf8_slice_codeunits(label, 1), pa.int64()), np.ones(len(before), int)]
            ),
            "time": pa.chunked_array([np.concatenate([time[row], time[of_first] - 1])]),
        },
        place=lambda n: behaviors.place(int(rows[n])),
        labels={"item": "news"},
    )


def _split(table: Table, column: str, rows: np.ndarray | None = None) -> tuple[np.ndarray, pa.Array]:
    """Entries of a column of words between spaces, and the row of each.

    Args:
        table: the table.
        column: name of the column.
        rows: int [n], rows to read; None reads all.

    Returns:
        int [entries] and string [entries].
    """
    values = table.columns[column]
    rows = np.arange(len(table)) if rows is None else rows
    lists = pc.split_pattern(pc.utf8_trim_whitespace(values.take(pa.array(rows))), " ").combine_chunks()
    row = np.repeat(rows, pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    words = lists.flatten()
    there = pc.not_equal(words, "")
    return row[there.to_numpy(zero_copy_only=False)], words.filter(there)
