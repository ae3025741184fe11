"""State tables: the documented rows are there, and the fast look-up says what the `transitions` machine says."""

from __future__ import annotations

from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transitions import Machine, MachineError

from iom_core import events as ev
from iom_core.lifecycle import (
    BUILT_IN,
    FULFILLMENT_LINE,
    FULFILLMENT_ORDER,
    LINE,
    ORDER,
    InvalidTable,
    Row,
    StateDefinition,
    StateFramework,
    StateTable,
    Status,
)
from iom_core.outcome import failed

TABLES = (ORDER, LINE, FULFILLMENT_ORDER, FULFILLMENT_LINE)
UNUSED = "an event of nobody"


class Cursor:
    def __init__(self, state: str) -> None:
        self.state = state


def by_machine(machine: Machine, table: StateTable, event: str, state: str) -> str | None:
    """Ask the `transitions` machine; ``None`` when it refuses."""
    trigger = machine.events.get(event)
    if trigger is None:
        return state
    cursor = Cursor(state)
    try:
        trigger.trigger(cursor)
    except MachineError:
        return None
    return cursor.state


def agree(table: StateTable) -> None:
    machine = table.machine
    for event in (*table.events, UNUSED):
        for name, state in table.states.items():
            for reason in state.reasons:
                moved = table.advance(Status(name, reason), event)
                assert (moved and moved.state) == by_machine(machine, table, event, name), (event, name)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.entity)
def test_look_up_and_machine_agree_for_every_event_and_state(table: StateTable) -> None:
    agree(table)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.entity)
def test_the_slow_twin_agrees_on_the_reason_too(table: StateTable) -> None:
    for row in table.rows[::5]:
        status = Status(row.source, table.states[row.source].reasons[0])
        assert table.fire(status, row.event) == table.advance(status, row.event) == Status(row.target, row.reason)
    assert table.fire(table.initial, UNUSED) == table.initial
    refused = next((event for event in table.events if table.advance(table.initial, event) is None), None)
    assert refused is not None
    assert table.fire(table.initial, refused) is None


@st.composite
def tables(draw: st.DrawFn) -> StateTable:
    """Any valid table: a chain makes every state reachable, the last state is final, further rows at random."""
    names = [f"S{n}" for n in range(draw(st.integers(2, 6)))]
    states = [
        StateDefinition(name, draw(st.sampled_from([("r",), ("r", "q")])), index, final=index == len(names) - 1)
        for index, name in enumerate(names)
    ]
    rows = {("next", a): Row("next", a, b, "r") for a, b in pairwise(names)}
    for source, target, event in draw(
        st.lists(
            st.tuples(st.sampled_from(names[:-1]), st.sampled_from(names), st.sampled_from(["next", "a", "b", "to_S1"]))
        )
    ):
        reason = draw(st.sampled_from(next(each.reasons for each in states if each.name == target)))
        rows.setdefault((event, source), Row(event, source, target, reason))
    return StateTable("thing", states, rows.values(), Status(names[0], "r"))


@given(tables())
def test_look_up_and_machine_agree_for_any_valid_table(table: StateTable) -> None:
    agree(table)


DOCUMENTED = [
    (ev.ON_HAND, "In Progress", "Fulfillment in Process", "Inventory Check Successful"),
    (ev.ON_HAND, "On Hold", "Fulfillment in Process", "Inventory Check Successful"),
    (ev.NOT_ON_HAND, "In Progress", "On Hold", "Backorder Hold"),
    (ev.ORDER_PICKED, "Fulfillment in Process", "Fulfillment in Process", "Picked"),
    (ev.ORDER_SHIPPED, "Fulfillment in Process", "Fulfillment in Process", "Packed"),
    (ev.ORDER_INVOICED, "Fulfillment in Process", "Completed", "Fulfilled"),
    (ev.SENT, "Fulfillment in Process", "Fulfillment in Process", "Sent To Fulfillment"),
]


