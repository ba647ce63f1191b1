"""Whole words hidden at random, anew in every step.

Of each text a share of the tokens is hidden, by whole words ("whole word masking", github.com/google-research/bert, the
release of May 2019). Of the hidden tokens 80 % become the mask, 10 % a random token, and 10 % stay what they are
(Devlin et al. 2019, arXiv 1810.04805, section 3.1). Special tokens and padding are never hidden, nor put anywhere.
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
"""Shares of the hidden tokens that become the mask, and a random token."""


class Vocabulary(NamedTuple):
    """What stands in for a hidden token.

    Attributes:
        mask: id of the mask.
        ordinary: int32 [n], ids of all tokens that are not special.
    """

    mask: int
    ordinary: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Of a tokenizer.

        Raises:
            MetarecError: it has no mask, so its encoder was never trained with hidden words.
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
    """Texts with hidden words, and what was hidden.

    Attributes:
        tokens: what the encoder reads.
        position: int32 [most], where hidden tokens are, counted through all texts.
        label: int32 [most], what they were.
        weight: float32 [most], 0 for slots that are not needed.
    """

    tokens: Tokens
    position: Array
    label: Array
    weight: Array


def hide(
    key: PRNGKeyArray, passages: Passages, vocabulary: Vocabulary, *, share: float, most: int | None = None
) -> Hidden:
    """Hides words of each text.

    Args:
        key: draws everything: equal keys hide the same.
        passages: the texts.
        vocabulary: what stands in for hidden tokens.
        share: share of the tokens of a text; the expected share is exactly this.
        most: hidden tokens of all texts together, at most; `capacity` where None. Where more were drawn, texts at the
            end are left as they are.
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
    """Which tokens are hidden: whole words, in random order, until the share is reached.

    The word that would go beyond it is hidden with the chance that makes the expected share exact.

    Args:
        key: key of the draw.
        word: number of the word of each token; -1 where nothing may be hidden.
        share: share of the tokens that may be hidden.
    """
    texts, length = word.shape
    may = word >= 0
    same = word[:, :, None] == word[:, None, :]
    first = jnp.argmax(same, axis=2)  # of a token's word: what is drawn there is drawn for the word
    order, luck = jnp.take_along_axis(jax.random.uniform(key, (2, texts, length)), first[None], axis=2)
    before = ((order[:, None, :] < order[:, :, None]) & may[:, None, :]).sum(axis=2)
    own = same.sum(axis=2)
    return may & (before + luck * own < share * may.sum(axis=1, keepdims=True))


def capacity(texts: int, length: int, share: float) -> int:
    """Slots for the hidden tokens of so many texts: what there are on average if none is padded, and some to spare."""
    enough = share * texts * length + 4 * texts**0.5 + 8
    return min(-(-int(enough) // 8) * 8, texts * length)
