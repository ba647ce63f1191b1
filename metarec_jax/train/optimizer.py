"""The outer optimiser: AdamW with a schedule, and lower rates for the encoder."""

from __future__ import annotations

import re
from typing import Any

import jax
import optax

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Params
from metarec_jax.meta.user import Trainable


def make_optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """Make AdamW with clipping, warm-up and cosine decay; weights of only the matrices of theta and encoder decay.

    Rates of the encoder's layers decrease from the last to the first (Howard & Ruder 2018, arXiv 1801.06146, section
    3.2, "discriminative fine-tuning"). Parameters of the encoder that are not trained have no optimiser state.

    Args:
        config: config of the run.
        steps: outer steps of the whole training.

    Returns:
        The optimiser.
    """
    train = config.train
    adam = optax.adamw(schedule(train.rate, train.warmup, steps), weight_decay=train.weight_decay, mask=_decays)
    clip = optax.clip_by_global_norm(train.clip)
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


def schedule(rate: float, warmup: float, steps: int) -> optax.Schedule:
    """Make a rate schedule with linear warm-up and cosine decay to 0.

    Args:
        rate: greatest rate.
        warmup: share of the steps with rising rate.
        steps: number of steps.

    Returns:
        step -> rate.
    """
    rising = round(steps * warmup)
    if rising:
        return optax.warmup_cosine_decay_schedule(0.0, rate, rising, max(steps, rising + 1))
    return optax.cosine_decay_schedule(rate, steps)


def relative_rates(config: EncoderConfig, encoder: Params, base: float) -> Params:
    """Rates of the encoder's parameters, relative to the rate of the optimiser.

    Args:
        config: options of the encoder.
        encoder: parameters of the encoder.
        base: rate of the optimiser.

    Returns:
        A tree like `encoder` of rate / `base`; 0 for parameters that are not trained.
    """
    layers = 1 + max(depth for name in path_names(encoder) if (depth := _depth(name)) is not None)
    rates = [_rate(name, layers, config) / base for name in path_names(encoder)]
    return jax.tree.structure(encoder).unflatten(rates)


def by_rate(params: Params, rates: Params) -> tuple[Params, Params]:
    """Split parameters by whether they are trained; `metarec_jax.core.params.combine` is the inverse.

    Args:
        params: the parameters.
        rates: a tree of the same structure; 0 for parameters that are not trained.

    Returns:
        Trained parameters, and the others, each with None for the rest.
    """
    moving = jax.tree.map(lambda leaf, rate: leaf if rate else None, params, rates)
    return moving, jax.tree.map(lambda leaf, rate: None if rate else leaf, params, rates)


def _rate(name: str, layers: int, config: EncoderConfig) -> float:
    depth = _depth(name)
    above = layers - 1 - depth if depth is not None else layers if name.startswith("embeddings/") else 0
    if config.train == "lora":
        trained = name.rsplit("/", 1)[-1].startswith("lora_")
    else:
        frozen = depth is not None and depth < config.frozen_layers
        trained = not (frozen or (name.startswith("embeddings/") and config.frozen_layers))
        trained = trained and not name.startswith("pooler/")  # embeddings do not depend on it
    return config.rate * config.rate_decay**above if trained else 0.0


def _depth(name: str) -> int | None:
    found = re.match(r"layer_(\d+)/", name)
    return int(found[1]) if found else None


def _decays(trainable: Trainable) -> Trainable:
    return Trainable(
        theta=jax.tree.map(lambda leaf: leaf.ndim > 1, trainable.theta),
        phi=jax.tree.map(lambda leaf: False, trainable.phi),
        encoder=jax.tree.map(lambda leaf: leaf.ndim > 1, trainable.encoder),
    )
