"""A small real tokenizer of each kind, trained on a few lines, as transformers' classes have them."""

from __future__ import annotations

import functools
import json

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = [
    "The quick brown fox jumps over the lazy dog, 1994",
    "a space adventure with aliens and a dog",
    "naïve café déjà vu",
    "電影 movie 映画 電影院",
    "שלום עולם",
    "مرحبا بالعالم",
    "Привет мир film",
    "🎬 film",
] * 3

HARD = [
    "",
    " ",
    "\t\r\n",
    "\x00\x01\x7f",
    "a\x00b\tc\u200bd\u00add\ufeffe",
    "\u202eright to left\u202c שלום עולם مرحبا",
    "電影は映画、電影院！",
    "𠀀𠀁 rare",
    "🎬 film 👩‍👩‍👧 🇩🇪",
    "cafe\u0301 café ﬁlm ①",
    "\ufffd \ufffe",
    "<s> <pad> </s> <unk> <mask> [CLS] [PAD] [SEP] [UNK] [MASK]",
    "x" * 3000,
    "word " * 700,
    "電" * 700,
]
"""Texts that a tokenizer may stumble over."""


@functools.cache
def wordpiece():
    """BERT's, which minds letter case."""
    import transformers

    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    return transformers.BertTokenizer(vocab=_model(backend)["vocab"], do_lower_case=False)


@functools.cache
def byte_level():
    """RoBERTa's byte-level BPE."""
    import transformers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(LINES, trainer)
    merges = [tuple(pair) for pair in _model(backend)["merges"]]
    return transformers.RobertaTokenizer(vocab=_model(backend)["vocab"], merges=merges)


@functools.cache
def bracketed():
    """ModernBERT's: byte-level BPE with the special tokens of BERT."""
    import transformers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = _bpe(special)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@functools.cache
def closed():
    """Qwen3-Embedding's: byte-level BPE that ends each text with the token of padding."""
    import transformers

    backend = _bpe(["<|endoftext|>"])
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|endoftext|>")


@functools.cache
def unigram():
    """XLM-R's, of SentencePiece's unigram language model."""
    import transformers

    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    vocabulary = [(token, score) for token, score in _model(backend)["vocab"]]
    return transformers.XLMRobertaTokenizer(vocab=[*vocabulary, ("<mask>", 0.0)])


@functools.cache
def mpnet():
    """MPNet's: WordPiece with the special tokens of RoBERTa."""
    import transformers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[UNK]"]
    words = [token for token in wordpiece().get_vocab() if not token.startswith("[")]
    vocabulary = {token: row for row, token in enumerate([*special, *sorted(words)])}
    return transformers.MPNetTokenizer(vocab=vocabulary, do_lower_case=False)


KINDS = {"wordpiece": wordpiece, "byte-level BPE": byte_level, "unigram": unigram, "mpnet": mpnet}

OF_ARCHITECTURE = {
    "bert": wordpiece,
    "roberta": byte_level,
    "xlm-roberta": unigram,
    "camembert": unigram,
    "distilbert": wordpiece,
    "mpnet": mpnet,
    "modernbert": bracketed,
    "qwen3": closed,
    "gemma3_text": bracketed,
}


def _bpe(special: list[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(LINES, trainer)
    return backend


def _model(backend: tokenizers.Tokenizer) -> dict:
    return json.loads(backend.to_str())["model"]
