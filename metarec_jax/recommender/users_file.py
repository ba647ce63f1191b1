"""Files of users for batch recommendation, read in blocks of users.

Three kinds of files are read:

- one user in each row, with the history in the column ``history``: JSON lines or Parquet, of which one block is in
  memory at a time;
- the column of users alone: ids of users in the data of the run, in any table format;
- one rating in each row, in any table format; the ratings are in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.core.json_files import parse_json
from metarec_jax.recommender.batch import User
from metarec_jax.recommender.data_histories import DataHistories
from metarec_jax.recommender.history import check_history
from metarec_jax.recommender.history_forms import pairs_of
from metarec_jax.recommender.recommender import Recommender

HISTORY = "history"
"""Column of a user's items and ratings in a file with one user in each row."""
MOST_LINE = 1 << 26
"""Greatest length of a line of JSON, in bytes."""
_EXAMPLE = '{"user_id": "7", "history": [{"item_id": 50, "rating": 5}]}'


class UsersFile(NamedTuple):
    """An open file of users.

    Attributes:
        digest: sha256 of its content and of the options that it is read with.
        blocks: (size, first, step) -> blocks of `size` of the users first, first + step, ... (numbered from 0), not
            parsed, in the order of the file.
        users: parses a block.
    """

    digest: str
    blocks: Callable[[int, int, int], Iterator[Any]]
    users: Callable[[Any], list[User]]


def open_users(recommender: Recommender, config: DataConfig, option: str = "--users") -> UsersFile:
    """Open a file of users, in any of the three kinds.

    Args:
        recommender: model with the items and the scale of the histories.
        config: options of the data; ``config.path`` is the file.
        option: command-line option that names the file, for messages.

    Returns:
        The file.

    Raises:
        MetarecError: the file cannot be read, a column is missing, or, for a file with one rating in each row, a value
            is not valid.
    """
    from metarec_jax.data.sources.folder import is_zip

    path = Path(config.path).expanduser()
    if path.is_dir() or is_zip(path) or is_zip(path.parent):
        return _of_table(recommender, config, option, may_be_text=True)
    columns = config.columns
    fields = _fields_of_rows(path, option)
    rows = _UserRows(path, columns.user, columns.item, columns.rating, columns.user_text or "profile", recommender)
    of_user = {columns.user, rows.profile}
    if columns.user in fields and (HISTORY in fields or (columns.item not in fields and fields <= of_user)):
        rows.known = _known_users(recommender)
        with path.open("rb") as content:
            digest = _digest_of(hashlib.file_digest(content, "sha256"), config)
        if _is_parquet(path, option):
            return UsersFile(digest, rows.tables, rows.of_table)
        return UsersFile(digest, rows.lines, rows.of_lines)
    if HISTORY in fields:
        raise MetarecError(
            f"{path} has no column {columns.user!r}; it has {listed(sorted(fields))}: name that of the users with "
            "--data.columns.user NAME"
        )
    return _of_table(recommender, config, option, may_be_text=not fields)


def users_of_rows(
    recommender: Recommender, columns: Columns, rows: Sequence[Mapping[str, Any]], where: str
) -> list[User]:
    """Convert rows with one user each and the column ``history``, as of a Parquet file.

    Args:
        recommender: model with the items and the scale of the histories.
        columns: names of the columns.
        rows: the rows; a user may be in one of them only.
        where: name of the file, for messages.

    Returns:
        The users.

    Raises:
        MetarecError: a row is not valid; the message names the user.
    """
    profile = columns.user_text or "profile"
    return _UserRows(Path(where), columns.user, columns.item, columns.rating, profile, recommender).of_rows(rows, where)


# One user in each row


def _is_parquet(path: Path, option: str) -> bool:
    from metarec_jax.data.sources.files import open_stream
    from metarec_jax.data.sources.parquet import MAGIC

    with open_stream(path, option), path.open("rb") as packed:  # a compressed one is read whole, as a table of ratings
        return packed.read(len(MAGIC)) == MAGIC


