"""Statements compiled once and run on the driver's own cursor, at a small part of what executing them would cost.

SQLAlchemy still writes the SQL and converts the values; only its bookkeeping per execution is left out. Errors are
therefore the driver's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

Values: TypeAlias = Mapping[str, Any]
Convert: TypeAlias = Callable[[Any], Any]


class Prepared:
    """One statement for one dialect. *given* names the columns an insert sets when those aren't all of its table's.

    Every run takes values by the statement's parameter names; one that is missing is a `KeyError`. Lists of any
    length (``IN``) can't be prepared.
    """

    def __init__(self, statement: sa.ClauseElement, dialect: sa.Dialect, given: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=given)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError(f"{type(statement).__name__} can't be prepared")
        self._sql = compiled.string
        self._positional = compiled.positional
        binds = {name: bind for bind, name in compiled.bind_names.items()}
        self._binds = [
            (name, bind.type.dialect_impl(dialect).bind_processor(dialect))
            for name in (compiled.positiontup or binds)
            for bind in (binds[name],)
        ]
        # Values that are part of the statement: nobody gives them.
        self._fixed = {name: bind.value for name, bind in binds.items() if not bind.required}
        columns = getattr(statement, "exported_columns", ())
        convert = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._convert: list[Convert | None] | None = convert if any(convert) else None

    def _values(self, given: Values) -> Any:
        given = {**given, **self._fixed} if self._fixed else given
        if self._positional:
            return [given[name] if convert is None else convert(given[name]) for name, convert in self._binds]
        return {name: given[name] if convert is None else convert(given[name]) for name, convert in self._binds}

    def run(self, connection: sa.Connection, given: Values) -> int:
        """Run the statement and return how many rows it met."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._sql, self._values(given))
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def run_each(self, connection: sa.Connection, given: Sequence[Values]) -> None:
        """Run the statement once for each of *given*."""
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(self._sql, [self._values(each) for each in given])
        finally:
            cursor.close()

    def first(self, connection: sa.Connection, given: Values) -> Sequence[Any] | None:
        """Return the first row the statement selects or returns."""
        return next(iter(self.all(connection, given)), None)

    def all(self, connection: sa.Connection, given: Values) -> Sequence[Sequence[Any]]:
        """Return every row the statement selects or returns."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._sql, self._values(given))
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        finally:
            cursor.close()
        if self._convert is None:
            return rows
        return [
            [value if convert is None else convert(value) for value, convert in zip(row, self._convert)] for row in rows
        ]
