"""Flows: publishing says precisely what is wrong; steps run when their way is open and their event was raised."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from iom_core import codec, flow, scenarios
from iom_core import events as ev
from iom_core import policies as p
from iom_core import providers as prov
from iom_core.flow import (
    ActionDefinition,
    Catalog,
    Effect,
    Flow,
    FlowBuilder,
    ProviderDefinition,
    Step,
    StepType,
    find,
    mark,
    next_steps,
    saw,
    start,
    state_of,
)
from iom_core.order import FlowRun, StepRun
from iom_core.policies import Policy

YES = p.filter_policy("yes", p.equals("currency", "USD"))
SET = p.assign("set", ev.ORDER, (None, {"note": "seen"}))
CATALOG = Catalog(
    {
        **scenarios.CATALOG.providers,
        "asleep": ProviderDefinition("asleep", {"Wake": ActionDefinition("Wake", Effect.TELL)}, active=False),
    },
    {
        **scenarios.CATALOG.policies,
        "yes": YES,
        "set": SET,
        "draft": attrs.evolve(YES, name="draft", published=False),
        "wrong": p.filter_policy("wrong", p.equals("colour", "red")),
    },
)


def tell(name: str, **more: Any) -> Step:
    return Step(name, StepType.CUSTOM, provider="bigcommerce", action=prov.UPDATE_SHIPPED, **more)


FIRST = Step("Validate", StepType.VALIDATE_HEADER, on=(ev.NEW_ORDER,))


@pytest.mark.parametrize(
    ("steps", "code", "where"),
    [
        ((), "no-steps", "$.steps"),
        ((FIRST, tell("", after=("Validate",))), "step-name", "$.steps[1].name"),
        ((FIRST, tell("Validate", after=("Validate",))), "step-name", "$.steps[1].name"),
        ((FIRST, tell("b", after=("nobody",))), "unknown-step", "$.steps[1].after"),
        ((FIRST, tell("b", after=("c",)), tell("c", after=("Validate",))), "order", "$.steps[1].after"),
        ((FIRST, tell("b")), "no-way", "$.steps[1].after"),
        ((FIRST, tell("b", after=("Validate",), branch="yes")), "branch", "$.steps[1].branch"),
        (
            (FIRST, Step("ok?", StepType.CONDITION, after=("Validate",)), tell("b", after=("ok?",), branch="maybe")),
            "branch",
            "$.steps[2].branch",
        ),
        (
            (FIRST, Step("s", StepType.SPLITTER, after=("Validate",)), tell("b", after=("s",), filter="yes")),
            "branch",
            "$.steps[2].branch",
        ),
        (
            (FIRST, Step("s", StepType.SPLITTER, after=("Validate",)), tell("b", after=("s",), branch="x")),
            "branch-filter",
            "$.steps[2].filter",
        ),
        (
            (
                FIRST,
                tell("b", after=("Validate",)),
                Step("ok?", StepType.CONDITION, after=("Validate", "b")),
            ),
            "condition",
            "$.steps[2].after",
        ),
        (
            (FIRST, Step("s", StepType.SPLITTER, after=("Validate",), policies=("set",))),
            "control",
            "$.steps[1]",
        ),
        ((FIRST, Step("send", StepType.SEND, after=("Validate",))), "no-action", "$.steps[1].action"),
        ((FIRST, Step("do", StepType.CUSTOM, after=("Validate",))), "nothing-to-do", "$.steps[1]"),
        (
            (FIRST, Step("b", StepType.CUSTOM, after=("Validate",), provider="nobody", action="x")),
            "unknown-provider",
            "$.steps[1].provider",
        ),
        (
            (FIRST, Step("b", StepType.CUSTOM, after=("Validate",), provider="asleep", action="Wake")),
            "inactive-provider",
            "$.steps[1].provider",
        ),
        (
            (FIRST, Step("b", StepType.CUSTOM, after=("Validate",), provider="flexe", action="fly")),
            "unknown-action",
            "$.steps[1].action",
        ),
        ((FIRST, tell("b", after=("Validate",), per="shipment")), "per", "$.steps[1].per"),
        ((FIRST, tell("b", after=("Validate",), filter="nope")), "unknown-policy", "$.steps[1].filter"),
        ((FIRST, tell("b", after=("Validate",), filter="set")), "policy-kind", "$.steps[1].filter"),
        ((FIRST, tell("b", after=("Validate",), filter="draft")), "unpublished-policy", "$.steps[1].filter"),
        ((FIRST, tell("b", after=("Validate",), filter="wrong")), "policy", "$.steps[1].filter"),
        ((FIRST, tell("b", after=("Validate",), policies=("set", "yes"))), "policy-kind", "$.steps[1].policies[1]"),
        (
            (FIRST, tell("b", after=("Validate",), on=(ev.HEADER_VALID, "never raised"))),
            "unraised-event",
            "$.steps[1].on[1]",
        ),
        ((FIRST, tell("b", after=("Validate",), each_time=True)), "each-time", "$.steps[1].each_time"),
        (
            (FIRST, Step("m", StepType.SPLITTER_MERGE, after=("Validate",))),
            "merge",
            "$.steps[1].after",
        ),
        (
            (
                FIRST,
                Step("ok?", StepType.CONDITION, after=("Validate",)),
                tell("y", after=("ok?",), branch="yes"),
                tell("n", after=("ok?",), branch="no"),
                Step("m", StepType.CONDITION_MERGE, after=("y",)),
            ),
            "merge",
            "$.steps[4].after",
        ),
    ],
)
def test_publishing_names_each_kind_of_problem_and_its_place(steps: tuple[Step, ...], code: str, where: str) -> None:
    assert [(each.code, each.where) for each in flow.problems(Flow("f", steps), CATALOG)] == [(code, where)]


def test_a_flow_without_a_name_or_with_a_bad_filter_is_not_published() -> None:
    found = flow.problems(Flow("", (FIRST,), filter="draft"), CATALOG)
    assert [each.where for each in found] == ["$.name", "$.filter"]


def splitting() -> Flow:
    """A splitter with two branches that merge again, then a last step."""
    return (
        FlowBuilder("split")
        .validate_header()
        .splitter("by kind")
        .step(tell("a1", after=("by kind",), branch="a", filter="yes"))
        .step(tell("a2", after=("a1",)))
        .step(tell("b1", after=("by kind",), branch="b", filter="yes"))
        .merge("together", "a2", "b1", splitter=True)
        .step(tell("last"))
        .build()
    )


def asking() -> Flow:
    """A condition on a step's success with both paths, merged again."""
    return (
        FlowBuilder("ask")
        .validate_header()
        .step(tell("try"))
        .condition("did it?")
        .step(tell("good", after=("did it?",), branch="yes"))
        .step(tell("bad", after=("did it?",), branch="no"))
        .merge("together", "good", "bad")
        .step(tell("last"))
        .build()
    )


