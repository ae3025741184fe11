"""A twin, an adapter that talks to it, and a harness: what the SAP tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import httpx

from iom_adapters._twin import Fault, transport
from iom_adapters.sap import Sap, connect, wire
from iom_adapters.sap.twin import Material, SapTwin
from iom_core import events as ev
from iom_core.messages import Invoiced, Message, Rejected
from iom_core.order import ExternalId, SalesOrder
from iom_core.outcome import Refused
from iom_core.ports import BillingRequest, Receipt
from iom_core.testing.samples import SAMPLE_AT, SAMPLE_PRODUCTS, sample_order, sample_shipped_order

SECRET = "a secret of our own"
MATERIALS = {product: Material(Decimal("9.99")) for product in SAMPLE_PRODUCTS}
BASE: Mapping[str, object] = {
    "base_url": "https://sap.test",
    "user": "IOM",
    "password": "secret",
    "sap_client": "100",
    "order_type": "OR",
    "sales_areas": {"": "1710/10/00"},
    "guest": "17100001",
    "price_condition": "ZGRS",
    "webhook_secret": SECRET,
}
WAYS: Mapping[str, Mapping[str, object]] = {
    "order": {"item_category": "TAX"},
    "order, blocked first": {"item_category": "TAX", "billing_block": "02"},
    "delivery": {"bill_from": "delivery"},
}


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = SAMPLE_AT

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> None:
        self.now += timedelta(**parts)


class Client100:
    """A twin and an adapter on one clock; also a `LedgerHarness`."""

    def __init__(self, way: str = "order", *, twin: Mapping[str, Any] | None = None, **settings: object) -> None:
        self.clock = Clock()
        self.twin = SapTwin(clock=self.clock, **{"materials": MATERIALS, **(twin or {})})
        self.settings = {**BASE, **WAYS[way], **settings}
        self._cut: list[Fault] = []
        self.sent: list[httpx.Request] = []
        self.meanwhile: list[tuple[str, Callable[[], object]]] = []
        """What somebody else does just before the next request whose path contains the text."""
        self.restart()

    def restart(self) -> None:
        """Connect anew, as another process would: also without cookies."""
        self.http = httpx.Client(
            transport=transport(("sap.test", self.twin)), event_hooks={"request": [self._sending], "response": []}
        )
        self.ledger: Sap = connect(self.settings, client=self.http, clock=self.clock)

    def _sending(self, request: httpx.Request) -> None:
        self.sent.append(request)
        for each in [each for each in self.meanwhile if each[0] in f"{request.method} {request.url}"][:1]:
            self.meanwhile.remove(each)
            each[1]()

    def requests(self, method: str, part: str = "") -> list[httpx.Request]:
        """Return what was sent by one method to an address that contains *part*."""
        return [each for each in self.sent if each.method == method and part in str(each.url)]

    @property
    def now(self) -> datetime:
        self.clock.advance(minutes=1)
        return self.clock()

    def go_down(self) -> None:
        self._cut.append(Fault("refuse", times=10_000))
        self.twin.faults.plan(*self._cut)

    def come_back(self) -> None:
        for each in self._cut:
            each.times = 0

    def lose_next_answer(self) -> None:
        self.twin.faults.plan(Fault("lost", method="POST"))

    def plant_malformed(self) -> None:
        """Enter an order by hand, bill it, and spoil the document."""
        order = self.twin.add_order("BC-BROKEN")
        document = self.twin.bill_together(order)
        self.twin.post_invoices()
        self.twin.change("document", document, TotalGrossAmount="a lot", TotalNetAmount="?")

    def prepare(self, order: SalesOrder) -> SalesOrder:
        """Give the lines the item numbers they will have in SAP: ten times their places."""
        numbers = tuple(
            ExternalId(self.ledger.system, ev.LINE, line.id, wire.item_number(place))
            for place, line in enumerate(order.lines)
        )
        return order.with_(externals=(*order.externals, *numbers))

    def post(self) -> None:
        self.twin.post_invoices()

    def invoices(self, order_id: str) -> int:
        return len([each for each in self.documents(order_id) if each["AccountingPostingStatus"] == "C"])

    def documents(self, order_id: str = "") -> list[dict[str, Any]]:
        """Return the headers of the invoices (no cancellations) over an order of ours."""
        return [each["head"] for each in self.twin.documents(order_id) if each["head"]["SDDocumentCategory"] == "M"]

    def bill(self, order: SalesOrder | None = None, *lines: str, key: str = "K-1") -> Receipt:
        """Bill an order (by default a shipped one) that SAP takes."""
        return self.ledger.bill(BillingRequest(key, order or shipped(), lines)).unwrap()

    def refused(self, order: SalesOrder | None = None) -> Refused:
        """Bill an order that SAP or the adapter refuses."""
        return self.ledger.bill(BillingRequest("K-1", order or shipped())).failure()

    def pull(self, checkpoint: str = "") -> tuple[list[Message | Rejected], str]:
        """Pull until there is no more."""
        found: list[Message | Rejected] = []
        for _ in range(100):
            pulled = self.ledger.pull(checkpoint, self.now)
            found.extend(pulled.messages)
            checkpoint = pulled.checkpoint
            if not pulled.more:
                return found, checkpoint
        raise AssertionError("the puller never ends")

    def log(self, *methods: str) -> list[tuple[str, str, int]]:
        """Return what the twin was asked, by method."""
        return [each for each in self.twin.faults.log if each[0] in methods]


def shipped(number: str = "BC-1001", *, partly: bool = False, **changes: Any) -> SalesOrder:
    """Return a sample order that has shipped."""
    order = sample_shipped_order(sample_order(number, external_id=number.removeprefix("BC-")), partly=partly)
    return attrs.evolve(order, **changes)


def invoices(messages: Sequence[Message | Rejected]) -> list[Invoiced]:
    """Return the invoices among messages."""
    return [each.body for each in messages if isinstance(each, Message) and isinstance(each.body, Invoiced)]
