"""Orchestration flows as data: the steps an order travels, how they are validated, and which may run now.

A step runs for a record when the flow is published and not paused, its predecessors on the path are done, one of its
input events has been raised for the record, and its filter policy holds (Intelligent Order Management, topics on
orchestration flows). Everything here is pure; running a step is `iom_core.decide`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_core import events as ev
from iom_core.order import FlowRun, StepRun, _with
from iom_core.outcome import Refused
from iom_core.policies import Kind, Policy
from iom_core.policies import problems as policy_problems


class StepType(StrEnum):
    """The action types of a step, as the product's designer names them."""

    VALIDATE_HEADER = "Validate Order Header"
    VALIDATE_LINES = "Validate Order Line"
    OPTIMIZE = "Send to DOM"
    ASSIGN_SOURCE = "Assign Fulfillment Source"
    SEND = "Send to Fulfillment"
    SEND_FNO = "Send to Fulfillment - finance and operations"
    INVOICE = "Send to Invoice"
    CUSTOM = "Custom"
    CONDITION = "Condition"
    SPLITTER = "Splitter"
    CONDITION_MERGE = "Condition-Merge"
    SPLITTER_MERGE = "Splitter-Merge"


CONTROL: Final = frozenset({StepType.CONDITION, StepType.SPLITTER, StepType.CONDITION_MERGE, StepType.SPLITTER_MERGE})
MERGES: Final = {StepType.CONDITION_MERGE: StepType.CONDITION, StepType.SPLITTER_MERGE: StepType.SPLITTER}
NEEDS_ACTION: Final = frozenset({StepType.OPTIMIZE, StepType.SEND, StepType.SEND_FNO, StepType.INVOICE})

DEFAULT_EVENTS: Final[Mapping[StepType, tuple[str, str]]] = {
    StepType.VALIDATE_HEADER: (ev.HEADER_VALID, ev.HEADER_INVALID),
    StepType.VALIDATE_LINES: (ev.LINES_VALID, ev.LINES_INVALID),
    StepType.OPTIMIZE: (ev.OPTIMIZED, ev.NOT_OPTIMIZED),
    StepType.ASSIGN_SOURCE: (ev.SOURCE_ASSIGNED, ev.SOURCE_NOT_ASSIGNED),
    StepType.SEND: (ev.SENT, ev.NOT_SENT),
    StepType.SEND_FNO: (ev.SENT, ev.NOT_SENT),
    StepType.INVOICE: (ev.INVOICE_REQUESTED, ev.INVOICE_NOT_REQUESTED),
    StepType.CUSTOM: (ev.DATA_ASSIGNED, ev.DATA_NOT_ASSIGNED),
}
"""The output events (succeeded, failed) of a step that names none."""

ALWAYS_RAISED: Final = frozenset(
    {ev.NEW_ORDER, ev.ORDER_CANCELED, ev.ORDER_HELD, ev.ORDER_RELEASED, ev.BACKORDER_DUE, ev.PREORDER_DUE}
)
"""Events that need no step and no provider: intake, people and jobs raise them."""


class Effect(StrEnum):
    """What the success of a provider action means for the order."""

    SEND = "send"
    """The provider will fulfill: its fulfillment orders, their lines and the order become *Sent To Fulfillment*."""
    BILL = "bill"
    """The order or lines are known for billing; no state changes."""
    OPTIMIZE = "optimize"
    """Sources were determined: fulfillment orders are created."""
    TELL = "tell"
    """Somebody was told; no state changes."""
    CREATE = "create"
    """Internal: fulfillment orders are created from what lines say, without an inventory check."""


@attrs.frozen
class ActionDefinition:
    """A provider action: what its success means, how often it is tried, and for how long (minutes).

    *readies* is what it marks ready to sync before it runs: ``"order"`` (header and all lines), ``"lines"`` (those
    that have a shipping warehouse) or nothing.
    """

    name: str
    effect: Effect
    readies: str = ""
    max_attempts: int = 8
    timeout_minutes: int = 60


@attrs.frozen
class ProviderDefinition:
    """A provider as flows see it: its actions and the business events that come from it."""

    name: str
    actions: Mapping[str, ActionDefinition] = attrs.field(factory=dict)
    events: frozenset[str] = frozenset()
    active: bool = True


