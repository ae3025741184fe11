"""The SQL store against a model in dictionaries, against crashes, and against other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import attrs
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from iom_adapters.store import SqlStore, migrations
from iom_adapters.store.tables import metadata
from iom_core.errors import Misconfigured, Unavailable
from iom_core.lifecycle import Status
from iom_core.messages import Message, Raised
from iom_core.order import Command, ErrorRecord, ExternalId, Happened, OrderLine, SalesOrder
from iom_core.ports import Conflict, OrderStore, Unit
from iom_core.values import Address, LineId, MessageId, Money, OrderId, ProductId, Quantity, System

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)
SHOP, FLEXE = System("bigcommerce"), System("flexe")


def an_order(number: str = "BC-1", external: str = "100") -> SalesOrder:
    nothing = Money.zero("USD")
    return SalesOrder(
        id=OrderId(number),
        channel=SHOP,
        status=Status("new", "created"),
        currency="USD",
        total=Money.of("20.00", "USD"),
        shipping=nothing,
        handling=nothing,
        discount=nothing,
        lines=(
            OrderLine(
                LineId("1"), ProductId("CHAIR"), Quantity.of(2), Money.of("20.00", "USD"), Status("new", "created")
            ),
        ),
        ship_to=Address(name="Zoë 🪑", country="US"),
        bill_to=Address(),
        placed_at=NOW,
        version=1,
        externals=(ExternalId(SHOP, "order", OrderId(number), external),) if external else (),
    )


def changed(order: SalesOrder, **changes: object) -> SalesOrder:
    return attrs.evolve(order, version=order.version + 1, **changes)  # type: ignore[arg-type]  # a test's shorthand


def a_command(key: str, order: str = "BC-1", provider: System = FLEXE) -> Command:
    return Command(key, OrderId(order), provider, "submit", "flow", "step")


def a_message(number: str, external: str = "100") -> Message:
    return Message(MessageId(number), SHOP, Raised("paid"), NOW, external_id=external)


def happened(event: str, at: datetime = NOW) -> Happened:
    return Happened(at, event, "order", "BC-1", "in progress", "because")


def send(store: SqlStore, *commands: Command) -> None:
    """Put commands into the outbox, each with an order of its own that isn't there yet."""
    for command in commands:
        with store.begin() as unit:
            before = unit.order(command.order_id)
            order = an_order(command.order_id, "") if before is None else changed(before)
            unit.save(order, before, (), (command,))


def keys(store: SqlStore, now: datetime = NOW, limit: int = 10, skip: tuple[System, ...] = ()) -> list[str]:
    return [due.command.key for due in store.due(now, limit, now + LEASE, skip)]


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore.open("sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'orders.db'}")
    yield store
    store.close()


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'orders.db'}"


def test_it_is_what_the_ports_ask_for(store: SqlStore) -> None:
    port: OrderStore = store
    with port.begin() as unit:
        opened: Unit = unit
        assert opened.checkpoint("nobody") == ""


