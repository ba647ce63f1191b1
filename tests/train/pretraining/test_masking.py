"""Which words are hidden, what stands in for them, and that it is another draw in every step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import Tokenizer, Tokens
from metarec_jax.encoder.tokenizer import tiny_wordpiece
from metarec_jax.train.pretraining.masking import Vocabulary, capacity, choose, hide
from metarec_jax.train.pretraining.text_batches import Passages

SHARE = 0.15
VOCABULARY = Vocabulary.of(tiny_wordpiece())
hidden_by = jax.jit(lambda key, passages: hide(key, passages, VOCABULARY, share=SHARE))


def invented(texts: int = 400, length: int = 40) -> Passages:
    """Texts of words of one to five tokens, with special tokens at both ends and padding of many lengths."""
    rng = np.random.default_rng(0)
    word = np.full((texts, length), -1, np.int32)
    mask = np.zeros((texts, length), np.float32)
    for row in range(texts):
        real = rng.integers(12, length + 1)
        mask[row, :real] = 1
        own = np.repeat(np.arange(length), rng.integers(1, 6, length))[: real - 2]
        word[row, 1 : real - 1] = own
    ids = rng.choice(VOCABULARY.ordinary, (texts, length)).astype(np.int32)
    ids = np.where(word >= 0, ids, np.where(mask > 0, 2, 0)).astype(np.int32)
    return Passages(Tokens(ids, mask, np.zeros_like(ids)), word)


def was_hidden(passages: Passages, hidden) -> np.ndarray:
    flat = np.zeros(passages.word.size, bool)
    flat[np.asarray(hidden.position)[np.asarray(hidden.weight) > 0]] = True
    return flat.reshape(passages.word.shape)


def within(count: int, total: int, share: float) -> bool:
    """Whether so many of `total` are what chance makes of `share`: six standard deviations of a binomial."""
    return abs(count - share * total) < 6 * np.sqrt(total * share * (1 - share))


def test_whole_words_are_hidden_and_nothing_special():
    passages = invented()
    for step in range(5):
        hidden = hidden_by(jax.random.key(step), passages)
        which = was_hidden(passages, hidden)
        assert which.any(axis=1).mean() > 0.8
        assert not which[passages.word < 0].any()
        for row, own in zip(which, passages.word):
            assert not set(own[row]) & set(own[~row]), "a word is hidden whole or not at all"
        untouched = np.asarray(hidden.tokens.ids)[~which]
        np.testing.assert_array_equal(untouched, passages.tokens.ids[~which])
        np.testing.assert_array_equal(hidden.tokens.mask, passages.tokens.mask)
        labels = np.asarray(hidden.label)[np.asarray(hidden.weight) > 0]
        np.testing.assert_array_equal(labels, passages.tokens.ids[which])


def test_shares_are_those_of_bert():
    passages = invented()
    may = masked = kept = total = 0
    changed = []
    for step in range(20):
        hidden = hidden_by(jax.random.key(step), passages)
        which = was_hidden(passages, hidden)
        got, before = np.asarray(hidden.tokens.ids)[which], passages.tokens.ids[which]
        may += (passages.word >= 0).sum()
        total += which.sum()
        masked += (got == VOCABULARY.mask).sum()
        other = (got != VOCABULARY.mask) & (got != before)
        kept += (got == before).sum()
        changed.append(got[other])
    # Words are drawn, and texts are of few words: tokens of a text are no independent draws, but never more varied.
    assert within(total, may, SHARE)
    assert within(masked, total, 0.8)
    ordinary = len(VOCABULARY.ordinary)
    assert within(kept, total, 0.1 + 0.1 / ordinary)
    random = np.concatenate(changed)
    assert within(len(random), total, 0.1 * (1 - 1 / ordinary))
    assert set(random) <= set(VOCABULARY.ordinary)
    assert len(set(random)) > 0.5 * min(ordinary, len(random)), "random tokens are of the whole vocabulary"


def test_another_step_hides_other_words_and_the_same_step_the_same():
    passages = invented(40)
    key = jax.random.key(3)
    first, again, other = (
        was_hidden(passages, hidden_by(jax.random.fold_in(key, step), passages)) for step in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).mean() > 0.5


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_the_expected_share_is_exact_for_texts_of_few_words(share):
    word = jnp.array([[-1, 0, 0, 0, 0, 0, 1, 1, 2, -1, -1]], jnp.int32)
    draws = jax.vmap(lambda key: choose(key, word, share))(jax.random.split(jax.random.key(0), 20000))
    count = np.asarray(draws).sum(axis=(1, 2))
    assert abs(count.mean() - share * 8) < 5 * count.std() / np.sqrt(len(count))


def test_more_than_there_are_slots_for_are_left_as_they_are():
    passages = invented(40)
    few = hide(jax.random.key(0), passages, VOCABULARY, share=SHARE, most=16)
    which = was_hidden(passages, few)
    assert 0 < which.sum() <= 16
    np.testing.assert_array_equal(np.asarray(few.tokens.ids)[~which], passages.tokens.ids[~which])


def test_capacity_is_enough_for_texts_without_padding():
    word = jnp.tile(jnp.arange(40), (400, 1))
    draws = jax.vmap(lambda key: choose(key, word, SHARE))(jax.random.split(jax.random.key(0), 20))
    assert np.asarray(draws).sum(axis=(1, 2)).max() <= capacity(400, 40, SHARE)


def test_an_encoder_without_a_mask_is_refused():
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    backend = Backend(WordPiece({"[UNK]": 0, "[PAD]": 1, "a": 2}, unk_token="[UNK]"))
    with pytest.raises(MetarecError, match=r"no mask token.*--objective contrastive"):
        Vocabulary.of(Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend)))
