"""Batch jobs on a Ray cluster of two nodes: equal to the plain command, also where an actor is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import assert_close, assert_says
from trained import trained_run

from metarec_jax.cli import main
from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.batch_parts import recommend_part
from metarec_jax.recommender.ray_jobs import Pool, encode_texts, recommend_users
from metarec_jax.recommender.users_file import open_users

pytestmark = pytest.mark.slow

USERS, BLOCK = 60, 2
POOL = Pool(2)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two CPUs each; this process is connected to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "300")  # a busy machine takes longer than the usual 30 s
        patch.setenv("RAY_agent_register_timeout_ms", "300000")
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # of this package, for the actors
        import ray
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 2, "object_store_memory": 600 << 20, "include_log_monitor": False}
        made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        made.add_node(**node)
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def users(recommender, tmp_path_factory) -> Path:
    """A Parquet file of users, of several row groups."""
    rng, ids = np.random.default_rng(0), recommender.catalogue.items.ids
    rows = [
        {"user_id": f"u{u}", "history": [{"item_id": ids[i], "rating": 1.0 + i % 5} for i in rng.permutation(100)[:u]]}
        for u in range(USERS)
    ]
    path = tmp_path_factory.mktemp("users") / "users.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=25)
    return path


def lists_of(folder: Path) -> dict[str, list[tuple[int, str, float]]]:
    """Place, item and score of the rows of each user; fails where a user is there twice."""
    found: dict[str, list[tuple[int, str, float]]] = {}
    for user, *row in zip(*pq.read_table(folder).to_pydict().values()):
        found.setdefault(user, []).append(tuple(row))
    for own in found.values():
        assert [place for place, *_ in own] == list(range(1, len(own) + 1))
    return found


def assert_same_lists(got, want):
    assert got.keys() == want.keys()
    for name, own in want.items():
        assert [row[:2] for row in got[name]] == [row[:2] for row in own], name
        assert_close([np.float32(row[2]) for row in got[name]], [np.float32(row[2]) for row in own])


@pytest.fixture(scope="module")
def plain(recommender, users, tmp_path_factory):
    """The lists of `metarec recommend --users`."""
    out = tmp_path_factory.mktemp("plain") / "lists"
    recommend_part(recommender, open_users(recommender, DataConfig(source="table", path=str(users))), out, k=4)
    return lists_of(out)


def test_lists_equal_those_of_the_plain_command_with_an_actor_killed_on_the_way(cluster, users, plain, tmp_path):
    killed = []

    def kill_one() -> None:
        """Kill an actor of this cluster when some lists are written."""
        import psutil

        end = time.monotonic() + 300
        while time.monotonic() < end and not killed:
            written = len(list(tmp_path.glob(".*.part/lists/*.parquet")))
            actors = []
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                    title = " ".join(process.cmdline())
                    actors += [process.pid] if title.startswith("ray::") and "ListWorker" in title else []
            if written and actors:
                os.kill(actors[0], signal.SIGKILL)
                killed.append(written)
            time.sleep(0.01)

    thread = threading.Thread(target=kill_one)
    thread.start()
    try:
        result = recommend_users(trained_run(), users, tmp_path / "lists", POOL, k=4, block=BLOCK)
    finally:
        if not killed:
            killed.append(None)
        thread.join()
    assert result.users == USERS
    assert_same_lists(lists_of(tmp_path / "lists"), plain)
    assert killed[0] is not None, "the job was over before an actor could be killed"
    assert killed[0] < len(list((tmp_path / "lists").glob("*.parquet"))), "lists were still missing"


def test_the_command_makes_the_same_lists(cluster, users, plain, tmp_path, capfd):
    options = ("--users", users, "--out", tmp_path / "lists", "--ray", 1, "-k", 4, "--json")
    assert main.main([str(argument) for argument in ("recommend", trained_run(), *options)]) == 0
    out = capfd.readouterr().out
    assert json.loads(out[out.index("{\n") :])["users"] == USERS
    assert_same_lists(lists_of(tmp_path / "lists"), plain)


def test_item_texts_are_encoded_as_those_of_the_run(cluster, recommender, tmp_path):
    items = recommender.catalogue.items
    table = pa.table({"item_id": list(items.ids), "text": list(items.texts), "year": list(range(len(items.ids)))})
    pq.write_table(table, tmp_path / "items.parquet")
    encode_texts(trained_run(), tmp_path / "items.parquet", tmp_path / "vectors", Pool(1), block=50)
    found = pq.read_table(tmp_path / "vectors").sort_by("year")
    assert found.column("item_id").to_pylist() == list(items.ids)
    vectors = np.array(found.column("vector").to_pylist(), np.float32)
    assert_close(vectors, np.asarray(recommender.catalogue.embeddings))


def test_mistakes_are_named_and_leave_nothing(cluster, recommender, tmp_path):
    known = recommender.catalogue.items.ids[0]
    row = {"user_id": "a", "history": [{"item_id": known, "rating": 99.0}]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "users.parquet")
    copy = shutil.copy(tmp_path / "users.parquet", tmp_path.parent / "users.pq")
    with pytest.raises(MetarecError) as error:
        recommend_users(trained_run(), Path(copy), tmp_path / "lists", Pool(1))
    assert_says(str(error.value), "users.pq", ".parquet", "rename")
    for pool, parts in {
        Pool(1): ["users", "user 'a'", "99"],
        Pool(4): ["4 actors of 1 CPUs", "cluster of 4 CPUs", "at most 3"],
        Pool(1, gpus=1.0): ["1 actors of 1 GPUs", "cluster of 0 GPUs"],
    }.items():
        with pytest.raises(MetarecError) as error:
            recommend_users(trained_run(), tmp_path / "users.parquet", tmp_path / "lists", pool)
        assert_says(str(error.value), *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["users.parquet"]
