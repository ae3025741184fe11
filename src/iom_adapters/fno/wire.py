"""F&O's words on one side, ours on the other: what may be sent, how money is written, and how rows are read. No I/O.

Sources: fno.md sections 4, 6, 8 and 9; iom.md section 6 for the sync filters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_adapters._odata import literal, moment
from iom_core.messages import Canceled, Invoiced, LineQuantity, Message, Picked, Rejected, Shipped
from iom_core.order import OrderLine, SalesOrder
from iom_core.outcome import Refused
from iom_core.values import Address, MessageId, Money, System, minor_units

Json = Any
"""A decoded JSON value; numbers with a fraction are `Decimal`."""
Row = Mapping[str, Json]

# --- what may be sent --------------------------------------------------------------------------------------


@attrs.frozen
class Passing:
    """The lines that pass the sync filters, and those held back, with why (pairs of our line id and a sentence)."""

    lines: tuple[OrderLine, ...]
    held: tuple[tuple[str, str], ...]


def passing(
    order: SalesOrder, only: Sequence[str] = (), excluded_reasons: Iterable[str] = ()
) -> Result[Passing, Refused]:
    """Apply the sync filters to *order*, or to those of its lines named in *only*.

    Header: a sales order, with a company, ready to sync, and its state reason not an excluded one. Line: the order's
    company, a site, a warehouse, ready to sync. Lines canceled as a whole are left out silently. Refused: a header
    that does not pass, a line that does not exist, and an order none of whose lines passes (iom.md section 6).
    """
    for holds, code, what, where in (
        (order.order_type == "sales order", "not-a-sales-order", "only sales orders are sent", "$.order_type"),
        (bool(order.company), "no-company", "the order has no company", "$.company"),
        (order.ready_to_sync, "not-ready", "the order is not ready to sync", "$.ready_to_sync"),
        (
            order.status.reason not in tuple(excluded_reasons),
            "excluded-status",
            f"orders that are {order.status.reason!r} are not sent",
            "$.status.reason",
        ),
    ):
        if not holds:
            return Failure(Refused(code, what, where, who="fno"))
    known = {line.id for line in order.lines}
    unknown = [name for name in only if name not in known]
    if unknown:
        return Failure(Refused("unknown-line", f"the order has no line {unknown[0]!r}", "$.lines", who="fno"))
    chosen = [(at, line) for at, line in enumerate(order.lines) if (not only or line.id in only) and line.quantity > 0]
    missing = [(line, at, _missing(order, line)) for at, line in chosen]
    held = tuple((str(line.id), what) for line, _, (_, what) in missing if what)
    passed = tuple(line for line, _, (_, what) in missing if not what)
    if not passed:
        where = f"$.lines[{missing[0][1]}].{missing[0][2][0]}" if missing else "$.lines"
        what = f"no line passes the sync filter: {held[0][1]}" if held else "no line has anything to send"
        return Failure(Refused("no-line", what, where, who="fno"))
    return Success(Passing(passed, held))


def _missing(order: SalesOrder, line: OrderLine) -> tuple[str, str]:
    """Return which field keeps a line back, and why; two empty strings when nothing does."""
    if not line.company:
        return "company", "the line has no company"
    if line.company.lower() != str(order.company).lower():
        return "company", f"the line's company {line.company} is not the order's, {order.company}"
    if not line.site:
        return "site", "the line has no shipping site"
    if not line.warehouse:
        return "warehouse", "the line has no shipping warehouse"
    if not line.ready_to_sync:
        return "ready_to_sync", "the line is not ready to sync"
    return "", ""


# --- money -------------------------------------------------------------------------------------------------


@attrs.frozen
class Price:
    """What to write on a line: F&O computes quantity × *each* + *charges*, which is *amount* to the cent."""

    each: Decimal
    charges: Decimal
    amount: Money


def amounts(order: SalesOrder) -> dict[str, Money]:
    """Return what each line costs in F&O, by our line id: its total and its share of what belongs to the whole order.

    Shipping + handling − discount is split over the line totals by largest remainder, over all lines whether they are
    sent now or later, so that a line costs the same in whatever order lines are sent and Σ amounts = the order's
    total (Σ line totals + shipping + handling − discount).
    """
    extra = order.shipping + order.handling - order.discount
    weights = [max(line.total.amount, Decimal(0)) for line in order.lines]
    shares = extra.split(weights) if weights else ()
    return {str(line.id): line.total + share for line, share in zip(order.lines, shares)}


def price(amount: Money, ordered: Decimal, quantity: Decimal, total: Money) -> Price:
    """Write *amount* (for all that was *ordered*) as a price and charges for *quantity* of it.

    The price is the line's own *total* per unit, rounded to minor units; the charges are exactly what is left: rounding
    and the line's share of shipping, handling and order discount (they may be negative). Quantity × price is rounded to
    minor units before the charges are taken from it: F&O gets *amount* whether it rounds before or after adding.
    """
    unit = Decimal(1).scaleb(-minor_units(amount.currency))
    part = amount if quantity == ordered else Money.rounded(amount.amount * quantity / ordered, amount.currency)
    each = (total.amount / ordered).quantize(unit, ROUND_HALF_UP)
    return Price(each, part.amount - (each * quantity).quantize(unit, ROUND_HALF_UP), part)


# --- bodies ------------------------------------------------------------------------------------------------


@attrs.frozen
class Accounts:
    """Who orders and who pays, as F&O's customer accounts."""

    ordering: str
    invoice: str


