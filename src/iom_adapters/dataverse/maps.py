"""The dual-write maps the product needs, as data in our own form: sales orders and invoices, and their value maps.

One line of a table is one field pair: F&O's property (``none`` for a constant), the map type, Dataverse's column,
and after ``:`` a value map or after ``:=`` a constant. ``a.b`` is the lookup column *a*, matched by column *b* of the
row it points to. Source: dual-write mapping reference (MicrosoftDocs/dynamics-365-unified-operations-public,
CC-BY-4.0); the two filters of order orchestration are from MicrosoftDocs/dynamics-365-intelligent-order-management,
topics/set-up-finops-provider.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

import attrs

from iom_adapters.dataverse.dual_write import Kind, Pair, Scalar, TableMap, Target, ValueMap

ITEM_BASED: Final = 192350000
"""``msdyn_ordertype`` of an ordinary sales order."""
INVOICED: Final = 100003
"""``statuscode`` of an invoiced sales order."""


def _numbered(name: str, words: str, start: int = 192350000) -> ValueMap:
    return ValueMap(name, tuple((word, start + index) for index, word in enumerate(words.split())))


YES_NO: Final = ValueMap("yes-no", (("No", False), ("Yes", True)))
PROCESSING_STATUS: Final = _numbered(
    "processing",
    "Active Confirmed Picked PartiallyDelivered Delivered Invoiced PartiallyInvoiced Canceled",
)
"""``msdyn_processingstatus`` in the CDS map, which has no value for DeliveredPartiallyInvoiced."""
PROCESSING_STATUS_D365: Final = _numbered(
    "processing",
    "Active Confirmed Picked PartiallyDelivered Delivered Invoiced PartiallyInvoiced Canceled "
    "DeliveredPartiallyInvoiced",
)
"""The same in the map of Dynamics 365 Sales, with 192350008."""
LINE_STATUS: Final = _numbered("line-status", "None Backorder Delivered Invoiced Canceled")
PROMISING_METHOD: Final = _numbered("promising", "None SalesLeadTime ATP ATPPlusIssueMargin CTP")
COUNTRY: Final = ValueMap(
    "country",
    (
        ("US", "united states"),
        ("DE", "germany"),
        ("FR", "france"),
        ("GB", "united kingdom"),
        ("JP", "japan"),
        ("IN", "india"),
        ("ES", "spain"),
        ("NZ", "new zealand"),
        ("AU", "australia"),
        ("CO", "columbia"),
        ("ZA", "south africa"),
        ("BE", "belgium"),
        ("CA", "canada"),
        ("AT", "austria"),
        ("TR", "türkiye"),
        ("CN", "china"),
        ("DK", "denmark"),
        ("SE", "sweden"),
        ("NO", "norway"),
        ("FI", "finland"),
        ("EG", "egypt"),
    ),
)
"""Twenty-one countries, spelling as documented (*columbia*). Any other has no mapping until a user adds it."""
COUNTRY_D365: Final = COUNTRY.extended({"TR": "turkey"})
LANGUAGE: Final = _numbered(
    "language",
    (
        "ar ar-ae cs da de de-at de-ch en-au en-ca en-gb en-ie en-in en-my en-nz en-sg en-us en-za es es-mx et fi "
        "fr fr-be fr-ca fr-ch hu is it it-ch ja lt lv nb-no nl nl-be pl pt-br ru sv th tr zh-hans "
    ).strip(),
)

VALUE_MAPS: Final[Mapping[str, ValueMap]] = {
    each.name: each for each in (YES_NO, PROCESSING_STATUS, LINE_STATUS, PROMISING_METHOD, COUNTRY, LANGUAGE)
}

LOOKUPS: Final[Mapping[str, str]] = {
    "transactioncurrencyid": "transactioncurrencies",
    "productid": "products",
    "uomid": "uoms",
    "salesorderid": "salesorders",
    "invoiceid": "invoices",
    "msdyn_defaultshippingsite": "msdyn_operationalsites",
    "msdyn_shippingsite": "msdyn_operationalsites",
    "msdyn_inventorysite": "msdyn_operationalsites",
    "msdyn_defaultshippingwarehouse": "msdyn_warehouses",
    "msdyn_shippingwarehouse": "msdyn_warehouses",
    "msdyn_inventorywarehouse": "msdyn_warehouses",
    "msdyn_deliverymode": "msdyn_shipvias",
    "msdyn_deliveryterms": "msdyn_termsofdeliveries",
    "msdyn_paymentterms": "msdyn_paymentterms",
    "msdyn_pricecustomergroup": "msdyn_pricecustomergroups",
    "msdyn_salesorderorigin": "msdyn_salesorderorigins",
    "msdyn_associatedcontact": "contacts",
    "msdyn_contactperson": "contacts",
    "msdyn_salesproductcategory": "msdyn_productcategories",
}
"""Which entity set each lookup column points to. The set names of payment terms, price groups and categories are
not in the documentation we have."""
_POLYMORPHIC: Final[Mapping[str, str]] = {"Account": "accounts", "Contact": "contacts"}
_DATES: Final = re.compile(r"(Requested|Confirmed)(Shipping|Receipt)Date|PaymentTermsBaseDate|InvoiceDate")


def pairs(table: str) -> tuple[Pair, ...]:
    """Read a table of field pairs; raises `KeyError` for a lookup or value map nobody has defined."""
    return tuple(_pair(line.strip()) for line in table.strip().splitlines())


def _pair(line: str) -> Pair:
    rule, _, constant = line.partition(" := ")
    rule, _, values = rule.partition(" : ")
    erp, kind, path = rule.split()
    erp = "" if erp == "none" else erp
    column, *rest = path.split(".")
    targets: tuple[Target, ...] = ()
    if rest and "(" in rest[0]:
        named = (each.rstrip(")").split("(") for each in rest)
        targets = tuple(Target(_POLYMORPHIC[name], by) for name, by in named)
    elif rest:
        targets = (Target(LOOKUPS[column], rest[0]),)
    return Pair(
        erp=erp,
        kind=Kind(kind),
        column=column,
        targets=targets,
        values=VALUE_MAPS[values] if values else None,
        constant=json.loads(constant) if constant else None,
        date=_DATES.fullmatch(erp) is not None,
        within=".".join(rest[1:]) if targets and "(" not in rest[0] else "",
    )


HEADERS: Final = TableMap(
    name="CDS sales order headers",
    entity_set="CDSSalesOrderHeaders",
    table="salesorders",
    key=("msdyn_salesordernumber",),
    filter=f"msdyn_ordertype eq {ITEM_BASED}",
    pairs=pairs("""
