"""Sending orders through Dataverse and hearing of them, against the twin with a book for F&O."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iom_adapters._twin import Fault
from iom_adapters.dataverse import DualWriteOrders, connect
from iom_adapters.dataverse.adapter import DUAL_WRITE
from iom_adapters.dataverse.replication import ErpChange
from iom_adapters.dataverse.twin import DataverseTwin, throttled
from iom_adapters.dataverse.wire import Checkpoint, Settings, amounts, numbered, price
from iom_core.errors import Misconfigured, Unavailable
from iom_core.messages import Canceled, Invoiced, LineQuantity, Message, NewOrder, Picked, Rejected, Shipped
from iom_core.order import SalesOrder
from iom_core.outcome import failed
from iom_core.ports import ErpOrders, Receipt
from iom_core.values import Address, CompanyId
from tests.adapters._dataverse import START, Clock, ErpBook, adapter, decimal, line, order, request, twin, usd


class World:
    """An organization, the F&O book behind it, and our adapter."""

    def __init__(self, *, settings: dict[str, Any] | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.book = ErpBook()
        self.twin = twin(self.clock, erp=self.book, **options)
        self.adapter = adapter(self.twin, self.clock, **(settings or {}))
        self.checkpoint = ""

    def send(self, of: SalesOrder, *lines: str) -> Receipt:
        return self.adapter.send(request(of, *lines)).unwrap()

    def pull(self) -> list[Message | Rejected]:
        """Pull until there is no more."""
        found: list[Message | Rejected] = []
        while True:
            pulled = self.adapter.pull(self.checkpoint, START)
            self.checkpoint = pulled.checkpoint
            found += pulled.messages
            if not pulled.more:
                return found

    def erp(self, status: str, *lines: str, number: str = "BC-100") -> None:
        """Say what F&O made of an order: its status and those of its lines."""
        header = {"dataAreaId": "usmf", "SalesOrderNumber": number, "SalesOrderProcessingStatus": status}
        changes = [ErpChange("CDSSalesOrderHeaders", header)]
        for index, line_status in enumerate(lines, 1):
            entity = {
                "dataAreaId": "usmf",
                "SalesOrderNumber": number,
                "LineCreationSequenceNumber": index,
                "SalesOrderLineStatus": line_status,
            }
            changes.append(ErpChange("CDSSalesOrderLinesV2", entity))
        self.clock.forward(minutes=1)
        self.twin.erp_changed(changes)

    def invoice(self, invoice: str, quantities: dict[int, int], total: float, number: str = "BC-100") -> None:
        key = {
            "dataAreaId": "usmf",
            "InvoiceNumber": invoice,
            "InvoiceDate": "2026-01-07T12:00:00Z",
            "LedgerVoucher": f"V-{invoice}",
        }
        changes = [ErpChange("SalesInvoiceHeadersV2", {**key, "SalesOrderNumber": number, "TotalInvoiceAmount": total})]
        for sequence, quantity in quantities.items():
            entity = {**key, "LineCreationSequenceNumber": sequence, "InvoicedQuantity": quantity}
            changes.append(ErpChange("SalesInvoiceV2Lines", entity))
        self.twin.erp_changed(changes)


def bodies(messages: list[Message | Rejected]) -> list[Any]:
    return [message.body for message in messages if isinstance(message, Message)]


def quantities(**totals: str | int) -> tuple[LineQuantity, ...]:
    return tuple(LineQuantity(name[1:], decimal(total)) for name, total in totals.items())


def test_the_adapter_is_an_erp() -> None:
    erp: ErpOrders = World().adapter
    assert erp.system == "dual-write"


# --- sending -------------------------------------------------------------------------------------------------


def test_an_order_reaches_the_erp_whole() -> None:
    world = World()
    receipt = world.send(order())
    assert receipt == Receipt("BC-100", (("1", "1"), ("2", "2")))
    assert world.book.headers() == ["BC-100"]
    assert world.book.lines() == [("BC-100", 1), ("BC-100", 2)]
    header = world.book.rows["CDSSalesOrderHeaders", "usmf", "BC-100", 0]
    assert header["OrderingCustomerAccountNumber"] == "US-WEB"
    assert header["DeliveryAddressCountryRegionISOCode"] == "US"
    assert header["RequestedShippingDate"] == "2026-01-09T12:00:00Z"
    assert "DeliveryAddressStreetNumber" not in header
    assert world.book.line("BC-100", 1)["ShippingWarehouseId"] == "11"


def test_the_header_leaves_only_when_its_lines_are_there() -> None:
    """A new header is ready to sync unless told otherwise: it would leave alone."""
    world = World()
    staged: list[int] = []
    write = world.book.write

    class Watching:
        def write(self, rows: Any) -> None:
            staged.append(len(world.twin.rows("salesorderdetails")))
            write(rows)

    world.twin.connect_erp(Watching())
    world.send(order())
    assert staged == [2, 2, 2]
    assert [[row.entity_set for row in rows] for rows in world.book.writes] == [
        ["CDSSalesOrderHeaders"],
        ["CDSSalesOrderLinesV2"],
        ["CDSSalesOrderLinesV2"],
    ]


def test_a_header_written_naively_would_leave_alone() -> None:
    world = World()
    world.adapter.session.call("POST", "/salesorders", body=_naive(world.twin))
    assert world.book.headers() == ["NAIVE"]


def _naive(dataverse: DataverseTwin) -> dict[str, Any]:
    company = dataverse.rows("cdm_companies")[0]["cdm_companyid"]
    return {
        "msdyn_salesordernumber": "NAIVE",
        "msdyn_Company@odata.bind": f"/cdm_companies({company})",
        "customerid_account@odata.bind": f"/accounts(accountnumber='US-001',_msdyn_company_value={company})",
    }


def test_totals_reconcile_to_the_cent() -> None:
    world = World()
    of = order(line("1", "CHAIR", 3, "10.00"), line("2", "TABLE", 7, "33.34"), line("3", "LAMP", 1, "0.01"))
    world.send(of)
    cost = Decimal(0)
    for sequence in (1, 2, 3):
        row = world.book.line("BC-100", sequence)
        cost += decimal(row["OrderedSalesQuantity"]) * decimal(row["SalesPrice"]) + decimal(row["FixedPriceCharges"])
    assert cost == of.total.amount


def test_what_belongs_to_the_whole_order_is_shared_by_line_totals() -> None:
    shares = {name: str(amount) for name, amount in amounts(order()).items()}
    assert shares == {"1": "41.80 USD", "2": "62.69 USD"}


@given(
    totals=st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 30)), min_size=1, max_size=5),
    shipping=st.integers(0, 5000),
    discount=st.integers(0, 5000),
)
def test_no_cent_is_lost(totals: list[tuple[int, int]], shipping: int, discount: int) -> None:
    lines = [
        line(str(index), "CHAIR", quantity, str(Decimal(cents).scaleb(-2)))
        for index, (cents, quantity) in enumerate(totals)
    ]
    of = order(*lines, shipping=usd(str(Decimal(shipping).scaleb(-2))), discount=usd(str(Decimal(discount).scaleb(-2))))
    costs = amounts(of)
    assert sum((each.amount for each in costs.values()), Decimal(0)) == of.total.amount
    for each in of.lines:
        cost = price(costs[each.id], each)
        assert cost.each * each.quantity + cost.charges == costs[each.id].amount


def test_sending_again_changes_nothing_and_says_the_same() -> None:
    world = World()
    first = world.send(order())
    before, written = world.twin.rows("salesorders") + world.twin.rows("salesorderdetails"), len(world.book.writes)
    assert world.send(order()) == first
    assert world.twin.rows("salesorders") + world.twin.rows("salesorderdetails") == before
    assert len(world.book.writes) == written


def _calls() -> int:
    world = World()
    world.send(order())
    return world.twin.faults.calls


@pytest.mark.parametrize("kind", ["lost", "refuse", "status"])
@pytest.mark.parametrize("position", range(_calls()))
def test_an_answer_lost_anywhere_changes_nothing(position: int, kind: str) -> None:
    """Effectively once: at every call the answer may be lost, the call may fail, and a retry mends it."""
    calm = World()
    calm.send(order())
    world = World()
    world.twin.faults.plan(Fault(kind, after=position))
    with pytest.raises(Unavailable):
        world.adapter.send(request(order()))
    assert world.send(order()) == calm.send(order())
    assert world.book.rows == calm.book.rows
    assert len(world.twin.rows("salesorders")) == 1
    assert len(world.twin.rows("salesorderdetails")) == 2


def test_somebody_else_may_write_the_header_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our looking and our writing: the 412 makes us look again."""
    world = World()
    world.send(order(line("1", "CHAIR", 2, "40.00")))
    looked: list[str] = []
    get = DualWriteOrders._get

    def blind_once(self: DualWriteOrders, path: str, *, absent: bool = False) -> Any:
        if path.startswith("/salesorders(") and not looked:
            looked.append(path)
            return None
        return get(self, path, absent=absent)

    monkeypatch.setattr(DualWriteOrders, "_get", blind_once)
    assert world.send(order(line("1", "CHAIR", 2, "40.00"))).line_errors == ()
    assert looked
    assert len(world.twin.rows("salesorders")) == 1


