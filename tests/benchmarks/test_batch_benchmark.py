"""The benchmarks of batches, of titles and of a large catalogue, small."""

import dataclasses
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from trained import believing_config

from benchmarks import batch, titles
from benchmarks.enlarged import enlarge, titles_of
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import run_folder
from metarec_jax.train.start import meta_train

ITEMS = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a made-up catalogue, which reads no texts of users."""
    folder, config = tmp_path_factory.mktemp("enlarged"), believing_config()
    config = dataclasses.replace(config, learner=dataclasses.replace(config.learner, user_side="none"))
    meta_train(dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1)), folder / "trained")
    return enlarge(folder / "trained", folder / "run", ITEMS)


@pytest.mark.slow
def test_an_enlarged_run_ranks_a_catalogue_of_that_size(run):
    recommender = Recommender.load(run)
    assert len(recommender.items) == ITEMS
    best = recommender.recommend(recommender.adapt({0: 5, 7: 1}), k=ITEMS)
    assert len(best) == ITEMS - 2
    assert np.ptp([item.score for item in best]) > 0
    assert titles_of(20) == titles_of(20)


def test_a_run_whose_items_have_corrections_is_not_enlarged(tmp_path):
    config = believing_config()
    run_folder.create(
        tmp_path / "run", dataclasses.replace(config, factors=dataclasses.replace(config.factors, train=True))
    )
    with pytest.raises(MetarecError, match=r"correction of the factors.*--factors\.no-train"):
        enlarge(tmp_path / "run", tmp_path / "out", ITEMS)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_share_the_users(run, tmp_path):
    users, cores = tmp_path / "users.jsonl", sorted(os.sched_getaffinity(0))
    batch.write_users(users, 21, ITEMS, longest=9)
    answers = batch.computed(run, users, tmp_path / "lists", 2, [cores[0], cores[-1]])
    assert [(answer["part"], answer["users"], answer["computed"]) for answer in answers] == [
        ("1/2", 11, 11),
        ("2/2", 10, 10),
    ]
    found = pq.read_table(tmp_path / "lists")["user_id"].to_pylist()
    assert sorted(found) == sorted(10 * [f"user {n}" for n in range(21)])


def test_the_phases_of_a_block_are_timed(run, tmp_path):
    batch.write_users(tmp_path / "users.jsonl", batch.AT_ONCE, ITEMS, longest=9)
    found = batch.phases(run, tmp_path / "users.jsonl")
    assert {"parse and check", "adapt", "score and rank", "write"} < found.keys()
    assert min(found.values()) > 0


def test_searches_of_titles_are_timed():
    rows = titles.measure(3000, 4)
    assert len(rows) == 5
    assert all(row.ours > 0 for row in rows)
