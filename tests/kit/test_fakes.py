"""What the fakes promise beyond the kit: bills in parts, faults of every call, units that see all they did."""

from __future__ import annotations

from decimal import Decimal

import pytest
from returns.result import Success

from iom_core import messages as msg
from iom_core import scenarios
from iom_core.errors import Unavailable
from iom_core.messages import Message
from iom_core.order import ExternalId
from iom_core.ports import BillingRequest, FulfillmentRequest
from iom_core.testing import FakeFulfiller, FakeLedger, MemoryStore, World
from iom_core.testing.samples import SAMPLE_AT, sample_order, sample_shipped_order
from iom_core.values import MessageId, Money, System

FLEXE = System("flexe")


def invoices(ledger: FakeLedger) -> list[msg.Invoiced]:
    said = ledger.pull("", SAMPLE_AT).messages
    return [each.body for each in said if isinstance(each, Message) and isinstance(each.body, msg.Invoiced)]


def test_a_second_bill_covers_what_has_shipped_since_the_first() -> None:
    ledger = FakeLedger()
    partly, whole = sample_shipped_order(partly=True), sample_shipped_order()
    assert isinstance(ledger.bill(BillingRequest("K-1", partly)), Success)
    assert ledger.work(SAMPLE_AT) == 1
    assert isinstance(ledger.bill(BillingRequest("K-2", whole)), Success)
    assert ledger.work(SAMPLE_AT) == 1
    assert [{line.line: line.quantity for line in each.lines} for each in invoices(ledger)] == [
        {"1": Decimal(1), "3": Decimal(1)},
        {"1": Decimal(1), "2": Decimal(1)},
    ]
    assert sum((each.total for each in invoices(ledger)), Money.zero("USD")) == whole.total
    assert len(ledger.invoices[whole.id]) == 2


def test_a_bill_over_named_lines_leaves_the_others_for_later() -> None:
    ledger, order = FakeLedger(), sample_shipped_order()
    ledger.bill(BillingRequest("K-1", order, ("2",)))
    ledger.bill(BillingRequest("K-2", order))
    assert ledger.work(SAMPLE_AT) == 2
    assert [[line.line for line in each.lines] for each in invoices(ledger)] == [["2"], ["1", "3"]]


def test_a_bill_over_nothing_is_no_invoice() -> None:
    ledger, order = FakeLedger(), sample_shipped_order()
    ledger.bill(BillingRequest("K-1", order))
    ledger.bill(BillingRequest("K-2", order))
    assert ledger.work(SAMPLE_AT) == 1
    assert ledger.work(SAMPLE_AT) == 0


@pytest.mark.parametrize("per_shipment", [None, Decimal(1)])
def test_an_order_invoiced_elsewhere_is_completed_whether_shipped_whole_or_in_parts(
    per_shipment: Decimal | None,
) -> None:
    world = World(scenarios.FNO_FLEXE_SAP)
    world.flexe.per_shipment = per_shipment
    placed = world.place(world.draft({"CHAIR": 3, "LAMP": 2, "EBOOK": 1}, digital=["EBOOK"]))
    world.run_until_quiet()
    order = world.order(placed)
    assert (order.status.state, order.status.reason) == ("Completed", "Fulfilled")
    assert order.invoiced_total == order.total
    assert len(order.shipments) == (1 if per_shipment is None else 3)
    assert [line.invoiced for line in order.lines] == [line.quantity for line in order.lines]


def test_what_was_taken_back_is_neither_shipped_nor_counted_as_shipped() -> None:
    provider, order = FakeFulfiller(), sample_order()
    request = FulfillmentRequest("K-1", order, order.fulfillment_orders[0].id)
    provider.submit(request)
    provider.failures.after.append(Unavailable("flexe", "the answer was lost"))
    with pytest.raises(Unavailable):
        provider.cancel(request)
    assert provider.work(SAMPLE_AT) == 0
    assert provider.shipped == {}
    assert isinstance(provider.cancel(request), Success)


def test_a_unit_finds_the_message_it_let_wait_itself() -> None:
    store = MemoryStore()
    early = Message(MessageId("M-1"), FLEXE, msg.Canceled(), SAMPLE_AT, external_id="2001")
    with store.begin() as unit:
        unit.wait(early, SAMPLE_AT)
        unit.wait(early, SAMPLE_AT)
        assert [each.message for each in unit.waiting(FLEXE, "2001")] == [early]
        assert unit.waiting(FLEXE, "2001") == ()
    assert store.still_waiting() == ()


def test_a_number_an_order_has_lost_leads_nowhere_and_is_free_again() -> None:
    store, first = MemoryStore(), sample_order()
    with store.begin() as unit:
        unit.save(first, None, (), ())
        moved = (ExternalId(FLEXE, "order", first.id, "F9"),)
        unit.save(first.with_(version=2, externals=moved), first, (), ())
        assert unit.find(System("bigcommerce"), "1001") is None
        assert unit.find(FLEXE, "F9") == first.id
    with store.begin() as unit:
        assert unit.find(System("bigcommerce"), "1001") is None
        unit.save(sample_order("BC-2"), None, (), ())
        assert unit.find(System("bigcommerce"), "1001") == "BC-2"
