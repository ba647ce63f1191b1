"""Conversion of text to token ids, with the tokenizer of a checkpoint as transformers reads it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.regular_files import open_regular
from metarec_jax.encoder.checkpoint_files import read_object
from metarec_jax.encoder.transformers_import import import_transformers

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files from which a tokenizer is read; which of them exist depends on the checkpoint."""

_NEEDED = (
    "it needs tokenizer.json; or vocab.txt (WordPiece); or vocab.json and merges.txt (byte-level BPE); "
    "or sentencepiece.bpe.model (SentencePiece)"
)
_UNCOMMON = "\U00013000 \ua66e"  # a hieroglyph and a rare Cyrillic letter, which few vocabularies contain
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A fast tokenizer of transformers, with padding and truncation switched off.

    Attributes:
        pretrained: the tokenizer of transformers. Calling it switches truncation on again; use `tokenize` instead.
    """

    pretrained: PreTrainedTokenizerFast

    def __post_init__(self) -> None:
        self.backend.no_padding()
        self.backend.no_truncation()

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The underlying `tokenizers.Tokenizer`."""
        return self.pretrained.backend_tokenizer

    @functools.cached_property
    def size(self) -> int:
        """Number of rows that a vocabulary table needs: the largest token id + 1."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    @functools.cached_property
    def tail(self) -> int:
        """Number of special tokens that follow a text, such as one [SEP]."""
        specials = self.backend.encode("a").special_tokens_mask
        return len(specials) - 1 - max((i for i, special in enumerate(specials) if not special), default=0)

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token; None if there is none."""
        return self._id(self.pretrained.pad_token, "[PAD]", "<pad>")

    @property
    def mask_token_id(self) -> int | None:
        """Id of the token that replaces a masked word; None if there is none."""
        return self._id(self.pretrained.mask_token, "[MASK]", "<mask>")

    def _id(self, *names: str | None) -> int | None:
        ids = [self.backend.token_to_id(name) for name in names if name is not None]
        return next((id for id in ids if id is not None), None)

    def to_json(self) -> str:
        """The whole tokenizer as the text of a tokenizer.json."""
        return self.backend.to_str()

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json into a folder, and the vocab.txt of a WordPiece tokenizer."""
        self.pretrained.save_pretrained(folder)
        if type(self.backend.model).__name__ == "WordPiece":
            vocabulary = self.backend.get_vocab(with_added_tokens=True)
            tokens = sorted(vocabulary, key=vocabulary.__getitem__)
            (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


class Tokenised(NamedTuple):
    """Texts as token ids, without padding.

    Attributes:
        ids: int32 [tokens] for each text, special tokens included.
        truncated: number of texts that were cut.
    """

    ids: tuple[np.ndarray, ...]
    truncated: int


class Words(NamedTuple):
    """A text as token ids, and the positions of its words.

    Attributes:
        ids: int32 [tokens], special tokens included, as `tokenize` gives them.
        words: each word as written in the text, with the positions of its tokens; in order.
    """

    ids: np.ndarray
    words: tuple[tuple[str, tuple[int, ...]], ...]


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Tokenised:
    """Convert texts to token ids, cut to at most ``max_length`` tokens; the special tokens at the end are kept.

    Lone surrogates are read as U+FFFD. An empty text has only special tokens.

    Args:
        tokenizer: from `pretrained.load`.
        texts: any strings.
        max_length: greatest number of tokens of a text, special tokens included; at least 3.

    Returns:
        The ids of each text, and how many texts were cut.

    Raises:
        MetarecError: ``max_length`` is below 3, or a text is not a string.
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


def prompt_length(tokenizer: Tokenizer, prompt: str, max_length: int) -> int:
    """Number of tokens that a prompt takes at the start of each text, special tokens before it included.

    Args:
        tokenizer: from `pretrained.load`.
        prompt: text put before each text; "" takes none.
        max_length: greatest number of tokens of a text, prompt and special tokens included.

    Returns:
        The number, as sentence-transformers counts it.

    Raises:
        MetarecError: the prompt leaves no token of ``max_length`` for the text.
    """
    if not prompt:
        return 0
    # A space at the end of a prompt can be a token of its own, but belongs to the first word of a text.
    (ids,) = tokenize(tokenizer, [prompt.rstrip()], sys.maxsize).ids
    if len(ids) >= max_length:
        raise MetarecError(
            f"the prompt {prompt!r:.100} has {len(ids)} tokens with special ones, which leaves none of max_length "
            f"{max_length} for a text: give a shorter prompt (--encoder.query-prompt, --encoder.document-prompt) or a "
            "greater --encoder.max-length"
        )
    return len(ids) - tokenizer.tail


def words_of(tokenizer: Tokenizer, text: str, max_length: int, *, prompt: str = "") -> Words:
    """Split a text into words with the tokenizer's pre-tokenizer.

    Args:
        tokenizer: from `pretrained.load`.
        text: any string.
        max_length: greatest number of tokens; words beyond them are left out.
        prompt: text put before `text`; its words are left out.

    Returns:
        The ids of prompt and text, and the positions of the tokens of each word of the text.
    """
    start, text = len(prompt), _LONE_SURROGATE.sub("\ufffd", prompt + text)
    (ids,) = tokenize(tokenizer, [text], max_length).ids
    encoding = tokenizer.backend.encode(text)
    # A text that is too long loses tokens before the special ones at its end.
    kept = len(ids) if len(ids) == len(encoding.ids) else len(ids) - tokenizer.tail
    places: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids[:kept]):
        if word is not None:
            places.setdefault(word, []).append(place)
    spans = [(encoding.offsets[own[0]][0], encoding.offsets[own[-1]][1]) for own in places.values()]
    words = ((text[max(a, start) : b].strip(), tuple(own)) for (a, b), own in zip(spans, places.values()))
    return Words(ids, tuple(word for word, (_, b) in zip(words, spans) if b > start))


