"""The tables of the store, as SQLAlchemy sees them; `migrations` builds the same, and a test compares the two.

Whatever is looked up, ordered or counted has a column; everything else of a record is in its ``body``, the JSON
that `iom_core.codec` writes. Nothing is ordered by a global sequence but the outbox, where fairness is all it gives.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


class UtcTime(sa.TypeDecorator[datetime]):
    """An instant with a zone: stored in UTC, read back in UTC, comparable in SQL on every database.

    SQLite keeps text of one width without a zone, PostgreSQL ``timestamptz``.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Turn *value* to UTC; raises `ValueError` for a time without a zone."""
        if value is None or value.tzinfo is UTC:
            return value
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone can't be stored: {value}")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> datetime | None:
        """Give the instant its zone back."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

sales_order = sa.Table(
    "sales_order",
    metadata,
    sa.Column("order_id", sa.String(), primary_key=True),
    sa.Column("version", sa.Integer(), nullable=False),
    sa.Column("state", sa.String(), nullable=False, index=True),
    sa.Column("reason", sa.String(), nullable=False),
    sa.Column("channel", sa.String(), nullable=False),
    sa.Column("placed_at", UtcTime(), nullable=False),
    sa.Column("updated_at", UtcTime(), nullable=False),
    sa.Column("body", sa.Text(), nullable=False),
)

external = sa.Table(
    "external",
    metadata,
    sa.Column("system", sa.String(), primary_key=True),
    sa.Column("external_id", sa.String(), primary_key=True),
    sa.Column("order_id", sa.String(), nullable=False),
    sqlite_with_rowid=False,
)

event = sa.Table(
    "event",
    metadata,
    sa.Column("order_id", sa.String(), primary_key=True),
    sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("at", UtcTime(), nullable=False),
    sa.Column("event", sa.String(), nullable=False),
    sa.Column("entity", sa.String(), nullable=False),
    sa.Column("record", sa.String(), nullable=False),
    sa.Column("state", sa.String(), nullable=False),
    sa.Column("reason", sa.String(), nullable=False),
    sqlite_with_rowid=False,
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("message_id", sa.String(), primary_key=True),
    sa.Column("at", UtcTime(), nullable=False),
    sqlite_with_rowid=False,
)

# due_at is when the command may be handed out next: a lease moves it to its own end. So one column answers
# "is anything due", and lease_until says only whether the command is out at the moment.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
    sa.Column("key", sa.String(), nullable=False, unique=True),
    sa.Column("order_id", sa.String(), nullable=False, index=True),
    sa.Column("provider", sa.String(), nullable=False),
    sa.Column("body", sa.Text(), nullable=False),
    sa.Column("due_at", UtcTime(), nullable=False, index=True),
    sa.Column("first_at", UtcTime()),
    sa.Column("attempt", sa.Integer(), nullable=False),
    sa.Column("lease_until", UtcTime()),
    sa.Column("owner", sa.String(), nullable=False),
    sa.Column("why", sa.Text(), nullable=False),
)

waiting = sa.Table(
    "waiting",
    metadata,
    sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
    sa.Column("message_id", sa.String(), nullable=False, unique=True),
    sa.Column("system", sa.String(), nullable=False),
    sa.Column("external_id", sa.String(), nullable=False),
    sa.Column("since", UtcTime(), nullable=False),
    sa.Column("body", sa.Text(), nullable=False),
    sa.Index(None, "system", "external_id"),
)

checkpoint = sa.Table(
    "checkpoint",
    metadata,
    sa.Column("puller", sa.String(), primary_key=True),
    sa.Column("value", sa.Text(), nullable=False),
    sqlite_with_rowid=False,
)

error = sa.Table(
    "error",
    metadata,
    sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(), nullable=False, unique=True),
    sa.Column("kind", sa.String(), nullable=False),
    sa.Column("order_id", sa.String()),
    sa.Column("at", UtcTime(), nullable=False),
    sa.Column("active", sa.Boolean(), nullable=False),
    sa.Column("body", sa.Text(), nullable=False),
    sa.Index(None, "active", "kind"),
)

mapping = sa.Table(
    "mapping",
    metadata,
    sa.Column("provider", sa.String(), primary_key=True),
    sa.Column("table_name", sa.String(), primary_key=True),
    sa.Column("field", sa.String(), primary_key=True),
    sa.Column("external_value", sa.String(), primary_key=True),
    sa.Column("internal", sa.String(), nullable=False),
    sqlite_with_rowid=False,
)
