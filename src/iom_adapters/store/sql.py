"""`SqlStore`: the `OrderStore` on SQLAlchemy Core, for SQLite and PostgreSQL.

Every statement is built once, and those that run for every message are prepared. On SQLite a writing transaction
begins with ``BEGIN IMMEDIATE``, so that what it has read is still true when it writes, and writers of one process
queue on a lock, which is fairer and faster than SQLite's own polling.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from iom_adapters.store import migrations
from iom_adapters.store.prepared import Prepared
from iom_adapters.store.tables import (
    checkpoint,
    error,
    event,
    external,
    inbox,
    mapping,
    outbox,
    sales_order,
    waiting,
)
from iom_core.codec import from_json, order_from_json, order_to_json, to_json
from iom_core.errors import Fault, Misconfigured, Unavailable
from iom_core.messages import Message
from iom_core.order import Command, ErrorRecord, Happened, SalesOrder
from iom_core.ports import Conflict, Due, Waiting
from iom_core.values import MessageId, OrderId, System

AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a new command is due: long ago, whatever clock its reader goes by."""

PATIENCE: Final = 30.0
"""How long a writer waits for the others, in seconds, before it gives up with `Unavailable`."""

# Reading. Named parameters differ from column names where SQLAlchemy would confuse the two.
_LOAD = sa.select(sales_order.c.body).where(sales_order.c.order_id == sa.bindparam("id"))
_PAGE = (
    sa.select(sales_order.c.order_id, sales_order.c.body)
    .where(sales_order.c.order_id > sa.bindparam("after"))
    .order_by(sales_order.c.order_id)
    .limit(200)
)
_FIND = sa.select(external.c.order_id).where(
    external.c.system == sa.bindparam("system"), external.c.external_id == sa.bindparam("external_id")
)
_EVENTS = (
    sa.select(event.c.at, event.c.event, event.c.entity, event.c.record, event.c.state, event.c.reason)
    .where(event.c.order_id == sa.bindparam("id"))
    .order_by(event.c.version, event.c.seq)
)
_CHECKPOINT = sa.select(checkpoint.c.value).where(checkpoint.c.puller == sa.bindparam("puller"))
_ERRORS = sa.select(error.c.body).where(error.c.active.is_(True)).order_by(error.c.seq)
_ERRORS_OF_KIND = _ERRORS.where(error.c.kind == sa.bindparam("kind"))
_STILL_WAITING = sa.select(waiting.c.body, waiting.c.since).order_by(waiting.c.seq)
_COUNT_BY_STATE = sa.select(sales_order.c.state, sa.func.count()).group_by(sales_order.c.state)
_OUTBOX_SIZE = sa.select(sa.func.count()).select_from(outbox)
_NEXT_DUE = sa.select(sa.func.min(outbox.c.due_at))
_PENDING = sa.select(
    outbox.c.body, outbox.c.due_at, outbox.c.attempt, outbox.c.first_at, outbox.c.lease_until, outbox.c.why
).order_by(outbox.c.seq)
_MAPPED = sa.select(mapping.c.internal).where(
    mapping.c.provider == sa.bindparam("provider"),
    mapping.c.table_name == sa.bindparam("table_name"),
    mapping.c.field == sa.bindparam("field"),
    mapping.c.external_value == sa.bindparam("external_value"),
)


def _ready(*, skipping: bool) -> sa.Select[int]:
    """Select what may be handed out: of each order the oldest due command, unless another one is out.

    Which command of an order is next depends on nothing but the outbox and the time: two runners that skip
    different providers can't pick two commands of one order.
    """
    other = outbox.alias("other")
    now = sa.bindparam("now", type_=outbox.c.due_at.type)
    goes_first = sa.or_(other.c.lease_until > now, sa.and_(other.c.seq < outbox.c.seq, other.c.due_at <= now))
    ready = (
        sa.select(outbox.c.seq)
        .where(
            outbox.c.due_at <= now,
            ~sa.exists().where(other.c.order_id == outbox.c.order_id, other.c.seq != outbox.c.seq, goes_first),
        )
        .order_by(outbox.c.seq)
        .limit(sa.bindparam("limit", type_=sa.Integer()))
        .with_for_update(skip_locked=True, of=outbox)
    )
    return ready.where(outbox.c.provider.not_in(sa.bindparam("skip", expanding=True))) if skipping else ready


