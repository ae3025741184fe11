"""The local engine: worker threads of one process that drain the outbox, and a thread for each schedule.

The engine runs and waits; when to try again is decided by `iom_core.retry`, from the kind of fault alone.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, runtime_checkable

from iom_adapters._clock import Clock, utc_now
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import ActionDone, ActionFailed
from iom_core.order import Command, SalesOrder
from iom_core.ports import Conflict, Due
from iom_core.retry import ActionLimits, Backoff, next_try
from iom_core.values import OrderId, System


class Runner(Protocol):
    """What the engine runs commands with: the orchestrator."""

    def perform(self, command: Command, order: SalesOrder) -> ActionDone | ActionFailed:
        """Call the provider's port, outside any transaction; raises a `Fault` when there is no outcome."""
        ...

    def settle(self, command: Command, outcome: ActionDone | ActionFailed, at: datetime) -> None:
        """Handle the outcome as a message and finish the command, in one transaction.

        Settling a command again changes nothing. Raises `Conflict` when somebody else saved the order first.
        """
        ...


class Queue(Protocol):
    """The part of an `OrderStore` that the engine works from; see `iom_core.ports.OrderStore`."""

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        """Hand out commands that are due, but none for the providers in *skip*."""
        ...

    def postpone(self, command_key: str, until: datetime, why: str) -> None:
        """Give a command back to be tried again at *until*."""
        ...

    def next_due(self) -> datetime | None:
        """Return when the next command is due; ``None`` when the outbox is empty."""
        ...

    def load(self, order_id: OrderId) -> SalesOrder | None:
        """Load an order."""
        ...


@runtime_checkable
class Leases(Protocol):
    """What a durable queue can do besides: look after the leases of the commands that are out."""

    def release_leases(self) -> int:
        """Make every command due that an earlier process of ours had out."""
        ...

    def renew(self, command_keys: Collection[str], lease_until: datetime) -> None:
        """Keep commands that are still running from being handed out again before *lease_until*."""
        ...


Report = Callable[[str, BaseException], None]
"""Hears what went wrong and nobody else is told: what was going on, and the exception."""

SETTLE_ATTEMPTS: Final = 10
"""How often an outcome is tried to be settled while others keep saving the same order."""


def _default_limits(provider: System, action: str) -> ActionLimits:
    return ActionLimits()


def _tell_nobody(what: str, broken: BaseException) -> None:
    """Ignore it."""