class TestOrders:
    def test_a_saved_order_comes_back_equal(self, store: SqlStore) -> None:
        order = an_order()
        with store.begin() as unit:
            unit.save(order, None, (happened("order created"),), ())
            assert unit.order(order.id) == order
        assert store.load(order.id) == order
        assert store.events(order.id) == (happened("order created"),)
        assert store.load(OrderId("BC-2")) is None

    def test_orders_come_by_id_and_more_than_one_page_of_them(self, store: SqlStore) -> None:
        with store.begin() as unit:
            for number in range(450, 0, -1):
                unit.save(an_order(f"BC-{number:03}", str(number)), None, (), ())
        assert [order.id for order in store.orders()] == [f"BC-{number:03}" for number in range(1, 451)]

    def test_orders_may_be_changed_while_they_are_listed(self, store: SqlStore) -> None:
        send(store, a_command("a", "BC-1"), a_command("b", "BC-2"))
        for order in store.orders():
            with store.begin() as unit:
                unit.save(changed(order, note="seen"), order, (), ())
        assert [order.note for order in store.orders()] == ["seen", "seen"]

    def test_events_stay_in_the_order_they_happened(self, store: SqlStore) -> None:
        first = an_order()
        second = changed(first)
        with store.begin() as unit:
            unit.save(first, None, (happened("a"), happened("b")), ())
            unit.save(second, first, (happened("c", NOW - timedelta(days=1)),), ())
        assert [each.event for each in store.events(first.id)] == ["a", "b", "c"]

    def test_times_keep_their_instant_whatever_zone_they_came_in(self, store: SqlStore) -> None:
        there = datetime(2026, 1, 1, 7, tzinfo=timezone(timedelta(hours=-5)))
        with store.begin() as unit:
            unit.save(attrs.evolve(an_order(), placed_at=there), None, (happened("a", there),), ())
        assert store.events(OrderId("BC-1"))[0].at == there == NOW

    def test_a_version_that_was_not_raised_is_raised(self, store: SqlStore) -> None:
        order = an_order()
        with store.begin() as unit:
            unit.save(order, None, (), ())
            unit.save(attrs.evolve(order, note="later"), order, (), ())
        stored = store.load(order.id)
        assert stored is not None
        assert (stored.note, stored.version) == ("later", order.version + 1)

    def test_counts_by_state(self, store: SqlStore) -> None:
        assert store.count_by_state() == {}
        send(store, a_command("a", "BC-1"), a_command("b", "BC-2"))
        assert store.count_by_state() == {"new": 2}
        assert store.outbox_size() == 2


class TestConflicts:
    def test_a_stale_change_is_refused_and_leaves_nothing(self, store: SqlStore) -> None:
        order = an_order()
        with store.begin() as unit:
            unit.save(order, None, (), ())
        with store.begin() as unit:
            unit.save(changed(order, note="first"), order, (), ())
        with pytest.raises(Conflict), store.begin() as unit:  # noqa: PT012 - the unit is what is refused
            unit.accept(MessageId("m"), NOW)
            unit.save(changed(order, note="second"), order, (happened("x"),), (a_command("k"),))
        stored = store.load(order.id)
        assert stored is not None
        assert stored.note == "first"
        assert store.outbox_size() == 0
        with store.begin() as unit:
            assert unit.accept(MessageId("m"), NOW)

    def test_an_order_is_new_only_once(self, store: SqlStore) -> None:
        with store.begin() as unit:
            unit.save(an_order(), None, (), ())
        with pytest.raises(Conflict), store.begin() as unit:
            unit.save(an_order(), None, (), ())

    def test_two_orders_can_not_have_one_outside_number(self, store: SqlStore) -> None:
        with store.begin() as unit:
            unit.save(an_order("BC-1", "100"), None, (), ())
        with pytest.raises(Conflict), store.begin() as unit:
            unit.save(an_order("BC-2", "100"), None, (), ())
        assert store.load(OrderId("BC-2")) is None

    def test_no_update_is_lost_between_threads(self, file: str) -> None:
        store = SqlStore.open(file)
        with store.begin() as unit:
            unit.save(attrs.evolve(an_order(), note="0"), None, (), ())
        conflicts = []

        def increment() -> None:
            for _ in range(25):
                while True:
                    before = store.load(OrderId("BC-1"))
                    assert before is not None
                    try:
                        with store.begin() as unit:
                            after = changed(before, note=str(int(before.note) + 1))
                            unit.save(after, before, (happened("counted"),), ())
                        break
                    except Conflict:
                        conflicts.append(1)

        in_threads(4, increment)
        stored = store.load(OrderId("BC-1"))
        assert stored is not None
        assert stored.note == "100"
        assert len(store.events(OrderId("BC-1"))) == 100
        store.close()

    def test_a_unit_that_reads_first_has_no_conflict(self, store: SqlStore) -> None:
        with store.begin() as unit:
            unit.save(attrs.evolve(an_order(), note="0"), None, (), ())

        def increment() -> None:
            for _ in range(25):
                with store.begin() as unit:
                    before = unit.order(OrderId("BC-1"))
                    assert before is not None
                    unit.save(changed(before, note=str(int(before.note) + 1)), before, (), ())

        in_threads(4, increment)
        stored = store.load(OrderId("BC-1"))
        assert stored is not None
        assert stored.note == "100"


def in_threads(count: int, work: object) -> None:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()  # type: ignore[operator]  # a plain function
        except BaseException as broken:  # noqa: BLE001 - shown below
            failures.append(broken)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


