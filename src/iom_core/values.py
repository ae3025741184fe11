"""Values without identity: money, quantities, addresses, places, and the distinct types of ids.

Nothing here accepts a float: binary fractions in an order are lost cents. Amounts are `Decimal`, built from
`str`, `int` or `Decimal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, InvalidOperation
from math import asin, cos, lcm, radians, sin, sqrt
from typing import Final, NewType

import attrs

OrderId = NewType("OrderId", str)
"""Our number of a sales order, for example ``"BC-100"``."""
LineId = NewType("LineId", str)
"""An order line's id within its order, for example ``"1"``."""
FulfillmentOrderId = NewType("FulfillmentOrderId", str)
"""A fulfillment order's id, unique everywhere: ``"BC-100-F1"``."""
ProductId = NewType("ProductId", str)
"""Our product number (SKU)."""
System = NewType("System", str)
"""An outside system or connection by name: ``"bigcommerce"``, ``"fno"``, ``"flexe"``, ``"sap"``."""
SourceId = NewType("SourceId", str)
"""A fulfillment source by its unique name."""
CompanyId = NewType("CompanyId", str)
"""F&O's legal entity (``dataAreaId``), lower case: ``"usmf"``."""
MessageId = NewType("MessageId", str)
"""The sender's identity of a message; a redelivery carries the same one."""

MINOR_UNITS: Final[Mapping[str, int]] = {
    code: digits
    for digits, codes in {
        0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
        2: (
            "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
            "CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL "
            "HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP "
            "MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD "
            "SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS "
            "VED VES WST XCD XCG YER ZAR ZMW ZWG"
        ),
        3: "BHD IQD JOD KWD LYD OMR TND",
        4: "CLF UYW",
    }.items()
    for code in codes.split()
}
"""Digits after the point per ISO 4217 currency. An unknown code is an error, never two digits by guess."""

Exact = Decimal | int | str
"""What an exact number may be built from."""


