"""A task in PyTorch: flat dicts of tensors with names of a module's parameters, and the network as functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.rivals import Layers, MetaGradient, Task

Tensors = dict[str, torch.Tensor]


def tensors(layers: Layers) -> Tensors:
    """Separate tensors, by names such as "hidden.kernel"."""
    return {
        f"{layer}.{name}": torch.tensor(array) for layer, arrays in layers.items() for name, array in arrays.items()
    }


def layers(tensors: Tensors) -> Layers:
    """The inverse of `tensors`."""
    nested: Layers = {}
    for path, tensor in tensors.items():
        layer, name = path.split(".")
        nested.setdefault(layer, {})[name] = tensor.detach().cpu().numpy()
    return nested


def gradients(tensors: Tensors) -> Tensors:
    """Gradients that backward passes accumulated in `tensors`."""
    return {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}


class Learned(NamedTuple):
    """The leaves of the backward pass."""

    theta: Tensors
    log_rate: Tensors

    @classmethod
    def of(cls, task: Task) -> Learned:
        """Leaves with the values of `task`."""
        learned = cls(tensors(task.theta), tensors(task.log_rate))
        for tensor in learned.leaves():
            tensor.requires_grad_()
        return learned

    def leaves(self) -> Iterable[torch.Tensor]:
        return (*self.theta.values(), *self.log_rate.values())

    def zero_grad(self) -> None:
        """Reset all gradients."""
        for tensor in self.leaves():
            tensor.grad = None

    def gradient(self, loss: float) -> MetaGradient:
        """`loss`, and the gradients that were accumulated in the leaves."""
        return MetaGradient(loss, layers(gradients(self.theta)), layers(gradients(self.log_rate)))


class Episodes(NamedTuple):
    """Features [users, rows, features] and labels [users, rows]."""

    support: torch.Tensor
    support_labels: torch.Tensor
    query: torch.Tensor
    query_labels: torch.Tensor


class Rows(NamedTuple):
    """The table [items, features], and each user's rows of it: ids and labels [users, rows]."""

    table: torch.Tensor
    support_ids: torch.Tensor
    support_labels: torch.Tensor
    query_ids: torch.Tensor
    query_labels: torch.Tensor

    @classmethod
    def of(cls, task: Task) -> Rows:
        """Rows of a task, with ids and labels as 64-bit integers, which PyTorch needs."""
        of_users = (task.support_ids, task.support_labels, task.query_ids, task.query_labels)
        return cls(torch.tensor(task.table), *(torch.tensor(field, dtype=torch.int64) for field in of_users))

    def some(self, users: slice) -> Rows:
        """The rows of `users`."""
        return Rows(self.table, *(field[users] for field in self[1:]))

    def gather(self) -> Episodes:
        """Gather the features of the ids."""
        support, query = (F.embedding(ids, self.table) for ids in (self.support_ids, self.query_ids))
        return Episodes(support, self.support_labels, query, self.query_labels)


def hidden(kernel: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The first layer."""
    return torch.relu(x @ kernel + bias) / math.sqrt(len(bias))


def output(kernel: torch.Tensor, bias: torch.Tensor, offset: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The second layer: logits."""
    return x @ kernel + bias + offset


def loss(theta: Tensors, offset: torch.Tensor, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of one user's rows.

    Args:
        theta: the network's parameters.
        offset: [classes], added to the logits.
        x: [rows, features].
        labels: [rows].
    """
    features = hidden(theta["hidden.kernel"], theta["hidden.bias"], x)
    return F.cross_entropy(output(theta["output.kernel"], theta["output.bias"], offset, features), labels)


class Rates:
    """Rates as leaves that the backward passes of many users can share.

    Each backward pass frees its graph, so the common part from a log rate to its rate is passed once, at the end.

    Args:
        log_rate: [steps] for every array.

    Attributes:
        at: rate of every array, for every step.
    """

    def __init__(self, log_rate: Tensors):
        self._rates = [values.exp() for values in log_rate.values()]
        leaves = ([rate.detach().requires_grad_() for rate in values] for values in self._rates)
        self.at = [list(rates) for rates in zip(*leaves)]

    def backward(self) -> None:
        """Propagate the gradients accumulated in `at` to `log_rate`."""
        gathered = [torch.stack([rate.grad for rate in leaves]) for leaves in zip(*self.at)]
        torch.autograd.backward(self._rates, gathered)


class Hidden(nn.Module):
    """`hidden` as a module. Modules ignore keywords that a library passes to every module."""

    def __init__(self, kernel: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.kernel, self.bias = nn.Parameter(kernel), nn.Parameter(bias)

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return hidden(self.kernel, self.bias, x)


class Output(nn.Module):
    """`output` as a module."""

    def __init__(self, kernel: torch.Tensor, bias: torch.Tensor, offset: torch.Tensor):
        super().__init__()
        self.kernel, self.bias, self.offset = nn.Parameter(kernel), nn.Parameter(bias), offset

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return output(self.kernel, self.bias, self.offset, x)


class Network(nn.Module):
    """Both layers: logits."""

    def __init__(self, theta: Tensors, offset: torch.Tensor):
        super().__init__()
        self.hidden = Hidden(theta["hidden.kernel"], theta["hidden.bias"])
        self.output = Output(theta["output.kernel"], theta["output.bias"], offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.hidden(x))
