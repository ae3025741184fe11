"""Every name of the Flexe protocol that nobody has verified, as data: replace this map, and nothing else.

Flexe's API reference is not public. Documented are an API token, an *outbound order* that can be read by its id, one
order with lines per fulfillment order, and that a webhook exists; everything in `FlexeProtocol` beyond that is for the
holder of the reference to fill in. No network here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_origin
from urllib.parse import quote, unquote

import attrs
import cattrs
from cattrs import ForbiddenExtraKeysError, transform_error

from iom_core.errors import Misconfigured

Json = Any
"""A decoded JSON value; numbers with a fraction are `Decimal`."""

PLACES: Final[Mapping[str, frozenset[str]]] = {
    "create": frozenset(),
    "read": frozenset({"number"}),
    "find": frozenset({"reference"}),
    "cancel": frozenset({"number"}),
    "listing": frozenset({"since", "page"}),
}
"""What the templates of each call may name: ``{number}`` is Flexe's id of an outbound order, ``{reference}`` ours."""

_NAMED: Final = re.compile(r"\{([^{}]*)\}")


class Meaning(StrEnum):
    """What a status of an outbound order, or of a shipment, means to us."""

    OPEN = "open"
    """Taken and under way; nothing to tell."""
    PICKED = "picked"
    """All of it is picked."""
    PACKED = "packed"
    """All of it is packed."""
    PARTIALLY_SHIPPED = "partially shipped"
    """The shipments listed have left, more will follow."""
    SHIPPED = "shipped"
    """All of it has left."""
    CANCELED = "canceled"
    """What has not left will not."""


class ErrorMeaning(StrEnum):
    """What an error code in a 4xx answer means to us."""

    REFUSED = "refused"
    """A business no; also what an unknown code of a 4xx answer means."""
    DUPLICATE = "duplicate"
    """There is an order of this reference already."""
    UNAVAILABLE = "unavailable"
    """Not now: try again."""
    MISCONFIGURED = "misconfigured"
    """Our account or set-up is wrong: a person must mend it."""


class Notice(StrEnum):
    """What a webhook event is good for."""

    ORDER = "order"
    """It names an outbound order that is worth reading."""
    IGNORED = "ignored"
    """It has nothing to do with outbound orders."""


def _is_path(instance: object, field: attrs.Attribute[str], value: str) -> None:
    if value and any(not part for part in value.split(".")):
        raise ValueError(f"$.{field.name}: a path is names with dots between, not {value!r}")


def _is_needed_path(instance: object, field: attrs.Attribute[str], value: str) -> None:
    if not value:
        raise ValueError(f"$.{field.name}: a path is needed")
    _is_path(instance, field, value)


def _path(default: str | None = None) -> Any:
    """A path into a JSON object, ``"address.city"``; without *default* it must not be blank."""
    if default is None:
        return attrs.field(validator=_is_needed_path)
    return attrs.field(default=default, validator=_is_path)


def _is_template(instance: object, field: attrs.Attribute[str], value: str) -> None:
    if not value.startswith("/") or "?" in value or "#" in value:
        raise ValueError("$.path: a path begins with / and has no query (that goes to $.query)")


