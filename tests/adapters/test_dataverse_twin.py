"""The twin behaves as the Web API is documented to, and takes what real clients were recorded sending."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus

import pytest

from iom_adapters._twin import TwinRequest, TwinResponse, answer
from iom_adapters.dataverse.replication import DualWriteRefusal, ErpChange
from iom_adapters.dataverse.tables import TABLES
from iom_adapters.dataverse.twin import BAD_KEY_CHARACTERS, ROOT, DataverseTwin
from tests.adapters._dataverse import Clock, ErpBook, twin

SPECS = Path(__file__).parents[3] / "shared" / "specs" / "dataverse"


class Client:
    """A client that builds requests by hand, as awkwardly as it likes."""

    def __init__(self, to: DataverseTwin | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.twin = to if to is not None else twin(self.clock, **options)
        form = b"grant_type=client_credentials&client_id=iom&client_secret=secret&scope=https%3A%2F%2Fx%2F.default"
        reply = self.twin.handle(TwinRequest("POST", "/t/oauth2/v2.0/token", (), {}, form))
        self.token = json.loads(reply.body)["access_token"]

    def __call__(
        self, method: str, path: str, body: Any = None, content: bytes | None = None, **headers: str
    ) -> TwinResponse:
        target = path if path.startswith("/") else ROOT + path
        path_part, _, query = target.partition("?")
        pairs = tuple(
            (name, unquote_plus(value)) for name, _, value in (each.partition("=") for each in query.split("&") if each)
        )
        sent = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        raw = content if content is not None else b"" if body is None else json.dumps(body).encode()
        request = TwinRequest(
            method, path_part, pairs, {"host": "dv.test", "authorization": f"Bearer {self.token}", **sent}, raw, query
        )
        found = answer(self.twin, request)
        assert found is not None
        return found

    def get(self, path: str, prefer: str = "") -> Any:
        found = self("GET", path, prefer=prefer)
        assert found.status == 200, found.body
        return json.loads(found.body)

    def order(self, number: str = "SO-1", **columns: Any) -> str:
        company = self.twin.rows("cdm_companies")[0]["cdm_companyid"]
        body = {
            "msdyn_salesordernumber": number,
            "msdyn_isreadytosync": False,
            "msdyn_Company@odata.bind": f"/cdm_companies({company})",
            "customerid_contact@odata.bind": f"/contacts({self.twin.rows('contacts')[0]['contactid']})",
            "transactioncurrencyid@odata.bind": "/transactioncurrencies(isocurrencycode='USD')",
            **columns,
        }
        found = self("POST", "salesorders", body)
        assert found.status == 204, found.body
        return found.headers["OData-EntityId"].rpartition("(")[2].rstrip(")")


def error(response: TwinResponse) -> tuple[int, str, str]:
    body = json.loads(response.body)["error"]
    assert set(body) == {"code", "message"}
    return response.status, body["code"], body["message"]


# --- tables --------------------------------------------------------------------------------------------------


def test_our_columns_are_those_of_the_common_data_model() -> None:
    path = SPECS / "tables.json"
    if not path.exists():
        pytest.skip("the published tables are not beside this repository")
    for logical, table in json.loads(path.read_text()).items():
        ours = next(each for each in TABLES.values() if each.logical == logical)
        assert ours.entity_set == table["entitySet"]
        assert ours.id_column == table["primaryKey"]
        for column, length in ours.lengths.items():
            theirs = table["attributes"].get(column)
            if theirs is not None:
                assert theirs.get("maxLength") == length, column
        published = {name for name, each in table["attributes"].items() if "lookup" not in each.get("webApiType", "")}
        not_modeled = {name for name in published - ours.stored if not name.endswith(("_base", "name"))}
        assert not_modeled <= {"accountid", "contactid", "willcall", "entityimageid"}, (logical, not_modeled)


# --- rights and limits ---------------------------------------------------------------------------------------


def test_without_a_token_there_is_no_answer() -> None:
    client = Client()
    assert client("GET", "WhoAmI", authorization="Bearer forged").status == 401
    client.clock.forward(hours=2)
    assert client("GET", "WhoAmI").status == 401


@pytest.mark.parametrize(
    "form", [b"grant_type=password", b"grant_type=client_credentials&client_id=iom&scope=x/.default"]
)
def test_only_good_credentials_get_a_token(form: bytes) -> None:
    assert twin().handle(TwinRequest("POST", "/t/oauth2/v2.0/token", (), {}, form)).status in (400, 401)


def test_service_protection_limits_requests() -> None:
    client = Client(request_limit=2)
    first = client("GET", "WhoAmI()")
    assert first.headers["x-ms-ratelimit-burst-remaining-xrm-requests"] == "1"
    client("GET", "WhoAmI")
    found = client("GET", "WhoAmI")
    assert error(found) == (
        429,
        "0x80072322",
        "Number of requests exceeded the limit of 6000 over time window of 300 seconds.",
    )
    assert found.headers["retry-after"].isdigit()
    client.clock.forward(minutes=5)
    assert client("GET", "WhoAmI").status == 200


# --- one row -------------------------------------------------------------------------------------------------


def test_creating_answers_where_the_row_is() -> None:
    client = Client()
    found = client("POST", "accounts", {"name": "A", "accountnumber": "A-1"})
    assert found.status == 204
    assert re.fullmatch(rf"https://dv\.test{ROOT}accounts\([0-9a-f-]{{36}}\)", found.headers["OData-EntityId"])


def test_the_row_itself_comes_when_asked_for() -> None:
    client = Client()
    found = client("POST", "accounts?$select=name", {"name": "A"}, prefer="return=representation")
    assert (found.status, found.headers["Preference-Applied"]) == (201, "return=representation")
    assert "OData-EntityId" not in found.headers
    body = json.loads(found.body)
    assert body["name"] == "A"
    assert set(body) == {"@odata.context", "@odata.etag", "name", "accountid"}


def test_patch_by_id_is_an_upsert_and_tells_not_which() -> None:
    client = Client()
    row = "accounts(11111111-1111-1111-1111-111111111111)"
    assert [client("PATCH", row, {"name": name}).status for name in "AB"] == [204, 204]
    assert client.get(f"{row}?$select=name")["name"] == "B"
    statuses = [
        client("PATCH", each, {"name": "C"}, prefer="return=representation").status
        for each in (row, "accounts(22222222-1111-1111-1111-111111111111)")
    ]
    assert statuses == [200, 201]


def test_patch_by_alternate_key() -> None:
    client = Client()
    company = client.twin.rows("cdm_companies")[0]["cdm_companyid"]
    key = f"accounts(accountnumber='O''Hara',_msdyn_company_value={company})"
    assert client("PATCH", key, {"name": "first"}).status == 204
    assert client("PATCH", key, {"name": "second"}).status == 204
    assert [row["name"] for row in client.twin.rows("accounts") if row["accountnumber"] == "O'Hara"] == ["second"]


def test_key_columns_in_the_body_change_the_key() -> None:
    client = Client()
    company = client.twin.rows("cdm_companies")[0]["cdm_companyid"]
    key = f"accounts(accountnumber='A',_msdyn_company_value={company})"
    client("PATCH", key, {"accountnumber": "B"})
    assert client("GET", key).status == 404
    assert client.twin.find("accounts", accountnumber="B") is not None


def test_a_key_that_is_not_defined_is_refused() -> None:
    assert Client()("PATCH", "accounts(name='A')", {}).status == 400


@pytest.mark.parametrize("character", sorted(BAD_KEY_CHARACTERS - {"/", "\\", "?"}))
def test_some_characters_break_a_key(character: str) -> None:
    client = Client()
    assert client("GET", f"uoms(msdyn_symbol='a{quote(character)}b')").status == 400


def test_preconditions() -> None:
    client = Client()
    row = "accounts(11111111-1111-1111-1111-111111111111)"
    status, code, message = error(client("PATCH", row, {"name": "A"}, if_match="*"))
    assert (status, code) == (404, "0x80040217")
    assert message == "account With Id = 11111111-1111-1111-1111-111111111111 Does Not Exist"
    assert client("PATCH", row, {"name": "A"}, if_none_match="*").status == 204
    status, _, message = error(client("PATCH", row, {"name": "B"}, if_none_match="*"))
    assert (status, message) == (412, "A record with matching key values already exists.")
    etag = client.get(row)["@odata.etag"]
    assert client("PATCH", row, {"name": "B"}, if_match=etag).status == 204
    assert error(client("PATCH", row, {"name": "C"}, if_match=etag)) == (
        412,
        "0x80060882",
        "The version of the existing record doesn't match the RowVersion property provided.",
    )
    assert client("DELETE", row, if_match=etag).status == 412
    newer = client.get(row)["@odata.etag"]
    assert client("GET", row, if_none_match=newer).status == 304
    assert client("DELETE", row).status == 204
    assert client("DELETE", row).status == 404


def test_an_alternate_key_is_unique() -> None:
    client = Client()
    client.order("SO-1")
    company = client.twin.rows("cdm_companies")[0]["cdm_companyid"]
    again = {"msdyn_salesordernumber": "so-1", "msdyn_Company@odata.bind": f"/cdm_companies({company})"}
    assert client("POST", "salesorders", again).status == 412
    assert len(client.twin.rows("salesorders")) == 1


def test_null_key_values_are_not_unique() -> None:
    client = Client()
    assert [client("POST", "salesorders", {"name": name}).status for name in "AB"] == [204, 204]


def test_navigation_properties_mind_their_case() -> None:
    client = Client()
    company = client.twin.rows("cdm_companies")[0]["cdm_companyid"]
    bind = f"/cdm_companies({company})"
    assert client("POST", "accounts", {"msdyn_Company@odata.bind": bind}).status == 204
    assert client("POST", "accounts", {"msdyn_company@odata.bind": bind}).status == 400


@pytest.mark.parametrize(
    "body",
    [
        {"nonsense": 1},
        {"statecode": 0},
        {"msdyn_salesordernumber": "X" * 21},
        {"name": 7},
        {"_customerid_value": "11111111-1111-1111-1111-111111111111"},
        {"transactioncurrencyid@odata.bind": "/accounts(11111111-1111-1111-1111-111111111111)"},
        [],
    ],
)
def test_what_a_table_does_not_take(body: Any) -> None:
    client = Client()
    assert client("POST", "salesorders", body).status == 400
    assert client.twin.rows("salesorders") == []


def test_a_lookup_must_lead_somewhere() -> None:
    client = Client()
    status, code, _ = error(
        client(
            "POST", "salesorders", {"transactioncurrencyid@odata.bind": "/transactioncurrencies(isocurrencycode='XXX')"}
        )
    )
    assert (status, code) == (404, "0x80060891")


def test_a_company_can_not_be_changed() -> None:
    client = Client()
    row = client.order()
    other = client.twin.add_company("demf", "EUR")
    assert (
        client("PATCH", f"salesorders({row})", {"msdyn_Company@odata.bind": f"/cdm_companies({other})"}).status == 400
    )


def test_defaults_of_a_new_order() -> None:
    client = Client()
    client("POST", "salesorders", {"name": "A"})
    (row,) = client.twin.rows("salesorders")
    assert row["msdyn_isreadytosync"] is True
    assert (row["statecode"], row["statuscode"], row["msdyn_ordertype"]) == (0, 1, 192350000)


def test_deep_insert_and_cascading_delete() -> None:
    client = Client()
    row = client.order(order_details=[{"quantity": 1, "sequencenumber": 1}, {"quantity": 2, "sequencenumber": 2}])
    assert [each["quantity"] for each in client.twin.rows("salesorderdetails")] == [1, 2]
    found = client.get(f"salesorders({row})?$select=name&$expand=order_details($select=quantity)")
    assert [each["quantity"] for each in found["order_details"]] == [1, 2]
    client("DELETE", f"salesorders({row})")
    assert client.twin.rows("salesorderdetails") == []


def test_a_deep_insert_is_all_or_nothing() -> None:
    client = Client()
    assert client("POST", "salesorders", {"name": "A", "order_details": [{"nonsense": 1}]}).status == 400
    assert client.twin.rows("salesorders") == []


def test_a_line_needs_its_order() -> None:
    assert Client()("POST", "salesorderdetails", {"quantity": 1}).status == 400


def test_single_properties_and_references() -> None:
    client = Client()
    row = f"salesorders({client.order()})"
    assert client("PUT", f"{row}/name", {"value": "new"}).status == 204
    assert client.get(f"{row}/name")["value"] == "new"
    assert client("GET", f"{row}/name/$value").body == b"new"
    assert client("DELETE", f"{row}/name").status == 204
    level = client.twin.add("pricelevels", name="retail")
    target = {"@odata.id": f"https://dv.test{ROOT}pricelevels({level})"}
    assert client("PUT", f"{row}/pricelevelid/$ref", target).status == 204
    assert client.get(f"{row}?$select=_pricelevelid_value")["_pricelevelid_value"] == level
    assert client("PATCH", row, {"pricelevelid@odata.bind": None}).status == 204
    assert client.get(f"{row}?$select=_pricelevelid_value")["_pricelevelid_value"] is None


def test_annotations_come_when_asked_for() -> None:
    client = Client()
    row = f"salesorders({client.order()})"
    note = "_customerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"
    assert note not in client.get(row)
    assert client.get(row, prefer='odata.include-annotations="*"')[note] == "contact"


def test_metadata_tells_navigation_properties() -> None:
    found = Client().get("EntityDefinitions(LogicalName='salesorder')/ManyToOneRelationships")["value"]
    names = {each["ReferencingEntityNavigationPropertyName"]: each["ReferencedEntity"] for each in found}
    assert names["msdyn_Company"] == "cdm_company"
    assert names["customerid_account"] == "account"
    assert names["customerid_contact"] == "contact"


# --- many rows -----------------------------------------------------------------------------------------------


def test_queries() -> None:
    client = Client()
    for index, city in enumerate(["Reno", "Sparks", None]):
        client.order(f"SO-{index}", shipto_city=city, name=f"N{index}")

    def numbers(query: str) -> list[str]:
        return [row["msdyn_salesordernumber"] for row in client.get(f"salesorders?{query}")["value"]]

    assert numbers("$filter=shipto_city eq 'reno'") == ["SO-0"]
    assert numbers("$filter=shipto_city eq null") == ["SO-2"]
    assert numbers("$filter=contains(name,'1') or startswith(name,'n2')") == ["SO-1", "SO-2"]
    assert numbers("$orderby=name desc&$top=2") == ["SO-2", "SO-1"]
    inside = "Microsoft.Dynamics.CRM.In(PropertyName='shipto_city',PropertyValues=['Reno','Sparks'])"
    assert numbers(f"$filter={inside}") == ["SO-0", "SO-1"]
    assert client.get("salesorders?$count=true&$top=1")["@odata.count"] == 3
    assert client("GET", "salesorders/$count").body == b"3"
    assert client.get("salesorders?$select=shipto_city")["value"][2]["shipto_city"] is None


@pytest.mark.parametrize("query", ["$skip=1", "$filter=nonsense eq 1", "$filter=name eq", "$select=nonsense", "$top=x"])
def test_queries_that_are_not_understood(query: str) -> None:
    assert Client()("GET", f"salesorders?{query}").status == 400


def test_an_unknown_table_is_not_found() -> None:
    assert Client()("GET", "salesorder").status == 404


def test_pages() -> None:
    client = Client()
    for index in range(5):
        client.order(f"SO-{index}")
    url, seen, pages = "salesorders?$select=msdyn_salesordernumber&$orderby=msdyn_salesordernumber desc", [], 0
    while url:
        page = client.get(url, prefer="odata.maxpagesize=2")
        seen += [row["msdyn_salesordernumber"] for row in page["value"]]
        url = page.get("@odata.nextLink", "").removeprefix("https://dv.test")
        pages += 1
    assert seen == ["SO-4", "SO-3", "SO-2", "SO-1", "SO-0"]
    assert pages == 3


def test_the_page_size_must_be_repeated() -> None:
    client = Client()
    for index in range(5):
        client.order(f"SO-{index}")
    page = client.get("salesorders", prefer="odata.maxpagesize=2")
    rest = client.get(page["@odata.nextLink"].removeprefix("https://dv.test"))
    assert len(rest["value"]) == 3


def test_top_and_page_size_exclude_each_other() -> None:
    client = Client()
    for index in range(3):
        client.order(f"SO-{index}")
    page = client.get("salesorders?$top=3", prefer="odata.maxpagesize=2")
    assert (len(page["value"]), "@odata.nextLink" in page) == (3, False)


def track(client: Client, url: str) -> tuple[list[Any], str]:
    rows: list[Any] = []
    while True:
        page = client.get(url, prefer="odata.track-changes,odata.maxpagesize=2")
        rows += page["value"]
        if "@odata.deltaLink" in page:
            return rows, page["@odata.deltaLink"].removeprefix("https://dv.test")
        url = page["@odata.nextLink"].removeprefix("https://dv.test")


def test_change_tracking() -> None:
    client = Client()
    ids = [client.order(f"SO-{index}") for index in range(3)]
    rows, link = track(client, "salesorders?$select=name")
    assert [row["salesorderid"] for row in rows] == ids
    assert track(client, link)[0] == []
    client("PATCH", f"salesorders({ids[1]})", {"name": "changed"})
    client("DELETE", f"salesorders({ids[2]})")
    client("POST", "accounts", {"name": "another table"})
    rows, later = track(client, link)
    assert rows[0]["name"] == "changed"
    assert rows[1]["id"] == ids[2]
    assert rows[1]["reason"] == "deleted"
    assert rows[1]["@odata.context"].endswith("#salesorders/$deletedEntity")
    assert track(client, later)[0] == []
    assert len(track(client, link)[0]) == 2, "a delta link can be read again"


@pytest.mark.parametrize("option", ["$filter=statecode eq 0", "$orderby=name", "$expand=order_details", "$top=1"])
def test_change_tracking_takes_no_filter(option: str) -> None:
    status, _, message = error(Client()("GET", f"salesorders?{option}", prefer="odata.track-changes"))
    assert status == 400
    assert "isn't supported when Change Tracking is enabled." in message


def test_a_delta_token_ends_after_seven_days() -> None:
    client = Client()
    client.order()
    _, link = track(client, "salesorders?$select=name")
    client.clock.forward(days=7, seconds=1)
    client.token = Client(client.twin).token
    assert client("GET", link).status == 400


# --- $batch --------------------------------------------------------------------------------------------------


def batch(client: Client, *parts: str, prefer: str = "", quoted: bool = True) -> TwinResponse:
    body = "".join(f"--b\r\n{part}\r\n" for part in parts) + "--b--\r\n"
    boundary = '"b"' if quoted else "b"
    return client(
        "POST", "$batch", content=body.encode(), content_type=f"multipart/mixed; boundary={boundary}", prefer=prefer
    )


def operation(line: str, body: Any = None, content_id: str = "", **headers: str) -> str:
    head = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
    head += f"Content-ID: {content_id}\r\n" if content_id else ""
    inner = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{head}\r\n{line} HTTP/1.1\r\n{inner}\r\n{'' if body is None else json.dumps(body)}"


def change_set(*parts: str) -> str:
    inner = "".join(f"--c\r\n{part}\r\n" for part in parts)
    return f"Content-Type: multipart/mixed; boundary=c\r\n\r\n{inner}--c--\r\n"


def statuses(response: TwinResponse) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3})", response.body)]


def test_a_change_set_is_all_or_nothing() -> None:
    client = Client()
    good = operation(f"POST {ROOT}accounts", {"name": "A"}, "1")
    bad = operation(f"POST {ROOT}accounts", {"nonsense": 1}, "2")
    found = batch(client, change_set(good, bad))
    assert (found.status, statuses(found)) == (200, [400])
    assert client.twin.find("accounts", name="A") is None


def test_a_change_set_refers_to_what_it_made() -> None:
    client = Client()
    found = batch(
        client,
        change_set(
            operation(f"POST {ROOT}salesorders", {"name": "A", "msdyn_isreadytosync": False}, "1"),
            operation("PATCH $1", {"description": "x"}, "2", If_Match="*"),
            operation(f"POST {ROOT}salesorderdetails", {"quantity": 3, "salesorderid@odata.bind": "$1"}, "3"),
        ),
    )
    assert statuses(found) == [204, 204, 204]
    assert found.body.count(b"Content-ID: ") == 3
    (row,) = client.twin.rows("salesorders")
    assert row["description"] == "x"
    assert client.twin.rows("salesorderdetails")[0]["_salesorderid_value"] == row["salesorderid"]


def test_a_change_set_holds_no_reading() -> None:
    assert statuses(batch(Client(), change_set(operation(f"GET {ROOT}accounts")))) == [400]


def test_a_batch_stops_at_the_first_failure_unless_told_otherwise() -> None:
    client = Client()
    parts = [operation(f"POST {ROOT}accounts", body) for body in ({"nonsense": 1}, {"name": "B"})]
    assert statuses(batch(client, *parts)) == [400]
    assert statuses(batch(client, *parts, prefer="odata.continue-on-error")) == [400, 204]


def test_a_batch_needs_crlf() -> None:
    client = Client()
    body = b"--b\nContent-Type: application/http\n\nGET /x HTTP/1.1\n\n--b--\n"
    assert client("POST", "$batch", content=body, content_type="multipart/mixed; boundary=b").status == 400


def test_a_batch_holds_a_thousand_operations() -> None:
    parts = [operation(f"GET {ROOT}WhoAmI")] * 1001
    assert batch(Client(), *parts).status == 400


# --- what real clients send ----------------------------------------------------------------------------------


def recorded(name: str) -> list[dict[str, Any]]:
    path = SPECS / f"recorded-{name}.json"
    if not path.exists():
        pytest.skip("the recorded traffic is not beside this repository")
    found: list[dict[str, Any]] = json.loads(path.read_text())["requests"]
    return found


def replay(client: Client, request: dict[str, Any], ids: dict[str, str]) -> TwinResponse:
    path = request["path"]
    body = request.get("body") or (json.dumps(request["json"]) if "json" in request else "")
    for old, new in ids.items():
        path, body = path.replace(old, new), body.replace(old, new)
    headers = {name.replace("-", "_"): value for name, value in request["headers"].items()}
    content = body.encode() if body else None
    bare, mark, query = path.partition("?")
    return client(request["method"], bare + mark + quote(query, safe="=&$(),'"), content=content, **headers)


def expected(request: dict[str, Any]) -> set[int]:
    """What the documentation says about a recorded request."""
    path, headers = request["path"], request["headers"]
    if request["method"] == "DELETE" and headers.get("If-Match") == 'W/"1"':
        return {412}
    if headers.get("If-Match") == 'W/"1"' or headers.get("If-None-Match") == "*":
        return {412}
    if "statecode=0" in path or path.endswith("CancelSalesOrder"):
        return {400}
    if path.endswith("salesorderdetails/Microsoft.Dynamics.CRM.CreateMultiple"):
        return {400}  # its second target names no order
    return {200, 201, 204, 412} if request["method"] == "POST" else {200, 204}


@pytest.mark.parametrize("name", ["official-python-sdk", "dynamics-web-api"])
def test_recorded_requests_are_understood(name: str) -> None:
    more = {"salesorders": [("msdyn_salesordernumber",)], "accounts": [("accountnumber",)]}
    client = Client(more_keys=more)
    level = client.twin.add("pricelevels", name="retail")
    client.twin.add("accounts", accountnumber="US-001-X", name="X")
    guids = "7d577253-3ef0-4a0a-bb7f-8335c2596e70", "48014594-e2c8-4f24-908d-db5b838826c0"
    for index, request in enumerate(recorded(name)):
        row = client.order(f"SO-R{index}")
        ids = dict.fromkeys(guids, row)
        if "pricelevels" in json.dumps(request.get("json", "")):
            request = {**request, "json": {"@odata.id": f"https://x{ROOT}pricelevels({level})"}}
        found = replay(client, request, ids)
        assert found.status in expected(request), (request["method"], request["path"], found.status, found.body)
        if request["path"].endswith("$batch"):
            assert all(status < 300 for status in statuses(found)), found.body


# --- dual-write ----------------------------------------------------------------------------------------------


def ready_line(client: Client, order: str, sequence: int = 1, product: str = "CHAIR") -> dict[str, Any]:
    company = client.twin.rows("cdm_companies")[0]["cdm_companyid"]
    site = client.twin.find("msdyn_operationalsites", msdyn_siteid="1") or {}
    warehouse = client.twin.find("msdyn_warehouses", msdyn_warehouseidentifier="11") or {}
    return {
        "salesorderid@odata.bind": f"/salesorders({order})",
        "sequencenumber": sequence,
        "quantity": 1,
        "productid@odata.bind": f"/products(msdyn_productnumber='{product}')",
        "msdyn_Company@odata.bind": f"/cdm_companies({company})",
        "msdyn_ShippingSite@odata.bind": f"/msdyn_operationalsites({site['msdyn_operationalsiteid']})",
        "msdyn_ShippingWarehouse@odata.bind": f"/msdyn_warehouses({warehouse['msdyn_warehouseid']})",
    }


def test_both_sides_or_nothing() -> None:
    book = ErpBook(refuse_products={"CHAIR": "Item blocked."})
    client = Client(erp=book)
    row = client.order(msdyn_isreadytosync=True)
    assert book.headers() == ["SO-1"]
    status, code, message = error(client("POST", "salesorderdetails", ready_line(client, row)))
    assert (status, code) == (400, "0x80040265")
    assert message == (
        "Unable to write data to entity salesorderdetails. Writes to CDSSalesOrderLinesV2 failed with error message "
        "Item blocked."
    )
    assert client.twin.rows("salesorderdetails") == []
    assert book.lines() == []


def test_a_change_set_is_one_transaction_on_both_sides() -> None:
    book = ErpBook(refuse_products={"CHAIR": "Item blocked."})
    client = Client(erp=book)
    row = client.order()
    found = batch(
        client,
        change_set(
            operation(f"PATCH {ROOT}salesorders({row})", {"msdyn_isreadytosync": True}),
            operation(f"POST {ROOT}salesorderdetails", ready_line(client, row)),
        ),
    )
    assert statuses(found) == [400]
    assert book.rows == {}
    assert client.twin.rows("salesorders")[0]["msdyn_isreadytosync"] is False


def test_a_line_before_its_header_is_refused() -> None:
    book = ErpBook()
    client = Client(erp=book)
    row = client.order()
    status, _, message = error(client("POST", "salesorderdetails", ready_line(client, row)))
    assert (status, "does not exist" in message) == (400, True)


def status_of(number: str, status: str) -> ErpChange:
    entity = {"dataAreaId": "USMF", "SalesOrderNumber": number, "SalesOrderProcessingStatus": status}
    return ErpChange("CDSSalesOrderHeaders", entity)


@pytest.mark.parametrize(
    ("status", "value", "state", "reason"),
    [
        ("Active", 192350000, 0, 1),
        ("Confirmed", 192350001, 1, 3),
        ("Picked", 192350002, 1, 3),
        ("PartiallyDelivered", 192350003, 0, 1),
        ("Delivered", 192350004, 3, 100001),
        ("PartiallyInvoiced", 192350006, 0, 1),
        ("Invoiced", 192350005, 4, 100003),
        ("Canceled", 192350007, 2, 4),
    ],
)
def test_what_an_order_becomes(status: str, value: int, state: int, reason: int) -> None:
    client = Client()
    client.order()
    client.twin.erp_changed([status_of("SO-1", status)])
    (row,) = client.twin.rows("salesorders")
    assert (row["msdyn_processingstatus"], row["statecode"], row["statuscode"]) == (value, state, reason)


def test_without_the_integration_the_state_stays() -> None:
    client = Client(sop_integration=False)
    client.order()
    client.twin.erp_changed([status_of("SO-1", "Invoiced")])
    assert client.twin.rows("salesorders")[0]["statecode"] == 0


def test_a_status_outside_the_map_fails_or_keeps_the_old_value() -> None:
    client = Client()
    client.order()
    client.twin.erp_changed([status_of("SO-1", "Delivered")])
    with pytest.raises(DualWriteRefusal, match="has no mapping"):
        client.twin.erp_changed([status_of("SO-1", "DeliveredPartiallyInvoiced")])
    lenient = Client(keep_unmapped=True)
    lenient.order()
    lenient.twin.erp_changed([status_of("SO-1", "Delivered")])
    lenient.twin.erp_changed([status_of("SO-1", "DeliveredPartiallyInvoiced")])
    assert lenient.twin.rows("salesorders")[0]["msdyn_processingstatus"] == 192350004


def test_what_comes_from_fno_is_not_sent_back() -> None:
    book = ErpBook()
    client = Client(erp=book)
    client.order(msdyn_isreadytosync=True)
    written = len(book.writes)
    client.twin.erp_changed([status_of("SO-1", "Picked")])
    assert len(book.writes) == written


def test_one_row_that_fails_undoes_all_that_came_with_it() -> None:
    client = Client()
    client.order()
    orphan = {"dataAreaId": "usmf", "SalesOrderNumber": "GHOST", "LineCreationSequenceNumber": 1}
    with pytest.raises(DualWriteRefusal, match="no row for SalesOrderNumber = 'GHOST'"):
        client.twin.erp_changed([status_of("SO-1", "Picked"), ErpChange("CDSSalesOrderLinesV2", orphan)])
    assert client.twin.rows("salesorders")[0].get("msdyn_processingstatus") is None


def test_what_arrives_twice_changes_nothing() -> None:
    client = Client()
    client.order()
    entity = {
        "dataAreaId": "usmf",
        "InvoiceNumber": "CIV-1",
        "InvoiceDate": "2026-01-05T12:00:00Z",
        "LedgerVoucher": "V",
        "SalesOrderNumber": "SO-1",
        "TotalInvoiceAmount": 5,
    }

    def rows() -> list[dict[str, Any]]:
        found = client.twin.rows("salesorders") + client.twin.rows("invoices")
        return [{name: value for name, value in row.items() if name != "versionnumber"} for row in found]

    changes = [ErpChange("SalesInvoiceHeadersV2", entity), status_of("SO-1", "Invoiced")]
    client.twin.erp_changed(changes)
    once = rows()
    client.twin.erp_changed(changes)
    assert rows() == once
    assert len(client.twin.rows("invoices")) == 1


def test_a_thousand_rows_are_the_limit() -> None:
    with pytest.raises(DualWriteRefusal, match="1000"):
        Client().twin.erp_changed([status_of(f"SO-{index}", "Active") for index in range(1001)])


def test_a_free_text_invoice_does_not_come_over() -> None:
    client = Client()
    entity = {
        "dataAreaId": "usmf",
        "InvoiceNumber": "FTI-1",
        "InvoiceDate": "2026-01-05T12:00:00Z",
        "LedgerVoucher": "V",
        "SalesOrderNumber": "",
    }
    client.twin.erp_changed([ErpChange("SalesInvoiceHeadersV2", entity)])
    assert client.twin.rows("invoices") == []


def test_a_paused_map_queues_and_plays_back_in_order() -> None:
    book = ErpBook()
    client = Client(erp=book)
    client.twin.pause()
    row = client.order(msdyn_isreadytosync=True)
    assert client("POST", "salesorderdetails", ready_line(client, row)).status == 204
    client.twin.erp_changed([status_of("SO-1", "Picked")])
    assert book.rows == {}
    assert len(client.twin.dual_write.queued()) == 3
    assert client.twin.resume() == ()
    assert book.headers() == ["SO-1"]
    assert book.lines() == [("SO-1", 1)]
    assert client.twin.rows("salesorders")[0]["msdyn_processingstatus"] == 192350002


def test_what_fails_while_it_is_played_back_stays_and_can_be_retried() -> None:
    book = ErpBook(refuse_headers="Customer on hold.")
    client = Client(erp=book)
    client.twin.pause()
    client.order(msdyn_isreadytosync=True)
    (failure,) = client.twin.resume()
    assert "Customer on hold." in failure.error
    book.refuse_headers = ""
    assert client.twin.resume() == ()
    assert book.headers() == ["SO-1"]


def test_rows_in_error_are_purged_after_a_day() -> None:
    book = ErpBook(refuse_headers="Customer on hold.")
    client = Client(erp=book)
    client.twin.pause()
    client.order(msdyn_isreadytosync=True)
    client.twin.resume()
    client.clock.forward(days=1, minutes=1)
    book.refuse_headers = ""
    assert client.twin.resume() == ()
    assert book.rows == {}


def test_a_queue_holds_seven_days() -> None:
    client = Client(erp=ErpBook())
    client.twin.pause()
    client.order("SO-1", msdyn_isreadytosync=True)
    client.clock.forward(days=7, minutes=1)
    client.token = Client(client.twin).token
    assert client("POST", "salesorders", {"name": "held back", "msdyn_isreadytosync": False}).status == 204
    row = client.order("SO-2")
    assert client("PATCH", f"salesorders({row})", {"msdyn_isreadytosync": True}).status == 400


def test_a_stopped_map_loses_changes() -> None:
    book = ErpBook()
    client = Client(erp=book)
    client.twin.stop()
    client.order(msdyn_isreadytosync=True)
    assert client.twin.resume() == ()
    assert book.rows == {}


def test_deleting_is_synchronized_too() -> None:
    book = ErpBook()
    client = Client(erp=book)
    row = client.order(msdyn_isreadytosync=True)
    client("POST", "salesorderdetails", ready_line(client, row))
    assert client("DELETE", f"salesorders({row})").status == 204
    assert book.rows == {}
    client.order("SO-2", msdyn_isreadytosync=True)
    gone = {"dataAreaId": "usmf", "SalesOrderNumber": "SO-2"}
    client.twin.erp_changed([ErpChange("CDSSalesOrderHeaders", gone, deleted=True)])
    assert client.twin.rows("salesorders") == []


# --- staying alive -------------------------------------------------------------------------------------------


def test_rows_survive_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "dataverse.db"
    client = Client(path=path)
    client.order()
    _, link = track(client, "salesorders?$select=name")
    client.order("SO-2")
    client.twin.close()
    again = Client(DataverseTwin(path=path, clock=client.clock))
    assert [row["msdyn_salesordernumber"] for row in again.twin.rows("salesorders")] == ["SO-1", "SO-2"]
    assert len(track(again, link)[0]) == 1
    again.order("SO-3")
    assert len(again.twin.rows("salesorders")) == 3
    again.twin.close()


def test_threads_do_not_disturb_each_other() -> None:
    client = Client()

    def write(name: str) -> None:
        for index in range(20):
            client.order(f"{name}-{index}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "ABCD"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({row["salesorderid"] for row in client.twin.rows("salesorders")}) == 80
