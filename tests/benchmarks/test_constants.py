"""The benchmark that constants are chosen by, on a small run's data."""

import pytest
from trained import believing_run

from benchmarks import constants
from metarec_jax import runs
from metarec_jax.config import FactorsConfig
from metarec_jax.errors import MetarecError


def test_what_is_the_same_differs_by_nothing_and_what_is_not_by_something():
    config = runs.open_run(believing_run()).config
    rows = constants.measure(config, [f"strength={config.factors.strength}", "noise=5,iterations=1"], 2)
    assert [row.metric for row in rows] == [*constants.METRICS] * 2
    same, other = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert all(row.ours == row.theirs and row.facts["difference"]["difference"] == 0 for row in same)
    assert any(row.ours != row.theirs for row in other)
    assert {row.case for row in other} == {"noise=5,iterations=1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("strenght=3", "'strenght=3' names no option"),
        ("rank=many", "no int"),
        ("folds=1", "folds is 1"),
    ],
)
def test_what_is_no_option_is_refused(text, said):
    with pytest.raises(MetarecError, match=said):
        constants.changed(FactorsConfig(), text)
