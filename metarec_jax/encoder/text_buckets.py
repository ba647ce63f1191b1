"""Texts that every training step encodes: tokenised once, stored in length buckets, and selected by row."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metarec_jax.core.types import Array
from metarec_jax.encoder.model_config import Tokens
from metarec_jax.encoder.padding import bucket, pack


class Picked(NamedTuple):
    """The texts of a bucket that a step encodes.

    Attributes:
        rows: int32 [capacity], rows of the bucket; those from `count` on are not encoded. For several devices, their
            rows are concatenated: [devices x capacity].
        count: int32 [], number of texts; [devices] for several devices.
    """

    rows: Array
    count: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """Distinct texts in buckets of one padded length each.

    Attributes:
        buckets: tokens of each bucket, shortest texts first.
        per_call: texts of each bucket that are encoded at the same time.
        bucket_of, row_of: int64 [texts], bucket of each text (repeated texts included), and its row there.
    """

    buckets: tuple[Tokens, ...]
    per_call: tuple[int, ...]
    bucket_of: np.ndarray
    row_of: np.ndarray

    @classmethod
    def of(
        cls,
        ids: Sequence[np.ndarray],
        *,
        limit: int,
        tokens_per_call: int,
        pad: int = 0,
        split: int = 1,
        devices: int = 1,
        skip: Sequence[int] = (),
    ) -> Texts:
        """Sort texts into length buckets.

        Args:
            ids: int32 [tokens] for each text.
            limit: greatest number of tokens that the encoder takes.
            tokens_per_call: greatest number of tokens in one call; a call has at least one text.
            pad: id of the padding token.
            split: divisor of the number of texts in a call (devices that share a call).
            devices: number of devices, each of which encodes its share of the texts in separate calls.
            skip: for each text the number of first tokens that mean pooling leaves out; empty for none.

        Returns:
            The bucketed texts.
        """
        skip = skip or [0] * len(ids)
        keys = [(text.tobytes(), left_out) for text, left_out in zip(ids, skip)]
        lengths = _merged(np.array([bucket(len(text), limit) for text in ids], np.int64), tokens_per_call * devices)
        bucket_of, row_of = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
        buckets, per_call = [], []
        for number, length in enumerate(np.unique(lengths).tolist()):
            place: dict[tuple[bytes, int], int] = {}
            own = []
            for text in np.flatnonzero(lengths == length).tolist():
                if keys[text] not in place:
                    place[keys[text]] = len(own)
                    own.append(text)
                bucket_of[text], row_of[text] = number, place[keys[text]]
            members = [ids[text] for text in own]
            buckets.append(pack(members, length, pad=pad, skip=[skip[text] for text in own]))
            per_call.append(-(-texts_of_call(tokens_per_call, length, -(-len(own) // devices)) // split) * split)
        return cls(tuple(buckets), tuple(per_call), bucket_of, row_of)

    def capacities(self, most: int, devices: int = 1) -> list[int]:
        """Number of slots of each bucket in a step, a multiple of ``per_call``.

        Args:
            most: greatest number of distinct texts in a step; with several devices, of those that one device encodes.
            devices: number of devices that share the texts.

        Returns:
            Slots of each bucket.
        """
        sizes = [min(-(-len(tokens.ids) // devices), most) for tokens in self.buckets]
        return [-(-size // rows) * rows for size, rows in zip(sizes, self.per_call)]

    def pick(self, used: np.ndarray, real: np.ndarray, most: int) -> tuple[tuple[Picked, ...], np.ndarray]:
        """Pick the distinct texts of a batch, and number the slots of their embeddings.

        Args:
            used: int [...], rows of texts.
            real: bool [...], False where an entry is padding, which needs no text.
            most: greatest number of distinct texts in any batch.

        Returns:
            The rows to encode of each bucket, and int32 [...]: the slot of each entry's embedding (0 for padding).
        """
        slot_of = np.zeros(len(self.row_of), np.int64)
        texts = np.unique(used[real])
        picked, offset = [], 0
        for number, capacity in enumerate(self.capacities(most)):
            members = texts[self.bucket_of[texts] == number]
            rows, place = np.unique(self.row_of[members], return_inverse=True)
            slot_of[members] = offset + place
            picked.append(Picked(np.pad(rows, (0, capacity - len(rows))).astype(np.int32), np.int32(len(rows))))
            offset += capacity
        return tuple(picked), np.where(real, slot_of[used], 0).astype(np.int32)

    def pick_shared(
        self, used: np.ndarray, real: np.ndarray, most: int, devices: int
    ) -> tuple[tuple[Picked, ...], np.ndarray]:
        """Pick texts for devices that divide them: each encodes a part, and receives the embeddings of all.

        Args:
            used, real, most: as for `pick`.
            devices: number of devices.

        Returns:
            As `pick`; slots number the embeddings of the first device, then those of the second, and so on.
        """
        picked, slots = self.pick(used, real, most)
        capacities = self.capacities(-(-most // devices), devices)
        own = sum(capacities)
        old_start = np.cumsum([0, *self.capacities(most)])
        start = np.cumsum([0, *capacities])
        bucket = np.searchsorted(old_start, slots, side="right") - 1
        within = slots - old_start[bucket]  # text number so many of its bucket goes to the device of that remainder
        moved = (within % devices) * own + start[bucket] + within // devices
        shared = []
        for of_bucket, capacity in zip(picked, capacities):
            dealt = np.zeros((devices, capacity), np.int32)
            counts = np.zeros(devices, np.int32)
            for device in range(devices):
                rows = of_bucket.rows[: of_bucket.count][device::devices]
                dealt[device, : len(rows)], counts[device] = rows, len(rows)
            shared.append(Picked(dealt.ravel(), counts))
        return tuple(shared), np.where(real, moved, 0).astype(np.int32)

    def pick_apart(
        self, used: np.ndarray, real: np.ndarray, most: int, devices: int
    ) -> tuple[tuple[Picked, ...], np.ndarray]:
        """Pick texts for devices that each encode the texts of their own users.

        Args:
            used, real: as for `pick`; they are split evenly along their first axis.
            most: greatest number of distinct texts of a device.
            devices: number of devices.

        Returns:
            As `pick`; slots number the embeddings of the device itself.
        """
        parts = [
            self.pick(own, own_real, most)
            for own, own_real in zip(np.split(used, devices), np.split(real, devices), strict=True)
        ]
        picked = tuple(
            Picked(np.concatenate([p.rows for p in of_bucket]), np.stack([p.count for p in of_bucket]))
            for of_bucket in zip(*(picked for picked, _ in parts))
        )
        return picked, np.concatenate([slots for _, slots in parts])

    def everything(self) -> tuple[tuple[Picked, ...], np.ndarray]:
        """Pick all texts; the slots are in the order of the texts."""
        rows = np.arange(len(self.row_of))
        return self.pick(rows, np.ones(len(rows), bool), len(rows))


def texts_of_call(tokens_per_call: int, length: int, texts: int) -> int:
    """Number of texts that one call encodes.

    Args:
        tokens_per_call: greatest number of tokens in one call.
        length: padded tokens of a text.
        texts: number of texts.

    Returns:
        The number, at least 1.
    """
    return max(min(tokens_per_call // length, texts), 1)


def _merged(lengths: np.ndarray, tokens_per_call: int) -> np.ndarray:
    """Merge length buckets of few texts, since each length is compiled separately.

    Texts of a length that do not fill one call move to the next length, if there is one.
    """
    lengths = lengths.copy()
    present = np.unique(lengths)
    for length, longer in itertools.pairwise(present.tolist()):
        if (lengths == length).sum() * length < tokens_per_call:
            lengths[lengths == length] = longer
    return lengths
