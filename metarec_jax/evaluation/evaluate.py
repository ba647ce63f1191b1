"""Evaluation of a config over seeds: the meta-learned model against baselines and against its twin.

For each seed the data is divided as the protocol says, the model and its twin (the same network without an inner loop)
are trained on the training rows, and every method (`metarec_jax.evaluation.methods`) predicts the query rows of every
scenario. Tables, cohorts and plots are functions of these predictions (`metarec_jax.evaluation.write_results`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarec_jax.config.json_io import to_json
from metarec_jax.config.paths import absolute
from metarec_jax.config.run import Config
from metarec_jax.core import locks
from metarec_jax.core.atomic_files import make_folder, remove_leftovers
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.compile_cache import released_programs
from metarec_jax.core.errors import MetarecError, Stopped
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.data.fingerprint import fingerprint
from metarec_jax.evaluation import list_record
from metarec_jax.evaluation import predictions_table as record
from metarec_jax.evaluation.budget import FULL, Budget
from metarec_jax.evaluation.list_answers import answer_lists
from metarec_jax.evaluation.list_record import SeedLists
from metarec_jax.evaluation.list_results import publish_lists
from metarec_jax.evaluation.methods import BEFORE, META, TWINS, methods_of, without_inner_loop
from metarec_jax.evaluation.predictions_table import Answers, SeedAnswers, ask, questions_of
from metarec_jax.evaluation.table import Table
from metarec_jax.evaluation.write_results import publish
from metarec_jax.meta.model import Trainable
from metarec_jax.train import card, run_folder, warm_start
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train.build import build, resolve
from metarec_jax.train.embed import with_trained_encoder
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.model import make_model
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.run_folder import Run
from metarec_jax.train.start import fit

ANSWERS = "answers.parquet"
"""File in the folder of a seed with the predictions of all methods."""
LOCK = ".evaluate.lock"
"""File that is locked in the folder of an evaluation, which may be that of a run that another process trains, and in
that of each seed."""


def evaluate(
    config: Config,
    *,
    seeds: Sequence[int],
    folder: Path,
    run: Run | None = None,
    metrics: str = "own",
    budget: Budget = FULL,
    data: Interactions | None = None,
    reporter: Reporter = QUIET,
) -> dict[str, Table]:
    """Train and evaluate a config with several seeds, and write tables and plots.

    The runs and predictions of each seed are kept in the folder, so that an evaluation that was interrupted continues
    where it stopped. Tables and plots are written to ``folder/tables`` and ``folder/plots``. The model card of a
    run that is evaluated in its own folder is written again.

    Args:
        config: config of the model; its seed is replaced by each of `seeds`.
        seeds: seeds; each has its own division, training and test.
        folder: folder of the evaluation.
        run: a finished run, used for the seed of its config.
        metrics: name of a set of metrics, one of `metarec_jax.evaluation.metric_sets.MODES`.
        budget: candidates that are tried on validation users, and resamples of test users.
        data: interactions; None loads what ``config.data`` names.
        reporter: shows progress.

    Returns:
        The table of each scenario, by its name.

    Raises:
        MetarecError: the folder holds an evaluation with other options, the run has other options, or training starts
            from the parameters of another run.
    """
    warm_start.refuse(config, "evaluated")
    folder = make_folder(folder.resolve())
    with locks.hold(folder / LOCK, f"the evaluation in {path_argument(folder)}"):
        found = answer_seeds(
            config, seeds=seeds, folder=folder, run=run, metrics=metrics, budget=budget, data=data, reporter=reporter
        )
        lists = [answers for answers in found if isinstance(answers, SeedLists)]
        others = [answers for answers in found if isinstance(answers, SeedAnswers)]
        tables = publish_lists(lists, folder, budget) if lists else publish(others, folder, metrics, budget)
        if run is not None and folder == run.folder:
            card.write(run)
        return tables


def answer_seeds(
    config: Config,
    *,
    seeds: Sequence[int],
    folder: Path,
    run: Run | None = None,
    metrics: str = "own",
    budget: Budget = FULL,
    data: Interactions | None = None,
    reporter: Reporter = QUIET,
) -> list[SeedAnswers | SeedLists]:
    """Train and judge with several seeds, without tables. Processes may do this for different seeds of one folder.

    Args:
        config, folder, run, metrics, budget, data, reporter: as for `evaluate`.
        seeds: seeds of this process.

    Returns:
        The results of each seed, as of `answer_seed`, which are kept in the folder.

    Raises:
        MetarecError: as for `evaluate`, or another process works on one of the seeds.
    """
    warm_start.refuse(config, "evaluated")
    config, folder = absolute(config), make_folder(folder.resolve())
    found = []
    for seed in seeds:
        seeded = dataclasses.replace(config, seed=seed)
        given = run if run and run.config.seed == seed else None
        of_seed = make_folder(folder / f"seed-{seed}")
        held = locks.hold(of_seed / LOCK, f"seed {seed} of the evaluation in {path_argument(folder)}")
        with held, released_programs():
            found.append(
                answer_seed(seeded, of_seed, given, metrics=metrics, budget=budget, data=data, reporter=reporter)
            )
    return found


def answer_seed(
    config: Config,
    folder: Path,
    run: Run | None = None,
    *,
    metrics: str = "own",
    budget: Budget = FULL,
    data: Interactions | None = None,
    reporter: Reporter = QUIET,
) -> SeedAnswers | SeedLists:
    """Train the model and its twin with one seed, and judge every method in every scenario.

    Args:
        config: config of the model, with the seed.
        folder: folder of the seed; results that it holds already are not computed again.
        run: a finished run of this seed.
        metrics, budget, data, reporter: as for `evaluate`.

    Returns:
        The predictions of all methods for the query rows, or the metrics of their lists where the protocol asks for
        lists; and settings that were chosen for them.

    Raises:
        MetarecError: the folder, or the run, has other options; or lists cannot be judged by `metrics`.
    """
    remove_leftovers(make_folder(folder))
    # A run that was trained further since has other parameters, and more lines of metrics.
    given = to_json(run.config) + json.dumps(list(run.read_metrics())) if run else ""
    digest = hashlib.sha256((to_json(config) + given).encode()).hexdigest()
    for known in (record.load(folder / ANSWERS), list_record.load(folder / list_record.LISTS)):
        if known is not None and known.about["digest"] == digest:
            return known
    experiment = build(config, data=data, reporter=reporter)
    config = experiment.config
    if experiment.division.candidates is not None and metrics != "own":
        raise MetarecError(
            f"protocol {config.split.kind} judges lists over the whole catalogue, and --metrics {metrics} predicted "
            "ratings: leave out --metrics"
        )
    if run and data is None:
        run.check_inputs(experiment.inputs())
    if run and resolve(run.config, experiment.data) != config:
        raise MetarecError(f"{run.folder} was trained with other options than are asked for now: give its own config")
    trainable = (
        load_trainable(run, experiment.catalogue, experiment.encoder.params)
        if run
        else _trained(config, folder / "meta", experiment, reporter)
    )
    twin_config = without_inner_loop(config)
    twin_experiment = dataclasses.replace(
        experiment, config=twin_config, model=make_model(twin_config, experiment.catalogue.scale)
    )
    twin = _trained(twin_config, folder / "twin", twin_experiment, reporter)
    # If the encoder was trained, the model and the twin each read embeddings of their own encoder.
    twin_experiment = with_trained_encoder(twin_experiment, twin, reporter)
    own = with_trained_encoder(experiment, trainable, reporter)
    about = {"digest": digest, **about_of(experiment)}
    if experiment.division.candidates is not None:
        lists = answer_lists(experiment, own, twin_experiment, trainable, twin, about, budget, reporter)
        list_record.save(lists, folder / list_record.LISTS)
        return lists
    found = _answers(experiment, own, twin_experiment, trainable, twin, about, budget, reporter)
    record.save(found, folder / ANSWERS)
    return found


def about_of(experiment: Experiment) -> dict[str, Any]:
    """What the record of a seed says of its experiment, as a JSON tree."""
    return {
        "seed": experiment.config.seed,
        "data": fingerprint(experiment.data),
        "source": experiment.data.source,
        "kind": experiment.config.split.kind,
        "protocol": experiment.division.description,
        "scenarios": {
            s.name: {"definition": s.definition, "held_out": s.held_out} for s in experiment.division.scenarios
        },
    }


def _answers(
    experiment: Experiment,
    own: Experiment,
    twin_experiment: Experiment,
    trainable: Trainable,
    twin: Trainable,
    about: Mapping[str, Any],
    budget: Budget,
    reporter: Reporter,
) -> SeedAnswers:
    """Predictions of all methods in all scenarios; networks read the embeddings of their own experiment."""
    methods = methods_of(experiment, trainable, twin_experiment, twin, reporter, budget)
    whose = {META: own, BEFORE: own} | dict.fromkeys(TWINS, twin_experiment)
    scenarios: dict[str, Answers] = {}
    with reporter.bar("answering", len(experiment.tests)) as advance:
        for scenario, part in experiment.tests.items():
            scenarios[scenario] = Answers(
                questions_of(experiment.data, part.source, experiment.catalogue.statistics),
                {
                    name: ask(whose.get(name, experiment).tests[scenario], method.function, experiment.catalogue.scale)
                    for name, method in methods.items()
                },
            )
            advance(len(scenarios), scenario)
    said = {
        "scale": experiment.catalogue.scale._asdict(),
        "settings": {name: method.settings for name, method in methods.items()},
        "definitions": {name: method.definition for name, method in methods.items()},
    }
    return SeedAnswers(scenarios, {**about, **said})


def _trained(config: Config, folder: Path, experiment: Experiment, reporter: Reporter) -> Trainable:
    """The best parameters of the run in a folder, which is trained to its end where it is not yet.

    Raises:
        MetarecError: the folder holds a run of another config.
        Stopped: a signal stopped the training.
    """
    if (folder / "config.json").exists():
        run = run_folder.open_run(folder)
        if run.config != config:
            raise MetarecError(
                f"{folder} holds a run with other options than are asked for now: name another --out, or delete it"
            )
    else:
        run = run_folder.create(folder, config, fill=lambda run: catalogues.save(experiment.catalogue, run))
    fitted = fit(run, experiment, reporter=reporter)
    if fitted.signal:
        raise Stopped(fitted.signal)
    return fitted.trainable
