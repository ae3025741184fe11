"""The fakes keep every promise of their ports: they are what other adapters are compared with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest

from iom_adapters._clock import utc_now
from iom_adapters.engine import Backoff, LocalEngine
from iom_core.testing import FakeEngine, MemoryStore
from iom_core.testing import conformance as kit
from iom_core.testing import harnesses as ready


class TestFakeChannel(kit.OrderSourceConformance):
    @pytest.fixture
    def harness(self) -> kit.OrderSourceHarness:
        return ready.ChannelSource()


class TestFakeErpAsSource(kit.OrderSourceConformance):
    @pytest.fixture
    def harness(self) -> kit.OrderSourceHarness:
        return ready.ErpSource()


class TestFakeChannelAsSink(kit.StatusSinkConformance):
    @pytest.fixture
    def harness(self) -> kit.StatusSinkHarness:
        return ready.ChannelSink()


class TestFakeFulfiller(kit.FulfillmentProviderConformance):
    @pytest.fixture
    def harness(self) -> kit.FulfillmentHarness:
        return ready.Fulfiller()


class TestFakeErp(kit.ErpOrdersConformance):
    @pytest.fixture
    def harness(self) -> kit.ErpHarness:
        return ready.Erp()


class TestFakeLedger(kit.LedgerConformance):
    @pytest.fixture
    def harness(self) -> kit.LedgerHarness:
        return ready.LedgerBooks()


class TestFakeErpAsLedger(kit.LedgerConformance):
    @pytest.fixture
    def harness(self) -> kit.LedgerHarness:
        return ready.ErpBooks()


class TestFakeInventory(kit.InventoryConformance):
    @pytest.fixture
    def harness(self) -> kit.InventoryHarness:
        return ready.Shelves()


class TestMemoryStore(kit.OrderStoreConformance):
    @pytest.fixture
    def harness(self) -> kit.StoreHarness:
        return ready.Memory()


class TestFakeDistances(kit.DistancesConformance):
    @pytest.fixture
    def harness(self) -> kit.DistancesHarness:
        return ready.Map()


class TestFakeRates(kit.ShippingRatesConformance):
    @pytest.fixture
    def harness(self) -> kit.RatesHarness:
        return ready.PriceList()


class LocalEngineOnMemory:
    """The local engine with short waits, on a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.runner = kit.ScriptedRunner(self.store)
        self.engine = LocalEngine(
            self.store,
            self.runner,
            chance=random.Random(7),
            backoff=Backoff(0.01, 0.05),
            lease_for=timedelta(seconds=30),
            poll=0.02,
        )


class TestLocalEngine(kit.EngineConformance):
    @pytest.fixture
    def harness(self) -> Iterator[kit.EngineHarness]:
        harness = LocalEngineOnMemory()
        yield harness
        harness.engine.stop()


class FakeEngineOnMemory:
    """The reference engine with short waits, on a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.runner = kit.ScriptedRunner(self.store)
        self.engine = FakeEngine(self.store, self.runner, utc_now, backoff=Backoff(0.01, 0.05))


class TestFakeEngine(kit.EngineConformance):
    @pytest.fixture
    def harness(self) -> Iterator[kit.EngineHarness]:
        harness = FakeEngineOnMemory()
        yield harness
        harness.engine.stop()
