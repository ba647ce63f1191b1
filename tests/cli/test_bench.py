"""`metarec bench` measures, counts what it says it counts, and says what bounds the work."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import pytest

from metarec_jax.cli import bench, bench_measure
from metarec_jax.cli.bench_measure import Work
from metarec_jax.cli.hardware_limits import memory
from metarec_jax.core import flops


@pytest.fixture(scope="module")
def found():
    return bench_measure.measure(bench_measure.SMALL, rounds=2)


def test_everything_is_measured_and_told(found, capsys):
    assert [work["unit"] for work in found["work"]] == ["users/s", "texts/s", "users/s"]
    for work in found["work"]:
        assert 0 < work["low"] <= work["median"] <= work["high"]
        assert work["compile_s"] > 0
        assert work["share_of_products"] > 0
        assert work["verdict"].startswith("bound by")
    bench.show(json.loads(json.dumps(found)))
    said = capsys.readouterr().out
    assert said.startswith("This machine: ")
    assert said.count("bound by") == 3


def test_products_are_counted_in_every_turn():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))

    def function(a: jax.Array, b: jax.Array) -> jax.Array:
        def turn(total: jax.Array, _: None) -> tuple[jax.Array, None]:
            return total + a @ b, None

        return jax.lax.scan(turn, jnp.zeros((3, 5)), None, length=7)[0]

    assert flops.products(function, a, b) == pytest.approx(7 * 2 * 3 * 4 * 5 / 1e9)
    assert flops.products(jax.jit(function), a, b) == flops.products(function, a, b)


def test_turns_that_only_the_data_knows_are_asked_for():
    def function(a: jax.Array, turns: jax.Array) -> jax.Array:
        with jax.named_scope("chunks"):
            return jax.lax.fori_loop(0, turns, lambda _, x: x @ a, a)

    jaxpr = jax.make_jaxpr(function)(jnp.ones((3, 3)), jnp.int32(2)).jaxpr
    once = 2 * 3 * 3 * 3
    assert flops.products_of_jaxpr(jaxpr) == once
    assert flops.products_of_jaxpr(jaxpr, lambda path: 5 if "chunks" in path else None) == 5 * once


def test_of_branches_the_one_with_the_most_products_counts():
    a = jnp.ones((3, 3))

    def function(a: jax.Array, which: jax.Array) -> jax.Array:
        return jax.lax.cond(which, lambda a: a @ a, lambda a: a @ a @ a, a)

    once = 2 * 3 * 3 * 3
    assert flops.products_of_jaxpr(jax.make_jaxpr(function)(a, jnp.bool_(True)).jaxpr) == 2 * once


def test_the_bandwidth_is_that_of_the_quickest_way():
    def work(name, amount):
        return Work(name, "GB", amount, lambda: None)

    ways = [work("slow", 1e-9), work("quick", 1e9), work("also slow", 1e-9)]
    found = bench_measure.compare_with_limits(work("product", 1.0), ways, [work("work", 1.0)], rounds=3)
    assert found["limits"]["gb_per_s"] > 1e9


def test_ways_through_memory_are_what_they_say():
    ways = memory(4)
    assert {"copy", "read"} <= set(ways)
    assert {name: limit.work for name, limit in ways.items() if "copy" in name} == dict.fromkeys(
        [name for name in ways if "copy" in name], pytest.approx(0.008)
    )
    for limit in ways.values():
        limit.run()
        limit.run()


@pytest.mark.parametrize(
    ("arithmetic", "memory", "says"),
    [(0.8, 0.1, "bound by arithmetic"), (0.1, 0.6, "bound by memory"), (0.2, 0.3, "bound by neither limit")],
)
def test_the_greater_share_is_what_bounds(arithmetic, memory, says):
    said = bench_measure.verdict(arithmetic, memory)
    assert said.startswith(says)
    assert f"{max(arithmetic, memory):.0%}".replace("%", " %") in said
