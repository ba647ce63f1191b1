"""Agreement between the processes of a training: texts and arrays that all have, and barriers with a time limit.

The processes run the same program. Each function of this module that communicates is called by all of them, in the same
order; one process alone communicates with nobody. `metarec_jax.core.peers` starts and ends the communication.

Texts travel by the key-value store of JAX's coordination service, which process 0 runs, and arrays by a collective.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from metarec_jax.core.errors import MetarecError, PeerError, listed, shown

PREFIX = "metarec"
"""Beginning of the keys of this package in the key-value store."""
_TURN = 60
"""Seconds of one request to the key-value store; longer waits are several requests."""
_CHUNK = 1 << 26
"""Bytes of arrays that are sent at a time."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of a training.

    Attributes:
        client: client of the coordination service.
        index: number of this process.
        hosts: host name of each process.
        wait: seconds after which a barrier fails.
        numbers: numbers of the calls that communicate, for keys that occur once.
    """

    client: Any
    index: int
    hosts: tuple[str, ...]
    wait: int
    numbers: Any = dataclasses.field(default_factory=itertools.count)

    def key(self, what: str) -> str:
        """Make a key that occurs once; `what` names the call."""
        return f"{PREFIX}/{next(self.numbers)}/{what.replace('/', '-')}"


group: Group | None = None
"""The processes that this one has joined; None while it is alone."""


def index() -> int:
    """Number of this process; 0 while it is alone."""
    return 0 if group is None else group.index


def count() -> int:
    """Number of processes."""
    return 1 if group is None else len(group.hosts)


def is_first() -> bool:
    """Whether this is process 0, which writes the files of a run, or is alone."""
    return index() == 0


def named(number: int) -> str:
    """A process in messages: its number and its host."""
    return f"process {number}" if group is None else f"process {number} of {count()} (host {group.hosts[number]})"


def barrier(what: str, seconds: int | None = None) -> None:
    """Wait until all processes are here.

    Args:
        what: what all do next, for messages, such as "the first step".
        seconds: time limit; None takes that of the group.

    Raises:
        PeerError: some are missing after that time; the message names them.
    """
    if group is None:
        return
    limit = group.wait if seconds is None else seconds
    try:
        group.client.wait_at_barrier(group.key(what), 1000 * limit)
    except Exception as error:
        missing = missing_processes(str(error))
        if not missing:
            raise
        raise PeerError(
            f"{listed([named(number) for number in missing])} did not come to {what} within {limit} s (--wait): see "
            "what holds it up there, then run the same commands again with --resume"
        ) from error


def missing_processes(message: str) -> list[int]:
    """The processes that an error of a barrier names as missing, ascending.

    >>> missing_processes("Barrier timed out.\\nThe first task: 1. Some timed out task names:\\n2\\n0\\n\\n\\nRPC: /x")
    [0, 2]
    """
    _, _, rest = message.partition("timed out task names:")
    names = itertools.takewhile(str.strip, rest.strip().splitlines())
    return sorted({int(number) for name in names for number in re.findall(r"(\d+)\s*$", name)})


def everyone(what: str, text: str) -> list[str]:
    """Exchange a text with all processes.

    Args:
        what: what the texts are.
        text: that of this process.

    Returns:
        The texts in the order of the processes.

    Raises:
        PeerError: some processes are missing, as for `barrier`.
    """
    if group is None:
        return [text]
    key = group.key(what)
    group.client.key_value_set(f"{key}/{group.index}", text)
    barrier(what)
    return [group.client.blocking_key_value_get(f"{key}/{number}", 1000 * _TURN) for number in range(count())]


def from_first(what: str, make: Callable[[], str]) -> str:
    """Compute a text in process 0, and send it to the others, which wait for as long as it takes.

    Args:
        what: what the text is.
        make: () -> the text; process 0 alone calls it.

    Returns:
        The text.
    """
    if group is None:
        return make()
    key = group.key(what)
    if group.index == 0:
        group.client.key_value_set(key, text := make())
        return text
    return awaited(group.client, key)


def awaited(client: Any, key: str) -> str:
    """Wait for a key of the key-value store without a time limit.

    Args:
        client: client of the coordination service.
        key: the key.

    Returns:
        Its text.
    """
    while True:
        try:
            return client.blocking_key_value_get(key, 1000 * _TURN)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def arrays_from_first(what: str, make: Callable[[], Mapping[str, np.ndarray] | None]) -> dict[str, np.ndarray] | None:
    """Compute host arrays in process 0, and send them to the others.

    Args:
        what: what the arrays are.
        make: () -> arrays by name, or None; process 0 alone calls it.

    Returns:
        The arrays, or None.
    """
    if group is None:
        made = make()
        return None if made is None else dict(made)
    found: dict[str, np.ndarray] = {}

    def shapes() -> str:
        made = make()
        if made is None:
            return "null"
        found.update({name: np.asarray(array, order="C") for name, array in made.items()})
        return json.dumps([[name, array.dtype.str, array.shape] for name, array in found.items()])

    described = json.loads(from_first(what, shapes))
    if described is None:
        return None
    received = {}
    for name, dtype, shape in described:
        array = found[name] if is_first() else np.empty(shape, dtype)
        received[name] = array
        flat = array.reshape(-1).view(np.uint8)
        for begin in range(0, len(flat), _CHUNK):
            part = flat[begin : begin + _CHUNK]
            sent = _sent(part)
            if not is_first():
                part[:] = sent
    return received


def _sent(part: np.ndarray) -> np.ndarray:
    """The bytes of process 0, in every process. Their number is rounded up, so that few programs are compiled."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    size = min(1 << max(len(part) - 1, 1).bit_length(), _CHUNK)
    return np.asarray(broadcast_one_to_all(np.pad(part, (0, size - len(part)))))[: len(part)]


def check_equal(what: str, values: Mapping[str, str], remedy: str) -> None:
    """Check that all processes have the same values.

    Args:
        what: what the values are.
        values: texts by name.
        remedy: what to do where they differ.

    Raises:
        MetarecError: a process has another value than process 0; the message names the first such process and value.
    """
    first, *others = (json.loads(text) for text in everyone(what, json.dumps(dict(values))))
    for number, other in enumerate(others, 1):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise MetarecError(
                    f"{name}: {shown(other.get(name))} in {named(number)}, but {shown(first.get(name))} in {named(0)}: "
                    f"{remedy}"
                )
