"""Internal–external id mapping of master data: what each provider calls our products, warehouses, accounts and units.

Orders and their records are mapped as they cross (`SalesOrder.externals`); what is here is configured. Source:
Intelligent Order Management, topics/internal-external-id-mapping.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from returns.result import Failure, Result, Success

from iom_core.messages import OrderDraft
from iom_core.outcome import Refused
from iom_core.values import ProductId, Quantity, System

TABLES: Final = ("accounts", "products", "price lists", "warehouses", "currencies", "unit groups", "units")
"""The tables whose ids are mapped by configuration."""


@attrs.frozen
class MappingRow:
    """*provider* calls our record *internal* of *table* by *value* in its field *field*."""

    provider: System
    table: str
    field: str
    value: str
    internal: str


@attrs.frozen
class IdMapping:
    """Every configured row. A provider with no row for a table uses our ids for it as they are."""

    rows: tuple[MappingRow, ...] = ()
    _inward: Mapping[tuple[str, str], Mapping[str, MappingRow]] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        inward: dict[tuple[str, str], dict[str, MappingRow]] = {}
        for row in self.rows:
            inward.setdefault((row.provider, row.table), {})[row.value] = row
        object.__setattr__(self, "_inward", inward)

    def add(self, row: MappingRow) -> tuple[IdMapping, MappingRow]:
        """Create a mapping; one that exists for that provider, table and value is returned as it is.

        Raises `ValueError` for a table that isn't mapped.
        """
        if row.table not in TABLES:
            raise ValueError(f"there is no mapping table {row.table!r}; known are {', '.join(TABLES)}")
        known = self._inward.get((row.provider, row.table), {}).get(row.value)
        if known is not None:
            return self, known
        return IdMapping((*self.rows, row)), row

    def internal(self, provider: System, table: str, value: str, where: str = "$") -> Result[str, Refused]:
        """Return our id for a provider's; a look-up that finds nothing names provider, table, field and value."""
        rows = self._inward.get((provider, table))
        if rows is None:
            return Success(value)
        row = rows.get(value)
        if row is None:
            field = next(iter(rows.values())).field
            return Failure(
                Refused(
                    "unmapped", f"{provider} has no mapping in table {table!r} for {field} = {value!r}", where, provider
                )
            )
        return Success(row.internal)

    def external(self, provider: System, table: str, internal: str, where: str = "$") -> Result[str, Refused]:
        """Return a provider's id for ours; a look-up that finds nothing names provider, table, field and value."""
        rows = self._inward.get((provider, table))
        if rows is None:
            return Success(internal)
        for row in rows.values():
            if row.internal == internal:
                return Success(row.value)
        field = next(iter(rows.values())).field
        return Failure(
            Refused(
                "unmapped",
                f"{provider} has no mapping in table {table!r} ({field}) for our {internal!r}",
                where,
                provider,
            )
        )

    def translate(self, provider: System, draft: OrderDraft) -> Result[OrderDraft, Refused]:
        """Put our ids in place of the provider's: products and units of the lines, the customer's account."""
        if not any(row.provider == provider for row in self.rows):
            return Success(draft)
        lines = []
        for index, line in enumerate(draft.lines):
            product = self.internal(provider, "products", line.product, f"$.lines[{index}].product")
            unit = self.internal(provider, "units", line.quantity.unit, f"$.lines[{index}].quantity.unit")
            for looked_up in (product, unit):
                if isinstance(looked_up, Failure):
                    return Failure(looked_up.failure())
            lines.append(
                attrs.evolve(
                    line,
                    product=ProductId(product.unwrap()),
                    quantity=Quantity(line.quantity.amount, unit.unwrap()),
                )
            )
        customer = (
            Success(draft.customer)
            if not draft.customer
            else self.internal(provider, "accounts", draft.customer, "$.customer")
        )
        return customer.map(lambda account: attrs.evolve(draft, lines=tuple(lines), customer=account))
