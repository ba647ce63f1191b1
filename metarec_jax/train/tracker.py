"""Trackers: services and files that receive the metrics of a training while it runs.

A tracker is registered under a name, as other kinds are, and chosen with ``--tracker NAME``:

    @TRACKERS.register("mine")
    def open_tracker(folder, config):
        return MyTracker(...)

The function gets the run folder and the config as a dictionary, and returns a `Tracker`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from metarec_jax.config.json_io import to_json
from metarec_jax.core.errors import shown
from metarec_jax.core.kinds import TRACKERS
from metarec_jax.core.progress import QUIET, Reporter


@runtime_checkable
class Tracker(Protocol):
    """A receiver of metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receive the numbers of a line of ``metrics.jsonl``.

        Args:
            step: number of training steps taken.
            metrics: numbers by name; a number within an object has the names of both, as in "seconds/steps".
        """
        ...

    def close(self) -> None:
        """Write what is left; training has ended."""
        ...


class Trackers:
    """The trackers of a training. One that fails is reported and left out: training goes on.

    Args:
        names: names of trackers.

    Raises:
        MetarecError: a name is not registered, or a package that its tracker needs is not installed.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._makers = {name: TRACKERS.get(name) for name in names}
        self._open: dict[str, Tracker] = {}
        self._reporter: Reporter = QUIET

    def open(self, folder: Path, config: Any, reporter: Reporter = QUIET) -> None:
        """Open the trackers for a run.

        Args:
            folder: the run folder.
            config: the run's config, a dataclass.
            reporter: told about a tracker that fails.
        """
        self._reporter = reporter
        for name, maker in self._makers.items():
            with self._may_fail(name):
                self._open[name] = maker(folder, json.loads(to_json(config)))

    def log(self, line: Mapping[str, Any]) -> None:
        """Pass a line of metrics, which has a "step", to all trackers."""
        metrics = flat({key: value for key, value in line.items() if key != "step"})
        for name, tracker in list(self._open.items()):
            with self._may_fail(name):
                tracker.log(line["step"], metrics)

    def close(self) -> None:
        """Close all trackers."""
        for name, tracker in list(self._open.items()):
            with self._may_fail(name):
                tracker.close()
        self._open.clear()

    @contextlib.contextmanager
    def _may_fail(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # of other people's code, which must not end a training
            self._open.pop(name, None)
            self._reporter.note(
                f"--tracker {name} failed, and gets no more metrics of this training: {shown(error, 300)}"
            )


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of a tree of JSON objects by path.

    Args:
        tree: an object; values that are neither numbers nor objects are left out.
        before: path of the object.

    Returns:
        The numbers.

    Example:
        >>> flat({"epoch": 1, "seconds": {"steps": 2.5}, "note": "a"})
        {'epoch': 1.0, 'seconds/steps': 2.5}
    """
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}/")
        elif isinstance(value, int | float):
            found[f"{before}{name}"] = float(value)
    return found
