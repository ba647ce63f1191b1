"""Evaluations by lists from data to tables: the scores of networks, what held-out users can reach, and records."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import assert_close, assert_equal, random_interactions

from metarec_jax.config.data import DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data.sources import clicks_of
from metarec_jax.evaluation import compare, comparison, list_methods, list_record
from metarec_jax.evaluation.budget import Budget, ListBudget
from metarec_jax.evaluation.evaluate import answer_seed, evaluate
from metarec_jax.evaluation.list_methods import over_catalogue, prepare
from metarec_jax.evaluation.list_results import publish_lists
from metarec_jax.evaluation.methods import BEFORE, CLOSED, META, STRANGER, TUNED, adapting
from metarec_jax.metrics.definitions import LISTS
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.parameters import load_trainable

SEED = 1
BUDGET = Budget(
    fine_tuning=((1, 0.1),),
    lists=ListBudget(neighbours=((5, 0.0),), ridges=(5.0, 50.0), weights=((0.3, 0.01),), ranks=(4,), away=(0.0, 1.0)),
    samples=20,
    plots=False,
)


def made():
    """Clicks of fifty users on thirty items with texts."""
    rng = np.random.default_rng(3)
    data = clicks_of(random_interactions(rng, users=50, items=30, least=16, most=24))
    words = [f"{a}{b}" for a in "bdfgk" for b in "aeiou"]
    texts = tuple(" ".join(rng.choice(words, 4)) for _ in range(30))
    return dataclasses.replace(
        data,
        time=rng.permutation(len(data)).astype(np.int64) + 1,
        items=dataclasses.replace(data.items, texts=texts),
    )


def config_of(kind, cache, **split):
    return Config(
        seed=SEED,
        data=DataConfig(source="synthetic", kind="click", cache=str(cache)),
        split=SplitConfig(kind=kind, **split),
        episodes=EpisodeConfig(min_ratings=4, max_ratings=0, query=2, buckets=(3,), validation=0.2, test=0.2, draws=2),
        encoder=EncoderConfig(path="random", max_length=8),
        factors=FactorsConfig(rank=2),
        learner=LearnerConfig(hidden=4, user_side="none"),
        updater=UpdaterConfig(steps=1, rate=0.1, order="first"),
        train=TrainConfig(epochs=1, users_per_step=16, rate=1e-2, patience=0, devices=1),
    )


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Folder and metrics of an evaluation."""
    folder = tmp_path_factory.mktemp("lists")
    config = config_of("strong-generalisation", folder / "cache")
    return folder, config, answer_seed(config, folder / f"seed-{SEED}", budget=BUDGET, data=made())


@pytest.mark.slow
def test_a_network_scores_every_candidate_as_it_scores_query_rows(answered, monkeypatch):
    """In calls of a few users and a few items, with supports longer than the last bucket."""
    folder, config, _ = answered
    experiment = build(config, data=made())
    run = run_folder.open_run(folder / f"seed-{SEED}" / "meta")
    trainable = load_trainable(run, experiment.catalogue, experiment.encoder.params)
    method = adapting(experiment.model, trainable)
    prepared = prepare(experiment)
    (name,) = prepared.tests
    lists, part = prepared.tests[name], experiment.tests[name]
    assert part.source.tasks.supports.max() > config.episodes.max_support
    whole = dict_of(over_catalogue(part, method)(lists), len(lists))
    width = part.tables.items.shape[1] + 2 + experiment.catalogue.statistics.beliefs.shape[1]
    for items, users in ((7, 1), (len(lists.items), 2)):
        monkeypatch.setattr(list_methods, "FLOATS_AT_ONCE", width * items * users)
        cut = dict_of(over_catalogue(part, method)(lists), len(lists))
        assert_close(cut, whole, tolerance=1e-5, because="float32 in batches of another size")
    # The targets are query rows of the same tasks: their scores are those that `ask` would give.
    source = part.source
    for index, (_, members) in enumerate(source.plan):
        batch = source[index]
        scores = np.asarray(method(part.tables, batch).score)
        for row, task in enumerate(members):
            real = batch.query.mask[row] > 0
            place = np.searchsorted(lists.items, batch.query.item[row][real])
            assert_close(whole[task, place], scores[row][real], tolerance=1e-5, because="float32 in other batches")


def dict_of(scored, tasks):
    """[tasks, candidates] from (members, scores), each task once."""
    members, scores = zip(*scored)
    order = np.concatenate(members)
    assert sorted(order.tolist()) == list(range(tasks))
    return np.concatenate(scores)[np.argsort(order)]


def test_nothing_that_test_users_did_reaches_what_is_trained_or_chosen(answered, tmp_path):
    folder, config, before = answered
    data = made()
    experiment = build(config, data=data)
    test = np.isin(data.user, experiment.splits.test)
    rng = np.random.default_rng(0)
    item = data.item.copy()
    for user in experiment.splits.test:
        rows = np.flatnonzero(data.user == user)
        item[rows] = rng.permutation(30)[: len(rows)]
    other = dataclasses.replace(data, item=item)
    assert (other.item[test] != data.item[test]).any()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=str(tmp_path / "cache")))
    after = answer_seed(config, tmp_path / f"seed-{SEED}", budget=BUDGET, data=other)
    assert after.about["settings"] == before.about["settings"]
    assert after.about["training_clicks"] == before.about["training_clicks"]
    for name in ("meta", "twin"):
        runs = [run_folder.open_run(place / f"seed-{SEED}" / name) for place in (folder, tmp_path)]
        assert_equal(*(load_trainable(run, experiment.catalogue, experiment.encoder.params) for run in runs))
    (now,), (then,) = after.scenarios.values(), before.scenarios.values()
    assert not np.array_equal(now.methods["EASE"].values["mrr_list"], then.methods["EASE"].values["mrr_list"])


