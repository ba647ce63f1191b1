"""The metric sets, and the metrics that they name."""

import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation.metric_sets import MODES, mode
from metarec_jax.metrics.definitions import DEFAULT_METRICS, metric


def test_modes_name_metrics_that_exist():
    assert MODES["own"].metrics == (*DEFAULT_METRICS, "auc_global")
    for name, found in MODES.items():
        assert [metric(m).name for m in found.metrics] == list(found.metrics)
        assert found.definition
        assert name == "own" or (found.source and found.traps)
    with pytest.raises(MetarecError, match="no metrics are called 'mine'; there are own, melu"):
        mode("mine")
