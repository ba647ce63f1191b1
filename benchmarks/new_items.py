"""Gain from the first ratings of a new item, without training again: MovieLens-100K, test users.

python -m benchmarks.new_items --json OUT

For each seed of protocol B, a sixth of the frequently rated items are new: item factors are fitted to training users'
ratings of the other items. Then they are updated by some ratings of each new item by training users
(`metarec_jax.factors.update`), and test users' ratings of new items are predicted in closed form from their ratings of
the other items. This is compared with the item's shrunk mean over those ratings plus the user's bias, and with item
factors that were fitted to all ratings of the new items.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import harness
from metarec_jax.config.run import Config, preset
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.row_ranges import Selection
from metarec_jax.core.types import Params
from metarec_jax.data import load
from metarec_jax.data.protocols import divide
from metarec_jax.encoder import load as load_encoder
from metarec_jax.evaluation.bootstrap import paired_bootstrap
from metarec_jax.factors.item_factors import FACTORS, MEAN, Beliefs, believe, plan
from metarec_jax.factors.update import after_ratings, missing, path_of, taste_of
from metarec_jax.train.embed import embed

RATINGS = (0, 1, 3, 5, 10, 20)
"""Numbers of first ratings of a new item."""
OFTEN = 30
"""Least number of training ratings of an item that can be drawn as new."""
SHARE = 6
"""One in this number of frequently rated items is new."""
OURS, RULE, ANEW = "first ratings", "item mean + user bias", "all ratings, learned anew"
_SHRINK = 5.0


class _User(NamedTuple):
    """Rows of the data set: known ratings of a user, and those to predict."""

    user: int
    known: np.ndarray
    asked: np.ndarray


def measure(
    config: Config,
    seeds: Sequence[int],
    reporter: Reporter = QUIET,
    *,
    ratings: Sequence[int] = RATINGS,
    often: int = OFTEN,
) -> list[harness.Row]:
    """RMSE of the predictions for new items after some ratings of them, against other ways and against no rating.

    Args:
        config: config of the runs; its seed is replaced.
        seeds: one division each.
        reporter: shows progress.
        ratings: numbers of first ratings; 0 is among them.
        often: least number of training ratings of an item that can be drawn as new.
    """
    errors: dict[tuple[str, int], list[np.ndarray]] = {}
    users, strata = [], []
    with reporter.bar("new items", len(seeds)) as advance:
        for number, seed in enumerate(seeds):
            who = _seed(dataclasses.replace(config, seed=seed), errors, reporter, ratings, often)
            users.append(who)
            strata.append(np.full(len(who), seed))
            advance(number + 1)
    group, stratum = np.concatenate(users), np.concatenate(strata)
    joined = {place: np.concatenate(parts) for place, parts in errors.items()}
    rows = []
    for (name, k), found in joined.items():
        ours = joined[OURS, k]
        references = [(f"{k} ratings", name, found)] if name != OURS else []
        references += [("beyond the text", f"none, against {k}", joined[OURS, 0])] if name == OURS and k else []
        for case, contender, other in references:
            weights = np.ones(len(other))
            interval = paired_bootstrap(ours, other, weights, groups=group, strata=stratum, transform=np.sqrt)
            mine, theirs = (_root(v, stratum) for v in (ours, other))
            ratio = dict.fromkeys(("median", "low", "high"), theirs / mine)
            facts = {"difference": interval._asdict(), "better": "lower"}
            rows.append(harness.Row(case, contender, "rmse", mine, theirs, ratio, facts=facts))
    return rows


def _seed(
    config: Config,
    errors: dict[tuple[str, int], list[np.ndarray]],
    reporter: Reporter,
    ratings: Sequence[int],
    often: int,
) -> np.ndarray:
    """Add the squared errors of one seed to `errors`; returns the user of each."""
    data = load(config.data, seed=config.seed)
    division = divide(data, config, config.seed)
    embeddings = embed(load_encoder(config.encoder.path), config, data.items.texts, reporter, "encoding items")
    rng = np.random.default_rng([config.seed, 11])
    count = np.bincount(data.item[division.train], minlength=len(data.items))
    rated_often = np.flatnonzero(count >= often)
    new = np.zeros(len(data.items), bool)
    new[rng.choice(rated_often, len(rated_often) // SHARE, replace=False)] = True

    def of(rows: Selection) -> Beliefs:
        columns = data.user[rows], data.item[rows], data.rating[rows]
        common = plan(config.factors.rank, data.items, embeddings, data.user[rows], data.item[rows])
        return believe(common, data.items, embeddings, *columns)

    old = division.train[~new[data.item[division.train]]]
    before, anew = of(old), of(division.train)
    known = np.bincount(data.item[old], minlength=len(data.items)).astype(np.float64)
    apart = missing(before, embeddings, dict(data.items.details), known)
    people = _people(np.asarray(data.user), np.asarray(data.item), new, np.unique(division.scenarios[0].tasks.user))

    # Training users' ratings of each new item, in random order, and tastes from their other ratings.
    order = rng.permutation(division.train[new[data.item[division.train]]])
    of_user = {int(u): old[data.user[old] == u] for u in np.unique(data.user[order])}
    path = path_of({}, before)
    tastes = {u: taste_of(before.table[data.item[r]], data.rating[r], path) for u, r in of_user.items()}
    tables = {}
    for k in ratings:
        table = before.table.copy()
        mean = np.full(len(data.items), float(data.rating[division.train].mean()))
        for item in np.flatnonzero(new):
            rows = order[data.item[order] == item][:k]
            raters = [tastes[int(u)] for u in data.user[rows]]
            if len(rows):
                means, doubts = (np.stack(part) for part in zip(*raters))
                table[item] = after_ratings(table[item], means, doubts, data.rating[rows], before.noise, apart)
            mean[item] = (data.rating[rows].sum() + _SHRINK * mean[item]) / (len(rows) + _SHRINK)
        total = np.bincount(data.item[old], weights=data.rating[old], minlength=len(data.items))
        seen = np.bincount(data.item[old], minlength=len(data.items))
        mean = np.where(new, mean, (total + _SHRINK * mean) / (seen + _SHRINK))
        tables[k] = table, mean

    def squared(table: np.ndarray, path: Params) -> np.ndarray:
        found = []
        for person in people:
            taste, _ = taste_of(table[data.item[person.known]], data.rating[person.known], path)
            asked = table[data.item[person.asked]]
            found.append(np.square(asked[:, MEAN] + asked[:, FACTORS:] @ taste - data.rating[person.asked]))
        return np.concatenate(found)

    def by_rule(mean: np.ndarray) -> np.ndarray:
        found = []
        for person in people:
            bias = (data.rating[person.known] - mean[data.item[person.known]]).sum() / (len(person.known) + _SHRINK)
            found.append(np.square(mean[data.item[person.asked]] + bias - data.rating[person.asked]))
        return np.concatenate(found)

    ceiling = squared(anew.table, path_of({}, anew))
    for k, (table, mean) in tables.items():
        errors.setdefault((OURS, k), []).append(squared(table, path))
        errors.setdefault((RULE, k), []).append(by_rule(mean))
        errors.setdefault((ANEW, k), []).append(ceiling)
    return np.concatenate([np.full(len(person.asked), person.user) for person in people])


def _people(user: np.ndarray, item: np.ndarray, new: np.ndarray, tested: np.ndarray) -> list[_User]:
    found = []
    for u in tested:
        rows = np.flatnonzero(user == u)
        person = _User(int(u), rows[~new[item[rows]]], rows[new[item[rows]]])
        if len(person.known) and len(person.asked):
            found.append(person)
    return found


def _root(squared: np.ndarray, stratum: np.ndarray) -> float:
    return float(np.mean([np.sqrt(squared[stratum == s].mean()) for s in np.unique(stratum)]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    from metarec_jax.core.console import make_reporter

    rows = measure(preset("movielens-100k"), range(arguments.seeds), make_reporter())
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