@attrs.frozen
class Catalog:
    """What flows may name: providers and policies."""

    providers: Mapping[str, ProviderDefinition] = attrs.field(factory=dict)
    policies: Mapping[str, Policy] = attrs.field(factory=dict)

    def action(self, provider: str, action: str) -> ActionDefinition | None:
        """Return the definition of a provider's action, when both exist."""
        known = self.providers.get(provider)
        return None if known is None else known.actions.get(action)


@attrs.frozen
class Step:
    """One tile of a flow.

    *after* names its predecessors; a step behind a condition or a splitter also names its *branch* (``"yes"`` and
    ``"no"`` for a condition). *on* are the input events, any of which starts it; none means: as soon as the
    predecessors are done. *resume_on* is the event that restarts it after an error. *each_time* runs it again each
    time an input event is raised again (ours: partial shipments and backorders come several times); *per* runs it
    once per record of that entity (``"fulfillment order"``).
    """

    name: str
    type: StepType
    after: tuple[str, ...] = ()
    branch: str = ""
    on: tuple[str, ...] = ()
    provider: str = ""
    action: str = ""
    filter: str = ""
    policies: tuple[str, ...] = ()
    succeeded: str = ""
    failed: str = ""
    resume_on: str = ""
    each_time: bool = False
    per: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def output(self) -> tuple[str, str]:
        """Return the output events: succeeded, failed."""
        default = DEFAULT_EVENTS.get(self.type, ("", ""))
        return (self.succeeded or default[0], self.failed or default[1])

    def parameter(self, name: str, default: str = "") -> str:
        """Return a parameter of the provider action."""
        return next((value for key, value in self.parameters if key == name), default)


class FlowStatus(StrEnum):
    """Whether a flow runs: nothing does while it is unpublished; a paused one keeps what arrives."""

    UNPUBLISHED = "Unpublished"
    PUBLISHED = "Published"
    PAUSED = "Paused"


@attrs.frozen(slots=False)
class Flow:
    """An orchestration flow. *filter* keeps several published flows apart: the orders this one takes."""

    name: str
    steps: tuple[Step, ...]
    description: str = ""
    type: str = "order orchestration"
    filter: str = ""
    version: int = 1
    status: FlowStatus = FlowStatus.UNPUBLISHED

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """Return the steps by their names."""
        return {step.name: step for step in self.steps}

    @cached_property
    def listened(self) -> frozenset[str]:
        """Return every event that starts or restarts a step: only these are counted as an order travels."""
        return frozenset(event for step in self.steps for event in (*step.on, step.resume_on) if event)

    @cached_property
    def branches(self) -> bool:
        """Say whether the flow has conditions or splitters, and so paths that may not be taken."""
        return any(step.type in CONTROL for step in self.steps)

    def step(self, name: str) -> Step:
        """Return the step of that name; raises `KeyError`."""
        return self.by_name[name]

    def ancestors(self, step: Step) -> frozenset[str]:
        """Return the names of every step on the way to *step*."""
        seen: set[str] = set()
        todo = list(step.after)
        while todo:
            name = todo.pop()
            if name not in seen and name in self.by_name:
                seen.add(name)
                todo += self.by_name[name].after
        return frozenset(seen)

    def mermaid(self) -> str:
        """Draw the flow as a Mermaid flowchart."""
        short = {step.name: f"n{index}" for index, step in enumerate(self.steps)}
        drawn = []
        for step in self.steps:
            label = step.name if not step.provider else f"{step.name}<br/><i>{step.provider}: {step.action}</i>"
            left, right = ("{", "}") if step.type in CONTROL else ("[", "]")
            drawn.append(f'    {short[step.name]}{left}"{label}"{right}')
            for before in step.after:
                label = step.branch or ", ".join(step.on)
                drawn.append(
                    f'    {short[before]} -->|"{label}"| {short[step.name]}'
                    if label
                    else f"    {short[before]} --> {short[step.name]}"
                )
        return "\n".join(["flowchart TD", *drawn])


# -- publishing ------------------------------------------------------------------------------------------------------


