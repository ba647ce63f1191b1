"""Lists for very many users, from a file of what they rated to a file of what they are recommended.

Users go through in parts, each written when it is done, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.atomic_files import explained, make_folder, replacing, write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.recommender.history import Rated
from metarec_jax.recommender.recommender import Recommender, best

PART = 8192
"""Users of a part."""
_NOTHING = np.zeros(0, np.int32), np.zeros(0, np.float32)


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
    """Writes a Parquet file with columns user_id, place, item_id and score: `k` rows a user, best first.

    Args:
        recommender: the model.
        data: what the users rated; profiles are read where the run reads them.
        out: the file. Parts of it are kept beside it until it is whole.
        k: items of a list.
        exclude_seen: whether to leave out what a user has rated.
        part: users of a part.
        reporter: told how far it is.

    Returns:
        How many users there are.

    Raises:
        MetarecError: the file is there, items or ratings do not fit the run, or parts of other work are in the way.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.suffix.lower() != ".parquet":
        raise MetarecError(f"--out {out}: write a name that ends in .parquet")
    if out.exists():
        raise MetarecError(f"--out {out} is there already: remove it, or name another file")
    if not 1 <= k <= len(recommender.catalogue.items):
        raise MetarecError(f"k is {k}; it must lie between 1 and {len(recommender.catalogue.items)}")
    rows = _rows_of(recommender, data)
    order = np.lexsort((data.time, data.user))
    starts = np.searchsorted(data.user[order], np.arange(len(data.users) + 1))
    parts = make_folder(out.with_name(out.name + ".parts"))
    _same_work(parts / "work.json", _work(recommender, data, rows, k, exclude_seen, part), out)
    numbers = range(-(-len(data.users) // part))
    ids = np.array(recommender.catalogue.items.ids, object)
    with reporter.bar("recommending", len(data.users)) as advance:
        for number in numbers:
            users = np.arange(number * part, min((number + 1) * part, len(data.users)))
            file = parts / f"{number:06d}.parquet"
            if not file.exists():
                columns = _part(recommender, data, rows, users, order, starts, ids, k, exclude_seen)
                with replacing(file) as path:
                    pq.write_table(pa.table(columns), path)
            advance(int(users[-1]) + 1)
    with replacing(out) as path:
        writer = None
        for number in numbers:
            table = pq.read_table(parts / f"{number:06d}.parquet")
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    with explained(parts):
        shutil.rmtree(parts)
    return len(data.users)


def _rows_of(recommender: Recommender, data: Interactions) -> np.ndarray:
    """The catalogue's row of each item of the data."""
    known, scale = recommender.titles, recommender.catalogue.scale
    missing = [item for item in data.items.ids if not known.has_id(item)]
    if missing:
        listed = ", ".join(map(repr, missing[:3]))
        raise MetarecError(f"{data.source}: the run knows no item {listed}{' and others' if len(missing) > 3 else ''}")
    bad = np.flatnonzero((data.rating < scale.low) | (data.rating > scale.high))
    if len(bad):
        user, rating = data.users.ids[data.user[bad[0]]], data.rating[bad[0]]
        raise MetarecError(
            f"{data.source}: user {user!r} has a rating of {rating:g}; the run's lie between {scale.low:g} and "
            f"{scale.high:g}"
        )
    return np.array([known.find_id(item).row for item in data.items.ids], np.int32)


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
    reads = recommender.config.learner.user_side == "profile" and data.users.texts is not None
    texts = [data.users.texts[u] if reads and data.users.texts else "" for u in users]
    histories = []
    for user in users:
        mine = order[starts[user] : starts[user + 1]]
        rated = [Rated(int(i), float(r)) for i, r in zip(rows[data.item[mine]], data.rating[mine])]
        histories.append(recommender.history_with(_NOTHING, rated))
    states = recommender.adapt_read(histories, recommender.read_profiles(texts))
    lists: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for n, scores in recommender.scores_of_all(states):
        chosen = best(scores, k, recommender.candidates(states[n], exclude_seen=exclude_seen))
        lists[n] = chosen, scores[chosen]
    count = [len(lists[n][0]) for n in range(len(users))]
    return {
        "user_id": np.repeat(np.array(data.users.ids, object)[users], count),
        "place": np.concatenate([np.arange(1, n + 1, dtype=np.int32) for n in count]),
        "item_id": ids[np.concatenate([lists[n][0] for n in range(len(users))])],
        "score": np.concatenate([lists[n][1] for n in range(len(users))]).astype(np.float32),
    }


def _work(
    recommender: Recommender, data: Interactions, rows: np.ndarray, k: int, exclude_seen: bool, part: int
) -> dict[str, Any]:
    """What the parts are parts of."""
    of_data = hashlib.sha256(json.dumps(data.users.ids).encode())
    for column in (data.user, rows[data.item], data.rating, data.time):
        of_data.update(np.ascontiguousarray(column).tobytes())
    return {
        "run": recommender.digest,
        "users": of_data.hexdigest(),
        "k": k,
        "exclude_seen": exclude_seen,
        "users of a part": part,
    }


def _same_work(path: Path, work: dict[str, Any], out: Path) -> None:
    if not path.exists():
        write_text(path, json.dumps(work) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != work:
        raise MetarecError(
            f"{path.parent} holds parts of a file that was made from another run, other users or other options: "
            f"remove that folder, or name another file than {out}"
        )
