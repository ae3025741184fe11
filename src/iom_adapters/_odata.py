"""OData's grammar as plain data: literals, key predicates and query options, written by adapters, read by twins.

Two dialects meet here. Finance + Operations has no text functions and writes *contains* as a wildcard in an
equality (``Name eq '*retail*'``); Dataverse has ``contains``, ``startswith`` and ``endswith``. What a system does not
understand is a `BadQuery`, as it would be there. Sources: fno.md section 3, dataverse.md, OData 4.01 part 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, Final
from urllib.parse import quote

import attrs

Scalar = str | bool | int | Decimal | datetime | None
"""What a literal can be once it is read."""

Row = Mapping[str, Any]
"""One entity: property names to decoded JSON values."""


class BadQuery(ValueError):
    """The query is not understood; *what* says why, *at* is the position in the option's text."""

    def __init__(self, what: str, at: int = 0) -> None:
        super().__init__(f"{what} at position {at}")
        self.what = what
        self.at = at


@attrs.frozen
class EnumLiteral:
    """An enum value as F&O wants it: ``Microsoft.Dynamics.DataEntities.SalesStatus'Backorder'``."""

    type: str
    member: str


# --- writing ---------------------------------------------------------------------------------------------


def literal(value: Scalar | EnumLiteral | date) -> str:
    """Write *value* as an OData literal, not yet percent-encoded; a date without a time is that day at 12:00Z."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, EnumLiteral):
        return f"{value.type}'{value.member}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, date):
        return timestamp(datetime.combine(value, time(12), UTC))
    return format(Decimal(value), "f")


def timestamp(value: datetime) -> str:
    """Write a moment as ``2026-01-05T12:00:00Z``; raises `ValueError` for one without a time zone."""
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    text = value.astimezone(UTC).isoformat(timespec="microseconds" if value.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def key_predicate(fields: Mapping[str, Scalar | EnumLiteral]) -> str:
    """Write a key predicate for a URL path, percent-encoded: ``(dataAreaId='usmf',SalesOrderNumber='000891')``."""
    return "(" + ",".join(f"{name}={quote(literal(value), safe=chr(39))}" for name, value in fields.items()) + ")"


def both(*conditions: str) -> str:
    """Join conditions with ``and``; empty ones are left out, those that hold an ``or`` get parentheses."""
    kept = [condition for condition in conditions if condition]
    return " and ".join(f"({each})" if " or " in each and len(kept) > 1 else each for each in kept)


def any_of(field: str, values: Iterable[Scalar | EnumLiteral]) -> str:
    """Write ``field eq a or field eq b``: F&O has no ``in`` operator."""
    return " or ".join(f"{field} eq {literal(value)}" for value in values)


# --- the tree of a $filter -------------------------------------------------------------------------------


@attrs.frozen
class Field:
    """A property, or a path to one (``customerid_account/name``)."""

    name: str


@attrs.frozen
class Const:
    """A literal."""

    value: Scalar | EnumLiteral


@attrs.frozen
class Call:
    """A function of values: ``contains(name,'x')``."""

    function: str
    args: tuple[Operand, ...]


@attrs.frozen
class Binary:
    """Two operands and an operator: ``eq ne gt ge lt le``, ``add sub mul div divby mod``, ``and or``."""

    operator: str
    left: Operand
    right: Operand


@attrs.frozen
class Not:
    """The opposite of a condition."""

    inner: Operand


Operand = Field | Const | Call | Binary | Not
"""Any node of a parsed ``$filter``."""


@attrs.frozen
class Dialect:
    """What one system understands. *wildcards*: ``*`` in an equality matches anything (F&O). *ignore_case*: text
    compares without regard to case, as the database's collation does. *functions* are the text functions it has.
    """

    wildcards: bool = False
    ignore_case: bool = True
    functions: frozenset[str] = frozenset()


FNO: Final = Dialect(wildcards=True)
"""F&O: wildcard equality, no functions (fno.md section 3)."""
DATAVERSE: Final = Dialect(functions=frozenset({"contains", "startswith", "endswith"}))
"""Dataverse: three text functions, no wildcards."""

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<enum>[A-Za-z_][\w.]*\.[A-Za-z_]\w*'(?:[^']|'')*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<guid>[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?![\w-]))
    | (?P<when>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?)
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<name>[A-Za-z_@][\w.]*(?:/[A-Za-z_]\w*)*)
    | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)
_LEVELS: Final = (
    ("or",),
    ("and",),
    ("eq", "ne", "gt", "ge", "lt", "le"),
    ("add", "sub"),
    ("mul", "div", "divby", "mod"),
)
_WORDS: Final = frozenset(word for level in _LEVELS for word in level) | {"not", "in", "has"}
_DEEPEST: Final = 100


@attrs.frozen
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise BadQuery(f"syntax error: {text[at : at + 20]!r} is not understood", at)
        found.append(_Token(match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
        at = match.end()
    return found


def moment(text: str) -> datetime:
    """Read an OData date-time (any number of second decimals) or a date (midnight UTC); raises `ValueError`."""
    trimmed = re.sub(r"(\.\d{6})\d+", r"\1", text)
    read = datetime.fromisoformat(trimmed)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def _constant(token: _Token) -> Const:
    text = token.text
    if token.kind == "string":
        return Const(text[1:-1].replace("''", "'"))
    if token.kind == "guid":
        return Const(text.lower())
    if token.kind == "number":
        return Const(Decimal(text))
    if token.kind == "enum":
        name, _, member = text.partition("'")
        return Const(EnumLiteral(name, member[:-1]))
    try:
        return Const(moment(text))
    except ValueError:
        raise BadQuery(f"{text!r} is no date", token.at) from None


@attrs.define
class _Reader:
    tokens: list[_Token]
    at: int = 0
    depth: int = 0

    def peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, text: str) -> bool:
        token = self.peek()
        if token is None or token.kind not in ("name", "mark") or token.text != text:
            return False
        self.at += 1
        return True

    def need(self, text: str) -> None:
        if not self.take(text):
            token = self.peek()
            raise BadQuery(f"syntax error: {text!r} is missing", token.at if token else -1)

    def binary(self, level: int = 0) -> Operand:
        if level == len(_LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while True:
            token = self.peek()
            if token is None or token.kind != "name" or token.text not in _LEVELS[level]:
                if token is not None and token.kind == "name" and token.text in ("in", "has"):
                    raise BadQuery(f"the operator {token.text!r} is not supported", token.at)
                return left
            self.at += 1
            left = Binary(token.text, left, self.binary(level + 1))

    def unary(self) -> Operand:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise BadQuery("the expression is nested too deeply", self.at)
        try:
            return Not(self.unary()) if self.take("not") else self.primary()
        finally:
            self.depth -= 1

    def primary(self) -> Operand:
        token = self.peek()
        if token is None:
            raise BadQuery("syntax error: the expression ends too early", -1)
        if self.take("("):
            inner = self.binary()
            self.need(")")
            return inner
        self.at += 1
        if token.kind == "mark" or token.text in _WORDS:
            raise BadQuery(f"syntax error: {token.text!r} is not expected", token.at)
        if token.kind != "name":
            return _constant(token)
        if token.text in ("true", "false", "null"):
            return Const({"true": True, "false": False, "null": None}[token.text])
        if not self.take("("):
            return Field(token.text)
        args: list[Operand] = []
        while not self.take(")"):
            if args:
                self.need(",")
            args.append(self.binary())
        return Call(token.text, tuple(args))


def parse_filter(text: str) -> Operand:
    """Read a ``$filter``; raises `BadQuery`, also for ``in`` and ``has``, which neither system documents."""
    reader = _Reader(_tokens(text))
    tree = reader.binary()
    rest = reader.peek()
    if rest is not None:
        raise BadQuery(f"syntax error: {rest.text!r} is not expected", rest.at)
    return tree


def fields_of(tree: Operand) -> frozenset[str]:
    """Return the property names an expression mentions."""
    match tree:
        case Field(name):
            return frozenset({name})
        case Binary(_, left, right):
            return fields_of(left) | fields_of(right)
        case Not(inner):
            return fields_of(inner)
        case Call(_, args):
            return frozenset().union(*map(fields_of, args))
    return frozenset()


def possible(tree: Operand | None, field: str) -> frozenset[str] | None:
    """Return the texts *field* must be one of for *tree* to hold, in lower case; ``None``: it may be anything.

    Twins use it to look rows up instead of scanning. Wildcards count as anything.
    """
    match tree:
        case Binary("eq", Field(name), Const(str() as value)) if name == field and "*" not in value:
            return frozenset({value.lower()})
        case Binary("and", left, right):
            one, other = possible(left, field), possible(right, field)
            if one is None or other is None:
                return other if one is None else one
            return one & other
        case Binary("or", left, right):
            one, other = possible(left, field), possible(right, field)
            return None if one is None or other is None else one | other
    return None


# --- evaluating ------------------------------------------------------------------------------------------

Predicate = Callable[[Row], bool]

_ORDER: Final[Mapping[str, Callable[[int], bool]]] = {
    "eq": lambda sign: sign == 0,
    "ne": lambda sign: sign != 0,
    "gt": lambda sign: sign > 0,
    "ge": lambda sign: sign >= 0,
    "lt": lambda sign: sign < 0,
    "le": lambda sign: sign <= 0,
}
_ARITHMETIC: Final[Mapping[str, Callable[[Decimal, Decimal], Decimal]]] = {
    "add": lambda one, other: one + other,
    "sub": lambda one, other: one - other,
    "mul": lambda one, other: one * other,
    "div": lambda one, other: one / other,
    "divby": lambda one, other: one / other,
    "mod": lambda one, other: one % other,
}
_TEXT: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "contains": lambda text, part: part in text,
    "startswith": lambda text, part: text.startswith(part),
    "endswith": lambda text, part: text.endswith(part),
}


def _value(row: Row, name: str) -> Any:
    found: Any = row
    for part in name.split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return Decimal(repr(found)) if isinstance(found, float) else found


def _sign(one: Any, other: Any, dialect: Dialect) -> int | None:
    """Compare two values: -1, 0, 1; ``None`` when one of them is null or they can't be ordered."""
    if isinstance(other, EnumLiteral):
        other = other.member
    if isinstance(one, datetime) and isinstance(other, str):
        one, other = other, one
        flipped = _sign(one, other, dialect)
        return None if flipped is None else -flipped
    if one is None or other is None:
        return 0 if one is other else None
    if isinstance(other, datetime) and isinstance(one, str):
        try:
            one = moment(one)
        except ValueError:
            raise BadQuery(f"{one!r} is no date-time and can't be compared with one") from None
    if isinstance(one, str) and isinstance(other, str) and dialect.ignore_case:
        one, other = one.lower(), other.lower()
    numbers = (int, Decimal)
    alike = type(one) is type(other) or (
        isinstance(one, numbers)
        and isinstance(other, numbers)
        and not isinstance(one, bool)
        and not isinstance(other, bool)
    )
    if not alike:
        raise BadQuery(f"a binary operator with incompatible types: {type(one).__name__} and {type(other).__name__}")
    return int(one > other) - int(one < other)


