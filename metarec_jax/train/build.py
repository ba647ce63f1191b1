"""From a config to the parts of a run: data, splits, embeddings, episodes, model; in the order of the flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import jax
import numpy as np

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config, believes, covers_all
from metarec_jax.config.updater import ELEMENTWISE
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import partition, path_names
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions, Params, Tables
from metarec_jax.data import load
from metarec_jax.data.describe import descriptions
from metarec_jax.data.episodes import EpisodeSource, histories
from metarec_jax.data.leakage import refuse_behaviour, refuse_leak
from metarec_jax.data.negatives import beside_clicks
from metarec_jax.data.protocols import Division, divide
from metarec_jax.data.sources.find import cache_folder
from metarec_jax.data.splits import Splits, row_statistics
from metarec_jax.data.tasks import Tasks, TaskSource
from metarec_jax.encoder import Encoder, Execution, encode_table, lora_layers, merge_lora, remarks
from metarec_jax.encoder import load as load_encoder
from metarec_jax.encoder.attention import check_fused
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.item_factors import NOTHING_KNOWN
from metarec_jax.learner.inputs import standardisation
from metarec_jax.meta.user import Model, Trainable
from metarec_jax.train.catalogue import Catalogue, scale_of
from metarec_jax.train.model import abstract_trainable, make_model

Source = TypeVar("Source", EpisodeSource, TaskSource)

DESCRIBED_DRAWS = 4
"""Draws of support and query where users are described and the config does not say how many."""
EVALUATION_USERS = 64
"""Users of a batch in evaluation."""


@dataclasses.dataclass(frozen=True)
class Part(Generic[Source]):
    """Episodes of some users, and the embeddings they gather from (host arrays).

    Attributes:
        source: the episodes.
        tables: embeddings, by the encoder as it is before training.
        user_texts: what the users' embeddings are of; None where users have no text.
    """

    source: Source
    tables: Tables
    user_texts: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Assembly:
    """Everything that training and evaluation start from.

    Attributes:
        config: with every choice made.
        data: all of it; training reads no more of its rows than ``division.train``.
        division: which rows train, and what is asked.
        catalogue: items, with statistics of the training rows.
        model: its functions.
        train, validation: what training reads, and what it is chosen by.
        tests: what the tables are about, by the name of the scenario.
        encoder: as it is before training.
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
    def splits(self) -> Splits:
        """Whose episodes train, and who is asked for validation and in the tests; users can be in several."""
        held_out = [scenario.tasks.user for scenario in self.division.scenarios if scenario.held_out]
        validation, test = (
            np.array(list(dict.fromkeys(users.tolist())), np.int32)
            for users in (self.division.validation.user, np.concatenate(held_out))
        )
        return Splits(self.division.train_users, validation, test)

    @property
    def training_user_table(self) -> np.ndarray:
        """float32 [users, hidden], embeddings of the training users alone, from which inputs are standardised."""
        source, users = self.train.source, self.train.tables.users
        return users if source.own_table else users[self.division.train_users]


