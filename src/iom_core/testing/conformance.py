"""The conformance kit: one class per port. Inherit it, provide a ``harness`` fixture, and name the class ``Test…``.

    class TestSnail(FulfillmentProviderConformance):
        @pytest.fixture
        def harness(self) -> FulfillmentHarness:
            return SnailTwin()

A *harness* is your adapter plus a few back doors into the system behind it, so that no promise is checked only by
the code that makes it. Every test states one promise of `iom_core.ports`. Two rules keep the kit honest: an ability
that isn't declared must not work (declare it), and a test can't be replaced (`test_no_promise_was_overridden`).

New required tests come only in minor releases and raise `KIT_VERSION`; see docs/writing-an-adapter.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from inspect import signature
from math import isfinite
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs
import pytest
from returns.result import Success

from iom_core import events as ev
from iom_core import messages as msg
from iom_core.errors import Misconfigured, Unavailable
from iom_core.messages import ActionDone, ActionFailed, Message, Rejected
from iom_core.order import Command, ErrorRecord, ExternalId, Happened, SalesOrder, draft_problem
from iom_core.outcome import Refused, failed
from iom_core.ports import (
    BillingRequest,
    Capability,
    Conflict,
    Distances,
    Engine,
    ErpOrders,
    ErpRequest,
    FulfillmentProvider,
    FulfillmentRequest,
    Inventory,
    Ledger,
    OrderSource,
    OrderStore,
    Pulled,
    Receipt,
    ShippingRates,
    StatusSink,
    StatusUpdate,
    Unit,
)
from iom_core.testing.samples import SAMPLE_AT as SAMPLE_AT
from iom_core.testing.samples import SAMPLE_PRODUCTS as SAMPLE_PRODUCTS
from iom_core.testing.samples import sample_draft as sample_draft
from iom_core.testing.samples import sample_order as sample_order
from iom_core.testing.samples import sample_shipped_order as sample_shipped_order
from iom_core.values import GeoPoint, MessageId, Money, OrderId, ProductId, SourceId, System

KIT_VERSION: Final = (1, 0)
"""Grows in its second number with every new required test, in its first when a promise is changed or withdrawn."""

H = TypeVar("H", bound="PullHarness")
R = TypeVar("R")


# -- harnesses -------------------------------------------------------------------------------------------------------


class RemoteHarness(Protocol):
    """What every harness can do to the system behind an adapter, and to the line between them."""

    def go_down(self) -> None:
        """Make the system unreachable, until `come_back`."""
        ...

    def come_back(self) -> None:
        """Make it reachable again."""
        ...

    def restart(self) -> None:
        """Forget what the adapter keeps in memory: from now on the harness hands out one of a new process."""
        ...


class PullHarness(RemoteHarness, Protocol):
    """A system whose news is pulled."""

    @property
    def now(self) -> datetime:
        """Return the time it is there, in UTC; pulls are made at that time."""
        ...

    def plant_malformed(self) -> None:
        """Put something into the system that a pull will meet and can't read."""
        ...


class WriteHarness(PullHarness, Protocol):
    """A system that is also written to."""

    def lose_next_answer(self) -> None:
        """Let the next write take effect and its answer get lost: the adapter raises `Unavailable`."""
        ...


