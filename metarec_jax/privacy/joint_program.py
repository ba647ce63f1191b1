"""Private meta-training that trains the encoder too, one user's gradient at a time."""

from __future__ import annotations

from typing import Any

from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes
from metarec_jax.privacy.dp_encoder_step import joint_sum
from metarec_jax.privacy.dp_step import Fed
from metarec_jax.privacy.ledger import PrivacyLedger
from metarec_jax.privacy.private_training import mechanism_of, private_options, private_step, secret_key
from metarec_jax.privacy.text_batches import PrivateTextBatches
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.joint_program import joint_validation, trained_part
from metarec_jax.train.meta_training import meta_training
from metarec_jax.train.program import Program
from metarec_jax.train.run_folder import Run
from metarec_jax.train.sharding import user_mesh


def build(run: Run, experiment: Experiment, *, reporter: Reporter = QUIET) -> Program:
    """Build the program of a run that trains encoder, learner and updater under differential privacy.

    Args:
        run: the run folder, which stores the secret and the privacy loss so far.
        experiment: data and model.
        reporter: told how much noise is added.

    Returns:
        The program.
    """
    config = experiment.config
    mesh = user_mesh(config.train.devices)
    ledger = PrivacyLedger(run, experiment, reporter)
    mechanism, key = mechanism_of(config, ledger), secret_key(mesh, ledger)
    texts = PrivateTextBatches(config, experiment.encoder, experiment.data.items.texts, experiment.train, mesh)

    def localise(episodes: Episodes) -> tuple[Fed, Episodes]:
        read, local = texts.localise(episodes)
        return Fed(read, key), local

    def make(_: int) -> Any:
        summed = joint_sum(experiment.model, texts.reading, trained_part(config), mechanism)
        return private_step(config, texts.spread(summed), mechanism, len(experiment.train.source))

    return meta_training(
        run,
        experiment,
        mesh,
        localise=localise,
        make_step=make,
        validate=joint_validation(experiment, mesh),
        whole_batches=True,
        users_per_device=1,  # each user has a separate gradient of the encoder
        **private_options(experiment, ledger),
    )
