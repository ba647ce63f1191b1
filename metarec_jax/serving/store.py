"""The database of a service (SQLite): added items, users and their ratings, lists that were shown, and feedback.

A request is answered only after its rows are on disk: writes are transactions in a write-ahead log that is synced
(``synchronous = FULL``), so an acknowledged row survives a kill and a power failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarec_jax.core.atomic_files import explained, make_folder
from metarec_jax.core.errors import MetarecError

LAYOUT = 1
"""Version of the tables; a store of another version is refused."""
KINDS = ("click", "purchase", "rating", "forget")
"""Kinds of events; "forget" removes a rating."""
COUNTED = ("items", "users", "lists", "events")
"""Tables whose rows are counted."""

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


class NewItem(NamedTuple):
    """An item that was added to the catalogue while serving."""

    id: str
    title: str
    text: str
    details: dict[str, str]


class Shown(NamedTuple):
    """One place of a list.

    Attributes:
        place: 1 is the first.
        item: its id.
        arm: name of the model that chose it.
        score: score by that model.
        propensity: probability that this item is shown in this place; None where lists are interleaved.
        own_place: place of the item in the model's own order.
    """

    place: int
    item: str
    arm: str
    score: float
    propensity: float | None
    own_place: int


class ShownList(NamedTuple):
    """A list that was shown to a user.

    Attributes:
        id: id of the list.
        user: the user's identifier.
        arm, model: name and digest of the model that made it.
        mode: "single", "ab" or "interleave".
        history: (item, rating) pairs that it was made from.
        filters: conditions on its items, as JSON text.
        pool: items that a random list is drawn from.
        explore: probability that the list is random.
        places: the items.
    """

    id: str
    user: str
    arm: str
    model: str
    mode: str
    history: Sequence[tuple[str, float]]
    filters: str
    pool: int
    explore: float
    places: Sequence[Shown]


class Event(NamedTuple):
    """An action of a user on an item, of one of `KINDS`; `list` is the id of the list that showed the item, if any."""

    user: str
    item: str
    kind: str
    value: float = 1.0
    list: str | None = None


class Store:
    """The database of a service, and the key that signs its states.

    Args:
        folder: created if it does not exist; readable by its owner only.

    Raises:
        MetarecError: the folder cannot be written, or holds a store of another version.
    """

    def __init__(self, folder: Path):
        make_folder(folder)
        self.folder = folder
        self.key = _key(folder / "key")
        self._lock = threading.Lock()
        path = folder / "service.sqlite"
        with explained(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._database = _connected(path)
        # A separate connection for reading, so that readers do not wait for writes to reach the disk.
        self._reader, self._reading = _connected(path), threading.Lock()
        self._counts = {table: self._read(f"SELECT count(*) FROM {table}")[0][0] for table in COUNTED}

    def close(self) -> None:
        """Close the database."""
        with self._lock, self._reading:
            self._database.close()
            self._reader.close()

    def add_item(self, item: NewItem) -> None:
        """Store an item."""
        with self._writing(items=1) as database:
            database.execute(
                "INSERT INTO items (id, title, text, details, time) VALUES (?, ?, ?, ?, ?)",
                (item.id, item.title, item.text, json.dumps(item.details), time.time()),
            )

    def items(self) -> list[NewItem]:
        """All stored items, in the order in which they were added."""
        rows = self._read("SELECT id, title, text, details FROM items ORDER BY number")
        return [NewItem(id, title, text, json.loads(details)) for id, title, text, details in rows]

    def add_user(self, user: str, profile: str, history: Iterable[tuple[str, float]]) -> None:
        """Store a user.

        Args:
            user: the user's identifier.
            profile: the user's text.
            history: (item, rating) pairs, oldest first.
        """
        now = time.time()
        events = [Event(user, item, "rating", rating) for item, rating in history]
        with self._writing(users=1, events=len(events)) as database:
            database.execute("INSERT INTO users VALUES (?, ?, ?)", (user, profile, now))
            _add_events(database, events, now)

    def profile(self, user: str) -> str | None:
        """A user's profile; None for an unknown user."""
        rows = self._read("SELECT profile FROM users WHERE id = ?", (user,))
        return rows[0][0] if rows else None

    def history(self, user: str) -> list[tuple[str, float]]:
        """A user's current (item, rating) pairs, in the order of the latest rating of each item."""
        rated: dict[str, float] = {}
        for item, kind, value in self._read(
            "SELECT item, kind, value FROM events WHERE user = ? AND kind IN ('rating', 'forget') ORDER BY number",
            (user,),
        ):
            rated.pop(item, None)
            if kind == "rating":
                rated[item] = value
        return list(rated.items())

    def raters(self, item: str, most: int) -> list[tuple[str, float]]:
        """The latest users who have a rating of an item.

        Args:
            item: its id.
            most: users, at most.

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
        now = time.time()
        with self._writing(lists=len(lists), events=len(events)) as database:
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
        """The user who saw a list, and the arm of each of its items by id; None for an unknown list."""
        rows = self._read("SELECT user FROM lists WHERE id = ?", (list_id,))
        if not rows:
            return None
        return rows[0][0], dict(self._read("SELECT item, arm FROM shown WHERE list = ?", (list_id,)))

    def counts(self) -> dict[str, int]:
        """Rows of each table, counted when the store was opened and at each write since; no table is read."""
        return dict(self._counts)

    def version(self) -> int:
        """A number that changes with every write, by this process or another one."""
        return self._read("PRAGMA data_version")[0][0]

    def _read(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple]:
        with self._reading:
            return self._reader.execute(query, arguments).fetchall()

    @contextlib.contextmanager
    def _writing(self, **more: int) -> Iterator[sqlite3.Connection]:
        """A transaction; `more` is the number of rows that it adds to each table."""
        with self._lock:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
            for table, rows in more.items():
                self._counts[table] += rows


def open_for_reading(folder: Path) -> sqlite3.Connection:
    """The database in a store's folder, to read metrics from; a service may use it at the same time.

    Raises:
        MetarecError: there is no store, or one of another version.
    """
    path = folder / "service.sqlite"
    if not path.is_file():
        raise MetarecError(f"{path} does not exist: nothing was served from there yet; `metarec serve` makes it")
    return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
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
        # Not in _TABLES, since some stores of this layout lack the index.
        database.execute("CREATE INDEX IF NOT EXISTS events_of_item ON events (item)")
        return database
    except sqlite3.Error as error:
        raise MetarecError(
            f"{path} cannot be used ({error}): restore it, or name another folder with --store"
        ) from error


def _add_events(database: sqlite3.Connection, events: Sequence[Event], now: float) -> None:
    database.executemany(
        "INSERT INTO events (user, list, item, kind, value, time) VALUES (?, ?, ?, ?, ?, ?)",
        [(event.user, event.list, event.item, event.kind, event.value, now) for event in events],
    )


def _key(path: Path) -> bytes:
    """The key in a file, which is created if it does not exist."""
    with explained(path):
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
        key = path.read_bytes()
    if len(key) != 32:
        raise MetarecError(
            f"{path} is damaged: remove it, and states and users that were handed out are no longer valid"
        )
    return key
