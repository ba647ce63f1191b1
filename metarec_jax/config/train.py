"""Choices of the outer loop."""

from __future__ import annotations

import dataclasses
import math

from metarec_jax.config.checks import require


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The outer loop."""

    epochs: int = 60
    """Passes over the training users, at most."""
    users_per_step: int = 32
    """Users whose query losses make one outer step."""
    rate: float = 3e-3
    """Outer learning rate at its peak."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises from 0."""
    weight_decay: float = 1e-2
    clip: float = 1.0
    """Greatest norm of an outer gradient."""
    patience: int = 8
    """Epochs without a better validation loss before training stops; 0 never stops early."""
    save_every: int = 1
    """Epochs between checkpoints."""
    devices: int = 0
    """Devices that share the users; 0 takes all."""
    shards: int = 1
    """Devices that hold one copy of a trained encoder and of its optimiser's state, each a part; they gather a layer
    where it is used. More than one makes room for larger encoders (best with encoder.remat)."""
    begin: str = ""
    """A run whose learned parameters training begins with, in place of random ones: to train on on what
    `metarec feedback --export` wrote, say. Such a run is not evaluated, since whom the earlier one learned from is not
    known."""
    users_per_device: int = 32
    """Users that a device computes at the same time; an outer step of more users adds up the gradients of several such
    micro-batches. 0 finds the most that fit in the device's memory. One, where an encoder is trained with
    privacy.epsilon."""

    def __post_init__(self) -> None:
        for name in ("epochs", "users_per_step", "save_every", "shards"):
            value = getattr(self, name)
            require(value >= 1, f"train.{name} is {value}; it must be at least 1")
        for name in ("rate", "clip"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"train.{name} is {value}; it must be a finite number above 0")
        require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"train.weight_decay is {self.weight_decay}; it must be a finite number of at least 0",
        )
        require(0 <= self.warmup <= 1, f"train.warmup is {self.warmup}; it is a share of the steps, 0 to 1")
        require(self.patience >= 0, f"train.patience is {self.patience}; it must be 0 or more")
        require(self.devices >= 0, f"train.devices is {self.devices}; it must be 0 (all) or more")
        require(
            self.users_per_device >= 0,
            f"train.users_per_device is {self.users_per_device}; it must be 0 (as many as fit) or more",
        )