class TestUnits:
    def test_a_unit_that_raises_leaves_nothing(self, store: SqlStore) -> None:
        with pytest.raises(ZeroDivisionError), store.begin() as unit:  # noqa: PT012 - the unit is what fails
            unit.accept(MessageId("m"), NOW)
            unit.save(an_order(), None, (happened("x"),), (a_command("k"),))
            unit.wait(a_message("w"), NOW)
            unit.set_checkpoint("p", "1")
            unit.add_error(ErrorRecord("e", "policy", NOW, "iom", "no"))
            raise ZeroDivisionError
        assert store.load(OrderId("BC-1")) is None
        assert store.events(OrderId("BC-1")) == ()
        assert store.next_due() is None
        assert store.still_waiting() == ()
        assert store.errors() == ()
        with store.begin() as unit:
            assert unit.accept(MessageId("m"), NOW)
            assert unit.checkpoint("p") == ""
            assert unit.find(SHOP, "100") is None

    def test_two_units_in_one_thread_are_a_bug_that_is_named(self, store: SqlStore) -> None:
        with store.begin(), pytest.raises(RuntimeError, match="units don't nest"), store.begin():
            pass
        with store.begin() as unit:
            assert unit.accept(MessageId("m"), NOW)

    def test_a_read_inside_a_unit_sees_what_the_unit_did(self, store: SqlStore) -> None:
        with store.begin() as unit:
            unit.save(an_order(), None, (), (a_command("k"),))
            assert store.load(OrderId("BC-1")) is not None
            assert keys(store) == ["k"]

    def test_a_message_is_accepted_once(self, store: SqlStore) -> None:
        with store.begin() as unit:
            assert unit.accept(MessageId("m"), NOW)
            assert not unit.accept(MessageId("m"), NOW)
        with store.begin() as unit:
            assert not unit.accept(MessageId("m"), NOW)

    def test_two_units_that_compete_for_a_message_let_one_win(self, store: SqlStore) -> None:
        won = []

        def accept() -> None:
            with store.begin() as unit:
                if unit.accept(MessageId("m"), NOW):
                    won.append(1)

        in_threads(4, accept)
        assert won == [1]

    def test_outside_numbers_follow_the_order(self, store: SqlStore) -> None:
        order = an_order()
        moved = changed(
            order,
            externals=(
                ExternalId(FLEXE, "order", order.id, "F9"),
                ExternalId(FLEXE, "fulfillment order", "BC-1-F1", "F10"),
                ExternalId(FLEXE, "order line", "1", "L1"),
            ),
        )
        with store.begin() as unit:
            unit.save(order, None, (), ())
            assert unit.find(SHOP, "100") == order.id
            unit.save(moved, order, (), ())
            assert unit.find(SHOP, "100") is None
            assert unit.find(FLEXE, "F9") == order.id
            assert unit.find(FLEXE, "F10") == order.id
            assert unit.find(FLEXE, "L1") is None

    def test_waiting_messages_are_taken_out_once_and_oldest_first(self, store: SqlStore) -> None:
        with store.begin() as unit:
            unit.wait(a_message("b"), NOW)
            unit.wait(a_message("a"), NOW)
            unit.wait(a_message("a"), NOW)
            unit.wait(a_message("other", "101"), NOW)
        assert [each.message.id for each in store.still_waiting()] == ["b", "a", "other"]
        with store.begin() as unit:
            taken = unit.waiting(SHOP, "100")
            assert [each.message for each in taken] == [a_message("b"), a_message("a")]
            assert taken[0].since == NOW
            assert unit.waiting(SHOP, "100") == ()
        assert [each.message.id for each in store.still_waiting()] == ["other"]

    def test_checkpoints_are_kept_per_puller(self, store: SqlStore) -> None:
        with store.begin() as unit:
            unit.set_checkpoint("p", "1")
            unit.set_checkpoint("p", "2")
            unit.set_checkpoint("q", "x")
            assert (unit.checkpoint("p"), unit.checkpoint("q"), unit.checkpoint("r")) == ("2", "x", "")

    def test_errors_are_listed_until_they_are_deactivated(self, store: SqlStore) -> None:
        first = ErrorRecord("e1", "policy", NOW, "iom", "no stock", order_id=OrderId("BC-1"))
        second = ErrorRecord("e2", "provider inbound", NOW - timedelta(1), "flexe", "bad", payload="{'a': \"é\"}")
        with store.begin() as unit:
            unit.add_error(first)
            unit.add_error(second)
            unit.add_error(attrs.evolve(first, what="changed"))
        assert store.errors() == (first, second)
        assert store.errors("policy") == (first,)
        assert store.deactivate_error("e1")
        assert not store.deactivate_error("e1")
        assert not store.deactivate_error("e3")
        assert store.errors() == (second,)
        with store.begin() as unit:
            unit.add_error(first)
        assert store.errors("policy") == ()

    def test_a_mapping_that_exists_stays(self, store: SqlStore) -> None:
        assert store.mapped(FLEXE, "warehouse", "code", "RENO") is None
        assert store.add_mapping(FLEXE, "warehouse", "code", "RENO", "W1") == "W1"
        assert store.add_mapping(FLEXE, "warehouse", "code", "RENO", "W2") == "W1"
        assert store.mapped(FLEXE, "warehouse", "code", "RENO") == "W1"


