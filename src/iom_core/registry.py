"""Adapters by name: found by explicit argument first, by the `iom.adapters` entry-point group second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from iom_core.errors import Misconfigured

GROUP: Final = "iom.adapters"

Connect = Callable[[Mapping[str, Any]], Any]
"""Builds an adapter from its configuration."""


def available() -> tuple[str, ...]:
    """Return the names of the installed adapters, without loading any of them."""
    return tuple(sorted({each.name for each in entry_points(group=GROUP)}))


def load(name: str, explicit: Mapping[str, Connect] | None = None) -> Connect:
    """Return the function that connects adapter *name*; *explicit* ones win over installed ones.

    Raises `Misconfigured` when there is none of that name, or when loading it fails: then with the distribution that
    is broken, so that one bad plug-in never looks like another's fault.
    """
    if explicit is not None and name in explicit:
        return explicit[name]
    found = [each for each in entry_points(group=GROUP) if each.name == name]
    if not found:
        known = ", ".join((*sorted(explicit or {}), *available())) or "none"
        raise Misconfigured(name, f"no adapter of this name is installed (known: {known})")
    return _loaded(found[0])


def _loaded(point: EntryPoint) -> Connect:
    try:
        connect = point.load()
    except Exception as broken:  # a plug-in may fail in any way while it is imported
        dist = point.dist.name if point.dist is not None else "unknown distribution"
        raise Misconfigured(point.name, f"adapter {point.value} of {dist} can't be loaded: {broken}") from broken
    if not callable(connect):
        raise Misconfigured(point.name, f"adapter {point.value} is not callable")
    made: Connect = connect
    return made
