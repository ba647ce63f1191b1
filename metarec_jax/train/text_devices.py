"""How the devices of a mesh encode the texts of a step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec
from jaxtyping import Array

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.core.types import Params
from metarec_jax.encoder import Execution, ModelConfig, Tokens, choose_execution, encode
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import ALONE, Exchange, Losses
from metarec_jax.meta.text_passes import Chosen, Encode, Kept, Reading, embed, fitting_memory
from metarec_jax.train.sharding import SHARDS, by_role, by_user, per_device, sums, whole


class Devices:
    """How the devices of a mesh encode the texts of a step.

    If `shared`, the texts of a batch are divided over the devices, and each device gets all embeddings, so that each
    text is encoded once. Otherwise each device encodes the texts of its own users, and no embeddings are sent: better
    where users have few texts in common, since work and memory of a device then do not grow with the number of devices.

    Args:
        config: config of the run.
        architecture: architecture of the encoder.
        per_call: number of rows of a chunk on one device, for each length.
        slots: number of slots of embeddings of one device.
        mesh: the devices.
        shared: as above.
        run: options of computing layers.

    Attributes:
        keeps: whether a step may keep activations: not with sharded parameters, which every layer gathers again.
    """

    def __init__(
        self,
        config: Config,
        architecture: ModelConfig,
        per_call: tuple[int, ...],
        slots: int,
        mesh: Mesh,
        *,
        shared: bool,
        run: Execution,
    ):
        split = SHARDS in mesh.axis_names
        self._mesh, self.shared, self.keeps = mesh, shared, not split
        if split:
            run = run._replace(whole=functools.partial(whole, dtype=config.encoder.dtype))
        # Devices that gather sharded parameters need equal numbers of iterations.
        turns = functools.partial(jax.lax.pmax, axis_name=mesh.axis_names) if split else _as_it_is
        self.reading = Reading(encode_with(config, architecture, run), per_call, slots, turns=turns, remat=run.remat)

    @property
    def exchange(self) -> Exchange:
        """Communication of a device with the others in a step."""
        mesh = self._mesh
        if mesh.size == 1:
            return ALONE
        gather = functools.partial(jax.lax.all_gather, axis_name=mesh.axis_names, tiled=True)
        return sums(mesh)._replace(
            embeddings=gather if self.shared else _as_it_is,
            key=lambda key: jax.random.fold_in(key, jax.lax.axis_index(mesh.axis_names)),
        )

    def spread(self, gradient: Callable[..., Any]) -> Callable[..., Any]:
        """Transform the gradient function of one device into that of all devices.

        Args:
            gradient: as for `metarec_jax.meta.encoder_step.make_joint_step`.

        Returns:
            A function of whole arrays.
        """
        if self._mesh.size == 1:
            return gradient
        users = by_user(self._mesh)

        def own(trainable: Any, chosen: Chosen, *rest: Any) -> Any:
            return gradient(trainable, _own(chosen), *rest)

        def everywhere(trainable: Any, chosen: Chosen, *rest: Any) -> Any:
            roles = by_role(self._mesh, trainable)
            arguments = (roles, _held(users), users, Spec(), users)
            results = (roles, cast("Any", Losses)(Spec(), Spec(), users), users)
            return per_device(self._mesh, own, arguments, results)(trainable, chosen, *rest)

        return everywhere

    def fitting_memory(
        self, trained: Callable[[Params], tuple[Params, Params]], params: Params, chosen: Chosen, free: int
    ) -> Kept | None:
        """Shapes of the memory for activations of a step on all devices.

        Args:
            trained: splits parameters of the encoder into (trained ones, the others).
            params: parameters of the encoder.
            chosen: texts of a step.
            free: free memory of each device, in bytes.

        Returns:
            jax.ShapeDtypeStruct with the sharding of each array; None if nothing is kept.
        """
        if not self.keeps:
            return None
        mesh, users = self._mesh, by_user(self._mesh)

        def spread(function: Callable[..., Any]) -> Callable[..., Any]:
            def own(params: Params, chosen: Chosen) -> Kept:
                return function(params, _own(chosen))

            return per_device(mesh, own, (Spec(), _held(users)), users) if mesh.size > 1 else function

        given = (chosen._replace(items=None), free)
        shapes = fitting_memory(self.reading, trained, params, *given, spread=spread, devices=mesh.size)
        place = NamedSharding(mesh, users if mesh.size > 1 else Spec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)

    def embed_everything(self, params: Params, chosen: Chosen, *, slots: int) -> Array:
        """Encode texts that are divided over the devices, without gradient.

        Args:
            params: parameters of the encoder.
            chosen: the texts, as `metarec_jax.encoder.Texts.pick_shared` divides them.
            slots: number of slots of embeddings of one device.

        Returns:
            [slots, hidden], split over the devices.
        """
        reading = self.reading._replace(slots=slots)
        if self._mesh.size == 1:
            return embed(reading, params, chosen)
        roles = by_role(self._mesh, Trainable(None, None, params)).encoder
        users = by_user(self._mesh)

        def own(params: Params, chosen: Chosen) -> Array:
            return embed(reading, params, _own(chosen))

        return per_device(self._mesh, own, (roles, _held(users)), users)(params, chosen)


def _held(users: Spec) -> Any:
    """Partition specs of `Chosen`: each device has its own rows."""
    return cast("Any", Chosen)(rows=users, users=Spec())


def _own(chosen: Chosen) -> Chosen:
    """A device's part of the texts, in the form for a single device."""
    return chosen._replace(rows=tuple(rows._replace(count=rows.count[0]) for rows in chosen.rows))


def worth_sharing(texts: int, most: int, most_of_device: int, mesh: Mesh) -> bool:
    """Whether dividing texts over devices at least halves the number that each device encodes.

    Args:
        texts: number of distinct texts.
        most: greatest number of texts that a step uses.
        most_of_device: greatest number of texts that the users of one device use in a step.
        mesh: the devices.

    Returns:
        Whether it does; False on a single device.
    """
    dealt, own = -(-min(texts, most) // mesh.size), min(texts, most_of_device)
    return mesh.size > 1 and 2 * dealt <= own


def _as_it_is(tree: Any) -> Any:
    return tree


def execution_of(config: EncoderConfig, platform: str, *, split: bool = False) -> Execution:
    """Choose how a run computes the layers of its encoder.

    Args:
        config: options of the encoder.
        platform: platform of the devices: "cpu", "gpu" or "tpu".
        split: whether the encoder's parameters are sharded over devices.

    Returns:
        The options.
    """
    return choose_execution(platform, fused=config.attention == "fused", split=split)


def encode_with(config: Config, architecture: ModelConfig, run: Execution | None = None) -> Encode:
    """Make the encoder a function of its parameters; vectors have unit length and the pooling of the config.

    Args:
        config: config of the run.
        architecture: architecture of the encoder.
        run: options of computing layers; None chooses for this machine.

    Returns:
        (parameters of the encoder, rows of texts) -> [rows * texts, hidden].
    """
    chosen = config.encoder
    run = execution_of(chosen, jax.default_backend()) if run is None else run

    def function(params: Params, tokens: Tokens) -> Array:
        how = {"pooling": chosen.pooling, "normalise": True, "dims": chosen.dims, "dtype": chosen.dtype, "run": run}
        return encode(params, architecture, tokens, **how)

    return function
