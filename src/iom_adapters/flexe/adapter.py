"""Flexe behind our `FulfillmentProvider` port: one outbound order per fulfillment order, sent once, read until it left.

No idempotency promise of Flexe is known, so nothing is ever sent again before a reading says that it isn't there.
"""

from __future__ import annotations

import hmac
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import attrs
from returns.result import Failure, Result, Success

from iom_adapters._auth import FixedHeader
from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client, Reply, Session, decode
from iom_adapters._http import client as new_client
from iom_adapters.flexe import wire
from iom_adapters.flexe.protocol import (
    Call,
    ErrorMeaning,
    FlexeProtocol,
    Json,
    Listing,
    Meaning,
    write_time,
)
from iom_adapters.flexe.wire import BadRow
from iom_core import events as ev
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Message, Rejected
from iom_core.order import SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.ports import Capability, FulfillmentRequest, Pulled, Receipt
from iom_core.values import System

FLEXE_SYSTEM: Final = System("flexe")
MAX_WEBHOOK: Final = 64 * 1024
"""The largest webhook body read, in bytes. Ours: nothing is documented."""

OpenOrders = Callable[[], Iterable[str]]
"""Gives Flexe's ids of the outbound orders whose end we have not heard of; asked at each pull."""

Found = Message | Rejected

_NEVER_SENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
_REMEMBERED: Final = 10_000


class Intents(Protocol):
    """Remembers across processes what was sent to Flexe: needed where the protocol declares no look-up."""

    def state(self, reference: str) -> str | None:
        """Return Flexe's id of our *reference*; ``""``: sent, the answer is not known; ``None``: not sent."""
        ...

    def note(self, reference: str, number: str | None) -> None:
        """Remember a state durably before returning; ``None`` forgets it."""
        ...


