"""Conversion of raw columns to codes, numbers and ratings, with a check of every value."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.scale import Scale

MOST_LEVELS = 20  # with more distinct ratings than this, the scale is continuous
_DENSE = 1 << 26  # integer ids below this are encoded by a lookup table over all ids


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of a file, under the names that `metarec_jax.data.interactions.build` expects.

    Attributes:
        name: name of the file, for messages.
        columns: column name -> list or pyarrow array of strings or numbers, all of the same length.
        place: row index, from 0 -> position in the file for messages, such as "line 7".
        labels: the file's names of columns, where they differ.
        decimal: decimal separator of numbers that are strings: ".", "," or "auto".
        notes: notes on columns that were left out or interpreted by default.
    """

    name: str
    columns: Mapping[str, Any]
    place: Callable[[int], str]
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    decimal: str = "auto"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def refuse(self, row: int, what: str) -> MetarecError:
        """Construct an error about a row.

        Args:
            row: index of the row, from 0.
            what: the fault and its remedy.

        Returns:
            The error, for the caller to raise.
        """
        return MetarecError(f"{self.name}, {self.place(int(row))}: {what}")

    def label(self, column: str) -> str:
        """Return the file's name of `column`."""
        return self.labels.get(column, column)


def distinct(table: Table, column: str) -> tuple[np.ndarray, list[str]]:
    """Encode a column of strings or integers; a missing value counts as "".

    Args:
        table: columns of the file.
        column: name of the column.

    Returns:
        int32 [rows], the code of each row's value, and the distinct values in the order of their codes.
    """
    values = table.columns[column]
    chunks = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, pa.string())])
    if pa.types.is_integer(chunks.type):
        return _distinct_integers(chunks.to_numpy())
    if not pa.types.is_dictionary(chunks.type):
        chunks = pc.fill_null(chunks, "").dictionary_encode()
    whole = chunks.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # without rows, in some versions of pyarrow
        whole = whole.chunk(0)
    return whole.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), whole.dictionary.to_pylist()


def _distinct_integers(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    if len(values) == 0 or values.min() < 0 or values.max() >= _DENSE:
        distinct, code = np.unique(values, return_inverse=True)
    else:
        present = np.zeros(int(values.max()) + 1, bool)
        present[values] = True
        distinct = np.flatnonzero(present)
        code = (np.cumsum(present) - 1)[values]
    return code.astype(np.int32), [str(value) for value in distinct.tolist()]


TRUTHS = {"true": "1", "false": "0"}
"""Clicks as programs write truth values, in small letters."""


def numbers(table: Table, column: str, meaning: Mapping[str, str] = MappingProxyType({})) -> np.ndarray:
    """Parse a column as finite numbers.

    Args:
        table: columns of the file.
        column: name of the column.
        meaning: texts that stand for numbers, in small letters.

    Returns:
        float64 [rows].

    Raises:
        MetarecError: a value is missing, or is not a finite number.
    """
    values = table.columns[column]
    if isinstance(values, pa.ChunkedArray) and not is_text(values.type):
        try:
            number = pc.cast(values, pa.float64(), safe=False).to_numpy()  # a missing value becomes NaN
        except pa.ArrowException as error:
            raise MetarecError(
                f"{table.name}: column {table.label(column)!r} holds {values.type}, not numbers"
            ) from error
        return _finite(table, column, number, lambda row: str(number[row]))
    code, words = distinct(table, column)
    meant = [meaning.get(word.strip().lower(), word) for word in words] if meaning else words
    number = _parse(_with_points(meant, table.decimal))[code]
    return _finite(table, column, number, lambda row: words[code[row]])


def _with_points(words: list[str], decimal: str) -> list[str]:
    """Replace decimal commas by points; "auto" treats commas as decimal unless they may group thousands."""
    written = [word for word in words if "," in word] if decimal != "." else []
    if not written:
        return words
    if decimal == "auto" and (
        any("." in word for word in words)
        or all(re.fullmatch(r"\s*[+-]?\d{1,3}(,\d{3})+\s*", word) for word in written)
    ):
        return words
    return [word.replace(",", ".") if "." not in word else "" for word in words]


def _parse(words: list[str]) -> np.ndarray:
    """Parse strings as float64; a string that is not a number becomes NaN."""
    try:
        return pc.cast(pa.array(words, pa.string()), pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return np.array([_float(word) for word in words])


def _float(word: str) -> float:
    try:
        return float("nan" if "_" in word else word)  # "1_000" is a number in Python, but not in a data file
    except ValueError:
        return float("nan")


def _finite(table: Table, column: str, number: np.ndarray, word: Callable[[int], str]) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(number))
    if len(bad):
        text = word(bad[0])
        what = f"{shown(text)}, which is not a finite number" if text else "empty"
        remedy = "correct it, or remove the row"
        if column == "time":
            remedy = (
                "write seconds since 1970, or ISO 8601 as 2019-11-15 08:00:12, or say with --data.columns.time '' that "
                "there is no time"
            )
        if "," in text:
            remedy = "say --data.decimal , if a comma is the decimal sign, or write the number without commas"
        raise table.refuse(bad[0], f"the {column} ({table.label(column)}) is {what}: {remedy}")
    return number


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)


