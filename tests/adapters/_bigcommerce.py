"""A shop with a clock, its adapters, and orders as the core would hold them: what the BigCommerce tests share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import httpx
from returns.result import Result

from iom_adapters._twin import TwinRequest, transport
from iom_adapters.bigcommerce import BigCommerce, connect
from iom_adapters.bigcommerce.samples import Line, generate_order, order_of
from iom_adapters.bigcommerce.twin import BigCommerceTwin
from iom_core.errors import Unavailable
from iom_core.lifecycle import Status
from iom_core.messages import Message, NewOrder, OrderDraft, Rejected
from iom_core.order import ExternalId, OrderLine, SalesOrder, Shipment, TrackingLine
from iom_core.outcome import Refused, failed
from iom_core.ports import Receipt, StatusUpdate
from iom_core.values import FulfillmentOrderId, LineId, OrderId, System

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TOKEN = "bc-t0k3n-s3cr3t"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Shop:
    """A twin with a clock, and adapters that talk to it."""

    def __init__(self, **twin: Any) -> None:
        self.clock = Clock()
        self.twin = BigCommerceTwin(access_token=TOKEN, now=self.clock, **twin)

    def adapter(self, twin: Any = None, **settings: Any) -> BigCommerce:
        http = httpx.Client(transport=transport(("api.bigcommerce.test", twin or self.twin)))
        plain = {"store_hash": "teststore", "access_token": TOKEN, "base_url": "https://api.bigcommerce.test"}
        return connect({**plain, **settings}, http=http, clock=self.clock)

    def place(self, count: int = 1, **fields: Any) -> list[int]:
        rng = random.Random(count)
        numbers = []
        for n in range(count):
            order = {**generate_order(rng, n), **fields}
            del order["date_modified"]
            numbers.append(self.twin.place(order))
        return numbers

    def drain(self, adapter: BigCommerce, checkpoint: str = "") -> tuple[list[Message | Rejected], str]:
        """Pull until there is no more, waiting as long as the shop asks."""
        found: list[Message | Rejected] = []
        for _ in range(1_000):
            try:
                pulled = adapter.pull(checkpoint, self.clock())
            except Unavailable as wait:
                self.clock.go(wait.retry_after or 1)
                continue
            found += pulled.messages
            checkpoint = pulled.checkpoint
            if not pulled.more:
                return found, checkpoint
        raise AssertionError("this pull never ends")


def numbers(messages: Iterable[Message | Rejected]) -> list[int]:
    return [int(each.external_id) for each in messages]


def draft_in(message: Message | Rejected) -> OrderDraft:
    assert isinstance(message, Message)
    assert isinstance(message.body, NewOrder)
    return message.body.draft


def import_order(shop: Shop, adapter: BigCommerce, payload: dict[str, Any]) -> SalesOrder:
    """Place an order and take it in, roughly as the core would."""
    number = shop.twin.place(payload)
    draft = draft_in(adapter.read(str(number), shop.clock())[0])
    fresh = Status("new", "new")
    lines = tuple(
        OrderLine(
            id=LineId(str(index)), product=line.product, ordered=line.quantity, total=line.total, status=fresh,
            digital=line.digital, external_address=line.external_address,
        )
        for index, line in enumerate(draft.lines, 1)
    )  # fmt: skip
    order_id = OrderId(f"BC-{number}")
    externals = [ExternalId(adapter.system, "order", order_id, str(number))]
    externals += [
        ExternalId(adapter.system, "order line", line.id, source.external_id)
        for line, source in zip(lines, draft.lines)
    ]
    return SalesOrder(
        id=order_id, channel=adapter.system, status=fresh, currency=draft.currency, total=draft.total,
        shipping=draft.shipping, handling=draft.handling, discount=draft.discount, lines=lines, ship_to=draft.ship_to,
        bill_to=draft.bill_to, placed_at=draft.placed_at, externals=tuple(externals),
    )  # fmt: skip


def shipped(order: SalesOrder, *parcels: dict[str, int], tracking: Sequence[str] = (), **fields: Any) -> SalesOrder:
    """Add one shipment for each of *parcels* (line to quantity)."""
    have = len(order.shipments)
    added = tuple(
        Shipment(
            id=f"S{have + index}", system=System("flexe"), shipped_at=START,
            lines=tuple(
                TrackingLine(FulfillmentOrderId("F"), line, LineId(line), Decimal(n)) for line, n in each.items()
            ),
            tracking_number=tracking[index] if index < len(tracking) else f"TRACK{have + index}", **fields,
        )
        for index, each in enumerate(parcels)
    )  # fmt: skip
    return attrs.evolve(order, shipments=order.shipments + added)


def told(adapter: BigCommerce, order: SalesOrder, stage: str) -> Receipt:
    result = adapter.update(order, StatusUpdate("key", stage))
    assert not failed(result), result
    return result.unwrap()


def refused(result: Result[Any, Refused]) -> Refused:
    assert failed(result), result
    return result.failure()


def by_hand(shop: Shop, number: int, order: SalesOrder, quantity: int, tracking: str) -> None:
    """Post a shipment as the shop's own staff would."""
    line = shop.twin.products(number)[0]
    body = {
        "order_address_id": line["order_address_id"],
        "tracking_number": tracking,
        "items": [{"order_product_id": line["id"], "quantity": quantity}],
    }
    headers = {"x-auth-token": TOKEN, "accept": "application/json", "content-type": "application/json"}
    path = f"/stores/teststore/v2/orders/{number}/shipments"
    reply = shop.twin.handle(TwinRequest("POST", path, (), headers, json.dumps(body).encode()))
    assert reply.status == 201, reply.body


TWO_ADDRESSES = order_of(
    [
        Line("a", 100, 3, sku="A", address=1),
        Line("b", 200, 2, sku="B", address=2),
        Line("c", 300, 1, sku="C", address=1),
        Line("e-book", 50, 1, sku="E", kind="digital"),
    ],
    recipients=(0, 1),
    shipping=(0, 0),
)


def items(shipment: dict[str, Any]) -> dict[int, int]:
    return {item["order_product_id"]: item["quantity"] for item in shipment["items"]}
