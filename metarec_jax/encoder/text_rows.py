"""Texts that every training step encodes: tokenised once; each step packs those that it uses into rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.core.types import Array
from metarec_jax.encoder.row_packing import CALLS, Plan, most_rows, pack_rows, plan_alone, plan_rows

NOWHERE = np.iinfo(np.int32).max
"""Slot of a place in a row that holds no text."""


class TextRows(NamedTuple):
    """Rows of one length, each with several texts one after another.

    For several devices, their arrays are concatenated along the first axis.

    Attributes:
        ids: int32 [rows, length], tokens; those from row `count` on are padding.
        lengths: int32 [rows, texts], tokens of each text of a row; 0 where there is none.
        slots: int32 [rows, texts], slot of each text's embedding; `NOWHERE` where there is none.
        count: int32 [], number of rows that hold texts; [devices] for several devices.
        skip: int32 [rows, texts], number of first tokens of each text that mean pooling leaves out; None for none.
    """

    ids: Array
    lengths: Array
    slots: Array
    count: Array
    skip: Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """Distinct texts, and the shapes of the rows into which a step packs them.

    Attributes:
        ids: int32 [tokens], the tokens of all distinct texts, one after another.
        start, size, skip: int64 [distinct texts], where a text's tokens start, their number, and the number of first
            tokens that mean pooling leaves out.
        text_of: int64 [texts], distinct text of each text.
        pad: id of the padding token.
        plan: shapes of the rows.
    """

    ids: np.ndarray
    start: np.ndarray
    size: np.ndarray
    skip: np.ndarray
    text_of: np.ndarray
    pad: int
    plan: Plan

    @classmethod
    def of(
        cls,
        ids: Sequence[np.ndarray],
        *,
        tokens_per_call: int,
        most: int = 0,
        width: int = 384,
        shortest_row: int = 32,
        calls: int = CALLS,
        pad: int = 0,
        split: int = 1,
        skip: Sequence[int] = (),
        alone: int = 0,
    ) -> Texts:
        """Find the distinct texts, and choose the shapes of their rows.

        Args:
            ids: int32 [tokens] for each text.
            tokens_per_call: greatest number of tokens in one call; a call has at least one row.
            most: greatest number of texts that a device encodes in a step; 0 for all.
            width: hidden size of the encoder.
            shortest_row: least number of tokens of a row of several texts.
            calls: least number of calls of a step.
            pad: id of the padding token.
            split: divisor of the number of rows in a call (devices that share a call).
            skip: for each text the number of first tokens that mean pooling leaves out; empty for none.
            alone: greatest number of tokens of a row, if each text has its own row; 0 packs several into a row.

        Returns:
            The texts.
        """
        number: dict[tuple[bytes, int], int] = {}
        text_of = [number.setdefault(key, len(number)) for key in _keys(ids, skip)]
        first = np.unique(text_of, return_index=True)[1]
        own = [ids[text] for text in first]
        size = np.array([len(text) for text in own], np.int64)
        left_out = np.array([skip[text] for text in first] if any(skip) else np.zeros(len(own)), np.int64)
        taken, most = np.maximum(size, 1), most or len(own)
        if alone:
            plan = plan_alone(taken, most, tokens_per_call=tokens_per_call, limit=alone, split=split)
        else:
            options = {"tokens_per_call": tokens_per_call, "shortest_row": shortest_row, "calls": calls, "split": split}
            plan = plan_rows(taken, most, width=width, **options)
        start = np.cumsum(size) - size
        return cls(np.concatenate(own), start, size, left_out, np.array(text_of, np.int64), pad, plan)

    def slots(self, most: int) -> int:
        """Number of slots of embeddings for at most `most` texts."""
        return min(len(self.size), most)

    def pick(self, used: np.ndarray, real: np.ndarray, most: int) -> tuple[tuple[TextRows, ...], np.ndarray]:
        """Pack the distinct texts of a batch, and number the slots of their embeddings.

        Args:
            used: int [...], numbers of texts.
            real: bool [...], False where an entry is padding, which needs no text.
            most: greatest number of distinct texts in any batch.

        Returns:
            The rows, and int32 [...]: the slot of each entry's embedding (0 for padding).
        """
        texts = np.unique(self.text_of[used[real]])
        return self._packed(texts, most), self._slots(used, real, texts, np.arange(len(texts)))

    def pick_shared(
        self, used: np.ndarray, real: np.ndarray, most: int, devices: int
    ) -> tuple[tuple[TextRows, ...], np.ndarray]:
        """Pack texts for devices that divide them: each encodes a part, and receives the embeddings of all.

        Args:
            used, real, most: as for `pick`.
            devices: number of devices.

        Returns:
            As `pick`; slots number the embeddings of the first device, then those of the second, and so on.
        """
        texts = np.unique(self.text_of[used[real]])
        texts = texts[np.argsort(self.size[texts], kind="stable")]
        own, number = -(-most // devices), np.arange(len(texts))
        parts = [self._packed(texts[device::devices], own) for device in range(devices)]
        order = np.argsort(texts)
        slots = number % devices * self.slots(own) + number // devices
        return _together(parts), self._slots(used, real, texts[order], slots[order])

    def pick_apart(
        self, used: np.ndarray, real: np.ndarray, most: int, devices: int
    ) -> tuple[tuple[TextRows, ...], np.ndarray]:
        """Pack texts for devices that each encode the texts of their own users.

        Args:
            used, real: as for `pick`; they are split evenly along their first axis.
            most: greatest number of distinct texts of a device.
            devices: number of devices.

        Returns:
            As `pick`; slots number the embeddings of the device itself.
        """
        split = zip(np.split(used, devices), np.split(real, devices), strict=True)
        parts = [self.pick(own, own_real, most) for own, own_real in split]
        return _together([rows for rows, _ in parts]), np.concatenate([slots for _, slots in parts])

    def everything(self) -> tuple[tuple[TextRows, ...], np.ndarray]:
        """Pack all texts; the slots are in the order of the texts."""
        every = np.arange(len(self.text_of))
        return self.pick(every, np.ones(len(every), bool), len(every))

    def _slots(self, used: np.ndarray, real: np.ndarray, texts: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Slot of each entry, from that of each of some `texts`, ascending."""
        slot_of = np.zeros(len(self.size), np.int64)
        slot_of[texts] = slots
        return np.where(real, slot_of[self.text_of[np.where(real, used, 0)]], 0).astype(np.int32)

    def _packed(self, texts: np.ndarray, most: int) -> tuple[TextRows, ...]:
        """Pack some distinct texts, of which the first has slot 0, and so on."""
        taken, plan = np.maximum(self.size, 1), self.plan
        alone = max(plan.texts) == 1
        packing = pack_rows(taken[texts], plan.lengths, alone=alone)
        order = np.lexsort((-taken[texts], packing.row))  # by row, longest first
        row, size = packing.row[order], self.size[texts[order]]
        begins = np.searchsorted(row, np.arange(len(packing.kind)))  # first text of each row
        place = np.arange(len(row)) - begins[row]
        before = np.cumsum(size) - size
        offset = before - before[begins[row]]  # tokens of the row before a text
        rank = np.zeros(len(packing.kind), np.int64)  # of a row among those of its kind
        found = []
        for kind, rows in enumerate(most_rows(taken, plan, most)):
            own = packing.kind == kind
            rank[own] = np.arange(own.sum())
            mine = own[row]
            length, shape, at = plan.lengths[kind], (rows, plan.texts[kind]), (rank[row[mine]], place[mine])
            ids = np.full((rows, length), self.pad, np.int32)
            tokens = _ranges(size[mine])
            ids.reshape(-1)[np.repeat(at[0] * length + offset[mine], size[mine]) + tokens] = self.ids[
                np.repeat(self.start[texts[order[mine]]], size[mine]) + tokens
            ]
            lengths, slots, skip = (np.full(shape, fill, np.int32) for fill in (0, NOWHERE, 0))
            lengths[at], slots[at], skip[at] = size[mine], order[mine], self.skip[texts[order[mine]]]
            found.append(TextRows(ids, lengths, slots, np.int32(own.sum()), skip if self.skip.any() else None))
        return tuple(found)


def _keys(ids: Sequence[np.ndarray], skip: Sequence[int]) -> list[tuple[bytes, int]]:
    return [(text.tobytes(), left_out) for text, left_out in zip(ids, skip or [0] * len(ids))]


def _ranges(sizes: np.ndarray) -> np.ndarray:
    """0, 1, ..., size - 1 for each size, one after another."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _together(parts: Sequence[tuple[TextRows, ...]]) -> tuple[TextRows, ...]:
    """Rows of several devices."""

    def joined(*leaves: Any) -> Any:
        return None if leaves[0] is None else np.concatenate([np.atleast_1d(leaf) for leaf in leaves])

    return tuple(TextRows(*(joined(*leaves) for leaves in zip(*kind))) for kind in zip(*parts))