def exact(value: Exact) -> Decimal:
    """Turn *value* into a finite `Decimal`; raises `ValueError` for floats, NaN, infinities and nonsense."""
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"an exact number is needed, not {type(value).__name__} {value!r}")
    else:
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise ValueError(f"not a number: {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"not a finite number: {value!r}")
    return number


def minor_units(currency: str) -> int:
    """Return how many digits *currency* has after the point; raises `ValueError` for an unknown code."""
    try:
        return MINOR_UNITS[currency]
    except KeyError:
        raise ValueError(f"unknown currency {currency!r}; a three-letter ISO 4217 code is needed") from None


def largest_remainder(total: int, weights: Sequence[Decimal]) -> list[int]:
    """Split the integer *total* in proportion to *weights* so that the parts add up to it exactly.

    Weights are not negative; when all are zero the parts are as equal as can be. What rounding down leaves
    goes to the largest remainders, the first of equals first.
    """
    if not weights:
        raise ValueError("at least one weight is needed")
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is negative")
    shares = list(weights) if any(weights) else [Decimal(1)] * len(weights)
    sign = -1 if total < 0 else 1
    # Integer arithmetic throughout: Decimal arithmetic rounds to 28 digits.
    ratios = [share.as_integer_ratio() for share in shares]
    common = lcm(*(denominator for _, denominator in ratios))
    ints = [numerator * (common // denominator) for numerator, denominator in ratios]
    base = sum(ints)
    parts = [abs(total) * each // base for each in ints]
    remainders = [abs(total) * each % base for each in ints]
    left = abs(total) - sum(parts)
    for index in sorted(range(len(parts)), key=lambda i: -remainders[i])[:left]:
        parts[index] += 1
    return [sign * part for part in parts]


def _only_decimal(value: object, what: str) -> None:
    # A NaN would poison every comparison behind it, a float would lose cents.
    if not isinstance(value, Decimal) or not value.is_finite():
        raise ValueError(f"{what} must be a finite Decimal, not {type(value).__name__} {value!r}")


def _to_minor_units(number: Decimal, digits: int) -> Decimal:
    try:
        return number.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    except InvalidOperation:
        raise ValueError(f"the amount {number} is too large") from None


@attrs.frozen
class Money:
    """An amount in one currency, with at most that currency's minor units after the point."""

    amount: Decimal
    currency: str

    def __attrs_post_init__(self) -> None:
        _only_decimal(self.amount, "an amount of money")

    @classmethod
    def of(cls, amount: Exact, currency: str) -> Money:
        """Build money that is already in whole minor units; raises `ValueError` when it isn't."""
        digits = minor_units(currency)
        number = exact(amount)
        rounded = _to_minor_units(number, digits)
        if rounded != number:
            raise ValueError(f"{number} {currency} has more than {digits} digits after the point")
        return cls(rounded, currency)

    @classmethod
    def rounded(cls, amount: Exact, currency: str) -> Money:
        """Build money from a finer amount, rounding half up to the currency's minor units."""
        digits = minor_units(currency)
        return cls(_to_minor_units(exact(amount), digits), currency)

    @classmethod
    def zero(cls, currency: str) -> Money:
        """Return no money in *currency*."""
        return cls.of(0, currency)

    @property
    def minor(self) -> int:
        """Return the amount in minor units (cents)."""
        return int(self.amount.scaleb(minor_units(self.currency)))

    def _same(self, other: Money) -> None:
        if self.currency != other.currency:
            raise ValueError(f"can't combine {self.currency} with {other.currency}")

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.amount - other.amount, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.amount, self.currency)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"

    def split(self, weights: Sequence[Exact]) -> tuple[Money, ...]:
        """Split exactly in proportion to *weights*; the parts add up to the whole (largest remainder)."""
        unit = Decimal(1).scaleb(-minor_units(self.currency))
        parts = largest_remainder(self.minor, [exact(weight) for weight in weights])
        return tuple(Money(part * unit, self.currency) for part in parts)


@attrs.frozen
class Quantity:
    """How much of something, in a unit of that product (``"ea"``, ``"box"``)."""

    amount: Decimal
    unit: str

    def __attrs_post_init__(self) -> None:
        _only_decimal(self.amount, "a quantity")

    @classmethod
    def of(cls, amount: Exact, unit: str = "ea") -> Quantity:
        """Build a quantity; raises `ValueError` for floats and nonsense."""
        return cls(exact(amount), unit)

    def _same(self, other: Quantity) -> None:
        if self.unit != other.unit:
            raise ValueError(f"can't combine {self.unit} with {other.unit}: convert first")

    def __add__(self, other: Quantity) -> Quantity:
        self._same(other)
        return Quantity(self.amount + other.amount, self.unit)

    def __sub__(self, other: Quantity) -> Quantity:
        self._same(other)
        return Quantity(self.amount - other.amount, self.unit)

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"


@attrs.frozen
class UnitConversions:
    """How many base units one unit holds, per product: ``{"CHAIR": {"ea": 1, "box": 12}}``."""

    per_product: Mapping[str, Mapping[str, Decimal]] = attrs.field(factory=dict)

    def convert(self, quantity: Quantity, unit: str, product: str) -> Quantity:
        """Express *quantity* of *product* in *unit*; raises `ValueError` when no exact conversion is known."""
        if quantity.unit == unit:
            return quantity
        table = self.per_product.get(product, {})
        missing = [each for each in (quantity.unit, unit) if each not in table]
        if missing:
            raise ValueError(f"{product} has no conversion for unit {missing[0]!r}")
        if table[unit] <= 0 or table[quantity.unit] <= 0:
            raise ValueError(
                f"a unit of {product} holds no base units: {unit!r}: {table[unit]}, "
                f"{quantity.unit!r}: {table[quantity.unit]}"
            )
        numerator = quantity.amount * table[quantity.unit]
        amount = numerator / table[unit]
        if amount * table[unit] != numerator:
            raise ValueError(f"{quantity} of {product} is no exact number of {unit}")
        return Quantity(amount, unit)


def whole_units(amount: Decimal) -> int:
    """Return *amount* without its fraction."""
    return int(amount.quantize(Decimal(1), ROUND_DOWN))


@attrs.frozen
class GeoPoint:
    """A place by latitude and longitude in degrees, as exact decimals."""

    latitude: Decimal
    longitude: Decimal

    @classmethod
    def of(cls, latitude: Exact, longitude: Exact) -> GeoPoint:
        """Build a point; raises `ValueError` outside ±90 and ±180 degrees."""
        north, east = exact(latitude), exact(longitude)
        if abs(north) > 90 or abs(east) > 180:
            raise ValueError(f"no such place: {north}, {east}")
        return cls(north, east)

    def kilometers_to(self, other: GeoPoint) -> float:
        """Return the great-circle distance in kilometers (haversine, R = 6371.0088 km)."""
        lat1, lon1 = radians(self.latitude), radians(self.longitude)
        lat2, lon2 = radians(other.latitude), radians(other.longitude)
        chord = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
        return 2 * 6371.0088 * asin(sqrt(min(1.0, chord)))


@attrs.frozen
class Address:
    """Where something goes or who pays; blanks are ``""``. *country* is ISO 3166 alpha-2."""

    name: str = ""
    company: str = ""
    street: str = ""
    street2: str = ""
    city: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""
    phone: str = ""
    email: str = ""
    location: GeoPoint | None = None