_READY = _ready(skipping=False)
_READY_SKIPPING = _ready(skipping=True)

# Writing.
_INSERT_ORDER = sa.insert(sales_order)
_UPDATE_ORDER = (
    sa.update(sales_order)
    .where(sales_order.c.order_id == sa.bindparam("id"), sales_order.c.version == sa.bindparam("expected"))
    .values(
        {
            column: sa.bindparam(f"new_{column}")
            for column in ("version", "state", "reason", "channel", "placed_at", "updated_at", "body")
        }
    )
)
_INSERT_EXTERNAL = sa.insert(external)
_DELETE_EXTERNAL = sa.delete(external).where(
    external.c.system == sa.bindparam("old_system"), external.c.external_id == sa.bindparam("old_id")
)
_INSERT_EVENT = sa.insert(event)
_FINISH = sa.delete(outbox).where(outbox.c.key == sa.bindparam("done"))
_LEASE = (
    sa.update(outbox)
    .where(outbox.c.seq == sa.bindparam("taken"))
    .values(
        attempt=outbox.c.attempt + 1,
        first_at=sa.func.coalesce(outbox.c.first_at, sa.bindparam("now", type_=outbox.c.first_at.type)),
        due_at=sa.bindparam("until"),
        lease_until=sa.bindparam("until"),
        owner=sa.bindparam("lessee"),
    )
    .returning(outbox.c.body, outbox.c.attempt, outbox.c.first_at)
)
_POSTPONE = (
    sa.update(outbox)
    .where(outbox.c.key == sa.bindparam("given_back"))
    .values(due_at=sa.bindparam("until"), lease_until=None, owner="", why=sa.bindparam("because"))
)
_RELEASE = (
    sa.update(outbox)
    .where(outbox.c.owner == sa.bindparam("lessee"), outbox.c.lease_until.is_not(None))
    .values(due_at=AT_ONCE, lease_until=None, owner="")
)
_RENEW = (
    sa.update(outbox)
    .where(
        outbox.c.key.in_(sa.bindparam("keys", expanding=True)),
        outbox.c.owner == sa.bindparam("lessee"),
        outbox.c.lease_until.is_not(None),
    )
    .values(due_at=sa.bindparam("until"), lease_until=sa.bindparam("until"))
)
_TAKE_WAITING = (
    sa.delete(waiting)
    .where(waiting.c.system == sa.bindparam("system"), waiting.c.external_id == sa.bindparam("external_id"))
    .returning(waiting.c.seq, waiting.c.body, waiting.c.since)
)
_DEACTIVATE = sa.update(error).where(error.c.id == sa.bindparam("which"), error.c.active.is_(True)).values(active=False)


class _Statements:
    """What runs once or more for every message, prepared for one dialect."""

    def __init__(self, dialect: sa.Dialect) -> None:
        insert = _INSERTS[dialect.name]
        send, point = insert(outbox), insert(checkpoint)
        # The row count of DO NOTHING can't be trusted on every driver; whether a row comes back can.
        self.accept = Prepared(insert(inbox).on_conflict_do_nothing().returning(inbox.c.message_id), dialect)
        self.send = Prepared(
            send.on_conflict_do_update(
                index_elements=["key"], set_={name: send.excluded[name] for name in _COMMAND_COLUMNS if name != "key"}
            ),
            dialect,
            _COMMAND_COLUMNS,
        )
        self.wait = Prepared(
            insert(waiting).on_conflict_do_nothing(),
            dialect,
            ("message_id", "system", "external_id", "since", "body"),
        )
        self.set_checkpoint = Prepared(
            point.on_conflict_do_update(index_elements=["puller"], set_={"value": point.excluded.value}), dialect
        )
        self.add_error = Prepared(
            insert(error).on_conflict_do_nothing(), dialect, ("id", "kind", "order_id", "at", "active", "body")
        )
        self.add_mapping = Prepared(insert(mapping).on_conflict_do_nothing(), dialect)
        self.load = Prepared(_LOAD, dialect)
        self.find = Prepared(_FIND, dialect)
        self.checkpoint = Prepared(_CHECKPOINT, dialect)
        self.take_waiting = Prepared(_TAKE_WAITING, dialect)
        self.insert_order = Prepared(_INSERT_ORDER, dialect)
        self.update_order = Prepared(_UPDATE_ORDER, dialect)
        self.insert_external = Prepared(_INSERT_EXTERNAL, dialect)
        self.delete_external = Prepared(_DELETE_EXTERNAL, dialect)
        self.insert_event = Prepared(_INSERT_EVENT, dialect)
        self.finish = Prepared(_FINISH, dialect)
        self.ready = Prepared(_READY, dialect)
        self.lease = Prepared(_LEASE, dialect)
        self.postpone = Prepared(_POSTPONE, dialect)
        self.next_due = Prepared(_NEXT_DUE, dialect)