def header_body(
    order: SalesOrder, accounts: Accounts, *, delivery_mode: str, origin: str, states: Mapping[str, str]
) -> dict[str, Json]:
    """Write an order header for ``POST SalesOrderHeadersV2``; empty fields are left out, so that F&O fills them."""
    buyer = order.bill_to if order.bill_to.email or order.bill_to.name else order.ship_to
    when = order.requested_ship_date
    fields: dict[str, Json] = {
        "dataAreaId": str(order.company).lower(),
        "OrderingCustomerAccountNumber": accounts.ordering,
        "InvoiceCustomerAccountNumber": accounts.invoice,
        "CurrencyCode": order.currency,
        "CustomersOrderReference": str(order.id),
        "CustomerRequisitionNumber": order.reference,
        "SalesOrderName": order.ship_to.name or order.ship_to.company or buyer.name,
        "Email": buyer.email or order.ship_to.email,
        "RequestedShippingDate": literal(when) if when is not None else "",
        "DefaultShippingSiteId": order.site or "",
        "DefaultShippingWarehouseId": order.warehouse or "",
        "DeliveryModeCode": delivery_mode,
        "SalesOrderOriginCode": origin,
        "ArePricesIncludingSalesTax": "Yes",
        **address_fields(order.ship_to, states),
    }
    return {name: value for name, value in fields.items() if value != ""}


def line_body(
    order: SalesOrder, line: OrderLine, number: str, cost: Price, marker: str, mark: Json, states: Mapping[str, str]
) -> dict[str, Json]:
    """Write an order line for ``POST SalesOrderLines``; *mark* in the field *marker* is how it is found again."""
    fields: dict[str, Json] = {
        "dataAreaId": str(order.company).lower(),
        "SalesOrderNumber": number,
        "ItemNumber": str(line.product),
        "OrderedSalesQuantity": line.quantity,
        "SalesUnitSymbol": line.ordered.unit,
        "SalesPrice": cost.each,
        "FixedPriceCharges": cost.charges,
        "ShippingSiteId": line.site or "",
        "ShippingWarehouseId": line.warehouse or "",
        "LineDescription": line.name,
        marker: mark,
        **(address_fields(line.ship_to, states) if line.ship_to is not None else {}),
    }
    return {name: value for name, value in fields.items() if value != ""}


def address_fields(address: Address, states: Mapping[str, str]) -> dict[str, Json]:
    """Write a one-off delivery address. *states* maps ``"US/Washington"`` to F&O's own state ids."""
    fields = {
        "DeliveryAddressName": address.name or address.company,
        "DeliveryAddressDescription": address.company or address.name,
        "DeliveryAddressStreet": "\n".join(filter(None, (address.street, address.street2))),
        "DeliveryAddressCity": address.city,
        "DeliveryAddressStateId": states.get(f"{address.country}/{address.state}", address.state),
        "DeliveryAddressZipCode": address.postal_code,
        "DeliveryAddressCountryRegionISOCode": address.country,
    }
    kept = {name: value for name, value in fields.items() if value}
    return {"IsDeliveryAddressOrderSpecific": "Yes", **kept} if kept else {}


# --- refusals ----------------------------------------------------------------------------------------------

_ITEM: Final = re.compile(r"\s*;\s*(?=(?:Info|Warning|Error)\s*:)")
_NOISE: Final = "update has been canceled"


