"""Connection of the devices of several processes, while all processes are known to be there.

The first collective of a group of devices connects them. Gloo, the library of CPUs, gives up where the processes come
to it more than 30 seconds apart, as they do where one compiles or reads for longer than another; later collectives of
that group wait for half an hour. So each group is connected in advance, right after a barrier.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metarec_jax.core import processes
from metarec_jax.core.global_arrays import put


def connect_processes() -> None:
    """Connect all devices, and each device with those of the same number in other processes.

    Raises:
        PeerError: other processes are missing.
    """
    if processes.count() > 1:
        devices = np.array(jax.devices()).reshape(processes.count(), -1)
        connect(Mesh(devices, ("processes", "devices"), axis_types=(AxisType.Auto,) * 2))


@functools.cache
def connect(mesh: Mesh) -> None:
    """Connect the devices of a mesh along each set of its axes; the processes wait for each other.

    Args:
        mesh: devices of several processes; with those of one process, this does nothing.

    Raises:
        PeerError: other processes are missing.
    """
    if len({device.process_index for device in mesh.devices.flat}) == 1:
        return
    names = mesh.axis_names
    sets = [axes for number in range(1, len(names) + 1) for axes in itertools.combinations(names, number)]
    rows = PartitionSpec(names)

    def sums(own: jax.Array) -> jax.Array:
        for axes in sets:  # one after another, in the same order on each device
            own = jnp.sqrt(jax.lax.psum(own, axes))
        return own

    ones = put(np.ones(mesh.size, np.float32), NamedSharding(mesh, rows))
    program = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))
    compiled = program.lower(ones).compile()
    processes.from_first("devices", lambda: "")  # process 0 may work for longer than the time limit of a barrier
    processes.barrier("the connection of devices")
    jax.block_until_ready(compiled(ones))
