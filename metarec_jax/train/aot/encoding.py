"""Encoding of texts by a frozen encoder whose parameters may be split over devices, with abstract arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from metarec_jax.core.types import Params
from metarec_jax.encoder import param_shapes
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.text_passes import Chosen
from metarec_jax.train.aot.estimate import Estimate, compiled_for
from metarec_jax.train.aot.targets import Target, devices
from metarec_jax.train.aot.workload import Turns, Workload, chosen_texts
from metarec_jax.train.sharding import SHARDS, shardings, user_mesh
from metarec_jax.train.text_devices import Devices, execution_of


def encoding_of(work: Workload, mesh: Mesh, texts: int) -> tuple[Any, tuple[Any, ...], Turns]:
    """Make the program that encodes texts, with abstract arguments.

    The texts are divided over all devices. With shards, the parameters of a layer are gathered where the layer is
    computed, as in joint training.

    Args:
        work: the architecture, the options of the encoder and the length of a text; parameters are stored in the
            precision of ``encoder.compute``.
        mesh: the devices.
        texts: number of texts of each device.

    Returns:
        The jitted program, its arguments as shapes with shardings on `mesh`, and the iterations of its
        loops over chunks of texts.

    Raises:
        MetarecError: the mesh's shards do not divide a parameter.
    """
    platform, split = mesh.devices.flat[0].platform, SHARDS in mesh.axis_names
    run = work.run or execution_of(work.config.encoder, platform, split=split)
    chosen, plan, turns = chosen_texts(mesh, work, run, texts, alone=True)
    encode = Devices(work.config, work.architecture, plan.per_call, texts, mesh, shared=True, run=run).embed_everything
    stored = jnp.dtype(work.config.encoder.compute)

    def held(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, stored, sharding=sharding)

    shapes = param_shapes(work.architecture)
    params = jax.tree.map(held, shapes, shardings(mesh, Trainable(None, None, shapes)).encoder)

    def program(params: Params, chosen: Chosen) -> jax.Array:
        with jax.named_scope("embed"):
            return encode(params, chosen, slots=texts)

    return jax.jit(program), (params, chosen), turns


def estimate_encoding(
    work: Workload,
    target: Target,
    *,
    texts: int,
    shards: int = 1,
    level: str = "",
    keep: Callable[[str], Any] | None = None,
) -> Estimate:
    """Compile the encoding of texts for a target.

    Args:
        work: as for `encoding_of`.
        target: the target.
        texts: number of texts of each device.
        shards: number of devices that hold one copy of the parameters.
        level, keep: as for `metarec_jax.train.aot.estimate.estimate`.

    Returns:
        The estimates, whose "users" are texts.

    Raises:
        MetarecError: the compiler of the target is not installed, or the work cannot be split over its devices.
    """
    mesh = user_mesh(work.config.train.devices if target.family == "here" else 0, shards, among=devices(target))
    program, arguments, turns = encoding_of(work, mesh, texts)
    with jax.set_mesh(mesh):
        lowered = program.lower(*arguments)
    return compiled_for(target, lowered, chips=mesh.size, users=texts * mesh.size, turns=turns, level=level, keep=keep)
