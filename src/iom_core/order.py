"""The sales order aggregate: everything that can change an order is a method here, and nowhere else.

Every change returns a `Change` (the new order, what happened) or a `Refused`; a refusal changes nothing. Time is an
argument. Quantities that count progress are `Decimal`s in the line's own unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import attrs

from iom_core.values import (
    Address,
    CompanyId,
    FulfillmentOrderId,
    LineId,
    MessageId,
    Money,
    OrderId,
    ProductId,
    Quantity,
    SourceId,
    System,
)


@attrs.frozen
class Status:
    """A state, which decides what is legal, and a state reason, which explains it."""

    state: str
    reason: str


@attrs.frozen
class ExternalId:
    """How an outside *system* calls one of our records. *entity* is ``"order"``, ``"order line"``,
    ``"fulfillment order"`` or ``"shipment"``; *record* is our id, *id* theirs.
    """

    system: System
    entity: str
    record: str
    id: str


@attrs.frozen
class OrderLine:
    """One line ("order product"). *total* is what the customer pays for it, tax and discounts included."""

    id: LineId
    product: ProductId
    ordered: Quantity
    total: Money
    status: Status
    name: str = ""
    unit_price: Money | None = None
    tax: Money | None = None
    digital: bool = False
    ship_to: Address | None = None
    """Where this line goes when it differs from the order's address."""
    external_address: str = ""
    """The channel's id of the address this line ships to (BigCommerce ``order_address_id``)."""
    requested_product: ProductId | None = None
    company: CompanyId | None = None
    site: str | None = None
    warehouse: str | None = None
    source: SourceId | None = None
    split_group: str | None = None
    ready_to_sync: bool = False
    sync_error: str = ""
    canceled: Decimal = Decimal(0)
    invoiced: Decimal = Decimal(0)

    @property
    def quantity(self) -> Decimal:
        """Return what is still wanted: ordered less canceled, in the line's unit."""
        return self.ordered.amount - self.canceled


@attrs.frozen
class FulfillmentLine:
    """How much of an order line one fulfillment order ships; the counters are totals so far."""

    id: str
    line: LineId
    quantity: Decimal
    status: Status
    picked: Decimal = Decimal(0)
    packed: Decimal = Decimal(0)
    shipped: Decimal = Decimal(0)
    canceled: Decimal = Decimal(0)


@attrs.frozen
class FulfillmentOrder:
    """What one source is asked to ship, by one provider."""

    id: FulfillmentOrderId
    provider: System
    status: Status
    lines: tuple[FulfillmentLine, ...]
    source: SourceId | None = None
    site: str | None = None
    warehouse: str | None = None


@attrs.frozen
class TrackingLine:
    """How much of a fulfillment line is in a shipment."""

    fulfillment_order: FulfillmentOrderId
    fulfillment_line: str
    line: LineId
    quantity: Decimal


@attrs.frozen
class Shipment:
    """A fulfillment tracking: one parcel or truck that left. *id* is the shipping system's own number."""

    id: str
    system: System
    shipped_at: datetime
    lines: tuple[TrackingLine, ...]
    tracking_number: str = ""
    carrier: str = ""
    service: str = ""
    tracking_url: str = ""
    cost: Money | None = None


@attrs.frozen
class InvoiceLine:
    """How much of an order line an invoice covers."""

    line: LineId
    quantity: Decimal


@attrs.frozen
class Invoice:
    """A posted invoice, as the accounting system numbered it."""

    number: str
    system: System
    total: Money
    invoiced_at: datetime
    lines: tuple[InvoiceLine, ...]


@attrs.frozen
class Hold:
    """Why the order must wait, and since when (for example *credit hold*)."""

    name: str
    why: str
    since: datetime


@attrs.frozen
class StepResult:
    """An *orchestration step result*: one run of one flow step."""

    at: datetime
    flow: str
    step: str
    ok: bool
    details: str
    run: str
    """The run's key: order, flow, step, occasion and attempt."""
    record: str = ""