def infolog(text: str) -> tuple[str, ...]:
    """Read the infolog in an inner error's message: its items without their severity, the empty last word dropped.

    The cause is often only a warning, and the one error says no more than "Update has been canceled.", so warnings
    stay and that goes (unless it is all there is). A text without an infolog is returned whole.
    """
    _, found, rest = text.partition("Infolog:")
    if not found:
        return (text.strip(),) if text.strip() else ()
    items = [
        re.sub(r"^(?:Info|Warning|Error)\s*:\s*", "", item.strip()).strip(" ;") for item in _ITEM.split(rest.strip())
    ]
    kept = tuple(item for item in items if item and not item.lower().startswith(_NOISE))
    return kept or tuple(item for item in items if item)


def reason(body: Json) -> str:
    """Return the sentence an F&O error answer holds for people; ``""`` when it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return ""
    inner = error.get("innererror")
    deep = inner.get("message") if isinstance(inner, dict) else None
    text = deep if isinstance(deep, str) and deep else error.get("message")
    return "; ".join(infolog(text))[:2000] if isinstance(text, str) else ""


# --- reading rows ------------------------------------------------------------------------------------------


class BadRow(ValueError):
    """A row can't be read; *where* is the path within it."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


def text_of(row: Row, name: str, *, needed: bool = True) -> str:
    """Read a string; raises `BadRow` for anything else, and for an empty one when it is *needed*."""
    value = row.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value):
        raise BadRow(f"$.{name}", f"text is needed, not {value!r}"[:200])
    return value


def number_of(row: Row, name: str) -> Decimal:
    """Read an exact number; raises `BadRow`."""
    value = row.get(name)
    number = Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else Decimal("NaN")
    if not number.is_finite() or abs(number) >= 10**15:
        raise BadRow(f"$.{name}", f"a number is needed, not {value!r}"[:200])
    return number


def when_of(row: Row, name: str) -> datetime | None:
    """Read a date-time; the whole day 1900-01-01 (and before) is F&O's empty date: ``None``. Raises `BadRow`."""
    value = row.get(name)
    if value is None:
        return None
    try:
        read = moment(value) if isinstance(value, str) else None
    except ValueError:
        read = None
    if read is None:
        raise BadRow(f"$.{name}", f"a date-time is needed, not {value!r}"[:200])
    return None if read < datetime(1900, 1, 2, tzinfo=UTC) else read


OrderKey = tuple[str, str]
"""A company, in lower case, and the number of an order (or slip, or invoice) in it."""


def key_of(row: Row, name: str) -> OrderKey:
    """Read a company and the number in *name*: numbers are only unique per company."""
    return text_of(row, "dataAreaId").lower(), text_of(row, name)


@attrs.frozen
class SalesLine:
    """One line of an order as F&O has it. *picked* is known from the dual-write entity only."""

    lot: str
    sequence: int
    item: str
    ordered: Decimal
    status: str
    picked: Decimal = Decimal(0)


LINE_FIELDS: Final = (
    "dataAreaId",
    "SalesOrderNumber",
    "InventoryLotId",
    "LineCreationSequenceNumber",
    "ItemNumber",
    "OrderedSalesQuantity",
    "SalesOrderLineStatus",
)
CDS_LINE_FIELDS: Final = (
    *("ProductNumber" if name == "ItemNumber" else name for name in LINE_FIELDS),
    "PickedQuantity",
)


def sales_line(row: Row) -> SalesLine:
    """Read a row of ``SalesOrderLines`` or ``CDSSalesOrderLinesV2``; raises `BadRow`."""
    return SalesLine(
        text_of(row, "InventoryLotId"),
        int(number_of(row, "LineCreationSequenceNumber")),
        text_of(row, "ProductNumber" if "ProductNumber" in row else "ItemNumber", needed=False),
        number_of(row, "OrderedSalesQuantity"),
        text_of(row, "SalesOrderLineStatus", needed=False),
        number_of(row, "PickedQuantity") if "PickedQuantity" in row else Decimal(0),
    )


