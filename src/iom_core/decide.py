"""The decision: an order and a message in, the new order, what happened and what is to be done out.

Pure: no clock, no ids, no ports. Applying a message, running every flow step it starts, and trying parked messages
again are one decision, because they are saved in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import attrs
from returns.result import Failure, Result, Success

from iom_core import codec, policies
from iom_core import events as ev
from iom_core import flow as flows
from iom_core import messages as msg
from iom_core.flow import ActionDefinition, Catalog, Effect, Flow, FlowStatus, Step, StepType
from iom_core.lifecycle import BUILT_IN, StateFramework
from iom_core.mapping import IdMapping
from iom_core.messages import Message
from iom_core.order import (
    Change,
    Command,
    ErrorRecord,
    FlowRun,
    Happened,
    OrderLine,
    ParkedMessage,
    SalesOrder,
    StepResult,
    StepRun,
    receive,
)
from iom_core.outcome import Refused, failed
from iom_core.policies import Criticality
from iom_core.values import OrderId, System

INTERNAL: Final = System("iom")
"""The Internal Application Service: the provider whose actions the core runs itself."""

INBOUND: Final = "provider inbound"
ACTION: Final = "provider action"
STEP: Final = "orchestration step"
POLICY: Final = "policy"


@attrs.frozen(slots=False)
class Setup:
    """What decisions depend on besides the order and the message.

    *flows* holds every version still in use; a running order keeps the one it started with. *prefixes* turns a
    channel's order number into ours (``{"bigcommerce": "BC-"}``). With *backorders* off, lines without stock become
    *Inventory not found* instead of *Backorder Hold*.
    """

    flows: tuple[Flow, ...]
    catalog: Catalog
    states: StateFramework = BUILT_IN
    mapping: IdMapping = attrs.field(factory=IdMapping)
    prefixes: Mapping[str, str] = attrs.field(factory=dict)
    backorders: bool = True
    _by_version: Mapping[tuple[str, int], Flow] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_by_version", {(each.name, each.version): each for each in self.flows})

    @cached_property
    def latest(self) -> Mapping[str, Flow]:
        """Return the newest version of each flow: it says whether the flow runs, is paused, or was stopped."""
        newest: dict[str, Flow] = {}
        for each in self.flows:
            if each.name not in newest or each.version > newest[each.name].version:
                newest[each.name] = each
        return newest

    def flow(self, run: FlowRun) -> Flow | None:
        """Return the flow version an order runs in."""
        return self._by_version.get((run.flow, run.version))

    def order_id(self, system: System, external_id: str) -> OrderId:
        """Return our number for a channel's order: the same one every time, so that no order comes to be twice."""
        return OrderId(self.prefixes.get(system, f"{system}-") + external_id)


@attrs.frozen
class Decision:
    """What to save and what to do. ``order`` is the same object as before when nothing changed."""

    order: SalesOrder
    happened: tuple[Happened, ...] = ()
    commands: tuple[Command, ...] = ()
    errors: tuple[ErrorRecord, ...] = ()


def decide(
    order: SalesOrder | None, message: Message, setup: Setup, at: datetime | None = None
) -> Result[Decision, Refused]:
    """Apply *message* to *order* (``None``: a new one).

    A fact that isn't legal yet is parked with the order; one that never can be becomes an inbound error. A request that
    isn't legal is refused, and nothing changes. *at* is the time of the decision, which the order's timeline shows;
    without it, the message's own time is taken.
    """
    work = _Work(at or message.at, setup)
    if order is None:
        return _receive(message, work)
    work.order = order
    refused = work.apply(message)
    if refused is not None:
        if isinstance(message.body, _REQUESTS):
            return Failure(refused)
        work.set_aside(message, refused)
    else:
        work.run()
    return Success(work.decision(order))


