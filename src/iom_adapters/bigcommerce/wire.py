"""BigCommerce's words on one side, ours on the other: reading orders and webhooks, writing shipments; no I/O.

Amounts arrive as text with up to four decimals (``"361.9500"``) in the transactional currency
(``default_currency_code``: what the shopper pays; ``currency_code`` is only what was displayed). Times are RFC 2822 and
always UTC; ``""`` means none. Members nobody here knows are ignored: new ones appear without notice. Source:
BigCommerce Orders V2 and Webhooks V3 reference, April 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import Any, Final
from urllib.parse import quote

import attrs
from cattrs import Converter, transform_error
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn

from iom_core.messages import OrderDraft, OrderLineDraft
from iom_core.order import Shipment, TrackingLine
from iom_core.values import Address, Money, ProductId, Quantity, minor_units

Json = Any
"""A decoded JSON value from outside."""


class Status(IntEnum):
    """Order statuses. The numbers are fixed, and not in the order of the work; merchants only rename labels."""

    INCOMPLETE = 0
    PENDING = 1
    SHIPPED = 2
    PARTIALLY_SHIPPED = 3
    REFUNDED = 4
    CANCELLED = 5
    DECLINED = 6
    AWAITING_PAYMENT = 7
    AWAITING_PICKUP = 8
    AWAITING_SHIPMENT = 9
    COMPLETED = 10
    AWAITING_FULFILLMENT = 11
    MANUAL_VERIFICATION_REQUIRED = 12
    DISPUTED = 13
    PARTIALLY_REFUNDED = 14


PROGRESS: Final[Mapping[int, int]] = {Status.PARTIALLY_SHIPPED: 1, Status.SHIPPED: 2, Status.COMPLETED: 3}
"""How far along an order is; every status that is absent counts as 0. Updates never go back."""

PROVIDERS: Final[Mapping[str, str]] = {
    "auspost": "auspost",
    "australia post": "auspost",
    "canada post": "canadapost",
    "canadapost": "canadapost",
    "endicia": "endicia",
    "usps": "usps",
    "us postal service": "usps",
    "fedex": "fedex",
    "royal mail": "royalmail",
    "royalmail": "royalmail",
    "ups": "ups",
    "upsready": "upsready",
    "upsonline": "upsonline",
    "shipperhq": "shipperhq",
}
"""A carrier's name in lower case to ``shipping_provider``. All others are ``""``: left out, it would be ``custom``."""

TRACKING_NUMBER_MAX: Final = 50
TRACKING_LINK_MAX: Final = 500

_MONEY: Final = re.compile(r"\d{1,15}(\.\d{1,10})?", re.ASCII)
_ID: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)
_MOST_UNITS: Final = 10_000_000
_CONTROLS: Final = {code: " " for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


class Unreadable(Exception):
    """What arrived can't be read; *where* is a path into it (``"$.products[0].quantity"``)."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{what} (at {where})")
        self.where = where
        self.what = what


class Unexplained(Unreadable):
    """The parts of an order do not add up to its total."""


# Reading single values. Each raises `ValueError` with a sentence; the converter adds the path.


def order_number(value: object) -> str:
    """Return a positive id, given as a number or as digits, as text; raises `ValueError` for anything else.

    Nothing else may become part of an address: ``/orders/`` with an empty id means *all orders* to BigCommerce.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"an id is a whole number, not {_shown(value)}")
    text = str(value) if isinstance(value, str) or abs(value) < 10**18 else ""
    if _ID.fullmatch(text) is None:
        raise ValueError(f"an id is a whole number above zero, not {_shown(value)}")
    return text


def instant(text: str) -> datetime | None:
    """Read an RFC 2822 time as UTC; ``""`` is none; raises `ValueError` for nonsense."""
    if text == "":
        return None
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, IndexError, TypeError):
        raise ValueError(f"a time such as 'Wed, 10 Jan 2018 21:05:30 +0000' is needed, not {_shown(text)}") from None


