"""Random hiding of whole words, drawn anew in every step.

In each text a share of the tokens is hidden, by whole words ("whole word masking", github.com/google-research/bert, the
release of May 2019). 80 % of the hidden tokens are replaced by the mask, 10 % by a random token, and 10 % are kept
(Devlin et al. 2019, arXiv 1810.04805, section 3.1). Special tokens and padding are never hidden, nor used as random
tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import Tokenizer, Tokens
from metarec_jax.train.pretraining.text_batches import Passages

MASKED, RANDOM = 0.8, 0.1
"""Shares of the hidden tokens that are replaced by the mask, and by a random token."""


class Vocabulary(NamedTuple):
    """Replacements of hidden tokens.

    Attributes:
        mask: id of the mask.
        ordinary: int32 [n], ids of all tokens that are not special.
    """

    mask: int
    ordinary: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Read the vocabulary of a tokenizer.

        Raises:
            MetarecError: the tokenizer has no mask token.
        """
        backend = tokenizer.backend
        mask = tokenizer.mask_token_id
        if mask is None:
            raise MetarecError(
                "the encoder's tokenizer has no mask token ([MASK] or <mask>), so words cannot be hidden: "
                "use --objective contrastive, or another encoder"
            )
        special = {id for id, token in backend.get_added_tokens_decoder().items() if token.special} | {mask}
        every = backend.get_vocab(with_added_tokens=True).values()
        return cls(mask, np.array(sorted(set(every) - special), np.int32))


class Hidden(NamedTuple):
    """Texts with hidden words.

    Attributes:
        tokens: input of the encoder.
        position: int32 [most], positions of hidden tokens in the flattened texts.
        label: int32 [most], original ids of the hidden tokens.
        weight: float32 [most], 0 for unused slots.
    """

    tokens: Tokens
    position: Array
    label: Array
    weight: Array


def hide(
    key: PRNGKeyArray, passages: Passages, vocabulary: Vocabulary, *, share: float, most: int | None = None
) -> Hidden:
    """Hide words of each text.

    Args:
        key: key of all draws; equal keys hide the same words.
        passages: the texts.
        vocabulary: replacements of hidden tokens.
        share: expected share of hidden tokens of a text.
        most: greatest number of hidden tokens of all texts together; None takes `capacity`. If more are drawn, the last
            texts are left unchanged.

    Returns:
        The texts with hidden words.
    """
    texts, length = passages.word.shape
    most = capacity(texts, length, share) if most is None else most
    draw, stand_in, which = jax.random.split(key, 3)
    hidden = choose(draw, jnp.asarray(passages.word), share)
    hidden = hidden & (jnp.cumsum(hidden.sum(axis=1)) <= most)[:, None]
    (position,) = jnp.nonzero(hidden.ravel(), size=most, fill_value=0)
    ids = jnp.asarray(passages.tokens.ids)
    fate = jax.random.uniform(stand_in, ids.shape)
    other = jnp.asarray(vocabulary.ordinary)[jax.random.randint(which, ids.shape, 0, len(vocabulary.ordinary))]
    replaced = jnp.where(fate < MASKED, vocabulary.mask, jnp.where(fate < MASKED + RANDOM, other, ids))
    return Hidden(
        tokens=passages.tokens._replace(ids=jnp.where(hidden, replaced, ids)),
        position=position.astype(jnp.int32),
        label=ids.ravel()[position],
        weight=(jnp.arange(most) < hidden.sum()).astype(jnp.float32),
    )


def choose(key: PRNGKeyArray, word: Int[Array, "texts length"], share: float) -> Bool[Array, "texts length"]:
    """Choose the tokens to hide: whole words, in random order, until the share is reached.

    The word that would exceed the share is hidden with the probability that makes the expected share exact.

    Args:
        key: key of the draw.
        word: number of the word of each token; -1 for tokens that must not be hidden.
        share: share of the tokens that may be hidden.

    Returns:
        True for hidden tokens.
    """
    texts, length = word.shape
    may = word >= 0
    same = word[:, :, None] == word[:, None, :]
    first = jnp.argmax(same, axis=2)  # first token of each token's word, whose draw counts for the word
    order, luck = jnp.take_along_axis(jax.random.uniform(key, (2, texts, length)), first[None], axis=2)
    before = ((order[:, None, :] < order[:, :, None]) & may[:, None, :]).sum(axis=2)
    own = same.sum(axis=2)
    return may & (before + luck * own < share * may.sum(axis=1, keepdims=True))


def capacity(texts: int, length: int, share: float) -> int:
    """Number of slots for hidden tokens: their expected number without padding, plus a margin.

    Args:
        texts: number of texts.
        length: padded tokens of a text.
        share: expected share of hidden tokens.

    Returns:
        The number.
    """
    enough = share * texts * length + 4 * texts**0.5 + 8
    return min(-(-int(enough) // 8) * 8, texts * length)
