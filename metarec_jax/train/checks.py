"""Checks of a config against the data, the encoder and this machine, before any long computation."""

from __future__ import annotations

import dataclasses

import jax

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.config.updater import rule_of
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import partition, path_names
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.encoder import LORA_LAYERS, Encoder, lora_layers
from metarec_jax.encoder.attention import check_fused
from metarec_jax.factors.item_factors import NOTHING_KNOWN
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.model import abstract_trainable


def check_data(config: Config, data: Interactions, reporter: Reporter = QUIET) -> None:
    """Check that options and data fit each other.

    Args:
        config: config of the run.
        data: its interactions.
        reporter: receives a note on options that need much memory.

    Raises:
        MetarecError: items have vectors that no option uses, or the learner needs times and the data has none.
    """
    if data.items.vectors is not None and not config.has_factors:
        raise MetarecError(
            "items come with vectors, but nothing reads them: the factors of items do, so use --factors.rank 32, "
            "or leave the vectors out"
        )
    if config.learner.needs_times and not data.time.any():
        raise MetarecError(
            f"learner.kind {config.learner.kind!r} reads a user's interactions in order of time, but the data has no "
            "times: name their column with --data.columns.time, or use --learner.kind transformer"
        )
    if rule_of(config.updater).elementwise:
        reporter.note(
            f"updater.kind {config.updater.kind!r} needs matrices in full: every user's inner loop gets a copy of the "
            "adapted ones"
        )


def check_encoder(config: EncoderConfig, encoder: Encoder) -> None:
    """Check that the encoder can run, and be trained, on this machine with the options of the config.

    Args:
        config: options of the encoder.
        encoder: the encoder before training.

    Raises:
        MetarecError: the attention or precision is not available here, there are fewer layers than the config freezes,
            or a pattern of `lora_layers` matches no layer.
    """
    platform, architecture = jax.default_backend(), encoder.config
    if config.attention == "fused":
        check_fused(platform, compute=config.compute, width=architecture.head_width, plain=architecture.plain)
    if config.compute == "bfloat16" and platform == "cpu":
        raise MetarecError(
            "encoder.compute is 'bfloat16', which is for accelerators, but this is a CPU: use --encoder.compute float32"
        )
    if config.train == "lora":
        lora_layers(encoder.params, LORA_LAYERS)
    if config.frozen_layers > encoder.config.num_layers:
        raise MetarecError(
            f"encoder.frozen_layers is {config.frozen_layers}, but {encoder.source} has "
            f"{encoder.config.num_layers} layers"
        )


def check_adapted(config: Config, catalogue: Catalogue) -> None:
    """Check that the patterns of adapted parameters fit the learner and the updater.

    Args:
        config: config of the run.
        catalogue: its scale and widths determine the shapes of the learner.

    Raises:
        MetarecError: a pattern matches nothing, the updater cannot adapt a matched parameter, or no pattern matches the
            context parameters.
    """
    if config.has_factors:  # the values of the factors do not change the adaptable parameters
        catalogue = dataclasses.replace(catalogue, beliefs=NOTHING_KNOWN)
    theta = abstract_trainable(config, catalogue, catalogue.embeddings.shape[1]).theta
    adapted, _ = partition(theta, config.updater.adapted)
    if config.learner.context and config.updater.steps and "context/value" not in path_names(adapted):
        raise MetarecError(
            f"learner.context is {config.learner.context}, but no pattern of updater.adapted "
            f"{config.updater.adapted} matches context/value: context parameters must be adapted, so add "
            "'context/.*', or use --learner.context 0"
        )
