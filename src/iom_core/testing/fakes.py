"""In-memory implementations of every port: the reference model that other adapters are compared with.

A fake keeps its promises exactly: writes are once per key, pulls are cumulative and repeatable, refusals are values.
Each has a back door (plain attributes and methods such as `FakeErp.work`) that tests and the `World` use to play the
outside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import RLock

import attrs
from returns.result import Failure, Result, Success

from iom_core import messages as msg
from iom_core.messages import LineQuantity, Message, OrderDraft, Rejected
from iom_core.order import Command, ErrorRecord, Happened, OrderLine, SalesOrder
from iom_core.outcome import Refused
from iom_core.ports import (
    BillingRequest,
    Capability,
    Conflict,
    Due,
    ErpRequest,
    FulfillmentRequest,
    Pulled,
    Receipt,
    StatusUpdate,
    Stock,
    Waiting,
)
from iom_core.values import GeoPoint, MessageId, Money, OrderId, ProductId, SourceId, System


@attrs.define
class _Queued:
    """A command in the outbox."""

    command: Command
    due_at: datetime | None = None
    attempt: int = 0
    first_at: datetime | None = None
    leased_until: datetime | None = None


class MemoryStore:
    """An `OrderStore` in memory. One transaction at a time; a block that raises leaves nothing behind."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._orders: dict[OrderId, SalesOrder] = {}
        self._events: dict[OrderId, list[Happened]] = {}
        self._externals: dict[tuple[System, str], OrderId] = {}
        self._inbox: dict[MessageId, datetime] = {}
        self._outbox: dict[str, _Queued] = {}
        self._waiting: list[Waiting] = []
        self._checkpoints: dict[str, str] = {}
        self._errors: dict[str, ErrorRecord] = {}

    @contextmanager
    def begin(self) -> Iterator[MemoryUnit]:
        """Open a transaction."""
        with self._lock:
            unit = MemoryUnit(self)
            yield unit
            unit.commit()

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        """Hand out commands that are due, one per order at a time, oldest first.

        An order whose next command is for a provider in *skip* gets no other one either.
        """
        with self._lock:
            handed: list[Due] = []
            busy = {
                each.command.order_id
                for each in self._outbox.values()
                if each.leased_until is not None and each.leased_until > now
            }
            for each in self._outbox.values():
                if len(handed) >= limit:
                    break
                if each.command.order_id in busy or (each.due_at is not None and each.due_at > now):
                    continue
                busy.add(each.command.order_id)
                if each.command.provider in skip:
                    continue
                each.attempt += 1
                each.first_at = each.first_at or now
                each.leased_until = lease_until
                handed.append(Due(each.command, each.attempt, each.first_at))
            return tuple(handed)

    def postpone(self, command_key: str, until: datetime, why: str) -> None:
        """Give a command back until later."""
        with self._lock:
            queued = self._outbox.get(command_key)
            if queued is not None:
                queued.due_at, queued.leased_until = until, None

    def next_due(self) -> datetime | None:
        """Return when the next command is due."""
        with self._lock:
            times = [max(each.due_at or _BEGINNING, each.leased_until or _BEGINNING) for each in self._outbox.values()]
            return min(times, default=None)

    def load(self, order_id: OrderId) -> SalesOrder | None:
        """Load an order."""
        return self._orders.get(order_id)

    def orders(self) -> Iterator[SalesOrder]:
        """Yield every order, by id."""
        with self._lock:
            yield from [self._orders[key] for key in sorted(self._orders)]

    def events(self, order_id: OrderId) -> tuple[Happened, ...]:
        """Return everything that happened to an order."""
        return tuple(self._events.get(order_id, ()))

    def errors(self, kind: str | None = None) -> tuple[ErrorRecord, ...]:
        """Return the active errors."""
        with self._lock:
            return tuple(each for each in self._errors.values() if each.active and kind in (None, each.kind))

    def deactivate_error(self, error_id: str) -> bool:
        """Take an error off the active list."""
        with self._lock:
            known = self._errors.get(error_id)
            if known is None or not known.active:
                return False
            self._errors[error_id] = attrs.evolve(known, active=False)
            return True

    def still_waiting(self) -> tuple[Waiting, ...]:
        """Return the messages that name orders nobody knows."""
        return tuple(self._waiting)


