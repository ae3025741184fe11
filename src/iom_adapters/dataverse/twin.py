"""A stand-in for one Dataverse organization: its token endpoint, its Web API v9.2, and dual-write behind its tables.

What F&O does to the organization comes in through `erp_changed`. Sources: powerapps-docs, developer/data-platform and
webapi (MicrosoftDocs/powerapps-docs, CC-BY-4.0). Error codes the documentation does not give are marked where they
are used.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlsplit

import attrs

from iom_adapters._clock import Clock, utc_now
from iom_adapters._odata import (
    DATAVERSE,
    BadQuery,
    Query,
    Resource,
    check_fields,
    parse_query,
    parse_resource,
    possible,
    project,
    run_query,
)
from iom_adapters._twin import Documents, Fault, Faults, Json, TwinRequest, TwinResponse
from iom_adapters.dataverse.dual_write import Row, TableMap
from iom_adapters.dataverse.maps import IOM_MAPS
from iom_adapters.dataverse.replication import DualWriteRefusal, ErpChange, ErpSide, Queued, Replication
from iom_adapters.dataverse.rows import VERSION, DuplicateKey, Rows
from iom_adapters.dataverse.tables import BY_LOGICAL_NAME, TABLES, Table

ROOT: Final = "/api/data/v9.2/"
MAX_PAGE: Final = 5000
MAX_COUNT: Final = 5000
MAX_OPERATIONS: Final = 1000
DELTA_AGE: Final = timedelta(days=7)
WINDOW: Final = timedelta(minutes=5)
BAD_KEY_CHARACTERS: Final = frozenset("/<>*%&:\\?+")
"""Characters that break an alternate key in an address."""

LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "requests": (
        "0x80072322",
        "Number of requests exceeded the limit of 6000 over time window of 300 seconds.",
    ),
    "time": (
        "0x80072321",
        "Combined execution time of incoming requests exceeded limit of 1,200,000 milliseconds over time window of "
        "300 seconds. Decrease number of concurrent requests or reduce the duration of requests and try again later.",
    ),
    "concurrent": ("0x80072326", "Number of concurrent requests exceeded the limit of 52."),
}
"""The three service protection limits: code and message."""

NOT_FOUND: Final = "0x80040217"
KEY_NOT_FOUND: Final = "0x80060891"
VERSION_MISMATCH: Final = "0x80060882"
DUPLICATE: Final = "0x80060892"  # from memory of the platform's code list, not in the documentation we have
BAD_PROPERTY: Final = "0x80048d19"  # likewise
BAD_QUERY: Final = "0x80060888"  # likewise
BAD_ARGUMENT: Final = "0x80040203"  # likewise
PLUG_IN: Final = "0x80040265"  # likewise
TOO_LONG: Final = "0x80044331"  # likewise

_IN: Final = re.compile(
    r"Microsoft\.Dynamics\.CRM\.In\(\s*PropertyName='(?P<name>[^']*)'\s*,\s*PropertyValues=\[(?P<values>[^\]]*)\]\s*\)"
)
_REQUEST_LINE: Final = re.compile(r"(?P<method>[A-Z]+) (?P<url>\S.*?) HTTP/1\.[01]\Z")
_EXPAND: Final = re.compile(r"(?P<name>\w+)(?:\(\$select=(?P<select>[^)]*)\))?")
_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@attrs.frozen
class _Refusal(Exception):
    """An answer other than success."""

    status: int
    code: str
    message: str
    retry_after: int = 0

    def response(self) -> TwinResponse:
        headers = {"retry-after": str(self.retry_after)} if self.retry_after else {}
        return TwinResponse.of(self.status, {"error": {"code": self.code, "message": self.message}}, headers)


def throttled(limit: str = "requests", retry_after: int = 5, times: int = 1, after: int = 0) -> Fault:
    """Plan a service protection answer: ``"requests"``, ``"time"`` or ``"concurrent"``."""
    code, message = LIMITS[limit]
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = {"retry-after": str(retry_after), "content-type": "application/json"}
    return Fault("status", path=ROOT, status=429, headers=headers, body=body, times=times, after=after)


class DataverseTwin:
    """Dataverse in a box. Thread-safe; with a *path* its rows survive a killed process.

    *erp* is the F&O end of dual-write (``None``: nothing is connected) and *maps* run between the two. *lock* may be
    shared with the F&O twin, so that the two never wait for each other. Uncertain behavior is configuration:
    *refusal_status* (a plug-in's no is 400 or 403), *expired_status* (of an expired delta token), *keep_unmapped* (an
    F&O status without a mapping fails, or leaves the old value). *more_keys* adds alternate keys per entity set.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        clock: Clock = utc_now,
        erp: ErpSide | None = None,
        maps: tuple[TableMap, ...] = IOM_MAPS,
        apps: Mapping[str, str] | None = None,
        token_lifetime: int = 3599,
        request_limit: int = 6000,
        refusal_status: int = 400,
        expired_status: int = 400,
        keep_unmapped: bool = False,
        sop_integration: bool = True,
        more_keys: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
        lock: threading.RLock | None = None,
        name: str = "dataverse",
    ) -> None:
        self.name = name
        self.faults = Faults()
        self.clock = clock
        self.apps = dict(apps if apps is not None else {"iom": "secret"})
        self.token_lifetime = token_lifetime
        self.request_limit = request_limit
        self.refusal_status = refusal_status
        self.expired_status = expired_status
        self.more_keys = dict(more_keys or {})
        self._lock = lock or threading.RLock()
        self._tokens: dict[str, datetime] = {}
        self._issued = 0
        self._recent: deque[datetime] = deque()
        self._documents = Documents(path)
        self._rows = Rows(self._documents, clock)
        self.dual_write = Replication(self._rows, clock, erp, maps, keep_unmapped, sop_integration)

    # --- back doors ------------------------------------------------------------------------------------------

    def connect_erp(self, erp: ErpSide | None) -> None:
        """Connect the F&O end of dual-write, or cut it off."""
        self.dual_write.erp = erp

    def add(self, table: str, **columns: Json) -> str:
        """Put a row in without dual-write, by stored column names, and return its id.

        A lookup may be given as ``x=(entity set, {column: value})`` and is then looked up.
        """
        with self._lock:
            self._rows.begin()
            row_id = self._rows.new_id()
            values: dict[str, Json] = {}
            for name, value in columns.items():
                if isinstance(value, tuple):
                    target, match = value
                    values[f"_{name}_value"] = self._rows.id_of(target, match, columns.get("_msdyn_company_value"))
                else:
                    values[name] = value
            self._rows.put(table, row_id, values, echo=True)
            self._documents.commit()
            return row_id

    def add_company(self, code: str, currency: str, accounts: Iterable[str] = (), contacts: Iterable[str] = ()) -> str:
        """Put in a company, its currency and its customers; returns the company's row id."""
        company = self.add("cdm_companies", cdm_companycode=code, cdm_name=code.upper())
        if not self.find("transactioncurrencies", isocurrencycode=currency):
            self.add("transactioncurrencies", isocurrencycode=currency, currencyname=currency)
        for number in accounts:
            self.add("accounts", accountnumber=number, name=number, _msdyn_company_value=company)
        for number in contacts:
            self.add("contacts", msdyn_contactpersonid=number, fullname=number, _msdyn_company_value=company)
        return company

    def add_site(self, company: str, site: str, warehouses: Iterable[str] = ()) -> None:
        """Put in a site of a company (by its row id) and its warehouses."""
        row_id = self.add(
            "msdyn_operationalsites", msdyn_siteid=site, msdyn_sitename=site, _msdyn_company_value=company
        )
        for number in warehouses:
            self.add(
                "msdyn_warehouses",
                msdyn_warehouseidentifier=number,
                msdyn_name=number,
                _msdyn_company_value=company,
                _msdyn_operationalsite_value=row_id,
            )

    def add_products(self, products: Iterable[str], unit: str = "ea") -> None:
        """Put in products and, if need be, their unit of measure."""
        if not self.find("uoms", msdyn_symbol=unit):
            self.add("uoms", msdyn_symbol=unit, name=unit)
        for number in products:
            self.add("products", msdyn_productnumber=number, productnumber=number, name=number)

    def find(self, table: str, **match: Json) -> Row | None:
        """Return one row by stored column names, or ``None``."""
        with self._lock:
            found = self._rows.find(table, match)
            return dict(found[0]) if found else None

    def rows(self, table: str) -> list[dict[str, Json]]:
        """Return every row of a table in the order of creation."""
        with self._lock:
            return [dict(row) for row in self._rows.all(table)]

    def erp_changed(self, changes: Sequence[ErpChange]) -> None:
        """Take what one F&O transaction changed, before it commits.

        Raises `DualWriteRefusal` when Dataverse does not accept all of it; then F&O must roll back too.
        """
        with self._lock:
            self._rows.begin()
            try:
                self.dual_write.inbound(changes)
            except DualWriteRefusal:
                self._rows.roll_back()
                self._documents.commit()
                raise
            self._documents.commit()

    def pause(self, *map_names: str) -> None:
        """Pause maps (none named: all): changes are queued."""
        self._set_state("Paused", map_names)

    def stop(self, *map_names: str) -> None:
        """Stop maps: changes are lost to the other side."""
        self._set_state("Not running", map_names)

    def resume(self) -> tuple[Queued, ...]:
        """Run all maps and play back what was queued; returns what failed (calling again retries it)."""
        with self._lock:
            return self.dual_write.resume(self._rows.begin, self._documents.commit)

    def _set_state(self, state: str, map_names: Iterable[str]) -> None:
        with self._lock:
            self.dual_write.set_state(state, map_names)
            self._documents.commit()

    def expire_tokens(self) -> None:
        """Forget every token that was given out."""
        with self._lock:
            self._tokens.clear()

    def close(self) -> None:
        """Close the file."""
        self._documents.close()

    # --- the front door --------------------------------------------------------------------------------------

    def handle(self, request: TwinRequest) -> TwinResponse:
        """Answer one request; what it changed is durable before it is answered."""
        with self._lock:
            if request.path.endswith("/oauth2/v2.0/token"):
                return self._token(request)
            try:
                self._gate(request)
                response = self._dispatch(request)
            except _Refusal as refusal:
                response = refusal.response()
            self._documents.commit()
            left = max(self.request_limit - len(self._recent), 0)
            headers = {
                **response.headers,
                "odata-version": "4.0",
                "x-ms-ratelimit-burst-remaining-xrm-requests": str(left),
                "x-ms-ratelimit-time-remaining-xrm-requests": "1,200.00",
            }
            return attrs.evolve(response, headers=headers)

    def _token(self, request: TwinRequest) -> TwinResponse:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        client = form.get("client_id", "")
        if form.get("grant_type") != "client_credentials" or not form.get("scope", "").endswith("/.default"):
            return TwinResponse.of(400, {"error": "invalid_request", "error_description": "AADSTS900144"})
        if client not in self.apps or self.apps[client] != form.get("client_secret"):
            return TwinResponse.of(401, {"error": "invalid_client", "error_description": "AADSTS7000215"})
        self._issued += 1
        token = f"dataverse-token-{self._issued}"
        self._tokens[token] = self.clock() + timedelta(seconds=self.token_lifetime)
        body = {"token_type": "Bearer", "expires_in": self.token_lifetime, "access_token": token}
        return TwinResponse.of(200, body)

    def _gate(self, request: TwinRequest) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        until = self._tokens.get(token)
        if kind != "Bearer" or until is None or self.clock() >= until:
            raise _Refusal(401, "0x80072560", "The user is not a member of the organization.")
        now = self.clock()
        while self._recent and now - self._recent[0] >= WINDOW:
            self._recent.popleft()
        if len(self._recent) >= self.request_limit:
            left = (self._recent[0] + WINDOW - now).total_seconds()
            raise _Refusal(429, *LIMITS["requests"], retry_after=max(int(left) + 1, 1))
        self._recent.append(now)

    def _dispatch(self, request: TwinRequest) -> TwinResponse:
        path = unquote(request.path)
        if not path.startswith(ROOT):
            raise _Refusal(404, BAD_QUERY, f"Resource not found for the segment '{path}'.")
        if path == f"{ROOT}$batch":
            return self._batch(request)
        return self._serve(request)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Both sides or nothing: dual-write carries the changes over before the block's end, or all is undone."""
        self._rows.begin()
        try:
            yield
            self.dual_write.outbound(self._rows.changes())
        except DuplicateKey as twice:
            self._rows.roll_back()
            raise _Refusal(412, DUPLICATE, str(twice)) from twice
        except DualWriteRefusal as no:
            self._rows.roll_back()
            raise _Refusal(self.refusal_status, PLUG_IN, str(no)) from no
        except BaseException:
            self._rows.roll_back()
            raise

    def _serve(self, request: TwinRequest) -> TwinResponse:
        """Serve one operation in a transaction of its own."""
        try:
            with self._transaction():
                return self._operation(request)
        except BadQuery as bad:
            raise _Refusal(400, BAD_QUERY, str(bad)) from bad

    # --- $batch ----------------------------------------------------------------------------------------------

    def _batch(self, request: TwinRequest) -> TwinResponse:
        parts = _multipart(request.headers.get("content-type", ""), request.body)
        go_on = "odata.continue-on-error" in request.headers.get("prefer", "")
        counted = 0
        answers: list[bytes] = []
        for headers, content in parts:
            if headers.get("content-type", "").startswith("multipart/mixed"):
                inner = _multipart(headers["content-type"], content)
                counted += len(inner)
                ok, answer = self._change_set(request, inner, len(answers))
            else:
                counted += 1
                ok, answer = self._single(request, content)
            if counted > MAX_OPERATIONS:
                raise _Refusal(400, BAD_ARGUMENT, f"A batch may hold {MAX_OPERATIONS} operations.")
            answers.append(answer)
            if not ok and not go_on:
                break
        boundary = f"batchresponse_{self._rows.new_id()}"
        body = b"".join(b"--" + boundary.encode() + b"\r\n" + each + b"\r\n" for each in answers)
        return TwinResponse(
            200,
            {"content-type": f"multipart/mixed; boundary={boundary}"},
            body + b"--" + boundary.encode() + b"--\r\n",
        )

    def _single(self, outer: TwinRequest, content: bytes) -> tuple[bool, bytes]:
        try:
            response = self._serve(_inner(outer, content, {}))
        except _Refusal as refusal:
            response = refusal.response()
        return response.status < 400, _http_part(response)

    def _change_set(
        self, outer: TwinRequest, parts: Sequence[tuple[Mapping[str, str], bytes]], number: int
    ) -> tuple[bool, bytes]:
        """Run a change set: all of it or nothing, and then one error part."""
        made: dict[str, str] = {}
        answers: list[bytes] = []
        boundary = f"changesetresponse_{number:08d}"
        try:
            with self._transaction():
                for headers, content in parts:
                    inner = _inner(outer, content, made)
                    if inner.method == "GET":
                        raise _Refusal(400, BAD_ARGUMENT, "A change set can't hold a GET request.")
                    response = self._operation(inner)
                    content_id = headers.get("content-id", "")
                    if content_id and "OData-EntityId" in response.headers:
                        made[content_id] = response.headers["OData-EntityId"]
                    answers.append(_http_part(response, content_id))
        except BadQuery as bad:
            return False, _http_part(_Refusal(400, BAD_QUERY, str(bad)).response())
        except _Refusal as refusal:
            return False, _http_part(refusal.response())
        body = b"".join(b"--" + boundary.encode() + b"\r\n" + each + b"\r\n" for each in answers)
        head = f"Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n".encode()
        return True, head + body + b"--" + boundary.encode() + b"--\r\n"

    # --- one operation ---------------------------------------------------------------------------------------

    def _operation(self, request: TwinRequest) -> TwinResponse:
        path = unquote(request.path)[len(ROOT) :].strip("/")
        if path in ("WhoAmI", "WhoAmI()"):
            ids = {name: f"{index:08d}-0000-0000-0000-000000000000" for index, name in enumerate(_WHO)}
            return TwinResponse.of(200, {"@odata.context": f"{_root(request)}$metadata#whoami", **ids})
        if path.startswith("EntityDefinitions"):
            return _definitions(request, path)
        if path == "CancelSalesOrder":
            return self._cancel(request)
        resource = parse_resource(path)
        table = TABLES.get(resource.set)
        if table is None:
            raise _Refusal(404, BAD_QUERY, f"Resource not found for the segment '{resource.set}'.")
        if not resource.keyed:
            return self._on_table(request, table, resource.rest)
        if resource.rest:
            return self._on_property(request, table, resource)
        handler: Mapping[str, Callable[[TwinRequest, Table, Resource], TwinResponse]] = {
            "GET": self._retrieve,
            "PATCH": self._upsert,
            "DELETE": self._delete,
        }
        if request.method not in handler:
            raise _Refusal(405, BAD_QUERY, f"The method {request.method} isn't allowed here.")
        return handler[request.method](request, table, resource)

    def _on_table(self, request: TwinRequest, table: Table, rest: str) -> TwinResponse:
        if rest == "$count":
            return TwinResponse(
                200, {"content-type": "text/plain"}, str(len(self._rows.all(table.entity_set))).encode()
            )
        message = rest.rpartition(".")[2]
        if message in _MESSAGES and request.method == "POST":
            return self._multiple(request, table, message)
        if rest:
            raise _Refusal(404, BAD_QUERY, f"Resource not found for the segment '{rest}'.")
        if request.method == "POST":
            row = self._create(table, self._rows.new_id(), _body(request))
            return _written(request, table, row, created=True)
        if request.method != "GET":
            raise _Refusal(405, BAD_QUERY, f"The method {request.method} isn't allowed here.")
        return self._list(request, table)

    # reading

    def _retrieve(self, request: TwinRequest, table: Table, resource: Resource) -> TwinResponse:
        row = self._keyed(table, resource)
        query = parse_query([(name, value) for name, value in request.query if name != "$expand"])
        check_fields(query, table.stored)
        etag = _etag(row)
        if request.headers.get("if-none-match") == etag and not request.param("$expand"):
            return TwinResponse(304, {"etag": etag})
        shown = self._shown(request, table, row, query.select)
        shown |= self._expanded(request, table, row)
        return TwinResponse.of(
            200, {"@odata.context": f"{_root(request)}$metadata#{table.entity_set}/$entity", **shown}
        )

    def _expanded(self, request: TwinRequest, table: Table, row: Row) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for match in _EXPAND.finditer(request.param("$expand")):
            select = tuple(filter(None, (match["select"] or "").split(",")))
            child = table.children.get(match["name"])
            if child is None:
                raise BadQuery(f"Could not find a property named '{match['name']}'")
            other, column = child
            rows = self._rows.find(other, {f"_{column}_value": row[table.id_column]})
            found[match["name"]] = [self._shown(request, TABLES[other], each, select) for each in rows]
        return found

    def _shown(self, request: TwinRequest, table: Table, row: Row, select: Sequence[str]) -> dict[str, Json]:
        """Show a row: selected columns also when they are null, or all; annotations when they were asked for."""
        full = {name: row.get(name) for name in sorted(table.stored)}
        shown = {"@odata.etag": _etag(row), **project(full, select, (table.id_column,))}
        if "include-annotations" in request.headers.get("prefer", ""):
            for lookup in table.lookups.values():
                value = shown.get(lookup.stored)
                target = next((each for each in lookup.targets if value and self._rows.get(each, value)), None)
                if target is not None:
                    note = f"{lookup.stored}@Microsoft.Dynamics.CRM.lookuplogicalname"
                    shown[note] = TABLES[target].logical
        return shown

    def _list(self, request: TwinRequest, table: Table) -> TwinResponse:
        prefer = request.headers.get("prefer", "")
        options = dict(request.query)
        if "$skip" in options:
            raise _Refusal(400, BAD_QUERY, "Skip Clause is not supported in CRM")
        if "$deltatoken" in options or "odata.track-changes" in prefer or _cookie(options).get("tracking"):
            return self._track(request, table, options)
        query = parse_query((name, _or_chain(value) if name == "$filter" else value) for name, value in options.items())
        check_fields(query, table.stored)
        rows, counted = run_query(query, self._candidates(table, query), DATAVERSE)
        cookie = _cookie(options)
        start = int(cookie.get("start", "0"))
        size = _page_size(prefer)
        page = rows if query.top is not None else rows[start : start + size]
        body: dict[str, Json] = {"@odata.context": _context(request, table, query.select)}
        if query.count:
            body["@odata.count"] = min(counted, MAX_COUNT)
        body["value"] = [
            {**self._shown(request, table, row, query.select), **self._expanded(request, table, row)} for row in page
        ]
        if query.top is None and start + size < len(rows):
            number = int(cookie.get("pagenumber", "1")) + 1
            body["@odata.nextLink"] = _link(
                request, options, f'<cookie pagenumber="{number}" start="{start + size}" istracking="False" />'
            )
        return TwinResponse.of(200, body)

    def _candidates(self, table: Table, query: Query) -> Iterable[Row]:
        """Return the rows a filter can hit: by index, where it says what an id, a parent or a key must be."""
        ids = possible(query.where, table.id_column)
        if ids is not None:
            return [row for each in sorted(ids) if (row := self._rows.get(table.entity_set, each)) is not None]
        for column in (*table.required, "_salesorderid_value", *(key[0] for key in table.keys)):
            values = possible(query.where, column) if column in table.stored else None
            if values is not None:
                found = [row for each in values for row in self._rows.find(table.entity_set, {column: each})]
                return sorted(found, key=lambda row: str(row[table.id_column]))
        return self._rows.all(table.entity_set)

    def _track(self, request: TwinRequest, table: Table, options: Mapping[str, str]) -> TwinResponse:
        for option in ("$filter", "$orderby", "$expand", "$top"):
            if option in options:
                what = f'The \\"{option}\\" query parameter isn\'t supported when Change Tracking is enabled.'
                raise _Refusal(400, BAD_QUERY, what)
        query = parse_query([("$select", options.get("$select", ""))])
        check_fields(query, table.stored)
        since, delta = 0, "$deltatoken" in options
        if delta:
            since = self._token_version(options["$deltatoken"])
        cookie = _cookie(options)
        after = int(cookie.get("after", since))
        # What changes while pages are read comes again with the delta link.
        until = int(cookie.get("until", self._rows.version))
        delta = delta or cookie.get("delta") == "1"
        changed = [each for each in self._rows.changed_since(table.entity_set, after) if delta or each[2] is not None]
        size = _page_size(request.headers.get("prefer", ""))
        page, more = changed[:size], len(changed) > size
        context = _context(request, table, query.select)
        value: list[Json] = [
            self._shown(request, table, row, query.select)
            if row is not None
            else {
                "@odata.context": f"{_root(request)}$metadata#{table.entity_set}/$deletedEntity",
                "id": row_id,
                "reason": "deleted",
            }
            for _, row_id, row in page
        ]
        body: dict[str, Json] = {"@odata.context": f"{context}/$delta" if delta else context}
        kept = {name: value for name, value in options.items() if name == "$select"}
        if more:
            mark = f'<cookie tracking="1" after="{page[-1][0]}" until="{until}" delta="{int(delta)}" />'
            body["@odata.nextLink"] = _link(request, kept, mark)
        else:
            stamp = self.clock().astimezone(UTC).strftime("%m/%d/%Y %H:%M:%S")
            link = f"{_root(request)}{table.entity_set}?"
            link += "".join(f"{name}={quote(each, safe=',')}&" for name, each in kept.items())
            body["@odata.deltaLink"] = f"{link}$deltatoken={quote(f'{until}!{stamp}', safe='')}"
        return TwinResponse.of(200, {**body, "value": value})

    def _token_version(self, token: str) -> int:
        version, _, stamp = token.partition("!")
        try:
            made = datetime.strptime(stamp, "%m/%d/%Y %H:%M:%S").replace(tzinfo=UTC)
            known = int(version)
        except ValueError:
            raise _Refusal(400, BAD_ARGUMENT, "The delta token is not valid.") from None
        if self.clock() - made > DELTA_AGE:
            # Neither status nor text is documented.
            raise _Refusal(self.expired_status, BAD_ARGUMENT, "The delta token has expired; read everything again.")
        return known

    # writing

    def _keyed(self, table: Table, resource: Resource) -> Row:
        row = self._find(table, resource)
        if row is None:
            shown = resource.key.get("")
            if shown is None:
                what = f"A record with the specified key values does not exist in {table.logical} entity"
                raise _Refusal(404, KEY_NOT_FOUND, what)
            raise _Refusal(404, NOT_FOUND, f"{table.logical} With Id = {shown} Does Not Exist")
        return row

    def _find(self, table: Table, resource: Resource) -> Row | None:
        if "" in resource.key:
            if not _GUID.fullmatch(str(resource.key[""])):
                raise _Refusal(400, BAD_QUERY, f"'{resource.key['']}' is not an id.")
            return self._rows.get(table.entity_set, str(resource.key[""]))
        match = self._key_values(table, resource)
        found = self._rows.find(table.entity_set, match)
        return found[0] if found else None

    def _key_values(self, table: Table, resource: Resource) -> dict[str, Any]:
        """Return the stored columns of an alternate key; the key must be defined and its values printable."""
        match = {name: _plain(value) for name, value in resource.key.items()}
        keys = (*table.keys, *self.more_keys.get(table.entity_set, ()))
        if not any(set(key) == set(match) for key in keys):
            shown = ",".join(match)
            raise _Refusal(400, BAD_QUERY, f"The specified key properties ({shown}) are no key of {table.logical}.")
        if any(isinstance(value, str) and BAD_KEY_CHARACTERS & set(value) for value in match.values()):
            raise _Refusal(400, BAD_ARGUMENT, "A key value holds a character that can't be used in a key.")
        return match

    def _upsert(self, request: TwinRequest, table: Table, resource: Resource) -> TwinResponse:
        row = self._find(table, resource)
        if request.headers.get("if-none-match") == "*" and row is not None:
            raise _Refusal(412, DUPLICATE, "A record with matching key values already exists.")
        wanted = request.headers.get("if-match")
        if row is None:
            if wanted is not None:
                self._keyed(table, resource)
            if "" in resource.key:
                row_id, key = str(resource.key[""]).lower(), {}
            else:
                row_id, key = self._rows.new_id(), self._key_values(table, resource)
            made = self._create(table, row_id, _body(request), key)
            return _written(request, table, made, created=True)
        _check_version(wanted, row)
        changed = self._change(table, row, _body(request))
        return _written(request, table, changed, created=False)

    def _create(self, table: Table, row_id: str, body: Json, key: Mapping[str, Any] | None = None) -> Row:
        children = {name: body.pop(name) for name in table.children if name in body}
        given = body.get(table.id_column)
        if given:
            row_id = str(given).lower()
            if self._rows.get(table.entity_set, row_id) is not None:
                raise _Refusal(412, DUPLICATE, "A record with matching key values already exists.")
        values = {**(key or {}), **self._columns(table, body, table.no_create)}
        for column in table.required:
            if values.get(column) is None:
                raise _Refusal(400, BAD_ARGUMENT, f"The parent of a {table.logical} is missing ({column}).")
        if table.entity_set == "salesorders" and "ordernumber" not in values:
            values["ordernumber"] = f"ORD-{self._documents.next('ordernumber', 1000):05d}"
        row = self._rows.put(table.entity_set, row_id, values)
        for name, nested in children.items():
            child, column = table.children[name]
            for each in nested:
                link = {f"{column}@odata.bind": f"/{table.entity_set}({row_id})"}
                self._create(TABLES[child], self._rows.new_id(), {**each, **link})
        return row

    def _change(self, table: Table, row: Row, body: Json) -> Row:
        values = self._columns(table, body, table.no_update)
        company = values.get("_msdyn_company_value", row.get("_msdyn_company_value"))
        if table.striped and row.get("_msdyn_company_value") not in (None, company):
            raise _Refusal(400, PLUG_IN, "The company of a record can't be changed once it is saved.")
        return self._rows.put(table.entity_set, str(row[table.id_column]), values)

    def _columns(self, table: Table, body: Json, forbidden: frozenset[str]) -> dict[str, Json]:
        """Check a body's properties one by one and return what to store."""
        values: dict[str, Json] = {}
        for name, value in body.items():
            bare, mark, note = name.partition("@")
            if mark and note != "odata.bind":
                continue
            if mark:
                lookup = table.navigation(bare)
                if lookup is None:
                    raise _unknown(table, bare)
                values[lookup[0].stored] = None if value is None else self._bound(lookup[1], str(value))
                continue
            if name in forbidden:
                raise _Refusal(400, BAD_ARGUMENT, f"The property '{name}' can't be set here.")
            if name not in table.columns and name != table.id_column:
                raise _unknown(table, name)
            limit = table.lengths.get(name)
            if limit is not None and value is not None:
                if not isinstance(value, str):
                    raise _Refusal(400, BAD_PROPERTY, f"Cannot convert a value to the type 'Edm.String' of '{name}'.")
                if len(value) > limit:
                    what = (
                        f"A validation error occurred. The length of the '{name}' attribute of the '{table.logical}' "
                        f"entity exceeded the maximum allowed length of '{limit}'."
                    )
                    raise _Refusal(400, TOO_LONG, what)
            values[name] = value
        return values

    def _bound(self, entity_set: str, target: str) -> str:
        """Return the id of the row that ``/accounts(…)`` or an absolute address names."""
        path = target.partition(ROOT)[2] or target
        resource = parse_resource(unquote(path).strip("/"))
        if resource.set != entity_set:
            raise _Refusal(400, BAD_PROPERTY, f"'{target}' does not lead to {entity_set}.")
        table = TABLES[entity_set]
        return str(self._keyed(table, resource)[table.id_column])

    def _delete(self, request: TwinRequest, table: Table, resource: Resource) -> TwinResponse:
        row = self._keyed(table, resource)
        _check_version(request.headers.get("if-match"), row)
        self._rows.delete(table.entity_set, str(row[table.id_column]))
        return TwinResponse(204)

    def _on_property(self, request: TwinRequest, table: Table, resource: Resource) -> TwinResponse:
        row = self._keyed(table, resource)
        name, _, rest = resource.rest.partition("/")
        if rest == "$ref":
            target = None if request.method == "DELETE" else _body(request).get("@odata.id")
            self._change(table, row, {f"{name}@odata.bind": target})
            return TwinResponse(204)
        if name not in table.columns:
            raise _unknown(table, name)
        if request.method == "GET":
            if rest == "$value":
                return TwinResponse(200, {"content-type": "text/plain"}, str(row.get(name)).encode())
            return TwinResponse.of(200, {"value": row.get(name)})
        value = None if request.method == "DELETE" else _body(request).get("value")
        self._change(table, row, {name: value})
        return TwinResponse(204)

    def _multiple(self, request: TwinRequest, table: Table, message: str) -> TwinResponse:
        """Serve CreateMultiple, UpdateMultiple and UpsertMultiple: all or nothing."""
        made: list[str] = []
        for target in _body(request).get("Targets", ()):
            if target.get("@odata.type") != f"Microsoft.Dynamics.CRM.{table.logical}":
                raise _Refusal(400, BAD_ARGUMENT, "Every target needs its @odata.type.")
            if message == "CreateMultiple":
                made.append(str(self._create(table, self._rows.new_id(), dict(target))[table.id_column]))
                continue
            address = target.get("@odata.id") or f"{table.entity_set}({target.get(table.id_column)})"
            resource = parse_resource(str(address))
            row = self._find(table, resource)
            body = {name: value for name, value in target.items() if name != table.id_column}
            if row is not None:
                self._change(table, row, body)
            elif message == "UpdateMultiple":
                self._keyed(table, resource)
            else:
                key = self._key_values(table, resource) if "" not in resource.key else {}
                self._create(table, self._rows.new_id(), body, key)
        if message == "CreateMultiple":
            context = f"{_root(request)}$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse"
            return TwinResponse.of(200, {"@odata.context": context, "Ids": made})
        return TwinResponse(204)

    def _cancel(self, request: TwinRequest) -> TwinResponse:
        body = _body(request)
        address = (body.get("OrderClose") or {}).get("salesorderid@odata.bind")
        if not address:
            raise _Refusal(400, BAD_ARGUMENT, "OrderClose needs the order it closes.")
        row_id = self._bound("salesorders", str(address))
        self._rows.put("salesorders", row_id, {"statecode": 2, "statuscode": body.get("Status", 4)})
        return TwinResponse(204)


