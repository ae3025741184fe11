"""What we say to Flexe and what its answers mean, under whatever names a `FlexeProtocol` gives. No I/O.

Rules that hold whatever the real names are: only physical lines are asked for, and nothing counts as shipped unless a
status that is known says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import attrs
from returns.result import Failure, Result, Success

from iom_adapters.flexe.protocol import (
    ErrorMeaning,
    FlexeProtocol,
    Json,
    Meaning,
    Notice,
    put_at,
    read_time,
    value_at,
    write_time,
)
from iom_core.messages import Body, Canceled, LineQuantity, Message, Packed, Picked, Rejected, Shipped
from iom_core.order import FulfillmentOrder, OrderLine, SalesOrder
from iom_core.outcome import Refused
from iom_core.values import MessageId, System

LONGEST_NUMBER: Final = 200
"""Characters an outbound order's id may have; a longer one is no id."""

_ADDRESS: Final = (
    "name", "company", "street", "street2", "city", "state", "postal_code", "country", "phone", "email",
)  # fmt: skip
_LEFT: Final = (Meaning.PARTIALLY_SHIPPED, Meaning.SHIPPED)
_SHOWN: Final = 2_000


class BadRow(ValueError):
    """A piece of an answer that can't be read: *where* is its path, *what* is wrong with it."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


def digest(*parts: object) -> str:
    """Return a short, stable digest of what a message says, to make its id."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


# --- what is sent ------------------------------------------------------------------------------------------


def outbound_order(
    protocol: FlexeProtocol, order: SalesOrder, fulfillment_order: str, who: System
) -> Result[dict[str, Json], Refused]:
    """Write the request that creates one outbound order: the physical lines of one fulfillment order.

    Refused: a fulfillment order the order doesn't have, one without anything to ship, and one whose lines go to
    different addresses (an outbound order has one).
    """
    fo = order.fulfillment_order(fulfillment_order)
    if fo is None:
        what = f"order {order.id} has no fulfillment order {fulfillment_order!r}"
        return Failure(Refused("unknown-fulfillment-order", what, "$.fulfillment_orders", who=str(who)))
    wanted = _wanted(order, fo)
    place = f"$.fulfillment_orders[id={fo.id}].lines"
    if not wanted:
        return Failure(Refused("nothing-to-ship", "no physical line is left to ship", place, who=str(who)))
    addresses = {line.ship_to or order.ship_to for line, _ in wanted}
    if len(addresses) > 1:
        what = "its lines go to different addresses; make one fulfillment order per address"
        return Failure(Refused("several-addresses", what, place, who=str(who)))
    names, body = protocol.request, dict[str, Json]()
    for path, value in names.constants.items():
        put_at(body, path, value)
    (address,) = addresses
    texts: dict[str, Json] = {each: getattr(address, each) for each in _ADDRESS}
    texts |= {
        "reference": str(fo.id),
        "sales_order": str(order.id),
        "placed_at": write_time(order.placed_at, protocol.date_format),
        "requested_ship_date": order.requested_ship_date and order.requested_ship_date.isoformat(),
        "warehouse": fo.warehouse,
    }
    for name, value in texts.items():
        if value not in (None, ""):
            put_at(body, getattr(names, name), value)
    put_at(body, names.lines, [_line(protocol, line, quantity) for line, quantity in wanted])
    return Success(body)


def _wanted(order: SalesOrder, fo: FulfillmentOrder) -> list[tuple[OrderLine, Decimal]]:
    """Return the physical lines with what is left to ship of each, parts of one line together."""
    amounts: dict[str, Decimal] = {}
    for part in fo.lines:
        amounts[part.line] = amounts.get(part.line, Decimal(0)) + part.quantity - part.canceled
    lines = ((order.line(name), amount) for name, amount in amounts.items())
    return [(line, amount) for line, amount in lines if line is not None and not line.digital and amount > 0]


def _line(protocol: FlexeProtocol, line: OrderLine, quantity: Decimal) -> dict[str, Json]:
    names, row = protocol.request, dict[str, Json]()
    values: dict[str, Json] = {
        "line_reference": str(line.id),
        "line_sku": str(line.product),
        "line_quantity": write_quantity(protocol, quantity),
        "line_unit": line.ordered.unit,
        "line_name": line.name,
    }
    for name, value in values.items():
        if value != "":
            put_at(row, getattr(names, name), value)
    return row


def write_quantity(protocol: FlexeProtocol, quantity: Decimal) -> Json:
    """Write a quantity as a JSON number, whole where it is, or as text."""
    if protocol.quantities_as_text:
        return format(quantity.normalize(), "f")
    return int(quantity) if quantity == quantity.to_integral_value() else quantity


