"""Ways to damage a file, and wrong values of options and of JSON documents."""

from __future__ import annotations

import json
import os
import random
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarec_jax.core.registry import choices_of


def _replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    return damage


def _write(data: bytes) -> Callable[[Path], None]:
    return _replace(lambda path: path.write_bytes(data))


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(number: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data, draw = bytearray(path.read_bytes()), random.Random(f"{path.name} {number}")
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)

    return damage


REPLACED: dict[str, Callable[[Path], None]] = {
    "empty": _write(b""),
    "a folder": _replace(Path.mkdir),
    "a pipe": _replace(os.mkfifo),
    "a device": _replace(lambda path: path.symlink_to("/dev/zero")),
    "zeros": _write(bytes(1000)),
    "other bytes": _write(random.Random(0).randbytes(1000)),
}
"""Something else stands in the place of a file: whoever reads it must refuse it by name."""
CHANGED: dict[str, Callable[[Path], None]] = {
    "half": _halve,
    "a loop of links": _replace(lambda path: path.symlink_to(path.name)),
    **{f"bit {number}": _flip(number) for number in range(3)},
    "more at its end": lambda path: path.write_bytes(path.read_bytes() + b"\0more"),
    "twice": lambda path: path.write_bytes(2 * path.read_bytes()),
}
"""Part of a file differs: it is refused, or nothing that is read of it changed."""
DOCUMENTS: dict[str, bytes] = {
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "a text": b'"text"',
    "NaN": b"NaN",
    "an infinite number": b'{"a": 1e999}',
    "a number of many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"a": 1, "a": 2}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "closed deep lists": b"[" * 900 + b"]" * 900,
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "cut short": b'{"a": [1, 2',
}
"""JSON documents that no reader of an object takes."""
VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**62, 1e308, "x", "\0", [], [None], {}, {"a": 1})
"""Values of every JSON type, and extremes."""
NUMBERS = (None, True, "text", [], [1], {}, 10**31, -(10**31))
WRONG: dict[Any, tuple[Any, ...]] = {
    int: (*NUMBERS, 1.5),
    float: (*NUMBERS, 1e300, -1e300),
    bool: ("yes", 2, 1.0, None, [], {}),
    str: (None, True, [], {}, ["x"], "\0", "x" * 5000),
    tuple: (None, True, 7, "x", {}, [[1]], [None], [{}], [1e300] * 3, ["9"] * 1000),
    "choices": (None, True, 7, "nosuch", "x" * 5000, [], {}),
}
"""Values that an option of a type must refuse."""


def wrong_values(hint: Any) -> tuple[Any, ...]:
    """Values that a field of this type must refuse."""
    if choices_of(hint):
        return WRONG["choices"]
    return WRONG[typing.get_origin(hint) or hint]


def changing(key: str, value: Any) -> Callable[[Path], None]:
    """Give a key of a JSON object, such as "train.rate/low", another value."""

    def damage(path: Path) -> None:
        tree = json.loads(path.read_text())
        *above, last = key.split("/")
        at = tree
        for name in above:
            at = at[name]
        at[last] = value
        path.write_text(json.dumps(tree))

    return damage
