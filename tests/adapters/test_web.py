"""The webhook receiver over real HTTP: who may speak, how much, and that an answer never waits for the work."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from returns.result import Failure, Result, Success

from iom_adapters import web
from iom_adapters._twin import Fault as Misbehavior
from iom_core.errors import Unavailable
from iom_core.outcome import Refused
from iom_core.values import System
from tests.adapters.s1 import S1, SECRET, SHOP
from tests.adapters.test_s1 import orders


class Inbound:
    """Hints that are recorded; following can be made to wait or to break."""

    def __init__(self) -> None:
        self.followed: list[tuple[str, str]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.breaks: BaseException | None = None

    def webhook(self, system: System, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Take the body for numbers."""
        if headers.get("x-secret") != "right":
            return Failure(Refused("unauthorized", "the secret is wrong", "$", system))
        return Success(tuple(body.decode().split()))

    def follow(self, system: System, external_id: str) -> int:
        """Record it."""
        self.go_on.wait(10)
        self.followed.append((system, external_id))
        if self.breaks is not None:
            raise self.breaks
        return 1


@pytest.fixture
def inbound() -> Inbound:
    return Inbound()


@pytest.fixture
def receiver(inbound: Inbound) -> Iterator[web.Receiver]:
    serving = web.serve(inbound)
    yield serving
    inbound.go_on.set()
    serving.close()


def post(receiver: web.Receiver, body: bytes, signed: str = "right") -> httpx.Response:
    return httpx.post(f"{receiver.url}/webhooks/bigcommerce", content=body, headers={"X-Secret": signed})


def test_a_hint_is_answered_before_it_is_followed(receiver: web.Receiver, inbound: Inbound) -> None:
    """The sender gets its 204 while the work still waits."""
    inbound.go_on.clear()

    assert post(receiver, b"100 101").status_code == 204
    assert inbound.followed == []

    inbound.go_on.set()
    receiver.close()

    assert inbound.followed == [("bigcommerce", "100"), ("bigcommerce", "101")]


def test_a_wrong_secret_is_refused_with_401(receiver: web.Receiver, inbound: Inbound) -> None:
    """Nothing is followed for a stranger."""
    answer = post(receiver, b"100", signed="wrong")

    assert answer.status_code == 401
    assert "right" not in answer.text
    assert inbound.followed == []


def test_an_oversize_body_is_refused_with_413(receiver: web.Receiver) -> None:
    """A body above the bound is not read to its end."""
    assert post(receiver, b"x" * (web.MAX_BODY + 1)).status_code == 413


def test_a_fault_while_following_does_not_stop_the_next_hint(receiver: web.Receiver, inbound: Inbound) -> None:
    """The puller comes later for what could not be read now."""
    inbound.breaks = Unavailable("bigcommerce", "down")
    post(receiver, b"100")
    post(receiver, b"101")
    receiver.close()

    assert [number for _, number in inbound.followed] == ["100", "101"]


def test_other_methods_and_paths_are_refused(receiver: web.Receiver) -> None:
    """Only POST to a system's own path is taken."""
    assert httpx.get(f"{receiver.url}/webhooks/bigcommerce").status_code == 405
    assert httpx.post(f"{receiver.url}/").status_code == 404
    assert httpx.get(f"{receiver.url}/health").json() == {"status": "ok"}


