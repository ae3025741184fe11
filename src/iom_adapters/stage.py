"""The stage of the demo: for a scenario, the stand-ins of its systems as HTTP servers, their people, and the adapters.

This is a composition root to read and to copy: every adapter is connected here as one would connect it to the real
system. What people outside do (place orders, pick, ship, post invoices) is done to the twins through their back doors.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import attrs
import httpx

from iom_adapters import dataverse, flexe, inventory_visibility, sap
from iom_adapters._clock import utc_now
from iom_adapters._demo_link import copy_masters, link
from iom_adapters._twin import Serving, Twin, serve
from iom_adapters.bigcommerce import connect as connect_bigcommerce
from iom_adapters.bigcommerce import samples
from iom_adapters.bigcommerce.twin import BigCommerceTwin, Webhooks
from iom_adapters.bigcommerce.wire import Status
from iom_adapters.dataverse.twin import DataverseTwin
from iom_adapters.flexe.protocol import PLACEHOLDER
from iom_adapters.flexe.twin import FlexeTwin
from iom_adapters.fno import connect as connect_fno
from iom_adapters.fno.office import Item
from iom_adapters.fno.twin import FnoTwin
from iom_adapters.inventory_visibility.twin import InventoryVisibilityTwin
from iom_adapters.sap.twin import ORDER_BILLED, Material, SapTwin
from iom_core import providers as prov
from iom_core import scenarios
from iom_core.allocation import Source
from iom_core.decide import Setup, open_total
from iom_core.flow import FlowStatus
from iom_core.mapping import IdMapping, MappingRow
from iom_core.orchestrator import Orchestrator
from iom_core.order import SalesOrder
from iom_core.ports import OrderStore
from iom_core.providers import Provider
from iom_core.scenarios import Scenario
from iom_core.values import SourceId, System

WEBHOOK_SECRET: Final = "demo-webhook-secret"
FLEXE_HEADER: Final = "X-Demo-Token"
CUSTOM: Final = "CUSTOM"
"""The ERP's item that custom products of the shop are booked on."""
ERP_PREFIX: Final = "00"
"""How the numbers of orders begin that are entered in the ERP's first company."""
GUESTS: Final = {"usmf": "US-WEB", "demf": "DE-WEB"}
PREFIXES: Final = {scenarios.BIGCOMMERCE: "BC-", scenarios.FNO: "FO-"}
TOLD: Final = {"shipped": Status.SHIPPED, "completed": Status.COMPLETED}

SOURCES: Final = (
    Source(SourceId("Reno"), "1", "11", 1),
    Source(SourceId("Sparks"), "1", "12", 2),
)
"""The sources of the scenario that optimizes."""
RESTOCKED_AFTER: Final = 6
"""After how many steps of work the goods arrive that some orders wait for."""


def mapping() -> IdMapping:
    """Return the demo's product mapping: the shop's SKUs are the ERP's items, custom products are one item."""
    products = {each.sku: each.sku for each in samples.CATALOG}
    products |= {f"custom:{name}": CUSTOM for name in samples.CUSTOM_NAMES}
    shop = System(scenarios.BIGCOMMERCE)
    rows = tuple(MappingRow(shop, "products", "sku", value, internal) for value, internal in products.items())
    return IdMapping(rows)


