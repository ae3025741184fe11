"""Our own JSON: orders, messages, flows and policies, written and read back equal.

The order, which is written once per message, goes through `msgspec` when it is installed (extra ``fast``) and through
`cattrs` otherwise; both write the same document. Decimals are text, times are ISO 8601 in UTC (``"…Z"``).
Reading raises `ValueError` with a path (``$.lines[2].quantity``) for anything that doesn't fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeVar, cast, get_args, get_origin

from cattrs import ClassValidationError, Converter, IterableValidationError, transform_error
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.gen import make_dict_structure_fn

from iom_core import messages
from iom_core.flow import Flow, FlowStatus, Step, StepType
from iom_core.messages import Message
from iom_core.order import SalesOrder
from iom_core.policies import (
    AllOf,
    AnyOf,
    Condition,
    Criticality,
    Kind,
    Operator,
    Policy,
    Rule,
    SetField,
    Test,
    Value,
)

msgspec: Any
try:
    import msgspec
except ImportError:  # the extra `fast` is not installed
    msgspec = None

T = TypeVar("T")

_BODIES: Final = {each.__name__: each for each in get_args(messages.Body)}
_TESTS: Final = {"all": AllOf, "any": AnyOf}


def _time_text(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError(f"a time without a zone can't be written: {value!r}")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(value: Any, _: object) -> datetime:
    if not isinstance(value, str):
        raise TypeError(f"expected a time as text, got {value!r}")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"the time {value!r} names no zone")
    return moment


def _date(value: Any, _: object) -> date:
    if not isinstance(value, str):
        raise TypeError(f"expected a date as text, got {value!r}")
    return date.fromisoformat(value)


def _decimal(value: Any, _: object) -> Decimal:
    if not isinstance(value, str):
        raise TypeError(f"expected a decimal as text, got {value!r}")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"not a decimal: {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"not a finite decimal: {value!r}")
    return number


def _exactly(kind: type[T]) -> Callable[[Any, object], T]:
    """Accept values of *kind* only: no text for numbers, no numbers for text."""

    def structure(value: Any, _: object) -> T:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got {value!r}")
        checked: T = value
        return checked

    return structure


def _member(value: Any, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{value!r} is none of {', '.join(repr(each.value) for each in kind)}") from None


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _listed(kind: Any, converter: Converter) -> Callable[[Any, object], tuple[Any, ...]]:
    """Read a tuple from a list only: text and objects can be iterated too, into nonsense."""
    kinds = get_args(kind)
    many = homogenous_tuple_structure_factory(kind, converter) if kinds[-1] is Ellipsis else None
    hooks = [] if many is not None else [converter.get_structure_hook(each) for each in kinds]

    def structure(value: Any, to: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list, got {value!r}")
        if many is not None:
            made: tuple[Any, ...] = many(value, to)
            return made
        if len(value) != len(kinds):
            raise ValueError(f"expected {len(kinds)} values, got {len(value)}")
        return tuple(hook(each, each_kind) for hook, each, each_kind in zip(hooks, value, kinds))

    return structure


def _converter(*, forbid_extra_keys: bool) -> Converter:
    made = Converter(forbid_extra_keys=forbid_extra_keys)
    for kind in (str, int, bool):
        made.register_structure_hook(kind, _exactly(kind))
    # Without these, the hook for text would leave members of our enumerations plain text.
    for enumeration in (StepType, FlowStatus, Kind, Criticality, Operator):
        made.register_structure_hook(enumeration, _member)
    made.register_structure_hook_factory(_is_tuple, lambda kind: _listed(kind, made))
    made.register_unstructure_hook(Decimal, str)
    made.register_structure_hook(Decimal, _decimal)
    made.register_unstructure_hook(datetime, _time_text)
    made.register_structure_hook(datetime, _time)
    made.register_unstructure_hook(
        date, lambda value: _time_text(value) if isinstance(value, datetime) else value.isoformat()
    )
    made.register_structure_hook(date, _date)
    return made


_lenient: Final = _converter(forbid_extra_keys=False)
_strict: Final = _converter(forbid_extra_keys=True)


# -- messages: the body's class name tags the union -------------------------------------------------------------------


class _Misfit(ValueError):
    """Carries a message that names its paths already."""


def _message_out(message: Message) -> dict[str, Any]:
    body = _lenient.unstructure(message.body)
    return {
        "id": message.id,
        "system": message.system,
        "at": _time_text(message.at),
        "external_id": message.external_id,
        "order_id": message.order_id,
        "kind": type(message.body).__name__,
        "body": body,
    }


def _message_in(value: Any, _: object) -> Message:
    fields = dict(value)
    kind = fields.pop("kind", None)
    if kind not in _BODIES:
        raise ValueError(f"unknown kind of message {kind!r}; known are {', '.join(_BODIES)}")
    try:
        body = _lenient.structure(fields.pop("body", None), _BODIES[kind])
    except (ClassValidationError, IterableValidationError) as broken:
        raise _Misfit("; ".join(transform_error(broken, path="$.body", format_exception=_explain))) from None
    plain = _plain_message(fields | {"body": None}, Message)
    return Message(plain.id, plain.system, body, plain.at, plain.external_id, plain.order_id)


_plain = _converter(forbid_extra_keys=False)
_plain.register_structure_hook(messages.Body, lambda value, _: value)
_plain_message = make_dict_structure_fn(Message, _plain)
_lenient.register_unstructure_hook(Message, _message_out)
_lenient.register_structure_hook(Message, _message_in)


# -- policies: conditions nest, values are typed ----------------------------------------------------------------------


def _value_out(value: Value | None) -> Any:
    if isinstance(value, datetime):
        return {"time": _time_text(value)}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    return value


def _value_in(value: Any, _: object) -> Value | None:
    if isinstance(value, dict) and len(value) == 1:
        ((kind, text),) = value.items()
        readers: dict[str, Callable[[Any, object], Any]] = {"time": _time, "date": _date, "decimal": _decimal}
        if kind in readers:
            return cast("Value", readers[kind](text, None))
    if value is None or isinstance(value, (str, bool, int)):
        return value
    raise ValueError(f"not a value: {value!r} (text, whole number, true/false, or {{'decimal'|'date'|'time': text}})")


def _test_out(test: Test) -> dict[str, Any]:
    if isinstance(test, Condition):
        out: dict[str, Any] = {"field": test.field, "operator": test.operator.value}
        if test.value is not None:
            out["value"] = _value_out(test.value)
        return out
    return {"all" if isinstance(test, AllOf) else "any": [_test_out(part) for part in test.parts]}


def _test_in(value: Any, _: object) -> Test:
    if not isinstance(value, dict):
        raise TypeError(f"expected a condition or a group, got {value!r}")
    for key, kind in _TESTS.items():
        if key in value:
            if len(value) != 1 or not isinstance(value[key], list):
                raise ValueError(f"a group holds nothing but a list named {key!r}")
            parts = tuple(_test_in(part, None) for part in value[key])
            return AllOf(parts) if kind is AllOf else AnyOf(parts)
    fields = dict(value)
    wanted = _value_in(fields.pop("value", None), None)
    plain: Condition = _plain_condition({**fields, "value": None}, Condition)
    return Condition(plain.field, plain.operator, wanted)


_plain_strict = _converter(forbid_extra_keys=True)
_plain_strict.register_structure_hook(Value | None, lambda value, _: value)
_plain_condition = make_dict_structure_fn(Condition, _plain_strict, _cattrs_forbid_extra_keys=True)
_strict.register_unstructure_hook(Condition, _test_out)
_strict.register_unstructure_hook(AllOf, _test_out)
_strict.register_unstructure_hook(AnyOf, _test_out)
_strict.register_unstructure_hook(Test | None, lambda test: None if test is None else _test_out(test))
_strict.register_structure_hook(Test | None, lambda value, _: None if value is None else _test_in(value, None))
_strict.register_unstructure_hook(Value, _value_out)
_strict.register_structure_hook(Value, _value_in)


# -- the public functions ---------------------------------------------------------------------------------------------

_STRICT: Final[tuple[type, ...]] = (Flow, Step, Policy, Rule, SetField)


def _for(kind: type) -> Converter:
    return _strict if kind in _STRICT else _lenient


def to_json(value: object) -> str:
    """Write an order, message, flow, policy or one of their parts as JSON."""
    if isinstance(value, SalesOrder):
        return order_to_json(value)
    return json.dumps(_for(type(value)).unstructure(value), ensure_ascii=False, separators=(",", ":"))


def plain(value: object) -> Any:
    """Return what `to_json` would write, as plain dictionaries, lists and text."""
    return _for(type(value)).unstructure(value)


def from_json(text: str | bytes, kind: type[T]) -> T:
    """Read what `to_json` wrote; raises `ValueError` naming path and cause.

    Flows and policies are written by people: unknown fields in them are errors. Orders and messages are written by
    programs, perhaps newer ones: unknown fields are passed over.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as broken:
        raise ValueError(f"$: not JSON ({broken})") from None
    return structure(raw, kind)