def _receive(message: Message, work: _Work) -> Result[Decision, Refused]:
    if not isinstance(message.body, msg.NewOrder):
        return Failure(
            Refused(
                "unknown-order", f"there is no order {message.order_id or message.external_id!r}", "$", message.system
            )
        )
    setup = work.setup
    translated = setup.mapping.translate(message.system, message.body.draft)
    if failed(translated):
        return translated
    draft = translated.unwrap()
    received = receive(setup.order_id(message.system, draft.external_id), message.system, draft, work.at, setup.states)
    if failed(received):
        return received
    change = received.unwrap()
    work.order = change.order
    work.happened += change.happened
    work.fresh += change.happened
    work.enter_flows()
    work.run()
    return Success(work.decision(None))


_REQUESTS: Final = (msg.CancelRequested, msg.HoldRequested, msg.HoldReleased, msg.Reprocess)


class _Work:
    """One decision in the making."""

    __slots__ = ("at", "commands", "errors", "fresh", "happened", "order", "setup")

    order: SalesOrder

    def __init__(self, at: datetime, setup: Setup) -> None:
        self.at = at
        self.setup = setup
        self.happened: list[Happened] = []
        self.fresh: list[Happened] = []
        """Events no flow has seen yet."""
        self.commands: list[Command] = []
        self.errors: list[ErrorRecord] = []

    def decision(self, before: SalesOrder | None) -> Decision:
        order = self.order
        if order is not before:
            order = order.with_(version=(before.version if before else 0) + 1)
        return Decision(order, tuple(self.happened), tuple(self.commands), tuple(self.errors))

    # -- messages ---------------------------------------------------------------------------------------------

    def apply(self, message: Message) -> Refused | None:
        """Apply the body; on refusal nothing has changed."""
        apply = _APPLY[type(message.body)]
        return self.take(apply(self, message, message.body))

    def take(self, changed: Result[Change, Refused]) -> Refused | None:
        if failed(changed):
            return changed.failure()
        change = changed.unwrap()
        self.order = change.order
        self.happened += change.happened
        self.fresh += change.happened
        return None

    def set_aside(self, message: Message, refused: Refused) -> None:
        """Park a message that came too early; list one that never can be applied as an inbound error."""
        if refused.early and not self.ended():
            if all(each.id != message.id for each in self.order.parked):
                parked = ParkedMessage(message.id, self.at, str(refused), codec.to_json(message))
                self.order = self.order.with_(parked=(*self.order.parked, parked))
            return
        self.error(
            INBOUND, message.system, refused.what, refused.where, message.id, refused.code, codec.to_json(message)
        )

    def ended(self) -> bool:
        return self.setup.states.order.is_final(self.order.status)

    def error(
        self,
        kind: str,
        system: str,
        what: str,
        where: str = "$",
        about: str = "",
        category: str = "",
        payload: str = "",
    ) -> None:
        record = f"{kind}/{self.order.id}/{about or len(self.order.steps)}"
        self.errors.append(
            ErrorRecord(record, kind, self.at, system, what, where, self.order.id, about, category, payload)
        )

    def retry_parked(self) -> bool:
        """Try parked messages again; says whether one of them was applied."""
        moved = False
        for parked in self.order.parked:
            message = codec.from_json(parked.message, Message)
            refused = self.apply(message)
            if refused is not None and refused.early and not self.ended():
                continue
            if refused is not None:
                self.error(
                    INBOUND, message.system, refused.what, refused.where, message.id, refused.code, parked.message
                )
            self.order = self.order.with_(parked=tuple(each for each in self.order.parked if each.id != parked.id))
            moved = moved or refused is None
        return moved

    # -- flows ------------------------------------------------------------------------------------------------

    def enter_flows(self) -> None:
        """Start every published flow that takes this order."""
        runs: list[FlowRun] = []
        for flow in self.setup.latest.values():
            if flow.status is FlowStatus.UNPUBLISHED:
                continue
            if flow.filter:
                held = policies.holds(self.setup.catalog.policies[flow.filter], self.order, self.order)
                if failed(held):
                    broken = held.failure()
                    self.error(POLICY, flow.name, f"{broken.policy}: {broken.what}", broken.where, f"flow {flow.name}")
                    continue
                if not held.unwrap():
                    continue
            runs.append(flows.start(flow))
        if not runs:
            self.error(STEP, "iom", "no published flow takes this order", "$", "no flow")
        self.order = self.order.with_(flows=tuple(runs))

    def run(self) -> None:
        """Run every step that may run, and parked messages, until nothing moves."""
        while True:
            fresh, self.fresh = self.fresh, []
            moved = self.advance(fresh)
            if not moved and not self.fresh and not (self.order.parked and self.retry_parked()):
                break

    def advance(self, fresh: Sequence[Happened]) -> bool:
        """Show *fresh* events to the flows and run what they start; says whether a step ran."""
        moved = False
        names = [
            each.event
            for each in fresh
            if each.entity == ev.ORDER or each.event in _OWN_NAMES or each.entity not in _BUILT_IN
        ]
        for position, old in enumerate(self.order.flows):
            flow = self.setup.flow(old)
            if flow is None:
                continue
            run = old
            if names:
                run = self.resume(flow, flows.saw(flow, old, names), names)
            ready: list[Step] = []
            if self.setup.latest[flow.name].status is FlowStatus.PUBLISHED and not self.order.holds:
                ready, run = flows.next_steps(flow, run)
            if run is not old:
                self.keep(position, run)
            for step in ready:
                if self.order.status.state == ev.CANCELED and ev.ORDER_CANCELED not in step.on:
                    continue
                moved = True
                self.run_step(position, flow, step)
        return moved

    def keep(self, position: int, run: FlowRun) -> None:
        runs = list(self.order.flows)
        runs[position] = run
        self.order = self.order.with_(flows=tuple(runs))

    def resume(self, flow: Flow, run: FlowRun, names: Sequence[str]) -> FlowRun:
        """*Resume on error*: restart failed steps whose event was raised."""
        for each in run.steps:
            if each.state == "failed" and flow.step(each.step).resume_on in names:
                run = flows.mark(run, attrs.evolve(each, state="again", attempt=each.attempt + 1))
        return run

    def run_step(self, position: int, flow: Flow, step: Step) -> None:
        run = self.order.flows[position]
        before = flows.find(run, step.name)
        occasion, attempt = 1, 1
        if before is not None:
            again = before.state == "again"
            occasion, attempt = (before.occasion, before.attempt) if again else (before.occasion + 1, 1)
        now = StepRun(step.name, "done", occasion, attempt)
        if step.type in flows.CONTROL:
            branch = ""
            if step.type is StepType.CONDITION:
                branch = "no" if flows.state_of(run, flow.step(step.after[0])) == "failed" else "yes"
            self.keep(position, flows.mark(run, attrs.evolve(now, branch=branch)))
            return
        if step.filter:
            held = self.filtered(step)
            if isinstance(held, policies.PolicyError):
                self.fail(position, step, now, f"policy {held.policy}: {held.what}", held.where, POLICY)
                return
            if not held:
                splitters = [name for name in step.after if flow.step(name).type is StepType.SPLITTER]
                run = flows.mark(run, attrs.evolve(now, state="not taken" if splitters else "skipped"))
                self.keep(position, run)
                for name in splitters:
                    heads = [each for each in flow.steps if name in each.after]
                    if all(flows.state_of(run, head) == "not taken" for head in heads):
                        self.error(
                            STEP, "iom", f"no branch of splitter {name!r} takes the order", "$", f"{flow.name}/{name}"
                        )
                return
        _RUN[step.type](self, position, step, now)

    def filtered(self, step: Step) -> bool | policies.PolicyError:
        policy = self.setup.catalog.policies[step.filter]
        for record in policies.records_of(self.order, policy.entity):
            held = policies.holds(policy, self.order, record)
            if failed(held):
                return held.failure()
            if held.unwrap():
                return True
        return False

    def note(self, position: int, now: StepRun, ok: bool, details: str) -> None:
        """Leave an orchestration step result, and where the step stands."""
        run = self.order.flows[position]
        key = self.key(run.flow, now)
        result = StepResult(self.at, run.flow, now.step, ok, details, f"{key}!{now.attempt}", now.record)
        self.order = self.order.with_(steps=(*self.order.steps, result))
        self.keep(position, flows.mark(run, now))

    def key(self, flow: str, now: StepRun) -> str:
        record = f"/{now.record}" if now.record else ""
        return f"{self.order.id}/{flow}/{now.step}{record}/{now.occasion}"

    def fail(
        self,
        position: int,
        step: Step,
        now: StepRun,
        why: str,
        where: str = "$",
        kind: str = STEP,
        raise_event: bool = True,
    ) -> None:
        self.note(position, attrs.evolve(now, state="failed"), False, why)
        self.error(
            kind,
            step.provider or "iom",
            f"{step.name}: {why}",
            where,
            f"{self.key(self.order.flows[position].flow, now)}!{now.attempt}",
        )
        event = step.output[1]
        if raise_event and event:
            self.raise_on_order(event)

    def raise_on_order(self, event: str) -> None:
        """Raise an output event; one that isn't legal now is reported, the step's result stands."""
        refused = self.take(self.order.raise_event(event, self.at, states=self.setup.states))
        if refused is not None:
            self.error(STEP, "iom", refused.what, refused.where, f"event {event}/{len(self.order.steps)}", refused.code)

    # -- steps the core runs itself ----------------------------------------------------------------------------

    def validate_header(self, position: int, step: Step, now: StepRun) -> None:
        problem = header_problem(self.order)
        if problem is not None:
            self.fail(position, step, now, problem.what, problem.where)
            return
        if self.ran_policies(position, step, now):
            self.note(position, now, True, "valid")
            self.raise_on_order(step.output[0])

    def validate_lines(self, position: int, step: Step, now: StepRun) -> None:
        wrong = {
            line.id: problem
            for index, line in enumerate(self.order.lines)
            if (problem := line_problem(line, index)) is not None
        }
        if wrong:
            first = next(iter(wrong.values()))
            before = len(self.order.timeline)
            self.take(self.order.raise_on_lines(step.output[1], self.at, lines=set(wrong), states=self.setup.states))
            self.fail(position, step, now, first.what, first.where, raise_event=len(self.order.timeline) == before)
            return
        if self.ran_policies(position, step, now):
            self.note(position, now, True, "valid")
            self.succeed_on_lines(step)

    def assign(self, position: int, step: Step, now: StepRun) -> None:
        if self.ran_policies(position, step, now):
            self.note(position, now, True, "assigned")
            self.succeed_on_lines(step)

    def succeed_on_lines(self, step: Step) -> None:
        event = step.output[0]
        if event not in self.setup.states.line.events:
            self.raise_on_order(event)
            return
        # A line held by an earlier failure goes on with the others once the step succeeds for it.
        going = [line.id for line in self.order.lines if not self.setup.states.line.is_final(line.status)]
        refused = self.take(self.order.raise_on_lines(event, self.at, lines=going, states=self.setup.states))
        if refused is not None:
            self.error(STEP, "iom", refused.what, refused.where, f"event {event}/{len(self.order.steps)}", refused.code)

    def ran_policies(self, position: int, step: Step, now: StepRun) -> bool:
        """Run the step's execution policies; on a critical no or an error, fail the step and keep no value."""
        order = self.order
        for name in step.policies:
            policy = self.setup.catalog.policies[name]
            for record in policies.records_of(order, policy.entity):
                if isinstance(record, OrderLine) and self.setup.states.line.is_final(record.status):
                    continue
                said = policies.execute(policy, order, record)
                if failed(said):
                    broken = said.failure()
                    self.fail(position, step, now, f"policy {name}: {broken.what}", broken.where, POLICY)
                    return False
                verdict = said.unwrap()
                if not verdict.satisfied and policy.criticality is Criticality.CRITICAL:
                    about = "" if isinstance(record, SalesOrder) else f" for {policy.entity} {record.id}"
                    self.fail(position, step, now, f"policy {name} is not satisfied{about}: {verdict.why}", "$", POLICY)
                    return False
                if verdict.values:
                    line_id = record.id if isinstance(record, OrderLine) else ""
                    assigned = order.assign(dict(verdict.values), line_id)
                    if failed(assigned):
                        self.fail(position, step, now, assigned.failure().what, assigned.failure().where)
                        return False
                    order = assigned.unwrap().order
        self.order = order
        return True

    # -- steps that run a provider action ----------------------------------------------------------------------

    def act(self, position: int, step: Step, now: StepRun) -> None:
        if not step.action:
            self.assign(position, step, now)
            return
        definition = self.setup.catalog.action(step.provider, step.action)
        if definition is None:
            self.fail(position, step, now, f"provider {step.provider!r} has no action {step.action!r}", "$.action")
            return
        if step.policies and not self.ran_policies(position, step, now):
            return
        if definition.effect is Effect.CREATE:
            self.create(position, step, now)
            return
        self.make_ready(definition)
        flow = self.order.flows[position].flow
        run = self.order.flows[position]
        if step.per:
            # The step itself counts its occasions; each record has a run of its own under it.
            again = any(each.step == step.name and each.state == "again" for each in run.steps)
            base = flows.find(run, step.name)
            run = flows.mark(run, base if again and base is not None else now)
            waiting = [
                attrs.evolve(flows.find(run, step.name, fo.id) or StepRun(step.name, "", record=fo.id), state="waiting")
                for fo in self.order.fulfillment_orders
                if fo.provider == step.provider and self.unsent(run, step, fo.id)
            ]
        else:
            waiting = [attrs.evolve(now, state="waiting")]
        for each in waiting:
            run = flows.mark(run, each)
            key, provider = self.key(flow, each), System(step.provider)
            self.commands.append(
                Command(key, self.order.id, provider, step.action, flow, step.name, each.record, each.attempt)
            )
        self.keep(position, run)
        if not waiting:
            self.note(position, now, True, "no fulfillment order to send")

    def unsent(self, run: FlowRun, step: Step, record: str) -> bool:
        known = flows.find(run, step.name, record)
        return known is None or known.state == "again"

    def make_ready(self, definition: ActionDefinition) -> None:
        """Mark what an action sends as ready to sync, and give lines the warehouse of their source."""
        if not definition.readies:
            return
        order = self.order
        lines = list(order.lines)
        sourced = {f.line: fo for fo in order.fulfillment_orders for f in fo.lines}
        # Nobody ships a digital line, but the books want a place for it: that of the goods it was bought with.
        first = next((fo for fo in order.fulfillment_orders if fo.warehouse), None)
        for line in lines:
            values: dict[str, object] = {}
            source = sourced.get(line.id, first if line.digital else None)
            if (
                definition.readies == "lines"
                and source is not None
                and source.warehouse
                and line.warehouse != source.warehouse
            ):
                values["warehouse"] = source.warehouse
                values["site"] = source.site or line.site
            if definition.readies == "order" or line.warehouse or values.get("warehouse"):
                values["ready_to_sync"] = True
            if any(getattr(line, name) != value for name, value in values.items()):
                changed = order.assign(values, line.id)
                if not failed(changed):
                    order = changed.unwrap().order
        self.order = order if order.ready_to_sync else order.with_(ready_to_sync=True)

    def create(self, position: int, step: Step, now: StepRun) -> None:
        """Create fulfillment orders without an inventory check (the Internal Application Service)."""
        by = System(step.parameter("fulfilled by", step.provider))
        digital = step.parameter("digital lines", "yes") == "yes"
        refused = self.take(
            self.order.create_fulfillment_orders(
                by,
                self.at,
                digital=digital,
                per_address=step.parameter("one address each") == "yes",
                states=self.setup.states,
            )
        )
        if refused is not None:
            self.fail(position, step, now, refused.what, refused.where)
            return
        if not self.order.fulfillment_orders:
            self.fail(position, step, now, "no line of the order is to be shipped", "$.lines")
            return
        if step.parameter("already sent") == "yes":
            self.take(self.order.sent(ev.SENT, self.at, provider=by, states=self.setup.states))
        self.note(position, now, True, f"{len(self.order.fulfillment_orders)} fulfillment order(s)")
        if step.output[0] not in (ev.FULFILLMENT_CREATED, ev.DATA_ASSIGNED):
            self.raise_on_order(step.output[0])

    # -- outcomes of provider actions --------------------------------------------------------------------------

    def waiting_for(self, key: str) -> tuple[int, Step, StepRun] | None:
        for position, run in enumerate(self.order.flows):
            flow = self.setup.flow(run)
            for each in run.steps:
                if flow is not None and each.state == "waiting" and self.key(run.flow, each) == key:
                    return position, flow.step(each.step), each
        return None


