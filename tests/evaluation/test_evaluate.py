"""The comparison: every method on the same test users, kept as it goes, and nothing of them known to training."""

import contextlib
import csv
import dataclasses
import functools
import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import assert_equal, random_interactions
from training import TIMES, Watch

from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core import locks
from metarec_jax.core.errors import MetarecError, Stopped
from metarec_jax.core.params import partition
from metarec_jax.data.describe import descriptions
from metarec_jax.evaluation import predictions_table
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.evaluate import LOCK, answer_seeds, evaluate
from metarec_jax.evaluation.methods import BEFORE, BIAS, META, TUNED, TWIN, adapting, not_adapting
from metarec_jax.evaluation.metric_sets import mode
from metarec_jax.evaluation.per_user import judge
from metarec_jax.evaluation.report import to_json
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import predict
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.model import make_model
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.start import fit, meta_train

SEED = 3
CHOICES = ((1, 0.1), (1, 1.0), (5, 0.3))
"""Steps and rates of fine-tuning: fewer than `Budget` has, so that fewer programs are compiled."""
BUDGET = Budget(fine_tuning=CHOICES, samples=20, plots=False)


def write_csv(path, data, rating):
    """The interactions of `data` with these ratings, as a file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "rating", "timestamp"])
        for user, item, value, time in zip(data.user, data.item, rating, data.time):
            writer.writerow([data.users.ids[user], data.items.ids[item], int(value), int(time)])
    return path


@pytest.fixture(scope="module")
def data():
    """Forty users and twenty items. Users differ in how they rate, so that there is something to adapt to."""
    rng = np.random.default_rng(0)
    data = random_interactions(rng, users=40, items=20, least=8, most=12)
    taste = 0.3 * rng.normal(size=(40, 20)) + 1.5 * rng.normal(size=(40, 1)) + 3
    rating = np.clip(np.round(taste[data.user, data.item]), 1, 5).astype(np.float32)
    return dataclasses.replace(data, rating=rating)


@pytest.fixture(scope="module")
def config(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return Config(
        seed=SEED,
        data=DataConfig(
            source="table", path=str(write_csv(folder / "ratings.csv", data, data.rating)), cache=str(folder / "cache")
        ),
        episodes=EpisodeConfig(min_ratings=8, query=4, buckets=(8,), validation=0.2, test=0.2, draws=2),
        encoder=EncoderConfig(path="random", max_length=8),
        factors=FactorsConfig(rank=0),
        learner=LearnerConfig(hidden=4, head="rating", user_side="none", dropout=0.1),
        updater=UpdaterConfig(steps=2, rate=0.1),
        train=TrainConfig(epochs=3, users_per_step=8, rate=1e-2, patience=0, devices=1),
    )


@pytest.fixture(scope="module")
def experiment(config):
    return build(config)


@pytest.fixture(scope="module")
def evaluated(config, tmp_path_factory):
    """(folder, table) of a whole evaluation of one seed."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    return folder, table_of(config, seeds=[SEED], folder=folder, budget=dataclasses.replace(BUDGET, plots=True))


@pytest.fixture
def copy(evaluated, tmp_path):
    """A copy of the evaluated folder, to change something in."""
    return Path(shutil.copytree(evaluated[0], tmp_path / "copy"))


class Steps:
    """A reporter that records the outer steps of the trainings of one seed: (name of the run, step).

    Args:
        seed_folder: of the seed; its twin is trained after its model.
        on_step: called with each of them.
    """

    def __init__(self, seed_folder, on_step=lambda taken: None):
        self.taken = []
        self._twin, self._on_step = seed_folder / "twin", on_step

    def note(self, text):
        pass

    @contextlib.contextmanager
    def bar(self, label, total):
        yield self._advance if label == "meta-training" else lambda done, text="": None

    def _advance(self, done, text=""):
        self.taken.append(("twin" if self._twin.exists() else "meta", done))
        self._on_step(self.taken[-1])


def table_of(config, *, budget=BUDGET, **options):
    """The only table of an evaluation."""
    (table,) = evaluate(config, budget=budget, **options).values()
    return table


def as_text(table):
    return to_json(table, {})


