"""How the tables came to be, version by version; `upgrade` brings a database to the newest."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import sqlalchemy as sa

HEAD: Final = "0001"
"""The newest version. A database that says so needs no migration, and opening it doesn't import Alembic."""

_LOCK: Final = 0x696F6D
"""The number that PostgreSQL's advisory lock for migrations goes by."""

_one_at_a_time = threading.Lock()
"""Alembic keeps what it is doing in a global of the process."""


def version(connection: sa.Connection) -> str | None:
    """Return the version the database says it has; ``None`` for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def upgrade(connection: sa.Connection) -> None:
    """Bring the database to `HEAD` inside the transaction of *connection*; does nothing when it is there.

    Whoever comes while another one migrates waits, and finds it done: SQLite's write lock sees to that, and on
    PostgreSQL a lock of our own.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    if version(connection) == HEAD:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")


def unknown_version() -> type[Exception]:
    """Return what `upgrade` raises for a database whose version it has never heard of."""
    from alembic.util import CommandError

    return CommandError
