"""A profile of a few training steps, by JAX's profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from metarec_jax.core.atomic_files import make_folder
from metarec_jax.core.progress import QUIET, Reporter

SKIPPED = 2
"""Steps of this process before the profile begins: the first ones compile."""


class StepProfile:
    """Profiles some of the steps that a process takes, into ``profile/process-INDEX`` of the run folder.

    Args:
        steps: number of steps; 0 profiles none.
    """

    def __init__(self, steps: int = 0) -> None:
        self._left, self._seen = steps, 0
        self._folder: Path | None = None

    def before(self, run_folder: Path) -> None:
        """Begin the profile if the next step is the first of it.

        Args:
            run_folder: folder of the run.
        """
        self._seen += 1
        if self._left and self._folder is None and self._seen > SKIPPED:
            self._folder = make_folder(run_folder / "profile" / f"process-{jax.process_index()}")
            jax.profiler.start_trace(str(self._folder))

    def after(self, results: Any, reporter: Reporter = QUIET) -> None:
        """Count a profiled step, and end the profile with the last one.

        Args:
            results: results of the step, which are waited for.
            reporter: told where the profile is.
        """
        if self._folder is not None and self._left:
            self._left -= 1
            if not self._left:
                jax.block_until_ready(results)
                self.end(reporter)

    def end(self, reporter: Reporter = QUIET) -> None:
        """End a profile that has begun, also where training ends before its last step."""
        if self._folder is None:
            return
        jax.profiler.stop_trace()
        reporter.note(f"a profile of training steps is in {self._folder}: tensorboard --logdir, or ui.perfetto.dev")
        self._folder, self._left = None, 0
