"""Attribution of a score to the ratings of a user's history, and to the words of an item's text.

The influence of a rating on a score is the derivative of the score by the weight of the rating in adapting (weight 1;
weight 0 is a history without it), through every inner step and all other functions of the support. This is the
infinitesimal jackknife (Jaeckel 1972; Giordano et al. 2019, "A Swiss army infinitesimal jackknife", arXiv 1806.00550,
equation 5). To first order it is the change of the score when the rating is left out and the user is adapted again, but
it costs one backward pass per item instead of one adaptation per rating. `benchmarks.explain` measures accuracy and
cost.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.recommender.executor import Executor
from metarec_jax.recommender.text_encoder import TextEncoder
from metarec_jax.recommender.user_state import UserState
from metarec_jax.train.catalogue import Catalogue

if TYPE_CHECKING:
    from metarec_jax.config.encoder import EncoderConfig
    from metarec_jax.encoder import Encoder, ModelConfig, Tokens

MIN_SHARE = 0.01
"""Least influence of a rating that is named as a reason, as a share of the rating scale."""
MAX_REASONS = 2
"""Greatest number of ratings that a sentence names."""
MIN_OF_FIRST = 0.5
"""Least influence of a further reason, as a share of the first reason's influence."""


class Influence(NamedTuple):
    """Contribution of a rating of the history to a score.

    Attributes:
        id: id of the item that was rated.
        title: title of that item.
        rating: the rating.
        influence: contribution in units of the score; negative where the rating lowers it.
    """

    id: str
    title: str
    rating: float
    influence: float


class Word(NamedTuple):
    """First-order contribution of a word of an item's text to a score, in units of the score."""

    text: str
    influence: float


class Explanation(NamedTuple):
    """Explanation of an item's score for a user.

    Attributes:
        id: id of the item.
        title: title of the item.
        score: score from `Recommender.score`.
        influences: influence of each rating that was adapted to, greatest first.
        because: influences that the sentence names; empty where none raises the score enough.
        sentence: the reasons as a sentence; "" where there are none.
        words: words of the item's text, in order; None where they were not requested.
    """

    id: str
    title: str
    score: float
    influences: tuple[Influence, ...]
    because: tuple[Influence, ...]
    sentence: str
    words: tuple[Word, ...] | None = None


def explain(
    executor: Executor,
    texts: TextEncoder,
    catalogue: Catalogue,
    state: UserState,
    rows: np.ndarray,
    *,
    words: bool = False,
) -> list[Explanation]:
    """Explain a user's scores of some items.

    Args:
        executor: computes scores and derivatives.
        texts: provides the encoder, which is used for words only.
        catalogue: the items.
        state: state of the user.
        rows: int32 [n], rows of the items.
        words: whether to compute the influence of the words of the items' texts.

    Returns:
        An explanation for each item.
    """
    scores, influences = executor.influences(state, rows)
    items, support = catalogue.items, state.support
    real = np.flatnonzero(support.mask > 0)
    of_words: Sequence[tuple[Word, ...] | None] = [None] * len(rows)
    if words:
        gradients = executor.embedding_gradients(state, rows)
        of_words = word_influences(texts.encoder, texts.config, [items.texts[row] for row in rows], gradients)
    scale = catalogue.scale
    least = MIN_SHARE * (scale.high - scale.low)
    found = []
    for row, score, influence, of_text in zip(rows.tolist(), scores, influences, of_words):
        ranked = tuple(
            Influence(
                items.ids[support.item[i]],
                items.titles[support.item[i]],
                scale.decimal(support.rating[i]),
                float(influence[i]),
            )
            for i in real[np.argsort(-influence[real], kind="stable")]
        )
        because = reasons([one for one in ranked if one.id != items.ids[row]], least)  # no item explains itself
        sentence = in_words(because, click=scale.kind == "click")
        found.append(Explanation(items.ids[row], items.titles[row], float(score), ranked, because, sentence, of_text))
    return found


def reasons(ranked: Sequence[Influence], least: float) -> tuple[Influence, ...]:
    """Choose the influences to name: at least `least`, and not much smaller than the greatest.

    Args:
        ranked: influences, greatest first.
        least: least influence, in units of the score; above 0.

    Returns:
        The influences, greatest first.
    """
    first = ranked[0].influence if ranked else 0.0
    return tuple(i for i in ranked[:MAX_REASONS] if i.influence >= max(least, MIN_OF_FIRST * first))


