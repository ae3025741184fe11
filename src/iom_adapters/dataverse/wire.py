"""Dataverse's words on one side, ours on the other: what may be sent, columns, money, checkpoints, messages. No I/O.

Columns and statuses: dual-write mapping reference and sales status map; the sync filters are those of order
orchestration's F&O provider.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_adapters.dataverse import maps
from iom_adapters.dataverse.dual_write import ValueMap
from iom_core.events import LINE
from iom_core.messages import (
    Body,
    Canceled,
    Invoiced,
    LineQuantity,
    Message,
    NewOrder,
    OrderDraft,
    OrderLineDraft,
    Picked,
    Rejected,
    Shipped,
)
from iom_core.order import OrderLine, SalesOrder
from iom_core.outcome import Refused
from iom_core.values import Address, CompanyId, MessageId, Money, ProductId, Quantity, System, minor_units

Json = Any
"""A decoded JSON value; numbers with a fraction are `Decimal`."""
Row = Mapping[str, Json]

NUMBER_LENGTH: Final = 20
"""Of ``msdyn_salesordernumber``."""
KEY_BREAKERS: Final = frozenset("/<>*%&:\\?+")
"""Characters that break an alternate key in an address."""
CANCELED: Final = 192350007
LINE_DELIVERED: Final = frozenset({192350002, 192350003})
"""``msdyn_linestatus``: delivered, invoiced."""
LINE_OPEN: Final = 192350001
LINE_CANCELED: Final = 192350004
FINISHED: Final = frozenset({192350005, CANCELED})
MEMORY: Final = 50_000
"""How many orders a checkpoint remembers the shipments of; the oldest go first."""


@attrs.frozen
class Settings:
    """How one organization is set up.

    The order number is copied unchanged both ways, so Dataverse's ``msdyn_salesordernumber`` is F&O's SalesOrderNumber:
    ours is *number_prefix* + our order id. F&O's number sequence must allow manual numbers and use a prefix of its
    own, or both sides create the same number. *erp_prefix* is F&O's; orders whose number begins with it were created
    there and become new orders once confirmed (``""``: none are taken in).

    *customers* maps our customers' accounts to F&O's, *guests* a company to the account that stands in where the order
    names none. *states* maps ``"US/Washington"`` to F&O's state id, *units* our units to F&O's. *countries* extends the
    country value map (ISO code to Dataverse's text) where both systems' maps have been extended alike.
    *prices_include_tax* is written on each header, *origin* is a sales order origin code.

    Uncertain in any organization, hence choices: *status_column* (where our state and reason go on the row of an order
    that F&O created; no public table has one, so ``""`` writes nothing), *sync_error_column* (the line's Sync Error,
    ``""``: none), *shipped_column* (a running total shipped; the maps of order orchestration write none, ``""`` trusts
    the line status alone), *navigation* (navigation properties by column, where the organization's metadata should not
    be asked).
    """

    number_prefix: str = ""
    erp_prefix: str = ""
    countries: Mapping[str, str] = attrs.field(factory=dict)
    states: Mapping[str, str] = attrs.field(factory=dict)
    units: Mapping[str, str] = attrs.field(factory=dict)
    customers: Mapping[str, str] = attrs.field(factory=dict)
    guests: Mapping[str, str] = attrs.field(factory=dict)
    prices_include_tax: bool = True
    origin: str = ""
    excluded_reasons: tuple[str, ...] = ()
    status_column: str = ""
    sync_error_column: str = "msdyn_syncerror"
    shipped_column: str = "quantityshipped"
    navigation: Mapping[str, str] = attrs.field(factory=dict)
    page_size: int = attrs.field(default=500, validator=attrs.validators.in_(range(1, 5001)))
    orders_per_pull: int = attrs.field(default=20, validator=attrs.validators.ge(1))

    def country_map(self) -> ValueMap:
        """Return the country value map with what was added."""
        return maps.COUNTRY.extended({code.upper(): name for code, name in self.countries.items()})


# --- what may be sent ----------------------------------------------------------------------------------------


@attrs.frozen
class Buyers:
    """Who orders and who pays, as F&O's customer accounts."""

    ordering: str
    invoice: str


def buyers(order: SalesOrder, settings: Settings) -> Buyers:
    """Return whose accounts an order is for; ``""`` where nobody is known."""
    guest = settings.guests.get((order.company or "").lower(), "")
    ordering = settings.customers.get(order.customer) or order.invoice_customer or guest
    return Buyers(ordering, order.invoice_customer or ordering)


@attrs.frozen
class Numbered:
    """A line and its sequence number in the ERP."""

    sequence: int
    line: OrderLine


@attrs.frozen
class Sendable:
    """What passes the sync filters: the number, the lines, and those held back with why."""

    number: str
    lines: tuple[Numbered, ...]
    held: tuple[tuple[str, str], ...]


def numbered(order: SalesOrder, system: System) -> tuple[Numbered, ...]:
    """Return the order's lines with their sequence numbers: those *system* knows them by, else their place."""
    known = {line.id: int(text) for line in order.lines if (text := _external(order, system, line)).isdecimal()}
    taken = set(known.values())
    found: list[Numbered] = []
    for place, line in enumerate(order.lines, 1):
        sequence = known.get(line.id) or (place if place not in taken else max(taken) + 1)
        taken.add(sequence)
        found.append(Numbered(sequence, line))
    return tuple(found)


def _external(order: SalesOrder, system: System, line: OrderLine) -> str:
    return order.external(system, LINE, line.id) or ""


def sendable(order: SalesOrder, only: Sequence[str], settings: Settings, system: System) -> Result[Sendable, Refused]:
    """Apply the sync filters to *order*, or to those of its lines named in *only*, before anything is written.

    What the filters would hold back silently is said here: the header is refused, a line is returned with its reason.
    """
    number = order.external(system) or settings.number_prefix + order.id
    unusable = len(number) > NUMBER_LENGTH or bool(KEY_BREAKERS & set(number))
    why = order.status.reason
    for broken, code, what, where in (
        (unusable, "number-not-usable", f"{number!r} can't be an order number there (20 characters)", "$.id"),
        (order.order_type != "sales order", "not-a-sales-order", "only sales orders are sent", "$.order_type"),
        (not order.company, "no-company", "the order has no company", "$.company"),
        (not buyers(order, settings).invoice, "no-customer", "the order has no invoice customer", "$.invoice_customer"),
        (not order.ready_to_sync, "not-ready", "the order is not ready to sync", "$.ready_to_sync"),
        (why in settings.excluded_reasons, "excluded-status", f"{why!r} orders are not sent", "$.status.reason"),
    ):
        if broken:
            return _no(code, what, where)
    unknown = [name for name in only if order.line(name) is None]
    if unknown:
        return _no("unknown-line", f"the order has no line {unknown[0]!r}", "$.lines")
    chosen = [each for each in numbered(order, system) if (not only or each.line.id in only) and each.line.quantity > 0]
    held = tuple((str(each.line.id), what) for each in chosen if (what := _held_back(order, each.line)))
    passed = tuple(each for each in chosen if not _held_back(order, each.line))
    if not passed:
        # An order without lines is never synchronized.
        return _no("no-line", f"no line can be sent: {held[0][1] if held else 'none has a quantity'}", "$.lines")
    places = [("$.ship_to.country", order.ship_to)]
    places += [
        (f"$.lines[{order.lines.index(each.line)}].ship_to.country", each.line.ship_to)
        for each in passed
        if each.line.ship_to is not None
    ]
    for where, place in places:
        if place.country and settings.country_map().to_dataverse(place.country) is None:
            what = f"country {place.country} has no mapping in the dual-write value map; extend both maps alike"
            return _no("unmapped-country", what, where)
    return Success(Sendable(number, passed, held))


def _held_back(order: SalesOrder, line: OrderLine) -> str:
    for broken, what in (
        (not line.company, "the line has no company"),
        ((line.company or "").lower() != (order.company or "").lower(), "the line's company is not the order's"),
        (not line.site, "the line has no shipping site"),
        (not line.warehouse, "the line has no shipping warehouse"),
        (not line.ready_to_sync, "the line is not ready to sync"),
    ):
        if broken:
            return f"held back by the sync filter: {what}"
    return ""


def _no(code: str, what: str, where: str) -> Failure[Refused]:
    return Failure(Refused(code, what, where, who="dual-write"))


# --- money ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Price:
    """What F&O computes the line amount from: quantity × *each* + *charges*."""

    each: Decimal
    charges: Decimal


def amounts(order: SalesOrder) -> dict[str, Money]:
    """Return what each line costs in the ERP: its total and its share of shipping + handling − discount.

    The share is split over the line totals by largest remainder, over all lines whether they are sent now or later:
    the amounts add up to the order's total to the cent.
    """
    extra = order.shipping + order.handling - order.discount
    weights = [max(line.total.amount, Decimal(0)) for line in order.lines]
    shares = extra.split(weights) if weights else ()
    return {str(line.id): line.total + share for line, share in zip(order.lines, shares)}


def price(amount: Money, line: OrderLine) -> Price:
    """Write *amount* (for all that was ordered) as a price and charges for what is still wanted of *line*.

    The price is the line's own total per unit in minor units; the charges are exactly the rest. Quantity × price is
    rounded before the charges are taken from it, so that it does not matter when F&O rounds.
    """
    unit = Decimal(1).scaleb(-minor_units(amount.currency))
    ordered, wanted = line.ordered.amount, line.quantity
    part = amount if wanted == ordered else Money.rounded(amount.amount * wanted / ordered, amount.currency)
    each = (line.total.amount / ordered).quantize(unit, ROUND_HALF_UP)
    return Price(each, part.amount - (each * wanted).quantize(unit, ROUND_HALF_UP))


# --- columns -------------------------------------------------------------------------------------------------


def header_columns(order: SalesOrder, settings: Settings) -> dict[str, Json]:
    """Return a header's plain columns; without its number, which is its key, and not ready to sync.

    ``shipto_line2`` stays empty: dual-write makes it F&O's street *number*.
    """
    contact = order.bill_to if order.bill_to.email or order.bill_to.name else order.ship_to
    columns: dict[str, Json] = {
        "name": str(order.id),
        "msdyn_isreadytosync": False,
        "msdyn_ordertype": maps.ITEM_BASED,
        "msdyn_arepricesincludingsalestax": settings.prices_include_tax,
        "msdyn_customersorderreference": (order.reference or str(order.id))[:60],
        "emailaddress": contact.email[:100],
        "description": order.note[:2000],
        "requestdeliveryby": _day(order.requested_ship_date),
        **_ship_to(order.ship_to, settings),
        "shipto_name": order.ship_to.name[:200],
        "shipto_telephone": order.ship_to.phone[:50],
        "msdyn_isdeliveryaddressorderspecific": True,
        "billto_name": order.bill_to.name[:200],
        "billto_line1": _street(order.bill_to),
        "billto_city": order.bill_to.city[:80],
        "billto_stateorprovince": order.bill_to.state[:50],
        "billto_postalcode": order.bill_to.postal_code[:20],
        "billto_country": order.bill_to.country,
    }
    return {name: value for name, value in columns.items() if value not in ("", None)}


def line_columns(order: SalesOrder, line: OrderLine, amount: Money, settings: Settings) -> dict[str, Json]:
    """Return a line's plain columns; without order and sequence number, which are its key, and not ready to sync."""
    cost = price(amount, line)
    columns: dict[str, Json] = {
        "msdyn_isreadytosync": False,
        "description": line.name[:2000],
        "quantity": line.quantity,
        "priceperunit": cost.each,
        "ispriceoverridden": True,
        "msdyn_salespricequantity": 1,
        "msdyn_fixedpricecharges": cost.charges,
        "requestdeliveryby": _day(order.requested_ship_date),
    }
    if line.ship_to is not None:
        columns |= {**_ship_to(line.ship_to, settings), "msdyn_isdeliveryaddressspecific": True}
    return {name: value for name, value in columns.items() if value not in ("", None)}


def _ship_to(place: Address, settings: Settings) -> dict[str, Json]:
    return {
        "msdyn_deliveryaddressname": (place.name or place.company)[:100],
        "msdyn_deliveryaddressdescription": (place.company or place.name)[:60],
        "shipto_line1": _street(place),
        "shipto_city": place.city[:80],
        "shipto_stateorprovince": settings.states.get(f"{place.country}/{place.state}", place.state)[:50],
        "shipto_postalcode": place.postal_code[:20],
        "shipto_country": settings.country_map().to_dataverse(place.country),
    }


def _street(place: Address) -> str:
    return "\n".join(filter(None, (place.street, place.street2)))[:250]


def _day(when: date | None) -> str | None:
    return None if when is None else when.isoformat()


# --- checkpoints ---------------------------------------------------------------------------------------------


@attrs.frozen
class Delivery:
    """A shipment worked out from totals: lines with what was added to them and what they then came to."""

    lines: tuple[tuple[str, str, str], ...]
    """Sequence number, quantity in this shipment, total shipped after it (decimals as text)."""
    at: str

    @property
    def id(self) -> str:
        """Return an id made of the totals, so that it does not depend on when we looked."""
        return "+".join(f"{sequence}x{total}" for sequence, _, total in self.lines)


@attrs.frozen
class Told:
    """What has been told of an order's shipments: totals by sequence number, and in how many shipments."""

    totals: Mapping[str, str] = attrs.field(factory=dict)
    shipments: int = 0


@attrs.frozen
class Checkpoint:
    """Where a puller stands.

    *links* are the delta links per table; *todo* the orders (row ids) still to be looked at. Dual-write tells totals,
    not shipments: *shipped* remembers what has been told per order and line, and *pending* holds the shipments the
    next pull will tell. They are written down before they are told, so that a pull repeated after a crash tells the
    very same ones.
    """

    links: Mapping[str, str] = attrs.field(factory=dict)
    todo: tuple[str, ...] = ()
    pending: Mapping[str, Delivery] = attrs.field(factory=dict)
    shipped: Mapping[str, Told] = attrs.field(factory=dict)

    @classmethod
    def read(cls, text: str) -> Checkpoint:
        """Read what `write` wrote; ``""`` is the beginning; raises `ValueError` for anything else."""
        if not text:
            return cls()
        data = json.loads(text)
        pending = {
            number: Delivery(tuple((one, two, three) for one, two, three in each["lines"]), each["at"])
            for number, each in data["pending"].items()
        }
        shipped = {number: Told(totals, count) for number, (count, totals) in data["shipped"].items()}
        return cls(data["links"], tuple(data["todo"]), pending, shipped)

    def write(self) -> str:
        """Return it as text."""
        pending = {number: {"lines": each.lines, "at": each.at} for number, each in self.pending.items()}
        shipped = {number: [each.shipments, dict(each.totals)] for number, each in self.shipped.items()}
        data = {"links": dict(self.links), "todo": self.todo, "pending": pending, "shipped": shipped}
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


# --- rows to messages ----------------------------------------------------------------------------------------


@attrs.frozen
class OrderRows:
    """One order as Dataverse has it: header, lines, and invoices with their lines."""

    header: Row
    lines: tuple[Row, ...]
    invoices: tuple[tuple[Row, tuple[Row, ...]], ...]
    currency: str

    @property
    def number(self) -> str:
        """Return the order's number, the same in F&O."""
        return str(self.header.get("msdyn_salesordernumber") or "")


class Unreadable(ValueError):
    """A row does not hold what it must; *where* is a path into it."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = where


def owner(number: str, settings: Settings) -> str:
    """Say whose order a number is: ``"ours"``, ``"erp"`` or ``""`` (somebody else's)."""
    if settings.erp_prefix and number.startswith(settings.erp_prefix):
        return "erp"
    return "ours" if number and number.startswith(settings.number_prefix) else ""


def tells(entity_set: str, row: Row, settings: Settings) -> bool:
    """Say whether a changed row can say anything new: what we wrote ourselves does not."""
    if entity_set == "salesorders":
        whose, status = owner(str(row.get("msdyn_salesordernumber") or ""), settings), row.get("msdyn_processingstatus")
        first = maps.LIFE_CYCLE[192350001 if whose == "erp" else 192350002]
        return bool(whose) and status is not None and maps.LIFE_CYCLE.get(status, first) >= first
    if entity_set == "salesorderdetails":
        return row.get("msdyn_linestatus") in {*LINE_DELIVERED, LINE_CANCELED} or bool(
            settings.shipped_column and row.get(settings.shipped_column)
        )
    return True


def delivered(rows: OrderRows, settings: Settings) -> dict[str, Decimal]:
    """Return the total shipped so far per sequence number, as far as Dataverse knows it.

    A line's own status counts; where it has none, the header's does.
    """
    status = rows.header.get("msdyn_processingstatus")
    whole = maps.LIFE_CYCLE.get(status, 0) >= maps.LIFE_CYCLE[192350004]
    totals: dict[str, Decimal] = {}
    for at, line in enumerate(_synced(rows.lines)):
        ordered = _number(line, "quantity", at)
        counted = Decimal(0)
        if settings.shipped_column and line.get(settings.shipped_column) is not None:
            counted = min(_number(line, settings.shipped_column, at), ordered)
        line_status = line.get("msdyn_linestatus")
        done = line_status in LINE_DELIVERED or (whole and line_status not in (LINE_OPEN, LINE_CANCELED))
        total = counted if counted > 0 else ordered if done else Decimal(0)
        if total > 0:
            totals[_sequence(line, at)] = total
    return totals


def delivery(rows: OrderRows, told: Mapping[str, str], settings: Settings) -> Delivery | None:
    """Return what was shipped since *told* (totals by sequence number) as one shipment; ``None`` when nothing was."""
    lines = tuple(
        (sequence, _plain(total - Decimal(told.get(sequence, "0"))), _plain(total))
        for sequence, total in delivered(rows, settings).items()
        if total > Decimal(told.get(sequence, "0"))
    )
    at = max((str(line.get("modifiedon") or "") for line in rows.lines), default="")
    return Delivery(lines, at or str(rows.header.get("modifiedon") or "")) if lines else None


def remembered(shipped: Mapping[str, Told], rows: OrderRows, shipment: Delivery | None) -> dict[str, Told]:
    """Return *shipped* with *shipment*.

    A finished order that left in one shipment is forgotten: should it change again, the same shipment with the same
    id is worked out from its totals.
    """
    told = shipped.get(rows.number, Told())
    if shipment is not None:
        totals = {**told.totals, **{sequence: total for sequence, _, total in shipment.lines}}
        told = Told(totals, told.shipments + 1)
    known = {number: each for number, each in shipped.items() if number != rows.number}
    finished = rows.header.get("msdyn_processingstatus") in FINISHED
    if told.shipments > (1 if finished else 0):
        known[rows.number] = told
    return dict(list(known.items())[-MEMORY:])


def messages(
    rows: OrderRows, shipment: Delivery | None, system: System, settings: Settings
) -> list[Message | Rejected]:
    """Return what an order's rows say, as absolute facts; a row that can't be read becomes one rejection."""
    changed = _moment(rows.header.get("modifiedon"))
    try:
        bodies = list(_facts(rows, shipment, settings))
    except Unreadable as broken:
        return [unreadable(rows.header, broken, system)]
    return [
        Message(_id(system, rows.number, body), system, body, _when(body) or changed, external_id=rows.number)
        for body in bodies
    ]


def unreadable(header: Row, broken: Unreadable, system: System) -> Rejected:
    """Say that an order's rows can't be read."""
    number = str(header.get("msdyn_salesordernumber") or "")
    payload = json.dumps(dict(header), default=str, ensure_ascii=False)[:2000]
    digest = hashlib.sha256(payload.encode()).hexdigest()[:16]
    return Rejected(
        MessageId(f"{system}:{number}:rejected:{digest}"), system, broken.what, broken.where, number, payload
    )


def _facts(rows: OrderRows, shipment: Delivery | None, settings: Settings) -> Iterator[Body]:
    status = rows.header.get("msdyn_processingstatus")
    known = {pair[1] for pair in maps.PROCESSING_STATUS_D365.pairs}
    if status is not None and status not in known:
        raise Unreadable(f"unknown processing status {status!r}", "$.msdyn_processingstatus")
    canceled = [
        _sequence(line, at) for at, line in enumerate(rows.lines) if line.get("msdyn_linestatus") == LINE_CANCELED
    ]
    if status == CANCELED:
        yield Canceled()
    elif canceled:
        yield Canceled(lines=tuple(canceled))
    picked = _picked(rows, status, settings)
    if picked:
        yield Picked(picked)
    if shipment is not None:
        yield Shipped(
            shipment=f"{rows.number}/{shipment.id}",
            lines=tuple(LineQuantity(sequence, Decimal(quantity)) for sequence, quantity, _ in shipment.lines),
            shipped_at=_moment(shipment.at),
        )
    for at, (invoice, lines) in enumerate(rows.invoices):
        yield _invoice(invoice, lines, rows.currency, f"$.invoices[{at}]")


def _picked(rows: OrderRows, status: Json, settings: Settings) -> tuple[LineQuantity, ...]:
    """Return totals picked: all that F&O has once the order is picked, else what was delivered of it."""
    totals = delivered(rows, settings)
    if maps.LIFE_CYCLE.get(status, 0) == maps.LIFE_CYCLE[192350002]:
        totals = {
            _sequence(line, at): _number(line, "quantity", at)
            for at, line in enumerate(_synced(rows.lines))
            if line.get("msdyn_linestatus") != LINE_CANCELED
        }
    return tuple(LineQuantity(sequence, total) for sequence, total in totals.items())


def _invoice(invoice: Row, lines: Sequence[Row], currency: str, where: str) -> Invoiced:
    number = str(invoice.get("msdyn_invoicenumber") or "")
    if not number:
        raise Unreadable("the invoice has no number", f"{where}.msdyn_invoicenumber")
    day = str(invoice.get("msdyn_invoicedate") or "")[:10]
    return Invoiced(
        number=number,
        lines=tuple(LineQuantity(_sequence(line, at), _number(line, "quantity", at)) for at, line in enumerate(lines)),
        total=_money(invoice.get("msdyn_totalamount"), currency, f"{where}.msdyn_totalamount"),
        invoiced_at=datetime.combine(date.fromisoformat(day), time(12), UTC) if day else _moment(invoice["modifiedon"]),
    )


def _synced(lines: Iterable[Row]) -> list[Row]:
    """Return the lines F&O has: those that were let through."""
    return [line for line in lines if line.get("msdyn_isreadytosync") is not False]


def _sequence(line: Row, at: int) -> str:
    value = line.get("sequencenumber")
    if not isinstance(value, int):
        raise Unreadable("the line has no sequence number", f"$.lines[{at}].sequencenumber")
    return str(value)


def _number(line: Row, column: str, at: int) -> Decimal:
    value = line.get(column)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise Unreadable(f"{column} is no number: {value!r}", f"$.lines[{at}].{column}")
    return Decimal(value)


def _money(value: Json, currency: str, where: str) -> Money:
    try:
        return Money.rounded(Decimal(0) if value is None else value, currency)
    except ValueError as broken:
        raise Unreadable(str(broken), where) from None


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f")


def _moment(text: Json) -> datetime:
    """Read a timestamp; what has none happened at the beginning of time, so that an id never depends on now."""
    try:
        read = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _when(body: Body) -> datetime | None:
    match body:
        case Shipped(shipped_at=at):
            return at
        case Invoiced(invoiced_at=at):
            return at
        case NewOrder(draft):
            return draft.placed_at
    return None


def _id(system: System, number: str, body: Body) -> MessageId:
    """Return an id made of the content, the same whenever the same is told; a new order is told once."""
    kind = type(body).__name__.lower()
    match body:
        case NewOrder():
            return MessageId(f"{system}:{number}:{kind}")
        case Shipped(shipment=shipment):
            return MessageId(f"{system}:{number}:{kind}:{shipment}")
    content = json.dumps(attrs.asdict(body), default=_canonical, sort_keys=True)
    return MessageId(f"{system}:{number}:{kind}:{hashlib.sha256(content.encode()).hexdigest()[:16]}")


def _canonical(value: object) -> str:
    return _plain(value) if isinstance(value, Decimal) else str(value)


# --- orders that F&O created ---------------------------------------------------------------------------------


@attrs.frozen
class Names:
    """What the ids in an order's lookups stand for, by row id."""

    companies: Mapping[str, str]
    customers: Mapping[str, str]
    products: Mapping[str, str]
    units: Mapping[str, str]
    sites: Mapping[str, str]
    warehouses: Mapping[str, str]


def is_confirmed(header: Row) -> bool:
    """Say whether F&O has confirmed the order (or gone further): only then does it reach order orchestration."""
    return maps.LIFE_CYCLE.get(header.get("msdyn_processingstatus"), 0) >= maps.LIFE_CYCLE[192350001]


def new_order(rows: OrderRows, names: Names, system: System, settings: Settings) -> Message | Rejected:
    """Read an order F&O created; it is ready to sync, because it came over dual-write."""
    try:
        draft = _draft(rows, names, settings)
    except Unreadable as broken:
        return unreadable(rows.header, broken, system)
    body = NewOrder(draft)
    return Message(_id(system, rows.number, body), system, body, draft.placed_at, external_id=rows.number)


def _draft(rows: OrderRows, names: Names, settings: Settings) -> OrderDraft:
    header, currency = rows.header, rows.currency
    inclusive = header.get("msdyn_arepricesincludingsalestax") is True
    lines = tuple(
        _line_draft(line, at, names, currency, inclusive=inclusive) for at, line in enumerate(_synced(rows.lines))
    )
    total = _money(header.get("totalamount"), currency, "$.totalamount")
    shipping = _money(header.get("freightamount"), currency, "$.freightamount")
    discount = _money(header.get("discountamount"), currency, "$.discountamount")
    summed = sum((line.total for line in lines), Money.zero(currency))
    if summed + shipping - discount != total:
        what = f"lines {summed} + charges {shipping} - discount {discount} are not the total {total}"
        raise Unreadable(what, "$.totalamount")
    ship_to = Address(
        name=str(header.get("msdyn_deliveryaddressname") or header.get("shipto_name") or ""),
        street=str(header.get("shipto_line1") or ""),
        # Dual-write puts F&O's street number there.
        street2=str(header.get("shipto_line2") or ""),
        city=str(header.get("shipto_city") or ""),
        state=str(header.get("shipto_stateorprovince") or ""),
        postal_code=str(header.get("shipto_postalcode") or ""),
        country=_country(header.get("shipto_country"), settings),
        email=str(header.get("emailaddress") or ""),
    )
    bill_to = Address(
        street=str(header.get("billto_line1") or ""),
        city=str(header.get("billto_city") or ""),
        state=str(header.get("billto_stateorprovince") or ""),
        postal_code=str(header.get("billto_postalcode") or ""),
        # Copied as an ISO code, without the value map.
        country=str(header.get("billto_country") or ""),
        email=str(header.get("emailaddress") or ""),
    )
    wanted = header.get("requestdeliveryby")
    return OrderDraft(
        external_id=rows.number,
        currency=currency,
        total=total,
        lines=lines,
        placed_at=_moment(header.get("createdon")),
        shipping=shipping,
        handling=Money.zero(currency),
        discount=discount,
        ship_to=ship_to,
        bill_to=bill_to,
        customer=_named(header, "_customerid_value", names.customers, "$"),
        reference=str(header.get("msdyn_customersorderreference") or ""),
        requested_ship_date=date.fromisoformat(str(wanted)[:10]) if wanted else None,
        company=CompanyId(_named(header, "_msdyn_company_value", names.companies, "$").lower()),
        site=names.sites.get(str(header.get("_msdyn_defaultshippingsite_value"))),
        warehouse=names.warehouses.get(str(header.get("_msdyn_defaultshippingwarehouse_value"))),
        ready_to_sync=True,
    )


def _line_draft(line: Row, at: int, names: Names, currency: str, *, inclusive: bool) -> OrderLineDraft:
    where = f"$.lines[{at}]"
    tax = _money(line.get("tax"), currency, f"{where}.tax")
    total = _money(line.get("extendedamount"), currency, f"{where}.extendedamount")
    unit = names.units.get(str(line.get("_uomid_value")), "ea")
    return OrderLineDraft(
        external_id=_sequence(line, at),
        product=ProductId(_named(line, "_productid_value", names.products, where)),
        quantity=Quantity(_number(line, "quantity", at), unit),
        total=total if inclusive else total + tax,
        name=str(line.get("description") or ""),
        unit_price=_money(line.get("priceperunit"), currency, f"{where}.priceperunit"),
        tax=tax,
    )


def _named(row: Row, column: str, names: Mapping[str, str], where: str) -> str:
    found = names.get(str(row.get(column)))
    if found is None:
        raise Unreadable(f"{column} leads nowhere", f"{where}.{column}")
    return found


def _country(text: Json, settings: Settings) -> str:
    if not text:
        return ""
    code: str | None = settings.country_map().to_erp(str(text))
    if code is None:
        raise Unreadable(f"country {text!r} has no mapping in the dual-write value map", "$.shipto_country")
    return code.upper()
