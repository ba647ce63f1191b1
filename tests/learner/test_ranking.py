"""Losses of the order of a user's items, against loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_each_close
from trained import small_config

from metarec_jax.learner.contract import make_head
from metarec_jax.learner.ranking import list_loss, ranking_loss, scores
from metarec_jax.train import run_folder, start

RATING = np.array([5.0, 1.0, 3.0, 3.0, 4.0])
MASK = np.array([1.0, 1.0, 1.0, 1.0, 0.0])


def head_of(kind):
    levels = (1.0, 2.0, 3.0, 4.0, 5.0)
    return make_head(kind, levels=levels if kind != "click" else (0.0, 1.0), low=1.0, high=5.0)


def outputs_of(head, rows=5, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, head.outputs)))


@pytest.mark.parametrize("kind", ["ordinal", "rating"])
def test_bpr_is_the_mean_over_pairs_in_order(kind):
    head = head_of(kind)
    outputs = outputs_of(head)
    score = np.asarray(scores(head, outputs), np.float64)
    lost = [
        np.log1p(np.exp(score[j] - score[i])) for i in range(4) for j in range(4) if i != j and RATING[i] > RATING[j]
    ]
    got = ranking_loss("bpr", head, 1.0)(outputs, jnp.asarray(RATING), jnp.asarray(MASK))
    assert_each_close(got.sum(), 4 * np.mean(lost))
    assert len(lost) == 5


def test_softmax_of_clicks_is_their_cross_entropy():
    head = head_of("click")
    outputs, clicked = outputs_of(head), jnp.asarray([1.0, 0.0, 0.0, 1.0, 1.0])
    logit = np.asarray(outputs[:, 0], np.float64)[:4]
    log_chance = logit - np.log(np.exp(logit).sum())
    got = ranking_loss("softmax", head, 0.0)(outputs, clicked, jnp.asarray(MASK))
    assert_each_close(got.sum(), -4 * (log_chance[0] + log_chance[3]) / 2)


def test_softmax_of_ratings_wants_each_row_as_much_as_its_gain():
    head = head_of("rating")
    outputs = outputs_of(head)
    gain = 2 ** (RATING[:4] - 1) - 1
    score = np.asarray(outputs[:4, 0], np.float64)
    log_chance = score - np.log(np.exp(score).sum())
    got = ranking_loss("softmax", head, 1.0)(outputs, jnp.asarray(RATING), jnp.asarray(MASK))
    assert_each_close(got.sum(), -4 * (gain * log_chance).sum() / gain.sum())


@pytest.mark.parametrize("kind", ["bpr", "softmax"])
def test_padding_changes_nothing_and_no_order_is_no_loss(kind):
    head = head_of("rating")
    loss = ranking_loss(kind, head, 1.0)

    def total(outputs, rating, mask):
        return loss(outputs, jnp.asarray(rating), jnp.asarray(mask)).sum()

    outputs = outputs_of(head)
    slope = jax.grad(total)(outputs, RATING, MASK)
    assert not np.asarray(slope)[4].any()
    assert np.asarray(slope)[:4].any()
    short = total(outputs[:4], RATING[:4], MASK[:4])
    assert_each_close(short, total(outputs, RATING, MASK), tolerance=1e-6, because="a few roundings")
    flat = jax.grad(total)(outputs, np.full(5, 1.0), MASK)
    assert not np.asarray(flat).any()
    nothing = jax.value_and_grad(total)(outputs, RATING, np.zeros(5))
    assert float(nothing[0]) == 0
    assert not np.asarray(nothing[1]).any()


@pytest.mark.parametrize("kind", ["bpr", "softmax"])
def test_a_run_is_trained_for_it(kind, tmp_path):
    small = small_config()
    learner = dataclasses.replace(small.learner, loss=kind, head="click", user_side="none")
    config = dataclasses.replace(
        small,
        data=dataclasses.replace(small.data, kind="click"),
        learner=learner,
        train=dataclasses.replace(small.train, epochs=3),
    )
    start.meta_train(config, tmp_path / "run")
    losses = [line["validation_loss"] for line in run_folder.open_run(tmp_path / "run").read_metrics()]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_the_loss_of_a_list_is_that_of_its_ndcg():
    """Targets among candidates, with a tie, a padded slot, and a candidate of weight 3 that stands for three."""
    head = head_of("click")
    score = jnp.asarray([2.0, 0.5, 9.0, 3.0, 2.0, 1.0, -1.0])
    rating = jnp.asarray([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    mask = jnp.asarray([1.0, 1.0, 0.0, 1.0, 1.0, 3.0, 1.0])
    lost, asked = list_loss(head, score[:, None], rating, mask)
    # Above the first target: one item and half of a tie; above the second: these two, the tie and the three.
    dcg = 1 / np.log2(2 + 1.5) + 1 / np.log2(2 + 6.0)
    assert_each_close(lost, 1 - dcg / (1 + 1 / np.log2(3)))
    assert asked == 1
    assert [float(value) for value in list_loss(head, score[:, None], 0 * rating, mask)] == [0, 0]


def test_weights_of_a_softmax_stand_for_several_rows():
    head = head_of("click")
    outputs, clicked = outputs_of(head, 3), jnp.asarray([1.0, 0.0, 0.0])
    lost = ranking_loss("softmax", head, 0.0)
    thrice = lost(outputs[jnp.asarray([0, 1, 1, 1, 2])], jnp.asarray([1.0, 0, 0, 0, 0]), jnp.ones(5))
    weighed = lost(outputs, clicked, jnp.asarray([1.0, 3.0, 1.0]))
    assert_each_close(weighed.sum(), thrice.sum())