_BEGINNING = datetime.min.replace(tzinfo=UTC)


class MemoryUnit:
    """One transaction of a `MemoryStore`: reads see its own writes, `commit` applies them."""

    __slots__ = ("_changes", "_checkpoints", "_externals", "_orders", "_seen", "_store", "_waiting")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._changes: list[Callable[[], object]] = []
        self._orders: dict[OrderId, SalesOrder] = {}
        self._seen: set[MessageId] = set()
        self._externals: dict[tuple[System, str], OrderId | None] = {}
        self._waiting: list[Waiting] | None = None
        self._checkpoints: dict[str, str] = {}

    def commit(self) -> None:
        """Apply everything."""
        for change in self._changes:
            change()

    def accept(self, message_id: MessageId, at: datetime) -> bool:
        """Mark a message as seen."""
        inbox = self._store._inbox
        if message_id in inbox or message_id in self._seen:
            return False
        self._seen.add(message_id)
        self._changes.append(lambda: inbox.__setitem__(message_id, at))
        return True

    def order(self, order_id: OrderId) -> SalesOrder | None:
        """Load an order."""
        return self._orders.get(order_id) or self._store._orders.get(order_id)

    def find(self, system: System, external_id: str) -> OrderId | None:
        """Return which order a system knows by that number."""
        key = (system, external_id)
        return self._externals[key] if key in self._externals else self._store._externals.get(key)

    def save(
        self, order: SalesOrder, before: SalesOrder | None, events: Sequence[Happened], commands: Sequence[Command]
    ) -> None:
        """Save a changed order; an outside number that another order has is a `Conflict` too."""
        store, now = self._store, self.order(order.id)
        if (None if now is None else now.version) != (None if before is None else before.version):
            raise Conflict(f"order {order.id} is not at version {before and before.version} any more")
        old = {} if before is None else _numbers(before)
        new = old if before is not None and before.externals is order.externals else _numbers(order)
        for key in new:
            if self.find(*key) not in (None, order.id):
                raise Conflict(f"{order.id} can't have the number {key[1]} in {key[0]}: it is another order's")
        moved: dict[tuple[System, str], OrderId | None] = {
            **{key: None for key in old if key not in new},
            **{key: order.id for key in new if key not in old},
        }
        self._orders[order.id] = order
        self._externals.update(moved)

        def apply() -> None:
            store._orders[order.id] = order
            store._events.setdefault(order.id, []).extend(events)
            for key, owner in moved.items():
                if owner is None:
                    store._externals.pop(key, None)
                else:
                    store._externals[key] = owner
            for each in commands:
                store._outbox[each.key] = _Queued(each)

        self._changes.append(apply)

    def finish(self, command_key: str) -> None:
        """Take a command out of the outbox."""
        self._changes.append(lambda: self._store._outbox.pop(command_key, None))

    def wait(self, message: Message, at: datetime) -> None:
        """Keep a message that names an unknown order; the same message again changes nothing."""
        if all(each.message.id != message.id for each in self._now_waiting()):
            self._keep_waiting([*self._now_waiting(), Waiting(message, at)])

    def waiting(self, system: System, external_id: str) -> tuple[Waiting, ...]:
        """Take out the messages that wait for this number, also those this unit let wait."""
        found = tuple(
            each
            for each in self._now_waiting()
            if each.message.system == system and each.message.external_id == external_id
        )
        if found:
            self._keep_waiting([each for each in self._now_waiting() if each not in found])
        return found

    def _now_waiting(self) -> list[Waiting]:
        return self._store._waiting if self._waiting is None else self._waiting

    def _keep_waiting(self, waiting: list[Waiting]) -> None:
        self._waiting = waiting
        self._changes.append(lambda: setattr(self._store, "_waiting", waiting))

    def checkpoint(self, puller: str) -> str:
        """Return where a puller stands."""
        return self._checkpoints.get(puller) or self._store._checkpoints.get(puller, "")

    def set_checkpoint(self, puller: str, value: str) -> None:
        """Remember where a puller stands."""
        self._checkpoints[puller] = value
        self._changes.append(lambda: self._store._checkpoints.__setitem__(puller, value))

    def add_error(self, error: ErrorRecord) -> None:
        """Add to an error list; the same id again changes nothing."""
        self._changes.append(lambda: self._store._errors.setdefault(error.id, error))


