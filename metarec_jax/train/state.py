"""The initial state of a meta-training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import TrainState
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.model import init_trainable
from metarec_jax.train.optimizer import make_optimiser


def first_state(experiment: Experiment, steps: int) -> TrainState:
    """Make the state before the first outer step, a pure function of the config's seed.

    Args:
        experiment: data and model.
        steps: outer steps of the whole training, for the schedule.

    Returns:
        The state.
    """
    _, run_key = _keys(experiment)
    trainable = first_trainable(experiment)
    optimizer = make_optimiser(experiment.config, steps)
    squares = None if trainable.factors is None else jnp.zeros(len(trainable.factors), jnp.float32)
    optimised = optimizer.init(trainable._replace(factors=None))
    return TrainState(trainable, optimised, jnp.zeros((), jnp.int32), run_key, squares)


def first_trainable(experiment: Experiment) -> Trainable:
    """Make the parameters of the state before the first outer step, without the state of the optimizer.

    Args:
        experiment: data and model.

    Returns:
        The parameters.
    """
    key, _ = _keys(experiment)
    users = experiment.training_user_table
    encoder = jax.tree.map(jnp.copy, experiment.encoder.params)  # the first step donates the memory of its state
    return init_trainable(experiment.config, experiment.model, experiment.catalogue, users, key, encoder)


def _keys(experiment: Experiment) -> Array:
    """Key of the initial parameters, and that of the run."""
    return jax.random.split(jax.random.key(experiment.config.seed))
