"""The F&O twin refuses what F&O refuses, and its books follow the documented statuses."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from iom_adapters._twin import Fault, serve, transport
from iom_adapters.fno.office import Change, Customer, Item, Malformed, Rejection, Vetoed
from iom_adapters.fno.schema import NAMESPACE
from iom_adapters.fno.twin import THROTTLED, FnoTwin

from ._fno import Clock, Environment

HEADER = {"dataAreaId": "usmf", "OrderingCustomerAccountNumber": "US-WEB", "CustomersOrderReference": "BC-1"}
LINE = {"ItemNumber": "CHAIR", "OrderedSalesQuantity": 2, "SalesPrice": 19.9, "ShippingWarehouseId": "11"}


@pytest.fixture
def env() -> Environment:
    return Environment()


def enter(twin: FnoTwin, *lines: dict[str, Any], **header: Any) -> str:
    return twin.enter("usmf", lines or (LINE,), OrderingCustomerAccountNumber="US-WEB", **header)


def status(twin: FnoTwin, number: str) -> str:
    (order,) = twin.rows("SalesOrderHeadersV2", f"SalesOrderNumber eq '{number}'")
    return str(order["SalesOrderProcessingStatus"])


class TestAccess:
    def form(self, **changes: str) -> dict[str, str]:
        form = {
            "grant_type": "client_credentials",
            "client_id": "iom",
            "client_secret": "secret",
            "scope": "https://fno.test/.default",
        }
        return {**form, **changes}

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"client_secret": "wrong"}, (401, "invalid_client")),
            ({"client_id": "nobody"}, (400, "unauthorized_client")),
            ({"grant_type": "password"}, (400, "unsupported_grant_type")),
            ({"scope": "https://fno.test//.default"}, (400, "invalid_scope")),
            ({"scope": "https://fno.test"}, (400, "invalid_scope")),
        ],
    )
    def test_a_wrong_token_request_is_refused_as_entra_does(
        self, env: Environment, changes: dict[str, str], expected: tuple[int, str]
    ) -> None:
        reply = env.client.post("https://fno.test/t/oauth2/v2.0/token", data=self.form(**changes))
        assert (reply.status_code, reply.json()["error"]) == expected
        assert reply.json()["error_description"].startswith("AADSTS")

    def test_ad_fs_wants_a_resource(self, env: Environment) -> None:
        url = "https://fno.test/adfs/oauth2/token"
        assert env.client.post(url, data=self.form()).status_code == 400
        assert env.client.post(url, data=self.form(resource="https://fno.test")).status_code == 200

    def test_data_needs_a_token_that_still_lives(self, env: Environment) -> None:
        token = env.client.post("https://fno.test/t/oauth2/v2.0/token", data=self.form()).json()
        assert (token["token_type"], token["expires_in"]) == ("Bearer", 3599)
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        assert env.client.get("https://fno.test/data/Warehouses").status_code == 401
        assert env.client.get("https://fno.test/data/Warehouses", headers=headers).status_code == 200
        env.clock.advance(seconds=3600)
        assert env.client.get("https://fno.test/data/Warehouses", headers=headers).status_code == 401

    def test_an_app_that_is_not_listed_in_fno_gets_401(self) -> None:
        assert Environment(listed=()).raw("GET", "/data/Warehouses").status_code == 401

    def test_throttling_says_when_to_come_back_in_microsofts_words(self, env: Environment) -> None:
        env.twin.throttle(1, 7, "requests")
        reply = env.raw("GET", "/data/Warehouses")
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
        assert reply.json()["error"]["message"] == THROTTLED["requests"]
        assert "exeeded" in THROTTLED["requests"]
        assert env.raw("GET", "/data/Warehouses").status_code == 200


class TestReading:
    def test_the_service_document_and_metadata_name_the_sets(self, env: Environment) -> None:
        names = [each["name"] for each in env.raw("GET", "/data").json()["value"]]
        assert "SalesOrderHeadersV2" in names
        text = env.raw("GET", "/data/$metadata").text
        assert all(f'<EntitySet Name="{name}"' in text for name in names)
        assert f'Type="{NAMESPACE}.SalesOrderProcessingStatus"' in text

    def test_only_the_default_company_without_cross_company(self, env: Environment) -> None:
        for company in ("usmf", "demf"):
            account = "US-WEB" if company == "usmf" else "DE-WEB"
            env.twin.enter(company, [LINE], OrderingCustomerAccountNumber=account)

        def seen(query: str) -> list[str]:
            return [row["dataAreaId"] for row in env.raw("GET", f"/data/SalesOrderHeadersV2{query}").json()["value"]]

        assert seen("") == ["usmf"]
        assert seen("?cross-company=true") == ["demf", "usmf"]
        assert seen("?$filter=dataAreaId eq 'demf'") == []
        assert seen("?cross-company=true&$filter=dataAreaId eq 'DEMF'") == ["demf"]

    def test_a_key_needs_every_field_in_any_order_and_cross_company_elsewhere(self, env: Environment) -> None:
        number = env.twin.enter("demf", [LINE], OrderingCustomerAccountNumber="DE-WEB")
        path = f"/data/SalesOrderHeadersV2(SalesOrderNumber='{number}',dataAreaId='demf')"
        assert env.raw("GET", path).status_code == 404
        assert env.raw("GET", path + "?cross-company=true").json()["SalesOrderNumber"] == number
        assert env.raw("PATCH", path, json={"Email": "a@b.example"}).status_code == 404
        assert env.raw("PATCH", path + "?cross-company=true", json={"Email": "a@b.example"}).status_code == 204
        assert env.raw("GET", f"/data/SalesOrderHeadersV2('{number}')?cross-company=true").status_code == 400
        assert env.raw("GET", "/data/SalesOrderHeadersV2(dataAreaId='demf')?cross-company=true").status_code == 400

    def test_names_are_case_sensitive(self, env: Environment) -> None:
        assert env.raw("GET", "/data/salesorderheadersv2").status_code == 404
        assert env.raw("GET", "/data/SalesOrderHeadersV2?$select=salesordernumber").status_code == 400
        assert env.raw("GET", "/data/SalesOrderLinesV2").status_code == 404

    @pytest.mark.parametrize(
        "where",
        [
            "contains(SalesOrderNumber,'8')",
            "SalesOrderNumber in ('1','2')",
            "SalesOrderStatus eq 'Backorder'",
            f"SalesOrderStatus eq {NAMESPACE}.NoYes'Yes'",
            f"SalesOrderStatus eq {NAMESPACE}.SalesStatus'Open'",
            f"SalesOrderStatus gt {NAMESPACE}.SalesStatus'Backorder'",
            "DocumentStatus eq 'x'",
            "SalesOrderNumber eq",
        ],
    )
    def test_filters_fno_does_not_know_get_400(self, env: Environment, where: str) -> None:
        enter(env.twin)
        assert env.raw("GET", "/data/SalesOrderHeadersV2", params={"$filter": where}).status_code == 400

    def test_wildcards_and_enums_are_understood(self, env: Environment) -> None:
        enter(env.twin, CustomersOrderReference="BC-1")
        enter(env.twin, CustomersOrderReference="EB-2")
        for where in ("CustomersOrderReference eq 'bc*'", "CustomersOrderReference ne '*2'"):
            rows = env.raw("GET", "/data/SalesOrderHeadersV2", params={"$filter": where}).json()["value"]
            assert [row["CustomersOrderReference"] for row in rows] == ["BC-1"]
        where = f"SalesOrderStatus eq {NAMESPACE}.SalesStatus'Backorder'"
        reply = env.raw("GET", "/data/SalesOrderHeadersV2", params={"$filter": where, "$count": "true", "$top": "1"})
        assert (reply.json()["@odata.count"], len(reply.json()["value"])) == (2, 1)
        assert env.raw("GET", "/data/SalesOrderHeadersV2/$count").text == "2"

    def test_pages_are_the_servers_choice_and_links_lead_to_the_end(self) -> None:
        env = Environment(page_size=2)
        for _ in range(5):
            enter(env.twin)
        reply = env.raw("GET", "/data/SalesOrderHeadersV2?cross-company=true&$select=SalesOrderNumber")
        numbers: list[str] = []
        while True:
            page = reply.json()
            numbers += [row["SalesOrderNumber"] for row in page["value"]]
            if "@odata.nextLink" not in page:
                break
            assert page["@odata.nextLink"].startswith("https://fno.test/data/")
            reply = env.raw("GET", page["@odata.nextLink"].removeprefix("https://fno.test"))
        assert numbers == ["000891", "000892", "000893", "000894", "000895"]

    def test_values_have_fnos_shapes(self, env: Environment) -> None:
        enter(env.twin, RequestedShippingDate="2026-01-07T23:00:00Z")
        (row,) = env.raw("GET", "/data/SalesOrderHeadersV2").json()["value"]
        assert row["RequestedShippingDate"] == "2026-01-07T12:00:00Z"
        assert row["ConfirmedShippingDate"] == "1900-01-01T12:00:00Z"
        assert row["ArePricesIncludingSalesTax"] == "No"
        assert row["OrderTotalAmount"] == 39.8
        assert row["Email"] == ""
        assert row["@odata.etag"].startswith('W/"')
        assert None not in row.values()

    def test_uncertain_shapes_can_be_chosen(self) -> None:
        env = Environment(upper_areas=True, empty_date="1900-01-01T00:00:00Z", bi_entities=False)
        enter(env.twin)
        (row,) = env.raw("GET", "/data/SalesOrderHeadersV2").json()["value"]
        assert (row["dataAreaId"], row["ConfirmedShippingDate"]) == ("USMF", "1900-01-01T00:00:00Z")
        assert env.raw("GET", "/data/CustPackingSlipJourBiEntities").status_code == 403

    def test_master_data_can_be_read(self, env: Environment) -> None:
        def first(path: str) -> Any:
            return env.raw("GET", f"/data/{path}").json()["value"][0]

        assert first("Warehouses")["OperationalSiteId"] == "1"
        assert first("LegalEntities")["LegalEntityId"] == "demf"
        assert first("OperationalSitesV2")["SiteId"] == "1"
        assert first("ReleasedProductsV2")["ItemNumber"] == "CHAIR"
        assert first("CustomersV3?$filter=CustomerAccount eq 'US-WEB'")["PartyType"] == "Person"


class TestWriting:
    def post(self, env: Environment, entity_set: str, **values: Any) -> httpx.Response:
        return env.raw("POST", f"/data/{entity_set}", json=values)

    def cause(self, reply: httpx.Response) -> str:
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert error["message"] == "An error has occurred."
        return str(error["innererror"]["message"])

    def test_what_is_not_sent_is_filled_in_afterwards(self, env: Environment) -> None:
        made = self.post(env, "SalesOrderHeadersV2", **HEADER, DefaultShippingWarehouseId="21")
        assert made.status_code == 201
        row = made.json()
        assert row["SalesOrderNumber"] == "000891"
        assert (row["CurrencyCode"], row["InvoiceCustomerAccountNumber"]) == ("USD", "US-WEB")
        assert (row["DefaultShippingSiteId"], row["SalesOrderName"]) == ("2", "Web shop customer")
        line = self.post(
            env, "SalesOrderLines", dataAreaId="usmf", SalesOrderNumber="000891", ItemNumber="TABLE"
        ).json()
        assert (line["ShippingSiteId"], line["ShippingWarehouseId"]) == ("2", "21")
        assert (line["InventoryLotId"], line["SalesPrice"], line["SalesUnitSymbol"]) == ("012001", 100, "ea")

    def test_numbers_and_lots_are_per_company(self, env: Environment) -> None:
        here = self.post(env, "SalesOrderHeadersV2", **HEADER).json()
        there = self.post(env, "SalesOrderHeadersV2", dataAreaId="DEMF", OrderingCustomerAccountNumber="DE-WEB").json()
        assert (here["SalesOrderNumber"], there["SalesOrderNumber"]) == ("000891", "DE000001")
        assert (there["dataAreaId"], there["CurrencyCode"]) == ("demf", "EUR")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"OrderingCustomerAccountNumber": "US-999"}, "'US-999' in field 'Customer account' is not found"),
            ({"OrderingCustomerAccountNumber": ""}, "must be filled in"),
            ({"SalesOrderNumber": "MINE-1"}, "does not allow manual numbers"),
            ({"dataAreaId": "zzmf"}, "does not exist"),
            ({"CurrencyCode": "XXX"}, "Currency"),
            ({"DefaultShippingSiteId": "9"}, "'Site'"),
            ({"DefaultShippingSiteId": "2", "DefaultShippingWarehouseId": "11"}, "does not belong to site"),
            ({"DeliveryAddressCountryRegionISOCode": "XX"}, "'ISO code'"),
            ({"SalesOrderStatus": "Invoiced"}, "does not allow editing"),
            ({"NoSuchField": 1}, "does not exist on type"),
            ({"RequestedShippingDate": "2026-01-05"}, "Edm.DateTimeOffset"),
            ({"RequestedShippingDate": None}, "Edm.DateTimeOffset"),
            ({"IsDeliveryAddressPrivate": True}, "NoYes"),
            ({"Email": 5}, "Edm.String"),
        ],
    )
    def test_a_wrong_header_is_refused_and_leaves_nothing(
        self, env: Environment, changes: dict[str, Any], words: str
    ) -> None:
        assert words in self.cause(self.post(env, "SalesOrderHeadersV2", **{**HEADER, **changes}))
        assert env.twin.orders() == []

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"ShippingWarehouseId": ""}, "Inventory dimension Site is mandatory"),
            ({"ShippingWarehouseId": "99"}, "'Warehouse'"),
            ({"ItemNumber": "SOFA"}, "'SOFA' in field 'Item number'"),
            ({"ItemNumber": "LAMP"}, "Item 'LAMP' is blocked for 'Sales order'."),
            ({"OrderedSalesQuantity": 0}, "greater than zero"),
            ({"OrderedSalesQuantity": "2"}, "Edm.Decimal"),
            ({"CustomersLineNumber": 1.5}, "Edm.Int32"),
            ({"SalesOrderNumber": "000999"}, "'000999' in field 'Sales order'"),
            ({"InventoryLotId": "L1"}, "does not allow editing"),
        ],
    )
    def test_a_wrong_line_is_refused_with_an_infolog(
        self, env: Environment, changes: dict[str, Any], words: str
    ) -> None:
        env.twin.block_item("LAMP")
        number = self.post(env, "SalesOrderHeadersV2", **HEADER).json()["SalesOrderNumber"]
        body = {"dataAreaId": "usmf", "SalesOrderNumber": number, **LINE, **changes}
        assert words in self.cause(self.post(env, "SalesOrderLines", **body))
        assert env.twin.lines(number) == []

    def test_a_customer_on_hold_gets_no_order(self) -> None:
        twin = FnoTwin.demo()
        twin._office.customers["usmf", "BAD"] = Customer("usmf", "BAD", "Late payer", on_hold="All")
        with pytest.raises(Rejection, match="on hold"):
            twin.enter("usmf", [LINE], OrderingCustomerAccountNumber="BAD")

    def test_an_etag_guards_a_change(self, env: Environment) -> None:
        number = enter(env.twin)
        path = f"/data/SalesOrderHeadersV2(dataAreaId='usmf',SalesOrderNumber='{number}')"
        old = env.raw("GET", path).json()["@odata.etag"]
        assert env.raw("PATCH", path, json={"Email": "x"}, headers={"If-Match": old}).status_code == 204
        assert env.raw("PATCH", path, json={"Email": "y"}, headers={"If-Match": old}).status_code == 412
        env.twin.conflict_status = 409
        assert env.raw("PATCH", path, json={"Email": "y"}, headers={"If-Match": old}).status_code == 409
        assert env.raw("PATCH", path, json={"Email": "z"}, headers={"If-Match": "*"}).status_code == 204
        assert env.twin.orders()[0]["Email"] == "z"

    def test_lines_can_be_changed_and_deleted_until_they_are_delivered(self, env: Environment) -> None:
        number = enter(env.twin, LINE, {**LINE, "ItemNumber": "TABLE"})
        first, second = (
            f"/data/SalesOrderLines(dataAreaId='usmf',InventoryLotId='{each['InventoryLotId']}')"
            for each in env.twin.lines(number)
        )
        assert env.raw("PATCH", first, json={"OrderedSalesQuantity": 3}).status_code == 204
        assert env.twin.orders()[0]["OrderTotalAmount"] == 99.5
        assert env.raw("DELETE", second).status_code == 204
        env.twin.pack(number, {"1": 2})
        assert "less than" in self.cause(env.raw("PATCH", first, json={"OrderedSalesQuantity": 1}))
        assert "deliveries" in self.cause(env.raw("DELETE", first))

    def test_posted_documents_are_read_only(self, env: Environment) -> None:
        assert self.post(env, "SalesInvoiceHeadersV2", dataAreaId="usmf").status_code == 400
        assert env.raw("POST", "/data/SalesOrderHeadersV2(dataAreaId='usmf',SalesOrderNumber='1')").status_code == 405
        assert env.raw("POST", "/data/SalesOrderHeadersV2", content=b"[1]").status_code == 400
        assert env.raw("POST", "/data/SalesOrderHeadersV2", content=b"{").status_code == 400

    def test_a_fraction_of_a_cent_is_rounded_on_the_line(self, env: Environment) -> None:
        number = enter(env.twin, {**LINE, "OrderedSalesQuantity": 3, "SalesPrice": 3.33, "FixedPriceCharges": 0.01})
        assert env.twin.lines(number)[0]["LineAmount"] == 10


class TestBatch:
    def batch(self, env: Environment, *lines: dict[str, Any]) -> httpx.Response:
        parts = "".join(
            "--changeset_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
            f"Content-ID: {at}\r\n\r\n"
            "POST SalesOrderLines?cross-company=true HTTP/1.1\r\nContent-Type: application/json\r\n\r\n"
            f"{json.dumps(line)}\r\n"
            for at, line in enumerate(lines, 1)
        )
        body = (
            "--batch_1\r\nContent-Type: multipart/mixed; boundary=changeset_1\r\n\r\n"
            f"{parts}--changeset_1--\r\n"
            "--batch_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            "GET /data/Warehouses?$top=1 HTTP/1.1\r\n\r\n\r\n--batch_1--\r\n"
        )
        return env.raw(
            "POST", "/data/$batch", content=body, headers={"Content-Type": "multipart/mixed;boundary=batch_1"}
        )

    def test_a_change_set_is_one_transaction(self, env: Environment) -> None:
        number = enter(env.twin)
        good = {"dataAreaId": "usmf", "SalesOrderNumber": number, **LINE}
        reply = self.batch(env, good, {**good, "ItemNumber": "SOFA"})
        assert reply.status_code == 200
        assert reply.text.count("HTTP/1.1") == 2
        assert "HTTP/1.1 400" in reply.text
        assert len(env.twin.lines(number)) == 1
        reply = self.batch(env, good, good)
        assert reply.text.count("HTTP/1.1 201") == 2
        assert reply.text.count("HTTP/1.1 200") == 1
        assert "Content-ID: 2" in reply.text
        assert len(env.twin.lines(number)) == 3

    def test_a_batch_must_be_multipart(self, env: Environment) -> None:
        assert env.raw("POST", "/data/$batch", json={"requests": []}).status_code == 400


class TestStatuses:
    def test_an_order_goes_through_the_documented_statuses(self) -> None:
        twin = FnoTwin.demo()
        number = enter(twin, {**LINE, "OrderedSalesQuantity": 4})
        seen = [status(twin, number)]
        for work in (
            lambda: twin.confirm(number),
            lambda: twin.pick(number, {"1": 2}),
            lambda: twin.pack(number),
            lambda: twin.invoice(number),
            lambda: twin.pack(number),
            lambda: twin.invoice(number, {"1": 1}),
            lambda: twin.invoice(number),
        ):
            work()
            seen.append(status(twin, number))
        assert seen == [
            "Active",
            "Confirmed",
            "Picked",
            "PartiallyDelivered",
            "PartiallyInvoiced",
            "DeliveredPartiallyInvoiced",
            "DeliveredPartiallyInvoiced",
            "Invoiced",
        ]
        assert [slip["Qty"] for slip in twin.slips()] == [2, 2]
        assert [each["TotalInvoiceAmount"] for each in twin.invoices()] == [39.8, 19.9, 19.9]

    def test_older_environments_say_partially_invoiced(self) -> None:
        twin = FnoTwin.demo(newer_statuses=False)
        number = enter(twin)
        twin.pack(number)
        assert status(twin, number) == "Delivered"
        twin.invoice(number, {"1": 1})
        assert status(twin, number) == "PartiallyInvoiced"

    def test_parts_of_a_line_are_invoiced_to_its_amount_exactly(self) -> None:
        twin = FnoTwin.demo()
        number = enter(twin, {**LINE, "OrderedSalesQuantity": 3, "SalesPrice": 3.33, "FixedPriceCharges": 0.01})
        for _ in range(3):
            twin.invoice(number, {"1": 1})
        amounts = [each["TotalInvoiceAmount"] for each in twin.invoices()]
        assert amounts == [3.33, 3.34, 3.33]

    def test_canceling_takes_what_is_not_delivered(self) -> None:
        twin = FnoTwin.demo()
        number = enter(twin, LINE, {**LINE, "ItemNumber": "TABLE"})
        twin.pack(number, {"1": 1})
        twin.cancel(number, ["2"])
        assert [each["SalesOrderLineStatus"] for each in twin.lines(number)] == ["Backorder", "Canceled"]
        assert status(twin, number) == "PartiallyDelivered"
        twin.cancel(number)
        assert status(twin, number) == "Delivered"
        other = enter(twin)
        twin.cancel(other)
        assert status(twin, other) == "Canceled"
        for work in (twin.pick, twin.pack, twin.invoice, twin.confirm):
            with pytest.raises(ValueError, match="canceled"):
                work(other)

    def test_people_can_not_do_more_than_is_left(self) -> None:
        twin = FnoTwin.demo()
        number = enter(twin)
        for work in (twin.pick, twin.pack, twin.invoice):
            with pytest.raises(ValueError, match="not within"):
                work(number, {"1": 3})
            with pytest.raises(ValueError, match="no line"):
                work(number, {"7": 1})
            work(number)
            with pytest.raises(ValueError, match="nothing left"):
                work(number)
        with pytest.raises(ValueError, match="0 orders"):
            twin.confirm("nope")

    def test_staff_moves_every_open_order_one_stage(self) -> None:
        twin = FnoTwin.demo()
        enter(twin)
        enter(twin)
        assert [twin.staff_step() for _ in range(4)] == [2, 2, 2, 0]
        assert {order["SalesOrderStatus"] for order in twin.orders()} == {"Invoiced"}
        assert len(twin.slips()) == len(twin.invoices()) == 2


class TestTransactions:
    def test_a_listener_hears_of_a_transaction_and_may_undo_it(self) -> None:
        twin = FnoTwin.demo()
        heard: list[tuple[tuple[Change, ...], str]] = []
        twin.listeners.append(lambda changes, origin: heard.append((changes, origin)))
        number = enter(twin)
        ((changes, origin),) = heard
        assert [(each.entity_set, each.kind) for each in changes] == [
            ("CDSSalesOrderHeaders", "create"),
            ("CDSSalesOrderLinesV2", "create"),
        ]
        assert origin == ""

        def veto(changes: tuple[Change, ...], origin: str) -> None:
            raise Vetoed("Unable to write data to entity salesorders.")

        twin.listeners.append(veto)
        before = (twin.orders(), twin.lines(number))
        for work in (twin.pack, twin.pick, twin.invoice, twin.cancel, lambda _: enter(twin)):
            with pytest.raises(Vetoed):
                work(number)
        assert (twin.orders(), twin.lines(number)) == before
        assert twin.slips() == twin.invoices() == []
        twin.listeners.pop()
        assert enter(twin) == "000892"

    def test_a_veto_over_http_is_an_error_and_changes_nothing(self, env: Environment) -> None:
        def veto(changes: tuple[Change, ...], origin: str) -> None:
            raise Vetoed("Unable to write data to entity salesorders.")

        env.twin.listeners.append(veto)
        reply = env.raw("POST", "/data/SalesOrderHeadersV2", json=HEADER)
        assert reply.status_code == 400
        assert "Unable to write" in reply.json()["error"]["innererror"]["message"]
        assert env.twin.orders() == []

    def test_dual_write_creates_and_changes_rows_by_their_keys(self) -> None:
        twin = FnoTwin.demo()
        origins: list[str] = []
        twin.listeners.append(lambda changes, origin: origins.append(origin))
        head = {"dataAreaId": "usmf", "SalesOrderNumber": "DV-1", "OrderingCustomerAccountNumber": "US-WEB"}
        assert twin.upsert("CDSSalesOrderHeaders", head)["SalesOrderNumber"] == "DV-1"
        line = {
            "dataAreaId": "usmf",
            "SalesOrderNumber": "DV-1",
            "LineCreationSequenceNumber": 3,
            "ProductNumber": "CHAIR",
            "OrderedSalesQuantity": 2,
            "ShippingWarehouseId": "11",
        }
        assert twin.upsert("CDSSalesOrderLinesV2", line)["LineAmount"] == 200
        assert twin.upsert("CDSSalesOrderLinesV2", {**line, "OrderedSalesQuantity": 5})["LineAmount"] == 500
        assert twin.upsert("CDSSalesOrderHeaders", {**head, "Email": "a@b"})["OrderTotalAmount"] == 500
        assert origins == ["dual-write"] * 4

        def both() -> None:
            with twin.transaction():
                twin.upsert("CDSSalesOrderHeaders", {**head, "Email": "lost"})
                twin.upsert("CDSSalesOrderLinesV2", {**line, "LineCreationSequenceNumber": 4, "ProductNumber": "SOFA"})

        with pytest.raises(Rejection):
            both()
        with pytest.raises(Malformed):
            twin.upsert("CDSSalesOrderHeaders", {**head, "Odd": 1})
        assert twin.orders()[0]["Email"] == "a@b"
        twin.delete("CDSSalesOrderLinesV2", "usmf", "DV-1", 3)
        assert twin.lines("DV-1") == []
        twin.delete("CDSSalesOrderHeaders", "usmf", "DV-1")
        assert twin.orders() == []

    def test_the_books_survive_a_restart(self, tmp_path: Path) -> None:
        twin = FnoTwin.demo(path=tmp_path / "fno.db")
        number = enter(twin, CustomersOrderReference="BC-1")
        twin.pack(number)
        before = (twin.orders(), twin.lines(number), twin.slips())
        again = FnoTwin.demo(path=tmp_path / "fno.db")  # nobody closed the first one
        assert (again.orders("bc-1"), again.lines(number), again.slips()) == before
        assert again.staff_step() == 1
        assert enter(again) == "000892"
        again.close()
        twin.close()

    def test_threads_do_not_share_numbers(self) -> None:
        twin = FnoTwin.demo()
        threads = [threading.Thread(target=lambda: [enter(twin) for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({order["SalesOrderNumber"] for order in twin.orders()}) == 80

    def test_business_events_go_out_after_the_commit(self) -> None:
        bodies: list[bytes] = []
        twin = FnoTwin.demo(clock=Clock())

        def deliver(body: bytes) -> None:
            assert twin.invoices()
            bodies.append(body)

        twin.deliver = deliver
        number = enter(twin)
        invoice = twin.invoice(number)
        event = json.loads(bodies[0])
        assert (event["BusinessEventId"], event["InvoiceId"]) == ("SalesInvoicePostedBusinessEvent", invoice)
        assert (event["SalesOrderId"], event["LegalEntity"]) == (number, "USMF")
        assert event["EventTime"] == "/Date(1767605400000)/"

        def down(body: bytes) -> None:
            raise OSError

        twin.deliver = down
        twin.invoice(enter(twin))
        assert len(twin.undelivered) == 1

    def test_a_lost_answer_has_been_applied(self, env: Environment) -> None:
        env.twin.faults.plan(Fault("lost", "POST", "/data/SalesOrderHeadersV2"))
        with pytest.raises(httpx.ReadError):
            env.raw("POST", "/data/SalesOrderHeadersV2", json=HEADER)
        assert len(env.twin.orders()) == 1

    def test_it_serves_real_http(self) -> None:
        twin = FnoTwin.demo(page_size=1)
        serving = serve(twin)
        try:
            with httpx.Client(base_url=serving.url) as client:
                form = {"grant_type": "client_credentials", "client_id": "iom", "client_secret": "secret"}
                token = client.post("/t/oauth2/v2.0/token", data={**form, "scope": f"{serving.url}/.default"}).json()
                headers = {"Authorization": f"Bearer {token['access_token']}"}
                page = client.get("/data/Warehouses", headers=headers).json()
                assert page["@odata.nextLink"].startswith(serving.url)
                assert client.get(page["@odata.nextLink"], headers=headers).json()["value"][0]["WarehouseId"] == "12"
        finally:
            serving.close()

    def test_an_unknown_path_is_not_found(self) -> None:
        twin = FnoTwin.demo([Item("X", company="usmf")])
        client = httpx.Client(transport=transport(("fno.test", twin)))
        assert client.get("https://fno.test/elsewhere").status_code == 404
        with pytest.raises(Rejection, match="'X'"):
            twin.enter("demf", [{**LINE, "ItemNumber": "X"}], OrderingCustomerAccountNumber="DE-WEB")
