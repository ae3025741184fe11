"""The wall clock: the only place where the library reads the time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one sanctioned reading of the wall clock
