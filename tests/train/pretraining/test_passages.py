"""Texts in batches of few shapes: nothing is lost, and any batch can be made by its number alone."""

from __future__ import annotations

import numpy as np
import pytest
from small import small_encoder

from metarec_jax.core.errors import MetarecError
from metarec_jax.train.pretraining.text_batches import Frame, PassageSource, documents


def source_of(texts: list[list[str]], **changes) -> PassageSource:
    tokenizer = small_encoder().tokenizer
    options = {"max_length": 16, "tokens_per_batch": 64, "pad": 0, "seed": (0, 1)} | changes
    return PassageSource(documents(tokenizer, texts), Frame.of(tokenizer), **options)


TOLD = [[f"Liked item {i} of {u}." for i in range(9)] for u in range(10, 15)]


def test_every_token_is_read_once_where_nothing_is_shuffled():
    source = source_of(TOLD, shuffled=False)
    read = []
    for index in range(source.batches):
        passages = source[index]
        assert passages.tokens.ids.shape[1] <= 16
        assert passages.tokens.ids.size <= 64
        read += [row[own >= 0] for row, own in zip(passages.tokens.ids, passages.word)]
    every = [document.ids[document.word >= 0] for document in source.documents]
    assert sorted(np.concatenate(read)) == sorted(np.concatenate(every))


def test_passages_begin_elsewhere_in_every_epoch_and_at_sentences():
    source = source_of(TOLD, max_length=32)
    read = [set(), set()]
    for epoch in (0, 1):
        for index in range(source.batches):
            passages = source[epoch * source.batches + index]
            read[epoch] |= {tuple(ids) for ids, mask in zip(*passages.tokens[:2]) if mask.sum()}
    liked = source.documents[0].ids[:2].tolist()
    assert all(list(ids[1:3]) == liked for ids in read[0] | read[1])
    assert len(read[0] - read[1]) > len(read[0]) / 4


def test_a_batch_depends_on_its_number_alone():
    one, other = source_of(TOLD), source_of(TOLD)
    count = 3 * one.batches
    forwards = [one[i] for i in range(count)]
    backwards = [other[i] for i in reversed(range(count))][::-1]
    for a, b in zip(forwards, backwards):
        np.testing.assert_array_equal(a.tokens.ids, b.tokens.ids)
        np.testing.assert_array_equal(a.word, b.word)


def test_texts_of_nothing_and_encoders_without_room_are_refused():
    with pytest.raises(MetarecError, match="no text to read"):
        source_of([[], [""]]).batches  # noqa: B018
    with pytest.raises(MetarecError, match="max_length is 2, which the 2 special tokens"):
        source_of(TOLD, max_length=2)


def test_a_sentence_longer_than_a_passage_is_cut_and_counted():
    source = source_of([["word " * 40], ["short"], ["word " * 40]], shuffled=False)
    assert len(source.cut) == 1, "the same text twice"
    assert sum((source[i].word >= 0).sum() for i in range(source.batches)) == sum(
        len(document.ids) for document in source.documents
    )