class IntentFile:
    """`Intents` in a file that only grows: each line one state, flushed to the disk. One process at a time.

    A person ends a doubt with ``note(reference, number)`` when Flexe has the order, ``note(reference, None)`` when not.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text("utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                reference, number = json.loads(line)
            except ValueError:
                continue  # torn by a kill: what it would have said had not begun, or stays in doubt
            self._take(reference, number)
        self._path = path
        if text and not text.endswith("\n"):
            self._append("\n")

    def state(self, reference: str) -> str | None:
        """See `Intents.state`."""
        with self._lock:
            return self._states.get(reference)

    def note(self, reference: str, number: str | None) -> None:
        """See `Intents.note`."""
        with self._lock:
            self._append(json.dumps([reference, number]) + "\n")
            self._take(reference, number)

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _take(self, reference: str, number: str | None) -> None:
        if number is None:
            self._states.pop(reference, None)
        else:
            self._states[reference] = number


def _lower(text: str) -> str:
    return text.lower()


@attrs.frozen(kw_only=True)
class FlexeConfig:
    """How to reach Flexe. Secrets are left out of its ``repr``; whether the protocol is verified is not.

    *base_url* and *protocol* have no default, and neither has the header of the *token*: it is in the protocol or in
    *auth_header* and *auth_scheme*, which win. *webhook_secret* is our own; it comes in the header *webhook_header*, or
    in the query parameter *webhook_parameter* where one is named. *calls_per_minute*: 100 is the throttle of
    Microsoft's connector, the only number published. *reserve* of them are kept for sending, so that polling can't use
    all. *reference_prefix*: orders hinted at whose reference begins otherwise are not ours. *settle*: how long
    after a lost answer an order that a look-up doesn't show is still taken as under way. Times are `timedelta`.
    """

    base_url: str
    token: str = attrs.field(repr=False)
    protocol: FlexeProtocol = attrs.field(repr=lambda protocol: protocol.mark)
    auth_header: str = ""
    auth_scheme: str = ""
    webhook_secret: str = attrs.field(default="", repr=False)
    webhook_header: str = attrs.field(default="x-iom-webhook-secret", converter=_lower)
    webhook_parameter: str = ""
    reference_prefix: str = ""
    calls_per_minute: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    reserve: int = attrs.field(default=20, validator=attrs.validators.ge(0))
    orders_per_pull: int = attrs.field(default=50, validator=attrs.validators.ge(1))
    settle: timedelta = timedelta(minutes=2)
    overlap: timedelta = timedelta(minutes=5)
    system: System = FLEXE_SYSTEM

    def __attrs_post_init__(self) -> None:
        for name in ("base_url", "token"):
            if not getattr(self, name):
                raise Misconfigured(self.system, f"the setting {name!r} is missing: it has no default")
        if not (self.auth_header or self.protocol.auth_header):
            raise Misconfigured(
                self.system, "where the token goes is not documented: set auth_header, in the protocol or the settings"
            )
        if self.reserve >= self.calls_per_minute:
            raise Misconfigured(self.system, "reserve must be below calls_per_minute, or nothing is ever read")

    def auth(self) -> FixedHeader:
        """Return the header that carries the token."""
        scheme = self.auth_scheme or ("" if self.auth_header else self.protocol.auth_scheme)
        return FixedHeader(self.auth_header or self.protocol.auth_header, f"{scheme} {self.token}".strip())


@attrs.define
class _Budget:
    """A client-side limit: so many calls in any 60 seconds."""

    system: System
    calls: int
    _made: deque[datetime] = attrs.field(factory=deque, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def take(self, now: datetime, keep: int) -> None:
        """Use one call and leave *keep*; raises `Unavailable` with the seconds until that is possible."""
        with self._lock:
            while self._made and now - self._made[0] >= timedelta(seconds=60):
                self._made.popleft()
            if len(self._made) < self.calls - keep:
                self._made.append(now)
                return
            over = len(self._made) - (self.calls - keep)
            left = (self._made[over] + timedelta(seconds=60) - now).total_seconds()
        raise Unavailable(self.system, f"our own limit of {self.calls} calls a minute is used up", max(left, 0.001))


@attrs.frozen
class _Place:
    """Where a puller stands in its round: first what the list names (*page*: the next to fetch), then the open orders
    after *after*, by id. *todo* is still to be read; *since* is when the last round began, *began* this one. *serial*
    makes every checkpoint different from the one before, so that one that comes back shows what was taken over.
    """

    serial: int = 0
    todo: tuple[str, ...] = ()
    page: str | None = None
    after: str = ""
    since: datetime | None = None
    began: datetime | None = None

    def text(self) -> str:
        moments = [each.isoformat() if each else "" for each in (self.since, self.began)]
        return json.dumps([1, self.serial, self.todo, self.page, self.after, *moments])

    @classmethod
    def read(cls, text: str) -> _Place:
        version, serial, todo, page, after, *moments = json.loads(text)
        if (
            version != 1
            or not isinstance(serial, int)
            or not all(isinstance(each, str) for each in (*todo, after, page or ""))
        ):
            raise ValueError
        since, began = (datetime.fromisoformat(each).astimezone(UTC) if each else None for each in moments)
        return cls(serial, tuple(todo), page, after, since, began)


class Flexe:
    """One Flexe account as a `FulfillmentProvider`. Safe to use from several threads.

    **Sent once.** The fulfillment order's id is the external reference. With a look-up in the protocol, every
    `submit` looks before it sends. Without one, *intents* must be given: each sending is noted before it begins, and
    one whose answer was lost stays in doubt (`Unavailable`) until a person settles it; it is never sent again.

    **Read until it left.** Nothing documented lists what changed, so `pull` reads the orders that *open_orders* names
    (see `open_orders`), and those of the protocol's listing when it declares one. What was told and taken over isn't
    told again by the same process; after a restart, or from an older checkpoint, it comes under the ids it had.
    """

    def __init__(
        self,
        config: FlexeConfig,
        client: Client | None = None,
        clock: Clock = utc_now,
        *,
        open_orders: OpenOrders | None = None,
        intents: Intents | None = None,
    ) -> None:
        self.config = config
        self.protocol = config.protocol
        if self.protocol.find is None and intents is None:
            raise Misconfigured(
                config.system,
                f"the {self.protocol.mark} declares no look-up by our reference, so a lost answer could be sent twice; "
                "give intents (for example an IntentFile)",
            )
        self._clock = clock
        self._open_orders = open_orders
        self._intents = intents if self.protocol.find is None else None
        self._budget = _Budget(config.system, config.calls_per_minute)
        self._tell = wire.Teller(config.system, self.protocol)
        self._answered = threading.local()
        self._doubts: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._last: tuple[str, frozenset[str]] = ("", frozenset())
        self._session = Session(
            str(config.system),
            config.base_url,
            config.auth(),
            new_client() if client is None else client,
            wait=self._note_status,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"Flexe({self.config!r})"

    @property
    def system(self) -> System:
        """Return the system's name, ``"flexe"`` unless configured otherwise."""
        return self.config.system

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what the protocol declares: canceling, partial shipments, and webhooks once there is a secret."""
        abilities = {
            Capability.CANCEL: self.protocol.cancel is not None,
            Capability.PARTIAL_SHIPMENTS: self.protocol.partial_shipments,
            Capability.WEBHOOKS: self.protocol.webhook is not None and bool(self.config.webhook_secret),
        }
        return frozenset(each for each, able in abilities.items() if able)

    @property
    def calls(self) -> int:
        """Return how many requests were sent so far."""
        return self._session.calls

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    # --- sending -------------------------------------------------------------------------------------------

    def submit(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Make one outbound order of a fulfillment order's physical lines, once, also after a lost answer.

        The receipt's number is Flexe's id of it. Refused: nothing to ship, several addresses, and what Flexe refuses.
        Raises `Unavailable`, also "in doubt" while nobody can say whether it was taken, and the other two faults.
        """
        written = wire.outbound_order(self.protocol, request.order, request.fulfillment_order, self.system)
        if failed(written):
            return written
        reference = request.fulfillment_order
        number = self._known(reference)
        if number is not None:
            return Success(self._receipt(number))
        if self._intents is not None:
            self._intents.note(reference, "")
        try:
            reply = self._call(self.protocol.create, {}, written.unwrap())
        except Misconfigured:
            self._settle(reference, None)
            raise
        except Misunderstood:
            self._doubt(reference)
            raise
        except Unavailable as fault:
            if self._surely_not_done(fault):
                self._settle(reference, None)
                raise
            self._doubt(reference)
            what = (
                f"{fault.what}; whether Flexe took {reference} is in doubt, it is not sent again before that is known"
            )
            raise Unavailable(str(self.system), what, fault.retry_after) from fault
        if 400 <= reply.status < 500:
            return self._refusal(reference, reply)
        if not 200 <= reply.status < 300:
            self._doubt(reference)
            raise Misunderstood(str(self.system), f"{self._shown(self.protocol.create)} answered {reply.status}")
        try:
            number = wire.number_of(self.protocol, wire.order_row(self.protocol, decode(reply.body)))
        except BadRow as broken:
            self._doubt(reference)
            raise Misunderstood(str(self.system), f"{broken.where}: {broken.what}") from broken
        except ValueError as broken:
            self._doubt(reference)
            raise Misunderstood(str(self.system), f"$: the answer is not JSON ({broken})") from broken
        self._settle(reference, number)
        return Success(self._receipt(number))

    def cancel(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Take an outbound order back, where the protocol declares how; otherwise every cancel is refused.

        Refused also: one that Flexe doesn't have, and one of which something has left. Raises the three faults.
        """
        call = self.protocol.cancel
        if call is None:
            what = f"the {self.protocol.mark} declares no way to cancel an outbound order; ask Flexe's people"
            return Failure(self._no("unsupported", what))
        number = self._number_of(request)
        row = None if number is None else self._order(number)
        if number is None or row is None:
            return Failure(self._no("unknown-order", f"Flexe has no outbound order for {request.fulfillment_order}"))
        try:
            status = wire.meaning_of(self.protocol, row)
        except BadRow as broken:
            raise Misunderstood(str(self.system), f"{broken.where}: {broken.what}") from broken
        if status is Meaning.CANCELED:
            return Success(self._receipt(number))
        if status in (Meaning.PARTIALLY_SHIPPED, Meaning.SHIPPED):
            return Failure(self._no("shipped", f"outbound order {number} is {status}"))
        reply = self._call(call, {"number": number})
        if 200 <= reply.status < 300:
            return Success(self._receipt(number))
        meaning, code, said = self._problem(call, reply)
        return Failure(self._no(code or str(meaning), said))

    def _known(self, reference: str) -> str | None:
        """Return Flexe's id of our *reference*, ``None`` when it may be sent; raises `Unavailable` while in doubt."""
        if self._intents is not None:
            number = self._intents.state(reference)
            if number == "":
                raise Unavailable(
                    str(self.system),
                    f"{reference} is in doubt: it was sent, its answer was lost, and the {self.protocol.mark} declares "
                    "no look-up. See whether Flexe has it, then note its id, or None, in the intents",
                )
            return number
        number = self._find(reference)
        since = self._doubts.get(reference)
        left = 0.0 if since is None else (since + self.config.settle - self._clock()).total_seconds()
        if number is None and left > 0:
            what = f"{reference} is in doubt: its answer was lost, and the look-up doesn't show it yet"
            raise Unavailable(str(self.system), what, left)
        self._doubts.pop(reference, None)
        return number

    def _find(self, reference: str) -> str | None:
        call = self.protocol.find
        if call is None:
            return None
        reply = self._call(call, {"reference": reference})
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise self._fault(call, reply)
        try:
            numbers = wire.found(self.protocol, reply.json(str(self.system)), reference)
        except BadRow as broken:
            raise Misunderstood(str(self.system), f"{broken.where}: {broken.what}") from broken
        if len(numbers) > 1:
            raise Misunderstood(str(self.system), f"{len(numbers)} outbound orders have the reference {reference}")
        return numbers[0] if numbers else None

    def _number_of(self, request: FulfillmentRequest) -> str | None:
        known = request.order.external(self.system, ev.FULFILLMENT_ORDER, request.fulfillment_order)
        if known is None and self._intents is not None:
            known = self._intents.state(request.fulfillment_order) or None
        return known if known is not None else self._find(request.fulfillment_order)

    def _refusal(self, reference: str, reply: Reply) -> Result[Receipt, Refused]:
        """Say what a 4xx answer to a sending means: nothing was taken, unless it was taken before."""
        meaning, code, said = wire.problem(self.protocol, reply.status, _json_or_none(reply))
        if meaning is ErrorMeaning.DUPLICATE:
            number = self._find(reference)
            if number is not None:
                self._settle(reference, number)
                return Success(self._receipt(number))
            self._doubt(reference)
            what = f"Flexe says that it has {reference} already ({said}), and nothing shows under which id"
            raise Unavailable(str(self.system), what)
        self._settle(reference, None)
        if meaning is not ErrorMeaning.REFUSED:
            raise self._fault(self.protocol.create, reply)
        return Failure(self._no(code or "refused", said))

    def _doubt(self, reference: str) -> None:
        if self._intents is None:
            while len(self._doubts) >= _REMEMBERED:
                self._doubts.pop(next(iter(self._doubts)), None)
            self._doubts[reference] = self._clock()

    def _settle(self, reference: str, number: str | None) -> None:
        if self._intents is not None:
            self._intents.note(reference, number)

    def _surely_not_done(self, fault: Unavailable) -> bool:
        """Say whether a call that failed can't have taken effect: it was throttled, or never left us."""
        if self._answered.status:
            return bool(self._answered.status == 429)
        return fault.__cause__ is None or type(fault.__cause__).__name__ in _NEVER_SENT

    def _receipt(self, number: str) -> Receipt:
        return Receipt(number, details=f"outbound order {number} ({self.protocol.mark})")

    def _no(self, code: str, what: str) -> Refused:
        return Refused(code, what, "$", who=str(self.system))

    # --- hearing -------------------------------------------------------------------------------------------

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Read outbound orders until ``orders_per_pull`` are read or the round is over, and tell all they say.

        The checkpoint is where the round stands. When the limit ends a pull early, what was read is returned with
        ``more``. An order that can't be read is one `Rejected`. Raises `Misconfigured` when nothing says which orders
        are open, and for a checkpoint that is none of ours.
        """
        if self._open_orders is None and self.protocol.listing is None:
            what = f"the {self.protocol.mark} declares no listing, so pulling needs open_orders"
            raise Misconfigured(str(self.system), what)
        place = self._begin(checkpoint, now)
        told = self._taken_over(checkpoint)
        found: dict[str, Found] = {}
        read: set[str] = set()
        moved = False
        try:
            while len(read) < self.config.orders_per_pull:
                if not place.todo:
                    following = self._refill(place)
                    if following is None:
                        return self._pulled(found, told, _Place(place.serial, since=place.began), more=False)
                    place, moved = following, True
                    continue
                number = place.todo[0]
                if number not in read:
                    found |= {each.id: each for each in self._read(number, now, ours=True, keep=self.config.reserve)}
                    read.add(number)
                place, moved = attrs.evolve(place, todo=place.todo[1:]), True
        except Unavailable:
            if not read or not moved:  # nothing new: say so, or the caller would ask again at once
                raise
        return self._pulled(found, told, place, more=True)

    def _taken_over(self, checkpoint: str) -> frozenset[str]:
        """Return the messages that were told before: those behind a checkpoint that came back have been taken over."""
        with self._lock:
            last, told = self._last
            if checkpoint != last or len(told) > _REMEMBERED:
                return frozenset()
            return told

    def _pulled(self, found: Mapping[str, Found], told: frozenset[str], place: _Place, *, more: bool) -> Pulled:
        checkpoint = place.text()
        with self._lock:
            self._last = (checkpoint, told | found.keys())
        return Pulled(tuple(each for key, each in found.items() if key not in told), checkpoint, more)

    def read(self, external_id: str, now: datetime) -> tuple[Found, ...]:
        """Read one outbound order by Flexe's id and tell all it says; nothing when there is none, or none of ours."""
        return self._read(external_id, now, ours=False, keep=0)

    def translate(self, headers: Mapping[str, str], body: bytes, query: str = "") -> Result[tuple[str, ...], Refused]:
        """Authenticate a webhook and return the outbound order it hints at; its content is never trusted.

        Our secret is compared in constant time, from the header or from *query* (the raw query string), as configured.
        Refused: oversized, forged and malformed deliveries, and every delivery while no secret or no webhook is set up.
        """
        if len(body) > MAX_WEBHOOK:
            return Failure(self._no("too-large", f"the body is larger than {MAX_WEBHOOK} bytes"))
        if Capability.WEBHOOKS not in self.capabilities or not self._is_authentic(headers, query):
            return Failure(self._no("unauthenticated", "the webhook does not carry our secret"))
        try:
            return Success(wire.hinted(self.protocol, decode(body)))
        except BadRow as broken:
            return Failure(Refused("malformed", broken.what, broken.where, who=str(self.system)))
        except ValueError:
            return Failure(self._no("malformed", "the body is not JSON"))

    def _is_authentic(self, headers: Mapping[str, str], query: str) -> bool:
        name = self.config.webhook_parameter
        if name:
            given = next((value for key, value in parse_qsl(query, keep_blank_values=True) if key == name), "")
        else:
            given = next((value for key, value in headers.items() if key.lower() == self.config.webhook_header), "")
        return hmac.compare_digest(
            given.encode("utf-8", "surrogatepass"), self.config.webhook_secret.encode("utf-8", "surrogatepass")
        )

    def _begin(self, checkpoint: str, now: datetime) -> _Place:
        try:
            place = _Place.read(checkpoint) if checkpoint else _Place()
        except (ValueError, TypeError, AttributeError):
            raise Misconfigured(str(self.system), "the puller's checkpoint is none of this adapter's") from None
        place = attrs.evolve(place, serial=place.serial + 1)
        if place.began is not None:
            return place
        listing = self.protocol.listing
        return attrs.evolve(place, began=now, page=None if listing is None else listing.first_page)

    def _refill(self, place: _Place) -> _Place | None:
        """Find what to read next: a page of the list, or the next open orders; ``None`` when the round is over."""
        listing = self.protocol.listing
        if listing is not None and place.page is not None:
            return self._listed(listing, place, place.page)
        numbers = () if self._open_orders is None else self._open_orders()
        following = tuple(sorted({each for each in numbers if each > place.after}))[: self.config.orders_per_pull]
        return attrs.evolve(place, todo=following, after=following[-1]) if following else None

    def _listed(self, listing: Listing, place: _Place, page: str) -> _Place:
        since = None if place.since is None else place.since - self.config.overlap
        moment = None if since is None else str(write_time(since, self.protocol.date_format))
        reply = self._call(listing, {"since": moment, "page": page}, keep=self.config.reserve)
        if reply.status != 200:
            raise self._fault(listing, reply)
        answer = reply.json(str(self.system))
        names = self.protocol.answer
        numbers: list[str] = []
        try:
            for where, row in wire.rows_of(answer, listing.items, needed=True):
                reference = wire.text_of(row, names.reference, where, needed=False)
                if reference and reference.startswith(self.config.reference_prefix):
                    numbers.append(wire.text_of(row, names.number, where))
            empty = not wire.rows_of(answer, listing.items)
            if listing.next_page:
                following = wire.text_of(answer, listing.next_page, needed=False) or None
            else:
                counted = "page" in listing.places and not empty
                following = str(int(page) + 1) if counted else None
        except (BadRow, ValueError) as broken:
            raise Misunderstood(str(self.system), f"the list of outbound orders: {broken}") from broken
        if following == page:
            raise Misunderstood(str(self.system), f"$.{listing.next_page}: the next page is this page")
        return attrs.evolve(place, todo=tuple(dict.fromkeys(numbers)), page=following)

    def _read(self, number: str, now: datetime, *, ours: bool, keep: int) -> tuple[Found, ...]:
        """Tell what an outbound order says; *ours*: we know it, so it must be there."""
        if not wire.is_number(number):
            return (self._tell.unreadable(number[:100], "this is no id of an outbound order"),) if ours else ()
        try:
            row = self._order(number, keep)
            if row is None:
                return (self._tell.unreadable(number, f"Flexe has no outbound order {number}"),) if ours else ()
            if not ours and not self._is_ours(row):
                return ()
        except (Misunderstood, BadRow) as broken:
            return (self._tell.unreadable(number, f"outbound order {number} can't be read: {broken}"),)
        return self._tell.tell(number, row, now)

    def _is_ours(self, row: Json) -> bool:
        reference = wire.text_of(row, self.protocol.answer.reference, needed=False)
        return bool(reference) and reference.startswith(self.config.reference_prefix)

    def _order(self, number: str, keep: int = 0) -> Json | None:
        call = self.protocol.read
        reply = self._call(call, {"number": number}, keep=keep)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise self._fault(call, reply)
        try:
            row = wire.order_row(self.protocol, reply.json(str(self.system)))
            said = wire.number_of(self.protocol, row)
        except BadRow as broken:
            raise Misunderstood(str(self.system), f"{broken.where}: {broken.what}") from broken
        if said != number:
            raise Misunderstood(str(self.system), f"asked for outbound order {number}, got {said}")
        return row

    # --- calling -------------------------------------------------------------------------------------------

    def _call(self, call: Call, values: Mapping[str, str | None], body: Json = None, keep: int = 0) -> Reply:
        self._answered.status = 0
        self._budget.take(self._clock(), keep)
        try:
            path, query = call.fill(values)
        except ValueError as broken:
            raise Misconfigured(str(self.system), str(broken)) from None
        return self._session.call(call.method, path, params=query, body=body)

    def _note_status(self, reply: Reply) -> float | None:
        """Note, for the thread that calls, that there was an answer; no limit headers are documented."""
        self._answered.status = reply.status
        return None

    def _problem(self, call: Call, reply: Reply) -> tuple[ErrorMeaning, str, str]:
        """Return what a 4xx answer means when that is a business no; raises the fault when it isn't."""
        meaning, code, said = wire.problem(self.protocol, reply.status, _json_or_none(reply))
        if not 400 <= reply.status < 500 or meaning in (ErrorMeaning.UNAVAILABLE, ErrorMeaning.MISCONFIGURED):
            raise self._fault(call, reply)
        return meaning, code, said

    def _fault(self, call: Call, reply: Reply) -> Unavailable | Misconfigured | Misunderstood:
        meaning, code, said = wire.problem(self.protocol, reply.status, _json_or_none(reply))
        what = f"{self._shown(call)} answered {reply.status} {code} {said}"
        kinds: Mapping[ErrorMeaning, Callable[[str, str], Unavailable | Misconfigured]] = {
            ErrorMeaning.UNAVAILABLE: Unavailable,
            ErrorMeaning.MISCONFIGURED: Misconfigured,
        }
        return kinds[meaning](str(self.system), what) if meaning in kinds else Misunderstood(str(self.system), what)

    def _shown(self, call: Call) -> str:
        return f"{call.method} {call.path}"


def _json_or_none(reply: Reply) -> Json:
    try:
        return decode(reply.body)
    except ValueError:
        return None


class _Orders(Protocol):
    def orders(self) -> Iterator[SalesOrder]: ...


def open_orders(store: _Orders, system: System = FLEXE_SYSTEM) -> OpenOrders:
    """Return what `Flexe` needs to know which outbound orders to read: those of *store* that have units left to leave.

    *store* is an `OrderStore`. Given out are Flexe's ids of the fulfillment orders sent to *system* of which something
    is neither shipped nor canceled. It goes through all orders at each round; a store that can select them does better.
    """

    def numbers() -> Iterator[str]:
        for order in store.orders():
            for fo in order.fulfillment_orders:
                left = any(line.shipped + line.canceled < line.quantity for line in fo.lines)
                number = order.external(system, ev.FULFILLMENT_ORDER, fo.id) or order.external(system)
                if left and number and fo.provider == system:
                    yield number

    return numbers


_SECONDS: Final = ("settle", "overlap")
_COUNTS: Final = ("calls_per_minute", "reserve", "orders_per_pull")


def connect(
    settings: Mapping[str, Any],
    *,
    client: Client | None = None,
    clock: Clock = utc_now,
    open_orders: OpenOrders | None = None,
    intents: Intents | None = None,
) -> Flexe:
    """Build the adapter from plain settings, as the ``iom.adapters`` entry point does.

    *settings* are the fields of `FlexeConfig`: ``protocol`` is the path of a protocol file (or a `FlexeProtocol`),
    ``settle`` and ``overlap`` are seconds, and ``intents`` may be the path of an intent file. Raises `Misconfigured`
    for a missing, unknown or unusable setting, without quoting its value.
    """
    name = str(settings.get("system", FLEXE_SYSTEM))
    fields = attrs.fields_dict(FlexeConfig)
    values: dict[str, Any] = {key: value for key, value in settings.items() if key != "intents"}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise Misconfigured(name, f"$.{unknown[0]}: there is no such setting")
    for key in ("base_url", "token", "protocol"):
        if not values.get(key):
            raise Misconfigured(name, f"$.{key}: this setting is missing, and it has no default")
    for key, value in values.items():
        numeric = key in (*_SECONDS, *_COUNTS)
        kinds: tuple[type, ...] = (FlexeProtocol, str, Path) if key == "protocol" else (int,) if numeric else (str,)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise Misconfigured(name, f"$.{key}: {kinds[0].__name__} is needed, not {type(value).__name__}")
    values |= {key: timedelta(seconds=values[key]) for key in _SECONDS if key in values}
    if not isinstance(values["protocol"], FlexeProtocol):
        values["protocol"] = FlexeProtocol.load(values["protocol"])
    if intents is None and settings.get("intents"):
        intents = IntentFile(Path(str(settings["intents"])))
    try:
        config = FlexeConfig(**values)
    except (ValueError, OverflowError):
        raise Misconfigured(name, "a setting is out of its bounds; see FlexeConfig") from None
    return Flexe(config, client, clock, open_orders=open_orders, intents=intents)
