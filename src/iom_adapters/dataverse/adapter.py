"""Sales orders shared with F&O over dual-write: the port `ErpOrders` on Dataverse's Web API.

Writes go through ``$batch``, also single ones: a plug-in's refusal may be a 403, and only inside a batch can it be told
from missing rights. Every write is an upsert by key or sets what is already so: repeating it changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import attrs
from returns.result import Failure, Result, Success

from iom_adapters._http import Reply, Session, encode
from iom_adapters._odata import literal
from iom_adapters.dataverse.wire import (
    Checkpoint,
    Delivery,
    Names,
    Numbered,
    OrderRows,
    Row,
    Sendable,
    Settings,
    Told,
    amounts,
    buyers,
    delivery,
    header_columns,
    is_confirmed,
    line_columns,
    messages,
    new_order,
    owner,
    remembered,
    sendable,
    tells,
)
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Message, Rejected
from iom_core.order import SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.ports import ErpRequest, Pulled, Receipt
from iom_core.values import System

DUAL_WRITE: Final = System("dual-write")
HEADERS: Final[Mapping[str, str]] = {"OData-MaxVersion": "4.0", "OData-Version": "4.0", "If-None-Match": "null"}
"""Sent with every call; ``If-None-Match: null`` keeps browsers' caches out of it."""
WATCHED: Final[Mapping[str, tuple[str, str]]] = {
    # entity set: columns to ask for, and which of them names the order
    "salesorders": ("salesorderid,msdyn_salesordernumber,msdyn_processingstatus", "salesorderid"),
    "salesorderdetails": ("_salesorderid_value,msdyn_linestatus", "_salesorderid_value"),
    "invoices": ("_salesorderid_value,msdyn_invoicenumber", "_salesorderid_value"),
}
"""The tables whose changes are followed."""
BATCH: Final = 20
"""Operations per batch: 1,000 are allowed, but each line that leaves waits for F&O, and an answer must come in time."""
CHUNK: Final = 25
"""Alternatives in one filter, so that an address stays short."""
CACHE: Final = 20_000
"""How many ids of master data are remembered."""
_CRLF: Final = "\r\n"
_LOGICAL: Final[Mapping[str, str]] = {"salesorders": "salesorder", "salesorderdetails": "salesorderdetail"}


@attrs.frozen
class Operation:
    """One write inside a batch; *headers* are its own."""

    method: str
    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = attrs.field(factory=dict)


_Bind = Callable[[str, str, str], dict[str, str]]
"""Writes a lookup: column, entity set and row id to a property of the body."""


