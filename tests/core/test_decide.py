"""Decisions and the loop around them: what starts what, what waits, what is refused, and who hears of errors."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from iom_core import codec, scenarios
from iom_core import events as ev
from iom_core import flow as flows
from iom_core import policies as p
from iom_core import providers as prov
from iom_core.decide import Setup
from iom_core.errors import Misconfigured, Unavailable
from iom_core.flow import FlowBuilder, FlowStatus, Step, StepType
from iom_core.mapping import IdMapping, MappingRow
from iom_core.messages import (
    ActionDone,
    ActionFailed,
    Body,
    Canceled,
    CancelRequested,
    HoldReleased,
    HoldRequested,
    JobDue,
    Message,
    NewOrder,
    Raised,
    Rejected,
    Reprocess,
    Sourced,
)
from iom_core.orchestrator import Orchestrator, fault_kind
from iom_core.order import SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.policies import Criticality
from iom_core.ports import Conflict, Pulled
from iom_core.providers import Provider
from iom_core.testing import MemoryStore, VirtualClock, World
from iom_core.values import Address, MessageId, OrderId, SourceId, System

from .examples import (
    FLEXE,
    FNO,
    NOW,
    SHOP,
    Life,
    draft,
    invoiced,
    line_status,
    picked,
    setup,
    shipped,
    status,
    step_states,
    usd,
)

# -- what starts what --------------------------------------------------------------------------------------------------


def test_an_order_runs_as_far_as_it_can_in_the_decision_that_received_it() -> None:
    life = Life(setup())
    order = life.begin(2, 1)
    assert status(order) == "Fulfillment in Process / Fulfillment Order Created"
    assert [(each.provider, each.action, each.attempt) for each in life.out] == [("fno", prov.SEND_ORDER, 1)]
    assert life.out[0].key == "BC-7/bigcommerce-fno-fno/Send order to fulfillment/1"
    assert [each.step for each in order.steps if each.ok] == [
        "Validate Order Header",
        "Validate Order Line",
        "Assign company, site and warehouse",
        "Create fulfillment orders",
    ]
    assert order.ready_to_sync
    assert all(line.ready_to_sync for line in order.lines)
    assert life.errors == []


def test_the_same_command_outcome_twice_changes_nothing() -> None:
    life = Life(setup())
    life.begin(1)
    command = life.out[0]
    done = ActionDone(command.key, "SO 1", "SO-1", (("1", "LOT-1"),))
    once = life.tell(done).order
    assert once.external(FNO) == "SO-1"
    assert life.tell(done).order is once
    assert life.tell(ActionFailed(command.key, "unavailable", "late")).order is once
    assert life.tell(ActionDone("no such command")).order is once


def test_an_order_we_have_already_is_not_received_again() -> None:
    life = Life(setup())
    order = life.begin(1)
    assert life.tell(NewOrder(draft(5)), SHOP).order is order


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"ship_to": attrs.evolve(draft(1).ship_to, country="")}, "ship-to address has no country"),
        ({"ship_to": attrs.evolve(draft(1).ship_to, name="")}, "ship-to address has no name"),
    ],
)
def test_an_order_with_a_bad_header_is_held_and_listed_with_the_step(changes: dict[str, Any], what: str) -> None:
    life = Life(setup())
    order = life.tell(NewOrder(attrs.evolve(draft(1), **changes)), SHOP).order
    assert status(order) == "On Hold / Validation Failed"
    assert [what in each and each.startswith("orchestration step") for each in life.errors] == [True]
    assert step_states(order) == {"Validate Order Header": "failed"}
    assert life.out == []


def with_refund(*totals: str) -> NewOrder:
    good = draft(*(1 for _ in totals))
    lines = tuple(attrs.evolve(line, total=usd(total)) for line, total in zip(good.lines, totals))
    return NewOrder(attrs.evolve(good, lines=lines, total=sum((line.total for line in lines), usd(5))))


@pytest.mark.parametrize("totals", [("-1.00",), ("-1.00", "-2.00"), ("-1.00", "10.00")])
def test_an_order_with_a_bad_line_is_held_once_whether_some_lines_are_bad_or_all(totals: tuple[str, ...]) -> None:
    life = Life(setup())
    order = life.tell(with_refund(*totals), SHOP).order
    assert status(order) == "On Hold / Validation Failed"
    assert [each.event for each in order.timeline].count(ev.LINES_INVALID) == 1
    assert line_status(order) == "Sales Order Product on Hold / Validation Failed"
    assert len(life.errors) == 1


# -- policies in flows -------------------------------------------------------------------------------------------------


def checked(policy: p.Policy) -> Life:
    life = Life(setup(FlowBuilder("f").validate_header(policy.name).validate_lines().build(), policy))
    life.begin(2)
    return life


def test_a_critical_policy_that_is_not_satisfied_stops_the_flow() -> None:
    life = checked(p.check("large", ev.ORDER, p.at_least("total", 1000)))
    assert status(life.now) == "On Hold / Validation Failed"
    assert life.errors == ["policy: Validate Order Header: policy large is not satisfied: rule 'large 1' does not hold"]


def test_an_information_policy_is_evaluated_and_the_flow_goes_on() -> None:
    life = checked(p.check("large", ev.ORDER, p.at_least("total", 1000), criticality=Criticality.INFORMATION))
    assert status(life.now) == "In Progress / Validated"
    assert life.errors == []


@pytest.mark.parametrize("criticality", list(Criticality))
def test_a_policy_that_can_not_be_evaluated_stops_the_flow_whatever_its_criticality(criticality: Criticality) -> None:
    life = checked(p.check("odd", ev.ORDER, p.equals("colour", "red"), criticality=criticality))
    assert status(life.now) == "On Hold / Validation Failed"
    assert life.errors == ["policy: Validate Order Header: policy odd: order has no field 'colour'"]


def test_a_policy_that_fails_half_way_sets_nothing() -> None:
    first = p.assign("first", ev.LINE, (p.equals("product", "P1"), {"site": "9"}))
    life = Life(setup(FlowBuilder("f").validate_header().assign("Assign", "first").build(), first))
    order = life.begin(1, 1)
    assert [line.site for line in order.lines] == [None, None]
    assert "policy first is not satisfied for order line 2: no rule applied" in life.errors[0]
    assert status(order) == "On Hold / Assignment Failed"


def test_a_step_whose_filter_does_not_hold_is_skipped_and_the_flow_goes_on() -> None:
    large = p.filter_policy("large", p.at_least("total", 1000))
    note = p.assign("note", ev.ORDER, (None, {"note": "seen"}))
    made = (
        FlowBuilder("f")
        .validate_header()
        .step(Step("note", StepType.CUSTOM, filter="large", policies=("note",)))
        .validate_lines()
        .build()
    )
    life = Life(setup(made, large, note))
    order = life.begin(1)
    assert step_states(order) == {"Validate Order Header": "done", "note": "skipped", "Validate Order Line": "done"}
    assert order.note == ""


# -- conditions and splitters ------------------------------------------------------------------------------------------

TELL: dict[str, Any] = {"provider": "bigcommerce", "action": prov.UPDATE_SHIPPED, "succeeded": ev.STATUS_TOLD}
SMALL = p.filter_policy("small", p.Condition("total", p.Operator.LESS, 20))
LARGE = p.filter_policy("large", p.at_least("total", 100))


ACTION: dict[str, Any] = {"provider": "bigcommerce", "action": prov.UPDATE_SHIPPED}


def splitting() -> flows.Flow:
    return (
        FlowBuilder("split")
        .validate_header()
        .splitter("by size")
        .step(Step("small", StepType.CUSTOM, after=("by size",), branch="small", filter="small", **TELL))
        .step(Step("large", StepType.CUSTOM, after=("by size",), branch="large", filter="large", **TELL))
        .merge("together", "small", "large", splitter=True)
        .step(Step("last", StepType.CUSTOM, **TELL))
        .build()
    )


@pytest.mark.parametrize(("quantity", "branch"), [(1, "small"), (20, "large")])
def test_a_splitter_sends_the_order_down_the_branch_whose_filter_holds(quantity: int, branch: str) -> None:
    life = Life(setup(splitting(), SMALL, LARGE))
    life.begin(quantity)
    assert [each.step for each in life.out] == [branch]
    order = life.succeed()
    other = {"small": "large", "large": "small"}[branch]
    assert step_states(order)[other] == "not taken"
    assert [each.step for each in life.out] == ["last"]


def test_an_order_that_no_branch_takes_is_visible_and_not_silently_stuck() -> None:
    life = Life(setup(splitting(), SMALL, LARGE))
    life.begin(5)
    assert life.out == []
    assert life.errors == ["orchestration step: no branch of splitter 'by size' takes the order"]


@pytest.mark.parametrize(("fails", "path"), [(False, "good"), (True, "bad")])
def test_a_condition_asks_whether_the_step_before_succeeded(fails: bool, path: str) -> None:
    made = (
        FlowBuilder("ask")
        .validate_header()
        .step(Step("try", StepType.CUSTOM, **TELL))
        .condition("did it?")
        .step(Step("good", StepType.CUSTOM, after=("did it?",), branch="yes", **TELL))
        .step(Step("bad", StepType.CUSTOM, after=("did it?",), branch="no", **TELL))
        .merge("together", "good", "bad")
        .step(Step("last", StepType.CUSTOM, **TELL))
        .build()
    )
    life = Life(setup(made))
    life.begin(1)
    command = life.out.pop()
    life.tell(ActionFailed(command.key, "refused", "no") if fails else ActionDone(command.key), SHOP)
    assert [each.step for each in life.out] == [path]
    life.succeed()
    assert [each.step for each in life.out] == ["last"]


# -- errors, reprocessing, resuming ------------------------------------------------------------------------------------


def test_reprocessing_restarts_the_failed_step_under_the_same_key_and_a_new_attempt() -> None:
    life = Life(setup())
    life.begin(1)
    command = life.out.pop()
    life.tell(ActionFailed(command.key, "refused", "credit limit", "$.customer"))
    assert status(life.now) == "On Hold / Sending Failed"
    assert life.errors == ["provider action: Send order to fulfillment: refused: credit limit"]

    life.tell(Reprocess())
    (again,) = life.out
    assert (again.key, again.attempt) == (command.key, 2)
    assert status(life.succeed()) == "Fulfillment in Process / Sent To Fulfillment"
    runs = [each.run for each in life.now.steps if each.step == "Send order to fulfillment"]
    assert runs == [f"{command.key}!1", f"{command.key}!2"]


def test_nothing_that_failed_means_nothing_to_reprocess() -> None:
    life = Life(setup())
    life.begin(1)
    for step in ("", "Send order to fulfillment", "no such step"):
        refused = life.try_telling(Reprocess(step))
        assert failed(refused)
        assert refused.failure().code == "nothing-failed"


def two_sends() -> Life:
    """Two fulfillment orders on their way to Flexe, each with a command of its own."""
    source = p.assign("source", ev.LINE, (p.equals("product", "P1"), {"source": "A"}), (None, {"source": "B"}))
    made = (
        FlowBuilder("per")
        .validate_header()
        .validate_lines()
        .step(Step("Assign", StepType.ASSIGN_SOURCE, policies=("source",)))
        .action("Create", StepType.CUSTOM, "iom", prov.CREATE_FULFILLMENT, parameters=(("fulfilled by", "flexe"),))
        .action("Send", StepType.SEND, "flexe", prov.SEND_FULFILLMENT_ORDER, per=ev.FULFILLMENT_ORDER)
        .step(Step("last", StepType.CUSTOM, **TELL))
        .build()
    )
    life = Life(setup(made, source))
    life.begin(1, 1)
    assert [each.record for each in life.out] == ["BC-7-F1", "BC-7-F2"]
    assert len({each.key for each in life.out}) == 2
    return life


def test_one_of_two_fulfillment_orders_fails_and_only_that_one_is_sent_again() -> None:
    life = two_sends()
    first, second = life.out
    life.out.clear()
    life.tell(ActionDone(second.key), FLEXE)
    assert life.out == [], "the next step waits for both"
    life.tell(ActionFailed(first.key, "refused", "closed"), FLEXE)
    assert step_states(life.now)["Send/BC-7-F1"] == "failed"
    assert life.out == []

    life.tell(Reprocess())
    assert [(each.key, each.record, each.attempt) for each in life.out] == [(first.key, "BC-7-F1", 2)]
    life.succeed()
    assert [each.step for each in life.out] == ["last"]
    assert [fo.status.reason for fo in life.now.fulfillment_orders] == [ev.SENT_TO_FULFILLMENT] * 2


def test_reprocessing_the_step_that_failed_last_sends_every_record_that_failed() -> None:
    life = two_sends()
    first, second = life.out
    life.out.clear()
    for each in (first, second):
        life.tell(ActionFailed(each.key, "unavailable", "down"), FLEXE)
    assert status(life.now) == "On Hold / Sending In Doubt"
    life.tell(Reprocess())
    assert {each.key for each in life.out} == {first.key, second.key}


def test_a_failed_step_is_restarted_by_its_resume_event() -> None:
    made = FlowBuilder("resume").step(
        Step("try", StepType.CUSTOM, on=(ev.NEW_ORDER,), resume_on="shop is open", failed="told nobody", **TELL)
    )
    life = Life(setup(made.build()))
    life.begin(1)
    command = life.out.pop()
    life.tell(ActionFailed(command.key, "refused", "closed"), SHOP)
    life.tell(Raised("something else"))
    assert life.out == []
    life.tell(Raised("shop is open"))
    assert [(each.key, each.attempt) for each in life.out] == [(command.key, 2)]


def test_an_action_that_is_unavailable_leaves_the_order_in_doubt_and_not_cancelable() -> None:
    life = Life(setup())
    life.begin(1)
    command = life.out.pop()
    life.tell(ActionFailed(command.key, "unavailable", "no answer"))
    assert status(life.now) == "On Hold / Sending In Doubt"
    refused = life.try_telling(CancelRequested())
    assert failed(refused)
    assert refused.failure().code == "in-fulfillment"


# -- waiting, holding, pausing -----------------------------------------------------------------------------------------


def test_a_message_that_comes_too_early_is_parked_and_applied_as_soon_as_it_is_legal() -> None:
    life = Life(setup())
    life.begin(2)
    life.tell(invoiced("i", "25.00", ("1", 2)))
    life.tell(shipped("s", ("1", 2)))
    assert [each.id for each in life.now.parked] == ["m2", "m3"]
    life.succeed()
    assert life.now.parked == ()
    assert status(life.now) == "Completed / Fulfilled"
    assert life.errors == []


def test_a_parked_message_that_never_becomes_legal_is_a_visible_error_in_the_end() -> None:
    life = Life(setup(scenarios.S6))
    life.begin(2)
    life.tell(shipped("s", ("1", 2)), name="early")
    assert [each.id for each in life.now.parked] == ["early"]
    life.tell(shipped("s", ("1", 2)), name="early")
    assert len(life.now.parked) == 1
    decision = life.tell(CancelRequested())
    assert decision.order.parked == ()
    (error,) = decision.errors
    assert (error.kind, error.message_id, error.category) == ("provider inbound", "early", "not-in-fulfillment")
    assert codec.from_json(error.payload, Message).id == "early"


def test_a_fact_about_an_order_that_has_ended_is_an_error_at_once() -> None:
    life = Life(setup(scenarios.S6))
    life.begin(1)
    life.tell(CancelRequested())
    life.tell(shipped("s", ("1", 1)))
    assert life.now.parked == ()
    assert [each.startswith("provider inbound") for each in life.errors] == [True]


def test_a_fact_that_can_never_be_right_is_an_error_and_the_order_goes_on() -> None:
    life = Life(setup())
    life.begin(2)
    life.succeed()
    before = life.now
    life.tell(shipped("s", ("1", 3)))
    assert life.now is before
    assert life.errors == ["provider inbound: 3 of line 1 can't be shipped: that is not open"]


def test_a_held_order_takes_facts_in_but_starts_no_step_until_the_hold_is_released() -> None:
    life = Life(setup(scenarios.S6))
    life.begin(1)
    life.tell(HoldRequested("credit hold", "limit"))
    order = life.succeed(ActionDone("", sourced=(Sourced("1", SourceId("Seattle"), Decimal(1), "1", "11"),)))
    assert len(order.fulfillment_orders) == 1
    assert life.out == []
    life.tell(HoldReleased("credit hold"))
    assert [each.action for each in life.out] == [prov.SEND_LINES]


def test_a_paused_flow_takes_everything_in_and_catches_up_when_resumed() -> None:
    life = Life(setup(status=FlowStatus.PAUSED))
    life.begin(2)
    assert (life.out, life.now.steps) == ([], ())
    life.setup = setup()
    life.tell(JobDue("resume", ""))
    assert [each.action for each in life.out] == [prov.SEND_ORDER]
    life.setup = setup(status=FlowStatus.PAUSED)
    life.succeed()
    life.tell(picked(("1", 2)))
    life.tell(shipped("s", ("1", 2)))
    assert life.out == []
    life.setup = setup()
    life.tell(JobDue("resume", ""))
    assert [each.action for each in life.out] == [prov.UPDATE_SHIPPED]


def test_a_running_order_keeps_the_flow_version_it_started_with() -> None:
    first = attrs.evolve(FlowBuilder("f").validate_header().validate_lines().build(), status=FlowStatus.PUBLISHED)
    second = attrs.evolve(FlowBuilder("f").validate_header().build(), version=2, status=FlowStatus.PUBLISHED)
    old = Life(Setup((first,), scenarios.CATALOG))
    old.begin(1)
    both = Setup((first, second), scenarios.CATALOG)
    old.setup = both
    old.tell(Raised("anything"))
    assert [(each.flow, each.version) for each in old.now.flows] == [("f", 1)]
    new = Life(both)
    new.begin(1)
    assert [(each.flow, each.version) for each in new.now.flows] == [("f", 2)], "one version takes an order, the newest"
    assert len(new.now.steps) == 1


def test_several_flows_are_kept_apart_by_their_filters() -> None:
    large = attrs.evolve(FlowBuilder("large", filter="large").validate_header().build(), status=FlowStatus.PUBLISHED)
    small = attrs.evolve(FlowBuilder("small", filter="small").validate_header().build(), status=FlowStatus.PUBLISHED)
    catalog = attrs.evolve(scenarios.CATALOG, policies={"large": LARGE, "small": SMALL})
    for quantity, expected in ((1, ["small"]), (20, ["large"]), (5, [])):
        life = Life(Setup((large, small), catalog))
        life.begin(quantity)
        assert [each.flow for each in life.now.flows] == expected
        assert life.errors == ([] if expected else ["orchestration step: no published flow takes this order"])


def test_a_canceled_order_starts_no_step_but_those_that_wait_for_the_cancellation() -> None:
    made = (
        FlowBuilder("cancel")
        .step(Step("start", StepType.CUSTOM, on=(ev.NEW_ORDER,), **TELL))
        .step(Step("next", StepType.CUSTOM, **TELL))
        .step(Step("goodbye", StepType.CUSTOM, after=("start",), on=(ev.ORDER_CANCELED,), **TELL))
        .build()
    )
    life = Life(setup(made))
    life.begin(1)
    life.tell(CancelRequested())
    life.succeed()
    assert [each.step for each in life.out] == ["goodbye"]


def test_a_request_that_is_not_legal_is_refused_and_leaves_no_trace() -> None:
    life = Life(setup())
    before = life.begin(1)
    for body in (CancelRequested(), CancelRequested(("9",)), HoldReleased("none"), Reprocess(), HoldRequested("x")):
        assert failed(life.try_telling(body))
        assert life.order is before


def test_a_provider_that_fulfills_may_cancel_what_a_channel_may_not() -> None:
    life = Life(setup())
    life.begin(2)
    life.succeed()
    life.tell(Canceled(), SHOP)
    assert life.errors[-1].startswith("provider inbound: line 1 is in fulfillment")
    life.tell(Canceled(), FNO)
    assert status(life.now) == "Canceled / Canceled"


def test_an_invoice_that_does_not_reconcile_completes_the_order_and_is_listed() -> None:
    life = Life(setup())
    life.begin(2)
    life.succeed()
    life.tell(shipped("s", ("1", 2)))
    life.tell(invoiced("i", "24.99", ("1", 2)))
    assert status(life.now) == "Completed / Fulfilled"
    assert life.errors == ["provider inbound: invoiced 24.99 USD, ordered 25.00 USD"]


# -- the law -----------------------------------------------------------------------------------------------------------

S1_LIFE: list[tuple[str, Body]] = [
    ("picked 1", picked(("1", 1))),
    ("picked 2", picked(("1", 3), ("2", 1))),
    ("shipped a", shipped("a", ("1", 2))),
    ("shipped b", shipped("b", ("1", 1), ("2", 1))),
    ("invoiced x", invoiced("x", "20.00", ("1", 2))),
    ("invoiced y", invoiced("y", "25.00", ("1", 1), ("2", 1))),
]


def lived(sequence: list[int], answer_after: int) -> SalesOrder:
    """Tell an S1 order its life in the given sequence; the ERP's answer comes after some of it."""
    life = Life(setup())
    life.begin(3, 1)
    send = life.out.pop(0)
    for position, index in enumerate([*sequence, -1]):
        if position == min(answer_after, len(sequence)):
            life.tell(ActionDone(send.key, "", "SO-1"), FNO)
        if index >= 0:
            name, body = S1_LIFE[index]
            life.tell(body, FNO, name)
    while life.out:
        life.succeed()
    assert life.errors == []
    return life.now