def decimal(value: object) -> Decimal:
    """Read an amount: text or a JSON number, not negative, below 10^15; raises `ValueError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError(f"an amount such as '361.9500' is needed, not {_shown(value)}")
    if isinstance(value, Decimal) and (not value.is_finite() or abs(value.adjusted()) > 20):
        raise ValueError(f"an amount of this size makes no sense: {_shown(value)}")
    if isinstance(value, int) and abs(value) >= 10**15:
        raise ValueError("an amount of this size makes no sense")
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    if _MONEY.fullmatch(text) is None:
        raise ValueError(f"an amount such as '361.9500', not negative, is needed, not {_shown(value)}")
    return Decimal(text)


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of absurd size"
    shown = repr(value) if not isinstance(value, Decimal) else str(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _whole(value: object, _type: object = None) -> int:
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < 18 and value == int(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**18:
        raise ValueError(f"a whole number is needed, not {_shown(value)}")
    return value


def _text(value: object, _type: object = None) -> str:
    """Take text, or a number where the documentation allows both; control characters become spaces."""
    if value is None:
        return ""
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return _shown(value)
    if not isinstance(value, str):
        raise ValueError(f"text is needed, not {_shown(value)}")
    return value.translate(_CONTROLS).encode("utf-8", "replace").decode()


def _yes(value: object, _type: object = None) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is needed, not {_shown(value)}")
    return value


def _moment(value: object, _type: object = None) -> datetime:
    moment = instant(_text(value))
    if moment is None:
        raise ValueError("a time is needed here")
    return moment


# The records: their member names are BigCommerce's own.


@attrs.frozen
class Head:
    """What a list of orders is read for: which order, when it last changed, and where it stands."""

    id: int
    date_modified: datetime
    status_id: int
    is_deleted: bool = False


@attrs.frozen
class BillingAddress:
    """Contact fields; blanks are ``""``. *state* is a name (``"Texas"``)."""

    first_name: str = ""
    last_name: str = ""
    company: str = ""
    street_1: str = ""
    street_2: str = ""
    city: str = ""
    state: str = ""
    zip: str = ""
    country: str = ""
    country_iso2: str = ""
    phone: str = ""
    email: str = ""


@attrs.frozen
class ShippingAddress(BillingAddress):
    """An address of the order; *id* is the ``order_address_id`` that lines and shipments name."""

    id: int = attrs.field(kw_only=True)


@attrs.frozen
class AppliedDiscount:
    """A discount as it was spread over the lines; *target* is ``"order"`` or ``"product"``."""

    amount: Decimal
    target: str = ""


@attrs.frozen
class Product:
    """A line. *id* is the ``order_product_id`` used everywhere else; *product_id* 0 is a custom product."""

    id: int
    quantity: int
    total_inc_tax: Decimal
    product_id: int = 0
    variant_id: int | None = None
    order_address_id: int = 0
    order_pickup_method_id: int = 0
    quantity_shipped: int = 0
    quantity_refunded: int = 0
    parent_order_product_id: int | None = None
    sku: str = ""
    name: str = ""
    type: str = "physical"
    price_inc_tax: Decimal | None = None
    total_tax: Decimal | None = None
    applied_discounts: tuple[AppliedDiscount, ...] = ()


@attrs.frozen
class Coupon:
    """A coupon that was used; *discount* is what it took off."""

    discount: Decimal


@attrs.frozen
class Fee:
    """A fee on the order."""

    cost_inc_tax: Decimal


@attrs.frozen
class Order:
    """An order with what its own endpoints tell about it. Amounts include tax.

    *store_credit_amount* and *gift_certificate_amount* are how it was paid, not what it costs: they take no part in
    adding up. ``refunded_amount`` is documented as always zero and therefore absent here.
    """

    id: int
    status_id: int
    date_created: datetime
    date_modified: datetime
    default_currency_code: str
    total_inc_tax: Decimal
    products: tuple[Product, ...]
    shipping_addresses: tuple[ShippingAddress, ...] = ()
    coupons: tuple[Coupon, ...] = ()
    fees: tuple[Fee, ...] = ()
    billing_address: BillingAddress = attrs.field(factory=BillingAddress)
    shipping_cost_inc_tax: Decimal = Decimal(0)
    handling_cost_inc_tax: Decimal = Decimal(0)
    wrapping_cost_inc_tax: Decimal = Decimal(0)
    discount_amount: Decimal = Decimal(0)
    coupon_discount: Decimal = Decimal(0)
    store_credit_amount: Decimal = Decimal(0)
    gift_certificate_amount: Decimal = Decimal(0)
    customer_id: int = 0
    channel_id: int = 0
    payment_method: str = ""
    customer_message: str = ""
    external_order_id: str = ""


@attrs.frozen
class ShippedItem:
    """How much of a line a shipment holds."""

    order_product_id: int
    quantity: int


@attrs.frozen
class PostedShipment:
    """A shipment as the shop keeps it."""

    id: int
    order_address_id: int
    items: tuple[ShippedItem, ...] = ()
    tracking_number: str = ""
    comments: str = ""


converter: Final = Converter(forbid_extra_keys=False)
converter.register_structure_hook(int, _whole)
converter.register_structure_hook(str, _text)
converter.register_structure_hook(bool, _yes)
converter.register_structure_hook(Decimal, lambda value, _: decimal(value))
converter.register_structure_hook(datetime, _moment)


# Left to itself the library would take any text for an object without members, and an object for a list of its names.


@converter.register_structure_hook_factory(attrs.has)
def _record(record: type[Any], using: Converter) -> Callable[[object, object], Any]:
    read = make_dict_structure_fn(record, using)

    def check(value: object, _type: object) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"an object is needed, not {_shown(value)}")
        return read(value, record)

    return check


@converter.register_structure_hook_factory(lambda kind: getattr(kind, "__origin__", None) is tuple)
def _list(kind: Any, using: Converter) -> Callable[[object, object], Any]:
    read = homogenous_tuple_structure_factory(kind, using)

    def check(value: object, _type: object) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"a list is needed, not {_shown(value)}")
        return read(value, kind)

    return check


def _structure(payload: Json, record: type[Any], path: str = "$") -> Any:
    if not isinstance(payload, Mapping):
        raise Unreadable(path, f"an object is needed, not {_shown(payload)}")
    try:
        return converter.structure(payload, record)
    except BaseValidationError as broken:
        where, what = _first(broken, path)
        raise Unreadable(where, what) from None


def _first(broken: BaseValidationError, path: str) -> tuple[str, str]:
    """Return the first thing that is wrong, as path and sentence."""
    lines = transform_error(broken, path, format_exception=_sentence)
    what, _, where = lines[0].rpartition(" @ ")
    return where, what


def _sentence(broken: BaseException, _type: type | None) -> str:
    if isinstance(broken, KeyError):
        return f"the member {broken.args[0]!r} is missing"
    if isinstance(broken, ValueError):
        return str(broken)
    return "an object or a list of the documented shape is needed"


def head(payload: Json, path: str = "$") -> Head:
    """Read one entry of a list of orders; raises `Unreadable`."""
    found: Head = _structure(payload, Head, path)
    return found


def order(payload: Json) -> Order:
    """Read a whole order; raises `Unreadable`.

    *payload* is the V2 order whose link objects (``products``, ``shipping_addresses``, ``coupons``, ``fees``) have been
    replaced by what the links lead to, so that one path names any value in it.
    """
    found: Order = _structure(payload, Order)
    return found


def product(payload: Json) -> Product:
    """Read one line; raises `Unreadable`."""
    found: Product = _structure(payload, Product)
    return found


def posted_shipments(payload: Json) -> tuple[PostedShipment, ...]:
    """Read a page of shipments; raises `Unreadable`."""
    if not isinstance(payload, list):
        raise Unreadable("$", f"a list is needed, not {_shown(payload)}")
    return tuple(_structure(each, PostedShipment, f"$[{index}]") for index, each in enumerate(payload))


# From an order to a draft.


def to_draft(source: Order, *, ship_without_address: bool = False) -> OrderDraft:
    """Say *source* in our words; raises `Unreadable`, and `Unexplained` when its parts do not add up.

    * A line without an address (``order_address_id`` 0) is not shipped, as is one that isn't ``physical``: both become
      *digital*. With *ship_without_address* a physical one goes to the billing address, unless it is picked up.
    * A product is its SKU. Catalog products may lack one: they become ``product-77`` or ``variant-93``. A custom
      product without a SKU is named after itself: ``custom:Gift box``.
    * A pick-list child is a line of its own and ships with its parent.
    * A line's total is what it costs after the discounts that target it; all other discounts are the draft's.
      Handling holds handling, gift wrapping and fees.
    """
    if not source.products:
        raise Unreadable("$.products", "the order has no lines")
    currency = source.default_currency_code
    try:
        minor_units(currency)
    except ValueError as unknown:
        raise Unreadable("$.default_currency_code", str(unknown)) from None
    addresses = {each.id: _address(each) for each in source.shipping_addresses}
    billing = _address(source.billing_address)
    amounts = reconcile(source)
    lines = tuple(
        _line(index, each, amounts.lines[index], currency, addresses, billing, ship_without_address)
        for index, each in enumerate(source.products)
    )
    shipped = [line for line in lines if not line.digital]
    ship_to = next((line.ship_to for line in shipped if line.ship_to is not None), billing)
    return OrderDraft(
        external_id=str(source.id),
        currency=currency,
        total=amounts.total,
        lines=tuple(attrs.evolve(line, ship_to=None) if line.ship_to == ship_to else line for line in lines),
        placed_at=source.date_created,
        shipping=amounts.shipping,
        handling=amounts.handling,
        discount=amounts.discount,
        ship_to=ship_to,
        bill_to=billing,
        customer=str(source.customer_id) if source.customer_id else "",
        channel=str(source.channel_id) if source.channel_id else "",
        payment=source.payment_method,
        reference=source.external_order_id,
        note=source.customer_message,
    )


def _address(source: BillingAddress) -> Address:
    return Address(
        name=f"{source.first_name} {source.last_name}".strip(),
        company=source.company,
        street=source.street_1,
        street2=source.street_2,
        city=source.city,
        state=source.state,
        postal_code=source.zip,
        country=source.country_iso2,
        phone=source.phone,
        email=source.email,
    )


def _line(
    index: int,
    source: Product,
    total: Money,
    currency: str,
    addresses: Mapping[int, Address],
    billing: Address,
    ship_without_address: bool,
) -> OrderLineDraft:
    path = f"$.products[{index}]"
    if not 1 <= source.quantity <= _MOST_UNITS:
        raise Unreadable(f"{path}.quantity", f"1 to {_MOST_UNITS} units can be ordered, not {source.quantity}")
    if source.quantity_refunded:
        raise Unreadable(f"{path}.quantity_refunded", f"{source.quantity_refunded} of this line were refunded already")
    physical = source.type == "physical"
    addressed = source.order_address_id != 0
    if physical and addressed and source.order_address_id not in addresses:
        raise Unreadable(
            f"{path}.order_address_id", f"{source.order_address_id} is none of the order's shipping addresses"
        )
    shipped = physical and (addressed or (ship_without_address and source.order_pickup_method_id == 0))
    return OrderLineDraft(
        external_id=str(source.id),
        product=_product(source, path),
        quantity=Quantity.of(source.quantity),
        total=total,
        name=source.name,
        unit_price=None if source.price_inc_tax is None else Money.rounded(source.price_inc_tax, currency),
        tax=None if source.total_tax is None else Money.rounded(source.total_tax, currency),
        digital=not shipped,
        ship_to=addresses.get(source.order_address_id, billing) if shipped else None,
        external_address=str(source.order_address_id) if addressed else "",
    )


def _product(source: Product, path: str) -> ProductId:
    sku, name = source.sku.strip(), " ".join(source.name.split())
    if sku:
        return ProductId(sku)
    if source.variant_id:
        return ProductId(f"variant-{source.variant_id}")
    if source.product_id > 0:
        return ProductId(f"product-{source.product_id}")
    if name:
        return ProductId(f"custom:{name}")
    raise Unreadable(f"{path}.sku", "a custom product has neither a SKU nor a name")


@attrs.frozen
class Amounts:
    """An order's money in whole minor units: Σ *lines* + *shipping* + *handling* - *discount* = *total*."""

    lines: tuple[Money, ...]
    shipping: Money
    handling: Money
    discount: Money
    total: Money


