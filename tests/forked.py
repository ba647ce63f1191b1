"""Commands of `metarec` in processes that are forked from one that has imported the package. Imports take longer than
all the rest of a small command. That process runs nothing and has no threads, so that a fork of it is as good as new.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = [
    "metarec_jax.cli.train",
    "metarec_jax.cli.recommend",
    "metarec_jax.train.start",
    "metarec_jax.train.frozen_program",
    "metarec_jax.train.joint_program",
    "metarec_jax.privacy.frozen_program",
    "metarec_jax.recommender.recommender",
    "metarec_jax.evaluation.plots",
    "orbax.checkpoint.v1",
    "transformers.models.bert.tokenization_bert",
]


class Command:
    """A running `metarec`, with the methods of `subprocess.Popen` that tests use.

    Args:
        arguments: of the command.
        cwd: its working folder.
        environment: its variables; those that JAX reads when it is imported are those of this process.
    """

    def __init__(self, arguments: list[str], cwd: Path, environment: Mapping[str, str]):
        context = _server()
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name, name) for name in ("out", "err")]
        given = (arguments, str(cwd), dict(environment), list(map(str, self._streams)))
        self._process = context.Process(target=_run, args=given)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or the negative number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; returns stdout and stderr."""
        self._process.join(timeout)
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in self._streams)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0, out, err)
        return out, err


def _server() -> multiprocessing.context.BaseContext:
    """The way to start processes, whose server runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    before = dict(os.environ)
    os.environ.update({"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"})
    with contextlib.suppress(KeyError):
        del os.environ["XLA_FLAGS"]
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _run(arguments: list[str], cwd: str, environment: dict[str, str], streams: list[str]) -> None:
    """Become the command, in the forked process."""
    for number, path in enumerate(streams, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["metarec", *arguments]

    from metarec_jax.cli.process import run
    from metarec_jax.core.xla_flags import avoid_wrong_sums, leave_threads_to_xla

    avoid_wrong_sums()  # as the import of the package does
    leave_threads_to_xla()
    run()
