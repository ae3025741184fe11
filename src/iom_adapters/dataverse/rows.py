"""The twin's database: rows with versions, alternate keys and a change log, in transactions that can roll back.

Knows nothing of HTTP. Tables are named by entity set, rows by id; a row is what the Web API reads (lookups as
``_x_value``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from iom_adapters._clock import Clock
from iom_adapters._twin import Documents
from iom_adapters.dataverse.dual_write import COMPANY_COLUMN, Change, Row, Scalar
from iom_adapters.dataverse.tables import TABLES, Table

VERSION = "versionnumber"


class DuplicateKey(Exception):
    """Another row has the same values in an alternate key."""


class Rows:
    """Tables of rows over `Documents`. Changes since `begin` can be rolled back, or listed for dual-write."""

    def __init__(self, docs: Documents, clock: Clock) -> None:
        self.docs, self.clock = docs, clock
        self._undo: list[tuple[str, str, Any]] = []
        self._changes: list[Change] = []
        self._log: dict[str, list[tuple[int, str]]] = {table: [] for table in TABLES}
        self._index: dict[tuple[str, tuple[str, ...]], dict[tuple[Any, ...], dict[str, None]]] = {}
        for name in TABLES:
            for kind in (name, f"deleted:{name}"):
                self._log[name] += [(int((docs.get(kind, key) or {})[VERSION]), key) for key in docs.keys(kind)]
            self._log[name].sort()

    # --- reading

    def get(self, table: str, row_id: str) -> Row | None:
        """Return a row, or ``None``."""
        found: Row | None = self.docs.get(table, row_id.lower())
        return found

    def all(self, table: str) -> list[Row]:
        """Return every row of *table* in the order of creation."""
        return sorted(self.docs.all(table), key=lambda row: str(row[TABLES[table].id_column]))

    def find(self, table: str, match: Mapping[str, Scalar]) -> list[Row]:
        """Return the rows that have these values; text is compared without regard to case."""
        columns = tuple(sorted(match))
        index = self._index.get((table, columns))
        if index is None:
            index = self._index[table, columns] = {}
            for row in self.docs.all(table):
                index.setdefault(_entry(row, columns), {})[row[TABLES[table].id_column]] = None
        ids = index.get(_entry(match, columns), {})
        return [row for each in ids if (row := self.get(table, each)) is not None]

    def value_of(self, table: str, row_id: str, column: str) -> Scalar:
        """Return one column of a row; ``None`` when there is no such row."""
        row = self.get(table, row_id)
        value: Scalar = None if row is None else row.get(column)
        return value

    def id_of(self, table: str, match: Mapping[str, Scalar], company: str | None) -> str | None:
        """Return the id of the one row with these values, within *company* when the table has companies."""
        if table not in TABLES:
            return None
        wanted = dict(match)
        if TABLES[table].striped and company is not None:
            wanted[COMPANY_COLUMN] = company
        found = self.find(table, wanted)
        return str(found[0][TABLES[table].id_column]) if found else None

    def changed_since(self, table: str, version: int) -> list[tuple[int, str, Row | None]]:
        """Return version, id and row (``None``: deleted) of what changed after *version*, oldest first."""
        log = self._log[table]
        newest: list[tuple[int, str, Row | None]] = []
        for at, row_id in log[bisect_right(log, (version, "~")) :]:
            row = self.docs.get(table, row_id)
            stone = self.docs.get(f"deleted:{table}", row_id)
            if row is not None and row[VERSION] == at:
                newest.append((at, row_id, row))
            elif row is None and stone is not None and stone[VERSION] == at:
                newest.append((at, row_id, None))
        return newest

    @property
    def version(self) -> int:
        """Return the newest version given to a change."""
        return int(self.docs.get("sequence", "version") or 1) - 1

    # --- writing

    def new_id(self) -> str:
        """Return the id of a row to come; ids grow."""
        number = self.docs.next("row")
        return f"{number:08x}-0000-4000-8000-{number:012x}"

    def begin(self) -> None:
        """Start a transaction."""
        self._undo, self._changes = [], []

    def changes(self) -> tuple[Change, ...]:
        """Return what the transaction has changed so far."""
        return tuple(self._changes)

    def roll_back(self) -> None:
        """Undo everything since `begin`."""
        for table, key, value in reversed(self._undo):
            if table in TABLES:
                self._reindex(table, self.docs.get(table, key), value)
            if value is None:
                self.docs.delete(table, key)
            else:
                self.docs.put(table, key, value)
        self.begin()

    def keep(self, table: str, key: str, value: Any) -> None:
        """Put a document that is no row (``None`` deletes it), within the transaction."""
        self._undo.append((table, key, self.docs.get(table, key)))
        if value is None:
            self.docs.delete(table, key)
        else:
            self.docs.put(table, key, value)

    def put(self, table: str, row_id: str, values: Mapping[str, Any], *, echo: bool = False) -> Row:
        """Create or change a row and give it a new version; raises `DuplicateKey`."""
        definition = TABLES[table]
        before = self.get(table, row_id)
        now = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        version = self.docs.next("version")
        started = {**definition.defaults, definition.id_column: row_id, "createdon": now} if before is None else before
        row = {**started, **values, "modifiedon": now, VERSION: version}
        self._check_keys(definition, row_id, row)
        self._write(table, row_id, before, row)
        self._log[table].append((version, row_id))
        self._changes.append(Change(table, row_id, row, before, echo))
        return row

    def delete(self, table: str, row_id: str, *, echo: bool = False) -> None:
        """Delete a row and its children."""
        before = self.get(table, row_id)
        if before is None:
            return
        for child, column in TABLES[table].children.values():
            for row in self.find(child, {f"_{column}_value": row_id}):
                self.delete(child, row[TABLES[child].id_column], echo=echo)
        version = self.docs.next("version")
        self._write(table, row_id, before, None)
        self.keep(f"deleted:{table}", row_id, {VERSION: version})
        self._log[table].append((version, row_id))
        self._changes.append(Change(table, row_id, None, before, echo))

    def _check_keys(self, definition: Table, row_id: str, row: Row) -> None:
        for key in definition.keys:
            match = {column: row.get(column) for column in key}
            # Null key values do not enforce uniqueness.
            if None in match.values():
                continue
            if any(each[definition.id_column] != row_id for each in self.find(definition.entity_set, match)):
                shown = ", ".join(f"{column} = {value}" for column, value in match.items())
                raise DuplicateKey(f"A record with matching key values already exists. ({shown})")

    def _write(self, table: str, row_id: str, before: Row | None, after: Row | None) -> None:
        self._undo.append((table, row_id, before))
        self._reindex(table, before, after)
        if after is None:
            self.docs.delete(table, row_id)
        else:
            self.docs.put(table, row_id, after)

    def _reindex(self, table: str, before: Row | None, after: Row | None) -> None:
        id_column = TABLES[table].id_column
        for (name, columns), index in self._index.items():
            if name != table:
                continue
            if before is not None:
                index.get(_entry(before, columns), {}).pop(before[id_column], None)
            if after is not None:
                index.setdefault(_entry(after, columns), {})[after[id_column]] = None


def _entry(row: Mapping[str, Any], columns: Iterable[str]) -> tuple[Any, ...]:
    return tuple(value.casefold() if isinstance(value := row.get(each), str) else value for each in columns)