_WHO: Final = ("BusinessUnitId", "UserId", "OrganizationId")
_MESSAGES: Final = frozenset({"CreateMultiple", "UpdateMultiple", "UpsertMultiple"})


def _unknown(table: Table, name: str) -> _Refusal:
    what = (
        f"Error identified in Payload provided by the user for Entity :'{table.entity_set}'. InnerException : "
        f"The property '{name}' does not exist on type 'Microsoft.Dynamics.CRM.{table.logical}'."
    )
    return _Refusal(400, BAD_PROPERTY, what)


def _plain(value: object) -> Any:
    """Turn a key literal into what rows hold."""
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d")
    return value


def _body(request: TwinRequest) -> Any:
    try:
        body = request.json()
    except ValueError:
        raise _Refusal(400, BAD_PROPERTY, "Error identified in Payload provided by the user.") from None
    if not isinstance(body, dict):
        raise _Refusal(400, BAD_PROPERTY, "The payload must be an object.")
    return body


def _etag(row: Row) -> str:
    return f'W/"{row[VERSION]}"'


def _check_version(wanted: str | None, row: Row) -> None:
    if wanted not in (None, "*", _etag(row)):
        what = "The version of the existing record doesn't match the RowVersion property provided."
        raise _Refusal(412, VERSION_MISMATCH, what)


