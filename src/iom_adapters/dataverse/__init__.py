"""Sales orders shared with F&O over dual-write, through Dataverse's Web API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

import cattrs

from iom_adapters._auth import ClientCredentials
from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import Client, Session
from iom_adapters._http import client as new_client
from iom_adapters.dataverse.adapter import DUAL_WRITE, HEADERS, DualWriteOrders
from iom_adapters.dataverse.wire import Settings
from iom_core.errors import Misconfigured
from iom_core.values import System


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} is needed, not {type(value).__name__}")
    return value


__all__ = ["DualWriteOrders", "Settings", "connect"]

_SETTINGS = cattrs.Converter(detailed_validation=False)
for _kind in (bool, int, str):
    # Without conversions: "false" is no bool, and a number in quotes no number.
    _SETTINGS.register_structure_hook(_kind, _exactly)
_CONNECTION = frozenset({"base_url", "tenant", "token_url", "client_id", "client_secret", "system"})


def _settings(given: Mapping[str, Any], system: System) -> Settings:
    kinds = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in kinds:
            raise Misconfigured(system, f"$.{name}: there is no such setting")
        try:
            values[name] = _SETTINGS.structure(value, kinds[name])
        except (TypeError, ValueError, AttributeError) as broken:
            raise Misconfigured(system, f"$.{name}: {broken}") from None
    try:
        return Settings(**values)
    except ValueError as broken:
        raise Misconfigured(system, str(broken)) from None


def connect(config: Mapping[str, Any], *, client: Client | None = None, clock: Clock = utc_now) -> DualWriteOrders:
    """Connect to the organization that *config* describes; nothing is called yet.

    Needed: ``base_url`` (``https://{org}.api.crm.dynamics.com``), ``client_id``, ``client_secret``, and ``tenant``
    (or a whole ``token_url``). ``system`` renames the connection. Every other name is one of `Settings`. Raises
    `Misconfigured` naming what is missing, unknown or of the wrong type.
    """
    system = System(str(config.get("system", DUAL_WRITE)))
    missing = [name for name in ("base_url", "client_id", "client_secret") if not config.get(name)]
    missing += [] if config.get("tenant") or config.get("token_url") else ["tenant"]
    if missing:
        raise Misconfigured(system, f"the connection needs {', '.join(missing)}")
    given = {name: value for name, value in config.items() if name not in _CONNECTION}
    settings = _settings(given, system)
    host = str(config["base_url"]).rstrip("/").removesuffix("/api/data/v9.2")
    http = client if client is not None else new_client()
    auth = ClientCredentials(
        system=system,
        token_url=str(
            config.get("token_url") or f"https://login.microsoftonline.com/{config['tenant']}/oauth2/v2.0/token"
        ),
        client_id=str(config["client_id"]),
        client_secret=str(config["client_secret"]),
        # The token is for the organization's own address, without the API's region prefix.
        scope=f"{host.replace('.api.', '.', 1)}/.default",
        client=http,
        clock=clock,
    )
    session = Session(
        system=system,
        base_url=f"{host}/api/data/v9.2",
        auth=auth,
        client=http,
        default_headers=HEADERS,
        clock=clock,
    )
    return DualWriteOrders(session, settings, system)
