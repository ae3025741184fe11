"""The Dataverse tables this package knows: entity sets, columns, lookups, alternate keys and defaults, as data.

Columns are those of the Common Data Model (github.com/microsoft/CDM, CC-BY-4.0) that orders and invoices need, and
every column the dual-write maps name. How Microsoft spells the navigation property of a custom lookup is not
documented per column: real organizations tell in their metadata, and so does the twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from iom_adapters.dataverse import maps


@attrs.frozen
class Lookup:
    """A lookup column: the entity sets it may point to, and the navigation property for each."""

    column: str
    targets: tuple[str, ...]
    navigation: tuple[str, ...]

    @property
    def stored(self) -> str:
        """Return the property a row holds the other row's id under."""
        return f"_{self.column}_value"


@attrs.frozen
class Table:
    """One table. *keys* are alternate keys by stored names; *lengths* limits texts; *striped* rows have a company.

    *no_create* and *no_update* are columns that can't be given then. *children* maps a collection navigation
    property to the child's entity set and its lookup column; children go when the parent goes.
    """

    logical: str
    entity_set: str
    id_column: str
    columns: frozenset[str]
    lookups: Mapping[str, Lookup]
    keys: tuple[tuple[str, ...], ...] = ()
    lengths: Mapping[str, int] = attrs.field(factory=dict)
    defaults: Mapping[str, Any] = attrs.field(factory=dict)
    no_create: frozenset[str] = frozenset()
    no_update: frozenset[str] = frozenset()
    required: tuple[str, ...] = ()
    children: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    striped: bool = False

    @property
    def stored(self) -> frozenset[str]:
        """Return every property a row can have."""
        return self.columns | {each.stored for each in self.lookups.values()} | {self.id_column}

    def navigation(self, name: str) -> tuple[Lookup, str] | None:
        """Return the lookup behind a navigation property, and the entity set it leads to; the case matters."""
        for lookup in self.lookups.values():
            for property_name, target in zip(lookup.navigation, lookup.targets):
                if property_name == name:
                    return lookup, target
        return None


_COMMON: Final = "createdon modifiedon versionnumber overriddencreatedon importsequencenumber"
_SHIP_TO: Final = (
    "shipto_city:80 shipto_composite:1000 shipto_contactname:150 shipto_country:80 shipto_fax:50 "
    "shipto_freighttermscode shipto_line1:250 shipto_line2:250 shipto_line3:250 shipto_name:200 shipto_postalcode:20 "
    "shipto_stateorprovince:50 shipto_telephone:50 shipto_addressid"
)
_BILL_TO: Final = (
    "billto_city:80 billto_composite:1000 billto_contactname:150 billto_country:80 billto_fax:50 billto_line1:250 "
    "billto_line2:250 billto_line3:250 billto_name:200 billto_postalcode:20 billto_stateorprovince:50 "
    "billto_telephone:50 billto_addressid"
)
_TOTALS: Final = (
    "totalamount totalamountlessfreight totaldiscountamount totallineitemamount totallineitemdiscountamount totaltax "
    "discountamount discountpercentage freightamount exchangerate"
)
_HEADER: Final = (
    f"{_SHIP_TO} {_BILL_TO} {_TOTALS} emailaddress:100 name:300 description:2000 ispricelocked paymenttermscode "
    "pricingerrorcode prioritycode shippingmethodcode statecode statuscode willcall processid stageid "
    "traversedpath:1250 lastbackofficesubmit onholdtime lastonholdtime entityimageid"
)
_DETAIL: Final = (
    f"{_SHIP_TO} baseamount description:2000 exchangerate extendedamount iscopied ispriceoverridden "
    "isproductoverridden lineitemnumber manualdiscountamount producttypecode priceperunit pricingerrorcode "
    "productdescription:500 productname:500 quantity quantitybackordered quantitycancelled quantityshipped tax "
    "volumediscountamount willcall sequencenumber propertyconfigurationstatus"
)
_BASE_AMOUNTS: Final = frozenset({"baseamount", "extendedamount"})

