"""The one loop: a message comes in, the decision is made, and everything it changed is saved in one transaction.

The orchestrator owns no thread and no clock of its own: an engine calls `perform` and `settle` for commands and `pull`
for pullers; webhooks, the command line and people call `handle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final

import attrs
from returns.result import Failure, Result, Success

from iom_core import flow as flows
from iom_core.decide import INBOUND, Decision, Setup, decide
from iom_core.errors import Fault, Misconfigured, Misunderstood, Unavailable
from iom_core.flow import ActionDefinition, Flow, FlowStatus
from iom_core.messages import ActionDone, ActionFailed, Canceled, JobDue, Message, NewOrder, Rejected
from iom_core.order import Command, ErrorRecord, SalesOrder
from iom_core.outcome import Refused, failed
from iom_core.ports import Conflict, OrderStore, Pulled, Unit
from iom_core.providers import Provider
from iom_core.retry import ActionLimits
from iom_core.values import MessageId, System

MAX_PAYLOAD: Final = 4_000
"""How much of a rejected payload is kept, in characters."""

ATTEMPTS_ON_CONFLICT: Final = 20

STRANGERS: Final = frozenset({"unauthorized", "unauthenticated", "forged", "too-large", "oversized"})
"""Codes by which an adapter refuses a notification whose sender it doesn't know, or won't read."""


@attrs.frozen
class Handled:
    """What became of a message: ``"applied"``, ``"duplicate"``, ``"waiting"`` (nobody knows its order yet),
    ``"ignored"`` (it cancels an order we never took), or ``"rejected"`` (it can't be an order; it is in the inbound
    error list).
    """

    outcome: str
    order: SalesOrder | None = None


class _Refusal(Exception):
    """Carries a refusal out of a transaction, so that it rolls back."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.what)
        self.refused = refused


