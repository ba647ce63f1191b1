"""From a config to the parts of a run: data, splits, embeddings, episodes, model; in the order of the flow."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import optax

from metarec_jax.catalogue import Catalogue, Scale, scale_of
from metarec_jax.config import ELEMENTWISE, Config, LearnerConfig, TrainConfig, UpdaterConfig
from metarec_jax.data import load
from metarec_jax.data.describe import descriptions
from metarec_jax.data.episodes import EpisodeSource, histories
from metarec_jax.data.sources.find import cache_folder
from metarec_jax.data.splits import Splits, item_statistics, split_users
from metarec_jax.encoder import Encoder, encode_table, remarks
from metarec_jax.encoder import load as load_encoder
from metarec_jax.errors import MetarecError
from metarec_jax.learner import mlp
from metarec_jax.learner.heads import make_head
from metarec_jax.meta.partition import partition
from metarec_jax.meta.updaters import make_updater
from metarec_jax.meta.user import Model, Trainable
from metarec_jax.progress import QUIET, Reporter
from metarec_jax.types import Interactions, Params, Tables

DESCRIBED_DRAWS = 4
"""Draws of support and query where users are described and the config does not say how many."""
EVALUATION_USERS = 64
"""Users of a batch in evaluation."""
UNROLL = 5
"""Inner steps in one turn of the compiled loop: a few per cent quicker than one, and no longer to compile."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Episodes of some users, and the embeddings they gather from (host arrays)."""

    source: EpisodeSource
    tables: Tables


@dataclasses.dataclass(frozen=True)
class Assembly:
    """Everything that training and evaluation start from."""

    config: Config
    data: Interactions
    splits: Splits
    catalogue: Catalogue
    model: Model
    train: Part
    validation: Part
    test: Part


def assemble(config: Config, *, reporter: Reporter = QUIET) -> Assembly:
    """Loads, splits, encodes and cuts into episodes what `config` names.

    Raises:
        MetarecError: what any of these steps has to say about the input.
    """
    data = load(config.data, seed=config.seed)
    reporter.note(f"{data.source}: {len(data):,} interactions, {len(data.users):,} users, {len(data.items):,} items")
    config = resolve(config, data)
    if config.updater.kind in ELEMENTWISE or config.updater.clip:
        reporter.note(
            f"updater.kind {config.updater.kind!r}{' with clipping' if config.updater.clip else ''} needs matrices in "
            "full: every user's inner loop gets a copy of the adapted ones"
        )
    splits = split_users(data, config.episodes, config.seed)
    reporter.note(
        f"{len(splits.train)} training, {len(splits.validation)} validation and {len(splits.test)} test users, disjoint"
    )
    encoder = load_encoder(config.encoder.path)
    for remark in remarks(encoder, pooling=config.encoder.pooling, normalise=config.encoder.normalise):
        reporter.note(remark)
    catalogue = Catalogue(
        items=data.items,
        statistics=item_statistics(data, splits.train),
        embeddings=embed(encoder, config, data.items.texts, reporter, "encoding items"),
        scale=scale_of(data),
    )
    own_table = config.learner.user_side == "description"

    def source(users: np.ndarray, *, training: bool, size: int, epochs: int) -> EpisodeSource:
        return EpisodeSource(
            histories=histories(data, users),
            config=config.episodes,
            statistics=catalogue.statistics,
            training=training,
            users_per_batch=size,
            seed=config.seed,
            epochs=epochs,
            own_table=own_table,
        )

    sources = {
        "train": source(splits.train, training=True, size=config.train.users_per_step, epochs=config.train.epochs),
        "validation": source(splits.validation, training=False, size=EVALUATION_USERS, epochs=1),
        "test": source(splits.test, training=False, size=EVALUATION_USERS, epochs=1),
    }
    users = user_embeddings(encoder, config, data, sources, reporter)
    parts = {name: Part(s, Tables(items=catalogue.embeddings, users=users[name])) for name, s in sources.items()}
    return Assembly(config, data, splits, catalogue, make_model(config, catalogue.scale), **parts)


def resolve(config: Config, data: Interactions) -> Config:
    """`config` with every "auto" replaced by what fits `data`; a run keeps the result."""
    head, side = config.learner.head, config.learner.user_side
    if head == "auto":
        head = "click" if data.kind == "click" else "ordinal" if data.levels else "rating"
    if side == "auto":
        side = "none" if data.users.texts is None else "profile"
    # A description belongs to one draw of the support, and each has to be encoded: so let there be few draws.
    draws = config.episodes.draws or (DESCRIBED_DRAWS if side == "description" else 0)
    return dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, head=head, user_side=side),
        episodes=dataclasses.replace(config.episodes, draws=draws),
    )


