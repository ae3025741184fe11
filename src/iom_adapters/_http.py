"""Plain HTTP for every adapter: one session that signs, limits, counts and turns failures into faults.

A session never retries (the engine does) except once after a 401, with a new token. Adapters see only
`Reply`, so nothing outside this module and the twins depends on the HTTP library.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NoReturn

import attrs
import httpx

from iom_adapters._auth import Auth
from iom_adapters._clock import Clock, utc_now
from iom_core.errors import Misconfigured, Misunderstood, Unavailable

MAX_BODY = 32 * 1024 * 1024
"""The largest answer read, in bytes (unpacked): far above the largest documented page, small enough to survive."""

Client = httpx.Client
"""The HTTP client a session sends with; adapters name it from here."""

TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
"""Seconds: ten to connect, thirty for each read, write and wait for a free connection."""

_PRIVATE_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]", "::1")
_RESERVED: Final = (".test", ".localhost", ".example", ".invalid")  # RFC 2606: can't be a stranger's host
_SHORT: Final = 100
"""Decimals with an exponent beyond this are written with it (``1E+500``), not as a long row of zeros."""


def client() -> Client:
    """Return a client with certificate checks, time limits, and no redirects (they would carry our secrets away)."""
    return httpx.Client(timeout=TIMEOUT, follow_redirects=False)


def encode(value: Any) -> bytes:
    """Write *value* as JSON in UTF-8; a `Decimal` becomes a JSON number with exactly its digits.

    Takes what JSON knows (``None``, ``bool``, ``int``, finite ``float``, ``str``, mappings with text keys, lists,
    tuples) and `Decimal`. Raises `TypeError` for anything else and `ValueError` for numbers that aren't finite.
    """
    parts: list[str] = []
    _write(value, parts)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: legal in JSON as an escape, impossible in UTF-8
        return "".join(part if part.isascii() else _escaped(part) for part in parts).encode()


def _escaped(part: str) -> str:
    return json.dumps(json.loads(part))


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} can't be sent as JSON")
        parts.append(format(value, "f") if abs(value.adjusted()) < _SHORT else str(value))
    elif isinstance(value, str):
        parts.append(json.dumps(str(value), ensure_ascii=False))
    elif value is None or isinstance(value, (bool, int, float)):
        parts.append(json.dumps(value, allow_nan=False))
    elif isinstance(value, Mapping):
        mark = "{"
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a JSON name is text, not {type(key).__name__}")
            parts.append(mark)
            parts.append(json.dumps(key, ensure_ascii=False))
            parts.append(":")
            _write(each, parts)
            mark = ","
        parts.append("}" if mark == "," else "{}")
    elif isinstance(value, (list, tuple)):
        mark = "["
        for each in value:
            parts.append(mark)
            _write(each, parts)
            mark = ","
        parts.append("]" if mark == "," else "[]")
    else:
        raise TypeError(f"{type(value).__name__} can't be sent as JSON")


def decode(text: bytes | str) -> Any:
    """Read JSON with exact decimals; raises `ValueError` for what isn't JSON: also NaN, and bottomless nesting."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@attrs.frozen
class Reply:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, system: str) -> Any:
        """Decode the body as JSON with exact decimals; raises `Misunderstood` when it isn't JSON."""
        try:
            return decode(self.body)
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
    *base_url* is ``https``; plain ``http`` only leads to this machine or a host reserved for tests. Raises
    `Misconfigured` otherwise, and when it carries a name or password.
    """

    system: str
    base_url: str
    auth: Auth
    client: Client = attrs.field(factory=client, repr=False)
    default_headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    wait: LimitReader = no_limit
    clock: Clock = utc_now
    calls: int = attrs.field(default=0, init=False)
    _not_before: datetime | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        _check_address(self.system, self.base_url)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        keep: Collection[int] = (),
    ) -> Reply:
        """Send one request and return its reply, whatever its status below 500 but 401, 403 and 429.

        *path* may be an absolute address (a next link). *body* is sent as JSON; *content* as it is. A 401 or 403 named
        in *keep* is returned as well: its headers mean something to the caller.
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
            raise Unavailable(self.system, f"{method} {_shown(path)} is throttled (429)", pause)
        if reply.status >= 500:
            raise Unavailable(self.system, f"{method} {_shown(path)} answered {reply.status}", retry_after(reply))
        if reply.status in (401, 403) and reply.status not in keep:
            raise Misconfigured(
                self.system,
                f"{method} {_shown(path)} answered {reply.status}; check the credentials and their permissions",
            )
        return reply

    def close(self) -> None:
        """Close the connections; the session can't be used after."""
        self.client.close()

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
        shown = f"{method} {_shown(path)}"
        url = path if path.startswith(("http://", "https://")) else self.base_url.rstrip("/") + path
        if url is path and _origin(url) != _origin(self.base_url):
            # A next link is data from outside: following it elsewhere would hand our token to a stranger.
            raise Misunderstood(self.system, f"a link leads to another host: {_origin(url)}")
        sent = {"Accept": "application/json", **self.default_headers, **self.auth.headers(), **(headers or {})}
        for name, value in sent.items():
            if not (value.isascii() and value.isprintable()):
                # The HTTP library would quote the value, which may be a secret, in its own error.
                raise Misconfigured(self.system, f"the header {name} holds characters that can't be sent")
        if body is not None:
            content = encode(body)
            sent.setdefault("Content-Type", "application/json")
        with self._lock:
            self.calls += 1
        try:
            with self.client.stream(
                method, url, params=params or None, content=content, headers=sent, follow_redirects=False
            ) as answer:
                received = bytearray()
                for chunk in answer.iter_bytes():
                    received += chunk
                    if len(received) > MAX_BODY:
                        raise Misunderstood(self.system, f"{shown}: the answer is larger than {MAX_BODY} bytes")
        except httpx.InvalidURL:
            raise Misconfigured(self.system, f"{shown}: this is no address") from None
        except httpx.HTTPError as broken:
            raise Unavailable(self.system, f"{shown}: no answer ({type(broken).__name__})") from broken
        return Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, bytes(received))


def _shown(path: str) -> str:
    """Leave the query out: a link may carry a signature in it, and errors are stored."""
    return path.partition("?")[0]


def _origin(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return "(no address)"
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.host}{port}/"


def _check_address(system: str, url: str) -> None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        raise Misconfigured(system, "the base address is no address") from None
    if not parts.host:
        raise Misconfigured(system, "the base address names no host")
    if parts.userinfo:
        raise Misconfigured(system, "the base address must not carry a name or password")
    if parts.scheme == "https":
        return
    if parts.scheme == "http" and (parts.host in _PRIVATE_HOSTS or parts.host.endswith(_RESERVED)):
        return
    raise Misconfigured(system, f"the base address must be https, not {parts.scheme or 'without a scheme'}")