def test_two_answers_lost_in_a_row_change_nothing() -> None:
    world = World()
    world.twin.faults.plan(*(Fault("lost", path="$batch") for _ in range(4)))
    for _ in range(4):
        with pytest.raises(Unavailable):
            world.adapter.send(request(order()))
    assert world.send(order()).line_errors == ()
    assert world.book.lines() == [("BC-100", 1), ("BC-100", 2)]


@pytest.mark.parametrize("status", [400, 403])
def test_a_refused_header_refuses_the_whole(status: int) -> None:
    world = World(refusal_status=status)
    world.book.refuse_headers = "Customer US-WEB is on hold."
    refused = world.adapter.send(request(order()))
    assert failed(refused)
    assert refused.failure().who == "dual-write"
    assert "Writes to CDSSalesOrderHeaders failed with error message Customer US-WEB is on hold." in (
        refused.failure().what
    )
    assert world.book.rows == {}
    assert world.twin.rows("salesorders")[0]["msdyn_isreadytosync"] is False
    world.book.refuse_headers = ""
    assert world.send(order()).line_errors == ()
    assert len(world.book.lines()) == 2


@pytest.mark.parametrize("status", [400, 403])
def test_a_refused_line_keeps_its_sync_error_and_the_others_go_on(status: int) -> None:
    world = World(refusal_status=status)
    world.book.refuse_products["CHAIR"] = "Item 'CHAIR' is blocked for 'Sales order'."
    receipt = world.send(order())
    assert receipt.line_numbers == (("2", "2"),)
    ((name, text),) = receipt.line_errors
    assert name == "1"
    assert "Item 'CHAIR' is blocked" in text
    chair, table = world.twin.rows("salesorderdetails")
    assert chair["msdyn_syncerror"] == text
    assert chair["msdyn_isreadytosync"] is False
    assert table["msdyn_isreadytosync"] is True
    assert world.book.lines() == [("BC-100", 2)]


