"""Ready-made harnesses: the fakes with the back doors that the conformance kit asks for.

They are examples for your own, and a quick way to run the kit on a variant of a fake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from returns.result import Result

from iom_core.errors import Unavailable
from iom_core.messages import Rejected
from iom_core.order import ExternalId, SalesOrder
from iom_core.outcome import Refused
from iom_core.ports import ErpRequest, Stock
from iom_core.testing.fakes import (
    Failures,
    FakeChannel,
    FakeDistances,
    FakeErp,
    FakeFulfiller,
    FakeInventory,
    FakeLedger,
    FakeRates,
    MemoryStore,
)
from iom_core.testing.samples import SAMPLE_AT, sample_draft
from iom_core.values import GeoPoint, MessageId, Money, ProductId, SourceId, System


class Line:
    """The line to a fake, which can be cut: it uses the faults a fake can be told to raise."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures

    def go_down(self) -> None:
        """Make the fake unreachable."""
        self._failures.before = deque([Unavailable("fake", "it is down")] * 10_000)

    def come_back(self) -> None:
        """Make it reachable again."""
        self._failures.before = deque()

    def lose_next_answer(self) -> None:
        """Let the next write take effect and its answer get lost."""
        self._failures.after.append(Unavailable("fake", "the answer was lost"))

    def restart(self) -> None:
        """Do nothing: what a fake remembers is what the system it stands for remembers."""

    @property
    def now(self) -> datetime:
        """Return a time that stands still."""
        return SAMPLE_AT


def _rejected(system: System, number: int) -> Rejected:
    return Rejected(MessageId(f"{system}/malformed/{number}"), system, "it can't be read", "$.lines[0]")