def _root(request: TwinRequest) -> str:
    host = request.headers.get("host", "org.crm.dynamics.com")
    scheme = "http" if host.split(":")[0] in ("127.0.0.1", "localhost") else "https"
    return f"{scheme}://{host}{ROOT}"


def _context(request: TwinRequest, table: Table, select: Sequence[str]) -> str:
    chosen = f"({','.join(select)})" if select else ""
    return f"{_root(request)}$metadata#{table.entity_set}{chosen}"


def _page_size(prefer: str) -> int:
    found = re.search(r"odata\.maxpagesize=(\d+)", prefer)
    return min(int(found[1]), MAX_PAGE) if found and int(found[1]) else MAX_PAGE


def _cookie(options: Mapping[str, str]) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', options.get("$skiptoken", "")))


def _link(request: TwinRequest, options: Mapping[str, str], cookie: str) -> str:
    kept = [(name, value) for name, value in options.items() if name != "$skiptoken"]
    entity_set = unquote(request.path)[len(ROOT) :]
    query = "&".join(f"{name}={quote(value, safe=',')}" for name, value in (*kept, ("$skiptoken", cookie)))
    return f"{_root(request)}{entity_set}?{query}"


def _or_chain(text: str) -> str:
    """Write ``Microsoft.Dynamics.CRM.In`` out as equalities, which the filter parser knows."""

    def spelled(match: re.Match[str]) -> str:
        values = [each.strip().strip("'\"") for each in match["values"].split(",") if each.strip()]
        literal = [
            each if re.fullmatch(r"-?\d+(\.\d+)?", each) or _GUID.fullmatch(each) else f"'{each}'" for each in values
        ]
        return "(" + " or ".join(f"{match['name']} eq {each}" for each in literal) + ")"

    return _IN.sub(spelled, text)