def problems(flow: Flow, catalog: Catalog) -> tuple[Refused, ...]:
    """Return everything that keeps *flow* from being published, each with its place; nothing: it may be."""
    found: list[Refused] = []
    names = [step.name for step in flow.steps]
    if not flow.name:
        found.append(Refused("name", "the flow has no name", "$.name"))
    if not flow.steps:
        found.append(Refused("no-steps", "the flow has no steps", "$.steps"))
    if flow.filter:
        found += _policy_problems(flow.filter, Kind.FILTER, catalog, "$.filter")
    for index, step in enumerate(flow.steps):
        where = f"$.steps[{index}]"
        if not step.name or names.index(step.name) != index:
            found.append(Refused("step-name", f"the step name {step.name!r} is empty or taken", f"{where}.name"))
        found += _graph_problems(flow, step, index, where)
        found += _reference_problems(step, catalog, where)
        found += _event_problems(flow, step, catalog, where)
    if not found:
        found += _merge_problems(flow)
    return tuple(found)


def _graph_problems(flow: Flow, step: Step, index: int, where: str) -> list[Refused]:
    found: list[Refused] = []
    earlier = {each.name for each in flow.steps[:index]}
    for name in step.after:
        if name not in flow.by_name:
            found.append(
                Refused("unknown-step", f"step {step.name!r} follows {name!r}, which doesn't exist", f"{where}.after")
            )
        elif name not in earlier:
            found.append(
                Refused("order", f"step {step.name!r} follows {name!r}, which must stand before it", f"{where}.after")
            )
    if index > 0 and not step.after:
        found.append(Refused("no-way", f"step {step.name!r} can't be reached: it follows no step", f"{where}.after"))
    splitting = [
        flow.by_name[name]
        for name in step.after
        if name in flow.by_name and flow.by_name[name].type in (StepType.CONDITION, StepType.SPLITTER)
    ]
    for before in splitting:
        if before.type is StepType.CONDITION and step.branch not in ("yes", "no"):
            found.append(
                Refused(
                    "branch",
                    f"step {step.name!r} follows a condition: its branch must be 'yes' or 'no'",
                    f"{where}.branch",
                )
            )
        if before.type is StepType.SPLITTER and not step.branch:
            found.append(
                Refused("branch", f"step {step.name!r} follows a splitter and names no branch", f"{where}.branch")
            )
        if before.type is StepType.SPLITTER and not step.filter and step.type not in MERGES:
            found.append(
                Refused(
                    "branch-filter",
                    f"step {step.name!r} is the first of branch {step.branch!r} and has no filter policy",
                    f"{where}.filter",
                )
            )
    if step.branch and not splitting:
        found.append(
            Refused(
                "branch", f"step {step.name!r} names a branch but follows no condition or splitter", f"{where}.branch"
            )
        )
    if step.type is StepType.CONDITION and len(step.after) != 1:
        found.append(Refused("condition", f"condition {step.name!r} must follow exactly one step", f"{where}.after"))
    return found


def _reference_problems(step: Step, catalog: Catalog, where: str) -> list[Refused]:
    found: list[Refused] = []
    if step.type in CONTROL:
        if step.provider or step.action or step.policies:
            found.append(Refused("control", f"{step.type} {step.name!r} runs nothing: no action, no policies", where))
    elif step.type in NEEDS_ACTION and not step.action:
        found.append(
            Refused("no-action", f"step {step.name!r} ({step.type}) names no provider action", f"{where}.action")
        )
    elif step.type is StepType.CUSTOM and not step.action and not step.policies:
        found.append(Refused("nothing-to-do", f"step {step.name!r} has neither a provider action nor a policy", where))
    if step.action:
        provider = catalog.providers.get(step.provider)
        if provider is None:
            known = ", ".join(sorted(catalog.providers)) or "none"
            found.append(
                Refused(
                    "unknown-provider", f"there is no provider {step.provider!r} (known: {known})", f"{where}.provider"
                )
            )
        elif not provider.active:
            found.append(
                Refused("inactive-provider", f"provider {step.provider!r} is not activated", f"{where}.provider")
            )
        elif step.action not in provider.actions:
            known = ", ".join(sorted(provider.actions)) or "none"
            found.append(
                Refused(
                    "unknown-action",
                    f"provider {step.provider!r} has no action {step.action!r} (known: {known})",
                    f"{where}.action",
                )
            )
    if step.per not in ("", ev.FULFILLMENT_ORDER):
        found.append(Refused("per", f"a step can't run per {step.per!r}", f"{where}.per"))
    if step.filter:
        found += _policy_problems(step.filter, Kind.FILTER, catalog, f"{where}.filter")
    for place, name in enumerate(step.policies):
        found += _policy_problems(name, Kind.EXECUTION, catalog, f"{where}.policies[{place}]")
    return found


