"""The benchmarks behind `iom bench`: medians over rounds, each with where its time goes."""

from __future__ import annotations

import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import attrs
from returns.result import Result

from iom_adapters.store.sql import SqlStore
from iom_core import codec, scenarios
from iom_core import events as ev
from iom_core.messages import LineQuantity
from iom_core.order import Change, SalesOrder, receive
from iom_core.outcome import Refused
from iom_core.testing import World
from iom_core.values import OrderId, System

_NOW: Final = datetime(2026, 1, 5, 8, tzinfo=UTC)


@attrs.frozen
class Measurement:
    """One benchmark: orders per second in each round, and the share of the time per function."""

    name: str
    aim: int
    rounds: tuple[float, ...]
    profile: tuple[tuple[str, float], ...]

    @property
    def per_second(self) -> float:
        """Return the median of the rounds, in orders per second."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> str:
        """Return the slowest and the fastest round as text."""
        return f"{min(self.rounds):,.0f} to {max(self.rounds):,.0f} over {len(self.rounds)} rounds"

    def as_json(self) -> dict[str, Any]:
        """Return the measurement as ``iom bench --json`` prints it."""
        return {
            "name": self.name,
            "aim": self.aim,
            "orders_per_second": round(self.per_second, 1),
            "rounds": [round(each, 1) for each in self.rounds],
            "profile": [{"function": name, "share": round(share, 4)} for name, share in self.profile],
        }


def core(lines: int, orders: int, rounds: int) -> tuple[Measurement, ...]:
    """Measure the decision path, S1 in memory and S1 through SQLite, one after the other in every round."""
    path = decision_path(lines)
    runs: tuple[tuple[str, int, int, Callable[[int], None]], ...] = (
        ("decision path: order JSON in, S1's business events, order JSON out", 20_000, 2_000, path),
        ("S1 through the orchestrator, in memory", 2_000, orders, lambda count: in_memory(count, lines)),
        ("S1 through SQLite, providers in memory", 150, orders, lambda count: on_sqlite(count, lines)),
    )
    taken: dict[str, list[float]] = {name: [] for name, *_ in runs}
    for _ in range(rounds):
        for name, _aim, count, run in runs:
            began = time.perf_counter()
            run(count)
            taken[name].append(count / (time.perf_counter() - began))
    return tuple(
        Measurement(name, aim, tuple(taken[name]), profiled(run, max(count // 4, 1))) for name, aim, count, run in runs
    )


def _accepted(result: Result[Change, Refused]) -> SalesOrder:
    return result.unwrap().order


def decision_path(lines: int) -> Callable[[int], None]:
    """Return a function that takes an order of so many lines through S1's business events, JSON to JSON, n times."""
    world = World.for_scenario(scenarios.BIGCOMMERCE_FNO_FNO)
    draft = world.draft({f"P{number}": 1 for number in range(lines)})
    erp = System(scenarios.FNO)
    numbers = [(str(number), f"LOT-{number}") for number in range(1, lines + 1)]
    received = _accepted(receive(OrderId("BC-1"), System(scenarios.BIGCOMMERCE), draft, _NOW))
    start = codec.order_to_json(received.known_as(erp, "000891", numbers))
    said = tuple(LineQuantity(number, Decimal(1)) for _, number in numbers)

    def run(count: int) -> None:
        for _ in range(count):
            order = codec.order_from_json(start)
            order = _accepted(order.raise_event(ev.HEADER_VALID, _NOW))
            order = _accepted(order.raise_on_lines(ev.LINES_VALID, _NOW))
            order = _accepted(order.raise_on_lines(ev.DATA_ASSIGNED, _NOW))
            order = _accepted(order.create_fulfillment_orders(erp, _NOW))
            order = _accepted(order.sent(ev.SENT, _NOW, provider=erp))
            order = _accepted(order.pick(erp, said, _NOW))
            order = _accepted(order.ship(erp, "PS-1", said, _NOW))
            order = _accepted(order.invoice(erp, "INV-1", said, order.total, _NOW))
            if order.status.state != ev.COMPLETED:
                raise AssertionError(order.status)
            codec.order_to_json(order)

    return run


def in_memory(orders: int, lines: int) -> None:
    """Run S1 with in-memory fakes for everything."""
    _run(World.for_scenario(scenarios.BIGCOMMERCE_FNO_FNO), orders, lines)


def on_sqlite(orders: int, lines: int) -> None:
    """Run S1 with in-memory providers and a SQLite file as its store."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore.open(f"sqlite:///{Path(folder) / 'bench.db'}")
        try:
            _run(World(scenarios.BIGCOMMERCE_FNO_FNO, store=store), orders, lines)
        finally:
            store.close()


def _run(world: World, orders: int, lines: int) -> None:
    for _ in range(orders):
        world.receive({f"P{number}": 1 for number in range(lines)})
    world.run_until_quiet()
    done = sum(order.status.state == ev.COMPLETED for order in world.store.orders())
    if done != orders:
        raise AssertionError(f"{done} of {orders} orders completed")


def profiled(run: Callable[[int], None], count: int) -> tuple[tuple[str, float], ...]:
    """Return the ten functions that take the most time of their own, with their share."""
    profile = cProfile.Profile()
    profile.enable()
    run(count)
    profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined] # the documented attribute is missing in the stubs
    whole = sum(row[2] for row in stats.values()) or 1.0
    rows = sorted(stats.items(), key=lambda item: -item[1][2])[:10]
    return tuple(
        (f"{Path(file).stem}.{name}" if file != "~" else name, row[2] / whole) for (file, _, name), row in rows
    )
