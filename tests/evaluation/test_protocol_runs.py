"""Every protocol from data to tables; and that nothing held out can reach what is trained or predicted elsewhere."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from helpers import assert_equal, random_interactions
from training import TIMES

from metarec_jax.config.data import DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import CLICKS
from metarec_jax.data.negatives import beside_clicks
from metarec_jax.data.protocols import divide
from metarec_jax.evaluation import compare, methods, predictions_table
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.evaluate import answer_seed
from metarec_jax.evaluation.methods import META
from metarec_jax.evaluation.metric_sets import mode
from metarec_jax.evaluation.predictions_table import ask
from metarec_jax.evaluation.write_results import publish
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.parameters import load_trainable

KINDS = ("users", "melu", "tallrec", "few-shot", "time")
SEED = 1
BUDGET = Budget(
    fine_tuning=((1, 0.1), (1, 1.0)),
    item_shrinks=(5.0,),
    user_shrinks=(1.0, 5.0),
    penalties=(1.0, 10.0),
    samples=10,
    plots=False,
)


def made_data():
    """Fifty users with profiles and thirty items with years; the last items come out late."""
    rng = np.random.default_rng(3)
    data = random_interactions(rng, users=50, items=30, least=12, most=18)
    begin = rng.integers(0, 700, 50)
    time = begin[data.user] + rng.permutation(len(data)) % 300
    late = (data.item >= 27) & (time < 760)
    kept = np.flatnonzero(~late)
    data = dataclasses.replace(data, **{f: getattr(data, f)[kept] for f in ("user", "item", "rating")}, time=time[kept])
    words = [f"{a}{b}" for a in "bdfgk" for b in "aeiou"]
    return dataclasses.replace(
        data,
        users=dataclasses.replace(data.users, texts=tuple(" ".join(rng.choice(words, 3)) for _ in range(50))),
        items=dataclasses.replace(
            data.items,
            texts=tuple(" ".join(rng.choice(words, 4)) for _ in range(30)),
            details={"year": tuple(str(1990 + i % 10) for i in range(30))},
        ),
    )


def config_of(kind, folder):
    return Config(
        seed=SEED,
        data=DataConfig(source="synthetic", cache=str(folder)),
        split=SplitConfig(kind=kind, supports=(0, 2, 4), history=3, date="760" if kind == "time" else "", year=1996),
        episodes=EpisodeConfig(
            min_ratings=4,
            max_ratings=14 if kind in ("users", "melu") else 0,
            query=2,
            buckets=(8,),
            validation=0.2,
            test=0.2,
            draws=2,
            lengths="varied" if kind == "few-shot" else "all",
        ),
        encoder=EncoderConfig(path="random", max_length=8),
        factors=FactorsConfig(rank=2),
        learner=LearnerConfig(hidden=4, head="ordinal", user_side="profile"),
        updater=UpdaterConfig(steps=1, rate=0.1, order="first"),
        train=TrainConfig(epochs=1, users_per_step=16, rate=1e-2, patience=0, devices=1),
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The folder and answers of a kind of protocol, on `made_data`; each is made once."""
    cache = tmp_path_factory.mktemp("cache")

    @functools.cache
    def of(kind):
        folder = tmp_path_factory.mktemp(kind)
        return folder, answers_of(made_data(), config_of(kind, cache), folder)

    return of


def answers_of(data, config, folder):
    """What an evaluation keeps of a seed, on these very data."""
    return answer_seed(config, folder / f"seed-{config.seed}", budget=BUDGET, data=data)


# Nothing held out is known


