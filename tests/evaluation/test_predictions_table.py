"""What is kept of an evaluation comes back as it was; cohorts and calibration of it against loops."""

import numpy as np
import pytest

from metarec_jax.evaluation.bootstrap import pair_bootstrap
from metarec_jax.evaluation.cohorts import KINDS, calibration, cohorts
from metarec_jax.evaluation.per_user import by_user
from metarec_jax.evaluation.predictions_table import Answers, Questions, SeedAnswers, load, save
from metarec_jax.metrics.auc import LikedScores, global_auc
from metarec_jax.metrics.predictions import Predictions

LEVELS = (1.0, 2.0, 3.0, 4.0, 5.0)


def case(seed, tasks=20, users=9):
    """Answers of two methods, one with a distribution, to questions of tasks of some users."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 5, tasks)
    task = np.repeat(np.arange(tasks), count)
    user = rng.integers(0, users, tasks)[task].astype(np.int32)
    n = len(task)
    questions = Questions(
        task=task,
        user=user,
        item=rng.integers(0, 30, n).astype(np.int32),
        rating=rng.integers(1, 6, n).astype(np.float32),
        history=rng.integers(0, 60, tasks)[task],
        activity=rng.integers(20, 250, users)[user],
        popularity=rng.integers(0, 300, n),
    )
    above = np.sort(rng.random((n, 4)), axis=1)[:, ::-1]
    ours = Predictions(*rng.uniform(1, 5, (3, n)), above=above)
    return Answers(questions, {"ours, with a comma": ours, "rule": Predictions(*rng.uniform(1, 5, (3, n)))})


def test_answers_come_back_as_they_were(tmp_path):
    scenarios = {"new users": case(0), "k = 10: few, and 1/2": case(1)}
    kept = SeedAnswers(scenarios, {"seed": 4, "scenarios": dict.fromkeys(scenarios), "scale": ["é"]})
    save(kept, tmp_path / "answers.parquet")
    found = load(tmp_path / "answers.parquet")
    assert found.about == kept.about
    assert list(found.scenarios) == list(scenarios)
    for name, (questions, predictions) in scenarios.items():
        for got, want in zip(found.scenarios[name].questions, questions):
            np.testing.assert_array_equal(got, want, strict=True)
        for method, said in predictions.items():
            again = found.scenarios[name].predictions[method]
            assert (again.above is None) == (said.above is None)
            for got, want in zip(again, said):
                if want is not None:
                    np.testing.assert_array_equal(got, want, strict=True)


def test_rows_of_a_user_stand_side_by_side():
    user = np.array([5, 3, 5, 9, 3, 5])
    users, rows, mask = by_user(user)
    assert users.tolist() == [3, 5, 9]
    assert [r[m].tolist() for r, m in zip(rows, mask)] == [[1, 4], [0, 2, 5], [3]]


@pytest.mark.parametrize("kind", KINDS, ids=[k.name for k in KINDS])
def test_cohorts(kind):
    seeds = [(0, case(2)), (1, case(3))]
    found = cohorts(seeds, kind, ["ours, with a comma", "rule"], "rule", samples=10)
    assert found
    for cohort in found:
        errors, squares, users, rows = {}, {}, set(), 0
        for method in ("ours, with a comma", "rule"):
            means, of_seeds, rows = [], [], 0
            for _, (questions, predictions) in seeds:
                number = getattr(questions, kind.name)
                inside = [i for i in range(len(number)) if cohort.first <= number[i] <= (cohort.last or 10**9)]
                by = {}
                for i in inside:
                    by.setdefault(int(questions.user[i]), []).append(i)
                users |= set(by)
                rows += len(inside)
                if not by:
                    continue
                error = np.abs(predictions[method].point - questions.rating)
                means.append(np.mean([error[i].mean() for i in by.values()]))
                of_seeds.append(np.sqrt(np.mean((predictions[method].mean - questions.rating)[inside] ** 2)))
            errors[method], squares[method] = np.mean(means), np.mean(of_seeds)
            assert cohort.values["mae"][method].difference == pytest.approx(errors[method])
            assert cohort.values["rmse"][method].difference == pytest.approx(squares[method])
        for metric, want in (("mae", errors), ("rmse", squares)):
            gap = cohort.differences[metric]["ours, with a comma"].difference
            assert gap == pytest.approx(want["ours, with a comma"] - want["rule"])
        assert (cohort.users, cohort.rows) == (len(users), rows)


def test_calibration():
    (questions, predictions), bins = case(4, tasks=200), 5
    said = predictions["ours, with a comma"]
    found = calibration([questions], [said], LEVELS, bins)
    pairs = [(said.above[i, j], questions.rating[i] > j + 1) for i in range(len(questions.user)) for j in range(4)]
    error = 0.0
    for b in range(bins):
        inside = [(p, y) for p, y in pairs if b / bins <= p < (b + 1) / bins]
        assert found.count[b] == len(inside)
        predicted, observed = np.mean(inside, axis=0)
        assert found.predicted[b] == pytest.approx(predicted)
        assert found.observed[b] == pytest.approx(observed)
        error += abs(predicted - observed) * len(inside) / len(pairs)
    assert found.error == pytest.approx(error)
    assert calibration([questions], [predictions["rule"]], LEVELS) is None


def test_the_global_auc_of_all_pairs_and_its_interval():
    rng = np.random.default_rng(6)
    user = rng.integers(0, 12, 150)
    liked = rng.random(150) < 0.6
    score = np.round(rng.normal(size=150) + liked + user / 6, 1)
    found = pair_bootstrap([(score, liked, user)], samples=500)
    assert found.difference == pytest.approx(global_auc(LikedScores(score[liked], score[~liked])))
    assert found.low < found.difference < found.high
    assert found.users == 12
    # Resampling users is counting their pairs: by hand, with the draws that the seed gives.
    rng = np.random.default_rng(0)
    drawn = [rng.integers(12, size=12) for _ in range(1)]
    by_hand = []
    for chosen in drawn:
        s, y = (np.concatenate([x[user == u] for u in chosen]) for x in (score, liked))
        by_hand.append(global_auc(LikedScores(s[y], s[~y])))
    assert pair_bootstrap([(score, liked, user)], samples=1).low == pytest.approx(by_hand[0])


def test_nobody_to_compare_has_no_interval():
    found = pair_bootstrap([(np.arange(3.0), np.ones(3, bool), np.array([0, 1, 1]))], samples=10)
    assert np.isnan([found.difference, found.low, found.high]).all()