def test_the_table_has_every_method_with_errors_differences_and_cohorts(answered):
    folder, _, found = answered
    (table,) = publish_lists([found], folder, BUDGET).values()
    wanted = {
        "random",
        "popularity",
        "text similarity",
        "item-kNN",
        "EASE",
        "iALS",
        CLOSED,
        STRANGER,
        TUNED,
        BEFORE,
        META,
    }
    assert wanted <= set(table.methods)
    assert tuple(m.name for m in table.metrics) == LISTS
    cell = table.row("EASE").cells["recall_list@20"]
    (listed,) = found.scenarios.values()
    values = listed.methods["EASE"].values["recall_list@20"]
    assert_close(np.float64(cell.mean), values.mean())
    assert 0.3 < cell.error / (values.std() / np.sqrt(len(values))) < 2  # 20 resamples
    assert table.references[0] == META
    assert "recall_list@20" in table.row("EASE").differences[META]
    written = json.loads((folder / "tables" / "evaluation.json").read_text())
    settings = {method["name"]: method["settings"] for method in written["methods"]}
    assert settings["EASE"][0]["ridge"] in BUDGET.lists.ridges
    assert set(settings[TUNED][0]) == {"steps", "rate"}
    cohorts = json.loads((folder / "tables" / "cohorts.json").read_text())["scenarios"]["new users"]["cohorts"]
    for kind in ("history", "popularity"):
        assert sum(cohort["users"] for cohort in cohorts[kind]) <= len(listed.user)
        first = cohorts[kind][0]
        number = getattr(listed, kind)
        inside = (number >= first["first"]) & (number < (first["last"] or np.inf) + 1)
        want = listed.methods[META].values["recall_list@20"][inside].mean()
        assert_close(np.float64(first["values"]["recall_list@20"][META]["difference"]), want)
    assert any("shown more than 3 clicks" in note for note in table.notes)


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_made_anew(answered, tmp_path):
    _, _, found = answered
    path = tmp_path / list_record.LISTS
    list_record.save(found, path)
    again = list_record.load(path)
    assert again.about == found.about
    for name, listed in found.scenarios.items():
        assert_equal(again.scenarios[name]._replace(methods={}), listed._replace(methods={}))
        assert {m: dict(j.overall) for m, j in again.scenarios[name].methods.items()} == {
            m: dict(j.overall) for m, j in listed.methods.items()
        }
        for method, judged in listed.methods.items():
            assert_equal(dict(again.scenarios[name].methods[method].values), dict(judged.values))
    path.write_bytes(path.read_bytes()[:-100])
    assert list_record.load(path) is None
    assert list_record.load(tmp_path / "nowhere") is None


def test_lists_are_compared_with_themselves_and_by_method(answered, tmp_path):
    folder, _, found = answered
    same = compare.compare(folder, folder, samples=20)
    assert {line.difference.difference for line in same.lines} == {0.0}
    lines = {(x.rows, x.metric): x for x in compare.compare(folder, folder, reference="EASE", samples=20).lines}
    (listed,) = found.scenarios.values()
    values = [listed.methods[method].values["recall_list@20"] for method in (META, "EASE")]
    whole = lines[comparison.ALL, "recall_list@20"]
    assert_close(np.float64(whole.difference.difference), (values[0] - values[1]).mean())
    few = listed.history <= 5
    part = lines["clicks that were shown: 1–5", "recall_list@20"]
    assert part.difference.users == len(np.unique(listed.user[few]))
    assert_close(np.float64(part.a.difference), values[0][few].mean())
    comparison.print_comparison(compare.compare(folder, folder, reference="EASE", samples=20))


def test_lists_of_other_tasks_are_not_compared(answered, tmp_path):
    folder, _, found = answered
    (name,) = found.scenarios
    (listed,) = found.scenarios.values()

    def kept(place, scenarios=found.scenarios, **about):
        path = tmp_path / place / f"seed-{SEED}" / list_record.LISTS
        path.parent.mkdir(parents=True)
        list_record.save(dataclasses.replace(found, scenarios=scenarios, about={**found.about, **about}), path)
        return path.parent.parent

    refused = {
        kept("data", data="0" * 64): "are about different data",
        kept("users", {name: listed._replace(user=listed.user[::-1].copy())}): "are of different splits",
        kept("protocol", {"elsewhere": listed}): "are of different protocols",
        kept("seed", seed=SEED + 6): "other seeds are other splits",
    }
    for other, words in refused.items():
        with pytest.raises(MetarecError, match=words):
            compare.compare(folder, other)
    with pytest.raises(MetarecError, match="has no method 'mine'; it has random, popularity"):
        compare.compare(folder, folder, method="mine")


def test_metrics_of_predicted_ratings_are_refused_for_lists(tmp_path):
    config = config_of("cold-items", tmp_path / "cache")
    with pytest.raises(MetarecError, match=r"cold-items judges lists .* leave out --metrics"):
        evaluate(config, seeds=(1,), folder=tmp_path / "out", metrics="melu", budget=BUDGET, data=made())
