"""Snail keeps the promises of a fulfillment provider."""

from __future__ import annotations

import pytest
from iom_snail.twin import SnailTwin

from iom_core.testing.conformance import FulfillmentHarness, FulfillmentProviderConformance


class TestSnail(FulfillmentProviderConformance):
    """Every promise of the port."""

    @pytest.fixture
    def harness(self) -> FulfillmentHarness:
        """Return an adapter with Snail's warehouse behind it."""
        return SnailTwin()
