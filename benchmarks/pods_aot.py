"""The outer step of a pod with tens of millions of items, compiled ahead of time: memory, collectives, and their share.

python -m benchmarks.pods_aot [--json OUT] [--target NAME ...]

All processes of a pod run this one program (`metarec train --distributed`). Embeddings of so many items stay with the
hosts, each batch brings its own rows, and the trained correction of item factors is sharded over all chips. Nothing
runs: memory and collectives are facts about the compiled program; seconds are the compiler's estimate and the published
bandwidth of the links.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness

TARGETS = ("v5e:16x16", "v6e:16x16")
USERS = 32
"""Users of a step on each chip."""


class Case(NamedTuple):
    """A step: number of items, and whether the correction of their factors is trained."""

    items: int
    trained: bool


CASES = (Case(10_000_000, False), Case(10_000_000, True), Case(100_000_000, True))


def compile_case(case: Case, target: str, users: int = USERS) -> dict[str, Any]:
    """Compile a step for a target.

    Args:
        case: the step.
        target: as for `metarec aot`.
        users: users on each chip.

    Returns:
        The estimate, with the seconds at best of a step and the share of the collectives in them.
    """
    from metarec_jax.config.run import preset
    from metarec_jax.train.aot import estimate, targets, workload

    config, where = preset("movielens-100k"), targets.parse(target)
    config = dataclasses.replace(
        config,
        factors=dataclasses.replace(config.factors, train=case.trained),
        learner=dataclasses.replace(config.learner, user_side="none"),
        train=dataclasses.replace(config.train, users_per_step=users * max(where.chips, 1), users_per_device=users),
    )
    found = estimate.estimate(workload.workload(config, items=case.items, users=1), where)
    row = {**case._asdict(), **found.to_json()}
    if found.seconds and found.link_seconds is not None:
        step = max(found.seconds, found.memory_seconds or 0.0) + found.link_seconds
        row |= {"step_seconds": step, "collectives_share": found.link_seconds / step}
    return row


def line(row: dict[str, Any]) -> str:
    """A row of the table of docs/pods.md."""
    sent = sum(part["bytes"] for part in row["collectives"].values()) / 1e6
    cells = [
        row["target"],
        f"{row['items']:,}",
        "yes" if row["trained"] else "no",
        f"{row['peak_memory'] / 1e9:.2f} GB" if row["fits"] else "does not fit",
        f"{row['arguments'] / 1e6:,.0f} MB" if row["arguments"] else "",
        f"{sent:,.0f} MB",
    ]
    if "step_seconds" in row:
        cells += [f"{1e3 * row['step_seconds']:.1f} ms", f"{100 * row['collectives_share']:.0f} %"]
        cells += [f"{row['users'] / row['step_seconds'] / 1e3:,.0f} thousand", f"{row['compile_seconds']:.0f} s"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command line."""
    from metarec_jax.train.aot import targets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=list(TARGETS), help="as for metarec aot")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    targets.prepare_process([targets.parse(name) for name in arguments.target])
    rows = []
    for target in arguments.target:
        for case in CASES:
            rows.append(compile_case(case, target))
            print(line(rows[-1]), flush=True)
    if arguments.json:
        harness.write_document({"users a chip": USERS, "rows": rows}, arguments.json)


if __name__ == "__main__":
    main()
