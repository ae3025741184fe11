"""Flexe on its twin: what must hold whatever the real names turn out to be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Success

from iom_adapters._twin import Fault, transport
from iom_adapters.flexe import Flexe, FlexeConfig, FlexeProtocol, IntentFile, connect, open_orders
from iom_adapters.flexe.adapter import MAX_WEBHOOK
from iom_adapters.flexe.protocol import (
    PLACEHOLDER,
    Call,
    ErrorMeaning,
    Find,
    Listing,
    Meaning,
    put_at,
    read_time,
    value_at,
    write_time,
)
from iom_adapters.flexe.twin import FlexeTwin, Webhooks
from iom_adapters.flexe.wire import outbound_order
from iom_core import events as ev
from iom_core import providers, scenarios
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Canceled, LineQuantity, Message, Packed, Picked, Rejected, Shipped
from iom_core.order import ExternalId, SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.ports import Capability, FulfillmentRequest, Receipt
from iom_core.testing import VirtualClock, World
from iom_core.testing import conformance as kit
from iom_core.testing.samples import SAMPLE_AT, sample_order, sample_shipped_order
from iom_core.testing.world import units
from iom_core.values import LineId, ProductId, System

SECRET = "a secret of our own"
FLEXE = System("flexe")

PLAIN = attrs.evolve(PLACEHOLDER, auth_header="X-Placeholder-Token")


def renamed(protocol: FlexeProtocol) -> FlexeProtocol:
    """Return the same protocol with every single name replaced: no two are left alike."""

    def path(text: str) -> str:
        return ".".join(f"zz-{part[::-1]}" for part in text.split(".")) if text else ""

    def call(plain: dict[str, Any], route: str) -> dict[str, Any]:
        query = {f"q-{name[::-1]}": f"<{value}>" for name, value in plain["query"].items()}
        more = {name: path(plain[name]) for name in ("items", "next_page") if name in plain}
        return plain | {"path": route, "query": query} | more

    plain = json.loads(protocol.to_json())
    calls = {
        "create": "/v9/despatches/new",
        "read": "/v9/despatches/one/{number}",
        "find": "/v9/search",
        "cancel": "/v9/despatches/{number}/stop",
        "listing": "/v9/despatches",
    }
    plain |= {name: call(plain[name], route) for name, route in calls.items() if name in plain}
    plain["create"]["method"] = "PUT"
    request = {name: path(value) for name, value in plain["request"].items() if name != "constants"}
    plain["request"] = request | {"constants": {"zz.account": 7}}
    plain["answer"] = {name: path(value) for name, value in plain["answer"].items()} | {"order": "wrapped.order"}
    for name in ("statuses", "shipment_statuses", "errors"):
        plain[name] = {f"<{text[::-1]}>": meaning for text, meaning in plain[name].items()}
    plain["error"] = {name: path(value) for name, value in plain["error"].items()}
    hook = plain["webhook"]
    events = {f"<{text[::-1]}>": notice for text, notice in hook["events"].items()}
    plain["webhook"] = {"event": path(hook["event"]), "number": path(hook["number"]), "events": events}
    plain |= {"name": "renamed", "auth_header": "Zz-Key", "auth_scheme": "Zz", "date_format": "%d/%m/%Y %H:%M:%S.%f"}
    return FlexeProtocol.of(plain)


CANCELING = attrs.evolve(
    PLAIN, cancel=Call(method="POST", path="/placeholder/outbound-orders/{number}/cancel"), name="canceling"
)
LISTING = attrs.evolve(
    CANCELING,
    name="listing",
    listing=Listing(
        method="GET",
        path="/placeholder/outbound-orders",
        query={"changed_since": "{since}", "cursor": "{page}"},
        items="placeholder_items",
        next_page="placeholder_next",
    ),
)
COUNTING = attrs.evolve(
    CANCELING,
    name="counting pages",
    listing=Listing(method="GET", path="/placeholder/all", query={"page": "{page}", "fixed": "yes"}),
    date_format="epoch milliseconds",
)
BY_SKU = attrs.evolve(
    PLAIN,
    name="by sku",
    answer=attrs.evolve(PLAIN.answer, shipment_line_reference="", shipment_status="placeholder_state"),
    shipment_statuses={"gone": Meaning.SHIPPED, "label": Meaning.OPEN},
    quantities_as_text=True,
    date_format="epoch seconds",
)
WHOLE = attrs.evolve(PLAIN, name="whole", partial_shipments=False, webhook=None)
BLIND = attrs.evolve(PLAIN, name="blind", find=None)
PROTOCOLS = [PLAIN, renamed(LISTING), CANCELING, LISTING, COUNTING, BY_SKU, WHOLE]


class Warehouse:
    """Flexe as the kit asks for it: the adapter, its twin, and a store that never hears that an order is through."""

    def __init__(self, protocol: FlexeProtocol = PLAIN, **settings: Any) -> None:
        self.clock = VirtualClock(SAMPLE_AT)
        self.sent: list[tuple[str, Mapping[str, str], bytes]] = []
        self.twin = FlexeTwin(
            protocol, clock=self.clock, page_size=2, webhooks=Webhooks(deliver=self._keep, secret=SECRET)
        )
        self.settings: dict[str, Any] = {
            "base_url": "https://flexe.test",
            "token": "test-token",
            "protocol": protocol,
            "webhook_secret": SECRET,
            "calls_per_minute": 10_000,
            **settings,
        }
        self.lists = protocol.listing is not None
        self.garbled: bytes | None = None
        self._inner = transport(("flexe.test", self.twin))
        self.client = httpx.Client(transport=httpx.MockTransport(self._carry))
        self._cut: list[Fault] = []
        self.restart()

    @property
    def now(self) -> datetime:
        return self.clock()

    def restart(self) -> None:
        opened = None if self.lists else self.twin.orders
        self.provider: Flexe = connect(self.settings, client=self.client, clock=self.clock, open_orders=opened)

    def go_down(self) -> None:
        self._cut.append(Fault("refuse", times=10_000))
        self.twin.faults.plan(*self._cut)

    def come_back(self) -> None:
        for each in self._cut:
            each.times = 0

    def lose_next_answer(self) -> None:
        self.twin.faults.plan(Fault("lost", method=self.provider.protocol.create.method))

    def refuse(self, why: str) -> None:
        self.twin.refuse(why)

    def placed(self) -> Sequence[str]:
        return self.twin.placed()

    def ship(self, fulfillment_order: str) -> None:
        self.clock.advance(60)
        self.twin.ship(fulfillment_order)

    def ship_part(self, fulfillment_order: str) -> bool:
        self.clock.advance(60)
        return self.twin.ship_part(fulfillment_order)

    def plant_malformed(self) -> None:
        order = sample_order("BC-666", external_id="666")
        self.provider.submit(FulfillmentRequest("K", order, "BC-666-F1")).unwrap()
        self.twin.spoil("BC-666-F1", self.provider.protocol.answer.lines, "nonsense")

    def request(self, nth: int = 1) -> FulfillmentRequest:
        order = sample_order(f"BC-{1000 + nth}", external_id=str(1000 + nth))
        return FulfillmentRequest(f"K-{nth}", order, order.fulfillment_orders[0].id)

    def submit(self, nth: int = 1) -> str:
        return self.provider.submit(self.request(nth)).unwrap().number

    def pull(self) -> tuple[Message | Rejected, ...]:
        found: list[Message | Rejected] = []
        pulled = self.provider.pull("", self.now)
        found += pulled.messages
        while pulled.more:
            pulled = self.provider.pull(pulled.checkpoint, self.now)
            found += pulled.messages
        return tuple(found)

    def _carry(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        if self.garbled is None or request.method != self.provider.protocol.create.method:
            return answer
        garbled, self.garbled = self.garbled, None
        return httpx.Response(201, content=garbled)

    def _keep(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.sent.append((url, headers, body))
        return 204


def bodies(found: Sequence[Message | Rejected], kind: type) -> list[Any]:
    return [each.body for each in found if isinstance(each, Message) and isinstance(each.body, kind)]


def rejected(found: Sequence[Message | Rejected]) -> list[Rejected]:
    return [each for each in found if isinstance(each, Rejected)]


@pytest.fixture
def flexe() -> Warehouse:
    return Warehouse()


class TestFlexe(kit.FulfillmentProviderConformance):
    @pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
    def harness(self, request: pytest.FixtureRequest) -> kit.FulfillmentHarness:
        return Warehouse(request.param)


class TestNames:
    """No name is written in code."""

    def test_nothing_of_a_protocol_is_left_in_another(self) -> None:
        strange = renamed(CANCELING)
        flexe = Warehouse(strange)
        seen: list[httpx.Request] = []
        flexe.client.event_hooks["request"].append(seen.append)
        flexe.submit()
        flexe.twin.ship_part("BC-1001-F1")
        assert len(bodies(flexe.pull(), Shipped)) == 1
        assert failed(flexe.provider.cancel(flexe.request()))
        flexe.submit(2)
        assert not failed(flexe.provider.cancel(flexe.request(2)))
        text = "".join(f"{each.url}{each.headers.raw!r}{each.content!r}" for each in seen) + repr(flexe.sent)
        assert "placeholder" not in text.lower()
        assert [each.headers["zz-key"] for each in seen] == ["Zz test-token"] * len(seen)
        assert value_at(flexe.twin.sent("BC-1001-F1"), "zz.account") == 7

    def test_what_is_sent_is_the_physical_part(self, flexe: Warehouse) -> None:
        order = sample_order(ships_digital=True)
        flexe.provider.submit(FulfillmentRequest("K", order, "BC-1001-F1")).unwrap()
        sent = flexe.twin.sent("BC-1001-F1")
        assert sent["placeholder_lines"] == [
            {
                "placeholder_line_reference": line,
                "placeholder_sku": sku,
                "placeholder_quantity": quantity,
                "placeholder_unit": "ea",
                "placeholder_description": name,
            }
            for line, sku, quantity, name in (("1", "CHAIR", 2, "Chair"), ("2", "LAMP", 1, "Lamp"))
        ]
        assert sent["placeholder_ship_to"]["city"] == "Redmond"
        assert "street2" not in sent["placeholder_ship_to"]

    def test_an_order_without_physical_lines_is_refused(self, flexe: Warehouse) -> None:
        order = sample_order()
        digital = order.with_(lines=tuple(attrs.evolve(line, digital=True) for line in order.lines))
        refused = flexe.provider.submit(FulfillmentRequest("K", digital, "BC-1001-F1"))
        assert refused.failure().code == "nothing-to-ship"
        assert flexe.provider.calls == 0

    def test_what_is_no_single_order_is_refused(self, flexe: Warehouse) -> None:
        order = sample_order()
        away = attrs.evolve(order.ship_to, city="Reno")
        two = order.with_(lines=(attrs.evolve(order.lines[0], ship_to=away), *order.lines[1:]))
        for request, code in (
            (FulfillmentRequest("K", two, "BC-1001-F1"), "several-addresses"),
            (FulfillmentRequest("K", order, "BC-1001-F9"), "unknown-fulfillment-order"),
        ):
            assert flexe.provider.submit(request).failure().code == code
        assert flexe.twin.orders() == []

    def test_partial_quantities_keep_their_digits(self) -> None:
        order = sample_order()
        fo = order.fulfillment_orders[0]
        half = attrs.evolve(fo, lines=(attrs.evolve(fo.lines[0], quantity=Decimal("1.50")),))
        for protocol, wanted in ((PLAIN, Decimal("1.50")), (BY_SKU, "1.5")):
            body = outbound_order(protocol, order.with_(fulfillment_orders=(half,)), fo.id, FLEXE).unwrap()
            assert body["placeholder_lines"][0]["placeholder_quantity"] == wanted


class TestTheMark:
    """That nobody has verified the names is seen wherever people look."""

    def test_it_is_in_the_repr_and_the_receipt(self, flexe: Warehouse) -> None:
        assert "UNVERIFIED protocol 'placeholder'" in repr(flexe.provider)
        assert "UNVERIFIED" in flexe.provider.submit(flexe.request()).unwrap().details
        checked = Warehouse(attrs.evolve(PLAIN, verified=True))
        assert "UNVERIFIED" not in repr(checked.provider)
        assert "protocol 'placeholder'" in repr(checked.provider)

    def test_every_name_of_the_placeholder_says_so(self) -> None:
        assert not PLACEHOLDER.verified
        assert not PLACEHOLDER.auth_header
        names = [value for value in attrs.asdict(PLACEHOLDER.answer).values() if value]
        assert all("placeholder" in name for name in names)

    def test_no_secret_is_in_the_repr(self, flexe: Warehouse) -> None:
        assert "test-token" not in repr(flexe.provider)
        assert SECRET not in repr(flexe.provider)

    @pytest.mark.parametrize("name", ["base_url", "token", "protocol"])
    def test_what_is_not_documented_has_no_default(self, flexe: Warehouse, name: str) -> None:
        settings = {key: value for key, value in flexe.settings.items() if key != name}
        with pytest.raises(Misconfigured, match=name):
            connect(settings)

    def test_the_auth_header_has_no_default(self, flexe: Warehouse) -> None:
        with pytest.raises(Misconfigured, match="auth_header"):
            connect({**flexe.settings, "protocol": PLACEHOLDER})
        set_up = connect({**flexe.settings, "protocol": PLACEHOLDER, "auth_header": "X-A", "auth_scheme": "Token"})
        assert set_up.config.auth().headers() == {"X-A": "Token test-token"}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"nonsense": "1"},
            {"calls_per_minute": "many"},
            {"calls_per_minute": True},
            {"calls_per_minute": 0},
            {"reserve": 20_000},
            {"webhook_header": 3},
            {"protocol": 7},
        ],
        ids=str,
    )
    def test_a_wrong_setting_is_named(self, flexe: Warehouse, wrong: dict[str, Any]) -> None:
        with pytest.raises(Misconfigured) as said:
            connect({**flexe.settings, **wrong})
        assert "test-token" not in str(said.value)


class TestLoading:
    """A protocol file is read whole or refused with the place that is wrong."""

    def test_a_file_comes_back_as_it_was(self, tmp_path: Path) -> None:
        for protocol in PROTOCOLS:
            file = tmp_path / "flexe.json"
            file.write_text(protocol.to_json(), "utf-8")
            assert FlexeProtocol.load(file) == protocol

    def test_toml_is_read_too(self, tmp_path: Path) -> None:
        def toml(name: str, value: dict[str, Any]) -> Iterator[str]:
            plain = {key: each for key, each in value.items() if not isinstance(each, dict)}
            if name:
                yield f"[{name}]"
            yield from (f"{json.dumps(key)} = {json.dumps(each)}" for key, each in plain.items())
            for key, each in value.items():
                if isinstance(each, dict):
                    yield from toml(f"{name}.{json.dumps(key)}".lstrip("."), each)

        file = tmp_path / "flexe.toml"
        file.write_text("\n".join(toml("", json.loads(LISTING.to_json()))), "utf-8")
        assert FlexeProtocol.load(str(file)) == LISTING
        assert connect({**Warehouse().settings, "protocol": str(file)}).protocol == LISTING

    @pytest.mark.parametrize(
        ("path", "value", "said"),
        [
            ("name", "", "'name'"),
            ("verified", "no", "$.verified: bool is needed, not str"),
            ("read", None, "$.read: an object is needed"),
            ("read.path", "orders/{number}", "$.read.path"),
            ("read.path", "/orders", "{number} is missing"),
            ("read.path", "/orders/{order}", "no place {order}"),
            ("read", 7, "$.read: an object is needed"),
            ("read.method", "FETCH", "$.read: 'method' must be in"),
            ("read.verb", "GET", "$.read: there is no such name here: verb"),
            ("answer.status", "", "$.answer.status"),
            ("answer.lines", "a..b", "$.answer.lines"),
            ("answer.number", 7, "$.answer.number: str is needed, not int"),
            ("answer.line_reference", "", "line_reference"),
            ("statuses", {"new": "open"}, "$.statuses"),
            ("statuses", {"new": "vanished"}, "vanished"),
            ("statuses", ["new"], "$.statuses"),
            ("request.constants", {"account": float("nan")}, "$.request.constants"),
            ("answer.shipment_status", "state", "$.shipment_statuses"),
            ("date_format", "sometimes", "$.date_format"),
            ("webhook.events", {"a": "maybe"}, "maybe"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_place(self, tmp_path: Path, path: str, value: Any, said: str) -> None:
        plain = json.loads(PLAIN.to_json())
        put_at(plain, path, value)
        file = tmp_path / "flexe.json"
        file.write_text(json.dumps(plain), "utf-8")
        with pytest.raises(Misconfigured) as broken:
            FlexeProtocol.load(file)
        assert broken.value.what.startswith("flexe.json: $")
        assert said in broken.value.what
        assert "Attribute(" not in broken.value.what

    def test_a_missing_name_is_named(self) -> None:
        plain = json.loads(PLAIN.to_json())
        del plain["answer"]["status"]
        with pytest.raises(Misconfigured, match=r"\$\.answer\.status: this name is needed"):
            FlexeProtocol.of(plain)

    @pytest.mark.parametrize("text", ["", "[]", "{", "7", "[" * 100_000, '{"name": NaN}'])
    def test_nonsense_is_refused(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "flexe.json"
        file.write_text(text, "utf-8")
        with pytest.raises(Misconfigured, match=r"flexe\.json"):
            FlexeProtocol.load(file)
        with pytest.raises(Misconfigured, match="can't be read"):
            FlexeProtocol.load(tmp_path / "absent.json")

    def test_times_are_read_as_they_are_written(self) -> None:
        moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
        for style in ("iso8601", "epoch seconds", "epoch milliseconds", "%d.%m.%Y %H:%M:%S"):
            assert read_time(write_time(moment, style), style) == moment
            wrong: list[object] = ["soon", None, True, 10**40, []]
            for nonsense in wrong:
                with pytest.raises(ValueError):
                    read_time(nonsense, style)


LOSSES = {
    "lost": Fault("lost"),
    "cut": Fault("refuse"),
    "503": Fault("status", status=503),
    "429": Fault("status", status=429, headers={"retry-after": "7"}),
}


class TestSentOnce:
    """Whatever call fails, and however, Flexe gets the order once."""

    @pytest.mark.parametrize("nth", range(2), ids=["the look-up", "the sending"])
    @pytest.mark.parametrize("loss", list(LOSSES))
    @pytest.mark.parametrize("restarts", [False, True])
    def test_a_failure_at_any_call_ships_once(self, flexe: Warehouse, loss: str, nth: int, restarts: bool) -> None:
        flexe.twin.faults.plan(attrs.evolve(LOSSES[loss], after=nth))
        for _ in range(3):
            try:
                receipt = flexe.provider.submit(flexe.request())
            except Unavailable:
                flexe.clock.advance(180)
                if restarts:
                    flexe.restart()
                continue
            assert isinstance(receipt, Success)
            break
        assert flexe.placed() == ["BC-1001-F1"]
        assert flexe.submit() == flexe.twin.number("BC-1001-F1")

    @given(
        faults=st.lists(
            st.tuples(st.sampled_from(sorted(LOSSES)), st.sampled_from(["", "GET", "POST"]), st.integers(0, 3)),
            max_size=6,
        ),
        pauses=st.lists(st.sampled_from([0, 1, 150]), min_size=30, max_size=30),
        restarts=st.booleans(),
    )
    def test_any_schedule_of_faults_ships_once(
        self, faults: list[tuple[str, str, int]], pauses: list[int], restarts: bool
    ) -> None:
        flexe = Warehouse()
        for loss, method, after in faults:
            flexe.twin.faults.plan(attrs.evolve(LOSSES[loss], method=method, after=after))
        answers = []
        for pause in pauses:
            try:
                answers.append(flexe.submit())
            except Unavailable:
                if restarts and pause > 100:
                    flexe.restart()
            assert len(flexe.placed()) <= 1
            flexe.clock.advance(pause)
        flexe.clock.advance(150)
        answers.append(flexe.submit())
        assert flexe.placed() == ["BC-1001-F1"]
        assert set(answers) == {flexe.twin.number("BC-1001-F1")}

    def test_an_order_that_may_be_under_way_is_waited_for(self, flexe: Warehouse) -> None:
        flexe.twin.faults.plan(Fault("refuse", method="POST"))
        with pytest.raises(Unavailable, match="in doubt"):
            flexe.submit()
        with pytest.raises(Unavailable, match="doesn't show it yet") as waiting:
            flexe.submit()
        assert waiting.value.retry_after == 120
        flexe.clock.advance(120)
        flexe.submit()
        assert flexe.placed() == ["BC-1001-F1"]

    def test_a_throttled_sending_leaves_no_doubt(self, flexe: Warehouse) -> None:
        flexe.twin.faults.plan(Fault("status", method="POST", status=429, headers={"retry-after": "7"}))
        with pytest.raises(Unavailable) as throttled:
            flexe.submit()
        assert throttled.value.retry_after == 7
        assert "doubt" not in throttled.value.what
        with pytest.raises(Unavailable) as throttled:
            flexe.submit()
        flexe.clock.advance(7)
        flexe.submit()

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"placeholder_id": ""}', b'{"placeholder_id": ".."}', b"[1]"])
    def test_an_answer_nobody_understands_is_looked_up(self, flexe: Warehouse, body: bytes) -> None:
        flexe.garbled = body
        with pytest.raises(Misunderstood):
            flexe.submit()
        flexe.twin.faults.plan(Fault("status", method="GET", status=404))
        with pytest.raises(Unavailable, match="doesn't show it yet"):
            flexe.submit()
        flexe.restart()
        assert flexe.submit() == flexe.twin.number("BC-1001-F1")
        assert flexe.placed() == ["BC-1001-F1"]

    def test_a_look_up_nobody_understands_sends_nothing(self, flexe: Warehouse) -> None:
        for body in (b"", b"{}", b'{"placeholder_items": [7]}', b'{"placeholder_items": 7}'):
            flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=body))
            with pytest.raises(Misunderstood):
                flexe.submit()
        flexe.twin.faults.plan(Fault("status", method="GET", status=400))
        with pytest.raises(Misunderstood):
            flexe.submit()
        assert flexe.placed() == []

    def test_only_exactly_our_reference_is_ours(self, flexe: Warehouse) -> None:
        other = b'{"placeholder_items": [{"placeholder_id": "X", "placeholder_reference": "bc-1001-f1"}]}'
        flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=other))
        assert flexe.submit() != "X"

    def test_two_orders_of_our_reference_are_for_a_person(self, flexe: Warehouse) -> None:
        rows = ",".join(f'{{"placeholder_id": "X{n}", "placeholder_reference": "BC-1001-F1"}}' for n in (1, 2))
        body = f'{{"placeholder_items": [{rows}]}}'.encode()
        flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=body))
        with pytest.raises(Misunderstood, match="2 outbound orders"):
            flexe.submit()
        assert flexe.placed() == []

    def test_an_order_that_is_refused_as_there_already_is_that_order(self, flexe: Warehouse) -> None:
        number = flexe.submit()
        flexe.twin.refuses_duplicates = True
        flexe.twin.faults.plan(Fault("status", method="GET", status=404))
        assert flexe.submit() == number
        flexe.twin.faults.plan(*[Fault("status", method="GET", status=404, times=2)])
        with pytest.raises(Unavailable, match="already"):
            flexe.submit()

    @pytest.mark.parametrize(
        ("code", "fault"),
        [("placeholder: busy", Unavailable), ("placeholder: no account", Misconfigured)],
    )
    def test_error_codes_mean_what_the_map_says(self, code: str, fault: type[Exception]) -> None:
        errors = {**PLAIN.errors, "placeholder: no account": ErrorMeaning.MISCONFIGURED}
        flexe = Warehouse(attrs.evolve(PLAIN, errors=errors))
        body = json.dumps({"placeholder_error": {"code": code, "message": "said why"}}).encode()
        flexe.twin.faults.plan(Fault("status", method="POST", status=422, body=body))
        with pytest.raises(fault, match="said why"):
            flexe.submit()
        flexe.submit()
        assert flexe.placed() == ["BC-1001-F1"]

    def test_an_unknown_refusal_is_a_no_with_its_words(self, flexe: Warehouse) -> None:
        body = json.dumps({"placeholder_error": {"code": 17, "message": "no such SKU"}}).encode()
        flexe.twin.faults.plan(Fault("status", method="POST", status=400, body=body))
        refused = flexe.provider.submit(flexe.request())
        assert refused.failure() == Refused("17", "no such SKU", "$", who="flexe")
        flexe.twin.faults.plan(Fault("status", method="POST", status=418, body=b"<html>"))
        assert flexe.provider.submit(flexe.request()).failure().what == "answered 418"

    def test_a_wrong_token_is_ours_to_mend(self, flexe: Warehouse) -> None:
        flexe.settings["token"] = "wrong"
        flexe.restart()
        with pytest.raises(Misconfigured):
            flexe.submit()


class TestBlind:
    """Without a look-up nothing is ever sent again until a person has looked."""

    @pytest.fixture
    def blind(self, tmp_path: Path) -> Callable[[], Warehouse]:
        def again() -> Warehouse:
            return Warehouse(BLIND, intents=str(tmp_path / "intents"))

        return again

    def test_it_needs_intents(self) -> None:
        with pytest.raises(Misconfigured, match="give intents"):
            Warehouse(BLIND)

    def test_a_lost_answer_stays_in_doubt_until_it_is_settled(
        self, blind: Callable[[], Warehouse], tmp_path: Path
    ) -> None:
        flexe = blind()
        flexe.lose_next_answer()
        with pytest.raises(Unavailable, match="in doubt"):
            flexe.submit()
        for _ in range(3):
            flexe.clock.advance(3600)
            flexe.restart()
            with pytest.raises(Unavailable, match="See whether Flexe has it"):
                flexe.submit()
        assert flexe.placed() == ["BC-1001-F1"]
        IntentFile(tmp_path / "intents").note("BC-1001-F1", flexe.twin.number("BC-1001-F1"))
        flexe.restart()
        assert flexe.submit() == flexe.twin.number("BC-1001-F1")
        assert flexe.placed() == ["BC-1001-F1"]

    @pytest.mark.parametrize("restarts", [False, True])
    def test_what_was_answered_is_remembered(self, blind: Callable[[], Warehouse], restarts: bool) -> None:
        flexe = blind()
        number = flexe.submit()
        if restarts:
            flexe.restart()
        assert flexe.submit() == number
        assert flexe.placed() == ["BC-1001-F1"]
        assert failed(flexe.provider.cancel(flexe.request()))

    @pytest.mark.parametrize("fault", [Fault("status", status=429), Fault("status", status=403)])
    def test_what_surely_did_not_happen_leaves_no_doubt(self, blind: Callable[[], Warehouse], fault: Fault) -> None:
        flexe = blind()
        flexe.twin.faults.plan(attrs.evolve(fault))
        with pytest.raises((Unavailable, Misconfigured)):
            flexe.submit()
        flexe.refuse("closed")
        assert failed(flexe.provider.submit(flexe.request()))
        flexe.refuse("")
        flexe.submit()
        assert flexe.placed() == ["BC-1001-F1"]

    @pytest.mark.parametrize("fault", [Fault("status", status=503), Fault("refuse"), Fault("status", status=302)])
    def test_what_may_have_happened_is_never_sent_again(self, blind: Callable[[], Warehouse], fault: Fault) -> None:
        flexe = blind()
        flexe.twin.faults.plan(attrs.evolve(fault))
        with pytest.raises((Unavailable, Misunderstood)):
            flexe.submit()
        calls = flexe.provider.calls
        with pytest.raises(Unavailable, match="in doubt"):
            flexe.submit()
        assert flexe.provider.calls == calls

    def test_an_address_without_a_server_leaves_no_doubt(self, blind: Callable[[], Warehouse]) -> None:
        flexe = blind()
        flexe.settings["base_url"] = "https://elsewhere.test"
        flexe.restart()
        for _ in range(2):
            with pytest.raises(Unavailable, match="ConnectError"):
                flexe.submit()

    def test_our_own_limit_leaves_no_doubt(self, blind: Callable[[], Warehouse]) -> None:
        flexe = blind()
        flexe.settings |= {"calls_per_minute": 1, "reserve": 0}
        flexe.restart()
        flexe.submit(1)
        with pytest.raises(Unavailable, match="our own limit"):
            flexe.submit(2)
        flexe.clock.advance(60)
        flexe.submit(2)

    def test_a_torn_line_is_no_harm(self, tmp_path: Path) -> None:
        file = IntentFile(tmp_path / "intents")
        file.note("A", "")
        file.note("B", "7")
        file.note("C", "")
        file.note("C", None)
        with (tmp_path / "intents").open("a") as torn:
            torn.write('["A", "1')
        again = IntentFile(tmp_path / "intents")
        again.note("D", "9")
        assert [again.state(each) for each in "ABCD"] == ["", "7", None, "9"]
        assert [IntentFile(tmp_path / "intents").state(each) for each in "ABCD"] == ["", "7", None, "9"]


class TestShipments:
    """What left is told parcel by parcel, and nothing else is ever taken for shipped."""

    @pytest.mark.parametrize("protocol", [PLAIN, BY_SKU, renamed(CANCELING)], ids=lambda protocol: protocol.name)
    def test_each_parcel_is_told_with_its_lines(self, protocol: FlexeProtocol) -> None:
        flexe = Warehouse(protocol)
        number = flexe.submit()
        flexe.twin.ship_part("BC-1001-F1", line=1)
        flexe.ship("BC-1001-F1")
        first, second = bodies(flexe.pull(), Shipped)
        assert first == Shipped(
            f"{number}-S1",
            (LineQuantity("2", Decimal(1)),),
            SAMPLE_AT,
            f"1Z{number}-S1",
            "UPS",
            "Ground",
            f"https://carrier.example/{number}-S1",
            "11",
        )
        assert second.lines == (LineQuantity("1", Decimal(2)),)
        assert second.shipped_at == SAMPLE_AT + timedelta(minutes=1)

    def test_two_lines_of_one_sku_are_filled_in_turn(self) -> None:
        flexe = Warehouse(BY_SKU)
        order = sample_order()
        chair = ProductId("CHAIR")
        same = order.with_(lines=tuple(attrs.evolve(line, product=chair) for line in order.lines))
        flexe.provider.submit(FulfillmentRequest("K", same, "BC-1001-F1")).unwrap()
        for _ in range(3):
            flexe.ship_part("BC-1001-F1")
        parts = [each.lines for each in bodies(flexe.pull(), Shipped)]
        one = Decimal(1)
        assert parts == [(LineQuantity("1", one),), (LineQuantity("1", one),), (LineQuantity("2", one),)]

    def test_everything_is_told_again_under_the_same_ids(self, flexe: Warehouse) -> None:
        flexe.submit()
        flexe.ship_part("BC-1001-F1")
        before = {each.id for each in flexe.pull()}
        flexe.clock.advance(3600)
        assert {each.id for each in flexe.pull()} == before
        flexe.ship("BC-1001-F1")
        assert {each.id for each in flexe.pull()} > before

    def test_people_pick_pack_and_ship(self, flexe: Warehouse) -> None:
        flexe.submit()
        flexe.submit(2)
        kinds = []
        for _ in range(3):
            assert flexe.twin.staff_step() == 2
            kinds.append([type(each.body) for each in flexe.pull() if isinstance(each, Message)])
        assert kinds == [[Picked] * 2, [Packed] * 2, [Shipped] * 2]
        assert flexe.twin.staff_step() == 0

    def test_a_cancellation_is_told_by_line(self, flexe: Warehouse) -> None:
        flexe.submit()
        flexe.twin.cancel("BC-1001-F1")
        (canceled,) = bodies(flexe.pull(), Canceled)
        assert canceled.lines == ("1", "2")

    def test_a_canceled_order_with_shipments_is_for_a_person(self, flexe: Warehouse) -> None:
        flexe.submit()
        flexe.ship_part("BC-1001-F1")
        flexe.twin.cancel("BC-1001-F1")
        found = flexe.pull()
        assert not bodies(found, Canceled)
        assert not bodies(found, Shipped)
        assert "only a person can tell" in rejected(found)[0].what
        clear = Warehouse(BY_SKU)
        clear.submit()
        clear.ship_part("BC-1001-F1")
        clear.twin.cancel("BC-1001-F1")
        assert [type(each.body) for each in clear.pull() if isinstance(each, Message)] == [Shipped, Canceled]

    def test_shipments_listed_before_the_order_has_left_are_not_told(self, flexe: Warehouse) -> None:
        flexe.submit()
        flexe.ship_part("BC-1001-F1")
        for status in ("placeholder: taken", "placeholder: packed"):
            flexe.twin.show_status("BC-1001-F1", status)
            assert not bodies(flexe.pull(), Shipped)

    @pytest.mark.parametrize("status", ["SHIPPED", "Placeholder: Shipped", "delivered", "placeholder: shipped "])
    def test_an_unknown_status_is_an_error_once_and_never_shipped(self, flexe: Warehouse, status: str) -> None:
        flexe.submit()
        flexe.ship_part("BC-1001-F1")
        flexe.twin.show_status("BC-1001-F1", status)
        found = flexe.pull()
        (error,) = found
        assert isinstance(error, Rejected)
        assert repr(status) in error.what
        assert "UNVERIFIED" in error.what
        assert error.where == "$.placeholder_status"
        flexe.twin.spoil("BC-1001-F1", "something", "else")
        flexe.clock.advance(600)
        assert [each.id for each in flexe.pull()] == [error.id]
        flexe.twin.show_status("BC-1001-F1", "another")
        assert [each.id for each in flexe.pull()] != [error.id]
        flexe.twin.show_status("BC-1001-F1", "")
        assert bodies(flexe.pull(), Shipped)

    def test_a_shipment_of_unknown_status_stops_no_other(self) -> None:
        flexe = Warehouse(BY_SKU)
        flexe.submit()
        flexe.ship_part("BC-1001-F1")
        flexe.ship_part("BC-1001-F1")
        row = flexe.twin._shown(flexe.twin._row("BC-1001-F1"))
        parcels = row["placeholder_shipments"]
        for state, told, errors in (("label", 1, 0), ("teleported", 1, 1), ("", 1, 1)):
            flexe.twin.spoil(
                "BC-1001-F1", "placeholder_shipments", [{**parcels[0], "placeholder_state": state}, parcels[1]]
            )
            found = flexe.pull()
            assert (len(bodies(found, Shipped)), len(rejected(found))) == (told, errors)

    def test_shipped_whole_with_less_in_it_is_an_error(self, flexe: Warehouse) -> None:
        flexe.submit()
        flexe.ship_part("BC-1001-F1")
        flexe.twin.show_status("BC-1001-F1", "placeholder: shipped")
        found = flexe.pull()
        assert len(bodies(found, Shipped)) == 1
        assert "hold 1 of 3" in rejected(found)[0].what
        flexe.twin.spoil("BC-1001-F1", "placeholder_shipments", None)
        (error,) = flexe.pull()
        assert "hold 0 of 3" in getattr(error, "what", "")

    @pytest.mark.parametrize(
        ("path", "value", "where"),
        [
            ("placeholder_status", None, "$.placeholder_status"),
            ("placeholder_status", {}, "$.placeholder_status"),
            ("placeholder_status", True, "$.placeholder_status"),
            ("placeholder_lines", None, "$.placeholder_lines"),
            ("placeholder_lines", [], "$.placeholder_lines"),
            ("placeholder_lines", [None], "$.placeholder_lines[0]"),
            ("placeholder_lines", [{}], "$.placeholder_lines[0].placeholder_line_reference"),
            (
                "placeholder_lines",
                [{"placeholder_line_reference": "1", "placeholder_quantity": 2}] * 2,
                "$.placeholder_lines[1].placeholder_line_reference",
            ),
            (
                "placeholder_lines",
                [{"placeholder_line_reference": "1", "placeholder_quantity": "many"}],
                "$.placeholder_lines[0].placeholder_quantity",
            ),
            ("placeholder_shipments", "none", "$.placeholder_shipments"),
            ("placeholder_shipments", ["x"], "$.placeholder_shipments[0]"),
            ("placeholder_shipments", [{}], "$.placeholder_shipments[0].placeholder_shipment_id"),
            (
                "placeholder_shipments",
                [{"placeholder_shipment_id": "S"}],
                "$.placeholder_shipments[0].placeholder_contents",
            ),
            (
                "placeholder_shipments",
                [{"placeholder_shipment_id": "S", "placeholder_contents": []}],
                "$.placeholder_shipments[0].placeholder_contents",
            ),
            (
                "placeholder_shipments",
                [
                    {
                        "placeholder_shipment_id": "S",
                        "placeholder_shipped_at": "yesterday",
                        "placeholder_contents": [{"placeholder_line_reference": "1", "placeholder_quantity": 1}],
                    }
                ],
                "$.placeholder_shipments[0].placeholder_shipped_at",
            ),
        ],
    )
    def test_a_malformed_row_is_rejected_at_its_place(
        self, flexe: Warehouse, path: str, value: Any, where: str
    ) -> None:
        flexe.submit(1)
        flexe.submit(2)
        flexe.ship("BC-1001-F1")
        flexe.ship("BC-1002-F1")
        flexe.twin.spoil("BC-1001-F1", path, value)
        found = flexe.pull()
        assert where in [each.where for each in rejected(found)]
        assert [each.external_id for each in found if isinstance(each, Message)] == [flexe.twin.number("BC-1002-F1")]
        assert {each.external_id for each in rejected(found)} == {flexe.twin.number("BC-1001-F1")}

    @pytest.mark.parametrize("quantity", [0, -1, "NaN", "1e400", True, None, [], 10**30])
    def test_no_absurd_quantity_is_shipped(self, flexe: Warehouse, quantity: Any) -> None:
        flexe.submit()
        flexe.ship("BC-1001-F1")
        parcel = {
            "placeholder_shipment_id": "S",
            "placeholder_contents": [{"placeholder_line_reference": "1", "placeholder_quantity": quantity}],
        }
        flexe.twin.spoil("BC-1001-F1", "placeholder_shipments", [parcel])
        found = flexe.pull()
        assert not bodies(found, Shipped)
        assert rejected(found)[0].where.endswith("placeholder_contents[0].placeholder_quantity")

    def test_a_shipment_without_a_date_left_now(self, flexe: Warehouse) -> None:
        flexe.submit()
        parcel = {
            "placeholder_shipment_id": "S",
            "placeholder_contents": [{"placeholder_line_reference": "1", "placeholder_quantity": "2"}],
        }
        flexe.twin.show_status("BC-1001-F1", "placeholder: partly shipped")
        flexe.twin.spoil("BC-1001-F1", "placeholder_shipments", [parcel])
        (shipped,) = bodies(flexe.pull(), Shipped)
        assert shipped.shipped_at == flexe.now
        assert shipped.lines == (LineQuantity("1", Decimal(2)),)


class TestPulling:
    """Open orders are read in turn, within the limits."""

    def test_it_must_be_told_which_orders_are_open(self, flexe: Warehouse) -> None:
        with pytest.raises(Misconfigured, match="open_orders"):
            connect(flexe.settings, client=flexe.client).pull("", flexe.now)

    def test_a_strange_checkpoint_is_refused(self, flexe: Warehouse) -> None:
        for checkpoint in ("7", "x", "{}", "[2]", '[1, 1, [3], null, "", "", ""]', '[1, "", [], null, "", "", ""]'):
            with pytest.raises(Misconfigured, match="checkpoint"):
                flexe.provider.pull(checkpoint, flexe.now)

    def test_every_open_order_gets_its_turn(self) -> None:
        flexe = Warehouse(orders_per_pull=2)
        numbers = [flexe.submit(nth) for nth in range(5)]
        for nth in range(5):
            flexe.twin.ship(f"BC-{1000 + nth}-F1")
        told: list[str] = []
        checkpoint, more = "", True
        while more:
            pulled = flexe.provider.pull(checkpoint, flexe.now)
            flexe.restart()
            told += [each.external_id for each in pulled.messages]
            assert len(pulled.messages) <= 2
            checkpoint, more = pulled.checkpoint, pulled.more
        assert told == numbers

    def test_what_was_taken_over_is_not_told_again(self, flexe: Warehouse) -> None:
        for nth in (1, 2):
            flexe.submit(nth)
        flexe.ship("BC-1001-F1")
        flexe.twin.show_status("BC-1002-F1", "unheard of")
        first = flexe.provider.pull("", flexe.now)
        assert len(first.messages) == 2
        second = flexe.provider.pull(first.checkpoint, flexe.now)
        assert second.messages == ()
        assert flexe.provider.pull(first.checkpoint, flexe.now).messages == first.messages
        flexe.restart()
        assert flexe.provider.pull(second.checkpoint, flexe.now).messages == first.messages

    def test_the_default_limit_is_the_published_one(self, flexe: Warehouse) -> None:
        del flexe.settings["calls_per_minute"]
        flexe.restart()
        flexe.provider._open_orders = lambda: [f"OB-{nth:03}" for nth in range(500)]
        pulled = flexe.provider.pull("", flexe.now)
        pulled = flexe.provider.pull(pulled.checkpoint, flexe.now)
        assert pulled.more
        assert flexe.provider.calls == 80
        with pytest.raises(Unavailable, match="100 calls a minute") as limited:
            flexe.provider.pull(pulled.checkpoint, flexe.now)
        assert limited.value.retry_after == 60
        for nth in range(10):
            flexe.submit(nth)
        assert flexe.provider.calls == 100
        with pytest.raises(Unavailable, match="our own limit"):
            flexe.submit(11)
        flexe.clock.advance(60)
        assert flexe.provider.pull(pulled.checkpoint, flexe.now).messages

    def test_a_429_is_minded_for_as_long_as_it_says(self, flexe: Warehouse) -> None:
        flexe.twin.quota = 2
        flexe.submit()
        calls = flexe.provider.calls
        for _ in range(3):
            with pytest.raises(Unavailable) as limited:
                flexe.pull()
            assert 60 <= (limited.value.retry_after or 0) <= 61
        assert flexe.provider.calls == calls + 1
        flexe.clock.advance(61)
        flexe.pull()

    def test_an_order_that_is_gone_is_one_error(self, flexe: Warehouse) -> None:
        flexe.provider._open_orders = lambda: ["OB-1", "..", "x" * 300]
        found = flexe.pull()
        assert len({each.id for each in rejected(found)}) == 3
        assert [each.id for each in flexe.pull()] == [each.id for each in found]

    @pytest.mark.parametrize("body", [b"", b"7", b"{}", b'{"placeholder_id": "other"}'])
    def test_a_garbled_answer_stops_no_other_order(self, flexe: Warehouse, body: bytes) -> None:
        flexe.submit(1)
        flexe.submit(2)
        flexe.ship("BC-1002-F1")
        flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=body))
        first, second = flexe.pull()
        assert isinstance(first, Rejected)
        assert isinstance(second, Message)

    def test_another_order_than_the_one_asked_for_is_not_told(self, flexe: Warehouse) -> None:
        flexe.submit()
        flexe.ship("BC-1001-F1")
        row = flexe.twin._shown(flexe.twin._row("BC-1001-F1")) | {"placeholder_id": "OB-7"}
        flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=json.dumps(row).encode()))
        (error,) = flexe.pull()
        assert isinstance(error, Rejected)
        assert "got OB-7" in error.what

    def test_a_pull_that_is_cut_short_keeps_what_it_read(self, flexe: Warehouse) -> None:
        for nth in (1, 2):
            flexe.submit(nth)
            flexe.ship(f"BC-{1000 + nth}-F1")
        flexe.twin.faults.plan(Fault("refuse", after=1))
        pulled = flexe.provider.pull("", flexe.now)
        assert pulled.more
        assert len(pulled.messages) == 1
        rest = flexe.provider.pull(pulled.checkpoint, flexe.now)
        assert len({each.id for each in (*pulled.messages, *rest.messages)}) == 2

    @pytest.mark.parametrize("protocol", [LISTING, COUNTING], ids=lambda protocol: protocol.name)
    def test_a_listing_is_turned_to_its_end(self, protocol: FlexeProtocol) -> None:
        flexe = Warehouse(protocol, reference_prefix="BC-")
        for nth in range(5):
            flexe.submit(nth)
            flexe.ship(f"BC-{1000 + nth}-F1")
        strange = sample_order("ZZ-1", external_id="1")
        flexe.provider.submit(FulfillmentRequest("K", strange, "ZZ-1-F1")).unwrap()
        flexe.ship("ZZ-1-F1")
        assert len({each.external_id for each in flexe.pull()}) == 5

    def test_a_listing_asks_for_what_changed(self) -> None:
        flexe = Warehouse(LISTING)
        flexe.submit(1)
        flexe.ship("BC-1001-F1")
        flexe.clock.advance(3600)
        pulled = flexe.provider.pull("", flexe.now)
        assert pulled.messages
        flexe.submit(2)
        flexe.ship("BC-1002-F1")
        assert [each.external_id for each in flexe.provider.pull(pulled.checkpoint, flexe.now).messages] == [
            flexe.twin.number("BC-1002-F1")
        ]

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"placeholder_items": 7}', b'{"placeholder_items": [7]}'])
    def test_a_garbled_list_is_their_fault(self, body: bytes) -> None:
        flexe = Warehouse(LISTING)
        flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=body))
        with pytest.raises(Misunderstood):
            flexe.pull()

    def test_a_list_that_never_ends_is_their_fault(self) -> None:
        assert LISTING.listing is not None
        flexe = Warehouse(attrs.evolve(LISTING, listing=attrs.evolve(LISTING.listing, first_page="@1")))
        body = b'{"placeholder_items": [], "placeholder_next": "@1"}'
        flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=body))
        with pytest.raises(Misunderstood, match="this page"):
            flexe.pull()


class TestOpenOrders:
    """What the composition root tells the adapter, from its store."""

    def order(self) -> SalesOrder:
        order = sample_order()
        number = ExternalId(FLEXE, ev.FULFILLMENT_ORDER, "BC-1001-F1", "OB-1")
        return order.with_(externals=(*order.externals, number))

    def numbers(self, order: SalesOrder) -> list[str]:
        @attrs.frozen
        class Store:
            def orders(self) -> Iterator[SalesOrder]:
                yield order

        return list(open_orders(Store())())

    def test_an_order_is_open_until_all_of_it_has_left(self) -> None:
        order = self.order()
        assert self.numbers(order) == ["OB-1"]
        assert self.numbers(sample_shipped_order(order, partly=True)) == ["OB-1"]
        assert self.numbers(sample_shipped_order(order)) == []

    def test_orders_of_others_and_those_not_sent_are_not(self) -> None:
        assert self.numbers(sample_order()) == []
        order = self.order()
        (fo,) = order.fulfillment_orders
        assert self.numbers(order.with_(fulfillment_orders=(attrs.evolve(fo, provider=System("fno")),))) == []


class TestWebhooks:
    """A webhook is a hint from somebody who knows our secret, and never more."""

    def test_it_hints_and_reading_tells(self, flexe: Warehouse) -> None:
        number = flexe.submit()
        flexe.ship("BC-1001-F1")
        _, headers, body = flexe.sent[-1]
        assert flexe.provider.translate(headers, body) == Success((number,))
        (message,) = flexe.provider.read(number, flexe.now)
        assert isinstance(message, Message)
        assert [message] == list(flexe.pull())

    @pytest.mark.parametrize("given", [None, "", "guess", SECRET[:-1], SECRET + " ", "é", "\ud800"])
    def test_a_forgery_is_refused(self, flexe: Warehouse, given: str | None) -> None:
        flexe.submit()
        _, headers, body = flexe.twin.webhook("BC-1001-F1")
        forged = {name: value for name, value in headers.items() if "Secret" not in name}
        if given is not None:
            forged["x-iom-webhook-secret"] = given
        assert flexe.provider.translate(forged, body).failure().code == "unauthenticated"
        assert failed(flexe.provider.translate(forged, body, f"x-iom-webhook-secret={SECRET}"))

    def test_the_secret_may_come_in_the_address(self) -> None:
        flexe = Warehouse(webhook_parameter="key")
        flexe.twin.webhooks.parameter = "key"
        number = flexe.submit()
        flexe.ship("BC-1001-F1")
        url, headers, body = flexe.sent[-1]
        query = url.partition("?")[2]
        assert flexe.provider.translate(headers, body, query) == Success((number,))
        for forged in ("", "key=guess", "other=1", query.replace("key", "Key")):
            assert flexe.provider.translate(headers, body, forged).failure().code == "unauthenticated"
        assert failed(flexe.provider.translate({"x-iom-webhook-secret": SECRET}, body))

    def test_without_a_secret_or_a_webhook_everything_is_refused(self) -> None:
        for flexe in (Warehouse(webhook_secret=""), Warehouse(WHOLE)):
            assert Capability.WEBHOOKS not in flexe.provider.capabilities
            refused = flexe.provider.translate({"x-iom-webhook-secret": flexe.settings["webhook_secret"]}, b"{}")
            assert refused.failure().code == "unauthenticated"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff",
            b"7",
            b"[]",
            b"{}",
            b'{"placeholder_event": {}}',
            b'{"placeholder_event": "placeholder: order changed"}',
            b'{"placeholder_event": "x", "placeholder_order": {"placeholder_id": ".."}}',
            b'{"placeholder_event": "x", "placeholder_order": {"placeholder_id": ["1"]}}',
            b"[" * 60_000,
        ],
    )
    def test_nonsense_is_refused(self, flexe: Warehouse, body: bytes) -> None:
        refused = flexe.provider.translate({"X-IOM-Webhook-Secret": SECRET}, body).failure()
        assert refused.code == "malformed"
        assert refused.where.startswith("$")

    def test_an_oversized_one_is_refused_before_it_is_read(self, flexe: Warehouse) -> None:
        assert flexe.provider.translate({}, b" " * (MAX_WEBHOOK + 1)).failure().code == "too-large"

    def test_events_of_other_things_hint_at_nothing(self, flexe: Warehouse) -> None:
        headers = {"x-iom-webhook-secret": SECRET}
        ignored = b'{"placeholder_event": "placeholder: stock changed"}'
        assert flexe.provider.translate(headers, ignored) == Success(())
        unknown = b'{"placeholder_event": "new in 2027", "placeholder_order": {"placeholder_id": 7}}'
        assert flexe.provider.translate(headers, unknown) == Success(("7",))

    def test_a_hint_at_nothing_of_ours_tells_nothing(self) -> None:
        flexe = Warehouse(reference_prefix="BC-")
        order = sample_order("ZZ-1", external_id="1")
        number = flexe.provider.submit(FulfillmentRequest("K", order, "ZZ-1-F1")).unwrap().number
        flexe.ship("ZZ-1-F1")
        for hint in (number, "OB-404", "..", "", "a/../b", "x" * 1000):
            assert flexe.provider.read(hint, flexe.now) == ()

    def test_repeated_and_overtaking_ones_do_no_harm(self, flexe: Warehouse) -> None:
        flexe.twin.webhooks.hold = True
        flexe.submit()
        flexe.ship_part("BC-1001-F1")
        flexe.ship("BC-1001-F1")
        flexe.twin.webhooks.copies, flexe.twin.webhooks.backwards = 2, True
        assert flexe.twin.pending_webhooks() == 2
        assert flexe.twin.deliver_webhooks() == 2
        assert flexe.twin.pending_webhooks() == 0
        ids: set[str] = set()
        for _, headers, body in flexe.sent:
            for number in flexe.provider.translate(headers, body).unwrap():
                ids |= {each.id for each in flexe.provider.read(number, flexe.now)}
        assert ids == {each.id for each in flexe.pull()}
        assert len(ids) == 2


class TestCanceling:
    """Only where the protocol says how."""

    def test_without_a_way_it_is_unsupported(self, flexe: Warehouse) -> None:
        flexe.submit()
        refused = flexe.provider.cancel(flexe.request()).failure()
        assert refused.code == "unsupported"
        assert "UNVERIFIED" in refused.what

    def test_a_lost_answer_cancels_once(self) -> None:
        flexe = Warehouse(CANCELING)
        number = flexe.submit()
        flexe.twin.faults.plan(Fault("lost", method="POST"))
        with pytest.raises(Unavailable):
            flexe.provider.cancel(flexe.request())
        assert isinstance(flexe.provider.cancel(flexe.request()).unwrap(), Receipt)
        assert flexe.twin.faults.log[-1][0] == "GET"
        assert bodies(flexe.provider.read(number, flexe.now), Canceled)

    def test_what_flexe_does_not_have_is_refused(self) -> None:
        flexe = Warehouse(CANCELING)
        assert flexe.provider.cancel(flexe.request()).failure().code == "unknown-order"

    def test_a_no_is_passed_on(self) -> None:
        flexe = Warehouse(CANCELING)
        flexe.submit()
        flexe.twin.faults.plan(Fault("status", method="POST", status=409))
        assert flexe.provider.cancel(flexe.request()).failure().what == "answered 409"


class TestInAFlow:
    """Scenario S2 with this adapter in place of the fake: BigCommerce, shipped by Flexe, accounted in F&O."""

    def test_nothing_is_lost_and_nothing_twice(self) -> None:
        world = World.for_scenario(scenarios.BIGCOMMERCE_FLEXE_FNO)
        twin = FlexeTwin(PLAIN, clock=world.clock)
        flexe = connect(
            {"base_url": "https://flexe.test", "token": "test-token", "protocol": PLAIN},
            client=httpx.Client(transport=transport(("flexe.test", twin))),
            clock=world.clock,
            open_orders=open_orders(world.store),
        )
        world.providers[FLEXE] = providers.fulfiller(flexe)
        twin.faults.plan(Fault("lost", method="POST"), Fault("status", method="GET", after=2))

        orders = [world.receive({"CHAIR": 2, "LAMP": 1}), world.receive({"CHAIR": 3})]
        world.run_until_quiet()
        references = [fo.id for order in orders for fo in world.order(order).fulfillment_orders]
        assert sorted(twin.placed()) == sorted(references)
        assert all("UNVERIFIED" in repr(world.order(order).steps) for order in orders)

        twin.show_status(references[0], "lost at sea")
        assert twin.ship_part(references[1], 2)
        world.run_until_quiet()
        errors = world.store.errors("provider inbound")
        assert ["lost at sea" in each.what for each in errors] == [True]
        assert [units(world.order(each))["shipped"] for each in orders] == [0, 2]

        twin.show_status(references[0], "")
        while twin.staff_step():
            world.run_until_quiet()
        assert [world.order(each).status.state for each in orders] == [ev.COMPLETED] * 2
        assert [units(world.order(each))["open"] for each in orders] == [0, 0]
        assert [len(world.order(each).shipments) for each in orders] == [1, 2]
        assert list(open_orders(world.store)()) == []


class TestTwin:
    """The twin refuses what any server would, and survives a kill."""

    def test_it_keeps_everything_in_its_file(self, tmp_path: Path) -> None:
        def open_twin() -> FlexeTwin:
            return FlexeTwin(PLAIN, path=tmp_path / "twin.db", clock=VirtualClock(SAMPLE_AT))

        twin = open_twin()
        client = httpx.Client(transport=transport(("flexe.test", twin)))
        config = FlexeConfig(base_url="https://flexe.test", token="test-token", protocol=PLAIN)
        order = sample_order()
        fo = attrs.evolve(
            order.fulfillment_orders[0],
            lines=(attrs.evolve(order.fulfillment_orders[0].lines[0], quantity=Decimal("1.5"), line=LineId("1")),),
        )
        number = (
            Flexe(config, client)
            .submit(FulfillmentRequest("K", order.with_(fulfillment_orders=(fo,)), "BC-1001-F1"))
            .unwrap()
            .number
        )
        twin.ship(number)
        twin.close()
        again = open_twin()
        other = Flexe(config, httpx.Client(transport=transport(("flexe.test", again))), open_orders=again.orders)
        (shipped,) = bodies(other.pull("", SAMPLE_AT).messages, Shipped)
        assert shipped.lines == (LineQuantity("1", Decimal("1.5")),)
        with pytest.raises(KeyError):
            again.number("nothing")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b"{}",
            b'{"placeholder_reference": "R"}',
            *(
                b'{"placeholder_reference": "R", "placeholder_lines": [%s]}' % line
                for line in (
                    b"{}",
                    b'{"placeholder_sku": "A", "placeholder_quantity": 0}',
                    b'{"placeholder_sku": "A", "placeholder_quantity": "1"}',
                    b'{"placeholder_sku": "A", "placeholder_quantity": []}',
                )
            ),
        ],
    )
    def test_it_refuses_what_is_no_order(self, flexe: Warehouse, body: bytes) -> None:
        headers = {"X-Placeholder-Token": "test-token"}
        reply = flexe.client.post("https://flexe.test/placeholder/outbound-orders", headers=headers, content=body)
        assert 400 <= reply.status_code < 500
        assert reply.json()["placeholder_error"]["message"]
        assert flexe.twin.orders() == []
        assert flexe.client.get("https://flexe.test/elsewhere", headers=headers).status_code == 404

    def test_it_needs_a_header_for_the_token(self) -> None:
        with pytest.raises(ValueError, match="auth_header"):
            FlexeTwin(PLACEHOLDER)

    def test_a_webhook_nobody_takes_is_sent_again(self) -> None:
        flexe = Warehouse()
        flexe.twin.webhooks.deliver = lambda url, headers, body: 500
        flexe.submit()
        flexe.ship("BC-1001-F1")
        assert flexe.twin.pending_webhooks() == 1
        flexe.twin.webhooks.deliver = flexe._keep
        assert flexe.twin.deliver_webhooks() == 1


def test_a_find_may_answer_with_one_object() -> None:
    one = attrs.evolve(PLAIN, find=Find(method="GET", path="/by-reference/{reference}"), name="one")
    flexe = Warehouse(one)
    body = b'{"placeholder_id": "X", "placeholder_reference": "BC-1001-F1"}'
    flexe.twin.faults.plan(Fault("status", method="GET", status=200, body=body))
    assert flexe.submit() == "X"
    assert flexe.twin.faults.log == [("GET", "/by-reference/BC-1001-F1", 200)]
