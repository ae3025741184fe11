"""Billing in SAP and hearing of it: every trap of the protocol, and nothing twice whatever gets lost."""

from __future__ import annotations

import json
import threading
from decimal import Decimal
from typing import Any

import attrs
import httpx
import pytest

from iom_adapters._twin import Fault, serve, transport
from iom_adapters.sap import connect, wire
from iom_adapters.sap.twin import Material
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Invoiced, LineQuantity, Message, Rejected
from iom_core.order import SalesOrder
from iom_core.outcome import failed
from iom_core.ports import BillingRequest, Capability
from iom_core.testing.samples import SAMPLE_AT
from iom_core.values import Money, OrderId

from ._sap import BASE, MATERIALS, SECRET, WAYS, Client100, invoices, shipped

WRITES = ("POST", "PATCH")
ORDERS, DELIVERIES, BILLING = "API_SALES_ORDER_SRV/A_SalesOrder", "A_OutbDeliveryHeader", "CreateFromSDDocument"


def billed(client: Client100, order: SalesOrder | None = None) -> dict[str, Decimal]:
    """Return how much of each item SAP has billed, over all documents that count."""
    found: dict[str, Decimal] = {}
    for each in client.twin.documents(str((order or shipped()).id)):
        if each["head"]["SDDocumentCategory"] == "M" and not each["head"]["BillingDocumentIsCancelled"]:
            for item in each["items"]:
                place = item["SalesDocumentItem"]
                found[place] = found.get(place, Decimal(0)) + Decimal(item["BillingQuantity"])
    return found


WHOLE = {"10": Decimal(2), "20": Decimal(1), "30": Decimal(1)}


# --- nothing twice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", list(WAYS))
def test_what_is_asked_for_a_bill(way: str) -> None:
    client = Client100(way)
    receipt = client.bill()
    assert receipt.number == "1"
    assert receipt.line_numbers == (("1", "10"), ("2", "20"), ("3", "30"))
    assert billed(client) == WHOLE
    assert sum(Decimal(each["TotalGrossAmount"]) for each in client.documents()) == shipped().total.amount


@pytest.mark.parametrize("kind", ["lost", "refuse", "status"])
@pytest.mark.parametrize("way", list(WAYS))
def test_whichever_answer_fails_nothing_is_done_twice(way: str, kind: str) -> None:
    counted = Client100(way)
    counted.bill()
    for position in range(counted.twin.faults.calls):
        client = Client100(way)
        client.twin.faults.plan(Fault(kind, after=position, status=502))
        with pytest.raises(Unavailable):
            client.bill()
        if position % 2:
            client.restart()
        assert client.bill() == counted.bill()
        assert len(client.twin.orders()) == 1
        assert len(client.twin.deliveries()) == (1 if way == "delivery" else 0)
        assert billed(client) == WHOLE


@pytest.mark.parametrize("way", list(WAYS))
def test_parcel_after_parcel_is_billed_to_the_cent(way: str) -> None:
    client = Client100(way)
    client.bill(shipped(partly=True), key="K-1")
    client.bill(shipped(), key="K-2")
    client.bill(shipped(partly=True), key="K-1")
    assert len(client.twin.orders()) == 1
    assert billed(client) == {"10": Decimal(1), "11": Decimal(1), "20": Decimal(1), "30": Decimal(1)}
    client.post()
    told = invoices(client.pull()[0])
    assert len(told) == 2
    assert sum((each.total for each in told), Money.zero("USD")) == shipped().total
    lines = [each for invoice in told for each in invoice.lines]
    assert sorted(lines, key=lambda each: (each.line, each.quantity)) == [
        LineQuantity("10", Decimal(1)),
        LineQuantity("10", Decimal(1)),
        LineQuantity("20", Decimal(1)),
        LineQuantity("30", Decimal(1)),
    ]


