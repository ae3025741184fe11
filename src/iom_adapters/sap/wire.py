"""SAP's words on one side, ours on the other: literals, bodies, errors, events, and what billing needs next. No I/O.

Sources: sap.md sections 2 to 8.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_adapters.sap.config import SapConfig
from iom_core.messages import Invoiced, LineQuantity, Message, Rejected
from iom_core.order import OrderLine, SalesOrder
from iom_core.outcome import Refused
from iom_core.values import MessageId, Money, System

Json = Any
"""A decoded JSON value; numbers with a fraction are `Decimal`."""
Row = Mapping[str, Json]

ORDERS: Final = "/sap/opu/odata/sap/API_SALES_ORDER_SRV"
DELIVERIES: Final = "/sap/opu/odata/sap/API_OUTBOUND_DELIVERY_SRV;v=0002"
"""Without ``;v=0002`` the first version answers."""
DOCUMENTS: Final = "/sap/opu/odata/sap/API_BILLING_DOCUMENT_SRV"
BILLING: Final = "/sap/opu/odata4/sap/api_billingdocument/srvd_a2x/sap/billingdocument/0001"
BILL_ACTION: Final = f"{BILLING}/BillingDocument/SAP__self.CreateFromSDDocument"
TOKEN_PATH: Final = "/sap/bc/sec/oauth2/token"

REFERENCE_LENGTH: Final = 35
"""Characters of ``PurchaseOrderByCustomer``, where our order number goes."""
ORDER, DELIVERY, INVOICE = "C", "J", "M"
"""Document categories (``SDDocumentCategory``)."""
POSTED: Final = "C"
"""``AccountingPostingStatus`` of a document that is in the books. ``OverallBillingStatus`` does not say that."""


class BadRow(ValueError):
    """A row can't be read; *where* is the path within it."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


# --- literals ----------------------------------------------------------------------------------------------

_DATE: Final = re.compile(r"/Date\((-?\d{1,17})(?:[+-]\d{1,4})?\)/")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def number(text: str) -> str:
    """Return a document number without leading zeros: they come and go, and it is never an integer."""
    return text.strip().lstrip("0")


def v2_decimal(value: Decimal) -> str:
    """Write a decimal for OData V2: a JSON string without exponent (``"2.5"``). V4 wants a JSON number instead."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text


def v2_date(day: date) -> str:
    """Write a day for an OData V2 body: ``/Date(1546992000000)/``, its midnight in UTC."""
    return f"/Date({(datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)})/"


def v2_moment(text: str) -> datetime:
    """Read ``/Date(1492098664000)/`` or ``/Date(1492098664000+0000)/``; raises `ValueError`.

    The milliseconds are UTC; what follows them is only how somebody would like to see them.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no date")
    try:
        return _EPOCH + timedelta(milliseconds=int(match.group(1)))
    except OverflowError:
        raise ValueError(f"{text!r} is no date") from None


def day_literal(day: date) -> str:
    """Write a day for a V2 ``$filter``: ``datetime'2026-09-12T00:00:00'``."""
    return f"datetime'{day.isoformat()}T00:00:00'"


def moment_literal(moment: datetime) -> str:
    """Write a moment for a V2 ``$filter``: ``datetimeoffset'2026-09-12T00:00:00Z'``, without its fraction."""
    return f"datetimeoffset'{moment.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S')}Z'"


