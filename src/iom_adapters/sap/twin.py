"""A stand-in for one SAP S/4HANA client: its sales orders, deliveries and billing documents, and its people.

What people and jobs do in SAP (post invoices, bill what is due, cancel, block a customer) is methods here. Numbers of
customizing (which item category is billed from what, which condition type is a manual price) are made up, like the
texts of refusals; names, types, status codes and the manners of the protocol are from sap.md sections 2 to 7.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import attrs

from iom_adapters._clock import Clock, utc_now
from iom_adapters._http import decode, encode
from iom_adapters._odata import BadQuery, Dialect, check_fields, parse_query, parse_resource, run_query
from iom_adapters._twin import Documents, Faults, Json, TwinRequest, TwinResponse
from iom_adapters.sap.wire import (
    BILLING,
    DELIVERIES,
    DELIVERY,
    DOCUMENTS,
    INVOICE,
    ORDER,
    ORDERS,
    TOKEN_PATH,
    basic,
    number,
    v2_date,
    v2_decimal,
    v2_moment,
)
from iom_core.values import Money

V2_DIALECT: Final = Dialect(ignore_case=False, functions=frozenset({"startswith", "endswith"}))
"""What this subset of OData V2 filters has; text compares with case."""
NAMESPACE: Final = "com.sap.gateway.srvd_a2x.api_billingdocument.v0001"

# --- the published shape, as far as this twin goes ---------------------------------------------------------


@attrs.frozen
class Field:
    """A property: its EDM type, its length (or precision, scale), and whether it is a key, creatable, updatable."""

    type: str
    length: int = 0
    scale: int = 0
    key: bool = False
    create: bool = False
    update: bool = False


@attrs.frozen
class EntitySet:
    """An entity set of one service: its type, properties, collections (name to set), and whether it has ETags."""

    service: str
    type: str
    fields: Mapping[str, Field]
    children: Mapping[str, str] = attrs.field(factory=dict)
    etag: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the names of the key properties."""
        return tuple(name for name, field in self.fields.items() if field.key)


_TYPES: Final = {
    "s": "Edm.String", "d": "Edm.Decimal", "t": "Edm.DateTime", "o": "Edm.DateTimeOffset", "b": "Edm.Boolean",
}  # fmt: skip


def _fields(text: str) -> dict[str, Field]:
    """Read ``Name s10 kcu; …``: a letter for the type, length or precision.scale, then key, creatable, updatable."""
    found: dict[str, Field] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, kind, *flags = entry.split()
        length, _, scale = kind[1:].partition(".")
        has = flags[0] if flags else ""
        found[name] = Field(_TYPES[kind[0]], int(length or 0), int(scale or 0), "k" in has, "c" in has, "u" in has)
    return found


SETS: Final[Mapping[str, EntitySet]] = {
    "A_SalesOrder": EntitySet(
        ORDERS,
        "API_SALES_ORDER_SRV.A_SalesOrderType",
        _fields(
            "SalesOrder s10 k; SalesOrderType s4 c; SalesOrganization s4 c; DistributionChannel s2 c;"
            "OrganizationDivision s2 c; SoldToParty s10 c; PurchaseOrderByCustomer s35 cu;"
            "CustomerPurchaseOrderDate t cu; SalesOrderDate t cu; RequestedDeliveryDate t cu; PricingDate t cu;"
            "TransactionCurrency s5 c; HeaderBillingBlockReason s2 cu; DeliveryBlockReason s2 cu;"
            "TotalNetAmount d16.3; CreationDate t; LastChangeDateTime o; OverallSDProcessStatus s1;"
            "OverallTotalDeliveryStatus s1; OverallOrdReltdBillgStatus s1; OverallSDDocumentRejectionSts s1"
        ),
        {"to_Item": "A_SalesOrderItem"},
        "LastChangeDateTime",
    ),
    "A_SalesOrderItem": EntitySet(
        ORDERS,
        "API_SALES_ORDER_SRV.A_SalesOrderItemType",
        _fields(
            "SalesOrder s10 k; SalesOrderItem s6 kc; SalesOrderItemCategory s4 c; SalesOrderItemText s40 c;"
            "UnderlyingPurchaseOrderItem s6 c; PurchaseOrderByShipToParty s35 c;"
            "Material s40 c; RequestedQuantity d15.3 cu; RequestedQuantityUnit s3 c;"
            "TransactionCurrency s5; NetAmount d16.3; TaxAmount d14.3; ItemBillingBlockReason s2 u;"
            "SalesDocumentRjcnReason s2 u; SDProcessStatus s1; DeliveryStatus s1; OrderRelatedBillingStatus s1"
        ),
        {"to_PricingElement": "A_SalesOrderItemPrElement"},
    ),
    "A_SalesOrderItemPrElement": EntitySet(
        ORDERS,
        "API_SALES_ORDER_SRV.A_SalesOrderItemPrElementType",
        _fields(
            "SalesOrder s10 k; SalesOrderItem s6 k; PricingProcedureStep s3 k; PricingProcedureCounter s3 k;"
            "ConditionType s4 c; ConditionRateValue d24.9 cu; ConditionCurrency s5 c; ConditionQuantity d5.0 cu;"
            "ConditionQuantityUnit s3 c"
        ),
    ),
    "A_OutbDeliveryHeader": EntitySet(
        DELIVERIES,
        "API_OUTBOUND_DELIVERY_SRV.A_OutbDeliveryHeaderType",
        _fields(
            "DeliveryDocument s10 k; DeliveryDocumentType s4; DeliveryVersion s4; SDDocumentCategory s4;"
            "SoldToParty s10; ActualGoodsMovementDate t; OverallPickingStatus s1; OverallGoodsMovementStatus s1;"
            "OverallDelivReltdBillgStatus s1; OverallSDProcessStatus s1"
        ),
        {"to_DeliveryDocumentItem": "A_OutbDeliveryItem"},
        "DeliveryVersion",
    ),
    "A_OutbDeliveryItem": EntitySet(
        DELIVERIES,
        "API_OUTBOUND_DELIVERY_SRV.A_OutbDeliveryItemType",
        _fields(
            "DeliveryDocument s10 k; DeliveryDocumentItem s6 k; DeliveryVersion s4; Material s40;"
            "ActualDeliveryQuantity d13.3 c; DeliveryQuantityUnit s3 c; ReferenceSDDocument s10 c;"
            "ReferenceSDDocumentItem s6 c; ReferenceSDDocumentCategory s4; PickingStatus s1; GoodsMovementStatus s1;"
            "DeliveryRelatedBillingStatus s1"
        ),
        {},
        "DeliveryVersion",
    ),
    "A_BillingDocument": EntitySet(
        DOCUMENTS,
        "API_BILLING_DOCUMENT_SRV.A_BillingDocumentType",
        _fields(
            "BillingDocument s10 k; BillingDocumentType s4; SDDocumentCategory s4; BillingDocumentCategory s1;"
            "BillingDocumentDate t; CreationDate t; LastChangeDateTime o; BillingDocumentIsCancelled b;"
            "CancelledBillingDocument s10; TotalNetAmount d16.3; TaxAmount d14.3; TotalGrossAmount d17.3;"
            "TransactionCurrency s5; SoldToParty s10; PayerParty s10; DocumentReferenceID s16;"
            "PurchaseOrderByCustomer s35; AccountingDocument s10; OverallBillingStatus s1; AccountingPostingStatus s1;"
            "AccountingTransferStatus s1"
        ),
        {"to_Item": "A_BillingDocumentItem"},
        "LastChangeDateTime",
    ),
    "A_BillingDocumentItem": EntitySet(
        DOCUMENTS,
        "API_BILLING_DOCUMENT_SRV.A_BillingDocumentItemType",
        _fields(
            "BillingDocument s10 k; BillingDocumentItem s6 k; SalesDocumentItemCategory s4; Material s40;"
            "BillingQuantity d13.3; BillingQuantityUnit s3; NetAmount d16.3; TaxAmount d14.3; GrossAmount d16.3;"
            "TransactionCurrency s5; SalesDocument s10; SalesDocumentItem s6; ReferenceSDDocument s10;"
            "ReferenceSDDocumentItem s6; ReferenceSDDocumentCategory s4"
        ),
    ),
}
FUNCTIONS: Final = ("PickAllItems", "PostGoodsIssue")
_TABLES: Final = {"A_SalesOrder": "order", "A_OutbDeliveryHeader": "delivery", "A_BillingDocument": "document"}
_PARENTS: Final = {child: (name, nav) for name, each in SETS.items() for nav, child in each.children.items()}
_NUMBERS: Final = frozenset(
    {"SalesOrder", "SalesOrderItem", "SalesDocument", "SalesDocumentItem", "BillingDocument", "DeliveryDocument",
     "ReferenceSDDocument", "ReferenceSDDocumentItem"}
)  # fmt: skip


