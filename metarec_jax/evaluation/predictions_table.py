"""Predictions of every method for every query row of an evaluation, and the Parquet file that stores them.

Metrics of any definition, cohorts, calibration and comparisons of two evaluations are computed from this file, without
a model or a second run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.core.checked_files import read_table, reading, write_table
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import parse_json
from metarec_jax.core.scale import Scale, scale_from_json
from metarec_jax.core.types import Interactions
from metarec_jax.data.splits import Statistics, counts_of
from metarec_jax.data.tasks import TaskSource
from metarec_jax.metrics.predictions import Function, Predictions
from metarec_jax.train.experiment import Part

_PARTS = ("point", "mean", "score")


class Questions(NamedTuple):
    """The query rows of a scenario, task after task; each field is [rows].

    Attributes:
        task: int64, which task.
        user, item: int32, rows of the data set's users and items.
        rating: the truth, in the data's unit.
        history: int64, support rows of the task.
        activity: int64, rows that the user has in the data set.
        popularity: int64, training rows of the item.
    """

    task: np.ndarray
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    history: np.ndarray
    activity: np.ndarray
    popularity: np.ndarray


class Answers(NamedTuple):
    """Questions, and each method's predictions [rows]."""

    questions: Questions
    predictions: Mapping[str, Predictions]


@dataclasses.dataclass(frozen=True)
class SeedAnswers:
    """Predictions of one seed.

    Attributes:
        scenarios: questions and predictions by the name of the scenario.
        about: JSON tree with the seed, digest of the config, protocol, and settings and definitions of the methods.
    """

    scenarios: Mapping[str, Answers]
    about: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Seed of the division and the training."""
        return self.about["seed"]

    @property
    def scale(self) -> Scale:
        """Scale of the ratings."""
        return scale_from_json(self.about["scale"])


def questions_of(data: Interactions, source: TaskSource, statistics: Statistics) -> Questions:
    """The query rows of the tasks of a source.

    Args:
        data: interactions of the tasks.
        source: the tasks.
        statistics: training ratings of the items.

    Returns:
        The query rows, task after task.
    """
    tasks = source.tasks
    task = np.repeat(np.arange(len(tasks)), tasks.queries)
    user, item = tasks.user[task], data.item[tasks.query]
    activity = counts_of(data)
    return Questions(
        task=task,
        user=user,
        item=item,
        rating=data.scale.original(data.rating[tasks.query]),
        history=tasks.supports[task],
        activity=activity[user],
        popularity=statistics.count[item].astype(np.int64),
    )


def ask(part: Part[TaskSource], method: Function, scale: Scale) -> Predictions:
    """Predict the query rows of a part.

    Args:
        part: tasks and tables.
        method: (tables, episodes) -> predictions [users, query], on the standard scale.
        scale: of the ratings.

    Returns:
        Predictions [rows], in the order of the tasks; `point` and `mean` are in the data's unit.
    """
    source = part.source
    tasks = source.tasks
    start = np.cumsum(tasks.queries) - tasks.queries
    found: dict[str, np.ndarray] = {}
    for index, (_, members) in enumerate(source.plan):
        predictions = method(part.tables, source[index])
        real = np.arange(int(tasks.queries.max())) < tasks.queries[members, None]
        place = (start[members, None] + np.arange(real.shape[1]))[real]
        for name, values in predictions._asdict().items():
            if values is not None:
                picked = np.asarray(values, np.float64)[: len(members)][real]
                found.setdefault(name, np.zeros((len(tasks.query), *picked.shape[1:])))[place] = picked
    point, mean = (scale.original(found[name]) for name in ("point", "mean"))
    return Predictions(point, mean, found["score"], found.get("above"))


def save(answers: SeedAnswers, path: Path) -> None:
    """Write predictions to a Parquet file, a row per query row, atomically.

    Args:
        answers: answers of one seed.
        path: path of the file.

    Raises:
        MetarecError: the file cannot be written.
    """
    import pyarrow as pa

    parts = []
    for name, (questions, predictions) in answers.scenarios.items():
        columns: dict[str, Any] = {"scenario": pa.array([name] * len(questions.task)).dictionary_encode()}
        columns |= questions._asdict()
        for method, predicted in predictions.items():
            columns |= {f"{part}:{method}": getattr(predicted, part) for part in _PARTS}
            above = predicted.above
            if above is not None:
                columns |= {f"above {i}:{method}": above[:, i] for i in range(above.shape[1])}
        parts.append(pa.table(columns))
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
    write_table(path, table, {"about": json.dumps(answers.about)})


def load(path: Path) -> SeedAnswers | None:
    """Read what `save` wrote; None where there is no file, or one that is damaged or of another layout."""
    if not path.exists():
        return None
    with contextlib.suppress(MetarecError), reading(path):
        table, texts = read_table(path)
        about = parse_json(texts["about"], where=f"{path}, about", non_finite=True)
        columns = {name: table.column(name) for name in table.column_names}
        scenario = np.asarray(columns.pop("scenario").to_pylist(), object)
        values = {name: column.to_numpy() for name, column in columns.items()}
        methods = [name.partition(":")[2] for name in values if name.startswith("point:")]
        scenarios = {}
        for name in about["scenarios"]:
            chosen = scenario == name
            questions = Questions(*(values[field][chosen] for field in Questions._fields))
            predictions = {}
            for method in methods:
                above = [n for n in values if n.startswith("above ") and n.partition(":")[2] == method]
                predictions[method] = Predictions(
                    *(values[f"{part}:{method}"][chosen] for part in _PARTS),
                    above=np.stack([values[n][chosen] for n in above], axis=1) if above else None,
                )
            scenarios[name] = Answers(questions, predictions)
        return SeedAnswers(scenarios, about)
    return None