@pytest.mark.parametrize(("event", "source", "target", "reason"), DOCUMENTED)
def test_the_documented_rows_are_there(event: str, source: str, target: str, reason: str) -> None:
    assert Row(event, source, target, reason) in ORDER.rows


def test_a_line_on_hold_has_the_products_own_name_for_it() -> None:
    moved = LINE.advance(Status(ev.IN_PROGRESS, ev.VALIDATED), ev.NOT_ON_HAND)
    assert moved == Status("Sales Order Product on Hold", "Backorder Hold")
    assert "On Hold" not in LINE.states


def test_new_goes_on_and_completed_never_goes_back() -> None:
    assert ORDER.advance(ORDER.initial, ev.HEADER_VALID) == Status(ev.IN_PROGRESS, ev.HEADER_VALIDATED)
    done = Status(ev.COMPLETED, ev.FULFILLED)
    refused = ORDER.raise_event(done, ev.HEADER_VALID, "$.orders[3]")
    assert failed(refused)
    assert refused.failure().where == "$.orders[3].status"
    assert "'Completed'" in refused.failure().what
    assert all(ORDER.advance(done, event) is None for event in ORDER.events)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.entity)
def test_an_event_without_rows_succeeds_and_changes_nothing(table: StateTable) -> None:
    for name, state in table.states.items():
        status = Status(name, state.reasons[0])
        assert table.raise_event(status, UNUSED).unwrap() is status


def test_partial_progress_has_a_state_and_a_reason_on_every_entity() -> None:
    working = Status(ev.IN_FULFILLMENT, ev.SENT_TO_FULFILLMENT)
    for table in TABLES:
        for (some, _), reason in zip(
            ev.PROGRESS[table.entity],
            (ev.PARTIALLY_PICKED, ev.PARTIALLY_PACKED, ev.PARTIALLY_SHIPPED, ev.PARTIALLY_INVOICED),
        ):
            assert table.advance(working, some) == Status(ev.IN_FULFILLMENT, reason)


def test_the_two_ends_are_final_and_read_only() -> None:
    for table in TABLES:
        assert {name for name in table.states if table.is_final(Status(name, ""))} == {ev.COMPLETED, ev.CANCELED}
        assert all(table.read_only(Status(name, "")) for name in (ev.COMPLETED, ev.CANCELED, ev.IN_FULFILLMENT))
    positions = [ORDER.position(Status(s, "")) for s in (ev.NEW, ev.IN_PROGRESS, ev.IN_FULFILLMENT, ev.COMPLETED)]
    assert positions == sorted(set(positions))


INSPECTED = StateDefinition("Quality Inspection", ("Waiting", "Passed"), 2)
EXTENDED = ORDER.with_more(
    [INSPECTED, StateDefinition(ev.ON_HOLD, ("Fraud check",), 1)],
    [
        Row("Inspection begun", ev.IN_PROGRESS, "Quality Inspection", "Waiting"),
        Row("Inspection passed", "Quality Inspection", ev.IN_PROGRESS, "Validated"),
        Row(ev.ORDER_CANCELED, "Quality Inspection", ev.CANCELED, ev.CANCELED),
        Row("Suspicion", ev.NEW, ev.ON_HOLD, "Fraud check"),
    ],
)


def test_users_add_states_reasons_and_rows_and_the_built_in_ones_stay() -> None:
    assert EXTENDED.rows[: len(ORDER.rows)] == ORDER.rows
    inspected = EXTENDED.advance(Status(ev.IN_PROGRESS, ev.VALIDATED), "Inspection begun")
    assert inspected == Status("Quality Inspection", "Waiting")
    assert EXTENDED.advance(Status("Quality Inspection", "Waiting"), ev.ORDER_CANCELED) is not None
    assert EXTENDED.advance(Status(ev.NEW, ev.RECEIVED), "Suspicion") == Status(ev.ON_HOLD, "Fraud check")
    assert "Quality Inspection" not in ORDER.states
    agree(EXTENDED)


