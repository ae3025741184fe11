"""A stand-in for one environment of Inventory Visibility: both token endpoints, stock, reservations, plans, groups.

It keeps the habits that catch clients: two tokens, the second behind a redirect that wants the request again; names
that come back in another case; limits on places, products and records; ids that count once; reservations reversed only
with the very dimensions they were made with. What the documentation leaves open can be set. Source:
inventory-visibility.md.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import product as pairs
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import decode, encode
from iom_adapters._twin import Documents, Faults, Json, TwinRequest, TwinResponse
from iom_adapters.inventory_visibility import wire
from iom_adapters.inventory_visibility.auth import ENTRA_SCOPE, SERVICE_SCOPE

Doc: TypeAlias = dict[str, Any]
Formula = Mapping[str, int]
"""A calculated measure: each physical measure in it, and whether it is added (1) or subtracted (-1)."""

_ON_HAND: Final[Formula] = {"pos.inbound": 1, "pos.outbound": -1, "fno.physicalinvent": 1}
_AVAILABLE: Final[Formula] = {**_ON_HAND, "iv.softreservordered": -1, "iv.softreserved": -1, "@iv.@allocated": -1}
FORMULAS: Final[Mapping[str, Formula]] = {
    "iv.onhand": _ON_HAND,
    "iv.availabletoreserve": _AVAILABLE,
    "@iv.@available_to_allocate": _AVAILABLE,
}
"""The calculated measures of a new environment: available to reserve and to allocate are the same formula."""

DIMENSIONS: Final = ("ColorId", "SizeId", "StyleId", "ConfigId")
"""The base dimensions besides site and location, in the order of the reservation hierarchy, as answers spell them."""

_PLACE: Final = ("siteid", "locationid")
_ANSWER_STATUS: Final = {"success": 200, "partialSuccess": 200, "error": 400}


class _Refusal(Exception):
    """Answers with an error body. *status* is that of HTTP; *business* refusals name a processing status."""

    def __init__(self, message: str, status: int = 400, *, business: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.business = business


class InventoryVisibilityTwin:
    """One environment. Thread-safe; with a *path* its state survives a killed process.

    *schedule_days* is the schedule period, today included; *groups* names the allocation groups, outermost first;
    *custom* the dimensions of data sources' own; *atp_sets* the index sets of ATP, of which a query with ATP must name
    exactly one; *atp* the calculated measures ATP is told for. Lifetimes are in seconds. *gateway* is the host the
    security service redirects to (``""``: the same).

    Uncertain in the service, hence choices: *refused_status* (the HTTP status of a refused write), *refusals_stick*
    (whether a refused id stays refused), *replays_answer* (whether a repeated reservation returns the first one's id;
    otherwise it succeeds without naming it), *quiet* (whether changes are answered with nothing).
    """

    def __init__(
        self,
        *,
        environment: str = "env-1",
        tenant: str = "tenant",
        client_id: str = "iom",
        client_secret: str = "secret",  # noqa: S107 - the stand-in's own
        now: Clock = utc_now,
        path: Path | None = None,
        formulas: Mapping[str, Formula] = FORMULAS,
        available: str = "iv.availabletoreserve",
        modifiers: Iterable[str] = ("iv.softreservordered", "iv.softreserved"),
        groups: Sequence[str] = ("channel", "customerGroup", "region"),
        custom: Mapping[str, Sequence[str]] | None = None,
        atp: Sequence[str] = ("iv.onhand", "iv.availabletoreserve"),
        atp_sets: Iterable[Sequence[str]] = ((), ("ColorId", "SizeId")),
        schedule_days: int = 30,
        entra_lifetime: int = 3599,
        service_lifetime: int = 3600,
        gateway: str = "",
        refused_status: int = 200,
        refusals_stick: bool = False,
        replays_answer: bool = True,
        quiet: bool = False,
    ) -> None:
        if not 1 <= schedule_days <= wire.MAX_DAYS or len(groups) > wire.MAX_GROUPS:
            raise ValueError("the schedule period is 1 to 180 days, and there are at most eight allocation groups")
        self.environment = environment
        self.tenant = tenant
        self.formulas = {name.casefold(): formula for name, formula in formulas.items()}
        self.available = available.casefold()
        self.modifiers = frozenset(each.casefold() for each in modifiers)
        self.groups = tuple(groups)
        self.custom = {name.casefold(): tuple(names) for name, names in (custom or {"pos": ("posMachineId",)}).items()}
        self.atp = tuple(each.casefold() for each in atp)
        self.atp_sets = frozenset(frozenset(name.casefold() for name in each) for each in atp_sets)
        self.schedule_days = schedule_days
        self.entra_lifetime = entra_lifetime
        self.service_lifetime = service_lifetime
        self.gateway = gateway
        self.refused_status = refused_status
        self.refusals_stick = refusals_stick
        self.replays_answer = replays_answer
        self.quiet = quiet
        self._client = (client_id, client_secret)
        self._now = now
        self._documents = Documents(path)
        self._faults = Faults()
        self._lock = threading.RLock()
        self._tokens: dict[str, datetime] = {}
        self._spelling = {"siteid": "siteid", "locationid": "locationid"}
        for name in (*DIMENSIONS, *(name for names in self.custom.values() for name in names)):
            self._spelling[name.casefold()] = name
        self._writes: Mapping[str, tuple[str, Callable[[Doc], Doc]]] = {
            "/onhand": ("change", self._change),
            "/onhand/reserve": ("reserve", self._reserve),
            "/onhand/unreserve": ("unreserve", self._unreserve),
            "/onhand/changeschedule": ("plan", self._plan),
            "/allocation/allocate": ("allocate", self._allocate),
            "/allocation/unallocate": ("unallocate", self._unallocate),
            "/allocation/reallocate": ("reallocate", self._reallocate),
            "/allocation/consume": ("consume", self._consume),
        }

    @property
    def name(self) -> str:
        """Return ``"inventory-visibility"``."""
        return "inventory-visibility"

    @property
    def faults(self) -> Faults:
        """Return the plan of how to misbehave."""
        return self._faults

    def close(self) -> None:
        """Close the file."""
        self._documents.close()

    # --- back doors ----------------------------------------------------------------------------------------

    def put(
        self,
        organization: str,
        site: str,
        location: str,
        product: str,
        quantity: Decimal | int,
        measure: str = "pos.inbound",
        **dimensions: str,
    ) -> None:
        """Add to a physical measure, as another system would; *measure* may be one of F&O's own."""
        with self._lock:
            self._add(organization, product, _folded({"siteId": site, "locationId": location, **dimensions}),
                      {measure.casefold(): Decimal(quantity)})  # fmt: skip
            self._documents.commit()

    def on_hand(self, organization: str, site: str, location: str, product: str) -> Decimal:
        """Return what lies there, reserved or not, over all other dimensions."""
        return self._total("iv.onhand", organization, site, location, product)

    def free(self, organization: str, site: str, location: str, product: str) -> Decimal:
        """Return what is available to reserve, over all other dimensions."""
        return self._total(self.available, organization, site, location, product)

    def reserved(self, organization: str, site: str, location: str, product: str) -> Decimal:
        """Return what is soft-reserved, over all other dimensions."""
        return sum((self._total(each, organization, site, location, product) for each in self.modifiers), Decimal(0))

    def allocated(self, organization: str, site: str, location: str, product: str) -> Decimal:
        """Return what is set aside for groups, over all other dimensions."""
        return self._total("@iv.@allocated", organization, site, location, product)

    def reservations(self) -> list[Doc]:
        """Return every reservation with what is left of it."""
        with self._lock:
            return self._documents.all("reservation")

    def expire(self, kind: str) -> None:
        """End every token of *kind* (``"entra"`` or ``"service"``) before its time."""
        with self._lock:
            for token in [each for each in self._tokens if each.startswith(f"{kind}.")]:
                del self._tokens[token]

    def _total(self, measure: str, organization: str, site: str, location: str, product: str) -> Decimal:
        with self._lock:
            docs = self._stock(organization, {"siteid": site, "locationid": location}, product)
            return self._value(measure, docs)

    # --- the front door ------------------------------------------------------------------------------------

    def handle(self, request: TwinRequest) -> TwinResponse:
        """Answer one request."""
        with self._lock:
            try:
                return self._route(request)
            except _Refusal as no:
                return self._refused(no)

    def _route(self, request: TwinRequest) -> TwinResponse:
        if request.path == f"/{self.tenant}/oauth2/v2.0/token":
            return self._entra(request)
        if request.path in ("/token", "/securityservice/token"):
            return self._security(request)
        self._gate(request)
        root = f"/api/environment/{self.environment}"
        if not request.path.startswith(f"{root}/"):
            raise _Refusal("no such environment", 404)
        path = request.path.removeprefix(root)
        if request.method == "GET" and path == "/onhand":
            return _answer(200, self._query(_from_url(request)))
        if request.method != "POST":
            raise _Refusal("the method is not allowed", 405)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise _Refusal("application/json is needed", 415)
        try:
            body = decode(request.body)
        except ValueError:
            raise _Refusal("the body is not JSON") from None
        return self._post(path, body)

    def _post(self, path: str, body: Json) -> TwinResponse:
        if path in self._writes:
            kind, write = self._writes[path]
            answer = self._once(kind, body, write)
            if self.quiet and kind in ("change", "plan"):
                return TwinResponse(200)
            status = 200 if answer["processingStatus"] != "error" else self.refused_status
            return _answer(status, answer)
        single = path.removesuffix("/bulk")
        if path.endswith("/bulk") and (single.startswith("/setonhand/") or single in self._writes):
            kind, write = self._writes.get(single, ("set", self._set))
            if not isinstance(body, list) or len(body) > wire.MAX_BULK or kind not in _BULK:
                raise _Refusal(f"an array of at most {wire.MAX_BULK} records is needed")
            return _answer(200, [self._once(kind, each, write) for each in body])
        if path == "/onhand/indexquery":
            return _answer(200, self._query(_object(body, "$")))
        if path == "/onhand/exactquery":
            return _answer(200, self._exact(_object(body, "$")))
        if path == "/allocation/query":
            return _answer(200, self._allocations(_object(body, "$")))
        raise _Refusal("there is nothing here", 404)

    def _refused(self, no: _Refusal) -> TwinResponse:
        return _answer(no.status, {"statusCode": no.status, "message": no.message})

    # --- tokens --------------------------------------------------------------------------------------------

    def _entra(self, request: TwinRequest) -> TwinResponse:
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        if request.method != "POST" or form.get("grant_type") != "client_credentials":
            return _answer(400, {"error": "unsupported_grant_type", "error_description": "AADSTS70003"})
        if form.get("scope") != ENTRA_SCOPE:
            return _answer(400, {"error": "invalid_scope", "error_description": "AADSTS70011"})
        if (form.get("client_id"), form.get("client_secret")) != self._client:
            return _answer(401, {"error": "invalid_client", "error_description": "AADSTS7000215"})
        return _answer(
            200,
            {
                "token_type": "Bearer",
                "expires_in": str(self.entra_lifetime),  # the documented sample has it as text
                "access_token": self._issue("entra", self.entra_lifetime),
            },
        )

    def _security(self, request: TwinRequest) -> TwinResponse:
        if request.method != "POST":
            raise _Refusal("the method is not allowed", 405)
        if request.headers.get("api-version") != "1.0":
            raise _Refusal("the header Api-Version is missing")
        if request.path == "/token":
            return TwinResponse(307, {"location": f"{self.gateway}/securityservice/token"})
        try:
            body = _object(decode(request.body), "$")
        except ValueError:
            raise _Refusal("the body is not JSON") from None
        wanted = {
            "grant_type": "client_credentials",
            "client_assertion_type": "aad_app",
            "scope": SERVICE_SCOPE,
            "context": self.environment,
            "context_type": "finops-env",
        }
        wrong = next((name for name, value in wanted.items() if body.get(name) != value), "")
        if wrong:
            raise _Refusal(f"{wrong} is not what is needed")
        self._check_token("entra", str(body.get("client_assertion")))
        life = self.service_lifetime
        return _answer(200, {"access_token": self._issue("service", life), "token_type": "bearer", "expires_in": life})

    def _issue(self, kind: str, lifetime: int) -> str:
        token = f"{kind}.{self._documents.next('token')}"
        self._documents.commit()
        self._tokens[token] = self._now() + timedelta(seconds=lifetime)
        return token

    def _check_token(self, kind: str, token: str) -> None:
        until = self._tokens.get(token)
        if not token.startswith(f"{kind}.") or until is None or self._now() >= until:
            raise _Refusal("the token is not valid", 401)

    def _gate(self, request: TwinRequest) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _Refusal("a token is needed", 401)
        self._check_token("service", token)
        if request.headers.get("api-version") != "1.0":
            raise _Refusal("the header Api-Version is missing")

    # --- writes --------------------------------------------------------------------------------------------

    def _once(self, kind: str, body: Json, write: Callable[[Doc], Doc]) -> Doc:
        """Apply one record unless its id has been seen; every answer carries an id of the service's own."""
        record = _object(body, "$")
        key = f"{kind}/{_text(record, 'id')}"
        first = self._documents.get("event", key)
        if first is not None:
            known = _object(decode(first), "$")
            return known if self.replays_answer or kind != "reserve" else {**known, "reservationId": ""}
        try:
            answer = {"message": "", **write(record)}
        except _Refusal as no:
            if not no.business:
                raise
            answer = {"processingStatus": "error", "message": no.message}
        answer = {
            **answer,
            "id": f"{_PREFIXES[kind]}~id-{self._documents.next('answer')}",
            "statusCode": _ANSWER_STATUS[answer["processingStatus"]],
        }
        if answer["processingStatus"] != "error" or self.refusals_stick:
            self._documents.put("event", key, encode(answer).decode())
        self._documents.commit()
        return answer

    def _about(self, record: Doc) -> tuple[str, str, dict[str, str]]:
        """Read organization, product and dimensions; site and location are required, others must be known."""
        return (
            _text(record, "organizationId"),
            _text(record, "productId"),
            self._dimensions(record.get("dimensions"), record.get("dimensionDataSource")),
        )

    def _dimensions(self, value: Json, data_source: Json) -> dict[str, str]:
        found = {}
        for name, each in _folded(_object(value, "dimensions")).items():
            self._known(name, data_source)
            if not isinstance(each, str) or not each:
                raise _Refusal(f"the dimension {name} is no text")
            found[name] = each
        missing = [name for name in _PLACE if name not in found]
        if missing:
            raise _Refusal(f"the dimension {missing[0]} is required")
        return found

    def _known(self, name: str, data_source: Json) -> None:
        own = self.custom.get(str(data_source or "").casefold(), ())
        if name not in (*_PLACE, *(each.casefold() for each in (*DIMENSIONS, *own))):
            raise _Refusal(f"the dimension {name} is not configured")

    def _quantities(self, value: Json) -> dict[str, Decimal]:
        found: dict[str, Decimal] = {}
        for source, measures in _object(value, "quantities").items():
            if source.casefold() == wire.READ_ONLY_SOURCE:
                raise _Refusal("the data source fno can't be changed from outside")
            for name, number in _object(measures, f"quantities.{source}").items():
                full = f"{source}.{name}".casefold()
                if full in self.formulas:
                    raise _Refusal(f"{full} is a calculated measure")
                found[full] = _number(number, full)
        if not found:
            raise _Refusal("quantities are missing")
        return found

    def _change(self, record: Doc) -> Doc:
        self._add(*self._about(record), self._quantities(record.get("quantities")))
        return {"processingStatus": "success"}

    def _set(self, record: Doc) -> Doc:
        organization, product, dims = self._about(record)
        doc = self._documents.get("stock", _key(organization, product, dims)) or {"quantities": {}}
        wanted = self._quantities(record.get("quantities"))
        moved = {name: value - Decimal(doc["quantities"].get(name, "0")) for name, value in wanted.items()}
        self._add(organization, product, dims, moved)
        return {"processingStatus": "success"}

    def _reserve(self, record: Doc) -> Doc:
        organization, product, dims = self._about(record)
        self._in_hierarchy(dims)
        measure, quantity = self._reserving(record)
        check = record.get("ifCheckAvailForReserv", True)
        if check is not False and quantity <= 0:
            raise _Refusal("a quantity that is not positive needs ifCheckAvailForReserv to be false")
        free = self._value(self.available, self._stock(organization, dims, product))
        if check is not False and free < quantity:
            raise _Refusal(f"available to reserve is {free}, not {quantity}", business=True)
        self._add(organization, product, dims, {measure: quantity})
        number = f"res-{self._documents.next('reservation')}"
        self._documents.put(
            "reservation",
            number,
            {
                "organization": organization,
                "product": product,
                "dimensions": dims,
                "measure": measure,
                "left": str(max(quantity, Decimal(0))),
            },
        )
        return {"reservationId": number, "processingStatus": "success"}

    def _in_hierarchy(self, dims: Mapping[str, str]) -> None:
        """Require what is given to be the beginning of the reservation hierarchy: a size only with a color."""
        order = [*_PLACE, *(each.casefold() for each in DIMENSIONS)]
        if set(dims) != set(order[: len(dims)]):
            raise _Refusal("the dimensions do not follow the soft reservation hierarchy")

    def _reserving(self, record: Doc) -> tuple[str, Decimal]:
        if "quantities" in record:
            measures = self._quantities(record["quantities"])
            if len(measures) != 1:
                raise _Refusal("one modifier is needed")
            ((measure, quantity),) = measures.items()
        else:
            source = record.get("quantityDataSource") or "iv"
            measure = f"{source}.{_text(record, 'modifier')}".casefold()
            quantity = _number(record.get("quantity"), "quantity")
        if measure not in self.modifiers:
            raise _Refusal(f"{measure} is not configured as a soft reservation modifier")
        return measure, quantity

    def _unreserve(self, record: Doc) -> Doc:
        number = _text(record, "reservationId")
        known = self._documents.get("reservation", number)
        same = known is not None and known["organization"] == _text(record, "organizationId")
        if known is None or not same:
            raise _Refusal(f"there is no reservation {number}", business=True)
        if known["dimensions"] != self._dimensions(record.get("dimensions"), None):
            raise _Refusal("the dimensions are not those of the reservation", business=True)
        wanted, left = _number(record.get("OffsetQty"), "OffsetQty"), Decimal(known["left"])
        if wanted <= 0:
            raise _Refusal("OffsetQty must be positive")
        self._offset(number, known, min(wanted, left))
        surplus = max(wanted - left, Decimal(0))
        return {
            "reservationId": number,
            "totalInvalidOffsetQtyByReservId": surplus,
            "processingStatus": "partialSuccess" if surplus else "success",
        }

    def _offset(self, number: str, known: Doc, quantity: Decimal) -> None:
        self._documents.put("reservation", number, {**known, "left": str(Decimal(known["left"]) - quantity)})
        self._add(known["organization"], known["product"], known["dimensions"], {known["measure"]: -quantity})

    def offset(self, number: str, quantity: Decimal | int) -> Decimal:
        """Offset a reservation as F&O does when its order line carries the id; returns how much was left to offset."""
        with self._lock:
            known = self._documents.get("reservation", number)
            if known is None:
                return Decimal(0)
            done = min(Decimal(quantity), Decimal(known["left"]))
            self._offset(number, known, done)
            self._documents.commit()
            return done

    # --- plans ---------------------------------------------------------------------------------------------

    def _today(self) -> date:
        return self._now().date()

    def _plan(self, record: Doc) -> Doc:
        organization, product, dims = self._about(record)
        last = self._today() + timedelta(days=self.schedule_days - 1)
        plans = []
        for text, quantities in _object(record.get("quantitiesByDate"), "quantitiesByDate").items():
            day = _day(text)
            if not self._today() <= day <= last:
                raise _Refusal(f"{day} is not from {self._today()} to {last}")
            plans.append((day, self._quantities(quantities)))
        self._add(organization, product, dims, {})
        for day, measures in plans:
            key = json.dumps([_key(organization, product, dims), day.isoformat()])
            known = self._documents.get("plan", key) or {"quantities": {}}
            self._documents.put(
                "plan",
                key,
                {
                    "stock": _key(organization, product, dims),
                    "day": day.isoformat(),
                    "quantities": _added(known["quantities"], measures),
                },
            )
        return {"processingStatus": "success"}

    def _promises(self, docs: Sequence[Doc], body: Doc) -> Doc:
        """Tell planned changes and ATP: the smallest projection from each day to the end of the period."""
        keys = {_key(each["organization"], each["product"], each["dimensions"]) for each in docs}
        days = [self._today() + timedelta(days=each) for each in range(self.schedule_days)]
        planned: dict[date, dict[str, Decimal]] = {}
        for plan in self._documents.all("plan"):
            day = date.fromisoformat(plan["day"])
            if plan["stock"] in keys and day in days:  # what is past, and late, does not count
                sums = planned.setdefault(day, {})
                for name, value in plan["quantities"].items():
                    sums[name] = sums.get(name, Decimal(0)) + Decimal(value)
        atp: dict[str, list[Decimal]] = {}
        for measure in self.atp:
            level, projected = self._value(measure, docs), []
            for day in days:
                level += self._calculated(measure, planned.get(day, {}))
                projected.append(level)
            atp[measure] = [min(projected[at:]) for at in range(len(days))]
        first = _day(str(body["ATPFromDate"])) if body.get("ATPFromDate") else days[0]
        last = _day(str(body["ATPToDate"])) if body.get("ATPToDate") else days[-1]
        return {
            "quantitiesByDate": {
                f"{day.isoformat()}T00:00:00": _nested(
                    {**sums, **{measure: self._calculated(measure, sums) for measure in self.atp}}
                )
                for day, sums in sorted(planned.items())
                if first <= day <= last
            },
            "atpQuantities": {
                f"{day.isoformat()}T00:00:00Z": _nested({measure: atp[measure][at] for measure in self.atp})
                for at, day in enumerate(days)
                if first <= day <= last
            },
        }

    # --- allocation ----------------------------------------------------------------------------------------

    def _set_aside(self, record: Doc, groups: str = "targetGroups") -> tuple[str, str, dict[str, str], str, Decimal]:
        organization, product, dims = self._about(record)
        given = _object(record.get(groups), groups)
        if not given or list(given) != list(self.groups[: len(given)]):
            raise _Refusal(f"{groups} do not follow the allocation hierarchy {', '.join(self.groups)}")
        quantity = _number(record.get("quantity"), "quantity")
        if quantity <= 0:
            raise _Refusal("quantity must be more than 0")
        key = json.dumps([_key(organization, product, dims), given], sort_keys=True)
        return organization, product, dims, key, quantity

    def _moved(self, key: str, measures: Mapping[str, Decimal]) -> None:
        stock, groups = json.loads(key)
        known = self._documents.get("group", key) or {"stock": stock, "groups": groups, "quantities": {}}
        self._documents.put("group", key, {**known, "quantities": _added(known["quantities"], measures)})

    def _has(self, key: str, quantity: Decimal) -> None:
        known = self._documents.get("group", key) or {"quantities": {}}
        left = Decimal(known["quantities"].get("@iv.@allocated", "0"))
        if left < quantity:
            raise _Refusal(f"the groups have {left} allocated, not {quantity}", business=True)

    def _allocate(self, record: Doc) -> Doc:
        organization, product, dims, key, quantity = self._set_aside(record)
        pool = self._value("@iv.@available_to_allocate", self._stock(organization, dims, product))
        if pool < quantity:
            raise _Refusal(f"available to allocate is {pool}, not {quantity}", business=True)
        taken = {"@iv.@allocated": quantity, "@iv.@cumulative_allocated": quantity}
        self._moved(key, taken)
        self._add(organization, product, dims, taken)
        return {"processingStatus": "success"}

    def _unallocate(self, record: Doc) -> Doc:
        organization, product, dims, key, quantity = self._set_aside(record)
        self._has(key, quantity)
        self._moved(key, {"@iv.@allocated": -quantity})
        self._add(organization, product, dims, {"@iv.@allocated": -quantity})
        return {"processingStatus": "success"}

    def _reallocate(self, record: Doc) -> Doc:
        *_, origin, quantity = self._set_aside(record, "sourceGroups")
        *_, target, _ = self._set_aside(record)
        self._has(origin, quantity)
        self._moved(origin, {"@iv.@allocated": -quantity})
        self._moved(target, {"@iv.@allocated": quantity, "@iv.@cumulative_allocated": quantity})
        return {"processingStatus": "success"}

    def _consume(self, record: Doc) -> Doc:
        organization, product, dims, key, quantity = self._set_aside(record)
        moved: dict[str, Decimal] = {}
        for source, measures in _object(record.get("physicalMeasures") or {}, "physicalMeasures").items():
            for name, way in _object(measures, source).items():
                if source.casefold() == wire.READ_ONLY_SOURCE or way not in _WAYS:
                    raise _Refusal(f"{source}.{name} can't be consumed by {way!r}")
                moved[f"{source}.{name}".casefold()] = quantity * _WAYS[way]
        self._has(key, quantity)
        used = {"@iv.@allocated": -quantity, "@iv.@consumed": quantity, "@iv.@cumulative_consumed": quantity}
        self._moved(key, used)
        self._add(organization, product, dims, {**used, **moved})
        return {"processingStatus": "success"}

    def _allocations(self, body: Doc) -> list[Doc]:
        stock = _key(*self._about(body))
        wanted = _object(body.get("groups") or {}, "groups")
        return [
            {"groups": each["groups"], "quantities": _nested(_decimals(each["quantities"]))}
            for each in self._documents.all("group")
            if each["stock"] == stock and (not wanted or each["groups"] == wanted)
        ]

    # --- queries -------------------------------------------------------------------------------------------

    def _query(self, body: Doc) -> list[Doc]:
        filters = _folded(_object(body.get("filters"), "filters"))
        organization = self._organization(filters)
        sites, locations = _texts(filters, "siteid"), _texts(filters, "locationid")
        if not sites or not locations:
            raise _Refusal("siteId and locationId are required")
        if len(sites) * len(locations) > wire.MAX_PLACES:
            raise _Refusal(f"more than {wire.MAX_PLACES} combinations of siteId and locationId")
        rest = [name for name in filters if name not in ("organizationid", "productid", *_PLACE)]
        for name in rest:
            self._known(name, body.get("dimensionDataSource"))
        wanted = {name: _texts(filters, name) for name in rest}
        tuples = [{"siteid": site, "locationid": location} for site, location in pairs(sites, locations)]
        return self._rows(body, organization, _texts(filters, "productid"), tuples, wanted, ())

    def _exact(self, body: Doc) -> list[Doc]:
        filters = _folded(_object(body.get("filters"), "filters"))
        names = [each.casefold() for each in _texts(filters, "dimensions")]
        for name in names:
            self._known(name, body.get("dimensionDataSource"))
        if not set(_PLACE) <= set(names):
            raise _Refusal("siteId and locationId are required")
        values = filters.get("values")
        if not isinstance(values, list) or not all(_is_tuple(each, len(names)) for each in values):
            raise _Refusal("values must be tuples of as many texts as there are dimensions")
        tuples = [dict(zip(names, each)) for each in values]
        organization = self._organization(filters)
        return self._rows(body, organization, _texts(filters, "productid"), tuples, {}, names)

    def _organization(self, filters: Doc) -> str:
        organizations = _texts(filters, "organizationid")
        if len(organizations) != 1:
            raise _Refusal("organizationId takes exactly one value")
        if "productid" not in filters or len(_texts(filters, "productid")) > wire.MAX_PRODUCTS:
            raise _Refusal(f"productId is required and takes at most {wire.MAX_PRODUCTS} values")
        return organizations[0]

    def _rows(
        self,
        body: Doc,
        organization: str,
        products: Sequence[str],
        tuples: Sequence[Mapping[str, str]],
        wanted: Mapping[str, Sequence[str]],
        names: Sequence[str],
    ) -> list[Doc]:
        group_by = [each.casefold() for each in _texts({"groupByValues": [], **body}, "groupByValues")]
        for name in group_by:
            self._known(name, body.get("dimensionDataSource"))
        atp = str(body.get("QueryATP", "")).casefold() == "true"
        if atp and frozenset(group_by) - set(_PLACE) not in self.atp_sets:
            raise _Refusal("groupByValues must be one of the index sets of ATP")
        shown = list(dict.fromkeys((*_PLACE, *names, *group_by)))
        found: dict[tuple[str, ...], list[Doc]] = {}
        for doc in self._documents.all("stock"):
            dims = doc["dimensions"]
            if (
                doc["organization"] == organization
                and (not products or doc["product"] in products)
                and any(each.items() <= dims.items() for each in tuples)
                and all(dims.get(name) in values for name, values in wanted.items())
            ):
                found.setdefault((doc["product"], *(dims.get(name, "") for name in shown)), []).append(doc)
        rows = []
        for (product, *values), docs in sorted(found.items()):
            quantities = self._measures(docs)
            negative = str(body.get("returnNegative", "")).casefold() == "true"
            if not atp and not negative and any(quantities[name] < 0 for name in self.formulas):
                continue
            rows.append(
                {
                    "productId": product,
                    "dimensions": {self._spelling[n]: value for n, value in zip(shown, values) if value},
                    "quantities": _nested(quantities),
                    **(self._promises(docs, body) if atp else {}),
                }
            )
        return rows

    # --- stock ---------------------------------------------------------------------------------------------

    def _stock(self, organization: str, dims: Mapping[str, str], product: str) -> list[Doc]:
        """Return the stock records at *dims* and every level below it."""
        return [
            each
            for each in self._documents.all("stock")
            if (each["organization"], each["product"]) == (organization, product)
            and dims.items() <= each["dimensions"].items()
        ]

    def _add(self, organization: str, product: str, dims: Mapping[str, str], moved: Mapping[str, Decimal]) -> None:
        key = _key(organization, product, dims)
        doc = self._documents.get("stock", key) or {
            "organization": organization,
            "product": product,
            "dimensions": dict(dims),
            "quantities": {},
        }
        self._documents.put("stock", key, {**doc, "quantities": _added(doc["quantities"], moved)})

    def _measures(self, docs: Sequence[Doc]) -> dict[str, Decimal]:
        sums: dict[str, Decimal] = {}
        for doc in docs:
            for name, value in doc["quantities"].items():
                sums[name] = sums.get(name, Decimal(0)) + Decimal(value)
        return {**sums, **{name: self._calculated(name, sums) for name in self.formulas}}

    def _value(self, measure: str, docs: Sequence[Doc]) -> Decimal:
        return self._measures(docs).get(measure, Decimal(0))

    def _calculated(self, measure: str, sums: Mapping[str, Decimal]) -> Decimal:
        formula = self.formulas[measure]
        return sum((sums.get(name.casefold(), Decimal(0)) * sign for name, sign in formula.items()), Decimal(0))