class OrderSourceHarness(PullHarness, Protocol):
    """An `OrderSource`, and a way to place orders that doesn't lead through it."""

    @property
    def source(self) -> OrderSource:
        """Return the adapter."""
        ...

    def place(self, units: int) -> str:
        """Place an order of *units* units of one product, ready to be orchestrated; returns its number there."""
        ...

    def delivery(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of the notification the system sends about that order.

        Without notifications: of what one could look like.
        """
        ...

    def forged(self, number: str) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of such a notification that somebody else sent."""
        ...


class StatusSinkHarness(RemoteHarness, Protocol):
    """A `StatusSink`, and a look at what the channel shows its people."""

    @property
    def sink(self) -> StatusSink:
        """Return the adapter."""
        ...

    def lose_next_answer(self) -> None:
        """Let the next write take effect and its answer get lost: the adapter raises `Unavailable`."""
        ...

    def place(self, order: SalesOrder) -> SalesOrder:
        """Make the channel know *order* as one of its own, and return it with the channel's numbers."""
        ...

    def changes(self, order: SalesOrder) -> int:
        """Return how often the channel's status of the order was changed from outside."""
        ...

    def shipments(self, order: SalesOrder) -> int:
        """Return how many shipments the channel shows for the order."""
        ...


class FulfillmentHarness(WriteHarness, Protocol):
    """A `FulfillmentProvider`, and a way into its warehouse."""

    @property
    def provider(self) -> FulfillmentProvider:
        """Return the adapter."""
        ...

    def refuse(self, why: str) -> None:
        """Let the provider say no to what is submitted from now on; ``""`` ends that."""
        ...

    def placed(self) -> Sequence[str]:
        """Return the fulfillment orders (our ids) the provider will ship or has shipped, once for each time it will."""
        ...

    def ship(self, fulfillment_order: str) -> None:
        """Ship what is left of a fulfillment order (our id)."""
        ...

    def ship_part(self, fulfillment_order: str) -> bool:
        """Ship one unit and keep the rest; ``False`` when the provider's rules don't allow that."""
        ...


class ErpHarness(WriteHarness, Protocol):
    """An `ErpOrders`, and a way into the ERP's own screens."""

    @property
    def orders(self) -> ErpOrders:
        """Return the adapter."""
        ...

    def count(self) -> int:
        """Return how many sales orders the ERP has."""
        ...

    def lines(self, order_id: str) -> Sequence[tuple[str, Decimal]]:
        """Return product and quantity of every line the ERP has for our order."""
        ...

    def block(self, product: str, why: str) -> None:
        """Let the ERP refuse lines with that product; ``""`` ends that."""
        ...

    def work(self) -> None:
        """Let its people bring every order one step further: picked, then shipped, then invoiced."""
        ...

    def cancel(self, order_id: str) -> None:
        """Cancel our order in the ERP."""
        ...


class LedgerHarness(WriteHarness, Protocol):
    """A `Ledger`, and a way into its books."""

    @property
    def ledger(self) -> Ledger:
        """Return the adapter."""
        ...

    def prepare(self, order: SalesOrder) -> SalesOrder:
        """Do what must be before *order* can be billed, and return it with the ledger's numbers, if it has some."""
        ...

    def post(self) -> None:
        """Let its people post every invoice that is to be posted."""
        ...

    def invoices(self, order_id: str) -> int:
        """Return how many invoices of our order are posted."""
        ...


class InventoryHarness(RemoteHarness, Protocol):
    """An `Inventory`, and a way to its shelves."""

    @property
    def inventory(self) -> Inventory:
        """Return the adapter."""
        ...

    def lose_next_answer(self) -> None:
        """Let the next write take effect and its answer get lost: the adapter raises `Unavailable`."""
        ...

    def put(self, source: str, product: str, quantity: Decimal) -> None:
        """Put stock on a shelf."""
        ...

    def on_hand(self, source: str, product: str) -> Decimal:
        """Return what lies on the shelf, reserved or not."""
        ...

    def reserved(self, source: str, product: str) -> Decimal:
        """Return how much of it is reserved."""
        ...


class StoreHarness(Protocol):
    """An `OrderStore`, empty at first."""

    @property
    def store(self) -> OrderStore:
        """Return the store."""
        ...

    @property
    def threads(self) -> bool:
        """Say whether several threads may use the store at once."""
        ...

    def restart(self) -> None:
        """Open the store again as a new process would; a store in memory stays as it is."""
        ...


class EngineHarness(Protocol):
    """An `Engine` that hasn't started, on a store that is empty, with a runner that does what it is told.

    The engine must be set up to try again within a second or so, and to look at the outbox several times a second.
    """

    @property
    def engine(self) -> Engine:
        """Return the engine."""
        ...

    @property
    def store(self) -> OrderStore:
        """Return the store whose outbox the engine drains."""
        ...

    @property
    def runner(self) -> ScriptedRunner:
        """Return what the engine calls to perform and settle commands; it works on the same store."""
        ...


class DistancesHarness(RemoteHarness, Protocol):
    """A `Distances`."""

    @property
    def distances(self) -> Distances:
        """Return the adapter."""
        ...


class RatesHarness(RemoteHarness, Protocol):
    """A `ShippingRates`, and a way to its price list."""

    @property
    def rates(self) -> ShippingRates:
        """Return the adapter."""
        ...

    def set_rate(self, carrier: str, rate: Money) -> None:
        """Let a carrier ask *rate* for every parcel."""
        ...


@attrs.define
class ScriptedRunner:
    """Stands where the orchestrator stands for an engine: performs and settles, as told, and keeps count."""

    store: OrderStore
    attempts: dict[str, list[Exception | ActionFailed]] = attrs.field(factory=dict)
    """Per command key: what its attempts raise or come to, in turn. What isn't told succeeds."""
    performed: list[str] = attrs.field(factory=list)
    """The key of every attempt, as they began."""
    settled: dict[str, ActionDone | ActionFailed] = attrs.field(factory=dict)
    crowded: set[OrderId] = attrs.field(factory=set)
    """Orders of which two commands ran at the same time."""
    _held: dict[str, threading.Event] = attrs.field(factory=dict)
    _running: list[OrderId] = attrs.field(factory=list)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    def hold(self, key: str) -> Callable[[], None]:
        """Let a command run until the returned function is called (at most half a minute)."""
        gate = self._held[key] = threading.Event()
        return gate.set

    def perform(self, command: Command, order: SalesOrder) -> ActionDone | ActionFailed:
        """Run one attempt."""
        with self._lock:
            self.performed.append(command.key)
            if order.id in self._running:
                self.crowded.add(order.id)
            self._running.append(order.id)
            told = self.attempts.get(command.key)
            step = told.pop(0) if told else None
        try:
            if command.key in self._held:
                self._held[command.key].wait(30)
            else:
                _pause(0.005)
            if isinstance(step, Exception):
                raise step
            return step or ActionDone(command.key)
        finally:
            with self._lock:
                self._running.remove(order.id)

    def settle(self, command: Command, outcome: ActionDone | ActionFailed, at: datetime) -> None:
        """Finish a command with its outcome; *at* is in UTC."""
        assert at.tzinfo is not None
        with self.store.begin() as unit:
            unit.finish(command.key)
        with self._lock:
            self.settled[command.key] = outcome


# -- running a kit without pytest ------------------------------------------------------------------------------------


def broken_promises(kit: type[Conformance], harness: Callable[[], Any]) -> tuple[str, ...]:
    """Run every test of *kit*, each on a harness of its own, and return the names of those that failed."""
    broken = []
    for name in sorted(each for each in dir(kit) if each.startswith("test_")):
        promise = getattr(kit(), name)
        try:
            promise(harness()) if signature(promise).parameters else promise()
        except pytest.skip.Exception:
            continue
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however a test fails, the promise is broken
            broken.append(name)
    return tuple(broken)


# -- what all kits share ---------------------------------------------------------------------------------------------

GUARD: Final = "test_no_promise_was_overridden"


class Conformance:
    """What every class of the kit is: a set of promises that can be inherited but not replaced."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse to lose the guard itself."""
        super().__init_subclass__(**more)
        if GUARD in vars(cls):
            raise TypeError(f"{cls.__name__} replaces {GUARD}; declare a missing capability instead")

    def test_no_promise_was_overridden(self) -> None:
        """A missing ability is declared; a test isn't replaced."""
        mine = type(self)
        kit = next(each for each in mine.__mro__ if each.__module__ == __name__)
        ours = [name for name in dir(kit) if not name.startswith("__")]
        assert [name for name in ours if getattr(mine, name, None) is not getattr(kit, name)] == []


def _receipt(answer: Any) -> Receipt:
    assert isinstance(answer, Success), f"refused: {answer.failure()}"
    receipt = answer.unwrap()
    assert isinstance(receipt, Receipt)
    assert receipt.number, "a receipt has a number"
    return receipt


def _refusal(answer: Any) -> Refused:
    assert failed(answer), f"accepted: {answer.unwrap()}"
    refused = answer.failure()
    assert isinstance(refused, Refused)
    assert refused.code
    assert refused.what, "a refusal says what is wrong"
    assert refused.where.startswith("$"), "and where"
    return refused


def _told(order: SalesOrder, system: System, receipt: Receipt) -> SalesOrder:
    """Return the order as it is after the receipt: sent, and with the provider's numbers."""
    numbers = (
        ExternalId(system, ev.ORDER, order.id, receipt.number),
        *(ExternalId(system, ev.LINE, line, number) for line, number in receipt.line_numbers),
    )
    order = order.with_(externals=(*order.externals, *numbers))
    return order.sent(ev.SENT, SAMPLE_AT, provider=system).unwrap().order


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something holds; ``False`` when it doesn't within so many seconds."""
    for _ in range(int(seconds / 0.01)):
        if holds():
            return True
        _pause(0.01)
    return holds()


class _Puller(Protocol):
    @property
    def system(self) -> System: ...

    def pull(self, checkpoint: str, now: datetime) -> Pulled: ...


def _said(each: Message | Rejected) -> object:
    """Return the fact: about which order, and what. Two orders may well say the same of their lines."""
    if isinstance(each, Message):
        return each.external_id, each.order_id, each.body
    return each.external_id, each.what, each.where


class _Pulls(Conformance, Generic[H]):
    """What every puller promises: nothing is missed, everything keeps its id, bad rows don't stop good ones."""

    def _puller(self, harness: H) -> _Puller:
        raise NotImplementedError

    def _happen(self, harness: H, nth: int) -> None:
        """Let something happen that the next pull will tell."""
        raise NotImplementedError

    def _pull(self, harness: H, checkpoint: str = "") -> tuple[list[Message | Rejected], str]:
        """Pull until there is no more for now."""
        found: list[Message | Rejected] = []
        for _ in range(1000):
            pulled = self._puller(harness).pull(checkpoint, harness.now)
            found += pulled.messages
            checkpoint = pulled.checkpoint
            if not pulled.more:
                return found, checkpoint
        pytest.fail("a thousand pulls and there is still more")

    def test_nothing_comes_from_an_empty_system(self, harness: H) -> None:
        """And the checkpoint that comes with it can be used."""
        found, checkpoint = self._pull(harness)
        assert found == []
        self._happen(harness, 1)
        found, _ = self._pull(harness, checkpoint)
        assert found

    def test_every_message_says_whose_it_is(self, harness: H) -> None:
        """The system that sent it, and an order by one number or the other."""
        self._happen(harness, 1)
        found, _ = self._pull(harness)
        assert found
        for each in found:
            assert each.id
            assert each.system == self._puller(harness).system
            assert isinstance(each, Rejected) or each.external_id or each.order_id
            assert isinstance(each, Rejected) or each.at.tzinfo is not None

    def test_a_pull_can_be_repeated(self, harness: H) -> None:
        """The same checkpoint gives the same facts under the same ids."""
        self._happen(harness, 1)
        self._happen(harness, 2)
        first, _ = self._pull(harness)
        again, _ = self._pull(harness)
        assert {each.id: _said(each) for each in again} == {each.id: _said(each) for each in first}

    def test_one_id_never_means_two_things(self, harness: H) -> None:
        """The inbox drops the second message of an id, whatever it says."""
        self._happen(harness, 1)
        self._happen(harness, 2)
        found, _ = self._pull(harness)
        by_id = {each.id: _said(each) for each in found}
        assert [each for each in found if by_id[each.id] != _said(each)] == []
        assert len(by_id) >= 2

    def test_after_a_checkpoint_comes_what_is_new(self, harness: H) -> None:
        """What comes again, because pullers overlap, comes with the id it had."""
        self._happen(harness, 1)
        first, checkpoint = self._pull(harness)
        self._happen(harness, 2)
        second, _ = self._pull(harness, checkpoint)
        known = {each.id for each in first}
        assert [each for each in second if each.id not in known], "the news did not come"
        said = [_said(each) for each in first]
        assert [each for each in second if each.id not in known and _said(each) in said] == []

    def test_an_old_checkpoint_misses_nothing(self, harness: H) -> None:
        """A process that died before it saved its checkpoint pulls from the one before."""
        self._happen(harness, 1)
        _, checkpoint = self._pull(harness)
        self._happen(harness, 2)
        once, _ = self._pull(harness, checkpoint)
        twice, _ = self._pull(harness, checkpoint)
        assert {each.id for each in once} <= {each.id for each in twice}

    def test_a_checkpoint_outlives_the_process(self, harness: H) -> None:
        """All that a puller has to remember is in the checkpoint, and all ids are the sender's."""
        self._happen(harness, 1)
        first, checkpoint = self._pull(harness)
        self._happen(harness, 2)
        harness.restart()
        second, _ = self._pull(harness, checkpoint)
        everything, _ = self._pull(harness)
        assert {each.id for each in second} - {each.id for each in first}
        assert {each.id for each in first} | {each.id for each in second} == {each.id for each in everything}

    def test_what_is_malformed_is_rejected_and_stops_nobody(self, harness: H) -> None:
        """It becomes one `Rejected` that names the place; the others come."""
        self._happen(harness, 1)
        good, _ = self._pull(harness)
        harness.plant_malformed()
        self._happen(harness, 2)
        found, checkpoint = self._pull(harness)
        rejected = [each for each in found if isinstance(each, Rejected)]
        assert rejected, "nothing was rejected"
        for each in rejected:
            assert each.what
            assert each.where.startswith("$")
        came = {each.id for each in found if isinstance(each, Message)}
        assert {each.id for each in good} < came, "the others did not all come"
        again, _ = self._pull(harness)
        assert {each.id for each in rejected} <= {each.id for each in again}, "a rejection has another id each time"
        self._happen(harness, 3)
        later, _ = self._pull(harness, checkpoint)
        assert {each.id for each in later if isinstance(each, Message)} - came, "nothing comes after it any more"

    def test_a_pull_from_a_system_that_is_down_is_a_fault(self, harness: H) -> None:
        """It raises `Unavailable`, and what happened comes when the system is back."""
        _, checkpoint = self._pull(harness)
        self._happen(harness, 1)
        harness.go_down()
        with pytest.raises(Unavailable):
            self._puller(harness).pull(checkpoint, harness.now)
        harness.come_back()
        found, _ = self._pull(harness, checkpoint)
        assert found


# -- orders come from somewhere --------------------------------------------------------------------------------------


class OrderSourceConformance(_Pulls[OrderSourceHarness]):
    """An `OrderSource`: orders come whole, once in effect, and a notification is only a hint."""

    def _puller(self, harness: OrderSourceHarness) -> _Puller:
        return harness.source

    def _happen(self, harness: OrderSourceHarness, nth: int) -> None:
        harness.place(nth)

    def test_an_order_comes_whole(self, harness: OrderSourceHarness) -> None:
        """Under its own number, with every unit, and its amounts add up to the cent."""
        numbers = [harness.place(2), harness.place(3)]
        found, _ = self._pull(harness)
        drafts = {
            each.external_id: each.body.draft
            for each in found
            if isinstance(each, Message) and isinstance(each.body, msg.NewOrder)
        }
        assert sorted(drafts) == sorted(numbers)
        for number, units in zip(numbers, (2, 3)):
            draft = drafts[number]
            assert draft.external_id == number
            assert draft_problem(draft) is None
            assert sum(line.quantity.amount for line in draft.lines) == units
            assert draft.placed_at.tzinfo is not None

    def test_an_order_can_be_read_again(self, harness: OrderSourceHarness) -> None:
        """With the id it is pulled with, so that reading it is no second order."""
        number, other = harness.place(2), harness.place(3)
        pulled, _ = self._pull(harness)
        read = harness.source.read(number, harness.now)
        ids = {each.id for each in pulled if _is_new(each) and each.external_id == number}
        assert len(ids) == 1
        assert [each.id for each in read if _is_new(each)] == list(ids)
        assert all(each.external_id != other for each in read)

    def test_an_order_nobody_has_is_no_order(self, harness: OrderSourceHarness) -> None:
        """A hint may be wrong."""
        harness.place(2)
        assert [each for each in harness.source.read("999999999", harness.now) if isinstance(each, Message)] == []

    def test_reading_from_a_system_that_is_down_is_a_fault(self, harness: OrderSourceHarness) -> None:
        """No answer is not the answer that there is no such order."""
        number = harness.place(2)
        harness.go_down()
        with pytest.raises(Unavailable):
            harness.source.read(number, harness.now)

    def test_a_notification_is_understood_if_declared(self, harness: OrderSourceHarness) -> None:
        """With `Capability.WEBHOOKS` it hints at its order; without, every delivery is refused."""
        number = harness.place(2)
        hints = harness.source.translate(*harness.delivery(number))
        if Capability.WEBHOOKS in harness.source.capabilities:
            assert isinstance(hints, Success), f"refused: {hints.failure()}"
            assert number in hints.unwrap()
        else:
            assert failed(hints), "it understands notifications: declare Capability.WEBHOOKS"

    def test_a_forged_notification_is_refused(self, harness: OrderSourceHarness) -> None:
        """Anybody can reach a webhook."""
        number = harness.place(2)
        _refusal(harness.source.translate(*harness.forged(number)))

    def test_a_notification_of_nonsense_is_refused(self, harness: OrderSourceHarness) -> None:
        """Empty, undecodable, absurdly deep or long: always a refusal, never an exception."""
        headers, _ = harness.delivery(harness.place(2))
        for body in (b"", b"\xff\xfe{", b"[" * 100_000, b"x" * 2_000_000):
            _refusal(harness.source.translate(headers, body))


def _is_new(each: Message | Rejected) -> bool:
    return isinstance(each, Message) and isinstance(each.body, msg.NewOrder)


# -- channels hear what became of their orders -----------------------------------------------------------------------


class StatusSinkConformance(Conformance):
    """A `StatusSink`: a status and every shipment are told once, however often they are sent."""

    def test_a_status_and_its_shipments_are_told(self, harness: StatusSinkHarness) -> None:
        """Every shipment the channel hasn't heard of."""
        order = sample_shipped_order(harness.place(sample_order()))
        _receipt(harness.sink.update(order, StatusUpdate("K-1", "shipped")))
        assert harness.changes(order) == 1
        assert harness.shipments(order) == 2

    def test_repeating_a_key_tells_nothing_new(self, harness: StatusSinkHarness) -> None:
        """And returns the first receipt."""
        order = sample_shipped_order(harness.place(sample_order()))
        update = StatusUpdate("K-1", "shipped")
        first = _receipt(harness.sink.update(order, update))
        assert _receipt(harness.sink.update(order, update)) == first
        assert harness.changes(order) == 1
        assert harness.shipments(order) == 2

    def test_a_lost_answer_tells_nothing_twice(self, harness: StatusSinkHarness) -> None:
        """Nor when another process tries again."""
        order = sample_shipped_order(harness.place(sample_order()))
        update = StatusUpdate("K-1", "shipped")
        harness.lose_next_answer()
        with pytest.raises(Unavailable):
            harness.sink.update(order, update)
        harness.restart()
        _receipt(harness.sink.update(order, update))
        assert harness.changes(order) == 1
        assert harness.shipments(order) == 2

    def test_the_next_status_tells_only_new_shipments(self, harness: StatusSinkHarness) -> None:
        """The first parcel was told with the status before."""
        placed = harness.place(sample_order())
        _receipt(
            harness.sink.update(sample_shipped_order(placed, partly=True), StatusUpdate("K-1", "partially shipped"))
        )
        assert harness.shipments(placed) == 1
        _receipt(harness.sink.update(sample_shipped_order(placed), StatusUpdate("K-2", "shipped")))
        assert harness.shipments(placed) == 2
        assert harness.changes(placed) == 2

    def test_an_order_the_channel_does_not_know_is_refused(self, harness: StatusSinkHarness) -> None:
        """It is a no, and trying again won't help."""
        order = sample_order("BC-999999999", channel=harness.sink.system, external_id="999999999")
        _refusal(harness.sink.update(sample_shipped_order(order), StatusUpdate("K-1", "shipped")))

    def test_being_down_is_a_fault_and_no_refusal(self, harness: StatusSinkHarness) -> None:
        """Callers try a fault again; they never do that with a refusal."""
        order = sample_shipped_order(harness.place(sample_order()))
        harness.go_down()
        with pytest.raises(Unavailable):
            harness.sink.update(order, StatusUpdate("K-1", "shipped"))
        harness.come_back()
        _receipt(harness.sink.update(order, StatusUpdate("K-1", "shipped")))
        assert harness.shipments(order) == 2


# -- somebody ships --------------------------------------------------------------------------------------------------


class FulfillmentProviderConformance(_Pulls[FulfillmentHarness]):
    """A `FulfillmentProvider`: ships what it is asked, once, and tells every shipment."""

    def _puller(self, harness: FulfillmentHarness) -> _Puller:
        return harness.provider

    def _happen(self, harness: FulfillmentHarness, nth: int) -> None:
        request = self._request(harness, nth)
        _receipt(harness.provider.submit(request))
        harness.ship(request.fulfillment_order)

    def _request(self, harness: FulfillmentHarness, nth: int = 1) -> FulfillmentRequest:
        order = sample_order(f"BC-{1000 + nth}", external_id=str(1000 + nth), provider=harness.provider.system)
        return FulfillmentRequest(f"K-{nth}", order, order.fulfillment_orders[0].id)

    def _after_shipments(self, harness: FulfillmentHarness, order: SalesOrder) -> SalesOrder:
        """Apply every shipment a pull tells."""
        found, _ = self._pull(harness)
        for each in found:
            if isinstance(each, Message) and isinstance(each.body, msg.Shipped):
                body = each.body
                shipped = order.ship(each.system, body.shipment, body.lines, each.at, shipped_at=body.shipped_at)
                assert isinstance(shipped, Success), f"this shipment is none of the order: {shipped.failure()}"
                order = shipped.unwrap().order
        return order

    def test_what_is_submitted_is_shipped_and_told(self, harness: FulfillmentHarness) -> None:
        """Every unit of every line, under our line ids or those of the receipt."""
        request = self._request(harness)
        receipt = _receipt(harness.provider.submit(request))
        assert list(harness.placed()) == [request.fulfillment_order]
        harness.ship(request.fulfillment_order)
        order = self._after_shipments(harness, _told(request.order, harness.provider.system, receipt))
        assert [(each.shipped, each.quantity) for each in order.fulfillment_orders[0].lines] == [
            (Decimal(2), Decimal(2)),
            (Decimal(1), Decimal(1)),
        ]

    def test_submitting_twice_ships_once(self, harness: FulfillmentHarness) -> None:
        """A repeated request is recognized by its key and gets the first receipt."""
        request = self._request(harness)
        first = _receipt(harness.provider.submit(request))
        assert _receipt(harness.provider.submit(request)) == first
        assert list(harness.placed()) == [request.fulfillment_order]

    def test_a_lost_answer_ships_once(self, harness: FulfillmentHarness) -> None:
        """The request took effect and nobody heard; the retry finds it."""
        request = self._request(harness)
        harness.lose_next_answer()
        with pytest.raises(Unavailable):
            harness.provider.submit(request)
        _receipt(harness.provider.submit(request))
        assert list(harness.placed()) == [request.fulfillment_order]

    def test_a_retry_by_another_process_ships_once(self, harness: FulfillmentHarness) -> None:
        """The key is remembered at the provider, not in the adapter."""
        request = self._request(harness)
        first = _receipt(harness.provider.submit(request))
        harness.restart()
        assert _receipt(harness.provider.submit(request)) == first
        assert list(harness.placed()) == [request.fulfillment_order]

    def test_two_requests_are_two_orders(self, harness: FulfillmentHarness) -> None:
        """Only the same key is the same request."""
        one, two = self._request(harness, 1), self._request(harness, 2)
        receipts = [_receipt(harness.provider.submit(each)) for each in (one, two)]
        assert receipts[0].number != receipts[1].number
        assert sorted(harness.placed()) == sorted((one.fulfillment_order, two.fulfillment_order))

    def test_a_no_is_a_value_and_changes_nothing(self, harness: FulfillmentHarness) -> None:
        """And is not remembered: what was wrong may have been mended."""
        request = self._request(harness)
        harness.refuse("the warehouse is closed")
        _refusal(harness.provider.submit(request))
        assert list(harness.placed()) == []
        harness.refuse("")
        _receipt(harness.provider.submit(request))
        assert list(harness.placed()) == [request.fulfillment_order]

    def test_being_down_is_a_fault_and_no_refusal(self, harness: FulfillmentHarness) -> None:
        """Callers try a fault again; they never do that with a refusal."""
        request = self._request(harness)
        harness.go_down()
        with pytest.raises(Unavailable):
            harness.provider.submit(request)
        harness.come_back()
        assert list(harness.placed()) == []
        _receipt(harness.provider.submit(request))
        assert list(harness.placed()) == [request.fulfillment_order]

    def test_a_fulfillment_order_is_taken_back_if_declared(self, harness: FulfillmentHarness) -> None:
        """With `Capability.CANCEL` it is, once; without, every cancel is refused and changes nothing."""
        request = self._request(harness)
        _receipt(harness.provider.submit(request))
        canceled = harness.provider.cancel(request)
        if Capability.CANCEL in harness.provider.capabilities:
            first = _receipt(canceled)
            assert list(harness.placed()) == []
            assert _receipt(harness.provider.cancel(request)) == first
            assert list(harness.placed()) == []
        else:
            assert failed(canceled), "it can cancel: declare Capability.CANCEL"
            assert list(harness.placed()) == [request.fulfillment_order]

    def test_what_has_shipped_is_not_taken_back(self, harness: FulfillmentHarness) -> None:
        """The parcel is on the truck."""
        request = self._request(harness)
        _receipt(harness.provider.submit(request))
        harness.ship(request.fulfillment_order)
        _refusal(harness.provider.cancel(request))
        assert list(harness.placed()) == [request.fulfillment_order]

    def test_canceling_at_a_provider_that_is_down_is_a_fault(self, harness: FulfillmentHarness) -> None:
        """Unless it never can: then the no needs nobody's answer."""
        request = self._request(harness)
        _receipt(harness.provider.submit(request))
        harness.go_down()
        if Capability.CANCEL in harness.provider.capabilities:
            with pytest.raises(Unavailable):
                harness.provider.cancel(request)
        harness.come_back()
        assert list(harness.placed()) == [request.fulfillment_order]

    def test_it_ships_in_parts_if_declared(self, harness: FulfillmentHarness) -> None:
        """With `Capability.PARTIAL_SHIPMENTS` the parts add up to the whole; without, nothing leaves in parts."""
        request = self._request(harness)
        receipt = _receipt(harness.provider.submit(request))
        parted = harness.ship_part(request.fulfillment_order)
        if Capability.PARTIAL_SHIPMENTS not in harness.provider.capabilities:
            assert not parted, "it ships in parts: declare Capability.PARTIAL_SHIPMENTS"
            return
        assert parted, "it declares partial shipments and doesn't ship a part"
        order = _told(request.order, harness.provider.system, receipt)
        assert sum(each.shipped for each in self._after_shipments(harness, order).fulfillment_orders[0].lines) == 1
        harness.ship(request.fulfillment_order)
        order = self._after_shipments(harness, order)
        assert sum(each.shipped for each in order.fulfillment_orders[0].lines) == 3
        assert len(order.shipments) >= 2


# -- an ERP shares our orders ----------------------------------------------------------------------------------------


class ErpOrdersConformance(_Pulls[ErpHarness]):
    """An `ErpOrders`: each header and line once, the sync filters, and the way of the goods back."""

    _WHOLE: Final = [("CHAIR", Decimal(2)), ("EBOOK", Decimal(1)), ("LAMP", Decimal(1))]

    def _puller(self, harness: ErpHarness) -> _Puller:
        return harness.orders

    def _happen(self, harness: ErpHarness, nth: int) -> None:
        _receipt(harness.orders.send(self._request(harness, nth)))
        harness.work()

    def _request(
        self, harness: ErpHarness, nth: int = 1, lines: tuple[str, ...] = (), ready_to_sync: bool = True
    ) -> ErpRequest:
        order = sample_order(
            f"BC-{1000 + nth}",
            external_id=str(1000 + nth),
            provider=harness.orders.system,
            ready_to_sync=ready_to_sync,
            ships_digital=True,
        )
        return ErpRequest(f"K-{nth}", order, lines)

    def test_an_order_is_sent_whole(self, harness: ErpHarness) -> None:
        """Header and lines, and the receipt pairs each of our lines with the ERP's."""
        request = self._request(harness)
        receipt = _receipt(harness.orders.send(request))
        assert harness.count() == 1
        assert sorted(harness.lines(request.order.id)) == self._WHOLE
        assert sorted(line for line, _ in receipt.line_numbers) == ["1", "2", "3"]
        assert len({number for _, number in receipt.line_numbers}) == 3
        assert receipt.line_errors == ()

    def test_sending_twice_creates_once(self, harness: ErpHarness) -> None:
        """With and without the numbers we have learned; the first receipt comes again."""
        request = self._request(harness)
        first = _receipt(harness.orders.send(request))
        again = _receipt(harness.orders.send(request))
        assert (again.number, sorted(again.line_numbers)) == (first.number, sorted(first.line_numbers))
        wiser = attrs.evolve(request, order=_told(request.order, harness.orders.system, first))
        assert _receipt(harness.orders.send(wiser)).number == first.number
        assert harness.count() == 1
        assert sorted(harness.lines(request.order.id)) == self._WHOLE

    def test_a_lost_answer_creates_once(self, harness: ErpHarness) -> None:
        """The first write that took effect and was not heard of: the retry, in another process, completes it."""
        request = self._request(harness)
        harness.lose_next_answer()
        with pytest.raises(Unavailable):
            harness.orders.send(request)
        harness.restart()
        receipt = _receipt(harness.orders.send(request))
        assert sorted(line for line, _ in receipt.line_numbers) == ["1", "2", "3"]
        assert harness.count() == 1
        assert sorted(harness.lines(request.order.id)) == self._WHOLE

    def test_lines_can_follow_later(self, harness: ErpHarness) -> None:
        """Only the named lines are sent; the others complete the same order."""
        request = self._request(harness, lines=("1",))
        first = _receipt(harness.orders.send(request))
        assert list(harness.lines(request.order.id)) == self._WHOLE[:1]
        rest = attrs.evolve(request, key="K-1b", lines=("2", "3"))
        assert _receipt(harness.orders.send(rest)).number == first.number
        assert harness.count() == 1
        assert sorted(harness.lines(request.order.id)) == self._WHOLE

    def test_a_line_that_fails_stops_no_other(self, harness: ErpHarness) -> None:
        """It is in the receipt's line errors, and goes over when it is mended."""
        request = self._request(harness)
        harness.block("LAMP", "the product is blocked")
        receipt = _receipt(harness.orders.send(request))
        assert [line for line, why in receipt.line_errors if why] == ["2"]
        assert sorted(harness.lines(request.order.id)) == self._WHOLE[:2]
        harness.block("LAMP", "")
        again = _receipt(harness.orders.send(request))
        assert (again.number, again.line_errors) == (receipt.number, ())
        assert sorted(harness.lines(request.order.id)) == self._WHOLE

    def test_an_order_that_is_not_ready_is_refused_whole(self, harness: ErpHarness) -> None:
        """The header's sync filter; nothing reaches the ERP."""
        _refusal(harness.orders.send(self._request(harness, ready_to_sync=False)))
        assert harness.count() == 0

    def test_being_down_is_a_fault_and_no_refusal(self, harness: ErpHarness) -> None:
        """Callers try a fault again; they never do that with a refusal."""
        request = self._request(harness)
        harness.go_down()
        with pytest.raises(Unavailable):
            harness.orders.send(request)
        harness.come_back()
        assert harness.count() == 0
        _receipt(harness.orders.send(request))
        assert harness.count() == 1

    def test_the_way_of_the_goods_is_told(self, harness: ErpHarness) -> None:
        """Picked, shipped, invoiced: every unit, and the amount to the cent."""
        request = self._request(harness)
        receipt = _receipt(harness.orders.send(request))
        sent = _told(request.order, harness.orders.system, receipt)
        for _ in range(10):
            harness.work()
        order, kinds = sent, set()
        found, _ = self._pull(harness)
        for each in found:
            assert isinstance(each, Message), f"rejected: {each}"
            kinds.add(type(each.body))
            match each.body:
                case msg.Picked(lines):
                    changed = order.pick(each.system, lines, each.at)
                case msg.Packed(lines):
                    changed = order.pack(each.system, lines, each.at)
                case msg.Shipped(shipment, lines):
                    changed = order.ship(each.system, shipment, lines, each.at)
                case msg.Invoiced(number, lines, total):
                    changed = order.invoice(each.system, number, lines, total, each.at)
                case _:
                    continue
            assert isinstance(changed, Success), f"{each.body} is not of this order: {changed.failure()}"
            order = changed.unwrap().order
        assert {msg.Picked, msg.Shipped, msg.Invoiced} <= kinds
        assert [order.shipped(line.id) for line in order.lines] == [line.quantity for line in order.lines]
        assert [line.invoiced for line in order.lines] == [line.quantity for line in order.lines]
        assert order.invoiced_total == order.total

    def test_a_cancellation_is_told(self, harness: ErpHarness) -> None:
        """As a fact about the order, under the number of the receipt."""
        request = self._request(harness)
        receipt = _receipt(harness.orders.send(request))
        harness.cancel(request.order.id)
        found, _ = self._pull(harness)
        assert [
            each.external_id for each in found if isinstance(each, Message) and isinstance(each.body, msg.Canceled)
        ] == [receipt.number]


# -- somebody invoices -----------------------------------------------------------------------------------------------


class LedgerConformance(_Pulls[LedgerHarness]):
    """A `Ledger`: what shipped is invoiced, once, and every invoice is told."""

    def _puller(self, harness: LedgerHarness) -> _Puller:
        return harness.ledger

    def _happen(self, harness: LedgerHarness, nth: int) -> None:
        _receipt(harness.ledger.bill(self._request(harness, nth)))
        harness.post()

    def _request(self, harness: LedgerHarness, nth: int = 1, partly: bool = False) -> BillingRequest:
        order = sample_shipped_order(sample_order(f"BC-{1000 + nth}", external_id=str(1000 + nth)), partly=partly)
        return BillingRequest(f"K-{nth}", harness.prepare(order))

    def _invoices(self, harness: LedgerHarness) -> list[msg.Invoiced]:
        found, _ = self._pull(harness)
        return [each.body for each in found if isinstance(each, Message) and isinstance(each.body, msg.Invoiced)]

    def _invoiced(self, harness: LedgerHarness, order: SalesOrder) -> list[Decimal]:
        """Return how much of each of our lines the invoices cover."""
        covered = dict.fromkeys([line.id for line in order.lines], Decimal(0))
        for invoice in self._invoices(harness):
            for each in invoice.lines:
                line = order.line(each.line) or order.line(order.by_external(harness.ledger.system, each.line) or "")
                assert line is not None, f"invoice {invoice.number} is about line {each.line!r}, which nobody knows"
                covered[line.id] += each.quantity
        return list(covered.values())

    def test_what_shipped_is_invoiced_and_told(self, harness: LedgerHarness) -> None:
        """Every unit and every cent, as one invoice or several."""
        request = self._request(harness)
        _receipt(harness.ledger.bill(request))
        harness.post()
        invoices = self._invoices(harness)
        assert self._invoiced(harness, request.order) == [line.quantity for line in request.order.lines]
        assert sum((each.total for each in invoices), Money.zero("USD")) == request.order.total
        assert len({each.number for each in invoices}) == len(invoices) == harness.invoices(request.order.id)

    def test_only_what_shipped_is_invoiced(self, harness: LedgerHarness) -> None:
        """One parcel of two has left; nobody pays for the other."""
        request = self._request(harness, partly=True)
        _receipt(harness.ledger.bill(request))
        harness.post()
        assert self._invoiced(harness, request.order)[:2] == [Decimal(1), Decimal(0)]

    def test_billing_twice_invoices_once(self, harness: LedgerHarness) -> None:
        """A repeated request is recognized by its key and gets the first receipt."""
        request = self._request(harness)
        first = _receipt(harness.ledger.bill(request))
        assert _receipt(harness.ledger.bill(request)) == first
        harness.post()
        harness.post()
        assert harness.invoices(request.order.id) == 1

    def test_a_request_after_the_invoice_is_no_second_one(self, harness: LedgerHarness) -> None:
        """The retry may come late, and from another process."""
        request = self._request(harness)
        _receipt(harness.ledger.bill(request))
        harness.post()
        harness.restart()
        _receipt(harness.ledger.bill(request))
        harness.post()
        assert harness.invoices(request.order.id) == 1

    def test_a_lost_answer_invoices_once(self, harness: LedgerHarness) -> None:
        """A ledger that invoices by itself may have no answer to lose."""
        request = self._request(harness)
        harness.lose_next_answer()
        try:
            _receipt(harness.ledger.bill(request))
        except Unavailable:
            _receipt(harness.ledger.bill(request))
        harness.post()
        assert harness.invoices(request.order.id) == 1

    def test_being_down_is_no_refusal(self, harness: LedgerHarness) -> None:
        """It is a fault, or nobody needed to be asked; in any case the invoice comes later."""
        request = self._request(harness)
        harness.go_down()
        try:
            _receipt(harness.ledger.bill(request))
        except Unavailable:
            harness.come_back()
            _receipt(harness.ledger.bill(request))
        harness.come_back()
        harness.post()
        assert harness.invoices(request.order.id) == 1


# -- stock -----------------------------------------------------------------------------------------------------------


class InventoryConformance(Conformance):
    """An `Inventory`: never more is promised than there is, and a key reserves once."""

    _SHELF: Final = (SourceId("Seattle"), ProductId("CHAIR"))

    def _free(self, harness: InventoryHarness) -> Decimal:
        source, product = self._SHELF
        stock = harness.inventory.available([product])
        assert all(each.product == product for each in stock)
        return sum((each.available for each in stock if each.source == source), Decimal(0))

    def _reserve(self, harness: InventoryHarness, key: str, quantity: int) -> Any:
        return harness.inventory.reserve(key, *self._SHELF, Decimal(quantity))

    def test_what_lies_there_is_available(self, harness: InventoryHarness) -> None:
        """Per source and product; what nobody has is not available."""
        harness.put("Seattle", "CHAIR", Decimal(5))
        harness.put("Chicago", "CHAIR", Decimal("2.5"))
        harness.put("Seattle", "LAMP", Decimal(7))
        found = harness.inventory.available([ProductId("CHAIR"), ProductId("NOTHING")])
        assert {(each.source, each.product, each.available) for each in found if each.available} == {
            ("Seattle", "CHAIR", Decimal(5)),
            ("Chicago", "CHAIR", Decimal("2.5")),
        }

    def test_what_is_reserved_is_not_promised_again(self, harness: InventoryHarness) -> None:
        """It still lies there."""
        harness.put(*self._SHELF, Decimal(5))
        assert isinstance(self._reserve(harness, "K-1", 3), Success)
        assert self._free(harness) == 2
        assert harness.reserved(*self._SHELF) == 3
        assert harness.on_hand(*self._SHELF) == 5

    def test_reserving_twice_reserves_once(self, harness: InventoryHarness) -> None:
        """The same key gets the first reservation's id, also in another process."""
        harness.put(*self._SHELF, Decimal(5))
        first = self._reserve(harness, "K-1", 3).unwrap()
        assert self._reserve(harness, "K-1", 3).unwrap() == first
        harness.restart()
        assert self._reserve(harness, "K-1", 3).unwrap() == first
        assert harness.reserved(*self._SHELF) == 3

    def test_a_lost_answer_reserves_once(self, harness: InventoryHarness) -> None:
        """The reservation was made and nobody heard; the retry finds it."""
        harness.put(*self._SHELF, Decimal(5))
        harness.lose_next_answer()
        with pytest.raises(Unavailable):
            self._reserve(harness, "K-1", 3)
        assert isinstance(self._reserve(harness, "K-1", 3), Success)
        assert harness.reserved(*self._SHELF) == 3

    def test_more_than_there_is_is_refused(self, harness: InventoryHarness) -> None:
        """To the last unit, and a refusal reserves nothing."""
        harness.put(*self._SHELF, Decimal(5))
        assert isinstance(self._reserve(harness, "K-1", 3), Success)
        _refusal(self._reserve(harness, "K-2", 3))
        assert harness.reserved(*self._SHELF) == 3
        assert isinstance(self._reserve(harness, "K-3", 2), Success)
        assert self._free(harness) == 0

    def test_what_is_released_can_be_promised_again(self, harness: InventoryHarness) -> None:
        """Once; releasing it again, or what nobody reserved, changes nothing."""
        harness.put(*self._SHELF, Decimal(5))
        self._reserve(harness, "K-1", 3)
        self._reserve(harness, "K-2", 1)
        for key in ("K-1", "K-1", "nobody"):
            harness.inventory.release(key)
            assert harness.reserved(*self._SHELF) == 1
        assert self._free(harness) == 4

    def test_a_released_key_can_reserve_again(self, harness: InventoryHarness) -> None:
        """An optimizer that starts over gives back what its first run took."""
        harness.put(*self._SHELF, Decimal(5))
        self._reserve(harness, "K-1", 3)
        harness.inventory.release("K-1")
        assert isinstance(self._reserve(harness, "K-1", 4), Success)
        assert harness.reserved(*self._SHELF) == 4

    def test_what_is_consumed_is_gone(self, harness: InventoryHarness) -> None:
        """Once: neither consuming it again nor releasing it changes anything."""
        harness.put(*self._SHELF, Decimal(5))
        self._reserve(harness, "K-1", 3)
        for again in (harness.inventory.consume, harness.inventory.consume):
            again("K-1", Decimal(3))
            assert harness.on_hand(*self._SHELF) == 2
            assert harness.reserved(*self._SHELF) == 0
        harness.inventory.release("K-1")
        assert self._free(harness) == 2

    def test_being_down_is_a_fault_and_no_refusal(self, harness: InventoryHarness) -> None:
        """No answer is not the answer that there is no stock."""
        harness.put(*self._SHELF, Decimal(5))
        harness.go_down()
        with pytest.raises(Unavailable):
            harness.inventory.available([ProductId("CHAIR")])
        with pytest.raises(Unavailable):
            self._reserve(harness, "K-1", 3)
        harness.come_back()
        assert harness.reserved(*self._SHELF) == 0


# -- the store -------------------------------------------------------------------------------------------------------

_NOW: Final = SAMPLE_AT
_MINUTE: Final = timedelta(minutes=1)
_FLEXE: Final = System("flexe")


class _Stopped(BaseException):
    """Ends a unit as a killed task would: it is not even an `Exception`."""


def _command(key: str, order_id: str = "BC-1001", provider: str = "flexe") -> Command:
    return Command(key, OrderId(order_id), System(provider), "Send fulfillment order", "flow", "step")


def _next(order: SalesOrder, **changes: object) -> SalesOrder:
    return order.with_(version=order.version + 1, **changes)


def _event(name: str) -> Happened:
    return Happened(_NOW, name, "order", "BC-1001", "New", "Received")


def _error(name: str, kind: str = "policy") -> ErrorRecord:
    return ErrorRecord(name, kind, _NOW, "iom", "the total is wrong", "$.total", OrderId("BC-1001"))


def _news(name: str, number: str = "2001") -> Message:
    return Message(MessageId(name), _FLEXE, msg.Canceled(), _NOW, external_id=number)


class OrderStoreConformance(Conformance):
    """An `OrderStore`: a unit of work happens whole or not at all, and the outbox hands each command out once."""

    def _fill(self, store: OrderStore, *commands: Command) -> None:
        """Put commands into the outbox, with the orders they are about."""
        for command in commands:
            with store.begin() as unit:
                before = unit.order(command.order_id)
                after = (
                    sample_order(command.order_id, external_id=command.order_id) if before is None else _next(before)
                )
                unit.save(after, before, (), (command,))

    def _due(
        self, store: OrderStore, now: datetime = _NOW, limit: int = 100, skip: Collection[System] = ()
    ) -> list[str]:
        return [each.command.key for each in store.due(now, limit, now + _MINUTE, skip)]

    def _in_unit(self, store: OrderStore, work: Callable[[Unit], None], broken: BaseException | None = None) -> None:
        """Do work in one unit, and break it off with *broken*."""
        with store.begin() as unit:
            work(unit)
            if broken is not None:
                raise broken

    def _do_everything(self, unit: Unit) -> None:
        unit.accept(MessageId("M-1"), _NOW)
        unit.save(sample_order(), None, (_event("New order"),), (_command("C-1"),))
        unit.wait(_news("M-2"), _NOW)
        unit.set_checkpoint("flexe", "17")
        unit.add_error(_error("E-1"))

    def _traces(self, store: OrderStore) -> set[str]:
        """Name what is left of `_do_everything`."""
        traces = set()
        if store.load(OrderId("BC-1001")) is not None or list(store.orders()):
            traces.add("order")
        if store.events(OrderId("BC-1001")):
            traces.add("events")
        if store.next_due() is not None:
            traces.add("command")
        if store.still_waiting():
            traces.add("waiting")
        if store.errors():
            traces.add("error")
        with store.begin() as unit:
            if not unit.accept(MessageId("M-1"), _NOW):
                traces.add("inbox")
            if unit.find(System("bigcommerce"), "1001") is not None:
                traces.add("number")
            if unit.checkpoint("flexe"):
                traces.add("checkpoint")
        return traces

    # the unit of work

    def test_a_unit_happens_whole(self, harness: StoreHarness) -> None:
        """Order, events, commands, inbox, waiting messages, checkpoint and errors, and it outlives the process."""
        with harness.store.begin() as unit:
            self._do_everything(unit)
        harness.restart()
        assert self._traces(harness.store) == {
            "order",
            "events",
            "command",
            "waiting",
            "error",
            "inbox",
            "number",
            "checkpoint",
        }

    def test_a_unit_that_raises_leaves_nothing(self, harness: StoreHarness) -> None:
        """Whatever was raised, also when a program is being stopped; the exception comes out as it went in."""
        for broken in (RuntimeError("no"), _Stopped()):
            with pytest.raises(type(broken)):
                self._in_unit(harness.store, self._do_everything, broken)
        assert self._traces(harness.store) == set()

    def test_a_unit_that_raises_takes_nothing_away(self, harness: StoreHarness) -> None:
        """Commands stay in the outbox, messages keep waiting, the checkpoint stands."""
        store = harness.store
        with store.begin() as unit:
            self._do_everything(unit)

        def take_away(unit: Unit) -> None:
            unit.finish("C-1")
            unit.waiting(_FLEXE, "2001")
            unit.set_checkpoint("flexe", "18")

        with pytest.raises(RuntimeError):
            self._in_unit(store, take_away, RuntimeError("no"))
        assert self._due(store) == ["C-1"]
        assert [each.message.id for each in store.still_waiting()] == ["M-2"]
        with store.begin() as unit:
            assert unit.checkpoint("flexe") == "17"

    def test_a_unit_sees_its_own_orders(self, harness: StoreHarness) -> None:
        """And their numbers, its checkpoints, and the messages it has accepted."""
        with harness.store.begin() as unit:
            self._do_everything(unit)
            assert unit.order(OrderId("BC-1001")) == sample_order()
            assert unit.find(System("bigcommerce"), "1001") == "BC-1001"
            assert unit.checkpoint("flexe") == "17"
            assert not unit.accept(MessageId("M-1"), _NOW)

    def test_a_message_is_accepted_once(self, harness: StoreHarness) -> None:
        """Also after years and restarts: the inbox doesn't forget."""
        with harness.store.begin() as unit:
            assert unit.accept(MessageId("M-1"), _NOW)
            assert unit.accept(MessageId("M-2"), _NOW)
        harness.restart()
        with harness.store.begin() as unit:
            assert not unit.accept(MessageId("M-1"), _NOW + timedelta(days=3650))
            assert unit.accept(MessageId("M-3"), _NOW)

    # orders

    def test_an_order_comes_back_equal(self, harness: StoreHarness) -> None:
        """To the last digit, letter and microsecond."""
        shipped = sample_shipped_order()
        order = shipped.with_(note="Größe 🪑 'quoted'; --", placed_at=_NOW + timedelta(microseconds=1))
        with harness.store.begin() as unit:
            unit.save(order, None, (), ())
        harness.restart()
        assert harness.store.load(order.id) == order
        assert harness.store.load(OrderId("BC-404")) is None

    def test_every_order_is_listed_by_id(self, harness: StoreHarness) -> None:
        """In the order of the ids, whatever order they came in."""
        for number in ("BC-3", "BC-1", "BC-2"):
            with harness.store.begin() as unit:
                unit.save(sample_order(number, external_id=number), None, (), ())
        assert [order.id for order in harness.store.orders()] == ["BC-1", "BC-2", "BC-3"]

    def test_a_stale_change_is_a_conflict(self, harness: StoreHarness) -> None:
        """Who saves second must load again; nothing of the second is kept."""
        store, first = harness.store, sample_order()
        with store.begin() as unit:
            unit.save(first, None, (), ())
        with store.begin() as unit:
            unit.save(_next(first, note="mine"), first, (_event("mine"),), ())

        def save_second(unit: Unit) -> None:
            unit.accept(MessageId("M-1"), _NOW)
            unit.save(_next(first, note="yours"), first, (_event("yours"),), (_command("C-1"),))

        with pytest.raises(Conflict):
            self._in_unit(store, save_second)
        stored = store.load(first.id)
        assert stored is not None
        assert stored.note == "mine"
        assert [each.event for each in store.events(first.id)] == ["mine"]
        assert store.next_due() is None
        with store.begin() as unit:
            assert unit.accept(MessageId("M-1"), _NOW), "the inbox kept the message of a change that was not saved"

    def test_a_new_order_that_is_there_is_a_conflict(self, harness: StoreHarness) -> None:
        """Two processes took in the same order."""
        with harness.store.begin() as unit:
            unit.save(sample_order(), None, (), ())
        with pytest.raises(Conflict), harness.store.begin() as unit:
            unit.save(sample_order().with_(note="second"), None, (), ())
        stored = harness.store.load(OrderId("BC-1001"))
        assert stored is not None
        assert stored.note == ""

    def test_an_order_can_be_saved_twice_in_a_unit(self, harness: StoreHarness) -> None:
        """As it is when a message that waited is applied with the one it waited for."""
        first = sample_order()
        with harness.store.begin() as unit:
            unit.save(first, None, (_event("a"),), ())
            second = _next(first, note="second")
            unit.save(second, first, (_event("b"),), (_command("C-1"),))
        assert harness.store.load(first.id) == second
        assert [each.event for each in harness.store.events(first.id)] == ["a", "b"]
        assert self._due(harness.store) == ["C-1"]

    def test_events_keep_their_order(self, harness: StoreHarness) -> None:
        """As they were raised; all of them, each once."""
        first = sample_order()
        with harness.store.begin() as unit:
            unit.save(first, None, (_event("a"), _event("b"), _event("a")), ())
        with harness.store.begin() as unit:
            unit.save(_next(first), first, (_event("c"),), ())
        assert [each.event for each in harness.store.events(first.id)] == ["a", "b", "a", "c"]
        assert harness.store.events(OrderId("BC-404")) == ()

    def test_an_order_is_found_by_its_numbers(self, harness: StoreHarness) -> None:
        """Its channel's and its provider's, and only under the system that gave them."""
        first = sample_order()
        with harness.store.begin() as unit:
            unit.save(first, None, (), ())
        fresh = ExternalId(System("fno"), ev.ORDER, first.id, "SO-7")
        with harness.store.begin() as unit:
            unit.save(_next(first, externals=(*first.externals, fresh)), first, (), ())
        harness.restart()
        with harness.store.begin() as unit:
            assert unit.find(System("bigcommerce"), "1001") == first.id
            assert unit.find(System("fno"), "SO-7") == first.id
            assert unit.find(System("fno"), "1001") is None
            assert unit.find(System("bigcommerce"), "1001-1") is None, "a line's number is not the order's"

    def test_an_order_is_found_by_its_fulfillment_orders_numbers(self, harness: StoreHarness) -> None:
        """A warehouse speaks of its own order, not of ours."""
        order = sample_order()
        theirs = ExternalId(_FLEXE, ev.FULFILLMENT_ORDER, order.fulfillment_orders[0].id, "FX-7")
        with harness.store.begin() as unit:
            unit.save(order.with_(externals=(*order.externals, theirs)), None, (), ())
        with harness.store.begin() as unit:
            assert unit.find(_FLEXE, "FX-7") == order.id

    def test_a_number_of_another_order_is_a_conflict(self, harness: StoreHarness) -> None:
        """Or its messages would lead to the wrong order; nothing of the second is kept."""
        store, first = harness.store, sample_order()
        theirs = ExternalId(_FLEXE, ev.FULFILLMENT_ORDER, first.fulfillment_orders[0].id, "FX-7")
        with store.begin() as unit:
            unit.save(first.with_(externals=(*first.externals, theirs)), None, (), ())
        with pytest.raises(Conflict), store.begin() as unit:
            unit.save(sample_order("BC-1002", external_id="1001"), None, (), (_command("C-1", "BC-1002"),))
        assert store.load(OrderId("BC-1002")) is None
        assert store.next_due() is None
        second = sample_order("BC-1003", external_id="1003")
        with store.begin() as unit:
            unit.save(second, None, (), ())
        with pytest.raises(Conflict), store.begin() as unit:
            unit.save(_next(second, externals=(*second.externals, theirs)), second, (), ())
        assert store.load(second.id) == second
        with store.begin() as unit:
            assert unit.find(System("bigcommerce"), "1001") == first.id
            assert unit.find(System("bigcommerce"), "1003") == second.id
            assert unit.find(_FLEXE, "FX-7") == first.id

    # messages, checkpoints, errors

    def test_a_message_waits_for_its_order(self, harness: StoreHarness) -> None:
        """Until its number is asked for; it is handed out once, with when it began to wait."""
        store = harness.store
        with store.begin() as unit:
            unit.wait(_news("M-1", "2001"), _NOW)
            unit.wait(_news("M-2", "2002"), _NOW + _MINUTE)
        assert [(each.message, each.since) for each in store.still_waiting()] == [
            (_news("M-1", "2001"), _NOW),
            (_news("M-2", "2002"), _NOW + _MINUTE),
        ]
        with store.begin() as unit:
            assert unit.waiting(System("fno"), "2001") == ()
            assert [each.message.id for each in unit.waiting(_FLEXE, "2001")] == ["M-1"]
            assert unit.waiting(_FLEXE, "2001") == ()
        assert [each.message.id for each in store.still_waiting()] == ["M-2"]

    def test_a_puller_stands_where_it_was(self, harness: StoreHarness) -> None:
        """Each on its own; nowhere before its first run."""
        with harness.store.begin() as unit:
            assert unit.checkpoint("flexe") == ""
            unit.set_checkpoint("flexe", "17")
            unit.set_checkpoint("flexe", '{"page": 2}')
        harness.restart()
        with harness.store.begin() as unit:
            assert unit.checkpoint("flexe") == '{"page": 2}'
            assert unit.checkpoint("fno") == ""

    def test_errors_are_listed_by_kind(self, harness: StoreHarness) -> None:
        """The same id again changes nothing."""
        with harness.store.begin() as unit:
            unit.add_error(_error("E-1"))
            unit.add_error(_error("E-2", "provider action"))
        with harness.store.begin() as unit:
            unit.add_error(attrs.evolve(_error("E-1"), what="something else"))
        assert {each.id for each in harness.store.errors()} == {"E-1", "E-2"}
        assert harness.store.errors("policy") == (_error("E-1"),)
        assert harness.store.errors("provider inbound") == ()

    def test_an_error_is_taken_off_the_list_once(self, harness: StoreHarness) -> None:
        """And doesn't come back when it is reported again."""
        store = harness.store
        with store.begin() as unit:
            unit.add_error(_error("E-1"))
        assert store.deactivate_error("E-1")
        assert not store.deactivate_error("E-1")
        assert not store.deactivate_error("E-404")
        with store.begin() as unit:
            unit.add_error(_error("E-1"))
        assert store.errors() == ()

    # the outbox

    def test_a_command_is_handed_out_once(self, harness: StoreHarness) -> None:
        """Until its lease ends, and not any more when it is finished."""
        store = harness.store
        self._fill(store, _command("C-1"))
        (due,) = store.due(_NOW, 10, _NOW + _MINUTE)
        assert (due.command, due.attempt, due.first_at) == (_command("C-1"), 1, _NOW)
        assert self._due(store, _NOW + _MINUTE / 2) == []
        with store.begin() as unit:
            unit.finish("C-1")
        assert self._due(store, _NOW + 10 * _MINUTE) == []
        assert store.next_due() is None

    def test_a_command_whose_runner_died_is_handed_out_again(self, harness: StoreHarness) -> None:
        """When its lease has ended, also after a restart; it counts as another attempt."""
        self._fill(harness.store, _command("C-1"))
        assert self._due(harness.store) == ["C-1"]
        harness.restart()
        (due,) = harness.store.due(_NOW + _MINUTE, 10, _NOW + 2 * _MINUTE)
        assert (due.command.key, due.attempt, due.first_at) == ("C-1", 2, _NOW)

    def test_a_postponed_command_comes_at_its_time(self, harness: StoreHarness) -> None:
        """Not before, though its lease is given back."""
        store = harness.store
        self._fill(store, _command("C-1"))
        assert self._due(store) == ["C-1"]
        later = _NOW + 10 * _MINUTE
        store.postpone("C-1", later, "503")
        assert store.next_due() == later
        assert self._due(store, later - _MINUTE) == []
        (due,) = store.due(later, 10, later + _MINUTE)
        assert (due.command.key, due.attempt, due.first_at) == ("C-1", 2, _NOW)
        store.postpone("C-404", later, "nobody knows it")

    def test_commands_of_one_order_go_one_at_a_time(self, harness: StoreHarness) -> None:
        """In the order they were decided; other orders don't wait."""
        store = harness.store
        self._fill(store, _command("C-1"), _command("C-2"), _command("C-3", "BC-1002"))
        assert sorted(self._due(store)) == ["C-1", "C-3"]
        assert self._due(store) == []
        with store.begin() as unit:
            unit.finish("C-1")
        assert self._due(store) == ["C-2"]

    def test_no_more_are_handed_out_than_asked_for(self, harness: StoreHarness) -> None:
        """The oldest first."""
        self._fill(harness.store, *(_command(f"C-{n}", f"BC-{n}") for n in range(1, 6)))
        assert self._due(harness.store, limit=2) == ["C-1", "C-2"]
        assert self._due(harness.store, limit=2) == ["C-3", "C-4"]
        assert self._due(harness.store, limit=2) == ["C-5"]

    def test_commands_for_a_busy_provider_stay(self, harness: StoreHarness) -> None:
        """They are handed out when it isn't skipped any more."""
        store = harness.store
        self._fill(store, _command("C-1", "BC-1", "flexe"), _command("C-2", "BC-2", "sap"))
        assert self._due(store, skip=(_FLEXE,)) == ["C-2"]
        assert self._due(store) == ["C-1"]

    def test_no_command_overtakes_one_for_a_busy_provider(self, harness: StoreHarness) -> None:
        """What an order's next command waits for, its later ones wait for too; other orders don't."""
        store = harness.store
        self._fill(
            store,
            _command("C-1", "BC-1", "flexe"),
            _command("C-2", "BC-1", "sap"),
            _command("C-3", "BC-2", "sap"),
        )
        assert self._due(store, skip=(_FLEXE,)) == ["C-3"]
        assert self._due(store, skip=(_FLEXE,)) == []
        assert self._due(store) == ["C-1"]
        with store.begin() as unit:
            unit.finish("C-1")
        assert self._due(store, skip=(_FLEXE,)) == ["C-2"]

    def test_it_says_when_the_next_command_is_due(self, harness: StoreHarness) -> None:
        """At once, at the end of a lease, or never; a time with its zone."""
        store = harness.store
        assert store.next_due() is None
        self._fill(store, _command("C-1"))
        at_once = store.next_due()
        assert at_once is not None
        assert at_once.tzinfo is not None, "a time without a zone can't be compared with now"
        assert at_once <= _NOW
        assert self._due(store) == ["C-1"]
        assert store.next_due() == _NOW + _MINUTE

    # threads

    def test_threads_lose_no_change(self, harness: StoreHarness) -> None:
        """Everyone who gets a conflict starts over, and then every change is there."""
        self._needs_threads(harness)
        store = harness.store
        with store.begin() as unit:
            unit.save(sample_order(), None, (), ())

        def add(name: str) -> None:
            for _ in range(200):
                try:
                    with store.begin() as unit:
                        before = unit.order(OrderId("BC-1001"))
                        assert before is not None
                        unit.save(_next(before), before, (_event(name),), ())
                except Conflict:
                    continue
                return
            raise AssertionError("200 conflicts in a row")

        names = [f"event {n}" for n in range(12)]
        _together([partial(add, name) for name in names])
        assert sorted(each.event for each in store.events(OrderId("BC-1001"))) == sorted(names)

    def test_threads_accept_a_message_once(self, harness: StoreHarness) -> None:
        """Of eight deliveries at once, one is new."""
        self._needs_threads(harness)
        new: list[bool] = []

        def accept() -> None:
            with harness.store.begin() as unit:
                first = unit.accept(MessageId("M-1"), _NOW)
            new.append(first)

        _together([accept] * 8)
        assert sorted(new) == [False] * 7 + [True]

    def test_threads_get_different_commands(self, harness: StoreHarness) -> None:
        """Of four runners, no two get the same."""
        self._needs_threads(harness)
        keys = [f"C-{n}" for n in range(12)]
        self._fill(harness.store, *(_command(key, f"order of {key}") for key in keys))
        handed: list[str] = []

        def take() -> None:
            for _ in range(3):
                handed.extend(self._due(harness.store, limit=1))

        _together([take] * 4)
        assert sorted(handed) == sorted(keys)

    def _needs_threads(self, harness: StoreHarness) -> None:
        if not harness.threads:
            pytest.skip("the harness says that only one thread may use this store")


def _together(jobs: Sequence[Callable[[], None]]) -> None:
    """Run jobs at the same time, each in a thread of its own; raises what the first broken one raised."""
    broken: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        start.wait(30)
        try:
            job()
        except BaseException as caught:  # noqa: BLE001 - it is raised again in the test's own thread
            broken.append(caught)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if broken:
        raise broken[0]
    assert not any(thread.is_alive() for thread in threads), "the threads wait for each other"


# -- the engine ------------------------------------------------------------------------------------------------------


class EngineConformance(Conformance):
    """An `Engine`: what is decided gets done, whoever died before, and what can't be done now is tried again."""

    def _put(self, harness: EngineHarness, key: str, order_id: str = "") -> None:
        number = OrderId(order_id or f"order of {key}")
        with harness.store.begin() as unit:
            before = unit.order(number)
            after = sample_order(number, external_id=number) if before is None else _next(before)
            unit.save(after, before, (), (_command(key, number),))

    def _run(self, harness: EngineHarness, until: Callable[[], bool]) -> None:
        harness.engine.start()
        try:
            assert _eventually(until), f"performed: {harness.runner.performed}, settled: {harness.runner.settled}"
        finally:
            harness.engine.stop()

    def test_every_command_is_performed_and_settled_once(self, harness: EngineHarness) -> None:
        """Those that were there before it began, and those that come later."""
        for key in ("a", "b"):
            self._put(harness, key)
        harness.engine.start()
        try:
            for key in ("c", "d"):
                self._put(harness, key)
            assert _eventually(lambda: len(harness.runner.settled) == 4)
            _pause(0.1)
        finally:
            harness.engine.stop()
        assert sorted(harness.runner.performed) == ["a", "b", "c", "d"]
        assert all(isinstance(each, ActionDone) for each in harness.runner.settled.values())
        assert harness.store.next_due() is None

    def test_what_a_dead_process_had_out_is_done(self, harness: EngineHarness) -> None:
        """Its lease ended long ago."""
        self._put(harness, "a")
        assert harness.store.due(_NOW, 1, _NOW + _MINUTE)
        self._run(harness, lambda: "a" in harness.runner.settled)

    def test_what_is_unavailable_is_tried_again(self, harness: EngineHarness) -> None:
        """Under the same key, until there is an outcome."""
        harness.runner.attempts["a"] = [Unavailable("flexe", "503"), Unavailable("flexe", "503", retry_after=0.01)]
        self._put(harness, "a")
        self._run(harness, lambda: "a" in harness.runner.settled)
        assert harness.runner.performed == ["a", "a", "a"]
        assert harness.runner.settled["a"] == ActionDone("a")

    def test_a_business_no_is_not_tried_again(self, harness: EngineHarness) -> None:
        """It is an outcome like another."""
        no = ActionFailed("a", "refused", "closed on Sundays")
        harness.runner.attempts["a"] = [no]
        self._put(harness, "a")
        self._run(harness, lambda: "a" in harness.runner.settled)
        assert harness.runner.performed == ["a"]
        assert harness.runner.settled["a"] == no

    def test_what_a_person_must_mend_is_not_tried_again(self, harness: EngineHarness) -> None:
        """It fails at once, as misconfigured."""
        harness.runner.attempts["a"] = [Misconfigured("flexe", "the token was revoked")]
        self._put(harness, "a")
        self._run(harness, lambda: "a" in harness.runner.settled)
        outcome = harness.runner.settled["a"]
        assert harness.runner.performed == ["a"]
        assert isinstance(outcome, ActionFailed)
        assert outcome.kind == "misconfigured"

    def test_a_bug_stops_nobody_else(self, harness: EngineHarness) -> None:
        """A plug-in may raise anything."""
        harness.runner.attempts["a"] = [ZeroDivisionError("a plug-in's bug")]
        for key in ("a", "b"):
            self._put(harness, key)
        self._run(harness, lambda: "b" in harness.runner.settled)

    def test_commands_of_one_order_never_run_together(self, harness: EngineHarness) -> None:
        """And run in the order they were decided."""
        keys = [f"c{n}" for n in range(6)]
        for key in keys:
            self._put(harness, key, "BC-1")
        self._run(harness, lambda: len(harness.runner.settled) == len(keys))
        assert harness.runner.crowded == set()
        assert harness.runner.performed == keys

    def test_it_does_nothing_before_it_starts_nor_after_it_stopped(self, harness: EngineHarness) -> None:
        """Neither commands nor jobs."""
        ran: list[datetime] = []
        harness.engine.schedule("puller", 0.02, ran.append)
        self._put(harness, "a")
        _pause(0.2)
        assert (harness.runner.performed, ran) == ([], [])
        self._run(harness, lambda: "a" in harness.runner.settled and bool(ran))
        before = len(ran)
        self._put(harness, "b")
        _pause(0.2)
        assert (harness.runner.performed, len(ran)) == (["a"], before)

    def test_stopping_waits_for_what_is_running(self, harness: EngineHarness) -> None:
        """`stop` returns when the command that runs is settled."""
        let_go = harness.runner.hold("a")
        self._put(harness, "a")
        harness.engine.start()
        assert _eventually(lambda: harness.runner.performed == ["a"])
        stopped = threading.Event()

        def stop() -> None:
            harness.engine.stop()
            stopped.set()

        threading.Thread(target=stop, daemon=True).start()
        returned_early = stopped.wait(0.2)
        let_go()
        assert stopped.wait(10), "stop did not return"
        assert not returned_early, "stop returned while a command was running"
        assert "a" in harness.runner.settled

    def test_a_job_runs_again_and_again_and_never_twice_at_once(self, harness: EngineHarness) -> None:
        """Though it takes longer than its period."""
        times: list[datetime] = []
        running: list[int] = []
        together: list[int] = []

        def job(now: datetime) -> None:
            running.append(1)
            together.append(len(running))
            times.append(now)
            _pause(0.05)
            running.pop()

        harness.engine.schedule("puller", 0.01, job)
        self._run(harness, lambda: len(times) >= 3)
        assert set(together) == {1}
        assert all(each.tzinfo is not None for each in times)
        assert times == sorted(times)

    def test_a_job_that_fails_runs_again_and_stops_no_other(self, harness: EngineHarness) -> None:
        """A system that is down is pulled again later."""
        tried: list[datetime] = []
        ran: list[datetime] = []

        def broken(now: datetime) -> None:
            tried.append(now)
            raise Unavailable("flexe", "down")

        harness.engine.schedule("broken", 0.02, broken)
        harness.engine.schedule("healthy", 0.02, ran.append)
        self._run(harness, lambda: len(tried) >= 2 and len(ran) >= 3)


# -- distances and rates ---------------------------------------------------------------------------------------------

_SEATTLE: Final = GeoPoint.of("47.6062", "-122.3321")
_CHICAGO: Final = GeoPoint.of("41.8781", "-87.6298")
_SYDNEY: Final = GeoPoint.of("-33.8688", "151.2093")


class DistancesConformance(Conformance):
    """A `Distances`: kilometers, never shorter than the earth allows."""

    def test_it_is_no_shorter_than_the_great_circle(self, harness: DistancesHarness) -> None:
        """Roads are longer, by less than a factor of three where there are some."""
        straight = _SEATTLE.kilometers_to(_CHICAGO)
        found = harness.distances.kilometers(_SEATTLE, _CHICAGO)
        assert isfinite(found)
        assert 0.99 * straight <= found <= 3 * straight

    def test_no_way_has_no_length(self, harness: DistancesHarness) -> None:
        """From a place to itself."""
        assert harness.distances.kilometers(_CHICAGO, _CHICAGO) == pytest.approx(0, abs=0.1)

    def test_it_crosses_the_date_line(self, harness: DistancesHarness) -> None:
        """The short way around, and finite."""
        found = harness.distances.kilometers(_SEATTLE, _SYDNEY)
        straight = _SEATTLE.kilometers_to(_SYDNEY)
        assert 0.99 * straight <= found <= 1.75 * straight

    def test_the_same_question_gets_the_same_answer(self, harness: DistancesHarness) -> None:
        """Two runs of the optimizer must agree."""
        first = harness.distances.kilometers(_SEATTLE, _CHICAGO)
        harness.restart()
        assert harness.distances.kilometers(_SEATTLE, _CHICAGO) == first

    def test_being_down_is_a_fault(self, harness: DistancesHarness) -> None:
        """A guess would be taken for the truth."""
        harness.go_down()
        with pytest.raises(Unavailable):
            harness.distances.kilometers(_SEATTLE, _CHICAGO)


class ShippingRatesConformance(Conformance):
    """A `ShippingRates`: a price, or honestly none."""

    def _rate(self, harness: RatesHarness, carrier: str = "UPS") -> Money | None:
        return harness.rates.rate(carrier, _SEATTLE, _CHICAGO, Decimal("2.5"))

    def test_a_carrier_has_its_rate(self, harness: RatesHarness) -> None:
        """To the cent, in its currency, and each its own."""
        harness.set_rate("UPS", Money.of("12.34", "USD"))
        harness.set_rate("DHL", Money.of("9.90", "EUR"))
        assert self._rate(harness) == Money.of("12.34", "USD")
        assert self._rate(harness, "DHL") == Money.of("9.90", "EUR")

    def test_a_carrier_without_a_rate_has_none(self, harness: RatesHarness) -> None:
        """Not zero: the rate-factor table applies then."""
        harness.set_rate("UPS", Money.of("12.34", "USD"))
        assert self._rate(harness, "Snail") is None

    def test_being_down_is_a_fault_and_not_none(self, harness: RatesHarness) -> None:
        """No answer is not the answer that there is no rate."""
        harness.set_rate("UPS", Money.of("12.34", "USD"))
        harness.go_down()
        with pytest.raises(Unavailable):
            self._rate(harness)
        harness.come_back()
        assert self._rate(harness) == Money.of("12.34", "USD")
