"""The six documented scenarios, each against its golden timeline.

``IOM_UPDATE_GOLDEN=1`` rewrites the timelines; read the difference before you keep it.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from iom_core import events as ev
from iom_core import flow as flows
from iom_core import scenarios
from iom_core.scenarios import SCENARIOS, Scenario
from iom_core.testing import World
from iom_core.testing.world import units
from iom_core.values import OrderId, SourceId

TIMELINES = Path(__file__).parent / "timelines"
LINES = {"CHAIR": 2, "LAMP": 1}
ALL = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())


def world(scenario: Scenario, stock: Mapping[str, int] | None = None, *, backorders: bool = True) -> World:
    made = World(scenario, backorders=backorders)
    if scenario.optimized:
        made.stock("Seattle", stock if stock is not None else {"CHAIR": 10, "LAMP": 10})
    return made


def recorded(world: World, order_id: OrderId) -> dict[str, object]:
    """Everything a planner could see of an order's life, as data."""
    order = world.order(order_id)
    return {
        "header": [f"{each.event}: {each.state} / {each.reason}" for each in order.timeline],
        "lines": [
            f"{each.record} {each.event}: {each.state} / {each.reason}"
            for each in world.store.events(order_id)
            if each.entity == ev.LINE
        ],
        "steps": [f"{each.step}{each.record and ' for '}{each.record}: {each.details}" for each in order.steps],
        "told": world.channel.told,
        "shipments": [each.id for each in order.shipments],
        "invoices": [f"{each.number}: {each.total}" for each in order.invoices],
        "errors": [f"{each.kind}: {each.what}" for each in world.store.errors()],
    }


