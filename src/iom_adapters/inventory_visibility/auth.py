"""The two-step token: Entra's, and the service's own that is got for it.

The security service answers first with a redirect to its regional gateway, which wants the same request once more: same
method, headers and body. Source: inventory-visibility.md section 1.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import attrs
import httpx

from iom_adapters._auth import ClientCredentials
from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client
from iom_core.errors import Misconfigured, Misunderstood, Unavailable

ENTRA_SCOPE: Final = "0cdb527f-a8d1-4bf8-9436-b352c68682b2/.default"
"""What the Entra token is asked for: the security service's own application."""
SERVICE_SCOPE: Final = "https://inventoryservice.operations365.dynamics.com/.default"
SECURITY_URL: Final = "https://securityservice.operations365.dynamics.com/token"
GATEWAYS: Final = (".powerapps.com", ".operations365.dynamics.com")
"""Where the security service may send us: the request carries a token that no stranger may see."""

_REDIRECTS: Final = 3


@attrs.define
class ServiceToken:
    """Inventory Visibility's own token, renewed before it ends; *entra* gets, and renews, the one it is given for.

    *environment* is the Lifecycle Services environment id. *gateways* are the host name endings a redirect may lead to,
    besides the host of *url* itself.
    """

    system: str
    entra: ClientCredentials
    environment: str
    client: Client = attrs.field(repr=False)
    url: str = SECURITY_URL
    gateways: tuple[str, ...] = GATEWAYS
    clock: Clock = utc_now
    margin: timedelta = timedelta(minutes=2)
    _token: str = attrs.field(default="", init=False, repr=False)
    _until: datetime | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def headers(self) -> Mapping[str, str]:
        """Return ``Authorization: Bearer …``, fetching or renewing either token as needed; raises the three faults."""
        with self._lock:
            if self._until is None or self.clock() >= self._until:
                self._renew()
            return {"Authorization": f"Bearer {self._token}"}

    def rejected(self) -> bool:
        """Forget the service's token: the next ``headers`` call gets a new one."""
        with self._lock:
            self._until = None
        return True

    def _renew(self) -> None:
        reply = self._exchange()
        if reply.status_code in (400, 401):  # Entra's token may have been revoked before its time: one new one is tried
            self.entra.rejected()
            reply = self._exchange()
        if reply.status_code == 429 or reply.status_code >= 500:
            pause = reply.headers.get("retry-after", "")
            raise Unavailable(
                self.system,
                f"the security service answered {reply.status_code}",
                float(pause) if pause.isdigit() else None,
            )
        if reply.status_code != 200:
            raise Misconfigured(
                self.system,
                f"the security service gave no token ({reply.status_code}); check the environment id and whether the "
                "application may use Inventory Visibility",
            )
        try:
            answer = reply.json()
            self._token = str(answer["access_token"])
            lifetime = timedelta(seconds=int(answer["expires_in"]))
        except (KeyError, TypeError, ValueError, RecursionError, OverflowError):
            # Without its cause: that one may quote the answer, which may hold a token.
            raise Misunderstood(self.system, "$: the security service's answer holds no token") from None
        if not self._token or lifetime <= timedelta(0):
            raise Misunderstood(self.system, "$.access_token is empty or $.expires_in is not positive")
        self._until = self.clock() + max(lifetime - self.margin, lifetime / 2)

    def _exchange(self) -> httpx.Response:
        body = {
            "grant_type": "client_credentials",
            "client_assertion_type": "aad_app",
            "client_assertion": self.entra.headers()["Authorization"].removeprefix("Bearer "),
            "scope": SERVICE_SCOPE,
            "context": self.environment,
            "context_type": "finops-env",
        }
        url = self._checked(self.url)
        for _ in range(_REDIRECTS):
            try:
                reply = self.client.post(url, json=body, headers={"Api-Version": "1.0"}, follow_redirects=False)
            except httpx.HTTPError as broken:
                what = f"the security service gave no answer ({type(broken).__name__})"
                raise Unavailable(self.system, what) from broken
            if not reply.is_redirect:
                return reply
            if reply.status_code not in (307, 308):
                raise Misunderstood(self.system, f"the security service redirects with {reply.status_code}, not 307")
            try:
                url = self._checked(str(url.join(reply.headers["location"])))
            except httpx.InvalidURL:
                raise Misunderstood(self.system, "the security service redirects to no address") from None
        raise Misunderstood(self.system, "the security service redirects without end")

    def _checked(self, address: str) -> httpx.URL:
        url, start = httpx.URL(address), httpx.URL(self.url)
        ours = (url.scheme, url.host, url.port) == (start.scheme, start.host, start.port)
        if not ours and not (url.scheme == "https" and url.host.endswith(self.gateways)):
            raise Misunderstood(self.system, f"the security service redirects to a stranger, {url.scheme}://{url.host}")
        return url
