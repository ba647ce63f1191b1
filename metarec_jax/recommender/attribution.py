"""Why this item: what each rating of a user's history, and each word of an item's text, adds to a score.

A rating's influence on a score is the derivative of the score by how much the rating counts in adapting (1; 0 would be
a history without it), through every inner step and through what else is made of the support: the infinitesimal
jackknife (Jaeckel 1972; Giordano et al. 2019, "A Swiss army infinitesimal jackknife", arXiv 1806.00550, equation 5).
It stands for what leaving the rating out and adapting anew would show, to first order, at the price of one backward
pass an item in place of one adaptation a rating. `benchmarks.explain` measures how well, and how much cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metarec_jax.core.over_users import over_users
from metarec_jax.core.types import Episodes, Prepared, Tables
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.learner.inputs import Features
from metarec_jax.meta.batch import planned
from metarec_jax.meta.user import Model, Task, Trainable, adapt_user, apply_user, context_of

if TYPE_CHECKING:
    from metarec_jax.config.encoder import EncoderConfig
    from metarec_jax.encoder import BertConfig, Encoder, Tokens
    from metarec_jax.recommender.recommender import Recommender, UserState

PER_CALL = 10
"""Items that are explained in one call: a single one, or so many at a time, are the shapes there are."""
SAYS_SOMETHING = 0.01
"""Share of the rating scale that a rating must add to a score to be named as a reason for it."""
NAMED = 2
"""Ratings that a sentence names, at most."""
CARRIES = 0.5
"""Share of the first reason's influence that a second must have to be named with it."""


class Influence(NamedTuple):
    """What a rating of the history adds to a score.

    Attributes:
        id: of the item that was rated.
        title: of it.
        rating: that it was given.
        influence: in units of the score; below 0 where the rating lowers it.
    """

    id: str
    title: str
    rating: float
    influence: float


class Word(NamedTuple):
    """What a word of an item's text adds to a score, in units of the score; to first order, and in no absolute sense
    (see `word_influences`)."""

    text: str
    influence: float


class Explanation(NamedTuple):
    """Why an item has its score for a user.

    Attributes:
        id: of the item.
        title: of it.
        score: as `Recommender.score` gives it.
        influences: of each rating that was adapted to, from what raises the score most to what lowers it most.
        because: those that a sentence names: none that does not raise the score by what can be told.
        sentence: the reason in words; "" where there is none to give.
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
    recommender: Recommender, state: UserState, items: Sequence[str | int], *, words: bool = False
) -> list[Explanation]:
    """Why each of the items has its score.

    Args:
        recommender: the model.
        state: of the user, from `Recommender.adapt`.
        items: titles, "id:" and an id, or ids as ints.
        words: whether also the words of the items' texts are weighed, which loads the encoder.

    Raises:
        MetarecError: an unknown or ambiguous item.
    """
    rows = np.array([recommender.find(item).row for item in items], np.int32)
    scores, influences = recommender.influences(state, rows)
    catalogue = recommender.catalogue
    named = catalogue.items
    support = state.support
    real = np.flatnonzero(support.mask > 0)
    weighed = recommender.word_influences(state, rows) if words else [None] * len(rows)
    found = []
    for row, score, influence, of_words in zip(rows.tolist(), scores, influences, weighed):
        order = real[np.argsort(-influence[real], kind="stable")]
        ranked = tuple(
            Influence(
                named.ids[support.item[i]],
                named.titles[support.item[i]],
                float(support.rating[i]),
                float(influence[i]),
            )
            for i in order
        )
        others = [influence for influence in ranked if influence.id != named.ids[row]]  # no item explains itself
        because = reasons(others, SAYS_SOMETHING * (catalogue.scale.high - catalogue.scale.low))
        sentence = in_words(because, click=catalogue.scale.kind == "click")
        found.append(Explanation(named.ids[row], named.titles[row], float(score), ranked, because, sentence, of_words))
    return found


def reasons(ranked: Sequence[Influence], least: float) -> tuple[Influence, ...]:
    """Those that can be named: that add at least `least`, and not much less than the first.

    Args:
        ranked: in order, greatest influence first.
        least: in units of the score; above 0.
    """
    first = ranked[0].influence if ranked else 0.0
    return tuple(i for i in ranked[:NAMED] if i.influence >= max(least, CARRIES * first))


def in_words(because: Sequence[Influence], *, click: bool = False) -> str:
    """The sentence that names `because`, or "" where there is nothing to name.

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


