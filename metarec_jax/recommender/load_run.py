"""Loading of a recommender's parts from a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from metarec_jax.config.paths import absolute, with_paths
from metarec_jax.config.run import Config
from metarec_jax.core.jax_settings import check_jax
from metarec_jax.core.progress import QUIET
from metarec_jax.meta.model import Trainable
from metarec_jax.privacy import accounting
from metarec_jax.recommender.text_encoder import load_encoder
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.parameters import load_trainable

if TYPE_CHECKING:
    from metarec_jax.encoder import Encoder


def load_run(
    folder: Path, encoder_path: str = "", report: Callable[[str], None] = lambda text: None
) -> tuple[Config, Catalogue, Trainable, Encoder | None]:
    """Load the model with the least validation loss of a run.

    Args:
        folder: of the run.
        encoder_path: where the encoder is now; "" is where the run's config says.
        report: told that the run is private, but not yet safe to give away.

    Returns:
        Config, catalogue and parameters; and the encoder, if the run trained it.

    Raises:
        MetarecError: there is no run, the run is of another version, a file is damaged, or the parameters do not fit
            the config; or a setting of JAX is not valid.
    """
    check_jax()
    run = run_folder.open_run(folder)
    if encoder_path:
        run.config = absolute(with_paths(run.config, {"encoder.path": encoder_path}))
    if warning := accounting.unfinished(run):
        report(warning)
    catalogue = catalogues.load(run)
    if run.config.encoder.train == "no":
        return run.config, catalogue, load_trainable(run, catalogue), None
    from metarec_jax.train.embed import embed, trained_encoder  # slow to import

    start = load_encoder(run.config.encoder, run.check_inputs)
    trainable = load_trainable(run, catalogue, start.params)
    encoder = trained_encoder(start, trainable.encoder)
    embeddings = embed(encoder, run.config, catalogue.items.texts, QUIET, "")
    return run.config, dataclasses.replace(catalogue, embeddings=embeddings), trainable, encoder
