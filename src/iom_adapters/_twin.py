"""What every twin shares: documents that survive a kill, planned faults, in-process and HTTP serving.

A *twin* stands in for a remote system: it keeps state, refuses what the real system refuses, and can be
told to misbehave. It implements one method, ``handle(TwinRequest) -> TwinResponse``; everything here
turns that into an ``httpx`` transport (for tests) or a real server on loopback (for demos and users).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import attrs
import httpx

Json = Any
"""A decoded JSON value. Typed `Any` because each twin checks shapes itself, as a server must."""


@attrs.frozen
class TwinRequest:
    """One request as the twin sees it; header names are lower case, the query is decoded."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    raw_query: str = ""

    def param(self, name: str, default: str = "") -> str:
        """Return the first query value called *name*, or *default*."""
        return next((value for key, value in self.query if key == name), default)

    def json(self) -> Json:
        """Decode the body; raises ``ValueError`` when it isn't JSON."""
        return json.loads(self.body)


@attrs.frozen
class TwinResponse:
    """One answer of the twin."""

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    @classmethod
    def of(cls, status: int, value: Json, headers: Mapping[str, str] | None = None) -> TwinResponse:
        """Answer *status* with *value* as JSON."""
        return cls(
            status,
            {"content-type": "application/json; charset=utf-8", **(headers or {})},
            json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
        )


class Twin(Protocol):
    """A stand-in for a remote system."""

    @property
    def name(self) -> str:
        """Return the system it stands for, for example ``"bigcommerce"``."""
        ...

    @property
    def faults(self) -> Faults:
        """Return the plan of how to misbehave."""
        ...

    def handle(self, request: TwinRequest) -> TwinResponse:
        """Answer one request. Must be called under the twin's own lock if it needs one."""
        ...


class Documents:
    """JSON documents in named tables, kept in memory and, with a *path*, in a file a killed process leaves intact.

    ``commit`` writes what changed since the last one in a single transaction, so that a request either
    happened or did not. Values are treated as immutable: ``put`` a new one to change it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._tables: dict[str, dict[str, Json]] = {}
        self._dirty: set[tuple[str, str]] = set()
        self._db: sqlite3.Connection | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")  # survives a killed process; not a power cut, and needn't
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS document (tab TEXT, k TEXT, v TEXT, PRIMARY KEY (tab, k)) WITHOUT ROWID"
            )
            for table, key, value in self._db.execute("SELECT tab, k, v FROM document"):
                self._tables.setdefault(table, {})[key] = json.loads(value)

    def get(self, table: str, key: str) -> Json | None:
        """Return the document, or ``None``."""
        return self._tables.get(table, {}).get(key)

    def put(self, table: str, key: str, value: Json) -> None:
        """Store *value*, replacing what was there."""
        self._tables.setdefault(table, {})[key] = value
        self._dirty.add((table, key))

    def delete(self, table: str, key: str) -> None:
        """Remove the document if it is there."""
        if self._tables.get(table, {}).pop(key, None) is not None:
            self._dirty.add((table, key))

    def keys(self, table: str) -> list[str]:
        """Return the keys of *table*, as text, in no promised order."""
        return list(self._tables.get(table, {}))

    def all(self, table: str) -> list[Json]:
        """Return the documents of *table*, in no promised order."""
        return list(self._tables.get(table, {}).values())

    def next(self, sequence: str, start: int = 1) -> int:
        """Return the next number of a named sequence."""
        value = int(self.get("sequence", sequence) or start)
        self.put("sequence", sequence, value + 1)
        return value

    def commit(self) -> None:
        """Make every change since the last commit durable, all or nothing."""
        if self._db is None or not self._dirty:
            self._dirty.clear()
            return
        self._db.execute("BEGIN")
        for table, key in self._dirty:
            value = self._tables.get(table, {}).get(key)
            if value is None:
                self._db.execute("DELETE FROM document WHERE tab = ? AND k = ?", (table, key))
            else:
                self._db.execute(
                    "INSERT INTO document VALUES (?, ?, ?) ON CONFLICT (tab, k) DO UPDATE SET v = excluded.v",
                    (table, key, json.dumps(value, ensure_ascii=False)),
                )
        self._db.execute("COMMIT")
        self._dirty.clear()

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None


@attrs.define
class Fault:
    """One planned misbehaviour of a twin.

    *kind*: ``"lost"`` applies the request and then cuts the connection without an answer; ``"refuse"``
    cuts it before anything is applied; ``"status"`` answers *status* (429, 503 …) with *headers* and
    *body*, applying nothing; ``"delay"`` waits *seconds* first. It meets requests whose method is
    *method* (``""``: any) and whose path contains *path*, skips the first *after* of them, and then
    strikes *times* times.
    """

    kind: str = attrs.field(validator=attrs.validators.in_(("lost", "refuse", "status", "delay")))
    method: str = ""
    path: str = ""
    after: int = 0
    times: int = 1
    status: int = 503
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    seconds: float = 0.0

    def meets(self, request: TwinRequest) -> bool:
        """Count this request, and say whether the fault strikes it."""
        if self.times <= 0 or self.path not in request.path or self.method not in ("", request.method):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


@attrs.define
class Faults:
    """The misbehaviours planned for one twin, and a log of every request it has seen."""

    planned: list[Fault] = attrs.field(factory=list)
    calls: int = 0
    log: list[tuple[str, str, int]] = attrs.field(factory=list)
    """Method, path and status of each request (0: no answer was given); the last 10,000."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False, eq=False)

    def plan(self, *faults: Fault) -> None:
        """Add misbehaviours; they strike in the order given."""
        with self._lock:
            self.planned.extend(faults)

    def strike(self, request: TwinRequest) -> Fault | None:
        """Count *request* and return the fault that meets it, if one does."""
        with self._lock:
            self.calls += 1
            return next((fault for fault in self.planned if fault.meets(request)), None)

    def note(self, request: TwinRequest, status: int) -> None:
        """Log what *request* was answered (0: nothing)."""
        with self._lock:
            self.log.append((request.method, request.path, status))
            if len(self.log) > 10_000:
                del self.log[:5_000]