def basic(user: str, password: str) -> str:
    """Write the value of a basic ``Authorization`` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# --- reading rows ------------------------------------------------------------------------------------------


def text_of(row: Row, name: str, *, needed: bool = True) -> str:
    """Read a string; raises `BadRow` for anything else, and for an empty one when it is *needed*."""
    value = row.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value):
        raise BadRow(f"$.{name}", f"text is needed, not {type(value).__name__} {str(value)[:40]!r}")
    return value


def number_of(row: Row, name: str, *, needed: bool = True) -> str:
    """Read a document or item number without its leading zeros; raises `BadRow`."""
    found = number(text_of(row, name, needed=needed))
    if needed and not found:
        raise BadRow(f"$.{name}", "a number is needed")
    return found


def decimal_of(row: Row, name: str) -> Decimal:
    """Read a decimal as V2 (a string) or V4 (a JSON number) writes it; raises `BadRow`."""
    value = row.get(name)
    try:
        found = None if isinstance(value, (bool, float)) else Decimal(value) if isinstance(value, (str, int)) else value
    except InvalidOperation:
        found = None
    if not isinstance(found, Decimal) or not found.is_finite():
        raise BadRow(f"$.{name}", f"a decimal is needed, not {type(value).__name__} {str(value)[:40]!r}")
    return found


def flag_of(row: Row, name: str) -> bool:
    """Read a boolean; ``null`` is false; raises `BadRow`."""
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRow(f"$.{name}", f"true or false is needed, not {type(value).__name__}")
    return value is True


def when_of(row: Row, name: str) -> datetime | None:
    """Read a date or a moment, in UTC; ``None`` when there is none; raises `BadRow`."""
    value = row.get(name)
    if value in (None, ""):
        return None
    try:
        return v2_moment(value if isinstance(value, str) else str(value))
    except ValueError as broken:
        raise BadRow(f"$.{name}", str(broken)) from None


def children_of(row: Row, name: str) -> list[Row]:
    """Read an expanded collection: ``{"results": […]}``; raises `BadRow` when it isn't expanded."""
    value = row.get(name)
    found = value.get("results") if isinstance(value, Mapping) else value
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise BadRow(f"$.{name}", "a list of objects is needed")
    return found


def etag_of(row: Row) -> str:
    """Read the ETag of an entity, byte for byte: what looks encoded in it stays so; raises `BadRow`."""
    metadata = row.get("__metadata")
    return text_of(metadata if isinstance(metadata, Mapping) else {}, "etag")


# --- errors ------------------------------------------------------------------------------------------------

_GENERIC: Final = ("/IWBEP/CX_MGW_BUSI_EXCEPTION", "/IWBEP/CX_MGW_TECH_EXCEPTION")


@attrs.frozen
class Problem:
    """Why SAP said no: its code (``"V1/042"``) and everything it said, the cause before the generic."""

    code: str
    what: str


def problem(body: Json) -> Problem:
    """Read an error of V2 (its message is an object) or V4 (a string), with all details; blank when it is none."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return Problem("", "")
    message = error.get("message")
    said = [str(error.get("code") or ""), _said(message)]
    inner = error.get("innererror")
    details = error.get("details") or (inner.get("errordetails") if isinstance(inner, Mapping) else None)
    texts = [said[1]]
    for each in details if isinstance(details, list) else []:
        if isinstance(each, Mapping) and not str(each.get("code", "")).startswith(_GENERIC):
            text, target = _said(each.get("message")), str(each.get("target") or each.get("propertyref") or "")
            texts.append(f"{text} ({target})" if target else text)
    kept = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    return Problem(said[0][:100], "; ".join(kept)[:1000])


def _said(message: Json) -> str:
    found = message.get("value") if isinstance(message, Mapping) else message
    return found if isinstance(found, str) else ""


def report_problem(rows: Iterable[Row]) -> str:
    """Read what a picking report complains of: a 200 may carry errors (types ``E`` and ``A``); ``""``: nothing."""
    bad = [row for row in rows if row.get("SystemMessageType") in ("E", "A")]
    return "; ".join(
        " ".join(
            str(row.get(name) or "")
            for name in (
                "SystemMessageIdentification",
                "SystemMessageNumber",
                *(f"SystemMessageVariable{place}" for place in range(1, 5)),
            )
        ).strip()
        for row in bad
    )


# --- what an order comes to in SAP -------------------------------------------------------------------------


@attrs.frozen
class Part:
    """What one of our lines must come to in SAP. *number* is its item's number there, ten times its place.

    *quantity* is all that may be billed by now, *ordered* what *cost* (everything the customer pays for the line,
    with its share of what belongs to the whole order) is the price of; *tax* is within it, as far as known.
    """

    line: str
    number: str
    material: str
    text: str
    unit: str
    quantity: Decimal
    ordered: Decimal
    cost: Money
    tax: Money | None

    def amount(self, quantity: Decimal, net: bool) -> Money:
        """Return what so much of the line costs, to the cent; the parts of a line add up to it, however it is cut."""
        whole = self.cost - self.tax if net and self.tax is not None else self.cost
        if quantity == self.ordered:
            return whole
        return Money.rounded(whole.amount * quantity / self.ordered, whole.currency)


def item_number(place: int) -> str:
    """Return the item number of the line at *place* (from 0): SAP's own steps of ten."""
    return str(10 * (place + 1))


