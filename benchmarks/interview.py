"""Compare ways to choose questions, by prediction errors for test users of MovieLens-100K after their answers.

python -m benchmarks.interview --seeds 20 --json OUT
python -m benchmarks.interview --runs FOLDER --json OUT

Test users of protocol B answer questions, and their query rows are predicted by the closed form alone: item factors,
and the user's taste given the answers. The same model chooses the questions, and needs no training. With --runs, the
--out of `metarec evaluate --protocol recbole-metarec`, its trained models adapt to the answers.

In the case "N answers" the items that a user has rated (the support) are known, and N of these are asked about: those
that are most informative about all of them, the most popular, or random ones. In the case "N questions" any item of the
catalogue is asked about, one at a time; an item outside the support is answered with "I do not know it".
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import harness, variants
from metarec_jax.config.run import Config, preset
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Rows
from metarec_jax.data.tasks import make_tasks
from metarec_jax.evaluation.methods import adapting, untrained, without_inner_loop
from metarec_jax.evaluation.per_user import judge
from metarec_jax.meta.model import Trainable
from metarec_jax.metrics.metrics import UserValues
from metarec_jax.metrics.predictions import Function
from metarec_jax.recommender.active_learning import TastePosterior, choose, taste_posterior
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.parameters import load_trainable

ANSWERS = (1, 3, 5, 10)
QUESTIONS = (10, 20, 40)
METRICS = ("mae", "rmse", "ndcg@5", "auc_liked")
DRAWS = 5
"""Number of random choices of questions that are averaged."""
OURS, RANDOM, POPULAR = "information", "random", "popular"

Values = dict[tuple[str, str], list[Mapping[str, UserValues]]]
"""(case, strategy) -> for each seed, values of users by metric."""


class _Interviewer:
    """Order questions for the test users of one run; items are rows of the catalogue."""

    def __init__(self, experiment: Experiment, trainable: Trainable):
        beliefs = experiment.catalogue.beliefs
        if beliefs is None:
            raise MetarecError("these runs have no item factors: evaluate with --factors.rank 32")
        count = experiment.catalogue.statistics.count.astype(np.float64)
        self._prior = jax.device_get(trainable.theta["prior"])
        self._items = np.concatenate([np.zeros((len(count), 2)), beliefs.table], axis=1)
        self._weight, self._known = count / count.sum(), count / count.max()
        self.popular = np.argsort(-count, kind="stable")

    def of_pool(self, pool: np.ndarray, k: int) -> np.ndarray:
        """The `k` items of a pool that are most informative about the pool."""
        allowed = np.isin(np.arange(len(self._weight)), pool)
        return choose(self._about([]), np.ones(len(allowed)), allowed / allowed.sum(), allowed, k)[0]

    def of_catalogue(self, pool: np.ndarray, k: int) -> list[int]:
        """The items of `k` questions, each chosen given the earlier answers; only items of the pool are answered."""
        answered: list[int] = []
        asked: list[int] = []
        allowed = np.ones(len(self._weight), bool)
        for _ in range(k):
            if not allowed.any():
                break
            row = int(choose(self._about(answered), self._known, self._weight, allowed, 1)[0][0])
            asked.append(row)
            allowed[row] = False
            answered += [row] if row in pool else []
        return asked

    def _about(self, answered: Sequence[int]) -> TastePosterior:
        rows = np.array(answered, np.int32)
        ones = np.ones(len(rows), np.float32)
        return taste_posterior(self._prior, self._items, Rows(rows, ones, ones, ones))


class Asked(NamedTuple):
    """A model whose test users answer questions.

    Attributes:
        experiment: its data and catalogue.
        trainable: its parameters.
        method: adapts to the answers and predicts.
    """

    experiment: Experiment
    trainable: Trainable
    method: Function


def trained(folders: Sequence[Path], reporter: Reporter = QUIET) -> Iterator[Asked]:
    """Load the runs of some folders."""
    for folder in folders:
        run = run_folder.open_run(folder)
        experiment = build(run.config, reporter=reporter)
        trainable = load_trainable(run, experiment.catalogue, experiment.encoder.params)
        yield Asked(experiment, trainable, adapting(experiment.model, trainable))


def closed(config: Config, seeds: int, reporter: Reporter = QUIET, *, make: variants.Build = build) -> Iterator[Asked]:
    """The closed form alone.

    Args:
        config: config of the runs.
        seeds: number of splits.
        reporter: shows progress.
        make: builds an experiment.
    """
    for seed in range(seeds):
        experiment = make(dataclasses.replace(without_inner_loop(config), seed=seed), reporter=reporter)
        trainable = untrained(experiment)
        yield Asked(experiment, trainable, adapting(experiment.model, trainable))


def measure(
    asked: Iterable[Asked],
    reporter: Reporter = QUIET,
    *,
    answers: Sequence[int] = ANSWERS,
    questions: Sequence[int] = QUESTIONS,
) -> list[harness.Row]:
    """Let the test users of each model answer questions, and evaluate its predictions."""
    values: Values = {}
    users, seeds = [], []
    for one in asked:
        seed = one.experiment.config.seed
        for place, found in _judged(one, np.random.default_rng(seed), reporter, answers, questions):
            values.setdefault(place, []).append(found)
        users.append(one.experiment.test.source.tasks.user)
        seeds.append(np.full(len(users[-1]), seed))
    return _compared(values, np.concatenate(users), np.concatenate(seeds))


def _judged(
    asked: Asked, rng: np.random.Generator, reporter: Reporter, answers: Sequence[int], questions: Sequence[int]
) -> list[tuple[tuple[str, str], Mapping[str, UserValues]]]:
    experiment, trainable, method = asked
    data, tasks = experiment.data, experiment.test.source.tasks
    supports, queries = zip(*tasks.each())
    ask = _Interviewer(experiment, trainable)

    def judged(chosen: Callable[[int], np.ndarray]) -> Mapping[str, UserValues]:
        """Values of the users, each adapted to the support rows of the items `chosen` for it."""
        kept = [rows[np.isin(data.item[rows], chosen(u))] for u, rows in enumerate(supports)]
        source = dataclasses.replace(experiment.test.source, tasks=make_tasks(tasks.user, kept, queries))
        part = dataclasses.replace(experiment.test, source=source)
        return judge(experiment, part, OURS, method, metrics=METRICS).values

    def shuffled(k: int, pools: Sequence[np.ndarray]) -> Mapping[str, UserValues]:
        tried = [judged(lambda u: rng.choice(pools[u], min(k, len(pools[u])), replace=False)) for _ in range(DRAWS)]
        return {
            name: UserValues(np.mean([t[name].values for t in tried], axis=0), tried[0][name].weights)
            for name in METRICS
        }

    pools = [data.item[rows] for rows in supports]
    everything = [np.arange(len(data.items))] * len(pools)
    told = [ask.of_pool(pool, max(answers)) for pool in pools]
    liked = [ask.popular[np.isin(ask.popular, pool)] for pool in pools]
    found = []
    with reporter.bar("asking", len(answers) + len(questions)) as advance:
        for k in answers:
            case = f"{k} answers" if k > 1 else "1 answer"
            found.append(((case, OURS), judged(lambda u, k=k: told[u][:k])))
            found.append(((case, POPULAR), judged(lambda u, k=k: liked[u][:k])))
            found.append(((case, RANDOM), shuffled(k, pools)))
            advance(len(found) // 3)
        sequences = [ask.of_catalogue(pool, max(questions)) for pool in pools]
        for k in questions:
            found.append(((f"{k} questions", OURS), judged(lambda u, k=k: np.array(sequences[u][:k]))))
            found.append(((f"{k} questions", POPULAR), judged(lambda u, k=k: ask.popular[:k])))
            found.append(((f"{k} questions", RANDOM), shuffled(k, everything)))
            advance(len(found) // 3)
    return found


def _compared(values: Values, users: np.ndarray, seeds: np.ndarray) -> list[harness.Row]:
    """Compare the most informative questions with the others, with the interval of the difference."""
    rows = []
    for (case, contender), found in values.items():
        if contender == OURS:
            continue
        for name in METRICS:
            ours, against = ([part[name] for part in parts] for parts in (values[case, OURS], found))
            rows.append(variants.paired_row(case, contender, name, ours, against, users, seeds, {}))
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="splits for the closed form alone")
    parser.add_argument("--runs", type=Path, help="the --out of an evaluation of protocol B, whose models to take")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    from metarec_jax.core.console import make_reporter

    reporter = make_reporter()
    if arguments.runs is None:
        found = closed(preset("movielens-100k"), arguments.seeds, reporter)
    else:
        folders = sorted(
            arguments.runs.glob("seed-*/meta"), key=lambda path: int(path.parent.name.removeprefix("seed-"))
        )
        if not folders:
            raise SystemExit(f"{arguments.runs} holds no seed-*/meta: name the --out of a `metarec evaluate`")
        found = trained(folders, reporter)
    rows = measure(found, reporter)
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
