"""Reading BigCommerce's JSON: exact money, one path for every fault, and nothing that is guessed."""

from __future__ import annotations

import copy
import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters._http import decode, encode
from iom_adapters.bigcommerce import wire
from iom_adapters.bigcommerce.samples import CATALOG, RATES, Line, generate_order, order_of, recorded_orders
from iom_core.messages import OrderDraft
from iom_core.order import Shipment
from iom_core.values import Money, System

CHAIR = Line("Oak chair", 12_900, 2, "CHAIR-OAK", 1)
MUG = Line("Blue mug", 1_250, 1, "MUG-BLUE", 4)


def sample(**more: Any) -> dict[str, Any]:
    """A plain order of two lines, with *more* fields set."""
    order = order_of([CHAIR, MUG], number=100, shipping=(495,))
    order |= {"products": order["products"], **more}
    return order


def with_line(index: int = 0, **fields: Any) -> dict[str, Any]:
    order = sample()
    order["products"][index] |= fields
    return order


def draft_of(payload: dict[str, Any], **more: Any) -> OrderDraft:
    return wire.to_draft(wire.order(decode(encode(payload))), **more)


def adds_up(draft: OrderDraft) -> bool:
    total = draft.shipping + draft.handling - draft.discount
    for line in draft.lines:
        total = total + line.total
    return total == draft.total


class TestMoney:
    @given(st.integers(0, 2**32), st.integers(0, 10_000))
    def test_every_generated_order_reconciles_to_the_minor_unit(self, seed: int, n: int) -> None:
        payload = generate_order(random.Random(seed), n)
        draft = draft_of({**payload, "id": n + 1})
        assert adds_up(draft)
        assert draft.total.amount == Decimal(payload["total_inc_tax"])

    @given(
        st.sampled_from(sorted(RATES)),
        st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
        st.integers(0, 10**6),
        st.booleans(),
    )
    def test_amounts_finer_than_a_minor_unit_still_add_up(
        self, currency: str, fine: list[int], shipping: int, cut: bool
    ) -> None:
        """Lines come in ten-thousandths; the total is the exact sum, rounded by the store, half up."""
        order = order_of([Line("x", 0, sku="X") for _ in fine], currency=currency, number=1)
        exact = [Decimal(amount).scaleb(-4) for amount in fine]
        for line, amount in zip(order["products"], exact):
            line["total_inc_tax"] = f"{amount:.4f}"
        order["shipping_cost_inc_tax"] = f"{Decimal(shipping).scaleb(-4):.4f}"
        whole = sum(exact, Decimal(shipping).scaleb(-4))
        order["total_inc_tax"] = f"{Money.rounded(whole, currency).amount:.4f}" if cut else f"{whole:.4f}"
        draft = draft_of(order)
        assert adds_up(draft)
        for line, amount in zip(draft.lines, exact):
            assert abs(line.total.amount - amount) < Decimal(1).scaleb(-len(str(line.total.amount).partition(".")[2]))

    def test_a_line_finer_than_a_cent_is_rounded_half_up(self) -> None:
        order = order_of([Line("x", 0, sku="X"), Line("y", 0, sku="Y")], number=1)
        order["products"][0]["total_inc_tax"] = "10.0050"
        order["products"][1]["total_inc_tax"] = "10.0049"
        order["total_inc_tax"] = "20.0100"
        assert [str(line.total) for line in draft_of(order).lines] == ["10.01 USD", "10.00 USD"]

    def test_discount_and_coupon_are_both_off_the_total_as_in_the_published_example(self) -> None:
        example = next(order for order in recorded_orders() if order["id"] == 218)
        assert (example["subtotal_inc_tax"], example["total_inc_tax"]) == ("67.8400", "69.8400")
        assert (example["discount_amount"], example["coupon_discount"]) == ("5.0000", "5.0000")
        draft = draft_of(example)
        assert adds_up(draft)
        assert (str(draft.total), str(draft.discount), str(draft.lines[0].total)) == (
            "69.84 USD",
            "5.00 USD",
            "45.88 USD",
        )

    @pytest.mark.parametrize(("name", "amount"), [("discount_amount", "5.0000"), ("coupon_discount", "7.5000")])
    def test_a_discount_already_inside_the_lines_is_not_taken_off_twice(self, name: str, amount: str) -> None:
        draft = draft_of(sample(**{name: amount}))
        assert adds_up(draft)
        assert draft.discount == Money.zero("USD")

    def test_an_unexplained_difference_is_named_with_all_numbers(self) -> None:
        with pytest.raises(
            wire.Unexplained, match=r"260\.0000 USD.*275\.4500.*lines 270\.5000, shipping 4\.9500"
        ) as raised:
            wire.reconcile(wire.order(sample(total_inc_tax="260.0000")))
        assert raised.value.where == "$.total_inc_tax"

    def test_one_cent_is_a_difference(self) -> None:
        for total in ("275.4400", "275.4600"):
            with pytest.raises(wire.Unexplained):
                draft_of(sample(total_inc_tax=total))

    def test_store_credit_and_gift_certificates_are_payments_not_price(self) -> None:
        draft = draft_of(sample(store_credit_amount="100.0000", gift_certificate_amount="50.0000"))
        assert str(draft.total) == "275.45 USD"
        assert draft.discount == Money.zero("USD")

    def test_fees_and_wrapping_count_as_handling(self) -> None:
        order = sample(
            handling_cost_inc_tax="1.0000", wrapping_cost_inc_tax="2.0000", total_inc_tax="280.9500",
            fees=[{"cost_inc_tax": "2.5000", "name": "?"}],
        )  # fmt: skip
        assert str(draft_of(order).handling) == "5.50 USD"

    def test_the_transactional_currency_counts_not_the_displayed_one(self) -> None:
        assert draft_of(sample(currency_code="EUR")).currency == "USD"

    @pytest.mark.parametrize(
        ("currency", "amount", "shown"),
        [("JPY", "1500.0000", "1500 JPY"), ("USD", "15.0000", "15.00 USD"), ("KWD", "1.5000", "1.500 KWD")],
    )
    def test_minor_units_differ(self, currency: str, amount: str, shown: str) -> None:
        draft = draft_of(order_of([Line("x", 1_500, sku="X")], currency=currency, number=1))
        assert str(draft.total) == shown
        assert draft.total.amount == Decimal(amount)

    @pytest.mark.parametrize("amount", ["15", "15.00", 15, Decimal("15.0000")])
    def test_fewer_decimals_and_numbers_are_read_too(self, amount: Any) -> None:
        assert wire.decimal(amount) == 15

    @pytest.mark.parametrize(
        "amount",
        ["", "-1.0000", "1,50", "NaN", "Infinity", "1e3", " 1", "１２", True, None, 1.5, [], Decimal("NaN"),
         Decimal("1e400"), Decimal("-1"), 10**15, "9" * 16, "0x10", "1_000"],
    )  # fmt: skip
    def test_what_is_no_amount_is_refused(self, amount: Any) -> None:
        with pytest.raises(ValueError):
            wire.decimal(amount)