def answers_in(folder):
    """{method: predictions} of the only scenario, and its questions."""
    (found,) = predictions_table.load(folder / f"seed-{SEED}" / "answers.parquet").scenarios.values()
    return {name: tuple(said[:3]) for name, said in found.predictions.items()}, found.questions


# What the table says


def test_the_table_has_every_rule_the_twin_and_the_model(evaluated):
    _, table = evaluated
    methods = [row.method for row in table.rows]
    assert len(set(methods)) == len(methods)
    rules = {
        "constant, random order",
        "popularity",
        "user mean",
        "user median",
        "item mean",
        "item mean + user bias",
        "item mean + user bias, nearest level",
        "ridge per user",
        "ridge per user, nearest level",
    }
    networks = {
        "twin, unadapted",
        "twin, shown the support",
        "twin, fine-tuned",
        "meta-learned, before adapting",
        "meta-learned",
    }
    assert set(methods) == rules | networks
    assert table.subject == META
    assert set(table.references) >= {BIAS, TWIN, TUNED}
    for row in table.rows:
        assert row.definition, row.method
        assert tuple(row.cells) == mode("own").metrics
        assert all(np.isfinite(row.cells[name].mean) for name in ("mae", "rmse", "ndcg@5")), row.method
    assert {(s["steps"], s["rate"]) for s in table.row(TUNED).settings} <= set(CHOICES)
    assert "query = 4 random items of each user, support = the rest (at most 8)" in table.notes[0]


def test_only_test_users_are_in_it_and_all_of_them(evaluated, experiment):
    folder, _ = evaluated
    splits = experiment.splits
    others = set(splits.train.tolist()) | set(splits.validation.tolist())
    users = set(answers_in(folder)[1].user.tolist())
    assert sorted(users) == sorted(splits.test.tolist())
    assert not others & users
    assert len(splits.test) == 8
    assert len(others) == 32


def test_the_figures_are_those_of_the_predictions(evaluated, experiment, config):
    """MAE, RMSE and global AUC of the model, and the MAE of a rule, worked out from what they predict."""
    folder, table = evaluated
    run = run_folder.open_run(folder / f"seed-{SEED}" / "meta")
    assert run.config == experiment.config
    trainable = load_trainable(run, experiment.catalogue)
    by_user, squares, liked, disliked, median_by_user = [], [], [], [], []
    for index in range(len(experiment.test.source)):
        episodes = experiment.test.source[index]
        tables = experiment.model.prepare(trainable.theta, experiment.test.tables)
        outputs = jax.jit(functools.partial(predict, experiment.model))(trainable, tables, episodes)
        for u in np.flatnonzero(episodes.weight):
            query = episodes.query.mask[u] > 0
            rating = episodes.query.rating[u][query]
            guess = np.asarray(experiment.model.head.mean(outputs[u]))[query]
            by_user.append(np.abs(guess - rating).mean())
            squares += list((guess - rating) ** 2)
            liked += list(guess[rating >= 4])
            disliked += list(guess[rating < 4])
            support = episodes.support.rating[u][episodes.support.mask[u] > 0]
            median_by_user.append(np.abs(np.median(support) - rating).mean())
    assert len(by_user) == 8
    cells = table.row(META).cells
    assert cells["mae"].mean == pytest.approx(np.mean(by_user), rel=1e-6)
    assert cells["rmse"].mean == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)
    wins = [(a > b) + (a == b) / 2 for a in liked for b in disliked]
    assert cells["auc_global"].mean == pytest.approx(np.mean(wins), rel=1e-6)
    assert table.row("user median").cells["mae"].mean == pytest.approx(np.mean(median_by_user), rel=1e-6)


def test_the_model_before_adapting_has_seen_no_rating_of_the_user(evaluated, experiment):
    folder, table = evaluated
    trainable = load_trainable(run_folder.open_run(folder / f"seed-{SEED}" / "meta"), experiment.catalogue)
    method = not_adapting(experiment.model, trainable)
    episodes = experiment.test.source[0]
    turned = episodes._replace(support=jax.tree.map(lambda leaf: leaf[::-1].copy(), episodes.support))
    assert_equal(method(experiment.test.tables, turned), method(experiment.test.tables, episodes))
    adapted = adapting(experiment.model, trainable)(experiment.test.tables, episodes)
    assert not np.array_equal(adapted.mean, method(experiment.test.tables, episodes).mean)
    assert table.row(BEFORE).cells["mae"].mean != table.row(META).cells["mae"].mean


