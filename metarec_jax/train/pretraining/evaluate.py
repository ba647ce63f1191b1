"""Evaluation of an encoder on held-out data: perplexity of hidden words, and the contrastive loss of likes.

The same words are hidden in every evaluation, so that differences are due to the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from metarec_jax.train.pretraining.masking import Hidden, Vocabulary, hide
from metarec_jax.train.pretraining.mlm import Sum
from metarec_jax.train.pretraining.text_batches import PassageSource

DRAWS = 2
"""Number of draws of hidden words for each text, since held-out texts are few and some are short."""

Judge = Callable[[Any], dict[str, float]]
"""weights -> metrics by name."""


def hide_once(
    source: PassageSource, vocabulary: Vocabulary, share: float, key: jax.Array, put: Callable[[Any], Any]
) -> list[Hidden]:
    """Hide words in all passages of a source, with `DRAWS` draws.

    Args:
        source: texts in their order.
        vocabulary: replacements of hidden words.
        share: share of the tokens to hide.
        key: key of the draw.
        put: puts a batch on the devices.

    Returns:
        Batches of texts with hidden words.
    """
    compiled = jax.jit(lambda key, passages: hide(key, passages, vocabulary, share=share))
    batches = [put(source[i]) for i in range(source.batches)]
    return [
        compiled(jax.random.fold_in(key, draw * len(batches) + i), batch)
        for draw in range(DRAWS)
        for i, batch in enumerate(batches)
    ]


def judge_with(
    masked: Mapping[str, Sequence[Hidden]],
    mlm_loss: Callable[[Any, Hidden], Sum],
    liked: Mapping[str, Sequence[Any]],
    liked_loss: Callable[[Any, Any], Sum],
) -> Judge:
    """Make the evaluation: "perplexity_NAME" of hidden words and "contrastive_NAME" of likes, for every name.

    Args:
        masked: batches of texts with hidden words.
        mlm_loss: (weights, such a batch) -> loss.
        liked: batches of likes.
        liked_loss: (weights, such a batch) -> loss.

    Returns:
        weights -> metrics by name.
    """

    def judge(weights: Any) -> dict[str, float]:
        words = {n: _mean([mlm_loss(weights, batch) for batch in batches]) for n, batches in masked.items()}
        likes = {n: _mean([liked_loss(weights, batch) for batch in batches]) for n, batches in liked.items()}
        return {f"perplexity_{n}": perplexity(loss) for n, loss in words.items()} | {
            f"contrastive_{n}": loss for n, loss in likes.items()
        }

    return judge


def _mean(losses: Sequence[Sum]) -> float:
    sums = jax.device_get(list(losses))
    return float(sum(s.total for s in sums)) / max(float(sum(s.weight for s in sums)), 1.0)


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats; infinity where it overflows.

    >>> perplexity(0.0)
    1.0
    """
    return math.exp(min(loss, 700.0))
