"""What we know of our reservations: the service can't be asked by our key, and a retry must find what the first did.

An entry is written before the service is asked and again when it has answered, so that after a kill or a lost answer
the same request is sent once more under the same id.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import attrs

from iom_core.errors import Unavailable


class State(StrEnum):
    """How far a reservation is."""

    ASKED = "asked"
    """The service was asked; whether it heard is not known."""
    HELD = "held"
    RELEASING = "releasing"
    CONSUMING = "consuming"
    FREE = "free"
    """Released or refused: the key may reserve again, as a new attempt."""
    CONSUMED = "consumed"


@attrs.frozen
class Entry:
    """One key. *attempt* counts from 1 and makes the ids sent to the service new after a release or a refusal.

    *dimensions* are those the reservation was made with: reversing it must name the same. *version* counts writes.
    """

    key: str
    attempt: int
    state: State
    organization: str
    product: str
    dimensions: Mapping[str, str]
    quantity: Decimal
    reservation: str = ""
    consumed: Decimal = Decimal(0)
    version: int = 0


class Book(Protocol):
    """Keeps entries by key."""

    def get(self, key: str) -> Entry | None:
        """Return the entry, or ``None``."""
        ...

    def put(self, entry: Entry) -> Entry:
        """Replace the entry and return it with its new version; raises `Unavailable` when another was faster."""
        ...


class MemoryBook:
    """A book that ends with its process: enough where keys are reserved and settled by one that isn't killed."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Entry | None:
        """Return the entry, or ``None``."""
        with self._lock:
            return self._entries.get(key)

    def put(self, entry: Entry) -> Entry:
        """Replace the entry."""
        with self._lock:
            known = self._entries.get(entry.key)
            _check(entry, known.version if known is not None else 0)
            written = self._entries[entry.key] = attrs.evolve(entry, version=entry.version + 1)
            return written


class FileBook:
    """A book in an SQLite file, which a killed process leaves intact and several processes may share."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS reservation (key TEXT PRIMARY KEY, version INTEGER, entry TEXT) WITHOUT ROWID"
        )

    def get(self, key: str) -> Entry | None:
        """Return the entry, or ``None``."""
        with self._lock:
            row = self._db.execute("SELECT version, entry FROM reservation WHERE key = ?", (key,)).fetchone()
        return None if row is None else _read(key, int(row[0]), str(row[1]))

    def put(self, entry: Entry) -> Entry:
        """Replace the entry."""
        with self._lock:
            done = self._db.execute(
                "INSERT INTO reservation VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET version = excluded.version, entry = excluded.entry WHERE version = excluded.version - 1",
                (entry.key, entry.version + 1, _write(entry)),
            )
            _check(entry, entry.version if done.rowcount == 1 else -1)
        return attrs.evolve(entry, version=entry.version + 1)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def _check(entry: Entry, version: int) -> None:
    if entry.version != version:
        raise Unavailable("inventory-visibility", f"reservation {entry.key!r} is being worked on elsewhere")


def _write(entry: Entry) -> str:
    return json.dumps(
        [
            entry.attempt,
            entry.state,
            entry.organization,
            entry.product,
            dict(entry.dimensions),
            str(entry.quantity),
            entry.reservation,
            str(entry.consumed),
        ]
    )


def _read(key: str, version: int, text: str) -> Entry:
    attempt, state, organization, product, dimensions, quantity, reservation, consumed = json.loads(text)
    return Entry(
        key,
        attempt,
        State(state),
        organization,
        product,
        dimensions,
        Decimal(quantity),
        reservation,
        Decimal(consumed),
        version,
    )