# -- how each kind of message is applied --------------------------------------------------------------------------


def _again(work: _Work, message: Message, body: msg.NewOrder) -> Result[Change, Refused]:
    """An order we have already: nothing to do, whatever it says now."""
    return Success(Change(work.order, ()))


def _picked(work: _Work, message: Message, body: msg.Picked) -> Result[Change, Refused]:
    return work.order.pick(message.system, body.lines, work.at, work.setup.states)


def _packed(work: _Work, message: Message, body: msg.Packed) -> Result[Change, Refused]:
    return work.order.pack(message.system, body.lines, work.at, work.setup.states)


def _shipped(work: _Work, message: Message, body: msg.Shipped) -> Result[Change, Refused]:
    return work.order.ship(
        message.system,
        body.shipment,
        body.lines,
        work.at,
        shipped_at=body.shipped_at,
        tracking_number=body.tracking_number,
        carrier=body.carrier,
        service=body.service,
        tracking_url=body.tracking_url,
        warehouse=body.warehouse,
        cost=body.cost,
        states=work.setup.states,
    )


def _invoiced(work: _Work, message: Message, body: msg.Invoiced) -> Result[Change, Refused]:
    changed = work.order.invoice(
        message.system,
        body.number,
        body.lines,
        body.total,
        work.at,
        invoiced_at=body.invoiced_at,
        states=work.setup.states,
    )
    if not failed(changed):
        order = changed.unwrap().order
        if order.status.state == ev.COMPLETED and order is not work.order:
            wanted = open_total(order)
            if wanted is not None and order.invoiced_total.amount != wanted:
                work.error(
                    INBOUND,
                    message.system,
                    f"invoiced {order.invoiced_total}, ordered {wanted} {order.currency}",
                    "$.total",
                    f"{message.id}/total",
                    "reconciliation",
                )
    return changed


