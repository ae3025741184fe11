"""SAP's words and ours: every literal, number, date, price, error and event, without a wire in between."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters.sap import SapConfig, wire
from iom_adapters.sap.wire import BadRow, Bill, Books, Create, Item, Order
from iom_core.errors import Misconfigured
from iom_core.outcome import Refused, failed
from iom_core.values import Money

from ._sap import BASE, SECRET, shipped

CONFIG = SapConfig.of(BASE)
decimals = st.decimals(min_value=-(10**11), max_value=10**11, places=3)


# --- literals ----------------------------------------------------------------------------------------------


@given(decimals)
def test_a_v2_decimal_comes_back_as_it_was_and_is_text_without_exponent(value: Decimal) -> None:
    text = wire.v2_decimal(value)
    assert wire.decimal_of({"x": text}, "x") == value
    assert "e" not in text.lower()


@pytest.mark.parametrize(
    ("value", "text"), [("3.000", "3"), ("2.50", "2.5"), ("1E+2", "100"), ("0.000", "0"), ("0", "0")]
)
def test_v2_decimals_lose_trailing_zeros_only(value: str, text: str) -> None:
    assert wire.v2_decimal(Decimal(value)) == text


@pytest.mark.parametrize("value", ["2.5", Decimal("2.5")])
def test_a_decimal_is_read_from_text_and_from_a_number(value: object) -> None:
    assert wire.decimal_of({"x": value}, "x") == Decimal("2.5")


@pytest.mark.parametrize("value", [True, None, "", "a lot", "NaN", "Infinity", 2.5, [], {}])
def test_what_is_no_decimal_is_named(value: object) -> None:
    with pytest.raises(BadRow) as caught:
        wire.decimal_of({"x": value}, "x")
    assert caught.value.where == "$.x"


@given(st.dates(min_value=date(1900, 1, 1), max_value=date(9999, 12, 31)))
def test_a_date_is_midnight_utc_and_comes_back(day: date) -> None:
    moment = wire.v2_moment(wire.v2_date(day))
    assert moment == datetime(day.year, day.month, day.day, tzinfo=UTC)


def test_dates_are_written_as_sap_writes_them() -> None:
    assert wire.v2_date(date(2019, 1, 9)) == "/Date(1546992000000)/"
    assert wire.day_literal(date(2026, 9, 12)) == "datetime'2026-09-12T00:00:00'"
    moment = datetime(2026, 9, 12, 2, 0, 0, 5, tzinfo=UTC)
    assert wire.moment_literal(moment) == "datetimeoffset'2026-09-12T02:00:00Z'"


@pytest.mark.parametrize("text", ["/Date(1492098664000)/", "/Date(1492098664000+0000)/", "/Date(1492098664000+0120)/"])
def test_the_milliseconds_of_a_date_are_utc_whatever_follows(text: str) -> None:
    assert wire.v2_moment(text) == datetime(2017, 4, 13, 15, 51, 4, tzinfo=UTC)


def test_an_escaped_slash_is_the_same_date() -> None:
    assert wire.v2_moment(json.loads(r'"\/Date(0)\/"')) == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "2026-01-05", "/Date()/", "/Date(1e5)/", "/Date(99999999999999999)/"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        wire.v2_moment(text)


@pytest.mark.parametrize(("given_", "bare"), [("0090000000", "90000000"), ("1", "1"), ("0000", ""), ("0A7", "A7")])
def test_numbers_lose_leading_zeros_and_stay_text(given_: str, bare: str) -> None:
    assert wire.number(given_) == bare


def test_an_etag_is_kept_byte_for_byte() -> None:
    etag = "W/\"datetimeoffset'2019-01-09T08%3A41%3A03.6829150Z'\""
    assert wire.etag_of({"__metadata": {"etag": etag}}) == etag
    with pytest.raises(BadRow):
        wire.etag_of({"__metadata": {}})


@pytest.mark.parametrize("value", [{"results": [{}]}, [{}]])
def test_children_come_in_two_shapes(value: object) -> None:
    assert wire.children_of({"to_Item": value}, "to_Item") == [{}]


def test_children_that_were_not_expanded_are_no_children() -> None:
    with pytest.raises(BadRow):
        wire.children_of({"to_Item": {"__deferred": {"uri": "x"}}}, "to_Item")


# --- errors ------------------------------------------------------------------------------------------------


def test_a_v2_error_has_its_cause_in_the_details() -> None:
    body = {
        "error": {
            "code": "V1/042",
            "message": {"lang": "en", "value": "An exception was raised"},
            "innererror": {
                "errordetails": [
                    {"code": "V1/302", "message": "Material X is not defined ", "propertyref": "Material"},
                    {"code": "/IWBEP/CX_MGW_BUSI_EXCEPTION", "message": "An exception was raised"},
                ]
            },
        }
    }
    assert wire.problem(body) == wire.Problem(
        "V1/042", "An exception was raised; Material X is not defined  (Material)"
    )


def test_a_v4_error_is_a_string_with_details() -> None:
    body = {"error": {"code": "VF/017", "message": "Blocked", "details": [{"code": "VF/018", "message": "Block 02"}]}}
    assert wire.problem(body) == wire.Problem("VF/017", "Blocked; Block 02")


@pytest.mark.parametrize("body", [None, [], "no", {"error": "no"}, {"error": {"message": 5, "details": "x"}}, {}])
def test_what_is_no_error_says_nothing(body: object) -> None:
    assert wire.problem(body).what == ""


@pytest.mark.parametrize(
    ("category", "canceled", "fine"),
    [("M", "", True), ("M", "0000000000", True), ("M", "0090000000", False), ("N", "", False), ("O", "", False)],
)
def test_an_invoice_is_no_memo_and_no_cancellation(category: str, canceled: str, fine: bool) -> None:
    assert wire.is_invoice({"SDDocumentCategory": category, "CancelledBillingDocument": canceled}, CONFIG) is fine


# --- parts and prices --------------------------------------------------------------------------------------


def parts(**settings: object) -> tuple[wire.Part, ...]:
    return wire.parts(shipped(), (), SapConfig.of({**BASE, **settings})).unwrap()


def test_the_parts_of_an_order_add_up_to_its_total() -> None:
    order = shipped()
    assert sum((part.amount(part.quantity, net=False) for part in parts()), Money.zero("USD")) == order.total
    assert [(part.line, part.number, part.quantity) for part in parts()] == [
        ("1", "10", Decimal(2)),
        ("2", "20", Decimal(1)),
        ("3", "30", Decimal(1)),
    ]


def test_only_what_shipped_is_a_part_and_what_nobody_ships_is_one() -> None:
    found = wire.parts(shipped(partly=True), (), CONFIG).unwrap()
    assert [(part.line, part.quantity) for part in found] == [("1", Decimal(1)), ("3", Decimal(1))]


def test_named_lines_are_the_only_parts() -> None:
    assert [part.line for part in wire.parts(shipped(), ("2",), CONFIG).unwrap()] == ["2"]
    assert wire.parts(shipped(), ("9",), CONFIG).failure().code == "unknown-line"


def test_units_and_materials_are_mapped() -> None:
    (chair, *_) = parts(units={"ea": "EA"}, materials={"CHAIR": "TG11"})
    assert (chair.unit, chair.material) == ("EA", "TG11")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"materials": {"CHAIR": "X" * 41}}, "material"),
        ({"units": {"ea": "EACH"}}, "unit"),
        ({"price_is": "net"}, "tax-unknown"),
    ],
)
def test_what_saps_fields_cannot_hold_is_refused(settings: dict[str, object], code: str) -> None:
    refused = wire.parts(shipped(), (), SapConfig.of({**BASE, **settings})).failure()
    assert (refused.code, refused.where.startswith("$.lines[0]"), refused.who) == (code, True, "sap")


def test_nothing_shipped_is_an_early_refusal() -> None:
    order = shipped(partly=True)
    physical = tuple(line for line in order.lines if not line.digital)[1:]
    refused = wire.parts(attrs.evolve(order, lines=physical), (), CONFIG).failure()
    assert (refused.code, refused.early) == ("nothing-shipped", True)


@given(
    st.integers(min_value=0, max_value=10**7),
    st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=8),
    st.sampled_from(["USD", "JPY", "KWD"]),
)
def test_a_line_cut_into_shipments_costs_what_it_costs(minor: int, shipments: list[int], currency: str) -> None:
    unit = {"USD": "0.01", "JPY": "1", "KWD": "0.001"}[currency]
    cost = Money.of(minor * Decimal(unit), currency)
    ordered = Decimal(sum(shipments))
    part = attrs.evolve(parts()[0], ordered=ordered, cost=cost)
    before, whole = Decimal(0), Money.zero(currency)
    for each in shipments:
        after = before + each
        amount = part.amount(after, False) - part.amount(before, False)
        rate, per = wire.price(amount, Decimal(each))
        assert rate * each / per == amount.amount
        whole, before = whole + amount, after
    assert whole == cost


@given(
    st.integers(min_value=0, max_value=10**7),
    st.decimals(min_value=Decimal("0.001"), max_value=Decimal(10**5), places=3),
)
def test_a_price_per_fraction_comes_to_the_cent(minor: int, quantity: Decimal) -> None:
    amount = Money.of(Decimal(minor).scaleb(-2), "USD")
    rate, per = wire.price(amount, quantity)
    assert per == int(per)
    assert 0 < per <= 99_999
    assert Money.rounded(rate * quantity / per, "USD") == amount


def test_net_prices_leave_the_tax_out() -> None:
    part = attrs.evolve(parts()[0], tax=Money.of("4.00", "USD"))
    assert part.amount(Decimal(2), net=False) - part.amount(Decimal(2), net=True) == Money.of("4.00", "USD")


def test_without_a_condition_type_no_price_is_sent() -> None:
    config = SapConfig.of({**BASE, "price_condition": ""})
    assert "to_PricingElement" not in wire.item_body(parts()[0], "10", Decimal(2), Decimal(0), config)


@pytest.mark.parametrize(("reference", "fine"), [("X" * 35, True), ("X" * 36, False), (" X", False), ("", False)])
def test_a_reference_is_never_cut(reference: str, fine: bool) -> None:
    assert (wire.reference_problem(reference) == "") is fine


# --- what is next ------------------------------------------------------------------------------------------


def there(*items: Item, block: str = "") -> Order:
    return Order("1", "BC-1001", "W/\"'1'\"", block, False, items)


def full() -> tuple[Item, ...]:
    return tuple(Item(part.number, part.number, part.quantity, "PC", False) for part in parts())


def test_first_the_order_then_its_bill_then_nothing() -> None:
    assert wire.next_step(parts(), Books(), CONFIG) == Create()
    assert wire.next_step(parts(), Books(there(*full())), CONFIG) == Bill("1", "C")
    done = Books(there(*full()), billed={item.number: item.quantity for item in full()})
    assert wire.next_step(parts(), done, CONFIG) is None


def test_what_shipped_since_becomes_an_item_of_its_own() -> None:
    first, *others = full()
    step = wire.next_step(parts(), Books(there(attrs.evolve(first, quantity=Decimal(1)), *others)), CONFIG)
    assert isinstance(step, wire.AddItem)
    assert (step.item, step.quantity, step.before) == ("11", Decimal(1), Decimal(1))


def test_an_item_number_that_people_took_is_not_taken_again() -> None:
    _, *others = full()
    foreign = Item("10", "", Decimal(5), "PC", False)
    step = wire.next_step(parts(), Books(there(foreign, *others)), CONFIG)
    assert isinstance(step, wire.AddItem)
    assert step.item == "11"


def test_a_line_in_too_many_parts_is_refused() -> None:
    many = tuple(Item(str(10 + n), "10", Decimal("0.1"), "PC", False) for n in range(10))
    step = wire.next_step(parts(), Books(there(*many)), CONFIG)
    assert isinstance(step, Refused)
    assert step.code == "too-many-parts"


def test_rejected_items_are_neither_billed_nor_added_again() -> None:
    rejected = tuple(attrs.evolve(item, rejected=True) for item in full())
    assert wire.next_step(parts(), Books(there(*rejected)), CONFIG) is None


def test_somebody_elses_billing_block_is_not_ours_to_take() -> None:
    step = wire.next_step(parts(), Books(there(*full(), block="09")), CONFIG)
    assert isinstance(step, Refused)
    assert (step.code, step.early) == ("billing-block", True)


# --- events ------------------------------------------------------------------------------------------------


def event(kind: str = "sap.s4.beh.billingdocument.v1.BillingDocument.Created.v1", **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": kind,
        "source": "/default/sap.s4.beh/S4HCLNT100",
        "id": "1",
        "data": {"BillingDocument": "0090000000", "NewInALaterRelease": 1, **data},
    }


def hinted(body: object, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return wire.hinted(headers or {}, raw, CONFIG)


@pytest.mark.parametrize("what", ["Created", "Changed", "Canceled"])
def test_billing_events_hint_at_their_document(what: str) -> None:
    said = event(f"sap.s4.beh.billingdocument.v1.BillingDocument.{what}.v1")
    assert hinted(said).unwrap() == ("90000000",)


def test_a_binary_event_is_understood_with_and_without_its_wrapping() -> None:
    headers = {
        "ce-id": "1",
        "CE-Source": "/x",
        "ce-specversion": "1.0",
        "ce-type": "sap.s4.beh.billingdocument.v1.BillingDocument.Created.v1",
    }
    assert hinted({"data": {"BillingDocument": "9"}}, headers).unwrap() == ("9",)
    assert hinted({"BillingDocument": "9"}, headers).unwrap() == ("9",)


def test_other_events_hint_at_nothing() -> None:
    assert hinted(event("sap.s4.beh.salesorder.v1.SalesOrder.Created.v1")).unwrap() == ()


def test_the_old_form_is_told_apart() -> None:
    assert hinted({"EVENT_PAYLOAD": {"KEY": [{"SALESORDER": "5734"}]}}).unwrap() == ()
    assert hinted({"EVENT_PAYLOAD": {"KEY": [{"BILLINGDOCUMENT": "0090000001"}]}}).unwrap() == ("90000001",)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff{", b"[" * 100_000, [], 5, {"type": "x"}, event(BillingDocument="x' or 1"), event(BillingDocument=5)],
)
def test_nonsense_is_refused(body: object) -> None:
    assert failed(hinted(body))


def test_the_secret_is_compared_whole_or_after_bearer() -> None:
    assert wire.secret_matches({"Authorization": SECRET}, CONFIG)
    assert wire.secret_matches({"authorization": f"Bearer {SECRET}"}, CONFIG)
    assert not wire.secret_matches({"authorization": "Bearer x"}, CONFIG)
    assert not wire.secret_matches({}, CONFIG)
    assert not wire.secret_matches({"authorization": ""}, SapConfig.of({**BASE, "webhook_secret": ""}))


def test_the_handshake_allows_who_asked() -> None:
    asked = {"WebHook-Request-Origin": "eventmesh.example"}
    assert wire.handshake(asked, CONFIG).unwrap() == {"WebHook-Allowed-Origin": "eventmesh.example"}
    strict = SapConfig.of({**BASE, "webhook_origins": ["other.example"]})
    assert wire.handshake(asked, strict).failure().code == "origin"


@pytest.mark.parametrize("origin", ["", "a\r\nSet-Cookie: x", "ü", "x" * 256])
def test_a_handshake_without_a_name_is_refused(origin: str) -> None:
    assert failed(wire.handshake({"webhook-request-origin": origin}, CONFIG))


# --- configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"base_url": ""}, "base_url"),
        ({"nonsense": 1}, "nonsense"),
        ({"pick": "yes"}, "pick"),
        ({"bulk": True}, "bulk"),
        ({"bulk": 0}, "bulk"),
        ({"overlap": 0}, "overlap"),
        ({"bill_from": "invoice"}, "bill_from"),
        ({"sales_areas": {"usmf": "1710"}}, "sales_areas"),
        ({"password": ""}, "user and password"),
        ({"client_id": "x", "client_secret": "y"}, "either"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        SapConfig.of({**BASE, **settings})


def test_days_are_days_and_secrets_are_not_shown() -> None:
    config = SapConfig.of({**BASE, "overlap": 3})
    assert config.overlap == timedelta(days=3)
    assert "secret" not in repr(config).replace("webhook_secret", "")


def test_a_company_has_its_sales_area() -> None:
    config = SapConfig.of({**BASE, "sales_areas": {"demf": "1010/10/00"}})
    assert config.sales_area("DEMF") == ("1010", "10", "00")
    assert config.sales_area("usmf") is None
