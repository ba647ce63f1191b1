"""Shards of embeddings are filled once, by whoever comes first, and are the table together."""

import contextlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.core.file_rows import FileRows
from metarec_jax.encoder import embedding_cache, embedding_shards, encode_table, random_encoder
from metarec_jax.encoder.embedding_shards import Shard, filled

ROWS = [f"word{a} word{b}" for a in range(6) for b in range(10)]  # of one length, so a shard is one call of the encoder
SIZE = 8
SHARDS = -(-len(ROWS) // SIZE)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(embedding_cache, "SHARD", SIZE)
    monkeypatch.setattr(embedding_shards, "_MAPPED", 100)


def encoded(cache, **options):
    """The table, and the number of shards that were encoded for it."""
    calls = []
    table = encode_table(random_encoder(), ROWS, cache=cache, progress=lambda *c: calls.append(c), **options)
    assert calls == sorted(calls)
    assert calls[-1] == (len(ROWS), len(ROWS))
    return table, len(calls) - 1


@pytest.mark.usefixtures("small_shards")
def test_shards_are_the_table_together_and_are_read_from_their_files(tmp_path, monkeypatch):
    table, count = encoded(tmp_path)
    assert count == SHARDS == len(list(tmp_path.iterdir()))
    again, count = encoded(tmp_path)
    assert count == 0
    np.testing.assert_array_equal(again, table)
    monkeypatch.setattr(embedding_cache, "SHARD", 1000)
    assert_each_close(encode_table(random_encoder(), ROWS), table, floor=2e-6, because="sums over rows of other calls")


@pytest.mark.usefixtures("small_shards")
def test_missing_and_damaged_shards_alone_are_encoded_again(tmp_path):
    table, _ = encoded(tmp_path)
    lost, damaged, *others = sorted(tmp_path.iterdir())
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-3])
    times = [path.stat().st_mtime_ns for path in others]
    again, count = encoded(tmp_path)
    assert count == 2
    np.testing.assert_array_equal(again, table)
    assert [path.stat().st_mtime_ns for path in others] == times


@pytest.mark.usefixtures("small_shards")
def test_ranges_of_processes_are_whole_shards_and_the_table_together():
    for count in (1, 2, 3, SHARDS, SHARDS + 1):
        parts = [embedding_cache.texts_of_process([*ROWS, *ROWS], index, count) for index in range(count)]
        assert [text for part in parts for text in part] == sorted(ROWS)
        assert all(len(part) % SIZE == 0 for part in parts if sorted(ROWS)[-1] not in part)
        assert max(map(len, parts)) - min(map(len, parts)) <= 2 * SIZE
        assert parts[0], "the first process, which makes the table, encodes a table of one shard"


def test_a_large_shard_stays_in_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_shards, "_MAPPED", 100)
    made = Shard(np.arange(60, dtype=np.float32).reshape(20, 3), 2)
    for calls in (1, 0):
        left = [1] * calls
        found = filled(
            [tmp_path / "a.safetensors"],
            [20],
            lambda number, alive, left=left: (left.pop(), made)[1],
            width=3,
            dtype=np.dtype("f4"),
        )
        ((number, shard),) = found
        assert (number, shard.truncated) == (0, 2)
        np.testing.assert_array_equal(shard.table[[19, 0]], made.table[[19, 0]])
    assert isinstance(shard.table, FileRows)


WORKER = """
import json, sys
from pathlib import Path
from metarec_jax.encoder import embedding_cache, encode_table, random_encoder
embedding_cache.SHARD = 8
rows, calls = json.loads(sys.argv[2]), []
print("ready", flush=True)
sys.stdin.readline()
table = encode_table(random_encoder(), rows, cache=Path(sys.argv[1]), progress=lambda *c: calls.append(c))
print(json.dumps([len(calls) - 1, table.tobytes().hex()]))
"""


@contextlib.contextmanager
def workers(cache, number):
    """Processes that encode the rows once they get a line."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(number):
            command = [sys.executable, "-c", WORKER, str(cache), json.dumps(ROWS)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait, 60)
            stack.callback(process.kill)
            made.append(process)
        for process in made:
            assert process.stdout.readline() == "ready\n"
        yield made


@pytest.mark.slow
def test_two_processes_fill_one_table_and_encode_no_shard_twice(tmp_path):
    with workers(tmp_path, 2) as both:
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        found = [json.loads(process.communicate(timeout=600)[0]) for process in both]
    assert sum(count for count, _ in found) == SHARDS == len(list(tmp_path.iterdir()))
    assert found[0][1] == found[1][1]


@pytest.mark.usefixtures("small_shards")
def test_what_a_killed_process_encoded_is_kept(tmp_path):
    with workers(tmp_path, 1) as (process,):
        process.stdin.write("\n")
        process.stdin.flush()
        end = time.monotonic() + 600
        while not list(tmp_path.glob("*.safetensors")):
            assert time.monotonic() < end
            time.sleep(0.001)
        process.kill()
        process.wait(60)
    kept = len(list(tmp_path.glob("*.safetensors")))
    assert encoded(tmp_path)[1] == SHARDS - kept
    assert len(list(tmp_path.glob("*.safetensors"))) == SHARDS


HOLDER = """
import sys, time
from pathlib import Path
from metarec_jax.core.locks import hold
with hold(Path(sys.argv[1]), "a shard"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("small_shards")
def test_a_process_without_a_sign_of_life_is_not_waited_for(tmp_path, monkeypatch):
    table, _ = encoded(tmp_path)
    lost = sorted(tmp_path.iterdir())[3]
    lost.unlink()
    monkeypatch.setattr(embedding_shards, "_SILENT", 0.5)
    command = [sys.executable, "-c", HOLDER, str(lost.with_suffix(".lock"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            begun = time.monotonic()
            again, count = encoded(tmp_path)
            assert time.monotonic() - begun >= 0.5
        finally:
            process.kill()
    assert count == 1
    np.testing.assert_array_equal(again, table)


@pytest.mark.usefixtures("small_shards")
def test_float16_halves_the_files_and_rounds_by_less_than_a_thousandth(tmp_path):
    table, _ = encoded(tmp_path / "wide")
    half, count = encoded(tmp_path / "narrow", stored="float16")
    assert count == SHARDS
    np.testing.assert_array_equal(half, table.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(encoded(tmp_path / "narrow", stored="float16")[0], half)
    assert np.linalg.norm(half - table, axis=1).max() < 2**-11
    wide, narrow = (sum(p.stat().st_size for p in (tmp_path / n).iterdir()) for n in ("wide", "narrow"))
    assert 1.6 < wide / narrow < 2
