"""Where arrays live: users are split over the devices; parameters are on each of them whole, or split by their role.

A mesh has the axis "users" and, where a copy of the encoder shall take several devices, the axis "shards". Users are
split over both. Its axes are Auto: the pure functions of learner and meta are written without knowing about devices,
and XLA inserts the collectives: with users sharded and parameters replicated, one all-reduce of the gradient.

Where XLA would choose badly (a chunked encoder adds up its gradient chunk by chunk, and each sum would become an
all-reduce) each device runs the program of one device on its users (`per_device`), and what is exchanged is written
down here: sums once at the end, and parameters that are split, gathered where they are used (Rajbhandari et al. 2020,
"ZeRO", arXiv 1910.02054, stage 3; "fully sharded data parallel").
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from metarec_jax.core.errors import MetarecError

Tree = TypeVar("Tree")
USERS, SHARDS = "users", "shards"

ROLES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(.*/)?encoder/(.*/)?(word|position|type)/embedding", PartitionSpec(None, SHARDS)),  # any vocabulary divides
    (r"(.*/)?encoder/(.*/)?(kernel|lora_a)", PartitionSpec(SHARDS, None)),
    (r"(.*/)?encoder/(.*/)?lora_b", PartitionSpec(None, SHARDS)),
    (r"(.*/)?encoder/(.*/)?(bias|scale|embedding)", PartitionSpec()),  # vectors, and the small table of distances
    (r"(.*/)?(theta|phi)/.*", PartitionSpec()),  # every user's inner loop starts from the learner as a whole
    (r"(.*/)?(step|key|count)", PartitionSpec()),
)
"""Pattern of a leaf's path -> how it is split where a mesh has shards; the first that matches whole counts. States of
an optimiser hold trees of the same paths, and so lie with their parameters."""


def user_mesh(devices: int = 0, shards: int = 1, *, among: Sequence[Any] | None = None) -> Mesh:
    """A mesh over the first `devices` devices; 0 takes all.

    Args:
        devices: how many.
        shards: devices that hold one copy of what is split by its role; with 1 there is no such axis.
        among: the devices to choose from; those of this process where None.

    Raises:
        MetarecError: there are not so many devices, or `shards` does not divide them.
    """
    present = jax.devices() if among is None else among
    if devices > len(present):
        raise MetarecError(
            f"train.devices is {devices}, but only {len(present)} {present[0].platform} device(s) are here; "
            "on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of them"
        )
    chosen = present[: devices or len(present)]
    if len(chosen) % shards:
        raise MetarecError(
            f"train.shards is {shards} and there are {len(chosen)} devices: the number of shards must divide that of "
            "the devices"
        )
    shape, names = ((len(chosen),), (USERS,)) if shards == 1 else ((len(chosen) // shards, shards), (USERS, SHARDS))
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names), devices=chosen)


def by_user(mesh: Mesh) -> PartitionSpec:
    """How an array with a leading axis of users is split: over all axes of the mesh."""
    return PartitionSpec(USERS if len(mesh.axis_names) == 1 else mesh.axis_names)


def by_role(mesh: Mesh, tree: Tree) -> Tree:
    """A tree like `tree` (a state, or any part of one with the paths of `ROLES`), of how each leaf is split.

    Raises:
        MetarecError: a leaf has no role.
    """
    if SHARDS not in mesh.axis_names:
        return jax.tree.map(lambda leaf: PartitionSpec(), tree)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: role(_name(path)), tree)


def shardings(mesh: Mesh, state: Tree) -> Tree:
    """`by_role`, for whole arrays.

    Raises:
        MetarecError: a leaf has no role, or the number of shards does not divide it.
    """

    def sharding(path: Any, leaf: Any, spec: PartitionSpec) -> NamedSharding:
        for size, axis in zip(leaf.shape, spec):
            if axis == SHARDS and size % mesh.shape[SHARDS]:
                raise MetarecError(
                    f"train.shards is {mesh.shape[SHARDS]}, which does not divide the {size} rows or columns of "
                    f"{_name(path)}: use a number that divides the encoder's sizes"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, state, by_role(mesh, state))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def role(name: str) -> PartitionSpec:
    """How the leaf of that path is split.

    Raises:
        MetarecError: no pattern of `ROLES` matches.

    >>> tuple(role("encoder/layer_0/query/kernel"))
    ('shards', None)
    """
    for pattern, spec in ROLES:
        if re.fullmatch(pattern, name):
            return spec
    raise MetarecError(f"no role of metarec_jax.train.sharding.ROLES matches {name}: add one that says how it is split")


def round_up(users: int, mesh: Mesh) -> int:
    """The least number of users, at least `users`, that splits evenly over the mesh."""
    return -(-users // mesh.size) * mesh.size


def shard_users(mesh: Mesh, tree: Tree) -> Tree:
    """Puts a tree of host arrays with a leading users axis on the devices, split along that axis."""
    return jax.device_put(tree, NamedSharding(mesh, by_user(mesh)))


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Puts a whole copy of a tree on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def place(mesh: Mesh, state: Tree) -> Tree:
    """Puts a state on the devices, each leaf by its role."""
    return jax.device_put(state, shardings(mesh, state))


def per_device(mesh: Mesh, function: Callable[..., Any], arguments: Any, results: Any) -> Callable[..., Any]:
    """`function` run by each device on what it holds of the arguments.

    Args:
        mesh: the devices.
        function: written for one device; what it exchanges with others it takes from this module.
        arguments, results: trees of `PartitionSpec`, or prefixes of them, that say what each device holds.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=arguments, out_specs=results, check_vma=False)


def total(mesh: Mesh, tree: Tree, specs: Any = None) -> Tree:
    """Inside `per_device`: the sum over devices of each leaf; of leaves that are split, over those with the same part.

    The sum over shards of the latter is taken where they were gathered (`whole`).
    """

    def summed(spec: PartitionSpec, leaf: Any) -> Any:
        return jax.lax.psum(leaf, USERS if SHARDS in spec else mesh.axis_names)

    if specs is None:
        return jax.lax.psum(tree, mesh.axis_names)
    return jax.tree.map(summed, specs, tree)


def whole(params: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Inside `per_device`: parameters of a part of the encoder that are split by their role, put together.

    Matrices travel in `dtype`, where they are multiplied in that anyway; the sum of their gradients is taken in their
    own precision, and each device keeps its part.
    """

    def put_together(path: Any, leaf: Any) -> Any:
        spec = role(f"encoder/{_name(path)}")
        return _gather(tuple(spec).index(SHARDS), dtype, leaf) if SHARDS in spec else leaf

    return jax.tree_util.tree_map_with_path(put_together, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(axis: int, dtype: DTypeLike | None, leaf: Any) -> Any:
    return jax.lax.all_gather(leaf.astype(dtype or leaf.dtype), SHARDS, axis=axis, tiled=True)


def _gather_forward(axis: int, dtype: DTypeLike | None, leaf: Any) -> tuple[Any, Any]:
    return _gather(axis, dtype, leaf), jnp.zeros((), leaf.dtype)


def _gather_backward(axis: int, dtype: DTypeLike | None, like: Any, cotangent: Any) -> tuple[Any]:
    own = cotangent.astype(like.dtype)
    return (jax.lax.psum_scatter(own, SHARDS, scatter_dimension=axis, tiled=True),)


_gather.defvjp(_gather_forward, _gather_backward)
