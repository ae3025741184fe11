"""BigCommerce behind our ports: `OrderSource` by polling and webhooks, `StatusSink` by shipments and statuses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_adapters._auth import FixedHeader
from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client, Reply, Session, client, decode, encode
from iom_adapters.bigcommerce import wire
from iom_adapters.bigcommerce.wire import Parcel, PostedShipment, ShippedItem, Status, Unreadable
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Canceled, Message, NewOrder, Rejected
from iom_core.order import SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.ports import Capability, Pulled, Receipt, StatusUpdate
from iom_core.values import MessageId, System

MAX_WEBHOOK: Final = 64 * 1024
"""The largest webhook body read, in bytes; real ones stay below one kilobyte."""

_SIGNATURE_TOLERANCE: Final = timedelta(minutes=5)
_REMEMBERED: Final = 5_000
_SECOND: Final = timedelta(seconds=1)
_NAME: Final = System("bigcommerce")
_DECLINED: Final[Mapping[int, str]] = {400: "invalid", 404: "not-found", 409: "conflict", 422: "invalid"}
_LATER: Final = (408, 423, 499)
_ORDERS: Final = "/v2/orders"
_DEFAULT_LIMIT: Final = 50
_MOST_PAGES: Final = 1_000
_KEPT: Final = 2_000


@attrs.frozen
class BigCommerceConfig:
    """How to talk to one store. Secrets are left out of its ``repr``.

    *access_token* belongs to an API account with the scopes ``store_v2_orders`` (and the default one for webhooks).
    Where the documentation leaves something open, the setting says so.
    """

    store_hash: str
    access_token: str = attrs.field(repr=False)
    system: System = _NAME
    """Our name of this store; two stores need two names."""
    base_url: str = "https://api.bigcommerce.com"
    import_statuses: frozenset[int] = attrs.field(
        default=frozenset({Status.AWAITING_FULFILLMENT, Status.AWAITING_SHIPMENT}), converter=frozenset
    )
    """Statuses whose orders are ours to fulfill. Ours, not documented: paid orders wait in 11 and, when a person packed
    them, 9."""
    update_statuses: Mapping[str, int] = attrs.field(
        factory=lambda: {
            "shipped": Status.SHIPPED,
            "partially shipped": Status.PARTIALLY_SHIPPED,
            "completed": Status.COMPLETED,
            "canceled": Status.CANCELLED,
        }
    )
    """The status to set for each stage of an update."""
    protected_statuses: frozenset[int] = attrs.field(
        default=frozenset(
            {Status.REFUNDED, Status.CANCELLED, Status.DECLINED, Status.DISPUTED, Status.PARTIALLY_REFUNDED}
        ),
        converter=frozenset,
    )
    """Statuses we never overwrite. Unsure: BigCommerce documents no table of legal changes and seems to accept any, so
    this guard is ours."""
    webhook_header: str = "X-Iom-Webhook-Secret"
    """The header in which our own secret comes back, as given in ``headers`` when the hook was created."""
    webhook_secret: str = attrs.field(default="", repr=False)
    """Our own secret; ``""``: not checked."""
    client_secret: str = attrs.field(default="", repr=False)
    """The API account's client secret, which signs webhooks (Standard Webhooks). Unsure: one page of the documentation
    mentions signatures, and not whether every hook has them; so with ``""`` they may be absent, otherwise must hold."""
    overlap: timedelta = timedelta(minutes=5)
    """How far each pull looks back before the last change seen. Orders move within the list while it is read, and
    whether ``min_date_modified`` includes its own second is unsure."""
    page_limit: int = attrs.field(default=250, validator=[attrs.validators.ge(1), attrs.validators.le(250)])
    """Entries per page. Unsure for orders: 250 is the platform's rule, the page about orders names no maximum. Should a
    store give fewer than asked for, nothing is lost."""
    orders_per_pull: int = attrs.field(default=500, validator=attrs.validators.ge(1))
    """How many orders one pull handles before it hands over what it has."""
    since: datetime | None = None
    """Where the very first pull begins; ``None``: with the oldest order of the store."""
    import_archived: bool = False
    """Whether archived orders (``is_deleted``) are imported."""
    ship_without_address: bool = False
    """Whether physical lines without a shipping address go to the billing address. Unsure: a line whose
    ``order_address_id`` is 0 is documented as not shipped, yet orders made by API may lack addresses altogether."""
    shipment_marker: str = "iom shipment "
    """What the line in a shipment's comments begins with, by which we know our shipments again. Don't change it while
    orders are under way."""
    tracking_carriers: Mapping[str, str] = attrs.field(factory=dict)
    """AfterShip courier codes for ``tracking_carrier`` by carrier name in lower case."""

    def __attrs_post_init__(self) -> None:
        if not self.store_hash or not self.store_hash.isascii() or not self.store_hash.isalnum():
            raise Misconfigured(self.system, "store_hash must be the letters and digits after /stores/ in the API path")
        if not self.access_token:
            raise Misconfigured(self.system, "access_token is missing")
        for name in ("webhook_secret", "client_secret"):
            if not getattr(self, name).isascii():
                raise Misconfigured(self.system, f"{name} must be ASCII: it is compared with a header")


Found = Message | Rejected
"""What reading an order may give."""


class _Gone(Exception):
    pass


@attrs.frozen
class _Place:
    """Where a puller stands: it reads on from *since*; *mark* is the latest change seen.

    *after*: a second so crowded that its changes fill a page is being read by id, and this is the last id seen.
    *resumed*: the last pull stopped on its way, so this one goes on from there instead of looking back.
    """

    since: datetime | None
    after: int | None = None
    mark: datetime | None = None
    resumed: bool = False

    def text(self) -> str:
        """Write it as a checkpoint."""
        moments = {"since": self.since, "mark": self.mark}
        return json.dumps(
            {name: moment.isoformat() if moment else "" for name, moment in moments.items()}
            | {"after": self.after, "resumed": self.resumed}
        )

    @classmethod
    def read(cls, text: str) -> _Place:
        """Read a checkpoint; raises `ValueError`, `TypeError` or `KeyError` when it is none of ours."""
        stored = json.loads(text)
        since, mark = (
            datetime.fromisoformat(stored[name]).astimezone(UTC) if stored[name] else None for name in ("since", "mark")
        )
        after = stored["after"]
        return cls(since, None if after is None else int(after), mark, bool(stored["resumed"]))

    def query(self) -> dict[str, str]:
        """Return the filters of the next list; they hold whether or not the store includes a bound's own second."""
        if self.since is None:
            return {"sort": "date_modified:asc"}
        if self.after is None:
            return {"sort": "date_modified:asc", "min_date_modified": _iso(self.since)}
        return {
            "sort": "id:asc",
            "min_id": str(self.after + 1),
            "min_date_modified": _iso(self.since),
            "max_date_modified": _iso(self.since + 2 * _SECOND),
        }

    def then(self, heads: Sequence[wire.Head], *, last_page: bool) -> _Place | None:
        """Return where to read on after a page of these orders; ``None`` when that was the last.

        An order that changes meanwhile moves to the end of the list, so turning pages would skip others. Instead the
        next list begins at this one's last change, less a second; and where that gets us nowhere, because all these
        changes are of one second, that second is read by id.
        """
        if self.after is not None and self.since is not None:
            if last_page:
                return attrs.evolve(self, since=self.since + _SECOND, after=None)
            return attrs.evolve(self, after=max(head.id for head in heads))
        if last_page:
            return None
        ahead = heads[-1].date_modified - _SECOND
        if self.since is None or ahead > self.since:
            return attrs.evolve(self, since=ahead)
        return attrs.evolve(self, after=0)


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000+00:00"


