"""The real adapters keep every promise of their ports, each over the protocol of the system it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iom_core.ports import Capability
from iom_core.testing import conformance as kit
from tests.adapters import harnesses as real

SECRETS = {
    "no secret": {},
    "our secret": {"webhook_secret": real.SECRET},
    "signature": {"client_secret": "the shop's"},
    "both": {"webhook_secret": real.SECRET, "client_secret": "the shop's"},
}


class TestBigCommerceAsSource(kit.OrderSourceConformance):
    @pytest.fixture(params=list(SECRETS))
    def harness(self, request: pytest.FixtureRequest) -> kit.OrderSourceHarness:
        return real.ShopSource(**SECRETS[request.param])

    def test_notifications_are_declared_once_there_is_a_secret(self) -> None:
        declared = {
            name: Capability.WEBHOOKS in real.ShopSource(**each).source.capabilities for name, each in SECRETS.items()
        }
        assert declared == {"no secret": False, "our secret": True, "signature": True, "both": True}


class TestBigCommerceAsSink(kit.StatusSinkConformance):
    @pytest.fixture
    def harness(self) -> kit.StatusSinkHarness:
        return real.ShopSink()


class TestFno(kit.ErpOrdersConformance):
    @pytest.fixture(params=[True, False], ids=["documents", "statuses"])
    def harness(self, request: pytest.FixtureRequest) -> kit.ErpHarness:
        return real.FnoOrders(bi_entities=request.param)


class TestDualWrite(kit.ErpOrdersConformance):
    @pytest.fixture
    def harness(self) -> kit.ErpHarness:
        return real.SharedOrders()


class TestSqlStore(kit.OrderStoreConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[kit.StoreHarness]:
        harness = real.Sql(tmp_path / "orders.db")
        yield harness
        harness.store.close()


class TestLocalEngine(kit.EngineConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[kit.EngineHarness]:
        harness = real.LocalEngineOnSql(tmp_path / "orders.db")
        yield harness
        harness.close()
