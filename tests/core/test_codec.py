"""Our own JSON: everything is read back equal, both writers agree, and what doesn't fit says where."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_core import codec, messages, scenarios
from iom_core import events as ev
from iom_core import policies as p
from iom_core.flow import Flow, FlowStatus, StepType
from iom_core.lifecycle import Status
from iom_core.messages import Message
from iom_core.order import CustomRecord, ErrorRecord, Hold, SalesOrder
from iom_core.policies import AllOf, AnyOf, Condition, Policy
from iom_core.testing import World
from iom_core.values import GeoPoint, MessageId, SourceId, System

from .examples import NOW, Life, draft, invoiced, new, picked, sent, setup, shipped, units, usd
from .test_order import calls, starting_orders

ORDER = json.loads(codec.portable_order_to_json(sent(2, 1)))
MESSAGE = json.loads(codec.to_json(Message(MessageId("m"), System("fno"), messages.NewOrder(draft(2)), NOW, "7")))
FLOW = json.loads(codec.to_json(scenarios.S1))


def changed(document: Any, path: str, value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    here = copy
    *way, last = [int(name) if name.isdigit() else name for name in path.split(".")]
    for name in way:
        here = here[name]
    here[last] = value
    return copy


def written_by_both(order: SalesOrder) -> None:
    fast, portable = codec.order_to_json(order), codec.portable_order_to_json(order)
    assert json.loads(fast) == json.loads(portable)
    assert codec.order_from_json(fast) == order
    assert codec.order_from_json(portable) == order
    assert codec.from_json(fast, SalesOrder) == order
    assert codec.to_json(order) == fast


@given(start=starting_orders(), life=st.lists(calls(), max_size=10))
def test_an_order_of_any_life_is_read_back_equal_from_either_writer(start: SalesOrder, life: list[Any]) -> None:
    order = start
    for step in life:
        order = step(order).map(lambda change: change.order).value_or(order)
    written_by_both(order)


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS.values(), ids=scenarios.SCENARIOS.keys())
def test_the_order_of_a_scenario_is_read_back_equal(scenario: scenarios.Scenario) -> None:
    here = World(scenario)
    here.stock("Seattle", {"CHAIR": 5})
    order_id = here.receive({"CHAIR": 2})
    here.run_until_quiet()
    written_by_both(here.order(order_id))


def test_an_order_with_everything_in_it_is_read_back_equal() -> None:
    life = Life(setup())
    life.begin(2)
    life.tell(shipped("s", ("1", 2)))
    order = attrs.evolve(
        life.now,
        ship_to=attrs.evolve(life.now.ship_to, location=GeoPoint.of("47.6", "-122.3"), name="Zoë 王 \u2028\U0001f600"),
        requested_ship_date=date(2026, 2, 28),
        holds=(Hold("credit", "limit", NOW),),
        records=(CustomRecord("gift card", "G1", Status("Ordered", "r"), (("a", "b"),)),),
    )
    assert order.parked
    written_by_both(order)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-8)), timezone(timedelta(hours=5.5))])))
def test_both_writers_write_an_orders_times_alike_whatever_zone_they_came_in(placed_at: datetime) -> None:
    try:
        placed_at.astimezone(UTC)
    except OverflowError:
        return
    life = Life(setup())
    life.tell(messages.NewOrder(attrs.evolve(draft(1), placed_at=placed_at)), System("bigcommerce"))
    written_by_both(life.now)


BODIES: list[messages.Body] = [
    messages.NewOrder(draft(2, 1, digital=(2,))),
    picked(("1", "1.5")),
    messages.Packed(units(("1", 1))),
    attrs.evolve(shipped("s", ("1", 1)), cost=usd("3.10")),
    invoiced("i", "1.00", ("1", 1)),
    messages.Canceled(("1",), "why"),
    messages.Raised("event", "order line", "1"),
    messages.ActionDone(
        "key", "d", "n", (("1", "L1"),), (("2", "blocked"),), (messages.Sourced("1", SourceId("A"), Decimal(1)),)
    ),
    messages.ActionFailed("key", "refused", "what", "$.x", (("1", "e"),)),
    messages.CancelRequested(("1",), "why"),
    messages.HoldRequested("credit", "why"),
    messages.HoldReleased("credit"),
    messages.Reprocess("step"),
    messages.JobDue("backorder", ev.BACKORDER_DUE),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_message_of_every_kind_is_read_back_equal(body: messages.Body) -> None:
    message = Message(MessageId("m1"), System("fno"), body, NOW, "SO-1")
    assert codec.from_json(codec.to_json(message), Message) == message
    assert codec.structure(codec.plain(message), Message) == message


def test_every_kind_of_message_is_tested_above() -> None:
    assert {type(body) for body in BODIES} == set(get_args(messages.Body))


VALUES = (
    st.text()
    | st.integers()
    | st.booleans()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.dates()
    | st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
)
CONDITIONS = st.builds(Condition, st.text(), st.sampled_from(list(p.Operator)), st.none() | VALUES)
TESTS = st.recursive(
    CONDITIONS,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple).flatmap(lambda parts: st.sampled_from([AllOf(parts), AnyOf(parts)]))
    ),
    max_leaves=8,
)
POLICIES = st.builds(
    Policy,
    st.text(),
    st.sampled_from(list(p.Kind)),
    st.sampled_from(sorted(p.FIELDS)),
    st.lists(
        st.builds(p.Rule, st.text(), st.none() | TESTS, st.lists(st.builds(p.SetField, st.text(), VALUES)).map(tuple)),
        max_size=3,
    ).map(tuple),
    st.sampled_from(list(p.Criticality)),
    st.booleans(),
)


@given(POLICIES)
def test_any_policy_is_read_back_equal(policy: Policy) -> None:
    read = codec.from_json(codec.to_json(policy), Policy)
    assert read == policy
    assert [type(a.value) for r in read.rules for a in r.then] == [type(a.value) for r in policy.rules for a in r.then]


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS.values(), ids=scenarios.SCENARIOS.keys())
def test_the_flows_and_policies_of_the_scenarios_are_read_back_equal(scenario: scenarios.Scenario) -> None:
    assert codec.from_json(codec.to_json(scenario.flow), Flow) == scenario.flow
    for policy in scenario.policies:
        assert codec.from_json(codec.to_json(policy), Policy) == policy


def test_members_of_enumerations_are_read_as_members_so_that_a_flow_that_was_read_runs() -> None:
    published = attrs.evolve(scenarios.S1, status=FlowStatus.PUBLISHED)
    read = codec.from_json(codec.to_json(published), Flow)
    assert read.status is FlowStatus.PUBLISHED
    assert all(type(step.type) is StepType for step in read.steps)
    policy = codec.from_json(codec.to_json(p.check("c", ev.ORDER, p.equals("id", "1"))), Policy)
    assert (policy.kind, policy.criticality) == (p.Kind.EXECUTION, p.Criticality.CRITICAL)
    assert policy.kind is p.Kind.EXECUTION
    assert policy.criticality is p.Criticality.CRITICAL
    condition = policy.rules[0].when
    assert isinstance(condition, Condition)
    assert condition.operator is p.Operator.EQUALS
    life = Life(setup(codec.from_json(codec.to_json(scenarios.S1), Flow)))
    life.begin(1)
    assert len(life.out) == 1


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("steps.0.on", "New order", "$.steps[0].on"),
        ("steps.0.after", {}, "$.steps[0].after"),
        ("steps", "abc", "$.steps"),
        ("steps.0.type", "Dance", "'Dance' is none of 'Validate Order Header'"),
        ("steps.0.parameters", [["a", "b", "c"]], "$.steps[0].parameters[0]"),
        ("steps.0.parameters", ["ab"], "$.steps[0].parameters[0]"),
        ("status", "Publshed", "'Publshed' is none of"),
        ("steps.0.on.0", 5, "$.steps[0].on[0]"),
    ],
)
def test_what_does_not_fit_a_flow_says_where(path: str, value: Any, where: str) -> None:
    with pytest.raises(ValueError) as broken:
        codec.structure(changed(FLOW, path, value), Flow)
    assert where in str(broken.value)


def test_an_error_record_is_read_back_equal() -> None:
    error = ErrorRecord("id", "policy", NOW, "iom", "what")
    assert codec.from_json(codec.to_json(error), ErrorRecord) == error


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("lines.1.ordered.amount", 1.5, "$.lines[1].ordered.amount"),
        ("lines.1.ordered.amount", "many", "$.lines[1].ordered.amount"),
        ("lines.1.ordered.amount", "NaN", "$.lines[1].ordered.amount"),
        ("lines.0.digital", "yes", "$.lines[0].digital"),
        ("total.amount", None, "$.total.amount"),
        ("placed_at", "yesterday", "$.placed_at"),
        ("placed_at", "2026-01-01T00:00:00", "$.placed_at"),
        ("id", 7, "$.id"),
        ("version", "1", "$.version"),
        ("lines", {}, "$.lines"),
    ],
)
def test_what_does_not_fit_an_order_says_where(path: str, value: Any, where: str) -> None:
    with pytest.raises(ValueError, match=r"^.*\$\.") as broken:
        codec.structure(changed(ORDER, path, value), SalesOrder)
    assert where in str(broken.value)


@pytest.mark.parametrize("amount", ['"NaN"', '"Infinity"', '"many"', "true", "[]", "null"])
def test_the_fast_reader_takes_no_nonsense_for_an_amount_either(amount: str) -> None:
    text = json.dumps(changed(ORDER, "total.amount", "@")).replace('"@"', amount)
    with pytest.raises(ValueError, match="total"):
        codec.order_from_json(text)


def test_a_bare_number_is_never_read_through_a_float() -> None:
    text = json.dumps(changed(ORDER, "total.amount", "@")).replace('"@"', "0.1000000000000000055511151231257827")
    try:
        read = codec.order_from_json(text)
    except ValueError:
        return
    assert str(read.total.amount) == "0.1000000000000000055511151231257827"


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("body.draft.lines.0.quantity.amount", 2, "$.body.draft.lines[0].quantity.amount"),
        ("body.draft.total.amount", 1.5, "$.body.draft.total.amount"),
        ("body.draft.currency", None, "$.body.draft.currency"),
        ("body", "text", "$.body"),
        ("kind", "NoSuchKind", "unknown kind of message 'NoSuchKind'"),
        ("at", "2026-01-01", "$.at"),
        ("id", None, "$.id"),
    ],
)
def test_what_does_not_fit_a_message_says_where(path: str, value: Any, where: str) -> None:
    with pytest.raises(ValueError) as broken:
        codec.structure(changed(MESSAGE, path, value), Message)
    assert where in str(broken.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "{}", '{"id": 1', b"\xff\xfe", "[" * 100_000])
@pytest.mark.parametrize("kind", [SalesOrder, Message, Flow, Policy])
def test_hostile_text_is_a_value_error_and_nothing_else(text: str | bytes, kind: type) -> None:
    with pytest.raises(ValueError):
        codec.from_json(text, kind)
    with pytest.raises(ValueError):
        codec.order_from_json(text)


def test_a_condition_nested_without_end_is_a_value_error() -> None:
    test: Any = {"field": "a", "operator": "equals"}
    for _ in range(600):
        test = {"all": [test]}
    rule = {"name": "r", "when": test, "then": []}
    policy = {"name": "p", "kind": "filter", "entity": "order", "rules": [rule]}
    try:
        read = codec.structure(policy, Policy)
    except ValueError:
        return
    assert read.name == "p"


@pytest.mark.parametrize(
    "when",
    [
        {"field": "a", "operator": "equals", "value": 1.5},
        {"field": "a", "operator": "is like", "value": "x"},
        {"field": "a", "operator": "equals", "valeu": "x"},
        {"all": [], "any": []},
        {"all": {}},
        "always",
        {"field": "a", "operator": "equals", "value": {"decimal": "NaN"}},
        {"field": "a", "operator": "equals", "value": {"time": "2026-01-01T00:00:00"}},
    ],
)
def test_a_condition_written_wrongly_is_refused(when: Any) -> None:
    policy = {"name": "p", "kind": "filter", "entity": "order", "rules": [{"name": "r", "when": when}]}
    with pytest.raises(ValueError, match=r"rules\[0\]|\$"):
        codec.structure(policy, Policy)


def test_people_hear_of_fields_they_misspelled() -> None:
    with pytest.raises(ValueError, match="aftr"):
        codec.structure(changed(FLOW, "steps.0.aftr", []), Flow)


# -- other versions ----------------------------------------------------------------------------------------------------


def test_fields_of_a_newer_program_are_passed_over() -> None:
    newer = changed(changed(ORDER, "loyalty", {"points": 5}), "lines.0.color", "red")
    assert codec.order_from_json(json.dumps(newer)) == sent(2, 1)
    assert codec.from_json(json.dumps(newer), SalesOrder) == sent(2, 1)
    message = codec.structure(changed(changed(MESSAGE, "trace", "x"), "body.draft.gift", True), Message)
    assert message.body == messages.NewOrder(draft(2))


def test_fields_an_older_program_did_not_know_have_their_defaults() -> None:
    needed = {each.name for each in attrs.fields(SalesOrder) if each.default is attrs.NOTHING}
    older = {name: value for name, value in json.loads(codec.portable_order_to_json(new(1))).items() if name in needed}
    for read in (codec.order_from_json(json.dumps(older)), codec.from_json(json.dumps(older), SalesOrder)):
        assert (read.id, read.parked, read.customer, read.manual) == ("O-7", (), "", False)


def test_a_time_without_a_zone_is_never_written() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="without a zone"):
        codec.to_json(Message(MessageId("m"), System("fno"), messages.Canceled(), naive))
