"""Batch recommendation in parts: plain processes that share a folder, without communication.

Part i of n computes the users i, i + n, i + 2n, ... of a file, in blocks. The folder holds:

    _job.json                   what the lists are made from, which every part checks
    part-2-of-8/000001.parquet  lists of a block of users of part 2; blocks are numbered from 0
    part-2-of-8/_done.json      sizes of the blocks of a finished part

A block is renamed into its place when it is complete, and its digest shows if a disk lost some of it. Readers of
Parquet folders pass over names with an underscore.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from metarec_jax.core import locks
from metarec_jax.core.atomic_files import explained, make_folder, remove_leftovers, replacing, write_text
from metarec_jax.core.checked_files import read_table, write_table
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.json_files import read_json
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.recommender.batch import recommend_block
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.recommender.users_file import UsersFile

BLOCK = 1024
"""Number of users in a block."""
NOTE_EVERY = 30.0
"""Seconds between two notes on the progress."""
_JOB, _DONE = "_job.json", "_done.json"


class Part(NamedTuple):
    """Part `number`, 1 to `of`, of a job."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class Result(NamedTuple):
    """Result of a part.

    Attributes:
        users: number of users of the part.
        computed: number of them in this call; the others were done before.
        seconds: duration of this call.
    """

    users: int
    computed: int
    seconds: float


