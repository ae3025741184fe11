"""Inventory Visibility as our `Inventory`: what may be promised, soft reservations made once, and stock that is gone.

Every write carries an id of ours; sending it again under the same id is harmless, which makes a lost answer so too.
Sources: inventory-visibility.md, iom.md section 8.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs
from returns.result import Failure, Result, Success

from iom_adapters._auth import Auth, ClientCredentials
from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client, Reply, Session
from iom_adapters._http import client as new_client
from iom_adapters.inventory_visibility import wire
from iom_adapters.inventory_visibility.auth import ENTRA_SCOPE, GATEWAYS, SECURITY_URL, ServiceToken
from iom_adapters.inventory_visibility.book import Book, Entry, FileBook, MemoryBook, State
from iom_adapters.inventory_visibility.wire import Allocation, Json, Outcome, Place, Row, Variant
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.outcome import Refused, failed
from iom_core.ports import Stock
from iom_core.values import ProductId, SourceId, System

BY_ID: Final = "reservation id"
BY_QUANTITY: Final = "negative quantity"
"""The two ways to give a reservation back."""

_SYSTEM: Final = System(wire.SYSTEM)
_ROWS: Final = 20_000
"""Rows asked for in one query: products are cut so that an answer stays far below what is read."""
_LOCKS: Final = 64


@attrs.frozen
class Change:
    """A change of what is on hand. *id* is the same on every retry; *quantities* are differences per measure, such as
    ``{"pos.inbound": Decimal(5)}``. What goes out is positive on a measure of outgoing stock, or negative on another,
    as the calculated measures say.
    """

    id: str
    source: SourceId
    product: ProductId
    quantities: Mapping[str, Decimal]


@attrs.frozen
class Plan:
    """A change expected on *day* (UTC). It moves what may be promised, not what is on hand."""

    id: str
    source: SourceId
    product: ProductId
    day: date
    quantities: Mapping[str, Decimal]


@attrs.frozen
class Promise:
    """How much of a product may be promised at a source for *day* without breaking a later promise; may be negative."""

    source: SourceId
    product: ProductId
    day: date
    quantity: Decimal


def _places(value: Mapping[str, Place | Mapping[str, str]]) -> dict[str, Place]:
    return {name: each if isinstance(each, Place) else Place(**each) for name, each in value.items()}


def _variants(value: Mapping[str, Variant | Mapping[str, Any]]) -> dict[str, Variant]:
    return {name: each if isinstance(each, Variant) else Variant(**each) for name, each in value.items()}


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class InventoryVisibilityConfig:
    """How to reach the service of one environment, and how it is set up there.

    Access: *base_url* is the whole endpoint (``https://inventoryservice.{region}-il{number}.gateway.prod.island.
    powerapps.com``; the number can't be computed), *environment* the Lifecycle Services environment id, *tenant* gives
    the Entra token address unless *token_url* names one. *gateways* are the host name endings the security service may
    redirect to.

    Setup: *sources* maps fulfillment sources to places, *products* those of our products that are variants or have
    another number there. *available* is the calculated measure that says what may be promised: it must subtract the
    measure that *modifier* of *quantity_source* counts. *shipped_as* says how shipped stock is posted
    (``{"pos.outbound": 1}`` or ``{"pos.inbound": -1}``); empty when F&O offsets our reservations itself, because their
    ids are on its order lines. *dimension_source* is needed for dimensions of a data source's own. *book_path* is the
    file that remembers reservations; without one they are forgotten with the process.

    Uncertain in the service, hence choices: *release_with* (``"reservation id"``, or ``"negative quantity"`` where a
    repeated reservation does not return the first one's id and nobody else offsets reservations), *atp_measure* (empty:
    *available*) and *atp_group_by*, which must be one of the index sets configured for ATP; *schedule_days* is the
    configured period, today included.
    """

    base_url: str
    environment: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    sources: Mapping[str, Place] = attrs.field(converter=_places)
    tenant: str = ""
    token_url: str = ""
    security_url: str = SECURITY_URL
    gateways: tuple[str, ...] = attrs.field(default=GATEWAYS, converter=_names)
    products: Mapping[str, Variant] = attrs.field(factory=dict, converter=_variants)
    available: str = "iv.availabletoreserve"
    quantity_source: str = "iv"
    modifier: str = "softReservOrdered"
    shipped_as: Mapping[str, int] = attrs.field(factory=dict)
    dimension_source: str = ""
    release_with: str = attrs.field(default=BY_ID, validator=attrs.validators.in_((BY_ID, BY_QUANTITY)))
    atp_measure: str = ""
    atp_group_by: tuple[str, ...] = attrs.field(default=(), converter=_names)
    schedule_days: int = attrs.field(default=30, validator=[attrs.validators.ge(1), attrs.validators.le(wire.MAX_DAYS)])
    id_prefix: str = "iom/"
    book_path: str = ""
    system: System = _SYSTEM

    def __attrs_post_init__(self) -> None:
        for what, values in (("sources", self.sources), ("products", self.products)):
            found: list[object] = []
            for each in values.values():
                if each in found:
                    raise ValueError(f"two of the {what} are the same to the service: {each}")
                found.append(each)
        for measure in (self.available, *self.shipped_as, *filter(None, (self.atp_measure,))):
            wire.split_measure(measure)
        if any(_reads_only(measure) for measure in self.shipped_as):
            raise ValueError("shipped_as: nothing sent to the service changes a measure of F&O's own")
        if self.release_with == BY_QUANTITY and not self.shipped_as:
            raise ValueError(
                "release_with: where F&O offsets reservations (no shipped_as) only the reservation's id gives back no "
                "more than is left of it"
            )
        if any(sign not in (1, -1) for sign in self.shipped_as.values()):
            raise ValueError("shipped_as: 1 adds to the measure, -1 takes from it; there is nothing else")

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> InventoryVisibilityConfig:
        """Build a configuration from plain settings (places and variants as mappings); raises `Misconfigured`, naming
        the setting and never quoting a secret.
        """
        fields = attrs.fields_dict(cls)
        for name, value in settings.items():
            if name not in fields:
                raise Misconfigured(wire.SYSTEM, f"$.{name}: there is no such setting")
            kinds = _KINDS.get(name, (str,))
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise Misconfigured(wire.SYSTEM, f"$.{name}: {kinds[0].__name__} is needed, not {type(value).__name__}")
        for name in ("base_url", "environment", "client_id", "client_secret", "sources"):
            if not settings.get(name):
                raise Misconfigured(wire.SYSTEM, f"$.{name}: this setting is missing")
        try:
            values: dict[str, Any] = dict(settings)
            return cls(**values)
        except (TypeError, ValueError) as broken:
            raise Misconfigured(wire.SYSTEM, str(broken)) from None

    def auth(self, client: Client, clock: Clock) -> Auth:
        """Return the two-step token of this environment; raises `Misconfigured` without a token address."""
        if not (self.tenant or self.token_url):
            raise Misconfigured(str(self.system), "tenant or token_url is needed")
        entra = ClientCredentials(
            str(self.system),
            self.token_url or f"https://login.microsoftonline.com/{self.tenant}/oauth2/v2.0/token",
            self.client_id,
            self.client_secret,
            scope=ENTRA_SCOPE,
            client=client,
            clock=clock,
        )
        return ServiceToken(
            str(self.system), entra, self.environment, client, self.security_url, self.gateways, clock=clock
        )


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    # every other setting is text
    **dict.fromkeys(("sources", "products", "shipped_as"), (Mapping,)),
    **dict.fromkeys(("gateways", "atp_group_by"), (list, tuple)),
    "schedule_days": (int,),
}


def connect(
    settings: Mapping[str, object], *, client: Client | None = None, clock: Clock = utc_now, book: Book | None = None
) -> InventoryVisibility:
    """Connect by plain settings (see `InventoryVisibilityConfig`; the entry point ``inventory-visibility``).

    Raises `Misconfigured`.
    """
    return InventoryVisibility(InventoryVisibilityConfig.of(settings), client, clock, book)


def _reads_only(measure: str) -> bool:
    return wire.split_measure(measure)[0].casefold() == wire.READ_ONLY_SOURCE


class InventoryVisibility:
    """One environment as `Inventory`, and what the service offers beyond it. Safe to use from several threads.

    Without a *book* reservations are kept in the configuration's ``book_path``, or else in memory.
    """

    def __init__(
        self,
        config: InventoryVisibilityConfig,
        client: Client | None = None,
        clock: Clock = utc_now,
        book: Book | None = None,
    ) -> None:
        self.config = config
        http = client if client is not None else new_client()
        self._clock = clock
        self._http = Session(
            str(config.system), config.base_url, config.auth(http, clock), http, {"Api-Version": "1.0"}, clock=clock
        )
        self._root = f"/api/environment/{quote(config.environment, safe='')}"
        self._book: Book = (
            book if book is not None else FileBook(Path(config.book_path)) if config.book_path else MemoryBook()
        )
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    @property
    def system(self) -> System:
        """Return the system's name, ``"inventory-visibility"`` unless configured otherwise."""
        return self.config.system

    # --- what there is -------------------------------------------------------------------------------------

    def available(self, products: Sequence[ProductId]) -> tuple[Stock, ...]:
        """Return what may still be promised of *products*, per configured source; never less than zero.

        A source that never had a product is left out. Raises the three faults.
        """
        found: dict[tuple[SourceId, ProductId], Decimal] = {}
        for source, product, row in self._rows(products, None, {}):
            known = found.get((source, product), Decimal(0))
            found[source, product] = known + row.quantity(self.config.available)
        return tuple(Stock(source, product, max(amount, Decimal(0))) for (source, product), amount in found.items())

    def atp(
        self, products: Sequence[ProductId], first: date | None = None, last: date | None = None
    ) -> tuple[Promise, ...]:
        """Return what may be promised of *products* for each day (UTC) of the schedule period, per configured source.

        *first* and *last* only choose which days are told. A day's quantity is the smallest projected from it to the
        period's end, plans included; it is negative when planned demand isn't covered. Raises the three faults.
        """
        asked: dict[str, Json] = {"QueryATP": True}
        if first is not None:
            asked["ATPFromDate"] = first.isoformat()
        if last is not None:
            asked["ATPToDate"] = last.isoformat()
        measure = (self.config.atp_measure or self.config.available).casefold()
        found: dict[tuple[SourceId, ProductId, date], Decimal] = {}
        for source, product, row in self._rows(products, self.config.atp_group_by, asked):
            for day, measures in row.atp.items():
                known = found.get((source, product, day), Decimal(0))
                found[source, product, day] = known + measures.get(measure, Decimal(0))
        return tuple(Promise(*key, quantity) for key, quantity in sorted(found.items()))

    def _rows(
        self, products: Sequence[ProductId], group_by: Sequence[str] | None, more: Mapping[str, Json]
    ) -> Iterator[tuple[SourceId, ProductId, Row]]:
        """Ask for *products* everywhere, and yield each row with the source and product it counts for."""
        by_organization: dict[str, dict[Place, SourceId]] = {}
        for name, place in self.config.sources.items():
            by_organization.setdefault(place.organization, {})[place] = SourceId(name)
        by_dimensions: dict[tuple[str, ...], dict[ProductId, Variant]] = {}
        for product in dict.fromkeys(products):
            variant = self._variant(product)
            by_dimensions.setdefault(tuple(variant.dimensions), {})[product] = variant
        for names, variants in by_dimensions.items():
            if group_by is not None and not {n.casefold() for n in names} <= {n.casefold() for n in group_by}:
                raise Misconfigured(str(self.system), f"atp_group_by lacks a dimension of {next(iter(variants))}")
            for organization, places in by_organization.items():
                for batch in wire.place_batches(places):
                    yield from self._page(
                        organization, batch, places, variants, names if group_by is None else group_by, more
                    )

    def _page(
        self,
        organization: str,
        batch: Sequence[Place],
        places: Mapping[Place, SourceId],
        variants: Mapping[ProductId, Variant],
        group_by: Sequence[str],
        more: Mapping[str, Json],
    ) -> Iterator[tuple[SourceId, ProductId, Row]]:
        sites = list(dict.fromkeys(each.site for each in batch))
        locations = list(dict.fromkeys(each.location for each in batch))
        asked: dict[Place, SourceId] = {place: places[place] for place in batch}
        by_number: dict[str, list[ProductId]] = {}
        for product, variant in variants.items():
            by_number.setdefault(variant.product, []).append(product)
        most = min(wire.MAX_PRODUCTS, _ROWS // (len(sites) * len(locations)))
        for numbers in wire.batches(by_number, most):
            body = wire.query_body(organization, numbers, sites, locations, group_by, self.config.dimension_source)
            for at, row in enumerate(wire.rows(self._ask("/onhand/indexquery", {**body, **more}))):
                where = row.dimensions
                place = Place(organization, where.get("siteid", ""), where.get("locationid", ""))
                if row.product not in by_number or place.site not in sites or place.location not in locations:
                    # Values that come back in another spelling would otherwise look like no stock.
                    raise Misunderstood(
                        str(self.system),
                        f"$[{at}]: nobody asked for {row.product!r} at {place.site!r}/{place.location!r}",
                    )
                if place in asked:
                    for product in by_number[row.product]:
                        if row.is_of(variants[product]):
                            yield asked[place], product, row

    # --- soft reservations ---------------------------------------------------------------------------------

    def reserve(self, key: str, source: SourceId, product: ProductId, quantity: Decimal) -> Result[str, Refused]:
        """Soft-reserve, and return the reservation's id: F&O's order line wants it to offset the reservation.

        The same key again returns the first reservation's id, unless it was released in between; also when it has been
        consumed. Refused: an unknown source, a quantity that isn't positive, and what the service refuses, first of all
        more than there is. Raises the three faults.
        """
        place = self._place(source)
        if failed(place):
            return place
        if quantity <= 0:
            return self._refused("bad-quantity", f"{quantity} can't be reserved", "$.quantity")
        with self._lock(key):
            entry = self._book.get(key)
            if entry is not None and entry.state is State.ASKED:
                first = self._request(entry)
                if not failed(first):
                    return Success(first.unwrap().reservation)
                entry = self._book.get(key)
            elif entry is not None and entry.state is State.RELEASING:
                entry = self._give_back(entry)
            elif entry is not None and entry.state is not State.FREE:
                return Success(entry.reservation)
            variant = self._variant(product)
            asked = self._request(
                self._book.put(
                    Entry(
                        key,
                        1 if entry is None else entry.attempt + 1,
                        State.ASKED,
                        place.unwrap().organization,
                        variant.product,
                        wire.dimensions(place.unwrap(), variant),
                        quantity,
                        version=0 if entry is None else entry.version,
                    )
                )
            )
            return asked if failed(asked) else Success(asked.unwrap().reservation)

    def release(self, key: str) -> None:
        """Give a reservation back; unknown, released and consumed keys change nothing and ask nobody.

        A reservation whose answer was lost is asked for once more under its first id, to learn which it was. Raises the
        three faults; until it returns, the stock stays reserved.
        """
        with self._lock(key):
            entry = self._settled(key)
            if entry is not None and entry.state in (State.HELD, State.RELEASING):
                self._give_back(entry)

    def consume(self, key: str, quantity: Decimal) -> None:
        """Turn reserved stock into shipped stock, at most what was reserved; what is left over is given back.

        The change of stock is posted before the reservation is given back, so that what is shipped is never promised in
        between. Where F&O offsets reservations (no ``shipped_as``) only what is left over is given back. Repeating it,
        and unknown or released keys, change nothing. Raises `ValueError` for a quantity that isn't positive, and the
        three faults.
        """
        if quantity <= 0:
            raise ValueError(f"{quantity} can't be consumed")
        with self._lock(key):
            entry = self._settled(key)
            if entry is not None and entry.state is State.HELD:
                shipped = min(quantity, entry.quantity)
                entry = self._book.put(attrs.evolve(entry, state=State.CONSUMING, consumed=shipped))
            if entry is not None and entry.state is State.CONSUMING:
                self._ship(entry)

    def _settled(self, key: str) -> Entry | None:
        """Return the entry; one whose answer was lost is asked for again first."""
        entry = self._book.get(key)
        if entry is not None and entry.state is State.ASKED:
            asked = self._request(entry)
            return None if failed(asked) else asked.unwrap()
        return entry

    def _request(self, entry: Entry) -> Result[Entry, Refused]:
        """Ask for the reservation of *entry*, maybe again under the same id, and write down the answer."""
        body = wire.reserve_body(
            self._about(entry, ""), entry.quantity, self.config.quantity_source, self.config.modifier
        )
        answer = self._write("/onhand/reserve", body)
        if answer.done and answer.status:
            if not answer.reservation and self.config.release_with == BY_ID:
                raise Misunderstood(str(self.system), "$.reservationId is missing in the answer to a reservation")
            number = answer.reservation or str(body["id"])
            return Success(self._book.put(attrs.evolve(entry, state=State.HELD, reservation=number)))
        if not answer.status:
            raise Misunderstood(str(self.system), "$.processingStatus is missing in the answer to a reservation")
        if answer.status == "partialsuccess":
            # Not described for reservations; should a part be held, it goes back, which only its id can say.
            if not answer.reservation or self.config.release_with != BY_ID:
                raise Misunderstood(str(self.system), "$.processingStatus: a part was reserved, nobody knows how much")
            held = attrs.evolve(entry, state=State.RELEASING, reservation=answer.reservation)
            self._give_back(self._book.put(held))
        else:
            self._book.put(attrs.evolve(entry, state=State.FREE))
        return self._no(answer, "refused-by-service", "$.quantity")

    def _ship(self, entry: Entry) -> None:
        if self.config.shipped_as:
            moved = {measure: entry.consumed * sign for measure, sign in self.config.shipped_as.items()}
            body = {**self._about(entry, "/consume"), "quantities": wire.quantities(moved)}
            self._must("/onhand", body)
            self._unreserve(entry, entry.quantity)
        elif entry.quantity > entry.consumed:
            self._unreserve(entry, entry.quantity - entry.consumed)
        self._book.put(attrs.evolve(entry, state=State.CONSUMED))

    def _give_back(self, entry: Entry) -> Entry:
        if entry.state is State.HELD:
            entry = self._book.put(attrs.evolve(entry, state=State.RELEASING))
        self._unreserve(entry, entry.quantity)
        return self._book.put(attrs.evolve(entry, state=State.FREE))

    def _unreserve(self, entry: Entry, quantity: Decimal) -> None:
        """Take *quantity* off a reservation; that less of it was left (F&O has offset a part) is fine."""
        about = self._about(entry, "/release")
        if self.config.release_with == BY_QUANTITY:
            source, modifier = self.config.quantity_source, self.config.modifier
            self._must("/onhand/reserve", wire.reserve_body(about, -quantity, source, modifier, check=False))
        else:
            body = wire.unreserve_body(
                str(about["id"]), entry.organization, entry.reservation, entry.dimensions, quantity
            )
            self._must("/onhand/unreserve", body, "partialsuccess")

    def _about(self, entry: Entry, suffix: str) -> dict[str, Json]:
        named = {"dimensionDataSource": self.config.dimension_source} if self.config.dimension_source else {}
        return {
            "id": f"{self.config.id_prefix}{entry.key}/{entry.attempt}{suffix}",
            "organizationId": entry.organization,
            "productId": entry.product,
            **named,
            "dimensions": dict(entry.dimensions),
        }

    # --- changes and plans ---------------------------------------------------------------------------------

    def post_change(self, change: Change) -> Result[None, Refused]:
        """Post one change of what is on hand, counted once per id.

        Refused: an unknown source, a measure of F&O's own, and what the service refuses. Raises the three faults.
        """
        return self._one("/onhand", self._change(change))

    def post_changes(self, changes: Sequence[Change]) -> tuple[tuple[str, Refused], ...]:
        """Post changes in bulk, at most 512 a request; returns the ids of those refused, with why.

        Repeating all of them after a fault is safe. Raises the three faults.
        """
        return self._many("/onhand/bulk", [(each.id, self._change(each)) for each in changes])

    def set_on_hand(self, changes: Sequence[Change], data_source: str) -> tuple[tuple[str, Refused], ...]:
        """Set measures to absolute values, as a stock count does; *data_source* is the inventory system that counted.

        Returns the ids of those refused, with why. Raises the three faults.
        """
        at = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        bodies = [
            (each.id, self._change(each).map(lambda body: {**body, "modifiedDateTimeUTC": at})) for each in changes
        ]
        return self._many(f"/setonhand/{quote(data_source, safe='')}/bulk", bodies)

    def schedule(self, plan: Plan) -> Result[None, Refused]:
        """Plan one change, counted once per id.

        Refused: a day outside the schedule period, and what `post_change` refuses. Raises the three faults.
        """
        return self._one("/onhand/changeschedule", self._plan(plan))

    def schedule_all(self, plans: Sequence[Plan]) -> tuple[tuple[str, Refused], ...]:
        """Plan changes in bulk, at most 512 a request; returns the ids of those refused, with why."""
        return self._many("/onhand/changeschedule/bulk", [(each.id, self._plan(each)) for each in plans])

    def commit(self, plan: Plan) -> Result[None, Refused]:
        """Let a plan have happened today: its quantities are posted as a change, and the plan is taken back.

        A plan whose day is past is no longer counted and needs no taking back. Refused and raises as `post_change`.
        """
        past = plan.day < self._today()
        planned = self._plan(plan)
        if failed(planned) and not past:
            return planned
        posted = self.post_change(Change(f"{plan.id}/commit", plan.source, plan.product, plan.quantities))
        if failed(posted) or past:
            return posted
        undone = {name: -value for name, value in plan.quantities.items()}
        return self.schedule(attrs.evolve(plan, id=f"{plan.id}/cancel", quantities=undone))

    def _today(self) -> date:
        return self._clock().date()

    def _change(self, change: Change) -> Result[dict[str, Json], Refused]:
        about = self._subject(change.id, change.source, change.product, change.quantities)
        if failed(about):
            return about
        return Success({**about.unwrap(), "quantities": wire.quantities(change.quantities)})

    def _plan(self, plan: Plan) -> Result[dict[str, Json], Refused]:
        last = self._today() + timedelta(days=self.config.schedule_days - 1)
        if not self._today() <= plan.day <= last:
            what = f"{plan.day} is not from {self._today()} to {last}"
            return self._refused("outside-period", what, "$.day")
        about = self._subject(plan.id, plan.source, plan.product, plan.quantities)
        if failed(about):
            return about
        by_day = {plan.day.isoformat(): wire.quantities(plan.quantities)}
        return Success({**about.unwrap(), "quantitiesByDate": by_day})

    # --- allocation ----------------------------------------------------------------------------------------

    def allocate(
        self, id_: str, source: SourceId, product: ProductId, groups: Mapping[str, str], quantity: Decimal
    ) -> Result[None, Refused]:
        """Set *quantity* aside for *groups* (``{"channel": "Online"}``, in the order of their hierarchy), once per id.

        Always at the level of the product's own dimensions. Refused: more than is available to allocate, no groups or
        more than eight, a quantity that isn't positive. Raises the three faults.
        """
        return self._allocation("allocate", id_, source, product, groups, quantity, {})

    def unallocate(
        self, id_: str, source: SourceId, product: ProductId, groups: Mapping[str, str], quantity: Decimal
    ) -> Result[None, Refused]:
        """Take back what `allocate` set aside, once per id; refused: more than the groups have left."""
        return self._allocation("unallocate", id_, source, product, groups, quantity, {})

    def reallocate(
        self,
        id_: str,
        source: SourceId,
        product: ProductId,
        from_groups: Mapping[str, str],
        groups: Mapping[str, str],
        quantity: Decimal,
    ) -> Result[None, Refused]:
        """Move what is set aside to other groups, once per id; refused: more than *from_groups* have left."""
        more = {"sourceGroups": dict(from_groups)}
        return self._allocation("reallocate", id_, source, product, groups, quantity, more)

    def consume_allocation(
        self,
        id_: str,
        source: SourceId,
        product: ProductId,
        groups: Mapping[str, str],
        quantity: Decimal,
        measures: Mapping[str, int],
    ) -> Result[None, Refused]:
        """Use what is set aside, once per id; *measures* are changed with it: 1 adds the quantity, -1 takes it.

        The sign is the opposite of the measure's in the formula: ``{"pos.inbound": -1}`` ships,
        ``{"iv.softreserved": 1}`` turns it into a soft reservation. Refused: more than the groups have left, a measure
        of F&O's own. Raises the three faults.
        """
        refused = self._measures(measures)
        if refused is not None:
            return Failure(refused)
        nested: dict[str, dict[str, str]] = {}
        for name, sign in measures.items():
            data_source, measure = wire.split_measure(name)
            nested.setdefault(data_source, {})[measure] = "Addition" if sign > 0 else "Subtraction"
        return self._allocation("consume", id_, source, product, groups, quantity, {"physicalMeasures": nested})

    def allocations(
        self, source: SourceId, product: ProductId, groups: Mapping[str, str] | None = None
    ) -> tuple[Allocation, ...]:
        """Return what is set aside at exactly the level of the product's dimensions, for *groups* or all.

        The form of the answer is not documented: any other than ``[{"groups": …, "quantities": …}]`` raises
        `Misunderstood`; what is allocated in all is also the measure ``@iv.@allocated`` of a query.
        """
        place = self._place(source)
        if failed(place):
            raise Misconfigured(str(self.system), place.failure().what)
        variant = self._variant(product)
        body = {
            "organizationId": place.unwrap().organization,
            "productId": variant.product,
            "dimensions": wire.dimensions(place.unwrap(), variant),
            "groups": dict(groups or {}),
        }
        return tuple(wire.allocations(self._ask("/allocation/query", body)))

    def _allocation(
        self,
        what: str,
        id_: str,
        source: SourceId,
        product: ProductId,
        groups: Mapping[str, str],
        quantity: Decimal,
        more: Mapping[str, Json],
    ) -> Result[None, Refused]:
        if quantity <= 0:
            return self._refused("bad-quantity", f"{quantity} can't be allocated", "$.quantity")
        for each in (groups, more.get("sourceGroups", groups)):
            if not 1 <= len(each) <= wire.MAX_GROUPS:
                return self._refused("bad-groups", f"one to {wire.MAX_GROUPS} groups are needed", "$.groups")
        about = self._subject(id_, source, product, {})
        if failed(about):
            return about
        body = {**about.unwrap(), "targetGroups": dict(groups), "quantity": quantity, **more}
        return self._one(f"/allocation/{what}", Success(body))

    # --- asking --------------------------------------------------------------------------------------------

    def _subject(
        self, id_: str, source: SourceId, product: ProductId, measures: Iterable[str]
    ) -> Result[dict[str, Json], Refused]:
        place = self._place(source)
        if failed(place):
            return place
        refused = self._measures(measures)
        if refused is not None:
            return Failure(refused)
        name = f"{self.config.id_prefix}{id_}"
        return Success(wire.subject(name, place.unwrap(), self._variant(product), self.config.dimension_source))

    def _measures(self, measures: Iterable[str]) -> Refused | None:
        wrong = next((each for each in measures if _reads_only(each)), "")
        what = f"{wrong} is F&O's own and changes only there"
        return Refused("read-only-measure", what, "$.quantities", str(self.system)) if wrong else None

    def _one(self, path: str, body: Result[dict[str, Json], Refused]) -> Result[None, Refused]:
        if failed(body):
            return body
        answer = self._write(path, body.unwrap())
        return Success(None) if answer.done else self._no(answer, "refused-by-service", "$")

    def _many(
        self, path: str, bodies: Sequence[tuple[str, Result[dict[str, Json], Refused]]]
    ) -> tuple[tuple[str, Refused], ...]:
        no = [(name, body.failure()) for name, body in bodies if failed(body)]
        good = [(name, body.unwrap()) for name, body in bodies if not failed(body)]
        for batch in wire.batches(good):
            reply = self._post(path, [body for _, body in batch])
            answers = self._json(reply)
            if not isinstance(answers, list):
                whole = self._judged(path, wire.outcome(answers, reply.status))
                answers = [] if whole.done else [answers] * len(batch)
            elif len(answers) != len(batch):
                what = f"$: {len(batch)} records were sent to {path}, and {len(answers)} answered"
                raise Misunderstood(str(self.system), what)
            for at, ((name, _), each) in enumerate(zip(batch, answers)):
                status = (each.get("statusCode") if isinstance(each, dict) else None) or reply.status
                answer = self._judged(path, wire.outcome(each, status, f"$[{at}]"))
                if not answer.done:
                    no.append((name, self._no(answer, "refused-by-service", f"$[{at}]").failure()))
        return tuple(no)

    def _write(self, path: str, body: Json) -> Outcome:
        reply = self._post(path, body)
        return self._judged(path, wire.outcome(self._json(reply), reply.status))

    def _must(self, path: str, body: Json, *also: str) -> None:
        """Write what has been decided on and can't be refused."""
        answer = self._write(path, body)
        if not answer.done and answer.status not in also:
            raise Misconfigured(str(self.system), f"POST {path} of {body['id']} was refused: {answer.message}")

    def _judged(self, path: str, answer: Outcome) -> Outcome:
        """Turn what is nobody's business decision into a fault, whether the HTTP status or the body says so."""
        shown = f"POST {path} answered {answer.code} {answer.message}".rstrip()
        if answer.code == 429 or answer.code >= 500:
            raise Unavailable(str(self.system), shown)
        if answer.code in (401, 403) or (answer.code >= 300 and not answer.status):
            raise Misconfigured(str(self.system), shown)
        return answer

    def _ask(self, path: str, body: Json) -> Json:
        reply = self._post(path, body)
        found = self._json(reply)
        if reply.status >= 300:
            self._judged(path, wire.outcome(found, reply.status))
            raise Misconfigured(str(self.system), f"POST {path} answered {reply.status} {wire.reason(found)}".rstrip())
        return found

    def _post(self, path: str, body: Json) -> Reply:
        return self._http.call("POST", f"{self._root}{path}", body=body)

    def _json(self, reply: Reply) -> Json:
        """Read an answer; an empty one, and an error page, say no more than their status."""
        if not reply.body.strip():
            return None
        try:
            return reply.json(str(self.system))
        except Misunderstood:
            if reply.status >= 300:
                return None
            raise

    def _no(self, answer: Outcome, code: str, where: str) -> Failure[Refused]:
        what = answer.message or f"the service answered {answer.status or answer.code}"
        return Failure(Refused(code, what, where, who=str(self.system)))

    def _refused(self, code: str, what: str, where: str) -> Failure[Refused]:
        return Failure(Refused(code, what, where, who=str(self.system)))

    def _place(self, source: SourceId) -> Result[Place, Refused]:
        place = self.config.sources.get(source)
        if place is None:
            return self._refused(
                "unknown-source", f"source {source!r} has no place in Inventory Visibility", "$.source"
            )
        return Success(place)

    def _variant(self, product: ProductId) -> Variant:
        return self.config.products.get(product) or Variant(product)

    def _lock(self, key: str) -> threading.Lock:
        return self._locks[hash(key) % _LOCKS]