def _wildcard(pattern: str, dialect: Dialect) -> re.Pattern[str]:
    flags = re.IGNORECASE | re.DOTALL if dialect.ignore_case else re.DOTALL
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), flags)


def _operand(tree: Operand, dialect: Dialect) -> Callable[[Row], Any]:
    match tree:
        case Field(name):
            if "/" in name:
                return lambda row: _value(row, name)
            # The common case on the hot path of a scan.
            return lambda row: Decimal(repr(found)) if isinstance(found := row.get(name), float) else found
        case Const(value):
            return lambda _: value
        case Binary(operator, left, right) if operator in _ARITHMETIC:
            one, other, work = _operand(left, dialect), _operand(right, dialect), _ARITHMETIC[operator]
            return lambda row: work(Decimal(one(row)), Decimal(other(row)))
    return compile_filter(tree, dialect)


def compile_filter(tree: Operand, dialect: Dialect) -> Predicate:
    """Turn a parsed ``$filter`` into a predicate over rows; raises `BadQuery` for what *dialect* does not have."""
    choices = _choices(tree)
    if (
        choices is not None
        and dialect.ignore_case
        and not (dialect.wildcards and any("*" in each for each in choices[1]))
    ):
        return _one_of(*choices)
    match tree:
        case Binary("and", left, right):
            one, other = compile_filter(left, dialect), compile_filter(right, dialect)
            return lambda row: one(row) and other(row)
        case Binary("or", left, right):
            one, other = compile_filter(left, dialect), compile_filter(right, dialect)
            return lambda row: one(row) or other(row)
        case Not(inner):
            wanted = compile_filter(inner, dialect)
            return lambda row: not wanted(row)
        case Binary(operator, _, Const(EnumLiteral())) if operator not in ("eq", "ne"):
            raise BadQuery(f"an enum can be compared with eq and ne only, not {operator}")
        case Binary("eq" | "ne" as operator, left, Const(str() as pattern)) if dialect.wildcards and "*" in pattern:
            text, like, same = _operand(left, dialect), _wildcard(pattern, dialect), operator == "eq"
            return lambda row: (like.fullmatch(str(text(row) or "")) is not None) is same
        case Binary(operator, left, right) if operator in _ORDER:
            return _comparison(operator, _operand(left, dialect), _operand(right, dialect), dialect)
        case Call(function, args):
            return _call(function, args, dialect)
        case Field(name):
            return lambda row: _yes(name, _value(row, name))
        case Const(bool() as value):
            return lambda _: value
    raise BadQuery("the expression is no condition")


