"""Providers: what connects a port to flows — its actions by the product's names, its pullers and its notifications.

A scenario names providers and actions; these functions build them from any object that implements the port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol

import attrs
from returns.result import Failure, Result, Success

from iom_core import events as ev
from iom_core.allocation import Source, source_lines
from iom_core.decide import INTERNAL
from iom_core.flow import ActionDefinition, Catalog, Effect, ProviderDefinition
from iom_core.messages import ActionDone, Message, Rejected
from iom_core.order import Command, SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.policies import Policy
from iom_core.ports import (
    BillingRequest,
    ErpOrders,
    ErpRequest,
    FulfillmentProvider,
    FulfillmentRequest,
    Inventory,
    Ledger,
    OrderSource,
    Pulled,
    Receipt,
    StatusSink,
    StatusUpdate,
)
from iom_core.values import ProductId, System

Run = Callable[[SalesOrder, Command], Result[ActionDone, Refused]]
"""Runs a provider action for a command; a business no is refused, a fault is raised."""
Pull = Callable[[str, datetime], Pulled]
Read = Callable[[str, datetime], tuple[Message | Rejected, ...]]
Translate = Callable[[Mapping[str, str], bytes], Result[tuple[str, ...], Refused]]

# The product's names of provider actions
SEND_ORDER: Final = "Send order to fulfillment"
SEND_LINES: Final = "Send sales order lines to billing"
SEND_STATUS: Final = "Send order status"
SEND_FULFILLMENT_ORDER: Final = "Send fulfillment order"
SEND_INVOICE: Final = "Send to invoice"
UPDATE_SHIPPED: Final = "Update order status: shipped"
UPDATE_PARTIALLY_SHIPPED: Final = "Update order status: partially shipped"
UPDATE_COMPLETED: Final = "Update order status: completed"
UPDATE_CANCELED: Final = "Update order status: canceled"
OPTIMIZE: Final = "Send to fulfillment optimization"
CREATE_FULFILLMENT: Final = "Create fulfillment orders"

OPTIMIZER: Final = System("fulfillment-optimization")

SHIPPING_EVENTS: Final = frozenset(
    {
        ev.ORDER_PARTIALLY_PICKED,
        ev.ORDER_PICKED,
        ev.ORDER_PARTIALLY_PACKED,
        ev.ORDER_PACKED,
        ev.ORDER_PARTIALLY_SHIPPED,
        ev.ORDER_SHIPPED,
        ev.ORDER_CANCELED,
    }
) | {
    event
    for entity in (ev.FULFILLMENT_ORDER, ev.FULFILLMENT_LINE, ev.LINE)
    for stage in ev.PROGRESS[entity]
    for event in stage
}
BILLING_EVENTS: Final = frozenset({ev.ORDER_PARTIALLY_INVOICED, ev.ORDER_INVOICED, ev.BILLING_CONFIRMED})

STAGES: Final[Mapping[str, str]] = {
    UPDATE_SHIPPED: "shipped",
    UPDATE_PARTIALLY_SHIPPED: "partially shipped",
    UPDATE_COMPLETED: "completed",
    UPDATE_CANCELED: "canceled",
}
"""What each status update tells a channel."""

CHANNEL_ACTIONS: Final = tuple(ActionDefinition(name, Effect.TELL) for name in STAGES)
ERP_ACTIONS: Final = (
    ActionDefinition(SEND_ORDER, Effect.SEND, "order"),
    ActionDefinition(SEND_LINES, Effect.SEND, "lines"),
    ActionDefinition(SEND_STATUS, Effect.TELL, "order"),
)
FULFILLER_ACTIONS: Final = (ActionDefinition(SEND_FULFILLMENT_ORDER, Effect.SEND),)
LEDGER_ACTIONS: Final = (ActionDefinition(SEND_INVOICE, Effect.BILL),)
OPTIMIZER_ACTIONS: Final = (ActionDefinition(OPTIMIZE, Effect.OPTIMIZE),)
INTERNAL_ACTIONS: Final = (ActionDefinition(CREATE_FULFILLMENT, Effect.CREATE),)


class Webhooks(Protocol):
    """An adapter that understands its system's notifications: most of those that pull can also be told."""

    def read(self, external_id: str, now: datetime, /) -> tuple[Message | Rejected, ...]:
        """Read what a notification hinted at."""
        ...

    def translate(self, headers: Mapping[str, str], body: bytes, /) -> Result[tuple[str, ...], Refused]:
        """Authenticate a notification and return what it hints at."""
        ...


