"""The comparison that every accuracy figure comes from: the meta-learned model beside rules, and beside its own twin.

For each seed, on the same test users: the rules of `metarec_jax.evaluation.baselines`; the *twin*, which is the same
network trained on the same users without an inner loop, as it is and fine-tuned on each user's support by gradient
descent; and the meta-learned model, before and after adapting. What must be chosen is chosen on validation users.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metarec_jax import catalogue as catalogues
from metarec_jax import config as configuration
from metarec_jax import runs
from metarec_jax.assembly import Assembly, Part, assemble, make_model, resolve, with_trained_encoder
from metarec_jax.config import Config, UpdaterConfig
from metarec_jax.environment import environment
from metarec_jax.errors import MetarecError, Stopped
from metarec_jax.evaluation import (
    Predictions,
    Relevance,
    compute,
    concatenate,
    evaluate_users,
    fit_baselines,
    global_auc,
    liked_scores,
    merge_scores,
    sums,
)
from metarec_jax.evaluation.baselines import Baseline
from metarec_jax.evaluation.metrics import UserValues
from metarec_jax.evaluation.report import SeedResult, Table, build_table, write_report
from metarec_jax.files import make_folder, write_text
from metarec_jax.meta.outer import predict
from metarec_jax.meta.partition import partition
from metarec_jax.meta.user import Model, Trainable
from metarec_jax.progress import QUIET, Reporter
from metarec_jax.runs import Run
from metarec_jax.train import fit, load_trainable
from metarec_jax.types import Episodes, Tables

META = "meta-learned"
BEFORE = "meta-learned, before adapting"
STRANGER = "twin, unadapted"
TWIN = "twin, user's bias only"
TUNED = "twin, fine-tuned"
BIAS = "item mean + user bias"
NEAREST = "item mean + user bias, nearest level"
RIDGE = "ridge per user, nearest level"

DEFINITIONS = {
    META: "the model, after adapting to each user's support",
    BEFORE: "the same parameters with an empty support: what is predicted for a stranger",
    STRANGER: "the same network trained without an inner loop, and shown no support: what it says to everyone",
    TWIN: "the twin, shown the support, of which it takes the user's bias and no more",
    TUNED: "the twin after gradient steps on each user's support; rate and steps chosen on validation users",
}

FINE_TUNING = tuple(itertools.product((1, 5, 20), (0.03, 0.1, 0.3, 1.0, 3.0)))
"""Steps and rates that fine-tuning chooses from."""

Method = Callable[[Tables, Episodes], Predictions]


def evaluate(
    config: Config,
    *,
    seeds: Sequence[int],
    folder: Path,
    run: Run | None = None,
    reporter: Reporter = QUIET,
) -> Table:
    """Trains what is missing, judges every method on the test users of every seed, and puts them in one table.

    Whatever a seed led to is kept in `folder`, so that an evaluation that was interrupted goes on where it was. The
    table and plots of it are written to ``folder/tables`` and ``folder/plots``.

    Args:
        config: of the model; its seed is replaced.
        seeds: one split, one training and one test each.
        folder: where runs of further seeds, twins and results go.
        run: a finished run, used for the seed of its config.
        reporter: where progress is shown.

    Raises:
        MetarecError: `folder` holds the beginnings of an evaluation with other options, or `run` has other options.
    """
    results: dict[str, list[SeedResult]] = {}
    definitions = dict(DEFINITIONS)
    for seed in seeds:
        seeded = dataclasses.replace(config, seed=seed)
        found, said = _seed(seeded, folder / f"seed-{seed}", run if run and run.config.seed == seed else None, reporter)
        definitions |= said
        for method, result in found.items():
            results.setdefault(method, []).append(result)
    clicks = config.data.kind == "click"
    table = build_table(
        results,
        title=f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
        protocol=protocol_of(config),
        references=tuple(name for name in (BIAS, NEAREST, RIDGE, STRANGER, TWIN, TUNED) if name in results),
        subject=META,
        definitions=definitions,
        relevance=_relevance(clicks),
    )
    _publish(table, results, folder)
    return table


def _publish(table: Table, results: dict[str, list[SeedResult]], folder: Path) -> None:
    """Writes the table as JSON and Markdown, and draws it."""
    from metarec_jax.evaluation import plots

    write_report(table, folder / "tables", environment())
    drawings = make_folder(folder / "plots")
    plots.save(plots.methods_figure(table), drawings / "methods.png")
    reference = BIAS if BIAS in results else TWIN
    errors = [np.concatenate([r.values["mae"].values for r in results[name]]) for name in (reference, META)]
    plots.save(plots.improvement_figure(*errors, names=(reference, META)), drawings / "improvement.png")


def protocol_of(config: Config) -> str:
    """The protocol in a sentence."""
    e = config.episodes
    most = f" to {e.max_ratings}" if e.max_ratings else " or more"
    query = f"{e.query} random items" if e.order == "random" else f"the {e.query} latest items"
    return (
        f"users with {e.min_ratings}{most} ratings, split at random into training, validation ({e.validation:.0%}) and "
        f"test ({e.test:.0%}) users; query = {query} of each user, support = the rest (at most {e.max_support})"
    )


def _seed(
    config: Config, folder: Path, run: Run | None, reporter: Reporter
) -> tuple[dict[str, SeedResult], dict[str, str]]:
    """Results of one seed by method, from `folder` where they are there already."""
    make_folder(folder)
    kept = folder / "results.json"
    # A run that was trained further since has other parameters, and more lines of metrics.
    given = configuration.to_json(run.config) + json.dumps(list(run.read_metrics())) if run else ""
    digest = hashlib.sha256((configuration.to_json(config) + given).encode()).hexdigest()
    found = _read_results(kept, digest)
    if found is not None:
        return found
    assembly = assemble(config, reporter=reporter)
    config = assembly.config
    if run and resolve(run.config, assembly.data) != config:
        raise MetarecError(f"{run.folder} was trained with other options than are asked for now: give its own config")
    trainable = (
        load_trainable(run, assembly.catalogue, assembly.encoder.params)
        if run
        else _trained(config, folder / "meta", assembly, reporter)
    )
    twin_config = without_inner_loop(config)
    twin_assembly = dataclasses.replace(
        assembly, config=twin_config, model=make_model(twin_config, assembly.catalogue.scale)
    )
    twin = _trained(twin_config, folder / "twin", twin_assembly, reporter)
    # Each with the embeddings of its own encoder, where that was trained.
    twin_assembly = with_trained_encoder(twin_assembly, twin, reporter)
    own = with_trained_encoder(assembly, trainable, reporter)
    methods, settings, definitions = _methods(assembly, trainable, twin_assembly, twin, reporter)
    tests = {META: own.test, BEFORE: own.test} | dict.fromkeys([STRANGER, TWIN, TUNED], twin_assembly.test)
    results = {
        name: judge(assembly, tests.get(name, assembly.test), name, method, settings.get(name, {}))
        for name, method in methods.items()
    }
    document = {
        "config": digest,
        "definitions": definitions,
        "results": {name: _to_json(result) for name, result in results.items()},
    }
    write_text(kept, json.dumps(document) + "\n")
    return results, definitions


def without_inner_loop(config: Config) -> Config:
    """The twin's config: the same in everything but inner steps, of which there are none.

    Without steps their order makes no difference, but for Reptile's: it moves adapted parameters by the way that the
    steps lead, and by nothing else.
    """
    return dataclasses.replace(config, updater=dataclasses.replace(config.updater, steps=0, order="second"))


def _trained(config: Config, folder: Path, assembly: Assembly, reporter: Reporter) -> Trainable:
    """The best parameters of the run in `folder`, which is trained, or trained on, if need be."""
    if (folder / "config.json").exists():
        run = runs.open_run(folder)
        if run.config != config:
            raise MetarecError(
                f"{folder} holds a run with other options than are asked for now: name another --out, or delete it"
            )
    else:
        run = runs.create(folder, config)
        catalogues.save(assembly.catalogue, run)
    fitted = fit(run, assembly, reporter=reporter)
    if fitted.interrupted:
        raise Stopped(fitted.signal or signal.SIGINT)
    return fitted.trainable


def _methods(
    assembly: Assembly, trainable: Trainable, twin_assembly: Assembly, twin: Trainable, reporter: Reporter
) -> tuple[dict[str, Method], dict[str, dict[str, float]], dict[str, str]]:
    """Every method by name, what was chosen for it, and what it is."""
    scale = assembly.catalogue.scale
    rules: Sequence[Baseline] = ()
    if scale.kind == "rating":
        train = assembly.train.source
        rules = fit_baselines(
            [train[i] for i in range(train.batches)],
            list(_batches(assembly.validation)),
            low=float(scale.low),
            high=float(scale.high),
            levels=tuple(map(float, scale.levels)),
            items=assembly.catalogue.embeddings,
        )
    methods: dict[str, Method] = {rule.name: lambda _, episodes, rule=rule: rule.predict(episodes) for rule in rules}
    settings = {rule.name: dict(rule.settings) for rule in rules}
    tuned, chosen = _fine_tune(twin_assembly, twin, reporter)
    methods |= {
        STRANGER: not_adapting(twin_assembly.model, twin),
        TWIN: adapting(twin_assembly.model, twin),
        TUNED: tuned,
        BEFORE: not_adapting(assembly.model, trainable),
        META: adapting(assembly.model, trainable),
    }
    return methods, settings | {TUNED: chosen}, {rule.name: rule.definition for rule in rules}


@functools.lru_cache(maxsize=8)
def _predictor(model: Model) -> Callable[[Trainable, Tables, Episodes], Predictions]:
    """Predictions of a model for a batch, compiled once a bucket, whatever the seed."""

    @jax.jit
    def compiled(trainable: Trainable, tables: Tables, episodes: Episodes) -> Predictions:
        outputs = predict(model, trainable, model.prepare(trainable.theta, tables), episodes)
        users, query, classes = outputs.shape
        flat = outputs.reshape(users * query, classes)
        mean, point = (f(flat).reshape(users, query) for f in (model.head.mean, model.head.point))
        return Predictions(point=point, mean=mean, score=mean)

    return lambda trainable, tables, episodes: Predictions(*map(np.asarray, compiled(trainable, tables, episodes)))


def adapting(model: Model, trainable: Trainable) -> Method:
    """The model as a method: it adapts to each user's support, then predicts the query."""
    return _bound(_predictor(model), trainable)


