"""Values: money adds up to the cent, quantities keep their unit, and no float gets in."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_core.values import (
    MINOR_UNITS,
    GeoPoint,
    Money,
    Quantity,
    UnitConversions,
    exact,
    largest_remainder,
    minor_units,
    whole_units,
)

weights = st.lists(
    st.decimals(min_value=0, max_value=10**6, places=4) | st.decimals(min_value=0, max_value=1, places=40),
    min_size=1,
    max_size=8,
)
currencies = st.sampled_from(["USD", "JPY", "KWD", "CLF"])


@pytest.mark.parametrize("bad", [1.5, True, None, "abc", "", "NaN", "Infinity", "-Infinity", Decimal("NaN"), b"1"])
def test_only_finite_exact_numbers_are_numbers(bad: Any) -> None:
    with pytest.raises(ValueError):
        exact(bad)


@pytest.mark.parametrize("bad", [1.5, float("nan"), Decimal("NaN"), Decimal("Infinity"), 3, "3"])
def test_no_float_and_no_infinity_becomes_money_or_quantity_by_the_back_door(bad: Any) -> None:
    with pytest.raises(ValueError, match="finite Decimal"):
        Money(bad, "USD")
    with pytest.raises(ValueError, match="finite Decimal"):
        Quantity(bad, "ea")


def test_money_finer_than_its_currency_is_refused_and_can_be_rounded_on_purpose() -> None:
    with pytest.raises(ValueError, match="more than 2 digits"):
        Money.of("1.005", "USD")
    assert Money.rounded("1.005", "USD") == Money.of("1.01", "USD")
    assert Money.rounded("-1.005", "USD") == Money.of("-1.01", "USD")
    assert str(Money.of(1, "USD")) == "1.00 USD"
    assert str(Money.of("1", "JPY")) == "1 JPY"


@pytest.mark.parametrize("amount", ["1e40", "1e999999", "99999999999999999999999999999"])
def test_an_absurd_amount_is_a_value_error_like_any_other_bad_amount(amount: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        Money.of(amount, "USD")
    with pytest.raises(ValueError, match="too large"):
        Money.rounded(amount, "USD")


def test_an_unknown_currency_is_an_error_never_two_digits_by_guess() -> None:
    for code in ("usd", "XXX", "", "DOLLAR"):
        with pytest.raises(ValueError, match="unknown currency"):
            minor_units(code)
    assert {MINOR_UNITS[code] for code in ("JPY", "USD", "KWD", "CLF")} == {0, 2, 3, 4}


def test_different_currencies_are_never_combined() -> None:
    for combine in (Money.__add__, Money.__sub__):
        with pytest.raises(ValueError, match="can't combine USD with EUR"):
            combine(Money.of(1, "USD"), Money.of(1, "EUR"))
    assert -Money.of(1, "USD") + Money.of(3, "USD") - Money.of(2, "USD") == Money.zero("USD")


@given(total=st.integers(-(10**12), 10**12), shares=weights)
def test_a_split_adds_up_and_is_never_a_unit_away_from_its_share(total: int, shares: list[Decimal]) -> None:
    parts = largest_remainder(total, shares)

    assert sum(parts) == total
    if any(shares):
        whole = sum(map(Fraction, shares))
        for part, share in zip(parts, shares):
            assert abs(part - total * Fraction(share) / whole) < 1
    else:
        assert max(parts) - min(parts) <= 1


@given(total=st.integers(-(10**9), 10**9), shares=weights)
def test_a_negative_total_is_split_like_a_positive_one_with_the_sign_turned(total: int, shares: list[Decimal]) -> None:
    assert largest_remainder(-total, shares) == [-part for part in largest_remainder(total, shares)]


def test_a_share_of_nothing_gets_nothing_and_what_is_left_goes_to_the_first_of_equals() -> None:
    assert largest_remainder(100, [Decimal(1), Decimal(0), Decimal(1), Decimal(1)]) == [34, 0, 33, 33]
    assert largest_remainder(5, [Decimal(0), Decimal(0)]) == [3, 2]
    assert largest_remainder(0, [Decimal(3)]) == [0]


def test_weights_with_more_digits_than_decimal_arithmetic_keeps_are_split_exactly() -> None:
    more = Decimal("1." + "0" * 39 + "1")
    assert largest_remainder(3, [more, Decimal(1)]) == [2, 1]
    assert largest_remainder(3, [Decimal(1), more]) == [1, 2]


def test_no_weights_or_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        largest_remainder(1, [])
    with pytest.raises(ValueError, match="negative"):
        largest_remainder(1, [Decimal(2), Decimal(-1)])


@given(minor=st.integers(-(10**9), 10**9), currency=currencies, shares=weights)
def test_splitting_money_loses_no_minor_unit(minor: int, currency: str, shares: list[Decimal]) -> None:
    whole = Money.of(Decimal(minor).scaleb(-minor_units(currency)), currency)

    parts = whole.split(shares)

    assert sum(parts, Money.zero(currency)) == whole
    assert sum(part.minor for part in parts) == minor


def test_a_discount_larger_than_shipping_is_shared_as_a_negative_amount() -> None:
    parts = (Money.of(5, "USD") - Money.of(15, "USD")).split(["30.00", "10.00", 0])
    assert [str(part.amount) for part in parts] == ["-7.50", "-2.50", "0.00"]


def test_quantities_of_different_units_must_be_converted_first() -> None:
    assert Quantity.of("1.5") + Quantity.of(1) - Quantity.of("0.5") == Quantity.of(2)
    with pytest.raises(ValueError, match="convert first"):
        Quantity.of(1, "box") + Quantity.of(1)
    assert str(Quantity.of(2, "box")) == "2 box"


def test_units_convert_per_product_and_only_exactly() -> None:
    table = UnitConversions({"CHAIR": {"ea": Decimal(1), "box": Decimal(12), "trio": Decimal(3)}})

    assert table.convert(Quantity.of(2, "box"), "ea", "CHAIR") == Quantity.of(24)
    assert table.convert(Quantity.of(6), "box", "CHAIR") == Quantity.of("0.5", "box")
    assert table.convert(Quantity.of(7, "l"), "l", "LAMP") == Quantity.of(7, "l")
    with pytest.raises(ValueError, match="LAMP has no conversion for unit 'box'"):
        table.convert(Quantity.of(1, "box"), "ea", "LAMP")
    with pytest.raises(ValueError, match="no exact number"):
        table.convert(Quantity.of(1), "trio", "CHAIR")


def test_a_unit_that_holds_nothing_is_an_error_and_no_division_by_zero() -> None:
    table = UnitConversions({"CHAIR": {"ea": Decimal(1), "air": Decimal(0)}})
    with pytest.raises(ValueError, match="holds no base units"):
        table.convert(Quantity.of(1), "air", "CHAIR")


def test_a_place_is_on_earth_and_a_quarter_of_the_equator_is_ten_thousand_kilometers() -> None:
    here = GeoPoint.of(0, 0)
    assert here.kilometers_to(GeoPoint.of(0, 90)) == pytest.approx(10_007.6, abs=0.1)
    assert here.kilometers_to(GeoPoint.of(0, 180)) == pytest.approx(20_015.1, abs=0.1)
    assert here.kilometers_to(here) == 0
    for north, east in ((91, 0), (0, "180.1"), (-91, 0)):
        with pytest.raises(ValueError, match="no such place"):
            GeoPoint.of(north, east)


def test_whole_units_leave_the_fraction_behind() -> None:
    assert (whole_units(Decimal("2.9")), whole_units(Decimal("-2.9"))) == (2, -2)