@pytest.mark.parametrize("mark", ["PurchaseOrderByShipToParty", ""])
def test_an_older_system_keeps_our_mark_elsewhere_or_in_the_item_number(mark: str) -> None:
    client = Client100(item_mark=mark)
    client.bill(shipped(partly=True))
    client.bill(shipped())
    assert billed(client) == {"10": Decimal(1), "11": Decimal(1), "20": Decimal(1), "30": Decimal(1)}
    assert not any("UnderlyingPurchaseOrderItem" in each.content.decode() for each in client.sent)
    client.post()
    assert sum((each.total for each in invoices(client.pull()[0])), Money.zero("USD")) == shipped().total


def test_a_lost_answer_to_an_added_item_adds_it_once() -> None:
    client = Client100()
    client.bill(shipped(partly=True))
    client.twin.faults.plan(Fault("lost", method="POST", path="to_Item"))
    with pytest.raises(Unavailable):
        client.bill(shipped())
    client.bill(shipped())
    assert billed(client) == {"10": Decimal(1), "11": Decimal(1), "20": Decimal(1), "30": Decimal(1)}


def test_what_the_due_list_billed_is_not_billed_again() -> None:
    client = Client100()
    client.meanwhile.append((BILLING, client.twin.bill_due))
    client.bill()
    assert len(client.documents()) == 1
    assert client.requests("POST", BILLING)


def test_an_order_of_which_the_invoice_was_canceled_is_open_again() -> None:
    client = Client100()
    client.bill()
    client.twin.cancel("90000000")
    client.bill()
    assert billed(client) == WHOLE


def test_the_repeat_names_itself() -> None:
    client = Client100()
    client.lose_next_answer()
    with pytest.raises(Unavailable):
        client.bill()
    first = client.requests("POST")[0].headers
    assert len(first["RequestID"]) == 32
    assert first["RepeatabilityCreation"] == "Mon, 05 Jan 2026 08:00:00 GMT"
    other = Client100()
    other.bill()
    assert other.requests("POST")[0].headers["RequestID"] == first["RequestID"]
    without = Client100(repeatable=False)
    without.bill()
    assert "RequestID" not in without.requests("POST")[0].headers


def test_the_same_reference_twice_is_for_a_person() -> None:
    client = Client100()
    numbers = [client.twin.add_order("BC-1001"), client.twin.add_order("BC-1001")]
    refused = client.refused()
    assert refused.code == "duplicate"
    assert all(number in refused.what for number in numbers)
    client.twin.reject(numbers[0])
    assert client.refused().code == "foreign-order"
    client.twin.reject(numbers[1])
    client.bill()
    assert len(client.twin.orders()) == 3


def test_nothing_is_added_to_an_order_that_people_entered_under_our_number() -> None:
    client = Client100()
    client.twin.add_order("BC-1001")
    assert client.refused().code == "foreign-order"
    assert client.log(*WRITES) == []


def test_a_document_without_its_items_is_rejected() -> None:
    client = Client100()
    page = b'{"d": {"results": [{"BillingDocument": "9", "to_Item": {"__deferred": {}}}]}}'
    client.twin.faults.plan(Fault("status", status=200, body=page, headers={"content-type": "application/json"}))
    (told,) = client.ledger.pull("", client.now).messages
    assert isinstance(told, Rejected)
    assert told.where == "$.to_Item"


def test_a_similar_reference_is_another_order() -> None:
    client = Client100()
    client.twin.add_order("bc-1001")
    client.bill()
    assert len(client.twin.orders()) == 2


def test_what_sap_finds_under_another_reference_is_not_ours() -> None:
    client = Client100()
    row = {"SalesOrder": "7", "PurchaseOrderByCustomer": "bc-1001", "__metadata": {"etag": "x"}, "to_Item": []}
    page = json.dumps({"d": {"results": [row]}}).encode()
    fault = Fault("status", method="GET", status=200, body=page, headers={"content-type": "application/json"})
    client.twin.faults.plan(fault)
    assert client.bill().number == "1"


def test_a_quote_in_our_number_is_one() -> None:
    client = Client100()
    order = shipped(id=OrderId("O'Neil-1"))
    client.bill(order)
    client.bill(order)
    assert len(client.twin.orders("O'Neil-1")) == 1


