"""Options of the outer loop."""

from __future__ import annotations

import dataclasses
import math

from metarec_jax.config.checks import require, require_types


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The outer loop."""

    epochs: int = 60
    """Most passes over the training users."""
    users_per_step: int = 32
    """Users of an outer step."""
    rate: float = 3e-3
    """Peak of the outer learning rate."""
    weight_decay: float = 1e-2
    """Weight decay of matrices (AdamW)."""
    patience: int = 8
    """Epochs without a better validation loss after which training stops; 0 never stops early."""
    devices: int = 0
    """Number of devices that the users are divided among; 0 takes all."""
    shards: int = 1
    """Devices that hold one copy of a trained encoder and of its optimizer's state, each a part. They gather a layer
    where it is used, and compute it again in the backward pass: room for larger encoders, for more time."""
    begin: str = ""
    """Run folder whose parameters training starts from, for example to continue on what `metarec feedback --export`
    wrote. Such a run is not evaluated, since the training users of the earlier run are not known."""
    users_per_device: int = 32
    """Users that a device computes at a time; a larger outer step adds up the gradients of several such micro-batches.
    0 finds the largest number that fits in the device's memory."""

    def __post_init__(self) -> None:
        require_types(self, "train")
        for name in ("epochs", "users_per_step", "shards"):
            value = getattr(self, name)
            require(value >= 1, f"train.{name} is {value}; it must be at least 1")
        require(
            math.isfinite(self.rate) and self.rate > 0,
            f"train.rate is {self.rate}; it must be a finite number above 0",
        )
        require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"train.weight_decay is {self.weight_decay}; it must be a finite number of at least 0",
        )
        require(self.patience >= 0, f"train.patience is {self.patience}; it must be 0 or more")
        require(self.devices >= 0, f"train.devices is {self.devices}; it must be 0 (all) or more")
        require(
            self.users_per_device >= 0,
            f"train.users_per_device is {self.users_per_device}; it must be 0 (as many as fit) or more",
        )
