"""A whole meta-gradient through the inner loop: Gram space against a private matrix for every user.

python -m benchmarks.inner_loop --json OUT
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.cases import INNER_LOOP, SMOKE, InnerLoopCase
from metarec_jax.learner import mlp
from metarec_jax.learner.heads import make_head
from metarec_jax.meta.factored import Form
from metarec_jax.meta.outer import Model, Trainable, meta_loss
from metarec_jax.meta.partition import partition
from metarec_jax.meta.updaters import gradient_descent
from metarec_jax.types import Episodes, Rows, Tables

ADAPTED = ("hidden/item/.*", "hidden/bias", "output/.*")


def problem(case: InnerLoopCase, form: Form) -> tuple[Model, Trainable, Tables, Episodes]:
    """The case as a model and a batch in which every row is an item of its own; equal for every `form`."""
    rng = np.random.default_rng(0)
    levels = tuple(float(level) for level in range(1, case.classes + 1))
    head = make_head("classes", levels=levels, low=levels[0], high=levels[-1])
    items = case.users * (case.support + case.query)
    tables = Tables(
        items=jnp.asarray(rng.normal(size=(items, case.features)) / np.sqrt(case.features), jnp.float32),
        users=jnp.zeros((1, 0), jnp.float32),
    )
    theta = mlp.init(
        jax.random.key(0),
        head,
        hidden=case.hidden,
        item_embeddings=np.asarray(tables.items),
        user_embeddings=np.asarray(tables.users),
        mean_rating=3.0,
    )
    theta["output"]["kernel"] = jax.random.normal(jax.random.key(1), theta["output"]["kernel"].shape)
    model = Model(
        apply=lambda params, context, rows: mlp.apply(params, head, context, rows, prior=False),
        head=head,
        updater=gradient_descent(rate=0.1, learn="layer-step", steps=case.steps),
        adapted=ADAPTED,
        steps=case.steps,
        order="second",
        form=form,
    )
    ids = np.arange(items, dtype=np.int32).reshape(case.users, -1)

    def rows(of: np.ndarray) -> Rows:
        rating = rng.integers(1, case.classes + 1, of.shape).astype(np.float32)
        return Rows(of, rating, np.ones(of.shape, np.float32), np.zeros((*of.shape, 2), np.float32))

    episodes = Episodes(
        user=np.zeros(case.users, np.int32),
        support=rows(ids[:, : case.support]),
        query=rows(ids[:, case.support :]),
        weight=np.ones(case.users, np.float32),
    )
    return model, Trainable(theta, model.updater.init(partition(theta, ADAPTED)[0])), tables, jax.device_put(episodes)


def contender(case: InnerLoopCase, form: Form) -> tuple[harness.Contender, tuple]:
    """The compiled meta-gradient of one form as a contender, and its value and gradient."""
    model, trainable, tables, episodes = problem(case, form)
    function = jax.jit(jax.value_and_grad(lambda trainable: meta_loss(model, trainable, tables, episodes)[0]))
    started = time.perf_counter()
    compiled = function.lower(trainable).compile()
    seconds = time.perf_counter() - started
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    facts = {
        "compile_s": seconds,
        "gflop": cost.get("flops", float("nan")) / 1e9,
        "gbytes_accessed": cost.get("bytes accessed", float("nan")) / 1e9,
        "temporaries_mb": memory.temp_size_in_bytes / 1e6 if memory else float("nan"),
    }
    return harness.Contender(form, lambda: jax.block_until_ready(compiled(trainable)), facts), compiled(trainable)


def agree(ours: tuple, theirs: tuple) -> None:
    """Refuses to time two contenders that compute different things (relative error over 1e-5)."""
    for left, right in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        error = jnp.linalg.norm(left - right) / jnp.maximum(jnp.linalg.norm(right), 1e-6)
        if right.size and not error < 1e-5:
            raise SystemExit(f"the contenders disagree: relative error {float(error):.1e} on {right.shape}")


def measure(cases: Sequence[InnerLoopCase], rounds: int) -> list[harness.Row]:
    """All rows of `cases`."""
    rows = []
    for case in cases:
        ours, value = contender(case, "factored")
        dense, other = contender(case, "dense")
        agree(value, other)
        seconds = harness.take_turns([ours, dense], rounds=rounds)
        facts = {"shape": vars(case), "factored": dict(ours.facts), "dense": dict(dense.facts)}
        bars = {"dense": 8.0} if case.name == "standard" else None
        rows += harness.compare(
            case.name, seconds, ours="factored", work=case.users, metric="users/s", bars=bars, facts=facts
        )
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--rounds", type=int, default=11, help="turns of each contender")
    parser.add_argument("--smoke", action="store_true", help="one tiny case, to see that it runs")
    arguments = parser.parse_args()
    rows = measure([SMOKE] if arguments.smoke else INNER_LOOP, arguments.rounds)
    harness.show(rows)
    if arguments.json:
        harness.write(rows, arguments.json)


if __name__ == "__main__":
    main()
