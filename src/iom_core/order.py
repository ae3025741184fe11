"""The sales order aggregate: everything that can change an order is a method here, and nowhere else.

Every change returns a `Change` (the new order, what happened) or a `Refused`; a refusal changes nothing. Time is an
argument. Quantities that count progress are `Decimal`s in the line's own unit.

The records are ``slots=False`` on purpose: a copy with a few changes is then three times as fast, and copying is
most of what an immutable order does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final, TypeVar

import attrs
from returns.result import Failure, Result, Success

from iom_core import events as ev
from iom_core.lifecycle import BUILT_IN, StateFramework, StateTable, Status, illegal
from iom_core.messages import LineQuantity, OrderDraft, Sourced
from iom_core.outcome import Refused
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


@attrs.frozen(slots=False)
class ExternalId:
    """How an outside *system* calls one of our records. *entity* is ``"order"``, ``"order line"``,
    ``"fulfillment order"`` or ``"shipment"``; *record* is our id, *id* theirs.
    """

    system: System
    entity: str
    record: str
    id: str


@attrs.frozen(slots=False)
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


@attrs.frozen(slots=False)
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


@attrs.frozen(slots=False)
class FulfillmentOrder:
    """What one source is asked to ship, by one provider."""

    id: FulfillmentOrderId
    provider: System
    status: Status
    lines: tuple[FulfillmentLine, ...]
    source: SourceId | None = None
    site: str | None = None
    warehouse: str | None = None


@attrs.frozen(slots=False)
class TrackingLine:
    """How much of a fulfillment line is in a shipment."""

    fulfillment_order: FulfillmentOrderId
    fulfillment_line: str
    line: LineId
    quantity: Decimal


@attrs.frozen(slots=False)
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


@attrs.frozen(slots=False)
class InvoiceLine:
    """How much of an order line an invoice covers."""

    line: LineId
    quantity: Decimal


@attrs.frozen(slots=False)
class Invoice:
    """A posted invoice, as the accounting system numbered it."""

    number: str
    system: System
    total: Money
    invoiced_at: datetime
    lines: tuple[InvoiceLine, ...]


@attrs.frozen(slots=False)
class Hold:
    """Why the order must wait, and since when (for example *credit hold*)."""

    name: str
    why: str
    since: datetime


@attrs.frozen(slots=False)
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


@attrs.frozen(slots=False)
class ParkedMessage:
    """A message that came too early: tried again after each change, reported when it never becomes legal."""

    id: MessageId
    since: datetime
    why: str
    message: str
    """The whole message, as `iom_core.codec` writes it."""


@attrs.frozen(slots=False)
class Moment:
    """One entry of the order's own timeline: an event on the header and the status it led to."""

    at: datetime
    event: str
    state: str
    reason: str


@attrs.frozen(slots=False)
class CustomRecord:
    """A record of a user's own entity that belongs to the order and has states of its own."""

    entity: str
    id: str
    status: Status
    fields: tuple[tuple[str, str], ...] = ()


@attrs.frozen(slots=False)
class StepRun:
    """Where one step stands for this order, or for one *record* of it.

    *state* is ``"waiting"`` (a command is out), ``"done"``, ``"failed"``, ``"skipped"`` (its filter policy did not
    hold), ``"not taken"`` (its path was not chosen) or ``"again"`` (to be run once more); *occasion* counts its runs,
    *attempt* the tries of the last one; *branch* is the path a condition chose.
    """

    step: str
    state: str
    occasion: int = 1
    attempt: int = 1
    branch: str = ""
    record: str = ""


@attrs.frozen(slots=False)
class FlowRun:
    """The order's way through one orchestration flow; it keeps the flow version it started with."""

    flow: str
    version: int
    steps: tuple[StepRun, ...] = ()
    seen: tuple[tuple[str, int], ...] = ()
    """How often each business event was raised since the flow started."""


@attrs.frozen(slots=False)
class Happened:
    """A business event that was raised on a record of the order, and the status after it."""

    at: datetime
    event: str
    entity: str
    record: str
    state: str
    reason: str


@attrs.frozen(slots=False)
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


@attrs.frozen(slots=False)
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


