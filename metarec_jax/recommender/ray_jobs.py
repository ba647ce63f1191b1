"""Batch work on a Ray cluster: lists for a file of users, and embeddings of item texts, as jobs of Ray Data.

Each worker is an actor that holds the run and gets blocks of rows. Ray reads the Parquet files, starts an actor that
died again, and gives it the block that it had. The run, the files and the output are at the same paths on all nodes.
Only functions that start a job import Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarec_jax.config.data import Columns
from metarec_jax.core.atomic_files import new_folder
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.core.extras import needs_extra
from metarec_jax.recommender.batch import recommend_block
from metarec_jax.recommender.batch_parts import BLOCK, Result
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.recommender.users_file import HISTORY, users_of_rows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Pool:
    """The actors of a job.

    Attributes:
        actors: number of actors; the cluster must have a CPU more than they take, for reading and writing.
        cpus, gpus: what each takes of a node.
    """

    actors: int
    cpus: float = 1.0
    gpus: float = 0.0


class ListWorker:
    """Makes the lists of a block of users.

    Args:
        run: folder of the run.
        encoder_path: as for `Recommender.load`.
        columns: names of the columns.
        where: the file of users, for messages.
        k: list length.
        exclude_seen: whether items of a user's history are left out.
    """

    def __init__(self, run: str, encoder_path: str, columns: Columns, where: str, k: int, exclude_seen: bool) -> None:
        self._recommender = Recommender.load(run, encoder_path=encoder_path)
        self._columns, self._where, self._k, self._exclude_seen = columns, where, k, exclude_seen

    def __call__(self, block: pa.Table) -> pa.Table:
        """The lists of the users of a block, as of `recommend_block`."""
        users = users_of_rows(self._recommender, self._columns, block.to_pylist(), self._where)
        return recommend_block(self._recommender, users, self._k, exclude_seen=self._exclude_seen)


class TextWorker:
    """Encodes a block of texts in the same way as the items of a run.

    Args:
        run: folder of the run.
        encoder_path: as for `Recommender.load`.
        column: name of the column of texts.
    """

    def __init__(self, run: str, encoder_path: str, column: str) -> None:
        self._recommender = Recommender.load(run, encoder_path=encoder_path)
        self._column = column

    def __call__(self, block: pa.Table) -> pa.Table:
        """The other columns of a block, and the column "vector": float32 lists of the encoder's width."""
        import numpy as np
        import pyarrow as pa

        texts = block.column(self._column).to_pylist()
        missing = next((row for row, text in zip(block.to_pylist(), texts) if not isinstance(text, str)), None)
        if missing is not None:
            raise MetarecError(f"a row has no text in {self._column!r}: {shown(missing)}: write one, or leave it out")
        vectors = self._recommender.texts.encode(texts, side="document")
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
        return block.drop_columns([self._column]).append_column(
            "vector", pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        )


def recommend_users(
    run: Path,
    users: Path,
    out: Path,
    pool: Pool,
    *,
    k: int = 10,
    exclude_seen: bool = True,
    columns: Columns | None = None,
    encoder_path: str = "",
    block: int = BLOCK,
) -> Result:
    """Write the lists of all users as a folder of Parquet files, with the columns of `recommend_block`.

    Args:
        run: folder of the run.
        users: Parquet file, or a folder of some, with one user in each row and the column ``history``.
        out: new folder, which is there when all lists are.
        pool: the actors.
        k: list length.
        exclude_seen: whether items of a user's history are left out.
        columns: names of the columns; None takes those that the run was trained with.
        encoder_path: as for `Recommender.load`.
        block: number of users that an actor gets at a time.

    Returns:
        The result.

    Raises:
        MetarecError: the extra ray is not installed, the cluster is too small, a file or a user is not valid, or `out`
            exists.
    """
    from metarec_jax.train.run_folder import open_run

    columns = columns or open_run(run).config.data.columns
    worker = (str(run.resolve()), encoder_path, columns, str(users), k, exclude_seen)
    count, files = _checked(users, columns.user, HISTORY)
    return Result(count, count, _job(files, out, pool, block, ListWorker, worker))


def encode_texts(
    run: Path,
    texts: Path,
    out: Path,
    pool: Pool,
    *,
    item: str = "item_id",
    column: str = "text",
    encoder_path: str = "",
    block: int = BLOCK,
) -> Result:
    """Encode item texts in the same way as the items of a run, into a folder of Parquet files.

    Args:
        run: folder of the run.
        texts: Parquet file, or a folder of some, with an item in each row.
        out: new folder, which is there when all vectors are; its files have the other columns, and "vector".
        pool: the actors.
        item: name of the column of item ids.
        column: name of the column of texts.
        encoder_path: as for `Recommender.load`.
        block: number of texts that an actor gets at a time.

    Returns:
        The result, with items in the place of users.

    Raises:
        MetarecError: as for `recommend_users`.
    """
    worker = (str(run.resolve()), encoder_path, column)
    count, files = _checked(texts, item, column)
    return Result(count, count, _job(files, out, pool, block, TextWorker, worker))