def _written(request: TwinRequest, table: Table, row: Row, *, created: bool) -> TwinResponse:
    """Answer a write: 204 and where the row is, or the row itself when it was asked for."""
    address = f"{_root(request)}{table.entity_set}({row[table.id_column]})"
    if "return=representation" not in request.headers.get("prefer", ""):
        return TwinResponse(204, {"OData-EntityId": address})
    select = tuple(filter(None, request.param("$select").split(",")))
    full = {name: row.get(name) for name in sorted(table.stored)}
    shown = {"@odata.etag": _etag(row), **project(full, select, (table.id_column,))}
    context = f"{_root(request)}$metadata#{table.entity_set}/$entity"
    headers = {"Preference-Applied": "return=representation"}
    return TwinResponse.of(201 if created else 200, {"@odata.context": context, **shown}, headers)


def _definitions(request: TwinRequest, path: str) -> TwinResponse:
    """Serve the little metadata that clients ask for."""
    named = re.match(r"EntityDefinitions\(LogicalName='(\w+)'\)/(\w+)", path)
    if named is None:
        wanted = re.search(r"LogicalName eq '(\w+)'", request.param("$filter"))
        found = [each for name, each in BY_LOGICAL_NAME.items() if wanted is None or name == wanted[1]]
        value = [
            {"LogicalName": each.logical, "EntitySetName": each.entity_set, "PrimaryIdAttribute": each.id_column}
            for each in found
        ]
        return TwinResponse.of(200, {"value": value})
    table = BY_LOGICAL_NAME.get(named[1])
    if table is None:
        raise _Refusal(404, BAD_QUERY, f"Could not find an entity with the name '{named[1]}'.")
    if named[2] != "ManyToOneRelationships":
        return TwinResponse.of(200, {"value": []})
    value = [
        {
            "ReferencingAttribute": lookup.column,
            "ReferencedEntity": TABLES[target].logical,
            "ReferencingEntityNavigationPropertyName": name,
        }
        for lookup in table.lookups.values()
        for target, name in zip(lookup.targets, lookup.navigation)
        if target in TABLES
    ]
    return TwinResponse.of(200, {"value": value})


