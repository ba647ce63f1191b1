"""Highest bounds over several devices: each finds its own, and all of these are gathered and ranked again.

It is written as a `shard_map`, since automatic sharding of `top_k` has given wrong results (jax issue 19271).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from metarec_jax.recommender.retrieval.quantised import Quantised, Query, compiler_options, upper_bounds

_AXIS = "items"
_SPLIT, _WHOLE = PartitionSpec(_AXIS), PartitionSpec()


class ShardedBounds:
    """Finds the rows of highest bounds, with the rows divided among devices.

    Args:
        table: the rows.
        count: number of rows.
        devices: where to hold them.
        approximate: whether to use `jax.lax.approx_max_k`, which is faster on TPUs and may miss rows there.
    """

    def __init__(self, table: Quantised, count: int, devices: Sequence[jax.Device], *, approximate: bool = False):
        self._count, self._approximate = count, approximate
        self._mesh = Mesh(np.array(devices), (_AXIS,))
        spare = -len(table.scale) % len(devices)
        placed = NamedSharding(self._mesh, _SPLIT)
        self._values, self._scale = (
            jax.device_put(np.pad(np.asarray(part), ((0, spare),) + ((0, 0),) * (part.ndim - 1)), placed)
            for part in (table.values, table.scale)
        )
        self._real = np.arange(self._scale.size) < count

    def __call__(
        self, query: Query, wanted: int, allowed: Bool[np.ndarray, " items"] | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Find the rows with the highest bounds; see `metarec_jax.recommender.retrieval.scan.highest_bounds`."""
        may = self._real.copy()
        if allowed is not None:
            may[: self._count] &= allowed
        # A power of two, and one more row than is asked for, whose bound is that of all other rows.
        size = min(1 << wanted.bit_length(), self._scale.size)
        program = self._program(size)
        bounds, rows = jax.device_get(
            program(self._values, self._scale, may.reshape(self._scale.shape), query.weights, query.slack)
        )
        order = np.argsort(-bounds, kind="stable")
        bounds, rows = bounds[order], rows[order]
        others = float(bounds[wanted]) if wanted < len(bounds) else -np.inf
        return rows[:wanted].astype(np.int64), bounds[:wanted], others

    @functools.cached_property
    def _program(self) -> Callable[[int], Callable[..., tuple[Array, Array]]]:
        return functools.cache(self._make)

    def _make(self, size: int) -> Callable[..., tuple[Array, Array]]:
        """The program that finds `size` rows."""
        own = min(size, self._scale.size // self._mesh.size)
        find = functools.partial(jax.lax.approx_max_k, k=own) if self._approximate else _top(own)

        def local(values: Array, scale: Array, may: Array, weights: Array, slack: Array) -> tuple[Array, Array]:
            bounds = jnp.where(may, upper_bounds(values, scale, weights, slack), -jnp.inf).reshape(-1)
            found, rows = find(bounds)
            rows = rows + jax.lax.axis_index(_AXIS) * scale.size
            found, rows = (jax.lax.all_gather(part, _AXIS, tiled=True) for part in (found, rows))
            best, places = jax.lax.top_k(found, min(size, len(found)))
            return best, rows[places]

        split = (_SPLIT, _SPLIT, _SPLIT, _WHOLE, _WHOLE)
        mapped = jax.shard_map(local, mesh=self._mesh, in_specs=split, out_specs=(_WHOLE, _WHOLE), check_vma=False)
        return jax.jit(mapped, compiler_options=compiler_options())


def _top(size: int) -> Callable[[Array], tuple[Array, Array]]:
    return lambda values: tuple(jax.lax.top_k(values, size))
