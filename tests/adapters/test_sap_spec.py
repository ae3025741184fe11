"""What the adapter sends and its twin answers uses names and types SAP has published (skipped without them)."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from iom_adapters.sap import SapConfig, wire
from iom_adapters.sap.twin import SETS
from iom_core.messages import Invoiced
from iom_core.testing.samples import SAMPLE_AT
from iom_core.values import Money

from ._sap import BASE, WAYS, Client100, shipped

SPECS = Path(__file__).parents[3] / "shared" / "specs" / "sap"
pytestmark = pytest.mark.skipif(
    not (SPECS / "fields").exists(), reason="SAP's published interface descriptions are not part of this repository"
)
FILES = {
    wire.ORDERS: "API_SALES_ORDER_SRV",
    wire.DELIVERIES: "API_OUTBOUND_DELIVERY_SRV_0002",
    wire.DOCUMENTS: "API_BILLING_DOCUMENT_SRV",
}
HUB = {
    wire.ORDERS: "OP_API_SALES_ORDER_SRV_0001",
    wire.DELIVERIES: "OP_API_OUTBOUND_DELIVERY_SRV_0002",
    wire.DOCUMENTS: "OP_API_BILLING_DOCUMENT_SRV_0001",
}
CONFIG = SapConfig.of(BASE)


def load(name: str) -> Any:
    return json.loads((SPECS / name).read_text())


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """Return the published entity types by entity set, with those of our services only."""
    found: dict[str, Any] = {}
    for service, file in FILES.items():
        spec = load(f"fields/{file}.fields.json")
        for name, each in spec["entitySets"].items():
            if name in SETS and SETS[name].service == service:
                found[name] = {**each, **spec["entityTypes"][each["type"]], "functions": spec["functionImports"]}
    return found


def test_the_twins_fields_are_published_ones(published: dict[str, Any]) -> None:
    wrong: list[str] = []
    for name, entity in SETS.items():
        real = published[name]
        if [entity.type.partition(".")[2], list(entity.keys)] != [real["type"], real["keys"]]:
            wrong.append(name)
        for field_name, field in entity.fields.items():
            theirs = real["properties"].get(field_name)
            if theirs is None or theirs["type"] != field.type:
                wrong.append(f"{name}.{field_name}: {theirs}")
                continue
            length = theirs.get("maxLength") if field.type == "Edm.String" else theirs.get("precision")
            if field.type in ("Edm.String", "Edm.Decimal") and field.length != length:
                wrong.append(f"{name}.{field_name}: {field.length} is {length}")
            if field.type == "Edm.Decimal" and field.scale != theirs.get("scale", 0):
                wrong.append(f"{name}.{field_name}: scale {field.scale} is {theirs.get('scale')}")
            if field.create and not theirs.get("creatable", True):
                wrong.append(f"{name}.{field_name} can't be created")
            if field.update and not theirs.get("updatable", True):
                wrong.append(f"{name}.{field_name} can't be updated")
            if (field_name == entity.etag) != bool(theirs.get("etag")):
                wrong.append(f"{name}.{field_name}: ETag")
        wrong += [f"{name}/{nav}" for nav in entity.children if nav not in real["navigation"]]
    assert wrong == []


def hub(service: str) -> dict[str, Any]:
    found: dict[str, Any] = load(f"openapi/{HUB[service]}.openapi.json")["components"]["schemas"]
    return found


def test_what_we_send_is_in_the_hubs_older_description_too() -> None:
    for way in WAYS:
        client = Client100(way, item_mark="PurchaseOrderByShipToParty")  # the default is newer
        client.bill(shipped(partly=True))
        client.bill(shipped())
        for service, part, entity in (
            (wire.ORDERS, "A_SalesOrder", "A_SalesOrder"),
            (wire.ORDERS, "to_Item", "A_SalesOrderItem"),
            (wire.DELIVERIES, "A_OutbDeliveryHeader", "A_OutbDeliveryHeader"),
        ):
            for request in client.requests("POST", part):
                if part == "A_SalesOrder" and "to_Item" in str(request.url):
                    continue
                check_body(hub(service), entity, json.loads(request.content))
        for request in client.requests("PATCH"):
            schema = hub(wire.ORDERS)["API_SALES_ORDER_SRV.A_SalesOrderType-update"]["properties"]
            assert json.loads(request.content).keys() <= schema.keys()


def check_body(schemas: dict[str, Any], name: str, body: dict[str, Any]) -> None:
    schema = schemas[f"{SETS[name].type}-create"]["properties"]
    for field, value in body.items():
        assert field in schema, f"{name}.{field}"
        if field in SETS[name].children:
            assert value.keys() == {"results"}
            for each in value["results"]:
                check_body(schemas, SETS[name].children[field], each)
        else:
            assert isinstance(value, str), f"{name}.{field}"
            assert len(value) <= schema[field].get("maxLength", 99), f"{name}.{field}"


def conversation() -> list[httpx.Request]:
    """Return all that is asked when orders are billed in every way, and their invoices pulled."""
    found: list[httpx.Request] = []
    for way in WAYS:
        client = Client100(way)
        client.bill()
        client.post()
        client.pull()
        found += client.sent
    return found


def test_every_query_names_published_fields_that_can_be_filtered(published: dict[str, Any]) -> None:
    names: set[str] = set()
    for request in conversation():
        parts = urlsplit(str(request.url))
        entity = parts.path.rpartition("/")[2]
        if request.method != "GET" or entity not in published:
            continue
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        fields = published[entity]["properties"]
        for field in re.findall(r"(\w+) (?:eq|ge|le|lt) ", options["$filter"]):
            assert fields[field].get("filterable", True), f"{entity}.{field}"
            names.add(f"{entity}.{field}")
        for field in filter(None, options.get("$select", "").split(",")):
            nav, _, inner = field.rpartition("/")
            child = published[SETS[entity].children[nav]]["properties"] if nav else fields
            assert inner in child, field
        assert options.get("$expand") in (None, *published[entity]["navigation"])
    assert {"A_BillingDocument.LastChangeDateTime", "A_BillingDocumentItem.SalesDocument"} <= names
    assert {"A_OutbDeliveryItem.ReferenceSDDocument", "A_SalesOrder.PurchaseOrderByCustomer"} <= names


def test_functions_are_published_with_their_parameters(published: dict[str, Any]) -> None:
    functions = {each["name"]: each for each in published["A_OutbDeliveryHeader"]["functions"]}
    for name in ("PickAllItems", "PostGoodsIssue"):
        assert functions[name]["method"] == "POST"
        assert list(functions[name]["parameters"]) == ["DeliveryDocument"]


def test_the_twins_answers_have_the_published_types(published: dict[str, Any]) -> None:
    client = Client100("delivery")
    client.bill()
    client.post()
    for name, entity in SETS.items():
        if name == "A_SalesOrderItemPrElement":
            continue
        auth = httpx.BasicAuth("IOM", "secret")
        reply = client.http.get(f"https://sap.test{entity.service}/{name}?$format=json", auth=auth)
        rows = reply.json()["d"]["results"]
        assert rows, name
        for row in rows:
            assert row["__metadata"]["type"] == entity.type
            for field, value in row.items():
                if field in entity.fields:
                    assert fits(published[name]["properties"][field], value), f"{name}.{field}: {value!r}"


def fits(kind: dict[str, Any], value: Any) -> bool:
    match kind["type"]:
        case "Edm.String":
            return isinstance(value, str) and len(value) <= kind["maxLength"]
        case "Edm.Decimal":
            return value is None or (isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value) is not None)
        case "Edm.Boolean":
            return isinstance(value, bool)
    return value is None or re.fullmatch(r"/Date\(-?\d+([+-]\d{4})?\)/", value) is not None


def v2(record: dict[str, Any]) -> dict[str, Any]:
    """Return a sandbox record with its dates as SAP sends them (the sample's client had rewritten them)."""
    return {
        name: f"/Date({int(datetime.fromisoformat(value).timestamp() * 1000)})/"
        if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value)
        else value
        for name, value in record.items()
    }


