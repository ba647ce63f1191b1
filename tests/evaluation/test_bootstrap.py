"""The paired bootstrap: what it estimates, how often it covers, and what it keeps together."""

import math

import numpy as np
import pytest

from metarec_jax.evaluation.bootstrap import DRAWS_AT_ONCE, Interval, paired_bootstrap


def test_a_method_against_itself_differs_by_exactly_zero():
    a = np.random.default_rng(0).normal(size=50)
    found = paired_bootstrap(a, a, np.ones(50))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert not found.excludes_zero


def test_a_constant_gain_is_certain_however_much_users_differ():
    a = np.random.default_rng(0).normal(size=50) * 100
    found = paired_bootstrap(a - 0.5, a, np.ones(50))
    assert found.difference == pytest.approx(-0.5)
    assert found.low == pytest.approx(-0.5)
    assert found.high == pytest.approx(-0.5)
    assert found.excludes_zero
    assert found.p == pytest.approx(2 / 2001)


def test_interval_has_the_width_of_the_standard_error():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 400))
    found = paired_bootstrap(a, b, np.ones(400), samples=20_000)
    error = (a - b).std() / math.sqrt(400)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.03)


def test_intervals_cover_the_truth_as_often_as_they_say():
    # Method a is better by .1 on average; users differ. 400 intervals at 90 %: a binomial of s.d. 1.5 %.
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(400):
        user = rng.gamma(2.0, size=60)
        a, b = user + rng.normal(size=60) - 0.1, user + rng.normal(size=60)
        found = paired_bootstrap(a, b, np.ones(60), samples=300, seed=trial, level=0.9)
        covered += found.low <= -0.1 <= found.high
    assert 0.85 <= covered / 400 <= 0.95


def test_appearances_of_one_user_are_drawn_together():
    # 30 users, each seen in 10 seeds with the same gain: there is no more to learn than from 30 users.
    rng = np.random.default_rng(3)
    gain = rng.normal(size=30)
    once = paired_bootstrap(gain, np.zeros(30), np.ones(30), samples=20_000)
    users, seeds = np.tile(np.arange(30), 10), np.repeat(np.arange(10), 30)
    again = paired_bootstrap(np.tile(gain, 10), np.zeros(300), np.ones(300), groups=users, strata=seeds, samples=20_000)
    assert again.users == 30
    assert again.low == pytest.approx(once.low, abs=1e-9)
    assert again.high == pytest.approx(once.high, abs=1e-9)
    naive = paired_bootstrap(np.tile(gain, 10), np.zeros(300), np.ones(300), samples=20_000)
    assert naive.high - naive.low < 0.4 * (once.high - once.low)


def test_the_difference_is_that_of_the_means_over_seeds_of_a_root_of_a_ratio():
    rng = np.random.default_rng(4)
    a, b, rows = rng.gamma(2.0, size=90), rng.gamma(2.0, size=90), rng.integers(1, 11, 90).astype(float)
    seeds, users = np.repeat([5, 7, 9], [10, 30, 50]), np.array([f"u{i}" for i in rng.integers(0, 40, 90)])
    found = paired_bootstrap(a, b, rows, groups=users, strata=seeds, transform=np.sqrt)

    def root(x):
        return np.mean([math.sqrt((x * rows)[seeds == s].sum() / rows[seeds == s].sum()) for s in (5, 7, 9)])

    assert found.difference == pytest.approx(root(a) - root(b), rel=1e-12)
    assert found.low < found.difference < found.high


def test_bounded_memory_changes_nothing():
    users = 100
    samples = 5 * DRAWS_AT_ONCE // (2 * users)  # two parts and a half
    a, b = np.random.default_rng(5).normal(size=(2, users))
    parts = paired_bootstrap(a, b, np.ones(users), samples=samples)
    # The generator's stream is the same, however it is cut; the sums may round otherwise.
    drawn = (a - b)[np.random.default_rng(0).integers(users, size=(samples, users))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    whole = ((a - b).mean(), low, high, 2 * (min(np.sum(drawn <= 0), np.sum(drawn >= 0)) + 1) / (samples + 1))
    assert parts[:4] == pytest.approx(whole, rel=1e-12)
    assert parts != paired_bootstrap(a, b, np.ones(users), samples=samples, seed=1)


def test_rows_of_weight_0_do_not_count():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 60))
    weight = np.repeat([1.0, 0.0], 30)
    spoiled = np.where(weight > 0, a, 1e9)
    assert paired_bootstrap(spoiled, b, weight) == paired_bootstrap(a[:30], b[:30], np.ones(30))
    nobody = paired_bootstrap(a, b, np.zeros(60))
    assert nobody.users == 0
    assert math.isnan(nobody.low)
    assert not nobody.excludes_zero


def test_a_seed_that_a_resample_misses_is_left_out_of_its_mean():
    # Two users, each alone in a seed: a resample draws one of them twice or both, and every mean is then 1, 2 or 3.
    found = paired_bootstrap(
        np.array([1.0, 3.0]), np.zeros(2), np.ones(2), groups=np.array([0, 1]), strata=np.array([0, 1]), level=0.98
    )
    assert found[:3] == (2, 1, 3)


def test_an_interval_excludes_zero_only_when_it_lies_on_one_side():
    def interval(low, high):
        return Interval(0.0, low, high, 0.5, 0.95, 10, 100)

    assert interval(0.1, 0.2).excludes_zero
    assert interval(-0.2, -0.1).excludes_zero
    assert not interval(-0.1, 0.1).excludes_zero
    assert not interval(0.0, 0.1).excludes_zero
