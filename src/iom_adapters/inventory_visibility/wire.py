"""Inventory Visibility's words on one side, ours on the other: request bodies, and how answers are read. No I/O.

Names of dimensions, sources and measures come back in another case than they were sent in, so they are compared without
it; values are compared as they are. A measure that is absent is zero. Source: inventory-visibility.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final, TypeVar

import attrs

from iom_core.errors import Misunderstood

Json = Any
"""A decoded JSON value; numbers with a fraction are `Decimal`."""

MAX_BULK: Final = 512
"""Records in one bulk request."""
MAX_PRODUCTS: Final = 5_000
"""Products in one query."""
MAX_PLACES: Final = 100
"""The number of sites times the number of locations in one query."""
MAX_GROUPS: Final = 8
"""Levels of allocation groups."""
MAX_DAYS: Final = 180
"""The longest schedule period, today included."""
READ_ONLY_SOURCE: Final = "fno"
"""F&O's own data source: it flows one way, and nothing sent to the service may change its measures."""

T = TypeVar("T")


@attrs.frozen
class Place:
    """Where a fulfillment source is: *organization* is F&O's company, or Dataverse's organization id without F&O."""

    organization: str
    site: str
    location: str


@attrs.frozen
class Variant:
    """How a product of ours is known: a product id and, for a variant, its dimensions (``{"colorId": "red"}``)."""

    product: str
    dimensions: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Outcome:
    """What the service answered to one write. *status* is lower case; ``""`` when the answer names none."""

    status: str
    code: int
    message: str
    reservation: str = ""
    surplus: Decimal = Decimal(0)

    @property
    def done(self) -> bool:
        """Say whether it took effect; an answer without a status is judged by its code."""
        return self.status in ("", "success") and self.code < 400


@attrs.frozen
class Row:
    """One row of a query's answer; all names are lower case, measures are ``"source.measure"``."""

    product: str
    dimensions: Mapping[str, str]
    quantities: Mapping[str, Decimal]
    atp: Mapping[date, Mapping[str, Decimal]]

    def is_of(self, variant: Variant) -> bool:
        """Say whether the row counts *variant*: same product, and the same value of each of its dimensions."""
        return self.product == variant.product and all(
            self.dimensions.get(name.casefold()) == value for name, value in variant.dimensions.items()
        )

    def quantity(self, measure: str) -> Decimal:
        """Return a measure; absent ones are zero."""
        return self.quantities.get(measure.casefold(), Decimal(0))


@attrs.frozen
class Allocation:
    """What is set aside for one combination of groups; measures as in `Row`."""

    groups: Mapping[str, str]
    quantities: Mapping[str, Decimal]

    @property
    def allocated(self) -> Decimal:
        """Return what the group may still consume."""
        return self.quantities.get("@iv.@allocated", Decimal(0))


# --- bodies ------------------------------------------------------------------------------------------------


def dimensions(place: Place, variant: Variant) -> dict[str, str]:
    """Return the dimensions of *variant* at *place*; site and location partition the data and are always there."""
    return {"siteId": place.site, "locationId": place.location, **variant.dimensions}


def quantities(measures: Mapping[str, Decimal]) -> dict[str, dict[str, Decimal]]:
    """Nest ``{"pos.inbound": 3}`` by source; raises `ValueError` for a name without a source or measure."""
    nested: dict[str, dict[str, Decimal]] = {}
    for name, value in measures.items():
        source, measure = split_measure(name)
        nested.setdefault(source, {})[measure] = value
    return nested


def split_measure(name: str) -> tuple[str, str]:
    """Split ``"source.measure"``; raises `ValueError` when a part is missing."""
    source, _, measure = name.partition(".")
    if not source or not measure:
        raise ValueError(f"a measure is written source.measure, not {name!r}")
    return source, measure


def subject(id_: str, place: Place, variant: Variant, dimension_source: str) -> dict[str, Json]:
    """Return what every record begins with: *id_* is ours and makes a repetition harmless."""
    named = {"dimensionDataSource": dimension_source} if dimension_source else {}
    return {
        "id": id_,
        "organizationId": place.organization,
        "productId": variant.product,
        **named,
        "dimensions": dimensions(place, variant),
    }


def reserve_body(
    about: Mapping[str, Json], quantity: Decimal, quantity_source: str, modifier: str, *, check: bool = True
) -> dict[str, Json]:
    """Write a soft reservation; a negative *quantity* without *check* gives one back."""
    return {
        **about,
        "quantity": quantity,
        "quantityDataSource": quantity_source,
        "modifier": modifier,
        "ifCheckAvailForReserv": check,
    }


def unreserve_body(id_: str, organization: str, reservation: str, where: Mapping[str, str], quantity: Decimal) -> Json:
    """Write the reversal of a reservation; *where* must be the dimensions it was made with."""
    return {
        "id": id_,
        "organizationId": organization,
        "reservationId": reservation,
        "dimensions": dict(where),
        "OffsetQty": quantity,  # the capital is the service's
    }


def query_body(
    organization: str,
    products: Sequence[str],
    sites: Sequence[str],
    locations: Sequence[str],
    group_by: Sequence[str],
    dimension_source: str = "",
) -> dict[str, Json]:
    """Write an index query. An empty *products* would ask for all of them, hence raises `ValueError`.

    Negative rows are asked for: without them the sum of a product's rows would be too large.
    """
    if not products:
        raise ValueError("an empty list of products asks for every product")
    named = {"dimensionDataSource": dimension_source} if dimension_source else {}
    return {
        **named,
        "filters": {
            "organizationId": [organization],
            "productId": list(products),
            "siteId": list(sites),
            "locationId": list(locations),
        },
        "groupByValues": list(group_by),
        "returnNegative": True,
    }