def changed(data, division, which):
    """`data` with everything else said by and about those who are held out: the users `which` accepts, and items that
    nobody trained or was validated on."""
    held_out = ~np.isin(data.user, division.validation.user)  # in what order these have their rows draws their tasks
    held_out[division.train] = False
    users = np.array([which(user) for user in range(len(data.users))])
    rows = held_out & users[data.user]
    assert rows.any()
    known_users, known_items = set(data.user[~held_out].tolist()), set(data.item[~held_out].tolist())
    people = [f"nobody {t}" if u not in known_users and which(u) else t for u, t in enumerate(data.users.texts)]
    texts = data.items.texts
    if all(users):
        texts = [t if i in known_items else f"nothing {t}" for i, t in enumerate(texts)]
    return dataclasses.replace(
        data,
        rating=np.where(rows, 6 - data.rating, data.rating),
        time=np.where(rows, data.time + 100_000, data.time),  # later, in the same order
        users=dataclasses.replace(data.users, texts=tuple(people)),
        items=dataclasses.replace(data.items, texts=tuple(texts)),
    )


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in ("melu", "tallrec", "few-shot", "time"))) for k in KINDS]
)
def test_nothing_that_is_held_out_can_reach_what_is_trained(evaluated, kind, tmp_path):
    """Every rating, time and text of what is held out is changed: training does not notice."""
    folder, before = evaluated(kind)
    data, config = made_data(), config_of(kind, tmp_path)
    division = divide(data, config, SEED)
    other = changed(data, division, lambda user: True)
    assert not np.array_equal(other.rating, data.rating)
    after = answers_of(other, config, tmp_path)
    for name in ("meta", "twin"):
        runs_ = [run_folder.open_run(place / f"seed-{SEED}" / name) for place in (folder, tmp_path)]
        found = [catalogues.load(run) for run in runs_]
        known = found[0].statistics.count > 0  # of a new item, what is believed follows from its own text
        assert_equal(*(tuple(part[known] for part in catalogue.statistics) for catalogue in found))
        assert_equal(*(load_trainable(run, catalogue) for run, catalogue in zip(runs_, found)))
        lines = [[{**line, **dict.fromkeys(TIMES)} for line in run.read_metrics()] for run in runs_]
        assert lines[0] == lines[1]
    assert after.about["settings"] == before.about["settings"]  # what was chosen on validation users
    assert after.about["data"] != before.about["data"]


@pytest.mark.parametrize("kind", ["users", "time"])
def test_nor_can_clicks_that_are_held_out_not_even_by_what_is_drawn_beside_others(kind, tmp_path):
    """Everybody who is held out clicks other items: items drawn beside training clicks are as popular as before."""
    data = random_interactions(np.random.default_rng(4), users=50, items=40, least=7, most=9)
    data = dataclasses.replace(data, rating=np.ones(len(data), np.float32), scale=CLICKS)
    data = dataclasses.replace(data, time=np.random.default_rng(5).permutation(len(data)))
    config = config_of(kind, tmp_path / "cache")
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, kind="click", negatives=2, negatives_popularity=1.0),
        split=dataclasses.replace(config.split, date="250" if kind == "time" else ""),
        episodes=dataclasses.replace(config.episodes, max_ratings=0, buckets=(20,)),
        learner=dataclasses.replace(config.learner, head="click", user_side="none"),
        factors=FactorsConfig(rank=0),  # beliefs are learned from the same rows
    )
    seen = beside_clicks(data, config)
    division = divide(seen, config, SEED)
    known = set(zip(seen.user[division.train].tolist(), seen.time[division.train].tolist()))
    held_out = ~np.isin(data.user, division.validation.user)
    held_out &= np.array([pair not in known for pair in zip(data.user.tolist(), data.time.tolist())])
    assert held_out.sum() > 50
    # Most of them like what few others do, so that popularity over all rows is another.
    other = dataclasses.replace(data, item=np.where(held_out, (data.item * 7 + 3) % 40, data.item).astype(np.int32))
    assert (other.item != data.item)[held_out].mean() > 0.9
    found = [build(config, data=clicks) for clicks in (data, other)]
    for name in ("user", "item", "rating", "time"):
        columns = [getattr(experiment.data, name)[experiment.division.train] for experiment in found]
        assert_equal(*columns)
    assert_equal(*(tuple(experiment.catalogue.statistics[:2]) for experiment in found))
    sources = [experiment.train.source for experiment in found]
    assert len(sources[0]) == len(sources[1]) > 0
    for index in range(len(sources[0])):
        assert_equal(*(source[index] for source in sources))


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k != "time")) for k in KINDS])
def test_what_some_test_users_do_changes_nothing_that_is_predicted_for_others(evaluated, kind, tmp_path):
    _, before = evaluated(kind)
    data, config = made_data(), config_of(kind, tmp_path)
    odd = functools.partial(changed, data, divide(data, config, SEED))(lambda user: user % 2 == 1)
    after = answers_of(odd, config, tmp_path)
    same, different = 0, 0
    for name, (questions, predictions) in before.scenarios.items():
        if not before.about["scenarios"][name]["held_out"]:
            continue
        even = questions.user % 2 == 0
        again = after.scenarios[name]
        np.testing.assert_array_equal(questions.user, again.questions.user)
        for method, said in predictions.items():
            for a, b in zip(said, again.predictions[method]):
                if a is not None:
                    np.testing.assert_array_equal(a[even], b[even], err_msg=f"{name}, {method}")
        same += even.sum()
        different += (predictions[META].mean[~even] != again.predictions[META].mean[~even]).sum()
    assert same > 0
    assert different > 0, "or the change was none"


