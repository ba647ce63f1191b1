"""Placement of arrays on devices: users are split over devices; parameters are replicated, or split by their role.

A mesh has the axis "users" and, if a copy of the encoder is distributed over several devices, the axis "shards". Users
are split over both.

In an outer step each device runs a single-device program on its users (`per_device`), and this module defines the
communication: sums of losses and gradient (`sums`), and sharded parameters gathered where they are used (Rajbhandari et
al. 2020, "ZeRO", arXiv 1910.02054, stage 3; "fully sharded data parallel"). Everywhere else XLA inserts the
collectives, since the axes are Auto. It would insert too many in a step: one all-reduce for each leaf of the gradient,
and for each chunk of texts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from metarec_jax.core import processes
from metarec_jax.core.device_groups import connect
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.global_arrays import from_first, put
from metarec_jax.factors.correction import MULTIPLE
from metarec_jax.factors.row_products import AXIS
from metarec_jax.meta.outer import ALONE, Exchange

Tree = TypeVar("Tree")
USERS, SHARDS = "users", "shards"
SMALL = 1 << 18
"""Greatest number of elements of a leaf that is sent together with others (1 MiB in float32)."""

ITEM_ROWS = r"trainable/factors|squares"
"""Pattern of the correction of item factors in a training state and of its sums: each device holds a block of rows."""
PARTS = rf"{ITEM_ROWS}|factors"
"""Pattern of leaves that each device has a part of: those, and the rows of the correction that a step reads."""
ROLES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(.*/)?encoder/(.*/)?(word|position|type)/embedding", PartitionSpec(None, SHARDS)),  # any vocabulary divides
    (r"(.*/)?encoder/(.*/)?(kernel|lora_a)", PartitionSpec(SHARDS, None)),
    (r"(.*/)?encoder/(.*/)?lora_b", PartitionSpec(None, SHARDS)),
    (
        r"(.*/)?encoder/(.*/)?(bias|scale|offset|embedding)",
        PartitionSpec(),
    ),  # vectors, and the small table of distances
    (r"(.*/)?(theta|phi)/.*", PartitionSpec()),  # every user's inner loop starts from the learner as a whole
    (PARTS, PartitionSpec((USERS, SHARDS))),
    (r"(.*/)?(step|key|count)", PartitionSpec()),
)
"""Pattern of a leaf's path -> how it is split where a mesh has shards; the first full match counts. An optimiser's
state has trees with the same paths, so it is split like the parameters."""


def user_mesh(devices: int = 0, shards: int = 1, *, among: Sequence[Any] | None = None) -> Mesh:
    """Make a mesh of devices.

    Args:
        devices: number of devices, the first ones; 0 takes all.
        shards: number of devices that share one copy of the parameters; with 1 there is no such axis.
        among: the devices to choose from; None takes those of this process.

    Returns:
        The mesh.

    Raises:
        MetarecError: there are too few devices, or `shards` does not divide their number.
    """
    present = jax.devices() if among is None else among
    if devices > len(present):
        raise MetarecError(
            f"train.devices is {devices}, but only {len(present)} {present[0].platform} device(s) are here; "
            "on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of them"
        )
    if among is None and processes.count() > 1 and devices not in (0, len(present)):
        raise MetarecError(
            f"train.devices is {devices}, but the {processes.count()} processes have {len(present)} devices, and all "
            "take part: leave --train.devices out"
        )
    chosen = present[: devices or len(present)]
    if len(chosen) % shards:
        raise MetarecError(
            f"train.shards is {shards} and there are {len(chosen)} devices: the number of shards must divide that of "
            "the devices"
        )
    shape, names = ((len(chosen),), (USERS,)) if shards == 1 else ((len(chosen) // shards, shards), (USERS, SHARDS))
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names), devices=chosen)
    if among is None and shards > 1:  # without shards, its devices were connected before
        connect(mesh)
    return mesh


def factor_mesh(devices: int = 0) -> Mesh:
    """Make the mesh over which the tables of users and items are sharded while item factors are fitted.

    Args:
        devices: number of devices, as for `user_mesh`.

    Returns:
        The mesh.

    Raises:
        MetarecError: there are too few devices.
    """
    return Mesh(user_mesh(devices).devices, (AXIS,), axis_types=(AxisType.Auto,))


def by_user(mesh: Mesh) -> PartitionSpec:
    """Partition spec of an array with a leading axis of users: split over all axes of the mesh."""
    return PartitionSpec(USERS if len(mesh.axis_names) == 1 else mesh.axis_names)


def by_role(mesh: Mesh, tree: Tree) -> Tree:
    """Partition specs of parameters by their role.

    Args:
        mesh: the devices.
        tree: a training state, or a part of one with paths of `ROLES`.

    Returns:
        A tree of the same structure with the spec of each leaf.

    Raises:
        MetarecError: a leaf has no role.
    """

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        if SHARDS in mesh.axis_names:
            return role(_name(path))
        return by_user(mesh) if mesh.size > 1 and re.fullmatch(PARTS, _name(path)) else PartitionSpec()

    return jax.tree_util.tree_map_with_path(spec, tree)


def shardings(mesh: Mesh, state: Tree) -> Tree:
    """Shardings of parameters by their role.

    Args:
        mesh: the devices.
        state: a training state of whole arrays.

    Returns:
        A tree of the same structure with the sharding of each leaf.

    Raises:
        MetarecError: a leaf has no role, or the number of shards or of devices does not divide its size.
    """

    def sharding(path: Any, leaf: Any, spec: PartitionSpec) -> NamedSharding:
        if re.fullmatch(ITEM_ROWS, _name(path)) and leaf.shape[0] % mesh.size:
            raise MetarecError(
                f"there are {mesh.size} devices, which do not divide the {leaf.shape[0]} rows of the correction of "
                f"item factors: use a divisor of {MULTIPLE} for --train.devices, or --factors.no-train"
            )
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
    """Partition spec of the leaf with this path.

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
    """The least number of users, at least `users`, that splits evenly over a mesh.

    Args:
        users: number of users.
        mesh: the devices.

    Returns:
        The number.
    """
    return -(-users // mesh.size) * mesh.size


def shard_users(mesh: Mesh, tree: Tree) -> Tree:
    """Put arrays on the devices, split along their leading axis of users.

    Args:
        mesh: the devices.
        tree: host arrays of all users, in every process.

    Returns:
        Device arrays.
    """
    return put(tree, NamedSharding(mesh, by_user(mesh)))


def own_users(mesh: Mesh, users: int) -> np.ndarray:
    """Find the users of a batch that are on the devices of this process.

    Args:
        mesh: the devices.
        users: number of users of the batch, which splits evenly over the mesh.

    Returns:
        int64 [n], their places in the batch, ascending.
    """
    places = np.arange(users)
    if processes.count() == 1:
        return places
    parts = NamedSharding(mesh, by_user(mesh)).addressable_devices_indices_map((users,)).values()
    return np.unique(np.concatenate([places[part] for part in parts if part is not None]))


def shard_own_users(mesh: Mesh, tree: Tree, users: int) -> Tree:
    """Put arrays on the devices of all processes, split along their leading axis of users.

    Args:
        mesh: the devices.
        tree: host arrays of the users of this process (`own_users`).
        users: number of users of the batch in all processes.

    Returns:
        Device arrays.
    """
    split = NamedSharding(mesh, by_user(mesh))

    def of_all(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(split, leaf, (users, *leaf.shape[1:]))

    with jax.transfer_guard("allow"):  # this transfer is meant
        return jax.tree.map(of_all, tree)


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Put a whole copy of a tree on each device.

    Args:
        mesh: the devices.
        tree: host arrays.

    Returns:
        Device arrays.
    """
    return put(tree, NamedSharding(mesh, PartitionSpec()))


def place(mesh: Mesh, state: Tree) -> Tree:
    """Put a training state on the devices, each leaf by its role; of several processes that of the first.

    Args:
        mesh: the devices.
        state: the state.

    Returns:
        Device arrays.
    """
    return put(from_first(state), shardings(mesh, state))


def per_device(mesh: Mesh, function: Callable[..., Any], arguments: Any, results: Any) -> Callable[..., Any]:
    """Make a function that each device runs on its part of the arguments.

    Args:
        mesh: the devices.
        function: function of one device; it communicates by functions of this module.
        arguments, results: trees of `PartitionSpec`, or prefixes of them, of what each device holds.

    Returns:
        The function of whole arrays.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=arguments, out_specs=results, check_vma=False)


def sums(mesh: Mesh) -> Exchange:
    """Communication of a step on each of several devices: sums of losses and gradient.

    Args:
        mesh: the devices.

    Returns:
        The communication; with a single device, none.
    """
    if mesh.size == 1:
        return ALONE
    return Exchange(total=functools.partial(total, mesh), gradient=lambda tree: total(mesh, tree, by_role(mesh, tree)))


def total(mesh: Mesh, tree: Tree, specs: Any = None) -> Tree:
    """Inside `per_device`: sum each leaf over devices; split leaves are summed over devices with the same part.

    The sum over shards of parameters that are split over them is part of the gradient of `whole`. On CPUs small leaves
    are sent as one message, since each message takes longer than its bytes; for other platforms XLA joins them.

    Args:
        mesh: the devices.
        tree: leaves to sum.
        specs: partition spec of each leaf; None where all are replicated.

    Returns:
        The sums.
    """
    leaves, structure = jax.tree.flatten(tree)
    specs = [PartitionSpec()] * len(leaves) if specs is None else structure.flatten_up_to(specs)
    together: dict[Any, list[int]] = {}
    for place, (leaf, spec) in enumerate(zip(leaves, specs)):
        split = {name for axis in spec for name in ([axis] if isinstance(axis, str) else axis or ())}
        over = tuple(name for name in mesh.axis_names if name not in split)
        alone = mesh.devices.flat[0].platform != "cpu" or leaf.size > SMALL
        together.setdefault((over, leaf.dtype, place if alone else None), []).append(place)
    for (over, *_), places in together.items():
        message, separate = ravel_pytree([leaves[place] for place in places])
        for place, leaf in zip(places, separate(jax.lax.psum(message, over))):
            leaves[place] = leaf
    return structure.unflatten(leaves)


def whole(params: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Inside `per_device`: gather the sharded parameters of a part of the encoder.

    Matrices are sent in `dtype`, in which they are multiplied; the sum of their gradients is computed in their own
    precision, and each device keeps its part.

    Args:
        params: parameters of a part of the encoder.
        dtype: data type of the products; None takes that of the parameters.

    Returns:
        Whole parameters.
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