_BULK: Final = ("change", "set", "reserve", "unreserve", "plan")
_WAYS: Final[Mapping[str, int]] = {"Addition": 1, "Subtraction": -1}
_PREFIXES: Final[Mapping[str, str]] = {
    # The first two are documented, the others are not.
    "reserve": "ohre",
    "unreserve": "ohoe",
    **dict.fromkeys(("change", "set", "plan", "allocate", "unallocate", "reallocate", "consume"), "ohce"),
}


def _answer(status: int, value: Json) -> TwinResponse:
    return TwinResponse(status, {"content-type": "application/json; charset=utf-8"}, encode(value))


def _from_url(request: TwinRequest) -> Doc:
    """Read the query in a URL as the body it stands for."""
    body: Doc = {"filters": {}, "groupByValues": []}
    for name, value in request.query:
        folded = name.casefold()
        if folded == "groupby":
            body["groupByValues"] = [each for each in value.split(",") if each]
        elif folded in _URL_NAMES:
            body[_URL_NAMES[folded]] = value
        else:
            body["filters"].setdefault(name, []).extend(value.split(","))
    return body


_URL_NAMES: Final = {
    name.casefold(): name for name in ("returnNegative", "QueryATP", "ATPFromDate", "ATPToDate", "dimensionDataSource")
}