def structure(raw: Any, kind: type[T]) -> T:
    """Build *kind* from decoded JSON; raises `ValueError` naming every path that doesn't fit."""
    try:
        return _for(kind).structure(raw, kind)
    except _Misfit:
        raise
    except RecursionError:
        raise ValueError("$: nested too deeply") from None
    except (ClassValidationError, IterableValidationError) as broken:
        raise ValueError("; ".join(transform_error(broken, path="$", format_exception=_explain))) from None
    except (AttributeError, KeyError, TypeError, ValueError) as broken:
        # AttributeError: the converter asks whatever it gets for its keys.
        raise ValueError(f"$: {broken}") from None


def _explain(broken: BaseException, kind: type | None) -> str:
    if isinstance(broken, KeyError):
        return f"required field {broken} is missing"
    return str(broken) or type(broken).__name__


if msgspec is not None:
    _encoder = msgspec.json.Encoder()

    @lru_cache(maxsize=1)
    def _decoder() -> Any:
        return msgspec.json.Decoder(SalesOrder)


def order_to_json(order: SalesOrder) -> str:
    """Write an order as JSON."""
    if msgspec is not None:
        return cast("bytes", _encoder.encode(order)).decode()
    return portable_order_to_json(order)


def order_from_json(text: str | bytes) -> SalesOrder:
    """Read an order; raises `ValueError` naming the path of what doesn't fit."""
    if msgspec is not None:
        try:
            return cast("SalesOrder", _decoder().decode(text))
        except msgspec.DecodeError as broken:
            raise ValueError(str(broken)) from None
    return from_json(text, SalesOrder)


def portable_order_to_json(order: SalesOrder) -> str:
    """Write an order without the extra ``fast``; tests hold the two writers together."""
    return json.dumps(_lenient.unstructure(order), ensure_ascii=False, separators=(",", ":"))
