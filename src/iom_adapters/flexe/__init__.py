"""Flexe, which ships fulfillment orders: spoken to under names that are data, because its protocol is not public."""

from __future__ import annotations

from iom_adapters.flexe.adapter import Flexe, FlexeConfig, IntentFile, Intents, connect, open_orders
from iom_adapters.flexe.protocol import FlexeProtocol

__all__ = [
    "Flexe",
    "FlexeConfig",
    "FlexeProtocol",
    "IntentFile",
    "Intents",
    "connect",
    "open_orders",
]