def _key(organization: str, product: str, dims: Mapping[str, str]) -> str:
    return json.dumps([organization, product, dict(dims)], sort_keys=True)


def _added(known: Mapping[str, str], moved: Mapping[str, Decimal]) -> dict[str, str]:
    return {**known, **{name: str(Decimal(known.get(name, "0")) + value) for name, value in moved.items()}}


def _decimals(texts: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in texts.items()}


def _nested(measures: Mapping[str, Decimal]) -> dict[str, dict[str, Decimal]]:
    return wire.quantities(dict(sorted(measures.items())))


def _object(value: Json, where: str) -> Doc:
    if not isinstance(value, dict):
        raise _Refusal(f"{where} must be an object")
    return value


def _folded(value: Mapping[str, Json]) -> Doc:
    return {name.casefold(): each for name, each in value.items()}


def _text(record: Doc, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise _Refusal(f"{name} is required")
    return value


def _texts(filters: Doc, name: str) -> list[str]:
    value = filters.get(name)
    if not isinstance(value, list) or any(not isinstance(each, str) for each in value):
        raise _Refusal(f"{name} must be an array of texts")
    return value


def _is_tuple(value: Json, size: int) -> bool:
    return isinstance(value, list) and len(value) == size and all(isinstance(each, str) for each in value)


def _number(value: Json, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise _Refusal(f"{where} must be a number")
    return Decimal(value)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Refusal(f"{text!r} is not a date in the form year-month-day") from None
