"""All arguments of an outer step as shapes, without reading data or computing values."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import CLICKS, STARS
from metarec_jax.core.types import BatchRows, Episodes, Items, Params, Rows, Tables
from metarec_jax.data.splits import Statistics
from metarec_jax.encoder import (
    BertConfig,
    Execution,
    Gemma3Config,
    ModelConfig,
    ModernBertConfig,
    Qwen3Config,
    TextRows,
    load,
    param_shapes,
    random_encoder,
)
from metarec_jax.encoder.row_packing import Plan, most_rows, pack_rows, plan_alone, plan_rows
from metarec_jax.factors.correction import items_of, table_rows
from metarec_jax.factors.item_factors import NOTHING_KNOWN
from metarec_jax.factors.user_prior import no_tastes
from metarec_jax.learner.prior import RATINGS
from metarec_jax.meta.outer import TrainState
from metarec_jax.meta.text_passes import Chosen, scope_of
from metarec_jax.train.aot.encoder_sizes import ENCODER_SIZES, EncoderSize
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.frozen_program import MOST_BYTES, frozen_step
from metarec_jax.train.joint_program import joint_step
from metarec_jax.train.meta_training import padded
from metarec_jax.train.model import abstract_trainable, make_model
from metarec_jax.train.optimizer import make_optimiser
from metarec_jax.train.sharding import SHARDS, by_user, shardings
from metarec_jax.train.text_devices import Devices, execution_of, worth_sharing


def _sized(size: EncoderSize) -> ModelConfig:
    sizes = size[:5]
    if size.family in ("qwen3", "gemma3_text"):
        kind = Qwen3Config if size.family == "qwen3" else Gemma3Config
        return kind(*sizes, num_key_value_heads=size.key_heads, head_dim=size.head)
    return ModernBertConfig(*sizes, pad_token_id=50283) if size.family == "modernbert" else BertConfig(*sizes)


ENCODERS: Mapping[str, ModelConfig] = {name: _sized(size) for name, size in ENCODER_SIZES.items()}
SIZES: Mapping[str, tuple[int, int]] = {"movielens-100k": (1682, 943), "movielens-1m": (3883, 6040)}
"""Items and users of data sets with known sizes; others are assumed to be as large as the largest MovieLens."""
UNKNOWN = (10_000, 100_000)
Turns = Mapping[str, int]
"""Name scope of a loop over chunks of texts -> number of its iterations."""
STEPS = 1000
"""Outer steps that the schedule is made for; no shape depends on it."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """The sizes of an outer step.

    Attributes:
        config: config with every "auto" resolved.
        architecture: architecture of the encoder.
        items, users: sizes of the data set; each has a text (users only with ``learner.user_side`` other than "none").
        length: tokens of a text, or of the longest one.
        support: padded support interactions of a user.
        run: how the encoder's layers are computed; None takes the choice of a run on the target.
        shortest: tokens of the shortest text, if texts have all lengths from that to `length` equally often; 0 if all
            have the same.
    """

    config: Config
    architecture: ModelConfig
    items: int
    users: int
    length: int
    support: int
    run: Execution | None = None
    shortest: int = 0

    @property
    def trains_encoder(self) -> bool:
        """Whether texts are encoded in the step."""
        return self.config.encoder.train != "no"

    @property
    def width(self) -> int:
        """Width of the vector of a text."""
        return self.architecture.width(self.config.encoder.dims)

    @property
    def user_texts(self) -> int:
        """Number of user texts."""
        return 0 if self.config.learner.user_side == "none" else self.users


def workload(
    config: Config, *, encoder: str = "", items: int = 0, users: int = 0, length: int = 32, support: int = 0
) -> Workload:
    """Determine the sizes of a run's outer step.

    Args:
        config: of the run. "auto" is taken as for ratings from 1 to 5 by users who have a profile, and as mean pooling,
            or the last token for a causal encoder.
        encoder: a name of `ENCODERS`, whose weights are not needed; "" is the one that the config names.
        items, users: of the data set; 0 takes what is known of ``data.reader``.
        length: tokens of a text, prompt included.
        support: support interactions; 0 takes the largest bucket.

    Returns:
        The sizes.

    Raises:
        MetarecError: the way of training of the config has another step.
    """
    if config.training.no_early_compilation:
        raise MetarecError(config.training.no_early_compilation)
    head, side = config.learner.head, config.learner.user_side
    if head == "auto":
        head = "click" if config.data.kind == "click" else "ordinal"
    side = "profile" if side == "auto" else side
    known, architecture = SIZES.get(config.data.reader, UNKNOWN), _architecture(config, encoder)
    pooling = config.encoder.pooling
    if pooling == "auto":
        pooling = "lasttoken" if architecture.architecture.causal else "mean"
    config = dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, head=head, user_side=side),
        encoder=dataclasses.replace(config.encoder, pooling=pooling),
    )
    return Workload(
        config,
        architecture,
        items or known[0],
        users or known[1],
        min(length, config.encoder.max_length or architecture.max_positions),
        support or config.episodes.buckets[-1],
    )


def _architecture(config: Config, name: str) -> ModelConfig:
    if name or config.encoder.path in ENCODERS:
        return ENCODERS[name or config.encoder.path]
    return (
        random_encoder().config
        if config.encoder.path == "random"
        else load(config.encoder.path, dense=config.encoder.dense).config
    )


def step_of(work: Workload, mesh: Mesh, memory: int = 0) -> tuple[Any, tuple[Any, ...], Turns]:
    """Make the outer step with abstract arguments.

    Args:
        work: sizes of the step.
        mesh: the devices.
        memory: memory of a device in bytes, of which joint training may keep activations in a part.

    Returns:
        The jitted step, its arguments as shapes with shardings on `mesh`, and the iterations of its loops over chunks
        of texts.

    Raises:
        MetarecError: the mesh's shards do not divide a parameter.
    """
    config, mesh_users = work.config, NamedSharding(mesh, by_user(mesh))
    everywhere = NamedSharding(mesh, PartitionSpec())
    model = make_model(config, CLICKS if config.data.kind == "click" else STARS)
    per_device = config.train.users_per_device
    state = _state(work)
    episodes = _put(padded(_episodes(work), mesh, per_device), mesh_users)
    held = jax.tree.map(_abstract, state, shardings(mesh, state))
    side = work.width if work.user_texts else 0
    users = jax.ShapeDtypeStruct((work.users, side), jnp.float32)
    step = functools.partial(frozen_step, config, model, STEPS, mesh, per_device)
    if not work.trains_encoder and 4 * work.items * work.width > MOST_BYTES:
        of_items = [(*part.item.shape, work.width) for part in (episodes.support, episodes.query)]
        rows = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (*of_items, (len(episodes.weight), side))]
        return step(), (held, _put(BatchRows(*rows), mesh_users), episodes), {}
    if not work.trains_encoder:
        items = jax.ShapeDtypeStruct((work.items, work.width), jnp.float32)
        tables = jax.eval_shape(model.prepare, state.trainable.theta, Tables(items, users))
        return step(), (held, _put(tables, everywhere), episodes), {}
    texts, entries = work.items + work.user_texts, len(episodes.weight) * (work.support + config.episodes.query + 1)
    own = entries // mesh.size
    shared = worth_sharing(texts, entries, own, mesh)
    used = -(-min(texts, entries) // mesh.size) if shared else min(texts, own)
    run = work.run or execution_of(config.encoder, mesh.devices.flat[0].platform, split=SHARDS in mesh.axis_names)
    chosen, plan, turns = chosen_texts(mesh, work, run, used)
    if not work.user_texts:
        chosen = chosen._replace(users=_put(users, everywhere))
    if config.trains_factors:
        chosen = chosen._replace(items=_put(jax.eval_shape(items_of, episodes), mesh_users))
    devices = Devices(config, work.architecture, plan.per_call, used, mesh, shared=shared, run=run)
    own = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))
    step = joint_step(config, model, devices, STEPS, mesh, per_device, free=lambda: memory - own)
    return step, (held, chosen, episodes), turns


def chosen_texts(
    mesh: Mesh, work: Workload, run: Execution, used: int, *, alone: bool = False
) -> tuple[Chosen, Plan, Turns]:
    """Make the abstract texts of a program.

    Args:
        mesh: the devices.
        work: lengths of texts, and width of the encoder.
        run: options of computing layers.
        used: greatest number of texts that a device encodes.
        alone: whether each text has its own row, as where a frozen encoder encodes a table.

    Returns:
        The texts as shapes with shardings on `mesh`, the shapes of their rows, and the iterations of the loops of a
        device over its chunks.
    """
    sizes = np.linspace(work.shortest or work.length, work.length, used).round().astype(np.int64)
    if alone := alone or run.attention == "fused":
        plan = plan_alone(sizes, used, tokens_per_call=run.tokens_per_call, limit=work.length)
    else:
        options = {"tokens_per_call": run.tokens_per_call, "shortest_row": run.shortest_row, "calls": run.calls}
        plan = plan_rows(sizes, used, width=work.architecture.hidden_size, **options)
    place = NamedSharding(mesh, PartitionSpec() if mesh.size == 1 else by_user(mesh))
    filled = np.bincount(pack_rows(sizes, plan.lengths, alone=alone).kind, minlength=len(plan.lengths)).tolist()
    rows, turns = [], {}
    for length, texts, per_call, most, own in zip(*plan, most_rows(sizes, plan, used), filled):
        held = mesh.size * most
        shapes = [(held, length), (held, texts), (held, texts), () if mesh.size == 1 else (mesh.size,)]
        ids, lengths, slots, count = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes)
        rows.append(_put(TextRows(ids, lengths, slots, count), place))
        turns[scope_of(length)] = -(-own // per_call)
    return Chosen(rows=tuple(rows)), plan, turns


def _state(work: Workload) -> TrainState:
    config, hidden = work.config, work.width
    believed = None
    if config.has_factors:
        profile = hidden if work.user_texts else 0
        believed = dataclasses.replace(NOTHING_KNOWN, tastes=no_tastes(config.factors.rank, profile))
    catalogue = Catalogue(
        Items((), (), ()),
        Statistics(np.ones(1, np.float32), np.ones(1, np.float32)),
        np.zeros((1, hidden), np.float32),
        CLICKS if config.data.kind == "click" else STARS,
        believed,
    )
    encoder: Params = None
    if work.trains_encoder:
        encoder = param_shapes(work.architecture)
    trainable = abstract_trainable(config, catalogue, hidden if work.user_texts else 0, encoder)
    optimiser = jax.eval_shape(make_optimiser(config, STEPS).init, trainable._replace(factors=None))
    key = jax.eval_shape(lambda: jax.random.key(0))
    squares = None
    if config.trains_factors:
        table = jax.ShapeDtypeStruct((table_rows(work.items), config.factors.rank), jnp.float32)
        trainable, squares = trainable._replace(factors=table), jax.ShapeDtypeStruct(table.shape[:1], table.dtype)
    return TrainState(trainable, optimiser, jax.eval_shape(lambda: jnp.zeros((), jnp.int32)), key, squares)


def _episodes(work: Workload) -> Episodes:
    """A batch of zeros, since `metarec_jax.train.meta_training.padded` needs arrays."""
    users = work.config.train.users_per_step
    columns = RATINGS + (2 + work.config.factors.rank if work.config.has_factors else 0)

    def rows(count: int) -> Rows:
        flat = np.zeros((users, count), np.float32)
        return Rows(flat.astype(np.int32), flat, flat, np.zeros((users, count, columns), np.float32))

    return Episodes(
        np.zeros(users, np.int32), rows(work.support), rows(work.config.episodes.query), np.zeros(users, np.float32)
    )


def _put(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: _abstract(leaf, sharding), tree)


def _abstract(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