PLAIN = lived(list(range(len(S1_LIFE))), 0)


@given(
    once=st.permutations(range(len(S1_LIFE))),
    again=st.permutations(range(len(S1_LIFE))),
    answer_after=st.integers(0, 2 * len(S1_LIFE)),
)
def test_any_order_and_any_repetition_of_the_messages_leads_to_the_same_outcome(
    once: list[int], again: list[int], answer_after: int
) -> None:
    order = lived([*once, *again], answer_after)
    assert status(order) == status(PLAIN) == "Completed / Fulfilled"
    assert [(line.status, line.invoiced, line.canceled) for line in order.lines] == [
        (line.status, line.invoiced, line.canceled) for line in PLAIN.lines
    ]
    assert [(fo.status, fo.lines) for fo in order.fulfillment_orders] == [
        (fo.status, fo.lines) for fo in PLAIN.fulfillment_orders
    ]
    assert {each.id: each.lines for each in order.shipments} == {each.id: each.lines for each in PLAIN.shipments}
    assert {each.number: (each.total, each.lines) for each in order.invoices} == {
        each.number: (each.total, each.lines) for each in PLAIN.invoices
    }
    assert order.parked == ()
    assert order.invoiced_total == order.total


# -- the loop ----------------------------------------------------------------------------------------------------------