SalesOrderNumber = msdyn_salesordernumber
OrderingCustomerAccountNumber = customerid.Account(accountnumber).Contact(msdyn_contactpersonid)
CurrencyCode = transactioncurrencyid.isocurrencycode
DeliveryAddressCity = shipto_city
DeliveryAddressCountryRegionISOCode >< shipto_country : country
DeliveryAddressStreetNumber = shipto_line2
DeliveryAddressZipCode = shipto_postalcode
DeliveryAddressStreet = shipto_line1
DeliveryAddressStateId = shipto_stateorprovince
SalesOrderName > name
InvoiceAddressCity > billto_city
InvoiceAddressStreet > billto_line1
InvoiceAddressStreetNumber > billto_line2
InvoiceAddressCountryRegionISOCode > billto_country
InvoiceAddressStateId > billto_stateorprovince
InvoiceAddressZipCode > billto_postalcode
OrderTotalAmount > totalamount
TotalDiscountAmount > discountamount
OrderTotalTaxAmount > totaltax
OrderTotalChargesAmount > freightamount
ArePricesIncludingSalesTax >< msdyn_arepricesincludingsalestax : yes-no
ConfirmedReceiptDate = msdyn_confirmedreceiptdate
ConfirmedShippingDate = msdyn_confirmedshippingdate
ContactPersonId = msdyn_associatedcontact.msdyn_contactforpartynumber
CustomerRequisitionNumber = msdyn_customerrequisitionnumber
DefaultShippingSiteId = msdyn_defaultshippingsite.msdyn_siteid
DefaultShippingWarehouseId = msdyn_defaultshippingwarehouse.msdyn_warehouseidentifier
DeliveryAddressCountyId = msdyn_deliveryaddresscountyid
DeliveryAddressDescription = msdyn_deliveryaddressdescription
DeliveryAddressDistrictName = msdyn_deliveryaddressdistrictname
DeliveryAddressDunsNumber = msdyn_deliveryaddressdunsnumber
DeliveryAddressLatitude = msdyn_deliveryaddresslatitude
DeliveryAddressLocationId = msdyn_deliveryaddresslocationid
DeliveryAddressLongitude = msdyn_deliveryaddresslongitude
DeliveryAddressName = msdyn_deliveryaddressname
DeliveryAddressPostBox = msdyn_deliveryaddresspostbox
DeliveryBuildingCompliment = msdyn_deliverybuildingcompliment
FormattedDelveryAddress > msdyn_formatteddeliveryaddress
Email = emailaddress
FormattedInvoiceAddress > msdyn_formattedinvoiceaddress
InvoiceAddressCountyId > msdyn_invoiceaddresscountyid
InvoiceAddressDistrictName > msdyn_invoiceaddressdistrictname
InvoiceAddressLatitude > msdyn_invoiceaddresslatitude
InvoiceAddressLongitude > msdyn_invoiceaddresslongitude
InvoiceAddressPostBox > msdyn_invoiceaddresspostbox
InvoiceBuildingCompliment > msdyn_invoicebuildingcompliment
InvoiceCustomerAccountNumber = msdyn_invoicecustomerid.Account(accountnumber).Contact(msdyn_contactpersonid)
IsDeliveryAddressOrderSpecific >< msdyn_isdeliveryaddressorderspecific : yes-no
IsDeliveryAddressPrivate >< msdyn_isdeliveryaddressprivate : yes-no
IsInvoiceAddressPrivate >> msdyn_isinvoiceaddressprivate : yes-no
IsOneTimeCustomer >< msdyn_isonetimecustomer : yes-no
IsSalesProcessingStopped >< msdyn_issalesprocessingstopped : yes-no
PaymentTermsBaseDate = msdyn_paymenttermsbasedate
PaymentTermsName = msdyn_paymentterms.msdyn_name
PriceCustomerGroupCode = msdyn_pricecustomergroup.msdyn_groupcode
QuotationNumber = msdyn_quotationnumber
RequestedReceiptDate = msdyn_requestedreceiptdate
RequestedShippingDate = requestdeliveryby
SalesOrderPromisingMethod >< msdyn_salesorderpromisingmethod : promising
URL = msdyn_url
SalesOrderProcessingStatus >< msdyn_processingstatus : processing
LanguageId >< msdyn_language : language
CustomersOrderReference = msdyn_customersorderreference
DeliveryModeCode = msdyn_deliverymode.msdyn_name
DeliveryTermsCode = msdyn_deliveryterms.msdyn_termscode
SalesOrderOriginCode = msdyn_salesorderorigin.msdyn_origincode
none >> msdyn_ordertype := 192350000
CurrencyCode > msdyn_isocurrencycode
    """),
)

LINES: Final = TableMap(
    name="CDS sales order lines",
    entity_set="CDSSalesOrderLines",
    table="salesorderdetails",
    key=("salesorderid", "sequencenumber"),
    pairs=pairs("""
