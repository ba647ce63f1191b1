"""The compiled outer step of a run, and the shape of the batches that it takes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from metarec_jax.assembly import Assembly, make_optimiser
from metarec_jax.memory import SHARE, free_memory, users_that_fit
from metarec_jax.meta.outer import TrainState, annealed, make_step
from metarec_jax.progress import Reporter
from metarec_jax.sharding import round_up, shard_users
from metarec_jax.types import Episodes, Prepared


def outer_step(assembly: Assembly, mesh: Mesh, users_per_device: int) -> Any:
    """The jitted outer step of a run: (state, tables, episodes) -> (state, losses); it takes over its state's memory.

    Args:
        assembly: model, optimiser and length of the training.
        mesh: the devices.
        users_per_device: users that a device computes at the same time.
    """
    config, updater = assembly.config.train, assembly.config.updater
    steps = len(assembly.train.source)
    at_once = users_per_device * mesh.size
    weights = None
    if updater.multi_step and updater.steps > 1:
        weights = annealed(updater.steps, max(round(updater.multi_step * steps), 1))
    step = make_step(
        assembly.model,
        make_optimiser(config, steps),
        at_once=at_once if at_once < round_up(config.users_per_step, mesh) else 0,
        step_weights=weights,
    )
    return jax.jit(step, donate_argnums=0)


def whole(episodes: Episodes, mesh: Mesh, users_per_device: int = 0) -> Episodes:
    """`episodes` filled up with empty users until they split evenly over the mesh, and into micro-batches."""
    users = len(episodes.weight)
    wanted = round_up(users, mesh)
    at_once = users_per_device * mesh.size
    if 0 < at_once < wanted:
        wanted = -(-users // at_once) * at_once
    return jax.tree.map(lambda leaf: np.pad(leaf, [(0, wanted - users)] + [(0, 0)] * (leaf.ndim - 1)), episodes)


def users_at_once(assembly: Assembly, mesh: Mesh, state: TrainState, tables: Prepared, reporter: Reporter) -> int:
    """Users that a device computes at the same time: what the config says; where that is 0, as many as fit in memory.

    Raises:
        MetarecError: not even one fits.
    """
    config, source = assembly.config.train, assembly.train.source
    if config.users_per_device:
        return config.users_per_device
    largest = max((source[i] for i in range(source.batches)), key=lambda episodes: episodes.support.mask.shape[1])

    def compile_with(users: int) -> Any:
        episodes = shard_users(mesh, whole(largest, mesh, users))
        return outer_step(assembly, mesh, users).lower(state, tables, episodes).compile()

    budget = int(SHARE * free_memory(mesh.devices.flat[0]))
    users = users_that_fit(compile_with, round_up(config.users_per_step, mesh) // mesh.size, budget)
    reporter.note(f"{users} users at a time on each device: as many as fit in {budget / 1e9:.1f} GB")
    return users
