"""Results of each release: one file for each, and a table of how the main ratios moved.

python -m benchmarks.history 0.2.0        gather the committed results into benchmarks/results/history/0.2.0.json

Nothing is measured. A row keeps the date and the commit at which it was measured, which may be older than the release.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metarec_jax.core.atomic_files import make_folder, write_text
from metarec_jax.core.errors import MetarecError

RESULTS = Path(__file__).parent / "results"
FOLDER = "history"
VERSION = re.compile(r"\d+\.\d+\.\d+")
KEPT = ("case", "contender", "metric", "ours", "theirs", "ratio", "bar")


def gather(results: Path) -> dict[str, Any]:
    """Collect the rows of all results in the layout of `benchmarks.harness.write`, and the metrics of evaluations.

    Args:
        results: folder of the results.

    Returns:
        ``benchmarks`` and ``evaluations``, each by the path of its file below `results`: a list of records with
        ``date``, ``commit`` and ``rows`` (of an evaluation, ``metrics`` of the model by scenario).
    """
    benchmarks: dict[str, Any] = {}
    evaluations: dict[str, Any] = {}
    for path in sorted(results.rglob("*.json")):
        name = str(path.relative_to(results))
        if path.parent.name == FOLDER or path.name == "local.json":
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "evaluation.json":
            evaluations[name] = _evaluation(document)
        elif records := list(_records(document)):
            benchmarks[name] = records
    return {"benchmarks": benchmarks, "evaluations": evaluations}


def _records(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows with a ratio of a results file, by the case of the suite that they were measured with."""
    rows = [row for row in document.get("rows", ()) if "ratio" in row]
    for suite in dict.fromkeys(row.get("suite", "") for row in rows):
        about = document["cases"][suite] if suite else document["environment"]
        own = [{key: row[key] for key in KEPT} for row in rows if row.get("suite", "") == suite]
        yield {**({"suite": suite} if suite else {}), **_when(about), "rows": own}


def _evaluation(document: dict[str, Any]) -> dict[str, Any]:
    metrics = {}
    for scenario, table in document.get("scenarios", {"": document}).items():
        own = next(method for method in table["methods"] if method["name"] == table["subject"])
        metrics[scenario] = {metric: cell["mean"] for metric, cell in own["metrics"].items()}
    return {**_when(document["environment"]), "metrics": metrics}


def _when(made: dict[str, Any]) -> dict[str, Any]:
    git = made.get("git")
    return {"date": made["date"], "commit": git["commit"] if git else None}


def releases(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the files of all releases.

    Args:
        folder: folder of the files.

    Returns:
        The content of each by its version, in the order of versions.
    """
    files = [path for path in folder.glob("*.json") if VERSION.fullmatch(path.stem)]
    files.sort(key=lambda path: [int(part) for part in path.stem.split(".")])
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def table(folder: Path, pairs: Sequence[str] = ()) -> str:
    """Print how ratios of speed moved across releases as a Markdown table, with a column for each release.

    Args:
        folder: folder of the files of releases.
        pairs: "CASE: CONTENDER" of each row, in the order of the table; all comparisons of rates if empty.

    Returns:
        Markdown; a ratio is the median, with the date of its measurement.
    """
    found = {version: _ratios(document) for version, document in releases(folder).items()}
    wanted = pairs or list(dict.fromkeys(pair for ratios in found.values() for pair in ratios))
    lines = [f"| case: rival | {' | '.join(found)} |", f"|---|{'--:|' * len(found)}"]
    for pair in wanted:
        cells = [ratios.get(pair, "–") for ratios in found.values()]
        lines.append(f"| {pair} | {' | '.join(cells)} |")
    number = f"{len(found)} releases" if len(found) > 1 else "One release so far, so that nothing has moved yet"
    return "\n".join([*lines, "", f"{number}. A ratio is ours over the rival's; in brackets the day of measurement."])


def _ratios(document: dict[str, Any]) -> dict[str, str]:
    """Text of each ratio of a rate by its case and contender; where files repeat a pair, that of the latest day."""
    latest: dict[str, tuple[str, str]] = {}
    for records in document["benchmarks"].values():
        for record in records:
            for row in record["rows"]:
                pair = f"{row['case']}: {row['contender']}"
                if row["metric"].endswith("/s") and record["date"] > latest.get(pair, ("", ""))[0]:
                    latest[pair] = record["date"], f"{row['ratio']['median']:.3g} ({record['date'][:10]})"
    return {pair: text for pair, (_, text) in latest.items()}


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Write the file of a release.

    Args:
        arguments: of the command line.
        results: folder of the results.

    Raises:
        MetarecError: the version is not of the form 1.2.3.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="version of the release, such as 0.2.0")
    version = parser.parse_args(arguments).version
    if not VERSION.fullmatch(version):
        raise MetarecError(f"the version is {version!r}: give that of pyproject.toml, such as 0.2.0")
    path = make_folder(results / FOLDER) / f"{version}.json"
    write_text(path, json.dumps({"release": version, **gather(results)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