@attrs.define
class Stage:
    """The systems of one scenario. State in *folder* survives a killed process; `close` stops the servers.

    *halves* has the ERP deliver every third order in two parts. *providers* are what the orchestrator is given,
    *people* what everybody outside does in one step.
    """

    scenario: Scenario
    folder: Path
    halves: bool = False
    shop: BigCommerceTwin | None = None
    erp: FnoTwin = attrs.field(init=False)
    providers: list[Provider] = attrs.field(factory=list)
    people: list[Callable[[], object]] = attrs.field(factory=list)
    receiver_url: str = ""
    _served: dict[str, Serving] = attrs.field(factory=dict)
    _twins: dict[str, Twin] = attrs.field(factory=dict)
    _closing: list[Callable[[], object]] = attrs.field(factory=list)
    _billed_in_sap: Callable[[str], int] | None = None
    _placed_at_flexe: Callable[[], list[str]] | None = None
    _steps: int = 0
    _late: list[Callable[[OrderStore], Provider]] = attrs.field(factory=list)
    """Connections that need the store."""

    @classmethod
    def of(cls, scenario: Scenario, folder: Path, halves: bool = False) -> Stage:
        """Start the scenario's systems."""
        folder.mkdir(parents=True, exist_ok=True)
        stage = cls(scenario, folder, halves)
        stage.providers.append(prov.internal())
        if scenario.channel == scenarios.BIGCOMMERCE:
            stage._open_shop()
        stage._open_erp(dual_write=scenario.channel == scenarios.FNO)
        if scenario.fulfiller == scenarios.FLEXE:
            stage._open_flexe()
        if scenario.ledger == scenarios.SAP:
            stage._open_sap()
        if scenario.optimized:
            stage._open_inventory()
        return stage

    # -- the systems ---------------------------------------------------------------------------------------------------

    def _serve(self, name: str, twin: Twin, close: Callable[[], object]) -> str:
        self._twins[name] = twin
        self._served[name] = serve(twin)
        self._closing.append(close)
        return self._served[name].url

    def _open_shop(self) -> None:
        post = httpx.Client(timeout=5.0)
        self._closing.append(post.close)

        def deliver(_url: str, headers: Mapping[str, str], body: bytes) -> int:
            # On this machine there is no HTTPS on port 443 to send a notification to.
            try:
                return post.post(self.receiver_url, headers=dict(headers), content=body).status_code
            except (httpx.HTTPError, httpx.InvalidURL):
                return 503

        twin = BigCommerceTwin(path=self.folder / "bigcommerce.db", quota=1_000_000, webhooks=Webhooks(deliver=deliver))
        url = self._serve(scenarios.BIGCOMMERCE, twin, twin.close)
        shop = connect_bigcommerce(
            {
                "base_url": url,
                "store_hash": twin.store_hash,
                "access_token": "test-token",
                "webhook_secret": WEBHOOK_SECRET,
            }
        )
        self._closing.append(shop.close)
        self.shop = twin
        self.providers.append(prov.channel(shop, shop))

    def _open_erp(self, *, dual_write: bool) -> None:
        lock = threading.RLock()
        items = [Item(each.sku, each.name, price=Decimal(each.cents) / 100) for each in samples.CATALOG]
        self.erp = FnoTwin.demo([*items, Item(CUSTOM, "Custom product")], path=self.folder / "fno.db", lock=lock)
        if scenarios.FNO in (self.scenario.fulfiller, self.scenario.ledger):
            self.people.append(self._work_in_the_erp)
        if dual_write:
            self._open_dual_write(lock)
            return
        url = self._serve(scenarios.FNO, self.erp, self.erp.close)
        erp = connect_fno(
            {
                "base_url": url,
                "token_url": f"{url}/demo/oauth2/v2.0/token",
                "client_id": "iom",
                "client_secret": "secret",
                "guests": GUESTS,
            }
        )
        self.providers.append(prov.erp(erp, erp))

    def _open_dual_write(self, lock: threading.RLock) -> None:
        """Orders come from the ERP: what it commits, Dataverse has, and the adapter talks to Dataverse alone."""
        self._closing.append(self.erp.close)
        twin = DataverseTwin(path=self.folder / "dataverse.db", lock=lock)
        copy_masters(twin, self.erp)
        link(twin, self.erp)
        url = self._serve("dataverse", twin, twin.close)
        shared = dataverse.connect(
            {
                "base_url": url,
                "token_url": f"{url}/demo/oauth2/v2.0/token",
                "client_id": "iom",
                "client_secret": "secret",
                "system": scenarios.FNO,
                "erp_prefix": ERP_PREFIX,
                "number_prefix": "BC-",
            }
        )
        self.providers.append(prov.erp(shared))

    def _open_flexe(self) -> None:
        """A warehouse network. Its protocol isn't public: both sides speak the placeholder, which nobody verified."""
        twin = FlexeTwin(PLACEHOLDER, auth_header=FLEXE_HEADER, path=self.folder / "flexe.db")
        url = self._serve(scenarios.FLEXE, twin, twin.close)
        self.people.append(twin.staff_step)
        self._placed_at_flexe = twin.placed
        intents = flexe.IntentFile(self.folder / "flexe-intents.jsonl")
        settings = {
            "base_url": url,
            "token": "test-token",
            "auth_header": FLEXE_HEADER,
            "protocol": PLACEHOLDER,
            "calls_per_minute": 1_000_000,
            "settle": 0,
        }

        def connect(store: OrderStore) -> Provider:
            ships = flexe.connect(settings, open_orders=flexe.open_orders(store), intents=intents)
            return prov.fulfiller(ships, ships)

        self._late.append(connect)

    def _open_sap(self) -> None:
        """The books in SAP, order-related billing; manual prices, so that the totals can be compared to the cent."""
        goods = {each.sku: Material(Decimal(1), ORDER_BILLED) for each in samples.CATALOG}
        twin = SapTwin(self.folder / "sap.db", materials=goods)
        url = self._serve(scenarios.SAP, twin, twin.close)
        user, password = twin.user
        books = sap.connect(
            {
                "base_url": url,
                "user": user,
                "password": password,
                "sap_client": twin.client,
                "order_type": "OR",
                "item_category": ORDER_BILLED,
                "sales_areas": {"": "1710/10/00"},
                "guest": "17100001",
                "price_condition": "ZGRS",
            }
        )
        self._closing.append(books.close)
        self.people.append(twin.post_invoices)
        self._billed_in_sap = lambda reference: len(twin.orders(reference))
        self.providers.append(prov.ledger(books, books))

    def _open_inventory(self) -> None:
        """Stock by source. At first there is little of everything: some lines wait until goods arrive."""
        twin = InventoryVisibilityTwin(path=self.folder / "inventory.db")
        url = self._serve("inventory-visibility", twin, twin.close)
        stock = inventory_visibility.connect(
            {
                "base_url": url,
                "environment": twin.environment,
                "token_url": f"{url}/{twin.tenant}/oauth2/v2.0/token",
                "security_url": f"{url}/token",
                "client_id": "iom",
                "client_secret": "secret",
                "sources": {
                    each.id: {"organization": "usmf", "site": each.site, "location": each.warehouse} for each in SOURCES
                },
                "book_path": str(self.folder / "reservations.db"),
            }
        )
        self.providers.append(prov.optimizer(stock, SOURCES))
        goods = [each.sku for each in samples.CATALOG if not each.digital] + [CUSTOM]
        first, second = SOURCES

        def arrive() -> None:
            """Bring a little at the beginning and, when work has gone on for a while, enough for everybody."""
            self._steps += 1
            source, quantity = {1: (first, 40), RESTOCKED_AFTER: (second, 100_000)}.get(self._steps, (first, 0))
            for sku in goods if quantity else ():
                twin.put("usmf", source.site, source.warehouse, sku, quantity)

        self.people.append(arrive)

    # -- what people do ------------------------------------------------------------------------------------------------

    def place(self, orders: int, seed: int) -> None:
        """Put orders into the scenario's channel until it has so many; the same seed gives the same orders."""
        for number in range(self.placed(), orders):
            rng = random.Random(f"{seed}/{number}")  # noqa: S311 - samples, not secrets
            if self.shop is None:
                self._enter(rng)
            elif number < len(samples.recorded_orders()):
                self.shop.place({**samples.recorded_orders()[number], "status_id": Status.AWAITING_FULFILLMENT})
            else:
                self.shop.place(samples.generate_order(rng, number))

    def placed(self) -> int:
        """Return how many orders the channel has."""
        return len(self.erp.orders()) if self.shop is None else len(self.shop.orders())

    def _enter(self, rng: random.Random) -> None:
        """Enter an order in the ERP and confirm it."""
        goods = rng.sample([each for each in samples.CATALOG if not each.digital], rng.randint(1, 4))
        lines = [
            {
                "ItemNumber": each.sku,
                "OrderedSalesQuantity": rng.randint(1, 5),
                "SalesPrice": float(Decimal(each.cents) / 100),
                "ShippingSiteId": "1",
                "ShippingWarehouseId": "11",
            }
            for each in goods
        ]
        header = {
            "OrderingCustomerAccountNumber": "US-001",
            "CurrencyCode": "USD",
            "IsDeliveryAddressOrderSpecific": "Yes",
            "DeliveryAddressName": rng.choice(("Ada Byron", "Łukasz Żółć", "佐藤 陽子")),
            "DeliveryAddressStreet": f"{rng.randint(1, 99)} Engine Way",
            "DeliveryAddressCity": "Austin",
            "DeliveryAddressStateId": "TX",
            "DeliveryAddressZipCode": "78701",
            "DeliveryAddressCountryRegionId": "USA",
        }
        with self.erp.transaction():
            self.erp.confirm(self.erp.enter("usmf", lines, **header))

    def work(self, _now: object = None) -> None:
        """Let everybody outside do one step."""
        for each in self.people:
            each()

    def _work_in_the_erp(self) -> None:
        if self.halves:
            self._ship_halves()
        self.erp.staff_step()

    def _ship_halves(self) -> None:
        """Deliver only one unit of every third order that has just been picked."""
        for order in self.erp.orders():
            number = str(order["SalesOrderNumber"])
            digits = int("".join(filter(str.isdigit, number)))
            if order["SalesOrderProcessingStatus"] == "Picked" and digits % 3 == 0:
                lines = self.erp.lines(number)
                if lines[0]["OrderedSalesQuantity"] > 1 or len(lines) > 1:
                    self.erp.pack(number, {str(lines[0]["InventoryLotId"]): 1}, company=str(order["dataAreaId"]))

    # -- what the orchestrator needs, and what is compared in the end ------------------------------------------------

    def orchestrator(self, store: OrderStore) -> Orchestrator:
        """Wire the scenario: its flow, its policies, its providers."""
        self.providers += [connect(store) for connect in self._late]
        self._late.clear()
        providers = {each.name: each for each in self.providers}
        setup = Setup(
            (attrs.evolve(self.scenario.flow, status=FlowStatus.PUBLISHED),),
            prov.catalog(providers, self.scenario.policies),
            mapping=mapping(),
            prefixes=PREFIXES,
        )
        return Orchestrator(store, setup, providers, utc_now)

    def calls(self) -> dict[str, int]:
        """Return how many HTTP requests each system answered."""
        return {name: twin.faults.calls for name, twin in self._twins.items()}

    def problems(self, order: SalesOrder) -> Iterator[str]:
        """Compare an order with the end its scenario documents, and with what every system holds of it."""
        yield from end_problems(order)
        yield from self._problems_in_the_erp(order)
        if self._placed_at_flexe is not None:
            placed = Counter(self._placed_at_flexe())
            for fo in order.fulfillment_orders:
                if placed[fo.id] != 1:
                    yield f"{fo.id} is {placed[fo.id]} times at Flexe"
        if self._billed_in_sap is not None and self._billed_in_sap(order.id) != 1:
            yield f"{order.id} is {self._billed_in_sap(order.id)} times in SAP"
        if self.shop is not None:
            yield from self._problems_in_the_shop(order, self.shop)

    def _problems_in_the_erp(self, order: SalesOrder) -> Iterator[str]:
        number = order.external(System(scenarios.FNO))
        if self.scenario.channel != scenarios.FNO:
            entered = [str(each["SalesOrderNumber"]) for each in self.erp.orders(order.id)]
            if entered != [number]:
                yield f"{order.id} is known as {number}, and entered in the ERP as {entered}"
                return
        if number and self.scenario.fulfiller == scenarios.FNO:
            slips = self.erp.slips(number)
            if len(slips) != len(order.shipments):
                yield f"{order.id}: {len(slips)} packing slips, {len(order.shipments)} shipments here"
        if number and self.scenario.ledger == scenarios.FNO:
            invoices = self.erp.invoices(number)
            if len(invoices) != len(order.invoices):
                yield f"{order.id}: {len(invoices)} invoices in the ERP, {len(order.invoices)} here"

    def _problems_in_the_shop(self, order: SalesOrder, shop: BigCommerceTwin) -> Iterator[str]:
        shop_id = int(order.external(order.channel) or 0)
        told = [each for each in shop.status_history(shop_id)[1:] if each != Status.PARTIALLY_SHIPPED]
        wanted = [TOLD[each] for each in self.scenario.told]
        if told != wanted:
            yield f"{order.id}: the shop was told {told}, not {wanted}"
        shipped: Counter[int] = Counter()
        for shipment in shop.shipments(shop_id):
            for item in shipment["items"]:
                shipped[item["order_product_id"]] += item["quantity"]
        for product in shop.products(shop_id):
            due = product["quantity"] if product["type"] == "physical" and product["order_address_id"] else 0
            if shipped[product["id"]] != due:
                yield f"{order.id}: the shop has {shipped[product['id']]} of {due} {product['sku']} shipped"

    def close(self) -> None:
        """Stop serving, and close every file and connection."""
        for served in self._served.values():
            served.close()
        for close in self._closing:
            close()


def end_problems(order: SalesOrder) -> Iterator[str]:
    """Say what keeps an order from the documented end: completed, everything shipped, invoiced to the cent."""
    if (order.status.state, order.status.reason) != ("Completed", "Fulfilled"):
        yield f"{order.id} ended {order.status.state} / {order.status.reason}"
    wanted = open_total(order)
    if wanted is not None and order.invoiced_total.amount != wanted:
        yield f"{order.id} was ordered for {order.total} and invoiced for {order.invoiced_total}"
    for line in order.lines:
        shipped = order.shipped(line.id)
        if shipped != line.quantity and not (line.digital and shipped == 0):
            yield f"{order.id} line {line.id}: {shipped} of {line.quantity} shipped"