def _fields_of_rows(path: Path, option: str) -> set[str]:
    """Names of the columns of a Parquet file, or of the fields of the first line of JSON lines; empty for others."""
    if _is_parquet(path, option):
        with _parquet(path) as file:
            return set(file.schema_arrow.names)
    first = next(_numbered_lines(path, option), (0, b""))[1]
    if not first.startswith(b"{"):
        return set()
    try:
        row = parse_json(first, where=str(path))
    except MetarecError:
        return set()  # the reader of tables names the line
    return set(row)


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> MetarecError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return MetarecError(f"{path}: not a Parquet file, or a damaged one ({reason})")


def _numbered_lines(path: Path, option: str = "") -> Iterator[tuple[int, bytes]]:
    """The number, from 1, and the bytes of each line that is not blank, without a byte order mark."""
    from metarec_jax.data.sources.files import open_stream

    with open_stream(path, option) as stream:
        for number in itertools.count(1):
            line = stream.readline(MOST_LINE + 1)
            if len(line) > MOST_LINE:
                raise MetarecError(f"{path}, line {number} is longer than {MOST_LINE:,} bytes: write one user a line")
            if not line:
                return
            if line := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
                yield number, line


class _UserRows:
    """Reads a file with one user in each row.

    Args:
        path: path of the file.
        user, item, rating, profile: names of the columns, and of the fields of a history.
        recommender: model with the items and the scale of the histories.
    """

    def __init__(self, path: Path, user: str, item: str, rating: str, profile: str, recommender: Recommender):
        self._path, self._user, self._item, self._rating, self.profile = path, user, item, rating, profile
        self._find, self._scale = recommender.items.titles.find_id, recommender.catalogue.scale
        self._reads_profiles = recommender.users.side == "profile"
        self._seen: set[int] = set()
        self.known: Callable[[], DataHistories] | None = None

    def lines(self, size: int, first: int, step: int) -> Iterator[list[tuple[int, bytes]]]:
        """Blocks of numbered lines, as `UsersFile.blocks`."""
        lines = itertools.islice(_numbered_lines(self._path), first, None, step)
        while block := list(itertools.islice(lines, size)):
            yield block

    def of_lines(self, block: Sequence[tuple[int, bytes]]) -> list[User]:
        """Parse lines of JSON."""
        found = []
        for number, line in block:
            where = f"{self._path}, line {number}"
            row = parse_json(line, where=where, remedy=f"write one object a line, such as {_EXAMPLE}")
            if not isinstance(row, dict):
                raise MetarecError(f"{where}: {shown(row)} is no object: write one a line, such as {_EXAMPLE}")
            found.append(self._user_of(row, where))
        return found

    def tables(self, size: int, first: int, step: int) -> Iterator[tuple[int, int, Any]]:
        """Blocks of rows of Parquet, as `UsersFile.blocks`: the first row's number, the step, and a table."""
        import pyarrow as pa

        held, before, number = None, 0, first  # rows of the next block, rows of the file read so far
        with _parquet(self._path) as file:
            wanted = [name for name in (self._user, HISTORY, self.profile) if name in file.schema_arrow.names]
            batches = file.iter_batches(batch_size=size, columns=wanted)
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise _damaged(self._path, error) from error
                if batch is not None:
                    own = pa.Table.from_batches([batch]).take(np.arange((first - before) % step, len(batch), step))
                    before += len(batch)
                    held = own if held is None else pa.concat_tables([held, own])
                while held is not None and len(held) >= (size if batch is not None else 1):
                    yield number, step, held[:size]
                    number, held = number + step * min(size, len(held)), held[size:]
                if batch is None:
                    return

    def of_table(self, block: tuple[int, int, Any]) -> list[User]:
        """Convert rows of Parquet."""
        number, step, table = block
        rows = table.to_pylist()
        return [self._user_of(row, f"{self._path}, row {number + n * step + 1}") for n, row in enumerate(rows)]

    def of_rows(self, rows: Sequence[Mapping[str, Any]], where: str) -> list[User]:
        """Convert rows whose place in the file is not known."""
        return [self._user_of(row, where) for row in rows]

    def _user_of(self, row: Mapping[str, Any], where: str) -> User:
        try:
            name = _identity(row.get(self._user))
        except _NoIdentity as error:
            raise MetarecError(f"{where}: {self._user} {error}") from error
        if hash(name) in self._seen:
            raise MetarecError(f"{where}: user {shown(name)} is in an earlier row too: write each user once")
        self._seen.add(hash(name))
        profile = row.get(self.profile) or ""
        if not isinstance(profile, str):
            raise MetarecError(f"{where}: {self.profile} is {shown(profile)}: write the user's text")
        if row.get(HISTORY) is None and self.known is not None:
            return self.known().user(name, where, profile if self._reads_profiles else "")
        try:
            history = check_history(self._pairs(row[HISTORY]), self._find, self._scale)
        except MetarecError as error:
            raise MetarecError(f"{where}, user {shown(name)}: {error}") from error
        return User(name, history, profile if self._reads_profiles else "")

    def _pairs(self, history: Any) -> list[tuple[Any, Any]]:
        """A history whose entries may be objects with the fields of an item and a rating, as pairs."""
        if not isinstance(history, list | dict):
            raise MetarecError(f"{HISTORY} is {shown(history)}: write a list, as in {_EXAMPLE}")
        click = self._scale.kind == "click"
        if isinstance(history, list):
            default = {self._rating: 1.0} if click else {}
            history = [self._pair({**default, **entry}) if isinstance(entry, dict) else entry for entry in history]
        try:
            return [(_identity(item), rating) for item, rating in pairs_of(history, click=click)]
        except _NoIdentity as error:
            raise MetarecError(f"{self._item} {error}") from error

    def _pair(self, entry: Mapping[str, Any]) -> tuple[Any, Any]:
        missing = next((name for name in (self._item, self._rating) if name not in entry), None)
        if missing is not None:
            raise MetarecError(
                f"an entry of {HISTORY} is {shown(dict(entry))}, without {missing!r}: write each as in {_EXAMPLE}, or "
                "name its fields with --data.columns.item NAME and --data.columns.rating NAME"
            )
        return entry[self._item], entry[self._rating]