def test_a_reference_beyond_35_characters_is_refused_and_not_cut() -> None:
    client = Client100()
    client.bill(shipped(id=OrderId("X" * 35)))
    assert client.refused(shipped(id=OrderId("X" * 36))).code == "reference"
    assert len(client.twin.orders()) == 1


# --- token and cookies -------------------------------------------------------------------------------------


def test_the_token_comes_with_the_first_look() -> None:
    client = Client100()
    client.bill()
    assert client.requests("GET")[0].headers["x-csrf-token"] == "Fetch"
    assert client.requests("HEAD") == []
    assert all("SAP_SESSIONID_S4H_100" in each.headers["cookie"] for each in client.requests("POST"))
    assert {each.headers["x-csrf-token"] for each in client.requests("POST")} == {"token-00000001=="}


def test_a_token_that_ended_is_fetched_once_even_from_a_405() -> None:
    client = Client100()
    client.meanwhile.append(("POST", client.twin.expire_sessions))
    client.bill()
    assert [status for method, _, status in client.twin.faults.log if method == "HEAD"] == [405]
    assert [status for _, path, status in client.log("POST") if path.endswith("A_SalesOrder")] == [403, 201]
    assert billed(client) == WHOLE


def test_a_403_without_the_header_is_no_reason_to_try_again() -> None:
    client = Client100()
    client.twin.forbidden = True
    with pytest.raises(Misconfigured, match="authorizations"):
        client.bill()
    assert len(client.log("POST")) == 1


def test_a_token_whose_cookies_are_gone_is_tried_twice_and_no_more() -> None:
    client = Client100()
    client.meanwhile += [("POST", client.twin.expire_sessions), ("POST", client.twin.expire_sessions)]
    with pytest.raises(Misconfigured, match="cookies"):
        client.bill()
    assert [status for _, _, status in client.log("POST")] == [403, 403]


def test_a_system_without_tokens_is_told_apart() -> None:
    client = Client100()
    client.twin.faults.plan(Fault("status", method="HEAD", status=404, times=9))
    client.meanwhile.append(("POST", client.twin.expire_sessions))
    with pytest.raises(Misconfigured, match="CSRF"):
        client.bill()


# --- ETags -------------------------------------------------------------------------------------------------


def test_the_etag_goes_back_byte_for_byte() -> None:
    client = Client100("order, blocked first")
    client.bill()
    (patch,) = client.requests("PATCH")
    assert patch.headers["if-match"].startswith("W/\"datetimeoffset'2026-01-05T08%3A00%3A00.")
    assert json.loads(patch.content) == {"HeaderBillingBlockReason": ""}


def test_a_delivery_is_read_again_between_its_steps() -> None:
    client = Client100("delivery")
    client.bill()
    moves = client.requests("POST", "DeliveryDocument=")
    assert [each.headers["if-match"] for each in moves] == ["W/\"'0001'\"", "W/\"'0002'\""]
    assert [each.url.path.rpartition("/")[2] for each in moves] == ["PickAllItems", "PostGoodsIssue"]
    assert all(each.url.query == b"DeliveryDocument='80000000'" and not each.content for each in moves)
    assert all(b";v=0002/" in each.url.raw_path for each in client.requests("POST", "OUTBOUND"))


def test_an_outdated_etag_is_read_again() -> None:
    client = Client100("order, blocked first")
    client.meanwhile.append(("PATCH", lambda: client.twin.change("order", "1", DeliveryBlockReason="01")))
    client.bill()
    assert [status for _, _, status in client.log("PATCH")] == [412, 204]


def test_a_document_that_never_rests_is_left_for_later() -> None:
    client = Client100("order, blocked first")
    client.twin.faults.plan(Fault("status", method="PATCH", status=412, times=99))
    with pytest.raises(Unavailable):
        client.bill()
    assert len(client.log("PATCH")) == 3


def test_a_428_is_a_bug_and_not_tried_again() -> None:
    client = Client100("order, blocked first")
    client.twin.faults.plan(Fault("status", method="PATCH", status=428))
    with pytest.raises(Misunderstood, match="If-Match"):
        client.bill()


