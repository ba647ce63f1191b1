"""What is observed of a training while it runs: goodput, a profile of its steps, and trackers of its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.train.goodput import Gather, Goodput, of_all_processes
from metarec_jax.train.profile import StepProfile
from metarec_jax.train.run_folder import Run
from metarec_jax.train.tracker import Trackers


class Monitor:
    """Observes one training; a context that begins with its start-up, and in which the loop runs.

    Args:
        began: `time.perf_counter` at the start of the command; None is now.
        trace: number of steps to profile.
        trackers: names of trackers.
        gather: a number of this process -> those of all processes.

    Raises:
        MetarecError: a tracker is unknown, or needs a package that is not installed.
    """

    def __init__(
        self,
        *,
        began: float | None = None,
        trace: int = 0,
        trackers: Sequence[str] = (),
        gather: Gather = of_all_processes,
    ) -> None:
        self.goodput = Goodput(began=began, gather=gather)
        self._profile, self._trackers = StepProfile(trace), Trackers(trackers)
        self._run: Run | None = None
        self._writes = False
        self._reporter: Reporter = QUIET

    def __enter__(self) -> Monitor:
        self.goodput.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.goodput.__exit__()
        self._profile.end(self._reporter)
        self._trackers.close()

    def start(self, run: Run, step: int, reporter: Reporter = QUIET) -> None:
        """Begin to observe the loop.

        Args:
            run: the run folder.
            step: step that the training continues from; 0 for a new one.
            reporter: told about the profile, and trackers that fail.
        """
        self._run, self._reporter = run, reporter
        self._writes = jax.process_index() == 0
        self.goodput.resume(run.goodput, step)
        if self._writes:
            self._trackers.open(run.folder, run.config, reporter)

    def take(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Take a step.

        Args:
            step: the jitted step.
            *arguments: its arguments.

        Returns:
            The results of the step.
        """
        assert self._run is not None
        self._profile.before(self._run.folder)
        self.goodput.count(step, *arguments)
        with jax.profiler.StepTraceAnnotation("train", step_num=self.goodput.step + 1):
            results = step(*arguments)
        self._profile.after(results, self._reporter)
        return results

    def record(self, line: dict[str, Any]) -> None:
        """Append a line to the run's metrics, with its goodput, and pass it to trackers; all processes call this."""
        assert self._run is not None
        line = {**line, **self.goodput.line()}
        if self._writes:
            self._run.append_metrics(line)
            self._trackers.log(line)
