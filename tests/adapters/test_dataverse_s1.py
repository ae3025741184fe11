"""S1 with dual-write: shop, orchestrator, Dataverse and F&O, every protocol real, the documented end."""

from __future__ import annotations

import random
from typing import Any

import attrs
import httpx
import pytest

from iom_adapters._demo_link import copy_masters, link
from iom_adapters._twin import Fault, transport
from iom_adapters.bigcommerce import samples
from iom_adapters.dataverse import connect
from iom_adapters.dataverse.maps import COUNTRY, IOM_MAPS, with_countries
from iom_adapters.dataverse.twin import DataverseTwin
from iom_adapters.engine.local import LocalEngine
from iom_adapters.fno.office import COUNTRIES as _ISO
from iom_core import providers as prov
from iom_core import scenarios
from iom_core.decide import Setup
from iom_core.flow import FlowStatus
from iom_core.orchestrator import Orchestrator
from tests.adapters.s1 import ERP, S1, SHOP

COUNTRIES = {code: f"country {code.lower()}" for code in _ISO if COUNTRY.to_dataverse(code) is None}
"""What this organization added to its country value map, and its adapter likewise."""


class DualWriteS1(S1):
    """`S1` with Dataverse and dual-write between the orchestrator and F&O."""

    def __init__(self) -> None:
        super().__init__()
        self.dataverse = DataverseTwin(clock=self.clock, maps=with_countries(IOM_MAPS, COUNTRIES))
        copy_masters(self.dataverse, self.erp)
        link(self.dataverse, self.erp)
        config = {
            "base_url": "https://dv.test",
            "token_url": "https://dv.test/t/oauth2/v2.0/token",
            "client_id": "iom",
            "client_secret": "secret",
            "system": "fno",
            "countries": COUNTRIES,
            "guests": {"usmf": "US-WEB", "demf": "DE-WEB"},
        }
        client = httpx.Client(transport=transport(("dv.test", self.dataverse)))
        shared = prov.erp(connect(config, client=client, clock=self.clock))
        setup, providers = self.orchestrator.setup, {**self.orchestrator.providers, ERP: shared}
        scenario = scenarios.BIGCOMMERCE_FNO_FNO
        again = Setup(
            (attrs.evolve(scenario.flow, status=FlowStatus.PUBLISHED),),
            prov.catalog(providers, scenario.policies),
            mapping=setup.mapping,
            prefixes={SHOP: "BC-"},
        )
        self.orchestrator = Orchestrator(self.store, again, providers, self.clock)
        self.engine = LocalEngine(
            self.store, self.orchestrator, chance=random.Random(1), limits=self.orchestrator.limits, clock=self.clock
        )


def orders(count: int) -> list[dict[str, Any]]:
    return [samples.generate_order(random.Random(f"7/{number}"), number) for number in range(count)]


def test_orders_reach_the_documented_end_over_dual_write() -> None:
    s1 = DualWriteS1()
    s1.place(*orders(12))
    s1.run()
    found = list(s1.store.orders())
    assert len(found) == 12
    for order in found:
        assert (order.status.state, order.status.reason) == ("Completed", "Fulfilled"), s1.store.errors()
        outcome = s1.outcome_of(order)
        assert outcome["told"] == [2, 10]
        assert order.invoiced_total == order.total
        assert (outcome["entered"], outcome["slips"], outcome["posted"]) == (1, 1, 1)
    assert s1.store.errors() == ()


@pytest.mark.parametrize("after", [0, 3, 7, 12, 20, 31])
def test_a_lost_answer_changes_nothing_in_the_end(after: int) -> None:
    calm = DualWriteS1()
    calm.place(*orders(2))
    calm.run()
    s1 = DualWriteS1()
    s1.dataverse.faults.plan(Fault("lost", path="/api/", after=after), Fault("refuse", path="/api/", after=after + 5))
    s1.place(*orders(2))
    s1.run()
    assert s1.outcome() == calm.outcome()
