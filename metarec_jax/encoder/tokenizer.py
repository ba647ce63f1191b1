"""From text to token ids, and from texts of unequal length to batches of few shapes."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.bert import Tokens

if TYPE_CHECKING:
    import tokenizers

FEW = 32
"""Texts of a chunk whose padded rows cost less than another compilation."""
LENGTHS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 448, 512)
"""Token lengths that texts are padded to; beyond the last, multiples of it."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Of WordPiece tokenizers: of BERT and DistilBERT."""

BYTE_LEVEL_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""Of byte-level BPE tokenizers: of RoBERTa."""

# Settings of tokenizer_config.json that are fields of BERT's normaliser.
_NORMALISER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A fast tokenizer, with its own padding and truncation switched off.

    Attributes:
        backend: the `tokenizers.Tokenizer`.
        settings: what tokenizer_config.json says, kept for saving.
    """

    backend: tokenizers.Tokenizer
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.backend.no_padding()
        self.backend.no_truncation()

    @functools.cached_property
    def size(self) -> int:
        """Rows that a vocabulary table needs: the largest token id + 1."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    @functools.cached_property
    def tail(self) -> int:
        """Special tokens that follow a text, such as one [SEP]."""
        specials = self.backend.encode("a").special_tokens_mask
        return len(specials) - 1 - max((i for i, special in enumerate(specials) if not special), default=0)

    @functools.cached_property
    def pad_token_id(self) -> int | None:
        """Id of the token that the tokenizer pads with; None where it has none by a usual name."""
        named = self.settings.get("pad_token")
        named = named.get("content") if isinstance(named, Mapping) else named
        ids = [self.backend.token_to_id(token) for token in (named, "[PAD]", "<pad>") if isinstance(token, str)]
        return next((id for id in ids if id is not None), None)

    def to_json(self) -> str:
        """The whole tokenizer as the text of a tokenizer.json."""
        return self.backend.to_str()


class Tokenised(NamedTuple):
    """Texts as token ids, each as long as it is.

    Attributes:
        ids: int32 [length of the text], one array a text, special tokens included.
        truncated: number of texts that were cut.
    """

    ids: tuple[np.ndarray, ...]
    truncated: int


class Chunk(NamedTuple):
    """Texts of similar length, ready for one call of the encoder.

    Attributes:
        rows: int64 [real], which texts these are; the tokens may have more rows, which are padding.
        tokens: [rows of the chunk, length of its bucket].
    """

    rows: np.ndarray
    tokens: Tokens


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Tokenised:
    """Token ids of each text, cut to at most ``max_length`` tokens; the closing special tokens stay.

    Lone surrogates, which are no characters, are read as U+FFFD. An empty text is its special tokens.

    Args:
        tokenizer: as `pretrained.load` gives it.
        texts: any strings.
        max_length: tokens kept of a text, special tokens included; at least 3.

    Raises:
        MetarecError: ``max_length`` below 3, or a text that is no string.
    """
    if max_length < 3:
        raise MetarecError(f"max_length is {max_length}; it must be at least 3 (two special tokens and one of text)")
    require_strings(texts)
    encodings = tokenizer.backend.encode_batch_fast([_LONE_SURROGATE.sub("\ufffd", text) for text in texts])
    keep = max_length - tokenizer.tail
    rows, truncated = [], 0
    for encoding in encodings:
        ids = np.asarray(encoding.ids, np.int32)
        if len(ids) > max_length:
            ids = np.concatenate([ids[:keep], ids[len(ids) - tokenizer.tail :]])
            truncated += 1
        rows.append(ids)
    return Tokenised(tuple(rows), truncated)


class Words(NamedTuple):
    """A text as token ids, and where its words lie.

    Attributes:
        ids: int32 [length], special tokens included, as `tokenize` gives them.
        words: each word as the text writes it, with the places of its tokens; in order.
    """

    ids: np.ndarray
    words: tuple[tuple[str, tuple[int, ...]], ...]


def words_of(tokenizer: Tokenizer, text: str, max_length: int) -> Words:
    """The words of a text, as the tokenizer parts them before it looks for pieces, that `max_length` tokens hold."""
    text = _LONE_SURROGATE.sub("\ufffd", text)
    (ids,) = tokenize(tokenizer, [text], max_length).ids
    encoding = tokenizer.backend.encode(text)
    # A text that is too long loses tokens before the special ones at its end.
    kept = len(ids) if len(ids) == len(encoding.ids) else len(ids) - tokenizer.tail
    places: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids[:kept]):
        if word is not None:
            places.setdefault(word, []).append(place)
    spans = [(encoding.offsets[own[0]][0], encoding.offsets[own[-1]][1]) for own in places.values()]
    return Words(ids, tuple((text[a:b].strip(), tuple(own)) for (a, b), own in zip(spans, places.values())))


def require_strings(texts: Sequence[object]) -> None:
    """Refuse texts that are none, such as the NaN of an empty cell, by row and value."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise MetarecError(f"text {row} is {text!r}, a {type(text).__name__}; the encoder reads strings only")


