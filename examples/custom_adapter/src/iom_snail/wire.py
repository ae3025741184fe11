"""Snail's rows and our values, both ways. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from iom_core.messages import LineQuantity, Message, Rejected, Shipped
from iom_core.ports import FulfillmentRequest
from iom_core.values import MessageId, System

SNAIL: Final = System("snail")


def order_body(request: FulfillmentRequest) -> dict[str, str]:
    """Return what Snail is to ship: quantity per line, under our line ids."""
    found = request.order.fulfillment_order(request.fulfillment_order)
    if found is None:
        raise LookupError(f"order {request.order.id} has no fulfillment order {request.fulfillment_order}")
    return {each.line: str(each.quantity - each.canceled) for each in found.lines}


def parcel(row: Mapping[str, Any], now: datetime) -> Message | Rejected:
    """Return what a parcel's row says. Its id is Snail's, so that it is the same every time it is read."""
    message_id = MessageId(f"snail/parcel/{row.get('id')}")
    try:
        lines = tuple(LineQuantity(line, Decimal(quantity)) for line, quantity in row["lines"].items())
        body = Shipped(row["id"], lines, datetime.fromisoformat(row["left_at"]), row.get("tracking", ""), "Snail")
        return Message(message_id, SNAIL, body, now, external_id=row["order"])
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation) as broken:
        return Rejected(message_id, SNAIL, f"a parcel can't be read: {broken!r}", "$", payload=str(row)[:500])