def test_the_twin_is_the_same_network_trained_on_the_same_users(evaluated, experiment):
    folder, _ = evaluated
    meta, twin = (run_folder.open_run(folder / f"seed-{SEED}" / name) for name in ("meta", "twin"))
    changed = [
        (group, field)
        for group in ("data", "episodes", "encoder", "learner", "updater", "train")
        for field in vars(getattr(meta.config, group))
        if getattr(getattr(meta.config, group), field) != getattr(getattr(twin.config, group), field)
    ]
    assert changed == [("updater", "steps")]
    assert twin.config.updater.steps == 0
    assert twin.config.seed == meta.config.seed
    one, other = (load_trainable(run, experiment.catalogue).theta for run in (meta, twin))
    shapes = [jax.tree.map(np.shape, theta) for theta in (one, other)]
    assert shapes[0] == shapes[1]
    assert not np.array_equal(one["hidden"]["item"]["kernel"], other["hidden"]["item"]["kernel"])
    # As many epochs over the same batches.
    assert [line["step"] for line in meta.read_metrics()] == [line["step"] for line in twin.read_metrics()]


def test_fine_tuning_takes_what_is_best_on_validation_users(evaluated, experiment):
    folder, table = evaluated
    twin = load_trainable(run_folder.open_run(folder / f"seed-{SEED}" / "twin"), experiment.catalogue)
    errors = {}
    for steps, rate in CHOICES:
        updater = UpdaterConfig(steps=steps, rate=rate, learn_rate="layer", adapted=experiment.model.adapted)
        model = make_model(dataclasses.replace(experiment.config, updater=updater), experiment.catalogue.scale)
        phi = model.updater.init(partition(twin.theta, model.adapted)[0])
        method = adapting(model, Trainable(twin.theta, phi))
        result = judge(experiment, experiment.validation, "tried", method)
        assert sorted(result.users) == sorted(experiment.splits.validation)
        errors[float(steps), rate] = np.mean(result.values["mae"].values)
    assert len(set(errors.values())) == len(CHOICES)
    (settings,) = table.row(TUNED).settings
    assert (settings["steps"], settings["rate"]) == min(errors, key=errors.get)


def test_a_table_and_plots_are_left_behind(evaluated):
    folder, table = evaluated
    written = sorted(str(path.relative_to(folder)) for path in folder.glob("[tp]*/*"))
    assert [name for name in written if name.startswith("plots")] == [
        "plots/cohorts.png",
        "plots/improvement.png",
        "plots/methods.png",
    ]
    names = {"evaluation.json", "evaluation.md", "cohorts.json", "calibration.json"}
    assert {path.name for path in (folder / "tables").iterdir()} == names
    text = folder / "tables" / "evaluation.json"
    found = {m["name"]: m["metrics"]["mae"]["mean"] for m in json.loads(text.read_text())["methods"]}
    assert found == {row.method: row.cells["mae"].mean for row in table.rows}


# What is kept


def test_an_evaluation_that_was_done_is_only_read(evaluated, config, copy):
    class Refuses:
        """A reporter that nothing may call: reading data, training and predicting all do."""

        def note(self, text):
            raise AssertionError(f"done again: {text}")

        def bar(self, label, total):
            raise AssertionError(f"done again: {label}")

    again = table_of(config, seeds=[SEED], folder=copy, reporter=Refuses())
    assert as_text(again) == as_text(evaluated[1])


