"""OData's grammar: what is written is read back, and each dialect refuses what its system refuses."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters._odata import (
    DATAVERSE,
    FNO,
    BadQuery,
    Dialect,
    EnumLiteral,
    any_of,
    both,
    check_fields,
    compile_filter,
    key_predicate,
    literal,
    moment,
    parse_filter,
    parse_key,
    parse_query,
    parse_resource,
    possible,
    project,
    run_query,
)

ROW = {
    "Name": "Wide World Retail",
    "Area": "USMF",
    "Quantity": 2,
    "Price": 19.9,
    "Status": "Backorder",
    "At": "2026-01-05T12:00:00Z",
    "Open": True,
    "Note": None,
    "customerid_account": {"name": "O'Neil"},
}


def holds(text: str, dialect: Dialect = FNO) -> bool:
    return compile_filter(parse_filter(text), dialect)(ROW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Quantity eq 2", True),
        ("Quantity ne 2", False),
        ("Quantity gt 1 and Quantity lt 3", True),
        ("Quantity ge 3 or Quantity le 2", True),
        ("not (Quantity eq 2)", False),
        ("Price eq 19.9", True),
        ("Price mul Quantity eq 39.8", True),
        ("Quantity add 1 eq 3", True),
        ("Quantity sub 1 gt 0 and Quantity mod 2 eq 0", True),
        ("Quantity eq 1 or Quantity eq 2 and Area eq 'demf'", False),
        ("(Quantity eq 1 or Quantity eq 2) and Area eq 'usmf'", True),
        ("Area eq 'usmf'", True),
        ("At ge 2026-01-05T00:00:00Z and At lt 2026-01-06T00:00:00Z", True),
        ("At eq 2026-01-05T13:00:00+01:00", True),
        ("At gt 2026-01-05", True),
        ("2026-01-05T00:00:00Z lt At", True),
        ("Open eq true", True),
        ("Note eq null", True),
        ("Name ne null", True),
        ("Note eq 'x'", False),
        ("Note gt 1", False),
        ("customerid_account/name eq 'o''neil'", True),
        ("Status eq Microsoft.Dynamics.DataEntities.SalesStatus'Backorder'", True),
        ("Status ne Microsoft.Dynamics.DataEntities.SalesStatus'Canceled'", True),
    ],
)
def test_conditions_hold_as_the_standard_says(text: str, expected: bool) -> None:
    assert holds(text) is expected


def test_many_alternatives_mean_what_they_say_one_by_one() -> None:
    assert holds("Area eq 'demf' or Area eq 'USMF' or Area eq 'x'")
    assert holds("Area eq 'us*' or Area eq 'x'")
    assert not holds("Area eq 'us*' or Area eq 'x'", DATAVERSE)
    assert not holds("Note eq 'a' or Note eq 'b'")
    with pytest.raises(BadQuery):
        holds("Quantity eq '1' or Quantity eq '2'")


def test_contains_is_a_wildcard_in_finance_and_operations_only() -> None:
    assert holds("Name eq '*world*'")
    assert holds("Name eq 'Wide*'")
    assert holds("Name ne '*mart*'")
    assert not holds("Name eq '*world*'", DATAVERSE)


def test_text_functions_are_dataverses_only() -> None:
    assert holds("contains(Name,'World') and startswith(Name,'wide') and endswith(Name,'Retail')", DATAVERSE)
    with pytest.raises(BadQuery, match="contains"):
        holds("contains(Name,'World')")


@pytest.mark.parametrize(
    "text",
    [
        "Quantity in (1,2)",
        "Status has X.Y'a'",
        "Quantity eq",
        "eq 2",
        "(Quantity eq 2",
        "Quantity eq 2)",
        "Quantity eq 'open",
        "Quantity == 2",
        "Name eq 5",
        "not Quantity eq 2",  # "not" binds tighter than "eq"
        "Name",
        "5",
        "Quantity add 1",
        "Status gt Microsoft.Dynamics.DataEntities.SalesStatus'Backorder'",
        "At eq 2026-13-45T00:00:00Z",
        "nosuch(Name,'x') eq 1",
        "Name gt 2026-01-05T00:00:00Z",
        "(" * 200 + "Quantity eq 2" + ")" * 200,
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(BadQuery):
        assert holds(text) is None


def test_empty_parentheses_and_deep_nesting_do_not_break_the_reader() -> None:
    for text in ("()", "not", "a eq not", "f(", "f(,)", ",", "((((", "not " * 500):
        with pytest.raises(BadQuery):
            parse_filter(text)


@given(st.text())
def test_any_text_is_a_filter_or_a_bad_query(text: str) -> None:
    with suppress(BadQuery):
        parse_filter(text)


@given(st.text(max_size=40))
def test_a_string_literal_reads_back_as_itself(text: str) -> None:
    assert parse_key(f"a={literal(text)}") == {"a": text}


@given(st.dictionaries(st.sampled_from(["a", "b", "Number"]), st.text(max_size=20), min_size=1))
def test_a_key_predicate_reads_back_through_a_url(fields: dict[str, str]) -> None:
    path = key_predicate(fields)
    assert path.isascii()
    assert parse_resource("Set" + unquote(path)).key == fields


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_a_number_literal_reads_back_exactly(number: Decimal) -> None:
    assert compile_filter(parse_filter(f"a eq {literal(number)}"), FNO)({"a": number})


def test_literals_are_written_as_the_systems_want_them() -> None:
    assert literal(date(2026, 1, 5)) == "2026-01-05T12:00:00Z"
    assert literal(datetime(2026, 1, 5, 1, 2, 3, tzinfo=UTC)) == "2026-01-05T01:02:03Z"
    assert literal(EnumLiteral("N.SalesStatus", "Backorder")) == "N.SalesStatus'Backorder'"
    assert literal(True) == "true"
    assert literal(None) == "null"
    assert literal(Decimal("1E+3")) == "1000"
    with pytest.raises(ValueError, match="time zone"):
        literal(datetime(2026, 1, 5))  # noqa: DTZ001 - that it has none is the point


def test_conditions_are_joined_without_changing_what_they_mean() -> None:
    assert both("a eq 1", "", any_of("b", ["x", "y"])) == "a eq 1 and (b eq 'x' or b eq 'y')"
    assert both("", any_of("b", ["x"])) == "b eq 'x'"
    assert both() == ""


def test_moments_keep_up_to_six_decimals() -> None:
    assert moment("2023-10-16T15:42:46.3440655Z") == datetime(2023, 10, 16, 15, 42, 46, 344065, tzinfo=UTC)


def test_keys_come_in_any_order_and_alone() -> None:
    assert parse_resource("S(b=1,a='x')").key == {"a": "x", "b": Decimal(1)}
    assert parse_resource("S('x')").key == {"": "x"}
    lone = parse_resource("accounts(00000000-0000-0000-0000-00000000000A)/name")
    assert (lone.key, lone.rest) == ({"": "00000000-0000-0000-0000-00000000000a"}, "name")
    assert not parse_resource("S").keyed
    for wrong in ("S(a=)", "S(a='x'b='y')", "S(a='x',a='y')", "(x)", "S(a='x'", "S()extra", "a b"):
        with pytest.raises(BadQuery):
            parse_resource(wrong)


def test_a_query_filters_sorts_skips_takes_and_counts() -> None:
    rows = [{"a": each, "b": each % 2} for each in (3, 1, 4, 2)] + [{"a": None, "b": 0}]
    query = parse_query(
        {"$filter": "b eq 0", "$orderby": "a desc", "$top": "1", "$skip": "1", "$count": "true"}.items()
    )
    assert run_query(query, rows, FNO) == ([{"a": 2, "b": 0}], 3)
    assert query.count
    assert [row["a"] for row in run_query(parse_query([("$orderby", "b, a desc")]), rows, FNO)[0]] == [4, 2, None, 3, 1]
    assert project({"a": 1, "b": 2, "@odata.etag": "x"}, ("a",)) == {"a": 1, "@odata.etag": "x"}


def test_wrong_options_are_refused() -> None:
    for name, value in (("$top", "-1"), ("$top", "x"), ("$skip", "9" * 20), ("$orderby", "a sideways")):
        with pytest.raises(BadQuery):
            parse_query([(name, value)])
    with pytest.raises(BadQuery, match="NoSuch"):
        check_fields(parse_query([("$select", "NoSuch")]), {"a"})
    with pytest.raises(BadQuery, match="Other"):
        check_fields(parse_query([("$filter", "not (contains(Other,'x') or a eq 1)")]), {"a"})


def test_a_filter_tells_which_values_a_field_may_have() -> None:
    tree = parse_filter("Area eq 'usmf' and (Number eq 'A1' or Number eq 'b2') and Quantity gt 1")
    assert possible(tree, "Number") == frozenset({"a1", "b2"})
    assert possible(tree, "Area") == frozenset({"usmf"})
    assert possible(tree, "Quantity") is None
    assert possible(parse_filter("Number eq 'A' or Quantity eq 1"), "Number") is None
    assert possible(parse_filter("Number eq 'A*'"), "Number") is None
    assert possible(None, "Number") is None