def test_a_refused_line_can_be_sent_again_when_it_is_mended() -> None:
    world = World()
    world.book.refuse_products["CHAIR"] = "blocked"
    world.send(order())
    world.book.refuse_products.clear()
    assert world.send(order()).line_errors == ()
    assert world.twin.rows("salesorderdetails")[0]["msdyn_syncerror"] is None
    assert sorted(world.book.lines()) == [("BC-100", 1), ("BC-100", 2)]


def test_an_unknown_product_is_an_error_of_its_line() -> None:
    world = World()
    receipt = world.send(order(line("1", "GHOST", 1, 5), line("2", "TABLE", 1, 5)))
    assert receipt.line_errors == (("1", "productid: there is no row for 'GHOST' in products"),)
    assert world.book.lines() == [("BC-100", 2)]


def test_a_product_number_that_breaks_keys_is_found_all_the_same() -> None:
    world = World()
    world.twin.add_products(["50%+ O'Hara/Ø"])
    receipt = world.send(order(line("1", "50%+ O'Hara/Ø", 1, 5)))
    assert receipt.line_errors == ()
    assert world.book.line("BC-100", 1)["ProductNumber"] == "50%+ O'Hara/Ø"


def test_lines_can_follow_later() -> None:
    """Only lines with a shipping warehouse go; the rest follows when it has one."""
    world = World()
    waiting = order(line("1", "CHAIR", 2, "40.00"), line("2", "TABLE", 1, "59.99", warehouse=None))
    receipt = world.send(waiting)
    assert receipt.line_numbers == (("1", "1"),)
    assert receipt.line_errors == (("2", "held back by the sync filter: the line has no shipping warehouse"),)
    assert world.send(order(), "2").line_numbers == (("2", "2"),)
    assert sorted(world.book.lines()) == [("BC-100", 1), ("BC-100", 2)]
    assert len([row for rows in world.book.writes for row in rows if row.entity_set == "CDSSalesOrderHeaders"]) == 1


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        ({"company": None}, "no-company", "$.company"),
        ({"invoice_customer": None}, "no-customer", "$.invoice_customer"),
        ({"invoice_customer": "NOBODY"}, "unknown-customer", "$.customer"),
        ({"company": CompanyId("xxxx")}, "no-line", "$.lines"),
        ({"ready_to_sync": False}, "not-ready", "$.ready_to_sync"),
        ({"order_type": "transfer"}, "not-a-sales-order", "$.order_type"),
        ({"number": "BC/100"}, "number-not-usable", "$.id"),
        ({"number": "X" * 21}, "number-not-usable", "$.id"),
        ({"ship_to": Address(country="NL")}, "unmapped-country", "$.ship_to.country"),
    ],
)
def test_what_can_not_be_sent_is_refused_before_anything_is_written(
    change: dict[str, Any], code: str, where: str
) -> None:
    world = World()
    refused = world.adapter.send(request(order(**change)))
    assert failed(refused)
    assert (refused.failure().code, refused.failure().where) == (code, where)
    assert world.twin.rows("salesorders") == []