CurrencyCode > transactioncurrencyid.isocurrencycode
DeliveryAddressCity = shipto_city
DeliveryAddressCountryRegionISOCode >< shipto_country : country
DeliveryAddressZipCode = shipto_postalcode
DeliveryAddressStateId = shipto_stateorprovince
DeliveryAddressStreet = shipto_line1
DeliveryAddressStreetNumber = shipto_line2
LineAmount > extendedamount
LineCreationSequenceNumber = sequencenumber
OrderedSalesQuantity = quantity
ProductName = description
ProductNumber = productid.msdyn_productnumber
SalesOrderNumber = salesorderid.msdyn_salesordernumber
SalesUnitSymbol = uomid.msdyn_symbol
TotalDiscountAmount = manualdiscountamount
TotalTaxAmount > tax
SalesPrice = priceperunit
LineAmount > baseamount
SalesProductCategoryName = msdyn_salesproductcategory.msdyn_name
SalesProductCategoryHierarchyName > msdyn_salesproductcategory.msdyn_hierarchy.msdyn_name
IsDeliveryAddressOrderSpecific >< msdyn_isdeliveryaddressspecific : yes-no
IsDeliveryAddressPrivate >< msdyn_isdeliveryaddressprivate : yes-no
IsLineStopped >< msdyn_islinestopped : yes-no
AllowedOverdeliveryPercentage = msdyn_allowedoverdeliverypercentage
AllowedUnderdeliveryPercentage = msdyn_allowedunderdeliverypercentage
ConfirmedShippingDate = msdyn_confirmedshippingdate
ConfirmedReceiptDate = msdyn_confirmedreceiptdate
DeliveryAddressCountyId = msdyn_deliveryaddresscountyid
DeliveryAddressDescription = msdyn_deliveryaddressdescription
DeliveryAddressDistrictName = msdyn_deliveryaddressdistrictname
DeliveryAddressDunsNumber = msdyn_deliveryaddressdunsnumber
DeliveryAddressLatitude = msdyn_deliveryaddresslatitude
DeliveryAddressLocationId = msdyn_deliveryaddresslocationid
DeliveryAddressLongitude = msdyn_deliveryaddresslongitude
DeliveryAddressName = msdyn_deliveryaddressname
DeliveryAddressPostBox = msdyn_deliveryaddresspostbox
DeliveryBuildingCompliment = msdyn_deliverybuildingcompliment
ExternalItemNumber = msdyn_externalitemnumber
FixedPriceCharges = msdyn_fixedpricecharges
FormattedDeliveryAddress = msdyn_formatteddeliveryaddress
LineDescription = msdyn_linedescription
LineDiscountAmount = msdyn_linediscountamount
LineDiscountPercentage = msdyn_linediscountpercentage
MultilineDiscountAmount = msdyn_multilinediscountamount
MultilineDiscountPercentage = msdyn_multilinediscountpercentage
RequestedReceiptDate = msdyn_requestedreceiptdate
RequestedShippingDate = requestdeliveryby
SalesOrderLineStatus >> msdyn_linestatus : line-status
SalesOrderPromisingMethod >< msdyn_salesorderpromisingmethod : promising
SalesPriceQuantity = msdyn_salespricequantity
ShippingSiteId = msdyn_shippingsite.msdyn_siteid
ShippingWarehouseId = msdyn_shippingwarehouse.msdyn_warehouseidentifier
none >> ispriceoverridden := true
TotalChargesAmount > msdyn_totalchargesamount
DeliveryModeCode = msdyn_deliverymode.msdyn_name
DeliveryTermsId = msdyn_deliveryterms.msdyn_termscode
    """),
)

INVOICE_HEADERS: Final = TableMap(
    name="Sales invoice headers V2",
    entity_set="SalesInvoiceHeadersV2",
    table="invoices",
    key=("msdyn_invoicenumber", "msdyn_invoicedate", "msdyn_ledgervoucher"),
    filter=f"msdyn_ordertype eq {ITEM_BASED}",
    erp_filter="SalesOrderNumber",
    pairs=pairs("""