class ChannelSource(Line):
    """A `FakeChannel` as an `OrderSource`."""

    def __init__(self, channel: FakeChannel | None = None) -> None:
        self.source = channel or FakeChannel()
        super().__init__(self.source.failures)

    def place(self, units: int) -> str:
        """Place an order of one product."""
        number = str(1001 + len(self.source.drafts))
        self.source.place(sample_draft(number, channel=self.source.system, units=units), self.now)
        return number

    def plant_malformed(self) -> None:
        """Let the shop say something unreadable."""
        self.source.feed.sent.append(_rejected(self.source.system, len(self.source.feed.sent)))

    def delivery(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return a notification: the order's number."""
        return {}, number.encode()

    def forged(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return what somebody else could send."""
        return {}, f"{number} or so".encode()


class ErpSource(Line):
    """A `FakeErp` as an `OrderSource`: orders are entered there."""

    def __init__(self, erp: FakeErp | None = None) -> None:
        self.source = erp or FakeErp()
        super().__init__(self.source.failures)

    def place(self, units: int) -> str:
        """Enter and confirm an order of one product."""
        number = f"{1001 + len(self.source.orders):06}"
        return self.source.enter(sample_draft(number, channel=self.source.system, units=units), self.now)

    def plant_malformed(self) -> None:
        """Let the ERP say something unreadable."""
        self.source.feed.sent.append(_rejected(self.source.system, len(self.source.feed.sent)))

    def delivery(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return what a notification could look like."""
        return {}, number.encode()

    def forged(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return what somebody else could send."""
        return {}, f"{number} or so".encode()


class ChannelSink(Line):
    """A `FakeChannel` as a `StatusSink`."""

    def __init__(self, channel: FakeChannel | None = None) -> None:
        self.sink = channel or FakeChannel()
        super().__init__(self.sink.failures)

    def place(self, order: SalesOrder) -> SalesOrder:
        """Put the order into the shop under the number it has."""
        number = order.external(self.sink.system) or ""
        self.sink.drafts[number] = sample_draft(number, channel=self.sink.system)
        return order

    def changes(self, order: SalesOrder) -> int:
        """Return how many statuses the shop has heard."""
        return len(self.sink.told.get(order.external(self.sink.system) or "", ()))

    def shipments(self, order: SalesOrder) -> int:
        """Return how many shipments the shop shows."""
        return len(self.sink.shipments.get(order.external(self.sink.system) or "", ()))


class Fulfiller(Line):
    """A `FakeFulfiller` as a `FulfillmentProvider`."""

    def __init__(self, provider: FakeFulfiller | None = None) -> None:
        self.provider = provider or FakeFulfiller()
        super().__init__(self.provider.failures)

    def plant_malformed(self) -> None:
        """Let the provider say something unreadable."""
        self.provider.feed.sent.append(_rejected(self.provider.system, len(self.provider.feed.sent)))

    def refuse(self, why: str) -> None:
        """Let the provider say no."""
        self.provider.refuses = why

    def placed(self) -> Sequence[str]:
        """Return what will be shipped."""
        return [each for each in self.provider.placed if each not in self.provider.canceled]

    def ship(self, fulfillment_order: str) -> None:
        """Ship the rest of one fulfillment order."""
        self._work(fulfillment_order, None)

    def ship_part(self, fulfillment_order: str) -> bool:
        """Ship one unit of the first line."""
        whole = self.provider.placed[fulfillment_order]
        self.provider.placed[fulfillment_order] = dict(list(whole.items())[:1])
        self._work(fulfillment_order, Decimal(1))
        self.provider.placed[fulfillment_order] = whole
        left = dict.fromkeys(whole, Decimal(0))
        self.provider.shipped[fulfillment_order] = left | self.provider.shipped[fulfillment_order]
        return True

    def _work(self, fulfillment_order: str, per_shipment: Decimal | None) -> None:
        everything = self.provider.placed
        self.provider.placed = {fulfillment_order: everything[fulfillment_order]}
        self.provider.per_shipment = per_shipment
        self.provider.work(self.now)
        self.provider.placed = everything


class Erp(Line):
    """A `FakeErp` as an `ErpOrders`."""

    def __init__(self, erp: FakeErp | None = None) -> None:
        self.orders = erp or FakeErp()
        super().__init__(self.orders.failures)

    def plant_malformed(self) -> None:
        """Let the ERP say something unreadable."""
        self.orders.feed.sent.append(_rejected(self.orders.system, len(self.orders.feed.sent)))

    def count(self) -> int:
        """Return how many sales orders there are."""
        return len(self.orders.orders)

    def lines(self, order_id: str) -> Sequence[tuple[str, Decimal]]:
        """Return product and quantity of each line."""
        number = self.orders.by_reference[order_id]
        return [(each.product, each.quantity) for each in self.orders.orders[number].lines.values()]

    def block(self, product: str, why: str) -> None:
        """Block a product, or free it."""
        self.orders.blocked[product] = why
        if not why:
            del self.orders.blocked[product]

    def work(self) -> None:
        """Bring every order one step further."""
        self.orders.work(self.now)

    def cancel(self, order_id: str) -> None:
        """Cancel an order."""
        self.orders.cancel(self.orders.by_reference[order_id], self.now)


class LedgerBooks(Line):
    """A `FakeLedger` as a `Ledger`."""

    def __init__(self, ledger: FakeLedger | None = None) -> None:
        self.ledger = ledger or FakeLedger()
        super().__init__(self.ledger.failures)

    def plant_malformed(self) -> None:
        """Let the ledger say something unreadable."""
        self.ledger.feed.sent.append(_rejected(self.ledger.system, len(self.ledger.feed.sent)))

    def prepare(self, order: SalesOrder) -> SalesOrder:
        """Return the order as it is: this ledger knows no orders."""
        return order

    def post(self) -> None:
        """Post what was asked for."""
        self.ledger.work(self.now)

    def invoices(self, order_id: str) -> int:
        """Return how many invoices there are of an order."""
        return len(self.ledger.invoices.get(order_id, ()))


class ErpBooks(Line):
    """A `FakeErp` as a `Ledger`: it invoices by itself what it hears has shipped."""

    def __init__(self, erp: FakeErp | None = None) -> None:
        self.ledger = erp or FakeErp()
        super().__init__(self.ledger.failures)

    def plant_malformed(self) -> None:
        """Let the ERP say something unreadable."""
        self.ledger.feed.sent.append(_rejected(self.ledger.system, len(self.ledger.feed.sent)))

    def prepare(self, order: SalesOrder) -> SalesOrder:
        """Send the order to the ERP first, and return it with the ERP's numbers."""
        system = self.ledger.system
        receipt = self.ledger.send(ErpRequest(f"prepare {order.id}", order)).unwrap()
        numbers = (
            ExternalId(system, "order", order.id, receipt.number),
            *(ExternalId(system, "order line", line, number) for line, number in receipt.line_numbers),
        )
        return order.with_(externals=(*order.externals, *numbers))

    def post(self) -> None:
        """Let its people invoice."""
        self.ledger.work(self.now)

    def invoices(self, order_id: str) -> int:
        """Return how many invoices there are of an order."""
        return len(self.ledger.invoices.get(self.ledger.by_reference[order_id], ()))


class Shelves(Line):
    """A `FakeInventory` behind a line that can be cut: an `Inventory` itself."""

    def __init__(self, stock: FakeInventory | None = None) -> None:
        self.stock = stock or FakeInventory()
        self._faults = Failures()
        super().__init__(self._faults)

    @property
    def inventory(self) -> Shelves:
        """Return the inventory, behind its line."""
        return self

    def available(self, products: Sequence[ProductId]) -> tuple[Stock, ...]:
        """Ask for what may be promised."""
        self._faults.strike()
        return self.stock.available(products)

    def reserve(self, key: str, source: SourceId, product: ProductId, quantity: Decimal) -> Result[str, Refused]:
        """Reserve."""
        self._faults.strike()
        answer = self.stock.reserve(key, source, product, quantity)
        self._faults.lose()
        return answer

    def release(self, key: str) -> None:
        """Release."""
        self._faults.strike()
        self.stock.release(key)
        self._faults.lose()

    def consume(self, key: str, quantity: Decimal) -> None:
        """Consume."""
        self._faults.strike()
        self.stock.consume(key, quantity)
        self._faults.lose()

    def put(self, source: str, product: str, quantity: Decimal) -> None:
        """Put stock on a shelf."""
        self.stock.put(source, product, quantity)

    def on_hand(self, source: str, product: str) -> Decimal:
        """Return what lies there."""
        return self.stock.on_hand[SourceId(source), ProductId(product)]

    def reserved(self, source: str, product: str) -> Decimal:
        """Return what is reserved of it."""
        taken = self.stock.reserved.values()
        return sum((quantity for s, p, quantity in taken if (s, p) == (source, product)), Decimal(0))


class Memory:
    """A `MemoryStore`."""

    threads = True

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    def restart(self) -> None:
        """Do nothing: it is gone with its process."""


class Map(Line):
    """`FakeDistances` behind a line that can be cut."""

    def __init__(self, distances: FakeDistances | None = None) -> None:
        self._distances = distances or FakeDistances()
        self._faults = Failures()
        super().__init__(self._faults)

    @property
    def distances(self) -> Map:
        """Return the distances, behind their line."""
        return self

    def kilometers(self, origin: GeoPoint, destination: GeoPoint) -> float:
        """Ask for a distance."""
        self._faults.strike()
        return self._distances.kilometers(origin, destination)


class PriceList(Line):
    """`FakeRates` behind a line that can be cut."""

    def __init__(self, rates: FakeRates | None = None) -> None:
        self._rates = rates or FakeRates()
        self._faults = Failures()
        super().__init__(self._faults)

    @property
    def rates(self) -> PriceList:
        """Return the rates, behind their line."""
        return self

    def rate(self, carrier: str, origin: GeoPoint, destination: GeoPoint, weight: Decimal) -> Money | None:
        """Ask for a rate."""
        self._faults.strike()
        return self._rates.rate(carrier, origin, destination, weight)

    def set_rate(self, carrier: str, rate: Money) -> None:
        """Write a rate into the list."""
        self._rates.rates[carrier] = rate