_SETS: Final[Mapping[str, str]] = {
    **maps.LOOKUPS,
    "pricelevelid": "pricelevels",
    "msdyn_company": "cdm_companies",
    "msdyn_operationalsite": "msdyn_operationalsites",
}
_SCHEMA_CASE: Final[Mapping[str, str]] = {
    "msdyn_company": "msdyn_Company",
    "msdyn_defaultshippingsite": "msdyn_DefaultShippingSite",
    "msdyn_defaultshippingwarehouse": "msdyn_DefaultShippingWarehouse",
    "msdyn_shippingsite": "msdyn_ShippingSite",
    "msdyn_shippingwarehouse": "msdyn_ShippingWarehouse",
    "msdyn_operationalsite": "msdyn_OperationalSite",
    "msdyn_salesorderorigin": "msdyn_SalesOrderOrigin",
}
"""Navigation properties of custom lookups: ``msdyn_Company`` is documented, the others are the twin's choice."""
_CUSTOMER: Final = ("customerid", "msdyn_invoicecustomerid")


def lookup(column: str) -> Lookup:
    """Return the lookup column of that name."""
    if column in _CUSTOMER:
        return Lookup(column, ("accounts", "contacts"), (f"{column}_account", f"{column}_contact"))
    return Lookup(column, (_SETS[column],), (_SCHEMA_CASE.get(column, column),))


def _table(
    logical: str, entity_set: str, id_column: str, columns: str, lookups: Iterable[str] = (), **more: Any
) -> Table:
    named = [column.partition(":") for column in f"{columns} {_COMMON}".split()]
    mapped = [pair for each in (*maps.IOM_MAPS, maps.HEADERS_D365) if each.table == entity_set for pair in each.pairs]
    all_lookups = {*lookups, *(pair.column for pair in mapped if pair.targets)}
    return Table(
        logical=logical,
        entity_set=entity_set,
        id_column=id_column,
        columns=frozenset({name for name, _, _ in named} | {pair.column for pair in mapped if not pair.targets}),
        lookups={column: lookup(column) for column in sorted(all_lookups)},
        lengths={name: int(length) for name, _, length in named if length},
        **more,
    )


