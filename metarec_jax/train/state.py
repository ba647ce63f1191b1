"""The state that a meta-training starts from, and the parameters that it led to."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.meta.outer import TrainState
from metarec_jax.meta.user import Trainable
from metarec_jax.train import parameters
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.model import abstract_trainable, init_trainable
from metarec_jax.train.optimizer import make_optimiser
from metarec_jax.train.run_folder import Run


def first_state(experiment: Experiment, steps: int) -> TrainState:
    """The state before the first outer step: a pure function of the config's seed.

    Args:
        experiment: what is trained on.
        steps: outer steps of the whole training, for the schedule.
    """
    key, run_key = jax.random.split(jax.random.key(experiment.config.seed))
    users = experiment.training_user_table
    encoder = jax.tree.map(jnp.copy, experiment.encoder.params)  # the first step takes over its state's memory
    trainable = init_trainable(experiment.config, experiment.model, experiment.catalogue, users, key, encoder)
    optimizer = make_optimiser(experiment.config, steps)
    return TrainState(trainable, optimizer.init(trainable), jnp.zeros((), jnp.int32), run_key)


def load_trainable(run: Run, catalogue: Catalogue, encoder: Params = None) -> Trainable:
    """Read the parameters with the least validation loss that a run has reached so far.

    Args:
        run: the run folder, of a training that has ended or is still going on.
        catalogue: of that run.
        encoder: parameters of the encoder that it started from, for a run that trains it.

    Returns:
        Host arrays.

    Raises:
        MetarecError: no epoch has ended yet, or the file is damaged or does not fit the run's config.
    """
    config = run.config
    if not run.parameters.exists():
        raise MetarecError(
            f"{run.folder} holds no trained model yet: no epoch has ended; "
            f"train on with `metarec train --resume {run.folder}`"
        )
    hidden = 0 if config.learner.user_side == "none" else catalogue.embeddings.shape[1]
    return parameters.load(abstract_trainable(config, catalogue, hidden, encoder), run.parameters)
