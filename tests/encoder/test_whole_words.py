"""What pretraining takes for a word, with every kind of tokenizer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tokenizer_kinds

from metarec_jax.encoder import Tokenizer
from metarec_jax.train.pretraining.masking import Vocabulary
from metarec_jax.train.pretraining.text_batches import Frame, documents


@pytest.mark.parametrize("kind", tokenizer_kinds.KINDS)
def test_words_of_every_tokenizer_are_whole(kind):
    """Of each kind of tokenizer, tokens of one number spell one word, and special tokens have none."""
    theirs = tokenizer_kinds.KINDS[kind]()
    tokenizer = Tokenizer(copy.deepcopy(theirs))
    (document,) = documents(tokenizer, [["The quick brown fox,", "a space adventure.", theirs.mask_token]])
    special = np.isin(document.ids, theirs.all_special_ids)
    assert special.any()
    assert (document.word[special] == -1).all()
    words = [
        theirs.decode(document.ids[document.word == number]).replace(" ", "")
        for number in np.unique(document.word[~special])
    ]
    text = "".join(words)
    assert "quick" in text
    assert "adventure" in text
    assert any(word in ("quick", "brown") for word in words)
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.mask == theirs.mask_token_id
    assert not np.isin(theirs.all_special_ids, vocabulary.ordinary).any()
    frame = Frame.of(tokenizer)
    assert [*frame.before, *frame.after] == theirs("")["input_ids"]