def batches(places: Iterable[T], size: int = MAX_BULK) -> Iterator[list[T]]:
    """Cut into lists of at most *size*."""
    batch: list[T] = []
    for each in places:
        batch.append(each)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def place_batches(places: Iterable[Place], most: int = MAX_PLACES) -> Iterator[list[Place]]:
    """Cut the places of one organization so that sites × locations never exceeds *most*: a query asks for each pair."""
    batch: list[Place] = []
    for place in sorted(places, key=lambda each: (each.site, each.location)):
        wider = [*batch, place]
        if len({each.site for each in wider}) * len({each.location for each in wider}) > most:
            yield batch
            wider = [place]
        batch = wider
    if batch:
        yield batch


# --- answers -----------------------------------------------------------------------------------------------


def reason(body: Json) -> str:
    """Return the sentence an answer holds for people, wherever it has one; ``""`` when it hasn't."""
    if not isinstance(body, dict):
        return ""
    for name in ("message", "error_description", "detail", "title", "error"):
        value = body.get(name)
        if isinstance(value, str) and value:
            return value[:500]
        if isinstance(value, dict) and (deeper := reason(value)):
            return deeper
    return ""


def outcome(body: Json, http_status: int, where: str = "$") -> Outcome:
    """Read the answer to one write; the worse of the HTTP status and the body's own ``statusCode`` counts.

    A body that is no object says nothing but what its HTTP status says. Raises `Misunderstood` for wrong types.
    """
    if not isinstance(body, dict):
        return Outcome("", http_status, "")
    status, code = body.get("processingStatus"), body.get("statusCode")
    if status is not None and not isinstance(status, str):
        raise _wrong(f"{where}.processingStatus", "text", status)
    if code is not None and (isinstance(code, bool) or not isinstance(code, int)):
        raise _wrong(f"{where}.statusCode", "a whole number", code)
    reservation = body.get("reservationId")
    if reservation is not None and not isinstance(reservation, str):
        raise _wrong(f"{where}.reservationId", "text", reservation)
    surplus = body.get("totalInvalidOffsetQtyByReservId")
    return Outcome(
        (status or "").casefold(),
        max(http_status, code or 0),
        reason(body),
        reservation or "",
        Decimal(0) if surplus is None else _number(surplus, f"{where}.totalInvalidOffsetQtyByReservId"),
    )


def rows(body: Json) -> list[Row]:
    """Read a query's answer, an array without an envelope; raises `Misunderstood` with the path of what is wrong."""
    return [_row(each, f"$[{at}]") for at, each in enumerate(_list(body, "$"))]


def allocations(body: Json) -> list[Allocation]:
    """Read what an allocation query answers; its form is not documented, so only this reading of it is accepted."""
    return [
        Allocation(
            {name: str(value) for name, value in _object(each.get("groups"), f"$[{at}].groups").items()},
            _measures(each.get("quantities"), f"$[{at}].quantities"),
        )
        for at, each in enumerate(_object(each, f"$[{at}]") for at, each in enumerate(_list(body, "$")))
    ]


def _row(value: Json, where: str) -> Row:
    row = _object(value, where)
    product = row.get("productId")
    if not isinstance(product, str):
        raise _wrong(f"{where}.productId", "text", product)
    by_day = _object(row.get("atpQuantities") or {}, f"{where}.atpQuantities")
    return Row(
        product.strip(),
        {
            name: _text(each, f"{where}.dimensions.{name}")
            for name, each in _folded(row.get("dimensions"), f"{where}.dimensions").items()
        },
        _measures(row.get("quantities") or {}, f"{where}.quantities"),
        {
            _day(key, f"{where}.atpQuantities"): _measures(each, f"{where}.atpQuantities[{key!r}]")
            for key, each in by_day.items()
        },
    )


def _measures(value: Json, where: str) -> dict[str, Decimal]:
    return {
        f"{source}.{name}": _number(number, f"{where}.{source}.{name}")
        for source, measures in _folded(value, where).items()
        for name, number in _folded(measures, f"{where}.{source}").items()
    }


def _folded(value: Json, where: str) -> dict[str, Json]:
    """Return an object by its names in lower case; two names that differ only in case can't both be meant."""
    found: dict[str, Json] = {}
    for name, each in _object(value, where).items():
        if name.casefold() in found:
            raise Misunderstood(SYSTEM, f"{where}.{name}: the name is there twice, in two cases")
        found[name.casefold()] = each
    return found


def _day(text: str, where: str) -> date:
    """Read a day; the service writes ``2022-02-01T00:00:00Z``, with and without the Z."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise Misunderstood(SYSTEM, f"{where}: {text!r} is no day") from None


def _number(value: Json, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise _wrong(where, "a number", value)
    return Decimal(value)


def _text(value: Json, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "text", value)
    return value


def _object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    return value


def _list(value: Json, where: str) -> list[Json]:
    if not isinstance(value, list):
        raise _wrong(where, "an array", value)
    return value


SYSTEM: Final = "inventory-visibility"


def _wrong(where: str, wanted: str, got: Json) -> Misunderstood:
    return Misunderstood(SYSTEM, f"{where}: {wanted} is needed, not {type(got).__name__}")
