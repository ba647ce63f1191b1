from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from bert_reference import changed, random_params
from helpers import assert_each_close, assert_says

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import parts
from metarec_jax.encoder.attention import attend_tiled
from metarec_jax.encoder.tokenizer import tiny_wordpiece

WORDS = [f"word{i}" for i in range(40)]


@pytest.fixture(scope="module")
def bert() -> encoder.Encoder:
    tokenizer = tiny_wordpiece()
    config = changed(vocab_size=tokenizer.size, max_positions=512)
    return encoder.Encoder(config, random_params(config, 0), tokenizer, "a test")


def texts(rng: np.random.Generator, count: int, longest: int = 4) -> list[str]:
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, longest + 1))) for _ in range(count)]


def one_by_one(bert: encoder.Encoder, rows: list[str], **options) -> np.ndarray:
    """Each text alone, padded to far more than it needs."""
    encode = jax.jit(functools.partial(encoder.encode, config=bert.config, **options))
    ids = encoder.tokenize(bert.tokenizer, rows, 128).ids
    return np.stack([encode(bert.params, tokens=encoder.pack([i], 100))[0] for i in ids])


@pytest.mark.parametrize("options", [{"pooling": "mean", "normalise": True}, {"pooling": "cls", "normalise": False}])
def test_the_table_is_what_each_text_gives_alone(bert, options):
    rows = texts(np.random.default_rng(0), 9, longest=13)
    assert_each_close(
        encoder.encode_table(bert, rows, **options),
        one_by_one(bert, rows, **options),
        floor=2e-6,
        because="sums over rows of other lengths",
    )


def test_each_distinct_text_is_encoded_once(bert):
    rows = ["one two", "three", "one two", "", "three"]
    encoded = []
    table = encoder.encode_table(bert, rows, progress=lambda *counts: encoded.append(counts))
    assert encoded[-1] == (3, 3)
    np.testing.assert_array_equal(table[0], table[2])
    np.testing.assert_array_equal(table[1], table[4])
    assert len(np.unique(table, axis=0)) == 3


def test_one_compilation_a_length_bucket(bert, compilations):
    rows = texts(np.random.default_rng(1), 60, longest=13)
    lengths = {encoder.bucket(len(i), 512) for i in encoder.tokenize(bert.tokenizer, rows, 128).ids}
    assert len(lengths) >= 3
    jax.clear_caches()
    encoder.encode_table(bert, rows, tokens_per_call=256)
    assert compilations.count("jit(_encode_chunk)") == len(lengths)
    encoder.encode_table(bert, rows[::-1], tokens_per_call=256)
    assert compilations.count("jit(_encode_chunk)") == len(lengths)


def test_order_and_repetition_do_not_matter(bert):
    rows = texts(np.random.default_rng(2), 7)
    order = np.array([3, 3, 0, 6, 5, 1, 2, 4])
    np.testing.assert_array_equal(
        encoder.encode_table(bert, [rows[i] for i in order]), encoder.encode_table(bert, rows)[order]
    )


def test_no_text_is_an_empty_table(bert):
    assert encoder.encode_table(bert, []).shape == (0, 24)


def test_texts_that_are_hard_to_read(bert):
    rows = ["", "\x00", "\ud800", "שלום", "電影", "🎬" * 2000, "x" * 100_000]
    table = encoder.encode_table(bert, rows, max_length=512)
    assert np.isfinite(table).all()
    assert_each_close(np.linalg.norm(table, axis=1), 1)


def test_cut_texts_are_reported_once(bert):
    said = []
    encoder.encode_table(bert, ["word1 " * 30, "word2 " * 30, "word1"], max_length=8, report=said.append)
    assert said == ["2 of 3 texts are longer than 8 tokens and were cut"]
    encoder.encode_table(bert, ["word1"], max_length=8, report=said.append)
    assert len(said) == 1


def test_progress_rises_to_the_number_of_texts(bert, tmp_path):
    rows = sorted(set(texts(np.random.default_rng(3), 20)))
    for cached in (False, True):
        seen = []

        def progress(done: int, total: int, seen=seen) -> None:
            seen.append((done, total))

        encoder.encode_table(bert, rows, cache=tmp_path, tokens_per_call=64, progress=progress)
        assert seen == sorted(seen)
        assert seen[-1] == (len(rows), len(rows))
        assert (len(seen) == 1) == cached


