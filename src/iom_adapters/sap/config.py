"""How one SAP S/4HANA client is reached and set up: settings and nothing that acts on them.

Sources: sap.md sections 0 to 3 and 7. What SAP leaves to customizing, or nobody has confirmed, is a setting here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from iom_core.errors import Misconfigured
from iom_core.values import System

SAP: Final = System("sap")

WAYS: Final = ("order", "delivery")
"""What is billed: the sales order itself (way B of sap.md section 0), or a delivery whose goods were issued (way A)."""
ITEM_MARKS: Final = ("UnderlyingPurchaseOrderItem", "PurchaseOrderByShipToParty", "")
"""Where our item number is kept besides the item number itself; the 2021 interface does not have the first."""
PRICES: Final = ("gross", "net")
"""What an amount under the manual price condition means: tax included, or not."""

_DAYS: Final = ("overlap", "horizon", "window")
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    # every other setting is text
    **dict.fromkeys((*_DAYS, "bulk"), (int,)),
    **dict.fromkeys(("pick", "post_automatically", "repeatable"), (bool,)),
    **dict.fromkeys(("customers", "materials", "units", "sales_areas"), (Mapping,)),
    **dict.fromkeys(("invoice_categories", "locked_texts", "webhook_origins"), (list, tuple)),
}


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


def _lower(text: str) -> str:
    return text.lower()


def _day_or_more(_config: object, field: attrs.Attribute[timedelta], value: timedelta) -> None:
    if value < timedelta(days=1):
        raise ValueError(f"{field.name} must be a day or more: SAP dates new documents by day")


@attrs.frozen(kw_only=True)
class SapConfig:
    """How to reach one SAP client, and how it is set up.

    Access: *base_url* is ``https://my<number>-api.s4hana.cloud.sap``, the host with ``-api``. Either *user* and
    *password* (a communication user, basic authentication) or *client_id* and *client_secret* (OAuth client
    credentials; whether a cloud arrangement offers them is uncertain); *token_url* is by default the system's own.
    *sap_client* is sent as a header, ``""`` asks the default client. *language* must make SAP speak as
    *locked_texts* do: that a document is locked is told only in words.

    Customizing: *order_type* and *item_category* must be order-billed for *bill_from* ``"order"``, and delivered for
    ``"delivery"`` (then *pick* says whether we pick before the goods issue); ``""`` leaves the item category to SAP.
    *billing_type* ``""`` leaves that to SAP. *billing_block* is set on new orders and cleared before they are billed,
    ``""``: none. *sales_areas* maps a company (``""``: any other) to ``"organization/channel/division"``. *customers*
    maps our customers' accounts to SAP's, *guest* is used for all others, ``""`` refuses them. *materials* and *units*
    map our product numbers and units; a product that isn't there keeps its number, a unit is written in capitals.

    *item_mark* is the item field that tells our items from those that people add. The 2021 interface lacks the
    default; ``""`` takes every item for ours and goes by its number.

    Prices: without *price_condition* SAP prices by itself. With one (which, is customizing) each item carries its
    amount under it, *price_is* ``"gross"`` or ``"net"`` of tax. Whether SAP takes manual prices over is uncertain:
    the invoice's total is compared with the order's by whoever records it.

    Uncertain, hence choices: *post_automatically* (whether billing posts to accounting at once), *repeatable*
    (whether ``RequestID`` and ``RepeatabilityCreation`` are sent; nothing relies on them), *invoice_categories*
    (``"M"`` was seen; others are memos, pro forma invoices and cancellations), *locked_texts*.

    Pulling: *overlap* (how far back each pull looks again, a day or more: documents are dated by day), *horizon* (how
    far back the first pull looks), *window* (how much one pull reads), *bulk* (numbers asked for at once).
    *reference_prefix* tells our sales orders from others: their ``PurchaseOrderByCustomer`` begins with it.

    Events: *webhook_secret* is what the header *webhook_header* must hold, whole or after ``Bearer``; without it
    every event is refused. *webhook_origins* may subscribe, ``()``: all.
    """

    base_url: str
    order_type: str
    sales_areas: Mapping[str, str]
    user: str = ""
    password: str = attrs.field(default="", repr=False)
    client_id: str = ""
    client_secret: str = attrs.field(default="", repr=False)
    token_url: str = ""
    sap_client: str = ""
    language: str = "en"
    bill_from: str = attrs.field(default="order", validator=attrs.validators.in_(WAYS))
    item_category: str = ""
    item_mark: str = attrs.field(default=ITEM_MARKS[0], validator=attrs.validators.in_(ITEM_MARKS))
    billing_type: str = ""
    billing_block: str = ""
    pick: bool = True
    customers: Mapping[str, str] = attrs.field(factory=dict)
    guest: str = ""
    materials: Mapping[str, str] = attrs.field(factory=dict)
    units: Mapping[str, str] = attrs.field(factory=lambda: {"ea": "PC"})
    price_condition: str = ""
    price_is: str = attrs.field(default="gross", validator=attrs.validators.in_(PRICES))
    post_automatically: bool = True
    repeatable: bool = True
    invoice_categories: tuple[str, ...] = attrs.field(default=("M",), converter=_names)
    locked_texts: tuple[str, ...] = attrs.field(default=("being processed by",), converter=_names)
    reference_prefix: str = ""
    overlap: timedelta = attrs.field(default=timedelta(days=1), validator=_day_or_more)
    horizon: timedelta = attrs.field(default=timedelta(days=30), validator=_day_or_more)
    window: timedelta = attrs.field(default=timedelta(days=7), validator=_day_or_more)
    bulk: int = attrs.field(default=40, validator=attrs.validators.ge(1))
    webhook_secret: str = attrs.field(default="", repr=False)
    webhook_header: str = attrs.field(default="authorization", converter=_lower)
    webhook_origins: tuple[str, ...] = attrs.field(default=(), converter=_names)
    system: System = SAP

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> SapConfig:
        """Build a configuration from plain settings; *overlap*, *horizon* and *window* are whole days.

        Raises `Misconfigured`, naming the setting.
        """
        known = {field.name for field in attrs.fields(cls)}
        values: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in known:
                raise Misconfigured("sap", f"$.{name}: there is no such setting")
            kinds = _KINDS.get(name, (str,))
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise Misconfigured("sap", f"$.{name}: {kinds[0].__name__} is needed, not {type(value).__name__}")
            values[name] = timedelta(days=int(str(value))) if name in _DAYS else value
        missing = [name for name in ("base_url", "order_type", "sales_areas") if not values.get(name)]
        if missing:
            raise Misconfigured("sap", f"$.{missing[0]}: this setting is missing")
        try:
            config = cls(**values)
        except (TypeError, ValueError) as broken:
            raise Misconfigured("sap", str(broken)) from None
        config.check()
        return config

    def check(self) -> None:
        """Raise `Misconfigured` for settings that can't work together."""
        if bool(self.user and self.password) == bool(self.client_id and self.client_secret):
            raise Misconfigured(str(self.system), "either user and password or client_id and client_secret are needed")
        for company, area in self.sales_areas.items():
            if not isinstance(area, str) or len(area.split("/")) != 3 or not all(area.split("/")):
                raise Misconfigured(
                    str(self.system), f"$.sales_areas[{company!r}]: organization/channel/division is needed"
                )

    def sales_area(self, company: str) -> tuple[str, str, str] | None:
        """Return organization, distribution channel and division for a company, or ``None``."""
        area = self.sales_areas.get(company.lower()) or self.sales_areas.get("")
        if area is None:
            return None
        organization, channel, division = area.split("/")
        return organization, channel, division
