"""The World: everything wired in memory on a virtual clock, so that a scenario runs in a test as it would in a year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import attrs

from iom_core import providers as prov
from iom_core import scenarios
from iom_core.allocation import Source
from iom_core.decide import Setup
from iom_core.errors import Fault
from iom_core.flow import Flow, FlowStatus
from iom_core.messages import Body, Message, OrderDraft, OrderLineDraft
from iom_core.orchestrator import Orchestrator
from iom_core.order import SalesOrder
from iom_core.policies import Policy
from iom_core.ports import OrderStore
from iom_core.providers import Provider
from iom_core.scenarios import Scenario
from iom_core.testing.engine import FakeEngine
from iom_core.testing.fakes import (
    FakeChannel,
    FakeErp,
    FakeFulfiller,
    FakeInventory,
    FakeLedger,
    MemoryStore,
    VirtualClock,
)
from iom_core.values import Address, CompanyId, MessageId, Money, OrderId, ProductId, Quantity, SourceId, System

START: Final = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
"""A Monday morning: where every World begins unless told otherwise."""

SOURCES: Final = (
    Source(SourceId("Seattle"), "1", "11", 1),
    Source(SourceId("Chicago"), "1", "12", 2),
)
"""The sources of a World that optimizes and wasn't given its own."""