def _checked(path: Path, name: str, *others: str) -> tuple[int, list[str]]:
    """Check Parquet files whose rows have different ids.

    Args:
        path: a file, or a folder.
        name: column of ids.
        *others: further columns that there must be.

    Returns:
        The number of rows, and the paths of the files.

    Raises:
        MetarecError: the files cannot be read, a column is missing, or an id is there twice.
    """
    import pyarrow as pa
    import pyarrow.dataset

    remedy = "give a Parquet file, or a folder of some"
    try:
        files = pa.dataset.dataset(path.resolve(), format="parquet")
        if missing := [column for column in (name, *others) if column not in files.schema.names]:
            raise MetarecError(
                f"{path} has no column {missing[0]!r}; it has {listed(sorted(files.schema.names))}: write the column "
                f"{missing[0]!r}, or name another one"
            )
        ids = files.to_table(columns=[name]).column(name)
    except (pa.ArrowException, OSError) as error:
        raise MetarecError(f"{path}: {(str(error).splitlines() or [''])[0][:200]}: {remedy}") from error
    if other := [file for file in files.files if not file.lower().endswith(".parquet")]:
        raise MetarecError(f"{other[0]} does not end in .parquet, and Ray reads no other files: rename it")
    if len(ids) == 0:
        raise MetarecError(f"{path} has no rows: {remedy}")
    if len(ids.unique()) < len(ids):
        twice = next(count["values"] for count in ids.value_counts().to_pylist() if count["counts"] > 1)
        raise MetarecError(f"{path}: {name} {shown(twice)} is in several rows: write each once")
    return len(ids), list(files.files)


def _job(
    files: Sequence[str], out: Path, pool: Pool, block: int, worker: Callable[..., Any], arguments: Sequence[Any]
) -> float:
    """Send the rows of Parquet files through actors, and write what they return.

    Args:
        files: paths of the files.
        out: new folder.
        pool: the actors.
        block: number of rows that an actor gets at a time.
        worker: class of the actors.
        arguments: of the class.

    Returns:
        Duration, in seconds.
    """
    with needs_extra("ray"):
        import ray
        import ray.data
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MetarecError(f"--out {path_argument(out)} is there already: remove it, or name another folder")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)  # RAY_ADDRESS, or a cluster of this machine
    _check_room(ray.cluster_resources(), pool)
    started = time.monotonic()
    with _errors_of_workers(), new_folder(out) as folder:
        (
            ray.data.read_parquet(list(files))
            .repartition(target_num_rows_per_block=block)
            .map_batches(
                worker,
                fn_constructor_args=arguments,
                batch_size=block,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=pool.actors),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
            )
            .write_parquet(str(folder))
        )
    return time.monotonic() - started


def _check_room(resources: Mapping[str, float], pool: Pool) -> None:
    """Check that a cluster has room for the actors and for one task that reads, without which all would wait for ever.

    Raises:
        MetarecError: it has not.
    """
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    fitting = int((cpus - 1) // pool.cpus) if pool.cpus else pool.actors
    if pool.actors > fitting:
        raise MetarecError(
            f"{pool.actors} actors of {pool.cpus:g} CPUs, and one CPU to read and write, do not fit on a cluster of "
            f"{cpus:g} CPUs: ask for at most {max(fitting, 0)}, or give the cluster more (ray start --num-cpus)"
        )
    if pool.actors * pool.gpus > gpus:
        raise MetarecError(
            f"{pool.actors} actors of {pool.gpus:g} GPUs do not fit on a cluster of {gpus:g} GPUs: ask for fewer"
        )


@contextlib.contextmanager
def _errors_of_workers() -> Iterator[None]:
    """Raise the `MetarecError` that an actor raised, out of those of Ray that wrap it."""
    import ray.data

    context = ray.data.DataContext.get_current()
    before, context.raise_original_map_exception = context.raise_original_map_exception, True
    logger = logging.getLogger("ray.data")  # it would write the traceback of a mistake
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:
        found: BaseException = error
        while inner := getattr(found, "cause", None) or found.__cause__:
            found = inner
        if not isinstance(found, MetarecError):
            raise
        raise MetarecError(str(found).partition("\nFailed to apply UDF")[0]) from error  # what follows is Ray's advice
    finally:
        context.raise_original_map_exception = before
        logger.setLevel(level)
