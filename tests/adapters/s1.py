"""S1 in one process: the real adapters over their twins' own protocol, a virtual clock, and no threads."""

from __future__ import annotations

import random
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs
import httpx

from iom_adapters._twin import Fault as Misbehavior
from iom_adapters._twin import transport
from iom_adapters.bigcommerce import connect as connect_bigcommerce
from iom_adapters.bigcommerce import samples
from iom_adapters.bigcommerce.twin import BigCommerceTwin, Webhooks
from iom_adapters.engine.local import LocalEngine
from iom_adapters.fno import connect as connect_fno
from iom_adapters.fno.office import Item
from iom_adapters.fno.twin import FnoTwin
from iom_adapters.stage import CUSTOM, mapping
from iom_core import providers as prov
from iom_core import scenarios
from iom_core.decide import Setup
from iom_core.errors import Fault
from iom_core.flow import FlowStatus
from iom_core.orchestrator import Orchestrator
from iom_core.order import SalesOrder
from iom_core.ports import OrderStore
from iom_core.testing import MemoryStore, VirtualClock
from iom_core.testing.world import START
from iom_core.values import System

SECRET = "a secret of our own"
SHOP, ERP = System("bigcommerce"), System("fno")


class S1:
    """A shop, an ERP and an orchestrator between them; `run` takes everything to its end."""

    def __init__(
        self, store: OrderStore | None = None, *, shop_moves_status: bool = False, erp_secret: str = ""
    ) -> None:
        self.clock = VirtualClock(START)
        self.hooks: list[tuple[dict[str, str], bytes]] = []
        self.shop = BigCommerceTwin(
            now=self.clock,
            shipments_move_status=shop_moves_status,
            webhooks=Webhooks(deliver=self._keep),
        )
        items = [Item(each.sku, each.name, price=Decimal(each.cents) / 100) for each in samples.CATALOG]
        self.erp = FnoTwin.demo([*items, Item(CUSTOM)], clock=self.clock)
        client = httpx.Client(transport=transport(("shop.test", self.shop), ("fno.test", self.erp)))
        shop = connect_bigcommerce(
            {
                "base_url": "https://shop.test",
                "store_hash": self.shop.store_hash,
                "access_token": "test-token",
                "webhook_secret": SECRET,
            },
            http=client,
            clock=self.clock,
        )
        erp = connect_fno(
            {
                "base_url": "https://fno.test",
                "token_url": "https://fno.test/t/oauth2/v2.0/token",
                "client_id": "iom",
                "client_secret": "secret",
                "guests": {"usmf": "US-WEB", "demf": "DE-WEB"},
                "webhook_secret": erp_secret,
            },
            client=client,
            clock=self.clock,
        )
        providers = {each.name: each for each in (prov.internal(), prov.channel(shop, shop), prov.erp(erp, erp))}
        scenario = scenarios.BIGCOMMERCE_FNO_FNO
        setup = Setup(
            (attrs.evolve(scenario.flow, status=FlowStatus.PUBLISHED),),
            prov.catalog(providers, scenario.policies),
            mapping=mapping(),
            prefixes={SHOP: "BC-"},
        )
        self.store: OrderStore = MemoryStore() if store is None else store
        self.orchestrator = Orchestrator(self.store, setup, providers, self.clock)
        self.engine = LocalEngine(
            self.store, self.orchestrator, chance=random.Random(1), limits=self.orchestrator.limits, clock=self.clock
        )

    def _keep(self, _url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.hooks.append((dict(headers), body))
        return 204

    def register_hook(self) -> None:
        """Register the shop's notifications, as an operator would."""
        client = httpx.Client(transport=transport(("shop.test", self.shop)))
        for scope in ("store/order/*", "store/shipment/*"):
            reply = client.post(
                f"https://shop.test/stores/{self.shop.store_hash}/v3/hooks",
                headers={"X-Auth-Token": "test-token", "Accept": "application/json"},
                json={
                    "scope": scope,
                    "destination": "https://iom.example/webhooks/bigcommerce",
                    "is_active": True,
                    "headers": {"X-Iom-Webhook-Secret": SECRET},
                },
            )
            assert reply.status_code == 200, reply.text

    def notify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Bring a notification to the orchestrator, and follow what it hints at."""
        numbers = self.orchestrator.webhook(SHOP, {name.lower(): value for name, value in headers.items()}, body)
        for number in numbers.unwrap():
            self.try_(lambda number=number: self.orchestrator.follow(SHOP, number))

    def place(self, *orders: Mapping[str, Any]) -> list[int]:
        """Put orders into the shop."""
        return [self.shop.place(order) for order in orders]

    def try_(self, call: Any) -> None:
        """Call something that may meet a planned fault; the next round tries again."""
        try:
            call()
        except Fault:
            self.clock.advance(30)

    def round(self) -> bool:
        """Pull, run commands, let the ERP's people work; says whether anything moved."""
        before = self.state()
        self.try_(lambda: self.orchestrator.pull(SHOP))
        self.try_(lambda: self.orchestrator.pull(ERP))
        ran = self.engine.run_due()
        self.clock.advance(60)
        worked = self.erp.staff_step()
        return bool(ran or worked or self.store.next_due() is not None or self.state() != before)

    def state(self) -> tuple[tuple[str, int], ...]:
        """Return each order's version: whether anything moved."""
        return tuple((order.id, order.version) for order in self.store.orders())

    def run(self, most: int = 200) -> None:
        """Run until nothing moves."""
        quiet = 0
        for _ in range(most):
            quiet = 0 if self.round() else quiet + 1
            if quiet == 2:
                return
        raise AssertionError("S1 did not come to rest")

    def plan(self, *faults: Misbehavior, at: str = "shop") -> None:
        """Have the shop or the ERP misbehave."""
        (self.shop if at == "shop" else self.erp).faults.plan(*faults)

    def outcome(self) -> dict[str, Any]:
        """Return everything that must not depend on how messages came: orders, and what both twins hold."""
        return {order.id: self.outcome_of(order) for order in self.store.orders()}

    def outcome_of(self, order: SalesOrder) -> dict[str, Any]:
        """Return one order's outcome."""
        shop_id = int(order.external(SHOP) or 0)
        entered = self.erp.orders(order.id)
        number = str(entered[0]["SalesOrderNumber"]) if entered else ""
        return {
            "status": (order.status.state, order.status.reason),
            "shipments": [len(each.lines) for each in order.shipments],
            "invoices": [each.total for each in order.invoices],
            "parked": len(order.parked),
            "entered": len(entered),
            "lines": len(self.erp.lines(number)) if number else 0,
            "slips": len(self.erp.slips(number)) if number else 0,
            "posted": len(self.erp.invoices(number)) if number else 0,
            "told": self.shop.status_history(shop_id)[1:],
            "parcels": sorted(
                (item["order_product_id"], item["quantity"])
                for parcel in self.shop.shipments(shop_id)
                for item in parcel["items"]
            ),
        }
