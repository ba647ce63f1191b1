"""Selection of the columns of a table, and conversion of their values to strings."""

from __future__ import annotations

import contextlib
import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.data.values import Table

NUMERIC = ("rating", "time", "item_vector", "item_image")
"""Columns that keep the type that a file gives them."""
_EXACT = 2**53  # whole numbers below this are exact as floats


def select(
    name: str, names: Sequence[str], columns: Mapping[str, str], options: Mapping[str, str], rest: bool
) -> dict[str, int]:
    """Find the positions of the requested columns.

    Args:
        name: name of the file.
        names: names of the file's columns, in order.
        columns: the file's names of the requested columns, by their names in the table.
        options: how the user names each column that can be chosen, for error messages, with {} for the file's name of
            the column: "--data.columns.user {}".
        rest: whether to include all other columns under their own names.

    Returns:
        The position of each column, from 0, by its name in the table.

    Raises:
        MetarecError: a column is missing, or its name occurs twice.
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
        return f"{message}: say which it is with {option.format(guess or 'NAME')}"
    return f"{message}: rename {guess or 'the column'} if it is that one, or add it"


def read_arrow(
    name: str,
    parsed: pa.Table,
    columns: Mapping[str, str],
    options: Mapping[str, str],
    rest: bool,
    place: Callable[[int], str],
) -> Table:
    """Read columns of an Arrow table that holds all of a table's columns.

    Args:
        name: name of the table, for messages.
        parsed: the Arrow table.
        columns, options, rest: as for `select`.
        place: names a row, for messages.

    Returns:
        The requested columns.

    Raises:
        MetarecError: a column is missing, or holds neither text nor numbers.
    """
    wanted = select(name, parsed.column_names, columns, options, rest)
    labels = {column: parsed.column_names[n] for column, n in wanted.items()}
    found = {column: parsed.column(n) for column, n in wanted.items()}
    values, notes = typed_values(name, found, labels, columns)
    return Table(name=name, columns=values, place=place, labels=labels, notes=notes)


def typed_values(
    name: str, found: Mapping[str, pa.ChunkedArray], labels: Mapping[str, str], columns: Mapping[str, str]
) -> tuple[dict[str, pa.ChunkedArray], tuple[str, ...]]:
    """Convert the columns of a typed format: ids and texts to strings; those of `NUMERIC` keep their types.

    Args:
        name: name of the file.
        found: values of each column.
        labels: the file's name of each column.
        columns: requested columns. In the other columns, lists of words are joined with commas; other columns that
            hold neither text nor numbers are left out.

    Returns:
        The columns by name, and notes on the columns that were left out.

    Raises:
        MetarecError: a requested column holds neither text nor numbers.
    """
    values, dropped = {}, []
    for column, value in found.items():
        if column in NUMERIC and column in columns:
            values[column] = value
            continue
        if column not in columns and _is_word_list(value.type):
            value = pa.chunked_array([_joined(chunk) for chunk in value.chunks], pa.string())
        if column not in columns and (pa.types.is_nested(value.type) or _is_binary(value.type)):
            dropped.append(labels[column])
        else:
            values[column] = as_strings(name, labels[column], value, column in ("user", "item"))
    left_out = f"{name}: left out, since they hold neither text nor numbers: {listed(dropped)}"
    return values, (left_out,) if dropped else ()


def _is_word_list(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    inner = kind.value_type
    texts = pa.types.is_string(inner) or pa.types.is_large_string(inner)
    return texts or pa.types.is_null(inner) or _is_word_list(inner)


def _joined(lists: pa.Array) -> pa.Array:
    """Join lists of words, or lists of such lists, with commas; a missing list stays missing."""
    if _is_word_list(lists.type.value_type):
        # Offsets of a slice begin at its offset, where `flatten` begins at 0.
        sizes = np.nan_to_num(pc.call_function("list_value_length", [lists]).to_numpy(zero_copy_only=False)).astype(
            np.int64
        )
        offsets = pa.array(np.append(0, np.cumsum(sizes)), pa.int32())
        inner = pc.fill_null(_joined(lists.flatten()), "")
        lists = pa.ListArray.from_arrays(offsets, inner, mask=lists.is_null())
    words = pc.cast(lists, pa.list_(pa.string()))
    return pc.call_function("binary_join", [words, ", "])


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def as_strings(name: str, label: str, values: pa.ChunkedArray, exact: bool) -> pa.ChunkedArray:
    """Convert a column to strings. A column of integers without missing values keeps its type; NaN counts as missing.

    Args:
        name: name of the file.
        label: the file's name of the column.
        values: values of the column, text or numbers.
        exact: whether to refuse floats of 2**53 or more, at which whole numbers such as ids lose digits.

    Returns:
        The column, as strings or integers.

    Raises:
        MetarecError: the column holds neither text nor numbers, or a float that `exact` refuses.
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
        with contextlib.suppress(pa.ArrowInvalid):  # integers in a column with missing values are read as 7.0
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
