"""Policies and rules: conditions over an order and its records, and the values an execution policy sets.

A *filter policy* decides whether a step runs for a record; an *execution policy* checks, and may set fields. A rule
that can't be evaluated (a missing field, a wrong type) is a policy error, never a guess. Source: Intelligent Order
Management, topics on policies; docs/concepts.md says where it is silent and what we chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from operator import ge, gt, le, lt
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_core import events as ev
from iom_core.order import FulfillmentLine, FulfillmentOrder, OrderLine, SalesOrder
from iom_core.outcome import Refused

Value = str | int | bool | Decimal | date
"""What a field is compared with, or set to."""


class Operator(StrEnum):
    """How a condition compares."""

    EQUALS = "equals"
    NOT_EQUALS = "doesn't equal"
    GREATER = "greater than"
    GREATER_OR_EQUAL = "greater or equal"
    LESS = "less than"
    LESS_OR_EQUAL = "less or equal"
    CONTAINS_DATA = "contains data"
    NO_DATA = "doesn't contain data"


ORDERED: Final = frozenset({Operator.GREATER, Operator.GREATER_OR_EQUAL, Operator.LESS, Operator.LESS_OR_EQUAL})
"""The four comparisons that entity-valued fields don't have."""
UNARY: Final = frozenset({Operator.CONTAINS_DATA, Operator.NO_DATA})


class Kind(StrEnum):
    """What a policy is for."""

    FILTER = "filter"
    EXECUTION = "execution"


class Criticality(StrEnum):
    """What an unsatisfied execution policy does: a critical one stops the flow."""

    INFORMATION = "information"
    CRITICAL = "critical"


@attrs.frozen
class Condition:
    """One row: *field* of the policy's entity, or of a related one by a path such as ``"order.channel"`` (many-to-one)
    or ``"lines.product"`` (one-to-many: holds when it holds for at least one of them).
    """

    field: str
    operator: Operator
    value: Value | None = None


@attrs.frozen
class AllOf:
    """A group of rows and groups joined by And."""

    parts: tuple[Test, ...]


@attrs.frozen
class AnyOf:
    """A group of rows and groups joined by Or."""

    parts: tuple[Test, ...]


Test = Condition | AllOf | AnyOf


@attrs.frozen
class SetField:
    """An action: set a field of the policy's entity."""

    field: str
    value: Value


@attrs.frozen
class Rule:
    """*when* a condition holds (``None``: always), *then* set fields. A rule without actions is a check."""

    name: str
    when: Test | None = None
    then: tuple[SetField, ...] = ()


@attrs.frozen
class Policy:
    """Rules over one entity: ``"order"``, ``"order line"``, ``"fulfillment order"`` or ``"fulfillment order line"``.

    A filter holds when all its rules hold. An execution policy is satisfied when all its checks hold and, if it has
    rules with actions, one of them applied: they are tried in order and the first whose condition holds is used.
    """

    name: str
    kind: Kind
    entity: str
    rules: tuple[Rule, ...]
    criticality: Criticality = Criticality.CRITICAL
    published: bool = True


@attrs.frozen
class PolicyError:
    """A policy that could not be evaluated: which rule, what is wrong, and where."""

    policy: str
    rule: str
    what: str
    where: str


@attrs.frozen
class Verdict:
    """What an execution policy said of one record: satisfied or why not, and the fields it sets."""

    satisfied: bool
    why: str
    values: tuple[tuple[str, object], ...] = ()