def open_total(order: SalesOrder) -> Any:
    """Return what the invoices of a completed order must add up to, or ``None`` when part of it was canceled: what a
    partly canceled line is worth is the accounting system's to say.
    """
    return None if any(line.canceled for line in order.lines) else order.total.amount


def _canceled(work: _Work, message: Message, body: msg.Canceled) -> Result[Change, Refused]:
    order = work.order
    fulfills = any(fo.provider == message.system for fo in order.fulfillment_orders)
    if message.system == order.channel and not fulfills:
        ours = [order.by_external(message.system, line) or line for line in body.lines]
        if order.status.state == ev.CANCELED:
            return Success(Change(order, ()))
        return order.cancel(work.at, lines=ours, states=work.setup.states)
    only = order.by_external(message.system, message.external_id, ev.FULFILLMENT_ORDER) or ""
    return order.canceled_by(
        message.system, work.at, lines=body.lines, fulfillment_order=only, states=work.setup.states
    )


def _raised(work: _Work, message: Message, body: msg.Raised) -> Result[Change, Refused]:
    return work.order.raise_event(body.event, work.at, entity=body.entity, record=body.record, states=work.setup.states)


def _cancel_requested(work: _Work, message: Message, body: msg.CancelRequested) -> Result[Change, Refused]:
    return work.order.cancel(work.at, lines=body.lines, states=work.setup.states)