@pytest.mark.parametrize(
    "damage",
    ["cut in half", *(pytest.param(d, marks=pytest.mark.slow) for d in ("deleted", "no table", "of another layout"))],
)
def test_lost_answers_are_asked_again_without_training(evaluated, config, copy, damage):
    steps = Steps(copy / f"seed-{SEED}")
    path = copy / f"seed-{SEED}" / "answers.parquet"
    kept, whole = answers_in(copy), path.read_bytes()
    path.unlink()
    if damage == "of another layout":
        other = pa.table({"user": [1, 2]}).replace_schema_metadata({"about": json.dumps({"scenarios": {"a": {}}})})
        pq.write_table(other, path)
    elif damage != "deleted":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut in half" else b"[]")
    assert as_text(table_of(config, seeds=[SEED], folder=copy, reporter=steps)) == as_text(evaluated[1])
    assert steps.taken == []
    assert_equal(answers_in(copy), kept)


@pytest.mark.parametrize(
    ("stop", "first"),
    [pytest.param(("twin", 4), ("twin", 6), marks=pytest.mark.slow), (("meta", 9), ("twin", 1))],
    ids=["in the second epoch of the twin", "in the last step of the model"],
)
def test_an_interrupted_evaluation_goes_on_where_it_was(evaluated, config, tmp_path, stop, first):
    folder = tmp_path / "run"

    def interrupt(taken):
        """Ctrl-C during a step."""
        if taken == stop:
            signal.raise_signal(signal.SIGINT)

    before = Steps(folder / f"seed-{SEED}", interrupt)
    with pytest.raises(Stopped) as stopped:
        evaluate(config, seeds=[SEED], folder=folder, budget=BUDGET, reporter=before)
    assert stopped.value.number == signal.SIGINT
    assert not (folder / f"seed-{SEED}" / "answers.parquet").exists()
    after = Steps(folder / f"seed-{SEED}")
    assert as_text(table_of(config, seeds=[SEED], folder=folder, reporter=after)) == as_text(evaluated[1])
    assert_equal(answers_in(folder), answers_in(evaluated[0]))
    assert after.taken[0] == first, "finished steps are not taken again"


def test_a_seed_that_another_process_answered_is_read_and_leaves_the_first_alone(evaluated, config, copy):
    steps = Steps(copy / f"seed-{SEED + 1}")
    answer_seeds(config, seeds=[SEED + 1], folder=copy, budget=BUDGET, reporter=steps)
    assert {name for name, _ in steps.taken} == {"meta", "twin"}
    taken = len(steps.taken)
    table = table_of(config, seeds=[SEED, SEED + 1], folder=copy, reporter=steps)
    assert len(steps.taken) == taken, "the other seed is not trained again"
    assert table.seeds == (SEED, SEED + 1)
    for row in table.rows:
        assert row.cells["mae"].seeds[0] == evaluated[1].row(row.method).cells["mae"].mean
    assert table.row(META).cells["mae"].seeds[1] != table.row(META).cells["mae"].seeds[0]
    assert_equal(answers_in(copy), answers_in(evaluated[0]))


def test_a_twin_that_was_trained_by_itself_is_read(evaluated, config, copy):
    """As by `metarec train --distributed --updater.steps 0 --updater.order second` (docs/pods.md)."""
    folder = copy / f"seed-{SEED}"
    (folder / "answers.parquet").unlink()
    shutil.rmtree(folder / "twin")
    updater = dataclasses.replace(config.updater, steps=0, order="second")
    meta_train(dataclasses.replace(config, updater=updater), folder / "twin")
    steps = Steps(folder)
    answer_seeds(config, seeds=[SEED], folder=copy, budget=BUDGET, reporter=steps)
    assert steps.taken == []
    assert_equal(answers_in(copy), answers_in(evaluated[0]))


def test_a_seed_that_another_process_works_on_is_refused_by_its_number(config, copy):
    with (
        locks.hold(copy / f"seed-{SEED}" / LOCK, "the seed"),
        pytest.raises(MetarecError, match=f"^seed {SEED} of the evaluation in .*copy is in use by process"),
    ):
        answer_seeds(config, seeds=[SEED], folder=copy, budget=BUDGET)


def test_other_options_are_refused_and_change_nothing(config, copy):
    other = dataclasses.replace(config, learner=dataclasses.replace(config.learner, hidden=5))
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(MetarecError) as caught:
        evaluate(other, seeds=[SEED], folder=copy)
    said = "holds a run with other options than are asked for now: name another --out, or delete it"
    assert str(caught.value) == f"{copy}/seed-{SEED}/meta {said}"
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


