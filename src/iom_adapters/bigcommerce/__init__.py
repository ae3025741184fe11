"""BigCommerce as a channel: orders come in by polling and webhooks, shipments and statuses go back."""

from __future__ import annotations

from iom_adapters.bigcommerce.adapter import BigCommerce as BigCommerce
from iom_adapters.bigcommerce.adapter import BigCommerceConfig as BigCommerceConfig
from iom_adapters.bigcommerce.adapter import connect as connect

__all__ = ["BigCommerce", "BigCommerceConfig", "connect"]
