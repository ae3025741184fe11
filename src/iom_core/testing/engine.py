"""The reference engine: one worker, the store's outbox and the one retry policy, nothing clever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from iom_core.errors import Fault
from iom_core.messages import ActionDone, ActionFailed
from iom_core.orchestrator import fault_kind
from iom_core.order import Command, SalesOrder
from iom_core.ports import Due, OrderStore
from iom_core.retry import ActionLimits, Backoff, next_try
from iom_core.values import System


class Runs(Protocol):
    """What an engine runs commands with: the orchestrator."""

    def perform(self, command: Command, order: SalesOrder) -> ActionDone | ActionFailed:
        """Call the provider's port; raises a `Fault` when there is no outcome."""
        ...

    def settle(self, command: Command, outcome: ActionDone | ActionFailed, at: datetime) -> None:
        """Decide on the outcome and take the command out of the outbox."""
        ...


def _usual_limits(_provider: System, _action: str) -> ActionLimits:
    return ActionLimits()


class FakeEngine:
    """An `Engine` with one worker. `run_due` works in the caller's thread, which is all a `World` needs; `start` adds a
    thread for the worker and one per job. Waits between attempts are the middle of what the policy allows.
    """

    def __init__(
        self,
        store: OrderStore,
        runner: Runs,
        clock: Callable[[], datetime],
        *,
        limits: Callable[[System, str], ActionLimits] = _usual_limits,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        poll: float = 0.02,
    ) -> None:
        self._store = store
        self._runner = runner
        self._clock = clock
        self._limits = limits
        self._backoff = backoff
        self._poll = poll
        self._jobs: dict[str, tuple[float, Callable[[datetime], None]]] = {}
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._stopped.set()

    def run_due(self) -> int:
        """Run what is due until nothing is; returns how many commands were run."""
        ran = 0
        while True:
            now = self._clock()
            due = self._store.due(now, 1, now + timedelta(minutes=5))
            if not due:
                return ran
            ran += 1
            self._run(due[0])

    def _run(self, due: Due) -> None:
        command, now = due.command, self._clock()
        order = self._store.load(command.order_id)
        outcome: ActionDone | ActionFailed
        try:
            if order is None:
                raise LookupError(f"there is no order {command.order_id}")
            outcome = self._runner.perform(command, order)
        except Fault as fault:
            limits = self._limits(command.provider, command.action)
            again = next_try(fault, due.attempt, due.first_at, now, limits, 0.5, self._backoff)
            if again is not None:
                self._store.postpone(command.key, again, fault.what)
                return
            outcome = ActionFailed(command.key, fault_kind(fault), fault.what)
        except Exception as bug:  # noqa: BLE001 - a plug-in's bug is its action's failure
            outcome = ActionFailed(command.key, "bug", f"{type(bug).__name__}: {bug}")
        self._runner.settle(command, outcome, self._clock())

    def schedule(self, name: str, every: float, job: Callable[[datetime], None]) -> None:
        """Run *job* every *every* seconds, once at a time; raises `ValueError` for a name that is taken."""
        if name in self._jobs or not every > 0:
            raise ValueError(f"job {name!r} exists, or its period {every} is not above zero")
        self._jobs[name] = (every, job)
        if not self._stopped.is_set():
            self._spawn(partial(self._repeat, every, job))

    def start(self) -> None:
        """Begin; does nothing when it has begun."""
        if self._stopped.is_set():
            self._stopped.clear()
            self._spawn(self._work)
            for every, job in self._jobs.values():
                self._spawn(partial(self._repeat, every, job))

    def stop(self) -> None:
        """Finish what is running, and return when done."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while not self._stopped.is_set():
            now = self._clock()
            due = self._store.due(now, 1, now + timedelta(minutes=5))
            for each in due:
                self._run(each)
            if not due:
                self._stopped.wait(self._poll)

    def _repeat(self, every: float, job: Callable[[datetime], None]) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(Exception):  # a system that is down is asked again at the next turn
                job(self._clock())
            self._stopped.wait(every)
