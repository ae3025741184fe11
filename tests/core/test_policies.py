"""Policies: what a rule may ask and set, and that what can't be evaluated is an error, never a guess."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_core import events as ev
from iom_core import policies as p
from iom_core.order import SalesOrder
from iom_core.outcome import failed
from iom_core.policies import (
    AllOf,
    AnyOf,
    Condition,
    Criticality,
    Kind,
    Operator,
    Policy,
    PolicyError,
    Rule,
    SetField,
    Test,
    Verdict,
)
from iom_core.values import CompanyId

from .examples import new, sent

NOBODY = new(2, 1)
ORDER: SalesOrder = attrs.evolve(NOBODY, company=CompanyId("usmf"), requested_ship_date=date(2026, 2, 1), note="")


def holds(test: Test, order: SalesOrder = ORDER, entity: str = ev.ORDER, record: object | None = None) -> bool:
    return p.holds(p.filter_policy("f", test, entity), order, order if record is None else record).unwrap()


def broken(test: Test, order: SalesOrder = ORDER, entity: str = ev.ORDER) -> PolicyError:
    said = p.holds(p.filter_policy("f", test, entity), order, order)
    assert failed(said)
    return said.failure()


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("channel", Operator.EQUALS, "bigcommerce", True),
        ("channel", Operator.EQUALS, "BigCommerce", False),
        ("channel", Operator.NOT_EQUALS, "fno", True),
        ("strategy", Operator.EQUALS, "x", False),
        ("strategy", Operator.NOT_EQUALS, "x", True),
        ("total", Operator.GREATER, Decimal("34.99"), True),
        ("total", Operator.GREATER, 35, False),
        ("total", Operator.GREATER_OR_EQUAL, 35, True),
        ("total", Operator.LESS, Decimal(35), False),
        ("total", Operator.LESS_OR_EQUAL, Decimal("35.00"), True),
        ("requested_ship_date", Operator.LESS, date(2026, 3, 1), True),
        ("placed_at", Operator.GREATER, datetime(2026, 1, 1, tzinfo=UTC), True),
        ("company", Operator.CONTAINS_DATA, None, True),
        ("site", Operator.CONTAINS_DATA, None, False),
        ("note", Operator.CONTAINS_DATA, None, False),
        ("site", Operator.NO_DATA, None, True),
        ("company", Operator.NO_DATA, None, False),
        ("manual", Operator.EQUALS, False, True),
        ("ship_to.country", Operator.EQUALS, "US", True),
    ],
)
def test_each_operator_compares_as_it_says(field: str, operator: Operator, value: Any, expected: bool) -> None:
    assert holds(Condition(field, operator, value)) is expected


def test_every_operator_is_tested_above() -> None:
    assert len(Operator) == 8


@pytest.mark.parametrize(
    ("test", "what"),
    [
        (Condition("colour", Operator.EQUALS, "red"), "order has no field 'colour'"),
        (Condition("lines.colour", Operator.EQUALS, "red"), "order line has no field 'colour'"),
        (Condition("total", Operator.EQUALS, "35"), "total is Decimal, the value '35' is str"),
        (Condition("total", Operator.EQUALS, True), "the value True is bool"),
        (Condition("channel", Operator.EQUALS, 1), "channel is str"),
        (Condition("company", Operator.GREATER, "a"), "names an entity"),
        (Condition("manual", Operator.GREATER, False), "can't be compared"),
        (
            Condition("placed_at", Operator.GREATER, datetime(2026, 1, 1)),  # noqa: DTZ001 - no zone is the point
            "can't compare offset-naive and offset-aware",
        ),
    ],
)
def test_what_can_not_be_evaluated_is_a_policy_error(test: Condition, what: str) -> None:
    said = broken(test)
    assert what in said.what
    assert said.where.startswith("$.rules[0].when")
    assert (said.policy, said.rule) == ("f", "f")


def test_an_empty_field_has_no_order() -> None:
    assert "is empty" in broken(Condition("requested_ship_date", Operator.LESS, date(2026, 1, 1)), NOBODY).what


def test_the_path_of_an_error_leads_into_the_group() -> None:
    bad = AllOf((p.equals("channel", "bigcommerce"), AnyOf((p.equals("channel", "x"), p.equals("colour", "red")))))
    assert broken(bad).where == "$.rules[0].when.parts[1].parts[1]"


def test_groups_nest_and_stop_at_the_first_answer() -> None:
    yes, no, bad = p.equals("channel", "bigcommerce"), p.equals("channel", "fno"), p.equals("colour", "red")
    assert holds(AllOf((yes, AnyOf((no, yes)))))
    assert not holds(AllOf((yes, AnyOf((no, AllOf((yes, no)))))))
    assert holds(AnyOf((yes, bad)))
    assert not holds(AllOf((no, bad)))


TESTS = st.recursive(
    st.sampled_from([(p.equals("channel", "bigcommerce"), True), (p.equals("channel", "fno"), False)]),
    lambda inner: st.tuples(st.sampled_from([AllOf, AnyOf]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda drawn: (
            drawn[0](tuple(test for test, _ in drawn[1])),
            all(x for _, x in drawn[1]) if drawn[0] is AllOf else any(x for _, x in drawn[1]),
        )
    ),
    max_leaves=12,
)


@given(TESTS)
def test_any_nesting_of_and_and_or_is_ordinary_logic(drawn: tuple[Test, bool]) -> None:
    test, expected = drawn
    assert holds(test) is expected
    assert p.problems(p.filter_policy("f", test)) == ()


def test_rules_reach_related_records_both_ways() -> None:
    order = sent(2, 1)
    line = order.lines[1]
    assert holds(p.equals("lines.product", "P2"), order)
    assert not holds(p.equals("lines.product", "P9"), order)
    assert holds(p.at_least("lines.quantity", 2), order)
    assert holds(p.equals("order.channel", "bigcommerce"), order, ev.LINE, line)
    assert holds(p.at_least("fulfillment_lines.quantity", 1), order, ev.LINE, line)
    assert not holds(p.at_least("fulfillment_lines.quantity", 2), order, ev.LINE, line)
    first = order.fulfillment_orders[0]
    assert holds(p.equals("provider", "flexe"), order, ev.FULFILLMENT_ORDER, first)
    assert holds(p.equals("lines.line.product", "P1"), order, ev.FULFILLMENT_ORDER, first)
    assert holds(p.equals("line.order.channel", "bigcommerce"), order, ev.FULFILLMENT_LINE, first.lines[0])


def test_nothing_related_contains_no_data() -> None:
    nothing = new(1)
    assert not holds(p.contains_data("fulfillment_orders.id"), nothing)
    assert holds(Condition("fulfillment_orders.id", Operator.NO_DATA), nothing)


def test_an_unpublished_policy_is_never_used() -> None:
    draft = attrs.evolve(p.filter_policy("f", p.equals("channel", "bigcommerce")), published=False)
    for said in (p.holds(draft, ORDER, ORDER), p.execute(attrs.evolve(draft, kind=Kind.EXECUTION), ORDER, ORDER)):
        assert failed(said)
        assert said.failure().where == "$.published"


def test_an_assignment_uses_the_first_rule_that_holds() -> None:
    policy = p.assign(
        "Source",
        ev.LINE,
        (p.at_least("quantity", 100), {"source": "Seattle"}),
        (p.at_least("quantity", 2), {"source": "Chicago", "site": "2"}),
        (None, {"source": "Boston"}),
    )
    first, second = ORDER.lines
    assert p.execute(policy, ORDER, first).unwrap() == Verdict(True, "", (("source", "Chicago"), ("site", "2")))
    assert p.execute(policy, ORDER, second).unwrap().values == (("source", "Boston"),)


def test_an_assignment_of_which_no_rule_applies_is_not_satisfied() -> None:
    policy = p.assign("Company", ev.ORDER, (p.equals("ship_to.country", "DE"), {"company": "demf"}))
    assert p.execute(policy, ORDER, ORDER).unwrap() == Verdict(False, "no rule applied")


def test_a_check_names_the_rule_that_does_not_hold_and_sets_nothing() -> None:
    policy = Policy(
        "Mixed",
        Kind.EXECUTION,
        ev.ORDER,
        (
            Rule("company", None, (SetField("company", "demf"),)),
            Rule("large", p.at_least("total", 1000)),
        ),
    )
    assert p.execute(policy, ORDER, ORDER).unwrap() == Verdict(False, "rule 'large' does not hold")
    small = p.check("Small", ev.ORDER, p.at_least("total", 1), p.at_least("total", 2))
    assert p.execute(small, ORDER, ORDER).unwrap() == Verdict(True, "")
    assert small.criticality is Criticality.CRITICAL


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (SetField("total", Decimal(1)), "can't be set"),
        (SetField("colour", "red"), "no field 'colour'"),
        (SetField("company", 5), "company is str, the value 5 is int"),
        (SetField("ready_to_sync", "yes"), "ready_to_sync is bool"),
    ],
)
def test_an_action_sets_only_settable_fields_to_values_of_their_type(action: SetField, what: str) -> None:
    policy = Policy("Set", Kind.EXECUTION, ev.ORDER, (Rule("r", None, (SetField("note", "ok"), action)),))
    said = p.execute(policy, ORDER, ORDER)
    assert failed(said)
    assert what in said.failure().what
    assert said.failure().where == "$.rules[0].then[1]"
    assert [what in each.what for each in p.problems(policy)] == [True]


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        (Policy("x", Kind.FILTER, "gift card", ()), "$.entity"),
        (Policy("x", Kind.FILTER, ev.ORDER, ()), "$.rules"),
        (p.filter_policy("x", AllOf(())), "$.rules[0].when"),
        (p.filter_policy("x", AnyOf((p.equals("colour", "red"),))), "$.rules[0].when.parts[0].field"),
        (p.filter_policy("x", Condition("company", Operator.LESS, "a")), "$.rules[0].when.operator"),
        (p.filter_policy("x", p.equals("total", "1")), "$.rules[0].when.value"),
        (Policy("x", Kind.FILTER, ev.ORDER, (Rule("r", None, (SetField("note", "a"),)),)), "$.rules[0].then"),
        (Policy("x", Kind.EXECUTION, ev.ORDER, (Rule("r", None, (SetField("id", "a"),)),)), "$.rules[0].then[0].field"),
    ],
)
def test_publishing_a_policy_names_what_is_wrong_and_where(policy: Policy, where: str) -> None:
    assert [each.where for each in p.problems(policy)] == [where]


def test_a_policy_about_an_unknown_entity_is_an_error_at_run_time_too() -> None:
    said = p.holds(p.filter_policy("x", p.equals("id", "1"), "gift card"), ORDER, ORDER)
    assert failed(said)
    assert "gift card" in said.failure().what
    with pytest.raises(KeyError):
        p.records_of(ORDER, "gift card")


def test_every_field_a_rule_may_read_exists_and_has_its_type() -> None:
    order = sent(2, 1)
    for entity, fields in p.FIELDS.items():
        for record in p.records_of(order, entity):
            for name, field in fields.items():
                value = field.read(record)
                assert value is None or isinstance(value, field.type), (entity, name)
                assert not field.sets or hasattr(record, field.sets)