class _Unevaluable(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = where


@attrs.frozen
class Field:
    """A field that rules may read: its type, how to read it, and under which name it may be set (``""``: never)."""

    type: type
    read: Callable[[Any], Any]
    sets: str = ""
    entity_valued: bool = False


def _read(path: str) -> Callable[[Any], Any]:
    names = path.split(".")

    def read(record: Any) -> Any:
        for name in names:
            if record is None:
                return None
            record = getattr(record, name)
        return record

    return read


def _fields(rows: Iterable[tuple[str, type, str, str, bool]]) -> dict[str, Field]:
    return {name: Field(type_, _read(path), sets, entity) for name, type_, path, sets, entity in rows}


# fmt: off
FIELDS: Final[Mapping[str, Mapping[str, Field]]] = {
    ev.ORDER: _fields((
        # field                    type      read from               set as              names an entity?
        ("id",                     str,      "id",                   "",                 False),
        ("channel",                str,      "channel",              "",                 False),
        ("state",                  str,      "status.state",         "",                 False),
        ("reason",                 str,      "status.reason",        "",                 False),
        ("order_type",             str,      "order_type",           "",                 False),
        ("currency",               str,      "currency",             "",                 True),
        ("total",                  Decimal,  "total.amount",         "",                 False),
        ("shipping",               Decimal,  "shipping.amount",      "",                 False),
        ("customer",               str,      "customer",             "",                 True),
        ("customer_group",         str,      "customer_group",       "",                 False),
        ("invoice_customer",       str,      "invoice_customer",     "invoice_customer", True),
        ("payment",                str,      "payment",              "",                 False),
        ("reference",              str,      "reference",            "",                 False),
        ("note",                   str,      "note",                 "note",             False),
        ("company",                str,      "company",              "company",          True),
        ("site",                   str,      "site",                 "site",             True),
        ("warehouse",              str,      "warehouse",            "warehouse",        True),
        ("strategy",               str,      "strategy",             "strategy",         True),
        ("ready_to_sync",          bool,     "ready_to_sync",        "ready_to_sync",    False),
        ("manual",                 bool,     "manual",               "",                 False),
        ("placed_at",              datetime, "placed_at",            "",                 False),
        ("requested_ship_date",    date,     "requested_ship_date",  "",                 False),
        ("ship_to.name",           str,      "ship_to.name",         "",                 False),
        ("ship_to.city",           str,      "ship_to.city",         "",                 False),
        ("ship_to.state",          str,      "ship_to.state",        "",                 False),
        ("ship_to.postal_code",    str,      "ship_to.postal_code",  "",                 False),
        ("ship_to.country",        str,      "ship_to.country",      "",                 False),
        ("bill_to.country",        str,      "bill_to.country",      "",                 False),
        ("bill_to.email",          str,      "bill_to.email",        "",                 False),
    )),
    ev.LINE: _fields((
        ("id",                     str,      "id",                   "",                 False),
        ("state",                  str,      "status.state",         "",                 False),
        ("reason",                 str,      "status.reason",        "",                 False),
        ("product",                str,      "product",              "",                 True),
        ("name",                   str,      "name",                 "",                 False),
        ("quantity",               Decimal,  "quantity",             "",                 False),
        ("unit",                   str,      "ordered.unit",         "",                 True),
        ("total",                  Decimal,  "total.amount",         "",                 False),
        ("digital",                bool,     "digital",              "",                 False),
        ("company",                str,      "company",              "company",          True),
        ("site",                   str,      "site",                 "site",             True),
        ("warehouse",              str,      "warehouse",            "warehouse",        True),
        ("source",                 str,      "source",               "source",           True),
        ("split_group",            str,      "split_group",          "split_group",      False),
        ("ready_to_sync",          bool,     "ready_to_sync",        "ready_to_sync",    False),
        ("sync_error",             str,      "sync_error",           "",                 False),
        ("ship_to.country",        str,      "ship_to.country",      "",                 False),
    )),
    ev.FULFILLMENT_ORDER: _fields((
        ("id",                     str,      "id",                   "",                 False),
        ("state",                  str,      "status.state",         "",                 False),
        ("reason",                 str,      "status.reason",        "",                 False),
        ("provider",               str,      "provider",             "",                 True),
        ("source",                 str,      "source",               "",                 True),
        ("site",                   str,      "site",                 "",                 True),
        ("warehouse",              str,      "warehouse",            "",                 True),
    )),
    ev.FULFILLMENT_LINE: _fields((
        ("id",                     str,      "id",                   "",                 False),
        ("state",                  str,      "status.state",         "",                 False),
        ("reason",                 str,      "status.reason",        "",                 False),
        ("quantity",               Decimal,  "quantity",             "",                 False),
        ("shipped",                Decimal,  "shipped",              "",                 False),
    )),
}
"""Every field that a rule may read or set, per entity."""
# fmt: on

Related = Callable[[SalesOrder, Any], Sequence[Any]]

RELATED: Final[Mapping[str, Mapping[str, tuple[str, bool, Related]]]] = {
    ev.ORDER: {
        "lines": (ev.LINE, True, lambda order, _: order.lines),
        "fulfillment_orders": (ev.FULFILLMENT_ORDER, True, lambda order, _: order.fulfillment_orders),
    },
    ev.LINE: {
        "order": (ev.ORDER, False, lambda order, _: (order,)),
        "fulfillment_lines": (
            ev.FULFILLMENT_LINE,
            True,
            lambda order, line: [f for fo in order.fulfillment_orders for f in fo.lines if f.line == line.id],
        ),
    },
    ev.FULFILLMENT_ORDER: {
        "order": (ev.ORDER, False, lambda order, _: (order,)),
        "lines": (ev.FULFILLMENT_LINE, True, lambda _, fo: fo.lines),
    },
    ev.FULFILLMENT_LINE: {
        "order": (ev.ORDER, False, lambda order, _: (order,)),
        "line": (ev.LINE, False, lambda order, f: [line for line in order.lines if line.id == f.line]),
    },
}
"""How entities relate: (other entity, one-to-many?, how to get there)."""


def records_of(order: SalesOrder, entity: str) -> Sequence[SalesOrder | OrderLine | FulfillmentOrder | FulfillmentLine]:
    """Return the records of *entity* that belong to *order*; raises `KeyError` for an entity without fields."""
    if entity == ev.ORDER:
        return (order,)
    if entity == ev.LINE:
        return order.lines
    if entity == ev.FULFILLMENT_ORDER:
        return order.fulfillment_orders
    if entity == ev.FULFILLMENT_LINE:
        return [each for fo in order.fulfillment_orders for each in fo.lines]
    raise KeyError(entity)


def holds(policy: Policy, order: SalesOrder, record: object) -> Result[bool, PolicyError]:
    """Say whether a filter policy holds for *record* of *order*; an unpublished one is a policy error."""
    if not policy.published:
        return Failure(PolicyError(policy.name, "", "the policy is not published", "$.published"))
    for index, rule in enumerate(policy.rules):
        try:
            if rule.when is not None and not _test(rule.when, policy.entity, order, record):
                return Success(False)
        except _Unevaluable as broken:
            return Failure(PolicyError(policy.name, rule.name, broken.what, f"$.rules[{index}].when{broken.where}"))
    return Success(True)


def execute(policy: Policy, order: SalesOrder, record: object) -> Result[Verdict, PolicyError]:
    """Run an execution policy on *record* of *order*; nothing is set yet, the values are returned."""
    if not policy.published:
        return Failure(PolicyError(policy.name, "", "the policy is not published", "$.published"))
    values: dict[str, object] = {}
    assigns = applied = False
    for index, rule in enumerate(policy.rules):
        if rule.then and applied:
            continue
        try:
            held = rule.when is None or _test(rule.when, policy.entity, order, record)
            if not rule.then:
                if not held:
                    return Success(Verdict(False, f"rule {rule.name!r} does not hold"))
                continue
            assigns = True
            if held:
                applied = True
                for place, action in enumerate(rule.then):
                    field = _settable(policy.entity, action.field, f".then[{place}]")
                    if type(action.value) is not field.type:
                        wrong = _wrong_type(action.field, field, action.value, f".then[{place}]")
                        raise _Unevaluable(wrong.what, wrong.where)
                    values[field.sets] = action.value
        except _Unevaluable as broken:
            where = broken.where if broken.where.startswith(".then") else f".when{broken.where}"
            return Failure(PolicyError(policy.name, rule.name, broken.what, f"$.rules[{index}]{where}"))
    if assigns and not applied:
        return Success(Verdict(False, "no rule applied"))
    return Success(Verdict(True, "", tuple(values.items())))


def problems(policy: Policy) -> tuple[Refused, ...]:
    """Return everything that keeps a policy from being published: unknown fields, wrong types, wrong operators."""
    found: list[Refused] = []
    if policy.entity not in FIELDS:
        return (
            Refused("entity", f"no policy can be about {policy.entity!r}; known are {', '.join(FIELDS)}", "$.entity"),
        )
    if not policy.rules:
        found.append(Refused("no-rules", "the policy has no rules", "$.rules"))
    for index, rule in enumerate(policy.rules):
        if rule.when is not None:
            found += _problems_of(rule.when, policy.entity, f"$.rules[{index}].when")
        if rule.then and policy.kind is Kind.FILTER:
            found.append(Refused("filter-sets", "a filter policy can't set fields", f"$.rules[{index}].then"))
        for place, action in enumerate(rule.then):
            where = f"$.rules[{index}].then[{place}]"
            try:
                field = _settable(policy.entity, action.field, "")
                if type(action.value) is not field.type:
                    found.append(_wrong_type(action.field, field, action.value, f"{where}.value"))
            except _Unevaluable as broken:
                found.append(Refused("field", broken.what, f"{where}.field"))
    return tuple(found)


def _problems_of(test: Test, entity: str, where: str) -> list[Refused]:
    if not isinstance(test, Condition):
        if not test.parts:
            return [Refused("empty-group", "a group has no rows", where)]
        return [each for i, part in enumerate(test.parts) for each in _problems_of(part, entity, f"{where}.parts[{i}]")]
    try:
        _, field = _resolve(entity, test.field)
    except _Unevaluable as broken:
        return [Refused("field", broken.what, f"{where}.field")]
    if test.operator in UNARY:
        return []
    if test.operator in ORDERED and (field.entity_valued or field.type is bool):
        return [Refused("operator", f"{test.field} can't be compared by {test.operator}", f"{where}.operator")]
    if not _comparable(field, test.value):
        return [_wrong_type(test.field, field, test.value, f"{where}.value")]
    return []


def _wrong_type(name: str, field: Field, value: object, where: str) -> Refused:
    return Refused("type", f"{name} is {field.type.__name__}, the value {value!r} is {type(value).__name__}", where)


def _comparable(field: Field, value: object) -> bool:
    if field.type is Decimal:
        return isinstance(value, (Decimal, int)) and not isinstance(value, bool)
    return type(value) is field.type


def _resolve(entity: str, path: str) -> tuple[tuple[Related, ...], Field]:
    """Follow a path over related entities to its field."""
    steps: list[Related] = []
    rest = path
    if entity not in FIELDS:
        raise _Unevaluable(f"no policy can be about {entity!r}", "")
    while rest not in FIELDS[entity]:
        head, dot, rest_ = rest.partition(".")
        if not dot or head not in RELATED[entity]:
            raise _Unevaluable(f"{entity} has no field {rest!r}", "")
        entity, _, get = RELATED[entity][head]
        steps.append(get)
        rest = rest_
    return tuple(steps), FIELDS[entity][rest]


_resolved: dict[tuple[str, str], tuple[tuple[Related, ...], Field]] = {}


def _test(test: Test, entity: str, order: SalesOrder, record: object, where: str = "") -> bool:
    if isinstance(test, AllOf):
        return all(_test(part, entity, order, record, f"{where}.parts[{i}]") for i, part in enumerate(test.parts))
    if isinstance(test, AnyOf):
        return any(_test(part, entity, order, record, f"{where}.parts[{i}]") for i, part in enumerate(test.parts))
    key = (entity, test.field)
    if key not in _resolved:
        try:
            _resolved[key] = _resolve(entity, test.field)
        except _Unevaluable as broken:
            raise _Unevaluable(broken.what, where) from None
    steps, field = _resolved[key]
    targets: Sequence[Any] = (record,)
    for get in steps:
        targets = [each for target in targets for each in get(order, target)]
    if test.operator is Operator.NO_DATA:
        return not any(_has_data(field.read(target)) for target in targets)
    return any(_compare(test, field, field.read(target), where) for target in targets)


def _has_data(value: object) -> bool:
    return value is not None and value != ""


def _compare(test: Condition, field: Field, actual: Any, where: str) -> bool:
    operator, wanted = test.operator, test.value
    if operator is Operator.CONTAINS_DATA:
        return _has_data(actual)
    if not _comparable(field, wanted):
        raise _Unevaluable(
            f"{test.field} is {field.type.__name__}, the value {wanted!r} is {type(wanted).__name__}", where
        )
    if operator is Operator.EQUALS:
        return bool(actual == wanted)
    if operator is Operator.NOT_EQUALS:
        return bool(actual != wanted)
    if field.entity_valued or field.type is bool:
        raise _Unevaluable(f"{test.field} names an entity and can't be compared by {operator!r}", where)
    if actual is None or (actual == "" and field.type is not str):
        raise _Unevaluable(f"{test.field} is empty and can't be compared by {operator!r}", where)
    try:
        return bool(_ORDERINGS[operator](actual, wanted))
    except TypeError as broken:  # a time with a zone and one without
        raise _Unevaluable(f"{test.field}: {broken}", where) from None


_ORDERINGS: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    Operator.GREATER: gt,
    Operator.GREATER_OR_EQUAL: ge,
    Operator.LESS: lt,
    Operator.LESS_OR_EQUAL: le,
}


