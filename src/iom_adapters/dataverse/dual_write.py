"""Dual-write's rules: which rows cross between Dataverse and F&O, as what, and in which order. No I/O.

Facts and their sources: dual-write overview, mapping reference and sales status map of the F&O documentation
(MicrosoftDocs/dynamics-365-unified-operations-public, CC-BY-4.0). The maps themselves are data, in `maps`.

    plan(changes, maps, references)      Dataverse to F&O: the rows to write, in map order, or the first refusal
    to_dataverse(map, entity, …)         F&O to Dataverse: one row, found by its integration key
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Protocol

import attrs
from returns.result import Failure, Result, Success

from iom_adapters._odata import DATAVERSE, Predicate, compile_filter, parse_filter
from iom_core.outcome import Refused, failed

Scalar = str | int | bool | Decimal | None
"""One value of a row. Money and quantities are `Decimal`; dates are text in the side's own form."""
Row = Mapping[str, Any]
"""A Dataverse row as the Web API reads it: a lookup column ``x`` is ``_x_value`` with the id of the other row."""

COMPANY_COLUMN: Final = "_msdyn_company_value"
NO_DATE: Final = "1900-01-01T12:00:00Z"
"""F&O has no empty date; the whole day 1900-01-01 counts as empty."""
MAX_ROWS: Final = 1000
"""Rows of all maps together in one F&O transaction."""


class Kind(StrEnum):
    """How one field pair crosses; the sign is the one the mapping reference prints."""

    COPY = "="
    COPY_TO_DATAVERSE = ">"
    COPY_TO_ERP = "<"
    MAP = "><"
    MAP_TO_DATAVERSE = ">>"
    MAP_TO_ERP = "<<"


TO_ERP: Final = frozenset({Kind.COPY, Kind.COPY_TO_ERP, Kind.MAP, Kind.MAP_TO_ERP})
TO_DATAVERSE: Final = frozenset({Kind.COPY, Kind.COPY_TO_DATAVERSE, Kind.MAP, Kind.MAP_TO_DATAVERSE})


@attrs.frozen
class ValueMap:
    """A value map: pairs of F&O's symbol and Dataverse's value. Text is compared without regard to case."""

    name: str
    pairs: tuple[tuple[str, Scalar], ...]

    def to_erp(self, value: Scalar) -> str | None:
        """Return F&O's symbol of *value*; ``None`` when the map has none."""
        return next((erp for erp, dataverse in self.pairs if _alike(dataverse, value)), None)

    def to_dataverse(self, symbol: str) -> Scalar:
        """Return Dataverse's value of *symbol*; ``None`` when the map has none."""
        return next((dataverse for erp, dataverse in self.pairs if _alike(erp, symbol)), None)

    def extended(self, more: Mapping[str, Scalar]) -> ValueMap:
        """Return this map with *more* pairs, which win over its own."""
        kept = tuple(pair for pair in self.pairs if pair[0].casefold() not in {each.casefold() for each in more})
        return attrs.evolve(self, pairs=(*kept, *more.items()))


def _alike(left: Scalar, right: Scalar) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    return type(left) is type(right) and left == right


@attrs.frozen
class Target:
    """Where a lookup looks: a row of *table* (an entity set) whose *column* has the value."""

    table: str
    column: str


@attrs.frozen
class Pair:
    """One field pair of a map. *erp* is the F&O property (``""``: none), *column* the Dataverse column.

    *targets* makes it a lookup, tried in order. *values* or *constant* is its transformation. *date* converts
    F&O's noon timestamps to dates. *within* is the rest of a path that reaches through a lookup of the other row;
    dual-write uses it to narrow the search, we only keep it.
    """

    erp: str
    kind: Kind
    column: str
    targets: tuple[Target, ...] = ()
    values: ValueMap | None = None
    constant: Scalar = None
    date: bool = False
    within: str = ""

    @property
    def stored(self) -> str:
        """Return the name under which a row holds the column."""
        return f"_{self.column}_value" if self.targets else self.column


