"""Sales orders into F&O, each header and line once, and what happened to them out of it, in bulk.

F&O answers over OData only what it has posted, so everything but the invoice has to be asked for: `pull` reads picking
lists, packing slips, invoices and cancellations of a few days at a time. Sources: fno.md, iom.md section 6.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_adapters._auth import Auth, ClientCredentials
from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client, Reply, Session
from iom_adapters._http import client as new_client
from iom_adapters._odata import EnumLiteral, any_of, both, key_predicate, literal
from iom_adapters.fno import wire
from iom_adapters.fno.schema import NAMESPACE
from iom_adapters.fno.wire import Accounts, BadRow, Json, OrderKey, Row, SalesLine, Teller
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Message, Rejected
from iom_core.order import OrderLine, SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.ports import BillingRequest, Capability, ErpRequest, Pulled, Receipt
from iom_core.values import System

MARKERS: Final = ("ExternalItemNumber", "OrderLineReference", "CustomersLineNumber")
"""The line fields that may hold our line id (the last one a number: the line's place in the order)."""

FNO_SYSTEM: Final = System("fno")
_BIGGEST_EVENT: Final = 1024 * 1024
_PICKED: Final = ("Picked", "Staged", "Loaded", "Complete")


_DAYS: Final = ("overlap", "horizon", "window")
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    # every other setting is text
    **dict.fromkeys(_DAYS, (int,)),
    **dict.fromkeys(("customers", "guests", "delivery_modes", "states"), (Mapping,)),
    **dict.fromkeys(("companies", "excluded_reasons"), (list, tuple)),
    "bi_entities": (bool,),
    "bulk": (int,),
}


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


def _lower_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


def _lower(text: str) -> str:
    return text.lower()


@attrs.frozen(kw_only=True)
class FnoConfig:
    """How to reach one F&O environment, and how it is set up.

    Access: *base_url* is ``https://{env}.operations.dynamics.com``; *tenant* gives the Entra token address unless
    *token_url* names another (AD FS on premises: then *resource* is sent in place of the scope).

    Setup: *companies* are those to watch (empty: all the role sees). Numbers are unique per company only, so number
    sequences of several companies need different prefixes. *customers* maps our customers' accounts to F&O's, *guests*
    a company to the account that orders without a known customer are booked on. *delivery_modes* maps a channel
    (``""``: any other) to a delivery mode; *states* ``"US/Washington"`` to F&O's state id.

    Uncertain in F&O, hence choices: *line_marker* (which field keeps our line id), *bi_entities* (whether the role may
    read picking routes and packing slips; without, statuses are read instead and partial deliveries of a line stay
    unseen), *picking_date* (the field of a picking route that says when it last changed), *overlap* (how far back
    documents may be dated), *horizon* (how long a canceled order is looked for after it was created).
    """

    base_url: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    tenant: str = ""
    token_url: str = ""
    resource: str = ""
    companies: tuple[str, ...] = attrs.field(default=(), converter=_lower_names)
    customers: Mapping[str, str] = attrs.field(factory=dict)
    guests: Mapping[str, str] = attrs.field(factory=dict)
    delivery_modes: Mapping[str, str] = attrs.field(factory=dict)
    states: Mapping[str, str] = attrs.field(factory=dict)
    origin_code: str = ""
    reference_prefix: str = ""
    excluded_reasons: tuple[str, ...] = attrs.field(default=("Invoiced",), converter=_names)
    header_set: str = "SalesOrderHeadersV2"
    line_set: str = "SalesOrderLines"
    line_marker: str = attrs.field(default="ExternalItemNumber", validator=attrs.validators.in_(MARKERS))
    bi_entities: bool = True
    picking_date: str = "SysModifiedDateTime"
    overlap: timedelta = timedelta(days=1)
    horizon: timedelta = timedelta(days=90)
    window: timedelta = attrs.field(default=timedelta(days=7), validator=attrs.validators.ge(timedelta(days=1)))
    bulk: int = attrs.field(default=40, validator=attrs.validators.ge(1))
    webhook_secret: str = attrs.field(default="", repr=False)
    webhook_header: str = attrs.field(default="x-iom-secret", converter=_lower)
    system: System = FNO_SYSTEM

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> FnoConfig:
        """Build a configuration from plain settings; *overlap*, *horizon* and *window* are whole days.

        Raises `Misconfigured`, naming the setting.
        """
        known = {field.name for field in attrs.fields(cls)}
        values: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in known:
                raise Misconfigured("fno", f"$.{name}: there is no such setting")
            kinds = _KINDS.get(name, (str,))
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise Misconfigured("fno", f"$.{name}: {kinds[0].__name__} is needed, not {type(value).__name__}")
            if name in _DAYS:
                value = timedelta(days=int(str(value)))
            values[name] = value
        missing = [name for name in ("base_url", "client_id", "client_secret") if not values.get(name)]
        if missing:
            raise Misconfigured("fno", f"$.{missing[0]}: this setting is missing")
        try:
            return cls(**values)
        except (TypeError, ValueError) as broken:
            raise Misconfigured("fno", str(broken)) from None

    def auth(self, client: Client, clock: Clock) -> Auth:
        """Return the client credentials flow for this environment; raises `Misconfigured` without a token address."""
        if not (self.tenant or self.token_url):
            raise Misconfigured(str(self.system), "tenant or token_url is needed")
        return ClientCredentials(
            str(self.system),
            self.token_url or f"https://login.microsoftonline.com/{self.tenant}/oauth2/v2.0/token",
            self.client_id,
            self.client_secret,
            scope="" if self.resource else f"{self.base_url.rstrip('/')}/.default",
            resource=self.resource,
            client=client,
            clock=clock,
        )


@attrs.frozen
class _Place:
    """Where a puller stands: which stream, and from which day on within it. A round goes through all streams from
    *since* on; the next one starts before the day this one *began*, however long it takes. *serial* makes every
    checkpoint different from all others, so that one that comes back shows which answer was taken over.
    """

    serial: str
    stream: int
    start: date
    since: date
    began: date

    def write(self) -> str:
        return json.dumps([1, self.serial, self.stream, *map(date.isoformat, (self.start, self.since, self.began))])


def _without_cookies(client: Client) -> Client:
    """Never send F&O's affinity cookie back, so that load spreads over its servers (fno.md section 5)."""
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client


class Fno:
    """One F&O environment as `ErpOrders` and `Ledger`. Safe to use from several threads."""

    def __init__(self, config: FnoConfig, client: Client | None = None, clock: Clock = utc_now) -> None:
        self.config = config
        http = client if client is not None else _without_cookies(new_client())
        self._http = Session(
            str(config.system), config.base_url, config.auth(http, clock), http, {"OData-Version": "4.0"}, clock=clock
        )
        self._tell = Teller(config.system)
        self._lock = threading.Lock()
        self._told: dict[int, set[str]] = {}
        self._pulls = 0
        self._pending: tuple[str, int, set[str]] | None = None
        # Picks first and invoices last, as they happen.
        shipping = (self._picks, self._slips) if config.bi_entities else (self._progress,)
        self._streams: tuple[Callable[[_Window], _Told], ...] = (*shipping, self._invoices, self._cancels)

    @property
    def system(self) -> System:
        """Return the system's name, ``"fno"`` unless configured otherwise."""
        return self.config.system

    @property
    def capabilities(self) -> frozenset[Capability]:
        """An order may leave in several shipments, and F&O's business events are understood."""
        return frozenset({Capability.PARTIAL_SHIPMENTS, Capability.WEBHOOKS})

    # --- sending -------------------------------------------------------------------------------------------

    def send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        """Create or complete the order in F&O, each header and line once, also after a lost answer.

        Refused: an order that does not pass the sync filters, one without a customer account, and a header F&O
        refuses (with its infolog). Lines F&O refuses, and lines named in the request that don't pass the filters, are
        in ``line_errors``; other lines held back are named in ``details``. Raises the three faults.
        """
        try:
            return self._send(request)
        except BadRow as broken:
            raise Misunderstood(str(self.system), f"{broken.where} in $.value: {broken.what}") from broken

    def _send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        order = request.order
        checked = wire.passing(order, request.lines, self.config.excluded_reasons)
        if failed(checked):
            return checked
        plan = checked.unwrap()
        accounts = self._accounts(order)
        if failed(accounts):
            return accounts
        company = str(order.company).lower()
        number, created = self._find_header(company, str(order.id)), False
        if not number:
            posted = self._post(self.config.header_set, self._header(order, accounts.unwrap()))
            if failed(posted):
                return Failure(Refused("refused-by-erp", posted.failure(), "$", who=str(self.system)))
            number, created = wire.text_of(self._row(posted.unwrap(), "SalesOrderNumber"), "SalesOrderNumber"), True
        lots, errors = self._send_lines(order, number, plan.lines, {} if created else self._find_lines(company, number))
        held = plan.held if request.lines else ()
        waiting = "" if request.lines else "; ".join(f"line {line} held back: {why}" for line, why in plan.held)
        return Success(Receipt(number, lots, (*errors, *held), waiting))

    def bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        """Make sure the lines are in F&O, where its people or batch jobs invoice them; the invoice comes by `pull`."""
        return self.send(ErpRequest(request.key, request.order, request.lines))

    def _accounts(self, order: SalesOrder) -> Result[Accounts, Refused]:
        guest = self.config.guests.get(str(order.company).lower(), "")
        ordering = self.config.customers.get(order.customer) or order.invoice_customer or guest
        if not ordering:
            what = f"customer {order.customer!r} has no F&O account, and company {order.company} none for guests"
            return Failure(Refused("unmapped-customer", what, "$.customer", who=str(self.system)))
        return Success(Accounts(ordering, order.invoice_customer or ""))

    def _header(self, order: SalesOrder, accounts: Accounts) -> dict[str, Json]:
        modes = self.config.delivery_modes
        return wire.header_body(
            order,
            accounts,
            delivery_mode=modes.get(str(order.channel), modes.get("", "")),
            origin=self.config.origin_code,
            states=self.config.states,
        )

    def _find_header(self, company: str, reference: str) -> str:
        """Return the number of the order that carries our reference: the smallest, should people have copied it."""
        same = f"CustomersOrderReference eq {literal(reference)}"
        rows = self._all(
            self.config.header_set,
            both(f"dataAreaId eq {literal(company)}", same),
            ("dataAreaId", "SalesOrderNumber", "CustomersOrderReference"),
        )
        # F&O compares without case, and reads * as a wildcard: only an exact match is ours.
        numbers = [
            wire.text_of(row, "SalesOrderNumber")
            for row in map(self._object, rows)
            if row.get("CustomersOrderReference") == reference and str(row.get("dataAreaId", "")).lower() == company
        ]
        return min(numbers, default="")

    def _find_lines(self, company: str, number: str) -> dict[str, str]:
        """Return the lots of the order's lines by our marker."""
        marker = self.config.line_marker
        rows = self._all(
            self.config.line_set,
            both(f"dataAreaId eq {literal(company)}", f"SalesOrderNumber eq {literal(number)}"),
            ("dataAreaId", "SalesOrderNumber", "InventoryLotId", marker),
        )
        return {
            str(row.get(marker)): wire.text_of(row, "InventoryLotId")
            for row in sorted(map(self._object, rows), key=lambda row: str(row.get("InventoryLotId")), reverse=True)
        }

    def _mark(self, order: SalesOrder, line: OrderLine) -> Json:
        return order.lines.index(line) + 1 if self.config.line_marker == "CustomersLineNumber" else str(line.id)

    def _send_lines(
        self, order: SalesOrder, number: str, lines: Sequence[OrderLine], known: Mapping[str, str]
    ) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        costs = wire.amounts(order)
        lots: list[tuple[str, str]] = []
        errors: list[tuple[str, str]] = []
        for line in lines:
            mark = self._mark(order, line)
            if str(mark) in known:
                lots.append((str(line.id), known[str(mark)]))
                continue
            cost = wire.price(costs[str(line.id)], line.ordered.amount, line.quantity, line.total)
            body = wire.line_body(order, line, number, cost, self.config.line_marker, mark, self.config.states)
            posted = self._post(self.config.line_set, body)
            if failed(posted):
                errors.append((str(line.id), posted.failure()))
            else:
                lot = self._row(posted.unwrap(), "InventoryLotId")
                lots.append((str(line.id), wire.text_of(lot, "InventoryLotId")))
        return tuple(lots), tuple(errors)

    def _post(self, entity_set: str, body: Mapping[str, Json]) -> Result[Json, str]:
        reply = self._http.call("POST", f"/data/{entity_set}", body=body)
        if reply.status == 201:
            return Success(reply.json(str(self.system)))
        self._no_conflict(reply, entity_set)
        if reply.status == 404:
            raise Misconfigured(str(self.system), f"there is no entity set {entity_set} (404)")
        if 400 <= reply.status < 500:
            return Failure(self._reason(reply))
        raise Misunderstood(str(self.system), f"POST {entity_set} answered {reply.status}, not 201")

    def _reason(self, reply: Reply) -> str:
        try:
            said = wire.reason(reply.json(str(self.system)))
        except Misunderstood:
            said = ""
        return said or f"F&O refused without a reason ({reply.status})"

    def _no_conflict(self, reply: Reply, what: str) -> None:
        if reply.status in (409, 412):  # which of the two F&O sends is not documented
            raise Unavailable(str(self.system), f"{what} was changed by somebody else ({reply.status})")

    def _row(self, value: Json, needed: str) -> Row:
        if not isinstance(value, dict) or not isinstance(value.get(needed), str) or not value[needed]:
            raise Misunderstood(str(self.system), f"$.{needed} is missing in the answer to a write")
        return value

    def _object(self, value: Json) -> Row:
        if not isinstance(value, dict):
            raise Misunderstood(str(self.system), "$.value holds something that is no object")
        return value

    # --- reading -------------------------------------------------------------------------------------------

    def _all(self, entity_set: str, where: str, select: Sequence[str], order: str = "") -> Iterator[Json]:
        """Yield every row of a query over all companies, following next links to the end."""
        params = {"cross-company": "true", "$filter": where, "$select": ",".join(select), "$orderby": order}
        reply = self._http.call(
            "GET", f"/data/{entity_set}", params={name: text for name, text in params.items() if text}
        )
        seen: set[str] = set()
        while True:
            page = self._page(reply, entity_set)
            yield from page["value"]
            link = page.get("@odata.nextLink")
            if link is None:
                return
            if not isinstance(link, str) or link in seen:
                raise Misunderstood(str(self.system), "$['@odata.nextLink'] is no address, or leads in a circle")
            seen.add(link)
            reply = self._http.call("GET", link)

    def _page(self, reply: Reply, entity_set: str) -> dict[str, Json]:
        if reply.status == 404:
            raise Misconfigured(str(self.system), f"there is no entity set {entity_set} (404)")
        if reply.status != 200:
            raise Misunderstood(
                str(self.system), f"GET {entity_set} answered {reply.status}: {self._reason(reply)}"[:500]
            )
        page = reply.json(str(self.system))
        if not isinstance(page, dict) or not isinstance(page.get("value"), list):
            raise Misunderstood(str(self.system), f"$.value of {entity_set} is no list")
        return page

    def _bulk(
        self, entity_set: str, field: str, keys: Iterable[OrderKey], select: Sequence[str], also: str = ""
    ) -> Iterator[Json]:
        """Yield the rows whose company and *field* are one of *keys*, many to a request."""
        by_company: dict[str, set[str]] = defaultdict(set)
        for company, number in keys:
            by_company[company].add(number)
        for company, numbers in sorted(by_company.items()):
            ordered = sorted(numbers)
            for at in range(0, len(ordered), self.config.bulk):
                some = any_of(field, ordered[at : at + self.config.bulk])
                yield from self._all(entity_set, both(f"dataAreaId eq {literal(company)}", some, also), select)

    def _companies(self) -> str:
        return any_of("dataAreaId", self.config.companies)

    def _ours(self, reference: str) -> bool:
        """Orders we sent carry our order id as the customer's reference; others came to F&O in another way."""
        return bool(reference) and reference.startswith(self.config.reference_prefix)

    # --- pulling -------------------------------------------------------------------------------------------

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what was picked, delivered, invoiced and canceled: one kind and up to *window* of days per call.

        F&O dates its documents by day, so each round starts *overlap* before the last one. What this object returned
        under a checkpoint that came back is not returned again; after a restart it is, with the same message ids.
        Raises `Misconfigured` for a checkpoint that is not ours.
        """
        place = self._place(checkpoint, now)
        with self._lock:
            if self._pending is not None and self._pending[0] == checkpoint:
                self._told.setdefault(self._pending[1], set()).update(self._pending[2])
            elif self._pending is not None:
                self._told.clear()  # somebody went back: tell it all again
            self._pending = None
            told = frozenset(self._told.get(place.stream, ()))
        today = now.date()
        end = place.start + self.config.window
        last = end > today
        messages, keys = _told(self._streams[place.stream](_Window(place.start, None if last else end, told, now)))
        if not last:
            following = attrs.evolve(place, start=end)
        elif place.stream + 1 < len(self._streams):
            following = attrs.evolve(place, stream=place.stream + 1, start=place.since)
        else:
            start = place.began - self.config.overlap
            following = _Place("", 0, start, start, today)
        with self._lock:
            self._pulls += 1
            after = attrs.evolve(following, serial=f"{now.isoformat()}/{self._pulls}").write()
            if last and place.start == place.since and place.stream in self._told:
                self._told[place.stream] &= keys  # forget what is older than the window
            self._pending = (after, place.stream, keys)
        return Pulled(tuple(messages), after, more=not last or place.stream + 1 < len(self._streams))

    def _place(self, checkpoint: str, now: datetime) -> _Place:
        if not checkpoint:
            start = now.date() - self.config.horizon
            return _Place("", 0, start, start, now.date())
        try:
            version, serial, stream, *days = json.loads(checkpoint)
            place = _Place(str(serial), int(stream), *map(date.fromisoformat, days))
        except (ValueError, TypeError) as broken:
            raise Misconfigured(str(self.system), "the checkpoint was not written by this adapter") from broken
        if version != 1 or not 0 <= place.stream < len(self._streams):
            raise Misconfigured(str(self.system), "the checkpoint was written by another version or configuration")
        return place

    def read(self, sales_order_number: str, now: datetime) -> tuple[Message | Rejected, ...]:
        """Return everything F&O knows of one order, with the same message ids as `pull`."""
        window = _Window(None, None, frozenset(), now, sales_order_number)
        found: list[Message | Rejected] = []
        for stream in self._streams:
            found.extend(_told(stream(window))[0])
        return tuple(found)

    def _picks(self, window: _Window) -> _Told:
        """Picking lists that were picked; how much is on the sales lines."""
        fields = ("dataAreaId", "pickingRouteID", "shipmentId", "transRefId", "expeditionStatus", "endDateTime",
                  self.config.picking_date)  # fmt: skip
        sales = f"transType eq {literal(EnumLiteral(f'{NAMESPACE}.InventTransType', 'Sales'))}"
        done = any_of("expeditionStatus", (EnumLiteral(f"{NAMESPACE}.WMSExpeditionStatus", each) for each in _PICKED))
        where = both(self._companies(), sales, done, window.dates(self.config.picking_date), window.one("transRefId"))
        at: dict[OrderKey, datetime] = {}
        for row in self._all("WMSPickingRouteBiEntities", where, tuple(dict.fromkeys(fields))):
            try:
                key = wire.key_of(row, "transRefId")
                stamp = wire.when_of(row, self.config.picking_date) or window.now
                ended = wire.when_of(row, "endDateTime") or stamp
                name = f"{key}/{wire.text_of(row, 'pickingRouteID')}/{stamp}/{row.get('expeditionStatus')}"
            except (BadRow, AttributeError) as broken:
                yield "", self._bad("WMSPickingRouteBiEntities", row, broken)
                continue
            if name not in window.told:
                at[key] = max(ended, at.get(key, ended))
            yield name, None
        yield from self._picked(at)

    def _picked(self, at: Mapping[OrderKey, datetime]) -> _Told:
        ours = self._only_ours(at)
        lines, bad = self._lines("CDSSalesOrderLinesV2", ours, wire.CDS_LINE_FIELDS)
        for rejected in bad:
            yield "", rejected
        for key in sorted(ours):
            message = self._tell.picked(key, lines.get(key, []), at[key])
            if message is not None:
                yield "", message

    def _only_ours(self, keys: Iterable[OrderKey]) -> set[OrderKey]:
        found: set[OrderKey] = set()
        fields = ("dataAreaId", "SalesOrderNumber", "CustomersOrderReference")
        for row in self._bulk(self.config.header_set, "SalesOrderNumber", keys, fields):
            try:
                if self._ours(wire.text_of(row, "CustomersOrderReference", needed=False)):
                    found.add(wire.key_of(row, "SalesOrderNumber"))
            except (BadRow, AttributeError):
                continue  # an unreadable header is none of ours
        return found

    def _lines(
        self, entity_set: str, keys: Iterable[OrderKey], fields: Sequence[str]
    ) -> tuple[dict[OrderKey, list[SalesLine]], list[Rejected]]:
        """Return the sales lines of many orders; an order with an unreadable line is left out."""
        lines: dict[OrderKey, list[SalesLine]] = defaultdict(list)
        bad: list[Rejected] = []
        broken_orders: set[OrderKey] = set()
        for row in self._bulk(entity_set, "SalesOrderNumber", keys, fields):
            try:
                key = wire.key_of(row, "SalesOrderNumber")
                try:
                    lines[key].append(wire.sales_line(row))
                except BadRow:
                    broken_orders.add(key)
                    raise
            except (BadRow, AttributeError) as broken:
                bad.append(self._bad(entity_set, row, broken))
        for key in broken_orders:
            del lines[key]
        return {key: sorted(each, key=lambda line: line.sequence) for key, each in lines.items()}, bad

    def _bad(self, entity_set: str, row: Json, broken: Exception, number: str = "") -> Rejected:
        known = broken if isinstance(broken, BadRow) else BadRow("$", "a row must be an object")
        return self._tell.rejected(entity_set, row, known, number)

    def _slips(self, window: _Window) -> _Told:
        """Posted packing slips, their lines and their tracking numbers."""
        fields = ("dataAreaId", "SourceDocumentHeader", "SalesId", "PackingSlipId", "DeliveryDate", "CreatedOn",
                  "CustomerRef", "ShipCarrierId", "DlvMode", "inventLocationId")  # fmt: skip
        where = both(self._companies(), window.dates("DeliveryDate"), window.one("SalesId"))
        entity_set = "CustPackingSlipJourBiEntities"
        slips: dict[tuple[str, str, str], Row] = {}
        for row in self._all(entity_set, where, fields):
            try:
                key, slip = wire.key_of(row, "SalesId"), wire.text_of(row, "PackingSlipId")
                name = f"{key}/{slip}"
                if name not in window.told and self._ours(wire.text_of(row, "CustomerRef", needed=False)):
                    slips[(*key, slip)] = row
                yield name, None
            except (BadRow, AttributeError) as broken:
                yield "", self._bad(entity_set, row, broken)
        orders = {(company, number) for company, number, _ in slips}
        lines: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        line_fields = ("dataAreaId", "SourceDocumentLine", "SalesId", "PackingSlipId", "InventTransId", "Qty")
        yield from self._gather(
            "CustPackingSlipTransBiEntities", "SalesId", "PackingSlipId", orders, line_fields, lines
        )
        tracking: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        codes = ("dataAreaId", "SalesOrderNumber", "PackingSlipNumber", "TrackingNumber", "TrackingURL")
        yield from self._gather(
            "PackingSlipTrackingInformation", "SalesOrderNumber", "PackingSlipNumber", orders, codes, tracking
        )
        for place, row in slips.items():
            try:
                yield "", self._tell.shipped(row, lines[place], tracking[place], window.now)
            except BadRow as broken:
                yield "", self._bad(entity_set, {**row, "lines": lines[place]}, broken)

    def _gather(
        self,
        entity_set: str,
        order: str,
        document: str,
        keys: Iterable[OrderKey],
        fields: Sequence[str],
        into: dict[tuple[str, str, str], list[Row]],
    ) -> _Told:
        """Group the rows of many orders by company, order and document."""
        for row in self._bulk(entity_set, order, keys, fields):
            try:
                into[(*wire.key_of(row, order), wire.text_of(row, document))].append(row)
            except (BadRow, AttributeError) as broken:
                yield "", self._bad(entity_set, row, broken)

    def _progress(self, window: _Window) -> _Told:
        """Without the BI entities: what header and line statuses tell of picking and delivery."""
        if window.end is not None:
            return  # statuses have no date: once per round is enough
        symbols = ("Picked", "PartiallyDelivered", "Delivered", "PartiallyInvoiced", "DeliveredPartiallyInvoiced",
                   "Invoiced")  # fmt: skip
        enum = f"{NAMESPACE}.SalesOrderProcessingStatus"
        where = both(
            self._companies(),
            any_of("SalesOrderProcessingStatus", (EnumLiteral(enum, symbol) for symbol in symbols)),
            self._lately(window),
            window.one("SalesOrderNumber"),
        )
        fields = ("dataAreaId", "SalesOrderNumber", "CustomersOrderReference", "SalesOrderProcessingStatus")
        status: dict[OrderKey, str] = {}
        for row in self._all(self.config.header_set, where, fields):
            try:
                key, symbol = (
                    wire.key_of(row, "SalesOrderNumber"),
                    wire.text_of(row, "SalesOrderProcessingStatus"),
                )
                # Only an order that is through can't change any more.
                name = f"{key}/{symbol}" if symbol in ("Delivered", "Invoiced") else ""
                if name not in window.told and self._ours(wire.text_of(row, "CustomersOrderReference", needed=False)):
                    status[key] = symbol
                yield name, None
            except (BadRow, AttributeError) as broken:
                yield "", self._bad(self.config.header_set, row, broken)
        lines, bad = self._lines("CDSSalesOrderLinesV2", status, wire.CDS_LINE_FIELDS)
        for rejected in bad:
            yield "", rejected
        for key, each in sorted(lines.items()):
            if status[key] == "Picked" and not any(line.picked for line in each):
                # The picking list is posted, and this environment does not fill PickedQuantity.
                each = [attrs.evolve(line, picked=line.ordered) for line in each if line.status == "Backorder"]
            picked = self._tell.picked(key, each, window.now)
            if picked is not None:
                yield "", picked
            for line in each:
                if line.status in ("Delivered", "Invoiced"):
                    yield "", self._tell.delivered(key, line, window.now)

    def _invoices(self, window: _Window) -> _Told:
        """Posted invoices; their lines are matched to the order's."""
        fields = ("dataAreaId", "InvoiceNumber", "InvoiceDate", "LedgerVoucher", "SalesOrderNumber",
                  "CustomersOrderReference", "CurrencyCode", "TotalInvoiceAmount")  # fmt: skip
        where = both(
            self._companies(), "SalesOrderNumber ne ''", window.dates("InvoiceDate"), window.one("SalesOrderNumber")
        )
        entity_set = "SalesInvoiceHeadersV2"
        invoices: dict[OrderKey, Row] = {}
        orders: dict[OrderKey, OrderKey] = {}
        for row in self._all(entity_set, where, fields):
            try:
                key, order = wire.key_of(row, "InvoiceNumber"), wire.key_of(row, "SalesOrderNumber")
                name = f"{key}/{row.get('LedgerVoucher')}"
                if name not in window.told and self._ours(wire.text_of(row, "CustomersOrderReference", needed=False)):
                    invoices[key], orders[key] = row, order
                yield name, None
            except (BadRow, AttributeError) as broken:
                yield "", self._bad(entity_set, row, broken)
        rows: dict[OrderKey, list[Row]] = defaultdict(list)
        sold = ("dataAreaId", "InvoiceNumber", "LineCreationSequenceNumber", "ProductNumber", "InvoicedQuantity")
        for row in self._bulk("SalesInvoiceV2Lines", "InvoiceNumber", invoices, sold):
            try:
                rows[wire.key_of(row, "InvoiceNumber")].append(row)
            except (BadRow, AttributeError) as broken:
                yield "", self._bad("SalesInvoiceV2Lines", row, broken)
        lines, bad = self._lines(self.config.line_set, orders.values(), wire.LINE_FIELDS)
        for rejected in bad:
            yield "", rejected
        for key, row in invoices.items():
            try:
                yield "", self._tell.invoiced(row, rows[key], lines.get(orders[key], []), window.now)
            except BadRow as broken:
                yield "", self._bad(entity_set, {**row, "lines": rows[key]}, broken)

    def _cancels(self, window: _Window) -> _Told:
        """Canceled orders, and canceled lines of the others; F&O does not say when, so they are looked for anew."""
        if window.end is not None:
            return  # statuses have no date: once per round is enough
        enum = EnumLiteral(f"{NAMESPACE}.SalesOrderProcessingStatus", "Canceled")
        where = both(
            self._companies(),
            f"SalesOrderProcessingStatus eq {literal(enum)}",
            self._lately(window),
            window.one("SalesOrderNumber"),
        )
        gone: set[OrderKey] = set()
        fields = ("dataAreaId", "SalesOrderNumber", "CustomersOrderReference")
        for row in self._all(self.config.header_set, where, fields):
            try:
                key = wire.key_of(row, "SalesOrderNumber")
                gone.add(key)
                if str(key) not in window.told and self._ours(
                    wire.text_of(row, "CustomersOrderReference", needed=False)
                ):
                    yield "", self._tell.canceled(key, (), window.now)
                yield str(key), None
            except (BadRow, AttributeError) as broken:
                yield "", self._bad(self.config.header_set, row, broken)
        yield from self._canceled_lines(window, gone)

    def _canceled_lines(self, window: _Window, gone: set[OrderKey]) -> _Told:
        status = literal(EnumLiteral(f"{NAMESPACE}.SalesStatus", "Canceled"))
        since = (
            "" if window.number else f"RequestedShippingDate ge {_midnight((window.now - self.config.horizon).date())}"
        )
        where = both(self._companies(), f"SalesOrderLineStatus eq {status}", since, window.one("SalesOrderNumber"))
        lots: dict[OrderKey, list[str]] = defaultdict(list)
        for row in self._all(self.config.line_set, where, ("dataAreaId", "SalesOrderNumber", "InventoryLotId")):
            try:
                lots[wire.key_of(row, "SalesOrderNumber")].append(wire.text_of(row, "InventoryLotId"))
            except (BadRow, AttributeError) as broken:
                yield "", self._bad(self.config.line_set, row, broken)
        new = {
            key: each for key, each in lots.items() if key not in gone and f"{key}/{sorted(each)}" not in window.told
        }
        ours = self._only_ours(new)
        for key in sorted(lots):
            if key in ours:
                yield "", self._tell.canceled(key, lots[key], window.now)
            yield f"{key}/{sorted(lots[key])}", None

    def _lately(self, window: _Window) -> str:
        if window.number:
            return ""
        return f"OrderCreationDateTime ge {_midnight((window.now - self.config.horizon).date())}"

    # --- business events -----------------------------------------------------------------------------------

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Authenticate a business event and return the sales order numbers it hints at; `read` tells the rest.

        The sender proves itself by our secret in the configured header, compared in constant time. The test event and
        events that name no order give no hints. Raises `Misconfigured` when no secret is configured.
        """
        if not self.config.webhook_secret:
            raise Misconfigured(str(self.system), "business events need a webhook_secret")
        given = next((value for name, value in headers.items() if name.lower() == self.config.webhook_header), "")
        if not hmac.compare_digest(given.encode(), self.config.webhook_secret.encode()):
            return Failure(Refused("forged", "the delivery does not carry our secret", who=str(self.system)))
        if len(body) > _BIGGEST_EVENT:
            return Failure(Refused("oversized", f"more than {_BIGGEST_EVENT} bytes", who=str(self.system)))
        events = wire.business_events(body)
        if failed(events):
            return events
        watched = self.config.companies
        return Success(
            tuple(
                dict.fromkeys(
                    each.order
                    for each in events.unwrap()
                    if each.order and (not watched or each.company in ("", *watched))
                )
            )
        )

    # --- one row by its key --------------------------------------------------------------------------------

    def header(self, company: str, number: str) -> Row | None:
        """Return one order header as F&O has it, or ``None``: by its whole key, in whatever company it is."""
        key = key_predicate({"dataAreaId": company.lower(), "SalesOrderNumber": number})
        reply = self._http.call("GET", f"/data/{self.config.header_set}{key}", params={"cross-company": "true"})
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise Misunderstood(str(self.system), f"GET {self.config.header_set} answered {reply.status}")
        return self._object(reply.json(str(self.system)))


@attrs.frozen
class _Window:
    """What a stream is asked for: days from *start* to before *end* (``None``: open), or all of one order's *number*.

    *told* are the names of rows that were told before.
    """

    start: date | None
    end: date | None
    told: frozenset[str]
    now: datetime
    number: str = ""

    def dates(self, field: str) -> str:
        since = f"{field} ge {_midnight(self.start)}" if self.start else ""
        return both(since, f"{field} lt {_midnight(self.end)}" if self.end else "")

    def one(self, field: str) -> str:
        return f"{field} eq {literal(self.number)}" if self.number else ""


def _midnight(day: date) -> str:
    return literal(datetime.combine(day, time(0), UTC))


_Told = Iterator[tuple[str, Message | Rejected | None]]
"""What a stream yields: names of rows it has looked at, and messages."""


def _told(found: _Told) -> tuple[list[Message | Rejected], set[str]]:
    """Collect a stream: each message once (a row may be met on two pages), and the names of its rows."""
    messages: dict[str, Message | Rejected] = {}
    names: set[str] = set()
    for name, message in found:
        if name:
            names.add(name)
        if message is not None:
            messages.setdefault(message.id, message)
    return list(messages.values()), names