@attrs.frozen(kw_only=True)
class Call:
    """One HTTP call: *path* and the values of *query* may hold places such as ``{number}`` (see `PLACES`)."""

    method: str = attrs.field(validator=attrs.validators.in_(("GET", "POST", "PUT", "PATCH", "DELETE")))
    path: str = attrs.field(validator=_is_template)
    query: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def places(self) -> frozenset[str]:
        """Return the places the templates name."""
        return frozenset(name for text in (self.path, *self.query.values()) for name in _NAMED.findall(text))

    def fill(self, values: Mapping[str, str | None]) -> tuple[str, dict[str, str]]:
        """Return path and query with *values* in their places; a query entry whose value is ``None`` is left out.

        Raises `ValueError` for a value that would change the path itself.
        """
        for name in _NAMED.findall(self.path):
            if (values.get(name) or "") in ("", ".", ".."):
                raise ValueError(f"{values.get(name)!r} can't stand in a path")
        path = _NAMED.sub(lambda found: quote(str(values[found[1]]), safe=""), self.path)
        query = {
            name: _NAMED.sub(lambda found: str(values[found[1]]), text)
            for name, text in self.query.items()
            if all(values.get(each) is not None for each in _NAMED.findall(text))
        }
        return path, query

    def match(self, method: str, path: str, query: Mapping[str, str]) -> dict[str, str] | None:
        """Return what stands in the places of a request (its path as sent), or ``None`` when it isn't this call.

        Query entries with a place may be absent, fixed ones must be there: the reverse of `fill`.
        """
        places = _matched(self.path, path, "[^/]+")
        if method != self.method or places is None:
            return None
        found = {name: unquote(value) for name, value in places.items()}
        for name, template in self.query.items():
            if name not in query and _NAMED.search(template):
                continue
            matched = _matched(template, query.get(name, "\0"), ".*")
            if matched is None:
                return None
            found |= matched
        return found


def _matched(template: str, text: str, anything: str) -> dict[str, str] | None:
    parts = enumerate(_NAMED.split(template))
    pattern = "".join(f"(?P<{part}>{anything})" if index % 2 else re.escape(part) for index, part in parts)
    matched = re.fullmatch(pattern, text, re.DOTALL)
    return None if matched is None else matched.groupdict()


@attrs.frozen(kw_only=True)
class Find(Call):
    """Looks outbound orders up by our reference. *items*: where they are in the answer (``""``: it is the list)."""

    items: str = _path("")


@attrs.frozen(kw_only=True)
class Listing(Call):
    """Lists outbound orders, those changed since ``{since}`` if it can, page by page.

    *next_page* is where the answer holds what to send as ``{page}`` next (absent or ``null``: that was the last);
    ``""``: pages are counted from *first_page* until one is empty. Without ``{page}`` there is one page.
    """

    items: str = _path("")
    next_page: str = _path("")
    first_page: str = "1"


@attrs.frozen(kw_only=True)
class RequestFields:
    """Where the parts of our request go in the JSON that creates an outbound order; ``""``: it is not sent.

    *lines* is the array; the ``line_`` paths are within one of its objects. *constants* are further fields with fixed
    values, by path: what an account or a warehouse needs.
    """

    reference: str = _path()
    """Our fulfillment order id."""
    lines: str = _path()
    line_reference: str = _path("")
    """Our line id."""
    line_sku: str = _path()
    line_quantity: str = _path()
    line_unit: str = _path("")
    line_name: str = _path("")
    sales_order: str = _path("")
    placed_at: str = _path("")
    requested_ship_date: str = _path("")
    warehouse: str = _path("")
    name: str = _path("")
    company: str = _path("")
    street: str = _path("")
    street2: str = _path("")
    city: str = _path("")
    state: str = _path("")
    postal_code: str = _path("")
    country: str = _path("")
    phone: str = _path("")
    email: str = _path("")
    constants: Mapping[str, Json] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class OrderFields:
    """Where an answer holds what we need to know of an outbound order; ``""``: it does not.

    *order* is the path to the order's object in the answers to create and read (``""``: the answer itself); all other
    paths are within it, the ``line_``, ``shipment_`` and ``shipment_line_`` ones within one object of their array.
    """

    order: str = _path("")
    number: str = _path()
    """Flexe's id of the outbound order."""
    reference: str = _path()
    status: str = _path()
    warehouse: str = _path("")
    lines: str = _path()
    line_reference: str = _path("")
    line_sku: str = _path("")
    line_quantity: str = _path("")
    shipments: str = _path()
    shipment_id: str = _path()
    shipment_status: str = _path("")
    """With it each shipment tells for itself whether it has left; without, the order's status does."""
    shipped_at: str = _path("")
    tracking_number: str = _path("")
    tracking_url: str = _path("")
    carrier: str = _path("")
    service: str = _path("")
    shipment_lines: str = _path()
    shipment_line_reference: str = _path("")
    shipment_line_sku: str = _path("")
    shipment_line_quantity: str = _path()


