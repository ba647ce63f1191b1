"""A training small enough to be stopped and repeated many times.

As a script, a training that can be killed from outside:

    python training.py FOLDER PAUSE

trains (on) in FOLDER, says on stdout where it is, and after each step waits PAUSE seconds, or for a line on stdin where
PAUSE is "-".
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from helpers import random_interactions
from safetensors.numpy import load_file

from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.types import Interactions, Tables
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.protocols import divide
from metarec_jax.data.splits import row_statistics
from metarec_jax.data.tasks import Tasks, TaskSource
from metarec_jax.encoder import random_encoder
from metarec_jax.factors.item_factors import NOTHING_KNOWN
from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.meta.outer import TrainState
from metarec_jax.train import run_folder
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.checkpoints import Checkpoints, Progress
from metarec_jax.train.experiment import Experiment, Part
from metarec_jax.train.model import make_model
from metarec_jax.train.run_folder import Run
from metarec_jax.train.start import fit
from metarec_jax.train.state import first_state

TIMES = ("users_per_second", "seconds")
"""Entries of a line of metrics that differ between equal trainings."""
STEPS = 4
"""Outer steps of an epoch of `small_experiment`."""


def small_config(*, buckets: tuple[int, ...] = (8,), **changes: Any) -> Config:
    """Four epochs of four steps, in which everything that a resumed training could get wrong takes part.

    Dropout draws from the key, the updater's rates are learned, the outer rate changes every step.

    Args:
        buckets: support lengths.
        **changes: fields of `TrainConfig`.
    """
    return Config(
        data=DataConfig(source="synthetic"),
        episodes=EpisodeConfig(min_ratings=8, query=4, max_ratings=12, buckets=buckets, validation=0.2, test=0.2),
        encoder=EncoderConfig(path="random"),
        factors=FactorsConfig(rank=2),
        learner=LearnerConfig(hidden=4, head="rating", dropout=0.25, user_side="none"),
        updater=UpdaterConfig(steps=2, rate=0.1),
        train=TrainConfig(**{"epochs": 4, "users_per_step": 8, "rate": 1e-2, "patience": 0, "devices": 1} | changes),
    )


def small_experiment(config: Config) -> Experiment:
    """The parts of a run of 44 users, without an encoder: embeddings, and item factors that are trained, are drawn."""
    rng = np.random.default_rng(config.seed)
    data = random_interactions(rng, users=44, items=20, least=8, most=12)
    division = divide(data, config, config.seed)
    tables = Tables(items=rng.normal(size=(20, 3)).astype(np.float32), users=np.zeros((44, 0), np.float32))
    statistics, beliefs = row_statistics(data, division.train), None
    if config.factors.train:
        rank = config.factors.rank
        drawn = [rng.uniform(2, 4, 20), rng.uniform(0.2, 0.5, 20), *rng.normal(size=(rank, 20))]
        table, of_new = np.stack(drawn, axis=1).astype(np.float32), np.ones((1, 2 + rank), np.float32)
        beliefs = dataclasses.replace(NOTHING_KNOWN, table=table, of_new=of_new, tastes=no_tastes(rank, 0))
        statistics = statistics._replace(beliefs=table)
    catalogue = Catalogue(data.items, statistics, tables.items, data.scale, beliefs)
    trained = np.isin(np.arange(len(data)), division.train)

    def asked(tasks: Tasks) -> Part[TaskSource]:
        return Part(TaskSource(data, tasks, statistics, trained, config.episodes.buckets, 16), tables)

    loop = EpisodeSource(
        histories(data, division.train_users),
        config.episodes,
        statistics,
        True,
        config.train.users_per_step,
        config.seed,
        config.train.epochs,
    )
    return Experiment(
        config,
        data,
        division,
        catalogue,
        make_model(config, catalogue.scale),
        train=Part(loop, tables),
        validation=asked(division.validation),
        tests={scenario.name: asked(scenario.tasks) for scenario in division.scenarios},
        encoder=random_encoder(),
    )


class Watch:
    """A reporter that calls `on_step` with the number of a step done, and `on_epoch` with that of an epoch done."""

    def __init__(self, on_step: Callable[[int], None] | None = None, on_epoch: Callable[[int], None] | None = None):
        self._on_step, self._on_epoch = on_step or (lambda step: None), on_epoch or (lambda epoch: None)
        self.notes: list[str] = []
        self.bars: list[str] = []

    def note(self, text: str) -> None:
        """Remembers the note, and looks whether it is of an epoch."""
        self.notes.append(text)
        if text.startswith("epoch "):
            self._on_epoch(int(text.split()[1].rstrip(":")))

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[..., None]]:
        """Remembers its label; the loop has one bar."""
        self.bars.append(label)
        yield lambda done, text="": self._on_step(done)


def write_table(data: Interactions, path: Path) -> None:
    """Write the interactions of a data set as a CSV file for the source "table"."""
    columns = (data.user, data.item, data.scale.decimal(data.rating), data.time)
    rows = [f"{data.users.ids[u]},{data.items.ids[i]},{rating},{time}" for u, i, rating, time in zip(*columns)]
    path.write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]) + "\n", encoding="utf-8")


def stopping_at(step: int, number: int = signal.SIGTERM) -> Watch:
    """A reporter that sends a signal when `step` has been looked at, at which time the next is under way."""
    return Watch(on_step=lambda done: signal.raise_signal(number) if done == step else None)


class Trace(NamedTuple):
    """What a training leaves in its run folder: checkpoints by step, metrics without speed, best parameters by name."""

    states: dict[int, Any]
    progress: dict[int, Progress]
    metrics: list[dict[str, Any]]
    parameters: dict[str, np.ndarray]


def trace_of(run: Run, experiment: Experiment, *, like: TrainState | None = None) -> Trace:
    """Read what a training left in its run folder.

    Args:
        run: the run folder.
        experiment: what was trained on.
        like: a state of the shapes that were trained; None takes those of the experiment's model.
    """
    like = first_state(experiment, len(experiment.train.source)) if like is None else like
    like = jax.device_put(like, jax.devices()[0])
    steps = sorted(int(path.name) for path in run.checkpoints.iterdir() if path.name.isdigit())
    with Checkpoints(run.checkpoints, tidy=False) as checkpoints:
        states = {step: jax.device_get(_plain(checkpoints.load(like, step))) for step in steps}
        progress = {step: checkpoints.progress(step) for step in steps}
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    return Trace(states, progress, metrics, load_file(run.parameters) if run.parameters.exists() else {})


def _plain(state: TrainState) -> TrainState:
    return state._replace(key=jax.random.key_data(state.key))


def main(folder: Path, pause: str) -> None:
    """Trains in `folder`."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)  # as in the process that the result is compared with

    def wait(step: int) -> None:
        print("step", step, flush=True)
        if pause == "-":
            sys.stdin.readline()
        else:
            time.sleep(float(pause))

    config = small_config()
    run = run_folder.open_run(folder) if (folder / "config.json").exists() else run_folder.create(folder, config)
    watch = Watch(wait, lambda epoch: print("epoch", epoch, flush=True))
    fitted = fit(run, small_experiment(config), reporter=watch)
    print("interrupted" if fitted.interrupted else "finished", fitted.progress.step, fitted.signal, flush=True)


def changed(config: Config, **train_changes: Any) -> Config:
    """`config` with other fields of its `TrainConfig`."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train_changes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
