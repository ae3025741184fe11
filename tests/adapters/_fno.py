"""A twin, an adapter that talks to it, and small orders: what the F&O tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import httpx

from iom_adapters._twin import transport
from iom_adapters.fno import Fno, connect
from iom_adapters.fno.twin import FnoTwin
from iom_core.lifecycle import Status
from iom_core.messages import Message, Rejected
from iom_core.order import OrderLine, SalesOrder
from iom_core.ports import ErpRequest
from iom_core.values import Address, CompanyId, LineId, Money, OrderId, ProductId, Quantity, System

START = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> None:
        self.now += timedelta(**parts)


class Environment:
    """A twin and an adapter on one clock."""

    def __init__(self, settings: Mapping[str, object] | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.twin = FnoTwin.demo(("CHAIR", "TABLE", "LAMP"), clock=self.clock, **options)
        self.client = httpx.Client(transport=transport(("fno.test", self.twin)))
        self.settings: dict[str, object] = {
            "base_url": "https://fno.test",
            "token_url": "https://fno.test/tenant/oauth2/v2.0/token",
            "client_id": "iom",
            "client_secret": "secret",
            "guests": {"usmf": "US-WEB", "demf": "DE-WEB"},
            "webhook_secret": "hook-secret",
            **(settings or {}),
        }
        self.fno = self.connect()

    def connect(self) -> Fno:
        return connect(self.settings, client=self.client, clock=self.clock)

    def send(self, order: SalesOrder, *lines: str) -> str:
        """Send an order and return its number."""
        return self.fno.send(ErpRequest("key", order, lines)).unwrap().number

    def pull(self, checkpoint: str = "", fno: Fno | None = None) -> tuple[list[Message | Rejected], str]:
        """Pull a whole round; returns its messages and the checkpoint after it."""
        found: list[Message | Rejected] = []
        for _ in range(200):
            pulled = (fno or self.fno).pull(checkpoint, self.clock())
            found.extend(pulled.messages)
            checkpoint = pulled.checkpoint
            if not pulled.more:
                return found, checkpoint
        raise AssertionError("the puller never ends")

    def raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request of the test's own, with a token."""
        token = self.client.post(
            "https://fno.test/tenant/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": "iom",
                "client_secret": "secret",
                "scope": "https://fno.test/.default",
            },
        ).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return self.client.request(method, f"https://fno.test{path}", headers=headers, **options)


def line(number: str, total: str, quantity: str = "1", currency: str = "USD", **changes: Any) -> OrderLine:
    """Build a line that passes the sync filter."""
    return attrs.evolve(
        OrderLine(
            LineId(number),
            ProductId("CHAIR"),
            Quantity.of(quantity),
            Money.of(total, currency),
            Status("In Progress", ""),
            name="Chair",
            company=CompanyId("usmf"),
            site="1",
            warehouse="11",
            ready_to_sync=True,
        ),
        **changes,
    )


def order(
    lines: Sequence[OrderLine] = (), shipping: str = "0", discount: str = "0", currency: str = "USD", **changes: Any
) -> SalesOrder:
    """Build an order that passes the sync filter; its total is the sum of its parts."""
    held = tuple(lines) or (line("1", "39.80", "2"), line("2", "100.00", product=ProductId("TABLE")))
    parts = sum((each.total.amount for each in held), Decimal(0))
    where = Address(
        name="Jane Roe",
        street="1 Main St",
        street2="Suite 5",
        city="Redmond",
        state="Washington",
        postal_code="98052",
        country="US",
        email="jane@example.com",
    )
    return attrs.evolve(
        SalesOrder(
            OrderId("BC-1001"),
            System("bigcommerce"),
            Status("In Progress", ""),
            currency,
            Money.of(parts + Decimal(shipping) - Decimal(discount), currency),
            Money.of(shipping, currency),
            Money.zero(currency),
            Money.of(discount, currency),
            held,
            where,
            where,
            START,
            company=CompanyId("usmf"),
            site="1",
            warehouse="11",
            ready_to_sync=True,
            requested_ship_date=date(2026, 1, 7),
        ),
        **changes,
    )


def bodies(messages: Sequence[Message | Rejected], kind: type) -> list[Any]:
    """Return the bodies of one kind among messages."""
    return [each.body for each in messages if isinstance(each, Message) and isinstance(each.body, kind)]