def score_and_influences(
    model: Model,
    trainable: Trainable,
    tables: Prepared,
    task: Any,
    rows: Int[Array, " items"],
    statistic: Float[Array, "catalogue columns"],
) -> tuple[Float[Array, "users items"], Float[Array, "users items support"]]:
    """Every user's score of some items, and its derivatives by the weights of the support's rows; 0 if padded.

    Args:
        model: the functions.
        trainable: theta and phi.
        tables: prepared.
        task: ``user`` and ``support`` of each user.
        rows: the items, as rows of the catalogue.
        statistic: of the whole catalogue.
    """
    # What the inner loop does is the same; what is differentiated is all of it, whatever training left out.
    model = model._replace(order="second", remat=False)
    features = Features(Fixed(tables.items[rows], None, "recommended"), statistic[rows])
    episodes = Episodes(task.user, task.support, query=None, weight=None)
    plan, products = planned(model, trainable.theta, tables, episodes)

    def one(task: Task) -> tuple[Array, Array]:
        episode = task.episode

        def scores(weight: Array) -> Array:
            support = episode.support._replace(mask=weight)
            context = context_of(tables, episode.user, support, None, trainable.theta, task.products)
            kept = adapt_user(model, trainable, context, plan).end
            return model.head.mean(apply_user(model, trainable, context, kept, features))

        score, back = jax.vjp(scores, episode.support.mask)
        by_weight = jax.vmap(lambda one_item: back(one_item)[0])(jnp.eye(len(score), dtype=score.dtype))
        return score, jnp.where(episode.support.mask > 0, by_weight, 0.0)

    return over_users(one, Task(episodes, products))


def score_slopes(
    model: Model,
    trainable: Trainable,
    tables: Prepared,
    task: Any,
    embeddings: Float[Array, "items hidden"],
    statistic: Float[Array, "items columns"],
) -> Float[Array, "users items hidden"]:
    """The derivative of every user's score of every item by the item's embedding, as the encoder gives it.

    Args:
        model, trainable: as for `score_and_influences`.
        tables: prepared, of the users.
        task: ``user``, ``support`` and ``kept`` of each user.
        embeddings: of the items, *not* prepared.
        statistic: of the items.
    """
    none = jnp.zeros((0, tables.users.shape[-1]), embeddings.dtype)

    def one(task: Any) -> Array:
        context = context_of(tables, task.user, task.support)

        def total(embeddings: Array) -> Array:
            prepared = model.prepare(trainable.theta, Tables(embeddings, none)).items
            features = Features(Fixed(prepared, None, "recommended"), statistic)
            return jnp.sum(model.head.mean(apply_user(model, trainable, context, task.kept, features)))

        return jax.grad(total)(embeddings)

    return over_users(one, task)


def word_influences(
    encoder: Encoder,
    config: EncoderConfig,
    texts: Sequence[str],
    slopes: Float[np.ndarray, "texts hidden"],
    pull_back: Callable[..., Array],
) -> list[tuple[Word, ...]]:
    """What each word of some texts adds to scores: gradient times input, over the encoder's input embeddings.

    The inner product of a token's input embedding with the score's derivative by it (Shrikumar et al. 2016,
    "Not just a black box", arXiv 1605.01713, section 2.2), summed over a word's tokens. It compares words of one text;
    it is first order, blind to what special tokens carry, and does not add up to the score. What the text says by way
    of beliefs about the item (see `metarec_jax.factors`) is no part of it.

    Args:
        encoder: that the embeddings are of.
        config: how its tokens become one vector.
        texts: of items.
        slopes: derivative of each score by the text's embedding.
        pull_back: `pulled_back`, compiled.
    """
    from metarec_jax.encoder import bucket, pack, words_of  # with its encoder, which an answer seldom needs

    found = []
    for text, slope in zip(texts, slopes):
        words = words_of(encoder.tokenizer, text, config.max_length)
        tokens = pack(
            [words.ids], bucket(len(words.ids), encoder.config.max_positions), pad=encoder.config.pad_token_id
        )
        of_tokens = jax.device_get(
            pull_back(encoder.params, jax.device_put(tokens), jax.device_put(slope[None]), encoder.config, config)
        )[0]
        found.append(tuple(Word(word, float(of_tokens[list(places)].sum())) for word, places in words.words))
    return found


def pulled_back(
    params: Any,
    tokens: Tokens,
    slope: Float[Array, "texts hidden"],
    architecture: BertConfig,
    config: EncoderConfig,
) -> Float[Array, "texts length"]:
    """Gradient times input of each token, of the embedding's inner product with `slope`."""
    from metarec_jax.encoder import bert

    def value(states: Array) -> Array:
        layers = architecture.num_layers
        last = bert.run_layers(params, architecture, states, jnp.asarray(tokens.mask), first=0, last=layers)
        vector = bert.pool(last, jnp.asarray(tokens.mask), pooling=config.pooling, normalise=config.normalise)
        return jnp.sum(vector * slope)

    states = bert.embed(params, architecture, tokens)
    return jnp.sum(states * jax.grad(value)(states), axis=-1) * tokens.mask
