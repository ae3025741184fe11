"""S1 with the real adapters over their twins: the documented end, whatever happens to messages and answers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from returns.result import Failure

from iom_adapters._twin import Fault as Misbehavior
from iom_adapters.bigcommerce import samples
from iom_core import scenarios
from iom_core.testing import World
from tests.adapters.s1 import ERP, S1, SHOP


def orders(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Return the recorded orders (as paid ones), then generated ones."""
    recorded = [{**each, "status_id": 11} for each in samples.recorded_orders()]
    made = [samples.generate_order(random.Random(f"{seed}/{n}"), n) for n in range(max(0, count - len(recorded)))]
    return [*recorded, *made][:count]


def test_orders_reach_the_documented_end_in_every_system() -> None:
    """Each order is entered once, shipped once, invoiced once, and the shop is told twice."""
    s1 = S1()
    s1.place(*orders(25))
    s1.run()

    found = list(s1.store.orders())

    assert len(found) == 25
    for order in found:
        outcome = s1.outcome_of(order)
        assert outcome["status"] == ("Completed", "Fulfilled"), (order.id, s1.store.errors())
        assert (outcome["entered"], outcome["slips"], outcome["posted"]) == (1, 1, 1)
        assert outcome["lines"] == len(order.lines)
        assert outcome["told"] == [2, 10]
        assert order.invoiced_total == order.total
    assert s1.store.errors() == ()


def test_the_timeline_over_twins_is_the_timeline_in_memory() -> None:
    """The same scenario gives the same events, states and reasons with fakes and with adapters on twins."""
    s1 = S1()
    s1.place(orders(1)[0])
    s1.run()
    world = World.for_scenario(scenarios.BIGCOMMERCE_FNO_FNO)
    order_id = world.receive({"CHAIR": 2, "TABLE": 1})
    world.run_until_quiet()

    over_twins = [(each.event, each.state, each.reason) for each in next(s1.store.orders()).timeline]
    in_memory = [(each.event, each.state, each.reason) for each in world.order(order_id).timeline]

    assert in_memory == over_twins


@pytest.fixture(scope="module")
def quiet() -> dict[str, object]:
    """The outcome of two orders when nothing goes wrong."""
    s1 = S1()
    s1.place(*orders(2))
    s1.run()
    return s1.outcome()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_notifications_twice_and_in_any_order_change_nothing(data: st.DataObject, quiet: dict[str, object]) -> None:
    """Every recorded webhook, delivered twice and in any order among the rounds of a life, leaves the same outcome."""
    recording = S1()
    recording.register_hook()
    recording.place(*orders(2))
    recording.run()
    assert recording.hooks
    deliveries = data.draw(st.permutations(recording.hooks * 2))

    s1 = S1()
    s1.place(*orders(2))
    for delivery in deliveries:
        s1.notify(*delivery)
        if data.draw(st.booleans()):
            s1.round()
    s1.run()

    assert quiet == s1.outcome()


@pytest.mark.parametrize("kind", ["lost", "refuse", "status"])
@pytest.mark.parametrize("at", ["shop", "fno"])
def test_a_fault_at_any_call_changes_nothing_in_the_outcome(kind: str, at: str, quiet: dict[str, object]) -> None:
    """An answer lost after applying, a connection cut before, a 503: at every single call of two orders' lives."""
    reference = S1()
    reference.place(*orders(2))
    reference.run()
    calls = (reference.shop if at == "shop" else reference.erp).faults.calls
    step = 1 if kind == "lost" else 4
    for position in range(0, min(calls, 60), step):
        s1 = S1()
        s1.place(*orders(2))
        s1.plan(Misbehavior(kind, after=position, status=503), at=at)
        s1.run()

        assert quiet == s1.outcome(), f"{kind} at call {position} to {at}: {s1.store.errors()}"


