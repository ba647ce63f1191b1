"""Each kind of tokenizer gives transformers' answer to any text, and a folder whose tokenizer cannot is refused."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import tokenizers
from bert_reference import changed, random_params
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import HARD, KINDS, byte_level, unigram, wordpiece

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.tokenizer import byte_level_bpe, reconcile

SURROGATES = re.compile("[\ud800-\udfff]")


def ours(theirs) -> encoder.Tokenizer:
    """Our tokenizer from what transformers would write."""
    return encoder.Tokenizer(tokenizers.Tokenizer.from_str(theirs.backend_tokenizer.to_str()))


def saved(tokenizer, folder, *, kind: str = "bert", pad: int = 0, **changes):
    """A folder with this tokenizer of transformers and a small random encoder."""
    config = changed(vocab_size=len(tokenizer), max_positions=64, model_type=kind, pad_token_id=pad, **changes)
    encoder.save(encoder.Encoder(config, random_params(config, 0), ours(tokenizer), ""), folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def refused(folder, *words: str) -> None:
    with pytest.raises(MetarecError) as error:
        encoder.load(folder)
    for word in words:
        assert word in str(error.value)


# ---- the same answers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [4, 12, 512])
def test_hard_texts_get_the_answers_of_transformers(kind, most):
    theirs = KINDS[kind]()
    mine = encoder.tokenize(ours(theirs), HARD, most)
    for text, ids in zip(HARD, mine.ids, strict=True):
        assert ids.tolist() == theirs(text, truncation=True, max_length=most)["input_ids"], text
    whole = [len(theirs(text)["input_ids"]) for text in HARD]
    assert mine.truncated == sum(length > most for length in whole) > 0


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(st.characters()), max_size=4), most=st.integers(3, 12))
def test_any_text_gets_the_answer_of_transformers(kind, texts, most):
    theirs = KINDS[kind]()
    mine = encoder.tokenize(ours(theirs), texts, most)
    for text, ids in zip(texts, mine.ids, strict=True):
        readable = SURROGATES.sub("\ufffd", text)  # transformers itself raises on a lone surrogate
        assert ids.tolist() == theirs(readable, truncation=True, max_length=most)["input_ids"]
        assert (ids[0], ids[-1]) == (theirs.cls_token_id, theirs.sep_token_id)


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_was_not_utf8_is_read(kind):
    broken = b"caf\xe9 \xff\xfe film".decode(errors="surrogateescape")
    theirs = KINDS[kind]()
    (ids,) = encoder.tokenize(ours(theirs), [broken], 64).ids
    assert ids.tolist() == theirs("caf\ufffd \ufffd\ufffd film")["input_ids"]


@pytest.mark.parametrize(("tokenizer", "kind"), [(byte_level, "roberta"), (unigram, "xlm-roberta")])
def test_hard_texts_become_vectors_and_cut_ones_are_reported_once(tokenizer, kind, tmp_path):
    bert = encoder.load(saved(tokenizer(), tmp_path / "it", kind=kind, pad=1))
    texts = [*HARD, "\ud800", HARD[-1]]
    for _ in range(2):  # the second time from the cache
        said = []
        table = encoder.encode_table(
            bert, texts, max_length=64, cache=tmp_path / "cache", report=said.append, tokens_per_call=1024
        )
        np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(table[-1], table[len(HARD) - 1])
        cut = sum(len(tokenizer()(text)["input_ids"]) > 64 for text in HARD)
        assert said == [f"{cut} of {len(HARD) + 1} texts are longer than 64 tokens and were cut"]
    with pytest.raises(MetarecError, match=r"max_length is 65, but .* has 64 positions"):
        encoder.encode_table(bert, texts, max_length=65)


# ---- files


@pytest.mark.parametrize(
    ("tokenizer", "kind", "pad"), [(wordpiece, "bert", 0), (byte_level, "roberta", 1), (unigram, "xlm-roberta", 1)]
)
def test_a_saved_tokenizer_is_that_of_transformers(tokenizer, kind, pad, tmp_path):
    import transformers

    first = encoder.load(saved(tokenizer(), tmp_path / "theirs", kind=kind, pad=pad))
    encoder.save(first, tmp_path / "ours")
    again = encoder.load(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert (tmp_path / "ours" / "vocab.txt").exists() == (kind == "bert")
    for text in HARD:
        (one,), (other,) = (encoder.tokenize(e.tokenizer, [text], 10_000).ids for e in (first, again))
        assert one.tolist() == other.tolist() == theirs(text)["input_ids"] == tokenizer()(text)["input_ids"]


def test_vocab_json_and_merges_are_a_byte_level_tokenizer(tmp_path):
    theirs = byte_level()
    folder = saved(theirs, tmp_path / "roberta", kind="roberta", pad=1)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    loaded = encoder.load(folder).tokenizer
    for text in HARD:
        assert encoder.tokenize(loaded, [text], 10_000).ids[0].tolist() == theirs(text)["input_ids"]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_prefix_space": True}))
    assert loaded.backend.encode("film").tokens[1] == "f"
    assert encoder.load(folder).tokenizer.backend.encode("film").tokens[1] == "Ġfilm"

    (folder / "merges.txt").write_text("a b\nab\n")
    refused(folder, "merges.txt, line 2", "'ab'")
    (folder / "merges.txt").write_text("zzz yyy\n")
    refused(folder, "merges do not fit")
    (folder / "merges.txt").unlink()
    refused(folder, "merges.txt is missing")


def test_a_byte_level_vocabulary_without_special_tokens_is_refused():
    with pytest.raises(MetarecError, match="no <pad>, <mask>"):
        byte_level_bpe({"<s>": 0, "</s>": 1, "<unk>": 2}, [])


def test_settings_rule_over_the_tokenizer_file_as_in_transformers(tmp_path):
    import transformers

    folder = saved(wordpiece(), tmp_path / "bert")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    text = "Film 電影 café"
    answers = []
    for change in ({}, {"do_lower_case": True}, {"tokenize_chinese_chars": False}, {"strip_accents": True}):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | change))
        (ids,) = encoder.tokenize(encoder.load(folder).tokenizer, [text], 64).ids
        assert ids.tolist() == transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
        answers.append(tuple(ids.tolist()))
    assert len(set(answers)) == 4


def test_what_only_the_tokenizer_file_says_is_saved_as_a_setting():
    cased = reconcile(ours(wordpiece()).backend, {"model_max_length": 9})
    assert cased.settings == {
        "model_max_length": 9,
        "do_lower_case": False,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
    }
    assert reconcile(ours(byte_level()).backend, {}).settings == {"add_prefix_space": False}
    assert reconcile(ours(unigram()).backend, {}).settings == {}


# ---- what is refused


def test_a_tokenizer_that_pads_otherwise_than_positions_count_is_refused(tmp_path):
    folder = saved(wordpiece(), tmp_path / "mixed", kind="roberta", pad=1)
    refused(folder, "pads with token id 0", "pad_token_id is 1", "different models")
    # BERT's positions do not count padding: some checkpoints of its type have XLM-R's tokenizer and a pad id of 0.
    assert encoder.load(saved(unigram(), tmp_path / "bert", kind="bert", pad=0)).tokenizer.pad_token_id == 1


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(tmp_path):
    folder = saved(wordpiece(), tmp_path / "bert")
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    byte_level().save_pretrained(tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "other" / name, folder / name)
    refused(folder, str(len(byte_level()) - 1), f"vocab_size is {len(wordpiece())}", "different models")


def test_a_tokenizer_of_a_far_smaller_vocabulary_is_remarked_on(tmp_path):
    whole = encoder.load(saved(wordpiece(), tmp_path / "whole"))
    assert encoder.remarks(whole, pooling="mean", normalise=True) == []
    small = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    small.save(str(tmp_path / "whole" / "tokenizer.json"))
    (said,) = encoder.remarks(encoder.load(tmp_path / "whole"), pooling="mean", normalise=True)
    assert "2 tokens" in said
    assert f"{len(wordpiece())} rows" in said


def test_a_tokenizer_without_a_token_for_the_unknown_is_refused(tmp_path):
    folder = saved(wordpiece(), tmp_path / "bert")
    for model in (
        tokenizers.models.WordPiece({"a": 0}, unk_token="[UNK]"),
        tokenizers.models.Unigram([("a", 0.0)]),
    ):
        tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
        refused(folder, "tokenizer.json", "token for what is unknown")


def test_sentencepiece_alone_is_refused_with_the_remedy(tmp_path):
    folder = saved(unigram(), tmp_path / "xlm", kind="xlm-roberta", pad=1)
    (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model")
    refused(folder, "sentencepiece.bpe.model", "SentencePiece", "save_pretrained")
    (folder / "sentencepiece.bpe.model").unlink()
    refused(folder, "no tokenizer", "tokenizer.json", "vocab.txt", "merges.txt")
