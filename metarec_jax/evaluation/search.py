"""Search for options with optuna: trials of a config are compared on validation users alone.

A trial trains a run on each of several divisions, and its value is the mean of the runs' metric on validation users;
ratings of test users are never read. The study is a journal on disk (lines of JSON), from which a search that was
stopped, or is given more trials, continues.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarec_jax.config.json_io import to_json
from metarec_jax.config.paths import absolute
from metarec_jax.config.run import Config
from metarec_jax.core.atomic_files import explained, make_folder, system_error, write_text
from metarec_jax.core.checked_files import reading
from metarec_jax.core.compile_cache import released_programs
from metarec_jax.core.errors import MetarecError, Stopped
from metarec_jax.core.json_files import MOST_BYTES, parse_json
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.regular_files import read_regular
from metarec_jax.core.types import Interactions
from metarec_jax.evaluation.methods import adapting
from metarec_jax.evaluation.per_user import judge
from metarec_jax.evaluation.search_space import SPACE, options_of, suggest, with_options
from metarec_jax.metrics.metrics import compute, sums
from metarec_jax.metrics.metrics import metric as metric_of
from metarec_jax.train import run_folder, warm_start
from metarec_jax.train.build import build, resolve
from metarec_jax.train.encoder_options import resolve_encoder
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.model import make_model
from metarec_jax.train.start import fit

if TYPE_CHECKING:
    import optuna

LOSS = "loss"
"""The query loss, by which training chooses its best epoch."""
_REUSES_INPUTS = ("learner", "updater", "train")
"""Sections whose options, but for those below, leave data, embeddings and episodes as they are."""
_CHANGES_INPUTS = ("learner.user_side", "learner.prior", "learner.kind", "learner.head")

_REMEDY = "restore it from a copy, or begin a new search with another --out"

Objective = Callable[[Config, Path], float]
"""A config, and a folder that the trial may use -> its value."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        config: config of the best trial.
        value: value of the best trial.
        trials: number, value and options of every finished trial, the best first.
    """

    config: Config
    value: float
    trials: list[tuple[int, float, dict[str, Any]]]


def tune(
    base: Config,
    folder: Path,
    *,
    trials: int,
    space: Mapping[str, Any] = SPACE,
    metric: str = LOSS,
    seeds: int = 1,
    data: Interactions | None = None,
    reporter: Reporter = QUIET,
) -> Tuned:
    """Search until a folder holds `trials` finished trials, including those of earlier calls.

    Args:
        base: config that trials change; its seed is the seed of the search and of the first division and training.
        folder: folder of the study; a search that it holds already is continued.
        trials: number of finished trials.
        space: from `read_space`.
        metric: `LOSS`, or a metric of `metarec_jax.metrics.metrics`, on validation users.
        seeds: number of divisions that a trial trains on, with the seeds from that of `base`. All are held in memory.
        data: interactions; None loads what ``config.data`` names.
        reporter: shows progress.

    Returns:
        The best config, and all trials.

    Raises:
        MetarecError: the folder holds another search, optuna is not installed, or no trial could be trained.
    """
    warm_start.refuse(base, "tuned")
    base, folder = absolute(base), folder.resolve()
    with run_folder.hold(folder):
        study = open_study(base, folder, space, metric, seeds)
        experiments: list[Experiment] = []
        for number in range(seeds):
            encoder = experiments[0].encoder if experiments else None
            seeded = dataclasses.replace(base, seed=base.seed + number)
            experiments.append(build(seeded, data=data, encoder=encoder, reporter=reporter))

        def objective(config: Config, place: Path) -> float:
            values = []
            for number, experiment in enumerate(experiments):
                seeded = dataclasses.replace(config, seed=config.seed + number)
                changed = rebuild(experiment, seeded, data=data, reporter=reporter)
                values.append(validation_value(changed, place, metric))
                if seeds > 1:  # a line now and then, where trials take long
                    reporter.note(f"seed {seeded.seed}: {metric} {values[-1]:.4f}")
            return sum(values) / len(values)

        return run_trials(study, base, folder, objective, trials=trials, space=space, metric=metric, reporter=reporter)


def open_study(
    base: Config, folder: Path, space: Mapping[str, Any] = SPACE, metric: str = LOSS, seeds: int = 1
) -> optuna.Study:
    """Open the study in a folder, or create one whose first trial has the options of the config itself.

    Args:
        base: config that trials change.
        folder: folder of the study.
        space: search space, from `read_space`.
        metric, seeds: as for `tune`.

    Returns:
        The study.

    Raises:
        MetarecError: the folder holds another search, or optuna is not installed.
    """
    optuna = _optuna()
    lower = metric == LOSS or metric_of(metric).better == "lower"
    _same_search(folder, {"base": dataclasses.asdict(base), "space": space, "metric": metric, "seeds": seeds})
    path = folder / "study.log"
    with explained(folder), reading(path, _REMEDY):
        _repair(path)
    journal = optuna.storages.journal.JournalFileBackend(str(path))
    try:
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(journal),
            study_name="tuning",
            direction="minimize" if lower else "maximize",
            load_if_exists=True,
        )
    except Exception as error:  # optuna raises any kind of error about a line that it did not write
        if system_error(error) is not None:
            raise
        what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise MetarecError(f"{path} is damaged ({what}): {_REMEDY}") from error
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # the process was killed during this trial
    start = options_of(base, space)
    waiting = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
    if not _finished(study) and not any(trial.system_attrs.get("fixed_params") == start for trial in waiting):
        study.enqueue_trial(start)
    return study


def _repair(journal: Path) -> None:
    """Remove what a killed search left: the end of a line that was cut short, and optuna's own lock."""
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink()
    if os.path.lexists(journal):
        text = read_regular(journal, MOST_BYTES)
        os.truncate(journal, text.rfind(b"\n") + 1)
        for number, line in enumerate(text.splitlines()[: text.count(b"\n")], 1):
            if not isinstance(
                parse_json(line, where=f"{journal}, line {number}", remedy=_REMEDY, non_finite=True), dict
            ):
                raise ValueError(f"line {number} is no object")


