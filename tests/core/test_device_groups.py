"""Devices of several processes are connected before the processes go different ways."""

import os
import subprocess
import sys

import pytest
from quick import library_environment
from several import free_port

APART = 35
"""Seconds between the processes at their first collective; gloo connects within 30."""
TRAIN = f"""
import sys, threading, time
import jax, numpy as np
from metarec_jax.core import peers, processes
from metarec_jax.core.device_groups import connect_processes
from metarec_jax.train.sharding import user_mesh
from metarec_jax.core.global_arrays import host, put
from jax.sharding import NamedSharding, PartitionSpec
with peers.joined(wait=100):
    connect_processes()
    mesh = user_mesh(shards=2)
    time.sleep({APART} * processes.index())
    rows = put(np.arange(8.0), NamedSharding(mesh, PartitionSpec("users")))
    columns = put(np.arange(8.0), NamedSharding(mesh, PartitionSpec("shards")))
    print(float(sum(host(rows) + host(columns))), processes.arrays_from_first("text", lambda: {{"a": np.arange(3)}}))
# A thread in JAX's client would abort the process where Python ends it.
print("threads left:", [thread.name for thread in threading.enumerate() if thread.name == "peers"])
"""


@pytest.mark.slow
def test_processes_may_come_to_their_first_collectives_at_different_times(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    told = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "XLA_FLAGS": flags}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN],
            cwd=tmp_path,
            env={**os.environ, **library_environment(), **told, "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for process in running:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            assert "56.0 {'a': array([0, 1, 2])}" in out
            assert "threads left: []" in out
    finally:
        for process in running:
            process.kill()