class World:
    """One scenario with its systems, in memory. Deterministic: the same calls give the same timeline."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        store: OrderStore | None = None,
        start: datetime = START,
        sources: Sequence[Source] = SOURCES,
        backorders: bool = True,
        policies: Sequence[Policy] = (),
        flow: Flow | None = None,
    ) -> None:
        self.scenario = scenario
        self.clock: VirtualClock = VirtualClock(start)
        self.store: OrderStore = MemoryStore() if store is None else store
        self.channel: FakeChannel = FakeChannel(scenarios.BIGCOMMERCE)
        self.erp: FakeErp = FakeErp(scenarios.FNO)
        self.flexe: FakeFulfiller = FakeFulfiller(scenarios.FLEXE)
        self.sap: FakeLedger = FakeLedger(scenarios.SAP)
        self.inventory: FakeInventory = FakeInventory()
        erp = prov.erp(self.erp)
        if scenario.channel == scenarios.FNO:
            erp |= attrs.evolve(prov.channel(self.erp), pull=None)
        connected = [
            prov.internal(),
            prov.channel(self.channel, self.channel),
            erp,
            prov.fulfiller(self.flexe),
            prov.ledger(self.sap),
            prov.optimizer(self.inventory, sources),
        ]
        self.providers: dict[System, Provider] = {each.name: each for each in connected}
        published = attrs.evolve(flow or scenario.flow, status=FlowStatus.PUBLISHED)
        setup = Setup(
            (published,),
            prov.catalog(self.providers, (*scenario.policies, *policies)),
            prefixes={scenarios.BIGCOMMERCE: "BC-", scenarios.FNO: "FO-"},
            backorders=backorders,
        )
        self.orchestrator: Orchestrator = Orchestrator(self.store, setup, self.providers, self.clock)
        self.engine: FakeEngine = FakeEngine(self.store, self.orchestrator, self.clock, limits=self.orchestrator.limits)
        self._numbers = 100
        self._down = False
        """Whether a puller could not be run: what it would have brought is still to come."""

    @classmethod
    def for_scenario(cls, scenario: Scenario) -> World:
        """Build a World with in-memory everything."""
        return cls(scenario)

    # -- what people and channels do -------------------------------------------------------------------------------

    def stock(self, source: str, products: Mapping[str, int]) -> None:
        """Put stock on the shelves of a source."""
        for product, quantity in products.items():
            self.inventory.put(source, product, quantity)

    def draft(
        self,
        lines: Mapping[str, int],
        *,
        country: str = "US",
        currency: str = "USD",
        price: str = "25.00",
        shipping: str = "5.00",
        digital: Sequence[str] = (),
    ) -> OrderDraft:
        """Write an order of *lines* (product → quantity) at one price each."""
        self._numbers += 1
        number = str(self._numbers)
        each = Money.of(price, currency)
        drafts = tuple(
            OrderLineDraft(
                f"{number}-{index}",
                ProductId(product),
                Quantity.of(quantity),
                Money.of(each.amount * quantity, currency),
                product.title(),
                digital=product in digital,
            )
            for index, (product, quantity) in enumerate(lines.items(), 1)
        )
        freight, none = Money.of(shipping, currency), Money.zero(currency)
        address = Address("Jane Roe", "", "1 Main St", "", "Redmond", "WA", "98052", country)
        fno = self.scenario.channel == scenarios.FNO
        return OrderDraft(
            number,
            currency,
            sum((line.total for line in drafts), freight),
            drafts,
            self.clock(),
            freight,
            none,
            none,
            address,
            address,
            channel=self.scenario.channel,
            company=CompanyId("demf" if country in ("DE", "AT", "FR") else "usmf") if fno else None,
            site="1" if fno else None,
            warehouse="11" if fno else None,
            ready_to_sync=fno,
        )

    def receive(self, lines: Mapping[str, int], *, country: str = "US", currency: str = "USD") -> OrderId:
        """Place an order in the scenario's channel, and return the number it will have here."""
        return self.place(self.draft(lines, country=country, currency=currency))

    def place(self, draft: OrderDraft) -> OrderId:
        """Place a drafted order in the scenario's channel."""
        if self.scenario.channel == scenarios.FNO:
            self.erp.enter(draft, self.clock(), ships=self.scenario.fulfiller == scenarios.FNO)
        else:
            self.channel.place(draft, self.clock())
        return self.orchestrator.setup.order_id(System(self.scenario.channel), draft.external_id)

    # -- time ------------------------------------------------------------------------------------------------------

    def pull(self) -> int:
        """Run every puller once; a provider that is down is left for later. Returns how many messages came."""
        taken = 0
        self._down = False
        for name, provider in self.providers.items():
            if provider.pull is not None:
                try:
                    taken += self.orchestrator.pull(name)
                except Fault:
                    self._down = True
        return taken

    def drain(self) -> int:
        """Run every command that is due; returns how many were run."""
        return self.engine.run_due()

    def work(self) -> int:
        """Let everybody outside do one step; returns how many things moved."""
        now = self.clock()
        return self.erp.work(now) + self.flexe.work(now) + self.sap.work(now)

    def run_until_quiet(self, rounds: int = 10_000) -> None:
        """Pull, run commands and let everybody work until nothing moves; the clock jumps over the waiting."""
        for _ in range(rounds):
            if self.pull_new() or self.drain():
                continue
            self.clock.advance(60)
            if self.work():
                continue
            due = self.store.next_due()
            if due is not None:
                self.clock.jump(due)
            elif not self._down:
                return
        raise RuntimeError(f"the World did not come to rest in {rounds} rounds")

    def pull_new(self) -> bool:
        """Run every puller; says whether a message came."""
        return self.pull() > 0

    def run_backorder_job(self) -> int:
        """Run the backorder job by hand; returns how many orders it reached."""
        return self.orchestrator.run_job(
            "backorder", "Backorder job due", held_for_stock(self.store), self.clock().isoformat()
        )

    def say(self, message: Message) -> None:
        """Hand a message to the orchestrator, as a webhook would."""
        self.orchestrator.handle(message)

    def message(self, name: str, body: Body, order: OrderId, system: str = "iom") -> Message:
        """Write a message about an order."""
        return Message(MessageId(name), System(system), body, self.clock(), order_id=order)

    # -- looking ---------------------------------------------------------------------------------------------------

    def order(self, order_id: OrderId) -> SalesOrder:
        """Return an order; raises `KeyError` when it isn't there."""
        order = self.store.load(order_id)
        if order is None:
            raise KeyError(order_id)
        return order

    def timeline(self, order_id: OrderId) -> str:
        """Return an order's timeline as text, a line per event."""
        order = self.order(order_id)
        width = max(len(each.event) for each in order.timeline)
        return "\n".join(f"{each.event:<{width}}  {each.state} / {each.reason}" for each in order.timeline)


def held_for_stock(store: OrderStore) -> tuple[SalesOrder, ...]:
    """Return the orders that have lines waiting for stock."""
    reasons = ("Backorder Hold", "Inventory not found")
    return tuple(order for order in store.orders() if any(line.status.reason in reasons for line in order.lines))


def units(order: SalesOrder) -> dict[str, Decimal]:
    """Return the order's units: ordered, shipped, canceled, open (the conservation law adds them up)."""
    ordered = sum((line.ordered.amount for line in order.lines), Decimal(0))
    shipped = sum((order.shipped(line.id) for line in order.lines), Decimal(0))
    canceled = sum((line.canceled for line in order.lines), Decimal(0))
    return {"ordered": ordered, "shipped": shipped, "canceled": canceled, "open": ordered - shipped - canceled}