class Here:
    """An orchestrator over a memory store."""

    def __init__(self, made: Setup | None = None, **providers: Provider) -> None:
        self.store = MemoryStore()
        self.clock = VirtualClock(NOW)
        self.woken = 0
        named = {System(name): provider for name, provider in providers.items()}
        self.orchestrator = Orchestrator(self.store, made or setup(), named, self.clock, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def message(self, name: str, body: Body, system: System = SHOP, external_id: str = "7") -> Message:
        return Message(MessageId(name), system, body, NOW, external_id)

    def handle(self, name: str, body: Body, system: System = SHOP, external_id: str = "7") -> str:
        return self.orchestrator.handle(self.message(name, body, system, external_id)).unwrap().outcome

    @property
    def order(self) -> SalesOrder:
        (order,) = self.store.orders()
        return order


def test_a_message_is_taken_in_once() -> None:
    here = Here()
    assert here.handle("m1", NewOrder(draft(1))) == "applied"
    version = here.order.version
    assert here.handle("m1", NewOrder(draft(1))) == "duplicate"
    assert here.handle("m2", NewOrder(draft(1))) == "applied"
    assert here.order.version == version
    assert here.woken == 1
    (due,) = here.store.due(NOW, 10, NOW + timedelta(minutes=5))
    assert due.command.action == prov.SEND_ORDER
    assert here.store.due(NOW, 10, NOW + timedelta(minutes=5)) == (), "it is leased"


def test_a_command_whose_runner_died_or_that_was_postponed_comes_again() -> None:
    here = Here()
    here.handle("m1", NewOrder(draft(1)))
    assert here.store.next_due() is not None
    (due,) = here.store.due(NOW, 10, NOW + timedelta(minutes=5))
    assert here.store.next_due() == NOW + timedelta(minutes=5)
    (again,) = here.store.due(NOW + timedelta(minutes=5), 10, NOW + timedelta(minutes=10))
    assert (again.attempt, again.first_at) == (2, NOW)
    here.store.postpone(due.command.key, NOW + timedelta(hours=1), "down")
    assert here.store.next_due() == NOW + timedelta(hours=1)
    assert here.store.due(NOW + timedelta(minutes=59), 10, NOW) == ()


def test_an_order_that_can_not_be_one_is_listed_with_its_message_and_stops_nobody() -> None:
    here = Here()
    bad = attrs.evolve(draft(1), total=usd("1.00"))
    assert here.handle("bad", NewOrder(bad)) == "rejected"
    (error,) = here.store.errors("provider inbound")
    assert (error.where, error.category, error.message_id) == ("$.total", "total", "bad")
    assert codec.from_json(error.payload, Message).body == NewOrder(bad)
    assert here.handle("good", NewOrder(draft(1, number="8")), external_id="8") == "applied"
    assert here.store.deactivate_error(error.id)
    assert not here.store.deactivate_error(error.id)
    assert here.store.errors() == ()


def test_an_unmapped_product_names_provider_table_field_and_value() -> None:
    mapping = IdMapping((MappingRow(SHOP, "products", "sku", "X1", "P1"),))
    here = Here(attrs.evolve(setup(), mapping=mapping))
    here.handle("m1", NewOrder(draft(1)))
    (error,) = here.store.errors("provider inbound")
    assert error.what == "bigcommerce has no mapping in table 'products' for sku = 'P1'"
    assert error.where == "$.lines[0].product"


def test_a_message_about_an_unknown_order_waits_for_its_number() -> None:
    here = Here()
    assert here.handle("early", picked(("1", 1)), FNO, "SO-1") == "waiting"
    here.handle("m1", NewOrder(draft(1)))
    assert len(here.store.still_waiting()) == 1
    (due,) = here.store.due(NOW, 1, NOW)
    here.orchestrator.settle(due.command, ActionDone(due.command.key, "", "SO-1", (("1", "1"),)), NOW)
    assert here.store.still_waiting() == ()
    assert status(here.order) == "Fulfillment in Process / Picked"
    assert here.store.next_due() is None


def test_a_request_for_an_unknown_order_is_refused() -> None:
    here = Here()
    message = attrs.evolve(here.message("m", CancelRequested()), order_id=OrderId("BC-404"))
    refused = here.orchestrator.handle(message)
    assert failed(refused)
    assert refused.failure().where == "$.order_id"
    assert here.orchestrator.handle(message) == refused, "a refused request leaves no trace"


def test_a_redelivered_order_is_recognized_even_if_its_message_names_it_otherwise() -> None:
    here = Here()
    assert here.handle("m1", NewOrder(draft(1)), external_id="") == "applied"
    assert here.handle("m2", NewOrder(draft(1)), external_id="") == "applied"
    assert here.order.external(SHOP) == "7"


def test_a_conflict_is_decided_again_and_an_endless_one_is_unavailable() -> None:
    class Contended(MemoryStore):
        conflicts = 3

        def begin(self) -> Any:
            if self.conflicts > 0:
                self.conflicts -= 1
                raise Conflict
            return super().begin()

    for conflicts, works in ((3, True), (10**6, False)):
        here = Here()
        store = Contended()
        store.conflicts = conflicts
        here.orchestrator.store = store
        if works:
            assert here.handle("m1", NewOrder(draft(1))) == "applied"
        else:
            with pytest.raises(Unavailable, match="changed under 20 attempts"):
                here.handle("m1", NewOrder(draft(1)))


def test_the_checkpoint_moves_behind_its_messages_and_a_bad_message_stops_nobody() -> None:
    asked: list[str] = []
    good = Message(MessageId("m1"), SHOP, NewOrder(draft(1)), NOW, "7")
    rejected = Rejected(MessageId("r1"), SHOP, "no number", "$.products[0].quantity", "6", "x" * 9_999)

    def pull(checkpoint: str, now: Any) -> Pulled:
        asked.append(checkpoint)
        return {"": Pulled((rejected, good), "1", more=True), "1": Pulled((good,), "2")}[checkpoint]

    here = Here(bigcommerce=Provider(SHOP, pull=pull))
    assert here.orchestrator.pull(SHOP) == 3
    assert asked == ["", "1"]
    with here.store.begin() as unit:
        assert unit.checkpoint(SHOP) == "2"
    assert len(list(here.store.orders())) == 1
    (error,) = here.store.errors()
    assert (error.where, error.category, len(error.payload)) == ("$.products[0].quantity", "malformed", 4_000)
    with pytest.raises(Misconfigured, match="no puller"):
        Here(bigcommerce=Provider(SHOP)).orchestrator.pull(SHOP)


def test_a_message_that_breaks_us_is_set_aside_with_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("iom_core.orchestrator.decide", broken)
        here.orchestrator.take(Pulled((here.message("m1", NewOrder(draft(1))),), ""))
    (error,) = here.store.errors()
    assert "ZeroDivisionError: a bug" in error.what
    assert codec.from_json(error.payload, Message).body == NewOrder(draft(1))


def test_a_webhook_is_authenticated_and_what_it_hints_at_is_read() -> None:
    here = Here()

    def translate(headers: Any, body: bytes) -> Result[tuple[str, ...], Refused]:
        if headers.get("signature") != "good":
            return Failure(Refused("forged", "the signature does not match", "$.signature", SHOP))
        return Success((body.decode(),))

    def read(external_id: str, now: Any) -> tuple[Message, ...]:
        return (here.message(f"read {external_id}", NewOrder(draft(1, number=external_id)), SHOP, external_id),)

    shop = Provider(SHOP, translate=translate, read=read)
    here.orchestrator.providers = {SHOP: shop}
    assert here.orchestrator.webhook(SHOP, {"signature": "good"}, b"7").unwrap() == ("7",)
    assert here.orchestrator.follow(SHOP, "7") == 1
    assert here.order.id == "BC-7"
    assert failed(here.orchestrator.webhook(SHOP, {"signature": "secret"}, b"7"))
    (error,) = here.store.errors()
    assert (error.where, error.system) == ("$.signature", "bigcommerce")
    assert "secret" not in repr(error)
    assert failed(here.orchestrator.webhook(System("sap"), {}, b""))


def test_performing_without_a_connection_is_our_fault() -> None:
    here = Here()
    here.handle("m1", NewOrder(draft(1)))
    (due,) = here.store.due(NOW, 1, NOW)
    with pytest.raises(Misconfigured, match="no connection runs"):
        here.orchestrator.perform(due.command, here.order)
    assert fault_kind(Misconfigured("x", "y")) == "misconfigured"


def test_four_error_lists_are_kept_apart() -> None:
    odd = p.check("odd", ev.ORDER, p.equals("colour", "red"))
    here = Here(setup(FlowBuilder("f").validate_header().action("tell", StepType.CUSTOM, **ACTION).build()))
    here.handle("m1", NewOrder(draft(1)))
    (due,) = here.store.due(NOW, 1, NOW)
    here.orchestrator.settle(due.command, ActionFailed(due.command.key, "refused", "no"), NOW)
    here.handle("m2", invoiced("i", "1.00", ("1", 9)))
    here.orchestrator.reject(Rejected(MessageId("r"), SHOP, "unreadable", "$"))
    here.handle("m3", NewOrder(attrs.evolve(draft(1, number="8"), ship_to=Address())), external_id="8")
    broken = setup(FlowBuilder("g").validate_header("odd").build(), odd)
    here.orchestrator.setup = broken
    here.handle("m4", NewOrder(draft(1, number="9")), external_id="9")

    kinds = ("provider inbound", "provider action", "orchestration step", "policy")
    listed = {kind: [each.what for each in here.store.errors(kind)] for kind in kinds}
    assert listed == {
        "provider inbound": ["9 of line 1 can't be invoiced: that is not open", "unreadable"],
        "provider action": ["tell: refused: no"],
        "orchestration step": ["Validate Order Header: the ship-to address has no name"],
        "policy": ["Validate Order Header: policy odd: order has no field 'colour'"],
    }
    assert len(here.store.errors()) == 5


def test_a_flow_that_can_not_be_published_is_refused_by_the_orchestrator() -> None:
    here = World(scenarios.BIGCOMMERCE_FNO_FNO)
    wrong = FlowBuilder("wrong").validate_header("nobody").build()
    refused = here.orchestrator.publish(wrong)
    assert failed(refused)
    assert [each.where for each in refused.failure()] == ["$.steps[0].policies[0]"]


def test_a_paused_flow_keeps_what_arrives_and_resuming_takes_up_every_order() -> None:
    here = World(scenarios.BIGCOMMERCE_FNO_FNO)
    name = here.scenario.flow.name
    first = here.receive({"CHAIR": 1})
    here.pull()
    here.orchestrator.set_status(name, FlowStatus.PAUSED)
    second = here.receive({"CHAIR": 2})
    here.run_until_quiet()
    assert here.order(first).status.state != ev.COMPLETED or not here.channel.told
    assert here.order(second).steps == ()

    here.orchestrator.set_status(name, FlowStatus.PUBLISHED)
    here.run_until_quiet()
    assert {here.order(each).status.state for each in (first, second)} == {ev.COMPLETED}
    assert here.channel.told == {"101": ["shipped", "completed"], "102": ["shipped", "completed"]}


def test_a_republished_flow_takes_new_orders_and_old_ones_keep_theirs() -> None:
    here = World(scenarios.BIGCOMMERCE_FNO_FNO)
    old = here.receive({"CHAIR": 1})
    here.pull()
    published = here.orchestrator.publish(here.scenario.flow).unwrap()
    assert published.version == 2
    new = here.receive({"CHAIR": 1})
    here.run_until_quiet()
    assert [here.order(each).flows[0].version for each in (old, new)] == [1, 2]
    assert {here.order(each).status.state for each in (old, new)} == {ev.COMPLETED}
