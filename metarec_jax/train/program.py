"""What the training loop is handed: a finished step, a feed of batches, and how a stretch of steps is closed.

A program is built once, by one file for each kind of training (`frozen`, `joint`, and those of other rooms); the loop
(`metarec_jax.train.loop`) runs it without knowing its kind.
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
        arguments: what the step takes beside the state, on the devices.
        users: rows of the users in it, where the batch has users.
    """

    arguments: tuple[Any, ...]
    users: Any = ()


@runtime_checkable
class Feed(Protocol):
    """Batches in order, with a position that a checkpoint keeps."""

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
    """What a program must record outside the training state, at each checkpoint; this one records nothing."""

    def resume(self, progress: Progress) -> None:
        """Check that the training can be resumed from here, or raise a MetarecError."""

    def record(self, step: int) -> dict[str, Any]:
        """Record that `step` steps have been taken; returns entries for the line of metrics."""
        return {}

    def finish(self) -> None:
        """Close the books of a training that has ended."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A training, ready to run.

    Attributes:
        title: title of the progress bar.
        steps: steps of the whole training.
        stretch: steps between two evaluations: an epoch, say.
        first_state: -> the state before the first step, on the devices.
        step: (state, *arguments of a batch) -> (state, losses before the step). Takes over the memory of its state.
        feed: -> the batches from the first one on.
        sums: (losses on the host, batch, progress) -> sum and weight of each loss. Raises where one is not finite.
        check: (state, step) -> None. Raises where a parameter is not finite.
        evaluate: state -> figures of held-out data.
        close: (progress, figures, seconds, users seen) -> (progress after the stretch, its line of metrics).
        describe: (line of metrics, progress) -> a sentence.
        trained: state -> the parameters that the training is for.
        scope: -> the context in which steps run.
        ledger: what is recorded beside the state.
        evaluates_first: whether there is a line of metrics before the first step.
        save_every: stretches between checkpoints; the best ones and the last are saved besides.
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
    save_every: int = 1

    def end_of_stretch(self, step: int) -> int:
        """The step at which the stretch that `step` lies in ends."""
        return min((step // self.stretch + 1) * self.stretch, self.steps)
