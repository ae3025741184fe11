"""A stand-in for Flexe that speaks whatever `FlexeProtocol` it is given, and the people of its warehouse.

It proves that adapter and protocol data fit together, and nothing about the real Flexe, whose protocol is not public:
where that is silent, this is the unkindest case (a reference sent twice makes two orders).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final
from urllib.parse import quote

import attrs

from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import decode, encode
from iom_adapters._twin import Documents, Faults, Json, TwinRequest, TwinResponse
from iom_adapters.flexe.protocol import (
    ErrorMeaning,
    FlexeProtocol,
    Listing,
    Meaning,
    Notice,
    put_at,
    read_time,
    value_at,
    write_time,
)

WINDOW: Final = timedelta(seconds=60)
"""The window of the twin's quota."""

Deliver = Callable[[str, Mapping[str, str], bytes], int]
"""Sends one webhook to an address and returns the HTTP status it got; not 2xx: it is kept and sent again."""

_NEXT: Final[Mapping[Meaning, Meaning]] = {
    Meaning.OPEN: Meaning.PICKED,
    Meaning.PICKED: Meaning.PACKED,
    Meaning.PACKED: Meaning.SHIPPED,
    Meaning.PARTIALLY_SHIPPED: Meaning.SHIPPED,
}
_INSTEAD: Final[Mapping[Meaning, Meaning]] = {
    Meaning.PICKED: Meaning.OPEN,
    Meaning.PACKED: Meaning.OPEN,
    Meaning.PARTIALLY_SHIPPED: Meaning.SHIPPED,
}
"""What is shown for a meaning that has no status in the protocol."""


class _Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@attrs.define
class Webhooks:
    """How webhooks are sent: to *url* with our *secret* in *header* or, when named, the query parameter *parameter*.

    *deliver* sends one; ``None``: they are only kept. *copies*: how often each is sent. *hold*: they wait until
    `FlexeTwin.deliver_webhooks`. *backwards*: those that wait are sent newest first.
    """

    deliver: Deliver | None = None
    url: str = "https://iom.example/webhooks/flexe"
    secret: str = attrs.field(default="", repr=False)
    header: str = "X-Iom-Webhook-Secret"
    parameter: str = ""
    copies: int = 1
    hold: bool = False
    backwards: bool = False


