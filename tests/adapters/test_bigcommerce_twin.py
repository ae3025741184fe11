"""The twin refuses what the store refuses, keeps its habits, and forgets nothing it has answered."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from iom_adapters._twin import Fault, TwinRequest, TwinResponse, _request, answer
from iom_adapters.bigcommerce.samples import Line, generate_order, order_of, recorded_orders
from iom_adapters.bigcommerce.twin import LABELS, BigCommerceTwin, Webhooks

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ORDER = order_of(
    [
        Line("a", 100, 3, sku="A"),
        Line("b", 200, 2, sku="B", address=2),
        Line("e", 50, 1, sku="E", kind="digital"),
    ],
    recipients=(0, 1),
    shipping=(0, 0),
)
GOOD = {"order_address_id": 1, "tracking_number": "T", "items": [{"order_product_id": 1, "quantity": 2}]}


class Shop:
    def __init__(self, **twin: Any) -> None:
        self.now = START
        self.options = twin
        self.twin = self.start()

    def start(self) -> BigCommerceTwin:
        return BigCommerceTwin(access_token="t", now=lambda: self.now, **self.options)

    def ask(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> TwinResponse:
        sent = {
            "X-Auth-Token": "t",
            "Accept": "application/json",
            "Content-Type": "application/json",
            **(headers or {}),
        }
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        response = answer(self.twin, _request(method, f"/stores/teststore{target}", sent, content))
        assert response is not None
        return response

    def get(self, target: str) -> Any:
        response = self.ask("GET", target)
        assert response.status == 200, response
        return json.loads(response.body)


def said(response: TwinResponse) -> Any:
    return json.loads(response.body)


class TestOrders:
    def test_links_lead_to_the_old_spelling_and_the_data_is_elsewhere(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        order = shop.get(f"/v2/orders/{number}")
        assert order["shipping_addresses"]["resource"] == f"/orders/{number}/shippingaddresses"
        assert [line["sku"] for line in shop.get(f"/v2/orders/{number}/products")] == ["A", "B", "E"]
        assert [each["city"] for each in shop.get(f"/v2/orders/{number}/shipping_addresses")] == ["Austin", "Reykjavík"]
        assert shop.get(f"/v2/orders/{number}/products/1")["sku"] == "A"
        assert shop.ask("GET", f"/v2/orders/{number}/products/99").status == 404
        assert shop.get(f"/v2/orders/{number}?include=fees")["fees"] == []

    def test_empty_lists_are_204_without_a_body(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        for target in ("shipments", "coupons", "products?page=2"):
            response = shop.ask("GET", f"/v2/orders/{number}/{target}")
            assert (response.status, response.body) == (204, b"")
        assert shop.ask("GET", "/v2/orders?min_id=999999").status == 204

    def test_ids_of_lines_and_addresses_are_unique_across_orders(self) -> None:
        shop = Shop()
        one, other = shop.twin.place(ORDER), shop.twin.place(ORDER)
        ids = [line["id"] for number in (one, other) for line in shop.twin.products(number)]
        assert len(set(ids)) == 6
        assert shop.twin.products(other)[1]["order_address_id"] == 4

    def test_a_recorded_order_keeps_its_number_when_it_is_free(self) -> None:
        shop = Shop()
        assert [shop.twin.place(order) for order in recorded_orders()] == [100, 149, 218, 229, 247]
        assert shop.twin.place(recorded_orders()[0]) == 101

    def test_pages_and_sorting(self) -> None:
        shop = Shop()
        numbers = []
        for _ in range(5):
            shop.now += timedelta(seconds=1)
            numbers.append(shop.twin.place({**ORDER, "date_modified": None}))
        shop.now += timedelta(seconds=1)
        shop.twin.change(numbers[0], staff_notes="x")
        by_change = [each["id"] for each in shop.get("/v2/orders?sort=date_modified:asc&limit=3")]
        assert by_change == numbers[1:4]
        assert [each["id"] for each in shop.get("/v2/orders?sort=date_modified:asc&limit=3&page=2")] == [
            numbers[4],
            numbers[0],
        ]
        assert [each["id"] for each in shop.get("/v2/orders?sort=id:desc")] == numbers[::-1]

    def test_filters_by_date_include_their_own_second(self) -> None:
        shop = Shop()
        number = shop.twin.place({**ORDER, "date_modified": None})
        for given in (
            "2026-03-01T12:00:00.000%2B00:00",
            "Sun,%2001%20Mar%202026%2012:00:00%20%2B0000",
            "2026-03-01T06:00:00-06:00",
        ):
            assert [each["id"] for each in shop.get(f"/v2/orders?min_date_modified={given}")] == [number]
        assert shop.ask("GET", "/v2/orders?min_date_modified=2026-03-01T12:00:01Z").status == 204
        assert shop.ask("GET", "/v2/orders?max_date_modified=2026-03-01T11:59:59Z").status == 204

    def test_an_unescaped_plus_breaks_the_date(self) -> None:
        response = Shop().ask("GET", "/v2/orders?min_date_modified=2026-03-01T12:00:00.000+00:00")
        assert response.status == 400
        assert said(response)[0]["message"] == "min_date_modified is not valid for this resource"

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("limit=251", 413),
            ("limit=0", 400),
            ("page=x", 400),
            ("sort=colour", 400),
            ("colour=red", 400),
            ("min_id=x", 400),
        ],
    )
    def test_bad_queries_are_refused_also_by_an_empty_store(self, query: str, status: int) -> None:
        assert Shop().ask("GET", f"/v2/orders?{query}").status == status

    @pytest.mark.parametrize(
        ("query", "found"),
        [("status_id=11", True), ("status_id=2", False), ("email=customer0@example.com", True), ("min_total=7.5", True),
         ("max_total=7", False), ("customer_id=0", True), ("channel_id=2", False), ("payment_method=Cash", False)],
    )  # fmt: skip
    def test_other_filters(self, query: str, found: bool) -> None:
        shop = Shop()
        shop.twin.place(ORDER)
        assert shop.ask("GET", f"/v2/orders?{query}").status == (200 if found else 204)

    def test_counts_per_status(self) -> None:
        shop = Shop()
        for status in (11, 11, 2):
            shop.twin.place({**ORDER, "status_id": status})
        counted = shop.get("/v2/orders/count")
        assert counted["count"] == 3
        assert {row["id"]: row["count"] for row in counted["statuses"] if row["count"]} == {11: 2, 2: 1}


class TestPut:
    def test_only_what_is_sent_changes(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        before = shop.get(f"/v2/orders/{number}")
        shop.now += timedelta(seconds=60)
        after = said(shop.ask("PUT", f"/v2/orders/{number}", {"status_id": 2}))
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"status_id", "status", "custom_status", "date_modified", "date_shipped"}
        assert shop.twin.status_history(number) == [11, 2]
        assert shop.twin.status_changes(number) == 1

    def test_a_read_only_field_is_a_400_whose_body_says_404(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        response = shop.ask("PUT", f"/v2/orders/{number}", {"status_id": 2, "date_modified": "x"})
        assert (response.status, said(response)[0]["status"]) == (400, 404)
        assert shop.twin.order(number)["status_id"] == 11

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"status_id": 15}, 400),
            ({"status_id": "2"}, 400),
            ({"status_id": True}, 400),
            ({"staff_notes": 7}, 400),
            ([], 400),
            (b"{", 400),
            ({"products": []}, 501),
        ],
    )
    def test_bad_bodies_change_nothing(self, body: Any, status: int) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        before = shop.twin.order(number)
        assert shop.ask("PUT", f"/v2/orders/{number}", body).status == status
        assert shop.twin.order(number) == before

    def test_the_merchants_reference_is_set_once(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        assert shop.ask("PUT", f"/v2/orders/{number}", {"external_merchant_id": "a"}).status == 200
        assert shop.ask("PUT", f"/v2/orders/{number}", {"external_merchant_id": "b"}).status == 400

    def test_json_must_be_announced(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        assert shop.ask("PUT", f"/v2/orders/{number}", {"status_id": 2}, {"Content-Type": "text/plain"}).status == 415

    def test_all_orders_at_once_cannot_be_changed(self) -> None:
        assert Shop().ask("PUT", "/v2/orders", {"status_id": 2}).status == 405


class TestDelete:
    def test_deleting_an_order_archives_it(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        assert shop.ask("DELETE", f"/v2/orders/{number}").status == 204
        assert shop.get(f"/v2/orders/{number}")["is_deleted"]
        assert shop.ask("GET", "/v2/orders").status == 204

    @pytest.mark.parametrize("target", ["/v2/orders", "/v2/orders/"])
    def test_deleting_without_an_id_archives_every_order(self, target: str) -> None:
        """The real trap: a client that builds an address with an empty id wipes the list."""
        shop = Shop()
        numbers = [shop.twin.place(ORDER) for _ in range(3)]
        assert shop.ask("DELETE", target).status == 204
        assert all(shop.twin.order(number)["is_deleted"] for number in numbers)


class TestShipments:
    def test_a_shipment_is_created_with_201_and_counted(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        response = shop.ask("POST", f"/v2/orders/{number}/shipments", GOOD)
        assert response.status == 201
        assert said(response)["items"] == [{"order_product_id": 1, "product_id": 0, "quantity": 2}]
        assert shop.twin.products(number)[0]["quantity_shipped"] == 2
        assert shop.get(f"/v2/orders/{number}")["items_shipped"] == 2
        assert shop.get(f"/v2/orders/{number}/shipments/count") == {"count": 1}
        assert shop.twin.order(number)["status_id"] == 11

    def test_shipments_may_move_the_status(self) -> None:
        shop = Shop(shipments_move_status=True)
        number = shop.twin.place(ORDER)
        shop.ask("POST", f"/v2/orders/{number}/shipments", GOOD)
        rest = {"order_address_id": 1, "items": [{"order_product_id": 1, "quantity": 1}]}
        shop.ask("POST", f"/v2/orders/{number}/shipments", rest)
        last = {"order_address_id": 2, "items": [{"order_product_id": 2, "quantity": 2}]}
        shop.ask("POST", f"/v2/orders/{number}/shipments", last)
        assert shop.twin.status_history(number) == [11, 3, 2]

    @pytest.mark.parametrize(
        "change",
        [
            {"order_address_id": "1"},
            {"order_address_id": None},
            {"order_address_id": 2},
            {"order_address_id": 99},
            {"order_address_id": True},
            {"items": []},
            {"items": None},
            {"items": [{"quantity": 1}]},
            {"items": [{"order_product_id": 1}]},
            {"items": [{"order_product_id": 1, "quantity": 0}]},
            {"items": [{"order_product_id": 1, "quantity": "1"}]},
            {"items": [{"order_product_id": 1, "quantity": 4}]},
            {"items": [{"order_product_id": 1, "quantity": 2}, {"order_product_id": 1, "quantity": 2}]},
            {"items": [{"order_product_id": 3, "quantity": 1}]},
            {"items": [{"order_product_id": 77, "quantity": 1}]},
            {"tracking_number": "9" * 51},
            {"tracking_number": 9},
            {"tracking_link": "9" * 501},
            {"comments": "9" * 65536},
            {"shipping_provider": "dhl"},
            {"id": 5},
            {"colour": "red"},
        ],
    )
    def test_what_the_store_would_not_take_is_refused_whole(self, change: dict[str, Any]) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        response = shop.ask("POST", f"/v2/orders/{number}/shipments", {**GOOD, **change})
        assert response.status == 400
        assert isinstance(said(response), list)
        assert shop.twin.shipments(number) == []
        assert shop.twin.products(number)[0]["quantity_shipped"] == 0

    @pytest.mark.parametrize("provider", ["", "usps", "carrier_12"])
    def test_known_providers_are_taken(self, provider: str) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        assert shop.ask("POST", f"/v2/orders/{number}/shipments", {**GOOD, "shipping_provider": provider}).status == 201

    def test_an_unnamed_provider_becomes_custom(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        assert said(shop.ask("POST", f"/v2/orders/{number}/shipments", GOOD))["shipping_provider"] == "custom"

    def test_changing_a_shipment_changes_no_items_and_deleting_it_no_status(self) -> None:
        shop = Shop(shipments_move_status=True)
        number = shop.twin.place(ORDER)
        shop.ask("POST", f"/v2/orders/{number}/shipments", GOOD)
        target = f"/v2/orders/{number}/shipments/1"
        assert said(shop.ask("PUT", target, {"tracking_number": "N"}))["tracking_number"] == "N"
        assert shop.ask("PUT", target, {"items": []}).status == 400
        assert shop.ask("DELETE", target).status == 204
        assert shop.ask("DELETE", target).status == 404
        assert shop.twin.products(number)[0]["quantity_shipped"] == 0
        assert shop.twin.order(number)["status_id"] == 3

    def test_deleting_without_an_id_removes_all_shipments_of_the_order(self) -> None:
        shop = Shop()
        number = shop.twin.place(ORDER)
        for _ in range(3):
            shop.ask(
                "POST", f"/v2/orders/{number}/shipments", {**GOOD, "items": [{"order_product_id": 1, "quantity": 1}]}
            )
        assert shop.ask("DELETE", f"/v2/orders/{number}/shipments/").status == 204
        assert shop.twin.shipments(number) == []


class TestDoor:
    def test_the_token_is_checked_first(self) -> None:
        shop = Shop()
        for version, kind in (("/v2/orders", list), ("/v3/hooks", dict)):
            for headers in ({"X-Auth-Token": "wrong"}, {"X-Auth-Token": ""}, {"X-Auth-Token": "ü"}):
                response = shop.ask("GET", version, headers=headers)
                assert response.status == 401
                assert isinstance(said(response), kind)

    def test_without_asking_for_json_a_client_gets_xml(self) -> None:
        response = Shop().ask("GET", "/v2/orders", headers={"Accept": "*/*"})
        assert response.headers["content-type"] == "application/xml"

    @pytest.mark.parametrize(
        "target", ["/v2/order", "/v2/orders/abc", "/v2/orders/1/secrets", "/v3/orders", "/v9/orders", ""]
    )
    def test_elsewhere_is_nothing(self, target: str) -> None:
        assert Shop().ask("GET", target).status == 404

    def test_an_unknown_order_is_404_everywhere(self) -> None:
        shop = Shop()
        for method, target in (("GET", ""), ("PUT", ""), ("GET", "/products"), ("POST", "/shipments"), ("DELETE", "")):
            response = shop.ask(method, f"/v2/orders/4711{target}", {})
            assert (response.status, said(response)[0]["status"]) == (404, 404)

    def test_the_store_answers_for_itself(self) -> None:
        shop = Shop()
        assert shop.get("/v2/time") == {"time": int(START.timestamp())}
        assert shop.get("/v2/store")["id"] == "teststore"
        assert [each["id"] for each in shop.get("/v2/order_statuses")] == list(LABELS)
        assert shop.get("/v2/order_statuses/11")["name"] == "Awaiting Fulfillment"
        assert shop.ask("GET", "/v2/order_statuses/15").status == 404


class TestQuota:
    def test_every_answer_tells_the_quota_and_a_used_up_one_is_429(self) -> None:
        shop = Shop(quota=2)
        one = shop.ask("GET", "/v2/time")
        shop.now += timedelta(seconds=10)
        two = shop.ask("GET", "/v2/orders")
        three = shop.ask("GET", "/v2/time")
        assert [each.headers["x-rate-limit-requests-left"] for each in (one, two, three)] == ["1", "0", "0"]
        assert (two.status, three.status) == (204, 429)
        assert three.headers["x-rate-limit-time-reset-ms"] == "20000"
        shop.now += timedelta(seconds=20)
        assert shop.ask("GET", "/v2/time").status == 200


class Hooks(list[tuple[str, Mapping[str, str], Any]]):
    """Receives webhooks, and answers what it is told to."""

    status = 200

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.append((url, headers, json.loads(body)))
        return self.status

    def scopes(self) -> list[str]:
        return [body["scope"] for _, _, body in self]


def hook(shop: Shop, scope: str, **more: Any) -> TwinResponse:
    return shop.ask("POST", "/v3/hooks", {"scope": scope, "destination": "https://me.test/bc", **more})


class TestWebhooks:
    def test_hooks_are_created_listed_changed_and_deleted(self) -> None:
        shop = Shop()
        assert shop.get("/v3/hooks")["data"] == []
        created = said(hook(shop, "store/order/*", headers={"X-Secret": "s"}))["data"]
        assert created["is_active"]
        assert shop.get("/v3/hooks?scope=store/order/*&is_active=true")["data"] == [created]
        assert shop.get("/v3/hooks?scope=other")["data"] == []
        assert said(shop.ask("PUT", "/v3/hooks/1", {"is_active": False}))["data"]["is_active"] is False
        assert shop.get("/v3/hooks/1")["data"]["headers"] == {"X-Secret": "s"}
        assert shop.ask("DELETE", "/v3/hooks/1").status == 200
        assert shop.ask("GET", "/v3/hooks/1").status == 404

    @pytest.mark.parametrize(
        "body",
        [{}, {"scope": "x"}, {"scope": "x", "destination": "http://m.test"}, [], {"scope": 1, "destination": "https://x"},
         {"scope": "x", "destination": "https://me.test:8443"}, {"scope": "x", "destination": "https://x", "x": 1}],
    )  # fmt: skip
    def test_bad_hooks_are_422_with_a_v3_body(self, body: Any) -> None:
        response = Shop().ask("POST", "/v3/hooks", body)
        assert response.status == 422
        assert said(response)["status"] == 422

    def test_at_most_ten_hooks_per_scope_and_one_per_destination(self) -> None:
        shop = Shop()
        for n in range(10):
            assert hook(shop, "s", destination=f"https://me.test/{n}").status == 200
        assert hook(shop, "s", destination="https://me.test/11").status == 422
        assert hook(shop, "t").status == 200
        assert hook(shop, "t").status == 422

    def test_one_change_raises_two_events(self) -> None:
        heard = Hooks()
        shop = Shop(webhooks=Webhooks(heard))
        hook(shop, "store/order/*", headers={"X-Secret": "s"})
        number = shop.twin.place(ORDER)
        shop.ask("PUT", f"/v2/orders/{number}", {"status_id": 2})
        assert heard.scopes() == ["store/order/created", "store/order/updated", "store/order/statusUpdated"]
        assert heard[2][2]["data"]["status"] == {"previous_status_id": 11, "new_status_id": 2}
        assert {headers["X-Secret"] for _, headers, _ in heard} == {"s"}

    def test_created_fires_for_incomplete_orders_too(self) -> None:
        heard = Hooks()
        shop = Shop(webhooks=Webhooks(heard))
        hook(shop, "store/order/created")
        shop.twin.place({**ORDER, "status_id": 0})
        assert heard.scopes() == ["store/order/created"]

    def test_updates_of_one_order_share_their_hash(self) -> None:
        heard = Hooks()
        shop = Shop(webhooks=Webhooks(heard))
        hook(shop, "store/order/updated")
        number = shop.twin.place(ORDER)
        for note in ("a", "b"):
            shop.twin.change(number, staff_notes=note)
        assert len({body["hash"] for _, _, body in heard}) == 1

    def test_shipments_name_their_order_in_camel_case(self) -> None:
        heard = Hooks()
        shop = Shop(webhooks=Webhooks(heard))
        hook(shop, "store/shipment/*")
        number = shop.twin.place(ORDER)
        shop.ask("POST", f"/v2/orders/{number}/shipments", GOOD)
        assert heard[0][2]["data"] == {"type": "shipment", "id": 1, "orderId": number}

    def test_they_come_twice_and_backwards_when_told_to(self) -> None:
        heard = Hooks()
        shop = Shop(webhooks=Webhooks(heard, copies=2, hold=True, backwards=True))
        hook(shop, "store/order/created")
        one, other = shop.twin.place(ORDER), shop.twin.place(ORDER)
        assert heard == []
        assert shop.twin.pending_webhooks() == 2
        assert shop.twin.deliver_webhooks() == 2
        assert [body["data"]["id"] for _, _, body in heard] == [other, other, one, one]

    def test_what_is_not_accepted_comes_again(self) -> None:
        heard = Hooks()
        heard.status = 503
        shop = Shop(webhooks=Webhooks(heard))
        hook(shop, "store/order/created")
        shop.twin.place(ORDER)
        heard.status = 200
        assert shop.twin.deliver_webhooks() == 1
        assert len(heard) == 2
        assert shop.twin.deliver_webhooks() == 0

    def test_an_inactive_hook_hears_nothing(self) -> None:
        shop = Shop()
        hook(shop, "store/order/created", is_active=False)
        shop.twin.place(ORDER)
        assert shop.twin.pending_webhooks() == 0
        assert shop.twin.deliver_webhooks() == 0

    def test_the_receiver_may_ask_the_store_at_once(self) -> None:
        asked: list[Any] = []

        def receive(_url: str, _headers: Mapping[str, str], body: bytes) -> int:
            asked.append(shop.get(f"/v2/orders/{json.loads(body)['data']['id']}"))
            return 200

        shop = Shop(webhooks=Webhooks(receive))
        hook(shop, "store/order/created")
        shop.twin.place(ORDER)
        assert asked[0]["status_id"] == 11


class TestDurability:
    def test_whatever_was_answered_survives_a_kill(self, tmp_path: Path) -> None:
        shop = Shop(path=tmp_path / "shop.db")
        rng = random.Random(3)
        numbers = [shop.twin.place(generate_order(rng, n)) for n in range(3)]
        line = shop.twin.products(numbers[0])[0]
        body = {
            "order_address_id": line["order_address_id"],
            "items": [{"order_product_id": line["id"], "quantity": 1}],
        }
        shop.twin.faults.plan(Fault("lost", "POST"))
        with pytest.raises(AssertionError):
            shop.ask("POST", f"/v2/orders/{numbers[0]}/shipments", body)  # applied, but its answer is lost
        before = shop.get("/v2/orders"), shop.get(f"/v2/orders/{numbers[0]}/shipments")
        killed, shop.twin = shop.twin, shop.start()
        assert (shop.get("/v2/orders"), shop.get(f"/v2/orders/{numbers[0]}/shipments")) == before
        assert shop.twin.orders() == numbers
        assert shop.twin.place(generate_order(rng, 4)) not in numbers
        killed.close()
        shop.twin.close()

    def test_an_unknown_order_is_a_key_error_at_the_back_door(self) -> None:
        with pytest.raises(KeyError):
            Shop().twin.order(4711)
        assert Shop().twin.status_history(4711) == []


def test_requests_can_be_built_by_hand() -> None:
    request = TwinRequest(
        "GET", "/stores/teststore/v2/time", (), {"x-auth-token": "t", "accept": "application/json"}, b""
    )
    assert Shop().twin.handle(request).status == 200
