"""`metarec feedback`: metrics of a service's models from its log, and the log as interactions to train on."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.atomic_files import make_folder, replacing
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import Scale
from metarec_jax.recommender.history import Rated
from metarec_jax.recommender.items import top_k
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving import analytics as of_log
from metarec_jax.serving import event_log as logs
from metarec_jax.serving.analytics import Figure
from metarec_jax.serving.database import decoded, open_for_reading
from metarec_jax.serving.event_log import Log, Request
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder


def same_places(log: Log, asked: Sequence[Request], recommender: Recommender) -> np.ndarray:
    """Whether a model puts the same item in each place of the lists of a log.

    The model adapts to the history that each list was made from, without items that its run does not have.

    Args:
        log: places of lists, ordered by list.
        asked: the request of each list.
        recommender: the model.

    Returns:
        bool [places].
    """
    wanted = np.unique(log.list)
    items = recommender.items
    known = items.titles.has_id
    histories = [
        [Rated(f"id:{item}", rating) for item, rating in asked[number].history if known(item)] for number in wanted
    ]
    states = recommender.adapt_many(histories)
    same = np.zeros(len(log.list), bool)
    starts = np.searchsorted(log.list, wanted)
    ends = np.searchsorted(log.list, wanted, side="right")
    for which, scores in recommender.executor.score_all(states):
        request, state, start, end = asked[wanted[which]], states[which], starts[which], ends[which]
        filters = request.filters._replace(exclude=[f"id:{i}" for i in request.filters.exclude if known(str(i))])
        candidates = items.candidates(state.history.rows, items.allowed(filters), request.exclude_seen)
        rows = top_k(scores, end - start, candidates)
        order = [items.catalogue.items.ids[row] for row in rows]
        for n in range(start, end):
            place = int(log.place[n]) - 1
            same[n] = place < len(order) and order[place] == log.item[n]
    return same


def judge(run: Path, store: Path, targets: Sequence[Path] = ()) -> dict[str, Any]:
    """Compute metrics of a run's log, and off-policy estimates for other runs.

    Args:
        run: folder of the run that was served.
        store: folder of its store.
        targets: folders of runs whose metrics are estimated from randomised lists.

    Returns:
        The metrics as a tree of `metarec_jax.serving.analytics.Figure` and numbers.

    Raises:
        MetarecError: no list was shown yet, or targets are given and no list was randomised.
    """
    with open_for_reading(store) as database:
        log, asked = logs.read(database), logs.requests(database)
    if not len(log.list):
        raise MetarecError(f"{store}: no list was shown yet, so there is nothing to report")
    found = of_log.figures(log, catalogues.load(run_folder.open_run(run)).scale)
    random = log.of((log.explore > 0) & ~log.interleaved)
    if targets and not len(random.list):
        raise MetarecError(
            f"{store}: no list was randomised, so metrics of another model cannot be estimated: "
            "serve with --explore 0.2"
        )
    order = np.argsort(random.list, kind="stable")
    random = random.of(order)
    for target in targets:
        same = same_places(random, asked, Recommender.load(target))
        found["off-policy"][str(target)] = of_log.off_policy(random, same)
    return found


# The log as interactions


def interactions(database: sqlite3.Connection, scale: Scale) -> list[tuple[str, str, float, int]]:
    """Convert the log of a service to (user, item, rating, time) rows, each pair of user and item once.

    Ratings are from the histories of lists and from feedback, the latest of each pair, without ratings that were
    removed. Clicks are 1 where an item was clicked, and 0 where it was shown and not clicked.

    Args:
        database: database of the service.
        scale: the rating scale.

    Returns:
        The rows.
    """
    found: dict[tuple[str, str], tuple[float, int]] = {}
    if scale.kind == "click":
        for user, item, time in database.execute(
            "SELECT l.user, s.item, l.time FROM shown s JOIN lists l ON l.id = s.list ORDER BY l.time"
        ):
            found.setdefault((user, item), (0.0, int(time)))
    # A list's history is in order but has no times: they are set to one second an item, before the list.
    for user, history, time in database.execute("SELECT user, history, time FROM lists ORDER BY time"):
        pairs = decoded(history)
        for n, (item, rating) in enumerate(pairs):
            if (user, item) not in found or found[user, item][0] != rating:
                found[user, item] = float(rating), int(time) - len(pairs) + n
    for user, item, kind, value, time in database.execute(
        "SELECT user, item, kind, value, time FROM events ORDER BY number"
    ):
        if kind == "forget":
            found.pop((user, item), None)
        elif kind == "rating":
            found[user, item] = value, int(time)
        elif scale.kind == "click":
            found[user, item] = 1.0, int(time)
    return [(user, item, rating, time) for (user, item), (rating, time) in found.items()]


def export(run: Path, store: Path, path: Path, *, merge: bool = False) -> tuple[int, Path]:
    """Write the log as interactions, and its items, in the form that `metarec train --data.source table` reads.

    Args:
        run: folder of the run that was served.
        store: folder of its store.
        path: a .csv or .parquet file; items are written to NAME-items next to it.
        merge: whether the interactions with which the run was trained come first, to train on both.

    Returns:
        The number of rows, and the file of the items.

    Raises:
        MetarecError: another suffix, no rows to write, or the run's data is missing.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise MetarecError(f"--export {path}: write a name that ends in .csv or .parquet")
    opened = run_folder.open_run(run)
    catalogue = catalogues.load(opened)
    with open_for_reading(store) as database:
        rows = interactions(database, catalogue.scale)
        added = database.execute("SELECT id, title, text, details FROM items ORDER BY number").fetchall()
    if merge:
        rows = _trained_on(opened.config) + rows
    if not rows:
        raise MetarecError(f"{store}: there are no ratings yet, so there is nothing to export")
    items: dict[str, list[str]] = defaultdict(list)
    names = list(catalogue.items.details)
    for n, identity in enumerate(catalogue.items.ids):
        texts = catalogue.items.titles[n], catalogue.items.texts[n]
        for name, value in zip(("item_id", "title", "text"), (identity, *texts)):
            items[name].append(value)
        for name in names:
            items[name].append(catalogue.items.details[name][n])
    for identity, title, text, details in added:
        for name, value in zip(("item_id", "title", "text"), (identity, title, text)):
            items[name].append(value)
        for name in names:
            items[name].append(decoded(details).get(name, ""))
    make_folder(path.parent)
    columns = list(zip(*rows))
    ratings = dict(zip(("user_id", "item_id", "rating", "timestamp"), map(list, columns)))
    beside = path.with_name(f"{path.stem}-items{path.suffix}")
    for file, table in ((path, ratings), (beside, items)):
        _write(file, table)
    return len(rows), beside


