"""The BigCommerce adapter against its twin: nothing lost, nothing twice, whatever happens to the answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Result, Success

from iom_adapters._http import Reply
from iom_adapters._twin import Fault, TwinRequest, TwinResponse, serve
from iom_adapters.bigcommerce import BigCommerce, BigCommerceConfig, connect
from iom_adapters.bigcommerce.adapter import is_signed, rate_limit
from iom_adapters.bigcommerce.samples import Line, order_of, recorded_orders
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.messages import Canceled, Message, NewOrder, Rejected
from iom_core.order import ExternalId, SalesOrder
from iom_core.outcome import Refused
from iom_core.ports import Capability, OrderSource, Pulled, StatusSink, StatusUpdate
from tests.adapters._bigcommerce import (
    START,
    TOKEN,
    TWO_ADDRESSES,
    Shop,
    by_hand,
    draft_in,
    import_order,
    items,
    numbers,
    refused,
    shipped,
    told,
)

EXAMPLES = Path(__file__).parents[3] / "shared" / "specs" / "bigcommerce" / "webhook-examples"


def test_it_is_both_a_source_and_a_sink() -> None:
    adapter = Shop().adapter()
    source: OrderSource = adapter
    sink: StatusSink = adapter
    assert source.system == sink.system == "bigcommerce"


class TestPull:
    def test_orders_ready_to_be_fulfilled_are_imported_cancelled_ones_reported_others_left_alone(self) -> None:
        shop = Shop()
        placed = {status: shop.place(status_id=status)[0] for status in range(15)}
        messages, _ = shop.drain(shop.adapter())
        assert {each.external_id: type(each.body) for each in messages if isinstance(each, Message)} == {
            str(placed[11]): NewOrder,
            str(placed[9]): NewOrder,
            str(placed[5]): Canceled,
        }

    def test_an_archived_order_is_left_alone_unless_configured(self) -> None:
        shop = Shop()
        (number,) = shop.place()
        shop.twin.change(number, is_deleted=True)
        assert shop.adapter().read(str(number), shop.clock()) == ()
        assert len(shop.adapter(import_archived=True).read(str(number), shop.clock())) == 1

    def test_an_empty_store_answers_204_and_the_checkpoint_stays(self) -> None:
        shop = Shop()
        assert shop.adapter().pull("", shop.clock()) == Pulled((), "")

    def test_orders_that_come_later_are_found_and_earlier_ones_come_again_with_the_same_id(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        first = shop.place(3)
        found, checkpoint = shop.drain(adapter)
        shop.clock.go(60)
        second = shop.place(2)
        again, checkpoint = shop.drain(adapter, checkpoint)
        assert numbers(found) == first
        assert numbers(again) == [*first, *second]  # the overlap
        assert [each.id for each in again[:3]] == [each.id for each in found]
        shop.clock.go(3600)
        third = shop.place(1)
        shop.drain(adapter, checkpoint)
        shop.clock.go(3600)
        last, _ = shop.drain(adapter, checkpoint)
        assert numbers(last) == [*second, *third] or numbers(last) == [*first, *second, *third]

    def test_message_ids_depend_on_content_alone(self) -> None:
        shop = Shop()
        (number,) = shop.place()
        one, other = shop.adapter().pull("", shop.clock()), shop.adapter().pull("", shop.clock())
        assert one == other
        assert one.messages[0].id == f"bigcommerce/order/{number}/new"
        shop.clock.go(1)
        shop.twin.change(number, staff_notes="call first")
        assert shop.adapter().pull("", shop.clock()).messages[0].id == one.messages[0].id
        shop.twin.change(number, status_id=5)
        assert shop.adapter().pull("", shop.clock()).messages[0].id == f"bigcommerce/order/{number}/canceled"

    @given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 12), st.integers(1, 20), st.booleans())
    @settings(max_examples=60, deadline=None)
    def test_every_order_comes_whatever_the_page_size_and_pulling_twice_gives_the_same_ids(
        self, gaps: list[int], page_limit: int, orders_per_pull: int, bounds_included: bool
    ) -> None:
        shop = Shop(bounds_included=bounds_included)
        placed = []
        for gap in gaps:
            shop.clock.go(gap)
            placed += shop.place()
        results = []
        for _ in range(2):
            adapter = shop.adapter(page_limit=page_limit, orders_per_pull=orders_per_pull)
            found, checkpoint = shop.drain(adapter)
            assert set(numbers(found)) == set(placed)
            results.append({each.id for each in found})
            again, _ = shop.drain(adapter, checkpoint)
            assert {each.id for each in again} <= results[0]
        assert results[0] == results[1]

    @pytest.mark.parametrize("bounds_included", [True, False])
    @pytest.mark.parametrize("page_limit", [1, 7, 10])
    def test_seconds_so_crowded_that_they_fill_pages_hide_nothing(self, page_limit: int, bounds_included: bool) -> None:
        shop = Shop(bounds_included=bounds_included)
        placed = []
        for count in (3, 23, 31, 12, 1):
            placed += shop.place(count)
            shop.clock.go(1)
        found, checkpoint = shop.drain(shop.adapter(page_limit=page_limit, orders_per_pull=5))
        assert set(numbers(found)) == set(placed)
        again, _ = shop.drain(shop.adapter(page_limit=page_limit), checkpoint)
        assert {each.id for each in again} == {each.id for each in found}

    def test_a_store_that_gives_shorter_pages_than_asked_for_hides_nothing(self) -> None:
        shop = Shop(longest_page=60)
        placed = shop.place(150)
        lines = [Line(f"line {n}", 100, sku=f"SKU-{n}") for n in range(130)]
        long_one = shop.twin.place({**order_of(lines), "date_modified": None})
        found, _ = shop.drain(shop.adapter(page_limit=250))
        assert set(numbers(found)) == {*placed, long_one}
        assert len(draft_in(next(each for each in found if each.external_id == str(long_one))).lines) == 130

    def test_an_order_is_delivered_once_per_batch(self) -> None:
        shop = Shop()
        placed = shop.place(23)
        found = shop.adapter(page_limit=10).pull("", shop.clock()).messages
        assert sorted(numbers(found)) == placed

    @given(st.randoms(use_true_random=False), st.integers(2, 7))
    @settings(max_examples=40, deadline=None)
    def test_orders_that_change_while_the_list_is_read_hide_no_others(
        self, rng: random.Random, page_limit: int
    ) -> None:
        shop = Shop()
        placed = []
        for _ in range(30):
            shop.clock.go(20)
            placed += shop.place()

        class Busy:
            """A store where staff edits an order after every list that was read."""

            name, faults = shop.twin.name, shop.twin.faults

            def handle(self, request: TwinRequest) -> TwinResponse:
                response = shop.twin.handle(request)
                if request.path.endswith("/orders") and rng.random() < 0.7:
                    shop.clock.go(1)
                    shop.twin.change(rng.choice(placed), staff_notes="edited")
                return response

        found, _ = shop.drain(shop.adapter(Busy(), page_limit=page_limit))
        assert set(numbers(found)) == set(placed)

    def test_details_are_read_once_per_change(self) -> None:
        shop = Shop()
        shop.place(5)
        adapter = shop.adapter()
        _, checkpoint = shop.drain(adapter)
        before = adapter.calls
        assert before == 1 + 2 * 5
        shop.drain(adapter, checkpoint)
        assert adapter.calls == before + 1

    def test_a_pull_whose_result_was_lost_gives_the_messages_again(self) -> None:
        shop = Shop()
        shop.place(3)
        adapter = shop.adapter()
        assert adapter.pull("", shop.clock()) == adapter.pull("", shop.clock())

    def test_a_small_quota_is_waited_for_and_loses_nothing(self) -> None:
        shop = Shop(quota=20)
        placed = shop.place(60)
        found, _ = shop.drain(shop.adapter(page_limit=50))
        assert set(numbers(found)) == set(placed)
        assert shop.clock() < START + timedelta(minutes=10)

    def test_a_store_that_keeps_failing_at_one_order_is_unavailable_not_an_endless_loop(self) -> None:
        shop = Shop()
        placed = shop.place(3)
        shop.twin.faults.plan(Fault("status", path=f"/orders/{placed[1]}/products", status=500, times=99))
        adapter = shop.adapter()
        for _ in range(2):
            try:
                adapter.pull("", shop.clock())
            except Unavailable:
                break
        else:
            pytest.fail("it never said that the store is unavailable")

    @given(st.lists(st.tuples(st.sampled_from(("lost", "refuse")), st.integers(0, 8)), max_size=6))
    @settings(max_examples=40, deadline=None)
    def test_lost_answers_lose_no_orders(self, faults: list[tuple[str, int]]) -> None:
        shop = Shop()
        placed = shop.place(6)
        shop.twin.faults.plan(*(Fault(kind, after=after) for kind, after in faults))
        found, _ = shop.drain(shop.adapter(page_limit=3))
        assert set(numbers(found)) == set(placed)

    def test_dates_are_escaped(self) -> None:
        shop = Shop()
        shop.place()
        raw: list[str] = []

        class Listening:
            name, faults = shop.twin.name, shop.twin.faults

            def handle(self, request: TwinRequest) -> TwinResponse:
                raw.append(request.raw_query)
                return shop.twin.handle(request)

        adapter = shop.adapter(Listening())
        adapter.pull(adapter.pull("", shop.clock()).checkpoint, shop.clock())
        assert "+" not in raw[-1]
        assert "min_date_modified=2026-03-01T11%3A55%3A00.000%2B00%3A00" in raw[-1]
        assert "sort=date_modified%3Aasc" in raw[-1]

    def test_the_first_pull_may_begin_later_than_the_store(self) -> None:
        shop = Shop()
        shop.place(2)
        shop.clock.go(3600)
        late = shop.place(1)
        adapter = shop.adapter(since="2026-03-01T12:30:00+00:00")
        assert numbers(shop.drain(adapter)[0]) == late

    def test_our_clock_may_be_wrong(self) -> None:
        shop = Shop()
        placed = shop.place(2)
        adapter = shop.adapter()
        for now in (START - timedelta(days=3), START + timedelta(days=3)):
            checkpoint = adapter.pull("", now).checkpoint
            assert numbers(adapter.pull(checkpoint, now).messages) == placed

    @pytest.mark.parametrize(
        "checkpoint", ["7", "{}", "[]", '{"since":"x","mark":"","after":null,"resumed":false}', "\x00"]
    )
    def test_a_foreign_checkpoint_is_our_own_mistake(self, checkpoint: str) -> None:
        shop = Shop()
        with pytest.raises(Misconfigured, match="checkpoint"):
            shop.adapter().pull(checkpoint, shop.clock())

    def test_a_page_without_one_readable_order_is_misunderstood(self) -> None:
        shop = Shop()
        shop.twin.faults.plan(Fault("status", status=200, body=b"[1,2,3]"))
        with pytest.raises(Misunderstood, match="whole page"):
            shop.adapter(page_limit=3).pull("", shop.clock())

    def test_a_list_that_is_none_is_misunderstood(self) -> None:
        shop = Shop()
        shop.twin.faults.plan(
            Fault("status", status=200, body=b'{"data": []}'), Fault("status", status=200, body=b"<xml/>")
        )
        for _ in range(2):
            with pytest.raises(Misunderstood):
                shop.adapter().pull("", shop.clock())

    def test_a_declined_read_says_why(self) -> None:
        shop = Shop()
        shop.twin.faults.plan(Fault("status", status=413, body=b'[{"status":413,"message":"limit too high"}]'))
        with pytest.raises(Misconfigured, match="limit too high"):
            shop.adapter().pull("", shop.clock())
        shop.twin.faults.plan(Fault("status", status=423))
        with pytest.raises(Unavailable):
            shop.adapter().pull("", shop.clock())


class TestRejections:
    def test_a_broken_order_is_rejected_with_its_path_and_the_others_come(self) -> None:
        shop = Shop()
        good = shop.place(2)
        broken = order_of([Line("x", 100, sku="X")])
        broken["products"][0]["quantity"] = "many"
        number = shop.twin.place({**broken, "date_modified": None})
        good += shop.place(1)
        found, _ = shop.drain(shop.adapter())
        rejected = [each for each in found if isinstance(each, Rejected)]
        assert [(each.external_id, each.where) for each in rejected] == [(str(number), "$.products[0].quantity")]
        assert "whole number" in rejected[0].what
        assert sorted(numbers(found)) == sorted([*good, number])
        assert TOKEN not in rejected[0].payload

    def test_a_rejection_keeps_its_id_until_the_order_changes(self) -> None:
        shop = Shop()
        (number,) = shop.place(default_currency_code="???")
        one, other = shop.adapter().pull("", shop.clock()), shop.adapter().pull("", shop.clock())
        assert one == other
        shop.clock.go(1)
        shop.twin.change(number, default_currency_code="!!!")
        assert shop.adapter().pull("", shop.clock()).messages[0].id != one.messages[0].id

    @pytest.mark.parametrize(
        ("entry", "where"),
        [(7, "$[0]"), ({}, "$[0].id"), ({"id": 1, "date_modified": "", "status_id": 11}, "$[0].date_modified")],
    )
    def test_an_entry_without_the_essentials_is_rejected_in_place(self, entry: Any, where: str) -> None:
        shop = Shop()
        shop.twin.faults.plan(Fault("status", status=200, body=json.dumps([entry]).encode()))
        (message,) = shop.adapter().pull("", shop.clock()).messages
        assert isinstance(message, Rejected)
        assert message.where == where

    def test_totals_that_do_not_add_up_are_rejected_with_the_numbers(self) -> None:
        shop = Shop()
        shop.twin.place({**order_of([Line("x", 100, sku="X")]), "total_inc_tax": "7.0000"})
        (message,) = shop.drain(shop.adapter())[0]
        assert isinstance(message, Rejected)
        assert message.where == "$.total_inc_tax"
        assert "7.0000" in message.what
        assert "1.0000" in message.what

    def test_fees_and_coupons_are_read_when_the_total_needs_them_and_only_then(self) -> None:
        shop = Shop()
        fee = {"id": 1, "type": "custom_fee", "cost_inc_tax": "2.0000"}
        shop.twin.place({**order_of([Line("x", 100, sku="X")]), "total_inc_tax": "3.0000", "fees": [fee]})
        adapter = shop.adapter()
        (message,) = shop.drain(adapter)[0]
        assert str(draft_in(message).handling) == "2.00 USD"
        assert adapter.calls == 5
        coupon = {"id": 1, "coupon_id": 1, "code": "A", "amount": 5, "type": 2, "discount": 0.25}
        number = shop.twin.place(
            {**order_of([Line("x", 100, sku="X")]), "total_inc_tax": "0.7500", "coupons": [coupon]}
        )
        assert str(draft_in(adapter.read(str(number), shop.clock())[0]).discount) == "0.25 USD"

    def test_an_order_that_changes_while_its_parts_are_read_is_read_again(self) -> None:
        shop = Shop()
        (number,) = shop.place()

        class Editing:
            name, faults = shop.twin.name, shop.twin.faults
            edited = False

            def handle(self, request: TwinRequest) -> TwinResponse:
                response = shop.twin.handle(request)
                if not request.path.endswith("/products") or self.edited:
                    return response
                self.edited = True
                shop.clock.go(5)
                shop.twin.change(number, staff_notes="a line was changed")
                lines = [{**line, "total_inc_tax": "0.0100"} for line in json.loads(response.body)]
                return TwinResponse.of(200, lines)

        (message,) = shop.adapter(Editing()).pull("", shop.clock()).messages
        assert isinstance(message, Message)

    def test_an_order_that_vanishes_while_its_parts_are_read_is_no_order(self) -> None:
        shop = Shop()
        shop.place()
        shop.twin.faults.plan(Fault("status", path="/products", status=404))
        assert shop.adapter().pull("", shop.clock()).messages == ()

    def test_an_order_somebody_else_began_to_ship_is_rejected_but_not_one_we_shipped_ourselves(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = import_order(shop, adapter, order_of([Line("x", 100, 2, sku="X")]))
        told(adapter, shipped(order, {"1": 1}), "partially shipped")
        shop.twin.change(100, status_id=11)
        assert isinstance(shop.adapter().read("100", shop.clock())[0], Message)
        by_hand(shop, 100, order, 1, "")
        (message,) = shop.adapter().read("100", shop.clock())
        assert isinstance(message, Rejected)
        assert message.where == "$.products[0].quantity_shipped"


class TestRead:
    def test_one_order_is_read_as_a_pull_would(self) -> None:
        shop = Shop()
        (number,) = shop.place()
        adapter = shop.adapter()
        assert adapter.read(str(number), shop.clock()) == shop.adapter().pull("", shop.clock()).messages

    def test_an_unknown_order_is_nothing(self) -> None:
        shop = Shop()
        assert shop.adapter().read("4711", shop.clock()) == ()

    @pytest.mark.parametrize("number", ["", "0", "1/../../hooks", "1?x=1", "-1", "abc", "１"])
    def test_what_is_no_id_never_gets_into_an_address(self, number: str) -> None:
        shop = Shop()
        adapter = shop.adapter()
        (message,) = adapter.read(number, shop.clock())
        assert isinstance(message, Rejected)
        assert message.where == "$.id"
        assert adapter.calls == 0

    def test_every_recorded_order_reads(self) -> None:
        shop = Shop()
        for order in recorded_orders():
            shop.twin.place(order)
        found, _ = shop.drain(shop.adapter())
        assert sorted(numbers(found)) == [100, 149, 229, 247]  # 218 awaits payment
        assert all(isinstance(each, Message) for each in found)


class TestUpdate:
    def test_a_shipment_becomes_one_post_per_address_then_the_status(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 3, "2": 2, "3": 1, "4": 1}, carrier="UPS")
        receipt = told(adapter, order, "shipped")
        posted = shop.twin.shipments(100)
        assert [items(each) for each in posted] == [{1: 3, 3: 1}, {2: 2}]
        assert [each["order_address_id"] for each in posted] == [1, 2]
        assert {each["tracking_number"] for each in posted} == {"TRACK0"}
        assert {each["shipping_provider"] for each in posted} == {"ups"}
        assert shop.twin.status_history(100) == [11, 2]
        assert receipt.number == "100"

    def test_several_tracking_lines_of_one_order_line_are_one_item(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1}, {"1": 2})
        one, two = order.shipments
        order = attrs.evolve(order, shipments=(attrs.evolve(one, lines=one.lines + two.lines),))
        told(adapter, order, "partially shipped")
        assert [items(each) for each in shop.twin.shipments(100)] == [{1: 3}]

    def test_shipments_are_told_as_they_happen_and_each_once(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1})
        first = told(adapter, order, "partially shipped")
        assert told(adapter, order, "partially shipped") == first
        order = shipped(order, {"1": 2, "3": 1}, {"2": 2})
        told(adapter, order, "shipped")
        told(adapter, order, "shipped")
        told(adapter, order, "completed")
        told(adapter, order, "completed")
        assert [items(each) for each in shop.twin.shipments(100)] == [{1: 1}, {1: 2, 3: 1}, {2: 2}]
        assert shop.twin.status_history(100) == [11, 3, 2, 10]

    def test_a_status_never_goes_back(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 3, "2": 2, "3": 1})
        for stage in ("shipped", "partially shipped", "completed", "shipped", "partially shipped"):
            told(adapter, order, stage)
        assert shop.twin.status_history(100) == [11, 2, 10]

    @pytest.mark.parametrize("status", [4, 5, 6, 13, 14])
    @pytest.mark.parametrize("stage", ["shipped", "partially shipped", "completed"])
    def test_a_protected_order_is_refused_before_anything_is_written(self, status: int, stage: str) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 3})
        shop.twin.change(100, status_id=status)
        refusal = refused(adapter.update(order, StatusUpdate("key", stage)))
        assert (refusal.code, refusal.who, refusal.where) == ("protected", "bigcommerce", "$.status_id")
        assert shop.twin.shipments(100) == []
        assert shop.twin.order(100)["status_id"] == status

    def test_canceling_tells_the_store_once(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = import_order(shop, adapter, TWO_ADDRESSES)
        told(adapter, order, "canceled")
        told(adapter, order, "canceled")
        assert shop.twin.status_history(100) == [11, 5]

    @pytest.mark.parametrize(("status", "code"), [(2, "shipped"), (10, "shipped"), (4, "protected"), (13, "protected")])
    def test_what_is_shipped_or_disputed_is_not_canceled(self, status: int, code: str) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = import_order(shop, adapter, TWO_ADDRESSES)
        shop.twin.change(100, status_id=status)
        assert refused(adapter.update(order, StatusUpdate("key", "canceled"))).code == code

    @pytest.mark.parametrize("moves", [True, False])
    def test_it_does_not_matter_whether_a_shipment_moves_the_status_by_itself(self, moves: bool) -> None:
        shop = Shop(shipments_move_status=moves)
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1})
        told(adapter, order, "partially shipped")
        told(adapter, shipped(order, {"1": 2, "2": 2, "3": 1}), "shipped")
        assert shop.twin.status_history(100) == [11, 3, 2]

    def test_a_shipment_the_staff_entered_by_hand_is_recognised(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = import_order(shop, adapter, order_of([Line("x", 100, 2, sku="X")]))
        by_hand(shop, 100, order, 2, "TRACK0")
        told(adapter, shipped(order, {"1": 2}), "shipped")
        assert len(shop.twin.shipments(100)) == 1

    def test_what_was_shipped_by_hand_without_our_tracking_number_is_refused(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = import_order(shop, adapter, order_of([Line("x", 100, 2, sku="X")]))
        by_hand(shop, 100, order, 1, "other")
        refusal = refused(adapter.update(shipped(order, {"1": 2}), StatusUpdate("key", "shipped")))
        assert refusal.code == "over-shipped"
        assert len(shop.twin.shipments(100)) == 1
        assert shop.twin.status_history(100) == [11]

    def test_a_marker_is_compared_as_a_whole(self) -> None:
        """Shipment S1 must not be taken for S10."""
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(
            import_order(shop, adapter, order_of([Line("x", 100, 12, sku="X")])), *({"1": 1} for _ in range(11))
        )
        tenth_first = attrs.evolve(order, shipments=order.shipments[::-1])
        told(adapter, attrs.evolve(order, shipments=tenth_first.shipments[:1]), "partially shipped")
        told(adapter, order, "partially shipped")
        assert len(shop.twin.shipments(100)) == 11

    @pytest.mark.parametrize("name", ["A/1", "two\nlines", "spitze <b>&", "ünï", "x" * 300, " padded "])
    def test_a_shipment_of_any_name_is_known_again(self, name: str) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, order_of([Line("x", 100, 2, sku="X")])), {"1": 1}, tracking=("",))
        (parcel,) = order.shipments
        order = attrs.evolve(order, shipments=(attrs.evolve(parcel, id=name),))
        told(adapter, order, "partially shipped")
        told(adapter, order, "partially shipped")
        assert len(shop.twin.shipments(100)) == 1

    def test_two_parcels_alike_are_two_parcels(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(
            import_order(shop, adapter, order_of([Line("x", 100, 2, sku="X")])), {"1": 1}, {"1": 1}, tracking=("T", "T")
        )
        told(adapter, order, "shipped")
        told(adapter, order, "shipped")
        assert len(shop.twin.shipments(100)) == 2

    def test_more_shipments_than_a_page_are_all_seen(self) -> None:
        shop = Shop()
        adapter = shop.adapter(page_limit=3)
        order = shipped(
            import_order(shop, adapter, order_of([Line("x", 100, 10, sku="X")])), *({"1": 1} for _ in range(7))
        )
        told(adapter, order, "partially shipped")
        told(adapter, order, "partially shipped")
        assert len(shop.twin.shipments(100)) == 7

    def test_a_long_tracking_number_is_kept_whole(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1}, tracking=("9" * 80,))
        told(adapter, order, "partially shipped")
        assert "9" * 80 in shop.twin.shipments(100)[0]["comments"]

    @pytest.mark.parametrize("stage", ["shipped", "partially shipped", "completed", "canceled"])
    @pytest.mark.parametrize("external", [None, "", "0", "abc", "1/../2"])
    def test_an_order_without_a_number_builds_no_address(self, stage: str, external: str | None) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1})
        before = adapter.calls
        ids = () if external is None else (ExternalId(adapter.system, "order", order.id, external),)
        refusal = refused(adapter.update(attrs.evolve(order, externals=ids), StatusUpdate("key", stage)))
        assert refusal.code == "unknown-order"
        assert adapter.calls == before

    def test_a_line_the_store_does_not_know_is_refused(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1})
        without = attrs.evolve(order, externals=order.externals[:1])
        refusal = refused(adapter.update(without, StatusUpdate("key", "shipped")))
        assert (refusal.code, refusal.where) == ("unshippable", "$.shipments[0].lines[0]")
        stranger = shipped(order, {"99": 1})
        assert refused(adapter.update(stranger, StatusUpdate("key", "shipped"))).code == "unknown-line"

    def test_half_a_chair_is_refused(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1})
        (parcel,) = order.shipments
        half = attrs.evolve(parcel, lines=(attrs.evolve(parcel.lines[0], quantity=Decimal("0.5")),))
        assert (
            refused(adapter.update(attrs.evolve(order, shipments=(half,)), StatusUpdate("k", "shipped"))).code
            == "unshippable"
        )

    def test_an_order_the_store_has_lost_is_refused(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = import_order(shop, adapter, TWO_ADDRESSES)
        other = Shop().adapter()
        assert refused(other.update(order, StatusUpdate("key", "shipped"))).code == "not-found"

    def test_an_unknown_stage_is_refused(self) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = import_order(shop, adapter, TWO_ADDRESSES)
        assert refused(adapter.update(order, StatusUpdate("key", "teleported"))).code == "unknown-stage"

    @pytest.mark.parametrize(
        ("status", "code"), [(400, "invalid"), (404, "not-found"), (409, "conflict"), (422, "invalid")]
    )
    def test_a_no_of_the_store_is_a_refusal_with_its_words(self, status: int, code: str) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1})
        body = b'[{"status":404,"message":"Not like this."}]'
        shop.twin.faults.plan(Fault("status", "POST", "/shipments", status=status, body=body))
        refusal = refused(adapter.update(order, StatusUpdate("key", "shipped")))
        assert (refusal.code, refusal.what) == (code, "Not like this.")
        shop.twin.faults.plan(Fault("status", "PUT", "/orders/100", status=status, body=b'{"title":"No."}'))
        assert refused(adapter.update(order, StatusUpdate("key", "shipped"))).what == "No."

    @pytest.mark.parametrize(
        ("status", "fault"), [(423, Unavailable), (500, Unavailable), (415, Misconfigured), (403, Misconfigured)]
    )
    def test_faults_are_not_refusals(self, status: int, fault: type[Exception]) -> None:
        shop = Shop()
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1})
        shop.twin.faults.plan(Fault("status", "POST", "/shipments", status=status))
        with pytest.raises(fault):
            adapter.update(order, StatusUpdate("key", "shipped"))

    def test_only_the_status_is_written(self) -> None:
        shop = Shop()
        bodies: list[Any] = []

        class Listening:
            name, faults = shop.twin.name, shop.twin.faults

            def handle(self, request: TwinRequest) -> TwinResponse:
                if request.method == "PUT":
                    bodies.append(request.json())
                return shop.twin.handle(request)

        adapter = shop.adapter(Listening())
        told(adapter, shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1}), "shipped")
        assert bodies == [{"status_id": 2}]
        assert {method for method, _, _ in shop.twin.faults.log} == {"GET", "POST", "PUT"}


def until_told(shop: Shop, adapter: BigCommerce, order: SalesOrder, stage: str) -> None:
    """Retry as an engine would."""
    for _ in range(50):
        try:
            told(adapter, order, stage)
        except Unavailable as wait:
            shop.clock.go(wait.retry_after or 1)
        else:
            return
    raise AssertionError("it never succeeds")


class TestLostAnswers:
    @pytest.mark.parametrize("kind", ["lost", "refuse", "status"])
    @pytest.mark.parametrize("position", range(9))
    @pytest.mark.parametrize("moves", [True, False])
    def test_at_every_call_a_lost_answer_makes_no_duplicate(self, kind: str, position: int, moves: bool) -> None:
        shop = Shop(shipments_move_status=moves)
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1, "2": 2}, {"1": 2, "3": 1})
        shop.twin.faults.plan(Fault(kind, after=position))
        until_told(shop, adapter, order, "shipped")
        assert [items(each) for each in shop.twin.shipments(100)] == [{1: 1}, {2: 2}, {1: 2, 3: 1}]
        assert shop.twin.order(100)["status_id"] == 2
        assert shop.twin.status_history(100).count(2) == 1

    @given(
        st.lists(st.tuples(st.sampled_from(("lost", "refuse", "status")), st.integers(0, 12)), max_size=8),
        st.booleans(),
    )
    @settings(max_examples=80, deadline=None)
    def test_no_schedule_of_faults_ships_or_tells_twice(self, faults: list[tuple[str, int]], moves: bool) -> None:
        shop = Shop(shipments_move_status=moves)
        adapter = shop.adapter()
        order = import_order(shop, adapter, TWO_ADDRESSES)
        shop.twin.faults.plan(*(Fault(kind, after=after) for kind, after in faults))
        for parcels, stage in (({"1": 1, "2": 1},), "partially shipped"), (({"1": 2}, {"2": 1, "3": 1}), "shipped"):
            order = shipped(order, *parcels)
            until_told(shop, adapter, order, stage)
            until_told(shop, adapter, order, stage)
        until_told(shop, adapter, order, "completed")
        posted = [items(each) for each in shop.twin.shipments(100)]
        assert posted == [{1: 1}, {2: 1}, {1: 2}, {2: 1}, {3: 1}]
        assert shop.twin.status_history(100) == [11, 3, 2, 10]

    def test_updates_obey_the_quota(self) -> None:
        shop = Shop(quota=7)
        adapter = shop.adapter()
        order = shipped(import_order(shop, adapter, TWO_ADDRESSES), {"1": 1, "2": 2}, {"1": 2, "3": 1})
        until_told(shop, adapter, order, "shipped")
        assert len(shop.twin.shipments(100)) == 3
        assert not any(status == 429 for _, _, status in shop.twin.faults.log)  # the headers were read


class TestRateLimit:
    @pytest.mark.parametrize(
        ("status", "headers", "pause"),
        [
            (200, {"x-rate-limit-requests-left": "0", "x-rate-limit-time-reset-ms": "15000"}, 15.0),
            (200, {"x-rate-limit-requests-left": "1", "x-rate-limit-time-reset-ms": "15000"}, None),
            (200, {}, None),
            (429, {"x-rate-limit-time-reset-ms": "2500"}, 2.5),
            (429, {"x-retry-after": "3"}, 3.0),
            (429, {}, None),
            (429, {"x-rate-limit-time-reset-ms": "soon"}, None),
            (429, {"x-rate-limit-time-reset-ms": "-5"}, None),
            (429, {"x-rate-limit-time-reset-ms": "9" * 5000}, None),
        ],
    )
    def test_the_headers_say_how_long_to_wait(self, status: int, headers: dict[str, str], pause: float | None) -> None:
        assert rate_limit(Reply(status, headers, b"")) == pause

    def test_an_overloaded_platform_leaves_the_pause_to_the_engine(self) -> None:
        shop = Shop()
        shop.twin.faults.plan(Fault("status", status=429))
        with pytest.raises(Unavailable) as raised:
            shop.adapter().pull("", shop.clock())
        assert raised.value.retry_after is None

    def test_a_quota_used_up_by_others_is_waited_for(self) -> None:
        shop = Shop(quota=1)
        adapter = shop.adapter()
        shop.adapter().pull("", shop.clock())
        with pytest.raises(Unavailable) as raised:
            adapter.pull("", shop.clock())
        assert raised.value.retry_after == 30.0


# Webhooks.

WEBHOOK_SECRET = "w3bh00k-s3cr3t"
SIGNING = "cl13nt-s3cr3t"


def event(data: Any, scope: str = "store/order/updated", **more: Any) -> bytes:
    body = {"scope": scope, "store_id": "1", "data": data, "hash": "x", "created_at": 1, "producer": "stores/teststore"}
    return json.dumps(body | more).encode()


def signed(body: bytes, at: datetime = START, secret: str = SIGNING, sender: str = "msg_1") -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret.encode(), f"{sender}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "Webhook-Id": sender,
        "Webhook-Timestamp": stamp,
        "Webhook-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }


class TestWebhooks:
    def hear(self, body: bytes, headers: dict[str, str] | None = None) -> Result[tuple[str, ...], Refused]:
        adapter = Shop().adapter(webhook_secret=WEBHOOK_SECRET)
        return adapter.translate({"X-IOM-webhook-SECRET": WEBHOOK_SECRET} if headers is None else headers, body)

    @pytest.mark.parametrize(
        ("data", "scope", "ids"),
        [
            ({"type": "order", "id": 250}, "order/created", ("250",)),
            ({"type": "order", "id": 250, "status": {"new_status_id": 11}}, "order/statusUpdated", ("250",)),
            ({"type": "order", "id": 250, "refund": {"refund_id": 3}}, "order/refund/created", ("250",)),
            ({"type": "order", "id": 250, "message": {"order_message_id": 3}}, "order/message/created", ("250",)),
            ({"type": "transaction", "order_id": "250"}, "order/transaction/created", ("250",)),
            ({"type": "shipment", "id": 12, "orderId": 251}, "shipment/created", ("251",)),
            ({"order_id": 127}, "channel/1/order/created", ("127",)),
            ({"variant_id": 1, "product_id": 2}, "channel/1/inventory/product/stock_changed", ()),
            ({"type": "webhook", "id": 1, "error_code": 90001}, "hook/deliveryException", ()),
            ({"type": "product", "id": 167, "inventory": {}}, "product/inventory/updated", ()),
        ],
    )
    def test_every_kind_of_event_hints_at_its_order(self, data: Any, scope: str, ids: tuple[str, ...]) -> None:
        assert self.hear(event(data, f"store/{scope}")) == Success(ids)

    @pytest.mark.skipif(not EXAMPLES.exists(), reason="the published examples are not beside this checkout")
    def test_the_published_examples_are_understood(self) -> None:
        wanted = {"order": ("250",), "shipment": ("251",), "product": ()}
        for path in sorted(EXAMPLES.glob("*.json")):
            body = path.read_text().replace("{store_hash}", "teststore")
            assert self.hear(body.encode()) == Success(wanted[json.loads(body)["data"]["type"]]), path.name

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            (b"", "$"),
            (b"{", "$"),
            (b"[]", "$"),
            (b"NaN", "$"),
            (b"[" * 60_000, "$"),
            (b"\xff\xfe", "$"),
            (b"{}", "$.scope"),
            (event(None), "$.data"),
            (event([1]), "$.data"),
            (event({"type": 7}), "$.data.type"),
            (event({"type": "order"}), "$.data.id"),
            (event({"type": "order", "id": "1/../2"}), "$.data.id"),
            (event({"type": "order", "id": True}), "$.data.id"),
            (event({"type": "order", "id": -250}), "$.data.id"),
            (event({"type": "order", "id": 10**30}), "$.data.id"),
            (event({"type": "shipment", "id": 12}), "$.data.orderId"),
            (event({"order_id": {}}), "$.data.order_id"),
            (event({"type": "order", "id": 1}, producer="stores/other"), "$.producer"),
        ],
    )
    def test_what_is_malformed_is_refused_with_its_path(self, body: bytes, where: str) -> None:
        refusal = refused(self.hear(body))
        assert (refusal.code, refusal.where, refusal.who) == ("malformed", where, "bigcommerce")

    def test_an_oversized_body_is_refused_unread(self) -> None:
        assert refused(self.hear(b" " * 65_537)).code == "too-large"
        assert self.hear(event({"type": "order", "id": 1}).ljust(65_536)) == Success(("1",))

    @pytest.mark.parametrize(
        "headers",
        [{}, {"X-Iom-Webhook-Secret": ""}, {"X-Iom-Webhook-Secret": WEBHOOK_SECRET + "x"}, {"Other": WEBHOOK_SECRET},
         {"X-Iom-Webhook-Secret": "ünïcode"}, signed(event({"type": "order", "id": 1}))],
    )  # fmt: skip
    def test_a_delivery_without_our_secret_is_refused(self, headers: dict[str, str]) -> None:
        assert refused(self.hear(event({"type": "order", "id": 1}), headers)).code == "unauthenticated"

    def test_secrets_are_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[tuple[bytes, bytes]] = []
        real: Callable[[bytes, bytes], bool] = hmac.compare_digest

        def spy(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return real(one, other)

        monkeypatch.setattr("iom_adapters.bigcommerce.adapter.hmac.compare_digest", spy)
        self.hear(event({"type": "order", "id": 1}), {"X-Iom-Webhook-Secret": "guess"})
        assert compared == [(b"guess", WEBHOOK_SECRET.encode())]

    def test_without_any_secret_every_delivery_is_refused(self) -> None:
        adapter = Shop().adapter()
        assert refused(adapter.translate({}, event({"type": "order", "id": 1}))).code == "unauthenticated"
        assert adapter.capabilities == frozenset()
        assert Shop().adapter(client_secret=SIGNING).capabilities == {Capability.WEBHOOKS}

    def test_a_signature_is_demanded_once_configured(self) -> None:
        adapter = Shop().adapter(client_secret=SIGNING)
        body = event({"type": "order", "id": 1})
        assert adapter.translate(signed(body), body) == Success(("1",))
        assert refused(adapter.translate({}, body)).code == "unauthenticated"

    def test_both_proofs_must_hold_when_both_are_configured(self) -> None:
        adapter = Shop().adapter(client_secret=SIGNING, webhook_secret=WEBHOOK_SECRET)
        body = event({"type": "order", "id": 1})
        ours = {"X-Iom-Webhook-Secret": WEBHOOK_SECRET}
        assert adapter.translate(ours | signed(body), body) == Success(("1",))
        for headers in (ours, signed(body)):
            assert refused(adapter.translate(headers, body)).code == "unauthenticated"

    @pytest.mark.parametrize(
        ("change", "holds"),
        [
            ({}, True),
            ({"webhook-signature": "v1,AAAA"}, False),
            ({"webhook-signature": ""}, False),
            ({"webhook-timestamp": "yesterday"}, False),
            ({"webhook-timestamp": "9" * 400}, False),
            ({"webhook-timestamp": ""}, False),
            ({"webhook-id": "msg_2"}, False),
            ({"webhook-id": ""}, False),
        ],
    )
    def test_every_part_of_a_signature_counts(self, change: dict[str, str], holds: bool) -> None:
        headers = {name.lower(): value for name, value in signed(b"body").items()} | change
        assert is_signed(headers, b"body", SIGNING, START) == holds
        assert not is_signed(headers, b"other", SIGNING, START)

    def test_one_of_several_signatures_is_enough(self) -> None:
        headers = {name.lower(): value for name, value in signed(b"body").items()}
        headers["webhook-signature"] = "v1,AAAA " + headers["webhook-signature"]
        assert is_signed(headers, b"body", SIGNING, START)

    @pytest.mark.parametrize(("minutes", "holds"), [(4.9, True), (5.1, False), (-4.9, True), (-5.1, False)])
    def test_a_signature_is_good_for_five_minutes(self, minutes: float, holds: bool) -> None:
        headers = {name.lower(): value for name, value in signed(b"body").items()}
        assert is_signed(headers, b"body", SIGNING, START + timedelta(minutes=minutes)) == holds


class TestConnect:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({}, "store_hash"),
            ({"store_hash": "abc"}, "access_token"),
            ({"store_hash": "", "access_token": "x"}, "store_hash"),
            ({"store_hash": "a/../b", "access_token": "x"}, "store_hash"),
            ({"store_hash": "abc", "access_token": ""}, "access_token"),
            ({"store_hash": "abc", "access_token": 7}, "access_token"),
            ({"store_hash": "abc", "access_token": "x", "acess_tokn": TOKEN}, "acess_tokn"),
            ({"store_hash": "abc", "access_token": "x", "overlap": "long"}, "overlap"),
            ({"store_hash": "abc", "access_token": "x", "since": 7}, "since"),
            ({"store_hash": "abc", "access_token": "x", "page_limit": 251}, "bounds"),
            ({"store_hash": "abc", "access_token": "x", "page_limit": 0}, "bounds"),
            ({"store_hash": "abc", "access_token": "x", "webhook_secret": "é" + TOKEN}, "webhook_secret"),
            ({"store_hash": "abc", "access_token": "x", "webhook_secret": [TOKEN]}, "webhook_secret"),
            ({"store_hash": "abc", "access_token": "x", "base_url": "http://api.bigcommerce.com"}, "https"),
        ],
    )
    def test_a_bad_setting_is_named_and_its_value_is_not(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(Misconfigured, match=said) as raised:
            connect(settings)
        assert TOKEN not in str(raised.value)

    def test_settings_from_a_file_are_taken(self) -> None:
        adapter = connect(
            {
                "store_hash": "abc", "access_token": TOKEN, "system": "shop-2", "overlap": 60, "import_statuses": [11],
                "since": "2026-01-01T00:00:00+01:00",
            }
        )  # fmt: skip
        assert adapter.system == "shop-2"
        assert adapter.config.overlap == timedelta(minutes=1)
        assert adapter.config.import_statuses == {11}
        assert adapter.config.since == datetime(2025, 12, 31, 23, tzinfo=UTC)

    def test_another_system_name_is_used_throughout(self) -> None:
        shop = Shop()
        (number,) = shop.place()
        (message,) = shop.adapter(system="eu-shop").read(str(number), shop.clock())
        assert (message.system, message.id) == ("eu-shop", f"eu-shop/order/{number}/new")


class TestSecrets:
    def test_no_secret_is_in_any_repr(self) -> None:
        secrets = (TOKEN, WEBHOOK_SECRET, SIGNING)
        adapter = Shop().adapter(webhook_secret=WEBHOOK_SECRET, client_secret=SIGNING)
        shown = repr(adapter) + repr(adapter.config) + repr(vars(adapter))
        assert not any(secret in shown for secret in secrets)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 415, 423, 429, 500])
    def test_no_secret_is_in_any_error(self, status: int) -> None:
        shop = Shop()
        shop.twin.faults.plan(Fault("status", status=status, times=5))
        try:
            shop.adapter().pull("", shop.clock())
        except (Misconfigured, Unavailable, Misunderstood) as fault:
            assert TOKEN not in "".join(traceback.format_exception(fault))  # noqa: PT017 - 404 raises nothing

    def test_a_wrong_token_is_our_mistake(self) -> None:
        shop = Shop()
        with pytest.raises(Misconfigured, match="401"):
            shop.adapter(access_token="wrong").pull("", shop.clock())

    def test_another_stores_token_is_our_mistake(self) -> None:
        shop = Shop()
        with pytest.raises(Misconfigured, match="403"):
            shop.adapter(store_hash="elsewhere").pull("", shop.clock())


def test_it_works_over_real_http() -> None:
    shop = Shop()
    placed = shop.place(3)
    serving = serve(shop.twin)
    try:
        adapter = BigCommerce(BigCommerceConfig("teststore", TOKEN, base_url=serving.url), clock=shop.clock)
        assert numbers(adapter.pull("", shop.clock()).messages) == placed
        adapter.close()
    finally:
        serving.close()
