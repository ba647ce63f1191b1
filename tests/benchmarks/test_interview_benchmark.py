"""The benchmark of interviews, on a small run."""

import pytest
from trained import believing_run

from benchmarks import interview
from metarec_jax.train import run_folder


@pytest.mark.slow
def test_who_is_asked_everything_is_told_the_same_by_all():
    rows = interview.measure(interview.trained([believing_run()]), answers=(1, 1000), questions=(3, 10_000))
    assert len(rows) == 4 * 2 * len(interview.METRICS)
    for row in rows:
        assert row.facts["difference"]["low"] <= row.facts["difference"]["high"]
        if row.case in ("1000 answers", "10000 questions"):
            assert abs(row.ours - row.theirs) < 1e-5
    assert any(row.ours != row.theirs for row in rows if row.case == "1 answer")


@pytest.mark.slow
def test_the_closed_form_is_asked_without_a_training():
    config = run_folder.open_run(believing_run()).config
    rows = interview.measure(interview.closed(config, 2), answers=(2,), questions=(3,))
    assert {row.case for row in rows} == {"2 answers", "3 questions"}
    assert all(0 < row.ours < 4 for row in rows)
