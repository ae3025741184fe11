"""A stand-in for one BigCommerce store: the endpoints an order adapter uses, with the real ones' habits.

It keeps the habits that catch clients: bare V2 lists that are ``204`` without a body when empty, V2 errors as lists
whose inner status lies, a quota with headers on every answer, a ``DELETE`` without an id that archives every order,
dates that must be escaped, and XML for a client that does not ask for JSON. Source: BigCommerce's published
specifications and documentation, April 2026. What they leave open can be set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from iom_adapters._clock import Clock, utc_now
from iom_adapters._twin import Documents, Faults, Json, TwinRequest, TwinResponse
from iom_adapters.bigcommerce.wire import Status

WINDOW: Final = timedelta(seconds=30)
"""The rate limit's window."""

Deliver = Callable[[str, Mapping[str, str], bytes], int]
"""Sends one webhook to an address and returns the HTTP status it got; not 2xx: it is kept and sent again."""

LABELS: Final[Mapping[int, str]] = {
    Status.INCOMPLETE: "Incomplete",
    Status.PENDING: "Pending",
    Status.SHIPPED: "Shipped",
    Status.PARTIALLY_SHIPPED: "Partially Shipped",
    Status.REFUNDED: "Refunded",
    Status.CANCELLED: "Cancelled",
    Status.DECLINED: "Declined",
    Status.AWAITING_PAYMENT: "Awaiting Payment",
    Status.AWAITING_PICKUP: "Awaiting Pickup",
    Status.AWAITING_SHIPMENT: "Awaiting Shipment",
    Status.COMPLETED: "Completed",
    Status.AWAITING_FULFILLMENT: "Awaiting Fulfillment",
    Status.MANUAL_VERIFICATION_REQUIRED: "Manual Verification Required",
    Status.DISPUTED: "Disputed",
    Status.PARTIALLY_REFUNDED: "Partially Refunded",
}
"""The system's names of the statuses."""

_SHELF: Final = (0, 1, 7, 11, 9, 8, 3, 10, 2, 5, 6, 4, 13, 12, 14)
_PROVIDERS: Final = frozenset(
    ("", "auspost", "canadapost", "endicia", "usps", "fedex", "royalmail", "ups", "upsready", "upsonline", "shipperhq")
)
_WRITABLE: Final[Mapping[str, type | tuple[type, ...]]] = {
    "status_id": int,
    "external_order_id": str,
    "external_merchant_id": str,
    "staff_notes": str,
    "customer_message": str,
    "customer_id": int,
    "payment_method": str,
    "is_deleted": bool,
}
"""What PUT changes here, and its JSON type."""
_NOT_SIMULATED: Final = frozenset(
    (
        "products",
        "shipping_addresses",
        "billing_address",
        "consignments",
        "fees",
        "date_created",
        "channel_id",
        "base_handling_cost",
        "base_shipping_cost",
        "base_wrapping_cost",
        "discount_amount",
        "order_source",
        "ebay_order_id",
        "external_source",
        "geoip_country",
        "geoip_country_iso2",
        "handling_cost_ex_tax",
        "handling_cost_inc_tax",
        "ip_address",
        "ip_address_v6",
        "items_shipped",
        "items_total",
        "order_is_digital",
        "payment_provider_id",
        "refunded_amount",
        "shipping_cost_ex_tax",
        "shipping_cost_inc_tax",
        "subtotal_ex_tax",
        "subtotal_inc_tax",
        "tax_provider_id",
        "customer_locale",
        "total_ex_tax",
        "total_inc_tax",
        "wrapping_cost_ex_tax",
        "wrapping_cost_inc_tax",
    )
)
"""Writable in the real API, where they change lines and sums; an order adapter has no business with them."""
_SHIPMENT_TEXTS: Final[Mapping[str, int]] = {
    "tracking_number": 50,
    "tracking_link": 500,
    "comments": 65535,
    "shipping_method": 255,
    "tracking_carrier": 255,
    "merchant_shipping_cost": 30,
    "shipping_provider": 100,
}
_CONTACT: Final = (
    "first_name",
    "last_name",
    "company",
    "street_1",
    "street_2",
    "city",
    "state",
    "zip",
    "country",
    "country_iso2",
    "phone",
    "email",
)
_SORTS: Final = frozenset(
    ("id", "customer_id", "date_created", "date_modified", "status_id", "channel_id", "external_id")
)
_LINKS: Final[Mapping[str, str]] = {
    "products": "products",
    "shipping_addresses": "shippingaddresses",  # the old spelling, which is not the endpoint's path
    "coupons": "coupons",
    "consignments": "consignments",
    "fees": "fees",
}


class _Refusal(Exception):
    """Answers a V2 request with an error body: a list, whose status may differ from HTTP's."""

    def __init__(self, status: int, message: str, inner: int | None = None) -> None:
        super().__init__(message)
        self.response = TwinResponse.of(status, [{"status": status if inner is None else inner, "message": message}])