@attrs.frozen(kw_only=True)
class ErrorFields:
    """Where a 4xx answer says why: its *code* and its *message* (``""``: nowhere)."""

    code: str = _path("")
    message: str = _path("")


@attrs.frozen(kw_only=True)
class WebhookFields:
    """Where a webhook names its event and the outbound order, and which *events* there are."""

    event: str = _path()
    number: str = _path()
    events: Mapping[str, Notice] = attrs.field(factory=dict)
    """An event that isn't in here is read like an order's: a webhook is only a hint."""


def _formats(instance: object, field: attrs.Attribute[str], value: str) -> None:
    if value not in ("iso8601", "epoch seconds", "epoch milliseconds") and "%" not in value:
        raise ValueError(f"$.{field.name}: 'iso8601', 'epoch seconds', 'epoch milliseconds' or a strptime format")


@attrs.frozen(kw_only=True)
class FlexeProtocol:
    """How Flexe is spoken to: every path, header, field, status, event and error code, as data.

    *verified* says that a person has compared all of it with Flexe's own reference, named in *source*; it changes
    nothing but what is shown. Optional calls are abilities: without *find* a lost answer stays in doubt until a person
    settles it, without *cancel* every cancellation is refused, without *listing* only orders known to be open are read.
    *partial_shipments*: an order may leave in several shipments. *auth_header* and *auth_scheme* say where the token
    goes (``"Authorization"``, ``"Bearer"``); both may be given with the settings instead. *errors* are by code, or
    by ``"http 409"`` for any other answer of that status. Raises `ValueError`, with a path, for a map that can't work.
    """

    name: str = attrs.field(validator=attrs.validators.min_len(1))
    verified: bool = False
    source: str = ""
    auth_header: str = ""
    auth_scheme: str = ""
    create: Call
    read: Call
    find: Find | None = None
    cancel: Call | None = None
    listing: Listing | None = None
    request: RequestFields
    answer: OrderFields
    statuses: Mapping[str, Meaning] = attrs.field()
    shipment_statuses: Mapping[str, Meaning] = attrs.field(factory=dict)
    error: ErrorFields = ErrorFields()
    errors: Mapping[str, ErrorMeaning] = attrs.field(factory=dict)
    webhook: WebhookFields | None = None
    partial_shipments: bool = False
    date_format: str = attrs.field(default="iso8601", validator=_formats)
    quantities_as_text: bool = False

    def __attrs_post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(problem)

    def _problems(self) -> Iterable[str]:
        for name, known in PLACES.items():
            call: Call | None = getattr(self, name)
            if call is None:
                continue
            if call.places - known:
                yield f"$.{name}: there is no place {{{min(call.places - known)}}} here"
            needed = known if name != "listing" else frozenset[str]()
            if needed - call.places:
                yield f"$.{name}: the place {{{min(needed)}}} is missing"
        if not set(self.statuses.values()) & {Meaning.SHIPPED, Meaning.PARTIALLY_SHIPPED}:
            yield "$.statuses: no status means that something was shipped"
        try:
            json.dumps(dict(self.request.constants), allow_nan=False)
        except (TypeError, ValueError):
            yield "$.request.constants: only what JSON knows can be sent"
        answer = self.answer
        if answer.shipment_status and Meaning.SHIPPED not in self.shipment_statuses.values():
            yield "$.shipment_statuses: no status means that a shipment has left"
        if not (answer.line_reference and self.request.line_reference):
            yield "$.answer.line_reference and $.request.line_reference: the lines of an order must be told apart"
        if not (answer.shipment_line_reference or answer.shipment_line_sku):
            yield "$.answer: a shipment's line needs shipment_line_reference or shipment_line_sku"
        if not answer.shipment_line_reference and not (answer.line_sku and answer.line_quantity):
            yield "$.answer: shipments by SKU need line_sku and line_quantity"

    @property
    def mark(self) -> str:
        """Return ``"UNVERIFIED protocol 'name'"`` or ``"protocol 'name'"``, for people to see."""
        return f"{'' if self.verified else 'UNVERIFIED '}protocol {self.name!r}"

    @classmethod
    def load(cls, path: Path | str) -> FlexeProtocol:
        """Read a protocol from a JSON or (``.toml``) TOML file.

        Raises `Misconfigured` with the file's name and the path to the first thing wrong: unknown names, missing ones,
        wrong types, unknown meanings.
        """
        file = Path(path)
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as broken:
            raise Misconfigured("flexe", f"{file.name} can't be read ({type(broken).__name__})") from broken
        try:
            data = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        except (ValueError, RecursionError) as broken:
            raise Misconfigured("flexe", f"{file.name} is not {file.suffix or 'JSON'}: {broken}") from broken
        return cls.of(data, file.name)

    @classmethod
    def of(cls, data: Json, origin: str = "the protocol") -> FlexeProtocol:
        """Build a protocol from plain data, as `load` does; *origin* is named in errors."""
        try:
            return _converter.structure(data, cls)
        except Exception as broken:  # noqa: BLE001 - whatever shape the data has, cattrs says where it broke
            raise Misconfigured("flexe", f"{origin}: {_first(broken)}") from None

    def plain(self) -> dict[str, Json]:
        """Return the protocol as plain data, the reverse of `of`."""
        plain: dict[str, Json] = _converter.unstructure(self)
        return {name: value for name, value in plain.items() if value is not None}

    def to_json(self) -> str:
        """Return the protocol as a JSON file to edit, the reverse of `load`."""
        return json.dumps(self.plain(), indent=2, ensure_ascii=False) + "\n"