_INSERTS: Final[Mapping[str, Callable[[sa.Table], sqlite.Insert] | Callable[[sa.Table], postgresql.Insert]]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
_COMMAND_COLUMNS: Final = tuple(column.name for column in outbox.c if column.name != "seq")


@attrs.frozen
class Pending:
    """A command in the outbox, for people to look at. It is out with a runner while *leased_until* is ahead."""

    command: Command
    due_at: datetime
    attempt: int
    """How often it was handed out."""
    first_at: datetime | None
    leased_until: datetime | None
    why: str
    """Why it was postponed last; ``""`` if it never was."""


class SqlUnit:
    """One transaction of a `SqlStore`: the `Unit` of work; see `SqlStore.begin`."""

    def __init__(self, connection: sa.Connection, statements: _Statements) -> None:
        self._connection = connection
        self._sql = statements
        self._at: datetime | None = None

    def accept(self, message_id: MessageId, at: datetime) -> bool:
        """Mark a message as seen; ``False`` when it was before, and nothing may be done for it."""
        self._at = at
        return self._sql.accept.first(self._connection, {"message_id": message_id, "at": at}) is not None

    def order(self, order_id: OrderId) -> SalesOrder | None:
        """Load an order."""
        row = self._sql.load.first(self._connection, {"id": order_id})
        return None if row is None else order_from_json(row[0])

    def find(self, system: System, external_id: str) -> OrderId | None:
        """Return which order an outside system knows by *external_id*: its own number, or a fulfillment order's."""
        row = self._sql.find.first(self._connection, {"system": system, "external_id": external_id})
        return None if row is None else OrderId(row[0])

    def save(
        self, order: SalesOrder, before: SalesOrder | None, events: Sequence[Happened], commands: Sequence[Command]
    ) -> None:
        """Save a changed order with what happened and what is to be done.

        The stored version is that of *order*, and in any case above that of *before*. A command whose key is in
        the outbox already starts afresh. Raises `Conflict` when the stored version is not that of *before*, and
        when another order has one of the order's outside numbers: the caller starts over.
        """
        if before is not None and order.version <= before.version:
            order = attrs.evolve(order, version=before.version + 1)
        updated_at = self._at or (events[-1].at if events else order.placed_at)
        try:
            if before is None:
                self._insert(order, updated_at)
            else:
                self._update(order, before.version, updated_at)
            self._number(order, before)
        except _clash(self._connection) as clash:
            raise Conflict(f"{order.id} or one of its outside numbers was saved by somebody else") from clash
        if events:
            self._sql.insert_event.run_each(
                self._connection,
                [
                    {
                        "order_id": order.id,
                        "version": order.version,
                        "seq": seq,
                        "at": each.at,
                        "event": each.event,
                        "entity": each.entity,
                        "record": each.record,
                        "state": each.state,
                        "reason": each.reason,
                    }
                    for seq, each in enumerate(events)
                ],
            )
        if commands:
            self._sql.send.run_each(
                self._connection,
                [
                    {
                        "key": each.key,
                        "order_id": each.order_id,
                        "provider": each.provider,
                        "body": to_json(each),
                        "due_at": AT_ONCE,
                        "first_at": None,
                        "attempt": 0,
                        "lease_until": None,
                        "owner": "",
                        "why": "",
                    }
                    for each in commands
                ],
            )

    def _insert(self, order: SalesOrder, updated_at: datetime) -> None:
        self._sql.insert_order.run(
            self._connection,
            {
                "order_id": order.id,
                "version": order.version,
                "state": order.status.state,
                "reason": order.status.reason,
                "channel": order.channel,
                "placed_at": order.placed_at,
                "updated_at": updated_at,
                "body": order_to_json(order),
            },
        )

    def _update(self, order: SalesOrder, expected: int, updated_at: datetime) -> None:
        changed = self._sql.update_order.run(
            self._connection,
            {
                "id": order.id,
                "expected": expected,
                "new_version": order.version,
                "new_state": order.status.state,
                "new_reason": order.status.reason,
                "new_channel": order.channel,
                "new_placed_at": order.placed_at,
                "new_updated_at": updated_at,
                "new_body": order_to_json(order),
            },
        )
        if changed != 1:
            raise Conflict(f"{order.id} is no longer at version {expected}")

    def _number(self, order: SalesOrder, before: SalesOrder | None) -> None:
        """Keep the look-up by outside numbers in step with the order."""
        if before is not None and before.externals is order.externals:
            return
        old = _numbers(before) if before is not None else {}
        new = _numbers(order)
        gone = [{"old_system": system, "old_id": number} for system, number in old if (system, number) not in new]
        come = [
            {"system": system, "external_id": number, "order_id": order.id}
            for system, number in new
            if (system, number) not in old
        ]
        if gone:
            self._sql.delete_external.run_each(self._connection, gone)
        if come:
            self._sql.insert_external.run_each(self._connection, come)

    def finish(self, command_key: str) -> None:
        """Take a command out of the outbox: its outcome has been decided on."""
        self._sql.finish.run(self._connection, {"done": command_key})

    def wait(self, message: Message, at: datetime) -> None:
        """Keep a message that names an order nobody knows yet; the same message again changes nothing."""
        self._sql.wait.run(
            self._connection,
            {
                "message_id": message.id,
                "system": message.system,
                "external_id": message.external_id,
                "since": at,
                "body": to_json(message),
            },
        )

    def waiting(self, system: System, external_id: str) -> tuple[Waiting, ...]:
        """Take out the messages that wait for this number, the longest waiting first."""
        rows = self._sql.take_waiting.all(self._connection, {"system": system, "external_id": external_id})
        return tuple(
            Waiting(from_json(body, Message), since) for _, body, since in sorted(rows, key=lambda row: row[0])
        )

    def checkpoint(self, puller: str) -> str:
        """Return where a puller stands; ``""`` before its first run."""
        row = self._sql.checkpoint.first(self._connection, {"puller": puller})
        return "" if row is None else str(row[0])

    def set_checkpoint(self, puller: str, value: str) -> None:
        """Remember where a puller stands."""
        self._sql.set_checkpoint.run(self._connection, {"puller": puller, "value": value})

    def add_error(self, error: ErrorRecord) -> None:
        """Add to one of the four error lists; the same id again changes nothing."""
        self._sql.add_error.run(
            self._connection,
            {
                "id": error.id,
                "kind": error.kind,
                "order_id": error.order_id,
                "at": error.at,
                "active": error.active,
                "body": to_json(error),
            },
        )


def _clash(connection: sa.Connection) -> type[Exception]:
    """Return what the driver raises when a key is there already."""
    clash: type[Exception] = connection.dialect.loaded_dbapi.IntegrityError
    return clash


def _numbers(order: SalesOrder) -> dict[tuple[str, str], None]:
    """Return the numbers by which outside systems name the order in their messages; a dict, for its order."""
    return {(each.system, each.id): None for each in order.externals if each.entity in _NUMBERED}


_NUMBERED: Final = ("order", "fulfillment order")
"""Which records' outside numbers lead to the order: a warehouse knows only those of its fulfillment orders."""


class _OpenUnit(threading.local):
    connection: sa.Connection | None = None


class SqlStore:
    """An `OrderStore` in an SQL database; safe to share between threads.

    *url* is SQLAlchemy's: ``"sqlite:///orders.db"``, ``"sqlite://"`` (in memory, gone with the store) or
    ``"postgresql+psycopg://…"``. *owner* names whoever takes commands from this store, so that after a crash it
    can take its own leases back: give each of several processes on one database its own.

    `open` makes a store that is ready to use; the constructor neither connects nor migrates. Every method raises
    `Misconfigured` when the database can't be used until a person mends something, and `Unavailable` when it is
    locked, full of others, or its connection broke. A read inside a unit, in the same thread, sees what the unit
    has done so far.
    """

    def __init__(self, url: str, *, owner: str = "local") -> None:
        self._owner = owner
        self._shown, self._engine, self._one_connection = _engine(url)
        self._sql = _Statements(self._engine.dialect)
        # Readers announce themselves, so that the listener begins no transaction for a single SELECT.
        self._reading = self._engine.execution_options(iom_reads=True)
        self._turn = threading.Lock() if self._engine.dialect.name == "sqlite" else None
        self._open = _OpenUnit()
        sa.event.listen(self._engine, "handle_error", self._to_fault, retval=True)

    @classmethod
    def open(cls, url: str, *, owner: str = "local") -> SqlStore:
        """Open a store and bring its tables to the newest version, making them in an empty database."""
        store = cls(url, owner=owner)
        try:
            store.migrate()
        except BaseException:
            store.close()
            raise
        return store

    def migrate(self) -> None:
        """Bring the tables to the newest version, in one transaction; does nothing when they are.

        Raises `Misconfigured` when a newer version of the library has written the database.
        """
        with self._read() as connection:
            found = migrations.version(connection)
        if found == migrations.HEAD:
            return
        with self._write() as connection:
            try:
                migrations.upgrade(connection)
            except migrations.unknown_version() as unknown:
                raise Misconfigured(
                    "store", f"{self._shown} was written by a newer version of iom ({found}); upgrade iom to open it"
                ) from unknown

    def close(self) -> None:
        """Close every connection; a memory database is gone with it."""
        self._engine.dispose()

    @contextmanager
    def begin(self) -> Iterator[SqlUnit]:
        """Open a transaction; it commits when the block ends and rolls back when it raises.

        One thread has one unit at a time; a second one inside raises `RuntimeError`.
        """
        if self._open.connection is not None:
            raise RuntimeError("this thread has a unit open already; units don't nest")
        with self._write() as connection:
            yield SqlUnit(connection, self._sql)

    def due(self, now: datetime, limit: int, lease_until: datetime, skip: Collection[System] = ()) -> tuple[Due, ...]:
        """Hand out up to *limit* commands that are due, at most one per order, not again before *lease_until*.

        The oldest go first. An order that has a command out gets no other one. A command whose lease ended is
        handed out again: its runner died. Commands for the providers in *skip* stay where they are.
        """
        # Most polls find nothing: looking takes no lock, and an index says at once when all are put off.
        with self._read() as connection:
            next_due = self._next_due(connection)
            if limit < 1 or next_due is None or next_due > now or not self._ready(connection, now, 1, skip):
                return ()
        with self._write() as connection:
            lease = {"now": now, "until": lease_until, "lessee": self._owner}
            rows = [
                self._sql.lease.first(connection, {**lease, "taken": seq})
                for seq in self._ready(connection, now, limit, skip)
            ]
        return tuple(Due(from_json(row[0], Command), row[1], row[2]) for row in rows if row is not None)

    def _ready(self, connection: sa.Connection, now: datetime, limit: int, skip: Collection[System]) -> list[int]:
        asked = {"now": now, "limit": limit}
        if skip:
            return list(connection.scalars(_READY_SKIPPING, {**asked, "skip": tuple(skip)}))
        return [seq for (seq,) in self._sql.ready.all(connection, asked)]

    def postpone(self, command_key: str, until: datetime, why: str) -> None:
        """Give a command back to be tried again at *until*."""
        with self._write() as connection:
            self._sql.postpone.run(connection, {"given_back": command_key, "until": until, "because": why})

    def next_due(self) -> datetime | None:
        """Return when the next command is due; ``None`` when the outbox is empty.

        The time may have passed long ago. For a command that is out, it is the end of its lease.
        """
        with self._read() as connection:
            return self._next_due(connection)

    def _next_due(self, connection: sa.Connection) -> datetime | None:
        row = self._sql.next_due.first(connection, {})
        return None if row is None else row[0]

    def release_leases(self) -> int:
        """Make every command that this store's *owner* has out due at once, and return how many there were.

        Only for an owner that knows none of them is running: it has just started.
        """
        with self._write() as connection:
            return connection.execute(_RELEASE, {"lessee": self._owner}).rowcount

    def renew(self, command_keys: Collection[str], lease_until: datetime) -> None:
        """Keep commands that are still running from being handed out again before *lease_until*."""
        if command_keys:
            with self._write() as connection:
                values = {"keys": tuple(command_keys), "lessee": self._owner, "until": lease_until}
                connection.execute(_RENEW, values)

    def load(self, order_id: OrderId) -> SalesOrder | None:
        """Load an order outside a transaction."""
        with self._read() as connection:
            return SqlUnit(connection, self._sql).order(order_id)

    def orders(self) -> Iterator[SalesOrder]:
        """Yield every order, by id, without keeping the database busy in between."""
        after = ""
        while True:
            with self._read() as connection:
                page = connection.execute(_PAGE, {"after": after}).all()
            if not page:
                return
            for order_id, body in page:
                yield order_from_json(body)
                after = order_id

    def events(self, order_id: OrderId) -> tuple[Happened, ...]:
        """Return everything that happened to an order, oldest first."""
        with self._read() as connection:
            return tuple(Happened(*row) for row in connection.execute(_EVENTS, {"id": order_id}))

    def errors(self, kind: str | None = None) -> tuple[ErrorRecord, ...]:
        """Return the active errors, of one kind or all, in the order they were added."""
        with self._read() as connection:
            if kind is None:
                rows = connection.execute(_ERRORS)
            else:
                rows = connection.execute(_ERRORS_OF_KIND, {"kind": kind})
            return tuple(from_json(body, ErrorRecord) for (body,) in rows)

    def deactivate_error(self, error_id: str) -> bool:
        """Take an error off the active list; ``False`` when there is none of that id."""
        with self._write() as connection:
            return connection.execute(_DEACTIVATE, {"which": error_id}).rowcount == 1

    def still_waiting(self) -> tuple[Waiting, ...]:
        """Return the messages that name orders nobody knows, the longest waiting first."""
        with self._read() as connection:
            return tuple(Waiting(from_json(body, Message), since) for body, since in connection.execute(_STILL_WAITING))

    def count_by_state(self) -> dict[str, int]:
        """Return how many orders are in each state; states without orders are absent."""
        with self._read() as connection:
            return {str(state): int(count) for state, count in connection.execute(_COUNT_BY_STATE)}

    def outbox_size(self) -> int:
        """Return how many commands are not finished, due or not."""
        with self._read() as connection:
            return int(connection.execute(_OUTBOX_SIZE).scalar_one())

    def pending(self) -> tuple[Pending, ...]:
        """Return every command that is not finished, oldest first, with why it waits."""
        with self._read() as connection:
            return tuple(Pending(from_json(row[0], Command), *row[1:]) for row in connection.execute(_PENDING))

    def add_mapping(self, provider: System, table: str, field: str, external_value: str, internal: str) -> str:
        """Map a provider's value to our record and return what it is mapped to: a mapping that exists stays."""
        key = {"provider": provider, "table_name": table, "field": field, "external_value": external_value}
        with self._write() as connection:
            self._sql.add_mapping.run(connection, {**key, "internal": internal})
            return str(connection.execute(_MAPPED, key).scalar_one())

    def mapped(self, provider: System, table: str, field: str, external_value: str) -> str | None:
        """Return our record for a provider's value; ``None`` when nothing is mapped."""
        key = {"provider": provider, "table_name": table, "field": field, "external_value": external_value}
        with self._read() as connection:
            found = connection.execute(_MAPPED, key).scalar()
            return None if found is None else str(found)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn the driver's own errors, which prepared statements raise, into faults."""
        try:
            yield
        except self._engine.dialect.loaded_dbapi.Error as broken:
            fault = self._fault(broken)
            if fault is None:
                raise
            raise fault from broken

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """Hand out the connection of a writing transaction: that of this thread's unit, or a new one."""
        if self._open.connection is not None:
            yield self._open.connection
            return
        if self._turn is not None and not self._turn.acquire(timeout=PATIENCE):
            raise Unavailable("store", f"{self._shown} was busy for {PATIENCE:g} seconds")
        try:
            with self._faults(), self._engine.begin() as connection:
                self._open.connection = connection
                try:
                    yield connection
                finally:
                    self._open.connection = None
        finally:
            if self._turn is not None:
                self._turn.release()

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """Hand out a connection to read from; what it reads is one statement's snapshot."""
        if self._open.connection is not None:
            yield self._open.connection
        elif self._one_connection:
            with self._write() as connection:
                yield connection
        else:
            with self._faults(), self._reading.connect() as connection:
                yield connection

    def _fault(self, broken: BaseException) -> Fault | None:
        """Say whose fault it is; ``None`` when it is nobody's but the program's."""
        text = " ".join(str(broken).split())
        if self._engine.dialect.name == "sqlite":
            if "locked" in text or "busy" in text:
                return Unavailable("store", f"{self._shown} is locked by another process")
            advice = next((advice for words, advice in _SQLITE_ADVICE if words in text), None)
            return None if advice is None else Misconfigured("store", f"{self._shown}: {text}; {advice}")
        advice = next((advice for words, advice in _POSTGRESQL_ADVICE if words in text), None)
        if advice is not None:
            return Misconfigured("store", f"{self._shown}: {advice}")
        # Whatever PostgreSQL counts as operational may pass: no connection, a deadlock, a shutdown, no memory.
        dbapi = self._engine.dialect.loaded_dbapi
        if isinstance(broken, (dbapi.OperationalError, dbapi.InterfaceError)):
            return Unavailable("store", f"{self._shown} can't answer now ({type(broken).__name__})")
        return None

    def _to_fault(self, context: sa.ExceptionContext) -> BaseException | None:
        return self._fault(context.original_exception)


_SQLITE_ADVICE: Final = (
    ("unable to open", "make its directory, or give this process the right to write there"),
    ("readonly", "give this process the right to write the file and its directory"),
    ("not a database", "name another file: this one is something else"),
    ("malformed", "restore it from a backup"),
    ("disk is full", "make room on the disk"),
    ("disk I/O error", "check the disk"),
)
_POSTGRESQL_ADVICE: Final = (
    ("authentication failed", "the server refuses this user and password"),
    ("permission denied", "give this user the right to create and write tables"),
    ('" does not exist', "make the database and the user first"),
)


def _engine(url: str) -> tuple[str, sa.Engine, bool]:
    """Build the SQLAlchemy engine; returns the database's name for people and whether all share one connection."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise Misconfigured("store", "the store's URL can't be read; it looks like sqlite:///orders.db") from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() not in _INSERTS:
        raise Misconfigured("store", f"{shown}: only {' and '.join(_INSERTS)} are supported")
    in_memory = parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:")
    options: dict[str, Any] = {"hide_parameters": True}
    if in_memory:
        options |= {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
    else:
        # As many connections as there are threads; a PostgreSQL server that was restarted is noticed before use.
        options |= {"max_overflow": -1, "pool_pre_ping": parsed.get_backend_name() == "postgresql"}
    try:
        engine = sa.create_engine(parsed, **options)
    except (ImportError, sa.exc.ArgumentError) as missing:
        raise Misconfigured("store", f"{shown}: the database driver is missing ({missing}); install it") from missing
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return shown, engine, in_memory


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it does so too late to protect what was read.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={int(PATIENCE * 1000)}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get("iom_reads"):
        connection.connection.cursor().execute("BEGIN IMMEDIATE")