def test_an_order_without_lines_is_never_sent() -> None:
    world = World()
    refused = world.adapter.send(request(order(line("1", "CHAIR", 1, 5, site=None))))
    assert failed(refused)
    assert refused.failure().code == "no-line"
    assert world.book.rows == {}


def test_a_country_can_be_added_where_both_maps_have_it() -> None:
    world = World(settings={"countries": {"NL": "netherlands"}})
    refused = world.adapter.send(request(order(ship_to=Address(country="NL"))))
    # Our side was extended, the organization's map was not: dual-write says so.
    assert failed(refused)
    assert "no mapping in value map country" in refused.failure().what


def test_an_account_is_looked_for_before_a_contact() -> None:
    world = World()
    world.send(order(invoice_customer="US-001"))
    header = world.twin.rows("salesorders")[0]
    assert header["_customerid_value"] == world.twin.rows("accounts")[0]["accountid"]


def test_what_the_erp_calls_an_order_and_its_lines_is_kept() -> None:
    """An order that came from F&O is found under its own number and sequence numbers, never written twice."""
    world = World(settings={"erp_prefix": "SO-"})
    erp_order(world, "Confirmed")
    of = order(line("1", "CHAIR", 2, 100)).known_as(DUAL_WRITE, "SO-000891", [("1", "1")])
    receipt = world.send(of)
    assert receipt == Receipt("SO-000891", (("1", "1"),))
    assert len(world.twin.rows("salesorders")) == 1
    assert world.book.rows == {}


def test_sequence_numbers_never_collide() -> None:
    of = order(line("1", "CHAIR", 1, 1), line("2", "TABLE", 1, 1), line("3", "LAMP", 1, 1))
    known = of.known_as(DUAL_WRITE, "N", [("1", "2"), ("3", "7")])
    assert [each.sequence for each in numbered(known, DUAL_WRITE)] == [2, 8, 7]
    assert [each.sequence for each in numbered(of, DUAL_WRITE)] == [1, 2, 3]


def test_a_sync_error_column_that_does_not_exist_costs_nothing_else() -> None:
    world = World(settings={"sync_error_column": "new_nowhere"})
    world.book.refuse_products["CHAIR"] = "blocked"
    assert len(world.send(order()).line_errors) == 1
    world.book.refuse_products.clear()
    assert world.send(order()).line_errors == ()


