"""Faults: the exceptions that say whose fault it is, so that a retry policy can read only that.

    Fault
    ├── Unavailable     theirs, for now: try again (``retry_after`` seconds, when they said so)
    ├── Misunderstood   theirs: what they sent can't be read; trying again won't help
    └── Misconfigured   ours: a credential, an address, a mapping is wrong; a person must mend it

A business *no* is not a fault: it is a ``Refused`` value (see `iom_core.outcome`).
"""

from __future__ import annotations


class Fault(Exception):
    """Something went wrong at a boundary; never raised itself, only its three kinds.

    *system* is whom it concerns (``"bigcommerce"``), *what* a sentence a person can act on. Neither
    may hold a secret: both are logged and stored.
    """

    def __init__(self, system: str, what: str) -> None:
        super().__init__(f"{system}: {what}")
        self.system = system
        self.what = what

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.system, self.what))


class Unavailable(Fault):
    """The system can't answer now: it is down, slow, throttling, or its answer was lost.

    The call may have taken effect. *retry_after* is in seconds; ``None`` lets the engine choose.
    """

    def __init__(self, system: str, what: str, retry_after: float | None = None) -> None:
        super().__init__(system, what)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.system, self.what, self.retry_after))


class Misunderstood(Fault):
    """The system answered something that its protocol does not allow; *what* names the path."""


class Misconfigured(Fault):
    """We can't talk to the system until a person changes our configuration of it."""
