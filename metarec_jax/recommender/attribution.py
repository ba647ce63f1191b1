"""Explain a score: the influence of each rating of a user's history, and of each word of an item's text.

A rating's influence on a score is the derivative of the score by the weight of the rating in adapting (1; 0 would be a
history without it), through every inner step and whatever else depends on the support: the infinitesimal jackknife
(Jaeckel 1972; Giordano et al. 2019, "A Swiss army infinitesimal jackknife", arXiv 1806.00550, equation 5). To first
order it is the change of the score when the rating is left out and the user adapted again, for one backward pass an
item in place of one adaptation a rating. `benchmarks.explain` measures its accuracy and its cost.
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
    from metarec_jax.encoder import BertConfig, Encoder, Tokens

MIN_SHARE = 0.01
"""Share of the rating scale that a rating must add to a score to be named as a reason for it."""
MAX_REASONS = 2
"""Ratings that a sentence names, at most."""
MIN_OF_FIRST = 0.5
"""Share of the first reason's influence that a second must have to be named with it."""


class Influence(NamedTuple):
    """What a rating of the history adds to a score.

    Attributes:
        id: of the item that was rated.
        title: of that item.
        rating: that it was given.
        influence: in units of the score; negative where the rating lowers it.
    """

    id: str
    title: str
    rating: float
    influence: float


class Word(NamedTuple):
    """What a word of an item's text adds to a score, in units of the score, to first order (see `word_influences`)."""

    text: str
    influence: float


class Explanation(NamedTuple):
    """Why an item has its score for a user.

    Attributes:
        id: of the item.
        title: of the item.
        score: as `Recommender.score` gives it.
        influences: of each rating that was adapted to, greatest first.
        because: those that the sentence names; empty where none raises the score enough.
        sentence: the reason in words; "" where there is none.
        words: of the item's text, in its order; None where they were not asked for.
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
        texts: has the encoder, which is used for words only.
        catalogue: the items.
        state: of the user.
        rows: int32 [n], of the items.
        words: whether to compute the influence of the words of the items' texts too.
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
    """The influences to name: those of at least `least` that are not much smaller than the first.

    Args:
        ranked: greatest influence first.
        least: in units of the score; above 0.
    """
    first = ranked[0].influence if ranked else 0.0
    return tuple(i for i in ranked[:MAX_REASONS] if i.influence >= max(least, MIN_OF_FIRST * first))


def in_words(because: Sequence[Influence], *, click: bool = False) -> str:
    """The sentence that names `because`, or "" where that is empty.

    Args:
        because: the ratings to name.
        click: whether ratings are clicks (1) and impressions without a click (0).

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
    """What each word of some texts adds to the scores of their items: gradient times input.

    The inner product of a token's input embedding with the gradient of the score by it (Shrikumar et al. 2016,
    "Not just a black box", arXiv 1605.01713, section 2.2), summed over a word's tokens. It compares words of one text;
    it is first order, ignores special tokens, and does not add up to the score. The text's effect on the factors of
    the item (see `metarec_jax.factors`) is not included.

    Args:
        encoder: that the embeddings are from.
        config: how its tokens become one vector.
        texts: of items.
        gradients: of each score by the text's embedding.
    """
    from metarec_jax.encoder import bucket, pack, words_of  # with its encoder, which an answer seldom needs

    found = []
    for text, gradient in zip(texts, gradients):
        words = words_of(encoder.tokenizer, text, config.max_length)
        tokens = pack(
            [words.ids], bucket(len(words.ids), encoder.config.max_positions), pad=encoder.config.pad_token_id
        )
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
    architecture: BertConfig,
    config: EncoderConfig,
) -> Float[Array, "texts length"]:
    """Gradient times input of each token, for the inner product of the text's embedding with `gradients`.

    Args:
        params: of the encoder.
        tokens: of the texts.
        gradients: of the scores by the embeddings.
        architecture: of the encoder.
        config: how its tokens become one vector.
    """
    from metarec_jax.encoder import bert

    def value(states: Array) -> Array:
        layers = architecture.num_layers
        last = bert.run_layers(params, architecture, states, jnp.asarray(tokens.mask), first=0, last=layers)
        vector = bert.pool(last, jnp.asarray(tokens.mask), pooling=config.pooling, normalise=True)
        return jnp.sum(vector * gradients)

    states = bert.embed(params, architecture, tokens)
    return jnp.sum(states * jax.grad(value)(states), axis=-1) * tokens.mask