# --- multipart -----------------------------------------------------------------------------------------------


def _multipart(content_type: str, body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Split a multipart body into headers and content; the boundary may be quoted, the body may begin with a blank."""
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if found is None or not content_type.startswith("multipart/mixed"):
        raise _Refusal(400, BAD_ARGUMENT, "A batch needs Content-Type multipart/mixed and a boundary.")
    mark = b"--" + found[1].encode()
    if b"\r\n" not in body or mark + b"--" not in body:
        raise _Refusal(400, BAD_ARGUMENT, "A batch needs CRLF line ends and a closing boundary.")
    parts: list[tuple[dict[str, str], bytes]] = []
    for piece in body.partition(mark + b"--")[0].split(mark + b"\r\n")[1:]:
        head, _, content = piece.partition(b"\r\n\r\n")
        parts.append((_headers(head), content.removesuffix(b"\r\n")))
    return parts


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode().split("\r\n") if line.strip())
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _inner(outer: TwinRequest, content: bytes, made: Mapping[str, str]) -> TwinRequest:
    """Read the request inside a part: absolute or relative address, ``$1`` for what the change set made before."""
    head, _, body = content.lstrip(b"\r\n").partition(b"\r\n\r\n")
    line, _, rest = head.partition(b"\r\n")
    match = _REQUEST_LINE.match(line.decode().strip())
    if match is None:
        raise _Refusal(400, BAD_ARGUMENT, f"'{line.decode()[:80]}' is no request line.")
    url = match["url"]
    reference = re.match(r"/?\$(\w+)", url)
    if reference is not None:
        if reference[1] not in made:
            raise _Refusal(400, BAD_ARGUMENT, f"Content-ID reference '{reference[0]}' does not exist.")
        url = made[reference[1]] + url[reference.end() :]
    for content_id, address in made.items():
        body = body.replace(f'"${content_id}"'.encode(), f'"{address}"'.encode())
    parts = urlsplit(url)
    path = parts.path if parts.path.startswith("/") else ROOT + parts.path
    return TwinRequest(
        method=match["method"],
        path=path,
        query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
        headers={**_headers(rest), "host": outer.headers.get("host", "org.crm.dynamics.com")},
        body=body.strip(),
        raw_query=parts.query,
    )


def _http_part(response: TwinResponse, content_id: str = "") -> bytes:
    reason = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified"}.get(response.status, "Error")
    lines = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    if content_id:
        lines.append(f"Content-ID: {content_id}")
    lines += ["", f"HTTP/1.1 {response.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + response.body + b"\r\n"
