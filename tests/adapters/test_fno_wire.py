"""What may be sent to F&O, how money is written there, and how its answers are read."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters.fno import wire
from iom_adapters.fno.wire import Accounts, BadRow, SalesLine
from iom_core.lifecycle import Status
from iom_core.messages import Invoiced, LineQuantity, Message
from iom_core.order import SalesOrder
from iom_core.values import Address, CompanyId, Money, minor_units

from ._fno import START, line, order

TELL = wire.Teller(order().channel)


def refusal(held: SalesOrder, *only: str) -> tuple[str, str]:
    found = wire.passing(held, only, ("Invoiced",)).failure()
    return found.code, found.where


class TestSyncFilter:
    def test_a_complete_order_passes(self) -> None:
        passing = wire.passing(order()).unwrap()
        assert [each.id for each in passing.lines] == ["1", "2"]
        assert passing.held == ()

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"order_type": "quote"}, ("not-a-sales-order", "$.order_type")),
            ({"company": None}, ("no-company", "$.company")),
            ({"ready_to_sync": False}, ("not-ready", "$.ready_to_sync")),
            ({"status": Status("Completed", "Invoiced")}, ("excluded-status", "$.status.reason")),
        ],
    )
    def test_a_header_that_does_not_pass_names_what_is_missing(
        self, changes: dict[str, Any], expected: tuple[str, str]
    ) -> None:
        assert refusal(attrs.evolve(order(), **changes)) == expected

    @pytest.mark.parametrize("missing", ["company", "site", "warehouse", "ready_to_sync"])
    def test_a_line_that_does_not_pass_stays_out_and_is_named(self, missing: str) -> None:
        changes: dict[str, Any] = {missing: False if missing == "ready_to_sync" else None}
        bad = line("2", "5", **changes)
        passing = wire.passing(order([line("1", "5"), bad])).unwrap()
        assert [each.id for each in passing.lines] == ["1"]
        assert [name for name, _ in passing.held] == ["2"]
        assert refusal(order([bad])) == ("no-line", f"$.lines[0].{missing}")

    def test_a_line_of_another_company_stays_out(self) -> None:
        assert refusal(order([line("1", "5", company=CompanyId("demf"))])) == ("no-line", "$.lines[0].company")
        assert wire.passing(order([line("1", "5", company=CompanyId("USMF"))])).unwrap().lines

    def test_canceled_lines_are_left_out_silently(self) -> None:
        passing = wire.passing(order([line("1", "5"), line("2", "5", canceled=Decimal(1))])).unwrap()
        assert (len(passing.lines), passing.held) == (1, ())
        assert refusal(order([line("1", "5", canceled=Decimal(1))])) == ("no-line", "$.lines")

    def test_only_the_lines_asked_for_are_looked_at(self) -> None:
        assert [each.id for each in wire.passing(order(), ("2",)).unwrap().lines] == ["2"]
        assert refusal(order(), "9") == ("unknown-line", "$.lines")


class TestMoney:
    @given(
        currency=st.sampled_from(["JPY", "USD", "KWD"]),
        totals=st.lists(st.integers(0, 10**7), min_size=1, max_size=6),
        quantities=st.lists(
            st.one_of(st.integers(1, 999).map(Decimal), st.decimals("0.01", 99, places=2)), min_size=6, max_size=6
        ),
        shipping=st.integers(0, 10**5),
        discount=st.integers(0, 10**4),
    )
    def test_the_lines_in_fno_add_up_to_the_order_exactly(
        self, currency: str, totals: list[int], quantities: list[Decimal], shipping: int, discount: int
    ) -> None:
        unit = Decimal(1).scaleb(-minor_units(currency))
        held = order(
            [
                line(str(at), str(total * unit), str(quantity), currency)
                for at, (total, quantity) in enumerate(zip(totals, quantities))
            ],
            str(shipping * unit),
            str(discount * unit),
            currency,
        )
        costs = wire.amounts(held)
        added_first = rounded_first = Decimal(0)
        for each in held.lines:
            cost = wire.price(costs[each.id], each.ordered.amount, each.quantity, each.total)
            assert cost.each == cost.each.quantize(unit)
            assert cost.charges == cost.charges.quantize(unit)
            product = each.quantity * cost.each
            rounded_first += product.quantize(unit, ROUND_HALF_UP) + cost.charges
            if product + cost.charges >= 0:
                added_first += (product + cost.charges).quantize(unit, ROUND_HALF_UP)
            else:
                added_first += cost.amount.amount
        assert rounded_first == held.total.amount
        assert added_first == held.total.amount

    def test_a_third_of_ten_is_sent_as_a_price_and_a_cent(self) -> None:
        cost = wire.price(Money.of("10.00", "USD"), Decimal(3), Decimal(3), Money.of("10.00", "USD"))
        assert (cost.each, cost.charges) == (Decimal("3.33"), Decimal("0.01"))

    def test_shipping_and_discount_are_charges_not_prices(self) -> None:
        held = order([line("1", "30.00", "3"), line("2", "10.00")], shipping="5.00", discount="1.00")
        costs = wire.amounts(held)
        assert {name: str(cost) for name, cost in costs.items()} == {"1": "33.00 USD", "2": "11.00 USD"}
        first = held.lines[0]
        assert wire.price(costs["1"], first.ordered.amount, first.quantity, first.total).each == Decimal("10.00")

    def test_a_line_costs_the_same_whenever_it_is_sent(self) -> None:
        held = order([line("1", "30.00"), line("2", "10.00", warehouse=None)], shipping="5.00")
        before = wire.amounts(held)
        later = attrs.evolve(held, lines=(held.lines[0], attrs.evolve(held.lines[1], warehouse="11")))
        assert wire.amounts(later) == before

    def test_a_free_order_with_shipping_still_adds_up(self) -> None:
        held = order([line("1", "0"), line("2", "0")], shipping="5.01")
        assert sum(each.amount for each in wire.amounts(held).values()) == Decimal("5.01")

    def test_what_was_canceled_before_is_not_sent(self) -> None:
        held = line("1", "10.00", "3", canceled=Decimal(1))
        cost = wire.price(held.total, held.ordered.amount, held.quantity, held.total)
        assert cost.amount == Money.of("6.67", "USD")
        assert cost.each * 2 + cost.charges == Decimal("6.67")


class TestBodies:
    def test_a_header_carries_our_reference_and_a_one_off_address(self) -> None:
        body = wire.header_body(
            order(), Accounts("US-WEB", "US-001"), delivery_mode="", origin="", states={"US/Washington": "WA"}
        )
        assert body["CustomersOrderReference"] == "BC-1001"
        assert body["RequestedShippingDate"] == "2026-01-07T12:00:00Z"
        assert body["InvoiceCustomerAccountNumber"] == "US-001"
        assert body["DeliveryAddressStateId"] == "WA"
        assert body["DeliveryAddressStreet"] == "1 Main St\nSuite 5"
        assert body["DeliveryAddressCountryRegionISOCode"] == "US"
        assert body["IsDeliveryAddressOrderSpecific"] == body["ArePricesIncludingSalesTax"] == "Yes"
        assert "" not in body.values()
        assert "DeliveryModeCode" not in body

    def test_a_line_has_an_address_only_when_it_goes_elsewhere(self) -> None:
        held = order([line("1", "5"), line("2", "5", ship_to=Address(name="Bob", country="DE"))])
        cost = wire.price(Money.of(5, "USD"), Decimal(1), Decimal(1), Money.of(5, "USD"))
        here, there = (
            wire.line_body(held, each, "000891", cost, "ExternalItemNumber", each.id, {}) for each in held.lines
        )
        assert "IsDeliveryAddressOrderSpecific" not in here
        assert there["DeliveryAddressCountryRegionISOCode"] == "DE"


class TestInfolog:
    def test_the_warning_carries_the_cause(self) -> None:
        text = (
            "Write failed for table row of type 'SalesOrderLineV3Entity'. Infolog: Warning: Inventory dimension Site "
            "is mandatory and must consequently be specified.; Error: Update has been canceled.."
        )
        assert wire.infolog(text) == ("Inventory dimension Site is mandatory and must consequently be specified.",)

    def test_items_may_hold_semicolons(self) -> None:
        text = "x. Infolog: Info: a; b; Warning: Item 'X;1' is blocked.; Error: Update has been canceled."
        assert wire.infolog(text) == ("a; b", "Item 'X;1' is blocked.")

    def test_a_lone_cancellation_is_better_than_nothing(self) -> None:
        assert wire.infolog("Infolog: Error: Update has been canceled.") == ("Update has been canceled.",)
        assert wire.infolog("something else") == ("something else",)
        assert wire.infolog("") == ()

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"error": {"message": "An error has occurred.", "innererror": {"message": "Infolog: Error: No."}}}, "No."),
            ({"error": {"message": "Not Found"}}, "Not Found"),
            ({"error": {"message": "outer", "innererror": "odd"}}, "outer"),
            ({"error": "odd"}, ""),
            ({"error": {"message": 5}}, ""),
            ([], ""),
            (None, ""),
        ],
    )
    def test_the_reason_is_found_in_any_shape(self, body: Any, expected: str) -> None:
        assert wire.reason(body) == expected


class TestRows:
    def test_the_whole_day_1900_01_01_is_no_date(self) -> None:
        for hour in ("00", "12", "23"):
            assert wire.when_of({"D": f"1900-01-01T{hour}:00:00Z"}, "D") is None
        assert wire.when_of({"D": "2026-01-05T12:00:00Z"}, "D") == datetime(2026, 1, 5, 12, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("read", "value"),
        [
            (wire.text_of, 5),
            (wire.text_of, ""),
            (wire.text_of, None),
            (wire.number_of, "5"),
            (wire.number_of, True),
            (wire.number_of, None),
            (wire.number_of, 1.5),
            (wire.number_of, 10**30),
            (wire.number_of, Decimal("NaN")),
            (wire.when_of, "yesterday"),
            (wire.when_of, 5),
            (wire.when_of, "2026-99-01T00:00:00Z"),
        ],
    )
    def test_a_wrong_value_names_its_path(self, read: Any, value: Any) -> None:
        with pytest.raises(BadRow) as caught:
            read({"X": value}, "X")
        assert caught.value.where == "$.X"

    def lines(self) -> list[SalesLine]:
        return [
            SalesLine("L1", 1, "CHAIR", Decimal(2), "Invoiced"),
            SalesLine("L2", 2, "TABLE", Decimal(1), "Invoiced"),
            SalesLine("L3", 3, "CHAIR", Decimal(4), "Invoiced"),
        ]

    def row(self, sequence: int, product: str, quantity: int) -> dict[str, Any]:
        return {"LineCreationSequenceNumber": sequence, "ProductNumber": product, "InvoicedQuantity": quantity}

    def test_invoice_lines_find_their_order_line_by_number_and_product(self) -> None:
        rows = [self.row(3, "chair", 4), self.row(1, "CHAIR", 2)]
        assert wire.match_lines(rows, self.lines()) == (LineQuantity("L3", Decimal(4)), LineQuantity("L1", Decimal(2)))

    def test_a_renumbered_invoice_finds_them_by_product(self) -> None:
        rows = [self.row(1, "TABLE", 1), self.row(9, "CHAIR", 6)]
        assert wire.match_lines(rows, self.lines()) == (
            LineQuantity("L2", Decimal(1)),
            LineQuantity("L1", Decimal(2)),
            LineQuantity("L3", Decimal(4)),
        )

    def test_a_foreign_product_and_a_credit_note_are_not_guessed_at(self) -> None:
        with pytest.raises(BadRow, match="SOFA"):
            wire.match_lines([self.row(1, "SOFA", 1)], self.lines())
        with pytest.raises(BadRow, match="credit"):
            wire.match_lines([self.row(1, "CHAIR", -1)], self.lines())

    def test_an_amount_finer_than_a_cent_is_rejected(self) -> None:
        invoice = {
            "dataAreaId": "usmf",
            "SalesOrderNumber": "1",
            "InvoiceNumber": "I",
            "CurrencyCode": "USD",
            "TotalInvoiceAmount": Decimal("1.005"),
            "InvoiceDate": "2026-01-05T12:00:00Z",
        }
        with pytest.raises(BadRow, match="digits"):
            TELL.invoiced(invoice, [self.row(1, "CHAIR", 1)], self.lines(), START)
        said = TELL.invoiced({**invoice, "TotalInvoiceAmount": 5}, [self.row(1, "CHAIR", 1)], self.lines(), START)
        assert isinstance(said, Message)
        assert isinstance(said.body, Invoiced)
        assert said.body.total == Money.of(5, "USD")


class TestBusinessEvents:
    def test_dates_are_milliseconds_between_slashes(self) -> None:
        assert wire.slash_date("/Date(1697470966000)/") == datetime(2023, 10, 16, 15, 42, 46, tzinfo=UTC)
        assert wire.slash_date("/Date(-2208988800000)/") == datetime(1900, 1, 1, tzinfo=UTC)
        for wrong in ("2023-10-16", "/Date(x)/", None, "/Date(999999999999999)/"):
            with pytest.raises(BadRow):
                wire.slash_date(wrong)

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            (b"\xff\xfe", "$"),
            (b"{", "$"),
            (b"5", "$"),
            (b"{}", "$.BusinessEventId"),
            (b'[{"data": "{"}]', "$[0].data"),
            (b'[{"data": 5}]', "$[0].data"),
            (b'{"BusinessEventId":"SalesInvoicePostedBusinessEvent","EventId":"A"}', "$.SalesOrderId"),
            (b'{"BusinessEventId":"X"}', "$.EventId"),
            (b'{"BusinessEventId":"X","EventId":"A","EventTime":"soon"}', "$.EventTime"),
            (b"[" * 100_000, "$"),
        ],
    )
    def test_a_malformed_event_is_refused_with_its_path(self, body: bytes, where: str) -> None:
        assert wire.business_events(body).failure().where == where

    @given(st.binary(max_size=200))
    def test_any_bytes_are_events_or_refused(self, body: bytes) -> None:
        wire.business_events(body)