def _hold_requested(work: _Work, message: Message, body: msg.HoldRequested) -> Result[Change, Refused]:
    return work.order.hold(body.hold, body.why, work.at, work.setup.states)


def _hold_released(work: _Work, message: Message, body: msg.HoldReleased) -> Result[Change, Refused]:
    return work.order.release(body.hold, work.at, work.setup.states)


def _reprocess(work: _Work, message: Message, body: msg.Reprocess) -> Result[Change, Refused]:
    """Restart the failed step, or a named one that left lines with a Sync Error: a new attempt of the same key."""
    unsynced = any(line.sync_error for line in work.order.lines)
    for position, run in enumerate(work.order.flows):
        broken = [each for each in run.steps if each.state == "failed" and body.step in ("", each.step)]
        broken += [each for each in run.steps if each.state == "done" and each.step == body.step and unsynced]
        if broken:
            last = broken[-1].step
            for each in broken if body.step else [run_ for run_ in broken if run_.step == last]:
                run = flows.mark(run, attrs.evolve(each, state="again", attempt=each.attempt + 1))
            work.keep(position, run)
            return Success(Change(work.order, ()))
    named = f"step {body.step!r}" if body.step else "no step"
    return Failure(Refused("nothing-failed", f"{named} has failed and could be reprocessed", "$.step"))


