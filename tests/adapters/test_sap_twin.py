"""The twin refuses what SAP refuses, in SAP's way; asked here without the adapter."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from iom_adapters._twin import transport
from iom_adapters.sap import wire
from iom_adapters.sap.twin import NAMESPACE, SETS, Material, SapTwin, metadata

from ._sap import MATERIALS, Clock

JSON = {"Accept": "application/json"}
ITEM = {"Material": "CHAIR", "RequestedQuantity": "2", "RequestedQuantityUnit": "PC", "SalesOrderItemCategory": "TAX"}


class Raw:
    """Plain HTTP to a twin, logged in, with a token."""

    def __init__(self, **options: Any) -> None:
        self.twin = SapTwin(clock=Clock(), **{"materials": MATERIALS, **options})
        self.http = httpx.Client(
            transport=transport(("sap.test", self.twin)), base_url="https://sap.test", auth=self.twin.user
        )
        found = self.http.get(f"{wire.ORDERS}/A_SalesOrder", headers={**JSON, "X-CSRF-Token": "Fetch"})
        self.token = found.headers["x-csrf-token"]

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={**JSON, **headers})

    def send(self, path: str, body: object = None, method: str = "POST", **headers: str) -> httpx.Response:
        sent = {**JSON, "X-CSRF-Token": self.token, **{name.replace("_", "-"): text for name, text in headers.items()}}
        content = json.dumps(body) if body is not None else None
        return self.http.request(method, path, content=content, headers=sent)

    def create(self, *items: object, **fields: object) -> httpx.Response:
        body = {
            "SalesOrderType": "OR",
            "SoldToParty": "17100001",
            "PurchaseOrderByCustomer": "BC-1",
            "TransactionCurrency": "USD",
            "to_Item": list(items or (ITEM,)),
            **fields,
        }
        return self.send(f"{wire.ORDERS}/A_SalesOrder", body)

    def bill(self, number: str = "1", category: str = "C") -> httpx.Response:
        return self.send(wire.BILL_ACTION, {"_Reference": [{"SDDocument": number, "SDDocumentCategory": category}]})


def said(reply: httpx.Response) -> str:
    return str(wire.problem(reply.json()).what)


def test_a_write_needs_token_and_cookies() -> None:
    raw = Raw()
    for token, cookies in (("", True), ("x", True), (raw.token, False)):
        if not cookies:
            raw.http.cookies.clear()
        reply = raw.http.post(f"{wire.ORDERS}/A_SalesOrder", headers={"X-CSRF-Token": token}, content=b"{}")
        assert reply.status_code == 403
        assert reply.headers["x-csrf-token"] == "Required"
        assert reply.text == "CSRF token validation failed"
        assert raw.token not in reply.headers.values()


def test_gateway_speaks_atom_unless_asked() -> None:
    raw = Raw()
    assert "atom" in raw.http.get(f"{wire.ORDERS}/A_SalesOrder", headers={"Accept": "*/*"}).headers["content-type"]
    assert raw.http.get(f"{wire.ORDERS}/A_SalesOrder?$format=json", headers={"Accept": "*/*"}).json()["d"]


def test_an_order_is_made_with_all_its_items() -> None:
    raw = Raw()
    made = raw.create(ITEM, {**ITEM, "Material": "LAMP"})
    assert made.status_code == 201
    assert [each["SalesOrderItem"] for each in made.json()["d"]["to_Item"]["results"]] == ["10", "20"]
    read = raw.get(f"{wire.ORDERS}/A_SalesOrder('1')")
    assert read.headers["etag"] == read.json()["d"]["__metadata"]["etag"]
    assert read.json()["d"]["SalesOrder"] == "1"
    assert read.json()["d"]["to_Item"]["__deferred"]["uri"].endswith("A_SalesOrder('1')/to_Item")
    raw.create()
    assert len(raw.get(f"{wire.ORDERS}/A_SalesOrder('0000000001')/to_Item").json()["d"]["results"]) == 2
    item = raw.get(f"{wire.ORDERS}/A_SalesOrderItem(SalesOrder='1',SalesOrderItem='20')").json()["d"]
    assert item["Material"] == "LAMP"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"PurchaseOrderByCustomer": "X" * 36}, "PurchaseOrderByCustomer"),
        ({"CustomerPurchaseOrderDate": "2026-01-05"}, "CustomerPurchaseOrderDate"),
        ({"TotalNetAmount": "5"}, "read-only"),
        ({"ExternalDocumentID": "BC-1"}, "ExternalDocumentID"),
        ({"to_Item": []}, "without items"),
        ({"SoldToParty": "4711"}, "4711"),
        ({"to_Item": [{**ITEM, "RequestedQuantity": 2}]}, "parsing"),
        ({"to_Item": [{**ITEM, "RequestedQuantity": "2.0005"}]}, "RequestedQuantity"),
        ({"to_Item": [{**ITEM, "RequestedQuantity": "two"}]}, "RequestedQuantity"),
        ({"to_Item": [{**ITEM, "Material": "X"}]}, "X is not defined"),
        ({"to_Item": [{**ITEM, "to_PricingElement": [{"ConditionType": "PR00"}]}]}, "PR00"),
        ({"to_Item": [5]}, "parsing"),
    ],
)
def test_a_wrong_order_is_refused_whole(fields: dict[str, object], text: str) -> None:
    raw = Raw()
    reply = raw.create(**fields)
    assert reply.status_code == 400
    assert text in said(reply)
    assert raw.twin.orders() == []


def test_what_is_no_json_is_refused() -> None:
    raw = Raw()
    reply = raw.http.post(f"{wire.ORDERS}/A_SalesOrder", headers={"X-CSRF-Token": raw.token}, content=b"{")
    assert reply.status_code == 400


def test_a_change_needs_the_etag_of_now() -> None:
    raw = Raw()
    etag = raw.create().json()["d"]["__metadata"]["etag"]
    path, body = f"{wire.ORDERS}/A_SalesOrder('1')", {"HeaderBillingBlockReason": "02"}
    assert raw.send(path, body, "PATCH").status_code == 428
    assert raw.send(path, body, "PATCH", If_Match=etag.replace("%3A", ":")).status_code == 412
    assert raw.send(path, body, "POST", If_Match=etag, X_HTTP_Method="MERGE").status_code == 204
    assert raw.send(path, body, "PATCH", If_Match=etag).status_code == 412
    assert raw.send(path, {"SalesOrderType": "X"}, "PATCH", If_Match="x").status_code == 412


def test_an_item_number_is_taken_once() -> None:
    raw = Raw()
    raw.create({**ITEM, "SalesOrderItem": "10"})
    reply = raw.send(f"{wire.ORDERS}/A_SalesOrder('1')/to_Item", {**ITEM, "SalesOrderItem": "10"})
    assert "already exists" in said(reply)
    assert raw.send(f"{wire.ORDERS}/A_SalesOrder('1')/to_Item", ITEM).json()["d"]["SalesOrderItem"] == "20"


def test_filters_are_v2() -> None:
    raw = Raw()
    for each in range(5):
        raw.create(PurchaseOrderByCustomer=f"BC-{each}")
    path = f"{wire.ORDERS}/A_SalesOrder?$filter="
    for where, count in (
        ("PurchaseOrderByCustomer eq 'BC-1'", 1),
        ("PurchaseOrderByCustomer eq 'bc-1'", 0),
        ("CreationDate ge datetime'2026-01-05T00:00:00'", 5),
        ("LastChangeDateTime gt datetimeoffset'2026-01-05T08:00:00Z'", 0),
        ("PurchaseOrderByCustomer eq 'datetime''x'''", 0),
        ("SalesOrder eq '1' or SalesOrder eq '2'", 2),
        ("startswith(PurchaseOrderByCustomer,'BC-')", 5),
    ):
        found = raw.get(path + where.replace(" ", "%20"))
        assert len(found.json()["d"]["results"]) == count, where
    assert raw.get(f"{path}SalesOrder+eq+'1'").status_code == 400
    assert raw.get(f"{path}contains(SalesOrder,'1')").status_code == 400
    assert raw.get(f"{path}Nonsense%20eq%20'1'").status_code == 400


def test_pages_name_the_next_one() -> None:
    raw = Raw(page=2)
    for _ in range(5):
        raw.create()
    page = raw.get(f"{wire.ORDERS}/A_SalesOrder?$inlinecount=allpages&$select=SalesOrder").json()["d"]
    assert page["__count"] == "5"
    found = [each["SalesOrder"] for each in page["results"]]
    while "__next" in page:
        page = raw.get(page["__next"]).json()["d"]
        found += [each["SalesOrder"] for each in page["results"]]
    assert found == ["1", "2", "3", "4", "5"]


def test_billing_an_order_gives_documents_with_numbers_as_numbers() -> None:
    raw = Raw()
    raw.create()
    (made,) = raw.bill().json()["value"]
    assert made["BillingDocument"] == "90000000"
    assert made["TotalNetAmount"] == 19.98
    assert raw.bill().json()["value"] == []
    path = f"{wire.BILLING}/BillingDocument('90000000')"
    assert raw.get(path).json()["TotalGrossAmount"] == 19.98
    assert raw.get(path, Accept="application/json;IEEE754Compatible=true").json()["TotalGrossAmount"] == "19.98"
    assert raw.get(f"{wire.BILLING}/BillingDocument('1')").status_code == 404
    (head,) = [each["head"] for each in raw.twin.documents()]
    assert (head["AccountingPostingStatus"], head["OverallBillingStatus"]) == ("A", "A")
    assert head["PurchaseOrderByCustomer"] == ""
    assert head["DocumentReferenceID"] == "0090000000"


def test_the_action_has_two_names() -> None:
    raw = Raw()
    raw.create()
    path = f"{wire.BILLING}/BillingDocument/{NAMESPACE}.CreateFromSDDocument"
    assert len(raw.send(path, {"_Reference": [{"SDDocument": "1"}]}).json()["value"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"_Reference": []},
        {"_Reference": [{"SDDocument": "99"}]},
        {"_Reference": [{"SDDocument": "1", "SDDocumentCategory": "OR"}]},
        {"_Reference": [{"SDDocument": 1}]},
        {"_Reference": [{"SDDocument": "1"}], "_Control": 5},
    ],
    ids=str,
)
def test_a_wrong_billing_request_is_a_v4_error(body: object) -> None:
    raw = Raw()
    raw.create()
    reply = raw.send(wire.BILL_ACTION, body)
    assert reply.status_code == 400
    assert isinstance(reply.json()["error"]["message"], str)
    assert raw.twin.documents() == []


def test_a_delivery_goes_its_way() -> None:
    raw = Raw()
    raw.create({**ITEM, "SalesOrderItemCategory": "TAN"})
    refs = {"to_DeliveryDocumentItem": {"results": [{"ReferenceSDDocument": "1", "ReferenceSDDocumentItem": "10"}]}}
    made = raw.send(f"{wire.DELIVERIES}/A_OutbDeliveryHeader", refs)
    assert made.status_code == 201
    number = made.json()["d"]["DeliveryDocument"]
    assert "is due" in said(raw.send(f"{wire.DELIVERIES}/A_OutbDeliveryHeader", refs))
    assert said(raw.bill(number, "J")) == f"Delivery {number} has not been goods issued"
    path = f"{wire.DELIVERIES}/{{}}?DeliveryDocument='{number}'"
    etag = made.json()["d"]["__metadata"]["etag"]
    assert raw.send(path.format("PostGoodsIssue")).status_code == 428
    report = raw.send(path.format("PostGoodsIssue"), If_Match=etag)
    assert report.status_code == 200
    assert wire.report_problem(report.json()["d"]["results"])
    assert raw.send(path.format("PickAllItems"), If_Match=etag).status_code == 200
    assert raw.send(path.format("PostGoodsIssue"), If_Match=etag).status_code == 412
    fresh = raw.get(f"{wire.DELIVERIES}/A_OutbDeliveryHeader('{number}')").headers["etag"]
    assert raw.send(path.format("PostGoodsIssue"), If_Match=fresh).json()["d"]["results"] == []
    assert raw.send(f"{wire.DELIVERIES}/PostGoodsIssue?DeliveryDocument={number}").status_code == 400
    assert len(raw.bill(number, "J").json()["value"]) == 1
    assert raw.bill(number, "J").json()["value"] == []
    (item,) = raw.get(f"{wire.DOCUMENTS}/A_BillingDocumentItem").json()["d"]["results"]
    assert (item["ReferenceSDDocument"], item["SalesDocument"]) == (number, "1")


def test_without_its_version_another_delivery_service_answers() -> None:
    raw = Raw()
    assert raw.get("/sap/opu/odata/sap/API_OUTBOUND_DELIVERY_SRV/A_OutbDeliveryHeader").status_code == 404


def test_billing_documents_cannot_be_written() -> None:
    assert Raw().send(f"{wire.DOCUMENTS}/A_BillingDocument", {}).status_code == 405


@pytest.mark.parametrize("service", [wire.ORDERS, wire.DELIVERIES, wire.DOCUMENTS])
def test_the_metadata_names_every_set_of_its_service(service: str) -> None:
    text = Raw().get(f"{service}/$metadata").text
    assert text == metadata(service)
    root = ET.fromstring(text)  # noqa: S314 - our own text
    names = [each.get("Name") for each in root.iter("{http://schemas.microsoft.com/ado/2008/09/edm}EntitySet")]
    assert names == [name for name, each in SETS.items() if each.service == service]


@pytest.mark.parametrize("path", ["Nothing", "A_SalesOrder('99')", "A_BillingDocument", "A_SalesOrder('1"])
def test_what_is_not_there_is_a_v2_error(path: str) -> None:
    reply = Raw().get(f"{wire.ORDERS}/{path}")
    assert reply.status_code in (400, 404)
    assert reply.json()["error"]["message"]["lang"] == "en"


def test_a_killed_twin_has_its_documents(tmp_path: Path) -> None:
    raw = Raw(path=tmp_path / "sap.db")
    raw.create()
    raw.bill()
    etag = raw.get(f"{wire.ORDERS}/A_SalesOrder('1')").headers["etag"]
    raw.twin.close()
    again = Raw(path=tmp_path / "sap.db")
    assert len(again.twin.documents("BC-1")) == 1
    assert again.get(f"{wire.ORDERS}/A_SalesOrder('1')").headers["etag"] == etag
    again.create()
    assert [each["head"]["SalesOrder"] for each in again.twin.orders()] == ["1", "2"]
    again.twin.close()


def test_a_split_makes_documents_that_add_up() -> None:
    raw = Raw(split=True, tax=Decimal("0.1"), materials={"CHAIR": Material(Decimal("9.99"))})
    raw.create(ITEM, ITEM)
    assert len(raw.bill().json()["value"]) == 2
    for each in raw.twin.documents():
        head = each["head"]
        assert Decimal(head["TotalNetAmount"]) + Decimal(head["TaxAmount"]) == Decimal(head["TotalGrossAmount"])


def test_people_find_what_they_did() -> None:
    raw = Raw()
    raw.create()
    raw.create(HeaderBillingBlockReason="02")
    assert raw.twin.bill_due() == ["90000000"]
    assert raw.twin.post_invoices() == 1
    assert raw.twin.post_invoices() == 0
    assert raw.twin.cancel("90000000") == "90000001"
    old, new = (each["head"] for each in raw.twin.documents())
    assert old["BillingDocumentIsCancelled"] is True
    assert new["CancelledBillingDocument"] == "90000000"
    assert raw.twin.bill_due() == ["90000002"]