def _policy_problems(name: str, kind: Kind, catalog: Catalog, where: str) -> list[Refused]:
    policy = catalog.policies.get(name)
    if policy is None:
        return [Refused("unknown-policy", f"there is no policy {name!r}", where)]
    if policy.kind is not kind:
        return [Refused("policy-kind", f"policy {name!r} is a {policy.kind} policy, a {kind} policy is needed", where)]
    if not policy.published:
        return [Refused("unpublished-policy", f"policy {name!r} is not published", where)]
    return [
        Refused("policy", f"policy {name!r} can't be evaluated: {each.what} ({each.where})", where)
        for each in policy_problems(policy)
    ]


def _event_problems(flow: Flow, step: Step, catalog: Catalog, where: str) -> list[Refused]:
    arriving = ALWAYS_RAISED.union(*(each.events for each in catalog.providers.values()))
    upstream = {event for name in flow.ancestors(step) for event in flow.by_name[name].output if event}
    upstream |= {
        event
        for name in flow.ancestors(step)
        if (definition := catalog.action(flow.by_name[name].provider, flow.by_name[name].action)) is not None
        for event in EFFECT_EVENTS.get(definition.effect, ())
    }
    found = [
        Refused(
            "unraised-event",
            f"nothing before step {step.name!r} raises {event!r}, and no provider does",
            f"{where}.on[{place}]",
        )
        for place, event in enumerate(step.on)
        if event not in upstream and event not in arriving
    ]
    if step.each_time and not step.on:
        found.append(
            Refused("each-time", f"step {step.name!r} can't run each time: it has no input event", f"{where}.each_time")
        )
    return found


EFFECT_EVENTS: Final[Mapping[Effect, tuple[str, ...]]] = {
    Effect.SEND: (ev.SENT, ev.NOT_SENT),
    Effect.OPTIMIZE: (ev.FULFILLMENT_CREATED, ev.FULFILLMENT_NOT_CREATED, ev.NOT_ON_HAND, ev.STOCK_MISSING),
    Effect.CREATE: (ev.FULFILLMENT_CREATED, ev.FULFILLMENT_NOT_CREATED),
}
"""Events an effect raises besides the step's own output events."""


def _merge_problems(flow: Flow) -> list[Refused]:
    """Check that a merge joins every path of one condition or splitter, and nothing else."""
    found: list[Refused] = []
    for index, step in enumerate(flow.steps):
        opens = MERGES.get(step.type)
        if opens is None:
            continue
        where = f"$.steps[{index}].after"
        ancestors = flow.ancestors(step)
        openers = [each for each in flow.steps if each.type is opens and each.name in ancestors]
        closed = {
            each.parameter("merges")
            for each in flow.steps[:index]
            if each.type is step.type and each.parameter("merges")
        }
        wanted = step.parameter("merges")
        candidates = (
            [each for each in openers if each.name == wanted]
            if wanted
            else [o for o in openers if o.name not in closed][-1:]
        )
        if not candidates:
            found.append(Refused("merge", f"{step.type} {step.name!r} has no {opens} to merge", where))
            continue
        opener = candidates[-1]
        heads = [each for each in flow.steps if opener.name in each.after]
        for head in heads:
            # A path may also lead straight into the merge.
            if head is step:
                continue
            ends = {name for name in step.after if name == head.name or head.name in flow.ancestors(flow.step(name))}
            if not ends:
                found.append(
                    Refused(
                        "merge", f"the path {head.branch!r} of {opener.name!r} does not lead to {step.name!r}", where
                    )
                )
    return found


def publish(flow: Flow, catalog: Catalog) -> Result[Flow, tuple[Refused, ...]]:
    """Return *flow* published, or everything that keeps it from being published."""
    found = problems(flow, catalog)
    return Failure(found) if found else Success(attrs.evolve(flow, status=FlowStatus.PUBLISHED))


