"""Mapping of master data, retrying, finding adapters, sourcing lines: the small modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_core import registry
from iom_core.allocation import Source, source_lines
from iom_core.errors import Fault, Misconfigured, Misunderstood, Unavailable
from iom_core.flow import ActionDefinition, Effect
from iom_core.mapping import TABLES, IdMapping, MappingRow
from iom_core.outcome import failed
from iom_core.retry import ActionLimits, Backoff, next_try
from iom_core.values import ProductId, Quantity, SourceId

from .examples import FNO, NOW, SHOP, draft, validated

ROWS = IdMapping(
    (
        MappingRow(SHOP, "products", "sku", "X1", "P1"),
        MappingRow(SHOP, "products", "sku", "X2", "P2"),
        MappingRow(SHOP, "units", "unit", "piece", "ea"),
        MappingRow(SHOP, "accounts", "customer id", "12", "C-12"),
    )
)


# -- mapping -----------------------------------------------------------------------------------------------------------


def test_ids_are_looked_up_both_ways() -> None:
    for row in ROWS.rows:
        assert ROWS.internal(SHOP, row.table, row.value).unwrap() == row.internal
        assert ROWS.external(SHOP, row.table, row.internal).unwrap() == row.value


def test_a_provider_without_rows_for_a_table_uses_our_ids() -> None:
    assert ROWS.internal(FNO, "products", "P1").unwrap() == "P1"
    assert ROWS.external(SHOP, "warehouses", "11").unwrap() == "11"


def test_a_look_up_that_finds_nothing_names_provider_table_field_and_value() -> None:
    for result, value in (
        (ROWS.internal(SHOP, "products", "X9", "$.lines[3].product"), "'X9'"),
        (ROWS.external(SHOP, "products", "P9", "$.lines[3].product"), "'P9'"),
    ):
        assert failed(result)
        refused = result.failure()
        assert all(each in refused.what for each in ("bigcommerce", "'products'", "sku", value))
        assert (refused.where, refused.who) == ("$.lines[3].product", "bigcommerce")


def test_creating_a_mapping_that_exists_returns_the_existing_one() -> None:
    fresh = MappingRow(SHOP, "products", "sku", "X3", "P3")
    more, row = ROWS.add(fresh)
    assert (row, more.internal(SHOP, "products", "X3").unwrap()) == (fresh, "P3")
    again, existing = more.add(attrs.evolve(fresh, internal="P4"))
    assert again is more
    assert existing == fresh
    with pytest.raises(ValueError, match="no mapping table 'colors'"):
        ROWS.add(attrs.evolve(fresh, table="colors"))
    assert len(TABLES) == 7


def test_an_order_is_translated_as_a_whole_or_not_at_all() -> None:
    theirs = draft(2, 1)
    lines = tuple(
        attrs.evolve(line, product=ProductId(f"X{n}"), quantity=Quantity(line.quantity.amount, "piece"))
        for n, line in enumerate(theirs.lines, 1)
    )
    theirs = attrs.evolve(theirs, lines=lines, customer="12")
    ours = ROWS.translate(SHOP, theirs).unwrap()
    assert [line.product for line in ours.lines] == ["P1", "P2"]
    assert {line.quantity.unit for line in ours.lines} == {"ea"}
    assert ours.customer == "C-12"
    assert ROWS.translate(FNO, theirs).unwrap() is theirs
    assert ROWS.translate(SHOP, attrs.evolve(theirs, customer="")).unwrap().customer == "", "guests have no account"
    for changed, where in (
        ({"customer": "13"}, "$.customer"),
        ({"lines": (lines[0], attrs.evolve(lines[1], product=ProductId("X9")))}, "$.lines[1].product"),
        ({"lines": (attrs.evolve(lines[0], quantity=Quantity.of(1, "box")),)}, "$.lines[0].quantity.unit"),
    ):
        refused = ROWS.translate(SHOP, attrs.evolve(theirs, **changed))
        assert failed(refused)
        assert refused.failure().where == where


# -- retrying ----------------------------------------------------------------------------------------------------------

LIMITS = ActionLimits.of(ActionDefinition("send", Effect.SEND, max_attempts=5, timeout_minutes=10))


@pytest.mark.parametrize("fault", [Misunderstood("x", "y"), Misconfigured("x", "y"), Fault("x", "y")])
def test_what_is_wrong_stays_wrong(fault: Fault) -> None:
    assert next_try(fault, 1, NOW, NOW, LIMITS, 0.5) is None


def test_what_is_unavailable_is_tried_again_within_attempts_and_timeout() -> None:
    down = Unavailable("x", "down")
    assert next_try(down, 1, NOW, NOW, LIMITS, 1.0) == NOW + timedelta(seconds=1)
    assert next_try(down, 4, NOW, NOW, LIMITS, 1.0) == NOW + timedelta(seconds=8)
    assert next_try(down, 5, NOW, NOW, LIMITS, 1.0) is None
    assert next_try(Unavailable("x", "busy", 90), 1, NOW, NOW, LIMITS, 0) == NOW + timedelta(seconds=90)
    assert next_try(down, 1, NOW, NOW + timedelta(minutes=10), LIMITS, 1.0) is None


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_backing_off_never_waits_longer_than_the_longest(attempt: int, chance: float) -> None:
    wait = Backoff(first=2, longest=60).wait(attempt, chance)
    assert 0 <= wait <= 60
    assert wait <= Backoff(first=2, longest=60).wait(attempt + 1, 1.0)


def test_a_fault_keeps_what_it_says_when_it_crosses_a_process() -> None:
    import pickle

    fault = pickle.loads(pickle.dumps(Unavailable("x", "down", 3.0)))  # noqa: S301 - our own bytes
    assert (fault.system, fault.what, fault.retry_after, str(fault)) == ("x", "down", 3.0, "x: down")
    assert pickle.loads(pickle.dumps(Misunderstood("x", "y"))).what == "y"  # noqa: S301 - our own bytes


# -- finding adapters --------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """Install a distribution with three adapters: a good one, one that can't be imported, one that can't be called."""
    package = tmp_path / "acme_adapter.py"
    package.write_text("def connect(configuration):\n    return configuration['name']\n\nnothing = 3\n")
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('no license')\n")
    info = tmp_path / "acme_iom-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-iom\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[iom.adapters]\nacme = acme_adapter:connect\n"
        "acme-broken = acme_broken:connect\nacme-odd = acme_adapter:nothing\n"
    )
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path.remove(str(tmp_path))
    sys.modules.pop("acme_adapter", None)


@pytest.mark.usefixtures("installed")
def test_an_installed_adapter_is_found_by_its_name() -> None:
    assert {"acme", "acme-broken", "acme-odd"} <= set(registry.available())
    assert registry.load("acme")({"name": "x"}) == "x"


@pytest.mark.usefixtures("installed")
def test_an_explicit_adapter_wins_over_an_installed_one() -> None:
    assert registry.load("acme", {"acme": lambda _: "mine"})({}) == "mine"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("acme-broken", r"acme_broken:connect of acme-iom can't be loaded: no license"),
        ("acme-odd", r"acme_adapter:nothing is not callable"),
        ("nobody", r"no adapter of this name is installed \(known: .*acme"),
    ],
)
def test_a_broken_or_missing_adapter_names_itself(name: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        registry.load(name)


# -- sourcing ----------------------------------------------------------------------------------------------------------

A, B, OFF = (
    Source(SourceId("A"), "1", "11", 2),
    Source(SourceId("B"), "1", "12", 1),
    Source(SourceId("OFF"), active=False),
)


def plan(quantities: list[int], stock: dict[tuple[str, str], int]) -> list[tuple[str, str, int]]:
    lines = validated(*quantities).lines
    one_product = [attrs.evolve(line, product=ProductId("P")) for line in lines]
    known = {(source, ProductId(product)): Decimal(quantity) for (source, product), quantity in stock.items()}
    return [(each.line, each.source, int(each.quantity)) for each in source_lines(one_product, [A, B, OFF], known)]


def test_a_line_goes_whole_to_the_first_source_that_has_it_all() -> None:
    assert plan([2], {("A", "P"): 2, ("B", "P"): 2}) == [("1", "B", 2)]
    assert plan([2], {("A", "P"): 2, ("B", "P"): 1}) == [("1", "A", 2)]


def test_a_line_is_split_when_only_together_sources_have_it_and_left_out_otherwise() -> None:
    assert plan([3], {("A", "P"): 2, ("B", "P"): 1}) == [("1", "B", 1), ("1", "A", 2)]
    assert plan([4], {("A", "P"): 2, ("B", "P"): 1}) == []
    assert plan([1], {("OFF", "P"): 9}) == []


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.dictionaries(st.tuples(st.sampled_from(["A", "B", "OFF"]), st.just("P")), st.integers(-2, 8)),
)
def test_no_source_gives_more_than_it_has_and_every_sourced_line_is_whole(
    quantities: list[int], stock: dict[tuple[str, str], int]
) -> None:
    made = plan(quantities, stock)
    for source in ("A", "B", "OFF"):
        assert sum(quantity for _, each, quantity in made if each == source) <= max(stock.get((source, "P"), 0), 0)
    for line in {line for line, _, _ in made}:
        assert sum(quantity for each, _, quantity in made if each == line) == quantities[int(line) - 1]