def test_both_elements_can_be_published_built_and_written() -> None:
    for made in (splitting(), asking(), *(each.flow for each in scenarios.SCENARIOS.values())):
        assert flow.problems(made, CATALOG) == ()
        assert codec.from_json(codec.to_json(made), Flow) == made
        drawn = made.mermaid()
        assert drawn.startswith("flowchart TD")
        assert all(step.name in drawn for step in made.steps)


def names(made: Flow, run: FlowRun) -> list[str]:
    return [step.name for step in next_steps(made, run)[0]]


def done(run: FlowRun, *steps: str, state: str = "done", branch: str = "") -> FlowRun:
    for step in steps:
        run = mark(run, StepRun(step, state, branch=branch))
    return run


def test_a_step_waits_for_its_event_and_for_the_step_before() -> None:
    made = FlowBuilder("two").validate_header().validate_lines().build()
    run = start(made)
    assert names(made, run) == []
    run = saw(made, run, [ev.NEW_ORDER, ev.HEADER_VALID])
    assert names(made, run) == ["Validate Order Header"]
    assert names(made, done(run, "Validate Order Header", state="failed")) == []
    assert names(made, done(run, "Validate Order Header", state="waiting")) == []
    assert names(made, done(run, "Validate Order Header")) == ["Validate Order Line"]
    assert names(made, done(run, "Validate Order Header", "Validate Order Line")) == []


def test_a_condition_takes_one_path_and_the_merge_goes_on_behind_it() -> None:
    made = asking()
    run = done(start(made), "Validate Order Header")
    assert names(made, done(run, "try", state="failed")) == ["did it?"]
    run = done(done(run, "try", state="failed"), "did it?", branch="no")
    ready, run = next_steps(made, run)
    assert [step.name for step in ready] == ["bad"]
    assert state_of(run, made.step("good")) == "not taken"
    run = done(run, "bad")
    assert names(made, run) == ["together"]
    assert names(made, done(run, "together")) == ["last"]