def _exactly(kind: type) -> Any:
    def check(value: object, _: object) -> object:
        if type(value) is not kind:
            raise ValueError(f"{kind.__name__} is needed, not {type(value).__name__}")
        return value

    return check


def _member(value: object, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(str(value))
    except ValueError:
        known = ", ".join(kind)
        raise ValueError(f"{value!r} is none of: {known}") from None


def _is_mapping(kind: object) -> bool:
    return get_origin(kind) is Mapping


def _mapping(value: object, kind: Any) -> Json:
    if not isinstance(value, Mapping):
        raise ValueError(f"an object is needed, not {type(value).__name__}")
    return _plain_converter.structure(value, kind)


def _new_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(str, _exactly(str))
    converter.register_structure_hook(bool, _exactly(bool))
    for kind in (Meaning, ErrorMeaning, Notice):
        converter.register_structure_hook(kind, _member)
    return converter


_converter: Final = _new_converter()
_plain_converter: Final = _new_converter()
_converter.register_structure_hook_func(_is_mapping, _mapping)


def _said(broken: BaseException, _: object) -> str:
    if isinstance(broken, KeyError):
        return "this name is needed"
    if isinstance(broken, ForbiddenExtraKeysError):
        return f"there is no such name here: {', '.join(sorted(broken.extra_fields))}"
    return str(broken.args[0]) if isinstance(broken, ValueError) else "an object is needed"


def _first(broken: Exception) -> str:
    """Return the first complaint with its path: ``$.read.path: this name is needed``."""
    said = transform_error(broken, format_exception=_said)[0]
    what, _, where = said.rpartition(" @ ")
    inner = what.removeprefix("$")
    return f"{where}{inner}" if what.startswith("$") else f"{where}: {what}"


def value_at(value: Json, path: str) -> Json:
    """Return what stands at *path* (``"a.b"``; ``""``: *value* itself), ``None`` where there is nothing."""
    for name in path.split(".") if path else ():
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def put_at(target: dict[str, Json], path: str, value: Json) -> None:
    """Set *value* at *path* of *target*, making the objects on the way; a blank *path* changes nothing."""
    *parents, last = path.split(".")
    for name in parents:
        target = target.setdefault(name, {})
    if last:
        target[last] = value


def write_time(moment: datetime, style: str) -> Json:
    """Write a time in UTC the way *style* (`FlexeProtocol.date_format`) says."""
    moment = moment.astimezone(UTC)
    if style == "iso8601":
        return f"{moment:%Y-%m-%dT%H:%M:%S}Z"
    if style.startswith("epoch"):
        return int(moment.timestamp()) * (1000 if style.endswith("milliseconds") else 1)
    return moment.strftime(style)


def read_time(value: Json, style: str) -> datetime:
    """Read a time as *style* says; one without an offset counts as UTC. Raises `ValueError`."""
    try:
        if style.startswith("epoch"):
            if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
                raise ValueError
            return datetime.fromtimestamp(float(value) / (1000 if style.endswith("milliseconds") else 1), UTC)
        if not isinstance(value, str):
            raise ValueError
        moment = datetime.fromisoformat(value) if style == "iso8601" else datetime.strptime(value, style)  # noqa: DTZ007 - what has no offset gets one below
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"no time in the form {style}") from None


