"""What is compared: the meta-learned model, its twins, and rules; each a function from episodes to predictions.

The *twin* is the same network trained on the same users without an inner loop, as it is and fine-tuned on each user's
support by gradient descent. What must be chosen is chosen on validation users.
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

from metarec_jax.config.run import Config, believes
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import partition
from metarec_jax.core.progress import Reporter
from metarec_jax.core.types import Episodes, Tables
from metarec_jax.data.tasks import TaskSource
from metarec_jax.evaluation.baselines import Baseline, fit_baselines, fit_click_baselines
from metarec_jax.evaluation.per_user import judge
from metarec_jax.meta.outer import predict
from metarec_jax.meta.user import Model, Trainable
from metarec_jax.metrics.metrics import compute, sums
from metarec_jax.metrics.predictions import Function, Predictions
from metarec_jax.train.build import Assembly, Part, make_model
from metarec_jax.train.model import init_trainable

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
    CLOSED: "the prior path alone: beliefs about items and each user's taste in closed form, without the network, and "
    "with nothing that the outer loop trained",
    META: "the model, after adapting to each user's support",
    BEFORE: "the same parameters with an empty support: what is predicted for a stranger",
    STRANGER: "the same network trained without an inner loop, and shown no support: what it says to everyone",
    TWIN: "the twin, shown the support: it takes from it what its prior path takes (the user's bias, or the taste in "
    "closed form), and what a learner reads that reads supports",
    TUNED: "the twin after gradient steps on each user's support; rate and steps chosen on validation users",
}

FINE_TUNING = tuple(itertools.product((1, 5, 20), (0.03, 0.1, 0.3, 1.0, 3.0)))
"""Steps and rates that fine-tuning chooses from."""


class Method(NamedTuple):
    """A row of the table: the function, constants that were chosen for it, and a line about it."""

    function: Function
    settings: dict[str, float]
    definition: str


def without_inner_loop(config: Config) -> Config:
    """The twin's config: the same in everything but inner steps, of which there are none.

    Without steps their order makes no difference, but for Reptile's: it moves adapted parameters by the way that the
    steps lead, and by nothing else.
    """
    return dataclasses.replace(config, updater=dataclasses.replace(config.updater, steps=0, order="second"))


def methods_of(
    assembly: Assembly, trainable: Trainable, twin_assembly: Assembly, twin: Trainable, reporter: Reporter
) -> dict[str, Method]:
    """Every method by name, in the order of the table."""
    found = {}
    for rule in _rules(assembly):

        def function(_: Tables, episodes: Episodes, rule: Baseline = rule) -> Predictions:
            return rule.predict(episodes)

        found[rule.name] = Method(function, dict(rule.settings), rule.definition)
    tuned, chosen = _fine_tune(twin_assembly, twin, reporter)
    closed = {CLOSED: adapting(twin_assembly.model, untrained(twin_assembly))} if believes(assembly.config) else {}
    networks = closed | {
        STRANGER: not_adapting(twin_assembly.model, twin),
        TWIN: adapting(twin_assembly.model, twin),
        TUNED: tuned,
        BEFORE: not_adapting(assembly.model, trainable),
        META: adapting(assembly.model, trainable),
    }
    for name, function in networks.items():
        found[name] = Method(function, chosen if name == TUNED else {}, DEFINITIONS[name])
    return found


def untrained(assembly: Assembly) -> Trainable:
    """Parameters before training, when the network's outputs are zero and the prior path is all there is."""
    config, key = assembly.config, jax.random.key(assembly.config.seed)
    return init_trainable(config, assembly.model, assembly.catalogue, assembly.training_user_table, key)


def _rules(assembly: Assembly) -> Sequence[Baseline]:
    scale, train = assembly.catalogue.scale, assembly.train.source
    found = [train[i] for i in range(train.batches)], list(batches_of(assembly.validation))
    if scale.kind == "click":
        return fit_click_baselines(*found)
    return fit_baselines(
        *found,
        low=float(scale.low),
        high=float(scale.high),
        levels=tuple(map(float, scale.levels)),
        items=assembly.catalogue.embeddings,
        known=assembly.catalogue.statistics.count > 0,
    )


def predictions_of(model: Model) -> Callable[[Trainable, Tables, Episodes], Predictions]:
    """Predictions of a model for a batch: what is compiled of an evaluation."""

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
    """`predictions_of` a model, compiled once a bucket, whatever the seed."""
    compiled = jax.jit(predictions_of(model))
    return lambda trainable, tables, episodes: jax.tree.map(np.asarray, compiled(trainable, tables, episodes))


def adapting(model: Model, trainable: Trainable) -> Function:
    """The model as a method: it adapts to each user's support, then predicts the query."""
    return _bound(_predictor(model), trainable)


def not_adapting(model: Model, trainable: Trainable) -> Function:
    """The same parameters with an empty support: what the model predicts for a stranger."""
    method = adapting(model, trainable)
    return lambda tables, episodes: method(tables, _without_support(episodes))


def _bound(predictor: Callable[[Trainable, Tables, Episodes], Predictions], trainable: Trainable) -> Function:
    without = trainable._replace(encoder=None)  # which is in the tables
    return lambda tables, episodes: predictor(without, tables, episodes)


def _without_support(episodes: Episodes) -> Episodes:
    return episodes._replace(support=jax.tree.map(np.zeros_like, episodes.support))


def _fine_tune(assembly: Assembly, twin: Trainable, reporter: Reporter) -> tuple[Function, dict[str, float]]:
    """The twin with the steps and rate that do best on validation users, by MAE; `assembly` is the twin's."""
    model = assembly.model
    adapted, _ = partition(twin.theta, model.adapted)
    best: tuple[float, Function, dict[str, float]] | None = None
    with reporter.bar("fine-tuning the twin", len(FINE_TUNING)) as advance:
        for steps, tries in itertools.groupby(FINE_TUNING, key=lambda choice: choice[0]):
            plain = UpdaterConfig(steps=steps, learn_rate="layer", adapted=model.adapted)
            descending = make_model(dataclasses.replace(assembly.config, updater=plain), assembly.catalogue.scale)
            predictor = _predictor(descending)
            for _, rate in tries:
                # The rate is an argument of the compiled function, so that trying another compiles nothing.
                phi = {"log_rate": jax.tree.map(lambda _, r=rate: jnp.full((1,), math.log(r)), adapted)}
                method = _bound(predictor, Trainable(twin.theta, phi))
                error = _validation_error(assembly, method)
                if best is None or error < best[0]:
                    best = (error, method, {"steps": float(steps), "rate": rate})
                advance(FINE_TUNING.index((steps, rate)) + 1, f"validation MAE {best[0]:.4f}")
    assert best is not None
    return best[1], best[2]


def _validation_error(assembly: Assembly, method: Function) -> float:
    """MAE on validation users; infinite where the method diverges."""
    try:
        result = judge(assembly, assembly.validation, "fine-tuning", method, metrics=("mae",))
    except MetarecError:
        return math.inf
    return compute(sums(result.values))["mae"]


def batches_of(part: Part[TaskSource]) -> Iterator[Episodes]:
    """The batches of a part."""
    return (part.source[i] for i in range(len(part.source)))
