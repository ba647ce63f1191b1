"""A running `metarec serve` for the page's tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from quick import quick_flags


def here(**environment: str) -> dict[str, str]:
    """Return the environment of a command: on the CPU, compiled with `quick_flags`, without a token."""
    clean = {name: value for name, value in os.environ.items() if name != "METAREC_TOKEN"}
    return clean | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick_flags(), **environment}


@contextlib.contextmanager
def serving(run: Path, store: Path, *options: str, **environment: str) -> Iterator[str]:
    """Run `metarec serve` on a free port and yield its address."""
    command = [sys.executable, "-m", "metarec_jax", "serve", str(run), "--port", "0", "--together", "1"]
    clean = here(**environment)
    store.mkdir(parents=True, exist_ok=True)
    with open(store / "log", "w") as log:
        process = subprocess.Popen(
            [*command, "--store", str(store), *options], env=clean, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        with process.stdout as said:
            line = said.readline()
        assert line.startswith("serving "), (store / "log").read_text()
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(60)
    assert "Traceback" not in (store / "log").read_text()