def test_a_real_invoice_of_saps_sandbox_is_read() -> None:
    (head,) = map(v2, load("samples/sandbox_billing_document_header.json")["records"])
    (item,) = map(v2, load("samples/sandbox_billing_document_item.json")["records"])
    (sold,) = map(v2, load("samples/sandbox_sales_order_item.json")["records"])
    assert wire.is_invoice(head, CONFIG)
    assert head["AccountingPostingStatus"] == wire.POSTED
    order = wire.order_of(
        {
            "__metadata": {"etag": 'W/"1"'},
            "SalesOrder": "0000000001",
            "PurchaseOrderByCustomer": "gfh",
            "to_Item": {"results": [{**sold, "UnderlyingPurchaseOrderItem": "10"}]},
        },
        CONFIG,
    )
    told = wire.Teller(CONFIG.system).invoiced(head, [item], order, SAMPLE_AT)
    assert isinstance(told.body, Invoiced)
    assert told.body.total == Money.of("56.86", "USD")
    assert (told.external_id, told.body.number) == ("1", "90000000")
    assert [(each.line, each.quantity) for each in told.body.lines] == [("10", Decimal(3))]


def test_a_real_delivery_of_saps_sandbox_is_read() -> None:
    (head,) = map(v2, load("samples/sandbox_outbound_delivery_header.json")["records"][:1])
    (item,) = map(v2, load("samples/sandbox_outbound_delivery_item.json")["records"][:1])
    found = wire.delivery_of({**head, "__metadata": {"etag": 'W/"1"'}}, [{**item, "ReferenceSDDocumentItem": "000010"}])
    assert found.quantities == {"10": Decimal(3)}
    assert found.number == wire.number(head["DeliveryDocument"])