def test_built_in_rows_and_states_can_not_be_changed() -> None:
    with pytest.raises(InvalidTable, match="is built in") as broken:
        ORDER.with_more(
            [StateDefinition(ev.COMPLETED, (ev.FULFILLED,), 3)],
            [Row(ev.ORDER_INVOICED, ev.IN_FULFILLMENT, ev.CANCELED, ev.CANCELED)],
        )
    assert len(broken.value.problems) == 2


GOOD = (StateDefinition("A", ("r",), 0), StateDefinition("B", ("r",), 1, final=True))
START = Status("A", "r")


@pytest.mark.parametrize(
    ("states", "rows", "initial", "problem"),
    [
        (GOOD, [Row("go", "A", "B", "r"), Row("go", "X", "B", "r")], START, "unknown source state 'X'"),
        (GOOD, [Row("go", "A", "Y", "r")], START, "unknown target state 'Y'"),
        (GOOD, [Row("go", "A", "B", "nope")], START, "'nope', which is no reason of 'B'"),
        (GOOD, [Row("go", "A", "B", "r"), Row("go", "A", "A", "r")], START, "two rows for 'go' from 'A'"),
        (GOOD, [Row("go", "A", "B", "r")], Status("Z", "r"), "initial state 'Z' is unknown"),
        (GOOD, [Row("go", "A", "B", "r")], Status("A", "q"), "initial reason 'q'"),
        (GOOD, [], START, "state 'B' can't be reached"),
        ((GOOD[0],), [Row("stay", "A", "A", "r")], START, "'A' leads nowhere and isn't final"),
        (GOOD, [Row("go", "A", "B", "r"), Row("back", "B", "A", "r")], START, "final state 'B' is left"),
        ((*GOOD, GOOD[0]), [Row("go", "A", "B", "r")], START, "state 'A' is declared twice"),
    ],
)
def test_a_table_that_can_not_work_is_refused_when_built(
    states: tuple[StateDefinition, ...], rows: list[Row], initial: Status, problem: str
) -> None:
    with pytest.raises(InvalidTable) as broken:
        StateTable("thing", states, rows, initial)
    assert problem in str(broken.value)
    assert "state table of 'thing'" in str(broken.value)


def test_a_custom_entity_has_states_of_its_own_beside_the_built_in_ones() -> None:
    table = StateTable("gift card", GOOD, [Row("go", "A", "B", "r")], START)
    framework = BUILT_IN.with_entity(table)

    assert framework.table("gift card") is table
    assert framework.table(ev.ORDER) is ORDER
    assert set(framework.tables()) == {"gift card", *(each.entity for each in TABLES)}
    with pytest.raises(InvalidTable, match="an entity of that name exists"):
        framework.with_entity(table)
    with pytest.raises(InvalidTable):
        framework.with_entity(small_table(ev.ORDER))
    with pytest.raises(KeyError, match="no entity 'gift'; known are"):
        framework.table("gift")
    assert StateFramework() == BUILT_IN


def small_table(entity: str) -> StateTable:
    return StateTable(entity, GOOD, [Row("go", "A", "B", "r")], START)


@pytest.mark.parametrize("table", [*TABLES, EXTENDED], ids=lambda table: f"{table.entity}/{len(table.rows)}")
def test_the_diagram_draws_every_row_once(table: StateTable) -> None:
    drawn = table.mermaid().splitlines()
    assert drawn[0] == "stateDiagram-v2"
    assert sum(" --> " in line and ":" in line for line in drawn) == len(table.rows)
    assert sum(line.endswith("--> [*]") for line in drawn) == 2
    assert all(f'"{name}"' in table.mermaid() for name in table.states)


def test_rows_and_states_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ORDER.rows[0].target = "elsewhere"  # type: ignore[misc]  # the point of the test
