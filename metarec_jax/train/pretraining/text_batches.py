"""Texts in batches of few shapes, with the word that each token belongs to.

A document that exceeds the encoder's maximum length (such as a user's history) is cut between sentences into passages,
at different places in every epoch. Any batch of any epoch can be made from its number alone, in any order.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Array
from metarec_jax.encoder import Tokenizer, Tokens, bucket, pack, require_strings

RARE = 0.2
"""Least share of an epoch's tokens for a padded length, since each length is compiled separately."""


class Document(NamedTuple):
    """A text as tokens, without special tokens.

    Attributes:
        ids: int32 [tokens].
        word: int32 [tokens], number of each token's word, ascending; -1 for a special token, such as that of an unknown
            word.
        sentence: int64 [tokens], number of each token's sentence, ascending.
    """

    ids: np.ndarray
    word: np.ndarray
    sentence: np.ndarray


class Passages(NamedTuple):
    """Texts padded to one length.

    Attributes:
        tokens: special tokens included.
        word: int32 [texts, length], number of each token's word; -1 for special tokens and padding.
    """

    tokens: Tokens
    word: Array


def documents(tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> list[Document]:
    """Tokenise texts that are given as lists of sentences.

    Args:
        tokenizer: its pre-tokenizer defines words.
        texts: sentences of each text; a text may have none.

    Returns:
        The tokens of each text.

    Raises:
        MetarecError: a sentence is not a string.
    """
    for sentences in texts:
        require_strings(sentences)
    readable = [[_readable(sentence) for sentence in sentences] for sentences in texts]
    encodings = tokenizer.backend.encode_batch([" ".join(s) for s in readable], add_special_tokens=False)
    special = [id for id, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special]
    found = []
    for sentences, encoding in zip(readable, encodings):
        # A space between sentences belongs to the following one, since some tokenizers make it part of the word.
        ends = np.cumsum([len(sentence) + 1 for sentence in sentences]) - 1
        last = np.array([end for _, end in encoding.offsets], np.int64)
        ids = np.array(encoding.ids, np.int32)
        word = np.array([-1 if word is None else word for word in encoding.word_ids], np.int32)
        found.append(Document(ids, np.where(np.isin(ids, special), -1, word), np.searchsorted(ends, last)))
    return found


def _readable(text: str) -> str:
    """Replace lone surrogates, which are not characters, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Frame(NamedTuple):
    """The special tokens around every text: int32 [before], int32 [after]."""

    before: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Frame:
        """The special tokens that a tokenizer adds."""
        encoding = tokenizer.backend.encode("a")
        special = np.array(encoding.special_tokens_mask, bool)
        ids, own = np.array(encoding.ids, np.int32), np.flatnonzero(~special)
        return cls(ids[: own[0]], ids[own[-1] + 1 :])


@dataclasses.dataclass(frozen=True, eq=False)
class PassageSource:
    """Batches of passages by number: ``source[i]`` is batch ``i % batches`` of epoch ``i // batches``.

    Every epoch has as many batches of each padded length as the first epoch fills; passages that exceed this number are
    left out.

    Args:
        documents: the documents; empty ones are ignored.
        frame: special tokens around a passage.
        max_length: greatest number of tokens of a passage, special tokens included.
        tokens_per_batch: greatest number of tokens of a batch, padding included; a batch has at least one passage.
        pad: id of the padding token.
        seed: seed of the draws.
        split: divisor of the number of passages in a batch (devices that share them).
        shuffled: False keeps the order of documents and cuts them from their beginnings.
    """

    documents: Sequence[Document]
    frame: Frame
    max_length: int
    tokens_per_batch: int
    pad: int
    seed: Sequence[int]
    split: int = 1
    shuffled: bool = True

    def __post_init__(self) -> None:
        if self._room < 1:
            raise MetarecError(
                f"max_length is {self.max_length}, which the {len(self.frame.before) + len(self.frame.after)} special "
                "tokens of this encoder fill; raise --encoder.max-length"
            )

    @property
    def _room(self) -> int:
        return self.max_length - len(self.frame.before) - len(self.frame.after)

    @functools.cached_property
    def cut(self) -> frozenset[bytes]:
        """Token ids of the documents with a sentence that is longer than a passage, and is therefore cut."""
        longest = [int(np.unique(d.sentence, return_counts=True)[1].max(initial=0)) for d in self.documents]
        return frozenset(d.ids.tobytes() for d, length in zip(self.documents, longest) if length > self._room)

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        """Padded lengths, ascending."""
        padded = np.array([self._bucket(end - start) for _, start, end in self._passages(0)], np.int64)
        if not len(padded):
            raise MetarecError("there is no text to read: every one of them is empty")
        lengths, counts = np.unique(padded, return_counts=True)
        share = lengths * counts / (lengths * counts).sum()
        kept = [int(n) for n, s in zip(lengths[:-1], share[:-1]) if s >= RARE]
        return np.array([*kept, int(lengths[-1])])

    def _bucket(self, tokens: int) -> int:
        return bucket(tokens + self.max_length - self._room, self.max_length)

    @functools.cached_property
    def rows(self) -> dict[int, int]:
        """Number of passages in a batch, by padded length."""
        return {n: -(-max(self.tokens_per_batch // n, 1) // self.split) * self.split for n in self._lengths.tolist()}

    @functools.cached_property
    def _batches_of(self) -> dict[int, int]:
        dealt = self._dealt(0)
        return {length: -(-len(dealt[length]) // rows) for length, rows in self.rows.items()}

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return sum(self._batches_of.values())

    def __getitem__(self, index: int) -> Passages:
        """Batch `index` as numpy arrays."""
        epoch, number = divmod(int(index), self.batches)
        length, chosen = self._plan(epoch)[number]
        rows = self.rows[length]
        parts = [self._framed(*passage) for passage in chosen]
        tokens = pack([ids for ids, _ in parts], length, pad=self.pad, rows=rows)
        word = np.full((rows, length), -1, np.int32)
        for row, (_, own) in enumerate(parts):
            word[row, : len(own)] = own
        return Passages(tokens, word)

    def _framed(self, document: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        own = self.documents[document]
        before, after = self.frame
        ids = np.concatenate([before, own.ids[start:end], after])
        return ids, np.concatenate([np.full(len(before), -1), own.word[start:end], np.full(len(after), -1)])

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a source lives as long as its run; batches of an epoch share this
    def _plan(self, epoch: int) -> list[tuple[int, list[tuple[int, int, int]]]]:
        """The batches of an epoch: padded length, and the passages."""
        dealt, plan = self._dealt(epoch), []
        for length, batches in self._batches_of.items():
            rows = self.rows[length]
            plan += [(length, dealt[length][k * rows : (k + 1) * rows]) for k in range(batches)]
        return [plan[k] for k in self._rng(epoch, 1).permutation(len(plan))] if self.shuffled else plan

    def _dealt(self, epoch: int) -> dict[int, list[tuple[int, int, int]]]:
        """The passages of an epoch by padded length."""
        passages = self._passages(epoch)
        order = self._rng(epoch, 2).permutation(len(passages)) if self.shuffled else range(len(passages))
        dealt: dict[int, list[tuple[int, int, int]]] = {length: [] for length in self._lengths.tolist()}
        for k in order:
            _, start, end = passages[k]
            dealt[int(self._lengths[np.searchsorted(self._lengths, self._bucket(end - start))])].append(passages[k])
        return dealt

    def _passages(self, epoch: int) -> list[tuple[int, int, int]]:
        """(document, first token, token after the last) of every passage of an epoch."""
        rng = self._rng(epoch, 0)
        found = []
        for number, document in enumerate(self.documents):
            cuts = self._cuts(document, rng)
            found += [(number, start, end) for start, end in itertools.pairwise(cuts)]
        return found

    def _cuts(self, document: Document, rng: np.random.Generator) -> list[int]:
        """First token of each passage, and end of the last passage."""
        total = len(document.ids)
        if total <= self._room:
            return [0, total] if total else []
        begins = np.flatnonzero(np.diff(document.sentence, prepend=-1))
        at = int(rng.choice(begins[begins < self._room])) if self.shuffled else 0
        cuts = [at]
        while total - at > self._room:
            fitting = begins[(begins > at) & (begins <= at + self._room)]
            at = int(fitting[-1]) if len(fitting) else at + self._room  # a sentence that is too long is cut
            cuts.append(at)
        # A short last passage would be mostly padding; with other cuts its tokens are part of a longer passage.
        return [*cuts, total] if not self.shuffled or total - at > self._room // 2 or len(cuts) == 1 else cuts

    def _rng(self, epoch: int, use: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, epoch, use])
