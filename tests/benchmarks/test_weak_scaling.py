"""The benchmark of one process and two, small."""

import pytest

from benchmarks.weak_scaling import measure


@pytest.mark.slow  # five processes compile the usual learner
def test_three_trainings_are_compared_by_their_users_of_a_second(tmp_path):
    rows = measure(rows=32_000, users=8, epochs=2, rounds=1, folder=tmp_path)
    assert [row.contender.split()[0] for row in rows] == ["1", "2", "1"]
    for row in rows:
        assert row.ratio["median"] == pytest.approx(row.ours / row.theirs)
        assert {name: len(rates) for name, rates in row.facts["users/s"].items()} == {
            "alone": 1,
            "apart": 1,
            "together": 1,
        }
    assert not list(tmp_path.glob("run*"))