def test_navigation_properties_can_be_given() -> None:
    given = {"customerid/contacts": "customerid_contact", "msdyn_company": "msdyn_Company"}
    world = World(settings={"navigation": given})
    assert world.send(order()).line_errors == ()
    wrong = World(settings={"navigation": {"msdyn_company": "msdyn_company"}})
    refused = wrong.adapter.send(request(order()))
    assert failed(refused)
    assert "The property 'msdyn_company' does not exist" in refused.failure().what


def test_our_own_writing_is_no_news() -> None:
    world = World()
    world.send(order())
    before = world.twin.faults.calls
    world.pull()
    assert world.twin.faults.calls - before == 3, "three delta links, and no order is read"


def test_the_number_gets_its_prefix() -> None:
    world = World(settings={"number_prefix": "W"})
    assert world.send(order()).number == "WBC-100"
    assert world.book.headers() == ["WBC-100"]


@pytest.mark.parametrize("limit", ["requests", "time", "concurrent"])
def test_service_protection_is_obeyed(limit: str) -> None:
    world = World()
    world.twin.faults.plan(throttled(limit, retry_after=7))
    with pytest.raises(Unavailable) as raised:
        world.adapter.send(request(order()))
    assert raised.value.retry_after == 7
    with pytest.raises(Unavailable):  # no call is made before the time is up
        world.adapter.send(request(order()))
    world.clock.forward(seconds=8)
    assert world.send(order()).line_errors == ()


def test_a_token_that_ended_is_renewed() -> None:
    world = World()
    world.twin.expire_tokens()
    world.send(order())
    world.twin.expire_tokens()
    assert world.send(order()).number == "BC-100"


def test_few_calls_are_needed_per_order() -> None:
    world = World()
    world.send(order())
    before = world.twin.faults.calls
    world.send(order(number="BC-101"))
    assert world.twin.faults.calls - before == 5


# --- pulling -------------------------------------------------------------------------------------------------


def test_a_whole_life() -> None:
    world = World()
    world.send(order())
    assert world.pull() == []
    world.erp("Confirmed")
    assert world.pull() == []
    world.erp("Picked")
    assert bodies(world.pull()) == [Picked(quantities(_1=2, _2=1))]
    world.erp("Delivered", "Delivered", "Delivered")
    told = bodies(world.pull())
    assert told[0] == Picked(quantities(_1=2, _2=1))
    assert isinstance(told[1], Shipped)
    assert told[1].lines == quantities(_1=2, _2=1)
    assert told[1].shipment == "BC-100/1x2+2x1"
    world.erp("Invoiced", "Invoiced", "Invoiced")
    world.invoice("CIV-1", {1: 2, 2: 1}, 104.49)
    told = bodies(world.pull())
    assert [type(each) for each in told] == [Picked, Invoiced]
    assert told[1].number == "CIV-1"
    assert told[1].total == usd("104.49")
    assert told[1].lines == quantities(_1=2, _2=1)
    assert world.pull() == []


def test_messages_keep_their_ids() -> None:
    world = World()
    world.send(order())
    world.erp("Delivered", "Delivered", "Delivered")
    first = world.pull()
    world.checkpoint = ""
    assert [each.id for each in world.pull()] == [each.id for each in first]
    assert {each.external_id for each in first} == {"BC-100"}


def test_lines_delivered_one_by_one_are_shipments_of_their_own() -> None:
    world = World()
    world.send(order())
    world.erp("PartiallyDelivered", "Delivered", "Backorder")
    assert bodies(world.pull())[0] == Picked(quantities(_1=2))
    world.erp("Delivered", "Delivered", "Delivered")
    shipments = [each for each in bodies(world.pull()) if isinstance(each, Shipped)]
    assert [(each.shipment, each.lines) for each in shipments] == [("BC-100/2x1", quantities(_2=1))]


