"""S3, S4 and S5 with orders that F&O created: dual-write brings them here once they are confirmed."""

from __future__ import annotations

import random
from decimal import Decimal

import attrs
import httpx
import pytest

from iom_adapters._demo_link import copy_masters, link
from iom_adapters._twin import transport
from iom_adapters.dataverse import connect
from iom_adapters.dataverse.twin import DataverseTwin
from iom_adapters.engine.local import LocalEngine
from iom_adapters.fno.office import Item
from iom_adapters.fno.twin import FnoTwin
from iom_core import providers as prov
from iom_core import scenarios
from iom_core.decide import Setup
from iom_core.flow import FlowStatus
from iom_core.orchestrator import Orchestrator
from iom_core.order import SalesOrder
from iom_core.scenarios import Scenario
from iom_core.testing import FakeFulfiller, FakeLedger, MemoryStore, VirtualClock
from iom_core.testing.world import START
from iom_core.values import System

ERP, FLEXE, SAP = System("fno"), System("flexe"), System("sap")
PLACE = {"ShippingSiteId": "1", "ShippingWarehouseId": "11"}
HEADER = {
    "OrderingCustomerAccountNumber": "US-001",
    "CurrencyCode": "USD",
    "IsDeliveryAddressOrderSpecific": "Yes",
    "DeliveryAddressName": "Jane Roe",
    "DeliveryAddressStreet": "1 Main St",
    "DeliveryAddressCity": "Redmond",
    "DeliveryAddressStateId": "WA",
    "DeliveryAddressZipCode": "98052",
    "DeliveryAddressCountryRegionId": "USA",
}


class Office:
    """F&O with dual-write to Dataverse, an orchestrator over it, and the others in memory."""

    def __init__(self, scenario: Scenario, **settings: str) -> None:
        self.scenario = scenario
        self.clock = VirtualClock(START)
        items = [Item("CHAIR", price=Decimal(20)), Item("DESK", price=Decimal(30))]
        self.erp = FnoTwin.demo(items, clock=self.clock)
        self.dataverse = DataverseTwin(clock=self.clock)
        copy_masters(self.dataverse, self.erp)
        link(self.dataverse, self.erp)
        shared = connect(
            {
                "base_url": "https://dv.test",
                "token_url": "https://dv.test/t/oauth2/v2.0/token",
                "client_id": "iom",
                "client_secret": "secret",
                "system": ERP,
                "erp_prefix": "00",
                "number_prefix": "BC-",
                **settings,
            },
            client=httpx.Client(transport=transport(("dv.test", self.dataverse))),
            clock=self.clock,
        )
        self.flexe, self.sap = FakeFulfiller(FLEXE), FakeLedger(SAP)
        connected = (prov.internal(), prov.erp(shared), prov.fulfiller(self.flexe), prov.ledger(self.sap))
        providers = {each.name: each for each in connected}
        setup = Setup(
            (attrs.evolve(scenario.flow, status=FlowStatus.PUBLISHED),),
            prov.catalog(providers, scenario.policies),
            prefixes={ERP: "FO-"},
        )
        self.store = MemoryStore()
        self.orchestrator = Orchestrator(self.store, setup, providers, self.clock)
        self.engine = LocalEngine(self.store, self.orchestrator, chance=random.Random(1), clock=self.clock)

    def enter(self) -> str:
        """Enter an order of two lines in F&O."""
        lines = [
            {"ItemNumber": "CHAIR", "OrderedSalesQuantity": 2, "SalesPrice": 20, **PLACE},
            {"ItemNumber": "DESK", "OrderedSalesQuantity": 1, "SalesPrice": 30, **PLACE},
        ]
        return self.erp.enter("usmf", lines, **HEADER)

    def pull(self) -> None:
        """Run every puller and every command."""
        for system in (ERP, FLEXE, SAP):
            self.orchestrator.pull(system)
        self.engine.run_due()
        self.clock.advance(60)

    def run(self) -> SalesOrder:
        """Run until everybody has done their part, and return the order."""
        for _ in range(10):
            self.pull()
            self.flexe.work(self.clock())
            self.sap.work(self.clock())
            if self.scenario.ledger == ERP:
                self.erp.staff_step()
        self.pull()
        (order,) = self.store.orders()
        return order


FROM_ERP = [scenarios.FNO_FLEXE_FNO, scenarios.FNO_FNO_FNO, scenarios.FNO_FLEXE_SAP]


@pytest.mark.parametrize("scenario", FROM_ERP, ids=lambda each: each.id)
def test_an_order_reaches_us_only_when_it_is_confirmed(scenario: Scenario) -> None:
    """Dual-write carries it at once, but nothing is orchestrated before the confirmation."""
    office = Office(scenario)
    number = office.enter()
    office.pull()
    assert list(office.store.orders()) == []

    office.erp.confirm(number)
    office.pull()
    (order,) = office.store.orders()

    assert order.id == f"FO-{number}"
    assert (order.company, order.total.amount, len(order.lines)) == ("usmf", Decimal("70.00"), 2)


@pytest.mark.parametrize("scenario", FROM_ERP, ids=lambda each: each.id)
def test_it_reaches_the_documented_end(scenario: Scenario) -> None:
    """Completed and fulfilled, invoiced once for what was ordered, and no error in any list."""
    office = Office(scenario)
    office.erp.confirm(office.enter())
    order = office.run()

    assert (order.status.state, order.status.reason) == ("Completed", "Fulfilled"), office.store.errors()
    assert order.invoiced_total == order.total
    assert len(order.invoices) == 1
    assert order.parked == ()
    assert office.store.errors() == ()


def test_the_status_goes_where_the_organization_keeps_it() -> None:
    """S3 sends the order's status back; the column is the organization's own, and nothing else is written."""
    office = Office(scenarios.FNO_FLEXE_FNO, status_column="description")
    number = office.enter()
    office.erp.confirm(number)
    order = office.run()
    (row,) = [each for each in office.dataverse.rows("salesorders") if each["msdyn_salesordernumber"] == number]
    step = next(each for each in order.steps if each.step == "Send order status to F&O")

    assert row["description"] == "Fulfillment in Process / Packed"
    assert step.ok
    assert step.details == "description = Fulfillment in Process / Packed"


def test_without_such_a_column_the_step_says_so() -> None:
    """No public table of the product has one: nothing is invented."""
    office = Office(scenarios.FNO_FLEXE_FNO)
    office.erp.confirm(office.enter())
    order = office.run()
    step = next(each for each in order.steps if each.step == "Send order status to F&O")

    assert step.ok
    assert "status_column is not set" in step.details


def test_a_checkpoint_survives_a_change_of_address() -> None:
    """A delta link is kept without its host, so that an organization may move to another address."""
    office = Office(scenarios.FNO_FNO_FNO)
    office.erp.confirm(office.enter())
    office.pull()
    with office.store.begin() as unit:
        checkpoint = unit.checkpoint(ERP)

    assert "deltatoken" in checkpoint
    assert "dv.test" not in checkpoint
