from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.padding import LENGTHS
from metarec_jax.encoder.tokenizer import tiny_wordpiece

TINY = tiny_wordpiece()
PAD, UNK, CLS, SEP, MASK = range(5)


def pieces(text: str, max_length: int = 64) -> list[str]:
    return [TINY.backend.id_to_token(i) for i in encoder.tokenize(TINY, [text], max_length).ids[0].tolist()]


def test_words_become_pairs_of_letters():
    assert pieces("Dune, 1984") == ["[CLS]", "du", "##ne", ",", "19", "##84", "[SEP]"]


def test_minilm_ids_are_those_of_transformers(minilm, minilm_folder, titles):
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    texts = [*titles[:300], "", "naïve café", "電影 movie", "שלום עולם", "a\x00b\tc\u200bd", "🎬 film"]
    ours = encoder.tokenize(minilm.tokenizer, texts, 512)
    assert ours.truncated == 0
    for text, ids in zip(texts, ours.ids, strict=True):
        assert ids.tolist() == theirs(text, truncation=True, max_length=512)["input_ids"]


def test_padding_and_truncation_of_the_tokenizer_file_are_switched_off(minilm):
    ids = encoder.tokenize(minilm.tokenizer, ["one", "word " * 300], 512).ids
    assert [len(i) for i in ids] == [3, 302]


def test_cutting_keeps_the_closing_token_and_is_counted(minilm):
    text = "a very long story about a very small house"
    cut = encoder.tokenize(minilm.tokenizer, [text, "short", text], 6)
    assert cut.truncated == 2
    assert cut.ids[0].tolist() == encoder.tokenize(minilm.tokenizer, ["a very long story"], 64).ids[0].tolist()
    assert len(cut.ids[1]) == 3


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\x00\x01", "\u200f"])
def test_a_text_of_nothing_is_its_special_tokens(text):
    assert pieces(text) == ["[CLS]", "[SEP]"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters()), max_size=4), st.integers(3, 12))
def test_any_text_is_read(texts, max_length):
    ids = encoder.tokenize(TINY, texts, max_length).ids
    assert len(ids) == len(texts)
    for row in ids:
        assert row.dtype == np.int32
        assert (row[0], row[-1]) == (CLS, SEP)
        assert 2 <= len(row) <= max_length
        assert row.max() < TINY.size


def test_a_lone_surrogate_is_no_crash_and_leaves_its_neighbours():
    assert pieces("ab \ud800 cd") == ["[CLS]", "ab", "cd", "[SEP]"]


def test_what_is_no_text_and_a_length_for_no_token_are_refused():
    with pytest.raises(MetarecError, match="text 1 is nan, a float"):
        encoder.require_strings(["fine", float("nan")])
    with pytest.raises(MetarecError, match=r"text 0 is b'caf.*', a bytes"):
        encoder.require_strings([b"caf\xe9"])
    with pytest.raises(MetarecError, match="max_length is 2"):
        encoder.tokenize(TINY, ["fine"], 2)


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path):
    encoder.save(encoder.load("random"), tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").unlink()
    (tmp_path / "bert" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\na\n")
    with pytest.raises(MetarecError, match=r"vocab.txt: the vocabulary has no .*\[SEP\].*\[MASK\]"):
        encoder.load(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    assert encoder.load(tmp_path / "bert").tokenizer.size == 5


@pytest.mark.parametrize(
    ("length", "limit", "padded"),
    [
        (1, 512, 8),
        (8, 512, 8),
        (9, 512, 12),
        (33, 512, 40),
        (512, 512, 512),
        (90, 100, 96),
        (97, 100, 100),
        (600, 2048, 1024),
    ],
)
def test_bucket(length, limit, padded):
    assert encoder.bucket(length, limit) == padded


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(2, 130), max_size=60), st.integers(1, 300))
def test_chunks_hold_every_text_once_in_one_shape_a_length(lengths, tokens_per_call):
    ids = [np.arange(5, 5 + n, dtype=np.int32) for n in lengths]
    seen, shapes = [], {}
    for rows, tokens in encoder.chunks(ids, limit=130, tokens_per_call=tokens_per_call, pad=PAD):
        seen += rows.tolist()
        count, length = tokens.ids.shape
        assert count == 1 or count * length <= tokens_per_call
        assert shapes.setdefault(length, count) == count
        for row, text in enumerate(rows.tolist()):
            assert length == encoder.bucket(lengths[text], 130)
            np.testing.assert_array_equal(tokens.ids[row][tokens.mask[row] == 1], ids[text])
        assert np.all(tokens.ids[tokens.mask == 0] == PAD)
        assert not tokens.mask[len(rows) :].any()
    assert sorted(seen) == list(range(len(lengths)))


def test_few_texts_are_not_padded_to_a_whole_chunk():
    (chunk,) = encoder.chunks([np.arange(5, dtype=np.int32)] * 3, limit=512, tokens_per_call=4096)
    assert chunk.tokens.ids.shape == (4, 8)


def test_lengths_ascend_so_that_the_first_that_fits_is_the_least():
    assert list(LENGTHS) == sorted(set(LENGTHS))