def _job_due(work: _Work, message: Message, body: msg.JobDue) -> Result[Change, Refused]:
    if not body.event:
        return Success(Change(work.order, ()))
    return work.order.raise_event(body.event, work.at, states=work.setup.states)


def _done(work: _Work, message: Message, body: msg.ActionDone) -> Result[Change, Refused]:
    found = work.waiting_for(body.key)
    if found is None:
        return Success(Change(work.order, ()))
    position, step, now = found
    definition = work.setup.catalog.action(step.provider, step.action)
    effect = Effect.TELL if definition is None else definition.effect
    if body.order_number or body.line_numbers:
        per = now.record if step.per else ""
        work.order = work.order.known_as(message.system, body.order_number, body.line_numbers, per)
    refused = _EFFECTS[effect](work, step, now, body)
    if refused is not None:
        work.fail(position, step, now, refused.what, refused.where, ACTION)
        return Success(Change(work.order, ()))
    work.note(position, attrs.evolve(now, state="done"), True, body.details)
    for line, error in body.line_errors:
        work.error(
            ACTION,
            step.provider,
            f"line {line}: {error}",
            f"$.lines[id={line}].sync_error",
            f"{body.key}!{now.attempt}/{line}",
            "sync-error",
        )
    event = step.output[0]
    if event and not (effect is Effect.SEND and event == ev.SENT):
        work.raise_on_order(event)
    return Success(Change(work.order, ()))


