"""`metarec inspect`: print what would be read of a file, before anybody trains."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from metarec_jax.cli.arguments import Json, parse, print_json
from metarec_jax.config.data import DataConfig
from metarec_jax.core.console import make_reporter, print_grid, printable
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.stored_columns import count_values

if TYPE_CHECKING:
    from metarec_jax.core.types import Interactions, TimeUnit

FIRST = 5
"""Rows that are shown."""
_LONGEST = 60


@dataclasses.dataclass(frozen=True)
class InspectArguments:
    """Print what `metarec train` would read: layout, rows, users, items, scale, times, and remarks. Nothing is written.

    It ends with status 2 and the same message as `metarec train` where the data has a mistake in it.
    """

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help="As --data.path.")] = ""
    json: Json = False
    data: DataConfig = dataclasses.field(default_factory=DataConfig)


def run(arguments: Sequence[str]) -> int:
    """Run `metarec inspect` and return the exit status."""
    chosen = parse(InspectArguments, "inspect", arguments)
    if chosen.file and chosen.data.path:
        raise MetarecError(f"FILE is {chosen.file} and --data.path {chosen.data.path}: give one of the two")
    config = dataclasses.replace(chosen.data, path=chosen.file) if chosen.file else chosen.data
    from metarec_jax.data import load

    found = examine(load(config, seed=0, reporter=make_reporter()))
    if chosen.json:
        print_json(found)
    else:
        show(found)
    return 0


def examine(data: Interactions) -> dict[str, Any]:
    """What was read.

    Args:
        data: the data set.

    Returns:
        JSON-ready values: ``source`` and ``layout``; numbers of ``rows``, ``users`` and ``items``, and of
        ``items_without_rows``; ``kind``, ``low``, ``high`` and ``levels``; ``times``, None where all are equal;
        ``texts``: an example of what the encoder reads; ``notes``: what was merged, left out or assumed; ``first``:
        the first rows, by user and time.
    """
    from metarec_jax.data.splits import counts_of  # imported here because data is slow to import

    count = counts_of(data)
    return {
        "source": data.source,
        "layout": data.layout,
        "rows": len(data),
        "users": len(data.users),
        "items": len(data.items),
        "items_without_rows": int((count_values(data.item, len(data.items)) == 0).sum()),
        "rows_of_a_user": {
            "least": int(count.min()),
            "median": float(np.median(count)),
            "most": int(count.max()),
        },
        "kind": data.kind,
        "low": data.scale.low,
        "high": data.scale.high,
        "levels": list(data.scale.levels),
        "times": _times(data),
        "texts": {"item": data.items.texts[0], "user": data.users.texts[0] if data.users.texts else None},
        "details": list(data.items.details),
        "notes": list(data.notes),
        "first": [
            {
                "user": data.users.ids[data.user[row]],
                "item": data.items.ids[data.item[row]],
                "title": data.items.titles[data.item[row]],
                "rating": data.scale.decimal(data.rating[row]),
                "time": _date(int(data.time[row]), data.time_unit) if data.time.any() else None,
            }
            for row in range(min(FIRST, len(data)))
        ],
    }


def show(found: Mapping[str, Any]) -> None:
    """Print what `examine` returned."""
    per_user, times, texts = found["rows_of_a_user"], found["times"], found["texts"]
    levels = ", ".join(f"{level:g}" for level in found["levels"])
    scale = f"one of {levels}" if levels else f"any number from {found['low']:g} to {found['high']:g}"
    rows = [
        ["source", found["source"]],
        ["layout", found["layout"] or "-"],
        ["rows", f"{found['rows']:,}"],
        ["users", f"{found['users']:,}"],
        ["items", f"{found['items']:,}, {found['items_without_rows']:,} of them without a row"],
        ["rows of a user", f"{per_user['least']:,} to {per_user['most']:,}, median {per_user['median']:g}"],
        ["ratings" if found["kind"] == "rating" else "clicks", scale],
        ["times", f"{times['first']} to {times['last']}, unit {times['unit']}" if times else "none, or all equal"],
        ["text of an item", _short(texts["item"])],
        ["text of a user", _short(texts["user"]) if texts["user"] else "none"],
        ["details of items", ", ".join(found["details"][:12]) or "none"],
    ]
    print_grid("Read", ["what", "value"], rows)
    names = ("user", "item", "title", "rating", "time")
    shown = [[_short(str(row[n])) if row[n] is not None else "-" for n in names] for row in found["first"]]
    print_grid("First rows, by user and time", list(names), shown)
    for note in found["notes"]:
        print(f"note: {printable(note)}")


def _times(data: Interactions) -> dict[str, Any] | None:
    first, last = int(data.time.min()), int(data.time.max())
    if first == last:
        return None
    return {"first": _date(first, data.time_unit), "last": _date(last, data.time_unit), "unit": data.time_unit}


def _date(time: int, unit: TimeUnit) -> str:
    """A time as a date where it can be one of the years 1980 to 2100, and as the number otherwise."""
    from metarec_jax.data.times import PER_SECOND

    seconds, ticks = divmod(time, PER_SECOND[unit])
    if not 315_532_800 <= seconds < 4_133_980_800:
        return str(time)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    fraction = f".{ticks:0{len(str(PER_SECOND[unit])) - 1}d}" if ticks else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