# --- what comes back ---------------------------------------------------------------------------------------


def text_of(row: Json, path: str, where: str = "$", *, needed: bool = True) -> str:
    """Read a text (or a whole number, as text); raises `BadRow` for anything else, and for nothing when *needed*."""
    value = value_at(row, path) if path else None
    if value in (None, ""):
        if needed:
            raise BadRow(f"{where}.{path}", "this field is missing")
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(f"{where}.{path}", f"text is needed, not {type(value).__name__}")
    return str(value)


def quantity_of(row: Json, path: str, where: str) -> Decimal:
    """Read a quantity above zero, from a number or a text; raises `BadRow`."""
    value = value_at(row, path)
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
            raise ValueError
        number = Decimal(value)
    except (ValueError, ArithmeticError):
        raise BadRow(f"{where}.{path}", f"a quantity is needed, not {type(value).__name__}") from None
    if not number.is_finite() or number <= 0 or abs(number.adjusted()) > 15:
        raise BadRow(f"{where}.{path}", f"{value} is no quantity that can be shipped")
    return number


def rows_of(row: Json, path: str, where: str = "$", *, needed: bool = False) -> list[tuple[str, Json]]:
    """Read an array of objects, each with its path; nothing there is an empty one unless *needed*. Raises `BadRow`."""
    value = value_at(row, path)
    spot = f"{where}.{path}" if path else where
    if value is None and not needed:
        return []
    if not isinstance(value, list):
        raise BadRow(spot, f"an array is needed, not {type(value).__name__}")
    for index, each in enumerate(value):
        if not isinstance(each, Mapping):
            raise BadRow(f"{spot}[{index}]", f"an object is needed, not {type(each).__name__}")
    return [(f"{spot}[{index}]", each) for index, each in enumerate(value)]


def is_number(text: str) -> bool:
    """Say whether *text* can be an outbound order's id: printable, not too long, and no step in a path."""
    return 0 < len(text) <= LONGEST_NUMBER and text.isprintable() and text not in (".", "..")


def order_row(protocol: FlexeProtocol, answer: Json) -> Json:
    """Return the outbound order's object in the answer to create or read; raises `BadRow`."""
    row = value_at(answer, protocol.answer.order)
    if not isinstance(row, Mapping):
        raise BadRow(f"$.{protocol.answer.order}".rstrip("."), "an object is needed")
    return row


def number_of(protocol: FlexeProtocol, row: Json) -> str:
    """Return the outbound order's id; raises `BadRow`."""
    number = text_of(row, protocol.answer.number)
    if not is_number(number):
        raise BadRow(f"$.{protocol.answer.number}", "this is no id of an outbound order")
    return number


def meaning_of(protocol: FlexeProtocol, row: Json) -> Meaning | None:
    """Return what the order's status means, ``None`` for one we don't know; raises `BadRow` when there is none."""
    return protocol.statuses.get(text_of(row, protocol.answer.status))


def found(protocol: FlexeProtocol, answer: Json, reference: str) -> list[str]:
    """Return the ids of the outbound orders in a look-up's *answer* that carry exactly our *reference*.

    Raises `BadRow` when one that may be ours can't be read: reporting it absent would send it twice.
    """
    assert protocol.find is not None  # noqa: S101 - asked only of protocols that declare it
    value = value_at(answer, protocol.find.items)
    rows = [("$", value)] if isinstance(value, Mapping) else rows_of(answer, protocol.find.items, needed=True)
    return sorted(
        {
            number_of(protocol, row)
            for where, row in rows
            if text_of(row, protocol.answer.reference, where, needed=False) == reference
        }
    )


def problem(protocol: FlexeProtocol, status: int, answer: Json) -> tuple[ErrorMeaning, str, str]:
    """Return what a 4xx *answer* means, its code (``""``: none), and its message, shortened."""
    code = value_at(answer, protocol.error.code) if protocol.error.code else None
    said = value_at(answer, protocol.error.message) if protocol.error.message else None
    name = str(code) if isinstance(code, (str, int)) else ""
    default = ErrorMeaning.UNAVAILABLE if status in (408, 425) else ErrorMeaning.REFUSED
    meaning = protocol.errors.get(name) or protocol.errors.get(f"http {status}") or default
    message = said if isinstance(said, str) and said else f"answered {status}"
    return meaning, name[:100], message[:500]