def test_what_is_asked_of_a_user_who_trained_is_not_among_what_it_is_predicted_from(tmp_path):
    """Beliefs that everybody taught would know the answer: a warm user meets those of the users of other folds."""
    data, config = made_data(), config_of("melu", tmp_path)
    warm = "warm (training users)"
    tasks = divide(data, config, SEED).scenarios[0].tasks
    asked = tasks.query[: tasks.queries[0]]
    other = dataclasses.replace(data, rating=data.rating.copy())
    other.rating[asked] = 6 - np.where(data.rating[asked] == 3, 1, data.rating[asked])
    found = [build(config, data=ratings) for ratings in (data, other)]
    assert not np.array_equal(*(experiment.catalogue.statistics.beliefs for experiment in found)), "everybody's know it"
    method = methods.adapting(found[0].model, methods.untrained(found[0]))
    said = [ask(experiment.tests[warm], method, experiment.catalogue.scale) for experiment in found]
    user = np.repeat(tasks.user, tasks.queries)
    for a, b in zip(*said):
        np.testing.assert_array_equal(a[user == tasks.user[0]], b[user == tasks.user[0]])
    assert (said[0].mean != said[1].mean).any(), "others learn from it"


# What is left behind


SCENARIOS = {
    "users": ["new users"],
    "melu": ["warm (training users)", "new users", "new items", "new users and items"],
    "tallrec": ["3 previous items, liked or not", "the whole past, with stars"],
    "few-shot": ["k = 0", "k = 2", "k = 4"],
    "time": ["everything after the date", "warm users, warm items", "warm users, cold items"],
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in ("tallrec", "melu", "time"))) for k in KINDS]
)
def test_tables_cohorts_calibration_and_plots_of_every_scenario(evaluated, kind, tmp_path):
    _, answers = evaluated(kind)
    tables = publish([answers], tmp_path, budget=BUDGET)
    names = list(tables)
    assert names == SCENARIOS[kind]
    tree = json.loads((tmp_path / "tables" / "evaluation.json").read_text())
    scenarios = tree["scenarios"] if len(names) > 1 else {names[0]: tree}
    assert list(scenarios) == names
    for name, table in tables.items():
        questions, predictions = answers.scenarios[name]
        rating, users = questions.rating, questions.user
        for method in (META, "item mean"):
            error = np.abs(predictions[method].point - rating)
            want = np.mean([error[users == u].mean() for u in np.unique(users)])
            assert table.row(method).cells["mae"].mean == pytest.approx(want, rel=1e-6)
        row = next(m for m in scenarios[name]["methods"] if m["name"] == META)
        spread = row["metrics"]["mae"]["interval"]
        assert spread["low"] <= row["metrics"]["mae"]["mean"] <= spread["high"]
        assert row["metrics"]["auc_global"]["interval"]["users"] == len(np.unique(users))
        trained = any("training performance" in note for note in table.notes)
        assert trained == (name == "warm (training users)")
    cohorts = json.loads((tmp_path / "tables" / "cohorts.json").read_text())["scenarios"]
    calibration = json.loads((tmp_path / "tables" / "calibration.json").read_text())["scenarios"]
    for name in names:
        for parts in cohorts[name]["cohorts"].values():
            assert sum(c["rows"] for c in parts) <= len(answers.scenarios[name].questions.user)
        assert sum(calibration[name]["count"]) == 4 * len(answers.scenarios[name].questions.user)
    text = (tmp_path / "tables" / "evaluation.md").read_text()
    assert all(f"## {name}, 1 seed" in text for name in names) or len(names) == 1


