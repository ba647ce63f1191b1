"""What the actors of a Ray job compute, and what is checked before a job begins; without a cluster."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import assert_close, assert_says
from trained import trained_run

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.batch_parts import recommend_part
from metarec_jax.recommender.ray_jobs import ListWorker, Pool, TextWorker, encode_texts, recommend_users
from metarec_jax.recommender.users_file import open_users


@pytest.fixture(scope="module")
def users(recommender) -> pa.Table:
    rng, ids = np.random.default_rng(0), recommender.catalogue.items.ids
    rows = [
        {"user_id": f"u{u}", "history": [{"item_id": ids[i], "rating": 1.0 + i % 5} for i in rng.permutation(100)[:u]]}
        for u in range(9)
    ]
    return pa.Table.from_pylist(rows)


def worker_of_lists(k: int = 4) -> ListWorker:
    return ListWorker(str(trained_run()), "", Columns(), "users.parquet", k, True)


def test_blocks_of_users_make_the_lists_of_the_plain_command(recommender, users, tmp_path):
    pq.write_table(users, tmp_path / "users.parquet")
    opened = open_users(recommender, DataConfig(source="table", path=str(tmp_path / "users.parquet")))
    recommend_part(recommender, opened, tmp_path / "lists", k=4)
    want = pq.read_table(tmp_path / "lists")
    worker = worker_of_lists()
    got = pa.concat_tables([worker(users[:4]), worker(users[4:])])
    again = worker(users[:4])
    assert again == got[: len(again)], "a block that is made again is the same"
    for name in ("user_id", "place", "item_id"):
        assert got.column(name).to_pylist() == want.column(name).to_pylist()
    assert_close(np.asarray(got.column("score")), np.asarray(want.column("score")))


def test_texts_get_the_vectors_of_the_runs_items(recommender):
    items = recommender.catalogue.items
    block = pa.table({"item_id": list(items.ids)[:20], "text": list(items.texts)[:20], "year": list(range(20))})
    found = TextWorker(str(trained_run()), "", "text")(block)
    assert found.column_names == ["item_id", "year", "vector"]
    assert found.column("year").to_pylist() == list(range(20))
    vectors = np.array(found.column("vector").to_pylist(), np.float32)
    assert_close(vectors, np.asarray(recommender.catalogue.embeddings[:20]))


def test_mistakes_in_a_block_are_named(recommender):
    known = recommender.catalogue.items.ids[0]
    for history, parts in {
        (("nothing like it", 5.0),): ["users.parquet", "user 'a'", "nothing like it"],
        ((known, 99.0),): ["users.parquet", "user 'a'", "99"],
    }.items():
        block = pa.Table.from_pylist(
            [{"user_id": "a", "history": [{"item_id": item, "rating": rating} for item, rating in history]}]
        )
        with pytest.raises(MetarecError) as error:
            worker_of_lists()(block)
        assert_says(str(error.value), *parts)
    with pytest.raises(MetarecError) as error:
        TextWorker(str(trained_run()), "", "text")(pa.table({"item_id": ["a", "b"], "text": ["a film", None]}))
    assert_says(str(error.value), "'text'", "'b'")


def test_files_are_checked_before_a_job_begins(tmp_path):
    files = {
        "twice.parquet": [{"user_id": "a", "history": []}, {"user_id": "a", "history": []}],
        "column.parquet": [{"user_id": "a", "likes": []}],
        "other.name": [{"user_id": "a", "history": []}],
    }
    for name, rows in files.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    (tmp_path / "text.parquet").write_text("user_id,history\n")
    run = Path(trained_run())
    for name, parts in {
        "twice.parquet": ["twice", "user_id 'a'", "several rows"],
        "column.parquet": ["column", "'history'", "likes"],
        "other.name": ["other.name", ".parquet", "rename"],
        "absent": ["absent", "Parquet"],
        "text.parquet": ["text", "Parquet"],
    }.items():
        with pytest.raises(MetarecError) as error:
            recommend_users(run, tmp_path / name, tmp_path / "lists", Pool(1))
        assert_says(str(error.value), *parts)
    with pytest.raises(MetarecError, match="no column 'item_id'"):
        encode_texts(run, tmp_path / "twice.parquet", tmp_path / "vectors", Pool(1))


def test_the_module_imports_no_ray_and_without_it_the_extra_is_named(users, tmp_path):
    pq.write_table(users, tmp_path / "users.parquet")
    code = (
        "import sys; from pathlib import Path\n"
        "from metarec_jax.recommender import ray_jobs\n"
        "assert 'ray' not in sys.modules\n"
        "sys.modules['ray'] = None\n"
        "run, users, out = map(Path, sys.argv[1:])\n"
        "try: ray_jobs.recommend_users(run, users, out, ray_jobs.Pool(1))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    arguments = [str(path) for path in (trained_run(), tmp_path / "users.parquet", tmp_path / "lists")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("MetarecError ray is not installed"), done.stderr
    assert "metarec_jax[ray]" in done.stdout