def bucket(length: int, limit: int) -> int:
    """The padded length of a text of ``length`` tokens: the least of `LENGTHS` that holds it, at most ``limit``.

    >>> bucket(17, 512), bucket(300, 320), bucket(700, 2048)
    (20, 320, 1024)
    """
    longest = LENGTHS[-1]
    fitting = next((b for b in LENGTHS if b >= length), -(-length // longest) * longest)
    return min(fitting, limit)


def pack(ids: Sequence[np.ndarray], length: int, *, pad: int = 0, rows: int | None = None) -> Tokens:
    """Texts padded to one length, as one batch.

    Args:
        ids: token ids of each text, at most ``length`` long.
        length: tokens of a row.
        pad: id of a padded token.
        rows: rows of the batch; those beyond the texts are all padding. None makes no such row.
    """
    rows = len(ids) if rows is None else rows
    table, mask = np.full((rows, length), pad, np.int32), np.zeros((rows, length), np.float32)
    for row, text in enumerate(ids):
        table[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return Tokens(table, mask, np.zeros_like(table))


def chunks(ids: Sequence[np.ndarray], *, limit: int, tokens_per_call: int, pad: int = 0) -> Iterator[Chunk]:
    """All texts, grouped by padded length and cut into chunks of one shape a length.

    Args:
        ids: token ids of each text.
        limit: longest text that the encoder takes.
        tokens_per_call: tokens of a chunk, at most (but a chunk holds at least one text).
        pad: id of a padded token.

    Yields:
        Chunks, shortest texts first. Chunks of one bucket have one shape, so there is one compilation a bucket.
    """
    buckets = np.array([bucket(len(text), limit) for text in ids], np.int64)
    for length in np.unique(buckets).tolist():
        members = np.flatnonzero(buckets == length)
        most = max(1, tokens_per_call // length)
        calls = -(-len(members) // most)
        rows = min(most, _rows_for(-(-len(members) // calls)))
        for start in range(0, len(members), rows):
            chosen = members[start : start + rows]
            yield Chunk(chosen, pack([ids[i] for i in chosen], length, pad=pad, rows=rows))


def _rows_for(texts: int) -> int:
    """Rows of a chunk for so many texts: few are padded to a power of two, so that calls with slightly different
    numbers share a shape and its compilation; many to a multiple of `FEW` / 4, since then padding costs more."""
    return 1 << (texts - 1).bit_length() if texts <= FEW else -(-texts * 4 // FEW) * FEW // 4


def reconcile(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer.json and a tokenizer_config.json as one: where the two differ the latter rules, as in transformers.

    What only the tokenizer.json says (on letter case, accents, Chinese characters and the space before a text) is
    added to the settings: transformers would take a default for it.

    Args:
        backend: from tokenizer.json. Its normaliser and pre-tokenizer may be changed.
        settings: from tokenizer_config.json.
    """
    from tokenizers import normalizers, pre_tokenizers

    settings = dict(settings)

    def follow(part: Any, fields: Mapping[str, str]) -> None:
        for setting, field in fields.items():
            if isinstance(settings.get(setting), bool):  # null leaves the choice to the tokenizer.json
                setattr(part, field, settings[setting])
            settings[setting] = getattr(part, field)

    if isinstance(backend.normalizer, normalizers.BertNormalizer):
        follow(backend.normalizer, _NORMALISER)
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        follow(backend.pre_tokenizer, {"add_prefix_space": "add_prefix_space"})
    return Tokenizer(backend, settings)


def wordpiece(
    vocabulary: Mapping[str, int],
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    split_chinese: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Tokenizer:
    """BERT's tokenizer over a vocabulary.

    Args:
        vocabulary: row of each token; it must hold `SPECIAL_TOKENS`.
        lowercase, strip_accents, split_chinese: how text is normalised; None strips accents where it lowercases.
        settings: of a tokenizer_config.json.

    Raises:
        MetarecError: a special token is missing.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise MetarecError(
            f"the tokenizer's vocabulary has no {', '.join(missing)}; BERT needs {', '.join(SPECIAL_TOKENS)}"
        )
    backend = tokenizers.Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    if settings is None:
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": lowercase,
            "strip_accents": strip_accents,
            "tokenize_chinese_chars": split_chinese,
        }
    return Tokenizer(backend, settings)


def byte_level_bpe(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """RoBERTa's tokenizer over a vocabulary of byte pairs.

    Args:
        vocabulary: row of each token; it must hold `BYTE_LEVEL_SPECIAL_TOKENS`.
        merges: pairs of tokens that become one, most frequent first.

    Raises:
        MetarecError: a special token is missing, or a merge is of tokens that the vocabulary does not have.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    missing = [token for token in BYTE_LEVEL_SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise MetarecError(
            f"the tokenizer's vocabulary has no {', '.join(missing)}; "
            f"RoBERTa needs {', '.join(BYTE_LEVEL_SPECIAL_TOKENS)}"
        )
    try:
        backend = tokenizers.Tokenizer(models.BPE(dict(vocabulary), list(merges)))
    except Exception as error:  # the library raises bare Exception
        raise MetarecError(f"the tokenizer's merges do not fit its vocabulary ({error})") from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(BYTE_LEVEL_SPECIAL_TOKENS))
    backend.post_processor = processors.RobertaProcessing(("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]))
    return Tokenizer(backend, {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False})


def tiny_wordpiece() -> Tokenizer:
    """A tokenizer that needs no file: words as pairs of letters and digits, and single characters.

    Texts of distinct words get distinct tokens, which is all that an untrained encoder can use.
    """
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pairs = [a + b for a in letters for b in letters]
    signs = [chr(c) for c in range(33, 127) if chr(c) not in letters and not chr(c).isupper()]
    pieces = [*SPECIAL_TOKENS, *letters, *signs, *pairs, *(f"##{p}" for p in [*letters, *pairs])]
    return wordpiece({piece: row for row, piece in enumerate(pieces)})