def test_the_curve_has_every_k_with_its_interval(evaluated, tmp_path):
    tables = publish([evaluated("few-shot")[1]], tmp_path, budget=dataclasses.replace(BUDGET, plots=True))
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {"curve.png", *(f"{what}-k-4.png" for what in ("methods", "improvement", "cohorts", "reliability"))}
    curve = json.loads((tmp_path / "tables" / "curve.json").read_text())
    assert curve["k"] == [0, 2, 4]
    assert META in curve["methods"]
    for place, table in enumerate(tables.values()):
        cell = table.row(META).cells["mae"]
        assert curve["methods"][META]["mae"][place] == {
            "mean": cell.mean,
            "low": cell.interval.low,
            "high": cell.interval.high,
        }
    assert (tmp_path / "plots" / "curve.png").stat().st_size > 1000
    # Without support there is nothing to adapt to.
    row = next(iter(tables.values()))
    assert row.row(META).cells["mae"] == row.row("meta-learned, before adapting").cells["mae"]


@pytest.mark.parametrize("name", ["melu", "recbole-metarec", "mamo", "metahin"])
def test_other_peoples_metrics_of_the_same_answers(evaluated, name, tmp_path):
    (table,) = publish([evaluated("users")[1]], tmp_path, name, BUDGET).values()
    assert [m.name for m in table.metrics] == list(mode(name).metrics)
    assert all(list(row.cells) == list(mode(name).metrics) for row in table.rows), "and nothing that nobody asked for"
    assert any("Beware" in note for note in table.notes)


# Comparisons


def test_an_evaluation_compared_with_itself_and_by_method(evaluated):
    folder, answers = evaluated("users")
    same = compare.compare(folder, folder, samples=20)
    assert {line.difference.difference for line in same.lines} == {0.0}
    found = compare.compare(folder, folder, reference="item mean", samples=20)
    questions, predictions = answers.scenarios["new users"]

    def mae(method, rows):
        error = np.abs(predictions[method].point - questions.rating)
        return np.mean([error[rows & (questions.user == u)].mean() for u in np.unique(questions.user[rows])])

    lines = {(x.rows, x.metric): x for x in found.lines}
    everything = np.ones(len(questions.user), bool)
    few = (questions.history >= 4) & (questions.history <= 10)
    for label, rows in (("all rows", everything), ("ratings in the support: 4–10", few)):
        line = lines[label, "mae"]
        assert line.a.difference == pytest.approx(mae(META, rows), rel=1e-6)
        assert line.b.difference == pytest.approx(mae("item mean", rows), rel=1e-6)
        assert line.difference.difference == pytest.approx(mae(META, rows) - mae("item mean", rows), abs=1e-9)
        assert line.difference.users == len(np.unique(questions.user[rows]))


def test_evaluations_of_other_splits_data_or_seeds_are_refused(evaluated, tmp_path):
    folder, answers = evaluated("users")

    def kept(name, **about):
        record = dataclasses.replace(answers, about={**answers.about, **about})
        place = tmp_path / name / "seed-1"
        place.mkdir(parents=True)
        predictions_table.save(record, place / "answers.parquet")
        return place.parent

    refused = {
        kept("data", data="0" * 64): "are about different data .invented; invented.",
        kept("seed", seed=7): "has seeds 1 and .* has 7: other seeds are other splits",
        evaluated("time")[0]: "are of different protocols .new users; everything after the date",
        tmp_path: "holds no evaluation: name a run folder",
    }
    for other, words in refused.items():
        with pytest.raises(MetarecError, match=words):
            compare.compare(folder, other)
    questions, predictions = answers.scenarios["new users"]
    moved = questions._replace(item=questions.item[::-1].copy())
    scenarios = {"new users": predictions_table.Answers(moved, predictions)}
    place = tmp_path / "split" / "seed-1"
    place.mkdir(parents=True)
    predictions_table.save(dataclasses.replace(answers, scenarios=scenarios), place / "answers.parquet")
    with pytest.raises(MetarecError, match="are of different splits: in seed 1 they ask about other rows"):
        compare.compare(folder, place.parent)
    with pytest.raises(MetarecError, match="has no method 'mine'; it has constant, random order, popularity"):
        compare.compare(folder, folder, method="mine")
    (place / "answers.parquet").write_bytes(b"no")
    with pytest.raises(MetarecError, match="is damaged: evaluate again"):
        compare.compare(folder, place.parent)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MetarecError, match="was not evaluated yet: run `metarec evaluate"):
        compare.compare(folder, tmp_path)