def _sent(work: _Work, step: Step, now: StepRun, body: msg.ActionDone) -> Refused | None:
    return work.take(
        work.order.sent(
            ev.SENT,
            work.at,
            provider=System(step.provider),
            line_errors=dict(body.line_errors),
            only=now.record if step.per else "",
            states=work.setup.states,
        )
    )


def _optimized(work: _Work, step: Step, now: StepRun, body: msg.ActionDone) -> Refused | None:
    by = System(step.parameter("fulfilled by", step.provider))
    order, states = work.order, work.setup.states
    refused = None
    # What was canceled while the optimizer thought about it is not sourced any more.
    sourced = tuple(
        each
        for each in body.sourced
        if (line := order.line(each.line)) is None or not states.line.is_final(line.status)
    )
    if sourced:
        refused = work.take(order.create_fulfillment_orders(by, work.at, sourced=sourced, states=states))
    if refused is not None:
        return refused
    taken = {each.line for fo in work.order.fulfillment_orders for each in fo.lines}
    short = [
        line.id
        for line in work.order.lines
        if line.id not in taken and not states.line.is_final(line.status) and not line.digital
    ]
    if short:
        event = ev.NOT_ON_HAND if work.setup.backorders else ev.STOCK_MISSING
        return work.take(work.order.not_sourced(event, work.at, lines=short, states=states))
    return None


def _nothing(work: _Work, step: Step, now: StepRun, body: msg.ActionDone) -> Refused | None:
    return None


_EFFECTS: Final[Mapping[Effect, Callable[[_Work, Step, StepRun, msg.ActionDone], Refused | None]]] = {
    Effect.SEND: _sent,
    Effect.OPTIMIZE: _optimized,
    Effect.BILL: _nothing,
    Effect.TELL: _nothing,
    Effect.CREATE: _nothing,
}


