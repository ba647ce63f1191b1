"""Where arrays live: users are split over the devices, everything else is on each of them.

The mesh has Auto axes, so that the pure functions of learner and meta are written without knowing about devices
and XLA inserts the collectives: with users sharded and parameters replicated, one all-reduce of the gradient.
"""

from __future__ import annotations

from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metarec_jax.errors import MetarecError

Tree = TypeVar("Tree")
USERS = "users"


def user_mesh(devices: int = 0) -> Mesh:
    """A mesh of one axis, "users", over the first `devices` devices; 0 takes all.

    Raises:
        MetarecError: there are not so many devices.
    """
    present = jax.devices()
    if devices > len(present):
        raise MetarecError(
            f"train.devices is {devices}, but only {len(present)} {present[0].platform} device(s) are here; "
            "on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of them"
        )
    chosen = present[: devices or len(present)]
    return jax.make_mesh((len(chosen),), (USERS,), axis_types=(AxisType.Auto,), devices=chosen)


def round_up(users: int, mesh: Mesh) -> int:
    """The least number of users, at least `users`, that splits evenly over the mesh."""
    size = mesh.shape[USERS]
    return -(-users // size) * size


def shard_users(mesh: Mesh, tree: Tree) -> Tree:
    """Puts a tree of host arrays with a leading users axis on the devices, split along that axis."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(USERS)))


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Puts a whole copy of a tree on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
