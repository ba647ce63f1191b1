"""Accuracy and cost of the influences of ratings, compared with leaving each rating out and adapting again.

python -m benchmarks.explain [RUN ...] --json OUT

For every test user of each run (if none is named, two are trained on MovieLens-100K, without and with factors), the ten
items that are recommended first are explained. The reference is the score minus the score after adaptation to the
history without the rating. It is computed in two ways, which must agree: `Recommender.adapt_many` of shortened
histories, and a dedicated program, which shares computations between histories and is the faster rival.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from benchmarks import harness
from metarec_jax.config.run import Config, preset
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.over_users import over_users
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Interactions
from metarec_jax.data import load
from metarec_jax.data.protocols import divide
from metarec_jax.data.tasks import Tasks
from metarec_jax.evaluation.bootstrap import paired_bootstrap
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.learner.inputs import Features
from metarec_jax.meta.batch import planned
from metarec_jax.meta.model import Model, Task, Trainable
from metarec_jax.meta.user import adapt_user, apply_user, context_of
from metarec_jax.recommender.item_table import ItemTensors, tables_of
from metarec_jax.recommender.programs import UserTask
from metarec_jax.recommender.recommender import Rated, Recommender, UserState
from metarec_jax.train.start import meta_train

BAR_OF_RANKS, BAR_OF_COST = 0.9, 10.0
LIST = 10
TIMED = 8
"""Number of users that are timed, with histories of different lengths."""
AGREE = 1e-3
"""Largest difference of the two ways to leave ratings out, relative to the largest influence (float32 rounding)."""


class Asked(NamedTuple):
    """A test user: the history, the state after adaptation, and rows of the items recommended first."""

    history: list[Rated]
    profile: str
    state: UserState
    rows: np.ndarray


def left_out(
    model: Model, trainable: Trainable, items: ItemTensors, task: UserTask, rows: Int[Array, " items"]
) -> Float[Array, "users items support"]:
    """Every score minus the score without each rating; arguments as for `programs.influences`."""
    tables = tables_of(model, trainable.theta, items, task.embedding)
    features = Features(Fixed(tables.items[rows], None, "recommended"), items.statistic[rows])
    episodes = Episodes(jnp.arange(len(task.embedding)), task.support, query=None, weight=None)
    plan, products = planned(model, trainable.theta, tables, episodes)

    def one(task: Task) -> Array:
        episode = task.episode

        def scores(mask: Array) -> Array:
            support = episode.support._replace(mask=mask)
            context = context_of(tables, episode.user, support, None, trainable.theta, task.products)
            kept = adapt_user(model, trainable, context, plan).end
            return model.head.mean(apply_user(model, trainable, context, kept, features))

        mask = episode.support.mask
        without = jax.vmap(lambda row: scores(mask * (1 - row)))(jnp.eye(len(mask), dtype=mask.dtype))
        return (scores(mask) - without).T

    return over_users(one, Task(episodes, products))


def test_users(recommender: Recommender) -> list[Asked]:
    """The users of a run's first scenario, in order of the length of their histories."""
    config = recommender.config
    data = load(config.data, seed=config.seed)
    tasks = divide(data, config, config.seed).scenarios[0].tasks
    found = []
    for task in np.argsort(tasks.supports, kind="stable"):
        history = _history(data, tasks, int(task))
        if len(history) < 3:  # too short for a rank correlation
            continue
        reads = config.learner.user_side == "profile" and data.users.texts is not None
        profile = data.users.texts[tasks.user[task]] if reads and data.users.texts else ""
        state = recommender.adapt(history, profile)
        best = recommender.recommend(state, k=LIST)
        rows = np.array([recommender.find(f"id:{item.id}").row for item in best], np.int32)
        found.append(Asked(history, profile, state, rows))
    return found


def _history(data: Interactions, tasks: Tasks, task: int) -> list[Rated]:
    start = int(tasks.supports[:task].sum())
    rows = tasks.support[start : start + int(tasks.supports[task])]
    rows = rows[np.argsort(data.time[rows], kind="stable")]
    ids = data.items.ids
    return [Rated(f"id:{ids[item]}", float(r)) for item, r in zip(data.item[rows], data.rating[rows])]


def measure(
    name: str, recommender: Recommender, users: Sequence[Asked], *, rounds: int, reporter: Reporter = QUIET
) -> list[harness.Row]:
    """Rank correlations of the influences of some users with the reference, and times of a few of them.

    Args:
        name: name of the run.
        recommender: recommender of the run.
        users: from `test_users`.
        rounds: turns of each contender.
        reporter: shows progress.

    Raises:
        MetarecError: the two ways to leave a rating out differ.
    """
    program = jax.jit(functools.partial(left_out, recommender.executor.model))
    truths = []
    with reporter.bar(f"{name}: leaving out", len(users)) as advance:
        for number, user in enumerate(users, start=1):
            truths.append(_left_out(recommender, program, user))
            advance(number)
    timed = [users[i] for i in np.linspace(0, len(users) - 1, min(TIMED, len(users))).round().astype(int)]
    for user in timed:
        _check(recommender, user, _left_out(recommender, program, user))
    return [*_ranks(name, recommender, users, truths), *_times(name, recommender, timed, program, rounds, reporter)]


def _left_out(recommender: Recommender, program: Callable[..., Any], user: Asked) -> np.ndarray:
    """Reference influences of a user [items, support], by the program."""
    task = jax.tree.map(lambda leaf: leaf[None], UserTask(user.state.embedding, user.state.support))
    items = recommender.items.table.tensors(single_user=True)
    return jax.device_get(program(recommender.executor.trainable, items, task, user.rows))[0]