def assemble(config: Config, *, reporter: Reporter = QUIET) -> Assembly:
    """Loads, splits, encodes and cuts into episodes what `config` names.

    Raises:
        MetarecError: what any of these steps has to say about the input.
    """
    data = beside_clicks(load(config.data, seed=config.seed), config)
    reporter.note(f"{data.source}: {len(data):,} interactions, {len(data.users):,} users, {len(data.items):,} items")
    config = resolve(config, data)
    if data.items.vectors is not None and not (
        believes(config) and (config.factors.vectors or config.factors.mean_vectors)
    ):
        raise MetarecError(
            "items come with vectors, but nothing reads them: beliefs about items do, so use --factors.rank 32 and "
            "--factors.vectors above 0, or leave the vectors out"
        )
    if config.learner.kind == "recurrent" and not data.time.any():
        raise MetarecError(
            "learner.kind 'recurrent' reads a user's interactions in order of time, but the data has no times: "
            "name their column with --data.columns.time, or use --learner.kind transformer"
        )
    if config.updater.kind in ELEMENTWISE or config.updater.clip:
        reporter.note(
            f"updater.kind {config.updater.kind!r}{' with clipping' if config.updater.clip else ''} needs matrices in "
            "full: every user's inner loop gets a copy of the adapted ones"
        )
    division = divide(data, config, config.seed)
    tested = np.unique(np.concatenate([s.tasks.user for s in division.scenarios if s.held_out]))
    validated = np.unique(division.validation.user)
    reporter.note(
        f"{len(division.train_users)} training, {len(validated)} validation and {len(tested)} test users; "
        f"{len(division.train):,} rows train"
    )
    refuse_leak(config.encoder.path, data, Splits(division.train_users, validated, tested))
    if covers_all(config):
        refuse_behaviour(config.encoder.path)
    encoder = load_encoder(config.encoder.path)
    check_encoder(config.encoder, encoder)
    for remark in remarks(encoder, pooling=config.encoder.pooling, normalise=config.encoder.normalise):
        reporter.note(remark)
    pooling = encoder.hints.resolve(config.encoder.pooling)
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, pooling=pooling))
    catalogue = Catalogue(
        items=data.items,
        # What is counted is not noised, so that a run that is private as a whole counts no rows.
        statistics=row_statistics(data, division.train[:0] if covers_all(config) else division.train),
        embeddings=np.zeros((len(data.items), encoder.config.hidden_size), np.float32),
        scale=scale_of(data),
    )
    check_adapted(config, catalogue)  # before minutes of encoding
    embeddings = embed(encoder, config, data.items.texts, reporter, "encoding items")
    catalogue = dataclasses.replace(catalogue, embeddings=embeddings)
    folded, known = None, {}
    if believes(config):
        standing = _standing(encoder, config, data, division.train_users, known, reporter)
        beliefs, folded = believe_all(config.factors, data, embeddings, division.train, standing, config.seed, reporter)
        statistics = catalogue.statistics._replace(beliefs=beliefs.table)
        catalogue = dataclasses.replace(catalogue, statistics=statistics, beliefs=beliefs)
    own_table = config.learner.user_side == "description"

    trained = np.zeros(len(data), bool)
    trained[division.train] = True

    def asked(tasks: Tasks) -> TaskSource:
        return TaskSource(
            data=data,
            tasks=tasks,
            statistics=catalogue.statistics,
            trained=trained,
            buckets=config.episodes.buckets,
            users_per_batch=EVALUATION_USERS,
            own_table=own_table,
            folded=folded,
        )

    train = EpisodeSource(
        histories=histories(data, division.train_users, trained),
        config=config.episodes,
        statistics=catalogue.statistics,
        training=True,
        users_per_batch=config.train.users_per_step,
        seed=config.seed,
        epochs=config.train.epochs,
        own_table=own_table,
        folded=folded,
    )
    validation = asked(division.validation)
    tests = {scenario.name: asked(scenario.tasks) for scenario in division.scenarios}
    sources: dict[str, EpisodeSource | TaskSource] = {"train": train, "validation": validation, **tests}
    texts = user_texts(config, data, sources)
    users = user_embeddings(encoder, config, len(data.users), texts, reporter, known)

    def part(name: str, source: Source) -> Part[Source]:
        return Part(source, Tables(items=catalogue.embeddings, users=users[name]), texts[name])

    return Assembly(
        config,
        data,
        division,
        catalogue,
        make_model(config, catalogue.scale),
        train=part("train", train),
        validation=part("validation", validation),
        tests={name: part(name, source) for name, source in tests.items()},
        encoder=encoder,
    )


def check_encoder(config: EncoderConfig, encoder: Encoder) -> None:
    """Sees that the encoder can run, and be trained, here and as the config says.

    Raises:
        MetarecError: there is no such attention or precision here, there are not as many layers to freeze, or patterns
            of `lora_layers` match nothing.
    """
    platform, architecture = jax.default_backend(), encoder.config
    if config.attention == "fused":
        check_fused(platform, compute=config.compute, width=architecture.hidden_size // architecture.num_heads)
    if config.compute == "bfloat16" and platform == "cpu":
        raise MetarecError(
            "encoder.compute is 'bfloat16', which is for accelerators, but this is a CPU: use --encoder.compute float32"
        )
    if config.train == "lora":
        lora_layers(encoder.params, config.lora_layers)
    if config.frozen_layers > encoder.config.num_layers:
        raise MetarecError(
            f"encoder.frozen_layers is {config.frozen_layers}, but {encoder.source} has "
            f"{encoder.config.num_layers} layers"
        )


def resolve(config: Config, data: Interactions) -> Config:
    """`config` with every "auto" replaced by what fits `data`; a run keeps the result."""
    head, side = config.learner.head, config.learner.user_side
    if head == "auto":
        head = "click" if data.kind == "click" else "ordinal" if data.levels else "rating"
    if side == "auto":
        side = "none" if data.users.texts is None or covers_all(config) else "profile"
    # A description belongs to one draw of the support, and each has to be encoded: so let there be few draws.
    draws = config.episodes.draws or (DESCRIBED_DRAWS if side == "description" else 0)
    return dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, head=head, user_side=side),
        episodes=dataclasses.replace(config.episodes, draws=draws),
    )


def embed(
    encoder: Encoder,
    config: Config,
    texts: tuple[str, ...] | list[str],
    reporter: Reporter,
    label: str,
    *,
    again: bool = False,
) -> np.ndarray:
    """Embeddings of `texts`, float32 [texts, hidden], through the cache on disk.

    How many texts are too long is said, but not where they are encoded `again`.
    """
    folder: Path = cache_folder(config.data.cache) / "embeddings"
    with reporter.bar(label, len(set(texts))) as advance:
        return encode_table(
            encoder,
            texts,
            pooling=config.encoder.pooling,
            max_length=config.encoder.max_length,
            normalise=config.encoder.normalise,
            cache=folder,
            progress=lambda done, total: advance(done),
            report=None if again else reporter.note,
            dtype=config.encoder.dtype,
            run=Execution(config.encoder.attention, scan=config.encoder.scan),
        )


