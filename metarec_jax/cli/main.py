"""The `metarec` command: its table of commands, exit statuses and signals.

Exit status: 0; 2 for a mistake in the input, with one message on stderr; 130 or 143 after Ctrl-C or SIGTERM; 141 where
the reader of the output ended first; of `metarec train --distributed` 75 where all processes stopped and saved after
SIGTERM at one of them, and 76 where another process is gone. Results go to stdout, everything else to stderr. Each
command is a module of this package, which is imported when the command runs; importing this module, and asking for
help, imports no JAX.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import difflib
import errno
import importlib
import importlib.metadata
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from metarec_jax.core.atomic_files import system_error
from metarec_jax.core.console import printable
from metarec_jax.core.errors import MetarecError, Stopped, shortened
from metarec_jax.core.plugins import load_plugins

COMMANDS: Mapping[str, str] = {
    "demo": "load, encode, meta-train, evaluate and recommend, on MovieLens-100K",
    "inspect": "print what would be read of a file: layout, rows, scale, times",
    "data": "write a data set as a row store, for more rows than memory holds",
    "pretrain": "train an encoder further, on item texts and on what users did",
    "train": "meta-train a run, or continue one",
    "tune": "search for options, on validation users",
    "evaluate": "compare a run, or a protocol over several seeds, with the baselines",
    "card": "print the model card of a run: data, licence, metrics, limits, how to reproduce it",
    "compare": "compare two evaluations, on the same test users",
    "recommend": "adapt a run to the ratings of one user, and recommend",
    "interview": "ask a new user for the most informative ratings, and recommend",
    "export": "write a run as a folder for recommendation on a user's device",
    "serve": "serve a run over HTTP, with a page to try it on",
    "feedback": "evaluate clicks and ratings of a service's users, and compare two models",
    "simulate": "simulate users who click and rate, for a running service",
    "aot": "compile for TPUs and GPUs that are not present: whether it fits, and its cost",
    "bench": "measure how fast this machine trains, encodes and recommends",
    "doctor": "show devices, versions, and where data and weights were found",
}
"""Name of a command, which is that of its module in `metarec_jax.cli` -> summary."""

HELP = f"""\
usage: metarec COMMAND [OPTIONS]        metarec COMMAND --help lists its options
A meta-learned recommender on a pretrained BERT: it adapts to a user by a few gradient steps.
{"".join(f"  {name:<12}{summary}" + chr(10) for name, summary in COMMANDS.items())}
  metarec train --data.path ratings.csv --data.columns.user who --data.columns.item what
Every command takes --plugin MODULE: a Python module that registers learners, updaters or sources.
Exit status: 0, 2 for a mistake in the input, 130 / 143 when stopped by Ctrl-C / SIGTERM.
"""

_EXPLAINED = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip
"""Errors of the operating system that the user can resolve; others keep their traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: its name and its arguments; those of the process where None.

    Returns:
        The exit status.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's own log; read when JAX is imported
    _print_any_text()
    try:
        with _signals_raise():
            arguments, plugins = _take_plugins(arguments)
            load_plugins(plugins)
            status = _dispatch(arguments)
            sys.stdout.flush()
        return status
    except MetarecError as error:
        return _fail(str(error), error.status)
    except BrokenPipeError:
        _discard_output()
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, Stopped) as stop:
        print("metarec: stopped", file=sys.stderr)
        return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    except Exception as error:
        found = system_error(error)
        if found is None or found.errno not in _EXPLAINED:
            raise
        _discard_output()
        place = f"{shortened(str(found.filename))}: " if found.filename else ""
        if found.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"{place}{found.strerror}: free some space, then run the same command again")
        return _fail(f"{place}{found.strerror}: change the permissions, or name another file or folder")


def _discard_output() -> None:
    """Leave out what cannot be printed: Python flushes stdout once more at its end, which must not fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_any_text() -> None:
    """Have output that is not UTF-8 write characters that it lacks as escapes, and closed output be ignored."""
    if sys.stdout is None or sys.stderr is None:  # closed before the process began
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"metarec_jax {importlib.metadata.version('metarec_jax')}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MetarecError(f"there is no command {command!r}; {hint}the commands are {', '.join(COMMANDS)}")
    return importlib.import_module(f"metarec_jax.cli.{command}").run(rest)


def _take_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those of the command and the modules that ``--plugin`` names, in any place."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--plugin", action="append", default=[])
    try:
        found, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise MetarecError("--plugin needs the name of a Python module, such as --plugin my_module") from error
    return rest, found.plugin


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn SIGTERM into an exception, as Ctrl-C is one, so that partly written files are removed while it propagates.

    Python discards an exception that a callback raises, such as JAX's of the garbage collector, and a library may
    discard any. The signal is then delivered once more a little later, until its exception ends the command.

    A thread other than the main one may not handle signals, and handles none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    running, main_thread = threading.Event(), threading.get_ident()
    running.set()

    def deliver(number: signal.Signals) -> None:
        if not running.is_set():
            return
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main_thread, number)
        else:  # Windows; the main thread notices it when it next runs Python's code
            _thread.interrupt_main(number)

    class Delivered(BaseException):
        number: signal.Signals

        def __del__(self) -> None:
            if running.is_set():
                timer = threading.Timer(0.05, deliver, (self.number,))
                timer.daemon = True
                timer.start()

    class Terminated(Delivered, Stopped):
        pass

    class Interrupted(Delivered, KeyboardInterrupt):
        number = signal.SIGINT

    def raise_terminated(number: int, _frame: Any) -> NoReturn:
        raise Terminated(signal.Signals(number))

    def raise_interrupted(_number: int, _frame: Any) -> NoReturn:
        raise Interrupted

    def quiet(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Delivered):
            hook(unraisable)

    handlers = {signal.SIGTERM: signal.signal(signal.SIGTERM, raise_terminated)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where Ctrl-C is ignored
        handlers[signal.SIGINT] = signal.signal(signal.SIGINT, raise_interrupted)
    hook, sys.unraisablehook = sys.unraisablehook, quiet
    try:
        yield
    finally:
        running.clear()
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _fail(message: str, status: int = 2) -> int:
    with contextlib.suppress(OSError):  # where stderr is on a full disk, the status says it
        print(f"metarec: {printable(message)}", file=sys.stderr, flush=True)
    return status
