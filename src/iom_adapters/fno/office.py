"""What F&O does with sales orders once they are in: number, default, validate, pick, deliver, invoice, derive statuses.

The twin's inside, without HTTP. Documents keep F&O's own field names; names that start with ``_`` are never served.
Sources: fno.md sections 4 and 8, dualwrite.md section 6.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import attrs

from iom_adapters._clock import Clock
from iom_adapters._odata import Operand, moment, possible, timestamp
from iom_adapters._twin import Documents, Json
from iom_adapters.fno.schema import ENTITY_SETS, ENUMS, NAMESPACE, EntitySet
from iom_core.values import minor_units

Doc = dict[str, Any]

# --- master data -----------------------------------------------------------------------------------------


@attrs.frozen
class Company:
    """A legal entity. *order_format* is the number sequence of sales orders; *manual* lets callers bring numbers."""

    id: str
    name: str
    currency: str
    country: str = "US"
    order_format: str = "{:06d}"
    first_order: int = 891
    manual: bool = False


@attrs.frozen
class Site:
    """An operational site of a company."""

    company: str
    id: str
    name: str = ""


@attrs.frozen
class Warehouse:
    """A warehouse; it belongs to one site. *country* is an ISO code."""

    company: str
    id: str
    site: str
    name: str = ""
    street: str = ""
    city: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""
    latitude: Decimal = Decimal(0)
    longitude: Decimal = Decimal(0)


@attrs.frozen
class Customer:
    """A customer account. *on_hold* is a ``CustVendorBlocked`` symbol; ``All`` refuses new orders."""

    company: str
    account: str
    name: str
    currency: str = ""
    invoice_account: str = ""
    on_hold: str = "No"
    party_type: str = "Organization"
    group: str = "10"
    street: str = ""
    city: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""
    payment_terms: str = "Net30"


@attrs.frozen
class Item:
    """A released product of a company (``""``: of every company)."""

    number: str
    name: str = ""
    unit: str = "ea"
    price: Decimal = Decimal(0)
    blocked: bool = False
    weight: Decimal = Decimal(0)
    company: str = ""


def _words(text: str) -> list[str]:
    return text.split()


COUNTRIES: Final[Mapping[str, str]] = dict(
    pair.split(":")
    for pair in _words(
        "AE:ARE AR:ARG AT:AUT AU:AUS BE:BEL BG:BGR BH:BHR BR:BRA CA:CAN CH:CHE CL:CHL CN:CHN CO:COL CY:CYP CZ:CZE "
        "DE:DEU DK:DNK EE:EST EG:EGY ES:ESP FI:FIN FR:FRA GB:GBR GR:GRC HK:HKG HR:HRV HU:HUN ID:IDN IE:IRL IL:ISR "
        "IN:IND IS:ISL IT:ITA JO:JOR JP:JPN KR:KOR KW:KWT LT:LTU LU:LUX LV:LVA MT:MLT MX:MEX MY:MYS NL:NLD NO:NOR "
        "NZ:NZL OM:OMN PE:PER PH:PHL PL:POL PT:PRT RO:ROU RS:SRB SA:SAU SE:SWE SG:SGP SI:SVN SK:SVK TH:THA TN:TUN "
        "TR:TUR TW:TWN UA:UKR US:USA VN:VNM ZA:ZAF"
    )
)
"""ISO codes to F&O's own country codes, for the countries this twin has set up."""
_ISO: Final = {code: iso for iso, code in COUNTRIES.items()}

PROCESSING: Final[Mapping[tuple[str, str], str]] = {
    # (SalesStatus, DocumentStatus): SalesOrderProcessingStatus; dualwrite.md section 6
    ("Backorder", "None"): "Active",
    ("Backorder", "Confirmation"): "Confirmed",
    ("Backorder", "PickingList"): "Picked",
    ("Backorder", "PackingSlip"): "PartiallyDelivered",
    ("Delivered", "PackingSlip"): "Delivered",
    ("Backorder", "Invoice"): "PartiallyInvoiced",
    ("Delivered", "Invoice"): "PartiallyInvoiced",
    ("Invoiced", "Invoice"): "Invoiced",
}
_DOCUMENTS: Final = ("None", "Confirmation", "PickingList", "PackingSlip", "Invoice")
_HEADER_ONLY: Final = frozenset(
    _words(
        "SalesOrderStatus SalesOrderProcessingStatus OrderTotalAmount OrderTotalChargesAmount OrderTotalDiscountAmount "
        "OrderTotalTaxAmount OrderHeaderTaxAmount OrderCreationDateTime"
    )
)
_LINE_ONLY: Final = frozenset(
    _words(
        "SalesOrderLineStatus LineAmount InventoryLotId PickedQuantity TotalTaxAmount TotalChargesAmount "
        "SalesOrderProcessingStatus"
    )
)


# --- refusals --------------------------------------------------------------------------------------------


class Rejection(Exception):
    """F&O refuses a write: *items* are the infolog's lines, *kind* the entity class it names."""

    def __init__(self, kind: str, *items: str) -> None:
        self.items = items
        self.text = (
            f"Write failed for table row of type '{kind}'. Infolog: "
            + "; ".join(f"Warning: {item}" for item in items)
            + "; Error: Update has been canceled.."
        )
        super().__init__(self.text)


class Malformed(Exception):
    """A body whose names or types do not fit the entity."""


class Vetoed(Exception):
    """A listener refuses what F&O is about to commit; everything is rolled back and the caller gets this text."""


@attrs.frozen
class Change:
    """A row that a transaction created, updated or deleted, as the entity set shows it after (and before) it."""

    entity_set: str
    kind: str
    row: Mapping[str, Json]
    before: Mapping[str, Json] | None = None


# --- values ----------------------------------------------------------------------------------------------