def _numbers(order: SalesOrder) -> dict[tuple[System, str], None]:
    """Return the numbers by which outside systems name the order in their messages."""
    return {(each.system, each.id): None for each in order.externals if each.entity in ("order", "fulfillment order")}


@attrs.define
class Failures:
    """Faults a fake will raise, in order: the next calls take them; ``None`` lets a call through."""

    before: deque[Exception | None] = attrs.field(factory=deque)
    """Raised before anything is done."""
    after: deque[Exception | None] = attrs.field(factory=deque)
    """Raised after the call took effect: a lost answer."""

    def strike(self) -> None:
        """Raise what is planned for this call, before it takes effect."""
        if self.before and (fault := self.before.popleft()) is not None:
            raise fault

    def lose(self) -> None:
        """Raise what is planned for this call, after it took effect."""
        if self.after and (fault := self.after.popleft()) is not None:
            raise fault


class _Feed:
    """Messages a fake has sent, in order; pulling is by position, so that it can be repeated."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.sent: list[Message | Rejected] = []

    def say(self, what: str, external_id: str, body: msg.Body, at: datetime) -> None:
        """Add a message, unless one of that id was said before."""
        message_id = MessageId(f"{self.system}/{external_id}/{what}")
        if all(each.id != message_id for each in self.sent[-50:]):
            self.sent.append(Message(message_id, self.system, body, at, external_id))

    def pull(self, checkpoint: str) -> Pulled:
        """Return what was said since *checkpoint*."""
        start = int(checkpoint or 0)
        return Pulled(tuple(self.sent[start:]), str(len(self.sent)))


class FakeChannel:
    """An `OrderSource` and `StatusSink`: a shop. *told* records every status update, once per key."""

    def __init__(self, system: str = "bigcommerce") -> None:
        self.system: System = System(system)
        self.capabilities: frozenset[Capability] = frozenset({Capability.WEBHOOKS})
        self.feed: _Feed = _Feed(self.system)
        self.drafts: dict[str, OrderDraft] = {}
        self.told: dict[str, list[str]] = {}
        self.shipments: dict[str, set[str]] = {}
        self.failures: Failures = Failures()
        self._keys: set[str] = set()

    def place(self, draft: OrderDraft, at: datetime) -> None:
        """Put an order into the shop."""
        self.drafts[draft.external_id] = draft
        self.feed.say("new", draft.external_id, msg.NewOrder(draft), at)

    def cancel(self, external_id: str, at: datetime) -> None:
        """Cancel an order in the shop."""
        self.feed.say("canceled", external_id, msg.Canceled(), at)

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return orders placed since *checkpoint*."""
        self.failures.strike()
        return self.feed.pull(checkpoint)

    def read(self, external_id: str, now: datetime) -> tuple[Message | Rejected, ...]:
        """Read one order again."""
        self.failures.strike()
        return tuple(each for each in self.feed.sent if each.external_id == external_id)

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Take the body for an order's number; anything else is refused."""
        name = body.decode("utf-8", "replace")
        return (
            Success((name,))
            if name in self.drafts
            else Failure(Refused("unknown", f"no order {name!r}", "$", self.system))
        )

    def update(self, order: SalesOrder, update: StatusUpdate) -> Result[Receipt, Refused]:
        """Hear a status, once per key, and every shipment once."""
        self.failures.strike()
        number = order.external(self.system)
        if number not in self.drafts:
            return Failure(Refused("unknown-order", f"the shop has no order {number!r}", "$", self.system))
        if update.key not in self._keys:
            self._keys.add(update.key)
            self.told.setdefault(number, []).append(update.stage)
        self.shipments.setdefault(number, set()).update(each.id for each in order.shipments)
        self.failures.lose()
        return Success(Receipt(number))