def test_quoted_errors_are_understood() -> None:
    bodies = load("samples/bodies.json")
    for name in ("v2_error", "v2_error_parse", "v4_error", "v4_CreateFromSDDocument_error"):
        found = wire.problem(bodies[name])
        assert found.code == bodies[name]["error"]["code"]
        assert found.what
    assert wire.problem(bodies["v2_error"]).what == "Account 12345678 does not exist in chart of accounts XXXX"
    etag = bodies["v2_get_header_fragment_real_s4"]["d"]["results"][0]["__metadata"]["etag"]
    assert wire.etag_of(bodies["v2_get_header_fragment_real_s4"]["d"]["results"][0]) == etag


def test_our_billing_request_has_the_quoted_shape() -> None:
    quoted = load("samples/bodies.json")["v4_CreateFromSDDocument_request"]
    ours = wire.billing_body("4711", "C", SapConfig.of({**BASE, "billing_type": "F2"}))
    assert ours.keys() == quoted.keys()
    assert ours["_Control"].keys() <= quoted["_Control"].keys()
    assert quoted["_Reference"][0].items() <= ours["_Reference"][0].items()


def test_published_events_are_understood() -> None:
    for kind, fields in load("events/event_fields.json")["events"].items():
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "/x",
            "type": kind,
            "data": dict.fromkeys(fields, "0090000000"),
        }
        found = wire.hinted({}, json.dumps(event).encode(), CONFIG).unwrap()
        assert found == (("90000000",) if ".billingdocument." in kind else ())
    for name, event in load("samples/events_cloudevents_structured.json")["events"].items():
        found = wire.hinted({}, json.dumps(event).encode(), CONFIG).unwrap()
        assert bool(found) is name.startswith("billingdocument"), name


def test_the_twin_takes_what_saps_own_client_sent() -> None:
    (head, post, *_) = load("wire/sap_cloud_sdk_js_to_cap.json")["exchanges"]
    client = Client100()
    auth = httpx.BasicAuth("IOM", "secret")
    first = client.http.head(f"https://sap.test{head['req']['path']}", auth=auth, headers={"x-csrf-token": "Fetch"})
    assert first.status_code == head["res"]["status"] == 405
    body = json.loads(post["req"]["body"])
    items = [{**each, "Material": "CHAIR"} for each in body["to_Item"]]
    reply = client.http.post(
        f"https://sap.test{post['req']['path']}",
        auth=auth,
        headers={"Accept": "application/json", "x-csrf-token": first.headers["x-csrf-token"]},
        json={**body, "to_Item": items},
    )
    assert reply.status_code == 201
    assert reply.json()["d"]["to_Item"]["results"][0]["RequestedQuantity"] == "2.5"