def metadata(service: str) -> str:
    """Write the ``$metadata`` of one service, as far as this twin goes."""
    sets = {name: each for name, each in SETS.items() if each.service == service}
    space = next(iter(sets.values())).type.partition(".")[0]
    types = "".join(
        f'<EntityType Name="{each.type.partition(".")[2]}"><Key>'
        + "".join(f'<PropertyRef Name="{key}"/>' for key in each.keys)
        + "</Key>"
        + "".join(
            f'<Property Name="{field_name}" Type="{field.type}"'
            + (f' MaxLength="{field.length}"' if field.type == "Edm.String" else "")
            + (f' Precision="{field.length}" Scale="{field.scale}"' if field.type == "Edm.Decimal" else "")
            + (' ConcurrencyMode="Fixed"' if field_name == each.etag else "")
            + "/>"
            for field_name, field in each.fields.items()
        )
        + "</EntityType>"
        for each in sets.values()
    )
    container = "".join(f'<EntitySet Name="{name}" EntityType="{each.type}"/>' for name, each in sets.items())
    return (
        '<?xml version="1.0" encoding="utf-8"?><edmx:Edmx Version="1.0" '
        'xmlns:edmx="http://schemas.microsoft.com/ado/2007/06/edmx"><edmx:DataServices '
        'xmlns:m="http://schemas.microsoft.com/ado/2007/08/dataservices/metadata" m:DataServiceVersion="2.0">'
        f'<Schema Namespace="{space}" xmlns="http://schemas.microsoft.com/ado/2008/09/edm">{types}'
        f'<EntityContainer Name="{space}_Entities" m:IsDefaultEntityContainer="true">{container}</EntityContainer>'
        "</Schema></edmx:DataServices></edmx:Edmx>"
    )


# --- answers -----------------------------------------------------------------------------------------------


@attrs.frozen
class _Refusal(Exception):
    """An answer other than success."""

    response: TwinResponse


def v2_error(status: int, code: str, text: str, *details: str) -> TwinResponse:
    """Answer as Gateway does: a message object, the causes in ``errordetails``, a generic one last."""
    rows = [
        {"code": code, "message": each, "propertyref": "", "severity": "error", "transition": False, "target": ""}
        for each in details
    ]
    if rows:
        rows.append({**rows[0], "code": "/IWBEP/CX_MGW_BUSI_EXCEPTION", "message": "An exception was raised"})
    inner = {"transactionid": "0050568A00B21EDBA0AA0A0A0A0A0A0A", "timestamp": "", "errordetails": rows}
    body = {"error": {"code": code, "message": {"lang": "en", "value": text}, "innererror": inner}}
    return TwinResponse.of(status, body, {"dataserviceversion": "1.0"})


def v4_error(status: int, code: str, text: str, *details: str) -> TwinResponse:
    """Answer as a V4 service does: the message is a string."""
    error: dict[str, Json] = {"code": code, "message": text, "@SAP__common.ExceptionCategory": "Client_Error"}
    if details:
        error["details"] = [{"code": code, "message": each, "@SAP__common.Severity": "error"} for each in details]
    return TwinResponse.of(status, {"error": error})


def _json(status: int, value: Json, headers: Mapping[str, str] | None = None) -> TwinResponse:
    return TwinResponse(status, {"content-type": "application/json; charset=utf-8", **(headers or {})}, encode(value))


def _html(status: int, text: str) -> TwinResponse:
    return TwinResponse(
        status, {"content-type": "text/html; charset=utf-8"}, f"<html><body>{text}</body></html>".encode()
    )


@attrs.frozen
class Material:
    """A material: its net price per unit when SAP prices, and the item category SAP proposes."""

    price: Decimal
    category: str = "TAN"


ORDER_BILLED: Final = "TAX"
"""The item category that is billed from the order; ``TAN`` is billed from its delivery."""


