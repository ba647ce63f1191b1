"""Heads on frozen embeddings, evaluated on items that training users rated and on new items.

The items that a pretraining held out are new: the training users' ratings of them are removed, so that item statistics
and heads do not include them, and they are predicted from their text alone. Each validation user has one support, of
items that are not new, and two queries: other such items ("warm"), and all new items ("cold").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import variants
from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Interactions, Rows
from metarec_jax.data import load
from metarec_jax.data.episodes import statistics_of
from metarec_jax.data.histories import histories
from metarec_jax.data.protocols.division import Division, Scenario, drawn_tasks
from metarec_jax.data.splits import Statistics, item_statistics
from metarec_jax.encoder import Encoder
from metarec_jax.evaluation import baselines
from metarec_jax.evaluation.methods import adapting
from metarec_jax.metrics.metrics import UserValues, evaluate_users
from metarec_jax.metrics.predictions import Predictions
from metarec_jax.train.build import build
from metarec_jax.train.pretraining.held_out import Seen, seen

METRICS = ("mae", "auc", "ndcg@5")
PARTS = ("warm", "cold")
QUERY = 1 / 3
"""Share of a user's warm items that are in the query."""
TEXT_PENALTIES = (10.0, 30.0, 100.0, 300.0)
"""Penalties of the regression of an item's mean rating on its text."""
USER_PENALTIES = (1.0, 3.0, 10.0, 30.0)
"""Penalties of each user's own regression."""
ITEM_SHRINK, USER_SHRINK = 5.0, 5.0


class World(NamedTuple):
    """Data in which some items are new.

    Attributes:
        data: data without training users' ratings of new items.
        seen: the split, and the new items.
        statistics: statistics of the training users.
    """

    data: Interactions
    seen: Seen
    statistics: Statistics


def world_of(config: PretrainConfig) -> World:
    """Load the data of a pretraining, and remove the training users' ratings of the items that it held out."""
    data = load(config.data, seed=config.seed)
    found = seen(data, config)
    kept = ~(np.isin(data.user, found.splits.train) & found.cold[data.item])
    columns = {name: getattr(data, name)[kept] for name in ("user", "item", "rating", "time")}
    data = dataclasses.replace(data, **columns)
    return World(data, found, item_statistics(data, found.splits.train))


def questions(world: World, config: Config) -> dict[str, Episodes]:
    """Draw support and queries of the validation users.

    Args:
        world: the data.
        config: config of the run.

    Returns:
        For each part one batch of all validation users; both have the same supports.
    """
    own = histories(world.data, world.seen.splits.validation)
    support, warm, cold = [], [], []
    for user, start, count in zip(own.users, own.start, own.count):
        rows = start + np.random.default_rng([config.seed, 3, int(user)]).permutation(int(count))
        new = world.seen.cold[own.item[rows]]
        known = rows[~new]
        asked = round(QUERY * len(known))
        warm.append(known[:asked])
        support.append(known[asked : asked + config.episodes.max_support])
        cold.append(rows[new])

    def padded(chosen: list[np.ndarray], length: int) -> Rows:
        real = np.arange(length) < np.array([len(rows) for rows in chosen])[:, None]
        rows = np.stack([np.pad(rows, (0, length - len(rows))) for rows in chosen]).astype(int)
        item, rating = (np.where(real, column[rows], 0) for column in (own.item, own.rating))
        statistic = statistics_of(world.statistics, item, rating, real, own=False)
        return Rows(item.astype(np.int32), rating.astype(np.float32), real.astype(np.float32), statistic)

    shown = padded(support, config.episodes.buckets[-1])
    weight = np.ones(len(own.users), np.float32)
    return {
        part: Episodes(own.users, shown, padded(rows, max(map(len, rows))), weight)
        for part, rows in (("warm", warm), ("cold", cold))
    }


def judged(predictions: Predictions, episodes: Episodes) -> dict[str, UserValues]:
    """Compute every metric for each user."""
    return evaluate_users(predictions, episodes.query, metrics=METRICS)


