"""The contrastive loss and what it is fed: against the formula written out."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, finite_differences, interactions
from small import small_data, small_encoder

from metarec_jax.encoder import Texts, tokenize
from metarec_jax.train.pretraining.batches import LikeSource, StepSource
from metarec_jax.train.pretraining.contrastive import Liked, contrastive_loss
from metarec_jax.train.pretraining.text_batches import Frame, PassageSource, documents
from metarec_jax.train.pretraining.user_text import liked_items, sentences

TEMPERATURE = 0.3


def texts_of(names: tuple[str, ...]) -> Texts:
    ids = tokenize(small_encoder().tokenizer, names, 32).ids
    return Texts.of(ids, tokens_per_call=64)


def source_of(liked: list[list[int]], names: tuple[str, ...], **changes) -> LikeSource:
    options = {"users_per_step": 4, "per_user": 3, "seed": (0, 5)} | changes
    return LikeSource(liked=[np.array(own, np.int32) for own in liked], texts=texts_of(names), **options)


NAMES = tuple(f"title {i} " + "long " * (i % 3 * 6) for i in range(9))
LIKED = [[0, 1, 2, 3], [1, 4], [2, 5, 6], [7], [0, 7, 8]]


def written_out(embedding_of: dict[int, np.ndarray], users: list[dict[str, list[int]]], liked: list[set[int]]) -> tuple:
    """The formula of the module, pair by pair: who was drawn, who anchors, who is a target."""
    total = weight = 0.0
    for user, own in zip(users, liked):
        for i in user["anchors"]:
            targets = [j for j in user["targets"] if j != i]
            if not targets:
                continue
            weight += 1
            for j in targets:
                score = lambda k, i=i: math.exp(  # noqa: E731
                    embedding_of[i] @ embedding_of[k]
                    / np.linalg.norm(embedding_of[i]) / np.linalg.norm(embedding_of[k]) / TEMPERATURE
                )  # fmt: skip
                # Every like of another user that this one does not share counts once.
                away = sum(score(k) for other in users for k in other["targets"] if k not in own)
                total += -math.log(score(j) / (score(j) + away)) / len(targets)
    return total, weight


@pytest.mark.parametrize("part", ["all", "anchors and targets"])
def test_loss_is_the_formula(x64, part):
    among = {}
    if part != "all":
        among = {"anchors": np.arange(9) % 2 == 0, "targets": np.arange(9) % 3 > 0}
    source = source_of(LIKED, NAMES, **among)
    batch = source[0]
    batch = batch._replace(liked=batch.liked._replace(negative=batch.liked.negative.astype(np.float64)))
    item = np.full(source.texts.slots(12), -1)
    texts, place = source.texts, {}  # slot -> item
    item_of = {
        tuple(texts.ids[start : start + size]): who for who, (start, size) in enumerate(zip(texts.start, texts.size))
    }
    for rows in batch.rows:
        for ids, lengths, slots in zip(rows.ids, rows.lengths, rows.slots):
            ends = np.cumsum(lengths)[lengths > 0]
            for slot, start, end in zip(slots, ends - lengths[lengths > 0], ends):
                item[slot] = place[int(slot)] = item_of[tuple(ids[start:end])]
    rng = np.random.default_rng(0)
    table = np.where(item[:, None] >= 0, rng.normal(size=(len(item), 5)), 0.0)
    found = jax.jit(lambda table: contrastive_loss(table, batch.liked, TEMPERATURE))(table)

    users, likes = [], []
    for row in range(4):
        own = {"anchors": [], "targets": []}
        for kind in own:
            which = np.asarray(getattr(batch.liked, kind[:-1]))[row] > 0
            own[kind] = [int(place[slot]) for slot in np.asarray(batch.liked.slot)[row][which]]
        users.append(own)
        drawn = {*own["anchors"], *own["targets"]}
        likes.append(next((set(liked) for liked in LIKED if len(liked) > 1 and drawn and drawn <= set(liked)), set()))
    total, weight = written_out({who: table[slot] for slot, who in place.items()}, users, likes)
    assert weight > 3
    assert_close(np.asarray(found.total), np.asarray(total))
    assert found.weight == weight
    slope = jax.jit(jax.grad(lambda table: contrastive_loss(table, batch.liked, TEMPERATURE).total))(table)
    assert_close(
        slope[item >= 0],
        finite_differences(lambda t: contrastive_loss(t, batch.liked, TEMPERATURE).total, jnp.asarray(table))[
            item >= 0
        ],
        tolerance=1e-6,
        because="finite differences",
    )


def test_a_user_without_negatives_and_texts_that_are_equal_are_no_nan():
    slot = np.array([[0, 1, 0], [2, 2, 0]], np.int32)
    real = np.array([[1, 1, 0], [1, 1, 0]], np.float32)
    negative = np.zeros((2, 3), np.float32)
    table = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32).at[2].set(0)
    loss = lambda table: tuple(contrastive_loss(table, Liked(slot, real, real, negative), 0.1))  # noqa: E731
    (total, weight), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(table)
    assert np.isfinite(slope).all()
    assert weight == 2, "two likes of one text are not drawn together, and the first user's pair is, both ways"
    assert abs(total) < 1e-6, "nothing is to be told apart"


# What a step reads


def test_every_user_has_one_turn_in_an_epoch_and_users_of_one_like_have_none():
    source = source_of(LIKED, NAMES, users_per_step=3)
    assert source.batches == 2
    counts = [int((np.asarray(source[i].liked.anchor).sum(axis=1) > 0).sum()) for i in range(2)]
    assert counts == [3, 1]


def test_a_batch_depends_on_its_number_alone():
    one, other = source_of(LIKED, NAMES), source_of(LIKED, NAMES)
    drawn = [one[i] for i in range(6)]
    for i in reversed(range(6)):
        for a, b in zip(jax.tree.leaves(drawn[i]), jax.tree.leaves(other[i])):
            np.testing.assert_array_equal(a, b)
    assert len({np.asarray(batch.liked.slot).tobytes() for batch in drawn}) > 1


def test_steps_share_kinds_of_text_as_asked():
    tokenizer = small_encoder().tokenizer

    def passages(word: str) -> PassageSource:
        texts = documents(tokenizer, [[f"{word} {i}."] for i in range(40)])
        return PassageSource(texts, Frame.of(tokenizer), 32, 64, 0, (0, 1))

    items, behaviour = passages("item"), passages("liked")
    first = {kind: int(source[0].tokens.ids[0, 1]) for kind, source in (("items", items), ("behaviour", behaviour))}
    assert first["items"] != first["behaviour"]
    steps = StepSource(20, items, behaviour, 0.25, None)
    read = [int(steps[i].passages.tokens.ids[0, 1]) for i in range(20)]
    assert read.count(first["items"]) == 5
    assert read.count(first["behaviour"]) == 15
    assert len(steps) == 20
    assert steps[3].likes is None
    with pytest.raises(IndexError, match="step 20 of 20"):
        steps[20]
    only = StepSource(4, items, None, 0.25, None)
    assert [int(only[i].passages.tokens.ids[0, 1]) for i in range(4)] == [first["items"]] * 4


# Users as text, and what they like


def test_users_are_told_in_the_order_of_time_and_in_the_words_of_the_scale():
    data = interactions([0, 0, 1, 0, 0, 0], [0, 1, 2, 3, 4, 5], [1, 5, 3, 3, 2, 4], [5, 1, 0, 3, 2, 4], users=3)
    rows = np.array([True, True, True, True, True, True])
    assert sentences(data, np.array([1, 0, 2]), rows) == [
        ["Did not mind Item 2."],
        ["Loved Item 1.", "Disliked Item 4.", "Did not mind Item 3.", "Liked Item 5.", "Hated Item 0."],
        [],
    ]
    rows[[0, 4]] = False
    assert sentences(data, np.array([0]), rows) == [["Loved Item 1.", "Did not mind Item 3.", "Liked Item 5."]]
    clicks = interactions([0, 0], [0, 1], [1, 0], kind="click")
    assert sentences(clicks, np.array([0]), np.ones(2, bool)) == [["Chose Item 0.", "Passed over Item 1."]]


def test_likes_are_the_ratings_that_the_scale_likes():
    data = interactions([0, 0, 0, 1], [3, 1, 2, 0], [4, 5, 3, 4])

    def of(liked: float | None, *users: int, rows: np.ndarray) -> list[list[int]]:
        choosing = dataclasses.replace(data, scale=data.scale._replace(liked=liked))
        return [own.tolist() for own in liked_items(choosing, np.array(users), rows)]

    everything = np.ones(4, bool)
    assert of(None, 0, 1, rows=everything) == [[1, 3], [0]]
    assert of(3.0, 0, 1, rows=everything) == [[1, 2, 3], [0]]
    assert of(5.0, 0, rows=everything) == [[1]]
    assert of(None, 0, rows=data.item != 1) == [[3]]


def test_every_user_of_the_small_data_likes_something():
    data = small_data()
    liked = liked_items(data, np.arange(40), np.ones(len(data), bool))
    assert np.mean([len(own) > 1 for own in liked]) > 0.5
