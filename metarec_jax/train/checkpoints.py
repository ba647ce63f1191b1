"""Saving and restoring of training states with orbax.

A checkpoint is written atomically. It holds the state (theta, phi, optimiser, step, key) and, as JSON, the position in
the data and the progress of training. Orbax writes to a temporary folder and renames it, so that a crash leaves either
a complete checkpoint or none. Each process then adds digests of the files that it wrote (``digests.PROCESS.json``),
which are checked before a checkpoint is read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from metarec_jax.core import peers, processes
from metarec_jax.core.atomic_files import explained, remove_leftovers, write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.core.regular_files import open_regular

Tree = TypeVar("Tree")
Read = TypeVar("Read")


Sums = Mapping[str, tuple[float, float]]
"""Sum and weight of each loss, by name."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a training, as stored in a checkpoint.

    Attributes:
        step: number of steps taken.
        epoch: number of finished intervals between evaluations (in meta-training, epochs).
        position: position in the training data, as JSON.
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
        """Return the progress before the first step."""
        return cls(0, 0, {}, {}, 0, 0, 1e30, False)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Progress:
        """Read the output of `dataclasses.asdict`, or that of version 0.1, which had a single loss "query"."""
        fields: dict[str, Any] = dict(tree)
        if "iterator" in fields:
            fields["position"] = fields.pop("iterator")
            query, rows = fields.pop("epoch_query"), fields.pop("epoch_rows")
            fields["sums"] = {"loss": (query, rows)} if rows else {}
        fields["sums"] = {name: (total, weight) for name, (total, weight) in fields["sums"].items()}
        return cls(**fields)

    def plus(self, more: Sums) -> Progress:
        """Return the progress after one more step with the losses `more`."""
        sums = dict(self.sums)
        for name, (total, weight) in more.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = before[0] + total, before[1] + weight
        return dataclasses.replace(self, step=self.step + 1, sums=sums)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss since the last evaluation."""
        return {name: total / weight for name, (total, weight) in self.sums.items() if weight}


KEPT = 2
"""Number of latest checkpoints that are kept: one to continue from, and one as a fallback."""


class Checkpoints:
    """The two latest checkpoints of a run, numbered by step: one to continue from, and one as a fallback.

    Args:
        folder: folder of the checkpoints.
        tidy: whether to remove incomplete checkpoints of a killed training; a reader must not, since the training may
            be running.
    """

    def __init__(self, folder: Path, *, tidy: bool = True):
        from orbax.checkpoint import v1 as ocp

        # Orbax logs internal details. Its errors are also raised as exceptions, which this module explains.
        for logger in ("absl", "concurrent.futures"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self._folder = folder.resolve()
        self._tidy = tidy
        self._sound: set[int] = set()
        self._pending: concurrent.futures.Future[None] | None = None
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        if tidy:
            self._remove_leftovers()
        # If a folder cannot be created in the background, orbax waits for minutes.
        context = ocp.Context(async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False))
        self._aliases = contextlib.ExitStack()
        with self._writing():
            alias = self._aliases.enter_context(_without_patterns(self._folder))
            self._checkpointer = ocp.training.Checkpointer(str(alias), context=context, cleanup_tmp_directories=tidy)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and processes.count() > 1:  # the others end too, so that orbax would wait for them forever
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._aliases.close()
            return
        try:
            self.wait()
            if self._tidy:  # process 0 removes what is being written, which other processes may still do
                processes.barrier("the end of the last checkpoint")
        finally:
            self._worker.shutdown()
            try:
                with self._writing():
                    self._checkpointer.close()
            finally:
                self._aliases.close()
                if self._tidy:
                    self._remove_leftovers()

    def save(self, state: Any, progress: Progress) -> None:
        """Start saving a checkpoint; it is written to disk in the background.

        Args:
            state: tree of arrays, the training state.
            progress: progress of the training; ``progress.step`` becomes the number of the checkpoint.

        Raises:
            MetarecError: this checkpoint or the previous one cannot be written.
        """
        self.wait()
        processes.barrier(f"the checkpoint of step {progress.step}")
        self._sound.discard(progress.step)
        with self._writing():
            saving = self._checkpointer.save_checkpointables_async(
                progress.step,
                {"state": _storable(state)},
                force=True,
                overwrite=True,
                custom_metadata=cast("Any", dataclasses.asdict(progress)),
            )
        self._pending = self._worker.submit(self._finish, progress.step, saving)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._writing():
                pending.result()

    def _finish(self, step: int, saving: Any) -> None:
        """Wait for orbax, write the digests of a checkpoint, and remove all but the latest `KEPT` checkpoints."""
        saving.result()
        mine, path = processes.index(), self._folder / str(step)
        if mine:
            _await_folder(path)
        own = (name for name in _file_names(path) if _writer_of(PurePath(name)) == mine)
        digests = {name: _digest(path / name) for name in own}
        write_text(path / f"digests.{mine}.json", json.dumps(digests, indent=0) + "\n")
        if mine == 0:
            for old in self._steps()[:-KEPT]:
                # Rename it first, so that a partly removed folder is not taken for a checkpoint.
                gone = self._folder / f".{old}.part"
                (self._folder / str(old)).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _steps(self) -> list[int]:
        """Return the steps of the existing checkpoints, ascending."""
        return sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdigit())

    def _remove_leftovers(self) -> None:
        """Remove checkpoints that were only partly saved or partly removed."""
        if processes.is_first():
            remove_leftovers(self._folder)
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that raises a system error, such as a full disk, as a `MetarecError`."""
        return explained(self._folder)

    def latest(self) -> Progress | None:
        """Return the progress of the latest checkpoint; None if there is no checkpoint."""
        found = self._checkpointer.latest
        step = processes.from_first("latest checkpoint", lambda: "" if found is None else str(found.step))
        return self.progress(int(step)) if step else None

    def progress(self, step: int) -> Progress:
        """Return the progress stored in checkpoint `step`."""
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
        # By the structure of the checkpoint, which has no entry for a part that did not exist when it was written.
        expected = _by_path(raw)
        wanted = {"state": jax.tree_util.tree_map_with_path(lambda at, _: _abstract(expected[_path(at)]), saved)}
        restored = self._attempt(step, lambda: self._checkpointer.load_checkpointables(step, wanted)["state"])
        found = _by_path(restored)
        leaves = iter([found[path] for path in expected])
        return jax.tree.map(lambda to: _restored(leaves, to), like)

    def _attempt(self, step: int, read: Callable[[], Read]) -> Read:
        """Return the result of `read`; raise its exceptions as an error that checkpoint `step` cannot be read."""
        try:
            self._probe(step)
            return read()
        except Exception as error:  # orbax and tensorstore raise many kinds of errors
            if peers.lost_peer(error):
                raise
            raise self._unreadable(step, str(error).strip() or type(error).__name__) from error

    def _probe(self, step: int) -> None:
        """Read all stored bytes of checkpoint `step` sequentially, and check their digests if there are any.

        Orbax reads with many concurrent tasks. If one fails, the others continue and print errors to stderr. Damage is
        therefore detected before orbax reads.
        """
        if step in self._sound:
            return
        path = self._folder / str(step)
        manifests = sorted(path.glob("digests.*.json"))
        for manifest in manifests[processes.index() :: processes.count()]:
            digests = read_json(manifest)
            if not isinstance(digests, dict):
                raise ValueError(f"{manifest.name} is no object of digests")
            for name, digest in digests.items():
                if _digest(path / name) != digest:
                    raise ValueError(f"{name} is not what was written")
        if not manifests:
            self._read_all(step)
        self._sound.add(step)

    def _read_all(self, step: int) -> None:
        """Read all arrays of a checkpoint without digests, from an earlier version or a killed training."""
        import tensorstore as ts

        where = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{self._folder / str(step) / 'state'}/"}}
        store = ts.KvStore.open(where).result()
        keys = store.list().result()
        if not keys:
            raise ValueError("it holds no arrays")
        for key in keys:
            store.read(key).result()
        for path in (self._folder / str(step) / "state" / "array_metadatas").glob("*"):
            read_json(path)

    def _check_fits(self, step: int, saved: dict[str, str], wanted: dict[str, str]) -> None:
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise MetarecError(
                    f"{self._folder / str(step)}: the checkpoint does not fit the run's config.json: {name} is "
                    f"{saved.get(name, 'absent')} in the checkpoint and {wanted.get(name, 'absent')} by the config; "
                    "use the config.json that the run was trained with"
                )

    def _unreadable(self, step: int, reason: str) -> MetarecError:
        before = [other for other in self._steps() if other < step]
        remedy = f"delete that folder to go on from step {before[-1]}" if before else "train the run again"
        return MetarecError(
            f"{self._folder / str(step)}: the checkpoint is missing or damaged ({reason.splitlines()[0][:200]}): "
            f"restore it from a copy, or {remedy}"
        )


