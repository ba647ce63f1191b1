"""Metrics of every user and method of an evaluation by lists, and the Parquet file that stores them.

Scores of users x items are not kept. Tables, cohorts and intervals are computed from this file without a model.
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
from metarec_jax.evaluation.lists import Judged, Lists

LISTS = "lists.parquet"
"""File in the folder of a seed with the metrics of all methods."""


class Listed(NamedTuple):
    """The users of a scenario and the metrics of each method.

    Attributes:
        user: int32 [tasks], rows of the data set's users.
        history: int64 [tasks], number of clicks that were shown.
        popularity: float64 [tasks], median number of training clicks of the user's targets.
        methods: metrics by name of the method.
    """

    user: np.ndarray
    history: np.ndarray
    popularity: np.ndarray
    methods: Mapping[str, Judged]


@dataclasses.dataclass(frozen=True)
class SeedLists:
    """Metrics of one seed.

    Attributes:
        scenarios: users and metrics by the name of the scenario.
        about: JSON tree with the seed, digest of the config, protocol, notes, and settings and definitions of methods.
    """

    scenarios: Mapping[str, Listed]
    about: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Seed of the division and the training."""
        return self.about["seed"]


def listed(lists: Lists, clicks: np.ndarray, methods: Mapping[str, Judged]) -> Listed:
    """Put the users of a scenario together with the metrics of each method.

    Args:
        lists: the tasks.
        clicks: float [candidates], training clicks of each.
        methods: metrics by name of the method.

    Returns:
        The users and metrics.
    """
    targets = np.split(lists.targets.indices, lists.targets.indptr[1:-1])
    popularity = np.array([np.median(clicks[target]) for target in targets], np.float64)
    return Listed(lists.user, np.diff(lists.clicked.indptr).astype(np.int64), popularity, methods)


def save(found: SeedLists, path: Path) -> None:
    """Write metrics to a Parquet file, a row per user, atomically.

    Args:
        found: metrics of one seed.
        path: path of the file.

    Raises:
        MetarecError: the file cannot be written.
    """
    import pyarrow as pa

    parts = []
    for name, scenario in found.scenarios.items():
        columns: dict[str, Any] = {"scenario": pa.array([name] * len(scenario.user)).dictionary_encode()}
        columns |= {field: getattr(scenario, field) for field in ("user", "history", "popularity")}
        for method, judged in scenario.methods.items():
            columns |= {f"{metric}:{method}": values for metric, values in judged.values.items()}
        parts.append(pa.table(columns))
    overall = {
        name: {method: dict(judged.overall) for method, judged in scenario.methods.items()}
        for name, scenario in found.scenarios.items()
    }
    table = pa.concat_tables(parts).unify_dictionaries()
    write_table(path, table, {"about": json.dumps(found.about), "overall": json.dumps(overall)})


def load(path: Path) -> SeedLists | None:
    """Read what `save` wrote; None where there is no file, or one that is damaged or of another layout."""
    if not path.exists():
        return None
    with contextlib.suppress(MetarecError), reading(path):
        table, texts = read_table(path)
        about, overall = (parse_json(texts[name], where=f"{path}, {name}") for name in ("about", "overall"))
        columns = {name: table.column(name) for name in table.column_names}
        scenario = np.asarray(columns.pop("scenario").to_pylist(), object)
        values = {name: column.to_numpy() for name, column in columns.items()}
        scenarios = {}
        for name, of_method in overall.items():
            chosen = scenario == name
            methods = {}
            for method, whole in of_method.items():
                own = {n.partition(":")[0]: v[chosen] for n, v in values.items() if n.partition(":")[2] == method}
                methods[method] = Judged(own, whole)
            user, history, popularity = (values[field][chosen] for field in ("user", "history", "popularity"))
            scenarios[name] = Listed(user, history, popularity, methods)
        return SeedLists(scenarios, about)
    return None
