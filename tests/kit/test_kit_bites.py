"""The kit catches cheats: each planted bug breaks the promises meant for it, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest
from returns.result import Failure, Result, Success

from iom_core import messages as msg
from iom_core.errors import Misconfigured, Unavailable
from iom_core.messages import ActionFailed, Message, OrderDraft, Rejected
from iom_core.order import Command, Happened, SalesOrder
from iom_core.outcome import Refused
from iom_core.ports import (
    BillingRequest,
    Due,
    ErpRequest,
    FulfillmentRequest,
    Pulled,
    Receipt,
    StatusUpdate,
)
from iom_core.testing import (
    FakeChannel,
    FakeDistances,
    FakeErp,
    FakeFulfiller,
    FakeInventory,
    FakeRates,
    MemoryStore,
)
from iom_core.testing import conformance as kit
from iom_core.testing import harnesses as ready
from iom_core.testing.fakes import MemoryUnit
from iom_core.values import GeoPoint, MessageId, Money, ProductId, SourceId, System

Harness = Callable[[], Any]


def caught(promises: type[kit.Conformance], harness: Harness, *names: str) -> None:
    """Assert that exactly the tests of those names fail."""
    assert kit.broken_promises(promises, harness) == tuple(sorted(names))


def no(what: str) -> Failure[Refused]:
    return Failure(Refused("no", what))


# -- sources ---------------------------------------------------------------------------------------------------------


class Stutters(FakeChannel):
    """Gives every pull other ids."""

    pulls = 0

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        pulled = super().pull(checkpoint, now)
        self.pulls += 1
        fresh = [attrs.evolve(each, id=MessageId(f"{self.pulls}/{each.id}")) for each in pulled.messages]
        return attrs.evolve(pulled, messages=tuple(fresh))


class Stumbles(FakeChannel):
    """Says nothing of what comes after a malformed order."""

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        pulled = super().pull(checkpoint, now)
        bad = [n for n, each in enumerate(pulled.messages) if isinstance(each, Rejected)]
        return attrs.evolve(pulled, messages=pulled.messages[: bad[0] + 1]) if bad else pulled


class LosesCents(FakeChannel):
    """Rounds what it has no business to round."""

    def place(self, draft: OrderDraft, at: datetime) -> None:
        super().place(attrs.evolve(draft, total=draft.total + Money.of("0.01", "USD")), at)


class Believes(FakeChannel):
    """Takes every notification for true."""

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        return Success((body.decode("utf-8", "replace")[:20],))


class Chokes(FakeChannel):
    """Raises on bytes it doesn't like."""

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        body.decode()
        return super().translate(headers, body)


class Humble(FakeChannel):
    """Can do more than it says."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = frozenset()


class SilentWhenDown(FakeChannel):
    """Says that nothing happened when it couldn't look."""

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        try:
            return super().pull(checkpoint, now)
        except Unavailable:
            return Pulled((), checkpoint)


@pytest.mark.parametrize(
    ("cheat", "names"),
    [
        (
            Stutters,
            (
                "test_a_checkpoint_outlives_the_process",
                "test_a_pull_can_be_repeated",
                "test_an_old_checkpoint_misses_nothing",
                "test_an_order_can_be_read_again",
                "test_what_is_malformed_is_rejected_and_stops_nobody",
            ),
        ),
        (Stumbles, ("test_what_is_malformed_is_rejected_and_stops_nobody",)),
        (LosesCents, ("test_an_order_comes_whole",)),
        (Believes, ("test_a_forged_notification_is_refused", "test_a_notification_of_nonsense_is_refused")),
        (Chokes, ("test_a_notification_of_nonsense_is_refused",)),
        (Humble, ("test_a_notification_is_understood_if_declared",)),
        (SilentWhenDown, ("test_a_pull_from_a_system_that_is_down_is_a_fault",)),
    ],
)
def test_cheating_sources_are_caught(cheat: type[FakeChannel], names: Sequence[str]) -> None:
    caught(kit.OrderSourceConformance, lambda: ready.ChannelSource(cheat()), *names)


# -- sinks -----------------------------------------------------------------------------------------------------------


class TellsTwice(FakeChannel):
    """Has no memory for keys."""

    def update(self, order: SalesOrder, update: StatusUpdate) -> Result[Receipt, Refused]:
        self._keys.clear()
        return super().update(order, update)


