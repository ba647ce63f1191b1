"""Saving and restoring of training states with orbax.

A checkpoint is atomic: the state (theta, phi, optimiser, step, key) and, as JSON, the position in the data and the
progress of training. Orbax writes to a temporary folder and renames it, so that a crash leaves either the whole
checkpoint or none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from metarec_jax.core.atomic_files import explained
from metarec_jax.core.errors import MetarecError

Tree = TypeVar("Tree")
Read = TypeVar("Read")


Sums = Mapping[str, tuple[float, float]]
"""Sum and weight of each loss, by name."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a training, as stored in a checkpoint.

    Attributes:
        step: number of steps taken.
        epoch: number of finished stretches (epochs of meta-training).
        position: position of the feed, as JSON.
        sums: losses since the last evaluation.
        best_epoch, best_step: epoch and step of the best evaluation; 0 before the first one.
        best_loss: loss of the best evaluation.
        finished: whether training has ended, at its last step or by early stopping.
    """

    step: int
    epoch: int
    position: dict[str, Any]
    sums: Sums
    best_epoch: int
    best_step: int
    best_loss: float
    finished: bool

    @classmethod
    def at_start(cls) -> Progress:
        """The progress before the first step."""
        return cls(0, 0, {}, {}, 0, 0, 1e30, False)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Progress:
        """Read the output of `dataclasses.asdict`, also of version 0.1, which had a single loss "query"."""
        fields: dict[str, Any] = dict(tree)
        if "iterator" in fields:
            fields["position"] = fields.pop("iterator")
            query, rows = fields.pop("epoch_query"), fields.pop("epoch_rows")
            fields["sums"] = {"loss": (query, rows)} if rows else {}
        fields["sums"] = {name: (total, weight) for name, (total, weight) in fields["sums"].items()}
        return cls(**fields)

    def plus(self, more: Sums) -> Progress:
        """The progress after one more step with these losses."""
        sums = dict(self.sums)
        for name, (total, weight) in more.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = before[0] + total, before[1] + weight
        return dataclasses.replace(self, step=self.step + 1, sums=sums)

    def means(self) -> dict[str, float]:
        """Mean of each loss since the last evaluation."""
        return {name: total / weight for name, (total, weight) in self.sums.items() if weight}


class Checkpoints:
    """The two latest checkpoints of a run, numbered by step: one to continue from, and one as a fallback.

    Args:
        folder: folder of the checkpoints.
        tidy: whether to remove incomplete checkpoints of a killed training; a reader must not, since the training may
            be running.
    """

    def __init__(self, folder: Path, *, tidy: bool = True):
        from orbax.checkpoint import v1 as ocp

        # Orbax's log is for its developers; its errors are also raised as exceptions.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        keep = ocp.training.preservation_policies
        self._folder = folder.absolute()
        self._sound: set[int] = set()
        self._checkpointer = ocp.training.Checkpointer(
            str(self._folder), preservation_policy=cast("Any", keep.LatestN(2)), cleanup_tmp_directories=tidy
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing():
            self._checkpointer.close()

    def save(self, state: Any, progress: Progress) -> None:
        """Start saving a checkpoint; the copy to disk runs in the background.

        Args:
            state: the training state.
            progress: the progress; its step is the number of the checkpoint.
        """
        self._sound.discard(progress.step)
        with self._writing():
            self._checkpointer.save_checkpointables_async(
                progress.step,
                {"state": _storable(state)},
                force=True,
                overwrite=True,
                custom_metadata=cast("Any", dataclasses.asdict(progress)),
            )

    def wait(self) -> None:
        """Wait until all checkpoints are on disk."""
        with self._writing():
            self._checkpointer.wait()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Explain errors of the operating system about writing, such as a full disk."""
        with explained(self._folder):
            try:
                yield
            except ValueError as error:  # tensorstore raises errors of the operating system as ValueError
                found = re.search(r"os_error_code='(\d+)'", str(error))
                if found is None:
                    raise
                number = int(found[1])
                raise OSError(number, os.strerror(number)) from error

    def latest(self) -> Progress | None:
        """The progress of the latest checkpoint; None where there is none."""
        found = self._checkpointer.latest
        return None if found is None else self.progress(found.step)

    def progress(self, step: int) -> Progress:
        """The progress stored in checkpoint `step`."""
        read = self._checkpointer.checkpointables_metadata
        return self._attempt(step, lambda: Progress.from_json(cast("dict[str, Any]", read(step).custom_metadata)))

    def load(self, like: Tree, step: int) -> Tree:
        """Restore a state.

        Args:
            like: arrays (or ShapeDtypeStructs) with the expected shapes, dtypes and shardings.
            step: number of the checkpoint.

        Returns:
            A tree with the structure of `like`.

        Raises:
            MetarecError: the checkpoint is missing, damaged, or has other shapes than `like`.
        """
        saved = self._attempt(step, lambda: self._checkpointer.checkpointables_metadata(step).metadata["state"])
        if saved is None:  # orbax returns None for metadata that it cannot read
            raise self._unreadable(step, "its metadata cannot be read")
        raw = _storable(like)
        self._check_fits(step, _shapes(saved), _shapes(raw))
        wanted = {"state": jax.tree.map(_abstract, raw)}
        restored = self._attempt(step, lambda: self._checkpointer.load_checkpointables(step, wanted)["state"])
        leaves = iter(jax.tree.leaves(restored))
        return jax.tree.map(lambda to: _restored(leaves, to), like)

    def _attempt(self, step: int, read: Callable[[], Read]) -> Read:
        """The result of `read`, or an error that checkpoint `step` cannot be read."""
        try:
            self._probe(step)
            return read()
        except Exception as error:  # orbax and tensorstore raise many kinds of errors
            raise self._unreadable(step, str(error).strip() or type(error).__name__) from error

    def _probe(self, step: int) -> None:
        """Read all stored bytes of `step` sequentially, which fails if they are damaged.

        Orbax reads with many concurrent tasks. When one fails, the others continue and print errors to stderr, so
        damage is detected before orbax reads.
        """
        if step in self._sound:
            return
        import tensorstore as ts

        where = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{self._folder / str(step) / 'state'}/"}}
        store = ts.KvStore.open(where).result()
        keys = store.list().result()
        if not keys:
            raise ValueError("it holds no arrays")
        for key in keys:
            store.read(key).result()
        for path in (self._folder / str(step) / "state" / "array_metadatas").glob("*"):
            json.loads(path.read_text(encoding="utf-8"))
        self._sound.add(step)

    def _check_fits(self, step: int, saved: dict[str, str], wanted: dict[str, str]) -> None:
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise MetarecError(
                    f"{self._folder / str(step)}: the checkpoint does not fit the run's config.json: {name} is "
                    f"{saved.get(name, 'absent')} in the checkpoint and {wanted.get(name, 'absent')} by the config; "
                    "use the config.json that the run was trained with"
                )

    def _unreadable(self, step: int, reason: str) -> MetarecError:
        before = sorted(c.step for c in self._checkpointer.checkpoints if c.step < step)
        remedy = f"delete that folder to go on from step {before[-1]}" if before else "train the run again"
        return MetarecError(
            f"{self._folder / str(step)}: the checkpoint is missing or damaged ({reason.splitlines()[0][:200]}): "
            f"restore it from a copy, or {remedy}"
        )


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _storable(tree: Any) -> Any:
    """Replace typed keys by their raw data and empty arrays by None, since orbax refuses both."""
    return jax.tree.map(
        lambda leaf: None if leaf.size == 0 else jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree
    )


def _restored(leaves: Iterator[Any], to: Any) -> Any:
    """Restore the leaf that corresponds to `to`, from the leaves of `_storable`."""
    if to.size == 0:
        return jnp.zeros(to.shape, to.dtype, device=getattr(to, "sharding", None))
    return jax.random.wrap_key_data(next(leaves)) if _is_key(to) else next(leaves)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _shapes(tree: Any) -> dict[str, str]:
    """Dtype and shape of every leaf by its path, which is equal for named tuples and the dicts that orbax returns."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }
