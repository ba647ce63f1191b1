"""The tracker "tensorboard": metrics as event files in the run folder, for ``tensorboard --logdir``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarec_jax.core.extras import needs_extra
from metarec_jax.core.kinds import TRACKERS

with needs_extra("tensorboard"):
    from tensorboardX import SummaryWriter


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Writes event files into ``tensorboard`` of the run folder.

    Args:
        folder: the run folder.
        config: the config, which is written as a text.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        folder = folder / "tensorboard"
        folder.mkdir(exist_ok=True)
        # A name holds the second at which a file was opened. Without a number, a training that is resumed within the
        # same second would replace the file of the one before.
        number = sum(1 for _ in folder.iterdir())
        self._writer = SummaryWriter(str(folder), flush_secs=10, filename_suffix=f".{number:06d}")
        rows = (f"    {section}: {options}" for section, options in config.items())
        self._writer.add_text("config", "\n".join(rows))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write numbers.

        Args:
            step: number of training steps taken.
            metrics: numbers by name.
        """
        for name, number in metrics.items():
            self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