def clicks(table: Table) -> np.ndarray:
    """Return the clicks, 0 or 1, as float32 [rows]; all 1 if the table has no column of clicks."""
    if "rating" not in table.columns:
        return np.ones(len(table), np.float32)
    click = numbers(table, "rating", TRUTHS)
    bad = np.flatnonzero((click != 0) & (click != 1))
    if len(bad):
        raise table.refuse(
            bad[0],
            f"the click ({table.label('rating')}) is {click[bad[0]]:g}; a click is 0 or 1: correct it, or say with "
            "--data.kind rating that these are ratings",
        )
    return click.astype(np.float32)


def ratings(table: Table, scale: Scale | None) -> tuple[np.ndarray, Scale]:
    """Parse the ratings and convert them to the standard scale.

    Args:
        table: columns of the file.
        scale: scale of the ratings in the file; None derives it from the ratings.

    Returns:
        The ratings on the standard scale, float32 [rows], and the scale of the ratings in the file.

    Raises:
        MetarecError: a rating is not finite or not on the scale, or the scale is derived and all ratings are equal.
    """
    rating = _decimals(table, numbers(table, "rating"))
    with np.errstate(over="ignore"):
        _finite(table, "rating", rating.astype(np.float32), lambda row: f"{rating[row]:g}")
    if scale is None:
        scale = _scale_of(table, rating)
    standard = np.asarray(scale.standard(rating), np.float64).astype(np.float32)
    ends = scale.standardised()
    bad = np.flatnonzero((standard < ends.low) | (standard > ends.high))
    if len(bad):
        raise table.refuse(
            bad[0],
            f"the rating ({table.label('rating')}) is {rating[bad[0]]:.7g}, outside {scale.low:.7g} to "
            f"{scale.high:.7g}: correct it, or remove the row",
        )
    bad = np.flatnonzero(~np.isin(standard, np.asarray(ends.levels, np.float32))) if scale.levels else np.empty(0, int)
    if len(bad):
        raise table.refuse(
            bad[0],
            f"the rating ({table.label('rating')}) is {rating[bad[0]]:.7g}; it must be one of "
            f"{', '.join(f'{level:.7g}' for level in scale.levels)}: correct it, or remove the row",
        )
    return standard, scale


def _decimals(table: Table, rating: np.ndarray) -> np.ndarray:
    """Return float64 ratings; float32 ratings as their shortest decimal form: 0.1, not 0.10000000149."""
    values = table.columns["rating"]
    if isinstance(values, pa.ChunkedArray) and pa.types.is_floating(values.type) and values.type.bit_width < 64:
        seen, code = np.unique(values.to_numpy(), return_inverse=True)
        return np.array([float(str(value)) for value in seen])[code]
    return rating


def _scale_of(table: Table, rating: np.ndarray) -> Scale:
    """Derive the scale from the least to the greatest rating of a table."""
    least, greatest = float(rating.min()), float(rating.max())
    if least == greatest:
        raise MetarecError(
            f"{table.name}: every rating ({table.label('rating')}) is {least:.7g}, so there is nothing to learn; "
            "if the rows are clicks, say --data.kind click"
        )
    scale = Scale("rating", (), least, greatest)
    if scale.unit < np.spacing(np.float64(max(abs(least), abs(greatest)))) * 2**10:
        raise MetarecError(
            f"{table.name}: ratings ({table.label('rating')}) lie between {least!r} and {greatest!r}, which double "
            "precision hardly tells apart: subtract the least from all"
        )
    # Ratings that are equal in float32, the model's precision, form one level.
    _, first = np.unique(np.asarray(scale.standard(rating), np.float64).astype(np.float32), return_index=True)
    if len(first) > MOST_LEVELS:
        return scale
    return scale._replace(levels=tuple(map(float, rating[first])))