def reconcile(source: Order) -> Amounts:
    """Bring an order's amounts to whole minor units that add up to its total; raises `Unexplained` when they can't.

    The documented sum is lines + shipping + handling + wrapping - ``discount_amount`` - ``coupon_discount``. Stores
    differ in which of the two is already inside a line's total, so each of the four readings is tried and the one that
    comes nearest must be exact but for rounding: amounts finer than a minor unit are rounded half up, and what that
    leaves goes to the largest remainders. Coupons and fees count once they have been read.
    """
    currency = source.default_currency_code
    digits = minor_units(currency)
    lines = [each.total_inc_tax for each in source.products]
    handling = source.handling_cost_inc_tax + source.wrapping_cost_inc_tax
    fees = sum((each.cost_inc_tax for each in source.fees), Decimal(0))
    coupons = sum((each.discount for each in source.coupons), Decimal(0))
    total = source.total_inc_tax.scaleb(digits).quantize(Decimal(1), ROUND_HALF_UP)
    gross = sum(lines, Decimal(0)) + source.shipping_cost_inc_tax + handling
    both = source.discount_amount + source.coupon_discount
    readings = [
        (discount, extra)
        for extra in dict.fromkeys((Decimal(0), fees))
        for discount in dict.fromkeys(
            (
                both,
                source.discount_amount,
                source.coupon_discount,
                Decimal(0),
                source.discount_amount + coupons,
                coupons,
            )
        )
    ]
    discount, extra = min(readings, key=lambda reading: abs(gross + reading[1] - reading[0] - source.total_inc_tax))
    targeted = [_targeted(each) for each in source.products]
    if sum(targeted) <= discount and all(part <= line for part, line in zip(targeted, lines)):
        lines = [line - part for line, part in zip(lines, targeted)]
        discount -= sum(targeted, Decimal(0))
    parts = [*lines, source.shipping_cost_inc_tax, handling + extra, -discount]
    whole = _whole_parts([part.scaleb(digits) for part in parts], int(total))
    if whole is None:
        raise Unexplained("$.total_inc_tax", _does_not_add_up(source, gross, fees, coupons))
    money = [Money(Decimal(part).scaleb(-digits), currency) for part in whole]
    *line_totals, shipping, handled, negative = money
    return Amounts(tuple(line_totals), shipping, handled, -negative, Money(total.scaleb(-digits), currency))