class FlexeTwin:
    """One Flexe account. State lives in memory or, with *path*, in a file that survives a killed process.

    Requests need the *token* where the protocol (or *auth_header*, *auth_scheme*) says. *quota* calls are answered per
    60 seconds, then 429 with ``Retry-After``; ``None``: all are. *page_size*: entries per page of a listing.
    *refuses_duplicates*: whether a reference that is there is refused, where the protocol has a code for that.
    """

    def __init__(
        self,
        protocol: FlexeProtocol,
        *,
        token: str = "test-token",  # noqa: S107 - the stand-in's own
        auth_header: str = "",
        auth_scheme: str = "",
        clock: Clock = utc_now,
        path: Path | None = None,
        quota: int | None = None,
        page_size: int = 10,
        refuses_duplicates: bool = False,
        webhooks: Webhooks | None = None,
    ) -> None:
        self.protocol = protocol
        self.quota = quota
        self.page_size = page_size
        self.refuses_duplicates = refuses_duplicates
        self.webhooks = Webhooks() if webhooks is None else webhooks
        scheme = auth_scheme or ("" if auth_header else protocol.auth_scheme)
        self._auth = ((auth_header or protocol.auth_header).lower(), f"{scheme} {token}".strip())
        if not self._auth[0]:
            raise ValueError("the twin needs an auth_header, in the protocol or its own")
        self._clock = clock
        self._documents = Documents(path)
        self._faults = Faults()
        self._lock = threading.RLock()
        self._calls: deque[datetime] = deque()
        self._refuses = ""

    @property
    def name(self) -> str:
        """Return ``"flexe"``."""
        return "flexe"

    @property
    def faults(self) -> Faults:
        """Return the plan of how to misbehave."""
        return self._faults

    def close(self) -> None:
        """Close the file."""
        self._documents.close()

    # --- the people's back door ----------------------------------------------------------------------------

    def orders(self) -> list[str]:
        """Return the ids of all outbound orders, oldest first."""
        with self._lock:
            return sorted(self._documents.keys("order"))

    def placed(self) -> list[str]:
        """Return the references of the orders that are not canceled, once for each order, oldest first."""
        with self._lock:
            rows = [self._row(each) for each in self.orders()]
            return [row["reference"] for row in rows if row["meaning"] != Meaning.CANCELED]

    def number(self, name: str) -> str:
        """Return the id of the order of that id or reference; raises `KeyError`."""
        with self._lock:
            return str(self._row(name)["number"])

    def sent(self, name: str) -> Json:
        """Return the request that created an order, as it came."""
        with self._lock:
            return self._row(name)["request"]

    def refuse(self, why: str) -> None:
        """Refuse what is sent from now on; ``""`` ends that."""
        self._refuses = why

    def ship(self, name: str) -> str:
        """Ship all that is left of an order in one parcel and return the shipment's id."""
        with self._at_work():
            row = self._row(name)
            return self._ship(row, [(line, self._left(row, line)) for line in row["lines"]])

    def ship_part(self, name: str, units: int = 1, line: int = 0) -> bool:
        """Ship *units* of the first line from *line* on that has any left; ``False`` when parts aren't allowed."""
        if not self.protocol.partial_shipments:
            return False
        with self._at_work():
            row = self._row(name)
            chosen = next(each for each in row["lines"][line:] if self._left(row, each) > 0)
            self._ship(row, [(chosen, min(Decimal(units), self._left(row, chosen)))])
            return True

    def cancel(self, name: str) -> None:
        """Cancel what has not left of an order, as Flexe's people may."""
        with self._at_work():
            self._change({**self._row(name), "meaning": Meaning.CANCELED})

    def staff_step(self) -> int:
        """Move every order on by one step: picked, packed, shipped; return how many moved."""
        with self._at_work():
            moving = [row for row in map(self._row, self.orders()) if Meaning(row["meaning"]) in _NEXT]
            for row in moving:
                following = _NEXT[Meaning(row["meaning"])]
                if following is Meaning.SHIPPED:
                    self._ship(row, [(line, self._left(row, line)) for line in row["lines"]])
                else:
                    self._change({**row, "meaning": following})
            return len(moving)

    def show_status(self, name: str, status: str) -> None:
        """Let an order show *status* whatever it is in truth; ``""`` ends that. Plants unknown statuses."""
        with self._at_work():
            self._change({**self._row(name), "shown": status})

    def spoil(self, name: str, path: str, value: Json) -> None:
        """Put *value* at *path* of an order's row, whatever belongs there. Plants malformed rows."""
        with self._at_work():
            row = self._row(name)
            self._change({**row, "spoiled": {**row["spoiled"], path: value}})

    def webhook(self, name: str) -> tuple[str, dict[str, str], bytes]:
        """Return the webhook about an order that would be sent now: address, headers, body."""
        with self._lock:
            return self._letter(self._event(self._row(name)["number"]))

    def pending_webhooks(self) -> int:
        """Return how many webhooks wait to be delivered."""
        with self._lock:
            return len(self._documents.keys("event"))

    def deliver_webhooks(self) -> int:
        """Send the webhooks that wait and return how many were accepted."""
        deliver = self.webhooks.deliver
        if deliver is None:
            return 0
        with self._lock:
            waiting = sorted(self._documents.keys("event"), key=int, reverse=self.webhooks.backwards)
            events = [(key, self._documents.get("event", key)) for key in waiting]
        accepted = 0
        for key, event in events:
            statuses = [deliver(*self._letter(event)) for _ in range(self.webhooks.copies)]
            if any(200 <= status < 300 for status in statuses):
                accepted += 1
                with self._lock:
                    self._documents.delete("event", key)
                    self._documents.commit()
        return accepted

    # --- the front door ------------------------------------------------------------------------------------

    def handle(self, request: TwinRequest) -> TwinResponse:
        """Answer one request. It either happens as a whole, durably, or not at all."""
        with self._lock:
            try:
                status, body = self._answer(request)
                response = TwinResponse(status, {"content-type": "application/json"}, encode(body))
            except _Refusal as refusal:
                response = self._error(refusal)
            self._documents.commit()
        self._send_unless_held()
        return response

    def _answer(self, request: TwinRequest) -> tuple[int, Json]:
        self._throttle()
        header, secret = self._auth
        if request.headers.get(header) != secret:
            raise _Refusal(401, "who are you?")
        protocol, query = self.protocol, dict(request.query)
        told = (request.method, request.path, query)
        if protocol.create.match(*told) is not None:
            return 201, self._wrapped(self._create(request))
        if protocol.find is not None:
            places = protocol.find.match(*told)
            if places is not None and "reference" in places:
                found = [self._shown(row) for row in self._rows() if row["reference"] == places["reference"]]
                return 200, _within(protocol.find.items, found)
        if protocol.listing is not None:
            places = protocol.listing.match(*told)
            if places is not None:
                return 200, self._list(protocol.listing, places)
        if protocol.cancel is not None:
            places = protocol.cancel.match(*told)
            if places is not None:
                return 200, self._wrapped(self._canceled(places["number"]))
        places = protocol.read.match(*told)
        if places is not None:
            return 200, self._wrapped(self._existing(places["number"]))
        raise _Refusal(404, "there is nothing here")

    def _throttle(self) -> None:
        now = self._clock()
        while self._calls and now - self._calls[0] >= WINDOW:
            self._calls.popleft()
        if self.quota is not None and len(self._calls) >= self.quota:
            raise _Refusal(429, "too many calls")
        self._calls.append(now)

    def _error(self, refusal: _Refusal) -> TwinResponse:
        body: dict[str, Json] = {}
        put_at(body, self.protocol.error.message, refusal.message)
        if refusal.code:
            put_at(body, self.protocol.error.code, refusal.code)
        headers: dict[str, str] = {}
        if refusal.status == 429 and self._calls:
            headers["retry-after"] = str(int((self._calls[0] + WINDOW - self._clock()).total_seconds()) + 1)
        return TwinResponse.of(refusal.status, body, headers)

    def _create(self, request: TwinRequest) -> Json:
        if self._refuses:
            raise _Refusal(422, self._refuses)
        try:
            body = decode(request.body)
        except ValueError:
            raise _Refusal(400, "the request is not JSON") from None
        names = self.protocol.request
        reference, rows = value_at(body, names.reference), value_at(body, names.lines)
        if not isinstance(reference, str) or not reference:
            raise _Refusal(422, f"{names.reference} is missing")
        if not isinstance(rows, list) or not rows:
            raise _Refusal(422, f"{names.lines} is missing")
        self._mind_duplicates(reference)
        number = f"OB-{self._documents.next('order', 100_001)}"
        row = {
            "number": number,
            "reference": reference,
            "warehouse": value_at(body, names.warehouse) if names.warehouse else None,
            "lines": [self._taken_line(each) for each in rows],
            "meaning": Meaning.OPEN,
            "shown": "",
            "spoiled": {},
            "shipments": [],
            "request": _plain(body),
        }
        self._put(row)
        return row

    def _mind_duplicates(self, reference: str) -> None:
        if not self.refuses_duplicates or all(each["reference"] != reference for each in self._rows()):
            return
        known = [code for code, meaning in self.protocol.errors.items() if meaning is ErrorMeaning.DUPLICATE]
        if known:
            status = int(known[0].removeprefix("http ")) if known[0].startswith("http ") else 409
            raise _Refusal(status, f"{reference} is there already", known[0])

    def _taken_line(self, each: Json) -> Json:
        names = self.protocol.request
        sku, quantity = value_at(each, names.line_sku), value_at(each, names.line_quantity)
        if not isinstance(sku, str) or not sku:
            raise _Refusal(422, f"{names.line_sku} is missing")
        try:
            amount = Decimal(str(quantity))
        except InvalidOperation:
            raise _Refusal(422, f"{names.line_quantity} is no number") from None
        if not amount.is_finite() or amount <= 0 or isinstance(quantity, str) != self.protocol.quantities_as_text:
            raise _Refusal(422, f"{names.line_quantity} is no quantity")
        return {"reference": value_at(each, names.line_reference), "sku": sku, "quantity": str(amount)}

    def _existing(self, number: str) -> Json:
        row = self._documents.get("order", number)
        if row is None:
            raise _Refusal(404, f"there is no outbound order {number}")
        return row

    def _canceled(self, number: str) -> Json:
        row = self._existing(number)
        if row["meaning"] in (Meaning.SHIPPED, Meaning.PARTIALLY_SHIPPED):
            raise _Refusal(409, "it has left")
        changed = {**row, "meaning": Meaning.CANCELED}
        self._put(changed)
        return changed

    def _list(self, listing: Listing, places: Mapping[str, str]) -> Json:
        rows = self._rows()
        if "since" in places:
            style = self.protocol.date_format
            text = places["since"]
            since = read_time(int(text) if style.startswith("epoch") else text, style)
            rows = [row for row in rows if datetime.fromisoformat(row["changed"]) >= since]
        page = places.get("page", listing.first_page)
        counted = not listing.next_page and "page" in listing.places
        start = (int(page) - int(listing.first_page)) if counted else int(page.removeprefix("@")) if "@" in page else 0
        size = self.page_size if listing.next_page or counted else len(rows)
        shown = rows[start * size : (start + 1) * size]
        answer = _within(listing.items, [self._shown(row) for row in shown])
        if listing.next_page:
            put_at(answer, listing.next_page, f"@{start + 1}" if (start + 1) * size < len(rows) else None)
        return answer

    # --- how it is kept and shown --------------------------------------------------------------------------

    def _rows(self) -> list[Json]:
        return [self._documents.get("order", each) for each in self.orders()]

    def _row(self, name: str) -> Json:
        found = self._documents.get("order", name)
        matching = [row for row in self._rows() if row["reference"] == name] if found is None else [found]
        if not matching:
            raise KeyError(name)
        return matching[0]

    def _put(self, row: Mapping[str, Json]) -> None:
        self._documents.put("order", row["number"], {**row, "changed": self._clock().astimezone(UTC).isoformat()})

    def _change(self, row: Mapping[str, Json]) -> None:
        """Store what people did, with the webhook that tells it."""
        self._put(row)
        if self.protocol.webhook is not None:
            self._documents.put("event", str(self._documents.next("event")), self._event(row["number"]))

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Make what people do durable, and send webhooks only when the twin can answer again."""
        with self._lock:
            yield
            self._documents.commit()
        self._send_unless_held()

    def _send_unless_held(self) -> None:
        if not self.webhooks.hold:
            self.deliver_webhooks()

    def _left(self, row: Json, line: Json) -> Decimal:
        parts = [part for shipment in row["shipments"] for part in shipment["lines"]]
        same = [Decimal(part["quantity"]) for part in parts if part["reference"] == line["reference"]]
        return Decimal(line["quantity"]) - sum(same, Decimal(0))

    def _ship(self, row: Json, parts: Sequence[tuple[Json, Decimal]]) -> str:
        shipment = f"{row['number']}-S{len(row['shipments']) + 1}"
        parcel = {
            "id": shipment,
            "at": self._clock().astimezone(UTC).isoformat(),
            "lines": [{**line, "quantity": str(amount)} for line, amount in parts if amount > 0],
        }
        changed = {**row, "shipments": [*row["shipments"], parcel]}
        whole = all(self._left(changed, line) <= 0 for line in row["lines"])
        self._change({**changed, "meaning": Meaning.SHIPPED if whole else Meaning.PARTIALLY_SHIPPED})
        return shipment

    def _status(self, meaning: Meaning) -> str:
        for wanted in (meaning, _INSTEAD.get(meaning)):
            for name, each in self.protocol.statuses.items():
                if each is wanted:
                    return name
        raise ValueError(f"the protocol has no status that means {meaning}")

    def _shown(self, row: Json) -> Json:
        names, shown = self.protocol.answer, dict[str, Json]()
        put_at(shown, names.number, row["number"])
        put_at(shown, names.reference, row["reference"])
        put_at(shown, names.status, row["shown"] or self._status(Meaning(row["meaning"])))
        put_at(shown, names.warehouse, row["warehouse"])
        put_at(shown, names.lines, [self._shown_line(each, "line") for each in row["lines"]])
        put_at(shown, names.shipments, [self._shown_shipment(row, each) for each in row["shipments"]])
        for path, value in row["spoiled"].items():
            put_at(shown, path, value)
        return shown

    def _shown_shipment(self, row: Json, shipment: Json) -> Json:
        names, shown = self.protocol.answer, dict[str, Json]()
        left = [name for name, each in self.protocol.shipment_statuses.items() if each is Meaning.SHIPPED]
        values: dict[str, Json] = {
            "shipment_id": shipment["id"],
            "shipment_status": next(iter(left), None),
            "shipped_at": write_time(datetime.fromisoformat(shipment["at"]), self.protocol.date_format),
            "tracking_number": f"1Z{shipment['id']}",
            "tracking_url": f"https://carrier.example/{quote(shipment['id'])}",
            "carrier": "UPS",
            "service": "Ground",
            "shipment_lines": [self._shown_line(each, "shipment_line") for each in shipment["lines"]],
        }
        for name, value in values.items():
            put_at(shown, getattr(names, name), value)
        return shown

    def _shown_line(self, line: Json, kind: str) -> Json:
        names, shown = self.protocol.answer, dict[str, Json]()
        amount = Decimal(line["quantity"])
        number: Json = int(amount) if amount == amount.to_integral_value() else amount
        put_at(shown, getattr(names, f"{kind}_reference"), line["reference"])
        put_at(shown, getattr(names, f"{kind}_sku"), line["sku"])
        put_at(shown, getattr(names, f"{kind}_quantity"), str(amount) if self.protocol.quantities_as_text else number)
        return shown

    def _wrapped(self, row: Json) -> Json:
        return _within(self.protocol.answer.order, self._shown(row))

    def _event(self, number: str) -> Json:
        webhook = self.protocol.webhook
        if webhook is None:
            raise ValueError("the protocol declares no webhook")
        body: dict[str, Json] = {}
        named = [name for name, notice in webhook.events.items() if notice is Notice.ORDER]
        put_at(body, webhook.event, next(iter(named), "order"))
        put_at(body, webhook.number, number)
        return body

    def _letter(self, event: Json) -> tuple[str, dict[str, str], bytes]:
        hooks = self.webhooks
        headers = {"Content-Type": "application/json"}
        if hooks.parameter:
            return f"{hooks.url}?{quote(hooks.parameter)}={quote(hooks.secret, safe='')}", headers, encode(event)
        return hooks.url, {**headers, hooks.header: hooks.secret}, encode(event)


def _within(path: str, value: Json) -> Json:
    if not path:
        return value
    answer: dict[str, Json] = {}
    put_at(answer, path, value)
    return answer


def _plain(value: Json) -> Json:
    """Return *value* with its decimals as text, for the documents."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Decimal) else value
