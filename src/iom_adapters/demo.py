"""The demo: a shop and an ERP as HTTP servers on this machine, and orders orchestrated through them to their end.

What stands in for the remote systems are their twins; the library on this side of HTTP is the one users run.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import httpx

from iom_adapters import web
from iom_adapters._clock import utc_now
from iom_adapters._twin import Serving, serve
from iom_adapters.bigcommerce import samples
from iom_adapters.bigcommerce.adapter import BigCommerce
from iom_adapters.bigcommerce.adapter import connect as connect_bigcommerce
from iom_adapters.bigcommerce.twin import BigCommerceTwin, Webhooks
from iom_adapters.engine.local import LocalEngine
from iom_adapters.fno import Fno
from iom_adapters.fno import connect as connect_fno
from iom_adapters.fno.office import Item
from iom_adapters.fno.twin import FnoTwin
from iom_adapters.store.sql import SqlStore
from iom_core import providers as prov
from iom_core import scenarios
from iom_core.decide import Setup, open_total
from iom_core.errors import Misconfigured
from iom_core.flow import FlowStatus
from iom_core.mapping import IdMapping, MappingRow
from iom_core.orchestrator import Orchestrator
from iom_core.order import SalesOrder
from iom_core.ports import OrderStore
from iom_core.retry import ActionLimits
from iom_core.scenarios import Scenario
from iom_core.testing import World
from iom_core.values import System

WEBHOOK_SECRET: Final = "demo-webhook-secret"
CUSTOM: Final = "CUSTOM"
"""The ERP's item that custom products of the shop are booked on."""
STALLED_AFTER: Final = 60.0
"""Seconds without any change after which the demo gives up and says what it sees."""


@attrs.frozen
class Progress:
    """How far the demo is."""

    orders: int
    by_state: Mapping[str, int]
    completed: int


Report = Callable[[Progress], None]


@attrs.frozen
class DemoResult:
    """What the demo did; `as_json` is what ``iom demo --json`` prints."""

    scenario: str
    orders: int
    completed: int
    held: int
    errors: int
    http_calls: Mapping[str, int]
    seconds: float
    details: tuple[Mapping[str, Any], ...]
    problems: tuple[str, ...]
    """What did not reach the end that the scenario documents; empty is success."""

    def as_json(self) -> dict[str, Any]:
        """Return the documented JSON document."""
        return {
            "scenario": self.scenario,
            "orders": self.orders,
            "completed": self.completed,
            "held": self.held,
            "errors": self.errors,
            "http_calls": dict(self.http_calls),
            "seconds": round(self.seconds, 3),
            "orders_detail": [dict(each) for each in self.details],
            "problems": list(self.problems),
        }


def run(
    scenario: Scenario,
    orders: int,
    seed: int,
    store_url: str = "",
    report: Report = lambda _: None,
    halves: bool = False,
) -> DemoResult:
    """Run *orders* through *scenario* to its end. With *store_url* an interrupted run goes on where it was.

    S1 runs over HTTP against twins. The other scenarios run in memory for now, on the same core: their ``http_calls``
    are empty. *halves* has the ERP ship every third order in two deliveries.
    """
    if orders < 0:
        raise ValueError(f"the number of orders can't be {orders}")
    if scenario is scenarios.BIGCOMMERCE_FNO_FNO:
        return _over_http(scenario, orders, seed, store_url, report, halves)
    if store_url:
        raise ValueError(f"scenario {scenario.id} runs in memory: only S1 can be kept in a store for now")
    return _in_memory(scenario, orders, seed, report)


# -- S1 over HTTP ------------------------------------------------------------------------------------------------------