@attrs.frozen(slots=False)
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
            (
                each.id
                for each in self.externals
                if each.system == system and each.entity == entity and each.record == wanted
            ),
            None,
        )

    def by_external(self, system: System, external_id: str, entity: str = ev.LINE) -> str | None:
        """Return our id of the record *system* calls *external_id*."""
        for each in self.externals:
            if each.id == external_id and each.system == system and each.entity == entity:
                return each.record
        return None

    def fulfillment_order(self, fulfillment_order_id: str) -> FulfillmentOrder | None:
        """Return the fulfillment order of that id."""
        return next((each for each in self.fulfillment_orders if each.id == fulfillment_order_id), None)

    def shipped(self, line_id: str) -> Decimal:
        """Return how much of a line has left, in its unit."""
        return sum(
            (each.shipped for fo in self.fulfillment_orders for each in fo.lines if each.line == line_id), Decimal(0)
        )

    @property
    def invoiced_total(self) -> Money:
        """Return the sum of the posted invoices."""
        return sum((each.total for each in self.invoices), Money.zero(self.currency))

    # -- changes that carry business meaning ---------------------------------------------------------------

    def raise_event(
        self,
        event: str,
        at: datetime,
        *,
        entity: str = ev.ORDER,
        record: str = "",
        states: StateFramework = BUILT_IN,
    ) -> Result[Change, Refused]:
        """Raise a business event on the order or one of its records; illegal ones are refused (and early)."""
        edit = _Edit(self, at, states)
        if entity == ev.ORDER:
            return edit.finish(edit.on_order(event))
        if entity == ev.LINE:
            index = next((i for i, line in enumerate(self.lines) if line.id == record), None)
            return edit.finish(_unknown("line", record) if index is None else edit.on_line(index, event))
        if entity == ev.FULFILLMENT_ORDER:
            index = next((i for i, each in enumerate(self.fulfillment_orders) if each.id == record), None)
            return edit.finish(_unknown(entity, record) if index is None else edit.on_fulfillment_order(index, event))
        if entity == ev.FULFILLMENT_LINE:
            spot = next(
                (
                    (number, place)
                    for number, fo in enumerate(self.fulfillment_orders)
                    for place, each in enumerate(fo.lines)
                    if f"{fo.id}/{each.id}" == record
                ),
                None,
            )
            return edit.finish(_unknown(entity, record) if spot is None else edit.on_fulfillment_line(*spot, event))
        return edit.finish(edit.on_custom(entity, record, event))

    def raise_on_lines(
        self,
        event: str,
        at: datetime,
        *,
        lines: Collection[str] | None = None,
        order_event: str = "",
        states: StateFramework = BUILT_IN,
    ) -> Result[Change, Refused]:
        """*Raise lines and aggregated order events*: raise *event* on the lines (``None``: all that go on), then
        *order_event* (``""``: the same) on the order if all its lines that go on now have one status.

        Lines that are canceled or held don't go on, and don't keep the others back (ours: the product's text
        speaks of all lines, which would leave a partly backordered order without a state).
        """
        edit = _Edit(self, at, states)
        refused: Refused | None = None
        for index, line in enumerate(edit.lines):
            wanted = line.id in lines if lines is not None else not edit.off(line)
            if wanted and refused is None:
                refused = edit.on_line(index, event)
        if refused is None and edit.same_status():
            refused = edit.on_order(order_event or event)
        return edit.finish(refused)

    def assign(
        self, values: Mapping[str, object], line_id: str = "", *, manual: bool = False
    ) -> Result[Change, Refused]:
        """Set fields of the order, or of one line. *manual* changes are refused where the state is read-only."""
        if not line_id:
            if manual and BUILT_IN.order.read_only(self.status):
                return Failure(_read_only("$", self.status))
            return Success(Change(_with(self, **values), ()))
        lines = list(self.lines)
        for index, line in enumerate(lines):
            if line.id == line_id:
                if manual and BUILT_IN.line.read_only(line.status):
                    return Failure(_read_only(f"$.lines[{index}]", line.status))
                lines[index] = _with(line, **values)
                return Success(Change(_with(self, lines=tuple(lines)), ()))
        return Failure(_unknown("line", line_id))

    def create_fulfillment_orders(
        self,
        provider: System,
        at: datetime,
        *,
        sourced: Sequence[Sourced] | None = None,
        digital: bool = True,
        per_address: bool = False,
        states: StateFramework = BUILT_IN,
    ) -> Result[Change, Refused]:
        """Create one fulfillment order per source for what is not in one yet, to be shipped by *provider*.

        With *sourced*, what goes where was decided by an optimizer, and lines it leaves out stay out. Without, each
        open line goes whole to its own source or warehouse; ``digital=False`` leaves digital lines out,
        ``per_address=True`` makes one per source and ship-to address, for providers that ship each to one place.
        """
        edit = _Edit(self, at, states)
        if sourced is None:
            taken = {each.line for fo in self.fulfillment_orders for each in fo.lines}
            sourced = [
                Sourced(
                    line.id,
                    SourceId(line.source or line.warehouse or provider),
                    line.quantity,
                    line.site or "",
                    line.warehouse or "",
                )
                for line in self.lines
                if line.id not in taken and not edit.off(line) and line.quantity > 0 and (digital or not line.digital)
            ]
        index_of = {line.id: index for index, line in enumerate(self.lines)}
        groups: dict[tuple[SourceId, Address | None], list[Sourced]] = {}
        for each in sourced:
            place = index_of.get(LineId(each.line)) if per_address else None
            groups.setdefault((each.source, None if place is None else self.lines[place].ship_to), []).append(each)
        refused: Refused | None = None
        touched: dict[int, None] = {}
        planned: dict[LineId, Decimal] = {}
        for fo in self.fulfillment_orders:
            for row in fo.lines:
                planned[row.line] = planned.get(row.line, _ZERO) + row.quantity - row.canceled
        for (source, _), parts in groups.items():
            number = len(edit.fulfillment_orders) + 1
            lines: list[FulfillmentLine] = []
            for part in parts:
                index = index_of.get(LineId(part.line))
                if index is None:
                    return Failure(_unknown("line", part.line))
                line_id = edit.lines[index].id
                planned[line_id] = planned.get(line_id, _ZERO) + part.quantity
                if part.quantity <= 0 or planned[line_id] > edit.lines[index].quantity:
                    return Failure(
                        Refused(
                            "more-than-ordered",
                            f"{planned[line_id]} of line {part.line} would be sourced, "
                            f"{edit.lines[index].quantity} are wanted",
                            f"$.lines[{index}].quantity",
                        )
                    )
                lines.append(
                    FulfillmentLine(
                        str(len(lines) + 1), LineId(part.line), part.quantity, states.fulfillment_line.initial
                    )
                )
                placed: dict[str, object] = {"source": source}
                if part.site:
                    placed["site"] = part.site
                if part.warehouse:
                    placed["warehouse"] = part.warehouse
                edit.lines[index] = _with(edit.lines[index], **placed)
                touched[index] = None
            edit.fulfillment_orders.append(
                FulfillmentOrder(
                    FulfillmentOrderId(f"{self.id}-F{number}"),
                    provider,
                    states.fulfillment_order.initial,
                    tuple(lines),
                    source,
                    parts[0].site or None,
                    parts[0].warehouse or None,
                )
            )
            edit.rows.append(lines)
            refused = refused or edit.on_fulfillment_order(number - 1, ev.FULFILLMENT_CREATED)
            for place in range(len(lines)):
                refused = refused or edit.on_fulfillment_line(number - 1, place, ev.FULFILLMENT_LINE_CREATED)
        for index in touched:
            refused = refused or edit.on_line(index, ev.FULFILLMENT_CREATED)
        if touched:
            refused = refused or edit.on_order(ev.FULFILLMENT_CREATED, self._progressed())
        return edit.finish(refused)

    def not_sourced(
        self, event: str, at: datetime, *, lines: Collection[str], states: StateFramework = BUILT_IN
    ) -> Result[Change, Refused]:
        """Hold lines for which no stock was found; the header follows when nothing of the order goes on.

        Lines already held for the same reason are left as they are, so that a job may try again and again.
        """
        edit = _Edit(self, at, states)
        refused: Refused | None = None
        for index, line in enumerate(self.lines):
            if line.id in lines and states.line.advance(line.status, event) != line.status:
                refused = refused or edit.on_line(index, event)
        nothing_on = all(edit.off(line) for line in edit.lines)
        if edit.happened and nothing_on and states.order.advance(edit.status, event) != edit.status:
            refused = refused or edit.on_order(event)
        return edit.finish(refused)

    def sent(
        self,
        event: str,
        at: datetime,
        *,
        provider: System,
        line_errors: Mapping[str, str] | None = None,
        only: str = "",
        states: StateFramework = BUILT_IN,
    ) -> Result[Change, Refused]:
        """Raise *event* (sent, not sent, in doubt) on the provider's fulfillment orders that haven't started, their
        lines, the order lines, and the order. Lines in *line_errors* are held with that Sync Error instead.
        *only* names one fulfillment order.
        """
        errors = line_errors or {}
        edit = _Edit(self, at, states)
        refused: Refused | None = None
        concerned: dict[LineId, None] = {}
        for number, fo in enumerate(self.fulfillment_orders):
            if fo.provider != provider or (only and fo.id != only) or states.fulfillment_order.is_final(fo.status):
                continue
            # What the provider has taken already stays taken, whatever becomes of a later attempt.
            taken = [
                each.picked > 0 or (each.status.reason == ev.SENT_TO_FULFILLMENT and each.line not in errors)
                for each in fo.lines
            ]
            waiting = [
                place
                for place, each in enumerate(fo.lines)
                if not taken[place] and each.shipped == 0 and each.canceled < each.quantity
            ]
            for place in waiting:
                line_id = fo.lines[place].line
                refused = refused or edit.on_fulfillment_line(
                    number, place, ev.LINE_NOT_SYNCED if line_id in errors else event
                )
                concerned[line_id] = None
            if waiting:
                every = all(fo.lines[place].line in errors for place in waiting)
                progressed = any(each.picked > 0 for each in fo.lines)
                stay = progressed or (any(taken) and (every or event != ev.SENT))
                refused = refused or edit.on_fulfillment_order(number, ev.LINE_NOT_SYNCED if every else event, stay)
        for index, line in enumerate(self.lines):
            if line.id in concerned and not states.line.is_final(line.status):
                error = errors.get(line.id, "")
                if error != line.sync_error:
                    edit.lines[index] = _with(line, sync_error=error)
                refused = refused or edit.on_line(index, ev.LINE_NOT_SYNCED if error else event)
        if any(line_id not in errors for line_id in concerned):
            # Like a line that fails, a fulfillment order that fails does not keep the rest of the order back.
            others_go_on = event != ev.SENT and any(
                line.id not in concerned and line.status.state == ev.IN_FULFILLMENT for line in self.lines
            )
            refused = refused or edit.on_order(event, self._progressed() or others_go_on)
        elif concerned and event != ev.SENT:
            refused = refused or edit.on_order(
                event, self._progressed() or any(not edit.off(each) for each in edit.lines)
            )
        return edit.finish(refused)

    def _progressed(self) -> bool:
        return any(each.picked > 0 for fo in self.fulfillment_orders for each in fo.lines)

    def pick(
        self, system: System, lines: Sequence[LineQuantity], at: datetime, states: StateFramework = BUILT_IN
    ) -> Result[Change, Refused]:
        """Record totals picked so far. Less than is known already changes nothing."""
        return self._progress(_PICK, system, lines, at, states)

    def pack(
        self, system: System, lines: Sequence[LineQuantity], at: datetime, states: StateFramework = BUILT_IN
    ) -> Result[Change, Refused]:
        """Record totals packed so far. Less than is known already changes nothing."""
        return self._progress(_PACK, system, lines, at, states)

    def _progress(
        self, stage: int, system: System, lines: Sequence[LineQuantity], at: datetime, states: StateFramework
    ) -> Result[Change, Refused]:
        edit = _Edit(self, at, states)
        for place, said in enumerate(lines):
            found = edit.fulfillment_lines(system, said, place)
            if isinstance(found, Refused):
                return Failure(found)
            if not found:
                continue
            left = said.quantity
            for number, index in found:
                each = edit.rows[number][index]
                share = min(left, each.quantity - each.canceled)
                left -= share
                edit.reach(number, index, stage, share)
            if left > 0:
                return Failure(_too_much(_STAGES[stage], said, place))
        return edit.finish(edit.announce(stage))

    def ship(
        self,
        system: System,
        shipment: str,
        lines: Sequence[LineQuantity],
        at: datetime,
        *,
        shipped_at: datetime | None = None,
        tracking_number: str = "",
        carrier: str = "",
        service: str = "",
        tracking_url: str = "",
        warehouse: str = "",
        cost: Money | None = None,
        states: StateFramework = BUILT_IN,
    ) -> Result[Change, Refused]:
        """Record one shipment, once: the same *shipment* id of the same system again changes nothing.

        What ships counts as picked and packed. More than is open is refused.
        """
        known = next((each for each in self.shipments if each.id == shipment and each.system == system), None)
        edit = _Edit(self, at, states)
        said_of: dict[LineId, Decimal] = {}
        parts: list[TrackingLine] = []
        echoes = 0
        for place, said in enumerate(lines):
            found = edit.fulfillment_lines(system, said, place, warehouse)
            if isinstance(found, Refused):
                return Failure(found)
            if not found:
                echoes += 1
                continue
            if known is not None:
                line = edit.rows[found[0][0]][found[0][1]].line
                said_of[line] = said_of.get(line, Decimal(0)) + said.quantity
                continue
            left = said.quantity
            for number, index in found:
                each = edit.rows[number][index]
                share = min(left, each.quantity - each.canceled - each.shipped)
                if share > 0:
                    left -= share
                    edit.reach(number, index, _SHIP, each.shipped + share)
                    parts.append(TrackingLine(edit.fulfillment_orders[number].id, each.id, each.line, share))
            if left > 0:
                return Failure(_too_much("shipped", said, place))
        if known is not None:
            for line, now in said_of.items():
                before = sum((each.quantity for each in known.lines if each.line == line), Decimal(0))
                if before != now:
                    return Failure(
                        Refused(
                            "shipment-differs",
                            f"shipment {shipment} was {before} of line {line} before, now {now}",
                            "$.lines",
                        )
                    )
        if known is not None or (echoes and not parts):
            return Success(Change(self, ()))
        if not parts:
            return Failure(Refused("nothing-shipped", f"shipment {shipment} holds nothing", "$.lines"))
        edit.more["shipments"] = (
            *self.shipments,
            Shipment(
                shipment,
                system,
                _utc(shipped_at or at),
                tuple(parts),
                tracking_number,
                carrier,
                service,
                tracking_url,
                cost,
            ),
        )
        return edit.finish(edit.announce(_SHIP))

    def invoice(
        self,
        system: System,
        number: str,
        lines: Sequence[LineQuantity],
        total: Money,
        at: datetime,
        *,
        invoiced_at: datetime | None = None,
        states: StateFramework = BUILT_IN,
    ) -> Result[Change, Refused]:
        """Record one posted invoice, once. What was not shipped can't be invoiced yet: refused as early."""
        parts: list[InvoiceLine] = []
        edit = _Edit(self, at, states)
        if total.currency != self.currency:
            return Failure(
                Refused("currency", f"invoice {number} is in {total.currency}, the order in {self.currency}", "$.total")
            )
        known = next((each for each in self.invoices if each.number == number and each.system == system), None)
        for place, said in enumerate(lines):
            index = edit.line_index(system, said.line)
            if index is None:
                return Failure(_unknown("line", said.line, f"$.lines[{place}].line"))
            line = edit.lines[index]
            parts.append(InvoiceLine(line.id, said.quantity))
            if known is not None:
                continue
            if line.invoiced + said.quantity > line.quantity or said.quantity <= 0:
                return Failure(_too_much("invoiced", said, place))
            edit.lines[index] = _with(line, invoiced=line.invoiced + said.quantity)
        if known is not None:
            if known.total == total and _invoiced_per_line(known.lines) == _invoiced_per_line(parts):
                return Success(Change(self, ()))
            return Failure(
                Refused("invoice-differs", f"invoice {number} was {known.total} before, now {total}", "$.total")
            )
        if not parts:
            return Failure(Refused("nothing-invoiced", f"invoice {number} has no lines", "$.lines"))
        for place, part in enumerate(parts):
            line = edit.lines[edit.index_of(part.line)]
            shipped = self.shipped(line.id)
            needs_shipping = not line.digital or any(
                f.line == line.id for fo in self.fulfillment_orders for f in fo.lines
            )
            if needs_shipping and line.invoiced > shipped:
                return Failure(
                    Refused(
                        "invoiced-before-shipped",
                        f"{line.invoiced} of line {line.id} are invoiced, {shipped} have shipped",
                        f"$.lines[{place}].quantity",
                        early=True,
                    )
                )
        edit.more["invoices"] = (*self.invoices, Invoice(number, system, total, _utc(invoiced_at or at), tuple(parts)))
        return edit.finish(edit.announce(_INVOICE))

    def cancel(
        self, at: datetime, *, lines: Collection[str] = (), states: StateFramework = BUILT_IN
    ) -> Result[Change, Refused]:
        """Cancel the order (no *lines*) or some lines. Legal until a line is in fulfillment; a line of which a provider
        may already know (sending in doubt) counts as in fulfillment.
        """
        for line_id in lines:
            if self.line(line_id) is None:
                return Failure(_unknown("line", line_id))
        if states.order.is_final(self.status):
            return Failure(illegal(ev.ORDER, ev.ORDER_CANCELED, self.status))
        for index, line in enumerate(self.lines):
            if lines and line.id not in lines:
                continue
            if line.status.state == ev.IN_FULFILLMENT or line.status.reason == ev.SENDING_IN_DOUBT:
                return Failure(
                    Refused(
                        "in-fulfillment",
                        f"line {line.id} is in fulfillment ({line.status.reason}) and can't be canceled",
                        f"$.lines[{index}]",
                    )
                )
            if lines and states.line.is_final(line.status):
                return Failure(illegal(ev.LINE, ev.ORDER_CANCELED, line.status, f"$.lines[{index}]"))
        return self._cancel(at, lines, states)

    def canceled_by(
        self,
        system: System,
        at: datetime,
        *,
        lines: Collection[str] = (),
        fulfillment_order: str = "",
        states: StateFramework = BUILT_IN,
    ) -> Result[Change, Refused]:
        """Record that *system* canceled the order (no *lines*) or some lines (its names for them).

        What has shipped stays shipped; only the rest is canceled. With *fulfillment_order* (ours), only what that one
        was to ship.
        """
        edit = _Edit(self, at, states)
        ours: list[str] = []
        for place, said in enumerate(lines):
            index = edit.line_index(system, said)
            if index is None:
                return Failure(_unknown("line", said, f"$.lines[{place}]"))
            ours.append(self.lines[index].id)
        if states.order.is_final(self.status):
            if self.status.state == ev.CANCELED:
                return Success(Change(self, ()))
            return Failure(Refused("already-completed", "the order is completed and can't be canceled", "$.status"))
        return self._cancel(at, ours, states, fulfillment_order)

    def _cancel(
        self, at: datetime, lines: Collection[str], states: StateFramework, only: str = ""
    ) -> Result[Change, Refused]:
        edit = _Edit(self, at, states)
        refused: Refused | None = None
        less: dict[LineId, Decimal] = {}
        for number, fo in enumerate(self.fulfillment_orders):
            if only and fo.id != only:
                continue
            for place, each in enumerate(fo.lines):
                if (not lines or each.line in lines) and each.shipped + each.canceled < each.quantity:
                    less[each.line] = less.get(each.line, _ZERO) + each.quantity - each.shipped - each.canceled
                    edit.set_line(number, place, canceled=each.quantity - each.shipped)
                    if each.shipped == 0:
                        refused = refused or edit.on_fulfillment_line(number, place, ev.ORDER_CANCELED)
            rows = edit.rows[number]
            if number in edit.changed and all(each.shipped == 0 and each.canceled == each.quantity for each in rows):
                refused = refused or edit.on_fulfillment_order(number, ev.ORDER_CANCELED)
        for index, line in enumerate(self.lines):
            if (lines and line.id not in lines) or (only and line.id not in less) or states.line.is_final(line.status):
                continue
            rest = line.ordered.amount - max(self.shipped(line.id), line.invoiced)
            edit.lines[index] = _with(line, canceled=line.canceled + less[line.id] if only else rest)
            if edit.lines[index].quantity == 0:
                refused = refused or edit.on_line(index, ev.ORDER_CANCELED)
        if all(line.status.state == ev.CANCELED for line in edit.lines):
            refused = refused or edit.on_order(ev.ORDER_CANCELED)
        else:
            for stage in (_PICK, _PACK, _SHIP, _INVOICE):
                refused = refused or edit.announce(stage)
        return edit.finish(refused)

    def hold(self, name: str, why: str, at: datetime, states: StateFramework = BUILT_IN) -> Result[Change, Refused]:
        """Hold the order under *name* (for example *credit hold*); a second hold of that name changes nothing."""
        if any(each.name == name for each in self.holds):
            return Success(Change(self, ()))
        edit = _Edit(self, at, states)
        edit.more["holds"] = (*self.holds, Hold(name, why, at))
        return edit.finish(edit.on_order(ev.ORDER_HELD))

    def release(self, name: str, at: datetime, states: StateFramework = BUILT_IN) -> Result[Change, Refused]:
        """End a hold; the order goes on when no other is left."""
        left = tuple(each for each in self.holds if each.name != name)
        if len(left) == len(self.holds):
            return Failure(Refused("unknown-hold", f"the order has no hold {name!r}", "$.holds"))
        edit = _Edit(self, at, states)
        edit.more["holds"] = left
        # An outcome that came meanwhile may have taken the order on already: then the hold just ends.
        stopped = not left and self.status.state == ev.ON_HOLD
        return edit.finish(edit.on_order(ev.ORDER_RELEASED) if stopped else None)

    def known_as(
        self, system: System, number: str = "", lines: Iterable[tuple[str, str]] = (), fulfillment_order: str = ""
    ) -> SalesOrder:
        """Remember what *system* calls the order (or one fulfillment order) and its lines."""
        entity, record = (ev.FULFILLMENT_ORDER, fulfillment_order) if fulfillment_order else (ev.ORDER, self.id)
        new = ((entity, record, number), *((ev.LINE, ours, theirs) for ours, theirs in lines))
        have = {(each.system, each.entity, each.record): each for each in self.externals}
        for kind, ours, theirs in new:
            if theirs:
                have[system, kind, ours] = ExternalId(system, kind, ours, theirs)
        return _with(self, externals=tuple(have.values()))

    def with_(self, **changes: object) -> SalesOrder:
        """Return a copy with bookkeeping fields changed (steps, flows, parked, records, version)."""
        return _with(self, **changes)


