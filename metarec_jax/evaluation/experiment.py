"""The comparison that every accuracy figure comes from: the meta-learned model beside rules, and beside its own twin.

For each seed the data is divided as the protocol says, model and twin are trained on the training rows, and every
method (`metarec_jax.evaluation.methods`) answers the questions of every scenario. Tables, cohorts and plots are then
functions of the answers (`metarec_jax.evaluation.write_results`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
from collections.abc import Sequence
from pathlib import Path

from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config
from metarec_jax.core.atomic_files import make_folder
from metarec_jax.core.errors import MetarecError, Stopped
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.evaluation import predictions_table as record
from metarec_jax.evaluation.methods import (
    BEFORE,
    BIAS,
    META,
    NEAREST,
    RIDGE,
    STRANGER,
    TUNED,
    TWIN,
    TWINS,
    adapting,
    methods_of,
    not_adapting,
    without_inner_loop,
)
from metarec_jax.evaluation.per_user import judge
from metarec_jax.evaluation.predictions_table import Answers, SeedAnswers, ask, questions_of
from metarec_jax.evaluation.report import Table
from metarec_jax.evaluation.write_results import publish
from metarec_jax.meta.user import Trainable
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder, warm_start
from metarec_jax.train.build import Assembly, assemble, make_model, resolve, with_trained_encoder
from metarec_jax.train.loop import fit, load_trainable
from metarec_jax.train.run_folder import Run

__all__ = [
    "BEFORE",
    "BIAS",
    "META",
    "NEAREST",
    "RIDGE",
    "STRANGER",
    "TUNED",
    "TWIN",
    "adapting",
    "evaluate",
    "judge",
    "not_adapting",
]

ANSWERS = "answers.parquet"
"""What is kept of a seed, in its folder."""


def evaluate(
    config: Config,
    *,
    seeds: Sequence[int],
    folder: Path,
    run: Run | None = None,
    metrics: str = "own",
    reporter: Reporter = QUIET,
) -> dict[str, Table]:
    """Trains what is missing, has every method answer every seed's questions, and puts them in a table a scenario.

    Whatever a seed led to is kept in `folder`, so that an evaluation that was interrupted goes on where it was. Tables
    and plots are written to ``folder/tables`` and ``folder/plots``.

    Args:
        config: of the model; its seed is replaced.
        seeds: one division, one training and one test each.
        folder: where runs of further seeds, twins and answers go.
        run: a finished run, used for the seed of its config.
        metrics: whose definitions of the metrics are used, see `metarec_jax.evaluation.metric_sets.MODES`.
        reporter: where progress is shown.

    Returns:
        The table of each scenario, by its name.

    Raises:
        MetarecError: `folder` holds the beginnings of an evaluation with other options, or `run` has other options; or
            the run began with what another one had learned.
    """
    warm_start.refuse(config, "evaluated")
    found = []
    for seed in seeds:
        seeded = dataclasses.replace(config, seed=seed)
        given = run if run and run.config.seed == seed else None
        found.append(_seed(seeded, folder / f"seed-{seed}", given, reporter))
    return publish(found, folder, metrics)


def _seed(config: Config, folder: Path, run: Run | None, reporter: Reporter) -> SeedAnswers:
    """Answers of one seed, from `folder` where they are there already."""
    make_folder(folder)
    # A run that was trained further since has other parameters, and more lines of metrics.
    given = to_json(run.config) + json.dumps(list(run.read_metrics())) if run else ""
    digest = hashlib.sha256((to_json(config) + given).encode()).hexdigest()
    found = record.load(folder / ANSWERS)
    if found is not None and found.about["digest"] == digest:
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
    found = _answers(assembly, own, twin_assembly, trainable, twin, digest, reporter)
    record.save(found, folder / ANSWERS)
    return found


def _answers(
    assembly: Assembly,
    own: Assembly,
    twin_assembly: Assembly,
    trainable: Trainable,
    twin: Trainable,
    digest: str,
    reporter: Reporter,
) -> SeedAnswers:
    """What all methods say in all scenarios; networks read the embeddings of their own assembly."""
    methods = methods_of(assembly, trainable, twin_assembly, twin, reporter)
    whose = {META: own, BEFORE: own} | dict.fromkeys(TWINS, twin_assembly)
    scenarios: dict[str, Answers] = {}
    with reporter.bar("answering", len(assembly.tests)) as advance:
        for scenario, part in assembly.tests.items():
            scenarios[scenario] = Answers(
                questions_of(assembly.data, part.source, assembly.catalogue.statistics),
                {
                    name: ask(whose.get(name, assembly).tests[scenario], method.function)
                    for name, method in methods.items()
                },
            )
            advance(len(scenarios), scenario)
    about = {
        "digest": digest,
        "seed": assembly.config.seed,
        "data": fingerprint(assembly.data),
        "source": assembly.data.source,
        "kind": assembly.config.split.kind,
        "protocol": assembly.division.description,
        "scenarios": {
            s.name: {"definition": s.definition, "held_out": s.held_out} for s in assembly.division.scenarios
        },
        "scale": assembly.catalogue.scale._asdict(),
        "settings": {name: method.settings for name, method in methods.items()},
        "definitions": {name: method.definition for name, method in methods.items()},
    }
    return SeedAnswers(scenarios, about)


def fingerprint(data: Interactions) -> str:
    """A digest of who gave which rating to what, and when."""
    digest = hashlib.sha256("\n".join((*data.users.ids, "", *data.items.ids)).encode())
    for column in (data.user, data.item, data.rating, data.time):
        digest.update(column.tobytes())
    return digest.hexdigest()


def _trained(config: Config, folder: Path, assembly: Assembly, reporter: Reporter) -> Trainable:
    """The best parameters of the run in `folder`, which is trained, or trained on, if need be."""
    if (folder / "config.json").exists():
        run = run_folder.open_run(folder)
        if run.config != config:
            raise MetarecError(
                f"{folder} holds a run with other options than are asked for now: name another --out, or delete it"
            )
    else:
        run = run_folder.create(folder, config)
        catalogues.save(assembly.catalogue, run)
    fitted = fit(run, assembly, reporter=reporter)
    if fitted.interrupted:
        raise Stopped(fitted.signal or signal.SIGINT)
    return fitted.trainable