def edit(flow: Flow, **changes: Any) -> Result[Flow, Refused]:
    """Return *flow* with fields changed; a published one can't be edited: it must be stopped first."""
    if flow.status is not FlowStatus.UNPUBLISHED:
        return Failure(Refused("published", f"flow {flow.name!r} is published: stop it before editing it", "$.status"))
    return Success(attrs.evolve(flow, **changes))


# -- which steps may run now -------------------------------------------------------------------------------------------

SETTLED: Final = frozenset({"done", "skipped"})


def start(flow: Flow) -> FlowRun:
    """Begin an order's way through *flow*, at its present version."""
    return FlowRun(flow.name, flow.version)


def saw(flow: Flow, run: FlowRun, events: Iterable[str]) -> FlowRun:
    """Count the business events raised on the order that a step of *flow* listens to."""
    heard = [event for event in events if event in flow.listened]
    if not heard:
        return run
    seen = dict(run.seen)
    for event in heard:
        seen[event] = seen.get(event, 0) + 1
    return _with(run, seen=tuple(seen.items()))


def find(run: FlowRun, step: str, record: str = "") -> StepRun | None:
    """Return where a step stands."""
    for each in run.steps:
        if each.step == step and each.record == record:
            return each
    return None


def mark(run: FlowRun, step_run: StepRun) -> FlowRun:
    """Replace where a step stands."""
    name, record = step_run.step, step_run.record
    others = [each for each in run.steps if each.step != name or each.record != record]
    return _with(run, steps=(*others, step_run))


def state_of(run: FlowRun, step: Step) -> str:
    """Return where a step stands over all its records: ``""`` before it ran, ``"waiting"`` while one is out."""
    states = {each.state for each in run.steps if each.step == step.name}
    for state in ("waiting", "failed", "again", "not taken", "skipped", "done"):
        if state in states:
            return state
    return ""


def next_steps(flow: Flow, run: FlowRun) -> tuple[list[Step], FlowRun]:
    """Return the steps that may run now, and the run with the paths marked that were not chosen."""
    standing: dict[str, str] = {}
    branches: dict[str, str] = {}
    occasions: dict[str, int] = {}
    for each in run.steps:
        name = each.step
        state = standing.get(name)
        if state is None:
            standing[name], branches[name], occasions[name] = each.state, each.branch, each.occasion
            continue
        if _WEIGHT[each.state] > _WEIGHT[state]:
            standing[name] = each.state
        branches[name] = each.branch
        occasions[name] = max(occasions[name], each.occasion)
    ready: list[Step] = []
    seen = dict(run.seen)
    for step in flow.steps:
        state = standing.get(step.name)
        if state is not None and (state in _STANDS or (state != "again" and not step.each_time)):
            continue
        called = state == "again" or _called(step, seen, occasions.get(step.name, 0))
        if not called and not flow.branches:
            continue
        way = _way(flow, step, standing, branches)
        if way == "not taken":
            run = mark(run, StepRun(step.name, "not taken"))
            standing[step.name] = "not taken"
        elif called and way == "open":
            ready.append(step)
    return ready, run


_STANDS: Final = frozenset({"waiting", "failed", "not taken"})
_WEIGHT: Final = {"done": 0, "skipped": 1, "not taken": 2, "again": 3, "failed": 4, "waiting": 5}


def _called(step: Step, seen: Mapping[str, int], occasions: int) -> bool:
    if not step.on:
        return occasions == 0
    raised = 0
    for event in step.on:
        raised += seen.get(event, 0)
    return raised > (occasions if step.each_time else 0)


def _way(flow: Flow, step: Step, standing: Mapping[str, str], branches: Mapping[str, str]) -> str:
    """Say whether the way to *step* is ``"open"``, ``"not taken"``, or still ``"shut"``."""
    states: list[str] = []
    for name in step.after:
        state = standing.get(name, "")
        if step.type is StepType.CONDITION and state == "failed":
            state = "done"  # a condition asks whether its predecessor succeeded; a failure is an answer
        elif (
            step.branch
            and state == "done"
            and step.branch != branches[name]
            and flow.by_name[name].type is StepType.CONDITION
        ):
            state = "not taken"
        states.append(state)
    if step.type in MERGES:
        if any(state not in SETTLED and state != "not taken" for state in states):
            return "shut"
        return "open" if any(state in SETTLED for state in states) else "not taken"
    if "not taken" in states:
        return "not taken"
    for state in states:
        if state not in SETTLED:
            return "shut"
    return "open"


