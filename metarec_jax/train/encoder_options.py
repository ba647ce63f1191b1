"""Options of the encoder that a run takes from its checkpoint's folder."""

from __future__ import annotations

import dataclasses

from metarec_jax.config.encoder import AUTO, EncoderConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.encoder import Encoder, Side


def resolve_encoder(config: EncoderConfig, encoder: Encoder, reporter: Reporter = QUIET) -> EncoderConfig:
    """Replace every "auto" of the encoder's options, and a length of 0, by what the checkpoint's folder states.

    Args:
        config: options of the encoder; resolved ones are returned unchanged.
        encoder: the encoder.
        reporter: shows the prompts, if there are any, and whether the folder has only prompts for other tasks.

    Returns:
        The resolved options, which are saved with the run.

    Raises:
        MetarecError: ``encoder.max_length`` exceeds the encoder's number of positions, ``encoder.dims`` the width of
            its vectors, or the pooling is "cls" and the encoder causal.
    """
    if config.max_length > encoder.config.max_positions:
        raise MetarecError(
            f"encoder.max_length is {config.max_length}, but {encoder.source} has {encoder.config.max_positions} "
            f"positions: use --encoder.max-length {encoder.config.max_positions}"
        )
    encoder.check_dims(config.dims)
    hints, pooling = encoder.hints, encoder.pooling(config.pooling)
    if AUTO in (config.query_prompt, config.document_prompt) and (names := hints.unused_prompts()):
        reporter.note(
            f"the encoder's folder has prompts, but none is for queries or documents ({', '.join(names):.200}): name "
            "those that fit with --encoder.query-prompt and --encoder.document-prompt"
        )
    prompts = {
        side: hints.prompt(side) if prompt_of(config, side) == AUTO else prompt_of(config, side)
        for side in ("query", "document")
    }
    if any(prompts.values()):
        reporter.note(f"prompts: {prompts['query']!r:.100} before users, {prompts['document']!r:.100} before items")
    pool_prompt = config.pool_prompt
    if pool_prompt == "auto":
        pool_prompt = "yes" if hints.pool_prompt else "no"
    return dataclasses.replace(
        config,
        pooling=pooling,
        query_prompt=prompts["query"],
        document_prompt=prompts["document"],
        pool_prompt=pool_prompt,
        dims=0 if config.dims == encoder.config.vector_size else config.dims,
        max_length=config.max_length or encoder.max_length,
    )


def prompt_of(config: EncoderConfig, side: Side) -> str:
    """Prompt of a side as configured.

    Args:
        config: options of the encoder.
        side: "query" for users, "document" for items.

    Returns:
        The text put before each text; "auto" where the options are not resolved.
    """
    return config.query_prompt if side == "query" else config.document_prompt


def reading_of(config: EncoderConfig) -> dict[str, str]:
    """Return the options that change what the embedding of a text means: pooling, prompts and width, by name."""
    names = ("pooling", "query_prompt", "document_prompt", "pool_prompt")
    found = {name: str(getattr(config, name)) for name in names}
    return found | {"dims": str(config.dims)} if config.dims else found  # runs from before `dims` keep a digest of this
