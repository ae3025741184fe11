"""Faults at every boundary: answers get lost, systems go down, products are blocked, and no unit is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_core import events as ev
from iom_core import scenarios
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import (
    CancelRequested,
    HoldReleased,
    HoldRequested,
    Message,
    Reprocess,
)
from iom_core.order import SalesOrder
from iom_core.outcome import failed
from iom_core.scenarios import SCENARIOS, Scenario
from iom_core.testing import World
from iom_core.testing.fakes import Failures
from iom_core.testing.world import units
from iom_core.values import MessageId, OrderId, System

LINES = {"CHAIR": 2, "LAMP": 1}
ALL = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())


def world(scenario: Scenario) -> World:
    made = World(scenario)
    if scenario.optimized:
        made.stock("Seattle", {"CHAIR": 10, "LAMP": 10})
    return made


def failures(here: World) -> Iterator[Failures]:
    yield from (here.channel.failures, here.erp.failures, here.flexe.failures, here.sap.failures)


def went_well(here: World, order_id: OrderId) -> SalesOrder:
    """Completed, every unit shipped once, every shipment and invoice once, and each told once."""
    order = here.order(order_id)
    assert order.status.state == ev.COMPLETED, here.timeline(order_id)
    counted = units(order)
    assert counted["ordered"] == counted["shipped"] + counted["canceled"]
    assert len({each.id for each in order.shipments}) == len(order.shipments)
    assert order.invoiced_total == order.total
    assert tuple(here.channel.told.get("101", ())) == here.scenario.told
    assert len(here.erp.orders) <= 1
    return order


@ALL
def test_every_answer_is_lost_once_and_nothing_happens_twice(scenario: Scenario) -> None:
    here = world(scenario)
    for each in failures(here):
        each.after.extend([Unavailable("x", "the answer was lost"), None] * 4)
    order_id = here.receive(LINES)
    here.run_until_quiet()
    went_well(here, order_id)
    assert here.store.errors() == ()


@ALL
def test_every_system_is_down_for_a_while_and_the_order_completes_later(scenario: Scenario) -> None:
    here = world(scenario)
    for each in failures(here):
        each.before.extend([Unavailable("x", "down", 30.0)] * 3)
    order_id = here.receive(LINES)
    here.run_until_quiet()
    went_well(here, order_id)


@given(
    name=st.sampled_from(sorted(SCENARIOS)),
    before=st.lists(st.lists(st.booleans(), max_size=12), min_size=4, max_size=4),
    after=st.lists(st.lists(st.booleans(), max_size=5), min_size=4, max_size=4),
    per_shipment=st.sampled_from([None, 1, 2]),
    lines=st.dictionaries(st.sampled_from(["CHAIR", "LAMP", "RUG"]), st.integers(1, 4), min_size=1),
)
def test_no_schedule_of_faults_loses_or_doubles_a_unit(
    name: str,
    before: list[list[bool]],
    after: list[list[bool]],
    per_shipment: int | None,
    lines: dict[str, int],
) -> None:
    here = World(SCENARIOS[name])
    here.stock("Seattle", {"CHAIR": 3, "LAMP": 9})
    here.stock("Chicago", {"CHAIR": 9, "RUG": 9})
    here.erp.per_shipment = here.flexe.per_shipment = None if per_shipment is None else Decimal(per_shipment)
    for each, down, lost in zip(failures(here), before, after):
        each.before.extend(Unavailable("x", "down") if flag else None for flag in down)
        each.after.extend(Unavailable("x", "lost") if flag else None for flag in lost)
    order_id = here.receive(lines)
    here.run_until_quiet()

    order = here.order(order_id)
    if order.status.state != ev.COMPLETED:
        # More faults in a row than an action is tried: held and listed, and one click away from going on.
        assert here.store.errors()
        for each in failures(here):
            each.before.clear()
            each.after.clear()
        for number in range(20):
            here.say(here.message(f"again{number}", Reprocess(), order_id))
            here.run_until_quiet()
    order = here.order(order_id)
    assert order.status.state == ev.COMPLETED
    assert units(order)["shipped"] == sum(lines.values())
    assert order.invoiced_total == order.total
    assert len(here.erp.orders) <= 1
    assert len({each.id for each in order.shipments}) == len(order.shipments)


@pytest.mark.parametrize("scenario", ["S1", "S2", "S3", "S5", "S6"])
def test_sending_without_an_answer_is_in_doubt_and_reprocessing_creates_nothing_twice(scenario: str) -> None:
    chosen = scenarios.named(scenario)
    here = world(chosen)
    target = here.flexe.failures if chosen.fulfiller == "flexe" else here.erp.failures
    order_id = here.receive(LINES)
    here.pull()
    target.after.extend([Unavailable("x", "the answer was lost")] * 8)
    here.clock.advance(1)
    while here.store.next_due() is not None:
        here.drain()
        due = here.store.next_due()
        if due is not None:
            here.clock.jump(due)

    doubtful = here.order(order_id)
    assert (doubtful.status.state, doubtful.status.reason) == (ev.ON_HOLD, ev.SENDING_IN_DOUBT)
    assert [each.kind for each in here.store.errors()] == ["provider action"]
    refused = here.orchestrator.handle(here.message("cancel", CancelRequested(), order_id))
    assert failed(refused)
    assert refused.failure().code == "in-fulfillment", "the provider may have it already"

    here.say(here.message("again", Reprocess(), order_id))
    here.run_until_quiet()
    went_well(here, order_id)
    assert len(here.flexe.placed) == (1 if chosen.fulfiller == "flexe" else 0)


def test_what_ships_while_sending_is_in_doubt_waits_and_is_not_lost() -> None:
    here = world(scenarios.BIGCOMMERCE_FLEXE_FNO)
    here.flexe.failures.after.extend([Unavailable("flexe", "lost")] * 8)
    order_id = here.receive(LINES)
    here.run_until_quiet()
    assert here.order(order_id).status.reason == ev.SENDING_IN_DOUBT
    assert [each.id for each in here.order(order_id).parked] or here.store.still_waiting()

    here.say(here.message("again", Reprocess(), order_id))
    here.run_until_quiet()
    went_well(here, order_id)
    assert here.order(order_id).parked == ()


@pytest.mark.parametrize("fault", [Misunderstood("flexe", "no JSON"), Misconfigured("flexe", "wrong key")])
def test_a_fault_that_trying_again_can_not_mend_is_reported_at_once(fault: Exception) -> None:
    here = world(scenarios.BIGCOMMERCE_FLEXE_FNO)
    order_id = here.receive(LINES)
    here.pull()
    here.flexe.failures.before.append(fault)
    here.drain()

    assert here.order(order_id).status.reason == ev.SENDING_FAILED
    assert [str(fault).partition(": ")[2] in each.what for each in here.store.errors()] == [True]
    here.say(here.message("again", Reprocess("Send to Flexe"), order_id))
    here.run_until_quiet()
    went_well(here, order_id)


def test_a_business_no_holds_the_order_until_it_is_reprocessed_or_canceled() -> None:
    for end in ("reprocess", "cancel"):
        here = world(scenarios.BIGCOMMERCE_FLEXE_FNO)
        here.flexe.refuses = "we do not ship rugs"
        order_id = here.receive({"RUG": 1})
        here.run_until_quiet()
        held = here.order(order_id)
        assert (held.status.state, held.status.reason) == (ev.ON_HOLD, ev.SENDING_FAILED)
        assert "we do not ship rugs" in here.store.errors("provider action")[0].what

        if end == "cancel":
            here.say(here.message("cancel", CancelRequested(), order_id))
            here.run_until_quiet()
            assert here.order(order_id).status.state == ev.CANCELED
            assert here.flexe.placed == {}
        else:
            here.flexe.refuses = ""
            here.say(here.message("again", Reprocess(), order_id))
            here.run_until_quiet()
            went_well(here, order_id)


@pytest.mark.parametrize("scenario", ["S1", "S6"])
def test_a_blocked_product_holds_its_line_the_others_go_on_and_it_follows_when_unblocked(scenario: str) -> None:
    chosen = scenarios.named(scenario)
    here = world(chosen)
    here.erp.blocked["LAMP"] = "product LAMP is blocked for sale"
    order_id = here.receive(LINES)
    here.run_until_quiet()

    order = here.order(order_id)
    chair, lamp = order.lines
    assert (lamp.status.state, lamp.status.reason) == (ev.LINE_ON_HOLD, ev.SYNC_ERROR)
    assert lamp.sync_error == "product LAMP is blocked for sale"
    assert (chair.status.state, chair.invoiced) == (ev.COMPLETED, Decimal(2))
    assert order.status.reason == ev.PARTIALLY_INVOICED
    assert [each.category for each in here.store.errors()] == ["sync-error"]
    fulfillment_order = order.fulfillment_orders[0]
    assert fulfillment_order.status.reason == ev.PARTIALLY_SHIPPED

    here.erp.blocked.clear()
    step = "Send order to fulfillment" if scenario == "S1" else "Send sales order lines to billing"
    here.say(here.message("again", Reprocess(step), order_id))
    here.drain()
    assert here.order(order_id).fulfillment_orders[0].status.reason == ev.PARTIALLY_SHIPPED, "what shipped stays so"
    here.run_until_quiet()

    order = here.order(order_id)
    assert order.status.state == ev.COMPLETED
    assert [line.sync_error for line in order.lines] == ["", ""]
    assert len(here.erp.orders) == 1
    assert order.invoiced_total == order.total


@pytest.mark.parametrize("scenario", ["S1", "S6"])
def test_when_every_product_is_blocked_the_action_is_refused(scenario: str) -> None:
    here = world(scenarios.named(scenario))
    here.erp.blocked |= {"LAMP": "blocked", "CHAIR": "blocked"}
    order_id = here.receive(LINES)
    here.run_until_quiet()

    order = here.order(order_id)
    assert order.status.state == ev.ON_HOLD
    assert {line.status.reason for line in order.lines} == {ev.SYNC_ERROR}
    assert {line.sync_error for line in order.lines} == {"blocked"}
    here.erp.blocked.clear()
    here.say(here.message("again", Reprocess(), order_id))
    here.run_until_quiet()
    went_well(here, order_id)


def test_an_order_that_only_backordered_lines_leave_is_not_called_sent_when_the_erp_takes_no_line() -> None:
    here = World(scenarios.BIGCOMMERCE_DOM_FNO)
    here.stock("Seattle", {"CHAIR": 2})
    here.erp.blocked["CHAIR"] = "blocked"
    order_id = here.receive(LINES)
    here.run_until_quiet()

    order = here.order(order_id)
    assert ev.SENT_TO_FULFILLMENT not in {each.reason for each in order.timeline}
    assert [line.status.reason for line in order.lines] == [ev.SYNC_ERROR, ev.BACKORDER_HOLD]


def test_a_hold_keeps_an_order_back_and_its_release_lets_it_go_on() -> None:
    here = world(scenarios.BIGCOMMERCE_DOM_FNO)
    order_id = here.receive(LINES)
    here.pull()
    here.say(here.message("hold", HoldRequested("credit hold", "limit exceeded"), order_id))
    here.run_until_quiet()

    assert here.erp.orders == {}
    assert [each.name for each in here.order(order_id).holds] == ["credit hold"]

    here.say(here.message("release", HoldReleased("credit hold"), order_id))
    here.run_until_quiet()
    assert here.order(order_id).holds == ()
    went_well(here, order_id)


def test_an_order_canceled_while_a_command_is_out_stays_canceled() -> None:
    here = world(scenarios.BIGCOMMERCE_DOM_FNO)
    order_id = here.receive(LINES)
    here.pull()
    here.say(here.message("cancel", CancelRequested(), order_id))
    here.run_until_quiet()

    order = here.order(order_id)
    assert order.status.state == ev.CANCELED
    assert units(order) == {"ordered": 3, "shipped": 0, "canceled": 3, "open": 0}
    assert here.erp.orders == {}
    assert here.store.errors() == ()


def test_a_line_canceled_while_the_optimizer_thinks_does_not_keep_the_others_back() -> None:
    here = world(scenarios.BIGCOMMERCE_DOM_FNO)
    order_id = here.receive(LINES)
    here.pull()
    (due,) = here.store.due(here.clock(), 1, here.clock())
    outcome = here.orchestrator.perform(due.command, here.order(order_id))
    here.say(here.message("cancel", CancelRequested(("2",)), order_id))
    here.orchestrator.settle(due.command, outcome, here.clock())
    here.run_until_quiet()

    order = here.order(order_id)
    assert [line.status.state for line in order.lines] == [ev.COMPLETED, ev.CANCELED]
    assert order.status.state == ev.COMPLETED
    assert here.store.errors() == ()


def test_the_channel_cancels_before_anything_is_sent() -> None:
    here = world(scenarios.BIGCOMMERCE_DOM_FNO)
    order_id = here.receive(LINES)
    here.pull()
    here.channel.cancel("101", here.clock())
    here.run_until_quiet()
    assert here.order(order_id).status.state == ev.CANCELED
    assert here.erp.orders == {}


def test_the_channel_cancels_too_late_and_everybody_sees_it() -> None:
    here = world(scenarios.BIGCOMMERCE_FNO_FNO)
    order_id = here.receive(LINES)
    here.pull()
    here.drain()
    here.channel.cancel("101", here.clock())
    here.run_until_quiet()
    went_well(here, order_id)
    assert ["can't be canceled" in each.what for each in here.store.errors("provider inbound")] == [True]


def test_the_erp_cancels_the_rest_of_a_partly_shipped_order() -> None:
    here = world(scenarios.BIGCOMMERCE_FNO_FNO)
    here.erp.per_shipment = Decimal(1)
    order_id = here.receive({"CHAIR": 3})
    here.pull()
    here.drain()
    here.work()
    here.work()
    here.erp.cancel("000001", here.clock())
    here.run_until_quiet()
    order = here.order(order_id)
    assert units(order) == {"ordered": 3, "shipped": 1, "canceled": 2, "open": 0}
    assert order.status.reason == ev.PACKED
    assert here.channel.told["101"][-1] == "shipped"


def test_nobody_waits_for_a_puller_that_is_down_at_the_wrong_moment() -> None:
    here = world(scenarios.FNO_FNO_FNO)
    order_id = here.receive(LINES)
    here.erp.failures.before.extend([Unavailable("fno", "down")] * 30)
    here.run_until_quiet()
    assert here.order(order_id).status.state == ev.COMPLETED


def test_a_message_about_an_unknown_order_waits_visibly_and_is_applied_when_the_order_gets_its_number() -> None:
    here = world(scenarios.BIGCOMMERCE_FNO_FNO)
    early = Message(MessageId("early"), System("fno"), HoldRequested("vip", ""), here.clock(), external_id="000001")
    here.say(early)
    assert [each.message.id for each in here.store.still_waiting()] == ["early"]
    order_id = here.receive(LINES)
    here.run_until_quiet()
    assert here.store.still_waiting() == ()
    assert here.order(order_id).status.state == ev.COMPLETED
    assert [each.message_id for each in here.store.errors("provider inbound")] == ["early"], "a hold came too late"
