"""The methods of an evaluation, each a function from (tables, episodes) to predictions.

They are the meta-learned model, baselines without a network, and the *twin*: the same network trained on the same users
without an inner loop, as it is and fine-tuned on each user's support by gradient descent. Hyperparameters of a method
are chosen on validation users.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import partition
from metarec_jax.core.progress import Reporter
from metarec_jax.core.types import Episodes, Tables
from metarec_jax.data.tasks import TaskSource
from metarec_jax.evaluation.baselines import Baseline
from metarec_jax.evaluation.budget import FULL, Budget
from metarec_jax.evaluation.fit_baselines import fit_baselines, fit_click_baselines
from metarec_jax.evaluation.per_user import judge
from metarec_jax.meta.model import Model, Trainable
from metarec_jax.meta.outer import predict
from metarec_jax.metrics.metrics import compute, sums
from metarec_jax.metrics.predictions import Function, Predictions
from metarec_jax.train.experiment import Experiment, Part
from metarec_jax.train.model import init_trainable, make_model

META = "meta-learned"
BEFORE = "meta-learned, before adapting"
STRANGER = "twin, unadapted"
TWIN = "twin, shown the support"
TUNED = "twin, fine-tuned"
CLOSED = "closed form alone"
ITEM = "item mean"
RATE = "item click rate"
BIAS = "item mean + user bias"
NEAREST = "item mean + user bias, nearest level"
RIDGE = "ridge per user, nearest level"
TWINS = (STRANGER, TWIN, TUNED)

DEFINITIONS = {
    CLOSED: "the factor model alone: item factors and each user's taste in closed form, without the network and "
    "without any parameter that the outer loop trains",
    META: "the model, after adapting to each user's support",
    BEFORE: "the model with an empty support: its prediction for a user without ratings",
    STRANGER: "the same network trained without an inner loop, with an empty support: one prediction for all users",
    TWIN: "the twin given the support: the prior path uses it (the user's bias, or the taste in closed form), and so "
    "does a learner that reads the support; no parameter is adapted",
    TUNED: "the twin after gradient steps on each user's support; rate and steps chosen on validation users",
}


class Method(NamedTuple):
    """A row of the table: the function, the hyperparameters that were chosen for it, and a one-line definition."""

    function: Function
    settings: dict[str, float]
    definition: str


def without_inner_loop(config: Config) -> Config:
    """The config of the twin: the same config with 0 inner steps.

    The order is "second", since Reptile updates adapted parameters by the result of the inner steps alone; for other
    orders it makes no difference.
    """
    return dataclasses.replace(config, updater=dataclasses.replace(config.updater, steps=0, order="second"))


def methods_of(
    experiment: Experiment,
    trainable: Trainable,
    twin_experiment: Experiment,
    twin: Trainable,
    reporter: Reporter,
    budget: Budget = FULL,
) -> dict[str, Method]:
    """Make every method of the table.

    Args:
        experiment: experiment of the model.
        trainable: parameters of the model.
        twin_experiment, twin: experiment and parameters of the twin.
        reporter: shows progress.
        budget: candidates that are tried on validation users.

    Returns:
        Methods by name, in the order of the table.
    """
    found = {}
    for rule in _rules(experiment, budget):

        def function(_: Tables, episodes: Episodes, rule: Baseline = rule) -> Predictions:
            return rule.predict(episodes)

        found[rule.name] = Method(function, dict(rule.settings), rule.definition)

    def error(method: Function) -> float:
        return _validation_error(twin_experiment, method)

    return found | networks_of(experiment, trainable, twin_experiment, twin, reporter, budget, error, "MAE")


def networks_of(
    experiment: Experiment,
    trainable: Trainable,
    twin_experiment: Experiment,
    twin: Trainable,
    reporter: Reporter,
    budget: Budget,
    error: Callable[[Function], float],
    measure: str,
) -> dict[str, Method]:
    """Make the methods that have a network: the model, the twin, and the closed form that both start from.

    Args:
        experiment, trainable, twin_experiment, twin, reporter, budget: as for `methods_of`.
        error: error of a method on validation users, which the fine-tuned twin minimises.
        measure: name of the error.

    Returns:
        Methods by name, in the order of the table.
    """
    tuned, chosen = _fine_tune(twin_experiment, twin, reporter, budget.fine_tuning, error, measure)
    networks = closed_form(twin_experiment) | {
        STRANGER: not_adapting(twin_experiment.model, twin),
        TWIN: adapting(twin_experiment.model, twin),
        TUNED: tuned,
        BEFORE: not_adapting(experiment.model, trainable),
        META: adapting(experiment.model, trainable),
    }
    return {
        name: Method(function, chosen if name == TUNED else {}, DEFINITIONS[name])
        for name, function in networks.items()
    }


def closed_form(experiment: Experiment) -> dict[str, Function]:
    """The closed form alone, by its name; nothing where the experiment has no item factors.

    Args:
        experiment: experiment without an inner loop (`without_inner_loop`).

    Returns:
        The method by name.
    """
    return {CLOSED: adapting(experiment.model, untrained(experiment))} if experiment.config.has_factors else {}


def untrained(experiment: Experiment) -> Trainable:
    """Parameters before training: the outputs of the network are zero, so that predictions are those of the prior."""
    config, key = experiment.config, jax.random.key(experiment.config.seed)
    return init_trainable(config, experiment.model, experiment.catalogue, experiment.training_user_table, key)


def _rules(experiment: Experiment, budget: Budget) -> Sequence[Baseline]:
    scale, train = experiment.catalogue.scale.standardised(), experiment.train.source
    found = (train[i] for i in range(train.batches)), list(batches_of(experiment.validation))
    if scale.kind == "click":
        return fit_click_baselines(*found, budget=budget)
    return fit_baselines(
        *found,
        low=scale.low,
        high=scale.high,
        levels=scale.levels,
        items=experiment.catalogue.embeddings,
        known=experiment.catalogue.statistics.count > 0,
        budget=budget,
    )


def predictions_of(model: Model) -> Callable[[Trainable, Tables, Episodes], Predictions]:
    """A function that adapts to the support of every user and predicts the query; not compiled."""

    def predictions(trainable: Trainable, tables: Tables, episodes: Episodes) -> Predictions:
        outputs = predict(model, trainable, model.prepare(trainable.theta, tables), episodes)
        users, query, classes = outputs.shape
        flat = outputs.reshape(users * query, classes)
        mean, point = (f(flat).reshape(users, query) for f in (model.head.mean, model.head.point))
        above = None if model.head.above is None else model.head.above(flat).reshape(users, query, -1)
        return Predictions(point=point, mean=mean, score=mean, above=above)

    return predictions


@functools.lru_cache(maxsize=8)
def _predictor(model: Model) -> Callable[[Trainable, Tables, Episodes], Predictions]:
    """`predictions_of` a model, compiled once per shape of the episodes; seeds share it."""
    compiled = jax.jit(predictions_of(model))
    return lambda trainable, tables, episodes: jax.tree.map(np.asarray, compiled(trainable, tables, episodes))


def adapting(model: Model, trainable: Trainable) -> Function:
    """A method that adapts to each user's support, then predicts the query.

    Args:
        model: the functions.
        trainable: their parameters.

    Returns:
        (tables, episodes) -> predictions.
    """
    return _bound(_predictor(model), trainable)


def not_adapting(model: Model, trainable: Trainable) -> Function:
    """A method that predicts the query from an empty support, as for a user without any rating.

    Args:
        model: the functions.
        trainable: their parameters.

    Returns:
        (tables, episodes) -> predictions.
    """
    method = adapting(model, trainable)
    return lambda tables, episodes: method(tables, _without_support(episodes))


def _bound(predictor: Callable[[Trainable, Tables, Episodes], Predictions], trainable: Trainable) -> Function:
    without = trainable._replace(encoder=None)  # the tables hold its embeddings
    return lambda tables, episodes: predictor(without, tables, episodes)


def _without_support(episodes: Episodes) -> Episodes:
    return episodes._replace(support=jax.tree.map(np.zeros_like, episodes.support))


def _fine_tune(
    experiment: Experiment,
    twin: Trainable,
    reporter: Reporter,
    candidates: Sequence[tuple[int, float]],
    error_of: Callable[[Function], float],
    measure: str,
) -> tuple[Function, dict[str, float]]:
    """The twin, fine-tuned with the steps and rate of the least error; `experiment` is the twin's."""
    model = experiment.model
    adapted, _ = partition(twin.theta, model.adapted)
    best: tuple[float, Function, dict[str, float]] | None = None
    with reporter.bar("fine-tuning the twin", len(candidates)) as advance:
        for steps, tries in itertools.groupby(candidates, key=lambda choice: choice[0]):
            plain = UpdaterConfig(steps=steps, learn_rate="layer", adapted=model.adapted)
            descending = make_model(dataclasses.replace(experiment.config, updater=plain), experiment.catalogue.scale)
            predictor = _predictor(descending)
            for _, rate in tries:
                # The rate is an argument of the compiled function, so that trying another compiles nothing.
                phi = {"log_rate": jax.tree.map(lambda _, r=rate: jnp.full((1,), math.log(r)), adapted)}
                method = _bound(predictor, twin._replace(phi=phi))
                error = error_of(method)
                if best is None or error < best[0]:
                    best = (error, method, {"steps": float(steps), "rate": rate})
                advance(candidates.index((steps, rate)) + 1, f"validation {measure} {best[0]:.4f}")
    assert best is not None
    return best[1], best[2]


def _validation_error(experiment: Experiment, method: Function) -> float:
    """MAE on validation users; infinite where the method diverges."""
    try:
        result = judge(experiment, experiment.validation, "fine-tuning", method, metrics=("mae",))
    except MetarecError:
        return math.inf
    return compute(sums(result.values))["mae"]


def batches_of(part: Part[TaskSource]) -> Iterator[Episodes]:
    """All batches of a part."""
    return (part.source[i] for i in range(len(part.source)))
