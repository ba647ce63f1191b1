"""The metrics of every method of one seed, where the protocol asks for lists over the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarec_jax.core.progress import Reporter
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.list_methods import ListMethod, Prepared, baselines, over_catalogue, prepare
from metarec_jax.evaluation.list_record import SeedLists, listed
from metarec_jax.evaluation.methods import BEFORE, META, TWINS, Method, networks_of
from metarec_jax.evaluation.tune_lists import CHOOSING
from metarec_jax.meta.model import Trainable
from metarec_jax.metrics.definitions import metric
from metarec_jax.metrics.predictions import Function
from metarec_jax.train.experiment import Experiment


def answer_lists(
    experiment: Experiment,
    own: Experiment,
    twin_experiment: Experiment,
    trainable: Trainable,
    twin: Trainable,
    about: Mapping[str, Any],
    budget: Budget,
    reporter: Reporter,
) -> SeedLists:
    """Judge the lists of all methods in all scenarios.

    Args:
        experiment: experiment of the model, with the embeddings before training, which the closed form reads.
        own: the same with the embeddings of the model's own encoder.
        twin_experiment: experiment of the twin, with those of its own encoder.
        trainable, twin: parameters of the model and of the twin.
        about: what the record says of the seed.
        budget: candidates that are tried on validation users.
        reporter: shows progress.

    Returns:
        The metrics of every user.
    """
    prepared = prepare(experiment)

    def error(function: Function) -> float:
        return -prepared.value(over_catalogue(twin_experiment.validation, function))

    networks = networks_of(
        experiment, trainable, twin_experiment, twin, reporter, budget, error, f"-{metric(CHOOSING).title}"
    )
    whose = {META: own, BEFORE: own} | dict.fromkeys(TWINS, twin_experiment)
    return judge_all(experiment, prepared, networks, whose, about, budget, reporter)


def judge_all(
    experiment: Experiment,
    prepared: Prepared,
    networks: Mapping[str, Method],
    whose: Mapping[str, Experiment],
    about: Mapping[str, Any],
    budget: Budget,
    reporter: Reporter,
) -> SeedLists:
    """Fit the baselines, and judge their lists and those of some networks.

    Args:
        experiment: the experiment.
        prepared: from `metarec_jax.evaluation.list_methods.prepare`.
        networks: methods by name, which follow the baselines in tables.
        whose: experiments whose embeddings these read, where it is not `experiment`.
        about: what the record says of the seed.
        budget: candidates that are tried on validation users.
        reporter: shows progress.

    Returns:
        The metrics of every user.
    """
    rules, notes = baselines(experiment, prepared, budget, reporter)
    scenarios, methods = {}, {}
    with reporter.bar("ranking the catalogue", len(prepared.tests)) as advance:
        for scenario, lists in prepared.tests.items():
            methods = {rule.name: ListMethod(rule.scores, rule.settings, rule.definition) for rule in rules}
            for name, method in networks.items():
                part = whose.get(name, experiment).tests[scenario]
                scores = over_catalogue(part, method.function)
                methods[name] = ListMethod(scores, method.settings, method.definition)
            judged = {name: prepared.judge(scenario, name, method.scores) for name, method in methods.items()}
            scenarios[scenario] = listed(lists, prepared.clicks, judged)
            advance(len(scenarios), scenario)
    most = experiment.config.episodes.max_support
    longer = [int((listed.history > most).sum()) for listed in scenarios.values()]
    if networks and any(longer):
        notes = (
            *notes,
            f"{max(longer)} users are shown more than {most} clicks: all of them are read here, while "
            "training draws as many of them in each epoch and a service reads the latest",
        )
    said = {
        "candidates": len(prepared.clicks),
        "training_users": prepared.train.shape[0],
        "training_clicks": int(prepared.train.nnz),
        "notes": list(notes),
        "settings": {name: dict(method.settings) for name, method in methods.items()},
        "definitions": {name: method.definition for name, method in methods.items()},
    }
    return SeedLists(scenarios, {**about, **said})