def test_a_shipment_is_written_down_before_it_is_told() -> None:
    """A pull repeated after a crash tells the same shipment, though more was delivered meanwhile."""
    world = World()
    world.send(order())
    world.pull()
    world.erp("PartiallyDelivered", "Delivered", "Backorder")
    noted = world.adapter.pull(world.checkpoint, START)
    assert (noted.messages, noted.more) == ((), True)
    told = world.adapter.pull(noted.checkpoint, START)
    world.erp("Delivered", "Delivered", "Delivered")
    again = world.adapter.pull(noted.checkpoint, START)

    def shipments(messages: Any) -> list[Any]:
        return [(each.id, each.body) for each in messages if isinstance(each.body, Shipped)]

    assert shipments(told.messages) == shipments(again.messages)
    world.checkpoint = again.checkpoint
    assert [each.lines for each in bodies(world.pull()) if isinstance(each, Shipped)] == [quantities(_2=1)]


STEPS = st.lists(st.sampled_from(["pick", "line 1", "line 2", "line 3", "invoice", "pull", "crash"]), max_size=12)


@given(steps=STEPS)
@settings(max_examples=25)
def test_each_unit_is_shipped_once_however_pulls_and_deliveries_mix(steps: list[str]) -> None:
    """Conservation: with pulls anywhere, and pulls whose checkpoint was never saved, each line ships exactly once."""
    world = World()
    world.send(order(*(line(str(n), product, n, 10 * n) for n, product in enumerate(["CHAIR", "TABLE", "LAMP"], 1))))
    statuses, told, header = ["Backorder"] * 3, {}, "Active"

    def note(messages: Any) -> None:
        told.update({each.id: each.body for each in messages if isinstance(each, Message)})

    for step in [*steps, "line 1", "line 2", "line 3", "pull", "invoice", "pull"]:
        if step == "pull":
            note(world.pull())
        elif step == "crash":
            note(world.adapter.pull(world.checkpoint, START).messages)
        elif step == "invoice":
            if statuses == ["Delivered"] * 3:
                header, statuses = "Invoiced", ["Invoiced"] * 3
                world.erp(header, *statuses)
        elif header != "Invoiced":
            if step.startswith("line"):
                statuses[int(step[-1]) - 1] = "Delivered"
            done = statuses.count("Delivered")
            header = "Delivered" if done == 3 else "PartiallyDelivered" if done else "Picked"
            world.erp(header, *statuses)
    shipped: dict[str, Decimal] = {}
    for body in told.values():
        for each in body.lines if isinstance(body, Shipped) else ():
            shipped[each.line] = shipped.get(each.line, Decimal(0)) + each.quantity
    assert shipped == {"1": Decimal(1), "2": Decimal(2), "3": Decimal(3)}


def test_a_running_total_shipped_is_believed() -> None:
    world = World()
    world.send(order(line("1", "CHAIR", 5, "40.00")))
    row = world.twin.rows("salesorderdetails")[0]["salesorderdetailid"]
    shipped = []
    for total in (2, 5):
        world.adapter.session.call("PATCH", f"/salesorderdetails({row})", body={"quantityshipped": total})
        shipped += [each for each in bodies(world.pull()) if isinstance(each, Shipped)]
    assert [each.lines for each in shipped] == [quantities(_1=2), quantities(_1=3)]
    assert len({each.shipment for each in shipped}) == 2


def test_lines_the_erp_never_got_are_not_picked() -> None:
    world = World()
    world.book.refuse_products["CHAIR"] = "blocked"
    world.send(order())
    world.erp("Picked")
    assert bodies(world.pull()) == [Picked(quantities(_2=1))]


def test_a_canceled_order_and_a_canceled_line() -> None:
    world = World()
    world.send(order())
    world.send(order(number="BC-101"))
    world.erp("Picked", "Canceled", "Backorder")
    world.erp("Canceled", number="BC-101")
    assert bodies(world.pull()) == [Canceled(lines=("1",)), Picked(quantities(_2=1)), Canceled()]


def test_two_invoices_are_two_messages() -> None:
    world = World()
    world.send(order())
    world.erp("PartiallyInvoiced", "Invoiced", "Backorder")
    world.invoice("CIV-1", {1: 2}, 41.8)
    world.invoice("CIV-2", {2: 1}, 62.69)
    invoices = [each for each in bodies(world.pull()) if isinstance(each, Invoiced)]
    assert [(each.number, each.total) for each in invoices] == [("CIV-1", usd("41.80")), ("CIV-2", usd("62.69"))]


