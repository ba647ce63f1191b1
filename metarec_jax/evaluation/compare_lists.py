"""Comparison of two evaluations by lists, over all users and by cohort."""

from __future__ import annotations

from collections.abc import Sequence

from metarec_jax.evaluation.cohorts import label
from metarec_jax.evaluation.comparison import ALL, Line
from metarec_jax.evaluation.list_record import SeedLists
from metarec_jax.evaluation.list_results import COHORT_METRICS, cohorts_of, part_of, results_of
from metarec_jax.evaluation.table import SeedResult, difference_between


def lines_of(
    ours: Sequence[SeedLists], theirs: Sequence[SeedLists], scenario: str, method: str, other: str, samples: int
) -> list[Line]:
    """Compare the lists of two methods in one scenario.

    Args:
        ours, theirs: metrics of the same seeds and users in both evaluations.
        scenario: name of the scenario.
        method: method of `ours`.
        other: method of `theirs`.
        samples: resamples of the bootstrap.

    Returns:
        The metrics of all users, and those of cohorts.
    """
    a, b = results_of(ours, scenario)[method], results_of(theirs, scenario)[other]
    lines = [_line(scenario, ALL, name, a, b, samples) for name in a[0].values if name in b[0].values]
    for kind, low, high, chosen in cohorts_of([seed.scenarios[scenario] for seed in ours]):
        of_a, of_b = ([part_of(result, some) for result, some in zip(found, chosen)] for found in (a, b))
        rows = f"{kind.title}: {label(low, high)}"
        lines += [_line(scenario, rows, name, of_a, of_b, samples) for name in COHORT_METRICS]
    return lines


def _line(scenario: str, rows: str, name: str, a: Sequence[SeedResult], b: Sequence[SeedResult], samples: int) -> Line:
    of_a, of_b = (difference_between(one, None, name, samples, 0) for one in (a, b))
    return Line(scenario, rows, name, of_a, of_b, difference_between(a, b, name, samples, 0))
