"""The pretraining loop on the host: feeds batches by the number of the step, looks at what was held out, saves, stops.

A stopped or killed pretraining goes on bitwise as if nothing had happened: what a step reads and draws follows from its
number, and all else is in the checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import time
from signal import Signals
from typing import Any

import jax

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import unusable_names
from metarec_jax.core.progress import QUIET, Advance, Reporter
from metarec_jax.train.checkpoints import Checkpoints
from metarec_jax.train.loop import StopRequest
from metarec_jax.train.pretraining.build import Pretraining
from metarec_jax.train.pretraining.step import Losses, PretrainState, Weights, first_state
from metarec_jax.train.run_folder import Run


@dataclasses.dataclass(frozen=True)
class PretrainProgress:
    """How a pretraining is going, as it stands in a checkpoint.

    Attributes:
        step: steps taken.
        masked_total, masked_weight, liked_total, liked_weight: sums of the losses since the last judgement.
    """

    step: int = 0
    masked_total: float = 0.0
    masked_weight: float = 0.0
    liked_total: float = 0.0
    liked_weight: float = 0.0

    def plus(self, losses: Losses) -> PretrainProgress:
        """After one more step."""
        (masked, words), (liked, anchors) = losses
        return PretrainProgress(
            self.step + 1,
            self.masked_total + float(masked),
            self.masked_weight + float(words),
            self.liked_total + float(liked),
            self.liked_weight + float(anchors),
        )

    def means(self) -> dict[str, float]:
        """Mean losses of training since the last judgement, by name."""
        sums = {"masked": (self.masked_total, self.masked_weight), "liked": (self.liked_total, self.liked_weight)}
        return {f"train_{name}_loss": total / weight for name, (total, weight) in sums.items() if weight}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What pretraining leads to.

    Attributes:
        weights: host arrays.
        step: steps taken.
        before, after: what was judged before the first step and after the last one.
        signal: what stopped it before its end; None where nothing did.
    """

    weights: Weights
    step: int
    before: dict[str, float]
    after: dict[str, float]
    signal: Signals | None = None


def fit(run: Run, pretraining: Pretraining, *, reporter: Reporter = QUIET) -> Pretrained:
    """Pretrains, from the run's latest checkpoint where there is one, and saves as it goes.

    Args:
        run: the run folder.
        pretraining: from `metarec_jax.train.pretraining.build.assemble` with the run's config.
        reporter: where progress is shown.

    Raises:
        MetarecError: a loss that is not finite (nothing of it is saved), or a checkpoint that cannot be read.
    """
    config = pretraining.config
    state = pretraining.put(first_state(config, pretraining.encoder))
    with (
        Checkpoints(run.checkpoints, kind=PretrainProgress) as checkpoints,
        StopRequest().listening() as stop,
        reporter.bar("pretraining", config.steps) as advance,
        jax.set_mesh(pretraining.mesh),
    ):
        progress: PretrainProgress | None = checkpoints.latest()
        if progress is None:
            run.keep_metrics(-1, by="step")
            progress = PretrainProgress()
            _book(run, {"step": 0, **pretraining.judge(state.weights)}, reporter)
        else:
            state = checkpoints.load(state, progress.step)
            run.keep_metrics(progress.step, by="step")
        while progress.step < config.steps and stop.signal is None:
            started, first = time.perf_counter(), progress.step
            until = min((first // config.judge_every + 1) * config.judge_every, config.steps)
            state, progress = _steps(pretraining, state, progress, until, stop, advance)
            _refuse_not_finite(state, progress.step)
            if progress.step == until:
                rate = (until - first) / (time.perf_counter() - started)
                line = {"step": until, **progress.means(), **pretraining.judge(state.weights)}
                _book(run, {**line, "steps_per_second": round(rate, 3)}, reporter)
                progress = PretrainProgress(until)
            # The latest is what one goes on from, and the result: it is filed as the best.
            checkpoints.save(state, progress, -float(progress.step))
        checkpoints.wait()
    lines = list(run.read_metrics())
    before, after = (_judged(line) for line in (lines[0], lines[-1]))
    return Pretrained(jax.device_get(state.weights), progress.step, before, after, stop.signal)


def _steps(
    pretraining: Pretraining,
    state: PretrainState,
    progress: PretrainProgress,
    until: int,
    stop: StopRequest,
    advance: Advance,
) -> tuple[PretrainState, PretrainProgress]:
    """Takes the steps up to `until`; losses are looked at one step late, so that the device never waits."""
    pending: Losses | None = None

    def look(pending: Losses | None) -> None:
        nonlocal progress
        if pending is None:
            return
        losses: Losses = jax.device_get(pending)
        if not all(math.isfinite(loss.total) for loss in losses):
            which = "hidden words" if not math.isfinite(losses.masked.total) else "likes"
            raise MetarecError(
                f"the loss on {which} became {float(losses.masked.total + losses.liked.total)} at step "
                f"{progress.step + 1}: lower --encoder.rate or --mlm.head-rate; the checkpoints hold the state "
                "before"
            )
        progress = progress.plus(losses)
        advance(progress.step, ", ".join(f"{n.split('_')[1]} {v:.3f}" for n, v in progress.means().items()))

    at = progress.step
    with jax.transfer_guard("disallow"):
        while at < until and stop.signal is None:
            state, losses = pretraining.step(state, at)
            look(pending)
            at, pending = at + 1, losses
        look(pending)
    return state, progress


def _refuse_not_finite(state: PretrainState, step: int) -> None:
    """A loss is known before its step is taken: a gradient of NaN shows in the parameters first."""
    names = unusable_names(jax.device_get(state.weights))
    if names:
        raise MetarecError(
            f"{names[0]} became infinite or NaN by step {step}: lower --encoder.rate or --mlm.head-rate; the "
            "checkpoints hold the state before"
        )


def _book(run: Run, line: dict[str, Any], reporter: Reporter) -> None:
    run.append_metrics(line)
    said = ", ".join(f"{name.replace('_', ' of held-out ', 1)} {value:.4g}" for name, value in _judged(line).items())
    reporter.note(f"step {line['step']}: {said or 'nothing is held out'}")


def _judged(line: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name.startswith(("perplexity_", "contrastive_"))}