def dec(value: Any) -> Decimal:
    """Read a stored JSON number exactly as it is written."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def num(value: Decimal) -> int | float:
    """Write a decimal as a JSON number."""
    return int(value) if value == value.to_integral_value() else float(value)


def day(value: datetime) -> str:
    """Write a pure date, the way F&O returns one: at 12:00Z."""
    return value.strftime("%Y-%m-%dT12:00:00Z")


def _clean(spec: EntitySet, values: Mapping[str, Json]) -> Doc:
    """Check names and types of a body; raises `Malformed`."""
    found: Doc = {}
    for name, value in values.items():
        if name.startswith("@"):
            continue
        if name not in spec.fields:
            raise Malformed(
                f"The property '{name}' does not exist on type '{NAMESPACE}.{spec.type}'. "
                "Make sure to only use property names that are defined by the type."
            )
        found[name] = _typed(spec, name, value)
    return found


def _typed(spec: EntitySet, name: str, value: Json) -> Json:
    code = spec.fields[name]
    wrong = Malformed(f"Cannot convert the value of '{name}' to the expected type '{spec.edm_type(name)}'.")
    if value is None:
        if not spec.nullable(name):
            raise wrong
        return "" if code == "S" else next(iter(ENUMS[code]))
    if code == "S":
        if not isinstance(value, str):
            raise wrong
        return value
    if code in ENUMS:
        if not isinstance(value, str) or value not in ENUMS[code]:
            raise wrong
        return value
    if code in ("D", "I", "L"):
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            raise wrong
        number = dec(value)
        if not number.is_finite() or abs(number) >= 10**16 or (code != "D" and number != number.to_integral_value()):
            raise wrong
        return num(number)
    try:
        read = moment(value) if isinstance(value, str) and "T" in value else None
    except ValueError:
        read = None
    if read is None:
        raise wrong
    return day(read) if code == "A" else timestamp(read)


class Office:
    """The books of all companies. Every method changes them within the caller's transaction (`begin` … `commit`)."""

    def __init__(
        self,
        documents: Documents,
        clock: Clock,
        companies: Sequence[Company],
        sites: Sequence[Site],
        warehouses: Sequence[Warehouse],
        customers: Sequence[Customer],
        items: Sequence[Item],
        no_date: str,
        newer_statuses: bool,
    ) -> None:
        self.documents = documents
        self.clock = clock
        self.no_date = no_date
        self.newer_statuses = newer_statuses
        self.companies = {each.id.lower(): each for each in companies}
        self.sites = {(each.company.lower(), each.id): each for each in sites}
        self.warehouses = {(each.company.lower(), each.id): each for each in warehouses}
        self.customers = {(each.company.lower(), each.account): each for each in customers}
        self.items: dict[tuple[str, str], Item] = {}
        for item in items:
            for area in (item.company.lower(),) if item.company else tuple(self.companies):
                self.items[area, item.number] = item
        self.events: list[Doc] = []
        self._before: dict[tuple[str, str], Json | None] = {}
        self._empty = {
            name: {field: spec.empty(field, no_date) for field in spec.fields} for name, spec in ENTITY_SETS.items()
        }
        self.open: set[str] = set()
        """The keys of orders that are neither invoiced nor canceled."""
        self._by_reference: dict[str, set[str]] = defaultdict(set)
        self._by_number: dict[str, set[str]] = defaultdict(set)
        self._index()

    # transactions

    def _index(self) -> None:
        self._by_reference.clear()
        self._by_number.clear()
        self.open.clear()
        for key in self.documents.keys("order"):
            order = self.documents.get("order", key)
            if order is not None:
                self._by_reference[str(order.get("CustomersOrderReference", "")).lower()].add(key)
                self._by_number[str(order["SalesOrderNumber"]).lower()].add(key)
                self._note_open(key, order)

    def _note_open(self, key: str, order: Doc) -> None:
        (self.open.discard if order["SalesOrderStatus"] in ("Invoiced", "Canceled") else self.open.add)(key)

    def put(self, table: str, key: str, doc: Doc) -> Doc:
        """Store a document and give it a new version."""
        before = self.documents.get(table, key)
        self._before.setdefault((table, key), before)
        doc = {**doc, "_version": (before or {}).get("_version", 0) + 1}
        self.documents.put(table, key, doc)
        if table == "order":
            if before is not None:
                self._by_reference[str(before.get("CustomersOrderReference", "")).lower()].discard(key)
            self._by_reference[str(doc.get("CustomersOrderReference", "")).lower()].add(key)
            self._by_number[str(doc["SalesOrderNumber"]).lower()].add(key)
            self._note_open(key, doc)
        return doc

    def remove(self, table: str, key: str) -> None:
        """Delete a document."""
        self._before.setdefault((table, key), self.documents.get(table, key))
        self.documents.delete(table, key)
        if table == "order":
            self._index()

    def next(self, sequence: str, start: int = 1) -> int:
        """Return the next number of a sequence; a rollback gives it back."""
        self._before.setdefault(("sequence", sequence), self.documents.get("sequence", sequence))
        return self.documents.next(sequence, start)

    def changes(self) -> tuple[Change, ...]:
        """Return what the open transaction has done to orders and invoices, headers first."""
        found: list[Change] = []
        for table in ("order", "line", "invoice"):
            for (name, key), before in self._before.items():
                if name == table:
                    found.extend(self._change(table, before, self.documents.get(table, key)))
        return tuple(found)

    def _change(self, table: str, before: Doc | None, after: Doc | None) -> Iterator[Change]:
        if before == after or (before is None and after is None):
            return
        kind = "create" if before is None else "delete" if after is None else "update"
        doc = after if after is not None else before or {}
        if table == "invoice":
            yield Change("SalesInvoiceHeadersV2", kind, self.row("SalesInvoiceHeadersV2", doc))
            for line in doc["_lines"]:
                yield Change("SalesInvoiceV2Lines", kind, self.row("SalesInvoiceV2Lines", {**doc, **line}))
            return
        name = "CDSSalesOrderHeaders" if table == "order" else "CDSSalesOrderLinesV2"
        past = None if before is None else self.row(name, before if table == "order" else self.cds_line(before))
        yield Change(name, kind, self.row(name, doc if table == "order" else self.cds_line(doc)), past)

    def commit(self) -> list[Doc]:
        """End the transaction and return the business events it gives rise to."""
        self.documents.commit()
        self._before.clear()
        events, self.events = self.events, []
        return events

    def rollback(self) -> None:
        """Undo the transaction."""
        for (table, key), before in self._before.items():
            if before is None:
                self.documents.delete(table, key)
            else:
                self.documents.put(table, key, before)
        if self._before:
            self.documents.commit()
            self._index()
        self._before.clear()
        self.events.clear()

    # looking things up

    def order(self, number: str, company: str = "") -> tuple[str, Doc]:
        """Return the key and document of an order; raises `ValueError` when there is none or several."""
        keys = [
            key
            for key in self._by_number.get(number.lower(), ())
            if not company or key.startswith(company.lower() + "/")
        ]
        if len(keys) != 1:
            raise ValueError(f"{len(keys)} orders have the number {number!r}; name the company")
        order = self.documents.get("order", keys[0])
        assert order is not None  # noqa: S101 - the index holds stored keys only
        return keys[0], dict(order)

    def lines(self, order: Doc) -> list[Doc]:
        """Return the lines of an order, in the order they were created."""
        area = order["dataAreaId"]
        found = (self.documents.get("line", f"{area}/{lot}") for lot in order["_lots"])
        return [dict(line) for line in found if line is not None]

    def row(self, name: str, doc: Doc) -> Doc:
        """Show a document as a row of an entity set, empty fields filled in."""
        fields = ENTITY_SETS[name].fields
        tag = f"'{doc.get('_version', 1)},{doc.get('_id', 0)}'"
        return {
            "@odata.etag": f'W/"{base64.b64encode(tag.encode()).decode()}"',
            **self._empty[name],
            **{field: value for field, value in doc.items() if field in fields},
        }

    def part(self, name: str, doc: Doc, fields: Iterable[str]) -> Doc:
        """Show only some fields of a document, as `row` would."""
        empty = self._empty[name]
        return {field: doc.get(field, empty[field]) for field in fields}

    def rows(self, name: str, where: Operand | None = None) -> Iterator[Doc]:
        """Yield the rows of an entity set, in no promised order; *where* only narrows down what is looked at."""
        for doc in self.docs(name, where):
            yield self.row(name, doc)

    def _orders(self, where: Operand | None, field: str = "SalesOrderNumber") -> Iterator[Doc]:
        numbers = possible(where, field)
        references = possible(where, "CustomersOrderReference") if field == "SalesOrderNumber" else None
        if numbers is not None:
            keys: Iterable[str] = {key for number in numbers for key in self._by_number.get(number, ())}
        elif references is not None:
            keys = {key for reference in references for key in self._by_reference.get(reference, ())}
        else:
            keys = self.documents.keys("order")
        for key in keys:
            order = self.documents.get("order", key)
            if order is not None:
                yield order

    def _of_orders(self, table: str, where: Operand | None, field: str) -> Iterator[Doc]:
        """Yield documents that belong to orders, by the orders *where* names in *field* if it does."""
        if possible(where, field) is None:
            yield from self.documents.all(table)
            return
        for order in self._orders(where, field):
            for key in order["_" + table]:
                found = self.documents.get(table, f"{order['dataAreaId']}/{key}")
                if found is not None:
                    yield found

    def docs(self, name: str, where: Operand | None) -> Iterator[Doc]:
        """Yield the documents behind an entity set; *where* only narrows down what is looked at."""
        match name:
            case "SalesOrderHeadersV2" | "CDSSalesOrderHeaders":
                yield from self._orders(where)
            case "SalesOrderLines" | "CDSSalesOrderLinesV2":
                if possible(where, "SalesOrderNumber") is None:
                    found: Iterable[Doc] = self.documents.all("line")
                else:
                    found = (line for order in self._orders(where) for line in self.lines(order))
                for line in found:
                    yield line if name == "SalesOrderLines" else self.cds_line(line)
            case "WMSPickingRouteBiEntities":
                yield from self._of_orders("route", where, "transRefId")
            case "CustPackingSlipJourBiEntities":
                yield from self._of_orders("slip", where, "SalesId")
            case "CustPackingSlipTransBiEntities":
                for slip in self._of_orders("slip", where, "SalesId"):
                    yield from ({**slip, **line} for line in slip["_lines"])
            case "PackingSlipTrackingInformation":
                for slip in self._of_orders("slip", where, "SalesOrderNumber"):
                    yield from ({**slip, **each} for each in slip["_tracking"])
            case "SalesInvoiceHeadersV2":
                yield from self._of_orders("invoice", where, "SalesOrderNumber")
            case "SalesInvoiceV2Lines":
                for invoice in self._invoices(where):
                    yield from ({**invoice, **line} for line in invoice["_lines"])
            case _:
                yield from self._masters(name)

    def _invoices(self, where: Operand | None) -> Iterator[Doc]:
        numbers = possible(where, "InvoiceNumber")
        if numbers is None:
            yield from self.documents.all("invoice")
            return
        for area in self.companies:
            for number in numbers:
                invoice = self.documents.get("invoice", f"{area}/{number.upper()}")
                if invoice is not None:
                    yield invoice

    def cds_line(self, line: Doc) -> Doc:
        """Show a line the way the dual-write entity does."""
        order = self.documents.get("order", f"{line['dataAreaId']}/{line['SalesOrderNumber']}") or {}
        item = self.items.get((line["dataAreaId"], line["ItemNumber"]))
        discount = dec(line["OrderedSalesQuantity"]) * dec(line["SalesPrice"]) - dec(line["LineAmount"])
        return {
            **line,
            "ProductNumber": line["ItemNumber"],
            "ProductName": item.name if item else "",
            "PickedQuantity": line["_picked"],
            "SalesOrderNumberHeader": line["SalesOrderNumber"],
            "SalesOrderProcessingStatus": order.get("SalesOrderProcessingStatus", "Active"),
            "FormattedDeliveryAddress": line.get("FormattedDelveryAddress", ""),
            "TotalDiscountAmount": num(max(discount + dec(line.get("FixedPriceCharges", 0)), Decimal(0))),
            "TotalChargesAmount": line.get("FixedPriceCharges", 0),
        }

    def _masters(self, name: str) -> Iterator[Doc]:
        match name:
            case "LegalEntities":
                for company in self.companies.values():
                    yield {
                        "LegalEntityId": company.id,
                        "Name": company.name,
                        "NameAlias": company.name,
                        "AddressCountryRegionId": COUNTRIES.get(company.country, ""),
                        "AddressCountryRegionISOCode": company.country,
                        "LanguageId": "en-us",
                    }
            case "OperationalSitesV2" | "OperationalSites":
                for (area, number), site in self.sites.items():
                    yield {"dataAreaId": area, "SiteId": number, "SiteName": site.name}
            case "Warehouses":
                for (area, number), place in self.warehouses.items():
                    yield {
                        "dataAreaId": area,
                        "WarehouseId": number,
                        "WarehouseName": place.name or f"Warehouse {number}",
                        "OperationalSiteId": place.site,
                        "PrimaryAddressStreet": place.street,
                        "PrimaryAddressCity": place.city,
                        "PrimaryAddressStateId": place.state,
                        "PrimaryAddressZipCode": place.postal_code,
                        "PrimaryAddressCountryRegionId": COUNTRIES.get(place.country, ""),
                        "PrimaryAddressLatitude": num(place.latitude),
                        "PrimaryAddressLongitude": num(place.longitude),
                    }
            case "ReleasedProductsV2" | "CDSReleasedDistinctProducts":
                for (area, number), item in self.items.items():
                    yield {
                        "dataAreaId": area,
                        "ItemNumber": number,
                        "ProductNumber": number,
                        "SearchName": item.name,
                        "ProductSearchName": item.name,
                        "ProductName": item.name,
                        "ProductDescription": item.name,
                        "SalesUnitSymbol": item.unit,
                        "InventoryUnitSymbol": item.unit,
                        "PurchaseUnitSymbol": item.unit,
                        "SalesPrice": num(item.price),
                        "NetProductWeight": num(item.weight),
                        "CurrencyCode": self.companies[area].currency,
                    }
            case "CustomersV3":
                for (area, account), customer in self.customers.items():
                    yield {
                        "dataAreaId": area,
                        "CustomerAccount": account,
                        "OrganizationName": customer.name if customer.party_type == "Organization" else "",
                        "NameAlias": customer.name,
                        "PartyType": customer.party_type,
                        "PartyNumber": f"P-{account}",
                        "SalesCurrencyCode": customer.currency or self.companies[area].currency,
                        "InvoiceAccount": customer.invoice_account,
                        "OnHoldStatus": customer.on_hold,
                        "CustomerGroupId": customer.group,
                        "AddressStreet": customer.street,
                        "AddressCity": customer.city,
                        "AddressState": customer.state,
                        "AddressZipCode": customer.postal_code,
                        "AddressCountryRegionId": COUNTRIES.get(customer.country, ""),
                        "AddressCountryRegionISOCode": customer.country,
                        "PaymentTerms": customer.payment_terms,
                    }

    # writing headers

    def create_header(
        self, name: str, values: Mapping[str, Json], default_company: str, own_number: bool = False
    ) -> Doc:
        """Create an order header: set what was sent, fill in the rest, validate; raises `Rejection`, `Malformed`."""
        kind = ENTITY_SETS[name].type + "Entity"
        given = _clean(ENTITY_SETS[name], values)
        area = str(given.get("dataAreaId") or default_company).lower()
        company = self.companies.get(area)
        if company is None:
            raise Rejection(kind, f"Company '{area}' does not exist.")
        self._read_only(kind, given, _HEADER_ONLY)
        number = str(given.get("SalesOrderNumber") or "")
        if number and not (company.manual or own_number):
            raise Rejection(kind, f"Number sequence of company {area} does not allow manual numbers for 'Sales order'.")
        if number and self.documents.get("order", f"{area}/{number}") is not None:
            raise Rejection(kind, f"Sales order {number} already exists.")
        number = number or company.order_format.format(self.next(f"order/{area}", company.first_order))
        order = self._default_header(given, area, number)
        self._check_header(kind, order)
        return self.put("order", f"{area}/{number}", order)

    def update_header(self, name: str, order: Doc, values: Mapping[str, Json]) -> Doc:
        """Change fields of a header; raises `Rejection` for a closed order."""
        spec = ENTITY_SETS[name]
        kind = spec.type + "Entity"
        given = _clean(spec, values)
        self._read_only(kind, given, _HEADER_ONLY, order)
        if order["SalesOrderStatus"] in ("Invoiced", "Canceled"):
            raise Rejection(kind, f"Sales order {order['SalesOrderNumber']} is not open and can't be changed.")
        keys = {key: order[key] for key in spec.keys}
        order = {**order, **given, **keys}
        self._country(kind, order)
        self._check_header(kind, order)
        return self.put("order", f"{order['dataAreaId']}/{order['SalesOrderNumber']}", order)

    def _read_only(self, kind: str, given: Doc, names: Iterable[str], now: Doc | None = None) -> None:
        for name in names:
            if name in given and (now is None or given[name] != now.get(name)):
                raise Rejection(kind, f"Field '{name}' does not allow editing.")

    def _default_header(self, given: Doc, area: str, number: str) -> Doc:
        now = self.clock()
        customer = self.customers.get((area, str(given.get("OrderingCustomerAccountNumber", ""))))
        order: Doc = {
            "OrderCreationDateTime": timestamp(now.replace(microsecond=0)),
            "RequestedShippingDate": day(now),
            "RequestedReceiptDate": given.get("RequestedShippingDate", day(now)),
            "SalesOrderStatus": "Backorder",
            "SalesOrderProcessingStatus": "Active",
            "LanguageId": "en-us",
            "_id": 22565421000 + self.next("recid"),
            "_document": "None",
            "_lots": [],
            "_route": [],
            "_slip": [],
            "_invoice": [],
        }
        if customer is not None:
            order |= {
                "CurrencyCode": customer.currency or self.companies[area].currency,
                "InvoiceCustomerAccountNumber": customer.invoice_account or customer.account,
                "SalesOrderName": customer.name,
                "PaymentTermsName": customer.payment_terms,
                "InvoiceAddressStreet": customer.street,
                "InvoiceAddressCity": customer.city,
                "InvoiceAddressStateId": customer.state,
                "InvoiceAddressZipCode": customer.postal_code,
                "InvoiceAddressCountryRegionISOCode": customer.country,
                "InvoiceAddressCountryRegionId": COUNTRIES.get(customer.country, ""),
            }
            if given.get("IsDeliveryAddressOrderSpecific", "No") == "No":
                order |= {
                    "DeliveryAddressName": customer.name,
                    "DeliveryAddressStreet": customer.street,
                    "DeliveryAddressCity": customer.city,
                    "DeliveryAddressStateId": customer.state,
                    "DeliveryAddressZipCode": customer.postal_code,
                    "DeliveryAddressCountryRegionISOCode": customer.country,
                    "DeliveryAddressCountryRegionId": COUNTRIES.get(customer.country, ""),
                }
        order |= {name: value for name, value in given.items() if value != "" or name not in order}
        order |= {"dataAreaId": area, "SalesOrderNumber": number}
        warehouse = self.warehouses.get((area, str(order.get("DefaultShippingWarehouseId", ""))))
        if warehouse is not None and not order.get("DefaultShippingSiteId"):
            order["DefaultShippingSiteId"] = warehouse.site
        self._country("SalesOrderHeaderV2Entity", order)
        return order

    def _country(self, kind: str, doc: Doc) -> None:
        """Fill in the other one of F&O's country code and the ISO code; raises `Rejection` for an unknown one."""
        iso, code = doc.get("DeliveryAddressCountryRegionISOCode", ""), doc.get("DeliveryAddressCountryRegionId", "")
        if code and code not in _ISO:
            raise Rejection(kind, f"The value '{code}' in field 'Country/region' is not found in the related table.")
        if iso and iso not in COUNTRIES:
            raise Rejection(kind, f"The value '{iso}' in field 'ISO code' is not found in the related table.")
        if iso or code:
            doc["DeliveryAddressCountryRegionId"] = COUNTRIES[iso] if iso else code
            doc["DeliveryAddressCountryRegionISOCode"] = iso or _ISO[code]
        street = " ".join(filter(None, (doc.get("DeliveryAddressStreetNumber"), doc.get("DeliveryAddressStreet"))))
        town = " ".join(filter(None, (doc.get("DeliveryAddressCity"), doc.get("DeliveryAddressZipCode"))))
        doc["FormattedDelveryAddress"] = "\n".join(
            filter(None, (street, town, doc.get("DeliveryAddressCountryRegionId")))
        )

    def _check_header(self, kind: str, order: Doc) -> None:
        area = order["dataAreaId"]
        account = order.get("OrderingCustomerAccountNumber", "")
        if not account:
            raise Rejection(kind, "Field 'Customer account' must be filled in.")
        for field, label in (
            ("OrderingCustomerAccountNumber", "Customer account"),
            ("InvoiceCustomerAccountNumber", "Invoice account"),
        ):
            customer = self.customers.get((area, order.get(field, "")))
            if customer is None:
                raise Rejection(
                    kind,
                    f"The value '{order.get(field, '')}' in field '{label}' is not found in the related table "
                    "'Customers'.",
                    "validateField failed on data source 'SalesTable (SalesTable)'.",
                )
            if customer.on_hold in ("All", "Invoice") and order.get("_version") is None:
                raise Rejection(kind, f"Customer {customer.account} is on hold ({customer.on_hold}).")
        try:
            minor_units(order["CurrencyCode"])
        except ValueError:
            raise Rejection(
                kind,
                f"The value '{order['CurrencyCode']}' in field 'Currency' is not found in the related table "
                "'Currency'.",
            ) from None
        if len(order["SalesOrderNumber"]) > 20:
            raise Rejection(kind, "The value of field 'Sales order' is longer than 20 characters.")
        self._place(kind, area, order.get("DefaultShippingSiteId", ""), order.get("DefaultShippingWarehouseId", ""))

    def _place(self, kind: str, area: str, site: str, warehouse: str) -> None:
        if site and (area, site) not in self.sites:
            raise Rejection(kind, f"The value '{site}' in field 'Site' is not found in the related table 'Sites'.")
        place = self.warehouses.get((area, warehouse))
        if warehouse and place is None:
            raise Rejection(
                kind, f"The value '{warehouse}' in field 'Warehouse' is not found in the related table 'Warehouses'."
            )
        if place is not None and site and place.site != site:
            raise Rejection(kind, f"Warehouse {warehouse} does not belong to site {site}.")

    # writing lines

    def create_line(self, name: str, values: Mapping[str, Json], default_company: str) -> Doc:
        """Create an order line; raises `Rejection`, `Malformed`."""
        spec = ENTITY_SETS[name]
        kind = "SalesOrderLineV2Entity" if name == "SalesOrderLines" else spec.type + "Entity"
        given = _clean(spec, values)
        self._read_only(kind, given, _LINE_ONLY)
        area = str(given.get("dataAreaId") or default_company).lower()
        order = self.documents.get("order", f"{area}/{given.get('SalesOrderNumber', '')}")
        if order is None:
            raise Rejection(
                kind,
                f"The value '{given.get('SalesOrderNumber', '')}' in field 'Sales order' is not found in the related "
                "table 'Sales orders'.",
            )
        if order["SalesOrderStatus"] == "Canceled":
            raise Rejection(kind, f"Sales order {order['SalesOrderNumber']} is not open and can't be changed.")
        line = self._default_line(given, order)
        self._check_line(kind, line)
        self._amount(line)
        line = self.put("line", f"{area}/{line['InventoryLotId']}", line)
        self._settle({**order, "_lots": [*order["_lots"], line["InventoryLotId"]]})
        return line

    def _default_line(self, given: Doc, order: Doc) -> Doc:
        area = order["dataAreaId"]
        if "ProductNumber" in given:
            given = {**given, "ItemNumber": given["ProductNumber"]}
        item = self.items.get((area, given.get("ItemNumber", "")))
        taken = [line["LineCreationSequenceNumber"] for line in self.lines(order)]
        sequence = given.get("LineCreationSequenceNumber") or max(taken, default=0) + 1
        copied = [
            name for name in order if name.startswith(("DeliveryAddress", "Requested")) or name == "DeliveryModeCode"
        ]
        line: Doc = {
            **{name: order[name] for name in copied},
            "OrderedSalesQuantity": 1,
            "SalesPrice": num(item.price) if item else 0,
            "SalesPriceQuantity": 1,
            "SalesUnitSymbol": item.unit if item else "",
            "LineDescription": item.name if item else "",
            "CurrencyCode": order["CurrencyCode"],
            "CalculateLineAmount": "Yes",
            "DeliveryTermsId": order.get("DeliveryTermsCode", ""),
            "_id": 35637144576 + self.next("recid"),
            "_picked": 0,
            "_delivered": 0,
            "_invoiced": 0,
            "_canceled": 0,
            "_billed": 0,
        }
        line |= {name: value for name, value in given.items() if value != "" or name not in line}
        line |= {
            "dataAreaId": area,
            "SalesOrderNumber": order["SalesOrderNumber"],
            "InventoryLotId": f"{self.next(f'lot/{area}', 12001):06d}",
            "LineCreationSequenceNumber": sequence,
            "LineNumber": sequence,
            "SalesOrderLineStatus": "Backorder",
        }
        self._country("SalesOrderLineV2Entity", line)
        warehouse = self.warehouses.get((area, line.get("ShippingWarehouseId", "")))
        if not line.get("ShippingSiteId"):
            line["ShippingSiteId"] = warehouse.site if warehouse else order.get("DefaultShippingSiteId", "")
        default = self.warehouses.get((area, order.get("DefaultShippingWarehouseId", "")))
        if not line.get("ShippingWarehouseId") and default is not None and default.site == line["ShippingSiteId"]:
            line["ShippingWarehouseId"] = default.id
        if sequence in taken:
            raise Rejection("SalesOrderLineV2Entity", f"Line {sequence} of {order['SalesOrderNumber']} already exists.")
        return line

    def _check_line(self, kind: str, line: Doc) -> None:
        area = line["dataAreaId"]
        item = self.items.get((area, line.get("ItemNumber", "")))
        if item is None:
            raise Rejection(
                kind,
                f"The value '{line.get('ItemNumber', '')}' in field 'Item number' is not found in the related table "
                "'Released products'.",
            )
        if item.blocked:
            raise Rejection(
                kind,
                f"Item '{item.number}' is blocked for 'Sales order'.",
                "validateWrite failed on data source 'SalesLine (SalesLine)'.",
            )
        self._place(kind, area, line["ShippingSiteId"], line.get("ShippingWarehouseId", ""))
        if not line["ShippingSiteId"]:
            raise Rejection(kind, "Inventory dimension Site is mandatory and must consequently be specified.")
        if dec(line["OrderedSalesQuantity"]) <= 0:
            raise Rejection(kind, "Field 'Quantity' must be greater than zero.")
        if dec(line["SalesPriceQuantity"]) <= 0:
            raise Rejection(kind, "Field 'Price unit' must be greater than zero.")

    def update_line(self, name: str, line: Doc, values: Mapping[str, Json]) -> Doc:
        """Change fields of a line; raises `Rejection`."""
        spec = ENTITY_SETS[name]
        kind = "SalesOrderLineV2Entity" if name == "SalesOrderLines" else spec.type + "Entity"
        given = _clean(spec, values)
        if "ProductNumber" in given:
            given["ItemNumber"] = given.pop("ProductNumber")
        keys = ("dataAreaId", "InventoryLotId", "SalesOrderNumber", "LineCreationSequenceNumber")
        self._read_only(kind, given, _LINE_ONLY - {"InventoryLotId"}, self.cds_line(line))
        if line["SalesOrderLineStatus"] in ("Invoiced", "Canceled"):
            raise Rejection(kind, f"Line {line['LineNumber']} is not open and can't be changed.")
        line = {**line, **given, **{key: line[key] for key in keys}}
        if dec(line["OrderedSalesQuantity"]) - dec(line["_canceled"]) < max(
            dec(line["_delivered"]), dec(line["_invoiced"])
        ):
            raise Rejection(kind, "The quantity can't be less than what has been delivered.")
        self._country(kind, line)
        self._check_line(kind, line)
        self._amount(line)
        self.put("line", f"{line['dataAreaId']}/{line['InventoryLotId']}", line)
        self._settle(self.order(line["SalesOrderNumber"], line["dataAreaId"])[1])
        return line

    def delete_line(self, line: Doc) -> None:
        """Delete a line; raises `Rejection` when something was delivered."""
        if dec(line["_delivered"]) or dec(line["_invoiced"]):
            raise Rejection("SalesOrderLineV2Entity", "A line with deliveries can't be deleted.")
        self.remove("line", f"{line['dataAreaId']}/{line['InventoryLotId']}")
        _, order = self.order(line["SalesOrderNumber"], line["dataAreaId"])
        self._settle({**order, "_lots": [lot for lot in order["_lots"] if lot != line["InventoryLotId"]]})

    def delete_header(self, order: Doc) -> None:
        """Delete an order with its lines; raises `Rejection` when a document was posted."""
        if order["_slip"] or order["_invoice"]:
            raise Rejection("SalesOrderHeaderV2Entity", "An order with posted documents can't be deleted.")
        for line in self.lines(order):
            self.remove("line", f"{line['dataAreaId']}/{line['InventoryLotId']}")
        self.remove("order", f"{order['dataAreaId']}/{order['SalesOrderNumber']}")

    def _amount(self, line: Doc) -> None:
        """Quantity × (price − discount) / price unit × (1 − percentages) + charges, rounded to the currency."""
        each = (dec(line["SalesPrice"]) - dec(line.get("LineDiscountAmount", 0))) / dec(line["SalesPriceQuantity"])
        for name in ("LineDiscountPercentage", "MultilineDiscountPercentage"):
            each *= 1 - dec(line.get(name, 0)) / 100
        whole = dec(line["OrderedSalesQuantity"]) * (each - dec(line.get("MultilineDiscountAmount", 0)))
        unit = Decimal(1).scaleb(-minor_units(line["CurrencyCode"]))
        line["LineAmount"] = num((whole + dec(line.get("FixedPriceCharges", 0))).quantize(unit, ROUND_HALF_UP))

    # statuses

    def _settle(self, order: Doc, document: str = "") -> Doc:
        """Derive line and header statuses from what was delivered and invoiced, and store them."""
        if document and _DOCUMENTS.index(document) > _DOCUMENTS.index(order["_document"]):
            order = {**order, "_document": document}
        statuses = []
        total = charges = Decimal(0)
        for line in self.lines(order):
            status = _line_status(line)
            if status != line["SalesOrderLineStatus"]:
                line = self.put(
                    "line", f"{line['dataAreaId']}/{line['InventoryLotId']}", {**line, "SalesOrderLineStatus": status}
                )
            statuses.append(status)
            if status != "Canceled":
                total += dec(line["LineAmount"])
                charges += dec(line.get("FixedPriceCharges", 0))
        live = [status for status in statuses if status != "Canceled"]
        if statuses and not live:
            status = "Canceled"
        elif not live or "Backorder" in live:
            status = "Backorder"
        else:
            status = "Delivered" if "Delivered" in live else "Invoiced"
        pair = (status, order["_document"])
        progress = "Canceled" if status == "Canceled" else PROCESSING[pair]
        if pair == ("Delivered", "Invoice") and self.newer_statuses:
            progress = "DeliveredPartiallyInvoiced"
        settled = {
            **order,
            "SalesOrderStatus": status,
            "SalesOrderProcessingStatus": progress,
            "OrderTotalAmount": num(total),
            "OrderTotalChargesAmount": num(charges),
        }
        return self.put("order", f"{order['dataAreaId']}/{order['SalesOrderNumber']}", settled)

    # posting documents

    def _wanted(self, order: Doc, lines: Mapping[str, Any] | None, left: Mapping[str, Decimal]) -> dict[str, Decimal]:
        """Return quantities per lot: those asked for (by lot id, line number or our marker), or all that is left."""
        if lines is None:
            return {lot: quantity for lot, quantity in left.items() if quantity > 0}
        names = {
            str(name): line["InventoryLotId"]
            for line in self.lines(order)
            for name in (line.get("ExternalItemNumber"), line["LineNumber"], line["InventoryLotId"])
            if name
        }
        wanted: dict[str, Decimal] = {}
        for name, quantity in lines.items():
            lot = names.get(str(name))
            if lot is None:
                raise ValueError(f"order {order['SalesOrderNumber']} has no line {name!r}")
            if dec(quantity) <= 0 or dec(quantity) > left[lot]:
                raise ValueError(f"line {name}: {quantity} is not within what is left, {left[lot]}")
            wanted[lot] = dec(quantity)
        return wanted

    def _left(self, order: Doc, done: str) -> dict[str, Decimal]:
        return {
            line["InventoryLotId"]: dec(line["OrderedSalesQuantity"]) - dec(line["_canceled"]) - dec(line[done])
            for line in self.lines(order)
        }

    def _open(self, number: str, company: str) -> Doc:
        _, order = self.order(number, company)
        if order["SalesOrderStatus"] == "Canceled":
            raise ValueError(f"order {number} is canceled")
        return order

    def _add(self, order: Doc, field: str, wanted: Mapping[str, Decimal]) -> None:
        for lot, quantity in wanted.items():
            key = f"{order['dataAreaId']}/{lot}"
            line = dict(self.documents.get("line", key) or {})
            self.put("line", key, {**line, field: num(dec(line[field]) + quantity)})

    def confirm(self, number: str, company: str) -> None:
        """Post the confirmation."""
        order = self._open(number, company)
        self._settle({**order, "ConfirmedShippingDate": order["RequestedShippingDate"]}, "Confirmation")

    def pick(self, number: str, lines: Mapping[str, Any] | None, status: str, company: str) -> str:
        """Post a picking list and register the picking; returns the route's id."""
        order = self._open(number, company)
        wanted = self._wanted(order, lines, self._left(order, "_picked"))
        if not wanted:
            raise ValueError(f"order {number} has nothing left to pick")
        done = status in ("Picked", "Staged", "Loaded", "Complete")
        if done:
            self._add(order, "_picked", wanted)
        area, now = order["dataAreaId"], timestamp(self.clock().replace(microsecond=0))
        route = f"{self.next(f'route/{area}', 1):06d}"
        first = dict(self.documents.get("line", f"{area}/{next(iter(wanted))}") or {})
        self.put(
            "route",
            f"{area}/{route}",
            {
                "dataAreaId": area,
                "pickingRouteID": route,
                "shipmentId": f"SHP{route}",
                "transRefId": order["SalesOrderNumber"],
                "transType": "Sales",
                "expeditionStatus": status,
                "customer": order["OrderingCustomerAccountNumber"],
                "DeliveryName": order.get("DeliveryAddressName", ""),
                "DlvDate": order["RequestedShippingDate"],
                "DlvModeId": order.get("DeliveryModeCode", ""),
                "inventLocationId": first.get("ShippingWarehouseId", ""),
                "startDateTime": now,
                "endDateTime": now if done else self.no_date,
                "CreatedOn": now,
                "SysModifiedDateTime": now,
                "ActivationDateTime": now,
                "SourceKey": 5637144576 + self.next("recid"),
            },
        )
        self._settle({**order, "_route": [*order["_route"], route]}, "PickingList")
        return route

    def pack(
        self,
        number: str,
        lines: Mapping[str, Any] | None,
        tracking: Sequence[tuple[str, str]],
        carrier: str,
        company: str,
    ) -> str:
        """Post a packing slip over what was picked (nothing picked: all that is left); returns its id."""
        order = self._open(number, company)
        left = self._left(order, "_delivered")
        picked = {line["InventoryLotId"]: dec(line["_picked"]) - dec(line["_delivered"]) for line in self.lines(order)}
        ready = {lot: min(left[lot], picked[lot]) for lot in left if picked[lot] > 0}
        wanted = self._wanted(order, lines, left if lines is not None or not ready else ready)
        if not wanted:
            raise ValueError(f"order {number} has nothing left to deliver")
        area, now = order["dataAreaId"], self.clock()
        slip = f"PS-{self.next(f'slip/{area}', 1):06d}"
        self._add(order, "_delivered", wanted)
        docs = {line["InventoryLotId"]: line for line in self.lines(order)}
        for lot, line in docs.items():  # what leaves has been picked
            if lot in wanted and dec(line["_picked"]) < dec(line["_delivered"]):
                docs[lot] = self.put("line", f"{area}/{lot}", {**line, "_picked": line["_delivered"]})
        first = docs[next(iter(wanted))]
        self.put(
            "slip",
            f"{area}/{slip}",
            {
                "dataAreaId": area,
                "SourceDocumentHeader": 68719477000 + self.next("recid"),
                "PackingSlipId": slip,
                "PackingSlipNumber": slip,
                "InternalPackingSlipId": slip,
                "SalesId": order["SalesOrderNumber"],
                "SalesOrderNumber": order["SalesOrderNumber"],
                "OrigSalesId": order["SalesOrderNumber"],
                "SalesType": "Sales",
                "CustomerRef": order.get("CustomersOrderReference", ""),
                "OrderAccount": order["OrderingCustomerAccountNumber"],
                "InvoiceAccount": order["InvoiceCustomerAccountNumber"],
                "DeliveryDate": day(now),
                "DocumentDate": day(now),
                "CreatedOn": timestamp(now.replace(microsecond=0)),
                "DeliveryName": order.get("DeliveryAddressName", ""),
                "DlvMode": order.get("DeliveryModeCode", ""),
                "DlvTerm": order.get("DeliveryTermsCode", ""),
                "ShipCarrierId": carrier,
                "LedgerVoucher": f"PSV-{slip[3:]}",
                "inventLocationId": first.get("ShippingWarehouseId", ""),
                "CurrencyCode": order["CurrencyCode"],
                "Qty": num(sum(wanted.values(), Decimal(0))),
                "_lines": [
                    self._slip_line(docs[lot], quantity, index)
                    for index, (lot, quantity) in enumerate(wanted.items(), 1)
                ],
                "_tracking": [{"TrackingNumber": code, "TrackingURL": url} for code, url in tracking],
            },
        )
        self._settle({**order, "_slip": [*order["_slip"], slip]}, "PackingSlip")
        return slip

    def _slip_line(self, line: Doc, quantity: Decimal, index: int) -> Doc:
        rest = dec(line["OrderedSalesQuantity"]) - dec(line["_canceled"]) - dec(line["_delivered"])
        return {
            "SourceDocumentLine": 68719477000 + self.next("recid"),
            "InventTransId": line["InventoryLotId"],
            "LineNum": index,
            "ItemId": line["ItemNumber"],
            "Name": line.get("LineDescription", ""),
            "ExternalItemId": line.get("ExternalItemNumber", ""),
            "Ordered": line["OrderedSalesQuantity"],
            "Qty": num(quantity),
            "Remain": num(rest),
            "SalesUnit": line["SalesUnitSymbol"],
            "AmountCur": num(dec(line["SalesPrice"]) * quantity),
        }

    def invoice(self, number: str, lines: Mapping[str, Any] | None, company: str) -> str:
        """Post an invoice over what was delivered (nothing: deliver and invoice all); returns its number."""
        order = self._open(number, company)
        docs = {line["InventoryLotId"]: line for line in self.lines(order)}
        delivered = {lot: dec(line["_delivered"]) - dec(line["_invoiced"]) for lot, line in docs.items()}
        ready = {lot: quantity for lot, quantity in delivered.items() if quantity > 0}
        left = self._left(order, "_invoiced")
        wanted = self._wanted(order, lines, left if lines is not None or not ready else ready)
        if not wanted:
            raise ValueError(f"order {number} has nothing left to invoice")
        area, now = order["dataAreaId"], self.clock()
        posted: list[Doc] = []
        total = Decimal(0)
        for lot, quantity in wanted.items():
            line, invoiced = docs[lot], dec(docs[lot]["_invoiced"]) + quantity
            amount = self._share(line, invoiced) - dec(line["_billed"])
            total += amount
            rest = {
                "_delivered": num(max(dec(line["_delivered"]), invoiced)),
                "_picked": num(max(dec(line["_picked"]), invoiced)),
            }
            self.put(
                "line",
                f"{area}/{lot}",
                {**line, **rest, "_invoiced": num(invoiced), "_billed": num(dec(line["_billed"]) + amount)},
            )
            posted.append(self._invoice_line(line, quantity, amount))
        invoice = f"CIV-{self.next(f'invoice/{area}', 708):06d}"
        self.put(
            "invoice",
            f"{area}/{invoice}",
            {
                "dataAreaId": area,
                "InvoiceNumber": invoice,
                "InvoiceDate": day(now),
                "LedgerVoucher": f"ARI-{invoice[4:]}",
                "SalesOrderNumber": order["SalesOrderNumber"],
                "CustomersOrderReference": order.get("CustomersOrderReference", ""),
                "InvoiceCustomerAccountNumber": order["InvoiceCustomerAccountNumber"],
                "CurrencyCode": order["CurrencyCode"],
                "TotalInvoiceAmount": num(total),
                "PaymentTermsName": order.get("PaymentTermsName", ""),
                "DeliveryModeCode": order.get("DeliveryModeCode", ""),
                "DeliveryTermsCode": order.get("DeliveryTermsCode", ""),
                "ContactPersonId": order.get("ContactPersonId", ""),
                "InvoiceAddressStreet": order.get("InvoiceAddressStreet", ""),
                "InvoiceAddressCity": order.get("InvoiceAddressCity", ""),
                "InvoiceAddressState": order.get("InvoiceAddressStateId", ""),
                "InvoiceAddressZipCode": order.get("InvoiceAddressZipCode", ""),
                "InvoiceAddressCountryRegionId": order.get("InvoiceAddressCountryRegionId", ""),
                "InvoiceAddressCountryRegionISOCode": order.get("InvoiceAddressCountryRegionISOCode", ""),
                "_lines": posted,
            },
        )
        self._settle({**order, "_invoice": [*order["_invoice"], invoice]}, "Invoice")
        self._post_event(order, invoice, total)
        return invoice

    def _share(self, line: Doc, quantity: Decimal) -> Decimal:
        """Return what *quantity* of the line costs, so that the parts of a line add up to its amount."""
        unit = Decimal(1).scaleb(-minor_units(line["CurrencyCode"]))
        return (dec(line["LineAmount"]) * quantity / dec(line["OrderedSalesQuantity"])).quantize(unit, ROUND_HALF_UP)

    def _invoice_line(self, line: Doc, quantity: Decimal, amount: Decimal) -> Doc:
        return {
            "LineCreationSequenceNumber": line["LineCreationSequenceNumber"],
            "ProductNumber": line["ItemNumber"],
            "ProductName": line.get("LineDescription", ""),
            "ProductDescription": line.get("LineDescription", ""),
            "InvoicedQuantity": num(quantity),
            "SalesUnitSymbol": line["SalesUnitSymbol"],
            "SalesPrice": line["SalesPrice"],
            "LineAmount": num(amount),
            "LineTotalChargeAmount": 0,
            "InventorySiteId": line["ShippingSiteId"],
            "InventoryWarehouseId": line.get("ShippingWarehouseId", ""),
            "CurrencyCode": line["CurrencyCode"],
            "ConfirmedShippingDate": line.get("ConfirmedShippingDate", self.no_date),
        }

    def _post_event(self, order: Doc, invoice: str, total: Decimal) -> None:
        now, count = self.clock(), self.next("event", 1)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self.events.append(
            {
                "BusinessEventId": "SalesInvoicePostedBusinessEvent",
                "BusinessEventLegalEntity": order["dataAreaId"],
                "ContextRecordSubject": "",
                "ControlNumber": 5637144576 + count * 3,
                "EventId": f"{count:08X}-0000-4000-8000-{count:012X}",
                "EventTime": slashed(now),
                "EventTimeIso8601": now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond:06d}0Z",
                "InitiatingUserAADObjectId": "{00000000-0000-0000-0000-000000000000}",
                "MajorVersion": 0,
                "MinorVersion": 0,
                "ParentContextRecordSubjects": [],
                "InvoiceAccount": order["InvoiceCustomerAccountNumber"],
                "InvoiceId": invoice,
                "SalesOrderId": order["SalesOrderNumber"],
                "InvoiceDate": slashed(midnight),
                "InvoiceDueDate": slashed(midnight + timedelta(days=30)),
                "InvoiceAmountInAccountingCurrency": num(total),
                "InvoiceTaxAmount": 0,
                "LegalEntity": order["dataAreaId"].upper(),
            }
        )

    def cancel(self, number: str, lines: Sequence[str] | None, company: str) -> None:
        """Cancel what was not delivered, of the whole order or of some lines."""
        order = self._open(number, company)
        left = self._left(order, "_delivered")
        wanted = self._wanted(order, None if lines is None else dict.fromkeys(lines, 1), left)
        if not wanted:
            raise ValueError(f"order {number} has nothing left to cancel")
        self._add(order, "_canceled", {lot: left[lot] for lot in wanted})
        self._settle(order)

    def track(self, slip: str, code: str, url: str, company: str) -> None:
        """Add a tracking number to a posted packing slip."""
        key = f"{company}/{slip}"
        doc = self.documents.get("slip", key)
        if doc is None:
            raise ValueError(f"there is no packing slip {slip!r} in company {company!r}")
        self.put("slip", key, {**doc, "_tracking": [*doc["_tracking"], {"TrackingNumber": code, "TrackingURL": url}]})


def _line_status(line: Doc) -> str:
    wanted = dec(line["OrderedSalesQuantity"]) - dec(line["_canceled"])
    if wanted <= 0:
        return "Canceled"
    if dec(line["_invoiced"]) >= wanted:
        return "Invoiced"
    return "Delivered" if dec(line["_delivered"]) >= wanted else "Backorder"


def slashed(value: datetime) -> str:
    """Write a moment as business events do: ``/Date(1697470966000)/``."""
    return f"/Date({int(value.timestamp() * 1000)})/"