def test_partially_invoiced_is_before_delivered_though_its_number_is_higher() -> None:
    world = World()
    world.send(order())
    world.erp("PartiallyInvoiced", "Backorder", "Backorder")
    assert [each for each in bodies(world.pull()) if isinstance(each, Shipped)] == []


def test_many_orders_come_in_batches() -> None:
    world = World(settings={"orders_per_pull": 2, "page_size": 3})
    for index in range(5):
        world.send(order(number=f"BC-{index}"))
        world.erp("Picked", number=f"BC-{index}")
    first = world.adapter.pull("", START)
    assert first.more
    assert len(first.messages) == 2
    assert len(world.pull()) == 5


def test_an_expired_delta_token_means_reading_everything_again() -> None:
    world = World()
    world.send(order())
    world.erp("Picked")
    first = world.pull()
    world.clock.forward(days=8)
    assert [each.id for each in world.pull()] == [each.id for each in first]
    assert world.pull() == []


@pytest.mark.parametrize("status", [404, 410])
def test_however_an_expired_token_is_answered(status: int) -> None:
    world = World(expired_status=status)
    world.send(order())
    world.erp("Picked")
    world.pull()
    world.clock.forward(days=8)
    assert len(world.pull()) == 1


def test_a_lost_answer_while_pulling_loses_nothing() -> None:
    calls = _pull_calls()
    for position in range(calls):
        world = World()
        world.send(order())
        world.erp("Delivered", "Delivered", "Delivered")
        world.twin.faults.plan(Fault("lost", after=position))
        found: list[Message | Rejected] = []
        try:
            found += world.pull()
        except Unavailable:
            found += world.pull()
        assert [type(each) for each in bodies(found)] == [Picked, Shipped], position


def _pull_calls() -> int:
    world = World()
    world.send(order())
    world.erp("Delivered", "Delivered", "Delivered")
    before = world.twin.faults.calls
    world.pull()
    return world.twin.faults.calls - before


def test_an_order_that_can_not_be_read_does_not_stop_the_others() -> None:
    world = World()
    world.send(order())
    world.send(order(number="BC-101"))
    row = world.twin.rows("salesorders")[0]["salesorderid"]
    world.twin.stop()
    world.adapter.session.call("PATCH", f"/salesorders({row})", body={"msdyn_processingstatus": 7})
    world.twin.resume()
    world.erp("Picked", number="BC-101")
    bad, good = world.pull()
    assert isinstance(bad, Rejected)
    assert (bad.external_id, bad.where) == ("BC-100", "$.msdyn_processingstatus")
    assert isinstance(good, Message)


def test_a_deleted_order_says_nothing() -> None:
    world = World()
    world.send(order())
    world.pull()
    row = world.twin.rows("salesorders")[0]["salesorderid"]
    world.adapter.session.call("DELETE", f"/salesorders({row})")
    assert world.book.rows == {}
    assert world.pull() == []


def test_somebody_elses_orders_are_left_alone() -> None:
    world = World(settings={"number_prefix": "W"})
    world.twin.add("salesorders", msdyn_salesordernumber="OTHER-1", msdyn_processingstatus=192350002)
    assert world.pull() == []


@pytest.mark.parametrize("text", ["nonsense", "[]", "{}"])
def test_a_checkpoint_that_is_none_is_said_to_be(text: str) -> None:
    with pytest.raises(Misconfigured):
        World().adapter.pull(text, START)


def test_a_finished_order_is_forgotten() -> None:
    world = World()
    world.send(order())
    world.erp("Delivered", "Delivered", "Delivered")
    world.pull()
    assert "BC-100" in Checkpoint.read(world.checkpoint).shipped
    world.erp("Invoiced", "Invoiced", "Invoiced")
    world.pull()
    assert Checkpoint.read(world.checkpoint).shipped == {}
    world.erp("Invoiced", "Invoiced", "Invoiced")
    again = [each for each in bodies(world.pull()) if isinstance(each, Shipped)]
    assert [each.shipment for each in again] == ["BC-100/1x2+2x1"]


# --- orders from F&O -----------------------------------------------------------------------------------------


