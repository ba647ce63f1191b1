"""Level (a), the textbook model: each pair's user text and item text through BERT, two linear layers, Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.torch_reference.encoder import embed


def padded(texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask [texts, longest]."""
    length = max(map(len, texts))
    ids, mask = (torch.zeros((len(texts), length), dtype=kind) for kind in (torch.long, torch.bool))
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = True
    return ids, mask


def step(
    model: Any,
    head: dict[str, np.ndarray],
    users: Sequence[np.ndarray],
    items: Sequence[np.ndarray],
    labels: np.ndarray,
) -> Callable[[], float]:
    """Make a training step on some pairs, which returns the loss before it.

    Args:
        model: transformers' BertModel, trained with the rest.
        head: "hidden" [2 * width, hidden], "hidden_bias", "output" [hidden, classes], "output_bias".
        users, items: token ids of each pair's texts.
        labels: int [pairs].
    """
    of_users, of_items = padded(users), padded(items)
    wanted = torch.tensor(labels, dtype=torch.long)
    layers = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in head.items()}
    optimiser = torch.optim.Adam([*model.parameters(), *layers.values()], lr=2e-5)

    def run() -> float:
        optimiser.zero_grad(set_to_none=True)
        both = torch.cat([embed(model, *of_users), embed(model, *of_items)], dim=-1)
        hidden = torch.relu(both @ layers["hidden"] + layers["hidden_bias"])
        loss = F.cross_entropy(hidden @ layers["output"] + layers["output_bias"], wanted)
        loss.backward()
        optimiser.step()
        return loss.item()

    return run