class ForgetsShipments(FakeChannel):
    """Tells only the first parcel."""

    def update(self, order: SalesOrder, update: StatusUpdate) -> Result[Receipt, Refused]:
        return super().update(order.with_(shipments=order.shipments[:1]), update)


class RefusesWhenDown(FakeChannel):
    """Says no when nobody answered."""

    def update(self, order: SalesOrder, update: StatusUpdate) -> Result[Receipt, Refused]:
        down = bool(self.failures.before)
        try:
            return super().update(order, update)
        except Unavailable:
            if down:
                return no("the shop does not answer")
            raise


@pytest.mark.parametrize(
    ("cheat", "names"),
    [
        (TellsTwice, ("test_a_lost_answer_tells_nothing_twice", "test_repeating_a_key_tells_nothing_new")),
        (
            ForgetsShipments,
            (
                "test_a_lost_answer_tells_nothing_twice",
                "test_a_status_and_its_shipments_are_told",
                "test_being_down_is_a_fault_and_no_refusal",
                "test_repeating_a_key_tells_nothing_new",
                "test_the_next_status_tells_only_new_shipments",
            ),
        ),
        (RefusesWhenDown, ("test_being_down_is_a_fault_and_no_refusal",)),
    ],
)
def test_cheating_sinks_are_caught(cheat: type[FakeChannel], names: Sequence[str]) -> None:
    caught(kit.StatusSinkConformance, lambda: ready.ChannelSink(cheat()), *names)


# -- fulfillment -----------------------------------------------------------------------------------------------------


