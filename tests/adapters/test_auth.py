"""OAuth client credentials: one token for many calls, renewed in time, and never shown."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from iom_adapters._auth import ClientCredentials, FixedHeader
from iom_core.errors import Misconfigured, Misunderstood, Unavailable

SECRET, TOKEN = "cl13nt-s3cr3t", "t0k3n"


class Server:
    """A token endpoint: answers what it is told to, and remembers what it was asked."""

    def __init__(self, answer: Callable[[], httpx.Response] | None = None) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.asked: list[str] = []
        self.answer = answer or (lambda: httpx.Response(200, json={"access_token": TOKEN, "expires_in": 3600}))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.read().decode())
        return self.answer()

    def credentials(self, **more: Any) -> ClientCredentials:
        client = httpx.Client(transport=httpx.MockTransport(self))
        return ClientCredentials(
            "erp", "https://login.test/token", "me", SECRET, client=client, clock=lambda: self.now, **more
        )


def test_a_token_is_fetched_once_and_renewed_before_it_ends() -> None:
    server = Server()
    auth = server.credentials(scope="https://erp.test/.default")
    for minutes in (0, 30, 57, 58):
        server.now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
        assert auth.headers() == {"Authorization": f"Bearer {TOKEN}"}
    assert len(server.asked) == 2
    assert "scope=https%3A%2F%2Ferp.test%2F.default" in server.asked[0]


def test_a_rejected_token_is_replaced() -> None:
    server = Server()
    auth = server.credentials()
    auth.headers()
    assert auth.rejected()
    auth.headers()
    assert len(server.asked) == 2


def test_a_fixed_header_has_nothing_else_to_try() -> None:
    header = FixedHeader("X-Auth-Token", SECRET)
    assert not header.rejected()
    assert header.headers() == {"X-Auth-Token": SECRET}
    assert SECRET not in repr(header)


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        (httpx.Response(400, json={"error": "invalid_client", "error_description": SECRET}), Misconfigured),
        (httpx.Response(400, json={"error": f"what is {SECRET}?"}), Misconfigured),
        (httpx.Response(401, json=["?"]), Misconfigured),
        (httpx.Response(429), Unavailable),
        (httpx.Response(503), Unavailable),
        (httpx.Response(200, text=f"<{TOKEN}>"), Misunderstood),
        (httpx.Response(200, json={"access_token": TOKEN}), Misunderstood),
        (httpx.Response(200, json={"access_token": TOKEN, "expires_in": "soon"}), Misunderstood),
        (httpx.Response(200, json={"access_token": TOKEN, "expires_in": -1}), Misunderstood),
        (httpx.Response(200, json={"access_token": "", "expires_in": 10}), Misunderstood),
        (httpx.Response(200, json=[TOKEN]), Misunderstood),
    ],
)
def test_a_failing_endpoint_is_a_fault_that_shows_no_secret(response: httpx.Response, fault: type[Exception]) -> None:
    auth = Server(lambda: response).credentials()
    with pytest.raises(fault) as raised:
        auth.headers()
    shown = "".join(traceback.format_exception(raised.value)) + repr(auth)
    assert SECRET not in shown
    assert TOKEN not in shown


def test_no_answer_is_unavailable() -> None:
    def cut() -> httpx.Response:
        raise httpx.ConnectError("no")

    with pytest.raises(Unavailable):
        Server(cut).credentials().headers()
