"""The database file of a store: its tables, how it is opened, and what is said when SQLite refuses something."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import parse_json

FILE = "service.sqlite"
"""Name of the database in a store's folder."""
LAYOUT = 1
"""Version of the tables; a store of another version is refused."""
WAIT = 2.0
"""Seconds that a statement waits for a lock that another process has."""

_TABLES = """
CREATE TABLE IF NOT EXISTS items (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL,
  details TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, profile TEXT NOT NULL, time REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lists (
  id TEXT PRIMARY KEY, user TEXT NOT NULL, arm TEXT NOT NULL, model TEXT NOT NULL, mode TEXT NOT NULL,
  history TEXT NOT NULL, filters TEXT NOT NULL, pool INTEGER NOT NULL, explore REAL NOT NULL, time REAL NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown (
  list TEXT NOT NULL, place INTEGER NOT NULL, item TEXT NOT NULL, arm TEXT NOT NULL, score REAL NOT NULL,
  propensity REAL, own_place INTEGER NOT NULL, PRIMARY KEY (list, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY, user TEXT NOT NULL, list TEXT, item TEXT NOT NULL, kind TEXT NOT NULL,
  value REAL NOT NULL, time REAL NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_user ON events (user);
"""
_LATER = """
CREATE INDEX IF NOT EXISTS events_of_item ON events (item);
CREATE TABLE IF NOT EXISTS readings (
  item TEXT NOT NULL, model TEXT NOT NULL, reading BLOB NOT NULL, PRIMARY KEY (item, model)) WITHOUT ROWID;
"""
"""What stores of this layout may lack: it is made when they are opened."""


class StoreError(MetarecError):
    """The store cannot be read or written.

    Args:
        path: of the file; part of the message, and of no answer to a request.
        cause: what is wrong, and what to do about it.

    Attributes:
        cause: as given.
    """

    def __init__(self, path: Path, cause: Cause):
        super().__init__(f"{path}: {cause.wrong}: {cause.remedy}")
        self.cause = cause


class Cause(NamedTuple):
    """Why a store cannot be used, without the names of files.

    Attributes:
        wrong: what is wrong.
        remedy: what whoever runs the service can do.
        passing: whether a request can succeed later without a new start of the service.
    """

    wrong: str
    remedy: str
    passing: bool


_CAUSES = {
    sqlite3.SQLITE_FULL: Cause("the disk is full", "free some space", True),
    sqlite3.SQLITE_BUSY: Cause("another process has locked the database", "wait until it ends, or end it", True),
    sqlite3.SQLITE_LOCKED: Cause("another process has locked the database", "wait until it ends, or end it", True),
    sqlite3.SQLITE_IOERR: Cause("the disk cannot be read or written", "check the disk and its quota", True),
    sqlite3.SQLITE_READONLY: Cause("the database is read-only", "allow writing to the file and its folder", False),
    sqlite3.SQLITE_PERM: Cause("the database is not accessible", "change the permissions of the file", False),
    sqlite3.SQLITE_CANTOPEN: Cause("the database cannot be opened", "check that the file is there", False),
}
"""By the primary result code of SQLite."""
DAMAGED = "restore it from a backup, or name another folder with --store"
"""The remedy for a damaged database."""
REPLACED = Cause(
    "the database was removed or replaced while the service was running",
    "start the service again (what is written now would be lost)",
    False,
)


@contextlib.contextmanager
def explained_database(path: Path) -> Iterator[None]:
    """Raise what SQLite refuses within the block as a `StoreError`.

    Args:
        path: of the database.

    Raises:
        StoreError: with the cause.
    """
    try:
        yield
    except sqlite3.ProgrammingError as error:  # a request that is late: the store is closed
        raise StoreError(path, Cause("the store is closed", "start the service again", True)) from error
    except sqlite3.Error as error:
        # The code of a failure, whose upper bits say more. Errors of the module itself have none: text that is not
        # UTF-8, for one, which only a damaged file has.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        damaged = Cause(f"the database is damaged ({error})", DAMAGED, False)
        raise StoreError(path, _CAUSES.get(code, damaged)) from error


def connected(path: Path) -> sqlite3.Connection:
    """Open a database, and create what it lacks.

    Args:
        path: of the database.

    Raises:
        MetarecError: it cannot be used, or has tables of another version.
    """
    with explained_database(path):
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=WAIT)
        (layout,) = database.execute("PRAGMA user_version").fetchone()
        if layout not in (0, LAYOUT):
            raise MetarecError(
                f"{path}: the store has layout version {layout}, and this version of metarec_jax reads {LAYOUT}: "
                "name another folder with --store, or use the version that made it"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        if layout == 0:
            database.executescript(_TABLES + f"PRAGMA user_version = {LAYOUT};")
        database.executescript(_LATER)
        return database


def check_intact(database: sqlite3.Connection, path: Path) -> None:
    """Check every page of a database.

    Args:
        database: an open connection.
        path: of the database.

    Raises:
        StoreError: it is damaged.
    """
    with explained_database(path):
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StoreError(path, Cause(f"the database is damaged ({' '.join(found.split())})", DAMAGED, False))


@contextlib.contextmanager
def open_for_reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of a store to read metrics from, and close it; a service may use it at the same time.

    Args:
        folder: of the store.

    Raises:
        MetarecError: there is no store, one of another version, or a damaged one.
    """
    path = folder / FILE
    if not path.is_file():
        raise StoreError(
            path, Cause("it does not exist, so nothing was served from there yet", "`metarec serve` makes it", False)
        )
    with contextlib.closing(connected(path)) as database, explained_database(path):
        yield database


def decoded(text: str) -> Any:
    """Return the value of JSON text of a row.

    Raises:
        sqlite3.DatabaseError: it is not JSON, so the database is damaged.
    """
    try:
        return parse_json(text, where="a row", non_finite=True)
    except MetarecError as error:
        raise sqlite3.DatabaseError(f"a row has {text[:40]!r} where JSON belongs") from error
