"""The process that holds the device: it measures parts in order, and writes each row to stdout as a line of JSON.

Messages: {"environment": ...}; {"begin": part, "seconds": its most seconds}; {"row": ...}; {"end": part, ...}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from benchmarks.device.measure import Asked, message_of
from benchmarks.device.parts import PARTS

LEAST_S = 2.0
"""A part is not begun where fewer seconds are left."""


def results() -> TextIO:
    """A stream to stdout for messages alone; what libraries print from now on goes to stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def measure(names: Sequence[str], seconds: float, *, smoke: bool, to: TextIO) -> None:
    """Measure parts until the time is over.

    Args:
        names: names of the parts.
        seconds: the most that all of them may take.
        smoke: whether to measure the smallest sizes.
        to: receives the messages.
    """
    import jax

    from benchmarks.harness import made

    def say(message: Mapping[str, Any]) -> None:
        print(json.dumps(message), file=to, flush=True)

    until = time.monotonic() + seconds
    say({"environment": {**made(), "memory": memory()}})
    for name in names:
        left = until - time.monotonic()
        most = left if smoke else min(PARTS[name].seconds, left)
        if most < LEAST_S:
            break
        say({"begin": name, "seconds": most})
        begun, error = time.monotonic(), ""
        try:
            for row in PARTS[name].measure(Asked(smoke, begun + most)):
                say({"row": {"part": name, **row.to_json()}})
        except Exception as failed:  # the other parts are measured all the same
            error = message_of(failed)
        say({"end": name, "seconds": time.monotonic() - begun, "error": error, "memory": memory()})
        jax.clear_caches()


def memory() -> dict[str, int]:
    """Bytes of the device: its limit and the peak so far; empty where it keeps no such statistics."""
    import jax

    found = jax.devices()[0].memory_stats() or {}
    return {name: int(found[name]) for name in ("bytes_limit", "peak_bytes_in_use") if name in found}


def main() -> None:
    """The command line, for `benchmarks.device.supervise`."""
    to = results()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--smoke", action="store_true")
    chosen = parser.parse_args()
    try:
        measure(chosen.names, chosen.seconds, smoke=chosen.smoke, to=to)
    except BrokenPipeError:  # the supervisor was stopped
        sys.exit(1)


if __name__ == "__main__":
    main()
