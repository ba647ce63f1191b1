"""Each kind of tokenizer gives the ids of transformers for any text, and a folder without a tokenizer is refused."""

from __future__ import annotations

import base64
import copy
import importlib.util
import io
import json
import re
import shutil
import sys

import numpy as np
import pytest
import tokenizers
from bert_reference import changed, random_params
from helpers import assert_each_close
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import HARD, KINDS, LINES, byte_level, unigram, wordpiece

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError

SURROGATES = re.compile("[\ud800-\udfff]")


def ours(theirs) -> encoder.Tokenizer:
    """Our tokenizer of a copy, since calling that of transformers switches truncation on."""
    return encoder.Tokenizer(copy.deepcopy(theirs))


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
        assert_each_close(np.linalg.norm(table, axis=1), 1)
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
    refused(folder, str(folder), "Merges text file invalid at line 2")
    (folder / "merges.txt").write_text("zzz yyy\n")
    refused(folder, str(folder), "`zzz` out of vocabulary")
    (folder / "merges.txt").unlink()
    refused(folder, "vocab.json", "merges")
    (folder / "vocab.json").write_text("{")
    refused(folder, "vocab.json, line 1")


def test_a_byte_level_vocabulary_without_special_tokens_is_refused(tmp_path):
    folder = saved(byte_level(), tmp_path / "roberta", kind="roberta", pad=1)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps({"<s>": 0, "</s>": 1, "<unk>": 2}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    refused(folder, "vocab.json", "no <pad>, <mask>")


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


@pytest.mark.parametrize(("kind", "first"), [("xlm-roberta", 1), ("camembert", 4)])
def test_a_sentencepiece_model_is_read_with_the_ids_of_sentencepiece(kind, first, tmp_path, monkeypatch):
    """`first`: what transformers adds to an id of the SentencePiece model, whose own special tokens it replaces."""
    import sentencepiece

    folder = saved(unigram(), tmp_path / "it", kind=kind, pad=1)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=70, minloglevel=2
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    loaded = encoder.load(folder)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    texts = [*LINES, *(text for text in HARD if "<s>" not in text), "ＦＵＬＬ ｗｉｄｔｈ ﬁlm"]
    for text, ids in zip(texts, encoder.tokenize(loaded.tokenizer, texts, 10_000).ids, strict=True):
        assert ids[1:-1].tolist() == [3 if id == 0 else id + first for id in theirs.encode(text)], text
    encoder.save(loaded, tmp_path / "saved")
    assert encoder.load(tmp_path / "saved").digest == loaded.digest

    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sentencepiece" else found(name))
    refused(folder, str(folder), "SentencePiece", "pip install 'metarec_jax[sentencepiece]'")


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
    assert encoder.remarks(whole, "mean") == []
    small = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    small.save(str(tmp_path / "whole" / "tokenizer.json"))
    (said,) = encoder.remarks(encoder.load(tmp_path / "whole"), "mean")
    assert "6 tokens" in said  # transformers adds the special tokens that are missing
    assert f"{len(wordpiece())} rows" in said


def test_a_tokenizer_without_a_token_for_the_unknown_is_refused(tmp_path):
    folder = saved(wordpiece(), tmp_path / "bert")
    for model in (
        tokenizers.models.WordPiece({"a": 0}, unk_token="[UNK]"),
        tokenizers.models.Unigram([("a", 0.0)]),
    ):
        tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
        refused(folder, "tokenizer.json", "token for what is unknown")


def test_a_damaged_sentencepiece_model_and_none_are_refused(tmp_path):
    folder = saved(unigram(), tmp_path / "xlm", kind="xlm-roberta", pad=1)
    (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model")
    refused(folder, "sentencepiece.bpe.model")
    (folder / "sentencepiece.bpe.model").unlink()
    refused(folder, "no tokenizer", "tokenizer.json", "vocab.txt", "merges.txt", "sentencepiece.bpe.model")


def test_vocabulary_files_of_another_kind_are_refused(tmp_path):
    """transformers puts a vocabulary of five tokens in place of the one that it does not find."""
    folder = saved(byte_level(), tmp_path / "roberta", kind="roberta", pad=1)
    (folder / "tokenizer.json").rename(folder / "vocab.txt")
    refused(folder, "no tokenizer", "vocab.json and merges.txt", "RobertaTokenizer")


CODE = "import pathlib; pathlib.Path({!r}).touch()\nclass Config: pass\n"


def test_code_in_the_folder_is_refused_by_name_and_not_run(tmp_path, monkeypatch):
    def asked(*args):
        raise AssertionError("the terminal was asked")

    monkeypatch.setattr("builtins.input", asked)
    folder = saved(wordpiece(), tmp_path / "bert")
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "ran")))
    for name, change in (
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.Config", None]}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "own.Config"]}, "tokenizer_class": "Config"}),
        ("tokenizer_config.json", {"auto_map": ["own.Config", None]}),
        ("config.json", {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Config"}}),
    ):
        before = (folder / name).read_text()
        (folder / name).write_text(json.dumps(json.loads(before) | change))
        refused(folder, str(folder / name), "auto_map", "own.Config")
        (folder / name).write_text(before)
    encoder.load(folder)
    assert not (tmp_path / "ran").exists()
    assert "own" not in sys.modules


def test_a_tokenizer_in_python_only_is_refused(tmp_path):
    folder = saved(wordpiece(), tmp_path / "bert")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfilm\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    refused(folder, "BertJapaneseTokenizer", "Python only", "tokenizer.json")


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\xff" * 4).decode()}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}},
        {"model": {}},
        {"model": None},
    ],
    ids=["charsmap", "merges", "empty model", "no model"],
)
def test_a_tokenizer_file_of_impossible_values_is_refused_by_name(change, tmp_path):
    """Some of them are a panic in the tokenizers library, whose exception is no Exception."""
    folder = saved(wordpiece(), tmp_path / "bert")
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(whole | change))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    refused(folder, "tokenizer.json")


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[1]", '"a"'])
def test_a_damaged_file_beside_the_tokenizer_is_named(name, text, tmp_path):
    folder = saved(wordpiece(), tmp_path / "bert")
    (folder / name).write_text(text)
    refused(folder, str(folder / name))


