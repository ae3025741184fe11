"""Billing in SAP, once, and what was posted there: the conversation with one SAP client.

`Sap.bill` asks SAP what it has, does the one thing that is missing, and asks again, so that an answer that got lost
costs a look and nothing else. Sources: sap.md sections 0 to 7.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

from returns.result import Failure, Result, Success

from iom_adapters._auth import Auth, ClientCredentials, FixedHeader
from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client, Reply, Session
from iom_adapters._http import client as new_client
from iom_adapters._odata import any_of, both, literal
from iom_adapters.sap import wire
from iom_adapters.sap.config import SapConfig
from iom_adapters.sap.wire import BadRow, Books, Json, Part, Row, Step, Teller
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Message, Rejected
from iom_core.order import SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.ports import BillingRequest, Capability, Pulled, Receipt
from iom_core.values import System

_TRIES: Final = 3
"""How often one call does the same thing because somebody else changed the document in between (412)."""


class Sap:
    """One SAP client as a `Ledger`. Safe to use from several threads."""

    def __init__(self, config: SapConfig, client: Client | None = None, clock: Clock = utc_now) -> None:
        config.check()
        self.config = config
        self._clock = clock
        http = client if client is not None else new_client()
        headers = {"Accept-Language": config.language, "sap-client": config.sap_client}
        self._http = Session(
            str(config.system),
            config.base_url,
            _auth(config, http, clock),
            http,
            {name: value for name, value in headers.items() if value},
            clock=clock,
        )
        self._tell = Teller(config.system)
        self._token = ""
        self._lock = threading.Lock()

    @property
    def system(self) -> System:
        """Return the system's name, ``"sap"`` unless configured otherwise."""
        return self.config.system

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Events are understood once there is a secret that they prove themselves by."""
        return frozenset({Capability.WEBHOOKS} if self.config.webhook_secret else ())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- billing -------------------------------------------------------------------------------------------

    def bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        """Have everything billed that has shipped and isn't billed, once, also after a lost answer.

        The receipt has the number of the sales order and, per line, that of its first item (ten times the line's
        place). What decides is what SAP has, not the key; of an invoice that people canceled, its items are open
        again. A create that SAP still works on when it is repeated can't be seen: it leads to two sales orders, which
        are refused as a duplicate and not billed by us.

        Refused: what SAP refuses (with its messages), an order SAP can't hold, one that is there twice or was entered
        by people, an empty answer to a billing request, a billing block that isn't ours. Raises the three faults.
        """
        try:
            return self._bill(request)
        except BadRow as broken:
            raise Misunderstood(str(self.system), f"{broken.where}: {broken.what}") from broken

    def _bill(self, request: BillingRequest) -> Result[Receipt, Refused]:
        order = request.order
        problem = wire.reference_problem(str(order.id))
        if problem:
            return self._no("reference", problem, "$.id")
        planned = wire.parts(order, request.lines, self.config)
        if failed(planned):
            return planned
        wanted = planned.unwrap()
        seen: dict[str, int] = {}
        billed: set[str] = set()
        while True:
            read = self._books(order)
            if failed(read):
                return read
            books = read.unwrap()
            step = wire.next_step(wanted, books, self.config)
            if isinstance(step, Refused):
                return Failure(step)
            if step is None:
                number = "" if books.order is None else books.order.number
                return Success(Receipt(number, tuple((part.line, part.number) for part in wanted)))
            if step.name in billed:
                return self._no("not-billed", f"SAP was asked to {step.name} and left something of it open")
            seen[step.name] = seen.get(step.name, 0) + 1
            if seen[step.name] > _TRIES:
                raise Unavailable(str(self.system), f"{step.name} did not take effect; somebody may be working on it")
            done = self._do(step, wanted, books, request)
            if failed(done):
                return done
            if isinstance(step, wire.Bill):
                billed.add(step.name)

    def _no(self, code: str, what: str, where: str = "$") -> Failure[Refused]:
        return Failure(Refused(code, what, where, who=str(self.system)))

    def _books(self, order: SalesOrder) -> Result[Books, Refused]:
        """Read what SAP has of an order of ours."""
        found = [
            each
            for each in self._orders(f"PurchaseOrderByCustomer eq {literal(str(order.id))}")
            if each.reference == order.id and not each.rejected
        ]
        if len(found) > 1:
            numbers = ", ".join(sorted(each.number for each in found))
            return self._no(
                "duplicate", f"SAP has {order.id} more than once: sales orders {numbers}; reject all but one"
            )
        if not found:
            return Success(Books())
        (there,) = found
        items = [
            each
            for each in self._all(
                wire.DOCUMENTS,
                "A_BillingDocumentItem",
                f"SalesDocument eq {literal(there.number)}",
                select=wire.REFERENCE_FIELDS,
            )
            if wire.number_of(each, "SalesDocument") == there.number
        ]
        valid = self._invoices({wire.number_of(each, "BillingDocument") for each in items})
        billed: dict[str, Decimal] = defaultdict(Decimal)
        deliveries: set[str] = set()
        for each in items:
            if wire.number_of(each, "BillingDocument") in valid:
                billed[wire.number_of(each, "SalesDocumentItem")] += wire.decimal_of(each, "BillingQuantity")
                if each.get("ReferenceSDDocumentCategory") == wire.DELIVERY:
                    deliveries.add(wire.number_of(each, "ReferenceSDDocument"))
        moved = self._deliveries(there.number) if self.config.bill_from == "delivery" else ()
        return Success(Books(there, moved, dict(billed), frozenset(deliveries)))

    def _orders(self, where: str) -> list[wire.Order]:
        rows = self._all(wire.ORDERS, "A_SalesOrder", where, expand="to_Item")
        return [wire.order_of(row, self.config) for row in rows]

    def _invoices(self, documents: Iterable[str]) -> frozenset[str]:
        """Return which of some billing documents are invoices that count."""
        rows = self._bulk(wire.DOCUMENTS, "A_BillingDocument", "BillingDocument", documents, select=wire.HEADER_FIELDS)
        return frozenset(
            wire.number_of(row, "BillingDocument")
            for row in rows
            if wire.is_invoice(row, self.config) and not wire.flag_of(row, "BillingDocumentIsCancelled")
        )

    def _deliveries(self, sales_order: str) -> tuple[wire.Delivery, ...]:
        items: dict[str, list[Row]] = defaultdict(list)
        where = f"ReferenceSDDocument eq {literal(sales_order)}"
        for each in self._all(wire.DELIVERIES, "A_OutbDeliveryItem", where):
            if wire.number_of(each, "ReferenceSDDocument") == sales_order:
                items[wire.number_of(each, "DeliveryDocument")].append(each)
        rows = self._bulk(wire.DELIVERIES, "A_OutbDeliveryHeader", "DeliveryDocument", items)
        found = (wire.delivery_of(row, items[wire.number_of(row, "DeliveryDocument")]) for row in rows)
        return tuple(sorted(found, key=lambda each: each.number))

    def _do(self, step: Step, wanted: Sequence[Part], books: Books, request: BillingRequest) -> Result[None, Refused]:
        """Do one thing; what it led to is read afterwards."""
        number = "" if books.order is None else books.order.number
        order = f"A_SalesOrder({quote(literal(number), safe=chr(39))})"
        match step:
            case wire.Create():
                body = self._order_body(request.order, wanted)
                if failed(body):
                    return body
                repeat = self._repeatable(request.key, step.name)
                return self._done(self._write("POST", wire.ORDERS, "A_SalesOrder", body.unwrap(), repeat), 201)
            case wire.AddItem(part, item, quantity, before):
                added = wire.item_body(part, item, quantity, before, self.config)
                repeat = self._repeatable(request.key, step.name)
                return self._done(self._write("POST", wire.ORDERS, f"{order}/to_Item", added, repeat), 201)
            case wire.Release(etag):
                free: Json = {"HeaderBillingBlockReason": ""}
                return self._done(self._write("PATCH", wire.ORDERS, order, free, {"If-Match": etag}), 204)
            case wire.Deliver(items):
                body_ = {
                    "to_DeliveryDocumentItem": {
                        "results": [{"ReferenceSDDocument": number, "ReferenceSDDocumentItem": each} for each in items]
                    }
                }
                repeat = self._repeatable(request.key, step.name)
                return self._done(self._write("POST", wire.DELIVERIES, "A_OutbDeliveryHeader", body_, repeat), 201)
            case wire.Move(function, delivery, etag):
                path = f"{function}?DeliveryDocument={quote(literal(delivery), safe=chr(39))}"
                return self._moved(self._write("POST", wire.DELIVERIES, path, None, {"If-Match": etag}), step.name)
            case wire.Bill(document, category):
                path = wire.BILL_ACTION.removeprefix(f"{wire.BILLING}/")
                said = wire.billing_body(document, category, self.config)
                return self._billed(self._write("POST", wire.BILLING, path, said, {}), step)

    def _order_body(self, order: SalesOrder, wanted: Sequence[Part]) -> Result[dict[str, Json], Refused]:
        customer, area = wire.sold_to(order, self.config), self.config.sales_area(str(order.company or ""))
        if not customer:
            what = f"customer {order.customer!r} has no SAP customer, and there is none for guests"
            return self._no("unmapped-customer", what, "$.customer")
        if area is None:
            return self._no("no-sales-area", f"company {order.company!r} has no sales area", "$.company")
        return Success(wire.order_body(order, wanted, customer, area, self.config))

    def _repeatable(self, key: str, step: str) -> dict[str, str]:
        """Name a create so that SAP may recognize its repeat; whether a service does is uncertain."""
        if not self.config.repeatable:
            return {}
        moment = format_datetime(self._clock().astimezone(UTC), usegmt=True)
        return {"RequestID": wire.digest(key, step) + wire.digest(step, key), "RepeatabilityCreation": moment}

    def _done(self, reply: Reply, status: int) -> Result[None, Refused]:
        """Judge the answer to a write: done, to be done again (412), or refused."""
        if reply.status in (status, 412):  # somebody changed it first: it is read again and decided again
            return Success(None)
        if reply.status == 428:
            raise Misunderstood(
                str(self.system), "SAP wants an If-Match where sap.md knows of none, or got an empty one"
            )
        if reply.status == 404:
            raise Misconfigured(str(self.system), f"SAP has no such address (404): {self._problem(reply).what[:200]}")
        if 400 <= reply.status < 500:
            return self._refusal(reply)
        raise Misunderstood(str(self.system), f"a write answered {reply.status}, not {status}")

    def _refusal(self, reply: Reply) -> Result[None, Refused]:
        problem = self._problem(reply)
        if any(text.lower() in problem.what.lower() for text in self.config.locked_texts if text):
            raise Unavailable(str(self.system), f"a document is locked: {problem.what}")
        said = problem.what or f"SAP refused without a reason ({reply.status})"
        return self._no("refused-by-sap", f"{problem.code}: {said}" if problem.code else said)

    def _problem(self, reply: Reply) -> wire.Problem:
        if "json" not in reply.headers.get("content-type", ""):
            return wire.Problem("", "")  # an HTML page or plain text, which may quote anything
        try:
            return wire.problem(reply.json(str(self.system)))
        except Misunderstood:
            return wire.Problem("", "")

    def _moved(self, reply: Reply, name: str) -> Result[None, Refused]:
        if reply.status != 200:
            return self._done(reply, 200)
        body = self._json(reply)
        inner = body.get("d") if isinstance(body, dict) else None
        complaint = wire.report_problem(wire.children_of({"d": inner}, "d"))
        return self._no("goods-issue", f"{name}: {complaint}") if complaint else Success(None)

    def _billed(self, reply: Reply, step: wire.Bill) -> Result[None, Refused]:
        if reply.status != 200:
            return self._done(reply, 200)
        body = self._json(reply)
        documents = body.get("value") if isinstance(body, dict) else None
        if not isinstance(documents, list):
            raise Misunderstood(str(self.system), "$.value of a billing answer is no list")
        # An empty list means that nothing was billed; the next look tells whether somebody else had done it.
        return Success(None)

    # --- the wire ------------------------------------------------------------------------------------------

    def _write(self, method: str, service: str, path: str, body: Json, headers: Mapping[str, str]) -> Reply:
        """Send a write with token and cookies; once more with new ones when SAP says that these are no good."""
        with self._lock:
            token = self._token
        for _ in range(2):
            token = token or self._fetch(service, path)
            reply = self._http.call(
                method, f"{service}/{path}", body=body, headers={"X-CSRF-Token": token, **headers}, keep=(403,)
            )
            if reply.status != 403:
                return reply
            if reply.headers.get("x-csrf-token", "").lower() != "required":
                shown = f"{method} {path.partition('?')[0]}"
                raise Misconfigured(str(self.system), f"{shown} answered 403; check the user's authorizations")
            token = ""
        raise Misconfigured(str(self.system), "SAP takes no CSRF token from us: its cookies may not come back to it")

    def _fetch(self, service: str, path: str) -> str:
        """Fetch a token and its cookies as SAP's own client does; the token counts whatever the status."""
        resource = path.partition("?")[0].partition("(")[0].partition("/")[0]
        for address in (f"{service}/{resource}/", f"{service}/{resource}", f"{service}/"):
            reply = self._http.call("HEAD", address, headers={"X-CSRF-Token": "Fetch"}, keep=(403,))
            if self._keep_token(reply):
                return self._token
        raise Misconfigured(str(self.system), "SAP gives no CSRF token; check the user's authorizations")

    def _keep_token(self, reply: Reply) -> bool:
        token = reply.headers.get("x-csrf-token", "")
        if not token or token.lower() in ("required", "fetch"):
            return False
        with self._lock:
            self._token = token
        return True

    def _get(self, address: str) -> Json:
        headers = {} if self._token else {"X-CSRF-Token": "Fetch"}
        reply = self._http.call("GET", address, headers=headers)
        if headers:
            self._keep_token(reply)
        shown = address.partition("?")[0]
        if reply.status == 404:
            raise Misconfigured(str(self.system), f"there is no {shown} (404)")
        if reply.status != 200:
            raise Misunderstood(
                str(self.system), f"GET {shown} answered {reply.status}: {self._problem(reply).what[:300]}"
            )
        return self._json(reply)

    def _json(self, reply: Reply) -> Json:
        if "html" in reply.headers.get("content-type", ""):
            raise Misconfigured(
                str(self.system), "SAP shows a login page: a communication user and the API host are needed"
            )
        return reply.json(str(self.system))

    def _all(
        self, service: str, entity_set: str, where: str, *, select: Sequence[str] = (), expand: str = ""
    ) -> Iterator[Row]:
        """Yield every row of a V2 query, following ``__next`` to the end. Spaces are sent as ``%20``, never ``+``."""
        options = {"$filter": where, "$expand": expand, "$select": ",".join(select), "$format": "json"}
        query = "&".join(f"{name}={quote(text, safe=_UNQUOTED)}" for name, text in options.items() if text)
        body = self._get(f"{service}/{entity_set}?{query}")
        seen: set[str] = set()
        while True:
            page = body.get("d") if isinstance(body, dict) else None
            if isinstance(page, list):
                page = {"results": page}
            if not isinstance(page, dict):
                raise Misunderstood(str(self.system), f"$.d of {entity_set} is missing")
            yield from wire.children_of({"d": page}, "d")
            link = page.get("__next")
            if not link:
                return
            if not isinstance(link, str) or link in seen:
                raise Misunderstood(str(self.system), "$.d.__next is no address, or leads in a circle")
            seen.add(link)
            body = self._get(link)

    def _bulk(
        self,
        service: str,
        entity_set: str,
        field: str,
        numbers: Iterable[str],
        *,
        select: Sequence[str] = (),
        expand: str = "",
    ) -> Iterator[Row]:
        """Yield the rows whose *field* is one of *numbers*, many to a request."""
        ordered = sorted(set(numbers))
        for at in range(0, len(ordered), self.config.bulk):
            some = any_of(field, ordered[at : at + self.config.bulk])
            yield from self._all(service, entity_set, some, select=select, expand=expand)

    # --- pulling -------------------------------------------------------------------------------------------

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return the invoices over orders of ours that are posted: of up to *window* per call.

        Looks at documents created or changed since the last pull, less *overlap*, and again at those that were not
        posted then: posting may leave no trace in the dates. An invoice that people canceled becomes a `Rejected`, so
        that a person hears of it. Raises `Misconfigured` for a checkpoint that is not ours, and the other faults.
        """
        try:
            return self._pull(checkpoint, now)
        except BadRow as broken:
            raise Misunderstood(str(self.system), f"{broken.where}: {broken.what}") from broken

    def read(self, billing_document: str, now: datetime) -> tuple[Message | Rejected, ...]:
        """Return what a billing document says, with the ids it has in `pull`: for example because of an event."""
        where = f"BillingDocument eq {literal(wire.number(billing_document))}"
        try:
            return tuple(self._told(list(self._documents(where)), now)[0])
        except BadRow as broken:
            raise Misunderstood(str(self.system), f"{broken.where}: {broken.what}") from broken

    def _pull(self, checkpoint: str, now: datetime) -> Pulled:
        since, waiting = self._place(checkpoint, now)
        start, end = since - self.config.overlap, min(since + self.config.window, now)
        last = end >= now
        rows = {str(row.get("BillingDocument")): row for row in self._documents(_changed(start, None if last else end))}
        later = self._bulk(
            wire.DOCUMENTS,
            "A_BillingDocument",
            "BillingDocument",
            set(waiting) - {wire.number(each) for each in rows},
            select=_DOCUMENT_FIELDS,
            expand="to_Item",
        )
        rows |= {str(row.get("BillingDocument")): row for row in later}
        messages, unposted = self._told(list(rows.values()), now)
        return Pulled(tuple(messages), json.dumps([1, end.isoformat(), unposted]), more=not last)

    def _place(self, checkpoint: str, now: datetime) -> tuple[datetime, list[str]]:
        if not checkpoint:
            return now - self.config.horizon, []
        try:
            version, since, waiting = json.loads(checkpoint)
            place = datetime.fromisoformat(since)
            numbers = [str(each) for each in waiting]
        except (ValueError, TypeError) as broken:
            raise Misconfigured(str(self.system), "the checkpoint was not written by this adapter") from broken
        if version != 1 or place.tzinfo is None:
            raise Misconfigured(str(self.system), "the checkpoint was written by another version")
        return place, numbers

    def _documents(self, where: str) -> Iterator[Row]:
        return self._all(wire.DOCUMENTS, "A_BillingDocument", where, select=_DOCUMENT_FIELDS, expand="to_Item")

    def _told(self, rows: Sequence[Row], now: datetime) -> tuple[list[Message | Rejected], list[str]]:
        """Return messages about the documents that are ours, and the numbers of those that are not posted yet."""
        of: dict[int, list[str]] = {}
        messages: list[Message | Rejected] = []
        unposted: list[str] = []
        for place, row in enumerate(rows):
            try:
                items = wire.children_of(row, "to_Item")
            except BadRow as broken:
                messages.append(self._tell.rejected(wire.number(str(row.get("BillingDocument") or "")), row, broken))
                items = []
            of[place] = sorted({wire.number(str(each.get("SalesDocument") or "")) for each in items} - {""})
        orders = self._ours({each for numbers in of.values() for each in numbers})
        for place, row in enumerate(rows):
            for order in of[place]:
                if order in orders:
                    messages.extend(self._about(row, orders[order], now, unposted))
        return messages, sorted(set(unposted))

    def _about(
        self, row: Row, order: wire.Order | Rejected, now: datetime, unposted: list[str]
    ) -> Iterator[Message | Rejected]:
        document = wire.number(str(row.get("BillingDocument") or ""))
        if isinstance(order, Rejected):
            yield order
            return
        try:
            if not wire.is_invoice(row, self.config):
                return
            if wire.flag_of(row, "BillingDocumentIsCancelled"):
                yield self._tell.canceled(document, order.number)
            elif row.get("AccountingPostingStatus") != wire.POSTED:
                unposted.append(wire.number_of(row, "BillingDocument"))
            else:
                yield self._tell.invoiced(row, wire.children_of(row, "to_Item"), order, now)
        except BadRow as broken:
            yield self._tell.rejected(document, row, broken, order.number)

    def _ours(self, numbers: Iterable[str]) -> dict[str, wire.Order | Rejected]:
        """Return those of some sales orders that carry a reference of ours; an unreadable one as its rejection."""
        found: dict[str, wire.Order | Rejected] = {}
        for row in self._bulk(wire.ORDERS, "A_SalesOrder", "SalesOrder", numbers, expand="to_Item"):
            reference = str(row.get("PurchaseOrderByCustomer") or "")
            if not reference or not reference.startswith(self.config.reference_prefix):
                continue
            number = wire.number(str(row.get("SalesOrder") or ""))
            try:
                found[number] = wire.order_of(row, self.config)
            except BadRow as broken:
                found[number] = self._tell.rejected(f"of sales order {number}", row, broken, number)
        return found

    # --- events --------------------------------------------------------------------------------------------

    def handshake(self, headers: Mapping[str, str]) -> Result[dict[str, str], Refused]:
        """Answer Event Mesh's ``OPTIONS``: the headers of a 200 (``WebHook-Allowed-Origin``), or `Refused`."""
        return wire.handshake(headers, self.config)

    def translate(self, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Authenticate an event and return the billing documents it hints at; `read` tells the rest.

        Events about other things hint at nothing. Events come twice and in any order; any answer below 300 takes them
        off the queue. Refused: a wrong secret, more than 1 MiB, and what is no event.
        """
        if not wire.secret_matches(headers, self.config):
            return self._no("forged", "the event does not carry our secret")
        if len(body) > wire.BIGGEST_EVENT:
            return self._no("oversized", f"more than {wire.BIGGEST_EVENT} bytes")
        return wire.hinted(headers, body, self.config)


_UNQUOTED: Final = "'(),/:$"
_DOCUMENT_FIELDS: Final = (*wire.HEADER_FIELDS, *(f"to_Item/{name}" for name in wire.ITEM_FIELDS))


def _auth(config: SapConfig, client: Client, clock: Clock) -> Auth:
    if config.user:
        return FixedHeader("Authorization", wire.basic(config.user, config.password))
    query = f"?sap-client={quote(config.sap_client)}" if config.sap_client else ""
    return ClientCredentials(
        str(config.system),
        config.token_url or config.base_url.rstrip("/") + wire.TOKEN_PATH + query,
        config.client_id,
        config.client_secret,
        client=client,
        clock=clock,
        basic=True,
    )


def _changed(start: datetime, end: datetime | None) -> str:
    """Write the filter for documents created or changed from *start* to before *end* (``None``: open).

    A document nobody changed may have no ``LastChangeDateTime`` (the sandbox shows an empty ``LastChangeDate``), and
    a day of creation is one of SAP's own time zone: hence both fields, and a day more on either side.
    """
    day = timedelta(days=1)
    changed = both(
        f"LastChangeDateTime ge {wire.moment_literal(start)}",
        f"LastChangeDateTime lt {wire.moment_literal(end)}" if end else "",
    )
    created = both(
        f"CreationDate ge {wire.day_literal(start.date() - day)}",
        f"CreationDate le {wire.day_literal(end.date() + day)}" if end else "",
    )
    return f"({changed}) or ({created})"