def billable(order: SalesOrder, line: OrderLine) -> Decimal:
    """Return how much of a line may be billed: what has shipped, and all of what nobody ships."""
    shipped_by_somebody = any(each.line == line.id for fo in order.fulfillment_orders for each in fo.lines)
    if line.digital and not shipped_by_somebody:
        return line.quantity
    return min(order.shipped(line.id), line.quantity)


def parts(order: SalesOrder, only: Sequence[str], config: SapConfig) -> Result[tuple[Part, ...], Refused]:
    """Return what is to be in SAP for *order* (or those of its lines named in *only*): what has shipped.

    Shipping + handling − discount is split over the line totals by largest remainder, so that the parts of a whole
    order add up to its total. Refused: an unknown line, what SAP's fields can't hold, nothing shipped (early), and
    net prices of a line whose tax nobody knows.
    """
    who = str(config.system)
    known = {str(line.id) for line in order.lines}
    unknown = [name for name in only if name not in known]
    if unknown:
        return Failure(Refused("unknown-line", f"the order has no line {unknown[0]!r}", "$.lines", who=who))
    extra = order.shipping + order.handling - order.discount
    shares = extra.split([max(line.total.amount, Decimal(0)) for line in order.lines]) if order.lines else ()
    found: list[Part] = []
    for place, line in enumerate(order.lines):
        quantity = billable(order, line)
        if quantity <= 0 or (only and line.id not in only):
            continue
        where = f"$.lines[{place}]"
        part = Part(
            str(line.id),
            item_number(place),
            config.materials.get(line.product, str(line.product)),
            line.name[:40].strip(),
            config.units.get(line.ordered.unit, line.ordered.unit.upper()),
            quantity,
            line.ordered.amount,
            line.total + shares[place],
            line.tax,
        )
        for holds, code, what, tail in (
            (
                0 < len(part.material) <= 40,
                "material",
                f"{part.material!r} is longer than SAP's 40 characters",
                "product",
            ),
            (0 < len(part.unit) <= 3, "unit", f"unit {part.unit!r} is longer than SAP's 3 characters", "ordered.unit"),
            (quantity == round(quantity, 3), "quantity", f"{quantity} has more than 3 decimals", "quantity"),
            (place < 99_999, "too-many-lines", "SAP numbers items with 6 digits", "id"),
            (
                not (config.price_condition and config.price_is == "net") or line.tax is not None,
                "tax-unknown",
                "SAP wants net prices and the tax of the line is unknown",
                "tax",
            ),
        ):
            if not holds:
                return Failure(Refused(code, what, f"{where}.{tail}", who=who))
        found.append(part)
    if not found:
        return Failure(
            Refused("nothing-shipped", "nothing that could be billed has shipped", "$.lines", who, early=True)
        )
    return Success(tuple(found))


def sold_to(order: SalesOrder, config: SapConfig) -> str:
    """Return the SAP customer who buys, or ``""``."""
    return config.customers.get(order.customer) or config.customers.get(order.invoice_customer or "") or config.guest


def reference_problem(reference: str) -> str:
    """Say why a number can't be our reference in SAP, or ``""``: cutting it would make two orders look like one."""
    if len(reference) > REFERENCE_LENGTH:
        return f"{reference!r} is longer than the {REFERENCE_LENGTH} characters SAP keeps of a customer's reference"
    return "" if reference == reference.strip() and reference else f"{reference!r} begins or ends with a blank"


def order_body(
    order: SalesOrder, wanted: Sequence[Part], customer: str, area: tuple[str, str, str], config: SapConfig
) -> dict[str, Json]:
    """Write a sales order with its items for ``POST A_SalesOrder`` (deep insert); empty fields are left out."""
    organization, channel, division = area
    requested = order.requested_ship_date
    fields: dict[str, Json] = {
        "SalesOrderType": config.order_type,
        "SalesOrganization": organization,
        "DistributionChannel": channel,
        "OrganizationDivision": division,
        "SoldToParty": customer,
        "PurchaseOrderByCustomer": str(order.id),
        "CustomerPurchaseOrderDate": v2_date(order.placed_at.astimezone(UTC).date()),
        "RequestedDeliveryDate": v2_date(requested) if requested is not None else "",
        "TransactionCurrency": order.currency,
        "HeaderBillingBlockReason": config.billing_block,
        "to_Item": {"results": [item_body(part, part.number, part.quantity, Decimal(0), config) for part in wanted]},
    }
    return {name: value for name, value in fields.items() if value != ""}


