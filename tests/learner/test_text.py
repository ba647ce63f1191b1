"""A learner that reads: parts of the encoder adapt to a user, and the outer gradient goes through attention twice."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, head_of, tiny

from metarec_jax import encoder
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import partition
from metarec_jax.core.types import Tables
from metarec_jax.encoder import BertConfig, Tokens, parts
from metarec_jax.encoder.attention import attend
from metarec_jax.learner import text
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import meta_loss
from metarec_jax.meta.updaters import make_updater

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("x64")]
BERT = BertConfig(
    vocab_size=20, hidden_size=4, num_layers=2, num_heads=2, intermediate_size=6, max_positions=8, has_pooler=False
)
MPNET = dataclasses.replace(BERT, model_type="mpnet", type_vocab_size=0, pad_token_id=1)
LENGTH = 5
PATTERNS = {
    "biases": ("encoder/.*bias",),
    "layer norms and head": ("encoder/.*norm/.*", "output/.*"),
    "last layer": ("encoder/layer_1/.*",),
    "LoRA": (r"encoder/layer_\d/.*lora_.*",),
    "everything": ("encoder/.*", "hidden/.*", "output/.*"),
    "bias by distance": ("encoder/relative_bias/.*",),
    "head": ("output/.*",),
}
BELOW = {
    "biases": -1,
    "layer norms and head": -1,
    "last layer": 1,
    "LoRA": 0,
    "everything": -1,
    "bias by distance": 0,
    "head": 2,
}


def tokens(rng, texts, *, length=LENGTH, vocabulary=20):
    real = np.arange(length) < rng.integers(1, length + 1, (texts, 1))
    ids = rng.integers(0, vocabulary, (texts, length)).astype(np.int32)
    return jax.tree.map(jnp.asarray, Tokens(ids, real.astype(np.float64), np.zeros_like(ids)))


def random_encoder(lora=False, config=BERT):
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) + 0.3 * rng.normal(size=leaf.shape),
        encoder.init(0, config),
    )
    if not lora:
        return params
    params = encoder.add_lora(params, [".*query", ".*/output"], rank=2, key=jax.random.key(1))
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), params)


def reading(name, *, order="second", below=None, attention="xla"):
    """A model whose encoder adapts by the patterns called `name`, with what it is trained on."""
    adapted = PATTERNS[name]
    config = MPNET if name == "bias by distance" else BERT
    case = tiny(embedding=4, users=2, support=3, query=2)
    theta = case.trainable.theta | {"encoder": random_encoder("LoRA" in name, config)}
    rng = np.random.default_rng(1)
    tables = Tables(tokens(rng, len(case.tables.items)), tokens(rng, 2))
    reader = text.make_reader(config, theta, adapted, attention=attention)
    assert reader.below == BELOW[name]
    if below is not None:
        reader = reader._replace(below=below)
    updater = make_updater(UpdaterConfig(steps=1, rate=0.3))
    model = case.model._replace(
        apply=functools.partial(_apply, head_of("ordinal"), reader),
        prepare=functools.partial(text.prepare, reader=reader),
        adapted=adapted,
        updater=updater,
        order=order,
    )
    trainable = Trainable(theta, updater.init(partition(theta, adapted)[0]))
    return lambda at: meta_loss(model, at, model.prepare(at.theta, tables), case.episodes)[0], trainable


@functools.cache
def slope_of_the_last_layer():
    """Loss and gradient of the model whose last layer adapts, which several tests read."""
    loss, at = reading("last layer")
    return jax.jit(jax.value_and_grad(loss))(at)


def _apply(head, reader, params, context, rows):
    return text.apply(params, head, context, rows, reader=reader)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last layer", pytest.param("bias by distance", marks=pytest.mark.slow)])
def test_layers_that_no_user_changes_are_run_once_and_nothing_else_changes(name):
    each_user_all_layers, at = reading(name, below=-1)
    wanted = jax.jit(jax.value_and_grad(each_user_all_layers))(at)
    found = slope_of_the_last_layer() if name == "last layer" else jax.jit(jax.value_and_grad(reading(name)[0]))(at)
    assert_close(found, wanted)
    word = found[1].theta["encoder"]["embeddings"]["word"]["embedding"]
    assert jnp.abs(word).max() > 1e-4, "what is shared is trained all the same"


def test_tokens_of_a_prompt_are_left_out_of_the_mean():
    """As in `encode`, whose vectors a learner without an encoder reads."""
    case, rng = tiny(embedding=4, users=2, support=3, query=2), np.random.default_rng(3)
    ids = [rng.integers(1, 20, (texts, LENGTH)).astype(np.int32) for texts in (len(case.tables.items), 2)]
    ones = [np.ones(own.shape, np.float64) for own in ids]
    tables = Tables(*(Tokens(own, one, 0 * own, np.full(len(own), 2, np.int32)) for own, one in zip(ids, ones)))
    tables = jax.tree.map(jnp.asarray, tables)
    params = jax.tree.map(jnp.asarray, random_encoder())

    updater = make_updater(UpdaterConfig(steps=1, rate=0.3))
    read = case.model._replace(updater=updater, steps=1)

    def loss(model, theta, prepared):
        trainable = Trainable(theta, updater.init(partition(theta, model.adapted)[0]))
        return jax.jit(functools.partial(meta_loss, model))(trainable, prepared, case.episodes)[0]

    def loss_of_vectors(tables):
        vectors = Tables(*(encoder.encode(params, BERT, tokens, normalise=True) for tokens in tables))
        return loss(read, case.trainable.theta, read.prepare(case.trainable.theta, vectors))

    wanted = loss_of_vectors(tables)
    theta = case.trainable.theta | {"encoder": params}
    for below in (-1, 1):
        reader = text.make_reader(BERT, theta, PATTERNS["head"])._replace(below=below)
        model = read._replace(apply=functools.partial(_apply, read.head, reader))
        assert_close(loss(model, theta, text.prepare(theta, tables, reader=reader)), wanted)
    assert jnp.abs(loss_of_vectors(Tables(*(tokens._replace(skip=None) for tokens in tables))) - wanted) > 1e-4


def slope_at_zero(function, step=1e-4):
    """By central differences of fourth order."""
    far, near = (float(function(times * step)) - float(function(-times * step)) for times in (2, 1))
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize(
    "name",
    [
        "layer norms and head",
        pytest.param("LoRA", marks=pytest.mark.slow),
        pytest.param("everything", marks=pytest.mark.slow),
    ],
)
def test_the_meta_gradient_through_the_encoder_is_the_true_one(name):
    """Along a random direction of everything that is trained."""
    loss, at = reading(name)
    constant = at.theta["input"]
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / np.sqrt(leaf.size), at)
    direction = direction._replace(theta=direction.theta | {"input": jax.tree.map(np.zeros_like, constant)})

    gradient = jax.jit(jax.grad(loss))(at)
    found = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
    along = jax.jit(lambda distance: loss(jax.tree.map(lambda a, d: a + distance * d, at, direction)))
    wanted = slope_at_zero(along)
    assert abs(wanted) > 1e-3
    assert abs(found - wanted) < 1e-8 * max(abs(wanted), 1)


@pytest.mark.slow
def test_second_order_goes_through_attention():
    first, at = reading("last layer", order="first")
    gradients = slope_of_the_last_layer()[1], jax.jit(jax.grad(first))(at)
    second, first = (gradient.theta["encoder"]["layer_1"]["query"]["kernel"] for gradient in gradients)
    assert jnp.abs(second - first).max() > 1e-3 * jnp.abs(second).max()


@pytest.mark.parametrize("name", ["biases", "last layer", "LoRA"])
def test_fused_attention_is_refused_where_its_second_derivative_is_needed(name):
    params = {"encoder": random_encoder("LoRA" in name)}
    with pytest.raises(MetarecError, match=r"encoder\.attention is 'fused'.*encoder/.*no second derivative.*'xla'"):
        text.make_reader(BERT, params, PATTERNS[name], attention="fused")
    assert text.make_reader(BERT, params, PATTERNS[name], attention="tiled").run.attention == "tiled"


@pytest.mark.parametrize(("name", "attention"), [("head", "fused"), ("last layer", "tiled")])
def test_the_attention_that_is_asked_for_is_the_one_that_runs(name, attention, monkeypatch):
    """In the layers that no user changes, and in those that adapt; a stand-in for the kernel is counted."""
    calls = []

    def counted(*arguments, **options):
        calls.append(attention)
        return attend(*arguments, **options)

    loss, at = reading(name, attention=attention)
    monkeypatch.setitem(parts.ATTEND, attention, counted)
    monkeypatch.setitem(parts.ATTEND, "xla", None)
    jax.eval_shape(jax.grad(loss), at)
    assert calls


def test_users_without_text_are_read_as_they_are():
    case = tiny(embedding=4, users=2, support=3, query=2)
    params = case.trainable.theta | {"encoder": random_encoder()}
    reader = text.make_reader(BERT, params, ("output/.*",))
    table = jnp.ones((2, 4))
    prepared = text.prepare(params, Tables(tokens(np.random.default_rng(0), 3), table), reader=reader)
    assert prepared.users is table
    assert prepared.items.states.shape == (3, LENGTH, 4)


def test_lora_starts_as_nothing_and_can_be_merged():
    plain, batch = random_encoder(), tokens(np.random.default_rng(0), 3)
    added = encoder.add_lora(plain, [r"layer_0/(query|value)"], rank=2, key=jax.random.key(0))
    assert set(added["layer_0"]["query"]) == {"kernel", "bias", "lora_a", "lora_b"}
    assert set(added["layer_0"]["key"]) == set(added["layer_1"]["query"]) == {"kernel", "bias"}
    assert_close(encoder.encode(added, BERT, batch), encoder.encode(plain, BERT, batch))
    moved = random_encoder(lora=True)
    merged = encoder.merge_lora(moved)
    assert jax.tree.structure(merged) == jax.tree.structure(plain)
    assert_close(encoder.encode(moved, BERT, batch), encoder.encode(merged, BERT, batch))
    assert jnp.abs(merged["layer_1"]["query"]["kernel"] - moved["layer_1"]["query"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize(
    ("layers", "rank", "message"),
    [
        (["layer_7/query"], 2, r"'layer_7/query' matches no dense layer of the encoder; there are .*layer_0/query"),
        (["layer_0/query", "embeddings/word"], 2, "'embeddings/word' matches no dense layer"),
        (["layer_0/query"], 0, "rank of LoRA is 0; it must be at least 1"),
    ],
)
def test_impossible_lora_is_refused(layers, rank, message):
    with pytest.raises(MetarecError, match=message):
        encoder.add_lora(random_encoder(), layers, rank=rank, key=jax.random.key(0))


@pytest.mark.slow
def test_the_last_layers_of_a_real_encoder_adapt_to_a_user():
    """all-MiniLM-L6-v2 on real titles: layer norms and biases of its last layer, two inner steps, second order."""
    bert = encoder.load("minilm")
    titles = ["Toy Story (1995) animation", "Heat (1995) crime", "Alien (1979) horror", "Babe (1995) children"] * 3
    ids = encoder.tokenize(bert.tokenizer, titles[: 2 * (3 + 2)], 16).ids
    case = tiny(embedding=384, users=2, support=3, query=2, hidden=8)
    adapted = ("encoder/layer_5/.*(bias|scale)", "output/.*")
    theta = case.trainable.theta | {"encoder": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), bert.params)}
    theta["encoder"].pop("pooler", None)
    reader = text.make_reader(bert.config, theta, adapted)
    assert reader.below == 5
    updater = make_updater(UpdaterConfig(steps=2, rate=0.1, learn_rate="layer"))
    model = case.model._replace(
        apply=functools.partial(_apply, head_of("ordinal"), reader), adapted=adapted, updater=updater
    )
    trainable = Trainable(theta, updater.init(partition(theta, adapted)[0]))
    tables = Tables(jax.tree.map(jnp.asarray, encoder.pack(ids, 16)), jnp.zeros((2, 384)))
    prepared = jax.jit(functools.partial(text.prepare, reader=reader))(theta, tables)

    def loss(phi, theta, prepared):
        return meta_loss(model, Trainable(theta, phi), prepared, case.episodes)[0]

    slope = jax.jit(jax.grad(loss))(trainable.phi, theta, prepared)
    compiled = jax.jit(loss)
    wanted = slope_at_zero(lambda d: compiled(jax.tree.map(lambda leaf: leaf + d, trainable.phi), theta, prepared))
    assert abs(wanted) > 1e-4
    assert abs(sum(map(jnp.sum, jax.tree.leaves(slope))) - wanted) < 1e-8
    of_scale = slope["log_rate"]["encoder"]["layer_5"]["output_norm"]["scale"]
    assert jnp.abs(of_scale).max() > 1e-7, "the encoder's part matters"