def erp_order(world: World, status: str, **more: Any) -> None:
    key = {"dataAreaId": "usmf", "SalesOrderNumber": "SO-000891"}
    header = {
        **key,
        "SalesOrderProcessingStatus": status,
        "OrderingCustomerAccountNumber": "US-001",
        "InvoiceCustomerAccountNumber": "US-001",
        "CurrencyCode": "USD",
        "SalesOrderName": "Contoso",
        "OrderTotalAmount": 110,
        "OrderTotalChargesAmount": 10,
        "TotalDiscountAmount": 0,
        "OrderTotalTaxAmount": 0,
        "ArePricesIncludingSalesTax": "No",
        "DefaultShippingSiteId": "1",
        "DefaultShippingWarehouseId": "11",
        "DeliveryAddressCountryRegionISOCode": "DE",
        "DeliveryAddressCity": "Berlin",
        "RequestedShippingDate": "2026-01-09T12:00:00Z",
        "ConfirmedShippingDate": "1900-01-01T12:00:00Z",
        **more,
    }
    line_entity = {
        **key,
        "LineCreationSequenceNumber": 1,
        "ProductNumber": "CHAIR",
        "ProductName": "Chair",
        "OrderedSalesQuantity": 2,
        "SalesUnitSymbol": "ea",
        "SalesPrice": 50,
        "LineAmount": 100,
        "TotalTaxAmount": 0,
        "SalesOrderLineStatus": "Backorder",
    }
    world.clock.forward(minutes=1)
    world.twin.erp_changed([ErpChange("CDSSalesOrderLinesV2", line_entity), ErpChange("CDSSalesOrderHeaders", header)])


def test_an_order_of_fno_comes_once_it_is_confirmed() -> None:
    world = World(settings={"erp_prefix": "SO-"})
    erp_order(world, "Active")
    assert world.pull() == []
    erp_order(world, "Confirmed")
    (told,) = bodies(world.pull())
    assert isinstance(told, NewOrder)
    draft = told.draft
    assert draft.ready_to_sync
    assert (draft.external_id, draft.company, draft.site, draft.warehouse) == ("SO-000891", "usmf", "1", "11")
    assert (draft.customer, draft.ship_to.country, draft.total) == ("US-001", "DE", usd(110))
    assert [(each.external_id, each.product, each.total) for each in draft.lines] == [("1", "CHAIR", usd(100))]
    assert world.book.rows == {}, "what came over dual-write is not sent back"


def test_an_order_of_fno_whose_amounts_do_not_add_up_is_rejected() -> None:
    world = World(settings={"erp_prefix": "SO-"})
    erp_order(world, "Confirmed", OrderTotalAmount=111)
    (told,) = world.pull()
    assert isinstance(told, Rejected)
    assert told.where == "$.totalamount"


def test_orders_of_fno_are_not_taken_in_unless_asked() -> None:
    world = World(settings={"number_prefix": "BC-"})
    erp_order(world, "Confirmed")
    assert world.pull() == []


# --- configuration -------------------------------------------------------------------------------------------

CONFIG = {"base_url": "https://org.api.crm4.dynamics.com", "tenant": "t", "client_id": "c", "client_secret": "s3cret"}


def test_connecting_calls_nothing_and_hides_the_secret() -> None:
    made = connect(CONFIG)
    assert isinstance(made, DualWriteOrders)
    assert "s3cret" not in repr(made)
    assert made.session.base_url == "https://org.api.crm4.dynamics.com/api/data/v9.2"
    assert getattr(made.session.auth, "scope", "") == "https://org.crm4.dynamics.com/.default"


@pytest.mark.parametrize("missing", ["base_url", "tenant", "client_id", "client_secret"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(Misconfigured, match=missing):
        connect({name: value for name, value in CONFIG.items() if name != missing})


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(Misconfigured, match="nonsense"):
        connect({**CONFIG, "nonsense": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page_size", "many"),
        ("page_size", "500"),
        ("page_size", 0),
        ("orders_per_pull", 0),
        ("prices_include_tax", "false"),
        ("number_prefix", 1),
        ("countries", {"NL": 1}),
        ("countries", "NL"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(name: str, value: object) -> None:
    with pytest.raises(Misconfigured, match=name):
        connect({**CONFIG, name: value})


def test_settings_have_safe_defaults() -> None:
    assert Settings().number_prefix == ""
    assert Settings().erp_prefix == ""
