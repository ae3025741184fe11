"""The twin's dual-write engine: live maps write both sides or nothing, paused maps queue, what failed can be retried.

Facts: dual-write overview, error management and limits pages of the F&O documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

import attrs

from iom_adapters._clock import Clock
from iom_adapters.dataverse.dual_write import (
    MAX_ROWS,
    Change,
    ErpRow,
    Row,
    TableMap,
    erp_passes,
    in_map_order,
    passes,
    plan,
    to_dataverse,
)
from iom_adapters.dataverse.maps import IOM_MAPS, SALES_STATES
from iom_adapters.dataverse.rows import DuplicateKey, Rows
from iom_adapters.dataverse.tables import TABLES
from iom_core.outcome import failed

QUEUE_AGE: Final = timedelta(days=7)
"""A paused map's queue holds seven days (or one gigabyte); then writes are blocked."""
ERROR_AGE: Final = timedelta(days=1)
"""Rows in error are purged after a day."""


class ErpRefusal(Exception):
    """F&O said no to a row; the text is its own."""


class DualWriteRefusal(Exception):
    """Dual-write could not keep both sides equal: neither side may keep the change. The text is dual-write's."""


class ErpSide(Protocol):
    """The F&O end of dual-write."""

    def write(self, rows: Sequence[ErpRow]) -> None:
        """Create or change (or delete) all *rows*, in this order, in one transaction.

        Raises `ErpRefusal` with F&O's text, and then has changed nothing.
        """
        ...


@attrs.frozen
class ErpChange:
    """A row that changed in F&O: its OData properties, ``dataAreaId`` included. *deleted* rows need only their key."""

    entity_set: str
    entity: Mapping[str, Any]
    deleted: bool = False


@attrs.frozen
class Queued:
    """A change that waits for its map, or failed while it was played back (*error*)."""

    key: str
    map_name: str
    at: str
    error: str


