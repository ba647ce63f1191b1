"""Linear algebra within XLA's threads starts no more of them."""

import json
import os
import subprocess
import sys

import pytest

from metarec_jax.core.environment import environment

MOST = environment()["cpu"]["usable"]
"""Threads that OpenBLAS starts at most, however many it is asked for."""
THREADS = """
import json
import numpy, jax
import metarec_jax
import jax.numpy as jnp
from threadpoolctl import threadpool_info

jnp.linalg.inv(jnp.eye(128)).block_until_ready()
print(json.dumps([pool["num_threads"] for pool in threadpool_info() if "scipy.libs" in pool["filepath"]]))
"""


@pytest.mark.parametrize(("own", "wanted"), [(None, 1), ("2", min(2, MOST))])
def test_what_jax_calls_has_the_threads_that_were_asked_for(own, wanted):
    variables = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    variables |= {"JAX_PLATFORMS": "cpu"} | ({} if own is None else {"OPENBLAS_NUM_THREADS": own})
    done = subprocess.run([sys.executable, "-c", THREADS], env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [wanted], "SciPy's OpenBLAS is what JAX calls on a CPU"
