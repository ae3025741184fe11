"""Which F&O entity sets the twin serves, with the keys, fields and types that this project uses of each.

A table, read by the twin (checks, defaults, ``$metadata``) and by tests that compare it with the published metadata.
It is a subset: the real sets have up to 300 fields more. Source: fno.md section 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

NAMESPACE: Final = "Microsoft.Dynamics.DataEntities"
"""The namespace of entity and enum types; the container is called ``Resources``."""

ENUMS: Final[Mapping[str, Mapping[str, int]]] = {
    "NoYes": {"No": 0, "Yes": 1},
    "SalesStatus": {"None": 0, "Backorder": 1, "Delivered": 2, "Invoiced": 3, "Canceled": 4},
    "SalesOrderProcessingStatus": {
        "Active": 0,
        "Confirmed": 1,
        "Picked": 2,
        "PartiallyDelivered": 3,
        "Delivered": 4,
        "Invoiced": 5,
        "PartiallyInvoiced": 6,
        "Canceled": 7,
        "DeliveredPartiallyInvoiced": 8,
    },
    "SalesType": {
        "Journal": 0,
        "DEL_Quotation": 1,
        "Subscription": 2,
        "Sales": 3,
        "ReturnItem": 4,
        "DEL_Blanket": 5,
        "ItemReq": 6,
        "Prepayment": 7,
    },
    "ItemReservation": {"None": 0, "Automatic": 1, "Explosion": 2},
    "SalesDeliveryDateControlType": {
        "None": 0,
        "SalesLeadTime": 1,
        "ATP": 2,
        "ATPPlusIssueMargin": 3,
        "CTP": 4,
        "FullRunCTP": 5,
    },
    "SalesOriginType": {"NotSpecified": 0, "SalesOrderIntegration": 1, "WorkOrderIntegration": 2},
    "WMSExpeditionStatus": {
        "None": 0,
        "Registered": 1,
        "DEL_Reserved": 2,
        "Activated": 3,
        "Started": 4,
        "Picked": 7,
        "Staged": 8,
        "Loaded": 9,
        "Complete": 10,
        "Cancelled": 20,
    },
    "InventTransType": {"Sales": 0, "Production": 2, "Purch": 3},
    "InventLocationType": {
        "Standard": 0,
        "Quarantine": 1,
        "Transit": 2,
        "ITMGIT": 10,
        "ITMUnder": 11,
        "GoodsInRoute_RU": 101,
    },
    "CustVendorBlocked": {
        "No": 0,
        "Invoice": 1,
        "All": 2,
        "Payment": 3,
        "Requisition": 4,
        "Never": 5,
        "PurchOrder": 6,
    },
    "EcoResProductType": {"Item": 1, "Service": 2},
}
"""Enum members and their numbers (a subset of ``InventTransType``); the wire carries the symbol."""

_PLAIN: Final[Mapping[str, tuple[str, Any]]] = {
    # code: OData type, the value of an empty field (never null for all but strings)
    "S": ("Edm.String", ""),
    "D": ("Edm.Decimal", 0),
    "I": ("Edm.Int32", 0),
    "L": ("Edm.Int64", 0),
    "A": ("Edm.DateTimeOffset", None),  # a date without a time: 12:00Z
    "T": ("Edm.DateTimeOffset", None),  # a moment
}

_DELIVERY: Final = (
    "DeliveryAddressCity DeliveryAddressCountryRegionISOCode DeliveryAddressCountryRegionId DeliveryAddressCountyId "
    "DeliveryAddressDescription DeliveryAddressDistrictName DeliveryAddressDunsNumber DeliveryAddressLatitude:D "
    "DeliveryAddressLocationId DeliveryAddressLongitude:D DeliveryAddressName DeliveryAddressPostBox "
    "DeliveryAddressStateId DeliveryAddressStreet DeliveryAddressStreetNumber DeliveryAddressZipCode "
    "DeliveryBuildingCompliment DeliveryModeCode IsDeliveryAddressOrderSpecific:NoYes IsDeliveryAddressPrivate:NoYes "
)
_DATES: Final = "RequestedShippingDate:A RequestedReceiptDate:A ConfirmedShippingDate:A ConfirmedReceiptDate:A "
_HEADER: Final = (
    "ArePricesIncludingSalesTax:NoYes CashDiscountCode ContactPersonId CurrencyCode CustomerRequisitionNumber "
    "CustomersOrderReference DefaultShippingSiteId DefaultShippingWarehouseId DeliveryTermsCode Email "
    "FormattedDelveryAddress FormattedInvoiceAddress InvoiceAddressCity InvoiceAddressCountryRegionISOCode "
    "InvoiceAddressCountryRegionId InvoiceAddressCountyId InvoiceAddressDistrictName InvoiceAddressLatitude:D "
    "InvoiceAddressLongitude:D InvoiceAddressPostBox InvoiceAddressStateId InvoiceAddressStreet "
    "InvoiceAddressStreetNumber InvoiceAddressZipCode InvoiceBuildingCompliment InvoiceCustomerAccountNumber "
    "IsInvoiceAddressPrivate:NoYes IsOneTimeCustomer:NoYes IsSalesProcessingStopped:NoYes LanguageId "
    "OrderCreationDateTime:T OrderHeaderTaxAmount:D OrderTotalAmount:D OrderTotalChargesAmount:D "
    "OrderTotalDiscountAmount:D OrderTotalTaxAmount:D OrderingCustomerAccountNumber PaymentTermsBaseDate:A "
    "PaymentTermsName PriceCustomerGroupCode QuotationNumber SalesOrderName SalesOrderOriginCode "
    "SalesOrderProcessingStatus:SalesOrderProcessingStatus SalesOrderPromisingMethod:SalesDeliveryDateControlType "
    "SalesOrderStatus:SalesStatus TotalDiscountAmount:D URL " + _DELIVERY + _DATES
)
_LINE: Final = (
    "AllowedOverdeliveryPercentage:D AllowedUnderdeliveryPercentage:D CurrencyCode DeliveryTermsId ExternalItemNumber "
    "FixedPriceCharges:D InventoryServiceReservationId IsLineStopped:NoYes ItemBatchNumber LineAmount:D "
    "LineDescription LineDiscountAmount:D LineDiscountPercentage:D MultilineDiscountAmount:D "
    "MultilineDiscountPercentage:D OrderedInventoryStatusId OrderedSalesQuantity:D SalesDeliverNow:D "
    "SalesOrderLineStatus:SalesStatus SalesOrderPromisingMethod:SalesDeliveryDateControlType SalesPrice:D "
    "SalesPriceQuantity:D SalesProductCategoryName SalesUnitSymbol ShippingSiteId ShippingWarehouseId "
    + _DELIVERY
    + _DATES
)
_PRIMARY: Final = (
    "PrimaryAddressCity PrimaryAddressCountryRegionId PrimaryAddressDescription PrimaryAddressLatitude:D "
    "PrimaryAddressLongitude:D PrimaryAddressStateId PrimaryAddressStreet PrimaryAddressStreetNumber "
    "PrimaryAddressZipCode FormattedPrimaryAddress IsPrimaryAddressAssigned:NoYes "
)

_TABLE: Final = (
    # entity set, entity type, keys, the other fields (a bare name is a string)
    (
        "SalesOrderHeadersV2",
        "SalesOrderHeaderV2",
        "dataAreaId SalesOrderNumber",
        _HEADER + "AreTotalsCalculated:NoYes CustomerPaymentMethodName DeliveryReasonCode FulfillmentPolicyName "
        "InventoryReservationMethod:ItemReservation OverrideSalesTax:NoYes SalesOrderPoolId SalesTaxGroupCode "
        "ShippingCarrierId ShippingCarrierServiceGroupId ShippingCarrierServiceId SkipCreateAutoCharges:NoYes "
        "TotalDiscountPercentage:D",
    ),
    (
        "SalesOrderLines",
        "SalesOrderLine",
        "dataAreaId InventoryLotId",
        _LINE + "CalculateLineAmount:NoYes CustomersLineNumber:I FormattedDelveryAddress IsPriceLocked:NoYes "
        "IsSoftReservedExternally:NoYes ItemNumber ItemSerialNumber LineCreationSequenceNumber:I LineNumber:D "
        "InventoryReservationMethod:ItemReservation OrderLineReference ProductColorId ProductConfigurationId "
        "ProductSizeId ProductStyleId ProductVersionId SalesOrderNumber SalesTaxGroupCode SalesTaxItemGroupCode "
        "ShippingWarehouseLocationId SkipCreateAutoCharges:NoYes",
    ),
    (
        "CDSSalesOrderHeaders",
        "CDSSalesOrderHeader",
        "dataAreaId SalesOrderNumber",
        _HEADER + "AreTotalsUpdated:NoYes SalesOrderOriginType:SalesOriginType",
    ),
    (
        "CDSSalesOrderLinesV2",
        "CDSSalesOrderLineV2",
        "dataAreaId SalesOrderNumber LineCreationSequenceNumber:I",
        _LINE + "AreTotalsCalculated:NoYes FormattedDeliveryAddress InventoryLotId PickedQuantity:D ProductName "
        "ProductNumber SalesOrderNumberHeader SalesOrderOriginType:SalesOriginType "
        "SalesOrderProcessingStatus:SalesOrderProcessingStatus SalesProductCategoryHierarchyName "
        "TotalChargesAmount:D TotalDiscountAmount:D TotalTaxAmount:D",
    ),
    (
        "WMSPickingRouteBiEntities",
        "WMSPickingRouteBiEntity",
        "dataAreaId pickingRouteID shipmentId",
        "ActivationDateTime:T CreatedOn:T DeliveryName DlvDate:A DlvModeId DlvTermId SourceKey:L SysModifiedDateTime:T "
        "customer endDateTime:T expeditionStatus:WMSExpeditionStatus inventLocationId startDateTime:T transRefId "
        "transType:InventTransType",
    ),
    (
        "CustPackingSlipJourBiEntities",
        "CustPackingSlipJourBiEntity",
        "dataAreaId SourceDocumentHeader:L",
        "BillOfLadingId CreatedOn:T CustomerRef DeliveryDate:A DeliveryName DlvMode DlvTerm DocumentDate:A "
        "InternalPackingSlipId InvoiceAccount LedgerVoucher OrderAccount PackingSlipId PurchaseOrder Qty:D SalesId "
        "SalesType:SalesType ShipCarrierId SourceKey:L Volume:D Weight:D inventLocationId",
    ),
    (
        "CustPackingSlipTransBiEntities",
        "CustPackingSlipTransBiEntity",
        "dataAreaId SourceDocumentLine:L",
        "AmountCur:D CreatedOn:T CurrencyCode DeliveryDate:A DlvTerm ExternalItemId InventDimId InventTransId ItemId "
        "LineNum:D Name Ordered:D OrigSalesId PackingSlipId Qty:D Remain:D SalesId SalesUnit SourceKey:L",
    ),
    (
        "PackingSlipTrackingInformation",
        "PackingSlipTrackingInformation",
        "dataAreaId SalesOrderNumber PackingSlipNumber DeliveryDate:A TrackingNumber",
        "TrackingURL",
    ),
    (
        "SalesInvoiceHeadersV2",
        "SalesInvoiceHeaderV2",
        "dataAreaId InvoiceNumber InvoiceDate:A LedgerVoucher",
        "ContactPersonId CurrencyCode CustomersOrderReference DeliveryModeCode DeliveryTermsCode InvoiceAddressCity "
        "InvoiceAddressCountryRegionISOCode InvoiceAddressCountryRegionId InvoiceAddressState InvoiceAddressStreet "
        "InvoiceAddressStreetNumber InvoiceAddressZipCode InvoiceCustomerAccountNumber InvoiceHeaderTaxAmount:D "
        "PaymentTermsName SalesOrderNumber SalesOrderOriginCode SalesOrderResponsiblePersonnelNumber "
        "TotalChargeAmount:D TotalDiscountAmount:D TotalDiscountCustomerGroupCode:D TotalInvoiceAmount:D "
        "TotalTaxAmount:D",
    ),
    (
        "SalesInvoiceV2Lines",
        "SalesInvoiceV2Line",
        "dataAreaId InvoiceNumber LineCreationSequenceNumber:I InvoiceDate:A LedgerVoucher",
        "ConfirmedShippingDate:A CurrencyCode DimensionNumber InventorySiteId InventoryWarehouseId InvoicedQuantity:D "
        "LineAmount:D LineTotalChargeAmount:D LineTotalDiscountAmount:D LineTotalTaxAmount:D ProductColorId "
        "ProductConfigurationId ProductDescription ProductName ProductNumber ProductSizeId ProductStyleId SalesPrice:D "
        "SalesProductCategoryHierarchyName SalesProductCategoryName SalesUnitSymbol",
    ),
    (
        "Warehouses",
        "Warehouse",
        "dataAreaId WarehouseId",
        _PRIMARY + "AreAdvancedWarehouseManagementProcessesEnabled:NoYes IsFallbackWarehouse:NoYes OperationalSiteId "
        "WarehouseName WarehouseType:InventLocationType ExternallyLocatedWarehouseVendorAccountNumber",
    ),
    ("OperationalSitesV2", "OperationalSiteV2", "dataAreaId SiteId", _PRIMARY + "DefaultInventoryStatusId SiteName"),
    ("OperationalSites", "OperationalSite", "dataAreaId SiteId", _PRIMARY + "DefaultInventoryStatusId SiteName"),
    (
        "LegalEntities",
        "LegalEntity",
        "LegalEntityId",
        "AddressCountryRegionId AddressCountryRegionISOCode LanguageId Name NameAlias PartyNumber",
    ),
    (
        "ReleasedProductsV2",
        "ReleasedProductV2",
        "dataAreaId ItemNumber",
        "InventoryUnitSymbol ItemModelGroupId NetProductWeight:D ProductGroupId ProductLifecycleStateId ProductNumber "
        "ProductSearchName ProductType:EcoResProductType PurchaseUnitSymbol SalesPrice:D SalesSalesTaxItemGroupCode "
        "SalesUnitSymbol SearchName UnitCost:D",
    ),
    (
        "CDSReleasedDistinctProducts",
        "CDSReleasedDistinctProduct",
        "dataAreaId ProductNumber",
        "CurrencyCode ItemNumber ProductDescription ProductName ProductType:EcoResProductType SalesPrice:D "
        "SalesUnitSymbol UnitCost:D",
    ),
    (
        "CustomersV3",
        "CustomerV3",
        "dataAreaId CustomerAccount",
        "AddressCity AddressCountryRegionISOCode AddressCountryRegionId AddressState AddressStreet AddressStreetNumber "
        "AddressZipCode CustomerGroupId InvoiceAccount LanguageId NameAlias OnHoldStatus:CustVendorBlocked "
        "OrganizationName PartyNumber PartyType PaymentTerms PersonFirstName PersonLastName PrimaryContactEmail "
        "SalesCurrencyCode",
    ),
)


@attrs.frozen
class EntitySet:
    """One entity set. *fields* maps every field, keys included, to its type code: ``S D I L A T`` or an enum's name."""

    name: str
    type: str
    keys: tuple[str, ...]
    fields: Mapping[str, str]

    def edm_type(self, field: str) -> str:
        """Return the OData type of *field*, for example ``Edm.Decimal``."""
        code = self.fields[field]
        return _PLAIN[code][0] if code in _PLAIN else f"{NAMESPACE}.{code}"

    def nullable(self, field: str) -> bool:
        """Say whether metadata lets *field* be null: strings and enums that are no keys."""
        return field not in self.keys and (self.fields[field] == "S" or self.fields[field] in ENUMS)

    def empty(self, field: str, no_date: str) -> Any:
        """Return what an empty *field* holds: ``""``, 0, the first enum member, or *no_date* (1900-01-01)."""
        code = self.fields[field]
        if code in ENUMS:
            return next(iter(ENUMS[code]))
        return no_date if code in "AT" else _PLAIN[code][1]


