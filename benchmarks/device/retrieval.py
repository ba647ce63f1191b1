"""Part "top-k, N items": lists from a large catalogue."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.device.measure import Asked, Row, Work, measured
from benchmarks.device.torch_device import find
from benchmarks.phases import phases
from metarec_jax.recommender.retrieval.quantised import TILE, Quantised, query_of
from metarec_jax.recommender.retrieval.scan import scan_program
from metarec_jax.recommender.retrieval.sharded import ShardedBounds

COLUMNS, CANDIDATES, K = 64, 4096, 10


@functools.partial(jax.jit, static_argnums=(0, 1))
def _numbers(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Integers that look random, each computed from its place alone, so that no further memory is needed."""
    place = jax.lax.iota(jnp.uint32, math.prod(shape))
    return (place * jnp.uint32(2654435761) >> 17).astype(jnp.int8).astype(dtype).reshape(shape)


def measure(items: int, asked: Asked) -> Iterator[Row]:
    """The scan of int8 bounds, the highest bounds, and the best of a whole bfloat16 product.

    Args:
        items: items of the catalogue.
        asked: size and time.

    Yields:
        A row for each program.
    """
    count, columns, wanted = (2000, 8, 16) if asked.smoke else (items, COLUMNS, CANDIDATES)
    tiles = -(-count // TILE)
    shape = (tiles, columns, TILE)
    vector = np.random.default_rng(0).normal(size=columns)

    def table() -> Quantised:
        return Quantised(
            _numbers(shape, np.int8), jnp.ones((tiles, TILE), jnp.float32), np.zeros(columns), np.ones(columns), 0.5
        )

    def scan() -> Work:
        held = table()
        query = query_of(held, vector)
        program = scan_program(shape)
        arguments = jax.device_put((held.values, held.scale, query.weights, query.slack))
        gigabytes = (held.values.nbytes + 2 * held.scale.nbytes) / 1e9
        return Work(lambda: program(*arguments), count, "items", {"gbytes": gigabytes})

    def bounds(*, approximate: bool) -> Work:
        held = table()
        find_bounds = ShardedBounds(held, count, jax.devices()[:1], approximate=approximate)
        query = query_of(held, vector)
        gigabytes = (held.values.nbytes + held.scale.nbytes) / 1e9
        return Work(lambda: find_bounds(query, wanted, None), count, "items", {"gbytes": gigabytes})

    def product() -> Work:
        held, query = _numbers((count, columns), jnp.bfloat16), jnp.asarray(vector, jnp.bfloat16)

        def best(table: jax.Array, query: jax.Array) -> Any:
            return jax.lax.top_k(jnp.matmul(table, query, preferred_element_type=jnp.float32), K)

        compiled, facts = phases(best, held, query)
        facts = {**facts, "gbytes": held.nbytes / 1e9, "compute": "bfloat16"}
        return Work(lambda: compiled(held, query), count, "items", facts)

    def rival() -> Work:
        import torch

        where = find()
        with torch.device(where.name):
            rows = torch.randint(-127, 128, (count, columns), dtype=torch.int8).to(torch.bfloat16)
            query = torch.tensor(vector, dtype=torch.bfloat16)
        gigabytes = rows.nbytes / 1e9
        return Work(lambda: torch.topk((rows @ query).float(), K), count, "items", {"gbytes": gigabytes}, where.wait)

    yield from measured(f"scan of {count:,} items", {"int8 bounds": scan}, asked, most=1.0)
    candidates = {
        "exact": lambda: bounds(approximate=False),
        "jax.lax.approx_max_k": lambda: bounds(approximate=True),
    }
    yield from measured(f"the {wanted:,} highest bounds of {count:,} items", candidates, asked, most=1.0)
    whole = {"bfloat16 product": product, "PyTorch, bfloat16 product": rival}
    yield from measured(f"the {K} best of {count:,} items", whole, asked, most=1.0)