@attrs.frozen
class Action:
    """A provider action: its definition, and the function that runs it."""

    definition: ActionDefinition
    run: Run


@attrs.frozen
class Provider:
    """A provider with its connection: what a flow may name, and what the orchestrator calls."""

    name: System
    actions: Mapping[str, Action] = attrs.field(factory=dict)
    events: frozenset[str] = frozenset()
    pull: Pull | None = None
    read: Read | None = None
    translate: Translate | None = None

    @property
    def definition(self) -> ProviderDefinition:
        """Return the provider as flows see it."""
        return ProviderDefinition(
            self.name, {name: each.definition for name, each in self.actions.items()}, self.events
        )

    def __or__(self, other: Provider) -> Provider:
        """Join two roles of one system, for example an ERP that is also a ledger."""
        if self.name != other.name:
            raise ValueError(f"{self.name} and {other.name} are different systems")
        pulls = [each for each in (self.pull, other.pull) if each is not None]
        if len(pulls) > 1 and pulls[0] != pulls[1]:
            raise ValueError(f"{self.name} has two pullers; give one of its roles none")
        return Provider(
            self.name,
            {**self.actions, **other.actions},
            self.events | other.events,
            pulls[0] if pulls else None,
            self.read or other.read,
            self.translate or other.translate,
        )


def _done(command: Command, received: Result[Receipt, Refused]) -> Result[ActionDone, Refused]:
    return received.map(
        lambda receipt: ActionDone(
            command.key, receipt.details, receipt.number, receipt.line_numbers, receipt.line_errors
        )
    )


def _actions(definitions: Sequence[ActionDefinition], *runs: Run) -> dict[str, Action]:
    return {each.name: Action(each, run) for each, run in zip(definitions, runs, strict=True)}


def channel(source: OrderSource, sink: StatusSink | None = None) -> Provider:
    """A channel that orders come from and, with *sink*, that hears what became of them."""
    actions = {} if sink is None else _actions(CHANNEL_ACTIONS, *(_teller(sink, stage) for stage in STAGES.values()))
    return Provider(source.system, actions, frozenset(), source.pull, source.read, source.translate)


def _teller(sink: StatusSink, stage: str) -> Run:
    def tell(order: SalesOrder, command: Command) -> Result[ActionDone, Refused]:
        receipt = sink.update(order, StatusUpdate(command.key, stage))
        # The channel's number is known already; a receipt here says only that it has heard.
        return receipt.map(lambda told: ActionDone(command.key, told.details or f"told {stage}"))

    return tell


def _told(provider: Provider, webhooks: Webhooks | None) -> Provider:
    if webhooks is None:
        return provider
    return attrs.evolve(provider, read=webhooks.read, translate=webhooks.translate)


def erp(orders: ErpOrders, webhooks: Webhooks | None = None) -> Provider:
    """An ERP that shares our sales orders: it may fulfill them, account for them, or both.

    With *webhooks* (mostly the same adapter) its notifications are taken too.
    """

    def send(order: SalesOrder, command: Command) -> Result[ActionDone, Refused]:
        return _done(command, orders.send(ErpRequest(command.key, order)))

    def send_lines(order: SalesOrder, command: Command) -> Result[ActionDone, Refused]:
        lines = tuple(line.id for line in order.lines if line.warehouse and line.quantity > 0)
        if not lines:
            return Success(ActionDone(command.key, "no line has a shipping warehouse"))
        return _done(command, orders.send(ErpRequest(command.key, order, lines)))

    provider = Provider(
        orders.system,
        _actions(ERP_ACTIONS, send, send_lines, send),
        SHIPPING_EVENTS | BILLING_EVENTS,
        orders.pull,
    )
    return _told(provider, webhooks)