def not_adapting(model: Model, trainable: Trainable) -> Method:
    """The same parameters with an empty support: what the model predicts for a stranger."""
    method = adapting(model, trainable)
    return lambda tables, episodes: method(tables, _without_support(episodes))


def _bound(predictor: Callable[[Trainable, Tables, Episodes], Predictions], trainable: Trainable) -> Method:
    without = trainable._replace(encoder=None)  # which is in the tables
    return lambda tables, episodes: predictor(without, tables, episodes)


def _without_support(episodes: Episodes) -> Episodes:
    return episodes._replace(support=jax.tree.map(np.zeros_like, episodes.support))


def _fine_tune(assembly: Assembly, twin: Trainable, reporter: Reporter) -> tuple[Method, dict[str, float]]:
    """The twin with the steps and rate that do best on validation users, by MAE; `assembly` is the twin's."""
    model = assembly.model
    adapted, _ = partition(twin.theta, model.adapted)
    best: tuple[float, Method, dict[str, float]] | None = None
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


def _validation_error(assembly: Assembly, method: Method) -> float:
    """MAE on validation users; infinite where the method diverges."""
    try:
        result = judge(assembly, assembly.validation, "fine-tuning", method)
    except MetarecError:
        return math.inf
    return compute(sums(result.values))["mae"]


