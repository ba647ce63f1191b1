"""Stop a training between two steps when SIGTERM or Ctrl-C arrives; several processes stop after the same step.

JAX's coordination service handles SIGTERM in a group of processes: one process tells the others, and all agree on a
step that none has taken. A handler of Python would take the signal away from it.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Generator
from signal import Signals
from typing import Any

from metarec_jax.core import processes

_CALLS = itertools.count()
"""Number of each call of JAX's coordination service. It stops all processes at the call after the latest one, by its
number: numbers begin at 0 and have no gap, also where a training is resumed."""


class StopRequest:
    """Records that SIGTERM or Ctrl-C arrived, so that the loop can save and end between two steps."""

    def __init__(self) -> None:
        self.signal: Signals | None = None
        self._asked = False

    def __call__(self, number: int, _frame: Any) -> None:
        """Handle a signal; the second one ends the process immediately."""
        if self._asked:
            raise KeyboardInterrupt
        if processes.count() > 1:
            number = signal.SIGTERM
            signal.raise_signal(number)  # to the coordination service
        else:
            self.signal = signal.Signals(number)
        self._asked = True

    def reached(self) -> bool:
        """Whether to stop now; every process of a group asks before each step.

        Returns:
            Whether this process, or a group of processes, is to stop.
        """
        if processes.count() > 1 and self.signal is None:
            from jax.experimental.multihost_utils import reached_preemption_sync_point

            self.signal = signal.SIGTERM if reached_preemption_sync_point(next(_CALLS)) else None
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Generator[StopRequest]:
        """Handle both signals within the context; in a thread other than the main one, which may not, handle none."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGINT,) if processes.count() > 1 else (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
