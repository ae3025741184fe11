"""What the outside tells us: one envelope, and the facts it can carry, already in our words.

Adapters translate wire payloads into these; nothing else moves an order. A message is at-least-once and
unordered: ``Message.id`` is the same on every redelivery, and facts are absolute (a shipment by its id, an
invoice by its number, picked quantities as totals so far), so that applying one twice changes nothing.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import attrs

from iom_core.values import Address, CompanyId, MessageId, Money, OrderId, ProductId, Quantity, SourceId, System


@attrs.frozen
class LineQuantity:
    """How much of one order line. *line* is the line's id as the sending system knows it (or our own)."""

    line: str
    quantity: Decimal


@attrs.frozen
class OrderLineDraft:
    """One line of an order that arrives.

    *total* is what the customer pays for the line: tax included, after every discount that belongs to it, before
    shipping. *unit_price* is the list price of one unit (information). *digital* lines are never shipped.
    *external_address* names which of the draft's addresses the line ships to.
    """

    external_id: str
    product: ProductId
    quantity: Quantity
    total: Money
    name: str = ""
    unit_price: Money | None = None
    tax: Money | None = None
    digital: bool = False
    ship_to: Address | None = None
    external_address: str = ""
    requested_product: ProductId | None = None


@attrs.frozen
class OrderDraft:
    """An order as its channel or ERP states it. *total* is the grand total the customer pays, tax included.

    The parts must add up: Σ line totals + *shipping* + *handling* − *discount* = *total*, to the cent, where
    *discount* is what applies to the whole order and is in no line. *numbers* are further ids of the same order
    in the sending system (for example F&O's company).
    """

    external_id: str
    currency: str
    total: Money
    lines: tuple[OrderLineDraft, ...]
    placed_at: datetime
    shipping: Money
    handling: Money
    discount: Money
    ship_to: Address
    bill_to: Address
    customer: str = ""
    """The customer's account as the sending system names it; ``""`` is a guest."""
    customer_group: str = ""
    channel: str = ""
    payment: str = ""
    reference: str = ""
    """The customer's own reference, for example a purchase order number."""
    requested_ship_date: date | None = None
    note: str = ""
    company: CompanyId | None = None
    site: str | None = None
    warehouse: str | None = None
    ready_to_sync: bool = False
    """True for orders that came over dual-write: the ERP has them already."""


@attrs.frozen
class NewOrder:
    """An order is ready to be orchestrated (paid, confirmed: the adapter knows which status means that)."""

    draft: OrderDraft


@attrs.frozen
class Picked:
    """Totals picked so far, per line."""

    lines: tuple[LineQuantity, ...]


@attrs.frozen
class Packed:
    """Totals packed so far, per line."""

    lines: tuple[LineQuantity, ...]


@attrs.frozen
class Shipped:
    """One shipment left. *shipment* identifies it in the sending system; the same id again is the same shipment."""

    shipment: str
    lines: tuple[LineQuantity, ...]
    shipped_at: datetime
    tracking_number: str = ""
    carrier: str = ""
    service: str = ""
    tracking_url: str = ""
    warehouse: str = ""
    cost: Money | None = None


@attrs.frozen
class Invoiced:
    """One posted invoice. *number* identifies it in the sending system. *total* includes tax and charges."""

    number: str
    lines: tuple[LineQuantity, ...]
    total: Money
    invoiced_at: datetime


@attrs.frozen
class Canceled:
    """The sending system canceled the order (no *lines*) or some lines of it."""

    lines: tuple[str, ...] = ()
    why: str = ""


@attrs.frozen
class Raised:
    """A business event and nothing more, for example one of a user's own, on the order or a record of it."""

    event: str
    entity: str = "order"
    record: str = ""
    """The record's id; ``""`` is the order itself."""


@attrs.frozen
class ActionDone:
    """A provider action succeeded. *order_number* and *line_numbers* are the ids the provider gave."""

    key: str
    details: str = ""
    order_number: str = ""
    line_numbers: tuple[tuple[str, str], ...] = ()
    """Pairs of our line id and the provider's."""
    line_errors: tuple[tuple[str, str], ...] = ()
    """Pairs of our line id and why the provider did not take it (Sync Error)."""
    sourced: tuple[Sourced, ...] = ()
    """For source determination: what was sourced where. Lines absent from it were not."""


@attrs.frozen
class Sourced:
    """*quantity* of one of our lines will ship from *source*."""

    line: str
    source: SourceId
    quantity: Decimal
    site: str = ""
    warehouse: str = ""


@attrs.frozen
class ActionFailed:
    """A provider action ended without success: a business no, or a fault after all attempts.

    *kind* is ``"refused"``, ``"unavailable"``, ``"misunderstood"``, ``"misconfigured"``, or ``"bug"`` for an exception
    that no adapter may raise.
    """

    key: str
    kind: str
    what: str
    where: str = "$"
    line_errors: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class CancelRequested:
    """A person or a system asks to cancel the order (no *lines*) or some lines (our ids)."""

    lines: tuple[str, ...] = ()
    why: str = ""


@attrs.frozen
class HoldRequested:
    """A person asks to hold the order (for example *credit hold*)."""

    hold: str
    why: str = ""


@attrs.frozen
class HoldReleased:
    """A hold ends."""

    hold: str


@attrs.frozen
class Reprocess:
    """A person asks to run a failed step again; ``""`` is the step that failed last."""

    step: str = ""


@attrs.frozen
class JobDue:
    """A periodic job reached this order, for example ``"backorder"``; *event* starts the flow's steps again."""

    job: str
    event: str


Body = (
    NewOrder
    | Picked
    | Packed
    | Shipped
    | Invoiced
    | Canceled
    | Raised
    | ActionDone
    | ActionFailed
    | CancelRequested
    | HoldRequested
    | HoldReleased
    | Reprocess
    | JobDue
)
"""Everything a message can say."""


@attrs.frozen
class Message:
    """One thing a *system* told us about one order, at least once.

    The order is named by *order_id* (ours) or by *external_id* (the sender's); one of them is set.
    """

    id: MessageId
    system: System
    body: Body
    at: datetime
    external_id: str = ""
    order_id: OrderId | None = None


@attrs.frozen
class Rejected:
    """Something arrived that can't be understood: kept in the inbound error list, never stops other orders.

    *where* is a path into the payload (``"$.products[0].quantity"``). *payload* is what arrived, shortened and
    without secrets.
    """

    id: MessageId
    system: System
    what: str
    where: str
    external_id: str = ""
    payload: str = ""
