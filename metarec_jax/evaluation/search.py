"""Options that are searched for: trials of a config, judged on validation users alone, by optuna.

A trial trains a run and is worth what that run does on validation users; test users' ratings are never looked at. The
study is a journal on disk (lines of JSON), so that a search that was stopped goes on where it was, and one that is
asked for more trials learns from those before.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config, from_json
from metarec_jax.core.atomic_files import make_folder, write_text
from metarec_jax.core.errors import MetarecError, Stopped
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.train import run_folder, warm_start
from metarec_jax.train.build import build, resolve
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.model import make_model
from metarec_jax.train.start import fit

if TYPE_CHECKING:
    import optuna

LOSS = "loss"
"""The metric that training stops by: the query loss."""
SPACE: Mapping[str, Any] = {
    "train.rate": {"low": 5e-4, "high": 2e-2, "log": True},
    "train.weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
    "train.users_per_step": [16, 32, 64],
    "learner.hidden": [32, 64, 128, 256],
    "learner.dropout": {"low": 0.0, "high": 0.5},
    "updater.rate": {"low": 0.05, "high": 3.0, "log": True},
    "updater.steps": [1, 3, 5],
}
"""What is searched where nothing else is asked for."""
_CHEAP = ("learner", "updater", "train")
"""Sections that a trial can change without reading, encoding and cutting anew, but for some fields."""
_DEAR = ("learner.user_side", "learner.prior", "learner.kind", "learner.head")


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a search led to.

    Attributes:
        config: the best.
        value: its metric, on validation users.
        trials: of every finished trial, its number, value and options, best first.
    """

    config: Config
    value: float
    trials: list[tuple[int, float, dict[str, Any]]]


def read_space(tree: Mapping[str, Any], base: Config) -> dict[str, Any]:
    """A checked search space: "section.option" to a list of values, or {"low", "high"} with "log" or not.

    Raises:
        MetarecError: no such option, or a range that is none.
    """
    if not isinstance(tree, Mapping) or not tree:
        raise MetarecError('a search space is a JSON object such as {"train.rate": {"low": 0.001, "high": 0.01}}')
    for name, choice in tree.items():
        kind = _type_of(name, base)
        if isinstance(choice, list) and choice:
            for value in choice:
                with_options(base, {name: value})
            continue
        bounds = {"low", "high"}
        if not isinstance(choice, Mapping) or not bounds <= set(choice) <= bounds | {"log"} or kind not in (int, float):
            raise MetarecError(
                f'{name} is {choice!r}; give a list of values, or for a number {{"low": A, "high": B}}, '
                'with "log": true where it is searched by orders of magnitude'
            )
        for bound in bounds:
            with_options(base, {name: choice[bound]})
        if not choice["low"] < choice["high"] or (choice.get("log") and choice["low"] <= 0):
            raise MetarecError(f"{name} is searched from {choice['low']} to {choice['high']}, which is no range")
    return dict(tree)


def with_options(base: Config, options: Mapping[str, Any]) -> Config:
    """`base` with some options, by "section.option".

    Raises:
        MetarecError: no such option, or an impossible value.
    """
    tree: dict[str, Any] = {}
    for name, value in options.items():
        section, _, field = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[field] = value
    return from_json(json.dumps(tree), where="the search space", base=base)


