"""Items that a training user meets as if nobody had rated them, so that a model learns what to make of new ones.

What other users' ratings taught of such an item is dropped, and what follows from the item itself takes its place: from
its text, its details and its vector, each of which may be dropped as well (dropout of sources).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class AsNew(NamedTuple):
    """Beliefs about items as if nobody had rated them.

    Attributes:
        parts: float32 [sources, folds, items, columns], what each source adds to the belief.
        share: of the items that are met so.
        without: float64 [sources], of these the share that does without a source.
    """

    parts: np.ndarray
    share: float
    without: np.ndarray

    @property
    def lots(self) -> int:
        """Numbers that are drawn for each row: one for the item, and one for each source."""
        return 1 + len(self.without)

    def of(self, fold: np.ndarray, item: np.ndarray, lot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which rows are met so, and the beliefs about their items.

        Args:
            fold: int [...], of each row's user.
            item: int [...].
            lot: float [..., lots], drawn evenly between 0 and 1.

        Returns:
            bool [...], and float32 [..., columns].
        """
        belief = np.zeros((*item.shape, self.parts.shape[-1]), np.float32)
        for number, (part, without) in enumerate(zip(self.parts, self.without)):
            belief += np.where(lot[..., 1 + number, None] >= without, part[fold, item], 0.0)
        return lot[..., 0] < self.share, belief