def _action_failed(work: _Work, message: Message, body: msg.ActionFailed) -> Result[Change, Refused]:
    found = work.waiting_for(body.key)
    if found is None:
        return Success(Change(work.order, ()))
    position, step, now = found
    definition = work.setup.catalog.action(step.provider, step.action)
    raised = False
    if definition is not None and definition.effect is Effect.SEND:
        event = ev.SENDING_UNKNOWN if body.kind == "unavailable" else ev.NOT_SENT
        before = len(work.happened)
        work.take(
            work.order.sent(
                event,
                work.at,
                provider=System(step.provider),
                line_errors=dict(body.line_errors),
                only=now.record if step.per else "",
                states=work.setup.states,
            )
        )
        raised = len(work.happened) > before
    work.fail(
        position,
        step,
        now,
        f"{body.kind}: {body.what}",
        body.where,
        ACTION,
        raise_event=not (raised and step.output[1] == ev.NOT_SENT),
    )
    return Success(Change(work.order, ()))


_APPLY: Final[Mapping[type, Callable[[_Work, Message, Any], Result[Change, Refused]]]] = {
    msg.NewOrder: _again,
    msg.Picked: _picked,
    msg.Packed: _packed,
    msg.Shipped: _shipped,
    msg.Invoiced: _invoiced,
    msg.Canceled: _canceled,
    msg.Raised: _raised,
    msg.ActionDone: _done,
    msg.ActionFailed: _action_failed,
    msg.CancelRequested: _cancel_requested,
    msg.HoldRequested: _hold_requested,
    msg.HoldReleased: _hold_released,
    msg.Reprocess: _reprocess,
    msg.JobDue: _job_due,
}

_RUN: Final[Mapping[StepType, Callable[[_Work, int, Step, StepRun], None]]] = {
    StepType.VALIDATE_HEADER: _Work.validate_header,
    StepType.VALIDATE_LINES: _Work.validate_lines,
    StepType.ASSIGN_SOURCE: _Work.assign,
    StepType.OPTIMIZE: _Work.act,
    StepType.SEND: _Work.act,
    StepType.SEND_FNO: _Work.act,
    StepType.INVOICE: _Work.act,
    StepType.CUSTOM: _Work.act,
}

_BUILT_IN: Final = frozenset({ev.ORDER, ev.LINE, ev.FULFILLMENT_ORDER, ev.FULFILLMENT_LINE})
_OWN_NAMES: Final = frozenset(
    event for entity, stages in ev.PROGRESS.items() if entity != ev.ORDER for stage in stages for event in stage
)
"""Progress events of lines and fulfillment orders: their names aren't the order's, so flows may wait for them."""


# -- the built-in checks ----------------------------------------------------------------------------------------------


def header_problem(order: SalesOrder) -> Refused | None:
    """Return what *Validate Order Header* finds wrong: amounts that don't add up, nowhere to ship to."""
    whole = (
        order.shipping.amount
        + order.handling.amount
        - order.discount.amount
        + sum(line.total.amount for line in order.lines)
    )
    if whole != order.total.amount:
        return Refused("total", f"the parts add up to {whole}, the total says {order.total.amount}", "$.total")
    if all(line.digital for line in order.lines):
        return None
    for name in ("name", "street", "city", "country"):
        if not getattr(order.ship_to, name) and not (name == "name" and order.ship_to.company):
            return Refused("address", f"the ship-to address has no {name}", f"$.ship_to.{name}")
    return None


def line_problem(line: OrderLine, index: int) -> Refused | None:
    """Return what *Validate Order Line* finds wrong with one line."""
    if not line.product:
        return Refused("product", f"line {line.id} names no product", f"$.lines[{index}].product")
    if line.ordered.amount <= 0:
        return Refused("quantity", f"line {line.id} orders {line.ordered.amount}", f"$.lines[{index}].ordered")
    if line.total.amount < 0:
        return Refused("total", f"line {line.id} costs {line.total}", f"$.lines[{index}].total")
    return None
