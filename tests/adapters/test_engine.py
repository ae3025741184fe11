"""The local engine: who is retried, who fails, who never waits for whom, and what a crash leaves."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from iom_adapters.engine import ActionLimits, Backoff, LocalEngine, Runner
from iom_adapters.store import SqlStore
from iom_core.errors import Fault, Misconfigured, Misunderstood, Unavailable
from iom_core.lifecycle import Status
from iom_core.messages import ActionDone, ActionFailed
from iom_core.order import Command, SalesOrder
from iom_core.ports import Conflict, Engine
from iom_core.values import Address, Money, OrderId, System

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHOP, FLEXE = System("bigcommerce"), System("flexe")
Outcome = ActionDone | ActionFailed


def an_order(number: str) -> SalesOrder:
    nothing = Money.zero("USD")
    return SalesOrder(
        id=OrderId(number),
        channel=SHOP,
        status=Status("new", "created"),
        currency="USD",
        total=nothing,
        shipping=nothing,
        handling=nothing,
        discount=nothing,
        lines=(),
        ship_to=Address(),
        bill_to=Address(),
        placed_at=NOW,
        version=1,
    )


def send(store: SqlStore, key: str, order: str = "", provider: System = FLEXE) -> None:
    """Put a command into the outbox, by default with an order of its own."""
    number = OrderId(order or f"order of {key}")
    command = Command(key, number, provider, "submit", "flow", "step")
    with store.begin() as unit:
        before = unit.order(number)
        after = an_order(number) if before is None else attrs.evolve(before, version=before.version + 1)
        unit.save(after, before, (), (command,))


class FakeClock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@attrs.define
class Script:
    """A runner that does what it is told: per command key, what its attempts raise or return, in turn.

    What isn't told succeeds. It keeps what it did.
    """

    store: SqlStore
    attempts: dict[str, list[Exception | Outcome | Callable[[], object]]] = attrs.field(factory=dict)
    settling: list[Exception] = attrs.field(factory=list)
    performed: list[str] = attrs.field(factory=list)
    settled: dict[str, Outcome] = attrs.field(factory=dict)
    together: dict[str, int] = attrs.field(factory=dict)
    most: dict[str, int] = attrs.field(factory=dict)
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def perform(self, command: Command, order: SalesOrder) -> Outcome:
        assert order.id == command.order_id
        names = (command.provider, order.id)
        with self.lock:
            self.performed.append(command.key)
            told = self.attempts.get(command.key)
            step = told.pop(0) if told else None
            for name in names:
                self.together[name] = self.together.get(name, 0) + 1
                self.most[name] = max(self.most.get(name, 0), self.together[name])
        try:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, (ActionDone, ActionFailed)):
                return step
            if step is not None:
                step()
            return ActionDone(command.key)
        finally:
            with self.lock:
                for name in names:
                    self.together[name] -= 1

    def settle(self, command: Command, outcome: Outcome, at: datetime) -> None:
        assert at.tzinfo is not None
        with self.lock:
            if self.settling:
                raise self.settling.pop(0)
        with self.store.begin() as unit:
            unit.finish(command.key)
        with self.lock:
            assert command.key not in self.settled, "each outcome once"
            self.settled[command.key] = outcome


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore.open(f"sqlite:///{tmp_path / 'orders.db'}")
    yield store
    store.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@attrs.define
class Reports:
    """What the engine reported, as text."""

    heard: list[str] = attrs.field(factory=list)

    def __call__(self, what: str, broken: BaseException) -> None:
        self.heard.append(f"{what}: {broken}")


def an_engine(store: SqlStore, runner: Runner, **options: Any) -> LocalEngine:
    return LocalEngine(store, runner, **{"chance": random.Random(7), "poll": 0.05, **options})


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def test_it_is_what_the_ports_ask_for(store: SqlStore) -> None:
    engine: Engine = an_engine(store, Script(store))
    engine.start()
    engine.stop()


def test_an_engine_without_workers_is_refused(store: SqlStore) -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        an_engine(store, Script(store), workers=0)
    with pytest.raises(ValueError, match="at least one worker"):
        an_engine(store, Script(store), per_provider=0)


class TestRetries:
    """Deterministic: one thread, and time only when the test says so."""

    def test_what_succeeds_is_settled_once(self, store: SqlStore, clock: FakeClock) -> None:
        script = Script(store)
        send(store, "a")
        send(store, "b")
        assert an_engine(store, script, clock=clock).run_due() == 2
        assert script.settled == {"a": ActionDone("a"), "b": ActionDone("b")}
        assert store.next_due() is None

    def test_a_business_no_is_an_outcome_not_a_retry(self, store: SqlStore, clock: FakeClock) -> None:
        no = ActionFailed("a", "refused", "closed on Sundays")
        script = Script(store, {"a": [no]})
        send(store, "a")
        an_engine(store, script, clock=clock).run_due()
        assert script.settled == {"a": no}

    def test_unavailable_is_tried_again_later_and_says_why_it_waits(self, store: SqlStore, clock: FakeClock) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "503"), Unavailable("flexe", "503 again")]})
        send(store, "a")
        engine = an_engine(store, script, clock=clock, backoff=Backoff(first=10, longest=15))
        assert engine.run_due() == 1
        (pending,) = store.pending()
        assert NOW < pending.due_at <= NOW + timedelta(seconds=10)
        assert pending.why == "flexe: 503"
        assert engine.run_due() == 0
        clock.advance(10)
        engine.run_due()
        (pending,) = store.pending()
        assert clock.now < pending.due_at <= clock.now + timedelta(seconds=15)
        clock.advance(15)
        engine.run_due()
        assert script.performed == ["a", "a", "a"]
        assert script.settled == {"a": ActionDone("a")}

    def test_waits_are_the_same_for_the_same_seed(self, tmp_path: Path) -> None:
        waits = []
        for name in ("one", "two"):
            clock, store = FakeClock(), SqlStore.open(f"sqlite:///{tmp_path / name}")
            script = Script(store, {"a": [Unavailable("flexe", "503")] * 5})
            send(store, "a")
            engine, drawn = an_engine(store, script, clock=clock), []
            for _ in range(5):
                engine.run_due()
                drawn.append((store.pending()[0].due_at - clock.now).total_seconds())
                clock.advance(300)
            waits.append(drawn)
            store.close()
        assert waits[0] == waits[1]
        assert all(wait <= limit for wait, limit in zip(waits[0], (1, 2, 4, 8, 16)))

    def test_a_time_they_ask_for_is_honored(self, store: SqlStore, clock: FakeClock) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "429", retry_after=120.0)]})
        send(store, "a")
        engine = an_engine(store, script, clock=clock)
        engine.run_due()
        due_at = store.next_due()
        assert due_at is not None
        assert NOW + timedelta(seconds=120) <= due_at <= NOW + timedelta(seconds=121)
        clock.advance(119)
        assert engine.run_due() == 0
        clock.advance(2)
        assert engine.run_due() == 1
        assert script.settled == {"a": ActionDone("a")}

    @pytest.mark.parametrize("asked", [1e18, 7200.0])
    def test_a_time_beyond_the_limit_fails_at_once(self, store: SqlStore, clock: FakeClock, asked: float) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "429", retry_after=asked)]})
        send(store, "a")
        an_engine(store, script, clock=clock).run_due()
        assert script.settled == {"a": ActionFailed("a", "unavailable", "flexe: 429 (gave up after 1 attempt)")}

    @pytest.mark.parametrize("asked", [-5.0, float("nan"), float("inf")])
    def test_nonsense_in_what_they_ask_for_is_a_short_wait(
        self, store: SqlStore, clock: FakeClock, asked: float
    ) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "429", retry_after=asked)]})
        send(store, "a")
        engine = an_engine(store, script, clock=clock)
        engine.run_due()
        clock.advance(1)
        engine.run_due()
        assert script.settled == {"a": ActionDone("a")}

    def test_after_the_last_attempt_it_fails_as_unavailable(self, store: SqlStore, clock: FakeClock) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "503")] * 9})
        send(store, "a")
        engine = an_engine(store, script, clock=clock, limits=lambda provider, action: ActionLimits(max_attempts=3))
        while store.next_due() is not None:
            engine.run_due()
            clock.advance(60)
        assert script.performed == ["a"] * 3
        assert script.settled == {"a": ActionFailed("a", "unavailable", "flexe: 503 (gave up after 3 attempts)")}

    def test_the_time_limit_counts_from_the_first_attempt(self, store: SqlStore, clock: FakeClock) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "503")] * 99})
        send(store, "a")
        limits = ActionLimits(max_attempts=99, timeout=timedelta(minutes=5))
        clock.advance(86_400)
        first, last = clock.now, clock.now
        engine = an_engine(store, script, clock=clock, limits=lambda provider, action: limits)
        while (due_at := store.next_due()) is not None:
            last = clock.now = max(due_at, clock.now)
            engine.run_due()
        assert last == first + timedelta(minutes=5), "one attempt is at the very end"
        assert isinstance(script.settled["a"], ActionFailed)

    def test_limits_are_asked_for_the_provider_and_action(self, store: SqlStore, clock: FakeClock) -> None:
        asked: list[tuple[str, str]] = []

        def limits(provider: System, action: str) -> ActionLimits:
            asked.append((provider, action))
            return ActionLimits()

        send(store, "a")
        an_engine(store, Script(store), clock=clock, limits=limits).run_due()
        assert asked == [(FLEXE, "submit")]

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Misunderstood("flexe", "$.id: missing"), "misunderstood"),
            (Misconfigured("flexe", "401; check the credentials"), "misconfigured"),
        ],
    )
    def test_what_retrying_can_not_mend_fails_at_once(
        self, store: SqlStore, clock: FakeClock, fault: Fault, kind: str
    ) -> None:
        script = Script(store, {"a": [fault]})
        send(store, "a")
        an_engine(store, script, clock=clock).run_due()
        assert script.settled == {"a": ActionFailed("a", kind, str(fault))}

    def test_a_bug_fails_its_own_action_and_no_other(self, store: SqlStore, clock: FakeClock) -> None:
        reports = Reports()
        script = Script(store, {"a": [KeyError("sku")]})
        send(store, "a")
        send(store, "b")
        an_engine(store, script, clock=clock, report=reports).run_due()
        assert script.settled == {"a": ActionFailed("a", "bug", "KeyError: 'sku'"), "b": ActionDone("b")}
        assert reports.heard == ["performing a: 'sku'"]

    def test_a_plug_in_that_exits_does_not_take_the_engine_along(self, store: SqlStore, clock: FakeClock) -> None:
        def leave() -> None:
            raise SystemExit(3)

        script = Script(store, {"a": [leave]})
        send(store, "a")
        an_engine(store, script, clock=clock).run_due()
        assert script.settled == {"a": ActionFailed("a", "bug", "SystemExit: 3")}

    @pytest.mark.parametrize(
        "leak",
        [
            "Authorization: Bearer hunter2",
            "access_token=hunter2&x=1",
            "{'client_secret': 'hunter2'}",
            "https://user:hunter2@host/",
            "X-Auth-Token: hunter2",
            "api_key = hunter2",
        ],
    )
    def test_a_bug_s_message_leaks_no_secret(self, store: SqlStore, clock: FakeClock, leak: str) -> None:
        script = Script(store, {"a": [RuntimeError(f"can't send {leak} to flexe\n" + "x" * 5000)]})
        send(store, "a")
        an_engine(store, script, clock=clock).run_due()
        failed = script.settled["a"]
        assert isinstance(failed, ActionFailed)
        assert "hunter2" not in failed.what
        assert failed.what.startswith("RuntimeError: can't send")
        assert "\n" not in failed.what
        assert len(failed.what) < 400

    def test_a_command_without_an_order_fails_and_does_not_stop_the_others(
        self, store: SqlStore, clock: FakeClock
    ) -> None:
        lost = Command("a", OrderId("nobody"), FLEXE, "submit", "flow", "step")
        with store.begin() as unit:
            unit.save(an_order("somebody"), None, (), (lost,))
        script = Script(store)
        an_engine(store, script, clock=clock).run_due()
        assert script.settled == {"a": ActionFailed("a", "bug", "there is no order nobody")}

    def test_a_command_that_kills_its_process_is_not_tried_forever(self, store: SqlStore, clock: FakeClock) -> None:
        send(store, "a")
        for _ in range(8):
            assert len(store.due(clock.now, 1, clock.now + timedelta(seconds=60))) == 1
            clock.advance(60)
        script = Script(store)
        an_engine(store, script, clock=clock).run_due()
        assert script.performed == []
        assert script.settled == {"a": ActionFailed("a", "unavailable", "no outcome after 8 attempts")}


class TestSettling:
    def test_a_conflict_is_settled_again(self, store: SqlStore, clock: FakeClock) -> None:
        script = Script(store, settling=[Conflict("a"), Unavailable("store", "locked"), Conflict("a")])
        send(store, "a")
        an_engine(store, script, clock=clock).run_due()
        assert script.performed == ["a"]
        assert script.settled == {"a": ActionDone("a")}

    def test_conflicts_without_end_put_the_command_off(self, store: SqlStore, clock: FakeClock) -> None:
        reports = Reports()
        script = Script(store, settling=[Conflict("a")] * 10)
        send(store, "a")
        engine = an_engine(store, script, clock=clock, report=reports)
        engine.run_due()
        assert script.settled == {}
        assert reports.heard == ["running a: a"]
        assert store.pending()[0].why == "Conflict: a"
        clock.advance(1)
        engine.run_due()
        assert script.settled == {"a": ActionDone("a")}

    def test_a_bug_in_settling_is_seen_and_stops_nobody_else(self, store: SqlStore, clock: FakeClock) -> None:
        reports = Reports()
        script = Script(store, settling=[ZeroDivisionError("oh")])
        send(store, "a")
        send(store, "b")
        engine = an_engine(store, script, clock=clock, report=reports)
        engine.run_due()
        assert script.settled == {"b": ActionDone("b")}
        assert reports.heard == ["running a: oh"]
        clock.advance(1)
        engine.run_due()
        assert set(script.settled) == {"a", "b"}


class TestThreads:
    def test_everything_is_run_once_and_never_two_of_an_order(self, store: SqlStore) -> None:
        script = Script(store)
        for number in range(30):
            send(store, f"k{number}", order=f"order {number % 5}")
            script.attempts[f"k{number}"] = [lambda: time.sleep(0.002)]
        engine = an_engine(store, script, per_provider=4)
        assert engine.run_until_idle(30)
        assert sorted(script.performed) == sorted(f"k{number}" for number in range(30))
        assert all(script.most[f"order {number}"] == 1 for number in range(5))

    def test_a_slow_provider_leaves_workers_to_the_others(self, store: SqlStore) -> None:
        gate = threading.Event()
        script = Script(store)
        for number in range(6):
            send(store, f"slow {number}", provider=FLEXE)
            script.attempts[f"slow {number}"] = [lambda: gate.wait(10)]
        for number in range(10):
            send(store, f"fast {number}", provider=SHOP)
        engine = an_engine(store, script, workers=3)
        engine.start()
        eventually(lambda: sum(key.startswith("fast") for key in script.settled) == 10)
        assert not any(key.startswith("slow") for key in script.settled)
        gate.set()
        assert engine.run_until_idle(10)
        engine.stop()
        assert script.most[FLEXE] == 2
        assert len(script.settled) == 16

    def test_a_new_command_wakes_a_worker_at_once(self, store: SqlStore) -> None:
        script = Script(store)
        engine = an_engine(store, script, poll=60.0)
        engine.start()
        time.sleep(0.05)
        send(store, "a")
        engine.wake()
        eventually(lambda: "a" in script.settled, 5)
        engine.stop()

    def test_what_another_process_sends_is_found_by_polling(self, store: SqlStore) -> None:
        script = Script(store)
        engine = an_engine(store, script, poll=0.02)
        engine.start()
        time.sleep(0.05)
        send(store, "a")
        eventually(lambda: "a" in script.settled, 5)
        engine.stop()

    def test_retries_happen_by_themselves(self, store: SqlStore) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "503")] * 3})
        send(store, "a")
        engine = an_engine(store, script, backoff=Backoff(first=0.01, longest=0.02))
        assert engine.run_until_idle(10)
        assert script.performed == ["a"] * 4

    def test_stopping_finishes_what_runs_and_starts_nothing_new(self, store: SqlStore) -> None:
        began, gate = threading.Event(), threading.Event()

        def slow() -> None:
            began.set()
            gate.wait(10)

        script = Script(store, {"a": [slow]})
        send(store, "a")
        send(store, "b")
        engine = an_engine(store, script, workers=1)
        engine.start()
        began.wait(10)
        stopper = threading.Thread(target=engine.stop)
        stopper.start()
        time.sleep(0.05)
        assert stopper.is_alive()
        gate.set()
        stopper.join(10)
        assert script.settled == {"a": ActionDone("a")}
        engine.stop()
        engine.start()
        eventually(lambda: "b" in script.settled)
        engine.stop()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("iom ")]

    def test_a_restart_takes_up_what_a_killed_process_had_out(self, store: SqlStore, clock: FakeClock) -> None:
        send(store, "a")
        assert len(store.due(clock.now, 1, clock.now + timedelta(hours=1))) == 1
        script = Script(store)
        engine = an_engine(store, script, clock=clock)
        assert engine.run_due() == 0, "the lease of the killed process still holds"
        engine.start()
        eventually(lambda: "a" in script.settled)
        engine.stop()

    def test_a_command_that_takes_longer_than_its_lease_runs_once(self, store: SqlStore) -> None:
        script = Script(store, {"a": [lambda: time.sleep(0.5)]})
        send(store, "a")
        engine = an_engine(store, script, lease_for=timedelta(seconds=0.15), per_provider=4, poll=0.01)
        assert engine.run_until_idle(10)
        assert script.performed == ["a"]

    def test_a_database_that_is_down_for_a_while_ends_no_worker(self, store: SqlStore) -> None:
        @attrs.define
        class Shaky:
            """A store that fails the first times it is asked."""

            inner: SqlStore
            failures: int = 5

            def due(self, *args: Any, **options: Any) -> Any:
                if self.failures > 0:
                    self.failures -= 1
                    raise Unavailable("store", "locked")
                return self.inner.due(*args, **options)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        reports, script = Reports(), Script(store)
        send(store, "a")
        engine = LocalEngine(
            Shaky(store), script, chance=random.Random(1), backoff=Backoff(0.001, 0.01), report=reports
        )
        assert engine.run_until_idle(10)
        assert script.settled == {"a": ActionDone("a")}
        assert "taking a command from the outbox: store: locked" in reports.heard

    def test_idle_has_a_time_limit(self, store: SqlStore) -> None:
        script = Script(store, {"a": [Unavailable("flexe", "429", retry_after=600.0)]})
        send(store, "a")
        assert not an_engine(store, script).run_until_idle(0.2)
        assert script.performed == ["a"]


class TestJobs:
    def test_a_job_runs_again_and_again_once_at_a_time(self, store: SqlStore, clock: FakeClock) -> None:
        at: list[datetime] = []
        together = [0]

        def job(now: datetime) -> None:
            together[0] += 1
            assert together[0] == 1
            time.sleep(0.01)
            at.append(now)
            together[0] -= 1

        engine = an_engine(store, Script(store), clock=clock)
        engine.schedule("pull", 0.001, job)
        engine.start()
        eventually(lambda: len(at) >= 3)
        engine.stop()
        count = len(at)
        time.sleep(0.05)
        assert len(at) == count
        assert set(at) == {NOW}

    def test_a_job_that_fails_is_reported_and_backs_off_while_others_go_on(self, store: SqlStore) -> None:
        reports, good, bad = Reports(), [0], [0]

        def works(now: datetime) -> None:
            good[0] += 1

        def fails(now: datetime) -> None:
            bad[0] += 1
            raise ZeroDivisionError("oh")

        engine = an_engine(store, Script(store), report=reports, backoff=Backoff(first=0.05, longest=60))
        engine.start()
        engine.schedule("bad", 0.001, fails)
        engine.schedule("good", 0.001, works)
        eventually(lambda: good[0] >= 50)
        engine.stop()
        assert 1 <= bad[0] <= 8
        assert set(reports.heard) == {"job bad: oh"}

    def test_a_job_may_stop_the_engine(self, store: SqlStore) -> None:
        stopped = threading.Event()

        def job(now: datetime) -> None:
            engine.stop()
            stopped.set()

        engine = an_engine(store, Script(store))
        engine.schedule("last", 1.0, job)
        engine.start()
        assert stopped.wait(10)
        engine.stop()

    def test_a_job_needs_a_name_of_its_own_and_a_period(self, store: SqlStore) -> None:
        engine = an_engine(store, Script(store))
        engine.schedule("pull", 1.0, lambda now: None)
        with pytest.raises(ValueError, match="already"):
            engine.schedule("pull", 1.0, lambda now: None)
        with pytest.raises(ValueError, match="above zero"):
            engine.schedule("push", 0.0, lambda now: None)