class TestPaths:
    """Every fault is one sentence and one path."""

    @pytest.mark.parametrize(
        ("payload", "where"),
        [
            (with_line(1, quantity="two"), "$.products[1].quantity"),
            (with_line(0, quantity=1.5), "$.products[0].quantity"),
            (with_line(0, quantity=0), "$.products[0].quantity"),
            (with_line(0, quantity=-3), "$.products[0].quantity"),
            (with_line(0, quantity=10**9), "$.products[0].quantity"),
            (with_line(0, quantity=10**400), "$.products[0].quantity"),
            (with_line(0, quantity=True), "$.products[0].quantity"),
            (with_line(0, total_inc_tax="free"), "$.products[0].total_inc_tax"),
            (with_line(0, total_inc_tax=None), "$.products[0].total_inc_tax"),
            (with_line(0, sku={"a": 1}), "$.products[0].sku"),
            (with_line(0, order_address_id=99), "$.products[0].order_address_id"),
            (with_line(0, quantity_refunded=1), "$.products[0].quantity_refunded"),
            (with_line(0, applied_discounts=[{"amount": "x"}]), "$.products[0].applied_discounts[0].amount"),
            (with_line(0, sku="", product_id=0, variant_id=None, name=" "), "$.products[0].sku"),
            (sample(products=[]), "$.products"),
            (sample(products={"url": "x"}), "$.products"),
            (sample(products=[7]), "$.products[0]"),
            (sample(default_currency_code="XYZ"), "$.default_currency_code"),
            (sample(default_currency_code=""), "$.default_currency_code"),
            (sample(total_inc_tax="-1.0000"), "$.total_inc_tax"),
            (sample(date_created="yesterday"), "$.date_created"),
            (sample(date_created=""), "$.date_created"),
            (sample(id="abc"), "$.id"),
            (sample(billing_address="here"), "$.billing_address"),
        ],
    )
    def test_a_fault_names_its_place(self, payload: dict[str, Any], where: str) -> None:
        with pytest.raises(wire.Unreadable) as raised:
            draft_of(payload)
        assert raised.value.where == where
        assert raised.value.what
        assert len(raised.value.what) < 400

    @pytest.mark.parametrize("name", ["id", "status_id", "date_created", "default_currency_code", "total_inc_tax"])
    def test_a_missing_member_is_named(self, name: str) -> None:
        payload = sample()
        del payload[name]
        with pytest.raises(wire.Unreadable, match=f"{name}' is missing"):
            draft_of(payload)

    @given(st.data())
    def test_any_damage_is_unreadable_or_harmless_and_nothing_worse(self, data: st.DataObject) -> None:
        payload = copy.deepcopy(sample())
        place: Any = payload
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            break
        place[key] = data.draw(
            st.none()
            | st.booleans()
            | st.integers()
            | st.decimals(allow_nan=False, allow_infinity=False)
            | st.text()
            | st.just([])
            | st.just({})
            | st.just([[]])
        )
        try:
            assert adds_up(draft_of(payload))
        except wire.Unreadable as broken:
            assert broken.where.startswith("$")  # noqa: PT017 - either outcome is right

    @pytest.mark.parametrize("payload", [None, [], "order", 7])
    def test_an_order_is_an_object(self, payload: Any) -> None:
        with pytest.raises(wire.Unreadable):
            wire.order(payload)


