"""The encoder in the outer step: the gradient through the cache is that of the naive form, which encodes every pair."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from jax.sharding import PartitionSpec
from shared_texts import BERT, Case, everything, random_ids, trained

from metarec_jax.encoder import Execution, TextRows, Texts, encode
from metarec_jax.meta.encoder_step import joint_gradient
from metarec_jax.meta.text_passes import Chosen, embed, empty_memory, pull_back
from metarec_jax.train.sharding import USERS, replicate, shard_users, user_mesh


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("per_call", "at_once"),
    [
        pytest.param(8, 1, id="one text a call, one user at a time", marks=pytest.mark.slow),
        pytest.param(30, 0, id="a few texts a call"),
        pytest.param(10_000, 0, id="all at once", marks=pytest.mark.slow),
        pytest.param(10_000, 1, id="all texts at once, one user at a time", marks=pytest.mark.slow),
    ],
)
def test_the_gradient_is_that_of_the_naive_form(per_call, at_once):
    """Of learner, updater and encoder, and the losses, whatever the chunks; repeated texts are encoded once."""
    case = Case(per_call=per_call)
    chosen, episodes = case.localised()
    step = jax.jit(
        lambda trainable: joint_gradient(
            case.model, case.reading, everything, trainable, chosen, episodes, at_once=at_once
        )
    )
    assert_close(step(case.trainable)[:2], case.naive())


@pytest.mark.usefixtures("x64")
def test_what_is_not_trained_has_no_gradient_and_the_rest_the_same():
    case = Case()
    chosen, episodes = case.localised()
    found, _, _ = jax.jit(lambda at: joint_gradient(case.model, case.reading, trained, at, chosen, episodes))(
        case.trainable
    )
    wanted, _ = case.naive()
    assert_close(found.encoder["layer_1"], wanted.encoder["layer_1"])
    for name in ("layer_0", "embeddings"):
        assert all(not leaf.any() for leaf in jax.tree.leaves(found.encoder[name]))


@pytest.mark.slow
def test_eight_devices_give_the_same_gradient():
    mesh = user_mesh(8)
    one, eight = (Case(dtype=np.float32, users=8, split=split) for split in (1, 8))

    def spread(tree):
        return jax.lax.with_sharding_constraint(tree, PartitionSpec(USERS))

    def gradient(case, place, episodes_place, **changes):
        chosen, episodes = case.localised()
        reading = case.reading._replace(**changes)
        step = jax.jit(lambda *moving: joint_gradient(case.model, reading, everything, *moving))
        return step(*place((case.trainable, chosen)), episodes_place(episodes))

    alone = gradient(one, lambda tree: tree, lambda tree: tree)
    with jax.set_mesh(mesh):
        shared = gradient(
            eight, lambda tree: replicate(mesh, tree), lambda tree: shard_users(mesh, tree), constrain=spread
        )
    assert_close(jax.device_get(shared), jax.device_get(alone))


def test_memory_does_not_grow_with_the_chunks():
    """Twelve texts in turns of one need the memory of one."""

    def temporaries(texts):
        slots = jnp.arange(texts, dtype=jnp.int32)[:, None]
        rows = TextRows(jnp.zeros((texts, 24), jnp.int32), jnp.full_like(slots, 24), slots, jnp.int32(texts))
        case = Case(dtype=np.float32)
        reading = case.reading._replace(per_call=(2,), slots=texts)

        def gradient(params):
            chosen = Chosen((rows,))
            return pull_back(reading, lambda moving: moving, params, chosen, embed(reading, params, chosen))

        return jax.jit(gradient).lower(case.trainable.encoder).compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(4), temporaries(64)
    assert many - few < 2 * 60 * 4 * (4 + 24), "no more than the embeddings, their cotangents and ids of 60 texts"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_users():
    """Four times as many users who share their texts need what their own episodes need, and less than a tenth more."""
    rng = np.random.default_rng(3)
    texts = Texts.of(random_ids(rng, 64), tokens_per_call=1536)
    packed, _ = texts.everything()
    rows, hidden = 7, 4

    def temporaries(users):
        case = Case(dtype=np.float32, users=users)
        reading = case.reading._replace(per_call=texts.plan.per_call, slots=texts.slots(64))
        chosen = Chosen(packed, np.zeros((users, 4), np.float32))

        def gradient(trainable, chosen, episodes):
            return joint_gradient(case.model, reading, everything, trainable, chosen, episodes, at_once=16)

        compiled = jax.jit(gradient).lower(case.trainable, chosen, case.episodes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporaries(64), temporaries(256)
    # The product of each row with the first kernel, and its cotangent.
    own = 2 * (256 - 64) * rows * hidden * 4
    assert few > 2 * own, "the encoder is what the memory is for"
    assert many < 1.1 * (few + own)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "of", [pytest.param(everything, id="all layers", marks=pytest.mark.slow), pytest.param(trained, id="some layers")]
)
@pytest.mark.parametrize("remat", [False, True], ids=["results of products", "inputs of layers"])
def test_kept_activations_give_the_same_gradient_and_embeddings(of, remat):
    """With memory that holds anything, and where less than all of it is used."""
    case = Case(per_call=8)
    chosen, episodes = case.localised()
    reading = case.reading
    if remat:
        run = Execution(remat=True, scan=True)
        reading = reading._replace(
            encode=lambda params, rows: encode(params, BERT, rows, normalise=True, run=run), remat=True
        )
    shapes = jax.eval_shape(functools.partial(empty_memory, reading, of), case.trainable.encoder, chosen)
    kept = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype), shapes)

    def step(chosen, kept):
        return joint_gradient(case.model, reading, of, case.trainable, chosen, episodes, kept=kept)

    for count in (None, 1):  # all rows, and one row of each length
        if count:
            chosen = chosen._replace(rows=tuple(rows._replace(count=jnp.int32(count)) for rows in chosen.rows))
        *found, kept = jax.jit(step)(chosen, kept)
        *wanted, nothing = jax.jit(step)(chosen, None)
        assert nothing is None
        assert_close(found, wanted)
        assert jax.tree.map(jnp.shape, kept) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_kept_activations_are_no_parameters():
    """What all chunks share, such as the encoder's matrices, is not kept for each of them."""
    case = Case(dtype=np.float32, per_call=8)
    chosen, _ = case.localised()
    params = case.trainable.encoder
    kept = jax.tree.leaves(jax.eval_shape(functools.partial(empty_memory, case.reading, everything), params, chosen))
    matrices = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 2}
    assert not [leaf.shape for leaf in kept if leaf.shape[1:] in matrices]
