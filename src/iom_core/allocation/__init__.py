"""Fulfillment optimization: which source ships which line.

For now the simplest allocator that respects stock: a line goes whole to the first source, by priority, that can ship
it, otherwise it is split over sources if together they can; otherwise it isn't sourced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import attrs

from iom_core.messages import Sourced
from iom_core.order import OrderLine
from iom_core.values import ProductId, SourceId


@attrs.frozen
class Source:
    """A warehouse, distribution center, store, vendor or virtual site that can ship. *priority* 1 comes before 2."""

    id: SourceId
    site: str = ""
    warehouse: str = ""
    priority: int = 1
    active: bool = True


def source_lines(
    lines: Sequence[OrderLine], sources: Sequence[Source], stock: Mapping[tuple[str, ProductId], Decimal]
) -> tuple[Sourced, ...]:
    """Return where each line ships from; lines that no sources can ship together are absent.

    Never takes more than *stock* of a source, also over several lines of one product.
    """
    left = dict(stock)
    plan: list[Sourced] = []
    ranked = sorted((each for each in sources if each.active), key=lambda each: (each.priority, each.id))
    for line in lines:
        wanted = line.quantity
        whole = [each for each in ranked if left.get((each.id, line.product), Decimal(0)) >= wanted]
        chosen = whole[:1] or ranked
        parts: list[Sourced] = []
        for each in chosen:
            share = min(wanted, left.get((each.id, line.product), Decimal(0)))
            if share > 0:
                parts.append(Sourced(line.id, each.id, share, each.site, each.warehouse))
                wanted -= share
        if wanted > 0:
            continue
        for part in parts:
            left[part.source, line.product] -= part.quantity
        plan += parts
    return tuple(plan)
