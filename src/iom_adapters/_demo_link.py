"""Dual-write between the two twins, Dataverse and F&O: the one module here that knows both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from iom_adapters.dataverse.dual_write import ErpRow
from iom_adapters.dataverse.replication import DualWriteRefusal, ErpChange, ErpRefusal
from iom_adapters.dataverse.twin import DataverseTwin
from iom_adapters.fno.office import Change, Malformed, Rejection, Vetoed
from iom_adapters.fno.twin import FnoTwin
from iom_core.values import MINOR_UNITS


@attrs.frozen
class FnoEnd:
    """The F&O end of dual-write on an `FnoTwin`."""

    fno: FnoTwin

    def write(self, rows: Sequence[ErpRow]) -> None:
        """Write all *rows* in one F&O transaction; raises `ErpRefusal` with F&O's text."""
        try:
            with self.fno.transaction("dual-write"):
                for row in rows:
                    self._write(row)
        except (Rejection, Malformed, Vetoed) as no:
            raise ErpRefusal(str(no)) from no

    def _write(self, row: ErpRow) -> None:
        key: dict[str, Any] = dict(row.key)
        if row.delete:
            sequence = int(key.get("LineCreationSequenceNumber", 0))
            self.fno.delete(row.entity_set, row.company, str(key["SalesOrderNumber"]), sequence)
        else:
            self.fno.upsert(row.entity_set, {"dataAreaId": row.company, **key, **_plain(dict(row.values))})


def link(dataverse: DataverseTwin, fno: FnoTwin) -> None:
    """Run dual-write between the two: what one side commits, the other has, or neither.

    Give both the same *lock* when several threads use them.
    """

    def committed(changes: tuple[Change, ...], origin: str) -> None:
        if origin == "dual-write":
            return
        try:
            dataverse.erp_changed([ErpChange(each.entity_set, each.row, each.kind == "delete") for each in changes])
        except DualWriteRefusal as no:
            raise Vetoed(str(no)) from no

    dataverse.connect_erp(FnoEnd(fno))
    fno.listeners.append(committed)


def copy_masters(dataverse: DataverseTwin, fno: FnoTwin) -> None:
    """Copy master data to Dataverse, as an initial sync does: companies, sites, warehouses, customers, products, and
    every currency, all of which F&O knows.

    What is there already is left alone.
    """
    for currency in MINOR_UNITS:
        if dataverse.find("transactioncurrencies", isocurrencycode=currency) is None:
            dataverse.add("transactioncurrencies", isocurrencycode=currency, currencyname=currency)
    products = fno.rows("CDSReleasedDistinctProducts")
    for legal in fno.rows("LegalEntities"):
        code = str(legal["LegalEntityId"])
        if dataverse.find("cdm_companies", cdm_companycode=code) is not None:
            continue
        own = [each for each in fno.rows("CustomersV3") if each["dataAreaId"].lower() == code.lower()]
        people = [str(each["CustomerAccount"]) for each in own if each["PartyType"] == "Person"]
        organizations = [str(each["CustomerAccount"]) for each in own if each["PartyType"] != "Person"]
        company = dataverse.add_company(code, "USD", organizations, people)
        for terms in sorted({str(each["PaymentTerms"]) for each in own} - {""}):
            dataverse.add("msdyn_paymentterms", msdyn_name=terms, _msdyn_company_value=company)
        places = [each for each in fno.rows("Warehouses") if each["dataAreaId"].lower() == code.lower()]
        for site in fno.rows("OperationalSitesV2"):
            if site["dataAreaId"].lower() == code.lower():
                numbers = [str(each["WarehouseId"]) for each in places if each["OperationalSiteId"] == site["SiteId"]]
                dataverse.add_site(company, str(site["SiteId"]), numbers)
    for product in products:
        if dataverse.find("products", msdyn_productnumber=product["ProductNumber"]) is None:
            dataverse.add_products([str(product["ProductNumber"])], str(product["SalesUnitSymbol"]))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write exact numbers the way JSON has them, as F&O's end expects."""
    return {
        name: (int(value) if value == value.to_integral_value() else float(value))
        if isinstance(value, Decimal)
        else value
        for name, value in values.items()
    }