@attrs.frozen
class Teller:
    """Turns outbound orders into messages; ids depend on content only, so that a repeat has the same one."""

    system: System
    protocol: FlexeProtocol

    def tell(self, number: str, row: Json, now: datetime) -> tuple[Message | Rejected, ...]:
        """Say what has happened to outbound order *number*, as its *row* has it now: everything, every time.

        Shipments are told one by one: those whose own status says that they left, or, where shipments have none, those
        of an order whose status says so. An unknown status is one `Rejected` per order (or shipment) and status, and
        tells nothing else. A shipment that can't be read is one `Rejected` and stops no other.
        """
        try:
            status = text_of(row, self.protocol.answer.status)
            meaning = self.protocol.statuses.get(status)
            if meaning is None:
                where = f"$.{self.protocol.answer.status}"
                what = f"outbound order {number} has the status {status[:100]!r}, which the {self.protocol.mark} lacks"
                return (self._rejected(number, f"status/{digest(status)}", what, where, row),)
            lines = self._lines(row)
        except BadRow as broken:
            return (self._unreadable(number, broken, row),)
        told = list(self._shipments(number, row, lines, meaning, now))
        totals = tuple(LineQuantity(name, line.quantity) for name, line in sorted(lines.items()) if line.quantity > 0)
        tail = f"{meaning}/{digest(*lines, *totals)}"
        if meaning in (Meaning.PICKED, Meaning.PACKED) and totals:
            body = Picked(totals) if meaning is Meaning.PICKED else Packed(totals)
            told.append(self._message(number, tail, body, now))
        elif meaning is Meaning.CANCELED and not any(isinstance(each, Rejected) for each in told):
            # By line, because the sales order may have other fulfillment orders; and only once it is clear what left.
            told.append(self._message(number, tail, Canceled(tuple(sorted(lines)), "canceled in Flexe"), now))
        return (*told, *self._short(number, row, lines, meaning, told))

    def unreadable(self, number: str, what: str, where: str = "$") -> Rejected:
        """Report an outbound order of which nothing can be read."""
        return self._rejected(number, f"unreadable/{digest(what, where)}", what, where, {})

    def _message(self, number: str, tail: str, body: Body, at: datetime) -> Message:
        return Message(MessageId(f"{self.system}/{number}/{tail}"), self.system, body, at, external_id=number)

    def _rejected(self, number: str, tail: str, what: str, where: str, row: Json) -> Rejected:
        shown = json.dumps(row, default=str, ensure_ascii=True)[:_SHOWN]
        return Rejected(MessageId(f"{self.system}/{number}/rejected/{tail}"), self.system, what, where, number, shown)

    def _unreadable(self, number: str, broken: BadRow, row: Json) -> Rejected:
        shown = json.dumps(row, default=str, ensure_ascii=True)[:_SHOWN]
        what = f"outbound order {number} can't be read: {broken.what}"
        return self._rejected(number, digest(broken.where, broken.what, shown), what, broken.where, row)

    def _lines(self, row: Json) -> dict[str, _Line]:
        names = self.protocol.answer
        lines: dict[str, _Line] = {}
        for where, each in rows_of(row, names.lines, needed=True):
            reference = text_of(each, names.line_reference, where)
            if reference in lines:
                raise BadRow(f"{where}.{names.line_reference}", f"two lines have the reference {reference[:50]!r}")
            quantity = quantity_of(each, names.line_quantity, where) if names.line_quantity else Decimal(0)
            lines[reference] = _Line(text_of(each, names.line_sku, where, needed=False), quantity)
        if not lines:
            raise BadRow(f"$.{names.lines}", "an outbound order has lines")
        return lines

    def _shipments(
        self, number: str, row: Json, lines: Mapping[str, _Line], meaning: Meaning, now: datetime
    ) -> Iterator[Message | Rejected]:
        """Yield each shipment that has left, oldest first; SKUs are laid on lines in that order."""
        names = self.protocol.answer
        try:
            rows = rows_of(row, names.shipments)
        except BadRow as broken:
            yield self._unreadable(number, broken, row)
            return
        if not names.shipment_status and meaning is Meaning.CANCELED and rows:
            what = f"outbound order {number} is canceled and has shipments; whether they left, only a person can tell"
            yield self._rejected(number, "canceled with shipments", what, f"$.{names.shipments}", row)
        left: list[tuple[datetime, str, Shipped]] = []
        rest = None if names.shipment_line_reference else _Rest(lines)
        for where, each in rows:
            try:
                shipment = text_of(each, names.shipment_id, where)
                if names.shipment_status:
                    status = text_of(each, names.shipment_status, where)
                    if status not in self.protocol.shipment_statuses:
                        what = f"shipment {shipment[:100]} has the status {status[:100]!r}, which the"
                        what, spot = f"{what} {self.protocol.mark} lacks", f"{where}.{names.shipment_status}"
                        yield self._rejected(number, f"shipment/{digest(shipment, status)}", what, spot, each)
                        continue
                    if self.protocol.shipment_statuses[status] is not Meaning.SHIPPED:
                        continue
                elif meaning not in _LEFT:
                    continue
                left.append(self._parcel(shipment, each, where, row, now))
            except BadRow as broken:
                yield self._unreadable(number, broken, each)
        for at, shipment, parcel in sorted(left, key=lambda each: each[:2]):
            body = parcel if rest is None else attrs.evolve(parcel, lines=rest.place(parcel.lines))
            said = digest(body.lines, body.tracking_number, body.tracking_url, body.carrier, body.service)
            yield self._message(number, f"shipped/{shipment}/{said}", body, at)

    def _parcel(self, shipment: str, each: Json, where: str, row: Json, now: datetime) -> tuple[datetime, str, Shipped]:
        names = self.protocol.answer
        by = names.shipment_line_reference or names.shipment_line_sku
        contents: dict[str, Decimal] = {}
        for spot, content in rows_of(each, names.shipment_lines, where, needed=True):
            line = text_of(content, by, spot)
            contents[line] = contents.get(line, Decimal(0)) + quantity_of(content, names.shipment_line_quantity, spot)
        if not contents:
            raise BadRow(f"{where}.{names.shipment_lines}", f"shipment {shipment[:100]} holds nothing")
        said, at = value_at(each, names.shipped_at) if names.shipped_at else None, now
        if said is not None:
            try:
                at = read_time(said, self.protocol.date_format)
            except ValueError as broken:
                raise BadRow(f"{where}.{names.shipped_at}", str(broken)) from None
        parcel = Shipped(
            shipment=shipment,
            lines=tuple(LineQuantity(line, amount) for line, amount in sorted(contents.items())),
            shipped_at=at,
            tracking_number=text_of(each, names.tracking_number, where, needed=False),
            carrier=text_of(each, names.carrier, where, needed=False),
            service=text_of(each, names.service, where, needed=False),
            tracking_url=text_of(each, names.tracking_url, where, needed=False),
            warehouse=text_of(row, names.warehouse, needed=False),
        )
        return at, shipment, parcel

    def _short(
        self,
        number: str,
        row: Json,
        lines: Mapping[str, _Line],
        meaning: Meaning,
        told: Sequence[Message | Rejected],
    ) -> Iterator[Rejected]:
        """Report an order that is said to be shipped whole while its shipments hold less: nobody guesses the rest."""
        if meaning is not Meaning.SHIPPED:
            return
        bodies = [each.body for each in told if isinstance(each, Message)]
        parts = [part for each in bodies if isinstance(each, Shipped) for part in each.lines]
        shipped = sum((part.quantity for part in parts), Decimal(0))
        ordered = sum((line.quantity for line in lines.values()), Decimal(0))
        if shipped == 0 or shipped < ordered:
            what = f"outbound order {number} is said to be shipped, its readable shipments hold {shipped} of {ordered}"
            where = f"$.{self.protocol.answer.shipments}"
            yield self._rejected(number, f"short/{digest(shipped, ordered)}", what, where, row)


