"""SQLite database of a service: added items, users and their ratings, lists that were shown, and feedback.

A request is answered only after its rows are on disk: writes are transactions in a write-ahead log that is synced
(``synchronous = FULL``), so that an acknowledged row survives a killed process and a power failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarec_jax.core.atomic_files import explained, make_folder
from metarec_jax.core.checked_files import reading
from metarec_jax.core.locks import hold
from metarec_jax.core.regular_files import read_regular
from metarec_jax.recommender.errors import InputError
from metarec_jax.serving.database import (
    FILE,
    REPLACED,
    WAIT,
    StoreError,
    check_intact,
    connected,
    decoded,
    explained_database,
)
from metarec_jax.serving.rows import Event, NewItem, ShownList

COUNTED = ("items", "users", "lists", "events")
"""Tables whose rows are counted."""


class Store:
    """Database of a service, and the key that signs its states. A lock admits one process at a time.

    A write waits for a lock of another program, for `wait` seconds at most. After a failed write, writes do not wait
    until one succeeds. Times increase in the order of the writes, even if the clock is set back.

    Args:
        folder: folder of the store, readable by its owner only; created if it does not exist.

    Attributes:
        folder: folder of the store.
        key: key that signs states and user tokens, 32 bytes.
        latest: time of the latest row, in seconds since 1970.
        wait: longest time for which a read or a write waits for a lock of another program, in seconds.

    Raises:
        MetarecError: the folder cannot be written, another process has locked it, or its store is damaged or of another
            version.
    """

    def __init__(self, folder: Path):
        make_folder(folder)
        self.folder, self.wait = folder, WAIT
        self._failed: dict[str, StoreError | None] = {"read": None, "write": None}
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._path = path = folder / FILE
        with contextlib.ExitStack() as opened:
            opened.enter_context(hold(folder / "lock", f"the store {folder}"))
            self.key = _key(folder / "key")
            with explained(path):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = opened.enter_context(contextlib.closing(connected(path)))
            check_intact(self._database, path)
            # A separate connection for reading, so that readers do not wait for writes to reach the disk.
            self._reader = opened.enter_context(contextlib.closing(connected(path)))
            self._identity = _identity(path)
            self._counts = {table: self._read(f"SELECT count(*) FROM {table}")[0][0] for table in COUNTED}
            times = (self._read(f"SELECT max(time) FROM {table}")[0][0] for table in COUNTED)
            self.latest = max((time for time in times if time is not None), default=0.0)
            self._open = opened.pop_all()

    def close(self) -> None:
        """Close the database and release the lock of the store."""
        with self._lock, self._reading:
            self._open.close()

    def add_item(self, item: NewItem, readings: Mapping[str, bytes] | None = None, names: Iterable[str] = ()) -> str:
        """Store an item.

        Args:
            item: the item; an empty id is replaced by the first of `names` that no stored item has.
            readings: embedding and statistics of the item as bytes, by the digest of the model that computed them;
                stored for the next start.
            names: candidates for the id.

        Returns:
            The id.

        Raises:
            InputError: a stored item already has the id.
            StoreError: the item cannot be stored.
        """
        with self._writing(items=1) as (database, now):
            taken = "SELECT 1 FROM items WHERE id = ?"
            free = (name for name in names if database.execute(taken, (name,)).fetchone() is None)
            identity = item.id or next(free)
            if database.execute(taken, (identity,)).fetchone():
                raise InputError(f"there is an item with the id {identity!r} already: choose another one", "id")
            database.execute(
                "INSERT INTO items (id, title, text, details, time) VALUES (?, ?, ?, ?, ?)",
                (identity, item.title, item.text, json.dumps(item.details), now),
            )
            _add_readings(database, [(identity, model, reading) for model, reading in (readings or {}).items()])
        return identity

    def items(self, after: int = 0) -> list[tuple[int, NewItem]]:
        """Return stored items with their numbers, in the order in which they were added.

        Args:
            after: number after which items are returned.

        Returns:
            (number, item) pairs.
        """
        query = "SELECT number, id, title, text, details FROM items WHERE number > ? ORDER BY number"
        with explained_database(self._path):
            return [
                (number, NewItem(id, title, text, decoded(details)))
                for number, id, title, text, details in self._read(query, (after,))
            ]

    def readings(self, model: str, after: int = 0) -> dict[str, bytes]:
        """Return a model's stored embeddings and statistics of items.

        Args:
            model: digest of the model.
            after: number after which items are included, as for `items`.

        Returns:
            The bytes given to `add_item` or `add_readings`, by the ids of the items.
        """
        query = (
            "SELECT items.id, readings.reading FROM items JOIN readings ON readings.item = items.id "
            "WHERE items.number > ? AND readings.model = ?"
        )
        return dict(self._read(query, (after, model)))

    def add_readings(self, model: str, readings: Mapping[str, bytes]) -> None:
        """Store a model's embeddings and statistics of stored items.

        Args:
            model: digest of the model.
            readings: embeddings and statistics as bytes, by the ids of the items.
        """
        with self._writing() as (database, _):
            _add_readings(database, [(item, model, reading) for item, reading in readings.items()])

    def add_user(self, user: str, profile: str, history: Iterable[tuple[str, float]]) -> None:
        """Store a user.

        Args:
            user: the user's identifier.
            profile: the user's text.
            history: (item, rating) pairs, oldest first.
        """
        events = [Event(user, item, "rating", rating) for item, rating in history]
        with self._writing(users=1, events=len(events)) as (database, now):
            database.execute("INSERT INTO users VALUES (?, ?, ?)", (user, profile, now))
            _add_events(database, events, now)

    def profile(self, user: str) -> str | None:
        """Return a user's profile; None for an unknown user."""
        rows = self._read("SELECT profile FROM users WHERE id = ?", (user,))
        return rows[0][0] if rows else None

    def history(self, user: str) -> list[tuple[str, float]]:
        """Return a user's current (item, rating) pairs, in the order of the latest rating of each item."""
        rated: dict[str, float] = {}
        for item, kind, value in self._read(
            "SELECT item, kind, value FROM events WHERE user = ? AND kind IN ('rating', 'forget') ORDER BY number",
            (user,),
        ):
            rated.pop(item, None)
            if kind == "rating":
                rated[item] = value
        return list(rated.items())

    def rated_items(self) -> set[str]:
        """Return the ids of the stored items that have events."""
        return {item for (item,) in self._read("SELECT id FROM items WHERE id IN (SELECT item FROM events)")}

    def raters(self, item: str, most: int) -> list[tuple[str, float]]:
        """Return the users who rated an item last.

        Args:
            item: id of the item.
            most: greatest number of users.

        Returns:
            (user, latest rating) pairs, latest last.
        """
        rated: dict[str, float] = {}
        for user, kind, value in self._read(
            "SELECT user, kind, value FROM events WHERE item = ? AND kind IN ('rating', 'forget') AND user <> '' "
            "ORDER BY number",
            (item,),
        ):
            rated.pop(user, None)
            if kind == "rating":
                rated[user] = value
        return list(rated.items())[-most:]

    def add(self, lists: Sequence[ShownList], events: Sequence[Event]) -> None:
        """Store lists that are about to be shown, and events, in one transaction.

        Args:
            lists: the lists.
            events: the events.
        """
        with self._writing(lists=len(lists), events=len(events)) as (database, now):
            database.executemany(
                "INSERT INTO lists VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (s.id, s.user, s.arm, s.model, s.mode, json.dumps(s.history), s.filters, s.pool, s.explore, now)
                    for s in lists
                ],
            )
            database.executemany(
                "INSERT INTO shown VALUES (?, ?, ?, ?, ?, ?, ?)", [(s.id, *place) for s in lists for place in s.places]
            )
            _add_events(database, events, now)

    def shown_in(self, list_id: str) -> tuple[str, dict[str, str]] | None:
        """Return the user who saw a list, and the arm of each of its items by id; None for an unknown list."""
        rows = self._read("SELECT user FROM lists WHERE id = ?", (list_id,))
        if not rows:
            return None
        return rows[0][0], dict(self._read("SELECT item, arm FROM shown WHERE list = ?", (list_id,)))

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each table, counted at opening and updated at each write, without a query."""
        return dict(self._counts)

    def version(self) -> int:
        """Return a number that changes with every write, by this process or another one."""
        return self._read("PRAGMA data_version")[0][0]

    @property
    def trouble(self) -> StoreError | None:
        """Error of the latest write or the latest read; None if both succeeded."""
        try:
            self.check_in_place()
        except StoreError as error:
            return error
        return self._failed["write"] or self._failed["read"]

    def check_in_place(self) -> None:
        """Check that the open database is still the file at its path: rows written to a removed file are lost.

        Raises:
            StoreError: the file was removed or replaced.
        """
        if _identity(self._path) != self._identity:
            raise StoreError(self._path, REPLACED)

    def probe(self) -> None:
        """Test whether the database can be read and written, by writing and deleting a row without an item.

        Raises:
            StoreError: reading or writing fails.
        """
        self.version()
        with self._writing() as (database, _):  # larger than the free space in existing pages
            database.execute("INSERT OR REPLACE INTO readings VALUES ('', '', zeroblob(65536))")
        with self._writing() as (database, _):
            database.execute("DELETE FROM readings WHERE item = '' AND model = ''")

    def _read(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple]:
        with self._reading, self._noted(self._reader, "read"):
            return self._reader.execute(query, arguments).fetchall()

    @contextlib.contextmanager
    def _writing(self, **more: int) -> Iterator[tuple[sqlite3.Connection, float]]:
        """Open a transaction and yield it with its time; `more` is the number of rows that it adds to each table."""
        with self._lock, self._noted(self._database, "write"):
            self.check_in_place()
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self.latest = max(time.time(), self.latest + 1e-6)
                yield self._database, self.latest
            for table, rows in more.items():
                self._counts[table] += rows

    @contextlib.contextmanager
    def _noted(self, database: sqlite3.Connection, kind: str) -> Iterator[None]:
        """Record whether the block succeeds. After a failure, do not wait for locks of other processes."""
        try:
            with explained_database(self._path):
                database.execute(f"PRAGMA busy_timeout = {0 if self._failed[kind] else int(1000 * self.wait)}")
                yield
        except StoreError as error:
            self._failed[kind] = error
            raise
        self._failed[kind] = None


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode numbers of the file at a path; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _add_readings(database: sqlite3.Connection, rows: Sequence[tuple[str, str, bytes]]) -> None:
    database.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?)", rows)


def _add_events(database: sqlite3.Connection, events: Sequence[Event], now: float) -> None:
    database.executemany(
        "INSERT INTO events (user, list, item, kind, value, time) VALUES (?, ?, ?, ?, ?, ?)",
        [(event.user, event.list, event.item, event.kind, event.value, now) for event in events],
    )


def _key(path: Path) -> bytes:
    """Read the key in a file, which is created with a random key if it does not exist."""
    with explained(path), contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    with reading(path, "remove it, and states and users that were handed out are no longer valid"):
        key = read_regular(path, 1 << 20)
        if len(key) != 32:
            raise ValueError(f"it has {len(key)} bytes, and not 32")
    return key