class TestOutbox:
    def test_one_command_per_order_and_the_oldest_first(self, store: SqlStore) -> None:
        send(store, a_command("b1", "B"), a_command("b2", "B"), a_command("a1", "A"), a_command("c1", "C"))
        assert keys(store, limit=2) == ["b1", "a1"]
        assert keys(store) == ["c1"]
        assert keys(store) == []
        with store.begin() as unit:
            unit.finish("b1")
        assert keys(store) == ["b2"]

    def test_a_command_is_handed_out_again_when_its_lease_ended(self, store: SqlStore) -> None:
        send(store, a_command("k"))
        (first,) = store.due(NOW, 1, NOW + LEASE)
        assert (first.attempt, first.first_at) == (1, NOW)
        assert store.next_due() == NOW + LEASE
        assert keys(store, NOW + LEASE - timedelta(seconds=1)) == []
        (second,) = store.due(NOW + LEASE, 1, NOW + 2 * LEASE)
        assert (second.attempt, second.first_at, second.command) == (2, NOW, first.command)

    def test_a_postponed_command_waits_and_blocks_no_other(self, store: SqlStore) -> None:
        send(store, a_command("k1"), a_command("k2"))
        assert keys(store) == ["k1"]
        store.postpone("k1", NOW + timedelta(hours=1), "flexe is down")
        assert [(each.command.key, each.attempt, each.why) for each in store.pending()] == [
            ("k1", 1, "flexe is down"),
            ("k2", 0, ""),
        ]
        assert keys(store) == ["k2"]
        store.postpone("k2", NOW + timedelta(hours=2), "flexe is down")
        assert store.next_due() == NOW + timedelta(hours=1)
        assert keys(store, NOW + timedelta(hours=3)) == ["k1"]

    def test_a_command_sent_again_starts_afresh(self, store: SqlStore) -> None:
        send(store, a_command("k"))
        store.due(NOW, 1, NOW + LEASE)
        store.postpone("k", NOW + timedelta(days=1), "down")
        send(store, attrs.evolve(a_command("k"), attempt=2))
        (due,) = store.due(NOW + timedelta(hours=1), 1, NOW + timedelta(hours=2))
        assert (due.command.attempt, due.attempt, due.first_at) == (2, 1, NOW + timedelta(hours=1))
        assert store.outbox_size() == 1

    def test_finishing_and_postponing_what_is_not_there_changes_nothing(self, store: SqlStore) -> None:
        with store.begin() as unit:
            unit.finish("nothing")
        store.postpone("nothing", NOW, "")
        assert store.next_due() is None

    def test_a_provider_can_be_skipped_and_its_orders_with_it(self, store: SqlStore) -> None:
        send(store, a_command("a1", "A", FLEXE), a_command("a2", "A", SHOP), a_command("b1", "B", SHOP))
        assert keys(store, skip=(FLEXE,)) == ["b1"]
        assert keys(store, skip=(SHOP,)) == ["a1"]

    def test_nothing_is_handed_out_twice_between_threads(self, file: str) -> None:
        store = SqlStore.open(file)
        send(store, *(a_command(f"k{n}", f"BC-{n}") for n in range(60)))
        taken: list[str] = []

        def take() -> None:
            while found := keys(store, limit=2):
                taken.extend(found)

        in_threads(4, take)
        assert sorted(taken) == sorted(f"k{n}" for n in range(60))
        store.close()

    def test_an_owner_takes_only_its_own_leases_back(self, file: str) -> None:
        crashed, other = SqlStore.open(file), SqlStore.open(file, owner="other")
        send(crashed, a_command("k1", "A"), a_command("k2", "B"))
        assert keys(crashed, limit=1) == ["k1"]
        assert keys(other) == ["k2"]
        crashed.close()
        again = SqlStore.open(file)
        assert again.release_leases() == 1
        assert again.release_leases() == 0
        (due,) = again.due(NOW, 5, NOW + LEASE)
        assert (due.command.key, due.attempt) == ("k1", 2)
        again.close()
        other.close()

    def test_a_lease_can_be_renewed_while_it_is_held(self, store: SqlStore) -> None:
        send(store, a_command("k1", "A"), a_command("k2", "B"))
        assert keys(store) == ["k1", "k2"]
        store.postpone("k2", NOW, "down")
        store.renew(("k1", "k2"), NOW + 3 * LEASE)
        store.renew((), NOW)
        assert keys(store, NOW + 2 * LEASE) == ["k2"]