# --- what SAP refuses --------------------------------------------------------------------------------------


def test_the_cause_of_a_refusal_is_told() -> None:
    client = Client100()
    client.twin.blocked["17100001"] = "Customer 17100001 is blocked for orders"
    refused = client.refused()
    assert (refused.code, refused.who) == ("refused-by-sap", "sap")
    assert "V1/042" in refused.what
    assert "is blocked for orders" in refused.what
    assert client.twin.orders() == []


def test_an_unknown_material_is_refused() -> None:
    client = Client100(twin={"materials": {"CHAIR": MATERIALS[next(iter(MATERIALS))]}})
    assert "LAMP" in client.refused().what


def test_a_locked_document_is_tried_again() -> None:
    client = Client100()
    client.twin.locked["1"] = "SMITH"
    with pytest.raises(Unavailable, match="SMITH"):
        client.bill()
    client.twin.locked.clear()
    client.bill()
    assert billed(client) == WHOLE


def test_an_empty_answer_means_that_nothing_was_billed() -> None:
    client = Client100(item_category="TAN")
    refused = client.refused()
    assert refused.code == "not-billed"
    assert len(client.requests("POST", BILLING)) == 1


def test_a_goods_issue_may_fail_with_a_200() -> None:
    client = Client100("delivery", pick=False)
    refused = client.refused()
    assert refused.code == "goods-issue"
    assert "VL 609 not picked" in refused.what
    assert client.documents() == []


def test_a_delivery_that_needs_no_picking_is_not_picked() -> None:
    client = Client100("delivery", twin={"picks": False})
    client.bill()
    assert client.requests("POST", "PickAllItems") == []


def test_a_foreign_billing_block_is_refused() -> None:
    client = Client100()
    client.meanwhile.append((BILLING, lambda: client.twin.change("order", "1", HeaderBillingBlockReason="09")))
    assert "VF/017" in client.refused().what
    assert client.refused().code == "billing-block"