def fulfiller(provider: FulfillmentProvider, webhooks: Webhooks | None = None) -> Provider:
    """Somebody who ships fulfillment orders; with *webhooks* its notifications are taken too."""

    def submit(order: SalesOrder, command: Command) -> Result[ActionDone, Refused]:
        return _done(command, provider.submit(FulfillmentRequest(command.key, order, command.record)))

    ships = Provider(provider.system, _actions(FULFILLER_ACTIONS, submit), SHIPPING_EVENTS, provider.pull)
    return _told(ships, webhooks)


def ledger(accounts: Ledger, webhooks: Webhooks | None = None) -> Provider:
    """Somebody who invoices; with *webhooks* its notifications are taken too."""

    def bill(order: SalesOrder, command: Command) -> Result[ActionDone, Refused]:
        return _done(command, accounts.bill(BillingRequest(command.key, order)))

    books = Provider(accounts.system, _actions(LEDGER_ACTIONS, bill), BILLING_EVENTS, accounts.pull)
    return _told(books, webhooks)


def optimizer(inventory: Inventory, sources: Sequence[Source], name: System = OPTIMIZER) -> Provider:
    """Fulfillment optimization: decides which source ships which line, and reserves what it takes."""

    def optimize(order: SalesOrder, command: Command) -> Result[ActionDone, Refused]:
        taken = {each.line for fo in order.fulfillment_orders for each in fo.lines}
        open_lines = [line for line in order.lines if line.id not in taken and not line.digital and line.quantity > 0]
        # A lost outcome may have left reservations of an earlier run: they are given back before stock is asked for.
        for line in open_lines:
            for source in sources:
                inventory.release(f"{order.id}/{line.id}/{source.id}")
        products = tuple(dict.fromkeys(line.product for line in open_lines))
        stock: dict[tuple[str, ProductId], Decimal] = {
            (each.source, each.product): each.available for each in inventory.available(products)
        }
        plan = source_lines(open_lines, sources, stock)
        kept = []
        for each in plan:
            line = next(line for line in open_lines if line.id == each.line)
            reserved = inventory.reserve(
                f"{order.id}/{each.line}/{each.source}", each.source, line.product, each.quantity
            )
            if failed(reserved):
                continue
            kept.append(each)
        whole = [
            each
            for each in kept
            if sum((k.quantity for k in kept if k.line == each.line), Decimal(0))
            == next(line.quantity for line in open_lines if line.id == each.line)
        ]
        for each in kept:
            if each not in whole:
                inventory.release(f"{order.id}/{each.line}/{each.source}")
        details = f"{len({each.line for each in whole})} of {len(open_lines)} line(s) sourced"
        return Success(ActionDone(command.key, details, sourced=tuple(whole)))

    return Provider(name, _actions(OPTIMIZER_ACTIONS, optimize))


def internal() -> Provider:
    """The Internal Application Service: actions the core runs itself, within the decision."""

    def never(order: SalesOrder, command: Command) -> Result[ActionDone, Refused]:
        return Failure(Refused("internal", f"{command.action} is run by the core", "$"))

    return Provider(INTERNAL, _actions(INTERNAL_ACTIONS, never))


def catalog(providers: Mapping[System, Provider], policies: Sequence[Policy] = ()) -> Catalog:
    """Return what flows may name."""
    return Catalog(
        {name: provider.definition for name, provider in providers.items()}, {each.name: each for each in policies}
    )
