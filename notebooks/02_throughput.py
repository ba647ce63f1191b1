# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Throughput: read a profile, find the bottleneck, move it
#
# One meta-gradient (adapt many users, differentiate through all of it) is made faster and smaller, each time by
# looking first. Everything is drawn, so no data and no weights are needed.

# %%
import collections
import gzip
import json
import re
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from metarec_jax.cli.bench_measure import verdict
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.core.flops import products
from metarec_jax.core.types import Episodes, Items, Rows, Tables
from metarec_jax.meta.outer import meta_loss
from metarec_jax.train.catalogue import Catalogue, Scale, Statistics
from metarec_jax.train.model import init_trainable, make_model

# %% [markdown]
# ## 1. The work
#
# 64 users, each with 10 ratings to adapt on and 10 to be judged by; 384 features -> 64 hidden -> 5 levels; 5 inner
# steps, second order.

# %%
USERS, SUPPORT, QUERY, ITEMS, FEATURES, HIDDEN = 64, 10, 10, 400, 384, 64
rng = np.random.default_rng(0)
config = Config(learner=LearnerConfig(hidden=HIDDEN, user_side="none", head="ordinal"))
names, count = tuple(map(str, range(ITEMS))), np.full(ITEMS, 5.0, np.float32)
scale = Scale("rating", (1.0, 2.0, 3.0, 4.0, 5.0), 1.0, 5.0)
embeddings = rng.standard_normal((ITEMS, FEATURES), np.float32)
catalogue = Catalogue(Items(names, names, names), Statistics(3 * count, count), embeddings, scale)
model = make_model(config, scale)
nobody = np.zeros((1, 0), np.float32)
trainable = init_trainable(config, model, catalogue, nobody, jax.random.key(0))
tables = model.prepare(trainable.theta, jax.device_put(Tables(embeddings, nobody)))


def rows(width):
    ids = rng.integers(0, ITEMS, (USERS, width)).astype(np.int32)
    ones = np.ones(ids.shape, np.float32)
    ratings = rng.integers(1, 6, ids.shape).astype(np.float32)
    return Rows(ids, ratings, ones, np.full((*ids.shape, 2), 5, np.float32))


ones = np.ones(USERS, np.float32)
episodes = jax.device_put(Episodes(np.zeros(USERS, np.int32), rows(SUPPORT), rows(QUERY), ones))


def gradient(form, at_once):
    """The meta-gradient with matrices kept in `form`, of `at_once` users at a time."""

    def function(trainable, tables, episodes):
        own = model._replace(form=form)
        return jax.grad(lambda t: meta_loss(own, t, tables, episodes, at_once=at_once)[0])(trainable)

    return function


def compiled(form, at_once):
    program = jax.jit(gradient(form, at_once)).lower(trainable, tables, episodes).compile()
    return program, lambda: jax.block_until_ready(program(trainable, tables, episodes))


# %% [markdown]
# ## 2. Where the time goes
#
# `jax.profiler.trace` writes what ran when. Operations of one shape and kind belong together, and the few that take
# the most time are what there is to know.


# %%
def operations(program, run, most=6):
    """Milliseconds by kind of operation, the most expensive first."""
    kinds = {}
    for line in program.as_text().splitlines():
        if found := re.match(r"\s*(?:ROOT )?%([\w.\-]+) = (\w+\[[\d,]*\])\S* ([\w\-]+)\(", line):
            name, shape, opcode = found.groups()
            kinds[name] = f"{shape} {re.sub(r'[.0-9]+$', '', name) if opcode == 'fusion' else opcode}"
    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (trace,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    ms = collections.Counter()
    for event in events:
        kind = kinds.get(event.get("args", {}).get("hlo_op", ""))
        if kind and " while" not in kind:
            ms[kind] += event["dur"] / 1e3
    return ms.most_common(most)


dense, run_dense = compiled("dense", 0)
for kind, ms in operations(dense, run_dense):
    print(f"{ms:8.2f} ms  {kind}")
print(f"temporaries: {dense.memory_analysis().temp_size_in_bytes / 1e6:.0f} MB")

# %% [markdown]
# The shapes tell the story: arrays of `[64, 384, 64]` are one private copy of the first matrix for every user, written
# and read in each of five steps and kept for the backward pass. That is memory traffic, not arithmetic.
#
# ## 3. Move it
#
# A gradient step on `y = X W` adds `-a X^T d`, so a user's matrix never has to be built: `metarec_jax.meta.gram`
# keeps factors. The numbers are the same.

# %%
factored, run_factored = compiled("factored", 0)
for left, right in zip(jax.tree.leaves(run_dense()), jax.tree.leaves(run_factored())):
    np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)
for kind, ms in operations(factored, run_factored):
    print(f"{ms:8.2f} ms  {kind}")
print(f"temporaries: {factored.memory_analysis().temp_size_in_bytes / 1e6:.0f} MB")

# %% [markdown]
# ## 4. And again
#
# What is left are small products and passes over arrays of all users. A few users at a time need a fraction of the
# memory; where all users do not fit a processor's cache, they are faster, too (1.4 times with the 256 users of
# docs/speed.md).

# %%
batched, run_batched = compiled("factored", 16)
print(f"temporaries: {batched.memory_analysis().temp_size_in_bytes / 1e6:.0f} MB")

# %% [markdown]
# ## 5. Was it worth it?
#
# Times on a shared machine mean little alone. The contenders take turns, and the ratio of each pair of turns is what
# counts.

# %%
runs = {"dense": run_dense, "factored": run_factored, "factored, 16 users at a time": run_batched}
seconds = {name: [] for name in runs}
for _ in range(7):
    for name, run in runs.items():
        started = time.perf_counter()
        run()
        seconds[name].append(time.perf_counter() - started)
for name in list(runs)[1:]:
    ratio = np.divide(seconds["dense"], seconds[name])
    print(f"{name}: {np.median(ratio):.1f} times faster than dense ({ratio.min():.1f} to {ratio.max():.1f})")

# %% [markdown]
# ## 6. What bounds it now
#
# The products that are left, at the speed of a large product on this machine, would take only a share of the time. The
# rest is small products and passes between them: the next thing to move. `metarec bench` says the same of the whole
# package.

# %%
square = jax.random.normal(jax.random.key(0), (1024, 1024))
multiply = jax.jit(lambda a: a @ a)
multiply(square).block_until_ready()
turns = []
for _ in range(5):
    started = time.perf_counter()
    multiply(square).block_until_ready()
    turns.append(time.perf_counter() - started)
peak = 2e-9 * 1024**3 / np.median(turns)
gflop = products(gradient("factored", 16), trainable, tables, episodes)
share = gflop / peak / np.median(seconds["factored, 16 users at a time"])
print(f"{gflop:.2f} GFLOP at {peak:.0f} GFLOP/s: {verdict(float(share), 0.0)}")