@pytest.mark.parametrize(
    ("settings", "changes", "code"),
    [
        ({"guest": ""}, {}, "unmapped-customer"),
        ({"sales_areas": {"demf": "1010/10/00"}}, {}, "no-sales-area"),
        ({}, {"fulfillment_orders": (), "lines": ()}, "nothing-shipped"),
    ],
)
def test_what_we_cannot_say_in_saps_words_is_refused_before(
    settings: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    client = Client100(**settings)
    assert client.refused(shipped(**changes)).code == code
    assert client.log(*WRITES) == []


def test_customers_are_mapped() -> None:
    client = Client100(customers={"C-7": "17100002"}, twin={"customers": ("17100002",)})
    client.bill()
    assert client.twin.orders()[0]["head"]["SoldToParty"] == "17100002"


@pytest.mark.parametrize(("status", "fault"), [(404, Misconfigured), (200, Misunderstood), (503, Unavailable)])
def test_other_answers_to_a_write_are_faults(status: int, fault: type[Exception]) -> None:
    client = Client100()
    client.twin.faults.plan(Fault("status", method="POST", status=status))
    with pytest.raises(fault):
        client.bill()


def test_a_refusal_that_is_no_json_is_one_all_the_same() -> None:
    client = Client100()
    html = {"content-type": "text/html"}
    client.twin.faults.plan(Fault("status", method="POST", status=400, headers=html, body=b"<html>secret</html>"))
    assert client.refused().what == "SAP refused without a reason (400)"


def test_throttling_says_how_long() -> None:
    client = Client100()
    client.twin.faults.plan(Fault("status", status=429, headers={"retry-after": "60"}))
    with pytest.raises(Unavailable) as caught:
        client.bill()
    assert caught.value.retry_after == 60


# --- what is said ------------------------------------------------------------------------------------------


def numbers(value: object, where: str = "$") -> list[str]:
    """Return where a JSON value has numbers."""
    if isinstance(value, dict):
        return [place for name, each in value.items() for place in numbers(each, f"{where}.{name}")]
    if isinstance(value, list):
        return [place for each in value for place in numbers(each, where)]
    return [where] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def test_v2_hears_decimals_as_text() -> None:
    client = Client100()
    client.bill()
    body = json.loads(client.requests("POST")[0].content)
    assert numbers(body) == []
    (chair, *_) = body["to_Item"]["results"]
    assert chair["RequestedQuantity"] == "2"
    assert body["PurchaseOrderByCustomer"] == "BC-1001"
    assert body["CustomerPurchaseOrderDate"] == "/Date(1767571200000)/"
    (price,) = chair["to_PricingElement"]["results"]
    assert (price["ConditionType"], price["ConditionQuantity"]) == ("ZGRS", "2")


def test_every_address_has_percent_20_and_no_plus() -> None:
    client = Client100("delivery")
    client.bill()
    client.pull()
    assert not [each for each in client.sent if b"+" in each.url.raw_path]
    assert [each for each in client.sent if b"%20eq%20" in each.url.raw_path]


def test_every_call_names_the_client_and_wants_json() -> None:
    client = Client100()
    client.bill()
    for each in client.sent:
        assert each.headers["sap-client"] == "100"
        assert each.headers["accept"] == "application/json"
        assert each.headers["accept-language"] == "en"


def test_sap_may_price_by_itself() -> None:
    client = Client100(price_condition="", twin={"tax": Decimal("0.1")})
    client.bill()
    client.post()
    (told,) = invoices(client.pull()[0])
    assert told.total == Money.of("43.96", "USD")


def test_a_gross_price_has_its_tax_within() -> None:
    client = Client100(twin={"tax": Decimal("0.08")})
    client.bill()
    (head,) = client.documents()
    assert Decimal(head["TotalGrossAmount"]) == shipped().total.amount
    assert Decimal(head["TaxAmount"]) > 0


def test_a_net_price_leaves_the_tax_to_sap() -> None:
    client = Client100(price_condition="PMP0", price_is="net", twin={"tax": Decimal("0.1")})
    order = shipped(shipping=Money.zero("USD"), total=Money.of("70.50", "USD"))
    taxes = ("4.55", "1.41", "0.45")
    lines = tuple(attrs.evolve(line, tax=Money.of(tax, "USD")) for line, tax in zip(order.lines, taxes))
    client.bill(attrs.evolve(order, lines=lines))
    (head,) = client.documents()
    assert Decimal(head["TotalNetAmount"]) == Decimal("70.50") - sum(map(Decimal, taxes))


def test_posting_may_be_left_to_others() -> None:
    client = Client100(post_automatically=False, billing_type="F2")
    client.bill()
    (sent,) = client.requests("POST", BILLING)
    assert json.loads(sent.content) == {
        "_Control": {"AutomPostingToAcctgIsDisabled": True, "DefaultBillingDocumentType": "F2"},
        "_Reference": [{"SDDocument": "1", "SDDocumentCategory": "C", "BillingDocumentType": "F2"}],
    }


# --- who we are --------------------------------------------------------------------------------------------

OAUTH: dict[str, Any] = {"user": "", "password": "", "client_id": "iom-client", "client_secret": "oauth-secret"}


def test_oauth_sends_its_secret_in_a_header_and_renews() -> None:
    client = Client100(**OAUTH)
    client.bill()
    (token,) = client.requests("POST", "oauth2/token")
    assert token.url.query == b"sap-client=100"
    assert token.content == b"grant_type=client_credentials"
    client.twin._tokens.clear()
    client.pull()
    assert len(client.requests("POST", "oauth2/token")) == 2


@pytest.mark.parametrize(
    "settings", [{"password": "wrong"}, {**OAUTH, "client_secret": "wrong"}, {"sap_client": "200"}], ids=str
)
def test_wrong_credentials_are_for_a_person(settings: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured) as caught:
        Client100(**settings).bill()
    assert "wrong" not in str(caught.value)


def test_a_login_page_is_no_answer() -> None:
    client = Client100()
    client.twin.login_page = True
    with pytest.raises(Misconfigured, match="communication user"):
        client.bill()
    with pytest.raises(Misconfigured):
        client.pull()


# --- pulling -----------------------------------------------------------------------------------------------


def test_an_invoice_is_told_when_it_is_posted_and_not_before() -> None:
    client = Client100(twin={"padded": True})
    client.bill()
    found, checkpoint = client.pull()
    assert found == []
    client.post()
    found, _ = client.pull(checkpoint)
    (message,) = found
    assert message.external_id == "1"
    assert message.id == "sap/invoice/90000000/1"
    (invoice,) = invoices(found)
    assert invoice.number == "90000000"
    assert invoice.total == shipped().total
    assert invoice.lines == tuple(LineQuantity(*each) for each in WHOLE.items())
    assert invoice.invoiced_at == SAMPLE_AT.replace(hour=0)


@pytest.mark.parametrize("way", list(WAYS))
def test_what_is_told_completes_the_order(way: str) -> None:
    client = Client100(way)
    order = shipped()
    for each in (shipped(partly=True), order):
        receipt = client.bill(each)
        order = order.known_as(client.ledger.system, receipt.number, receipt.line_numbers)
    client.post()
    for message in client.pull()[0]:
        assert isinstance(message, Message)
        assert order.external("sap") == message.external_id
        body = message.body
        assert isinstance(body, Invoiced)
        order = order.invoice(message.system, body.number, body.lines, body.total, message.at).unwrap().order
    assert [line.invoiced for line in order.lines] == [line.quantity for line in order.lines]
    assert order.invoiced_total == order.total


def test_a_document_posted_weeks_later_is_told_though_its_dates_did_not_move() -> None:
    client = Client100()
    client.bill()
    _, checkpoint = client.pull()
    for _ in range(5):
        client.clock.advance(days=9)
        found, checkpoint = client.pull(checkpoint)
        assert found == []
    client.post()
    found, checkpoint = client.pull(checkpoint)
    assert len(invoices(found)) == 1
    assert client.pull(checkpoint)[0] == []


def test_the_overall_billing_status_says_nothing() -> None:
    client = Client100()
    client.bill()
    client.twin.change("document", "90000000", OverallBillingStatus="C")
    assert client.pull()[0] == []


def test_an_order_may_come_in_several_documents() -> None:
    client = Client100(twin={"split": True})
    client.bill()
    client.post()
    told = invoices(client.pull()[0])
    assert len(told) == 3
    assert sum((each.total for each in told), Money.zero("USD")) == shipped().total


def test_a_document_may_cover_several_orders() -> None:
    client = Client100("order, blocked first")
    first, second = shipped("BC-1"), shipped("BC-2")
    refuse = Fault("refuse", path=BILLING, times=2)
    client.twin.faults.plan(refuse)
    for each in (first, second):
        with pytest.raises(Unavailable):
            client.bill(each)
    client.twin.bill_together("1", "2", client.twin.add_order())
    client.post()
    assert client.bill(first).number == "1"
    found, _ = client.pull()
    assert [(each.external_id, each.id) for each in found] == [
        ("1", "sap/invoice/90000000/1"),
        ("2", "sap/invoice/90000000/2"),
    ]
    assert [each.total for each in invoices(found)] == [first.total, second.total]
    client.twin.change("document", "90000000", TotalGrossAmount="1.00")
    assert all(isinstance(each, Rejected) for each in client.pull()[0])


def test_other_peoples_documents_are_none_of_ours() -> None:
    client = Client100(reference_prefix="BC-")
    for reference in ("", "4711"):
        client.twin.bill_together(client.twin.add_order(reference))
    client.post()
    found, checkpoint = client.pull()
    assert found == []
    assert json.loads(checkpoint)[2] == []


@pytest.mark.parametrize("category", ["O", "P", "U"])
def test_memos_and_pro_forma_documents_are_no_invoices(category: str) -> None:
    client = Client100()
    client.bill()
    client.post()
    client.twin.change("document", "90000000", SDDocumentCategory=category)
    assert client.pull()[0] == []


def test_a_canceled_invoice_is_brought_to_a_person_and_its_cancellation_is_no_invoice() -> None:
    client = Client100()
    client.bill()
    client.post()
    client.twin.cancel("90000000")
    (told,) = client.pull()[0]
    assert isinstance(told, Rejected)
    assert (told.where, told.external_id) == ("$.BillingDocumentIsCancelled", "1")
    assert "90000000" in told.what


def test_what_people_add_is_in_the_total_only() -> None:
    client = Client100("order, blocked first", twin={"materials": {**MATERIALS, "FREIGHT": Material(Decimal("7.00"))}})
    client.meanwhile.append((BILLING, lambda: client.twin.add_item("1", "FREIGHT")))
    client.bill()
    client.post()
    (invoice,) = invoices(client.pull()[0])
    assert [each.line for each in invoice.lines] == ["10", "20", "30"]
    assert invoice.total == shipped().total + Money.of("7.00", "USD")


def test_an_amount_the_header_leaves_out_is_the_sum_of_net_and_tax() -> None:
    client = Client100()
    client.bill()
    client.post()
    client.twin.change("document", "90000000", TotalGrossAmount="0.00")
    assert invoices(client.pull()[0])[0].total == shipped().total


@pytest.mark.parametrize(
    ("head", "items", "where"),
    [
        ({"TotalGrossAmount": "1.001"}, {}, "$.TotalGrossAmount"),
        ({"TotalGrossAmount": "a lot"}, {}, "$.TotalGrossAmount"),
        ({"TransactionCurrency": "XXX"}, {}, "$.TotalGrossAmount"),
        ({"TransactionCurrency": ""}, {}, "$.TransactionCurrency"),
        ({"BillingDocumentDate": "yesterday"}, {}, "$.BillingDocumentDate"),
        ({"BillingDocumentIsCancelled": "no"}, {}, "$.BillingDocumentIsCancelled"),
        ({}, {"BillingQuantity": "-1"}, "$.to_Item[0].BillingQuantity"),
        ({}, {"BillingQuantity": "a few"}, "$.BillingQuantity"),
        ({}, {"BillingQuantityUnit": "BOX"}, "$.to_Item[0].BillingQuantityUnit"),
        ({}, {"SalesDocumentItem": "990"}, "$.to_Item"),
        ({}, {"NetAmount": None}, "$.NetAmount"),
    ],
)
def test_what_cannot_be_read_is_rejected_by_its_place(head: dict[str, Any], items: dict[str, Any], where: str) -> None:
    client = Client100()
    client.bill(shipped("BC-1"))
    client.bill(shipped("BC-2"))
    client.post()
    stored = client.twin._db.get("document", "90000000")
    assert stored is not None
    client.twin._db.put(
        "document",
        "90000000",
        {**stored, "head": {**stored["head"], **head}, "items": [{**each, **items} for each in stored["items"]]},
    )
    found, _ = client.pull()
    bad = [each for each in found if isinstance(each, Rejected)]
    assert [(each.where, each.external_id) for each in bad] == [(where, "1")]
    assert len(invoices(found)) == 1


def test_an_order_that_cannot_be_read_is_rejected_once() -> None:
    client = Client100(twin={"split": True})
    client.bill()
    client.post()
    client.twin.change_items("order", "1", RequestedQuantity="a few")
    found, _ = client.pull()
    assert len({each.id for each in found}) == 1
    assert isinstance(found[0], Rejected)


def test_a_document_is_read_by_its_number_under_the_same_id() -> None:
    client = Client100()
    client.bill()
    client.post()
    pulled, _ = client.pull()
    assert [each.id for each in client.ledger.read("0090000000", client.now)] == [each.id for each in pulled]
    assert client.ledger.read("90009999", client.now) == ()


def test_pages_are_followed_and_windows_advance() -> None:
    client = Client100(twin={"page": 2})
    for each in range(1, 8):
        client.bill(shipped(f"BC-{each}"))
        client.post()
        client.clock.advance(days=3)
    found, checkpoint = client.pull()
    assert {each.external_id for each in found} == {str(each) for each in range(1, 8)}
    later = client.ledger.pull(checkpoint, client.now)
    assert not later.more
    assert len(later.messages) <= 1


@pytest.mark.parametrize(
    "checkpoint", ["x", "[]", '[2, "2026-01-05T00:00:00+00:00", []]', '[1, "2026-01-05", []]', "{}"]
)
def test_a_foreign_checkpoint_is_for_a_person(checkpoint: str) -> None:
    with pytest.raises(Misconfigured, match="checkpoint"):
        Client100().ledger.pull(checkpoint, SAMPLE_AT)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"d": 5}',
        b'{"d": {"results": 5}}',
        b'{"d": {"results": [5]}}',
        b'{"d": {"results": [], "__next": 5}}',
        b'{"d": {"results": [], "__next": "https://evil.example/"}}',
        b"[" * 100_000,
    ],
    ids=lambda body: str(body[:40]),
)
def test_an_answer_that_is_no_page_is_misunderstood(body: bytes) -> None:
    client = Client100()
    client.twin.faults.plan(Fault("status", status=200, body=body, headers={"content-type": "application/json"}))
    with pytest.raises((Misunderstood, Misconfigured)):
        client.ledger.pull("", client.now)


