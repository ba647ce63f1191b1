"""Time the input pipeline against the outer step, and an evaluation against its predictions."""

from __future__ import annotations

from typing import Any

import jax
import optax

from benchmarks import harness, roofline
from benchmarks.outer_step import CLIP, DECAY, RATE
from benchmarks.phases import Watched, first, together
from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.data.pipeline import training_iterator
from metarec_jax.evaluation.methods import adapting, predictions_of
from metarec_jax.meta.outer import make_step
from metarec_jax.metrics.metrics import evaluate_users
from metarec_jax.train.build import build
from metarec_jax.train.meta_training import padded
from metarec_jax.train.sharding import shard_users, user_mesh
from metarec_jax.train.state import first_state

TIMES = 3.0
"""Target: least ratio of the pipeline's speed to that of the step."""
BATCHES = 8
"""Number of batches of one measurement."""


def feed(config: Config, rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Measure batches per second (drawing, padding, transfer to the device) against outer steps per second.

    Args:
        config: config of the run.
        rounds: rounds of the measurement.
        reporter: shows progress.
    """
    experiment = build(config, reporter=QUIET)
    mesh = user_mesh(1)
    at_once = config.train.users_per_device
    source = experiment.train.source
    iterator = [training_iterator(source)]

    def batches() -> list[Any]:
        found = []
        while len(found) < BATCHES:
            try:
                episodes = next(iterator[0])
            except StopIteration:
                iterator[0] = training_iterator(source)
                continue
            found.append(jax.block_until_ready(shard_users(mesh, padded(episodes, mesh, at_once))))
        return found

    fixed = batches()
    state = first_state(experiment, len(source))
    optimiser = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=DECAY))
    state = [state._replace(optimiser=optimiser.init(state.trainable))]
    tables = jax.device_put(experiment.model.prepare(state[0].trainable.theta, experiment.train.tables))
    step = jax.jit(make_step(experiment.model, optimiser, at_once=at_once), donate_argnums=0)

    def train() -> None:
        for batch in fixed:
            state[0], _ = step(state[0], tables, batch)
        jax.block_until_ready(state[0].step)

    label = f"input pipeline, {config.data.source}"
    turns = [harness.Contender("ours", batches), harness.Contender("step", train)]
    seconds = harness.take_turns(turns, rounds=rounds, reporter=reporter, label="pipeline")
    facts = {"users of a batch": config.train.users_per_step, "batches of a turn": BATCHES}
    bars = {"step": TIMES}
    return harness.compare(label, seconds, ours="ours", work=BATCHES, metric="batches/s", bars=bars, facts=facts)


def evaluate(config: Config, rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Measure users per second of an evaluation of the test users, against its compiled predictions alone.

    Args:
        config: config of the run.
        rounds: rounds of the measurement.
        reporter: shows progress.
    """
    experiment = build(config, reporter=QUIET)
    part = experiment.test
    trainable = first_state(experiment, 1).trainable
    method = adapting(experiment.model, trainable)
    batches = [part.source[i] for i in range(len(part.source))]
    watched = Watched(jax.jit(predictions_of(experiment.model)))
    for batch in batches:
        watched(trainable._replace(encoder=None), part.tables, batch)
    own = together(watched.programs.values())

    def predictions() -> list[Any]:
        return [jax.device_get(method(part.tables, batch)) for batch in batches]

    def judged() -> None:
        for found, batch in zip(predictions(), batches):
            evaluate_users(found, batch.query, weight=batch.weight)

    users = int(sum(batch.weight.sum() for batch in batches))
    own["first_s"] = first(predictions)
    alone, machine = "predictions alone", roofline.Machine(small=config.data.source == "synthetic")
    turns = [harness.Contender("ours", judged), harness.Contender(alone, predictions), *machine.contenders()]
    seconds = harness.take_turns(turns, rounds=rounds, reporter=reporter, label="evaluation")
    facts: dict[str, Any] = {"users": users, "phases": {alone: own}}
    facts["roofline"] = roofline.reached(machine.best(seconds), facts["phases"], seconds)
    label = f"evaluation, {config.data.source}"
    return harness.compare(label, seconds, ours="ours", work=users, metric="users/s", facts=facts)
