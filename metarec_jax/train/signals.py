"""Stop a training between two steps when SIGTERM or Ctrl-C arrives."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from signal import Signals
from typing import Any


class StopRequest:
    """Records that SIGTERM or Ctrl-C arrived, so that the loop can save and end between two steps."""

    def __init__(self) -> None:
        self.signal: Signals | None = None

    def __call__(self, number: int, _frame: Any) -> None:
        """Handle a signal; the second one ends the process immediately."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    @contextlib.contextmanager
    def listening(self) -> Generator[StopRequest]:
        """Handle both signals within the context; in a thread other than the main one, which may not, handle none."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
