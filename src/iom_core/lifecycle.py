"""What may follow what: state tables as rows, and everything that reads them.

A row is (business event, source state, target state, state reason). From the rows of one entity a `transitions`
machine is built, which validates them and which users of that library can inspect; the same rows compile to a
look-up that runs the hot path. Nobody outside this module imports `transitions`.

Two rules come from the product (topics/state-framework.md): an event that has rows, raised in a state none of them
allows, is an error; an event with **no** row at all succeeds and sets nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs
from returns.result import Failure, Result, Success
from transitions import Machine, MachineError

from iom_core import events as ev
from iom_core.outcome import Refused


@attrs.frozen
class Status:
    """A state, which decides what is legal, and a state reason, which explains it."""

    state: str
    reason: str


@attrs.frozen
class StateDefinition:
    """A state of one entity. *position* is its place on the progress bar; *final* states end the record's life."""

    name: str
    reasons: tuple[str, ...]
    position: int
    read_only: bool = False
    final: bool = False


@attrs.frozen
class Row:
    """One legal transition: *event* takes a record from state *source* to *target* for *reason*."""

    event: str
    source: str
    target: str
    reason: str


class InvalidTable(ValueError):
    """A state table that can't work; the message lists every problem found."""

    def __init__(self, entity: str, problems: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__(f"state table of {entity!r}: " + "; ".join(self.problems))


@attrs.define
class _Cursor:
    """The only thing `transitions` may change."""

    state: str


class StateTable:
    """The states and transitions of one entity, checked when built.

    Raises `InvalidTable` for unknown states or reasons, two rows for one (event, source), states that can't be
    reached from *initial*, and states that neither end nor lead anywhere.
    """

    def __init__(self, entity: str, states: Iterable[StateDefinition], rows: Iterable[Row], initial: Status) -> None:
        self.entity: Final = entity
        declared = tuple(states)
        self.states: Final[Mapping[str, StateDefinition]] = {state.name: state for state in declared}
        twice = [state.name for index, state in enumerate(declared) if state.name in {s.name for s in declared[:index]}]
        if twice:
            raise InvalidTable(entity, [f"state {name!r} is declared twice" for name in twice])
        self.rows: Final = tuple(rows)
        self.initial: Final = initial
        _check(self)
        self._moves: Final[dict[tuple[str, str], Status]] = {
            (row.event, row.source): Status(row.target, row.reason) for row in self.rows
        }
        self.events: Final = frozenset(row.event for row in self.rows)
        self._finals: Final = frozenset(state.name for state in self.states.values() if state.final)

    @property
    def machine(self) -> Machine:
        """Build the rows as a `transitions` machine without a model, to inspect or to draw."""
        return Machine(
            model=None,
            states=list(self.states),
            initial=self.initial.state,
            auto_transitions=False,
            transitions=[{"trigger": row.event, "source": row.source, "dest": row.target} for row in self.rows],
        )

    def advance(self, status: Status, event: str) -> Status | None:
        """Return the status after *event*, the same one when the event has no rows, ``None`` when it isn't legal."""
        moved = self._moves.get((event, status.state))
        if moved is not None:
            return moved
        return None if event in self.events else status

    def raise_event(self, status: Status, event: str, where: str = "$") -> Result[Status, Refused]:
        """Like `advance`, with a refusal that says what is wrong; it may become legal later."""
        moved = self.advance(status, event)
        if moved is None:
            return Failure(illegal(self.entity, event, status, where))
        return Success(moved)

    def fire(self, status: Status, event: str) -> Status | None:
        """Do what `advance` does, through the `transitions` machine: the slow twin that tests compare with."""
        trigger = self.machine.events.get(event)
        if trigger is None:
            return status
        cursor = _Cursor(status.state)
        try:
            trigger.trigger(cursor)
        except MachineError:
            return None
        reason = next(r.reason for r in self.rows if r.event == event and r.source == status.state)
        return Status(cursor.state, reason)

    def with_more(self, states: Iterable[StateDefinition] = (), rows: Iterable[Row] = ()) -> StateTable:
        """Return a table with a user's own states, reasons and rows added; what was there can't be changed.

        A state that is there already may gain reasons, nothing else. Raises `InvalidTable` otherwise.
        """
        merged = dict(self.states)
        problems: list[str] = []
        for state in states:
            known = merged.get(state.name)
            if known is None:
                merged[state.name] = state
                continue
            extra = tuple(reason for reason in state.reasons if reason not in known.reasons)
            if attrs.evolve(state, reasons=known.reasons) != known:
                problems.append(f"state {state.name!r} is built in: only reasons can be added to it")
            merged[state.name] = attrs.evolve(known, reasons=known.reasons + extra)
        added = tuple(rows)
        taken = {(row.event, row.source) for row in self.rows}
        problems += [
            f"the transition of {row.event!r} from {row.source!r} is built in"
            for row in added
            if (row.event, row.source) in taken
        ]
        if problems:
            raise InvalidTable(self.entity, problems)
        return StateTable(self.entity, merged.values(), self.rows + added, self.initial)

    def read_only(self, status: Status) -> bool:
        """Say whether a record in this state may not be edited."""
        return self.states[status.state].read_only

    def is_final(self, status: Status) -> bool:
        """Say whether the record's life has ended."""
        return status.state in self._finals

    def position(self, status: Status) -> int:
        """Return the place of the state on the progress bar."""
        return self.states[status.state].position

    def mermaid(self) -> str:
        """Draw the table as a Mermaid state diagram."""
        names = {name: f"s{index}" for index, name in enumerate(self.states)}
        edges: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            edges.setdefault((row.source, row.target), []).append(f"{row.event} / {row.reason}")
        drawn = [f'    state "{name}" as {short}' for name, short in names.items()]
        drawn.append(f"    [*] --> {names[self.initial.state]}")
        for (source, target), labels in edges.items():
            drawn += [f"    {names[source]} --> {names[target]} : {label}" for label in labels]
        drawn += [f"    {names[state.name]} --> [*]" for state in self.states.values() if state.final]
        return "\n".join(["stateDiagram-v2", *drawn])


def illegal(entity: str, event: str, status: Status, where: str = "$") -> Refused:
    """Say that *event* isn't legal in *status*."""
    return Refused(
        "illegal-transition",
        f"{event!r} is not legal for the {entity} in state {status.state!r} ({status.reason})",
        f"{where}.status",
        early=True,
    )


def _check(table: StateTable) -> None:
    states, rows, initial = table.states, table.rows, table.initial
    problems: list[str] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        for end, state in (("source", row.source), ("target", row.target)):
            if state not in states:
                problems.append(f"{row.event!r} names the unknown {end} state {state!r}")
        if row.target in states and row.reason not in states[row.target].reasons:
            problems.append(f"{row.event!r} names {row.reason!r}, which is no reason of {row.target!r}")
        if (row.event, row.source) in seen:
            problems.append(f"two rows for {row.event!r} from {row.source!r}")
        seen.add((row.event, row.source))
    if initial.state not in states:
        problems.append(f"the initial state {initial.state!r} is unknown")
    elif initial.reason not in states[initial.state].reasons:
        problems.append(f"the initial reason {initial.reason!r} is no reason of {initial.state!r}")
    if not problems:
        reached, frontier = {initial.state}, [initial.state]
        while frontier:
            here = frontier.pop()
            for row in rows:
                if row.source == here and row.target not in reached:
                    reached.add(row.target)
                    frontier.append(row.target)
        problems += [
            f"state {name!r} can't be reached from {initial.state!r}" for name in states if name not in reached
        ]
        leaving = {row.source for row in rows if row.target != row.source}
        problems += [
            f"state {name!r} leads nowhere and isn't final"
            for name, state in states.items()
            if not state.final and name not in leaving
        ]
        problems += [
            f"final state {name!r} is left" for name, state in states.items() if state.final and name in leaving
        ]
    if problems:
        raise InvalidTable(table.entity, problems)


def _states(hold: str) -> tuple[StateDefinition, ...]:
    return (
        StateDefinition(ev.NEW, (ev.RECEIVED, ev.NEW), 0),
        StateDefinition(
            ev.IN_PROGRESS, (ev.HEADER_VALIDATED, ev.VALIDATED, ev.ASSIGNED, ev.RELEASED, ev.INVENTORY_CHECKED), 1
        ),
        StateDefinition(
            hold,
            (
                ev.VALIDATION_FAILED,
                ev.ASSIGNMENT_FAILED,
                ev.OPTIMIZATION_FAILED,
                ev.CREATION_FAILED,
                ev.SENDING_FAILED,
                ev.SENDING_IN_DOUBT,
                ev.SYNC_ERROR,
                ev.BACKORDER_HOLD,
                ev.PREORDER_HOLD,
                ev.INVENTORY_NOT_FOUND,
                ev.HELD,
            ),
            1,
        ),
        StateDefinition(
            ev.IN_FULFILLMENT,
            (
                ev.INVENTORY_CHECKED,
                ev.SOURCED,
                ev.SENT_TO_FULFILLMENT,
                ev.PARTIALLY_PICKED,
                ev.PICKED,
                ev.PARTIALLY_PACKED,
                ev.PACKED,
                ev.PARTIALLY_SHIPPED,
                ev.SHIPPED,
                ev.PARTIALLY_INVOICED,
            ),
            2,
            read_only=True,
        ),
        StateDefinition(ev.COMPLETED, (ev.FULFILLED,), 3, read_only=True, final=True),
        StateDefinition(ev.CANCELED, (ev.CANCELED,), 3, read_only=True, final=True),
    )


def _rows(table: Iterable[tuple[str, str, str, str]], hold: str) -> tuple[Row, ...]:
    """Expand ``"New, On Hold"`` to one row per source; ``On Hold`` becomes the entity's own hold state."""
    return tuple(
        Row(event, hold if source == ev.ON_HOLD else source, hold if target == ev.ON_HOLD else target, reason)
        for event, sources, target, reason in table
        for source in (each.strip() for each in sources.split(","))
    )


# fmt: off
_OPEN = "New, In Progress, On Hold"
_RUNNING = "In Progress, On Hold, Fulfillment in Process"

_ORDER: Final = (
    # business event              from                                      to                  state reason
    (ev.NEW_ORDER,                "New",                                    ev.NEW,             ev.RECEIVED),
    (ev.HEADER_VALID,             "New, In Progress, On Hold",              ev.IN_PROGRESS,     ev.HEADER_VALIDATED),
    (ev.HEADER_INVALID,           "New, In Progress, On Hold",              ev.ON_HOLD,         ev.VALIDATION_FAILED),
    (ev.LINES_VALID,              "New, In Progress, On Hold",              ev.IN_PROGRESS,     ev.VALIDATED),
    (ev.LINES_INVALID,            "New, In Progress, On Hold",              ev.ON_HOLD,         ev.VALIDATION_FAILED),
    (ev.DATA_ASSIGNED,            "In Progress, On Hold",                   ev.IN_PROGRESS,     ev.ASSIGNED),
    (ev.DATA_NOT_ASSIGNED,        "In Progress, On Hold",                   ev.ON_HOLD,         ev.ASSIGNMENT_FAILED),
    (ev.SOURCE_ASSIGNED,          "In Progress, On Hold",                   ev.IN_PROGRESS,     ev.ASSIGNED),
    (ev.SOURCE_NOT_ASSIGNED,      "In Progress, On Hold",                   ev.ON_HOLD,         ev.ASSIGNMENT_FAILED),
    (ev.NOT_OPTIMIZED,            "In Progress, On Hold",                   ev.ON_HOLD,         ev.OPTIMIZATION_FAILED),
    (ev.ON_HAND,                  "In Progress, On Hold",                   ev.IN_FULFILLMENT,  ev.INVENTORY_CHECKED),
    (ev.NOT_ON_HAND,              "In Progress, On Hold",                   ev.ON_HOLD,         ev.BACKORDER_HOLD),
    (ev.STOCK_MISSING,            "In Progress, On Hold",                   ev.ON_HOLD,         ev.INVENTORY_NOT_FOUND),
    (ev.PREORDERED,               "In Progress, On Hold",                   ev.ON_HOLD,         ev.PREORDER_HOLD),
    (ev.FULFILLMENT_CREATED,      _RUNNING,                                 ev.IN_FULFILLMENT,  ev.SOURCED),
    (ev.FULFILLMENT_NOT_CREATED,  "In Progress, On Hold",                   ev.ON_HOLD,         ev.CREATION_FAILED),
    (ev.SENT,                     _RUNNING,                                 ev.IN_FULFILLMENT,  ev.SENT_TO_FULFILLMENT),
    (ev.NOT_SENT,                 _RUNNING,                                 ev.ON_HOLD,         ev.SENDING_FAILED),
    (ev.SENDING_UNKNOWN,          _RUNNING,                                 ev.ON_HOLD,         ev.SENDING_IN_DOUBT),
    (ev.ORDER_HELD,               _OPEN,                                    ev.ON_HOLD,         ev.HELD),
    (ev.ORDER_RELEASED,           "On Hold",                                ev.IN_PROGRESS,     ev.RELEASED),
    (ev.ORDER_PARTIALLY_PICKED,   "Fulfillment in Process",                 ev.IN_FULFILLMENT,  ev.PARTIALLY_PICKED),
    (ev.ORDER_PICKED,             "Fulfillment in Process",                 ev.IN_FULFILLMENT,  ev.PICKED),
    (ev.ORDER_PARTIALLY_PACKED,   "Fulfillment in Process",                 ev.IN_FULFILLMENT,  ev.PARTIALLY_PACKED),
    (ev.ORDER_PACKED,             "Fulfillment in Process",                 ev.IN_FULFILLMENT,  ev.PACKED),
    (ev.ORDER_PARTIALLY_SHIPPED,  "Fulfillment in Process",                 ev.IN_FULFILLMENT,  ev.PARTIALLY_SHIPPED),
    (ev.ORDER_SHIPPED,            "Fulfillment in Process",                 ev.IN_FULFILLMENT,  ev.PACKED),
    (ev.ORDER_PARTIALLY_INVOICED, "Fulfillment in Process",                 ev.IN_FULFILLMENT,  ev.PARTIALLY_INVOICED),
    (ev.ORDER_INVOICED,           "Fulfillment in Process",                 ev.COMPLETED,       ev.FULFILLED),
    (ev.ORDER_CANCELED,           "New, In Progress, On Hold, Fulfillment in Process", ev.CANCELED, ev.CANCELED),
)
# fmt: on


def _progress_rows(entity: str) -> tuple[tuple[str, str, str, str], ...]:
    reasons = (
        (ev.PARTIALLY_PICKED, ev.PICKED),
        (ev.PARTIALLY_PACKED, ev.PACKED),
        (ev.PARTIALLY_SHIPPED, ev.PACKED),
        (ev.PARTIALLY_INVOICED, ev.FULFILLED),
    )
    stages = ev.PROGRESS[entity]
    last = len(stages) - 1
    rows: list[tuple[str, str, str, str]] = []
    for index, ((some, every), (some_reason, reason)) in enumerate(zip(stages, reasons)):
        rows.append((some, ev.IN_FULFILLMENT, ev.IN_FULFILLMENT, some_reason))
        done = index == last
        rows.append(
            (every, ev.IN_FULFILLMENT, ev.COMPLETED if done else ev.IN_FULFILLMENT, ev.FULFILLED if done else reason)
        )
    return tuple(rows)


_LINE: Final = (
    *(row for row in _ORDER if row[0] not in {event for stage in ev.PROGRESS[ev.ORDER] for event in stage}),
    (ev.LINE_NOT_SYNCED, _RUNNING, ev.ON_HOLD, ev.SYNC_ERROR),
    *_progress_rows(ev.LINE),
    # Digital lines are invoiced without ever being in fulfillment.
    (ev.PROGRESS[ev.LINE][3][0], ev.IN_PROGRESS, ev.IN_FULFILLMENT, ev.PARTIALLY_INVOICED),
    (ev.PROGRESS[ev.LINE][3][1], ev.IN_PROGRESS, ev.COMPLETED, ev.FULFILLED),
)

_FULFILLMENT: Final = (
    (ev.FULFILLMENT_CREATED, "New", ev.NEW, ev.NEW),
    (ev.SENT, "New, On Hold, Fulfillment in Process", ev.IN_FULFILLMENT, ev.SENT_TO_FULFILLMENT),
    (ev.NOT_SENT, "New, On Hold, Fulfillment in Process", ev.ON_HOLD, ev.SENDING_FAILED),
    (ev.SENDING_UNKNOWN, "New, On Hold, Fulfillment in Process", ev.ON_HOLD, ev.SENDING_IN_DOUBT),
    (ev.LINE_NOT_SYNCED, "New, On Hold, Fulfillment in Process", ev.ON_HOLD, ev.SYNC_ERROR),
    (ev.ORDER_CANCELED, "New, On Hold, Fulfillment in Process", ev.CANCELED, ev.CANCELED),
)


def _fulfillment_states() -> tuple[StateDefinition, ...]:
    return tuple(state for state in _states(ev.ON_HOLD) if state.name != ev.IN_PROGRESS)


ORDER: Final = StateTable(ev.ORDER, _states(ev.ON_HOLD), _rows(_ORDER, ev.ON_HOLD), Status(ev.NEW, ev.RECEIVED))
"""The sales order's states."""
LINE: Final = StateTable(ev.LINE, _states(ev.LINE_ON_HOLD), _rows(_LINE, ev.LINE_ON_HOLD), Status(ev.NEW, ev.RECEIVED))
"""An order line's states; its hold is called *Sales Order Product on Hold*."""
FULFILLMENT_ORDER: Final = StateTable(
    ev.FULFILLMENT_ORDER,
    _fulfillment_states(),
    _rows((*_FULFILLMENT, *_progress_rows(ev.FULFILLMENT_ORDER)), ev.ON_HOLD),
    Status(ev.NEW, ev.NEW),
)
"""A fulfillment order's states; it is completed when it has shipped."""
FULFILLMENT_LINE: Final = StateTable(
    ev.FULFILLMENT_LINE,
    _fulfillment_states(),
    _rows((*_FULFILLMENT, *_progress_rows(ev.FULFILLMENT_LINE)), ev.ON_HOLD),
    Status(ev.NEW, ev.NEW),
)
"""A fulfillment order line's states."""


@attrs.frozen
class StateFramework:
    """The state tables in force: the four built-in ones, perhaps extended, and a user's own entities."""

    order: StateTable = ORDER
    line: StateTable = LINE
    fulfillment_order: StateTable = FULFILLMENT_ORDER
    fulfillment_line: StateTable = FULFILLMENT_LINE
    custom: Mapping[str, StateTable] = attrs.field(factory=dict)

    def table(self, entity: str) -> StateTable:
        """Return the table of *entity*; raises `KeyError` with the known names for one that was never declared."""
        tables = self.tables()
        if entity not in tables:
            raise KeyError(f"no entity {entity!r}; known are {', '.join(sorted(tables))}")
        return tables[entity]

    def tables(self) -> dict[str, StateTable]:
        """Return every table by its entity's name."""
        return {
            table.entity: table
            for table in (self.order, self.line, self.fulfillment_order, self.fulfillment_line, *self.custom.values())
        }

    def with_entity(self, table: StateTable) -> StateFramework:
        """Add a user's own entity; raises `InvalidTable` when the name is taken."""
        if table.entity in self.tables():
            raise InvalidTable(table.entity, ["an entity of that name exists"])
        return attrs.evolve(self, custom={**self.custom, table.entity: table})


BUILT_IN: Final = StateFramework()
"""The state framework as it comes."""
