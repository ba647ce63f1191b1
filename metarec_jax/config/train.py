"""Options of the outer loop."""

from __future__ import annotations

import dataclasses

from metarec_jax.config.checks import require_types


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
    """Number of devices that the users of a step, and the tables of item factors while they are fitted, are divided
    among; 0 takes all."""
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
