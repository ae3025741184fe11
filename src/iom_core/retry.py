"""When to try again: the one retry policy, as a pure function of the kind of fault, the attempt and the time."""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs

from iom_core.errors import Fault, Unavailable
from iom_core.flow import ActionDefinition


@attrs.frozen
class Backoff:
    """Exponential back-off with full jitter: attempt *n* waits up to ``first * 2^(n-1)`` seconds, at most *longest*."""

    first: float = 1.0
    longest: float = 300.0

    def seconds(self, attempt: int, chance: float) -> float:
        """Return the wait after *attempt* tries; *chance* in [0, 1] is the jitter."""
        ceiling = min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))
        return ceiling * (0.5 + chance / 2)


def next_try(
    fault: Fault,
    attempt: int,
    first_at: datetime,
    now: datetime,
    definition: ActionDefinition,
    chance: float,
    backoff: Backoff = Backoff(),
) -> datetime | None:
    """Return when a failed call should be repeated, or ``None`` when it should not.

    Only what is unavailable is tried again, as the provider asks (*retry_after*) or backing off, within the action's
    attempts and timeout. A payload or a configuration that is wrong stays wrong.
    """
    if not isinstance(fault, Unavailable) or attempt >= definition.max_attempts:
        return None
    wait = fault.retry_after if fault.retry_after is not None else backoff.seconds(attempt, chance)
    at = now + timedelta(seconds=wait)
    return None if at > first_at + timedelta(minutes=definition.timeout_minutes) else at