@attrs.frozen
class TableMap:
    """An F&O data entity and a Dataverse table that are kept equal.

    *key* names the integration key: columns of an alternate key of the Dataverse table (the company belongs to it
    when *striped*). *filter* is the OData filter a Dataverse row must pass ("reversed source filter"), *erp_filter*
    the property an F&O row must not have empty. A row that does not pass is ignored silently.
    """

    name: str
    entity_set: str
    table: str
    key: tuple[str, ...]
    pairs: tuple[Pair, ...]
    filter: str = ""
    erp_filter: str = ""
    striped: bool = True

    @property
    def two_way(self) -> bool:
        """Return whether any field goes to F&O, which makes the map two-way."""
        return any(pair.kind in TO_ERP for pair in self.pairs)

    def key_pairs(self) -> tuple[Pair, ...]:
        """Return the pairs that make the integration key."""
        return tuple(pair for pair in self.pairs if pair.column in self.key)

    def problems(self) -> tuple[str, ...]:
        """Return what dual-write's validation would refuse, with its error codes."""
        mapped = {pair.column for pair in self.pairs}
        missing = [f"DIPV1003: integration key {column} is not mapped" for column in self.key if column not in mapped]
        one_way = [
            f"DIPV1004: integration key {pair.column} is not mapped in both directions"
            for pair in self.key_pairs()
            if self.two_way and pair.kind not in TO_ERP & TO_DATAVERSE
        ]
        return (*missing, *one_way)


class References(Protocol):
    """How to look at other rows of Dataverse, to resolve lookups. A table is named by its entity set."""

    def value_of(self, table: str, row_id: str, column: str) -> Scalar:
        """Return a column of another row; ``None`` when there is no such row or it is empty."""
        ...

    def id_of(self, table: str, match: Mapping[str, Scalar], company: str | None) -> str | None:
        """Return the id of the row with these columns, in that company (its row id) when the table is striped."""
        ...


@attrs.frozen
class ErpRow:
    """A row for F&O: *key* without the company finds it; *values* are to be set. *delete* removes it."""

    entity_set: str
    company: str
    key: tuple[tuple[str, Scalar], ...]
    values: tuple[tuple[str, Scalar], ...] = ()
    delete: bool = False


@attrs.frozen
class DataverseRow:
    """A row for Dataverse: *key* and *values* by stored name (``_x_value`` for lookups), company included."""

    table: str
    key: tuple[tuple[str, Scalar], ...]
    values: tuple[tuple[str, Scalar], ...]


@attrs.frozen
class Change:
    """A committed or committing change of one Dataverse row; *after* is ``None`` when it was deleted.

    *echo* is true when the change came over dual-write: it is never sent back.
    """

    table: str
    row_id: str
    after: Row | None
    before: Row | None = None
    echo: bool = False


@attrs.frozen
class _WithGone:
    """References that still know the rows a transaction deletes: a deleted line names its deleted header."""

    references: References
    gone: Mapping[tuple[str, str], Row]

    def value_of(self, table: str, row_id: str, column: str) -> Scalar:
        found = self.references.value_of(table, row_id, column)
        value: Scalar = self.gone.get((table, row_id), {}).get(column) if found is None else found
        return value

    def id_of(self, table: str, match: Mapping[str, Scalar], company: str | None) -> str | None:
        return self.references.id_of(table, match, company)