def test_the_cache_answers_the_second_time_whatever_the_order(bert, tmp_path):
    rows = texts(np.random.default_rng(4), 6)
    first = encoder.encode_table(bert, rows, cache=tmp_path / "new" / "cache")
    seen: list[tuple[int, int]] = []
    again = encoder.encode_table(
        bert, [*rows[::-1], rows[2]], cache=tmp_path / "new" / "cache", progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(6, 6)]  # where texts are encoded, there is another call for each chunk
    np.testing.assert_array_equal(again, first[[5, 4, 3, 2, 1, 0, 2]])
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 1


def test_what_changes_a_number_changes_the_cache_file(bert, tmp_path):
    other = dataclasses.replace(bert, params=jax.tree.map(lambda leaf: leaf * 1.5, bert.params))
    rows = ["ab", "c"]
    for e, t, options in [
        (bert, rows, {}),
        (other, rows, {}),
        (bert, ["a", "bc"], {}),
        (bert, rows, {"pooling": "cls"}),
        (bert, rows, {"normalise": False}),
        (bert, rows, {"max_length": 3}),
        (bert, rows, {"dtype": "bfloat16"}),
    ]:
        encoder.encode_table(e, t, cache=tmp_path, **options)
    assert len(list(tmp_path.iterdir())) == 7


def test_a_table_is_computed_as_it_is_asked_for(bert, monkeypatch):
    rows, calls = ["word1 word2", "word3"], []
    plain = encoder.encode_table(bert, rows)
    narrow = encoder.encode_table(bert, rows, dtype="bfloat16")
    assert narrow.dtype == np.float32
    assert 0 < np.abs(narrow - plain).max() < 0.05

    def counted(*arguments, **options):
        calls.append(1)
        return attend_tiled(*arguments, **options)

    monkeypatch.setitem(parts.ATTEND, "tiled", counted)
    tiled = encoder.encode_table(bert, rows, run=encoder.Execution("tiled"))
    assert len(calls) == bert.config.num_layers
    assert_each_close(tiled, plain, floor=2e-6, because="sums over rows of other lengths")
    with pytest.raises(MetarecError, match=r"encoder\.attention is 'fused', but this is a CPU"):
        encoder.encode_table(bert, rows, run=encoder.Execution("fused"))


def damage_by_a_bit(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    "damage",
    [damage_by_a_bit, lambda data: data[:-10], lambda data: b"", lambda data: b"\x80\x04." * 50],
    ids=["one bit", "truncated", "empty", "another format"],
)
def test_a_damaged_cache_is_written_anew(bert, tmp_path, damage):
    rows = texts(np.random.default_rng(5), 4)
    first = encoder.encode_table(bert, rows, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    np.testing.assert_array_equal(encoder.encode_table(bert, rows, cache=tmp_path), first)
    assert path.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_one_note(bert, tmp_path, monkeypatch):
    """The embeddings are those without a cache, and a second table of the same folder adds no note."""
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    for text in ("a", "b"):
        got = encoder.encode_table(bert, [text], cache=tmp_path / "file", report=notes.append)
        np.testing.assert_array_equal(got, encoder.encode_table(bert, [text]))
    assert len(notes) == 1
    assert_says(notes[0], str(tmp_path / "file"), "--data.cache", "METAREC_CACHE")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    encoder.encode_table(bert, ["a"], cache=tmp_path / "cache", report=notes.append)
    assert_says(notes[1], "No space left")
    assert list((tmp_path / "cache").iterdir()) == []


def test_more_tokens_than_positions_and_what_is_no_text_are_refused(bert):
    with pytest.raises(MetarecError, match=r"600.*512 positions"):
        encoder.encode_table(bert, ["a"], max_length=600)
    with pytest.raises(MetarecError, match="max_length is 2"):
        encoder.encode_table(bert, ["a"], max_length=2)


def test_minilm_knows_what_is_alike(minilm):
    rows = [
        "a space adventure with aliens",
        "science fiction film about extraterrestrials",
        "a romantic comedy at a wedding",
    ]
    table = encoder.encode_table(minilm, rows)
    assert table[0] @ table[1] > 0.5 > 0.3 > table[0] @ table[2]