class KeepsKeysAtHome(FakeFulfiller):
    """Recognizes a repeated key only if this process heard the answer; *books* is what the warehouse will ship."""

    def __init__(self) -> None:
        super().__init__()
        self.books: list[str] = []
        self.heard: dict[str, Receipt] = {}
        self.never_heard = False

    def submit(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        if request.key in self.heard and not self.never_heard:
            return Success(self.heard[request.key])
        lost = bool(self.failures.after)
        try:
            answer = super().submit(request)
        finally:
            if lost:
                self.books.append(request.fulfillment_order)
        if isinstance(answer, Success):
            if not lost:
                self.books.append(request.fulfillment_order)
            self.heard[request.key] = answer.unwrap()
        return answer


class Doubles(KeepsKeysAtHome):
    """Ships once more with each request."""

    def __init__(self) -> None:
        super().__init__()
        self.never_heard = True


class Books(ready.Fulfiller):
    """Looks into the books of a provider that keeps some."""

    def __init__(self, provider: KeepsKeysAtHome) -> None:
        super().__init__(provider)
        self._books = provider

    def placed(self) -> Sequence[str]:
        return [each for each in self._books.books if each not in self._books.canceled]

    def restart(self) -> None:
        self._books.heard.clear()


class ForgetsAShipment(FakeFulfiller):
    """Tells only the first parcel of a fulfillment order."""

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        pulled = super().pull(checkpoint, now)
        return attrs.evolve(pulled, messages=tuple(each for each in pulled.messages if not each.id.endswith("-P2")))


class SaysNoWhenDown(FakeFulfiller):
    """Says no when nobody answered."""

    def submit(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        if self.failures.before:
            return no("the warehouse does not answer")
        return super().submit(request)


class RemembersANo(FakeFulfiller):
    """Never asks again."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, Result[Receipt, Refused]] = {}

    def submit(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        answer = self.refused.get(request.key) or super().submit(request)
        if isinstance(answer, Failure):
            self.refused[request.key] = answer
        return answer


class CancelsOnTheSly(FakeFulfiller):
    """Doesn't say that it can cancel, nor that it ships in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = frozenset()


class Boasts(FakeFulfiller):
    """Says that it can cancel and can't."""

    def cancel(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        self.failures.strike()
        return no("we never cancel")


class CallsBackTrucks(FakeFulfiller):
    """Cancels what has left."""

    def cancel(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        self.failures.strike()
        self.canceled.add(request.fulfillment_order)
        return Success(Receipt("FX"))


@pytest.mark.parametrize(
    ("harness", "names"),
    [
        (
            lambda: Books(KeepsKeysAtHome()),
            ("test_a_lost_answer_ships_once", "test_a_retry_by_another_process_ships_once"),
        ),
        (
            lambda: Books(Doubles()),
            (
                "test_a_lost_answer_ships_once",
                "test_a_retry_by_another_process_ships_once",
                "test_submitting_twice_ships_once",
            ),
        ),
        (lambda: ready.Fulfiller(ForgetsAShipment()), ("test_it_ships_in_parts_if_declared",)),
        (lambda: ready.Fulfiller(SaysNoWhenDown()), ("test_being_down_is_a_fault_and_no_refusal",)),
        (lambda: ready.Fulfiller(RemembersANo()), ("test_a_no_is_a_value_and_changes_nothing",)),
        (
            lambda: ready.Fulfiller(CancelsOnTheSly()),
            ("test_a_fulfillment_order_is_taken_back_if_declared", "test_it_ships_in_parts_if_declared"),
        ),
        (lambda: ready.Fulfiller(Boasts()), ("test_a_fulfillment_order_is_taken_back_if_declared",)),
        (lambda: ready.Fulfiller(CallsBackTrucks()), ("test_what_has_shipped_is_not_taken_back",)),
    ],
)
def test_cheating_providers_are_caught(harness: Harness, names: Sequence[str]) -> None:
    caught(kit.FulfillmentProviderConformance, harness, *names)


# -- the ERP ---------------------------------------------------------------------------------------------------------


class CreatesTwice(FakeErp):
    """Doesn't look for the order it has."""

    def send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        self.by_reference.pop(request.order.id, None)
        return super().send(request)


class GivesUpAtAnError(FakeErp):
    """Sends no line when one fails."""

    def send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        bad = [line.product for line in request.order.lines if line.product in self.blocked]
        return no(f"{bad[0]} is blocked") if bad else super().send(request)


class SendsUnready(FakeErp):
    """Knows no sync filter."""

    def send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        return super().send(attrs.evolve(request, order=request.order.with_(ready_to_sync=True)))


class InvoicesACentMore(FakeErp):
    """Rounds up."""

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        pulled = super().pull(checkpoint, now)
        return attrs.evolve(pulled, messages=tuple(map(_dearer, pulled.messages)))


def _dearer(each: Message | Rejected) -> Message | Rejected:
    if isinstance(each, Message) and isinstance(each.body, msg.Invoiced):
        total = each.body.total + Money.of("0.01", each.body.total.currency)
        return attrs.evolve(each, body=attrs.evolve(each.body, total=total))
    return each


@pytest.mark.parametrize(
    ("cheat", "names"),
    [
        (
            CreatesTwice,
            (
                "test_a_line_that_fails_stops_no_other",
                "test_a_lost_answer_creates_once",
                "test_lines_can_follow_later",
                "test_sending_twice_creates_once",
            ),
        ),
        (GivesUpAtAnError, ("test_a_line_that_fails_stops_no_other",)),
        (SendsUnready, ("test_an_order_that_is_not_ready_is_refused_whole",)),
        (InvoicesACentMore, ("test_the_way_of_the_goods_is_told",)),
    ],
)
def test_cheating_erps_are_caught(cheat: type[FakeErp], names: Sequence[str]) -> None:
    caught(kit.ErpOrdersConformance, lambda: ready.Erp(cheat()), *names)


# -- ledgers ---------------------------------------------------------------------------------------------------------


class InvoicesAgain(FakeErp):
    """Forgets what it has invoiced when it is asked again."""

    def bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        for line in self.orders[self.by_reference[request.order.id]].lines.values():
            line.invoiced = Decimal(0)
        return super().bill(request)


class ForgetsAnInvoice(FakeErp):
    """Never tells the second invoice."""

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        pulled = super().pull(checkpoint, now)
        return attrs.evolve(pulled, messages=tuple(each for each in pulled.messages if "000002" not in each.id))


class SaysNoForADeadLine(FakeErp):
    """Says no when nobody answered."""

    def bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        return no("the ledger does not answer") if self.failures.before else super().bill(request)


@pytest.mark.parametrize(
    ("harness", "names"),
    [
        (lambda: ready.ErpBooks(InvoicesAgain()), ("test_a_request_after_the_invoice_is_no_second_one",)),
        (
            lambda: ready.ErpBooks(ForgetsAnInvoice()),
            (
                "test_a_checkpoint_outlives_the_process",
                "test_after_a_checkpoint_comes_what_is_new",
                "test_one_id_never_means_two_things",
                "test_what_is_malformed_is_rejected_and_stops_nobody",
            ),
        ),
        (lambda: ready.ErpBooks(SaysNoForADeadLine()), ("test_being_down_is_no_refusal",)),
    ],
)
def test_cheating_ledgers_are_caught(harness: Harness, names: Sequence[str]) -> None:
    caught(kit.LedgerConformance, harness, *names)


# -- stock -----------------------------------------------------------------------------------------------------------


class ReservesAgain(FakeInventory):
    """Adds to a reservation when it is repeated."""

    def reserve(self, key: str, source: SourceId, product: ProductId, quantity: Decimal) -> Result[str, Refused]:
        before = self.reserved.pop(key, (source, product, Decimal(0)))[2]
        answer = super().reserve(key, source, product, quantity)
        if key in self.reserved:
            self.reserved[key] = (source, product, quantity + before)
        return answer


class Oversells(FakeInventory):
    """Promises what isn't there."""

    def reserve(self, key: str, source: SourceId, product: ProductId, quantity: Decimal) -> Result[str, Refused]:
        self.reserved.setdefault(key, (source, product, quantity))
        return Success(key)


class ShipsAgain(FakeInventory):
    """Takes stock off the shelf each time it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.last = kit.InventoryConformance._SHELF

    def consume(self, key: str, quantity: Decimal) -> None:
        self.reserved.pop(key, None)
        self.on_hand[self.last] -= quantity


class BurnedKeys(FakeInventory):
    """Never reserves under a key that was released."""

    def __init__(self) -> None:
        super().__init__()
        self.burned: set[str] = set()

    def release(self, key: str) -> None:
        super().release(key)
        self.burned.add(key)

    def reserve(self, key: str, source: SourceId, product: ProductId, quantity: Decimal) -> Result[str, Refused]:
        return Success(key) if key in self.burned else super().reserve(key, source, product, quantity)


@pytest.mark.parametrize(
    ("cheat", "names"),
    [
        (ReservesAgain, ("test_a_lost_answer_reserves_once", "test_reserving_twice_reserves_once")),
        (Oversells, ("test_more_than_there_is_is_refused",)),
        (ShipsAgain, ("test_what_is_consumed_is_gone",)),
        (BurnedKeys, ("test_a_released_key_can_reserve_again",)),
    ],
)
def test_cheating_inventories_are_caught(cheat: type[FakeInventory], names: Sequence[str]) -> None:
    caught(kit.InventoryConformance, lambda: ready.Shelves(cheat()), *names)


# -- stores ----------------------------------------------------------------------------------------------------------


class CommitsHalf(MemoryStore):
    """Keeps what was done until the exception."""

    @contextmanager
    def begin(self) -> Iterator[MemoryUnit]:
        unit = MemoryUnit(self)
        try:
            yield unit
        finally:
            unit.commit()


class CommitsOnStop(MemoryStore):
    """Rolls back for exceptions, but not when the program is being stopped."""

    @contextmanager
    def begin(self) -> Iterator[MemoryUnit]:
        with self._lock:
            unit = MemoryUnit(self)
            try:
                yield unit
            except Exception:
                raise
            except BaseException:
                unit.commit()
                raise
            unit.commit()


class KnowsNoLease(MemoryStore):
    """Hands out the same command to everybody."""

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        handed = super().due(now, limit, lease_until, skip)
        for each in handed:
            self._outbox[each.command.key].leased_until = None
        return handed


class LeasesForever(MemoryStore):
    """Waits for runners that are dead."""

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        return super().due(now, limit, lease_until + timedelta(days=365), skip)


class ForgetsItsInbox(MemoryStore):
    """Empties its inbox whenever a unit begins."""

    @contextmanager
    def begin(self) -> Iterator[MemoryUnit]:
        self._inbox.clear()
        with super().begin() as unit:
            yield unit


class _LastOneWins(MemoryUnit):
    def save(
        self, order: SalesOrder, before: SalesOrder | None, events: Sequence[Happened], commands: Sequence[Command]
    ) -> None:
        super().save(order, self.order(order.id), events, commands)


class LastOneWins(MemoryStore):
    """Lets a stale change overwrite a newer one."""

    @contextmanager
    def begin(self) -> Iterator[MemoryUnit]:
        with self._lock:
            unit = _LastOneWins(self)
            yield unit
            unit.commit()


class RunsAnOrderTwice(MemoryStore):
    """Hands out two commands of one order."""

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        handed: list[Due] = []
        kept = dict(self._outbox)
        for key, queued in kept.items():
            if len(handed) < limit:
                self._outbox = {key: queued}
                handed += super().due(now, 1, lease_until, skip)
        self._outbox = kept
        return tuple(handed)


class Impatient(MemoryStore):
    """Comes back at once when it was told to wait."""

    def postpone(self, command_key: str, until: datetime, why: str) -> None:
        super().postpone(command_key, until - timedelta(minutes=5), why)


class Resurrects(MemoryStore):
    """Shows an error again that somebody has dealt with."""

    def deactivate_error(self, error_id: str) -> bool:
        return self._errors.pop(error_id, None) is not None


class LetsOvertake(MemoryStore):
    """Hands out a later command of an order whose next one is skipped."""

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        kept = dict(self._outbox)
        self._outbox = {key: each for key, each in kept.items() if each.command.provider not in skip}
        handed = super().due(now, limit, lease_until)
        self._outbox = kept
        return handed


class _TakesOver(MemoryUnit):
    def save(
        self, order: SalesOrder, before: SalesOrder | None, events: Sequence[Happened], commands: Sequence[Command]
    ) -> None:
        for each in order.externals:
            if self.find(each.system, each.id) not in (None, order.id):
                self._externals[each.system, each.id] = order.id
        super().save(order, before, events, commands)


class TakesOver(MemoryStore):
    """Gives one order's number to another."""

    @contextmanager
    def begin(self) -> Iterator[MemoryUnit]:
        with self._lock:
            unit = _TakesOver(self)
            yield unit
            unit.commit()


class NoThreads(ready.Memory):
    threads = False


@pytest.mark.parametrize(
    ("cheat", "names"),
    [
        (
            CommitsHalf,
            (
                "test_a_stale_change_is_a_conflict",
                "test_a_unit_that_raises_leaves_nothing",
                "test_a_unit_that_raises_takes_nothing_away",
            ),
        ),
        (CommitsOnStop, ("test_a_unit_that_raises_leaves_nothing",)),
        (
            KnowsNoLease,
            (
                "test_a_command_is_handed_out_once",
                "test_commands_for_a_busy_provider_stay",
                "test_commands_of_one_order_go_one_at_a_time",
                "test_it_says_when_the_next_command_is_due",
                "test_no_command_overtakes_one_for_a_busy_provider",
                "test_no_more_are_handed_out_than_asked_for",
            ),
        ),
        (
            LeasesForever,
            ("test_a_command_whose_runner_died_is_handed_out_again", "test_it_says_when_the_next_command_is_due"),
        ),
        (ForgetsItsInbox, ("test_a_message_is_accepted_once", "test_a_unit_happens_whole")),
        (LastOneWins, ("test_a_new_order_that_is_there_is_a_conflict", "test_a_stale_change_is_a_conflict")),
        (
            RunsAnOrderTwice,
            ("test_commands_of_one_order_go_one_at_a_time", "test_no_command_overtakes_one_for_a_busy_provider"),
        ),
        (LetsOvertake, ("test_no_command_overtakes_one_for_a_busy_provider",)),
        (TakesOver, ("test_a_number_of_another_order_is_a_conflict",)),
        (Impatient, ("test_a_postponed_command_comes_at_its_time",)),
        (Resurrects, ("test_an_error_is_taken_off_the_list_once",)),
    ],
)
def test_cheating_stores_are_caught(cheat: type[MemoryStore], names: Sequence[str]) -> None:
    class Harness(NoThreads):
        def __init__(self) -> None:
            super().__init__(cheat())

    caught(kit.OrderStoreConformance, Harness, *names)


class ForgetsAtRestart(NoThreads):
    """A store whose file is never written."""

    def restart(self) -> None:
        self.store = MemoryStore()


def test_a_store_that_outlives_no_process_is_caught() -> None:
    broken = kit.broken_promises(kit.OrderStoreConformance, ForgetsAtRestart)
    assert {"test_a_unit_happens_whole", "test_a_message_is_accepted_once", "test_an_order_comes_back_equal"} <= set(
        broken
    )


class Races(MemoryStore):
    """Looks, waits for everybody else to look too, and then writes."""

    @contextmanager
    def begin(self) -> Iterator[MemoryUnit]:
        unit = MemoryUnit(self)
        yield unit
        threading.Event().wait(0.01)
        unit.commit()


def test_a_store_that_races_is_caught() -> None:
    broken = kit.broken_promises(kit.OrderStoreConformance, lambda: ready.Memory(Races()))
    assert "test_threads_accept_a_message_once" in broken


# -- engines ---------------------------------------------------------------------------------------------------------


@attrs.define
class PlainEngine:
    """The least that is an `Engine`: one thread for commands and one for each job; its flaws can be switched on."""

    store: MemoryStore
    runner: kit.ScriptedRunner
    gives_up: bool = False
    stubborn: bool = False
    abandons: bool = False
    fragile: bool = False
    impatient: bool = False
    _jobs: list[tuple[float, Callable[[datetime], None]]] = attrs.field(init=False, factory=list)
    _threads: list[threading.Thread] = attrs.field(init=False, factory=list)
    _halt: threading.Event = attrs.field(init=False, factory=threading.Event)

    def schedule(self, name: str, every: float, job: Callable[[datetime], None]) -> None:
        self._jobs.append((every, job))

    def start(self) -> None:
        self._halt.clear()
        works = [self._drain, *(self._repeat(*each) for each in self._jobs)]
        if self.impatient:
            works += [self._repeat(*each) for each in self._jobs]
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._halt.set()
        for thread in () if self.abandons else self._threads:
            thread.join(30)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(1_800_000_000, UTC)

    def _drain(self) -> None:
        while not self._halt.wait(0.005):
            for due in self.store.due(self._now(), 1, self._now() + timedelta(hours=1)):
                self._run(due)

    def _run(self, due: Due) -> None:
        key, order = due.command.key, self.store.load(due.command.order_id)
        assert order is not None
        try:
            outcome = self.runner.perform(due.command, order)
        except Unavailable as fault:
            if not self.gives_up:
                self.store.postpone(key, self._now(), fault.what)
                return
            outcome = ActionFailed(key, "unavailable", fault.what)
        except Misconfigured as fault:
            if self.stubborn:
                self.store.postpone(key, self._now(), fault.what)
                return
            outcome = ActionFailed(key, "misconfigured", fault.what)
        except Exception as bug:  # noqa: BLE001 - a plug-in may raise anything
            outcome = ActionFailed(key, "bug", str(bug))
        self.runner.settle(due.command, outcome, self._now())

    def _repeat(self, every: float, job: Callable[[datetime], None]) -> Callable[[], None]:
        def work() -> None:
            while not self._halt.wait(every):
                try:
                    job(self._now())
                except Exception:  # noqa: BLE001 - the next run may work
                    if self.fragile:
                        return

        return work


class OnPlainEngine:
    def __init__(self, **flaws: bool) -> None:
        self.store = MemoryStore()
        self.runner = kit.ScriptedRunner(self.store)
        self.engine = PlainEngine(self.store, self.runner, **flaws)


@pytest.mark.parametrize(
    ("flaw", "names"),
    [
        ("none", ()),
        ("gives_up", ("test_what_is_unavailable_is_tried_again",)),
        ("stubborn", ("test_what_a_person_must_mend_is_not_tried_again",)),
        ("abandons", ("test_stopping_waits_for_what_is_running",)),
        ("fragile", ("test_a_job_that_fails_runs_again_and_stops_no_other",)),
        ("impatient", ("test_a_job_runs_again_and_again_and_never_twice_at_once",)),
    ],
)
def test_cheating_engines_are_caught(flaw: str, names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wait = kit._eventually
    monkeypatch.setattr(kit, "_eventually", lambda holds, seconds=1.0: wait(holds, min(seconds, 1.0)))
    flaws = {} if flaw == "none" else {flaw: True}
    caught(kit.EngineConformance, lambda: OnPlainEngine(**flaws), *names)


# -- distances and rates ---------------------------------------------------------------------------------------------


class Miles(FakeDistances):
    """Counts in miles."""

    def kilometers(self, origin: GeoPoint, destination: GeoPoint) -> float:
        return super().kilometers(origin, destination) / 1.609344


class Flat(FakeDistances):
    """Takes degrees for a plane."""

    def kilometers(self, origin: GeoPoint, destination: GeoPoint) -> float:
        east = float(abs(origin.longitude - destination.longitude)) * 83
        north = float(abs(origin.latitude - destination.latitude)) * 111
        return float((east**2 + north**2) ** 0.5) + 20_000 * (east > 20_000)


@pytest.mark.parametrize(
    ("cheat", "names"),
    [
        (Miles, ("test_it_crosses_the_date_line", "test_it_is_no_shorter_than_the_great_circle")),
        (Flat, ("test_it_crosses_the_date_line",)),
    ],
)
def test_cheating_distances_are_caught(cheat: type[FakeDistances], names: Sequence[str]) -> None:
    caught(kit.DistancesConformance, lambda: ready.Map(cheat()), *names)


class NothingIsFree(FakeRates):
    """Takes no rate for a rate of zero."""

    def rate(self, carrier: str, origin: GeoPoint, destination: GeoPoint, weight: Decimal) -> Money | None:
        return super().rate(carrier, origin, destination, weight) or Money.zero("USD")


class OnePrice(FakeRates):
    """Asks for one carrier whatever is asked."""

    def rate(self, carrier: str, origin: GeoPoint, destination: GeoPoint, weight: Decimal) -> Money | None:
        return super().rate("UPS" if carrier in self.rates else carrier, origin, destination, weight)


class NoneWhenDown(ready.PriceList):
    """Says that there is no rate when it couldn't ask."""

    def rate(self, carrier: str, origin: GeoPoint, destination: GeoPoint, weight: Decimal) -> Money | None:
        try:
            return super().rate(carrier, origin, destination, weight)
        except Unavailable:
            return None


@pytest.mark.parametrize(
    ("harness", "names"),
    [
        (lambda: ready.PriceList(NothingIsFree()), ("test_a_carrier_without_a_rate_has_none",)),
        (lambda: ready.PriceList(OnePrice()), ("test_a_carrier_has_its_rate",)),
        (NoneWhenDown, ("test_being_down_is_a_fault_and_not_none",)),
    ],
)
def test_cheating_rates_are_caught(harness: Harness, names: Sequence[str]) -> None:
    caught(kit.ShippingRatesConformance, harness, *names)


# -- the guard -------------------------------------------------------------------------------------------------------


def test_an_overridden_promise_is_caught() -> None:
    class Cheats(kit.FulfillmentProviderConformance):
        def test_submitting_twice_ships_once(self, harness: kit.FulfillmentHarness) -> None:
            assert True

    with pytest.raises(AssertionError, match="test_submitting_twice_ships_once"):
        Cheats().test_no_promise_was_overridden()


def test_a_deleted_promise_is_caught() -> None:
    class Cheats(kit.InventoryConformance):
        test_more_than_there_is_is_refused = None  # type: ignore[assignment]  # the cheat is the point

    with pytest.raises(AssertionError, match="test_more_than_there_is_is_refused"):
        Cheats().test_no_promise_was_overridden()


def test_a_hollow_step_of_a_promise_is_caught() -> None:
    class Cheats(kit.OrderStoreConformance):
        def _traces(self, store: object) -> set[str]:
            return set()

    with pytest.raises(AssertionError, match="_traces"):
        Cheats().test_no_promise_was_overridden()


def test_the_guard_itself_stays() -> None:
    with pytest.raises(TypeError, match="declare a missing capability"):
        type("Cheats", (kit.LedgerConformance,), {"test_no_promise_was_overridden": lambda self: None})


def test_tests_of_ones_own_are_welcome() -> None:
    class More(kit.ShippingRatesConformance):
        def test_parcels_to_the_moon_have_no_rate(self) -> None: ...

    More().test_no_promise_was_overridden()


def test_the_kit_has_a_version() -> None:
    assert kit.KIT_VERSION == (1, 0)