def item_body(part: Part, item: str, quantity: Decimal, before: Decimal, config: SapConfig) -> dict[str, Json]:
    """Write one item over *quantity*, when *before* is in SAP already."""
    fields: dict[str, Json] = {
        "SalesOrderItem": item,
        **({config.item_mark: part.number} if config.item_mark else {}),
        "SalesOrderItemCategory": config.item_category,
        "SalesOrderItemText": part.text,
        "Material": part.material,
        "RequestedQuantity": v2_decimal(quantity),
        "RequestedQuantityUnit": part.unit,
    }
    if config.price_condition:
        net = config.price_is == "net"
        amount = (
            part.amount(before + quantity, net) - part.amount(before, net) if before else part.amount(quantity, net)
        )
        rate, per = price(amount, quantity)
        fields["to_PricingElement"] = {
            "results": [
                {
                    "ConditionType": config.price_condition,
                    "ConditionRateValue": v2_decimal(rate),
                    "ConditionCurrency": amount.currency,
                    "ConditionQuantity": v2_decimal(per),
                    "ConditionQuantityUnit": part.unit,
                }
            ]
        }
    return {name: value for name, value in fields.items() if value != ""}


def price(amount: Money, quantity: Decimal) -> tuple[Decimal, Decimal]:
    """Write *amount* for *quantity* as a rate per so many: exact, unless the quantity has a fraction.

    ``ConditionQuantity`` holds 5 digits without a fraction; a quantity beyond it is priced per one, with 9 decimals.
    """
    if quantity == quantity.to_integral_value() and 0 < quantity <= 99_999:
        return amount.amount, quantity
    return (amount.amount / quantity).quantize(Decimal("1e-9"), ROUND_HALF_UP), Decimal(1)


def billing_body(document: str, category: str, config: SapConfig) -> dict[str, Json]:
    """Write ``CreateFromSDDocument``: one order (``C``) or delivery (``J``)."""
    control: dict[str, Json] = {"AutomPostingToAcctgIsDisabled": not config.post_automatically}
    reference: dict[str, Json] = {"SDDocument": document, "SDDocumentCategory": category}
    if config.billing_type:
        control["DefaultBillingDocumentType"] = config.billing_type
        reference["BillingDocumentType"] = config.billing_type
    return {"_Control": control, "_Reference": [reference]}


# --- what billing needs next -------------------------------------------------------------------------------


@attrs.frozen
class Item:
    """One item of a sales order in SAP. *mark* is the number of the part it is of, ``""``: somebody else's."""

    number: str
    mark: str
    quantity: Decimal
    unit: str
    rejected: bool


@attrs.frozen
class Order:
    """A sales order in SAP, with its ETag."""

    number: str
    reference: str
    etag: str
    block: str
    rejected: bool
    items: tuple[Item, ...]


@attrs.frozen
class Delivery:
    """An outbound delivery, with its ETag, and how much of which order item is in it."""

    number: str
    etag: str
    picked: bool
    gone: bool
    quantities: Mapping[str, Decimal]


@attrs.frozen
class Books:
    """What SAP has of one order of ours: how much of which item is billed, and which deliveries."""

    order: Order | None = None
    deliveries: tuple[Delivery, ...] = ()
    billed: Mapping[str, Decimal] = attrs.field(factory=dict)
    billed_deliveries: frozenset[str] = frozenset()


@attrs.frozen
class Create:
    """Create the sales order."""

    name: str = "create"


@attrs.frozen
class AddItem:
    """Add an item over what has shipped since."""

    part: Part
    item: str
    quantity: Decimal
    before: Decimal

    @property
    def name(self) -> str:
        """Say what it does to what: two steps of one name are the same."""
        return f"add {self.item}"


@attrs.frozen
class Release:
    """Take our billing block from the order."""

    etag: str
    name: str = "release"


@attrs.frozen
class Deliver:
    """Create a delivery for order items."""

    items: tuple[str, ...]

    @property
    def name(self) -> str:
        """Say what it does to what: two steps of one name are the same."""
        return f"deliver {','.join(self.items)}"


@attrs.frozen
class Move:
    """Pick a delivery, or post its goods issue: *function* says which."""

    function: str
    delivery: str
    etag: str

    @property
    def name(self) -> str:
        """Say what it does to what: two steps of one name are the same."""
        return f"{self.function} {self.delivery}"


