"""The training program of a pretraining, for the training loop."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import unusable_names
from metarec_jax.train.checkpoints import Progress, Sums
from metarec_jax.train.pretraining.build import Pretraining
from metarec_jax.train.pretraining.step import Losses, PretrainState, first_state
from metarec_jax.train.program import Batch, Program


def pretraining_program(pretraining: Pretraining) -> Program:
    """Make the program of a pretraining; the inputs and draws of a step depend only on its number."""
    config = pretraining.config
    return Program(
        title="pretraining",
        steps=config.steps,
        stretch=config.judge_every,
        first_state=lambda: pretraining.put(first_state(config, pretraining.encoder)),
        step=pretraining.step,
        feed=_Numbers,
        sums=_sums,
        check=_refuse_not_finite,
        evaluate=lambda state: pretraining.judge(state.weights),
        close=functools.partial(_close, config.steps, config.judge_every),
        describe=_describe,
        trained=lambda state: state.weights,
        scope=functools.partial(jax.set_mesh, pretraining.mesh),
        evaluates_first=True,
    )


class _Numbers:
    """A feed of step numbers."""

    def __init__(self) -> None:
        self._next = 0

    def __next__(self) -> Batch:
        self._next += 1
        return Batch((self._next - 1,))

    def position(self) -> dict[str, Any]:
        return {"next": self._next}

    def continue_at(self, position: dict[str, Any]) -> None:
        self._next = position["next"]

    def close(self) -> None:
        pass


def _sums(losses: Losses, batch: Batch, progress: Progress) -> Sums:
    """The losses of a step.

    Raises:
        MetarecError: a loss is not finite.
    """
    if not all(math.isfinite(loss.total) for loss in losses):
        which = "hidden words" if not math.isfinite(losses.masked.total) else "likes"
        raise MetarecError(
            f"the loss on {which} became {float(losses.masked.total + losses.liked.total)} at step "
            f"{progress.step + 1}: lower --encoder.rate or --mlm.head-rate; the checkpoints hold the state before"
        )
    return {name: (float(loss.total), float(loss.weight)) for name, loss in losses._asdict().items() if loss.weight}


def _refuse_not_finite(state: PretrainState, step: int) -> None:
    """Raise if a weight is not finite, since the losses of this step do not yet show a NaN gradient."""
    names = unusable_names(jax.device_get(state.weights))
    if names:
        raise MetarecError(
            f"{names[0]} became infinite or NaN by step {step}: lower --encoder.rate or --mlm.head-rate; the "
            "checkpoints hold the state before"
        )


def _close(
    steps: int, judge_every: int, progress: Progress, figures: Mapping[str, float], seconds: float, users: int
) -> tuple[Progress, dict[str, Any]]:
    """The progress after an evaluation, and its line of metrics. The latest weights are the result."""
    step = progress.step
    means = {f"train_{name}_loss": mean for name, mean in progress.means().items()}
    taken = step % judge_every or judge_every
    line = {"step": step, **means, **figures, "steps_per_second": round(taken / seconds, 3)}
    epoch = progress.epoch + 1
    closed = dataclasses.replace(
        progress, epoch=epoch, sums={}, best_epoch=epoch, best_step=step, finished=step >= steps
    )
    return closed, line


def _describe(line: Mapping[str, Any], progress: Progress) -> str:
    said = ", ".join(f"{name.replace('_', ' of held-out ', 1)} {value:.4g}" for name, value in judged(line).items())
    return f"step {line['step']}: {said or 'nothing is held out'}"


def judged(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics on held-out data in a line of metrics, by name."""
    return {name: value for name, value in line.items() if name.startswith(("perplexity_", "contrastive_"))}