@attrs.frozen(slots=False)
class Change:
    """An accepted change: the new order, and the business events it raised, in order."""

    order: SalesOrder
    happened: tuple[Happened, ...]


def receive(
    order_id: OrderId, channel: System, draft: OrderDraft, at: datetime, states: StateFramework = BUILT_IN
) -> Result[Change, Refused]:
    """Turn what a channel states into a new order; refuses an order whose parts don't add up, to the cent."""
    wrong = draft_problem(draft)
    if wrong is not None:
        return Failure(wrong)
    lines = tuple(
        OrderLine(
            id=LineId(str(number)),
            product=each.product,
            ordered=each.quantity,
            total=each.total,
            status=states.line.initial,
            name=each.name,
            unit_price=each.unit_price,
            tax=each.tax,
            digital=each.digital,
            ship_to=each.ship_to,
            external_address=each.external_address,
            requested_product=each.requested_product,
            company=draft.company,
            site=draft.site,
            warehouse=draft.warehouse,
            ready_to_sync=draft.ready_to_sync,
        )
        for number, each in enumerate(draft.lines, 1)
    )
    order = SalesOrder(
        id=order_id,
        channel=channel,
        status=states.order.initial,
        currency=draft.currency,
        total=draft.total,
        shipping=draft.shipping,
        handling=draft.handling,
        discount=draft.discount,
        lines=lines,
        ship_to=draft.ship_to,
        bill_to=draft.bill_to,
        placed_at=draft.placed_at.astimezone(UTC),
        customer=draft.customer,
        customer_group=draft.customer_group,
        payment=draft.payment,
        reference=draft.reference,
        note=draft.note,
        company=draft.company,
        site=draft.site,
        warehouse=draft.warehouse,
        requested_ship_date=draft.requested_ship_date,
        ready_to_sync=draft.ready_to_sync,
        externals=(
            ExternalId(channel, ev.ORDER, order_id, draft.external_id),
            *(ExternalId(channel, ev.LINE, str(n), each.external_id) for n, each in enumerate(draft.lines, 1)),
        ),
    )
    edit = _Edit(order, at, states)
    return edit.finish(edit.on_order(ev.NEW_ORDER))