def _settable(entity: str, name: str, where: str) -> Field:
    field = FIELDS.get(entity, {}).get(name)
    if field is None:
        raise _Unevaluable(f"{entity} has no field {name!r}", where)
    if not field.sets:
        raise _Unevaluable(f"{name} of {entity} can't be set by a policy", where)
    return field


# -- writing policies in Python ------------------------------------------------------------------------------------


def equals(field: str, value: Value) -> Condition:
    """*field* equals *value*."""
    return Condition(field, Operator.EQUALS, value)


def at_least(field: str, value: Value) -> Condition:
    """*field* is *value* or more."""
    return Condition(field, Operator.GREATER_OR_EQUAL, value)


def contains_data(field: str) -> Condition:
    """*field* is filled."""
    return Condition(field, Operator.CONTAINS_DATA)


def filter_policy(name: str, when: Test, entity: str = ev.ORDER) -> Policy:
    """Write a filter policy of one rule."""
    return Policy(name, Kind.FILTER, entity, (Rule(name, when),))


def assign(name: str, entity: str, *rules: tuple[Test | None, Mapping[str, Value]]) -> Policy:
    """Write an assignment policy: the first rule whose condition holds (``None``: always) sets its values."""
    return Policy(
        name,
        Kind.EXECUTION,
        entity,
        tuple(
            Rule(f"{name} {number}", when, tuple(SetField(field, value) for field, value in values.items()))
            for number, (when, values) in enumerate(rules, 1)
        ),
    )


def check(name: str, entity: str, *tests: Test, criticality: Criticality = Criticality.CRITICAL) -> Policy:
    """Write a checking policy: all *tests* must hold."""
    return Policy(
        name, Kind.EXECUTION, entity, tuple(Rule(f"{name} {n}", test) for n, test in enumerate(tests, 1)), criticality
    )