class Orchestrator:
    """Ties a store, the setup that decides, and the providers together.

    *clock* returns the time now, in UTC. *wake* is called after a transaction that left commands to run.
    """

    def __init__(
        self,
        store: OrderStore,
        setup: Setup,
        providers: Mapping[System, Provider],
        clock: Callable[[], datetime],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        for flow in setup.flows:
            wrong = flows.problems(flow, setup.catalog) if flow.status is not FlowStatus.UNPUBLISHED else ()
            if wrong:
                said = "; ".join(f"{each.what} (at {each.where})" for each in wrong)
                raise Misconfigured("iom", f"flow {flow.name!r} can't be published: {said}")
        self.store = store
        self.setup: Setup = setup
        self.providers = providers
        self.clock = clock
        self.wake = wake

    # -- messages --------------------------------------------------------------------------------------------------

    def handle(self, message: Message, *, finishes: str = "") -> Result[Handled, Refused]:
        """Take in one message, once. *finishes* is the key of the command whose outcome it is.

        A refused request leaves no trace. Raises what the store raises.
        """
        for _ in range(ATTEMPTS_ON_CONFLICT):
            try:
                with self.store.begin() as unit:
                    handled, commands = self._take_in(unit, message, finishes)
            except Conflict:
                continue
            except _Refusal as refusal:
                if isinstance(message.body, NewOrder):
                    # Not marked as seen: once a mapping is mended, a redelivery may bring the order in.
                    with self.store.begin() as unit:
                        unit.add_error(rejection(message, refusal.refused))
                    return Success(Handled("rejected"))
                return Failure(refusal.refused)
            if commands:
                self.wake()
            return Success(handled)
        raise Unavailable(
            "store", f"order of message {message.id} changed under {ATTEMPTS_ON_CONFLICT} attempts to save it"
        )

    def _take_in(self, unit: Unit, message: Message, finishes: str) -> tuple[Handled, bool]:
        if finishes:
            unit.finish(finishes)
        if not unit.accept(message.id, message.at):
            return Handled("duplicate"), False
        order_id = message.order_id
        if order_id is None:
            order_id = unit.find(message.system, message.external_id)
        if order_id is None and isinstance(message.body, NewOrder):
            # The number of an order is made from its channel's, so the order may be there under it already.
            order_id = self.setup.order_id(message.system, message.body.draft.external_id)
        before = None if order_id is None else unit.order(order_id)
        if before is None and not isinstance(message.body, NewOrder):
            if message.order_id is not None:
                raise _Refusal(Refused("unknown-order", f"there is no order {message.order_id!r}", "$.order_id"))
            if isinstance(message.body, Canceled) and message.system in self.setup.prefixes:
                # A channel cancels orders we never took: there is nothing to wait for.
                return Handled("ignored"), False
            unit.wait(message, message.at)
            return Handled("waiting"), False
        decided = decide(before, message, self.setup, self.clock())
        if failed(decided):
            raise _Refusal(decided.failure())
        decision = decided.unwrap()
        self._save(unit, before, decision)
        if len(decision.order.externals) != (0 if before is None else len(before.externals)):
            self._let_in_waiting(unit, before, decision.order)
        return Handled("applied", decision.order), bool(decision.commands)

    def _save(self, unit: Unit, before: SalesOrder | None, decision: Decision) -> None:
        if decision.order is not before:
            unit.save(decision.order, before, decision.happened, decision.commands)
        for error in decision.errors:
            unit.add_error(error)

    def _let_in_waiting(self, unit: Unit, before: SalesOrder | None, order: SalesOrder) -> None:
        """Apply messages that waited for a number which this order has just got."""
        known = set() if before is None else set(before.externals)
        for external in order.externals:
            if external in known or external.entity not in ("order", "fulfillment order"):
                continue
            for waiting in unit.waiting(external.system, external.id):
                now = unit.order(order.id)
                decided = decide(now, waiting.message, self.setup, self.clock())
                if failed(decided):
                    unit.add_error(rejection(waiting.message, decided.failure()))
                else:
                    self._save(unit, now, decided.unwrap())

    def reject(self, rejected: Rejected) -> None:
        """Keep what could not be understood in the inbound error list."""
        with self.store.begin() as unit:
            unit.add_error(
                ErrorRecord(
                    f"{INBOUND}/{rejected.id}",
                    INBOUND,
                    self.clock(),
                    rejected.system,
                    rejected.what,
                    rejected.where,
                    None,
                    rejected.id,
                    "malformed",
                    rejected.payload[:MAX_PAYLOAD],
                )
            )

    # -- inbound: pullers and webhooks -----------------------------------------------------------------------------

    def pull(self, system: System, now: datetime | None = None) -> int:
        """Run a provider's puller to the end of what is new; returns how many messages and rejections came.

        The checkpoint is saved after the messages: what a crash interrupts comes again and is recognized. Raises what
        the provider's puller raises; an answer nobody can read is also kept in the inbound error list.
        """
        provider = self.providers[system]
        if provider.pull is None:
            raise Misconfigured(system, "this provider has no puller")
        taken, more = 0, True
        while more:
            with self.store.begin() as unit:
                checkpoint = unit.checkpoint(system)
            try:
                pulled = provider.pull(checkpoint, now or self.clock())
            except Misunderstood as fault:
                # Nothing of this batch can be read: people see it in the list, the engine comes again later.
                about = sha256(fault.what.encode()).hexdigest()[:16]
                self.reject(Rejected(MessageId(f"{system}/pull/{about}"), system, fault.what, "$"))
                raise
            taken += self.take(pulled)
            if pulled.checkpoint != checkpoint:
                with self.store.begin() as unit:
                    unit.set_checkpoint(system, pulled.checkpoint)
            more = pulled.more and pulled.checkpoint != checkpoint
        return taken

    def take(self, pulled: Pulled) -> int:
        """Take in a batch; one message that can't be handled never stops the others."""
        for each in pulled.messages:
            if isinstance(each, Rejected):
                self.reject(each)
                continue
            try:
                self.handle(each)
            except Fault:
                raise
            except Exception as bug:  # noqa: BLE001 - a message that breaks us is set aside; the others go on
                self.reject(
                    Rejected(
                        each.id,
                        each.system,
                        f"the message could not be handled: {type(bug).__name__}: {bug}",
                        "$",
                        each.external_id,
                        _written(each),
                    )
                )
        return len(pulled.messages)

    def webhook(self, system: System, headers: Mapping[str, str], body: bytes) -> Result[tuple[str, ...], Refused]:
        """Authenticate a notification and return the ids it hints at; read them with `follow` afterwards.

        What is refused here is kept in the inbound error list, without its headers.
        """
        provider = self.providers.get(system)
        if provider is None or provider.translate is None:
            return Failure(Refused("no-webhook", f"{system} takes no notifications", "$", system))
        translated = provider.translate(headers, body)
        if failed(translated):
            refused = translated.failure()
            # One entry per content, and one per day for strangers: who can't authenticate can't fill the store.
            known = refused.code not in STRANGERS
            about = sha256(body).hexdigest()[:16] if known else f"{self.clock():%Y-%m-%d}"
            text = body[:MAX_PAYLOAD].decode("utf-8", "replace") if known else ""
            message_id = MessageId(f"{system}/webhook/{refused.code}/{about}")
            self.reject(Rejected(message_id, system, refused.what, refused.where, "", text))
        return translated

    def follow(self, system: System, external_id: str) -> int:
        """Read what a notification hinted at, and take it in."""
        read = self.providers[system].read
        return 0 if read is None else self.take(Pulled(read(external_id, self.clock()), ""))

    # -- outbound: what an engine calls --------------------------------------------------------------------------

    def definition(self, command: Command) -> ActionDefinition | None:
        """Return a command's definition: its attempts and its timeout."""
        return self.setup.catalog.action(command.provider, command.action)

    def limits(self, provider: System, action: str) -> ActionLimits:
        """Return how long an action is tried; one without a definition has the usual limits."""
        found = self.setup.catalog.action(provider, action)
        return ActionLimits() if found is None else ActionLimits.of(found)

    def perform(self, command: Command, order: SalesOrder) -> ActionDone | ActionFailed:
        """Run a command against its provider's port, outside any transaction. Raises a `Fault`."""
        provider = self.providers.get(command.provider)
        action = None if provider is None else provider.actions.get(command.action)
        if action is None:
            raise Misconfigured(command.provider, f"no connection runs the action {command.action!r}")
        done = action.run(order, command)
        if failed(done):
            refused = done.failure()
            return ActionFailed(command.key, "refused", refused.what, refused.where)
        outcome = done.unwrap()
        errors = dict(outcome.line_errors)
        concerned = [line.id for line in order.lines if not line.canceled or line.quantity > 0]
        if errors and all(line in errors for line in concerned):
            first = next(iter(errors.values()))
            return ActionFailed(command.key, "refused", f"no line was taken: {first}", "$.lines", outcome.line_errors)
        return attrs.evolve(outcome, key=command.key)

    def settle(self, command: Command, outcome: ActionDone | ActionFailed, at: datetime) -> None:
        """Decide on a command's outcome and take the command out of the outbox, in one transaction."""
        message_id = MessageId(f"{command.key}!{command.attempt}")
        message = Message(message_id, command.provider, outcome, at, order_id=command.order_id)
        handled = self.handle(message, finishes=command.key)
        if failed(handled):
            # Nothing can be made of the outcome: it is listed, and the command doesn't come again.
            with self.store.begin() as unit:
                unit.finish(command.key)
                unit.add_error(rejection(message, handled.failure()))

    def run_job(self, job: str, event: str, orders: Iterable[SalesOrder], run: str) -> int:
        """Raise a job's event on *orders*; *run* names this run, so that repeating it changes nothing.

        Returns how many took it; an order in which the event isn't legal is left as it is.
        """
        taken = 0
        for order in orders:
            message_id = MessageId(f"job/{job}/{run}/{order.id}")
            body = JobDue(job, event)
            handled = self.handle(Message(message_id, System("iom"), body, self.clock(), order_id=order.id))
            taken += not failed(handled) and handled.unwrap().outcome == "applied"
        return taken

    # -- flows -----------------------------------------------------------------------------------------------------

    def publish(self, flow: Flow) -> Result[Flow, tuple[Refused, ...]]:
        """Publish a flow as its next version. Orders on their way keep the version they started with."""
        versions = [each.version for each in self.setup.flows if each.name == flow.name]
        published = flows.publish(attrs.evolve(flow, version=max(versions, default=0) + 1), self.setup.catalog)
        if not failed(published):
            self.setup = attrs.evolve(self.setup, flows=(*self.setup.flows, published.unwrap()))
        return published

    def set_status(self, name: str, status: FlowStatus) -> None:
        """Pause, resume or stop a flow. What arrives meanwhile waits; resuming takes up every order that does.

        Raises `KeyError` when there is no flow of that name.
        """
        latest = self.setup.latest[name]
        changed = attrs.evolve(latest, status=status)
        self.setup = attrs.evolve(
            self.setup, flows=tuple(changed if each is latest else each for each in self.setup.flows)
        )
        if status is FlowStatus.PUBLISHED:
            going = [each for each in self.store.orders() if any(run.flow == name for run in each.flows)]
            self.run_job("resume", "", going, f"{name}/{self.clock().isoformat()}")


def _written(message: Message) -> str:
    from iom_core.codec import to_json

    try:
        return to_json(message)
    except ValueError:  # what broke us may be the very content
        return repr(message)


def rejection(message: Message, refused: Refused) -> ErrorRecord:
    """Return the inbound error of a message whose content was refused."""
    from iom_core.codec import to_json

    return ErrorRecord(
        f"{INBOUND}/{message.id}",
        INBOUND,
        message.at,
        message.system,
        refused.what,
        refused.where,
        None,
        message.id,
        refused.code,
        to_json(message)[:MAX_PAYLOAD],
    )


def fault_kind(fault: Fault) -> str:
    """Name a fault as `ActionFailed.kind` does."""
    for kind, name in (
        (Unavailable, "unavailable"),
        (Misunderstood, "misunderstood"),
        (Misconfigured, "misconfigured"),
    ):
        if isinstance(fault, kind):
            return name
    return "unavailable"