@attrs.define
class DualWriteOrders:
    """An organization of Dataverse whose sales orders F&O shares. Implements `iom_core.ports.ErpOrders`.

    *session* talks to ``https://{org}.api.crm.dynamics.com/api/data/v9.2``.
    """

    session: Session
    settings: Settings = attrs.field(factory=Settings)
    system: System = DUAL_WRITE
    _ids: dict[tuple[str, str, str, str], str] = attrs.field(factory=dict, init=False, repr=False)
    _navigation: dict[tuple[str, str, str], str] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    # --- sending ---------------------------------------------------------------------------------------------

    def send(self, request: ErpRequest) -> Result[Receipt, Refused]:
        """Create or complete the order in Dataverse and let dual-write carry it over, header first.

        Header and lines are written not ready to sync (a new header would be ready, and leave alone); then the header
        is made ready, then each line. A refused header refuses the whole; a refused line gets the text as its Sync
        Error and in ``Receipt.line_errors``. Line numbers of the receipt are sequence numbers.

        Of an order that F&O created itself, only our status is written (see `Settings.status_column`).
        """
        order = request.order
        if order.channel == self.system:
            return self._tell_status(order)
        allowed = sendable(order, request.lines, self.settings, self.system)
        if failed(allowed):
            return allowed
        wanted = allowed.unwrap()
        found = self._references(order, wanted)
        if failed(found):
            return found
        references = found.unwrap()
        header = self._stage_header(order, wanted, references)
        if failed(header):
            return header
        written = header.unwrap()
        errors = dict(wanted.held)
        staged, done = self._stage_lines(order, wanted, references, written, errors)
        if not staged and not done:
            first = next(iter(errors.values()), "no line was accepted")
            return Failure(Refused("no-line", f"no line was accepted: {first}", "$.lines", "dual-write"))
        if not written.ready:
            said = self._batch([_update("salesorders", written.row_id, {"msdyn_isreadytosync": True})])[0]
            if said.refusal:
                return Failure(Refused("header-refused", said.refusal, "$", "dual-write"))
        self._release_lines(staged, errors)
        accepted = [each for each in wanted.lines if str(each.line.id) not in errors]
        return Success(
            Receipt(
                number=wanted.number,
                line_numbers=tuple((str(each.line.id), str(each.sequence)) for each in accepted),
                line_errors=tuple(errors.items()),
            )
        )

    def _tell_status(self, order: SalesOrder) -> Result[Receipt, Refused]:
        """Write our state and reason on the row of an order that came from F&O."""
        number, column = order.external(self.system) or "", self.settings.status_column
        if not column:
            return Success(Receipt(number, details="status_column is not set: the status was not written"))
        companies = self._find("cdm_companies", "cdm_companycode", [str(order.company)])
        company = companies.get(str(order.company), "")
        rows = self._find("salesorders", "msdyn_salesordernumber", [number], company) if company else {}
        if number not in rows:
            return _missing("sales order", number, "$")
        text = f"{order.status.state} / {order.status.reason}"
        said = self._batch([_update("salesorders", rows[number], {column: text})])[0]
        if said.refusal:
            return Failure(Refused("status-refused", said.refusal, "$.status", "dual-write"))
        return Success(Receipt(number, details=f"{column} = {text}"))

    def _references(self, order: SalesOrder, wanted: Sendable) -> Result[_References, Refused]:
        """Find the rows that the order points to."""
        code, who = str(order.company), buyers(order, self.settings)
        companies = self._find("cdm_companies", "cdm_companycode", [code])
        if code not in companies:
            return _missing("company", code, "$.company")
        company = companies[code]
        currencies = self._find("transactioncurrencies", "isocurrencycode", [order.currency])
        if order.currency not in currencies:
            return _missing("currency", order.currency, "$.currency")
        ordering, invoice = (self._customer(each, company) for each in (who.ordering, who.invoice))
        if ordering is None or invoice is None:
            unknown, where = (who.ordering, "$.customer") if ordering is None else (who.invoice, "$.invoice_customer")
            return _missing("customer", unknown, where)
        origins: Mapping[str, str] = {}
        if self.settings.origin:
            origins = self._find("msdyn_salesorderorigins", "msdyn_origincode", [self.settings.origin], company)
            if self.settings.origin not in origins:
                return _missing("sales order origin", self.settings.origin, "$")
        lines = [each.line for each in wanted.lines]
        sites = {*(line.site or "" for line in lines), order.site or ""} - {""}
        warehouses = {*(line.warehouse or "" for line in lines), order.warehouse or ""} - {""}
        return Success(
            _References(
                company=company,
                currency=currencies[order.currency],
                ordering=ordering,
                invoice=invoice,
                origin=origins.get(self.settings.origin, ""),
                sites=self._find("msdyn_operationalsites", "msdyn_siteid", sites, company),
                warehouses=self._find("msdyn_warehouses", "msdyn_warehouseidentifier", warehouses, company),
                products=self._find("products", "msdyn_productnumber", {str(line.product) for line in lines}),
                units=self._find("uoms", "msdyn_symbol", {self._unit(line.ordered.unit) for line in lines}),
            )
        )

    def _customer(self, number: str, company: str) -> tuple[str, str] | None:
        """Return a customer's table and row id: an account or else a contact, in dual-write's order."""
        tables = (("accounts", "accountnumber"), ("contacts", "msdyn_contactpersonid"))
        known = [each for each in tables if (*each, company, number.casefold()) in self._ids]
        for entity_set, column in known or tables:
            found = self._find(entity_set, column, [number], company)
            if number in found:
                return entity_set, found[number]
        return None

    def _unit(self, unit: str) -> str:
        return self.settings.units.get(unit, unit)

    def _stage_header(self, order: SalesOrder, wanted: Sendable, references: _References) -> Result[_Header, Refused]:
        """Write the header unless F&O has it already."""
        key = f"msdyn_salesordernumber={literal(wanted.number)},_msdyn_company_value={references.company}"
        columns = header_columns(order, self.settings)
        bind = self._binder("salesorders")
        columns |= bind("customerid", *references.ordering) | bind("msdyn_invoicecustomerid", *references.invoice)
        if order.site in references.sites:
            columns |= bind("msdyn_defaultshippingsite", "msdyn_operationalsites", references.sites[str(order.site)])
        if order.warehouse in references.warehouses:
            warehouse = references.warehouses[str(order.warehouse)]
            columns |= bind("msdyn_defaultshippingwarehouse", "msdyn_warehouses", warehouse)
        if references.origin:
            columns |= bind("msdyn_salesorderorigin", "msdyn_salesorderorigins", references.origin)
        for _ in range(2):
            row = self._get(f"/salesorders({key})?$select=salesorderid,msdyn_isreadytosync", absent=True)
            if row is not None:
                break
            fixed = bind("msdyn_company", "cdm_companies", references.company)
            fixed |= bind("transactioncurrencyid", "transactioncurrencies", references.currency)
            create = Operation("PATCH", f"/salesorders({key})", columns | fixed, {"If-None-Match": "*"})
            said = self._batch([create])[0]
            if said.status == 412:
                # Somebody wrote it a moment ago, perhaps we did and the answer was lost.
                continue
            if said.refusal:
                return Failure(Refused("header-refused", said.refusal, "$", "dual-write"))
            return Success(_Header(said.row_id(self.system), new=True))
        else:
            raise Unavailable(self.system, f"order {wanted.number} is neither there nor can it be created")
        found = _Header(str(row["salesorderid"]), ready=row["msdyn_isreadytosync"] is True)
        if not found.ready:
            said = self._batch([_update("salesorders", found.row_id, columns)])[0]
            if said.refusal:
                return Failure(Refused("header-refused", said.refusal, "$", "dual-write"))
        return Success(found)

    def _stage_lines(
        self,
        order: SalesOrder,
        wanted: Sendable,
        references: _References,
        header: _Header,
        errors: dict[str, str],
    ) -> tuple[list[_Staged], list[Numbered]]:
        """Write the lines F&O lacks; returns them, and those it has. Adds to *errors*."""
        query = f"$filter=_salesorderid_value eq {header.row_id}&$select=sequencenumber,msdyn_isreadytosync"
        rows = [] if header.new else self._rows("salesorderdetails", query)
        known = {row["sequencenumber"]: row for row in rows}
        costs = amounts(order)
        bind = self._binder("salesorderdetails")
        staging: list[tuple[Numbered, Operation]] = []
        done: list[Numbered] = []
        for each in wanted.lines:
            row = known.get(each.sequence)
            if row is not None and row["msdyn_isreadytosync"] is True:
                done.append(each)
                continue
            lookups = self._line_lookups(each, references, bind)
            if isinstance(lookups, str):
                errors[str(each.line.id)] = lookups
                continue
            columns = line_columns(order, each.line, costs[str(each.line.id)], self.settings) | lookups
            if row is not None:
                staging.append((each, _update("salesorderdetails", str(row["salesorderdetailid"]), columns)))
            else:
                columns |= bind("msdyn_company", "cdm_companies", references.company)
                path = f"/salesorderdetails(_salesorderid_value={header.row_id},sequencenumber={each.sequence})"
                staging.append((each, Operation("PATCH", path, columns)))
        staged: list[_Staged] = []
        for (each, _), said in zip(staging, self._batch([operation for _, operation in staging])):
            if said.refusal:
                errors[str(each.line.id)] = said.refusal
            else:
                staged.append(_Staged(each, said.row_id(self.system), again=each.sequence in known))
        return staged, done

    def _line_lookups(self, each: Numbered, references: _References, bind: _Bind) -> dict[str, str] | str:
        """Return the line's binds, or what it points to that does not exist."""
        line = each.line
        columns: dict[str, str] = {}
        for column, entity_set, known, value in (
            ("productid", "products", references.products, str(line.product)),
            ("uomid", "uoms", references.units, self._unit(line.ordered.unit)),
            ("msdyn_shippingsite", "msdyn_operationalsites", references.sites, str(line.site)),
            ("msdyn_shippingwarehouse", "msdyn_warehouses", references.warehouses, str(line.warehouse)),
        ):
            if value not in known:
                return f"{column}: there is no row for {value!r} in {entity_set}"
            columns |= bind(column, entity_set, known[value])
        return columns

    def _release_lines(self, staged: Sequence[_Staged], errors: dict[str, str]) -> None:
        """Make lines ready to sync; those refused get the text as their Sync Error. Adds to *errors*.

        Sync Errors are written apart, and it does not matter whether that succeeds: the column's name is a setting.
        """
        marks: list[Operation] = []
        ready = [_update("salesorderdetails", each.row_id, {"msdyn_isreadytosync": True}) for each in staged]
        for each, said in zip(staged, self._batch(ready)):
            if said.refusal:
                errors[str(each.numbered.line.id)] = said.refusal
            if said.refusal or each.again:
                text = {self.settings.sync_error_column: said.refusal[:4000] or None}
                marks.append(_update("salesorderdetails", each.row_id, text))
        if self.settings.sync_error_column:
            self._batch(marks)

    # --- pulling ---------------------------------------------------------------------------------------------

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return what changed of orders, by change tracking: picked, shipped, invoiced, canceled, and new from F&O.

        Dual-write tells totals. A shipment is what was added since the last one; the first pull that sees one writes it
        into the checkpoint and asks to be called again (``more``), the next tells it.
        """
        del now  # everything is dated by the rows
        at = _read(checkpoint, self.system)
        if not at.todo:
            links, changed = self._changes(at.links)
            at = attrs.evolve(at, links=links, todo=tuple(changed))
        batch = at.todo[: self.settings.orders_per_pull]
        orders = self._orders(batch)
        if not at.pending:
            pending = self._shipments(orders, at.shipped)
            if pending:
                return Pulled((), attrs.evolve(at, pending=pending).write(), more=True)
        told: list[Message | Rejected] = []
        shipped = dict(at.shipped)
        for rows in orders:
            shipment = at.pending.get(rows.number)
            if owner(rows.number, self.settings) == "erp" and is_confirmed(rows.header):
                told.append(new_order(rows, self._names(rows), self.system, self.settings))
            told.extend(messages(rows, shipment, self.system, self.settings))
            shipped = remembered(shipped, rows, shipment)
        rest = at.todo[len(batch) :]
        after = Checkpoint(at.links, rest, {}, shipped)
        return Pulled(tuple(told), after.write(), more=bool(rest))

    def _shipments(self, orders: Iterable[OrderRows], shipped: Mapping[str, Told]) -> dict[str, Delivery]:
        found: dict[str, Delivery] = {}
        for rows in orders:
            try:
                shipment = delivery(rows, shipped.get(rows.number, Told()).totals, self.settings)
            except ValueError:
                shipment = None
            if shipment is not None:
                found[rows.number] = shipment
        return found

    def _changes(self, links: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        """Follow the delta links; returns the new ones and the row ids of the orders concerned, each once."""
        later: dict[str, str] = {}
        orders: dict[str, None] = {}
        for entity_set, (columns, column) in WATCHED.items():
            if entity_set == "salesorderdetails" and self.settings.shipped_column:
                columns = f"{columns},{self.settings.shipped_column}"
            rows, later[entity_set] = self._tracked(entity_set, columns, links.get(entity_set, ""))
            for row in rows:
                # A deleted row has only its id and a reason; which order a deleted line belonged to isn't told.
                if row.get(column) and row.get("reason") != "deleted" and tells(entity_set, row, self.settings):
                    orders[str(row[column])] = None
        return later, list(orders)

    def _tracked(self, entity_set: str, columns: str, link: str) -> tuple[list[Row], str]:
        prefer = f"odata.track-changes,odata.maxpagesize={self.settings.page_size}"
        rows: list[Row] = []
        start = f"/{entity_set}?$select={columns}"
        url = link or start
        while True:
            reply = self.session.call("GET", url, headers={"Prefer": prefer})
            if reply.status in (400, 404, 410) and url == link:
                # The token's seven days are over (how that is answered is not documented): read everything again.
                url = start
                continue
            page = self._page(reply, url)
            rows += page["value"]
            if "@odata.nextLink" in page:
                url = str(page["@odata.nextLink"])
                continue
            if "@odata.deltaLink" not in page:
                raise Misconfigured(self.system, f"{entity_set} gives no delta link; enable its change tracking")
            # Kept without its host: an organization that moves to another address keeps its checkpoints.
            return rows, str(page["@odata.deltaLink"]).removeprefix(self.session.base_url.rstrip("/"))

    def _orders(self, ids: Sequence[str]) -> list[OrderRows]:
        """Read orders whole; those with somebody else's numbers, and those deleted meanwhile, are left out."""
        headers = [
            row
            for row in self._by_ids("salesorders", "salesorderid", ids)
            if owner(str(row.get("msdyn_salesordernumber") or ""), self.settings)
        ]
        kept = [str(row["salesorderid"]) for row in headers]
        lines = _grouped(self._by_ids("salesorderdetails", "_salesorderid_value", kept), "_salesorderid_value")
        invoices = self._by_ids("invoices", "_salesorderid_value", kept)
        invoiced = [str(row["invoiceid"]) for row in invoices]
        details = _grouped(self._by_ids("invoicedetails", "_invoiceid_value", invoiced), "_invoiceid_value")
        of_order = _grouped(invoices, "_salesorderid_value")
        currencies = self._values(
            "transactioncurrencies",
            "transactioncurrencyid",
            "isocurrencycode",
            [row.get("_transactioncurrencyid_value") for row in headers],
        )
        return [
            OrderRows(
                header=row,
                lines=tuple(sorted(lines.get(row_id, ()), key=lambda line: str(line.get("sequencenumber")).zfill(9))),
                invoices=tuple((each, tuple(details.get(each["invoiceid"], ()))) for each in of_order.get(row_id, ())),
                currency=currencies.get(str(row.get("_transactioncurrencyid_value")), ""),
            )
            for row_id, row in zip(kept, headers)
        ]

    def _names(self, rows: OrderRows) -> Names:
        header = rows.header
        customer = [header.get("_customerid_value")]
        return Names(
            companies=self._values(
                "cdm_companies", "cdm_companyid", "cdm_companycode", [header.get("_msdyn_company_value")]
            ),
            customers={
                **self._values("contacts", "contactid", "msdyn_contactpersonid", customer),
                **self._values("accounts", "accountid", "accountnumber", customer),
            },
            products=self._values(
                "products", "productid", "msdyn_productnumber", [line.get("_productid_value") for line in rows.lines]
            ),
            units=self._values("uoms", "uomid", "msdyn_symbol", [line.get("_uomid_value") for line in rows.lines]),
            sites=self._values(
                "msdyn_operationalsites",
                "msdyn_operationalsiteid",
                "msdyn_siteid",
                [header.get("_msdyn_defaultshippingsite_value")],
            ),
            warehouses=self._values(
                "msdyn_warehouses",
                "msdyn_warehouseid",
                "msdyn_warehouseidentifier",
                [header.get("_msdyn_defaultshippingwarehouse_value")],
            ),
        )

    # --- the Web API -----------------------------------------------------------------------------------------

    def _get(self, path: str, *, absent: bool = False) -> Row | None:
        reply = self.session.call("GET", path)
        if reply.status == 404 and absent:
            return None
        row: Row = self._page(reply, path)
        return row

    def _rows(self, entity_set: str, query: str) -> list[Row]:
        """Read every page of a query, repeating the page size with each."""
        prefer = {"Prefer": f"odata.maxpagesize={self.settings.page_size}"}
        rows: list[Row] = []
        url = f"/{entity_set}?{query.replace(' ', '%20')}"
        while url:
            page = self._page(self.session.call("GET", url, headers=prefer), url)
            rows += page["value"]
            url = str(page.get("@odata.nextLink", ""))
        return rows

    def _by_ids(self, entity_set: str, column: str, ids: Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        for at in range(0, len(ids), CHUNK):
            rows += self._rows(
                entity_set, "$filter=" + " or ".join(f"{column} eq {each}" for each in ids[at : at + CHUNK])
            )
        return rows

    def _page(self, reply: Reply, path: str) -> dict[str, Any]:
        answer = reply.json(self.system)
        if reply.status != 200 or not isinstance(answer, dict):
            raise Misunderstood(self.system, f"GET {path.partition('?')[0]} answered {reply.status}: {_said(answer)}")
        return answer

    def _find(self, entity_set: str, column: str, values: Iterable[str], company: str = "") -> dict[str, str]:
        """Return the row id of each value there is a row for; asks only for what isn't known yet."""
        id_column = _ID_COLUMNS[entity_set]
        wanted = sorted(set(values))
        unknown = [each for each in wanted if (entity_set, column, company, each.casefold()) not in self._ids]
        for at in range(0, len(unknown), CHUNK):
            alternatives = " or ".join(f"{column} eq {quote(literal(each))}" for each in unknown[at : at + CHUNK])
            condition = f"({alternatives}) and _msdyn_company_value eq {company}" if company else alternatives
            for row in self._rows(entity_set, f"$filter={condition}&$select={id_column},{column}"):
                self._remember((entity_set, column, company, str(row[column]).casefold()), str(row[id_column]))
        with self._lock:
            found = {each: self._ids.get((entity_set, column, company, each.casefold())) for each in wanted}
        return {each: row_id for each, row_id in found.items() if row_id is not None}

    def _values(self, entity_set: str, id_column: str, column: str, ids: Iterable[object]) -> dict[str, str]:
        """Return a column of each row by its id; asks only for what isn't known yet."""
        wanted = sorted({str(each) for each in ids if each})
        unknown = [each for each in wanted if (entity_set, id_column, column, each) not in self._ids]
        for at in range(0, len(unknown), CHUNK):
            condition = " or ".join(f"{id_column} eq {each}" for each in unknown[at : at + CHUNK])
            for row in self._rows(entity_set, f"$filter={condition}&$select={id_column},{column}"):
                if row.get(column) is not None:
                    self._remember((entity_set, id_column, column, str(row[id_column])), str(row[column]))
        with self._lock:
            found = {each: self._ids.get((entity_set, id_column, column, each)) for each in wanted}
        return {each: value for each, value in found.items() if value is not None}

    def _remember(self, key: tuple[str, str, str, str], value: str) -> None:
        with self._lock:
            while len(self._ids) >= CACHE:
                del self._ids[next(iter(self._ids))]
            self._ids[key] = value

    def _binder(self, entity_set: str) -> _Bind:
        """Return a function that writes a lookup as a bind, under the navigation property of this organization."""

        def bind(column: str, target: str, row_id: str) -> dict[str, str]:
            return {f"{self._property(entity_set, column, target)}@odata.bind": f"/{target}({row_id})"}

        return bind

    def _property(self, entity_set: str, column: str, target: str) -> str:
        given = self.settings.navigation.get(f"{column}/{target}", self.settings.navigation.get(column))
        if given is not None:
            return given
        key = (entity_set, column, _LOGICAL_OF[target])
        if key not in self._navigation:
            logical = _LOGICAL[entity_set]
            path = (
                f"/EntityDefinitions(LogicalName='{logical}')/ManyToOneRelationships"
                "?$select=ReferencingAttribute,ReferencedEntity,ReferencingEntityNavigationPropertyName"
            )
            page = self._get(path) or {}
            for each in page["value"]:
                attribute, referenced = each["ReferencingAttribute"], each["ReferencedEntity"]
                self._navigation[entity_set, attribute, referenced] = each["ReferencingEntityNavigationPropertyName"]
        try:
            return self._navigation[key]
        except KeyError:
            raise Misconfigured(self.system, f"{entity_set} has no lookup {column} to {target}") from None

    def _batch(self, operations: Sequence[Operation]) -> list[Part]:
        """Run operations one by one, each its own transaction; the others go on when one is refused."""
        parts: list[Part] = []
        for at in range(0, len(operations), BATCH):
            chunk = operations[at : at + BATCH]
            content, boundary = multipart(chunk, self.session.base_url)
            reply = self.session.call(
                "POST",
                "/$batch",
                content=content,
                headers={
                    "Content-Type": f'multipart/mixed; boundary="{boundary}"',
                    "Prefer": "odata.continue-on-error",
                },
            )
            if reply.status != 200:
                raise Misunderstood(self.system, f"POST /$batch answered {reply.status}: {reply.body[:500]!r}")
            answers = read_multipart(reply, self.system)
            if len(answers) != len(chunk):
                raise Misunderstood(self.system, f"a batch of {len(chunk)} was answered with {len(answers)} parts")
            for answer in answers:
                answer.check(self.system)
            parts += answers
        return parts


@attrs.frozen
class _Header:
    """A header's row; *ready* says that it is ready to sync, *new* that it was written just now."""

    row_id: str
    ready: bool = False
    new: bool = False


@attrs.frozen
class _Staged:
    """A line that is in Dataverse and may leave; *again* says that it was there before, perhaps with an error."""

    numbered: Numbered
    row_id: str
    again: bool


@attrs.frozen
class _References:
    """Row ids of what an order points to."""

    company: str
    currency: str
    ordering: tuple[str, str]
    invoice: tuple[str, str]
    origin: str
    sites: Mapping[str, str]
    warehouses: Mapping[str, str]
    products: Mapping[str, str]
    units: Mapping[str, str]


_ID_COLUMNS: Final[Mapping[str, str]] = {
    "salesorders": "salesorderid",
    "cdm_companies": "cdm_companyid",
    "transactioncurrencies": "transactioncurrencyid",
    "accounts": "accountid",
    "contacts": "contactid",
    "products": "productid",
    "uoms": "uomid",
    "msdyn_operationalsites": "msdyn_operationalsiteid",
    "msdyn_warehouses": "msdyn_warehouseid",
    "msdyn_salesorderorigins": "msdyn_salesorderoriginid",
}
_LOGICAL_OF: Final[Mapping[str, str]] = {
    entity_set: id_column.removesuffix("id") for entity_set, id_column in _ID_COLUMNS.items()
}


@attrs.frozen
class Part:
    """The answer to one operation of a batch; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def refusal(self) -> str:
        """Return why the operation was refused; ``""`` when it was not."""
        if self.status < 400:
            return ""
        try:
            return _said(json.loads(self.body)) or f"the answer was {self.status}"
        except ValueError:
            return f"the answer was {self.status}"

    def row_id(self, system: str) -> str:
        """Return the id of the row that was written."""
        found = re.search(r"\(([0-9a-fA-F-]{36})\)$", self.headers.get("odata-entityid", ""))
        if found is None:
            raise Misunderstood(system, "a write was answered without OData-EntityId")
        return found[1]

    def check(self, system: str) -> None:
        """Raise the fault behind an answer that is no refusal: throttled, out of order, without rights."""
        if self.status == 429 or self.status >= 500:
            wait = self.headers.get("retry-after", "")
            raise Unavailable(
                system, f"a batched write answered {self.status}", float(wait) if wait.isdigit() else None
            )
        if self.status == 401 or (self.status == 403 and "Writes to" not in self.refusal):
            raise Misconfigured(system, f"a batched write answered {self.status}; check the application user's role")


def multipart(operations: Sequence[Operation], base_url: str) -> tuple[bytes, str]:
    """Write a batch (CRLF line ends, absolute addresses); returns it and its boundary, which depends on the content."""
    texts = [
        _CRLF.join(
            [
                "Content-Type: application/http",
                "Content-Transfer-Encoding: binary",
                "",
                f"{each.method} {base_url.rstrip('/')}{each.path.replace(' ', '%20')} HTTP/1.1",
                "Content-Type: application/json",
                *(f"{name}: {value}" for name, value in each.headers.items()),
                "",
                encode(each.body).decode(),
                "",
            ]
        )
        for each in operations
    ]
    boundary = "batch_" + hashlib.sha256("".join(texts).encode()).hexdigest()[:32]
    body = "".join(f"--{boundary}{_CRLF}{text}" for text in texts) + f"--{boundary}--{_CRLF}"
    return body.encode(), boundary


def read_multipart(reply: Reply, system: str) -> list[Part]:
    """Read the parts of a batch's answer; raises `Misunderstood` when it is none."""
    found = re.search(r'boundary="?([^";]+)"?', reply.headers.get("content-type", ""))
    if found is None:
        raise Misunderstood(system, "a batch was answered without a boundary")
    mark = b"--" + found[1].encode()
    parts: list[Part] = []
    for piece in reply.body.partition(mark + b"--")[0].split(mark + b"\r\n")[1:]:
        _, _, inner = piece.partition(b"\r\n\r\n")
        head, _, body = inner.partition(b"\r\n\r\n")
        status, *lines = head.decode("utf-8", "replace").split(_CRLF)
        code = re.match(r"HTTP/1\.[01] (\d{3})", status)
        if code is None:
            raise Misunderstood(system, f"a part of a batch's answer begins with {status[:80]!r}")
        headers = (line.partition(":") for line in lines if line)
        parts.append(Part(int(code[1]), {name.lower(): value.strip() for name, _, value in headers}, body.strip()))
    return parts


def _update(entity_set: str, row_id: str, columns: Mapping[str, Any]) -> Operation:
    """Change a row that exists; never creates one."""
    return Operation("PATCH", f"/{entity_set}({row_id})", columns, {"If-Match": "*"})


def _said(answer: object) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def _grouped(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row.get(column)), []).append(row)
    return groups


def _missing(what: str, value: str, where: str) -> Failure[Refused]:
    return Failure(Refused(f"unknown-{what.split()[-1]}", f"Dataverse has no {what} {value!r}", where, "dual-write"))


def _read(checkpoint: str, system: str) -> Checkpoint:
    try:
        return Checkpoint.read(checkpoint)
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        raise Misconfigured(
            system, f"the checkpoint can't be read ({broken}); start again with an empty one"
        ) from broken
