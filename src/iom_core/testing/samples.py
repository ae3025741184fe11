"""Orders to test with: complete, legal in every state table, and the same each time.

They are made by the core's own changes, so an adapter's test meets an order as the orchestrator would hand it over.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from returns.result import Result

from iom_core import events as ev
from iom_core.messages import LineQuantity, OrderDraft, OrderLineDraft
from iom_core.order import Change, SalesOrder, receive
from iom_core.outcome import Refused, failed
from iom_core.values import Address, CompanyId, Money, OrderId, ProductId, Quantity, System

SAMPLE_AT: Final = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
"""When the sample orders were placed."""

SAMPLE_PRODUCTS: Final = (ProductId("CHAIR"), ProductId("LAMP"), ProductId("EBOOK"))
"""What the three lines of a sample order are about; nobody ships the third."""


def sample_draft(
    external_id: str = "1001", *, channel: str = "bigcommerce", currency: str = "USD", units: int | None = None
) -> OrderDraft:
    """Return what a channel states of the sample order; with *units*, an order of so many of one product."""
    chair, lamp, ebook = SAMPLE_PRODUCTS

    def money(amount: int | str) -> Money:
        return Money.rounded(amount, currency)

    lines = (
        (
            OrderLineDraft(f"{external_id}-1", chair, Quantity.of(2), money(50), "Chair", money(25)),
            OrderLineDraft(f"{external_id}-2", lamp, Quantity.of(1), money("15.5"), "Lamp", money("15.5")),
            OrderLineDraft(f"{external_id}-3", ebook, Quantity.of(1), money(5), "Ebook", money(5), digital=True),
        )
        if units is None
        else (OrderLineDraft(f"{external_id}-1", chair, Quantity.of(units), money(25 * units), "Chair", money(25)),)
    )
    freight, none = money(5), Money.zero(currency)
    home = Address(
        "Jane Roe", "", "1 Main St", "", "Redmond", "WA", "98052", "US", "+1 425 555 0100", "jane@example.com"
    )
    return OrderDraft(
        external_id,
        currency,
        sum((line.total for line in lines), freight),
        lines,
        SAMPLE_AT,
        freight,
        none,
        none,
        home,
        home,
        customer="C-7",
        channel=channel,
        reference=f"PO-{external_id}",
        company=CompanyId("usmf"),
        site="1",
        warehouse="11",
        ready_to_sync=True,
    )


def sample_order(
    number: str = "BC-1001",
    *,
    channel: str = "bigcommerce",
    external_id: str = "1001",
    provider: str = "flexe",
    currency: str = "USD",
    ready_to_sync: bool = True,
    ships_digital: bool = False,
) -> SalesOrder:
    """Return an order that is about to be sent: validated, assigned, with one fulfillment order for *provider*.

    It has two physical lines (2 chairs, 1 lamp) and a digital one, company, site and warehouse, the customer who is
    invoiced, and the *channel*'s numbers of the order and its lines. The digital line is in the fulfillment order
    only with *ships_digital*, as it is where an ERP delivers everything.
    """
    draft = sample_draft(external_id, channel=channel, currency=currency)
    order = _after(receive(OrderId(number), System(channel), draft, SAMPLE_AT))
    order = _after(order.assign({"invoice_customer": "US-001", "ready_to_sync": ready_to_sync}))
    order = _after(order.raise_event(ev.HEADER_VALID, SAMPLE_AT))
    for event in (ev.LINES_VALID, ev.DATA_ASSIGNED):
        order = _after(order.raise_on_lines(event, SAMPLE_AT))
    order = _after(order.create_fulfillment_orders(System(provider), SAMPLE_AT, digital=ships_digital))
    return order.with_(version=1)


def sample_shipped_order(order: SalesOrder | None = None, *, partly: bool = False) -> SalesOrder:
    """Return *order* (by default a sample order) after its provider has sent it and shipped it in two parcels.

    *partly*: only the first parcel has left, with one unit of the first line.
    """
    order = sample_order() if order is None else order
    (source,) = order.fulfillment_orders
    order = _after(order.sent(ev.SENT, SAMPLE_AT, provider=source.provider))
    first, *others = source.lines
    rest = (LineQuantity(first.line, first.quantity - 1), *(LineQuantity(each.line, each.quantity) for each in others))
    parcels = ((LineQuantity(first.line, Decimal(1)),), tuple(each for each in rest if each.quantity > 0))
    for number, lines in enumerate(parcels[:1] if partly else parcels, 1):
        parcel = f"{order.id}-P{number}"
        order = _after(
            order.ship(
                source.provider,
                parcel,
                lines,
                SAMPLE_AT,
                tracking_number=f"1Z{parcel}",
                carrier="UPS",
                service="Ground",
            )
        )
    return order.with_(version=order.version + 1)


def _after(changed: Result[Change, Refused]) -> SalesOrder:
    if failed(changed):
        raise ValueError(f"the sample order can't be made: {changed.failure()}")
    return changed.unwrap().order
