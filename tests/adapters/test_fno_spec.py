"""Everything said to F&O or by its twin uses names and types of F&O's published metadata (skipped without it)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from iom_adapters._odata import fields_of, parse_filter
from iom_adapters._twin import TwinRequest, TwinResponse
from iom_adapters.fno import wire
from iom_adapters.fno.schema import ENTITY_SETS, ENUMS, metadata
from iom_core.messages import Message
from iom_core.values import Address, OrderId

from ._fno import Environment, line, order

SPECS = Path(__file__).parents[3] / "shared" / "specs" / "fno"
pytestmark = pytest.mark.skipif(
    not (SPECS / "fno-subset.json").exists(), reason="the published metadata is not part of this repository"
)


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SPECS / "fno-subset.json").read_text())
    return found


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SPECS / name).read_text())
    return found


def test_the_twins_schema_is_a_subset_of_the_published_one(spec: dict[str, Any]) -> None:
    wrong: list[str] = []
    for name, entity in ENTITY_SETS.items():
        real = spec["entitySets"][name]
        if (entity.type, list(entity.keys)) != (real["entityType"], real["keys"]):
            wrong.append(name)
        for field in entity.fields:
            mine = entity.edm_type(field) + ("" if entity.nullable(field) else "!")
            theirs = str(real["properties"].get(field))
            if mine.rpartition(".")[2] != theirs.rpartition(".")[2]:
                wrong.append(f"{name}.{field}: {mine} is {theirs}")
    assert wrong == []


def test_enum_members_and_numbers_are_the_published_ones(spec: dict[str, Any]) -> None:
    for enum, members in ENUMS.items():
        real = spec["enums"][enum]
        assert members.items() <= real.items()
        if enum != "InventTransType":
            assert len(members) == len(real), enum


def test_metadata_is_well_formed_and_names_every_set() -> None:
    import xml.etree.ElementTree as ET

    root = ET.fromstring(metadata())  # noqa: S314 - our own text
    names = [each.get("Name") for each in root.iter("{http://docs.oasis-open.org/odata/ns/edm}EntitySet")]
    assert names == list(ENTITY_SETS)


def fits(kind: str, value: Any, enums: dict[str, Any]) -> bool:
    plain, never_null = kind.rstrip("!").rpartition(".")[2], kind.endswith("!")
    if value is None:
        return not never_null
    if plain in ("Decimal", "Int32", "Int64"):
        whole = isinstance(value, int) or (isinstance(value, float) and plain == "Decimal")
        return whole and not isinstance(value, bool)
    if plain == "DateTimeOffset":
        return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value) is not None
    if plain in enums:
        return value in enums[plain]
    return isinstance(value, str)


class Recorder:
    """Keeps every exchange with a twin."""

    def __init__(self, env: Environment) -> None:
        self.exchanges: list[tuple[TwinRequest, TwinResponse]] = []
        handle = env.twin.handle

        def record(request: TwinRequest) -> TwinResponse:
            response = handle(request)
            self.exchanges.append((request, response))
            return response

        env.twin.handle = record  # type: ignore[method-assign] # a listener on the line


def test_every_exchange_of_a_whole_life_uses_published_names_and_types(spec: dict[str, Any]) -> None:
    for options in ({}, {"bi_entities": False}, {"line_marker": "OrderLineReference", "origin_code": "WEB"}):
        env = Environment(options, page_size=3)
        recorder = Recorder(env)
        there = Address(name="Bob", company="B", street="2 St", city="Bonn", postal_code="53111", country="DE")
        held = order([line("1", "39.80", "2", ship_to=there), line("2", "5.00")], shipping="1.00", reference="PO 7")
        number = env.send(held)
        env.send(held)
        env.twin.cancel(env.send(order(id=OrderId("BC-2"))))
        env.twin.cancel(env.send(order(id=OrderId("BC-3"))), ["2"])
        env.twin.confirm(number)
        for _ in range(3):
            env.twin.staff_step()
            env.pull()
        env.fno.header("usmf", number)
        for name in ENTITY_SETS:
            env.raw("GET", f"/data/{name}", params={"cross-company": "true"})
        seen: set[str] = set()
        for request, response in recorder.exchanges:
            path = unquote(request.path)
            if not path.startswith("/data/") or response.status >= 400:
                continue
            name = re.split(r"[(/?]", path.removeprefix("/data/"))[0]
            real = spec["entitySets"][name]["properties"]
            seen.add(name)
            query = dict(request.query)
            assert query.get("cross-company") == "true" or request.method == "POST"
            named = set(filter(None, query.get("$select", "").split(",")))
            named |= fields_of(parse_filter(query["$filter"])) if "$filter" in query else set()
            assert named <= set(real), (name, named - set(real))
            if request.method == "POST":
                for field, value in json.loads(request.body).items():
                    assert fits(real[field], value, spec["enums"]), (name, field, value)
            answer = json.loads(response.body)
            for row in answer.get("value", [answer]):
                for field, value in row.items():
                    assert field.startswith("@") or fits(real[field], value, spec["enums"]), (name, field, value)
        assert seen >= {"SalesOrderHeadersV2", "SalesOrderLines", "SalesInvoiceHeadersV2", "SalesInvoiceV2Lines"}


def test_the_published_samples_are_understood() -> None:
    samples = sample("wire-samples.json")
    assert (
        wire.reason(samples["errorBody"]) == "Inventory dimension Site is mandatory and must consequently be specified."
    )
    env = Environment()
    header = samples["createHeaderRequest"]
    made = env.raw(header["method"], header["path"], json=header["json"])
    assert made.status_code == 201, made.text
    wanted = samples["createLineRequest"]
    body = {**wanted["json"], "ItemNumber": "CHAIR", "SalesOrderNumber": made.json()["SalesOrderNumber"]}
    assert env.raw(wanted["method"], wanted["path"], json=body).status_code == 201
    batch = samples["batchRequest"]
    content = batch["body"].replace("D0001", "CHAIR")
    reply = env.raw("POST", "/data/$batch", content=content, headers={"Content-Type": batch["contentType"]})
    assert "HTTP/1.1 201" in reply.text or "Inventory dimension Site" in reply.text


def test_the_published_business_events_are_understood() -> None:
    samples = sample("business-event-samples.json")
    env = Environment()
    secret = {"x-iom-secret": "hook-secret"}
    posted = json.dumps(samples["salesInvoicePosted"]).encode()
    assert env.fno.translate(secret, posted).unwrap() == ("000891",)
    (event,) = wire.business_events(posted).unwrap()
    assert (event.event_id, event.company) == ("0B5E7C3C-6C0C-4E9A-9B63-5D8E3E0A1F11", "usmf")
    assert env.fno.translate(secret, json.dumps(samples["testMessage"]).encode()).unwrap() == ()


def test_the_twins_business_event_has_the_published_fields() -> None:
    sent: list[bytes] = []
    env = Environment()
    env.twin.deliver = sent.append
    env.twin.invoice(env.send(order()))
    published = sample("business-event-samples.json")["salesInvoicePosted"]
    mine = json.loads(sent[0])
    assert mine.keys() == published.keys()
    assert all(isinstance(mine[name], (int, float) if isinstance(value, float) else type(value))
               for name, value in published.items())  # fmt: skip


def test_a_recorded_token_request_gets_a_token() -> None:
    recorded = sample("recorded-msal-client-credentials.json")
    posts = [each for each in recorded["requests"] if each["method"] == "POST" and "fno" not in each.get("body", "")]
    env = Environment(apps={"cid": "secret"})
    for each in posts[:1]:
        assert dict(parse_qs(each["body"]))["grant_type"] == ["client_credentials"]
        reply = env.client.post(
            f"https://fno.test{urlsplit(each['path']).path}",
            content=each["body"],
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert isinstance(reply, httpx.Response)
        assert reply.json()["token_type"] == "Bearer"


def test_messages_are_messages() -> None:
    env = Environment()
    number = env.send(order())
    env.twin.staff_step()
    assert all(isinstance(each, Message) for each in env.fno.read(number, env.clock()))
