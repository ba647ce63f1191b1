"""Embeddings of items and users by the encoder before or after training, with a cache on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core import processes
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions, Params, Strings, Tables
from metarec_jax.data.describe import descriptions
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.sources.find import cache_folder
from metarec_jax.data.tasks import TaskSource
from metarec_jax.encoder import Encoder, Side, choose_execution, encode_table, merge_lora
from metarec_jax.encoder.embedding_cache import texts_of_process
from metarec_jax.meta.model import Trainable
from metarec_jax.train.encoder_options import prompt_of, resolve_encoder
from metarec_jax.train.experiment import Experiment, Part, Source

Sources = Mapping[str, EpisodeSource | TaskSource]
"""Episodes by name: "train", "validation", and each scenario of the tests."""


def embed(
    encoder: Encoder,
    config: Config,
    texts: Sequence[str],
    reporter: Reporter = QUIET,
    label: str = "encoding",
    *,
    side: Side = "document",
    warn_truncation: bool = True,
) -> np.ndarray:
    """Embed texts, with the cache on disk.

    Several processes fill the shards of a cache folder that all see, each its range. The first one reads them, encodes
    what is not there, and sends the others the table.

    Args:
        encoder: the encoder.
        config: pooling, prompts, length and cache folder.
        texts: texts to encode; equal texts are encoded once.
        reporter: shows progress.
        label: label of the progress bar.
        side: "document" for texts of items, "query" for texts of users; each has its prompt.
        warn_truncation: report how many texts exceeded ``encoder.max_length``.

    Returns:
        float32 [texts, width].
    """
    chosen = resolve_encoder(config.encoder, encoder)

    def encoded(some: Sequence[str]) -> dict[str, np.ndarray]:
        with reporter.bar(label, len(set(some))) as advance:
            found = encode_table(
                encoder,
                some,
                pooling=chosen.pooling,
                prompt=prompt_of(chosen, side),
                pool_prompt=chosen.pool_prompt == "yes",
                max_length=chosen.max_length,
                dims=chosen.dims,
                cache=cache_folder(config.data.cache) / "embeddings",
                progress=lambda done, total: advance(done),
                report=reporter.note if warn_truncation else None,
                dtype=chosen.dtype,
                run=choose_execution(jax.default_backend(), fused=chosen.attention == "fused"),
                stored=chosen.stored,
            )
        return {"embeddings": found}

    if not processes.is_first() and (own := texts_of_process(texts, processes.index(), processes.count())):
        encoded(own)
    found = processes.arrays_from_first(label, lambda: encoded(texts))
    assert found is not None
    return found["embeddings"]


def user_texts(config: Config, data: Interactions, sources: Sources) -> dict[str, Strings | None]:
    """Choose the text of each user of each source.

    Args:
        config: ``learner.user_side`` chooses: the profile, a description of each draw of the support, or none.
        data: holds profiles and titles.
        sources: episodes by name.

    Returns:
        For each name the texts, or None where users have none.

    Raises:
        MetarecError: profiles are asked for, and the data has none.
    """
    if config.learner.user_side == "none":
        return dict.fromkeys(sources)
    if config.learner.user_side == "profile":
        if data.users.texts is None:
            raise MetarecError(
                "learner.user_side is 'profile', but the data has no user texts: use --learner.user-side description, "
                "or none, or name a column with --data.columns.user-text"
            )
        return dict.fromkeys(sources, data.users.texts)
    middle = data.scale.middle
    return {name: tuple(descriptions(source, data.items.titles, middle=middle)) for name, source in sources.items()}


def embed_users(
    encoder: Encoder,
    config: Config,
    users: int,
    texts: Mapping[str, Strings | None],
    reporter: Reporter = QUIET,
    known: tuple[Strings, np.ndarray] | None = None,
    *,
    warn_truncation: bool = True,
) -> dict[str, np.ndarray]:
    """Embed the users of each source.

    Args:
        encoder, config: as for `embed`.
        users: number of users, for sources without texts.
        texts: texts of each source, from `user_texts`.
        reporter: shows progress.
        known: texts whose embeddings are already computed, and these.
        warn_truncation: as for `embed`.

    Returns:
        float32 [users, hidden] for each source; of width 0 where users have no text.
    """
    made: list[tuple[Strings | None, np.ndarray]] = [(None, np.zeros((users, 0), np.float32))]
    made += [known] if known is not None else []
    found = {}
    for name, of_source in texts.items():
        before = next((embeddings for of_other, embeddings in made if of_other is of_source), None)
        if before is None:
            label = f"encoding {name} users" if config.learner.user_side == "description" else "encoding users"
            before = embed(
                encoder, config, of_source or (), reporter, label, side="query", warn_truncation=warn_truncation
            )
            made.append((of_source, before))
        found[name] = before
    return found


def trained_encoder(encoder: Encoder, params: Params) -> Encoder:
    """Replace the parameters of an encoder by trained ones; LoRA factors are merged into their matrices.

    Args:
        encoder: the encoder before training.
        params: trained parameters.

    Returns:
        The encoder.
    """
    source = f"{encoder.source}, trained further"
    return dataclasses.replace(encoder, params=merge_lora(params), source=source)


def with_trained_encoder(experiment: Experiment, trainable: Trainable, reporter: Reporter = QUIET) -> Experiment:
    """Embed items and users again, with the encoder that a run trained.

    Args:
        experiment: experiment with embeddings of the encoder before training.
        trainable: trained parameters; if they include no encoder, the experiment is returned unchanged.
        reporter: shows progress.

    Returns:
        The experiment with new embeddings and the trained encoder.
    """
    if trainable.encoder is None:
        return experiment
    encoder = trained_encoder(experiment.encoder, trainable.encoder)
    config = experiment.config
    parts = {"train": experiment.train, "validation": experiment.validation, **experiment.tests}
    items = embed(encoder, config, experiment.data.items.texts, reporter, "encoding items", warn_truncation=False)
    texts = {name: part.user_texts for name, part in parts.items()}
    users = embed_users(encoder, config, len(experiment.data.users), texts, reporter, warn_truncation=False)

    def encoded(name: str, part: Part[Source]) -> Part[Source]:
        return dataclasses.replace(part, tables=Tables(items, users[name]))

    return dataclasses.replace(
        experiment,
        catalogue=dataclasses.replace(experiment.catalogue, embeddings=items),
        train=encoded("train", experiment.train),
        validation=encoded("validation", experiment.validation),
        tests={name: encoded(name, part) for name, part in experiment.tests.items()},
        encoder=encoder,
    )