@attrs.frozen
class Bill:
    """Create billing documents from an order or a delivery."""

    document: str
    category: str

    @property
    def name(self) -> str:
        """Say what it does to what: two steps of one name are the same."""
        return f"bill {self.category} {self.document}"


Step = Create | AddItem | Release | Deliver | Move | Bill


def next_step(wanted: Sequence[Part], books: Books, config: SapConfig) -> Step | Refused | None:
    """Say what is to be done next so that all that is *wanted* is billed; ``None`` when nothing is left.

    It looks only at what SAP has, never at what we believe to have done: repeating it after a lost answer, in another
    process or a week later creates nothing twice. Items that people rejected are neither billed nor added again.
    """
    who = str(config.system)
    order = books.order
    if order is None:
        return Create()
    if not any(item.mark for item in order.items):
        # Adding our items to somebody's order would be wrong; so would adding them again if SAP dropped the marks.
        what = f"sales order {order.number} has our reference, but no item with our mark"
        return Refused("foreign-order", what, "$", who)
    for part in wanted:
        present = sum((item.quantity for item in order.items if item.mark == part.number), Decimal(0))
        if present < part.quantity:
            free = _free_number(order, part)
            if not free:
                what = f"line {part.line} is in SAP in too many parts already"
                return Refused("too-many-parts", what, "$.lines", who)
            return AddItem(part, free, part.quantity - present, present)
    ours = {part.number for part in wanted}
    live = [item for item in order.items if item.mark in ours and not item.rejected]
    unbilled = [item for item in live if books.billed.get(item.number, Decimal(0)) < item.quantity]
    if not unbilled:
        return None
    if order.block:
        if order.block != config.billing_block:
            what = f"sales order {order.number} has the billing block {order.block!r}"
            return Refused("billing-block", what, "$", who, early=True)
        return Release(order.etag)
    if config.bill_from == "order":
        return Bill(order.number, ORDER)
    delivered: dict[str, Decimal] = defaultdict(Decimal)
    for delivery in books.deliveries:
        for item_, quantity in delivery.quantities.items():
            delivered[item_] += quantity
    missing = tuple(item.number for item in unbilled if delivered[item.number] < item.quantity)
    if missing:
        return Deliver(missing)
    for delivery in books.deliveries:
        if not delivery.gone:
            function = "PostGoodsIssue" if delivery.picked or not config.pick else "PickAllItems"
            return Move(function, delivery.number, delivery.etag)
    open_deliveries = [each.number for each in books.deliveries if each.number not in books.billed_deliveries]
    if not open_deliveries:
        what = f"the deliveries of sales order {order.number} are billed, though not all of its items"
        return Refused("not-all-billed", what, "$", who)
    return Bill(open_deliveries[0], DELIVERY)


def _free_number(order: Order, part: Part) -> str:
    taken = {item.number for item in order.items}
    numbers = (str(int(part.number) + more) for more in range(10))
    return next((each for each in numbers if each not in taken), "")


def order_of(row: Row, config: SapConfig) -> Order:
    """Read a sales order with its expanded items; raises `BadRow`."""
    return Order(
        number_of(row, "SalesOrder"),
        text_of(row, "PurchaseOrderByCustomer", needed=False),
        etag_of(row),
        text_of(row, "HeaderBillingBlockReason", needed=False),
        row.get("OverallSDDocumentRejectionSts") == "C",
        tuple(
            Item(
                number_of(each, "SalesOrderItem"),
                _mark(each, config),
                decimal_of(each, "RequestedQuantity"),
                text_of(each, "RequestedQuantityUnit", needed=False),
                bool(text_of(each, "SalesDocumentRjcnReason", needed=False)),
            )
            for each in children_of(row, "to_Item")
        ),
    )