def judge(
    assembly: Assembly, part: Part, name: str, method: Method, settings: Mapping[str, float] | None = None
) -> SeedResult:
    """One method on the users of one part.

    Args:
        assembly: what the method was made from.
        part: whose users.
        name: what to call the method in an error.
        method: from (tables, episodes) to predictions.
        settings: what was chosen for it.
    """
    scale = assembly.catalogue.scale
    relevance = _relevance(scale.kind == "click")
    values, liked, users = [], [], []
    for episodes in _batches(part):
        predictions = method(part.tables, episodes)
        real = episodes.weight > 0
        users.append(part.source.users_of(episodes)[real])
        values.append(
            evaluate_users(
                Predictions(*(np.asarray(p)[real] for p in predictions)),
                jax.tree.map(lambda leaf, real=real: leaf[real], episodes.query),
                method=name,
                relevance=relevance,
                levels=tuple(map(float, scale.levels)),
            )
        )
        liked.append(liked_scores(predictions, episodes.query, weight=episodes.weight, relevance=relevance))
    return SeedResult(
        seed=assembly.config.seed,
        users=np.concatenate(users),
        values=concatenate(values),
        overall={"auc_global": global_auc(merge_scores(liked))},
        settings=settings or {},
    )


def _relevance(clicks: bool) -> Relevance:
    """Ratings: the 5 highest are the positives, and 4 or more is liked. Clicks: what was clicked is both."""
    return Relevance(top=0, liked=1.0) if clicks else Relevance()


def _batches(part: Part) -> Iterator[Episodes]:
    return (part.source[i] for i in range(len(part.source)))


def _read_results(path: Path, digest: str) -> tuple[dict[str, SeedResult], dict[str, str]] | None:
    """What `_seed` kept at `path`; None where that is nothing, of something else, or damaged: then it is made again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["config"] == digest:
            return {method: _from_json(result) for method, result in found["results"].items()}, found["definitions"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None


def _to_json(result: SeedResult) -> dict[str, Any]:
    return {
        "seed": result.seed,
        "users": result.users.tolist(),
        "values": {name: [v.values.tolist(), v.weights.tolist()] for name, v in result.values.items()},
        "overall": dict(result.overall),
        "settings": dict(result.settings),
    }


def _from_json(document: dict[str, Any]) -> SeedResult:
    return SeedResult(
        seed=document["seed"],
        users=np.array(document["users"]),
        values={name: UserValues(np.array(v), np.array(w)) for name, (v, w) in document["values"].items()},
        overall=document["overall"],
        settings=document["settings"],
    )