def _targeted(line: Product) -> Decimal:
    return sum((each.amount for each in line.applied_discounts if each.target == "product"), Decimal(0))


def _whole_parts(parts: Sequence[Decimal], total: int) -> list[int] | None:
    """Round *parts* so that they add up to *total* by largest remainder; ``None`` when rounding can't explain it."""
    floors = [int(part.to_integral_value(ROUND_FLOOR)) for part in parts]
    remainders = [part - floor for part, floor in zip(parts, floors)]
    left = total - sum(floors)
    candidates = sorted((i for i, rest in enumerate(remainders) if rest), key=lambda i: -remainders[i])
    if not 0 <= left <= len(candidates):
        return None
    for index in candidates[:left]:
        floors[index] += 1
    return floors


def _does_not_add_up(source: Order, gross: Decimal, fees: Decimal, coupons: Decimal) -> str:
    lines = sum((each.total_inc_tax for each in source.products), Decimal(0))
    known = {
        "lines": lines,
        "shipping": source.shipping_cost_inc_tax,
        "handling": source.handling_cost_inc_tax,
        "wrapping": source.wrapping_cost_inc_tax,
        "fees": fees,
        "discount": source.discount_amount,
        "coupon discount": source.coupon_discount,
        "coupons": coupons,
    }
    numbers = ", ".join(f"{name} {amount}" for name, amount in known.items() if amount or name == "lines")
    return (
        f"the total is {source.total_inc_tax} {source.default_currency_code}, its parts come to {gross} before "
        f"discounts and fees, and nothing documented explains the difference ({numbers})"
    )


