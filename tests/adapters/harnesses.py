"""The real adapters as the conformance kit asks for them: each talks to its twin in one process, over the wire.

What the kit does through an adapter goes through the twin's front door; what it looks at or plays goes through the back
doors, so that no promise is checked only by the code that makes it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import httpx

from iom_adapters._demo_link import copy_masters, link
from iom_adapters._twin import Fault, Twin, transport
from iom_adapters.bigcommerce import BigCommerce
from iom_adapters.bigcommerce import connect as connect_bigcommerce
from iom_adapters.bigcommerce.samples import Line, order_of
from iom_adapters.bigcommerce.twin import BigCommerceTwin, Webhooks
from iom_adapters.dataverse import DualWriteOrders
from iom_adapters.dataverse import connect as connect_dataverse
from iom_adapters.dataverse.twin import DataverseTwin
from iom_adapters.engine import Backoff, LocalEngine
from iom_adapters.fno import Fno
from iom_adapters.fno import connect as connect_fno
from iom_adapters.fno.twin import FnoTwin
from iom_adapters.store import SqlStore
from iom_core.order import ExternalId, SalesOrder
from iom_core.testing import VirtualClock
from iom_core.testing.conformance import ScriptedRunner
from iom_core.testing.samples import SAMPLE_AT, SAMPLE_PRODUCTS

SECRET = "a secret of our own"
MINUTE = 60.0


class Wire:
    """The line to a twin, which can be cut, and a clock on which everything takes a minute."""

    def __init__(self, twin: Twin, clock: VirtualClock) -> None:
        self._twin = twin
        self.clock = clock
        self._cut: list[Fault] = []

    @property
    def now(self) -> datetime:
        """Return the time it is for everybody."""
        return self.clock()

    def go_down(self) -> None:
        """Cut every connection before anything is done."""
        self._cut.append(Fault("refuse", times=10_000))
        self._twin.faults.plan(*self._cut)

    def come_back(self) -> None:
        """Cut no more."""
        for each in self._cut:
            each.times = 0
        self._cut.clear()

    def lose_next_answer(self, path: str = "/") -> None:
        """Do the next write below *path*, and cut the connection before the answer."""
        self._twin.faults.plan(Fault("lost", method="POST", path=path))


class Shop(Wire):
    """BigCommerce and its twin."""

    def __init__(self, **settings: Any) -> None:
        clock = VirtualClock(SAMPLE_AT)
        self.sent: list[tuple[dict[str, str], bytes]] = []
        signs = str(settings.get("client_secret", ""))
        self.twin = BigCommerceTwin(now=clock, webhooks=Webhooks(deliver=self._keep, client_secret=signs))
        super().__init__(self.twin, clock)
        self._client = httpx.Client(transport=transport(("shop.test", self.twin)))
        self._settings = {
            "base_url": "https://shop.test",
            "store_hash": self.twin.store_hash,
            "access_token": "test-token",
            **settings,
        }
        self._listen()
        self.restart()

    def restart(self) -> None:
        """Connect anew."""
        self.adapter: BigCommerce = connect_bigcommerce(self._settings, http=self._client, clock=self.clock)

    def _keep(self, _url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.sent.append((dict(headers), body))
        return 204

    def _listen(self) -> None:
        """Register for the shop's notifications, as an operator would."""
        reply = self._client.post(
            f"https://shop.test/stores/{self.twin.store_hash}/v3/hooks",
            headers={"X-Auth-Token": "test-token", "Accept": "application/json"},
            json={
                "scope": "store/order/*",
                "destination": "https://iom.example/webhooks/bigcommerce",
                "is_active": True,
                "headers": {"X-Iom-Webhook-Secret": SECRET},
            },
        )
        assert reply.status_code == 200, reply.text