def parse_part(text: str) -> Part:
    """Parse a part such as "3/8".

    Raises:
        MetarecError: the text is another one, or the part is not one of 1 to the number of parts.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not match:
        raise MetarecError(f"--part {shown(text)}: write the part and the number of parts, such as 3/8")
    part = Part(*map(int, match.groups()))
    if not 1 <= part.number <= part.of:
        last = f"1/{part.of} to {part.of}/{part.of}" if part.of else "1/1 if there is only one"
        raise MetarecError(f"--part {text} is none of the {part.of} parts: they are {last}")
    return part


def recommend_part(
    recommender: Recommender,
    users: UsersFile,
    out: Path,
    part: Part = Part(1, 1),  # noqa: B008 - it does not change
    *,
    k: int = 10,
    exclude_seen: bool = True,
    block: int = BLOCK,
    reporter: Reporter = QUIET,
) -> Result:
    """Write the lists of a part of a file of users, as Parquet files with the columns of `recommend_block`.

    Blocks that exist are not computed again.

    Args:
        recommender: the model.
        users: the file.
        out: folder of the job, the same for all parts.
        part: the part.
        k: list length.
        exclude_seen: whether items of a user's history are left out.
        block: number of users in a block, the same for all parts.
        reporter: shows the progress.

    Returns:
        The result.

    Raises:
        MetarecError: `k` is out of range, a user is not valid, the folder holds something else, or another process
            writes the same part.
    """
    recommender.items.check_k(k)
    job = {
        "run": recommender.codec.digest,
        "users": users.digest,
        "k": k,
        "exclude_seen": exclude_seen,
        "users of a block": block,
        "parts": part.of,
    }
    _check_job(out, job)
    folder = out / f"part-{part.number}-of-{part.of}"
    make_folder(folder)
    with locks.hold(folder / ".lock", f"--out {path_argument(out)}, part {part},"):
        remove_leftovers(folder)
        known = _finished(folder)
        if known is not None:
            return Result(known, 0, 0.0)
        started = noted = time.monotonic()
        sizes: dict[str, int] = {}
        counts, computed = 0, 0
        for number, rows in enumerate(users.blocks(block, part.number - 1, part.of)):
            file = folder / f"{number:06d}.parquet"
            count = _count_of(file, job, reporter)
            if count is None:
                people = users.users(rows)
                lists = recommend_block(recommender, people, k, exclude_seen=exclude_seen)
                write_table(file, lists, {"job": json.dumps(job), "users": str(len(people))})
                count = len(people)
                computed += count
            counts += count
            sizes[file.name] = file.stat().st_size
            if time.monotonic() - noted >= NOTE_EVERY:
                noted = time.monotonic()
                reporter.note(f"part {part}: {counts:,} users, {_rate(computed, noted - started)}")
        write_text(folder / _DONE, json.dumps({"users": counts, "sizes": sizes}) + "\n")
    return Result(counts, computed, time.monotonic() - started)


def recommend_file(
    recommender: Recommender,
    users: UsersFile,
    out: Path,
    *,
    k: int = 10,
    exclude_seen: bool = True,
    block: int = BLOCK,
    reporter: Reporter = QUIET,
) -> Result:
    """Write the lists of all users to one Parquet file: a job of one part, whose blocks are joined at the end.

    Args:
        recommender, users, k, exclude_seen, block, reporter: as for `recommend_part`.
        out: the file. Blocks are in a folder next to it until it is complete.

    Returns:
        The result.

    Raises:
        MetarecError: the file exists, or as for `recommend_part`.
    """
    import pyarrow.parquet as pq

    def check() -> None:
        if out.exists():
            raise MetarecError(f"--out {path_argument(out)} is there already: remove it, or name another file")

    check()
    parts = out.with_name(out.name + ".parts")
    make_folder(parts)
    try:
        with locks.hold(parts / ".lock", f"--out {path_argument(out)}"):
            check()  # another process may have written it meanwhile
            result = recommend_part(
                recommender, users, parts, k=k, exclude_seen=exclude_seen, block=block, reporter=reporter
            )
            with replacing(out) as path, contextlib.ExitStack() as stack:
                writer = None
                for file in sorted(parts.glob("part-1-of-1/*.parquet")):
                    table = read_table(file, "delete it, and run the same command again")[0].replace_schema_metadata()
                    writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
                    writer.write_table(table)
            with explained(parts):
                shutil.rmtree(parts)
    finally:
        with contextlib.suppress(OSError):  # it holds blocks
            parts.rmdir()
    return result


def _rate(users: int, seconds: float) -> str:
    return f"{users / max(seconds, 1e-9):,.0f} users/s"


def _check_job(out: Path, job: dict[str, Any]) -> None:
    """Create the folder with the description of the job, or refuse the folder of another job."""
    path = out / _JOB
    named = f"--out {path_argument(out)}"
    if out.exists() and not out.is_dir():
        raise MetarecError(f"{named} is a file: name a folder, or a new file that ends in .parquet without --part")
    if not path.exists():
        make_folder(out)
        if any(not entry.name.startswith((".", "_job")) for entry in out.iterdir()) and not path.exists():
            raise MetarecError(f"{named} holds other files: name a new or empty folder")
        write_text(path, json.dumps(job, indent=1) + "\n")
    remedy = f"remove {path_argument(out)}, and run all parts again"
    found = read_json(path, remedy=remedy)  # also after writing it: another job may have begun at the same moment
    if found != job:
        known = found if isinstance(found, dict) else {}
        other = [name for name in job if known.get(name) != job[name]]
        what = {"run": "another run", "users": "another file of users, or other options of its format"}
        differs = ", ".join(what.get(name) or f"{name} {shown(known.get(name))}, not {job[name]}" for name in other)
        raise MetarecError(
            f"{named} holds lists that were made from another run, other users or other options ({differs}): "
            f"name another folder, or remove this one"
        )


def _finished(folder: Path) -> int | None:
    """The number of users of a part that is finished; None if it is not, or a block was changed since."""
    path = folder / _DONE
    if not path.exists():
        return None
    try:
        done = read_json(path)
        if all((folder / name).stat().st_size == size for name, size in done["sizes"].items()):
            return int(done["users"])
    except (MetarecError, OSError, LookupError, TypeError, ValueError, AttributeError):
        pass  # a marker that cannot be read is written again
    return None


def _count_of(file: Path, job: dict[str, Any], reporter: Reporter) -> int | None:
    """The number of users of a block that exists; None if it is missing or damaged."""
    if not file.exists():
        return None
    try:
        texts = read_table(file)[1]
        if json.loads(texts["job"]) == job:
            return int(texts["users"])
        why = "belongs to another job"
    except (MetarecError, LookupError, TypeError, ValueError):
        why = "is damaged"
    reporter.note(f"{path_argument(file)} {why}: it is made again")
    return None
