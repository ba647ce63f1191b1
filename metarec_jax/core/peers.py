"""Joining the processes of a training, and ending all of them where one fails or dies.

`jax.distributed` finds the others (under Slurm, GKE and Open MPI by itself). Its coordination service, in process 0,
tells which processes still send heartbeats; a thread of each process asks it all the time. A collective waits forever
for a process that is gone, so the thread ends its process itself. A process that fails says so to the others first.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from metarec_jax.core import processes
from metarec_jax.core.errors import MetarecError, PeerError, Stopped, listed, shown
from metarec_jax.core.jax_settings import import_jax
from metarec_jax.core.processes import PREFIX, Group

HEARTBEAT = 10
"""Seconds without a heartbeat after which a process is taken for dead."""
WAIT = 300
"""Default time limit of barriers, and of the wait for all processes at the start, in seconds."""
_FAILED = f"{PREFIX}/failed"
"""Key of what the first process that fails says."""
_GRACE = 2.0
"""Seconds for which a process that ends stays, so that the others learn why; process 0 also runs the service."""
_PAUSE = 0.5
_COMMUNICATION = re.compile(
    r"gloo|nccl|collective|connection|coordination|barrier|UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED|heartbeat", re.I
)
"""What an error says that follows from the loss of another process."""

_ended = False
_said = (PeerError.status, "")
"""Exit status and message of this process's own error."""


def broken() -> bool:
    """Whether this process left others by an error, after which threads of JAX and orbax may wait forever."""
    return _ended


def lost_peer(error: BaseException) -> bool:
    """Whether an error of JAX or orbax tells that communication with other processes failed."""
    if processes.group is None or isinstance(error, MetarecError):
        return isinstance(error, PeerError)
    return _COMMUNICATION.search(f"{type(error).__name__} {error}") is not None


@contextlib.contextmanager
def joined(detect: str = "", wait: int = WAIT) -> Iterator[None]:
    """Be one of several processes within the context.

    Args:
        detect: JAX's way to find the others, such as "mpi4py"; "" tries all that need no choice.
        wait: seconds that processes wait for each other.

    Yields:
        None.

    Raises:
        MetarecError: no other processes can be found.
        PeerError: not all of them come.
    """
    global _ended
    watch = None
    try:
        watch = _Watch(_join(detect, wait))
        yield
        processes.barrier("the end")
    except BaseException as error:
        tell(error)
        _ended = True
        if watch is not None and processes.is_first():
            time.sleep(_GRACE)
        raise
    finally:
        if watch is not None and not _ended:
            watch.leave()
        processes.group = None


