"""What is evaluated with arrays of two axes is what JAX computes, and what it does not know is named."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

from metarec_jax.core.two_axes import Flat, Unsupported, lift
from metarec_jax.core.two_axes_evaluate import evaluate

ROWS, COLUMNS = 6, 4


def draw(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "matrix": rng.normal(size=(ROWS, COLUMNS)),
        "other": rng.normal(size=(COLUMNS, ROWS)),
        "rows": rng.normal(size=ROWS),
        "columns": rng.normal(size=COLUMNS),
        "number": rng.normal(size=()),
    }


def loops(at):
    """A loop with results that another loop, and its derivative, read in reverse."""

    def step(carry, index):
        carry = jnp.tanh(carry + at["rows"][index])
        return carry, carry.sum()

    last, sums = jax.lax.scan(step, at["matrix"], jnp.arange(3))
    return (last * at["columns"][None]).sum() + jnp.square(sums).sum()


FUNCTIONS = {
    "a row and a column": lambda at: at["matrix"] * at["rows"][:, None] + at["columns"][None],
    "an outer product": lambda at: at["rows"][:, None] * at["columns"][None] + at["number"],
    "rows that are columns": lambda at: at["matrix"].sum(axis=1) * at["matrix"][:, 1] + at["rows"],
    "sums": lambda at: (at["matrix"].sum(axis=0), at["matrix"].sum(axis=1), at["matrix"].sum(), at["rows"].sum()),
    "a sum of what repeats": lambda at: jnp.broadcast_to(at["rows"][:, None], (ROWS, 3)).sum(axis=1),
    "means with a mask": lambda at: jnp.sum(jnp.where(at["rows"] > 0, at["rows"], 0.0)) / jnp.maximum(at["number"], 1),
    "extremes": lambda at: (at["matrix"].max(axis=1), at["matrix"].min(axis=0), jnp.argmin(at["matrix"], axis=1)),
    "places": lambda at: (jnp.argmax(at["rows"]), jnp.argmin(at["rows"] > 0), (at["rows"] > 0).all()),
    "products": lambda at: at["matrix"] @ at["other"] @ at["matrix"],
    "transposed products": lambda at: at["matrix"].T @ at["rows"] @ at["other"],
    "products of rows": lambda at: (at["columns"] @ at["other"], at["other"] @ at["rows"], at["rows"] @ at["rows"]),
    "constants": lambda at: at["columns"] * np.arange(4.0) + np.array([[1.0, 2.0, 4.0, 8.0]])[0],
    "a softmax": lambda at: jax.nn.log_softmax(at["matrix"]),
    "parts": lambda at: (at["rows"][2], at["rows"][1:3], at["matrix"][:, 1:3], at["matrix"][2]),
    "joined": lambda at: (jnp.append(at["rows"], at["number"]), jnp.concatenate([at["matrix"], at["matrix"]], axis=1)),
    "another function": lambda at: jax.nn.relu(at["matrix"]) + jax.jit(jnp.tanh)(at["matrix"]),
    "one of each row": lambda at: jnp.take_along_axis(at["matrix"], jnp.argmax(at["matrix"], 1)[:, None], 1)[:, 0],
    "no argument": lambda at: jnp.arange(4.0) + at["columns"],
    "loops": loops,
    "a gradient": jax.grad(loops),
    "a gradient of gradients": jax.grad(
        lambda at: sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(jax.grad(loops)(at)))
    ),
}


def stored(at):
    """Arrays with two axes."""
    return {name: leaf if leaf.ndim == 2 else jnp.reshape(leaf, (1, -1)) for name, leaf in at.items()}


def evaluated(function, at):
    """A function of stored arrays that evaluates `function` with two axes; and the structure of its results."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(at)

    def run(two):
        arguments = [Flat(leaf.shape, data) for leaf, data in zip(jax.tree.leaves(at), jax.tree.leaves(two))]
        (found,) = evaluate(jaxpr.jaxpr, [np.asarray(const) for const in jaxpr.consts], [arguments])
        return [lift(value, False).whole() for value in found]

    return run, shapes


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_computes_what_jax_computes(name):
    at = jax.tree.map(jnp.asarray, draw(0))
    run, shapes = evaluated(FUNCTIONS[name], at)
    found = [value.reshape(of.shape) for value, of in zip(run(stored(at)), jax.tree.leaves(shapes))]
    assert_close(jax.tree.unflatten(jax.tree.structure(shapes), found), FUNCTIONS[name](at))


def operations(jaxpr):
    """The operations of a jaxpr and of those that it calls."""
    for equation in jaxpr.eqns:
        inner = [value for value in equation.params.values() if hasattr(value, "jaxpr")]
        for each in inner:
            yield from operations(each.jaxpr)
        if not inner:
            yield equation


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_operations_with_two_axes_are_left(name):
    """No loop, no gather, and no array of more axes."""
    at = jax.tree.map(jnp.asarray, draw(0))
    run, _ = evaluated(FUNCTIONS[name], at)
    found = list(operations(jax.make_jaxpr(run)(stored(at)).jaxpr))
    assert {e.primitive.name for e in found} & {"scan", "while", "gather", "scatter-add", "dynamic_slice"} == set()
    assert {variable.aval.ndim for equation in found for variable in equation.outvars} <= {0, 1, 2}


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda at: jnp.sort(at["rows"]), "sort"),
        (lambda at: at["rows"][jnp.argmax(at["columns"])], "depends on an argument"),
        (lambda at: at["matrix"][:, :, None] * at["rows"][None, None], "(6, 4, 1)"),
        (lambda at: at["matrix"].reshape(3, 8), "reshape from (6, 4) to (3, 8)"),
    ],
)
def test_what_is_not_evaluated_is_named(function, named):
    at = jax.tree.map(jnp.asarray, draw(0))
    with pytest.raises(Unsupported) as error:
        evaluated(function, at)[0](stored(at))
    assert named in str(error.value)
