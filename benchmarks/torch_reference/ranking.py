"""Adapt and rank in PyTorch: every user's own matrices, then every item scored with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.func import grad, vmap

from benchmarks.rivals import Task, pieces
from benchmarks.torch_reference.network import Rows, hidden, loss, output, tensors

USERS_AT_ONCE = 16
Ranked = tuple[np.ndarray, np.ndarray]
"""Scores [users, k] and rows of items [users, k]."""


def loop(task: Task, k: int) -> Callable[[], Ranked]:
    """One user after another, with `torch.autograd.grad`."""
    theta = {name: tensor.requires_grad_() for name, tensor in tensors(task.theta).items()}
    rates = {name: values.exp() for name, values in tensors(task.log_rate).items()}
    offset, rows = torch.tensor(task.offset), Rows.of(task)
    levels = torch.arange(1, len(task.offset) + 1, dtype=offset.dtype)

    def run() -> Ranked:
        found = []
        for ids, labels in zip(rows.support_ids, rows.support_labels):
            adapted = list(theta.values())
            for step in range(task.steps):
                inner = loss(dict(zip(theta, adapted)), offset, rows.table[ids], labels)
                gradient = torch.autograd.grad(inner, adapted)
                moved = zip(adapted, rates.values(), gradient)
                adapted = [(array - rate[step] * g).detach().requires_grad_() for array, rate, g in moved]
            with torch.inference_mode():
                own = dict(zip(theta, adapted))
                features = hidden(own["hidden.kernel"], own["hidden.bias"], rows.table)
                logits = output(own["output.kernel"], own["output.bias"], offset, features)
                scores = (logits.softmax(-1) @ levels).index_fill(0, ids, -torch.inf)
                found.append(scores.topk(k))
        return np.stack([f.values.numpy() for f in found]), np.stack([f.indices.numpy() for f in found])

    return run


def vmapped(task: Task, k: int, users_at_once: int = USERS_AT_ONCE) -> Callable[[], Ranked]:
    """A batch of users with `torch.func`, a few at a time, without a graph."""
    theta = tensors(task.theta)
    rates = {name: values.exp().unbind() for name, values in tensors(task.log_rate).items()}
    offset, rows = torch.tensor(task.offset), Rows.of(task)
    levels = torch.arange(1, len(task.offset) + 1, dtype=offset.dtype)

    def score(support: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        adapted = theta
        for step in range(task.steps):
            gradient = grad(loss)(adapted, offset, support, labels)
            adapted = {name: array - rates[name][step] * gradient[name] for name, array in adapted.items()}
        features = hidden(adapted["hidden.kernel"], adapted["hidden.bias"], rows.table)
        return output(adapted["output.kernel"], adapted["output.bias"], offset, features).softmax(-1) @ levels

    def run() -> Ranked:
        found = []
        with torch.no_grad():
            for users in pieces(task.users, users_at_once):
                ids = rows.support_ids[users]
                scores = vmap(score)(rows.table[ids], rows.support_labels[users])
                found.append(scores.scatter(1, ids, -torch.inf).topk(k))
        return np.concatenate([f.values.numpy() for f in found]), np.concatenate([f.indices.numpy() for f in found])

    return run
