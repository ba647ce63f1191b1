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
from typing import NoReturn

from metarec_jax.cli.main import main


def run() -> NoReturn:
    """Run the command of this process, and end the process with its status.

    As at every end of Python, threads that are no daemons are waited for, functions of `atexit` are called, and
    output is written. An exception that leaves `main` ends Python as usual.
    """
    status = main()
    # `multiprocessing` ends its processes by the same calls.
    threading._shutdown()  # pyrefly: ignore[missing-attribute]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
