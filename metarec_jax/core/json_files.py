"""The one reader of JSON: text from outside is parsed within limits, so that what it returns is safe to walk and print.

A document is refused if it nests deeper than `MOST_DEPTH`, names a key twice, or holds a number that is no finite
float64, half of a surrogate pair, NaN or Infinity (which are no JSON). An integer of more than 64 bits, such as the
`model_max_length` that tokenizers write, is read as a float.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.regular_files import NO_PERMISSION, read_regular

MOST_DEPTH = 64
"""Deepest nesting of lists and objects."""
MOST_BYTES = 1 << 28
"""Greatest size of a JSON file, in bytes."""
_DIGITS = 21
"""More characters than an integer of 64 bits has."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_json(path: Path, *, option: str = "", remedy: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: path of the file, which must be a regular one.
        option: command-line option that names the file, for messages.
        remedy: what the user can do about a file that is missing or damaged, for messages.

    Returns:
        The parsed JSON.

    Raises:
        MetarecError: the file cannot be read, is too large, or holds no JSON that `parse_json` takes; the cause is the
            `OSError` if there is one.
    """
    where = f"{option} {path}".strip()
    try:
        data = read_regular(path, MOST_BYTES)
    except PermissionError as error:
        raise MetarecError(f"{where} {NO_PERMISSION}") from error
    except OSError as error:
        raise MetarecError(f"{where}: cannot be read ({error.strerror or error}){_then(remedy)}") from error
    return parse_json(data, where=where, remedy=remedy)


def parse_json(text: str | bytes, *, where: str, remedy: str = "", non_finite: bool = False) -> Any:
    """Parse JSON text.

    Args:
        text: the text; bytes must be UTF-8.
        where: name of the text for messages, such as its file name.
        remedy: as for `read_json`.
        non_finite: whether NaN and Infinity, which Python writes, are taken.

    Returns:
        The parsed JSON.

    Raises:
        MetarecError: the text is not JSON, or exceeds a limit.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        constant = None if non_finite else _constant
        tree = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=constant
        )
        _check_tree(tree)
    except json.JSONDecodeError as error:
        raise MetarecError(f"{where}, line {error.lineno}: not valid JSON ({error.msg}){_then(remedy)}") from error
    except UnicodeDecodeError as error:
        raise MetarecError(f"{where}: byte {error.start} is not UTF-8; it must be JSON text{_then(remedy)}") from error
    except RecursionError as error:
        raise MetarecError(f"{where}: it {_TOO_DEEP}{_then(remedy)}") from error
    except ValueError as error:
        raise MetarecError(f"{where}: {error}{_then(remedy)}") from error
    return tree


_TOO_DEEP = f"nests lists and objects more than {MOST_DEPTH} deep"


def _then(remedy: str) -> str:
    return f": {remedy}" if remedy else ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {shown(twice)} is there twice: leave out one of the two")
    return found


def _integer(text: str) -> int | float:
    if len(text) < _DIGITS and -(2**63) <= (found := int(text)) < 2**64:
        return found
    return _number(text)


def _number(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"the number {shown(text)} is larger than any that is read (float64)")
    return found


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON; give a finite number")


def _check_tree(tree: Any) -> None:
    """Raise a `ValueError` if a tree is too deep, or has a string that UTF-8 cannot hold."""
    level = [tree]
    for _ in range(MOST_DEPTH + 1):
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node.keys())
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
            elif isinstance(node, str) and not node.isascii() and _SURROGATE.search(node):
                raise ValueError(f"the text {shown(node)} holds half of a surrogate pair, which is no character")
        level = below
        if not level:
            return
    raise ValueError(f"it {_TOO_DEEP}")