def test_a_merge_waits_for_every_branch_that_was_taken() -> None:
    made = splitting()
    run = done(start(made), "Validate Order Header", "by kind", "a1", "a2")
    assert names(made, run) == ["b1"]
    for state in ("waiting", "failed"):
        assert names(made, done(run, "b1", state=state)) == []
    assert names(made, done(run, "b1", state="again")) == ["b1"], "the merge waits until it has run again"
    assert names(made, done(run, "b1", state="skipped")) == ["together"]
    assert names(made, done(run, "b1", state="not taken")) == ["together"]


def test_what_lies_behind_a_path_that_was_not_taken_is_not_taken_either() -> None:
    made = splitting()
    run = done(start(made), "Validate Order Header", "by kind", "b1")
    ready, run = next_steps(made, done(run, "a1", state="not taken"))
    assert [step.name for step in ready] == ["together"]
    assert state_of(run, made.step("a2")) == "not taken"


def test_a_step_that_runs_each_time_runs_once_per_event_also_for_those_raised_meanwhile() -> None:
    made = Flow("each", (Step("tell", StepType.CUSTOM, on=("x", "y"), each_time=True),))
    run = saw(made, start(made), ["x"])
    assert names(made, run) == ["tell"]
    waiting = mark(run, StepRun("tell", "waiting", 1))
    waiting = saw(made, waiting, ["x", "y", "other"])
    assert names(made, waiting) == []
    assert names(made, mark(waiting, StepRun("tell", "done", 1))) == ["tell"]
    assert names(made, mark(waiting, StepRun("tell", "done", 2))) == ["tell"]
    assert names(made, mark(waiting, StepRun("tell", "done", 3))) == []


def test_a_step_per_record_stands_where_its_slowest_record_stands() -> None:
    made = Flow("per", (Step("send", StepType.CUSTOM, per=ev.FULFILLMENT_ORDER),))
    run = mark(mark(start(made), StepRun("send", "done", record="F1")), StepRun("send", "failed", record="F2"))
    assert state_of(run, made.step("send")) == "failed"
    assert state_of(mark(run, StepRun("send", "waiting", record="F1")), made.step("send")) == "waiting"
    assert state_of(start(made), made.step("send")) == ""
    assert find(run, "send", "F1") == StepRun("send", "done", record="F1")
    assert find(run, "send", "F9") is None


def test_a_step_type_has_the_products_output_events_unless_it_names_others() -> None:
    assert Step("s", StepType.VALIDATE_LINES).output == (ev.LINES_VALID, ev.LINES_INVALID)
    assert Step("s", StepType.CUSTOM, succeeded="won").output == ("won", ev.DATA_NOT_ASSIGNED)
    assert Step("s", StepType.CONDITION).output == ("", "")
    assert Step("s", StepType.CUSTOM, parameters=(("a", "b"),)).parameter("a") == "b"
    assert Step("s", StepType.CUSTOM).parameter("a", "c") == "c"


def test_all_step_types_of_the_designer_are_there() -> None:
    assert {each.value for each in StepType} == {
        "Validate Order Header",
        "Validate Order Line",
        "Send to DOM",
        "Assign Fulfillment Source",
        "Send to Fulfillment",
        "Send to Fulfillment - finance and operations",
        "Send to Invoice",
        "Custom",
        "Condition",
        "Splitter",
        "Condition-Merge",
        "Splitter-Merge",
    }


def test_scenarios_are_found_by_name_and_number() -> None:
    assert scenarios.named("s2") is scenarios.BIGCOMMERCE_FLEXE_FNO
    assert scenarios.named("fno-fno-fno") is scenarios.FNO_FNO_FNO
    with pytest.raises(KeyError, match="no scenario 'S9'; known are S1"):
        scenarios.named("S9")


def test_a_policy_of_a_flow_is_checked_before_it_can_fail_an_order() -> None:
    policy = Policy("wrong", p.Kind.FILTER, "gift card", ())
    catalog = attrs.evolve(CATALOG, policies={"wrong": policy})
    found = flow.problems(Flow("f", (FIRST,), filter="wrong"), catalog)
    assert [each.where for each in found] == ["$.filter"]
    assert "gift card" in found[0].what
