"""How the tables came to be, version by version; `upgrade` brings a database to the newest."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

HEAD: Final = "0001"
"""The newest version. A database that says so needs no migration, and opening it doesn't import Alembic."""


def version(connection: sa.Connection) -> str | None:
    """Return the version the database says it has; ``None`` for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def upgrade(connection: sa.Connection) -> None:
    """Bring the database to `HEAD` inside the transaction of *connection*; does nothing when it is there."""
    if version(connection) == HEAD:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def unknown_version() -> type[Exception]:
    """Return what `upgrade` raises for a database whose version it has never heard of."""
    from alembic.util import CommandError

    return CommandError