def _join(detect: str, wait: int) -> Group:
    """Connect to the other processes."""
    import_jax()
    import jax
    from jax._src import distributed

    told = _told()
    # The service then does not abort every process where one is lost, but tells which are alive.
    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_recoverability", True)
    arguments: dict[str, Any] = {"cluster_detection_method": detect} if detect else {}
    if len(told) == 3:
        arguments["cluster_detection_method"] = "deactivate"
    global _waiting
    total = f"{told['num_processes']} " if "num_processes" in told else ""
    _waiting = (
        f"not all {total}processes came to {told.get('coordinator_address', 'process 0')} within {wait} s (--wait): "
        "see whether each of them runs this command, and reaches that address"
    )
    _explain_aborts()
    try:
        jax.distributed.initialize(
            **told,
            **arguments,
            initialization_timeout=wait,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except Exception as error:
        missing = processes.missing_processes(str(error))
        if missing:
            raise PeerError(
                f"processes {listed(missing)} did not start within {wait} s (--wait): see whether each of them runs "
                f"this command and reaches {distributed.global_state.coordinator_address}"
            ) from error
        if isinstance(error, ValueError):
            raise MetarecError(
                f"--distributed finds no other processes ({str(error)[:200]}): run it under Slurm, Kubernetes, a TPU "
                "slice or Open MPI (others: --detect mpi4py), or set JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, "
                "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
            ) from error
        raise PeerError(
            f"process {distributed.global_state.process_id} cannot reach the others at "
            f"{distributed.global_state.coordinator_address} within {wait} s (--wait): {str(error)[:300]}"
        ) from error
    state = distributed.global_state
    processes.group = Group(state.client, state.process_id, ("?",) * state.num_processes, wait)
    global _first
    _first = "" if processes.is_first() else str(state.coordinator_address)
    _waiting = ""  # from here on an abort is explained by `_first`
    hosts = tuple(processes.everyone("the start", socket.gethostname()))
    processes.group = Group(state.client, state.process_id, hosts, wait, processes.group.numbers)
    return processes.group


def _told() -> dict[str, Any]:
    """What the environment tells of the processes, as arguments of `jax.distributed.initialize`."""
    found: dict[str, Any] = {}
    if address := os.environ.get("JAX_COORDINATOR_ADDRESS"):
        if not re.search(r":\d+$", address):
            raise MetarecError(
                f"JAX_COORDINATOR_ADDRESS is {shown(address)}; it must be HOST:PORT, of the machine of process 0 and a "
                "free port"
            )
        found["coordinator_address"] = address
    for name, argument in (("JAX_NUM_PROCESSES", "num_processes"), ("JAX_PROCESS_ID", "process_id")):
        if text := os.environ.get(name):
            if not text.isascii() or not text.isdigit() or len(text) > 9:
                raise MetarecError(f"{name} is {shown(text)}; it must be a number of at least 0")
            found[argument] = int(text)
    if found.get("num_processes") == 0:
        raise MetarecError("JAX_NUM_PROCESSES is 0; it must be at least 1")
    if found.get("process_id", 0) >= (total := found.get("num_processes", sys.maxsize)):
        raise MetarecError(
            f"JAX_PROCESS_ID is {found['process_id']} and JAX_NUM_PROCESSES {total}: processes are numbered from 0 to "
            f"{total - 1}"
        )
    return found


def tell(error: BaseException) -> None:
    """Tell the other processes that this one fails, so that they end too.

    An error of communication follows from the failure of another process. It is not told: this waits until the thread
    that watches the others finds out which, and ends the process.

    Args:
        error: why it fails.
    """
    group = processes.group
    if group is None or getattr(error, "_told", False):
        return
    if lost_peer(error) and not isinstance(error, PeerError):
        time.sleep(2 * HEARTBEAT + _GRACE)
        end(PeerError.status, f"the connection between the processes failed: {error}. Run the same commands again")
    if isinstance(error, Stopped | KeyboardInterrupt):
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        said = (128 + number, f"stopped by {signal.Signals(number).name}")
    elif isinstance(error, MetarecError):
        said = (error.status, str(error))
    else:
        said = (1, f"{type(error).__name__}: {str(error)[:500]}")
    global _said
    _said = said
    with contextlib.suppress(Exception):  # another one told before, or process 0 is gone
        group.client.key_value_set(_FAILED, json.dumps([group.index, *said]))
    with contextlib.suppress(Exception):
        error._told = True  # pyrefly: ignore[missing-attribute]


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Tell the others of an exception in the context at once, before contexts around it wait for these others."""
    try:
        yield
    except BaseException as error:
        tell(error)
        raise


def end(status: int, message: str) -> NoReturn:
    """End the process at once, whatever its threads wait for.

    Args:
        status: exit status.
        message: why, for stderr.
    """
    text = message if len(message) < 2000 else f"{message[:2000]} ..."
    with contextlib.suppress(OSError):
        os.write(2, f"metarec: {text}\n".encode(errors="backslashreplace"))
    if processes.is_first():
        time.sleep(_GRACE)
    os._exit(status)


class _Watch:
    """Threads that end this process when another one fails or dies.

    Args:
        group: the processes.
    """

    def __init__(self, group: Group):
        self._group, self._leaving, self._alone = group, False, threading.Event()
        bodies = self._failures, self._deaths
        self._threads = [threading.Thread(target=self._run, args=(one,), daemon=True, name="peers") for one in bodies]
        for thread in self._threads:
            thread.start()

    def _run(self, body: Callable[[], None]) -> None:
        try:
            body()
        except Exception as error:
            if not self._leaving and not _ended:
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                end(
                    PeerError.status,
                    f"{processes.named(0)}, which the others need, does not answer ({reason}): see its messages, then "
                    "run the same commands again with --resume",
                )

    def _failures(self) -> None:
        number, status, text = json.loads(processes.awaited(self._group.client, _FAILED))
        if number != self._group.index and not self._leaving:
            end(status, f"{processes.named(number)} failed, and with it all others: {text}")

    def _deaths(self) -> None:
        everyone = list(range(len(self._group.hosts)))
        while not self._leaving:
            alive = self._group.client.get_live_nodes(everyone)
            lost = [number for number in everyone if number not in alive]
            time.sleep(_PAUSE)
            if lost and not (self._leaving or _ended):  # after the last barrier others may leave before this one
                end(PeerError.status, lost_message(lost))
        while self._group.index == 0 and set(self._group.client.get_live_nodes(everyone)) != {0}:
            time.sleep(_PAUSE / 5)
        self._alone.set()

    def leave(self) -> None:
        """Leave the group after its last barrier; process 0, whose service the others need for that, is the last.

        The threads end before this returns: Python stops a daemon thread by unwinding its stack, which aborts the
        process where the thread is in JAX's C++ client.
        """
        import jax

        self._leaving = True
        if self._group.index == 0:
            self._alone.wait(self._group.wait)
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()
        for thread in self._threads:
            thread.join(HEARTBEAT)


def lost_message(lost: list[int]) -> str:
    """Message that names processes that are gone."""
    names = listed([processes.named(number) for number in lost])
    return f"{names} ended without a word: see its messages, then run the same commands again with --resume"


def _explain_aborts() -> None:
    """Say why JAX aborts this process: not all others came, or process 0, and its service, are gone.

    JAX's client aborts the process without a Python exception, from a thread that holds no lock of Python.
    """

    def aborted(number: int) -> None:
        if _ended:
            end(*_said)
        if _waiting:
            end(PeerError.status, _waiting)
        if processes.group is None or not _first:
            return
        host, _, port = _first.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), 2).close()
        except OSError:
            end(PeerError.status, lost_message([0]))

    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    with contextlib.suppress(OSError, AttributeError):  # Windows
        ctypes.CDLL(None).signal(int(signal.SIGABRT), _handler)


_first = ""
"""Address of process 0; "" in that process."""
_waiting = ""
"""What to say where the others do not come."""
_handler: Any = None
