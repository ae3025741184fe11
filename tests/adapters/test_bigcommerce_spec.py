"""Adapter and twin against the published specification, so that they can't be wrong in the same way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from iom_adapters._http import encode
from iom_adapters._twin import transport
from iom_adapters.bigcommerce import connect
from iom_adapters.bigcommerce.samples import generate_order, recorded_orders
from iom_adapters.bigcommerce.twin import BigCommerceTwin
from tests.adapters._bigcommerce import START, TOKEN, TWO_ADDRESSES, Shop, import_order, shipped, told

SPECIFICATION = Path(__file__).parents[3] / "shared" / "specs" / "bigcommerce" / "bigcommerce.combined.yaml"
HOST = "api.bigcommerce.com"

KNOWN_FAULTS: dict[tuple[str, str, int], str] = {
    ("GET", "/v2/orders", 204): "an empty list is 204 in practice (bigcommerce-v3-api-php-client, pull request 177)",
    ("GET", "/v2/orders/{}/coupons", 204): "the same rule for every V2 list; the document names it for shipments only",
    ("GET", "/v2/orders/{}/shipments", 204): "listed, with an empty description of a body that can't be there",
    ("PUT", "/v2/orders/{}", 400): "errors are described in prose, not in the document",
    ("POST", "/v2/orders/{}/shipments", 400): "errors are described in prose, not in the document",
}
"""What the specification does not list: method, path and status, with the reason. Nothing else may deviate."""

_SORTS = ("id", "customer_id", "date_created", "date_modified", "status_id", "channel_id", "external_id")
MENDED: dict[tuple[str, ...], tuple[str, Any, str]] = {
    ("schemas", "OV2_order_RespOnly", "properties", "consignments"): (
        "anyOf", None, "a link fits both alternatives, which have no required members, and oneOf allows only one",
    ),
    ("schemas", "OV2_order_RespOnly", "properties", "fees"): ("anyOf", None, "named like its neighbor"),
    ("parameters", "OV2_sort", "schema"): (
        "enum", [f"{name}{way}" for name in _SORTS for way in ("", ":asc", ":desc")],
        "the direction is documented in words and missing from the list",
    ),
    ("responses", "WH3_webhooks_Resp", "content", "application/json", "schema", "properties", "data"): (
        "minItems", 0, "a store without hooks is said to be impossible",
    ),
}  # fmt: skip
"""Faults inside the specification that would hide others: where, the keyword set right, its value, and the reason."""

pytestmark = pytest.mark.skipif(not SPECIFICATION.exists(), reason="the specification is not beside this checkout")


class Recorder(httpx.BaseTransport):
    """Sends requests to a twin and keeps what was said."""

    def __init__(self, twin: BigCommerceTwin) -> None:
        self.inner = transport((HOST, twin))
        self.said: list[tuple[httpx.Request, httpx.Response]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.inner.handle_request(request)
        self.said.append((request, response))
        return response


@pytest.fixture(scope="module")
def specification() -> Any:
    import yaml  # type: ignore[import-untyped]  # its types are a package of their own
    from openapi_core import OpenAPI

    document = yaml.safe_load(SPECIFICATION.read_text())
    for path, (keyword, value, _reason) in MENDED.items():
        place = document["components"]
        for step in path:
            place = place[step]
        place[keyword] = place.pop("oneOf") if keyword == "anyOf" else value
    return OpenAPI.from_dict(document)


def deviations(specification: Any, said: list[tuple[httpx.Request, httpx.Response]]) -> Iterator[tuple[Any, str]]:
    """Yield what breaks the specification, as method, path and status with the fault."""
    from openapi_core.testing import MockRequest, MockResponse

    for request, response in said:
        asked = MockRequest(
            f"https://{HOST}", request.method.lower(), request.url.path, args=dict(request.url.params),
            headers=dict(request.headers), data=request.read() or None,
            content_type=request.headers.get("content-type", ""),
        )  # fmt: skip
        answered = MockResponse(
            response.read(), response.status_code, dict(response.headers), response.headers.get("content-type", "")
        )
        steps = request.url.path.split("/")[3:]
        key = (request.method, "/" + "/".join("{}" if step.isdigit() else step for step in steps), response.status_code)
        if response.status_code < 400:
            for error in specification.iter_request_errors(asked):
                yield key, f"request: {error} {error.__cause__}"
        for error in specification.iter_response_errors(asked, answered):
            for cause in getattr(error.__cause__, "schema_errors", None) or [error.__cause__ or error]:
                yield key, f"response: {getattr(cause, 'json_path', '')} {getattr(cause, 'message', cause)}"


def assert_conforms(specification: Any, recorder: Recorder) -> None:
    assert recorder.said
    found = [(key, fault) for key, fault in deviations(specification, recorder.said) if key not in KNOWN_FAULTS]
    assert found == []


def test_an_order_from_intake_to_completion_speaks_the_specification(specification: Any) -> None:
    shop = Shop()
    recorder = Recorder(shop.twin)
    settings = {"store_hash": "teststore", "access_token": TOKEN}
    adapter = connect(settings, http=httpx.Client(transport=recorder), clock=shop.clock)
    order = import_order(shop, adapter, TWO_ADDRESSES)
    checkpoint = ""
    rng = random.Random(5)
    for payload in (*recorded_orders(), *(generate_order(rng, n) for n in range(20))):
        shop.twin.place(payload)
        checkpoint = adapter.pull(checkpoint, shop.clock()).checkpoint
    order = shipped(order, {"1": 1, "2": 2}, tracking=("9" * 60,), carrier="Hermes", tracking_url="https://x.test/1")
    told(adapter, order, "partially shipped")
    order = shipped(order, {"1": 2, "3": 1}, carrier="FedEx", service="Ground")
    told(adapter, order, "shipped")
    told(adapter, order, "completed")
    other = import_order(shop, adapter, {**TWO_ADDRESSES, "total_inc_tax": "19.0000", "coupons": [], "fees": [FEE]})
    told(adapter, other, "canceled")
    adapter.read("4711", shop.clock())
    assert_conforms(specification, recorder)


FEE = {
    "id": 1, "type": "custom_fee", "display_name_customer": "Fee", "display_name_merchant": "Fee", "source": "AA",
    "base_cost": "8.5000", "cost_ex_tax": "8.5000", "cost_inc_tax": "8.5000", "cost_tax": "0.0000", "tax_class_id": 1,
}  # fmt: skip


def test_everything_else_the_twin_answers_speaks_the_specification(specification: Any) -> None:
    twin = BigCommerceTwin(access_token="t", now=lambda: START)
    recorder = Recorder(twin)
    with httpx.Client(transport=recorder, headers={"X-Auth-Token": "t", "Accept": "application/json"}) as client:

        def ask(method: str, path: str, body: Any = None) -> httpx.Response:
            content = None if body is None else encode(body)
            headers = {"Content-Type": "application/json"}
            return client.request(method, f"https://{HOST}/stores/teststore{path}", content=content, headers=headers)

        ask("GET", "/v2/orders")
        number = twin.place(TWO_ADDRESSES)
        lines = twin.products(number)
        shipment = {
            "order_address_id": lines[0]["order_address_id"],
            "shipping_provider": "usps",
            "items": [{"order_product_id": lines[0]["id"], "quantity": 1}],
        }
        for path in (
            "orders",
            f"orders/{number}",
            "orders/count",
            "order_statuses",
            "order_statuses/5",
            "time",
            "store",
        ):
            assert ask("GET", f"/v2/{path}").status_code == 200
        assert ask("POST", f"/v2/orders/{number}/shipments", shipment).status_code == 201
        assert ask("POST", f"/v2/orders/{number}/shipments", {}).status_code == 400
        for path in (
            "shipments",
            "shipments/1",
            "shipments/count",
            f"products/{lines[0]['id']}",
            "shipping_addresses/1",
            "coupons",
            "fees",
        ):
            ask("GET", f"/v2/orders/{number}/{path}")
        ask("PUT", f"/v2/orders/{number}/shipments/1", {"tracking_number": "T"})
        ask("DELETE", f"/v2/orders/{number}/shipments/1")
        ask("PUT", f"/v2/orders/{number}", {"status_id": 2, "external_order_id": "x", "staff_notes": "y"})
        ask("PUT", f"/v2/orders/{number}", {"id": 2})
        ask("GET", "/v3/hooks")
        ask("POST", "/v3/hooks", {"scope": "store/order/*", "destination": "https://me.test/"})
        ask("POST", "/v3/hooks", {"scope": "store/order/*"})
        ask("GET", "/v3/hooks/1")
        ask("PUT", "/v3/hooks/1", {"scope": "store/order/*", "destination": "https://me.test/", "is_active": False})
        ask("GET", "/v3/hooks?scope=store/order/*&limit=10")
        ask("DELETE", "/v3/hooks/1")
        ask("DELETE", f"/v2/orders/{number}")
    assert_conforms(specification, recorder)