def _yes(name: str, value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise BadQuery(f"{name!r} is no condition")
    return value is True


def _choices(tree: Operand) -> tuple[str, frozenset[str]] | None:
    """Return a property and the texts it may be when *tree* is nothing but ``p eq 'a' or p eq 'b' or …``."""
    match tree:
        case Binary("eq", Field(name), Const(str() as value)) if "/" not in name:
            return name, frozenset({value.lower()})
        case Binary("or", left, right):
            one, other = _choices(left), _choices(right)
            if one is not None and other is not None and one[0] == other[0]:
                return one[0], one[1] | other[1]
    return None


def _one_of(name: str, choices: frozenset[str]) -> Predicate:
    """Test many alternatives at once: bulk reads name dozens."""

    def holds(row: Row) -> bool:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise BadQuery(f"a binary operator with incompatible types: {type(value).__name__} and str")
        return value is not None and value.lower() in choices

    return holds


def _comparison(operator: str, one: Callable[[Row], Any], other: Callable[[Row], Any], dialect: Dialect) -> Predicate:
    holds = _ORDER[operator]

    def compare(row: Row) -> bool:
        sign = _sign(one(row), other(row), dialect)
        return operator == "ne" if sign is None else holds(sign)

    return compare


def _call(function: str, args: tuple[Operand, ...], dialect: Dialect) -> Predicate:
    if function not in dialect.functions or function not in _TEXT:
        raise BadQuery(f"the function {function!r} is not supported")
    if len(args) != 2:
        raise BadQuery(f"{function} needs two arguments")
    text, part, test = _operand(args[0], dialect), _operand(args[1], dialect), _TEXT[function]

    def holds(row: Row) -> bool:
        one, other = str(text(row) or ""), str(part(row) or "")
        return test(one.lower(), other.lower()) if dialect.ignore_case else test(one, other)

    return holds


# --- a whole query ---------------------------------------------------------------------------------------


@attrs.frozen
class Query:
    """The query options of one request. *order* pairs a property with whether it descends."""

    where: Operand | None = None
    select: tuple[str, ...] = ()
    order: tuple[tuple[str, bool], ...] = ()
    top: int | None = None
    skip: int = 0
    count: bool = False
    expand: tuple[str, ...] = ()


def parse_query(params: Iterable[tuple[str, str]]) -> Query:
    """Read the query options; options without ``$`` are left to the system; raises `BadQuery`."""
    options = dict(params)
    return Query(
        where=parse_filter(options["$filter"]) if options.get("$filter") else None,
        select=_names(options.get("$select", "")),
        order=tuple(map(_direction, _names(options.get("$orderby", "")))),
        top=_whole("$top", options["$top"]) if "$top" in options else None,
        skip=_whole("$skip", options.get("$skip", "0")),
        count=options.get("$count", "false").lower() == "true",
        expand=_names(options.get("$expand", "")),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip() and name.strip() != "*")


def _direction(text: str) -> tuple[str, bool]:
    name, _, way = text.partition(" ")
    if way.strip() not in ("", "asc", "desc"):
        raise BadQuery(f"$orderby: {text!r} is not understood")
    return name, way.strip() == "desc"


def _whole(option: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise BadQuery(f"{option} needs a whole number, not {text!r}")
    return int(text)


def check_fields(query: Query, known: Collection[str]) -> None:
    """Raise `BadQuery` when the query names a property that is not in *known* (paths go by their first part)."""
    named = [*query.select, *(name for name, _ in query.order), *sorted(fields_of(query.where) if query.where else ())]
    for name in named:
        if name.split("/")[0] not in known:
            raise BadQuery(f"could not find a property named {name!r}")


def arrange(rows: Sequence[Row], order: Sequence[tuple[str, bool]], dialect: Dialect) -> list[Row]:
    """Sort rows by ``$orderby``; nulls come first, equals keep their place."""

    def compare(one: Row, other: Row) -> int:
        for name, descending in order:
            left, right = _value(one, name), _value(other, name)
            if left is None or right is None:
                sign = (left is not None) - (right is not None)
            else:
                sign = _sign(left, right, dialect) or 0
            if sign:
                return -sign if descending else sign
        return 0

    return sorted(rows, key=cmp_to_key(compare)) if order else list(rows)


def run_query(query: Query, rows: Iterable[Row], dialect: Dialect) -> tuple[list[Row], int]:
    """Filter and sort *rows*, then skip and take; returns them whole, with the number before skipping and taking."""
    if query.where is not None:
        wanted = compile_filter(query.where, dialect)
        rows = [row for row in rows if wanted(row)]
    found = arrange(list(rows), query.order, dialect)
    end = None if query.top is None else query.skip + query.top
    return found[query.skip : end], len(found)


def project(row: Row, select: Collection[str], always: Collection[str] = ()) -> dict[str, Any]:
    """Keep the selected properties, and *always* and annotations (``@odata.etag``) besides; nothing selected: all."""
    if not select:
        return dict(row)
    return {name: value for name, value in row.items() if name in select or name in always or name.startswith("@")}


# --- resource paths --------------------------------------------------------------------------------------

_PATH: Final = re.compile(r"(?P<set>[A-Za-z_]\w*)(?:\((?P<key>.*)\))?(?P<rest>(?:/[^()]*)?)\Z", re.DOTALL)


@attrs.frozen
class Resource:
    """A path behind the service root. *key* is empty for a collection; a single unnamed key has the name ``""``."""

    set: str
    key: Mapping[str, Scalar | EnumLiteral]
    keyed: bool = False
    rest: str = ""


def parse_resource(path: str) -> Resource:
    """Read ``Set``, ``Set(key)`` or ``Set(key)/rest`` from a path whose percent-encoding is undone."""
    match = _PATH.match(path.strip("/"))
    if match is None:
        raise BadQuery(f"the path {path!r} is not understood")
    key = match.group("key")
    return Resource(match.group("set"), parse_key(key) if key else {}, key is not None, match.group("rest").strip("/"))


def parse_key(text: str) -> dict[str, Scalar | EnumLiteral]:
    """Read the inside of a key predicate: ``a='x',b=1`` in any order, or one bare value under the name ``""``."""
    found: dict[str, Scalar | EnumLiteral] = {}
    at = 0
    while at < len(text):
        named = re.compile(r"\s*([A-Za-z_]\w*)\s*=").match(text, at)
        name, start = (named.group(1), named.end()) if named else ("", at)
        token = _TOKEN.match(text, start)
        if token is None or token.lastgroup in (None, "mark", "name") or name in found:
            raise BadQuery(f"the key {text!r} is not understood", at)
        found[name] = _constant(_Token(str(token.lastgroup), token.group(str(token.lastgroup)), start)).value
        at = token.end()
        comma = re.compile(r"\s*,\s*(?=\S)").match(text, at)
        if comma is None and text[at:].strip():
            raise BadQuery(f"the key {text!r} is not understood", at)
        at = comma.end() if comma else len(text)
    return found