def run_trials(
    study: optuna.Study,
    base: Config,
    folder: Path,
    objective: Objective,
    *,
    trials: int,
    space: Mapping[str, Any] = SPACE,
    metric: str = LOSS,
    reporter: Reporter = QUIET,
) -> Tuned:
    """Run trials of a study until `trials` are finished, and write the best config to ``best.json``.

    Args:
        study: from `open_study`.
        base, folder, trials, space, metric, reporter: as for `tune`.
        objective: (config, folder) -> value of a trial; a MetarecError fails only this trial.

    Returns:
        The best config, and all trials.

    Raises:
        MetarecError: no trial could be trained.
    """
    optuna = _optuna()
    done, failed = len(_finished(study)), 0
    # The seed depends on the trials that are done: a search that continues must not draw the same options again.
    study.sampler = optuna.samplers.TPESampler(
        seed=1000 * base.seed + done, n_startup_trials=max(min(10, trials // 3), 1)
    )
    with reporter.bar("tuning", trials) as advance:
        while done < trials and failed < trials:
            trial = study.ask()
            options = {name: suggest(trial, name, choice, base) for name, choice in space.items()}
            try:
                with released_programs():
                    value = objective(with_options(base, options), folder / f"trial-{trial.number}")
            except MetarecError as error:
                if isinstance(error.__cause__, OSError):
                    raise  # the disk is full, say: nothing that another trial would do better
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
        ((t.number, float(t.value), dict(t.params)) for t in finished),
        key=lambda t: t[1],
        reverse=study.direction.name == "MAXIMIZE",
    )
    best = with_options(base, found[0][2])
    write_text(folder / "best.json", to_json(best))
    return Tuned(best, found[0][1], found)


def validation_value(experiment: Experiment, folder: Path, metric: str = LOSS) -> float:
    """Train an experiment, and compute a metric on its validation users.

    Args:
        experiment: the experiment to train.
        folder: folder of the run, which is deleted afterwards; the study keeps the config.
        metric: as for `tune`.

    Returns:
        The metric.

    Raises:
        MetarecError: the training failed.
        Stopped: a signal stopped the training.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed
    try:
        fitted = fit(run_folder.create(folder, experiment.config), experiment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if fitted.signal:
        raise Stopped(fitted.signal)
    if metric == LOSS:
        return fitted.progress.best_loss
    method = adapting(experiment.model, fitted.trainable)
    result = judge(experiment, experiment.validation, "the trial", method, metrics=(metric,))
    return compute(sums(result.values))[metric]


def rebuild(
    experiment: Experiment, config: Config, *, data: Interactions | None = None, reporter: Reporter = QUIET
) -> Experiment:
    """Build the experiment of a changed config, and reuse the inputs of another one where the change allows it.

    Args:
        experiment: experiment of the config before the change.
        config: the changed config.
        data: interactions; None loads what ``config.data`` names.
        reporter: shows progress.

    Returns:
        The experiment of `config`.
    """
    config = resolve(config, experiment.data)
    config = dataclasses.replace(config, encoder=resolve_encoder(config.encoder, experiment.encoder))

    def inputs(of: Config) -> list[Any]:
        sections = {f.name: getattr(of, f.name) for f in dataclasses.fields(of) if f.name not in _REUSES_INPUTS}
        return [sections, *(getattr(getattr(of, s), f) for s, f in (name.split(".") for name in _CHANGES_INPUTS))]

    if inputs(config) != inputs(experiment.config):
        return build(config, data=data, reporter=reporter)
    batches = {"users_per_batch": config.train.users_per_step, "epochs": config.train.epochs}
    source = dataclasses.replace(experiment.train.source, **batches)
    return dataclasses.replace(
        experiment,
        config=config,
        model=make_model(config, experiment.catalogue.scale),
        train=dataclasses.replace(experiment.train, source=source),
    )


def _finished(study: optuna.Study) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _same_search(folder: Path, search: Mapping[str, Any]) -> None:
    """Write the definition of a search to a folder, or check that it equals the one in the folder.

    Raises:
        MetarecError: the folder holds another search.
    """
    make_folder(folder)
    path, text = folder / "search.json", json.dumps(search, indent=2) + "\n"
    if os.path.lexists(path):
        with reading(path, _REMEDY):
            before = read_regular(path, MOST_BYTES)
        if before != text.encode():
            raise MetarecError(
                f"{path} is of a search with other options, space, metric or number of seeds: name another --out"
            )
    write_text(path, text)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MetarecError("tuning needs optuna: pip install 'metarec_jax[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
