"""What a type checker sees of the public surface; checked, never run. Names here are those users import."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import assert_type

from returns.result import Failure, Result

from iom_core import (
    Change,
    Decision,
    Flow,
    FlowBuilder,
    Message,
    Money,
    OrderDraft,
    Refused,
    SalesOrder,
    Setup,
    StateFramework,
    decide,
    failed,
    from_json,
    to_json,
)
from iom_core.ports import ErpOrders, FulfillmentProvider, Inventory, Ledger, OrderSource, OrderStore, StatusSink
from iom_core.scenarios import SCENARIOS, Scenario
from iom_core.testing import FakeChannel, FakeErp, FakeFulfiller, FakeInventory, FakeLedger, MemoryStore, World
from iom_core.values import OrderId


def results_narrow_to_both_sides(result: Result[int, Refused]) -> int:
    if failed(result):
        assert_type(result, Failure[Refused])
        assert_type(result.failure(), Refused)
        return 0
    assert_type(result.unwrap(), int)
    return result.unwrap()


def a_decision_is_a_value(order: SalesOrder | None, message: Message, setup: Setup) -> None:
    assert_type(decide(order, message, setup), Result[Decision, Refused])
    assert_type(decide(order, message, setup).unwrap().order, SalesOrder)


def an_aggregate_answers_with_a_change(order: SalesOrder, now: datetime) -> None:
    assert_type(order.raise_event("order picked", now), Result[Change, Refused])
    assert_type(order.assign({"company": "usmf"}), Result[Change, Refused])
    assert_type(order.shipped("1"), Decimal)


def json_comes_back_as_what_was_asked_for(text: str) -> None:
    assert_type(from_json(text, Flow), Flow)
    assert_type(from_json(text, SalesOrder), SalesOrder)
    assert_type(to_json(FlowBuilder("example").validate_header().build()), str)


def money_stays_money(price: Money) -> None:
    assert_type(price + price, Money)
    assert_type(-price, Money)
    assert_type(price.split([1, 2]), tuple[Money, ...])


def tables_are_extended_not_changed(states: StateFramework) -> None:
    assert_type(states.with_entity(states.order.with_more()), StateFramework)


def a_world_gives_orders(world: World) -> None:
    assert_type(world.receive({"CHAIR": 1}), OrderId)
    assert_type(world.order(world.receive({"CHAIR": 1})), SalesOrder)
    assert_type(world.draft({"CHAIR": 1}), OrderDraft)
    assert_type(SCENARIOS, Mapping[str, Scenario])


def fakes_keep_the_ports() -> None:
    source: OrderSource = FakeChannel()
    sink: StatusSink = FakeChannel()
    erp: ErpOrders = FakeErp()
    fulfiller: FulfillmentProvider = FakeFulfiller()
    ledger: Ledger = FakeLedger()
    inventory: Inventory = FakeInventory()
    store: OrderStore = MemoryStore()
    assert_type((source.system, sink.system) is None, bool)
    assert_type((erp, fulfiller, ledger, inventory, store) is None, bool)