@attrs.frozen
class _Line:
    sku: str
    quantity: Decimal


class _Rest:
    """What is left to ship of each line, for shipments that name SKUs: two lines may share one."""

    def __init__(self, lines: Mapping[str, _Line]) -> None:
        self._lines = lines
        self._left = {reference: line.quantity for reference, line in lines.items()}

    def place(self, contents: Sequence[LineQuantity]) -> tuple[LineQuantity, ...]:
        """Lay SKUs on the lines that have them, in the order's own sequence; what is too much stays on the last."""
        placed: dict[str, Decimal] = {}
        for content in contents:
            spots = [reference for reference, line in self._lines.items() if line.sku == content.line]
            amount = content.quantity
            for reference in spots:
                share = min(amount, self._left[reference])
                self._left[reference] -= share
                amount -= share
                placed[reference] = placed.get(reference, Decimal(0)) + share
            if amount > 0:
                last = spots[-1] if spots else content.line
                placed[last] = placed.get(last, Decimal(0)) + amount
        return tuple(LineQuantity(reference, amount) for reference, amount in sorted(placed.items()) if amount > 0)


def hinted(protocol: FlexeProtocol, body: Json) -> tuple[str, ...]:
    """Return the outbound order a webhook's *body* names, or nothing for an event that has none; raises `BadRow`."""
    assert protocol.webhook is not None  # noqa: S101 - asked only of protocols that declare it
    names = protocol.webhook
    if not isinstance(body, Mapping):
        raise BadRow("$", "an object is needed")
    event = text_of(body, names.event)
    if names.events.get(event, Notice.ORDER) is Notice.IGNORED:
        return ()
    number = text_of(body, names.number)
    if not is_number(number):
        raise BadRow(f"$.{names.number}", "this is no id of an outbound order")
    return (number,)
