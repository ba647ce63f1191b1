"""Print committed results as Markdown, such as the tables of README and docs.

python -m benchmarks.report                                           all results in benchmarks/results
python -m benchmarks.report benchmarks/results/inner-loop.json [CASE ...] [--as KIND]
python -m benchmarks.report --page benchmarks/results/suite.json      write a page beside the JSON (suite or device)
python -m benchmarks.report --update                                  print the marked blocks of README and docs again
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import curves as of_curves
from benchmarks import history, scenarios
from benchmarks.device import page as of_device
from metarec_jax.evaluation.metric_sets import MODES
from metarec_jax.evaluation.text_table import grid, number


def table(document: dict[str, Any], cases: Sequence[str] = ()) -> str:
    """The rows of a results file, as a Markdown table and a line on how they were measured.

    Args:
        document: document in the layout of `benchmarks.harness.write`.
        cases: names of cases; empty for all.
    """
    lines = [
        "| case | against | metric | ours | theirs | times better (middle 90 %) | bar |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    rows = [row for row in document["rows"] if not cases or row["case"] in cases]
    for row in rows:
        bar = "" if row["bar"] is None else f"{row['bar']:g} {'met' if row['met'] else '**missed**'}"
        figures = f"{row['ours']:,.4g} | {row['theirs']:,.4g} | {_ratio(row)}"
        lines.append(f"| {row['case']} | {row['contender']} | {row['metric']} | {figures} | {bar} |")
    return "\n".join([*lines, "", _made(document, rows)])


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
    return "\n".join([*lines, "", _made(document, document["rows"])])


def costs(document: dict[str, Any], cases: Sequence[str] = ()) -> str:
    """Rows whose facts have an interval, as a table of the cost of privacy; arguments as for `table`."""
    lines = [
        "| training | metric | without privacy | this | difference (95 % interval) | |",
        "|---|---|--:|--:|--:|---|",
    ]
    lines += [f"| {row['case']} | {row['metric']} | {figures} |" for row, figures in _differing(document, cases)]
    return "\n".join([*lines, "", _made(document, document["rows"])])


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


def roofline(document: dict[str, Any], cases: Sequence[str] = ()) -> str:
    """Every program's phases, and its share of the machine's limits; arguments as for `table`."""
    found: dict[tuple[str, str], str] = {}
    rows = [row for row in document["rows"] if "roofline" in row["facts"] and (not cases or row["case"] in cases)]
    for row in rows:
        for name, reached in row["facts"]["roofline"].items():
            own = row["facts"]["phases"][name]
            cells = [f"{own[phase]:,.2f}" for phase in ("trace_s", "lower_s", "compile_s", "first_s")]
            cells += [f"{reached['seconds'] * 1e3:,.4g}", f"{own['peak_mb']:,.0f}"]
            cells += [f"{reached['gflop_of_products']:,.3g}", f"{reached['gbytes_moved']:,.3g}"]
            for speed, limit, share in (
                ("gflop_per_s", "gemm_gflop_per_s", "of_gemm_peak"),
                ("gb_per_s", "bandwidth_gb_per_s", "of_bandwidth"),
            ):
                cells.append(f"{reached[speed]:,.3g} of {reached[limit]:,.3g} ({100 * reached[share]:.0f} %)")
            found.setdefault((row["case"], name), f"| {row['case']} | {name} | {' | '.join(cells)} |")
    if not found:
        return NOT_YET
    lines = [
        "| case | program | trace s | lower s | compile s | first s | ms | peak MB | GFLOP | GB | GFLOP/s | GB/s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *found.values(),
    ]
    return "\n".join([*lines, "", _made(document, rows)])


def headline(document: dict[str, Any], methods: Sequence[str] = ()) -> str:
    """Print the headline metrics of some methods of an evaluation as a Markdown table.

    Args:
        document: the evaluation.json of one scenario.
        methods: names of the methods, in the order of the table; all if empty.
    """
    reference = document["references"][0]
    metrics = [metric for metric in document["metrics"] if metric["name"] in MODES["own"].headline]
    found = {method["name"]: method for method in document["methods"]}
    body = []
    for name in methods or found:
        differences = found[name]["differences"].get(reference, {})
        cells = [
            number(found[name]["metrics"][metric["name"]]["mean"])
            + ("*" if differences.get(metric["name"], {}).get("excludes_zero") else "")
            for metric in metrics
        ]
        body.append([name, *cells])
    arrows = {"lower": "↓", "higher": "↑"}
    header = ["method", *(f"{metric['title']} {arrows[metric['better']]}" for metric in metrics)]
    users = found[reference]["metrics"][metrics[0]["name"]]["interval"]["users"]
    about = (
        f"Means over {len(document['seeds'])} seeds, {users} different test users in all; \\* marks a difference from "
        f"{reference} whose 95 % interval (paired bootstrap over users) excludes zero."
    )
    return "\n".join([*grid(header, body), "", f"{about} {_made(document, [])}"])


def speed(document: dict[str, Any], pairs: Sequence[str] = ()) -> str:
    """Print comparisons of speed with other programs as a Markdown table.

    Args:
        document: a results file of the suite.
        pairs: "CASE: CONTENDER" of each row, in the order of the table; all comparisons of rates if empty.
    """
    rates = {f"{row['case']}: {row['contender']}": row for row in document["rows"] if row["metric"].endswith("/s")}
    rows = [rates[pair] for pair in pairs or rates]
    body = [
        [row["case"], row["contender"], row["metric"], f"{row['ours']:,.4g}", f"{row['theirs']:,.4g}", _ratio(row)]
        for row in rows
    ]
    header = ["case", "rival", "unit", "ours", "rival's", "ratio (middle 90 %)"]
    abouts = [{**document["environment"], **document["cases"][row["suite"]]} for row in rows]
    days = sorted(about["date"][:10] for about in abouts)
    machines = "; ".join(dict.fromkeys(map(_machine, abouts)))
    return "\n".join([*grid(header, body), "", f"Made on {machines}, {' to '.join(dict.fromkeys(days))}."])


def _ratio(row: dict[str, Any]) -> str:
    """The median of the paired ratios of a row and the range of the middle 90 % of them."""
    ratio = row["ratio"]
    spread = "" if ratio["low"] == ratio["high"] else f" ({ratio['low']:.3g} to {ratio['high']:.3g})"
    return f"{ratio['median']:.3g}{spread}"


def _made(document: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """A line on how the rows were measured; cases of one file with equal conditions are named together."""
    if "cases" not in document:
        made = document["environment"]
        return f"Made by `{made['command']}` on {_machine(made)}, commit {_commit(made)}, {made['date'][:10]}."
    groups: dict[str, dict[str, list[str]]] = {}
    for name in dict.fromkeys(row["suite"] for row in rows):
        about = document["cases"][name]
        how = [_rounds(about, [row for row in rows if row["suite"] == name]), f"commit {_commit(about)}"]
        if "command" in about:
            how.insert(0, f"`{about['command']}`")
        machine = _machine({**document["environment"], **about})
        groups.setdefault(machine, {}).setdefault(", ".join([*how, about["date"][:10]]), []).append(name)
    alike = len(groups) == 1 and len(next(iter(groups.values()))) == 1
    told = []
    for machine, records in groups.items():
        each = [how if alike else f"{', '.join(names)}: {how}" for how, names in records.items()]
        told.append(f"Made on {machine}: {'; '.join(each)}.")
    return " ".join(told)


def _machine(made: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {made['packages'][name]}" for name in ("jax", "optax", "numpy"))
    return f"{made['cpu']['usable']} CPU threads ({made['cpu']['model']}), {made['python']}, {versions}"


def _commit(made: dict[str, Any]) -> str:
    git = made["git"]
    return git["commit"][:10] + (" with changes" if git["changed"] else "") if git else "unknown"


def _rounds(about: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The number of turns that the rows record, or else the greatest possible number."""
    known = sorted({row["facts"]["rounds"] for row in rows if "rounds" in row["facts"]})
    if not known:
        return f"up to {about['rounds']} rounds"
    return f"{known[0]} rounds" if len(known) == 1 else f"{known[0]} to {known[-1]} rounds"


