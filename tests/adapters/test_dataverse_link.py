"""Both ends of dual-write together: Dataverse's twin, F&O's twin, and our adapter before them."""

from __future__ import annotations

import threading
from contextlib import suppress
from decimal import Decimal
from typing import Any

import httpx
import pytest

from iom_adapters._demo_link import copy_masters, link
from iom_adapters._twin import Fault, serve
from iom_adapters.dataverse import connect
from iom_adapters.dataverse.twin import DataverseTwin
from iom_adapters.fno.office import Vetoed
from iom_adapters.fno.twin import FnoTwin
from iom_core.errors import Unavailable
from iom_core.messages import Canceled, Invoiced, Message, NewOrder, Picked, Shipped
from tests.adapters._dataverse import START, Clock, adapter, line, order, request, usd


class Pair:
    """The two systems, linked, with one clock and one lock."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        lock = threading.RLock()
        self.fno = FnoTwin.demo(("CHAIR", "TABLE"), clock=self.clock, lock=lock, newer_statuses=False)
        self.dataverse = DataverseTwin(clock=self.clock, lock=lock)
        copy_masters(self.dataverse, self.fno)
        link(self.dataverse, self.fno)
        self.adapter = adapter(self.dataverse, self.clock, **settings)
        self.checkpoint = ""

    def pull(self) -> list[Any]:
        found: list[Any] = []
        while True:
            pulled = self.adapter.pull(self.checkpoint, START)
            self.checkpoint = pulled.checkpoint
            found += [message.body for message in pulled.messages if isinstance(message, Message)]
            if not pulled.more:
                return found


def test_an_order_lives_in_both_and_adds_up() -> None:
    """Scenario 1: sent, picked, packed, invoiced in F&O, and heard of in Dataverse."""
    pair = Pair()
    of = order()
    assert pair.adapter.send(request(of)).unwrap().line_errors == ()
    (there,) = pair.fno.orders()
    assert there["SalesOrderNumber"] == "BC-100"
    assert Decimal(str(there["OrderTotalAmount"])) == of.total.amount
    assert pair.pull() == []
    pair.fno.confirm("BC-100")
    pair.clock.forward(minutes=1)
    pair.fno.pick("BC-100")
    assert [type(each) for each in pair.pull()] == [Picked]
    pair.fno.pack("BC-100")
    assert [type(each) for each in pair.pull()] == [Picked, Shipped]
    pair.fno.invoice("BC-100")
    told = pair.pull()
    assert [type(each) for each in told] == [Picked, Invoiced]
    assert told[1].total == of.total
    assert pair.dataverse.rows("salesorders")[0]["statuscode"] == 100003


def test_a_canceled_order() -> None:
    pair = Pair()
    pair.adapter.send(request(order())).unwrap()
    pair.fno.cancel("BC-100")
    assert Canceled() in pair.pull()


def test_a_part_of_a_line_is_told_when_all_of_it_left() -> None:
    """Dual-write carries line statuses, not packing slips: a partly delivered line is still open there."""
    pair = Pair()
    pair.adapter.send(request(order())).unwrap()
    (lot,) = (each["InventoryLotId"] for each in pair.fno.lines("BC-100") if each["ItemNumber"] == "CHAIR")
    pair.fno.pack("BC-100", {lot: 1})
    assert [each for each in pair.pull() if isinstance(each, Shipped)] == []
    pair.fno.pack("BC-100")
    (shipped,) = [each for each in pair.pull() if isinstance(each, Shipped)]
    assert [(each.line, str(each.quantity)) for each in shipped.lines] == [("1", "2"), ("2", "1")]


def test_fno_refuses_a_blocked_item_on_its_line() -> None:
    pair = Pair()
    pair.fno.block_item("CHAIR")
    receipt = pair.adapter.send(request(order())).unwrap()
    ((name, text),) = receipt.line_errors
    assert name == "1"
    assert "Writes to CDSSalesOrderLinesV2 failed with error message" in text
    assert len(pair.fno.lines("BC-100")) == 1


@pytest.mark.parametrize("position", range(8))
def test_a_lost_answer_makes_no_second_order(position: int) -> None:
    pair = Pair()
    pair.dataverse.faults.plan(Fault("lost", path="/api/", after=position))
    with suppress(Unavailable):
        pair.adapter.send(request(order()))
    assert pair.adapter.send(request(order())).unwrap().line_errors == ()
    assert len(pair.fno.orders()) == 1
    assert len(pair.fno.lines("BC-100")) == 2


def test_what_dataverse_can_not_take_fno_does_not_keep() -> None:
    pair = Pair()
    pair.adapter.send(request(order())).unwrap()
    pair.dataverse.faults.plan()
    entity = {"DeliveryAddressCountryRegionISOCode": "NL"}
    with pytest.raises(Vetoed, match="no mapping in value map country"), pair.fno.transaction():
        pair.fno._office.update_header("SalesOrderHeadersV2", pair.fno._office.order("BC-100")[1], entity)
    assert pair.fno.orders()[0]["DeliveryAddressCountryRegionISOCode"] == "US"


def test_an_order_entered_in_fno_comes_over() -> None:
    pair = Pair(number_prefix="BC-", erp_prefix="0")
    number = pair.fno.enter(
        "usmf",
        [{"ItemNumber": "CHAIR", "OrderedSalesQuantity": 2, "ShippingSiteId": "1", "ShippingWarehouseId": "11"}],
        OrderingCustomerAccountNumber="US-001",
        RequestedShippingDate="2026-01-09T12:00:00Z",
    )
    assert pair.pull() == []
    pair.fno.confirm(number)
    (told,) = pair.pull()
    assert isinstance(told, NewOrder)
    assert told.draft.external_id == number
    assert told.draft.ready_to_sync
    assert told.draft.total == usd(200)


def test_over_a_real_connection() -> None:
    pair = Pair()
    serving = serve(pair.dataverse)
    try:
        config = {
            "base_url": serving.url,
            "token_url": f"{serving.url}/tenant/oauth2/v2.0/token",
            "client_id": "iom",
            "client_secret": "secret",
            "page_size": 1,
        }
        with httpx.Client() as client:
            real = connect(config, client=client, clock=pair.clock)
            assert real.send(request(order(line("1", "CHAIR", 1, 5)))).unwrap().line_errors == ()
            pair.fno.pick("BC-100")
            told = real.pull("", START)
            assert [type(each.body) for each in told.messages if isinstance(each, Message)] == [Picked]
            assert real.pull(told.checkpoint, START).messages == ()
    finally:
        serving.close()
