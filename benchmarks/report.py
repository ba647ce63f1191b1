"""Results as Markdown: what README and docs show of a benchmark is printed by this, from the committed JSON.

python -m benchmarks.report benchmarks/results/inner-loop.json [CASE ...]
python -m benchmarks.report --page benchmarks/results/suite.json      the whole page, with plots, beside the JSON
python -m benchmarks.report --update                                  all marked blocks of README and docs, in place
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
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
    for row, figures in _differing(document, cases):
        lines.append(f"| {row['case']} | {row['contender']} | {row['metric']} | {figures} |")
    return "\n".join([*lines, "", _made(document)])


def costs(document: dict[str, Any], cases: Sequence[str] = ()) -> str:
    """The same of what something costs: each row is a case against the one without it."""
    lines = [
        "| training | metric | without privacy | this | difference (95 % interval) | |",
        "|---|---|--:|--:|--:|---|",
    ]
    lines += [f"| {row['case']} | {row['metric']} | {figures} |" for row, figures in _differing(document, cases)]
    return "\n".join([*lines, "", _made(document)])


def _differing(document: dict[str, Any], cases: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows with an interval, each with its last four columns."""
    for row in document["rows"]:
        found = row["facts"].get("difference")
        if found is None or (cases and row["case"] not in cases):
            continue
        value = f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"
        verdict = ""
        if found["low"] > 0 or found["high"] < 0:
            value = f"**{value}**"
            verdict = "better" if (found["difference"] < 0) == (row["facts"]["better"] == "lower") else "worse"
        yield row, f"{row['theirs']:.4f} | {row['ours']:.4f} | {value} | {verdict}"


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


BLOCK = re.compile(
    r"<!-- (benchmark|profile|differences|costs): (\S+)([^\n]*?) -->\n(.*?)\n<!-- end of \1 -->", re.DOTALL
)
"""A part of a page that is printed from results: what it is, which file, which cases, and what it shows."""
ESTIMATES = re.compile(r"<!-- aot: (\w+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
"""The same of a group of cases of `benchmarks.aot`."""
ROOT = Path(__file__).parent.parent


def block(kind: str, path: str, cases: str) -> str:
    """What a marked block has to show; of results that are not there, that they are not."""
    if not (ROOT / path).exists():
        return "not measured yet"
    document = json.loads((ROOT / path).read_text(encoding="utf-8"))
    wanted = [case for case in cases.strip().split("; ") if case]
    if kind == "profile":
        return profile(document, *wanted)
    return {"benchmark": table, "differences": differences, "costs": costs}[kind](document, wanted)


def update(page: Path) -> bool:
    """Prints the marked blocks of a page anew; whether that changed it."""
    text = page.read_text(encoding="utf-8")

    def printed(match: re.Match[str]) -> str:
        kind, path, cases, _ = match.groups()
        return f"<!-- {kind}: {path}{cases} -->\n{block(kind, path, cases)}\n<!-- end of {kind} -->"

    def estimated(match: re.Match[str]) -> str:
        from benchmarks.aot import table

        rows = json.loads((ROOT / "benchmarks/results/aot.json").read_text(encoding="utf-8"))["rows"]
        return f"<!-- aot: {match.group(1)} -->\n{table(rows, match.group(1))}\n<!-- end -->"

    new = ESTIMATES.sub(estimated, BLOCK.sub(printed, text))
    if new != text:
        page.write_text(new, encoding="utf-8")
    return new != text


def page(document: dict[str, Any], plots: Sequence[tuple[str, str]] = ()) -> str:
    """All results of the suite as one Markdown page; `plots` are titles and file names."""
    lines = [
        "# Results of the benchmark suite",
        "",
        "Printed by `python -m benchmarks.report --page` from the JSON beside it. `times better` is the median of "
        "paired turns (below 1: the other is better), in brackets the range of the middle 90 % of the turns.",
        "",
    ]
    for name, about in document["cases"].items():
        rows = [row for row in document["rows"] if row["suite"] == name]
        lines += [f"## {name}", "", table({**document, "rows": rows}).rsplit("\n\n", 1)[0], ""]
        left_out = {who: why for row in rows for who, why in row["facts"].get("unavailable", {}).items()}
        lines += [f"- left out: {who}: {' '.join(why.split())[:300]}" for who, why in left_out.items()]
        git = about["git"]
        commit = git["commit"][:10] + (" with changes" if git["changed"] else "") if git else "unknown"
        lines += [
            f"Measured {about['date']} in {about['seconds']:,.0f} s, {about['rounds']} rounds, commit {commit}; "
            f"largest memory of the process so far {about['largest_rss_mb']:,.0f} MB.",
            "",
        ]
    lines += [line for title, file in plots for line in (f"![{title}]({file})", "")]
    return "\n".join([*lines, _made(document), ""])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--profile", action="store_true", help="where the time of the case goes")
    parser.add_argument("--differences", action="store_true", help="differences with their intervals")
    parser.add_argument("--page", action="store_true", help="write the whole page and its plots beside the results")
    parser.add_argument("--update", action="store_true", help="print the marked blocks of README and docs anew")
    arguments = parser.parse_args()
    if arguments.update:
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
            print(f"{path.relative_to(ROOT)}: {'changed' if update(path) else 'as it was'}")
        return
    if arguments.results is None:
        parser.error("name a results file, or --update")
    document = json.loads(arguments.results.read_text(encoding="utf-8"))
    if arguments.page:
        from benchmarks.figures import draw

        plots = draw(document, arguments.results.with_suffix(""))
        out = arguments.results.with_suffix(".md")
        out.write_text(page(document, [(title, f"{out.stem}/{path.name}") for title, path in plots]), encoding="utf-8")
        print(out)
    elif arguments.profile:
        print(profile(document, *arguments.cases))
    elif arguments.differences:
        print(differences(document, arguments.cases))
    else:
        print(table(document, arguments.cases))


if __name__ == "__main__":
    main()
