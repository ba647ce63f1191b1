"""`metarec` as a process: run the command, then end without finalising the interpreter.

Threads of libraries outlive the command. Those of pyarrow release buffers of Python, for which they take the
interpreter's lock; before Python 3.14, taking it while the interpreter is finalised ends the thread inside a C++
destructor, which aborts the process (status 134, "terminate called without an active exception") after all output.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import traceback
from typing import NoReturn

from metarec_jax.cli.main import main
from metarec_jax.core import peers


def run() -> NoReturn:
    """Run the command of this process, and end the process with its status.

    As at every end of Python, threads that are no daemons are waited for, functions of `atexit` are called, and
    output is written. An exception that leaves `main` ends Python as usual. A process that left others of a training by
    an error waits for nothing.
    """
    try:
        status = main()
    except BaseException:
        if not peers.broken():
            raise
        traceback.print_exc()
        status = 1
    if peers.broken():  # threads of JAX and orbax wait for other processes
        _flush()
        os._exit(status)
    # `multiprocessing` ends its processes by the same calls.
    threading._shutdown()  # pyrefly: ignore[missing-attribute]
    atexit._run_exitfuncs()
    _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