# Writing shipments.


def marker(prefix: str, shipment: Shipment) -> str:
    """Return the line in a shipment's comments by which we know our own again; odd characters are escaped."""
    return prefix + quote(f"{shipment.system}/{shipment.id}", safe="/:._-")


def is_ours(posted: PostedShipment, prefix: str) -> bool:
    """Say whether a shipment carries a marker of ours."""
    return any(line.startswith(prefix) for line in posted.comments.splitlines())


@attrs.frozen
class Parcel:
    """One shipment to report: what of *shipment* goes to one address. BigCommerce wants one POST for each."""

    shipment: Shipment
    address: int
    items: tuple[ShippedItem, ...]


def pair(parcels: Sequence[Parcel], prefix: str, posted: Sequence[PostedShipment]) -> list[int | None]:
    """Return for each parcel the shop's shipment that is it, or ``None``; no shipment is taken twice.

    Ours is the one with our marker. One without any marker, made by hand, counts when it has the same tracking number
    and items.
    """
    ours = [each for each in posted if is_ours(each, prefix)]
    others = [each for each in posted if not is_ours(each, prefix)]
    return [_take(ours, each, _marked(each, prefix)) or _take(others, each, _same(each)) for each in parcels]


def _take(free: list[PostedShipment], parcel: Parcel, fits: Callable[[PostedShipment], bool]) -> int | None:
    match = next((each for each in free if each.order_address_id == parcel.address and fits(each)), None)
    if match is None:
        return None
    free.remove(match)
    return match.id


def _marked(parcel: Parcel, prefix: str) -> Callable[[PostedShipment], bool]:
    mark = marker(prefix, parcel.shipment)
    return lambda posted: mark in posted.comments.splitlines()