def _mark(row: Row, config: SapConfig) -> str:
    if config.item_mark:
        return number_of(row, config.item_mark, needed=False)
    item = number_of(row, "SalesOrderItem")
    return str(int(item) // 10 * 10) if item.isdecimal() and int(item) >= 10 else ""


def delivery_of(row: Row, items: Sequence[Row]) -> Delivery:
    """Read a delivery and those of its *items* that are about one order; raises `BadRow`."""
    quantities: dict[str, Decimal] = defaultdict(Decimal)
    for each in items:
        quantities[number_of(each, "ReferenceSDDocumentItem")] += decimal_of(each, "ActualDeliveryQuantity")
    return Delivery(
        number_of(row, "DeliveryDocument"),
        etag_of(row),
        text_of(row, "OverallPickingStatus", needed=False) in ("", "C"),
        row.get("OverallGoodsMovementStatus") == "C",
        dict(quantities),
    )


# --- invoices ----------------------------------------------------------------------------------------------

HEADER_FIELDS: Final = (
    "BillingDocument", "SDDocumentCategory", "BillingDocumentDate", "CreationDate", "BillingDocumentIsCancelled",
    "CancelledBillingDocument", "TotalNetAmount", "TaxAmount", "TotalGrossAmount", "TransactionCurrency",
    "AccountingPostingStatus",
)  # fmt: skip
ITEM_FIELDS: Final = (
    "BillingDocument", "BillingDocumentItem", "BillingQuantity", "BillingQuantityUnit", "NetAmount", "TaxAmount",
    "SalesDocument", "SalesDocumentItem",
)  # fmt: skip
REFERENCE_FIELDS: Final = (
    "ReferenceSDDocument", "ReferenceSDDocumentCategory", "SalesDocument", "SalesDocumentItem", "BillingDocument",
    "BillingDocumentItem", "BillingQuantity",
)  # fmt: skip


def is_invoice(row: Row, config: SapConfig) -> bool:
    """Say whether a billing document is an invoice: no memo, pro forma document or cancellation."""
    return (
        row.get("SDDocumentCategory") in config.invoice_categories
        and not text_of(row, "CancelledBillingDocument", needed=False).strip("0 ")
    )  # fmt: skip


def digest(*values: object) -> str:
    """Return a short fingerprint of some values."""
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:16]


@attrs.frozen
class Teller:
    """Writes messages about billing documents; ids depend on content only, so that a repeat has the same one."""

    system: System

    def rejected(self, document: str, row: Json, broken: BadRow, order: str = "") -> Rejected:
        """Report a billing document that can't be read."""
        shown = json.dumps(row, default=str, ensure_ascii=True)[:2000]
        return Rejected(
            MessageId(f"{self.system}/rejected/{document}/{digest(order, broken.where, broken.what)}"),
            self.system,
            f"billing document {document} can't be read: {broken.what}",
            broken.where,
            external_id=order,
            payload=shown,
        )

    def canceled(self, document: str, order: str) -> Rejected:
        """Report an invoice that was canceled in SAP: recorded or not, a person must know."""
        return Rejected(
            MessageId(f"{self.system}/canceled/{document}/{order}"),
            self.system,
            f"billing document {document} was canceled in SAP; a recorded invoice of that number is void",
            "$.BillingDocumentIsCancelled",
            external_id=order,
        )

    def invoiced(self, row: Row, items: Sequence[Row], order: Order, now: datetime) -> Message:
        """Tell one posted invoice over *order*; raises `BadRow`.

        A line is named by the number of its first item, whichever of its items were billed. Items that are none of
        our lines (people add freight and the like) are in the total only. A document over several sales orders gives
        each the sum of its items, tax included; a document over one gives the document's gross total.
        """
        document, currency = number_of(row, "BillingDocument"), text_of(row, "TransactionCurrency")
        known = {item.number: item for item in order.items}
        quantities: dict[str, Decimal] = {}
        amount = Decimal(0)
        mine = [each for each in items if number_of(each, "SalesDocument", needed=False) == order.number]
        for each in mine:
            amount += decimal_of(each, "NetAmount") + decimal_of(each, "TaxAmount")
            item = known.get(number_of(each, "SalesDocumentItem"))
            if item is None or not item.mark:
                continue
            if text_of(each, "BillingQuantityUnit", needed=False) != item.unit:
                place = f"$.to_Item[{items.index(each)}].BillingQuantityUnit"
                raise BadRow(place, f"billed in {each.get('BillingQuantityUnit')!r}, ordered in {item.unit!r}")
            quantity = decimal_of(each, "BillingQuantity")
            if quantity <= 0:
                raise BadRow(f"$.to_Item[{items.index(each)}].BillingQuantity", f"{quantity} is not above zero")
            quantities[item.mark] = quantities.get(item.mark, Decimal(0)) + quantity
        if not quantities:
            raise BadRow("$.to_Item", f"no item is about a line of sales order {order.number} that we know")
        gross = decimal_of(row, "TotalGrossAmount")
        whole = gross or decimal_of(row, "TotalNetAmount") + decimal_of(row, "TaxAmount")
        if len(mine) == len(items):
            amount = whole
        elif (
            sum((decimal_of(each, "NetAmount") + decimal_of(each, "TaxAmount") for each in items), Decimal(0)) != whole
        ):
            raise BadRow("$.TotalGrossAmount", f"{whole} is not the sum of the items, which are of several orders")
        try:
            total = Money.of(amount, currency)
        except ValueError as broken:
            raise BadRow("$.TotalGrossAmount", str(broken)) from None
        body = Invoiced(
            document,
            tuple(LineQuantity(mark, quantity) for mark, quantity in quantities.items()),
            total,
            when_of(row, "BillingDocumentDate") or when_of(row, "CreationDate") or now,
        )
        name = MessageId(f"{self.system}/invoice/{document}/{order.number}")
        return Message(name, self.system, body, now, external_id=order.number)


