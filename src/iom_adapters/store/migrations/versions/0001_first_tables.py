"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_time = sa.DateTime(timezone=True)
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "sales_order",
        sa.Column("order_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("placed_at", _time, nullable=False),
        sa.Column("updated_at", _time, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name="pk_sales_order"),
    )
    op.create_index("ix_sales_order_state", "sales_order", ["state"])
    op.create_table(
        "external",
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("external_id", sa.String(), nullable=False),
        sa.Column("order_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("system", "external_id", name="pk_external"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event",
        sa.Column("order_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "version", "seq", name="pk_event"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "inbox",
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_inbox"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outbox",
        sa.Column("seq", _sequence, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("order_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("due_at", _time, nullable=False),
        sa.Column("first_at", _time),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_until", _time),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_outbox"),
        sa.UniqueConstraint("key", name="uq_outbox_key"),
    )
    op.create_index("ix_outbox_order_id", "outbox", ["order_id"])
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"])
    op.create_table(
        "waiting",
        sa.Column("seq", _sequence, autoincrement=True, nullable=False),
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("external_id", sa.String(), nullable=False),
        sa.Column("since", _time, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_waiting"),
        sa.UniqueConstraint("message_id", name="uq_waiting_message_id"),
    )
    op.create_index("ix_waiting_system_external_id", "waiting", ["system", "external_id"])
    op.create_table(
        "checkpoint",
        sa.Column("puller", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("puller", name="pk_checkpoint"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "error",
        sa.Column("seq", _sequence, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("order_id", sa.String()),
        sa.Column("at", _time, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_error"),
        sa.UniqueConstraint("id", name="uq_error_id"),
    )
    op.create_index("ix_error_active_kind", "error", ["active", "kind"])
    op.create_table(
        "mapping",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("table_name", sa.String(), nullable=False),
        sa.Column("field", sa.String(), nullable=False),
        sa.Column("external_value", sa.String(), nullable=False),
        sa.Column("internal", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "table_name", "field", "external_value", name="pk_mapping"),
        sqlite_with_rowid=False,
    )
