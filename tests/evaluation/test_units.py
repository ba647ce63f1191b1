"""Figures do not depend on the unit that ratings are written in."""

import dataclasses
import warnings

import numpy as np
import pytest
from helpers import assert_close, assert_each_close, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from trained import small_config, small_data
from training import small_config as tiny_config
from training import small_experiment

from metarec_jax.config.data import DataConfig
from metarec_jax.core.scale import STARS, Scale
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.methods import _rules
from metarec_jax.evaluation.per_user import judge, judge_rows
from metarec_jax.evaluation.predictions_table import Questions
from metarec_jax.metrics.definitions import LISTS, METRICS, metric
from metarec_jax.metrics.metrics import compute, sums
from metarec_jax.metrics.predictions import Predictions
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train.start import meta_train

UNITS = st.tuples(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
LISTED = {name.partition("@")[0] for name in LISTS}
NAMES = [
    name.replace("@k", "@3") for name, spec in METRICS.items() if spec.per_user and name.partition("@")[0] not in LISTED
]


def in_unit(a: float, b: float, levels: tuple[float, ...] = STARS.levels) -> Scale:
    """The scale of ratings a r + b of ratings r of 1 to 5."""
    return Scale("rating", tuple(a * level + b for level in levels), a + b, 5 * a + b)


def asked(rng: np.random.Generator, a: float, b: float) -> tuple[Questions, Predictions]:
    """Random questions and predictions of 1 to 5, written as a r + b."""
    rows = 60
    user, item = rng.integers(0, 6, rows), np.arange(rows)
    rating, mean = rng.integers(1, 6, rows).astype(float), rng.uniform(1, 5, rows)
    nothing = np.zeros(rows, np.int64)
    questions = Questions(nothing, user, item, a * rating + b, nothing, nothing, nothing)
    return questions, Predictions(a * np.round(mean) + b, a * mean + b, mean)


@given(UNITS, st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_metrics_follow_the_unit(unit, seed):
    """Errors are a times as large, and all other metrics the same."""
    a, b = unit
    one, two = (
        judge_rows(*asked(np.random.default_rng(seed), *ab), in_unit(*ab), seed=0, name="it", metrics=NAMES)
        for ab in ((1.0, 0.0), unit)
    )
    ones, twos = (compute(sums(found.values)) for found in (one, two))
    for name in NAMES:
        times = a if metric(name).in_ratings else 1.0
        assert_each_close(
            twos[name],
            times * ones[name],
            floor=1e-9 * times * max(1, abs(b) / a),
            because="float64, after a shift by b",
            name=name,
        )
    assert_each_close(two.overall["auc_global"], one.overall["auc_global"])
    assert min(twos[f"ndcg{kind}@3"] for kind in ("", "_linear", "_binary")) >= 0
    assert max(twos[f"ndcg{kind}@3"] for kind in ("", "_linear", "_binary")) <= 1


@pytest.mark.parametrize("high", [10.0, 1024.0, 5000.0, 1e9])
def test_large_ratings_have_an_ndcg(high):
    """Without a warning of NumPy, which is an error here."""
    questions, said = asked(np.random.default_rng(0), (high - 1) / 4, 1 - (high - 1) / 4)
    scale = Scale("rating", (), 1.0, high)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute(sums(judge_rows(questions, said, scale, seed=0, name="it", metrics=NAMES).values))
    assert all(np.isfinite(value) for name, value in found.items() if name != "accuracy")
    assert 0 < found["ndcg@3"] <= 1


@pytest.mark.parametrize("unit", [(2.0, 0.0), (0.2, 0.0), (5.0, -15.0)])
def test_baselines_follow_the_unit(unit):
    experiment = small_experiment(tiny_config())
    catalogue = dataclasses.replace(experiment.catalogue, scale=in_unit(*unit))
    data = dataclasses.replace(experiment.data, scale=in_unit(*unit))
    other = dataclasses.replace(experiment, catalogue=catalogue, data=data)
    budget = Budget(item_shrinks=(1.0, 5.0), user_shrinks=(5.0,), penalties=(1.0,))
    for rule, same in zip(_rules(experiment, budget), _rules(other, budget)):
        found = [
            compute(sums(judge(e, e.validation, r.name, lambda _, episodes, r=r: r.predict(episodes)).values))
            for e, r in ((experiment, rule), (other, same))
        ]
        assert rule.settings == same.settings
        for name, value in found[0].items():
            times = unit[0] if metric(name).in_ratings else 1.0
            assert_each_close(found[1][name], times * value, tolerance=1e-9, because="float64", name=name)


@pytest.mark.slow
def test_a_run_follows_the_unit(tmp_path):
    """Parameters are equal bit by bit, item factors are, and predictions are a r + b."""
    a, b = 0.2, -0.3
    config = small_config()
    config = dataclasses.replace(
        config,
        factors=dataclasses.replace(config.factors, rank=2),
        learner=dataclasses.replace(config.learner, user_side="none"),
        train=dataclasses.replace(config.train, epochs=1),
    )
    data, found = small_data(), []
    for name, (times, plus) in {"one": (1, 0), "two": (a, b)}.items():
        rows = zip(data.user.tolist(), data.item.tolist(), (times * data.rating.astype(float) + plus).tolist())
        lines = [f"{data.users.ids[u]},{data.items.ids[i]},{r!r},0\n" for u, i, r in rows]
        (tmp_path / f"{name}.csv").write_text("user_id,item_id,rating,timestamp\n" + "".join(lines))
        source = DataConfig(source="table", path=str(tmp_path / f"{name}.csv"))
        meta_train(dataclasses.replace(config, data=source), tmp_path / name)
        found.append(Recommender.load(tmp_path / name))
    one, two = found
    assert_equal(two.executor.trainable, one.executor.trainable)
    assert_equal(two.catalogue.beliefs.table, one.catalogue.beliefs.table)
    ids = one.catalogue.items.ids
    history = [(f"id:{ids[n]}", rating) for n, rating in enumerate((1, 5, 2, 4))]
    states = one.adapt(history), two.adapt([(item, a * rating + b) for item, rating in history])
    lists = [r.recommend(state, k=5) for r, state in zip(found, states)]
    assert [item.id for item in lists[0]] == [item.id for item in lists[1]]
    assert_close(np.array([item.score for item in lists[1]]), a * np.array([item.score for item in lists[0]]) + b)
    assert_close(two.score(states[1], [f"id:{ids[7]}"]), a * one.score(states[0], [f"id:{ids[7]}"]).astype(float) + b)
    reasons = [r.explain(state, [f"id:{ids[9]}"])[0] for r, state in zip(found, states)]
    given = {reason.id: reason.rating for reason in reasons[1].influences}
    assert given == {ids[n]: round(a * rating + b, 6) for n, (_, rating) in enumerate(history)}
    restored = two.from_bytes(two.to_bytes(states[1]))
    assert two.recommend(restored, k=5) == lists[1]
