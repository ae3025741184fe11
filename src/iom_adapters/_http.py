"""Plain HTTP for every adapter: one session that signs, limits, counts and turns failures into faults.

A session never retries (the engine does) except once after a 401, with a new token. Adapters see only
`Reply`, so nothing outside this module and the twins depends on the HTTP library.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs
import httpx

from iom_adapters._auth import Auth
from iom_adapters._clock import Clock, utc_now
from iom_core.errors import Misconfigured, Misunderstood, Unavailable

MAX_BODY = 32 * 1024 * 1024
"""The largest answer read, in bytes: far above the largest documented page, small enough to survive."""


@attrs.frozen
class Reply:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, system: str) -> Any:
        """Decode the body as JSON with exact decimals; raises `Misunderstood` when it isn't JSON."""
        from decimal import Decimal

        try:
            return json.loads(self.body, parse_float=Decimal)
        except ValueError as broken:
            raise Misunderstood(system, f"$: the answer is not JSON ({broken})") from broken


LimitReader = Callable[[Reply], float | None]
"""Reads a provider's rate-limit headers: seconds to wait before the next call, or ``None``."""


def retry_after(reply: Reply) -> float | None:
    """Read ``Retry-After`` in seconds; anything else in it counts as unknown."""
    value = reply.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None


def no_limit(reply: Reply) -> float | None:
    """Say that the provider publishes no limit."""
    return None


@attrs.define
class Session:
    """A conversation with one system.

    *base_url* is joined with each call's path. *wait* reads the provider's own limit headers: while the
    provider wants us to wait, calls fail at once with `Unavailable` and the seconds left, so no thread sleeps.
    """

    system: str
    base_url: str
    auth: Auth
    client: httpx.Client = attrs.field(factory=lambda: httpx.Client(timeout=30.0), repr=False)
    default_headers: Mapping[str, str] = attrs.field(factory=dict)
    wait: LimitReader = no_limit
    clock: Clock = utc_now
    calls: int = attrs.field(default=0, init=False)
    _not_before: datetime | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and return its reply, whatever its status below 500 but 401, 403 and 429.

        *path* may be an absolute address (a next link). *body* is sent as JSON; *content* as it is.
        Raises `Unavailable` for no answer, 429 and 5xx; `Misconfigured` for 401 (after one new token) and 403.
        """
        self._mind_the_limit()
        reply = self._send(method, path, params, body, content, headers)
        if reply.status == 401 and self.auth.rejected():
            reply = self._send(method, path, params, body, content, headers)
        pause = self.wait(reply)
        if reply.status == 429 and pause is None:
            pause = retry_after(reply)
        if pause:
            with self._lock:
                self._not_before = self.clock() + timedelta(seconds=pause)
        if reply.status == 429:
            raise Unavailable(self.system, f"{method} {path} is throttled (429)", pause)
        if reply.status >= 500:
            raise Unavailable(self.system, f"{method} {path} answered {reply.status}", retry_after(reply))
        if reply.status in (401, 403):
            raise Misconfigured(
                self.system, f"{method} {path} answered {reply.status}; check the credentials and their permissions"
            )
        return reply

    def _mind_the_limit(self) -> None:
        with self._lock:
            if self._not_before is None:
                return
            left = (self._not_before - self.clock()).total_seconds()
            if left <= 0:
                self._not_before = None
                return
        raise Unavailable(self.system, "the provider's rate limit is used up", left)

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Any,
        content: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Reply:
        url = path if path.startswith(("http://", "https://")) else self.base_url.rstrip("/") + path
        if url is path and not url.startswith(_origin(self.base_url)):
            # A next link is data from outside: following it elsewhere would hand our token to a stranger.
            raise Misunderstood(self.system, f"a link leads to another host: {_origin(url)}")
        sent = {"Accept": "application/json", **self.default_headers, **self.auth.headers(), **(headers or {})}
        if body is not None:
            content = json.dumps(body, default=_plain, ensure_ascii=False).encode()
            sent.setdefault("Content-Type", "application/json")
        with self._lock:
            self.calls += 1
        try:
            answer = self.client.request(method, url, params=params or None, content=content, headers=sent)
        except httpx.HTTPError as broken:
            raise Unavailable(self.system, f"{method} {path}: no answer ({type(broken).__name__})") from broken
        if len(answer.content) > MAX_BODY:
            raise Misunderstood(self.system, f"{method} {path}: the answer is larger than {MAX_BODY} bytes")
        return Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)


def _origin(url: str) -> str:
    parts = httpx.URL(url)
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}/"


def _plain(value: object) -> object:
    from decimal import Decimal

    if isinstance(value, Decimal):
        whole = value.to_integral_value()
        return int(whole) if whole == value else float(value)
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")