def require_strings(texts: Sequence[object]) -> None:
    """Refuse values that are not strings, such as the NaN of an empty cell; the error names row and value."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise MetarecError(f"text {row} is {text!r}, a {type(text).__name__}; the encoder reads strings only")


def tiny_wordpiece() -> Tokenizer:
    """Make a WordPiece tokenizer without files: it splits words into single characters and pairs of characters.

    Texts of distinct words get distinct tokens, which suffices for an untrained encoder.
    """
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pairs = [a + b for a in letters for b in letters]
    signs = [chr(c) for c in range(33, 127) if chr(c) not in letters and not chr(c).isupper()]
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    pieces = [*special, *letters, *signs, *pairs, *(f"##{p}" for p in [*letters, *pairs])]
    return Tokenizer(import_transformers().BertTokenizer(vocab={piece: row for row, piece in enumerate(pieces)}))


def read_tokenizer(folder: Path, *, lower_case: bool = False) -> Tokenizer:
    """Read the tokenizer of a checkpoint's folder with `AutoTokenizer`; no code of the folder is run.

    Args:
        folder: folder with a tokenizer.json, or with vocabulary files that transformers converts (see `FILES`).
        lower_case: whether texts are put in lower case first, if the tokenizer does not do so itself.

    Returns:
        The tokenizer, without padding and truncation.

    Raises:
        MetarecError: files are missing or damaged; the tokenizer is code in the folder, or exists in transformers only
            in Python; it has no token for unknown text; or the package sentencepiece is missing.
    """
    others = ("tokenizer.json", "vocab.txt", "vocab.json")
    spare = any((folder / name).exists() for name in others)
    if not spare and any(folder.glob("*.model")) and importlib.util.find_spec("sentencepiece") is None:
        raise MetarecError(
            f"{folder} holds its tokenizer as a SentencePiece model, which is read with the package sentencepiece: "
            "pip install 'metarec_jax[sentencepiece]'"
        )
    for name in FILES:
        _require_regular(folder / name)
    try:
        # An absolute path cannot be taken for a hub id.
        theirs = import_transformers().AutoTokenizer.from_pretrained(folder.absolute(), trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is not an Exception
        raise _unreadable(folder, error) from error
    kind = type(theirs).__name__
    if "auto_map" in theirs.init_kwargs:
        raise MetarecError(
            f"{folder / 'tokenizer_config.json'}: auto_map is {theirs.init_kwargs['auto_map']!r}: this tokenizer is "
            "code in the folder, which is not run; give a checkpoint with a tokenizer of transformers"
        )
    if not theirs.is_fast:
        raise MetarecError(
            f"{folder}: its tokenizer, {kind}, is one that transformers has in Python only; "
            "give a checkpoint with a tokenizer.json"
        )
    if not (folder / "tokenizer.json").exists():
        _check_vocabulary(folder, theirs)
    tokenizer = Tokenizer(theirs)
    if lower_case:
        _put_in_lower_case(tokenizer.backend)
    try:
        tokenizer.backend.encode(_UNCOMMON)
    except Exception as error:  # the library raises bare Exception
        raise MetarecError(
            f"{folder}: the tokenizer of {_present(folder)} cannot encode text that its vocabulary does not cover "
            f"({error}); it needs a token for what is unknown"
        ) from error
    return tokenizer


def _put_in_lower_case(backend: tokenizers.Tokenizer) -> None:
    """Put lower case before the other normalizers of a tokenizer, if they do not change the case."""
    from tokenizers import normalizers

    others = backend.normalizer
    if others is None or others.normalize_str("A").strip("_\u2581 ") != "a":
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([] if others is None else [others])])


def _require_regular(path: Path) -> None:
    """Refuse a file that transformers would leave out, or wait for, since it is a folder, a pipe or a device."""
    try:
        open_regular(path).close()
    except FileNotFoundError:
        return
    except OSError as error:
        raise MetarecError(f"{path} cannot be read ({error.strerror}): copy or download the folder again") from error


def _present(folder: Path) -> str:
    """Names of the tokenizer files in a folder, for a message."""
    return ", ".join(name for name in FILES if (folder / name).exists()) or "no file"


def _unreadable(folder: Path, error: BaseException) -> MetarecError:
    """Make the error for a folder whose tokenizer transformers cannot read; it names the line of damaged JSON."""
    for name in FILES:
        if name.endswith(".json") and (folder / name).exists():
            read_object(folder / name, "a part of the tokenizer")
    reason = " ".join(str(error).split())
    return MetarecError(
        f"{folder}: transformers cannot read the tokenizer of {_present(folder)} ({type(error).__name__}: {reason}); "
        f"{_NEEDED}. Copy or download the folder again"
    )


def _check_vocabulary(folder: Path, theirs: PreTrainedTokenizerFast) -> None:
    """Refuse a tokenizer for which transformers replaced a missing vocabulary or special tokens by defaults."""
    kind = type(theirs).__name__
    files = [name for key, name in theirs.vocab_files_names.items() if key != "tokenizer_file"]
    if not all((folder / name).exists() for name in files):
        raise MetarecError(
            f"{folder} holds no tokenizer: neither tokenizer.json nor {' and '.join(files)}, which a {kind} is read "
            f"from; {_NEEDED}"
        )
    vocabulary = theirs.backend_tokenizer.get_vocab(with_added_tokens=False)
    missing = [token for token in theirs.all_special_tokens if token not in vocabulary]
    if missing:
        raise MetarecError(
            f"{folder / files[0]}: the vocabulary has no {', '.join(missing)}; "
            f"a {kind} needs {', '.join(theirs.all_special_tokens)}"
        )