@attrs.define
class Replication:
    """Dual-write between the rows of one Dataverse and one F&O.

    *keep_unmapped* chooses what an F&O value without a mapping does (see `dual_write.to_dataverse`).
    *sop_integration* is the organization's ``IsSOPIntegrationEnabled``: whether F&O's status moves the state of a
    sales order.
    """

    rows: Rows
    clock: Clock
    erp: ErpSide | None = None
    maps: tuple[TableMap, ...] = IOM_MAPS
    keep_unmapped: bool = False
    sop_integration: bool = True

    # --- states of the maps

    def state(self, map_name: str) -> str:
        """Return a map's status: ``"Running"``, ``"Paused"`` or ``"Not running"``."""
        return str(self.rows.docs.get("dual-write map", map_name) or "Running")

    def set_state(self, state: str, map_names: Iterable[str] = ()) -> None:
        """Change the status of the named maps; none named: of all."""
        for name in map_names or [each.name for each in self.maps]:
            self.rows.docs.put("dual-write map", name, state)

    def queued(self) -> tuple[Queued, ...]:
        """Return what waits or failed, oldest first."""
        docs = self.rows.docs
        found = ((key, docs.get("dual-write queue", key) or {}) for key in sorted(docs.keys("dual-write queue")))
        return tuple(Queued(key, each["map"], each["at"], each["error"]) for key, each in found)

    def resume(self, begin: Callable[[], None], end: Callable[[], None]) -> tuple[Queued, ...]:
        """Run every map again and play the queue back in order; returns what failed and stays for a retry.

        *begin* and *end* bracket the transaction of each queued change.
        """
        self.set_state("Running")
        docs = self.rows.docs
        for key in sorted(docs.keys("dual-write queue")):
            queued = docs.get("dual-write queue", key) or {}
            if queued["error"] and self.clock() - _moment(queued["at"]) > ERROR_AGE:
                docs.delete("dual-write queue", key)
                continue
            begin()
            try:
                self._play(queued)
            except DualWriteRefusal as refused:
                self.rows.roll_back()
                docs.put("dual-write queue", key, {**queued, "error": str(refused), "at": _text(self.clock())})
            else:
                docs.delete("dual-write queue", key)
            end()
        return tuple(each for each in self.queued() if each.error)

    def _play(self, queued: Mapping[str, Any]) -> None:
        if "entity" in queued:
            self.inbound([ErpChange(queued["entity_set"], queued["entity"], queued["deleted"])])
        else:
            self.outbound([Change(queued["table"], queued["row_id"], queued["after"], queued["before"])])

    def _queue(self, table_map: TableMap, what: Mapping[str, Any]) -> None:
        docs = self.rows.docs
        waiting = docs.keys("dual-write queue")
        if waiting:
            oldest = docs.get("dual-write queue", min(waiting)) or {}
            if self.clock() - _moment(oldest["at"]) > QUEUE_AGE:
                raise DualWriteRefusal(f"The queue of the paused map {table_map.name} is full.")
        key = f"{docs.next('dual-write queue'):012d}"
        self.rows.keep("dual-write queue", key, {**what, "map": table_map.name, "at": _text(self.clock()), "error": ""})

    # --- Dataverse to F&O

    def outbound(self, changes: Sequence[Change]) -> None:
        """Send what one Dataverse transaction changed; raises `DualWriteRefusal`, then roll back."""
        if self.erp is None:
            return
        running = tuple(each for each in self.maps if self.state(each.name) == "Running")
        for table_map in self.maps:
            if self.state(table_map.name) == "Paused" and table_map.two_way:
                self._queue_changes(table_map, changes)
        planned = plan(changes, running, self.rows)
        if failed(planned):
            raise DualWriteRefusal(planned.failure().what)
        if not planned.unwrap():
            return
        try:
            self.erp.write(planned.unwrap())
        except ErpRefusal as no:
            first = planned.unwrap()[0]
            table = next(each.table for each in running if each.entity_set == first.entity_set)
            raise DualWriteRefusal(
                f"Unable to write data to entity {table}. Writes to {first.entity_set} failed with error message {no}"
            ) from no

    def _queue_changes(self, table_map: TableMap, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.table != table_map.table or change.echo:
                continue
            if passes(table_map, change.after) or (change.after is None and passes(table_map, change.before)):
                what = {"table": change.table, "row_id": change.row_id, "after": change.after, "before": change.before}
                self._queue(table_map, what)

    # --- F&O to Dataverse

    def inbound(self, changes: Sequence[ErpChange]) -> None:
        """Write what one F&O transaction changed; raises `DualWriteRefusal`, then roll back."""
        if len(changes) > MAX_ROWS:
            raise DualWriteRefusal(f"One transaction may hold {MAX_ROWS} records, not {len(changes)}.")
        for index in in_map_order([each.entity_set for each in changes], self.maps):
            change = changes[index]
            table_map = next((each for each in self.maps if each.entity_set == change.entity_set), None)
            if table_map is None or not (change.deleted or erp_passes(table_map, change.entity)):
                continue
            state = self.state(table_map.name)
            if state == "Paused":
                entity = {name: _json(value) for name, value in change.entity.items()}
                self._queue(table_map, {"entity_set": change.entity_set, "entity": entity, "deleted": change.deleted})
            elif state == "Running":
                self._arrive(table_map, change)

    def _arrive(self, table_map: TableMap, change: ErpChange) -> None:
        translated = to_dataverse(table_map, change.entity, self.rows, keep_unmapped=self.keep_unmapped)
        if failed(translated):
            raise DualWriteRefusal(translated.failure().what)
        arrived = translated.unwrap()
        found = self.rows.find(table_map.table, dict(arrived.key))
        id_column = TABLES[table_map.table].id_column
        if change.deleted:
            for row in found:
                self.rows.delete(table_map.table, row[id_column], echo=True)
            return
        row_id = str(found[0][id_column]) if found else self.rows.new_id()
        values: dict[str, Any] = {name: _json(value) for name, value in arrived.values}
        if table_map.table == "salesorders" and self.sop_integration:
            values |= _sales_state(values)
        try:
            self.rows.put(table_map.table, row_id, values, echo=True)
        except DuplicateKey as twice:
            raise DualWriteRefusal(str(twice)) from twice


def _sales_state(values: Row) -> dict[str, Any]:
    state = SALES_STATES.get(values.get("msdyn_processingstatus"))
    if state is None:
        return {}
    code, reason = state
    return {"statecode": code} if reason is None else {"statecode": code, "statuscode": reason}


def _json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _text(at: datetime) -> str:
    return at.isoformat()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