def embed(
    encoder: Encoder, config: Config, texts: tuple[str, ...] | list[str], reporter: Reporter, label: str
) -> np.ndarray:
    """Embeddings of `texts`, float32 [texts, hidden], through the cache on disk."""
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
            report=reporter.note,
        )


def user_embeddings(
    encoder: Encoder,
    config: Config,
    data: Interactions,
    sources: dict[str, EpisodeSource],
    reporter: Reporter,
) -> dict[str, np.ndarray]:
    """The user table of each source: of profiles, of descriptions, or without features.

    Raises:
        MetarecError: profiles are asked for, and the data has none.
    """
    if config.learner.user_side == "none":
        nothing = np.zeros((len(data.users), 0), np.float32)
        return dict.fromkeys(sources, nothing)
    if config.learner.user_side == "profile":
        if data.users.texts is None:
            raise MetarecError(
                "learner.user_side is 'profile', but the data has no user texts: use --learner.user-side description, "
                "or none, or name a column with --data.columns.user-text"
            )
        return dict.fromkeys(sources, embed(encoder, config, data.users.texts, reporter, "encoding users"))
    middle = (data.low + data.high) / 2
    return {
        name: embed(
            encoder,
            config,
            descriptions(source, data.items.titles, middle=middle),
            reporter,
            f"encoding {name} users",
        )
        for name, source in sources.items()
    }


def make_model(config: Config, scale: Scale) -> Model:
    """The functions of the model that `config` describes; the same functions for the same choices, so that what was
    traced and compiled for one seed serves the next."""
    return _model(config.learner, config.updater, scale)


@functools.lru_cache(maxsize=32)
def _model(learner: LearnerConfig, updater: UpdaterConfig, scale: Scale) -> Model:
    head = make_head(learner.head, levels=scale.levels, low=scale.low, high=scale.high)

    def apply(params: Params, context: mlp.Context, rows: mlp.Features) -> jax.Array:
        return mlp.apply(
            params,
            head,
            context,
            rows,
            prior=learner.prior,
            dropout=learner.dropout,
            user_dropout=learner.user_dropout,
            compute=learner.compute,
        )

    return Model(
        prepare=functools.partial(mlp.prepare, compute=learner.compute),
        apply=apply,
        head=head,
        updater=make_updater(updater, head.curvature),
        adapted=updater.adapted,
        steps=updater.steps,
        order=updater.order,
        form=updater.form,
        unroll=max(min(updater.steps, UNROLL), 1),
    )


def init_trainable(
    config: Config, model: Model, catalogue: Catalogue, user_table: np.ndarray, key: jax.Array
) -> Trainable:
    """theta and phi before training.

    Args:
        config: sizes.
        model: from `make_model`.
        catalogue: items, of which those that training users rated set the input standardisation.
        user_table: float32 [users, hidden] of training users.
        key: typed PRNG key.
    """
    seen = catalogue.statistics.count > 0
    theta = mlp.init(
        key,
        model.head,
        hidden=config.learner.hidden,
        context=config.learner.context,
        item_embeddings=catalogue.embeddings[seen],
        user_embeddings=user_table,
        mean_rating=float(catalogue.statistics.total.sum() / max(catalogue.statistics.count.sum(), 1)),
    )
    adapted, _ = partition(theta, model.adapted)
    return Trainable(theta=theta, phi=model.updater.init(adapted))


def abstract_trainable(config: Config, catalogue: Catalogue, user_hidden: int) -> Trainable:
    """Shapes and dtypes of theta and phi, without computing them."""
    model = make_model(config, catalogue.scale)
    users = np.zeros((1, user_hidden), np.float32)
    return jax.eval_shape(functools.partial(init_trainable, config, model, catalogue, users), jax.random.key(0))


def make_optimiser(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """AdamW with clipping, warm-up and cosine decay over `steps` outer steps; only matrices of theta decay."""
    warmup = round(steps * config.warmup)
    if warmup:
        schedule = optax.warmup_cosine_decay_schedule(0.0, config.rate, warmup, max(steps, warmup + 1))
    else:
        schedule = optax.cosine_decay_schedule(config.rate, steps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=_decays),
    )


def _decays(trainable: Trainable) -> Trainable:
    return Trainable(
        theta=jax.tree.map(lambda leaf: leaf.ndim > 1, trainable.theta),
        phi=jax.tree.map(lambda leaf: False, trainable.phi),
    )
