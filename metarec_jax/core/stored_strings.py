"""Strings that stay in a mapped file, and are made where they are asked for."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 1 << 16


class StoredStrings(Sequence[str]):
    """A sequence of strings in an Arrow column, which is equal to a tuple of the same strings.

    Args:
        column: of strings, none of which is missing.

    Attributes:
        column: as given.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: Any) -> Any:
        """The string with a number, or those of a slice."""
        if not isinstance(index, slice):
            number = operator.index(index)
            if not -len(self) <= number < len(self):
                raise IndexError(f"string {number} of {len(self)}")
            return self.column[number % len(self)].as_py()
        start, stop, step = index.indices(len(self))
        if step != 1:
            return tuple(self[number] for number in range(start, stop, step))
        return StoredStrings(self.column.slice(start, max(0, stop - start)))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.column.slice(start, _AT_ONCE).to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | StoredStrings):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other))

    __hash__ = None  # type: ignore[assignment] # equal to tuples, whose hash takes all strings


def as_arrow(strings: Sequence[str]) -> pa.ChunkedArray | pa.Array:
    """Strings as an Arrow column of the type string; those of a file stay there."""
    import pyarrow as pa

    if isinstance(strings, StoredStrings):
        return strings.column.cast(pa.string())
    return pa.array(list(strings), pa.string())
