"""Run the worker, bound each part in time, and write what is known after every message.

A part that exceeds its time is stopped with its process: a compiler does not return control to Python. The next
process begins with the part after it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

GRACE_S = 15.0
"""Seconds that a part may exceed its limit by, since its last program may be running."""
START_S = 90.0
"""The most seconds from the start of a process to its first part: imports, and the start of the device."""
LEFT_OUT = "left out: no time was left for it"


class Message(NamedTuple):
    """What a worker said; None after the end of its output."""

    said: dict[str, Any] | None


class Document:
    """The results so far.

    Args:
        names: names of the parts, in order.
        write: receives the document whenever it has changed.
    """

    def __init__(self, names: Sequence[str], write: Callable[[dict[str, Any]], None]):
        self._write = write
        self.found: dict[str, Any] = {
            "environment": {},
            "parts": {name: {"seconds": None, "error": LEFT_OUT} for name in names},
            "rows": [],
        }

    def take(self, said: dict[str, Any]) -> None:
        """Add a message of the worker."""
        if "environment" in said:
            self.found["environment"] = self.found["environment"] or said["environment"]
        elif "row" in said:
            self.found["rows"].append(said["row"])
        elif "begin" in said:
            self.found["parts"][said["begin"]] = {"seconds": None, "error": "not finished"}
        elif "end" in said:
            self.found["parts"][said.pop("end")] = said
        self._write(self.found)

    def failed(self, name: str, error: str) -> None:
        """Record why a part has no more rows.

        Args:
            name: name of the part.
            error: the reason.
        """
        self.found["parts"][name] = {"seconds": None, "error": error}
        self._write(self.found)


def measure(names: Sequence[str], seconds: float, document: Document, *, smoke: bool) -> None:
    """Measure parts within a time, in as many processes as it takes.

    Args:
        names: names of the parts, in order.
        seconds: the most that all of them may take, start included.
        document: receives the messages.
        smoke: whether to measure the smallest sizes.
    """
    until = time.monotonic() + seconds
    left = list(names)
    while left and until - time.monotonic() > 0:
        done = _one_process(left, until, document, smoke=smoke)
        if not done:
            return
        left = left[done:]


def _one_process(names: Sequence[str], until: float, document: Document, *, smoke: bool) -> int:
    """Measure parts in one process; the number of parts that need not be measured again."""
    command = [sys.executable, "-m", "benchmarks.device.worker", *names]
    command += ["--seconds", f"{until - time.monotonic():.1f}", *(["--smoke"] if smoke else [])]
    # Without this, JAX takes three quarters of a GPU's memory for itself, and PyTorch has the rest.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    messages: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=_read, args=(process, messages), daemon=True).start()
    begun, part, limit = 0, "", time.monotonic() + START_S
    try:
        while True:
            try:
                said = messages.get(timeout=max(limit - time.monotonic(), 0.0)).said
            except queue.Empty:
                document.failed(part or names[0], "stopped: it took longer than its time")
                return max(begun, 1)
            if said is None:
                return _ended(process, names, begun, part, document)
            document.take(said)
            if "begin" in said:
                begun, part, limit = begun + 1, said["begin"], time.monotonic() + said["seconds"] + GRACE_S
            elif "end" in said:
                part = ""
    finally:
        process.kill()
        process.wait()


def _ended(process: subprocess.Popen[str], names: Sequence[str], begun: int, part: str, document: Document) -> int:
    """After the end of a process: parts that need not be measured again; 0 where no further process would help."""
    code = process.wait()
    if code == 0:
        return 0
    if not begun:
        document.failed(names[0], f"the process ended with {code} before its first part; see its messages above")
        return 0
    if part:
        document.failed(part, f"the process ended with {code} in this part; see its messages above")
    return begun


def _read(process: subprocess.Popen[str], messages: queue.Queue[Message]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            messages.put(Message(json.loads(line)))
    messages.put(Message(None))