class BigCommerce:
    """One BigCommerce store, as a source of orders and a sink of statuses.

    It imports by status, not by event: orders in ``import_statuses`` become `NewOrder`, cancelled ones (5) `Canceled`,
    all others nothing. An order's message id never changes, so an order that is changed after it was imported is the
    same message again. Nothing is ever deleted.
    """

    def __init__(self, config: BigCommerceConfig, http: Client | None = None, clock: Clock = utc_now) -> None:
        self.config = config
        self._clock = clock
        self._session = Session(
            system=config.system,
            base_url=f"{config.base_url.rstrip('/')}/stores/{config.store_hash}",
            auth=FixedHeader("X-Auth-Token", config.access_token),
            client=client() if http is None else http,
            default_headers={"User-Agent": "iom (order orchestration library)"},
            wait=rate_limit,
            clock=clock,
        )
        # Messages built before, by id, time and status of the order: building one costs two calls or more. They are
        # kept whole, not as a flag, so that a pull whose result was lost on the way to the store returns them again.
        self._built: OrderedDict[tuple[int, datetime, int], tuple[Found, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"BigCommerce({self.config!r})"

    @property
    def system(self) -> System:
        """Return our name of this store."""
        return self.config.system

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what is possible beyond the ports: webhooks, once there is a secret to check them with."""
        checked = self.config.webhook_secret or self.config.client_secret
        return frozenset({Capability.WEBHOOKS}) if checked else frozenset()

    @property
    def calls(self) -> int:
        """Return how many requests were sent so far."""
        return self._session.calls

    def close(self) -> None:
        """Close the connections to the store."""
        self._session.close()

    # As a source of orders.

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what changed since *checkpoint*; see `OrderSource.pull`.

        The checkpoint is made of the store's times, so our clock need not be right; *now* only bounds it. When the rate
        limit ends a pull early, what was read until then is returned with ``more``.
        """
        place = self._place(checkpoint)
        found: list[Found] = []
        seen: set[tuple[int, datetime, int]] = set()
        fresh = 0
        while True:
            heads: list[wire.Head] = []
            try:
                entries = self._page(_ORDERS, 1, place.query())
                for index, entry in enumerate(entries):
                    try:
                        head = wire.head(entry)
                    except Unreadable as broken:
                        found.append(self._rejected(entry, broken, f"$[{index}]"))
                        continue
                    key = (head.id, head.date_modified, head.status_id)
                    if key not in seen:
                        fresh += key not in self._built
                        found.extend(self._messages(head, entry, now))
                        seen.add(key)
                    heads.append(head)
                    last = head.date_modified
                    place = attrs.evolve(place, mark=last if place.mark is None else max(place.mark, last))
            except Unavailable:
                if fresh <= 1:  # nothing but the one that failed: say so, or the caller would ask again at once
                    raise
                return Pulled(tuple(found), attrs.evolve(place, resumed=True).text(), more=True)
            if not heads and not self._is_last(entries):
                raise Misunderstood(self.system, "$: not one order of a whole page can be read")
            following = place.then(heads, last_page=self._is_last(entries))
            if following is None:
                mark = None if place.mark is None else min(place.mark, now)
                return Pulled(tuple(found), "" if mark is None else _Place(mark, mark=mark).text())
            place = following
            if len(seen) >= self.config.orders_per_pull:
                return Pulled(tuple(found), attrs.evolve(place, resumed=True).text(), more=True)

    def read(self, external_id: str, now: datetime) -> tuple[Found, ...]:
        """Return what an order says now; nothing when the store has no such order. See `OrderSource.read`."""
        try:
            number = wire.order_number(external_id)
        except ValueError as broken:
            return (self._rejected({"id": external_id}, Unreadable("$.id", str(broken))),)
        entry = self._order(number)
        if entry is None:
            return ()
        try:
            return self._messages(wire.head(entry), entry, now)
        except Unreadable as broken:
            return (self._rejected(entry, broken),)

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Authenticate a webhook and return the order ids it hints at; see `OrderSource.translate`.

        Our secret header and the signature are compared in constant time; each must hold when it is configured, and
        without either every delivery is refused. *headers* may be in any case. Answer 200 first, then `read`.
        """
        if len(body) > MAX_WEBHOOK:
            return Failure(self._no("too-large", f"the body is larger than {MAX_WEBHOOK} bytes"))
        lowered = {name.lower(): value for name, value in headers.items()}
        if not self._authentic(lowered, body):
            return Failure(self._no("unauthenticated", "the webhook does not prove that it comes from the store"))
        try:
            return Success(wire.hinted_orders(decode(body), self.config.store_hash))
        except Unreadable as broken:
            return Failure(self._no("malformed", broken.what, broken.where))
        except ValueError:
            return Failure(self._no("malformed", "the body is not JSON"))

    def _authentic(self, headers: Mapping[str, str], body: bytes) -> bool:
        ours, signing = self.config.webhook_secret, self.config.client_secret
        if not ours and not signing:
            return False
        held = True
        if ours:
            held &= hmac.compare_digest(headers.get(self.config.webhook_header.lower(), "").encode(), ours.encode())
        if signing:
            held &= is_signed(headers, body, signing, self._clock())
        return held

    def _place(self, checkpoint: str) -> _Place:
        if checkpoint == "":
            return _Place(self.config.since)
        try:
            place = _Place.read(checkpoint)
        except (ValueError, TypeError, KeyError):
            raise Misconfigured(self.system, "the checkpoint is none of ours; reset it to pull everything") from None
        if place.resumed or place.mark is None:
            return place
        back = place.mark - self.config.overlap
        return _Place(back if self.config.since is None else max(back, self.config.since), mark=place.mark)

    def _messages(self, head: wire.Head, entry: wire.Json, now: datetime) -> tuple[Found, ...]:
        key = (head.id, head.date_modified, head.status_id)
        with self._lock:
            known = self._built.get(key)
        if known is not None:
            return known
        try:
            built = self._build(head, entry, now, again=True)
        except _Gone:
            built = ()
        # A rejection is not remembered: it may be over before the order changes again (times are whole seconds).
        if not any(isinstance(each, Rejected) for each in built):
            with self._lock:
                self._built[key] = built
                while len(self._built) > _REMEMBERED:
                    self._built.popitem(last=False)
        return built

    def _build(self, head: wire.Head, entry: wire.Json, now: datetime, *, again: bool) -> tuple[Found, ...]:
        number = str(head.id)
        if head.is_deleted and not self.config.import_archived:
            return ()
        if head.status_id == Status.CANCELLED:
            body = Canceled(why="cancelled in the store")
            return (Message(self._message_id(number, "canceled"), self.system, body, now, external_id=number),)
        if head.status_id not in self.config.import_statuses:
            return ()
        try:
            draft = wire.to_draft(self._whole(number, entry), ship_without_address=self.config.ship_without_address)
        except Unreadable as broken:
            if again:
                # Its parts are read one after the other: it may have changed in between.
                entry = self._order(number)
                if entry is None:
                    return ()
                try:
                    changed = wire.head(entry)
                except Unreadable as still_broken:
                    return (self._rejected(entry, still_broken),)
                if changed != head:
                    return self._build(changed, entry, now, again=False)
            return (self._rejected(entry, broken),)
        return (Message(self._message_id(number, "new"), self.system, NewOrder(draft), now, external_id=number),)

    def _whole(self, number: str, entry: Mapping[str, wire.Json]) -> wire.Order:
        path = f"/v2/orders/{number}"
        payload = {
            **entry,
            "products": self._all(f"{path}/products"),
            "shipping_addresses": self._all(f"{path}/shipping_addresses", gone=False),
            "coupons": [],
            "fees": [],
        }
        order = wire.order(payload)
        try:
            wire.reconcile(order)
        except wire.Unexplained:
            payload["coupons"] = self._all(f"{path}/coupons", gone=False)
            payload["fees"] = self._fees(number)
            order = wire.order(payload)
        except ValueError:
            pass  # an unknown currency, which the draft reports with its path
        for index, line in enumerate(order.products):
            if line.quantity_shipped and not self._all_ours(path):
                raise Unreadable(
                    f"$.products[{index}].quantity_shipped",
                    f"{line.quantity_shipped} of this line were shipped already, by somebody else",
                )
        return order

    def _fees(self, number: str) -> wire.Json:
        """Read an order's fees as part of the order: what their own endpoint answers is documented in two ways."""
        entry = self._order(number, {"include": "fees"})
        fees = None if entry is None else entry.get("fees")
        return fees if isinstance(fees, list) else []  # a link object: there are none, or no permission

    def _all_ours(self, path: str) -> bool:
        return all(wire.is_ours(each, self.config.shipment_marker) for each in self._posted(path))

    # As a sink of statuses.

    def update(self, order: SalesOrder, update: StatusUpdate) -> Result[Receipt, Refused]:
        """Tell the store every shipment it hasn't heard of, then the status; see `StatusSink.update`.

        BigCommerce has no idempotency keys, so everything is read before it is written: a shipment is found again by
        our marker in its comments, or by tracking number and items; a status that is set, or already further, counts
        as told. Refused when the store protects its order (cancelled, refunded, disputed) or declines a shipment.
        """
        target = self.config.update_statuses.get(update.stage)
        if target is None:
            return Failure(self._no("unknown-stage", f"no status is configured for stage {update.stage!r}"))
        try:
            number = wire.order_number(order.external(self.system) or "")
        except ValueError:
            return Failure(self._no("unknown-order", f"order {order.id} has no number in this store", "$.externals"))
        parcels = self._parcels(order)
        if failed(parcels):
            return parcels
        now = self._standing(number, target)
        if failed(now):
            return now
        told = self._tell_shipments(number, parcels.unwrap())
        if failed(told):
            return told
        ids, posted = told.unwrap()
        if posted:  # unsure whether the store moves the status by itself when a shipment is added: look again
            now = self._standing(number, target)
            if failed(now):
                return now
        if not now.unwrap():
            reply = self._session.call("PUT", f"/v2/orders/{number}", body={"status_id": int(target)})
            refusal = self._refusal(reply)
            if refusal is not None:
                return Failure(refusal)
        details = f"{update.stage}; shipments {', '.join(map(str, ids))}" if ids else update.stage
        return Success(Receipt(number, details=details))

    def _standing(self, number: str, target: int) -> Result[bool, Refused]:
        """Return whether the order has *target*, or is past it; refused when it may not get it."""
        entry = self._order(number)
        if entry is None:
            return Failure(self._no("not-found", f"the store has no order {number}"))
        try:
            status = wire.head(entry).status_id
        except Unreadable as broken:
            raise Misunderstood(self.system, f"order {number}: {broken.what} (at {broken.where})") from None
        if status == target:
            return Success(True)
        if status in self.config.protected_statuses:
            return Failure(
                self._no("protected", f"order {number} has status {status}, which is not overwritten", "$.status_id")
            )
        reached = wire.PROGRESS.get(status, 0)
        if target == Status.CANCELLED:
            if reached > wire.PROGRESS[Status.PARTIALLY_SHIPPED]:
                return Failure(self._no("shipped", f"order {number} has been shipped (status {status})", "$.status_id"))
            return Success(False)
        return Success(reached > wire.PROGRESS.get(target, 0))

    def _parcels(self, order: SalesOrder) -> Result[tuple[Parcel, ...], Refused]:
        parcels: list[Parcel] = []
        for number, shipment in enumerate(order.shipments):
            by_address: dict[int, list[ShippedItem]] = {}
            for index, tracked in enumerate(shipment.lines):
                where = f"$.shipments[{number}].lines[{index}]"
                line = order.line(tracked.line)
                if line is None:
                    return Failure(self._no("unknown-line", f"order {order.id} has no line {tracked.line}", where))
                if line.digital or line.external_address in ("", "0"):
                    continue
                try:
                    item = wire.order_number(order.external(self.system, "order line", line.id) or "")
                    address = wire.order_number(line.external_address)
                    quantity = wire.whole_quantity(tracked)
                except ValueError as broken:
                    return Failure(self._no("unshippable", f"line {line.id}: {broken}", where))
                if quantity:
                    by_address.setdefault(int(address), []).append(ShippedItem(int(item), quantity))
            parcels += [Parcel(shipment, address, wire.sorted_items(items)) for address, items in by_address.items()]
        return Success(tuple(parcels))

    def _tell_shipments(self, number: str, parcels: Sequence[Parcel]) -> Result[tuple[list[int], bool], Refused]:
        """Post the parcels the store lacks; returns its shipment ids for all of them, and whether any was posted."""
        if not parcels:
            return Success(([], False))
        path = f"/v2/orders/{number}"
        prefix = self.config.shipment_marker
        known = wire.pair(parcels, prefix, self._posted(path))
        missing = [index for index, found in enumerate(known) if found is None]
        if missing:
            refusal = self._too_many(path, [parcels[index] for index in missing])
            if refusal is not None:
                return Failure(refusal)
        for index in missing:
            parcel = parcels[index]
            mark = wire.marker(prefix, parcel.shipment)
            body = wire.shipment_body(parcel, mark, self.config.tracking_carriers)
            reply = self._session.call("POST", f"{path}/shipments", body=body)
            refusal = self._refusal(reply)
            if refusal is not None:
                return Failure(refusal)
            created = reply.json(self.system)
            try:
                known[index] = wire.posted_shipments([created])[0].id
            except Unreadable as broken:
                raise Misunderstood(self.system, f"{path}/shipments: {broken.what} (at {broken.where})") from None
        return Success(([each for each in known if each is not None], bool(missing)))

    def _too_many(self, path: str, parcels: Sequence[Parcel]) -> Refused | None:
        """Refuse what the store counts as shipped already: somebody shipped it by hand, without our tracking number."""
        lines = self._all(f"{path}/products")
        left: dict[int, int] = {}
        try:
            for line in lines:
                product = wire.product(line)
                left[product.id] = product.quantity - product.quantity_shipped
        except Unreadable as broken:
            raise Misunderstood(self.system, f"{path}/products: {broken.what} (at {broken.where})") from None
        for item in wire.sorted_items([item for parcel in parcels for item in parcel.items]):
            if item.quantity > left.get(item.order_product_id, 0):
                open_ = left.get(item.order_product_id, 0)
                return self._no(
                    "over-shipped",
                    f"{item.quantity} of line {item.order_product_id} were shipped, the store has {open_} left to ship",
                    "$.shipments",
                )
        return None

    # Talking to the store.

    def _order(self, number: str, params: Mapping[str, str] | None = None) -> Mapping[str, wire.Json] | None:
        reply = self._session.call("GET", f"/v2/orders/{number}", params=params)
        if reply.status == 404:
            return None
        entry = self._expected(reply, f"/v2/orders/{number}")
        if not isinstance(entry, Mapping):
            raise Misunderstood(self.system, f"/v2/orders/{number}: $ is no object")
        return entry

    def _posted(self, path: str) -> tuple[PostedShipment, ...]:
        try:
            return wire.posted_shipments(self._all(f"{path}/shipments"))
        except _Gone:
            return ()
        except Unreadable as broken:
            raise Misunderstood(self.system, f"{path}/shipments: {broken.what} (at {broken.where})") from None

    def _all(self, path: str, *, gone: bool = True) -> list[wire.Json]:
        """Read every page of a list; a 404 is `_Gone`, or with *gone* false an empty list."""
        entries: list[wire.Json] = []
        for page in range(1, _MOST_PAGES + 1):
            try:
                part = self._page(path, page, {})
            except _Gone:
                if gone:
                    raise
                return entries
            entries += part
            if self._is_last(part):
                return entries
        raise Misunderstood(self.system, f"{path}: more than {_MOST_PAGES} pages, which can't be")

    def _page(self, path: str, page: int, params: Mapping[str, str]) -> list[wire.Json]:
        """Read one page. V2 has no pagination data: the end is a 204 without a body, or a page that isn't full."""
        limits = {"page": str(page), "limit": str(self.config.page_limit)}
        reply = self._session.call("GET", path, params={**params, **limits})
        if reply.status == 204:
            return []
        if reply.status == 404 and path != _ORDERS:
            raise _Gone
        entries = self._expected(reply, path)
        if not isinstance(entries, list):
            raise Misunderstood(self.system, f"{path}: $ is no list")
        return entries

    def _is_last(self, entries: Sequence[wire.Json]) -> bool:
        # A page shorter than we asked for may still be full: the store may allow less than we think (see page_limit).
        # It never allows less than its own default.
        return len(entries) < min(self.config.page_limit, _DEFAULT_LIMIT)

    def _expected(self, reply: Reply, path: str) -> wire.Json:
        """Return the JSON of a 200; any other answer to a read is a fault."""
        if reply.status == 200:
            return reply.json(self.system)
        said = _complaint(reply)
        if reply.status in _LATER:
            raise Unavailable(self.system, f"GET {path} answered {reply.status} {said}")
        if 400 <= reply.status < 500:
            raise Misconfigured(self.system, f"GET {path} was declined ({reply.status}): {said}")
        raise Misunderstood(self.system, f"GET {path} answered {reply.status}")

    def _refusal(self, reply: Reply) -> Refused | None:
        """Read the answer to a write: ``None`` is yes. A V2 error body has a status of its own, which may be wrong."""
        if 200 <= reply.status < 300:
            return None
        said = _complaint(reply)
        if reply.status in _LATER:
            raise Unavailable(self.system, f"the write was put off ({reply.status}): {said}")
        code = _DECLINED.get(reply.status)
        if code is None:
            raise Misconfigured(self.system, f"the write was declined ({reply.status}): {said}")
        return self._no(code, said or f"the store answered {reply.status}")

    def _no(self, code: str, what: str, where: str = "$") -> Refused:
        return Refused(code, what, where, who=self.system)

    def _message_id(self, number: str, fact: str) -> MessageId:
        return MessageId(f"{self.system}/order/{number}/{fact}")

    def _rejected(self, entry: wire.Json, broken: Unreadable, path: str = "$") -> Rejected:
        payload = encode(entry).decode()
        try:
            number = wire.order_number(entry["id"])
        except (KeyError, TypeError, ValueError):
            number = ""
        changed = entry.get("date_modified", payload) if isinstance(entry, Mapping) else payload
        digest = hashlib.sha256(encode([broken.where, broken.what, changed])).hexdigest()[:16]
        return Rejected(
            id=self._message_id(number or "unknown", f"rejected/{digest}"),
            system=self.system,
            what=broken.what,
            where=path + broken.where[1:],
            external_id=number,
            payload=payload[:_KEPT],
        )


def _complaint(reply: Reply) -> str:
    try:
        return wire.complaint(decode(reply.body))
    except ValueError:
        return ""


def rate_limit(reply: Reply) -> float | None:
    """Read BigCommerce's rate-limit headers: seconds to wait before the next call, or ``None``.

    The quota belongs to the store, not to us: it may be used up by others. A 429 without these headers means that the
    platform is overloaded, and only a growing pause helps, which is the engine's to choose.
    """
    if reply.status != 429 and reply.headers.get("x-rate-limit-requests-left") != "0":
        return None
    for name, per_second in (("x-rate-limit-time-reset-ms", 1000), ("x-retry-after", 1)):
        value = reply.headers.get(name, "")
        if value.isascii() and value.isdecimal() and len(value) < 10:
            return int(value) / per_second
    return None


def is_signed(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> bool:
    """Verify a Standard Webhooks signature, in constant time; header names are lower case.

    The signed text is ``{webhook-id}.{webhook-timestamp}.{body}``, the key the API account's client secret, the result
    one of the ``v1,<base64>`` entries of ``webhook-signature``; the timestamp may be five minutes off. Source:
    BigCommerce, HTTPS webhook overview; standardwebhooks.com.
    """
    sender, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sender or not stamp.isascii() or not stamp.isdecimal() or len(stamp) > 12:
        return False
    age = abs(now - datetime.fromtimestamp(int(stamp), UTC))
    digest = hmac.digest(secret.encode(), f"{sender}.{stamp}.".encode() + body, "sha256")
    wanted = b"v1," + base64.b64encode(digest)
    held = False
    for given in headers.get("webhook-signature", "").split(" "):
        held |= hmac.compare_digest(given.encode(), wanted)
    return held and age <= _SIGNATURE_TOLERANCE


_FROM_SETTINGS: Final[Mapping[str, Callable[[Any], object]]] = {
    "overlap": lambda seconds: timedelta(seconds=seconds),
    "since": lambda text: datetime.fromisoformat(text).astimezone(UTC),
    "system": System,
}
"""How settings from a file become what the configuration holds; those not named here are taken as they are."""


def connect(settings: Mapping[str, Any], *, http: Client | None = None, clock: Clock = utc_now) -> BigCommerce:
    """Build the adapter from plain settings, as the ``iom.adapters`` entry point does.

    *settings* are the fields of `BigCommerceConfig`; ``overlap`` is in seconds and ``since`` an ISO 8601 time. Raises
    `Misconfigured` for a missing, unknown or unusable setting, without quoting its value.
    """
    fields = attrs.fields_dict(BigCommerceConfig)
    name = str(settings.get("system", "bigcommerce"))
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise Misconfigured(name, f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(fields))}")
    for key in ("store_hash", "access_token"):
        if not isinstance(settings.get(key), str):
            raise Misconfigured(name, f"the setting {key!r} is missing or no text")
    values: dict[str, Any] = {}
    for key, value in settings.items():
        try:
            values[key] = _FROM_SETTINGS.get(key, _as_is)(value)
            if isinstance(fields[key].default, str) and not isinstance(value, str):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise Misconfigured(name, f"the setting {key!r} can't be used") from None
    try:
        config = BigCommerceConfig(**values)
    except (TypeError, ValueError):
        raise Misconfigured(name, "a setting is out of its bounds; see BigCommerceConfig") from None
    return BigCommerce(config, http, clock)


def _as_is(value: object) -> object:
    return value