class TestOrders:
    def test_unknown_members_are_ignored(self) -> None:
        plain = sample()
        assert draft_of({**plain, "brand_new": {"x": [1]}, "__warning__": {"message": "?"}}) == draft_of(plain)

    def test_a_guest_has_no_account(self) -> None:
        assert draft_of(sample(customer_id=0)).customer == ""
        assert draft_of(sample(customer_id=20)).customer == "20"

    def test_times_are_utc_and_may_be_absent(self) -> None:
        assert wire.instant("Wed, 10 Jan 2018 21:05:30 +0000") == datetime(2018, 1, 10, 21, 5, 30, tzinfo=UTC)
        assert wire.instant("Thu, 20 Apr 2017 11:32:00 -0400") == datetime(2017, 4, 20, 15, 32, tzinfo=UTC)
        assert wire.instant("") is None
        for nonsense in ("2018", "Wed, 99 Jan 2018 21:05:30 +0000", "x" * 1000, "Wed, 10 Jan 99999 1:1:1 +0000"):
            with pytest.raises(ValueError):
                wire.instant(nonsense)

    def test_digital_lines_and_gift_certificates_are_never_shipped(self) -> None:
        order = order_of(
            [CHAIR, Line("e-book", 500, kind="digital"), Line("gift", 500, kind="giftcertificate")], number=1
        )
        assert [line.digital for line in draft_of(order).lines] == [False, True, True]

    def test_a_purely_digital_order_goes_to_the_billing_address(self) -> None:
        draft = draft_of(order_of([Line("e-book", 500, kind="digital")], number=1, person=1))
        assert draft.ship_to == draft.bill_to
        assert draft.lines[0].external_address == ""

    def test_a_line_without_an_address_is_not_shipped(self) -> None:
        draft = draft_of(with_line(1, order_address_id=0))
        assert draft.lines[1].digital

    def test_a_line_without_an_address_ships_to_the_billing_address_when_told_to(self) -> None:
        draft = draft_of(with_line(1, order_address_id=0), ship_without_address=True)
        assert not draft.lines[1].digital
        picked_up = with_line(1, order_address_id=0, order_pickup_method_id=3)
        assert draft_of(picked_up, ship_without_address=True).lines[1].digital

    def test_several_addresses_are_kept_apart(self) -> None:
        order = order_of(
            [Line("a", 1, sku="A"), Line("b", 1, sku="B", address=2), Line("c", 1, sku="C")],
            recipients=(3, 2), shipping=(100, 200), number=1,
        )  # fmt: skip
        draft = draft_of(order)
        assert [line.external_address for line in draft.lines] == ["1", "2", "1"]
        assert draft.ship_to.city == "Düsseldorf"
        assert [line.ship_to and line.ship_to.name for line in draft.lines] == [None, "陽子 佐藤", None]
        assert str(draft.shipping) == "3.00 USD"

    def test_a_pick_list_child_is_a_line_of_its_own(self) -> None:
        order = next(each for each in recorded_orders() if each["id"] == 149)
        draft = draft_of(order)
        assert [(line.product, str(line.total)) for line in draft.lines] == [
            ("TOWEL-LINEN", "65.23 USD"),
            ("BREWER", "0.00 USD"),
        ]
        assert not draft.lines[1].digital

    @pytest.mark.parametrize(
        ("fields", "product"),
        [
            ({"sku": " MUG ", "product_id": 4}, "MUG"),
            ({"sku": "", "product_id": 77, "variant_id": 93}, "variant-93"),
            ({"sku": "", "product_id": 77, "variant_id": None}, "product-77"),
            (
                {"sku": "", "product_id": 0, "variant_id": 0, "name": "Engraving  «für dich»"},
                "custom:Engraving «für dich»",
            ),
        ],
    )
    def test_a_product_is_its_sku_or_else_its_number_or_else_its_name(
        self, fields: dict[str, Any], product: str
    ) -> None:
        assert draft_of(with_line(0, **fields)).lines[0].product == product

    def test_hostile_text_is_cleaned_not_trusted(self) -> None:
        draft = draft_of(with_line(0, name="a\x00b\ud800'; DROP TABLE--\u202e"))
        draft.lines[0].name.encode()
        assert "\x00" not in draft.lines[0].name
        assert "DROP TABLE" in draft.lines[0].name

    def test_a_number_where_text_is_documented_too_is_text(self) -> None:
        assert draft_of(sample(payment_method=7)).payment == "7"


