"""Inputs of training and evaluation, as one frozen value."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.stored_columns import blocks
from metarec_jax.core.types import Interactions, Strings, Tables
from metarec_jax.data.candidates import candidates_of
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.fingerprint import fingerprint_with_texts, input_digests
from metarec_jax.data.protocols import Division
from metarec_jax.data.splits import Splits
from metarec_jax.data.tasks import TaskSource
from metarec_jax.encoder import Encoder
from metarec_jax.meta.model import Model
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.encoder_options import reading_of

Source = TypeVar("Source", EpisodeSource, TaskSource)


@dataclasses.dataclass(frozen=True)
class Part(Generic[Source]):
    """Episodes of some users, and the embeddings that they gather from (host arrays).

    Attributes:
        source: the episodes.
        tables: embeddings from the encoder before training.
        user_texts: texts of the users; None where users have no text.
    """

    source: Source
    tables: Tables
    user_texts: Strings | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The data, division, catalogue, model and episodes of a run.

    Attributes:
        config: config with every "auto" resolved.
        data: all interactions; training reads only the rows ``division.train``.
        division: which rows train, and which tasks validate and test.
        catalogue: items, with statistics of the training rows.
        model: the functions of learner and updater.
        train, validation: training episodes, and episodes that choose the best epoch.
        tests: episodes of the test tables, by name of the scenario.
        encoder: encoder with the parameters before training.
    """

    config: Config
    data: Interactions
    division: Division
    catalogue: Catalogue
    model: Model
    train: Part[EpisodeSource]
    validation: Part[TaskSource]
    tests: Mapping[str, Part[TaskSource]]
    encoder: Encoder

    @property
    def test(self) -> Part[TaskSource]:
        """The first scenario."""
        return next(iter(self.tests.values()))

    @property
    def choosing(self) -> Part[TaskSource]:
        """Validation episodes whose loss chooses the best epoch: of clicks alone, and where lists are judged, with
        candidates."""
        candidates = self.train.source.candidates
        if candidates is None and self.division.candidates is not None:
            candidates = candidates_of(self.catalogue.statistics.count, self.config.seed, self.division.candidates)
        source = dataclasses.replace(self.validation.source, candidates=candidates)
        return dataclasses.replace(self.validation, source=source)

    @property
    def splits(self) -> Splits:
        """Users whose episodes train, validate and test; a user can be in several of the three."""
        return splits_of(self.division)

    def fingerprint(self) -> str:
        """sha256 of all inputs of training: equal fingerprints and configs give equal results."""
        digest = hashlib.sha256(fingerprint_with_texts(self.data, self.encoder.digest).encode())
        for rows in (self.division.train, self.division.train_users, self.division.validation.query):
            for some in blocks(len(rows)):
                digest.update(np.ascontiguousarray(rows[some]).tobytes())
        return digest.hexdigest()

    def inputs(self) -> dict[str, str]:
        """Digests of everything that training reads: `fingerprint` as "sha256", and those of its parts."""
        reading = json.dumps({**reading_of(self.config.encoder), "max_length": self.config.encoder.max_length})
        return {
            "sha256": self.fingerprint(),
            **input_digests(self.data, self.encoder.digest),
            "reading": hashlib.sha256(reading.encode()).hexdigest(),
        }

    @property
    def training_user_table(self) -> np.ndarray:
        """float32 [users, hidden], embeddings of the training users, which set the standardisation of inputs."""
        source, users = self.train.source, self.train.tables.users
        return users if source.own_table else users[self.division.train_users]


def splits_of(division: Division) -> Splits:
    """Users of training, validation and tests, each once per part, in the order of their first task."""
    held_out = [scenario.tasks.user for scenario in division.scenarios if scenario.held_out]
    validation, test = (
        np.array(list(dict.fromkeys(users.tolist())), np.int32)
        for users in (division.validation.user, np.concatenate(held_out))
    )
    return Splits(division.train_users, validation, test)