BAD = {
    "malformed JSON": b'{"scope": "store/order/created"',
    "wrong type": b'{"scope": 5, "data": []}',
    "a list": b"[1, 2]",
    "absurd number": b'{"scope": "store/order/created", "data": {"type": "order", "id": 1e400}}',
    "hostile text": b'{"scope": "store/order/created", "data": {"type": "order", "id": "../../v2/orders"}}',
    "not UTF-8": b"\xff\xfe\x00",
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_kept_with_its_place_and_others_go_on(name: str) -> None:
    """A bad notification is in the inbound error list, and the orders around it complete."""
    s1 = S1()
    s1.place(*orders(1))

    answer = s1.orchestrator.webhook(SHOP, {"x-iom-webhook-secret": SECRET}, BAD[name])
    s1.run()

    assert isinstance(answer, Failure)
    errors = s1.store.errors("provider inbound")
    assert len(errors) == 1
    assert errors[0].where.startswith("$")
    assert errors[0].what
    assert SECRET not in repr(errors)
    assert [order.status.state for order in s1.store.orders()] == ["Completed"]


def test_a_forged_notification_is_refused_and_kept_without_its_headers() -> None:
    """A wrong secret is compared in constant time, refused, and never stored."""
    s1 = S1()

    answer = s1.orchestrator.webhook(SHOP, {"x-iom-webhook-secret": "guess"}, b"{}")

    assert isinstance(answer, Failure)
    assert "guess" not in repr(s1.store.errors())


def test_an_order_that_cannot_be_read_is_rejected_with_a_path_and_others_go_on() -> None:
    """The puller keeps what it can't read in the inbound error list, with a path into the payload."""
    s1 = S1()
    first, second = orders(2)
    broken = {**first, "products": [{**first["products"][0], "quantity": "many"}, *first["products"][1:]]}
    s1.place(broken, second)
    s1.run()

    errors = s1.store.errors("provider inbound")

    assert len(errors) == 1
    assert "products[0].quantity" in errors[0].where
    assert [order.status.state for order in s1.store.orders()] == ["Completed"]


BAD_ANSWERS = {
    "malformed JSON": b'[{"id": 100,',
    "wrong type": b'{"orders": 5}',
    "a list of nonsense": b'[1, "x", null]',
    "absurd number": b'[{"id": 1e400}]',
    "not UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 50_000,
    "oversize": b'[{"note": "' + b"x" * (33 * 1024 * 1024) + b'"}]',
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_nobody_can_read_is_listed_and_the_orders_come_later(name: str) -> None:
    """One bad page of the shop's order list: an inbound error with a path, and every order completes all the same."""
    s1 = S1()
    s1.place(*orders(2))
    s1.plan(Misbehavior("status", path="/v2/orders", status=200, body=BAD_ANSWERS[name]))
    s1.run()

    errors = s1.store.errors("provider inbound")

    assert errors
    assert all(error.where.startswith("$") and error.what for error in errors)
    assert [order.status.state for order in s1.store.orders()] == ["Completed", "Completed"]


BAD_FIELDS: dict[str, dict[str, Any]] = {
    "wrong type": {"quantity": "many"},
    "absurd quantity": {"quantity": 10**40},
    "negative quantity": {"quantity": -1},
    "absurd price": {"total_inc_tax": "1" + "0" * 60 + ".0000"},
    "not a number": {"total_inc_tax": "NaN"},
    "missing": {"quantity": None},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field_rejects_its_order_alone(name: str) -> None:
    """The error names the field's path, the other order is unaffected."""
    s1 = S1()
    first, second = orders(2)
    products = [{**first["products"][0], **BAD_FIELDS[name]}, *first["products"][1:]]
    s1.place({**first, "products": products}, second)
    s1.run()

    (error,) = s1.store.errors("provider inbound")

    assert error.where.startswith("$.")
    assert [order.status.state for order in s1.store.orders()] == ["Completed"]


def test_hostile_text_and_unknown_fields_are_carried_not_obeyed() -> None:
    """Text that looks like code is text; a field nobody told us of is passed over."""
    s1 = S1()
    first, _ = orders(2)
    hostile = "Robert'); DROP TABLE orders;-- <script>alert(1)</script> \u202e ${jndi:ldap://x} \x07"
    address = {**first["shipping_addresses"][0], "first_name": hostile, "new_field": {"deep": [1]}}
    s1.place({**first, "staff_notes": hostile, "shipping_addresses": [address], "brand_new": True})
    s1.run()

    (order,) = s1.store.orders()

    assert order.status.state == "Completed"
    assert "DROP TABLE" in order.ship_to.name
    assert s1.store.errors() == ()