def test_a_run_that_was_trained_further_is_judged_again(evaluated, config, copy, experiment, tmp_path):
    """Its results belong to the parameters of the time, not to its config."""
    shutil.rmtree(copy / f"seed-{SEED}" / "meta")
    run = run_folder.create(tmp_path / "given", experiment.config)
    stop = Watch(on_step=lambda step: signal.raise_signal(signal.SIGTERM) if step == 3 else None)
    assert fit(run, experiment, reporter=stop).progress.epoch == 1
    early = table_of(config, seeds=[SEED], folder=copy, run=run)
    fit(run, experiment)
    late = table_of(config, seeds=[SEED], folder=copy, run=run)
    assert early.row(META).cells["mae"].mean != late.row(META).cells["mae"].mean
    assert early.row(TWIN).cells == late.row(TWIN).cells
    assert as_text(late) == as_text(evaluated[1])
    assert_equal(answers_in(copy), answers_in(evaluated[0]))


def test_a_run_with_other_options_is_refused(config, copy, experiment, tmp_path):
    other = dataclasses.replace(experiment.config, updater=dataclasses.replace(experiment.config.updater, rate=0.2))
    run = run_folder.create(tmp_path / "given", other)
    with pytest.raises(MetarecError, match=rf"^{run.folder} was trained with other options than are asked for now"):
        evaluate(config, seeds=[SEED], folder=copy, run=run)


# Nothing of a test user is known to training


def changed_ratings(data, users):
    """The ratings of `users` turned upside down; all others as they were."""
    return np.where(np.isin(data.user, users), 6 - data.rating, data.rating)


def trained_on(experiment, rating, place):
    """(fitted, experiment, run) of a training on the data of `experiment` with these ratings."""
    place.mkdir()
    path = str(write_csv(place / "ratings.csv", experiment.data, rating))
    config = dataclasses.replace(experiment.config, data=dataclasses.replace(experiment.config.data, path=path))
    found = build(config)
    run = run_folder.create(place / "run", found.config)
    return fit(run, found), found, run


def test_ratings_of_test_users_cannot_influence_training(evaluated, experiment, tmp_path):
    splits = experiment.splits
    fitted, found, run = trained_on(experiment, changed_ratings(experiment.data, splits.test), tmp_path / "test")
    for got, want in zip(found.splits, splits):
        np.testing.assert_array_equal(got, want)
    before, after = (a.data.rating[np.isin(a.data.user, splits.test)] for a in (experiment, found))
    assert not np.array_equal(before, after)

    meta = run_folder.open_run(evaluated[0] / f"seed-{SEED}" / "meta")
    assert_equal(fitted.trainable, load_trainable(meta, experiment.catalogue))
    assert without_speed(run) == without_speed(meta)
    assert_equal(tuple(found.catalogue.statistics), tuple(experiment.catalogue.statistics))
    # What a description of a training user would be made from, too.
    for name in ("train", "validation"):
        got, want = (
            descriptions(getattr(a, name).source, a.data.items.titles, middle=3.0) for a in (found, experiment)
        )
        assert got == want


def test_ratings_of_validation_users_choose_but_do_not_train(evaluated, experiment, tmp_path):
    rating = changed_ratings(experiment.data, experiment.splits.validation)
    _, _, run = trained_on(experiment, rating, tmp_path / "validation")
    meta = run_folder.open_run(evaluated[0] / f"seed-{SEED}" / "meta")
    for got, want in zip(without_speed(run), without_speed(meta)):
        assert got["train_loss"] == want["train_loss"]
        assert got["validation_loss"] != want["validation_loss"]


def test_ratings_of_training_users_do_train(evaluated, experiment, tmp_path):
    """Or the two tests above would show nothing."""
    _, _, run = trained_on(
        experiment, changed_ratings(experiment.data, experiment.splits.train[:1]), tmp_path / "train"
    )
    meta = run_folder.open_run(evaluated[0] / f"seed-{SEED}" / "meta")
    assert without_speed(run)[0]["train_loss"] != without_speed(meta)[0]["train_loss"]


def without_speed(run):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in run.read_metrics()]
