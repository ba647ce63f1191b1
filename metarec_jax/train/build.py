"""Build an experiment from a config: load -> divide -> encode -> fit factors -> make episodes -> make the model.

Each step is a public function. `build` calls them in this order; results that exist already (other data, another
division, an encoder in memory) can be passed to `build`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.arguments import instance, optional, takes
from metarec_jax.core.jax_settings import check_jax
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.row_ranges import holds
from metarec_jax.core.types import Interactions, Tables
from metarec_jax.data import load
from metarec_jax.data.candidates import candidates_of
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.leakage import refuse_behaviour, refuse_leak
from metarec_jax.data.negatives import beside_clicks
from metarec_jax.data.protocols import Division, divide
from metarec_jax.data.sources.find import cache_folder
from metarec_jax.data.splits import Folded, row_statistics
from metarec_jax.data.tasks import Tasks, TaskSource
from metarec_jax.encoder import Encoder, remarks
from metarec_jax.encoder import load as load_encoder
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.fit_cache import Cache
from metarec_jax.learner.inputs import standardisation
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.checks import check_adapted, check_data, check_encoder
from metarec_jax.train.embed import embed, embed_users, user_texts
from metarec_jax.train.encoder_options import resolve_encoder
from metarec_jax.train.experiment import Experiment, Part, Source, splits_of
from metarec_jax.train.model import make_model
from metarec_jax.train.sharding import factor_mesh

DESCRIBED_DRAWS = 4
"""Number of draws of support and query where user texts are descriptions and the config gives no number."""
EVALUATION_USERS = 64
"""Number of users of a batch in evaluation."""


class Episodes(NamedTuple):
    """Episodes of a run.

    Attributes:
        train: training episodes.
        validation: episodes that choose the best epoch.
        tests: test episodes, by name of the scenario.
    """

    train: EpisodeSource
    validation: TaskSource
    tests: dict[str, TaskSource]

    def by_name(self) -> dict[str, EpisodeSource | TaskSource]:
        """All episodes by name: "train", "validation", and the names of the test scenarios."""
        return {"train": self.train, "validation": self.validation, **self.tests}


@takes(
    config=instance(Config, what="a config, such as metarec_jax.preset('synthetic') or the result of `from_json`"),
    data=optional(instance(Interactions, what="a data set, which `metarec_jax.load` returns")),
    division=optional(instance(Division, what="a `Division`")),
    encoder=optional(instance(Encoder, what="an encoder, which `metarec_jax.encoder.load` returns")),
)
def build(
    config: Config,
    *,
    data: Interactions | None = None,
    division: Division | None = None,
    encoder: Encoder | None = None,
    reporter: Reporter = QUIET,
) -> Experiment:
    """Build the inputs of training and evaluation.

    Args:
        config: config of the run.
        data: interactions; None loads those of ``config.data``.
        division: training rows, and validation and test tasks; None divides as in ``config.split``.
        encoder: None reads the encoder of ``config.encoder``.
        reporter: shows progress.

    Returns:
        The experiment, its config with every "auto" resolved.

    Raises:
        MetarecError: an error of one of the steps, or of JAX's settings.
    """
    check_jax()
    data = load_data(config, data, reporter)
    config = resolve(config, data)
    check_data(config, data, reporter)
    division = divide(data, config, config.seed) if division is None else division
    check_division(config, data, division, reporter)
    encoder = open_encoder(config, encoder, reporter)
    config = dataclasses.replace(config, encoder=resolve_encoder(config.encoder, encoder, reporter))
    catalogue = make_catalogue(config, data, division, encoder, reporter)
    profiles = embed_profiles(config, data, encoder, reporter)
    catalogue, folded = learn_factors(config, data, division, catalogue, profiles, reporter)
    episodes = cut_episodes(config, data, division, catalogue, folded)
    texts = user_texts(config, data, episodes.by_name())
    known = None if profiles is None or data.users.texts is None else (data.users.texts, profiles)
    users = embed_users(encoder, config, len(data.users), texts, reporter, known)

    def part(name: str, source: Source) -> Part[Source]:
        return Part(source, Tables(items=catalogue.embeddings, users=users[name]), texts[name])

    return Experiment(
        config,
        data,
        division,
        catalogue,
        make_model(config, catalogue.scale),
        train=part("train", episodes.train),
        validation=part("validation", episodes.validation),
        tests={name: part(name, source) for name, source in episodes.tests.items()},
        encoder=encoder,
    )


def load_data(config: Config, data: Interactions | None = None, reporter: Reporter = QUIET) -> Interactions:
    """Load the interactions of a run, and draw negatives for clicks where the config has them.

    Args:
        config: config of the run.
        data: interactions; None loads those of ``config.data``.
        reporter: shows the size of the data.

    Returns:
        The interactions.
    """
    data = beside_clicks(load(config.data, seed=config.seed, reporter=reporter) if data is None else data, config)
    reporter.note(f"{data.source}: {len(data):,} interactions, {len(data.users):,} users, {len(data.items):,} items")
    for note in data.notes:
        reporter.note(note)
    return data


def resolve(config: Config, data: Interactions) -> Config:
    """Replace every "auto" of a config, except for the encoder's, by a value that depends on the data.

    Args:
        config: config of the run.
        data: its interactions.

    Returns:
        The resolved config, which is saved with the run.
    """
    head, side, loss = config.learner.head, config.learner.user_side, config.learner.loss
    if loss == "auto":
        loss = "softmax" if data.clicks_alone else "likelihood"
    if head == "auto":
        head = "click" if data.kind == "click" else "ordinal" if data.scale.levels else "rating"
    if side == "auto":
        side = "none" if data.users.texts is None or config.training.only_steps else "profile"
    # Each draw of a support has a description that must be encoded, so their number is limited.
    draws = config.episodes.draws or (DESCRIBED_DRAWS if side == "description" else 0)
    return dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, head=head, user_side=side, loss=loss),
        episodes=dataclasses.replace(config.episodes, draws=draws),
    )


def check_division(config: Config, data: Interactions, division: Division, reporter: Reporter = QUIET) -> None:
    """Report the sizes of a division, and check that the encoder was not pretrained on users that it holds out.

    Args:
        config: config of the run.
        data: its interactions.
        division: the division of `data`.
        reporter: shows the sizes.

    Raises:
        MetarecError: the encoder was pretrained on held-out users, or on any user where only outer steps may
            use the data.
    """
    splits = splits_of(division)
    splits = splits._replace(validation=np.sort(splits.validation), test=np.sort(splits.test))
    reporter.note(
        f"{len(splits.train)} training, {len(splits.validation)} validation and {len(splits.test)} test users; "
        f"{len(division.train):,} rows train"
    )
    refuse_leak(config.encoder.path, data, splits)
    if config.training.only_steps:
        refuse_behaviour(config.encoder.path, config.training.remedy)


def open_encoder(config: Config, encoder: Encoder | None = None, reporter: Reporter = QUIET) -> Encoder:
    """Read the encoder of a config, and check that it fits the config.

    Args:
        config: config of the run.
        encoder: an encoder to check; None reads it.
        reporter: shows how the config differs from what the checkpoint specifies.

    Returns:
        The encoder.

    Raises:
        MetarecError: the folder is damaged, or the encoder does not fit the config.
    """
    encoder = load_encoder(config.encoder.path, dense=config.encoder.dense) if encoder is None else encoder
    check_encoder(config.encoder, encoder)
    for remark in remarks(encoder, config.encoder.pooling):
        reporter.note(remark)
    return encoder


def make_catalogue(
    config: Config, data: Interactions, division: Division, encoder: Encoder, reporter: Reporter = QUIET
) -> Catalogue:
    """Count the training ratings of every item, and embed the items' texts.

    Args:
        config: config of the run.
        data: its interactions.
        division: its training rows are counted; none are where only outer steps may use the data.
        encoder: embeds the texts.
        reporter: shows progress.

    Returns:
        The catalogue, without item factors.

    Raises:
        MetarecError: the adapted parameters do not fit the learner, which is checked before texts are encoded.
    """
    catalogue = Catalogue(
        items=data.items,
        statistics=row_statistics(data, division.train[:0] if config.training.only_steps else division.train),
        embeddings=np.zeros((len(data.items), encoder.config.width(config.encoder.dims)), np.float32),
        scale=data.scale,
    )
    check_adapted(config, catalogue)
    embeddings = embed(encoder, config, data.items.texts, reporter, "encoding items")
    return dataclasses.replace(catalogue, embeddings=embeddings)


def embed_profiles(
    config: Config, data: Interactions, encoder: Encoder, reporter: Reporter = QUIET
) -> np.ndarray | None:
    """Embed the users' profiles for the item factors.

    Args:
        config: config of the run.
        data: its interactions.
        encoder: embeds the texts.
        reporter: shows progress.

    Returns:
        float32 [users, hidden]; None where there are no item factors, or they do not use profiles.
    """
    if not config.has_factors or config.learner.user_side != "profile" or data.users.texts is None:
        return None
    return embed(encoder, config, data.users.texts, reporter, "encoding users", side="query")


def learn_factors(
    config: Config,
    data: Interactions,
    division: Division,
    catalogue: Catalogue,
    profiles: np.ndarray | None = None,
    reporter: Reporter = QUIET,
) -> tuple[Catalogue, Folded | None]:
    """Fit item factors to the training rows, on the devices that the training uses.

    Args:
        config: config of the run.
        data: its interactions.
        division: its training rows are used.
        catalogue: items, with embeddings.
        profiles: float32 [users, hidden], from `embed_profiles`.
        reporter: shows progress.

    Returns:
        The catalogue with factors, and cross-fitted factors for the training users. The unchanged catalogue and None
        where the config has no factors.
    """
    if not config.has_factors:
        return catalogue, None
    if profiles is None:
        hidden = catalogue.embeddings.shape[1] if config.learner.user_side == "description" else 0
        standardised = np.zeros((len(data.users), hidden), np.float32)
    else:
        fixed = standardisation(profiles[division.train_users])
        standardised = (profiles - np.asarray(fixed["shift"])) * np.asarray(fixed["scale"])
    chosen = config.factors
    beliefs, folded = believe_all(
        chosen.rank,
        data,
        catalogue.embeddings,
        division.train,
        standardised,
        config.seed,
        reporter,
        dropout=chosen.dropout,
        mesh=factor_mesh(config.train.devices),
        cache=Cache(cache_folder(config.data.cache) / "factors"),
        for_new_items=division.for_new_items,
    )
    statistics = catalogue.statistics._replace(beliefs=beliefs.table)
    return dataclasses.replace(catalogue, statistics=statistics, beliefs=beliefs), folded


def cut_episodes(
    config: Config, data: Interactions, division: Division, catalogue: Catalogue, folded: Folded | None = None
) -> Episodes:
    """Make the episodes of training, validation and test.

    Args:
        config: resolved config of the run.
        data: its interactions.
        division: training rows, and validation and test tasks.
        catalogue: items, with statistics.
        folded: cross-fitted factors for the training users, from `learn_factors`.

    Returns:
        The episodes.
    """
    own_table = config.learner.user_side == "description"
    trained = holds(division.train, len(data))

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
        candidates=candidates_of(catalogue.statistics.count, config.seed)
        if data.clicks_alone and config.learner.loss == "softmax"
        else None,
    )
    return Episodes(
        train, asked(division.validation), {scenario.name: asked(scenario.tasks) for scenario in division.scenarios}
    )
