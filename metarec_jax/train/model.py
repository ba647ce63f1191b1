"""Functions and initial parameters of the model that a config describes.

The recommender uses this module, so it does not import modules of data, encoders or the training loop.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.updater import UpdaterConfig, rule_of
from metarec_jax.core.params import partition
from metarec_jax.core.scale import Scale
from metarec_jax.core.types import Params
from metarec_jax.factors.correction import table_rows
from metarec_jax.factors.item_factors import FACTORS
from metarec_jax.learner.contract import make_head, make_learner
from metarec_jax.learner.prior import Believed
from metarec_jax.learner.ranking import ranking_loss
from metarec_jax.meta.model import UNROLL, Model, Trainable
from metarec_jax.meta.updaters import make_updater
from metarec_jax.train.catalogue import Catalogue


def make_model(config: Config, scale: Scale) -> Model:
    """Construct the functions of the model that a config describes.

    Equal options return the identical functions from a cache, so that JAX reuses compiled code, e.g. for another seed.

    Args:
        config: options of the model.
        scale: scale of the ratings in the data.

    Returns:
        The functions, which operate on the standard scale.
    """
    return _model(_learner(config), config.updater, scale.standardised()._replace(liked=None))


def _learner(config: Config) -> LearnerConfig:
    """Return the learner's options, without a gate if the updater solves for the outputs in closed form."""
    return dataclasses.replace(config.learner, gate=0.0) if rule_of(config.updater).whole_outputs else config.learner


@functools.lru_cache(maxsize=32)
def _model(learner: LearnerConfig, updater: UpdaterConfig, scale: Scale) -> Model:
    head = make_head(learner.head, levels=scale.levels, low=scale.low, high=scale.high)
    made = make_learner(learner, head)
    return Model(
        prepare=made.prepare,
        apply=made.apply,
        summarise=made.summarise,
        taste=made.taste,
        head=head,
        query_loss=None if learner.loss in ("auto", "likelihood") else ranking_loss(learner.loss, head, scale.low),
        updater=make_updater(updater, head.curvature),
        adapted=updater.adapted,
        steps=updater.steps,
        order=updater.order,
        unroll=max(min(updater.steps, UNROLL), 1),
        floats_per_row=made.floats_per_row,
    )


def init_trainable(
    config: Config,
    model: Model,
    catalogue: Catalogue,
    user_table: np.ndarray,
    key: jax.Array,
    encoder: Params = None,
) -> Trainable:
    """Initialise the trainable parameters.

    Args:
        config: options of the model.
        model: from `make_model`.
        catalogue: items; the items that training users rated determine the input standardisation.
        user_table: float32 [users, hidden], embeddings of training users.
        key: typed PRNG key.
        encoder: parameters of the encoder, for a config that trains it; None leaves it out.

    Returns:
        The parameters.
    """
    total, count = catalogue.statistics.total, catalogue.statistics.count
    seen = count > 0 if count.any() else np.ones(len(count), bool)
    known = catalogue.beliefs
    mean = float(total.sum() / count.sum()) if count.any() else catalogue.scale.middle
    theta = make_learner(_learner(config), model.head).init(
        key,
        item_embeddings=catalogue.embeddings[seen],
        user_embeddings=user_table,
        mean_rating=mean,
        believed=None if known is None else Believed(known.noise, known.tastes, known.sharpness),
    )
    adapted, _ = partition(theta, model.adapted)
    if config.encoder.train == "no":
        encoder = None
    elif config.encoder.train == "lora" and encoder is not None:
        from metarec_jax.encoder.lora import LORA_LAYERS, add_lora

        lora_key = jax.random.fold_in(key, 2)
        encoder = add_lora(encoder, LORA_LAYERS, rank=config.encoder.lora_rank, key=lora_key)
    factors = None
    if config.trains_factors and known is not None:
        factors = jnp.zeros((table_rows(len(count)), known.table.shape[1] - FACTORS), jnp.float32)
    return Trainable(theta, model.updater.init(adapted), encoder, factors)


def abstract_trainable(config: Config, catalogue: Catalogue, user_hidden: int, encoder: Params = None) -> Trainable:
    """Return the shapes and dtypes of the trainable parameters, without computing the parameters.

    Args:
        config: options of the model.
        catalogue: the items.
        user_hidden: width of users' embeddings.
        encoder: as for `init_trainable`.

    Returns:
        A tree of ShapeDtypeStructs.
    """
    model = make_model(config, catalogue.scale)
    users = np.zeros((1, user_hidden), np.float32)
    init = functools.partial(init_trainable, config, model, catalogue, users)
    return jax.eval_shape(lambda key, encoder: init(key, encoder=encoder), jax.random.key(0), encoder)
