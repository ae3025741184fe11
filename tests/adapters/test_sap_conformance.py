"""SAP keeps every promise of a `Ledger`, billed from orders and from deliveries."""

from __future__ import annotations

from typing import Any

import pytest

from iom_core.testing import conformance as kit

from ._sap import WAYS, Client100

TWINS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "small pages, leading zeros": {"page": 2, "padded": True},
}


class TestSap(kit.LedgerConformance):
    @pytest.fixture(params=[(way, how) for way in WAYS for how in TWINS], ids="/".join)
    def harness(self, request: pytest.FixtureRequest) -> kit.LedgerHarness:
        way, how = request.param
        return Client100(way, twin=TWINS[how])