def compare(name: str, now: Mapping[str, object]) -> None:
    path = TIMELINES / f"{name}.json"
    text = json.dumps(now, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("IOM_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8") if path.exists() else ""
    changed = difflib.unified_diff(golden.splitlines(), text.splitlines(), "documented", "now", lineterm="", n=2)
    difference = "\n".join(changed)
    assert not difference, f"the timeline {path.name} changed:\n{difference}"


@ALL
def test_a_scenario_lives_its_documented_life(scenario: Scenario) -> None:
    """Also: every step result, every status update and every document, in order."""
    here = world(scenario)
    order_id = here.receive(LINES)
    here.run_until_quiet()

    assert here.order(order_id).status.state == ev.COMPLETED
    assert here.order(order_id).status.reason == ev.FULFILLED
    assert tuple(here.channel.told.get("101", ())) == scenario.told
    assert here.store.errors() == ()
    compare(scenario.name, recorded(here, order_id))


@ALL
def test_every_flow_can_be_published(scenario: Scenario) -> None:
    assert flows.problems(scenario.flow, scenarios.CATALOG) == ()
    assert flows.problems(scenario.flow, world(scenario).orchestrator.setup.catalog) == ()


@ALL
def test_the_money_reconciles_to_the_cent_with_what_was_invoiced(scenario: Scenario) -> None:
    here = world(scenario)
    draft = here.draft({"CHAIR": 3, "LAMP": 1}, price="33.33", shipping="0.05")
    order_id = here.place(draft)
    here.erp.per_shipment = here.flexe.per_shipment = Decimal(1)
    here.run_until_quiet()
    order = here.order(order_id)

    assert order.invoiced_total == order.total == draft.total
    assert units(order) == {"ordered": 4, "shipped": 4, "canceled": 0, "open": 0}
    assert here.store.errors() == ()


DOCUMENTED_STATES = {
    "S1": ["Fulfillment in Process / Picked", "Fulfillment in Process / Packed", "Completed / Fulfilled"],
    "S2": ["Fulfillment in Process / Sent To Fulfillment", "Fulfillment in Process / Packed", "Completed / Fulfilled"],
    "S3": ["Fulfillment in Process / Sent To Fulfillment", "Fulfillment in Process / Packed", "Completed / Fulfilled"],
    "S4": ["Fulfillment in Process / Picked", "Fulfillment in Process / Packed", "Completed / Fulfilled"],
    "S5": ["Fulfillment in Process / Sent To Fulfillment", "Fulfillment in Process / Packed", "Completed / Fulfilled"],
    "S6": ["Fulfillment in Process / Picked", "Fulfillment in Process / Packed", "Completed / Fulfilled"],
}


@ALL
def test_the_documented_states_and_reasons_come_in_the_documented_order(scenario: Scenario) -> None:
    here = world(scenario)
    order_id = here.receive(LINES)
    here.run_until_quiet()

    passed = [f"{each.state} / {each.reason}" for each in here.order(order_id).timeline]
    documented = DOCUMENTED_STATES[scenario.id]
    places = [passed.index(each) for each in documented]
    assert places == sorted(places)


def test_s2_assigns_company_site_and_warehouse_only_after_flexe_has_shipped() -> None:
    here = world(scenarios.BIGCOMMERCE_FLEXE_FNO)
    order_id = here.receive(LINES, country="DE")
    here.pull()
    here.drain()
    before = here.order(order_id)
    assert (before.company, before.lines[0].site, before.lines[0].warehouse) == (None, None, None)
    assert here.erp.orders == {}

    here.run_until_quiet()

    after = here.order(order_id)
    assert (after.company, after.invoice_customer) == ("demf", "DE-WEB")
    assert {(line.company, line.site, line.warehouse) for line in after.lines} == {("demf", "2", "21")}
    names = [each.event for each in after.timeline]
    assert names.index(ev.ORDER_SHIPPED) < names.index(ev.BILLING_DATA_ASSIGNED) < names.index(ev.BILLING_SENT)


def test_s3_sends_the_status_back_to_the_erp_the_order_came_from() -> None:
    here = world(scenarios.FNO_FLEXE_FNO)
    here.receive(LINES)
    here.run_until_quiet()
    assert here.erp.told == {"101": ["Packed"]}


def test_an_order_of_the_erp_reaches_us_only_when_it_is_confirmed() -> None:
    here = world(scenarios.FNO_FNO_FNO)
    draft = here.draft(LINES)
    number = here.erp.enter(draft, here.clock(), confirmed=False)
    here.run_until_quiet()
    assert list(here.store.orders()) == []

    here.erp.confirm(number, draft, here.clock())
    here.run_until_quiet()
    (order,) = here.store.orders()
    assert (order.ready_to_sync, order.status.state) == (True, ev.COMPLETED)


@pytest.mark.parametrize(("backorders", "reason"), [(True, ev.BACKORDER_HOLD), (False, ev.INVENTORY_NOT_FOUND)])
def test_s6_a_line_without_stock_never_reaches_the_erp_until_the_backorder_job_finds_stock(
    backorders: bool, reason: str
) -> None:
    here = world(scenarios.BIGCOMMERCE_DOM_FNO, {"CHAIR": 10}, backorders=backorders)
    order_id = here.receive(LINES)
    here.run_until_quiet()

    lamp = here.order(order_id).lines[1]
    assert (lamp.status.state, lamp.status.reason) == (ev.LINE_ON_HOLD, reason)
    assert [set(each.lines) for each in here.erp.orders.values()] == [{"1"}]
    assert here.order(order_id).status.reason == ev.PARTIALLY_INVOICED
    assert here.channel.told == {"101": ["partially shipped"]}

    here.run_backorder_job()
    here.run_until_quiet()
    assert here.order(order_id).lines[1].status == lamp.status, "there is still no stock"
    assert [set(each.lines) for each in here.erp.orders.values()] == [{"1"}]

    here.stock("Chicago", {"LAMP": 1})
    assert here.run_backorder_job() == 1
    here.run_until_quiet()

    order = here.order(order_id)
    assert order.status.state == ev.COMPLETED
    assert [set(each.lines) for each in here.erp.orders.values()] == [{"1", "2"}]
    assert [(fo.source, fo.warehouse) for fo in order.fulfillment_orders] == [("Seattle", "11"), ("Chicago", "12")]
    assert here.channel.told == {"101": ["partially shipped", "shipped", "completed"]}
    assert here.run_backorder_job() == 0
    assert here.store.errors() == ()
    if backorders:
        compare("bigcommerce-dom-fno.backorder", recorded(here, order_id))


@pytest.mark.parametrize(("backorders", "reason"), [(True, ev.BACKORDER_HOLD), (False, ev.INVENTORY_NOT_FOUND)])
def test_s6_an_order_with_no_stock_at_all_is_held_as_a_whole(backorders: bool, reason: str) -> None:
    here = world(scenarios.BIGCOMMERCE_DOM_FNO, {}, backorders=backorders)
    order_id = here.receive(LINES)
    here.run_until_quiet()

    order = here.order(order_id)
    assert (order.status.state, order.status.reason) == (ev.ON_HOLD, reason)
    assert here.erp.orders == {}

    here.stock("Seattle", LINES)
    here.run_backorder_job()
    here.run_until_quiet()
    assert here.order(order_id).status.state == ev.COMPLETED
    assert here.channel.told == {"101": ["shipped", "completed"]}


def test_s6_one_line_may_ship_from_two_sources_and_each_becomes_a_fulfillment_order() -> None:
    here = World(scenarios.BIGCOMMERCE_DOM_FNO)
    here.stock("Seattle", {"CHAIR": 3})
    here.stock("Chicago", {"CHAIR": 4})
    order_id = here.receive({"CHAIR": 5})
    here.run_until_quiet()

    order = here.order(order_id)
    assert order.status.state == ev.COMPLETED
    assert [(fo.source, fo.lines[0].quantity, fo.lines[0].shipped) for fo in order.fulfillment_orders] == [
        (SourceId("Seattle"), Decimal(3), Decimal(3)),
        (SourceId("Chicago"), Decimal(2), Decimal(2)),
    ]


def test_an_order_shipped_in_parts_tells_the_channel_of_each_part() -> None:
    here = world(scenarios.BIGCOMMERCE_FNO_FNO)
    here.erp.per_shipment = Decimal(1)
    order_id = here.receive({"CHAIR": 3})
    here.run_until_quiet()

    order = here.order(order_id)
    assert here.channel.told["101"] == ["partially shipped", "partially shipped", "shipped", "completed"]
    assert here.channel.shipments["101"] == {each.id for each in order.shipments}
    assert len(order.shipments) == 3
    compare("bigcommerce-fno-fno.parts", recorded(here, order_id))


@pytest.mark.parametrize("number", ["S1", "S2", "S3", "S5"])
def test_an_order_with_a_digital_line_completes_and_the_line_is_invoiced(number: str) -> None:
    here = world(scenarios.named(number))
    order_id = here.place(here.draft({"CHAIR": 2, "EBOOK": 1}, digital=["EBOOK"]))
    here.run_until_quiet()
    order = here.order(order_id)
    assert order.status.state == ev.COMPLETED
    assert [line.status.state for line in order.lines] == [ev.COMPLETED] * 2
    assert order.invoiced_total == order.total


def test_an_order_of_which_nothing_is_to_be_shipped_is_held_where_a_warehouse_network_fulfills() -> None:
    here = world(scenarios.BIGCOMMERCE_FLEXE_FNO)
    order_id = here.place(here.draft({"EBOOK": 1}, digital=["EBOOK"]))
    here.run_until_quiet()
    order = here.order(order_id)
    assert order.status.state == ev.ON_HOLD
    assert "no line of the order is to be shipped" in here.store.errors()[0].what


def test_timelines_of_golden_files_belong_to_a_test() -> None:
    known = {*SCENARIOS, "bigcommerce-dom-fno.backorder", "bigcommerce-fno-fno.parts"}
    assert {path.stem for path in TIMELINES.glob("*.json")} == known


def test_a_difference_to_the_documented_timeline_is_shown_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IOM_UPDATE_GOLDEN", raising=False)
    golden = json.loads((TIMELINES / "fno-fno-fno.json").read_text(encoding="utf-8"))
    golden["told"] = {"101": ["too much"]}
    with pytest.raises(AssertionError, match=r"(?s)documented.*\+.*too much"):
        compare("fno-fno-fno", golden)
