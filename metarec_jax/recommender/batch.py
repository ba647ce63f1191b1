"""Batch recommendation for large numbers of users: from a data set of ratings to a Parquet file of lists.

Users are processed in parts. Each part is written when it is done, so a job that was interrupted continues after the
last part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core import locks
from metarec_jax.core.atomic_files import explained, remove_leftovers, replacing, write_text
from metarec_jax.core.checked_files import read_table, write_table
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Interactions
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.recommender.items import top_k
from metarec_jax.recommender.recommender import Recommender

PART = 8192
"""Number of users in a part."""


def recommend_users(
    recommender: Recommender,
    data: Interactions,
    out: Path,
    *,
    k: int = 10,
    exclude_seen: bool = True,
    part: int = PART,
    reporter: Reporter = QUIET,
) -> int:
    """Write a Parquet file with columns user_id, place, item_id and score: `k` rows per user, best first.

    Args:
        recommender: the model.
        data: the users' ratings, and profiles for a run that reads them.
        out: the file. Parts are stored in a folder next to it until it is complete.
        k: list length.
        exclude_seen: whether items that a user has rated are left out.
        part: number of users in a part.
        reporter: shows the progress.

    Returns:
        The number of users.

    Raises:
        MetarecError: the file exists, items or ratings do not fit the run, the folder has parts of another job, or
            another process writes them.
    """
    if out.suffix.lower() != ".parquet":
        raise MetarecError(f"--out {out}: write a name that ends in .parquet")
    out = out.resolve()
    parts = out.with_name(out.name + ".parts")
    with explained(parts):
        parts.mkdir(parents=True, exist_ok=True)
    try:
        with locks.hold(parts / ".lock", f"--out {path_argument(out)}"):
            remove_leftovers(parts)
            count = _write_all(recommender, data, out, parts, k, exclude_seen, part, reporter)
            with explained(parts):
                shutil.rmtree(parts)
    finally:
        with contextlib.suppress(OSError):  # it holds parts
            parts.rmdir()
    return count


def _write_all(
    recommender: Recommender,
    data: Interactions,
    out: Path,
    parts: Path,
    k: int,
    exclude_seen: bool,
    part: int,
    reporter: Reporter,
) -> int:
    """Write the parts that are missing, and the file from them; returns the number of users."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.exists():
        raise MetarecError(f"--out {out} is there already: remove it, or name another file")
    recommender.items.check_k(k)
    rows = _rows_of(recommender, data)
    data = dataclasses.replace(data, rating=_on_scale(data, recommender.catalogue.scale))
    order = np.lexsort((data.time, data.user))
    starts = np.searchsorted(data.user[order], np.arange(len(data.users) + 1))
    _check_job(parts / "work.json", _job(recommender, data, rows, k, exclude_seen, part), out)
    numbers = range(-(-len(data.users) // part))
    ids = np.array(recommender.catalogue.items.ids, object)
    with reporter.bar("recommending", len(data.users)) as advance:
        for number in numbers:
            users = np.arange(number * part, min((number + 1) * part, len(data.users)))
            file = parts / f"{number:06d}.parquet"
            if not file.exists():
                columns = _part(recommender, data, rows, users, order, starts, ids, k, exclude_seen)
                write_table(file, pa.table(columns), {})
            advance(int(users[-1]) + 1)
    with replacing(out) as path:
        writer = None
        for number in numbers:
            file = parts / f"{number:06d}.parquet"
            table, _ = read_table(file, "delete it, and run the same command again")
            table = table.replace_schema_metadata(None)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return len(data.users)


def _rows_of(recommender: Recommender, data: Interactions) -> np.ndarray:
    """The catalogue's row of each item of the data."""
    titles = recommender.items.titles
    missing = [item for item in data.items.ids if not titles.has_id(item)]
    if missing:
        listed = ", ".join(map(repr, missing[:3]))
        raise MetarecError(
            f"{data.source}: the run knows no item {listed}"
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


def _part(
    recommender: Recommender,
    data: Interactions,
    rows: np.ndarray,
    users: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    ids: np.ndarray,
    k: int,
    exclude_seen: bool,
) -> dict[str, Any]:
    """The columns of the file for some users."""
    texts = data.users.texts if recommender.users.side == "profile" else None
    histories = []
    for user in users:
        mine = order[starts[user] : starts[user + 1]]
        histories.append(CheckedHistory(rows[data.item[mine]], data.rating[mine]))
    profiles = [texts[user] if texts else "" for user in users]
    embeddings = recommender.users.encode(recommender.catalogue, histories, profiles)
    states = recommender.executor.adapt(histories, embeddings)
    lists: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for n, scores in recommender.executor.score_all(states):
        chosen = top_k(scores, k, recommender.items.candidates(histories[n].rows, exclude_seen=exclude_seen))
        lists[n] = chosen, scores[chosen]
    count = [len(lists[n][0]) for n in range(len(users))]
    return {
        "user_id": np.repeat(np.array(data.users.ids, object)[users], count),
        "place": np.concatenate([np.arange(1, n + 1, dtype=np.int32) for n in count]),
        "item_id": ids[np.concatenate([lists[n][0] for n in range(len(users))])],
        "score": np.concatenate([lists[n][1] for n in range(len(users))]).astype(np.float32),
    }


def _job(
    recommender: Recommender, data: Interactions, rows: np.ndarray, k: int, exclude_seen: bool, part: int
) -> dict[str, Any]:
    """Identifies the job that parts belong to."""
    of_data = hashlib.sha256(json.dumps(data.users.ids).encode())
    for column in (data.user, rows[data.item], data.rating, data.time):
        of_data.update(np.ascontiguousarray(column).tobytes())
    return {
        "run": recommender.codec.digest,
        "users": of_data.hexdigest(),
        "k": k,
        "exclude_seen": exclude_seen,
        "users of a part": part,
    }


def _check_job(path: Path, job: dict[str, Any], out: Path) -> None:
    """Write the description of the job next to its parts, or refuse the parts of another job."""
    if not path.exists():
        write_text(path, json.dumps(job) + "\n")
        return
    found = read_json(path, remedy=f"delete {path.parent}, and run the same command again")
    if found != job:
        raise MetarecError(
            f"{path.parent} holds parts of a file that was made from another run, other users or other options: "
            f"remove that folder, or name another file than {out}"
        )