_LARGEST: Final = 15
"""The most digits before the point of an amount or quantity: beyond them sums would be rounded."""


def _inexact(money: Money, where: str) -> Refused | None:
    try:
        if money.amount.adjusted() <= _LARGEST:
            Money.of(money.amount, money.currency)
            return None
        return Refused("amount", f"the amount {money} is too large", where)
    except ValueError as broken:
        return Refused("amount", str(broken), where)


def draft_problem(draft: OrderDraft) -> Refused | None:
    """Return what makes a draft no order, or ``None``."""
    if not draft.external_id:
        return Refused("no-id", "the order has no id", "$.external_id", draft.channel or "iom")
    if not draft.lines:
        return Refused("no-lines", "the order has no lines", "$.lines")
    amounts = (
        ("total", draft.total),
        ("shipping", draft.shipping),
        ("handling", draft.handling),
        ("discount", draft.discount),
    )
    for name, money in amounts:
        if money.currency != draft.currency:
            return Refused("currency", f"{name} is in {money.currency}, the order in {draft.currency}", f"$.{name}")
        inexact = _inexact(money, f"$.{name}")
        if inexact is not None:
            return inexact
    if draft.placed_at.tzinfo is None:
        return Refused("time", f"the time {draft.placed_at.isoformat()} names no zone", "$.placed_at")
    seen: set[str] = set()
    whole = draft.shipping.amount + draft.handling.amount - draft.discount.amount
    for index, line in enumerate(draft.lines):
        if not line.quantity.amount > 0:
            return Refused(
                "quantity", f"the quantity {line.quantity.amount} is not above zero", f"$.lines[{index}].quantity"
            )
        if line.total.currency != draft.currency:
            return Refused(
                "currency",
                f"the line is in {line.total.currency}, the order in {draft.currency}",
                f"$.lines[{index}].total",
            )
        inexact = _inexact(line.total, f"$.lines[{index}].total")
        if inexact is not None:
            return inexact
        if line.quantity.amount.adjusted() > _LARGEST:
            return Refused("quantity", f"the quantity {line.quantity} is too large", f"$.lines[{index}].quantity")
        if line.external_id in seen:
            return Refused("line-twice", f"two lines have the id {line.external_id!r}", f"$.lines[{index}].external_id")
        if not line.product:
            return Refused("no-product", "the line names no product", f"$.lines[{index}].product")
        seen.add(line.external_id)
        whole += line.total.amount
    if whole != draft.total.amount:
        return Refused(
            "total", f"the parts add up to {whole}, the total says {draft.total.amount} {draft.currency}", "$.total"
        )
    return None


