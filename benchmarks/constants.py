"""Constants of what is believed of items, tried on validation users of MovieLens-100K: what defaults are chosen by.

python -m benchmarks.constants iterations=6,strength=8.5,item=0.385 item=0.7 --seeds 6 --json OUT

Each argument changes some options under `--factors`, and is compared with the defaults on the validation users of
protocol B, by the closed form alone: nothing is trained, and nobody's test rows are looked at. (With several seeds a
validation user of one is a test user of another; so it is with every choice that is made over several splits.)
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, variants
from benchmarks.interview import closed
from metarec_jax.config import Config, FactorsConfig, preset
from metarec_jax.errors import MetarecError
from metarec_jax.evaluation.judge import judge
from metarec_jax.evaluation.report import SeedResult
from metarec_jax.progress import QUIET, Reporter

METRICS = ("mae", "rmse", "ndcg@5", "precision@5", "mrr@5", "auc_liked")
DEFAULTS = "the defaults"


def changed(factors: FactorsConfig, text: str) -> FactorsConfig:
    """`factors` with the options of "name=value,name=value".

    >>> changed(FactorsConfig(), "iterations=10,strength=17").strength
    17.0

    Raises:
        MetarecError: there is no such option, or that is no value of it.
    """
    kinds = {field.name: type(field.default) for field in dataclasses.fields(FactorsConfig)}
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in kinds:
            raise MetarecError(f"{part!r} names no option under --factors; there are {', '.join(kinds)}")
        try:
            found[name] = kinds[name](value)
        except ValueError as error:
            raise MetarecError(f"{part!r}: {value!r} is no {kinds[name].__name__}") from error
    return dataclasses.replace(factors, **found)


def measure(config: Config, tried: Sequence[str], seeds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Every variant against the defaults, with the interval of the difference over validation users."""
    # Validation users meet what all training users taught, whatever the number of folds: so few of them.
    plain = dataclasses.replace(config.factors, folds=2)
    variant = [plain, *(changed(plain, text) for text in tried)]  # a mistake in any is told before minutes of work
    results: list[list[SeedResult]] = []
    with reporter.bar("judging constants", seeds * len(variant)) as advance:
        for n, factors in enumerate(variant):
            results.append([])
            for assembly, _, method in closed(dataclasses.replace(config, factors=factors), seeds):
                results[n].append(judge(assembly, assembly.validation, DEFAULTS, method, metrics=METRICS))
                advance(n * seeds + len(results[n]))
    who = np.concatenate([np.asarray(result.users) for result in results[0]])
    drawn = np.repeat(np.arange(seeds), [len(result.users) for result in results[0]])
    rows = []
    for name, own in zip(tried, results[1:]):
        for metric in METRICS:
            ours, theirs = ([result.values[metric] for result in way] for way in (own, results[0]))
            rows.append(variants.paired_row(name, DEFAULTS, metric, ours, theirs, who, drawn, {}))
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tried", nargs="+", metavar="NAME=VALUE,...", help="options under --factors, together")
    parser.add_argument("--seeds", type=int, default=6, help="splits")
    parser.add_argument("--everyone", action="store_true", help="all users but those asked teach (--split.everyone)")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds is {arguments.seeds}; it must be at least 1")
    from metarec_jax.console import make_reporter

    config = preset("movielens-100k")
    config = dataclasses.replace(config, split=dataclasses.replace(config.split, everyone=arguments.everyone))
    try:
        rows = measure(config, arguments.tried, arguments.seeds, make_reporter())
    except MetarecError as error:
        raise SystemExit(str(error)) from error
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
