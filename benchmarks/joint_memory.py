"""Memory of a joint step by the number of users: temporaries of the compiled program, and memory of the process.

python -m benchmarks.joint_memory --json OUT
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.cases import InnerLoopCase

USERS = (64, 256, 1024)


def of_one(users: int) -> dict[str, float]:
    """MB of temporaries of the compiled step, of arrays that grow with the episodes, and of the process at its peak."""
    import numpy as np

    from benchmarks.joint import our_step, real_texts
    from benchmarks.tasks import task_of

    case = InnerLoopCase("joint memory", users=users, features=384)
    encoder, ids, texts = real_texts()
    task = task_of(case)
    # Users share the texts of the catalogue.
    rng = np.random.default_rng(0)
    task.support_ids[:] = rng.integers(0, len(ids), task.support_ids.shape)
    task.query_ids[:] = rng.integers(0, len(ids), task.query_ids.shape)
    step = our_step(task, encoder, texts, case.at_once)
    step.run()
    rows = users * (case.support + case.query)
    return {
        "temporaries_mb": step.compiled.memory_analysis().temp_size_in_bytes / 1e6,
        # The product of each row with the first kernel and its cotangent: the only float arrays with a users axis.
        "of_episodes_mb": 2 * rows * case.hidden * 4 / 1e6,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def compare(found: dict[int, dict[str, float]]) -> list[harness.Row]:
    """Compare the memory with the most users to that with the fewest, plus the memory of the episodes, plus 10 %."""
    few, many = found[min(found)], found[max(found)]
    facts: dict[str, Any] = {"users": {str(users): figures for users, figures in found.items()}}
    more = few["temporaries_mb"] + many["of_episodes_mb"] - few["of_episodes_mb"]
    rows = []
    for metric, ours, theirs in (
        ("temporaries_mb", many["temporaries_mb"], 1.1 * more),
        ("rss_mb", many["rss_mb"], 1.1 * (few["rss_mb"] + many["of_episodes_mb"] - few["of_episodes_mb"])),
    ):
        ratio = dict.fromkeys(("median", "low", "high"), theirs / ours)
        contender = f"{min(found)} users, what {max(found)} users' episodes need, and 10 %"
        rows.append(
            harness.Row(f"joint memory, {max(found)} users", contender, metric, ours, theirs, ratio, 1.0, facts)
        )
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--users", type=int, help="print the memory of one step as JSON")
    arguments = parser.parse_args()
    if arguments.users:
        print(json.dumps(of_one(arguments.users)))
        return
    found = {}
    for users in USERS:
        command = [sys.executable, "-m", "benchmarks.joint_memory", "--users", str(users)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[users] = json.loads(done.stdout.splitlines()[-1])
    rows = compare(found)
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
