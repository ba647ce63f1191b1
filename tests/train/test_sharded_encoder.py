"""An encoder that is trained on eight devices, whole on each or split over some: the same numbers as on one."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from helpers import assert_close
from jax.sharding import NamedSharding, PartitionSpec

from metarec_jax import preset
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.train import TrainConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.encoder import add_lora, choose_execution
from metarec_jax.meta.encoder_step import joint_gradient
from metarec_jax.meta.outer import make_step
from metarec_jax.privacy.dp_encoder_step import joint_sum
from metarec_jax.privacy.dp_step import Mechanism
from metarec_jax.privacy.text_batches import PrivateTextBatches
from metarec_jax.train.build import build
from metarec_jax.train.joint_program import joint_step
from metarec_jax.train.meta_training import padded
from metarec_jax.train.optimizer import by_rate, relative_rates
from metarec_jax.train.sharding import ROLES, SHARDS, USERS, by_user, place, role, round_up, shard_users, user_mesh
from metarec_jax.train.state import first_state
from metarec_jax.train.text_batches import TextBatches
from metarec_jax.train.text_devices import worth_sharing

MORE = 300
"""Items beside those of the experiment with which devices do not share their texts."""


@pytest.fixture(scope="module")
def experiment():
    """A run that trains all of its encoder."""
    base = preset("synthetic")
    config = dataclasses.replace(
        base,
        encoder=EncoderConfig(path="random", train="all", rate=1e-3),
        episodes=dataclasses.replace(base.episodes, min_ratings=13, max_ratings=30, buckets=(16,)),
        learner=dataclasses.replace(base.learner, hidden=4),
        updater=dataclasses.replace(base.updater, steps=1),
        train=TrainConfig(epochs=1, users_per_step=32, devices=1),
    )
    return build(config)


def batches_on(experiment, mesh, *, more_texts=0):
    """The texts of the training episodes, and some of items that nobody rated."""
    config, texts = experiment.config, experiment.data.items.texts
    run = choose_execution("cpu", split=SHARDS in mesh.axis_names)._replace(tokens_per_call=256)
    texts = (*texts, *(f"item {number} that nobody rated" for number in range(more_texts)))
    return TextBatches(config, experiment.encoder, texts, experiment.train, mesh, config.train.users_per_step, run)


def gradient_on(experiment, devices, shards, *, shared=True):
    """Gradient and losses of the first batch, as host arrays, and the sharding of each leaf of the gradient.

    Devices share texts where the catalogue is small against a batch: where they shall not, there are more items.
    Several devices keep activations, unless parameters are sharded.
    """
    mesh = user_mesh(devices, shards)
    part, config = experiment.train, experiment.config
    library = batches_on(experiment, mesh, more_texts=0 if shared else MORE)
    assert library.devices.shared == (shared and devices > 1)
    state = place(mesh, first_state(experiment, 1))
    batch = padded(part.source[0], mesh)
    chosen, local = library.localise(batch)
    rates = relative_rates(config.encoder, state.trainable.encoder, config.train.rate)

    def trained(params):
        return by_rate(params, rates)

    exchange = {"at_once": 2, "exchange": library.devices.exchange}
    gradient = functools.partial(joint_gradient, experiment.model, library.devices.reading, trained, **exchange)
    memory = None
    if devices > 1:
        memory = library.devices.fitting_memory(trained, state.trainable.encoder, chosen, 1 << 40)
        assert (memory is None) == (shards > 1)
        memory = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), memory)
    with jax.set_mesh(mesh):
        step = jax.jit(lambda *given: library.devices.spread(gradient)(*given[:3], None, *given[3:]))
        found, losses, kept = step(state.trainable, chosen, shard_users(mesh, local), memory)
        assert any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(kept)) == (memory is not None)
        tables = library.tables(state.trainable.encoder)
        tables = tables._replace(items=tables.items[: len(experiment.data.items)])
    placed = dict(zip(path_names(found), [leaf.sharding for leaf in jax.tree.leaves(found)]))
    return jax.device_get((found, losses, tables)), placed


@pytest.fixture(scope="module")
def alone(experiment):
    return gradient_on(experiment, 1, 1)[0]


@pytest.mark.parametrize(
    ("shards", "shared"),
    [
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(8, False, marks=pytest.mark.slow),
        pytest.param(1, False, marks=pytest.mark.slow),
        (2, True),
    ],
    ids=str,
)
def test_the_gradient_is_that_of_one_device(experiment, alone, shards, shared):
    """Of learner, rates and encoder; the losses; and the tables that the encoder gives, however the texts are dealt."""
    found, placed = gradient_on(experiment, 8, shards, shared=shared)
    for part, wanted in zip(found, alone):
        assert_close(part, wanted)
    for name, sharding in placed.items():
        wanted = role(name) if shards > 1 else PartitionSpec()
        assert sharding.is_equivalent_to(NamedSharding(user_mesh(8, shards), wanted), 1 + len(wanted)), name


def step_on(experiment, devices, shards):
    """The parameters before and after a whole outer step, and what the optimisers keep, as host arrays."""
    mesh = user_mesh(devices, shards)
    part, config = experiment.train, experiment.config
    library = batches_on(experiment, mesh)
    state = place(mesh, first_state(experiment, 1))
    before = jax.device_get(state.trainable)  # the step takes over its memory
    chosen, local = library.localise(padded(part.source[0], mesh))
    with jax.set_mesh(mesh):
        step = joint_step(config, experiment.model, library.devices, 1, mesh, 2)
        after, _ = step(state, chosen, shard_users(mesh, local))
    return before, jax.device_get(after.trainable), jax.device_get((after.optimiser, after.squares))


def squares_of_frozen(experiment):
    """What a step with the same embeddings and a frozen encoder keeps of the gradient by the item factors."""
    mesh, config = user_mesh(1), experiment.config
    library, state = batches_on(experiment, mesh), first_state(experiment, 1)
    tables = experiment.model.prepare(state.trainable.theta, library.tables(state.trainable.encoder))
    bare = state.trainable._replace(encoder=None)
    optimiser = optax.sgd(0.0)
    state = state._replace(trainable=bare, optimiser=optimiser.init(bare._replace(factors=None)))
    step = jax.jit(make_step(experiment.model, optimiser, factor_rate=lambda step: config.factors.rate))
    return np.asarray(step(state, tables, padded(experiment.train.source[0], mesh))[0].squares)


@pytest.mark.slow
def test_a_step_is_that_of_one_device(experiment):
    """With item factors that are trained, and without texts of users, of which each device drops its own in training.

    Moments of the gradient closely. Adam divides by its size, so that where there is none but rounding, a parameter
    goes as far as any: the ways are held against each other by norms, but for what softmax takes no notice of.
    """
    config = experiment.config
    learner, factors = dataclasses.replace(config.learner, user_side="none"), FactorsConfig(rank=4, train=True)
    experiment = build(dataclasses.replace(config, learner=learner, factors=factors))
    before, alone, moments = step_on(experiment, 1, 1)
    _, split, found = step_on(experiment, 8, 2)
    assert_close(found, moments, tolerance=1e-4, because="sums over devices, of clipped or squared gradients")
    assert_close(moments[1], squares_of_frozen(experiment), tolerance=1e-4, because="squares of gradients")
    assert np.count_nonzero(moments[1]) > 10
    ways = [jax.tree.map(np.subtract, after, before) for after in (alone, split)]
    for name, one, other in zip(path_names(before), *map(jax.tree.leaves, ways)):
        if name.endswith("key/bias"):  # its gradient is 0
            continue
        assert np.linalg.norm(one - other) <= 0.02 * np.linalg.norm(one), name
    moved = {name for name, way in zip(path_names(before), jax.tree.leaves(ways[0])) if np.any(way)}
    assert any("encoder/layer_0" in name for name in moved)


def test_a_device_holds_its_part_of_matrices_and_of_their_optimiser_state(experiment):
    mesh = user_mesh(8, 4)
    state = place(mesh, first_state(experiment, 1))
    parts = {}
    for name, leaf in zip(path_names(state), jax.tree.leaves(state)):
        held = leaf.addressable_shards[0].data.size / leaf.size if leaf.size else 1
        parts.setdefault(("encoder/" in name and leaf.ndim == 2), set()).add(held)
    assert parts == {True: {0.25}, False: {1.0}}


def test_a_mesh_with_shards_splits_users_over_both_axes():
    mesh = user_mesh(8, 2)
    assert dict(mesh.shape) == {USERS: 4, SHARDS: 2}
    assert by_user(mesh) == PartitionSpec((USERS, SHARDS))
    assert round_up(9, mesh) == 16
    split = shard_users(mesh, np.arange(16))
    assert [shard.data.tolist() for shard in split.addressable_shards] == [[2 * i, 2 * i + 1] for i in range(8)]


def test_shards_that_do_not_fit_are_refused(experiment):
    with pytest.raises(MetarecError, match=r"train\.shards is 3 and there are 8 devices"):
        user_mesh(8, 3)
    with pytest.raises(MetarecError, match=r"train\.shards is 0; it must be at least 1"):
        TrainConfig(shards=0)
    odd = {"encoder": {"layer_0": {"query": {"kernel": np.zeros((6, 6))}}}}
    with pytest.raises(MetarecError, match=r"train\.shards is 4, which does not divide the 6 rows .*query/kernel"):
        place(user_mesh(8, 4), odd)


def test_every_leaf_has_a_role_and_an_unknown_one_is_refused(experiment):
    state = first_state(experiment, 1)
    roles = {name: role(name) for name in path_names(state)}
    assert roles["trainable/encoder/embeddings/word/embedding"] == PartitionSpec(None, SHARDS)
    with_factors = path_names(add_lora({"encoder": experiment.encoder.params}, ["encoder/.*"], rank=2, key=state.key))
    assert {role(name) for name in with_factors if "lora_" in name} == {
        PartitionSpec(SHARDS, None),
        PartitionSpec(None, SHARDS),
    }
    assert len(set(roles.values())) >= 3
    with pytest.raises(MetarecError, match=r"no role of metarec_jax\.train\.sharding\.ROLES matches encoder/new/thing"):
        role("encoder/new/thing")
    assert len({pattern for pattern, _ in ROLES}) == len(ROLES)


@pytest.mark.parametrize(
    ("texts", "most", "own", "devices", "shared"),
    [(1682, 8192, 1024, 8, True), (1_000_000, 8192, 1024, 8, False), (1682, 300, 40, 8, False), (9, 9, 9, 1, False)],
)
def test_texts_are_shared_where_that_halves_the_work(texts, most, own, devices, shared):
    assert worth_sharing(texts, most, own, user_mesh(devices)) is shared


@pytest.mark.slow
def test_private_gradients_are_those_of_one_device(experiment):
    """Each device clips and adds up its own users, whose texts it encodes."""

    def total_on(devices):
        mesh, part, config = user_mesh(devices), experiment.train, experiment.config
        library = PrivateTextBatches(config, experiment.encoder, experiment.data.items.texts, part, mesh)
        trainable = place(mesh, first_state(experiment, 1)).trainable
        rates = relative_rates(config.encoder, trainable.encoder, config.train.rate)
        bounds = Mechanism(clip=0.5, noise=0.0, users=16, query=config.episodes.query)
        summed = joint_sum(experiment.model, library.reading, lambda params: by_rate(params, rates), bounds)
        batch = jax.tree.map(lambda leaf: leaf[:16], part.source[0])
        read, local = library.localise(batch)
        with jax.set_mesh(mesh):
            step = jax.jit(library.spread(summed))
            return jax.device_get(step(trainable, read, shard_users(mesh, local), jax.random.key(0)))

    assert_close(total_on(8), total_on(1), tolerance=1e-4, because="sums over devices, of clipped or squared gradients")
