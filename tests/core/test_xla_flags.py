"""The compiler's mistake, and that the package keeps clear of it."""

import os
import subprocess
import sys

import pytest

CHAIN = """
import metarec_jax
import jax, jax.numpy as jnp, numpy as np
rng = np.random.default_rng(0)
def draw(*shape): return jnp.asarray(rng.normal(size=shape), jnp.float32)
rows, support, held, kernel, rest = draw(64, 50, 384), draw(64, 16, 384), draw(64, 50, 64), draw(64, 5), draw(64, 50, 5)
def chain(rows, support, held, kernel, rest):
    moved = held + jnp.einsum("uqh,ush->uqs", rows, support) @ jnp.zeros((64, 16, 64))
    return jnp.sum(jax.nn.log_softmax(jax.nn.relu(moved) / 8 @ kernel + rest), -1)
given = rows, support, held, kernel, rest
dirt = [np.asarray(jax.jit(lambda x, k=k: x * 1e3 + k)(rows)) for k in range(3)]
print(float(jnp.abs(jax.jit(chain)(*given) - chain(*given)).max()))
"""


def said(code, flags=""):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_chain_of_products_ends_in_the_right_sum():
    """Without the flag the difference is 1e14, or whatever lay in memory."""
    assert float(said(CHAIN)) < 1e-3


FLAGS = "import os, metarec_jax; print(os.environ['XLA_FLAGS'])"


@pytest.mark.parametrize("own", ["", "--xla_force_host_platform_device_count=2"])
def test_other_flags_are_kept(own):
    assert said(FLAGS, own) == f"{own} --xla_cpu_experimental_ynn_fusion_type=-reduce".strip()


def test_who_sets_the_flag_has_the_last_word():
    own = "--xla_cpu_experimental_ynn_fusion_type="
    assert said(FLAGS, own) == own
