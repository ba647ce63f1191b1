"""The compiled outer step of a run, and the batches that it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from metarec_jax.config.run import Config
from metarec_jax.core.device_memory import SHARE, free_memory, users_that_fit
from metarec_jax.core.progress import Reporter
from metarec_jax.core.types import Episodes, Params, Prepared
from metarec_jax.meta.encoder_step import make_joint_step
from metarec_jax.meta.outer import TrainState, annealed, make_step
from metarec_jax.meta.user import Model
from metarec_jax.privacy.accounting import Plan
from metarec_jax.privacy.dp_encoder_step import joint_sum
from metarec_jax.privacy.dp_step import Fed, Mechanism, Summed, frozen_sum, make_private_step
from metarec_jax.privacy.text_batches import PrivateLibrary
from metarec_jax.train.build import Assembly
from metarec_jax.train.optimizer import by_rate, make_optimiser, relative_rates
from metarec_jax.train.sharding import replicate, round_up, shard_users
from metarec_jax.train.text_batches import Devices, Library


class Program(NamedTuple):
    """How a run's outer steps are taken.

    Attributes:
        feed: episodes of a batch, on the host and `whole` -> (what the step reads beside the state, episodes with ids
            into that).
        make: users that a device computes at the same time -> the jitted step: (state, what was fed, episodes) ->
            (state, losses). It takes over its state's memory.
    """

    feed: Callable[[Episodes], tuple[Any, Episodes]]
    make: Callable[[int], Any]


def frozen_program(assembly: Assembly, mesh: Mesh, tables: Prepared) -> Program:
    """Of a run whose embeddings stay as they are: all steps read the same `tables`."""

    def make(users_per_device: int) -> Any:
        return frozen_step(assembly.config, assembly.model, len(assembly.train.source), mesh, users_per_device)

    return Program(lambda episodes: (tables, episodes), make)


def private_program(assembly: Assembly, mesh: Mesh, tables: Prepared, plan: Plan, seed: Sequence[int]) -> Program:
    """Of a private run whose embeddings stay as they are; `seed` is what noise is drawn from."""
    fed = Fed(tables, _secret(mesh, seed))

    def make(users_per_device: int) -> Any:
        mechanism = _mechanism(assembly.config, plan)
        summed = frozen_sum(assembly.model, mechanism, at_once=users_per_device * mesh.size)
        return private_step(assembly.config, summed, mechanism, len(assembly.train.source))

    return Program(lambda episodes: (fed, episodes), make)


def private_joint_program(
    assembly: Assembly, mesh: Mesh, library: PrivateLibrary, plan: Plan, seed: Sequence[int]
) -> Program:
    """Of a private run that trains its encoder; `seed` is what noise is drawn from."""
    config, key = assembly.config, _secret(mesh, seed)

    def feed(episodes: Episodes) -> tuple[Fed, Episodes]:
        read, local = library.localise(episodes)
        return Fed(read, key), local

    def make(_: int) -> Any:
        mechanism = _mechanism(config, plan)
        summed = joint_sum(assembly.model, library.reading, _trained(config), mechanism)
        return private_step(config, library.spread(summed), mechanism, len(assembly.train.source))

    return Program(feed, make)


def _secret(mesh: Mesh, seed: Sequence[int]) -> Any:
    return replicate(mesh, functools.reduce(jax.random.fold_in, seed, jax.random.key(0)))


def _mechanism(config: Config, plan: Plan) -> Mechanism:
    return Mechanism(plan.clip, plan.noise, plan.rate * plan.users, config.episodes.query)


def joint_program(assembly: Assembly, mesh: Mesh, library: Library) -> Program:
    """Of a run that trains its encoder: each step reads the distinct texts of its batch."""

    def make(users_per_device: int) -> Any:
        steps = len(assembly.train.source)
        return joint_step(assembly.config, assembly.model, library.devices, steps, mesh, users_per_device)

    return Program(library.localise, make)


def frozen_step(config: Config, model: Model, steps: int, mesh: Mesh, users_per_device: int) -> Any:
    """The jitted outer step of a run whose embeddings stay as they are: (state, tables, episodes) -> (state, losses).

    Args:
        config: of the run.
        model: its functions.
        steps: outer steps that the run takes, which its schedule is made for.
        mesh: the devices.
        users_per_device: that a device computes at the same time.
    """
    step = make_step(
        model,
        make_optimiser(config, steps),
        at_once=_at_once(config, mesh, users_per_device) * mesh.size,
        step_weights=_step_weights(config, steps),
    )
    return jax.jit(step, donate_argnums=0)


def private_step(config: Config, summed: Summed, mechanism: Mechanism, steps: int) -> Any:
    """The jitted outer step of a private run: (state, what is fed, episodes) -> (state, losses).

    Args:
        config, steps: as for `frozen_step`.
        summed: users' clipped gradients.
        mechanism: how they were clipped, and what noise is added.
    """
    optimiser = make_optimiser(config, steps)
    step = make_private_step(summed, optimiser, mechanism, step_weights=_step_weights(config, steps))
    return jax.jit(step, donate_argnums=0)


def joint_step(config: Config, model: Model, devices: Devices, steps: int, mesh: Mesh, users_per_device: int) -> Any:
    """The jitted outer step of a run that trains its encoder: (state, chosen texts, episodes) -> (state, losses).

    Args:
        config, model, steps, mesh, users_per_device: as for `frozen_step`.
        devices: how they encode.
    """
    step = make_joint_step(
        model,
        devices.training,
        _trained(config),
        make_optimiser(config, steps),
        at_once=_at_once(config, mesh, users_per_device),
        step_weights=_step_weights(config, steps),
        exchange=devices.exchange,
        spread=devices.spread,
    )
    return jax.jit(step, donate_argnums=0)


def _trained(config: Config) -> Callable[[Params], tuple[Params, Params]]:
    """Parameters of the encoder -> (those that are trained, the others)."""
    return lambda params: by_rate(params, relative_rates(config.encoder, params, config.train.rate))


def _at_once(config: Config, mesh: Mesh, users_per_device: int) -> int:
    """Users of a micro-batch on one device; 0 where they are all of its users."""
    return users_per_device if users_per_device * mesh.size < round_up(config.train.users_per_step, mesh) else 0


def _step_weights(config: Config, steps: int) -> Any:
    updater = config.updater
    if not updater.multi_step or updater.steps <= 1:
        return None
    return annealed(updater.steps, max(round(updater.multi_step * steps), 1))


def whole(episodes: Episodes, mesh: Mesh, users_per_device: int = 0) -> Episodes:
    """`episodes` filled up with empty users until they split evenly over the mesh, and into micro-batches."""
    users = len(episodes.weight)
    wanted = round_up(users, mesh)
    at_once = users_per_device * mesh.size
    if 0 < at_once < wanted:
        wanted = -(-users // at_once) * at_once
    return jax.tree.map(lambda leaf: np.pad(leaf, [(0, wanted - users)] + [(0, 0)] * (leaf.ndim - 1)), episodes)


def users_at_once(assembly: Assembly, mesh: Mesh, state: TrainState, program: Program, reporter: Reporter) -> int:
    """Users that a device computes at the same time: what the config says; where that is 0, as many as fit in memory.

    In a private run that trains its encoder it is one, since each has a gradient of the encoder.

    Raises:
        MetarecError: not even one fits.
    """
    config, source = assembly.config.train, assembly.train.source
    if assembly.config.privacy.epsilon and assembly.config.encoder.train != "no":
        return 1
    if config.users_per_device:
        return config.users_per_device
    largest = max((source[i] for i in range(source.batches)), key=lambda episodes: episodes.support.mask.shape[1])

    def compile_with(users: int) -> Any:
        fed, episodes = program.feed(whole(largest, mesh, users))
        return program.make(users).lower(state, fed, shard_users(mesh, episodes)).compile()

    budget = int(SHARE * free_memory(mesh.devices.flat[0]))
    users = users_that_fit(compile_with, round_up(config.users_per_step, mesh) // mesh.size, budget)
    reporter.note(f"{users} users at a time on each device: as many as fit in {budget / 1e9:.1f} GB")
    return users
