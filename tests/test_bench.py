"""`metarec bench` measures, counts what it says it counts, and says what bounds the work."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import pytest

from metarec_jax import bench, cli
from metarec_jax.errors import MetarecError


@pytest.fixture(scope="module")
def found():
    return bench.measure(bench.SMALL, rounds=2)


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

    assert bench.products(function, a, b) == pytest.approx(7 * 2 * 3 * 4 * 5 / 1e9)
    assert bench.products(jax.jit(function), a, b) == bench.products(function, a, b)


@pytest.mark.parametrize(
    ("arithmetic", "memory", "says"),
    [(0.8, 0.1, "bound by arithmetic"), (0.1, 0.6, "bound by memory"), (0.2, 0.3, "bound by neither limit")],
)
def test_the_greater_share_is_what_bounds(arithmetic, memory, says):
    said = bench.verdict(arithmetic, memory)
    assert said.startswith(says)
    assert f"{max(arithmetic, memory):.0%}".replace("%", " %") in said


def test_no_turns_are_refused():
    with pytest.raises(MetarecError, match="--rounds is 0; it must be at least 1"):
        cli.bench(["--rounds", "0"])
