"""Orders and twins that the dual-write tests share."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import httpx

from iom_adapters._twin import transport
from iom_adapters.dataverse import DualWriteOrders, connect
from iom_adapters.dataverse.dual_write import ErpRow
from iom_adapters.dataverse.replication import ErpRefusal
from iom_adapters.dataverse.twin import DataverseTwin
from iom_core.lifecycle import Status
from iom_core.order import OrderLine, SalesOrder
from iom_core.ports import ErpRequest
from iom_core.values import Address, CompanyId, LineId, Money, OrderId, ProductId, Quantity, System

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
NEW = Status("In Progress", "Validated")


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@attrs.define
class ErpBook:
    """The F&O end of dual-write as a book: rows by entity set, company and key; refuses what it is told to."""

    rows: dict[tuple[Any, ...], dict[str, Any]] = attrs.field(factory=dict)
    writes: list[tuple[ErpRow, ...]] = attrs.field(factory=list)
    refuse_products: dict[str, str] = attrs.field(factory=dict)
    refuse_headers: str = ""

    def write(self, rows: Any) -> None:
        before = {key: dict(value) for key, value in self.rows.items()}
        try:
            for row in rows:
                self._write(row)
        except ErpRefusal:
            self.rows = before
            raise
        self.writes.append(tuple(rows))

    def _write(self, row: ErpRow) -> None:
        names: dict[str, Any] = dict(row.key)
        key = (row.entity_set, row.company, names["SalesOrderNumber"], names.get("LineCreationSequenceNumber", 0))
        if row.delete:
            self.rows.pop(key, None)
            return
        values: dict[str, Any] = dict(row.values)
        if row.entity_set == "CDSSalesOrderHeaders" and self.refuse_headers:
            raise ErpRefusal(self.refuse_headers)
        if values.get("ProductNumber") in self.refuse_products:
            raise ErpRefusal(self.refuse_products[values["ProductNumber"]])
        header = ("CDSSalesOrderHeaders", row.company, names["SalesOrderNumber"], 0)
        if row.entity_set != "CDSSalesOrderHeaders" and header not in self.rows:
            raise ErpRefusal(f"Order {header[2]} does not exist.")
        self.rows[key] = {**self.rows.get(key, {}), **values}

    def headers(self) -> list[str]:
        return [key[2] for key in self.rows if key[0] == "CDSSalesOrderHeaders"]

    def lines(self) -> list[tuple[str, int]]:
        return [(key[2], key[3]) for key in self.rows if key[0] == "CDSSalesOrderLinesV2"]

    def line(self, number: str, sequence: int) -> dict[str, Any]:
        return self.rows["CDSSalesOrderLinesV2", "usmf", number, sequence]


def twin(clock: Clock | None = None, **options: Any) -> DataverseTwin:
    """Return an organization with company ``usmf``, two sites, customers and a few products."""
    made = DataverseTwin(clock=clock or Clock(), **options)
    company = made.add_company("usmf", "USD", ["US-001"], ["US-WEB"])
    made.add_site(company, "1", ["11", "12"])
    made.add_site(company, "2", ["21"])
    made.add_products(["CHAIR", "TABLE", "LAMP"])
    return made


def adapter(dataverse: DataverseTwin, clock: Clock | None = None, **settings: Any) -> DualWriteOrders:
    """Return an adapter that talks to *dataverse*."""
    client = httpx.Client(transport=transport(("dv.test", dataverse), ("login.test", dataverse)))
    config = {
        "base_url": "https://dv.test",
        "token_url": "https://login.test/tenant/oauth2/v2.0/token",
        "client_id": "iom",
        "client_secret": "secret",
        **settings,
    }
    return connect(config, client=client, clock=clock or Clock())


def usd(amount: str | int) -> Money:
    return Money.of(amount, "USD")


def line(name: str, product: str, quantity: str | int, total: str | int, **more: Any) -> OrderLine:
    fields: dict[str, Any] = {
        "company": CompanyId("usmf"),
        "site": "1",
        "warehouse": "11",
        "ready_to_sync": True,
        "name": product.title(),
        **more,
    }
    return OrderLine(LineId(name), ProductId(product), Quantity.of(quantity), usd(total), NEW, **fields)


def order(*lines: OrderLine, number: str = "BC-100", **more: Any) -> SalesOrder:
    """Return an order that may be sent; its total follows from lines, shipping, handling and discount."""
    chosen = lines or (line("1", "CHAIR", 2, "40.00"), line("2", "TABLE", 1, "59.99"))
    home = Address(
        name="Ann Lee",
        street="1 Main Street",
        city="Reno",
        state="NV",
        postal_code="89502",
        country="US",
        phone="555-0100",
        email="ann@example.com",
    )
    fields: dict[str, Any] = {
        "shipping": usd("7.50"),
        "handling": usd("0"),
        "discount": usd("3.00"),
        "ship_to": home,
        "bill_to": home,
        "invoice_customer": "US-WEB",
        "company": CompanyId("usmf"),
        "site": "1",
        "warehouse": "11",
        "ready_to_sync": True,
        "requested_ship_date": date(2026, 1, 9),
        **more,
    }
    total = sum((each.total for each in chosen), usd(0)) + fields["shipping"] + fields["handling"] - fields["discount"]
    return SalesOrder(
        id=OrderId(number),
        channel=System("bigcommerce"),
        status=NEW,
        currency="USD",
        total=total,
        lines=chosen,
        placed_at=START,
        **fields,
    )


def request(of: SalesOrder, *lines: str) -> ErpRequest:
    return ErpRequest(f"{of.id}:send", of, lines)


def decimal(value: Any) -> Decimal:
    return Decimal(str(value))