def collapse(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Merge the changes one transaction made to each row: the first *before*, the last *after*."""
    merged: dict[tuple[str, str], Change] = {}
    for change in changes:
        first = merged.get((change.table, change.row_id))
        merged[change.table, change.row_id] = change if first is None else attrs.evolve(first, after=change.after)
    return tuple(each for each in merged.values() if each.before is not None or each.after is not None)


@lru_cache(maxsize=64)
def _predicate(text: str) -> Predicate:
    return compile_filter(parse_filter(text), DATAVERSE)


def passes(table_map: TableMap, row: Row | None) -> bool:
    """Say whether a Dataverse row is to be synchronized: it has a company and passes the map's filter.

    ``null ne 1`` is true, as in the OData standard; whether dual-write agrees is not documented.
    """
    if row is None or (table_map.striped and row.get(COMPANY_COLUMN) is None):
        return False
    return not table_map.filter or _predicate(table_map.filter)(row)


def erp_passes(table_map: TableMap, entity: Row) -> bool:
    """Say whether an F&O row is to be synchronized."""
    return not table_map.erp_filter or entity.get(table_map.erp_filter) not in (None, "")


def plan(
    changes: Iterable[Change], maps: Sequence[TableMap], references: References
) -> Result[tuple[ErpRow, ...], Refused]:
    """Return what F&O must be told about *changes*, in the order of *maps*; deletions last, in reverse.

    A row that passed the filter before sends only what changed; a row that passes for the first time sends all
    it has. Echoes and rows that do not pass send nothing. The first value without a mapping and the first lookup
    that finds nothing refuse the whole.
    """
    changed = collapse(change for change in changes if not change.echo)
    gone = {(each.table, each.row_id): each.before or {} for each in changed if each.after is None}
    references = _WithGone(references, gone)
    writes: list[ErpRow] = []
    deletes: list[ErpRow] = []
    for table_map in maps:
        if not table_map.two_way:
            continue
        for change in changed:
            if change.table != table_map.table:
                continue
            if change.after is None:
                if change.before is not None and passes(table_map, change.before):
                    found = _identify(table_map, change.before, references)
                    if failed(found):
                        return found
                    deletes.insert(0, attrs.evolve(found.unwrap(), delete=True))
                continue
            if not passes(table_map, change.after):
                continue
            before = change.before if passes(table_map, change.before) else None
            written = to_erp(table_map, change.after, references, before)
            if failed(written):
                return written
            if written.unwrap().values or before is None:
                writes.append(written.unwrap())
    return Success((*writes, *deletes))


def to_erp(table_map: TableMap, row: Row, references: References, before: Row | None = None) -> Result[ErpRow, Refused]:
    """Translate a Dataverse row; with *before*, only the columns that differ from it.

    An empty column is not sent, unless it has just been emptied.
    """
    identified = _identify(table_map, row, references)
    if failed(identified):
        return identified
    values: dict[str, Scalar] = {}
    for pair in table_map.pairs:
        if pair.kind not in TO_ERP or not pair.erp or pair.column in table_map.key:
            continue
        now, then = row.get(pair.stored), None if before is None else before.get(pair.stored)
        if before is not None and now == then:
            continue
        if now is None:
            if then is not None:
                values[pair.erp] = _emptied(pair, then)
            continue
        value = _value_to_erp(table_map, pair, now, references)
        if failed(value):
            return value
        values[pair.erp] = value.unwrap()
    return Success(attrs.evolve(identified.unwrap(), values=tuple(values.items())))


def _identify(table_map: TableMap, row: Row, references: References) -> Result[ErpRow, Refused]:
    company = ""
    if table_map.striped:
        company = str(references.value_of("cdm_companies", row[COMPANY_COLUMN], "cdm_companycode") or "").lower()
        if not company:
            return Failure(_refuse(table_map, "msdyn_company", "the company is unknown"))
    key: list[tuple[str, Scalar]] = []
    for pair in table_map.key_pairs():
        now = row.get(pair.stored)
        if now is None:
            return Failure(_refuse(table_map, pair.column, f"the integration key {pair.column} is empty"))
        value = _value_to_erp(table_map, pair, now, references)
        if failed(value):
            return value
        key.append((pair.erp, value.unwrap()))
    return Success(ErpRow(table_map.entity_set, company, tuple(key)))


def _value_to_erp(table_map: TableMap, pair: Pair, value: Any, references: References) -> Result[Scalar, Refused]:
    if pair.targets:
        found = (references.value_of(each.table, value, each.column) for each in pair.targets)
        other = next((each for each in found if each is not None), None)
        if other is None:
            return Failure(_refuse(table_map, pair.column, f"the lookup {pair.column} = {value} can't be resolved"))
        return Success(other)
    if pair.values is not None:
        symbol = pair.values.to_erp(value)
        if symbol is None:
            what = f"the value {value!r} of {pair.column} has no mapping in value map {pair.values.name}"
            return Failure(_refuse(table_map, pair.column, what))
        return Success(symbol)
    if pair.date:
        return Success(f"{str(value)[:10]}T12:00:00Z")
    return Success(Decimal(str(value)) if isinstance(value, float) else value)


def _emptied(pair: Pair, before: Any) -> Scalar:
    if pair.date:
        return NO_DATE
    return "" if pair.targets or isinstance(before, str) else Decimal(0)


def to_dataverse(
    table_map: TableMap, entity: Row, references: References, *, keep_unmapped: bool = False
) -> Result[DataverseRow, Refused]:
    """Translate an F&O row (its properties, ``dataAreaId`` included).

    Properties absent from *entity* are left alone; constants are always set. A value without a mapping is an
    application error, unless *keep_unmapped*: then the old value stays. The documentation does not say which of
    the two a status outside the CDS map meets.
    """
    company: str | None = None
    if table_map.striped:
        code = str(entity.get("dataAreaId", ""))
        company = references.id_of("cdm_companies", {"cdm_companycode": code}, None)
        if company is None:
            return Failure(_refuse(table_map, "msdyn_company", f"the company {code!r} is unknown", to_erp=False))
    values: dict[str, Scalar] = {} if company is None else {COMPANY_COLUMN: company}
    lookups: dict[str, list[Pair]] = {}
    for pair in table_map.pairs:
        if pair.kind not in TO_DATAVERSE or pair.within:
            continue
        if not pair.erp:
            values[pair.column] = pair.constant
        elif pair.targets:
            lookups.setdefault(pair.column, []).append(pair)
        elif pair.erp in entity:
            value = _value_to_dataverse(table_map, pair, entity[pair.erp])
            if failed(value):
                if not keep_unmapped:
                    return value
            else:
                values[pair.column] = value.unwrap()
    for column, pairs in lookups.items():
        if all(pair.erp in entity for pair in pairs):
            resolved = _resolve(table_map, pairs, entity, references, company)
            if failed(resolved):
                return resolved
            values[f"_{column}_value"] = resolved.unwrap()
    key = tuple((pair.stored, values.get(pair.stored)) for pair in _once(table_map.key_pairs()))
    empty = next((name for name, value in key if value is None), None)
    if empty is not None:
        return Failure(_refuse(table_map, empty, f"the integration key {empty} is empty", to_erp=False))
    striped = ((COMPANY_COLUMN, company),) if company is not None else ()
    return Success(DataverseRow(table_map.table, (*key, *striped), tuple(values.items())))


def _once(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple({pair.stored: pair for pair in pairs}.values())


def _value_to_dataverse(table_map: TableMap, pair: Pair, value: Any) -> Result[Scalar, Refused]:
    if pair.values is not None:
        if value in (None, ""):
            return Success(None)
        mapped = pair.values.to_dataverse(str(value))
        if mapped is None:
            what = f"the value {value!r} of {pair.erp} has no mapping in value map {pair.values.name}"
            return Failure(_refuse(table_map, pair.column, what, to_erp=False))
        return Success(mapped)
    if pair.date:
        day = str(value or "")[:10]
        return Success(None if day in ("", NO_DATE[:10]) else day)
    return Success(None if value == "" else value)


def _resolve(
    table_map: TableMap, pairs: Sequence[Pair], entity: Row, references: References, company: str | None
) -> Result[Scalar, Refused]:
    if all(entity[pair.erp] in (None, "") for pair in pairs):
        return Success(None)
    alternatives = len(pairs[0].targets)
    for index in range(alternatives):
        match: dict[str, Scalar] = {}
        for pair in pairs:
            value = _value_to_dataverse(table_map, pair, entity[pair.erp])
            if failed(value):
                return value
            match[pair.targets[index].column] = value.unwrap()
        found = references.id_of(pairs[0].targets[index].table, match, company)
        if found is not None:
            return Success(found)
    shown = ", ".join(f"{pair.erp} = {entity[pair.erp]!r}" for pair in pairs)
    return Failure(_refuse(table_map, pairs[0].column, f"no row for {shown}", to_erp=False))


def in_map_order(entity_sets: Sequence[str], maps: Sequence[TableMap]) -> list[int]:
    """Return the positions of *entity_sets* in the order of their maps, otherwise as they came."""
    rank = {table_map.entity_set: index for index, table_map in enumerate(maps)}
    return sorted(range(len(entity_sets)), key=lambda index: rank.get(entity_sets[index], len(maps)))


def _refuse(table_map: TableMap, column: str, what: str, *, to_erp: bool = True) -> Refused:
    """Word a refusal the way dual-write words it."""
    written = table_map.table if to_erp else table_map.entity_set
    other = table_map.entity_set if to_erp else table_map.table
    return Refused(
        code="application-error",
        what=f"Unable to write data to entity {written}. Writes to {other} failed with error message {what}",
        where=f"$.{column}",
        who="dual-write",
    )