class LocalEngine:
    """An `Engine` in one process: *workers* threads run the commands that are due, oldest first.

    Commands of one order never run at the same time; commands of different orders don't wait for each other, and
    at most *per_provider* of them (by default one less than there are workers) are with one provider, so that a
    slow one leaves workers to the others.

    *runner* performs and settles, *limits* says how long a (provider, action) is tried, *chance* draws the waits
    between attempts, *report* hears of faults in jobs and of bugs. A command is leased for *lease_for* and the
    lease renewed while it runs; a process that dies leaves its commands to the next `start`, or, with another
    owner, to the end of the lease. Whoever puts commands into the outbox calls `wake`; what other processes put
    there is found within *poll* seconds.
    """

    def __init__(
        self,
        store: Queue,
        runner: Runner,
        *,
        chance: random.Random,
        limits: Callable[[System, str], ActionLimits] = _default_limits,
        workers: int = 4,
        per_provider: int | None = None,
        clock: Clock = utc_now,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        lease_for: timedelta = timedelta(seconds=60),
        poll: float = 1.0,
        report: Report = _tell_nobody,
    ) -> None:
        if workers < 1 or (per_provider is not None and per_provider < 1):
            raise ValueError("an engine needs at least one worker, and one per provider")
        self._store = store
        self._runner = runner
        self._chance = chance
        self._limits = limits
        self._workers = workers
        self._per_provider = per_provider or max(1, workers - 1)
        self._clock = clock
        self._backoff = backoff
        self._lease_for = lease_for
        self._poll = poll
        self._report = report
        self._jobs: dict[str, tuple[float, Callable[[datetime], None]]] = {}
        self._threads: list[threading.Thread] = []
        # One command is taken at a time, so that the count of a provider's running commands is true when it is
        # compared. _change guards everything below it and wakes whoever waits.
        self._taking = threading.Lock()
        self._change = threading.Condition()
        self._changes = 0
        self._stopping = True
        self._halt = threading.Event()
        self._running: dict[str, Command] = {}

    def schedule(self, name: str, every: float, job: Callable[[datetime], None]) -> None:
        """Run *job* every *every* seconds, once at a time, in a thread of its own; first at once.

        After a fault it backs off, up to the longest wait or its own period, whichever is more; no other job
        waits for it. Raises `ValueError` when there is a job of that name or *every* isn't positive.
        """
        if not every > 0:
            raise ValueError(f"job {name!r} needs a period above zero seconds, not {every}")
        with self._change:
            if name in self._jobs:
                raise ValueError(f"there is a job {name!r} already")
            self._jobs[name] = (every, job)
            if not self._stopping:
                self._spawn(f"job {name}", partial(self._run_job, name, every, job))

    def start(self) -> None:
        """Begin; also takes up at once what an earlier process left undone. Does nothing when it has begun."""
        with self._change:
            if not self._stopping:
                return
            if isinstance(self._store, Leases):
                self._store.release_leases()
            self._stopping = False
            self._halt.clear()
            self._spawn("leases", self._renew_leases)
            for number in range(self._workers):
                self._spawn(f"worker {number + 1}", self._work)
            for name, (every, job) in self._jobs.items():
                self._spawn(f"job {name}", partial(self._run_job, name, every, job))

    def stop(self) -> None:
        """Finish what is running, start nothing new, and return when done. Does nothing when it has stopped.

        Called from a job or a worker it can't wait for itself: it returns when the others are done.
        """
        with self._change:
            self._stopping = True
            self._halt.set()
            self._changes += 1
            self._change.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._change:
            self._threads = [thread for thread in self._threads if thread.is_alive()]

    def wake(self) -> None:
        """Look at the outbox now: there may be something new in it, or the time may have moved."""
        with self._change:
            self._changes += 1
            self._change.notify_all()

    def run_due(self) -> int:
        """Run, in this thread, what is due until nothing is; return how many commands that were.

        For programs that bring their own loop, and for tests that bring their own clock.
        """
        count = 0
        while (due := self._take()) is not None:
            self._run(due)
            count += 1
        return count

    def run_until_idle(self, timeout: float) -> bool:
        """Wait until the outbox is empty and nothing runs, retries included; ``False`` after *timeout* seconds.

        An engine that hasn't started runs for just that long.
        """
        deadline = time.monotonic() + timeout
        with self._change:
            started = not self._stopping
        self.start()
        try:
            while True:
                with self._change:
                    seen = self._changes
                    busy = bool(self._running)
                if not busy and self._store.next_due() is None:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._wait(seen, min(left, self._poll))
        finally:
            if not started:
                self.stop()

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        # A daemon: whoever forgets to stop leaves a lease behind, not a process that never ends.
        thread = threading.Thread(target=target, name=f"iom {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _wait(self, seen: int, seconds: float) -> None:
        """Wait until something changed since *seen*, at most so many seconds."""
        with self._change:
            self._change.wait_for(lambda: self._stopping or self._changes != seen, max(0.0, seconds))

    def _work(self) -> None:
        failures = 0
        while True:
            with self._change:
                if self._stopping:
                    return
                seen = self._changes
            try:
                due = self._take()
                pause = self._until_next() if due is None else 0.0
                failures = 0
            except Exception as broken:  # noqa: BLE001 - a database that is down must not end the worker
                failures += 1
                due, pause = None, self._backoff.ceiling(failures)
                self._report("taking a command from the outbox", broken)
            if due is None:
                self._wait(seen, pause)
            else:
                self._run(due)

    def _take(self) -> Due | None:
        """Take one command that may run now, and count it as running."""
        with self._taking:
            with self._change:
                counts = Counter(command.provider for command in self._running.values())
            full = [provider for provider, count in counts.items() if count >= self._per_provider]
            now = self._clock()
            taken = self._store.due(now, 1, now + self._lease_for, skip=full)
            for due in taken:
                with self._change:
                    self._running[due.command.key] = due.command
                return due
            return None

    def _until_next(self) -> float:
        """Return how many seconds to wait for something to be due."""
        next_due = self._store.next_due()
        if next_due is None:
            return self._poll
        left = (next_due - self._clock()).total_seconds()
        # What is due but wasn't handed out waits for its order or its provider; their end wakes us.
        return min(left, self._poll) if left > 0 else self._poll

    def _run(self, due: Due) -> None:
        """Run one command to its end: settled, or given back to be tried again."""
        try:
            outcome = self._outcome(due)
            if outcome is not None:
                self._settle(due, outcome)
        except Exception as broken:  # noqa: BLE001 - one command must not end the worker
            self._report(f"running {due.command.key}", broken)
            pause = timedelta(seconds=self._backoff.ceiling(due.attempt))
            self._give_back(due, self._clock() + pause, _say(broken))
        finally:
            with self._change:
                self._running.pop(due.command.key, None)
                self._changes += 1
                self._change.notify_all()

    def _outcome(self, due: Due) -> ActionDone | ActionFailed | None:
        """Perform the action; ``None`` means that it will be tried again."""
        command, limits = due.command, self._limits(due.command.provider, due.command.action)
        if due.attempt > limits.max_attempts:
            # Every attempt so far ended without an outcome, perhaps because it killed the process.
            return ActionFailed(command.key, "unavailable", f"no outcome after {due.attempt - 1} attempts")
        order = self._store.load(command.order_id)
        if order is None:
            return ActionFailed(command.key, "bug", f"there is no order {command.order_id}")
        try:
            return self._runner.perform(command, order)
        except Unavailable as fault:
            return self._try_again(due, limits, fault)
        except Misunderstood as fault:
            return ActionFailed(command.key, "misunderstood", str(fault))
        except Misconfigured as fault:
            return ActionFailed(command.key, "misconfigured", str(fault))
        except (Exception, SystemExit) as bug:  # noqa: BLE001 - a plug-in's bug is its action's failure
            self._report(f"performing {command.key}", bug)
            return ActionFailed(command.key, "bug", _say(bug))

    def _try_again(self, due: Due, limits: ActionLimits, fault: Unavailable) -> ActionFailed | None:
        """Give the command back for another attempt, or give up."""
        again = next_try(fault, due.attempt, due.first_at, self._clock(), limits, self._chance.random(), self._backoff)
        if again is None:
            tries = f"{due.attempt} attempt{'' if due.attempt == 1 else 's'}"
            return ActionFailed(due.command.key, "unavailable", f"{fault} (gave up after {tries})")
        self._give_back(due, again, str(fault))
        return None

    def _give_back(self, due: Due, until: datetime, why: str) -> None:
        try:
            self._store.postpone(due.command.key, until, why)
        except Exception as broken:  # noqa: BLE001 - the end of the lease gives it back as well
            self._report(f"postponing {due.command.key}", broken)

    def _settle(self, due: Due, outcome: ActionDone | ActionFailed) -> None:
        """Settle an outcome; raises what the runner raised when it can't be done."""
        for attempt in range(1, SETTLE_ATTEMPTS + 1):
            try:
                self._runner.settle(due.command, outcome, self._clock())
            except (Conflict, Unavailable):
                if attempt == SETTLE_ATTEMPTS:
                    raise
                self._halt.wait(self._chance.uniform(0.0, 0.001 * 2.0**attempt))
            else:
                return

    def _renew_leases(self) -> None:
        """Keep the leases of running commands alive, so that only a dead process loses them."""
        store = self._store
        while isinstance(store, Leases):
            with self._change:
                period = self._lease_for.total_seconds() / 3
                if self._change.wait_for(lambda: self._stopping and not self._running, period):
                    return
                keys = tuple(self._running)
            try:
                store.renew(keys, self._clock() + self._lease_for)
            except Exception as broken:  # noqa: BLE001 - the next renewal may work
                self._report("renewing leases", broken)

    def _run_job(self, name: str, every: float, job: Callable[[datetime], None]) -> None:
        failures = 0
        while True:
            with self._change:
                if self._stopping:
                    return
            wait = every
            try:
                job(self._clock())
                failures = 0
            except (Exception, SystemExit) as broken:  # noqa: BLE001 - one job must not end the others
                failures += 1
                wait = max(every, self._backoff.ceiling(failures))
                if isinstance(broken, Unavailable) and broken.retry_after is not None:
                    wait = max(every, broken.retry_after)
                self._report(f"job {name}", broken)
            self._halt.wait(wait)


_SECRETS: Final = re.compile(
    r"(?i)(\b(?:bearer|basic)\s+|://[^\s/:@]*:|\b[\w-]*(?:token|secret|password|passwd|api[-_]?key|authorization|sig)"
    r"[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s\"'&,;@]+"
)


def _say(broken: BaseException) -> str:
    """Return an exception's type and message in one short line, with what looks like a secret blotted out."""
    text = " ".join(str(broken).split())[:2_000]
    text = _SECRETS.sub(r"\1***", text)[:300]
    return f"{type(broken).__name__}: {text}" if text else type(broken).__name__
