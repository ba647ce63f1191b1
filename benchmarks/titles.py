"""Search of titles: milliseconds of a search, seconds and memory of the index, by the size of the catalogue.

python -m benchmarks.titles --items 60000 1000000 --json OUT

Titles are made up, of words whose frequencies follow Zipf's law, as are the numbers of ratings.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.enlarged import titles_of
from metarec_jax.core.types import Items
from metarec_jax.recommender.title_search import TitleIndex

BAR = 50.0
"""Target: milliseconds of a search at the 95th percentile."""
SHOWN = 20
"""Number of items that a search returns, as the page asks for."""


def searches(titles: tuple[str, ...], each: int, seed: int = 1) -> dict[str, list[str]]:
    """What people type, by kind.

    Args:
        titles: titles of the catalogue.
        each: number of searches of a kind.
        seed: seed of the draw.

    Returns:
        Texts by kind.
    """
    rng = np.random.default_rng(seed)
    drawn = [titles[row].rpartition(" (")[0] for row in rng.integers(len(titles), size=each)]
    beginnings = [" ".join(word[:2] for word in title.split()) for title in drawn]
    at = [int(rng.integers(len(title))) for title in drawn]
    typed = [title[: int(rng.integers(1, len(title) + 1))] for title in drawn]
    return {
        "letter by letter": typed,
        "one letter": [title[:1] for title in drawn],
        "beginnings of words": beginnings,
        "misspelt": [f"{title[:n]}q{title[n + 1 :]}" for n, title in zip(at, drawn)],
        "several titles in one": [" ".join(drawn[n : n + 5])[:200] for n in range(each)],
    }


def measure(count: int, each: int) -> list[harness.Row]:
    """Time searches in a catalogue of `count` titles, `each` of each kind."""
    titles = tuple(titles_of(count))
    items = Items(tuple(map(str, range(count))), titles, titles)
    popularity = np.random.default_rng(0).zipf(1.5, count).astype(np.float32)
    before, started = _resident(), time.perf_counter()
    index = TitleIndex(items, popularity)
    index.prepare()
    facts: dict[str, Any] = {"seconds of building": time.perf_counter() - started, "MB": _resident() - before}
    added = (*titles, "Quite Another Title (2025)")
    more = Items((*items.ids, str(count)), added, added)
    started = time.perf_counter()
    index.add(more, np.append(popularity, np.float32(0)))
    facts["ms of adding a title"] = 1e3 * (time.perf_counter() - started)
    assert index.search("quite another", SHOWN) == [count]
    rows = []
    for kind, texts in searches(titles, each).items():
        taken = []
        for text in texts:
            started = time.perf_counter()
            index.search(text, SHOWN)
            taken.append(1e3 * (time.perf_counter() - started))
        p50, p95 = np.percentile(taken, [50, 95])
        ratio = harness.flat(BAR / p95)
        metric = "ms at the 95th percentile"
        case = f"title search, {kind}, {count:,} items"
        rows.append(harness.Row(case, "target", metric, float(p95), BAR, ratio, 1.0, {**facts, "p50": float(p50)}))
    return rows


def _resident() -> float:
    """Resident memory of this process, in MB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS:")), 0.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--items", type=int, nargs="+", default=[60_000, 1_000_000])
    parser.add_argument("--each", type=int, default=200, help="searches of each kind")
    arguments = parser.parse_args()
    rows = [row for count in arguments.items for row in measure(count, arguments.each)]
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