def tune(
    base: Config,
    folder: Path,
    *,
    trials: int,
    space: Mapping[str, Any] = SPACE,
    metric: str = LOSS,
    reporter: Reporter = QUIET,
) -> Tuned:
    """Searches until there are `trials` finished trials in `folder`, of this and of earlier calls.

    Args:
        base: what a trial changes; its seed is that of the division, of training and of the search.
        folder: of the study; one that was begun is gone on with.
        trials: how many.
        space: from `read_space`.
        metric: `LOSS`, or a metric of `metarec_jax.metrics.metrics`, on validation users.
        reporter: where progress is shown.

    Raises:
        MetarecError: `folder` holds a search of something else, optuna is not installed, or no trial could be trained.
    """
    warm_start.refuse(base, "tuned")
    optuna = _optuna()
    lower = _lower_is_better(metric)
    _same_search(folder, {"base": dataclasses.asdict(base), "space": space, "metric": metric})
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(journal),
        study_name="tuning",
        direction="minimize" if lower else "maximize",
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # the search was killed during it
    done = len(_finished(study))
    # A search that goes on must not draw again what it drew before, so the seed goes on with it.
    study.sampler = optuna.samplers.TPESampler(
        seed=1000 * base.seed + done, n_startup_trials=max(min(10, trials // 3), 1)
    )
    start = _options_of(base, space)
    waiting = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
    if not done and not any(trial.system_attrs.get("fixed_params") == start for trial in waiting):
        study.enqueue_trial(start)  # what there is already, to be beaten
    experiment = build(base, reporter=reporter)
    failed = 0
    with reporter.bar("tuning", trials) as advance:
        while done < trials and failed < trials:
            trial = study.ask()
            options = {name: _suggest(trial, name, choice, base) for name, choice in space.items()}
            try:
                config = with_options(base, options)
                value = _worth(config, experiment, folder / f"trial-{trial.number}", metric, reporter)
            except MetarecError as error:
                reporter.note(f"trial {trial.number}: {error}")
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                failed += 1
                continue
            study.tell(trial, value)
            done += 1
            advance(done, f"{metric} {value:.4f}, best {study.best_value:.4f}")
            reporter.note(f"trial {trial.number}: {metric} {value:.4f} (best {study.best_value:.4f})")
    finished = _finished(study)
    if not finished:
        raise MetarecError(f"none of {failed} trials could be trained: see what each said, and change the search space")
    found = sorted(
        ((t.number, float(t.value), dict(t.params)) for t in finished), key=lambda t: t[1], reverse=not lower
    )
    best = with_options(base, found[0][2])
    write_text(folder / "best.json", to_json(best))
    return Tuned(best, found[0][1], found)


def _worth(config: Config, experiment: Experiment, folder: Path, metric: str, reporter: Reporter) -> float:
    """What a config does on validation users. Nothing is kept of the run: its config is in the study."""
    from metarec_jax.evaluation.methods import adapting
    from metarec_jax.evaluation.per_user import judge
    from metarec_jax.metrics.metrics import compute, sums

    own = varied(experiment, config, reporter)
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was cut short
    try:
        fitted = fit(run_folder.create(folder, own.config), own)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if fitted.signal:
        raise Stopped(fitted.signal)
    if metric == LOSS:
        return fitted.progress.best_loss
    result = judge(own, own.validation, "the trial", adapting(own.model, fitted.trainable), metrics=(metric,))
    return compute(sums(result.values))[metric]


def varied(experiment: Experiment, config: Config, reporter: Reporter = QUIET) -> Experiment:
    """What `config` assembles to, with all that it has in common with `experiment` taken from there."""
    config = resolve(config, experiment.data)

    def dear(of: Config) -> list[Any]:
        sections = {f.name: getattr(of, f.name) for f in dataclasses.fields(of) if f.name not in _CHEAP}
        return [sections, *(getattr(getattr(of, s), f) for s, f in (name.split(".") for name in _DEAR))]

    if dear(config) != dear(experiment.config):
        return build(config, reporter=reporter)
    batches = {"users_per_batch": config.train.users_per_step, "epochs": config.train.epochs}
    source = dataclasses.replace(experiment.train.source, **batches)
    return dataclasses.replace(
        experiment,
        config=config,
        model=make_model(config, experiment.catalogue.scale),
        train=dataclasses.replace(experiment.train, source=source),
    )


def _suggest(trial: optuna.Trial, name: str, choice: Any, base: Config) -> Any:
    if isinstance(choice, list):
        return trial.suggest_categorical(name, choice)
    draw = trial.suggest_int if _type_of(name, base) is int else trial.suggest_float
    return draw(name, choice["low"], choice["high"], log=bool(choice.get("log")))


def _options_of(base: Config, space: Mapping[str, Any]) -> dict[str, Any]:
    """The base's own values, where the search could have drawn them."""
    found = {}
    for name, choice in space.items():
        value = base
        for part in name.split("."):
            value = getattr(value, part)
        if value in choice if isinstance(choice, list) else choice["low"] <= value <= choice["high"]:
            found[name] = value
    return found


def _type_of(name: str, base: Config) -> Any:
    at: Any = base
    *sections, field = name.split(".")
    for section in sections:
        at = getattr(at, section, None)
    hints = typing.get_type_hints(type(at)) if dataclasses.is_dataclass(at) else {}
    if field not in hints or dataclasses.is_dataclass(getattr(at, field)):
        raise MetarecError(f"there is no option {name!r} to search for; write it as in config.json, such as train.rate")
    return hints[field]


def _finished(study: optuna.Study) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _lower_is_better(name: str) -> bool:
    from metarec_jax.metrics.definitions import metric

    return name == LOSS or metric(name).better == "lower"


def _same_search(folder: Path, search: Mapping[str, Any]) -> None:
    """Keeps what is searched in `folder`, or sees that it is the same as before."""
    make_folder(folder)
    path, text = folder / "search.json", json.dumps(search, indent=2) + "\n"
    if path.exists() and path.read_text() != text:
        raise MetarecError(
            f"{folder} holds a search with other options, another space or another metric: name another --out"
        )
    write_text(path, text)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MetarecError("tuning needs optuna: pip install 'metarec_jax[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
