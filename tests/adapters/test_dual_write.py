"""Dual-write's rules, without any system: what crosses, as what, and the laws of crossing."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters.dataverse import maps
from iom_adapters.dataverse.dual_write import (
    TO_DATAVERSE,
    TO_ERP,
    Change,
    ErpRow,
    Kind,
    Pair,
    TableMap,
    ValueMap,
    collapse,
    in_map_order,
    passes,
    plan,
    to_dataverse,
    to_erp,
)
from iom_core.outcome import failed

SPECS = Path(__file__).parents[3] / "shared" / "specs" / "dataverse"
HEADER, LINE = maps.IOM_HEADERS, maps.IOM_LINES


@attrs.define
class Masters:
    """References that know every row: the row with value *v* in table *t* has the id ``t/v``."""

    absent: set[str] = attrs.field(factory=set)

    def value_of(self, table: str, row_id: str, column: str) -> Any:
        kept, _, value = row_id.partition("/")
        return value if kept == table and row_id not in self.absent else None

    def id_of(self, table: str, match: Any, company: str | None) -> str | None:
        found = f"{table}/{'|'.join(str(value) for value in match.values())}"
        return None if found in self.absent else found


def header(**more: Any) -> dict[str, Any]:
    return {
        "msdyn_salesordernumber": "BC-1",
        "_msdyn_company_value": "cdm_companies/usmf",
        "msdyn_isreadytosync": True,
        "msdyn_ordertype": 192350000,
        "statuscode": 1,
        "_customerid_value": "accounts/US-001",
        "_msdyn_invoicecustomerid_value": "accounts/US-001",
        "_transactioncurrencyid_value": "transactioncurrencies/USD",
        **more,
    }


def line(**more: Any) -> dict[str, Any]:
    return {
        "_salesorderid_value": "salesorders/BC-1",
        "sequencenumber": 1,
        "_msdyn_company_value": "cdm_companies/usmf",
        "_msdyn_shippingsite_value": "msdyn_operationalsites/1",
        "_msdyn_shippingwarehouse_value": "msdyn_warehouses/11",
        "msdyn_isreadytosync": True,
        "_productid_value": "products/CHAIR",
        "quantity": 2,
        **more,
    }


def planned(*changes: Change, masters: Masters | None = None) -> tuple[ErpRow, ...]:
    return plan(changes, maps.IOM_MAPS, masters or Masters()).unwrap()


# --- the maps ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    path = SPECS / "dual-write-maps.json"
    if not path.exists():
        pytest.skip("the published maps are not beside this repository")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("table_map", [maps.HEADERS, maps.LINES, maps.INVOICE_HEADERS, maps.INVOICE_LINES])
def test_our_maps_are_the_published_ones(table_map: TableMap, published: dict[str, Any]) -> None:
    theirs = next(each for each in published["maps"] if each["name"] == table_map.name)

    def path(pair: Pair) -> str:
        if len(pair.targets) > 1:
            named = {"accounts": "Account", "contacts": "Contact"}
            return pair.column + "".join(f".{named[each.table]}({each.column})" for each in pair.targets)
        return ".".join([pair.column, *(each.column for each in pair.targets), *filter(None, [pair.within])])

    assert [
        (field.get("odataProperty") or "", field["mapType"], field["dataverse"], field.get("default"))
        for field in theirs["fields"]
    ] == [(pair.erp, pair.kind.value, path(pair), pair.constant) for pair in table_map.pairs]
    assert theirs["fnoEntitySet"] == table_map.entity_set
    assert theirs["dataverseTable"] == table_map.table
    assert (theirs["reversedSourceFilter"] or "") == table_map.filter


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (maps.YES_NO, "YN"),
        (maps.PROCESSING_STATUS, "PROC"),
        (maps.PROCESSING_STATUS_D365, "PROC9"),
        (maps.LINE_STATUS, "LINE"),
        (maps.PROMISING_METHOD, "PROM"),
        (maps.COUNTRY, "CTRY"),
        (maps.COUNTRY_D365, "CTRYOLD"),
        (maps.LANGUAGE, "LANG"),
    ],
)
def test_our_value_maps_are_the_published_ones(ours: ValueMap, name: str, published: dict[str, Any]) -> None:
    assert {erp.lower(): value for erp, value in ours.pairs} == {
        erp.lower(): value for erp, value in published["valueMaps"][name].items()
    }


def test_the_sync_filters_of_order_orchestration_are_the_documented_ones() -> None:
    assert HEADER.filter == (
        "msdyn_ordertype eq 192350000 and _msdyn_company_value ne null and msdyn_isreadytosync eq true "
        "and statuscode ne 100003"
    )
    assert LINE.filter == (
        "_msdyn_company_value ne null and _msdyn_shippingsite_value ne null and _msdyn_shippingwarehouse_value ne null "
        "and msdyn_isreadytosync eq true and msdyn_statuscode ne 192350001"
    )


@pytest.mark.parametrize("table_map", [*maps.IOM_MAPS, maps.HEADERS_D365])
def test_every_map_has_its_integration_key(table_map: TableMap) -> None:
    assert table_map.problems() == ()


def test_a_map_without_a_two_way_key_is_invalid() -> None:
    one_way = tuple(
        attrs.evolve(pair, kind=Kind.COPY_TO_DATAVERSE) if pair.column == "msdyn_salesordernumber" else pair
        for pair in HEADER.pairs
    )
    assert "DIPV1004" in attrs.evolve(HEADER, pairs=one_way).problems()[0]
    assert "DIPV1003" in attrs.evolve(HEADER, key=("nowhere",)).problems()[0]


# --- traps ---------------------------------------------------------------------------------------------------


def test_the_street_number_is_the_second_address_line() -> None:
    row = to_erp(HEADER, header(shipto_line1="Main Street", shipto_line2="12"), Masters()).unwrap()
    assert dict(row.values)["DeliveryAddressStreetNumber"] == "12"


def test_the_requested_date_is_the_shipping_date_at_noon() -> None:
    row = to_erp(HEADER, header(requestdeliveryby="2026-01-05"), Masters()).unwrap()
    assert dict(row.values)["RequestedShippingDate"] == "2026-01-05T12:00:00Z"


@pytest.mark.parametrize("empty", ["1900-01-01T00:00:00Z", "1900-01-01T12:00:00Z", ""])
def test_the_whole_first_of_january_1900_is_no_date(empty: str) -> None:
    entity = {"dataAreaId": "usmf", "SalesOrderNumber": "1", "ConfirmedShippingDate": empty}
    row = to_dataverse(HEADER, entity, Masters()).unwrap()
    assert dict(row.values)["msdyn_confirmedshippingdate"] is None


@pytest.mark.parametrize("spelling", ["partiallyDelivered", "PartiallyDelivered", "PARTIALLYDELIVERED"])
def test_value_maps_do_not_mind_the_case(spelling: str) -> None:
    assert maps.PROCESSING_STATUS.to_dataverse(spelling) == 192350003


def test_false_is_not_zero() -> None:
    assert maps.YES_NO.to_erp(0) is None
    assert maps.YES_NO.to_erp(False) == "No"


@pytest.mark.parametrize("country", ["netherlands", "italy", "NL", "switzerland"])
def test_a_country_without_a_mapping_is_an_error_and_never_invented(country: str) -> None:
    refused = to_erp(HEADER, header(shipto_country=country), Masters())
    assert failed(refused)
    assert refused.failure().where == "$.shipto_country"
    assert "Unable to write data to entity salesorders" in refused.failure().what


def test_both_sides_country_map_can_be_extended() -> None:
    (extended,) = maps.with_countries((HEADER,), {"nl": "netherlands"})
    row = to_erp(extended, header(shipto_country="Netherlands"), Masters()).unwrap()
    assert dict(row.values)["DeliveryAddressCountryRegionISOCode"] == "NL"


def test_columbia_is_spelled_as_documented() -> None:
    assert maps.COUNTRY.to_dataverse("CO") == "columbia"


def test_a_delivered_partially_invoiced_order_has_a_value_in_the_other_map_only() -> None:
    entity = {
        "dataAreaId": "usmf",
        "SalesOrderNumber": "1",
        "SalesOrderProcessingStatus": "DeliveredPartiallyInvoiced",
    }
    assert failed(to_dataverse(HEADER, entity, Masters()))
    kept = to_dataverse(HEADER, entity, Masters(), keep_unmapped=True).unwrap()
    assert "msdyn_processingstatus" not in dict(kept.values)
    other = to_dataverse(maps.HEADERS_D365, entity, Masters()).unwrap()
    assert dict(other.values)["msdyn_processingstatus"] == 192350008


def test_the_life_cycle_is_not_the_order_of_the_values() -> None:
    partly, fully = (
        maps.PROCESSING_STATUS.to_dataverse("PartiallyInvoiced"),
        maps.PROCESSING_STATUS.to_dataverse("Invoiced"),
    )
    assert isinstance(partly, int)
    assert isinstance(fully, int)
    assert partly > fully
    assert maps.LIFE_CYCLE[partly] < maps.LIFE_CYCLE[fully]


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ("Confirmed", 1, 3),
        ("Picked", 1, 3),
        ("Delivered", 3, 100001),
        ("Invoiced", 4, 100003),
        ("Canceled", 2, 4),
        ("DeliveredPartiallyInvoiced", 3, 100001),
    ],
)
def test_the_status_table(status: str, state: int, reason: int) -> None:
    assert maps.SALES_STATES[maps.PROCESSING_STATUS_D365.to_dataverse(status)] == (state, reason)


def test_a_lookup_that_leads_nowhere_is_an_error() -> None:
    masters = Masters({"products/CHAIR"})
    refused = to_erp(LINE, line(), masters)
    assert failed(refused)
    assert refused.failure().where == "$.productid"
    entity = {
        "dataAreaId": "usmf",
        "SalesOrderNumber": "BC-1",
        "LineCreationSequenceNumber": 1,
        "ProductNumber": "CHAIR",
    }
    assert failed(to_dataverse(LINE, entity, masters))


def test_a_customer_is_an_account_or_else_a_contact() -> None:
    entity = {"dataAreaId": "usmf", "SalesOrderNumber": "1", "OrderingCustomerAccountNumber": "P1"}
    person = to_dataverse(HEADER, entity, Masters({"accounts/P1"})).unwrap()
    assert dict(person.values)["_customerid_value"] == "contacts/P1"
    back = to_erp(HEADER, header(_customerid_value="contacts/P1"), Masters({"accounts/P1"})).unwrap()
    assert dict(back.values)["OrderingCustomerAccountNumber"] == "P1"


def test_an_invoice_line_finds_its_invoice_by_three_columns() -> None:
    entity = {
        "dataAreaId": "usmf",
        "InvoiceNumber": "CIV-1",
        "InvoiceDate": "2026-01-05T12:00:00Z",
        "LedgerVoucher": "V-1",
        "LineCreationSequenceNumber": 1,
        "InvoicedQuantity": 2,
    }
    row = to_dataverse(maps.INVOICE_LINES, entity, Masters()).unwrap()
    assert dict(row.key)["_invoiceid_value"] == "invoices/2026-01-05|CIV-1|V-1"
    assert dict(row.values)["producttypecode"] == 1


def test_an_order_from_fno_is_ready_to_sync() -> None:
    row = to_dataverse(HEADER, {"dataAreaId": "usmf", "SalesOrderNumber": "1"}, Masters()).unwrap()
    assert dict(row.values)["msdyn_isreadytosync"] is True
    assert dict(row.values)["msdyn_ordertype"] == 192350000


# --- planning ------------------------------------------------------------------------------------------------


def test_headers_go_before_lines_whatever_came_first() -> None:
    rows = planned(Change("salesorderdetails", "l", line()), Change("salesorders", "h", header()))
    assert [row.entity_set for row in rows] == ["CDSSalesOrderHeaders", "CDSSalesOrderLinesV2"]
    assert rows[1].key == (("LineCreationSequenceNumber", 1), ("SalesOrderNumber", "BC-1"))
    assert {row.company for row in rows} == {"usmf"}


def test_deletions_go_last_and_lines_before_headers() -> None:
    rows = planned(
        Change("salesorders", "h", None, header()),
        Change("salesorderdetails", "l", None, line()),
        Change("salesorders", "h2", header(msdyn_salesordernumber="BC-2")),
    )
    assert [(row.entity_set, row.delete) for row in rows] == [
        ("CDSSalesOrderHeaders", False),
        ("CDSSalesOrderLinesV2", True),
        ("CDSSalesOrderHeaders", True),
    ]


@pytest.mark.parametrize(
    "held",
    [
        {"msdyn_isreadytosync": False},
        {"_msdyn_company_value": None},
        {"statuscode": 100003},
        {"msdyn_ordertype": 192350001},
    ],
)
def test_a_header_that_does_not_pass_stays(held: dict[str, Any]) -> None:
    assert planned(Change("salesorders", "h", header(**held))) == ()


@pytest.mark.parametrize(
    "held",
    [
        {"msdyn_isreadytosync": False},
        {"_msdyn_company_value": None},
        {"_msdyn_shippingsite_value": None},
        {"_msdyn_shippingwarehouse_value": None},
        {"msdyn_statuscode": 192350001},
    ],
)
def test_a_line_that_does_not_pass_stays(held: dict[str, Any]) -> None:
    assert planned(Change("salesorderdetails", "l", line(**held))) == ()


def test_a_row_that_passes_for_the_first_time_goes_whole() -> None:
    before = header(msdyn_isreadytosync=False, emailaddress="a@example.com")
    (row,) = planned(Change("salesorders", "h", {**before, "msdyn_isreadytosync": True}, before))
    assert dict(row.values)["Email"] == "a@example.com"


def test_a_row_that_passed_before_sends_only_what_changed() -> None:
    before = header(emailaddress="a@example.com", shipto_city="Reno")
    (row,) = planned(Change("salesorders", "h", {**before, "shipto_city": "Sparks"}, before))
    assert row.values == (("DeliveryAddressCity", "Sparks"),)
    assert planned(Change("salesorders", "h", {**before, "billto_city": "Reno"}, before)) == ()


def test_what_was_emptied_is_emptied_there_too() -> None:
    before = header(emailaddress="a@example.com", requestdeliveryby="2026-01-05")
    (row,) = planned(Change("salesorders", "h", {**before, "emailaddress": None, "requestdeliveryby": None}, before))
    assert dict(row.values) == {"Email": "", "RequestedShippingDate": "1900-01-01T12:00:00Z"}


def test_an_echo_is_not_sent_back() -> None:
    assert planned(Change("salesorders", "h", header(), echo=True)) == ()


def test_one_transaction_tells_each_row_once() -> None:
    first, second = header(shipto_city="Reno"), header(shipto_city="Sparks")
    rows = planned(Change("salesorders", "h", first), Change("salesorders", "h", second, first))
    assert len(rows) == 1
    assert dict(rows[0].values)["DeliveryAddressCity"] == "Sparks"
    assert collapse([Change("salesorders", "h", first), Change("salesorders", "h", None, first)]) == ()


def test_the_first_refusal_refuses_the_whole() -> None:
    changes = [Change("salesorders", "h", header()), Change("salesorderdetails", "l", line(shipto_country="atlantis"))]
    assert failed(plan(changes, maps.IOM_MAPS, Masters()))


def test_one_way_maps_send_nothing() -> None:
    row = {"_msdyn_company_value": "cdm_companies/usmf", "msdyn_ordertype": 192350000, "msdyn_invoicenumber": "1"}
    assert planned(Change("invoices", "i", row)) == ()


def test_rows_arrive_in_map_order() -> None:
    sets = ["SalesInvoiceV2Lines", "CDSSalesOrderLinesV2", "SalesInvoiceHeadersV2", "CDSSalesOrderHeaders", "Other"]
    assert [sets[index] for index in in_map_order(sets, maps.IOM_MAPS)] == [
        "CDSSalesOrderHeaders",
        "CDSSalesOrderLinesV2",
        "SalesInvoiceHeadersV2",
        "SalesInvoiceV2Lines",
        "Other",
    ]


# --- laws ----------------------------------------------------------------------------------------------------

WORDS = st.text("abcXYZ 0123456789-", min_size=1, max_size=20).filter(lambda text: text.strip() == text)


def value_for(pair: Pair) -> st.SearchStrategy[Any]:
    if pair.values is not None:
        return st.sampled_from([erp for erp, _ in pair.values.pairs])
    if pair.date:
        return st.dates(min_value=date(2000, 1, 1)).map(lambda day: f"{day}T12:00:00Z")
    if pair.column in ("sequencenumber", "quantity", "priceperunit"):
        return st.integers(1, 9999)
    return WORDS


def entities(table_map: TableMap) -> st.SearchStrategy[dict[str, Any]]:
    """Draw F&O rows: the key always, every other property perhaps."""
    two_way = {pair.erp: pair for pair in table_map.pairs if pair.kind in TO_ERP & TO_DATAVERSE and pair.erp}
    keys = {pair.erp: value_for(pair) for pair in table_map.key_pairs()}
    rest = {name: value_for(pair) for name, pair in two_way.items() if name not in keys}
    return st.fixed_dictionaries({"dataAreaId": st.just("usmf"), **keys}, optional=rest)


@pytest.mark.parametrize("table_map", [HEADER, LINE], ids=["headers", "lines"])
@given(data=st.data())
def test_what_comes_over_and_goes_back_is_the_same(table_map: TableMap, data: st.DataObject) -> None:
    """Round trip: F&O to Dataverse to F&O gives every two-way value again."""
    entity = data.draw(entities(table_map))
    arrived = to_dataverse(table_map, entity, Masters()).unwrap()
    back = to_erp(table_map, dict(arrived.values), Masters()).unwrap()
    assert {**dict(back.key), **dict(back.values), "dataAreaId": back.company} == entity


ROWS = st.builds(
    header,
    msdyn_salesordernumber=st.sampled_from(["BC-1", "BC-2", "BC-3"]),
    msdyn_isreadytosync=st.booleans(),
    statuscode=st.sampled_from([1, 3, 100003]),
    shipto_city=st.sampled_from(["Reno", "Sparks", None]),
    _msdyn_company_value=st.sampled_from(["cdm_companies/usmf", None]),
)


@given(rows=st.lists(ROWS, max_size=8))
def test_the_filter_keeps_rows_out(rows: list[dict[str, Any]]) -> None:
    sent = planned(*(Change("salesorders", str(index), row) for index, row in enumerate(rows)))
    assert len(sent) == sum(
        row["msdyn_isreadytosync"] and row["statuscode"] != 100003 and row["_msdyn_company_value"] is not None
        for row in rows
    )
    assert len(sent) == sum(passes(HEADER, row) for row in rows)


def applied(book: dict[Any, dict[str, Any]], rows: tuple[ErpRow, ...]) -> dict[Any, dict[str, Any]]:
    after = {key: dict(values) for key, values in book.items()}
    for row in rows:
        key = (row.entity_set, row.company, row.key)
        if row.delete:
            after.pop(key, None)
        else:
            after[key] = {**after.get(key, {}), **dict(row.values)}
    return after


@given(rows=st.lists(ROWS, max_size=8))
def test_replaying_a_plan_changes_nothing(rows: list[dict[str, Any]]) -> None:
    sent = planned(*(Change("salesorders", str(index), row) for index, row in enumerate(rows)))
    once = applied({}, sent)
    assert applied(once, sent) == once


@given(first=ROWS, second=ROWS)
def test_two_steps_lead_where_one_does(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Sending what changed, after sending the whole, gives what sending the whole again would give."""
    second = {**second, "msdyn_salesordernumber": first["msdyn_salesordernumber"]}
    if not (passes(HEADER, first) and passes(HEADER, second)):
        return
    book = applied({}, planned(Change("salesorders", "h", first)))
    stepwise = applied(book, planned(Change("salesorders", "h", second, first)))
    whole = applied({}, planned(Change("salesorders", "h", second)))
    for key, values in whole.items():
        assert {name: value for name, value in stepwise[key].items() if value != ""} == values


def test_money_is_exact() -> None:
    row = to_erp(LINE, line(priceperunit=19.99), Masters()).unwrap()
    assert dict(row.values)["SalesPrice"] == Decimal("19.99")
