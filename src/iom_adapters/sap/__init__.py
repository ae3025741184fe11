"""SAP S/4HANA as a ledger: what was shipped becomes a sales order and an invoice there, over OData V2 and V4."""

from __future__ import annotations

from collections.abc import Mapping

from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client
from iom_adapters.sap.adapter import Sap
from iom_adapters.sap.config import SapConfig

__all__ = ["Sap", "SapConfig", "connect"]


def connect(settings: Mapping[str, object], *, client: Client | None = None, clock: Clock = utc_now) -> Sap:
    """Connect to SAP by plain settings (see `SapConfig`; the entry point ``sap``); raises `Misconfigured`.

    *client* must not be shared with another connection to the same host: its cookies are the session's.
    """
    return Sap(SapConfig.of(settings), client, clock)
