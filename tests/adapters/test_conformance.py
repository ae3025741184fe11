"""The real adapters keep every promise of their ports, each over the protocol of the system it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iom_core.ports import Capability
from iom_core.testing import conformance as kit
from tests.adapters import harnesses as real

SECRETS: dict[str, dict[str, str]] = {
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


class TestBigCommerceOrderByOrder(kit.OrderSourceConformance):
    @pytest.fixture
    def harness(self) -> kit.OrderSourceHarness:
        return real.ShopSource(webhook_secret=real.SECRET, page_limit=1, orders_per_pull=1)


FNO: dict[str, dict[str, Any]] = {
    "documents": {},
    "statuses": {"bi_entities": False},
    "row by row and day by day": {"page_size": 1, "window": 1, "bulk": 1},
    "numbered lines": {"line_marker": "CustomersLineNumber"},
}


class TestFno(kit.ErpOrdersConformance):
    @pytest.fixture(params=list(FNO))
    def harness(self, request: pytest.FixtureRequest) -> kit.ErpHarness:
        return real.FnoOrders(**FNO[request.param])


DUAL_WRITE: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "row by row": {"page_size": 1, "orders_per_pull": 1},
    "without columns of its own": {"shipped_column": "", "sync_error_column": ""},
}


class TestDualWrite(kit.ErpOrdersConformance):
    @pytest.fixture(params=list(DUAL_WRITE))
    def harness(self, request: pytest.FixtureRequest) -> kit.ErpHarness:
        return real.SharedOrders(**DUAL_WRITE[request.param])


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
