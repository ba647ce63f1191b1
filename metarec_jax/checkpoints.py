"""Saving and restoring training states with orbax.

A checkpoint is one atomic unit: the state (theta, phi, optimiser, step, key), and beside it, as JSON, where the data
iterator stands and how training is going. Orbax writes to a temporary folder and renames it, so that a crash leaves
either the whole checkpoint or none.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import jax

from metarec_jax.errors import MetarecError

Tree = TypeVar("Tree")
Read = TypeVar("Read")


@dataclasses.dataclass(frozen=True)
class Progress:
    """How training is going, as it stands in a checkpoint.

    Attributes:
        step: outer steps taken.
        epoch: epochs finished.
        iterator: state of the data iterator.
        epoch_query, epoch_rows: sums of the training loss in the epoch under way.
        best_epoch, best_step: where the validation loss was least so far; 0 before the first epoch ends.
        best_loss: that loss.
        finished: whether training has ended, by its epochs or by early stopping.
    """

    step: int
    epoch: int
    iterator: dict[str, Any]
    epoch_query: float
    epoch_rows: float
    best_epoch: int
    best_step: int
    best_loss: float
    finished: bool

    @classmethod
    def at_start(cls) -> Progress:
        """Before the first step."""
        return cls(0, 0, {}, 0.0, 0.0, 0, 0, 1e30, False)


class Checkpoints:
    """The checkpoints of a run: the latest (to go on from) and the best (to use), numbered by outer step.

    Args:
        folder: where they are.
        tidy: whether to remove what a killed training left half-saved. A reader must not: the training may be running.
    """

    def __init__(self, folder: Path, *, tidy: bool = True):
        from orbax.checkpoint import v1 as ocp

        # orbax says at INFO and WARNING level what users of a command line need not know.
        logging.getLogger("absl").setLevel(logging.ERROR)
        keep = ocp.training.preservation_policies
        self._folder = folder.absolute()
        self._sound: set[int] = set()
        try:
            self._checkpointer = ocp.training.Checkpointer(
                str(self._folder),
                preservation_policy=cast(
                    "Any",
                    keep.AnyPreservationPolicy(
                        [keep.LatestN(1), keep.BestN(get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=1)]
                    ),
                ),
                cleanup_tmp_directories=tidy,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MetarecError(
                f"{self._folder}: what lies beside the checkpoints is damaged ({error}): "
                "restore the folder from a copy, or train the run again"
            ) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    def save(self, state: Any, progress: Progress, loss: float) -> None:
        """Starts saving `state` as the checkpoint of ``progress.step``; the copy to disk goes on in the background."""
        self._sound.discard(progress.step)
        self._checkpointer.save_checkpointables_async(
            progress.step,
            {"state": _without_keys(state)},
            force=True,
            overwrite=True,
            metrics={"loss": loss},
            custom_metadata=cast("Any", dataclasses.asdict(progress)),
        )

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        self._checkpointer.wait()

    def latest(self) -> Progress | None:
        """The progress of the latest checkpoint; None where there is none."""
        found = self._checkpointer.latest
        return None if found is None else self.progress(found.step)

    def progress(self, step: int) -> Progress:
        """What checkpoint `step` says of the training."""
        read = self._checkpointer.checkpointables_metadata
        return self._attempt(step, lambda: Progress(**cast("dict[str, Any]", read(step).custom_metadata)))

    def load(self, like: Tree, step: int) -> Tree:
        """Restores the state of `step`.

        Args:
            like: arrays (or ShapeDtypeStructs) that say which shapes, dtypes and shardings are wanted.
            step: which checkpoint.

        Raises:
            MetarecError: the checkpoint is missing, damaged, or of other shapes than `like`.
        """
        saved = self._attempt(step, lambda: self._checkpointer.checkpointables_metadata(step).metadata["state"])
        if saved is None:  # so says orbax of metadata that it cannot read
            raise self._unreadable(step, "its metadata cannot be read")
        raw = _without_keys(like)
        self._check_fits(step, _shapes(saved), _shapes(raw))
        wanted = {"state": jax.tree.map(_abstract, raw)}
        restored = self._attempt(step, lambda: self._checkpointer.load_checkpointables(step, wanted)["state"])
        return jax.tree.map(lambda leaf, to: jax.random.wrap_key_data(leaf) if _is_key(to) else leaf, restored, like)

    def _attempt(self, step: int, read: Callable[[], Read]) -> Read:
        """What `read` returns, or an error that says that checkpoint `step` cannot be read."""
        try:
            self._probe(step)
            return read()
        except Exception as error:  # orbax and tensorstore raise many kinds; each means the same to a user
            raise self._unreadable(step, str(error).strip() or type(error).__name__) from error

    def _probe(self, step: int) -> None:
        """Reads all stored bytes of `step` in a row, which fails where they are damaged.

        Orbax reads with many tasks at once. When the first fails it leaves the others behind, and each complains on
        stderr for itself; so it is only asked to read what can be read.
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
        others = sorted(c.step for c in self._checkpointer.checkpoints if c.step != step)
        remedy = f"delete that folder to go on from step {others[-1]}" if others else "train the run again"
        return MetarecError(
            f"{self._folder / str(step)}: the checkpoint is missing or damaged ({reason.splitlines()[0][:200]}): "
            f"restore it from a copy, or {remedy}"
        )


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    """`tree` with the numbers of typed keys in their place."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _shapes(tree: Any) -> dict[str, str]:
    """Dtype and shape of every leaf by its path, which is the same for the dicts that orbax gives for named tuples."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }
