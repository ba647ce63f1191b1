"""Arrays on the devices of all processes: from host arrays that every process has, and back to the host."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from metarec_jax.core import processes

Tree = TypeVar("Tree")


def put(tree: Any, shardings: Any) -> Any:
    """Put host arrays on devices; each process has the whole arrays, and puts the parts of its own devices.

    Args:
        tree: host arrays, equal in all processes.
        shardings: one sharding, or a tree of them like `tree`.

    Returns:
        Device arrays.
    """
    if processes.count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda leaf: _put(leaf, shardings), tree)
    return jax.tree.map(_put, tree, shardings)


def from_first(tree: Tree) -> Tree:
    """Replace the arrays of a tree by those of process 0.

    Args:
        tree: arrays of the same shapes in all processes.

    Returns:
        Host arrays; the unchanged tree where there is one process.
    """
    if processes.count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    plain = [np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for leaf in leaves]
    received = processes.arrays_from_first("arrays", lambda: {str(place): array for place, array in enumerate(plain)})
    assert received is not None
    found = [received[str(place)] for place in range(len(leaves))]
    return structure.unflatten(
        [jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(leaf) else array for leaf, array in zip(leaves, found)]
    )


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    if _is_key(leaf):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding))
    whole = np.asarray(leaf)
    with jax.transfer_guard("allow"):  # this transfer is meant
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def host(tree: Any) -> Any:
    """Copy arrays to the host; all processes call it, and each gets whole arrays.

    Args:
        tree: arrays.

    Returns:
        Host arrays.
    """
    if processes.count() == 1:
        return jax.device_get(tree)
    return jax.device_get(jax.tree.map(lambda leaf: leaf if _readable(leaf) else _gathered(leaf), tree))


def local(tree: Any) -> Any:
    """Copy what the devices of this process have of arrays to the host, without communication.

    Args:
        tree: arrays, split along their first axis or replicated.

    Returns:
        Host arrays, each the whole one, or the rows of this process's devices in their order.
    """
    if processes.count() == 1:
        return jax.device_get(tree)

    def own(leaf: Any) -> Any:
        if _readable(leaf):
            return leaf
        parts = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
        return np.concatenate(jax.device_get([parts[start] for start in sorted(parts)]))

    return jax.device_get(jax.tree.map(own, tree))


def _readable(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _gathered(leaf: jax.Array) -> np.ndarray:
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(leaf, tiled=True))
