"""The webhook receiver: authenticates notifications, answers at once, and reads what they hint at afterwards.

A notification is a hint, never a fact: nothing of its content is stored or trusted but the order numbers in it, and one
that is lost is made good by the puller behind it.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs
import uvicorn
from returns.result import Result
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from iom_core.errors import Fault
from iom_core.outcome import Refused, failed
from iom_core.values import System

MAX_BODY: Final = 256 * 1024
"""The largest notification taken, in bytes: what Dataverse sends at most; others are far smaller."""
MAX_WAITING: Final = 10_000
"""How many hints may wait to be followed; beyond it the sender is asked to come again (503)."""


STATUS: Final[Mapping[str, int]] = {
    "unauthorized": 401,
    "unauthenticated": 401,
    "forged": 401,
    "no-webhook": 404,
    "too-large": 413,
    "oversized": 413,
}
"""The HTTP status for a refusal's code; 400 for any other."""


class Inbound(Protocol):
    """What the receiver needs of an orchestrator."""

    def webhook(self, system: System, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Authenticate a notification and return the order numbers it hints at."""
        ...

    def follow(self, system: System, external_id: str) -> int:
        """Read one order, and take it in."""
        ...


class Hints:
    """Order numbers to read again, each waiting once; a thread of its own follows them."""

    def __init__(self, inbound: Inbound, report: Callable[[str, BaseException], None]) -> None:
        self._inbound = inbound
        self._report = report
        self._queue: queue.Queue[tuple[System, str] | None] = queue.Queue(MAX_WAITING)
        self._waiting: set[tuple[System, str]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="iom webhooks", daemon=True)
        self._thread.start()

    def add(self, system: System, external_id: str) -> bool:
        """Remember a hint; ``False`` when too many wait."""
        hint = (system, external_id)
        with self._lock:
            if hint in self._waiting:
                return True
            try:
                self._queue.put_nowait(hint)
            except queue.Full:
                return False
            self._waiting.add(hint)
        return True

    def close(self) -> None:
        """Follow what waits, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (hint := self._queue.get()) is not None:
            with self._lock:
                self._waiting.discard(hint)
            try:
                self._inbound.follow(*hint)
            except Fault as fault:
                self._report(f"following a notification of {hint[0]}", fault)
            except Exception as bug:  # noqa: BLE001 - one notification must not end the thread; the puller comes later
                self._report(f"following a notification of {hint[0]}", bug)


def application(inbound: Inbound, hints: Hints) -> Starlette:
    """Return the receiver as an ASGI application: ``POST /webhooks/{system}`` and ``GET /health``."""

    async def receive(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return _no(413, Refused("too-large", f"a notification may have {MAX_BODY} bytes", "$"))
        system = System(request.path_params["system"])
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            translated = inbound.webhook(system, headers, body)
        except Fault:
            # The connection is not set up, or the store is away: the sender keeps it and comes again.
            return Response(status_code=503, headers={"retry-after": "60"})
        if failed(translated):
            refused = translated.failure()
            return _no(STATUS.get(refused.code, 400), refused)
        if not all(hints.add(system, number) for number in translated.unwrap()):
            return Response(status_code=503, headers={"retry-after": "30"})
        return Response(status_code=204)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[Route("/webhooks/{system}", receive, methods=["POST"]), Route("/health", health, methods=["GET"])]
    )


def _no(status: int, refused: Refused) -> Response:
    return JSONResponse({"error": refused.code, "what": refused.what, "where": refused.where}, status_code=status)


@attrs.define
class Receiver:
    """The receiver as a server on one address; close it when done."""

    url: str
    _server: uvicorn.Server
    _thread: threading.Thread
    _hints: Hints

    def close(self) -> None:
        """Stop taking notifications, and follow those that were taken."""
        self._server.should_exit = True
        self._thread.join()
        self._hints.close()


def serve(
    inbound: Inbound,
    host: str = "127.0.0.1",
    port: int = 0,
    report: Callable[[str, BaseException], None] = lambda _what, _broken: None,
) -> Receiver:
    """Serve the receiver; *port* 0 takes a free one. Put a TLS proxy in front of it: it speaks plain HTTP."""
    hints = Hints(inbound, report)
    listening = socket.create_server((host, port))
    config = uvicorn.Config(application(inbound, hints), log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="iom receiver", daemon=True)
    with contextlib.suppress(ValueError):
        thread.start()
    return Receiver(f"http://{host}:{listening.getsockname()[1]}", server, thread, hints)
