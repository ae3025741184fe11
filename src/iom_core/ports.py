"""Every port: what the core needs from the outside, and what each implementation promises.

Ports are synchronous. A business *no* is a `Refused` value; a fault is an exception from `iom_core.errors`.
Every write is *effectively once* under its key: repeating it, also after a lost answer, changes nothing and
returns the first receipt. Optional abilities are declared in ``capabilities``, never as empty methods.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import attrs
from returns.result import Result

from iom_core.messages import Message, Rejected
from iom_core.order import Command, ErrorRecord, Happened, SalesOrder
from iom_core.outcome import Refused
from iom_core.values import GeoPoint, MessageId, Money, OrderId, ProductId, SourceId, System


class Capability(StrEnum):
    """An optional ability of an adapter."""

    CANCEL = "cancel"
    """`FulfillmentProvider.cancel` may succeed; without it every cancel is refused."""
    PARTIAL_SHIPMENTS = "partial shipments"
    """One fulfillment order may leave in several shipments; without it, it leaves whole."""
    WEBHOOKS = "webhooks"
    """``translate`` understands the system's own notifications; without it every delivery is refused."""


@attrs.frozen
class Pulled:
    """One batch from a puller, oldest first. *checkpoint* is opaque: give it back to pull what came later.

    A puller overlaps on purpose: messages it has delivered before come again, with the same id.
    """

    messages: tuple[Message | Rejected, ...]
    checkpoint: str
    more: bool = False
    """True when another pull right now would return more."""


@attrs.frozen
class Receipt:
    """What a provider answered to a write. Line numbers pair our line id with the provider's."""

    number: str
    line_numbers: tuple[tuple[str, str], ...] = ()
    line_errors: tuple[tuple[str, str], ...] = ()
    details: str = ""


class OrderSource(Protocol):
    """A channel or ERP that orders come from."""

    @property
    def system(self) -> System: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what is new since *checkpoint* (``""``: from the beginning), as messages or rejections.

        An order that can't be read becomes one `Rejected`; the others are still returned.
        """
        ...

    def read(self, external_id: str, now: datetime) -> tuple[Message | Rejected, ...]:
        """Read one order again, for example because a webhook hinted at it."""
        ...

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Authenticate a webhook and return the external order ids it hints at; never trusts its content.

        A forged, oversized or malformed delivery is `Refused`.
        """
        ...


@attrs.frozen
class StatusUpdate:
    """What to tell a channel. *key* is the same on every retry; *stage* is ``"shipped"``, ``"partially shipped"``,
    ``"completed"`` or ``"canceled"``.
    """

    key: str
    stage: str


class StatusSink(Protocol):
    """A channel that hears what became of its order."""

    @property
    def system(self) -> System: ...

    def update(self, order: SalesOrder, update: StatusUpdate) -> Result[Receipt, Refused]:
        """Tell the channel the status, and every shipment of *order* it hasn't heard of, each once."""
        ...


@attrs.frozen
class FulfillmentRequest:
    """Ask a provider to ship one fulfillment order. *key* is the same on every retry."""

    key: str
    order: SalesOrder
    fulfillment_order: str
    """The id of the fulfillment order within *order*."""