def ridge(
    world: World, table: np.ndarray, asked: Mapping[str, Episodes]
) -> dict[Any, dict[str, dict[str, UserValues]]]:
    """Closed forms on a table of embeddings, by their two penalties: part -> metric -> values.

    An item's mean rating is predicted from its text by a ridge regression on the training users' means, and combined
    with its own training ratings; the package's ridge regression for each user is added.
    """
    data, statistics = world.data, world.statistics
    known = statistics.count > 0
    x = table - table[known].mean(axis=0)
    x = (x / np.sqrt((x[known] ** 2).sum(axis=1).mean())).astype(np.float64)
    mean = float(statistics.total.sum() / statistics.count.sum())
    ends = data.scale.standardised()
    scale = baselines.Scale(mean, mean, ends.low, ends.high)
    gram = (x * statistics.count[:, None]).T @ x
    right = x.T @ (statistics.total - mean * statistics.count)
    found = {}
    for text_penalty in TEXT_PENALTIES:
        prior = mean + x @ np.linalg.solve(gram + text_penalty * np.eye(len(gram)), right)
        told = {part: _with_prior(episodes, prior) for part, episodes in asked.items()}
        for penalty in USER_PENALTIES:
            rule = baselines.ridge(scale, x, item_shrink=0.0, user_shrink=USER_SHRINK, penalty=penalty)
            found[text_penalty, penalty] = {part: judged(rule.predict(e), e) for part, e in told.items()}
    return found


def _with_prior(episodes: Episodes, prior: np.ndarray) -> Episodes:
    """Add every item's prior mean to the statistics, with the weight of `ITEM_SHRINK` ratings."""

    def more(rows: Rows) -> Rows:
        added = np.stack([ITEM_SHRINK * prior[rows.item], np.full(rows.item.shape, ITEM_SHRINK)], axis=-1)
        return rows._replace(statistic=rows.statistic + added)

    return episodes._replace(support=more(episodes.support), query=more(episodes.query))


def chosen(
    tried: Iterable[Mapping[Any, Mapping[str, Mapping[str, UserValues]]]], part: str
) -> tuple[Any, list[Mapping[str, UserValues]]]:
    """Choose the penalties with the least MAE over all seeds.

    Args:
        tried: for each seed, the values of a `ridge`.
        part: part whose MAE chooses the penalties.

    Returns:
        The penalties, and their values for each seed.
    """
    tried = list(tried)

    def mae(penalties: Any) -> float:
        values = [seed[penalties][part]["mae"] for seed in tried]
        return float(np.mean([v.values @ v.weights / v.weights.sum() for v in values]))

    best = min(tried[0], key=mae)
    return best, [seed[best][part] for seed in tried]


def meta_trained(
    world: World,
    encoder: Encoder,
    config: Config,
    folder: Path,
    asked: Mapping[str, Episodes],
    reporter: Reporter = QUIET,
) -> dict[str, dict[str, UserValues]]:
    """Train with a frozen encoder on the ratings of a world: part -> metric -> values.

    Args:
        world: the data.
        encoder: encoder of the embeddings.
        config: config of the run.
        folder: the run folder; an existing run is continued.
        asked: from `questions`.
        reporter: shows progress.
    """
    without_factors = dataclasses.replace(config, factors=dataclasses.replace(config.factors, rank=0))
    division = division_of(world, without_factors)
    experiment = build(without_factors, data=world.data, division=division, encoder=encoder, reporter=reporter)
    _, trainable = variants.fitted(experiment, folder, reporter)
    method = adapting(experiment.model, trainable)
    return {part: judged(method(experiment.validation.tables, episodes), episodes) for part, episodes in asked.items()}


def division_of(world: World, config: Config) -> Division:
    """Divide the ratings of a world by the users that it was split into.

    Args:
        world: the data.
        config: config of the run.
    """
    data, splits = world.data, world.seen.splits
    enough = np.bincount(data.user, minlength=len(data.users)) > config.episodes.query
    validation, test = (
        drawn_tasks(data, users[enough[users]], config.episodes, config.seed)
        for users in (splits.validation, splits.test)
    )
    return Division(
        train=np.flatnonzero(np.isin(data.user, splits.train)),
        train_users=splits.train[enough[splits.train]],
        validation=validation,
        scenarios=(Scenario("new users", "users without training rows", test),),
        description="new users, and items that nobody rated",
    )


def users_of(asked: Mapping[str, Episodes]) -> np.ndarray:
    """Rows of the user table, int32 [users], in the order of the values."""
    return np.asarray(jax.device_get(next(iter(asked.values())).user))