class TestLives:
    """Any sequence of calls leaves the store where a few dictionaries are."""

    def test_store_lives(self) -> None:
        run_state_machine_as_test(
            StoreLives,
            settings=settings(
                max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


@attrs.define
class Sent:
    """A command as the model remembers it."""

    order: str
    number: int
    due_at: datetime
    attempt: int = 0
    first_at: datetime | None = None
    leased: bool = False


class StoreLives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = SqlStore.open("sqlite://")
        self.now = NOW
        self.numbers = 0
        self.orders: dict[str, SalesOrder] = {}
        self.events: dict[str, list[Happened]] = {}
        self.seen: set[str] = set()
        self.sent: dict[str, Sent] = {}

    def teardown(self) -> None:
        self.store.close()

    @rule(
        number=st.sampled_from("ABC"),
        message=st.integers(0, 5),
        sends=st.lists(st.sampled_from(["k1", "k2", "k3"]), unique=True),
        crash=st.booleans(),
    )
    def handle(self, number: str, message: int, sends: list[str], crash: bool) -> None:
        """One message as the orchestrator handles it, dying before the commit when *crash*."""
        before = self.orders.get(number)
        after = an_order(number, number) if before is None else changed(before, note=f"{message}")
        happening = happened(f"e{message}", self.now)
        commands = [a_command(f"{number}-{key}", number) for key in sends]
        try:
            with self.store.begin() as unit:
                assert unit.order(OrderId(number)) == before
                new = unit.accept(MessageId(f"{number}-{message}"), self.now)
                assert new == (f"{number}-{message}" not in self.seen)
                if not new:
                    return
                unit.save(after, before, (happening,), commands)
                if crash:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        self.seen.add(f"{number}-{message}")
        self.orders[number] = after
        self.events.setdefault(number, []).append(happening)
        for command in commands:
            old = self.sent.get(command.key)
            self.numbers += 1
            self.sent[command.key] = Sent(number, old.number if old else self.numbers, NOW - timedelta(days=999))

    @rule(limit=st.integers(0, 3))
    def take(self, limit: int) -> None:
        expected = []
        for key, each in sorted(self.sent.items(), key=lambda item: item[1].number):
            others = [other for name, other in self.sent.items() if other.order == each.order and name != key]
            out = any(other.leased and other.due_at > self.now for other in others)
            older = any(other.due_at <= self.now and other.number < each.number for other in others)
            if each.due_at <= self.now and not out and not older:
                expected.append(key)
        handed = self.store.due(self.now, limit, self.now + LEASE)
        assert [due.command.key for due in handed] == expected[:limit]
        for due in handed:
            each = self.sent[due.command.key]
            each.attempt += 1
            each.first_at = each.first_at or self.now
            each.due_at, each.leased = self.now + LEASE, True
            assert (due.attempt, due.first_at) == (each.attempt, each.first_at)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), seconds=st.integers(0, 200))
    def postpone(self, data: st.DataObject, seconds: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.sent)))
        until = self.now + timedelta(seconds=seconds)
        self.store.postpone(key, until, "why")
        self.sent[key].due_at, self.sent[key].leased = until, False

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.sent)))
        with self.store.begin() as unit:
            unit.finish(key)
        del self.sent[key]

    @rule(seconds=st.integers(1, 100))
    def pass_time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def restart(self) -> None:
        released = self.store.release_leases()
        leased = [each for each in self.sent.values() if each.leased]
        assert released == len(leased)
        for each in leased:
            each.due_at, each.leased = NOW - timedelta(days=999), False

    @invariant()
    def orders_and_events_are_those_of_the_model(self) -> None:
        assert {order.id: order for order in self.store.orders()} == self.orders
        for number, events in self.events.items():
            assert list(self.store.events(OrderId(number))) == events
        assert sum(self.store.count_by_state().values()) == len(self.orders)

    @invariant()
    def the_outbox_is_that_of_the_model(self) -> None:
        assert self.store.outbox_size() == len(self.sent)
        assert (self.store.next_due() is None) == (not self.sent)
        assert [each.command.key for each in self.store.pending()] == sorted(
            self.sent, key=lambda key: self.sent[key].number
        )


