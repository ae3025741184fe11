"""Rules that only show when several systems have a say: digital lines, canceled parts, mended mappings."""

from __future__ import annotations

from decimal import Decimal

import attrs
from returns.result import Success

from iom_core import scenarios
from iom_core.lifecycle import Status
from iom_core.mapping import IdMapping, MappingRow
from iom_core.messages import Canceled, Message, Sourced
from iom_core.order import OrderLine
from iom_core.testing import World
from iom_core.values import Address, MessageId, SourceId, System

SHOP, FLEXE = System("bigcommerce"), System("flexe")


def test_a_digital_line_is_invoiced_with_the_goods_it_was_bought_with() -> None:
    """With sources determined by optimization nobody ships it, yet the books get it, and the order completes."""
    world = World.for_scenario(scenarios.BIGCOMMERCE_DOM_FNO)
    world.stock("Seattle", {"CHAIR": 5})
    order_id = world.place(world.draft({"CHAIR": 2, "EBOOK": 1}, digital=("EBOOK",)))
    world.run_until_quiet()
    order = world.order(order_id)

    assert (order.status.state, order.status.reason) == ("Completed", "Fulfilled")
    assert order.invoiced_total == order.total
    assert [line.warehouse for line in order.lines] == ["11", "11"]
    assert world.store.errors() == ()


def test_a_fulfiller_cancels_only_the_fulfillment_order_it_names() -> None:
    """What another fulfillment order of the same order was to ship is still shipped."""
    world = World.for_scenario(scenarios.BIGCOMMERCE_FLEXE_FNO)
    order_id = world.receive({"CHAIR": 2, "DESK": 1})
    world.pull()
    order = world.order(order_id)
    (fulfillment,) = order.fulfillment_orders
    split = [Sourced("1", SourceId("Reno"), Decimal(2)), Sourced("2", SourceId("Newark"), Decimal(1))]
    bare = attrs.evolve(order, fulfillment_orders=(), lines=tuple(_validated(line) for line in order.lines))
    two = bare.create_fulfillment_orders(fulfillment.provider, world.clock(), sourced=split).unwrap().order
    two = two.known_as(FLEXE, "FX-1", fulfillment_order=two.fulfillment_orders[0].id)

    changed = two.canceled_by(FLEXE, world.clock(), fulfillment_order=two.fulfillment_orders[0].id).unwrap().order

    assert [line.canceled for line in changed.lines] == [2, 0]
    assert [each.status.state for each in changed.fulfillment_orders] == ["Canceled", "New"]
    assert changed.status.state != "Canceled"


def _validated(line: OrderLine) -> OrderLine:
    return attrs.evolve(line, status=Status("In Progress", "Validated"), source=None)


def test_a_message_names_the_fulfillment_order_it_cancels() -> None:
    """The number a provider gave one fulfillment order is enough: the rest of the order goes on."""
    world = World.for_scenario(scenarios.BIGCOMMERCE_FLEXE_FNO)
    order_id = world.receive({"CHAIR": 2})
    world.pull()
    world.drain()
    number = world.order(order_id).fulfillment_orders[0].id
    handled = world.orchestrator.handle(
        Message(MessageId("flexe/cancel"), FLEXE, Canceled(), world.clock(), external_id=f"FX-{number}")
    )

    assert isinstance(handled, Success)
    assert world.order(order_id).status.state == "Canceled"


def test_an_order_rejected_for_a_missing_mapping_comes_in_once_it_is_mended() -> None:
    """The rejection is listed, but the message isn't used up: its redelivery brings the order in."""
    world = World.for_scenario(scenarios.BIGCOMMERCE_FNO_FNO)
    known = MappingRow(SHOP, "products", "sku", "TABLE", "TABLE")
    setup = world.orchestrator.setup
    world.orchestrator.setup = attrs.evolve(setup, mapping=IdMapping((known,)))
    order_id = world.receive({"CHAIR": 1})
    world.pull()
    (error,) = world.store.errors("provider inbound")

    assert "no mapping in table 'products' for sku = 'CHAIR'" in error.what
    assert error.where == "$.lines[0].product"
    assert world.store.load(order_id) is None

    mended = IdMapping((known, MappingRow(SHOP, "products", "sku", "CHAIR", "CHAIR")))
    world.orchestrator.setup = attrs.evolve(setup, mapping=mended)
    world.orchestrator.follow(SHOP, order_id.removeprefix("BC-"))
    world.run_until_quiet()

    assert world.order(order_id).status.state == "Completed"


def test_a_fulfillment_order_for_flexe_goes_to_one_address() -> None:
    """Lines with addresses of their own leave in fulfillment orders of their own; F&O takes them all in one."""
    elsewhere = Address("John Roe", "", "2 Side St", "", "Austin", "TX", "78701", "US")
    for scenario, wanted in ((scenarios.BIGCOMMERCE_FLEXE_FNO, 2), (scenarios.BIGCOMMERCE_FNO_FNO, 1)):
        world = World.for_scenario(scenario)
        draft = world.draft({"CHAIR": 2, "DESK": 1, "LAMP": 1})
        lines = (draft.lines[0], attrs.evolve(draft.lines[1], ship_to=elsewhere), draft.lines[2])
        order_id = world.place(attrs.evolve(draft, lines=lines))
        world.run_until_quiet()
        order = world.order(order_id)

        assert [len(fo.lines) for fo in order.fulfillment_orders] == ([2, 1] if wanted == 2 else [3])
        assert order.status.state == "Completed"
