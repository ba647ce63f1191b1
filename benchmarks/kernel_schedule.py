"""The kernel of the inner loop beside XLA's program, for a TPU that is not here: cycles of static schedules.

python -m benchmarks.kernel_schedule [--target v5e:1x1 v6e:1x1] [--users 1024] [--block 8] [--json OUT]

XLA's own estimate is blind to kernels. Cycles of the kernel are those of the schedule that Mosaic writes, one for each
instruction word of the loop over blocks, times the blocks; waiting for memory is not in them. The rest of its program,
and XLA's whole program, have the compiler's estimate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SLOTS = ("MXU", "XLU", "VALU", "VPOP", "EUP", "VLOAD", "VLOAD:FILL", "VSTORE", "VSTORE:SPILL", "SALU")
"""Columns of the compiler's table of slots."""
DUMP = "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final.*"


def schedule(folder: Path, kernel: str = "inner_loop") -> dict[str, Any]:
    """Read the schedule of a kernel.

    Args:
        folder: where the compiler wrote its schedules.
        kernel: name of the kernel.

    Returns:
        "words", instruction words, and "used", the number of each slot that they use.
    """
    (path,) = folder.glob(f"*{kernel}*per-bundle-utilization.txt")
    lines = path.read_text(encoding="utf-8").split("== UTILIZATION:")[-1].splitlines()
    rows = [[int(number) for number in line.split()] for line in lines if re.fullmatch(r"\d+( \d+)+", line.strip())]
    return {"words": len(rows), "used": {name: sum(row[i] for row in rows) for i, name in enumerate(SLOTS)}}


def compile_here(name: str, users: int, block: int, compute: str) -> dict[str, Any]:
    """Compile the meta-gradient of the standard case in this process.

    Args:
        name: name of the target.
        users: number of users.
        block: users of a block of the kernel; 0 for XLA's program.
        compute: data type of products with the table.

    Returns:
        The estimate, as JSON.
    """
    from metarec_jax.train.aot import targets

    target = targets.parse(name)
    targets.prepare_process([target])
    from benchmarks import aot

    case = aot.inner_loop(name, "factored", compute)
    return aot.compile_inner(dataclasses.replace(case, users=users), target, kernel=block).to_json()


def measure(target: str, users: int, block: int, compute: str) -> dict[str, Any]:
    """Compile with and without the kernel, each in a process of its own.

    Args:
        target, users, block, compute: as for `compile_here`.

    Returns:
        Cycles and seconds of both.
    """
    from metarec_jax.train.aot import targets

    found: dict[str, Any] = {"target": target, "users": users, "block": block, "compute": compute}
    chip = targets.parse(target).chip
    for size in (0, block):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--here", target, "--users", str(users), "--block", str(size), "--compute", compute]
            environment = {**os.environ, "LIBTPU_INIT_ARGS": DUMP.format(folder=folder)}
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.kernel_schedule", *options],
                env=environment, stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            own = json.loads(done.stdout.splitlines()[-1])
            if size:
                own["schedule"] = schedule(Path(folder))
                own["cycles"] += own["schedule"]["words"] * users // block
        own["seconds"] = chip.seconds(own["cycles"]) if chip else None
        found["kernel" if size else "XLA"] = own
    return found


def main(given: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=["v5e:1x1", "v6e:1x1"], help="targets of `metarec aot`")
    parser.add_argument("--users", type=int, default=1024, help="users of the batch")
    parser.add_argument("--block", type=int, default=8, help="users of a block of the kernel")
    parser.add_argument("--compute", default="bfloat16", help="data type of products with the table")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--here", metavar="TARGET", help="compile one program in this process, and print JSON")
    chosen = parser.parse_args(given)
    if chosen.here:
        print(json.dumps(compile_here(chosen.here, chosen.users, chosen.block, chosen.compute)))
        return
    rows = []
    for target in chosen.target:
        rows.append(measure(target, chosen.users, chosen.block, chosen.compute))
        for name in ("XLA", "kernel"):
            own = rows[-1][name]
            print(f"{target}, {name}: {own['cycles']:,.0f} cycles, {1e3 * own['seconds']:.2f} ms")
    if chosen.json:
        from benchmarks.harness import made

        chosen.json.write_text(json.dumps({"environment": made(), "schedules": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