@attrs.define
class _ErpLine:
    number: str
    product: str
    quantity: Decimal
    amount: Money
    warehouse: str
    picked: Decimal = Decimal(0)
    shipped: Decimal = Decimal(0)
    invoiced: Decimal = Decimal(0)


@attrs.define
class _ErpOrder:
    number: str
    currency: str
    lines: dict[str, _ErpLine]
    ships: bool = True
    """False when somebody else ships: it is only invoiced here."""
    confirmed: bool = True
    canceled: bool = False


class FakeErp:
    """`ErpOrders`, `Ledger` and `OrderSource` in one: an F&O. `work` plays its people, one step per order and call."""

    def __init__(self, system: str = "fno", *, ships: bool = True) -> None:
        self.system: System = System(system)
        self.capabilities: frozenset[Capability] = frozenset({Capability.PARTIAL_SHIPMENTS})
        self.feed: _Feed = _Feed(self.system)
        self.orders: dict[str, _ErpOrder] = {}
        self.by_reference: dict[str, str] = {}
        self.blocked: dict[str, str] = {}
        """Products it refuses, with the reason it gives."""
        self.failures: Failures = Failures()
        self.shipments: dict[str, list[str]] = {}
        self.invoices: dict[str, list[str]] = {}
        self.told: dict[str, list[str]] = {}
        self.ships = ships
        self.per_shipment: Decimal | None = None
        """The most it ships of a line at once; ``None``: all of it."""

    # the port

    def send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        """Create the order and the lines that pass the sync filters, each once."""
        self.failures.strike()
        order = request.order
        if order.external(self.system) in self.orders and order.channel == self.system:
            # An order that came from here: what we hear is its status.
            number = str(order.external(self.system))
            self.told.setdefault(number, []).append(order.status.reason)
            self._goods_left(self.orders[number], order)
            self.failures.lose()
            return Success(Receipt(number))
        problem = _filtered(order)
        if problem is not None:
            return Failure(attrs.evolve(problem, who=self.system))
        wanted = [line for line in order.lines if (not request.lines or line.id in request.lines) and line.quantity > 0]
        passing = [line for line in wanted if line.company and line.site and line.warehouse and line.ready_to_sync]
        if not passing:
            return Failure(
                Refused(
                    "no-lines", "no line has company, site and warehouse: nothing is synced", "$.lines", self.system
                )
            )
        number = self.by_reference.get(order.id) or f"{len(self.orders) + 1:06}"
        known = self.orders.setdefault(number, _ErpOrder(number, order.currency, {}, ships=self._ships(order)))
        self.by_reference[order.id] = number
        costs = _costs(order)
        errors: list[tuple[str, str]] = []
        for line in passing:
            if line.product in self.blocked:
                errors.append((line.id, self.blocked[line.product]))
            elif line.id not in known.lines:
                known.lines[line.id] = _ErpLine(
                    f"LOT-{number}-{line.id}",
                    line.product,
                    line.quantity,
                    costs[line.id],
                    str(line.warehouse),
                )
        self._goods_left(known, order)
        self.failures.lose()
        numbers = tuple((line_id, each.number) for line_id, each in known.lines.items())
        return Success(Receipt(number, numbers, tuple(errors), f"sales order {number}"))

    def _ships(self, order: SalesOrder) -> bool:
        return self.ships and any(fo.provider == self.system for fo in order.fulfillment_orders)

    def _goods_left(self, known: _ErpOrder, order: SalesOrder) -> None:
        """Post what somebody else shipped, so that it can be invoiced."""
        if not known.ships:
            for line_id, each in known.lines.items():
                line = order.line(line_id)
                each.shipped = order.shipped(line_id) if line is None else _left(order, line)

    def bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        """Nothing to ask for: what was shipped is invoiced by its own people."""
        return Success(Receipt(request.order.external(self.system) or ""))

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what happened since *checkpoint*."""
        self.failures.strike()
        return self.feed.pull(checkpoint)

    def read(self, external_id: str, now: datetime) -> tuple[Message | Rejected, ...]:
        """Read one order's messages again."""
        self.failures.strike()
        return tuple(each for each in self.feed.sent if each.external_id == external_id)

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Refuse every delivery: this ERP sends none."""
        return Failure(Refused("no-notifications", "this system sends no notifications", "$", self.system))

    # the back door

    def enter(self, draft: OrderDraft, at: datetime, *, confirmed: bool = True, ships: bool = True) -> str:
        """Enter an order in the ERP itself; it reaches us when it is confirmed."""
        number = draft.external_id
        shares = (draft.shipping + draft.handling - draft.discount).split([each.total.amount for each in draft.lines])
        lines = {
            str(n): _ErpLine(
                each.external_id, each.product, each.quantity.amount, each.total + share, draft.warehouse or ""
            )
            for n, (each, share) in enumerate(zip(draft.lines, shares), 1)
        }
        self.orders[number] = _ErpOrder(number, draft.currency, lines, ships=ships, confirmed=False)
        self._draft = draft
        if confirmed:
            self.confirm(number, draft, at)
        return number

    def confirm(self, number: str, draft: OrderDraft, at: datetime) -> None:
        """Confirm an order: only now dual-write lets it reach us."""
        self.orders[number].confirmed = True
        self.feed.say("new", number, msg.NewOrder(draft), at)

    def work(self, now: datetime) -> int:
        """Let its people do one step on every order: pick, pack and deliver, invoice; returns how many moved."""
        return sum(
            self._step(order, now) for order in list(self.orders.values()) if order.confirmed and not order.canceled
        )

    def _step(self, order: _ErpOrder, now: datetime) -> int:
        lines = list(order.lines.values())
        if order.ships and any(each.picked < each.quantity for each in lines):
            for each in lines:
                each.picked = each.quantity
            picked = tuple(LineQuantity(each.number, each.picked) for each in lines)
            self.feed.say(f"picked/{len(lines)}", order.number, msg.Picked(picked), now)
            return 1
        if order.ships and any(each.shipped < each.quantity for each in lines):
            parts = []
            for each in lines:
                share = min(each.quantity - each.shipped, self.per_shipment or each.quantity)
                if share > 0:
                    each.shipped += share
                    parts.append(LineQuantity(each.number, share))
            slips = self.shipments.setdefault(order.number, [])
            slip = f"PS-{order.number}-{len(slips) + 1}"
            slips.append(slip)
            shipped = msg.Shipped(slip, tuple(parts), now, f"TRACK-{slip}", "UPS")
            self.feed.say(f"slip/{slip}", order.number, shipped, now)
            return 1
        parts = [
            LineQuantity(each.number, each.shipped - each.invoiced) for each in lines if each.shipped > each.invoiced
        ]
        if parts:
            total = Money.zero(order.currency)
            for each in lines:
                if each.shipped > each.invoiced:
                    total += _part(each.amount, each.quantity, each.shipped)
                    total -= _part(each.amount, each.quantity, each.invoiced)
                    each.invoiced = each.shipped
            numbers = self.invoices.setdefault(order.number, [])
            number = f"INV-{order.number}-{len(numbers) + 1}"
            numbers.append(number)
            self.feed.say(f"invoice/{number}", order.number, msg.Invoiced(number, tuple(parts), total, now), now)
            return 1
        return 0

    def cancel(self, number: str, now: datetime) -> None:
        """Cancel what has not shipped of an order."""
        self.orders[number].canceled = True
        self.feed.say("canceled", number, msg.Canceled(), now)


def _costs(order: SalesOrder) -> dict[str, Money]:
    """Return what each line costs with its share of shipping, handling and discount; together the order's total."""
    shares = (order.shipping + order.handling - order.discount).split([each.total.amount for each in order.lines])
    return {line.id: line.total + share for line, share in zip(order.lines, shares)}