@contextlib.contextmanager
def _without_patterns(folder: Path) -> Iterator[Path]:
    """A path to `folder` for orbax, which takes "[1]" in the name of any folder above for a pattern of `glob`."""
    if glob.escape(str(folder)) == str(folder):
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        alias = Path(place) / "checkpoints"
        alias.symlink_to(folder)
        yield alias


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_names(folder: Path) -> list[str]:
    """Return the names, relative to a checkpoint's folder, of the files that orbax wrote.

    Other processes write their digests at the same time, in temporary folders that may be gone before they are read.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.endswith(".part")]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in files]
    return sorted(name for name in found if not name.startswith("digests."))


def _writer_of(path: PurePath) -> int:
    """Return the index of the process that wrote a file, from the folder that orbax creates for each process."""
    found = next((part for part in path.parts if part.startswith("ocdbt.process_")), "0")
    return int(found.removeprefix("ocdbt.process_"))


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _await_folder(path: Path) -> None:
    """Wait for process 0 to give the folder of a checkpoint its name, after all processes have written their parts."""
    end = time.monotonic() + (processes.group.wait if processes.group else 0)
    while not path.is_dir() and time.monotonic() < end:
        time.sleep(0.05)


def _storable(tree: Any) -> Any:
    """Replace typed keys by their raw data and empty arrays by None, since orbax accepts neither."""
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
    """Return dtype and shape of every leaf by its path."""
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _by_path(tree).items()}


def _by_path(tree: Any) -> dict[str, Any]:
    """Return every leaf by its path, which is equal for named tuples and the dicts of orbax."""
    return {_path(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