class _Problem(Exception):
    """Answers a V3 request with an error body: an object."""

    def __init__(self, status: int, title: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(title)
        body: dict[str, Json] = {"status": status, "title": title, "type": "about:blank"}
        if errors:
            body["errors"] = dict(errors)
        self.response = TwinResponse.of(status, body)


@attrs.define
class Webhooks:
    """How the store sends its webhooks. Undelivered ones wait inside the store.

    *deliver* sends one; ``None``: nothing is sent, only kept. *copies*: how often each is sent. *hold*: they wait until
    `BigCommerceTwin.deliver_webhooks`. *backwards*: those that wait are sent newest first. *client_secret* signs them.
    """

    deliver: Deliver | None = None
    copies: int = 1
    hold: bool = False
    backwards: bool = False
    client_secret: str = attrs.field(default="", repr=False)


class BigCommerceTwin:
    """One store. State lives in memory or, with *path*, in a file that survives a killed process.

    *quota* requests are answered per 30 seconds of *now*, all clients together. *shipments_move_status*: whether a new
    shipment moves the order to 2 or 3 by itself, which the documentation leaves open. *longest_page*: no list holds
    more entries, whatever was asked for; asking for more than 250 is an error. *bounds_included*: whether filters by
    date include their own second, which is open too. Every answer is given after its change has been made durable.
    """

    def __init__(
        self,
        *,
        store_hash: str = "teststore",
        access_token: str = "test-token",  # noqa: S107 - the stand-in's own
        now: Clock = utc_now,
        path: Path | None = None,
        quota: int = 10_000,
        shipments_move_status: bool = False,
        longest_page: int = 250,
        bounds_included: bool = True,
        webhooks: Webhooks | None = None,
    ) -> None:
        self.store_hash = store_hash
        self.quota = quota
        self.shipments_move_status = shipments_move_status
        self.longest_page = longest_page
        self.bounds_included = bounds_included
        self.webhooks = Webhooks() if webhooks is None else webhooks
        self._token = access_token
        self._now = now
        self._documents = Documents(path)
        self._faults = Faults()
        self._lock = threading.RLock()
        self._window: tuple[datetime, int] | None = None
        self._sending: set[str] = set()

    @property
    def name(self) -> str:
        """Return ``"bigcommerce"``."""
        return "bigcommerce"

    @property
    def faults(self) -> Faults:
        """Return the plan of how to misbehave."""
        return self._faults

    def close(self) -> None:
        """Close the file."""
        self._documents.close()

    # The back door.

    def place(self, order: Mapping[str, Json]) -> int:
        """Put an order into the store, as a shopper would, and return its id.

        *order* is a V2 order with its ``products``, ``shipping_addresses`` and, when it has them, ``coupons`` and
        ``fees`` as lists in place of the links. Its ``id`` is kept when it is free; the ids of lines and addresses are
        the order's own business and are replaced by new ones. Missing dates are now.
        """
        with self._lock:
            number = order.get("id")
            if number is None or self._documents.get("order", str(number)) is not None:
                number = self._documents.next("order", 100)
                while self._documents.get("order", str(number)) is not None:
                    number = self._documents.next("order", 100)
            addresses = {0: 0}
            placed_addresses = []
            for address in order.get("shipping_addresses", ()):
                addresses[address["id"]] = self._documents.next("address", 1)
                placed_addresses.append({**address, "id": addresses[address["id"]], "order_id": number})
            lines: dict[Any, int | None] = {None: None}
            for product in order.get("products", ()):
                lines[product["id"]] = self._documents.next("line", 1)
            placed_lines = [
                {
                    **product,
                    "id": lines[product["id"]],
                    "order_id": number,
                    "order_address_id": addresses.get(product["order_address_id"], product["order_address_id"]),
                    "parent_order_product_id": lines[product.get("parent_order_product_id")],
                }
                for product in order.get("products", ())
            ]
            moment = self._stamp()
            status = int(order.get("status_id", Status.AWAITING_FULFILLMENT))
            head = {
                "date_created": moment,
                "date_shipped": "",
                "external_order_id": "",
                "is_deleted": False,
                **{name: value for name, value in order.items() if name not in _LINKS},
                "id": number,
                "status_id": status,
                "status": LABELS[status],
                "custom_status": LABELS[status],
                "date_modified": order.get("date_modified") or moment,
            }
            put = self._documents.put
            put("order", str(number), head)
            put("products", str(number), placed_lines)
            put("shipping_addresses", str(number), placed_addresses)
            put("coupons", str(number), [{**each, "order_id": number} for each in order.get("coupons", ())])
            put("fees", str(number), list(order.get("fees", ())))
            put("history", str(number), [status])
            self._raise_event("store/order/created", {"type": "order", "id": number})
            self._documents.commit()
        self._send_unless_held()
        return int(number)

    def change(self, number: int, **fields: Json) -> None:
        """Change fields of an order as the store's own staff would, for example ``status_id=5``."""
        with self._lock:
            self._update(self._known(str(number)), fields)
            self._documents.commit()
        self._send_unless_held()

    def order(self, number: int) -> dict[str, Json]:
        """Return an order's own fields, without lines; raises `KeyError`."""
        with self._lock:
            found = self._documents.get("order", str(number))
            if found is None:
                raise KeyError(number)
            return dict(found)

    def products(self, number: int) -> list[dict[str, Json]]:
        """Return an order's lines."""
        with self._lock:
            return [dict(each) for each in self._rows("products", str(number))]

    def orders(self) -> list[int]:
        """Return the ids of all orders."""
        with self._lock:
            return sorted(int(key) for key in self._documents.keys("order"))

    def shipments(self, number: int) -> list[dict[str, Json]]:
        """Return an order's shipments."""
        with self._lock:
            return [dict(each) for each in self._rows("shipments", str(number))]

    def status_history(self, number: int) -> list[int]:
        """Return every status that was set, oldest first; one that was set twice is there twice."""
        with self._lock:
            return list(self._documents.get("history", str(number)) or ())

    def status_changes(self, number: int) -> int:
        """Return how often a status was set since the order was placed."""
        return len(self.status_history(number)) - 1

    def pending_webhooks(self) -> int:
        """Return how many webhooks wait to be delivered."""
        with self._lock:
            return len(self._documents.keys("event"))

    def deliver_webhooks(self) -> int:
        """Send the webhooks that wait and return how many were accepted; the others go on waiting.

        They are sent outside the store's lock, so that the receiver may ask the store at once.
        """
        deliver = self.webhooks.deliver
        if deliver is None:
            return 0
        with self._lock:
            waiting = [key for key in self._documents.keys("event") if key not in self._sending]
            waiting.sort(key=int, reverse=self.webhooks.backwards)
            events = [(key, self._documents.get("event", key)) for key in waiting]
            self._sending.update(waiting)
        try:
            return sum(self._deliver(deliver, key, event) for key, event in events)
        finally:
            self._sending.difference_update(waiting)

    def _deliver(self, deliver: Deliver, key: str, event: Json) -> bool:
        body = event["body"].encode()
        headers = {**event["headers"], **self._signature(key, body)}
        statuses = [deliver(event["url"], headers, body) for _ in range(self.webhooks.copies)]
        accepted = any(200 <= status < 300 for status in statuses)
        if accepted:
            with self._lock:
                self._documents.delete("event", key)
                self._documents.commit()
        return accepted

    # The front door.

    def handle(self, request: TwinRequest) -> TwinResponse:
        """Answer one request. It either happens as a whole, durably, or not at all."""
        with self._lock:
            limits, left = self._count()
            response = self._throttled() if left < 0 else self._answer(request)
            self._documents.commit()
        self._send_unless_held()
        if response.status == 204:
            return TwinResponse(204, limits)
        return TwinResponse(response.status, {**response.headers, **limits}, response.body)

    def _count(self) -> tuple[dict[str, str], int]:
        now = self._now()
        if self._window is None or now >= self._window[0] + WINDOW:
            self._window = (now, 0)
        start, used = self._window
        self._window = (start, used + 1)
        left = self.quota - used - 1
        reset = math.ceil((start + WINDOW - now) / timedelta(milliseconds=1))
        return {
            "x-rate-limit-requests-quota": str(self.quota),
            "x-rate-limit-requests-left": str(max(left, 0)),
            "x-rate-limit-time-window-ms": str(int(WINDOW / timedelta(milliseconds=1))),
            "x-rate-limit-time-reset-ms": str(reset),
        }, left

    def _throttled(self) -> TwinResponse:
        return _Refusal(429, "The rate limit of this store is used up.").response

    def _answer(self, request: TwinRequest) -> TwinResponse:
        match = re.fullmatch(r"/stores/([^/]+)/(v2|v3)(/.*)", request.path)
        if match is None:
            return _Refusal(404, "There is nothing here.").response
        store, version, path = match.groups()
        error: Callable[[int, str], _Refusal | _Problem] = _Refusal if version == "v2" else _Problem
        given = request.headers.get("x-auth-token", "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return error(401, "The X-Auth-Token header is missing or wrong.").response
        if store != self.store_hash:
            return error(403, "This token is another store's.").response
        if version == "v2" and "application/json" not in request.headers.get("accept", ""):
            return TwinResponse(200, {"content-type": "application/xml"}, b"<?xml version='1.0'?><response/>")
        path = path.rstrip("/")  # an empty id at the end is no id: this is how clients wipe a store
        for method, pattern, handler in _ROUTES[version]:
            found = re.fullmatch(pattern, path)
            if found is not None and method == request.method:
                try:
                    return handler(self, request, *found.groups())
                except (_Refusal, _Problem) as refused:
                    return refused.response
        if any(re.fullmatch(pattern, path) for _, pattern, _ in _ROUTES[version]):
            return error(405, f"{request.method} is not possible here.").response
        return error(404, "The requested resource was not found.").response

    # Orders.

    def _list_orders(self, request: TwinRequest) -> TwinResponse:
        includes = request.param("include").split(",")
        page, key, backwards = _paging(request, self.longest_page), *_sorting(request)
        found = self._matching(request)
        found.sort(key=lambda each: (_sortable(each, key), each["id"]), reverse=backwards)
        return _listed([self._order_body(each, includes) for each in _cut(found, page)])

    def _count_orders(self, request: TwinRequest) -> TwinResponse:
        found = self._matching(request)
        rows = [
            {**_status_body(status), "count": sum(each["status_id"] == status for each in found), "sort_order": place}
            for place, status in enumerate(_SHELF)
        ]
        return TwinResponse.of(200, {"statuses": rows, "count": len(found)})

    def _matching(self, request: TwinRequest) -> list[Json]:
        found = [each for each in self._documents.all("order") if not each["is_deleted"]]
        for name, text in request.query:
            if name in _OTHER_PARAMETERS:
                continue
            if name not in _FILTERS:
                raise _Refusal(400, f"The field '{name}' is not supported by this resource.")
            field, holds, read = _FILTERS[name]
            if read is _date and not self.bounds_included:
                holds = {ge: gt, le: lt}[holds]
            wanted = read(name, text)
            found = [each for each in found if holds(read(name, str(_value(each, field))), wanted)]
        return found

    def _get_order(self, request: TwinRequest, number: str) -> TwinResponse:
        return TwinResponse.of(200, self._order_body(self._known(number), request.param("include").split(",")))

    def _put_order(self, request: TwinRequest, number: str) -> TwinResponse:
        before = self._known(number)
        fields = _object(request)
        for name, value in fields.items():
            if name in _NOT_SIMULATED:
                raise _Refusal(501, f"This stand-in does not change {name}.")
            if name not in _WRITABLE:
                # The real answer contradicts itself in the same way: 400 outside, 404 inside.
                raise _Refusal(400, f"The field '{name}' can't be written; leave it out.", inner=404)
            if not isinstance(value, _WRITABLE[name]) or (isinstance(value, bool) and name != "is_deleted"):
                raise _Refusal(400, f"The field '{name}' has the wrong type.")
        if fields.get("status_id", 0) not in LABELS:
            raise _Refusal(400, "The field 'status_id' is invalid.")
        if "external_merchant_id" in fields and before.get("external_merchant_id"):
            raise _Refusal(400, "The field 'external_merchant_id' can be set only once.")
        return TwinResponse.of(200, self._order_body(self._update(before, fields), ()))

    def _archive_order(self, _request: TwinRequest, number: str) -> TwinResponse:
        self._update(self._known(number), {"is_deleted": True}, event="store/order/archived")
        return TwinResponse(204)

    def _archive_all_orders(self, _request: TwinRequest) -> TwinResponse:
        for order in self._documents.all("order"):
            self._update(order, {"is_deleted": True}, event="store/order/archived")
        return TwinResponse(204)

    def _known(self, number: str) -> dict[str, Json]:
        found: dict[str, Json] | None = self._documents.get("order", number)
        if found is None:
            raise _Refusal(404, "The requested resource was not found.")
        return found

    def _update(
        self, order: Mapping[str, Json], fields: Mapping[str, Json], event: str = "store/order/updated"
    ) -> dict[str, Json]:
        number = order["id"]
        after = {**order, **fields, "date_modified": self._stamp()}
        if "status_id" in fields:
            label = LABELS[fields["status_id"]]
            after |= {"status": label, "custom_status": label}
            if fields["status_id"] == Status.SHIPPED and not after["date_shipped"]:
                after["date_shipped"] = self._stamp()
            history = self._documents.get("history", str(number)) or []
            self._documents.put("history", str(number), [*history, fields["status_id"]])
        self._documents.put("order", str(number), after)
        self._raise_event(event, {"type": "order", "id": number})
        if after["status_id"] != order["status_id"]:
            change = {"previous_status_id": order["status_id"], "new_status_id": after["status_id"]}
            self._raise_event("store/order/statusUpdated", {"type": "order", "id": number, "status": change})
        return after

    def _order_body(self, order: Mapping[str, Json], includes: Sequence[str]) -> dict[str, Json]:
        number = order["id"]
        links = {
            name: {
                "url": f"https://api.bigcommerce.com/stores/{self.store_hash}/v2/orders/{number}/{spelled}",
                "resource": f"/orders/{number}/{spelled}",
            }
            for name, spelled in _LINKS.items()
        }
        body = {**order, **links}
        if "fees" in includes:
            body["fees"] = self._documents.get("fees", str(number)) or []
        return body

    def _part(self, request: TwinRequest, number: str, part: str) -> TwinResponse:
        self._known(number)
        page = _paging(request, self.longest_page)
        return _listed(_cut(self._rows(part, number), page))

    def _fees(self, _request: TwinRequest, number: str) -> TwinResponse:
        self._known(number)
        return TwinResponse.of(200, {"fees": self._rows("fees", number)})

    def _part_entry(self, _request: TwinRequest, number: str, part: str, entry: str) -> TwinResponse:
        self._known(number)
        return TwinResponse.of(200, self._entry(part, number, entry))

    def _rows(self, part: str, number: str) -> list[dict[str, Json]]:
        return self._documents.get(part, number) or []

    def _entry(self, part: str, number: str, entry: str) -> dict[str, Json]:
        for each in self._rows(part, number):
            if str(each["id"]) == entry:
                found: dict[str, Json] = each
                return found
        raise _Refusal(404, "The requested resource was not found.")

    # Shipments.

    def _post_shipment(self, request: TwinRequest, number: str) -> TwinResponse:
        order = self._known(number)
        fields = _object(request)
        _check_shipment_fields(fields, {"order_address_id", "items"})
        address_id = fields.get("order_address_id")
        if isinstance(address_id, bool) or not isinstance(address_id, int):
            raise _Refusal(400, "The field 'order_address_id' is required and an integer.")
        addresses = self._rows("shipping_addresses", number)
        address = next((each for each in addresses if each["id"] == address_id), None)
        if address is None:
            raise _Refusal(400, "The field 'order_address_id' is no address of this order.")
        lines = {each["id"]: each for each in self._rows("products", number)}
        items = fields.get("items")
        if not isinstance(items, list) or not items:
            raise _Refusal(400, "The field 'items' is required and a list.")
        moved: dict[int, int] = {}
        for item in items:
            line_id = item.get("order_product_id") if isinstance(item, dict) else None
            quantity = item.get("quantity") if isinstance(item, dict) else None
            if isinstance(line_id, bool) or not isinstance(line_id, int) or line_id not in lines:
                raise _Refusal(400, "The field 'order_product_id' is no line of this order.")
            if isinstance(quantity, bool) or not isinstance(quantity, int) or quantity < 1:
                raise _Refusal(400, "The field 'quantity' is required and a positive integer.")
            moved[line_id] = moved.get(line_id, 0) + quantity
        for line_id, quantity in moved.items():
            line = lines[line_id]
            if line["type"] != "physical" or line["order_address_id"] != address_id:
                raise _Refusal(400, f"The line {line_id} does not ship to this address.")
            if line["quantity_shipped"] + quantity > line["quantity"]:
                raise _Refusal(400, f"More of line {line_id} than was ordered can't be shipped.")
        provider = fields.get("shipping_provider", "custom")
        shipment = {
            "id": self._documents.next("shipment", 1),
            "order_id": order["id"],
            "customer_id": order["customer_id"],
            "order_address_id": address_id,
            "date_created": self._stamp(),
            "tracking_number": fields.get("tracking_number", ""),
            "merchant_shipping_cost": fields.get("merchant_shipping_cost", "0.0000"),
            "shipping_method": fields.get("shipping_method", address.get("shipping_method", "")),
            "comments": fields.get("comments", ""),
            "shipping_provider": provider,
            "tracking_carrier": fields.get("tracking_carrier", ""),
            "tracking_link": fields.get("tracking_link", ""),
            "billing_address": {name: order["billing_address"].get(name, "") for name in _CONTACT},
            "shipping_address": {name: address.get(name, "") for name in _CONTACT},
            "items": [
                {"order_product_id": line_id, "product_id": lines[line_id]["product_id"], "quantity": quantity}
                for line_id, quantity in moved.items()
            ],
            "shipping_provider_display_name": str(provider).upper(),
            "generated_tracking_link": "",
        }
        self._documents.put("shipments", number, [*self._rows("shipments", number), shipment])
        self._move(order, moved, address_id, +1)
        self._raise_event("store/shipment/created", {"type": "shipment", "id": shipment["id"], "orderId": order["id"]})
        return TwinResponse.of(201, shipment)

    def _put_shipment(self, request: TwinRequest, number: str, entry: str) -> TwinResponse:
        self._known(number)
        before = self._entry("shipments", number, entry)
        fields = _object(request)
        _check_shipment_fields(fields, set())
        after = {**before, **fields}
        kept = [after if each["id"] == before["id"] else each for each in self._rows("shipments", number)]
        self._documents.put("shipments", number, kept)
        self._raise_event("store/shipment/updated", {"type": "shipment", "id": before["id"], "orderId": int(number)})
        return TwinResponse.of(200, after)

    def _delete_shipment(self, _request: TwinRequest, number: str, entry: str) -> TwinResponse:
        self._known(number)
        self._remove_shipments(number, [self._entry("shipments", number, entry)])
        return TwinResponse(204)

    def _delete_shipments(self, _request: TwinRequest, number: str) -> TwinResponse:
        self._known(number)
        self._remove_shipments(number, self._rows("shipments", number))
        return TwinResponse(204)

    def _remove_shipments(self, number: str, removed: Sequence[Mapping[str, Json]]) -> None:
        for shipment in removed:
            kept = [each for each in self._rows("shipments", number) if each["id"] != shipment["id"]]
            self._documents.put("shipments", number, kept)
            moved = {item["order_product_id"]: item["quantity"] for item in shipment["items"]}
            self._move(self._known(number), moved, shipment["order_address_id"], -1)
            self._raise_event(
                "store/shipment/deleted", {"type": "shipment", "id": shipment["id"], "orderId": int(number)}
            )

    def _count_shipments(self, _request: TwinRequest, number: str) -> TwinResponse:
        self._known(number)
        return TwinResponse.of(200, {"count": len(self._rows("shipments", number))})

    def _move(self, order: Mapping[str, Json], moved: Mapping[int, int], address_id: int, sign: int) -> None:
        """Count shipped units up or down; deleting a shipment never moves the order's status back."""
        number = str(order["id"])
        lines = [
            {**each, "quantity_shipped": each["quantity_shipped"] + sign * moved.get(each["id"], 0)}
            for each in self._rows("products", number)
        ]
        self._documents.put("products", number, lines)
        total = sum(moved.values()) * sign
        addresses = [
            {**each, "items_shipped": each["items_shipped"] + (total if each["id"] == address_id else 0)}
            for each in self._rows("shipping_addresses", number)
        ]
        self._documents.put("shipping_addresses", number, addresses)
        fields: dict[str, Json] = {"items_shipped": order["items_shipped"] + total}
        if sign > 0 and self.shipments_move_status:
            left = any(
                each["quantity_shipped"] < each["quantity"] and each["type"] == "physical" and each["order_address_id"]
                for each in lines
            )
            status = int(Status.PARTIALLY_SHIPPED if left else Status.SHIPPED)
            if status != order["status_id"]:
                fields["status_id"] = status
        self._update(order, fields)

    # The store itself.

    def _statuses(self, _request: TwinRequest) -> TwinResponse:
        return TwinResponse.of(200, [{**_status_body(each), "order": _SHELF.index(each)} for each in LABELS])

    def _status(self, _request: TwinRequest, number: str) -> TwinResponse:
        if int(number) not in LABELS:
            raise _Refusal(404, "The requested resource was not found.")
        return TwinResponse.of(200, {**_status_body(int(number)), "order": _SHELF.index(int(number))})

    def _time(self, _request: TwinRequest) -> TwinResponse:
        return TwinResponse.of(200, {"time": int(self._now().timestamp())})

    def _store(self, _request: TwinRequest) -> TwinResponse:
        return TwinResponse.of(
            200,
            {
                "id": self.store_hash,
                "domain": "shop.example",
                "secure_url": "https://shop.example",
                "status": "live",
                "name": "Test store",
                "country_code": "US",
                "language": "en",
                "currency": "USD",
                "decimal_places": 2,
                "plan_level": "Enterprise",
                "store_id": 1,
                "default_channel_id": 1,
            },
        )

    # Webhooks.

    def _list_hooks(self, request: TwinRequest) -> TwinResponse:
        hooks = sorted(self._documents.all("hook"), key=lambda each: each["id"])
        for name in ("scope", "destination"):
            hooks = [each for each in hooks if request.param(name, each[name]) == each[name]]
        active = request.param("is_active")
        hooks = [each for each in hooks if active == "" or each["is_active"] == (active in ("true", "1"))]
        try:
            page, limit = _paging(request, self.longest_page)
        except _Refusal as broken:
            raise _Problem(422, str(broken)) from None
        cut = hooks[(page - 1) * limit : page * limit]
        pagination = {
            "total": len(hooks),
            "count": len(cut),
            "per_page": limit,
            "current_page": page,
            "total_pages": max(math.ceil(len(hooks) / limit), 1),
        }
        return TwinResponse.of(200, {"data": cut, "meta": {"pagination": pagination}})

    def _post_hook(self, request: TwinRequest) -> TwinResponse:
        fields = _hook_fields(request)
        missing = {name: "error.path.missing" for name in ("scope", "destination") if name not in fields}
        if missing:
            raise _Problem(422, "Members are missing.", missing)
        same = [each for each in self._documents.all("hook") if each["scope"] == fields["scope"]]
        if any(each["destination"] == fields["destination"] for each in same):
            raise _Problem(422, "This hook exists already.", {"destination": "duplicate"})
        if len(same) >= 10:
            raise _Problem(422, "There may be ten hooks per scope.", {"scope": "too many"})
        stamp = int(self._now().timestamp())
        hook = {
            "id": self._documents.next("hook", 1),
            "client_id": "test-client",
            "store_hash": self.store_hash,
            "scope": fields["scope"],
            "destination": fields["destination"],
            "headers": fields.get("headers"),
            "is_active": fields.get("is_active", True),
            "created_at": stamp,
            "updated_at": stamp,
        }
        self._documents.put("hook", str(hook["id"]), hook)
        return TwinResponse.of(200, {"data": hook, "meta": {}})

    def _get_hook(self, _request: TwinRequest, number: str) -> TwinResponse:
        return TwinResponse.of(200, {"data": self._hook(number), "meta": {}})

    def _put_hook(self, request: TwinRequest, number: str) -> TwinResponse:
        hook = {**self._hook(number), **_hook_fields(request), "updated_at": int(self._now().timestamp())}
        self._documents.put("hook", number, hook)
        return TwinResponse.of(200, {"data": hook, "meta": {}})

    def _delete_hook(self, _request: TwinRequest, number: str) -> TwinResponse:
        hook = self._hook(number)
        self._documents.delete("hook", number)
        return TwinResponse.of(200, {"data": hook, "meta": {}})

    def _hook(self, number: str) -> dict[str, Json]:
        found: dict[str, Json] | None = self._documents.get("hook", number)
        if found is None:
            raise _Problem(404, "The hook was not found.")
        return found

    def _raise_event(self, scope: str, data: Json) -> None:
        """Queue the event for every active hook that wants it; one change may raise several events."""
        wanted = {scope, scope.rpartition("/")[0] + "/*"}
        for hook in self._documents.all("hook"):
            if not hook["is_active"] or hook["scope"] not in wanted:
                continue
            body = {
                "scope": scope,
                "store_id": "1",
                "data": data,
                # Of the data alone, hence the same for every update of one order: clients must not drop by it.
                "hash": hashlib.sha1(json.dumps(data).encode(), usedforsecurity=False).hexdigest(),
                "created_at": int(self._now().timestamp()),
                "producer": f"stores/{self.store_hash}",
            }
            headers = {"content-type": "application/json", **(hook["headers"] or {})}
            key = self._documents.next("event", 1)
            event = {"url": hook["destination"], "headers": headers, "body": json.dumps(body)}
            self._documents.put("event", str(key), event)

    def _signature(self, key: str, body: bytes) -> dict[str, str]:
        secret = self.webhooks.client_secret
        if not secret:
            return {}
        stamp = str(int(self._now().timestamp()))
        digest = hmac.digest(secret.encode(), f"msg_{key}.{stamp}.".encode() + body, "sha256")
        return {
            "webhook-id": f"msg_{key}",
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }

    def _send_unless_held(self) -> None:
        if not self.webhooks.hold and self.webhooks.deliver is not None:
            self.deliver_webhooks()

    def _stamp(self) -> str:
        return format_datetime(self._now().astimezone(UTC).replace(microsecond=0))


# Pieces of protocol.


def _status_body(status: int) -> dict[str, Json]:
    return {
        "id": status,
        "name": LABELS[status],
        "system_label": LABELS[status],
        "custom_label": LABELS[status],
        "system_description": "",
    }


def _object(request: TwinRequest) -> dict[str, Json]:
    if "application/json" not in request.headers.get("content-type", ""):
        raise _Refusal(415, "The content type is not supported.")
    try:
        fields = request.json()
    except (ValueError, RecursionError):
        raise _Refusal(400, "The request is not JSON.") from None
    if not isinstance(fields, dict):
        raise _Refusal(400, "The request is no object.")
    return fields


def _check_shipment_fields(fields: Mapping[str, Json], more: Iterable[str]) -> None:
    for name, value in fields.items():
        if name in more:
            continue
        longest = _SHIPMENT_TEXTS.get(name)
        if longest is None:
            raise _Refusal(400, f"The field '{name}' can't be written; leave it out.", inner=404)
        if not isinstance(value, str) or len(value) > longest:
            raise _Refusal(400, f"The field '{name}' is invalid.")
    provider = fields.get("shipping_provider", "")
    if provider not in _PROVIDERS and not re.fullmatch(r"carrier_\d+", provider):
        raise _Refusal(400, "The field 'shipping_provider' is invalid.")


def _hook_fields(request: TwinRequest) -> dict[str, Json]:
    kinds: dict[str, Any] = {"scope": str, "destination": str, "is_active": bool, "headers": (dict, type(None))}
    try:
        fields = request.json()
    except (ValueError, RecursionError):
        raise _Problem(400, "The request is not JSON.") from None
    if not isinstance(fields, dict):
        raise _Problem(422, "The request is no object.")
    wrong = {name: "invalid" for name, value in fields.items() if not isinstance(value, kinds.get(name, ()))}
    if wrong:
        raise _Problem(422, "Members are invalid.", wrong)
    if "destination" in fields:
        target = urlsplit(fields["destination"])
        if target.scheme != "https" or target.port not in (None, 443):
            raise _Problem(422, "The destination must be https on port 443.", {"destination": "invalid"})
    return fields


def _paging(request: TwinRequest, longest: int) -> tuple[int, int]:
    values = []
    for name, default in (("page", "1"), ("limit", "50")):
        text = request.param(name, default)
        if not text.isascii() or not text.isdecimal() or int(text) < 1:
            raise _Refusal(400, f"The field '{name}' is invalid.")
        values.append(int(text))
    page, limit = values
    if limit > 250:
        raise _Refusal(413, "The limit is too high.")
    return page, min(limit, longest)


def _cut(found: Sequence[Json], page: tuple[int, int]) -> list[Json]:
    number, limit = page
    return list(found[(number - 1) * limit : number * limit])


def _listed(found: list[Json]) -> TwinResponse:
    return TwinResponse.of(200, found) if found else TwinResponse(204)


def _sorting(request: TwinRequest) -> tuple[str, bool]:
    name, _, direction = request.param("sort", "id").partition(":")
    if name not in _SORTS or direction not in ("", "asc", "desc"):
        raise _Refusal(400, "The field 'sort' is invalid.")
    return name, direction == "desc"


def _sortable(order: Mapping[str, Json], name: str) -> Json:
    value = order.get(name)
    if name.startswith("date_"):
        return _epoch(str(value)) or 0.0
    return ("" if value is None else value) if name == "external_id" else (value or 0)


@lru_cache(maxsize=50_000)
def _epoch(text: str) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError):
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _date(name: str, text: str) -> float:
    """Read a filter's date. An unescaped ``+`` has become a space by now, and the date no date."""
    moment = _epoch(text)
    if moment is None:
        raise _Refusal(400, f"{name} is not valid for this resource")
    return moment


def _number(name: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _Refusal(400, f"The field '{name}' is invalid.") from None


def _plain(_name: str, text: str) -> str:
    return text


_FILTERS: Final[Mapping[str, tuple[str, Callable[[Any, Any], bool], Callable[[str, str], Any]]]] = {
    "min_id": ("id", ge, _number),
    "max_id": ("id", le, _number),
    "min_total": ("total_inc_tax", ge, _number),
    "max_total": ("total_inc_tax", le, _number),
    "customer_id": ("customer_id", eq, _number),
    "channel_id": ("channel_id", eq, _number),
    "status_id": ("status_id", eq, _number),
    "cart_id": ("cart_id", eq, _plain),
    "payment_method": ("payment_method", eq, _plain),
    "external_order_id": ("external_order_id", eq, _plain),
    "email": ("billing_address.email", eq, _plain),
    "min_date_created": ("date_created", ge, _date),
    "max_date_created": ("date_created", le, _date),
    "min_date_modified": ("date_modified", ge, _date),
    "max_date_modified": ("date_modified", le, _date),
}
"""Query parameter to field, comparison, and how both sides are read."""
_OTHER_PARAMETERS: Final = frozenset(("page", "limit", "sort", "include", "consignment_structure"))


def _value(order: Json, field: str) -> Json:
    for step in field.split("."):
        order = order.get(step, "")
    return order


_ID: Final = r"([0-9]{1,18})"
_PART: Final = r"(products|shipping_addresses|shipments|coupons)"
_V2: Final = BigCommerceTwin
_ROUTES: Final[Mapping[str, Sequence[tuple[str, str, Callable[..., TwinResponse]]]]] = {
    "v2": (
        ("GET", "/orders", _V2._list_orders),
        ("DELETE", "/orders", _V2._archive_all_orders),
        ("GET", "/orders/count", _V2._count_orders),
        ("GET", f"/orders/{_ID}", _V2._get_order),
        ("PUT", f"/orders/{_ID}", _V2._put_order),
        ("DELETE", f"/orders/{_ID}", _V2._archive_order),
        ("GET", f"/orders/{_ID}/fees", _V2._fees),
        ("GET", f"/orders/{_ID}/shipments/count", _V2._count_shipments),
        ("GET", f"/orders/{_ID}/{_PART}", _V2._part),
        ("GET", f"/orders/{_ID}/{_PART}/{_ID}", _V2._part_entry),
        ("POST", f"/orders/{_ID}/shipments", _V2._post_shipment),
        ("DELETE", f"/orders/{_ID}/shipments", _V2._delete_shipments),
        ("PUT", f"/orders/{_ID}/shipments/{_ID}", _V2._put_shipment),
        ("DELETE", f"/orders/{_ID}/shipments/{_ID}", _V2._delete_shipment),
        ("GET", "/order_statuses", _V2._statuses),
        ("GET", f"/order_statuses/{_ID}", _V2._status),
        ("GET", "/time", _V2._time),
        ("GET", "/store", _V2._store),
    ),
    "v3": (
        ("GET", "/hooks", _V2._list_hooks),
        ("POST", "/hooks", _V2._post_hook),
        ("GET", f"/hooks/{_ID}", _V2._get_hook),
        ("PUT", f"/hooks/{_ID}", _V2._put_hook),
        ("DELETE", f"/hooks/{_ID}", _V2._delete_hook),
    ),
}
"""Method, path pattern and who answers, by version of the API."""
