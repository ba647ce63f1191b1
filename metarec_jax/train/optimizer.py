"""The outer optimizer: AdamW with a schedule, and separate rates for the encoder."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.core.params import combine, path_names, split
from metarec_jax.core.types import Params
from metarec_jax.learner.inputs import learned
from metarec_jax.meta.model import Trainable

CLIP = 1.0
"""Norm to which outer gradients are clipped."""
WARMUP = 0.1
"""Share of the steps in which the learning rate rises from 0."""


def make_optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """Make AdamW with clipping, warm-up and cosine decay; weight decay is for trained matrices of theta and encoder.

    Parameters of the encoder that are not trained have no optimizer state.

    Args:
        config: config of the run.
        steps: number of outer steps of the whole training.

    Returns:
        A transform of gradients by `Trainable`.
    """
    train = config.train
    adam = optax.adamw(schedule(train.rate, steps), weight_decay=train.weight_decay, mask=_decays)
    clip = _of_trained(optax.clip_by_global_norm(CLIP))
    if config.encoder.train == "no":
        return optax.chain(clip, adam)

    def labels(trainable: Trainable) -> Trainable:
        every = jax.tree.map(lambda leaf: "trained", trainable)
        rates = relative_rates(config.encoder, trainable.encoder, train.rate)
        return every._replace(encoder=jax.tree.map(lambda rate: "trained" if rate else "still", rates))

    def slower(updates: Any, _: Any) -> Any:
        rates = relative_rates(config.encoder, updates.encoder, train.rate)
        return updates._replace(encoder=jax.tree.map(lambda update, rate: update * rate, updates.encoder, rates))

    return optax.chain(
        clip,
        optax.partition({"trained": adam, "still": optax.set_to_zero()}, labels),
        optax.stateless(slower),
    )


def _of_trained(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply a transform to gradients that are zero for parameters of theta that the outer loop does not train."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        trained, constant = learned(updates.theta)
        theta = combine(trained, jax.tree.map(jnp.zeros_like, constant))
        return transform.update(updates._replace(theta=theta), state, params)

    return optax.GradientTransformation(transform.init, update)


def schedule(rate: float, steps: int) -> optax.Schedule:
    """Make the schedule of the learning rate: a linear warm-up from 0, then a cosine decay to 0.

    Args:
        rate: greatest learning rate.
        steps: number of steps; the share `WARMUP` of them is the warm-up.

    Returns:
        Step -> learning rate.
    """
    rising = round(steps * WARMUP)
    if rising:
        return optax.warmup_cosine_decay_schedule(0.0, rate, rising, max(steps, rising + 1))
    return optax.cosine_decay_schedule(rate, steps)


def relative_rates(config: EncoderConfig, encoder: Params, base: float) -> Params:
    """Compute the learning rate of each parameter of the encoder relative to that of the optimizer.

    Args:
        config: options of the encoder.
        encoder: its parameters.
        base: learning rate of the optimizer.

    Returns:
        A tree like `encoder` of numbers; 0 for parameters that are not trained.
    """
    rates = [_rate(name, config) / base for name in path_names(encoder)]
    return jax.tree.structure(encoder).unflatten(rates)


def by_rate(params: Params, rates: Params) -> tuple[Params, Params]:
    """Split parameters by whether they are trained; `metarec_jax.core.params.combine` is the inverse.

    Args:
        params: the parameters.
        rates: a tree of the same structure; 0 for parameters that are not trained.

    Returns:
        Trained parameters, and the others, each with None for the rest.
    """
    return split(params, [rate > 0 for rate in jax.tree.leaves(rates)])


def _rate(name: str, config: EncoderConfig) -> float:
    if config.train == "lora":
        trained = name.rsplit("/", 1)[-1].startswith("lora_")
    else:
        layer = re.match(r"layer_(\d+)/", name)
        frozen = layer is not None and int(layer[1]) < config.frozen_layers
        trained = not (frozen or (name.startswith("embeddings/") and config.frozen_layers))
        trained = trained and not name.startswith("pooler/")  # no embedding depends on it
    return config.rate if trained else 0.0


def _decays(trainable: Trainable) -> Trainable:
    trained, constant = learned(trainable.theta)
    matrices = jax.tree.map(lambda leaf: leaf.ndim > 1, trained)
    return Trainable(
        theta=combine(matrices, jax.tree.map(lambda leaf: False, constant)),
        phi=jax.tree.map(lambda leaf: False, trainable.phi),
        encoder=jax.tree.map(lambda leaf: leaf.ndim > 1, trainable.encoder),
    )
