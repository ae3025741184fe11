"""For tests, simulations and adapters of your own: fakes of every port, and a World with a virtual clock.

The conformance classes, which need pytest, are in `iom_core.testing.conformance`.
"""

from __future__ import annotations

from iom_core.testing.engine import FakeEngine as FakeEngine
from iom_core.testing.fakes import FakeChannel as FakeChannel
from iom_core.testing.fakes import FakeDistances as FakeDistances
from iom_core.testing.fakes import FakeErp as FakeErp
from iom_core.testing.fakes import FakeFulfiller as FakeFulfiller
from iom_core.testing.fakes import FakeInventory as FakeInventory
from iom_core.testing.fakes import FakeLedger as FakeLedger
from iom_core.testing.fakes import FakeRates as FakeRates
from iom_core.testing.fakes import MemoryStore as MemoryStore
from iom_core.testing.fakes import VirtualClock as VirtualClock
from iom_core.testing.world import World as World

__all__ = [
    "FakeChannel",
    "FakeDistances",
    "FakeEngine",
    "FakeErp",
    "FakeFulfiller",
    "FakeInventory",
    "FakeLedger",
    "FakeRates",
    "MemoryStore",
    "VirtualClock",
    "World",
]
