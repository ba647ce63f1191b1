"""Every rival of the benchmark computes the loss and the gradient that a plain program computes."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import assert_close

from benchmarks.rivals import RIVALS, MetaGradient, Task, Unavailable, load, pieces, with_one_rate

pytestmark = [
    pytest.mark.rivals,
    # Of PyTorch, about itself, as it loads its compiler.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.* is deprecated:DeprecationWarning"),
]

# So many users that every rival goes through them in several pieces.
USERS, SUPPORT, QUERY, FEATURES, HIDDEN, CLASSES, STEPS = 24, 4, 3, 6, 5, 4, 2


def random_task(dtype: type) -> Task:
    """Random numbers everywhere, rates that all differ, and fewer items than rows, so that users share them."""
    rng = np.random.default_rng(0)
    shapes = {
        "hidden": {"kernel": (FEATURES, HIDDEN), "bias": (HIDDEN,)},
        "output": {"kernel": (HIDDEN, CLASSES), "bias": (CLASSES,)},
    }

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        ids = rng.integers(0, 10, (USERS, count), dtype=np.int32)
        return ids, rng.integers(0, CLASSES, (USERS, count), dtype=np.int32)

    support_ids, support_labels = rows(SUPPORT)
    query_ids, query_labels = rows(QUERY)
    return Task(
        table=normal(10, FEATURES),
        support_ids=support_ids,
        support_labels=support_labels,
        query_ids=query_ids,
        query_labels=query_labels,
        theta={layer: {name: normal(*shape) for name, shape in arrays.items()} for layer, arrays in shapes.items()},
        log_rate={layer: {name: normal(STEPS) - dtype(1) for name in arrays} for layer, arrays in shapes.items()},
        offset=normal(CLASSES),
    )


def written_out(task: Task) -> MetaGradient:
    """User by user, step by step."""

    def cross_entropy(theta: Any, ids: jax.Array, labels: jax.Array) -> jax.Array:
        (kernel, bias), (top, level) = (
            (theta[layer]["kernel"], theta[layer]["bias"]) for layer in ("hidden", "output")
        )
        logits = jnp.maximum(jnp.asarray(task.table)[ids] @ kernel + bias, 0) / HIDDEN**0.5 @ top + level + task.offset
        return jnp.mean(jnp.log(jnp.sum(jnp.exp(logits), axis=1)) - logits[jnp.arange(len(labels)), labels])

    @jax.jit
    def one_user(learned: tuple, support_ids, support_labels, query_ids, query_labels) -> Any:
        def adapted_loss(theta: Any, log_rate: Any) -> jax.Array:
            for step in range(STEPS):
                gradient = jax.grad(cross_entropy)(theta, support_ids, support_labels)
                theta = jax.tree.map(lambda w, r, g, step=step: w - jnp.exp(r[step]) * g, theta, log_rate, gradient)
            return cross_entropy(theta, query_ids, query_labels)

        return jax.value_and_grad(adapted_loss, argnums=(0, 1))(*learned)

    users = zip(task.support_ids, task.support_labels, task.query_ids, task.query_labels)
    each = [one_user((task.theta, task.log_rate), *user) for user in users]
    loss, (theta, log_rate) = jax.tree.map(lambda *terms: np.mean(terms, axis=0, dtype=terms[0].dtype), *each)
    return MetaGradient(float(loss), theta, log_rate)


def check(name: str, task: Task) -> None:
    """The rival called `name` agrees with `written_out`, twice: what it keeps between runs must not add up."""
    try:
        rival = load(name)
        task = task if rival.LEARNED_RATES else with_one_rate(task)
        run = rival.prepare(task)
    except Unavailable as why:
        pytest.skip(str(why))
    want = written_out(task)
    for _ in range(2):
        found = run()
        assert_close(np.asarray(found.loss, task.table.dtype), np.asarray(want.loss, task.table.dtype))
        assert_close(found.theta, want.theta)
        if rival.LEARNED_RATES:
            assert_close(found.log_rate, want.log_rate)
        else:
            assert found.log_rate is None


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * ("compiled" in name)) for name in RIVALS]
)
def test_in_single_precision(name):
    check(name, random_task(np.float32))


@pytest.mark.parametrize("name", [name for name in RIVALS if "compiled" not in name])  # compiling takes half a minute
@pytest.mark.usefixtures("x64")
def test_in_double_precision(name):
    check(name, random_task(np.float64))


def test_pieces_are_all_users_once_and_in_order():
    assert [list(range(20))[users] for users in pieces(20, 8)] == [list(range(8)), list(range(8, 16)), [16, 17, 18, 19]]
    assert list(pieces(3, 8)) == [slice(0, 3)]


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "higher", None)
    monkeypatch.delitem(sys.modules, RIVALS["higher"], raising=False)
    with pytest.raises(Unavailable, match=r"higher does not import \(.*higher.*\): pip install 'metarec_jax\[bench\]'"):
        load("higher")


def test_a_mistake_of_ours_is_not_taken_for_a_missing_package():
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        load("higher", {"higher": "benchmarks.peers.nowhere"})


def test_what_does_not_compile_is_unavailable(monkeypatch):
    def compile(function: Any, **options: Any) -> Any:
        def program(*arguments: Any) -> Any:
            raise RuntimeError("no C++ compiler")

        return program

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(Unavailable, match="no C\\+\\+ compiler"):
        load("torch.func compiled").prepare(random_task(np.float32))


def test_one_rate_refuses_many():
    task = random_task(np.float32)
    try:
        rival = load("jax-meta")
    except Unavailable as why:
        pytest.skip(str(why))
    with pytest.raises(ValueError, match="one rate, the task has 8"):
        rival.prepare(task)