def _part(amount: Money, whole: Decimal, quantity: Decimal) -> Money:
    """Return what *quantity* of a line costs that is *amount* as a *whole*; the last unit takes the rounding."""
    return amount if quantity == whole else Money.rounded(amount.amount * quantity / whole, amount.currency)


def _left(order: SalesOrder, line: OrderLine) -> Decimal:
    """Return how much of a line has left; nobody ships what is digital."""
    return line.quantity if line.digital else order.shipped(line.id)


def _filtered(order: SalesOrder) -> Refused | None:
    """The dual-write header filter: order type, company, ready to sync."""
    for name, value in (("company", order.company), ("invoice_customer", order.invoice_customer)):
        if not value:
            return Refused("sync-filter", f"the order has no {name.replace('_', ' ')}", f"$.{name}")
    if not order.ready_to_sync or order.order_type != "sales order":
        return Refused("sync-filter", "the order is not ready to sync", "$.ready_to_sync")
    return None


class FakeFulfiller:
    """A `FulfillmentProvider`: a warehouse network such as Flexe. `work` ships one parcel per order and call."""

    def __init__(self, system: str = "flexe") -> None:
        self.system: System = System(system)
        self.capabilities: frozenset[Capability] = frozenset({Capability.CANCEL, Capability.PARTIAL_SHIPMENTS})
        self.feed: _Feed = _Feed(self.system)
        self.placed: dict[str, dict[str, Decimal]] = {}
        """Quantity per line (our ids), per fulfillment order."""
        self.shipped: dict[str, dict[str, Decimal]] = {}
        self.shipments: dict[str, list[str]] = {}
        self.refuses: str = ""
        self.per_shipment: Decimal | None = None
        self.failures: Failures = Failures()
        self.canceled: set[str] = set()

    def submit(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Take a fulfillment order, once."""
        self.failures.strike()
        if self.refuses:
            return Failure(Refused("refused", self.refuses, "$", self.system))
        fo = request.order.fulfillment_order(request.fulfillment_order)
        if fo is None:
            return Failure(Refused("unknown", f"no fulfillment order {request.fulfillment_order!r}", "$", self.system))
        self.placed.setdefault(fo.id, {each.line: each.quantity - each.canceled for each in fo.lines})
        self.failures.lose()
        return Success(Receipt(f"FX-{fo.id}", (), (), f"outbound order FX-{fo.id}"))

    def cancel(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Take a fulfillment order back, if nothing of it has left."""
        self.failures.strike()
        name = request.fulfillment_order
        if self.shipments.get(name):
            return Failure(Refused("shipped", f"{name} has shipped", "$", self.system))
        self.canceled.add(name)
        self.failures.lose()
        return Success(Receipt(f"FX-{name}"))

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what happened since *checkpoint*."""
        self.failures.strike()
        return self.feed.pull(checkpoint)

    def work(self, now: datetime) -> int:
        """Ship one parcel of every order that has something left; returns how many moved."""
        moved = 0
        for name, lines in self.placed.items():
            if name in self.canceled:
                continue
            left = self.shipped.setdefault(name, dict.fromkeys(lines, Decimal(0)))
            parts = []
            for line, wanted in lines.items():
                share = min(wanted - left[line], self.per_shipment or wanted)
                if share > 0:
                    left[line] += share
                    parts.append(LineQuantity(line, share))
            if not parts:
                continue
            parcels = self.shipments.setdefault(name, [])
            parcel = f"{name}-P{len(parcels) + 1}"
            parcels.append(parcel)
            self.feed.say(
                f"shipped/{parcel}", f"FX-{name}", msg.Shipped(parcel, tuple(parts), now, f"1Z{parcel}", "UPS"), now
            )
            moved += 1
        return moved


class FakeLedger:
    """A `Ledger`: an SAP that invoices what it is asked to, as far as it has shipped. `work` posts the invoices."""

    def __init__(self, system: str = "sap") -> None:
        self.system: System = System(system)
        self.feed: _Feed = _Feed(self.system)
        self.asked: dict[str, BillingRequest] = {}
        """Requests by their keys, with the order as it was then."""
        self.invoices: dict[str, list[str]] = {}
        """Numbers of the posted invoices, per order (our id)."""
        self.failures: Failures = Failures()
        self._answered: set[str] = set()
        self._billed: dict[tuple[str, str], Decimal] = {}

    def bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        """Take a request, once per key."""
        self.failures.strike()
        self.asked.setdefault(request.key, request)
        self.failures.lose()
        return Success(Receipt(f"SAP-{request.order.id}", (), (), "billing document requested"))

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return invoices posted since *checkpoint*."""
        self.failures.strike()
        return self.feed.pull(checkpoint)

    def work(self, now: datetime) -> int:
        """Post one invoice per request over what has shipped and isn't invoiced; returns how many were posted."""
        fresh = [request for key, request in self.asked.items() if key not in self._answered]
        self._answered.update(self.asked)
        return sum(self._post(request, now) for request in fresh)

    def _post(self, request: BillingRequest, now: datetime) -> int:
        order, costs = request.order, _costs(request.order)
        lines: list[LineQuantity] = []
        total = Money.zero(order.currency)
        for line in order.lines:
            before, after = self._billed.get((order.id, line.id), Decimal(0)), _left(order, line)
            if after > before and (not request.lines or line.id in request.lines):
                lines.append(LineQuantity(line.id, after - before))
                total += _part(costs[line.id], line.ordered.amount, after)
                total -= _part(costs[line.id], line.ordered.amount, before)
                self._billed[order.id, line.id] = after
        if not lines:
            return 0
        number = f"9{sum(map(len, self.invoices.values())):07}"
        self.invoices.setdefault(order.id, []).append(number)
        self.feed.say(f"invoice/{number}", f"SAP-{order.id}", msg.Invoiced(number, tuple(lines), total, now), now)
        return 1


class FakeInventory:
    """An `Inventory`: counted stock, reservations by key."""

    def __init__(self) -> None:
        self.on_hand: dict[tuple[SourceId, ProductId], Decimal] = {}
        self.reserved: dict[str, tuple[SourceId, ProductId, Decimal]] = {}

    def put(self, source: str, product: str, quantity: Decimal | int) -> None:
        """Add stock."""
        key = (SourceId(source), ProductId(product))
        self.on_hand[key] = self.on_hand.get(key, Decimal(0)) + Decimal(quantity)

    def _free(self, source: SourceId, product: ProductId) -> Decimal:
        taken = sum((q for s, p, q in self.reserved.values() if (s, p) == (source, product)), Decimal(0))
        return self.on_hand.get((source, product), Decimal(0)) - taken

    def available(self, products: Sequence[ProductId]) -> tuple[Stock, ...]:
        """Return what may still be promised."""
        return tuple(
            Stock(source, product, self._free(source, product))
            for source, product in self.on_hand
            if product in products
        )

    def reserve(self, key: str, source: SourceId, product: ProductId, quantity: Decimal) -> Result[str, Refused]:
        """Reserve, once per key."""
        if key in self.reserved:
            return Success(key)
        if self._free(source, product) < quantity:
            return Failure(
                Refused("no-stock", f"{source} has {self._free(source, product)} of {product}, not {quantity}")
            )
        self.reserved[key] = (source, product, quantity)
        return Success(key)

    def release(self, key: str) -> None:
        """Give a reservation back."""
        self.reserved.pop(key, None)

    def consume(self, key: str, quantity: Decimal) -> None:
        """Turn a reservation into shipped stock."""
        taken = self.reserved.pop(key, None)
        if taken is not None:
            source, product, reserved = taken
            self.on_hand[source, product] -= min(quantity, reserved)


class FakeDistances:
    """`Distances` by the great circle."""

    def kilometers(self, origin: GeoPoint, destination: GeoPoint) -> float:
        """Return the great-circle distance."""
        return origin.kilometers_to(destination)


class FakeRates:
    """`ShippingRates` from a table: one rate per carrier, whatever the way."""

    def __init__(self, rates: Mapping[str, Money] | None = None) -> None:
        self.rates: dict[str, Money] = dict(rates or {})

    def rate(self, carrier: str, origin: GeoPoint, destination: GeoPoint, weight: Decimal) -> Money | None:
        """Return the carrier's rate."""
        return self.rates.get(carrier)


class VirtualClock:
    """A clock that moves only when told to."""

    def __init__(self, start: datetime) -> None:
        self.now: datetime = start

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self.now += timedelta(seconds=seconds)

    def jump(self, to: datetime) -> None:
        """Move forward to *to*; never back."""
        self.now = max(self.now, to)