PLACEHOLDER: Final = FlexeProtocol(
    name="placeholder",
    source="none: these names are invented so that adapter and twin can be tried; Flexe does not know them",
    create=Call(method="POST", path="/placeholder/outbound-orders"),
    read=Call(method="GET", path="/placeholder/outbound-orders/{number}"),
    find=Find(
        method="GET",
        path="/placeholder/outbound-orders",
        query={"placeholder_reference": "{reference}"},
        items="placeholder_items",
    ),
    request=RequestFields(
        reference="placeholder_reference",
        sales_order="placeholder_sales_order",
        requested_ship_date="placeholder_ship_by",
        warehouse="placeholder_warehouse",
        name="placeholder_ship_to.name",
        company="placeholder_ship_to.company",
        street="placeholder_ship_to.street",
        street2="placeholder_ship_to.street2",
        city="placeholder_ship_to.city",
        state="placeholder_ship_to.state",
        postal_code="placeholder_ship_to.postal_code",
        country="placeholder_ship_to.country",
        phone="placeholder_ship_to.phone",
        email="placeholder_ship_to.email",
        lines="placeholder_lines",
        line_reference="placeholder_line_reference",
        line_sku="placeholder_sku",
        line_quantity="placeholder_quantity",
        line_unit="placeholder_unit",
        line_name="placeholder_description",
    ),
    answer=OrderFields(
        number="placeholder_id",
        reference="placeholder_reference",
        status="placeholder_status",
        warehouse="placeholder_warehouse",
        lines="placeholder_lines",
        line_reference="placeholder_line_reference",
        line_sku="placeholder_sku",
        line_quantity="placeholder_quantity",
        shipments="placeholder_shipments",
        shipment_id="placeholder_shipment_id",
        shipped_at="placeholder_shipped_at",
        tracking_number="placeholder_tracking.number",
        tracking_url="placeholder_tracking.url",
        carrier="placeholder_tracking.carrier",
        service="placeholder_tracking.service",
        shipment_lines="placeholder_contents",
        shipment_line_reference="placeholder_line_reference",
        shipment_line_sku="placeholder_sku",
        shipment_line_quantity="placeholder_quantity",
    ),
    statuses={
        "placeholder: taken": Meaning.OPEN,
        "placeholder: picked": Meaning.PICKED,
        "placeholder: packed": Meaning.PACKED,
        "placeholder: partly shipped": Meaning.PARTIALLY_SHIPPED,
        "placeholder: shipped": Meaning.SHIPPED,
        "placeholder: canceled": Meaning.CANCELED,
    },
    error=ErrorFields(code="placeholder_error.code", message="placeholder_error.message"),
    errors={"placeholder: duplicate": ErrorMeaning.DUPLICATE, "placeholder: busy": ErrorMeaning.UNAVAILABLE},
    webhook=WebhookFields(
        event="placeholder_event",
        number="placeholder_order.placeholder_id",
        events={"placeholder: order changed": Notice.ORDER, "placeholder: stock changed": Notice.IGNORED},
    ),
    partial_shipments=True,
)
"""Invented names, marked as such in every one of them: they let the adapter and its twin run, never the real Flexe."""