def _read(text: str) -> dict[str, str]:
    return {name: code or "S" for name, _, code in (word.partition(":") for word in text.split())}


ENTITY_SETS: Final[Mapping[str, EntitySet]] = {
    name: EntitySet(name, kind, tuple(_read(keys)), _read(f"{keys} {fields}")) for name, kind, keys, fields in _TABLE
}
"""Every entity set the twin serves, by name."""


def metadata() -> str:
    """Write the CSDL of `ENTITY_SETS`, as ``GET /data/$metadata`` gives it."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>',
        f'<Schema Namespace="{NAMESPACE}" xmlns="http://docs.oasis-open.org/odata/ns/edm">',
    ]
    for enum, members in ENUMS.items():
        lines.append(f'<EnumType Name="{enum}">')
        lines.extend(f'<Member Name="{name}" Value="{value}"/>' for name, value in members.items())
        lines.append("</EnumType>")
    for spec in ENTITY_SETS.values():
        lines.append(f'<EntityType Name="{spec.type}"><Key>')
        lines.extend(f'<PropertyRef Name="{key}"/>' for key in spec.keys)
        lines.append("</Key>")
        lines.extend(
            f'<Property Name="{field}" Type="{spec.edm_type(field)}"'
            + ("/>" if spec.nullable(field) else ' Nullable="false"/>')
            for field in spec.fields
        )
        lines.append("</EntityType>")
    lines.append('<EntityContainer Name="Resources">')
    lines.extend(
        f'<EntitySet Name="{spec.name}" EntityType="{NAMESPACE}.{spec.type}"/>' for spec in ENTITY_SETS.values()
    )
    lines.append("</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>")
    return "\n".join(lines)