class Stage:
    """The shop's and the ERP's twins with their people, as servers; state in *folder* survives a killed process."""

    def __init__(self, folder: Path, halves: bool = False) -> None:
        self.halves = halves
        self.receiver_url = ""
        self._post = httpx.Client(timeout=5.0)
        self.shop = BigCommerceTwin(
            path=folder / "bigcommerce.db", quota=1_000_000, webhooks=Webhooks(deliver=self._deliver)
        )
        items = [Item(each.sku, each.name, price=Decimal(each.cents) / 100) for each in samples.CATALOG]
        self.erp = FnoTwin.demo([*items, Item(CUSTOM, "Custom product")], path=folder / "fno.db")
        self.served: dict[str, Serving] = {"bigcommerce": serve(self.shop), "fno": serve(self.erp)}

    def _deliver(self, _url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Bring a notification to the receiver: on this machine there is no HTTPS on port 443 to send it to."""
        if not self.receiver_url:
            return 503
        try:
            return self._post.post(self.receiver_url, headers=dict(headers), content=body).status_code
        except httpx.HTTPError:
            return 503

    def place(self, orders: int, seed: int) -> None:
        """Put orders into the shop until it has so many: the recorded examples first, then generated ones."""
        recorded = samples.recorded_orders()
        for number in range(len(self.shop.orders()), orders):
            if number < len(recorded):
                self.shop.place({**recorded[number], "status_id": 11})
            else:
                self.shop.place(samples.generate_order(random.Random(f"{seed}/{number}"), number))  # noqa: S311 - samples

    def work(self, _now: datetime) -> None:
        """Let the ERP's people do one step on every order."""
        if self.halves:
            self._ship_halves()
        self.erp.staff_step()

    def _ship_halves(self) -> None:
        """Deliver only part of every third order that has just been picked."""
        for order in self.erp.orders():
            number = str(order["SalesOrderNumber"])
            if order["SalesOrderProcessingStatus"] == "Picked" and int("".join(filter(str.isdigit, number))) % 3 == 0:
                first = self.erp.lines(number)[0]
                if first["OrderedSalesQuantity"] > 1 or len(self.erp.lines(number)) > 1:
                    self.erp.pack(number, {str(first["InventoryLotId"]): 1}, company=str(order["dataAreaId"]))

    def calls(self) -> dict[str, int]:
        """Return how many HTTP requests each system answered."""
        return {"bigcommerce": self.shop.faults.calls, "fno": self.erp.faults.calls}

    def close(self) -> None:
        """Stop serving."""
        for each in self.served.values():
            each.close()
        self.shop.close()
        self.erp.close()
        self._post.close()


def connect(stage: Stage) -> tuple[BigCommerce, Fno]:
    """Connect both adapters to the twins, as one would to the real systems."""
    shop = connect_bigcommerce(
        {
            "base_url": stage.served["bigcommerce"].url,
            "store_hash": stage.shop.store_hash,
            "access_token": "test-token",
            "webhook_secret": WEBHOOK_SECRET,
        }
    )
    url = stage.served["fno"].url
    erp = connect_fno(
        {
            "base_url": url,
            "token_url": f"{url}/demo/oauth2/v2.0/token",
            "client_id": "iom",
            "client_secret": "secret",
            "guests": {"usmf": "US-WEB", "demf": "DE-WEB"},
        }
    )
    return shop, erp


def mapping() -> IdMapping:
    """Return the demo's product mapping: the shop's SKUs are the ERP's items, custom products are one item."""
    products = {each.sku: each.sku for each in samples.CATALOG}
    products |= {f"custom:{name}": CUSTOM for name in samples.CUSTOM_NAMES}
    shop = System(scenarios.BIGCOMMERCE)
    return IdMapping(
        tuple(MappingRow(shop, "products", "sku", value, internal) for value, internal in products.items())
    )


def orchestrator_for(scenario: Scenario, store: OrderStore, shop: BigCommerce, erp: Fno) -> Orchestrator:
    """Wire a scenario: the composition root of the demo."""
    connected = (prov.internal(), prov.channel(shop, shop), prov.erp(erp))
    providers = {each.name: each for each in connected}
    setup = Setup(
        (attrs.evolve(scenario.flow, status=FlowStatus.PUBLISHED),),
        prov.catalog(providers, scenario.policies),
        mapping=mapping(),
        prefixes={scenarios.BIGCOMMERCE: "BC-"},
    )
    return Orchestrator(store, setup, providers, utc_now)


@contextmanager
def _folder(store_url: str) -> Iterator[tuple[str, Path]]:
    """Say where the store and the twins' books are: beside the store's file, or in a folder that goes away."""
    if not store_url:
        with tempfile.TemporaryDirectory(prefix="iom-demo-") as name:
            yield f"sqlite:///{name}/iom.db", Path(name)
        return
    if not store_url.startswith("sqlite:///") or len(store_url) == len("sqlite:///"):
        raise Misconfigured(
            "store", f"the demo keeps its twins beside a SQLite file: sqlite:///orders.db, not {store_url}"
        )
    path = Path(store_url.removeprefix("sqlite:///"))
    folder = path.with_name(path.name + "-twins")
    folder.mkdir(parents=True, exist_ok=True)
    yield store_url, folder


def _over_http(scenario: Scenario, orders: int, seed: int, store_url: str, report: Report, halves: bool) -> DemoResult:
    began = time.monotonic()
    with _folder(store_url) as (url, folder):
        store = SqlStore.open(url)
        stage = Stage(folder, halves)
        shop, erp = connect(stage)
        orchestrator = orchestrator_for(scenario, store, shop, erp)
        troubles: Counter[str] = Counter()
        receiver = web.serve(orchestrator, report=lambda what, broken: troubles.update([f"{what}: {broken}"]))
        stage.receiver_url = f"{receiver.url}/webhooks/{scenarios.BIGCOMMERCE}"
        engine = engine_for(orchestrator, store, seed, troubles)
        try:
            _run_to_the_end(stage, orchestrator, store, engine, orders, seed, report)
            return _result(scenario, stage, store, orders, time.monotonic() - began)
        finally:
            engine.stop()
            receiver.close()
            stage.close()
            store.close()


def engine_for(orchestrator: Orchestrator, store: SqlStore, seed: int, troubles: Counter[str]) -> LocalEngine:
    """Build the local engine; attempts and timeouts come from the actions' definitions."""

    def limits(provider: System, action: str) -> ActionLimits:
        found = orchestrator.setup.catalog.action(provider, action)
        return ActionLimits() if found is None else ActionLimits.of(found)

    engine = LocalEngine(
        store,
        orchestrator,
        chance=random.Random(seed),  # noqa: S311 - jitter, not secrets
        limits=limits,
        poll=0.1,
        report=lambda what, broken: troubles.update([f"{what}: {broken}"]),
    )
    orchestrator.wake = engine.wake
    return engine


def _run_to_the_end(
    stage: Stage,
    orchestrator: Orchestrator,
    store: SqlStore,
    engine: LocalEngine,
    orders: int,
    seed: int,
    report: Report,
) -> None:
    stage.place(orders, seed)
    for system in (scenarios.BIGCOMMERCE, scenarios.FNO):
        engine.schedule(f"pull {system}", 0.5, partial(_pull, orchestrator, System(system)))
    engine.schedule("the ERP's people", 0.5, stage.work)
    engine.start()
    last: tuple[Counter[str], int] = (Counter(), 0)
    moved_at = time.monotonic()
    while True:
        states = Counter(store.count_by_state())
        completed = states.get("Completed", 0)
        report(Progress(orders, dict(states), completed))
        if sum(states.values()) >= orders and completed == orders and store.outbox_size() == 0:
            return
        mark = (states, store.outbox_size())
        if mark != last:
            last, moved_at = mark, time.monotonic()
        if time.monotonic() - moved_at > STALLED_AFTER:
            return
        time.sleep(0.1)


def _pull(orchestrator: Orchestrator, system: System, now: datetime) -> None:
    orchestrator.pull(system, now)


def _result(scenario: Scenario, stage: Stage, store: SqlStore, orders: int, seconds: float) -> DemoResult:
    found = list(store.orders())
    problems = [problem for order in found for problem in _problems(scenario, stage, order)]
    if len(found) != orders:
        problems.append(f"{orders} orders were placed, {len(found)} arrived")
    return _summary(scenario, found, len(store.errors()), stage.calls(), seconds, problems)


def _summary(
    scenario: Scenario,
    found: list[SalesOrder],
    errors: int,
    calls: Mapping[str, int],
    seconds: float,
    problems: list[str],
) -> DemoResult:
    return DemoResult(
        scenario.name,
        len(found),
        sum(order.status.state == "Completed" for order in found),
        sum(order.status.state == "On Hold" for order in found),
        errors,
        calls,
        seconds,
        tuple(detail(order) for order in found),
        tuple(problems),
    )


def detail(order: SalesOrder) -> dict[str, Any]:
    """Return one order as ``orders_detail`` shows it."""
    return {
        "order_id": order.id,
        "external_ids": {each.system: each.id for each in order.externals if each.entity == "order"},
        "state": order.status.state,
        "reason": order.status.reason,
        "timeline": [
            {"at": each.at.isoformat(), "event": each.event, "state": each.state, "reason": each.reason}
            for each in order.timeline
        ],
        "ordered_total": str(order.total.amount),
        "invoiced_total": str(order.invoiced_total.amount),
        "currency": order.currency,
    }


def _end_problems(order: SalesOrder) -> Iterator[str]:
    if (order.status.state, order.status.reason) != ("Completed", "Fulfilled"):
        yield f"{order.id} ended {order.status.state} / {order.status.reason}"
    wanted = open_total(order)
    if wanted is not None and order.invoiced_total.amount != wanted:
        yield f"{order.id} was ordered for {order.total} and invoiced for {order.invoiced_total}"
    for line in order.lines:
        if any(fo.lines for fo in order.fulfillment_orders) and order.shipped(line.id) not in (
            line.quantity,
            Decimal(0),
        ):
            yield f"{order.id} line {line.id}: {order.shipped(line.id)} of {line.quantity} shipped"


def _problems(scenario: Scenario, stage: Stage, order: SalesOrder) -> Iterator[str]:
    """Compare an order with what both twins hold of it."""
    yield from _end_problems(order)
    entered = stage.erp.orders(order.id)
    if len(entered) != 1:
        yield f"{order.id} is {len(entered)} times in the ERP"
        return
    number = str(entered[0]["SalesOrderNumber"])
    slips, invoices = stage.erp.slips(number), stage.erp.invoices(number)
    if len(slips) != len(order.shipments):
        yield f"{order.id}: {len(slips)} packing slips, {len(order.shipments)} shipments here"
    if len(invoices) != len(order.invoices):
        yield f"{order.id}: {len(invoices)} invoices in the ERP, {len(order.invoices)} here"
    shop_id = int(order.external(order.channel) or 0)
    told = stage.shop.status_history(shop_id)[1:]
    if tuple(told) not in ((2, 10), (3, 2, 10)):
        yield f"{order.id}: the shop was told {told}, not shipped (2) and completed (10)"
    shipped: Counter[int] = Counter()
    for shipment in stage.shop.shipments(shop_id):
        for item in shipment["items"]:
            shipped[item["order_product_id"]] += item["quantity"]
    for product in stage.shop.products(shop_id):
        wanted = product["quantity"] if product["type"] == "physical" and product["order_address_id"] else 0
        if shipped[product["id"]] != wanted:
            yield f"{order.id}: the shop has {shipped[product['id']]} of {wanted} {product['sku']} shipped"


# -- the other scenarios, in memory ------------------------------------------------------------------------------


def _in_memory(scenario: Scenario, orders: int, seed: int, report: Report) -> DemoResult:
    began = time.monotonic()
    world = World.for_scenario(scenario)
    rng = random.Random(seed)  # noqa: S311 - samples
    skus = [each.sku for each in samples.CATALOG if not each.digital]
    for _ in range(orders):
        world.receive(
            {sku: rng.randint(1, 5) for sku in rng.sample(skus, rng.randint(1, 3))}, country=rng.choice(("US", "DE"))
        )
    if scenario.optimized:
        # Not enough for everybody: some lines wait in Backorder Hold until the goods arrive.
        world.stock("Seattle", dict.fromkeys(skus, orders // 2))
    world.run_until_quiet()
    if scenario.optimized:
        world.stock("Chicago", dict.fromkeys(skus, orders * 5))
        world.run_backorder_job()
        world.run_until_quiet()
    found = list(world.store.orders())
    states = Counter(order.status.state for order in found)
    report(Progress(orders, dict(states), states["Completed"]))
    problems = [problem for order in found for problem in _end_problems(order)]
    for order in found:
        if scenario.told:
            told = tuple(world.channel.told.get(order.external(order.channel) or "", ()))
            if tuple(each for each in told if each != "partially shipped") != scenario.told:
                problems.append(f"{order.id}: the channel was told {told}, not {scenario.told}")
    if len(found) != orders:
        problems.append(f"{orders} orders were placed, {len(found)} arrived")
    return _summary(scenario, found, len(world.store.errors()), {}, time.monotonic() - began, problems)


__all__ = ["DemoResult", "Progress", "Stage", "connect", "detail", "engine_for", "mapping", "orchestrator_for", "run"]
