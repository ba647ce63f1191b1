"""A run whose predictions start from beliefs about items: trained, restored, resumed and served."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_each_close
from trained import believing_config, believing_run

from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation import methods
from metarec_jax.evaluation.methods import without_inner_loop
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.item_factors import Beliefs
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder, start
from metarec_jax.train.build import build
from metarec_jax.train.model import make_model
from metarec_jax.train.start import fit

LIKES = {"id:1": 5, "id:2": 1, "id:3": 4}


@pytest.fixture(scope="module")
def config():
    return believing_config()


@pytest.fixture(scope="module")
def folder():
    return believing_run()


def test_training_goes_down_from_what_is_believed(folder):
    lines = list(run_folder.open_run(folder).read_metrics())
    assert lines[-1]["validation_loss"] <= lines[0]["validation_loss"]


def test_a_run_keeps_its_beliefs(folder, config):
    kept = catalogues.load(run_folder.open_run(folder))
    made = build(config).catalogue
    np.testing.assert_array_equal(kept.beliefs.table, made.beliefs.table)
    np.testing.assert_array_equal(kept.statistics.beliefs, made.statistics.beliefs)


def test_training_users_meet_what_others_taught(config):
    experiment = build(config)
    folded, source = experiment.train.source.folded, experiment.train.source
    assert folded.as_new.share == config.factors.dropout == 0.2
    episodes = source[0]
    rows = episodes.query
    users = source.users_of(episodes)
    found = []
    for place in np.flatnonzero(episodes.weight):
        real = rows.mask[place] > 0
        at = folded.fold[users[place]], rows.item[place][real]
        new = ~rows.statistic[place][real][:, 1:2].any(axis=1)  # in no sum or count
        want = np.where(new[:, None], folded.as_new.table[at], folded.tables[at])
        np.testing.assert_array_equal(rows.statistic[place][real][:, 2:], want)
        assert not rows.statistic[place][~real].any()
        found += new.tolist()
    assert 0 < np.mean(found) < 0.5


def test_it_recommends_and_a_liked_item_changes_the_list(folder):
    recommender = Recommender.load(folder)
    before, after = (recommender.recommend(recommender.adapt(h), k=20) for h in ({}, LIKES))
    assert all(1 <= found.score <= 5 for found in after)
    assert [found.id for found in before] != [found.id for found in after]


def test_a_text_is_scored_as_an_item_that_nobody_rated(folder):
    recommender = Recommender.load(folder)
    catalogue = recommender.catalogue
    unrated = np.zeros((2, len(catalogue.items)), np.float32)
    believed = catalogue.beliefs.of_new_items(catalogue.embeddings)
    nobody = dataclasses.replace(catalogue, statistics=catalogues.Statistics(*unrated, believed))
    other = Recommender(recommender.config, nobody, recommender.executor.trainable)
    state = other.adapt(LIKES)
    texts = catalogue.items.texts
    for row in (5, 30):
        assert_each_close(
            other.score_text(state, texts[row]),
            other.score(state, [row + 1])[0],
            tolerance=1e-5,
            because="scores are float32",
        )
    assert other.score_text(state, texts[5]) != other.score_text(state, texts[30])


def test_a_finished_run_goes_on_from_where_it_is(folder, config):
    run = run_folder.open_run(folder)
    fitted = fit(run, build(run.config))
    assert fitted.progress.step == 2 * build(run.config).train.source.batches


def test_a_run_without_its_file_of_beliefs_is_refused(folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    run_folder.open_run(copy).beliefs.unlink()
    with pytest.raises(MetarecError, match=r"beliefs\.safetensors does not exist"):
        Recommender.load(copy)


def test_beliefs_about_new_items_are_read_as_they_were_learned(folder):
    """An encoder that was trained with the rest says other things of a text than the one beliefs were learned from."""
    recommender, seen = Recommender.load(folder), []
    catalogue, encoder, text = recommender.catalogue, recommender.texts.encoder, "A western with singing horses"

    class Watched(Beliefs):
        def of_new_items(self, embeddings, *more):
            seen.append(embeddings)
            return super().of_new_items(embeddings, *more)

    fields = {field.name: getattr(catalogue.beliefs, field.name) for field in dataclasses.fields(Beliefs)}
    other = Recommender(
        dataclasses.replace(recommender.config, encoder=dataclasses.replace(recommender.config.encoder, train="all")),
        dataclasses.replace(catalogue, beliefs=Watched(**fields)),
        recommender.executor.trainable,
        dataclasses.replace(encoder, params=jax.tree.map(lambda leaf: leaf * 1.1, encoder.params)),
    )
    other.score_text(other.adapt(LIKES), text)
    want = recommender.texts.encode([text], side="document")
    assert_each_close(seen[0], want, tolerance=1e-5, floor=1e-6, because="texts are encoded in another batch")
    assert np.abs(other.texts.encode([text], side="document") - want).max() > 1e-3


def with_vectors(config, path, items):
    """`config` with the synthetic items' text vectors replaced by what a file holds."""
    np.save(path, np.random.default_rng(0).normal(size=(items, 3)))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, vectors=str(path)))