def test_a_shop_that_moves_the_status_by_itself_is_told_no_less() -> None:
    """Whether a shipment moves the order's status in the shop is unsure: both ways end alike."""
    s1 = S1(shop_moves_status=True)
    s1.place(*orders(3))
    s1.run()

    for order in s1.store.orders():
        outcome = s1.outcome_of(order)
        assert outcome["status"] == ("Completed", "Fulfilled")
        assert outcome["told"] == [2, 10]


def test_partial_deliveries_reach_the_shop_one_by_one() -> None:
    """Two packing slips become two shipments; the shop hears partially shipped, shipped, completed."""
    s1 = S1()
    (number,) = s1.place(orders(1)[0])
    s1.try_(lambda: s1.orchestrator.pull(SHOP))
    s1.engine.run_due()
    sales_order = str(s1.erp.orders()[0]["SalesOrderNumber"])
    s1.erp.pick(sales_order)
    s1.clock.advance(60)
    first = s1.erp.lines(sales_order)[0]
    s1.erp.pack(sales_order, {str(first["InventoryLotId"]): 5})
    for _ in range(3):
        s1.try_(lambda: s1.orchestrator.pull(ERP))
        s1.engine.run_due()
        s1.clock.advance(60)
    (order,) = s1.store.orders()

    assert (order.status.state, order.status.reason) == ("Fulfillment in Process", "Partially Shipped")
    assert s1.shop.status_history(number)[1:] == [3]

    s1.run()
    (order,) = s1.store.orders()

    assert (order.status.state, order.status.reason) == ("Completed", "Fulfilled")
    assert s1.shop.status_history(number)[1:] == [3, 2, 10]
    assert order.invoiced_total == order.total
    shipped = sum(item["quantity"] for parcel in s1.shop.shipments(number) for item in parcel["items"])
    assert shipped == sum(line.ordered.amount for line in order.lines)


def test_an_item_the_erp_blocks_leaves_a_sync_error_and_the_others_go_on() -> None:
    """Infolog text lands on the line; once the item is released, reprocessing the step sends the rest, once."""
    from iom_core.messages import Message, Reprocess
    from iom_core.values import MessageId, System

    s1 = S1()
    s1.place(orders(1)[0])
    blocked = str(samples.CATALOG[2].sku)
    s1.erp.block_item(blocked)
    s1.run()
    (order,) = s1.store.orders()
    held = next(line for line in order.lines if line.product == blocked)

    assert (held.status.state, held.status.reason) == ("Sales Order Product on Hold", "Sync Error")
    assert "blocked" in held.sync_error
    assert order.status.state == "Fulfillment in Process"

    s1.erp.block_item(blocked, False)
    s1.orchestrator.handle(
        Message(
            MessageId("again"), System("iom"), Reprocess("Send order to fulfillment"), s1.clock(), order_id=order.id
        )
    )
    s1.run()
    (order,) = s1.store.orders()

    assert (order.status.state, order.status.reason) == ("Completed", "Fulfilled")
    assert len(s1.erp.orders(order.id)) == 1
    assert order.invoiced_total == order.total


def test_an_invoice_event_of_the_erp_brings_the_invoice_before_the_puller_does() -> None:
    """The business event is a hint, authenticated by our own secret; the invoice is read from F&O."""
    s1 = S1(erp_secret="events secret")
    s1.place(orders(1)[0])
    events: list[bytes] = []
    s1.erp.deliver = events.append
    for _ in range(3):
        s1.round()
    assert events, "the invoice was posted"
    (order,) = s1.store.orders()
    assert order.invoices == ()

    forged = s1.orchestrator.webhook(ERP, {"x-iom-secret": "guess"}, events[0])
    numbers = s1.orchestrator.webhook(ERP, {"x-iom-secret": "events secret"}, events[0]).unwrap()
    for number in numbers:
        s1.orchestrator.follow(ERP, number)
    (order,) = s1.store.orders()

    assert isinstance(forged, Failure)
    assert len(order.invoices) == 1
    assert order.status.state == "Completed"