def test_a_missing_service_is_for_a_person() -> None:
    client = Client100()
    client.twin.faults.plan(Fault("status", status=404, times=9))
    with pytest.raises(Misconfigured, match="404"):
        client.ledger.pull("", client.now)


# --- events ------------------------------------------------------------------------------------------------


def test_an_event_hints_at_its_document() -> None:
    client = Client100()
    client.bill()
    headers, body = client.twin.event("90000000")
    assert failed(client.ledger.translate(headers, body))
    assert client.ledger.translate({**headers, "Authorization": f"Bearer {SECRET}"}, body).unwrap() == ("90000000",)
    client.post()
    (told,) = client.ledger.read("90000000", client.now)
    assert told.external_id == "1"


def test_events_are_declared_once_there_is_a_secret() -> None:
    assert Client100().ledger.capabilities == frozenset({Capability.WEBHOOKS})
    without = Client100(webhook_secret="")
    assert without.ledger.capabilities == frozenset()
    headers, body = without.twin.event("90000000")
    assert failed(without.ledger.translate({**headers, "authorization": ""}, body))


def test_an_oversized_event_is_refused() -> None:
    found = Client100().ledger.translate({"authorization": SECRET}, b"x" * (wire.BIGGEST_EVENT + 1))
    assert found.failure().code == "oversized"


