"""The demo: orders orchestrated to their end, against the systems of a scenario as HTTP servers on this machine.

What stands in for the remote systems are their twins; the library on this side of HTTP is the one users run.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from iom_adapters import web
from iom_adapters.engine.local import LocalEngine
from iom_adapters.stage import Stage
from iom_adapters.store.sql import SqlStore
from iom_core import events as ev
from iom_core import scenarios
from iom_core.errors import Misconfigured
from iom_core.orchestrator import Orchestrator
from iom_core.order import SalesOrder
from iom_core.scenarios import Scenario
from iom_core.testing.world import held_for_stock
from iom_core.values import System

STALLED_AFTER: Final = 60.0
"""Seconds without any change after which the demo gives up and says what it sees."""


@attrs.frozen
class Progress:
    """How far the demo is."""

    orders: int
    by_state: Mapping[str, int]
    completed: int


Report = Callable[[Progress], None]


@attrs.frozen
class DemoResult:
    """What the demo did; `as_json` is what ``iom demo --json`` prints."""

    scenario: str
    orders: int
    completed: int
    held: int
    errors: int
    http_calls: Mapping[str, int]
    seconds: float
    details: tuple[Mapping[str, Any], ...]
    problems: tuple[str, ...]
    """What did not reach the end that the scenario documents; empty is success."""

    def as_json(self) -> dict[str, Any]:
        """Return the documented JSON document."""
        return {
            "scenario": self.scenario,
            "orders": self.orders,
            "completed": self.completed,
            "held": self.held,
            "errors": self.errors,
            "http_calls": dict(self.http_calls),
            "seconds": round(self.seconds, 3),
            "orders_detail": [dict(each) for each in self.details],
            "problems": list(self.problems),
        }


def run(
    scenario: Scenario,
    orders: int,
    seed: int,
    store_url: str = "",
    report: Report = lambda _: None,
    halves: bool = False,
) -> DemoResult:
    """Run *orders* through *scenario* to its end. With *store_url* an interrupted run goes on where it was.

    *halves* has the ERP ship every third order in two deliveries. Raises `ValueError` for a negative number of orders.
    """
    if orders < 0:
        raise ValueError(f"the number of orders can't be {orders}")
    began = time.monotonic()
    with _folder(store_url) as (url, folder):
        store = SqlStore.open(url)
        stage = Stage.of(scenario, folder, halves)
        orchestrator = stage.orchestrator(store)
        troubles: Counter[str] = Counter()

        def trouble(what: str, broken: BaseException) -> None:
            troubles.update([f"{what}: {broken}"])

        receiver = web.serve(orchestrator, report=trouble)
        stage.receiver_url = f"{receiver.url}/webhooks/{scenarios.BIGCOMMERCE}"
        engine = LocalEngine(
            store,
            orchestrator,
            chance=random.Random(seed),  # noqa: S311 - jitter, not secrets
            limits=orchestrator.limits,
            poll=0.1,
            report=trouble,
        )
        orchestrator.wake = engine.wake
        try:
            _run_to_the_end(stage, orchestrator, store, engine, orders, seed, report)
            return _result(stage, store, orders, troubles, time.monotonic() - began)
        finally:
            engine.stop()
            receiver.close()
            stage.close()
            store.close()


@contextmanager
def _folder(store_url: str) -> Iterator[tuple[str, Path]]:
    """Say where the store and the twins' books are: beside the store's file, or in a folder that goes away."""
    if not store_url:
        with tempfile.TemporaryDirectory(prefix="iom-demo-") as name:
            yield f"sqlite:///{name}/iom.db", Path(name)
        return
    if not store_url.startswith("sqlite:///") or len(store_url) == len("sqlite:///"):
        raise Misconfigured(
            "store", f"the demo keeps its twins beside a SQLite file: sqlite:///orders.db, not {store_url}"
        )
    path = Path(store_url.removeprefix("sqlite:///"))
    folder = path.with_name(path.name + "-twins")
    folder.mkdir(parents=True, exist_ok=True)
    yield store_url, folder


def _run_to_the_end(
    stage: Stage,
    orchestrator: Orchestrator,
    store: SqlStore,
    engine: LocalEngine,
    orders: int,
    seed: int,
    report: Report,
) -> None:
    stage.place(orders, seed)
    for provider in stage.providers:
        if provider.pull is not None:
            engine.schedule(f"pull {provider.name}", 0.5, partial(_pull, orchestrator, provider.name))
    engine.schedule("the people outside", 0.5, stage.work)
    if stage.scenario.optimized:
        engine.schedule("backorder job", 2.0, partial(_release_backorders, orchestrator, store))
    engine.start()
    last: tuple[Counter[str], int] = (Counter(), 0)
    moved_at = time.monotonic()
    while True:
        states = Counter(store.count_by_state())
        completed = states.get("Completed", 0)
        report(Progress(orders, dict(states), completed))
        if sum(states.values()) >= orders and completed == orders and store.outbox_size() == 0:
            return
        mark = (states, store.outbox_size())
        if mark != last:
            last, moved_at = mark, time.monotonic()
        if time.monotonic() - moved_at > STALLED_AFTER:
            return
        time.sleep(0.1)


def _pull(orchestrator: Orchestrator, system: System, now: datetime) -> None:
    orchestrator.pull(system, now)


def _release_backorders(orchestrator: Orchestrator, store: SqlStore, now: datetime) -> None:
    """Run the backorder job: orders with lines that wait for stock go the same way again."""
    orchestrator.run_job("backorder", ev.BACKORDER_DUE, held_for_stock(store), now.isoformat())


def _result(stage: Stage, store: SqlStore, orders: int, troubles: Counter[str], seconds: float) -> DemoResult:
    found = list(store.orders())
    problems = [problem for order in found for problem in stage.problems(order)]
    if len(found) != orders:
        problems.append(f"{orders} orders were placed, {len(found)} arrived")
    if problems:
        # What went wrong on the way and was overcome is no problem; where something wasn't, it says why.
        problems += [f"{what} ({count} times)" for what, count in troubles.most_common(5)]
    return DemoResult(
        stage.scenario.name,
        len(found),
        sum(order.status.state == "Completed" for order in found),
        sum(order.status.state == "On Hold" for order in found),
        len(store.errors()),
        stage.calls(),
        seconds,
        tuple(detail(order) for order in found),
        tuple(problems),
    )


def detail(order: SalesOrder) -> dict[str, Any]:
    """Return one order as ``orders_detail`` shows it."""
    return {
        "order_id": order.id,
        "external_ids": {each.system: each.id for each in order.externals if each.entity == "order"},
        "state": order.status.state,
        "reason": order.status.reason,
        "timeline": [
            {"at": each.at.isoformat(), "event": each.event, "state": each.state, "reason": each.reason}
            for each in order.timeline
        ],
        "ordered_total": str(order.total.amount),
        "invoiced_total": str(order.invoiced_total.amount),
        "currency": order.currency,
    }
