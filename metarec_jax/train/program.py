"""The interface between training loop and training: step, feed of batches, and evaluation after a stretch of steps.

One module for each kind of training builds a program (`frozen_program`, `joint_program`, and those in other packages).
The loop (`metarec_jax.train.loop`) runs programs of all kinds.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from metarec_jax.core.types import Params
from metarec_jax.train.checkpoints import Progress, Sums


class Batch(NamedTuple):
    """One batch of a feed.

    Attributes:
        arguments: arguments of the step after the state, on the devices.
        users: rows of the users in the batch of all processes, where it has users.
    """

    arguments: tuple[Any, ...]
    users: Any = ()


@runtime_checkable
class Feed(Protocol):
    """Batches in order, with a position that a checkpoint stores."""

    def __next__(self) -> Batch: ...

    def position(self) -> dict[str, Any]:
        """The position after the last batch, as JSON."""
        ...

    def continue_at(self, position: dict[str, Any]) -> None:
        """Continue at a position."""
        ...

    def close(self) -> None:
        """Release threads and files."""
        ...


class Ledger:
    """Records of a program outside the training state, at each checkpoint; this class records nothing."""

    def resume(self, progress: Progress) -> None:
        """Check that the training can be resumed from here, or raise a MetarecError."""

    def record(self, step: int) -> dict[str, Any]:
        """Record that `step` steps have been taken; returns entries for the line of metrics."""
        return {}

    def finish(self) -> None:
        """Complete the records of a training that has ended."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A training, ready to run.

    Attributes:
        title: title of the progress bar.
        steps: number of steps of the whole training.
        stretch: number of steps between two evaluations, such as an epoch.
        first_state: () -> the state before the first step, on the devices.
        step: (state, *arguments of a batch) -> (state, losses before the step). Donates the memory of its state.
        feed: () -> the batches from the first one on.
        sums: (losses on the host, with the users of this process's devices, batch, progress) -> sum and weight of each
            loss. Raises where one is not finite.
        check: (state, step) -> None. Raises where a parameter is not finite.
        evaluate: state -> metrics on held-out data.
        close: (progress, metrics, seconds, users seen) -> (progress after the stretch, its line of metrics).
        describe: (line of metrics, progress) -> a sentence.
        trained: state -> the trained parameters.
        scope: () -> the context in which steps run.
        ledger: records outside the state.
        evaluates_first: whether there is a line of metrics before the first step.
        first_counts: whether the parameters before the first step are the best ones until an evaluation is better;
            then there is such a line too.
    """

    title: str
    steps: int
    stretch: int
    first_state: Callable[[], Any]
    step: Callable[..., tuple[Any, Any]]
    feed: Callable[[], Feed]
    sums: Callable[[Any, Batch, Progress], Sums]
    check: Callable[[Any, int], None]
    evaluate: Callable[[Any], Mapping[str, float]]
    close: Callable[[Progress, Mapping[str, float], float, int], tuple[Progress, dict[str, Any]]]
    describe: Callable[[Mapping[str, Any], Progress], str]
    trained: Callable[[Any], Params]
    scope: Callable[[], contextlib.AbstractContextManager[Any]]
    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    evaluates_first: bool = False
    first_counts: bool = False

    def end_of_stretch(self, step: int) -> int:
        """The last step of the stretch that contains `step`."""
        return min((step // self.stretch + 1) * self.stretch, self.steps)