def test_the_handshake_is_answered() -> None:
    answer = Client100().ledger.handshake({"WebHook-Request-Origin": "mesh.example"}).unwrap()
    assert answer == {"WebHook-Allowed-Origin": "mesh.example"}


# --- over a socket, and together ---------------------------------------------------------------------------


def test_it_works_over_http() -> None:
    client = Client100("delivery", twin={"page": 1})
    server = serve(client.twin)
    ledger = connect({**client.settings, "base_url": server.url}, clock=client.clock)
    try:
        assert ledger.bill(BillingRequest("K-1", shipped())).unwrap().number == "1"
        client.post()
        assert len(invoices(ledger.pull("", client.now).messages)) + len(invoices(client.pull()[0])) >= 1
    finally:
        ledger.close()
        server.close()


def test_threads_bill_their_orders_once_each() -> None:
    client = Client100()
    broken: list[BaseException] = []

    def bill(place: int) -> None:
        try:
            client.bill(shipped(f"BC-{place}"))
        except BaseException as caught:  # noqa: BLE001 - it is looked at in the test's own thread
            broken.append(caught)

    threads = [threading.Thread(target=bill, args=(place,)) for place in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert broken == []
    assert len(client.twin.orders()) == len(client.documents()) == 8


def test_the_entry_point_connects() -> None:
    with httpx.Client(transport=transport()) as http:
        assert connect(BASE, client=http).system == "sap"
