"""How a request proves who sends it: a fixed header, or OAuth client credentials renewed before they end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

import attrs
import httpx

from iom_adapters._clock import Clock, utc_now
from iom_core.errors import Misconfigured, Misunderstood, Unavailable


class Auth(Protocol):
    """Something that can sign a request."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers that authenticate a request; may fetch a token."""
        ...

    def rejected(self) -> bool:
        """Tell it that its headers got a 401; ``True`` means it has something new to try once."""
        ...


@attrs.frozen
class FixedHeader:
    """One secret header that never changes, for example ``X-Auth-Token``."""

    name: str
    secret: str = attrs.field(repr=False)

    def headers(self) -> Mapping[str, str]:
        """Return the header."""
        return {self.name: self.secret}

    def rejected(self) -> bool:
        """A fixed secret has nothing else to try."""
        return False


@attrs.define
class ClientCredentials:
    """OAuth 2.0 client credentials; the token is fetched when first needed and renewed before it ends.

    *token_url* is the whole address (Entra: ``https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token``;
    AD FS: ``https://{host}/adfs/oauth2/token``), *scope* for Entra (``https://{resource}/.default``), *resource*
    for AD FS. *basic* sends id and secret as a basic ``Authorization`` header instead of in the form (SAP).
    Sources: fno.md section 2, sap.md section 2.
    """

    system: str
    token_url: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    scope: str = ""
    resource: str = ""
    client: httpx.Client = attrs.field(factory=httpx.Client, repr=False)
    clock: Clock = utc_now
    margin: timedelta = timedelta(minutes=2)
    basic: bool = False
    _token: str = attrs.field(default="", init=False, repr=False)
    _until: datetime | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def headers(self) -> Mapping[str, str]:
        """Return ``Authorization: Bearer …``, fetching or renewing the token as needed."""
        with self._lock:
            if self._until is None or self.clock() >= self._until:
                self._renew()
            return {"Authorization": f"Bearer {self._token}"}

    def rejected(self) -> bool:
        """Forget the token: the next ``headers`` call fetches a new one."""
        with self._lock:
            self._until = None
        return True

    def _renew(self) -> None:
        form = {"grant_type": "client_credentials"}
        if not self.basic:
            form |= {"client_id": self.client_id, "client_secret": self.client_secret}
        if self.scope:
            form["scope"] = self.scope
        if self.resource:
            form["resource"] = self.resource
        try:
            reply = self.client.post(
                self.token_url,
                data=form,
                auth=httpx.BasicAuth(self.client_id, self.client_secret) if self.basic else httpx.USE_CLIENT_DEFAULT,
            )
        except httpx.HTTPError as broken:
            raise Unavailable(self.system, f"the token endpoint gave no answer ({type(broken).__name__})") from broken
        if reply.status_code == 429 or reply.status_code >= 500:
            raise Unavailable(self.system, f"the token endpoint answered {reply.status_code}")
        try:
            answer = reply.json()
        except (ValueError, RecursionError):
            # Without its cause: that one quotes the answer, which may hold a token.
            raise Misunderstood(self.system, "the token endpoint's answer is not JSON") from None
        if reply.status_code != 200:
            reason = answer.get("error", "") if isinstance(answer, dict) else ""
            reason = reason if isinstance(reason, str) and reason.isidentifier() and len(reason) < 60 else ""
            raise Misconfigured(
                self.system,
                f"the token endpoint refused our credentials ({reply.status_code} {reason}); "
                "check tenant, client id and secret",
            )
        try:
            self._token = str(answer["access_token"])
            lifetime = timedelta(seconds=int(answer["expires_in"]))
        except (KeyError, TypeError, ValueError):
            raise Misunderstood(self.system, "$.access_token or $.expires_in is missing in the token answer") from None
        if not self._token or lifetime <= timedelta(0):
            raise Misunderstood(self.system, "$.access_token is empty or $.expires_in is not positive")
        self._until = self.clock() + max(lifetime - self.margin, lifetime / 2)
