"""Batches of episodes on the devices; each process makes those of the users on its own devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from metarec_jax.config.run import Config
from metarec_jax.core.types import BatchRows, Episodes
from metarec_jax.data.pipeline import EpisodeBatches, training_iterator
from metarec_jax.train.program import Batch
from metarec_jax.train.sharding import own_users, round_up, shard_own_users, shard_users

Tree = TypeVar("Tree")
Localise = Callable[[Episodes], tuple[Any, Episodes]]
"""Episodes on the host -> (further inputs of the step, on the devices; episodes with ids into these). Inputs that are
the rows of the batch's users (`BatchRows`) are on the host, and go to the devices as episodes do."""


class _Parts:
    """Batches by number, each with its number: whole ones, or the users on this process's devices.

    Args:
        source: the batches.
        places: int [n], places in a batch of the users to make, among them some behind its last user.
    """

    def __init__(self, source: EpisodeBatches, places: np.ndarray):
        self._source, self._places = source, places

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[int, Episodes]:
        return index, self._source.part(index, self._places)


class EpisodeFeed:
    """Batches of episodes on the devices.

    Args:
        source: batches of episodes.
        mesh: the devices.
        users_per_device: number of users that a device computes in parallel.
        localise: makes the further inputs of a step.
        whole_batches: whether `localise` needs all users of a batch; otherwise a process makes its own alone.
    """

    def __init__(
        self, source: EpisodeBatches, mesh: Mesh, users_per_device: int, localise: Localise, whole_batches: bool
    ):
        self._source, self._mesh, self._localise, self._whole = source, mesh, localise, whole_batches
        self._users = padded_users(source.users_per_batch, mesh, users_per_device)
        places = np.arange(self._users) if whole_batches else own_users(mesh, self._users)
        self._iterator = training_iterator(_Parts(source, places))

    def __next__(self) -> Batch:
        index, episodes = next(self._iterator)
        read, local = self._localise(episodes)
        if isinstance(read, BatchRows):
            read = self._on_devices(read)
        return Batch((read, self._on_devices(local)), self._source.users_in(index))

    def _on_devices(self, of_users: Tree) -> Tree:
        if self._whole:
            return shard_users(self._mesh, of_users)
        return shard_own_users(self._mesh, of_users, self._users)

    def position(self) -> dict[str, Any]:
        """The position after the last batch."""
        return self._iterator.get_state()

    def continue_at(self, position: dict[str, Any]) -> None:
        """Continue at a position."""
        self._iterator.set_state(position)

    def close(self) -> None:
        """End the threads that make batches."""
        self._iterator.close()


def padded(episodes: Episodes, mesh: Mesh, users_per_device: int = 0) -> Episodes:
    """Add users of weight 0 to a batch until it splits evenly over the mesh, and into micro-batches.

    Args:
        episodes: a batch, on the host.
        mesh: the devices.
        users_per_device: number of users of a micro-batch on one device; 0 makes no micro-batches.

    Returns:
        The batch.
    """
    users = len(episodes.weight)
    missing = padded_users(users, mesh, users_per_device) - users
    return jax.tree.map(lambda leaf: np.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)), episodes)


def padded_users(users: int, mesh: Mesh, users_per_device: int = 0) -> int:
    """Compute the number of users of a batch that `padded` has filled up.

    Args:
        users: number of users.
        mesh: the devices.
        users_per_device: as for `padded`.

    Returns:
        The number.
    """
    wanted, at_once = round_up(users, mesh), users_per_device * mesh.size
    return -(-users // at_once) * at_once if 0 < at_once < wanted else wanted


def micro_batch(config: Config, mesh: Mesh, users_per_device: int) -> int:
    """Compute the number of users of a micro-batch on one device.

    Args:
        config: config of the run.
        mesh: the devices.
        users_per_device: number of users that a device computes in parallel.

    Returns:
        `users_per_device`; 0 if that is at least the device's part of a batch.
    """
    return users_per_device if users_per_device * mesh.size < round_up(config.train.users_per_step, mesh) else 0
