"""Saving and restoring training states with orbax.

A checkpoint is one atomic unit: the state (theta, phi, optimiser, step, key), and beside it, as JSON, the position in
the data and how training is going. Orbax writes to a temporary folder and renames it, so that a crash leaves
either the whole checkpoint or none. Each process then adds digests of the files that it wrote
(``digests.PROCESS.json``), which are checked before anything is read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import glob
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from metarec_jax.core.atomic_files import explained, remove_leftovers, write_text
from metarec_jax.core.errors import MetarecError

Tree = TypeVar("Tree")
Read = TypeVar("Read")


Sums = Mapping[str, tuple[float, float]]
"""Sum and weight of each loss, by name."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How a training is going, as it stands in a checkpoint.

    Attributes:
        step: steps taken.
        epoch: stretches finished (epochs of meta-training).
        position: of the feed, as JSON.
        sums: losses since the last evaluation.
        best_epoch, best_step: when the best evaluation was made; 0 before there is one.
        best_loss: its loss.
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
        """Before the first step."""
        return cls(0, 0, {}, {}, 0, 0, 1e30, False)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Progress:
        """Read what `dataclasses.asdict` wrote, also that of version 0.1, which had one loss by the name of "query"."""
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


KEPT = 2
"""The latest checkpoints that are kept: one to go on from, and one to go back to."""


class Checkpoints:
    """The two latest checkpoints of a run, numbered by step: one to go on from, and one to go back to.

    Args:
        folder: where they are.
        tidy: whether to remove what a killed training left half-saved. A reader must not: the training may be running.
    """

    def __init__(self, folder: Path, *, tidy: bool = True):
        from orbax.checkpoint import v1 as ocp

        # What orbax logs is for its makers. Its errors come as exceptions, too, and are explained where they arrive.
        for logger in ("absl", "concurrent.futures"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self._folder = folder.resolve()
        self._tidy = tidy
        self._sound: set[int] = set()
        self._pending: concurrent.futures.Future[None] | None = None
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        if tidy:
            self._remove_leftovers()
        # Where a folder cannot be made in the background, orbax waits minutes for it.
        context = ocp.Context(async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False))
        self._aliases = contextlib.ExitStack()
        with self._writing():
            alias = self._aliases.enter_context(_without_patterns(self._folder))
            self._checkpointer = ocp.training.Checkpointer(str(alias), context=context, cleanup_tmp_directories=tidy)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
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
        """Starts saving `state` as the checkpoint of ``progress.step``; the copy to disk goes on in the background."""
        self.wait()
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
        """Returns when all that was saved is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._writing():
                pending.result()

    def _finish(self, step: int, saving: Any) -> None:
        """Wait for orbax, write the digests of a checkpoint, and remove those that are older than the one before."""
        saving.result()
        mine, path = jax.process_index(), self._folder / str(step)
        files = [
            file for file in sorted(path.rglob("*")) if file.is_file() and _writer_of(file.relative_to(path)) == mine
        ]
        digests = {file.relative_to(path).as_posix(): _digest(file) for file in files}
        write_text(path / f"digests.{mine}.json", json.dumps(digests, indent=0) + "\n")
        if mine == 0:
            for old in self._steps()[:-KEPT]:
                # Renamed first: a checkpoint that is half removed must not look like one.
                gone = self._folder / f".{old}.part"
                (self._folder / str(old)).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _steps(self) -> list[int]:
        """The steps that there are checkpoints of, ascending."""
        return sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdigit())

    def _remove_leftovers(self) -> None:
        """Remove what was left half-saved or half-removed."""
        remove_leftovers(self._folder)
        if jax.process_count() == 1:
            for path in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        """Explains what the operating system says about writing, such as that the disk is full."""
        return explained(self._folder)

    def latest(self) -> Progress | None:
        """The progress of the latest checkpoint; None where there is none."""
        found = self._checkpointer.latest
        return None if found is None else self.progress(found.step)

    def progress(self, step: int) -> Progress:
        """What checkpoint `step` says of the training."""
        read = self._checkpointer.checkpointables_metadata
        return self._attempt(step, lambda: Progress.from_json(cast("dict[str, Any]", read(step).custom_metadata)))

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
        raw = _storable(like)
        self._check_fits(step, _shapes(saved), _shapes(raw))
        wanted = {"state": jax.tree.map(_abstract, raw)}
        restored = self._attempt(step, lambda: self._checkpointer.load_checkpointables(step, wanted)["state"])
        leaves = iter(jax.tree.leaves(restored))
        return jax.tree.map(lambda to: _restored(leaves, to), like)

    def _attempt(self, step: int, read: Callable[[], Read]) -> Read:
        """What `read` returns, or an error that says that checkpoint `step` cannot be read."""
        try:
            self._probe(step)
            return read()
        except Exception as error:  # orbax and tensorstore raise many kinds; each means the same to a user
            raise self._unreadable(step, str(error).strip() or type(error).__name__) from error

    def _probe(self, step: int) -> None:
        """Reads all stored bytes of `step` in a row, and checks their digests where there are any.

        Orbax reads with many tasks at once. When the first fails it leaves the others behind, and each complains on
        stderr for itself; so it is only asked to read what can be read.
        """
        if step in self._sound:
            return
        path = self._folder / str(step)
        manifests = sorted(path.glob("digests.*.json"))
        for manifest in manifests[jax.process_index() :: jax.process_count()]:
            for name, digest in json.loads(manifest.read_text(encoding="utf-8")).items():
                if _digest(path / name) != digest:
                    raise ValueError(f"{name} is not what was written")
        if not manifests:
            self._read_all(step)
        self._sound.add(step)

    def _read_all(self, step: int) -> None:
        """Reads all arrays of a checkpoint without digests, of an earlier version or of a killed training."""
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
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _writer_of(path: Path) -> int:
    """The process that wrote a file of a checkpoint: orbax has a folder for the arrays of each."""
    found = next((part for part in path.parts if part.startswith("ocdbt.process_")), "0")
    return int(found.removeprefix("ocdbt.process_"))


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _storable(tree: Any) -> Any:
    """`tree` with the numbers of typed keys in their place, and None for arrays of no elements: orbax refuses both."""
    return jax.tree.map(
        lambda leaf: None if leaf.size == 0 else jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree
    )


def _restored(leaves: Iterator[Any], to: Any) -> Any:
    """The leaf that takes the place of `to`, from what `_storable` left of the tree."""
    if to.size == 0:
        return jnp.zeros(to.shape, to.dtype, device=getattr(to, "sharding", None))
    return jax.random.wrap_key_data(next(leaves)) if _is_key(to) else next(leaves)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _shapes(tree: Any) -> dict[str, str]:
    """Dtype and shape of every leaf by its path, which is the same for the dicts that orbax gives for named tuples."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }
