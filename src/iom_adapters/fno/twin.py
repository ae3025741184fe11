"""A stand-in for one F&O environment: its token endpoint, its OData service, and the people who work in it.

What people do in F&O (confirm, pick, pack, invoice, cancel) is not offered over OData there, so it is methods here.
Sources: fno.md sections 1 to 9, dualwrite.md section 6.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlsplit

import attrs

from iom_adapters._clock import Clock, utc_now
from iom_adapters._odata import (
    FNO,
    BadQuery,
    EnumLiteral,
    Operand,
    Resource,
    check_fields,
    compile_filter,
    fields_of,
    moment,
    parse_filter,
    parse_query,
    parse_resource,
    project,
    run_query,
)
from iom_adapters._twin import Documents, Faults, Json, TwinRequest, TwinResponse
from iom_adapters.fno.office import (
    Change,
    Company,
    Customer,
    Doc,
    Item,
    Malformed,
    Office,
    Rejection,
    Site,
    Vetoed,
    Warehouse,
    dec,
)
from iom_adapters.fno.schema import ENTITY_SETS, ENUMS, NAMESPACE, EntitySet, metadata

Listener = Callable[[tuple[Change, ...], str], None]
"""Called with what a transaction changed and its origin, before it commits; raising undoes the transaction."""

_WRITABLE: Final = frozenset({"SalesOrderHeadersV2", "SalesOrderLines"})
_NO_COMPANY: Final = frozenset({"LegalEntities"})
_BATCH_LIMIT: Final = 5000

THROTTLED: Final[Mapping[str, str]] = {
    # The spelling is Microsoft's; the first is history since 10.0.36, the second is always on (fno.md section 5).
    "requests": "Number of requests exeeded the limit of 6000 over the time window of 300 seconds.",
    "resources": "This request could not be processed at this time due to system experiencing high resource "
    "utilization.",
}


@attrs.frozen
class _Refusal(Exception):
    """An answer other than success."""

    response: TwinResponse


def _error(status: int, inner: str = "", kind: str = "System.InvalidOperationException") -> TwinResponse:
    """Answer in F&O's shape: the text that helps is in the inner error."""
    error: dict[str, Json] = {"code": "", "message": "An error has occurred."}
    if inner:
        error["innererror"] = {"message": inner, "type": kind, "stacktrace": "   at Microsoft.Dynamics.Ax.Xpp"}
    else:
        error["message"] = {401: "Unauthorized", 404: "Not Found"}.get(status, error["message"])
    return TwinResponse.of(status, {"error": error})


class FnoTwin:
    """F&O in a box. Thread-safe; with a *path* its books survive a killed process.

    *apps* maps client ids to secrets (who may get a token), *listed* those of them that F&O knows (``None``: all);
    *company* is the calling user's default one. Uncertain behavior is configuration: *conflict_status* (412 or 409),
    *empty_date* (which hour of 1900-01-01), *upper_areas* (``dataAreaId`` in capitals), *newer_statuses*
    (`DeliveredPartiallyInvoiced` exists), *bi_entities* (off: the role may not read them, 403). *lock* may be shared
    with another twin that listens, so that the two never wait for each other.
    """

    def __init__(
        self,
        companies: Sequence[Company],
        sites: Sequence[Site] = (),
        warehouses: Sequence[Warehouse] = (),
        customers: Sequence[Customer] = (),
        items: Sequence[Item] = (),
        *,
        path: Path | None = None,
        clock: Clock = utc_now,
        company: str = "",
        apps: Mapping[str, str] | None = None,
        listed: Iterable[str] | None = None,
        deliver: Callable[[bytes], None] | None = None,
        page_size: int = 10_000,
        token_lifetime: int = 3599,
        conflict_status: int = 412,
        empty_date: str = "1900-01-01T12:00:00Z",
        upper_areas: bool = False,
        newer_statuses: bool = True,
        bi_entities: bool = True,
        lock: threading.RLock | None = None,
        name: str = "fno",
    ) -> None:
        self.name = name
        self.faults = Faults()
        self.clock = clock
        self.company = (company or companies[0].id).lower()
        self.apps = dict(apps if apps is not None else {"iom": "secret"})
        self.listed = set(self.apps if listed is None else listed)
        self.deliver = deliver
        self.page_size = page_size
        self.token_lifetime = token_lifetime
        self.conflict_status = conflict_status
        self.upper_areas = upper_areas
        self.bi_entities = bi_entities
        self.listeners: list[Listener] = []
        self.undelivered: list[bytes] = []
        self._lock = lock or threading.RLock()
        self._depth = 0
        self._tokens: dict[str, tuple[str, datetime]] = {}
        self._issued = 0
        self._throttle = (0, "", 0)
        self._documents = Documents(path)
        self._office = Office(
            self._documents, clock, companies, sites, warehouses, customers, items, empty_date, newer_statuses
        )

    @classmethod
    def demo(cls, items: Iterable[str | Item] = ("CHAIR", "TABLE"), **options: Any) -> FnoTwin:
        """Build a small environment: companies ``usmf`` (USD) and ``demf`` (EUR), each with sites 1 and 2, warehouses
        11, 12, 21, 22 and a web customer (``US-WEB``, ``DE-WEB``); *options* go to the constructor.
        """
        goods = tuple(
            each if isinstance(each, Item) else Item(each, each.title(), price=Decimal(100)) for each in items
        )
        places = (
            ("usmf", "US", (("11", "1", "Reno", "NV", "89502"), ("12", "1", "Sparks", "NV", "89431"),
                            ("21", "2", "Newark", "NJ", "07102"), ("22", "2", "Trenton", "NJ", "08608"))),
            ("demf", "DE", (("11", "1", "Hamburg", "HH", "20095"), ("12", "1", "Bremen", "HB", "28195"),
                            ("21", "2", "Leipzig", "SN", "04103"), ("22", "2", "Dresden", "SN", "01067"))),
        )  # fmt: skip
        return cls(
            companies=(
                Company("usmf", "Contoso Entertainment System USA", "USD", "US"),
                Company(
                    "demf", "Contoso Entertainment System Germany", "EUR", "DE", order_format="DE{:06d}", first_order=1
                ),
            ),
            sites=tuple(Site(area, number, f"Site {number}") for area, _, _ in places for number in ("1", "2")),
            warehouses=tuple(
                Warehouse(area, number, site, f"{city} warehouse", "1 Dock Road", city, state, code, country)
                for area, country, rows in places
                for number, site, city, state, code in rows
            ),
            customers=(
                Customer("usmf", "US-WEB", "Web shop customer", country="US", party_type="Person"),
                Customer("usmf", "US-001", "Contoso Retail San Diego", country="US"),
                Customer("demf", "DE-WEB", "Webshop-Kunde", country="DE", party_type="Person"),
                Customer("demf", "DE-001", "Contoso Europe", country="DE"),
            ),
            items=goods,
            **options,
        )

    # --- the people, and other back doors ----------------------------------------------------------------

    @contextmanager
    def transaction(self, origin: str = "") -> Iterator[None]:
        """Do several things as one F&O transaction: listeners hear of it before it commits, and may undo it."""
        events: list[Doc] = []
        with self._lock:
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    changes = self._office.changes()
                    for listener in tuple(self.listeners) if changes else ():
                        listener(changes, origin)
                    events = self._office.commit()
            except BaseException:
                if self._depth == 1:
                    self._office.rollback()
                raise
            finally:
                self._depth -= 1
        for event in events:
            self._deliver(event)

    def _deliver(self, event: Doc) -> None:
        body = json.dumps(event).encode()
        if self.deliver is None:
            return
        try:
            self.deliver(body)
        except Exception:  # noqa: BLE001 - F&O tries three times and then keeps the event in its error log
            self.undelivered.append(body)

    def enter(self, company: str, lines: Sequence[Mapping[str, Json]], **header: Json) -> str:
        """Enter an order by hand, with OData field names, and return its number; raises `Rejection`."""
        with self.transaction():
            order = self._office.create_header("SalesOrderHeadersV2", {"dataAreaId": company, **header}, self.company)
            for line in lines:
                number = {"dataAreaId": company, "SalesOrderNumber": order["SalesOrderNumber"]}
                self._office.create_line("SalesOrderLines", {**number, **line}, self.company)
            return str(order["SalesOrderNumber"])

    def upsert(self, entity_set: str, values: Mapping[str, Json]) -> dict[str, Json]:
        """Write a row by its integration key, as dual-write does, and return the row after it.

        *entity_set* is ``CDSSalesOrderHeaders`` (key: company and number; without a number one is generated) or
        ``CDSSalesOrderLinesV2`` (key: company, number and LineCreationSequenceNumber). Raises `Rejection` or
        `Malformed`. Fields that F&O computes are left alone. Use `transaction` around it to write several rows at once.
        """
        spec = ENTITY_SETS[entity_set]
        area = str(values.get("dataAreaId") or self.company).lower()
        number = str(values.get("SalesOrderNumber") or "")
        with self.transaction("dual-write"):
            order = self._documents.get("order", f"{area}/{number}")
            if spec.name == "CDSSalesOrderHeaders":
                doc = (
                    self._office.update_header(spec.name, order, values)
                    if order is not None
                    else self._office.create_header(spec.name, values, area, own_number=True)
                )
            else:
                sequence = values.get("LineCreationSequenceNumber")
                known = self._office.lines(order) if order is not None else []
                line = next((each for each in known if each["LineCreationSequenceNumber"] == sequence), None)
                doc = (
                    self._office.create_line(spec.name, values, area)
                    if line is None
                    else self._office.update_line(spec.name, line, values)
                )
                doc = self._office.cds_line(self._documents.get("line", f"{area}/{doc['InventoryLotId']}") or doc)
            if spec.name == "CDSSalesOrderHeaders":
                doc = self._documents.get("order", f"{area}/{doc['SalesOrderNumber']}") or doc
            return self._office.row(spec.name, doc)

    def delete(self, entity_set: str, company: str, number: str, sequence: int = 0) -> None:
        """Delete an order (``CDSSalesOrderHeaders``) or one line of it, as dual-write does; raises `Rejection`."""
        with self.transaction("dual-write"):
            _, order = self._office.order(number, company)
            if entity_set == "CDSSalesOrderHeaders":
                self._office.delete_header(order)
                return
            for line in self._office.lines(order):
                if line["LineCreationSequenceNumber"] == sequence:
                    self._office.delete_line(line)

    def rows(self, entity_set: str, where: str = "") -> list[dict[str, Json]]:
        """Return rows of any entity set of all companies, sorted by key; *where* is a ``$filter``."""
        spec = ENTITY_SETS[entity_set]
        query = parse_query([("$filter", where)] if where else [])
        with self._lock:
            found = list(self._office.rows(entity_set, query.where))
        found.sort(key=lambda row: [str(row[key]) for key in spec.keys])
        return [dict(row) for row in run_query(query, found, FNO)[0]]

    def confirm(self, number: str, company: str = "") -> None:
        """Confirm an order."""
        with self.transaction():
            self._office.confirm(number, company)

    def pick(
        self, number: str, lines: Mapping[str, Any] | None = None, status: str = "Complete", company: str = ""
    ) -> str:
        """Post a picking list and register it as picked; returns the route's id.

        *lines* maps lot ids, line numbers or external item numbers to quantities (default: all that is left);
        *status* is the ``WMSExpeditionStatus`` it ends in: below ``Picked`` nothing is picked yet.
        """
        with self.transaction():
            return self._office.pick(number, lines, status, company)

    def pack(
        self,
        number: str,
        lines: Mapping[str, Any] | None = None,
        tracking: Sequence[tuple[str, str]] = (),
        carrier: str = "",
        company: str = "",
    ) -> str:
        """Post a packing slip (default: what was picked, or else all that is left); returns its id.

        *tracking* is pairs of tracking number and URL.
        """
        with self.transaction():
            return self._office.pack(number, lines, tracking, carrier, company)

    def track(self, slip: str, number: str, url: str = "", company: str = "") -> None:
        """Add a tracking number to a posted packing slip."""
        with self.transaction():
            self._office.track(slip, number, url, (company or self.company).lower())

    def invoice(self, number: str, lines: Mapping[str, Any] | None = None, company: str = "") -> str:
        """Post an invoice (default: what was delivered, or else deliver and invoice all); returns its number."""
        with self.transaction():
            return self._office.invoice(number, lines, company)

    def cancel(self, number: str, lines: Sequence[str] | None = None, company: str = "") -> None:
        """Cancel what was not delivered, of the whole order or of some lines."""
        with self.transaction():
            self._office.cancel(number, lines, company)

    def staff_step(self, *, confirm: bool = False) -> int:
        """Advance every open order one stage, pick → pack → invoice (*confirm*: that first); returns how many."""
        moved = 0
        with self._lock:
            open_orders = [dict(self._documents.get("order", key) or {}) for key in sorted(self._office.open)]
        for order in open_orders:
            number, area = str(order["SalesOrderNumber"]), str(order["dataAreaId"])
            with self._lock:
                lines = self._office.lines(order)
            live = [line for line in lines if line["SalesOrderLineStatus"] != "Canceled"]
            if not live:
                continue
            wanted = [dec(line["OrderedSalesQuantity"]) - dec(line["_canceled"]) for line in live]
            if confirm and order["SalesOrderProcessingStatus"] == "Active":
                self.confirm(number, area)
            elif any(dec(line["_picked"]) < each for line, each in zip(live, wanted)):
                self.pick(number, company=area)
            elif any(dec(line["_delivered"]) < each for line, each in zip(live, wanted)):
                self.pack(number, company=area, tracking=((f"1Z{area.upper()}{number}", ""),), carrier="UPS")
            else:
                self.invoice(number, company=area)
            moved += 1
        return moved

    def orders(self, reference: str = "") -> list[dict[str, Json]]:
        """Return order headers, all or those with a customer's reference."""
        where = f"CustomersOrderReference eq '{reference.replace(chr(39), chr(39) * 2)}'" if reference else ""
        return self.rows("SalesOrderHeadersV2", where)

    def lines(self, number: str) -> list[dict[str, Json]]:
        """Return the lines of the orders of that number."""
        return self.rows("SalesOrderLines", f"SalesOrderNumber eq '{number}'")

    def slips(self, number: str = "") -> list[dict[str, Json]]:
        """Return posted packing slips, all or one order's."""
        return self.rows("CustPackingSlipJourBiEntities", f"SalesId eq '{number}'" if number else "")

    def invoices(self, number: str = "") -> list[dict[str, Json]]:
        """Return posted invoices, all or one order's."""
        return self.rows("SalesInvoiceHeadersV2", f"SalesOrderNumber eq '{number}'" if number else "")

    def block_item(self, number: str, blocked: bool = True) -> None:
        """Block an item for sales in every company, or free it."""
        with self._lock:
            for key, item in self._office.items.items():
                if key[1] == number:
                    self._office.items[key] = attrs.evolve(item, blocked=blocked)

    def expire_tokens(self) -> None:
        """Make every token that was handed out worthless."""
        with self._lock:
            self._tokens.clear()

    def throttle(self, times: int, retry_after: int = 5, why: str = "resources") -> None:
        """Answer the next requests for data with 429; *why* is a key of `THROTTLED`."""
        with self._lock:
            self._throttle = (times, THROTTLED[why], retry_after)

    def close(self) -> None:
        """Close the file the books are kept in."""
        self._documents.close()

    # --- HTTP ----------------------------------------------------------------------------------------------

    def handle(self, request: TwinRequest) -> TwinResponse:
        """Answer one request."""
        path = unquote(request.path)
        with self._lock:
            if path.endswith(("/oauth2/v2.0/token", "/oauth2/token")):
                return self._token(request)
            if path.rstrip("/") != "/data" and not path.startswith("/data/"):
                return _error(404)
            refused = self._gate(request)
            if refused is not None:
                return refused
            if path == "/data/$batch":
                return self._batch(request)
            return self._data(request, path.removeprefix("/data").strip("/"))

    def _token(self, request: TwinRequest) -> TwinResponse:
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        client = form.get("client_id", "")
        scope, resource = form.get("scope", ""), form.get("resource", "")
        modern = request.path.endswith("/v2.0/token")
        if request.method != "POST" or form.get("grant_type") != "client_credentials":
            return _entra(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
        if modern and (not scope.endswith("/.default") or scope.endswith("//.default")):
            return _entra(400, "invalid_scope", 70011, f"The provided value for scope {scope} is not valid.")
        if not modern and not resource:
            return _entra(400, "invalid_request", 900144, "The request body must contain: 'resource'.")
        if client not in self.apps:
            return _entra(400, "unauthorized_client", 700016, f"Application '{client}' was not found in the directory.")
        if form.get("client_secret") != self.apps[client]:
            return _entra(401, "invalid_client", 7000215, "Invalid client secret provided.")
        self._issued += 1
        token = f"twin.{client}.{self._issued}"
        self._tokens[token] = (client, self.clock() + timedelta(seconds=self.token_lifetime))
        life = self.token_lifetime
        return TwinResponse.of(
            200, {"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token}
        )

    def _gate(self, request: TwinRequest) -> TwinResponse | None:
        client, until = self._tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "), ("", None))
        if until is None or self.clock() >= until or client not in self.listed:
            return TwinResponse(401, {"www-authenticate": "Bearer"}, b"")
        times, text, seconds = self._throttle
        if times > 0:
            self._throttle = (times - 1, text, seconds)
            return TwinResponse.of(429, {"error": {"code": "", "message": text}}, {"retry-after": str(seconds)})
        return None

    def _data(self, request: TwinRequest, path: str) -> TwinResponse:
        if path == "$metadata":
            return TwinResponse(200, {"content-type": "application/xml"}, metadata().encode())
        root = _root(request)
        if not path:
            names = [{"name": name, "kind": "EntitySet", "url": name} for name in ENTITY_SETS]
            return TwinResponse.of(200, {"@odata.context": f"{root}/$metadata", "value": names})
        try:
            counted = path.endswith("/$count")
            resource = parse_resource(path.removesuffix("/$count"))
            spec = ENTITY_SETS.get(resource.set)
            if spec is None or resource.rest:
                return _error(404)
            if spec.name.endswith("BiEntities") and not self.bi_entities:
                return _error(403)
            with self.transaction():
                if request.method == "GET":
                    return self._one(request, spec, resource) if resource.keyed else self._many(request, spec, counted)
                return self._write(request, spec, resource)
        except _Refusal as refusal:
            return refusal.response
        except BadQuery as broken:
            return _error(400, f"Invalid - {broken.what}.", "Microsoft.OData.ODataException")
        except Malformed as broken:
            return _error(400, str(broken), "Microsoft.OData.ODataException")
        except Rejection as refusal:
            return _error(400, refusal.text)
        except Vetoed as veto:
            return _error(400, str(veto))

    def _write(self, request: TwinRequest, spec: EntitySet, resource: Resource) -> TwinResponse:
        kind = spec.type + "Entity"
        if spec.name not in _WRITABLE:
            raise Rejection(kind, f"Field access is read only: {spec.name} can't be written.")
        if resource.keyed != (request.method != "POST"):
            return _error(405)
        if request.method == "POST":
            values = _body(request)
            create = self._office.create_header if spec.name == "SalesOrderHeadersV2" else self._office.create_line
            doc = create(spec.name, values, self.company)
            table = "order" if spec.name == "SalesOrderHeadersV2" else "line"
            key = doc["SalesOrderNumber"] if table == "order" else doc["InventoryLotId"]
            row = self._shown(spec, self._documents.get(table, f"{doc['dataAreaId']}/{key}") or doc)
            address = f"{_root(request)}/{spec.name}({','.join(f'{k}={quote(repr(row[k]))}' for k in spec.keys)})"
            row = {"@odata.context": f"{_root(request)}/$metadata#{spec.name}/$entity", **row}
            return TwinResponse.of(201, row, {"location": address, "odata-version": "4.0"})
        doc = self._find(request, spec, resource)
        wanted = request.headers.get("if-match", "*")
        if wanted not in ("*", self._shown(spec, doc)["@odata.etag"]):
            return _error(self.conflict_status, "The record was changed by another user.")
        header = spec.name == "SalesOrderHeadersV2"
        if request.method in ("PATCH", "PUT"):
            change = self._office.update_header if header else self._office.update_line
            change(spec.name, doc, _body(request))
        elif request.method == "DELETE":
            (self._office.delete_header if header else self._office.delete_line)(doc)
        else:
            return _error(405)
        return TwinResponse(204, {"odata-version": "4.0"})

    def _find(self, request: TwinRequest, spec: EntitySet, resource: Resource) -> Doc:
        """Find the document of a keyed request: every key field, and the company rule."""
        if set(resource.key) != set(spec.keys):
            raise BadQuery("the number of keys specified in the URI does not match the key properties of the resource")
        area = str(resource.key.get("dataAreaId", "")).lower()
        across = request.param("cross-company").lower() == "true" or spec.name in _NO_COMPANY
        if not across and area != self.company:
            raise _Refusal(_error(404))
        wanted = {name: value for name, value in resource.key.items() if name != "dataAreaId"}
        where = parse_filter(
            " and ".join(f"{name} eq '{value}'" for name, value in wanted.items() if isinstance(value, str)) or "1 eq 1"
        )
        for doc in self._office.docs(spec.name, where):
            row = self._office.row(spec.name, doc)
            if str(row.get("dataAreaId", "")).lower() in (area, "") and all(
                _same(row[name], value) for name, value in wanted.items()
            ):
                return doc
        raise _Refusal(_error(404))

    def _shown(self, spec: EntitySet, doc: Doc) -> Doc:
        row = self._office.row(spec.name, doc)
        if self.upper_areas and "dataAreaId" in row:
            row["dataAreaId"] = row["dataAreaId"].upper()
        return row

    def _one(self, request: TwinRequest, spec: EntitySet, resource: Resource) -> TwinResponse:
        query = parse_query(request.query)
        check_fields(query, spec.fields)
        row = project(self._shown(spec, self._find(request, spec, resource)), query.select)
        return TwinResponse.of(200, {"@odata.context": f"{_root(request)}/$metadata#{spec.name}/$entity", **row})

    def _many(self, request: TwinRequest, spec: EntitySet, counted: bool) -> TwinResponse:
        token = request.param("$skiptoken")
        query = parse_query(request.query)
        if query.expand:
            raise BadQuery("$expand is not part of this twin")
        check_fields(query, spec.fields)
        _check_enums(query.where, spec)
        across = request.param("cross-company").lower() == "true" or spec.name in _NO_COMPANY
        docs = self._office.docs(spec.name, query.where)
        chosen = docs if across else (doc for doc in docs if doc["dataAreaId"].lower() == self.company)
        if query.where is not None:
            chosen = self._matching(spec, chosen, query.where)
        found = [self._shown(spec, doc) for doc in chosen]
        found.sort(key=lambda row: [str(row[key]) if spec.fields[key] == "S" else row[key] for key in spec.keys])
        rows, total = run_query(attrs.evolve(query, where=None), found, FNO)
        if counted:
            return TwinResponse(200, {"content-type": "text/plain"}, str(total).encode())
        start = int(token, 16) if re.fullmatch(r"[0-9a-f]{1,8}", token) else 0
        page = rows[start : start + self.page_size]
        answer: Doc = {"@odata.context": f"{_root(request)}/$metadata#{spec.name}"}
        if query.count:
            answer["@odata.count"] = total
        answer["value"] = [project(row, query.select) for row in page]
        if start + self.page_size < len(rows):
            options = [(name, value) for name, value in request.query if name != "$skiptoken"]
            options.append(("$skiptoken", f"{start + self.page_size:x}"))
            text = "&".join(f"{quote(name, safe='$-')}={quote(value, safe='')}" for name, value in options)
            answer["@odata.nextLink"] = f"{_root(request)}/{spec.name}?{text}"
        return TwinResponse.of(200, answer, {"odata-version": "4.0"})

    def _matching(self, spec: EntitySet, docs: Iterable[Doc], where: Operand) -> Iterator[Doc]:
        """Yield the documents a filter holds for, without building whole rows of those it doesn't hold for."""
        wanted = compile_filter(where, FNO)
        names = fields_of(where)
        for doc in docs:
            if wanted(self._office.part(spec.name, doc, names)):
                yield doc

    # --- $batch ----------------------------------------------------------------------------------------------

    def _batch(self, request: TwinRequest) -> TwinResponse:
        """Run a multipart batch; each change set is one transaction and answers with one part when it fails."""
        try:
            parts = _parts(request.headers.get("content-type", ""), request.body)
        except ValueError as broken:
            return _error(400, str(broken), "Microsoft.OData.ODataException")
        answers: list[bytes] = []
        operations = 0
        for kind, body, _ in parts:
            inner = _parts(kind, body) if kind.startswith("multipart/mixed") else []
            operations += len(inner) or 1
            if operations > _BATCH_LIMIT:
                return _error(400, f"The batch holds more than {_BATCH_LIMIT} operations.")
            if not kind.startswith("multipart/mixed"):
                answers.append(_part(self._inner(request, body)))
                continue
            done: list[bytes] = []
            try:
                with self.transaction():
                    for _, each, content_id in inner:
                        answer = self._inner(request, each)
                        if answer.status >= 400:
                            raise _Refusal(answer)
                        done.append(_part(answer, content_id))
            except _Refusal as refusal:
                answers.append(_part(refusal.response))
            except Vetoed as veto:
                answers.append(_part(_error(400, str(veto))))
            else:
                text = b"".join(b"--changesetresponse\r\n" + each for each in done)
                answers.append(
                    b"Content-Type: multipart/mixed; boundary=changesetresponse\r\n\r\n"
                    + text
                    + b"--changesetresponse--\r\n"
                )
        whole = b"".join(b"--batchresponse\r\n" + each for each in answers) + b"--batchresponse--\r\n"
        return TwinResponse(200, {"content-type": "multipart/mixed; boundary=batchresponse"}, whole)

    def _inner(self, outer: TwinRequest, raw: bytes) -> TwinResponse:
        head, _, body = raw.replace(b"\r\n", b"\n").partition(b"\n\n")
        first, *rest = head.decode("utf-8", "replace").strip().split("\n")
        words = first.split()
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return _error(400, f"The batch part {first!r} is no request line.", "Microsoft.OData.ODataException")
        target = words[1] if words[1].startswith(("/", "http")) else f"/data/{words[1]}"
        split = urlsplit(target)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        inner = TwinRequest(
            words[0],
            split.path,
            tuple(parse_qsl(split.query, keep_blank_values=True)),
            {**headers, "host": outer.headers.get("host", "")},
            body.strip(),
            split.query,
        )
        return self._data(inner, unquote(split.path).removeprefix("/data").strip("/"))


def _entra(status: int, error: str, code: int, text: str) -> TwinResponse:
    return TwinResponse.of(
        status,
        {
            "error": error,
            "error_description": f"AADSTS{code}: {text}",
            "error_codes": [code],
            "timestamp": "2026-01-01 00:00:00Z",
            "trace_id": "00000000-0000-0000-0000-000000000000",
            "correlation_id": "00000000-0000-0000-0000-000000000000",
        },
    )


def _root(request: TwinRequest) -> str:
    host = request.headers.get("host", "fno.test")
    local = host.split(":")[0] in ("127.0.0.1", "localhost")
    return f"{'http' if local else 'https'}://{host}/data"


def _body(request: TwinRequest) -> dict[str, Json]:
    try:
        value = json.loads(request.body, parse_float=Decimal)
    except ValueError as broken:
        raise Malformed(f"The body is no JSON: {broken}") from None
    if not isinstance(value, dict):
        raise Malformed("The body must be a JSON object.")
    return value


def _same(stored: Json, value: object) -> bool:
    if isinstance(value, datetime):
        return moment(str(stored)) == value
    if isinstance(value, Decimal):
        return dec(stored) == value
    return str(stored).lower() == str(value).lower()


def _check_enums(where: Any, spec: EntitySet) -> None:
    """Refuse what F&O refuses: an enum compared with a string, or with another enum's literal, or a wrong symbol."""
    for name, value in _comparisons(where):
        code = spec.fields.get(name, "S")
        if code in ENUMS and isinstance(value, str):
            raise BadQuery(f"a binary operator with incompatible types: '{NAMESPACE}.{code}' and 'Edm.String'")
        if isinstance(value, EnumLiteral) and (
            value.type != f"{NAMESPACE}.{code}" or value.member not in ENUMS.get(code, ())
        ):
            raise BadQuery(f"{value.type}'{value.member}' is not valid for '{name}'")


def _comparisons(tree: Any) -> Iterator[tuple[str, object]]:
    from iom_adapters._odata import Binary, Const, Field, Not

    match tree:
        case Binary(_, Field(name), Const(value)) | Binary(_, Const(value), Field(name)):
            yield name, value
        case Binary(_, left, right):
            yield from _comparisons(left)
            yield from _comparisons(right)
        case Not(inner):
            yield from _comparisons(inner)


def _parts(content_type: str, body: bytes) -> list[tuple[str, bytes, str]]:
    """Split a multipart body into (content type, raw body, Content-ID)."""
    match = re.search(r"boundary=\"?([^\";\s]+)", content_type)
    if match is None or not content_type.startswith("multipart/mixed"):
        raise ValueError("A batch needs the content type multipart/mixed with a boundary.")
    found: list[tuple[str, bytes, str]] = []
    for raw in body.replace(b"\r\n", b"\n").split(b"--" + match.group(1).encode())[1:]:
        if raw.startswith(b"--"):
            break
        head, _, content = raw.lstrip(b"\n").partition(b"\n\n")
        headers = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + b"\n\n")
        found.append((str(headers.get("Content-Type", "")), content, str(headers.get("Content-ID", ""))))
    return found


def _part(answer: TwinResponse, content_id: str = "") -> bytes:
    reasons = {200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 404: "Not Found"}
    head = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
    head += f"Content-ID: {content_id}\r\n" if content_id else ""
    lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    status = f"HTTP/1.1 {answer.status} {reasons.get(answer.status, 'Error')}\r\n"
    return f"{head}\r\n{status}{lines}\r\n".encode() + answer.body + b"\r\n"
