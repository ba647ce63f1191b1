"""Results as Markdown: what README and docs show of a benchmark is printed by this, from the committed JSON.

python -m benchmarks.report benchmarks/results/inner-loop.json [CASE ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def table(document: dict[str, Any], cases: Sequence[str] = ()) -> str:
    """The rows of a results file, as a Markdown table and a line that says how they came about.

    Args:
        document: in the layout of `benchmarks.harness.write`.
        cases: those that are wanted; all where empty.
    """
    lines = [
        "| case | against | metric | ours | theirs | times better (middle 90 %) | bar |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for row in document["rows"]:
        if cases and row["case"] not in cases:
            continue
        ratio = row["ratio"]
        spread = "" if ratio["low"] == ratio["high"] else f" ({ratio['low']:.3g} to {ratio['high']:.3g})"
        bar = "" if row["bar"] is None else f"{row['bar']:g} {'met' if row['met'] else '**missed**'}"
        figures = f"{row['ours']:,.4g} | {row['theirs']:,.4g} | {ratio['median']:.3g}{spread}"
        lines.append(f"| {row['case']} | {row['contender']} | {row['metric']} | {figures} | {bar} |")
    return "\n".join([*lines, "", _made(document)])


def differences(document: dict[str, Any], cases: Sequence[str] = ()) -> str:
    """Rows whose facts have an interval, as a Markdown table of differences; arguments as for `table`.

    A difference is bold where its whole interval lies on one side of 0.
    """
    lines = [
        "| case | contender | metric | theirs | ours | ours - theirs (95 % interval) | |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for row in document["rows"]:
        found = row["facts"].get("difference")
        if found is None or (cases and row["case"] not in cases):
            continue
        value = f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"
        verdict = ""
        if found["low"] > 0 or found["high"] < 0:
            value = f"**{value}**"
            verdict = "better" if (found["difference"] < 0) == (row["facts"]["better"] == "lower") else "worse"
        figures = f"{row['theirs']:.4f} | {row['ours']:.4f} | {value} | {verdict}"
        lines.append(f"| {row['case']} | {row['contender']} | {row['metric']} | {figures} |")
    return "\n".join([*lines, "", _made(document)])


def _made(document: dict[str, Any]) -> str:
    """How the results came about."""
    made = document["environment"]
    versions = ", ".join(f"{name} {made['packages'][name]}" for name in ("jax", "optax", "numpy"))
    return (
        f"Made by `{made['command']}` on {made['cpu']['usable']} CPU threads ({made['cpu']['model']}), "
        f"{made['python']}, {versions}, commit {made['git']['commit'][:10]}, {made['date'][:10]}."
    )


def profile(document: dict[str, Any], case: str) -> str:
    """Where the time of a case goes, as a Markdown table."""
    row = next(r for r in document["rows"] if r["case"] == case and "profile" in r.get("facts", {}))
    lines = ["| operation | calls | ms |", "|---|--:|--:|"]
    lines += [f"| {part['operation']} | {part['calls']:g} | {part['ms']:.2f} |" for part in row["facts"]["profile"]]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--profile", action="store_true", help="where the time of the case goes")
    parser.add_argument("--differences", action="store_true", help="differences with their intervals")
    arguments = parser.parse_args()
    document = json.loads(arguments.results.read_text(encoding="utf-8"))
    if arguments.profile:
        print(profile(document, *arguments.cases))
    elif arguments.differences:
        print(differences(document, arguments.cases))
    else:
        print(table(document, arguments.cases))


if __name__ == "__main__":
    main()
