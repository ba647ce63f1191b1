"""What an outer update moves, and what it leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarec_jax.config.run import Config
from metarec_jax.core.params import path_names
from metarec_jax.meta.model import Trainable
from metarec_jax.train.optimizer import make_optimiser

POSTERIOR = ("prior/log_noise", "prior/log_gain", "prior/taste/")


def theta(*, clicks=False):
    taste = {"choice": {"kernel": jnp.ones((2, 2)), "log_doubt": jnp.float32(3)}}
    return {
        "input": {"item": {"shift": jnp.ones(3), "scale": jnp.float32(1)}},
        "hidden": {"item": {"kernel": jnp.ones((3, 4))}},
        "prior": {
            "log_noise": jnp.float32(0),
            "log_gain": jnp.float32(0),
            "taste": taste,
            "head": {"log_width": jnp.float32(0)},
            **({"score": {"offset": jnp.float32(0)}} if clicks else {}),
        },
    }


def stepped(before, gradient):
    """Parameters after three updates with the same gradient."""
    optimizer = make_optimiser(Config(), 10)
    at = Trainable(before, {})
    state = optimizer.init(at)
    for _ in range(3):
        updates, state = optimizer.update(Trainable(gradient, {}), state, at)
        at = jax.tree.map(jnp.add, at, updates)
    return at.theta


@pytest.mark.parametrize("clicks", [False, True])
def test_the_posterior_moves_for_clicks_alone_and_the_standardisation_never(clicks):
    """Not by weight decay either: the maps of the prior mean are matrices."""
    before = theta(clicks=clicks)
    after = stepped(before, jax.tree.map(jnp.ones_like, before))
    for name, old, new in zip(path_names(before), jax.tree.leaves(before), jax.tree.leaves(after)):
        constant = name.startswith("input/") or (name.startswith(POSTERIOR) and not clicks)
        assert np.array_equal(old, new) == constant, name


def test_gradients_of_what_is_left_count_for_nothing_where_gradients_are_clipped():
    before = theta()
    gradient = jax.tree.map(lambda leaf: 0.01 * jnp.ones_like(leaf), before)
    huge = gradient | {"prior": gradient["prior"] | {"log_noise": jnp.float32(1e6)}}
    for new, same in zip(jax.tree.leaves(stepped(before, huge)), jax.tree.leaves(stepped(before, gradient))):
        np.testing.assert_array_equal(new, same)