_STRIPE: Final = "_msdyn_company_value"
TABLES: Final[Mapping[str, Table]] = {
    table.entity_set: table
    for table in (
        _table(
            "salesorder",
            "salesorders",
            "salesorderid",
            f"{_HEADER} ordernumber:100 requestdeliveryby datefulfilled submitdate submitstatus "
            "submitstatusdescription:2000 freighttermscode msdyn_salesordernumber:20 msdyn_isreadytosync "
            "msdyn_customersorderreference:60 msdyn_customerrequisitionnumber:20 msdyn_deliveryaddressname:100 "
            "ordercreationmethod",
            ("customerid", "msdyn_invoicecustomerid", "msdyn_company", "pricelevelid"),
            keys=(("msdyn_salesordernumber", _STRIPE),),
            # Ready to sync unless told otherwise: the trap of a header that leaves before its lines.
            defaults={
                "statecode": 0,
                "statuscode": 1,
                "msdyn_isreadytosync": True,
                "msdyn_ordertype": maps.ITEM_BASED,
                "ispricelocked": False,
            },
            no_create=frozenset({"statecode"}),
            children={"order_details": ("salesorderdetails", "salesorderid")},
            striped=True,
        ),
        _table(
            "salesorderdetail",
            "salesorderdetails",
            "salesorderdetailid",
            f"{_DETAIL} requestdeliveryby salesorderispricelocked salesorderstatecode salesorderdetailname:100 "
            "msdyn_isreadytosync msdyn_statuscode msdyn_syncerror:4000 msdyn_linetype",
            ("salesorderid", "msdyn_company"),
            keys=(("_salesorderid_value", "sequencenumber"),),
            defaults={
                "msdyn_isreadytosync": True,
                "producttypecode": 1,
                "propertyconfigurationstatus": 2,
                "ispriceoverridden": False,
                "isproductoverridden": False,
            },
            no_create=_BASE_AMOUNTS,
            no_update=frozenset({"isproductoverridden"}),
            required=("_salesorderid_value",),
            striped=True,
        ),
        _table(
            "invoice",
            "invoices",
            "invoiceid",
            f"{_HEADER} invoicenumber:100 datedelivered duedate",
            ("customerid", "msdyn_company", "pricelevelid"),
            keys=(("msdyn_invoicenumber", "msdyn_invoicedate", "msdyn_ledgervoucher", _STRIPE),),
            defaults={"statecode": 0, "statuscode": 1, "ispricelocked": False},
            no_create=frozenset({"statecode"}),
            children={"invoice_details": ("invoicedetails", "invoiceid")},
            striped=True,
        ),
        _table(
            "invoicedetail",
            "invoicedetails",
            "invoicedetailid",
            f"{_DETAIL} actualdeliveryon invoiceispricelocked invoicestatecode shippingtrackingnumber:100 "
            "invoicedetailname:100",
            ("msdyn_company",),
            keys=(("_invoiceid_value", "sequencenumber"),),
            defaults={"producttypecode": 1, "propertyconfigurationstatus": 2},
            no_create=_BASE_AMOUNTS,
            required=("_invoiceid_value",),
            striped=True,
        ),
        _table(
            "account",
            "accounts",
            "accountid",
            "accountnumber:20 name:160 emailaddress1:100 telephone1:50 customertypecode description:2000 statecode",
            ("msdyn_company", "transactioncurrencyid"),
            keys=(("accountnumber", _STRIPE),),
            striped=True,
        ),
        _table(
            "contact",
            "contacts",
            "contactid",
            "msdyn_contactpersonid:20 msdyn_contactforpartynumber:40 firstname:50 lastname:50 fullname:160 "
            "emailaddress1:100 msdyn_sellable statecode",
            ("msdyn_company",),
            keys=(("msdyn_contactpersonid", _STRIPE),),
            striped=True,
        ),
        _table(
            "product",
            "products",
            "productid",
            "msdyn_productnumber:70 productnumber:100 name:100 description:2000 msdyn_itemnumber:20 price statecode",
            ("transactioncurrencyid",),
            keys=(("msdyn_productnumber",),),
        ),
        _table("uom", "uoms", "uomid", "name:100 msdyn_symbol:10", keys=(("msdyn_symbol",),)),
        _table("pricelevel", "pricelevels", "pricelevelid", "name:100"),
        _table(
            "transactioncurrency",
            "transactioncurrencies",
            "transactioncurrencyid",
            "isocurrencycode:5 currencyname:100 currencysymbol:13 currencyprecision exchangerate",
            keys=(("isocurrencycode",),),
        ),
        _table(
            "cdm_company",
            "cdm_companies",
            "cdm_companyid",
            "cdm_companycode:4 cdm_name:200",
            keys=(("cdm_companycode",),),
        ),
        _table(
            "msdyn_operationalsite",
            "msdyn_operationalsites",
            "msdyn_operationalsiteid",
            "msdyn_siteid:10 msdyn_sitename:60",
            ("msdyn_company",),
            keys=(("msdyn_siteid", _STRIPE),),
            striped=True,
        ),
        _table(
            "msdyn_warehouse",
            "msdyn_warehouses",
            "msdyn_warehouseid",
            "msdyn_warehouseidentifier:10 msdyn_name:100 msdyn_description:200 msdyn_warehousetype",
            ("msdyn_company", "msdyn_operationalsite"),
            keys=(("msdyn_warehouseidentifier", _STRIPE),),
            striped=True,
        ),
        _table(
            "msdyn_shipvia",
            "msdyn_shipvias",
            "msdyn_shipviaid",
            "msdyn_name:100",
            ("msdyn_company",),
            keys=(("msdyn_name", _STRIPE),),
            striped=True,
        ),
        # The set names of the next three are not in the documentation we have.
        _table(
            "msdyn_paymentterm",
            "msdyn_paymentterms",
            "msdyn_paymenttermid",
            "msdyn_name:10 msdyn_description:60",
            ("msdyn_company",),
            keys=(("msdyn_name", _STRIPE),),
            striped=True,
        ),
        _table(
            "msdyn_pricecustomergroup",
            "msdyn_pricecustomergroups",
            "msdyn_pricecustomergroupid",
            "msdyn_groupcode:10 msdyn_description:60",
            ("msdyn_company",),
            keys=(("msdyn_groupcode", _STRIPE),),
            striped=True,
        ),
        _table(
            "msdyn_productcategory",
            "msdyn_productcategories",
            "msdyn_productcategoryid",
            "msdyn_name:254",
            keys=(("msdyn_name",),),
        ),
        _table(
            "msdyn_termsofdelivery",
            "msdyn_termsofdeliveries",
            "msdyn_termsofdeliveryid",
            "msdyn_termscode:10 msdyn_description:100",
            ("msdyn_company",),
            keys=(("msdyn_termscode", _STRIPE),),
            striped=True,
        ),
        _table(
            "msdyn_salesorderorigin",
            "msdyn_salesorderorigins",
            "msdyn_salesorderoriginid",
            "msdyn_origincode:10 msdyn_origindescription:60",
            ("msdyn_company",),
            keys=(("msdyn_origincode", _STRIPE),),
            striped=True,
        ),
    )
}
"""Every table by entity set."""
BY_LOGICAL_NAME: Final[Mapping[str, Table]] = {table.logical: table for table in TABLES.values()}