class TestIds:
    @pytest.mark.parametrize(("value", "number"), [(100, "100"), ("127", "127")])
    def test_an_id_is_a_number_or_its_digits(self, value: Any, number: str) -> None:
        assert wire.order_number(value) == number

    @pytest.mark.parametrize(
        "value", ["", "0", 0, -1, "-1", "1/..", "../hooks", "1 ", "¹", "٣", True, None, 1.0, "9" * 19, 10**18]
    )
    def test_nothing_else_may_get_into_an_address(self, value: Any) -> None:
        with pytest.raises(ValueError):
            wire.order_number(value)


class TestShipmentBodies:
    def parcel(self, **more: Any) -> wire.Parcel:
        shipment = Shipment("S-1", System("flexe"), datetime(2026, 1, 1, tzinfo=UTC), (), **more)
        return wire.Parcel(shipment, 131, (wire.ShippedItem(194, 1),))

    def test_the_body_is_small_and_typed_as_the_schema_says(self) -> None:
        parcel = self.parcel(tracking_number="EJ958083578US", carrier="USPS", service="Ground")
        assert wire.shipment_body(parcel, "iom shipment flexe/S-1", {}) == {
            "order_address_id": 131,
            "tracking_number": "EJ958083578US",
            "shipping_provider": "usps",
            "tracking_carrier": "",
            "shipping_method": "Ground",
            "comments": "iom shipment flexe/S-1",
            "items": [{"order_product_id": 194, "quantity": 1}],
        }

    def test_an_unknown_carrier_is_sent_empty_never_left_out(self) -> None:
        body = wire.shipment_body(self.parcel(carrier="Hermes"), "m", {"hermes": "hermes-uk"})
        assert (body["shipping_provider"], body["tracking_carrier"], body["shipping_method"]) == (
            "",
            "hermes-uk",
            "Hermes",
        )

    def test_what_is_too_long_goes_whole_into_the_comments(self) -> None:
        body = wire.shipment_body(
            self.parcel(tracking_number="9" * 51, tracking_url="https://x.test/" + "y" * 500), "m", {}
        )
        assert body["tracking_number"] == ""
        assert "tracking_link" not in body
        assert str(body["comments"]).splitlines()[1] == "tracking number: " + "9" * 51

    def test_lengths_at_the_limit_are_sent_as_they_are(self) -> None:
        body = wire.shipment_body(self.parcel(tracking_number="9" * 50, tracking_url="h" * 500), "m", {})
        assert (body["tracking_number"], body["tracking_link"]) == ("9" * 50, "h" * 500)


class TestComplaints:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ([{"status": 404, "message": "No such field."}], "No such field."),
            ([{"message": "a"}, {"message": "b"}, "?"], "a; b"),
            ({"status": 422, "title": "Bad", "errors": {"destination": "missing"}}, "Bad; destination: 'missing'"),
            ({"status": 422, "title": "Bad"}, "Bad"),
            ({"data": [{"message": "one refund at a time"}]}, "one refund at a time"),
            ("?", ""),
            (None, ""),
        ],
    )
    def test_both_kinds_of_error_bodies_are_read(self, body: Any, said: str) -> None:
        assert wire.complaint(body) == said


class TestSamples:
    def test_the_same_seed_gives_the_same_orders(self) -> None:
        one, other = random.Random(7), random.Random(7)
        assert [generate_order(one, n) for n in range(50)] == [generate_order(other, n) for n in range(50)]

    def test_a_hundred_orders_hold_every_oddity(self) -> None:
        rng = random.Random(1)
        orders = [generate_order(rng, n) for n in range(200)]
        lines = [line for order in orders for line in order["products"]]
        skus = {item.sku for item in CATALOG}
        assert {line["sku"] for line in lines} - skus == {""}
        assert {order["default_currency_code"] for order in orders} == set(RATES)
        assert {line["type"] for line in lines} == {"physical", "digital"}
        assert any(line["parent_order_product_id"] for line in lines)
        assert any(order["customer_id"] == 0 for order in orders)
        assert any(len(order["shipping_addresses"]) > 1 for order in orders)
        assert any(order["coupons"] for order in orders)
        assert any(Decimal(order["discount_amount"]) for order in orders)
        assert any(not order["billing_address"]["city"].isascii() for order in orders)
        assert all(any(line["order_address_id"] for line in order["products"]) for order in orders)