def test_vectors_of_items_are_learned_from_kept_and_given_with_new_items(config, tmp_path):
    items = len(build(config).data.items)
    chosen = with_vectors(config, tmp_path / "v.npy", items)
    folder = tmp_path / "run"
    start.meta_train(dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, epochs=1)), folder)
    recommender = Recommender.load(folder)
    vectors = recommender.catalogue.items.vectors
    np.testing.assert_array_equal(vectors, np.load(tmp_path / "v.npy").astype(np.float32))
    text = recommender.catalogue.items.texts[0]
    for given in (None, vectors[3], -vectors[3]):
        recommender.add_item(text, vector=given)
    one, other = recommender.catalogue.statistics.beliefs[-2:]
    assert np.abs(one - other).max() > 1e-4
    assert np.isnan(recommender.catalogue.items.vectors[-3]).all()
    for wrong in (vectors[3][:2], [np.nan] * 3):
        with pytest.raises(MetarecError, match="3 finite numbers"):
            recommender.add_item(text, vector=wrong)
    with pytest.raises(MetarecError, match="nothing reads them"):
        build(dataclasses.replace(chosen, factors=dataclasses.replace(chosen.factors, rank=0)))


def test_a_run_without_vectors_takes_none(folder):
    with pytest.raises(MetarecError, match="trained without any"):
        Recommender.load(folder).add_item("A western with singing horses", vector=[1.0])


def test_one_training_user_cannot_be_taught_by_others(config):
    data = build(config).data
    rows = np.flatnonzero(data.user == data.user[0])
    ones = np.ones((len(data.items), 3), np.float32)
    with pytest.raises(MetarecError, match="1 training users"):
        believe_all(config.factors.rank, data, ones, rows, ones, seed=0)


def test_a_start_that_failed_leaves_no_beliefs(config, tmp_path):
    place = tmp_path / "run"
    place.mkdir()

    def fill(run):
        run.beliefs.write_bytes(b"")
        raise MetarecError("no more space")

    with pytest.raises(MetarecError, match="no more space"):
        run_folder.create(place, config, fill=fill)
    assert list(place.iterdir()) == []


def test_the_closed_form_alone_is_gaussian_process_regression(config):
    """Whatever the network would say, the row of the table is the posterior given the support, item by item."""
    experiment = build(config)
    twin = dataclasses.replace(experiment, model=make_model(without_inner_loop(config), experiment.catalogue.scale))
    untrained = methods.untrained(twin)
    episodes = experiment.test.source[0]
    said = methods.adapting(twin.model, untrained)(experiment.test.tables, episodes)
    head, prior, noise = twin.model.head, untrained.theta["prior"], experiment.catalogue.beliefs.noise
    for user in np.flatnonzero(episodes.weight)[:3]:
        rows, asked = (jax.tree.map(lambda leaf, user=user: leaf[user], part) for part in episodes[1:3])
        real = rows.mask > 0
        mean, rest, factors = (rows.statistic[real][:, columns] for columns in (2, 3, slice(4, None)))
        choice = experiment.catalogue.beliefs.tastes["choice"]
        first = (factors - choice["middle"]).sum(axis=0) / (len(factors) + 20) @ choice["kernel"]
        mean = mean + factors @ first
        among = factors @ factors.T + np.diag(rest + noise)
        across = asked.statistic[:, 4:] @ factors.T
        expected = (
            asked.statistic[:, 2]
            + asked.statistic[:, 4:] @ first
            + across @ np.linalg.solve(among, rows.rating[real] - mean)
        )
        spread = np.sum(asked.statistic[:, 4:] ** 2, 1) - np.sum(across * np.linalg.solve(among, across.T).T, 1)
        outputs = head.believed(prior["head"], *map(jnp.float32, (expected, spread + asked.statistic[:, 3])))
        assert_each_close(said.mean[user], head.mean(outputs), tolerance=2e-4, because="a linear system in float32")