def _shortened(user: Asked) -> list[list[Rated]]:
    """Histories without one rating of the support each, latest first."""
    history, used = user.history, int(user.state.support.mask.sum())
    places = range(len(history) - 1, len(history) - 1 - used, -1)
    return [history[:i] + history[i + 1 :] for i in places]


def _check(recommender: Recommender, user: Asked, truth: np.ndarray) -> None:
    if len(user.history) > user.state.support.mask.sum():
        return  # the support of a shortened history would include an older rating
    items = [f"id:{recommender.catalogue.items.ids[row]}" for row in user.rows]
    full = recommender.score(user.state, items)
    states = recommender.adapt_many(_shortened(user), [user.profile] * len(user.history))
    states = [dataclasses.replace(state, embedding=user.state.embedding) for state in states]
    want = np.stack([full - recommender.score(state, items) for state in states], axis=1)
    worst = float(np.abs(want - truth[:, : want.shape[1]]).max() / np.abs(want).max())
    if not worst <= AGREE:
        raise MetarecError(f"adapting to shortened histories differs by {worst:.2g} from leaving ratings out at once")


def _ranks(
    name: str, recommender: Recommender, users: Sequence[Asked], truths: Sequence[np.ndarray]
) -> list[harness.Row]:
    correlations, ratios, agreed, given, lists = [], [], [], 0, 0
    scale = recommender.catalogue.scale
    for user, truth in zip(users, truths):
        real = np.flatnonzero(user.state.support.mask > 0)
        _, influences = recommender.executor.influences(user.state, user.rows)
        ours, theirs = influences[:, real], truth[:, real]
        correlations.append(float(np.mean([_rank_correlation(a, b) for a, b in zip(ours, theirs)])))
        ratios.append(float(np.sum(ours * theirs) / np.sum(ours * ours)))
        places = {recommender.catalogue.items.ids[user.state.support.item[i]]: n for n, i in enumerate(real)}
        asked = [f"id:{recommender.catalogue.items.ids[row]}" for row in user.rows]
        for explanation, row in zip(recommender.explain(user.state, asked), theirs):
            given, lists = given + bool(explanation.sentence), lists + 1
            agreed += [float(row[places[reason.id]]) for reason in explanation.because]
    values = np.array(correlations)
    interval = paired_bootstrap(values, np.zeros(len(values)), np.ones(len(values)))
    facts = {
        "users": len(users),
        "ratings of a user (median)": float(np.median([len(user.history) for user in users])),
        "interval of the mean over users": interval._asdict(),
        "least of a user": float(values.min()),
        "truth over influence, of a user (median)": float(np.median(ratios)),
        "items with a sentence": given / lists,
        "reasons named": len(agreed),
        "named reasons without which the score is lower": float(np.mean(np.array(agreed) > 0)) if agreed else None,
        "the same, by half of what is said to matter": float(
            np.mean(np.array(agreed) > 0.5 * 0.01 * (scale.high - scale.low))
        )
        if agreed
        else None,
        "config": dataclasses.asdict(recommender.config),
    }
    mean = float(values.mean())
    spread = dict(zip(("median", "low", "high"), map(float, np.quantile(values, [0.5, 0.05, 0.95]))))
    case = f"{name}, first {LIST} items of test users"
    return [harness.Row(case, "leave one out", "rank correlation", mean, 1.0, spread, BAR_OF_RANKS, facts)]


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, without treatment of ties."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def _times(
    name: str,
    recommender: Recommender,
    users: Sequence[Asked],
    program: Callable[..., Any],
    rounds: int,
    reporter: Reporter,
) -> list[harness.Row]:
    rows = []
    for items in (1, LIST):
        asked = [user._replace(rows=user.rows[:items]) for user in users]

        def ours(asked: Sequence[Asked] = asked) -> None:
            for user in asked:
                recommender.executor.influences(user.state, user.rows)

        def at_once(asked: Sequence[Asked] = asked) -> None:
            for user in asked:
                _left_out(recommender, program, user)

        def one_by_one(asked: Sequence[Asked] = asked) -> None:
            for user in asked:
                recommender.adapt_many(_shortened(user), [user.profile] * len(_shortened(user)))

        contenders = [
            harness.Contender("influences", ours),
            harness.Contender("leave one out, a program for it", at_once),
            harness.Contender("leave one out, adapt_many (scores not counted)", one_by_one),
        ]
        label = f"{name}, {items} item{'s' if items > 1 else ''} of a user"
        seconds = harness.take_turns(contenders, rounds=rounds, reporter=reporter, label=label)
        bars = {contender.name: BAR_OF_COST for contender in contenders[1:]}
        facts = {"users": len(users), "lengths of histories": [len(user.history) for user in users]}
        rows += harness.compare(
            label, seconds, ours="influences", work=len(users), metric="users/s", bars=bars, facts=facts
        )
    return rows


def standard(rank: int) -> Config:
    """A run on MovieLens-100K."""
    base = preset("movielens-100k")
    return dataclasses.replace(base, factors=dataclasses.replace(base.factors, rank=rank))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="trained runs; where left out, two are trained")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    from metarec_jax.core.console import make_reporter

    reporter = make_reporter()
    runs = arguments.runs
    if not runs:
        folder = Path(tempfile.mkdtemp(prefix="metarec-explain-"))
        runs = [folder / "rank-0", folder / "rank-32"]
        for run, rank in zip(runs, (0, 32)):
            meta_train(standard(rank), run, reporter=reporter)
    rows = []
    for run in runs:
        recommender = Recommender.load(run)
        beliefs = recommender.catalogue.beliefs
        factors = "no factors" if beliefs is None else f"{beliefs.table.shape[1] - 2} factors"
        name = f"{recommender.config.learner.kind}, {factors}"
        rows += measure(name, recommender, test_users(recommender), rounds=arguments.rounds, reporter=reporter)
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