def digest(*parts: object) -> str:
    """Return a short, stable digest of what a message says, to make its id."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


@attrs.frozen
class Teller:
    """Writes messages about one system's orders; ids depend on content only, so that a repeat has the same one."""

    system: System

    def _message(self, key: OrderKey, tail: str, body: Any, at: datetime) -> Message:
        area, number = key
        return Message(MessageId(f"{self.system}/{area}/{number}/{tail}"), self.system, body, at, external_id=number)

    def rejected(self, entity_set: str, row: Json, broken: BadRow, number: str = "") -> Rejected:
        """Report a row that can't be read."""
        shown = json.dumps(row, default=str, ensure_ascii=True)[:2000]
        if not number and isinstance(row, Mapping):
            found = (row.get(name) for name in ("SalesOrderNumber", "SalesId", "transRefId"))
            number = next((value for value in found if isinstance(value, str)), "")
        return Rejected(
            MessageId(f"{self.system}/rejected/{entity_set}/{digest(shown)}"),
            self.system,
            f"a row of {entity_set} can't be read: {broken.what}",
            broken.where,
            external_id=number,
            payload=shown,
        )

    def picked(self, key: OrderKey, lines: Sequence[SalesLine], at: datetime) -> Message | None:
        """Tell the totals picked so far; ``None`` when nothing is.

        Whether PickedQuantity goes on counting what was delivered is not documented: treat it as *at least*.
        """
        totals = tuple(LineQuantity(line.lot, line.picked) for line in lines if line.picked > 0)
        if not totals:
            return None
        return self._message(key, f"picked/{digest(*((each.line, each.quantity.normalize()) for each in totals))}",
                             Picked(totals), at)  # fmt: skip

    def shipped(self, slip: Row, rows: Sequence[Row], tracking: Sequence[Row], now: datetime) -> Message:
        """Tell one posted packing slip; raises `BadRow`, also for a correction (negative) and a slip without lines."""
        key, number = key_of(slip, "SalesId"), text_of(slip, "PackingSlipId")
        totals = _totals(rows, "InventTransId", "Qty")
        if not totals:
            raise BadRow("$", f"packing slip {number} has no lines")
        at = when_of(slip, "CreatedOn") or when_of(slip, "DeliveryDate") or now
        codes = sorted({text_of(row, "TrackingNumber") for row in tracking})
        urls = sorted({text_of(row, "TrackingURL", needed=False) for row in tracking} - {""})
        body = Shipped(
            shipment=number,
            lines=totals,
            shipped_at=at,
            tracking_number=", ".join(codes),
            carrier=text_of(slip, "ShipCarrierId", needed=False),
            service=text_of(slip, "DlvMode", needed=False),
            tracking_url=urls[0] if urls else "",
            warehouse=text_of(slip, "inventLocationId", needed=False),
        )
        return self._message(key, f"slip/{number}", body, at)

    def delivered(self, key: OrderKey, line: SalesLine, at: datetime) -> Message:
        """Tell that a line was delivered when packing slips can't be read: a shipment named by order and lot."""
        body = Shipped(f"{key[1]}/{line.lot}", (LineQuantity(line.lot, line.ordered),), at)
        return self._message(key, f"delivered/{line.lot}", body, at)

    def invoiced(self, invoice: Row, rows: Sequence[Row], lines: Sequence[SalesLine], now: datetime) -> Message:
        """Tell one posted invoice; raises `BadRow`, also for a credit note and a line no order line matches."""
        key, number = key_of(invoice, "SalesOrderNumber"), text_of(invoice, "InvoiceNumber")
        currency = text_of(invoice, "CurrencyCode")
        try:
            total = Money.of(number_of(invoice, "TotalInvoiceAmount"), currency)
        except ValueError as broken:
            raise (broken if isinstance(broken, BadRow) else BadRow("$.TotalInvoiceAmount", str(broken))) from None
        if not rows:
            raise BadRow("$", f"invoice {number} has no lines")
        at = when_of(invoice, "InvoiceDate") or now
        return self._message(key, f"invoice/{number}", Invoiced(number, match_lines(rows, lines), total, at), at)

    def canceled(self, key: OrderKey, lots: Sequence[str], at: datetime) -> Message:
        """Tell that an order was canceled (no *lots*), or some of its lines."""
        tail = f"canceled/{digest(*sorted(lots))}" if lots else "canceled"
        return self._message(key, tail, Canceled(tuple(sorted(lots)), "canceled in F&O"), at)


def _totals(rows: Iterable[Row], lot: str, quantity: str) -> tuple[LineQuantity, ...]:
    totals: dict[str, Decimal] = {}
    for at, row in enumerate(rows):
        amount = number_of(row, quantity)
        if amount < 0:
            raise BadRow(f"$.lines[{at}].{quantity}", f"a correction of {amount} can't be taken over")
        totals[text_of(row, lot)] = totals.get(text_of(row, lot), Decimal(0)) + amount
    return tuple(LineQuantity(name, amount) for name, amount in totals.items() if amount > 0)