def _trained_on(config: Config) -> list[tuple[str, str, float, int]]:
    from metarec_jax.data import load
    from metarec_jax.data.negatives import beside_clicks

    data = beside_clicks(load(config.data, seed=config.seed), config)
    users, items = data.users.ids, data.items.ids
    columns = (data.user.tolist(), data.item.tolist(), data.scale.decimal(data.rating).tolist(), data.time.tolist())
    return [(users[u], items[i], float(r), int(t)) for u, i, r, t in zip(*columns)]


def _write(path: Path, columns: dict[str, list]) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table(columns)
    with replacing(path) as part:
        if path.suffix.lower() == ".csv":
            pa.csv.write_csv(table, part)
        else:
            pa.parquet.write_table(table, part)


# Printing


def show(found: dict[str, Any]) -> None:
    """Print metrics as tables.

    Args:
        found: from `judge`.
    """
    from metarec_jax.core.console import print_grid

    counts = ("users", "lists", "impressions", "clicks", "purchases", "ratings")
    values = {"ctr": "CTR", "precision": "precision", "ndcg": "nDCG of clicks", "rating": "mean rating"}
    body = [
        [arm, *(str(of_arm[name]) for name in counts), *(_text(of_arm[name]) for name in values)]
        for arm, of_arm in found["arms"].items()
    ]
    header = ["arm", *counts, *values.values()]
    print_grid("What was shown (95 % intervals over users)", header, body, numbers=list(range(1, len(header))))
    compared = ("b less a", "interleaving")
    pairs = [(f"{name}: {part}", figure) for name in compared for part, figure in found.get(name, {}).items()]
    if pairs:
        print_grid("Two models", ["difference", "value"], [[name, _text(f, "+")] for name, f in pairs], numbers=[1])
    if "off-policy" in found:
        body = [
            [name, *(_text(parts[column]) if column in parts else "" for column in ("ctr", "ips", "snips", "weight"))]
            for name, parts in found["off-policy"].items()
        ]
        print_grid(
            "Click-through of lists that were not shown, from those drawn at random",
            ["lists", "CTR", "IPS", "SNIPS", "mean weight (about 1)"], body, numbers=[1, 2, 3, 4],
        )  # fmt: skip


def _text(figure: Figure, sign: str = "") -> str:
    if not np.isfinite(figure.value):
        return "-"
    return f"{figure.value:{sign}.3f} ({figure.low:{sign}.3f} to {figure.high:{sign}.3f})"