_T = TypeVar("_T")


_new = object.__new__
_set = object.__setattr__


def _with(record: _T, **changes: object) -> _T:
    """Copy a frozen record with some fields changed: `attrs.evolve` without its cost."""
    fields = record.__dict__
    merged = fields | changes
    if len(merged) != len(fields):
        raise TypeError(f"{type(record).__name__} has no field {sorted(changes.keys() - fields.keys())}")
    copied = _new(record.__class__)
    _set(copied, "__dict__", merged)
    return copied


_PICK, _PACK, _SHIP, _INVOICE = range(4)
_STAGES: Final = ("picked", "packed", "shipped", "invoiced")
_ZERO: Final = Decimal(0)


def _unknown(kind: str, record: str, where: str = "$") -> Refused:
    return Refused("unknown-record", f"the order has no {kind} {record!r}", where, early=True)


def _read_only(where: str, status: Status) -> Refused:
    return Refused("read-only", f"records in state {status.state!r} can't be edited", where)


def _too_much(stage: str, said: LineQuantity, place: int) -> Refused:
    return Refused(
        "more-than-ordered",
        f"{said.quantity} of line {said.line} can't be {stage}: that is not open",
        f"$.lines[{place}].quantity",
    )


def _utc(moment: datetime) -> datetime:
    """Return *moment* in UTC, as every time of an order is kept; one without a zone is taken for UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _invoiced_per_line(parts: Iterable[InvoiceLine]) -> dict[LineId, Decimal]:
    totals: dict[LineId, Decimal] = {}
    for part in parts:
        totals[part.line] = totals.get(part.line, _ZERO) + part.quantity
    return totals


class _Edit:
    """One change in the making: collects new records and events, and becomes a `Change` or nothing."""

    __slots__ = (
        "at",
        "changed",
        "fulfillment_orders",
        "happened",
        "lines",
        "moments",
        "more",
        "order",
        "rows",
        "states",
        "status",
    )

    def __init__(self, order: SalesOrder, at: datetime, states: StateFramework) -> None:
        self.order = order
        self.at = at
        self.states = states
        self.status = order.status
        self.lines = list(order.lines)
        self.fulfillment_orders = list(order.fulfillment_orders)
        self.rows = [list(fo.lines) for fo in order.fulfillment_orders]
        """The fulfillment lines, per fulfillment order; they go back into it at the end."""
        self.changed: set[int] = set()
        self.happened: list[Happened] = []
        self.moments: list[Moment] = []
        self.more: dict[str, object] = {}

    def finish(self, refused: Refused | None) -> Result[Change, Refused]:
        if refused is not None:
            return Failure(refused)
        order = self.order
        for number in self.changed:
            self.fulfillment_orders[number] = _with(self.fulfillment_orders[number], lines=tuple(self.rows[number]))
        lines, fulfillment_orders = tuple(self.lines), tuple(self.fulfillment_orders)
        if (
            not self.happened
            and not self.more
            and lines == order.lines
            and fulfillment_orders == order.fulfillment_orders
        ):
            return Success(Change(order, ()))
        changed: SalesOrder = _with(
            order,
            status=self.status,
            lines=lines,
            fulfillment_orders=fulfillment_orders,
            timeline=(*order.timeline, *self.moments) if self.moments else order.timeline,
            **self.more,
        )
        return Success(Change(changed, tuple(self.happened)))

    # -- raising events ----------------------------------------------------------------------------------

    def _move(self, table: StateTable, status: Status, event: str, record: str, stay: bool) -> Status | None:
        """Return the status after *event*, or ``None`` when it isn't legal; *stay* raises it without moving."""
        moved = table.advance(status, event)
        if moved is not None:
            if stay:
                moved = status
            self.happened.append(Happened(self.at, event, table.entity, record, moved.state, moved.reason))
        return moved

    def on_order(self, event: str, stay: bool = False) -> Refused | None:
        moved = self._move(self.states.order, self.status, event, self.order.id, stay)
        if moved is None:
            return illegal(ev.ORDER, event, self.status)
        self.status = moved
        self.moments.append(Moment(self.at, event, moved.state, moved.reason))
        return None

    def on_line(self, index: int, event: str, stay: bool = False) -> Refused | None:
        line = self.lines[index]
        moved = self._move(self.states.line, line.status, event, line.id, stay)
        if moved is None:
            return illegal(ev.LINE, event, line.status, f"$.lines[{index}]")
        if moved is not line.status:
            self.lines[index] = _with(line, status=moved)
        return None

    def on_fulfillment_order(self, number: int, event: str, stay: bool = False) -> Refused | None:
        fo = self.fulfillment_orders[number]
        moved = self._move(self.states.fulfillment_order, fo.status, event, fo.id, stay)
        if moved is None:
            return illegal(ev.FULFILLMENT_ORDER, event, fo.status, f"$.fulfillment_orders[{number}]")
        if moved is not fo.status:
            self.fulfillment_orders[number] = _with(fo, status=moved)
        return None

    def on_fulfillment_line(self, number: int, place: int, event: str, stay: bool = False) -> Refused | None:
        each = self.rows[number][place]
        record = f"{self.fulfillment_orders[number].id}/{each.id}"
        moved = self._move(self.states.fulfillment_line, each.status, event, record, stay)
        if moved is None:
            return illegal(ev.FULFILLMENT_LINE, event, each.status, f"$.fulfillment_orders[{number}].lines[{place}]")
        if moved is not each.status:
            self.set_line(number, place, status=moved)
        return None

    def on_custom(self, entity: str, record: str, event: str) -> Refused | None:
        table = self.states.custom.get(entity)
        records = list(self.order.records)
        index = next((i for i, each in enumerate(records) if each.entity == entity and each.id == record), None)
        if table is None or index is None:
            return _unknown(entity, record, "$.records")
        moved = self._move(table, records[index].status, event, record, False)
        if moved is None:
            return illegal(entity, event, records[index].status, f"$.records[{index}]")
        records[index] = _with(records[index], status=moved)
        self.more["records"] = tuple(records)
        return None

    # -- looking things up -------------------------------------------------------------------------------

    def off(self, line: OrderLine) -> bool:
        """Say whether a line doesn't go on for now: held or at its end."""
        return line.status.state == ev.LINE_ON_HOLD or self.states.line.is_final(line.status)

    def same_status(self) -> bool:
        """Say whether all lines that go on have one status; when none goes on, whether all that are held do."""
        on = [line.status for line in self.lines if not self.off(line)]
        on = on or [line.status for line in self.lines if not self.states.line.is_final(line.status)]
        return bool(on) and all(each is on[0] or each == on[0] for each in on)

    def index_of(self, line_id: str) -> int:
        return next(index for index, line in enumerate(self.lines) if line.id == line_id)

    def line_index(self, system: System, name: str) -> int | None:
        ours = self.order.by_external(system, name) or name
        return next((index for index, line in enumerate(self.lines) if line.id == ours), None)

    def fulfillment_lines(
        self, system: System, said: LineQuantity, place: int, warehouse: str = ""
    ) -> list[tuple[int, int]] | Refused:
        """Find the fulfillment lines of *system* for a line, those of *warehouse* first."""
        where = f"$.lines[{place}]"
        index = self.line_index(system, said.line)
        if index is None:
            return _unknown("line", said.line, f"{where}.line")
        if said.quantity < 0:
            return Refused("quantity", f"the quantity {said.quantity} is below zero", f"{where}.quantity")
        line_id = self.lines[index].id
        found = [
            (number, at)
            for number, fo in enumerate(self.fulfillment_orders)
            if fo.provider == system
            for at, each in enumerate(fo.lines)
            if each.line == line_id
        ]
        if not found and (
            self.lines[index].digital
            or any(each.line == line_id for fo in self.fulfillment_orders for each in fo.lines)
        ):
            return []  # somebody else ships this line: what this system says of it is an echo
        if not found:
            return Refused(
                "not-in-fulfillment", f"{system} was not asked to ship line {line_id}", f"{where}.line", early=True
            )
        if warehouse and len(found) > 1:
            found.sort(key=lambda spot: self.fulfillment_orders[spot[0]].warehouse != warehouse)
        return found

    # -- progress ----------------------------------------------------------------------------------------

    def set_line(self, number: int, place: int, **changes: object) -> None:
        rows = self.rows[number]
        rows[place] = _with(rows[place], **changes)
        self.changed.add(number)

    def reach(self, number: int, place: int, stage: int, total: Decimal) -> None:
        """Raise a fulfillment line's counter of *stage*, and of the stages it implies, to *total*."""
        fields = self.rows[number][place].__dict__
        changes = {name: total for name in _STAGES[: stage + 1] if fields[name] < total}
        if changes:
            self.set_line(number, place, **changes)

    def announce(self, stage: int) -> Refused | None:
        """Raise the stage's events wherever it advanced: fulfillment lines, fulfillment orders, lines, order.

        An event of a stage behind one that was reached before is raised, but moves no state: what a record is in
        depends on its quantities, not on the order in which messages came.
        """
        order = self.order
        if stage < _INVOICE:
            for number in sorted(self.changed):
                refused = self._announce_fulfillment(number, stage)
                if refused is not None:
                    return refused
        before = _per_line([fo.lines for fo in order.fulfillment_orders])
        after = _per_line(self.rows) if self.changed else before
        all_was, all_is = list(_NOTHING), list(_NOTHING)
        for index, line in enumerate(order.lines):
            now = self.lines[index]
            was, is_ = _of_line(before, line), _of_line(after, now)
            # A digital line nobody ships does not keep the others from being picked, packed and shipped.
            skip = stage < _INVOICE and line.digital and line.id not in after
            for column in range(1 if skip else 0, 5):
                all_was[column] += was[column]
                all_is[column] += is_[column]
            event = _advanced(ev.LINE, stage, was, is_)
            if event:
                refused = self.on_line(index, event, _ahead(is_, stage))
                if refused is not None:
                    return refused
        event = _advanced(ev.ORDER, stage, all_was, all_is)
        return self.on_order(event, _ahead(all_is, stage)) if event else None

    def _announce_fulfillment(self, number: int, stage: int) -> Refused | None:
        fo, rows = self.order.fulfillment_orders[number], self.rows[number]
        all_was, all_is = list(_NOTHING), list(_NOTHING)
        for place, row in enumerate(fo.lines):
            was, is_ = _of_row(row), _of_row(rows[place])
            for column in range(4):
                all_was[column] += was[column]
                all_is[column] += is_[column]
            if was != is_:
                event = _advanced(ev.FULFILLMENT_LINE, stage, was, is_)
                refused = self.on_fulfillment_line(number, place, event, _ahead(is_, stage)) if event else None
                if refused is not None:
                    return refused
        event = _advanced(ev.FULFILLMENT_ORDER, stage, all_was, all_is)
        return self.on_fulfillment_order(number, event, _ahead(all_is, stage)) if event else None