def match_lines(rows: Sequence[Row], lines: Sequence[SalesLine]) -> tuple[LineQuantity, ...]:
    """Find the order line of each invoice line, which carries neither lot nor order number; raises `BadRow`.

    A line of the same LineCreationSequenceNumber and product is it. Otherwise (that an invoice keeps the order's
    numbering is not documented) the lines of that product are filled in turn, up to what was ordered.
    """
    found: dict[str, Decimal] = {}
    left = {line.lot: line.ordered for line in lines}
    for at, row in enumerate(rows):
        quantity, product = number_of(row, "InvoicedQuantity"), text_of(row, "ProductNumber")
        if quantity < 0:
            raise BadRow(f"$.lines[{at}].InvoicedQuantity", "a credit note can't be taken over")
        sequence = number_of(row, "LineCreationSequenceNumber")
        alike = [line for line in lines if line.item.lower() == product.lower()]
        exact = [line for line in alike if line.sequence == sequence]
        if not alike:
            raise BadRow(f"$.lines[{at}].ProductNumber", f"no line of the order has product {product!r}")
        for line in exact or alike:
            last = bool(exact) or line is alike[-1]
            taken = quantity if last else min(quantity, left[line.lot])
            if taken > 0:
                found[line.lot] = found.get(line.lot, Decimal(0)) + taken
                left[line.lot] -= taken
                quantity -= taken
    return tuple(LineQuantity(lot, quantity) for lot, quantity in found.items())


# --- business events ---------------------------------------------------------------------------------------

INVOICE_POSTED: Final = "SalesInvoicePostedBusinessEvent"
TEST_EVENT: Final = "BusinessEventsTestEndpointContract"
_EVENT_GRID_HELLO: Final = "Microsoft.EventGrid.SubscriptionValidationEvent"


@attrs.frozen
class BusinessEvent:
    """One business event. *event_id* is the same on every redelivery; *order* is ``""`` when it names none."""

    event_id: str
    name: str
    company: str
    order: str
    at: datetime | None


def business_events(body: bytes) -> Result[tuple[BusinessEvent, ...], Refused]:
    """Read a delivery: one event, or an Event Grid envelope (or a list of them) whose ``data`` may be a JSON string.

    Unknown fields and unknown events are fine; the test event is dropped; a repeated EventId counts once.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_float=Decimal)
    except (ValueError, RecursionError):
        return Failure(Refused("not-json", "the delivery is not JSON", who="fno"))
    found: dict[str, BusinessEvent] = {}
    many = isinstance(value, list)
    for at, each in enumerate(value if many else [value]):
        where = f"$[{at}]" if many else "$"
        try:
            event = _event(each)
        except BadRow as broken:
            return Failure(Refused("malformed", broken.what, where + broken.where[1:], who="fno"))
        if event is not None:
            found.setdefault(event.event_id, event)
    return Success(tuple(found.values()))


def _event(value: Json) -> BusinessEvent | None:
    if not isinstance(value, dict):
        raise BadRow("$", "an object is needed")
    if value.get("eventType") == _EVENT_GRID_HELLO:
        return None
    path = "$"
    if "BusinessEventId" not in value and "data" in value:
        path, value = "$.data", value["data"]
        if isinstance(value, str):
            try:
                value = json.loads(value, parse_float=Decimal)
            except (ValueError, RecursionError):
                raise BadRow(path, "the data is not JSON") from None
        if not isinstance(value, dict):
            raise BadRow(path, "an object is needed")
    try:
        name = text_of(value, "BusinessEventId")
        if name == TEST_EVENT:
            return None
        return BusinessEvent(
            event_id=text_of(value, "EventId").strip("{}").upper(),
            name=name,
            company=text_of(value, "BusinessEventLegalEntity", needed=False).lower(),
            order=text_of(value, "SalesOrderId", needed=name == INVOICE_POSTED),
            at=slash_date(value["EventTime"]) if "EventTime" in value else None,
        )
    except BadRow as broken:
        raise BadRow(path + broken.where[1:], broken.what) from None


def slash_date(value: Json) -> datetime:
    """Read ``/Date(1697470966000)/``, milliseconds since 1970; raises `BadRow`."""
    match = re.fullmatch(r"/Date\((-?\d{1,15})(?:[+-]\d{4})?\)/", value) if isinstance(value, str) else None
    if match is None:
        raise BadRow("$.EventTime", f"/Date(milliseconds)/ is needed, not {value!r}"[:200])
    seconds, thousandths = divmod(int(match.group(1)), 1000)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=thousandths * 1000)
    except (ValueError, OverflowError, OSError):
        raise BadRow("$.EventTime", f"{value!r} is no date") from None