class SapTwin:
    """One SAP client. *tax* is the rate of every item; *manual* says which condition types are manual prices, and
    whether they mean gross or net. *page* is how many rows an answer has at most; *padded* keeps leading zeros in
    references; *split* makes a document of its own of every item; *picks* says whether deliveries must be picked.
    """

    name = "sap"

    def __init__(
        self,
        path: Path | None = None,
        clock: Clock = utc_now,
        *,
        materials: Mapping[str, Material] | None = None,
        customers: Iterable[str] = ("17100001",),
        client: str = "100",
        user: tuple[str, str] = ("IOM", "secret"),
        oauth: tuple[str, str] = ("iom-client", "oauth-secret"),
        tax: Decimal = Decimal(0),
        manual: Mapping[str, str] | None = None,
        page: int = 100,
        padded: bool = False,
        split: bool = False,
        picks: bool = True,
    ) -> None:
        self.faults = Faults()
        self.clock = clock
        self.materials = dict(materials or {})
        self.customers = set(customers)
        self.client = client
        self.user, self.oauth = user, oauth
        self.tax, self.manual = tax, dict(manual or {"ZGRS": "gross", "PMP0": "net"})
        self.page, self.padded, self.split, self.picks = page, padded, split, picks
        self.blocked: dict[str, str] = {}
        """Customers nobody may sell to, with the reason."""
        self.locked: dict[str, str] = {}
        """Document numbers somebody works on, with that user's name."""
        self.forbidden = False
        """True: the user may read and not write."""
        self.login_page = False
        """True: answers a login page, as the cloud does to a dialog user."""
        self._db = Documents(path)
        self._lock = threading.RLock()
        self._sessions: dict[str, str] = {}
        self._tokens: dict[str, datetime] = {}
        self._serial = 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- what its people see and do ------------------------------------------------------------------------

    def orders(self, reference: str = "") -> list[Json]:
        """Return the sales orders, those with a customer's *reference* or all, oldest first."""
        with self._lock:
            found = sorted(self._db.all("order"), key=lambda each: int(each["head"]["SalesOrder"]))
            return [each for each in found if reference in ("", each["head"]["PurchaseOrderByCustomer"])]

    def deliveries(self) -> list[Json]:
        """Return the outbound deliveries, oldest first."""
        with self._lock:
            return sorted(self._db.all("delivery"), key=lambda each: int(each["head"]["DeliveryDocument"]))

    def documents(self, reference: str = "") -> list[Json]:
        """Return the billing documents, those over orders with a customer's *reference* or all, oldest first."""
        with self._lock:
            orders = {each["head"]["SalesOrder"] for each in self.orders(reference)}
            found = sorted(self._db.all("document"), key=lambda each: int(each["head"]["BillingDocument"]))
            return [
                each for each in found if not reference or orders & {number(i["SalesDocument"]) for i in each["items"]}
            ]

    def post_invoices(self) -> int:
        """Post every document to accounting that isn't; returns how many. Their dates don't move."""
        with self._lock:
            fresh = [each for each in self._db.all("document") if each["head"]["AccountingPostingStatus"] != "C"]
            for each in fresh:
                self._put_head(
                    "document", each, {"AccountingPostingStatus": "C", "AccountingTransferStatus": "C"}, stamp=False
                )
            self._db.commit()
            return len(fresh)

    def bill_due(self) -> list[str]:
        """Run the billing due list over orders without a billing block; returns the new documents."""
        with self._lock:
            new = [
                document
                for each in self.orders()
                if not each["head"]["HeaderBillingBlockReason"]
                for document in self._bill_order(each)
            ]
            self._db.commit()
            return new

    def bill_together(self, *orders: str) -> str:
        """Make one document over several sales orders."""
        with self._lock:
            items = [item for each in orders for item in self._due_items(self._held("order", each))]
            document = self._document(items)
            self._db.commit()
            return document

    def cancel(self, document: str) -> str:
        """Cancel a document; returns the number of the new one that says so."""
        with self._lock:
            old = self._held("document", document)
            self._put_head("document", old, {"BillingDocumentIsCancelled": True}, stamp=True)
            new = str(self._db.next("document", 90_000_000))
            head = {**old["head"], "BillingDocument": new, "BillingDocumentType": "S1", "SDDocumentCategory": "N",
                    "CancelledBillingDocument": document, "DocumentReferenceID": document.zfill(10),
                    "AccountingPostingStatus": "C", "BillingDocumentIsCancelled": False}  # fmt: skip
            items = [{**each, "BillingDocument": new} for each in old["items"]]
            self._db.put("document", new, {"head": head, "items": items, "stamp": self._stamp()})
            self._db.commit()
            return new

    def reject(self, order: str) -> None:
        """Reject all items of a sales order."""
        with self._lock:
            old = self._held("order", order)
            items = [{**each, "SalesDocumentRjcnReason": "00"} for each in old["items"]]
            self._put_head("order", {**old, "items": items}, {"OverallSDDocumentRejectionSts": "C"}, stamp=True)
            self._db.commit()

    def change(self, table: str, key: str, **fields: Json) -> None:
        """Change header fields of an ``order``, ``delivery`` or ``document``, whatever they say; its ETag moves."""
        with self._lock:
            self._put_head(table, self._held(table, key), fields, stamp=True)
            self._db.commit()

    def change_items(self, table: str, key: str, **fields: Json) -> None:
        """Change fields of every item of a document, whatever they say."""
        with self._lock:
            old = self._held(table, key)
            self._db.put(table, key, {**old, "items": [{**each, **fields} for each in old["items"]]})
            self._db.commit()

    def add_order(self, reference: str = "", *, quantity: str = "1", customer: str = "17100001") -> str:
        """Enter a sales order by hand, one item of the first material; returns its number."""
        with self._lock:
            item: Json = {
                "Material": next(iter(self.materials)),
                "RequestedQuantity": quantity,
                "RequestedQuantityUnit": "PC",
                "SalesOrderItemCategory": ORDER_BILLED,
            }
            head = {"SoldToParty": customer, "PurchaseOrderByCustomer": reference, "TransactionCurrency": "USD"}
            created = self._create_order(head, [item])
            self._db.commit()
            return str(created["head"]["SalesOrder"])

    def add_item(self, order: str, material: str, quantity: str = "1") -> None:
        """Add an item to a sales order by hand, numbered in tens after the last."""
        with self._lock:
            old = self._held("order", order)
            item = {"Material": material, "RequestedQuantity": quantity, "RequestedQuantityUnit": "PC",
                    "SalesOrderItemCategory": ORDER_BILLED}  # fmt: skip
            self._put_head("order", {**old, "items": [*old["items"], self._item(old, item)]}, {}, stamp=True)
            self._db.commit()

    def expire_sessions(self) -> None:
        """Forget every session: tokens and cookies given before are no good any more."""
        with self._lock:
            self._sessions.clear()

    def event(self, document: str, what: str = "Created") -> tuple[dict[str, str], bytes]:
        """Return headers and body of what Event Mesh posts about a billing document, without authentication."""
        kind = f"sap.s4.beh.billingdocument.v1.BillingDocument.{what}.v1"
        body = {
            "specversion": "1.0",
            "type": kind,
            "source": "/default/sap.s4.beh/S4HCLNT100",
            "id": f"0894ef45-7741-1eea-b7be-{int(document):012d}",
            "time": self.clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "datacontenttype": "application/json",
            "data": {"BillingDocument": document, "BillingDocumentType": "F2", "SDDocumentCategory": INVOICE},
        }
        topic = "topic:ssm/s4h/dev/ce/" + kind.replace(".", "/")
        return {"content-type": "application/cloudevents+json", "x-address": topic, "x-qos": "1"}, encode(body)

    # --- the protocol --------------------------------------------------------------------------------------

    def handle(self, request: TwinRequest) -> TwinResponse:
        """Answer one request."""
        with self._lock:
            try:
                response = self._answer(request)
            except _Refusal as refusal:
                response = refusal.response
            except BadQuery as broken:
                response = v2_error(400, "005056A509B11EE1B9A8FEC11C21578E", f"Invalid query: {broken}")
            self._db.commit()
            return response

    def _answer(self, request: TwinRequest) -> TwinResponse:
        if request.path == TOKEN_PATH:
            return self._oauth_token(request)
        if not self._authenticated(request):
            return _html(401, "Logon failed")
        if request.headers.get("sap-client", request.param("sap-client", self.client)) != self.client:
            return _html(401, "This client does not exist")
        if self.login_page:
            return _html(200, "Please log on")
        session, fresh = self._session(request)
        extra = {"set-cookie": f"{self._cookie()}={session}; path=/"} if fresh else {}
        wants_token = request.headers.get("x-csrf-token", "").lower() == "fetch"
        if request.method in ("GET", "HEAD"):
            if wants_token:
                extra["x-csrf-token"] = self._sessions[session]
            response = self._read(request)
        else:
            if fresh or request.headers.get("x-csrf-token") != self._sessions[session]:
                return TwinResponse(
                    403,
                    {"x-csrf-token": "Required", "content-type": "text/plain"},
                    b"CSRF token validation failed",
                )
            if self.forbidden:
                return _html(403, "No authorization")
            response = self._write(request)
        return attrs.evolve(response, headers={**response.headers, **extra})

    def _cookie(self) -> str:
        return f"SAP_SESSIONID_S4H_{self.client}"

    def _session(self, request: TwinRequest) -> tuple[str, bool]:
        cookies = dict(
            part.strip().partition("=")[::2] for part in request.headers.get("cookie", "").split(";") if "=" in part
        )
        known = cookies.get(self._cookie(), "")
        if known in self._sessions:
            return known, False
        self._serial += 1
        session = f"sess-{self._serial:08d}"
        self._sessions[session] = f"token-{self._serial:08d}=="
        return session, True

    def _authenticated(self, request: TwinRequest) -> bool:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        if scheme == "Bearer":
            return self._tokens.get(rest, datetime.min.replace(tzinfo=UTC)) > self.clock()
        return request.headers.get("authorization") == basic(*self.user)

    def _oauth_token(self, request: TwinRequest) -> TwinResponse:
        expected = "Basic " + base64.b64encode(":".join(self.oauth).encode()).decode()
        form = parse_qs(request.body.decode())
        if request.headers.get("authorization") != expected or request.param("sap-client", self.client) != self.client:
            return TwinResponse.of(401, {"error": "invalid_client"})
        if form.get("grant_type") != ["client_credentials"]:
            return TwinResponse.of(400, {"error": "unsupported_grant_type"})
        self._serial += 1
        token = f"bearer-{self._serial:08d}"
        self._tokens[token] = self.clock() + timedelta(seconds=3600)
        return TwinResponse.of(200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def _read(self, request: TwinRequest) -> TwinResponse:
        path = unquote(request.path)
        if path.startswith(BILLING):
            return self._read_v4(request, path.removeprefix(BILLING).strip("/"))
        service, rest = _service(path)
        if request.method == "HEAD":
            return TwinResponse(405 if rest.endswith("/") else 200)
        if rest.strip("/") == "$metadata":
            return TwinResponse(200, {"content-type": "application/xml"}, metadata(service).encode())
        if "json" not in request.headers.get("accept", "") and request.param("$format") != "json":
            return TwinResponse(200, {"content-type": "application/atom+xml"}, b'<?xml version="1.0"?><feed/>')
        if "+" in request.raw_query:
            raise _Refusal(v2_error(400, "/IWCOR/CX_DS_EXPR_SYNTAX_ERROR", "Invalid character '+' in the query"))
        resource = parse_resource(rest)
        return self._rows(request, service, resource.set, resource.key if resource.keyed else None, resource.rest)

    def _rows(
        self,
        request: TwinRequest,
        service: str,
        name: str,
        key: Mapping[str, Any] | None,
        rest: str,
        within: Sequence[Json] | None = None,
    ) -> TwinResponse:
        entity = self._entity_set(service, name)
        host = request.headers.get("host", "sap.test")
        root = f"{'http' if host.startswith(('127.', 'localhost')) else 'https'}://{host}"
        options = [each for each in request.query if each[0] not in ("$inlinecount", "$format", "$skiptoken")]
        query = parse_query([(option, _v4_literals(text) if option == "$filter" else text) for option, text in options])
        check_fields(query, {*entity.fields, *entity.children})
        rows = self._stored(name) if within is None else list(within)
        if key is not None:
            values = {(each or entity.keys[0]): number(str(value)) for each, value in key.items()}
            rows = [row for row in rows if all(number(str(row.get(each))) == value for each, value in values.items())]
            if not rows:
                raise _Refusal(v2_error(404, "/IWBEP/CM_MGW_RT/020", "Resource not found"))
            if rest:
                child = entity.children.get(rest, rest)
                return self._rows(request, service, child, None, "", _below(rows[0], rest))
            shown = self._shown(root, name, rows[0], query.select, query.expand)
            return _json(200, {"d": shown}, {"etag": shown["__metadata"]["etag"]} if entity.etag else {})
        views = [{**_view(entity, row), "": place} for place, row in enumerate(rows)]
        found, count = run_query(attrs.evolve(query, top=None, skip=0, select=()), views, V2_DIALECT)
        found = found[query.skip :][: query.top]
        at = int(request.param("$skiptoken", "0") or 0)
        page: dict[str, Json] = {
            "results": [
                self._shown(root, name, rows[view[""]], query.select, query.expand)
                for view in found[at : at + self.page]
            ]
        }
        if request.param("$inlinecount") == "allpages":
            page["__count"] = str(count)
        if at + self.page < len(found):
            kept = "&".join(part for part in request.raw_query.split("&") if not part.startswith("$skiptoken"))
            page["__next"] = f"{root}{request.path}?{kept}&$skiptoken={at + self.page}"
        return _json(200, {"d": page}, {"dataserviceversion": "2.0"})

    def _entity_set(self, service: str, name: str) -> EntitySet:
        entity = SETS.get(name)
        if entity is None or entity.service != service:
            raise _Refusal(v2_error(404, "/IWBEP/CM_MGW_RT/021", f"Resource not found for segment '{name}'"))
        return entity

    def _stored(self, name: str) -> list[Json]:
        """Return the rows of an entity set, in the order of their keys."""
        if name in _TABLES:
            rows = [{**each["head"], "": each} for each in self._db.all(_TABLES[name])]
        else:
            parent, nav = _PARENTS[name]
            rows = [child for row in self._stored(parent) for child in _below(row, nav)]
        return sorted(rows, key=lambda row: tuple(str(row.get(key, "")).zfill(10) for key in SETS[name].keys))

    def _shown(self, root: str, name: str, row: Json, select: Sequence[str], expand: Sequence[str]) -> dict[str, Json]:
        entity = SETS[name]
        key = ",".join(
            f"{each}='{row.get(each, '')}'" if len(entity.keys) > 1 else f"'{row[each]}'" for each in entity.keys
        )
        uri = f"{root}{entity.service}/{name}({key})"
        meta = {"id": uri, "uri": uri, "type": entity.type}
        if entity.etag:
            meta["etag"] = _etag(entity, row)
        shown: dict[str, Json] = {"__metadata": meta}
        for field in entity.fields:
            if not select or field in select:
                shown[field] = row.get(field, "" if entity.fields[field].type == "Edm.String" else None)
        for nav, child in entity.children.items():
            inner = [each.partition("/")[2] for each in select if each.startswith(f"{nav}/")]
            if select and not inner and nav not in select:
                continue
            if nav in {each.partition("/")[0] for each in expand}:
                deeper = [each.partition("/")[2] for each in expand if each.startswith(f"{nav}/")]
                shown[nav] = {"results": [self._shown(root, child, each, inner, deeper) for each in _below(row, nav)]}
            else:
                shown[nav] = {"__deferred": {"uri": f"{uri}/{nav}"}}
        return shown

    def _write(self, request: TwinRequest) -> TwinResponse:
        path = unquote(request.path)
        if path.startswith(BILLING):
            return self._write_v4(request, path.removeprefix(BILLING).strip("/"))
        service, rest = _service(path)
        if rest.strip("/") in FUNCTIONS and service == DELIVERIES:
            return self._move(request, rest.strip("/"))
        resource = parse_resource(rest)
        self._entity_set(service, resource.set)
        method = "PATCH" if request.headers.get("x-http-method") == "MERGE" else request.method
        number_ = next((str(value) for value in resource.key.values()), "")
        if (method, resource.set, resource.keyed, resource.rest) == ("POST", "A_SalesOrder", False, ""):
            body = self._checked("A_SalesOrder", _body(request))
            items = [self._checked("A_SalesOrderItem", each) for each in _list(body.pop("to_Item", None))]
            created = self._create_order(body, items)
            row = {**created["head"], "": created}
            return _json(201, {"d": self._shown("https://sap.test", "A_SalesOrder", row, (), ("to_Item",))})
        if (method, resource.set, resource.rest) == ("POST", "A_SalesOrder", "to_Item"):
            order = self._existing("order", number_)
            item = self._item(order, self._checked("A_SalesOrderItem", _body(request)))
            if any(each["SalesOrderItem"] == item["SalesOrderItem"] for each in order["items"]):
                raise _Refusal(v2_error(400, "V1/365", f"Item {item['SalesOrderItem']} already exists"))
            self._put_head("order", {**order, "items": [*order["items"], item]}, {}, stamp=True)
            self._total(number_)
            return _json(201, {"d": self._shown("https://sap.test", "A_SalesOrderItem", item, (), ())})
        if (method, resource.set, resource.rest) == ("PATCH", "A_SalesOrder", ""):
            order = self._existing("order", number_)
            self._unchanged(request, SETS["A_SalesOrder"], {**order["head"], "": order})
            changes = self._checked("A_SalesOrder", _body(request), update=True)
            self._put_head("order", order, changes, stamp=True)
            return TwinResponse(204)
        if (method, resource.set, resource.keyed) == ("POST", "A_OutbDeliveryHeader", False):
            return self._deliver(self._checked("A_OutbDeliveryHeader", _body(request)))
        raise _Refusal(v2_error(405, "/IWFND/CM_BEC/026", "The operation is not allowed"))

    def _existing(self, table: str, key: str) -> Json:
        found = self._db.get(table, number(key))
        if found is None:
            raise _Refusal(v2_error(404, "/IWBEP/CM_MGW_RT/020", "Resource not found"))
        if number(key) in self.locked:
            text = f"{table.capitalize()} {key} is being processed by user {self.locked[number(key)]}"
            raise _Refusal(v2_error(400, "V1/042", "An exception was raised", text))
        return found

    def _unchanged(self, request: TwinRequest, entity: EntitySet, row: Json) -> None:
        given = request.headers.get("if-match", "")
        if not given:
            raise _Refusal(v2_error(428, "SADL_ENTITY_RUNTIME/006", "The request requires an If-Match header"))
        if given != _etag(entity, row):
            raise _Refusal(v2_error(412, "SADL_ENTITY_RUNTIME/007", "The entity was changed in the meantime"))

    def _checked(self, name: str, body: Json, *, update: bool = False) -> dict[str, Json]:
        """Check names, types and lengths of what is sent, as Gateway does before anything is done."""
        entity = SETS[name]
        if not isinstance(body, dict):
            raise _Refusal(v2_error(400, "CX_SXML_PARSE_ERROR/001560AA0E08", "Error while parsing an XML stream"))
        for field_name, value in body.items():
            if field_name in entity.children:
                for each in _list(value):
                    self._checked(entity.children[field_name], each)
                continue
            field = entity.fields.get(field_name)
            if field is None:
                text = f"Property '{field_name}' is invalid for entity '{entity.type}'"
                raise _Refusal(v2_error(400, "/IWCOR/CX_DS_EP_PROPERTY_ERROR", text))
            if not (field.update if update else field.create):
                text = f"Property '{field_name}' is read-only"
                raise _Refusal(v2_error(400, "/IWBEP/CM_MGW_RT/052", text))
            _check_value(field_name, field, value)
        return dict(body)

    # --- sales orders --------------------------------------------------------------------------------------

    def _create_order(self, body: Mapping[str, Json], items: Sequence[Json]) -> Json:
        customer = str(body.get("SoldToParty", ""))
        if not items:
            raise _Refusal(v2_error(400, "APS_SD/001", "A sales order without items can't be created"))
        if customer not in self.customers:
            raise _Refusal(v2_error(400, "VP/199", "Error in sales order", f"Customer {customer} does not exist"))
        if customer in self.blocked:
            raise _Refusal(v2_error(400, "V1/042", "An exception was raised", self.blocked[customer]))
        key = str(self._db.next("order"))
        today = v2_date(self.clock().date())
        head = {
            **{field: "" for field, each in SETS["A_SalesOrder"].fields.items() if each.type == "Edm.String"},
            "SalesOrderDate": today,
            "TransactionCurrency": "USD",
            **body,
            "SalesOrder": key,
            "CreationDate": today,
            "OverallSDProcessStatus": "A",
            "OverallOrdReltdBillgStatus": "A",
            "OverallSDDocumentRejectionSts": "A",
        }
        order: Json = {"head": head, "items": [], "stamp": ""}
        for each in items:
            order = {**order, "items": [*order["items"], self._item(order, each)]}
        self._put_head("order", order, {}, stamp=True)
        self._total(key)
        return self._held("order", key)

    def _item(self, order: Json, body: Json) -> Json:
        material = self.materials.get(str(body.get("Material", "")))
        if material is None:
            text = f"Material {body.get('Material', '')} is not defined"
            raise _Refusal(v2_error(400, "V1/302", "An exception was raised", text))
        last = max((int(each["SalesOrderItem"]) for each in order["items"]), default=0)
        quantity, currency = Decimal(str(body.get("RequestedQuantity", "0"))), str(order["head"]["TransactionCurrency"])
        prices = [self._checked("A_SalesOrderItemPrElement", each) for each in _list(body.get("to_PricingElement"))]
        net, tax = self._priced(material, prices, quantity, currency)
        return {
            **{field: "" for field, each in SETS["A_SalesOrderItem"].fields.items() if each.type == "Edm.String"},
            "SalesOrderItemCategory": material.category,
            **{name: value for name, value in body.items() if name != "to_PricingElement"},
            "SalesOrder": order["head"]["SalesOrder"],
            "SalesOrderItem": number(str(body.get("SalesOrderItem") or (last // 10 + 1) * 10)),
            "RequestedQuantity": v2_decimal(quantity),
            "TransactionCurrency": currency,
            "NetAmount": str(net),
            "TaxAmount": str(tax),
            "SDProcessStatus": "A",
            "to_PricingElement": [
                {
                    "SalesOrder": order["head"]["SalesOrder"],
                    "SalesOrderItem": str(body.get("SalesOrderItem", "")),
                    "PricingProcedureStep": "20",
                    "PricingProcedureCounter": str(place),
                    **each,
                }
                for place, each in enumerate(prices, 1)
            ],
        }

    def _priced(
        self, material: Material, prices: Sequence[Json], quantity: Decimal, currency: str
    ) -> tuple[Decimal, Decimal]:
        kind = "net"
        amount = material.price * quantity
        for each in prices:
            if each.get("ConditionType") not in self.manual:
                text = f"Condition type {each.get('ConditionType')} may not be entered manually"
                raise _Refusal(v2_error(400, "VE/108", "An exception was raised", text))
            kind = self.manual[each["ConditionType"]]
            amount = Decimal(each["ConditionRateValue"]) * quantity / Decimal(each.get("ConditionQuantity", "1"))
        whole = Money.rounded(amount, currency).amount
        if kind == "gross":
            net = Money.rounded(whole / (1 + self.tax), currency).amount
            return net, whole - net
        return whole, Money.rounded(whole * self.tax, currency).amount

    def _total(self, key: str) -> None:
        order = self._held("order", key)
        net = sum((Decimal(each["NetAmount"]) for each in order["items"]), Decimal(0))
        self._put_head("order", order, {"TotalNetAmount": str(net)}, stamp=False)

    def _stamp(self) -> str:
        serial = self._db.next("stamp")
        moment = self.clock().astimezone(UTC).strftime("%Y-%m-%dT%H%%3A%M%%3A%S")
        return f"{moment}.{serial % 10_000_000:07d}Z"

    def _put_head(self, table: str, document: Json, changes: Mapping[str, Json], *, stamp: bool) -> None:
        head = {**document["head"], **changes}
        if stamp and table != "delivery":
            milliseconds = (self.clock() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
            head["LastChangeDateTime"] = f"/Date({milliseconds}+0000)/"
        if stamp and table == "delivery":
            head["DeliveryVersion"] = f"{int(head['DeliveryVersion'] or 0) + 1:04d}"
        key = head[SETS[next(name for name, each in _TABLES.items() if each == table)].keys[0]]
        self._db.put(
            table, key, {**document, "head": head, "stamp": self._stamp() if stamp else document.get("stamp", "")}
        )

    # --- deliveries ----------------------------------------------------------------------------------------

    def _deliver(self, body: Json) -> TwinResponse:
        references = _list(body.get("to_DeliveryDocumentItem"))
        if not references:
            raise _Refusal(v2_error(400, "VL/001", "A delivery needs a reference"))
        key = str(self._db.next("delivery", 80_000_000))
        items: list[Json] = []
        for place, each in enumerate(references, 1):
            order = self._existing("order", str(each.get("ReferenceSDDocument", "")))
            line = next(
                (i for i in order["items"] if i["SalesOrderItem"] == number(str(each.get("ReferenceSDDocumentItem")))),
                None,
            )
            rest = Decimal(0) if line is None else Decimal(line["RequestedQuantity"]) - self._delivered(line)
            if line is None or line["SalesOrderItemCategory"] == ORDER_BILLED or rest <= 0:
                raise _Refusal(v2_error(400, "VL/367", "An exception was raised", "No delivery is due for the item"))
            items.append(
                {
                    "DeliveryDocument": key,
                    "DeliveryDocumentItem": str(place * 10),
                    "Material": line["Material"],
                    "ActualDeliveryQuantity": v2_decimal(min(rest, Decimal(each.get("ActualDeliveryQuantity", rest)))),
                    "DeliveryQuantityUnit": line["RequestedQuantityUnit"],
                    "ReferenceSDDocument": self._reference(line["SalesOrder"]),
                    "ReferenceSDDocumentItem": line["SalesOrderItem"],
                    "ReferenceSDDocumentCategory": ORDER,
                }
            )
        head = {
            "DeliveryDocument": key,
            "DeliveryDocumentType": "LF",
            "DeliveryVersion": "0000",
            "SDDocumentCategory": DELIVERY,
            "OverallPickingStatus": "A" if self.picks else "",
            "OverallGoodsMovementStatus": "A",
            "OverallDelivReltdBillgStatus": "A",
        }
        self._put_head("delivery", {"head": head, "items": items}, {}, stamp=True)
        stored = self._held("delivery", key)
        return _json(
            201, {"d": self._shown("https://sap.test", "A_OutbDeliveryHeader", {**stored["head"], "": stored}, (), ())}
        )

    def _delivered(self, line: Json) -> Decimal:
        return sum(
            (
                Decimal(each["ActualDeliveryQuantity"])
                for delivery in self._db.all("delivery")
                for each in delivery["items"]
                if number(each["ReferenceSDDocument"]) == line["SalesOrder"]
                and each["ReferenceSDDocumentItem"] == line["SalesOrderItem"]
            ),
            Decimal(0),
        )

    def _held(self, table: str, key: str) -> Json:
        """Return a document that is there; raises `KeyError`."""
        found = self._db.get(table, key)
        if found is None:
            raise KeyError(f"there is no {table} {key}")
        return found

    def _reference(self, text: str) -> str:
        return text.zfill(10) if self.padded else text

    def _move(self, request: TwinRequest, function: str) -> TwinResponse:
        if request.method != "POST":
            raise _Refusal(v2_error(405, "/IWFND/CM_BEC/026", "Method not allowed"))
        quoted = request.param("DeliveryDocument")
        if len(quoted) < 3 or quoted[0] != "'" or quoted[-1] != "'":
            raise _Refusal(v2_error(400, "/IWCOR/CX_DS_EDM_ERROR", "Parameter 'DeliveryDocument' is malformed"))
        delivery = self._existing("delivery", quoted[1:-1])
        self._unchanged(request, SETS["A_OutbDeliveryHeader"], {**delivery["head"], "": delivery})
        head, report = delivery["head"], []
        if function == "PickAllItems":
            self._put_head("delivery", delivery, {"OverallPickingStatus": "C"}, stamp=True)
        elif head["OverallPickingStatus"] not in ("", "C"):
            report = [
                {
                    "SystemMessageIdentification": "VL",
                    "SystemMessageNumber": "609",
                    "SystemMessageType": "E",
                    "SystemMessageVariable1": "not picked",
                    "SystemMessageVariable2": "",
                    "SystemMessageVariable3": "",
                    "SystemMessageVariable4": "",
                    "DeliveryDocument": head["DeliveryDocument"],
                }
            ]
        else:
            moved = {"OverallGoodsMovementStatus": "C", "ActualGoodsMovementDate": v2_date(self.clock().date())}
            self._put_head("delivery", delivery, moved, stamp=True)
        return _json(200, {"d": {"results": report}})

    # --- billing -------------------------------------------------------------------------------------------

    def _billed(self, line: Json) -> Decimal:
        return sum(
            (
                Decimal(each["BillingQuantity"])
                for document in self._db.all("document")
                if not document["head"]["BillingDocumentIsCancelled"]
                and not document["head"]["CancelledBillingDocument"]
                for each in document["items"]
                if number(each["SalesDocument"]) == line["SalesOrder"]
                and each["SalesDocumentItem"] == line["SalesOrderItem"]
            ),
            Decimal(0),
        )

    def _due_items(self, order: Json) -> list[Json]:
        """Return billing items for what of an order is due, as far as the order itself is billed."""
        return [
            self._billing_item(order, line, Decimal(line["RequestedQuantity"]) - self._billed(line), ORDER,
                               line["SalesOrder"], line["SalesOrderItem"])
            for line in order["items"]
            if line["SalesOrderItemCategory"] == ORDER_BILLED
            and not line["SalesDocumentRjcnReason"]
            and Decimal(line["RequestedQuantity"]) > self._billed(line)
        ]  # fmt: skip

    def _billing_item(
        self, order: Json, line: Json, quantity: Decimal, category: str, document: str, item: str
    ) -> Json:
        currency = order["head"]["TransactionCurrency"]

        def part(amount: str) -> str:
            whole = Decimal(line["RequestedQuantity"])
            return (
                amount if quantity == whole else str(Money.rounded(Decimal(amount) * quantity / whole, currency).amount)
            )

        return {
            "SalesDocumentItemCategory": line["SalesOrderItemCategory"],
            "Material": line["Material"],
            "BillingQuantity": v2_decimal(quantity),
            "BillingQuantityUnit": line["RequestedQuantityUnit"],
            "NetAmount": part(line["NetAmount"]),
            "TaxAmount": part(line["TaxAmount"]),
            "GrossAmount": "0.00",
            "TransactionCurrency": currency,
            "SalesDocument": self._reference(line["SalesOrder"]),
            "SalesDocumentItem": line["SalesOrderItem"],
            "ReferenceSDDocument": self._reference(document),
            "ReferenceSDDocumentItem": item,
            "ReferenceSDDocumentCategory": category,
        }

    def _bill_order(self, order: Json) -> list[str]:
        return self._documents_over(self._due_items(order))

    def _documents_over(self, items: Sequence[Json]) -> list[str]:
        groups = [[each] for each in items] if self.split else [list(items)] if items else []
        return [self._document(each) for each in groups]

    def _document(self, items: Sequence[Json]) -> str:
        key = str(self._db.next("document", 90_000_000))
        order = self._held("order", number(items[0]["SalesDocument"]))
        net, tax = (sum((Decimal(each[name]) for each in items), Decimal(0)) for name in ("NetAmount", "TaxAmount"))
        today = v2_date(self.clock().date())
        head = {
            "BillingDocument": key,
            "BillingDocumentType": "F2",
            "SDDocumentCategory": INVOICE,
            "BillingDocumentCategory": "L",
            "BillingDocumentDate": today,
            "CreationDate": today,
            "LastChangeDateTime": None,
            "BillingDocumentIsCancelled": False,
            "CancelledBillingDocument": "",
            "TotalNetAmount": str(net),
            "TaxAmount": str(tax),
            "TotalGrossAmount": str(net + tax),
            "TransactionCurrency": order["head"]["TransactionCurrency"],
            "SoldToParty": order["head"]["SoldToParty"],
            "PayerParty": order["head"]["SoldToParty"],
            "DocumentReferenceID": key.zfill(10),
            "PurchaseOrderByCustomer": "",
            "AccountingDocument": "",
            "OverallBillingStatus": "A",
            "AccountingPostingStatus": "A",
            "AccountingTransferStatus": "A",
        }
        rows = [
            {"BillingDocument": key, "BillingDocumentItem": str(10 * place), **each}
            for place, each in enumerate(items, 1)
        ]
        self._db.put("document", key, {"head": head, "items": rows, "stamp": self._stamp()})
        return key

    def _read_v4(self, request: TwinRequest, rest: str) -> TwinResponse:
        if request.method == "HEAD":
            return TwinResponse(200)
        match = re.fullmatch(r"BillingDocument\('(\d+)'\)", rest)
        found = self._db.get("document", number(match.group(1))) if match else None
        if found is None:
            raise _Refusal(v4_error(404, "/IWBEP/CM_V4_RT/020", "Resource not found"))
        return _json(200, {"@odata.context": "../$metadata#BillingDocument/$entity", **_v4(found, request)})

    def _write_v4(self, request: TwinRequest, rest: str) -> TwinResponse:
        action = rest.removeprefix("BillingDocument/").replace(f"{NAMESPACE}.", "SAP__self.")
        if action != "SAP__self.CreateFromSDDocument":
            raise _Refusal(v4_error(404, "/IWBEP/CM_V4_RT/021", f"Resource not found for segment {rest}"))
        body = _body(request, v4_error)
        references = body.get("_Reference") if isinstance(body, dict) else None
        if not isinstance(references, list) or not references:
            raise _Refusal(v4_error(400, "/IWBEP/CM_V4_RT/045", "The parameter _Reference is missing"))
        control = body.get("_Control")
        if control is not None and not isinstance(control, dict):
            raise _Refusal(v4_error(400, "/IWBEP/CM_V4_RT/045", "The parameter _Control is malformed"))
        made = [document for each in references for document in self._bill_reference(each)]
        value = [_v4(self._held("document", each), request) for each in made]
        return _json(200, {"@odata.context": "$metadata#BillingDocument", "value": value})

    def _bill_reference(self, reference: Json) -> list[str]:
        key = reference.get("SDDocument") if isinstance(reference, dict) else None
        category = reference.get("SDDocumentCategory", ORDER) if isinstance(reference, dict) else None
        if not isinstance(key, str) or not 0 < len(key) <= 10 or category not in (ORDER, DELIVERY):
            raise _Refusal(v4_error(400, "VF/016", f"The reference {key!r} of category {category!r} is not valid"))
        table = "order" if category == ORDER else "delivery"
        found = self._db.get(table, number(key))
        if found is None:
            raise _Refusal(v4_error(400, "VF/016", f"Document {key} does not exist"))
        if number(key) in self.locked:
            text = f"Sales document {key} is being processed by user {self.locked[number(key)]}"
            raise _Refusal(v4_error(400, "V1/042", text))
        if category == DELIVERY:
            if found["head"]["OverallGoodsMovementStatus"] != "C":
                raise _Refusal(v4_error(400, "VF/041", f"Delivery {key} has not been goods issued"))
            if found["head"]["OverallDelivReltdBillgStatus"] == "C":
                return []
            made = self._documents_over([self._from_delivery(each) for each in found["items"]])
            self._put_head("delivery", found, {"OverallDelivReltdBillgStatus": "C"}, stamp=True)
            return made
        block = found["head"]["HeaderBillingBlockReason"]
        if block:
            raise _Refusal(v4_error(400, "VF/017", f"Document {key} is blocked for billing", f"Block {block}"))
        return self._bill_order(found)

    def _from_delivery(self, item: Json) -> Json:
        order = self._held("order", number(item["ReferenceSDDocument"]))
        line = next(each for each in order["items"] if each["SalesOrderItem"] == item["ReferenceSDDocumentItem"])
        return self._billing_item(
            order,
            line,
            Decimal(item["ActualDeliveryQuantity"]),
            DELIVERY,
            item["DeliveryDocument"],
            item["DeliveryDocumentItem"],
        )


def _service(path: str) -> tuple[str, str]:
    for service in (ORDERS, DELIVERIES, DOCUMENTS):
        if path == service or path.startswith(f"{service}/"):
            return service, path.removeprefix(service).removeprefix("/")
    raise _Refusal(v2_error(404, "/IWFND/MED/170", "No service found for this address"))


def _body(request: TwinRequest, error: Callable[[int, str, str], TwinResponse] = v2_error) -> Json:
    try:
        return decode(request.body)
    except ValueError:
        raise _Refusal(error(400, "CX_SXML_PARSE_ERROR", "Error while parsing an XML stream")) from None


def _list(value: Json) -> list[Json]:
    found = value.get("results") if isinstance(value, dict) else value
    return list(found) if isinstance(found, list) else []


def _below(row: Json, nav: str) -> list[Json]:
    if nav in row:
        return _list(row[nav])
    held = row.get("")
    return list(held["items"]) if isinstance(held, dict) else []


def _etag(entity: EntitySet, row: Json) -> str:
    if entity.etag == "DeliveryVersion":
        return f"W/\"'{row.get('DeliveryVersion', '')}'\""
    stamp = row[""]["stamp"] if "" in row else ""
    return f"W/\"datetimeoffset'{stamp}'\""


def _check_value(name: str, field: Field, value: Json) -> None:
    wrong = ""
    if field.type == "Edm.String":
        wrong = "" if isinstance(value, str) and len(value) <= field.length else "text of that length"
    elif field.type == "Edm.Decimal":
        if not isinstance(value, str):
            raise _Refusal(v2_error(400, "CX_SXML_PARSE_ERROR/001560AA0E081DEB", "Error while parsing an XML stream."))
        wrong = "" if _fits(value, field) else "decimal"
    elif field.type == "Edm.DateTime":
        try:
            v2_moment(value if isinstance(value, str) else "")
        except ValueError:
            wrong = "date"
    if wrong:
        text = f"Property '{name}' at offset '1' has invalid value '{str(value)[:60]}'"
        raise _Refusal(v2_error(400, "/IWCOR/CX_DS_EDM_FACET_ERROR", text))


def _fits(text: str, field: Field) -> bool:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return False
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return False
    places = -int(value.normalize().as_tuple().exponent) if value else 0
    return places <= field.scale and abs(value) < Decimal(10) ** (field.length - field.scale)


_LITERAL: Final = re.compile(r"'(?:[^']|'')*'|\b(?:datetimeoffset|datetime)'([^']*)'")


def _v4_literals(text: str) -> str:
    """Write V2's ``datetime'…'`` as the bare moments the shared reader of filters knows."""

    def bare(match: re.Match[str]) -> str:
        moment = match.group(1)
        return match.group(0) if moment is None else moment.removesuffix("Z") + "Z"

    return _LITERAL.sub(bare, text)


def _view(entity: EntitySet, row: Json) -> dict[str, Any]:
    """Return a row as filters see it: dates as dates, decimals as numbers, document numbers without zeros."""
    seen: dict[str, Any] = {}
    for name, field in entity.fields.items():
        value = row.get(name)
        if value is None or (value == "" and field.type != "Edm.String"):
            seen[name] = "" if field.type == "Edm.String" else None
        elif field.type in ("Edm.DateTime", "Edm.DateTimeOffset"):
            seen[name] = _moment(value)
        elif name in _NUMBERS:
            seen[name] = number(str(value))
        else:
            seen[name] = value
    return seen


def _moment(text: str) -> datetime | None:
    try:
        return v2_moment(text)
    except ValueError:  # somebody spoiled it on purpose
        return None


def _v4(document: Json, request: TwinRequest) -> dict[str, Json]:
    """Return a document as V4 shows it: decimals are JSON numbers unless the client asks for strings."""
    head = document["head"]
    quoted = "ieee754compatible=true" in request.headers.get("accept", "").lower()
    names = {"TotalNetAmount": "TotalNetAmount", "TaxAmount": "TotalTaxAmount", "TotalGrossAmount": "TotalGrossAmount"}
    amounts = {new: head[old] if quoted else Decimal(head[old]) for old, new in names.items()}
    texts = {
        name: head[name]
        for name in ("BillingDocument", "BillingDocumentType", "SDDocumentCategory", "TransactionCurrency")
    }
    return {**texts, **amounts, "BillingDocumentDate": v2_moment(head["BillingDocumentDate"]).date().isoformat()}
