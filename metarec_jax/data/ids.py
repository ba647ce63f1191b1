"""Ids from a raw column: whole numbers as such, however they are written, and no missing ones."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np

from metarec_jax.core.errors import shown
from metarec_jax.data.values import Table, distinct

MISSING = {"nan", "NaN", "-nan", "NAN", "<NA>", "NaT", "None", "null", "NULL", r"\N"}
"""What other programs write where a value is missing."""
_MISSING_NUMBERS = MISSING | {"NA", "N/A", "n/a", "#N/A", "none", "Null", "-", "?"}
"""The same, where all other ids are numbers."""
_NUMBER = re.compile(r"-?\d{1,20}(\.\d*)?([eE]\+?\d{1,2})?", re.ASCII)
_EXACT = 2**53  # whole numbers below this are exact as floats


def ids(table: Table, column: str) -> tuple[np.ndarray, list[str]]:
    """A column of ids as codes.

    Where all ids of a column are whole numbers, and some are written as floats (``8.0``, ``1e+05``), these are read as
    the whole number.

    Args:
        table: the file.
        column: its column.

    Returns:
        int32 [rows], the number of each row's id, and the distinct ids by number.

    Raises:
        MetarecError: an id is missing.
    """
    code, seen = distinct(table, column)
    suspects = _MISSING_NUMBERS.intersection(seen)
    if suspects and not all(_NUMBER.fullmatch(word) for word in seen if word and word not in suspects):
        suspects &= MISSING
    missing = [n for n, word in enumerate(seen) if not word.strip() or word in suspects]
    if missing:
        row = np.flatnonzero(np.isin(code, missing))[0]
        word = seen[code[row]]
        what = f"{shown(word)}, which stands for a missing value" if word.strip() else "empty"
        raise table.refuse(
            row, f"the {column} ({table.label(column)}) is {what}: every row needs one; correct it, or remove the row"
        )
    return _whole(code, seen)


def _whole(code: np.ndarray, seen: list[str]) -> tuple[np.ndarray, list[str]]:
    if not any("." in word or "e" in word or "E" in word for word in seen):
        return code, seen
    whole = []
    for word in seen:
        match = _NUMBER.fullmatch(word)
        if not match:
            return code, seen
        if match.group(1) is None and match.group(2) is None:
            whole.append(word)
            continue
        number = Decimal(word)
        if number != number.to_integral_value() or abs(number) >= _EXACT:
            return code, seen
        whole.append(str(int(number)))
    position = {word: n for n, word in enumerate(dict.fromkeys(whole))}
    return np.array([position[word] for word in whole], np.int32)[code], list(position)
