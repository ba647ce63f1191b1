"""Rivals: the same meta-gradient, computed by another library from plain arrays.

Every rival is a module with `LEARNED_RATES` and `prepare`, in `torch_reference/` (PyTorch alone) or `peers/` (other
packages for meta-learning). It is written for speed in the idiom of its library. `prepare` makes tensors, modules and
compiled programs once; gathering the rows of the table is part of the timed work.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol, cast

import numpy as np

Layers = dict[str, dict[str, np.ndarray]]

RIVALS = {
    "torch.func": "benchmarks.torch_reference.vmapped",
    "torch.func, all users at once": "benchmarks.torch_reference.vmapped_whole",
    "torch.func compiled": "benchmarks.torch_reference.compiled",
    "torch-loop": "benchmarks.torch_reference.loop",
    "higher": "benchmarks.peers.higher_loop",
    "torchopt": "benchmarks.peers.torchopt_vmap",
    "parallel-metalearn": "benchmarks.peers.parallel_metalearn",
    "jax-meta": "benchmarks.peers.jax_meta_maml",
}


class Unavailable(Exception):
    """A rival cannot run on this machine; the message states the reason and a remedy if there is one."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A batch of users and a network to adapt to each of them (MAML, Finn et al. 2017, algorithm 2, second order).

        logits = relu(x @ hidden.kernel + hidden.bias) / sqrt(hidden) @ output.kernel + output.bias + offset

    Inner step k takes exp(log_rate[k]) times the gradient of the mean cross-entropy over the user's support from every
    array of theta; every array has separate learned rates (LSLR, Antoniou et al. 2019, section 4). The loss is the
    mean cross-entropy over all query rows of all users after the last step.

    Attributes:
        table: [items, features], rows of the ids.
        support_ids: integers [users, support].
        support_labels: integers [users, support] from 0 to classes - 1.
        query_ids: integers [users, query].
        query_labels: integers [users, query].
        theta: {"hidden": {"kernel": [features, hidden], "bias": [hidden]},
            "output": {"kernel": [hidden, classes], "bias": [classes]}}.
        log_rate: a tree like theta with [steps] for every array.
        offset: [classes], a constant that is added to the logits.
    """

    table: np.ndarray
    support_ids: np.ndarray
    support_labels: np.ndarray
    query_ids: np.ndarray
    query_labels: np.ndarray
    theta: Layers
    log_rate: Layers
    offset: np.ndarray

    @property
    def users(self) -> int:
        return len(self.support_ids)

    @property
    def steps(self) -> int:
        return len(self.log_rate["hidden"]["kernel"])


class MetaGradient(NamedTuple):
    """The loss and its gradient; `log_rate` is None where a rival does not learn rates."""

    loss: float
    theta: Layers
    log_rate: Layers | None


class Rival(Protocol):
    """Interface of a rival's module.

    Attributes:
        LEARNED_RATES: whether every array has a learned rate at every step. If not, the rival takes a task with equal
            rates (`with_one_rate`), and computes no gradient with respect to them, which is slightly less work.
    """

    LEARNED_RATES: bool

    def prepare(self, task: Task) -> Callable[[], MetaGradient]:
        """A function that computes the whole meta-gradient each time it is called.

        Raises:
            Unavailable: it cannot run on this machine.
        """
        ...


def load(name: str, modules: Mapping[str, str] = RIVALS) -> Rival:
    """Import a rival.

    Args:
        name: name of the rival.
        modules: the module of each rival, by its name.

    Raises:
        Unavailable: a package that the rival needs is missing, or cannot be imported beside the others.
    """
    try:
        return cast(Rival, importlib.import_module(modules[name]))
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "benchmarks":  # a bug in this package
            raise
        raise Unavailable(f"{name} does not import ({error}): pip install 'metarec_jax[bench]'") from error


def with_one_rate(task: Task) -> Task:
    """`task` with every log rate replaced by their mean."""
    rates = [rate for arrays in task.log_rate.values() for rate in arrays.values()]
    mean = np.mean(rates, dtype=rates[0].dtype)
    log_rate = {
        layer: {name: np.full_like(rate, mean) for name, rate in arrays.items()}
        for layer, arrays in task.log_rate.items()
    }
    return dataclasses.replace(task, log_rate=log_rate)


def pieces(users: int, size: int) -> Iterator[slice]:
    """Slices of `size` users (the last may be shorter), whose gradients add up to the whole gradient.

    Micro-batches are faster, since the matrices of a few users fit a processor's cache; each rival has its own size.
    """
    return (slice(start, min(start + size, users)) for start in range(0, users, size))