none >> ispricelocked := false
none >> statuscode := 4
ContactPersonId > msdyn_associatedcontact.msdyn_contactforpartynumber
CurrencyCode > transactioncurrencyid.isocurrencycode
CustomersOrderReference > description
InvoiceAddressCity > billto_city
InvoiceAddressCountryRegionISOCode > billto_country
InvoiceAddressState > billto_stateorprovince
InvoiceAddressStreet > billto_line1
InvoiceAddressStreetNumber > billto_line2
InvoiceAddressZipCode > billto_postalcode
InvoiceCustomerAccountNumber > customerid.Account(accountnumber).Contact(msdyn_contactpersonid)
InvoiceDate > msdyn_invoicedate
InvoiceNumber > msdyn_invoicenumber
LedgerVoucher > msdyn_ledgervoucher
PaymentTermsName > msdyn_paymentterms.msdyn_name
SalesOrderNumber > salesorderid.msdyn_salesordernumber
TotalChargeAmount > freightamount
TotalDiscountAmount > msdyn_totaldiscountamount
TotalDiscountCustomerGroupCode > discountamount
TotalInvoiceAmount > msdyn_totalamount
TotalTaxAmount > msdyn_totaltax
none >> msdyn_ordertype := 192350000
    """),
)

INVOICE_LINES: Final = TableMap(
    name="Sales invoice lines V2",
    entity_set="SalesInvoiceV2Lines",
    table="invoicedetails",
    key=("invoiceid", "sequencenumber"),
    pairs=pairs("""