def in_words(because: Sequence[Influence], *, click: bool = False) -> str:
    """Make the sentence that names the reasons.

    Args:
        because: the ratings to name.
        click: whether ratings are clicks (1) and impressions without a click (0).

    Returns:
        The sentence; "" where `because` is empty.

    >>> in_words([Influence("1", "Alien (1979)", 5.0, 0.2), Influence("2", "Heat (1995)", 2.5, 0.1)])
    'because you rated Alien (1979) 5 and Heat (1995) 2.5'
    >>> in_words([Influence("1", "A lamp", 1.0, 0.2), Influence("2", "A chair", 0.0, 0.1)], click=True)
    'because you clicked on A lamp and passed over A chair'
    """
    if not because:
        return ""
    if not click:
        return "because you rated " + " and ".join(f"{i.title} {i.rating:g}" for i in because)
    clicked = [i.title for i in because if i.rating > 0]
    passed = [i.title for i in because if i.rating <= 0]
    parts = [("clicked on ", clicked), ("passed over ", passed)]
    return "because you " + " and ".join(verb + " and ".join(titles) for verb, titles in parts if titles)


def word_influences(
    encoder: Encoder, config: EncoderConfig, texts: Sequence[str], gradients: Float[np.ndarray, "texts hidden"]
) -> list[tuple[Word, ...]]:
    """Compute the influence of each word of some texts on the scores of their items: gradient times input.

    The influence is the inner product of a token's input embedding with the gradient of the score by it (Shrikumar et
    al. 2016, "Not just a black box", arXiv 1605.01713, section 2.2), summed over a word's tokens. It is a first-order
    measure to compare words of one text: it ignores special tokens, and does not add up to the score. The text's effect
    on the factors of the item (see `metarec_jax.factors`) is not included.

    Args:
        encoder: encoder of the embeddings.
        config: pooling and normalisation.
        texts: texts of items.
        gradients: gradients of each score by the text's embedding.

    Returns:
        The words of each text.
    """
    from metarec_jax.encoder import bucket, pack, prompt_length, words_of  # slow to import, and rarely needed

    skip = prompt_length(encoder.tokenizer, config.document_prompt, config.max_length)
    skip = 0 if config.pool_prompt == "yes" else skip
    found = []
    for text, gradient in zip(texts, gradients):
        words = words_of(encoder.tokenizer, text, config.max_length, prompt=config.document_prompt)
        length = bucket(len(words.ids), encoder.config.max_positions)
        tokens = pack([words.ids], length, pad=encoder.config.pad_token_id, skip=[skip])
        of_tokens = jax.device_get(
            gradient_times_input(
                encoder.params, jax.device_put(tokens), jax.device_put(gradient[None]), encoder.config, config
            )
        )[0]
        found.append(tuple(Word(word, float(of_tokens[list(places)].sum())) for word, places in words.words))
    return found


@functools.partial(jax.jit, static_argnums=(3, 4))
def gradient_times_input(
    params: Any,
    tokens: Tokens,
    gradients: Float[Array, "texts hidden"],
    architecture: ModelConfig,
    config: EncoderConfig,
) -> Float[Array, "texts length"]:
    """Compute gradient times input of each token, for the inner product of the text's embedding with `gradients`.

    Args:
        params: parameters of the encoder.
        tokens: tokens of the texts.
        gradients: gradients of the scores by the embeddings.
        architecture: architecture of the encoder.
        config: pooling and normalisation.

    Returns:
        Influence of each token; 0 for padding.
    """
    from metarec_jax.encoder import embed, run_layers, text_vectors

    def value(states: Array) -> Array:
        layers = architecture.num_layers
        last = run_layers(params, architecture, states, jnp.asarray(tokens.mask), first=0, last=layers)
        how = {"pooling": config.pooling, "normalise": True, "dims": config.dims}
        vector = text_vectors(params, architecture, last, jnp.asarray(tokens.mask), tokens.skip, **how)
        return jnp.sum(vector * gradients)

    states = embed(params, architecture, tokens)
    return jnp.sum(states * jax.grad(value)(states), axis=-1) * tokens.mask
