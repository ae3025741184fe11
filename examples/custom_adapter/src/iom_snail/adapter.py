"""`Snail`: a `FulfillmentProvider`."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs
from returns.result import Failure, Result, Success

from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.outcome import Refused
from iom_core.ports import Capability, FulfillmentRequest, Pulled, Receipt
from iom_core.values import System
from iom_snail import wire

Call = Callable[[str, str, Any], tuple[int, Any]]
"""Sends method, path and a body to Snail; returns status and decoded answer, or raises `OSError`."""


@attrs.frozen
class Snail:
    """Snail Logistics. It knows an order by our fulfillment order's id, so a repeated request changes nothing."""

    call: Call = attrs.field(repr=False)

    @property
    def system(self) -> System:
        """Return its name."""
        return wire.SNAIL

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return what it can: take an order back before it leaves. It ships in one piece."""
        return frozenset({Capability.CANCEL})

    def submit(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Ask for a fulfillment order to be shipped."""
        return self._write("PUT", request, wire.order_body(request))

    def cancel(self, request: FulfillmentRequest) -> Result[Receipt, Refused]:
        """Take it back, unless it has left."""
        return self._write("DELETE", request, None)

    def pull(self, checkpoint: str, now: datetime) -> Pulled:
        """Return the parcels that left after the one the checkpoint counts to."""
        after = int(checkpoint or 0)
        status, rows = self._ask("GET", f"/parcels?after={after}", None)
        if status != 200 or not isinstance(rows, list):
            raise Misunderstood("snail", f"$: a list of parcels was expected, not status {status}")
        return Pulled(tuple(wire.parcel(row, now) for row in rows), str(after + len(rows)))

    def _write(self, method: str, request: FulfillmentRequest, body: object) -> Result[Receipt, Refused]:
        status, answer = self._ask(method, f"/orders/{request.fulfillment_order}", body)
        if status == 422:
            return Failure(Refused("refused", answer["why"], "$", "snail"))
        return Success(Receipt(answer["number"]))

    def _ask(self, method: str, path: str, body: object) -> tuple[int, Any]:
        try:
            status, answer = self.call(method, path, body)
        except OSError as broken:
            raise Unavailable("snail", f"no answer to {method} {path}") from broken
        if status in (401, 403):
            raise Misconfigured("snail", "Snail does not take our token")
        if status == 429 or status >= 500:
            raise Unavailable("snail", f"status {status} for {method} {path}")
        return status, answer


def connect(settings: Mapping[str, Any]) -> Snail:
    """Connect to Snail; *settings* has ``host`` and ``token``."""
    try:
        host, token = settings["host"], settings["token"]
    except KeyError as missing:
        raise Misconfigured("snail", f"the setting {missing} is missing") from None

    def call(method: str, path: str, body: object) -> tuple[int, Any]:
        line = http.client.HTTPSConnection(host, timeout=20)
        try:
            line.request(method, path, json.dumps(body), {"authorization": f"Bearer {token}"})
            answer = line.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (http.client.HTTPException, ValueError) as broken:
            raise OSError("the answer can't be read") from broken
        finally:
            line.close()

    return Snail(call)
