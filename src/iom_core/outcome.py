"""A business *no*: how a refusal looks, and the one way to read a `Result`.

    result = order.cancel(...)
    if failed(result):
        return result            # or look at result.failure()
    change = result.unwrap()

`Result` is for decisions whose "no" the caller is expected to branch on; everything else raises
(see docs/adr/0002-when-result.md).
"""

from __future__ import annotations

from typing import TypeVar

import attrs
from returns.result import Failure, Result
from typing_extensions import TypeIs

V = TypeVar("V")
E = TypeVar("E")


def failed(result: Result[V, E]) -> TypeIs[Failure[E]]:
    """Narrow *result* to its failure, keeping both type arguments for the checker."""
    return isinstance(result, Failure)


@attrs.frozen
class Refused:
    """A decision that said no: nothing was changed.

    *code* is stable and for programs (``"illegal-transition"``), *what* a sentence for people, *where* a
    path into the record (``"$.lines[2].quantity"``), *who* refused (the core, a policy, a provider).
    *early* means that the same request may become legal later: such a message is parked, not dropped.
    """

    code: str
    what: str
    where: str = "$"
    who: str = "iom"
    early: bool = False

    def __str__(self) -> str:
        return f"{self.who}: {self.what} (at {self.where})"