# --- events ------------------------------------------------------------------------------------------------

BIGGEST_EVENT: Final = 1024 * 1024
_BILLING_EVENT: Final = re.compile(r"sap\.s4\.beh\.billingdocument\.v\d+\.BillingDocument\.\w+\.v\d+")


def secret_matches(headers: Mapping[str, str], config: SapConfig) -> bool:
    """Compare what the sender proves itself by with our secret, in constant time; without one, nothing matches."""
    sent = next((value for name, value in headers.items() if name.lower() == config.webhook_header), "")
    bare = sent[7:] if sent[:7].lower() == "bearer " else sent
    wanted = config.webhook_secret.encode()
    return bool(wanted) and hmac.compare_digest(bare.encode(), wanted)


def handshake(headers: Mapping[str, str], config: SapConfig) -> Result[dict[str, str], Refused]:
    """Answer the ``OPTIONS`` by which Event Mesh asks whether it may send: the headers of a 200, or `Refused`."""
    given = {name.lower(): value for name, value in headers.items()}
    origin = given.get("webhook-request-origin", "")
    if not origin or len(origin) > 255 or not (origin.isascii() and origin.isprintable()):
        return Failure(Refused("no-origin", "WebHook-Request-Origin is missing or no name", who=str(config.system)))
    if config.webhook_origins and origin not in config.webhook_origins:
        return Failure(Refused("origin", f"{origin} may not subscribe", who=str(config.system)))
    return Success({"WebHook-Allowed-Origin": origin})


def hinted(headers: Mapping[str, str], body: bytes, config: SapConfig) -> Result[tuple[str, ...], Refused]:
    """Return the billing documents an event is about, without leading zeros; ``()`` for events about other things.

    Understands structured CloudEvents (Event Mesh), binary ones (``ce-`` headers, Cloud Application Event Hub) and
    the form before CloudEvents (``EVENT_PAYLOAD``). Unknown fields are ignored.
    """
    who = str(config.system)
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return Failure(Refused("not-json", "the event is not JSON", who=who))
    if not isinstance(said, dict):
        return Failure(Refused("no-event", "the event is no object", who=who))
    old = said.get("EVENT_PAYLOAD")
    if isinstance(old, dict):
        keys = old.get("KEY")
        rows = [each for each in keys if isinstance(each, dict)] if isinstance(keys, list) else []
        return Success(_numbers(each.get("BILLINGDOCUMENT") for each in rows))
    given = {name.lower(): value for name, value in headers.items()}
    binary = "ce-type" in given
    context = {
        name: given.get(f"ce-{name}") if binary else said.get(name) for name in ("specversion", "type", "id", "source")
    }
    missing = [name for name, value in context.items() if not isinstance(value, str) or not value]
    if missing:
        return Failure(Refused("no-event", f"the event has no {missing[0]}", f"$.{missing[0]}", who=who))
    if not _BILLING_EVENT.fullmatch(str(context["type"])):
        return Success(())
    data = said.get("data", said if binary else None)
    found = _numbers([data.get("BillingDocument")] if isinstance(data, dict) else [])
    if not found:
        return Failure(Refused("no-key", "the event names no billing document", "$.data.BillingDocument", who=who))
    return Success(found)


def _numbers(values: Iterable[Json]) -> tuple[str, ...]:
    texts = (number(each) for each in values if isinstance(each, str) and each.isascii() and each.strip().isdigit())
    return tuple(dict.fromkeys(text for text in texts if 0 < len(text) <= 10))