class _NoIdentity(MetarecError):
    """A value that is no id."""


def _identity(value: Any) -> str:
    """An id as a text; a whole number is the same however it is written, as in tables (`metarec_jax.data.ids`).

    Raises:
        _NoIdentity: the value is missing, or neither a text nor a whole number.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise _NoIdentity(f"is {shown(value)}: write an id, a text or a whole number")
    return str(value)


# Ratings in memory


def _known_users(recommender: Recommender) -> Callable[[], DataHistories]:
    """A function that reads the data of the run at its first call."""
    from metarec_jax.data import load

    config = recommender.config
    return functools.cache(lambda: DataHistories(recommender, load(config.data, seed=config.seed)))


def _of_table(recommender: Recommender, config: DataConfig, option: str, *, may_be_text: bool) -> UsersFile:
    """Read a table with one rating in each row, or a text table with the column of users alone."""
    from metarec_jax.data.ids import ids
    from metarec_jax.data.sources import table
    from metarec_jax.data.sources.folder import read_table_file

    file = read_table_file(Path(config.path).expanduser(), option)
    digest = _digest_of(hashlib.sha256(file.data), config)
    user = config.columns.user
    opened = table.open_table(file, table.text_format(config), [user]) if may_be_text else None
    if opened is not None and opened.names == [user]:
        _, names = ids(opened.read({"user": user}, options={}), "user")
        if not names:
            raise MetarecError(f"{file.name} holds no user: give a file with one user in each row")
        known = _known_users(recommender)
        return UsersFile(
            digest,
            functools.partial(_slices, names),
            lambda block: [known().user(name, file.name) for name in block],
        )
    ratings = DataHistories(recommender, table.read(config, recommender.catalogue.scale._replace(levels=()), option))
    return UsersFile(
        digest, functools.partial(_slices, range(len(ratings.ids))), lambda block: [ratings.at(p) for p in block]
    )


def _slices(users: Sequence[Any], size: int, first: int, step: int) -> Iterator[Sequence[Any]]:
    own = users[first::step]
    return (own[start : start + size] for start in range(0, len(own), size))


def _digest_of(content: Any, config: DataConfig) -> str:
    content.update(repr(dataclasses.replace(config, path="-")).encode())
    return content.hexdigest()