class ShopSource(Shop):
    """BigCommerce as an `OrderSource`; *settings* say by which secrets it checks notifications, if by any."""

    @property
    def source(self) -> BigCommerce:
        """Return the adapter."""
        return self.adapter

    def place(self, units: int) -> str:
        """Place a paid order as a shopper would."""
        self.clock.advance(MINUTE)
        return str(self.twin.place(order_of([Line("Chair", 2_500, units, "CHAIR", 1)], placed=self.clock())))

    def plant_malformed(self) -> None:
        """Place an order with a quantity nobody can read."""
        self.clock.advance(MINUTE)
        order = order_of([Line("Chair", 2_500, 1, "CHAIR", 1)], placed=self.clock())
        (line,) = order["products"]
        self.twin.place({**order, "products": [{**line, "quantity": "a few"}]})

    def delivery(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return what the shop sent about that order."""
        return next(each for each in self.sent if json.loads(each[1])["data"]["id"] == int(number))

    def forged(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return the same from somebody who knows everything but the secrets."""
        headers, body = self.delivery(number)
        guessed = {"x-iom-webhook-secret": "a guess", "webhook-signature": "v1,Z3Vlc3NlZA=="}
        return {name: guessed.get(name.lower(), value) for name, value in headers.items()}, body


class ShopSink(Shop):
    """BigCommerce as a `StatusSink`."""

    @property
    def sink(self) -> BigCommerce:
        """Return the adapter."""
        return self.adapter

    def lose_next_answer(self, path: str = "/shipments") -> None:
        """Lose the answer to the first shipment."""
        super().lose_next_answer(path)

    def place(self, order: SalesOrder) -> SalesOrder:
        """Put the sample order into the shop, and return it with the shop's numbers of its lines and addresses."""
        number = int(order.external(self.sink.system) or 0)
        lines = [
            Line(
                each.name,
                int(each.total.amount * 100 / each.ordered.amount),
                int(each.ordered.amount),
                each.product,
                index,
                kind="digital" if each.digital else "physical",
            )
            for index, each in enumerate(order.lines, 1)
        ]
        placed = self.twin.place(order_of(lines, shipping=(500,), placed=self.clock(), number=number))
        assert placed == number
        rows = self.twin.products(number)
        externals = [each for each in order.externals if each.entity != "order line"]
        externals += [
            ExternalId(self.sink.system, "order line", line.id, str(row["id"])) for line, row in zip(order.lines, rows)
        ]
        addressed = tuple(
            attrs.evolve(line, external_address=str(row["order_address_id"])) for line, row in zip(order.lines, rows)
        )
        return order.with_(externals=tuple(externals), lines=addressed)

    def changes(self, order: SalesOrder) -> int:
        """Return how often its status was set since it was placed."""
        return self.twin.status_changes(self._number(order))

    def shipments(self, order: SalesOrder) -> int:
        """Return how many shipments the shop shows."""
        return len(self.twin.shipments(self._number(order)))

    def _number(self, order: SalesOrder) -> int:
        return int(order.external(self.sink.system) or 0)


class Office(Wire):
    """The people of F&O, whatever way orders come to it."""

    def __init__(self, fno: FnoTwin, line: Twin, clock: VirtualClock) -> None:
        super().__init__(line, clock)
        self.fno = fno

    def count(self) -> int:
        """Return how many sales orders F&O has."""
        return len(self.fno.orders())

    def lines(self, order_id: str) -> Sequence[tuple[str, Decimal]]:
        """Return product and quantity of each line of our order."""
        return [
            (str(each["ItemNumber"]), Decimal(str(each["OrderedSalesQuantity"])))
            for each in self.fno.lines(self._number(order_id))
        ]

    def block(self, product: str, why: str) -> None:
        """Block an item for sales, or free it; F&O's reason is its own."""
        self.fno.block_item(product, bool(why))

    def work(self) -> None:
        """Let everybody do one step: pick, then pack, then invoice."""
        self.clock.advance(MINUTE)
        self.fno.staff_step()

    def cancel(self, order_id: str) -> None:
        """Cancel our order in F&O."""
        self.clock.advance(MINUTE)
        self.fno.cancel(self._number(order_id))

    def _number(self, order_id: str) -> str:
        """Return F&O's number of our order."""
        (entered,) = self.fno.orders(order_id)
        return str(entered["SalesOrderNumber"])


class FnoOrders(Office):
    """F&O over OData and its twin, as `ErpOrders`; *settings* are the adapter's."""

    def __init__(self, *, bi_entities: bool = True, page_size: int = 10_000, **settings: Any) -> None:
        clock = VirtualClock(SAMPLE_AT)
        fno = FnoTwin.demo(SAMPLE_PRODUCTS, clock=clock, bi_entities=bi_entities, page_size=page_size)
        super().__init__(fno, fno, clock)
        self._client = httpx.Client(transport=transport(("fno.test", fno)))
        self._settings = {
            "base_url": "https://fno.test",
            "token_url": "https://fno.test/t/oauth2/v2.0/token",
            "client_id": "iom",
            "client_secret": "secret",
            "bi_entities": bi_entities,
            **settings,
        }
        self.restart()

    def restart(self) -> None:
        """Connect anew."""
        self.orders: Fno = connect_fno(self._settings, client=self._client, clock=self.clock)

    def lose_next_answer(self, path: str = "/data/") -> None:
        """Lose the answer to the header."""
        super().lose_next_answer(path)

    def plant_malformed(self) -> None:
        """Post a credit note for an order that looks like one of ours: it can't be taken over."""
        self.clock.advance(MINUTE)
        number = self.fno.enter(
            "usmf",
            [{"ItemNumber": "CHAIR", "OrderedSalesQuantity": 1, "ShippingSiteId": "1", "ShippingWarehouseId": "11"}],
            OrderingCustomerAccountNumber="US-001",
            CustomersOrderReference="BC-7",
        )
        posted = f"usmf/{self.fno.invoice(number)}"
        books = self.fno._documents
        invoice = books.get("invoice", posted)
        assert invoice is not None
        books.put(
            "invoice",
            posted,
            {**invoice, "_lines": [{**each, "InvoicedQuantity": -1} for each in invoice["_lines"]]},
        )


class SharedOrders(Office):
    """Dataverse with dual-write to F&O and both twins, as `ErpOrders`; *settings* are the adapter's."""

    def __init__(self, **settings: Any) -> None:
        clock = VirtualClock(SAMPLE_AT)
        fno = FnoTwin.demo(SAMPLE_PRODUCTS, clock=clock)
        self.dataverse = DataverseTwin(clock=clock)
        copy_masters(self.dataverse, fno)
        link(self.dataverse, fno)
        super().__init__(fno, self.dataverse, clock)
        self._client = httpx.Client(transport=transport(("dv.test", self.dataverse)))
        self._settings = {
            "base_url": "https://dv.test",
            "token_url": "https://dv.test/t/oauth2/v2.0/token",
            "client_id": "iom",
            "client_secret": "secret",
            **settings,
        }
        self.restart()

    def restart(self) -> None:
        """Connect anew."""
        self.orders: DualWriteOrders = connect_dataverse(self._settings, client=self._client, clock=self.clock)

    def lose_next_answer(self, path: str = "/api/") -> None:
        """Lose the answer to the first batch, which holds the header."""
        super().lose_next_answer(path)

    def plant_malformed(self) -> None:
        """Put in an invoice without a number."""
        self.clock.advance(MINUTE)
        order = self.dataverse.add("salesorders", msdyn_salesordernumber="BC-7", name="BC-7")
        self.dataverse.add("invoices", _salesorderid_value=order, name="no number")

    def _number(self, order_id: str) -> str:
        return order_id


class Sql:
    """A `SqlStore` on a SQLite file."""

    threads = True

    def __init__(self, file: Path) -> None:
        self._url = f"sqlite:///{file}"
        self.store = SqlStore.open(self._url)

    def restart(self) -> None:
        """Close the file and open it again."""
        self.store.close()
        self.store = SqlStore.open(self._url)


class LocalEngineOnSql:
    """The local engine with short waits, on a SQLite file."""

    def __init__(self, file: Path) -> None:
        self.store = SqlStore.open(f"sqlite:///{file}")
        self.runner = ScriptedRunner(self.store)
        self.engine = LocalEngine(
            self.store,
            self.runner,
            chance=random.Random(7),
            backoff=Backoff(0.01, 0.05),
            lease_for=timedelta(seconds=30),
            poll=0.02,
        )

    def close(self) -> None:
        """Stop the engine and close the file."""
        self.engine.stop()
        self.store.close()
