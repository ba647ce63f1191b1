"""Which columns of a table are wanted, and their values as strings."""

from __future__ import annotations

import contextlib
import difflib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metarec_jax.core.errors import MetarecError, listed, shown

_ABSENT = {  # the option for a file that has no such column
    "time": ", or '' where there is none",
    "rating": ", or '' and --data.kind click where every row is a click",
}
NUMERIC = ("rating", "time", "item_vector")
"""Columns that keep the type that a file gives them."""
_EXACT = 2**53  # whole numbers below this are exact as floats


def select(
    name: str, names: Sequence[str], columns: Mapping[str, str], options: Mapping[str, str], rest: bool
) -> dict[str, int]:
    """The positions of the wanted columns.

    Args:
        name: of the file.
        names: of its columns.
        columns: the file's names of the wanted columns, by their names in the table.
        options: for a column that the user can choose, the option for it, for messages.
        rest: whether all other columns are wanted too, under their own names.

    Returns:
        The position of each column, by its name in the table.

    Raises:
        MetarecError: a column is not there, or there twice.
    """
    position = {column: n for n, column in reversed(list(enumerate(names)))}
    for column, wanted in columns.items():
        if wanted not in position:
            free = [n for n in names if n not in columns.values()]
            raise MetarecError(_missing(name, names, free, column, wanted, options.get(column, "")))
    counts = Counter(names)
    asked = [column for column in (names if rest else columns.values()) if column]
    repeated = next((column for column in asked if counts[column] > 1), "")
    if repeated:
        raise MetarecError(f"{name}, line 1: two columns are called {shown(repeated)}: rename one of them")
    found = {column: position[wanted] for column, wanted in columns.items()}
    if rest:
        taken = set(columns.values())
        found |= {n: at for n, at in sorted(position.items(), key=lambda c: c[1]) if n not in taken and n not in found}
    return found


def _missing(name: str, names: Sequence[str], free: Sequence[str], column: str, wanted: str, option: str) -> str:
    lower = {n.lower(): n for n in reversed(free[:1000])}
    near = difflib.get_close_matches(wanted.lower(), lower, n=1, cutoff=0.5)
    guess = lower[near[0]] if near else ""
    message = f"{name} has no column {shown(wanted)} (the {column.replace('_', ' ')}); it has {listed(names) or 'none'}"
    if names and list(names) == [str(n) for n in range(1, len(names) + 1)]:
        message += " (numbers, since it has no header: --data.header yes reads its first line as one)"
    if option:
        return f"{message}: say which it is with {option} {guess or 'NAME'}{_ABSENT.get(column, '')}"
    return f"{message}: rename {guess or 'the column'} if it is that one, or add it"


def typed_values(
    name: str, found: Mapping[str, pa.ChunkedArray], labels: Mapping[str, str], columns: Mapping[str, str]
) -> tuple[dict[str, pa.ChunkedArray], tuple[str, ...]]:
    """Columns that have types: ids and texts as strings, those of `NUMERIC` as they are.

    Args:
        name: of the file.
        found: the values of each column.
        labels: the file's name of each column.
        columns: those that are asked for. Of the others, lists of words become words between commas, and what is
            neither text nor numbers is left out.

    Returns:
        The columns, and remarks about what was left out.

    Raises:
        MetarecError: a column that is asked for holds neither text nor numbers.
    """
    values, dropped = {}, []
    for column, value in found.items():
        if column in NUMERIC and column in columns:
            values[column] = value
            continue
        if column not in columns and _is_word_list(value.type):
            value = pc.call_function("binary_join", [pc.cast(value, pa.list_(pa.string())), ", "])
        if column not in columns and (pa.types.is_nested(value.type) or _is_binary(value.type)):
            dropped.append(labels[column])
        else:
            values[column] = as_strings(name, labels[column], value, column in ("user", "item"))
    left_out = f"{name}: left out, since they hold neither text nor numbers: {listed(dropped)}"
    return values, (left_out,) if dropped else ()


def _is_word_list(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return pa.types.is_string(kind.value_type) or pa.types.is_null(kind.value_type)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def as_strings(name: str, label: str, values: pa.ChunkedArray, exact: bool) -> pa.ChunkedArray:
    """Values as strings, or as integers where all are; NaN is a missing value.

    Args:
        name: of the file.
        label: of the column.
        values: of any type that is text or numbers.
        exact: whether whole numbers that are too large to be exact as floats are refused, as ids are.

    Raises:
        MetarecError: another type, or such numbers.
    """
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if pa.types.is_integer(values.type) and values.null_count == 0:
        return values
    if pa.types.is_floating(values.type):
        values = _without_nan(values)
        large = np.abs(pc.cast(values, pa.float64()).to_numpy()).max(initial=0)
        if exact and values.null_count == 0 and large >= _EXACT:
            raise MetarecError(
                f"{name}: column {shown(label)} holds ids as {values.type}, up to {large:.17g}, which has lost digits: "
                "write the column as integers or as text"
            )
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        with contextlib.suppress(pa.ArrowInvalid):  # whole numbers beside missing ones come as 7.0: the id is 7
            values = pc.cast(values, pa.int64())
    try:
        return pc.cast(values, pa.string())
    except pa.ArrowException as error:
        shown_type = f"{values.type}"[:80]
        raise MetarecError(
            f"{name}: column {shown(label)} holds {shown_type}, not text or numbers: name another "
            "column, or write it as text"
        ) from error


def _without_nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    number = pc.cast(values, pa.float64())
    gaps = np.isnan(number.to_numpy())
    return pa.chunked_array([pa.array(number.to_numpy(), mask=gaps)]) if gaps.any() else values