class FulfillmentProvider(Protocol):
    """Someone who owns a warehouse and will ship for us."""

    @property
    def system(self) -> System: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    def submit(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Ask for one fulfillment order to be shipped; the same key again returns the first receipt."""
        ...

    def cancel(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Take a fulfillment order back, if the provider still can."""
        ...

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what happened at the provider since *checkpoint*: picked, packed, shipped, canceled."""
        ...


@attrs.frozen
class ErpRequest:
    """Send an order, or those of its lines named in *lines* (ours), to the ERP. *key* is the same on every retry."""

    key: str
    order: SalesOrder
    lines: tuple[str, ...] = ()
    """Empty: the whole order."""


class ErpOrders(Protocol):
    """An ERP that shares our sales orders (dual-write): header and lines, under the sync filters."""

    @property
    def system(self) -> System: ...

    def send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        """Create or complete the order in the ERP, each header and line once.

        A header failure refuses the whole; a line failure is returned in ``Receipt.line_errors`` and does not
        stop other lines.
        """
        ...

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what happened to orders in the ERP: picked, packed and delivered (shipped), invoiced, canceled."""
        ...


@attrs.frozen
class BillingRequest:
    """Ask a ledger to bill what was shipped of *order*. *key* is the same on every retry."""

    key: str
    order: SalesOrder
    lines: tuple[str, ...] = ()


class Ledger(Protocol):
    """A system that accounts for orders."""

    @property
    def system(self) -> System: ...

    def bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        """Ask for an invoice over what was shipped; the invoice itself arrives by `pull`."""
        ...

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return invoices posted since *checkpoint*."""
        ...


@attrs.frozen
class Stock:
    """What one source has of one product, in the product's base unit."""

    source: SourceId
    product: ProductId
    available: Decimal


class Inventory(Protocol):
    """Stock that can be asked for, reserved, released and consumed."""

    def available(self, products: Sequence[ProductId]) -> tuple[Stock, ...]:
        """Return what may still be promised, per source and product."""
        ...

    def reserve(self, key: str, source: SourceId, product: ProductId, quantity: Decimal) -> Result[str, Refused]:
        """Soft-reserve; the same key again returns the first reservation's id, unless it was released in between."""
        ...

    def release(self, key: str) -> None:
        """Give a reservation back; unknown and released keys change nothing."""
        ...

    def consume(self, key: str, quantity: Decimal) -> None:
        """Turn reserved stock into shipped stock; repeating it changes nothing."""
        ...


class Distances(Protocol):
    """How far two places are apart."""

    def kilometers(self, origin: GeoPoint, destination: GeoPoint) -> float:
        """Return the distance in kilometers."""
        ...


class ShippingRates(Protocol):
    """What a carrier asks for a parcel."""

    def rate(self, carrier: str, origin: GeoPoint, destination: GeoPoint, weight: Decimal) -> Money | None:
        """Return the rate, or ``None`` when the carrier has none (the rate-factor table then applies)."""
        ...


@attrs.frozen
class Waiting:
    """A message that names an order we don't know yet; it is tried again when that order gets its number."""

    message: Message
    since: datetime


class Unit(Protocol):
    """One transaction of a store: everything done in it happens, or nothing. It sees its own orders, their numbers,
    its checkpoints and the messages it has accepted.
    """

    def accept(self, message_id: MessageId, at: datetime) -> bool:
        """Mark a message as seen; ``False`` when it was before, and nothing may be done for it."""
        ...

    def order(self, order_id: OrderId) -> SalesOrder | None:
        """Load an order."""
        ...

    def find(self, system: System, external_id: str) -> OrderId | None:
        """Return which order an outside system knows by *external_id*: its own number there, or that of one of its
        fulfillment orders.
        """
        ...

    def save(
        self, order: SalesOrder, before: SalesOrder | None, events: Sequence[Happened], commands: Sequence[Command]
    ) -> None:
        """Save a changed order with what happened and what is to be done.

        Raises `Conflict` when the stored version is not that of *before*, and when another order has one of the order's
        outside numbers: the caller starts over.
        """
        ...

    def finish(self, command_key: str) -> None:
        """Take a command out of the outbox: its outcome has been decided on."""
        ...

    def wait(self, message: Message, at: datetime) -> None:
        """Keep a message that names an order nobody knows yet."""
        ...

    def waiting(self, system: System, external_id: str) -> tuple[Waiting, ...]:
        """Take out the messages that wait for this number."""
        ...

    def checkpoint(self, puller: str) -> str:
        """Return where a puller stands; ``""`` before its first run."""
        ...

    def set_checkpoint(self, puller: str, value: str) -> None:
        """Remember where a puller stands."""
        ...

    def add_error(self, error: ErrorRecord) -> None:
        """Add to one of the four error lists; the same id again changes nothing."""
        ...


class Conflict(Exception):
    """Somebody else saved the order first; load it again and decide again."""


@attrs.frozen
class Due:
    """A command handed out to be run. *attempt* counts from 1; *first_at* is when it was first tried."""

    command: Command
    attempt: int
    first_at: datetime


class OrderStore(Protocol):
    """Where orders live: the unit of work, the outbox as a queue, and what people look at."""

    def begin(self) -> AbstractContextManager[Unit]:
        """Open a transaction; it commits when the block ends and rolls back when it raises."""
        ...

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        """Hand out up to *limit* commands that are due, at most one per order, not again before *lease_until*, and none
        for the providers in *skip*: an order whose next command is for one of them gets no other.

        A command whose lease ended is handed out again: its runner died.
        """
        ...

    def postpone(self, command_key: str, until: datetime, why: str) -> None:
        """Give a command back to be tried again at *until*."""
        ...

    def next_due(self) -> datetime | None:
        """Return when the next command is due, in UTC; for one that is out, the end of its lease; ``None`` when the
        outbox is empty.
        """
        ...

    def load(self, order_id: OrderId) -> SalesOrder | None:
        """Load an order outside a transaction."""
        ...

    def orders(self) -> Iterator[SalesOrder]:
        """Yield every order, by id."""
        ...

    def events(self, order_id: OrderId) -> tuple[Happened, ...]:
        """Return everything that happened to an order, oldest first."""
        ...

    def errors(self, kind: str | None = None) -> tuple[ErrorRecord, ...]:
        """Return the active errors, of one kind or all."""
        ...

    def deactivate_error(self, error_id: str) -> bool:
        """Take an error off the active list; ``False`` when there is none of that id."""
        ...

    def still_waiting(self) -> tuple[Waiting, ...]:
        """Return the messages that name orders nobody knows."""
        ...


class Engine(Protocol):
    """Runs what the orchestrator decided: commands from the outbox, pullers and jobs on their schedules."""

    def schedule(self, name: str, every: float, job: Callable[[datetime], None]) -> None:
        """Run *job* every *every* seconds, once at a time."""
        ...

    def start(self) -> None:
        """Begin; also takes up what an earlier process left undone."""
        ...

    def stop(self) -> None:
        """Finish what is running, start nothing new, and return when done."""
        ...
