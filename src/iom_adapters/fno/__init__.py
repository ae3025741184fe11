"""Dynamics 365 Finance + Operations: orders go in, what happened to them comes out, all over OData."""

from __future__ import annotations

from collections.abc import Mapping

from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client
from iom_adapters.fno.adapter import Fno, FnoConfig

__all__ = ["Fno", "FnoConfig", "connect"]


def connect(settings: Mapping[str, object], *, client: Client | None = None, clock: Clock = utc_now) -> Fno:
    """Connect to F&O by plain settings (see `FnoConfig`; the entry point ``fno``); raises `Misconfigured`."""
    return Fno(FnoConfig.of(settings), client, clock)