_Sums = Sequence[Decimal]
"""Wanted, picked, packed, shipped, invoiced."""
_NOTHING: Final[_Sums] = (_ZERO,) * 5


def _of_row(row: FulfillmentLine) -> _Sums:
    return (row.quantity - row.canceled, row.picked, row.packed, row.shipped, _ZERO)


def _per_line(fulfillment_orders: Iterable[Sequence[FulfillmentLine]]) -> dict[LineId, _Sums]:
    """Add up the fulfillment lines of each order line."""
    found: dict[LineId, _Sums] = {}
    for rows in fulfillment_orders:
        for row in rows:
            sums = _of_row(row)
            other = found.get(row.line)
            found[row.line] = sums if other is None else [a + b for a, b in zip(other, sums)]
    return found


def _of_line(per_line: Mapping[LineId, _Sums], line: OrderLine) -> _Sums:
    _, picked, packed, shipped, _ = per_line.get(line.id, _NOTHING)
    return (line.quantity, picked, packed, shipped, line.invoiced)


def _advanced(entity: str, stage: int, was: _Sums, is_: _Sums) -> str:
    """Return the event by which *stage* advanced: some of it, all of it, or nothing."""
    wanted, reached, before = is_[0], is_[stage + 1], was[stage + 1]
    if reached <= 0:
        return ""
    complete = reached >= wanted
    if reached > before or (complete and before < was[0]):
        some, every = ev.PROGRESS[entity][stage]
        return every if complete else some
    return ""


def _ahead(sums: _Sums, stage: int) -> bool:
    """Say whether a later stage was reached already."""
    return any(reached > 0 for reached in sums[stage + 2 :])
