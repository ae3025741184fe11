"""The order aggregate: what may happen to an order, what is refused, and the laws that hold over any life."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from returns.result import Result

from iom_core import events as ev
from iom_core.lifecycle import BUILT_IN, Row, StateDefinition, StateTable, Status
from iom_core.messages import OrderDraft, Sourced
from iom_core.order import Change, CustomRecord, SalesOrder, draft_problem, receive
from iom_core.outcome import Refused, failed
from iom_core.values import Money, OrderId, ProductId, Quantity, SourceId, System

from .examples import FLEXE, FNO, NOW, SHOP, draft, line_status, moved, new, sent, status, units, usd, validated

Step = Callable[[SalesOrder], Result[Change, Refused]]


def refusal(result: Result[Change, Refused]) -> Refused:
    assert failed(result)
    return result.failure()


# -- arriving ---------------------------------------------------------------------------------------------------------


def test_an_order_arrives_new_with_its_numbers_mapped() -> None:
    order = new(2, 1)
    assert status(order) == "New / Received"
    assert [line_status(order, line) for line in ("1", "2")] == ["New / Received"] * 2
    assert order.external(SHOP) == "7"
    assert order.by_external(SHOP, "L2") == "2"
    assert order.external("sap") is None


BAD_DRAFTS: list[tuple[str, dict[str, Any], str]] = [
    ("no-id", {"external_id": ""}, "$.external_id"),
    ("no-lines", {"lines": ()}, "$.lines"),
    ("currency", {"shipping": Money.of(5, "EUR")}, "$.shipping"),
    ("total", {"total": usd("34.99")}, "$.total"),
    ("amount", {"shipping": Money(Decimal("5.001"), "USD")}, "$.shipping"),
    ("amount", {"handling": Money(Decimal("1e30"), "USD")}, "$.handling"),
    ("time", {"placed_at": datetime(2026, 1, 1)}, "$.placed_at"),  # noqa: DTZ001 - a time without a zone is the point
]
BAD_LINES: list[tuple[str, dict[str, Any], str]] = [
    ("quantity", {"quantity": Quantity.of(0)}, "$.lines[1].quantity"),
    ("quantity", {"quantity": Quantity.of(-1)}, "$.lines[1].quantity"),
    ("quantity", {"quantity": Quantity.of("1e40")}, "$.lines[1].quantity"),
    ("currency", {"total": Money.of(10, "EUR")}, "$.lines[1].total"),
    ("amount", {"total": Money(Decimal("10.005"), "USD")}, "$.lines[1].total"),
    ("line-twice", {"external_id": "L1"}, "$.lines[1].external_id"),
    ("no-product", {"product": ProductId("")}, "$.lines[1].product"),
]


@pytest.mark.parametrize(("code", "changes", "where"), BAD_DRAFTS)
def test_a_draft_that_is_no_order_is_refused_with_the_place(code: str, changes: dict[str, Any], where: str) -> None:
    refused = draft_problem(attrs.evolve(draft(2, 1), **changes))
    assert refused is not None
    assert (refused.code, refused.where) == (code, where)
    assert failed(receive(OrderId("O-1"), SHOP, attrs.evolve(draft(2, 1), **changes), NOW))


@pytest.mark.parametrize(("code", "changes", "where"), BAD_LINES)
def test_a_line_that_is_no_line_is_refused_with_the_place(code: str, changes: dict[str, Any], where: str) -> None:
    good = draft(2, 1)
    bad: OrderDraft = attrs.evolve(good, lines=(good.lines[0], attrs.evolve(good.lines[1], **changes)))
    refused = draft_problem(bad)
    assert refused is not None
    assert (refused.code, refused.where) == (code, where)


def test_every_time_of_an_order_is_kept_in_utc() -> None:
    east = timezone(timedelta(hours=9))
    order = receive(OrderId("O-1"), SHOP, attrs.evolve(draft(1), placed_at=NOW.astimezone(east)), NOW).unwrap().order
    assert order.placed_at.tzinfo is NOW.tzinfo
    assert order.placed_at == NOW
    going = moved(sent(1).ship(FLEXE, "s", units(("1", 1)), NOW, shipped_at=NOW.astimezone(east)))
    assert going.shipments[0].shipped_at.tzinfo is NOW.tzinfo
    billed = moved(going.invoice(FNO, "i", units(("1", 1)), usd(15), NOW, invoiced_at=NOW.astimezone(east)))
    assert billed.invoices[0].invoiced_at.tzinfo is NOW.tzinfo


# -- aggregation ------------------------------------------------------------------------------------------------------


def test_the_header_follows_when_all_lines_have_the_same_status() -> None:
    order = moved(new(1, 1).raise_event(ev.HEADER_VALID, NOW))
    half = moved(order.raise_on_lines(ev.LINES_VALID, NOW, lines=["1"]))
    assert status(half) == "In Progress / Header Validated"
    whole = moved(half.raise_on_lines(ev.LINES_VALID, NOW, lines=["2"]))
    assert status(whole) == "In Progress / Validated"


def test_an_aggregated_event_may_have_another_name_on_the_header() -> None:
    order = moved(validated(1, 1).raise_on_lines(ev.NOT_ON_HAND, NOW, order_event=ev.PREORDERED))
    assert line_status(order) == "Sales Order Product on Hold / Backorder Hold"
    assert status(order) == "On Hold / Preorder Hold"


def test_the_header_follows_when_every_line_is_held_for_the_same_reason() -> None:
    order = moved(validated(1, 1).raise_on_lines(ev.LINES_INVALID, NOW))
    assert status(order) == "On Hold / Validation Failed"


def test_fulfillment_lines_aggregate_to_the_fulfillment_order_and_on_to_the_order() -> None:
    order = validated(2, 1)
    parts = [Sourced("1", SourceId("A"), Decimal(2)), Sourced("2", SourceId("B"), Decimal(1))]
    order = moved(order.create_fulfillment_orders(FNO, NOW, sourced=parts))
    order = moved(order.sent(ev.SENT, NOW, provider=FNO))

    order = moved(order.pick(FNO, units(("1", 1)), NOW))
    assert order.fulfillment_orders[0].status.reason == ev.PARTIALLY_PICKED
    assert (line_status(order), status(order)) == (
        "Fulfillment in Process / Partially Picked",
        "Fulfillment in Process / Partially Picked",
    )
    order = moved(order.pick(FNO, units(("1", 2)), NOW))
    assert [fo.status.reason for fo in order.fulfillment_orders] == [ev.PICKED, ev.SENT_TO_FULFILLMENT]
    assert status(order) == "Fulfillment in Process / Partially Picked"
    order = moved(order.pick(FNO, units(("2", 1)), NOW))
    assert status(order) == "Fulfillment in Process / Picked"
    order = moved(order.pack(FNO, units(("1", 2)), NOW))
    assert status(order) == "Fulfillment in Process / Partially Packed"
    order = moved(order.ship(FNO, "s1", units(("1", 2)), NOW))
    assert order.fulfillment_orders[0].status.state == ev.COMPLETED
    assert status(order) == "Fulfillment in Process / Partially Shipped"
    order = moved(order.ship(FNO, "s2", units(("2", 1)), NOW))
    assert status(order) == "Fulfillment in Process / Packed"
    order = moved(order.invoice(FNO, "i1", units(("1", 2)), usd(20), NOW))
    assert status(order) == "Fulfillment in Process / Partially Invoiced"
    order = moved(order.invoice(FNO, "i2", units(("2", 1)), usd(15), NOW))
    assert status(order) == "Completed / Fulfilled"
    assert order.invoiced_total == order.total


# -- facts ------------------------------------------------------------------------------------------------------------


def test_a_fact_said_again_gives_back_the_very_same_order() -> None:
    order = moved(sent(2, 1).pick(FLEXE, units(("1", 2), ("2", 1)), NOW))
    assert moved(order.pick(FLEXE, units(("1", 2), ("2", 1)), NOW)) is order
    assert moved(order.pick(FLEXE, units(("1", 1)), NOW)) is order
    order = moved(order.ship(FLEXE, "s", units(("2", 1), ("1", 2)), NOW))
    assert moved(order.ship(FLEXE, "s", units(("1", 2), ("2", 1)), NOW)) is order
    order = moved(order.invoice(FNO, "i", units(("2", 1), ("1", 2)), usd(35), NOW))
    assert moved(order.invoice(FNO, "i", units(("1", 2), ("2", 1)), usd(35), NOW)) is order


def test_a_shipment_that_names_a_line_twice_is_recognized_when_it_comes_again() -> None:
    said = units(("1", 1), ("1", 2))
    order = moved(sent(3).ship(FLEXE, "s", said, NOW))
    assert order.shipped("1") == 3
    assert moved(order.ship(FLEXE, "s", said, NOW)) is order
    assert moved(order.ship(FLEXE, "s", units(("1", 3)), NOW)) is order


def test_the_same_number_with_other_content_is_refused() -> None:
    order = moved(sent(3).ship(FLEXE, "s", units(("1", 1)), NOW))
    assert refusal(order.ship(FLEXE, "s", units(("1", 2)), NOW)).code == "shipment-differs"
    order = moved(order.invoice(FNO, "i", units(("1", 1)), usd(10), NOW))
    assert refusal(order.invoice(FNO, "i", units(("1", 1)), usd(11), NOW)).code == "invoice-differs"
    assert refusal(order.invoice(FNO, "i", units(("1", 2)), usd(10), NOW)).code == "invoice-differs"


def test_two_systems_may_use_the_same_shipment_and_invoice_numbers() -> None:
    order = sent(2)
    order = moved(order.ship(FLEXE, "1", units(("1", 2)), NOW))
    order = moved(order.invoice(FNO, "1", units(("1", 1)), usd(10), NOW))
    order = moved(order.invoice(System("sap"), "1", units(("1", 1)), usd(15), NOW))
    assert len(order.invoices) == 2


@pytest.mark.parametrize(
    ("step", "code", "early"),
    [
        (lambda o: o.ship(FLEXE, "s", units(("1", 4)), NOW), "more-than-ordered", False),
        (lambda o: o.ship(FLEXE, "s", units(("9", 1)), NOW), "unknown-record", True),
        (lambda o: o.ship(FLEXE, "s", units(("1", 0)), NOW), "nothing-shipped", False),
        (lambda o: o.ship(FLEXE, "s", units(("1", -1)), NOW), "quantity", False),
        (lambda o: o.pick(FLEXE, units(("1", 4)), NOW), "more-than-ordered", False),
        (lambda o: o.invoice(FNO, "i", units(("1", 1)), usd(1), NOW), "invoiced-before-shipped", True),
        (lambda o: o.invoice(FNO, "i", units(("1", 4)), usd(1), NOW), "more-than-ordered", False),
        (lambda o: o.invoice(FNO, "i", (), usd(1), NOW), "nothing-invoiced", False),
        (lambda o: o.invoice(FNO, "i", units(("1", 1)), Money.of(1, "EUR"), NOW), "currency", False),
        (lambda o: o.cancel(NOW), "in-fulfillment", False),
        (lambda o: o.cancel(NOW, lines=["9"]), "unknown-record", True),
        (lambda o: o.canceled_by(FLEXE, NOW, lines=["9"]), "unknown-record", True),
        (lambda o: o.release("credit hold", NOW), "unknown-hold", False),
        (lambda o: o.assign({"site": "2"}, manual=True), "read-only", False),
        (lambda o: o.assign({"site": "2"}, "1", manual=True), "read-only", False),
        (lambda o: o.assign({"site": "2"}, "9"), "unknown-record", True),
        (lambda o: o.raise_event(ev.HEADER_VALID, NOW), "illegal-transition", True),
        (lambda o: o.raise_event(ev.LINES_VALID, NOW, entity=ev.LINE, record="9"), "unknown-record", True),
        (lambda o: o.raise_event("x", NOW, entity="gift card", record="9"), "unknown-record", True),
    ],
)
def test_a_refusal_says_why_and_whether_it_may_become_legal(step: Step, code: str, early: bool) -> None:
    order = sent(3)
    before = attrs.evolve(order)
    refused = refusal(step(order))
    assert (refused.code, refused.early) == (code, early)
    assert refused.where.startswith("$")
    assert order == before


def test_what_was_never_asked_of_a_provider_is_early_and_what_somebody_else_ships_is_an_echo() -> None:
    order = validated(2)
    assert refusal(order.pick(FLEXE, units(("1", 1)), NOW)).code == "not-in-fulfillment"
    going = sent(2)
    assert moved(going.ship(FNO, "echo", units(("1", 2)), NOW)) is going


def test_a_digital_line_is_invoiced_without_being_shipped() -> None:
    order = sent(1, 1, digital=(2,))
    order = moved(order.ship(FLEXE, "s", units(("1", 1)), NOW))
    assert status(order) == "Fulfillment in Process / Packed"
    assert status(moved(order.invoice(FNO, "i", units(("1", 1), ("2", 1)), usd(25), NOW))) == "Completed / Fulfilled"


# -- sending ----------------------------------------------------------------------------------------------------------


def two_fulfillment_orders() -> SalesOrder:
    parts = [Sourced("1", SourceId("A"), Decimal(2)), Sourced("2", SourceId("B"), Decimal(1))]
    return moved(validated(2, 1).create_fulfillment_orders(FLEXE, NOW, sourced=parts))


def test_a_line_the_provider_did_not_take_gets_a_sync_error_and_the_others_go_on() -> None:
    created = moved(validated(2, 1).create_fulfillment_orders(FNO, NOW))
    order = moved(created.sent(ev.SENT, NOW, provider=FNO, line_errors={"2": "blocked"}))
    assert line_status(order, "1") == "Fulfillment in Process / Sent To Fulfillment"
    assert line_status(order, "2") == "Sales Order Product on Hold / Sync Error"
    assert status(order) == "Fulfillment in Process / Sent To Fulfillment"
    assert order.fulfillment_orders[0].status.reason == ev.SENT_TO_FULFILLMENT
    again = moved(order.sent(ev.SENT, NOW, provider=FNO))
    assert line_status(again, "2") == "Fulfillment in Process / Sent To Fulfillment"
    assert again.lines[1].sync_error == ""
    assert moved(again.sent(ev.SENT, NOW, provider=FNO)) is again


@pytest.mark.parametrize("event", [ev.NOT_SENT, ev.SENDING_UNKNOWN])
def test_a_later_attempt_that_fails_leaves_what_the_provider_has_taken(event: str) -> None:
    created = moved(validated(2, 1).create_fulfillment_orders(FNO, NOW))
    order = moved(created.sent(ev.SENT, NOW, provider=FNO, line_errors={"2": "blocked"}))

    order = moved(order.sent(event, NOW, provider=FNO))

    assert line_status(order, "1") == "Fulfillment in Process / Sent To Fulfillment"
    assert order.fulfillment_orders[0].status.state == ev.IN_FULFILLMENT
    assert status(order) == "Fulfillment in Process / Sent To Fulfillment"
    assert moved(order.pick(FNO, units(("1", 2)), NOW)).fulfillment_orders[0].lines[0].picked == 2
    assert refusal(order.cancel(NOW, lines=["1"])).code == "in-fulfillment"


@pytest.mark.parametrize("first", ["fails", "is sent"])
def test_one_fulfillment_order_that_fails_does_not_keep_the_other_from_shipping(first: str) -> None:
    order = two_fulfillment_orders()
    steps = [(ev.NOT_SENT, "O-7-F2"), (ev.SENT, "O-7-F1")]
    for event, fulfillment_order in steps if first == "fails" else steps[::-1]:
        order = moved(order.sent(event, NOW, provider=FLEXE, only=fulfillment_order))
    assert status(order) == "Fulfillment in Process / Sent To Fulfillment"
    assert line_status(order, "2") == "Sales Order Product on Hold / Sending Failed"

    order = moved(order.ship(FLEXE, "s", units(("1", 2)), NOW))
    assert status(order) == "Fulfillment in Process / Partially Shipped"
    assert order.fulfillment_orders[1].status.reason == ev.SENDING_FAILED


def test_when_every_fulfillment_order_fails_the_order_is_held() -> None:
    order = two_fulfillment_orders()
    for fulfillment_order in ("O-7-F1", "O-7-F2"):
        order = moved(order.sent(ev.NOT_SENT, NOW, provider=FLEXE, only=fulfillment_order))
    assert status(order) == "On Hold / Sending Failed"


def test_an_order_of_which_no_line_was_taken_is_not_called_sent() -> None:
    created = moved(validated(2).create_fulfillment_orders(FNO, NOW))
    order = moved(created.sent(ev.SENT, NOW, provider=FNO, line_errors={"1": "blocked"}))
    assert status(order) == "Fulfillment in Process / Fulfillment Order Created"
    assert line_status(order) == "Sales Order Product on Hold / Sync Error"
    assert order.fulfillment_orders[0].status.reason == ev.SYNC_ERROR


def test_more_than_is_wanted_is_never_sourced() -> None:
    part = Sourced("1", SourceId("A"), Decimal(2))
    order = moved(validated(2).create_fulfillment_orders(FNO, NOW, sourced=[part]))
    assert refusal(order.create_fulfillment_orders(FNO, NOW, sourced=[part])).code == "more-than-ordered"
    assert moved(order.create_fulfillment_orders(FNO, NOW)) is order, "everything is in a fulfillment order already"
    unknown = attrs.evolve(part, line="9")
    assert refusal(validated(2).create_fulfillment_orders(FNO, NOW, sourced=[unknown])).code == "unknown-record"


def test_lines_without_stock_are_held_once_and_the_header_only_when_nothing_goes_on() -> None:
    order = moved(validated(1, 1).not_sourced(ev.NOT_ON_HAND, NOW, lines=["2"]))
    assert (line_status(order, "2"), status(order)) == (
        "Sales Order Product on Hold / Backorder Hold",
        "In Progress / Validated",
    )
    assert moved(order.not_sourced(ev.NOT_ON_HAND, NOW, lines=["2"])) is order
    held = moved(order.not_sourced(ev.NOT_ON_HAND, NOW, lines=["1", "2"]))
    assert status(held) == "On Hold / Backorder Hold"
    assert status(moved(held.not_sourced(ev.STOCK_MISSING, NOW, lines=["1", "2"]))) == "On Hold / Inventory not found"


# -- cancelling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [new, validated])
def test_an_order_can_be_canceled_until_it_is_in_fulfillment(make: Callable[..., SalesOrder]) -> None:
    order = moved(make(2, 1).cancel(NOW))
    assert status(order) == "Canceled / Canceled"
    assert all(line.status.state == ev.CANCELED for line in order.lines)
    assert refusal(order.cancel(NOW)).code == "illegal-transition"
    assert moved(order.canceled_by(FLEXE, NOW)) is order


def test_one_line_can_be_canceled_and_the_last_one_takes_the_order_with_it() -> None:
    order = moved(validated(2, 1).cancel(NOW, lines=["1"]))
    assert (line_status(order), status(order)) == ("Canceled / Canceled", "In Progress / Validated")
    assert refusal(order.cancel(NOW, lines=["1"])).code == "illegal-transition"
    assert status(moved(order.cancel(NOW, lines=["2"]))) == "Canceled / Canceled"


def test_a_backordered_line_can_be_canceled_while_the_other_is_in_fulfillment() -> None:
    held = moved(validated(1, 1).not_sourced(ev.NOT_ON_HAND, NOW, lines=["2"]))
    parts = [Sourced("1", SourceId("A"), Decimal(1))]
    going = moved(held.create_fulfillment_orders(FNO, NOW, sourced=parts))
    going = moved(going.sent(ev.SENT, NOW, provider=FNO))
    going = moved(going.ship(FNO, "s", units(("1", 1)), NOW))
    assert status(going) == "Fulfillment in Process / Partially Shipped"

    change = going.cancel(NOW, lines=["2"]).unwrap()
    assert status(change.order) == "Fulfillment in Process / Packed", "all that is still wanted has shipped"
    assert ev.ORDER_SHIPPED in [each.event for each in change.happened if each.entity == ev.ORDER]


def test_a_provider_cancels_the_rest_and_what_has_shipped_stays_shipped() -> None:
    going = moved(sent(3).ship(FLEXE, "s", units(("1", 1)), NOW))
    order = moved(going.canceled_by(FLEXE, NOW))
    assert (order.lines[0].canceled, order.shipped("1")) == (Decimal(2), Decimal(1))
    assert status(order) == "Fulfillment in Process / Packed"
    assert order.fulfillment_orders[0].status.state == ev.COMPLETED
    done = moved(order.invoice(FNO, "i", units(("1", 1)), usd(10), NOW))
    assert status(done) == "Completed / Fulfilled"
    assert refusal(done.canceled_by(FLEXE, NOW)).code == "already-completed"


def test_canceling_what_is_left_of_an_invoiced_order_completes_it() -> None:
    going = moved(sent(3).ship(FLEXE, "s", units(("1", 1)), NOW))
    going = moved(going.invoice(FNO, "i", units(("1", 1)), usd(10), NOW))
    assert status(moved(going.canceled_by(FLEXE, NOW))) == "Completed / Fulfilled"


# -- holds, assignments, records --------------------------------------------------------------------------------------


def test_an_order_goes_on_when_its_last_hold_is_released() -> None:
    order = moved(validated(1).hold("credit hold", "limit", NOW))
    order = moved(order.hold("fraud", "", NOW))
    assert moved(order.hold("fraud", "", NOW)) is order
    assert status(order) == "On Hold / Held"
    order = moved(order.release("credit hold", NOW))
    assert status(order) == "On Hold / Held"
    assert status(moved(order.release("fraud", NOW))) == "In Progress / Released"


def test_a_hold_can_be_released_from_an_order_that_an_outcome_has_moved_on() -> None:
    order = moved(validated(1).hold("credit hold", "limit", NOW))
    order = moved(order.create_fulfillment_orders(FNO, NOW))
    assert status(order) == "Fulfillment in Process / Fulfillment Order Created"
    assert moved(order.release("credit hold", NOW)).holds == ()


def test_people_change_an_order_only_where_it_is_not_read_only() -> None:
    order = moved(validated(1).assign({"company": "usmf"}, manual=True))
    order = moved(order.assign({"site": "1", "warehouse": "11"}, "1", manual=True))
    assert (order.company, order.lines[0].warehouse) == ("usmf", "11")
    with pytest.raises(TypeError, match="has no field"):
        order.assign({"colour": "red"})


def test_a_record_of_a_users_own_entity_moves_by_its_own_table() -> None:
    table = StateTable(
        "gift card",
        [StateDefinition("Ordered", ("r",), 0), StateDefinition("Activated", ("r",), 1, final=True)],
        [Row("card activated", "Ordered", "Activated", "r")],
        Status("Ordered", "r"),
    )
    states = BUILT_IN.with_entity(table)
    order = new(1).with_(records=(CustomRecord("gift card", "G1", table.initial),))
    changed = order.raise_event("card activated", NOW, entity="gift card", record="G1", states=states).unwrap()
    assert changed.order.records[0].status.state == "Activated"
    assert changed.happened[0].entity == "gift card"
    again = changed.order.raise_event("card activated", NOW, entity="gift card", record="G1", states=states)
    assert refusal(again).where == "$.records[0].status"


def test_events_can_be_raised_on_lines_fulfillment_orders_and_their_lines() -> None:
    order = two_fulfillment_orders()
    order = moved(order.raise_event(ev.SENT, NOW, entity=ev.FULFILLMENT_ORDER, record="O-7-F1"))
    order = moved(order.raise_event(ev.SENT, NOW, entity=ev.FULFILLMENT_LINE, record="O-7-F1/1"))
    order = moved(order.raise_event(ev.SENT, NOW, entity=ev.LINE, record="1"))
    assert order.fulfillment_orders[0].status.reason == ev.SENT_TO_FULFILLMENT
    assert order.fulfillment_orders[0].lines[0].status.reason == ev.SENT_TO_FULFILLMENT
    assert refusal(order.raise_event(ev.SENT, NOW, entity=ev.FULFILLMENT_LINE, record="O-7-F1/9")).early


def test_numbers_given_twice_replace_each_other_and_empty_ones_are_no_numbers() -> None:
    order = new(1).known_as(FNO, "SO-1", [("1", "LOT-1")]).known_as(FNO, "SO-2", [("1", "")])
    assert order.external(FNO) == "SO-2"
    assert order.external(FNO, ev.LINE, "1") == "LOT-1"
    assert order.known_as(FNO, "FX-1", fulfillment_order="F1").external(FNO, ev.FULFILLMENT_ORDER, "F1") == "FX-1"


# -- laws over any life -----------------------------------------------------------------------------------------------

LINE = st.sampled_from(["1", "2", "3", "9"])
SYSTEM = st.sampled_from([FLEXE, FNO])
SOME = st.lists(st.tuples(LINE, st.integers(-1, 4)), min_size=1, max_size=3).map(lambda pairs: units(*pairs))
NAMES = st.sampled_from(["a", "b", "c", "d"])
EVENTS = st.sampled_from(sorted(BUILT_IN.order.events | {"nothing known"}))


def calls() -> st.SearchStrategy[Step]:
    """Any call of any method, sensible or not."""
    subset = st.lists(LINE, max_size=2, unique=True)
    errors = st.dictionaries(LINE, st.just("blocked"), max_size=2)
    sourced = st.lists(
        st.builds(Sourced, LINE, st.sampled_from([SourceId("A"), SourceId("B")]), st.integers(0, 3).map(Decimal)),
        min_size=1,
        max_size=3,
    )
    return st.one_of(
        st.tuples(EVENTS).map(lambda a: lambda o: o.raise_event(a[0], NOW)),
        st.tuples(EVENTS, st.none() | subset).map(lambda a: lambda o: o.raise_on_lines(a[0], NOW, lines=a[1])),
        st.tuples(SYSTEM).map(lambda a: lambda o: o.create_fulfillment_orders(a[0], NOW)),
        st.tuples(SYSTEM, sourced).map(lambda a: lambda o: o.create_fulfillment_orders(a[0], NOW, sourced=a[1])),
        st.tuples(subset).map(lambda a: lambda o: o.not_sourced(ev.NOT_ON_HAND, NOW, lines=a[0])),
        st.tuples(st.sampled_from([ev.SENT, ev.NOT_SENT, ev.SENDING_UNKNOWN]), SYSTEM, errors).map(
            lambda a: lambda o: o.sent(a[0], NOW, provider=a[1], line_errors=a[2])
        ),
        st.tuples(SYSTEM, SOME).map(lambda a: lambda o: o.pick(a[0], a[1], NOW)),
        st.tuples(SYSTEM, SOME).map(lambda a: lambda o: o.pack(a[0], a[1], NOW)),
        st.tuples(SYSTEM, NAMES, SOME).map(lambda a: lambda o: o.ship(a[0], a[1], a[2], NOW)),
        st.tuples(SYSTEM, NAMES, SOME, st.integers(0, 9)).map(
            lambda a: lambda o: o.invoice(a[0], a[1], a[2], usd(a[3]), NOW)
        ),
        st.tuples(subset).map(lambda a: lambda o: o.cancel(NOW, lines=a[0])),
        st.tuples(SYSTEM, subset).map(lambda a: lambda o: o.canceled_by(a[0], NOW, lines=a[1])),
        st.tuples(NAMES).map(lambda a: lambda o: o.hold(a[0], "", NOW)),
        st.tuples(NAMES).map(lambda a: lambda o: o.release(a[0], NOW)),
    )


def starting_orders() -> st.SearchStrategy[SalesOrder]:
    return st.sampled_from([new(3, 2), validated(3, 2), sent(3, 2), sent(3, 2, 1, digital=(2,)), sent(4, provider=FNO)])


def conserved(order: SalesOrder) -> None:
    for line in order.lines:
        shipped = order.shipped(line.id)
        parts = [each for fo in order.fulfillment_orders for each in fo.lines if each.line == line.id]
        assert 0 <= line.canceled <= line.ordered.amount
        assert 0 <= shipped <= line.quantity
        assert line.ordered.amount - shipped - line.canceled >= 0
        assert 0 <= line.invoiced <= line.quantity
        assert line.digital or line.invoiced <= shipped
        assert sum(each.quantity - each.canceled for each in parts) <= line.quantity
        recorded = sum(each.quantity for s in order.shipments for each in s.lines if each.line == line.id)
        assert recorded == shipped
        assert sum(p.quantity for i in order.invoices for p in i.lines if p.line == line.id) == line.invoiced
        for each in parts:
            assert 0 <= each.shipped <= each.quantity - each.canceled
            assert each.shipped <= each.packed <= each.picked
    for documents in ([(s.system, s.id) for s in order.shipments], [(i.system, i.number) for i in order.invoices]):
        assert len(set(documents)) == len(documents)
    if order.status.state == ev.CANCELED:
        assert all(order.shipped(line.id) == 0 for line in order.lines) or not order.invoices
    for line in order.lines:
        assert line.status.state in BUILT_IN.line.states
        assert line.status.reason in BUILT_IN.line.states[line.status.state].reasons


@given(start=starting_orders(), life=st.lists(calls(), max_size=12))
def test_over_any_life_units_are_conserved_and_a_refusal_changes_nothing(start: SalesOrder, life: list[Step]) -> None:
    order = start
    for step in life:
        before = attrs.evolve(order)
        result = step(order)
        assert order == before, "an order is never changed in place"
        if failed(result):
            assert result.failure().what
            continue
        change = result.unwrap()
        if not change.happened and change.order != order:
            assert (change.order.status, change.order.lines) == (order.status, order.lines)
        order = change.order
        conserved(order)


FACTS: list[Step] = [
    lambda o: o.pick(FLEXE, units(("1", 1)), NOW),
    lambda o: o.pick(FLEXE, units(("1", 3), ("2", 2)), NOW),
    lambda o: o.pack(FLEXE, units(("1", 3), ("2", 1)), NOW),
    lambda o: o.ship(FLEXE, "a", units(("1", 2)), NOW),
    lambda o: o.ship(FLEXE, "b", units(("1", 1), ("2", 2)), NOW),
]


@given(st.permutations(range(len(FACTS))), st.permutations(range(len(FACTS))))
def test_independent_facts_lead_to_the_same_order_in_any_order_and_any_number(
    once: list[int], again: list[int]
) -> None:
    def told(sequence: list[int]) -> SalesOrder:
        order = sent(3, 2)
        for index in sequence:
            order = moved(FACTS[index](order))
        return order

    plain, shuffled = told(list(range(len(FACTS)))), told([*once, *again])
    assert status(shuffled) == status(plain) == "Fulfillment in Process / Packed"
    assert [line.status for line in shuffled.lines] == [line.status for line in plain.lines]
    assert [fo.status for fo in shuffled.fulfillment_orders] == [fo.status for fo in plain.fulfillment_orders]
    assert {each.id: each.lines for each in shuffled.shipments} == {each.id: each.lines for each in plain.shipments}


@given(start=starting_orders(), life=st.lists(calls(), max_size=8), last=calls())
def test_a_call_repeated_at_once_changes_no_quantity(start: SalesOrder, life: list[Step], last: Step) -> None:
    order = start
    for step in (*life, last):
        order = step(order).map(lambda change: change.order).value_or(order)
    repeated = last(order)
    assume(not failed(repeated))
    twice = repeated.unwrap().order
    assert [order.shipped(line.id) for line in order.lines] == [twice.shipped(line.id) for line in twice.lines]
    assert [line.invoiced for line in order.lines] == [line.invoiced for line in twice.lines]
    assert order.shipments == twice.shipments
    assert order.invoices == twice.invoices
