"""Orders, flows and setups that the tests of the core share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
from returns.result import Result

from iom_core import events as ev
from iom_core import scenarios
from iom_core.decide import Decision, Setup, decide
from iom_core.flow import Catalog, Flow, FlowStatus
from iom_core.messages import (
    ActionDone,
    Body,
    Invoiced,
    LineQuantity,
    Message,
    NewOrder,
    OrderDraft,
    OrderLineDraft,
    Packed,
    Picked,
    Shipped,
)
from iom_core.order import Change, Command, SalesOrder, receive
from iom_core.outcome import Refused
from iom_core.policies import Policy
from iom_core.values import Address, MessageId, Money, OrderId, ProductId, Quantity, System

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
FLEXE = System("flexe")
FNO = System("fno")
SHOP = System("bigcommerce")
WHERE = Address("Jane Roe", "", "1 Main St", "", "Redmond", "WA", "98052", "US")


def usd(amount: str | int) -> Money:
    return Money.of(amount, "USD")


def units(*quantities: tuple[str, int | str]) -> tuple[LineQuantity, ...]:
    return tuple(LineQuantity(line, Decimal(quantity)) for line, quantity in quantities)


def draft(*quantities: int, digital: tuple[int, ...] = (), price: str = "10.00", number: str = "7") -> OrderDraft:
    lines = tuple(
        OrderLineDraft(
            f"L{n}",
            ProductId(f"P{n}"),
            Quantity.of(quantity),
            usd(str(Decimal(price) * quantity)),
            digital=n in digital,
        )
        for n, quantity in enumerate(quantities, 1)
    )
    return OrderDraft(
        number, "USD", sum((line.total for line in lines), usd(5)), lines, NOW, usd(5), usd(0), usd(0), WHERE, WHERE
    )


def new(*quantities: int, digital: tuple[int, ...] = ()) -> SalesOrder:
    """An order as it arrives: state New."""
    return receive(OrderId("O-7"), SHOP, draft(*quantities, digital=digital), NOW).unwrap().order


def validated(*quantities: int, digital: tuple[int, ...] = ()) -> SalesOrder:
    """An order whose header and lines are valid: In Progress."""
    order = new(*quantities, digital=digital).raise_event(ev.HEADER_VALID, NOW).unwrap().order
    return order.raise_on_lines(ev.LINES_VALID, NOW).unwrap().order


def sent(*quantities: int, provider: System = FLEXE, digital: tuple[int, ...] = ()) -> SalesOrder:
    """An order its provider works on: Fulfillment in Process / Sent To Fulfillment."""
    created = validated(*quantities, digital=digital).create_fulfillment_orders(provider, NOW, digital=False).unwrap()
    return created.order.sent(ev.SENT, NOW, provider=provider).unwrap().order


def moved(result: Result[Change, Refused]) -> SalesOrder:
    return result.unwrap().order


def status(order: SalesOrder) -> str:
    return f"{order.status.state} / {order.status.reason}"


def line_status(order: SalesOrder, line: str = "1") -> str:
    found = order.line(line)
    assert found is not None
    return f"{found.status.state} / {found.status.reason}"


# -- decisions without a store: a message in, a decision out ----------------------------------------------------------


def setup(
    flow: Flow = scenarios.S1,
    *policies: Policy,
    backorders: bool = True,
    catalog: Catalog | None = None,
    status: FlowStatus = FlowStatus.PUBLISHED,
) -> Setup:
    known = catalog or scenarios.CATALOG
    named = attrs.evolve(known, policies={**known.policies, **{each.name: each for each in policies}})
    return Setup((attrs.evolve(flow, status=status),), named, prefixes={"bigcommerce": "BC-"}, backorders=backorders)


class Life:
    """One order told messages by hand; remembers the commands that are out and the errors that were listed."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.order: SalesOrder | None = None
        self.out: list[Command] = []
        self.errors: list[str] = []
        self.count = 0

    def tell(self, body: Body, system: System = FNO, name: str = "", external_id: str = "") -> Decision:
        decided = self.try_telling(body, system, name, external_id)
        return decided.unwrap()

    def try_telling(
        self, body: Body, system: System = FNO, name: str = "", external_id: str = ""
    ) -> Result[Decision, Refused]:
        self.count += 1
        message = Message(
            MessageId(name or f"m{self.count}"), system, body, NOW + timedelta(minutes=self.count), external_id
        )
        decided = decide(self.order, message, self.setup)
        decision = decided.value_or(None)
        if decision is not None:
            self.order = decision.order
            self.out += decision.commands
            self.errors += [f"{each.kind}: {each.what}" for each in decision.errors]
        return decided

    def begin(self, *quantities: int, digital: tuple[int, ...] = ()) -> SalesOrder:
        return self.tell(NewOrder(draft(*quantities, digital=digital)), SHOP).order

    def succeed(self, done: ActionDone | None = None) -> SalesOrder:
        """Let the oldest command that is out succeed."""
        command = self.out.pop(0)
        outcome = attrs.evolve(done or ActionDone(""), key=command.key)
        return self.tell(outcome, command.provider).order

    @property
    def now(self) -> SalesOrder:
        assert self.order is not None
        return self.order


def step_states(order: SalesOrder) -> dict[str, str]:
    return {f"{each.step}{'/' if each.record else ''}{each.record}": each.state for each in order.flows[0].steps}


def picked(*quantities: tuple[str, int | str]) -> Picked:
    return Picked(units(*quantities))


def packed(*quantities: tuple[str, int | str]) -> Packed:
    return Packed(units(*quantities))


def shipped(name: str, *quantities: tuple[str, int | str]) -> Shipped:
    return Shipped(name, units(*quantities), NOW)


def invoiced(number: str, total: str, *quantities: tuple[str, int | str]) -> Invoiced:
    return Invoiced(number, units(*quantities), usd(total), NOW)