ConfirmedShippingDate > msdyn_confirmedshippingdate
CurrencyCode > transactioncurrencyid.isocurrencycode
InventorySiteId > msdyn_inventorysite.msdyn_siteid
InventoryWarehouseId > msdyn_inventorywarehouse.msdyn_warehouseidentifier
InvoiceDate > invoiceid.msdyn_invoicedate
InvoicedQuantity > quantity
InvoiceNumber > invoiceid.msdyn_invoicenumber
LedgerVoucher > invoiceid.msdyn_ledgervoucher
LineAmount > extendedamount
LineCreationSequenceNumber > sequencenumber
LineTotalChargeAmount > msdyn_totalchargeamount
LineTotalDiscountAmount > manualdiscountamount
LineTotalTaxAmount > tax
ProductName > description
ProductNumber > productid.msdyn_productnumber
SalesPrice > priceperunit
SalesProductCategoryHierarchyName > msdyn_salesproductcategory.msdyn_hierarchy.msdyn_name
SalesProductCategoryName > msdyn_salesproductcategory.msdyn_name
SalesUnitSymbol > uomid.msdyn_symbol
none >> producttypecode := 1
none >> propertyconfigurationstatus := 2
none >> ispriceoverridden := true
    """),
)


def _with_values(table_map: TableMap, column: str, values: ValueMap) -> TableMap:
    changed = tuple(attrs.evolve(pair, values=values) if pair.column == column else pair for pair in table_map.pairs)
    return attrs.evolve(table_map, pairs=changed)


HEADERS_D365: Final = attrs.evolve(
    _with_values(
        _with_values(HEADERS, "shipto_country", COUNTRY_D365), "msdyn_processingstatus", PROCESSING_STATUS_D365
    ),
    name="Dynamics 365 Sales order headers",
    entity_set="D365SalesOrderHeaders",
    filter=f"msdyn_ordertype eq {ITEM_BASED} and msdyn_isreadytosync eq true",
)
"""The other family, as far as it differs in what we read: filter, countries, and status 192350008. Its contact
person and the spelling of the formatted address differ too and are not modeled. Run one family only."""

_READY: Final = Pair(erp="", kind=Kind.MAP_TO_DATAVERSE, column="msdyn_isreadytosync", constant=True)
IOM_HEADERS: Final = attrs.evolve(
    HEADERS,
    filter=(
        f"msdyn_ordertype eq {ITEM_BASED} and _msdyn_company_value ne null "
        f"and msdyn_isreadytosync eq true and statuscode ne {INVOICED}"
    ),
    pairs=(*HEADERS.pairs, _READY),
)
"""Headers as order orchestration wants them: held back until they have a company and are ready to sync."""
IOM_LINES: Final = attrs.evolve(
    LINES,
    name="CDS sales order lines V2",
    entity_set="CDSSalesOrderLinesV2",
    filter=(
        "_msdyn_company_value ne null and _msdyn_shippingsite_value ne null and _msdyn_shippingwarehouse_value ne null "
        "and msdyn_isreadytosync eq true and msdyn_statuscode ne 192350001"
    ),
    pairs=(*LINES.pairs, *pairs("InventoryServiceReservationId = msdyn_reservationid"), _READY),
)
"""Lines as order orchestration wants them. The V2 map is not printed in the mapping reference: it is taken to be
the CDS lines map and the reservation id."""

IOM_MAPS: Final = (IOM_HEADERS, IOM_LINES, INVOICE_HEADERS, INVOICE_LINES)
"""The maps that run, in the order in which rows must be written so that lookups resolve."""

ORDER_OF_MAPS: Final = (
    "Legal entities",
    "Currencies",
    "Units",
    "Customer and price groups, payment terms, delivery terms, delivery modes, sales order origin codes",
    "Sites",
    "Warehouses",
    "Customers V3",
    "CDS released distinct products",
    "CDS sales order headers",
    "CDS sales order lines V2",
    "Sales invoice headers V2",
    "Sales invoice lines V2",
)
"""The safe order of an initial sync, derived from the lookups (no such list is documented)."""


def with_countries(maps: tuple[TableMap, ...], more: Mapping[str, str]) -> tuple[TableMap, ...]:
    """Return *maps* with *more* countries (ISO code to Dataverse's text) in their country value map.

    The two systems' maps must be extended alike: an adapter can't do that for its user.
    """
    extended = COUNTRY.extended({code.upper(): name for code, name in more.items()})
    return tuple(_with_values(each, "shipto_country", extended) for each in maps)


LIFE_CYCLE: Final[Mapping[Scalar, int]] = {
    192350000: 0,  # active
    192350001: 1,  # confirmed
    192350002: 2,  # picked
    192350003: 3,  # partially delivered
    192350006: 4,  # partially invoiced: of an open or of a delivered order
    192350004: 5,  # delivered
    192350008: 6,  # delivered, partially invoiced (D365 map only)
    192350005: 7,  # invoiced
}
"""How far along each processing status is; canceled is nowhere on it. The values themselves are not in this order."""

SALES_STATES: Final[Mapping[Scalar, tuple[int, int | None]]] = {
    192350000: (0, None),
    192350001: (1, 3),
    192350002: (1, 3),
    192350003: (0, None),
    192350004: (3, 100001),
    192350006: (0, None),
    192350008: (3, 100001),
    192350005: (4, INVOICED),
    192350007: (2, 4),
}
"""``statecode`` and ``statuscode`` of a sales order after its processing status arrived, where the organization has
``IsSOPIntegrationEnabled``; ``None`` leaves the status code. Source: sales status map (the newer document; the one of
2020 had 100002 for partially delivered)."""