def test_padding_to_any_length_in_the_file_is_not_applied(tmp_path):
    folder = saved(wordpiece(), tmp_path / "bert")
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["padding"] = {"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None} | {
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (ids,) = encoder.tokenize(encoder.load(folder).tokenizer, ["film"], 64).ids
    assert len(ids) < 64


@pytest.mark.parametrize(
    ("kind", "model"),
    [("wordpiece", "bert"), ("byte-level BPE", "roberta"), ("unigram", "xlm-roberta")],
)
def test_texts_are_put_in_lower_case_where_the_folder_says_so(kind, model, tmp_path):
    import transformers

    theirs = KINDS[kind]()
    folder = saved(theirs, tmp_path / "it", kind=model, pad=theirs.pad_token_id)
    text, (plain,) = "The FILM, Été", encoder.tokenize(encoder.load(folder).tokenizer, ["The FILM, Été"], 64).ids
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 40, "do_lower_case": true}')
    loaded = encoder.load(folder)
    encoder.save(loaded, tmp_path / "again")
    again = encoder.load(tmp_path / "again")
    expected = transformers.AutoTokenizer.from_pretrained(folder)(text.lower())["input_ids"]
    for one in (loaded, again):
        (ids,) = encoder.tokenize(one.tokenizer, [text], 64).ids
        assert ids.tolist() == expected != plain.tolist()
        assert encoder.words_of(one.tokenizer, text, 64).words[0][0] == "The"
    assert again.hints == loaded.hints
    assert loaded.digest == again.digest
