"""Half-sweeps over 100 million users and items, compiled for a pod of 256 TPUs: memory, collectives, and a roofline.

python -m benchmarks.factors_aot [--target v5e:16x16] [--items N] [--users N] [--rows N] [--rank R] [--json OUT]

Nothing runs: memory, FLOPs and collectives are facts about the compiled programs; seconds are those of published
bandwidths and peaks. A half-sweep runs one program for each batch of rows, and one for each block of owners. Users and
items are sharded over all chips.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness

TARGET, ITEMS, USERS, ROWS, RANK = "v5e:16x16", 100_000_000, 100_000_000, 10_000_000_000, 64
PADDED, FEATURES = 1.2, 64
"""Slots of a batch for each row, as measured on made-up rows; features of an item in its prior mean."""


class Program(NamedTuple):
    """A compiled program of a half-sweep.

    Attributes:
        name: what it does.
        lowered: the program, before it is compiled.
        calls: number of times that it runs in a half-sweep.
    """

    name: str
    lowered: Any
    calls: int


def programs(mesh: Any, users: int, items: int, rows: int, rank: int) -> Iterator[Program]:
    """Lower the programs of both kinds of half-sweeps: users given items.

    Args:
        mesh: mesh with the axis of `metarec_jax.factors.row_products`.
        users, items, rows: numbers of users, items and rows.
        rank: number of columns.

    Yields:
        The programs.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding

    from metarec_jax.factors.click_programs import Sums, add_clicks, solve_sums
    from metarec_jax.factors.implicit import click_layout
    from metarec_jax.factors.row_batches import KINDS, Batch, layout
    from metarec_jax.factors.row_products import AXIS, SAME, SHARDED, gather
    from metarec_jax.factors.variational import solve_users

    devices = mesh.shape[AXIS]

    def shape(*size: int, dtype: Any = jnp.float32, spec: Any = SHARDED) -> Any:
        return jax.ShapeDtypeStruct(size, dtype, sharding=NamedSharding(mesh, spec))

    def batch(pieces: int, length: int) -> Batch:
        rows = devices, pieces, length
        return Batch(shape(devices, pieces, dtype=jnp.int32), shape(*rows, dtype=jnp.int32), shape(*rows))

    def calls(pieces: int, length: int) -> int:
        return math.ceil(rows * PADDED / (devices * pieces * length))

    of_users, of_items = (click_layout(number, rank, mesh) for number in (users, items))
    block, pieces, length = of_users.block, of_users.block, 64
    sums = Sums(shape(devices, block + 1, rank, rank), shape(devices, block + 1, rank))
    basis = shape(rank, rank, spec=SAME)
    with jax.default_matmul_precision("highest"):
        table = shape(devices, of_items.each, rank)
        added = add_clicks.lower(sums, table, batch(pieces, length), mesh=mesh)
        yield Program("clicks: a batch of rows", added, calls(pieces, length))
        solved = solve_sums.lower(sums, shape(devices, block), shape(rank, spec=SAME), basis, mesh=mesh)
        yield Program("clicks: a block of users", solved, of_users.blocks)

    of_users, of_items, width = layout(users, devices), layout(items, devices), rank + 1
    table, block = shape(devices, of_items.each, width + 1), of_users.block
    sums, pieces = shape(devices, block + 1, width, width), 256
    added = gather.lower(sums, table, batch(pieces, length), shape(dtype=bool, spec=SAME), mesh=mesh)
    yield Program("ratings: a batch of rows", added, calls(pieces, length))
    solved = solve_users.lower(
        sums,
        shape(devices, block, KINDS),
        shape(devices, block, dtype=jnp.int32),
        shape(KINDS, width, width, spec=SAME),
        shape(rank, spec=SAME),
        basis,
        mesh=mesh,
    )
    yield Program("ratings: a block of users", solved, of_users.blocks)


def compile_all(name: str, users: int, items: int, rows: int, rank: int) -> list[dict[str, Any]]:
    """Compile the programs for a target.

    Args:
        name: the target, as for `metarec aot`.
        users, items, rows: numbers of users, items and rows.
        rank: number of columns.

    Returns:
        For each program its estimate, its calls in a half-sweep, and their seconds at the published figures.
    """
    import jax
    from jax.sharding import AxisType

    from metarec_jax.factors.row_products import AXIS
    from metarec_jax.train.aot import estimate, targets

    target = targets.parse(name)
    devices = targets.devices(target)
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    found = []
    for program in programs(mesh, users, items, rows, rank):
        one = estimate.compiled_for(target, program.lowered, chips=mesh.size, users=0)
        row = {"program": program.name, "calls": program.calls, **dataclasses.asdict(one)}
        if target.chip is not None and one.fits:
            seconds = ((one.flops or 0) / target.chip.flops, one.memory_seconds or 0.0, one.link_seconds or 0.0)
            most, limit = max(zip(seconds, ("matrix units", "memory", "links")))
            row |= {"limit": limit, "seconds_at_best": program.calls * most}
        found.append(row)
    return found


def main() -> None:
    """The command line."""
    from metarec_jax.train.aot import targets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=TARGET, help="as for metarec aot")
    for name, default in (("items", ITEMS), ("users", USERS), ("rows", ROWS), ("rank", RANK)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"number of {name}")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    targets.prepare_process([targets.parse(arguments.target)])
    sizes = {name: getattr(arguments, name) for name in ("users", "items", "rows", "rank")}
    found = compile_all(arguments.target, **sizes)
    for row in found:
        sent = {kind: f"{part['bytes'] / 1e6:,.1f} MB" for kind, part in row["collectives"].items()}
        print(
            f"{row['program']}: {row['calls']:,} calls; fits: {row['fits']} {row['why']}; "
            f"peak {(row['peak_memory'] or 0) / 1e9:.2f} GB, arguments {(row['arguments'] or 0) / 1e9:.2f} GB; "
            f"sends {sent}; {row.get('seconds_at_best', 0):.2f} s at best, limited by {row.get('limit', '-')}"
        )
    if arguments.json:
        harness.write_document({"sizes": sizes | {"target": arguments.target}, "rows": found}, arguments.json)
    else:
        print(json.dumps(sizes))


if __name__ == "__main__":
    main()