def user_texts(
    config: Config, data: Interactions, sources: Mapping[str, EpisodeSource | TaskSource]
) -> dict[str, tuple[str, ...] | None]:
    """What stands for the users of each source: profiles, descriptions of each draw of the support, or nothing.

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
    middle = (data.low + data.high) / 2
    return {name: tuple(descriptions(source, data.items.titles, middle=middle)) for name, source in sources.items()}


def user_embeddings(
    encoder: Encoder,
    config: Config,
    users: int,
    texts: dict[str, tuple[str, ...] | None],
    reporter: Reporter,
    known: Mapping[tuple[str, ...], np.ndarray] | None = None,
    *,
    again: bool = False,
) -> dict[str, np.ndarray]:
    """The user table of each source; of `users` users without features where there are no texts. Tables that are
    `known` are not made again; `again` is as for `embed`."""
    found: dict[tuple[str, ...] | None, np.ndarray] = {None: np.zeros((users, 0), np.float32), **(known or {})}
    for name, of_source in texts.items():
        if of_source not in found:
            label = f"encoding {name} users" if config.learner.user_side == "description" else "encoding users"
            found[of_source] = embed(encoder, config, of_source or (), reporter, label, again=again)
    return {name: found[of_source] for name, of_source in texts.items()}


def _standing(
    encoder: Encoder,
    config: Config,
    data: Interactions,
    train_users: np.ndarray,
    known: dict[tuple[str, ...], np.ndarray],
    reporter: Reporter,
) -> np.ndarray:
    """Standardised embeddings of what stands for users from the start, their profiles, which are put into `known`; of
    zeros, where what stands for a user is only known with a support, and of width 0 where nothing ever is."""
    side = config.learner.user_side
    if side != "profile" or data.users.texts is None:
        return np.zeros((len(data.users), encoder.config.hidden_size if side == "description" else 0), np.float32)
    known[data.users.texts] = embed(encoder, config, data.users.texts, reporter, "encoding users")
    fixed = standardisation(known[data.users.texts][train_users])
    return (known[data.users.texts] - np.asarray(fixed["shift"])) * np.asarray(fixed["scale"])


def check_adapted(config: Config, catalogue: Catalogue) -> None:
    """Sees that the patterns of adapted parameters fit the learner and the updater.

    Raises:
        MetarecError: a pattern matches nothing, the updater cannot adapt what they match, or there are context
            parameters (which exist to be adapted) that none matches.
    """
    if believes(config):  # which beliefs makes no difference to what there is to adapt
        catalogue = dataclasses.replace(catalogue, beliefs=NOTHING_KNOWN)
    theta = abstract_trainable(config, catalogue, catalogue.embeddings.shape[1]).theta
    adapted, _ = partition(theta, config.updater.adapted)
    if config.learner.context and config.updater.steps and "context/value" not in path_names(adapted):
        raise MetarecError(
            f"learner.context is {config.learner.context}, but no pattern of updater.adapted "
            f"{config.updater.adapted} matches context/value: context parameters are there to be adapted, so add "
            "'context/.*', or use --learner.context 0"
        )


def trained_encoder(encoder: Encoder, params: Params) -> Encoder:
    """`encoder` with the parameters that a run trained; factors (LoRA) are added to their matrices."""
    source = f"{encoder.source}, trained further"
    return dataclasses.replace(encoder, params=merge_lora(params), source=source)


def with_trained_encoder(assembly: Assembly, trainable: Trainable, reporter: Reporter = QUIET) -> Assembly:
    """`assembly` with the embeddings that the trained encoder gives; as it is, where the encoder was not trained."""
    if trainable.encoder is None:
        return assembly
    encoder = trained_encoder(assembly.encoder, trainable.encoder)
    config = assembly.config
    parts = {"train": assembly.train, "validation": assembly.validation, **assembly.tests}
    items = embed(encoder, config, assembly.data.items.texts, reporter, "encoding items", again=True)
    texts = {name: part.user_texts for name, part in parts.items()}
    users = user_embeddings(encoder, config, len(assembly.data.users), texts, reporter, again=True)

    def encoded(name: str, part: Part[Source]) -> Part[Source]:
        return dataclasses.replace(part, tables=Tables(items, users[name]))

    return dataclasses.replace(
        assembly,
        catalogue=dataclasses.replace(assembly.catalogue, embeddings=items),
        train=encoded("train", assembly.train),
        validation=encoded("validation", assembly.validation),
        tests={name: encoded(name, part) for name, part in assembly.tests.items()},
        encoder=encoder,
    )