def profile(document: dict[str, Any], case: str) -> str:
    """The profile of a case as a Markdown table."""
    row = next(r for r in document["rows"] if r["case"] == case and "profile" in r.get("facts", {}))
    least = LEAST * sum(part["ms"] for part in row["facts"]["profile"])
    parts = [part for part in row["facts"]["profile"] if part["ms"] >= least]
    lines = ["| operation | calls | ms |", "|---|--:|--:|"]
    lines += [f"| {part['operation']} | {part['calls']:g} | {part['ms']:.2f} |" for part in parts]
    if row["contender"] == WHOLE:
        lines.append(f"| all of it, by the clock | 1 | {row['theirs']:.2f} |")
    return "\n".join([*lines, "", _made(document, [row])])


WHOLE = "the whole"
"""Contender of rows of `benchmarks.profiles`: the duration of a whole call."""
LEAST = 0.01
"""Operations with a smaller share of the listed time are left out."""
NOT_YET = "not measured yet"
WIDTH = 120
"""Greatest length of a line of a marked block, tables apart."""
KINDS = ("benchmark", "speed", "headline", "results", "profile", "differences", "costs", "roofline", "device")
KINDS += ("curves", "history", "scenarios", "gains")
"""Kinds of marked blocks."""
BLOCK = re.compile(
    rf"<!-- ({'|'.join(KINDS)}): (\S+)([^>]*?) -->\n(.*?)\n?<!-- end of \1 -->",
    re.DOTALL,
)
"""A part of a page that is printed from results: kind, file, cases, and content."""
ESTIMATES = re.compile(r"<!-- aot: (\w+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
"""The same for a group of cases of `benchmarks.aot`."""
ROOT = Path(__file__).parent.parent


def block(kind: str, path: str, cases: str, root: Path = ROOT) -> str:
    """Print a marked block.

    Args:
        kind: one of `KINDS`; "results" shows a Markdown file as it is, "history" a folder of releases.
        path: path of the results file, below `root`.
        cases: names, separated by ";" and a blank or line break; all where "".
        root: the repository.

    Returns:
        Markdown, with lines of at most `WIDTH` characters, tables apart; `NOT_YET` if there is no such file.
    """
    if not (root / path).exists():
        return NOT_YET
    wanted = [case for case in " ".join(cases.split()).split("; ") if case]
    if kind == "history":
        return wrap(history.table(root / path, wanted))
    text = (root / path).read_text(encoding="utf-8")
    if kind == "results":
        return wrap(text.strip())
    document = json.loads(text)
    if kind == "profile":
        return wrap(profile(document, *wanted))
    shown = {
        "benchmark": table,
        "speed": speed,
        "headline": headline,
        "differences": differences,
        "costs": costs,
        "roofline": roofline,
        "device": of_device.tables,
        "scenarios": lambda document, cells: f"{scenarios.values(document, cells)}\n\n{_made(document, [])}",
        "gains": scenarios.gains,
        "curves": lambda document, titles: f"{of_curves.tables(document, titles)}\n\n{_made(document, [])}",
    }
    return wrap(shown[kind](document, wanted))


def wrap(markdown: str) -> str:
    """Break the lines of a Markdown text, except for tables, at `WIDTH` characters.

    >>> wrap("- " + "word " * 25).splitlines()[1]
    '  word word'
    """
    return "\n".join(line if line.startswith("|") else _filled(line) for line in markdown.split("\n"))


def _filled(line: str) -> str:
    glued = re.sub(r" ([*+#-]) ", " \\1\u00a0", line)  # at the start of a line, it would begin a list or a heading
    indent = "  " if line.startswith("- ") else ""
    options = {"subsequent_indent": indent, "break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(glued, WIDTH, **options).replace("\u00a0", " ")


def update(page: Path, root: Path = ROOT) -> bool:
    """Print the marked blocks of a page again.

    Args:
        page: Markdown.
        root: the repository, in which the results are.

    Returns:
        Whether the page changed.
    """
    text = page.read_text(encoding="utf-8")

    def printed(match: re.Match[str]) -> str:
        kind, path, cases, _ = match.groups()
        return f"<!-- {kind}: {path}{cases} -->\n{block(kind, path, cases, root)}\n<!-- end of {kind} -->"

    def estimated(match: re.Match[str]) -> str:
        from benchmarks.aot import table

        rows = json.loads((root / "benchmarks/results/aot.json").read_text(encoding="utf-8"))["rows"]
        return f"<!-- aot: {match.group(1)} -->\n{table(rows, match.group(1))}\n<!-- end -->"

    new = ESTIMATES.sub(estimated, BLOCK.sub(printed, text))
    if new != text:
        page.write_text(new, encoding="utf-8")
    return new != text


def pages() -> list[Path]:
    """README and every page of docs, in alphabetical order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


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
        lines += [f"## {name}", "", table({**document, "rows": rows}), ""]
        left_out = {who: why for row in rows for who, why in row["facts"].get("unavailable", {}).items()}
        lines += [f"- left out: {who}: {' '.join(why.split())[:300]}" for who, why in left_out.items()]
        memory = f"largest memory of the process so far {about['largest_rss_mb']:,.0f} MB"
        lines += [f"It took {about['seconds']:,.0f} s; {memory}.", ""]
    limits = roofline(document)
    if limits != NOT_YET:
        lines += ["## What each program takes, and which share of the machine's limits it reaches", "", limits, ""]
    lines += [line for title, file in plots for line in (f"![{title}]({file})", "")]
    return "\n".join(lines)


def everything(folder: Path) -> str:
    """A page of all results in a folder that have rows: the suite, single benchmarks, and `benchmarks.aot`."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = document.get("rows") or []
        if "parts" in document:
            parts.append(of_device.page(document))
        elif "cases" in document:
            parts.append(page(document).replace("# Results of the benchmark suite", f"# {path.stem}", 1))
        elif rows and "ratio" in rows[0]:
            parts.append(f"# {path.stem}\n\n{table(document)}\n")
        elif rows and path.stem == "aot":
            from benchmarks import aot

            groups = (f"## {group}\n\n{aot.table(rows, group)}\n" for group in aot.CASES)
            parts.append("\n".join([f"# {path.stem}\n", *groups]))
    if not parts:
        raise SystemExit(f"{folder} holds no results yet: python -m benchmarks --json {folder}/suite.json makes some")
    return "\n".join(parts)


def main(given: Sequence[str] | None = None) -> None:
    """The command line with these arguments; None takes those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--as", dest="kind", choices=KINDS, default="benchmark", help="kind of table to print")
    parser.add_argument("--page", action="store_true", help="write the whole page and its plots beside the results")
    parser.add_argument("--update", action="store_true", help="print the marked blocks of README and docs again")
    arguments = parser.parse_args(given)
    if arguments.update:
        for path in pages():
            print(f"{path.relative_to(ROOT)}: {'changed' if update(path) else 'as it was'}")
        return
    if arguments.results is None:
        if arguments.page:
            parser.error("name a results file")
        print(everything(ROOT / "benchmarks" / "results"))
        return
    if not arguments.page:
        print(block(arguments.kind, str(arguments.results.resolve()), "; ".join(arguments.cases)))
        return
    document = json.loads(arguments.results.read_text(encoding="utf-8"))
    out = arguments.results.with_suffix(".md")
    if "parts" in document:
        text = wrap(of_device.page(document))
    else:
        from benchmarks.figures import draw

        plots = draw(document, arguments.results.with_suffix(""))
        text = page(document, [(title, f"{out.stem}/{path.name}") for title, path in plots])
    out.write_text(text, encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