class TestDatabase:
    def test_migrations_build_the_tables_the_store_uses(self, file: str) -> None:
        SqlStore.open(file).close()
        engine = sa.create_engine(file)
        with engine.connect() as connection:
            assert migrations.version(connection) == migrations.HEAD
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        engine.dispose()

    def test_opening_twice_keeps_what_is_there(self, file: str) -> None:
        first = SqlStore.open(file)
        send(first, a_command("k"))
        first.close()
        second = SqlStore.open(file)
        assert second.load(OrderId("BC-1")) == an_order(external="")
        assert keys(second) == ["k"]
        second.close()

    def test_several_may_open_an_empty_database_at_once(self, file: str) -> None:
        in_threads(3, lambda: SqlStore.open(file).close())

    def test_a_database_of_a_newer_version_is_refused(self, file: str) -> None:
        SqlStore.open(file).close()
        engine = sa.create_engine(file)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        engine.dispose()
        with pytest.raises(Misconfigured, match=r"orders\.db was written by a newer version of iom \(9999\)"):
            SqlStore.open(file)

    def test_a_directory_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            Misconfigured, match=r"nowhere/orders\.db: unable to open database file; make its directory"
        ):
            SqlStore.open(f"sqlite:///{tmp_path}/nowhere/orders.db")

    def test_a_file_that_is_something_else_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "orders.db").write_text("Dear diary, " * 100)
        with pytest.raises(Misconfigured, match="file is not a database; name another file"):
            SqlStore.open(f"sqlite:///{tmp_path / 'orders.db'}")

    @pytest.mark.parametrize("url", ["", "orders.db", "mysql://u:hunter2@h/d", "nonsense+x://u:hunter2@h/d"])
    def test_a_url_that_can_not_be_used_is_refused_without_its_password(self, url: str) -> None:
        with pytest.raises(Misconfigured) as refused:
            SqlStore.open(url)
        assert "hunter2" not in str(refused.value)

    def test_a_database_somebody_else_has_locked_is_unavailable(
        self, file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("iom_adapters.store.sql.PATIENCE", 0.05)
        store, other = SqlStore.open(file), SqlStore.open(file)
        with other.begin() as unit:
            unit.accept(MessageId("m"), NOW)
            with pytest.raises(Unavailable, match="locked by another process"), store.begin():
                pass
            assert store.load(OrderId("BC-1")) is None, "readers don't wait for writers"
        with store.begin() as unit:
            assert not unit.accept(MessageId("m"), NOW)
        store.close()
        other.close()

    def test_a_time_without_a_zone_is_refused(self, store: SqlStore) -> None:
        with pytest.raises(ValueError, match="without a zone"), store.begin() as unit:
            unit.accept(MessageId("m"), datetime(2026, 1, 1))  # noqa: DTZ001 - a time without a zone is what is refused
