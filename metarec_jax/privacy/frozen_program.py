"""Private meta-training with a frozen encoder."""

from __future__ import annotations

import functools
from typing import Any

from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes
from metarec_jax.privacy.dp_step import Fed, frozen_sum
from metarec_jax.privacy.ledger import PrivacyLedger
from metarec_jax.privacy.private_training import mechanism_of, private_options, private_step, secret_key
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.frozen_program import prepared_tables
from metarec_jax.train.meta_training import fitting_users, meta_training, starting_state
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.validation import Validation


def build(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET) -> Program:
    """Build the program of a run that trains learner and updater under differential privacy.

    Args:
        run: the run folder, which stores the secret and the privacy loss so far.
        experiment: data and model.
        reporter: told how much noise is added.

    Returns:
        The program.
    """
    config, model = experiment.config, experiment.model
    mesh = user_mesh(config.train.devices)
    ledger = PrivacyLedger(run, experiment, reporter)
    mechanism = mechanism_of(config, ledger)
    fed = Fed(prepared_tables(run, experiment, mesh), secret_key(mesh, ledger))

    def localise(episodes: Episodes) -> tuple[Fed, Episodes]:
        return fed, episodes

    def make(users_per_device: int) -> Any:
        summed = frozen_sum(model, mechanism, at_once=users_per_device * mesh.size)
        return private_step(config, summed, mechanism, len(experiment.train.source))

    state = functools.partial(starting_state, run, experiment, mesh)
    return meta_training(
        run,
        experiment,
        mesh,
        localise=localise,
        make_step=make,
        validate=Validation(model, mesh, experiment.choosing),
        users_per_device=fitting_users(experiment, mesh, localise, make, state, reporter),
        **private_options(experiment, ledger),
    )