@attrs.frozen
class ParkedMessage:
    """A message that came too early: tried again after each change, reported when it never becomes legal."""

    id: MessageId
    since: datetime
    why: str
    message: str
    """The whole message, as `iom_core.codec` writes it."""


@attrs.frozen
class Moment:
    """One entry of the order's own timeline: an event on the header and the status it led to."""

    at: datetime
    event: str
    state: str
    reason: str


@attrs.frozen
class CustomRecord:
    """A record of a user's own entity that belongs to the order and has states of its own."""

    entity: str
    id: str
    status: Status
    fields: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class StepRun:
    """Where one step stands for this order. *state* is ``"waiting"`` (a command is out), ``"done"``, ``"failed"``
    or ``"skipped"`` (its filter policy did not hold); *occasion* counts its runs, *attempt* the tries of the last one.
    """

    step: str
    state: str
    occasion: int = 1
    attempt: int = 1
    branch: str = ""
    """The path a condition chose."""


@attrs.frozen
class FlowRun:
    """The order's way through one orchestration flow; it keeps the flow version it started with."""

    flow: str
    version: int
    steps: tuple[StepRun, ...] = ()
    seen: tuple[tuple[str, int], ...] = ()
    """How often each business event was raised since the flow started."""


@attrs.frozen
class Happened:
    """A business event that was raised on a record of the order, and the status after it."""

    at: datetime
    event: str
    entity: str
    record: str
    state: str
    reason: str


@attrs.frozen
class Command:
    """A provider action to run on a record. *key* is the idempotency key: the same on every retry and reprocess."""

    key: str
    order_id: OrderId
    provider: System
    action: str
    flow: str
    step: str
    record: str = ""
    """What the action is about within the order, for example a fulfillment order's id."""
    attempt: int = 1
    event: str = ""
    """The business event that started the step."""


@attrs.frozen
class ErrorRecord:
    """An entry of one of the four error lists: ``"provider inbound"``, ``"provider action"``,
    ``"orchestration step"``, ``"policy"``.
    """

    id: str
    kind: str
    at: datetime
    system: str
    what: str
    where: str = "$"
    order_id: OrderId | None = None
    message_id: str = ""
    category: str = ""
    payload: str = ""
    active: bool = True


@attrs.frozen
class SalesOrder:
    """A customer's order and all that belongs to it."""

    id: OrderId
    channel: System
    """The system it came from."""
    status: Status
    currency: str
    total: Money
    shipping: Money
    handling: Money
    discount: Money
    lines: tuple[OrderLine, ...]
    ship_to: Address
    bill_to: Address
    placed_at: datetime
    version: int = 0
    customer: str = ""
    customer_group: str = ""
    invoice_customer: str | None = None
    payment: str = ""
    reference: str = ""
    note: str = ""
    order_type: str = "sales order"
    company: CompanyId | None = None
    site: str | None = None
    warehouse: str | None = None
    strategy: str | None = None
    requested_ship_date: date | None = None
    ready_to_sync: bool = False
    manual: bool = False
    externals: tuple[ExternalId, ...] = ()
    fulfillment_orders: tuple[FulfillmentOrder, ...] = ()
    shipments: tuple[Shipment, ...] = ()
    invoices: tuple[Invoice, ...] = ()
    holds: tuple[Hold, ...] = ()
    steps: tuple[StepResult, ...] = ()
    flows: tuple[FlowRun, ...] = ()
    parked: tuple[ParkedMessage, ...] = ()
    records: tuple[CustomRecord, ...] = ()
    timeline: tuple[Moment, ...] = ()

    def line(self, line_id: str) -> OrderLine | None:
        """Return the line of that id."""
        return next((line for line in self.lines if line.id == line_id), None)

    def external(self, system: str, entity: str = "order", record: str = "") -> str | None:
        """Return what *system* calls the order (or one of its records), when it knows it."""
        wanted = record or (self.id if entity == "order" else "")
        return next(
            (each.id for each in self.externals if each.system == system and each.entity == entity and each.record == wanted),
            None,
        )