def answer(twin: Twin, request: TwinRequest) -> TwinResponse | None:
    """Let *twin* answer *request* with its planned faults; ``None`` means the connection was cut."""
    response: TwinResponse | None = None
    struck = twin.faults.strike(request)
    if struck is None:
        response = twin.handle(request)
    elif struck.kind == "status":
        response = TwinResponse(struck.status, struck.headers, struck.body)
    elif struck.kind == "lost":
        twin.handle(request)
    elif struck.kind == "delay":
        time.sleep(struck.seconds)
        response = twin.handle(request)
    twin.faults.note(request, response.status if response else 0)
    return response


def _request(method: str, target: str, headers: Mapping[str, str], body: bytes) -> TwinRequest:
    parts = urlsplit(target)
    return TwinRequest(
        method=method,
        path=parts.path,
        query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
        headers={name.lower(): value for name, value in headers.items()},
        body=body,
        raw_query=parts.query,
    )


def transport(*twins_by_host: tuple[str, Twin]) -> httpx.MockTransport:
    """Return an in-process transport that sends requests for a host to its twin: ``("shop.test", twin)``."""
    twins = dict(twins_by_host)

    def handle(request: httpx.Request) -> httpx.Response:
        twin = twins.get(request.url.host)
        if twin is None:
            raise httpx.ConnectError(f"no twin answers for {request.url.host}", request=request)
        target = request.url.raw_path.decode("ascii")
        response = answer(twin, _request(request.method, target, request.headers, request.read()))
        if response is None:
            raise httpx.ReadError("the connection was cut", request=request)
        return httpx.Response(response.status, headers=dict(response.headers), content=response.body)

    return httpx.MockTransport(handle)


@attrs.define
class Serving:
    """A twin as an HTTP server on loopback; close it when done."""

    url: str
    _server: ThreadingHTTPServer
    _thread: threading.Thread

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(twin: Twin, port: int = 0) -> Serving:
    """Serve *twin* over HTTP on 127.0.0.1; *port* 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _serve(self) -> None:
            announced = self.headers.get("content-length") or "0"
            if not announced.isdecimal() or "transfer-encoding" in self.headers:
                self.close_connection = True
                self.send_error(411)
                return
            body = self.rfile.read(int(announced))
            response = answer(twin, _request(self.command, self.path, dict(self.headers), body))
            if response is None:
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            if response.status not in (204, 304):
                self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            if response.status not in (204, 304):
                self.wfile.write(response.body)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815 - the server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the server's name
            """Say nothing: requests are in the twin's own log."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    return Serving(f"http://127.0.0.1:{server.server_address[1]}", server, thread)
