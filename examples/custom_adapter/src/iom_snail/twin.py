"""Snail's warehouse in memory: it answers what Snail answers, and has back doors for tests and demos.

It fits `iom_core.testing.conformance.FulfillmentHarness` by its shape, so nothing here imports a test tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from iom_snail.adapter import Snail


class SnailTwin:
    """The warehouse, the line to it, and an adapter at the other end of the line."""

    now = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)

    def __init__(self) -> None:
        self._orders: dict[str, dict[str, str]] = {}
        self._parcels: list[dict[str, Any]] = []
        self._down = self._lose = False
        self._closed = ""
        self.provider = Snail(self.call)

    def call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Answer as Snail does."""
        if self._down:
            raise ConnectionError("nobody answers")
        answer = self._parcels_after(path) if method == "GET" else self._write(method, path.split("/")[-1], body)
        if self._lose and method != "GET":
            self._lose = False
            raise ConnectionError("the answer was lost")
        return answer

    def _parcels_after(self, path: str) -> tuple[int, Any]:
        return 200, self._parcels[int(path.split("=")[-1]) :]

    def _write(self, method: str, order: str, body: Any) -> tuple[int, Any]:
        if self._closed:
            return 422, {"why": self._closed}
        if method == "DELETE" and any(each.get("order") == f"S-{order}" for each in self._parcels):
            return 422, {"why": "it is on its way"}
        if method == "DELETE":
            self._orders.pop(order, None)
        else:
            self._orders.setdefault(order, body)
        return 200, {"number": f"S-{order}"}

    # -- back doors ----------------------------------------------------------------------------------------------------

    def go_down(self) -> None:
        """Cut the line."""
        self._down = True

    def come_back(self) -> None:
        """Mend it."""
        self._down = False

    def lose_next_answer(self) -> None:
        """Cut it after the next write has arrived."""
        self._lose = True

    def restart(self) -> None:
        """Start a new process: another adapter, the same warehouse."""
        self.provider = Snail(self.call)

    def refuse(self, why: str) -> None:
        """Close the warehouse, or open it with ``""``."""
        self._closed = why

    def placed(self) -> Sequence[str]:
        """Return what it ships or has shipped."""
        return list(self._orders)

    def ship(self, fulfillment_order: str) -> None:
        """Let an order leave."""
        self._parcels.append(
            {
                "id": f"P{len(self._parcels) + 1}",
                "order": f"S-{fulfillment_order}",
                "lines": self._orders[fulfillment_order],
                "left_at": self.now.isoformat(),
                "tracking": f"SLOW-{len(self._parcels) + 1}",
            }
        )

    def ship_part(self, fulfillment_order: str) -> bool:
        """Say that Snail doesn't do that."""
        return False

    def plant_malformed(self) -> None:
        """Let a parcel's row lose its lines."""
        self._parcels.append({"id": f"P{len(self._parcels) + 1}", "order": "S-?"})