def _same(parcel: Parcel) -> Callable[[PostedShipment], bool]:
    number = parcel.shipment.tracking_number
    return lambda posted: (
        number != "" and posted.tracking_number == number and sorted_items(posted.items) == parcel.items
    )


def sorted_items(items: Sequence[ShippedItem]) -> tuple[ShippedItem, ...]:
    """Return *items* by line, one entry each."""
    totals: dict[int, int] = {}
    for item in items:
        totals[item.order_product_id] = totals.get(item.order_product_id, 0) + item.quantity
    return tuple(ShippedItem(line, totals[line]) for line in sorted(totals))


def shipment_body(parcel: Parcel, mark: str, carriers: Mapping[str, str]) -> dict[str, object]:
    """Return the smallest body of ``POST /v2/orders/{id}/shipments`` that says all we know.

    A tracking number or link that is too long is not cut, since a cut one leads nowhere: it goes into the comments.
    """
    shipment = parcel.shipment
    comments = [mark]
    number, link = shipment.tracking_number, shipment.tracking_url
    if len(number) > TRACKING_NUMBER_MAX:
        comments.append(f"tracking number: {number}")
        number = ""
    if len(link) > TRACKING_LINK_MAX:
        comments.append(f"tracking link: {link}")
        link = ""
    carrier = shipment.carrier.strip().lower()
    body: dict[str, object] = {
        "order_address_id": parcel.address,
        "tracking_number": number,
        "shipping_provider": PROVIDERS.get(carrier, ""),
        "tracking_carrier": carriers.get(carrier, ""),
        "shipping_method": shipment.service or shipment.carrier,
        "comments": "\n".join(comments)[:65535],
        "items": [{"order_product_id": each.order_product_id, "quantity": each.quantity} for each in parcel.items],
    }
    if link:
        body["tracking_link"] = link
    return body


def whole_quantity(line: TrackingLine) -> int:
    """Return a tracking line's quantity as whole units; raises `ValueError` for a fraction: the shop counts pieces."""
    if line.quantity != int(line.quantity):
        raise ValueError(f"{line.quantity} of line {line.line} is no whole number of units")
    return int(line.quantity)


# Errors and webhooks.


def complaint(payload: Json) -> str:
    """Return what an error answer says, in one line; V2 sends a list, V3 an object, refunds a list in ``data``."""
    entries = payload if isinstance(payload, list) else [payload]
    said: list[str] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            continue
        said += [_text(entry[name]) for name in ("message", "title", "detail") if isinstance(entry.get(name), str)]
        errors = entry.get("errors")
        if isinstance(errors, Mapping):
            said += [f"{name}: {_shown(value)}" for name, value in errors.items()]
        if isinstance(entry.get("data"), list):
            said.append(complaint(entry["data"]))
    return "; ".join(dict.fromkeys(each for each in said if each))[:500]


ID_IN_WEBHOOK: Final[Mapping[str, str]] = {
    "order": "id",
    "shipment": "orderId",
    "transaction": "order_id",
    "": "order_id",
}
"""By ``data.type``, which member of ``data`` is the order's id; channel events have no type. Others hint at nothing."""


def hinted_orders(payload: Json, store_hash: str) -> tuple[str, ...]:
    """Return the order ids a webhook hints at, which may be none; raises `Unreadable`.

    Of ``scope``, ``hash`` and ``created_at`` nothing is used: the hash may be the same for every change of one order,
    deliveries come twice and out of order, and the order has to be read anyway.
    """
    if not isinstance(payload, Mapping):
        raise Unreadable("$", f"an object is needed, not {_shown(payload)}")
    producer = payload.get("producer", f"stores/{store_hash}")
    if producer != f"stores/{store_hash}":
        raise Unreadable("$.producer", "the event is another store's")
    if not isinstance(payload.get("scope"), str):
        raise Unreadable("$.scope", "a scope such as 'store/order/updated' is needed")
    data = payload.get("data")
    if not isinstance(data, Mapping):
        raise Unreadable("$.data", f"an object is needed, not {_shown(data)}")
    kind = data.get("type", "")
    if not isinstance(kind, str):
        raise Unreadable("$.data.type", f"text is needed, not {_shown(kind)}")
    member = ID_IN_WEBHOOK.get(kind)
    if member is None or (kind == "" and member not in data):
        return ()
    try:
        return (order_number(data.get(member)),)
    except ValueError as broken:
        raise Unreadable(f"$.data.{member}", str(broken)) from None
