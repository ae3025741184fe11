"""When to try again: the one retry policy, as a pure function of the kind of fault, the attempt and the time."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import attrs

from iom_core.errors import Fault, Unavailable
from iom_core.flow import ActionDefinition


@attrs.frozen
class ActionLimits:
    """How long a provider action is tried before it fails as unavailable: whichever limit is reached first."""

    max_attempts: int = 8
    timeout: timedelta = timedelta(minutes=60)
    """Since the first attempt."""

    @classmethod
    def of(cls, definition: ActionDefinition) -> ActionLimits:
        """Take the limits of a provider action's definition."""
        return cls(definition.max_attempts, timedelta(minutes=definition.timeout_minutes))


@attrs.frozen
class Backoff:
    """How long to wait after the n-th failure: between nothing and *first* · 2ⁿ⁻¹ seconds, at most *longest*.

    The whole span is drawn from ("full jitter"), so that what failed together doesn't come back together.
    """

    first: float = 1.0
    longest: float = 300.0

    def ceiling(self, failures: int) -> float:
        """Return the longest wait in seconds after so many failures in a row, from 1."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 60))

    def wait(self, failures: int, chance: float) -> float:
        """Return the wait in seconds after so many failures in a row, from 1; *chance* is drawn from [0, 1]."""
        return self.ceiling(failures) * chance


def next_try(
    fault: Fault,
    attempt: int,
    first_at: datetime,
    now: datetime,
    limits: ActionLimits,
    chance: float,
    backoff: Backoff = Backoff(),
) -> datetime | None:
    """Return when a failed call should be repeated, or ``None`` when it should not.

    Only what is unavailable is tried again, within the action's attempts and timeout: not before the time the provider
    asked for (*retry_after*), otherwise backing off. A payload or a configuration that is wrong stays wrong.
    """
    left = (first_at + limits.timeout - now).total_seconds()
    if not isinstance(fault, Unavailable) or attempt >= limits.max_attempts or left <= 0:
        return None
    asked = fault.retry_after
    if asked is None or not math.isfinite(asked):
        # The last attempt may be at the very end, but there is one.
        return now + timedelta(seconds=min(backoff.wait(attempt, chance), left))
    if asked > left:
        return None
    # A little after it, each at another moment.
    return now + timedelta(seconds=max(0.0, asked) + backoff.wait(1, chance))
