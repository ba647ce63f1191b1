"""Processes of one training fill the shards of one table of embeddings, each its range."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from quick import library_environment
from several import free_port

from metarec_jax.config.run import Config
from metarec_jax.encoder import random_encoder
from metarec_jax.train.embed import embed

ROWS = [f"word{a} word{b}" for a in range(6) for b in range(10)]
WORKER = """
import dataclasses, json, sys
from pathlib import Path
from metarec_jax.config.run import Config
from metarec_jax.core import peers, processes
from metarec_jax.encoder import embedding_cache, random_encoder
from metarec_jax.train.embed import embed
embedding_cache.SHARD = 8
rows, folders = json.loads(sys.argv[1]), sys.argv[2:]
with peers.joined(wait=100):
    folder = folders[processes.index()]
    config = Config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=folder))
    table = embed(random_encoder(), config, rows)
    print(json.dumps([len(list(Path(folder).rglob("*.safetensors"))), table.tobytes().hex()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("folders", "shards"), [(("one", "one"), (8, 8)), (("one", "other"), (8, 4))])
def test_processes_fill_one_table_with_and_without_a_folder_that_both_see(folders, shards, tmp_path):
    told = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(ROWS), *folders],
            cwd=tmp_path,
            env={**os.environ, **library_environment(), **told, "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    found = [json.loads(out.splitlines()[-1]) for out, _ in said]
    assert tuple(count for count, _ in found) == shards
    want = embed(random_encoder(), Config(), ROWS)
    for _, text in found:
        table = np.frombuffer(bytes.fromhex(text), np.float32).reshape(want.shape)
        np.testing.assert_allclose(table, want, atol=2e-6)
