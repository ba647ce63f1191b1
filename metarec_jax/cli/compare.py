"""`metarec compare`: compare two evaluations on the same test users."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarec_jax.cli.arguments import Json, choices, parse, print_json
from metarec_jax.core.jax_settings import import_jax
from metarec_jax.evaluation.metric_sets import MODES, mode


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compare two evaluations on the same test users: paired bootstrap, for all rows and for each cohort.

    Both must have the same data, protocol and seeds.
    """

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_A")]
    """Run folder that was evaluated, or --out of an evaluation."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_B")]
    """The one to compare with."""
    method: str = "meta-learned"
    """Method of A, by its name in the table."""
    against: str = ""
    """Method of B; "" takes the method of A."""
    metrics: Annotated[str, choices(MODES)] = "own"
    """Definitions of the metrics."""
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec compare` and return the exit status."""
    chosen = parse(CompareArguments, "compare", arguments)
    mode(chosen.metrics)
    import_jax()
    from metarec_jax.evaluation import compare, comparison

    found = compare.compare(
        Path(chosen.a), Path(chosen.b), method=chosen.method, reference=chosen.against, metrics=chosen.metrics
    )
    if chosen.json:
        print_json(comparison.to_tree(found))
    else:
        comparison.print_comparison(found)
    return 0