# -- building flows in Python --------------------------------------------------------------------------------------


class FlowBuilder:
    """Writes a flow step by step; each step follows the one before unless it says otherwise.

    >>> flow = FlowBuilder("example").validate_header().validate_lines().build()
    >>> [step.name for step in flow.steps]
    ['Validate Order Header', 'Validate Order Line']
    """

    def __init__(self, name: str, description: str = "", filter: str = "") -> None:  # noqa: A002 - the product's word
        self._name = name
        self._description = description
        self._filter = filter
        self._steps: list[Step] = []

    def step(self, step: Step) -> FlowBuilder:
        """Add *step*; without ``after`` it follows the last one."""
        if not step.after and self._steps:
            step = attrs.evolve(step, after=(self._steps[-1].name,))
        self._steps.append(step)
        return self

    def validate_header(self, *policies: str, name: str = "Validate Order Header") -> FlowBuilder:
        """Validate the header: the built-in checks, then *policies*."""
        on = () if self._steps else (ev.NEW_ORDER,)
        return self.step(Step(name, StepType.VALIDATE_HEADER, on=on, policies=policies))

    def validate_lines(self, *policies: str, name: str = "Validate Order Line") -> FlowBuilder:
        """Validate each line: the built-in checks, then *policies*."""
        return self.step(Step(name, StepType.VALIDATE_LINES, on=(ev.HEADER_VALID,), policies=policies))

    def assign(
        self,
        name: str,
        *policies: str,
        on: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        succeeded: str = "",
        failed: str = "",
    ) -> FlowBuilder:
        """Run assignment policies: company, site, warehouse, strategy."""
        return self.step(
            Step(name, StepType.CUSTOM, after=after, on=on, policies=policies, succeeded=succeeded, failed=failed)
        )

    def action(
        self,
        name: str,
        type: StepType,  # noqa: A002 - the product's word
        provider: str,
        action: str,
        *,
        on: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        branch: str = "",
        filter: str = "",  # noqa: A002 - the product's word
        succeeded: str = "",
        failed: str = "",
        each_time: bool = False,
        per: str = "",
        parameters: tuple[tuple[str, str], ...] = (),
    ) -> FlowBuilder:
        """Add a step that runs a provider action; the rest are fields of `Step`."""
        return self.step(
            Step(
                name,
                type,
                after=after,
                branch=branch,
                on=on,
                provider=provider,
                action=action,
                filter=filter,
                succeeded=succeeded,
                failed=failed,
                each_time=each_time,
                per=per,
                parameters=parameters,
            )
        )

    def tell(
        self, name: str, provider: str, action: str, on: str, *, after: tuple[str, ...] = (), each_time: bool = False
    ) -> FlowBuilder:
        """Tell a channel what became of its order, when *on* is raised."""
        return self.action(
            name,
            StepType.CUSTOM,
            provider,
            action,
            on=(on,),
            after=after,
            succeeded=ev.STATUS_TOLD,
            failed=ev.STATUS_NOT_TOLD,
            each_time=each_time,
        )

    def condition(self, name: str) -> FlowBuilder:
        """Ask whether the last step succeeded; what follows names its branch, ``"yes"`` or ``"no"``."""
        return self.step(Step(name, StepType.CONDITION))

    def splitter(self, name: str) -> FlowBuilder:
        """Part the way into named branches, each opened by a filter policy."""
        return self.step(Step(name, StepType.SPLITTER))

    def merge(self, name: str, *ends: str, splitter: bool = False) -> FlowBuilder:
        """Join the branches that end in *ends*."""
        kind = StepType.SPLITTER_MERGE if splitter else StepType.CONDITION_MERGE
        return self.step(Step(name, kind, after=ends))

    def build(self) -> Flow:
        """Return the flow, unpublished."""
        return Flow(self._name, tuple(self._steps), self._description, filter=self._filter)
