"""The methods of an evaluation by lists: baselines, and networks that score every candidate for each adapted user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from scipy import sparse

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.data.episodes import filled
from metarec_jax.data.tasks import TaskSource
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.list_baselines import ListBaseline
from metarec_jax.evaluation.lists import Judged, Lists, Scores, judge, lists_of, training_clicks
from metarec_jax.evaluation.tune_lists import Value, fit_list_baselines, value_on
from metarec_jax.metrics.definitions import LISTS
from metarec_jax.metrics.predictions import Function
from metarec_jax.train.experiment import Experiment, Part

FLOATS_AT_ONCE = 1 << 24
"""Greatest number of elements of the candidates' embeddings and statistics in a call of a network."""


class ListMethod(NamedTuple):
    """A row of the table: the function, the hyperparameters that were chosen for it, and a one-line definition."""

    scores: Scores
    settings: Mapping[str, float]
    definition: str


class Prepared(NamedTuple):
    """What all methods of an experiment are fitted to and judged on.

    Attributes:
        train: float32 CSR [training users, candidates], 1 for a click.
        clicks: float32 [candidates], training clicks of each.
        validation: tasks of validation users.
        tests: tasks of each test scenario, by its name.
    """

    train: sparse.csr_matrix
    clicks: np.ndarray
    validation: Lists
    tests: Mapping[str, Lists]

    @property
    def value(self) -> Value:
        """Evaluates a method on validation users."""
        return value_on(self.validation, self.clicks, self.train.shape[0])

    def judge(self, scenario: str, method: str, scores: Scores) -> Judged:
        """Compute the metrics of a method in a test scenario.

        Args:
            scenario: name of the scenario.
            method: name of the method, for messages.
            scores: the method.

        Returns:
            The metrics.
        """
        return judge(self.tests[scenario], scores, LISTS, self.clicks, self.train.shape[0], method=method)


def prepare(experiment: Experiment) -> Prepared:
    """Make the matrices of an experiment whose division asks for lists.

    Args:
        experiment: the experiment.

    Returns:
        The training clicks, and the tasks of validation and test.

    Raises:
        MetarecError: no training user clicked anything.
    """
    data, division = experiment.data, experiment.division
    candidates = division.candidates
    assert candidates is not None
    train = training_clicks(data, division.train, candidates)
    if not train.nnz:
        raise MetarecError(f"no training row of {data.source} is a click: lower --data.liked, or bring more data")
    tests = {name: lists_of(data, part.source.tasks, candidates) for name, part in experiment.tests.items()}
    clicks = np.asarray(train.sum(axis=0), np.float32).ravel()
    return Prepared(train, clicks, lists_of(data, division.validation, candidates), tests)


def baselines(
    experiment: Experiment, prepared: Prepared, budget: Budget, reporter: Reporter = QUIET
) -> tuple[tuple[ListBaseline, ...], tuple[str, ...]]:
    """Fit the baselines of an experiment.

    Args:
        experiment: its embeddings are read.
        prepared: from `prepare`.
        budget: candidates that are tried on validation users.
        reporter: shows progress.

    Returns:
        The baselines in the order of the table, and notes on them.
    """
    embeddings = experiment.catalogue.embeddings[prepared.validation.items]
    return fit_list_baselines(prepared.train, embeddings, prepared.value, budget.lists, reporter)


def over_catalogue(part: Part[TaskSource], function: Function) -> Scores:
    """Make a list method of a network: each user is adapted to the support, and every candidate is a query row.

    Users and candidates are cut into calls of at most `FLOATS_AT_ONCE` numbers of embeddings and statistics, which are
    computed one after the other. A user of whom candidates take several calls is adapted in each.

    Args:
        part: the tasks, in the order of the lists, and embeddings.
        function: (tables, episodes) -> predictions; the score ranks.

    Returns:
        The method.
    """
    source = part.source
    beliefs = source.statistics.beliefs
    width = part.tables.items.shape[1] + 2 + (0 if beliefs is None else beliefs.shape[1])

    def scores(lists: Lists) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        items = len(lists.items)
        block = max(1, min(items, FLOATS_AT_ONCE // width))
        for bucket, batch in source.plan:
            users = max(1, min(len(batch), FLOATS_AT_ONCE // (width * block)))
            for first in range(0, len(batch), users):
                members = batch[first : first + users]
                found = np.empty((len(members), items), np.float32)
                for start in range(0, items, block):
                    some = lists.items[start : start + block]
                    padded = np.pad(some, (0, block - len(some)))
                    episodes = filled(source.over_items(bucket, members, padded), users)
                    predicted = function(part.tables, episodes)
                    scored = np.asarray(predicted.score)[: len(members), : len(some)]
                    found[:, start : start + len(some)] = scored
                yield members, found

    return scores
